"""The written report: complete, self-contained, and safe whatever is in the data."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from bench.errors import StorageError
from reports import document, html, markdown, report

HOSTILE = '<script>alert("1")</script> | a|b ![x](http://evil.example/x.png) `code` &amp; "q"'
VOID = ("meta", "img", "br", "link", "hr")


class Page(HTMLParser):
    """Collects what tests ask about, and checks that tags nest."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.open, self.cells, self.text = [], [], [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data

    def values(self, name):
        return [a[name] for _, a in self.attributes if name in a]


@pytest.fixture(scope="module")
def study_paths(study, tmp_path_factory):
    """The report of the study, written once."""
    folder = tmp_path_factory.mktemp("study")
    problems = ["rows/a.parquet is damaged"]
    return report.write_report(study(), folder, title="A study", problems=problems)


@pytest.fixture
def written(tmp_path):
    """Writes a report into an empty directory."""
    return lambda rows: report.write_report(pd.DataFrame(rows), tmp_path / "new", title="A study")


@pytest.fixture
def bare(row):
    """A row of which only the latency can be drawn."""

    def build(**changes):
        return row(**{"tokens_per_s": None, "peak_memory_mib": None} | changes)

    return build


def _page(paths):
    return Page(paths.html.read_text(encoding="utf-8"))


def _undrawn(rows, **options):
    """The page without its figures."""
    options = {"title": "A study", "problems": []} | options
    return Page(html.page(document.compose(pd.DataFrame(rows), **options)))


def test_every_figure_is_written_as_png_and_svg(study_paths):
    names = sorted(p.name for p in study_paths.figures)
    assert names == sorted(
        f"{metric}-layer-fwd.{kind}"
        for metric in ("latency", "speedup", "throughput", "peak-memory")
        for kind in ("png", "svg")
    )
    starts = {p.suffix: p.read_bytes()[:5] for p in study_paths.figures}
    assert starts == {".png": b"\x89PNG\r", ".svg": b"<?xml"}


def test_the_page_needs_no_network(study_paths):
    page = _page(study_paths)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    sources = page.values("src") + page.values("href")
    assert len(sources) >= 4
    assert all(s.startswith(("data:", "#")) for s in sources)
    outside = re.sub(r'src="data:[^"]*"', "", study_paths.html.read_text(encoding="utf-8"))
    assert not [word for word in ("//", "url(", "@import") if word in outside]


def test_images_are_the_figures_and_say_what_they_show(study_paths):
    images = [a for tag, a in _page(study_paths).attributes if tag == "img"]
    assert len(images) == 4
    stored = {p.read_bytes() for p in study_paths.figures if p.suffix == ".svg"}
    assert {base64.b64decode(i["src"].partition(",")[2]) for i in images} == stored
    assert all(i["alt"] for i in images)
    assert "2-D ENA 70% (flex+fla): 8.00 at 16k" in images[0]["alt"]


def test_ids_are_unique_and_every_link_has_its_target(study, row):
    rows = pd.concat([study(), study(heads=3), pd.DataFrame([row(mode="fwdbwd")])])
    page = _undrawn(rows, problems=["a.parquet is damaged"])
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert {h[1:] for h in page.values("href")} <= set(ids)
    assert set(page.values("aria-labelledby")) <= set(ids)
    assert {"layer-fwd", "layer-fwd-2", "layer-fwdbwd", "problems"} <= set(ids)


def test_the_page_says_what_matters(study_paths):
    page = _page(study_paths)
    for text in (
        "A study",
        "NVIDIA H100 80GB HBM3 | driver 570.1",
        "20 cases: 14 ok, 1 out of memory, 5 unsupported",
        "14 of 14 cases agree with float64",
        "overtakes Transformer (sdpa_cudnn) at about 4k tokens",
        "rows/a.parquet is damaged",
        "CUDA out of memory: 12 GiB wanted",
        "natten is not installed",
        "Speed-ups are relative to Transformer (sdpa_cudnn).",
        "2.00 (1.99 to 2.01), 4k to 16k",
        "from 4k (3.9k to 4.1k)",
        "Latency is the median of 5 samples per case",
        "20 rows, one per case and round",
    ):
        assert text in page.text, text


def test_every_row_is_in_the_table_with_units_in_the_header(study, row):
    rows = pd.concat([study(), pd.DataFrame([row(round=1, latency_ms=2.125)])])
    page = _undrawn(rows)
    table = page.cells[page.cells.index("level") :]
    width = table.index("layer")
    lines = [table[i : i + width] for i in range(0, len(table), width)]
    assert len(lines) == 1 + len(rows)
    header = dict(enumerate(lines[0]))
    assert {"latency ms", "peak memory MiB", "throughput tokens/s"} <= set(header.values())
    by_name = [dict(zip(header.values(), line, strict=True)) for line in lines[1:]]
    assert sum(line["status"] == "unsupported" for line in by_name) == 5
    (oom,) = [line for line in by_name if line["status"] == "oom"]
    assert oom["latency ms"] == ""
    assert "12 GiB wanted" in oom["reason and warnings"]
    assert [line["latency ms"] for line in by_name if line["round"] == "1"] == ["2.12"]


@pytest.mark.parametrize("column", ["impl", "reason", "run_id", "device_name", "case_path", "mode"])
def test_hostile_text_stays_text(row, column):
    rows = [row(**{column: HOSTILE}), row(status="failed", heads=3, **{column: HOSTILE + "\n|x"})]
    content = document.compose(pd.DataFrame(rows), title=HOSTILE, problems=[HOSTILE])
    page = Page(html.page(content))
    assert "script" not in page.tags
    assert page.text.count(HOSTILE) >= 3
    text = markdown.page(content, folder=Path())
    assert "<script" not in text
    assert "![x]" not in text
    table = text.partition("## All rows")[2].strip().splitlines()
    assert len(table) == 2 + len(rows)
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1


def test_a_hostile_name_harms_neither_files_nor_figures(bare, written):
    paths = written([bare(level="../up", mode=HOSTILE, contender=HOSTILE, warnings=[HOSTILE])])
    assert {p.parent.name for p in paths.figures} == {"figures"}
    assert all(re.fullmatch(r"[a-z0-9-]+\.(png|svg)", p.name) for p in paths.figures)
    page = _page(paths)
    assert "script" not in page.tags
    assert len(page.values("alt")) == 1


def test_markdown_links_the_figures_relative_to_itself(study_paths):
    text = study_paths.markdown.read_text(encoding="utf-8")
    links = re.findall(r"!\[[^\n]*\]\((.+?)\)", text)
    assert len(links) == 4
    assert all((study_paths.markdown.parent / link).is_file() for link in links)
    assert "| 2-D ENA 70% (flex+fla) | 0.250x | 0.500x | 1.00x | 2.00x | 4.00x |" in text
    assert "| 2-D Linear cross (fla) | 0.167x | 0.333x | 0.667x | 1.33x | out of memory |" in text
    assert "overtakes Transformer (sdpa_cudnn) at about 4k tokens" in text
    assert len(text.partition("## All rows")[2].strip().splitlines()) == 20 + 2


def test_a_missing_anchor_is_said_and_no_speedup_is_drawn(bare, written):
    ena = {"contender": "ena", "impl": "flex+fla", "sparsity_target": 0.7}
    paths = written([bare(**ena)])
    assert [p.name for p in paths.figures] == ["latency-layer-fwd.png", "latency-layer-fwd.svg"]
    assert "Without a measured Transformer there is no speed-up." in _page(paths).text


def test_an_anchor_that_is_no_flash_kind_is_said(row):
    assert "No flash Transformer was measured" in _undrawn([row(impl="flex")]).text


def test_an_anchor_of_another_canvas_is_said(row):
    rows = [row(canvas="4096"), row(contender="linear", impl="fla")]
    assert "full attention does not depend on the canvas" in _undrawn(rows).text


def test_nothing_measured_is_still_a_report(written):
    paths = written([])
    assert paths.figures == ()
    assert "There are no rows." in _page(paths).text
    assert paths.markdown.read_text(encoding="utf-8").startswith("# A study\n")


def test_failures_alone_are_drawn_once_and_unsupported_cases_never(row, written):
    rows = [row(status="oom", reason="too big"), row(status="unsupported", mode="bwd")]
    paths = written(rows)
    assert [p.name for p in paths.figures] == ["latency-layer-fwd.png", "latency-layer-fwd.svg"]
    assert "out of memory: too big" in _page(paths).text


def test_the_same_rows_give_the_same_files(bare, tmp_path):
    first, second = (
        report.write_report(pd.DataFrame([bare()]), tmp_path / name, title="A study")
        for name in ("a", "b")
    )
    pairs = zip(
        (first.html, first.markdown, *first.figures),
        (second.html, second.markdown, *second.figures),
        strict=True,
    )
    assert all(one.read_bytes() == other.read_bytes() for one, other in pairs)


def test_a_directory_that_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StorageError, match="cannot be written to") as caught:
        report.write_report(pd.DataFrame(), tmp_path / "taken", title="A study")
    assert "-o" in caught.value.try_


def test_rounds_are_pooled_and_said(row):
    page = _undrawn([row(), row(round=1, latency_ms=2.5)])
    assert "up to 2 rounds" in page.text
    assert "1 case: 1 ok" in page.text
    assert "2 rows, one per case and round" in page.text
