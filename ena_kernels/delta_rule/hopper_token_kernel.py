"""The gradients of tokens in the delta rule's backward on Hopper, for half precision (Gluon).

What `delta_rule_token_kernel` of `backward_kernels` computes. Programs stay and take chunk after
chunk: one warp loads by the tensor memory accelerator (TMA) into rings, one warpgroup makes dQ and
dV, another dK and db, from blocks of 64 value channels. Results leave by the TMA.
"""

# Legend as in `backward_kernels`.

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from ena_kernels.delta_rule.hopper_score_kernel import in_two
from ena_kernels.gluon_names import load_box, reinterpret, store_box


@gluon.jit
def _load(
    descriptors, buffers, full, empty, pair_full, pair_empty, H, num_chunks, num_items,
    EP: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    q_desc, k_desc, do_desc, y_desc, z_desc, states_desc, grads_desc = descriptors
    q_smem, k_smem, do_smem, y_smem, rest_smem, z_smem, states_smem, grads_smem = buffers
    BLOCKS: gl.constexpr = EP // 64
    pair_bytes: gl.constexpr = 2 * k_desc.block_type.nbytes
    tile_bytes: gl.constexpr = 4 * do_desc.block_type.nbytes + 2 * states_desc.block_type.nbytes
    programs = gl.num_programs(0)
    pid = gl.program_id(0)
    for i in range((num_items - pid + programs - 1) // programs):
        item = pid + i * programs
        bh = item // num_chunks
        b, h, t = bh // H, bh % H, item % num_chunks * 64
        pair = i % 2
        mbarrier.wait(pair_empty.index(pair), ((i // 2) & 1) ^ 1)
        mbarrier.expect(pair_full.index(pair), pair_bytes)
        for block in gl.static_range(BLOCKS):
            step = i * BLOCKS + block
            stage = step % STAGES
            ready = full.index(stage)
            mbarrier.wait(empty.index(stage), ((step // STAGES) & 1) ^ 1)
            mbarrier.expect(ready, tile_bytes)
            load_box(do_desc, [b, h, t, block * 64], ready, do_smem.index(stage))
            load_box(y_desc, [b, h, t, block * 64], ready, y_smem.index(stage))
            load_box(y_desc, [b, h, t, EP + block * 64], ready, rest_smem.index(stage))
            load_box(z_desc, [b, h, t, block * 64], ready, z_smem.index(stage))
            load_box(states_desc, [item * EP + block * 64, 0], ready, states_smem.index(stage))
            load_box(grads_desc, [item * EP + block * 64, 0], ready, grads_smem.index(stage))
        load_box(q_desc, [b, h, t, 0], pair_full.index(pair), q_smem.index(pair))
        load_box(k_desc, [b, h, t, 0], pair_full.index(pair), k_smem.index(pair))


@gluon.jit
def _make_dq(
    descriptors, outputs, buffers, dq_smem, full, empty, pair_full, pair_empty,
    scalars_ptr, inverse_scale, H, L, num_chunks, num_items, plane,
    DP: gl.constexpr, EP: gl.constexpr, STAGES: gl.constexpr, L2NORM: gl.constexpr,
    DTYPE: gl.constexpr,
):  # fmt: skip
    q_smem, k_smem, do_smem, y_smem, rest_smem, z_smem, states_smem, _ = buffers
    dq_desc, _, dv_desc = outputs
    # both leave by the same place, one after the other
    dv_smem = reinterpret(dq_smem, DTYPE, dv_desc.block_type.shape, dv_desc.layout)
    TILE: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, 16])
    WIDE: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, DP, 16])
    LEFT: gl.constexpr = gl.DotOperandLayout(0, WIDE, 2)
    BLOCKS: gl.constexpr = EP // 64
    r = gl.arange(0, 64, layout=gl.SliceLayout(1, TILE))
    r_wide = gl.arange(0, 64, layout=gl.SliceLayout(1, WIDE))
    c = gl.arange(0, 64, layout=gl.SliceLayout(0, TILE))
    zero = gl.zeros([64, 64], gl.float32, TILE)
    zero_wide = gl.zeros([64, DP], gl.float32, WIDE)
    programs = gl.num_programs(0)
    pid = gl.program_id(0)
    for i in range((num_items - pid + programs - 1) // programs):
        item = pid + i * programs
        bh = item // num_chunks
        b, h, t = bh // H, bh % H, item % num_chunks * 64
        ptr = scalars_ptr + bh.to(gl.int64) * L + t
        left = L - t
        weight = gl.load(ptr + c, mask=c < left, other=0.0)
        weight *= gl.load(ptr + plane + c, mask=c < left, other=0.0)
        minus_beta = -gl.load(ptr + r, mask=r < left, other=0.0)
        q_norm = gl.load(ptr + 2 * plane + r_wide, mask=r_wide < left, other=0.0)
        to_q = zero
        dq = zero_wide
        for block in gl.static_range(BLOCKS):
            step = i * BLOCKS + block
            stage = step % STAGES
            mbarrier.wait(full.index(stage), (step // STAGES) & 1)
            do = do_smem.index(stage).reshape([64, 64])
            y_t = y_smem.index(stage).reshape([64, 64]).permute((1, 0))
            rest_t = rest_smem.index(stage).reshape([64, 64]).permute((1, 0))
            to_token = warpgroup_mma(do, y_t, to_q, use_acc=block > 0, is_async=True)
            to_token = warpgroup_mma(do, rest_t, to_token, is_async=True)
            dq_token = warpgroup_mma(
                do, states_smem.index(stage), dq, use_acc=block > 0, is_async=True
            )
            minus_z = z_smem.index(stage).reshape([64, 64]).load(TILE).to(gl.float32)
            tma.store_wait(0)
            dv_smem.reshape([64, 64]).store((minus_z * minus_beta[:, None]).to(DTYPE))
            fence_async_shared()
            store_box(dv_desc, [b, h, t, block * 64], dv_smem)
            to_q, dq = warpgroup_mma_wait(0, deps=(to_token, dq_token))
            mbarrier.arrive(empty.index(stage), count=1)
        to_q = gl.where(r[:, None] >= c[None, :], to_q * weight[None, :], 0.0)
        to_q, rest = in_two(to_q, DTYPE)
        pair = i % 2
        mbarrier.wait(pair_full.index(pair), (i // 2) & 1)
        k = k_smem.index(pair).reshape([64, DP])
        dq_token = warpgroup_mma(gl.convert_layout(to_q, LEFT), k, dq, is_async=True)
        dq_token = warpgroup_mma(gl.convert_layout(rest, LEFT), k, dq_token, is_async=True)
        q = q_smem.index(pair).reshape([64, DP]).load(WIDE)
        dq = warpgroup_mma_wait(0, deps=(dq_token,))
        mbarrier.arrive(pair_empty.index(pair), count=1)
        if L2NORM:
            root = q_norm * inverse_scale
            q = q.to(gl.float32)
            dq -= q * (gl.sum(dq * q, 1) * root * root)[:, None]
        tma.store_wait(0)
        dq_smem.reshape([64, DP]).store((dq * q_norm[:, None]).to(DTYPE))
        fence_async_shared()
        store_box(dq_desc, [b, h, t, 0], dq_smem)
    tma.store_wait(0)


@gluon.jit
def _make_dk(
    descriptors, outputs, buffers, dk_smem, full, empty, pair_full, pair_empty,
    scalars_ptr, dbeta_ptr, H, L, num_chunks, num_items, plane,
    DP: gl.constexpr, EP: gl.constexpr, STAGES: gl.constexpr, L2NORM: gl.constexpr,
    DTYPE: gl.constexpr,
):  # fmt: skip
    q_smem, k_smem, do_smem, y_smem, _, z_smem, states_smem, grads_smem = buffers
    _, dk_desc, _ = outputs
    TILE: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, 16])
    WIDE: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, DP, 16])
    LEFT: gl.constexpr = gl.DotOperandLayout(0, WIDE, 2)
    BLOCKS: gl.constexpr = EP // 64
    r = gl.arange(0, 64, layout=gl.SliceLayout(1, TILE))
    r_wide = gl.arange(0, 64, layout=gl.SliceLayout(1, WIDE))
    c = gl.arange(0, 64, layout=gl.SliceLayout(0, TILE))
    zero = gl.zeros([64, 64], gl.float32, TILE)
    zero_wide = gl.zeros([64, DP], gl.float32, WIDE)
    programs = gl.num_programs(0)
    pid = gl.program_id(0)
    for i in range((num_items - pid + programs - 1) // programs):
        item = pid + i * programs
        bh = item // num_chunks
        b, h, t = bh // H, bh % H, item % num_chunks * 64
        ptr = scalars_ptr + bh.to(gl.int64) * L + t
        left = L - t
        weight = gl.load(ptr + c, mask=c < left, other=0.0)
        weight *= gl.load(ptr + plane + c, mask=c < left, other=0.0)
        q_norm = gl.load(ptr + 2 * plane + c, mask=c < left, other=0.0)
        own_k_norm = gl.load(ptr + plane + r_wide, mask=r_wide < left, other=0.0)
        own_beta = gl.load(ptr + r_wide, mask=r_wide < left, other=0.0)
        from_q = zero
        before = zero
        behind = zero
        dk = zero_wide
        for block in gl.static_range(BLOCKS):
            step = i * BLOCKS + block
            stage = step % STAGES
            mbarrier.wait(full.index(stage), (step // STAGES) & 1)
            do_t = do_smem.index(stage).reshape([64, 64]).permute((1, 0))
            y = y_smem.index(stage).reshape([64, 64])
            z = z_smem.index(stage).reshape([64, 64])
            from_token = warpgroup_mma(y, do_t, from_q, use_acc=block > 0, is_async=True)
            before_token = warpgroup_mma(
                z, y.permute((1, 0)), before, use_acc=block > 0, is_async=True
            )
            behind_token = warpgroup_mma(
                y, z.permute((1, 0)), behind, use_acc=block > 0, is_async=True
            )
            dk_token = warpgroup_mma(
                y, grads_smem.index(stage), dk, use_acc=block > 0, is_async=True
            )
            dk_token = warpgroup_mma(z, states_smem.index(stage), dk_token, is_async=True)
            from_q, before, behind, dk = warpgroup_mma_wait(
                0, deps=(from_token, before_token, behind_token, dk_token)
            )
            mbarrier.arrive(empty.index(stage), count=1)
        row, col = r[:, None], c[None, :]
        dbeta = -gl.sum(gl.where(row == col, before, 0.0), 1)
        from_q = gl.where(row <= col, from_q * q_norm[None, :], 0.0).to(DTYPE)
        pairs = gl.where(row > col, before, gl.where(row < col, behind, 0.0))
        pairs = (pairs * weight[None, :]).to(DTYPE)
        pair = i % 2
        mbarrier.wait(pair_full.index(pair), (i // 2) & 1)
        k_box = k_smem.index(pair).reshape([64, DP])
        q_box = q_smem.index(pair).reshape([64, DP])
        dk_token = warpgroup_mma(gl.convert_layout(from_q, LEFT), q_box, dk, is_async=True)
        dk_token = warpgroup_mma(gl.convert_layout(pairs, LEFT), k_box, dk_token, is_async=True)
        place = dbeta_ptr + ((bh // H).to(gl.int64) * L + t + r) * H + h
        gl.store(place, dbeta.to(dbeta_ptr.dtype.element_ty), mask=r < left)
        k = k_box.load(WIDE)
        dk = warpgroup_mma_wait(0, deps=(dk_token,))
        mbarrier.arrive(pair_empty.index(pair), count=1)
        if L2NORM:
            k = k.to(gl.float32)
            dk -= k * (gl.sum(dk * k, 1) * own_k_norm * own_k_norm)[:, None]
        tma.store_wait(0)
        dk_smem.reshape([64, DP]).store((dk * (own_beta * own_k_norm)[:, None]).to(DTYPE))
        fence_async_shared()
        store_box(dk_desc, [b, h, t, 0], dk_smem)
    tma.store_wait(0)


@gluon.jit(do_not_specialize=("H", "L", "num_chunks", "num_items", "plane"))
def delta_rule_token_hopper_kernel(
    q_desc, k_desc, do_desc, y_desc, z_desc, states_desc, grads_desc, dq_desc, dk_desc,
    scalars_ptr, dbeta_ptr, inverse_scale,
    H, L, num_chunks, num_items, plane,
    DP: gl.constexpr, EP: gl.constexpr, STAGES: gl.constexpr, L2NORM: gl.constexpr,
):  # fmt: skip
    """`delta_rule_token_kernel` of `backward_kernels`; dv lies where z does."""
    dtype: gl.constexpr = k_desc.dtype
    wide: gl.constexpr = k_desc.block_type.shape
    narrow: gl.constexpr = do_desc.block_type.shape
    state: gl.constexpr = states_desc.block_type.shape
    q_smem = gl.allocate_shared_memory(dtype, [2] + wide, q_desc.layout)  # noqa: RUF005
    k_smem = gl.allocate_shared_memory(dtype, [2] + wide, k_desc.layout)  # noqa: RUF005
    do_smem = gl.allocate_shared_memory(dtype, [STAGES] + narrow, do_desc.layout)  # noqa: RUF005
    y_smem = gl.allocate_shared_memory(dtype, [STAGES] + narrow, y_desc.layout)  # noqa: RUF005
    rest_smem = gl.allocate_shared_memory(dtype, [STAGES] + narrow, y_desc.layout)  # noqa: RUF005
    z_smem = gl.allocate_shared_memory(dtype, [STAGES] + narrow, z_desc.layout)  # noqa: RUF005
    states_smem = gl.allocate_shared_memory(dtype, [STAGES] + state, states_desc.layout)  # noqa: RUF005
    grads_smem = gl.allocate_shared_memory(dtype, [STAGES] + state, grads_desc.layout)  # noqa: RUF005
    dq_smem = gl.allocate_shared_memory(dtype, wide, dq_desc.layout)
    dk_smem = gl.allocate_shared_memory(dtype, wide, dk_desc.layout)
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    pair_full = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    pair_empty = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    for s in gl.static_range(STAGES):
        mbarrier.init(full.index(s), count=1)
        mbarrier.init(empty.index(s), count=2)
    for s in gl.static_range(2):
        mbarrier.init(pair_full.index(s), count=1)
        mbarrier.init(pair_empty.index(s), count=2)
    descriptors = (q_desc, k_desc, do_desc, y_desc, z_desc, states_desc, grads_desc)
    outputs = (dq_desc, dk_desc, z_desc)
    buffers = (q_smem, k_smem, do_smem, y_smem, rest_smem, z_smem, states_smem, grads_smem)
    # fmt: off
    gl.warp_specialize(
        [
            (_make_dq, (descriptors, outputs, buffers, dq_smem, full, empty, pair_full,
              pair_empty, scalars_ptr, inverse_scale, H, L, num_chunks, num_items, plane,
              DP, EP, STAGES, L2NORM, dtype)),
            (_make_dk, (descriptors, outputs, buffers, dk_smem, full, empty, pair_full,
              pair_empty, scalars_ptr, dbeta_ptr, H, L, num_chunks, num_items, plane,
              DP, EP, STAGES, L2NORM, dtype)),
            (_load, (descriptors, buffers, full, empty, pair_full, pair_empty, H,
              num_chunks, num_items, EP, STAGES)),
        ],
        [4, 1],
        [232, 40],
    )
