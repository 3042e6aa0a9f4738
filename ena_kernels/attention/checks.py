"""What every attention operator asks of its tensors, and of the machine it runs on."""

import math
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

from ena_kernels.errors import ShapeError, UnsupportedError, check_impl

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_qkv(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> None:
    """Raise ShapeError unless q is ``[B, H, L, D]`` and k, v are ``[B, H_kv, L, D]`` alike.

    H_kv divides H; the stride in D is 1; dtypes and devices agree; the scale, if given, is a
    finite number.
    """
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.dim() != 4 or 0 in x.shape:
            raise ShapeError(
                f"{name} is {_text(x.shape)}",
                expected="four axes [B, H, L, D]: batch, heads, tokens, head dim; none empty",
                try_=f"{name} = torch.randn(1, 4, 256, 64)",
            )
        if x.dtype not in DTYPES or x.dtype != q.dtype:
            raise ShapeError(
                f"{name} is {x.dtype}, q is {q.dtype}",
                expected="q, k and v of one floating dtype: float16, bfloat16, float32 or float64",
                try_=f"{name}.to(torch.float32)",
            )
        if x.shape[3] > 1 and x.stride(3) != 1:
            raise ShapeError(
                f"{name} has strides {_text(x.stride())}",
                expected="a stride of 1 in the last axis, the head dim",
                try_=f"{name}.contiguous()",
            )
        if x.device != q.device:
            raise ShapeError(
                f"{name} is on {x.device}, q is on {q.device}",
                expected="q, k and v on one device",
                try_=f"{name}.to({str(q.device)!r})",
            )
    B, H, L, D = q.shape
    num_kv_heads = k.shape[1]
    if k.shape != v.shape or (k.shape[0], *k.shape[2:]) != (B, L, D) or H % num_kv_heads:
        raise ShapeError(
            f"q is {_text(q.shape)}, k is {_text(k.shape)}, v is {_text(v.shape)}",
            expected="k and v shaped like q, or with fewer heads that divide the heads of q",
            try_=f"k and v of shape {_text(q.shape)}",
        )
    if scale is not None and not math.isfinite(scale):
        raise ShapeError(
            f"scale is {scale}",
            expected="a finite number that multiplies the scores, or None for D ** -0.5",
            try_=f"scale={D**-0.5:g}",
        )


def implementation(impl: str, known: Sequence[str], package: str) -> ModuleType:
    """Import the module of `package` that is called like the implementation.

    Raises:
        UnsupportedError: `impl` is not among the known ones.
    """
    check_impl(impl, known, package.rpartition(".")[2])
    return import_module(f"{package}.{impl}")


def library(name: str, *, impl: str, install: str) -> ModuleType:
    """Import a library that an implementation needs.

    Raises:
        UnsupportedError: it cannot be imported; says why and how to install it.
    """
    try:
        return import_module(name)
    # built for another PyTorch or driver, libraries fail in all of these ways
    except (ImportError, OSError, AttributeError, RuntimeError) as err:
        reason = f"{type(err).__name__}: {err}".partition("\n")[0]
        raise UnsupportedError(
            f"impl {impl!r} needs the library {name}, which cannot be imported: {reason}",
            expected=f"{name} installed for this Python, PyTorch and CUDA",
            try_=f"pip install {install}",
        ) from err


def require_cuda(q: Tensor, *, impl: str) -> None:
    """Raise UnsupportedError for tensors that are not on a CUDA device."""
    if q.device.type != "cuda":
        raise UnsupportedError(
            f"impl {impl!r} has no kernel for {q.device.type} tensors",
            expected="tensors on a CUDA device",
            try_="impl='eager'",
        )


def require_dtype(q: Tensor, allowed: Sequence[torch.dtype], *, impl: str) -> None:
    """Raise UnsupportedError for a dtype that the implementation has no kernel for."""
    if q.dtype not in allowed:
        raise UnsupportedError(
            f"impl {impl!r} has no kernel for {q.dtype}",
            expected=f"one of {', '.join(map(str, allowed))}",
            try_="impl='eager'",
        )


def _text(shape: Sequence[int]) -> str:
    return str(list(shape))
