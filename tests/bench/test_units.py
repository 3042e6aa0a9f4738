"""Numbers as people read them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import units

FORMATTERS = (
    units.significant,
    units.duration,
    units.memory,
    units.rate,
    units.ratio,
    units.percent,
    units.percent_label,
    units.tokens,
    units.count,
)


@pytest.mark.parametrize("formatter", FORMATTERS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_what_is_unknown_is_not_available(formatter, value):
    assert formatter(value) == "n/a"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.5123, "0.512"),
        (9.999, "10.0"),
        (12.345, "12.3"),
        (123.45, "123"),
        (99.95, "100"),
        (1234.5, "1,234"),
        (-2.5, "-2.50"),
        (0.000123, "0.000123"),
        (0.0000123, "1.23e-05"),
    ],
)
def test_three_digits_are_significant_and_integers_stay_whole(value, text):
    assert units.significant(value) == text


@pytest.mark.parametrize(
    ("value_ms", "text"),
    [
        (0.0, "0 ms"),
        (0.0000005, "0.500 ns"),
        (0.00025, "250 ns"),
        (0.0512, "51.2 us"),
        (0.9999, "1.00 ms"),
        (12.3, "12.3 ms"),
        (999.6, "1.00 s"),
        (61_000.0, "61.0 s"),
        (125_000.0, "2 min 5 s"),
        (7_500_000.0, "2 h 5 min"),
    ],
)
def test_a_duration_picks_its_unit(value_ms, text):
    assert units.duration(value_ms) == text


@pytest.mark.parametrize(
    ("value_mib", "text"),
    [
        (0.0, "0 MiB"),
        (0.03125, "32.0 KiB"),
        (512.0, "512 MiB"),
        (1023.9, "1.00 GiB"),
        (1280.0, "1.25 GiB"),
        (3 * 1024.0**2, "3.00 TiB"),
    ],
)
def test_memory_picks_its_binary_unit(value_mib, text):
    assert units.memory(value_mib) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(512.0, "512"), (1234.0, "1.23k"), (2_500_000.0, "2.50M"), (3.1e9, "3.10G"), (0.25, "0.250")],
)
def test_a_rate_is_decimal(value, text):
    assert units.rate(value) == text
    assert units.rate(value, "tokens/s") == f"{text} tokens/s"


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "1.00x"), (3.1, "3.10x"), (12.34, "12.3x"), (0.5, "0.500x")],
)
def test_a_ratio_ends_in_x(value, text):
    assert units.ratio(value) == text


def test_percentages_measured_and_chosen():
    assert units.percent(0.008) == "0.8%"
    assert units.percent(0.1234, decimals=0) == "12%"
    assert units.percent_label(0.7) == "70%"
    assert units.percent_label(0.995) == "99.5%"


def test_what_is_known_worse_than_to_100_percent_is_known_to_a_factor():
    assert units.known_to(0.013) == "1.3%"
    assert units.known_to(1.0) == "100.0%"
    assert units.known_to(20.334) == "a factor of 21.3"
    assert units.known_to(None) == "n/a"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (512, "512"),
        (1000, "1000"),
        (1024, "1k"),
        (1536, "1.5k"),
        (16384, "16k"),
        (115200, "112.5k"),
        (1048576, "1M"),
    ],
)
def test_tokens_count_in_binary_thousands(value, text):
    assert units.tokens(value) == text


def test_counts_and_nouns():
    assert units.count(12345.0) == "12,345"
    assert units.plural(1, "case") == "1 case"
    assert units.plural(1200, "row") == "1,200 rows"


@given(st.floats(min_value=1e-4, max_value=1e9))
def test_the_text_of_a_number_is_within_half_a_unit_of_its_third_digit(value):
    read = float(units.significant(value).replace(",", ""))
    assert abs(read - value) <= 0.00501 * value
