"""Our rows as a file of pytest-benchmark, so that its `compare`, `--benchmark-compare` and plots
read them: `ena-bench export RUN --to pytest-benchmark -o FILE.json`.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench import stats
from bench.disk import write_whole
from bench.errors import UsageError
from bench.results import load

FORMAT = "5.0.0"
"""Version of pytest-benchmark whose layout is written."""
EXTRA = (
    *("case_id", "timer", "calls_per_sample", "latency_ms", "latency_ms_lo", "latency_ms_hi"),
    *("wall_ms", "tokens_per_s", "tflops_per_s", "peak_memory_mib", "sparsity"),
    *("kernel_fingerprint", "error_forward", "error_gradient", "run_id"),
)
PARAMETERS = (
    *("level", "contender", "impl", "mode", "scan", "canvas", "tile", "window", "batch", "heads"),
    *("head_dim", "depth", "dtype", "device"),
)
MACHINE = ("device_name", "device_id", "driver", "cuda", "torch", "triton", "ena_bench")


def export(paths: Path | Sequence[Path], out: Path) -> list[str]:
    """Write the successful rows of runs as one file of pytest-benchmark; return what was skipped.

    Rounds of a case become one benchmark with the samples of all of them, in order.

    Raises:
        StorageError: something that was named cannot be read, or `out` cannot be written.
        UsageError: no row has a latency, or rows are of several machines.
    """
    rows, problems = load(paths)
    write_whole(out, json.dumps(document(rows), indent=1).encode() + b"\n")
    return problems


def document(rows: pd.DataFrame) -> dict[str, Any]:
    """The file of pytest-benchmark for a frame of rows; times in it are seconds.

    Raises:
        UsageError: no row has a latency, or rows are of several machines.
    """
    measured = rows[(rows["status"] == "ok") & rows["latency_ms"].notna()]
    if measured.empty:
        raise UsageError(
            "no row has a latency",
            expected="at least one case with status ok",
            try_="ena-bench report RUN, which says what went wrong",
        )
    ordered = measured.sort_values(["started_at", "round"], kind="stable")
    cases = [_records(group) for _, group in ordered.groupby("case_id", sort=False)]
    return {
        "machine_info": _machine_info([record for case in cases for record in case]),
        "commit_info": _commit_info(cases[0][0]),
        "benchmarks": [_benchmark(case) for case in cases],
        "datetime": cases[0][0]["started_at"],
        "version": FORMAT,
    }


def _benchmark(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first = rounds[0]
    seconds = [1e-3 * float(ms) for row in rounds for ms in row["samples_ms"]]
    return {
        "group": f"{first['level']}/{first['mode']}",
        "name": first["case_path"],
        "fullname": f"ena-bench::{first['case_path']}",
        "params": {name: first[name] for name in PARAMETERS if first[name] is not None},
        "param": first["case_path"],
        "extra_info": {name: first[name] for name in EXTRA if first[name] is not None},
        "options": {"timer": f"ena-bench {first['timer']}"},
        "stats": {**_statistics(seconds), "iterations": first["calls_per_sample"] or 1},
    }


def _statistics(seconds: list[float]) -> dict[str, Any]:
    """What pytest-benchmark keeps of a benchmark, by its definitions."""
    mean = statistics.fmean(seconds)
    deviation = statistics.stdev(seconds) if len(seconds) > 1 else 0.0
    q1, q3 = (stats.quantile(seconds, q) for q in (0.25, 0.75))
    low, high = q1 - 1.5 * (q3 - q1), q3 + 1.5 * (q3 - q1)
    num_far = sum(abs(x - mean) > deviation for x in seconds)
    num_outside = sum(not low <= x <= high for x in seconds)
    return {
        "min": min(seconds),
        "max": max(seconds),
        "mean": mean,
        "stddev": deviation,
        "rounds": len(seconds),
        "median": stats.median(seconds),
        "iqr": q3 - q1,
        "q1": q1,
        "q3": q3,
        "iqr_outliers": num_outside,
        "stddev_outliers": num_far,
        "outliers": f"{num_far};{num_outside}",
        "ld15iqr": min(x for x in seconds if x >= low),
        "hd15iqr": max(x for x in seconds if x <= high),
        "ops": 1.0 / mean,
        "total": sum(seconds),
        "data": seconds,
    }


def _machine_info(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    machines = {tuple(record[name] for name in MACHINE) for record in records}
    if len(machines) > 1:
        names = sorted({str(record["device_name"]) for record in records})
        raise UsageError(
            f"rows come from several machines or installations ({', '.join(names)})",
            expected="one machine in a file of pytest-benchmark",
            try_="one export for each run",
        )
    facts = {name: records[0][name] for name in MACHINE}
    python = str(records[0]["python"])
    return {"python_version": python, "cpu": {}, "ena_bench": facts}


def _commit_info(record: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": record["git_commit"] or "unversioned", "dirty": bool(record["git_dirty"])}


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain values that JSON takes; absent ones are None."""
    return [
        {str(name): _plain(value) for name, value in row.items()}
        for row in frame.to_dict(orient="records")
    ]


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    return None if isinstance(value, float) and value != value else value
