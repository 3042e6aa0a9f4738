"""Forward kernel of Sliding Tile Attention: one program per block of queries of one tile.

    for each tile in the window of the query tile, for each block of its keys:
        S = scale * Q K^T;  online softmax in base 2;  O += P V
    then the same over the text keys, which every query sees
    O / sum, and log-sum-exp in natural units

Keys are read once per block of queries; 4 * L * keys * D FLOPs per head. No mask is evaluated in
whole tiles. For queries of the text, SEEN is GRID: the tiles in the window of any tile are all.
"""

import triton
import triton.language as tl

from ena_kernels.sliding_tile.addresses import (
    load_rows,
    load_seen_keys,
    load_text_keys,
    num_blocks_seen,
    own_block,
    store_rows,
)

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def add_keys(q, k, v, top, total, acc, exist, scale, MASKED: tl.constexpr, FLIPPED: tl.constexpr):
    """One block of keys into the running softmax; FLIPPED where the scale is negative."""
    s = tl.dot(q, tl.trans(k), input_precision="ieee")
    if MASKED:
        s = tl.where(exist[None, :], s * scale, -float("inf"))
        new_top = tl.maximum(top, tl.max(s, 1))
        # rows that have seen no key yet would subtract infinity from itself
        new_top = tl.where(new_top == -float("inf"), -1e30, new_top)
        p = tl.exp2(s - new_top[:, None])
    elif FLIPPED:
        new_top = tl.maximum(top, tl.min(s, 1) * scale)
        p = tl.exp2(s * scale - new_top[:, None])
    else:
        new_top = tl.maximum(top, tl.max(s, 1) * scale)
        p = tl.exp2(s * scale - new_top[:, None])
    shrink = tl.exp2(top - new_top)
    total = total * shrink + tl.sum(p, 1)
    acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision="ieee")
    return new_top, total, acc


@triton.jit
def sliding_tile_fwd_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    o_ptr,
    lse_ptr,
    scale,
    num_heads,
    seq_len,
    canvas_len,
    num_blocks,
    Q_STRIDES,
    K_STRIDES,
    V_STRIDES,
    O_STRIDES,
    GRID,
    SEEN,
    STEPS,
    ROWS,
    SIDES,
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
    FLIPPED: tl.constexpr,
    ALIKE: tl.constexpr,
    OFFSET: tl.constexpr,
):
    MASKED_M: tl.constexpr = CUT or IS_TEXT or VOLUME % BLOCK_M != 0
    MASKED_N: tl.constexpr = CUT or VOLUME % BLOCK_N != 0
    program = tl.program_id(0)
    block = program % num_blocks
    head = (program // num_blocks).to(tl.int64)
    batch = head // num_heads
    kv_head = head % num_heads // GROUP
    q_head = q_ptr + batch * Q_STRIDES[0] + head % num_heads * Q_STRIDES[1]
    o_head = o_ptr + batch * O_STRIDES[0] + head % num_heads * O_STRIDES[1]
    k_head = k_ptr + batch * K_STRIDES[0] + kv_head * K_STRIDES[1]
    v_head = v_ptr + batch * V_STRIDES[0] + kv_head * V_STRIDES[1]
    lse_head = lse_ptr + head * seq_len

    query_tile, start, rows, queries_exist = own_block(
        block, canvas_len, seq_len, GRID, STEPS, ROWS, SIDES,
        TILE, NDIM, VOLUME, BLOCK_M, SPLIT_M, CUT, IS_TEXT,
    )  # fmt: skip
    q_rows = rows.to(OFFSET) * Q_STRIDES[2]
    q = load_rows(q_head + start * Q_STRIDES[2], q_rows, queries_exist, D, BLOCK_D, MASKED_M)
    scale = scale * LOG2_E
    top = tl.full([BLOCK_M], -float("inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)

    for i in tl.range(0, num_blocks_seen(SEEN, NDIM, VOLUME, BLOCK_N)):
        k, v, exist = load_seen_keys(
            i, query_tile, k_head, v_head, K_STRIDES[2], V_STRIDES[2],
            GRID, SEEN, STEPS, ROWS, SIDES, TILE, NDIM, VOLUME, CUT,
            D, BLOCK_D, BLOCK_N, SPLIT_N, MASKED_N, ALIKE, OFFSET,
        )  # fmt: skip
        top, total, acc = add_keys(q, k, v, top, total, acc, exist, scale, MASKED_N, FLIPPED)
    if HAS_TEXT:
        for token in tl.range(canvas_len, seq_len, BLOCK_N):
            k, v, exist = load_text_keys(
                token, seq_len, k_head, v_head, K_STRIDES[2], V_STRIDES[2],
                D, BLOCK_D, BLOCK_N, OFFSET,
            )  # fmt: skip
            top, total, acc = add_keys(q, k, v, top, total, acc, exist, scale, True, FLIPPED)

    lse_ptrs = lse_head + start + rows
    lse = (top + tl.log2(total)) * LN_2
    if MASKED_M:
        tl.store(lse_ptrs, lse, mask=queries_exist)
    else:
        tl.store(lse_ptrs, lse)
    o_rows = rows.to(OFFSET) * O_STRIDES[2]
    out = acc / total[:, None]
    store_rows(o_head + start * O_STRIDES[2], o_rows, queries_exist, out, D, BLOCK_D, MASKED_M)
