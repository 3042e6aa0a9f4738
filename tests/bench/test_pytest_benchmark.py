"""Rows as a file of pytest-benchmark, read by its own loader and its own command."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from pytest_benchmark.stats import Stats
from pytest_benchmark.storage.file import FileStorage

from bench.errors import UsageError
from bench.outcome import columns_of
from bench.pytest_benchmark import document
from bench.row import Row


def row(*, case="a", round=0, samples=(1.0, 2.0, 4.0), **changes):
    known = {
        "run_id": "r",
        "case_id": case,
        "case_path": f"op/attention/eager/fwd/{case}",
        "round": round,
        "started_at": f"2026-01-02T03:04:0{round}+00:00",
        "level": "op",
        "mode": "fwd",
        "status": "ok",
        "timer": "wall",
        "calls_per_sample": 3,
        "samples_ms": list(samples),
        "latency_ms": 2.0,
        "device_name": "CPU",
        "python": "3.12.1",
    }
    return columns_of(Row(**known | changes))


def saved(tmp_path, rows, name="ours.json") -> Path:
    path = tmp_path / name
    path.write_text(json.dumps(document(pd.DataFrame(rows)), allow_nan=False))
    return path


def test_its_loader_reads_rounds_as_one_benchmark_in_seconds(tmp_path):
    rows = [row(round=1, samples=(8.0, 5.0)), row(), row(case="b")]
    path = saved(tmp_path, rows)
    found = list(FileStorage(tmp_path, logger=None).load_benchmarks(str(path)))
    assert [b["name"] for b in found] == ["op/attention/eager/fwd/a", "op/attention/eager/fwd/b"]
    assert found[0]["data"] == pytest.approx([1e-3, 2e-3, 4e-3, 8e-3, 5e-3])
    assert found[0]["group"] == "op/fwd"


def test_statistics_are_those_that_it_would_compute():
    samples = [3.0, 1.0, 4.0, 1.5, 9.0, 2.6, 5.3, 50.0]
    (found,) = document(pd.DataFrame([row(samples=samples)]))["benchmarks"]
    theirs = Stats()
    for sample in samples:
        theirs.update(sample * 1e-3)
    for name in ("min", "max", "mean", "stddev", "median", "rounds", "ops", "total"):
        assert found["stats"][name] == pytest.approx(getattr(theirs, name)), name
    assert set(Stats.fields) <= found["stats"].keys()


def test_its_compare_prints_two_of_our_runs(tmp_path):
    paths = [saved(tmp_path, [row()], "one.json"), saved(tmp_path, [row()], "two.json")]
    command = [sys.executable, "-m", "pytest_benchmark", "compare", *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("op/attention/eager/fwd/a") == 2


def test_rows_without_a_latency_are_left_out_and_alone_are_an_error():
    failed = row(case="b", status="oom", latency_ms=None, samples_ms=None)
    assert len(document(pd.DataFrame([row(), failed]))["benchmarks"]) == 1
    with pytest.raises(UsageError, match="no row has a latency"):
        document(pd.DataFrame([failed]))


def test_rows_of_two_machines_are_refused():
    with pytest.raises(UsageError, match=r"several machines.*CPU, GPU"):
        document(pd.DataFrame([row(), row(case="b", device_name="GPU")]))
