"""The pages of a history: complete, without network, and safe whatever the data are called."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from bench.errors import StorageError
from reports import history, history_chart, history_figure, history_page
from reports.change_points import Change

HOSTILE = "</script><img src=x onerror=alert(1)>|`*_"


@pytest.fixture
def rows(row):
    """Ten runs: one case gets slower, one stays, one runs out of memory at the end."""
    rng = np.random.default_rng(3)
    made = []
    for run in range(10):
        for canvas in ("32x64", "64x64", "16x16x16"):
            slow = 1.5 if canvas == "64x64" and run >= 5 else 1.0
            shared = {
                "run_id": f"run-{run}",
                "started_at": f"2026-03-{run + 1:02d}T08:00:00+00:00",
                "git_commit": f"{0xA1B2C00 + run:07x}",
                "canvas": canvas,
                "latency_ms": 2.0 * slow * float(np.exp(rng.normal(0, 0.01))),
            }
            is_gone = canvas == "16x16x16" and run == 9
            made.append(row(**shared | ({"status": "oom", "reason": "no room"} if is_gone else {})))
    return pd.DataFrame(made)


class _Page(HTMLParser):
    """Tags with their attributes, and the text outside of scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self._inside = [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside.append(tag)

    def handle_data(self, data):
        if not self._inside or self._inside[-1] not in ("script", "style"):
            self.text += data


def test_pages_and_figure_are_written_and_told(rows, tmp_path):
    written = history_page.write(rows, tmp_path / "new", problems=["old.parquet is damaged"])
    assert all(p.stat().st_size for p in (written.html, written.markdown, *written.figures))
    assert [p.suffix for p in written.figures] == [".png", ".svg"]
    first, *_, last = written.screen.splitlines()
    assert first == "10 runs of 3 cases: 1 case changed, 1 time (1 slower)."
    assert "slower by 1.5" in written.screen
    assert "WARNING  old.parquet is damaged" in written.screen
    assert last == f"history  {written.html}"
    for page in (written.html, written.markdown):
        text = page.read_text(encoding="utf-8")
        assert "old.parquet is damaged" in text
        assert "a1b2c04..a1b2c05" in text
        assert "no room" in text


def test_every_case_has_a_chart_that_is_well_formed_and_told_in_words(rows):
    found = history.compose(rows)
    for case in found.cases:
        root = ElementTree.fromstring(history_chart.chart(case, num_runs=10))
        assert root.get("role") == "img"
        assert root.get("aria-label") == history_chart.described(case)
        assert case.case_path in root.get("aria-label")
        kinds = [group.get("class") for group in root.findall("g")]
        assert kinds.count("slower") == len(case.steps)
        assert kinds.count("failed") == sum(p.latency_ms is None for p in case.points)
        assert len([k for k in kinds if k.startswith("point")]) == len(case.timed)
        assert all(group.find("title").text for group in root.findall("g"))


def test_all_that_is_drawn_lies_inside_the_chart(rows):
    for case in history.compose(rows).cases:
        drawn = ElementTree.fromstring(history_chart.chart(case, num_runs=10))
        for element in drawn.iter():
            for name in ("x", "x1", "x2", "cx"):
                assert 0 <= float(element.get(name, 0)) <= history_chart.WIDTH
            for name in ("y", "y1", "y2", "cy"):
                assert 0 <= float(element.get(name, 0)) <= history_chart.HEIGHT


def test_the_ends_of_a_chart_name_their_commit_in_whole_words(rows):
    last = rows.run_id == "run-9"
    rows.loc[rows.run_id == "run-0", "git_commit"] = None
    rows.loc[last, "git_dirty"] = True
    for case in history.compose(rows).cases:
        drawn = ElementTree.fromstring(history_chart.chart(case, num_runs=10))
        ends = [t.text for t in drawn.findall("text") if t.text.startswith("2026-")]
        assert ends == ["2026-03-01 no commit", "2026-03-10 a1b2c09"]
        told = [title.text for title in drawn.iter("title")]
        assert any("run 10, 2026-03-10 08:00, a1b2c09 + changes: " in text for text in told)


def changed_at(*numbers, num_runs=20):
    """A case that is 1.5 times slower or faster from each of these runs on, in turn."""
    runs = [
        history.Run(
            run_id=f"run-{n}",
            number=n,
            device_name="H200",
            started_at="2026-03-01T08:00:00",
            commit="a1b2c3d",
            num_ok=1,
            num_cases=1,
            example={},
        )
        for n in range(1, num_runs + 1)
    ]
    values = [2.0 * 1.5 ** (sum(run.number >= n for n in numbers) % 2) for run in runs]
    points = tuple(
        history.Point(run=run, status="ok", reason=None, latency_ms=v, lo_ms=v, hi_ms=v)
        for run, v in zip(runs, values, strict=True)
    )
    steps = tuple(
        history.Step(
            change=Change(index=n - 1, ratio=ratio, lo=ratio, hi=ratio, p_value=0.0),
            last_before=runs[n - 2],
            first_after=runs[n - 1],
            before_ms=values[n - 2],
            after_ms=values[n - 1],
            others=(),
        )
        for n, ratio in zip(numbers, [1.5, 1 / 1.5] * len(numbers), strict=False)
    )
    return history.CaseHistory(case_path="op", device_name="H200", points=points, steps=steps)


@pytest.mark.parametrize(
    ("numbers", "told"),
    [
        ((4, 15), ["^ 1.50x slower", "v 1.50x faster"]),
        ((8, 12), ["^ 1.50x slower", "v 1.50x faster"]),
        ((10, 12), ["^ 1.50x slower", "v 1.50x faster"]),
        ((3, 10, 12), ["^ 1.50x slower", "v 1.50x faster", None]),
        ((11, 16), ["^ 1.50x slower", "v 1.50x"]),
        ((18, 20), ["^ 1.50x slower", None]),
    ],
)
def test_labels_of_changes_that_are_close_together_do_not_lie_on_each_other(numbers, told):
    case = changed_at(*numbers)
    drawn = ElementTree.fromstring(history_chart.chart(case, num_runs=20))
    groups = [g for g in drawn.findall("g") if g.get("class") in ("slower", "faster")]
    labels = [g.find("text") for g in groups]
    texts = [None if t is None else t.text for t in labels]
    signs = str.maketrans(
        {"\N{BLACK UP-POINTING TRIANGLE}": "^", "\N{BLACK DOWN-POINTING TRIANGLE}": "v"}
    )
    assert [t and t.translate(signs) for t in texts] == told
    assert all(g.find("title").text for g in groups)
    end = 0.0
    for label in filter(lambda label: label is not None, labels):
        x, width = float(label.get("x")), 6 * len(label.text)
        begin = x if label.get("text-anchor") == "start" else x - width
        assert end <= begin
        end = begin + width
    assert end <= history_chart.WIDTH


def test_small_noise_looks_small(rows):
    """The axis spans at least a tenth of the latency."""
    (steady,) = (c for c in history.compose(rows).cases if "32x64" in c.case_path)
    drawn = ElementTree.fromstring(history_chart.chart(steady, num_runs=10))
    heights = [float(c.get("cy")) for c in drawn.iter("circle")]
    assert max(heights) - min(heights) < 0.75 * history_chart.HEIGHT
    labels = [t.text for t in drawn.findall("text") if t.text.endswith(" ms")]
    low, high = float(labels[0].split()[0]), float(labels[-1].split()[0])
    assert high - low >= 0.09 * high


def test_the_page_loads_nothing_and_escapes_what_comes_from_data(rows):
    hostile = rows.assign(
        case_path=rows.case_path + HOSTILE,
        device_name=HOSTILE,
        reason=HOSTILE,
        git_commit=HOSTILE,
        torch=HOSTILE,
    )
    page = history_page.html(history.compose(hostile), [HOSTILE])
    parsed = _Page(page)
    assert not [attrs for tag, attrs in parsed.tags if tag in ("img", "link", "iframe")]
    assert not [a for _, a in parsed.tags if {"src", "href"} & a.keys()]
    assert sum(tag == "script" for tag, _ in parsed.tags) == 1
    assert "onerror" not in {name for _, attrs in parsed.tags for name in attrs}
    assert HOSTILE in parsed.text
    assert not re.search(r"url\(|@import|https?://", page)


def test_markdown_escapes_what_comes_from_data(rows):
    hostile = rows.assign(case_path=rows.case_path + HOSTILE, reason=HOSTILE)
    text = history_page.markdown(history.compose(hostile), [])
    assert "<img" not in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    bars = {len(re.findall(r"(?<!\\)\|", line)) for line in tables}
    assert bars == {7, 9}


def test_a_page_without_rows_says_so(tmp_path):
    written = history_page.write(pd.DataFrame(), tmp_path)
    assert written.figures == ()
    assert "No run was given." in written.html.read_text(encoding="utf-8")
    assert "![" not in written.markdown.read_text(encoding="utf-8")


def test_equal_rows_give_equal_files(rows, tmp_path):
    first, second = (history_page.write(rows, tmp_path / name) for name in ("a", "b"))
    for one, other in zip(first.figures, second.figures, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert first.html.read_text("utf-8") == second.html.read_text("utf-8")


def test_a_directory_that_cannot_be_written_is_named(rows, tmp_path):
    taken = tmp_path / "file"
    taken.write_text("not a directory")
    with pytest.raises(StorageError, match="the history cannot be written to"):
        history_page.write(rows, taken)


def test_the_figure_shows_the_cases_that_changed(rows):
    found = history.compose(rows)
    assert [c.case_path for c in history_figure.shown(found)] == [found.cases[0].case_path]
    drawn = history_figure.figure(found)
    texts = [t.get_text() for t in drawn.findobj(lambda a: hasattr(a, "get_text"))]
    assert any("run 6: slower by 1.5" in t for t in texts)
    assert any("1 of 3 cases, those that changed most" in t for t in texts)
    with pytest.raises(ValueError, match="needs a case"):
        history_figure.figure(history.compose(pd.DataFrame()))


LONG = (
    "layer/ena/sdpa_flash+triton/fwdbwd/B1-H12-16x32x32-D64-N2-t4x4x8-s0.70-mh3d-official-"
    "attention-first-qkvo-bfloat16-cuda"
)


def test_long_paths_are_broken_between_parts_and_every_line_stays_over_its_panel():
    lines = history_figure.path_lines(LONG)
    assert len(lines) == 2
    assert "".join(lines) == LONG
    assert lines[0][-1] in "-/"
    assert history_figure.path_lines("op/attention/eager") == ["op/attention/eager"]
    case = replace(changed_at(4, 9, 15), case_path=LONG)
    runs = tuple(point.run for point in case.points)
    drawn = history_figure.figure(history.History(runs=runs, cases=(case,) * 3))
    canvas = FigureCanvasAgg(drawn)
    canvas.draw()
    room = drawn.axes[1].get_position().x0 * drawn.bbox.width
    heading = max(text.get_window_extent().y0 for text in drawn.texts)
    for axes in drawn.axes[::2]:
        for text in axes.findobj(Text):
            box = text.get_window_extent(canvas.get_renderer())
            assert box.x1 < room
            assert box.y1 < heading


def test_changes_that_have_no_room_over_a_panel_are_counted():
    texts = [f"run {n}: slower by 1.50x (1.40x to 1.60x)" for n in (3, 6, 9, 12)]
    line = history_figure.changes_line(texts)
    assert line == f"{texts[0]}; 3 more"
    assert history_figure.changes_line(texts[:1]) == texts[0]
    assert history_figure.changes_line(texts[:2]) == f"{texts[0]}; {texts[1]}"
    assert history_figure.changes_line([]) == ""
