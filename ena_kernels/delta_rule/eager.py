"""The delta rule in chunks, in plain PyTorch on any device.

For every chunk of C tokens, all at once:
    A = (I + strict_lower(diag(b) K K^T))^-1      triangular solve, never a Neumann series
    W = A diag(b) K;  U = A diag(b) V
    M = I - K^T W;    N = K^T U                   the chunk as a map of states: S -> M S + N
Chunk by chunk, one small product each:
    S_next = M S + N
For every chunk again, all at once:
    R = U - W S;  P = lower(Q K^T);  O = Q S + P R        (Q carries the scale)

The backward rebuilds W, M, S and R from the inputs and A, sweeps the chunks from last to first with
``G_prev = M^T G + Q^T dO - W^T P^T dO``, and needs neither dA nor dW: with Z = A^T dR, both enter
the gradients only through dV = diag(b) Z. This is what docs/maths.md, "Chunks", becomes with
W = A diag(b) K and U = A diag(b) V inserted.

Products and states are float32 (float64 for float64 inputs) whatever the inputs are. Nothing waits
for the device. Memory is ``O(L)``: per head, states and maps cost ``L / C * D * (D + E)`` values.
"""

# Legend: B batch, H heads, L tokens, D key dim, E value dim, C chunk, n chunks, Z = B * H * n.

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ena_kernels.delta_rule.common import compute_dtype, inverse_norm

CHUNK_SIZE = 64


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
    chunk_size: int = CHUNK_SIZE,
) -> tuple[Tensor, Tensor | None]:
    """Output ``[B, H, L, E]`` in ``q.dtype`` and the last state, differentiable in every tensor.

    ``chunk_size`` changes the cost and the rounding, never the function.
    """
    o, final_state = _ChunkedDeltaRule.apply(
        q, k, v, beta, initial_state, scale, qk_l2norm, min(chunk_size, q.shape[2])
    )
    return o, final_state if output_final_state else None


class _Chunks(NamedTuple):
    """The inputs cut into chunks, in the dtype of the products; the last chunk padded by zeros.

    q (times the scale) and k: ``[Z, C, D]``, v: ``[Z, C, E]``, b: ``[Z, C, 1]``.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    b: Tensor


class _Pass(NamedTuple):
    """What both directions need of the recurrence.

    w: ``[Z, C, D]``, m: ``[Z, D, D]``, entry states s: ``[Z, D, E]``, new values r: ``[Z, C, E]``,
    final state: ``[B * H, D, E]``.
    """

    w: Tensor
    m: Tensor
    s: Tensor
    r: Tensor
    final: Tensor


class _ChunkedDeltaRule(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, beta, initial_state, scale, qk_l2norm, chunk_size):
        # autocast would run the products of float32 states in half precision
        with torch.autocast(q.device.type, enabled=False):
            chunks = _split(q, k, v, beta, scale, qk_l2norm, chunk_size)
            a = _inverse(chunks)
            run = _run_states(chunks, a, _states_or_zeros(initial_state, q, v))
            scores = torch.bmm(chunks.q, chunks.k.mT).tril_()
            o = torch.bmm(chunks.q, run.s).baddbmm_(scores, run.r)
        ctx.save_for_backward(q, k, v, beta, initial_state, a)
        ctx.scale, ctx.qk_l2norm, ctx.chunk_size = scale, qk_l2norm, chunk_size
        ctx.set_materialize_grads(False)
        return _join(o, v.shape).to(q.dtype), run.final.unflatten(0, q.shape[:2])

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_o, grad_final):
        q, k, v, beta, initial_state, a = ctx.saved_tensors
        with torch.autocast(q.device.type, enabled=False):
            chunks = _split(q, k, v, beta, ctx.scale, ctx.qk_l2norm, ctx.chunk_size)
            do = _chunk(torch.zeros_like(v) if grad_o is None else grad_o, ctx.chunk_size)
            first = _states_or_zeros(initial_state, q, v)
            last_grad = _states_or_zeros(grad_final, q, v)
            dq, dk, dv, db, grad_initial = _gradients(chunks, a, do, first, last_grad)
            dq, dk = _join(dq * ctx.scale, q.shape), _join(dk, k.shape)
            if ctx.qk_l2norm:
                dq, dk = _normalised_grad(q, dq), _normalised_grad(k, dk)
            dv, db = _join(dv, v.shape), _join(db, (*beta.shape, 1)).squeeze(-1)
        grads = (dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype), db.to(beta.dtype))
        has_state = initial_state is not None
        return *grads, grad_initial.unflatten(0, q.shape[:2]) if has_state else None, *[None] * 3


def _split(q, k, v, beta, scale, qk_l2norm, chunk_size) -> _Chunks:
    dtype = compute_dtype(q.dtype)
    q, k = q.to(dtype), k.to(dtype)
    if qk_l2norm:
        q, k = q * inverse_norm(q), k * inverse_norm(k)
    return _Chunks(*(_chunk(x, chunk_size) for x in (q * scale, k, v, beta[..., None])))


def _chunk(x: Tensor, chunk_size: int) -> Tensor:
    """``[B, H, L, X]`` to ``[Z, C, X]``; zeros behind the last token change no state."""
    missing = -x.shape[2] % chunk_size
    x = x.to(compute_dtype(x.dtype))
    if missing:
        x = F.pad(x, (0, 0, 0, missing))
    return x.reshape(-1, chunk_size, x.shape[-1])


def _join(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """``[Z, C, X]`` back to ``[B, H, L, X]``, without the padding."""
    B, H, L, X = shape
    return x.view(B, H, -1, X)[:, :, :L].contiguous()


def _states_or_zeros(states: Tensor | None, q: Tensor, v: Tensor) -> Tensor:
    """``[B, H, D, E]`` or None to ``[B * H, D, E]``."""
    if states is not None:
        return states.flatten(0, 1)
    num_heads = q.shape[0] * q.shape[1]
    return q.new_zeros(num_heads, q.shape[-1], v.shape[-1], dtype=compute_dtype(q.dtype))


def _inverse(chunks: _Chunks) -> Tensor:
    """``A = (I + strict_lower(diag(b) K K^T))^-1``, ``[Z, C, C]``."""
    overlap = torch.bmm(chunks.b * chunks.k, chunks.k.mT)
    identity = torch.eye(overlap.shape[-1], dtype=overlap.dtype, device=overlap.device)
    # the solver reads only what is below the diagonal
    return torch.linalg.solve_triangular(overlap, identity, upper=False, unitriangular=True)


def _run_states(chunks: _Chunks, a: Tensor, first: Tensor) -> _Pass:
    k, v, b = chunks.k, chunks.v, chunks.b
    w, u = torch.bmm(a, b * k), torch.bmm(a, b * v)
    identity = torch.eye(k.shape[-1], dtype=k.dtype, device=k.device)
    m = torch.baddbmm(identity, k.mT, w, alpha=-1)
    s, final = _sweep(m, torch.bmm(k.mT, u), first)
    return _Pass(w=w, m=m, s=s, r=u.baddbmm_(w, s, alpha=-1), final=final)


def _sweep(
    maps: Tensor, added: Tensor, first: Tensor, *, backwards: bool = False
) -> tuple[Tensor, Tensor]:
    """Apply ``x -> maps x + added`` chunk after chunk, starting from `first`.

    maps: ``[Z, D, D]``, added: ``[Z, D, E]``, first: ``[B * H, D, E]``. Returns what enters each
    chunk, shaped like `added`, and what leaves the last one visited.
    """
    maps, added = (x.unflatten(0, (len(first), -1)) for x in (maps, added))
    entering = added.roll(-1 if backwards else 1, dims=1)
    visits = list(zip(entering.unbind(1), maps.unbind(1), added.unbind(1), strict=True))
    if backwards:
        visits.reverse()
    visits[0][0].copy_(first)
    for (x, m, _), (x_next, _, _) in pairwise(visits):
        # x_next holds what the chunk before it adds, so one product is the whole step
        x_next.baddbmm_(m, x)
    x, m, last_added = visits[-1]
    return entering.flatten(0, 1), torch.baddbmm(last_added, m, x)


def _gradients(
    chunks: _Chunks, a: Tensor, do: Tensor, first: Tensor, last_grad: Tensor
) -> tuple[Tensor, ...]:
    """Of the scaled q, of k, v and b, all in chunks, and of the first state ``[B * H, D, E]``."""
    q, k, v, b = chunks
    run = _run_states(chunks, a, first)
    dr = torch.bmm(torch.bmm(k, q.mT).triu_(), do)
    added = torch.bmm(q.mT, do).baddbmm_(run.w.mT, dr, alpha=-1)
    exit_grads, grad_first = _sweep(run.m.mT, added, last_grad, backwards=True)
    dr.baddbmm_(k, exit_grads)
    z = torch.bmm(a.mT, dr)
    dv = b * z

    dscores = torch.bmm(do, run.r.mT).tril_()
    dq = torch.bmm(do, run.s.mT).baddbmm_(dscores, k)
    doverlap = torch.bmm(dv, run.r.mT).tril_(-1)
    dk = torch.bmm(run.r, exit_grads.mT).baddbmm_(dv, run.s.mT, alpha=-1)
    dk.baddbmm_(dscores.mT, q)
    dk.baddbmm_(doverlap, k, alpha=-1).baddbmm_(doverlap.mT, k, alpha=-1)

    # R is diag(b) times this, so beta = 0 needs no division
    overlap = torch.bmm(k, k.mT).tril_(-1)
    surprise = torch.baddbmm(v, k, run.s, alpha=-1).baddbmm_(overlap, run.r, alpha=-1)
    return dq, dk, dv, (z * surprise).sum(-1, keepdim=True), grad_first


def _normalised_grad(x: Tensor, dy: Tensor) -> Tensor:
    """Gradient of x from that of ``y = x / sqrt(|x|^2 + eps)``: ``r (dy - y (y . dy))``."""
    x = x.to(dy.dtype)
    r = inverse_norm(x)
    y = x * r
    return r * (dy - y * (y * dy).sum(-1, keepdim=True))
