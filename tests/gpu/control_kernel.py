"""A kernel of warps that share no data, to see what tools say of Triton's own part of ours.

Its frame is that of the Hopper kernels: two groups of four warps wait on a memory barrier of their
own for a single warp, pass barriers of their group alone, and exchange registers.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier

from ena_kernels.gluon_names import barrier


@gluon.jit
def _fill(W: gl.constexpr, out_ptr, ready, value):
    mbarrier.wait(ready.index(W), 0)
    barrier()
    offsets = gl.arange(0, 128, gl.BlockedLayout([1], [32], [4], [0]))
    gl.store(out_ptr + (gl.program_id(0) * 2 + W) * 128 + offsets, offsets * 0 + value)
    barrier()


@gluon.jit
def _release(ready):
    for w in gl.static_range(2):
        mbarrier.arrive(ready.index(w), count=1)


@gluon.jit
def two_kinds_kernel(out_ptr, one, other):
    """Writes int32 ``[programs, 2, 128]``: `one` in each first row, `other` in each second."""
    ready = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    for w in gl.static_range(2):
        mbarrier.init(ready.index(w), count=1)
    gl.warp_specialize(
        [
            (_fill, (0, out_ptr, ready, one)),
            (_fill, (1, out_ptr, ready, other)),
            (_release, (ready,)),
        ],
        [4, 1],
        [240, 24],
    )
