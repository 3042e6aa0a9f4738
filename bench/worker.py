"""The child process that measures: requests come in on one pipe, events and rows go out on another.

    python -m bench.worker --in FD --out FD --parent PID --measure MODULE:FUNCTION ...

Standard output and error belong to whatever is measured and end in the run's log.
"""

import argparse
import contextlib
import ctypes
import faulthandler
import gc
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, BinaryIO

from bench.case import Case
from bench.outcome import columns_of, described, identity, problem_of, row_without_latency, verdict
from bench.protocol import decode, encode
from bench.row import Row

PROGRESS_INTERVAL_S = 0.1
_PR_SET_PDEATHSIG = 1


class Channel:
    """The way out: whole lines, from any thread."""

    def __init__(self, fd: int) -> None:
        self._file: BinaryIO = os.fdopen(fd, "wb", buffering=0)
        self._lock = threading.Lock()
        self._last_progress_s = 0.0

    def send(self, event: str, **values: Any) -> None:
        line = memoryview(encode({"event": event, **values}))
        with self._lock:
            while line:
                line = line[self._file.write(line) :]

    def say(self, phase: str, values: Mapping[str, Any]) -> None:
        """A phase begins (no values) or goes on with an estimate; few enough of those to watch."""
        if not values:
            self.send("phase", name=phase)
            return
        now_s = time.monotonic()
        if now_s - self._last_progress_s >= PROGRESS_INTERVAL_S:
            self._last_progress_s = now_s
            self.send("progress", name=phase, values=dict(values))


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve requests until the parent closes the pipe or dies."""
    options = _options(arguments)
    _die_with(options.parent)
    faulthandler.enable()
    # the parent asks for a stack before it kills a process that hangs
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    for fd in (options.fd_in, options.fd_out):
        os.set_inheritable(fd, False)
    channel = Channel(options.fd_out)
    try:
        machine = _load(options.facts)()
    except Exception as err:
        traceback.print_exc()
        channel.send("error", text=described(err))
        return 1
    channel.send("hello", machine=machine)
    # what exists now stays: collecting between cases then looks at what the cases left only
    gc.collect()
    gc.freeze()
    with os.fdopen(options.fd_in, "rb") as requests, contextlib.suppress(BrokenPipeError):
        for line in requests:
            _answer(decode(line), options, machine, channel)
    return 0


def _answer(
    request: dict[str, Any], options: argparse.Namespace, machine: Any, channel: Channel
) -> None:
    match request["request"]:
        case "ping":
            channel.send("pong")
        case "peaks":
            _answer_peaks(_load(options.peaks), request, channel)
        case "measure":
            _answer_measure(request, options.measure, machine, channel)


def _answer_measure(request: dict[str, Any], path: str, machine: Any, channel: Channel) -> None:
    num_modules = len(sys.modules)
    row = _measured(request, path, machine, channel.say)
    try:
        channel.send("row", row=row)
    except TypeError as err:
        reason = f"measuring returned a row that cannot be sent: {err}"
        values = _known(request, machine)
        channel.send("row", row=row_without_latency(values, status="failed", reason=reason))
    del row
    if len(sys.modules) > num_modules:
        _keep_what_exists()
    else:
        gc.collect()


def _keep_what_exists() -> None:
    """Collecting between cases then looks at what cases left, not at the libraries they loaded."""
    gc.collect()
    gc.freeze()


def _answer_peaks(
    measure_peaks: Callable[..., Any], request: dict[str, Any], channel: Channel
) -> None:
    try:
        channel.send("peaks", peaks=measure_peaks(request["device"], request["dtype"]))
    except Exception as err:
        traceback.print_exc()
        channel.send("error", text=described(err))


def _measured(
    request: dict[str, Any], path: str, machine: Any, say: Callable[[str, Mapping[str, Any]], None]
) -> Row:
    """One case as a row, whatever happens while it is measured."""
    case: Case = request["case"]
    print(f"--- {case.case_path} round {request['round']}", file=sys.stderr, flush=True)
    try:
        row = _load(path)(
            case,
            request["settings"],
            machine=machine,
            peaks=request["peaks"],
            round=request["round"],
            run_id=request["run_id"],
            say=say,
        )
        problem = problem_of(row, case, round=request["round"])
    # a contender may call sys.exit or raise KeyboardInterrupt; neither may end the worker
    except (Exception, SystemExit, KeyboardInterrupt) as err:
        traceback.print_exc()
        status, reason, values = verdict(err)
        known = _known(request, machine) | values
        return row_without_latency(known, status=status, reason=reason)
    if problem is not None:
        return row_without_latency(_known(request, machine), status="failed", reason=problem)
    if row.status != "ok":
        return row_without_latency(columns_of(row), status=row.status, reason=row.reason or "")
    measured: Row = row
    return measured


def _known(request: dict[str, Any], machine: Any) -> dict[str, Any]:
    case: Case = request["case"]
    known = identity(
        case, round=request["round"], run_id=request["run_id"], seed=request["settings"].seed
    )
    known |= machine.row_values(case.device)
    return known


def _load(path: str) -> Callable[..., Any]:
    module, _, function = path.partition(":")
    loaded: Callable[..., Any] = getattr(import_module(module), function)
    return loaded


def _die_with(parent: int) -> None:
    """Let the kernel kill this process when its parent dies, however that comes about."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.worker", description=__doc__)
    parser.add_argument("--in", dest="fd_in", type=int, required=True)
    parser.add_argument("--out", dest="fd_out", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--measure", required=True)
    parser.add_argument("--facts", required=True)
    parser.add_argument("--peaks", required=True)
    return parser.parse_args(arguments)


def _leave(code: int) -> None:
    """End at once, after everything that was written is out.

    What libraries do at exit is no concern of a run: some of them list objects that they count as
    leaked, which would fill the log.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


if __name__ == "__main__":
    _leave(main())
