"""Model sizes, and which layers of ENA attend. Pure Python, so the grid reads it without torch."""

from dataclasses import dataclass

from ena_kernels.errors import ShapeError

INTERLEAVES = ("linear-first", "attention-first", "stacked")
NUM_CLASSES = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """Shape of an isotropic model."""

    depth: int
    heads: int
    head_dim: int

    @property
    def model_dim(self) -> int:
        """Width of the hidden state."""
        return self.heads * self.head_dim


SIZES = {
    "tiny": Size(depth=12, heads=3, head_dim=64),
    "small": Size(depth=12, heads=6, head_dim=64),
    "base": Size(depth=12, heads=12, head_dim=64),
    "large": Size(depth=24, heads=16, head_dim=64),
}
"""Sizes of whole models, those of vision transformers."""


def attention_layers(depth: int, interleave: str) -> tuple[bool, ...]:
    """Whether each of `depth` layers of ENA attends; the others are recurrent.

    `linear-first` attends on layers 1, 3, 5, ..., as the example of the official code
    (fla-org/fla-zoo), `attention-first` on 0, 2, 4, ..., and `stacked` on the last `depth // 2`.

    Raises:
        ShapeError: `interleave` is none of these.
    """
    match interleave:
        case "linear-first":
            return tuple(layer % 2 == 1 for layer in range(depth))
        case "attention-first":
            return tuple(layer % 2 == 0 for layer in range(depth))
        case "stacked":
            return tuple(layer >= depth - depth // 2 for layer in range(depth))
    raise ShapeError(
        f"interleave {interleave!r} is unknown",
        expected=f"one of {', '.join(INTERLEAVES)}",
        try_=f"interleave={INTERLEAVES[0]!r}",
    )
