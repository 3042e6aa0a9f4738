"""The last screen: what it says, in how many columns, and as JSON."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from bench.runner import Summary
from reports import screen
from reports.report import Paths

PATH = Path("runs/first")


def _final(rows, **options):
    options.setdefault("width", 100)
    return screen.final(pd.DataFrame(rows), path=PATH, colour=False, **options)


def _long_run(row, canvases, modes=("fwd", "bwd", "fwdbwd")):
    ena = {"contender": "ena", "impl": "flex+fla"}
    rows = []
    for mode in modes:
        for seq_len, canvas in canvases[2].items():
            base = {"mode": mode, "canvas": canvas}
            rows.append(row(**base, latency_ms=seq_len**2 / 1e7))
            for sparsity in (0.5, 0.7, 0.9):
                ms = seq_len * (1 - sparsity) / 1e3
                rows.append(row(**base, **ena, sparsity_target=sparsity, latency_ms=ms))
    return rows


def test_the_order_is_machine_correctness_table_notes_saved_next(study):
    text = _final(study())
    places = [
        text.index(word)
        for word in (
            "machine      NVIDIA H100",
            "correctness  14 of 14 cases agree with float64 (worst uses 0.25",
            "series",
            "FAILED",
            "unsupported",
            "saved        runs/first (20 rows)",
            "next         ena-bench report runs/first",
        )
    ]
    assert places == sorted(places)


def test_the_table_is_aligned_and_has_units_in_its_header(study):
    lines = _final(study()).splitlines()
    (at,) = [i for i, line in enumerate(lines) if line.startswith("series ")]
    names, units = lines[at - 1], lines[at]
    assert names.split() == ["latency", "spread", "rate", "compute", "memory", "speed-up"]
    assert units.split()[1:] == ["canvas", "ms", "%", "tokens/s", "TFLOP/s", "MiB", "x"]
    (ena,) = [line for line in lines if "ENA 70%" in line and "128x128" in line]
    assert ena.split()[-6:] == ["8.00", "6.0", "2.05M", "312", "1,024", "4.00"]
    assert len(ena) == len(units) == len(names)
    assert units.index("ms") + 2 == ena.index("8.00") + 4


def test_a_group_names_level_mode_setting_and_anchor(study):
    heading = (
        "layer fwd: batch 1, 12 heads of 64, depth 2, bfloat16, cuda, vs Transformer (sdpa_cudnn)"
    )
    assert heading in _final(study()).splitlines()


def test_a_failed_case_shows_status_and_reason_and_no_number(study):
    (line,) = [t for t in _final(study()).splitlines() if "Linear cross" in t and "128x128" in t]
    assert line.endswith("128x128  oom: CUDA out of memory: 12 GiB wanted")


def test_reasons_of_several_lines_stay_on_one_that_fits(row):
    text = _final([row(), row(heads=3, status="crashed", reason="one\ntwo " + "long " * 60)])
    (line,) = [t for t in text.splitlines() if "  crashed: one two" in t and "64x64" in t]
    assert len(line) == 100
    assert line.endswith("...")


def test_unsupported_cases_are_grouped_and_counted(study):
    text = _final(study())
    assert text.count("natten is not installed") == 1
    assert re.search(r"natten is not installed \(5 cases, such as\s+layer/ena/natten", text)


def test_three_hundred_noisy_cases_print_one_warning(row):
    rows = [
        row(heads=n, warnings=[f"noisy: spread {n}% of the median; try more rounds"])
        for n in range(1, 301)
    ]
    text = _final(rows)
    assert text.count("WARNING") == 1
    assert "(300 cases" in text


def test_many_kinds_of_warnings_are_cut_and_counted(row):
    rows = [row(heads=n + 1, warnings=[f"kind {chr(97 + n)}"]) for n in range(20)]
    text = _final(rows)
    assert text.count("WARNING") == screen.MAX_GROUPS + 1
    assert f"and {20 - screen.MAX_GROUPS} kinds more" in text


def test_problems_are_warnings(row):
    assert "WARNING      a.parquet is damaged" in _final([row()], problems=["a.parquet is damaged"])


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_no_line_is_wider_than_the_terminal(study, row, canvases, width):
    for rows in (study(), _long_run(row, canvases)):
        lines = _final(rows, width=width).splitlines()
        too_wide = [t for t in lines if len(t) > width and not t.startswith(("layer ", "saved"))]
        assert too_wide == []


def test_a_narrow_terminal_drops_the_least_important_columns_first(study):
    narrow = _final(study(), width=66)
    assert "compute" not in narrow
    assert "latency" in narrow
    assert "speed-up" in narrow
    assert " 4.00\n" in narrow


def test_a_long_run_is_condensed_to_a_line_per_series(row, canvases):
    rows = _long_run(row, canvases)
    text = _final(rows)
    assert f"{len(rows)} cases; each of them is in runs/first" in text
    (line,) = [t for t in text.splitlines() if "ENA 90%" in t][:1]
    assert line.split()[-3:] == ["16.4x", "32.8x", "65.5x"]
    headers = [t.split() for t in text.splitlines() if t.startswith("tokens")]
    assert headers[0][1:] == ["512", "1k", "2k", "4k", "8k", "16k", "32k", "64k"]
    assert len(text.splitlines()) < 40


def test_a_condensed_run_shows_failures_in_their_cells(row, canvases):
    rows = _long_run(row, canvases)
    rows[-1] |= {"status": "oom", "reason": "too big", "latency_ms": None}
    last = [t for t in _final(rows).splitlines() if "ENA 90%" in t][-1]
    assert last.split()[-1] == "oom"


def test_a_very_long_run_says_what_it_leaves_out(row, canvases):
    rows = [
        r | {"heads": heads, "case_id": f"{r['case_id']}-{heads}"}
        for heads in range(1, 31)
        for r in _long_run(row, canvases, modes=("fwd",))
    ]
    text = _final(rows)
    assert len(text.splitlines()) < screen.MAX_LINES + 20
    assert "not shown here" in text
    assert "more series" in text


def test_a_long_run_without_an_anchor_shows_latencies(row, canvases):
    rows = [r for r in _long_run(row, canvases) if r["contender"] == "ena"]
    text = _final(rows)
    assert ", 2-D, latency" in text
    assert "410 us" in text


def test_nothing_that_could_run_is_said(row):
    text = _final([row(status="unsupported", reason="flex needs CUDA")])
    assert "No case could run here." in text
    assert "flex needs CUDA" in text
    assert "No case could run here." in _final([])


def test_a_run_that_ended_early_says_how_to_go_on(row):
    done = Summary(num_rows={"ok": 1}, num_skipped=3, num_left=12, elapsed_s=75.0)
    text = _final([row()], summary=done)
    assert "saved        runs/first (1 row, 3 of them from before, 75.0 s)" in text
    assert "12 visits" in text
    assert "next         ena-bench run --resume runs/first" in text


def test_a_written_report_is_named_instead_of_suggested(row):
    written = Paths(html=Path("x/report.html"), markdown=Path("x/report.md"), figures=())
    text = _final([row()], report=written)
    assert "report       x/report.html" in text
    assert "next " not in text


def test_a_run_that_ended_early_names_its_report_too(row):
    done = Summary(num_rows={"ok": 1}, num_skipped=0, num_left=12, elapsed_s=75.0)
    written = Paths(html=Path("x/report.html"), markdown=Path("x/report.md"), figures=())
    text = _final([row()], summary=done, report=written)
    assert "report       x/report.html" in text
    assert "next         ena-bench run --resume runs/first" in text


def test_an_incorrect_case_is_counted_and_explained(row):
    text = _final([row(), row(heads=3, status="incorrect", reason="output differs by 0.3")])
    assert "1 of 2 cases agree with float64" in text
    assert "incorrect: output differs by 0.3" in text


def test_colour_is_on_request_only_and_changes_no_text(study):
    plain = _final(study())
    coloured = screen.final(study(), path=PATH, width=100, colour=True)
    assert "\x1b[" not in plain
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain


def test_elsewhere_than_on_a_terminal_it_is_plain(study, monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    assert screen.final(study(), path=PATH) == _final(study())


def test_the_json_document_is_json_and_holds_every_row(study):
    rows = study()
    document = screen.json_document(rows, path=PATH, problems=["one"])
    read = json.loads(json.dumps(document, allow_nan=False))
    assert len(read["rows"]) == len(rows)
    assert read["rows"][0]["samples_ms"] == list(rows["samples_ms"][0])
    assert read["problems"] == ["one"]
    assert read["num_cases"] == {"ok": 14, "unsupported": 5, "oom": 1}
    (best,) = [c for c in read["cases"] if c["speedup"] == 4.0]
    assert best["series"] == "ENA 70% (flex+fla)"
    (oom,) = [c for c in read["cases"] if c["status"] == "oom"]
    assert oom["latency_ms"] is None


def test_the_json_of_nothing_is_still_a_document():
    document = screen.json_document(pd.DataFrame(), path=PATH)
    assert json.loads(json.dumps(document))["rows"] == []


def test_verification_shows_errors_and_no_times(row):
    untimed = {"latency_ms": None, "samples_ms": None}
    rows = pd.DataFrame(
        [
            row(**untimed, error_forward=2e-3, error_gradient=4e-3, error_budget_used=0.41),
            row(heads=3, status="incorrect", reason="output differs by 0.3"),
            row(heads=5, status="unsupported", reason="no fla"),
        ]
    )
    text = screen.verification(rows, width=100, colour=False)
    assert "1 of 2 cases agree with float64 (worst uses 0.41" in text
    (line,) = [t for t in text.splitlines() if t.endswith("twin+full")]
    assert line.split()[1:] == ["2.0e-03", "4.0e-03", "41%", "twin+full"]
    assert "incorrect: output differs by 0.3" in text
    assert "no fla" in text
    assert "latency" not in text


def test_the_json_of_a_verification_holds_the_errors(row):
    document = screen.verification_json(pd.DataFrame([row(error_forward=2e-3)]))
    (case,) = json.loads(json.dumps(document, allow_nan=False))["cases"]
    assert (case["error_forward"], case["status"]) == (2e-3, "ok")
