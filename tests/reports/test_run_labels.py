"""Labels that tell runs apart: short, distinct, and by what differs."""

import json

import pandas as pd
import pytest

from reports import frames, run_labels

LATER = "2026-02-01T08-00-00Z"


def _labelled(cases):
    run_labels.attach(cases)
    return [c["run_label"] for c in cases]


def test_a_single_run_has_no_label(row):
    cases = [row(), row(canvas="64x128")]
    assert _labelled(cases) == [None, None]
    assert run_labels.labels(cases) == {}
    assert run_labels.differences(cases) == []


def test_runs_that_measured_different_things_have_no_label(row):
    cases = [row(canvas="32x64"), row(canvas="64x128", run_id=LATER, torch="2.12.0")]
    assert _labelled(cases) == [None, None]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (
            {"device_name": "NVIDIA H100 80GB HBM3", "device_id": "a"},
            {"device_name": "NVIDIA H200", "device_id": "b"},
            ["H100", "H200"],
        ),
        (
            {"device_name": "NVIDIA A100-SXM4 40GB", "device_id": "a"},
            {"device_name": "NVIDIA A100-SXM4 80GB", "device_id": "b"},
            ["NVIDIA A100-SXM4 40GB", "NVIDIA A100-SXM4 80GB"],
        ),
        (
            {"git_commit": "a1b2c3d4e5f6", "git_dirty": False},
            {"git_commit": "f6e5d4c3b2a1", "git_dirty": True},
            ["a1b2c3d", "f6e5d4c + changes"],
        ),
        ({"git_commit": "a1b2c3d4e5f6"}, {"git_commit": None}, ["a1b2c3d", "no commit"]),
        ({"torch": "2.11.0"}, {"torch": "2.12.0"}, ["torch 2.11.0", "torch 2.12.0"]),
        (
            {"libraries": json.dumps({"fla": "0.6.0"})},
            {"libraries": json.dumps({"fla": "0.7.1"})},
            ["fla 0.6.0", "fla 0.7.1"],
        ),
        (
            {"libraries": None},
            {"libraries": json.dumps({"fla": "0.7.1"})},
            ["fla absent", "fla 0.7.1"],
        ),
        (
            {"started_at": "2026-01-31T10:22:07+00:00"},
            {"started_at": "2026-02-01T08:00:00+00:00"},
            ["2026-01-31", "2026-02-01"],
        ),
        ({}, {}, ["run 2026-01-31T10-22-07Z", f"run {LATER}"]),
    ],
)
def test_a_label_is_what_differs(row, first, second, expected):
    assert _labelled([row(**first), row(run_id=LATER, **second)]) == expected


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("base-0a1b2c", "D-3d4e5f", ["base", "D"]),
        ("2026-01-31T10-22-07Z-0a1b2c", "D-3d4e5f", ["2026-01-31T10-22-07Z", "D"]),
        # alike, or named by nobody: as if there were no names
        ("run-0a1b2c", "run-3d4e5f", ["torch 2.11.0", "torch 2.12.0"]),
        (
            "2026-01-31T10-22-07Z-0a1b2c",
            "2026-01-31T10-25-00Z-3d4e5f",
            ["torch 2.11.0", "torch 2.12.0"],
        ),
        ("base-0a1b2c", "unknown", ["torch 2.11.0", "torch 2.12.0"]),
    ],
)
def test_runs_in_directories_that_somebody_named_differently_have_those_names(
    row, first, second, expected
):
    cases = [row(run_id=first), row(run_id=second, torch="2.12.0")]
    assert _labelled(cases) == expected


def test_what_differs_between_named_runs_is_said(row):
    later = {"torch": "2.12.0", "started_at": "2026-02-01T08:00:00+00:00"}
    cases = [row(run_id="base-0a1b2c"), row(run_id="D-3d4e5f", **later)]
    assert run_labels.differences(cases) == ["torch: 2.11.0 in base, 2.12.0 in D"]


def test_two_devices_of_a_named_run_are_told_apart(row):
    cases = [row(run_id=run, device_id=i) for run in ("a-0a1b2c", "b-3d4e5f") for i in "xy"]
    assert _labelled(cases) == ["a, x", "a, y", "b, x", "b, y"]


def test_the_name_that_a_directory_has_now_comes_first(row):
    rows = pd.DataFrame([row(run_id="ci-0a1b2c"), row(run_id="ci-3d4e5f")])
    tidy = frames.tidy(rows, {"ci-0a1b2c": "main", "ci-3d4e5f": "branch"})
    assert list(tidy["run_label"]) == ["branch", "main"]


def test_facts_are_added_until_all_labels_differ(row):
    made = [("H100", "2.11.0"), ("H100", "2.12.0"), ("H200", "2.11.0")]
    cases = [
        row(run_id=f"r{i}", device_name=f"NVIDIA {gpu}", device_id=gpu, torch=torch, triton=torch)
        for i, (gpu, torch) in enumerate(made)
    ]
    assert _labelled(cases) == ["H100, torch 2.11.0", "H100, torch 2.12.0", "H200, torch 2.11.0"]


def test_everything_that_differs_is_said_even_where_the_label_is_silent(row):
    cases = [
        row(device_name="NVIDIA H100", device_id="a", torch="2.11.0"),
        row(run_id=LATER, device_name="NVIDIA H200", device_id="b", torch="2.12.0"),
    ]
    assert run_labels.differences(cases) == ["torch: 2.11.0 in H100, 2.12.0 in H200"]


def test_two_devices_of_one_run_are_told_apart(row):
    cases = [row(device_id="first"), row(device_id="second")]
    assert _labelled(cases) == ["first", "second"]
    assert run_labels.labels(cases) == {"2026-01-31T10-22-07Z": "first and second"}


def test_a_processor_and_a_gpu_of_one_run_share_no_figure_and_need_no_label(row):
    cases = [row(), row(device="cpu", device_id="c", device_name="EPYC")]
    assert _labelled(cases) == [None, None]


def test_labels_come_in_order_of_time(row):
    late = row(run_id="a", started_at="2026-03-01T00:00:00+00:00", torch="2.12.0")
    early = row(run_id="b", started_at="2026-02-01T00:00:00+00:00", torch="2.11.0")
    assert run_labels.labels([late, early]) == {"b": "torch 2.11.0", "a": "torch 2.12.0"}


@pytest.mark.parametrize("libraries", ["no json", "[1]", ""])
def test_a_damaged_list_of_libraries_is_an_unknown_one(row, libraries):
    cases = [row(libraries=libraries), row(run_id=LATER, torch="2.13.0", libraries=libraries)]
    assert _labelled(cases)[1] == "torch 2.13.0"


def test_what_changed_between_two_runs_leaves_out_the_commit_and_the_unknown(row):
    before = row(git_commit="a", torch="2.11.0", triton=None, num_threads=4)
    after = row(git_commit="b", torch="2.12.0", triton="3.6.0", num_threads=8, timer="graph")
    assert run_labels.changed(before, after) == [
        "torch 2.11.0 to 2.12.0",
        "threads 4 to 8",
        "timer events to graph",
    ]
