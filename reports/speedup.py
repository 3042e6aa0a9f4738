"""Speed-up and memory of every case against a FlashAttention Transformer.

The anchor of a case is the fastest successful Transformer (level `op`: full attention) of the same
level, mode, setting, timer and canvas whose implementation is a flash kind; without one, the
fastest of any implementation. Full attention costs the same on every canvas of a length, so where
none ran on the canvas itself, one on another canvas of the same length stands in. Of several runs
the case's own comes first: others may have had another torch or another commit.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

Record = dict[str, Any]

FLASH_IMPLS = ("flash_attn", "flash_attn_4", "sdpa_flash", "sdpa_cudnn")
NOT_MIXERS = ("scan",)
"""Contenders that mix no tokens: they have no speed-up over attention."""
COLUMNS = (
    "anchor",
    "anchor_case_id",
    "anchor_is_flash",
    "anchor_canvas",
    "speedup",
    "speedup_lo",
    "speedup_hi",
    "is_speedup_sure",
    "speedup_by_flops",
    "memory_ratio",
)


def anchor_contender(level: str | None) -> str:
    """Which contender is the anchor at a level."""
    return "attention" if level == "op" else "transformer"


def attach(cases: list[Record], *, held_fixed: Sequence[str]) -> None:
    """Set `COLUMNS` on every case; they are None where there is no anchor or no latency."""
    same = ("level", "mode", "timer", *held_fixed, "seq_len")
    by_length: dict[tuple[Any, ...], list[Record]] = {}
    for case in cases:
        if _is_candidate(case):
            by_length.setdefault(tuple(case[n] for n in same), []).append(case)
    for case in cases:
        key = tuple(case[n] for n in same)
        candidates = [] if case["contender"] in NOT_MIXERS else by_length.get(key, [])
        candidates = [c for c in candidates if c["run_id"] == case["run_id"]] or candidates
        on_canvas = [c for c in candidates if c["canvas"] == case["canvas"]]
        case |= _against(case, _best(on_canvas or candidates))


def over_linear(cases: Sequence[Record]) -> dict[tuple[Any, ...], tuple[float, bool]]:
    """Speed-up over the fastest linear model (level `op`: delta rule) of the same run and length.

    Keys are mode, number of axes, series and length; linear models themselves have none. With each
    comes whether both latencies have samples enough.
    """
    same = ("run_id", "device_id", "level", "mode", "timer", "ndim", "seq_len")
    fastest: dict[tuple[Any, ...], Record] = {}
    timed = [c for c in cases if c["status"] == "ok" and c["latency_ms"]]
    for case in timed:
        if case["contender"] == _linear_contender(case["level"]):
            key = tuple(case[n] for n in same)
            if case["latency_ms"] < fastest.setdefault(key, case)["latency_ms"]:
                fastest[key] = case
    found = {}
    for case in timed:
        rival = fastest.get(tuple(case[n] for n in same))
        is_rival = case["contender"] in (_linear_contender(case["level"]), *NOT_MIXERS)
        if rival is not None and not is_rival and case["is_squarest"]:
            place = (case["mode"], case["ndim"], case["series"], case["seq_len"])
            ratio = rival["latency_ms"] / case["latency_ms"]
            found[place] = ratio, bool(case["is_sure"] and rival["is_sure"])
    return found


def _linear_contender(level: str | None) -> str:
    return "delta_rule" if level == "op" else "linear"


def speedup_interval(case: Record) -> tuple[float, float]:
    """95% interval of a speed-up: the relative errors of both medians in quadrature.

    `speedup_lo` and `speedup_hi` are the widest range instead; of that range the case's own share
    is known, and the anchor's is the rest.
    """
    middle = case["speedup"]
    own_up, own_down = _errors(case)
    up = math.log((case["speedup_hi"] or middle) / middle)
    down = math.log(middle / (case["speedup_lo"] or middle))
    rest_up, rest_down = max(up - own_down, 0.0), max(down - own_up, 0.0)
    return (
        middle * math.exp(-math.hypot(rest_down, own_up)),
        middle * math.exp(math.hypot(rest_up, own_down)),
    )


def _is_candidate(case: Mapping[str, Any]) -> bool:
    is_anchor = case["contender"] == anchor_contender(case["level"])
    return is_anchor and case["status"] == "ok" and bool(case["latency_ms"])


def _best(candidates: list[Record]) -> Record | None:
    flash = [c for c in candidates if c["impl"] in FLASH_IMPLS]
    return min(flash or candidates, key=lambda c: c["latency_ms"], default=None)


def _against(case: Record, anchor: Record | None) -> Record:
    """The ratio of two medians, the widest range that their intervals allow, and that of FLOPs."""
    if anchor is None or case["status"] != "ok" or not case["latency_ms"]:
        return dict.fromkeys(COLUMNS)
    lo, hi = latency_interval(case)
    anchor_lo, anchor_hi = latency_interval(anchor)
    is_itself = case is anchor
    used, anchor_used = case["peak_memory_mib"], anchor["peak_memory_mib"]
    work, anchor_work = case["flops"], anchor["flops"]
    return {
        "anchor": anchor["series"],
        "anchor_case_id": anchor["case_id"],
        "anchor_is_flash": anchor["impl"] in FLASH_IMPLS,
        "anchor_canvas": anchor["canvas"],
        "speedup": anchor["latency_ms"] / case["latency_ms"],
        "speedup_lo": 1.0 if is_itself else anchor_lo / hi,
        "speedup_hi": 1.0 if is_itself else anchor_hi / lo,
        "is_speedup_sure": case["is_sure"] and anchor["is_sure"],
        "speedup_by_flops": anchor_work / work if work and anchor_work else None,
        "memory_ratio": used / anchor_used if used and anchor_used else None,
    }


def latency_interval(case: Mapping[str, Any]) -> tuple[float, float]:
    """The interval of the latency of a timed case; an end that is unknown is the latency itself."""
    middle = case["latency_ms"]
    return case["latency_ms_lo"] or middle, case["latency_ms_hi"] or middle


def _errors(case: Record) -> tuple[float, float]:
    """Log distance of the ends of the latency's interval, upper and lower."""
    middle = case["latency_ms"]
    low, high = latency_interval(case)
    return math.log(high / middle), math.log(middle / low)
