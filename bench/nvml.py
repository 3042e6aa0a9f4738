"""What the driver says about one GPU; every answer may be None, because drivers differ.

Only questions: nothing here changes a setting of the GPU.
"""

import os
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

IDLE_BIT = 0x1
LOCKED_BIT = 0x2
THROTTLE_BITS = {
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake",
    0x100: "display_clock_setting",
}
"""Why a clock is lower than it could be (NVML, nvmlClocksEventReasons)."""

MIB = 2**20


class GpuProcess(NamedTuple):
    """A process with a context on the GPU; its memory where the driver tells."""

    pid: int
    memory_mib: float | None


class Gpu:
    """One GPU of the driver.

    Args:
        nvml: The module `pynvml`, or something that behaves like it.
        handle: NVML's handle of the device.
    """

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml = nvml
        self._handle = handle

    def sm_clock_mhz(self) -> float | None:
        return self._number("nvmlDeviceGetClockInfo", self._nvml.NVML_CLOCK_SM)

    def max_sm_clock_mhz(self) -> float | None:
        return self._number("nvmlDeviceGetMaxClockInfo", self._nvml.NVML_CLOCK_SM)

    def max_memory_clock_mhz(self) -> float | None:
        return self._number("nvmlDeviceGetMaxClockInfo", self._nvml.NVML_CLOCK_MEM)

    def power_w(self) -> float | None:
        """At this moment; where the driver does not tell, what may be a mean of the last second."""
        milliwatts = self._field("NVML_FI_DEV_POWER_INSTANT")
        if milliwatts is not None:
            return milliwatts * 1e-3
        return self._number("nvmlDeviceGetPowerUsage", scale=1e-3)

    def temperature_c(self) -> float | None:
        return self._number("nvmlDeviceGetTemperature", self._nvml.NVML_TEMPERATURE_GPU)

    def clock_reasons(self) -> int | None:
        """Bits: `IDLE_BIT`, `LOCKED_BIT` and those of `THROTTLE_BITS`."""
        bits = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        return None if bits is None else int(bits)

    def is_persistent(self) -> bool | None:
        """Whether the driver stays loaded while nobody uses the GPU."""
        mode = self._ask("nvmlDeviceGetPersistenceMode")
        return None if mode is None else bool(mode)

    def driver(self) -> str | None:
        version = self._ask("nvmlSystemGetDriverVersion", of_device=False)
        return None if version is None else str(version)

    def processes(self) -> list[GpuProcess] | None:
        """Processes that compute; their pids may be those of the host, outside a container."""
        found = self._ask("nvmlDeviceGetComputeRunningProcesses")
        if found is None:
            return None
        return [
            GpuProcess(p.pid, None if p.usedGpuMemory is None else p.usedGpuMemory / MIB)
            for p in found
        ]

    def _field(self, name: str) -> float | None:
        """A field that only newer drivers, and bindings, know by its name."""
        number = getattr(self._nvml, name, None)
        found = None if number is None else self._ask("nvmlDeviceGetFieldValues", [number])
        if not found or found[0].nvmlReturn != self._nvml.NVML_SUCCESS:
            return None
        return float(found[0].value.uiVal)

    def _number(self, query: str, *args: Any, scale: float = 1.0) -> float | None:
        value = self._ask(query, *args)
        return None if value is None else value * scale

    def _ask(self, query: str, *args: Any, of_device: bool = True) -> Any:
        try:
            return getattr(self._nvml, query)(*((self._handle,) if of_device else ()), *args)
        except self._nvml.NVMLError:
            return None


@cache
def current_gpu() -> Gpu | None:
    """The GPU that torch computes on; None without CUDA, NVML or the right to ask."""
    try:
        import pynvml
    except ImportError:
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    uuid = torch.cuda.get_device_properties(torch.cuda.current_device()).uuid
    try:
        pynvml.nvmlInit()
        # by UUID, because torch and NVML may count the devices in different orders
        return Gpu(pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}"))
    except pynvml.NVMLError:
        return None


def num_foreign(processes: Sequence[GpuProcess], *, own_pid: int, has_context: bool = True) -> int:
    """How many of the processes are not this one.

    In a container the driver may list us under the host's pid. Then no pid is ours, and exactly
    one of those we do not know is we, provided that we use the GPU at all (`has_context`).
    """
    others = [p for p in processes if p.pid != own_pid]
    is_listed = len(others) < len(processes)
    return max(0, len(others) - (1 if has_context and not is_listed else 0))


def own_gpu_mib(gpu: Gpu | None = None) -> float | None:
    """Device memory of this process, context and libraries included; None if it cannot be told."""
    gpu = gpu or current_gpu()
    processes = gpu.processes() if gpu is not None else None
    if not processes:
        return None
    ours = [p for p in processes if p.pid == os.getpid()]
    if not ours and len(processes) == 1:
        ours = processes
    return ours[0].memory_mib if ours else None
