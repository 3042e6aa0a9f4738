"""One measurement as one flat row: the columns, their types, units and meaning.

SCHEMA_VERSION history
1  first version
2  time of each component, readings of the GPU over time, number of threads
"""

from dataclasses import dataclass, field, fields
from typing import Any

import pyarrow as pa

SCHEMA_VERSION = 2
STATUSES = ("ok", "oom", "unsupported", "timeout", "crashed", "incorrect", "fallback", "failed")


def column(doc: str, *, unit: str = "", default: Any = None) -> Any:
    """A field of `Row` with its unit and a sentence for docs/columns.md."""
    return field(default=default, metadata={"doc": doc, "unit": unit})


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A case measured once, or the reason why it could not be. None means unknown."""

    # identity
    schema_version: int = column("version of this table", default=SCHEMA_VERSION)
    run_id: str | None = column("name of the run that measured it")
    case_id: str | None = column("hash of every case field; equal ids are the same measurement")
    case_path: str | None = column("the case for people: level/contender/impl/mode/shape")
    round: int | None = column("which visit to the case this is, from 0")
    started_at: str | None = column("start of the measurement, UTC, ISO 8601")
    # the case
    level: str | None = column("`op`, `layer` (a period of blocks) or `model`")
    contender: str | None = column("what is measured")
    impl: str | None = column("which code computes it; `a+b` is attention a with recurrence b")
    mode: str | None = column("`fwd` without gradients, `bwd`, `fwdbwd`, `step` with AdamW")
    scan: str | None = column("order in which the recurrence reads the canvas")
    scan_variant: str | None = column(
        "`fixed` restores the order after the scan, `official` as published"
    )
    canvas: str | None = column("token grid, slowest axis first, such as 16x32x32")
    ndim: int | None = column("number of canvas axes")
    seq_len: int | None = column("tokens per sequence: the product of the canvas", unit="tokens")
    tile: str | None = column("tile, same order as canvas", unit="tokens")
    window: str | None = column("window, same order as canvas", unit="tokens")
    sparsity_target: float | None = column("sparsity that was asked for", unit="fraction")
    sparsity: float | None = column("achieved sparsity: 1 - attended fraction", unit="fraction")
    tiles_attended: int | None = column("(query tile, key tile) pairs computed per head")
    interleave: str | None = column("which layers of ENA attend")
    permute: str | None = column(
        "where tokens are brought into tiled order: around q, k, v, o or around the layer"
    )
    batch: int | None = column("sequences")
    heads: int | None = column("heads")
    head_dim: int | None = column("width of a head")
    depth: int | None = column("blocks; a layer measures one interleaving period of two")
    dtype: str | None = column("type of inputs and parameters")
    device: str | None = column("`cpu` or `cuda`")
    # outcome
    status: str | None = column(f"one of {', '.join(STATUSES)}")
    reason: str | None = column("why the status is not ok")
    # time
    timer: str | None = column("clock behind latency_ms: `events`, `graph` or `wall`")
    calls_per_sample: int | None = column(
        "calls averaged into one sample because one is too short for the clock"
    )
    samples_ms: list[float] | None = column("every sample in order, nothing dropped", unit="ms")
    outliers: list[bool] | None = column("label per sample: modified z-score above 3.5")
    latency_ms: float | None = column("median of samples_ms", unit="ms")
    latency_ms_lo: float | None = column("lower end of the 95% interval of the median", unit="ms")
    latency_ms_hi: float | None = column("upper end of the 95% interval of the median", unit="ms")
    latency_ms_p05: float | None = column("5% quantile of samples_ms", unit="ms")
    latency_ms_p95: float | None = column("95% quantile of samples_ms", unit="ms")
    stop_reason: str | None = column(
        "`converged` (interval within the target) or `budget` (time was up)"
    )
    num_warmup: int | None = column("calls before the first sample")
    wall_ms: float | None = column(
        "median of the host clock with synchronisation: what a caller sees", unit="ms"
    )
    wall_ms_lo: float | None = column("lower end of its 95% interval", unit="ms")
    wall_ms_hi: float | None = column("upper end of its 95% interval", unit="ms")
    wall_samples_ms: list[float] | None = column("every host-clock sample in order", unit="ms")
    exposed_fraction: float | None = column(
        "samples whose launches were not all queued before the GPU began", unit="fraction"
    )
    setup_ms: float | None = column("building inputs, tables and modules", unit="ms")
    compile_ms: float | None = column("first call: compiling and autotuning", unit="ms")
    # throughput and cost
    tokens_per_s: float | None = column("batch * seq_len / latency", unit="tokens/s")
    flops: float | None = column("useful FLOPs of one call, 2 per multiply-add")
    flops_computed: float | None = column("FLOPs the implementation executes for it")
    flops_dense: float | None = column("FLOPs if every attention were full")
    bytes: float | None = column(
        "least memory traffic: inputs read once, outputs written once", unit="bytes"
    )
    tflops_per_s: float | None = column("flops / latency", unit="TFLOP/s")
    bandwidth_gb_per_s: float | None = column("bytes / latency", unit="GB/s")
    peak_tflops_per_s: float | None = column(
        "measured on this machine: large matrix product in dtype", unit="TFLOP/s"
    )
    peak_bandwidth_gb_per_s: float | None = column(
        "measured on this machine: large copy, read plus write", unit="GB/s"
    )
    peak_flops_fraction: float | None = column(
        "tflops_per_s / measured peak; n/a above 1", unit="fraction"
    )
    peak_bandwidth_fraction: float | None = column(
        "bandwidth / measured peak; n/a where caches make it exceed 1", unit="fraction"
    )
    # memory
    peak_memory_mib: float | None = column(
        "most memory allocated at once, in a pass of its own", unit="MiB"
    )
    parameters_mib: float | None = column("weights", unit="MiB")
    inputs_mib: float | None = column("inputs", unit="MiB")
    activations_mib: float | None = column(
        "peak above parameters, inputs and whatever was resident", unit="MiB"
    )
    reserved_mib: float | None = column("reserved by the caching allocator at the peak", unit="MiB")
    process_mib: float | None = column(
        "memory of the whole process, driver and libraries included", unit="MiB"
    )
    # correctness
    verified: str | None = column(
        "compared with float64: `twin` (small shape, with gradients), and of the full size"
        " `twin+full` (all of it), `twin+sampled` (some rows or heads), `twin+blocks` (some rows"
        " of every block, from its actual input); `twin` alone where float64 takes too much"
    )
    error_forward: float | None = column(
        "relative L2 error of the output, the worse of twin and full size"
    )
    error_gradient: float | None = column("largest relative L2 error among the gradients")
    error_budget_used: float | None = column(
        "largest error over what the dtype allows", unit="fraction"
    )
    worst_gradient: str | None = column("name of the tensor with the largest gradient error")
    # proof of execution
    kernels: list[str] | None = column("kernels (CPU: operators) of one profiled call, by time")
    num_kernels: int | None = column("launches in that call")
    kernel_fingerprint: str | None = column("hash of the kernel names")
    component_ms: str | None = column(
        "time of each component in that call, JSON: its kernels (CPU: its operators, which the"
        " profiler slows, in the fastest of up to three calls); `other` are residual additions and"
        " the optimizer",
        unit="ms",
    )
    autotune: str | None = column("launch configurations that autotuners chose, JSON")
    # the machine while timing
    sm_clock_mhz_min: float | None = column("lowest SM clock while timing", unit="MHz")
    sm_clock_mhz: float | None = column("median SM clock while timing", unit="MHz")
    sm_clock_mhz_max: float | None = column("highest SM clock while timing", unit="MHz")
    power_w_min: float | None = column("lowest power while timing", unit="W")
    power_w: float | None = column("median power while timing", unit="W")
    power_w_max: float | None = column("highest power while timing", unit="W")
    temperature_c_min: float | None = column("lowest temperature while timing", unit="deg C")
    temperature_c: float | None = column("median temperature while timing", unit="deg C")
    temperature_c_max: float | None = column("highest temperature while timing", unit="deg C")
    throttle_reasons: list[str] | None = column("why the driver held the clock down while timing")
    readings_s: list[float] | None = column(
        "when the GPU was read, since the first warm-up", unit="s"
    )
    sm_clock_readings_mhz: list[float] | None = column("SM clock at those times", unit="MHz")
    power_readings_w: list[float] | None = column("power at those times", unit="W")
    warnings: list[str] | None = column("what makes this row doubtful, and the cure")
    # where
    seed: int | None = column("seed of inputs and parameters")
    device_name: str | None = column("GPU or CPU model")
    device_id: str | None = column("hash of the GPU's UUID, or of the host")
    num_threads: int | None = column("CPU threads that torch computes with")
    driver: str | None = column("GPU driver")
    cuda: str | None = column("CUDA version torch was built for")
    python: str | None = column("Python version")
    torch: str | None = column("torch version")
    triton: str | None = column("triton version")
    libraries: str | None = column("versions of optional libraries, JSON")
    ena_bench: str | None = column("version of ena-bench")
    git_commit: str | None = column("commit of the working tree, where there is one")
    git_dirty: bool | None = column("the working tree had changes")
    host_id: str | None = column("hash of the host name")


_ARROW_TYPES = {
    "int": pa.int64(),
    "float": pa.float64(),
    "str": pa.string(),
    "bool": pa.bool_(),
    "list[float]": pa.list_(pa.float64()),
    "list[bool]": pa.list_(pa.bool_()),
    "list[str]": pa.list_(pa.string()),
}


def arrow_schema() -> pa.Schema:
    """The parquet schema of `Row`."""
    return pa.schema(
        [(f.name, _ARROW_TYPES[_type_name(f.type)]) for f in fields(Row)],
    )


def columns_markdown() -> str:
    """docs/columns.md: every column with its type, unit and meaning."""
    lines = [
        "# Columns of a result",
        "",
        "One row per case and round. Empty means unknown or not applicable.",
        "",
        f"Schema version {SCHEMA_VERSION}. This page is generated by `make docs`.",
        "",
        "| column | type | unit | meaning |",
        "|---|---|---|---|",
    ]
    for f in fields(Row):
        lines.append(
            f"| `{f.name}` | {_type_name(f.type)} | {f.metadata['unit']} | {f.metadata['doc']} |"
        )
    return "\n".join(lines) + "\n"


def _type_name(annotation: Any) -> str:
    text = (
        annotation
        if isinstance(annotation, str)
        else getattr(annotation, "__name__", str(annotation))
    )
    if not isinstance(annotation, (str, type)) or "|" in str(annotation):
        text = str(annotation)
    return text.replace(" | None", "")
