"""The delta rule in Triton, forward and backward, as operators of PyTorch.

Tokens are read in place whatever the strides of batch, heads and tokens; the output and the
gradients are stored as ``[B, L, H, D]``, so that merging heads copies nothing. The operators trace,
and capture into CUDA graphs. The backward computes the states of chunks once more; kept for it are
the inputs, ``C`` values and three numbers per token and head, and the states and maps of segments.
A step is one kernel and has no backward.
"""

import torch
from torch import Tensor

from ena_kernels.autograd import call, differentiable, is_tracked
from ena_kernels.delta_rule import backward as gradients
from ena_kernels.delta_rule import forward as outputs
from ena_kernels.delta_rule import step_kernel
from ena_kernels.delta_rule.configs import CHUNK, padded, segment_chunks_of
from ena_kernels.errors import UnsupportedError
from ena_kernels.operands import dense, on_its_device, refuse_derivative, require_kernels

LEAST_HEAD_DIM, MOST_HEAD_DIM, MOST_HEAD_DIM_IN_SINGLE = 16, 256, 128


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    *,
    scale: float,
    initial_state: Tensor | None,
    output_final_state: bool,
    qk_l2norm: bool,
    segment_chunks: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Output ``[B, H, L, E]`` and the last state; differentiable, once.

    ``segment_chunks``, the chunks that run one after the other, changes only cost and rounding.

    Raises:
        UnsupportedError: a device without Triton kernels, float64, or a head dim outside 16 to 256
            (to 128 in float32).
    """
    most = MOST_HEAD_DIM_IN_SINGLE if q.dtype == torch.float32 else MOST_HEAD_DIM
    for name, x in (("q", q), ("v", v)):
        if not LEAST_HEAD_DIM <= x.shape[-1] <= most:
            raise UnsupportedError(
                f"impl 'triton' has no kernel for head dim {x.shape[-1]} of {name}",
                expected=f"head dims of q and v from {LEAST_HEAD_DIM} to {most}",
                try_="impl='eager'",
            )
    if segment_chunks is None:
        B, H, L, D = q.shape
        segment_chunks = segment_chunks_of(B * H, -(-L // CHUNK), D)
    options = scale, qk_l2norm, segment_chunks
    o, final_state, *_ = _delta_rule(q, k, v, beta, initial_state, *options)
    return o, final_state if output_final_state else None


def step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    state: Tensor,
    *,
    scale: float,
    qk_l2norm: bool,
) -> tuple[Tensor, Tensor]:
    """One token: q, k ``[B, H, D]``, v ``[B, H, E]``, beta ``[B, H]``, state ``[B, H, D, E]``.

    Raises:
        UnsupportedError: a device without Triton kernels, float64, or a gradient is asked for.
    """
    if is_tracked(q, k, v, beta, state):
        raise UnsupportedError(
            "a gradient is asked for, and the step of impl 'triton' has none",
            expected="a step without gradients, as for decoding",
            try_="torch.no_grad(), or impl='eager'",
        )
    o, next_state = torch.ops.ena_kernels.delta_rule_step(q, k, v, beta, state, scale, qk_l2norm)
    return o, next_state


def _step_op(q, k, v, beta, state, scale, qk_l2norm):
    require_kernels(q)
    return step_kernel.step(q, k, v, beta, state, scale=scale, qk_l2norm=qk_l2norm)


def _forward_op(q, k, v, beta, initial_state, scale, qk_l2norm, segment_chunks):
    require_kernels(q)
    return outputs.forward(
        *(dense(x) for x in (q, k, v)),
        beta,
        initial_state,
        scale=scale,
        qk_l2norm=qk_l2norm,
        segment_chunks=segment_chunks,
    )


def _backward_op(
    grad_o,
    grad_final,
    q,
    k,
    v,
    beta,
    initial_state,
    n,
    scalars,
    transfer,
    scale,
    qk_l2norm,
    segment_chunks,
):
    return gradients.backward(
        *(dense(grad_o), grad_final),
        *(dense(x) for x in (q, k, v)),
        *(beta, initial_state, n, scalars, transfer),
        scale=scale,
        qk_l2norm=qk_l2norm,
        segment_chunks=segment_chunks,
    )


def _setup_context(ctx, inputs, output):
    q, k, v, beta, initial_state, *ctx.options = inputs
    _, _, n, scalars, transfer = output
    ctx.save_for_backward(q, k, v, beta, initial_state, n, scalars, transfer)
    ctx.set_materialize_grads(False)


def _autograd(ctx, grad_o, grad_final, *unused):
    q, k, v, beta, initial_state, *kept = ctx.saved_tensors
    if grad_o is None:
        grad_o = torch.zeros_like(v)
    inputs = grad_o, grad_final, q, k, v, beta, initial_state, *kept, *ctx.options
    operator = torch.ops.ena_kernels.delta_rule_backward.default
    *grads, grad_initial = call(operator, *inputs)
    return *grads, None if initial_state is None else grad_initial, None, None, None


INPUTS = "Tensor q, Tensor k, Tensor v, Tensor beta, Tensor? initial_state"
OPTIONS = "float scale, bool qk_l2norm, SymInt segment_chunks"
torch.library.define(
    "ena_kernels::delta_rule",
    f"({INPUTS}, {OPTIONS}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
torch.library.define(
    "ena_kernels::delta_rule_backward",
    f"(Tensor grad_o, Tensor? grad_final, {INPUTS}, Tensor n, Tensor scalars, Tensor transfer, "
    f"{OPTIONS}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
torch.library.define(
    "ena_kernels::delta_rule_step",
    "(Tensor q, Tensor k, Tensor v, Tensor beta, Tensor state, float scale, bool qk_l2norm) "
    "-> (Tensor, Tensor)",
)
torch.library.impl("ena_kernels::delta_rule_step", ("cpu", "cuda"), on_its_device(_step_op))
torch.library.impl("ena_kernels::delta_rule", ("cpu", "cuda"), on_its_device(_forward_op))
torch.library.impl("ena_kernels::delta_rule_backward", ("cpu", "cuda"), on_its_device(_backward_op))


@torch.library.register_fake("ena_kernels::delta_rule")
def _forward_fake(q, k, v, beta, initial_state, scale, qk_l2norm, segment_chunks):
    B, H, L, D = q.shape
    DP, EP = padded(int(D), int(v.shape[-1]))
    num_chunks = -(-L // CHUNK)
    links = -(-num_chunks // segment_chunks) - 1
    return (
        q.new_empty(B, L, H, v.shape[-1]).transpose(1, 2),
        q.new_empty(B, H, D, v.shape[-1], dtype=torch.float32),
        q.new_empty(B * H * num_chunks, CHUNK, CHUNK),
        q.new_empty(3, B * H, L, dtype=torch.float32),
        q.new_empty(B * H, links, EP + DP, DP, dtype=torch.float32),
    )


@torch.library.register_fake("ena_kernels::delta_rule_step")
def _step_fake(q, k, v, beta, state, scale, qk_l2norm):
    return v.new_empty(v.shape), state.new_empty(state.shape)


@torch.library.register_fake("ena_kernels::delta_rule_backward")
def _backward_fake(
    grad_o,
    grad_final,
    q,
    k,
    v,
    beta,
    initial_state,
    n,
    scalars,
    transfer,
    scale,
    qk_l2norm,
    segment_chunks,
):
    return gradients.Gradients.empty_for(q, k, v, beta)


_delta_rule = differentiable("ena_kernels::delta_rule", _autograd, _setup_context)
refuse_derivative("ena_kernels::delta_rule_backward", try_="impl='reference'")
