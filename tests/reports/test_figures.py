"""Every kind of figure, drawn from a study that has something for each of them."""

import json
import re

import pandas as pd
import pytest
from matplotlib.figure import Figure

from reports import figures, frames, selection

KINDS = {kind.name: kind for kind in figures.FIGURES}


@pytest.fixture(scope="module")
def rich(row, canvases):
    """Two modes, 2-D and 3-D, three sparsities, two scans, parts of time and memory, failures."""
    rows = []
    for mode, slow in (("fwd", 1.0), ("fwdbwd", 3.0)):
        for ndim in (2, 3):
            for seq_len in (1024, 4096, 16384):
                base = {
                    **{"mode": mode, "canvas": canvases[ndim][seq_len], "power_w": 400.0},
                    **{"peak_tflops_per_s": 700.0, "peak_bandwidth_gb_per_s": 4000.0},
                    **{"parameters_mib": 30.0, "inputs_mib": 6.0, "activations_mib": 90.0},
                    "component_ms": json.dumps({"attention": 3.0, "mlp": 1.0, "other": 0.1}),
                    "readings_s": [0.0, 0.05, 0.1],
                    "sm_clock_readings_mhz": [1980.0, 1950.0, 1965.0],
                    "power_readings_w": [300.0, 420.0, 410.0],
                    "bytes": 2e8 * slow,
                }
                length = seq_len / 4096
                rows.append(
                    row(**base, latency_ms=2.0 * slow * length**2, flops=slow * 1e12 * length**2)
                )
                for target, impl in ((0.0, "sdpa_cudnn"), (0.5, "triton"), (0.9, "triton")):
                    lost = {"status": "oom"} if target == 0.9 and seq_len == 16384 else {}
                    work = 1.0 - target / 2
                    rows.append(
                        row(
                            **base | lost,
                            contender="ena",
                            impl=f"{impl}+fla",
                            sparsity_target=target,
                            sparsity=target,
                            latency_ms=2.0 * slow * length * (1.0 - target / 3),
                            flops=slow * 4e11 * length * work,
                        )
                    )
                for scan, cost in (("uni", 1.0), ("cross", 1.4)):
                    rows.append(
                        row(
                            **base,
                            contender="linear",
                            impl="fla",
                            scan=scan,
                            latency_ms=1.5 * slow * length * cost,
                            flops=slow * 2e11 * length,
                        )
                    )
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def frame_of(rich):
    tidy = frames.tidy(rich)
    return lambda kind: rich if kind.scope == "rows" else tidy


@pytest.fixture(scope="module")
def drawn(frame_of):
    """Each kind's figure, drawn once."""
    return {name: kind.draw(frame_of(kind), None) for name, kind in KINDS.items()}


def test_names_are_unique_and_fit_into_file_names():
    assert len(KINDS) == len(figures.FIGURES)
    assert all(re.fullmatch(r"[a-z][a-z-]*", name) for name in KINDS)
    assert {kind.scope for kind in KINDS.values()} <= set(figures.SCOPES)


@pytest.mark.parametrize("name", KINDS)
def test_a_study_that_has_what_it_takes_is_worth_a_figure(name, frame_of, drawn):
    kind = KINDS[name]
    assert kind.is_worth(frames.records(frame_of(kind)))
    assert isinstance(drawn[name], Figure)


@pytest.mark.parametrize("name", KINDS)
def test_nothing_and_failures_alone_are_worth_the_figure_of_the_latency_at_most(name, row):
    kind = KINDS[name]
    lost = pd.DataFrame([row(status="oom"), row(status="timeout", contender="ena")])
    for rows in (pd.DataFrame(), lost):
        cases = frames.records(rows if kind.scope == "rows" else frames.tidy(rows))
        assert kind.is_worth(cases) == (name == "latency" and bool(cases))


@pytest.mark.parametrize("name", KINDS)
def test_the_alternative_text_is_a_sentence_with_values_and_lengths(name, frame_of):
    kind = KINDS[name]
    text = kind.alt(frames.records(frame_of(kind)))
    assert text.endswith(".")
    assert re.search(r"\d", text)
    assert "n/a" not in text
    assert len(text) < 2500


@pytest.mark.parametrize("name", KINDS)
def test_machine_and_commit_are_in_every_figure(name, drawn):
    texts = [t.get_text() for t in drawn[name].texts]
    assert texts[-1] == "NVIDIA H100 80GB HBM3 | commit a1b2c3d | run 2026-01-31T10-22-07Z"


@pytest.mark.parametrize("name", KINDS)
def test_every_figure_has_labelled_axes_and_says_what_it_holds_fixed(name, drawn):
    figure = drawn[name]
    assert any(panel.get_ylabel() for panel in figure.axes)
    assert all(panel.get_title(loc="left") or name == "samples" for panel in figure.axes)
    if name != "samples":
        assert "12 heads of 64" in figure.texts[1].get_text()


@pytest.mark.parametrize("name", KINDS)
def test_no_text_is_cut_and_none_overlaps(name, drawn):
    figure = drawn[name]
    figure.canvas.draw()
    outer = figure.bbox
    boxes = [t.get_window_extent() for t in figure.texts]
    boxes += [legend.get_window_extent() for legend in figure.legends]
    boxes += [panel.get_tightbbox() for panel in figure.axes if panel.get_label() != "power"]
    assert all(panel.get_tightbbox().x1 <= outer.x1 for panel in figure.axes)
    for box in boxes:
        assert outer.x0 <= box.x0 < box.x1 <= outer.x1
        assert outer.y0 <= box.y0 < box.y1 <= outer.y1
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])


@pytest.mark.parametrize("name", sorted(KINDS.keys() - {"samples", "components", "memory-split"}))
def test_rows_are_modes_and_columns_are_canvas_axes(name, drawn):
    titles = [panel.get_title(loc="left") for panel in drawn[name].axes]
    assert titles == [
        "forward, 2-D canvas",
        "forward, 3-D canvas",
        "forward and backward, 2-D canvas",
        "forward and backward, 3-D canvas",
    ]


@pytest.mark.parametrize("name", sorted(KINDS.keys() - {"latency", "samples", "speedup"}))
def test_failed_cases_are_named_or_marked(name, drawn):
    figure = drawn[name]
    texts = [t.get_text() for t in figure.texts]
    texts += [t.get_text() for panel in figure.axes for t in panel.texts]
    texts += [t.get_text() for legend in figure.legends for t in legend.get_texts()]
    if name in ("scans", "components", "memory-split"):
        assert not any("ENA 90%" in text for text in texts)
        return
    assert any("out of memory" in text or text == "OOM" for text in texts)


def test_of_many_runs_the_latest_four_are_drawn_and_the_others_counted(row):
    rows = [
        row(
            run_id=f"run{i}",
            git_commit=f"{i}aaaaaaaaa",
            started_at=f"2026-01-{i:02d}T10:00:00+00:00",
            canvas=canvas,
        )
        for i in range(1, 8)
        for canvas in ("32x32", "32x64")
    ]
    tidy = frames.tidy(pd.DataFrame(rows))
    figure = KINDS["latency"].draw(tidy, None)
    names = [t.get_text() for legend in figure.legends for t in legend.get_texts()]
    assert set(names) == {f"Transformer (sdpa_cudnn), {i}aaaaaa" for i in range(4, 8)}
    assert any("3 earlier runs not drawn" in t.get_text() for t in figure.texts)
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.legends[0].get_lines()}
    assert len({colour for colour, _ in looks}) == 1
    markers = {line.get_marker() for line in figure.legends[0].get_lines()}
    assert len(markers) == 4


def test_more_series_than_eyes_can_follow_are_counted(row):
    rows = [row(contender="linear", impl=f"impl{i:02d}") for i in range(selection.MAX_SERIES + 5)]
    figure = KINDS["latency"].draw(frames.tidy(pd.DataFrame(rows)), None)
    names = [t.get_text() for legend in figure.legends for t in legend.get_texts()]
    assert len(names) == selection.MAX_SERIES
    assert any("5 more series not drawn" in t.get_text() for t in figure.texts)
