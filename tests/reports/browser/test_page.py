"""The whole page in a browser: quiet, offline, safe, in dark and light, on a phone, for all."""

import re
from itertools import pairwise

import pandas as pd
import pytest

from reports import report

HOSTILE = '</script><img src=x onerror="window.harm=1"><!--<script>window.harm=2</script>{{7*7}}'
PHONE = (360, 740)
_CONTRAST = """
const light = (text) => {
  const parts = text.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255)
    .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
};
const [a, b] = [light(arguments[0]), light(arguments[1])];
return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
"""


@pytest.fixture(scope="module")
def study_page(study, row, tmp_path_factory):
    """A report with everything: failures, warnings, a damaged file, claims."""
    rows = pd.concat([study(), pd.DataFrame([row(warnings=["noisy: spread 12%"], canvas="512")])])
    folder = tmp_path_factory.mktemp("page")
    problems = ["rows/a.parquet is damaged"]
    return report.write_report(rows, folder, title="A study", problems=problems).html


def test_the_page_is_quiet_and_asks_for_nothing(window, study_page):
    page = window.open(study_page)
    for name in page.run("explorer.offers().map(([name]) => name)"):
        page.run(f"explorer.set('shown', '{name}')")
    page.click("#rows-head button")
    assert page.complaints() == []
    others = [url for url in page.requests() if not url.startswith("data:")]
    assert others == [study_page.as_uri()]


@pytest.mark.parametrize("column", ["impl", "reason", "case_path", "warnings", "device_name"])
def test_hostile_text_does_nothing_but_show(window, row, tmp_path, page_of, column):
    value = [HOSTILE] if column == "warnings" else HOSTILE
    rows = [row(**{column: value}), row(status="oom", heads=3, **{column: value})]
    page = window.open(page_of(rows, tmp_path, title=HOSTILE))
    assert page.driver.title == HOSTILE
    page.focus("#panels svg")
    page.press("ARROW_RIGHT")
    page.click("#rows-body button")
    assert HOSTILE in page.text("body")
    assert page.run("window.harm ?? null") is None
    assert page.all("[onerror], img") == []
    assert len(page.all("script")) == 2
    assert page.complaints() == []


def test_the_page_is_light_or_dark_as_the_system_or_the_reader_has_it(window, study_page):
    def paper():
        return window.run("getComputedStyle(document.body).backgroundColor")

    window.open(study_page)
    light = paper()
    window.click("#theme")
    assert paper() != light
    window.open(study_page, dark=True)
    dark = paper()
    assert dark != light
    window.click("#theme")
    assert paper() == light


@pytest.mark.parametrize("dark", [False, True])
def test_text_and_lines_stand_out_from_the_paper(window, study_page, dark):
    page = window.open(study_page, dark=dark)
    script = "getComputedStyle(document.documentElement).getPropertyValue(arguments[0])"
    paint = (
        "((c) => { document.body.style.color = c; return getComputedStyle(document.body).color; })"
    )

    def contrast(ink, paper):
        colours = [page.run(f"{paint}({script})", f"--{name}") for name in (ink, paper)]
        return page.driver.execute_script(_CONTRAST, *colours)

    for ink, paper in (
        ("ink", "paper"),
        ("muted", "paper"),
        ("accent", "paper"),
        ("ink", "card"),
        ("muted", "card"),
        ("bad", "bad-paper"),
        ("accent-ink", "accent"),
    ):
        assert contrast(ink, paper) >= 4.5, (ink, paper)
    for ink in ("edge", *(f"c{i}" for i in range(8))):
        assert contrast(ink, "paper") >= 3, ink


@pytest.mark.parametrize("dark", [False, True])
def test_nothing_is_wider_than_a_phone(window, study_page, dark):
    page = window.open(study_page, size=PHONE, dark=dark)
    page.run("document.querySelectorAll('details').forEach((e) => { e.open = true; })")
    for name in page.run("explorer.offers().map(([name]) => name)"):
        page.run(f"explorer.set('shown', '{name}')")
        assert page.run("document.documentElement.scrollWidth") <= PHONE[0]
    assert page.run("document.querySelector('#panels svg').getBoundingClientRect().right") <= 360


def test_names_without_end_are_no_wider_than_a_phone(window, row, tmp_path, page_of):
    name = "x" * 300
    spent = {"component_ms": '{"attention": 3.0}', "warnings": [name], "run_id": name}
    rows = [row(), row(impl=name, **spent), row(status="failed", heads=3, impl=name, reason=name)]
    page = window.open(page_of(rows, tmp_path, title=name), size=PHONE)
    page.run("document.querySelectorAll('details').forEach((e) => { e.open = true; })")
    for shown in ("latency", "components"):
        page.run(f"explorer.set('shown', '{shown}')")
        page.focus("#panels svg")
        page.press("ARROW_RIGHT")
        assert page.run("document.documentElement.scrollWidth") <= PHONE[0], shown


def test_every_control_has_a_name_and_every_image_says_what_it_shows(window, study_page):
    page = window.open(study_page)
    controls = page.all("button, input, select, summary, a, [role='region'], [role='application']")
    shown = [e for e in controls if e.is_displayed()]
    assert len(shown) > 30
    nameless = [e.get_attribute("outerHTML")[:80] for e in shown if not e.accessible_name]
    assert nameless == []


def test_headings_go_down_one_level_at_a_time(window, study_page):
    page = window.open(study_page)
    levels = [int(e.tag_name[1]) for e in page.all("h1, h2, h3, h4") if e.is_displayed()]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_the_focus_is_visible_wherever_keys_lead(window, study_page):
    page = window.open(study_page)
    seen = set()
    for _ in range(25):
        page.press("TAB")
        name, style, width = page.run(
            "((e, s) => [e.id || e.textContent, s.outlineStyle, parseFloat(s.outlineWidth)])"
            "(document.activeElement, getComputedStyle("
            "document.activeElement.type === 'radio' ? document.activeElement.nextElementSibling"
            " : document.activeElement))"
        )
        assert style == "solid", name
        assert width >= 2, name
        seen.add(name)
    assert {"Skip to the results", "theme", "shown-0"} <= seen


def test_without_scripts_the_findings_are_still_there(window, study_page):
    page = window.open(study_page, scripts=False)
    for selector in ("#summary", "#claims", "#method", "#layer-fwd"):
        assert page.one(selector).is_displayed()
    assert "need JavaScript" in page.one("noscript").text
    assert not page.one("#controls").is_displayed()
    window.command("Emulation.setScriptExecutionDisabled", value=False)


def test_links_within_the_page_lead_somewhere(window, study_page):
    page = window.open(study_page)
    for link in page.all("nav a"):
        target = re.search("#(.+)", link.get_attribute("href"))[1]
        assert page.one(f"[id='{target}']").is_displayed()


def test_an_empty_report_is_a_quiet_page(window, tmp_path, page_of):
    page = window.open(page_of([], tmp_path, title="Nothing"))
    assert page.complaints() == []
    assert "There are no rows." in page.text("main")


def test_a_single_length_sets_series_side_by_side(window, row, tmp_path, page_of):
    rows = [row(), row(impl="flex", latency_ms=2.01), row(contender="linear", impl="fla")]
    page = window.open(page_of(rows, tmp_path, title="One"))
    places = [
        page.run("arguments[0].getBoundingClientRect().x", e) for e in page.all(".panel .point")
    ]
    assert len({round(x) for x in places}) == 3
