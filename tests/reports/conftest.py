"""Synthetic rows with known answers."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pandas as pd
import pytest

from bench.row import Row

CANVASES = {
    1: {256: "256", 512: "512", 1024: "1024", 2048: "2048", 4096: "4096"},
    2: {
        512: "16x32",
        1024: "32x32",
        2048: "32x64",
        4096: "64x64",
        8192: "64x128",
        16384: "128x128",
        32768: "128x256",
        65536: "256x256",
    },
    3: {1024: "8x8x16", 2048: "8x16x16", 4096: "16x16x16", 8192: "16x16x32", 16384: "16x32x32"},
}


_OTHER_FIELDS = (
    "batch",
    "heads",
    "head_dim",
    "depth",
    "tile",
    "window",
    "sparsity_target",
    "scan",
    "scan_variant",
    "interleave",
    "permute",
    "dtype",
    "device",
)


def _row(**changes: Any) -> dict[str, Any]:
    """A successful row: latency 2 ms +- 1%, 4096 tokens on a plane, every shown column filled."""
    values: dict[str, Any] = {
        "run_id": "2026-01-31T10-22-07Z",
        "round": 0,
        "started_at": "2026-01-31T10:22:07+00:00",
        "level": "layer",
        "contender": "transformer",
        "impl": "sdpa_cudnn",
        "mode": "fwd",
        "canvas": "64x64",
        "batch": 1,
        "heads": 12,
        "head_dim": 64,
        "depth": 2,
        "dtype": "bfloat16",
        "device": "cuda",
        "status": "ok",
        "timer": "events",
        "latency_ms": 2.0,
        "stop_reason": "converged",
        "peak_memory_mib": 300.0,
        "tflops_per_s": 312.4,
        "verified": "twin+full",
        "error_budget_used": 0.25,
        "warnings": [],
        "device_name": "NVIDIA H100 80GB HBM3",
        "device_id": "ab12",
        "driver": "570.1",
        "cuda": "13.0",
        "torch": "2.11.0",
        "triton": "3.6.0",
        "git_commit": "a1b2c3d4e5f6",
        "git_dirty": False,
    } | changes
    sides = [int(s) for s in values["canvas"].split("x")]
    values.setdefault("ndim", len(sides))
    values.setdefault("seq_len", pd.Series(sides).prod().item())
    if values["contender"] in ("ena", "linear", "delta_rule", "scan"):
        values.setdefault("scan", "uni")
        values.setdefault("scan_variant", "fixed")
    fields = ("level", "contender", "impl", "mode", "canvas", *_OTHER_FIELDS)
    known = [str(values[n]) for n in fields if values.get(n) is not None]
    values.setdefault("case_path", "/".join(known[:4]) + "/" + "-".join(known[4:]))
    values.setdefault("case_id", f"id:{values['case_path']}")
    return asdict(Row(**_measured(values)))


def _measured(values: dict[str, Any]) -> dict[str, Any]:
    latency_ms = values["latency_ms"]
    if values["status"] != "ok":
        unknown = ("latency_ms", "peak_memory_mib", "tflops_per_s", "verified", "error_budget_used")
        return values | dict.fromkeys(unknown)
    if latency_ms is None:
        return values
    derived = {
        "samples_ms": [latency_ms * f for f in (0.99, 1.0, 1.01, 1.0, 0.995, 1.0)],
        "latency_ms_lo": latency_ms * 0.99,
        "latency_ms_hi": latency_ms * 1.01,
        "latency_ms_p05": latency_ms * 0.98,
        "latency_ms_p95": latency_ms * 1.04,
        "tokens_per_s": values["batch"] * values["seq_len"] / latency_ms * 1e3,
    }
    return derived | values


def _study(**shared: Any) -> list[dict[str, Any]]:
    """A Transformer of exponent 2, an ENA of exponent 1 that overtakes it at 4096 tokens.

    2-D, 1k to 16k tokens. ENA uses half the memory; the linear model runs out of memory at 16k;
    natten is not installed.
    """
    rows = []
    for seq_len in (1024, 2048, 4096, 8192, 16384):
        base = {"canvas": CANVASES[2][seq_len], **shared}
        quadratic_ms, linear_ms = 2.0 * (seq_len / 4096) ** 2, 2.0 * seq_len / 4096
        ena = {"contender": "ena", "sparsity_target": 0.7, "tile": "8x16", "interleave": None}
        linear = {"contender": "linear", "impl": "fla", "scan": "cross"}
        rows += [
            _row(**base, latency_ms=quadratic_ms, peak_memory_mib=seq_len / 8),
            _row(
                **base, **ena, impl="flex+fla", latency_ms=linear_ms, peak_memory_mib=seq_len / 16
            ),
            _row(
                **base,
                **linear,
                **(
                    {"status": "oom", "reason": "CUDA out of memory: 12 GiB wanted"}
                    if seq_len == 16384
                    else {"latency_ms": 1.5 * linear_ms, "peak_memory_mib": seq_len / 10}
                ),
            ),
            _row(
                **base,
                **ena,
                impl="natten+fla",
                status="unsupported",
                reason="natten is not installed",
            ),
        ]
    return rows


@pytest.fixture(scope="session")
def row() -> Callable[..., dict[str, Any]]:
    """Builds one row; keyword arguments override columns."""
    return _row


@pytest.fixture(scope="session")
def study() -> Callable[..., pd.DataFrame]:
    """Builds the frame of `_study`; keyword arguments override columns."""
    return lambda **shared: pd.DataFrame(_study(**shared))


@pytest.fixture(scope="session")
def canvases() -> dict[int, dict[int, str]]:
    """Most square canvases by number of axes and length."""
    return CANVASES
