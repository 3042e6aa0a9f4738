"""Rows become one line per case, and nothing is lost on the way."""

import math

import numpy as np
import pandas as pd
import pytest

from bench.compare import compare
from reports import frames
from tests.comparing import case_of, rows_of


def _tidy(rows):
    return frames.records(frames.tidy(pd.DataFrame(rows)))


def test_an_empty_frame_gives_an_empty_tidy_frame_with_all_columns():
    for nothing in (pd.DataFrame(), pd.DataFrame(columns=list(frames.ROW_COLUMNS))):
        tidy = frames.tidy(nothing)
        assert tidy.empty
        assert list(tidy.columns) == list(frames.TIDY_COLUMNS)
        assert frames.figure_groups(tidy) == []


def test_every_case_stays_whatever_its_status(study):
    rows = study()
    tidy = frames.tidy(rows)
    assert sorted(tidy["case_id"]) == sorted(rows["case_id"])
    assert tidy["status"].value_counts().to_dict() == {"ok": 14, "unsupported": 5, "oom": 1}


@pytest.mark.parametrize("samples", [[3.0], [2.99, 3.0, 3.01, 3.0, 3.0]])
def test_a_latency_of_fewer_than_six_samples_is_known_to_five_percent_at_best(samples, row):
    tight = {"latency_ms": 3.0, "latency_ms_lo": min(samples), "latency_ms_hi": max(samples)}
    (case,) = _tidy([row(**tight, samples_ms=samples)])
    assert (case["latency_ms_lo"], case["latency_ms_hi"]) == pytest.approx((2.85, 3.15))
    (wide,) = _tidy([row(**tight | {"latency_ms_hi": 4.0}, samples_ms=[2.5, 3.0, 4.0])])
    assert (wide["latency_ms_lo"], wide["latency_ms_hi"]) == pytest.approx((2.85, 4.0))
    (enough,) = _tidy([row(**tight, samples_ms=samples * 6)])
    assert (enough["latency_ms_lo"], enough["latency_ms_hi"]) == (min(samples), max(samples))


def test_a_single_round_keeps_its_own_numbers(row):
    (case,) = _tidy([row(latency_ms=3.0)])
    assert case["latency_ms"] == 3.0
    assert (case["latency_ms_lo"], case["latency_ms_hi"]) == pytest.approx((2.97, 3.03))
    assert case["spread_fraction"] == pytest.approx(0.06)
    assert (case["num_rounds"], case["num_rounds_ok"], case["num_samples"]) == (1, 1, 6)


def test_rounds_are_pooled_and_the_interval_contains_every_round(row):
    rounds = [row(round=r, latency_ms=ms) for r, ms in enumerate((2.0, 3.0, 2.2))]
    (case,) = _tidy(rounds)
    # a tenth is trimmed at each end: weights 7 to 10 to 7
    middle = np.exp((7 * np.log(2.0) + 10 * np.log(2.2) + 7 * np.log(3.0)) / 24)
    assert case["latency_ms"] == pytest.approx(middle)
    assert case["latency_ms_lo"] <= 2.0
    assert case["latency_ms_hi"] >= 3.0
    assert case["num_samples"] == 18
    assert case["tokens_per_s"] == pytest.approx(4096 / case["latency_ms"] * 1e3)


def test_pooled_memory_is_the_largest_of_the_rounds(row):
    rounds = [row(round=r, peak_memory_mib=m) for r, m in enumerate((310.0, 290.0))]
    assert _tidy(rounds)[0]["peak_memory_mib"] == 310.0


def test_a_round_counts_once_however_many_samples_it_had_time_for(row):
    few, many = ([2.0] * 7, [3.0] * 700)
    rounds = [row(round=r, latency_ms=s[0], samples_ms=s) for r, s in enumerate((few, many))]
    (case,) = _tidy(rounds)
    assert case["latency_ms"] == pytest.approx(6**0.5)


def test_a_report_and_a_comparison_give_a_case_the_same_latency():
    run = rows_of([case_of(3)], rounds=4, between=0.3, seed=5)
    run["samples_ms"] = [list(s) * (1 + 9 * (i == 2)) for i, s in enumerate(run["samples_ms"])]
    (shown,) = _tidy(frames.records(run))
    (compared,) = compare(run, run).cases
    assert shown["latency_ms"] == pytest.approx(compared.baseline_ms, rel=1e-12)


def test_rounds_without_samples_use_their_medians_and_intervals(row):
    rounds = [row(round=r, latency_ms=ms, samples_ms=None) for r, ms in enumerate((2.0, 2.4, 2.6))]
    (case,) = _tidy(rounds)
    middle = np.exp((7 * np.log(2.0) + 10 * np.log(2.4) + 7 * np.log(2.6)) / 24)
    assert case["latency_ms"] == pytest.approx(middle)
    assert case["latency_ms_lo"] == pytest.approx(1.98)
    assert case["latency_ms_hi"] == pytest.approx(2.626)


def test_a_round_that_failed_beside_a_success_becomes_a_warning(row):
    (case,) = _tidy([row(), row(round=1, status="crashed", reason="signal 11")])
    assert case["status"] == "ok"
    assert case["num_rounds_ok"] == 1
    assert case["warnings"] == ["1 of its rounds ended crashed: signal 11"]


@pytest.mark.parametrize("status", ["incorrect", "fallback"])
def test_a_case_that_was_wrong_once_has_no_latency(row, status):
    wrong = row(round=1, status=status, reason="no") | {"latency_ms": 1.0, "tokens_per_s": 9.0}
    (case,) = _tidy([row(), wrong])
    assert case["status"] == status
    assert case["latency_ms"] is None
    assert case["tokens_per_s"] is None
    assert case["speedup"] is None


def test_ok_without_a_latency_is_a_failure_with_a_reason(row):
    for latency_ms in (None, math.nan):
        (case,) = _tidy([row(latency_ms=latency_ms, samples_ms=None)])
        assert case["status"] == "failed"
        assert "without a latency" in case["reason"]


def test_runs_and_devices_are_not_pooled(row):
    cases = _tidy([row(), row(run_id="other"), row(device_id="cd34"), row(round=1)])
    assert len(cases) == 3
    assert sorted(c["num_rounds"] for c in cases) == [1, 1, 2]


def test_rows_without_any_id_stay_apart(row):
    assert len(_tidy([row(case_id=None, case_path=None) for _ in range(3)])) == 3


def test_records_are_plain_python():
    frame = pd.DataFrame(
        {
            "batch": [2.0, None],
            "latency_ms": [np.nan, np.inf],
            "samples_ms": [np.array([1.0, np.nan]), None],
            "reason": ["why", None],
            "git_dirty": pd.array([True, None], dtype="boolean"),
        }
    )
    first, second = frames.records(frame)
    assert (first["batch"], second["batch"]) == (2, None)
    assert isinstance(first["batch"], int)
    assert first["latency_ms"] is None
    assert second["latency_ms"] is None
    assert first["samples_ms"] == [1.0, None]
    assert (first["git_dirty"], second["git_dirty"], second["reason"]) == (True, None, None)
    assert first["mode"] is None


def test_lines_follow_the_squarest_canvas_of_a_length(row):
    cases = _tidy([row(canvas=c) for c in ("32x128", "64x64", "16x256")])
    assert {c["canvas"]: c["is_squarest"] for c in cases} == {
        "32x128": False,
        "64x64": True,
        "16x256": False,
    }


def test_a_figure_holds_level_mode_and_setting_fixed(row):
    rows = [row(), row(mode="fwdbwd"), row(heads=3), row(device_id="cd34"), row(canvas="4096")]
    groups = frames.figure_groups(frames.tidy(pd.DataFrame(rows)))
    assert [(level, mode, len(part)) for level, mode, part in groups] == [
        ("layer", "fwd", 1),
        ("layer", "fwd", 3),
        ("layer", "fwdbwd", 1),
    ]


def test_runs_that_measured_the_same_share_a_figure_under_names_of_their_own(row):
    gpus = [
        {"device_name": "NVIDIA H200", "device_id": "cd34", "run_id": "new", "latency_ms": 1.0},
        {"run_id": "old", "latency_ms": 3.0},
    ]
    ena = {"contender": "ena", "impl": "triton", "sparsity_target": 0.7}
    rows = [row(**gpu) for gpu in gpus] + [row(**gpu | ena) for gpu in gpus]
    ((_, _, part),) = frames.figure_groups(frames.tidy(pd.DataFrame(rows)))
    assert sorted(part["series"]) == [
        "ENA 70% (triton), H100",
        "ENA 70% (triton), H200",
        "Transformer (sdpa_cudnn), H100",
        "Transformer (sdpa_cudnn), H200",
    ]
    anchors = dict(zip(part["series"], part["anchor"], strict=True))
    assert anchors["ENA 70% (triton), H100"] == "Transformer (sdpa_cudnn), H100"
    assert anchors["ENA 70% (triton), H200"] == "Transformer (sdpa_cudnn), H200"


def test_of_several_rounds_the_worst_errors_and_the_whole_range_of_the_clock_are_shown(row):
    first = row(
        error_forward=0.1,
        error_gradient=0.2,
        worst_gradient="q",
        error_budget_used=0.3,
        sm_clock_mhz_min=1500.0,
        sm_clock_mhz=1600.0,
        sm_clock_mhz_max=1700.0,
        throttle_reasons=[],
    )
    second = row(
        round=1,
        error_forward=0.05,
        error_gradient=0.7,
        worst_gradient="k",
        error_budget_used=0.9,
        sm_clock_mhz_min=1400.0,
        sm_clock_mhz=1500.0,
        sm_clock_mhz_max=1690.0,
        throttle_reasons=["sw_power_cap"],
    )
    (case,) = _tidy([first, second])
    assert (case["error_forward"], case["error_gradient"], case["error_budget_used"]) == (
        0.1,
        0.7,
        0.9,
    )
    assert case["worst_gradient"] == "k"
    clock = [case[f"sm_clock_mhz{end}"] for end in ("_min", "", "_max")]
    assert clock == [1400.0, 1550.0, 1700.0]
    assert case["throttle_reasons"] == ["sw_power_cap"]
    assert case["power_w"] is None


def test_raw_lists_stay_with_the_rows(row):
    for status in ("ok", "oom"):
        (case,) = _tidy([row(status=status, kernels=["a"], outliers=[False])])
        assert {case[name] for name in frames.RAW_LISTS} == {None}


def test_the_setting_reads_as_a_sentence(row):
    (case,) = _tidy([row(batch=2, heads=3)])
    assert case["setting"] == "batch 2, 3 heads of 64, depth 2, bfloat16, cuda"
    (operator,) = _tidy([row(level="op", contender="attention", depth=1)])
    assert operator["setting"] == "batch 1, 12 heads of 64, bfloat16, cuda"


def test_machines_are_listed_once(row):
    tidy = frames.tidy(pd.DataFrame([row(), row(mode="bwd"), row(device_id="cd34")]))
    assert [m["device_id"] for m in frames.machines(tidy)] == ["ab12", "cd34"]
