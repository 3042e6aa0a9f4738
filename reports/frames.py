"""Rows of runs turned into one tidy frame: a line per case, with its series and its speed-up.

`tidy(rows)` is the frame that every figure, table and sentence is made of.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd

from bench.rounds import centre_ms
from bench.row import STATUSES, Row
from bench.stats import median, median_interval, quantile
from reports import few_samples, run_labels, series, speedup
from reports.few_samples import LEAST_MARGIN

Record = dict[str, Any]

ROW_COLUMNS = tuple(f.name for f in fields(Row))
TIDY_COLUMNS = (
    *ROW_COLUMNS,
    "num_samples",
    "num_rounds",
    "num_rounds_ok",
    "is_sure",
    "spread_fraction",
    "setting",
    "run_name",
    "run_label",
    "series",
    "is_squarest",
    *speedup.COLUMNS,
)
FIGURE = ("device", "dtype", "batch", "heads", "head_dim", "depth")
"""What is held fixed within a figure; machine, sequence length, canvas and series vary."""
SETTING = ("device_name", "device_id", *FIGURE)
"""What is held fixed where latencies are compared."""

_INTEGERS = {f.name for f in fields(Row) if str(f.type).startswith("int")} | {
    "num_samples",
    "num_rounds",
    "num_rounds_ok",
}
_LATENCY = ("latency_ms", "latency_ms_lo", "latency_ms_hi", "latency_ms_p05", "latency_ms_p95")
_RATES = (
    "tokens_per_s",
    "tflops_per_s",
    "bandwidth_gb_per_s",
    "peak_flops_fraction",
    "peak_bandwidth_fraction",
)
_MEMORY = (
    "peak_memory_mib",
    "parameters_mib",
    "inputs_mib",
    "activations_mib",
    "reserved_mib",
    "process_mib",
)
_WORST = ("error_forward", "error_gradient", "error_budget_used", "exposed_fraction")
_RANGES = ("sm_clock_mhz", "power_w", "temperature_c")
RAW_LISTS = (
    "samples_ms",
    "outliers",
    "wall_samples_ms",
    "kernels",
    "readings_s",
    "sm_clock_readings_mhz",
    "power_readings_w",
)
"""Columns that stay behind when rows become cases."""
_PLAIN = frozenset({str, int, bool, type(None)})
_NEVER_SHOWN_AS_OK = ("incorrect", "fallback")


def tidy(rows: pd.DataFrame, run_names: Mapping[str, str] | None = None) -> pd.DataFrame:
    """One line per case with rounds pooled, series named and speed-ups attached.

    Args:
        rows: Columns of `bench.row.Row`; missing columns are unknown, others are ignored.
        run_names: Of `run_names.names_of`, where they are known.

    Returns:
        `TIDY_COLUMNS`, sorted by level, mode, setting, dimensionality, series and length. No case
        is dropped, whatever its status.
    """
    cases = combine_rounds(records(rows))
    for case in cases:
        case["setting"] = setting_text(case)
        case["run_name"] = (run_names or {}).get(case["run_id"])
    run_labels.attach(cases)
    series.name_all(cases)
    _mark_squarest(cases)
    speedup.attach(cases, held_fixed=SETTING)
    cases.sort(key=_order)
    return pd.DataFrame(cases, columns=list(TIDY_COLUMNS))


def records(frame: pd.DataFrame) -> list[Record]:
    """The lines of a frame as plain Python values: None where unknown, whole numbers as int."""
    columns = [*dict.fromkeys([*ROW_COLUMNS, *map(str, frame.columns)])]
    known = {str(name): _plain_column(column) for name, column in frame.items()}
    for name in _INTEGERS & known.keys():
        known[name] = [int(v) if isinstance(v, float) else v for v in known[name]]
    table = [known.get(name) or [None] * len(frame) for name in columns]
    return [dict(zip(columns, line, strict=True)) for line in zip(*table, strict=True)]


def combine_rounds(rows: Sequence[Record]) -> list[Record]:
    """One record per case of a run.

    The latency is the centre of the rounds' medians, as in a comparison: a round counts once,
    however many samples it had time for. Quantiles and the interval are of the samples of all
    successful rounds; the interval is widened to contain the median of every round, because rounds
    differ by more than samples do, and to 5% on either side where fewer than 6 samples cannot say
    it. Memory and errors are the largest of the rounds. A case is `incorrect` or `fallback` if any
    round was; any other failure beside a success becomes a warning; without a success the last
    failure stands.
    """
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for index, row in enumerate(rows):
        is_named = row["case_id"] or row["case_path"]
        groups.setdefault(case_key(row) if is_named else (index,), []).append(row)
    return [_combined(group) for group in groups.values()]


def case_key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What the rounds of a case share: run, device and case."""
    case = row["case_id"] or row["case_path"]
    return (row["run_id"], row["device_id"], row["device_name"], case)


def is_timed(case: Mapping[str, Any]) -> bool:
    """Whether the case has a latency that may be shown."""
    return case["status"] == "ok" and (case["latency_ms"] or 0.0) > 0


def curves(frame: pd.DataFrame) -> list[list[Record]]:
    """The timed cases of each series of a tidy frame, the shortest first; series in its order.

    Of several canvases of one length the squarest counts.
    """
    timed = [c for c in records(frame) if is_timed(c) and c["is_squarest"] and c["seq_len"]]
    groups = grouped(timed, "level", "mode", *SETTING, "ndim", "series")
    return [sorted(group, key=lambda c: int(c["seq_len"])) for group in groups]


def grouped(cases: Iterable[Record], *names: str) -> list[list[Record]]:
    """Cases that agree in the named columns, in order of appearance."""
    found: dict[tuple[Any, ...], list[Record]] = {}
    for case in cases:
        found.setdefault(tuple(case[n] for n in names), []).append(case)
    return list(found.values())


def setting_text(case: Mapping[str, Any]) -> str:
    """What a figure holds fixed, for people: `batch 1, 4 heads of 64, bfloat16, cuda`."""
    heads = f"{case['heads']} heads of {case['head_dim']}"
    depth = f"depth {case['depth']}" if case["level"] != "op" else None
    parts = (f"batch {case['batch']}", heads, depth, case["dtype"], case["device"])
    return ", ".join(str(p) for p in parts if p is not None)


def figure_groups(frame: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """(level, mode, cases) for each level, mode and shape, in the order of the frame."""
    if frame.empty:
        return []
    columns = ["level", "mode", *FIGURE]
    groups = frame.groupby(columns, sort=False, dropna=False)
    return [(str(key[0]), str(key[1]), part) for key, part in groups]


def machines(frame: pd.DataFrame) -> list[Record]:
    """The first record of every machine, in order of appearance."""
    found: dict[tuple[Any, ...], Record] = {}
    for record in records(frame):
        if record["device_name"] is not None:
            found.setdefault((record["device_name"], record["device_id"]), record)
    return list(found.values())


def unique(values: Iterable[Any]) -> list[Any]:
    """Distinct values that are known, in order of appearance."""
    return [v for v in dict.fromkeys(values) if v is not None]


def _combined(rounds: list[Record]) -> Record:
    rounds = sorted(rounds, key=lambda r: r["round"] or 0)
    good = [r for r in rounds if is_timed(r)]
    bad = [r for r in rounds if not is_timed(r)]
    barred = [r for r in bad if r["status"] in _NEVER_SHOWN_AS_OK]
    base = dict((barred or good or bad)[-1 if not good else 0])
    base |= {
        "status": _status(base),
        "num_rounds": len(rounds),
        "num_rounds_ok": len(good),
        "num_samples": sum(len(r["samples_ms"] or ()) for r in good) or None,
        "warnings": [
            *unique(w for r in rounds for w in r["warnings"] or ()),
            *(_failed_rounds(bad) if good else ()),
        ],
        "is_sure": None,
        "spread_fraction": None,
    }
    if barred or not good:
        return base | dict.fromkeys((*_LATENCY, *_RATES, *RAW_LISTS, "component_ms"))
    if len(good) > 1:
        _pool(base, good)
    base["is_sure"] = few_samples.is_sure(base)
    if base["num_samples"] and not base["is_sure"]:
        base["latency_ms_lo"], base["latency_ms_hi"] = widened(base)
    base["spread_fraction"] = _spread(base)
    return base | dict.fromkeys(RAW_LISTS)


def _status(row: Record) -> str:
    """An ok without a latency, or an unknown word, is a failure like any other."""
    if row["status"] in STATUSES and (row["status"] != "ok" or is_timed(row)):
        return str(row["status"])
    row["reason"] = row["reason"] or f"status {row['status']!r} without a latency"
    return "failed"


def _failed_rounds(bad: list[Record]) -> list[str]:
    counts = Counter(f"{r['status']}: {r['reason'] or 'no reason given'}" for r in bad)
    return [f"{n} of its rounds ended {text}" for text, n in counts.items()]


def widened(case: Mapping[str, Any]) -> tuple[float, float]:
    """The interval of a latency of few samples: one has a range of nothing, and is known least."""
    middle, (lo, hi) = case["latency_ms"], speedup.latency_interval(case)
    return min(lo, middle * (1 - LEAST_MARGIN)), max(hi, middle * (1 + LEAST_MARGIN))


def _pool(base: Record, good: list[Record]) -> None:
    samples = [float(s) for r in good for s in r["samples_ms"] or ()]
    medians = [r["latency_ms"] for r in good]
    middle = centre_ms(medians)
    lo, hi = median_interval(samples or medians)
    lows, highs = (_known(good, n) for n in _LATENCY[1:3])
    base |= {
        "latency_ms": middle,
        "latency_ms_lo": min([lo, *medians, *([] if samples else lows)]),
        "latency_ms_hi": max([hi, *medians, *([] if samples else highs)]),
        "latency_ms_p05": quantile(samples, 0.05) if samples else None,
        "latency_ms_p95": quantile(samples, 0.95) if samples else None,
    }
    for name in _RATES:
        work = [r[name] * r["latency_ms"] for r in good if r[name] is not None]
        base[name] = work[0] / middle if work else None
    for name in (*_MEMORY, *_WORST):
        base[name] = max(_known(good, name), default=None)
    if base["error_gradient"] is not None:
        worst = next(r for r in good if r["error_gradient"] == base["error_gradient"])
        base["worst_gradient"] = worst["worst_gradient"]
    for name in _RANGES:
        base[f"{name}_min"] = min(_known(good, f"{name}_min"), default=None)
        base[name] = median(known) if (known := _known(good, name)) else None
        base[f"{name}_max"] = max(_known(good, f"{name}_max"), default=None)
    throttled = _known(good, "throttle_reasons")
    reasons = unique(why for own in throttled for why in own)
    base["throttle_reasons"] = reasons if throttled else None


def _known(rounds: list[Record], name: str) -> list[Any]:
    return [r[name] for r in rounds if r[name] is not None]


def _spread(case: Record) -> float | None:
    """The range from the 5% to the 95% quantile of the samples, over the median."""
    low, high = case["latency_ms_p05"], case["latency_ms_p95"]
    if low is None or high is None or not case["latency_ms"]:
        return None
    return float((high - low) / case["latency_ms"])


def _mark_squarest(cases: list[Record]) -> None:
    """Of several canvases of one length, lines follow the one with the most equal sides."""
    for group in grouped(cases, "level", "mode", *SETTING, "series", "ndim", "seq_len"):
        best = min(group, key=lambda c: (_elongation(c["canvas"]), c["canvas"] or ""))
        for case in group:
            case["is_squarest"] = case is best


def _elongation(canvas: str | None) -> float:
    sides = [int(s) for s in (canvas or "").split("x") if s.isdecimal() and int(s) > 0]
    return max(sides) / min(sides) if sides else float("inf")


def _order(case: Record) -> tuple[Any, ...]:
    levels, modes = ("model", "layer", "op"), ("fwd", "bwd", "fwdbwd", "step")
    return (
        _rank(case["level"], levels),
        _rank(case["mode"], modes),
        *(f"{case[n]:>9}" if isinstance(case[n], int) else str(case[n]) for n in SETTING),
        case["ndim"] or 0,
        series.sort_key(case),
        case["seq_len"] or 0,
        case["canvas"] or "",
    )


def _rank(value: Any, known: Sequence[str]) -> tuple[int, str]:
    return (known.index(value) if value in known else len(known), str(value))


def _plain_column(column: "pd.Series[Any]") -> list[Any]:
    values = column.tolist()
    kind = column.dtype.kind if isinstance(column.dtype, np.dtype) else "O"
    if kind == "f":
        return [v if math.isfinite(v) else None for v in values]
    if kind in "iub":
        return values
    # most values are text or floats beside None: no call for them
    return [
        v if type(v) in _PLAIN or (type(v) is float and math.isfinite(v)) else _plain(v)
        for v in values
    ]


def _plain(value: Any) -> Any:
    """A value without numpy or pandas in it; every kind of missing is None."""
    if isinstance(value, np.ndarray):
        is_known = value.dtype.kind in "biu" or (
            value.dtype.kind == "f" and bool(np.isfinite(value).all())
        )
        value = value.tolist()
        if is_known:
            return value
    if isinstance(value, list | tuple):
        return [v if type(v) is float and math.isfinite(v) else _plain(v) for v in value]
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
