"""Layers of ENA and of what it is compared with: DeltaNet, attention, MLP, block.

Their formulas: docs/maths.md, "Layers and models".

Weights fit whatever the implementation, the place of the permutation, or the dtype: two layers
built alike but for those share a `state_dict`.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ena_kernels.canvas import Shape, num_tokens, window_grid
from ena_kernels.components import (
    GELU,
    AttentionCore,
    HeadNorm,
    LayerNorm,
    MLPLinear,
    Projection,
    Recurrence,
    ScanMerge,
    ScanOrder,
    ScanSplit,
    ShortConvolution,
    SlidingTileCore,
    Tile,
    Untile,
    impl_around,
    impl_beside,
)
from ena_kernels.delta_rule.api import delta_rule_step
from ena_kernels.errors import ShapeError, UnsupportedError
from ena_kernels.scans.catalog import scan_refusal
from ena_kernels.short_conv import WIDTH
from ena_kernels.sliding_tile.api import orders_of

PERMUTES = ("io", "qkvo", "fused")
MLP_RATIO = 4


class DeltaNetCache(NamedTuple):
    """What decoding carries from token to token.

    past: ``[B, 3, 3 * model_dim]``, the last inputs of the convolution; state: ``[B, H, D, D]``,
    float32 (float64 in a float64 layer).
    """

    past: Tensor
    state: Tensor


class DeltaNet(nn.Module):
    """The linear recurrence of ENA between its projections, read in a scan.

    Args:
        model_dim: Width of the hidden state, a multiple of `heads`.
        heads: Heads of ``model_dim // heads`` channels, for keys and values alike.
        canvas: Token grid, slowest axis first.
        scan: Order in which the canvas is read, a name of `ena_kernels.scans.catalog.SCANS`.
        scan_variant: ``"fixed"`` or ``"official"``.
        layer: 0-based place in the stack, which shifts and switch depend on.
        impl: Implementation of `ena_kernels.delta_rule`; scan, convolution and norm follow it by
            `ena_kernels.components.impl_around`.
    Raises:
        ShapeError: `heads` does not divide `model_dim`, or the scan is unknown.
        UnsupportedError: the scan cannot read this canvas.
    """

    def __init__(
        self,
        model_dim: int,
        heads: int,
        *,
        canvas: Shape,
        scan: str = "uni",
        scan_variant: str = "fixed",
        layer: int = 0,
        impl: str = "eager",
    ) -> None:
        super().__init__()
        self.heads, self.scan = heads, scan
        head_dim = _head_dim(model_dim, heads)
        refusal = scan_refusal(scan, canvas, heads)
        if refusal is not None:
            wrong, expected, try_ = refusal
            raise UnsupportedError(wrong, expected=expected, try_=try_)
        settings = {"scan": scan, "canvas": canvas, "variant": scan_variant}
        settings |= {"layer": layer, "heads": heads, "impl": impl_around(impl)}
        self.order = ScanOrder(scan, num_tokens(canvas))
        self.split = ScanSplit(**settings)
        self.qkv = Projection(model_dim, 3 * model_dim)
        self.beta = Projection(model_dim, heads)
        self.conv = ShortConvolution(model_dim, impl_around(impl))
        self.recurrence = Recurrence(heads, impl)
        self.norm = HeadNorm(head_dim, impl_around(impl))
        self.out = Projection(model_dim, model_dim)
        self.merge = ScanMerge(**settings)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, L, model_dim]`` in raster order to the same."""
        order = self.order(x)
        x = self.split(x, order)
        o = self.recurrence(*self.conv(self.qkv(x)), self.beta(x))
        return self.merge(self.out(self.norm(o)), order)

    def empty_cache(self, batch: int) -> DeltaNetCache:
        """The cache before the first token, on the device of the weights."""
        weight, head_dim = self.qkv.weight, self.norm.weight.shape[0]
        wide = torch.promote_types(weight.dtype, torch.float32)
        return DeltaNetCache(
            past=weight.new_zeros(batch, WIDTH - 1, weight.shape[0]),
            state=weight.new_zeros(batch, self.heads, head_dim, head_dim, dtype=wide),
        )

    def step(self, x: Tensor, cache: DeltaNetCache) -> tuple[Tensor, DeltaNetCache]:
        """One token ``[B, model_dim]``: tokens fed in order give what `forward` gives on all.

        Raises:
            UnsupportedError: the scan is not ``uni``, so the first token needs later ones.
        """
        if self.scan != "uni":
            raise UnsupportedError(
                f"scan {self.scan} needs the whole canvas before it can read a token",
                expected="scan uni for decoding token by token",
                try_="DeltaNet(..., scan='uni')",
            )
        qkv = self.qkv(x)[:, None]
        q, k, v = (
            part.squeeze(1).unflatten(-1, (self.heads, -1)) for part in self.conv(qkv, cache.past)
        )
        beta = self.beta(x).sigmoid()
        impl = "reference" if torch.is_grad_enabled() else self.recurrence.impl
        o, state = delta_rule_step(q, k, v, beta, cache.state, qk_l2norm=True, impl=impl)
        past = torch.cat([cache.past[:, 1:], qkv], dim=1)
        return self.out(self.norm(o)), DeltaNetCache(past=past, state=state)


class Attention(nn.Module):
    """Full attention without bias, mask or rotary embedding.

    Args:
        model_dim: Width of the hidden state, a multiple of `heads`.
        impl: Implementation of `ena_kernels.attention`.
    Raises:
        ShapeError: `heads` does not divide `model_dim`.
    """

    def __init__(self, model_dim: int, heads: int, *, impl: str = "eager") -> None:
        super().__init__()
        _head_dim(model_dim, heads)
        self.qkv = Projection(model_dim, 3 * model_dim)
        self.attend = AttentionCore(heads, impl)
        self.out = Projection(model_dim, model_dim)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, L, model_dim]`` to the same."""
        return self.out(self.attend(self.qkv(x)))


class SlidingTileAttention(nn.Module):
    """Sliding Tile Attention without bias or rotary embedding.

    Args:
        model_dim: Width of the hidden state, a multiple of `heads`.
        canvas, window, tile: In tokens, slowest axis first, as `ena_kernels.sliding_tile` takes
            them.
        permute: ``"io"`` brings the input of the layer into tiled order and its output back, two
            tensors; ``"qkvo"`` permutes queries, keys and values, and the operator's output, four
            tensors; ``"fused"`` permutes nothing: the operator finds its tiles in raster order.
        impl: Implementation of `ena_kernels.sliding_tile`.
    Raises:
        ShapeError: sizes that do not divide, or an unknown `permute`.
        UnsupportedError: ``"fused"`` and an implementation that reads tiled order only.
    """

    def __init__(
        self,
        model_dim: int,
        heads: int,
        *,
        canvas: Shape,
        window: Shape,
        tile: Shape,
        permute: str = "io",
        impl: str = "eager",
    ) -> None:
        super().__init__()
        _head_dim(model_dim, heads)
        window_grid(canvas, tile, window)
        if permute not in PERMUTES:
            raise ShapeError(
                f"permute {permute!r} is unknown",
                expected=f"one of {', '.join(PERMUTES)}",
                try_=f"permute={PERMUTES[0]!r}",
            )
        if permute == "fused" and "raster" not in orders_of(impl):
            raise UnsupportedError(
                f"impl {impl!r} cannot fuse the permutation: it reads tokens in tiled order only",
                expected="an implementation that finds its tiles in raster order",
                try_="permute='io', or impl='triton'",
            )
        geometry = {"canvas": canvas, "window": window, "tile": tile}
        self.permute = permute
        self.tile = Tile(canvas, tile, impl_beside(impl))
        self.qkv = Projection(model_dim, 3 * model_dim)
        order = "raster" if permute == "fused" else "tiled"
        self.attend = SlidingTileCore(heads, impl, **geometry, order=order)
        self.out = Projection(model_dim, model_dim)
        self.untile = Untile(canvas, tile, impl_beside(impl))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, L, model_dim]`` in raster order to the same."""
        if self.permute == "fused":
            return self.out(self.attend(self.qkv(x)))
        if self.permute == "io":
            return self.untile(self.out(self.attend(self.qkv(self.tile(x)))))
        return self.out(self.untile(self.attend(self.tile(self.qkv(x)))))


class MLP(nn.Module):
    """To four times the width, exact GELU, and back, with biases; `impl` is of its `MLPLinear`."""

    def __init__(self, model_dim: int, impl: str = "eager") -> None:
        super().__init__()
        self.up = MLPLinear(model_dim, MLP_RATIO * model_dim, impl)
        self.gelu = GELU()
        self.down = MLPLinear(MLP_RATIO * model_dim, model_dim, impl)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., model_dim]`` to the same."""
        return self.down(self.gelu(self.up(x)))


class Block(nn.Module):
    """Mixer and MLP, each on a normalised input and added to it.

    Args:
        impl: Of layer norms and MLP, see `ena_kernels.components.impl_beside`.
    """

    def __init__(self, mixer: nn.Module, model_dim: int, impl: str = "eager") -> None:
        super().__init__()
        self.mixer_norm = LayerNorm(model_dim, impl)
        self.mixer = mixer
        self.mlp_norm = LayerNorm(model_dim, impl)
        self.mlp = MLP(model_dim, impl)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, L, model_dim]`` to the same."""
        x = x + self.mixer(self.mixer_norm(x))
        return x + self.mlp(self.mlp_norm(x))


def _head_dim(model_dim: int, heads: int) -> int:
    if heads < 1 or model_dim % heads:
        raise ShapeError(
            f"model_dim {model_dim} cannot be shared among {heads} heads",
            expected="model_dim a multiple of heads",
            try_=f"model_dim={heads * max(1, round(model_dim / max(heads, 1)))}",
        )
    return model_dim // heads
