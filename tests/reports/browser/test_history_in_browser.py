"""The page of histories in a browser: filtered, dark, narrow, and silent."""

import numpy as np
import pandas as pd
import pytest

from reports import history_page

PHONE = (360, 740)
HOSTILE = "</script><img src=x onerror=document.title='taken'>"


@pytest.fixture(scope="module")
def history_file(row, tmp_path_factory):
    """Ten runs of six cases, of which one gets slower; a reason that would like to be code."""
    rng = np.random.default_rng(3)
    rows = []
    for run in range(10):
        for canvas in ("32x64", "64x64", "64x128", "128x128", "16x16x16", "4096"):
            slow = 1.5 if canvas == "64x64" and run >= 5 else 1.0
            made = {
                "run_id": f"run-{run}",
                "started_at": f"2026-03-{run + 1:02d}T08:00:00+00:00",
                "git_commit": f"{0xA1B2C00 + run:07x}",
                "latency_ms": 2.0 * slow * float(np.exp(rng.normal(0, 0.01))),
            }
            made |= {"status": "crashed", "reason": HOSTILE} if canvas == "4096" and run > 8 else {}
            rows.append(row(canvas=canvas, **made))
    folder = tmp_path_factory.mktemp("history")
    return history_page.write(pd.DataFrame(rows), folder, problems=[HOSTILE]).html


@pytest.fixture
def page(window, history_file):
    """The page as it opens on a desk."""
    return window.open(history_file)


def _shown(page):
    return [c.get_attribute("data-path") for c in page.all(".chart") if c.is_displayed()]


def test_cases_are_filtered_by_words_and_by_change(page, history_file):
    assert len(_shown(page)) == 6
    page.one("#filter").send_keys("64X 128")
    assert sorted("64x128" in path for path in _shown(page)) == [True]
    assert page.text("#count") == "1 of 6 shown"
    page.one("#filter").clear()
    page.one("#filter").send_keys("nothing of the kind")
    assert _shown(page) == []
    page.open(history_file)
    page.click("#changed")
    (only,) = _shown(page)
    assert "64x64" in only


def test_everything_is_there_without_scripts(window, history_file):
    window.open(history_file, scripts=False)
    assert len(_shown(window)) == 6
    assert not window.one("#filter").is_displayed()


def test_nothing_from_data_runs_and_nothing_is_loaded(page, history_file):
    assert page.driver.title == "History"
    assert page.all("img") == []
    assert page.complaints() == []
    assert set(page.requests()) <= {history_file.as_uri()}
    assert HOSTILE in page.text("body")


def test_a_phone_shows_it_without_scrolling_sideways(window, history_file):
    window.open(history_file, size=PHONE)
    assert window.run("document.documentElement.scrollWidth") <= PHONE[0]


@pytest.mark.parametrize("dark", [False, True])
def test_lines_stand_out_from_the_paper_by_day_and_by_night(window, history_file, dark):
    window.open(history_file, dark=dark)
    paper, level, mark = (
        window.run(f"getComputedStyle(document.querySelector('{place}')).{name}")
        for place, name in (
            ("body", "backgroundColor"),
            (".chart .level", "stroke"),
            (".chart .slower line", "stroke"),
        )
    )
    assert (_brightness(paper) < 0.2) is dark
    assert all(abs(_brightness(paper) - _brightness(c)) > 0.25 for c in (level, mark))


def _brightness(colour):
    red, green, blue = (int(v) for v in colour.split("(")[1].rstrip(")").split(",")[:3])
    return (0.299 * red + 0.587 * green + 0.114 * blue) / 255


def test_a_dot_tells_its_numbers(page):
    texts = [e.get_property("textContent") for e in page.all(".chart .point title")]
    assert len(texts) == 59
    assert all(" ms (" in text and ", 2026-03-" in text for text in texts)
