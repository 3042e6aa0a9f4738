"""The fixture gpu_benchmark as pytest runs it, in processes of its own."""

import json
import os
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]

ONE = """
def test_one(gpu_benchmark):
    assert gpu_benchmark(sum, [3, 4], start=5) == 12
"""
PLUGINS = ("-p", "benchmark", "-p", "bench.pytest_plugin", "--benchmark-max-time", "0.02")


@pytest.fixture
def run(pytester, monkeypatch):
    """Write a test file and run pytest on it; returns its result."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *sys.path]))

    def run_pytest(source, *arguments, plugins=PLUGINS):
        pytester.makepyfile(source)
        return pytester.runpytest_subprocess(*plugins, *arguments)

    return run_pytest


def stored(pytester):
    return json.loads((pytester.path / "out.json").read_text())


def test_samples_and_facts_are_in_the_storage_of_pytest_benchmark(run, pytester):
    done = run(ONE, "--benchmark-json", "out.json")
    done.assert_outcomes(passed=1)
    document = stored(pytester)
    (found,) = document["benchmarks"]
    assert found["fullname"].endswith("::test_one")
    assert found["stats"]["rounds"] == len(found["stats"]["data"]) >= 10
    assert found["stats"]["median"] == pytest.approx(found["extra_info"]["latency_ms"] * 1e-3)
    assert found["extra_info"]["timer"] == "wall"
    assert found["extra_info"]["calls_per_sample"] > 1
    assert found["options"]["timer"] == "ena-bench wall"
    assert {"torch", "driver", "gpus"} <= document["machine_info"]["ena_bench"].keys()


def test_a_slower_call_fails_the_comparison(run, pytester):
    source = """
import time

def test_sleep(gpu_benchmark):
    gpu_benchmark(time.sleep, {seconds})
"""
    run(source.format(seconds=0.001), "--benchmark-save", "before").assert_outcomes(passed=1)
    failing = ("--benchmark-compare", "--benchmark-compare-fail", "median:50%")
    same = run(source.format(seconds=0.001), *failing)
    assert same.ret == 0
    slow = run(source.format(seconds=0.004), *failing)
    assert slow.ret != 0
    assert "Performance has regressed" in slow.stdout.str() + slow.stderr.str()


def test_the_marker_says_how_to_measure_and_is_checked(run, pytester):
    source = """
import pytest

@pytest.mark.gpu_benchmark(min_samples=23, max_samples=23)
def test_known(gpu_benchmark):
    gpu_benchmark(sum, [1])

@pytest.mark.gpu_benchmark(samples=23)
def test_unknown(gpu_benchmark):
    gpu_benchmark(sum, [1])
"""
    done = run(source, "--strict-markers", "--benchmark-json", "out.json")
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(["*setting 'samples' is unknown*"])
    (found,) = stored(pytester)["benchmarks"]
    assert found["stats"]["rounds"] == 23


def test_a_reset_runs_before_every_call_and_rates_are_stored(run, pytester):
    source = """
def test_reset(gpu_benchmark):
    log = []
    gpu_benchmark.measure(
        lambda: log.append("call"), reset=lambda: log.append("reset"), flops=3e6, num_bytes=7
    )
    assert log[::2] == ["reset"] * (len(log) // 2) and log[1::2] == ["call"] * (len(log) // 2)
    assert gpu_benchmark.extra_info["tflops_per_s"] > 0
    assert gpu_benchmark.extra_info["bandwidth_gb_per_s"] > 0
"""
    run(source).assert_outcomes(passed=1)


def test_disabled_it_calls_once_and_stores_nothing(run, pytester):
    source = """
def test_once(gpu_benchmark):
    log = []
    gpu_benchmark(log.append, 3)
    assert log == [3] and gpu_benchmark.stats is None
"""
    run(source, "--benchmark-disable").assert_outcomes(passed=1)


def test_without_pytest_benchmark_it_skips_and_says_what_to_install(run):
    done = run(ONE, "-rs", plugins=("-p", "bench.pytest_plugin"))
    done.assert_outcomes(skipped=1)
    done.stdout.fnmatch_lines(["*pip install 'pytest-benchmark*"])


def test_pytest_starts_without_torch(run):
    source = """
import sys

def test_light():
    assert "torch" not in sys.modules
"""
    run(source).assert_outcomes(passed=1)
