"""The roof over invented machines: 500 TFLOP/s and 2,000 GB/s meet at 250 FLOPs per byte."""

import pandas as pd
import pytest

from reports import frames, roofline

PEAKS = {"peak_tflops_per_s": 500.0, "peak_bandwidth_gb_per_s": 2000.0}


def cases(*rows):
    return frames.records(frames.tidy(pd.DataFrame(list(rows))))


def test_a_compute_bound_case_is_under_the_flat_roof(row):
    (found,) = roofline.attained(cases(row(**PEAKS, flops=5e11, bytes=1e9, latency_ms=2.0)))
    assert found.intensity == 500
    assert found.tflops_per_s == 250
    assert found.roof_tflops_per_s == 500
    assert (found.limit, found.fraction) == ("compute", 0.5)


def test_a_memory_bound_case_is_under_the_slope(row):
    (found,) = roofline.attained(cases(row(**PEAKS, flops=1e11, bytes=1e9, latency_ms=1.0)))
    assert found.roof_tflops_per_s == pytest.approx(200)
    assert (found.limit, found.fraction) == ("memory", pytest.approx(0.5))


def test_the_roof_breaks_at_the_ridge(row):
    (roof,) = roofline.roofs(cases(row(**PEAKS), row(**PEAKS, mode="bwd")))
    assert roof.ridge == 250
    assert roof.at(250) == 500
    assert roof.at(125) == 250
    assert roof.at(4000) == 500


def test_each_run_has_its_own_roof(row):
    found = roofline.roofs(
        cases(row(**PEAKS), row(**PEAKS | {"peak_tflops_per_s": 400.0}, run_id="later"), row())
    )
    assert sorted(r.tflops_per_s for r in found) == [400, 500]


@pytest.mark.parametrize(
    "unknown",
    [{"flops": None}, {"bytes": None}, {"peak_tflops_per_s": None}, {"status": "oom"}],
    ids=lambda unknown: next(iter(unknown)),
)
def test_what_is_unknown_has_no_place(row, unknown):
    (case,) = cases(row(**PEAKS | {"flops": 1e11, "bytes": 1e9} | unknown))
    assert roofline.attained([case]) == []
    assert roofline.fraction(case) is None


def test_a_fraction_above_one_is_no_fraction(row):
    slow, fast = cases(
        row(**PEAKS, flops=1e12, bytes=1e9, latency_ms=4.0),
        row(**PEAKS, flops=1e12, bytes=1e9, latency_ms=1.0, mode="bwd"),
    )
    assert roofline.fraction(slow) == 0.5
    assert roofline.fraction(fast) is None
    assert [a.fraction for a in roofline.attained([slow, fast])] == [0.5, 2.0]
