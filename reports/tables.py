"""Tables as text cells with units in their headers; pages and Markdown only lay them out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench import units
from reports import energy, few_samples, frames, roofline, scan_overhead, sparsity, speedup, words
from reports.exponents import Growth
from reports.scaling import Crossover, Scaling
from reports.scan_overhead import Overhead
from reports.sparsity import Efficiency

Record = dict[str, Any]
Place = tuple[str, int, str, int]
Format = Callable[[float | None], str]
Known = tuple[float | None, bool | None]
"""A number, and whether the latencies behind it have samples enough."""
_UNKNOWN: Known = (None, None)

MAX_DEVIATION = 0.05
"""Relative distance of a point from its power law that goes without saying."""


@dataclass(frozen=True, slots=True)
class Column:
    """A header with its unit; numbers are aligned to the right."""

    name: str
    unit: str = ""
    is_number: bool = True

    @property
    def heading(self) -> str:
        """`latency (ms)`."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


@dataclass(frozen=True, slots=True)
class Table:
    """Cells of text, one list per line, as long as `columns`; `marks` is a status per line."""

    columns: tuple[Column, ...]
    lines: list[list[str]]
    marks: list[str]


def rows_table(rows: pd.DataFrame, tidy: pd.DataFrame) -> Table:
    """Every row as it was measured, in the order of the tidy frame; nothing is left out."""
    cases = {frames.case_key(c): (i, c) for i, c in enumerate(frames.records(tidy))}
    found = []
    shown = rows.drop(columns=list(frames.RAW_LISTS), errors="ignore")
    for index, row in enumerate(frames.records(shown)):
        place, case = cases.get(frames.case_key(row), (len(cases), None))
        found.append((place, row["round"] or 0, index, row, case or {}))
    found.sort(key=lambda f: f[:3])
    return Table(
        columns=tuple(column for column, _ in _ROW_COLUMNS),
        lines=[[text(row, case) for _, text in _ROW_COLUMNS] for _, _, _, row, case in found],
        marks=[str(row["status"]) for _, _, _, row, _ in found],
    )


def speedup_table(cases: Sequence[Record]) -> Table:
    """Series by sequence length: the speed-up, or why there is none."""
    return _by_length(cases, _speedup_cell, "speed-up over the anchor")


def latency_table(cases: Sequence[Record]) -> Table:
    """Series by sequence length: latency, or why there is none."""
    return _by_length(cases, _latency_cell, "latency")


def analysis_tables(cases: Sequence[Record]) -> list[Table]:
    """Series by sequence length: against linear models, sparsity, scans, roofline, energy.

    Only what is known of any series, and of each only the series of which it is known.
    """
    gained = {_place(e): (e.efficiency, e.is_sure) for e in sparsity.efficiencies(cases)}
    faster = speedup.over_linear(cases)
    cost = {_place(o): (o.ratio, o.is_sure) for o in scan_overhead.overheads(cases)}
    quantities: tuple[tuple[str, Callable[[Record], Known], Format], ...] = (
        ("speed-up if time went with FLOPs", _by_flops, units.ratio),
        ("speed-up over the fastest linear", _looked_up(faster), units.ratio),
        ("efficiency of sparsity", _looked_up(gained), units.percent),
        ("time over the scan uni", _looked_up(cost), units.ratio),
        ("fraction of the roofline", _by_time(roofline.fraction), units.percent),
        ("energy per token (uJ)", _by_time(energy.microjoules_per_token), units.significant),
    )
    found = []
    for name, value, text in quantities:
        known = {c["series"] for c in cases if value(c)[0] is not None}
        if known:
            own = [c for c in cases if c["series"] in known]
            found.append(_by_length(own, _cell(value, text), name))
    return found


def _by_flops(case: Record) -> Known:
    return None if case["series"] == case["anchor"] else case["speedup_by_flops"], True


def _looked_up(found: Mapping[Place, tuple[float, bool]]) -> Callable[[Record], Known]:
    return lambda case: found.get(_place_of(case), _UNKNOWN)


def _by_time(value: Callable[[Record], float | None]) -> Callable[[Record], Known]:
    return lambda case: (value(case), case["is_sure"])


def _cell(value: Callable[[Record], Known], text: Format) -> Callable[[Record], str]:
    def cell(case: Record) -> str:
        number, sure = value(case)
        return few_samples.marked(text(number), sure or number is None)

    return cell


def _place(found: Efficiency | Overhead) -> Place:
    return found.mode, found.ndim, found.series, found.seq_len


def _place_of(case: Mapping[str, Any]) -> Place:
    return case["mode"], case["ndim"], case["series"], case["seq_len"]


def scaling_table(lines: Sequence[Scaling]) -> Table:
    """Exponent, crossover, and where each series ends up at its largest length."""
    columns = (
        Column("series", is_number=False),
        Column("canvas", is_number=False),
        Column("exponent of time", "95% interval"),
        Column("exponent of memory", "95% interval"),
        Column("overtakes the anchor", "tokens", is_number=False),
        Column("anchor", is_number=False),
        Column("speed-up", "largest common length"),
        Column("peak memory", "of the anchor's"),
        Column("latency", "largest length"),
        Column("peak memory", "largest length"),
    )
    cells = [
        [
            line.series,
            words.dimensions(line.ndim or 0),
            _growth_cell(line.time),
            _growth_cell(line.memory),
            "is the anchor" if line.is_anchor else crossover_text(line.crossover),
            line.anchor or units.NOT_AVAILABLE,
            _top_cell(line),
            units.ratio(line.memory_ratio),
            few_samples.marked(units.duration(line.top_latency_ms), line.is_top_sure)
            + f" at {units.tokens(line.top_seq_len)}",
            units.memory(line.top_memory_mib),
        ]
        for line in lines
    ]
    return Table(columns, cells, ["ok"] * len(cells))


def crossover_text(cross: Crossover | None) -> str:
    """`from 4k (3.9k to 4.1k)`, and where there were too few samples to judge."""
    if cross is None:
        return units.NOT_AVAILABLE
    if cross.verdict == "unsure":
        return "too few samples"
    unsure = ", ".join(map(units.tokens, cross.unsure_lengths))
    return _crossing(cross) + (f"; too few samples at {unsure}" if unsure else "")


def _crossing(cross: Crossover) -> str:
    if cross.seq_len is None:
        return {"always": "at every length", "never": "nowhere"}[cross.verdict]
    ends = [units.tokens(n) if n is not None else "?" for n in (cross.lo, cross.hi)]
    lead = "from" if cross.verdict == "from" else "only up to"
    return f"{lead} {units.tokens(cross.seq_len)} ({ends[0]} to {ends[1]})"


def _by_length(cases: Sequence[Record], cell: Callable[[Record], str], name: str) -> Table:
    shown = [c for c in cases if c["seq_len"] and c["is_squarest"]]
    lengths = sorted({c["seq_len"] for c in shown})
    columns = (Column(name, is_number=False), *(Column(units.tokens(n)) for n in lengths))
    lines = []
    for ndim in sorted({c["ndim"] or 0 for c in shown}):
        for series in frames.unique(c["series"] for c in shown if (c["ndim"] or 0) == ndim):
            own = {
                c["seq_len"]: c for c in shown if c["series"] == series and (c["ndim"] or 0) == ndim
            }
            texts = [result_cell(own[n], cell) if n in own else "" for n in lengths]
            lines.append([f"{ndim}-D {series}", *texts])
    return Table(columns, lines, ["ok"] * len(lines))


def result_cell(case: Record, cell: Callable[[Record], str]) -> str:
    """The text of a measured case, the status of any other."""
    if frames.is_timed(case):
        return cell(case)
    return words.STATUS_WORDS.get(str(case["status"]), str(case["status"]))


def _speedup_cell(case: Record) -> str:
    return few_samples.marked(units.ratio(case["speedup"]), case["is_speedup_sure"])


def _latency_cell(case: Record) -> str:
    return few_samples.marked(units.duration(case["latency_ms"]), case["is_sure"])


def _growth_cell(fit: Growth | None) -> str:
    """`1.98 (1.97 to 1.99) from 4k`: from where no fixed overhead dominates. A curve that is no
    power law says how far off a point is: its interval knows the noise only."""
    if fit is None:
        return units.NOT_AVAILABLE
    low, high = f"{fit.lo:.2f}", f"{fit.hi:.2f}"
    ends = f" ({low} to {high})" if low != high else ""
    bends = f", off by {units.percent(fit.deviation, 0)}" if fit.deviation > MAX_DEVIATION else ""
    return f"{fit.exponent:.2f}{ends} from {units.tokens(fit.lengths[0])}{bends}"


def _top_cell(line: Scaling) -> str:
    if line.speedup is None:
        return units.NOT_AVAILABLE
    ends = f"{units.ratio(line.speedup_lo)} to {units.ratio(line.speedup_hi)}"
    value = few_samples.marked(units.ratio(line.speedup), line.is_speedup_sure)
    return f"{value} ({ends}) at {units.tokens(line.pair_seq_len)}"


def _text(name: str) -> Callable[[Record, Record], str]:
    return lambda row, case: str(row[name]) if row[name] is not None else ""


def _number(
    name: str, formatter: Callable[[float | None], str], scale: float = 1.0
) -> Callable[[Record, Record], str]:
    def cell(row: Record, case: Record) -> str:
        return "" if row[name] is None else formatter(row[name] * scale)

    return cell


def _interval_cell(row: Record, case: Record) -> str:
    low, high = row["latency_ms_lo"], row["latency_ms_hi"]
    if low is None or high is None:
        return ""
    return f"{units.significant(low)} to {units.significant(high)}"


def _why(row: Record, case: Record) -> str:
    return "; ".join([str(r) for r in (row["reason"],) if r] + list(row["warnings"] or ()))


def _of_case(name: str) -> Callable[[Mapping[str, Any], Mapping[str, Any]], str]:
    return lambda row, case: str(case.get(name) or "")


def _case_speedup(row: Record, case: Record) -> str:
    return _speedup_cell(case) if case.get("speedup") and frames.is_timed(row) else ""


_ROW_COLUMNS: tuple[tuple[Column, Callable[[Record, Record], str]], ...] = (
    (Column("level", is_number=False), _text("level")),
    (Column("mode", is_number=False), _text("mode")),
    (Column("series", is_number=False), _of_case("series")),
    (Column("canvas", "tokens", is_number=False), _text("canvas")),
    (Column("length", "tokens"), _number("seq_len", units.tokens)),
    (Column("B"), _text("batch")),
    (Column("H"), _text("heads")),
    (Column("D"), _text("head_dim")),
    (Column("depth"), _text("depth")),
    (Column("dtype", is_number=False), _text("dtype")),
    (Column("device", is_number=False), _text("device")),
    (Column("round"), _text("round")),
    (Column("status", is_number=False), _text("status")),
    (Column("latency", "ms"), _number("latency_ms", units.significant)),
    (Column("95% interval", "ms"), _interval_cell),
    (Column("throughput", "tokens/s"), _number("tokens_per_s", units.rate)),
    (Column("compute", "TFLOP/s"), _number("tflops_per_s", units.significant)),
    (Column("peak memory", "MiB"), _number("peak_memory_mib", units.significant)),
    (Column("speed-up", "case over anchor"), _case_speedup),
    (Column("error budget used", "%"), _number("error_budget_used", units.significant, 100.0)),
    (Column("reason and warnings", is_number=False), _why),
)
