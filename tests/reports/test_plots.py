"""What is in a figure, read back from its artists."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from bench.row import STATUSES
from reports import frames, plots, theme

FIGURES = (plots.latency, plots.throughput, plots.peak_memory, plots.speedup)


def _artists(panel, kind):
    """Artists of a panel by what follows `kind:` in their gid."""
    found = [a for a in (*panel.lines, *panel.collections) if (a.get_gid() or "").startswith(kind)]
    return {a.get_gid().partition(":")[2]: a for a in found}


def _legend_texts(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def _ticks(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


@pytest.fixture
def tidy_study(study):
    return frames.tidy(study())


def test_the_latency_line_holds_the_medians(tidy_study):
    (panel,) = plots.latency(tidy_study).axes
    line = _artists(panel, "series:")["Transformer (sdpa_cudnn)"]
    assert list(line.get_xdata()) == [1024, 2048, 4096, 8192, 16384]
    assert list(line.get_ydata()) == pytest.approx([0.125, 0.5, 2.0, 8.0, 32.0])
    assert (panel.get_xscale(), panel.get_yscale()) == ("log", "log")


def test_the_band_holds_the_intervals(tidy_study):
    (panel,) = plots.latency(tidy_study).axes
    band = _artists(panel, "band:")["ENA 70% (flex+fla)"]
    heights = band.get_paths()[0].vertices
    at_4k = sorted({y for x, y in heights if x == 4096})
    assert at_4k == pytest.approx([1.98, 2.02])


def test_throughput_memory_and_speedup_hold_their_own_quantity(tidy_study):
    values = {}
    for draw in FIGURES[1:]:
        (panel,) = draw(tidy_study).axes
        values[draw.__name__] = _artists(panel, "series:")["ENA 70% (flex+fla)"].get_ydata()
    assert values["throughput"][0] == pytest.approx(1024 / 0.5 * 1e3)
    assert list(values["peak_memory"]) == [64, 128, 256, 512, 1024]
    assert list(values["speedup"]) == pytest.approx([0.25, 0.5, 1.0, 2.0, 4.0])


def test_the_throughput_band_is_the_latency_interval_turned_around(tidy_study):
    (panel,) = plots.throughput(tidy_study).axes
    heights = _artists(panel, "band:")["ENA 70% (flex+fla)"].get_paths()[0].vertices
    at_4k = sorted({y for x, y in heights if x == 4096})
    assert at_4k == pytest.approx([4096 / 2.02 * 1e3, 4096 / 1.98 * 1e3])


def test_the_anchor_is_a_line_at_one(tidy_study):
    (panel,) = plots.speedup(tidy_study).axes
    (line,) = [a for a in panel.lines if a.get_gid() == "anchor"]
    assert set(line.get_ydata()) == {1.0}
    low, high = panel.get_ylim()
    assert low < 0.25
    assert high > 4.0


def test_what_flops_predict_is_dotted_once_for_the_series_that_a_level_is_about(row):
    ena = {"contender": "ena", "sparsity_target": 0.7, "sparsity": 0.7}
    rows = []
    for canvas, times in (("32x32", 1.1), ("64x64", 40.0)):
        rows += [row(canvas=canvas, latency_ms=3.0, flops=times * 1e9)]
        rows += [
            row(**ena, impl=impl, canvas=canvas, latency_ms=2.0, flops=1e9)
            for impl in ("flex+fla", "triton")
        ]
        rows += [row(contender="linear", impl="fla", canvas=canvas, latency_ms=2.0, flops=1e9)]
    (panel,) = plots.speedup(frames.tidy(pd.DataFrame(rows))).axes
    (line,) = _artists(panel, "predicted:").values()
    assert list(line.get_xdata()) == [1024, 4096]
    assert list(line.get_ydata()) == pytest.approx([1.1, 40.0])
    assert panel.get_ylim()[1] > 40.0


def test_out_of_memory_is_a_marker_at_the_bad_edge_and_a_gap_in_the_line(tidy_study):
    key = "oom:Linear cross (fla)"
    for draw, at_top in ((plots.latency, True), (plots.speedup, False)):
        (panel,) = draw(tidy_study).axes
        failures = _artists(panel, "failure:")
        assert list(failures) == [key]
        (x,), (height,) = failures[key].get_data()
        assert x == 16384
        assert (height > 0.9) if at_top else (height < 0.1)
        assert failures[key].get_marker() == theme.FAILURES["oom"]
        line = _artists(panel, "series:")["Linear cross (fla)"]
        assert np.isnan(line.get_ydata()[-1])
        assert np.nanmin(line.get_ydata()) > 0


def test_measured_points_stay_clear_of_the_failures(tidy_study):
    for draw in FIGURES:
        (panel,) = draw(tidy_study).axes
        edge = [a.get_ydata()[0] for a in _artists(panel, "failure:").values()]
        to_axes = panel.transLimits + panel.transAxes.inverted()
        for line in _artists(panel, "series:").values():
            points = panel.transData.transform(np.column_stack(line.get_data()))
            heights = panel.transAxes.inverted().transform(points)[:, 1]
            heights = heights[np.isfinite(heights)]
            assert min(abs(h - e) for h in heights for e in edge) > 0.04, (draw, to_axes)


def test_every_kind_of_failure_has_its_own_marker_and_legend(row):
    failed = [s for s in STATUSES if s not in ("ok", "unsupported")]
    rows = [
        row(contender="linear", impl=f"impl{i}", status=s, reason="why")
        for i, s in enumerate(failed)
    ]
    figure = plots.latency(frames.tidy(pd.DataFrame([row(), *rows])))
    (panel,) = figure.axes
    found = _artists(panel, "failure:")
    assert {name.partition(":")[0] for name in found} == set(failed)
    heights = [a.get_ydata()[0] for a in found.values()]
    assert len({round(h, 6) for h in heights}) == len(failed)
    assert set(theme.FAILURE_WORDS.values()) <= set(_legend_texts(figure))


def test_unsupported_is_listed_and_not_drawn(tidy_study):
    figure = plots.latency(tidy_study)
    (panel,) = figure.axes
    assert not any("natten" in name for name in _artists(panel, "series:"))
    assert not any("natten" in text for text in _legend_texts(figure))
    assert any("unsupported" in t.get_text() and "natten" in t.get_text() for t in figure.texts)


def test_axes_say_what_they_show_and_in_which_unit(tidy_study):
    labels = [draw(tidy_study).axes[0].get_ylabel() for draw in FIGURES]
    assert labels == [
        "latency (ms)",
        "throughput (tokens/s)",
        "peak memory (MiB, GiB)",
        "speed-up (ratio of latencies)",
    ]
    (panel,) = plots.latency(tidy_study).axes
    assert "tokens" in panel.get_xlabel()
    assert _ticks(panel.xaxis) == ["1k", "2k", "4k", "8k", "16k"]


def test_title_setting_machine_commit_and_run_are_in_the_figure(tidy_study):
    texts = [t.get_text() for t in plots.speedup(tidy_study).texts]
    assert texts[0] == "Layer, forward: speed-up over the FlashAttention Transformer"
    assert "12 heads of 64" in texts[1]
    assert "1x is Transformer (sdpa_cudnn)" in texts[1]
    assert texts[-1] == "NVIDIA H100 80GB HBM3 | commit a1b2c3d | run 2026-01-31T10-22-07Z"


def test_each_dimensionality_has_a_panel_and_they_share_the_value_axis(row, canvases):
    rows = [
        row(canvas=canvases[ndim][n], latency_ms=ndim * n / 1024)
        for ndim in (1, 2, 3)
        for n in (1024, 2048)
    ]
    figure = plots.latency(frames.tidy(pd.DataFrame(rows)))
    assert [p.get_title(loc="left") for p in figure.axes] == [
        "1-D canvas",
        "2-D canvas",
        "3-D canvas",
    ]
    assert len({p.get_ylim() for p in figure.axes}) == 1
    lines = [next(iter(_artists(panel, "series:").values())) for panel in figure.axes]
    assert [line.get_ydata()[0] for line in lines] == [1, 2, 3]
    assert figure.axes[0].get_ylabel()
    assert not figure.axes[1].get_ylabel()


def test_each_mode_has_a_row_with_a_value_axis_of_its_own(row):
    rows = [row(mode=mode, latency_ms=ms) for mode, ms in (("fwd", 2.0), ("fwdbwd", 600.0))]
    figure = plots.latency(frames.tidy(pd.DataFrame(rows)))
    assert [p.get_title(loc="left") for p in figure.axes] == [
        "forward, 2-D canvas",
        "forward and backward, 2-D canvas",
    ]
    assert figure.texts[0].get_text() == "Layer: latency"
    upper, lower = (p.get_ylim() for p in figure.axes)
    assert upper[1] < lower[0]
    assert not figure.axes[0].get_xlabel()
    assert figure.axes[1].get_xlabel()


def test_crossings_are_marked_at_their_length_and_written_clear_of_the_lines(tidy_study):
    figure = plots.speedup(tidy_study)
    (panel,) = figure.axes
    crossing = _artists(panel, "crossing:")["ENA 70% (flex+fla)"]
    assert list(crossing.get_xdata()) == pytest.approx([4096], rel=0.01)
    assert list(crossing.get_ydata()) == [1.0]
    (note,) = [t for t in panel.texts if t.get_gid() == "note"]
    assert note.get_text() == "ENA 70%: from 4k"
    figure.canvas.draw()
    box = note.get_window_extent()
    for line in _artists(panel, "series:").values():
        points = panel.transData.transform(np.column_stack(line.get_data()))
        dense = np.linspace(points[:-1], points[1:], 50).reshape(-1, 2)
        inside = (dense > (box.x0, box.y0)).all(axis=1) & (dense < (box.x1, box.y1)).all(axis=1)
        assert not inside.any()


def test_notes_make_room_where_lines_fill_the_panel(row, canvases):
    """Every corner is taken by some line: the axis grows until the notes hide nothing."""
    lengths = list(canvases[2])[:6]
    rows = []
    for i, seq_len in enumerate(lengths):
        base = {"canvas": canvases[2][seq_len]}
        rows.append(row(**base, latency_ms=10.0))
        for j in range(4):
            target, ratio = 0.5 + j / 10, 0.5 + 0.2 * i + 0.01 * j
            ena = {"contender": "ena", "impl": "x", "sparsity_target": target}
            rows.append(row(**base, **ena, latency_ms=10.0 / ratio))
        for impl, ratio in (("high", 5.0), ("low", 0.2)):
            rows.append(row(**base, contender="linear", impl=impl, latency_ms=10.0 / ratio))
    figure = plots.speedup(frames.tidy(pd.DataFrame(rows)))
    (panel,) = figure.axes
    figure.canvas.draw()
    notes = [t.get_window_extent() for t in panel.texts if t.get_gid() == "note"]
    assert len(notes) == 4
    box = Bbox.union(notes)
    for line in _artists(panel, "series:").values():
        points = panel.transData.transform(np.column_stack(line.get_data()))
        dense = np.linspace(points[:-1], points[1:], 50).reshape(-1, 2)
        inside = (dense > (box.x0, box.y0)).all(axis=1) & (dense < (box.x1, box.y1)).all(axis=1)
        assert not inside.any()
    low, high = panel.get_ylim()
    assert low < 0.2 < 5.0 < high


def test_a_series_keeps_its_colour_in_every_run_and_changes_its_dash(row):
    runs = [{"run_id": f"r{i}", "git_commit": f"{i}aaaaaaaaa"} for i in range(2)]
    ena = {"contender": "ena", "impl": "triton", "sparsity_target": 0.7}
    rows = [row(**run) for run in runs] + [row(**run, **ena) for run in runs]
    styles = plots.series_styles(frames.tidy(pd.DataFrame(rows)))
    one, other = (styles[f"ENA 70% (triton), {i}aaaaaa"] for i in range(2))
    anchor = styles["Transformer (sdpa_cudnn), 0aaaaaa"]
    assert one.colour == other.colour != anchor.colour
    assert one.dash != other.dash
    assert len({s.marker for s in styles.values()}) == 4


def test_a_single_length_has_one_tick_and_visible_markers_side_by_side(row):
    op = {"level": "op", "depth": 1, "canvas": "64x128"}
    rows = [row(**op, contender="attention", impl=i) for i in ("eager", "flex", "sdpa_flash")]
    (panel,) = plots.latency(frames.tidy(pd.DataFrame(rows))).axes
    assert _ticks(panel.xaxis) == ["8k"]
    lines = _artists(panel, "series:").values()
    places = [line.get_xdata()[0] for line in lines]
    assert len(set(places)) == 3
    assert places[1] == pytest.approx(8192)
    low, high = panel.get_xlim()
    assert all(low < x < high for x in places)
    assert all(line.get_marker() not in ("", "None", None) for line in lines)
    assert [t.get_text() for t in panel.texts] == ["2.00"] * 3


def test_a_second_canvas_of_a_length_is_a_dot_beside_the_line(row):
    rows = [row(), row(canvas="16x256", latency_ms=2.5), row(canvas="64x128", latency_ms=8.0)]
    (panel,) = plots.latency(frames.tidy(pd.DataFrame(rows))).axes
    (line,) = _artists(panel, "series:").values()
    assert list(line.get_ydata()) == [2.0, 8.0]
    dots = [a for a in panel.lines if not a.get_gid() and list(a.get_ydata()) == [2.5]]
    assert len(dots) == 1


def test_figures_share_the_styles_they_are_given(tidy_study):
    styles = plots.series_styles(tidy_study)
    part = tidy_study[tidy_study["contender"] != "transformer"]
    (whole,), (alone,) = (plots.latency(f, styles).axes for f in (tidy_study, part))
    name = "ENA 70% (flex+fla)"
    lines = [_artists(panel, "series:")[name] for panel in (whole, alone)]
    assert lines[0].get_color() == lines[1].get_color() == styles[name].colour
    assert "ENA 70% (natten+fla)" not in styles


@pytest.mark.parametrize("draw", FIGURES, ids=lambda f: f.__name__)
def test_failures_alone_and_nothing_at_all_still_make_a_figure(draw, row, tmp_path):
    only_failures = frames.tidy(pd.DataFrame([row(status="oom"), row(status="crashed", heads=3)]))
    for tidy in (only_failures, frames.tidy(pd.DataFrame())):
        figure = draw(tidy)
        assert isinstance(figure, Figure)
        figure.savefig(tmp_path / "figure.png")


def test_a_strange_name_is_drawn_without_a_formula_or_a_warning(row, tmp_path):
    rows = [row(impl="$x_{$", device_name="a$b$"), row(contender="_hidden"), row(impl="\u5b57")]
    figure = plots.latency(frames.tidy(pd.DataFrame(rows)))
    figure.savefig(tmp_path / "figure.svg")
    assert any("_hidden" in text for text in _legend_texts(figure))


def test_no_text_is_cut_or_overlaps(study, row):
    rows = pd.concat([study(), pd.DataFrame([row(contender="other", impl="n" * 40)])])
    figure = plots.speedup(frames.tidy(rows))
    figure.canvas.draw()
    outer = figure.bbox
    boxes = [t.get_window_extent() for t in figure.texts]
    boxes += [legend.get_window_extent() for legend in figure.legends]
    boxes += [panel.get_tightbbox() for panel in figure.axes]
    for box in boxes:
        assert outer.x0 <= box.x0
        assert box.x1 <= outer.x1
        assert outer.y0 <= box.y0
        assert box.y1 <= outer.y1
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])


def test_pyplot_is_never_loaded():
    code = "import sys, reports.plots, reports.report; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
