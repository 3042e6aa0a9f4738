"""Stacks of blocks and whole models: ENA, Transformer, and pure linear recurrence."""

import torch
from torch import Tensor, nn

from ena_kernels.canvas import Shape, num_tokens
from ena_kernels.components import INIT_STD, LayerNorm, Linear, impl_beside
from ena_kernels.errors import ShapeError
from ena_kernels.layers import Attention, Block, DeltaNet, SlidingTileAttention
from ena_kernels.sizes import NUM_CLASSES, attention_layers

CONTENDERS = ("ena", "transformer", "linear")
LEVELS = ("layer", "model")


def build(
    contender: str,
    *,
    level: str,
    canvas: Shape,
    heads: int,
    head_dim: int,
    depth: int,
    tile: Shape | None = None,
    window: Shape | None = None,
    scan: str = "uni",
    scan_variant: str = "fixed",
    interleave: str = "linear-first",
    permute: str = "io",
    attention_impl: str = "eager",
    recurrence_impl: str = "eager",
) -> nn.Module:
    """A stack (`level` "layer") or a model on hidden states ``[B, L, heads * head_dim]``.

    Built twice with other implementations, the two take each other's `state_dict`. Arguments that
    mean nothing to a contender, such as a tile to a Transformer, are not looked at.

    Raises:
        ShapeError: an unknown name, or sizes that do not fit each other.
        UnsupportedError: the scan cannot read this canvas.
    """
    _check_known("contender", contender, CONTENDERS)
    _check_known("level", level, LEVELS)
    model_dim = heads * head_dim
    shape = {"depth": depth, "model_dim": model_dim, "heads": heads}
    scanning = {"canvas": canvas, "scan": scan, "scan_variant": scan_variant}
    if contender == "transformer":
        stack = transformer_stack(**shape, impl=attention_impl)
    elif contender == "linear":
        stack = linear_stack(**shape, **scanning, impl=recurrence_impl)
    else:
        stack = ena_stack(
            **shape,
            **scanning,
            tile=tile,
            window=window,
            interleave=interleave,
            permute=permute,
            attention_impl=attention_impl,
            recurrence_impl=recurrence_impl,
        )
    return stack if level == "layer" else Model(stack, canvas=canvas, model_dim=model_dim)


def transformer_stack(
    *, depth: int, model_dim: int, heads: int, impl: str = "eager"
) -> nn.Sequential:
    """`depth` blocks of full attention."""
    mixers = (Attention(model_dim, heads, impl=impl) for _ in range(depth))
    return nn.Sequential(*(Block(mixer, model_dim, impl_beside(impl)) for mixer in mixers))


def linear_stack(
    *,
    depth: int,
    model_dim: int,
    heads: int,
    canvas: Shape,
    scan: str = "uni",
    scan_variant: str = "fixed",
    impl: str = "eager",
) -> nn.Sequential:
    """`depth` blocks of DeltaNet."""
    settings = {"canvas": canvas, "scan": scan, "scan_variant": scan_variant, "impl": impl}
    mixers = (DeltaNet(model_dim, heads, **settings, layer=layer) for layer in range(depth))
    return nn.Sequential(*(Block(mixer, model_dim, impl_beside(impl)) for mixer in mixers))


def ena_stack(
    *,
    depth: int,
    model_dim: int,
    heads: int,
    canvas: Shape,
    tile: Shape | None = None,
    window: Shape | None = None,
    scan: str = "uni",
    scan_variant: str = "fixed",
    interleave: str = "linear-first",
    permute: str = "io",
    attention_impl: str = "eager",
    recurrence_impl: str = "eager",
) -> nn.Sequential:
    """`depth` blocks, some of attention on tiles and the others of DeltaNet.

    Args:
        tile, window: In tokens. Without a tile the attention is full.
        interleave: Which layers attend, see `ena_kernels.sizes.attention_layers`.
        attention_impl: Of `ena_kernels.sliding_tile`, or of `ena_kernels.attention` without a tile.
        recurrence_impl: Of `ena_kernels.delta_rule`.
    Raises:
        ShapeError: a tile without a window or the reverse, besides what the layers raise.
    """
    if (tile is None) != (window is None):
        raise ShapeError(
            f"tile is {tile}, window is {window}",
            expected="both for Sliding Tile Attention, or neither for full attention",
            try_="tile=None, window=None",
        )
    blocks = []
    for layer, attends in enumerate(attention_layers(depth, interleave)):
        mixer: nn.Module
        if not attends:
            mixer = DeltaNet(
                model_dim,
                heads,
                canvas=canvas,
                scan=scan,
                scan_variant=scan_variant,
                layer=layer,
                impl=recurrence_impl,
            )
        elif tile is None:
            mixer = Attention(model_dim, heads, impl=attention_impl)
        else:
            mixer = SlidingTileAttention(
                model_dim,
                heads,
                canvas=canvas,
                tile=tile,
                window=window,
                permute=permute,
                impl=attention_impl,
            )
        blocks.append(Block(mixer, model_dim, impl_beside(attention_impl, recurrence_impl)))
    return nn.Sequential(*blocks)


class HeadLinear(Linear):
    """A linear map with bias of the classifier."""

    component = "projections"


class Model(nn.Module):
    """A stack between learned positions and a classifier of the mean token."""

    def __init__(
        self, stack: nn.Sequential, *, canvas: Shape, model_dim: int, num_classes: int = NUM_CLASSES
    ) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.empty(num_tokens(canvas), model_dim))
        nn.init.trunc_normal_(self.positions, std=INIT_STD)
        self.stack = stack
        self.norm = LayerNorm(model_dim, stack[-1].mlp_norm.impl)
        self.hidden = HeadLinear(model_dim, model_dim)
        self.classes = HeadLinear(model_dim, num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Embedded tokens ``[B, L, model_dim]`` in raster order to ``[B, num_classes]``."""
        x = self.norm(self.stack(tokens + self.positions))
        return self.classes(self.hidden(x.mean(dim=1)).tanh())


def _check_known(what: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise ShapeError(
            f"{what} {name!r} is unknown",
            expected=f"one of {', '.join(known)}",
            try_=f"{what}={known[0]!r}",
        )
