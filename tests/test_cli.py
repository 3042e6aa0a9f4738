"""The command line as its users meet it: what it takes, prints, refuses, saves and exits with."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import click
import pandas as pd
import pytest
from click.testing import CliRunner

import cli
from bench import machine, results
from bench.executor import Executor
from reports.report import Paths

ROOT = Path(__file__).parents[1]
FAST = ["--device", "cpu", "--budget-s", "0.02", "--warmup-s", "0.001", "--min-samples", "7"]
TINY = ["--level", "op", "--contender", "attention", "--impl", "eager", "--canvas", "37"]
TINY += ["--batch", "2", "--heads", "3", "--head-dim", "8", *FAST]
MEASURE = "budget-s device min-samples precision seed timeout timer warmup-s"
LIMITS = "control max-memory max-slowdown metric must-see new-kernels relative-to"
GRID = (
    "grid preset "
    "batch canvas contender depth dtype head-dim heads impl interleave level mode ndim permute "
    "scan scan-variant seq-len size sparsity tile window "
    "budget-s device min-samples precision seed timeout timer warmup-s"
)
OPTIONS = {
    "run": f"{GRID} budget dry-run fresh-workers json out report resume rounds",
    "report": "out",
    "history": "json out",
    "verify": f"{GRID} json",
    "profile": f"{GRID} json out",
    "list": f"{GRID} json",
    "export": "out to",
    "claims": "json",
    "selftest": "budget cases device gates json noise real rounds seed",
    "doctor": "json",
    "compare": f"{LIMITS} json junit markdown",
    "check": f"{LIMITS} {MEASURE} baseline json junit markdown out rounds",
    "ab": f"{GRID} {LIMITS} json junit markdown out rounds",
}
WRONG = """
from bench.contenders import Contender
from bench.workload import Workload, normal


def build(case):
    return Workload(
        forward=lambda x: 2.5 * x,
        inputs={"x": normal(case, case.batch, case.seq_len, case.model_dim)},
        reference=lambda leaves: 2 * leaves["x"],
    )


contenders = [Contender(level="op", name="wrong", impl="eager", build=build, rank=(("cpu", 1),))]
"""


def ena_bench(*arguments):
    """Run a command in this process."""
    done = CliRunner().invoke(cli.main, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def rows_of(run):
    return sorted((run / "results").glob("*.parquet"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def finished(folder):
    """Two tiny cases, measured: what was printed, and where."""
    path = folder / "finished"
    return ena_bench("run", *TINY, "--mode", "fwd,fwdbwd", "--seed", "3", "-o", path), path


@pytest.fixture
def no_worker(monkeypatch):
    """A machine without CUDA and without fla, where measuring anything is a failure."""
    facts = replace(machine.facts(), cuda_available=False, num_gpus=0)
    monkeypatch.setattr(Executor, "machine", lambda self: facts)
    monkeypatch.setattr(Executor, "measure", lambda *a, **kw: pytest.fail("it measured"))
    monkeypatch.setattr("bench.machine.facts", lambda: facts)
    monkeypatch.setattr("bench.contenders.is_installed", lambda library: library != "fla")


def test_the_commands_and_their_options_are_these():
    found = {
        name: sorted(
            max(option.opts, key=len).removeprefix("--")
            for option in command.params
            if isinstance(option, click.Option)
        )
        for name, command in cli.main.commands.items()
    }
    assert found == {name: sorted(options.split()) for name, options in OPTIONS.items()}


def test_every_command_and_every_option_has_help():
    assert cli.main.help
    for name, command in cli.main.commands.items():
        assert command.help, name
        for option in command.params:
            if isinstance(option, click.Option):
                assert option.help, f"{name} {option.name}"


@pytest.mark.parametrize("command", ["run", "verify", "profile"])
def test_help_shows_every_option_and_its_default(command):
    shown = ena_bench(command, "--help").output
    assert all(f"--{option}" in shown for option in OPTIONS[command].split())
    assert "[default: auto]" in shown
    assert "[default: 300.0]" in shown


TOML = '[[cases]]\nlevel = "op"\ncontender = "attention"\n'


@pytest.mark.parametrize(
    ("arguments", "wrong", "cure"),
    [
        (["--contender", "enna"], "'enna' is unknown", "ena"),
        (["--impl", "tritn"], "'tritn' is unknown", "triton"),
        (["--preset", "quik"], "preset 'quik' is unknown", "quick"),
        (["--contender", "linear", "--scan", "crss"], "scan 'crss' is unknown", "cross"),
        (["--dtype", "float23"], "dtype 'float23' is unknown", "float32"),
        (["--level", "layr"], "level 'layr' is unknown", "layer"),
        (["--mode", "fwd,bkw"], "mode 'bkw' is unknown", "bwd"),
        (["--grid", "malformed.toml"], "malformed is not TOML", "list presets"),
        (["--grid", "unknown.toml"], "axis 'contendr' is unknown", "contender"),
        (["--grid", "nowhere.toml"], "nowhere.toml cannot be read", "list presets"),
        (["--grid", "fine.toml", "--preset", "quick"], "both given", "--grid fine.toml"),
        (["--canvas", "64x"], "canvas '64x' is not a grid", "64x64"),
        (["--canvas", "64x0"], "canvas '64x0' is not a grid", "64x64"),
        (["--canvas", "24x30", "--tile", "8x16"], "tile 8x16 does not divide", "24x32"),
        (["--seq-len", "1009", "--ndim", "2"], "1009", "seq_len"),
        (["--sparsity", "1.0"], "sparsity 1 is outside [0, 1)", "--sparsity 0.7"),
        (["--sparsity", "-0.1"], "sparsity -0.1 is outside [0, 1)", "--sparsity 0.7"),
        (["--batch", "0"], "batch '0' is not a positive", "batch = 1"),
        (["--device", "cuda"], "cuda was asked for", "ena-bench doctor"),
        (["--device", "tpu"], "device 'tpu' is unknown", "--device auto"),
        (["--device", "cuda:second"], "does not name a visible GPU", "--device cuda:0"),
        (["--contender", "linear", "--impl", "fla"], "needs fla", "pip install flash-linear"),
        (["--device", "cpu", "--timer", "events"], "on device 'cpu'", "--timer wall"),
        (["--timer", "sundial"], "timer 'sundial' is unknown", "--timer auto"),
        (["--rounds", "0"], "rounds 0 is not positive", "--rounds 1"),
        (["--budget", "-1"], "budget -1 is not positive", "--budget 300"),
        (["--timeout", "-1"], "timeout -1 is not positive", "--timeout 1"),
        (["--budget-s", "0"], "budget_s is 0", "budget_s = 1.0"),
    ],
)
def test_a_mistake_ends_in_three_lines_before_anything_is_measured(
    arguments, wrong, cure, no_worker, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("malformed.toml").write_text("[[cases]\ncontender = ")
    Path("unknown.toml").write_text('[[cases]]\ncontendr = "attention"\n')
    Path("fine.toml").write_text(TOML)
    before = sorted(tmp_path.iterdir())
    done = ena_bench("run", *arguments, "-o", "out/run")
    lines = done.stderr.splitlines()
    assert done.exit_code == 2
    assert done.stdout == ""
    assert len(lines) == 3
    assert lines[0].startswith("Error: ")
    assert wrong in lines[0]
    assert lines[1].startswith("Expected: ")
    assert lines[2].startswith("Try: ")
    assert cure in lines[2]
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("arguments", [["--no-such"], ["--rounds", "two"], ["extra"]])
def test_a_malformed_command_line_is_a_usage_error_too(arguments, no_worker):
    done = ena_bench("run", *arguments)
    assert done.exit_code == 2
    assert "Error: " in done.stderr


@pytest.mark.parametrize("option", ["--control", "--relative-to"])
@pytest.mark.parametrize(
    ("named", "cure"),
    [
        ("atention", "attention"),
        ("attention/eger", "attention/eager"),
        ("atention/eager", "attention"),
        ("attention/", "attention/"),
        ("eager", "attention"),
    ],
)
def test_a_control_or_anchor_that_nobody_knows_is_a_usage_error(option, named, cure, finished):
    _, path = finished
    done = ena_bench("compare", str(path), str(path), option, named)
    assert done.exit_code == 2
    assert f"'{named}' is unknown" in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"Try: {cure}")


@pytest.mark.parametrize("named", ["attention", "attention/eager"])
def test_an_anchor_is_a_contender_or_one_of_its_impls(named, finished):
    _, path = finished
    done = ena_bench("compare", path, path, "--relative-to", named, "--control", named, "--json")
    assert done.exit_code == 0
    document = json.loads(done.stdout)
    assert document["relative_to"] == named
    assert {case["verdict"] for case in document["cases"]} == {"same"}
    gate = ena_bench("check", "--baseline", path, path, "--relative-to", named, "--json")
    assert json.loads(gate.stdout)["relative_to"] == named


def test_a_run_ends_with_a_table_and_a_run_directory(finished):
    done, path = finished
    assert done.exit_code == 0
    text = done.stdout
    assert "2 of 2 cases agree with float64" in text
    assert "Attention (eager)" in text
    assert "op fwd: " in text
    assert "op fwdbwd: " in text
    assert "latency" in text
    assert "tokens/s" in text
    assert f"{path} (2 rows" in " ".join(text.split())
    assert f"ena-bench report {path}" in " ".join(text.split())
    assert {entry.name for entry in path.iterdir()} >= {"run.toml", "machine.json", "results"}
    rows = pd.read_parquet(path / "results")
    assert set(rows["mode"]) == {"fwd", "fwdbwd"}
    assert set(rows["status"]) == {"ok"}
    assert set(rows["seed"]) == {3}
    assert rows["num_warmup"].min() > 0
    assert rows["samples_ms"].map(len).min() >= 7


def test_progress_goes_to_stderr_and_results_to_stdout(finished):
    done, _ = finished
    assert "[2/2] op/attention/eager/" in done.stderr
    assert "[2/2]" not in done.stdout


def test_a_resumed_run_measures_only_what_is_missing_and_prints_one_document(finished, folder):
    _, path = finished
    first, second = rows_of(path)
    kept = first.read_bytes(), first.stat().st_mtime_ns
    second.unlink()
    done = ena_bench("run", "--resume", path, "--json")
    assert done.exit_code == 0
    assert done.stderr == ""
    document = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert document["num_cases"] == {"ok": 2}
    assert document["path"] == str(path)
    assert len(document["rows"]) == 2
    assert {row["seed"] for row in document["rows"]} == {3}
    assert (first.read_bytes(), first.stat().st_mtime_ns) == kept
    assert rows_of(path) == [first, second]


@pytest.mark.parametrize(
    "options", [["--mode", "bwd"], ["--rounds", "3"], ["-o", "x"], ["--dry-run"]]
)
def test_a_resumed_run_keeps_its_cases_and_settings(options, finished, no_worker):
    done = ena_bench("run", "--resume", finished[1], *options)
    assert done.exit_code == 2
    assert "--resume is given with" in done.stderr
    assert done.stderr.splitlines()[2] == f"Try: ena-bench run --resume {finished[1]}"


def test_an_occupied_directory_is_not_written_into(finished, no_worker):
    before = rows_of(finished[1])
    done = ena_bench("run", *TINY, "-o", finished[1])
    assert done.exit_code == 1
    assert "is not empty" in done.stderr
    assert rows_of(finished[1]) == before


def test_a_dry_run_lists_cases_and_measures_nothing(no_worker, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ["run", "--dry-run", *TINY, "--mode", "fwd,bwd", "--rounds", "3"]
    done = ena_bench(*asked, "--dtype", "float32")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[1].startswith("op/attention/eager/fwd/B2-H3-37-D8-float32-cpu")
    assert len(lines) == 4
    assert lines[3] == "2 cases, 2 can run here, 3 visits each"
    one = ena_bench("run", "--dry-run", *TINY, "--mode", "fwd")
    assert one.stdout.splitlines()[-1] == "1 case, 1 can run here, 1 visit each"
    listed = json.loads(ena_bench(*asked, "--json").stdout)
    assert [row["here"] for row in listed] == ["yes", "yes"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_dry_run_where_nothing_can_run_says_so_and_fails_as_the_run_would(no_worker, form):
    done = ena_bench("run", "--dry-run", *TINY[:4], "--impl", "sdpa_cudnn", *TINY[6:], *form)
    assert done.exit_code == 1
    assert "No case could run here" in done.stderr
    assert "sdpa_cudnn" in done.stdout


def test_what_an_option_means_nothing_to_is_said_once(no_worker):
    asked = ["run", "--dry-run", "--level", "op", "--contender", "attention,delta_rule", *TINY[4:]]
    done = ena_bench(*asked, "--sparsity", "0.5,0.9", "--mode", "fwd,fwdbwd")
    assert done.exit_code == 0
    said = [line for line in done.stderr.splitlines() if "sparsity" in line]
    assert said == [
        "note         --sparsity means nothing to attention and delta_rule, and is left out there"
    ]
    assert ena_bench(*asked, "--sparsity", "0.5", "--json").stderr == ""


def test_a_run_where_nothing_could_be_measured_fails(no_worker, tmp_path):
    done = ena_bench("run", *TINY[:4], "--impl", "sdpa_cudnn", *TINY[6:], "-o", tmp_path / "run")
    assert done.exit_code == 1
    assert "No case could run here" in done.stdout
    rows, _ = results.load(tmp_path / "run")
    assert set(rows["status"]) == {"unsupported"}


def test_a_run_draws_its_report_when_asked(finished, no_worker, monkeypatch):
    drawn = []
    monkeypatch.setattr("bench.runner.run", lambda *a, **kw: None)
    monkeypatch.setattr(
        "reports.report.write_report", lambda rows, to, **kw: drawn.append((len(rows), to))
    )
    done = ena_bench("run", "--resume", finished[1], "--report")
    assert done.exit_code == 0
    assert drawn == [(2, finished[1] / "report")]


def test_a_report_is_drawn_from_a_run(finished, folder):
    done = ena_bench("report", finished[1], "-o", folder / "pages")
    assert done.exit_code == 0
    assert f"report   {folder / 'pages' / 'report.html'}" in done.stdout
    names = {path.name for path in (folder / "pages").rglob("*")}
    assert {"report.html", "report.md"} <= names
    assert any(name.endswith(".svg") for name in names)
    assert any(name.endswith(".png") for name in names)


def test_a_report_of_several_runs_leaves_that_of_each_alone(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = [tmp_path / "first", tmp_path / "second"]
    for run in runs:
        shutil.copytree(finished[1], run)
    drawn = []
    monkeypatch.setattr(
        "reports.report.write_report",
        lambda rows, to, **kw: drawn.append(to) or Paths(html=to / "x", markdown=to, figures=()),
    )
    assert ena_bench("report", *runs).exit_code == 0
    assert drawn == [Path("report-first-second")]
    assert "report-A-B" in ena_bench("report", "--help").output


def test_an_exported_run_reads_back_as_the_same_rows(finished, folder):
    out = folder / "baseline.parquet"
    done = ena_bench("export", finished[1], "-o", out)
    assert done.exit_code == 0
    assert str(out) in done.stdout
    exported, problems = results.load(out)
    original, _ = results.load(finished[1])
    assert problems == []
    pd.testing.assert_frame_equal(exported, original)
    assert len(exported) == 2


@pytest.mark.parametrize(
    ("form", "name"), [("parquet", "b.parquet"), ("pytest-benchmark", "b.json")]
)
def test_an_export_that_lost_rows_says_how_many_and_fails(finished, tmp_path, form, name):
    run = tmp_path / "run"
    shutil.copytree(finished[1], run)
    rows_of(run)[0].write_bytes(b"torn")
    out = tmp_path / name
    done = ena_bench("export", run, "-o", out, "--to", form)
    assert done.exit_code == 1
    assert f"saved    {out}" in done.stdout
    assert out.exists()
    assert "is damaged" in done.stderr
    last = done.stderr.splitlines()[-3:]
    assert last[0] == f"Error: 1 of 2 rows cannot be read: {out} lacks them"
    assert last[2] == f"Try: ena-bench run --resume {run}, which measures them again; export anew"


def test_an_export_of_an_unfinished_run_says_what_it_lacks(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished[1], run)
    rows_of(run)[0].unlink()
    done = ena_bench("export", run, "-o", tmp_path / "b.parquet")
    assert done.exit_code == 0
    assert f"WARNING  {run} lacks 1 of 2 measurements" in done.stderr


def test_a_comparison_with_an_unfinished_run_says_so_and_breaks_nothing(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished[1], run)
    rows_of(run)[0].unlink()
    done = ena_bench("check", "--baseline", finished[1], run)
    assert done.exit_code == 4
    assert f"NOTE         {run} lacks 1 of 2 measurements" in done.stdout
    assert "not measured yet: the candidate's run is unfinished" in done.stdout
    there = ena_bench("compare", finished[1], run)
    assert there.exit_code == 0
    assert "BROKEN" not in there.stdout
    back = ena_bench("compare", run, finished[1], "--must-see", "500%")
    assert back.exit_code == 0
    assert f"NOTE         {run} lacks 1 of 2 measurements" in back.stdout
    refused = ena_bench("check", "--baseline", run, finished[1])
    assert refused.exit_code == 1
    assert refused.stderr.startswith(f"Error: the baseline {run} lacks 1 of 2 cases, such as op/")


def test_damaged_rows_of_a_candidate_break_nothing_and_those_of_a_baseline_fail(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished[1], run)
    victim = rows_of(run)[0]
    victim.write_bytes(b"torn")
    done = ena_bench("check", "--baseline", finished[1], run)
    assert done.exit_code == 4
    assert f"not readable: {victim} is damaged" in " ".join(done.stdout.split())
    assert "BROKEN" not in done.stdout
    refused = ena_bench("check", "--baseline", run, finished[1])
    assert refused.exit_code == 1
    assert refused.stderr.startswith(f"Error: 1 row of the baseline cannot be read: {victim} is")


@pytest.mark.parametrize("size", ["inf", "nan", "1000", "inf%", "much"])
def test_a_limit_that_is_no_size_of_a_slow_down_is_a_usage_error(size, finished):
    done = ena_bench("compare", finished[1], finished[1], "--must-see", size)
    assert done.exit_code == 2
    assert f"'{size}' is neither like 5% nor like 0.05" in done.stderr


def test_a_history_is_drawn_from_runs(finished, folder):
    done = ena_bench("history", finished[1], "-o", folder / "history")
    assert done.exit_code == 0
    assert f"history  {folder / 'history' / 'history.html'}" in done.stdout
    names = {path.name for path in (folder / "history").iterdir()}
    assert {"history.html", "history.md"} <= names


@pytest.mark.parametrize("command", [["report"], ["history"], ["export", "-o", "out.parquet"]])
def test_what_is_no_run_is_refused(command, tmp_path):
    done = ena_bench(*command, tmp_path / "nowhere")
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: ")
    assert len(done.stderr.splitlines()) == 3


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("contenders", ["delta_rule", "sdpa_flash+eager", "no: runs on cuda only"]),
        ("presets", ["quick", "paper", "under two minutes"]),
        ("scans", ["cross", "mh3d", "passes"]),
        ("cases", ["op/attention/eager/fwd/B2-H3-37-D8-float32-cpu"]),
    ],
)
def test_what_there_is_is_listed(what, names, no_worker):
    asked = ["list", what, *TINY, "--dtype", "float32"]
    done = ena_bench(*asked)
    assert done.exit_code == 0
    assert all(name in done.stdout for name in names)
    listed = json.loads(ena_bench(*asked, "--json").stdout)
    assert len(listed) == len(done.stdout.splitlines()) - 1


def test_an_unknown_list_is_a_usage_error():
    done = ena_bench("list", "kernels")
    assert done.exit_code == 2
    assert "contenders" in done.stderr


@pytest.fixture
def broken_package(tmp_path, monkeypatch):
    """An installed package whose entry point `fancy` cannot be loaded."""
    info = tmp_path / "third_party-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ena_bench.contenders]\nfancy = nowhere_mixer:build\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return (
        "entry point fancy of third-party 1.0 is unavailable: "
        "ModuleNotFoundError: No module named 'nowhere_mixer'"
    )


def test_a_broken_package_is_named_and_stops_only_what_needs_it(broken_package):
    listed = ena_bench("list", "contenders")
    assert listed.exit_code == 0
    assert f"no: {broken_package}" in listed.stdout.splitlines()[-1]
    last = json.loads(ena_bench("list", "contenders", "--json").stdout)[-1]
    assert (last["level"], last["contender"], last["impl"]) == (None, "fancy", None)
    doctor = ena_bench("doctor")
    assert doctor.exit_code == 0
    assert f"LOOK  contenders         {broken_package}" in doctor.stdout
    assert "try: mend or uninstall third-party" in doctor.stdout
    assert ena_bench("run", "--dry-run", *TINY, "--mode", "fwd").exit_code == 0


def test_asking_for_what_a_broken_package_may_bring_tells_why_it_is_not_there(broken_package):
    fancy = ena_bench("run", "--dry-run", *TINY[:2], "--contender", "fancy", *TINY[6:])
    assert fancy.exit_code == 2
    assert fancy.stderr.splitlines()[0].endswith(f"'fancy' is unknown; {broken_package}")
    assert fancy.stderr.splitlines()[2] == "Try: mend or uninstall third-party"
    impl = ena_bench("run", "--dry-run", *TINY[:4], "--impl", "eagre", *TINY[6:])
    assert impl.stderr.splitlines()[0].endswith(f"'eagre' is unknown; {broken_package}")
    assert impl.stderr.splitlines()[2] == "Try: eager"


def test_doctor_tells_facts_and_cures():
    done = ena_bench("doctor")
    assert done.exit_code == 0
    document = json.loads(ena_bench("doctor", "--json").stdout)
    assert document["machine"]["cpu_name"]
    assert {check["name"] for check in document["checks"]} >= {"load"}
    for check in document["checks"]:
        assert f"{'ok  ' if check['ok'] else 'LOOK'}  {check['name']}" in done.stdout
        if check["cure"] and not check["ok"]:
            assert f"try: {check['cure']}" in done.stdout
    facts = document["machine"]
    for text in (facts["cpu_name"], f"torch {facts['torch']}", f"Python {facts['python']}"):
        assert text in done.stdout
    assert " run on cpu; `ena-bench list contenders` says which" in done.stdout


def test_verify_compares_and_times_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = []
    measure = Executor.measure

    def kept(self, *arguments, **keywords):
        rows.append(measure(self, *arguments, **keywords))
        return rows[-1]

    monkeypatch.setattr(Executor, "measure", kept)
    done = ena_bench("verify", *TINY, "--mode", "bwd", "--json")
    assert done.exit_code == 0
    document = json.loads(done.stdout)
    (case,) = document["cases"]
    assert (case["status"], case["verified"]) == ("ok", "twin+sampled")
    assert 0 < case["error_gradient"] < 1e-4
    assert [row.latency_ms for row in rows] == [None]
    assert list(tmp_path.iterdir()) == []


def test_verify_fails_where_a_contender_is_wrong(tmp_path, monkeypatch):
    (tmp_path / "wrong_mixer.py").write_text(WRONG)
    info = tmp_path / "wrong_mixer-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: wrong-mixer\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[ena_bench.contenders]\nwrong = wrong_mixer:contenders\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    done = ena_bench("verify", "--level", "op", "--contender", "wrong", *TINY[6:], "--mode", "fwd")
    assert done.exit_code == 1
    assert "incorrect: output differs from float64 by 2.50e-01" in done.stdout


def test_verify_fails_where_it_could_compare_nothing(no_worker):
    done = ena_bench("verify", *TINY[:4], "--impl", "sdpa_cudnn", *TINY[6:])
    assert done.exit_code == 1


def test_profile_writes_a_trace_and_shows_the_share_of_each_component(tmp_path):
    done = ena_bench("profile", *TINY, "--mode", "fwd", "-o", tmp_path / "traces")
    assert done.exit_code == 0
    assert "op/attention/eager/fwd/B2-H3-37-D8" in done.stdout
    assert "component" in done.stdout
    document = ena_bench("profile", *TINY, "--mode", "fwd", "-o", tmp_path / "traces", "--json")
    assert json.loads(document.stdout)
    assert any("trace" in p.name or "json" in p.name for p in (tmp_path / "traces").iterdir())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ([*TINY, "--mode", "fwd,bwd"], "2 cases are planned"),
        ([*TINY[:4], "--impl", "sdpa_cudnn", *TINY[6:], "--mode", "fwd"], "runs device cuda only"),
    ],
)
def test_profile_takes_exactly_one_case_that_can_run(options, reason, no_worker, tmp_path):
    done = ena_bench("profile", *options, "-o", tmp_path / "traces")
    assert done.exit_code == 2
    assert reason in done.stderr.splitlines()[0]
    assert len(done.stderr.splitlines()) == 3
    assert not (tmp_path / "traces").exists()


def interrupt(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("at", "arguments"),
    [
        ("bench.baseline.read", ["compare", "A", "B"]),
        ("bench.baseline.read", ["check", "--baseline", "A", "B"]),
        ("bench.results.load", ["report", "A"]),
        ("bench.results.export", ["export", "A", "-o", "B"]),
        ("bench.session.plan", ["run", "--dry-run"]),
        ("bench.session.plan", ["list", "cases"]),
        ("reports.run.measure", ["verify", *TINY, "--mode", "fwd"]),
        ("bench.profile.profile", ["profile", *TINY, "--mode", "fwd"]),
        ("reports.selftest.simulate", ["selftest"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_an_interrupted_command_that_saves_no_rows_does_not_say_that_it_does(
    at, arguments, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(at, interrupt)
    done = ena_bench(*arguments)
    assert done.exit_code == 130
    assert done.stderr.splitlines()[-1] == "Interrupted."


def test_an_interrupted_run_or_gate_says_where_rows_are_if_there_are_any(
    finished, tmp_path, monkeypatch
):
    _, path = finished
    monkeypatch.setattr("reports.run.measure", interrupt)
    resumed = ena_bench("run", "--resume", path)
    saved = f"Everything measured so far is saved in {path}."
    following = f"next         ena-bench run --resume {path}"
    assert resumed.exit_code == 130
    assert resumed.stderr.splitlines()[-3:] == ["Interrupted.", saved, following]
    monkeypatch.setattr("bench.gate.check", interrupt)
    fresh = ena_bench("check", "--baseline", path, "-o", tmp_path / "candidate")
    assert fresh.stderr.splitlines() == ["Interrupted."]
    shutil.copytree(path, tmp_path / "candidate" / "deep")
    begun = ena_bench("check", "--baseline", path, "-o", tmp_path / "candidate")
    assert begun.stderr.splitlines()[1:] == [
        f"Everything measured so far is saved in {tmp_path / 'candidate'}."
    ]


def children_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_interrupted_run_keeps_every_row_and_leaves_no_worker(tmp_path):
    command = [sys.executable, str(ROOT / "cli.py"), "run", *TINY, "--mode", "fwd"]
    process = subprocess.Popen(
        [*command, "--rounds", "9999"],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline_s = time.monotonic() + 120
    try:
        while len(list(tmp_path.glob("runs/*/results/*.parquet"))) < 2:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        workers = children_of(process.pid)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Interrupted.\nEverything measured so far is saved in runs/" in told
    assert "Traceback" not in told
    assert workers
    assert not any(map(is_running, workers))
    (path,) = tmp_path.glob("runs/*")
    rows, problems = results.load(path)
    assert problems == []
    assert len(rows) == len(rows_of(path)) >= 2
    assert set(rows["status"]) == {"ok"}
