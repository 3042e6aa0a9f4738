"""How close a case comes to what its machine was measured to reach.

The roof over an arithmetic intensity (useful FLOPs per byte of least traffic) is the lower of the
measured peak rate of a matrix product and of the measured bandwidth of a copy times the intensity.
Both peaks are measured once in a run and stored in every row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reports import frames

Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Roof:
    """The measured peaks of one run on one device."""

    run_id: str | None
    device_name: str | None
    tflops_per_s: float
    bandwidth_gb_per_s: float

    @property
    def ridge(self) -> float:
        """FLOPs per byte from which on the matrix product is the limit."""
        return self.tflops_per_s / self.bandwidth_gb_per_s * 1e3

    def at(self, intensity: float) -> float:
        """TFLOP/s that can be reached at so many FLOPs per byte."""
        return min(self.tflops_per_s, self.bandwidth_gb_per_s * intensity / 1e3)


@dataclass(frozen=True, kw_only=True, slots=True)
class Attained:
    """One case under its roof; `limit` is `compute` or `memory`."""

    level: str
    mode: str
    setting: str
    ndim: int
    seq_len: int
    series: str
    intensity: float
    tflops_per_s: float
    roof_tflops_per_s: float
    limit: str

    @property
    def fraction(self) -> float:
        """Share of the roof that is reached; above 1 where data stays in a cache."""
        return self.tflops_per_s / self.roof_tflops_per_s


def roofs(cases: Sequence[Record]) -> list[Roof]:
    """The distinct roofs of cases, in order of appearance."""
    return frames.unique(roof(case) for case in cases)


def roof(case: Mapping[str, Any]) -> Roof | None:
    """The roof of a case, None where no peaks were measured."""
    flops, bandwidth = case["peak_tflops_per_s"], case["peak_bandwidth_gb_per_s"]
    if not flops or not bandwidth:
        return None
    return Roof(
        run_id=case["run_id"],
        device_name=case["device_name"],
        tflops_per_s=flops,
        bandwidth_gb_per_s=bandwidth,
    )


def attained_table(frame: pd.DataFrame) -> list[Attained]:
    """Every timed case of a tidy frame whose work and peaks are known, in its order."""
    return attained(frames.records(frame))


def attained(cases: Sequence[Record]) -> list[Attained]:
    """As `attained_table`, of records."""
    found = ((case, roof(case)) for case in cases if intensity(case) and case["is_squarest"])
    return [_attained(case, over) for case, over in found if over is not None]


def intensity(case: Mapping[str, Any]) -> float | None:
    """Useful FLOPs per byte of least traffic; None where work is unknown or nothing was timed."""
    if not frames.is_timed(case) or not case["flops"] or not case["bytes"]:
        return None
    return float(case["flops"] / case["bytes"])


def fraction(case: Mapping[str, Any]) -> float | None:
    """Share of the measured roof that a case reaches; None where unknown or above 1."""
    flops_per_byte, over = intensity(case), roof(case)
    if flops_per_byte is None or over is None:
        return None
    share = float(case["flops"]) / case["latency_ms"] / 1e9 / over.at(flops_per_byte)
    return share if share <= 1 else None


def _attained(case: Record, over: Roof) -> Attained:
    shared = ("level", "mode", "setting", "ndim", "seq_len", "series")
    flops_per_byte = intensity(case)
    assert flops_per_byte is not None
    return Attained(
        **{name: case[name] for name in shared},
        intensity=flops_per_byte,
        tflops_per_s=case["flops"] / case["latency_ms"] / 1e9,
        roof_tflops_per_s=over.at(flops_per_byte),
        limit="compute" if flops_per_byte >= over.ridge else "memory",
    )
