"""The gate as a CI job meets it: a kernel gets slow, or crashes, in the worker's process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import baseline

ROOT = Path(__file__).parents[1]
CONTENDERS = """
import os
import time
from bench.contenders import Contender
from bench.workload import Workload, normal


def build(case):
    def forward(x):
        if case.contender == "fragile" and os.environ.get("KERNELS") == "changed":
            os._exit(9)
        if case.contender == "sluggish" and os.environ.get("KERNELS") == "changed":
            time.sleep(0.004)
        time.sleep(0.004)
        return 2 * x

    return Workload(
        forward=forward,
        inputs={"x": normal(case, case.batch, case.seq_len, case.model_dim)},
        reference=lambda leaves: 2 * leaves["x"],
    )


contenders = [
    Contender(level="op", name=name, impl="eager", build=build, rank=(("cpu", 1),))
    for name in ("steady", "sluggish", "fragile")
]
"""
FAST = ["--budget-s", "0.06", "--warmup-s", "0.001", "--min-samples", "5", "--device", "cpu"]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A package that publishes three contenders."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "mixers.py").write_text(CONTENDERS)
    info = folder / "mixers-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mixers\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ena_bench.contenders]\nmixers = mixers:contenders\n")
    return folder


def ena_bench(project, *arguments, kernels="as before", **environment):
    return subprocess.run(
        [sys.executable, "-m", "cli", *map(str, arguments)],
        cwd=project,
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(project)]), "KERNELS": kernels}
        | {"OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def exported(project):
    """The baseline of all three, as one file."""
    axes = ["--level", "op", "--contender", "steady,sluggish,fragile", "--impl", "eager"]
    axes += ["--mode", "fwd", "--canvas", "37", "--heads", "2", "--head-dim", "4"]
    run = ["run", *axes, *FAST, "--rounds", "3", "--fresh-workers", "--json", "-o", "main"]
    done = ena_bench(project, *run)
    assert done.returncode == 0, done.stderr + done.stdout
    assert ena_bench(project, "export", "main", "-o", "main.parquet").returncode == 0
    assert len(baseline.read(project / "main.parquet")[0]) == 9
    return "main.parquet"


@pytest.mark.slow
def test_a_slow_kernel_and_a_crash_fail_the_gate_and_the_steady_one_does_not(project, exported):
    summary = project / "summary.md"
    done = ena_bench(
        project,
        *["check", "--baseline", exported, "--rounds", "3", *FAST, "-o", "change"],
        *["--junit", "junit.xml", "--markdown", "page.md", "--json"],
        kernels="changed",
        GITHUB_ACTIONS="true",
        GITHUB_STEP_SUMMARY=str(summary),
    )
    assert done.returncode == 3, done.stderr + done.stdout
    document = json.loads(done.stdout)
    cases = {case["contender"]: case for case in document["cases"]}
    assert document["verdict"] == "regression"
    assert cases["sluggish"]["verdict"] == "slower"
    assert cases["sluggish"]["reason"].startswith("measured again")
    assert cases["sluggish"]["num_rounds"][1] >= 6
    assert 1.5 < cases["sluggish"]["ratio"] < 2.5
    assert cases["fragile"]["verdict"] == "broken"
    assert "worker exited with code 9" in cases["fragile"]["reason"]
    assert cases["steady"]["verdict"] in ("same", "ambiguous")
    assert cases["steady"]["memory_verdict"] == "same"
    suite = ElementTree.parse(project / "junit.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "2", "0")
    assert "## ena-bench: regression" in (project / "page.md").read_text("utf-8")
    assert summary.read_text("utf-8") == (project / "page.md").read_text("utf-8")
    assert "::error title=ena-bench%3A slower::op/sluggish/" in done.stderr


@pytest.mark.slow
def test_a_finished_run_is_compared_and_checked_without_measuring(project, exported):
    same = ena_bench(project, "check", "--baseline", exported, "main")
    assert same.returncode == 0, same.stderr
    assert "PASSED" in same.stdout
    rows, _ = baseline.read(project / exported)
    assert len(rows) == 9
    assert ena_bench(project, "compare", exported, "main").returncode == 0
    refused = ena_bench(project, "check", "--baseline", "nowhere.parquet", "main")
    assert refused.returncode == 1
    assert refused.stderr.startswith("Error: nowhere.parquet does not exist")
    percent = ena_bench(project, "check", "--baseline", exported, "main", "--max-slowdown", "5")
    assert percent.returncode == 2
    assert "write 5%" in percent.stderr
