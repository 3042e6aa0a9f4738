"""One case measured from beginning to end, in the order that keeps the number honest.

Build, first call, compare with float64, see which kernels ran, count memory, time, compare again.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from bench import fingerprint, memory, stats, timing, verify
from bench.attribution import OTHER, outside_scopes
from bench.case import Case
from bench.contenders import Contender, lookup
from bench.cost import cost
from bench.machine import Machine, Peaks
from bench.modes import TimedCall, timed_call
from bench.outcome import Fallback, Incorrect, Unsupported, identity
from bench.row import Row
from bench.scopes import scopes
from bench.telemetry import Telemetry, timing_warnings
from bench.timers import synchronization
from bench.workload import Workload, relative_error

Say = Callable[[str, Mapping[str, Any]], None]
ABOVE_PEAK = 1.05
"""A GPU's rate above this share of its measured peak cannot be true."""
CHEAP_CHECK_S = 0.3
PROFILED_CALLS = {"cpu": 3, "cuda": 1}
WALL_SHARE = 0.5
"""Of the samples and the time, where the host's clock is not the one that counts."""


def measure(
    case: Case,
    settings: timing.Settings,
    *,
    machine: Machine,
    peaks: Peaks | None,
    round: int,
    run_id: str,
    say: Say,
) -> Row:
    """Measure a case once.

    Args:
        peaks: Measured rates of this device and dtype, for the shares of the roofline.
        say: Told each phase as it begins, and the estimate while timing.

    Raises:
        Outcome: the case is unsupported, wrong, or ran other kernels than it claims.
    """
    values = identity(case, round=round, run_id=run_id, seed=settings.seed)
    contender = _runnable(case)
    values |= _measure(contender, case, settings, say)
    values |= _rates(case, peaks, values["latency_ms"])
    return Row(**values, **machine.row_values(case.device), status="ok")


def check(
    case: Case,
    settings: timing.Settings,
    *,
    machine: Machine,
    peaks: Peaks | None,
    round: int,
    run_id: str,
    say: Say,
) -> Row:
    """Compare a case with float64 and time nothing: `ena-bench verify`.

    Raises:
        Outcome: as `measure`.
    """
    values = identity(case, round=round, run_id=run_id, seed=settings.seed)
    contender = _runnable(case)
    say("build", {})
    torch.manual_seed(settings.seed)
    workload = contender.workload(case)
    say("verify", {})
    values |= _verify(contender, case, workload, settings.seed)[0]
    return Row(**values, **machine.row_values(case.device), status="ok")


def _runnable(case: Case) -> Contender:
    """The contender of a case that can run; the device is freed of another case's leftovers."""
    contender = lookup(case)
    reason = contender.why_not(case)
    if reason is not None:
        raise Unsupported(reason)
    if case.device == "cuda":
        torch.cuda.empty_cache()
    return contender


def _measure(
    contender: Contender, case: Case, settings: timing.Settings, say: Say
) -> dict[str, Any]:
    say("build", {})
    torch.manual_seed(settings.seed)
    started = time.perf_counter()
    workload = contender.workload(case)
    synchronization(case.device)()
    values: dict[str, Any] = {
        "setup_ms": _elapsed_ms(started),
        "num_threads": torch.get_num_threads(),
    }

    say("first call", {})
    started = time.perf_counter()
    timed = timed_call(workload, case.mode)
    timed.run()
    synchronization(case.device)()
    values["compile_ms"] = _elapsed_ms(started)

    say("verify", {})
    verified, output, is_cheap = _verify(contender, case, workload, settings.seed)
    values |= verified

    say("kernels", {})
    values |= _kernels(contender, case, workload, timed)

    say("memory", {})
    values |= _memory(workload, timed, case)

    values |= _time(timed, case, settings, say)

    say("verify again", {})
    _verify_again(workload, case, output, settings.seed, fresh=is_cheap)
    return values


def _verify(
    contender: Contender, case: Case, workload: Workload, seed: int
) -> tuple[dict[str, Any], Tensor, bool]:
    """Check twin and full size; return columns, a copy of the output, and whether it was cheap."""
    twin = _verified_twin(contender, verify.twin_of(case, contender), seed)
    output = verify.seeded_output(workload, seed)
    started = time.perf_counter()
    spot = verify.check_full(workload, case, output, seed)
    forward = twin.forward if spot is None else max(twin.forward, spot.error)
    columns = {
        "verified": "twin" if spot is None else f"twin+{spot.part}",
        "error_forward": forward,
        "error_gradient": twin.gradient,
        "worst_gradient": twin.worst_gradient,
        "error_budget_used": replace(twin, forward=forward).budget_used,
    }
    is_cheap = time.perf_counter() - started < CHEAP_CHECK_S
    # a copy, for a contender may write into one buffer; on the host, where no peak counts it
    return columns, output.detach().to("cpu", copy=True), is_cheap


@cache
def _verified_twin(contender: Contender, twin: Case, seed: int) -> verify.Agreement:
    agreement = verify.check_twin(contender, twin, seed)
    agreement.require(f"twin {twin.case_path}")
    return agreement


def _verify_again(
    workload: Workload, case: Case, before: Tensor, seed: int, *, fresh: bool
) -> None:
    """After timing: the same inputs give the same output, and fresh inputs the right one."""
    output = verify.seeded_output(workload, seed)
    error = relative_error(output, before.to(output.device))
    budget = verify.forward_budget(case)
    if not error <= budget:
        raise Incorrect(f"after timing, the output of the same inputs differs by {error:.2e}")
    is_changed = verify.shuffle_inputs(workload)
    output = verify.seeded_output(workload, seed)
    if fresh:
        verify.check_full(workload, case, output, seed)
    if is_changed and torch.equal(output, before.to(output.device)):
        raise Incorrect("after timing, fresh inputs give the output of the old ones")


def _kernels(
    contender: Contender, case: Case, workload: Workload, timed: TimedCall
) -> dict[str, Any]:
    ran = _profiled(case, workload, timed)
    absent = fingerprint.missing(ran, contender.expected_kernels(case.device))
    if absent:
        names = ", ".join(ran.kernels[:4]) or "none"
        raise Fallback(f"no kernel matches {absent[0]!r}; those that ran: {names}")
    return {
        "kernels": list(ran.kernels),
        "num_kernels": ran.num_kernels,
        "kernel_fingerprint": ran.digest,
        "component_ms": _component_ms(case, ran),
        "autotune": fingerprint.autotune_choices(ran.kernels),
    }


def _profiled(case: Case, workload: Workload, timed: TimedCall) -> fingerprint.Fingerprint:
    """One call under the profiler; of cheap ones on a CPU, which others disturb, the fastest."""
    started = time.perf_counter()
    found: list[fingerprint.Fingerprint] = []
    while len(found) < PROFILED_CALLS[case.device]:
        timed.reset()
        with scopes(workload.forward):
            ran = fingerprint.take(timed.run, case.device, outside=outside_scopes(case))
        found.append(ran)
        if time.perf_counter() - started > CHEAP_CHECK_S:
            break
    return min(found, key=lambda ran: sum(ran.component_us.values()))


def _component_ms(case: Case, ran: fingerprint.Fingerprint) -> str | None:
    """JSON; None where a backward alone runs on a graph that no scope has seen being made."""
    if case.mode == "bwd" and outside_scopes(case) == OTHER:
        return None
    return json.dumps({name: round(us / 1e3, 6) for name, us in ran.component_us.items()})


def _memory(workload: Workload, timed: TimedCall, case: Case) -> dict[str, Any]:
    used = memory.measure_memory(
        timed.run,
        device=case.device,
        parameters=list(workload.parameters.values()),
        inputs=list(workload.inputs.values()),
        reset=timed.reset,
    )
    return {
        "parameters_mib": used.parameters_mib,
        "inputs_mib": used.inputs_mib,
        "peak_memory_mib": used.peak_memory_mib,
        "activations_mib": used.activations_mib,
        "reserved_mib": used.reserved_mib,
        "process_mib": used.process_mib,
    }


def _time(timed: TimedCall, case: Case, settings: timing.Settings, say: Say) -> dict[str, Any]:
    """Time with the chosen clock, and with the host's where that is another one."""
    say("time", {})
    with Telemetry(case.device) as telemetry:
        main = _sample(timed, case, settings, settings.timer, say)
        wall = None
        if main.timer != "wall":
            brief = replace(
                settings,
                budget_s=settings.budget_s * WALL_SHARE,
                min_samples=max(1, round(settings.min_samples * WALL_SHARE)),
            )
            wall = _sample(timed, case, brief, "wall", say)
    watched = telemetry.summary()
    low_ms, high_ms = stats.median_interval(main.samples_ms)
    values = {
        "timer": main.timer,
        "calls_per_sample": main.calls_per_sample,
        "samples_ms": list(main.samples_ms),
        "outliers": stats.outlier_labels(main.samples_ms),
        "latency_ms": stats.median(main.samples_ms),
        "latency_ms_lo": low_ms,
        "latency_ms_hi": high_ms,
        "latency_ms_p05": stats.quantile(main.samples_ms, 0.05),
        "latency_ms_p95": stats.quantile(main.samples_ms, 0.95),
        "stop_reason": main.stop_reason,
        "num_warmup": main.num_warmup,
        "exposed_fraction": main.exposed_fraction,
        "warnings": timing_warnings(watched, main, wall=wall, precision=settings.precision),
    }
    return values | _wall_columns(wall or main) | watched.row_values()


def _sample(
    timed: TimedCall, case: Case, settings: timing.Settings, timer: str, say: Say
) -> timing.Timing:
    num_samples = 0

    def on_sample(sample_ms: float) -> None:
        nonlocal num_samples
        num_samples += 1
        say("time", {"latency_ms": sample_ms, "num_samples": num_samples})

    return timing.measure(
        timed.run,
        device=case.device,
        settings=settings,
        timer=timer,
        reset=timed.reset,
        on_sample=on_sample,
    )


def _wall_columns(wall: timing.Timing) -> dict[str, Any]:
    low_ms, high_ms = stats.median_interval(wall.samples_ms)
    return {
        "wall_ms": stats.median(wall.samples_ms),
        "wall_ms_lo": low_ms,
        "wall_ms_hi": high_ms,
        "wall_samples_ms": list(wall.samples_ms),
    }


def _rates(case: Case, peaks: Peaks | None, latency_ms: float) -> dict[str, Any]:
    """Throughput, and the shares of what this machine was measured to reach."""
    values: dict[str, Any] = {"tokens_per_s": case.batch * case.seq_len / latency_ms * 1e3}
    counted = cost(case)
    if counted is None:
        return values
    tflops_per_s = counted.flops / latency_ms / 1e9
    bandwidth_gb_per_s = counted.bytes / latency_ms / 1e6
    values |= {
        "flops": counted.flops,
        "flops_computed": counted.flops_computed,
        "flops_dense": counted.flops_dense,
        "bytes": counted.bytes,
        "tflops_per_s": tflops_per_s,
        "bandwidth_gb_per_s": bandwidth_gb_per_s,
    }
    if peaks is None:
        return values
    share = tflops_per_s / peaks.tflops_per_s
    if share > ABOVE_PEAK and case.device == "cuda":
        raise Incorrect(
            f"{tflops_per_s:.3g} TFLOP/s is {share:.2f} times the measured peak: "
            "the clock or the FLOP count is wrong"
        )
    bandwidth_share = bandwidth_gb_per_s / peaks.bandwidth_gb_per_s
    return values | {
        "peak_tflops_per_s": peaks.tflops_per_s,
        "peak_bandwidth_gb_per_s": peaks.bandwidth_gb_per_s,
        "peak_flops_fraction": _share(share),
        "peak_bandwidth_fraction": _share(bandwidth_share),
    }


def _share(value: float) -> float | None:
    """None above 1: data stayed in a cache, or other programs had slowed the peak's measurement."""
    return value if value <= 1.0 else None


def _elapsed_ms(started_s: float) -> float:
    return (time.perf_counter() - started_s) * 1e3
