"""The recurrence of the delta rule on Hopper: what it takes, its tensor maps, its launches."""

from functools import cache

import torch
from torch import Tensor

from ena_kernels.delta_rule.common import L2_EPS

DTYPES = (torch.float16, torch.bfloat16)
SIZES = (64, 128)
CHUNK = 64


def supports(q: Tensor, k: Tensor, v: Tensor, DP: int, EP: int) -> bool:
    """Whether `transfer` and `output` can run these checked arguments here."""
    return (
        q.is_cuda
        and q.dtype in DTYPES
        and DP in SIZES
        and EP in SIZES
        and _is_hopper(q.device)
        and all(_has_map(x) for x in (q, k, v))
        and _has_gluon()
    )


def chunk_matrices(q, k, beta, n, scalars, scale, qk_l2norm, D, DP) -> None:
    """Launch in the place of `chunk_matrices_kernel`, without P."""
    from ena_kernels.delta_rule.hopper_inverse_kernel import hopper_chunk_matrices_kernel

    H, L = q.shape[1:3]
    total = n.shape[0]
    hopper_chunk_matrices_kernel[(-(-total // 4),)](
        *(q, _map(k, DP), beta, n, scalars, scale, H, L, -(-L // CHUNK), total, beta.numel()),
        *(*q.stride()[:3], *beta.stride()),
        D=D,
        DP=DP,
        L2NORM=qk_l2norm,
        EPS=L2_EPS,
        num_warps=4,
    )


def transfer(k, v, n, scalars, initial, transfer, cut, sizes, config) -> None:
    """Launch in the place of `transfer_kernel`."""
    num_chunks, num_segments = cut[2:4]
    blocks = -(-(sizes["EP"] + sizes["DP"]) // (64 * config.warpgroups))
    programs = n.shape[0] // num_chunks * (num_segments - 1) * blocks
    k_map, v_map = _map(k, sizes["DP"]), _map(v, CHUNK)
    maps = (k_map, k_map, v_map, _squares(n), v_map)
    _launch(programs, maps, (scalars, initial, transfer, scalars), cut, sizes, config, False)


def output(q, k, v, n, scalars, initial, transfer, o, final, cut, sizes, config) -> None:
    """Launch in the place of `output_kernel`."""
    num_chunks, num_segments = cut[2:4]
    blocks = -(-sizes["EP"] // (64 * config.warpgroups))
    programs = n.shape[0] // num_chunks * num_segments * blocks
    maps = (_map(q, sizes["DP"]), _map(k, sizes["DP"]), _map(v, CHUNK), _squares(n), _map(o, CHUNK))
    _launch(programs, maps, (scalars, initial, transfer, final), cut, sizes, config, True)


def _launch(programs, maps, pointers, cut, sizes, config, has_output) -> None:
    from ena_kernels.delta_rule.hopper_kernel import recurrence_kernel

    recurrence_kernel[(programs,)](
        *maps,
        *pointers,
        *cut,
        **sizes,
        WARPGROUPS=config.warpgroups,
        STAGES=config.stages,
        HAS_OUTPUT=has_output,
        num_warps=4,
        maxnreg=config.registers,
    )


def _has_map(x: Tensor) -> bool:
    """Whether x ``[B, H, L, D]`` can be read by the TMA: every step a multiple of 16 bytes."""
    steps = zip(x.shape[:3], x.stride()[:3], strict=True)
    return x.data_ptr() % 16 == 0 and all(n == 1 or (s > 0 and s % 8 == 0) for n, s in steps)


def _map(x: Tensor, width: int):
    """Tensor map of ``[B, H, L, X]`` in boxes of a chunk of one head."""
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

    # the step along an axis of one does not matter, but it has to be one the TMA takes
    strides = [s if n > 1 else 8 for n, s in zip(x.shape[:3], x.stride()[:3], strict=True)]
    block = [1, 1, CHUNK, width]
    return TensorDescriptor(x, list(x.shape), [*strides, 1], block, _layout(tuple(block), x.dtype))


def _squares(n: Tensor):
    """Tensor map of ``[Z, C, C]`` in boxes of one matrix."""
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

    block = [CHUNK, CHUNK]
    shape = [n.shape[0] * CHUNK, CHUNK]
    return TensorDescriptor(n, shape, [CHUNK, 1], block, _layout(tuple(block), n.dtype))


@cache
def _layout(block: tuple[int, ...], dtype: torch.dtype):
    from triton.experimental.gluon import language as gl

    elements = {torch.float16: gl.float16, torch.bfloat16: gl.bfloat16}
    return gl.NVMMASharedLayout.get_default_for(list(block), elements[dtype])


@cache
def _is_hopper(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device) == (9, 0)


@cache
def _has_gluon() -> bool:
    try:
        import ena_kernels.delta_rule.hopper_kernel  # noqa: F401
    except ImportError:
        return False
    return True
