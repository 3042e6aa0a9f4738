"""What there is, told row by row with the reason why any of it is not available."""

from pathlib import Path

import pytest

from bench import listing
from bench.case import Case
from bench.contenders import registry
from bench.grid import Planned, expand, override, parse_grid, preset_names
from ena_kernels.scans.catalog import SCANS

CASE = Case(level="op", contender="attention", impl="eager", mode="fwd", canvas=(37,))


def by_key(rows, *names):
    return {tuple(row[name] for name in names): row for row in rows}


def test_every_contender_is_listed_once_with_what_it_runs():
    rows = by_key(listing.contenders("cpu"), "level", "contender", "impl")
    assert rows.keys() == registry().keys()
    eager = rows["op", "delta_rule", "eager"]
    assert eager["here"] == "yes"
    assert eager["modes"].split()[:3] == ["fwd", "bwd", "fwdbwd"]
    assert "float32" in eager["dtypes"].split()


def test_a_contender_that_cannot_run_says_why(monkeypatch):
    monkeypatch.setattr("bench.contenders.is_installed", lambda library: library != "fla")
    rows = by_key(listing.contenders("cpu"), "level", "contender", "impl")
    assert rows["op", "delta_rule", "fla"]["here"] == "no: fla is not installed"
    assert rows["op", "attention", "sdpa_cudnn"]["here"] == "no: runs on cuda only"
    monkeypatch.setattr("bench.contenders.is_installed", lambda library: True)
    rows = by_key(listing.contenders("cuda"), "level", "contender", "impl")
    assert {row["here"] for row in rows.values()} == {"yes"}


def test_every_preset_is_listed_with_its_description():
    rows = by_key(listing.presets(), "preset")
    assert [key for (key,) in rows] == preset_names()
    assert all(len(row["description"]) > 20 for row in rows.values())
    assert "under two minutes" in rows["quick",]["description"]
    assert "[[cases]]" in Path(rows["quick",]["file"]).read_text()


def test_cases_are_listed_by_path_with_the_reason():
    planned = [Planned(case=CASE), Planned(case=CASE.with_(batch=2), reason="too many")]
    assert listing.cases(planned) == [
        {"case": CASE.case_path, "here": "yes"},
        {"case": CASE.with_(batch=2).case_path, "here": "too many"},
    ]


@pytest.mark.parametrize(
    ("scan", "passes", "canvases"),
    [
        ("uni", 1, ["yes", "yes", "yes"]),
        ("bi", 2, ["yes", "yes", "yes"]),
        ("cross", 4, ["no", "yes", "yes"]),
        ("mh2d", 1, ["no", "yes", "no"]),
        ("mh3d", 1, ["no", "no", "yes"]),
    ],
)
def test_a_scan_is_listed_with_its_passes_and_canvases(scan, passes, canvases):
    rows = by_key(listing.scans(), "scan")
    assert [key for (key,) in rows] == list(SCANS)
    row = rows[scan,]
    assert row["passes"] == passes
    assert [row[axes] for axes in ("1-D", "2-D", "3-D")] == canvases


def test_text_is_aligned_columns_under_their_names():
    rows = [{"name": "a", "number": 12, "why": "short"}, {"name": "bcdef", "number": 3, "why": ""}]
    assert listing.text(rows) == "name   number  why\na      12      short\nbcdef  3"
    assert listing.text([]) == ""


def two_contenders(**axes):
    text = '[[cases]]\ncontender = ["ena", "transformer"]\ncanvas = ["24x32"]'
    return expand(override(parse_grid(text, name="two"), axes), device="cpu")


def test_named_axes_that_mean_nothing_to_a_contender_are_told_and_no_others():
    planned = two_contenders()
    assert listing.left_out(["sparsity", "scan", "heads"], planned) == [
        "--sparsity and --scan mean nothing to transformer, and are left out there"
    ]
    assert listing.left_out([], planned) == []
    of_ena = [p for p in planned if p.case.contender == "ena"]
    assert listing.left_out(["sparsity"], of_ena) == []


def test_a_sparsity_beside_a_window_is_told_to_be_dropped():
    axes = {"window": ["8x16"], "sparsity": ["0.5"]}
    planned = two_contenders(contender=["ena"], **axes)
    assert {p.case.sparsity_target for p in planned} == {None}
    assert listing.left_out(list(axes), planned) == [
        "--sparsity is left out: --window says what is attended"
    ]
