"""The page's charts in a browser: what they show, what they tell, how they are worked."""

import pandas as pd
import pytest

from bench import units

VALUES = (
    *(10.0**e * m for e in range(-9, 13) for m in (1.0, 1.2345, 4.565, 9.9951)),
    *(k / 8 for k in range(180)),
    *(128.0 * k for k in range(1, 180)),
    *(0.0, 2.125, 0.1225, 999.5, 1000.5, 119_500.0, 120_500.0, 7_199_999.0, 7_200_000.0),
)
"""Magnitudes of everything that is measured, and values midway between two texts."""


@pytest.fixture(scope="module")
def study_page(study, tmp_path_factory, row, page_of):
    """The study in 2-D and its double in 1-D, both forward and with gradients."""
    line = [row(canvas="512", latency_ms=1.0), row(canvas="2048", latency_ms=4.0)]
    rows = pd.concat([study(), study(mode="fwdbwd"), pd.DataFrame(line)], ignore_index=True)
    folder = tmp_path_factory.mktemp("study")
    return page_of(rows, folder, title="A study")


@pytest.fixture
def page(window, study_page):
    """The study, opened at a desktop's width."""
    return window.open(study_page)


def test_numbers_are_written_as_everywhere_else(page):
    names = ("significant", "duration", "memory", "rate", "ratio", "percent", "tokens", "count")
    for name in names:
        written = page.run(f"arguments[0].map((value) => format.{name}(value))", VALUES)
        assert written == [getattr(units, name)(value) for value in VALUES], name
        assert page.run(f"format.{name}(null)") == units.NOT_AVAILABLE


def test_every_number_of_dimensions_has_a_panel_and_every_series_a_line(page):
    assert [e.text for e in page.all(".panel figcaption")] == ["1-D canvas", "2-D canvas"]
    second = page.all(".panel")[1]
    lines = second.find_elements("css selector", ".series")
    assert [e.get_attribute("data-series") for e in lines] == [
        "Transformer (sdpa_cudnn)",
        "ENA 70% (flex+fla)",
        "Linear cross (fla)",
    ]
    points = second.find_elements("css selector", ".point")
    assert len(points) == 5 + 5 + 4
    assert [e.text for e in second.find_elements("css selector", ".sign")] == [
        "\N{MULTIPLICATION SIGN}"
    ]


def test_quantity_mode_and_dimensions_are_switched_by_pointer(page):
    assert page.text("#chart-title") == "Layer, forward"
    page.choose("forward and backward")
    assert page.text("#chart-title") == "Layer, forward and backward"
    assert page.text("#chart-axis") == "latency (ms) over sequence length"
    assert len(page.all(".panel")) == 1
    page.choose("forward")
    page.choose("speed-up")
    page.choose("2-D")
    assert page.text("#chart-axis") == "speed-up (ratio of latencies) over sequence length"
    assert [e.text for e in page.all(".panel figcaption")] == ["2-D canvas"]
    assert "2-D: ENA 70% (flex+fla) overtakes its anchor at 4k tokens" in page.text("#chart-notes")
    assert len(page.all(".crossing")) == 2


def test_quantity_is_switched_by_keys_and_keeps_the_focus(page):
    page.focus("#shown-0")
    page.press("ARROW_RIGHT")
    assert page.text("#chart-axis") == "speed-up (ratio of latencies) over sequence length"
    page.press("ARROW_RIGHT")
    assert page.text("#chart-axis") == "throughput (tokens/s) over sequence length"


def test_a_point_tells_its_value_and_interval_under_the_pointer(page):
    page.choose("2-D")
    page.hover(".series .point")
    told = page.text(".tooltip")
    low, middle, high = (units.significant(0.125 * f) for f in (0.99, 1.0, 1.01))
    assert "Transformer (sdpa_cudnn)" in told
    assert "32x32 canvas, 1k tokens" in told
    assert f"{middle} ms ({low} to {high})" in told
    assert "6 samples" in told
    page.hover("h1")
    assert page.all(".tooltip") == []


def test_points_are_walked_by_keys_and_read_aloud(page):
    page.choose("2-D")
    page.focus("#panels svg")
    page.press("ARROW_RIGHT")
    assert "32x32 canvas" in page.text("#spoken")
    page.press("ARROW_RIGHT")
    assert "32x64 canvas" in page.text("#spoken")
    assert "0.500 ms" in page.text("#spoken")
    before = page.text("#spoken")
    page.press("ARROW_UP")
    assert "32x64 canvas" in page.text("#spoken")
    assert page.text("#spoken") != before
    assert len(page.all(".ring[visibility='visible']")) == 1
    page.press("ESCAPE")
    assert page.all(".tooltip, .ring[visibility='visible']") == []


def test_a_failed_case_tells_why(page):
    page.choose("2-D")
    page.hover(".sign")
    assert "out of memory: CUDA out of memory: 12 GiB wanted" in page.text(".tooltip")
    assert "\N{MULTIPLICATION SIGN} out of memory" in page.text("#legend")


@pytest.mark.parametrize("place", ["start", "center"])
def test_a_finger_shows_a_tooltip_inside_the_screen(window, study_page, place):
    window.open(study_page, size=(360, 740))
    window.choose("2-D")
    point = window.all(".panel .point")[4]
    window.run("arguments[0].scrollIntoView({block: arguments[1]})", point, place)
    frame = window.run(
        "(({x, y, width}) => [x + width / 2, y])(arguments[0].getBoundingClientRect())", point
    )
    touch = [{"x": frame[0], "y": frame[1]}]
    window.command("Input.dispatchTouchEvent", type="touchStart", touchPoints=touch)
    window.command("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    left, right, top = window.run(
        "(({left, right, top}) => [left, right, top])"
        "(document.querySelector('.tooltip').getBoundingClientRect())"
    )
    assert left >= 0
    assert top >= 0
    assert right <= 360


def test_a_series_is_hidden_and_shown_by_its_key(page):
    page.choose("2-D")
    names = {e.text: e for e in page.all("#legend button[aria-pressed]")}
    assert set(names) == {"Transformer (sdpa_cudnn)", "ENA 70% (flex+fla)", "Linear cross (fla)"}
    page.click("#legend button")
    assert page.one("#legend button").get_attribute("aria-pressed") == "false"
    assert page.run("document.activeElement === document.querySelector('#legend button')")
    assert len(page.all(".series")) == 2
    page.press("ENTER")
    assert page.one("#legend button").get_attribute("aria-pressed") == "true"
    assert len(page.all(".series")) == 3


def test_no_series_is_an_empty_chart_that_says_so(page):
    page.click("#all-series")
    assert page.text("#panels") == "No series is chosen."
    page.click("#all-series")
    assert len(page.all(".panel")) == 2


def test_the_numbers_of_a_chart_are_a_table_too(page):
    page.choose("2-D")
    page.click("details:has(#numbers) summary")
    cells = [
        [e.text for e in line.find_elements("css selector", "th, td")]
        for line in page.all("#numbers tr")
    ]
    assert cells[0] == ["latency (ms)", "1k", "2k", "4k", "8k", "16k"]
    assert cells[1][0] == "2-D Transformer (sdpa_cudnn)"
    assert cells[1][3] == "2.00 ms (1.98 to 2.02)"
    assert cells[3][-1] == "out of memory"


def test_the_squarest_canvas_is_on_the_line_and_others_are_faint(window, row, tmp_path, page_of):
    rows = [row(canvas="32x64"), row(canvas="64x64"), row(canvas="16x256"), row(canvas="64x128")]
    page = window.open(page_of(rows, tmp_path, title="Shapes"))
    (path,) = [e.get_attribute("d") for e in page.all(".series .line")]
    assert path.count("L") == 2
    assert len(page.all(".series .point")) == 4
    page.hover(".series .faint")
    assert "16x256 canvas, 4k tokens" in page.text(".tooltip")


def test_a_line_breaks_where_a_case_failed(window, row, tmp_path, page_of):
    rows = [
        row(canvas="32x64"),
        row(canvas="64x64", status="timeout", reason="9 s"),
        row(canvas="64x128"),
        row(canvas="128x128"),
    ]
    page = window.open(page_of(rows, tmp_path, title="A gap"))
    pieces = [e.get_attribute("d").count("L") for e in page.all(".series .line")]
    assert pieces == [0, 1]
    assert [e.text for e in page.all(".sign")] == ["T"]


def test_levels_and_settings_are_switched(window, study, tmp_path, page_of):
    rows = pd.concat([study(), study(heads=3), study(level="model")])
    page = window.open(page_of(rows, tmp_path, title="Two settings"))
    assert page.text("#chart-title") == "Model, forward"
    page.choose("Layer")
    assert page.text("#chart-title") == "Layer, forward"
    options = [e.text for e in page.all("#setting option")]
    assert len(options) == 2
    assert ["3 heads" in text for text in options].count(True) == 1
    chosen = page.text("#chart-setting")
    page.click("#setting")
    page.press("ARROW_DOWN", "ENTER")
    assert page.text("#chart-setting") in {*options} - {chosen}


def test_what_was_measured_most_is_shown_first(window, study, row, tmp_path, page_of):
    rows = pd.concat([pd.DataFrame([row(level="model", depth=12)]), study(mode="fwdbwd")])
    page = window.open(page_of(rows, tmp_path, title="Mostly layers"))
    assert page.text("#chart-title") == "Layer, forward and backward"


def test_runs_of_two_machines_are_lines_of_one_chart(window, study, tmp_path, page_of):
    other = {"run_id": "later", "device_name": "NVIDIA H200", "device_id": "ef34"}
    rows = pd.concat([study(), study(**other)])
    page = window.open(page_of(rows, tmp_path, title="Two GPUs"))
    names = [e.text for e in page.all("#legend button[aria-pressed]")]
    assert len(names) == 6
    assert sum("H200" in name for name in names) == 3
    assert "NVIDIA H100 80GB HBM3" in page.text("#chart-setting")
    assert "NVIDIA H200" in page.text("#chart-setting")
    page.click("#filter-run_id")
    page.press("ARROW_DOWN", "ENTER")
    assert page.text("#rows-count") == "20 rows of 40"


def test_points_of_too_few_samples_are_hollow_and_marked(window, study, tmp_path, page_of):
    rows = study()
    is_few = (rows["contender"] == "ena") & (rows["seq_len"] == 2048) & (rows["status"] == "ok")
    for index in rows.index[is_few]:
        rows.at[index, "samples_ms"] = [1.0, 1.0]
    page = window.open(page_of(rows, tmp_path, title="A hasty study"))
    for quantity, number in (("latency", 1), ("speed-up", 1), ("peak memory", 0)):
        page.choose(quantity)
        hollow = page.all(".series .point.hollow")
        assert len(hollow) == number, quantity
        assert ("fewer than 6 samples" in page.text("#chart-notes")) == bool(number)
    marked = [cell.text for cell in page.all("#rows-body td.n") if cell.text.endswith("*")]
    assert marked == ["1.00*", "0.500x*"]
