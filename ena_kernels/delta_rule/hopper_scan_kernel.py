"""The scan of the delta rule's backward on Hopper, for half precision (Gluon).

What `delta_rule_scan_kernel` of `backward_kernels` computes, with the P of `hopper_score_kernel`:

    -Z = (dO^T diag(q')) P - X + (X diag(b)) N    with X = (G K^T) diag(r_k)

One warp loads chunks by the tensor memory accelerator (TMA), the last one first, into a ring that
serves all warpgroups of a program; one makes P, each other has 64 rows of G. Results leave by the
TMA.
"""

# Legend as in `backward_kernels`; a program has ROWS = 64 * WARPGROUPS rows of G.

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from ena_kernels.delta_rule.configs import SIZES
from ena_kernels.delta_rule.hopper_score_kernel import in_two, score
from ena_kernels.gluon_names import load_box, store_box


@gluon.jit
def _place(sizes, ROWS: gl.constexpr, EP: gl.constexpr, LOCAL: gl.constexpr):
    """Batch, head, their number, segment, first row, first chunk and number of chunks."""
    H, _, num_chunks, num_segments, segment_chunks, _ = sizes
    BLOCKS: gl.constexpr = EP // ROWS
    SKIPPED: gl.constexpr = 1 if LOCAL else 0
    pid = gl.program_id(0)
    block = pid % BLOCKS
    segment = pid // BLOCKS % (num_segments - SKIPPED) + SKIPPED
    bh = pid // BLOCKS // (num_segments - SKIPPED)
    first = segment * segment_chunks
    count = gl.minimum(segment_chunks, num_chunks - first)
    return bh // H, bh % H, bh, segment, block * ROWS, first, count


@gluon.jit
def _load(
    descriptors, buffers, barriers, sizes,
    ROWS: gl.constexpr, EP: gl.constexpr, STAGES: gl.constexpr, LOCAL: gl.constexpr,
):  # fmt: skip
    q_desc, k_desc, do_desc, n_desc, _, _ = descriptors
    q_smem, k_smem, do_smem, n_smem = buffers
    full, empty, _, _ = barriers
    b, h, bh, _, row, first, count = _place(sizes, ROWS, EP, LOCAL)
    own_bytes: gl.constexpr = do_desc.block_type.nbytes * (ROWS // 64)
    shared_bytes: gl.constexpr = 2 * k_desc.block_type.nbytes + n_desc.block_type.nbytes
    for i in range(count):
        chunk = first + count - 1 - i
        stage = i % STAGES
        ready = full.index(stage)
        mbarrier.wait(empty.index(stage), ((i // STAGES) & 1) ^ 1)
        mbarrier.expect(ready, own_bytes + shared_bytes)
        load_box(q_desc, [b, h, chunk * 64, 0], ready, q_smem.index(stage))
        load_box(k_desc, [b, h, chunk * 64, 0], ready, k_smem.index(stage))
        for w in gl.static_range(ROWS // 64):
            box = do_smem.index(stage * (ROWS // 64) + w)
            load_box(do_desc, [b, h, chunk * 64, row + w * 64], ready, box)
        load_box(n_desc, [(bh * sizes[2] + chunk) * 64, 0], ready, n_smem.index(stage))


@gluon.jit
def _score(
    buffers, p_smem, barriers, scalars_ptr, sizes,
    DP: gl.constexpr, EP: gl.constexpr, ROWS: gl.constexpr,
    STAGES: gl.constexpr, LOCAL: gl.constexpr, DTYPE: gl.constexpr,
):  # fmt: skip
    q_smem, k_smem, _, n_smem = buffers
    _, L, _, _, _, plane = sizes
    _, _, bh, _, _, first, count = _place(sizes, ROWS, EP, LOCAL)
    start = (first + count - 1) * 64
    scalars_ptr += bh.to(gl.int64) * L + start
    score(
        q_smem, k_smem, n_smem, p_smem, barriers, scalars_ptr, L - start, plane, count,
        DP, STAGES, -64, DTYPE,
    )  # fmt: skip


@gluon.jit
def _scan(
    W: gl.constexpr, descriptors, buffers, p_smem, g_smem, z_smem, s_smem, barriers,
    scalars_ptr, dfinal_ptr, links_ptr, dinitial_ptr, sizes,
    D: gl.constexpr, DP: gl.constexpr, E: gl.constexpr, EP: gl.constexpr,
    ROWS: gl.constexpr, STAGES: gl.constexpr, LOCAL: gl.constexpr, DTYPE: gl.constexpr,
):  # fmt: skip
    q_smem, k_smem, do_smem, n_smem = buffers
    grads_desc, z_desc = descriptors[4], descriptors[5]
    full, empty, p_full, p_empty = barriers
    _, L, num_chunks, num_segments, _, plane = sizes
    TILE: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, 16])
    STATE: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, DP, 16])
    LEFT: gl.constexpr = gl.DotOperandLayout(0, TILE, 2)
    LEFT_OF_STATE: gl.constexpr = gl.DotOperandLayout(0, STATE, 2)
    TOKENS: gl.constexpr = gl.SliceLayout(0, TILE)
    FLAT: gl.constexpr = gl.BlockedLayout([1], [32], [4], [0])
    b, h, bh, segment, row, first, count = _place(sizes, ROWS, EP, LOCAL)
    row += W * 64
    rows = (row + gl.arange(0, 64, layout=gl.SliceLayout(1, STATE)))[:, None]
    d = gl.arange(0, DP, layout=gl.SliceLayout(0, STATE))[None, :]
    wide = bh.to(gl.int64)
    in_state = (rows < E) & (d < D)
    state_offs = d * E + rows
    links_ptr += wide * (num_segments - 1) * (EP * DP)
    grad = gl.zeros([64, DP], gl.float32, STATE)
    if segment < num_segments - 1:
        if not LOCAL:
            grad = gl.load(links_ptr + segment * (EP * DP) + (rows * DP + d))
    elif dfinal_ptr is not None:
        grad = gl.load(dfinal_ptr + wide * (D * E) + state_offs, mask=in_state, other=0.0)
    token = (first + count - 1) * 64 + gl.arange(0, 64, layout=FLAT)
    scalars_ptr += wide * L + token
    left = L - token
    beta_next = gl.load(scalars_ptr, mask=left > 0, other=0.0)
    k_norm_next = gl.load(scalars_ptr + plane, mask=left > 0, other=0.0)
    q_norm_next = gl.load(scalars_ptr + 2 * plane, mask=left > 0, other=0.0)
    zero = gl.zeros([64, 64], gl.float32, TILE)
    for i in range(count):
        chunk = first + count - 1 - i
        stage = i % STAGES
        k = k_smem.index(stage).reshape([64, DP])
        q = q_smem.index(stage).reshape([64, DP])
        mbarrier.wait(full.index(stage), (i // STAGES) & 1)
        half_grad, rest = in_two(grad, DTYPE)
        k_t = k.permute((1, 0))
        x_token = warpgroup_mma(
            gl.convert_layout(rest, LEFT), k_t, zero, use_acc=False, is_async=True
        )
        if not LOCAL:
            tma.store_wait(0)
        g_smem.index(W).store(half_grad)
        fence_async_shared()
        x_token = warpgroup_mma(g_smem.index(W), k_t, x_token, is_async=True)
        s_smem.index(W * 4).store(k_norm_next)
        s_smem.index(W * 4 + 1).store(beta_next)
        s_smem.index(W * 4 + 2).store(beta_next * k_norm_next)
        s_smem.index(W * 4 + 3).store(q_norm_next)
        # in front of a segment lie tokens of the one before, in front of the first nothing
        left = left + 64
        scalars_ptr -= 64
        inside = (left > 0) & (chunk > 0)
        beta_next = gl.load(scalars_ptr, mask=inside, other=0.0)
        k_norm_next = gl.load(scalars_ptr + plane, mask=inside, other=0.0)
        q_norm_next = gl.load(scalars_ptr + 2 * plane, mask=inside, other=0.0)
        if not LOCAL:
            store_box(grads_desc, [(bh * num_chunks + chunk) * EP + row, 0], g_smem.index(W))
        do_box = do_smem.index(stage * (ROWS // 64) + W).reshape([64, 64])
        do = do_box.permute((1, 0)).load(TILE).to(gl.float32)
        do = (do * s_smem.index(W * 4 + 3).load(TOKENS)[None, :]).to(DTYPE)
        x = warpgroup_mma_wait(0, deps=(x_token,))
        x *= s_smem.index(W * 4).load(TOKENS)[None, :]
        # of similar keys little is left: the product has to be as exact as what it is taken from
        coarse, rest = in_two(x * s_smem.index(W * 4 + 1).load(TOKENS)[None, :], DTYPE)
        n = n_smem.index(stage)
        z_token = warpgroup_mma(gl.convert_layout(coarse, LEFT), n, -x, is_async=True)
        z_token = warpgroup_mma(gl.convert_layout(rest, LEFT), n, z_token, is_async=True)
        mbarrier.wait(p_full.index(i % 2), (i // 2) & 1)
        p = p_smem.index(i % 2)
        z_token = warpgroup_mma(gl.convert_layout(do, LEFT), p, z_token, is_async=True)
        grad_token = warpgroup_mma(gl.convert_layout(do, LEFT_OF_STATE), q, grad, is_async=True)
        minus_z = warpgroup_mma_wait(1, deps=(z_token,))
        mbarrier.arrive(p_empty.index(i % 2), count=1)
        written = (minus_z * s_smem.index(W * 4 + 2).load(TOKENS)[None, :]).to(DTYPE)
        grad_token = warpgroup_mma(
            gl.convert_layout(written, LEFT_OF_STATE), k, grad_token, is_async=True
        )
        if not LOCAL:
            z_box = z_smem.index(W)
            z_box.reshape([64, 64]).permute((1, 0)).store(minus_z.to(DTYPE))
            fence_async_shared()
            store_box(z_desc, [b, h, chunk * 64, row], z_box)
        grad = warpgroup_mma_wait(0, deps=(grad_token,))
        mbarrier.arrive(empty.index(stage), count=1)
    if LOCAL:
        gl.store(links_ptr + (segment - 1) * (EP * DP) + (rows * DP + d), grad)
    else:
        tma.store_wait(0)
        if segment == 0:
            gl.store(dinitial_ptr + wide * (D * E) + state_offs, grad, mask=in_state)


@gluon.jit(do_not_specialize=SIZES)
def delta_rule_scan_hopper_kernel(
    q_desc, k_desc, do_desc, n_desc, grads_desc, z_desc,
    scalars_ptr, dfinal_ptr, links_ptr, dinitial_ptr,
    H, L, num_chunks, num_segments, segment_chunks, plane,
    D: gl.constexpr, DP: gl.constexpr, E: gl.constexpr, EP: gl.constexpr,
    WARPGROUPS: gl.constexpr, STAGES: gl.constexpr, LOCAL: gl.constexpr,
):  # fmt: skip
    """`delta_rule_scan_kernel` of `backward_kernels`."""
    ROWS: gl.constexpr = 64 * WARPGROUPS
    dtype: gl.constexpr = k_desc.dtype
    wide: gl.constexpr = k_desc.block_type.shape
    narrow: gl.constexpr = do_desc.block_type.shape
    square: gl.constexpr = n_desc.block_type.shape
    state: gl.constexpr = grads_desc.block_type.shape
    q_smem = gl.allocate_shared_memory(dtype, [STAGES] + wide, q_desc.layout)  # noqa: RUF005
    k_smem = gl.allocate_shared_memory(dtype, [STAGES] + wide, k_desc.layout)  # noqa: RUF005
    n_smem = gl.allocate_shared_memory(dtype, [STAGES] + square, n_desc.layout)  # noqa: RUF005
    do_shape: gl.constexpr = [STAGES * WARPGROUPS] + narrow  # noqa: RUF005
    do_smem = gl.allocate_shared_memory(dtype, do_shape, do_desc.layout)
    p_smem = gl.allocate_shared_memory(dtype, [2] + square, n_desc.layout)  # noqa: RUF005
    PLAIN: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    s_smem = gl.allocate_shared_memory(gl.float32, [4 * WARPGROUPS, 64], PLAIN)
    g_smem = gl.allocate_shared_memory(dtype, [WARPGROUPS] + state, grads_desc.layout)  # noqa: RUF005
    z_smem = do_smem
    if not LOCAL:
        z_smem = gl.allocate_shared_memory(dtype, [WARPGROUPS] + narrow, z_desc.layout)  # noqa: RUF005
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    p_full = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    p_empty = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    for s in gl.static_range(STAGES):
        mbarrier.init(full.index(s), count=1)
        mbarrier.init(empty.index(s), count=WARPGROUPS + 1)
    for s in gl.static_range(2):
        mbarrier.init(p_full.index(s), count=1)
        mbarrier.init(p_empty.index(s), count=WARPGROUPS)
    descriptors = (q_desc, k_desc, do_desc, n_desc, grads_desc, z_desc)
    buffers = (q_smem, k_smem, do_smem, n_smem)
    sizes = (H, L, num_chunks, num_segments, segment_chunks, plane)
    barriers = (full, empty, p_full, p_empty)
    # fmt: off
    if WARPGROUPS == 1:
        gl.warp_specialize(
            [
                (_scan, (0, descriptors, buffers, p_smem, g_smem, z_smem, s_smem, barriers,
                  scalars_ptr, dfinal_ptr, links_ptr, dinitial_ptr, sizes, D, DP, E, EP, ROWS,
                  STAGES, LOCAL, dtype)),
                (_score, (buffers, p_smem, barriers, scalars_ptr, sizes, DP, EP, ROWS, STAGES,
                  LOCAL, dtype)),
                (_load, (descriptors, buffers, barriers, sizes, ROWS, EP, STAGES, LOCAL)),
            ],
            [4, 1],
            [112, 24],
        )
    else:
        gl.warp_specialize(
            [
                (_scan, (0, descriptors, buffers, p_smem, g_smem, z_smem, s_smem, barriers,
                  scalars_ptr, dfinal_ptr, links_ptr, dinitial_ptr, sizes, D, DP, E, EP, ROWS,
                  STAGES, LOCAL, dtype)),
                (_scan, (1, descriptors, buffers, p_smem, g_smem, z_smem, s_smem, barriers,
                  scalars_ptr, dfinal_ptr, links_ptr, dinitial_ptr, sizes, D, DP, E, EP, ROWS,
                  STAGES, LOCAL, dtype)),
                (_score, (buffers, p_smem, barriers, scalars_ptr, sizes, DP, EP, ROWS, STAGES,
                  LOCAL, dtype)),
                (_load, (descriptors, buffers, barriers, sizes, ROWS, EP, STAGES, LOCAL)),
            ],
            [4, 4, 1],
            [192, 104, 24],
        )
