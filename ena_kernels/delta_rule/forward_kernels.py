"""The recurrence of the delta rule over chunks and over segments of chunks, forward.

The state is kept transposed, ``[E, D]``: every row (a value channel) runs through the recurrence on
its own, and on Hopper every product of a chunk takes its left factor from registers. With N, P, b,
r_k and the scaled r_q of `inverse_kernel`, and with columns as tokens (S, V, W, Y, O transposed):

    W = V - (S K^T) diag(r_k)          what is new against the state at the start of the chunk
    Y = W - (W diag(b)) N^T            and against the tokens before in the chunk
    U = Y diag(b r_k)
    O = (S Q^T) diag(scale r_q) - (W diag(b)) P^T
    S <- S + U K

Few heads and long sequences: the sequence is cut into segments that run at the same time. The same
recurrence over the rows of the identity, with V = 0, gives the map M of a segment; its other half,
from a state of zeros, gives what the segment adds:

    transfer    per segment: rows [added | M], the first segment from the initial state
    chain       states at the ends of segments, S <- S M + added, in place of the added rows
    output      per segment, from its true state: o and the final state

Moved per token and head: K, Q, V, N, P in and O out once per BLOCK_R rows of the state, a second
time K, V, N where there are segments.
"""

# Legend: L tokens, D key dim, DP its power of two, E value dim, EP = E up to a multiple of R;
# R rows of the state per program, C chunk, segment = segment_chunks chunks.

import triton
import triton.language as tl

from ena_kernels.delta_rule import configs
from ena_kernels.delta_rule.configs import SIZES

MOST_DIM_IN_TWO = tl.constexpr(configs.MOST_DIM_IN_TWO)


@triton.jit
def load_rows(ptr, start, cols, stride, end, C: tl.constexpr, NUM_COLS: tl.constexpr):
    """Rows ``start .. start + C`` of a matrix with unit stride along its columns; zeros outside."""
    t = start + tl.arange(0, C)
    mask = (t < end)[:, None] & (cols < NUM_COLS)[None, :]
    offs = t.to(tl.int64)[:, None] * stride + cols[None, :]
    return tl.load(ptr + offs, mask=mask, other=0.0)


@triton.jit
def load_columns(ptr, rows, start, stride, end, C: tl.constexpr, NUM_ROWS: tl.constexpr):
    """The transpose of `load_rows` with `rows` in the part of its columns."""
    t = start + tl.arange(0, C)
    mask = (rows < NUM_ROWS)[:, None] & (t < end)[None, :]
    offs = t.to(tl.int64)[None, :] * stride + rows[:, None]
    return tl.load(ptr + offs, mask=mask, other=0.0)


@triton.jit
def store_columns(ptr, x, rows, start, stride, end, NUM_ROWS: tl.constexpr):
    """The inverse of `load_columns`."""
    t = start + tl.arange(0, x.shape[1])
    mask = (rows < NUM_ROWS)[:, None] & (t < end)[None, :]
    offs = t.to(tl.int64)[None, :] * stride + rows[:, None]
    tl.store(ptr + offs, x.to(ptr.dtype.element_ty), mask=mask)


@triton.jit
def load_scalar(ptr, start, end, C: tl.constexpr):
    """One value per token, zeros behind the last one."""
    t = start + tl.arange(0, C)
    return tl.load(ptr + t.to(tl.int64), mask=t < end, other=0.0)


@triton.jit
def load_square(ptr, index, C: tl.constexpr):
    """Matrix number `index` of those stored as ``[.., C, C]``."""
    r = tl.arange(0, C)
    return tl.load(ptr + index * (C * C) + r[:, None] * C + r[None, :])


@triton.jit
def dot_of_all(x, y, base, PRECISION: tl.constexpr, IN_TWO: tl.constexpr = True):
    """``base + x y`` where rounding x to y's half precision would cost too much: in two parts."""
    coarse = x.to(y.dtype)
    product = tl.dot(coarse, y, base, input_precision=PRECISION)
    if IN_TWO and y.dtype != tl.float32:
        rest = (x - coarse.to(tl.float32)).to(y.dtype)
        product = tl.dot(rest, y, product, input_precision=PRECISION)
    return product


@triton.jit
def advance(state, k, n, v, beta, k_norm, PRECISION: tl.constexpr):
    """The state behind a chunk, and Y and -W diag(b) (as the dots take it) of the chunk.

    state ``[R, DP]`` float32, k ``[C, DP]``, n ``[C, C]``, v ``[R, C]``, beta and k_norm ``[C]``.
    Where keys are similar, the sum of many updates is as small as one of them: it is taken in two
    parts, unless the state is wider than `configs.MOST_DIM_IN_TWO`.
    """
    IN_TWO: tl.constexpr = k.shape[1] <= MOST_DIM_IN_TWO
    stored = tl.dot(state.to(k.dtype), tl.trans(k), input_precision=PRECISION)
    w = v.to(tl.float32) - stored * k_norm[None, :]
    weighted = w * -beta[None, :]
    y = dot_of_all(weighted, tl.trans(n), w, PRECISION, IN_TWO)
    state = dot_of_all(y * (beta * k_norm)[None, :], k, state, PRECISION, IN_TWO)
    return state, y, weighted.to(k.dtype)


@triton.jit
def load_state(ptr, bh, rows, d, D: tl.constexpr, E: tl.constexpr):
    """Rows of the transpose of state number `bh` of ``[B * H, D, E]``; zeros where ptr is None."""
    state = tl.zeros([rows.shape[0], d.shape[0]], tl.float32)
    if ptr is not None:
        mask = (rows < E)[:, None] & (d < D)[None, :]
        offs = d[None, :] * E + rows[:, None]
        state = tl.load(ptr + bh * (D * E) + offs, mask=mask, other=0.0)
    return state


@triton.jit
def store_state(ptr, state, bh, rows, d, D: tl.constexpr, E: tl.constexpr):
    """The inverse of `load_state`."""
    mask = (rows < E)[:, None] & (d < D)[None, :]
    tl.store(ptr + bh * (D * E) + d[None, :] * E + rows[:, None], state, mask=mask)


@triton.jit(do_not_specialize=SIZES)
def delta_rule_transfer_kernel(
    k_ptr,
    v_ptr,
    n_ptr,
    scalars_ptr,
    initial_ptr,
    transfer_ptr,
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
    BLOCK_R: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write ``transfer [B * H, num_segments - 1, EP + DP, DP]`` of all segments but the last."""
    BLOCKS: tl.constexpr = (EP + tl.cdiv(DP, BLOCK_R) * BLOCK_R) // BLOCK_R
    pid = tl.program_id(0)
    block = pid % BLOCKS
    segment = (pid // BLOCKS) % (num_segments - 1)
    bh = (pid // BLOCKS // (num_segments - 1)).to(tl.int64)
    b, h = bh // H, bh % H
    rows, d = block * BLOCK_R + tl.arange(0, BLOCK_R), tl.arange(0, DP)
    k_ptr += b * k_stride_b + h * k_stride_h
    v_ptr += b * v_stride_b + h * v_stride_h
    scalars_ptr += bh * L
    transfer_ptr += (bh * (num_segments - 1) + segment) * ((EP + DP) * DP)
    transfer_ptrs = transfer_ptr + rows[:, None] * DP + d[None, :]
    state = tl.where(rows[:, None] == d[None, :] + EP, 1.0, 0.0)
    if segment == 0:
        # nothing comes before the first segment, so nobody needs its map
        if block * BLOCK_R >= EP:
            tl.store(transfer_ptrs, state * 0.0, mask=(rows < EP + DP)[:, None])
            return
        state = load_state(initial_ptr, bh, rows, d, D, E)
    first = segment * segment_chunks
    for chunk in tl.range(first, first + segment_chunks):
        t = chunk * C
        k = load_rows(k_ptr, t, d, k_stride_l, L, C, D)
        v = load_columns(v_ptr, rows, t, v_stride_l, L, C, E)
        n = load_square(n_ptr, bh * num_chunks + chunk, C)
        beta = load_scalar(scalars_ptr, t, L, C)
        k_norm = load_scalar(scalars_ptr + plane, t, L, C)
        state, _, _ = advance(state, k, n, v, beta, k_norm, PRECISION)
    tl.store(transfer_ptrs, state, mask=(rows < EP + DP)[:, None])


@triton.jit(do_not_specialize=("num_links",))
def delta_rule_chain_kernel(
    values_ptr,
    maps_ptr,
    num_links,
    values_stride,
    maps_stride,
    EP: tl.constexpr,
    DP: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BACKWARDS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """``x <- x M + values`` over the segments, in place of the values ``[EP, DP]`` of each.

    Link number i has its values and its map at i times their strides; a first one has no map.
    Backwards: ``x <- x M^T + values`` from the last to the first, the map one link further on.
    """
    pid = tl.program_id(0)
    rows = pid % (EP // BLOCK_R) * BLOCK_R + tl.arange(0, BLOCK_R)
    d = tl.arange(0, DP)
    bh = (pid // (EP // BLOCK_R)).to(tl.int64)
    values_ptr += bh * num_links * values_stride + rows[:, None] * DP + d[None, :]
    maps_ptr += bh * num_links * maps_stride + d[:, None] * DP + d[None, :]
    step = -1 if BACKWARDS else 1
    link = bh * 0 + (num_links - 1 if BACKWARDS else 0)
    x = tl.load(values_ptr + link * values_stride)
    for _ in tl.range(1, num_links):
        m = tl.load(maps_ptr + (link if BACKWARDS else link + 1) * maps_stride)
        link += step
        added = tl.load(values_ptr + link * values_stride)
        if BACKWARDS:
            m = tl.trans(m)
        x = tl.dot(x, m, added, input_precision=PRECISION)
        tl.store(values_ptr + link * values_stride, x)


@triton.jit(do_not_specialize=SIZES)
def delta_rule_output_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    n_ptr,
    p_ptr,
    scalars_ptr,
    initial_ptr,
    transfer_ptr,
    o_ptr,
    final_ptr,
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
    v_stride_b,
    v_stride_h,
    v_stride_l,
    o_stride_b,
    o_stride_h,
    o_stride_l,
    D: tl.constexpr,
    DP: tl.constexpr,
    E: tl.constexpr,
    EP: tl.constexpr,
    C: tl.constexpr,
    BLOCK_R: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write o and, behind the last segment, the final state ``[B * H, D, E]``."""
    pid = tl.program_id(0)
    rows = pid % (EP // BLOCK_R) * BLOCK_R + tl.arange(0, BLOCK_R)
    segment = (pid // (EP // BLOCK_R)) % num_segments
    bh = (pid // (EP // BLOCK_R) // num_segments).to(tl.int64)
    b, h = bh // H, bh % H
    d = tl.arange(0, DP)
    q_ptr += b * q_stride_b + h * q_stride_h
    k_ptr += b * k_stride_b + h * k_stride_h
    v_ptr += b * v_stride_b + h * v_stride_h
    o_ptr += b * o_stride_b + h * o_stride_h
    scalars_ptr += bh * L
    if segment == 0:
        state = load_state(initial_ptr, bh, rows, d, D, E)
    else:
        transfer_ptr += (bh * (num_segments - 1) + segment - 1) * ((EP + DP) * DP)
        state = tl.load(transfer_ptr + rows[:, None] * DP + d[None, :])
    first = segment * segment_chunks
    for chunk in tl.range(first, tl.minimum(first + segment_chunks, num_chunks)):
        t = chunk * C
        k = load_rows(k_ptr, t, d, k_stride_l, L, C, D)
        q = load_rows(q_ptr, t, d, q_stride_l, L, C, D)
        v = load_columns(v_ptr, rows, t, v_stride_l, L, C, E)
        n = load_square(n_ptr, bh * num_chunks + chunk, C)
        p = load_square(p_ptr, bh * num_chunks + chunk, C)
        beta = load_scalar(scalars_ptr, t, L, C)
        k_norm = load_scalar(scalars_ptr + plane, t, L, C)
        q_norm = load_scalar(scalars_ptr + 2 * plane, t, L, C)
        o = tl.dot(state.to(q.dtype), tl.trans(q), input_precision=PRECISION) * q_norm[None, :]
        state, _, weighted = advance(state, k, n, v, beta, k_norm, PRECISION)
        o = tl.dot(weighted, tl.trans(p), o, input_precision=PRECISION)
        store_columns(o_ptr, o, rows, t, o_stride_l, L, E)
    if segment == num_segments - 1:
        store_state(final_ptr, state, bh, rows, d, D, E)
