"""Cells of tables on cases whose numbers are known."""

import pandas as pd

from reports import frames, scaling, tables

PEAKS = {"peak_tflops_per_s": 500.0, "peak_bandwidth_gb_per_s": 2000.0}


def cases(*rows):
    return frames.records(frames.tidy(pd.DataFrame(list(rows))))


def cells(table):
    headings = [c.heading for c in table.columns]
    return {line[0]: dict(zip(headings[1:], line[1:], strict=True)) for line in table.lines}


def test_the_scaling_table_tells_exponents_of_time_and_memory_with_their_range(study):
    table = tables.scaling_table(scaling.scaling_table(frames.tidy(study())))
    found = cells(table)
    transformer = found["Transformer (sdpa_cudnn)"]
    assert transformer["exponent of time (95% interval)"] == "2.00 from 1k"
    assert transformer["exponent of memory (95% interval)"] == "1.00 from 1k"
    assert transformer["overtakes the anchor (tokens)"] == "is the anchor"
    ena = found["ENA 70% (flex+fla)"]
    assert ena["overtakes the anchor (tokens)"] == "from 4k (3.9k to 4.1k)"
    assert ena["speed-up (largest common length)"] == "4.00x (3.92x to 4.08x) at 16k"


def test_an_exponent_of_a_curve_that_bends_says_how_far_it_is_off(row):
    times = zip(("32x32", "64x64", "128x128"), (1.0, 2.0, 16.0), strict=True)
    rows = [row(canvas=canvas, latency_ms=latency_ms) for canvas, latency_ms in times]
    table = tables.scaling_table(scaling.scaling_table(frames.tidy(pd.DataFrame(rows))))
    found = cells(table)["Transformer (sdpa_cudnn)"]["exponent of time (95% interval)"]
    assert found.startswith("1.00 (")
    assert found.endswith(" from 1k, off by 37%")


def test_a_single_length_has_no_exponent(row):
    table = tables.scaling_table(scaling.scaling_table(frames.tidy(pd.DataFrame([row()]))))
    assert cells(table)["Transformer (sdpa_cudnn)"]["exponent of time (95% interval)"] == "n/a"


def test_every_analysis_that_is_known_is_a_table_of_series_by_length(row):
    ena = {"contender": "ena", "impl": "triton+fla", "sparsity_target": 0.5, "sparsity": 0.5}
    full = ena | {"impl": "sdpa_cudnn+fla", "sparsity_target": 0.0, "sparsity": 0.0}
    linear = {"contender": "linear", "impl": "fla"}
    found = tables.analysis_tables(
        cases(
            row(**full, latency_ms=4.0, flops=8e11),
            row(**ena, latency_ms=3.0, flops=4e11),
            row(**linear, latency_ms=2.0),
            row(**linear, latency_ms=3.0, scan="cross"),
            row(**PEAKS, flops=5e11, bytes=1e9, latency_ms=2.0, power_w=400.0),
            row(**linear, status="oom", scan="bi"),
        )
    )
    assert {t.columns[0].name: cells(t) for t in found} == {
        "speed-up if time went with FLOPs": {
            "2-D ENA full attention (sdpa_cudnn+fla)": {"4k": "0.625x"},
            "2-D ENA 50% (triton+fla)": {"4k": "1.25x"},
        },
        "speed-up over the fastest linear": {
            "2-D Transformer (sdpa_cudnn)": {"4k": "1.00x"},
            "2-D ENA full attention (sdpa_cudnn+fla)": {"4k": "0.500x"},
            "2-D ENA 50% (triton+fla)": {"4k": "0.667x"},
        },
        "efficiency of sparsity": {"2-D ENA 50% (triton+fla)": {"4k": "66.7%"}},
        "time over the scan uni": {"2-D Linear cross (fla)": {"4k": "1.50x"}},
        "fraction of the roofline": {"2-D Transformer (sdpa_cudnn)": {"4k": "50.0%"}},
        "energy per token (uJ)": {"2-D Transformer (sdpa_cudnn)": {"4k": "195"}},
    }


def test_what_is_unknown_has_no_table(row):
    assert tables.analysis_tables(cases(row(), row(status="oom", contender="ena"))) == []


def test_a_length_at_which_a_known_series_failed_says_why(row):
    found = tables.analysis_tables(
        cases(row(power_w=400.0), row(power_w=400.0, canvas="64x128", status="oom"))
    )
    (line,) = cells(found[0]).values()
    assert line == {"4k": "195", "8k": "out of memory"}
