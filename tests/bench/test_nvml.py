"""Questions to a fake driver that refuses some of them, and whose processes are whose."""

import os
from types import SimpleNamespace

import pytest

from bench.nvml import Gpu, GpuProcess, num_foreign, own_gpu_mib

OWN = os.getpid()


class RefusingNvml:
    """A driver that knows the processes and refuses everything else."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    class NVMLError(Exception):
        pass

    def __init__(self, processes=None):
        self.running = processes

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        if self.running is None:
            raise self.NVMLError
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in self.running]

    def __getattr__(self, name):
        if not name.startswith("nvml"):
            raise AttributeError(name)

        def refuse(*_):
            raise self.NVMLError

        return refuse


def test_whatever_the_driver_refuses_is_unknown():
    gpu = Gpu(RefusingNvml(), "handle")
    answers = [
        gpu.sm_clock_mhz(),
        gpu.max_sm_clock_mhz(),
        gpu.max_memory_clock_mhz(),
        gpu.power_w(),
        gpu.temperature_c(),
        gpu.clock_reasons(),
        gpu.is_persistent(),
        gpu.driver(),
        gpu.processes(),
    ]
    assert answers == [None] * 9


class InstantNvml(RefusingNvml):
    """A driver that tells the power of this moment beside the mean of the last second."""

    NVML_SUCCESS, NVML_FI_DEV_POWER_INSTANT = 0, 186

    def __init__(self, answer=0):
        super().__init__()
        self.answer = answer

    def nvmlDeviceGetFieldValues(self, handle, fields):
        assert (handle, fields) == ("gpu", [186])
        return [SimpleNamespace(nvmlReturn=self.answer, value=SimpleNamespace(uiVal=412_500))]

    def nvmlDeviceGetPowerUsage(self, handle):
        return 98_000


def test_the_power_is_that_of_this_moment_where_the_driver_tells_it():
    assert Gpu(InstantNvml(), "gpu").power_w() == 412.5


def test_otherwise_the_power_is_what_the_driver_calls_usage():
    not_supported = InstantNvml(answer=3)
    older_bindings = InstantNvml()
    older_bindings.NVML_FI_DEV_POWER_INSTANT = None
    assert Gpu(not_supported, "gpu").power_w() == 98.0
    assert Gpu(older_bindings, "gpu").power_w() == 98.0


def test_numbers_arrive_in_the_units_of_their_names():
    class Nvml(RefusingNvml):
        def nvmlDeviceGetClockInfo(self, handle, kind):
            return {("gpu", 1): 1755}[handle, kind]

        def nvmlDeviceGetMaxClockInfo(self, handle, kind):
            return {("gpu", 1): 1980, ("gpu", 2): 2619}[handle, kind]

        def nvmlDeviceGetPowerUsage(self, handle):
            return 345_600

        def nvmlDeviceGetTemperature(self, handle, sensor):
            return {("gpu", 0): 61}[handle, sensor]

        def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle):
            return 5

        def nvmlDeviceGetPersistenceMode(self, handle):
            return 1

        def nvmlSystemGetDriverVersion(self):
            return "580.1"

    gpu = Gpu(Nvml([(7, 3 * 2**20), (9, None)]), "gpu")
    assert (gpu.sm_clock_mhz(), gpu.max_sm_clock_mhz()) == (1755, 1980)
    assert gpu.max_memory_clock_mhz() == 2619
    assert gpu.power_w() == pytest.approx(345.6)
    assert (gpu.temperature_c(), gpu.clock_reasons(), gpu.driver()) == (61, 5, "580.1")
    assert gpu.is_persistent() is True
    assert gpu.processes() == [GpuProcess(7, 3.0), GpuProcess(9, None)]


def processes(*pids: int) -> list[GpuProcess]:
    return [GpuProcess(pid, None) for pid in pids]


@pytest.mark.parametrize(
    ("pids", "expected"),
    [
        ((), 0),
        ((OWN,), 0),
        ((OWN, 5001), 1),
        ((5001, OWN, 5002), 2),
    ],
)
def test_other_pids_are_foreign_where_ours_is_listed(pids, expected):
    assert num_foreign(processes(*pids), own_pid=OWN) == expected


@pytest.mark.parametrize(("pids", "expected"), [((5001,), 0), ((5001, 5002, 5003), 2)])
def test_in_a_container_exactly_one_unknown_pid_is_ours(pids, expected):
    assert num_foreign(processes(*pids), own_pid=OWN) == expected


def test_without_a_context_of_our_own_every_pid_is_foreign():
    assert num_foreign(processes(5001), own_pid=OWN, has_context=False) == 1
    assert num_foreign(processes(), own_pid=OWN, has_context=False) == 0


@pytest.mark.parametrize(
    ("running", "expected"),
    [
        ([(OWN, 600 * 2**20), (5001, 50 * 2**20)], 600.0),
        ([(5001, 700 * 2**20)], 700.0),
        ([(5001, 700 * 2**20), (5002, 2**20)], None),
        ([(OWN, None)], None),
        ([], None),
        (None, None),
    ],
)
def test_own_device_memory_is_told_only_where_it_is_certain(running, expected):
    assert own_gpu_mib(Gpu(RefusingNvml(running), "gpu")) == expected
