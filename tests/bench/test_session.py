"""What is asked is checked before anything runs, and a run taken up again is the same run."""

from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import pytest

from bench import machine, session
from bench.axes import AXES
from bench.errors import StorageError, UsageError
from bench.results import RunDirectory
from bench.timing import Settings

TINY = {
    "level": ["op"],
    "contender": ["delta_rule"],
    "impl": ["eager"],
    "canvas": ["6x10"],
    "mode": ["fwd", "bwd"],
    "heads": ["3"],
    "head_dim": ["8"],
}


@cache
def machine_with(num_gpus):
    """This machine as if it had that many GPUs."""
    return replace(machine.facts(), cuda_available=num_gpus > 0, num_gpus=num_gpus)


def request_of(axes=TINY, **changes):
    keywords = {
        "preset": None,
        "grid_file": None,
        "axes": {axis: axes.get(axis, []) for axis in AXES},
        "settings": {},
        "device": "cpu",
    }
    return session.request(**keywords | changes)


@pytest.fixture
def workers(monkeypatch):
    """Executors that know a machine without starting a process; those made are listed."""
    made = []

    @contextmanager
    def executor_of(asked, log_path, *, measure="bench.measurement:measure"):
        executor = SimpleNamespace(settings=asked.settings, device=asked.device, measure=measure)
        executor.is_closed = False

        def facts():
            with log_path.open("a") as log:
                log.write("worker starts\n")
            return executor_of.machine

        executor.machine = facts
        made.append(executor)
        try:
            yield executor
        finally:
            executor.is_closed = True

    executor_of.machine = machine_with(0)
    monkeypatch.setattr(session, "executor_of", executor_of)
    made_by = SimpleNamespace(made=made, on=lambda facts: setattr(executor_of, "machine", facts))
    return made_by


def test_a_request_puts_the_command_line_over_the_grid_over_the_defaults(tmp_path):
    grid = tmp_path / "mine.toml"
    grid.write_text(
        "[measure]\nbudget_s = 0.5\nprecision = 0.2\n"
        '[[cases]]\nlevel = "op"\ncontender = "attention"\nbatch = 7\n'
    )
    made = request_of(
        {"batch": ["3", "5"]},
        grid_file=grid,
        settings={"budget_s": 0.25, "seed": None, "min_samples": None},
    )
    assert made.grid.name == "mine"
    assert made.grid.blocks[0]["batch"] == [3, 5]
    assert made.settings == replace(Settings(), budget_s=0.25, precision=0.2)
    assert (made.timeout_s, made.rounds) == (300.0, 1)


def test_without_a_grid_it_is_quick():
    assert request_of({}).grid.name == "quick"
    assert request_of({}, preset="ci").grid.name == "ci"


@pytest.mark.parametrize(
    ("changes", "wrong", "try_"),
    [
        ({"preset": "quick", "grid_file": "mine.toml"}, "both given", "--grid mine.toml"),
        ({"preset": "quik"}, "preset 'quik' is unknown", "quick"),
        ({"grid_file": "nowhere.toml"}, "nowhere.toml cannot be read", "list presets"),
        ({"device": "gpu"}, "device 'gpu' is unknown", "--device auto"),
        ({"device": ""}, "device '' is unknown", "--device auto"),
        ({"timeout_s": 0}, "timeout 0 is not positive", "--timeout 1"),
        ({"timeout_s": -2.5}, "timeout -2.5 is not positive", "--timeout 1"),
        ({"timeout_s": float("nan")}, "timeout nan is not positive", "--timeout 1"),
        ({"rounds": 0}, "rounds 0 is not positive", "--rounds 1"),
        ({"settings": {"budget_s": -1.0}}, "budget_s is -1.0", "budget_s = 1.0"),
        ({"settings": {"timer": "sundial"}}, "timer 'sundial' is unknown", "--timer auto"),
    ],
)
def test_a_wrong_request_is_refused_with_a_cure(changes, wrong, try_, tmp_path):
    if "grid_file" in changes:
        changes = changes | {"grid_file": tmp_path / changes["grid_file"]}
    with pytest.raises(UsageError) as caught:
        request_of(**changes)
    told = f"{caught.value}".replace(f"{tmp_path}/", "")
    assert wrong in told.splitlines()[0]
    assert try_ in told.splitlines()[2]


@pytest.mark.parametrize(
    ("device", "num_gpus", "chosen"),
    [
        ("auto", 2, "cuda"),
        ("auto", 0, "cpu"),
        ("cpu", 2, "cpu"),
        ("cpu", 0, "cpu"),
        ("cuda", 2, "cuda"),
        ("cuda:1", 2, "cuda:1"),
    ],
)
def test_auto_is_settled_and_a_named_device_is_kept(device, num_gpus, chosen):
    assert session.decided(device, machine_with(num_gpus)) == chosen


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_cuda_without_cuda_is_a_usage_error(device):
    with pytest.raises(UsageError, match=f"device {device} was asked for") as caught:
        session.decided(device, machine_with(0))
    assert caught.value.exit_code == 2
    assert "ena-bench doctor" in caught.value.try_


@pytest.mark.parametrize(
    ("device", "load", "foreign", "told"),
    [
        ("cpu", 0.5, 3, []),
        ("cpu", 7.5, 3, ["load: 7.5 of 8"]),
        ("cuda:1", 0.5, 3, ["other processes: 3 on the GPU"]),
        ("cuda", 7.5, 2, ["load: 7.5 of 8", "other processes: 2 on the GPU"]),
        ("cuda", None, None, []),
    ],
)
def test_other_programs_that_disturb_timings_are_told_with_a_cure(device, load, foreign, told):
    busy = replace(machine_with(2), num_cores=8, load_average=load, num_foreign_processes=foreign)
    found = session.disturbances(device, busy)
    assert [text.startswith(start) for text, start in zip(found, told, strict=True)] == [
        True
    ] * len(told)
    assert all("; " in text for text in found)


def test_a_plan_is_for_the_kind_of_device():
    made = request_of(device="cuda:1")
    assert {item.case.device for item in session.plan(made, machine_with(2))} == {"cuda"}
    assert {item.case.device for item in session.plan(request_of(), machine_with(2))} == {"cpu"}


def test_a_new_session_writes_its_cases_and_the_settled_device(tmp_path, workers):
    path = tmp_path / "here" / "one"
    made = request_of(device="auto", rounds=3, timeout_s=77.0)
    with session.new_session(made, path, measure="a:b") as active:
        assert active.request == replace(made, device="cpu")
        assert [item.case.mode for item in active.planned] == ["fwd", "bwd"]
        assert active.executor.measure == "a:b"
        assert not active.executor.is_closed
    assert workers.made[0].is_closed
    kept = RunDirectory.open(path)
    assert kept.run_id.startswith("one-")
    assert list(kept.cases) == [item.case for item in active.planned]
    assert kept.options == {
        "grid": "quick",
        "device": "cpu",
        "timeout_s": 77.0,
        "rounds": 3,
        "settings": made.settings.to_dict(),
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"axes": TINY | {"contender": ["ena_typo"]}},
        {"axes": TINY | {"impl": ["magic"]}},
        {"device": "cuda"},
    ],
)
def test_a_wrong_plan_leaves_no_directory_behind(tmp_path, workers, wrong):
    path = tmp_path / "not" / "yet"
    made = request_of(**wrong)
    with pytest.raises(UsageError), session.new_session(made, path):
        pytest.fail("it began")
    assert workers.made
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_plan_leaves_the_users_own_directory(tmp_path, workers):
    path = tmp_path / "mine"
    path.mkdir()
    with pytest.raises(UsageError), session.new_session(request_of(device="cuda"), path):
        pytest.fail("it began")
    assert list(path.iterdir()) == []


def test_a_gpu_that_nobody_sees_leaves_no_directory_behind(tmp_path):
    made = request_of(device="cuda:first")
    with (
        pytest.raises(UsageError, match="does not name a visible GPU"),
        session.new_session(made, tmp_path / "run"),
    ):
        pytest.fail("it began")
    assert list(tmp_path.iterdir()) == []


def test_an_occupied_directory_is_left_as_it_is(tmp_path, workers):
    (tmp_path / "letter.txt").write_text("dear")
    with (
        pytest.raises(StorageError, match="is not empty"),
        session.new_session(request_of(), tmp_path),
    ):
        pytest.fail("it began")
    assert [entry.name for entry in tmp_path.iterdir()] == ["letter.txt"]


def test_an_error_while_measuring_keeps_the_directory(tmp_path, workers):
    path = tmp_path / "run"
    with pytest.raises(UsageError, match="late"), session.new_session(request_of(), path):
        raise UsageError("late", expected="", try_="")
    assert (path / "run.toml").exists()
    assert workers.made[0].is_closed


def test_a_resumed_session_has_the_cases_and_settings_it_was_made_with(tmp_path, workers):
    path = tmp_path / "run"
    made = request_of(
        settings={"budget_s": 0.125, "seed": 9, "min_samples": 13}, rounds=2, timeout_s=55.0
    )
    with session.new_session(made, path) as first:
        pass
    with session.resumed_session(path) as again:
        assert again.request.settings == made.settings
        assert (again.request.rounds, again.request.timeout_s) == (2, 55.0)
        assert again.request.device == "cpu"
        assert again.request.grid.name == "quick"
        assert again.planned == first.planned
        assert again.executor.settings == made.settings
        assert again.directory.run_id == first.directory.run_id
    assert len(workers.made) == 2


def test_a_run_made_for_cuda_is_not_resumed_without(tmp_path, workers):
    workers.on(machine_with(2))
    with session.new_session(request_of(device="auto"), tmp_path / "run") as active:
        assert active.request.device == "cuda"
    workers.on(machine_with(0))
    with (
        pytest.raises(UsageError, match="device cuda was asked for"),
        session.resumed_session(tmp_path / "run"),
    ):
        pytest.fail("it began")


def test_a_case_that_lost_its_library_is_planned_with_the_reason(tmp_path, workers, monkeypatch):
    with session.new_session(request_of(), tmp_path / "run"):
        pass
    contender = session.lookup(RunDirectory.open(tmp_path / "run").cases[0])
    lost = replace(contender, needs=("no_such_library",))
    monkeypatch.setattr(session, "lookup", lambda case: lost)
    with session.resumed_session(tmp_path / "run") as again:
        reasons = {item.reason for item in again.planned}
    assert reasons == {"no_such_library is not installed"}


def test_what_is_no_run_is_not_resumed(tmp_path):
    with pytest.raises(StorageError, match="no run directory"), session.resumed_session(tmp_path):
        pytest.fail("it began")


def test_a_run_path_is_the_time_in_utc():
    path = session.new_run_path()
    assert path.parent.name == "runs"
    assert path.name.endswith("Z")
    assert ":" not in path.name


def test_executor_of_passes_the_request_on(tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr("bench.executor.Executor", lambda **kw: asked.update(kw) or nullcontext())
    made = request_of(timeout_s=5.0, settings={"seed": 4})
    with session.executor_of(made, tmp_path / "log.txt", measure="a:b"):
        pass
    assert asked == {
        "device": "cpu",
        "settings": made.settings,
        "timeout_s": 5.0,
        "log_path": tmp_path / "log.txt",
        "measure": "a:b",
    }


def test_two_runs_in_folders_of_one_name_are_two_runs(tmp_path, workers):
    made = request_of()
    ids = []
    for folder in ("before", "after"):
        with session.new_session(made, tmp_path / folder / "run") as active:
            ids.append(active.directory.run_id)
    assert ids[0] != ids[1]
