"""A kernel of two kinds of warps that share nothing, to see what tools say of Triton's own part."""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl


@gluon.jit
def _fill(out_ptr, first, value, WARPS: gl.constexpr):
    offsets = gl.arange(0, 64, gl.BlockedLayout([1], [32], [WARPS], [0]))
    gl.store(out_ptr + first + gl.program_id(0) * 64 + offsets, offsets * 0 + value)


@gluon.jit
def two_kinds_kernel(out_ptr, one, other):
    """Writes int32 ``[4, 64]``: `one` to the first two rows by four warps, `other` by one warp."""
    gl.warp_specialize(
        [(_fill, (out_ptr, 0, one, 4)), (_fill, (out_ptr, 128, other, 1))], [1], [24]
    )
