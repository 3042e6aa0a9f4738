"""What a worker imports in tests instead of torch: a machine, settings, and measuring gone wrong.

`Case.batch` chooses the fault: `FAULTS` in order, from 1.
"""

import ctypes
import math
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

from bench.outcome import Incorrect, identity
from bench.row import Row
from ena_kernels.errors import UnsupportedError


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    device_name: str
    worker_pid: int
    capability: tuple[int, int]

    def row_values(self, device):
        return {"device_name": f"{self.device_name} {device}"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    seed: int = 3
    case_s: float = 0.0
    journal: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Peaks:
    tflops_per_s: float
    bandwidth_gb_per_s: float


def facts():
    return Machine(device_name="fake", worker_pid=os.getpid(), capability=(9, 0))


def facts_without_torch():
    raise ImportError("libcudart.so.13: cannot open shared object file")


def facts_that_exit():
    print("the driver is older than the runtime", flush=True)
    os._exit(7)


def measure_peaks(device, dtype):
    return Peaks(tflops_per_s=float(len(dtype)), bandwidth_gb_per_s=float(os.getpid()))


def peaks_that_raise(device, dtype):
    raise ValueError(f"no product of {dtype}")


def peaks_that_crash(device, dtype):
    os._exit(9)


def measure(case, settings, *, machine, peaks, round, run_id, say):
    _note(settings, f"begin {case.case_id} {round} {os.getpid()}")
    say("build", {})
    time.sleep(settings.case_s)
    known = identity(case, round=round, run_id=run_id, seed=settings.seed)
    row = Row(
        **known,
        **machine.row_values(case.device),
        status="ok",
        latency_ms=1.5,
        samples_ms=[1.25, 1.5, 1.75],
        error_forward=math.inf,
        num_warmup=os.getpid(),
        warnings=["torch was imported"] if "torch" in sys.modules else [],
        peak_tflops_per_s=peaks.tflops_per_s if peaks else None,
    )
    say("time", {"num_samples": 2, "latency_ms": math.nan})
    row = FAULTS[case.batch - 1](row)
    _note(settings, f"end {case.case_id} {round} {os.getpid()}")
    return row


def _note(settings, line):
    if settings.journal:
        with Path(settings.journal).open("a") as journal:
            journal.write(line + "\n")


def none(row):
    return row


def segfault(row):
    print("about to read address 0")
    ctypes.string_at(0)


def exit_code(row):
    os._exit(3)


def sys_exit(row):
    sys.exit("enough")


def hang(row):
    time.sleep(600)


def memory_error(row):
    raise MemoryError


def cuda_out_of_memory(row):
    class OutOfMemoryError(RuntimeError):
        """Named as torch's."""

    raise OutOfMemoryError("Tried to allocate 80.00 GiB")


def wrapped_out_of_memory(row):
    try:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 TB")
    except RuntimeError as err:
        raise ValueError("the compiler failed") from err


def raises(row):
    raise ValueError("tile (3,) does not divide 128")


def recompiles(row):
    class FailOnRecompileLimitHit(Exception):  # noqa: N818 - named as torch's
        """Named as torch's."""

    raise FailOnRecompileLimitHit("recompile limit 8 reached")


def unsupported(row):
    raise UnsupportedError("triton runs on CUDA only", expected="cuda", try_="impl='eager'")


def incorrect(row):
    raise Incorrect("dq is off by 0.3", error_gradient=0.3, latency_ms=0.1, tflops_per_s=9.0)


def unknown_column(row):
    raise Incorrect("dq is off by 0.3", error_of_dq=0.3)


def latency_without_ok(row):
    return replace(row, status="fallback", reason="eager ran")


def prints(row):
    os.write(1, b'\xff\x00{"event":"row"}\n' * 5000)
    os.write(2, b'{"event":"quit"}\n')
    return row


def pipe_garbage(row):
    os.write(_events_fd(), b"\xfe\xffwhat\n")
    return row


def pipe_wrong_message(row):
    os.write(_events_fd(), b'{"event":"row","row":{"latency_ms":1}}\n')
    return row


def pipe_garbage_afterwards(row):
    threading.Timer(0.05, pipe_garbage, [row]).start()
    return row


def pipe_closed(row):
    os.close(_events_fd())
    time.sleep(600)


def dies_with_child_on_the_pipe(row):
    child = subprocess.Popen(["sleep", "600"], pass_fds=(_events_fd(),))
    print(f"child {child.pid}")
    os._exit(5)


def returns_number(row):
    return 1.5


def other_case(row):
    return replace(row, case_id="0123456789abcdef")


def nan_latency(row):
    return replace(row, latency_ms=math.nan)


def unknown_status(row):
    return replace(row, status="fine")


def unsendable(row):
    return replace(row, autotune={1, 2})


def _events_fd():
    return int(sys.argv[sys.argv.index("--out") + 1])


FAULTS = (
    none,
    segfault,
    exit_code,
    sys_exit,
    hang,
    memory_error,
    cuda_out_of_memory,
    wrapped_out_of_memory,
    raises,
    recompiles,
    unsupported,
    incorrect,
    unknown_column,
    latency_without_ok,
    prints,
    pipe_garbage,
    pipe_garbage_afterwards,
    pipe_wrong_message,
    pipe_closed,
    dies_with_child_on_the_pipe,
    returns_number,
    other_case,
    nan_latency,
    unknown_status,
    unsendable,
)
