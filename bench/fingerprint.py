"""Which kernels really ran: one profiled call, their names by time, a digest to compare runs.

On CUDA these are the kernels, copies and fills of the device. On a CPU they are the operators
that torch computes with a kernel of their own: wrappers such as `matmul`, views and allocations
are left out. What a compiled region computes inside itself on a CPU has no names.

The same call tells the time of each component, where `bench.scopes` are open: what runs counts to
the innermost scope that was open when it was launched, on whichever thread. Only one thread at a
time is inside a scope, since the caller of a backward waits for it.
"""

import hashlib
import json
import os
import re
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

from bench.attribution import OTHER
from bench.scopes import PREFIX

Call = Callable[[], object]

_INDUCTOR_NUMBER = re.compile(r"^(triton_[a-z]+_fused.*?)_\d+$")
_OPERATOR = re.compile(r"^(?!autograd::|torch::|profiler::)\w+::\w+$")
_LAUNCH = re.compile(r"^cu(da)?[A-Z]")
_NO_WORK = {f"aten::{n}" for n in ("empty", "empty_strided", "as_strided", "view", "set_")}


class _Span(NamedTuple):
    """Something that ran for `ns`, and when the host began or launched it."""

    name: str
    ns: int
    launched_ns: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Kernel:
    """All launches of one name in one call."""

    name: str
    count: int
    total_us: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Fingerprint:
    """The kernels of one call and the time of each component, longest total time first."""

    by_time: tuple[Kernel, ...]
    component_us: Mapping[str, float] = field(default_factory=dict)

    @property
    def kernels(self) -> list[str]:
        """Their names."""
        return [k.name for k in self.by_time]

    @property
    def num_kernels(self) -> int:
        """Launches in all."""
        return sum(k.count for k in self.by_time)

    @property
    def digest(self) -> str:
        """Twelve hex digits, the same for the same set of names whatever their order and times.

        Inductor numbers its kernels in the order it meets them; the digest leaves that out.
        """
        names = sorted({_INDUCTOR_NUMBER.sub(r"\1", name) for name in self.kernels})
        return hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]


def take(call: Call, device: str, *, outside: str = OTHER) -> Fingerprint:
    """Profile one call on `cpu` or `cuda` and collect what ran.

    Args:
        outside: The component of what runs outside every scope.
    """
    events = profiled_events(call, device)
    spans = list(_gpu_spans(events) if device == "cuda" else _operator_spans(events))
    totals_ns: dict[str, list[int]] = defaultdict(list)
    for span in spans:
        totals_ns[span.name].append(span.ns)
    kernels = [
        Kernel(name=name, count=len(ns), total_us=sum(ns) / 1e3) for name, ns in totals_ns.items()
    ]
    return Fingerprint(
        by_time=tuple(sorted(kernels, key=lambda k: (-k.total_us, k.name))),
        component_us=_component_us(spans, events, outside),
    )


def missing(fingerprint: Fingerprint, patterns: Iterable[str]) -> list[str]:
    """The regular expressions that no kernel matches anywhere in its name."""
    return [p for p in patterns if not any(re.search(p, name) for name in fingerprint.kernels)]


def autotune_choices(kernels: Collection[str] | None = None) -> str | None:
    """What Triton's autotuners chose in their latest launch, as JSON: kernel name to configuration.

    Looks at every autotuner that a loaded module holds by name, also under `triton.heuristics`.
    Those inside closures or objects, and Inductor's own, are not seen.

    Args:
        kernels: Names that ran; other autotuners, tuned by an earlier case, are left out.

    Returns:
        None where nothing was tuned or Triton is not loaded.
    """
    chosen = {
        name: config.all_kwargs() for name, config in _tuned() if kernels is None or name in kernels
    }
    return json.dumps(chosen, sort_keys=True, default=str) if chosen else None


def profiled_events(call: Call, device: str, *, profile_memory: bool = False) -> Sequence[Any]:
    """The raw events of one call under the profiler, which are cheap to read.

    With `profile_memory` there is an event named `[memory]` for every allocation and release.
    """
    # the profiler announces its start and stop on stderr unless its log is off
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    import torch
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU]
    if device == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with ExitStack() as stack:
        with warnings.catch_warnings():
            # torch 2.11 warns that a next cycle would clear this one, and there is none; the remedy
            # it names, acc_events, takes ten times as long: it turns all events into objects
            warnings.filterwarnings("ignore", "Warning: Profiler clears events", UserWarning)
            profiler = stack.enter_context(
                profile(activities=activities, profile_memory=profile_memory)
            )
        call()
        if device == "cuda":
            torch.cuda.synchronize()
    assert profiler.profiler is not None
    events: Sequence[Any] = profiler.profiler.kineto_results.events()
    return events


def _component_us(spans: Sequence[_Span], events: Sequence[Any], outside: str) -> dict[str, float]:
    """Time by component, the longest first."""
    open_ = [e for e in events if e.name().startswith(PREFIX) and e.device_type().name == "CPU"]
    open_.sort(key=lambda e: (e.start_ns(), -e.end_ns()))
    enclosing: list[Any] = []
    totals_ns: dict[str, int] = defaultdict(int)
    waiting = iter([*open_, None])
    following = next(waiting)
    for span in sorted(spans, key=lambda s: s.launched_ns or 0):
        at_ns = span.launched_ns or 0
        while following is not None and following.start_ns() <= at_ns:
            enclosing.append(following)
            following = next(waiting)
        while enclosing and enclosing[-1].end_ns() < at_ns:
            enclosing.pop()
        name = enclosing[-1].name().removeprefix(PREFIX) if enclosing else outside
        totals_ns[name] += max(span.ns, 0)
    ordered = sorted(totals_ns.items(), key=lambda total: -total[1])
    return {name: total / 1e3 for name, total in ordered}


def _gpu_spans(events: Sequence[Any]) -> Iterator[_Span]:
    launched_ns = {
        e.correlation_id(): e.start_ns()
        for e in events
        if e.device_type().name == "CPU" and _LAUNCH.match(e.name())
    }
    for event in events:
        if event.device_type().name == "CUDA" and not event.is_user_annotation():
            at_ns = launched_ns.get(event.correlation_id())
            yield _Span(event.name(), event.duration_ns(), at_ns)


def _operator_spans(events: Sequence[Any]) -> Iterator[_Span]:
    """Operators with the time spent in themselves, without operators inside them."""
    kept = [e for e in events if _computes(e.name())]
    kept.sort(key=lambda e: (e.start_thread_id(), e.start_ns(), -e.end_ns()))
    self_ns = [e.duration_ns() for e in kept]
    open_: list[int] = []
    for i, event in enumerate(kept):
        while open_ and not _encloses(kept[open_[-1]], event):
            open_.pop()
        if open_:
            self_ns[open_[-1]] -= event.duration_ns()
        open_.append(i)
    for event, ns in zip(kept, self_ns, strict=True):
        yield _Span(event.name(), ns, event.start_ns())


def _encloses(outer: Any, inner: Any) -> bool:
    same_thread: bool = outer.start_thread_id() == inner.start_thread_id()
    return same_thread and inner.end_ns() <= outer.end_ns()


def _computes(name: str) -> bool:
    if not _OPERATOR.match(name) or name in _NO_WORK or name.startswith(PREFIX):
        return False
    return not name.startswith("aten::") or name in _operators_with_cpu_kernels()


@cache
def _operators_with_cpu_kernels() -> frozenset[str]:
    import torch

    registered = torch._C._dispatch_get_registrations_for_dispatch_key("CPU")
    # a copy works too, but torch registers it for every device at once
    return frozenset(name.partition(".")[0] for name in registered) | {"aten::copy_"}


def _tuned() -> Iterator[tuple[str, Any]]:
    """Name and latest configuration of every autotuner that has launched."""
    home = sys.modules.get("triton.runtime.autotuner")
    if home is None:
        return
    tuners, wrappers = _family(home.Autotuner), _family(home.Heuristics)
    for module in tuple(sys.modules.values()):
        for value in tuple(getattr(module, "__dict__", {}).values()):
            while type(value) in wrappers:
                value = value.fn
            if type(value) in tuners and hasattr(value, "best_config"):
                yield value.base_fn.__name__, value.best_config


def _family(kind: type) -> set[type]:
    """A class and all its descendants: exact types, so that no foreign `__class__` runs."""
    children: list[type] = kind.__subclasses__()
    return {kind}.union(*map(_family, children))
