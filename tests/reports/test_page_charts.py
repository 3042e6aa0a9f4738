"""The further charts of the page: each with numbers that can be checked by hand."""

import json

import pandas as pd
import pytest

from reports import document, frames, page_charts


@pytest.fixture
def charts_of():
    """Charts of rows that share one level, mode and setting, by name."""

    def make(rows):
        content = document.compose(pd.DataFrame(rows), title="", problems=[])
        (section,) = content.sections
        found = {}
        cases = frames.records(section.part.frame)
        for chart in page_charts.charts(cases, section.part.styles):
            found.setdefault(chart.name, []).append(chart)
        return found

    return make


def _points(chart, name):
    (line,) = [line for line in chart.lines if line.name == name]
    return line.points


def test_the_gain_of_sparsity_stands_beside_its_ideal(row, charts_of):
    ena = {"contender": "ena", "impl": "triton+fla", "tile": "8x16"}
    rows = [
        row(**ena, sparsity_target=0.0, sparsity=0.0, latency_ms=4.0, flops=10.0),
        row(**ena, sparsity_target=0.5, sparsity=0.5, latency_ms=2.5, flops=5.0),
        row(**ena, sparsity_target=0.8, sparsity=0.75, latency_ms=2.0, flops=2.5),
    ]
    (chart,) = charts_of(rows)["sparsity"]
    (_, half, most) = _points(chart, "4k tokens")
    assert half[:2] == (0.5, 1.6)
    assert most[:2] == (0.75, 2.0)
    assert half[2] == pytest.approx(1.6 * 0.99 / 1.01)
    assert half[3] == pytest.approx(1.6 * 1.01 / 0.99)
    assert half[4] == "ideal 2.00x, of which 80%"
    assert [p[:2] for p in _points(chart, "ideal, 4k tokens")] == [
        (0.0, 1.0),
        (0.5, 2.0),
        (0.75, 4.0),
    ]
    assert [line.is_reference for line in chart.lines] == [False, True]


def test_the_map_has_a_row_per_sparsity_and_names_the_fastest(row, charts_of):
    rows = []
    for canvas, full_ms in (("32x64", 1.0), ("64x64", 4.0)):
        rows.append(row(canvas=canvas, latency_ms=full_ms))
        for sparsity, ratio in ((0.5, 1.25), (0.9, 2.0)):
            for impl, extra in (("triton+fla", 1.0), ("flex+fla", 1.5)):
                ena = {"contender": "ena", "impl": impl, "sparsity_target": sparsity}
                rows.append(row(canvas=canvas, latency_ms=full_ms / ratio * extra, **ena))
    (chart,) = charts_of(rows)["speedup-map"]
    assert [line.name for line in chart.lines] == ["90%", "50%"]
    assert [p[:2] for p in _points(chart, "90%")] == [(2048, 2.0), (4096, 2.0)]
    assert _points(chart, "50%")[0][4] == "ENA 50% (triton+fla)"


def test_a_scan_is_held_against_uni(row, charts_of):
    linear = {"contender": "linear", "impl": "fla"}
    rows = [
        row(**linear, latency_ms=2.0),
        row(**linear, scan="bi", latency_ms=3.0),
        row(**linear, scan="cross", latency_ms=1.5),
    ]
    (chart,) = charts_of(rows)["scans"]
    ((length, ratio, low, high, more),) = _points(chart, "Linear bi (fla)")
    assert (length, ratio, more) == (4096, 1.5, "1.00 ms more")
    assert low < 1.5 < high
    assert _points(chart, "Linear cross (fla)")[0][4] == "500 us less"


def test_parts_of_time_and_memory_have_a_panel_per_series(row, charts_of):
    spent = json.dumps({"mlp": 1.0, "attention": 3.0})
    held = {"parameters_mib": 10.0, "inputs_mib": 10.0, "activations_mib": 20.0}
    rows = [
        row(component_ms=spent, **held),
        row(component_ms=spent, **held, canvas="32x64"),
        row(contender="linear", impl="fla", **held),
    ]
    found = charts_of(rows)
    (chart,) = found["components"]
    assert chart.panel == "Transformer (sdpa_cudnn)"
    assert [line.name for line in chart.lines] == ["attention", "mlp"]
    assert _points(chart, "attention") == [
        (2048, 3.0, None, None, "75.0%"),
        (4096, 3.0, None, None, "75.0%"),
    ]
    memory = {chart.panel: chart for chart in found["memory-split"]}
    assert set(memory) == {"Transformer (sdpa_cudnn)", "Linear uni (fla)"}
    assert _points(memory["Linear uni (fla)"], "activations")[0][1::3] == (20.0, "50.0%")


def test_the_roof_bends_where_bandwidth_ends(row, charts_of):
    peaks = {"peak_tflops_per_s": 800.0, "peak_bandwidth_gb_per_s": 4000.0}
    rows = [
        row(flops=4e11, bytes=4e9, latency_ms=2.0, **peaks),
        row(canvas="64x128", flops=16e11, bytes=4e9, latency_ms=4.0, **peaks),
    ]
    (chart,) = charts_of(rows)["roofline"]
    (roof,) = [line for line in chart.lines if line.is_reference]
    assert (200.0, 800.0) in [point[:2] for point in roof.points]
    assert roof.points[0][1] == pytest.approx(4.0 * roof.points[0][0])
    low, high = _points(chart, "Transformer (sdpa_cudnn)")
    assert low[:2] == (100.0, 200.0)
    assert low[4] == "4k tokens, 50% of the roof, limited by memory"
    assert high[:2] == (400.0, 400.0)
    assert high[4] == "8k tokens, 50% of the roof, limited by compute"


def test_rows_that_say_nothing_of_all_this_have_no_further_charts(row, charts_of):
    assert charts_of([row()]) == {}
