"""The computer around the GPU; None where the system does not say."""

import os
import platform
from pathlib import Path

MIB = 2**20
CPU_INFO = Path("/proc/cpuinfo")
GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
POWER_SUPPLIES = Path("/sys/class/power_supply")


def cpu_name(info: Path = CPU_INFO) -> str:
    """The model as the system spells it, or at least the architecture."""
    lines = (_text(info) or "").splitlines()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, "") or platform.processor() or platform.machine()


def num_cores() -> int:
    """Logical cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_mib() -> float | None:
    """All of the main memory."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / MIB
    except (AttributeError, OSError, ValueError):
        return None


def load_average() -> float | None:
    """Threads that ran or wanted to, mean of the last minute."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def cpu_governor(file: Path = GOVERNOR) -> str | None:
    """How the first core's clock is chosen, such as `performance`; virtual machines hide it."""
    return _text(file)


def on_battery(supplies: Path = POWER_SUPPLIES) -> bool | None:
    """Whether a battery is being drained; None without a battery."""
    states = [
        _text(supply / "status")
        for supply in (supplies.iterdir() if supplies.is_dir() else ())
        if _text(supply / "type") == "Battery"
    ]
    return "Discharging" in states if states else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
