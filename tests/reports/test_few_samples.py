"""A latency of fewer than six samples is shown with a mark, and nothing is judged from it."""

import json
from pathlib import Path

import pandas as pd
import pytest

from reports import (
    crossover,
    document,
    few_samples,
    figures,
    findings,
    frames,
    html,
    markdown,
    page_data,
    plots,
    scaling,
    scan_plots,
    screen,
    sparsity_plots,
    summary,
    tables,
)

ENA = "ENA 70% (flex+fla)"
ENDED = "fewer than 6 samples, which have no 95% interval"


def _cut(rows, *places):
    """Rows with two samples at the named (contender, seq_len)."""
    rows = rows.copy()
    for index, found in rows.iterrows():
        if (found["contender"], found["seq_len"]) in places and found["status"] == "ok":
            rows.at[index, "samples_ms"] = list(found["samples_ms"])[:2]
    return rows


@pytest.fixture
def hasty(study):
    """The study, but at 1k ENA seems 100 times as fast as it is, by two samples."""
    rows = _cut(study(), ("ena", 1024))
    is_it = (rows["contender"] == "ena") & (rows["seq_len"] == 1024) & (rows["status"] == "ok")
    for name in ("latency_ms", "latency_ms_lo", "latency_ms_hi"):
        rows.loc[is_it, name] /= 100
    return rows


def _line(table, name):
    (found,) = (line for line in table.lines if name in line[0])
    return dict(zip((c.name for c in table.columns), found, strict=True))


@pytest.mark.parametrize(("count", "sure"), [(2, False), (5, False), (6, True), (None, False)])
def test_six_samples_are_enough_and_an_unknown_number_is_not(count, sure):
    assert few_samples.is_sure({"num_samples": count}) is sure


def test_samples_of_all_rounds_count_together(row):
    rows = [row(round=i, samples_ms=[2.0, 2.0]) for i in range(3)]
    for number, expected in ((2, False), (3, True)):
        (case,) = frames.records(frames.tidy(pd.DataFrame(rows[:number])))
        assert case["is_sure"] is expected


@pytest.mark.parametrize("place", [("ena", 2048), ("transformer", 2048)])
def test_a_speedup_is_sure_if_both_latencies_are(study, place):
    cases = frames.records(frames.tidy(_cut(study(), place)))
    found = {c["seq_len"]: c["is_speedup_sure"] for c in cases if c["series"] == ENA}
    assert found == {1024: True, 2048: False, 4096: True, 8192: True, 16384: True}


def test_no_crossover_rests_on_two_samples(hasty):
    (found,) = (o for o in crossover.overtaking_table(frames.tidy(hasty)) if o.series == ENA)
    assert (found.verdict, found.num_crossings, found.first_len) == ("from", 1, 2048)
    assert found.seq_len == pytest.approx(4096)
    (line,) = (s for s in scaling.scaling_table(frames.tidy(hasty)) if s.series == ENA)
    assert line.crossover.unsure_lengths == (1024,)
    assert tables.crossover_text(line.crossover) == "from 4k (3.9k to 4.1k); too few samples at 1k"


def test_without_any_case_of_enough_samples_no_crossover_is_told(study):
    lengths = (1024, 2048, 4096, 8192, 16384)
    tidy = frames.tidy(_cut(study(), *(("ena", n) for n in lengths)))
    lines = scaling.scaling_table(tidy)
    (line,) = (s for s in lines if s.series == ENA)
    assert tables.crossover_text(line.crossover) == "too few samples"
    (found,) = (o for o in crossover.overtaking_table(tidy) if o.series == ENA)
    assert (found.verdict, found.seq_len) == ("unsure", None)
    (sentence,) = summary.sentences(tidy, lines)
    assert f"{ENA} has too few samples to be compared with Transformer (sdpa_cudnn);" in sentence
    assert "overtakes" not in sentence
    assert "(3.77x to 4.25x, of too few samples to be sure)" in sentence


def test_a_sentence_names_the_lengths_that_it_does_not_judge(hasty):
    tidy = frames.tidy(hasty)
    (sentence,) = summary.sentences(tidy, scaling.scaling_table(tidy))
    assert (
        "tokens (between 3.9k and 4.1k), not judged at 1k for too few samples; at 16k" in sentence
    )


def test_the_series_of_a_sentence_is_one_that_is_sure(study, row):
    lucky = {"contender": "ena", "impl": "triton+fla", "sparsity_target": 0.9}
    (lucky,) = [row(**lucky, canvas="128x128", latency_ms=0.1, samples_ms=[0.1, 0.1])]
    tidy = frames.tidy(pd.DataFrame([*study().to_dict("records"), lucky]))
    (sentence,) = summary.sentences(tidy, scaling.scaling_table(tidy))
    assert "ENA 90%" not in sentence


def test_tables_mark_latencies_and_speedups(hasty):
    cases = frames.records(frames.tidy(hasty))
    speedups = _line(tables.speedup_table(cases), ENA)
    assert (speedups["1k"], speedups["2k"]) == ("25.0x*", "0.500x")
    latencies = _line(tables.latency_table(cases), ENA)
    assert (latencies["1k"], latencies["2k"]) == ("5.00 us*", "1.00 ms")
    over_linear = _line(tables.analysis_tables(cases)[0], ENA)
    assert (over_linear["1k"], over_linear["2k"]) == ("150x*", "1.50x")


def test_the_scaling_table_marks_the_largest_length(study):
    tidy = frames.tidy(_cut(study(), ("ena", 16384)))
    found = _line(tables.scaling_table(scaling.scaling_table(tidy)), ENA)
    assert found["speed-up"].startswith("4.00x* (")
    assert found["latency"] == "8.00 ms* at 16k"


@pytest.mark.parametrize("modes", [("fwd",), ("fwd", "bwd", "fwdbwd", "step")])
def test_the_screen_marks_them_and_says_what_the_mark_means(hasty, modes):
    rows = pd.concat([hasty.assign(mode=mode, case_id=hasty.case_id + mode) for mode in modes])
    shown = screen.final(rows, path=Path("run"), colour=False, width=160)
    assert "25.0" in shown
    assert all("*" in line for line in shown.splitlines() if ENA in line and " 25.0" in line)
    assert f"* {ENDED}" in shown
    assert ENDED not in screen.final(hasty[hasty["seq_len"] > 1024], path=Path("run"), width=160)


def test_the_report_says_what_the_mark_means_where_it_is_used(hasty, tmp_path):
    content = document.compose(hasty, title="t", problems=[])
    text = markdown.page(content, folder=tmp_path)
    assert f"tables, hollow in charts: {ENDED}" in text
    assert ENDED in html.page(content).partition("<script")[0]
    sure = document.compose(hasty[hasty["seq_len"] > 1024], title="t", problems=[])
    assert "hollow in charts" not in markdown.page(sure, folder=tmp_path)


def _gids(figure, kind):
    lines = [a for panel in figure.axes for a in panel.lines if a.get_gid()]
    return [a for a in lines if a.get_gid().startswith(kind)]


def _notes(figure):
    """What is written beside the panels; notes are several lines."""
    return [" ".join(text.get_text() for text in figure.texts)]


@pytest.mark.parametrize("draw", [plots.latency, plots.throughput, plots.speedup])
def test_figures_draw_them_hollow_and_say_so(hasty, draw):
    figure = draw(frames.tidy(hasty))
    (hollow,) = _gids(figure, f"few-samples:{ENA}")
    assert list(hollow.get_xdata()) == [1024]
    assert hollow.get_markerfacecolor() != hollow.get_color()
    assert any("Hollow: fewer than 6 samples." in note for note in _notes(figure))


def test_a_figure_in_words_marks_them(study):
    content = document.compose(_cut(study(), ("ena", 16384)), title="t", problems=[])
    (kind,) = (k for k in figures.FIGURES if k.name == "speedup")
    text = kind.alt(content.sections[0].cases)
    assert f"{ENA}: 4.00x* at 16k" in text
    assert text.endswith("*: fewer than 6 samples.")
    assert "*" not in kind.alt(document.compose(study(), title="t", problems=[]).sections[0].cases)


def test_memory_does_not_depend_on_samples(hasty):
    assert not _gids(plots.peak_memory(frames.tidy(hasty)), "few-samples")


def test_the_page_knows_which_points_are_hollow(hasty):
    data = document.compose(hasty, title="t", problems=[])
    (section,) = data.sections
    group = page_data.Group(
        level="layer",
        mode="fwd",
        heading="h",
        setting="s",
        cases=section.cases,
        styles=section.part.styles,
        scaling=section.scalings,
        notes=(),
    )
    columns = page_data.page_data(hasty, [group])["cases"]["columns"]
    assert False in json.loads(json.dumps(columns["speedup:is_sure"]))["each"]
    assert columns["peak-memory:is_sure"] == {"all": True}
    rows = page_data.page_data(hasty, [group])["rows"]["columns"]
    assert rows["is_sure"] == columns["latency:is_sure"]
    assert rows["is_speedup_sure"] == columns["speedup:is_sure"]


def _sweep(row, *, samples, full_ms=10.0, canvases=("64x64",)):
    """Full attention and two sparsities that leave a half and a tenth of the FLOPs."""
    rows = []
    for canvas in canvases:
        made = {"contender": "ena", "interleave": "linear-first", "canvas": canvas}
        made |= {"samples_ms": [1.0] * samples}
        for sparsity, ms, flops in ((0.0, full_ms, 10e9), (0.5, 5.0, 5e9), (0.9, 1.0, 1e9)):
            known = {"sparsity_target": sparsity, "sparsity": sparsity, "flops": flops}
            rows.append(row(**made, **known, impl="triton+fla", latency_ms=ms))
        rows.append(row(canvas=canvas, latency_ms=10.0))
    return frames.tidy(pd.DataFrame(rows))


def test_findings_leave_out_gains_of_too_few_samples(row):
    assert "sparsity gains 2.00x at 50%" in findings.sentences(_sweep(row, samples=6))[0]
    assert findings.sentences(_sweep(row, samples=2)) == []


def test_a_gain_far_above_the_ideal_is_no_plain_finding(row):
    (text,) = findings.sentences(_sweep(row, samples=6, full_ms=30.0))
    assert "6.00x at 50% (300% of the ideal, more than the work left out explains)" in text
    (text,) = findings.sentences(_sweep(row, samples=6))
    assert "explains" not in text


def test_figures_of_sparsity_say_so_too(row):
    for samples, expected in ((2, True), (6, False)):
        tidy = _sweep(row, samples=samples, canvases=("64x64", "64x128"))
        swept, mapped = sparsity_plots.sweep(tidy), sparsity_plots.heat_map(tidy)
        notes = [*_notes(swept), *_notes(mapped)]
        assert sum("fewer than 6 samples." in note for note in notes) == 2 * expected
        hollow = [len(a.get_xdata()) for a in _gids(swept, "few-samples")]
        assert hollow == [2 * expected] * 2
        (panel,) = mapped.axes
        assert all(t.get_text().endswith("*") == expected for t in panel.texts)


def test_bars_of_scans_are_pale(row):
    made = {"contender": "linear", "impl": "fla", "samples_ms": [2.0, 2.0]}
    bars = [row(**made), row(**made, scan="flip", latency_ms=3.0), row(**made, scan="bi")]
    bars[2]["samples_ms"] = bars[0]["samples_ms"] = [2.0] * 6
    (panel,) = scan_plots.scan_bars(frames.tidy(pd.DataFrame(bars))).axes
    found = {bar.get_gid(): bar.get_alpha() for bar in panel.patches}
    assert found == {"bar:Linear flip (fla)": 0.4, "bar:Linear bi (fla)": None}
