"""How a measurement ends other than well, and the row that says so."""

import errno
from collections.abc import Iterator, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, ClassVar

from bench.case import Case, shape_text
from bench.row import STATUSES, Row
from ena_kernels.errors import UnsupportedError

LATENCY_COLUMNS = frozenset(
    {
        "samples_ms",
        "outliers",
        "latency_ms",
        "latency_ms_lo",
        "latency_ms_hi",
        "latency_ms_p05",
        "latency_ms_p95",
        "wall_ms",
        "wall_ms_lo",
        "wall_ms_hi",
        "wall_samples_ms",
        "component_ms",
        "tokens_per_s",
        "tflops_per_s",
        "bandwidth_gb_per_s",
        "peak_flops_fraction",
        "peak_bandwidth_fraction",
    }
)
"""What only a row with status `ok` may carry: times and whatever is derived from them."""

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory")
_MAX_REASON = 2000


class Outcome(Exception):  # noqa: N818 - not every outcome is an error
    """A measurement ended without a latency, for a reason that belongs in a row.

    Args:
        reason: Why, in words.
        values: Columns that are known all the same. Times among them are left out of the row.
    """

    status: ClassVar[str] = "failed"

    def __init__(self, reason: str, **values: Any) -> None:
        if unknown := values.keys() - {f.name for f in fields(Row)}:
            raise TypeError(f"{sorted(unknown)} are no columns of a row")
        super().__init__(reason)
        self.reason = reason
        self.values = values


class Unsupported(Outcome):
    """The case cannot run here, and says why."""

    status = "unsupported"


class Incorrect(Outcome):
    """The output or a gradient differs from the reference by more than the dtype allows."""

    status = "incorrect"


class Fallback(Outcome):
    """Other code ran than the case claims."""

    status = "fallback"


def identity(case: Case, *, round: int, run_id: str, seed: int | None) -> dict[str, Any]:
    """The columns that are known before anything runs."""
    plain = case.to_dict()
    shapes = {name: shape_text(plain.pop(name)) or None for name in ("canvas", "tile", "window")}
    return {
        **plain,
        **shapes,
        "run_id": run_id,
        "case_id": case.case_id,
        "case_path": case.case_path,
        "round": round,
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "ndim": case.ndim,
        "seq_len": case.seq_len,
        "sparsity": case.sparsity,
        "tiles_attended": case.tiles_attended,
        "seed": seed,
    }


def row_without_latency(values: Mapping[str, Any], *, status: str, reason: str) -> Row:
    """The row of a case that ended with `status`: no times, whatever `values` holds."""
    kept = {name: value for name, value in values.items() if name not in LATENCY_COLUMNS}
    kept |= {"status": status, "reason": reason[:_MAX_REASON]}
    return Row(**kept)


def columns_of(row: Row) -> dict[str, Any]:
    """The row as a dict, its lists shared."""
    return {f.name: getattr(row, f.name) for f in fields(Row)}


def verdict(err: BaseException) -> tuple[str, str, dict[str, Any]]:
    """What an exception means for a case: its status, why in words, and columns known all the same.

    A wrapped cause counts: a compiler that failed because memory ran out is `oom`.
    """
    for link in _causes(err):
        if isinstance(link, Outcome):
            return link.status, link.reason, link.values
        if isinstance(link, UnsupportedError):
            return "unsupported", str(link).split("\n")[0], {}
        if _is_out_of_memory(link):
            return "oom", described(link), {}
        if type(link).__name__ == "FailOnRecompileLimitHit":
            return "fallback", described(link), {}
    return "failed", described(err), {}


def described(err: BaseException) -> str:
    """`Type: message`."""
    text = str(err).strip()
    return f"{type(err).__name__}: {text}" if text else type(err).__name__


def problem_of(row: object, case: Case, *, round: int) -> str | None:
    """What makes a measured row unfit to be stored, None if nothing does."""
    if not isinstance(row, Row):
        return f"measuring returned {type(row).__name__}, not a Row"
    if row.status not in STATUSES:
        return f"measuring returned the unknown status {row.status!r}"
    if (row.case_id, row.round) != (case.case_id, round):
        return f"measuring returned a row of case {row.case_id} round {row.round}"
    latency_ms = row.latency_ms
    if row.status == "ok" and latency_ms is not None and not 0 < latency_ms < float("inf"):
        return f"measuring returned a latency of {latency_ms} ms"
    return None


def _causes(err: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = err
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__


def _is_out_of_memory(err: BaseException) -> bool:
    # torch's own error is told by its name: naming the class would import torch
    if isinstance(err, MemoryError) or type(err).__name__ == "OutOfMemoryError":
        return True
    if isinstance(err, OSError):
        return err.errno == errno.ENOMEM
    text = str(err).lower()
    return isinstance(err, RuntimeError) and any(phrase in text for phrase in _OUT_OF_MEMORY)
