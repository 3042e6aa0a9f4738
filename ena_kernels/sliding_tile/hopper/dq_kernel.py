"""The Hopper backward of Sliding Tile Attention, the part that queries own: dq (Gluon).

One program per (head, query box): one warp loads, two warpgroups compute 64 of its queries each.

    Q, dO, O stay, K, V stream. delta = rowsum(dO * O) - dlse. Per step S = Q K^T and dP = dO V^T
    are issued around dQ += dS K of the step before, and P = exp(S - lse) runs under them;
    then dS = P * (dP - delta), which goes into the next product from registers.

Leaves the log-sum-exp in base 2 and delta, box after box, for the part that keys own.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from ena_kernels.gluon_names import load_box, store_box
from ena_kernels.sliding_tile.hopper.addresses import (
    box_number,
    corner_of,
    half_of,
    load_seen_keys,
    tokens_of,
    unit_of,
)

LOG2_E = gl.constexpr(1.4426950408889634)


@gluon.jit
def _load(
    descriptors, buffers, barriers, sizes, folds,
    BOX: gl.constexpr, HALF: gl.constexpr, NUM_AXES: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    q_desc, k_desc, v_desc, o_desc, do_desc = descriptors
    q_smem, k_smem, v_smem, o_smem, do_smem = buffers
    own_full, o_full, kv_full, kv_empty = barriers
    num_heads, group, counts, seen, per_tile = sizes
    q_fold, k_fold, v_fold, o_fold, do_fold = folds
    batch, head, box_0, box_1, box_2 = unit_of(gl.program_id(0), counts, num_heads)
    q_corner = corner_of(batch, head, box_0, box_1, box_2, q_fold, counts, BOX, NUM_AXES)
    o_corner = corner_of(batch, head, box_0, box_1, box_2, o_fold, counts, BOX, NUM_AXES)
    do_corner = corner_of(batch, head, box_0, box_1, box_2, do_fold, counts, BOX, NUM_AXES)
    for w in gl.static_range(2):
        q_half = half_of(q_corner, w, HALF, NUM_AXES)
        do_half = half_of(do_corner, w, HALF, NUM_AXES)
        mbarrier.expect(own_full.index(w), 2 * q_desc.block_type.nbytes)
        load_box(q_desc, q_half, own_full.index(w), q_smem.index(w))
        load_box(do_desc, do_half, own_full.index(w), do_smem.index(w))
    for w in gl.static_range(2):
        mbarrier.expect(o_full.index(w), o_desc.block_type.nbytes)
        load_box(o_desc, half_of(o_corner, w, HALF, NUM_AXES), o_full.index(w), o_smem.index(w))
    step = 0
    load_seen_keys(
        step, batch, head // group, box_0, box_1, box_2, (k_desc, v_desc), (k_smem, v_smem),
        (kv_full, kv_empty, kv_full, kv_empty), (k_fold, v_fold), counts, seen, per_tile,
        BOX, HALF, NUM_AXES, STAGES, 64, True,
    )  # fmt: skip


@gluon.jit
def _compute(
    W: gl.constexpr, shared,
    D: gl.constexpr, BOX: gl.constexpr, HALF: gl.constexpr, HALF_BOX: gl.constexpr,
    NUM_AXES: gl.constexpr, STAGES: gl.constexpr, HAS_DLSE: gl.constexpr, DTYPE: gl.constexpr,
):  # fmt: skip
    dq_desc, floats, buffers, barriers, sizes, dq_fold, sides, scale = shared
    lse_ptr, dlse_ptr, base_2_lse_ptr, delta_ptr = floats
    q_smem, k_smem, v_smem, o_smem, do_smem = buffers
    own_full, o_full, kv_full, kv_empty = barriers
    num_heads, _group, counts, seen, _per_tile = sizes
    S_LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, 16])
    DQ_LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    DS_LAYOUT: gl.constexpr = gl.DotOperandLayout(0, DQ_LAYOUT, 2)
    S_ROWS: gl.constexpr = gl.SliceLayout(1, S_LAYOUT)
    num_tokens = counts[0] * counts[1] * counts[2] * 128
    batch, head, box_0, box_1, box_2 = unit_of(gl.program_id(0), counts, num_heads)
    all_heads = (batch * num_heads + head).to(gl.int64) * num_tokens
    row = gl.arange(0, 64, layout=S_ROWS)
    token = all_heads + tokens_of(
        W, row, box_0, box_1, box_2, counts, sides, BOX, HALF, HALF_BOX, NUM_AXES
    )
    place = all_heads + box_number(box_0, box_1, box_2, counts) * 128 + W * 64 + row
    lse = gl.load(lse_ptr + token) * LOG2_E
    mbarrier.wait(own_full.index(W), 0)
    do_box = do_smem.index(W).reshape([64, D])
    o_box = o_smem.index(W).reshape([64, D])
    # products read an operand faster from registers, which have room for this one at D = 64 only
    if D == 64:
        q = q_smem.index(W).reshape([64, D]).load(gl.DotOperandLayout(0, S_LAYOUT, 2))
        do = do_box.load(gl.DotOperandLayout(0, S_LAYOUT, 2))
    else:
        q = q_smem.index(W).reshape([64, D])
        do = do_box
    zero = gl.zeros([64, 64], gl.float32, S_LAYOUT)
    dq = gl.zeros([64, D], gl.float32, DQ_LAYOUT)
    scale_log2 = scale * LOG2_E

    stage = 0
    phase = 0
    mbarrier.wait(kv_full.index(0), 0)
    k = k_smem.index(0).reshape([64, D])
    s_token = warpgroup_mma(q, k.permute((1, 0)), zero, use_acc=False, is_async=True)
    v = v_smem.index(0).reshape([64, D])
    dp_token = warpgroup_mma(do, v.permute((1, 0)), zero, use_acc=False, is_async=True)
    mbarrier.wait(o_full.index(W), 0)
    # delta is computed while the first two products run
    products = o_box.load(DQ_LAYOUT).to(gl.float32) * do_box.load(DQ_LAYOUT).to(gl.float32)
    delta = gl.convert_layout(gl.sum(products, 1), S_ROWS)
    if HAS_DLSE:
        delta -= gl.load(dlse_ptr + token)
    gl.store(base_2_lse_ptr + place, lse)
    gl.store(delta_ptr + place, delta)
    s = warpgroup_mma_wait(1, deps=(s_token,))
    p = gl.exp2(s * scale_log2 - lse[:, None])
    dp = warpgroup_mma_wait(0, deps=(dp_token,))
    ds = gl.convert_layout((p * (dp - delta[:, None])).to(DTYPE), DS_LAYOUT)
    for step in range(1, seen[0] * seen[1] * seen[2] * 2):
        last_stage = stage
        stage = step % STAGES
        phase = (step // STAGES) & 1
        mbarrier.wait(kv_full.index(stage), phase)
        k = k_smem.index(stage).reshape([64, D])
        s_token = warpgroup_mma(q, k.permute((1, 0)), zero, use_acc=False, is_async=True)
        last_k = k_smem.index(last_stage).reshape([64, D])
        dq_token = warpgroup_mma(ds, last_k, dq, is_async=True)
        v = v_smem.index(stage).reshape([64, D])
        dp_token = warpgroup_mma(do, v.permute((1, 0)), zero, use_acc=False, is_async=True)
        s = warpgroup_mma_wait(2, deps=(s_token,))
        p = gl.exp2(s * scale_log2 - lse[:, None])
        dq, dp = warpgroup_mma_wait(0, deps=(dq_token, dp_token))
        mbarrier.arrive(kv_empty.index(last_stage), count=1)
        ds = gl.convert_layout((p * (dp - delta[:, None])).to(DTYPE), DS_LAYOUT)
    dq_token = warpgroup_mma(ds, k_smem.index(stage).reshape([64, D]), dq, is_async=True)
    dq = warpgroup_mma_wait(0, deps=(dq_token,))
    o_box.store((dq * scale).to(DTYPE))
    fence_async_shared()
    corner = corner_of(batch, head, box_0, box_1, box_2, dq_fold, counts, BOX, NUM_AXES)
    store_box(dq_desc, half_of(corner, W, HALF, NUM_AXES), o_smem.index(W))
    tma.store_wait(0)


@gluon.jit(
    do_not_specialize=(
        *("num_heads", "group", "counts", "seen", "per_tile", "sides"),
        *("q_fold", "k_fold", "v_fold", "o_fold", "do_fold", "dq_fold"),
    )
)
def sliding_tile_hopper_bwd_dq_kernel(
    q_desc, k_desc, v_desc, o_desc, do_desc, dq_desc,
    lse_ptr, dlse_ptr, base_2_lse_ptr, delta_ptr, scale, num_heads, group,
    counts, seen, per_tile, sides,
    q_fold, k_fold, v_fold, o_fold, do_fold, dq_fold,
    D: gl.constexpr, BOX: gl.constexpr, HALF: gl.constexpr, HALF_BOX: gl.constexpr,
    NUM_AXES: gl.constexpr, STAGES: gl.constexpr, HAS_DLSE: gl.constexpr,
):  # fmt: skip
    """One program per query head and query box; 64 keys per step.

    Args:
        lse_ptr, dlse_ptr: float32 ``[B, H, L]``, natural units, in the order of the tokens.
        base_2_lse_ptr, delta_ptr: float32 ``[B, H, L]``, box after box; written.
        The others: as in `addresses`.
    """
    own_box: gl.constexpr = q_desc.block_type.shape
    key_box: gl.constexpr = k_desc.block_type.shape
    dtype: gl.constexpr = q_desc.dtype
    q_smem = gl.allocate_shared_memory(dtype, [2] + own_box, q_desc.layout)  # noqa: RUF005
    o_smem = gl.allocate_shared_memory(dtype, [2] + own_box, o_desc.layout)  # noqa: RUF005
    do_smem = gl.allocate_shared_memory(dtype, [2] + own_box, do_desc.layout)  # noqa: RUF005
    k_smem = gl.allocate_shared_memory(dtype, [STAGES] + key_box, k_desc.layout)  # noqa: RUF005
    v_smem = gl.allocate_shared_memory(dtype, [STAGES] + key_box, v_desc.layout)  # noqa: RUF005
    own_full = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    o_full = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    kv_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    kv_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for w in gl.static_range(2):
        mbarrier.init(own_full.index(w), count=1)
        mbarrier.init(o_full.index(w), count=1)
    for s in gl.static_range(STAGES):
        mbarrier.init(kv_full.index(s), count=1)
        mbarrier.init(kv_empty.index(s), count=2)
    sizes = (num_heads, group, counts, seen, per_tile)
    inputs = (q_desc, k_desc, v_desc, o_desc, do_desc)
    buffers = (q_smem, k_smem, v_smem, o_smem, do_smem)
    barriers = (own_full, o_full, kv_full, kv_empty)
    folds = (q_fold, k_fold, v_fold, o_fold, do_fold)
    floats = (lse_ptr, dlse_ptr, base_2_lse_ptr, delta_ptr)
    shared = (dq_desc, floats, buffers, barriers, sizes, dq_fold, sides, scale)
    # fmt: off
    gl.warp_specialize(
        [
            (_compute, (0, shared, D, BOX, HALF, HALF_BOX, NUM_AXES, STAGES, HAS_DLSE, dtype)),
            (_compute, (1, shared, D, BOX, HALF, HALF_BOX, NUM_AXES, STAGES, HAS_DLSE, dtype)),
            (_load, (inputs, buffers, barriers, sizes, folds, BOX, HALF, NUM_AXES, STAGES)),
        ],
        [4, 1],
        [240, 24],
    )
    # fmt: on
