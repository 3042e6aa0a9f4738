"""Memory of one call, counted in a pass of its own and outside any clock.

On CUDA the caching allocator is asked. On a CPU every allocation and release that torch makes
during the call is added up, so the peak is exact, also for what is gone again before the end;
scratch space that libraries allocate behind torch's back is in `process_mib` only.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from bench.fingerprint import profiled_events
from bench.nvml import own_gpu_mib

if TYPE_CHECKING:
    from torch import Tensor

MIB = 2**20

Call = Callable[[], object]


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Where the memory of a call goes.

    Args:
        parameters_mib, inputs_mib: Storage of the tensors, each storage once; one that is both
            counts as a parameter.
        peak_memory_mib: Most that was allocated at once. On a CPU that is parameters, inputs and
            activations; on CUDA also what else was resident.
        activations_mib: Peak above everything allocated before the call.
        reserved_mib: Most that the caching allocator held; None on a CPU, which has none.
        process_mib: The process after the call: device memory on CUDA, resident memory on a CPU.
            None where the system does not say.
    """

    parameters_mib: float
    inputs_mib: float
    peak_memory_mib: float
    activations_mib: float
    reserved_mib: float | None
    process_mib: float | None


def measure_memory(
    call: Call,
    *,
    device: str,
    parameters: Iterable["Tensor"],
    inputs: Iterable["Tensor"],
    reset: Call | None = None,
) -> Memory:
    """Run the call once and count.

    Args:
        reset: Runs before, so that gradients count as made by the call, and after.
    """
    parameter_sizes = _storage_bytes(parameters)
    input_sizes = _storage_bytes(inputs)
    inputs_bytes = sum(size for at, size in input_sizes.items() if at not in parameter_sizes)
    resident_bytes = sum(parameter_sizes.values()) + inputs_bytes
    if reset is not None:
        reset()
    if device == "cuda":
        peak_bytes, activations_bytes, reserved_bytes = _cuda_bytes(call)
        process_mib = own_gpu_mib()
    else:
        activations_bytes = _cpu_peak_bytes(call)
        peak_bytes, reserved_bytes = resident_bytes + activations_bytes, None
        process_mib = resident_process_mib()
    if reset is not None:
        reset()
    return Memory(
        parameters_mib=sum(parameter_sizes.values()) / MIB,
        inputs_mib=inputs_bytes / MIB,
        peak_memory_mib=peak_bytes / MIB,
        activations_mib=activations_bytes / MIB,
        reserved_mib=None if reserved_bytes is None else reserved_bytes / MIB,
        process_mib=process_mib,
    )


def resident_process_mib(status: Path = Path("/proc/self/status")) -> float | None:
    """Resident memory of this process; None where the system has no /proc."""
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return None
    kib = next((line.split()[1] for line in lines if line.startswith("VmRSS:")), None)
    return None if kib is None else int(kib) / 1024


def _storage_bytes(tensors: Iterable["Tensor"]) -> dict[int, int]:
    """Address and size of every storage behind the tensors; views share one."""
    storages = (tensor.untyped_storage() for tensor in tensors)
    return {storage.data_ptr(): storage.nbytes() for storage in storages if storage.nbytes()}


def _cuda_bytes(call: Call) -> tuple[int, int, int]:
    """Peak allocated, peak above what was allocated before, and peak reserved."""
    from torch import cuda

    cuda.synchronize()
    # blocks that earlier calls left in the cache would count as reserved by this one
    cuda.empty_cache()
    before = cuda.memory_allocated()
    cuda.reset_peak_memory_stats()
    call()
    cuda.synchronize()
    peak = cuda.max_memory_allocated()
    return peak, peak - before, cuda.max_memory_reserved()


def _cpu_peak_bytes(call: Call) -> int:
    """Peak of the running sum of allocations and releases, from nothing."""
    events = profiled_events(call, "cpu", profile_memory=True)
    changes: list[tuple[int, int]] = [
        (e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"
    ]
    # the sort is stable: changes within one tick of the clock stay in their order
    in_order = (size for _, size in sorted(changes, key=lambda change: change[0]))
    return max(accumulate(in_order, initial=0))
