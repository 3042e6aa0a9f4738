"""Every verdict of every claim, and the rules that verdicts follow."""

import pandas as pd
import pytest

from reports import claim_text, claims, frames
from reports.claim import (
    CONFIRMED,
    FAILS,
    HOLDS,
    MIXED,
    NOT_TESTED,
    REFUTED,
    SOMEWHERE,
    UNDECIDED,
    VERDICT_RULES,
    VERDICTS,
    Check,
    Where,
    check_verdict,
    claim_verdict,
)
from reports.claim_quantities import readings
from reports.claim_rules import CLAIMS
from tests.reports.claim_studies import FLAT, STUDIES, Study

RULES = {claim.name: claim for claim in CLAIMS}


@pytest.fixture
def judged(row):
    """Judges a claim by the rows of a study."""

    def judge(name, make):
        cases = frames.records(frames.tidy(pd.DataFrame(make(Study(row)))))
        return claims.judge(RULES[name], cases)

    return judge


@pytest.mark.parametrize(("name", "verdict"), STUDIES)
def test_a_study_gives_its_verdict(judged, name, verdict):
    found = judged(name, STUDIES[name, verdict])
    assert found.verdict == verdict, [(f.text, f.verdict, f.reason) for f in found.findings]
    assert found.verdict != NOT_TESTED or found.reason


def test_every_verdict_of_every_claim_with_checks_has_a_study():
    testable = [claim.name for claim in CLAIMS if claim.checks]
    assert set(STUDIES) == {(name, verdict) for name in testable for verdict in VERDICTS}


@pytest.mark.parametrize(
    ("sides", "is_complete", "everywhere", "somewhere"),
    [
        ([], True, NOT_TESTED, NOT_TESTED),
        ([HOLDS], True, CONFIRMED, CONFIRMED),
        ([FAILS], True, REFUTED, REFUTED),
        ([UNDECIDED], True, NOT_TESTED, NOT_TESTED),
        ([HOLDS, FAILS], True, MIXED, CONFIRMED),
        ([HOLDS, UNDECIDED], True, MIXED, CONFIRMED),
        ([FAILS, UNDECIDED], True, REFUTED, NOT_TESTED),
        ([HOLDS], False, NOT_TESTED, CONFIRMED),
        ([HOLDS, UNDECIDED], False, NOT_TESTED, CONFIRMED),
        ([HOLDS, FAILS], False, MIXED, CONFIRMED),
        ([FAILS], False, REFUTED, NOT_TESTED),
    ],
)
def test_the_verdict_of_a_check(sides, is_complete, everywhere, somewhere):
    rule = {"text": "t", "quantity": "speedup", "where": Where()}
    found = check_verdict(Check(**rule), sides, is_complete=is_complete)
    assert found == everywhere
    found = check_verdict(Check(**rule, holds=SOMEWHERE), sides, is_complete=is_complete)
    assert found == somewhere


@pytest.mark.parametrize(
    ("verdicts", "is_supported", "is_contradicted", "expected"),
    [
        ([], False, False, NOT_TESTED),
        ([CONFIRMED, CONFIRMED], True, False, CONFIRMED),
        ([CONFIRMED, NOT_TESTED], True, False, NOT_TESTED),
        ([CONFIRMED, REFUTED], True, True, MIXED),
        ([REFUTED, NOT_TESTED], False, True, REFUTED),
        ([REFUTED, NOT_TESTED], True, True, MIXED),
        ([REFUTED, REFUTED], False, True, REFUTED),
        ([MIXED, NOT_TESTED], True, False, NOT_TESTED),
        ([MIXED, NOT_TESTED], True, True, MIXED),
        ([MIXED, CONFIRMED], True, False, MIXED),
        ([MIXED, REFUTED], True, True, MIXED),
    ],
)
def test_the_verdict_of_a_claim_is_that_of_all_its_checks(
    verdicts, is_supported, is_contradicted, expected
):
    found = claim_verdict(verdicts, is_supported=is_supported, is_contradicted=is_contradicted)
    assert found == expected


def test_every_verdict_is_explained():
    assert tuple(verdict for verdict, _ in VERDICT_RULES) == VERDICTS


def test_a_claim_is_not_confirmed_while_one_of_its_checks_is_open(judged):
    """Two lengths only: no exponent can be fitted, the other two checks hold."""
    found = judged(
        "E1",
        lambda s: [
            r for r in s.curve(2.0) + s.both(1.0, 0.5) if r["canvas"] not in ("64x128", "16x16x32")
        ],
    )
    assert [f.verdict for f in found.findings] == [CONFIRMED, CONFIRMED, NOT_TESTED]
    assert found.verdict == NOT_TESTED
    assert found.reason == (
        "1 of 3 checks is not tested (no run has the cases it needs), the others hold"
    )


@pytest.mark.parametrize("name", ["E3", "Q5"])
def test_one_length_does_not_confirm_what_is_said_of_all(judged, name):
    study = STUDIES[name, CONFIRMED]
    found = judged(name, lambda s: [r for r in study(s) if r["canvas"] == "128x128"])
    assert found.verdict == NOT_TESTED
    assert "nothing was measured for" in found.reason


@pytest.mark.parametrize(
    ("dropped", "missing"),
    [
        ({"mode": "fwdbwd"}, ("training",)),
        ({"ndim": 3}, ("3-D",)),
        ({"sparsity_target": 0.0}, ("ENA with full attention",)),
    ],
)
def test_a_check_that_holds_where_it_was_measured_says_where_it_was_not(judged, dropped, missing):
    ((column, value),) = dropped.items()
    found = judged(
        "E1", lambda s: [r for r in s.curve(2.0) + s.both(1.0, 0.5) if r[column] != value]
    )
    assert found.verdict == NOT_TESTED
    assert {f.missing for f in found.findings} == {missing}
    assert f"nothing was measured for {missing[0]}" in found.reason


def test_an_interval_that_contains_the_bound_decides_nothing(judged):
    def study(error):
        return lambda s: s.single_passes(1.09) + s.learnable(2.0) + _uncertain(s, error)

    assert judged("E6", study(0.001)).verdict == CONFIRMED
    found = judged("E6", study(0.02))
    assert found.verdict == MIXED
    assert found.findings[0].undecided
    assert not found.findings[0].failing


def _uncertain(study, error):
    """One more length at which the scans are known worse."""
    made = {"lengths": (32768,), "ndims": (2,), "error": error}
    return study.linear("uni", **made) + study.linear("flip", 1.0, 1.09, **made)


def test_nothing_is_judged_from_latencies_of_few_samples(judged):
    def study(samples):
        return lambda s: [
            r | {"samples_ms": r["samples_ms"][:samples]} for r in s.stacks(1.005, 101.0)
        ]

    assert judged("E11", study(8)).verdict == CONFIRMED
    found = judged("E11", study(2))
    assert found.findings[0].verdict == NOT_TESTED
    assert found.findings[0].reason == "the cases it needs have too few samples"
    assert found.findings[1].verdict == CONFIRMED
    assert found.caveats == (
        "24 of 24 cases have fewer than 6 samples: nothing is judged from them",
    )


def test_a_wild_latency_of_two_samples_turns_no_verdict(judged):
    """ENA 100 times as slow as it is, at one length."""

    def study(samples):
        return lambda s: (
            s.curve(2.0)
            + [
                _wild(r, samples) if (r["canvas"], r["mode"]) == ("64x128", "fwd") else r
                for r in s.both(1.0, 0.5)
            ]
        )

    assert judged("E1", study(8)).verdict == MIXED
    found = judged("E1", study(2))
    assert found.verdict != MIXED
    assert not any(f.failing for f in found.findings)
    lines = claim_text.lines_of(found.findings[0])
    assert any(
        line.startswith("not judged for too few samples: ENA")
        and "layer fwd, 2-D, at 8k to 16k" in line
        for line in lines
    )
    assert "not judged for too few samples in 4 of " in claim_text.sentence(found)
    assert any("fewer than 6 samples: nothing is judged" in text for text in found.caveats)


def _wild(row, samples):
    names = ("latency_ms", "latency_ms_lo", "latency_ms_hi")
    return row | {n: 100 * row[n] for n in names} | {"samples_ms": row["samples_ms"][:samples]}


def test_what_a_check_needs_is_not_there_if_it_has_too_few_samples(judged):
    found = judged(
        "E1",
        lambda s: (
            s.curve(2.0)
            + s.both(1.0, 0.5, modes=("fwd",))
            + s.both(1.0, 0.5, modes=("fwdbwd",), samples_ms=[1.0, 1.0])
        ),
    )
    assert found.verdict == NOT_TESTED
    assert any("(with samples enough)" in words for f in found.findings for words in f.missing)


def test_plain_pytorch_on_a_gpu_is_a_caveat(judged):
    found = judged("E1", lambda s: s.curve(2.0) + s.both(1.0, 0.5, impl="triton+eager"))
    assert found.verdict == CONFIRMED
    assert found.caveats == (
        "24 of 36 cases ran at least one operator as plain PyTorch on the GPU (triton+eager): "
        "fused kernels may change the verdict",
    )


def test_an_anchor_that_is_no_flash_kernel_is_a_caveat(judged):
    found = judged("E1", lambda s: s.curve(2.0, impl="sdpa_math") + s.both(1.0, 0.5))
    assert found.caveats == (
        "no FlashAttention (flash_attn, flash_attn_4, sdpa_flash, sdpa_cudnn) was measured; "
        "Transformer (sdpa_math) stands in",
    )


def test_noise_is_a_caveat_of_times_and_not_of_memory(judged):
    noisy = {"warnings": ["noisy: samples spread by 30%"]}
    found = judged("E1", lambda s: s.curve(2.0) + s.both(1.0, 0.5, **noisy))
    assert found.caveats == ("24 of 36 cases have samples that are noisy or did not converge",)
    assert judged("E2", lambda s: ena_noisy(s, noisy)).caveats == ()


def ena_noisy(study, noisy):
    return [r | noisy for r in STUDIES["E2", CONFIRMED](study)]


def test_nothing_is_compared_across_versions_of_the_software(judged):
    def study(commit):
        return lambda s: (
            s.stacks(1.0, 100.0)[:12]
            + [r | {"git_commit": commit, "run_id": "later"} for r in s.stacks(1.0, 100.0)[12:]]
        )

    same = judged("E11", study("a1b2c3d4e5f6"))
    assert same.verdict == CONFIRMED
    assert judged("E11", study("ffffffffffff")).verdict == NOT_TESTED


def test_a_stand_in_from_another_run_is_of_the_same_machine(row):
    study = Study(row)
    ena = study.both(1.0, 0.5, run_id="a")
    slow = {"run_id": "c", "device_name": "NVIDIA Z9", "device_id": "ff"}
    found = ena + study.curve(1.0, run_id="b") + study.curve(1.0, 10.0, **slow)
    for rows in (found, found[::-1]):
        cases = frames.records(frames.tidy(pd.DataFrame(rows)))
        known = readings("speedup", cases, Where(contenders=("ena",)))
        assert {round(r.value, 6) for r in known} == {2.0}


def test_a_sweep_is_named_after_all_of_its_sparsities(row):
    cases = frames.records(frames.tidy(pd.DataFrame(Study(row).sweep(FLAT))))
    found = readings("line_deviation", cases, Where(levels=("layer",)))
    assert {r.series for r in found} == {"ENA 25% to 95% (triton+fla)"}


def test_the_largest_speed_up_is_known_as_well_as_the_best_known_length(judged):
    """The largest is uncertain, but another length alone exceeds the bound."""

    def study(s):
        wide = {"error": 0.4, "lengths": (16384,)}
        flat = s.curve(2.0, lengths=(4096, 8192)) + s.both(2.0, 0.8, lengths=(4096, 8192))
        return flat + s.curve(2.0, **wide) + s.both(2.0, 0.75, **wide)

    most = judged("E1", study).findings[1]
    assert most.verdict == CONFIRMED
    assert {round(r.lo, 2) for r in most.holding} == {1.25}


def test_a_largest_speed_up_is_not_refuted_by_lengths_that_end_too_early(judged):
    """ENA might overtake at 16k, which was not measured."""
    found = judged(
        "E1",
        lambda s: (
            s.curve(2.0, lengths=(2048, 4096), ndims=(2,))
            + s.both(1.0, 3.0, lengths=(2048, 4096), ndims=(2,))
        ),
    )
    assert found.findings[1].verdict == NOT_TESTED
    assert found.verdict == NOT_TESTED


def test_what_must_hold_somewhere_is_not_refuted_where_it_is_least_likely(judged):
    """Scans are slower than a Transformer at short lengths first; only long ones were measured."""
    made = {"lengths": (8192, 16384), "ndims": (2,)}
    found = judged("E5", lambda s: s.curve(1.0, 10.0, **made) + s.linear("bi", **made))
    assert found.findings[0].verdict == NOT_TESTED
    assert found.findings[0].reason == "it fails, but nothing was measured for 1k tokens"


def test_a_check_of_a_tile_looks_at_no_other(judged):
    found = judged("E8", lambda s: s.dense() + s.tiles(0.3) + s.waste(tile="4x8"))
    assert [f.verdict for f in found.findings] == [CONFIRMED, NOT_TESTED, CONFIRMED]
