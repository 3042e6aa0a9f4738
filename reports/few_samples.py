"""Which latencies are of too few samples to judge anything from, and how that is shown.

Below `ENOUGH_SAMPLES` a median has no 95% interval, whatever the range of the samples: such values
are shown with `MARK`, and no crossover, no claim and no finding rests on them.
"""

from collections.abc import Iterable, Mapping
from typing import Any

ENOUGH_SAMPLES = 6
"""Fewer samples have no 95% interval of their median, whatever their range."""
LEAST_MARGIN = 0.05
"""How well a latency of fewer samples is known at best: relative half-width."""
MARK = "*"
NOTE = f"fewer than {ENOUGH_SAMPLES} samples, which have no 95% interval: nothing is judged from it"


def is_sure(case: Mapping[str, Any]) -> bool:
    """Whether a timed case has samples enough; an unknown number is not."""
    return (case["num_samples"] or 0) >= ENOUGH_SAMPLES


def marked(text: str, sure: bool | None) -> str:
    """`1.50x*` where a value is not sure."""
    return f"{text}{MARK}" if sure is False else text


def legend(cases: Iterable[Mapping[str, Any]]) -> str:
    """What the mark means; empty where no case bears one."""
    is_marked = any(False in (c["is_sure"], c["is_speedup_sure"]) for c in cases)
    return f"{MARK} {NOTE}" if is_marked else ""


def page_note() -> str:
    """What the signs of a page mean."""
    return f"{MARK} in tables, hollow in charts: {NOTE}."


def figure_note(sure: Iterable[bool | None], sign: str = "Hollow") -> str:
    """What a sign in a figure means; empty where none is drawn."""
    return f"{sign}: fewer than {ENOUGH_SAMPLES} samples." if False in sure else ""
