"""Verdicts on synthetic runs whose answers are known."""

import json

import pandas as pd
import pytest

from reports import claims, frames
from reports.claim_quantities import QUANTITIES
from reports.claim_rules import CLAIMS, Check, Claim, Where
from reports.claims_untested import UNTESTED

RULES = {claim.name: claim for claim in CLAIMS}
CANVASES = {4096: "64x64", 8192: "64x128", 16384: "128x128"}


def _judged(name, rows):
    return claims.judge(RULES[name], frames.records(frames.tidy(pd.DataFrame(rows))))


def _curve(row, power, scale=1.0, **changes):
    """Latency 2 ms at 4k times `scale`, growing with a power of the length."""
    return [
        row(canvas=c, latency_ms=2 * scale * (n / 4096) ** power, **changes)
        for n, c in CANVASES.items()
    ]


def _ena(row, power, scale=1.0, sparsity=0.7, **changes):
    made = {"contender": "ena", "impl": "flex+fla", "sparsity_target": sparsity}
    return _curve(row, power, scale, **made, sparsity=sparsity, **changes)


def _linear(row, scan, power=1.0, scale=1.0, **changes):
    return _curve(row, power, scale, contender="linear", impl="fla", scan=scan, **changes)


@pytest.mark.parametrize(
    ("power", "scale", "verdict"),
    [(1.0, 0.5, "confirmed"), (2.6, 4.0, "refuted"), (1.5, 5.0, "mixed")],
)
def test_e1_scales_more_favorably(row, power, scale, verdict):
    assert _judged("E1", _curve(row, 2.0) + _ena(row, power, scale)).verdict == verdict


def test_e2_memory_is_slightly_higher(row):
    base = _curve(row, 2.0, mode="fwdbwd", peak_memory_mib=100.0)
    for used, verdict in ((115.0, "confirmed"), (90.0, "refuted"), (130.0, "refuted")):
        ena = _ena(row, 1.0, mode="fwdbwd", peak_memory_mib=used)
        assert _judged("E2", base + ena).verdict == verdict
    some = [
        r | {"peak_memory_mib": m}
        for r, m in zip(_ena(row, 1.0, mode="fwdbwd"), (110.0, 120.0, 140.0), strict=True)
    ]
    found = _judged("E2", base + some)
    assert found.verdict == "mixed"
    (finding,) = found.findings
    assert finding.lines == [
        "holds: ENA 70% (flex+fla), layer fwdbwd, 2-D, at 4k and 8k: 1.10 to 1.20",
        "fails: ENA 70% (flex+fla), layer fwdbwd, 2-D, at 16k: 1.40",
    ]


def test_e9_linear_time(row):
    assert _judged("E9", _ena(row, 1.0)).verdict == "confirmed"
    assert _judged("E9", _ena(row, 1.9)).verdict == "refuted"
    both = _ena(row, 1.0) + _ena(row, 1.9, sparsity=0.0)
    assert _judged("E9", both).verdict == "mixed"


def test_e10_sparse_is_faster_than_dense(row):
    dense = _ena(row, 2.0, sparsity=0.0)
    assert _judged("E10", dense + _ena(row, 1.5, 0.8)).verdict == "confirmed"
    assert _judged("E10", dense + _ena(row, 2.3, 1.5)).verdict == "refuted"
    assert _judged("E10", dense + _ena(row, 1.2, 1.5)).verdict == "mixed"


@pytest.mark.parametrize(
    ("scale", "verdict"), [(1.05, "confirmed"), (1.4, "refuted"), (1.1, "not tested")]
)
def test_e6_single_pass_scans_cost_little(row, scale, verdict):
    rows = _linear(row, "uni") + _linear(row, "flip", scale=scale)
    assert _judged("E6", rows).verdict == verdict


def test_q1_doublings(row):
    def judged(attention, linear):
        return _judged("Q1", _curve(row, attention) + _linear(row, "uni", linear)).verdict

    assert judged(2.0, 1.0) == "confirmed"
    assert judged(1.0, 2.0) == "refuted"
    assert judged(1.0, 1.0) == "mixed"


def test_the_fastest_implementation_counts(row):
    slow = _ena(row, 3.0, 50.0, **{})
    slow = [r | {"impl": "eager", "case_id": r["case_id"] + "e"} for r in slow]
    assert _judged("E1", _curve(row, 2.0) + _ena(row, 1.0, 0.5) + slow).verdict == "confirmed"


def test_somewhere_is_enough_where_the_rule_says_so(row):
    rule = {"text": "t", "quantity": "speedup", "where": Where(), "low": 1.03}
    rows = _curve(row, 2.0) + _ena(row, 1.0, 1.5)
    cases = frames.records(frames.tidy(pd.DataFrame(rows)))
    for holds, verdict in (("somewhere", "confirmed"), ("everywhere", "mixed")):
        claim = Claim(name="X", source="s", quotation="q", checks=(Check(**rule, holds=holds),))
        assert claims.judge(claim, cases).verdict == verdict


def test_without_cases_nothing_is_tested_and_every_claim_says_why():
    found = claims.judge_all(pd.DataFrame())
    assert {j.verdict for j in found} == {"not tested"}
    assert all(j.reason for j in found)
    assert len({j.name for j in found}) == len(found) == len(CLAIMS) + len(UNTESTED)


def test_every_quantity_is_used_by_a_rule_and_exists():
    assert {c.quantity for claim in CLAIMS for c in claim.checks} == set(QUANTITIES)


def test_screen_and_document_tell_the_same(study):
    rows = study()
    text, document = claims.screen(rows), json.loads(json.dumps(claims.document(rows)))
    verdicts = {c["name"]: c["verdict"] for c in document["claims"]}
    assert verdicts["E9"] == "confirmed"
    assert "E9    CONFIRMED" in text
    assert text.endswith(claims.tally(claims.judge_all(rows)))
