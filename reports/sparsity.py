"""How much of the work that sparsity saves is saved in time.

An operator is compared with full attention by the anchor of its length, and saves what it does not
attend: `sparsity`. A layer or a model is compared with itself at full attention, the recurrence,
scan and order of layers being the same; since it does more than attend, it saves the useful FLOPs
by which the two differ.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reports import frames
from reports.speedup import latency_interval

Record = dict[str, Any]

SPARSE = ("ena", "sliding_tile")
_SAME = ("run_id", "level", "mode", *frames.SETTING, "timer", "ndim", "seq_len", "scan")
_SAME_BLOCK = ("scan_variant", "interleave")


@dataclass(frozen=True, kw_only=True, slots=True)
class Efficiency:
    """One sparse case against its dense counterpart.

    `speedup` is the dense latency over this one, in the widest interval of both; `ideal` is what
    it would be if time went with work. `efficiency` is their ratio, 1 where nothing is lost. It is
    sure if both latencies have samples enough.
    `family` names what is the same over all sparsities: contender, implementation, scan, run.
    """

    level: str
    mode: str
    setting: str
    ndim: int
    seq_len: int
    series: str
    family: str
    dense: str
    sparsity_target: float | None
    sparsity: float
    speedup: float
    lo: float
    hi: float
    ideal: float
    is_sure: bool

    @property
    def efficiency(self) -> float:
        """Share of the ideal speed-up that is reached."""
        return self.speedup / self.ideal


def efficiency_table(frame: pd.DataFrame) -> list[Efficiency]:
    """Every timed sparse case of a tidy frame that has a dense counterpart, in its order."""
    return efficiencies(frames.records(frame))


def efficiencies(cases: Sequence[Record]) -> list[Efficiency]:
    """As `efficiency_table`, of records."""
    dense = _dense_cases(cases)
    shown = (c for c in cases if _is_sparse(c) and frames.is_timed(c) and c["is_squarest"])
    return [found for case in shown for found in _efficiency(case, dense)]


def family(case: Mapping[str, Any]) -> str:
    """The name of a series without its sparsity, which is what varies within the family."""
    parts = [case["contender"], case["impl"], *(case[n] for n in ("scan", *_SAME_BLOCK, "permute"))]
    parts.append(case.get("run_label"))
    return ", ".join(str(p) for p in parts if p not in (None, "uni", "fixed", "linear-first", "io"))


def _is_sparse(case: Mapping[str, Any]) -> bool:
    return case["contender"] in SPARSE and 0 < (case["sparsity"] or 0.0) < 1


def _dense_cases(cases: Sequence[Record]) -> dict[tuple[Any, ...], Record]:
    """The fastest full-attention case of each group of comparable blocks."""
    found: dict[tuple[Any, ...], Record] = {}
    for case in cases:
        is_dense = case["contender"] in SPARSE and not case["sparsity"]
        if case["level"] != "op" and is_dense and frames.is_timed(case):
            best = found.setdefault(_key(case), case)
            if case["latency_ms"] < best["latency_ms"]:
                found[_key(case)] = case
    return found


def _key(case: Mapping[str, Any]) -> tuple[Any, ...]:
    recurrence = str(case["impl"]).rpartition("+")[2]
    return (*(case[n] for n in (*_SAME, *_SAME_BLOCK)), case["contender"], recurrence)


def _efficiency(case: Record, dense: Mapping[tuple[Any, ...], Record]) -> Iterator[Efficiency]:
    shared = ("level", "mode", "setting", "ndim", "seq_len", "series", "sparsity_target")
    common = {n: case[n] for n in (*shared, "sparsity")} | {"family": family(case)}
    if case["level"] == "op":
        if case["speedup"] is not None:
            yield Efficiency(
                **common,
                dense=case["anchor"],
                speedup=case["speedup"],
                lo=case["speedup_lo"],
                hi=case["speedup_hi"],
                ideal=1 / (1 - case["sparsity"]),
                is_sure=case["is_speedup_sure"],
            )
        return
    full = dense.get(_key(case))
    if full is None or not full["flops"] or not case["flops"]:
        return
    low, high = latency_interval(case)
    full_low, full_high = latency_interval(full)
    yield Efficiency(
        **common,
        dense=full["series"],
        speedup=full["latency_ms"] / case["latency_ms"],
        lo=full_low / high,
        hi=full_high / low,
        ideal=full["flops"] / case["flops"],
        is_sure=case["is_sure"] and full["is_sure"],
    )
