"""The Hopper backward of Sliding Tile Attention, the part that keys own: dk and dv (Gluon).

One program per (key head, key box): one warp loads, two warpgroups compute 64 of its keys each.

    K, V stay, Q, dO stream with their log-sum-exp and delta. Per step S^T = K Q^T runs with
    dK += dS^T Q of the step before; then P^T = exp(S^T - lse) under dP^T = V dO^T, and
    dS^T = P^T * (dP^T - delta) under dV += P^T dO.

P^T and dS^T go from one product to the next in registers, so the warpgroups share nothing but what
is loaded. No gradient is added up by two programs: results repeat exactly.
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
    seeing,
    unit_of,
)

LOG2_E = gl.constexpr(1.4426950408889634)


@gluon.jit
def _num_steps(unit, sizes):
    """Steps of the program that owns a key box, for every query head of its group."""
    num_heads, group, counts, seen, per_tile = sizes
    _batch, _head, box_0, box_1, box_2 = unit_of(unit, counts, num_heads)
    _, num_0 = seeing(box_0, counts[0], seen[0], per_tile[0])
    _, num_1 = seeing(box_1, counts[1], seen[1], per_tile[1])
    _, num_2 = seeing(box_2, counts[2], seen[2], per_tile[2])
    return num_0 * num_1 * num_2 * group * 2


@gluon.jit
def _load(
    descriptors, buffers, barriers, sizes, folds,
    BOX: gl.constexpr, HALF: gl.constexpr, NUM_AXES: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    q_desc, k_desc, v_desc, do_desc, lse_desc, delta_desc = descriptors
    q_smem, k_smem, v_smem, do_smem, lse_smem, delta_smem = buffers
    own_full, q_full, q_empty = barriers
    num_kv_heads, group, counts, seen, per_tile = sizes
    q_fold, k_fold, v_fold, do_fold = folds
    batch, kv_head, box_0, box_1, box_2 = unit_of(gl.program_id(0), counts, num_kv_heads)
    k_corner = corner_of(batch, kv_head, box_0, box_1, box_2, k_fold, counts, BOX, NUM_AXES)
    v_corner = corner_of(batch, kv_head, box_0, box_1, box_2, v_fold, counts, BOX, NUM_AXES)
    for w in gl.static_range(2):
        mbarrier.expect(own_full.index(w), 2 * k_desc.block_type.nbytes)
        load_box(k_desc, half_of(k_corner, w, HALF, NUM_AXES), own_full.index(w), k_smem.index(w))
        load_box(v_desc, half_of(v_corner, w, HALF, NUM_AXES), own_full.index(w), v_smem.index(w))
    first_0, num_0 = seeing(box_0, counts[0], seen[0], per_tile[0])
    first_1, num_1 = seeing(box_1, counts[1], seen[1], per_tile[1])
    first_2, num_2 = seeing(box_2, counts[2], seen[2], per_tile[2])
    per_head = num_0 * num_1 * num_2 * 2
    for step in range(per_head * group):
        head = kv_head * group + step // per_head
        j = step % per_head // 2
        query_0 = first_0 + j // num_2 // num_1
        query_1 = first_1 + j // num_2 % num_1
        query_2 = first_2 + j % num_2
        q_corner = corner_of(batch, head, query_0, query_1, query_2, q_fold, counts, BOX, NUM_AXES)
        do_corner = corner_of(
            batch, head, query_0, query_1, query_2, do_fold, counts, BOX, NUM_AXES
        )
        row = box_number(query_0, query_1, query_2, counts) * 128 + step % 2 * 64
        corner = (batch * num_kv_heads * group + head, row)
        stage = step % STAGES
        full = q_full.index(stage)
        mbarrier.wait(q_empty.index(stage), ((step // STAGES) & 1) ^ 1)
        # a log-sum-exp and a delta for each of 64 queries
        mbarrier.expect(full, (q_desc.block_type.nbytes + 64 * 4) * 2)
        load_box(q_desc, half_of(q_corner, step % 2, HALF, NUM_AXES), full, q_smem.index(stage))
        load_box(lse_desc, corner, full, lse_smem.index(stage))
        load_box(do_desc, half_of(do_corner, step % 2, HALF, NUM_AXES), full, do_smem.index(stage))
        load_box(delta_desc, corner, full, delta_smem.index(stage))


@gluon.jit
def _compute(
    W: gl.constexpr, shared,
    D: gl.constexpr, BOX: gl.constexpr, HALF: gl.constexpr, NUM_AXES: gl.constexpr,
    STAGES: gl.constexpr, DTYPE: gl.constexpr,
):  # fmt: skip
    descriptors, buffers, barriers, sizes, folds, scale = shared
    dk_desc, dv_desc = descriptors
    q_smem, k_smem, v_smem, do_smem, lse_smem, delta_smem = buffers
    own_full, q_full, q_empty = barriers
    num_kv_heads, _group, counts, _seen, _per_tile = sizes
    dk_fold, dv_fold = folds
    S_LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, 16])
    DK_LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    DS_LAYOUT: gl.constexpr = gl.DotOperandLayout(0, DK_LAYOUT, 2)
    S_COLUMNS: gl.constexpr = gl.SliceLayout(0, S_LAYOUT)
    num_steps = _num_steps(gl.program_id(0), sizes)
    scale_log2 = scale * LOG2_E
    zero = gl.zeros([64, 64], gl.float32, S_LAYOUT)
    dk = gl.zeros([64, D], gl.float32, DK_LAYOUT)
    dv = gl.zeros([64, D], gl.float32, DK_LAYOUT)
    mbarrier.wait(own_full.index(W), 0)
    dk_box = k_smem.index(W).reshape([64, D])
    dv_box = v_smem.index(W).reshape([64, D])
    # products read an operand faster from registers, which have room for this one at D = 64 only
    if D == 64:
        k = dk_box.load(gl.DotOperandLayout(0, S_LAYOUT, 2))
        v = dv_box.load(gl.DotOperandLayout(0, S_LAYOUT, 2))
    else:
        k = dk_box
        v = dv_box

    stage = 0
    mbarrier.wait(q_full.index(0), 0)
    q = q_smem.index(0).reshape([64, D])
    s_token = warpgroup_mma(k, q.permute((1, 0)), zero, use_acc=False, is_async=True)
    do = do_smem.index(0).reshape([64, D])
    dp_token = warpgroup_mma(v, do.permute((1, 0)), zero, use_acc=False, is_async=True)
    lse = lse_smem.index(0).reshape([64]).load(S_COLUMNS)
    s = warpgroup_mma_wait(1, deps=(s_token,))
    p = gl.exp2(s * scale_log2 - lse[None, :])
    p_half = gl.convert_layout(p.to(DTYPE), DS_LAYOUT)
    dv_token = warpgroup_mma(p_half, do, dv, is_async=True)
    delta = delta_smem.index(0).reshape([64]).load(S_COLUMNS)
    dp = warpgroup_mma_wait(1, deps=(dp_token,))
    ds = gl.convert_layout((p * (dp - delta[None, :])).to(DTYPE), DS_LAYOUT)
    dv = warpgroup_mma_wait(0, deps=(dv_token,))
    for step in range(1, num_steps):
        last_stage = stage
        stage = step % STAGES
        phase = (step // STAGES) & 1
        mbarrier.wait(q_full.index(stage), phase)
        q = q_smem.index(stage).reshape([64, D])
        s_token = warpgroup_mma(k, q.permute((1, 0)), zero, use_acc=False, is_async=True)
        last_q = q_smem.index(last_stage).reshape([64, D])
        dk_token = warpgroup_mma(ds, last_q, dk, is_async=True)
        dk, s = warpgroup_mma_wait(0, deps=(dk_token, s_token))
        mbarrier.arrive(q_empty.index(last_stage), count=1)
        do = do_smem.index(stage).reshape([64, D])
        dp_token = warpgroup_mma(v, do.permute((1, 0)), zero, use_acc=False, is_async=True)
        lse = lse_smem.index(stage).reshape([64]).load(S_COLUMNS)
        p = gl.exp2(s * scale_log2 - lse[None, :])
        p_half = gl.convert_layout(p.to(DTYPE), DS_LAYOUT)
        dv_token = warpgroup_mma(p_half, do, dv, is_async=True)
        delta = delta_smem.index(stage).reshape([64]).load(S_COLUMNS)
        dp = warpgroup_mma_wait(1, deps=(dp_token,))
        ds = gl.convert_layout((p * (dp - delta[None, :])).to(DTYPE), DS_LAYOUT)
        dv = warpgroup_mma_wait(0, deps=(dv_token,))
    dk_token = warpgroup_mma(ds, q_smem.index(stage).reshape([64, D]), dk, is_async=True)
    dv_box.store(dv.to(DTYPE))
    dk = warpgroup_mma_wait(0, deps=(dk_token,))
    dk_box.store((dk * scale).to(DTYPE))
    fence_async_shared()
    batch, kv_head, box_0, box_1, box_2 = unit_of(gl.program_id(0), counts, num_kv_heads)
    dk_corner = corner_of(batch, kv_head, box_0, box_1, box_2, dk_fold, counts, BOX, NUM_AXES)
    dv_corner = corner_of(batch, kv_head, box_0, box_1, box_2, dv_fold, counts, BOX, NUM_AXES)
    store_box(dk_desc, half_of(dk_corner, W, HALF, NUM_AXES), k_smem.index(W))
    store_box(dv_desc, half_of(dv_corner, W, HALF, NUM_AXES), v_smem.index(W))
    tma.store_wait(0)


@gluon.jit(
    do_not_specialize=(
        *("num_kv_heads", "group", "counts", "seen", "per_tile"),
        *("q_fold", "k_fold", "v_fold", "do_fold", "dk_fold", "dv_fold"),
    )
)
def sliding_tile_hopper_bwd_dkdv_kernel(
    q_desc, k_desc, v_desc, do_desc, lse_desc, delta_desc, dk_desc, dv_desc,
    scale, num_kv_heads, group, counts, seen, per_tile,
    q_fold, k_fold, v_fold, do_fold, dk_fold, dv_fold,
    D: gl.constexpr, BOX: gl.constexpr, HALF: gl.constexpr, NUM_AXES: gl.constexpr,
    STAGES: gl.constexpr,
):  # fmt: skip
    """One program per key head and key box; 64 queries per step.

    Args:
        lse_desc, delta_desc: float32 ``[B * H, L]``, what the other kernel wrote.
        The others: as in `addresses`.
    """
    own_box: gl.constexpr = k_desc.block_type.shape
    query_box: gl.constexpr = q_desc.block_type.shape
    dtype: gl.constexpr = q_desc.dtype
    k_smem = gl.allocate_shared_memory(dtype, [2] + own_box, k_desc.layout)  # noqa: RUF005
    v_smem = gl.allocate_shared_memory(dtype, [2] + own_box, v_desc.layout)  # noqa: RUF005
    q_smem = gl.allocate_shared_memory(dtype, [STAGES] + query_box, q_desc.layout)  # noqa: RUF005
    do_smem = gl.allocate_shared_memory(dtype, [STAGES] + query_box, do_desc.layout)  # noqa: RUF005
    lse_smem = gl.allocate_shared_memory(gl.float32, [STAGES, 1, 64], lse_desc.layout)
    delta_smem = gl.allocate_shared_memory(gl.float32, [STAGES, 1, 64], delta_desc.layout)
    own_full = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    q_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    q_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for w in gl.static_range(2):
        mbarrier.init(own_full.index(w), count=1)
    for s in gl.static_range(STAGES):
        mbarrier.init(q_full.index(s), count=1)
        mbarrier.init(q_empty.index(s), count=2)
    sizes = (num_kv_heads, group, counts, seen, per_tile)
    inputs = (q_desc, k_desc, v_desc, do_desc, lse_desc, delta_desc)
    buffers = (q_smem, k_smem, v_smem, do_smem, lse_smem, delta_smem)
    barriers = (own_full, q_full, q_empty)
    folds = (q_fold, k_fold, v_fold, do_fold)
    outputs = (dk_desc, dv_desc)
    out_folds = (dk_fold, dv_fold)
    shared = (outputs, buffers, barriers, sizes, out_folds, scale)
    # fmt: off
    gl.warp_specialize(
        [
            (_compute, (0, shared, D, BOX, HALF, NUM_AXES, STAGES, dtype)),
            (_compute, (1, shared, D, BOX, HALF, NUM_AXES, STAGES, dtype)),
            (_load, (inputs, buffers, barriers, sizes, folds, BOX, HALF, NUM_AXES, STAGES)),
        ],
        [4, 1],
        [240, 24],
    )
    # fmt: on
