"""The written report: complete, self-contained, and safe whatever is in the data."""

import base64
import dataclasses
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from bench import units
from bench.errors import StorageError
from reports import document, figures, html, markdown, report

HOSTILE = (
    '</script><img src=x onerror=alert(1)><!--<script>alert("1")</script> |'
    ' a|b ![x](http://evil.example/x.png) `code` &amp; "q"'
)
VOID = ("meta", "img", "br", "link", "hr", "input")


class Page(HTMLParser):
    """Collects what tests ask about, and checks that tags nest."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.open = [], [], []
        self.text, self.scripts, self.styles = "", [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("script", "style"):
            {"script": self.scripts, "style": self.styles}[tag].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "script" in self.open:
            self.scripts[-1] += data
        elif "style" in self.open:
            self.styles[-1] += data
        else:
            self.text += data

    @property
    def data(self):
        """What the page's own script reads."""
        return json.loads(self.scripts[0])

    def column(self, name, table="rows"):
        """A column of the table as plain values."""
        length, packed = self.data[table]["length"], self.data[table]["columns"][name]
        if "all" in packed:
            return [packed["all"]] * length
        return packed.get("each") or [packed["of"][place] for place in packed["at"]]

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


def test_every_figure_is_written_in_every_format(study_paths):
    names = {p.stem for p in study_paths.figures}
    assert {"latency-layer", "speedup-layer", "throughput-layer", "peak-memory-layer"} <= names
    assert len(study_paths.figures) == 3 * len(names)
    starts = {p.suffix: p.read_bytes()[:5] for p in study_paths.figures}
    assert starts == {".png": b"\x89PNG\r", ".svg": b"<?xml", ".pdf": b"%PDF-"}


def test_no_pdf_has_fonts_that_publishers_refuse(study_paths):
    pdfs = [p.read_bytes() for p in study_paths.figures if p.suffix == ".pdf"]
    assert all(b"/Font" in text and b"/Type3" not in text for text in pdfs)


def test_figures_beyond_the_wanted_number_are_not_drawn_and_said(study, tmp_path):
    paths = report.write_report(study(), tmp_path, title="A study", max_figures=1)
    assert {p.stem for p in paths.figures} == {"latency-layer"}
    text = paths.markdown.read_text(encoding="utf-8")
    for said in (_page(paths).text, text):
        assert re.search(r"\d+ figures? left out", said)
        assert "Speed-up: Layer, batch 1" in said


def test_figures_of_an_earlier_report_do_not_stay_and_strangers_do(row, tmp_path):
    figures_dir = tmp_path / "figures"
    figures_dir.mkdir()
    for name in ("latency-model.png", "mine.png", "latency-notes.txt"):
        (figures_dir / name).write_text("earlier")
    report.write_report(pd.DataFrame([row()]), tmp_path, title="A study")
    left = {p.name for p in figures_dir.iterdir() if p.read_bytes() == b"earlier"}
    assert left == {"mine.png", "latency-notes.txt"}


def test_a_long_report_leaves_its_tables_to_the_page(study, tmp_path):
    rows = pd.concat([study(batch=batch) for batch in range(1, 40)])
    content = document.compose(rows, title="A study", problems=[])
    text = markdown.page(content, folder=tmp_path)
    assert len(text) <= markdown.COMMENT_LENGTH
    assert "| 2-D" not in text
    assert "too long for a comment; it is in report.html" in text
    assert "overtakes Transformer (sdpa_cudnn) at about 4k tokens" in text


def test_two_machines_of_one_kind_are_one_line(row):
    page = _undrawn([row(), row(device_id="ef34", run_id="later")])
    assert page.text.count("NVIDIA H100 80GB HBM3 | driver 570.1") == 1


def test_findings_of_the_analysis_are_in_page_and_markdown(row, written):
    linear = {"contender": "linear", "impl": "fla"}
    paths = written([row(**linear), row(**linear, scan="bi", latency_ms=3.0)])
    for text in (_page(paths).text, paths.markdown.read_text(encoding="utf-8")):
        assert re.search(r"indings\n+.*bi.* 1\.50x", text)


def test_where_even_that_is_too_long_an_outline_is_left(study, tmp_path, monkeypatch):
    monkeypatch.setattr(markdown, "COMMENT_LENGTH", 12_000)
    rows = pd.concat([study(batch=batch) for batch in range(1, 20)])
    content = document.compose(rows, title="A study", problems=[])
    text = markdown.page(content, folder=tmp_path)
    assert len(text) <= 12_000
    assert re.search(r"- and \d+ more, in report.html", text)
    assert text.count("overtakes Transformer (sdpa_cudnn) at about 4k tokens") == 12


def test_each_run_is_held_against_its_own_transformer(study):
    other = {"run_id": "later", "device_name": "NVIDIA H200", "device_id": "ef34"}
    page = _undrawn(pd.concat([study(), study(**other)]))
    assert (
        "Speed-ups are relative to the fastest Transformer of the same run: "
        "Transformer (sdpa_cudnn), H100; Transformer (sdpa_cudnn), H200."
    ) in page.text


def test_what_runs_differ_in_beside_their_labels_is_said(study, written):
    other = {"run_id": "later", "device_name": "NVIDIA H200", "device_id": "ef34"}
    paths = written(pd.concat([study(), study(**other, torch="2.12.0")]))
    for text in (_page(paths).text, paths.markdown.read_text(encoding="utf-8")):
        assert re.search(r"The runs also differ in torch: 2\.11\.0 .*2\.12\.0", text)


def test_the_page_needs_no_network(study_paths):
    page = _page(study_paths)
    assert not {"link", "iframe", "object", "base"} & set(page.tags)
    assert all(s.startswith(("data:", "#")) for s in page.values("src") + page.values("href"))
    assert not [word for word in ("//", "url(", "@import") if word in "".join(page.styles)]
    addresses = re.findall(r"https?:[^\s\"']*", page.scripts[1])
    assert set(addresses) <= {"http://www.w3.org/2000/svg"}


def test_a_browser_may_run_the_pages_own_script_and_load_nothing(study_paths):
    page = _page(study_paths)
    (policy,) = (a["content"] for t, a in page.attributes if t == "meta" and "http-equiv" in a)
    rules = dict(rule.strip().partition(" ")[::2] for rule in policy.split(";"))
    digests = {
        name: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for name, text in (("script-src", page.scripts[1]), ("style-src", page.styles[0]))
    }
    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    } | {name: f"'sha256-{digest}'" for name, digest in digests.items()}


@pytest.fixture
def still(monkeypatch):
    """A figure that the page does not draw itself, the only one of the report."""
    kind = dataclasses.replace(
        next(k for k in figures.FIGURES if k.name == "latency"),
        name="roof",
        title="Roof <of>",
        caption="What a roof is.",
        is_interactive=False,
    )
    monkeypatch.setattr(report, "FIGURES", (kind,))
    return kind


def test_figures_without_a_chart_are_in_the_page_and_say_what_they_show(study, still, written):
    paths = written(study())
    page = _page(paths)
    (image,) = [a for tag, a in page.attributes if tag == "img"]
    (file,) = [p for p in paths.figures if p.suffix == ".png"]
    stored = base64.b64decode(image["src"].partition(",")[2])
    with Image.open(io.BytesIO(stored)) as shown, Image.open(file) as drawn:
        assert shown.size == drawn.size
    assert "2-D, ENA 70% (flex+fla): 8.00 at 16k" in image["alt"]
    assert "Roof <of> What a roof is." in page.text


def test_figures_that_the_page_draws_itself_are_not_in_it_twice(study_paths):
    drawn = {"latency", "speed-up", "throughput", "peak memory"}
    page = _page(study_paths)
    assert drawn <= {quantity["title"] for quantity in page.data["quantities"]}
    shown = [a["alt"] for tag, a in page.attributes if tag == "img"]
    assert not any("over sequence length." in alt for alt in shown)


def test_figures_beyond_the_size_of_a_page_are_named(study, still, written, monkeypatch):
    monkeypatch.setattr(html, "PAGE_MIB", 0.001)
    page = _page(written(study()))
    assert "img" not in page.tags
    assert re.search(r"it is figures/roof-[\w-]+\.png beside it", page.text)
    assert "2-D, ENA 70% (flex+fla): 8.00 at 16k" in page.text


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
        "2.00 from 1k",
        "from 4k (3.9k to 4.1k)",
        "Latency is the median of 6 samples per case",
        "One row per case and round, 20 in all.",
    ):
        assert text in page.text, text


def test_every_row_is_in_the_page_with_what_its_case_says(study, row):
    rows = pd.concat([study(), pd.DataFrame([row(round=1, latency_ms=2.125)])])
    page = _undrawn(rows)
    status, latency = page.column("status"), page.column("latency_ms")
    assert len(status) == len(rows)
    assert status.count("unsupported") == 5
    oom = status.index("oom")
    assert latency[oom] is None
    assert "12 GiB wanted" in page.column("reason")[oom]
    again = page.column("round").index(1)
    assert latency[again] == 2.125
    assert page.column("series")[again] == "Transformer (sdpa_cudnn)"
    assert page.column("series", "rows")[again] == page.column("series")[again]
    assert page.column("case")[again] == page.column("case")[again - 1]


def test_every_column_that_the_table_shows_is_in_the_page_with_a_way_to_write_it(study):
    data = _undrawn(study()).data
    for shown in data["shown"]:
        assert shown["column"] in data["rows"]["columns"]
        assert shown["format"] == "text" or callable(getattr(units, shown["format"]))
    assert all(callable(getattr(units, quantity["format"])) for quantity in data["quantities"])


@pytest.mark.parametrize("column", ["impl", "reason", "run_id", "device_name", "case_path", "mode"])
def test_hostile_text_stays_text(row, column):
    rows = [row(**{column: HOSTILE}), row(status="failed", heads=3, **{column: HOSTILE + "\n|x"})]
    content = document.compose(pd.DataFrame(rows), title=HOSTILE, problems=[HOSTILE])
    page = Page(html.page(content))
    assert page.tags.count("script") == 2
    assert page.text.count(HOSTILE) >= 3
    assert HOSTILE in page.column(column)
    text = markdown.page(content, folder=Path())
    assert "<script" not in text
    assert "![x]" not in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert table
    for line in table:
        assert line.endswith("|")


def test_a_hostile_name_harms_neither_files_nor_figures(bare, written):
    paths = written([bare(level="../up", mode=HOSTILE, contender=HOSTILE, warnings=[HOSTILE])])
    assert {p.parent.name for p in paths.figures} == {"figures"}
    assert all(re.fullmatch(r"[a-z0-9-]+\.(png|svg|pdf)", p.name) for p in paths.figures)
    assert _page(paths).tags.count("script") == 2


def test_markdown_links_the_figures_relative_to_itself(study_paths):
    text = study_paths.markdown.read_text(encoding="utf-8")
    links = re.findall(r"!\[[^\n]*\]\((.+?)\)", text)
    assert len(links) == len(study_paths.figures) / 3
    assert all((study_paths.markdown.parent / link).is_file() for link in links)
    assert "| 2-D ENA 70% (flex+fla) | 0.250x | 0.500x | 1.00x | 2.00x | 4.00x |" in text
    assert "| 2-D Linear cross (fla) | 0.167x | 0.333x | 0.667x | 1.33x | out of memory |" in text
    assert "overtakes Transformer (sdpa_cudnn) at about 4k tokens" in text


def test_a_missing_anchor_is_said_and_no_speedup_is_drawn(bare, written):
    ena = {"contender": "ena", "impl": "flex+fla", "sparsity_target": 0.7}
    paths = written([bare(**ena)])
    assert "speedup-layer" not in {p.stem for p in paths.figures}
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
    assert {p.stem for p in paths.figures} == {"latency-layer"}
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


def test_one_run_holds_its_report_and_several_get_a_directory_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second, dotted = (tmp_path / name for name in ("H100", "H200", "torch-2.11"))
    for run in (first, second, dotted):
        run.mkdir()
    exported = tmp_path / "main.parquet"
    exported.touch()
    assert report.default_folder([first]) == first / "report"
    assert report.default_folder([first, second]) == Path("report-H100-H200")
    assert report.default_folder([Path("H100"), dotted]) == Path("report-H100-torch-2.11")
    assert report.default_folder([exported]) == Path("report-main")
    assert report.default_folder([exported, second]) == Path("report-main-H200")


def test_long_names_and_runs_called_alike_are_told_apart_by_where_they_are(tmp_path):
    def folder(*names):
        return str(report.default_folder([tmp_path / name for name in names]))

    many = [f"2026-01-31T10-22-{second:02}Z" for second in range(9)]
    found = [folder(*many), folder(*many[::-1]), folder("a/main", "b/main"), folder("c/m", "d/m")]
    assert len(set(found)) == 4
    assert [name[: len("report-of-9-runs-")] for name in found[:2]] == 2 * ["report-of-9-runs-"]
    assert re.fullmatch(r"report-of-2-runs-[0-9a-f]{6}", found[2])
    assert folder(*many) == found[0]


def test_a_directory_that_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StorageError, match="cannot be written to") as caught:
        report.write_report(pd.DataFrame(), tmp_path / "taken", title="A study")
    assert "-o" in caught.value.try_


def test_rounds_are_pooled_and_said(row):
    page = _undrawn([row(), row(round=1, latency_ms=2.5)])
    assert "up to 2 rounds" in page.text
    assert "1 case: 1 ok" in page.text
    assert page.data["rows"]["length"] == 2
    assert page.data["cases"]["length"] == 1
