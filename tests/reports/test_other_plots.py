"""Bars of scans and parts, the roofline and the samples, read back from their artists."""

import json

import pandas as pd
import pytest

from reports import frames, part_plots, roofline_plot, sample_plots, scan_plots, theme

LINEAR = {"contender": "linear", "impl": "fla"}
PEAKS = {"peak_tflops_per_s": 500.0, "peak_bandwidth_gb_per_s": 2000.0}


def tidy(*rows):
    return frames.tidy(pd.DataFrame(list(rows)))


def by_gid(artists, kind):
    return [a for a in artists if (a.get_gid() or "").startswith(kind)]


def texts(figure):
    return [t.get_text() for t in figure.texts]


def test_a_bar_is_as_high_as_the_time_over_uni(row):
    figure = scan_plots.scan_bars(
        tidy(
            row(**LINEAR, latency_ms=4.0),
            row(**LINEAR, scan="bi", latency_ms=6.0),
            row(**LINEAR, scan="cross", latency_ms=10.0),
            row(contender="ena", impl="flex", sparsity_target=0.7, status="oom"),
        )
    )
    (panel,) = figure.axes
    bars = by_gid(panel.patches, "bar:")
    heights = {b.get_gid().partition(":")[2]: b.get_height() for b in bars}
    assert heights == pytest.approx({"Linear bi (fla)": 1.5, "Linear cross (fla)": 2.5})
    assert len({b.get_facecolor() for b in bars}) == 2
    assert [t.get_text() for t in panel.texts] == ["1.5", "2.5"]
    low, high = panel.get_ylim()
    assert low == 0.0
    assert high > 2.5 * 1.01 / 0.99
    assert "1x is Linear uni (fla)" in texts(figure)[1]


def test_a_scan_that_failed_is_named_below_its_bars(row):
    figure = scan_plots.scan_bars(
        tidy(
            row(**LINEAR, latency_ms=4.0),
            row(**LINEAR, scan="bi", latency_ms=6.0),
            row(**LINEAR, scan="cross", status="timeout"),
        )
    )
    assert any("timeout: Linear cross (fla) at 4k" in text for text in texts(figure))


def component_rows(row, **columns):
    return [
        row(
            canvas=canvas,
            component_ms=json.dumps({"mlp": 1.0, "attention": times}),
            **columns,
        )
        for canvas, times in (("32x64", 1.0), ("64x64", 3.0))
    ]


def test_parts_are_stacked_to_the_whole_with_their_share_and_the_total(row):
    (panel,) = part_plots.component_shares(tidy(*component_rows(row))).axes
    bars = [(b.get_gid(), b.get_y(), b.get_height()) for b in by_gid(panel.patches, "bar:")]
    assert bars == [
        ("bar:attention", 0.0, 0.5),
        ("bar:mlp", 0.5, 0.5),
        ("bar:attention", 0.0, 0.75),
        ("bar:mlp", 0.75, 0.25),
    ]
    assert [t.get_text() for t in panel.texts] == ["50", "50", "75", "25"]
    labels = [t.get_text() for t in panel.xaxis.get_ticklabels()]
    assert labels == ["2k\n2.00 ms", "4k\n4.00 ms"]


def test_of_many_series_one_of_each_kind_is_shown_and_of_ena_the_recommended_sparsity(row):
    ena = {"contender": "ena", "impl": "triton"}
    frame = tidy(
        *component_rows(row),
        *(r for s in (0.5, 0.7, 0.9) for r in component_rows(row, **ena, sparsity_target=s)),
        *component_rows(row, **LINEAR),
        *component_rows(row, contender="transformer", impl="flex", latency_ms=9.0),
    )
    titles = [p.get_title(loc="left") for p in part_plots.component_shares(frame).axes]
    assert titles == ["Transformer (sdpa_cudnn)", "ENA 70% (triton)", "Linear uni (fla)"]


def test_an_operator_of_one_component_is_not_worth_a_figure(row):
    cases = frames.records(tidy(row(component_ms='{"attention": 2.0}')))
    assert not part_plots.worth_components(cases)
    assert part_plots.worth_components(frames.records(tidy(*component_rows(row))))


def test_memory_is_labelled_with_its_peak(row):
    frame = tidy(row(parameters_mib=256.0, inputs_mib=256.0, activations_mib=512.0))
    (panel,) = part_plots.memory_split(frame).axes
    assert [t.get_text() for t in panel.texts] == ["25", "25", "50"]
    assert [t.get_text() for t in panel.xaxis.get_ticklabels()] == ["4k\n1.00 GiB"]


def test_dots_lie_at_intensity_and_rate_under_the_measured_roof(row):
    frame = tidy(
        row(**PEAKS, flops=5e11, bytes=1e9, latency_ms=2.0),
        row(**PEAKS, flops=1e11, bytes=1e9, latency_ms=1.0, canvas="32x64"),
    )
    figure = roofline_plot.roofline(frame)
    (panel,) = figure.axes
    dots = {a.get_gid(): a.get_xydata().tolist() for a in by_gid(panel.lines, "dot:")}
    assert dots == {
        "dot:Transformer (sdpa_cudnn):4096": [[500.0, 250.0]],
        "dot:Transformer (sdpa_cudnn):2048": [[100.0, 100.0]],
    }
    sizes = {a.get_gid()[-4:]: a.get_markersize() for a in by_gid(panel.lines, "dot:")}
    assert sizes["4096"] > sizes["2048"]
    (roof,) = by_gid(panel.lines, "roof")
    assert [250.0, 500.0] in roof.get_xydata().tolist()
    assert any("500 TFLOP/s" in t and "2,000 GB/s" in t for t in texts(figure))


def test_dots_above_the_roof_are_counted_and_put_down_to_the_peaks(row):
    peaks = {"peak_tflops_per_s": 500.0, "peak_bandwidth_gb_per_s": 2000.0, "bytes": 1e9}
    rows = [row(**peaks, flops=1e12, latency_ms=ms, mode=m) for ms, m in ((4, "fwd"), (1, "bwd"))]
    (alt, under) = (
        roofline_plot.roofline_alt(frames.records(frames.tidy(pd.DataFrame(some))))
        for some in (rows, rows[:1])
    )
    assert "1 dot above the roof: the peaks were measured while the machine was slower" in alt
    assert "above the roof" not in under


def sampled(row, spread, **columns):
    middle = 5.0
    known = {
        "samples_ms": [middle + spread * x for x in (-1.0, 0.0, 0.5, 1.0, 0.0, -0.5, 4.0)],
        "outliers": [False] * 6 + [True],
        "latency_ms": middle,
        "latency_ms_p05": middle - spread,
        "latency_ms_p95": middle + spread,
    }
    return row(**known | columns)


def test_the_samples_of_a_typical_and_of_the_least_steady_row_are_shown(row):
    rows = [
        sampled(row, spread, mode=mode)
        for mode, spread in (("fwdbwd", 0.3), ("fwd", 0.01), ("bwd", 0.05))
    ]
    figure = sample_plots.samples(pd.DataFrame(rows))
    titles = [p.get_title(loc="left") for p in figure.axes if p.get_title(loc="left")]
    assert titles == [
        "Transformer (sdpa_cudnn), bwd, 64x64",
        "Transformer (sdpa_cudnn), fwdbwd, 64x64",
    ]
    first = figure.axes[0]
    (dots,), (outliers,) = (by_gid(first.lines, kind) for kind in ("samples", "outliers"))
    assert list(dots.get_xdata()) == [1, 2, 3, 4, 5, 6]
    assert (list(outliers.get_xdata()), list(outliers.get_ydata())) == ([7], [5.2])
    (median,) = by_gid(first.lines, "median")
    assert set(median.get_ydata()) == {5.0}


def test_the_clock_is_drawn_over_time_where_it_is_known(row):
    readings = {
        "readings_s": [0.0, 0.05, 0.1],
        "sm_clock_readings_mhz": [1980.0, 1700.0, 1980.0],
        "power_readings_w": [300.0, 400.0, 500.0],
    }
    rows = [sampled(row, 0.01, **readings), sampled(row, 0.5, mode="bwd")]
    figure = sample_plots.samples(pd.DataFrame(rows))
    (clock,) = [a for p in figure.axes for a in by_gid(p.lines, "clock")]
    assert list(clock.get_xdata()) == [0.0, 0.05, 0.1]
    assert list(clock.get_ydata()) == [1980.0, 1700.0, 1980.0]
    assert any(p.get_ylabel() == "power (W)" for p in figure.axes)


def test_rows_with_few_samples_or_none_are_not_picked(row):
    rows = [row(samples_ms=[1.0, 2.0]), row(samples_ms=None), row(status="oom")]
    assert sample_plots.picked(frames.records(pd.DataFrame(rows))) == []


def test_text_on_a_colour_can_be_read():
    assert theme.ink_on(theme.PAPER) == theme.ink_on(theme.SKY) == theme.INK
    assert theme.ink_on(theme.BLUE) == theme.ink_on(theme.INK) == theme.PAPER


def test_a_ramp_darkens_from_step_to_step():
    def grey(colour):
        red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
        return 0.299 * red + 0.587 * green + 0.114 * blue

    greys = [grey(c) for c in theme.ramp(5)]
    assert greys == sorted(greys, reverse=True)
    assert len(theme.ramp(1)) == 1
