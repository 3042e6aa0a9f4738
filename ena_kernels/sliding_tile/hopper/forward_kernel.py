"""The Hopper forward of Sliding Tile Attention: one warp loads, two warpgroups compute (Gluon).

One program per multiprocessor takes every num_programs-th (head, query box):

    loader:        Q of the next unit while this one runs; then K, V of every box seen
    warpgroup w:   64 of the 128 queries, from registers: S(j+1) = Q K^T is issued, then
                   O += P(j) V(j); the softmax of j+1 runs under that second product; O leaves by
                   TMA under the next unit

The tensor memory accelerator (TMA) moves boxes. Kept in shared memory: 64 KiB of Q and O and
STAGES * 64 KiB of K and V at D = 128, bfloat16.
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
    corner_of,
    half_of,
    load_seen_keys,
    tokens_of,
    unit_of,
)


@gluon.jit
def _top(s, scale_log2, FLIPPED: gl.constexpr):
    """Largest scaled score of every row; FLIPPED where the scale is negative."""
    if FLIPPED:  # noqa: SIM108
        top = gl.min(s, 1)
    else:
        top = gl.max(s, 1)
    return top * scale_log2


@gluon.jit
def _load(
    descriptors, buffers, barriers, sizes, folds,
    BOX: gl.constexpr, HALF: gl.constexpr, NUM_AXES: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    q_desc, k_desc, v_desc = descriptors
    q_smem, k_smem, v_smem = buffers
    q_full, q_empty, k_full, k_empty, v_full, v_empty = barriers
    num_units, num_heads, group, counts, seen, per_tile = sizes
    q_fold, k_fold, v_fold = folds
    step = 0
    num_done = 0
    for unit in range(gl.program_id(0), num_units, gl.num_programs(0)):
        batch, head, box_0, box_1, box_2 = unit_of(unit, counts, num_heads)
        corner = corner_of(batch, head, box_0, box_1, box_2, q_fold, counts, BOX, NUM_AXES)
        for w in gl.static_range(2):
            mbarrier.wait(q_empty.index(w), (num_done & 1) ^ 1)
            mbarrier.expect(q_full.index(w), q_desc.block_type.nbytes)
            half = half_of(corner, w, HALF, NUM_AXES)
            load_box(q_desc, half, q_full.index(w), q_smem.index(w))
        step = load_seen_keys(
            step, batch, head // group, box_0, box_1, box_2, (k_desc, v_desc), (k_smem, v_smem),
            (k_full, k_empty, v_full, v_empty), (k_fold, v_fold), counts, seen, per_tile,
            BOX, HALF, NUM_AXES, STAGES, 128, False,
        )  # fmt: skip
        num_done += 1  # noqa: SIM113


@gluon.jit
def _compute(
    W: gl.constexpr, shared,
    D: gl.constexpr, BOX: gl.constexpr, HALF: gl.constexpr, HALF_BOX: gl.constexpr,
    NUM_AXES: gl.constexpr, STAGES: gl.constexpr, FLIPPED: gl.constexpr, DTYPE: gl.constexpr,
):  # fmt: skip
    o_desc, lse_ptr, buffers, barriers, sizes, o_fold, sides, scale_log2 = shared
    q_smem, k_smem, v_smem, o_smem = buffers
    q_full, q_empty, k_full, k_empty, v_full, v_empty = barriers
    num_units, num_heads, _group, counts, seen, _per_tile = sizes
    S_LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 128, 16])
    O_LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    Q_LAYOUT: gl.constexpr = gl.DotOperandLayout(0, S_LAYOUT, 2)
    P_LAYOUT: gl.constexpr = gl.DotOperandLayout(0, O_LAYOUT, 2)
    S_ROWS: gl.constexpr = gl.SliceLayout(1, S_LAYOUT)
    O_ROWS: gl.constexpr = gl.SliceLayout(1, O_LAYOUT)
    num_seen = seen[0] * seen[1] * seen[2]
    num_tokens = counts[0] * counts[1] * counts[2] * 128
    o_box = o_smem.index(W)
    zero = gl.zeros([64, 128], gl.float32, S_LAYOUT)
    step = 0
    num_done = 0
    for unit in range(gl.program_id(0), num_units, gl.num_programs(0)):
        mbarrier.wait(q_full.index(W), num_done & 1)
        q = q_smem.index(W).reshape([64, D]).load(Q_LAYOUT)
        mbarrier.arrive(q_empty.index(W), count=1)
        stage = step % STAGES
        phase = (step // STAGES) & 1
        mbarrier.wait(k_full.index(stage), phase)
        k = k_smem.index(stage).reshape([128, D])
        s_token = warpgroup_mma(q, k.permute((1, 0)), zero, use_acc=False, is_async=True)
        s = warpgroup_mma_wait(0, deps=(s_token,))
        mbarrier.arrive(k_empty.index(stage), count=1)
        m = _top(s, scale_log2, FLIPPED)
        p = gl.exp2(s * scale_log2 - m[:, None])
        total = gl.sum(p, 1)
        p = gl.convert_layout(p.to(DTYPE), P_LAYOUT)
        o = gl.zeros([64, D], gl.float32, O_LAYOUT)
        for _ in range(1, num_seen):
            last_stage = stage
            last_phase = phase
            step += 1
            stage = step % STAGES
            phase = (step // STAGES) & 1
            mbarrier.wait(k_full.index(stage), phase)
            k = k_smem.index(stage).reshape([128, D])
            s_token = warpgroup_mma(q, k.permute((1, 0)), zero, use_acc=False, is_async=True)
            mbarrier.wait(v_full.index(last_stage), last_phase)
            v = v_smem.index(last_stage).reshape([128, D])
            o_token = warpgroup_mma(p, v, o, is_async=True)
            s = warpgroup_mma_wait(1, deps=(s_token,))
            mbarrier.arrive(k_empty.index(stage), count=1)
            new_m = gl.maximum(m, _top(s, scale_log2, FLIPPED))
            shrink = gl.exp2(m - new_m)
            p_next = gl.exp2(s * scale_log2 - new_m[:, None])
            total = total * shrink + gl.sum(p_next, 1)
            m = new_m
            o = warpgroup_mma_wait(0, deps=(o_token,))
            mbarrier.arrive(v_empty.index(last_stage), count=1)
            o = o * gl.convert_layout(shrink, O_ROWS)[:, None]
            p = gl.convert_layout(p_next.to(DTYPE), P_LAYOUT)
        mbarrier.wait(v_full.index(stage), phase)
        v = v_smem.index(stage).reshape([128, D])
        o_token = warpgroup_mma(p, v, o, is_async=True)
        batch, head, box_0, box_1, box_2 = unit_of(unit, counts, num_heads)
        row = gl.arange(0, 64, layout=S_ROWS)
        token = tokens_of(W, row, box_0, box_1, box_2, counts, sides, BOX, HALF, HALF_BOX, NUM_AXES)
        lse = (m + gl.log2(total)) * 0.6931471805599453
        lse_head = (batch * num_heads + head).to(gl.int64) * num_tokens
        gl.store(lse_ptr + lse_head + token, lse)
        o = warpgroup_mma_wait(0, deps=(o_token,))
        mbarrier.arrive(v_empty.index(stage), count=1)
        o = o * gl.convert_layout(1.0 / total, O_ROWS)[:, None]
        tma.store_wait(0)
        o_box.reshape([64, D]).store(o.to(DTYPE))
        fence_async_shared()
        corner = corner_of(batch, head, box_0, box_1, box_2, o_fold, counts, BOX, NUM_AXES)
        store_box(o_desc, half_of(corner, W, HALF, NUM_AXES), o_box)
        step += 1
        num_done += 1  # noqa: SIM113
    tma.store_wait(0)


@gluon.jit(
    do_not_specialize=(
        *("num_units", "num_heads", "group", "counts", "seen", "per_tile", "sides"),
        *("q_fold", "k_fold", "v_fold", "o_fold"),
    )
)
def sliding_tile_hopper_fwd_kernel(
    q_desc, k_desc, v_desc, o_desc, lse_ptr, scale_log2, num_units, num_heads, group,
    counts, seen, per_tile, sides,
    q_fold, k_fold, v_fold, o_fold,
    D: gl.constexpr, BOX: gl.constexpr, HALF: gl.constexpr, HALF_BOX: gl.constexpr,
    NUM_AXES: gl.constexpr, STAGES: gl.constexpr, FLIPPED: gl.constexpr,
):  # fmt: skip
    """One program per multiprocessor.

    Args:
        lse_ptr: float32 ``[B, H, L]``. scale_log2: score multiplier times log2(e).
        num_units: B * H * boxes. group: query heads per key head.
        The others: as in `addresses`.
    """
    q_box: gl.constexpr = q_desc.block_type.shape
    k_box: gl.constexpr = k_desc.block_type.shape
    dtype: gl.constexpr = q_desc.dtype
    q_smem = gl.allocate_shared_memory(dtype, [2] + q_box, q_desc.layout)  # noqa: RUF005
    o_smem = gl.allocate_shared_memory(dtype, [2] + q_box, o_desc.layout)  # noqa: RUF005
    k_smem = gl.allocate_shared_memory(dtype, [STAGES] + k_box, k_desc.layout)  # noqa: RUF005
    v_smem = gl.allocate_shared_memory(dtype, [STAGES] + k_box, v_desc.layout)  # noqa: RUF005
    q_full = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    q_empty = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    k_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    k_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for w in gl.static_range(2):
        mbarrier.init(q_full.index(w), count=1)
        mbarrier.init(q_empty.index(w), count=1)
    for s in gl.static_range(STAGES):
        mbarrier.init(k_full.index(s), count=1)
        mbarrier.init(v_full.index(s), count=1)
        mbarrier.init(k_empty.index(s), count=2)
        mbarrier.init(v_empty.index(s), count=2)
    barriers = (q_full, q_empty, k_full, k_empty, v_full, v_empty)
    sizes = (num_units, num_heads, group, counts, seen, per_tile)
    buffers = (q_smem, k_smem, v_smem, o_smem)
    inputs = (q_desc, k_desc, v_desc)
    input_buffers = (q_smem, k_smem, v_smem)
    folds = (q_fold, k_fold, v_fold)
    shared = (o_desc, lse_ptr, buffers, barriers, sizes, o_fold, sides, scale_log2)
    # fmt: off
    gl.warp_specialize(
        [
            (_compute, (0, shared, D, BOX, HALF, HALF_BOX, NUM_AXES, STAGES, FLIPPED, dtype)),
            (_compute, (1, shared, D, BOX, HALF, HALF_BOX, NUM_AXES, STAGES, FLIPPED, dtype)),
            (_load, (inputs, input_buffers, barriers, sizes, folds, BOX, HALF, NUM_AXES, STAGES)),
        ],
        [4, 1],
        [240, 24],
    )
    # fmt: on
