"""Histories of cases over runs with changes that are known."""

import json

import numpy as np
import pandas as pd
import pytest

from reports import change_points, history, history_text

NUM_RUNS = 12
COMMITS = [f"{0xA1B2C00 + i:07x}" + "0" * 33 for i in range(NUM_RUNS)]


@pytest.fixture
def runs(row):
    """Rows of a dozen runs of three cases whose latencies differ by 1% from run to run.

    `factors` gives a function of the run for each canvas; `changes` columns by run.
    """

    def make(factors=None, changes=None, *, num_runs=NUM_RUNS, canvases=("32x64", "64x64", "8x16")):
        rng = np.random.default_rng(5)
        rows = []
        for run in range(num_runs):
            for canvas in canvases:
                scale = (factors or {}).get(canvas, lambda _: 1.0)(run)
                made = {
                    "run_id": f"run-{run}",
                    "started_at": f"2026-03-{run + 1:02d}T08:00:00+00:00",
                    "git_commit": COMMITS[run],
                    "canvas": canvas,
                    "latency_ms": 2.0 * scale * float(np.exp(rng.normal(0, 0.01))),
                }
                rows.append(row(**made | (changes or {}).get(run, {})))
        return pd.DataFrame(rows)

    return make


def _slower_from(run, factor=1.3):
    return lambda number: factor if number >= run else 1.0


def _case(found, canvas):
    (case,) = (c for c in found.cases if f"-{canvas}-" in c.case_path or canvas in c.case_path)
    return case


def test_a_change_has_its_factor_its_run_and_its_commits(runs):
    found = history.compose(runs({"64x64": _slower_from(7)}))
    ((case, step),) = found.steps
    assert "64x64" in case.case_path
    assert step.is_slower
    assert step.change.lo < 1.3 < step.change.hi
    assert step.before_ms == pytest.approx(2.0, rel=0.02)
    assert step.after_ms == pytest.approx(2.6, rel=0.02)
    assert (step.last_before.run_id, step.first_after.run_id) == ("run-6", "run-7")
    assert step.first_after.number == 8
    assert step.commits == f"{COMMITS[6][:7]}..{COMMITS[7][:7]}"
    assert step.others == ()


def test_what_else_changed_is_told(runs):
    later = {run: {"torch": "2.12.0", "device_id": "other"} for run in range(7, NUM_RUNS)}
    found = history.compose(runs({"64x64": _slower_from(7)}, later))
    ((_, step),) = found.steps
    assert step.others == ("torch 2.11.0 to 2.12.0",)
    assert "also torch 2.11.0 to 2.12.0" in history_text.step_sentence(*found.steps[0])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"git_commit": None}, "no commit"),
        ({"git_dirty": True}, f"{COMMITS[7][:7]} + changes"),
    ],
)
def test_a_range_of_commits_is_only_written_where_git_would_understand_it(runs, changes, expected):
    made = dict.fromkeys(range(7, NUM_RUNS), changes)
    found = history.compose(runs({"64x64": _slower_from(7)}, made))
    assert found.steps[0][1].commits == f"{COMMITS[6][:7]} to {expected}"


def test_one_commit_that_changed_says_so(runs):
    made = {run: {"git_commit": COMMITS[0]} for run in range(NUM_RUNS)}
    found = history.compose(runs({"64x64": _slower_from(7)}, made))
    assert found.steps[0][1].commits == f"same commit {COMMITS[0][:7]}"


def test_runs_are_in_order_of_time_whatever_the_order_of_rows(runs):
    rows = runs({"64x64": _slower_from(7)})
    found = history.compose(rows.sample(frac=1, random_state=3))
    assert [run.run_id for run in found.runs] == [f"run-{i}" for i in range(NUM_RUNS)]
    assert found.steps[0][1].first_after.run_id == "run-7"
    assert [p.run.number for p in found.cases[0].points] == list(range(1, NUM_RUNS + 1))


def test_slower_cases_come_before_faster_ones_and_large_changes_before_small(runs):
    factors = {
        "32x64": _slower_from(6, 0.5),
        "64x64": _slower_from(6, 1.2),
        "8x16": _slower_from(6, 1.6),
    }
    found = history.compose(runs(factors))
    ratios = [step.change.ratio for _, step in found.steps]
    assert ratios == pytest.approx([1.6, 1.2, 0.5], rel=0.03)
    assert history_text.headline(found) == (
        "12 runs of 3 cases: 3 cases changed, 3 times (2 slower, 1 faster)."
    )


def test_rounds_of_a_run_are_one_point(runs):
    rows = runs()
    again = rows.assign(round=1)
    found = history.compose(pd.concat([rows, again]))
    assert {len(case.points) for case in found.cases} == {NUM_RUNS}


def test_devices_have_histories_of_their_own(runs):
    first = runs({"64x64": _slower_from(7)})
    other = first.assign(device_name="NVIDIA H200", device_id="cd34", run_id=first.run_id + "-b")
    found = history.compose(pd.concat([first, other]))
    assert len(found.cases) == 6
    assert {run.number for run in found.runs} == set(range(1, NUM_RUNS + 1))
    assert history_text.device_lines(found) == [
        "NVIDIA H100 80GB HBM3: 12 runs, 2026-03-01 to 2026-03-12",
        "NVIDIA H200: 12 runs, 2026-03-01 to 2026-03-12",
    ]


def test_equal_machines_of_a_fleet_share_a_history(runs):
    made = {run: {"device_id": f"machine-{run % 2}"} for run in range(NUM_RUNS)}
    found = history.compose(runs({"64x64": _slower_from(7)}, made))
    assert len(found.cases) == 3
    assert len(found.steps) == 1


def test_a_case_that_stopped_is_told_and_its_failures_move_nothing(runs):
    rows = runs()
    is_gone = rows.canvas.eq("64x64") & rows.run_id.isin(["run-10", "run-11"])
    rows.loc[is_gone, ["status", "reason", "latency_ms"]] = ["oom", "CUDA out of memory", None]
    found = history.compose(rows)
    assert found.steps == []
    (told,) = history_text.stopped_sentences(found)
    assert told.endswith("oom from run 11 on (CUDA out of memory); last timed in run 10")
    assert [p.status for p in _case(found, "64x64").points[-2:]] == ["oom", "oom"]


def test_a_case_that_never_ran_is_no_history(runs):
    rows = runs()
    rows.loc[rows.canvas.eq("64x64"), ["status", "latency_ms"]] = ["unsupported", None]
    assert len(history.compose(rows).cases) == 2


def test_a_case_that_is_missing_in_some_runs_keeps_its_places(runs):
    rows = runs({"64x64": _slower_from(7)})
    rows = rows[~(rows.canvas.eq("64x64") & rows.run_id.isin(["run-6", "run-7"]))]
    found = history.compose(rows)
    ((case, step),) = found.steps
    assert [p.run.number for p in case.points] == [1, 2, 3, 4, 5, 6, 9, 10, 11, 12]
    assert (step.last_before.run_id, step.first_after.run_id) == ("run-5", "run-8")


def test_a_change_of_many_cases_at_once_points_at_the_machine(runs):
    canvases = ("32x64", "64x64", "8x16", "16x32", "64x128")
    factors = {canvas: _slower_from(6, 1.2) for canvas in canvases}
    found = history.compose(runs(factors, canvases=canvases))
    (common,) = found.common
    assert len(common.steps) == common.num_cases == 5
    sentence = history_text.common_sentence(common)
    assert sentence.startswith("5 of 5 cases on NVIDIA H100 80GB HBM3 changed at run 7, by 1.")
    assert "look at the machine" in sentence


def test_a_change_of_few_cases_does_not(runs):
    assert history.compose(runs({"64x64": _slower_from(7)})).common == []


def test_a_shift_of_the_last_runs_is_named_apart(runs):
    found = history.compose(runs({"64x64": _slower_from(10, 1.5)}))
    assert found.steps == []
    ((case, late),) = found.lates
    assert "64x64" in case.case_path
    assert (late.last_before.run_id, late.first_after.run_id) == ("run-9", "run-10")
    assert late.change.ratio == pytest.approx(1.5, rel=0.03)
    assert history_text.late_sentence(case, late).endswith(": in the last runs only")
    assert history_text.headline(found) == (
        "12 runs of 3 cases: no change; 1 case shifted in the last runs."
    )
    (told,) = history_text.document(found, [])["late_shifts"]
    assert told["first_run_after"] == "run-10"


def test_a_last_run_in_which_all_are_slow_points_at_the_machine(runs):
    canvases = ("32x64", "64x64", "8x16", "16x32", "64x128")
    factors = {canvas: _slower_from(11, 1.4) for canvas in canvases}
    (common,) = history.compose(runs(factors, canvases=canvases)).common
    assert common.run.run_id == "run-11"
    assert len(common.steps) == 5


def test_an_outlier_is_marked_as_one(runs):
    found = history.compose(runs({"64x64": lambda run: 1.5 if run == 4 else 1.0}))
    assert found.steps == []
    alone = [p.run.number for p in _case(found, "64x64").points if p.is_outlier]
    assert alone == [5]


def test_too_few_runs_are_said_to_be_too_few(runs):
    found = history.compose(runs(num_runs=4))
    assert history_text.headline(found) == (
        "4 runs of 3 cases: no change can be found in fewer than 6 runs."
    )


def test_without_rows_there_is_no_history():
    found = history.compose(pd.DataFrame())
    assert (found.runs, found.cases, found.steps, found.common) == ((), (), [], [])
    assert history_text.headline(found) == "No run was given."


def test_the_document_for_programs_has_every_change(runs):
    found = history.compose(runs({"64x64": _slower_from(7)}))
    document = json.loads(json.dumps(history_text.document(found, ["a file is damaged"])))
    (change,) = document["changes"]
    assert change["ratio_lo"] < 1.3 < change["ratio_hi"]
    assert change["first_run_after"] == "run-7"
    assert len(document["runs"]) == NUM_RUNS
    assert document["problems"] == ["a file is damaged"]


def test_the_method_tells_the_numbers_of_the_code():
    text = " ".join(history_text.METHOD)
    assert f"at least {change_points.LEAST_RUNS} runs" in text
    assert "at least 2%" in text
    assert "at most 5%" in text
