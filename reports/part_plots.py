"""Stacked bars: where time goes and what holds memory, over the sequence length."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from bench import units
from reports import frames, layout, parts, selection, theme, words
from reports.parts import Split
from reports.small_multiples import ticks, title

Record = dict[str, Any]

MAX_SERIES = 4
MAX_LENGTHS = 6
"""Lengths with a bar, the largest."""
WANTED_SPARSITY = 0.7
"""Of ENA's sparsities the one nearest to this is shown, the one that its authors recommend."""
_LEAST_WRITTEN = 0.07
"""Share of a bar from which on it has room for its percentage."""


def component_shares(
    frame: pd.DataFrame, styles: Mapping[str, theme.Style] | None = None
) -> Figure:
    """Share of the time of a call that each component takes."""
    return _figure(
        frame,
        of=parts.component_ms,
        order=parts.COMPONENTS,
        total=units.duration,
        name="where the time goes",
        axis="share of the time",
        note="Of one profiled call, in kernels; on a CPU in operators, which the profiler slows. "
        "Its time is written below each bar.",
    )


def memory_split(frame: pd.DataFrame, styles: Mapping[str, theme.Style] | None = None) -> Figure:
    """Share of the peak memory that parameters, inputs and the call itself hold."""
    return _figure(
        frame,
        of=parts.memory_mib,
        order=parts.MEMORY,
        total=units.memory,
        name="what holds the memory",
        axis="share of the peak memory",
        note="At the moment of the peak; activations are all that a call adds, gradients and "
        "temporary buffers included. The peak is written below each bar.",
    )


def chosen(cases: Sequence[Record], of: parts.Parts) -> list[Split]:
    """The splits that are drawn: few series, one number of axes, the largest lengths."""
    latest = selection.latest_runs(cases)[-1:]
    known = [c for c in cases if c["run_label"] in latest and c["is_squarest"]]
    known = [c for c in known if c["seq_len"] and of(c)]
    if not known:
        return []
    ndims = {c["ndim"] for c in known}
    known = [c for c in known if c["ndim"] == (2 if 2 in ndims else min(ndims))]
    names = _chosen_series(known)
    lengths = sorted({c["seq_len"] for c in known if c["series"] in names})[-MAX_LENGTHS:]
    known = [c for c in known if c["series"] in names and c["seq_len"] in lengths]
    return parts.splits(known, of)


def component_alt(cases: Sequence[Record]) -> str:
    """The shares at the largest length of every series."""
    return _alt(cases, parts.component_ms, "Share of the time by component")


def memory_alt(cases: Sequence[Record]) -> str:
    """The shares at the largest length of every series."""
    return _alt(cases, parts.memory_mib, "Share of the peak memory")


def is_worth(of: parts.Parts, cases: Sequence[Record]) -> bool:
    """Whether anything has more than one part."""
    return any(len(split.parts) > 1 for split in chosen(cases, of))


def _chosen_series(known: Sequence[Record]) -> list[str]:
    """A series of each contender and scan, of ENA near the sparsity that is recommended."""
    best: dict[tuple[Any, ...], Record] = {}
    for case in known:
        rank = _rank(case)
        key = (case["contender"], case["scan"])
        if key not in best or rank < _rank(best[key]):
            best[key] = case
    names = frames.unique(case["series"] for case in best.values())
    return names[:MAX_SERIES]


def _rank(case: Record) -> tuple[float, float, float]:
    """The recommended sparsity, then the longest, then the fastest."""
    target = case["sparsity_target"]
    return (
        abs(target - WANTED_SPARSITY) if target is not None else 1.0,
        -case["seq_len"],
        case["latency_ms"] or 0.0,
    )


def _figure(
    frame: pd.DataFrame,
    *,
    of: parts.Parts,
    order: Sequence[str],
    total: Callable[[float], str],
    name: str,
    axis: str,
    note: str,
) -> Figure:
    everything = frames.records(frame)
    cases = selection.shown(everything)
    found = chosen(cases, of)
    modes = frames.unique(s.mode for s in found) or ["fwd"]
    columns = frames.unique(s.series for s in found) or [""]
    present = parts.names(found, order)
    lost = [c for c in cases if c["series"] in columns and c["ndim"] == found[0].ndim]
    heading = words.level_heading(cases) if cases else ""
    dimensions = f", {words.dimensions(found[0].ndim)}" if found else ""
    page = layout.page(
        num_panels=len(columns),
        num_rows=len(modes),
        legend=[[Patch(color=_colour(p), label=theme.literal(p)) for p in present]],
        title=": ".join(filter(None, (heading, name))),
        subtitle=f"{cases[0]['setting']}{dimensions}" if cases else "",
        note=words.notes(note, words.failure_note(lost), selection.note(everything)),
        footer=words.footer(cases),
        between=0.12,
    )
    for mode, row in zip(modes, page.rows, strict=True):
        for column, panel in zip(columns, row, strict=True):
            own = [s for s in found if (s.mode, s.series) == (mode, column)]
            title(panel, _short(column))
            _draw_bars(panel, sorted(own, key=lambda s: s.seq_len), total)
            is_first = panel is row[0]
            shown = ["0%", "50%", "100%"] if is_first else []
            label = f"{words.MODES.get(mode, mode)}\n{axis}" if len(modes) > 1 else axis
            ticks(panel.yaxis, [0.0, 0.5, 1.0], shown, label if is_first else "")
    return page.figure


def _draw_bars(panel: Axes, own: Sequence[Split], total: Callable[[float], str]) -> None:
    panel.grid(visible=False)
    panel.set_ylim(0.0, 1.0)
    panel.set_xlim(-0.6, max(len(own), 1) - 0.4)
    for x, split in enumerate(own):
        below = 0.0
        for name, share in split.shares:
            colour = _colour(name)
            panel.bar(
                x, share, 0.86, bottom=below, color=colour, edgecolor=theme.PAPER, gid=f"bar:{name}"
            )
            if share >= _LEAST_WRITTEN:
                panel.text(
                    x,
                    below + share / 2,
                    f"{100 * share:.0f}",
                    ha="center",
                    va="center",
                    **theme.text_style(theme.SMALL_PT - 0.5, theme.ink_on(colour)),
                )
            below += share
    texts = [f"{units.tokens(s.seq_len)}\n{total(s.total)}" for s in own]
    ticks(panel.xaxis, range(len(own)), texts, "")
    panel.tick_params(axis="x", labelsize=theme.SMALL_PT - 0.5, length=0)


def _alt(cases: Sequence[Record], of: parts.Parts, lead: str) -> str:
    found = chosen(cases, of)
    longest = {(s.mode, s.series): s for s in sorted(found, key=lambda s: s.seq_len)}
    texts = [
        f"{words.MODES.get(s.mode, s.mode)}, {s.series} at {units.tokens(s.seq_len)} tokens: "
        + ", ".join(f"{name} {units.percent(share, 0)}" for name, share in s.shares)
        for s in longest.values()
    ]
    return f"{lead}, {found[0].ndim}-D. {'; '.join(texts)}."


def _colour(part: str) -> str:
    return theme.PARTS.get(part, theme.GREY)


def _short(text: str, most: int = 44) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


worth_components = partial(is_worth, parts.component_ms)
worth_memory = partial(is_worth, parts.memory_mib)
