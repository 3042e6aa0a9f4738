"""The backward of the delta rule: states once more, a scan from the last chunk, then all tokens.

Names and orientation as in `forward_kernels`; G is the gradient of the state behind a chunk,
``[E, D]`` like the state S before it; X and dO have tokens as columns in the first three lines and
as rows in the others. With ``c = b r_k`` and the scaled ``q' = scale r_q``, one value per token:

    dU = ((dO^T diag(q')) tril(Q K^T) + G K^T) diag(r_k)
    Z = dU - (dU diag(b)) N;   dV = b Z        where keys are similar, a small difference of large
    G <- G + (dO^T diag(q')) Q - (Z diag(c)) K
    dQ = q' (dO S + tril(dO Y^T diag(c)) K)
    dK = c (Y G - Z S + triu(Y dO^T diag(q')) Q - (stril(Z Y^T) + striu(Y Z^T)) diag(c) K)
    db = rowsum(Z * Y)

and ``dx - x <dx, x> r_x^2`` of both where they are normalised. tril and triu keep the diagonal,
stril and striu do not. No product takes the transpose of another one, which some versions of
Triton get wrong on Hopper: they are computed both ways round. No division by b: it may be 0.

    rebuild    per segment: S of every chunk, and Y
    scan       per segment from its end: G of every chunk, and -Z; once before without either for
               the gradient that a segment adds, where there are segments
    token      per chunk: dQ, dK, dV, db

Moved per token and head at E = D, in rows of D values: rebuild 2 + C / D in and 2 + D / C out, scan
3 + C / D in and 1 + D / C out, tokens 6 + 2 D / C in and 3 out; one less where
Y has one part.
"""

# Legend: L tokens, D key dim, DP its power of two, E value dim, EP = E up to a multiple of R;
# R rows of the state per program, C chunk, segment = segment_chunks chunks.

import triton
import triton.language as tl

from ena_kernels.delta_rule.configs import SIZES
from ena_kernels.delta_rule.forward_kernels import (
    MOST_DIM_IN_TWO,
    advance,
    dot_of_all,
    load_columns,
    load_rows,
    load_scalar,
    load_square,
    load_state,
    store_columns,
    store_state,
)


@triton.jit
def store_rows(ptr, x, start, cols, stride, end, NUM_COLS: tl.constexpr):
    """The inverse of `load_rows`."""
    t = start + tl.arange(0, x.shape[0])
    mask = (t < end)[:, None] & (cols < NUM_COLS)[None, :]
    offs = t.to(tl.int64)[:, None] * stride + cols[None, :]
    tl.store(ptr + offs, x.to(ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=SIZES)
def delta_rule_rebuild_kernel(
    k_ptr,
    v_ptr,
    n_ptr,
    scalars_ptr,
    initial_ptr,
    transfer_ptr,
    states_ptr,
    y_ptr,
    H,
    L,
    num_chunks,
    num_segments,
    segment_chunks,
    plane,
    k_stride_b,
    k_stride_h,
    k_stride_l,
    v_stride_b,
    v_stride_h,
    v_stride_l,
    D: tl.constexpr,
    DP: tl.constexpr,
    E: tl.constexpr,
    EP: tl.constexpr,
    C: tl.constexpr,
    Y_PARTS: tl.constexpr,
    BLOCK_R: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write ``states [Z, EP, DP]`` at the start of every chunk and ``y [B * H, L, parts * EP]``.

    Where y has two parts, it is their sum: the gradient of q adds up many of them.
    """
    Y_STRIDE: tl.constexpr = Y_PARTS * EP
    pid = tl.program_id(0)
    rows = pid % (EP // BLOCK_R) * BLOCK_R + tl.arange(0, BLOCK_R)
    segment = (pid // (EP // BLOCK_R)) % num_segments
    bh = (pid // (EP // BLOCK_R) // num_segments).to(tl.int64)
    b, h = bh // H, bh % H
    d = tl.arange(0, DP)
    k_ptr += b * k_stride_b + h * k_stride_h
    v_ptr += b * v_stride_b + h * v_stride_h
    y_ptr += bh * L * Y_STRIDE
    scalars_ptr += bh * L
    square = rows[:, None] * DP + d[None, :]
    if segment == 0:
        state = load_state(initial_ptr, bh, rows, d, D, E)
    else:
        transfer_ptr += (bh * (num_segments - 1) + segment - 1) * ((EP + DP) * DP)
        state = tl.load(transfer_ptr + square)
    first = segment * segment_chunks
    for chunk in tl.range(first, tl.minimum(first + segment_chunks, num_chunks)):
        t = chunk * C
        k = load_rows(k_ptr, t, d, k_stride_l, L, C, D)
        v = load_columns(v_ptr, rows, t, v_stride_l, L, C, E)
        n = load_square(n_ptr, bh * num_chunks + chunk, C)
        beta = load_scalar(scalars_ptr, t, L, C)
        k_norm = load_scalar(scalars_ptr + plane, t, L, C)
        place = (bh * num_chunks + chunk) * (EP * DP)
        tl.store(states_ptr + place + square, state.to(states_ptr.dtype.element_ty))
        state, y, _ = advance(state, k, n, v, beta, k_norm, PRECISION)
        store_columns(y_ptr, y, rows, t, Y_STRIDE, L, EP)
        if Y_PARTS == 2:
            rest = y - y.to(k.dtype).to(tl.float32)
            store_columns(y_ptr + EP, rest, rows, t, Y_STRIDE, L, EP)


@triton.jit(do_not_specialize=SIZES)
def delta_rule_scan_kernel(
    q_ptr,
    k_ptr,
    n_ptr,
    scalars_ptr,
    do_ptr,
    dfinal_ptr,
    links_ptr,
    grads_ptr,
    z_ptr,
    dinitial_ptr,
    H,
    L,
    num_chunks,
    num_segments,
    segment_chunks,
    plane,
    q_stride_b,
    q_stride_h,
    q_stride_l,
    k_stride_b,
    k_stride_h,
    k_stride_l,
    do_stride_b,
    do_stride_h,
    do_stride_l,
    z_stride_b,
    z_stride_h,
    z_stride_l,
    D: tl.constexpr,
    DP: tl.constexpr,
    E: tl.constexpr,
    EP: tl.constexpr,
    C: tl.constexpr,
    BLOCK_R: tl.constexpr,
    LOCAL: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write G ``grads [Z, EP, DP]``, -Z ``[B, H, L, E]`` and the gradient of the initial state.

    ``links [B * H, segments - 1, EP, DP]``: the gradient of the state behind each segment but the
    last. LOCAL: write there, one place to the left, what every segment but the first adds.
    """
    pid = tl.program_id(0)
    rows = pid % (EP // BLOCK_R) * BLOCK_R + tl.arange(0, BLOCK_R)
    pid = pid // (EP // BLOCK_R)
    # the first segment adds nothing that anybody needs
    scanned = num_segments - 1 if LOCAL else num_segments
    segment = pid % scanned + num_segments - scanned
    bh = (pid // scanned).to(tl.int64)
    b, h = bh // H, bh % H
    r, d = tl.arange(0, C), tl.arange(0, DP)
    q_ptr += b * q_stride_b + h * q_stride_h
    k_ptr += b * k_stride_b + h * k_stride_h
    do_ptr += b * do_stride_b + h * do_stride_h
    z_ptr += b * z_stride_b + h * z_stride_h
    scalars_ptr += bh * L
    square = rows[:, None] * DP + d[None, :]
    links_ptr += bh * (num_segments - 1) * (EP * DP)
    if segment == num_segments - 1:
        grad = load_state(dfinal_ptr, bh, rows, d, D, E)
    elif LOCAL:
        grad = tl.zeros([BLOCK_R, DP], tl.float32)
    else:
        grad = tl.load(links_ptr + segment * (EP * DP) + square)
    first = segment * segment_chunks
    end = tl.minimum(first + segment_chunks, num_chunks)
    for i in tl.range(0, end - first):
        chunk = end - 1 - i
        t = chunk * C
        k = load_rows(k_ptr, t, d, k_stride_l, L, C, D)
        q = load_rows(q_ptr, t, d, q_stride_l, L, C, D)
        do = load_columns(do_ptr, rows, t, do_stride_l, L, C, E)
        n = load_square(n_ptr, bh * num_chunks + chunk, C)
        beta = load_scalar(scalars_ptr, t, L, C)
        k_norm = load_scalar(scalars_ptr + plane, t, L, C)
        q_norm = load_scalar(scalars_ptr + 2 * plane, t, L, C)
        if not LOCAL:
            place = (bh * num_chunks + chunk) * (EP * DP)
            tl.store(grads_ptr + place + square, grad.to(grads_ptr.dtype.element_ty))
        do = (do.to(tl.float32) * q_norm[None, :]).to(k.dtype)
        p = tl.dot(q, tl.trans(k), input_precision=PRECISION)
        p = tl.where(r[:, None] >= r[None, :], p, 0.0).to(k.dtype)
        du = tl.dot(do, p, input_precision=PRECISION)
        du = dot_of_all(grad, tl.trans(k), du, PRECISION, DP <= MOST_DIM_IN_TWO)
        du *= k_norm[None, :]
        minus_z = dot_of_all(du * beta[None, :], n, -du, PRECISION)
        grad = tl.dot(do, q, grad, input_precision=PRECISION)
        written = (minus_z * (beta * k_norm)[None, :]).to(k.dtype)
        grad = tl.dot(written, k, grad, input_precision=PRECISION)
        if not LOCAL:
            store_columns(z_ptr, minus_z, rows, t, z_stride_l, L, E)
    if LOCAL:
        tl.store(links_ptr + (segment - 1) * (EP * DP) + square, grad)
    elif segment == 0:
        store_state(dinitial_ptr, grad, bh, rows, d, D, E)


@triton.jit(do_not_specialize=("H", "L", "num_chunks", "plane"))
def delta_rule_token_kernel(
    q_ptr,
    k_ptr,
    scalars_ptr,
    do_ptr,
    states_ptr,
    grads_ptr,
    y_ptr,
    dq_ptr,
    dk_ptr,
    dv_ptr,
    dbeta_ptr,
    inverse_scale,
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
    do_stride_b,
    do_stride_h,
    do_stride_l,
    dq_stride_b,
    dq_stride_h,
    dq_stride_l,
    dv_stride_b,
    dv_stride_h,
    dv_stride_l,
    D: tl.constexpr,
    DP: tl.constexpr,
    E: tl.constexpr,
    EP: tl.constexpr,
    C: tl.constexpr,
    Y_PARTS: tl.constexpr,
    BLOCK_E: tl.constexpr,
    L2NORM: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write dq and dk (strides of dq), ``dbeta [B, L, H]``, and dv in place of -Z."""
    pid = tl.program_id(0)
    chunk = pid % num_chunks
    bh = (pid // num_chunks).to(tl.int64)
    b, h = bh // H, bh % H
    t = chunk * C
    r, d = tl.arange(0, C), tl.arange(0, DP)
    q_ptr += b * q_stride_b + h * q_stride_h
    k_ptr += b * k_stride_b + h * k_stride_h
    do_ptr += b * do_stride_b + h * do_stride_h
    dq_ptr += b * dq_stride_b + h * dq_stride_h
    dk_ptr += b * dq_stride_b + h * dq_stride_h
    dv_ptr += b * dv_stride_b + h * dv_stride_h
    Y_STRIDE: tl.constexpr = Y_PARTS * EP
    y_ptr += bh * L * Y_STRIDE
    scalars_ptr += bh * L
    place = (bh * num_chunks + chunk) * (EP * DP)
    states_ptr += place
    grads_ptr += place
    beta = load_scalar(scalars_ptr, t, L, C)
    k_norm = load_scalar(scalars_ptr + plane, t, L, C)
    q_norm = load_scalar(scalars_ptr + 2 * plane, t, L, C)
    weight = beta * k_norm
    # rows tokens of the gradient, columns those it comes from
    from_q = tl.zeros([C, C], tl.float32)
    to_q = tl.zeros([C, C], tl.float32)
    before = tl.zeros([C, C], tl.float32)
    behind = tl.zeros([C, C], tl.float32)
    for block in tl.static_range(EP // BLOCK_E):
        e = block * BLOCK_E + tl.arange(0, BLOCK_E)
        do = load_rows(do_ptr, t, e, do_stride_l, L, C, E)
        y = load_rows(y_ptr, t, e, Y_STRIDE, L, C, EP)
        minus_z = load_rows(dv_ptr, t, e, dv_stride_l, L, C, E)
        to_q = tl.dot(do, tl.trans(y), to_q, input_precision=PRECISION)
        if Y_PARTS == 2:
            rest = load_rows(y_ptr + EP, t, e, Y_STRIDE, L, C, EP)
            to_q = tl.dot(do, tl.trans(rest), to_q, input_precision=PRECISION)
        from_q = tl.dot(y, tl.trans(do), from_q, input_precision=PRECISION)
        before = tl.dot(minus_z, tl.trans(y), before, input_precision=PRECISION)
        behind = tl.dot(y, tl.trans(minus_z), behind, input_precision=PRECISION)
    row, col = r[:, None], r[None, :]
    dtype: tl.constexpr = q_ptr.dtype.element_ty
    dbeta = -tl.sum(tl.where(row == col, before, 0.0), 1)
    to_q = tl.where(row >= col, to_q * weight[None, :], 0.0)
    from_q = tl.where(row <= col, from_q * q_norm[None, :], 0.0).to(dtype)
    pairs = tl.where(row > col, before, tl.where(row < col, behind, 0.0))
    pairs = (pairs * weight[None, :]).to(dtype)
    k = load_rows(k_ptr, t, d, k_stride_l, L, C, D)
    q = load_rows(q_ptr, t, d, q_stride_l, L, C, D)
    zero = tl.zeros([C, DP], tl.float32)
    dq = dot_of_all(to_q, k, zero, PRECISION, DP <= MOST_DIM_IN_TWO)
    dk = tl.dot(from_q, q, input_precision=PRECISION)
    dk = tl.dot(pairs, k, dk, input_precision=PRECISION)
    for block in tl.static_range(EP // BLOCK_E):
        e = block * BLOCK_E + tl.arange(0, BLOCK_E)
        square = e[:, None] * DP + d[None, :]
        do = load_rows(do_ptr, t, e, do_stride_l, L, C, E)
        y = load_rows(y_ptr, t, e, Y_STRIDE, L, C, EP)
        minus_z = load_rows(dv_ptr, t, e, dv_stride_l, L, C, E)
        state = tl.load(states_ptr + square)
        grad = tl.load(grads_ptr + square)
        dq = tl.dot(do, state, dq, input_precision=PRECISION)
        dk = tl.dot(minus_z, state, dk, input_precision=PRECISION)
        dk = tl.dot(y, grad, dk, input_precision=PRECISION)
    if L2NORM:
        wide = q.to(tl.float32)
        root = q_norm * inverse_scale
        dq -= wide * (tl.sum(dq * wide, 1) * root * root)[:, None]
        wide = k.to(tl.float32)
        dk -= wide * (tl.sum(dk * wide, 1) * k_norm * k_norm)[:, None]
    store_rows(dq_ptr, dq * q_norm[:, None], t, d, dq_stride_l, L, D)
    store_rows(dk_ptr, dk * weight[:, None], t, d, dq_stride_l, L, D)
    tokens = t + r
    tl.store(dbeta_ptr + (b * L + tokens) * H + h, dbeta, mask=tokens < L)
    for block in tl.static_range(EP // BLOCK_E):
        e = block * BLOCK_E + tl.arange(0, BLOCK_E)
        minus_z = load_rows(dv_ptr, t, e, dv_stride_l, L, C, E)
        store_rows(dv_ptr, minus_z * -beta[:, None], t, e, dv_stride_l, L, E)
