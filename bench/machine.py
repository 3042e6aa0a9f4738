"""Where the numbers come from: hardware, software, what both can reach, and what spoils timings."""

import json
import os
import platform
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import host
from bench.host import MIB
from bench.nvml import LOCKED_BIT, current_gpu, num_foreign
from bench.queued_events import Call
from bench.timing import Settings, measure

if TYPE_CHECKING:
    import torch

LIBRARIES = {
    "flash_attn": ("flash-attn",),
    "flash_attn.cute": ("flash-attn-4",),
    "fla": ("flash-linear-attention", "fla-core"),
    "natten": ("natten",),
}
"""Optional libraries: import name and the distributions that may bring it."""

WANTED = {
    "triton": ("3.6", "impls flex and fla", "pip install 'triton>=3.6'"),
    "flash_attn": ("2.8", "impl flash_attn", "pip install 'ena-bench[flash-attn]'"),
    "fla": ("0.6", "impl fla", "pip install 'ena-bench[fla]'"),
    "flash_attn.cute": ("4.0", "impl flash_attn_4", "pip install --pre 'ena-bench[flash-attn-4]'"),
    "natten": ("0.21", "impl natten", "pip install 'ena-bench[natten]'"),
}
"""What to have on CUDA: oldest version, what it gives, how to get it."""

LEAST_CAPABILITY = {"flash_attn.cute": (9, 0)}
"""Libraries for newer GPUs only: on older ones nobody misses them."""

HALF = ("bfloat16", "float16")
LOAD_LIMIT = 0.5
"""Busy cores, as a share of all, from which other programs disturb timings."""
STEADY_CLOCK = 0.75
"""Share of the highest clock that a GPU can hold under any load, so that it is fit to be locked."""

_ROW_COLUMNS = (
    *("driver", "cuda", "python", "torch", "triton", "ena_bench"),
    *("git_commit", "git_dirty", "host_id"),
)
SOURCE_TREE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """Facts about hardware and software at one moment; None means unknown.

    Args:
        host_id, gpu_id: Hashes, so that rows tell machines apart without naming them.
        num_cores: Those that this process may use.
        is_clock_limited: The driver reports a clock limit that somebody has set.
        num_foreign_processes: On the GPU, when the facts were taken.
        load_average: Of the last minute.
        libraries: Versions of those of `LIBRARIES` that are installed, and of cuDNN.
        git_commit, git_dirty: Of the source tree, where it is a checkout.
    """

    created_at: str
    host_id: str
    platform: str
    cpu_name: str
    num_cores: int
    memory_mib: float | None
    load_average: float | None
    cpu_governor: str | None
    on_battery: bool | None
    python: str
    torch: str
    triton: str | None
    cuda: str | None
    libraries: dict[str, str]
    ena_bench: str | None
    git_commit: str | None
    git_dirty: bool | None
    cuda_available: bool
    num_gpus: int = 0
    gpu_name: str | None = None
    gpu_id: str | None = None
    driver: str | None = None
    capability: tuple[int, int] | None = None
    num_sms: int | None = None
    l2_bytes: int | None = None
    gpu_memory_mib: float | None = None
    max_sm_clock_mhz: float | None = None
    max_memory_clock_mhz: float | None = None
    is_persistent: bool | None = None
    is_clock_limited: bool | None = None
    num_foreign_processes: int | None = None

    def row_values(self, device: str) -> dict[str, Any]:
        """The machine columns of a row measured on `cpu` or `cuda`."""
        on_gpu = device == "cuda"
        return {name: getattr(self, name) for name in _ROW_COLUMNS} | {
            "device_name": self.gpu_name if on_gpu else self.cpu_name,
            "device_id": self.gpu_id if on_gpu else self.host_id,
            "libraries": json.dumps(self.libraries, sort_keys=True),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Peaks:
    """What this machine was measured to reach; copies count what they read and what they write."""

    tflops_per_s: float
    bandwidth_gb_per_s: float


def facts() -> Machine:
    """Ask torch, the driver and the system; nothing is changed."""
    import torch

    return Machine(
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        host_id=_hashed(socket.gethostname()),
        platform=platform.platform(),
        cpu_name=host.cpu_name(),
        num_cores=host.num_cores(),
        memory_mib=host.memory_mib(),
        load_average=host.load_average(),
        cpu_governor=host.cpu_governor(),
        on_battery=host.on_battery(),
        python=platform.python_version(),
        torch=torch.__version__,
        triton=_version("triton"),
        cuda=torch.version.cuda,
        libraries=_library_versions(),
        ena_bench=_version("ena-bench"),
        **_git_facts(SOURCE_TREE),
        **_gpu_facts(),
    )


def measure_peaks(device: str, dtype: str) -> Peaks:
    """Time large matrix products and a large copy, and take the fastest of each.

    A peak is what no implementation can exceed. So products of float32 may use TF32 on CUDA, and
    for the half types a CPU may compute in float32, where its products of them are slow. On a CPU
    sizes are modest: all of it takes about half a second.
    """
    import torch

    generator = torch.Generator(device).manual_seed(0)
    names = [dtype, "float32"] if device == "cpu" and dtype in HALF else [dtype]
    rates: list[float] = []
    with _tensor_cores_for_float32(device):
        for name in names:
            rates += _product_rates(device, getattr(torch, name), generator)
    return Peaks(tflops_per_s=max(rates), bandwidth_gb_per_s=_copy_rate(device, generator))


def _product_rates(
    device: str, dtype: "torch.dtype", generator: "torch.Generator"
) -> Iterator[float]:
    """TFLOP/s of square products; on a CPU growing as long as the next one is short enough."""
    import torch

    for side in (4096, 8192) if device == "cuda" else (256, 512, 1024):
        a, b = (
            torch.randn(side, side, device=device, generator=generator).to(dtype) for _ in range(2)
        )
        out = torch.empty_like(a)
        fastest_ms = _fastest_ms(partial(torch.mm, a, b, out=out), device)
        yield 2 * side**3 / fastest_ms / 1e9
        if device == "cpu" and 8 * fastest_ms > 40.0:
            return


def _copy_rate(device: str, generator: "torch.Generator") -> float:
    """GB/s of a copy that no cache holds."""
    import torch

    num_mib = 512 if device == "cuda" else 64
    source = torch.randn(MIB // 4, device=device, generator=generator).repeat(num_mib)
    target = torch.empty_like(source)
    return 2 * num_mib * MIB / _fastest_ms(partial(target.copy_, source), device) / 1e6


def _fastest_ms(call: Call, device: str) -> float:
    if device == "cuda":
        settings = Settings(warmup_s=0.1, budget_s=0.2, max_samples=100)
    else:
        settings = Settings(warmup_s=0.02, budget_s=0.06, min_samples=4, max_samples=50)
    call()
    return min(measure(call, device=device, settings=settings).samples_ms)


@contextmanager
def _tensor_cores_for_float32(device: str) -> Iterator[None]:
    """Let float32 products use TF32, and put the setting back."""
    if device != "cuda":
        yield
        return
    from torch.backends import cuda

    products: Any = cuda.matmul
    before = products.fp32_precision
    products.fp32_precision = "tf32"
    try:
        yield
    finally:
        products.fp32_precision = before


def _gpu_facts() -> dict[str, Any]:
    import torch

    cuda: Any = torch.cuda

    if not cuda.is_available():
        return {"cuda_available": False}
    properties = cuda.get_device_properties(cuda.current_device())
    known: dict[str, Any] = {
        "cuda_available": True,
        "num_gpus": cuda.device_count(),
        "gpu_name": properties.name,
        "gpu_id": _hashed(str(properties.uuid)),
        "capability": (properties.major, properties.minor),
        "num_sms": properties.multi_processor_count,
        "l2_bytes": properties.L2_cache_size,
        "gpu_memory_mib": properties.total_memory / MIB,
    }
    gpu = current_gpu()
    if gpu is None:
        return known
    reasons, processes = gpu.clock_reasons(), gpu.processes()
    return known | {
        "driver": gpu.driver(),
        "max_sm_clock_mhz": gpu.max_sm_clock_mhz(),
        "max_memory_clock_mhz": gpu.max_memory_clock_mhz(),
        "is_persistent": gpu.is_persistent(),
        "is_clock_limited": None if reasons is None else bool(reasons & LOCKED_BIT),
        "num_foreign_processes": None
        if processes is None
        else num_foreign(processes, own_pid=os.getpid(), has_context=cuda.is_initialized()),
    }


def _git_facts(root: Path) -> dict[str, Any]:
    """Commit and cleanliness of a checkout; an installed package has neither."""
    commit = _git(root, "rev-parse", "HEAD") if (root / ".git").exists() else None
    changes = _git(root, "status", "--porcelain") if commit else None
    return {"git_commit": commit, "git_dirty": None if changes is None else changes != ""}


def _git(root: Path, *arguments: str) -> str | None:
    # without this, asking for the status may rewrite the index
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _library_versions() -> dict[str, str]:
    """From the metadata of installed distributions; nothing is imported."""
    import torch

    found = {
        name: installed
        for name, distributions in LIBRARIES.items()
        if (installed := next(filter(None, map(_version, distributions)), None))
    }
    cudnn_module: Any = torch.backends.cudnn
    cudnn = cudnn_module.version()
    return found if cudnn is None else {**found, "cudnn": str(cudnn)}


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _hashed(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """Something that may spoil timings or hide contenders: how it stands, and what to do."""

    name: str
    ok: bool
    text: str
    cure: str = ""


def checks(machine: Machine) -> list[Check]:
    """What would make timings on this machine unreliable or incomplete; unknowns are left out."""
    return [*_host_checks(machine), *_gpu_checks(machine), *_library_checks(machine)]


def _host_checks(machine: Machine) -> Iterator[Check]:
    if machine.load_average is not None:
        yield Check(
            name="load",
            ok=machine.load_average <= max(1.0, LOAD_LIMIT * machine.num_cores),
            text=f"{machine.load_average:.1f} of {machine.num_cores} cores were busy lately",
            cure="stop other programs; `top` lists them",
        )
    if machine.cpu_governor is not None:
        yield Check(
            name="cpu governor",
            ok=machine.cpu_governor == "performance",
            text=f"the CPU's clock is chosen by {machine.cpu_governor!r}",
            cure="sudo cpupower frequency-set --governor performance",
        )
    if machine.on_battery is not None:
        yield Check(
            name="power supply",
            ok=not machine.on_battery,
            text="on battery" if machine.on_battery else "on mains",
            cure="plug in the charger",
        )


def _gpu_checks(machine: Machine) -> Iterator[Check]:
    yield Check(
        name="cuda",
        ok=machine.cuda_available,
        text=f"{machine.gpu_name}, driver {machine.driver or 'unknown'}"
        if machine.cuda_available
        else f"torch {machine.torch} sees no CUDA device, so cases run on the CPU",
        cure="an NVIDIA GPU with its driver, and a torch built for CUDA: pip install torch",
    )
    if machine.num_foreign_processes is not None:
        yield Check(
            name="other processes",
            ok=machine.num_foreign_processes == 0,
            text=f"{machine.num_foreign_processes} on the GPU besides this one",
            cure="wait for them or stop them; `nvidia-smi` lists them",
        )
    if machine.is_persistent is not None:
        yield Check(
            name="persistence mode",
            ok=machine.is_persistent,
            text="on" if machine.is_persistent else "off: the driver may unload between runs",
            cure="sudo nvidia-smi --persistence-mode=1",
        )
    if machine.is_clock_limited is not None:
        clock_mhz = STEADY_CLOCK * (machine.max_sm_clock_mhz or 0.0)
        yield Check(
            name="locked clock",
            ok=machine.is_clock_limited,
            text="the driver reports a clock limit that was set"
            if machine.is_clock_limited
            else "no sign of one; a clock that moves while timing is reported in each row",
            cure=f"sudo nvidia-smi --lock-gpu-clocks={clock_mhz:.0f}",
        )


def _library_checks(machine: Machine) -> Iterator[Check]:
    if not machine.cuda_available:
        return
    installed = machine.libraries | ({"triton": machine.triton} if machine.triton else {})
    for name, (oldest, gives, install) in WANTED.items():
        least = LEAST_CAPABILITY.get(name)
        if least is not None and machine.capability is not None and machine.capability < least:
            continue
        found = installed.get(name)
        yield Check(
            name=name,
            ok=found is not None and _release(found) >= _release(oldest),
            text=f"{found or 'not installed'}; {oldest} or newer gives {gives}",
            cure=install,
        )


def _release(text: str) -> tuple[int, ...]:
    """The leading numbers of a version: 2.8.3.post2 is (2, 8, 3)."""
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(map(int, found[0].split("."))) if found else ()
