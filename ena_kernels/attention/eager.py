"""Softmax attention in plain PyTorch operators, one block of queries at a time.

forward, per block:   S = scale * Q K^T;  lse = logsumexp(S);  O = exp(S - lse) V
backward, per block:  P = exp(S - lse);  dV += P^T dO;  dP = dO V^T
                      dS = P * (dP - rowsum(dO * O));  dQ = scale * dS K;  dK += scale * dS^T Q

Forward and backward hold the scores of one block: O(block * L) memory, nothing of O(L^2) is kept
in between. Products run in the dtype of the inputs, softmax and sums over blocks in float32 or
wider. The sums have a fixed order, so gradients repeat exactly.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SCORE_BYTES = {"cuda": 256 * 2**20, "cpu": 16 * 2**20}

# Legend: B batch, J key heads, R queries of one key head (L for each query head that shares it),
# L tokens, D head dim.


def forward(q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> Tensor:
    """``[B, H, L, D]`` in ``q.dtype``, on any device, in any floating dtype; differentiable."""
    rows = q.reshape(*k.shape[:2], -1, q.shape[3])
    return _BlockedAttention.apply(rows, k, v, scale).reshape(q.shape)


class _BlockedAttention(torch.autograd.Function):
    """q ``[B, J, R, D]``, k and v ``[B, J, L, D]`` to ``[B, J, R, D]``."""

    @staticmethod
    def forward(ctx, q, k, v, scale):
        blocks = []
        for q_block in q.split(_rows_per_block(k), dim=2):
            scores = _scores(q_block, k, scale)
            lse = scores.logsumexp(dim=-1, keepdim=True)
            blocks.append((scores.sub_(lse).exp_().to(v.dtype) @ v, lse))
        out, lse = (torch.cat(parts, dim=2) for parts in zip(*blocks, strict=True))
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.scale = scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_out):
        q, k, v, out, lse = ctx.saved_tensors
        delta = (grad_out.to(lse.dtype) * out).sum(dim=-1, keepdim=True)
        grad_k, grad_v = (torch.zeros_like(x, dtype=lse.dtype) for x in (k, v))
        grad_q = []
        rows = (x.split(_rows_per_block(k), dim=2) for x in (q, grad_out, lse, delta))
        for q_block, grad_block, lse_block, delta_block in zip(*rows, strict=True):
            weights = _scores(q_block, k, ctx.scale).sub_(lse_block).exp_()
            grad_v += weights.to(v.dtype).transpose(-1, -2) @ grad_block
            grad_scores = weights.mul_((grad_block @ v.transpose(-1, -2)).sub(delta_block))
            grad_scores = grad_scores.mul_(ctx.scale).to(k.dtype)
            grad_q.append(grad_scores @ k)
            grad_k += grad_scores.transpose(-1, -2) @ q_block
        return torch.cat(grad_q, dim=2), grad_k.to(k.dtype), grad_v.to(v.dtype), None


def _scores(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """Scaled scores ``[B, J, rows, L]`` in float32 or wider."""
    wide = torch.promote_types(q.dtype, torch.float32)
    return (q @ k.transpose(-1, -2)).to(wide).mul_(scale)


def _rows_per_block(k: Tensor) -> int:
    """Queries whose float32 scores against all keys fill SCORE_BYTES; at least one."""
    budget = SCORE_BYTES.get(k.device.type, SCORE_BYTES["cpu"])
    return max(1, budget // (4 * k.shape[0] * k.shape[1] * k.shape[2]))
