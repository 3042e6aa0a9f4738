"""The parent of one warm worker: sends it cases, watches the clock, and buries it when it dies.

An `Executor` serves one device. Several may work on one run directory, each in a process or thread
of its own that lives as long: Linux kills a worker together with the thread that started it.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from bench.case import Case
from bench.child import Child, GoneError, LateError, Log
from bench.errors import EnaBenchError, UsageError
from bench.outcome import identity, problem_of, row_without_latency
from bench.protocol import ProtocolError
from bench.row import Row

if TYPE_CHECKING:
    from bench.machine import Machine, Peaks
    from bench.timing import Settings

OnEvent = Callable[[str, Mapping[str, Any]], None]
START_TIMEOUT_S = 180.0
KEEPS_WORKER = ("ok", "unsupported")


class Executor:
    """One warm worker for one device, started when first needed and anew after any mishap.

    Args:
        device: `cpu`, `cuda`, or `cuda:N` to show the worker the Nth visible GPU only.
        timeout_s: Longest time for one case, all phases together.
        log_path: Where the worker's output is appended.
        measure, facts, peaks: `module:function` that the worker imports and calls.
    """

    def __init__(
        self,
        *,
        device: str,
        settings: "Settings",
        timeout_s: float,
        log_path: Path,
        measure: str = "bench.measurement:measure",
        facts: str = "bench.machine:facts",
        peaks: str = "bench.machine:measure_peaks",
    ) -> None:
        self._environment = _environment(device)
        self.settings = settings
        self._timeout_s = timeout_s
        self._log = Log(log_path)
        self._functions = {"--measure": measure, "--facts": facts, "--peaks": peaks}
        self._worker: Child | None = None
        self._peaks: dict[tuple[str, str], Peaks | None] = {}
        self._peaks_problem: str | None = None
        self.known_machine: Machine | None = None
        """What the last worker said about the machine; None before the first started."""

    def machine(self) -> "Machine":
        """Facts about the machine, from the worker; starts it if it is not running.

        Raises:
            EnaBenchError: no worker can be started.
        """
        return self._started()[1]

    def peaks(self, device: str, dtype: str) -> "Peaks | None":
        """Measured peaks of this machine, once for each dtype; None where that went wrong.

        Raises:
            EnaBenchError: no worker can be started.
        """
        key = (device, dtype)
        if key not in self._peaks:
            request = {"request": "peaks", "device": device, "dtype": dtype}
            try:
                self._peaks[key] = self._ask(request, "peaks", "peaks", _ignore)
            except _LostError as lost:
                self._peaks[key] = None
                self._peaks_problem = f"peaks of {dtype} on {device} are unknown: {lost.reason}"
        return self._peaks[key]

    def measure(
        self, case: Case, *, round: int, run_id: str, on_event: OnEvent | None = None
    ) -> Row:
        """Measure a case once; whatever happens to the worker ends in the row.

        Args:
            on_event: Told each phase as it begins (no values) and the estimate while timing.

        Raises:
            EnaBenchError: no worker can be started.
        """
        peaks = self.peaks(case.device, case.dtype)
        machine = self.machine()
        request = {
            "request": "measure",
            "case": case,
            "settings": self.settings,
            "peaks": peaks,
            "round": round,
            "run_id": run_id,
        }
        known = identity(case, round=round, run_id=run_id, seed=self.settings.seed)
        known |= machine.row_values(case.device)
        try:
            row: Row = self._ask(request, "row", "start", on_event or _ignore)
            if problem := problem_of(row, case, round=round):
                self._drop()
                raise _LostError("crashed", f"worker spoke nonsense: {problem}")
        except _LostError as lost:
            return row_without_latency(known, status=lost.status, reason=lost.reason)
        if row.status not in KEEPS_WORKER:
            self.close()
        if peaks is None and self._peaks_problem:
            return replace(row, warnings=[*(row.warnings or ()), self._peaks_problem])
        return row

    def close(self) -> None:
        """End the worker; the next request starts another."""
        if self._worker is not None:
            worker, self._worker = self._worker, None
            worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _ask(self, request: Mapping[str, Any], answer: str, phase: str, on_event: OnEvent) -> Any:
        """Send a request; return what the answering event holds.

        Raises:
            _LostError: the worker died, was too slow, or spoke nonsense; it is gone.
        """
        worker = self._started()[0]
        self._log.mark()
        deadline_s = time.monotonic() + self._timeout_s
        try:
            worker.send(request)
            while True:
                message = worker.receive(deadline_s)
                match message:
                    case {"event": "phase", "name": str(phase)}:
                        on_event(phase, {})
                    case {"event": "progress", "name": str(name), "values": dict(values)}:
                        on_event(name, values)
                    case {"event": event} if event == answer and answer in message:
                        return message[answer]
                    case {"event": "error", "text": str(text)}:
                        raise _LostError("failed", text)
                    case _:
                        raise ProtocolError(f"{message!r:.80} answers no request")
        except LateError:
            worker.dump_stacks()
            self._drop()
            reason = f"no result within {self._timeout_s:g} s, in phase {phase}"
            raise _LostError("timeout", reason + self._log.excerpt()) from None
        except GoneError as err:
            self._drop()
            reason = f"{err} in phase {phase}"
            raise _LostError("crashed", reason + self._log.excerpt()) from None
        except ProtocolError as err:
            self._drop()
            reason = f"worker spoke nonsense in phase {phase}: {err}"
            raise _LostError("crashed", reason) from None
        except BaseException:
            self._drop()
            raise

    def _started(self) -> "tuple[Child, Machine]":
        if self._worker is not None and self.known_machine is not None:
            if self._worker.is_ready():
                return self._worker, self.known_machine
            self._drop()
        self._log.mark()
        worker = Child(self._functions, self._environment, self._log.path)
        try:
            match worker.receive(time.monotonic() + START_TIMEOUT_S):
                case {"event": "hello", "machine": machine}:
                    self._worker, self.known_machine = worker, machine
                    return worker, machine
                case {"event": "error", "text": str(text)}:
                    problem = text
                case other:
                    problem = f"it said {other!r:.80} instead of hello"
        except LateError:
            worker.dump_stacks()
            problem = f"it said nothing for {START_TIMEOUT_S:g} s"
        except (GoneError, ProtocolError) as err:
            problem = str(err)
        except BaseException:
            worker.kill()
            raise
        worker.kill()
        raise EnaBenchError(
            f"the worker process did not start: {problem}{self._log.excerpt()}",
            expected="a Python that can import torch and ask the device for its properties",
            try_=f"ena-bench doctor; the whole output is in {self._log.path}",
        )

    def _drop(self) -> None:
        if self._worker is not None:
            worker, self._worker = self._worker, None
            worker.kill()


class _LostError(Exception):
    """A request has no answer: the status and reason of its row."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def _environment(device: str) -> dict[str, str]:
    """The parent's environment and import path; of the GPUs, only the one that `device` names."""
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(str(Path(p).resolve()) for p in sys.path)
    # a worker that follows another must run what that one tuned, and not tune for minutes again
    environment.setdefault("TRITON_CACHE_AUTOTUNING", "1")
    kind, _, index = device.partition(":")
    if not index:
        return environment
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else None
    if kind != "cuda" or not index.isdecimal() or (names and int(index) >= len(names)):
        raise UsageError(
            f"device {device!r} does not name a visible GPU",
            expected="cpu, cuda, or cuda:N with N below the number of visible GPUs",
            try_="--device cuda:0",
        )
    environment["CUDA_VISIBLE_DEVICES"] = names[int(index)] if names else index
    return environment


def _ignore(phase: str, values: Mapping[str, Any]) -> None:
    """Nobody listens."""
