"""The chunk matrices of the delta rule on Hopper (Gluon): N and the scalars, without P.

What `inverse_kernel` computes, for half precision. A program has four chunks. First all its warps
make the A of one chunk after the other, by the tensor cores, and leave it in shared memory. Then
every warp solves one chunk by substitution in float32,

    N[r, :] = A[r, :] - sum over k < r of A[r, k] b_k N[k, :]

where a lane has columns c and c + 32 in registers, and A[r, k] is the same for all lanes.
Moved per token and head: ``2 D`` values in, C out; ``2 C D + 2 C^2`` FLOPs or so.
"""

# Legend as in `inverse_kernel`; a program has CHUNKS chunks, as many as warps.

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, warpgroup_mma

from ena_kernels.gluon_names import barrier, load_box

# Triton renamed this after 3.6.
REINTERPRET_IS_PUBLIC = gl.constexpr(hasattr(gl.shared_memory_descriptor, "reinterpret"))

CHUNKS = gl.constexpr(4)


@gluon.jit
def _place(g, H, num_chunks, total):
    """Number of the g-th chunk of this program, its head, batch and head in it, first token.

    Behind the last chunk the last one is done again: the same values to the same place.
    """
    z = gl.minimum(gl.program_id(0) * CHUNKS + g, total - 1)
    bh = z // num_chunks
    return z, bh, bh // H, bh % H, z % num_chunks * 64


@gluon.jit
def _load_queries(
    q_ptr, beta_ptr, g, token, d, flat, H, L, num_chunks, total,
    q_stride_b, q_stride_h, q_stride_l, beta_stride_b, beta_stride_h, beta_stride_l,
    D: gl.constexpr,
):  # fmt: skip
    """Q ``[64, DP]`` and beta ``[64]`` of the g-th chunk."""
    _, _, b, h, start = _place(g, H, num_chunks, total)
    b, h, begin = b.to(gl.int64), h.to(gl.int64), start.to(gl.int64)
    left = L - start
    q_ptrs = q_ptr + (b * q_stride_b + h * q_stride_h + begin * q_stride_l)
    mask = (token < left)[:, None] & (d < D)[None, :]
    q = gl.load(q_ptrs + (token[:, None] * q_stride_l + d[None, :]), mask=mask, other=0.0)
    beta_ptrs = beta_ptr + (b * beta_stride_b + h * beta_stride_h + begin * beta_stride_l)
    return q, gl.load(beta_ptrs + flat * beta_stride_l, mask=flat < left, other=0.0)


@gluon.jit
def _solve(a_smem, beta_smem, n_ptr, H, num_chunks, total):
    """Write N; A is ``[CHUNKS, 64, 64]``, beta ``[CHUNKS, 64]``."""
    # axes: chunk, one row, 8 rows before it, 32 columns
    WIDE: gl.constexpr = gl.BlockedLayout([1, 1, 8, 1], [1, 1, 1, 32], [4, 1, 1, 1], [3, 2, 1, 0])
    WEIGHTS: gl.constexpr = gl.SliceLayout(3, WIDE)
    ROW: gl.constexpr = gl.SliceLayout(2, WIDE)
    CHUNK_ROW: gl.constexpr = gl.SliceLayout(2, ROW)
    g = gl.arange(0, CHUNKS, layout=gl.SliceLayout(1, CHUNK_ROW))[:, None][:, :, None]
    c = gl.arange(0, 32, layout=gl.SliceLayout(0, gl.SliceLayout(0, ROW)))[None, :][None, :, :]
    before = gl.arange(0, 8, layout=gl.SliceLayout(0, gl.SliceLayout(0, WEIGHTS)))
    before = before[None, :][None, :, :][:, :, :, None]
    z, _, _, _, _ = _place(g, H, num_chunks, total)
    n_ptr += z.to(gl.int64) * 4096 + c
    dtype: gl.constexpr = n_ptr.dtype.element_ty
    zero = gl.zeros([CHUNKS, 1, 8, 32], gl.float32, WIDE)
    nothing = gl.zeros([CHUNKS, 1, 32], dtype, ROW)
    # b_k N[k, c] of the rows so far, in blocks of 8: of columns 0 to 31, and 32 to 63
    left = ()
    right = ()
    for block in gl.static_range(8):
        left_block = zero
        right_block = zero
        for i in gl.static_range(8):
            row = a_smem.slice(block * 8 + i, 1, dim=1)
            beta = beta_smem.slice(block * 8 + i, 1, dim=1).load(CHUNK_ROW)[:, :, None]
            x = row.slice(0, 32, dim=2).load(ROW)
            y = row.slice(32, 32, dim=2).load(ROW)
            for j in gl.static_range(block):
                weights = row.slice(8 * j, 8, dim=2).load(WEIGHTS)[:, :, :, None]
                x -= gl.sum(weights * left[j], 2)
                if j >= 4:
                    y -= gl.sum(weights * right[j - 4], 2)
            if i > 0:
                weights = row.slice(8 * block, 8, dim=2).load(WEIGHTS)[:, :, :, None]
                x -= gl.sum(weights * left_block, 2)
                if block >= 4:
                    y -= gl.sum(weights * right_block, 2)
            gl.store(n_ptr + (block * 8 + i) * 64, x.to(dtype))
            left_block = gl.where(before == i, (x * beta)[:, :, None, :], left_block)
            if block >= 4:
                gl.store(n_ptr + ((block * 8 + i) * 64 + 32), y.to(dtype))
                right_block = gl.where(before == i, (y * beta)[:, :, None, :], right_block)
            else:
                gl.store(n_ptr + ((block * 8 + i) * 64 + 32), nothing)
        left = left + (left_block,)  # noqa: RUF005
        if block >= 4:
            right = right + (right_block,)  # noqa: RUF005


@gluon.jit(do_not_specialize=("H", "L", "num_chunks", "total", "plane"))
def delta_rule_hopper_matrices_kernel(
    q_ptr, k_desc, beta_ptr, n_ptr, scalars_ptr, scale, H, L, num_chunks, total, plane,
    q_stride_b, q_stride_h, q_stride_l, beta_stride_b, beta_stride_h, beta_stride_l,
    D: gl.constexpr, DP: gl.constexpr, L2NORM: gl.constexpr, EPS: gl.constexpr,
):  # fmt: skip
    """Write N ``[Z, 64, 64]`` and the scalars ``[3, B * H, L]``: b, r_k and scale * r_q."""
    TILE: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, 16])
    ROWS: gl.constexpr = gl.SliceLayout(1, TILE)
    COLS: gl.constexpr = gl.SliceLayout(0, TILE)
    QUERIES: gl.constexpr = gl.BlockedLayout([1, 8], [256 // DP, DP // 8], [4, 1], [1, 0])
    TOKENS: gl.constexpr = gl.SliceLayout(1, QUERIES)
    FLAT: gl.constexpr = gl.BlockedLayout([1], [32], [4], [0])
    PLAIN_3: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [2, 1, 0])
    PLAIN_2: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [1, 0])
    PLAIN_1: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    box: gl.constexpr = k_desc.block_type.shape
    # 16 KiB per chunk: first its K, of which A takes the place
    BOXES: gl.constexpr = 128 // DP
    k_smem = gl.allocate_shared_memory(
        k_desc.dtype,
        [CHUNKS * BOXES] + box,  # noqa: RUF005
        k_desc.layout,
    )
    beta_smem = gl.allocate_shared_memory(gl.float32, [CHUNKS, 64], PLAIN_2)
    if REINTERPRET_IS_PUBLIC:
        a_smem = k_smem.reinterpret(gl.float32, [CHUNKS, 64, 64], PLAIN_3)
        a_chunks = k_smem.reinterpret(gl.float32, [CHUNKS, 64, 64], PLAIN_2)
        beta_chunks = beta_smem.reinterpret(gl.float32, [CHUNKS, 64], PLAIN_1)
    else:
        a_smem = k_smem._reinterpret(gl.float32, [CHUNKS, 64, 64], PLAIN_3)
        a_chunks = k_smem._reinterpret(gl.float32, [CHUNKS, 64, 64], PLAIN_2)
        beta_chunks = beta_smem._reinterpret(gl.float32, [CHUNKS, 64], PLAIN_1)
    full = gl.allocate_shared_memory(gl.int64, [CHUNKS, 1], mbarrier.MBarrierLayout())
    for g in gl.static_range(CHUNKS):
        mbarrier.init(full.index(g), count=1)
    for g in gl.static_range(CHUNKS):
        _, _, b, h, t = _place(g, H, num_chunks, total)
        mbarrier.expect(full.index(g), k_desc.block_type.nbytes)
        load_box(k_desc, [b, h, t, 0], full.index(g), k_smem.index(g * BOXES))
    zero = gl.zeros([64, 64], gl.float32, TILE)
    r = gl.arange(0, 64, layout=ROWS)
    c = gl.arange(0, 64, layout=COLS)
    token = gl.arange(0, 64, layout=TOKENS)
    d = gl.arange(0, DP, layout=gl.SliceLayout(0, QUERIES))
    flat = gl.arange(0, 64, layout=FLAT)
    q_next, beta_next = _load_queries(
        q_ptr, beta_ptr, 0, token, d, flat, H, L, num_chunks, total,
        q_stride_b, q_stride_h, q_stride_l, beta_stride_b, beta_stride_h, beta_stride_l, D,
    )  # fmt: skip
    for g in range(CHUNKS):
        _, bh, _, _, start = _place(g, H, num_chunks, total)
        left = L - start
        head_ptr = scalars_ptr + (bh.to(gl.int64) * L + start)
        q, beta = q_next, beta_next.to(gl.float32)
        q_next, beta_next = _load_queries(
            q_ptr, beta_ptr, gl.minimum(g + 1, CHUNKS - 1), token, d, flat, H, L, num_chunks, total,
            q_stride_b, q_stride_h, q_stride_l, beta_stride_b, beta_stride_h, beta_stride_l, D,
        )  # fmt: skip
        mbarrier.wait(full.index(g), 0)
        k = k_smem.index(g * BOXES).reshape([64, DP])
        a = warpgroup_mma(k, k.permute((1, 0)), zero, use_acc=False)
        barrier()
        gl.store(head_ptr + flat, beta, mask=flat < left)
        beta_chunks.index(g).store(beta)
        if L2NORM:
            q = q.to(gl.float32)
            q_norm = scale * gl.rsqrt(gl.sum(q * q, 1) + EPS)
            k_norm = gl.rsqrt(gl.sum(gl.where(r[:, None] == c[None, :], a, 0.0), 1) + EPS)
            a = a * (k_norm[:, None] * gl.convert_layout(k_norm, COLS)[None, :])
        else:
            q_norm = gl.full([64], 1.0, gl.float32, TOKENS) * scale
            k_norm = gl.full([64], 1.0, gl.float32, ROWS)
        gl.store(head_ptr + plane + r, k_norm, mask=r < left)
        gl.store(head_ptr + 2 * plane + token, q_norm, mask=token < left)
        a_chunks.index(g).store(gl.where(r[:, None] > c[None, :], a, 0.0))
    _solve(a_smem, beta_smem, n_ptr, H, num_chunks, total)
