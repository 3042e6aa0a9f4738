"""The numbers inside the page: complete, small, harmless."""

import json

import pandas as pd
import pytest

from reports import document, html, page_data, theme
from reports.tables import Table

MOST_BYTES = 8_000_000


def _unpacked(column, length):
    if "all" in column:
        return [column["all"]] * length
    if "of" in column:
        return [column["of"][place] for place in column["at"]]
    return column["each"]


@pytest.mark.parametrize(
    "values",
    [
        [],
        [None, None, None],
        ["a", "a", "b", None, "b", "a"],
        ["a", "b", "c"],
        [1.5, 2.5, 1.5, None],
        [True, 1, 1.0, "1", "1", "1", "1", "1"],
    ],
)
def test_a_packed_column_unpacks_to_what_it_was(values):
    packed = json.loads(json.dumps(page_data.packed(values)))
    found = _unpacked(packed, len(values))
    assert found == values
    assert [type(v) for v in found] == [type(v) for v in values]


def test_what_repeats_takes_less_room():
    values = ["a long name of a series", "another long name of a series"] * 100
    assert len(json.dumps(page_data.packed(values))) < len(json.dumps(values)) / 5


def test_nothing_in_the_data_can_end_a_script_or_begin_a_comment():
    text = page_data.script_text({"<!--": ["</script>", "<script>", "]]>&\u2028"]})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"<!--": ["</script>", "<script>", "]]>&\u2028"]}


def test_a_series_that_is_unsupported_everywhere_still_has_a_look(row):
    rows = [row(), row(impl="natten", status="unsupported", reason="not installed")]
    content = document.compose(pd.DataFrame(rows), title="", problems=[])
    (section,) = content.sections
    group = page_data.Group(
        level="layer",
        mode="fwd",
        heading="Layer, forward",
        setting="",
        cases=section.part.frame.to_dict("records"),
        styles={},
        scaling=[],
        notes=[],
    )
    looks = page_data.page_data(pd.DataFrame(rows), [group])["series"]
    assert {look["colour"] for look in looks} == {theme.PALETTE.index(theme.GREY)}


@pytest.mark.slow
def test_five_thousand_rows_of_many_settings_make_a_page_under_8_mb(row, canvases):
    rows = [
        row(
            contender=contender,
            impl=impl,
            mode=mode,
            canvas=canvas,
            batch=batch,
            sparsity_target=sparsity,
            latency_ms=1.0 + len(canvas) * batch + (sparsity or 0.0),
            warnings=[f"noisy: spread {batch}% of {canvas}; close other programs and run again"],
            power_w=300.0 + batch,
        )
        for contender, impl, sparsity in (
            ("transformer", "sdpa_cudnn", None),
            ("ena", "triton+fla", 0.5),
            ("ena", "triton+fla", 0.7),
            ("ena", "triton+fla", 0.9),
            ("linear", "fla", None),
        )
        for mode in ("fwd", "fwdbwd", "bwd")
        for batch in range(1, 19)
        for ndim in canvases
        for canvas in canvases[ndim].values()
    ]
    rows = [*rows, *rows[: 5000 - len(rows)]]
    assert len(rows) == 5000
    text = html.page(document.compose(pd.DataFrame(rows), title="Many rows", problems=[]))
    assert len(text.encode()) < MOST_BYTES


def test_the_facts_of_machines_stand_side_by_side_and_say_what_differs(study):
    other = {"run_id": "later", "device_name": "NVIDIA H200", "device_id": "ef34"}
    rows = pd.concat(
        [
            study(peak_tflops_per_s=700.0, sm_clock_mhz_min=1500.0, sm_clock_mhz_max=1980.0),
            study(**other, torch="2.12.0", libraries='{"fla": "0.6.0", "cudnn": "91900"}'),
        ]
    )
    facts = document.compose(rows, title="", problems=[]).facts
    assert isinstance(facts, Table)
    assert [c.name for c in facts.columns] == ["run", "2026-01-31T10-22-07Z", "later"]
    lines = {line[0]: line[1:] for line in facts.lines}
    marks = dict(zip(lines, facts.marks, strict=True))
    assert lines["device"] == ["NVIDIA H100 80GB HBM3", "NVIDIA H200"]
    assert lines["torch"] == ["2.11.0", "2.12.0"]
    assert lines["commit"] == ["a1b2c3d", "a1b2c3d"]
    assert lines["measured peak"] == ["bfloat16 700 TFLOP/s", "n/a"]
    assert lines["SM clock while timing"] == ["1,500 to 1,980 MHz", "n/a"]
    assert lines["libraries"] == ["n/a", "cudnn 91900, fla 0.6.0"]
    assert (marks["torch"], marks["commit"]) == ("differs", "ok")


@pytest.mark.parametrize("libraries", ["no json", "[1]"])
def test_libraries_that_are_no_map_are_shown_as_they_are(row, libraries):
    rows = pd.DataFrame([row(libraries=libraries)])
    facts = document.compose(rows, title="", problems=[]).facts
    assert ["libraries", libraries] in facts.lines
