"""The chunk matrices of the delta rule: everything of a chunk that depends on no state.

For a chunk of C tokens with keys K, queries Q and writing strengths b, and with the inverse norms
r_k and r_q of both (ones unless they are normalised):

    A = strict_lower(diag(r_k) K K^T diag(r_k))
    N = A (I + diag(b) A)^-1                       strictly lower triangular
    P = T (diag(b) N - I)                          with T = lower(scale * diag(r_q) Q K^T diag(r_k))

N stands for both inverses of a chunk, ``(I + diag(b) A)^-1 = I - diag(b) N`` and
``(I + A diag(b))^-1 = I - N diag(b)``, also where b is 0, and its rounding does not touch their
diagonal. -P is what a token reads of W (`forward_kernels`). It could read what is written instead,
but where keys are similar, that is a small difference of values, and rounding it weighs much in the
sum of many. 16 x 16 blocks are solved row by row, then merged to 32 and 64:

    N_21 = (I - N_22 diag(b_2)) A_21 (I - diag(b_1) N_11)

A Neumann series or doubling would need powers of A, beyond any precision for similar keys.
Moved per token and head: ``2 D`` values in, ``2 C`` out; ``4 C D + 12 C^2`` FLOPs or so.
"""

# Legend: L tokens, D key dim, DP its power of two, C chunk, NB = C // 16; Z = (batch, head, chunk).

import triton
import triton.language as tl


@triton.jit
def _compress(x, WIDTH: tl.constexpr, AXIS: tl.constexpr):
    """Fold ``[C, C]`` to ``[C, WIDTH]`` (axis 1) or ``[WIDTH, C]`` (axis 0): a sum over blocks."""
    C: tl.constexpr = x.shape[0]
    if AXIS == 1:
        folded = tl.sum(tl.reshape(x, [C, C // WIDTH, WIDTH]), 1)
    else:
        folded = tl.sum(tl.reshape(x, [C // WIDTH, WIDTH, C]), 0)
    return folded


@triton.jit
def _solve_diagonal(a, beta):
    """N of the 16 x 16 diagonal blocks of ``a [C, C]``, row by row, all blocks at once."""
    C: tl.constexpr = a.shape[0]
    NB: tl.constexpr = C // 16
    block = tl.arange(0, C) // 16
    own = block[:, None] == block[None, :]
    n = tl.reshape(_compress(tl.where(own, a, 0.0), 16, 1), [NB, 16, 16])
    scaled = tl.reshape(_compress(tl.where(own, a * beta[None, :], 0.0), 16, 1), [NB, 16, 16])
    row = tl.arange(0, 16)[None, :, None]
    col = tl.arange(0, 16)[None, None, :]
    for i in tl.range(0, 15):
        pivot = tl.sum(tl.where(row == i, n, 0.0), 1)
        weight = tl.sum(tl.where(col == i, scaled, 0.0), 2)
        n -= weight[:, :, None] * pivot[:, None, :]
    n = tl.reshape(n, [C, 1, 16])
    return tl.where(own, tl.reshape(tl.broadcast_to(n, [C, NB, 16]), [C, C]), 0.0)


@triton.jit
def _merge(n, a, beta, WIDTH: tl.constexpr, PRECISION: tl.constexpr):
    """Join diagonal blocks of WIDTH into blocks of twice the width."""
    C: tl.constexpr = a.shape[0]
    block = tl.arange(0, C) // WIDTH
    below = (block[:, None] == block[None, :] + 1) & (block[:, None] % 2 == 1)
    t = tl.where(below, a, 0.0)
    left = _compress(n * beta[None, :], WIDTH, 1)
    t -= tl.where(below, tl.dot(left, _compress(t, WIDTH, 0), input_precision=PRECISION), 0.0)
    right = _compress(n * beta[:, None], WIDTH, 0)
    t -= tl.where(below, tl.dot(_compress(t, WIDTH, 1), right, input_precision=PRECISION), 0.0)
    return n + t


@triton.jit(do_not_specialize=("H", "L", "num_chunks", "plane"))
def delta_rule_matrices_kernel(
    q_ptr,
    k_ptr,
    beta_ptr,
    n_ptr,
    p_ptr,
    scalars_ptr,
    scale,
    H,
    L,
    num_chunks,
    plane,
    q_stride_b,
    q_stride_h,
    q_stride_l,
    k_stride_b,
    k_stride_h,
    k_stride_l,
    beta_stride_b,
    beta_stride_h,
    beta_stride_l,
    D: tl.constexpr,
    DP: tl.constexpr,
    C: tl.constexpr,
    L2NORM: tl.constexpr,
    EPS: tl.constexpr,
    PRECISION: tl.constexpr,
    MERGE_PRECISION: tl.constexpr,
):
    """Write N, P ``[Z, C, C]`` and the scalars ``[3, B * H, L]``: b, r_k and scale * r_q."""
    pid = tl.program_id(0)
    chunk = pid % num_chunks
    bh = (pid // num_chunks).to(tl.int64)
    b, h = bh // H, bh % H
    r, d = tl.arange(0, C), tl.arange(0, DP)
    t = chunk * C + r
    inside = t < L
    mask = inside[:, None] & (d < D)[None, :]
    t = t.to(tl.int64)
    q_ptr += b * q_stride_b + h * q_stride_h
    k_ptr += b * k_stride_b + h * k_stride_h
    beta_ptr += b * beta_stride_b + h * beta_stride_h
    # q, k: [C, DP]
    k = tl.load(k_ptr + t[:, None] * k_stride_l + d[None, :], mask=mask, other=0.0)
    q = tl.load(q_ptr + t[:, None] * q_stride_l + d[None, :], mask=mask, other=0.0)
    beta = tl.load(beta_ptr + t * beta_stride_l, mask=inside, other=0.0).to(tl.float32)
    a = tl.dot(k, tl.trans(k), input_precision=PRECISION)
    p = tl.dot(q, tl.trans(k), input_precision=PRECISION)
    scalars_ptr += bh * L + t
    tl.store(scalars_ptr, beta, mask=inside)
    q_norm = tl.full([C], 1.0, tl.float32) * scale
    if L2NORM:
        wide_k, wide_q = k.to(tl.float32), q.to(tl.float32)
        k_norm = tl.rsqrt(tl.sum(wide_k * wide_k, 1) + EPS)
        q_norm *= tl.rsqrt(tl.sum(wide_q * wide_q, 1) + EPS)
        a *= k_norm[:, None] * k_norm[None, :]
        p *= k_norm[None, :]
        tl.store(scalars_ptr + plane, k_norm, mask=inside)
    else:
        tl.store(scalars_ptr + plane, tl.full([C], 1.0, tl.float32), mask=inside)
    tl.store(scalars_ptr + 2 * plane, q_norm, mask=inside)
    a = tl.where(r[:, None] > r[None, :], a, 0.0)
    n = _solve_diagonal(a, beta)
    n = _merge(n, a, beta, 16, MERGE_PRECISION)
    n = _merge(n, a, beta, 32, MERGE_PRECISION)
    p = tl.where(r[:, None] >= r[None, :], p * q_norm[:, None], 0.0)
    p = tl.dot(p * beta[None, :], n, -p, input_precision=MERGE_PRECISION)
    offs = (bh * num_chunks + chunk) * (C * C) + r[:, None] * C + r[None, :]
    tl.store(n_ptr + offs, n.to(n_ptr.dtype.element_ty))
    tl.store(p_ptr + offs, p.to(p_ptr.dtype.element_ty))
