"""Facts about this machine, an invented one for the checks, and git in folders of its own."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
import torch

from bench import machine
from bench.machine import Machine, Peaks, checks, facts, measure_peaks
from bench.nvml import GpuProcess
from bench.row import Row
from bench.timing import Timing

GPU = Machine(
    created_at="2026-01-31T10:22:07+00:00",
    host_id="aaaaaaaaaaaa",
    platform="Linux",
    cpu_name="AMD EPYC 9354",
    num_cores=16,
    memory_mib=131072.0,
    load_average=0.4,
    cpu_governor="performance",
    on_battery=None,
    python="3.11.7",
    torch="2.11.0+cu130",
    triton="3.6.0",
    cuda="13.0",
    libraries={
        "flash_attn": "2.8.3",
        "flash_attn.cute": "4.0.0b36",
        "fla": "0.6.0",
        "natten": "0.21.0",
    },
    ena_bench="0.1.0",
    git_commit="c0ffee",
    git_dirty=False,
    cuda_available=True,
    num_gpus=1,
    gpu_name="NVIDIA H100 80GB HBM3",
    gpu_id="bbbbbbbbbbbb",
    driver="580.1",
    capability=(9, 0),
    max_sm_clock_mhz=1980.0,
    is_persistent=True,
    is_clock_limited=True,
    num_foreign_processes=0,
)


def test_facts_of_this_machine_can_be_written_as_json():
    found = facts()
    assert json.loads(json.dumps(asdict(found)))["python"] == found.python
    assert found.torch == torch.__version__
    assert found.cuda_available == torch.cuda.is_available()
    assert found.created_at.endswith("+00:00")


def test_the_host_is_not_named():
    import socket

    assert socket.gethostname() not in json.dumps(asdict(replace(facts(), platform="")))
    assert len(facts().host_id) == 12


def test_row_values_on_a_gpu_are_those_of_the_gpu():
    row = Row(**GPU.row_values("cuda"))
    assert (row.device_name, row.device_id) == ("NVIDIA H100 80GB HBM3", "bbbbbbbbbbbb")
    assert (row.torch, row.triton, row.cuda, row.driver) == (
        "2.11.0+cu130",
        "3.6.0",
        "13.0",
        "580.1",
    )
    assert (row.git_commit, row.git_dirty, row.host_id) == ("c0ffee", False, "aaaaaaaaaaaa")
    assert json.loads(row.libraries) == GPU.libraries


def test_row_values_on_a_cpu_are_those_of_the_host():
    row = Row(**GPU.row_values("cpu"))
    assert (row.device_name, row.device_id) == ("AMD EPYC 9354", "aaaaaaaaaaaa")


def test_libraries_are_looked_up_without_being_imported(monkeypatch):
    versions = {"fla-core": "0.6.1", "natten": "0.21.0", "flash-attn-4": "4.0.0b36"}
    monkeypatch.setattr(machine, "_version", versions.get)
    assert {k: v for k, v in facts().libraries.items() if k != "cudnn"} == {
        "fla": "0.6.1",
        "natten": "0.21.0",
        "flash_attn.cute": "4.0.0b36",
    }
    assert "natten" not in sys.modules


@pytest.fixture
def git(tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}

    def run(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    return run


def test_commit_and_changes_of_a_checkout_are_known(tmp_path, git):
    git("init", "-q")
    (tmp_path / "a.py").write_text("1\n")
    git("add", "a.py")
    git("commit", "-q", "-m", "first")
    clean = machine._git_facts(tmp_path)
    assert clean == {"git_commit": git("rev-parse", "HEAD"), "git_dirty": False}
    (tmp_path / "a.py").write_text("2\n")
    assert machine._git_facts(tmp_path)["git_dirty"] is True


def test_an_installed_package_inside_a_checkout_has_no_commit(tmp_path, git):
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "first")
    inside = tmp_path / "site-packages"
    inside.mkdir()
    assert machine._git_facts(inside) == {"git_commit": None, "git_dirty": None}


def test_a_checkout_without_a_commit_is_unknown(tmp_path, git):
    git("init", "-q")
    assert machine._git_facts(tmp_path) == {"git_commit": None, "git_dirty": None}


@pytest.fixture
def invented_clock(monkeypatch):
    """Makes `measure` answer with given samples in turn, and tells how many are left."""
    left_ms = []

    def invented(call, *, device, settings):
        return Timing(
            timer="wall",
            samples_ms=left_ms.pop(0),
            calls_per_sample=1,
            num_warmup=1,
            stop_reason="budget",
            exposed_fraction=None,
        )

    monkeypatch.setattr(machine, "measure", invented)
    return left_ms


def test_peaks_take_the_fastest_product_and_count_a_copy_twice(invented_clock):
    # sides 256, 512 and 1024, then the copy
    invented_clock += [(3.0, 5.0), (4.0, 2.0), (9.0, 9.5), (8.0, 8.5)]
    peaks = measure_peaks("cpu", "float32")
    assert peaks.tflops_per_s == pytest.approx(2 * 1024**3 / 9e-3 / 1e12)
    assert peaks.bandwidth_gb_per_s == pytest.approx(2 * 64 * 2**20 / 8e-3 / 1e9)


def test_products_grow_only_while_they_are_short(invented_clock):
    invented_clock += [(6.0,), (8.0,)]
    assert measure_peaks("cpu", "float64").tflops_per_s == pytest.approx(2 * 256**3 / 6e-3 / 1e12)
    assert invented_clock == []


def test_the_peak_of_a_half_type_on_a_cpu_is_no_lower_than_that_of_float32(invented_clock):
    invented_clock += [(30.0,), (6.0,), (8.0,)]
    assert measure_peaks("cpu", "float16").tflops_per_s == pytest.approx(2 * 256**3 / 6e-3 / 1e12)


def test_peaks_of_this_cpu_are_plausible():
    peaks = measure_peaks("cpu", "float32")
    assert isinstance(peaks, Peaks)
    assert 1e-5 < peaks.tflops_per_s < 100
    assert 0.1 < peaks.bandwidth_gb_per_s < 5000


def named(found: Machine, name: str) -> machine.Check:
    (check,) = [check for check in checks(found) if check.name == name]
    return check


def test_a_well_kept_machine_passes_every_check():
    assert all(check.ok for check in checks(GPU))
    assert {check.name for check in checks(GPU)} == {
        *("load", "cpu governor", "cuda", "other processes", "persistence mode"),
        *("locked clock", "triton", "flash_attn", "fla", "natten"),
        "flash_attn.cute",
    }


@pytest.mark.parametrize(
    ("name", "changes", "cure"),
    [
        ("load", {"load_average": 9.0}, "top"),
        ("cpu governor", {"cpu_governor": "powersave"}, "--governor performance"),
        ("power supply", {"on_battery": True}, "charger"),
        ("cuda", {"cuda_available": False}, "pip install torch"),
        ("other processes", {"num_foreign_processes": 2}, "nvidia-smi"),
        ("persistence mode", {"is_persistent": False}, "--persistence-mode=1"),
        ("locked clock", {"is_clock_limited": False}, "--lock-gpu-clocks=1485"),
        ("triton", {"triton": None}, "pip install 'triton>=3.6'"),
        ("triton", {"triton": "3.5.1"}, "pip install 'triton>=3.6'"),
        ("flash_attn", {"libraries": {"flash_attn": "2.7.4.post1"}}, "ena-bench[flash-attn]"),
        ("fla", {"libraries": {}}, "ena-bench[fla]"),
        ("natten", {"libraries": {"natten": "0.20.9"}}, "ena-bench[natten]"),
    ],
)
def test_what_spoils_timings_is_named_with_its_cure(name, changes, cure):
    check = named(replace(GPU, **changes), name)
    assert not check.ok
    assert cure in check.cure


def test_what_is_unknown_is_not_judged():
    silent = replace(
        GPU,
        load_average=None,
        cpu_governor=None,
        is_persistent=None,
        is_clock_limited=None,
        num_foreign_processes=None,
    )
    assert [check.name for check in checks(silent)] == ["cuda", *machine.WANTED]


def test_flash_attn_4_is_asked_for_where_it_runs():
    without = replace(GPU, libraries={})
    assert not named(replace(without, capability=(9, 0)), "flash_attn.cute").ok
    names = {check.name for check in checks(replace(without, capability=(8, 9)))}
    assert "flash_attn" in names
    assert "flash_attn.cute" not in names


def test_without_cuda_the_libraries_for_cuda_are_not_asked_for():
    names = {check.name for check in checks(replace(GPU, cuda_available=False, libraries={}))}
    assert not names & set(machine.WANTED)


def test_versions_compare_by_number_and_not_by_text():
    newer = replace(GPU, triton="3.10.0+git1a2b", libraries={"flash_attn": "2.10"})
    assert named(newer, "triton").ok
    assert named(newer, "flash_attn").ok
    assert not named(replace(GPU, triton="unknown"), "triton").ok


class FakeCuda:
    """What `torch.cuda` says on a machine with one GPU."""

    def __init__(self, initialized):
        self.initialized = initialized

    def is_available(self):
        return True

    def current_device(self):
        return 0

    def device_count(self):
        return 1

    def is_initialized(self):
        return self.initialized

    def get_device_properties(self, device):
        return type(
            "Properties",
            (),
            {
                "name": "NVIDIA H100",
                "uuid": "1234",
                "major": 9,
                "minor": 0,
                "multi_processor_count": 132,
                "L2_cache_size": 50 * 2**20,
                "total_memory": 80 * 2**30,
            },
        )


class FakeGpu:
    def driver(self):
        return "580.1"

    def max_sm_clock_mhz(self):
        return 1980.0

    def max_memory_clock_mhz(self):
        return 2619.0

    def is_persistent(self):
        return False

    def clock_reasons(self):
        return 0x4

    def processes(self):
        return [GpuProcess(-7, None)]


@pytest.mark.parametrize(("initialized", "num_foreign"), [(True, 0), (False, 1)])
def test_facts_of_a_gpu_come_from_torch_and_the_driver(monkeypatch, initialized, num_foreign):
    monkeypatch.setattr(torch, "cuda", FakeCuda(initialized))
    monkeypatch.setattr(machine, "current_gpu", FakeGpu)
    found = machine._gpu_facts()
    assert found["gpu_name"] == "NVIDIA H100"
    assert "1234" not in found["gpu_id"]
    assert (found["capability"], found["num_sms"]) == ((9, 0), 132)
    assert found["gpu_memory_mib"] == 81920.0
    assert (found["driver"], found["is_persistent"], found["is_clock_limited"]) == (
        "580.1",
        False,
        False,
    )
    assert found["num_foreign_processes"] == num_foreign


def test_a_gpu_whose_driver_cannot_be_asked_is_still_known_to_torch(monkeypatch):
    monkeypatch.setattr(torch, "cuda", FakeCuda(True))
    monkeypatch.setattr(machine, "current_gpu", lambda: None)
    found = machine._gpu_facts()
    assert found["l2_bytes"] == 50 * 2**20
    assert "driver" not in found


def test_machine_imports_without_torch():
    code = "import sys; sys.modules['torch'] = None; import bench.machine"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
