"""Further charts of the page, as numbers: sparsity, map of speed-ups, scans, parts, roofline.

Every chart has lines of points, whatever its form: `reports/page/forms.js` makes curves, bars,
stacks or cells of them. They show what the figures of the same names show.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench import units
from reports import parts, roofline, scan_overhead, sparsity_plots, theme
from reports.theme import Style

Record = dict[str, Any]
Styles = Mapping[str, Style]
Point = tuple[float, float, float | None, float | None, str]
"""x, y, the ends of the interval of y, and what else there is to say."""

MAX_CURVES = len(theme.PALETTE)
"""Curves of a sweep: the largest lengths, each in a colour of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """`format` is a function of `bench.units`; `scale` is `log`, `linear` or `steps`."""

    title: str
    format: str
    scale: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """Points under one name; a reference is where others are held against."""

    name: str
    style: Style
    points: list[Point]
    is_reference: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """One panel; panels of one `name` are shown together.

    `form` is `curves`, `bars`, `stack` or `cells`.
    """

    name: str
    title: str
    caption: str
    form: str
    panel: str
    ndim: int
    x: Axis
    y: Axis
    lines: list[Line]


LENGTH = Axis(title="sequence length (tokens)", format="tokens", scale="steps")


def charts(cases: Sequence[Record], styles: Styles) -> list[Chart]:
    """Every chart that the cases of one level, mode and setting give."""
    found: list[Chart] = []
    for make in (_sweeps, _maps, _scans, _components, _memory, _rooflines):
        found += make(cases, styles)
    return found


def _sweeps(cases: Sequence[Record], styles: Styles) -> Iterator[Chart]:
    efficiencies = sparsity_plots.swept(cases)
    for ndim, own in _by(efficiencies, lambda e: e.ndim):
        lengths = sorted({e.seq_len for e in own})[-MAX_CURVES:]
        has_families = len({e.family for e in own}) > 1
        lines: list[Line] = []
        for (family, length), curve in _by(own, lambda e: (e.family, e.seq_len)):
            if length not in lengths:
                continue
            place = lengths.index(length)
            name = f"{units.tokens(length)} tokens" + (f", {family}" if has_families else "")
            style = Style(theme.PALETTE[place], theme.MARKERS[place], "-")
            curve.sort(key=lambda e: e.sparsity)
            points: list[Point] = [(0.0, 1.0, 1.0, 1.0, "")]
            points += [(e.sparsity, e.speedup, e.lo, e.hi, _ideal(e)) for e in curve]
            ideal: list[Point] = [(0.0, 1.0, None, None, "")]
            ideal += [(e.sparsity, e.ideal, None, None, "") for e in curve]
            lines.append(Line(name=name, style=style, points=points))
            lines.append(Line(name=f"ideal, {name}", style=style, points=ideal, is_reference=True))
        yield Chart(
            name="sparsity",
            title="gain of sparsity",
            caption="Speed-up over full attention by sparsity; dashed: if time went with work.",
            form="curves",
            panel=f"{ndim}-D canvas",
            ndim=ndim,
            x=Axis(title="sparsity (share not attended)", format="percent", scale="linear"),
            y=Axis(title="speed-up over full attention", format="ratio", scale="log"),
            lines=lines,
        )


def _ideal(found: Any) -> str:
    text = f"ideal {units.ratio(found.ideal)}, of which {units.percent(found.efficiency, 0)}"
    return text + _doubt(found.is_sure)


def _doubt(is_sure: bool | None) -> str:
    return "" if is_sure else ", of too few samples to judge from"


def _maps(cases: Sequence[Record], styles: Styles) -> Iterator[Chart]:
    if not sparsity_plots.is_map_worth(cases):
        return
    mapped = [c for c in sparsity_plots.mapped(cases) if c["speedup"] is not None]
    for ndim, own in _by(mapped, lambda c: c["ndim"]):
        lines = []
        for target, row in sorted(_by(own, lambda c: c["sparsity_target"]), reverse=True):
            points = [_mapped(c) for c in sorted(row, key=lambda c: int(c["seq_len"]))]
            style = Style(theme.GREY, theme.MARKERS[0], "-")
            lines.append(Line(name=units.percent_label(target), style=style, points=points))
        yield Chart(
            name="speedup-map",
            title="map of speed-ups",
            caption="Speed-up over the anchor of the fastest implementation, by length and "
            "sparsity.",
            form="cells",
            panel=f"{ndim}-D canvas",
            ndim=ndim,
            x=LENGTH,
            y=Axis(title="speed-up", format="ratio", scale="log"),
            lines=lines,
        )


def _mapped(case: Record) -> Point:
    return (
        case["seq_len"],
        case["speedup"],
        case["speedup_lo"],
        case["speedup_hi"],
        str(case["series"]) + _doubt(case["is_speedup_sure"]),
    )


def _scans(cases: Sequence[Record], styles: Styles) -> Iterator[Chart]:
    for ndim, own in _by(scan_overhead.overheads(cases), lambda o: o.ndim):
        lines = [
            Line(
                name=name,
                style=styles[name],
                points=[
                    (o.seq_len, o.ratio, o.lo, o.hi, _extra(o.extra_ms) + _doubt(o.is_sure))
                    for o in series
                ],
            )
            for name, series in _by(own, lambda o: o.series)
        ]
        yield Chart(
            name="scans",
            title="cost of scans",
            caption="Time of each order in which the recurrence reads the canvas, over that of "
            "uni.",
            form="bars",
            panel=f"{ndim}-D canvas",
            ndim=ndim,
            x=LENGTH,
            y=Axis(title="time over that of uni", format="ratio", scale="linear"),
            lines=lines,
        )


def _extra(extra_ms: float) -> str:
    return f"{units.duration(abs(extra_ms))} {'more' if extra_ms >= 0 else 'less'}"


def _components(cases: Sequence[Record], styles: Styles) -> Iterator[Chart]:
    yield from _stacks(
        parts.splits(cases, parts.component_ms),
        parts.COMPONENTS,
        name="components",
        title="shares of time",
        caption="What a profiled call spends its time on, in shares.",
        y=Axis(title="time of a call", format="duration", scale="linear"),
    )


def _memory(cases: Sequence[Record], styles: Styles) -> Iterator[Chart]:
    yield from _stacks(
        parts.splits(cases, parts.memory_mib),
        parts.MEMORY,
        name="memory-split",
        title="shares of memory",
        caption="What holds the memory at the peak of a call, in shares.",
        y=Axis(title="peak memory", format="memory", scale="linear"),
    )


def _stacks(
    found: Sequence[parts.Split], order: Sequence[str], *, name: str, **words: Any
) -> Iterator[Chart]:
    """A panel per number of dimensions and series; a line per part."""
    names = parts.names(found, order)
    for (ndim, series), own in _by(found, lambda s: (s.ndim, s.series)):
        sizes = [(s.seq_len, dict(s.parts), s.total) for s in own]
        lines = [
            Line(
                name=part,
                style=Style(theme.PALETTE[index % len(theme.PALETTE)], theme.MARKERS[1], "-"),
                points=[
                    (length, held[part], None, None, units.percent(held[part] / total))
                    for length, held, total in sizes
                    if part in held
                ],
            )
            for index, part in enumerate(names)
        ]
        lines = [line for line in lines if line.points]
        yield Chart(
            name=name, form="stack", panel=series, ndim=ndim, x=LENGTH, lines=lines, **words
        )


def _rooflines(cases: Sequence[Record], styles: Styles) -> Iterator[Chart]:
    roofs = roofline.roofs(cases)
    for ndim, own in _by(roofline.attained(cases), lambda a: a.ndim):
        lines = [
            Line(
                name=name,
                style=styles[name],
                points=[
                    (a.intensity, a.tflops_per_s, None, None, _under_the_roof(a))
                    for a in sorted(series, key=lambda a: a.seq_len)
                ],
            )
            for name, series in _by(own, lambda a: a.series)
        ]
        low, high = (pick(a.intensity for a in own) for pick in (min, max))
        for roof in roofs:
            places = sorted({low / 1.5, min(max(roof.ridge, low / 1.5), high * 1.5), high * 1.5})
            points: list[Point] = [(x, roof.at(x), None, None, "") for x in places]
            name = f"roof of {roof.device_name}"
            style = Style(theme.BLACK, theme.MARKERS[0], "-")
            lines.append(Line(name=name, style=style, points=points, is_reference=True))
        yield Chart(
            name="roofline",
            title="roofline",
            caption="Useful work per second under the peaks that the machine was measured to "
            "reach.",
            form="curves",
            panel=f"{ndim}-D canvas",
            ndim=ndim,
            x=Axis(title="useful FLOPs per byte", format="significant", scale="log"),
            y=Axis(title="useful TFLOP/s", format="significant", scale="log"),
            lines=lines,
        )


def _under_the_roof(found: roofline.Attained) -> str:
    share = units.percent(found.fraction, 0)
    return f"{units.tokens(found.seq_len)} tokens, {share} of the roof, limited by {found.limit}"


def _by(found: Iterable[Any], key: Callable[[Any], Any]) -> list[tuple[Any, list[Any]]]:
    """Groups by a key, in order of appearance."""
    groups: dict[Any, list[Any]] = {}
    for one in found:
        groups.setdefault(key(one), []).append(one)
    return list(groups.items())
