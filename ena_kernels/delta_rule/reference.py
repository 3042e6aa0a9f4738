"""The delta rule token by token: the specification every other implementation is tested against.

For every token t, with the state S a matrix of one row per key channel:

    u_t = beta_t * (v_t - k_t S_{t-1})        what is new in v_t, against what k_t already stores
    S_t = S_{t-1} + k_t^T u_t
    o_t = scale * q_t S_t                     reads the state after its own token

Every step keeps its state for autograd: memory is ``O(L * D * E)``, so this is for short sequences.
"""

# Legend: B batch, H heads, L tokens, D key dim, E value dim.

import torch
from torch import Tensor

from ena_kernels.delta_rule.common import compute_dtype, inverse_norm


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
) -> tuple[Tensor, Tensor | None]:
    """Output ``[B, H, L, E]`` in ``q.dtype`` and the last state; differentiable by autograd."""
    state = initial_state
    if state is None:
        state = v.new_zeros(*q.shape[:2], q.shape[-1], v.shape[-1], dtype=compute_dtype(q.dtype))
    outputs = []
    # one unbind: the gradient of an index per token would write all tokens every time
    for token in zip(*(x.unbind(2) for x in (q, k, v, beta)), strict=True):
        o, state = step(*token, state, scale=scale, qk_l2norm=qk_l2norm)
        outputs.append(o)
    return torch.stack(outputs, dim=2), state if output_final_state else None


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
    """One token: q, k ``[B, H, D]``, v ``[B, H, E]``, beta ``[B, H]``, state ``[B, H, D, E]``."""
    out_dtype = q.dtype
    q, k, v, beta = (x.to(state.dtype) for x in (q, k, v, beta))
    if qk_l2norm:
        q, k = q * inverse_norm(q), k * inverse_norm(k)
    stored = torch.einsum("bhd,bhde->bhe", k, state)
    update = beta[..., None] * (v - stored)
    state = state + k[..., :, None] * update[..., None, :]
    o = scale * torch.einsum("bhd,bhde->bhe", q, state)
    return o.to(out_dtype), state
