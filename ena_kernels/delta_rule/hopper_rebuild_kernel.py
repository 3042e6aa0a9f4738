"""The states of chunks once more, on Hopper, for half precision (Gluon).

What `delta_rule_rebuild_kernel` of `backward_kernels` computes. One warp loads chunks by the tensor
memory accelerator (TMA) into a ring that serves all warpgroups of a program; each has 64 rows of
the state, and results leave by the TMA.
"""

# Legend as in `backward_kernels`; a program has ROWS = 64 * WARPGROUPS rows of the state.

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
from ena_kernels.delta_rule.hopper_score_kernel import in_two
from ena_kernels.gluon_names import load_box, store_box


@gluon.jit
def _place(sizes, ROWS: gl.constexpr, EP: gl.constexpr):
    """Batch, head, their number, segment, first row, first chunk and number of chunks."""
    H, _, num_chunks, num_segments, segment_chunks, _ = sizes
    BLOCKS: gl.constexpr = EP // ROWS
    pid = gl.program_id(0)
    segment = pid // BLOCKS % num_segments
    bh = pid // BLOCKS // num_segments
    first = segment * segment_chunks
    count = gl.minimum(segment_chunks, num_chunks - first)
    return bh // H, bh % H, bh, segment, pid % BLOCKS * ROWS, first, count


@gluon.jit
def _load(
    descriptors, buffers, full, empty, sizes,
    ROWS: gl.constexpr, EP: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    k_desc, v_desc, n_desc, _, _ = descriptors
    k_smem, v_smem, n_smem = buffers
    b, h, bh, _, row, first, count = _place(sizes, ROWS, EP)
    own_bytes: gl.constexpr = v_desc.block_type.nbytes * (ROWS // 64)
    shared_bytes: gl.constexpr = k_desc.block_type.nbytes + n_desc.block_type.nbytes
    for i in range(count):
        chunk = first + i
        stage = i % STAGES
        ready = full.index(stage)
        mbarrier.wait(empty.index(stage), ((i // STAGES) & 1) ^ 1)
        mbarrier.expect(ready, own_bytes + shared_bytes)
        load_box(k_desc, [b, h, chunk * 64, 0], ready, k_smem.index(stage))
        for w in gl.static_range(ROWS // 64):
            box = v_smem.index(stage * (ROWS // 64) + w)
            load_box(v_desc, [b, h, chunk * 64, row + w * 64], ready, box)
        load_box(n_desc, [(bh * sizes[2] + chunk) * 64, 0], ready, n_smem.index(stage))


@gluon.jit
def _rebuild(
    W: gl.constexpr, descriptors, buffers, s_smem, y_smem, full, empty,
    scalars_ptr, initial_ptr, transfer_ptr, sizes,
    D: gl.constexpr, DP: gl.constexpr, E: gl.constexpr, EP: gl.constexpr,
    ROWS: gl.constexpr, STAGES: gl.constexpr, DTYPE: gl.constexpr,
):  # fmt: skip
    k_smem, v_smem, n_smem = buffers
    states_desc, y_desc = descriptors[3], descriptors[4]
    _, L, num_chunks, num_segments, _, plane = sizes
    TILE: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, 16])
    STATE: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, DP, 16])
    LEFT: gl.constexpr = gl.DotOperandLayout(0, TILE, 2)
    LEFT_OF_STATE: gl.constexpr = gl.DotOperandLayout(0, STATE, 2)
    TOKENS: gl.constexpr = gl.SliceLayout(0, TILE)
    FLAT: gl.constexpr = gl.BlockedLayout([1], [32], [4], [0])
    b, h, bh, segment, row, first, count = _place(sizes, ROWS, EP)
    row += W * 64
    rows = (row + gl.arange(0, 64, layout=gl.SliceLayout(1, STATE)))[:, None]
    d = gl.arange(0, DP, layout=gl.SliceLayout(0, STATE))[None, :]
    wide = bh.to(gl.int64)
    state = gl.zeros([64, DP], gl.float32, STATE)
    in_state = (rows < E) & (d < D)
    state_offs = wide * (D * E) + d * E + rows
    transfer_ptr += (wide * (num_segments - 1) + segment - 1) * ((EP + DP) * DP)
    if segment > 0:
        state = gl.load(transfer_ptr + rows * DP + d)
    elif initial_ptr is not None:
        state = gl.load(initial_ptr + state_offs, mask=in_state, other=0.0)
    token = first * 64 + gl.arange(0, 64, layout=FLAT)
    scalars_ptr += wide * L + token
    left = L - token
    beta_next = gl.load(scalars_ptr, mask=left > 0, other=0.0)
    k_norm_next = gl.load(scalars_ptr + plane, mask=left > 0, other=0.0)
    zero = gl.zeros([64, 64], gl.float32, TILE)
    for i in range(count):
        chunk = first + i
        stage = i % STAGES
        beta = gl.convert_layout(beta_next, TOKENS)[None, :]
        k_norm = gl.convert_layout(k_norm_next, TOKENS)[None, :]
        left -= 64
        scalars_ptr += 64
        beta_next = gl.load(scalars_ptr, mask=left > 0, other=0.0)
        k_norm_next = gl.load(scalars_ptr + plane, mask=left > 0, other=0.0)
        mbarrier.wait(full.index(stage), (i // STAGES) & 1)
        k = k_smem.index(stage).reshape([64, DP])
        half_state = state.to(DTYPE)
        stored_token = warpgroup_mma(
            gl.convert_layout(half_state, LEFT), k.permute((1, 0)), zero,
            use_acc=False, is_async=True,
        )  # fmt: skip
        v_box = v_smem.index(stage * (ROWS // 64) + W).reshape([64, 64])
        v = v_box.permute((1, 0)).load(TILE).to(gl.float32)
        tma.store_wait(0)
        s_smem.index(W).store(half_state)
        fence_async_shared()
        store_box(states_desc, [(bh * num_chunks + chunk) * EP + row, 0], s_smem.index(W))
        stored = warpgroup_mma_wait(0, deps=(stored_token,))
        w = v - stored * k_norm
        n_t = n_smem.index(stage).permute((1, 0))
        scaled, rest = in_two(w * -beta, DTYPE)
        y_token = warpgroup_mma(gl.convert_layout(scaled, LEFT), n_t, w, is_async=True)
        y_token = warpgroup_mma(gl.convert_layout(rest, LEFT), n_t, y_token, is_async=True)
        y = warpgroup_mma_wait(0, deps=(y_token,))
        u, rest = in_two(y * (beta * k_norm), DTYPE)
        state_token = warpgroup_mma(gl.convert_layout(u, LEFT_OF_STATE), k, state, is_async=True)
        state_token = warpgroup_mma(
            gl.convert_layout(rest, LEFT_OF_STATE), k, state_token, is_async=True
        )
        y, rest = in_two(y, DTYPE)
        y_box, rest_box = y_smem.index(W * 2), y_smem.index(W * 2 + 1)
        y_box.reshape([64, 64]).permute((1, 0)).store(y)
        rest_box.reshape([64, 64]).permute((1, 0)).store(rest)
        fence_async_shared()
        store_box(y_desc, [b, h, chunk * 64, row], y_box)
        store_box(y_desc, [b, h, chunk * 64, row + EP], rest_box)
        state = warpgroup_mma_wait(0, deps=(state_token,))
        mbarrier.arrive(empty.index(stage), count=1)
    tma.store_wait(0)


@gluon.jit(do_not_specialize=SIZES)
def delta_rule_rebuild_hopper_kernel(
    k_desc, v_desc, n_desc, states_desc, y_desc,
    scalars_ptr, initial_ptr, transfer_ptr,
    H, L, num_chunks, num_segments, segment_chunks, plane,
    D: gl.constexpr, DP: gl.constexpr, E: gl.constexpr, EP: gl.constexpr,
    WARPGROUPS: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """`delta_rule_rebuild_kernel` of `backward_kernels`."""
    ROWS: gl.constexpr = 64 * WARPGROUPS
    dtype: gl.constexpr = k_desc.dtype
    wide: gl.constexpr = k_desc.block_type.shape
    narrow: gl.constexpr = v_desc.block_type.shape
    square: gl.constexpr = n_desc.block_type.shape
    state: gl.constexpr = states_desc.block_type.shape
    k_smem = gl.allocate_shared_memory(dtype, [STAGES] + wide, k_desc.layout)  # noqa: RUF005
    n_smem = gl.allocate_shared_memory(dtype, [STAGES] + square, n_desc.layout)  # noqa: RUF005
    v_shape: gl.constexpr = [STAGES * WARPGROUPS] + narrow  # noqa: RUF005
    v_smem = gl.allocate_shared_memory(dtype, v_shape, v_desc.layout)
    s_smem = gl.allocate_shared_memory(dtype, [WARPGROUPS] + state, states_desc.layout)  # noqa: RUF005
    y_smem = gl.allocate_shared_memory(dtype, [2 * WARPGROUPS] + narrow, y_desc.layout)  # noqa: RUF005
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for s in gl.static_range(STAGES):
        mbarrier.init(full.index(s), count=1)
        mbarrier.init(empty.index(s), count=WARPGROUPS)
    descriptors = (k_desc, v_desc, n_desc, states_desc, y_desc)
    buffers = (k_smem, v_smem, n_smem)
    sizes = (H, L, num_chunks, num_segments, segment_chunks, plane)
    # fmt: off
    if WARPGROUPS == 1:
        gl.warp_specialize(
            [
                (_rebuild, (0, descriptors, buffers, s_smem, y_smem, full, empty, scalars_ptr,
                  initial_ptr, transfer_ptr, sizes, D, DP, E, EP, ROWS, STAGES, dtype)),
                (_load, (descriptors, buffers, full, empty, sizes, ROWS, EP, STAGES)),
            ],
            [1],
            [40],
        )
    else:
        gl.warp_specialize(
            [
                (_rebuild, (0, descriptors, buffers, s_smem, y_smem, full, empty, scalars_ptr,
                  initial_ptr, transfer_ptr, sizes, D, DP, E, EP, ROWS, STAGES, dtype)),
                (_rebuild, (1, descriptors, buffers, s_smem, y_smem, full, empty, scalars_ptr,
                  initial_ptr, transfer_ptr, sizes, D, DP, E, EP, ROWS, STAGES, dtype)),
                (_load, (descriptors, buffers, full, empty, sizes, ROWS, EP, STAGES)),
            ],
            [4, 1],
            [232, 40],
        )
