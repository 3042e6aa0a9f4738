"""What people, CI systems and GitHub are told of a comparison."""

import json
import re
from dataclasses import replace
from xml.etree import ElementTree

import pandas as pd
import pytest

from bench.compare import Limits, compare
from bench.errors import StorageError
from reports import comparison, comparison_files, comparison_junit, comparison_markdown, github
from reports.comparison import Run
from tests.comparing import case_of, failed, replaced, rows_of

CASES = [case_of(heads) for heads in (1, 2, 3, 5, 7, 11)]
SAME, SLOW, BROKEN, OTHER, MEMORY, FAST = CASES
LATENCIES = {case.case_id: 1.0 for case in CASES} | {SLOW.case_id: 1.25, FAST.case_id: 0.7}


@pytest.fixture(scope="module")
def pair():
    """One case of each kind."""
    before = rows_of(CASES, run="main", seed=1)
    after = rows_of(CASES, run="change", latency_ms=LATENCIES, seed=2)
    bell = "worker died\x07 <at> a|b, 50%"
    after = failed(after, after["case_id"] == BROKEN.case_id, "crashed", bell)
    after = replaced(after, after["case_id"] == OTHER.case_id, kernel_fingerprint="ba4")
    after = replaced(after, after["case_id"] == MEMORY.case_id, peak_memory_mib=140.0)
    return Run(name="main.parquet", rows=before), Run(name="runs/change", rows=after)


@pytest.fixture(scope="module")
def found(pair):
    return compare(pair[0].rows, pair[1].rows)


def test_the_screen_shows_every_case_and_why(found, pair):
    text = comparison.screen(found, *pair, problems=["a file is damaged"], colour=False)
    lines = text.splitlines()
    assert lines[0].startswith("baseline     main.parquet (6 cases, 30 rows)")
    assert any(line.startswith("SLOWER") and SLOW.case_path in line for line in lines)
    assert any(line.startswith("BROKEN") and BROKEN.case_path in line for line in lines)
    assert any(line.startswith("MEMORY") and MEMORY.case_path in line for line in lines)
    assert any(line.startswith("not comparable") and OTHER.case_path in line for line in lines)
    assert any(line.startswith("faster") for line in lines)
    assert any(line.startswith("same") and SAME.case_path in line for line in lines)
    assert "peak memory was 100 MiB and is 140 MiB" in text
    assert "NOTE         a file is damaged" in text
    assert any(line.startswith("sensitivity  these rounds find slow-downs from ") for line in lines)
    ending = " ".join(text.partition("REGRESSION")[2].split())
    assert ending.startswith("6 cases: 1 broken, 1 slower, 1 not comparable, 1 faster, 2 the same,")
    told = r"; 4 of 6 could be judged: a slow-down of [\d.]+% would have shown in each that is not "
    told += "slower, one of "
    assert re.search(told, ending)
    assert "\x1b" not in text
    assert "\x1b" in comparison.screen(found, *pair, colour=True)


def test_regressions_come_first(found):
    listed = comparison.by_alarm(found.cases)
    assert {case.case_id for case in listed[:3]} == {SLOW.case_id, BROKEN.case_id, MEMORY.case_id}
    assert listed[-1].case_id == SAME.case_id


def test_a_narrow_screen_stays_narrow(found, pair):
    lines = comparison.screen(found, *pair, width=130, colour=False).splitlines()
    assert max(map(len, lines)) <= 130


def test_the_document_is_json_and_complete(found, pair):
    document = json.loads(json.dumps(comparison.document(found, *pair, problems=["torn"])))
    assert document["verdict"] == "regression"
    assert document["exit_code"] == 3
    assert document["num_cases"]["slower"] == 1
    assert len(document["cases"]) == len(CASES)
    assert document["problems"] == ["torn"]
    assert document["geomean"]["num_cases"] == 4
    assert 0.0 < document["sensitivity"]["median"] <= document["sensitivity"]["worst"]
    assert document["limits"]["max_slowdown"] == 0.02


def test_junit_has_a_test_for_each_case(found):
    suite = ElementTree.fromstring(comparison_junit.page(found))[0]
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "6", "failures": "3", "errors": "1", "skipped": "0"}
    tests = {test.get("name"): test for test in suite}
    slow = tests[SLOW.case_path.rpartition("/")[2]]
    assert slow.find("failure").get("type") == "slower"
    assert "ratio 1.2" in slow.find("failure").get("message")
    broken = tests[BROKEN.case_path.rpartition("/")[2]].find("failure").get("message")
    assert "worker died  <at> a|b" in broken


def test_a_moved_control_is_an_error_of_its_own(pair):
    before, after = pair
    found = compare(
        before.rows, rows_of(CASES, latency_ms=1.3, seed=3), Limits(control="delta_rule")
    )
    assert found.exit_code == 4
    suite = ElementTree.fromstring(comparison_junit.page(found))[0]
    assert suite[-1].get("name") == "control"
    assert "so the machine did" in suite[-1].find("error").get("message")
    screen = " ".join(comparison.screen(found, before, after, colour=False).split())
    assert "so the machine did" in screen


def test_the_markdown_page_folds_what_is_the_same(found, pair):
    page = comparison_markdown.page(found, *pair)
    assert "\n\nSensitivity: these rounds find slow-downs from " in page
    loud, _, quiet = page.partition("<details>")
    assert page.startswith("## ena-bench: regression\n")
    assert SLOW.case_path in loud
    assert SAME.case_path not in loud
    assert SAME.case_path in quiet
    assert "&lt;at&gt; a\\|b" in loud


def test_the_markdown_page_tells_what_is_wrong_with_the_runs(found, pair, tmp_path):
    page = tmp_path / "page.md"
    told = {"markdown": page, "environment": {}, "problems": ["a file is damaged"]}
    comparison_files.write(found, *pair, **told)
    assert "\n- a file is damaged\n" in page.read_text("utf-8")


def test_a_gate_that_can_find_next_to_nothing_says_so_in_times():
    noisy = [rows_of([SAME], run=run, between=0.9, seed=n) for n, run in enumerate(("a", "b"))]
    text = comparison.sensitivity_text(compare(*noisy))
    assert re.fullmatch(r"these rounds find slow-downs from [\d.]+x the time", text)


def headline(before, after, **limits):
    found = compare(before, after, Limits(**limits))
    return found, comparison.conclusion(found)


def test_the_headline_says_how_many_cases_were_judged_and_how_small_a_slow_down_they_show():
    before, after = (
        pd.concat([rows_of(CASES[:2], run=run, seed=s), rows_of(CASES[2:4], between=0.9, seed=s)])
        for s, run in enumerate(("main", "change"))
    )
    found, text = headline(before, after)
    smallest, largest = sorted(case.detectable for case in found.cases if case.is_judged)
    assert text == (
        "4 cases: 2 ambiguous, 2 the same; 2 of 4 could be judged: a slow-down of "
        f"{100 * largest:.1f}% would have shown in each, one of {100 * smallest:.1f}% in the "
        "steadiest"
    )


def test_what_was_found_despite_its_noise_is_judged_and_says_nothing_of_what_would_have_been():
    before, after = (
        rows_of([SLOW], run=run, between=0.2, latency_ms=ms, seed=s)
        for s, (run, ms) in enumerate((("main", 1.0), ("change", 4.0)))
    )
    assert headline(before, after)[1] == "1 case: 1 slower; it could be judged"


def test_a_single_case_left_is_the_one_beside_the_control_only_if_there_is_one():
    control = case_of(3, contender="attention")
    before, after = (rows_of([SAME, control], run=run, seed=s) for s, run in enumerate("ab"))
    text = "2 the same; the one beside the control could be judged: a slow-down of "
    assert text in headline(before, after, control="attention")[1]
    before, after = (rows_of([SAME, SLOW], run=run, seed=s) for s, run in enumerate("ab"))
    other = replaced(after, after["case_id"] == SLOW.case_id, kernel_fingerprint="ba4")
    crashed = failed(after, after["case_id"] == SLOW.case_id, "crashed", "worker died")
    for changed, verdict in ((other, "not comparable"), (crashed, "broken")):
        text = headline(before, changed)[1]
        assert f"1 {verdict}" in text
        assert "the same; 1 of 2 could be judged: a slow-down of" in text


def relative(between):
    """Two runs of all cases and of an anchor for each, and the comparison of their speed-ups."""
    anchors = [case_of(case.heads, contender="attention") for case in CASES]
    before, after = (
        rows_of([*CASES, *anchors], run=run, between=between, seed=s) for s, run in enumerate("ab")
    )
    runs = Run(name="a", rows=before), Run(name="b", rows=after)
    return compare(before, after, relative_to="attention"), runs


def test_anchors_are_counted_apart_and_never_as_judged():
    found, runs = relative(0.004)
    text = comparison.conclusion(found)
    assert text.startswith("12 cases: 6 the same, 6 anchors; all could be judged: a slow-down of ")
    assert comparison.document(found, *runs)["num_judged"] == 6
    assert comparison.document(found, *runs)["num_cases"] == {"same": 6, "anchor": 6}
    screen = comparison.screen(found, *runs, colour=False)
    (line, *_) = (line for line in screen.splitlines() if line.startswith("anchor "))
    assert re.fullmatch(r"anchor +[01]\.\d+ +[01]\.\d+ +op/attention\S+", line)
    suite = ElementTree.fromstring(comparison_junit.page(found))[0]
    skipped = [test.find("skipped").get("type") for test in suite if len(test.findall("skipped"))]
    assert skipped == ["anchor"] * 6
    assert "| anchor |" in comparison_markdown.page(found, *runs)


def test_a_blind_gate_relative_to_an_anchor_says_that_none_could_be_judged():
    text = comparison.conclusion(relative(0.2)[0])
    assert text.startswith("12 cases: 6 ambiguous, 6 anchors; none could be judged: it takes a ")


def test_a_gate_of_anchors_alone_says_that_nothing_is_relative_to_them():
    before, after = (rows_of(CASES, run=run, seed=s) for s, run in enumerate("ab"))
    text = comparison.conclusion(compare(before, after, relative_to="delta_rule"))
    assert text == "6 cases: 6 anchors; none could be judged: nothing is relative to the anchors"


def test_a_faster_case_among_blind_ones_is_told_and_not_called_judged():
    before = rows_of(CASES, between=0.3, seed=1)
    after = rows_of(CASES, between=0.3, seed=2, latency_ms={**LATENCIES, FAST.case_id: 0.1})
    found = compare(before, after)
    text = comparison.conclusion(found)
    assert text.startswith("6 cases: 5 ambiguous, 1 faster; none could be judged")
    suite = ElementTree.fromstring(comparison_junit.page(found))[0]
    assert suite.get("skipped") == "5"


def test_a_gate_that_could_judge_nothing_says_so_wherever_it_is_read(pair):
    noisy = [rows_of(CASES, run=run, between=0.3, seed=n) for n, run in enumerate(("a", "b"))]
    found, text = headline(*noisy)
    assert re.fullmatch(
        r"6 cases: 6 ambiguous; none could be judged: it takes a slow-down of [\d.]+(%|x the time) "
        r"to show in the steadiest, and one of 20% has to; a quieter machine would help",
        text,
    )
    runs = [Run(name=name, rows=rows) for name, rows in zip("ab", noisy, strict=True)]
    screen = comparison.screen(found, *runs, colour=False)
    assert "UNDECIDED    6 cases: 6 ambiguous; none could be judged" in screen
    document = comparison.document(found, *runs)
    assert (document["verdict"], document["exit_code"]) == ("undecided", 4)
    assert document["num_judged"] == 0
    assert not any(case["is_judged"] for case in document["cases"])
    assert comparison_markdown.page(found, *runs).startswith("## ena-bench: undecided\n\n6 cases")
    (line,) = github.annotations(found, {"GITHUB_ACTIONS": "true"})
    assert line.startswith("::error title=ena-bench%3A undecided::6 cases")
    suite = ElementTree.fromstring(comparison_junit.page(found))[0]
    counts = [suite.get(name) for name in ("tests", "failures", "errors", "skipped")]
    assert counts == ["7", "0", "1", "6"]
    assert "too noisy to tell" in suite[0].find("skipped").get("message")
    assert "none could be judged" in suite[-1].find("error").get("message")


def test_where_more_rounds_would_do_the_headline_says_how_many():
    noisy = [rows_of(CASES, run=run, between=0.1, seed=n) for n, run in enumerate(("a", "b"))]
    _, text = headline(*noisy)
    assert re.search(r"and one of 20% has to; about \d\d rounds of both would do$", text)


def test_one_case_and_no_case_have_headlines_too(pair):
    before, after = (rows_of([SAME], run=run, seed=s) for s, run in enumerate(("main", "change")))
    assert re.fullmatch(
        r"1 case: 1 the same; it could be judged: a slow-down of \d\.\d% would have shown",
        headline(before, after)[1],
    )
    assert headline(pair[0].rows, pair[0].rows.head(0))[1] == "6 cases: 6 broken"


def test_nothing_is_folded_where_nothing_is_the_same(pair):
    before = pair[0].rows
    found = compare(before, before.head(0))
    assert "<details>" not in comparison_markdown.page(found, *pair)
    assert "no case could be compared" in comparison_markdown.page(found, *pair)


def test_github_is_told_only_where_it_listens(found, tmp_path):
    assert github.annotations(found, {}) == []
    lines = github.annotations(found, {"GITHUB_ACTIONS": "true"})
    assert lines[0].startswith("::error title=ena-bench%3A regression::6 cases")
    assert any("50%25" in line for line in lines)
    assert all("\n" not in line for line in lines)
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    github.add_summary("page\n", {"GITHUB_STEP_SUMMARY": str(summary)})
    github.add_summary("page\n", {})
    assert summary.read_text() == "before\npage\n"


def test_a_pass_needs_no_annotation(pair):
    found = compare(pair[0].rows, pair[0].rows)
    assert github.annotations(found, {"GITHUB_ACTIONS": "true"}) == []


def test_annotations_are_no_more_than_github_shows(found):
    many = replace(found, cases=found.cases * 9)
    assert len(github.annotations(many, {"GITHUB_ACTIONS": "true"})) == github.MAX_ANNOTATIONS


def test_files_that_were_asked_for_are_written(found, pair, tmp_path):
    page, suite = tmp_path / "new" / "page.md", tmp_path / "junit.xml"
    lines = comparison_files.write(found, *pair, markdown=page, junit=suite, environment={})
    assert lines == [f"saved    {page}", f"saved    {suite}"]
    assert page.read_text("utf-8") == comparison_markdown.page(found, *pair)
    assert ElementTree.parse(suite)
    assert comparison_files.write(found, *pair, environment={}) == []
    with pytest.raises(StorageError, match="cannot be written"):
        comparison_files.write(found, *pair, markdown=page / "below", environment={})
