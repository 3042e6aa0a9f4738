"""Backward kernels of Sliding Tile Attention, one owned by queries and one by keys.

    dq:     delta = sum(dO * O) - dlse;  for the keys that a block of queries sees:
            P = exp(S - lse);  dS = P * (dO V^T - delta);  dQ += dS K
    dk, dv: for the queries that see a block of keys, of every head that shares them:
            P^T = exp(S^T - lse);  dV += P^T dO;  dS^T = P^T * (V dO^T - delta);  dK += dS^T Q

Both recompute S, so no gradient is added up by two programs and the result does not vary from run
to run. S^T is computed as K Q^T, never by transposing a product.
"""

import triton
import triton.language as tl

from ena_kernels.sliding_tile.addresses import (
    block_tokens,
    load_rows,
    load_seen_keys,
    load_text_keys,
    num_blocks_seen,
    num_seeing,
    own_block,
    rows_exist,
    seeing_tile,
    store_rows,
)

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def add_to_dq(q, k, v, do, dq, lse, delta, exist, scale, MASKED: tl.constexpr):
    """What one block of keys adds to dQ, short of the scale."""
    s = tl.dot(q, tl.trans(k), input_precision="ieee")
    p = tl.exp2(s * scale - lse[:, None])
    if MASKED:
        p = tl.where(exist[None, :], p, 0.0)
    dp = tl.dot(do, tl.trans(v), input_precision="ieee")
    ds = p * (dp - delta[:, None])
    return tl.dot(ds.to(k.dtype), k, dq, input_precision="ieee")


@triton.jit
def add_to_dkdv(q, k, v, do, dk, dv, lse, delta, scale):
    """What one block of queries adds to dK, short of the scale, and to dV."""
    s = tl.dot(k, tl.trans(q), input_precision="ieee")
    p = tl.exp2(s * scale - lse[None, :])
    dv = tl.dot(p.to(do.dtype), do, dv, input_precision="ieee")
    dp = tl.dot(v, tl.trans(do), input_precision="ieee")
    ds = p * (dp - delta[None, :])
    dk = tl.dot(ds.to(q.dtype), q, dk, input_precision="ieee")
    return dk, dv


@triton.jit
def load_row_values(ptrs, exist, other, MASKED: tl.constexpr):
    """One float per row; `other` where a row does not exist."""
    if MASKED:
        return tl.load(ptrs, mask=exist, other=other)
    else:
        return tl.load(ptrs)


@triton.jit
def divided(step, length, GROUP: tl.constexpr):
    """Which query head of a group a step is for, and the step within it."""
    if GROUP > 1:
        return (step // length).to(tl.int64), step % length
    else:
        return 0, step


@triton.jit
def sliding_tile_bwd_dq_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    o_ptr,
    do_ptr,
    lse_ptr,
    dlse_ptr,
    base_2_lse_ptr,
    delta_ptr,
    dq_ptr,
    scale,
    num_heads,
    seq_len,
    canvas_len,
    num_blocks,
    Q_STRIDES,
    K_STRIDES,
    V_STRIDES,
    O_STRIDES,
    DO_STRIDES,
    DQ_STRIDES,
    GRID,
    SEEN,
    STEPS,
    ROWS,
    SIDES,
    num_rows,
    TILE: tl.constexpr,
    NDIM: tl.constexpr,
    VOLUME: tl.constexpr,
    CUT: tl.constexpr,
    HAS_TEXT: tl.constexpr,
    IS_TEXT: tl.constexpr,
    HAS_DLSE: tl.constexpr,
    GROUP: tl.constexpr,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    SPLIT_M: tl.constexpr,
    SPLIT_N: tl.constexpr,
    ALIKE: tl.constexpr,
    OFFSET: tl.constexpr,
):
    BLOCKS_M: tl.constexpr = (VOLUME + BLOCK_M - 1) // BLOCK_M
    MASKED_M: tl.constexpr = CUT or IS_TEXT or VOLUME % BLOCK_M != 0
    MASKED_N: tl.constexpr = CUT or VOLUME % BLOCK_N != 0
    program = tl.program_id(0)
    block = program % num_blocks
    all_heads = (program // num_blocks).to(tl.int64)
    batch = all_heads // num_heads
    head = all_heads % num_heads
    k_head = k_ptr + batch * K_STRIDES[0] + head // GROUP * K_STRIDES[1]
    v_head = v_ptr + batch * V_STRIDES[0] + head // GROUP * V_STRIDES[1]

    query_tile, start, rows, queries_exist = own_block(
        block, canvas_len, seq_len, GRID, STEPS, ROWS, SIDES,
        TILE, NDIM, VOLUME, BLOCK_M, SPLIT_M, CUT, IS_TEXT,
    )  # fmt: skip
    wide_rows = rows.to(OFFSET)
    q_base = q_ptr + batch * Q_STRIDES[0] + head * Q_STRIDES[1] + start * Q_STRIDES[2]
    o_base = o_ptr + batch * O_STRIDES[0] + head * O_STRIDES[1] + start * O_STRIDES[2]
    do_base = do_ptr + batch * DO_STRIDES[0] + head * DO_STRIDES[1] + start * DO_STRIDES[2]
    q = load_rows(q_base, wide_rows * Q_STRIDES[2], queries_exist, D, BLOCK_D, MASKED_M)
    o = load_rows(o_base, wide_rows * O_STRIDES[2], queries_exist, D, BLOCK_D, MASKED_M)
    do = load_rows(do_base, wide_rows * DO_STRIDES[2], queries_exist, D, BLOCK_D, MASKED_M)
    delta = tl.sum(o.to(tl.float32) * do.to(tl.float32), 1)
    row_values = all_heads * seq_len + start + rows
    lse = load_row_values(lse_ptr + row_values, queries_exist, float("inf"), MASKED_M) * LOG2_E
    if HAS_DLSE:
        delta -= load_row_values(dlse_ptr + row_values, queries_exist, 0.0, MASKED_M)
    # the other kernel finds both by tile, where the rows of a block are neighbours
    row = block * BLOCK_M + tl.arange(0, BLOCK_M)
    last = seq_len - canvas_len
    if not IS_TEXT:
        row = block % BLOCKS_M * BLOCK_M + tl.arange(0, BLOCK_M)
        last = VOLUME
    by_tile = all_heads * num_rows + row
    if IS_TEXT:
        by_tile += num_rows - last
    else:
        by_tile += query_tile * VOLUME
    tl.store(base_2_lse_ptr + by_tile, lse, mask=row < last)
    tl.store(delta_ptr + by_tile, delta, mask=row < last)
    dq = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)

    for i in tl.range(0, num_blocks_seen(SEEN, NDIM, VOLUME, BLOCK_N)):
        k, v, exist = load_seen_keys(
            i, query_tile, k_head, v_head, K_STRIDES[2], V_STRIDES[2],
            GRID, SEEN, STEPS, ROWS, SIDES, TILE, NDIM, VOLUME, CUT,
            D, BLOCK_D, BLOCK_N, SPLIT_N, MASKED_N, ALIKE, OFFSET,
        )  # fmt: skip
        dq = add_to_dq(q, k, v, do, dq, lse, delta, exist, scale * LOG2_E, MASKED_N)
    if HAS_TEXT:
        for token in tl.range(canvas_len, seq_len, BLOCK_N):
            k, v, exist = load_text_keys(
                token, seq_len, k_head, v_head, K_STRIDES[2], V_STRIDES[2],
                D, BLOCK_D, BLOCK_N, OFFSET,
            )  # fmt: skip
            dq = add_to_dq(q, k, v, do, dq, lse, delta, exist, scale * LOG2_E, True)

    dq_base = dq_ptr + batch * DQ_STRIDES[0] + head * DQ_STRIDES[1] + start * DQ_STRIDES[2]
    dq_rows = wide_rows * DQ_STRIDES[2]
    store_rows(dq_base, dq_rows, queries_exist, dq * scale, D, BLOCK_D, MASKED_M)


@triton.jit
def sliding_tile_bwd_dkdv_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    do_ptr,
    base_2_lse_ptr,
    delta_ptr,
    dk_ptr,
    dv_ptr,
    scale,
    num_kv_heads,
    seq_len,
    canvas_len,
    num_blocks,
    Q_STRIDES,
    K_STRIDES,
    V_STRIDES,
    DO_STRIDES,
    DK_STRIDES,
    DV_STRIDES,
    GRID,
    SEEN,
    STEPS,
    ROWS,
    SIDES,
    num_rows,
    TILE: tl.constexpr,
    NDIM: tl.constexpr,
    VOLUME: tl.constexpr,
    CUT: tl.constexpr,
    HAS_TEXT: tl.constexpr,
    IS_TEXT: tl.constexpr,
    GROUP: tl.constexpr,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    SPLIT_M: tl.constexpr,
    SPLIT_N: tl.constexpr,
    ALIKE: tl.constexpr,
    OFFSET: tl.constexpr,
):
    BLOCKS_M: tl.constexpr = (VOLUME + BLOCK_M - 1) // BLOCK_M
    TAIL_M: tl.constexpr = VOLUME % BLOCK_M != 0
    MASKED_M: tl.constexpr = CUT or TAIL_M
    MASKED_N: tl.constexpr = CUT or IS_TEXT or VOLUME % BLOCK_N != 0
    program = tl.program_id(0)
    block = program % num_blocks
    all_kv_heads = (program // num_blocks).to(tl.int64)
    batch = all_kv_heads // num_kv_heads
    kv_head = all_kv_heads % num_kv_heads

    key_tile, start, rows, keys_exist = own_block(
        block, canvas_len, seq_len, GRID, STEPS, ROWS, SIDES,
        TILE, NDIM, VOLUME, BLOCK_N, SPLIT_N, CUT, IS_TEXT,
    )  # fmt: skip
    wide_rows = rows.to(OFFSET)
    k_base = k_ptr + batch * K_STRIDES[0] + kv_head * K_STRIDES[1] + start * K_STRIDES[2]
    v_base = v_ptr + batch * V_STRIDES[0] + kv_head * V_STRIDES[1] + start * V_STRIDES[2]
    k = load_rows(k_base, wide_rows * K_STRIDES[2], keys_exist, D, BLOCK_D, MASKED_N)
    v = load_rows(v_base, wide_rows * V_STRIDES[2], keys_exist, D, BLOCK_D, MASKED_N)
    dk = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    dv = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    q_head = q_ptr + batch * Q_STRIDES[0] + kv_head * GROUP * Q_STRIDES[1]
    do_head = do_ptr + batch * DO_STRIDES[0] + kv_head * GROUP * DO_STRIDES[1]
    lse_head = base_2_lse_ptr + all_kv_heads * GROUP * num_rows
    delta_head = delta_ptr + all_kv_heads * GROUP * num_rows

    num_queries = num_seeing(key_tile, GRID, SEEN, NDIM) * BLOCKS_M
    for step in tl.range(0, num_queries * GROUP):
        head, i = divided(step, num_queries, GROUP)
        token, number = seeing_tile(key_tile, i // BLOCKS_M, GRID, SEEN, STEPS, NDIM)
        extra, queries = block_tokens(i % BLOCKS_M, TILE, ROWS, NDIM, BLOCK_M, SPLIT_M)
        exist = rows_exist(number, i % BLOCKS_M, GRID, SIDES, TILE, NDIM, VOLUME, BLOCK_M, CUT)
        token = (token + extra).to(tl.int64)
        q_base = q_head + head * Q_STRIDES[1] + token * Q_STRIDES[2]
        do_base = do_head + head * DO_STRIDES[1] + token * DO_STRIDES[2]
        q_rows = queries.to(OFFSET) * Q_STRIDES[2]
        do_rows = q_rows if ALIKE else queries.to(OFFSET) * DO_STRIDES[2]
        row = i % BLOCKS_M * BLOCK_M + tl.arange(0, BLOCK_M)
        values = head * num_rows + number * VOLUME + row
        q = load_rows(q_base, q_rows, exist, D, BLOCK_D, MASKED_M)
        lse = load_row_values(lse_head + values, row < VOLUME, float("inf"), TAIL_M)
        do = load_rows(do_base, do_rows, exist, D, BLOCK_D, MASKED_M)
        delta = load_row_values(delta_head + values, row < VOLUME, 0.0, TAIL_M)
        dk, dv = add_to_dkdv(q, k, v, do, dk, dv, lse, delta, scale * LOG2_E)
    if HAS_TEXT:
        num_queries = tl.cdiv(seq_len - canvas_len, BLOCK_M)
        for step in tl.range(0, num_queries * GROUP):
            head, i = divided(step, num_queries, GROUP)
            queries = i * BLOCK_M + tl.arange(0, BLOCK_M)
            exist = canvas_len + queries < seq_len
            q_base = q_head + head * Q_STRIDES[1] + tl.cast(canvas_len, tl.int64) * Q_STRIDES[2]
            do_base = do_head + head * DO_STRIDES[1] + tl.cast(canvas_len, tl.int64) * DO_STRIDES[2]
            values = head * num_rows + num_rows - (seq_len - canvas_len) + queries
            wide = queries.to(tl.int64)
            q = load_rows(q_base, wide * Q_STRIDES[2], exist, D, BLOCK_D, True)
            lse = load_row_values(lse_head + values, exist, float("inf"), True)
            do = load_rows(do_base, wide * DO_STRIDES[2], exist, D, BLOCK_D, True)
            delta = load_row_values(delta_head + values, exist, 0.0, True)
            dk, dv = add_to_dkdv(q, k, v, do, dk, dv, lse, delta, scale * LOG2_E)

    dk_base = dk_ptr + batch * DK_STRIDES[0] + kv_head * DK_STRIDES[1] + start * DK_STRIDES[2]
    dv_base = dv_ptr + batch * DV_STRIDES[0] + kv_head * DV_STRIDES[1] + start * DV_STRIDES[2]
    dk_rows, dv_rows = wide_rows * DK_STRIDES[2], wide_rows * DV_STRIDES[2]
    store_rows(dk_base, dk_rows, keys_exist, dk * scale, D, BLOCK_D, MASKED_N)
    store_rows(dv_base, dv_rows, keys_exist, dv, D, BLOCK_D, MASKED_N)
