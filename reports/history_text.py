"""What a history says, in sentences and tables: for the screen, the page and Markdown."""

from collections.abc import Sequence
from typing import Any

from bench import units
from reports import change_points
from reports.history import CaseHistory, Common, History, Run, Step
from reports.history_chart import change_text

STEP_COLUMNS = (
    "case",
    "change",
    "median",
    "first run after it",
    "commits",
    "what else changed",
)
RUN_COLUMNS = ("run", "device", "started (UTC)", "commit", "torch", "triton", "cases", "name")

METHOD = (
    "A change is marked where the latency differs for at least "
    f"{change_points.LEAST_RUNS} runs on both sides, by at least "
    f"{units.percent_label(change_points.LEAST_CHANGE)}. A run alone far from its neighbours is an "
    "outlier and moves nothing. A shift of the last one or two runs is named apart: it may be an "
    "outlier or a change; ena-bench check tells.",
    "What counts as a change is learnt from the noise of all cases on the page: of pages on which "
    f"nothing changed at most {units.percent_label(change_points.RATE)} have any mark, if noise is "
    "independent or fades from run to run. A machine that settles in a slower mode for several "
    "runs does look changed.",
    "Intervals of a factor are 95%, from how runs differ from each other; bars of a run are the 95%"
    " interval of its median.",
)


def headline(history: History) -> str:
    """`24 runs of 12 cases: 2 cases changed, 1 slower and 1 faster.`"""
    if not history.runs:
        return "No run was given."
    cases = [case for case in history.cases if case.steps]
    text = f"{units.plural(len(history.runs), 'run')} of {units.plural(len(history.cases), 'case')}"
    late = len(history.lates)
    young = f"; {units.plural(late, 'case')} shifted in the last runs" if late else ""
    if not cases:
        return f"{text}: no change{_too_few(history)}{young}."
    steps = [step for case in cases for step in case.steps]
    slower = sum(step.is_slower for step in steps)
    counts = [f"{slower} slower"] * bool(slower)
    counts += [f"{len(steps) - slower} faster"] * bool(len(steps) - slower)
    changed = f"{units.plural(len(cases), 'case')} changed, {units.plural(len(steps), 'time')}"
    return f"{text}: {changed} ({', '.join(counts)}){young}."


def device_lines(history: History) -> list[str]:
    """`NVIDIA H200: 24 runs, 2026-06-01 to 2026-06-24`."""
    groups: dict[str, list[Run]] = {}
    for run in history.runs:
        groups.setdefault(run.device_name, []).append(run)
    return [
        f"{name}: {units.plural(len(runs), 'run')}, {runs[0].started_at[:10]} to "
        f"{runs[-1].started_at[:10]}"
        for name, runs in groups.items()
    ]


def _too_few(history: History) -> str:
    most = max((len(case.timed) for case in history.cases), default=0)
    needed = 2 * change_points.LEAST_RUNS
    return f" can be found in fewer than {needed} runs" if most < needed else ""


def step_sentence(case: CaseHistory, step: Step) -> str:
    """A change with its factor, its place and what else changed there."""
    run = step.first_after
    others = f"; also {', '.join(step.others)}" if step.others else ""
    times = f"{units.duration(step.before_ms)} to {units.duration(step.after_ms)}"
    return (
        f"{case.case_path}: {change_text(step)}, {times}, from run {run.number} on "
        f"({run.started_at[:16].replace('T', ' ')}, {step.commits}{others})"
    )


def late_sentence(case: CaseHistory, step: Step) -> str:
    """A shift of the last runs with its place and what else changed there."""
    number = case.timed[-1].run.number - step.first_after.number + 1
    last = "in the last run" if number == 1 else "in the last runs"
    return f"{step_sentence(case, step)}: {last} only"


def common_sentence(common: Common) -> str:
    """Many cases changed at once: a machine or a library rather than a kernel."""
    ratios = [step.change.ratio for step in common.steps]
    run, number = common.run, units.plural(common.num_cases, "case")
    others = common.steps[0].others
    also = f"; there also changed: {', '.join(others)}" if others else ""
    return (
        f"{len(common.steps)} of {number} on {run.device_name} changed at run {run.number}, by "
        f"{units.ratio(min(ratios))} to {units.ratio(max(ratios))}: look at the machine and the "
        f"libraries before any kernel{also}"
    )


def stopped_sentences(history: History) -> list[str]:
    """Cases that had a latency and have none in their last run."""
    found = []
    for case in history.cases:
        if case.stopped is not None:
            last, first = case.stopped
            reason = f" ({first.reason})" if first.reason else ""
            found.append(
                f"{case.case_path}: {first.status} from run {first.run.number} on{reason}; "
                f"last timed in run {last.run.number}"
            )
    return found


def step_cells(case: CaseHistory, step: Step) -> tuple[str, ...]:
    """A line of the table of changes, as `STEP_COLUMNS`."""
    run = step.first_after
    return (
        case.case_path,
        change_text(step),
        f"{units.duration(step.before_ms)} to {units.duration(step.after_ms)}",
        f"{run.number}, {run.started_at[:16].replace('T', ' ')}",
        step.commits,
        ", ".join(step.others) or "nothing known",
    )


def run_cells(run: Run) -> tuple[str, ...]:
    """A line of the table of runs, as `RUN_COLUMNS`."""
    return (
        str(run.number),
        run.device_name,
        run.started_at[:16].replace("T", " "),
        run.commit,
        str(run.example["torch"] or units.NOT_AVAILABLE),
        str(run.example["triton"] or units.NOT_AVAILABLE),
        f"{run.num_ok} of {run.num_cases} ok",
        run.run_id,
    )


def screen(history: History, problems: Sequence[str], *, saved: str) -> str:
    """What `ena-bench history` prints."""
    lines = [headline(history)]
    lines += [common_sentence(common) for common in history.common]
    lines += [f"  {step_sentence(case, step)}" for case, step in history.steps]
    lines += [f"  {late_sentence(case, step)}" for case, step in history.lates]
    lines += [f"  {sentence}" for sentence in stopped_sentences(history)]
    lines += [f"WARNING  {problem}" for problem in problems]
    return "\n".join([*lines, f"history  {saved}"])


def document(history: History, problems: Sequence[str]) -> dict[str, Any]:
    """The same for programs."""
    return {
        "runs": [
            {
                "run_id": run.run_id,
                "number": run.number,
                "device_name": run.device_name,
                "started_at": run.started_at,
                "commit": run.commit,
            }
            for run in history.runs
        ],
        "changes": [_step_values(case, step) for case, step in history.steps],
        "late_shifts": [_step_values(case, step) for case, step in history.lates],
        "stopped": stopped_sentences(history),
        "problems": list(problems),
    }


def _step_values(case: CaseHistory, step: Step) -> dict[str, Any]:
    return {
        "case_path": case.case_path,
        "device_name": case.device_name,
        "ratio": step.change.ratio,
        "ratio_lo": step.change.lo,
        "ratio_hi": step.change.hi,
        "p_value": step.change.p_value,
        "before_ms": step.before_ms,
        "after_ms": step.after_ms,
        "last_run_before": step.last_before.run_id,
        "first_run_after": step.first_after.run_id,
        "commits": step.commits,
        "also_changed": list(step.others),
    }
