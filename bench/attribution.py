"""Pure: from the events of a Chrome trace to the component that each kernel belongs to.

On CUDA a kernel counts to the scope that was open on the thread that launched it, when it did. On
a CPU an operator counts, with the time it spends in itself, to the innermost scope around it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bench.case import Case
from bench.scopes import PREFIX

Event = Mapping[str, Any]

OTHER = "other"
_OF_OPERATOR = {
    "sliding_tile": "attention",
    "attention": "attention",
    "delta_rule": "recurrence",
    "scan": "permutation",
}
_KERNELS = {"kernel", "gpu_memcpy", "gpu_memset"}
_LAUNCHES = {"cuda_runtime", "cuda_driver"}
_HOST = {"cpu_op", "user_annotation", *_LAUNCHES}
# opening scopes costs time: inside the engine, and as operators of the profiler
_OWN_COST = ("autograd::engine::evaluate_function", "profiler::")
_ROUNDING_NS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Execution:
    """One run of a kernel (CPU: of an operator) and the component it counts to."""

    name: str
    component: str
    time_ns: int


def outside_scopes(case: Case) -> str:
    """The component of whatever no scope encloses: an operator is all of one component."""
    return _OF_OPERATOR.get(case.contender, OTHER) if case.level == "op" else OTHER


def attributed(events: Iterable[Event], device: str, *, outside: str) -> Iterator[Execution]:
    """Every kernel of a trace on `cuda`, every operator on `cpu`.

    Args:
        outside: The component of what no scope encloses.
    """
    complete = [event for event in events if event.get("ph") == "X"]
    spans = [_Span.of(event) for event in complete if event.get("cat") in _HOST]
    _place(spans, outside)
    if device != "cuda":
        for s in spans:
            if s.category == "cpu_op" and not s.name.startswith(_OWN_COST):
                yield Execution(name=s.name, component=s.component, time_ns=max(s.self_ns, 0))
        return
    launched = {s.correlation: s.component for s in spans if s.category in _LAUNCHES}
    for kernel in complete:
        if kernel.get("cat") in _KERNELS:
            yield Execution(
                name=kernel["name"],
                component=launched.get(kernel["args"].get("correlation"), outside),
                time_ns=round(kernel["dur"] * 1e3),
            )


@dataclass(kw_only=True, slots=True)
class _Span:
    """Something on a thread of the host: an operator, a scope, or the launch of a kernel."""

    name: str
    category: str
    thread: tuple[int, int]
    start_ns: int
    end_ns: int
    self_ns: int
    correlation: int | None
    component: str = ""

    @classmethod
    def of(cls, event: Event) -> "_Span":
        start_ns, duration_ns = round(event["ts"] * 1e3), round(event["dur"] * 1e3)
        return cls(
            name=event["name"],
            category=event["cat"],
            thread=(event["pid"], event["tid"]),
            start_ns=start_ns,
            end_ns=start_ns + duration_ns,
            self_ns=duration_ns,
            correlation=event.get("args", {}).get("correlation"),
        )


def _place(spans: list[_Span], outside: str) -> None:
    """Give each span the component of its innermost scope; take from each what lies inside it."""
    spans.sort(key=lambda s: (s.thread, s.start_ns, -s.end_ns))
    open_: list[_Span] = []
    for span in spans:
        while open_ and not _encloses(open_[-1], span):
            open_.pop()
        if span.category == "user_annotation" and span.name.startswith(PREFIX):
            span.component = span.name.removeprefix(PREFIX)
        else:
            span.component = open_[-1].component if open_ else outside
        if open_:
            open_[-1].self_ns -= span.end_ns - span.start_ns
        open_.append(span)


def _encloses(outer: _Span, inner: _Span) -> bool:
    return outer.thread == inner.thread and inner.end_ns <= outer.end_ns + _ROUNDING_NS
