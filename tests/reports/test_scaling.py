"""Exponents and crossovers of curves whose answers are known."""

import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports import frames, scaling

LENGTHS = (1024, 2048, 4096, 8192, 16384)


@pytest.mark.parametrize("power", [1.0, 2.0, 1.37])
def test_the_exponent_of_a_power_law_is_found(power):
    fit = scaling.exponent(LENGTHS, [3e-4 * n**power for n in LENGTHS])
    assert fit.value == pytest.approx(power)
    assert (fit.lo, fit.hi) == pytest.approx((power, power))
    assert (fit.from_len, fit.to_len) == (4096, 16384)


def test_small_lengths_do_not_bend_the_exponent():
    launch_bound = [1.0, 1.0, 4.0, 16.0, 64.0]
    assert scaling.exponent(LENGTHS, launch_bound).value == pytest.approx(2.0)
    assert scaling.exponent(LENGTHS, launch_bound, top=5).value < 1.7


def test_the_exponent_s_interval_is_the_range_of_slopes_that_the_intervals_allow():
    fit = scaling.exponent((1024, 4096), (1.0, 4.0), (0.5, 2.0), (2.0, 8.0))
    assert fit.value == pytest.approx(1.0)
    assert (fit.lo, fit.hi) == pytest.approx((0.0, 2.0))


def test_one_length_has_no_exponent():
    assert scaling.exponent([512], [1.0]) is None
    assert scaling.exponent([512, 512], [1.0, 2.0]) is None
    assert scaling.exponent([], []) is None


def test_a_crossover_between_lengths_is_interpolated_on_logarithms():
    ratios = [(n / 3000) ** 0.8 for n in LENGTHS]
    assert scaling.crossover_length(LENGTHS, ratios) == pytest.approx(3000)
    shuffled = [3, 0, 4, 1, 2]
    again = scaling.crossover_length([LENGTHS[i] for i in shuffled], [ratios[i] for i in shuffled])
    assert again == pytest.approx(3000)


@given(st.floats(1100, 16000), st.floats(0.3, 2.0))
def test_any_crossover_of_a_power_law_is_found(length, power):
    ratios = [(n / length) ** power for n in LENGTHS]
    assert scaling.crossover_length(LENGTHS, ratios) == pytest.approx(length)


def test_verdicts():
    def judge(*ratios):
        found = scaling.crossover(LENGTHS[: len(ratios)], ratios)
        return found and (found.verdict, found.seq_len and round(found.seq_len))

    assert judge() is None
    assert judge(1.0, 1.5) == ("always", None)
    assert judge(0.5, 0.9) == ("never", None)
    assert judge(0.5, 2.0) == ("from", 1448)
    assert judge(2.0, 0.5) == ("until", 1448)
    assert judge(2.0, 0.5, 0.5, 2.0) == ("from", 5793)
    assert scaling.crossover_length(LENGTHS, [2.0] * 5) is None


def test_the_crossover_s_ends_are_those_of_the_ratio_s_interval():
    ratios = [n / 3000 for n in LENGTHS]
    found = scaling.crossover(LENGTHS, ratios, [r * 0.9 for r in ratios], [r * 1.1 for r in ratios])
    assert found.lo == pytest.approx(3000 / 1.1)
    assert found.hi == pytest.approx(3000 / 0.9)
    falling = scaling.crossover(
        LENGTHS, ratios[::-1], ratios[::-1], [r * 1.1 for r in ratios[::-1]]
    )
    assert falling.verdict == "until"
    assert falling.lo < falling.hi


def test_an_end_that_never_crosses_is_unknown():
    found = scaling.crossover(LENGTHS[:2], [0.9, 1.05], [0.8, 0.95], [0.95, 1.2])
    assert found.verdict == "from"
    assert found.hi is None
    assert 1024 < found.lo < found.seq_len


def test_the_study_has_exponents_two_and_one_and_crosses_at_4096(study):
    table = {line.series: line for line in scaling.scaling_table(frames.tidy(study()))}
    transformer, ena = table["Transformer (sdpa_cudnn)"], table["ENA 70% (flex+fla)"]
    assert transformer.time.exponent == pytest.approx(2.0)
    assert transformer.is_anchor
    assert transformer.crossover is None
    assert ena.time.exponent == pytest.approx(1.0)
    assert (transformer.memory.exponent, ena.memory.exponent) == (
        pytest.approx(1.0),
        pytest.approx(1.0),
    )
    assert ena.crossover.verdict == "from"
    shift = math.hypot(0.01, 0.01)
    assert ena.crossover.lo == pytest.approx(4096 * (1 - shift), rel=1e-3)
    assert ena.crossover.hi == pytest.approx(4096 * (1 + shift), rel=1e-3)
    assert ena.crossover.seq_len == pytest.approx(4096)
    assert (ena.pair_seq_len, ena.speedup, ena.memory_ratio) == (16384, 4.0, 0.5)


def test_a_series_that_ran_out_of_memory_ends_where_it_last_ran(study):
    table = {line.series: line for line in scaling.scaling_table(frames.tidy(study()))}
    linear = table["Linear cross (fla)"]
    assert (linear.top_seq_len, linear.time.lengths[-1]) == (8192, 8192)
    assert linear.crossover.seq_len == pytest.approx(6144)
    assert "ENA 70% (natten+fla)" not in table


def test_a_long_thin_canvas_does_not_count_beside_a_square_one(row):
    rows = [row(canvas=c, latency_ms=ms) for c, ms in (("64x64", 2.0), ("64x128", 4.0))]
    rows.append(row(canvas="2x4096", latency_ms=99.0))
    (line,) = scaling.scaling_table(frames.tidy(pd.DataFrame(rows)))
    assert line.time.exponent == pytest.approx(1.0)
    assert line.top_latency_ms == 4.0


def test_without_an_anchor_there_is_an_exponent_and_no_crossover(study):
    rows = study()
    alone = rows[rows["contender"] == "ena"]
    (line,) = scaling.scaling_table(frames.tidy(alone))
    assert line.time.exponent == pytest.approx(1.0)
    assert (line.crossover, line.anchor, line.speedup, line.pair_seq_len) == (None,) * 4


def test_failures_alone_have_no_scaling(row):
    assert scaling.scaling_table(frames.tidy(pd.DataFrame([row(status="oom")]))) == []
    assert scaling.scaling_table(frames.tidy(pd.DataFrame())) == []
