"""The scores of chunks on Hopper, by a warpgroup of its own: what is read of W and of dO (Gluon).

    P = T (diag(b) N - I)    with T = lower(Q K^T) diag(r_k)

Outputs are ``S Q^T - (W diag(b)) P^T``, and -Z has the part ``dO^T P``, both up to the scale of q.
Where keys are similar, what is written is a small difference of what is in W, and rounding it
weighs much in the sum of many; P has no such sum, and is computed from T in twice the precision.
"""

# Legend as in `forward_kernels`.

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    warpgroup_mma,
    warpgroup_mma_wait,
)


@gluon.jit
def in_two(x, DTYPE: gl.constexpr):
    """Two numbers of half precision whose sum is x, almost."""
    coarse = x.to(DTYPE)
    return coarse, (x - coarse.to(gl.float32)).to(DTYPE)


@gluon.jit
def score(
    q_smem, k_smem, n_smem, p_smem, barriers, scalars_ptr, left, plane, count,
    DP: gl.constexpr, STAGES: gl.constexpr, STEP: gl.constexpr, DTYPE: gl.constexpr,
):  # fmt: skip
    """Put P of `count` chunks into a ring of two, in the order of the ring of chunks.

    scalars_ptr and left: the first token of the first one, and how many tokens follow it.
    STEP: the tokens from a chunk to the next, 64 or -64.
    """
    full, empty, p_full, p_empty = barriers
    TILE: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, 16])
    LEFT: gl.constexpr = gl.DotOperandLayout(0, TILE, 2)
    TOKENS: gl.constexpr = gl.SliceLayout(0, TILE)
    now = gl.arange(0, 64, layout=gl.SliceLayout(1, TILE))[:, None]
    before = gl.arange(0, 64, layout=TOKENS)[None, :]
    zero = gl.zeros([64, 64], gl.float32, TILE)
    flat = gl.arange(0, 64, layout=gl.BlockedLayout([1], [32], [4], [0]))
    scalars_ptr += flat
    beta_next = gl.load(scalars_ptr, mask=flat < left, other=0.0)
    k_norm_next = gl.load(scalars_ptr + plane, mask=flat < left, other=0.0)
    for i in range(count):
        stage = i % STAGES
        p_stage = i % 2
        mbarrier.wait(full.index(stage), (i // STAGES) & 1)
        q = q_smem.index(stage).reshape([64, DP])
        k_t = k_smem.index(stage).reshape([64, DP]).permute((1, 0))
        token = warpgroup_mma(q, k_t, zero, use_acc=False, is_async=True)
        beta, k_norm = beta_next, k_norm_next
        left -= STEP
        scalars_ptr += STEP
        inside = (flat < left) & (i + 1 < count)
        beta_next = gl.load(scalars_ptr, mask=inside, other=0.0)
        k_norm_next = gl.load(scalars_ptr + plane, mask=inside, other=0.0)
        p = warpgroup_mma_wait(0, deps=(token,))
        p *= gl.convert_layout(k_norm, TOKENS)[None, :]
        p = gl.where(now >= before, p, 0.0)
        coarse, rest = in_two(p * gl.convert_layout(beta, TOKENS)[None, :], DTYPE)
        n = n_smem.index(stage)
        token = warpgroup_mma(gl.convert_layout(coarse, LEFT), n, -p, is_async=True)
        token = warpgroup_mma(gl.convert_layout(rest, LEFT), n, token, is_async=True)
        p = warpgroup_mma_wait(0, deps=(token,))
        mbarrier.arrive(empty.index(stage), count=1)
        mbarrier.wait(p_empty.index(p_stage), ((i // 2) & 1) ^ 1)
        p_smem.index(p_stage).store(p.to(DTYPE))
        fence_async_shared()
        mbarrier.arrive(p_full.index(p_stage), count=1)
