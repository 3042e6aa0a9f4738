"""Where the time of one case goes: a trace, a table of kernels, a share for every component.

On CUDA the time is that of kernels; on a CPU it is the time that operators spend in themselves.
"""

import gzip
import json
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity

from bench import units
from bench.attribution import OTHER, Execution, attributed, outside_scopes
from bench.case import Case
from bench.contenders import lookup
from bench.errors import EnaBenchError
from bench.modes import TimedCall, timed_call
from bench.outcome import Unsupported, verdict
from bench.scopes import scopes
from ena_kernels.components import COMPONENTS

NUM_WARMUP = 3
TABLE_ROWS = 25
NAME_WIDTH = 64

_NOISE = ("void ", "(anonymous namespace)::", "at::native::", "c10::", "std::")


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelTime:
    """A kernel (CPU: an operator) as one component used it.

    `launches` and `time_us` are per call, `share` is of the time of all kernels.
    """

    name: str
    component: str
    launches: float
    time_us: float
    share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """One case under the profiler: `time_us` per call, and its kernels, the longest first."""

    case_path: str
    device: str
    num_calls: int
    time_us: float
    kernels: tuple[KernelTime, ...]
    trace: Path

    @property
    def shares(self) -> dict[str, float]:
        """Share of the time for each component and `other`; they sum to 1."""
        shares = dict.fromkeys((*COMPONENTS, OTHER), 0.0)
        for kernel in self.kernels:
            shares[kernel.component] += kernel.share
        return shares

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return asdict(self) | {"shares": self.shares, "trace": str(self.trace)}


def profile(case: Case, out_dir: Path, *, num_calls: int = 5, seed: int = 0) -> Profile:
    """Run a case under the profiler and split its time among its components.

    Leaves in `out_dir` the trace, ``<case_id>.json.gz``, which Perfetto and chrome://tracing open,
    and the table of the returned profile, ``<case_id>.txt``.

    Raises:
        EnaBenchError: the case cannot run here, memory ran out, or no kernel was recorded.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    trace = out_dir / f"{case.case_id}.json.gz"
    try:
        _record(case, trace, num_calls=num_calls, seed=seed)
    except Exception as err:
        status, reason, _ = verdict(err)
        if status == "failed":
            raise
        raise EnaBenchError(
            f"{case.case_path} cannot be profiled, it is {status}: {reason}",
            expected="a case that runs on this machine",
            try_="ena-bench list contenders",
        ) from err
    with gzip.open(trace, "rt", encoding="utf-8") as file:
        events = json.load(file)["traceEvents"]
    time_us, kernels = _summed(
        attributed(events, case.device, outside=outside_scopes(case)), num_calls
    )
    if not kernels:
        raise EnaBenchError(
            f"the profiler recorded no kernel of {case.case_path}",
            expected="a driver that lets this user profile",
            try_="ena-bench doctor",
        )
    found = Profile(
        case_path=case.case_path,
        device=case.device,
        num_calls=num_calls,
        time_us=time_us,
        kernels=kernels,
        trace=trace,
    )
    (out_dir / f"{case.case_id}.txt").write_text(profile_text(found) + "\n", encoding="utf-8")
    return found


def profile_text(found: Profile) -> str:
    """The share of every component, the longest kernels, and where the trace is."""
    noun, what = ("kernel", "kernels") if found.device == "cuda" else ("operator", "operators")
    shown, rest = found.kernels[:TABLE_ROWS], found.kernels[TABLE_ROWS:]
    wide = max(len(noun), *(len(short_name(k.name)) for k in shown))
    lines = [
        found.case_path,
        f"{units.duration(found.time_us / 1e3)} in {what} per call,"
        f" mean of {units.plural(found.num_calls, 'call')}",
        "",
        f"{'component':<11}  {'us_per_call':>11}  {'share':>6}",
        *(
            f"{component:<11}  {_time_and_share(share * found.time_us, share)}"
            for component, share in found.shares.items()
        ),
        "",
        f"{noun:<{wide}}  {'component':<11}  {'launches':>8}  {'us_per_call':>11}  {'share':>6}",
        *(
            f"{short_name(k.name):<{wide}}  {k.component:<11}  {k.launches:>8g}"
            f"  {_time_and_share(k.time_us, k.share)}"
            for k in shown
        ),
    ]
    if rest:
        share = units.percent(sum(k.share for k in rest))
        lines.append(f"and {units.count(len(rest))} more, together {share}")
    lines += ["", f"trace  {found.trace} (open it in https://ui.perfetto.dev)"]
    return "\n".join(lines)


def short_name(name: str, width: int = NAME_WIDTH) -> str:
    """A kernel's name without result type, arguments and torch's namespaces, cut in its middle."""
    for noise in _NOISE:
        name = name.replace(noise, "")
    depth = 0
    for position, letter in enumerate(name):
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0 and position:
            name = name[:position].rstrip()
            break
    if len(name) <= width:
        return name
    tail = width // 6
    return f"{name[: width - 3 - tail]}...{name[-tail:]}"


def _record(case: Case, trace: Path, *, num_calls: int, seed: int) -> None:
    contender = lookup(case)
    reason = contender.why_not(case)
    if reason is not None:
        raise Unsupported(reason)
    torch.manual_seed(seed)
    workload = contender.workload(case)
    # a backward measured alone keeps the graph of one forward, which the scopes have to see
    with scopes(workload.forward):
        timed = timed_call(workload, case.mode)
        _repeat(timed, NUM_WARMUP, case.device)
        _trace(timed, trace, num_calls, case.device)


def _trace(timed: TimedCall, path: Path, num_calls: int, device: str) -> None:
    # the profiler announces its start and stop on stderr unless its log is off
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    activities = [ProfilerActivity.CPU]
    if device == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        _repeat(timed, num_calls, device)
    profiler.export_chrome_trace(str(path))


def _repeat(timed: TimedCall, num_calls: int, device: str) -> None:
    for _ in range(num_calls):
        timed.reset()
        timed.run()
    if device == "cuda":
        torch.cuda.synchronize()


def _summed(
    executions: Iterable[Execution], num_calls: int
) -> tuple[float, tuple[KernelTime, ...]]:
    """Time per call in us, and the kernels by falling time."""
    grouped: dict[tuple[str, str], list[int]] = defaultdict(list)
    for run in executions:
        grouped[run.name, run.component].append(run.time_ns)
    total_ns = sum(map(sum, grouped.values()))
    kernels = [
        KernelTime(
            name=name,
            component=component,
            launches=len(times_ns) / num_calls,
            time_us=sum(times_ns) / num_calls / 1e3,
            share=sum(times_ns) / total_ns,
        )
        for (name, component), times_ns in grouped.items()
        if total_ns
    ]
    kernels.sort(key=lambda k: (-k.time_us, k.name, k.component))
    return total_ns / num_calls / 1e3, tuple(kernels)


def _time_and_share(time_us: float, share: float) -> str:
    return f"{units.significant(time_us):>11}  {units.percent(share):>6}"
