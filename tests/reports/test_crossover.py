"""Where a series overtakes the Transformer, on curves whose answers are known."""

import math

import pandas as pd
import pytest

from reports import crossover, frames

LENGTHS = {1024: "32x32", 2048: "32x64", 4096: "64x64", 8192: "64x128"}


def _table(row, anchor_ms, ena_ms, **ena):
    made = {"contender": "ena", "impl": "flex+fla", "sparsity_target": 0.7} | ena
    rows = []
    for canvas, slow, fast in zip(LENGTHS.values(), anchor_ms, ena_ms, strict=True):
        rows += [row(canvas=canvas, latency_ms=slow), row(canvas=canvas, latency_ms=fast, **made)]
    return crossover.overtaking_table(frames.tidy(pd.DataFrame(rows)))


def test_the_study_is_overtaken_at_4096(study):
    found = {line.series: line for line in crossover.overtaking_table(frames.tidy(study()))}
    ena = found["ENA 70% (flex+fla)"]
    assert (ena.verdict, ena.num_crossings, ena.ndim, ena.sparsity) == ("from", 1, 2, 0.7)
    assert ena.seq_len == pytest.approx(4096)
    assert ena.lo < ena.seq_len < ena.hi
    assert ena.anchor_is_flash
    assert "Transformer (sdpa_cudnn)" not in found


def test_the_errors_of_both_medians_add_in_quadrature(row):
    (found,) = _table(row, (1.0, 4.0, 16.0, 64.0), (3.0, 6.0, 12.0, 24.0))
    assert found.seq_len == pytest.approx(1024 * 3)
    shift = math.hypot(0.01, 0.01)
    assert found.lo == pytest.approx(3072 * (1 - shift), rel=1e-3)
    assert found.hi == pytest.approx(3072 * (1 + shift), rel=1e-3)


def test_never_and_always_say_up_to_and_from_which_length(row):
    (never,) = _table(row, (1.0, 2.0, 4.0, 8.0), (2.0, 4.0, 8.0, 16.0))
    assert (never.verdict, never.seq_len, never.last_len) == ("never", None, 8192)
    (always,) = _table(row, (2.0, 4.0, 8.0, 16.0), (1.0, 2.0, 4.0, 8.0))
    assert (always.verdict, always.seq_len, always.first_len) == ("always", None, 1024)


def test_a_curve_that_crosses_more_than_once_says_so(row):
    (found,) = _table(row, (1.0, 3.0, 4.0, 30.0), (2.0, 2.0, 8.0, 8.0))
    assert (found.verdict, found.num_crossings) == ("from", 3)
    assert 4096 < found.seq_len < 8192


def test_without_an_anchor_there_is_nothing_to_overtake(row):
    alone = frames.tidy(pd.DataFrame([row(contender="ena", impl="flex+fla")]))
    assert crossover.overtaking_table(alone) == []
