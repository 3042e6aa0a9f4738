"""Operators of PyTorch with a gradient, called with little of Python around them.

An operator's registered formula serves whoever traces or transforms the operator. PyTorch takes it
through its dispatcher twice, at several times the cost of an ``autograd.Function`` (measured: 33
against 12 us), which is what plain calls use.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def differentiable(name: str, backward: Callable, setup_context: Callable) -> Callable:
    """Register the gradient of an operator, and return a function that calls the operator.

    Args:
        name: Of the operator, as in ``"ena_kernels::scan"``; it returns several tensors.
        backward, setup_context: As for ``torch.library.register_autograd``.
    """
    torch.library.register_autograd(name, backward, setup_context=setup_context)
    namespace, _, short_name = name.partition("::")
    operator = getattr(getattr(torch.ops, namespace), short_name).default

    class Plain(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *inputs):
            with torch._C._AutoDispatchBelowAutograd():
                outputs = operator(*inputs)
            setup_context(ctx, inputs, outputs)
            return outputs

    Plain.backward = staticmethod(backward)

    def differentiable_call(*inputs):
        if is_tracked(*inputs) and not _is_traced():
            return Plain.apply(*inputs)
        return call(operator, *inputs)

    return differentiable_call


def call(operator: Callable, *inputs: object):
    """Call an operator, below PyTorch's layer for gradients where nobody asks for any."""
    if _is_traced() or is_tracked(*inputs):
        return operator(*inputs)
    with torch._C._AutoDispatchBelowAutograd():
        return operator(*inputs)


def is_tracked(*inputs: object) -> bool:
    """Whether outputs of an operator will have gradients."""
    return torch.is_grad_enabled() and any(
        isinstance(x, Tensor) and x.requires_grad for x in inputs
    )


def _is_traced() -> bool:
    """Whether a compiler or tracer reads the calls, or a transformation such as vmap does."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
    )
