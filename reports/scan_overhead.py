"""What it costs to read the canvas in another order than `uni`, everything else being the same."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reports import frames
from reports.speedup import latency_interval

Record = dict[str, Any]

BASE = "uni"
_SAME = (
    *("run_id", "level", "mode", *frames.SETTING, "timer", "ndim", "seq_len", "canvas"),
    *("contender", "impl", "sparsity_target", "window", "tile", "interleave", "permute"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Overhead:
    """Time of one scan over that of `uni`, in the widest interval of both: 1 costs nothing.

    It is sure if both latencies have samples enough.
    """

    level: str
    mode: str
    setting: str
    ndim: int
    seq_len: int
    series: str
    base: str
    contender: str
    scan: str
    scan_variant: str | None
    ratio: float
    lo: float
    hi: float
    extra_ms: float
    is_sure: bool

    @property
    def overhead(self) -> float:
        """What it costs beyond `uni`, as a fraction of it; negative where it is faster."""
        return self.ratio - 1


def overhead_table(frame: pd.DataFrame) -> list[Overhead]:
    """Every timed case of a tidy frame with another scan than its timed `uni`, in its order."""
    return overheads(frames.records(frame))


def overheads(cases: Sequence[Record]) -> list[Overhead]:
    """As `overhead_table`, of records."""
    timed = [c for c in cases if frames.is_timed(c) and c["is_squarest"] and c["scan"]]
    bases = {_key(c): c for c in timed if c["scan"] == BASE}
    return [
        _overhead(case, bases[_key(case)])
        for case in timed
        if case["scan"] != BASE and _key(case) in bases
    ]


def _key(case: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(case[n] for n in _SAME)


def _overhead(case: Record, base: Record) -> Overhead:
    shared = ("level", "mode", "setting", "ndim", "seq_len", "series", "contender", "scan")
    middle, base_middle = case["latency_ms"], base["latency_ms"]
    (low, high), (base_low, base_high) = latency_interval(case), latency_interval(base)
    return Overhead(
        **{name: case[name] for name in shared},
        scan_variant=case["scan_variant"],
        base=base["series"],
        ratio=middle / base_middle,
        lo=low / base_high,
        hi=high / base_low,
        extra_ms=middle - base_middle,
        is_sure=case["is_sure"] and base["is_sure"],
    )
