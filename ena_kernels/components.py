"""The modules without children that layers are made of, each with the share of time it counts to.

A class attribute `component` names that share: hooks on these modules split the time of a block
among "projections", "permutation", "recurrence", "attention", "mlp" and "norm"; what is left are
the residual additions. Which implementation runs is an attribute of the module that runs it and
never part of the state.
"""

from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ena_kernels.attention.api import attention
from ena_kernels.canvas import Shape, num_tokens
from ena_kernels.delta_rule.api import delta_rule
from ena_kernels.norms import head_norm, layer_norm
from ena_kernels.operands import DTYPES
from ena_kernels.scans.api import scan_merge, scan_split
from ena_kernels.scans.orders import learnable_logits, learnable_order, random_order
from ena_kernels.short_conv import WIDTH, short_conv
from ena_kernels.sliding_tile.api import sliding_tile
from ena_kernels.sliding_tile.tiling import tile as tile_tokens
from ena_kernels.sliding_tile.tiling import untile as untile_tokens

COMPONENTS = ("projections", "permutation", "recurrence", "attention", "mlp", "norm")
EPS = 1e-6
INIT_STD = 0.02
HALF = (torch.bfloat16, torch.float16)


def impl_around(recurrence: str) -> str:
    """Implementation of scan, convolution and norm around a recurrence of this one.

    Both recurrences of Triton kernels, ours and fla's, refuse what ours around them refuse.
    """
    return "triton" if recurrence in ("triton", "fla") else "eager"


def impl_beside(*mixers: str) -> str:
    """Implementation of norms and MLP in a stack of such mixers: PyTorch's if all are PyTorch's."""
    is_plain = {"eager", "reference"}.issuperset(mixers) or find_spec("triton") is None
    return "eager" if is_plain else "triton"


def runs_triton(impl: str, x: Tensor) -> bool:
    """Whether a module that exists on every device runs Triton's kernels on `x`."""
    return impl == "triton" and x.is_cuda and x.dtype in DTYPES


class Linear(nn.Linear):
    """A linear map that starts as a truncated normal of deviation 0.02, its bias as zero."""

    def reset_parameters(self) -> None:
        nn.init.trunc_normal_(self.weight, std=INIT_STD)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class Projection(Linear):
    """A linear map without bias, before or after a mixer."""

    component = "projections"

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__(d_in, d_out, bias=False)


class MLPLinear(Linear):
    """A linear map with bias inside an MLP.

    With `impl` "triton" a kernel of ours sums the gradient of the bias where it can: on CUDA, in
    half precision. PyTorch's takes twice as long as reading the gradient.
    """

    component = "mlp"

    def __init__(self, d_in: int, d_out: int, impl: str = "eager") -> None:
        super().__init__(d_in, d_out)
        self.impl = impl

    def forward(self, x: Tensor) -> Tensor:
        """``[..., d_in]`` to ``[..., d_out]``."""
        is_half = x.dtype in HALF and x.dtype == self.weight.dtype
        if runs_triton(self.impl, x) and is_half and torch.is_grad_enabled():
            return BiasedLinear.apply(x, self.weight, self.bias)
        return super().forward(x)


class BiasedLinear(torch.autograd.Function):
    """``x weight^T + bias``, whose backward sums the gradient of the bias by our kernel."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        """``[..., d_in]`` to ``[..., d_out]``."""
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx, grad):
        """Gradients of x, weight and bias."""
        from ena_kernels.column_sum_kernel import bias_gradient

        x, weight = ctx.saved_tensors
        dweight = grad.reshape(-1, grad.shape[-1]).mT @ x.reshape(-1, x.shape[-1])
        return grad @ weight, dweight, bias_gradient(grad)


class GELU(nn.GELU):
    """Exact GELU, by the error function."""

    component = "mlp"


class LayerNorm(nn.LayerNorm):
    """Layer norm with weight and bias, eps 1e-6.

    With `impl` "triton" it runs Triton's kernels where there are any: on CUDA, up to float32.
    """

    component = "norm"

    def __init__(self, model_dim: int, impl: str = "eager") -> None:
        super().__init__(model_dim, eps=EPS)
        self.impl = impl

    def forward(self, x: Tensor) -> Tensor:
        """``[..., model_dim]`` to the same."""
        if runs_triton(self.impl, x):
            return layer_norm(x, self.weight, self.bias, eps=EPS, impl="triton")
        if x.is_cuda or x.dtype not in HALF:
            return super().forward(x)
        # on a CPU the fused backward adds up over tokens in half precision: 2000 lose two thirds
        normed = F.layer_norm(x, self.normalized_shape, eps=self.eps)
        return torch.addcmul(self.bias, normed, self.weight)


class HeadNorm(nn.RMSNorm):
    """Normalise each head by its root mean square, then put the heads side by side."""

    component = "norm"

    def __init__(self, head_dim: int, impl: str = "eager") -> None:
        super().__init__(head_dim, eps=EPS)
        self.impl = impl

    def forward(self, o: Tensor) -> Tensor:
        """``[..., H, D]`` to ``[..., H * D]``."""
        return head_norm(o, self.weight, eps=EPS, impl=self.impl)


class ShortConvolution(nn.Conv1d):
    """Width 4, causal and depthwise over q, k and v at once, each followed by SiLU."""

    component = "recurrence"

    def __init__(self, model_dim: int, impl: str = "eager") -> None:
        channels = 3 * model_dim
        super().__init__(channels, channels, WIDTH, groups=channels, bias=False)
        self.impl = impl

    def forward(self, qkv: Tensor, past: Tensor | None = None) -> tuple[Tensor, ...]:
        """``[B, L, 3 C]``, and the three tokens before it, to q, k, v, each ``[B, L, C]``."""
        return short_conv(qkv, self.weight, past, impl=self.impl)


class Recurrence(nn.Module):
    """The delta rule with normalised queries and keys, scaled by ``D ** -0.5``."""

    component = "recurrence"

    def __init__(self, heads: int, impl: str) -> None:
        super().__init__()
        self.heads, self.impl = heads, impl

    def forward(self, q: Tensor, k: Tensor, v: Tensor, strength: Tensor) -> Tensor:
        """``[B, L, H * D]`` each and ``[B, L, H]`` before its sigmoid, to ``[B, L, H, D]``."""
        q, k, v = (_heads_first(x, self.heads) for x in (q, k, v))
        beta = strength.sigmoid().transpose(1, 2)
        o, _ = delta_rule(q, k, v, beta, qk_l2norm=True, impl=self.impl)
        return o.transpose(1, 2)


class ScanOrder(nn.Module):
    """Draws the order of a random or learnable scan anew at every call; None for the others.

    Draws come from the default generator of the device of x, in float32 whatever the dtype of the
    model: `torch.manual_seed` before two calls makes them read the canvas in the same order.
    """

    component = "permutation"

    def __init__(self, scan: str, seq_len: int) -> None:
        super().__init__()
        self.scan = scan
        self.logits = nn.Parameter(learnable_logits(seq_len)) if scan == "learnable" else None

    def forward(self, x: Tensor) -> Tensor | None:
        if self.logits is not None:
            return learnable_order(self.logits.float())
        return random_order(*x.shape[:2], device=x.device) if self.scan == "random" else None


class ScanSplit(nn.Module):
    """`ena_kernels.scan_split` with its settings: ``[B, L, C]`` to ``[p * B, L, C]``."""

    component = "permutation"

    def __init__(self, **scan: object) -> None:
        super().__init__()
        self.scan = scan

    def forward(self, x: Tensor, order: Tensor | None) -> Tensor:
        return scan_split(x, **self.scan, order=order)


class ScanMerge(nn.Module):
    """`ena_kernels.scan_merge` with its settings: ``[p * B, L, C]`` to ``[B, L, C]``."""

    component = "permutation"

    def __init__(self, **scan: object) -> None:
        super().__init__()
        self.scan = scan

    def forward(self, y: Tensor, order: Tensor | None) -> Tensor:
        return scan_merge(y, **self.scan, order=order)


class AttentionCore(nn.Module):
    """Full attention between its projections."""

    component = "attention"

    def __init__(self, heads: int, impl: str) -> None:
        super().__init__()
        self.heads, self.impl = heads, impl

    def forward(self, qkv: Tensor) -> Tensor:
        """``[B, L, 3 C]`` to ``[B, L, C]``."""
        q, k, v = (_heads_first(x, self.heads) for x in qkv.chunk(3, dim=-1))
        return attention(q, k, v, impl=self.impl).transpose(1, 2).flatten(2)


class SlidingTileCore(nn.Module):
    """Sliding Tile Attention between its projections, in the order that `geometry` names."""

    component = "attention"

    def __init__(self, heads: int, impl: str, **geometry: object) -> None:
        super().__init__()
        self.heads, self.impl, self.geometry = heads, impl, geometry

    def forward(self, qkv: Tensor) -> Tensor:
        """``[B, L, 3 C]`` to ``[B, L, C]``."""
        q, k, v = (_heads_first(x, self.heads) for x in qkv.chunk(3, dim=-1))
        return sliding_tile(q, k, v, **self.geometry, impl=self.impl).transpose(1, 2).flatten(2)


class Tile(nn.Module):
    """``[B, L, C]`` from raster order into tiled order.

    With `impl` "triton" it is a scan in an order of its own, where there are kernels for scans.
    """

    component = "permutation"

    def __init__(self, canvas: Shape, tile: Shape, impl: str = "eager") -> None:
        super().__init__()
        self.canvas, self.tile, self.impl = canvas, tile, impl
        order = tile_tokens(torch.arange(num_tokens(canvas))[:, None], canvas, tile)
        self.register_buffer("order", order.T, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self._is_scan(x):
            return scan_split(x, **self._scan(x))
        return tile_tokens(x, self.canvas, self.tile)

    def _is_scan(self, x: Tensor) -> bool:
        return len(self.canvas) > 1 and runs_triton(self.impl, x)

    def _scan(self, x: Tensor) -> dict:
        order = self.order.expand(len(x), -1)
        return {"scan": "random", "canvas": self.canvas, "order": order, "impl": "triton"}


class Untile(Tile):
    """``[B, L, C]`` from tiled order back into raster order."""

    def forward(self, x: Tensor) -> Tensor:
        if self._is_scan(x):
            return scan_merge(x, **self._scan(x))
        return untile_tokens(x, self.canvas, self.tile)


def _heads_first(x: Tensor, heads: int) -> Tensor:
    """``[B, L, H * D]`` as a view ``[B, H, L, D]``."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)
