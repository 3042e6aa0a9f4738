"""The page's table of rows in a browser: sorted, filtered, opened, saved."""

import csv
import io
import json
import time

import pytest

NUM_ROWS = 128


@pytest.fixture(scope="module")
def rows_page(row, tmp_path_factory, page_of):
    """More rows than the table shows at once, in an order that is nobody's; one ran out of
    memory."""
    lengths = [1024 * (1 + (37 * i) % (NUM_ROWS - 1)) for i in range(NUM_ROWS - 1)]
    rows = [
        row(canvas=str(n), latency_ms=n / 1024 + 0.25, mode="fwd" if n % 3 else "fwdbwd")
        for n in lengths
    ]
    rows.append(row(canvas="999424", status="oom", reason="=12 GiB, wanted"))
    folder = tmp_path_factory.mktemp("rows")
    return page_of(rows, folder, title="Rows & more")


@pytest.fixture
def page(window, rows_page):
    """The page with its table in view."""
    window.open(rows_page)
    window.run("document.getElementById('rows').scrollIntoView()")
    return window


_COLUMN = """((title) => {
  const heads = [...document.querySelectorAll("#rows-head th")];
  const place = heads.findIndex((head) => head.textContent.startsWith(title));
  const cells = document.querySelectorAll(`#rows-body td:nth-child(${place + 2})`);
  return [[...cells].map((cell) => cell.textContent), heads[place].ariaSort];
})(arguments[0])"""


def _column(page, title):
    """The shown cells of a column and the order that its header announces."""
    cells, order = page.run(_COLUMN, title)
    return cells, order


def _sort(page, title):
    (button,) = [e for e in page.all("#rows-head button") if e.text.startswith(title)]
    page.run("arguments[0].scrollIntoView({block: 'center', inline: 'center'})", button)
    return button


def test_a_column_is_sorted_up_then_down_then_not_at_all(page):
    before, order = _column(page, "latency")
    assert order == "none"
    _sort(page, "latency").click()
    up, order = _column(page, "latency")
    assert order == "ascending"
    assert up[:3] == ["1.25", "2.25", "3.25"]
    assert len(up) == 50
    _sort(page, "latency").click()
    down, order = _column(page, "latency")
    assert order == "descending"
    assert down[:2] == ["127", "126"]
    _sort(page, "latency").click()
    assert _column(page, "latency") == (before, "none")


def test_a_column_is_sorted_by_keys(page):
    page.focus(_sort(page, "canvas"))
    page.press("ENTER")
    cells, order = _column(page, "canvas")
    assert order == "ascending"
    assert cells[:3] == ["1024", "2048", "3072"]
    page.press("SPACE")
    assert _column(page, "canvas")[1] == "descending"


def test_what_is_unknown_comes_last_in_either_order(page):
    for _ in range(2):
        _sort(page, "latency").click()
        page.run("[...document.querySelectorAll('#pager button')].pop().click()")
        assert _column(page, "latency")[0][-1] == ""


def test_rows_are_filtered_by_text_and_by_choice(page):
    assert page.text("#rows-count") == f"{NUM_ROWS} rows of {NUM_ROWS}, 1 to 50 shown"
    page.one("#filter-text").send_keys("OOM 12")
    assert page.text("#rows-count") == f"1 row of {NUM_ROWS}"
    assert page.one("#rows-body tr").get_attribute("class") == "bad"
    page.click("#filters button")
    assert page.text("#rows-count").startswith(f"{NUM_ROWS} rows")
    page.click("#filter-mode")
    page.press("ARROW_DOWN", "ARROW_DOWN", "ENTER")
    assert set(_column(page, "mode")[0]) == {"fwdbwd"}
    page.one("#filter-text").send_keys("no such row")
    assert page.text("#rows-count") == f"0 rows of {NUM_ROWS}"
    assert page.text("#rows-body") == ""


def test_pages_are_turned_and_keep_the_focus(page):
    names = [e.text for e in page.all("#pager button")]
    assert names == ["first", "previous", "next", "last"]
    assert [e.is_enabled() for e in page.all("#pager button")] == [False, False, True, True]
    page.click("#pager button:nth-of-type(3)")
    assert "51 to 100 shown" in page.text("#rows-count")
    page.press("ENTER")
    assert "101 to 128 shown" in page.text("#rows-count")
    _sort(page, "latency").click()
    assert "1 to 50 shown" in page.text("#rows-count")
    page.click("#pager button:nth-of-type(4)")
    assert [e.is_enabled() for e in page.all("#pager button")] == [True, True, False, False]


def test_columns_that_say_the_same_everywhere_are_said_once(page):
    heads = [e.text for e in page.all("#rows-head button")]
    assert not any(text.startswith(("B", "H", "dtype")) for text in heads)
    assert "H 12" in page.text("#rows-same")
    assert "dtype bfloat16" in page.text("#rows-same")


def test_a_row_opens_with_everything_that_is_known_of_it(page):
    page.click("#rows-body button")
    assert page.run("document.getElementById('row').open")
    told = page.text("#row-columns")
    for text in ("git_commit", "a1b2c3d4e5f6", "NVIDIA H100 80GB HBM3", "error_budget_used"):
        assert text in told
    assert "started_at" in told
    page.press("ESCAPE")
    assert not page.run("document.getElementById('row').open")


def _saved(page, folder, button):
    """What a button saves: the file's name and its text."""
    page.command("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    page.click(button)
    for _ in range(100):
        done = [p for p in folder.iterdir() if p.suffix in (".csv", ".json")]
        if done:
            return done[0].name, done[0].read_bytes().decode("utf-8")
        time.sleep(0.05)
    raise AssertionError(f"nothing was saved: {list(folder.iterdir())}")


def test_all_rows_are_saved_as_csv_that_no_spreadsheet_runs(page, tmp_path):
    name, text = _saved(page, tmp_path, "#csv-all")
    assert name == "Rows-more.csv"
    lines = list(csv.DictReader(io.StringIO(text)))
    assert len(lines) == NUM_ROWS
    assert {line["device_name"] for line in lines} == {"NVIDIA H100 80GB HBM3"}
    assert sum(float(line["latency_ms"] or 0) for line in lines) == sum(range(1, 128)) + 127 / 4
    (oom,) = [line for line in lines if line["status"] == "oom"]
    assert oom["reason"] == "'=12 GiB, wanted"
    assert oom["latency_ms"] == ""


def test_only_the_filtered_rows_are_saved(page, tmp_path):
    page.one("#filter-text").send_keys("oom")
    _, text = _saved(page, tmp_path, "#csv-shown")
    assert len(list(csv.DictReader(io.StringIO(text)))) == 1


def test_all_rows_are_saved_as_json(page, tmp_path):
    name, text = _saved(page, tmp_path, "#json-all")
    assert name == "Rows-more.json"
    lines = json.loads(text)
    assert len(lines) == NUM_ROWS
    (oom,) = [line for line in lines if line["status"] == "oom"]
    assert (oom["reason"], oom["latency_ms"]) == ("=12 GiB, wanted", None)
    assert type(lines[0]["latency_ms"]) in (int, float)
