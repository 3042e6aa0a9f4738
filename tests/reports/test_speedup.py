"""Speed-ups are relative to the right anchor or there is none."""

import pandas as pd
import pytest

from reports import frames, speedup

ENA = {"contender": "ena", "impl": "flex+fla", "sparsity_target": 0.7}


def _ena(rows):
    cases = frames.records(frames.tidy(pd.DataFrame(rows)))
    (found,) = [c for c in cases if c["contender"] == "ena"]
    return found


def test_the_ratio_is_that_of_the_medians_and_its_range_the_widest_possible(row):
    ena = _ena([row(latency_ms=3.0), row(**ENA, latency_ms=2.0)])
    assert ena["speedup"] == pytest.approx(1.5)
    assert ena["speedup_lo"] == pytest.approx(3.0 * 0.99 / (2.0 * 1.01))
    assert ena["speedup_hi"] == pytest.approx(3.0 * 1.01 / (2.0 * 0.99))


def test_the_anchor_is_the_fastest_flash_transformer(row):
    rows = [
        row(impl="sdpa_cudnn", latency_ms=4.0),
        row(impl="flash_attn", latency_ms=3.0),
        row(impl="flex", latency_ms=1.0),
        row(**ENA, latency_ms=2.0),
    ]
    ena = _ena(rows)
    assert ena["anchor"] == "Transformer (flash_attn)"
    assert ena["anchor_is_flash"] is True
    assert ena["speedup"] == pytest.approx(1.5)


def test_the_prediction_is_the_ratio_of_flops_and_unknown_where_one_is(row):
    transformer = row(latency_ms=3.0, flops=9e9)
    ena = row(**ENA, latency_ms=2.0, flops=2e9)
    assert _ena([transformer, ena])["speedup_by_flops"] == pytest.approx(4.5)
    assert _ena([transformer, ena | {"flops": None}])["speedup_by_flops"] is None
    assert _ena([transformer | {"flops": None}, ena])["speedup_by_flops"] is None


def test_an_anchor_of_the_same_run_comes_before_a_faster_one_of_another(row):
    rows = [
        row(run_id="old", impl="flash_attn", latency_ms=3.0),
        row(run_id="new", impl="sdpa_cudnn", latency_ms=4.0),
        row(run_id="new", **ENA, latency_ms=2.0),
    ]
    assert _ena(rows)["speedup"] == pytest.approx(2.0)
    assert _ena([rows[0], rows[2]])["speedup"] == pytest.approx(1.5)


def test_without_a_flash_transformer_the_fastest_other_one_stands_in_and_says_so(row):
    rows = [row(impl="eager", latency_ms=9.0), row(impl="flex", latency_ms=6.0), row(**ENA)]
    ena = _ena(rows)
    assert ena["anchor"] == "Transformer (flex)"
    assert ena["anchor_is_flash"] is False
    assert ena["speedup"] == pytest.approx(3.0)


@pytest.mark.parametrize(
    "other",
    [
        {"mode": "fwdbwd"},
        {"level": "model"},
        {"batch": 2},
        {"heads": 3},
        {"head_dim": 128},
        {"depth": 4},
        {"dtype": "float16"},
        {"device": "cpu"},
        {"device_id": "cd34"},
        {"timer": "graph"},
        {"canvas": "32x64"},
        {"status": "oom"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_an_anchor_that_differs_in_anything_held_fixed_is_no_anchor(row, other):
    ena = _ena([row(**other), row(**ENA)])
    assert ena["speedup"] is None
    assert ena["anchor"] is None


def test_another_canvas_of_the_same_length_stands_in_where_none_ran_on_the_canvas(row):
    ena = _ena([row(canvas="4096", latency_ms=5.0), row(**ENA)])
    assert ena["speedup"] == pytest.approx(2.5)
    assert ena["anchor_canvas"] == "4096"
    ena = _ena([row(canvas="4096", latency_ms=5.0), row(latency_ms=8.0), row(**ENA)])
    assert ena["speedup"] == pytest.approx(4.0)


def test_the_anchor_is_exactly_one_times_itself(row):
    (anchor,) = frames.records(frames.tidy(pd.DataFrame([row()])))
    assert (anchor["speedup_lo"], anchor["speedup"], anchor["speedup_hi"]) == (1.0, 1.0, 1.0)


def test_operators_are_compared_with_full_attention_and_scans_with_nothing(row):
    op = {"level": "op", "depth": 1}
    rows = [
        row(**op, contender="attention", latency_ms=6.0),
        row(**op, contender="delta_rule", impl="fla", latency_ms=2.0),
        row(**op, contender="scan", impl="eager", latency_ms=0.1),
    ]
    by_name = {c["contender"]: c for c in frames.records(frames.tidy(pd.DataFrame(rows)))}
    assert by_name["delta_rule"]["speedup"] == pytest.approx(3.0)
    assert by_name["scan"]["speedup"] is None


def test_memory_is_compared_where_both_are_known(row):
    assert _ena([row(), row(**ENA, peak_memory_mib=75.0)])["memory_ratio"] == 0.25
    assert _ena([row(peak_memory_mib=None), row(**ENA)])["memory_ratio"] is None


def test_a_series_is_compared_with_the_fastest_linear_model_of_its_length(row):
    linear = {"contender": "linear", "impl": "fla"}
    cases = frames.records(
        frames.tidy(
            pd.DataFrame(
                [
                    row(latency_ms=2.0),
                    row(latency_ms=2.0, canvas="64x128"),
                    row(latency_ms=2.0, mode="bwd"),
                    row(**linear, scan="flip", latency_ms=3.0),
                    row(**linear, scan="cross", latency_ms=5.0),
                    row(**linear, latency_ms=6.0),
                    row(**linear | {"impl": "eager"}, latency_ms=9.0),
                    row(**linear, scan="bi", status="oom"),
                    row(**linear, latency_ms=1.0, canvas="4096"),
                    row(**linear, latency_ms=1.0, run_id="another"),
                ]
            )
        )
    )
    found = speedup.over_linear(cases)
    assert [(name, length) for _, _, name, length in found] == [
        (next(c["series"] for c in cases if c["contender"] == "transformer"), 4096)
    ]
    assert list(found.values()) == [(1.5, True)]


def test_an_operator_is_compared_with_the_delta_rule(row):
    op = {"level": "op", "depth": 1}
    rows = [
        row(**op, contender="attention", latency_ms=4.0),
        row(**op, contender="delta_rule", impl="triton", latency_ms=1.0),
        row(**op, contender="scan", impl="triton", latency_ms=0.1),
    ]
    found = speedup.over_linear(frames.records(frames.tidy(pd.DataFrame(rows))))
    assert {place[2]: ratio for place, (ratio, _) in found.items()} == {
        "Attention (sdpa_cudnn)": 0.25
    }
