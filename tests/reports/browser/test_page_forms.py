"""The further charts in a browser: curves, bars, stacks and cells, with what they tell."""

import json

import pytest


@pytest.fixture(scope="module")
def rich_page(row, tmp_path_factory, page_of):
    """Rows that know their parts, their work and their peaks, in 2-D."""
    known = {
        "peak_tflops_per_s": 800.0,
        "peak_bandwidth_gb_per_s": 4000.0,
        "parameters_mib": 10.0,
        "inputs_mib": 10.0,
        "activations_mib": 20.0,
        "component_ms": json.dumps({"attention": 3.0, "mlp": 1.0}),
        "bytes": 4e9,
    }
    rows = []
    for canvas, scale in (("32x64", 1.0), ("64x64", 2.0)):
        rows.append(row(canvas=canvas, latency_ms=4.0 * scale, flops=8e11 * scale, **known))
        for sparsity in (0.0, 0.5, 0.75):
            ena = {"contender": "ena", "impl": "triton+fla", "sparsity_target": sparsity}
            work = {"sparsity": sparsity, "flops": 8e11 * scale * (1 - sparsity)}
            latency_ms = 4.0 * scale * (1.1 - sparsity)
            rows.append(row(canvas=canvas, **ena, **work, latency_ms=latency_ms, **known))
        for scan, ratio in (("uni", 1.0), ("cross", 2.5)):
            linear = {"contender": "linear", "impl": "fla", "scan": scan}
            rows.append(row(canvas=canvas, **linear, latency_ms=scale * ratio, flops=1e11, **known))
    folder = tmp_path_factory.mktemp("rich")
    return page_of(rows, folder, title="Much is known")


@pytest.fixture
def page(window, rich_page):
    """The page of rows that know much."""
    return window.open(rich_page)


def _told(page, selector):
    page.hover(selector)
    return page.text(".tooltip")


def test_every_further_chart_is_offered_after_the_quantities(page):
    labels = [e.text for e in page.all("#controls fieldset:first-of-type label")]
    assert labels[-6:] == [
        "gain of sparsity",
        "map of speed-ups",
        "cost of scans",
        "shares of time",
        "shares of memory",
        "roofline",
    ]


def test_curves_of_sparsity_tell_speedup_interval_and_ideal(page):
    page.choose("gain of sparsity")
    assert len(page.all(".series .line")) == 4
    assert len(page.all(".series .line.reference")) == 2
    assert [e.text for e in page.all("#legend button[aria-pressed]")] == ["2k tokens", "4k tokens"]
    told = _told(page, ".series .point:last-of-type")
    assert "75.0% sparse" in told
    assert "3.14x (3.08x to 3.21x)" in told
    assert "ideal 4.00x, of which 79%" in told


def test_hiding_a_curve_hides_its_ideal(page):
    page.choose("gain of sparsity")
    page.click("#legend button")
    assert len(page.all(".series .line")) == 2


def test_cells_have_their_number_inside_and_name_the_fastest(page):
    page.choose("map of speed-ups")
    assert [e.text for e in page.all(".inside")] == ["2.9", "2.9", "1.7", "1.7", "0.91", "0.91"]
    rows = [e.text for e in page.all(".axes .end")]
    assert rows == ["75%", "50%", "0%"]
    assert "ENA 75% (triton+fla)" in _told(page, ".cell")
    fills = {page.run("getComputedStyle(arguments[0]).fill", e) for e in page.all(".cell")}
    assert len(fills) == 3


def test_bars_stand_on_zero_and_tell_their_interval(page):
    page.choose("cost of scans")
    assert page.all(".axes .end")[0].text == "0x"
    bar, one, floor = page.run(
        "['.bar', '.reference', '.frame'].map((name) => document.querySelector(`#panels ${name}`)"
        ".getBBox()).map((box, index) => (index === 2 ? box.y + box.height : box.y))"
    )
    assert (floor - bar) / (floor - one) == pytest.approx(2.5, rel=0.01)
    told = _told(page, ".bar")
    assert "Linear cross (fla)" in told
    assert "time over that of uni: 2.50x (2.45x to 2.55x)" in told
    assert "1.50 ms more" in told


def test_a_stack_has_a_panel_per_series_and_parts_that_fill_it(page):
    page.choose("shares of time")
    titles = [e.text for e in page.all(".panel figcaption")]
    assert titles[0] == "Transformer (sdpa_cudnn)"
    assert len(titles) == 6
    assert [e.text for e in page.all("#legend button[aria-pressed]")] == ["attention", "mlp"]
    heights = page.run(
        "[...document.querySelectorAll('.panel')[0].querySelectorAll('.part')]"
        ".map((part) => part.getBBox().height)"
    )
    assert heights[0] == pytest.approx(3 * heights[2], rel=0.01)
    told = _told(page, ".part")
    assert "3.00 ms" in told
    assert "75.0%" in told


def test_stacks_of_several_dimensions_are_shown_one_after_the_other(window, row, tmp_path, page_of):
    spent = json.dumps({"attention": 3.0, "mlp": 1.0})
    rows = [row(canvas=canvas, component_ms=spent) for canvas in ("4096", "64x64")]
    page = window.open(page_of(rows, tmp_path, title="Two dimensions"))
    assert len(page.all(".panel")) == 2
    page.choose("shares of time")
    assert [e.text for e in page.all("#controls fieldset:last-of-type label")] == ["1-D", "2-D"]
    assert len(page.all(".panel")) == 1
    page.choose("latency")
    assert len(page.all(".panel")) == 2


def test_points_lie_under_the_roof(page):
    page.choose("roofline")
    roof = page.run("document.querySelector('.reference').getBBox().y")
    points = page.all(".series .point")
    assert len(points) == 12
    places = page.run("[...document.querySelectorAll('#panels .point')].map((p) => p.getCTM().f)")
    assert min(places) > roof
    assert "of the roof, limited by" in _told(page, ".series .point")


def test_arrow_keys_walk_over_bars_too(page):
    page.choose("cost of scans")
    page.focus("#panels svg")
    page.press("ARROW_RIGHT")
    assert "2k tokens" in page.text("#spoken")
    page.press("ARROW_RIGHT")
    assert "4k tokens" in page.text("#spoken")


def test_the_numbers_of_a_further_chart_are_a_table(page):
    page.choose("cost of scans")
    page.click("details:has(#numbers) summary")
    cells = [e.text for e in page.all("#numbers th, #numbers td")]
    assert cells == [
        "time over that of uni by sequence length (tokens)",
        "2k",
        "4k",
        "2-D canvas, Linear cross (fla)",
        "2.50x (2.45x to 2.55x), 1.50 ms more",
        "2.50x (2.45x to 2.55x), 3.00 ms more",
    ]
