"""pytest: the fixture `gpu_benchmark`, which puts GPU timings into pytest-benchmark's storage.

pytest loads this module at its start, so torch waits until a test asks for the fixture. Without
pytest-benchmark the fixture skips and says what to install.
"""

from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from bench.gpu_benchmark import GpuBenchmark

MARKER = "gpu_benchmark(timer, budget_s, warmup_s, precision, min_samples, max_samples): how long \
and how precisely the fixture gpu_benchmark measures this test"
STORAGE = ("benchmark", "pytest_benchmark.plugin")
"""Names that pytest knows pytest-benchmark by: installed, and given with -p."""
SOFTWARE = {"torch": "torch", "triton": "triton", "ena_bench": "ena-bench"}


def pytest_configure(config: pytest.Config) -> None:
    """Offer the fixture that this installation can serve."""
    config.addinivalue_line("markers", MARKER)
    has_storage = any(map(config.pluginmanager.hasplugin, STORAGE))
    fixtures = Recording() if has_storage else Skipping()
    config.pluginmanager.register(fixtures, "ena_bench_fixtures")


class Recording:
    """With pytest-benchmark: its storage, its comparison, our clock."""

    @pytest.fixture
    def gpu_benchmark(self, benchmark: Any, request: pytest.FixtureRequest) -> "GpuBenchmark":
        """Time a callable by CUDA events with a cold L2; on a CPU by the wall clock."""
        from bench.gpu_benchmark import GpuBenchmark

        marker = request.node.get_closest_marker("gpu_benchmark")
        return GpuBenchmark(benchmark, settings=marker.kwargs if marker else {})

    def pytest_benchmark_update_machine_info(self, machine_info: dict[str, Any]) -> None:
        """What pytest-benchmark does not know: GPUs, their driver, and what computes on them."""
        machine_info["ena_bench"] = {**_installed(), **_gpus()}


class Skipping:
    """Without pytest-benchmark: a fixture that says so."""

    @pytest.fixture
    def gpu_benchmark(self) -> None:
        pytest.skip("gpu_benchmark needs pytest-benchmark: pip install 'pytest-benchmark>=4'")


def _installed() -> dict[str, str | None]:
    found: dict[str, str | None] = dict.fromkeys(SOFTWARE)
    for name, distribution in SOFTWARE.items():
        with suppress(PackageNotFoundError):
            found[name] = version(distribution)
    return found


def _gpus() -> dict[str, Any]:
    """Names and driver, asked of the driver itself: pytest-benchmark wants them at its start."""
    unknown: dict[str, Any] = {"gpus": [], "driver": None}
    try:
        import pynvml
    except ImportError:
        return unknown
    try:
        pynvml.nvmlInit()
        return {
            "gpus": list(_gpu_names(pynvml)),
            "driver": str(pynvml.nvmlSystemGetDriverVersion()),
        }
    except pynvml.NVMLError:
        return unknown


def _gpu_names(nvml: Any) -> Iterator[str]:
    for index in range(nvml.nvmlDeviceGetCount()):
        yield str(nvml.nvmlDeviceGetName(nvml.nvmlDeviceGetHandleByIndex(index)))
