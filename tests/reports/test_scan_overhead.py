"""The cost of a scan against uni on cases whose answer is known."""

import pandas as pd
import pytest

from reports import frames, scan_overhead

LINEAR = {"contender": "linear", "impl": "fla"}


def table(*rows):
    return scan_overhead.overhead_table(frames.tidy(pd.DataFrame(list(rows))))


def test_a_scan_costs_what_it_takes_beyond_uni(row):
    (found,) = table(
        row(**LINEAR, latency_ms=4.0), row(**LINEAR, scan="cross", latency_ms=5.0), row()
    )
    assert found.ratio == pytest.approx(1.25)
    assert found.overhead == pytest.approx(0.25)
    assert found.extra_ms == pytest.approx(1.0)
    assert (found.lo, found.hi) == (
        pytest.approx(1.25 * 0.99 / 1.01),
        pytest.approx(1.25 * 1.01 / 0.99),
    )
    assert (found.scan, found.series, found.base) == (
        "cross",
        "Linear cross (fla)",
        "Linear uni (fla)",
    )


def test_official_and_fixed_scans_each_have_their_cost(row):
    found = table(
        row(**LINEAR, latency_ms=4.0),
        row(**LINEAR, scan="bi", latency_ms=6.0),
        row(**LINEAR, scan="bi", scan_variant="official", latency_ms=5.0),
    )
    assert {o.scan_variant: o.ratio for o in found} == {"fixed": 1.5, "official": 1.25}


def test_ena_is_compared_at_its_own_sparsity(row):
    ena = {"contender": "ena", "impl": "triton", "tile": "8x16"}
    found = table(
        row(**ena, sparsity_target=0.5, latency_ms=2.0),
        row(**ena, sparsity_target=0.9, latency_ms=1.0),
        row(**ena, sparsity_target=0.9, scan="bi", latency_ms=1.5),
    )
    assert [o.ratio for o in found] == [1.5]


@pytest.mark.parametrize(
    "other",
    [
        {"impl": "eager"},
        {"mode": "bwd"},
        {"canvas": "32x128"},
        {"status": "oom"},
        {"run_id": "another"},
        {"timer": "graph"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_without_a_comparable_uni_there_is_no_cost(row, other):
    uni = row(**LINEAR | other)
    assert table(uni, row(**LINEAR, scan="cross")) == []


def test_a_failed_scan_has_no_cost(row):
    assert table(row(**LINEAR), row(**LINEAR, scan="cross", status="timeout")) == []
