"""Efficiency of sparsity on cases whose answer is known."""

import pandas as pd
import pytest

from reports import frames, sparsity

OP = {"level": "op", "depth": 1, "canvas": "64x128"}
STA = {"contender": "sliding_tile", "tile": "8x16"}
ENA = {"contender": "ena", "tile": "8x16", "interleave": "linear-first"}


def table(*rows):
    return sparsity.efficiency_table(frames.tidy(pd.DataFrame(list(rows))))


def test_an_operator_is_ideal_where_time_goes_with_what_is_attended(row):
    dense = row(**OP, contender="attention", latency_ms=8.0)
    sparse = row(**OP, **STA, sparsity_target=0.7, sparsity=0.75, latency_ms=4.0)
    (found,) = table(dense, sparse)
    assert found.speedup == pytest.approx(2.0)
    assert found.ideal == pytest.approx(4.0)
    assert found.efficiency == pytest.approx(0.5)
    assert found.dense == "Attention (sdpa_cudnn)"
    assert (found.seq_len, found.ndim, found.sparsity) == (8192, 2, 0.75)
    assert found.lo == pytest.approx(2.0 * 0.99 / 1.01)
    assert found.hi == pytest.approx(2.0 * 1.01 / 0.99)


def test_a_layer_is_compared_with_itself_at_full_attention_by_the_flops_that_are_left(row):
    dense = row(
        **ENA, impl="sdpa_cudnn+fla", sparsity_target=0.0, sparsity=0.0, latency_ms=10.0, flops=9e12
    )
    sparse = row(
        **ENA, impl="triton+fla", sparsity_target=0.7, sparsity=0.6875, latency_ms=5.0, flops=3e12
    )
    (found,) = table(row(latency_ms=1.0), dense, sparse)
    assert (found.speedup, found.ideal) == (pytest.approx(2.0), pytest.approx(3.0))
    assert found.efficiency == pytest.approx(2 / 3)
    assert found.dense == "ENA full attention (sdpa_cudnn+fla)"


def test_the_fastest_full_attention_counts(row):
    dense = [
        row(**ENA, impl=f"{impl}+fla", sparsity_target=0.0, sparsity=0.0, latency_ms=ms, flops=9e12)
        for impl, ms in (("sdpa_flash", 12.0), ("sdpa_cudnn", 10.0), ("flex", 30.0))
    ]
    sparse = row(**ENA, impl="triton+fla", sparsity_target=0.5, sparsity=0.5, flops=6e12)
    (found,) = table(*dense, sparse)
    assert found.dense == "ENA full attention (sdpa_cudnn+fla)"


@pytest.mark.parametrize(
    "other",
    [
        {"impl": "sdpa_cudnn+eager"},
        {"scan": "cross"},
        {"mode": "fwdbwd"},
        {"canvas": "64x128"},
        {"interleave": "stacked"},
        {"status": "oom"},
        {"flops": None},
        {"run_id": "another"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_layer_without_a_comparable_full_attention_has_no_efficiency(row, other):
    full = {"impl": "sdpa_cudnn+fla", "sparsity_target": 0.0, "sparsity": 0.0, "flops": 9e12}
    sparse = row(**ENA, impl="triton+fla", sparsity_target=0.5, sparsity=0.5, flops=6e12)
    assert table(row(**ENA | full | other), sparse) == []


def test_an_operator_without_an_anchor_has_no_efficiency(row):
    assert table(row(**OP, **STA, sparsity_target=0.7, sparsity=0.75)) == []


def test_what_is_not_sparse_or_not_timed_is_left_out(row):
    dense = row(**OP, contender="attention", latency_ms=8.0)
    others = [
        row(**OP, **STA, sparsity_target=0.0, sparsity=0.0, impl="flex"),
        row(**OP, **STA, sparsity_target=0.7, sparsity=0.75, status="timeout"),
        row(**OP, contender="delta_rule", impl="triton"),
    ]
    assert table(dense, *others) == []


def test_a_family_is_what_all_sparsities_share(row):
    cases = frames.records(
        frames.tidy(
            pd.DataFrame(
                [
                    row(**ENA, impl="triton+fla", sparsity_target=0.5, sparsity=0.5),
                    row(**ENA, impl="triton+fla", sparsity_target=0.9, sparsity=0.9),
                    row(**ENA, impl="triton+fla", sparsity_target=0.9, scan="cross"),
                ]
            )
        )
    )
    families = [sparsity.family(c) for c in cases]
    assert families[0] == families[1] == "ena, triton+fla"
    assert families[2] == "ena, triton+fla, cross"
