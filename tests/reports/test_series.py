"""What lines in figures are called."""

import pandas as pd
import pytest

from reports import frames, series


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        ({}, "Transformer (sdpa_cudnn)"),
        (
            {"contender": "ena", "impl": "flex+fla", "sparsity_target": 0.7, "scan": "uni"},
            "ENA 70% (flex+fla)",
        ),
        (
            {"contender": "ena", "impl": "sdpa_cudnn+fla", "sparsity_target": 0.0},
            "ENA full attention (sdpa_cudnn+fla)",
        ),
        (
            {
                "contender": "ena",
                "impl": "flex+fla",
                "window": "24x48",
                "scan": "cross",
                "interleave": "attention-first",
                "permute": "qkvo",
            },
            "ENA window 24x48, cross scan, attention-first, permuting qkvo (flex+fla)",
        ),
        ({"contender": "linear", "impl": "fla", "scan": "cross"}, "Linear cross (fla)"),
        (
            {"contender": "linear", "impl": "fla", "scan": "bi", "scan_variant": "official"},
            "Linear bi, official (fla)",
        ),
        (
            {"level": "op", "contender": "sliding_tile", "impl": "flex", "sparsity_target": 0.995},
            "Sliding tile 99.5% (flex)",
        ),
        (
            {"level": "op", "contender": "sliding_tile", "impl": "flex", "sparsity_target": 0.0},
            "Sliding tile 0% (flex)",
        ),
        ({"contender": "my_mixer", "impl": "triton"}, "my_mixer (triton)"),
    ],
)
def test_a_label_names_everything_that_is_not_a_default(row, columns, name):
    assert series.label(row(**columns)) == name


def test_cases_that_differ_in_the_tile_only_are_told_apart(row):
    ena = {"contender": "ena", "impl": "flex+fla", "sparsity_target": 0.7}
    tidy = frames.tidy(pd.DataFrame([row(**ena, tile=t) for t in ("8x16", "4x8")]))
    assert set(tidy["series"]) == {"ENA 70% (flex+fla), tile 8x16", "ENA 70% (flex+fla), tile 4x8"}


def test_a_tile_that_changes_with_the_canvas_does_not_split_a_series(row):
    ena = {"contender": "ena", "impl": "flex+fla", "sparsity_target": 0.7}
    rows = [row(**ena, tile="8x16"), row(**ena, tile="4x8", canvas="60x64")]
    assert set(frames.tidy(pd.DataFrame(rows))["series"]) == {"ENA 70% (flex+fla)"}


def test_the_same_case_of_two_runs_is_told_apart_by_the_run(row):
    tidy = frames.tidy(pd.DataFrame([row(), row(run_id="second")]))
    assert sorted(tidy["series"]) == [
        "Transformer (sdpa_cudnn), run 2026-01-31T10-22-07Z",
        "Transformer (sdpa_cudnn), run second",
    ]


def test_what_only_one_of_several_runs_has_goes_without_its_name(row):
    ena = {"contender": "ena", "impl": "flex+fla", "sparsity_target": 0.7}
    runs = {"run_id": "base-0a1b2c"}, {"run_id": "D-3d4e5f"}
    made = [row(**run) for run in runs]
    assert list(frames.tidy(pd.DataFrame([*made, row(**runs[1], **ena)]))["series"]) == [
        "Transformer (sdpa_cudnn), D",
        "Transformer (sdpa_cudnn), base",
        "ENA 70% (flex+fla)",
    ]


def test_of_several_machines_every_name_says_which(row):
    ena = {"contender": "ena", "impl": "flex+fla", "sparsity_target": 0.7}
    gpus = [{"run_id": f"{n}-0a1b2c", "device_id": n, "device_name": n} for n in ("A100", "H100")]
    tidy = frames.tidy(pd.DataFrame([*(row(**gpu) for gpu in gpus), row(**gpus[1], **ena)]))
    assert "ENA 70% (flex+fla), H100" in set(tidy["series"])


@pytest.mark.parametrize("run", ["o", "t", "official", "a+b"])
def test_a_series_without_its_run_keeps_the_rest_of_its_name(row, run):
    made = {"contender": "linear", "impl": "fla", "scan": "cross", "scan_variant": "official"}
    rows = [row(run_id=name + "-0a1b2c", **made, tile=t) for name in (run, "x") for t in "ab"]
    found = {series.without_run(c) for c in frames.records(frames.tidy(pd.DataFrame(rows)))}
    assert found == {f"Linear cross, official (fla), tile {t}" for t in "ab"}


def test_baselines_come_first_then_ena_by_sparsity_then_scans_by_cost(row):
    rows = [
        row(contender="linear", impl="fla", scan="bi"),
        row(contender="linear", impl="fla", scan="uni"),
        row(contender="a_third_party", impl="x"),
        row(contender="ena", impl="flex+fla", sparsity_target=0.9),
        row(contender="ena", impl="zzz+fla", sparsity_target=0.5),
        row(),
    ]
    assert list(frames.tidy(pd.DataFrame(rows))["series"]) == [
        "Transformer (sdpa_cudnn)",
        "ENA 50% (zzz+fla)",
        "ENA 90% (flex+fla)",
        "Linear uni (fla)",
        "Linear bi (fla)",
        "a_third_party (x)",
    ]
