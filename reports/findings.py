"""What the analysis found, in sentences: sparsity, scans, components, roofline and energy.

One sentence for each level, mode and setting, about its longest sequences on a 2-D canvas, or
on the one with the fewest axes where none has two.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from bench import units
from reports import energy, frames, parts, roofline, scan_overhead, series, sparsity, words
from reports.part_plots import WANTED_SPARSITY

Record = dict[str, Any]

LEAST_SHARE = 0.05
"""Components below this share of the time go unnamed."""
MOST_EFFICIENCY = 1.1
"""A gain of sparsity further above its ideal is not what leaving out work explains."""


def sentences(frame: pd.DataFrame) -> list[str]:
    """The findings of a tidy frame; nothing about what was not measured."""
    found = []
    say_setting = not frame.empty and frame.groupby("level")["setting"].nunique().max() > 1
    for level, mode, group in frames.figure_groups(frame):
        everything = frames.records(group)
        setting = everything[0]["setting"] if say_setting else None
        for run in frames.unique(c["run_label"] for c in everything) or [None]:
            text = _sentence([c for c in everything if c["run_label"] == run])
            if text:
                place = (words.heading(level, mode), text[0], run, setting)
                found.append(f"{', '.join(filter(None, place))}: {text[1]}.")
    return found


def _sentence(cases: Sequence[Record]) -> tuple[str, str] | None:
    """Where, and what is to be said."""
    cases = [c for c in cases if c["seq_len"] and c["is_squarest"]]
    ndims = {c["ndim"] for c in cases if frames.is_timed(c)}
    if not ndims:
        return None
    ndim = 2 if 2 in ndims else min(ndims)
    cases = [c for c in cases if c["ndim"] == ndim]
    longest = max(c["seq_len"] for c in cases if frames.is_timed(c))
    at_longest = [c for c in cases if c["seq_len"] == longest and frames.is_timed(c)]
    sure = [c for c in at_longest if c["is_sure"]]
    clauses = [
        *_gain(at_longest),
        *_scans(sure),
        *_components(_shown(at_longest)),
        *_listed("of the measured roofline", _shown(sure), roofline.fraction, units.percent),
        *_listed("a token takes", _shown(sure), energy.microjoules_per_token, _microjoules),
    ]
    return (f"{ndim}-D at {units.tokens(longest)} tokens", "; ".join(clauses)) if clauses else None


def _shown(cases: Sequence[Record]) -> list[Record]:
    """The fastest of each contender; of sparse ones the nearest to the recommended sparsity."""
    best: dict[str, Record] = {}
    for case in sorted(cases, key=lambda c: (_distance(c), c["latency_ms"])):
        best.setdefault(case["contender"], case)
    return sorted(best.values(), key=series.sort_key)


def _distance(case: Record) -> float:
    target = case["sparsity_target"]
    return 0.0 if target is None else abs(target - WANTED_SPARSITY)


def _gain(cases: Sequence[Record]) -> Iterator[str]:
    """What sparsity gains, of the family that is fastest."""
    found = [e for e in sparsity.efficiencies(cases) if e.is_sure]
    if found:
        best = max(found, key=lambda e: e.speedup)
        own = [e for e in found if e.family == best.family]
        texts = [
            f"{units.ratio(e.speedup)} at {units.percent_label(e.sparsity_target or e.sparsity)} "
            f"({units.percent(e.efficiency, 0)} of the ideal{_beyond(e)})"
            for e in own
        ]
        yield f"sparsity gains {_joined(texts)} over {best.dense}"


def _beyond(found: sparsity.Efficiency) -> str:
    is_beyond = found.efficiency > MOST_EFFICIENCY
    return ", more than the work left out explains" if is_beyond else ""


def _scans(cases: Sequence[Record]) -> Iterator[str]:
    """What scans cost, of the contender and implementation that is fastest."""
    found = scan_overhead.overheads(cases)
    if found:
        base = found[0].base
        texts = [f"{o.series} {units.ratio(o.ratio)}" for o in found if o.base == base]
        yield f"beside {base}, {_joined(texts)} of its time"


def _components(cases: Sequence[Record]) -> Iterator[str]:
    """Where the time goes."""
    for split in parts.splits(cases, parts.component_ms):
        large = [(n, s) for n, s in split.shares if s >= LEAST_SHARE]
        if len(split.parts) > 1:
            large.sort(key=lambda part: -part[1])
            texts = [f"{units.percent(share, 0)} {name}" for name, share in large]
            yield f"the time of {split.series} is {_joined(texts)}"


def _listed(lead: str, cases: Sequence[Record], value: Any, text: Any) -> Iterator[str]:
    known = [(c["series"], value(c)) for c in cases if value(c) is not None]
    if known:
        yield f"{lead} {_joined([f'{text(v)} with {name}' for name, v in known])}"


def _microjoules(value: float) -> str:
    return f"{units.significant(value)} uJ"


def _joined(texts: Sequence[str]) -> str:
    """`a, b and c`."""
    *first, last = texts
    return f"{', '.join(first)} and {last}" if first else last
