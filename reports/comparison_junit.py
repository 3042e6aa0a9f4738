"""A comparison as JUnit XML: a test for each case, so that a CI system shows and counts them."""

from xml.etree import ElementTree

from bench import units
from bench.comparison import UNDECIDED, CaseComparison, Comparison
from bench.verdict import FASTER, MORE, NOT_COMPARABLE
from reports.comparison import conclusion, ratio_text, reason_text, verdict_text

_SUITE = "ena-bench check"


def page(found: Comparison) -> str:
    """One suite. Slower, broken and more memory are failures; not comparable is an error, and a
    case that is too noisy to be judged is skipped, as is an anchor.

    Where a control moved, or noise let no case be judged, a test of its own says so as an error.
    """
    suite = ElementTree.Element("testsuite", name=_SUITE)
    for case in found.cases:
        suite.append(_test(case))
    for name, verdict, is_so in (
        ("control", NOT_COMPARABLE, bool(found.moved_controls)),
        ("noise", UNDECIDED, found.verdict == UNDECIDED),
    ):
        if is_so:
            whole = ElementTree.SubElement(suite, "testcase", classname=_SUITE, name=name)
            _add(whole, "error", verdict, conclusion(found))
    tests = list(suite)
    for tag, attribute in (
        ("failure", "failures"),
        ("error", "errors"),
        ("skipped", "skipped"),
    ):
        suite.set(attribute, str(sum(test.find(tag) is not None for test in tests)))
    suite.set("tests", str(len(tests)))
    suites = ElementTree.Element("testsuites")
    suites.append(suite)
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _test(case: CaseComparison) -> ElementTree.Element:
    folder, _, name = case.case_path.rpartition("/")
    test = ElementTree.Element("testcase", classname=folder.replace("/", "."), name=name)
    if case.candidate_ms is not None:
        test.set("time", f"{case.candidate_ms / 1e3:.9f}")
    text = _text(case)
    if case.is_regression:
        word = case.verdict if case.memory_verdict != MORE else f"{case.verdict}, more memory"
        _add(test, "failure", word, text)
    elif case.verdict == NOT_COMPARABLE:
        _add(test, "error", case.verdict, text)
    elif not case.is_judged and case.verdict != FASTER:
        _add(test, "skipped", verdict_text(case), text)
    else:
        ElementTree.SubElement(test, "system-out").text = f"{case.verdict}: {text}"
    return test


def _add(test: ElementTree.Element, tag: str, kind: str, text: str) -> None:
    ElementTree.SubElement(test, tag, type=kind, message=_printable(text))


def _text(case: CaseComparison) -> str:
    parts = [reason_text(case)]
    if case.ratio is not None:
        interval = f"{ratio_text(case.ratio_lo)} to {ratio_text(case.ratio_hi)}"
        parts.insert(
            0,
            f"{units.duration(case.baseline_ms)} to {units.duration(case.candidate_ms)}, ratio "
            f"{ratio_text(case.ratio)} ({interval}), bound {units.percent(case.bound)}",
        )
    return _printable("; ".join(part for part in parts if part))


def _printable(text: str) -> str:
    """Without the control characters that XML cannot hold, such as colours in a worker's log."""
    return "".join(c if c.isprintable() or c in "\n\t" else " " for c in text)
