"""The growth of curves whose answers are known."""

import pytest

from reports import exponents, frames

LENGTHS = (256, 512, 1024, 2048, 4096, 8192)


@pytest.mark.parametrize("power", [0.0, 1.0, 1.6, 2.0])
def test_a_power_law_keeps_all_its_points(power):
    found = exponents.growth(LENGTHS, [3e-3 * n**power for n in LENGTHS])
    assert found.exponent == pytest.approx(power, abs=1e-9)
    assert found.lengths == LENGTHS
    assert (found.overhead_lengths, found.knee_len) == ((), None)
    assert found.deviation == pytest.approx(0.0, abs=1e-9)


def test_lengths_that_launches_dominate_are_left_out():
    found = exponents.growth(LENGTHS, [max(0.5, 0.5 * (n / 1024) ** 2) for n in LENGTHS])
    assert found.exponent == pytest.approx(2.0)
    assert found.overhead_lengths == (256, 512)
    assert found.lengths == (1024, 2048, 4096, 8192)
    assert found.knee_len == pytest.approx(1024)


def test_a_knee_between_two_lengths_is_found():
    found = exponents.growth(LENGTHS, [max(1.0, n / 1448) for n in LENGTHS])
    assert found.overhead_lengths == (256, 512, 1024)
    assert 1200 < found.knee_len < 1800
    assert found.exponent == pytest.approx(1.0)


def test_noise_alone_makes_no_knee():
    wobble = (1.02, 0.98, 1.01, 0.99, 1.02, 0.98)
    found = exponents.growth(LENGTHS, [n * w for n, w in zip(LENGTHS, wobble, strict=True)])
    assert found.knee_len is None
    assert found.exponent == pytest.approx(1.0, abs=0.02)
    assert 0.01 < found.deviation < 0.05


def test_the_interval_follows_from_those_of_the_values():
    found = exponents.growth((1024, 4096), (1.0, 4.0), (0.5, 2.0), (2.0, 8.0))
    assert found.exponent == pytest.approx(1.0)
    assert (found.lo, found.hi) == pytest.approx((1 - 2**-0.5, 1 + 2**-0.5))


def test_one_length_has_no_growth_and_zero_is_refused():
    assert exponents.growth([512, 512], [1.0, 2.0]) is None
    assert exponents.growth([], []) is None
    with pytest.raises(ValueError, match="positive"):
        exponents.growth([512, 1024], [0.0, 1.0])


def test_the_study_grows_in_time_and_in_memory_as_it_was_made(study):
    table = {line.series: line for line in exponents.growth_table(frames.tidy(study()))}
    transformer, ena = table["Transformer (sdpa_cudnn)"], table["ENA 70% (flex+fla)"]
    assert transformer.time.exponent == pytest.approx(2.0)
    assert (ena.time.exponent, ena.memory.exponent) == pytest.approx((1.0, 1.0))
    assert table["Linear cross (fla)"].time.lengths == (1024, 2048, 4096, 8192)
