"""What people and programs are told about claims."""

import json
from pathlib import Path

import pandas as pd
import pytest

from reports import claim_text, claims, frames
from reports.claim import CONFIRMED, MIXED, NOT_TESTED, SOMEWHERE, Check, Claim, Where
from reports.claim_quantities import QUANTITIES
from reports.claim_readings import Reading
from reports.claim_rules import CLAIMS
from reports.claims_untested import UNTESTED
from tests.reports.claim_studies import STUDIES, Study

PAGE = Path(__file__).parents[2] / "docs" / "claims.md"


@pytest.fixture
def rows(row):
    """Rows of some studies together, each of one claim and verdict."""

    def make(*wanted):
        return pd.DataFrame([r for key in wanted for r in STUDIES[key](Study(row))])

    return make


@pytest.fixture
def judged(rows):
    """One claim by the rows of its study."""

    def judge(*key):
        (found,) = (j for j in claims.judge_all(rows(key)) if j.name == key[0])
        return found

    return judge


def _reading(**changes):
    places = {"series": "ENA 70% (triton+fla)", "level": "layer", "mode": "fwd", "ndim": 2}
    known = {"setting": "batch 1", "device_name": "H200", "software": "a1b2c3d", "scan": "uni"}
    values = {"sparsity": 0.7, "impl": "triton+fla", "seq_len": 4096, "value": 1.5}
    return Reading(**places | known | values | {"lo": 1.4, "hi": 1.6, "case_ids": ()} | changes)


def test_without_cases_nothing_is_tested_and_every_claim_says_why():
    found = claims.judge_all(pd.DataFrame())
    assert {j.verdict for j in found} == {NOT_TESTED}
    assert all(j.reason for j in found)
    assert len({j.name for j in found}) == len(found) == len(CLAIMS) + len(UNTESTED)
    assert claim_text.headline(found) == []
    assert claim_text.markdown(found).startswith(f"<details><summary>{len(found)} claims are not")


def test_every_quantity_is_used_by_a_rule_and_exists():
    assert {c.quantity for claim in CLAIMS for c in claim.checks} == set(QUANTITIES)


def test_every_need_names_a_column_that_readings_have():
    columns = {need.column for claim in CLAIMS for c in claim.checks for need in c.needs}
    assert columns <= set(Reading.__dataclass_fields__)


def test_the_page_of_the_rules_is_that_of_the_code():
    assert PAGE.read_text(encoding="utf-8") == claim_text.rules_markdown(), "run make docs"


def test_the_page_of_the_rules_has_every_claim_and_every_bound():
    page = claim_text.rules_markdown()
    for claim in CLAIMS:
        assert f"\n## {claim.name}\n" in page
        assert all(
            f"| {claim_text.escaped(check.text)} | {check.rule} |" in page for check in claim.checks
        )
    assert all(f"| {claim.name} | " in page for claim in UNTESTED)


def test_the_fastest_implementation_counts(row):
    study = Study(row)
    quick = STUDIES["E1", CONFIRMED](study)
    slow = study.both(3.0, 50.0, impl="eager")
    cases = frames.records(frames.tidy(pd.DataFrame([*quick, *slow])))
    assert claims.judge(CLAIMS[0], cases).verdict == CONFIRMED


def test_somewhere_is_enough_where_the_rule_says_so(row):
    rule = {"text": "t", "quantity": "speedup", "where": Where(), "low": 1.03}
    study = Study(row)
    made = study.curve(2.0) + study.ena(1.0, 1.5)
    cases = frames.records(frames.tidy(pd.DataFrame(made)))
    for holds, verdict in ((SOMEWHERE, CONFIRMED), ("everywhere", MIXED)):
        claim = Claim(name="X", source="s", quotation="q", checks=(Check(**rule, holds=holds),))
        assert claims.judge(claim, cases).verdict == verdict


def test_a_mixed_verdict_names_its_regions(judged):
    found = judged("E2", MIXED)
    (finding,) = found.findings
    assert claim_text.lines_of(finding) == [
        "holds: ENA full attention (triton+fla), layer fwdbwd, 2-D, at 4k to 8k: 1.10 to 1.20; "
        "ENA 70% (triton+fla), layer fwdbwd, 2-D, at 4k to 8k: 1.10 to 1.20",
        "fails: ENA full attention (triton+fla), layer fwdbwd, 2-D, at 16k: 1.40; "
        "ENA 70% (triton+fla), layer fwdbwd, 2-D, at 16k: 1.40",
    ]
    assert claim_text.sentence(found) == (
        "E2 (memory without checkpointing) is mixed. Peak training memory is 1.00 to 1.25 "
        "times the Transformer's: holds in 4 of 6 places (1.10 to 1.20), fails in 2 of 6 places "
        "(1.40)."
    )


def test_a_region_leaves_out_lengths_that_are_not_in_it():
    known = [_reading(seq_len=n) for n in (1024, 2048, 4096, 8192, 16384)]
    found = [r for r in known if r.seq_len != 4096]
    text = claim_text.region(found, known)
    assert text == "ENA 70% (triton+fla), layer fwd, 2-D, at 1k to 2k and 8k to 16k: 1.50"


def test_a_region_joins_modes_and_axes_that_agree_in_lengths():
    known = [_reading(mode=m, ndim=n, value=n / 2) for m in ("fwd", "step") for n in (2, 3)]
    joined = "ENA 70% (triton+fla), layer fwd and step, 2-D and 3-D, at 4k: 1.00 to 1.50"
    assert claim_text.region(known, known) == joined
    apart = claim_text.region(known[:3], known)
    assert apart == (
        "ENA 70% (triton+fla), layer fwd, 2-D and 3-D, at 4k: 1.00 to 1.50; "
        "ENA 70% (triton+fla), layer step, 2-D, at 4k: 1.00"
    )


def test_a_region_names_devices_where_there_are_several():
    known = [_reading(), _reading(device_name="H100")]
    text = claim_text.region(known, known)
    assert text.startswith("ENA 70% (triton+fla), layer fwd, 2-D (H200), at 4k: 1.50; ")
    assert "(H100)" in text


def test_a_region_counts_what_it_does_not_name():
    known = [_reading(series=f"series {i}") for i in range(6)]
    assert claim_text.region(known, known).endswith("; and 2 more")


def test_the_headline_names_the_claims_of_each_verdict(rows):
    found = claims.judge_all(rows(("E11", CONFIRMED), ("Q1", MIXED)))
    (line,) = claim_text.headline(found)
    assert "E11 (its cost) confirmed" in line
    assert "Q1 mixed" in line


def test_screen_and_document_tell_the_same(rows):
    made = rows(("E11", CONFIRMED))
    text, document = claims.screen(made), json.loads(json.dumps(claims.document(made)))
    verdicts = {c["name"]: c["verdict"] for c in document["claims"]}
    assert verdicts["E11"] == CONFIRMED
    assert "E11   CONFIRMED (its cost)" in text
    assert "stacked over interleaved: time differs by less than 2% (at least 0.98" in text
    assert text.endswith(claims.tally(claims.judge_all(made)))
    (claim,) = (c for c in document["claims"] if c["name"] == "E11")
    assert all(r["case_ids"] for f in claim["findings"] for r in f["holding"])


def test_the_screen_fits_its_width(rows):
    text = claims.screen(rows(("E1", MIXED)), width=80, problems=["a file is damaged"])
    machine, *lines = text.splitlines()
    assert machine.startswith("machine")
    assert max(map(len, lines)) <= 80
    assert "WARNING  a file is damaged" in text


def test_claims_without_a_verdict_come_last_on_a_page(rows):
    entries = claim_text.entries(claims.judge_all(rows(("Q1", MIXED))))
    verdicts = [e.verdict for e in entries]
    assert verdicts == sorted(verdicts, key=lambda v: v == NOT_TESTED)
    assert [e.name for e in entries if e.verdict != NOT_TESTED] == ["Q1", "Q5"]
    assert all(e.sentence.endswith(".") for e in entries)
    untested = {e.name: e for e in entries}["L1"]
    assert untested.sentence == "L1 is not tested: GLA is no contender here."


def test_markdown_escapes_what_comes_from_data(rows):
    hostile = rows(("E11", MIXED)).assign(impl="a|b</details><script>*x*")
    text = claim_text.markdown(claims.judge_all(hostile))
    assert "<script>" not in text
    assert r"a\|b\</details\>\<script\>\*x\*" in text
    assert text.count("<details>") == text.count("</details>")
