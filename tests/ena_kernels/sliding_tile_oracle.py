"""Sliding Tile Attention from its rule, pair by pair: what implementations must equal."""

import itertools
import math

import torch


def sees(whole, tile, window, query, key):
    """Whether the token at `query` sees the one at `key`: the clamped-centre rule, per axis."""
    for n, t, w, qx, kx in zip(whole, tile, window, query, key, strict=True):
        left, right = w // t // 2, w // t // 2 + w // t % 2 - 1
        centre = min(max(qx // t, left), n // t - 1 - right)
        if not centre - left <= kx // t <= centre + right:
            return False
    return True


def dense_mask(canvas, tile, window, text_tokens=0):
    """bool ``[L, L]`` in raster order; tokens past the canvas are text, cut tiles stay cut."""
    whole = [-(-n // t) * t for n, t in zip(canvas, tile, strict=True)]
    tokens = list(itertools.product(*map(range, canvas)))
    length = len(tokens) + text_tokens
    mask = torch.ones(length, length, dtype=torch.bool)
    rows = [[sees(whole, tile, window, q, k) for k in tokens] for q in tokens]
    mask[: len(tokens), : len(tokens)] = torch.tensor(rows)
    return mask


def masked_softmax(q, k, v, mask, scale):
    """Head by head, with the whole mask: output and log-sum-exp."""
    outs, lses = [], []
    for b, h in itertools.product(range(q.shape[0]), range(q.shape[1])):
        key_head = h * k.shape[1] // q.shape[1]
        scores = (scale * q[b, h] @ k[b, key_head].T).masked_fill(~mask, -torch.inf)
        outs.append(scores.softmax(dim=-1) @ v[b, key_head])
        lses.append(scores.logsumexp(dim=-1))
    return torch.stack(outs).view_as(q), torch.stack(lses).view(q.shape[:3])


def inputs(length, num_heads, num_kv_heads, dtype=torch.float64, *, head_dim=5, batch=2):
    """q, k and v that require gradients, the same on every call."""
    generator = torch.Generator().manual_seed(length)
    return [
        torch.randn(batch, heads, length, head_dim, generator=generator).to(dtype).requires_grad_()
        for heads in (num_heads, num_kv_heads, num_kv_heads)
    ]


def output_and_grads(function, tensors):
    """The result, or all of several, and the gradients of the tensors."""
    outs = function(*tensors)
    outs = outs if isinstance(outs, tuple) else (outs,)
    weights = [
        torch.linspace(-1, 2, out.numel(), dtype=out.dtype, device=out.device).view_as(out).sin()
        for out in outs
    ]
    return [*outs, *torch.autograd.grad(outs, tensors, weights)]


def num_tokens(canvas, text_tokens=0):
    """Length of the token axis."""
    return math.prod(canvas) + text_tokens
