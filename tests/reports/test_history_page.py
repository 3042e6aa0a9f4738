"""The pages of a history: complete, without network, and safe whatever the data are called."""

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from bench.errors import StorageError
from reports import history, history_chart, history_page

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
    from reports import history_figure

    found = history.compose(rows)
    assert [c.case_path for c in history_figure.shown(found)] == [found.cases[0].case_path]
    drawn = history_figure.figure(found)
    texts = [t.get_text() for t in drawn.findobj(lambda a: hasattr(a, "get_text"))]
    assert any("run 6: slower by 1.5" in t for t in texts)
    assert any("1 of 3 cases, those that changed most" in t for t in texts)
    with pytest.raises(ValueError, match="needs a case"):
        history_figure.figure(history.compose(pd.DataFrame()))
