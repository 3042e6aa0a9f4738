"""Rows of made-up runs: cases, rounds and samples with known ratios, for whatever compares runs."""

from dataclasses import asdict

import numpy as np
import pandas as pd

from bench.case import Case
from bench.outcome import identity
from bench.row import Row

MACHINE = {
    "device_name": "NVIDIA H100 80GB HBM3",
    "device_id": "0a1b2c",
    "driver": "570.1",
    "torch": "2.11.0",
    "triton": "3.6.0",
    "cuda": "13.0",
    "python": "3.12.1",
    "git_commit": "a" * 40,
    "git_dirty": False,
    "ena_bench": "0.1.0",
    "libraries": "{}",
}


def case_of(heads=3, **changes):
    """A case that ena-bench can plan; other heads are another case."""
    values = {
        "level": "op",
        "contender": "delta_rule",
        "impl": "eager",
        "mode": "fwd",
        "canvas": (5, 7),
        "heads": heads,
        "head_dim": 11,
        **changes,
    }
    return Case(**values)


def rows_of(
    cases,
    *,
    run="night",
    rounds=5,
    num_samples=31,
    latency_ms=1.0,
    between=0.004,
    within=0.01,
    seed=0,
    **changes,
):
    """A frame of successful rows.

    Args:
        latency_ms: A number, or one for each case_id.
        between, within: Standard deviations of the logarithm between rounds, and inside them.
        changes: Columns that differ from the usual.
    """
    rng = np.random.default_rng(seed)
    found = []
    for case in cases:
        middle_ms = latency_ms[case.case_id] if isinstance(latency_ms, dict) else latency_ms
        for round in range(rounds):
            level_ms = middle_ms * np.exp(rng.normal(0.0, between))
            samples = level_ms * np.exp(rng.normal(0.0, within, num_samples))
            known = identity(case, round=round, run_id=run, seed=0)
            values = {
                **known,
                **MACHINE,
                "status": "ok",
                "timer": "events",
                "samples_ms": samples.tolist(),
                "latency_ms": float(np.median(samples)),
                "wall_samples_ms": (samples + 0.3).tolist(),
                "peak_memory_mib": 100.0,
                "kernels": ["gemm_kernel"],
                "kernel_fingerprint": "f00",
                **changes,
            }
            found.append(asdict(Row(**values)))
    return pd.DataFrame(found)


def replaced(frame, where, **changes):
    """A copy of a frame in which the rows of a mask have other values."""
    changed = frame.copy()
    positions = [changed.index.get_loc(label) for label in changed.index[where]]
    for name, value in changes.items():
        column = changed[name].tolist()
        for position in positions:
            column[position] = value
        changed[name] = pd.Series(column, index=changed.index, dtype=object)
    return changed


def failed(frame, where, status, reason):
    """The rows of a mask as a failure: no times."""
    nothing = dict.fromkeys(("samples_ms", "wall_samples_ms", "latency_ms", "peak_memory_mib"))
    return replaced(frame, where, status=status, reason=reason, **nothing)
