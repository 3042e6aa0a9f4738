"""One case over its runs as a small drawing in SVG, for the page of histories.

Everything that comes from data is escaped; numbers are formatted by `bench.units`. Colours are
classes of the page, so that it can be dark or light. What colour says is said by shape as well.
"""

from collections.abc import Sequence
from html import escape

from bench import units
from reports import run_labels
from reports.history import CaseHistory, Point, Step

WIDTH, HEIGHT = 360, 150
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 22, 20
LEAST_SPAN = 0.10
"""Least height of the axis over the median, so that noise of 1% looks like noise."""
_RADIUS = 2.6
_UP, _DOWN = "\N{BLACK UP-POINTING TRIANGLE}", "\N{BLACK DOWN-POINTING TRIANGLE}"
_LETTER = 6.2
"""Width of a letter above a change."""


def chart(case: CaseHistory, *, num_runs: int) -> str:
    """The drawing as an `svg` element.

    Args:
        num_runs: Of the device: runs without this case leave a gap.
    """
    scale = _Scale(case, num_runs)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(described(case))}">',
        *_axis(scale, case),
        *(_level(scale, points, middle) for points, middle in case.levels),
        *_marks(scale, case.steps),
        *(_drawn(scale, point) for point in case.points),
        "</svg>",
    ]
    return "\n".join(parts)


def described(case: CaseHistory) -> str:
    """The drawing in words: `12 runs, 2.00 ms at first, 2.46 ms at last; slower by 1.23x ...`."""
    timed = case.timed
    first, last = timed[0], timed[-1]
    parts = [
        f"{case.case_path}: {units.plural(len(timed), 'run')}, {units.duration(first.latency_ms)} "
        f"at first, {units.duration(last.latency_ms)} at last"
    ]
    parts += [f"{change_text(s)} from run {s.first_after.number} on" for s in case.steps]
    if case.late:
        parts.append(f"{change_text(case.late)} in the last runs")
    return "; ".join(parts if len(parts) > 1 else [*parts, "no change"])


def change_text(step: Step) -> str:
    """`slower by 1.23x (1.18x to 1.28x)`; a speed-up is counted the other way round."""
    change = step.change
    ends = (change.lo, change.hi) if step.is_slower else (1 / change.hi, 1 / change.lo)
    factor = change.ratio if step.is_slower else 1 / change.ratio
    word = "slower" if step.is_slower else "faster"
    return f"{word} by {units.ratio(factor)} ({units.ratio(ends[0])} to {units.ratio(ends[1])})"


def point_text(point: Point) -> str:
    """`run 7, 2026-02-01 08:00, commit a1b2c3d: 2.00 ms (1.98 ms to 2.02 ms)`."""
    run = point.run
    place = f"run {run.number}, {run.started_at[:16].replace('T', ' ')}, {run.commit}"
    if point.latency_ms is None:
        return f"{place}: {point.status}{f', {point.reason}' if point.reason else ''}"
    interval = f"{units.duration(point.lo_ms)} to {units.duration(point.hi_ms)}"
    alone = "; alone far from its neighbours" if point.is_outlier else ""
    return f"{place}: {units.duration(point.latency_ms)} ({interval}){alone}"


class _Scale:
    """From runs and milliseconds to places in the drawing."""

    def __init__(self, case: CaseHistory, num_runs: int) -> None:
        timed = case.timed
        values = [v for p in timed for v in (p.latency_ms, p.lo_ms, p.hi_ms) if v is not None]
        low, high = min(values), max(values)
        spare = max(LEAST_SPAN * high - (high - low), 0.08 * (high - low)) / 2
        self.low, self.high = max(low - spare, 0.0), high + spare
        self.num_runs = num_runs

    def x(self, number: float) -> float:
        room = WIDTH - LEFT - RIGHT
        return LEFT + room * (number - 0.5) / max(self.num_runs, 1)

    def y(self, value_ms: float) -> float:
        share = (value_ms - self.low) / (self.high - self.low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _axis(scale: _Scale, case: CaseHistory) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    lines = []
    for share in (0.0, 0.5, 1.0):
        value = scale.low + share * (scale.high - scale.low)
        y = scale.y(value)
        lines.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        label = escape(units.duration(value))
        lines.append(
            f'<text class="tick" x="{LEFT - 6}" y="{y + 3:.1f}" text-anchor="end">{label}</text>'
        )
    first, last = case.points[0].run, case.points[-1].run
    for run, anchor in ((first, "start"), (last, "end")):
        x = LEFT if anchor == "start" else right
        # two labels share the width: uncommitted changes are told by the points
        label = escape(f"{run.started_at[:10]} {run.commit.removesuffix(run_labels.DIRTY)}")
        lines.append(
            f'<text class="tick" x="{x}" y="{bottom + 14}" text-anchor="{anchor}">{label}</text>'
        )
    return lines


def _level(scale: _Scale, points: Sequence[Point], middle: float) -> str:
    """The median between two changes."""
    begin = scale.x(points[0].run.number - 0.4)
    end = scale.x(points[-1].run.number + 0.4)
    y = scale.y(middle)
    return f'<line class="level" x1="{begin:.1f}" x2="{end:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'


def _marks(scale: _Scale, steps: Sequence[Step]) -> list[str]:
    """Where it changed: a dashed line, a triangle up for slower or down for faster, the factor.

    Labels of changes that are close together are short, or absent: the line has them as its title.
    """
    places = [scale.x((s.last_before.number + s.first_after.number) / 2) for s in steps]
    parts, taken = [], 0.0
    for step, x, following in zip(steps, places, [*places[1:], WIDTH], strict=False):
        word, sign = ("slower", _UP) if step.is_slower else ("faster", _DOWN)
        factor = units.ratio(step.change.ratio if step.is_slower else 1 / step.change.ratio)
        texts = [f"{sign} {factor} {word}", f"{sign} {factor}"]
        text, taken = _label(x, texts, taken, following)
        parts.append(
            f'<g class="{word}"><title>{escape(change_text(step))}</title>'
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{HEIGHT - BOTTOM}"/>{text}</g>'
        )
    return parts


def _label(x: float, texts: Sequence[str], taken: float, following: float) -> tuple[str, float]:
    """The first text that has room beside `x`, and where it ends; nothing where none has.

    Args:
        taken: Where the label before it ends.
        following: Where the next change is: room for its label is left if there is other room.
    """
    for text in texts:
        width = _LETTER * len(text)
        is_left = x < WIDTH / 2 and x + width < following
        anchors = ("start", "end") if is_left else ("end", "start")
        for anchor in anchors:
            begin = x if anchor == "start" else x - width
            if taken <= begin and begin + width <= WIDTH:
                place = f'x="{x:.1f}" y="{TOP - 10}" text-anchor="{anchor}"'
                return f"<text {place}>{escape(text)}</text>", begin + width + _LETTER
    return "", taken


def _drawn(scale: _Scale, point: Point) -> str:
    x = scale.x(point.run.number)
    title = f"<title>{escape(point_text(point))}</title>"
    if point.latency_ms is None or point.lo_ms is None or point.hi_ms is None:
        y, r = TOP + 2, 3.2
        cross = " ".join(
            f"M{x - r:.1f} {y - side:.1f}L{x + r:.1f} {y + side:.1f}" for side in (r, -r)
        )
        return f'<g class="failed">{title}<path d="{cross}"/></g>'
    low, high = scale.y(point.lo_ms), scale.y(point.hi_ms)
    kind = "point alone" if point.is_outlier else "point"
    return (
        f'<g class="{kind}">{title}<line x1="{x:.1f}" x2="{x:.1f}" y1="{high:.1f}" y2="{low:.1f}"/>'
        f'<circle cx="{x:.1f}" cy="{scale.y(point.latency_ms):.1f}" r="{_RADIUS}"/></g>'
    )
