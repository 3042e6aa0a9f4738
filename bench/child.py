"""A worker process as its parent sees it: pipes, deadlines, how it died, what it logged."""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from bench.errors import StorageError
from bench.protocol import LineBuffer, ProtocolError, decode, encode

_DEATH_CHECK_S = 0.5
_PING_S = 10.0
_GOODBYE_S = 3.0
_STACK_DUMP_S = 0.3
_EXCERPT_LINES = 5
_TAIL_BYTES = 2**16


class LateError(Exception):
    """The deadline passed before a message came."""


class GoneError(Exception):
    """The worker is dead; says how it died."""


class Child:
    """One child process, in a session of its own so that Ctrl-C reaches the parent alone."""

    def __init__(
        self, functions: Mapping[str, str], environment: Mapping[str, str], log_path: Path
    ) -> None:
        requests_out, self._requests = os.pipe()
        self._events, events_in = os.pipe()
        command = [sys.executable, "-P", "-u", "-m", "bench.worker"]
        command += [
            "--in",
            str(requests_out),
            "--out",
            str(events_in),
            "--parent",
            str(os.getpid()),
        ]
        command += [word for pair in functions.items() for word in pair]
        try:
            with _opened(log_path) as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    pass_fds=(requests_out, events_in),
                    start_new_session=True,
                )
        except BaseException:
            os.close(self._requests)
            os.close(self._events)
            raise
        finally:
            os.close(requests_out)
            os.close(events_in)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._events, selectors.EVENT_READ)
        self._buffer = LineBuffer()
        self._lines: list[bytes] = []

    def is_ready(self) -> bool:
        """Whether it lives, answers at once, and has left nothing unread from before."""
        try:
            self.send({"request": "ping"})
            return self.receive(time.monotonic() + _PING_S) == {"event": "pong"}
        except (GoneError, LateError, ProtocolError):
            return False

    def send(self, message: Mapping[str, Any]) -> None:
        """Raises GoneError if nobody is there to read."""
        line = memoryview(encode(message))
        try:
            while line:
                line = line[os.write(self._requests, line) :]
        except BrokenPipeError:
            raise GoneError(self._cause_of_death()) from None

    def receive(self, deadline_s: float) -> dict[str, Any]:
        """The next message.

        Raises:
            LateError: none came before the deadline.
            GoneError: the worker died.
            ProtocolError: it wrote something else than a message.
        """
        while not self._lines:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise LateError
            if self._selector.select(min(left_s, _DEATH_CHECK_S)):
                data = os.read(self._events, 2**16)
                if not data:
                    raise GoneError(self._cause_of_death())
                self._lines += self._buffer.feed(data)
            # a grandchild may hold the pipe open after the worker died
            elif self._process.poll() is not None:
                raise GoneError(self._cause_of_death())
        return decode(self._lines.pop(0))

    def dump_stacks(self) -> None:
        """Let the worker write to the log where it hangs."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGUSR1)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STACK_DUMP_S)

    def close(self) -> None:
        """Let the worker end by itself, then make sure."""
        self._close_requests()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GOODBYE_S)
        self.kill()

    def kill(self) -> None:
        """End the worker and every process it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        # a process that a driver holds cannot be killed; do not wait for it for ever
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GOODBYE_S)
        self._close_requests()
        if self._events >= 0:
            self._selector.close()
            os.close(self._events)
            self._events = -1

    def _close_requests(self) -> None:
        if self._requests >= 0:
            os.close(self._requests)
            self._requests = -1

    def _cause_of_death(self) -> str:
        try:
            code = self._process.wait(_GOODBYE_S)
        except subprocess.TimeoutExpired:
            return "worker closed its pipe"
        if code >= 0:
            return f"worker exited with code {code}"
        name = signal.Signals(-code).name
        hint = " (by the kernel if memory ran out)" if name == "SIGKILL" else ""
        return f"worker was killed by {name}{hint}"


class Log:
    """The tail of a log that grows: what was written since the last mark."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mark_bytes = 0

    def mark(self) -> None:
        self._mark_bytes = self.path.stat().st_size if self.path.exists() else 0

    def excerpt(self) -> str:
        """The lines that tell most, to append to a reason; empty if nothing was written."""
        with self.path.open("rb") as file:
            end_bytes = file.seek(0, os.SEEK_END)
            file.seek(max(self._mark_bytes, end_bytes - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
        lines = [line.strip() for line in lines]
        lines = [line for line in lines if line and not line.startswith("Extension modules:")]
        stacks = [i for i, line in enumerate(lines) if "(most recent call first)" in line]
        # Python's fault handler writes the innermost frame first
        told = lines[stacks[-1] + 1 :][:_EXCERPT_LINES] if stacks else lines[-_EXCERPT_LINES:]
        return f"; log: {' | '.join(told)}" if told else ""


def _opened(log_path: Path) -> BinaryIO:
    try:
        return log_path.open("ab")
    except OSError as err:
        raise StorageError(
            f"{log_path} cannot be written: {err.strerror}",
            expected="a log file in a directory that exists and is writable",
            try_="ena-bench run -o runs/another",
        ) from err
