"""One token of the delta rule, for decoding, as one kernel.

    u = beta (v - k S);  S_next = S + k^T u;  o = scale q S_next

A program has all D rows and BLOCK_E columns of one head's state, which no other program needs.
Moved per head: ``2 D E`` values of the state in float32; the rest is small.
"""

# Legend: B batch, H heads, D key dim, DP its power of two, E value dim.

import triton
import triton.language as tl
from torch import Tensor

from ena_kernels.delta_rule.common import L2_EPS

# columns of the state per program: few enough that a handful of heads fills a device
BLOCK_E = 16


@triton.jit(do_not_specialize=["H"])
def delta_rule_step_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    beta_ptr,
    state_ptr,
    o_ptr,
    next_ptr,
    scale,
    H,
    q_stride_b,
    q_stride_h,
    k_stride_b,
    k_stride_h,
    v_stride_b,
    v_stride_h,
    beta_stride_b,
    beta_stride_h,
    state_stride_b,
    state_stride_h,
    state_stride_d,
    D: tl.constexpr,
    DP: tl.constexpr,
    E: tl.constexpr,
    BLOCK_E: tl.constexpr,
    L2NORM: tl.constexpr,
    EPS: tl.constexpr,
):
    """Write o ``[B, H, E]`` and the next state ``[B, H, D, E]``."""
    bh = tl.program_id(0).to(tl.int64)
    b, h = bh // H, bh % H
    d = tl.arange(0, DP)
    e = tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
    in_d, in_e = d < D, e < E
    mask = in_d[:, None] & in_e[None, :]
    k = tl.load(k_ptr + b * k_stride_b + h * k_stride_h + d, mask=in_d, other=0.0).to(tl.float32)
    q = tl.load(q_ptr + b * q_stride_b + h * q_stride_h + d, mask=in_d, other=0.0).to(tl.float32)
    v = tl.load(v_ptr + b * v_stride_b + h * v_stride_h + e, mask=in_e, other=0.0).to(tl.float32)
    beta = tl.load(beta_ptr + b * beta_stride_b + h * beta_stride_h).to(tl.float32)
    state_ptr += b * state_stride_b + h * state_stride_h
    state = tl.load(
        state_ptr + d.to(tl.int64)[:, None] * state_stride_d + e[None, :], mask=mask, other=0.0
    )
    if L2NORM:
        k *= tl.rsqrt(tl.sum(k * k, 0) + EPS)
        q *= tl.rsqrt(tl.sum(q * q, 0) + EPS)
    u = beta * (v - tl.sum(k[:, None] * state, 0))
    state += k[:, None] * u[None, :]
    o = scale * tl.sum(q[:, None] * state, 0)
    tl.store(next_ptr + bh * (D * E) + d[:, None] * E + e[None, :], state, mask=mask)
    tl.store(o_ptr + bh * E + e, o.to(o_ptr.dtype.element_ty), mask=in_e)


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
    """Launch on checked tensors: q, k ``[B, H, D]``, v ``[B, H, E]``, beta ``[B, H]``.

    state: float32 ``[B, H, D, E]``, left unchanged. Returns o ``[B, H, E]`` and the next state.
    Any strides except along D and E, where a tensor without unit stride is copied.
    """
    q, k, v, state = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v, state))
    B, H, D = q.shape
    E = v.shape[-1]
    o, next_state = q.new_empty(B, H, E), state.new_empty(B, H, D, E)
    delta_rule_step_kernel[(B * H, -(-E // BLOCK_E))](
        *(q, k, v, beta, state, o, next_state, scale, H),
        *(q.stride(0), q.stride(1), k.stride(0), k.stride(1), v.stride(0), v.stride(1)),
        *(*beta.stride(), *state.stride()[:3]),
        D=D,
        DP=1 << (D - 1).bit_length(),
        E=E,
        BLOCK_E=BLOCK_E,
        L2NORM=qk_l2norm,
        EPS=L2_EPS,
        num_warps=4,
    )
    return o, next_state
