"""From which length on ENA, or any series, overtakes the FlashAttention Transformer.

The length is interpolated on logarithms between measured lengths. Its interval comes from those of
the medians: the error of a speed-up is that of its two medians in quadrature, and the ends are
where the ends of the speed-up's interval cross 1.
"""

import re
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench import units
from reports import frames, scaling

Record = dict[str, Any]
_IMPL = re.compile(r" \([^)]*\)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Overtaking:
    """Where one series overtakes its anchor, at one level, mode, setting and dimensionality.

    `verdict` is `from` or `until` a length, `always` (already at the shortest, `first_len`) or
    `never` (up to the longest, `last_len`) faster, `unsure` where no case has samples enough.
    `seq_len` is None unless it is `from` or `until`; `lo` and `hi` are None where that end of the
    interval does not cross.
    """

    level: str
    mode: str
    setting: str
    device_name: str | None
    ndim: int | None
    series: str
    contender: str
    sparsity: float | None
    anchor: str
    anchor_is_flash: bool
    verdict: str
    first_len: int
    last_len: int
    seq_len: float | None = None
    lo: float | None = None
    hi: float | None = None
    num_crossings: int = 0


def overtaking_table(frame: pd.DataFrame) -> list[Overtaking]:
    """Every series of a tidy frame that has an anchor and is not itself one, in its order."""
    compared = (
        [c for c in curve if c["speedup"] is not None and c["series"] != c["anchor"]]
        for curve in frames.curves(frame)
    )
    return [_overtaking(cases) for cases in compared if cases]


def text(found: Overtaking) -> str:
    """`ENA 70%: from 20.3k`, without implementation."""
    lead = "from" if found.verdict == "from" else "up to"
    return f"{_IMPL.sub('', found.series)}: {lead} {units.tokens(found.seq_len)}"


def _overtaking(cases: list[Record]) -> Overtaking:
    found = scaling.crossover_of(cases)
    assert found is not None
    cases = [c for c in cases if c["is_speedup_sure"]] or cases
    lengths, ratios = [c["seq_len"] for c in cases], [c["speedup"] for c in cases]
    last = cases[-1]
    shared = ("level", "mode", "setting", "device_name", "ndim", "series", "contender", "anchor")
    return Overtaking(
        **{name: last[name] for name in shared},
        sparsity=last["sparsity_target"],
        anchor_is_flash=all(c["anchor_is_flash"] for c in cases),
        verdict=found.verdict,
        first_len=lengths[0],
        last_len=lengths[-1],
        seq_len=found.seq_len,
        lo=found.lo,
        hi=found.hi,
        num_crossings=len(scaling.crossing_lengths(lengths, ratios)),
    )
