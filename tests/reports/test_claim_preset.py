"""The preset claims measures what every check needs."""

import pandas as pd
import pytest

from bench import cost
from bench.case import shape_text
from bench.grid import expand, load_preset
from reports import claims
from reports.claim import NOT_TESTED
from reports.claim_rules import CLAIMS

TESTABLE = [claim.name for claim in CLAIMS if claim.checks]


@pytest.fixture(scope="module")
def planned(row):
    """A row for each case of the preset on a GPU, as if every FLOP took as long."""
    rows = []
    for plan in expand(load_preset("claims"), device="cuda"):
        case = plan.case
        found = cost.cost(case)
        assert plan.reason is None, plan.reason
        assert found is not None
        values = case.to_dict()
        values |= {n: shape_text(values[n]) or None for n in ("canvas", "tile", "window")}
        latency_ms = found.flops / 1e10
        rows.append(
            row(
                **values,
                latency_ms=latency_ms,
                latency_ms_lo=latency_ms,
                latency_ms_hi=latency_ms,
                samples_ms=[latency_ms] * 8,
                sparsity=case.sparsity,
                peak_memory_mib=float(case.seq_len),
                activations_mib=float(case.seq_len),
            )
        )
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def judged(planned):
    return {j.name: j for j in claims.judge_all(planned)}


@pytest.mark.parametrize("name", TESTABLE)
def test_every_check_finds_its_cases(judged, name):
    for finding in judged[name].findings:
        assert finding.readings, finding.text
        assert finding.missing == (), finding.text


def test_with_every_flop_alike_the_verdicts_are_those_of_arithmetic(judged):
    """ENA is linear with a fixed window only; more than one pass over the canvas costs more."""
    assert judged["E9"].verdict == "mixed"
    assert [f.verdict for f in judged["E9"].findings] == ["refuted", "confirmed"]
    assert judged["E11"].verdict == "confirmed"
    assert judged["E8"].findings[0].verdict == judged["E8"].findings[1].verdict == "confirmed"


def test_every_claim_with_checks_gets_a_verdict(judged):
    open_ones = {n: judged[n].reason for n in TESTABLE if judged[n].verdict == NOT_TESTED}
    assert open_ones == {}


def test_a_small_form_of_the_questions_runs_on_a_processor():
    plans = expand(load_preset("claims"), device="cpu")
    assert {plan.reason for plan in plans} == {None}
    assert max(plan.case.seq_len for plan in plans) <= 1024
