"""Named scopes around the components of a module, forward and backward, for a profiler to see.

A scope ``ena::<component>`` is opened around the forward of every module that has a `component`,
and around every node of the autograd graph which that forward made. Backward time so finds its
component also where a custom function or a compiled region computes it, and where the forward ran
before the profiler began.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.profiler import record_function
from torch.utils.hooks import RemovableHandle

from ena_kernels.components import COMPONENTS

PREFIX = "ena::"


@contextmanager
def scopes(root: object) -> Iterator[None]:
    """While this is open, the components of a module run in scopes; afterwards it is as before.

    Anything but a module is left alone. A graph that was made inside keeps its scopes.
    """
    modules = root.modules() if isinstance(root, nn.Module) else ()
    handles = [
        handle
        for module in modules
        if getattr(module, "component", None) in COMPONENTS
        for handle in _follow(module)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _follow(module: nn.Module) -> Iterator[RemovableHandle]:
    """Open a scope around each forward of a module and mark the graph that it makes."""
    name = f"{PREFIX}{module.component}"
    open_: list[tuple[ExitStack, set[Node]]] = []

    def before(_: nn.Module, args: object, kwargs: object) -> None:
        open_.append((_opened(name), set(_nodes((args, kwargs)))))

    def after(_: nn.Module, args: object, output: object) -> None:
        scope, sources = open_.pop()
        scope.close()
        _mark(_nodes(output), sources, name)

    yield module.register_forward_pre_hook(before, with_kwargs=True)
    yield module.register_forward_hook(after, always_call=True)


def _mark(ends: Iterable[Node], sources: set[Node], name: str) -> None:
    """Open a scope around every node between `sources` and `ends` that has none yet."""
    waiting = list(ends)
    while waiting:
        node = waiting.pop()
        metadata = cast(dict[str, Any], node.metadata)
        # a weight's own node outlives the call and computes nothing
        is_weight = node.name().endswith("AccumulateGrad")
        if is_weight or node in sources or PREFIX in metadata:
            continue
        metadata[PREFIX] = name
        _bracket(node, name)
        waiting += [source for source, _ in node.next_functions if source is not None]


def _bracket(node: Node, name: str) -> None:
    open_: list[ExitStack] = []

    def before(_: object) -> None:
        open_.append(_opened(name))

    def after(_: object, __: object) -> None:
        open_.pop().close()

    node.register_prehook(before)
    node.register_hook(after)


def _opened(name: str) -> ExitStack:
    scope = ExitStack()
    scope.enter_context(record_function(name))
    return scope


def _nodes(value: object) -> Iterator[Node]:
    """The graph nodes of all tensors in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        if value.grad_fn is not None:
            yield value.grad_fn
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _nodes(part)
    elif isinstance(value, dict):
        yield from _nodes(tuple(value.values()))
