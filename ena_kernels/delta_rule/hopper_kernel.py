"""The recurrence of the delta rule on Hopper: one warp loads, each warpgroup has 64 rows (Gluon).

What `forward_kernels` computes, for half precision. The tiles of a chunk come by the tensor memory
accelerator (TMA) into a ring of STAGES chunks and serve all warpgroups of a program. P comes from a
warpgroup of its own, `hopper_score_kernel`. Per chunk a warpgroup issues

    S K^T                                 and stores the O of the chunk before meanwhile
    W + (-b W) N^T, S Q^T + (-b W) P^T    with W = V - (S K^T) r_k, P without the scale of q
    S + U K                               with U = b r_k times the first of those

of which N^T and K meet (-b W) and U in two parts: as in `forward_kernels.advance`.
Without output there is no Q, O and P.
"""

# Legend as in `forward_kernels`; a program has ROWS = 64 * WARPGROUPS rows of the state.

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
def _work(
    sizes, EP: gl.constexpr, ROWS: gl.constexpr, TOTAL_ROWS: gl.constexpr, HAS_OUTPUT: gl.constexpr
):  # fmt: skip
    """Batch, head, their number, segment, first row, first chunk and number of chunks."""
    H, _, num_chunks, num_segments, segment_chunks, _ = sizes
    BLOCKS: gl.constexpr = (TOTAL_ROWS + ROWS - 1) // ROWS
    pid = gl.program_id(0)
    if not HAS_OUTPUT:
        num_segments -= 1
    block = pid % BLOCKS
    segment = pid // BLOCKS % num_segments
    bh = pid // BLOCKS // num_segments
    first = segment * segment_chunks
    count = gl.minimum(segment_chunks, num_chunks - first)
    if not HAS_OUTPUT:
        # nothing comes before the first segment, so nobody needs its map: it stays zero
        count = gl.where((segment == 0) & (block * ROWS >= EP), 0, count)
    return bh // H, bh % H, bh, segment, block * ROWS, first, count


@gluon.jit
def _load(
    descriptors, buffers, barriers, sizes,
    EP: gl.constexpr, ROWS: gl.constexpr, TOTAL_ROWS: gl.constexpr,
    STAGES: gl.constexpr, HAS_OUTPUT: gl.constexpr,
):  # fmt: skip
    q_desc, k_desc, v_desc, n_desc, _ = descriptors
    q_smem, k_smem, v_smem, n_smem = buffers
    full, empty, _, _ = barriers
    b, h, bh, _, row, first, count = _work(sizes, EP, ROWS, TOTAL_ROWS, HAS_OUTPUT)
    k_bytes: gl.constexpr = k_desc.block_type.nbytes
    v_bytes: gl.constexpr = v_desc.block_type.nbytes * (ROWS // 64)
    q_bytes: gl.constexpr = q_desc.block_type.nbytes if HAS_OUTPUT else 0
    num_bytes: gl.constexpr = k_bytes + v_bytes + q_bytes + n_desc.block_type.nbytes
    for i in range(count):
        chunk = first + i
        stage = i % STAGES
        ready = full.index(stage)
        mbarrier.wait(empty.index(stage), ((i // STAGES) & 1) ^ 1)
        mbarrier.expect(ready, num_bytes)
        load_box(k_desc, [b, h, chunk * 64, 0], ready, k_smem.index(stage))
        if HAS_OUTPUT:
            load_box(q_desc, [b, h, chunk * 64, 0], ready, q_smem.index(stage))
        load_box(n_desc, [(bh * sizes[2] + chunk) * 64, 0], ready, n_smem.index(stage))
        for w in gl.static_range(ROWS // 64):
            # rows of the map lie outside v, where boxes are filled with zeros
            box = v_smem.index(stage * (ROWS // 64) + w)
            load_box(v_desc, [b, h, chunk * 64, row + w * 64], ready, box)


@gluon.jit
def _score(
    buffers, p_smem, barriers, scalars_ptr, sizes,
    DP: gl.constexpr, EP: gl.constexpr, ROWS: gl.constexpr, TOTAL_ROWS: gl.constexpr,
    STAGES: gl.constexpr, HAS_OUTPUT: gl.constexpr, DTYPE: gl.constexpr,
):  # fmt: skip
    q_smem, k_smem, _, n_smem = buffers
    _, L, _, _, _, plane = sizes
    _, _, bh, _, _, first, count = _work(sizes, EP, ROWS, TOTAL_ROWS, HAS_OUTPUT)
    scalars_ptr += bh.to(gl.int64) * L + first * 64
    score(
        q_smem, k_smem, n_smem, p_smem, barriers, scalars_ptr, L - first * 64, plane, count,
        DP, STAGES, 64, DTYPE,
    )  # fmt: skip


@gluon.jit
def _compute(
    W: gl.constexpr, descriptors, buffers, p_smem, o_smem, s_smem, barriers,
    pointers, sizes,
    D: gl.constexpr, DP: gl.constexpr, E: gl.constexpr, EP: gl.constexpr,
    ROWS: gl.constexpr, TOTAL_ROWS: gl.constexpr,
    STAGES: gl.constexpr, HAS_OUTPUT: gl.constexpr, DTYPE: gl.constexpr,
):  # fmt: skip
    scalars_ptr, initial_ptr, transfer_ptr, final_ptr = pointers
    q_smem, k_smem, v_smem, n_smem = buffers
    o_desc = descriptors[4]
    full, empty, p_full, p_empty = barriers
    _, L, _, num_segments, _, plane = sizes
    TILE: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, 16])
    STATE: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, DP, 16])
    LEFT: gl.constexpr = gl.DotOperandLayout(0, TILE, 2)
    LEFT_OF_STATE: gl.constexpr = gl.DotOperandLayout(0, STATE, 2)
    TOKENS: gl.constexpr = gl.SliceLayout(0, TILE)
    FLAT: gl.constexpr = gl.BlockedLayout([1], [32], [4], [0])
    b, h, bh, segment, row, first, count = _work(sizes, EP, ROWS, TOTAL_ROWS, HAS_OUTPUT)
    row += W * 64
    rows = (row + gl.arange(0, 64, layout=gl.SliceLayout(1, STATE)))[:, None]
    d = gl.arange(0, DP, layout=gl.SliceLayout(0, STATE))[None, :]
    wide = bh.to(gl.int64)
    if HAS_OUTPUT:
        transfer_ptr += (wide * (num_segments - 1) + segment - 1) * ((EP + DP) * DP)
        state = gl.zeros([64, DP], gl.float32, STATE)
        if segment > 0:
            state = gl.load(transfer_ptr + (rows * DP + d))
    else:
        transfer_ptr += (wide * (num_segments - 1) + segment) * ((EP + DP) * DP)
        state = gl.where((rows == d + EP) & (segment > 0), 1.0, 0.0)
    if initial_ptr is not None:  # noqa: SIM102
        if segment == 0:
            initial_ptrs = initial_ptr + wide * (D * E) + (d * E + rows)
            state = gl.load(initial_ptrs, mask=(rows < E) & (d < D), other=0.0)
    flat = gl.arange(0, 64, layout=FLAT)
    scalars_ptr += wide * L + first * 64 + flat
    left = L - first * 64
    beta_next = gl.load(scalars_ptr, mask=flat < left, other=0.0)
    k_norm_next = gl.load(scalars_ptr + plane, mask=flat < left, other=0.0)
    if HAS_OUTPUT:
        q_norm_next = gl.load(scalars_ptr + 2 * plane, mask=flat < left, other=0.0)
    zero = gl.zeros([64, 64], gl.float32, TILE)
    # what the chunk before left to be written
    o_half = gl.zeros([64, 64], DTYPE, TILE)
    o_box = o_smem.index(W)
    for i in range(count):
        stage = i % STAGES
        mbarrier.wait(full.index(stage), (i // STAGES) & 1)
        k = k_smem.index(stage).reshape([64, DP])
        n_t = n_smem.index(stage).permute((1, 0))
        left_state = gl.convert_layout(state.to(DTYPE), LEFT)
        stored_token = warpgroup_mma(
            left_state, k.permute((1, 0)), zero, use_acc=False, is_async=True
        )
        s_smem.index(W * 4).store(k_norm_next)
        s_smem.index(W * 4 + 1).store(beta_next)
        s_smem.index(W * 4 + 2).store(beta_next * k_norm_next)
        if HAS_OUTPUT:
            s_smem.index(W * 4 + 3).store(q_norm_next)
        left -= 64
        scalars_ptr += 64
        beta_next = gl.load(scalars_ptr, mask=flat < left, other=0.0)
        k_norm_next = gl.load(scalars_ptr + plane, mask=flat < left, other=0.0)
        if HAS_OUTPUT:
            q_norm_next = gl.load(scalars_ptr + 2 * plane, mask=flat < left, other=0.0)
        if HAS_OUTPUT:  # noqa: SIM102
            if i > 0:
                tma.store_wait(0)
                o_box.reshape([64, 64]).permute((1, 0)).store(o_half)
                fence_async_shared()
                store_box(o_desc, [b, h, (first + i - 1) * 64, row], o_box)
        if HAS_OUTPUT:
            q_t = q_smem.index(stage).reshape([64, DP]).permute((1, 0))
            o_token = warpgroup_mma(left_state, q_t, zero, use_acc=False, is_async=True)
        v_box = v_smem.index(stage * (ROWS // 64) + W).reshape([64, 64])
        v = v_box.permute((1, 0)).load(TILE)
        if HAS_OUTPUT:
            stored, o = warpgroup_mma_wait(0, deps=(stored_token, o_token))
        else:
            stored = warpgroup_mma_wait(0, deps=(stored_token,))
        w = v.to(gl.float32) - stored * s_smem.index(W * 4).load(TOKENS)[None, :]
        scaled, rest = in_two(w * -s_smem.index(W * 4 + 1).load(TOKENS)[None, :], DTYPE)
        scaled = gl.convert_layout(scaled, LEFT)
        y_token = warpgroup_mma(scaled, n_t, w, is_async=True)
        y_token = warpgroup_mma(gl.convert_layout(rest, LEFT), n_t, y_token, is_async=True)
        if HAS_OUTPUT:
            mbarrier.wait(p_full.index(i % 2), (i // 2) & 1)
            p_t = p_smem.index(i % 2).permute((1, 0))
            o_token = warpgroup_mma(scaled, p_t, o, is_async=True)
            y = warpgroup_mma_wait(1, deps=(y_token,))
        else:
            y = warpgroup_mma_wait(0, deps=(y_token,))
        u, rest = in_two(y * s_smem.index(W * 4 + 2).load(TOKENS)[None, :], DTYPE)
        state_token = warpgroup_mma(gl.convert_layout(u, LEFT_OF_STATE), k, state, is_async=True)
        state_token = warpgroup_mma(
            gl.convert_layout(rest, LEFT_OF_STATE), k, state_token, is_async=True
        )
        if HAS_OUTPUT:
            o = warpgroup_mma_wait(1, deps=(o_token,))
            mbarrier.arrive(p_empty.index(i % 2), count=1)
            o_half = (o * s_smem.index(W * 4 + 3).load(TOKENS)[None, :]).to(DTYPE)
        state = warpgroup_mma_wait(0, deps=(state_token,))
        mbarrier.arrive(empty.index(stage), count=1)
    if HAS_OUTPUT:
        tma.store_wait(0)
        o_box.reshape([64, 64]).permute((1, 0)).store(o_half)
        fence_async_shared()
        store_box(o_desc, [b, h, (first + count - 1) * 64, row], o_box)
        tma.store_wait(0)
        if segment == num_segments - 1:
            final_ptrs = final_ptr + wide * (D * E) + (d * E + rows)
            gl.store(final_ptrs, state, mask=(rows < E) & (d < D))
    else:
        gl.store(transfer_ptr + (rows * DP + d), state, mask=rows < EP + DP)


@gluon.jit(do_not_specialize=SIZES)
def delta_rule_recurrence_kernel(
    q_desc, k_desc, v_desc, n_desc, o_desc,
    scalars_ptr, initial_ptr, transfer_ptr, final_ptr,
    H, L, num_chunks, num_segments, segment_chunks, plane,
    D: gl.constexpr, DP: gl.constexpr, E: gl.constexpr, EP: gl.constexpr,
    WARPGROUPS: gl.constexpr, STAGES: gl.constexpr, HAS_OUTPUT: gl.constexpr,
):  # fmt: skip
    """Outputs or, without, transfers as in `forward_kernels`."""
    ROWS: gl.constexpr = 64 * WARPGROUPS
    TOTAL_ROWS: gl.constexpr = EP if HAS_OUTPUT else EP + DP
    NUM_READERS: gl.constexpr = WARPGROUPS + 1 if HAS_OUTPUT else WARPGROUPS
    dtype: gl.constexpr = k_desc.dtype
    wide: gl.constexpr = k_desc.block_type.shape
    narrow: gl.constexpr = v_desc.block_type.shape
    k_smem = gl.allocate_shared_memory(dtype, [STAGES] + wide, k_desc.layout)  # noqa: RUF005
    n_smem = gl.allocate_shared_memory(dtype, [STAGES, 64, 64], n_desc.layout)
    v_shape: gl.constexpr = [STAGES * WARPGROUPS] + narrow  # noqa: RUF005
    v_smem = gl.allocate_shared_memory(dtype, v_shape, v_desc.layout)
    PLAIN: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    s_smem = gl.allocate_shared_memory(gl.float32, [4 * WARPGROUPS, 64], PLAIN)
    q_smem = k_smem
    p_smem = n_smem
    o_smem = v_smem
    if HAS_OUTPUT:
        o_shape: gl.constexpr = [WARPGROUPS] + narrow  # noqa: RUF005
        o_smem = gl.allocate_shared_memory(dtype, o_shape, o_desc.layout)
        q_smem = gl.allocate_shared_memory(dtype, [STAGES] + wide, q_desc.layout)  # noqa: RUF005
        p_smem = gl.allocate_shared_memory(dtype, [2, 64, 64], n_desc.layout)
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    p_full = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    p_empty = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    for s in gl.static_range(STAGES):
        mbarrier.init(full.index(s), count=1)
        mbarrier.init(empty.index(s), count=NUM_READERS)
    for s in gl.static_range(2):
        mbarrier.init(p_full.index(s), count=1)
        mbarrier.init(p_empty.index(s), count=WARPGROUPS)
    descriptors = (q_desc, k_desc, v_desc, n_desc, o_desc)
    buffers = (q_smem, k_smem, v_smem, n_smem)
    barriers = (full, empty, p_full, p_empty)
    pointers = (scalars_ptr, initial_ptr, transfer_ptr, final_ptr)
    sizes = (H, L, num_chunks, num_segments, segment_chunks, plane)
    gl.static_assert(WARPGROUPS <= 2)
    # fmt: off
    if HAS_OUTPUT:
        if WARPGROUPS == 1:
            gl.warp_specialize(
                [
                    (_compute, (0, descriptors, buffers, p_smem, o_smem, s_smem,
                      barriers, pointers, sizes,
                      D, DP, E, EP, ROWS, TOTAL_ROWS, STAGES, HAS_OUTPUT, dtype)),
                    (_score, (buffers, p_smem, barriers, scalars_ptr, sizes,
                      DP, EP, ROWS, TOTAL_ROWS, STAGES, HAS_OUTPUT, dtype)),
                    (_load, (descriptors, buffers, barriers, sizes,
                      EP, ROWS, TOTAL_ROWS, STAGES, HAS_OUTPUT)),
                ],
                [4, 1],
                [112, 24],
            )
        else:
            gl.warp_specialize(
                [
                    (_compute, (0, descriptors, buffers, p_smem, o_smem, s_smem,
                      barriers, pointers, sizes,
                      D, DP, E, EP, ROWS, TOTAL_ROWS, STAGES, HAS_OUTPUT, dtype)),
                    (_compute, (1, descriptors, buffers, p_smem, o_smem, s_smem,
                      barriers, pointers, sizes,
                      D, DP, E, EP, ROWS, TOTAL_ROWS, STAGES, HAS_OUTPUT, dtype)),
                    (_score, (buffers, p_smem, barriers, scalars_ptr, sizes,
                      DP, EP, ROWS, TOTAL_ROWS, STAGES, HAS_OUTPUT, dtype)),
                    (_load, (descriptors, buffers, barriers, sizes,
                      EP, ROWS, TOTAL_ROWS, STAGES, HAS_OUTPUT)),
                ],
                [4, 4, 1],
                [192, 104, 24],
            )
    elif WARPGROUPS == 1:
        gl.warp_specialize(
            [
                (_compute, (0, descriptors, buffers, p_smem, o_smem, s_smem,
                  barriers, pointers, sizes,
                  D, DP, E, EP, ROWS, TOTAL_ROWS, STAGES, HAS_OUTPUT, dtype)),
                (_load, (descriptors, buffers, barriers, sizes,
                  EP, ROWS, TOTAL_ROWS, STAGES, HAS_OUTPUT)),
            ],
            [1],
            [24],
        )
    else:
        gl.warp_specialize(
            [
                (_compute, (0, descriptors, buffers, p_smem, o_smem, s_smem,
                  barriers, pointers, sizes,
                  D, DP, E, EP, ROWS, TOTAL_ROWS, STAGES, HAS_OUTPUT, dtype)),
                (_compute, (1, descriptors, buffers, p_smem, o_smem, s_smem,
                  barriers, pointers, sizes,
                  D, DP, E, EP, ROWS, TOTAL_ROWS, STAGES, HAS_OUTPUT, dtype)),
                (_load, (descriptors, buffers, barriers, sizes,
                  EP, ROWS, TOTAL_ROWS, STAGES, HAS_OUTPUT)),
            ],
            [4, 1],
            [240, 24],
        )
    # fmt: on
