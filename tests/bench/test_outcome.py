"""Exceptions become a status and a reason; no row but an `ok` one carries a time."""

import errno
from dataclasses import fields

import pytest

from bench.case import Case
from bench.outcome import (
    LATENCY_COLUMNS,
    Fallback,
    Incorrect,
    Outcome,
    Unsupported,
    columns_of,
    identity,
    problem_of,
    row_without_latency,
    verdict,
)
from bench.row import STATUSES, Row
from ena_kernels.errors import ShapeError, UnsupportedError

CASE = Case(
    level="op",
    contender="sliding_tile",
    impl="eager",
    mode="fwd",
    canvas=(6, 16),
    tile=(2, 4),
    window=(2, 12),
    heads=3,
)
UNSUPPORTED = UnsupportedError("natten has no float64", expected="half", try_="impl='eager'")
SHAPE = ShapeError("canvas y=6 is odd", expected="even", try_="canvas=(8, 16)")


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (Incorrect("dq differs"), "incorrect", "dq differs"),
        (Fallback("math path"), "fallback", "math path"),
        (Unsupported("needs CUDA"), "unsupported", "needs CUDA"),
        (UNSUPPORTED, "unsupported", "natten has no float64"),
        (SHAPE, "failed", f"ShapeError: {SHAPE}"),
        (MemoryError(), "oom", "MemoryError"),
        (RuntimeError("CUDA out of memory."), "oom", "RuntimeError: CUDA out of memory."),
        (OSError(errno.ENOMEM, "no memory"), "oom", "OSError: [Errno 12] no memory"),
        (OSError(errno.ENOENT, "out of memory"), "failed", "FileNotFoundError: [Errno 2] out of"),
        (ValueError("out of memory"), "failed", "ValueError: out of memory"),
        (RuntimeError("out of resource: shared memory"), "failed", "RuntimeError: out of resource"),
        (KeyError("x"), "failed", "KeyError: 'x'"),
        (SystemExit(2), "failed", "SystemExit: 2"),
    ],
)
def test_an_exception_has_a_status_and_a_reason(error, status, reason):
    found = verdict(error)
    assert found[0] == status
    assert found[1].startswith(reason)
    assert found[0] in STATUSES


def test_a_cause_counts_and_a_mere_context_does_not():
    wrapped = ValueError("compiler")
    wrapped.__cause__ = MemoryError()
    assert verdict(wrapped)[0] == "oom"
    while_handling = ValueError("compiler")
    while_handling.__context__ = MemoryError()
    assert verdict(while_handling)[0] == "failed"


def test_errors_that_cause_each_other_come_to_an_end():
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert verdict(first)[:2] == ("failed", "ValueError: a")


def test_real_out_of_memory_errors_of_torch_are_oom():
    torch = pytest.importorskip("torch")
    assert verdict(torch.OutOfMemoryError("GPU 0"))[0] == "oom"
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**16)
    assert verdict(caught.value)[0] == "oom"


def test_a_real_recompile_limit_is_a_fallback():
    exc = pytest.importorskip("torch._dynamo.exc")
    assert verdict(exc.FailOnRecompileLimitHit("limit"))[0] == "fallback"


def test_an_outcome_keeps_columns_and_refuses_unknown_ones():
    assert verdict(Incorrect("dq", error_gradient=0.5))[2] == {"error_gradient": 0.5}
    with pytest.raises(TypeError, match="error_of_dq"):
        Outcome("dq", error_of_dq=0.5)


def test_no_time_survives_in_a_row_that_is_not_ok():
    everything = dict.fromkeys((f.name for f in fields(Row)), 1.0)
    row = row_without_latency(everything, status="incorrect", reason="x")
    kept = {name for name, value in columns_of(row).items() if value is not None}
    assert {f.name for f in fields(Row)} - kept == LATENCY_COLUMNS


def test_every_column_of_time_or_rate_is_kept_from_failed_rows():
    timed = {"ms", "tokens/s", "TFLOP/s", "GB/s", "J"}
    units = {f.name: f.metadata["unit"] for f in fields(Row)}
    about_the_case = {
        "setup_ms",
        "compile_ms",
        "peak_tflops_per_s",
        "peak_bandwidth_gb_per_s",
    }
    assert {n for n, unit in units.items() if unit in timed} - about_the_case <= LATENCY_COLUMNS


def test_a_reason_of_a_megabyte_is_cut():
    assert len(row_without_latency({}, status="failed", reason="x" * 10**6).reason) == 2000


def test_identity_fills_the_columns_of_the_case():
    known = identity(CASE, round=5, run_id="r", seed=11)
    row = Row(**known)
    assert (row.canvas, row.tile, row.window) == ("6x16", "2x4", "2x12")
    assert (row.ndim, row.seq_len, row.heads, row.round, row.seed) == (2, 96, 3, 5, 11)
    # by hand: 3 rows of tiles see themselves; 3 of 4 tiles are seen along x, clamped at the border
    assert row.tiles_attended == 3 * (4 * 3)
    assert row.sparsity == pytest.approx(1 - 36 / 144)
    assert (row.case_id, row.case_path, row.scan) == (CASE.case_id, CASE.case_path, None)
    assert row.started_at.endswith("+00:00")


def test_a_row_is_fit_only_with_its_own_case_round_status_and_a_real_latency():
    known = identity(CASE, round=5, run_id="r", seed=11)
    fit = {**known, "status": "ok", "latency_ms": 0.5}
    assert problem_of(Row(**fit), CASE, round=5) is None
    assert problem_of(Row(**fit | {"latency_ms": None}), CASE, round=5) is None
    for change in (
        {"round": 4},
        {"case_id": "other"},
        {"status": "good"},
        {"status": None},
        {"latency_ms": 0.0},
        {"latency_ms": -1.0},
        {"latency_ms": float("inf")},
        {"latency_ms": float("nan")},
    ):
        assert problem_of(Row(**fit | change), CASE, round=5) is not None, change
    assert problem_of(None, CASE, round=5) == "measuring returned NoneType, not a Row"
