"""How the delta rule's tokens are cut into chunks and segments, and the chain of segments."""

from functools import lru_cache
from typing import NamedTuple

from torch import Tensor

from ena_kernels.delta_rule.configs import CHAIN_ROWS, CHUNK, padded, segment_chunks_of
from ena_kernels.launches import Launch


class Cut(NamedTuple):
    """Sizes of one call: those of its tensors, what kernels pad D and E to, and its segments."""

    B: int
    H: int
    L: int
    D: int
    DP: int
    E: int
    EP: int
    num_chunks: int
    num_segments: int
    segment_chunks: int

    @property
    def num_heads(self) -> int:
        """Of all batches."""
        return self.B * self.H

    @property
    def num_items(self) -> int:
        """Chunks of all heads."""
        return self.num_heads * self.num_chunks

    @property
    def plane(self) -> int:
        """Tokens of all heads."""
        return self.num_heads * self.L

    @property
    def constants(self) -> dict[str, object]:
        """The widths, under the names that kernels have for them."""
        return {"D": self.D, "DP": self.DP, "E": self.E, "EP": self.EP}

    @property
    def sizes(self) -> tuple[int, ...]:
        """What kernels take, in the order of `configs.SIZES`."""
        numbers = self.num_chunks, self.num_segments, self.segment_chunks
        return self.H, self.L, *numbers, self.plane


def cut_of(q: Tensor, v: Tensor, segment_chunks: int | None) -> Cut:
    """Of tensors ``[B, H, L, D]`` and ``[B, H, L, E]``; in segments of as many chunks, if given."""
    return _cut_of(q.shape, v.shape[-1], segment_chunks)


@lru_cache(maxsize=1024)
def _cut_of(shape: tuple[int, ...], E: int, segment_chunks: int | None) -> Cut:
    B, H, L, D = shape
    DP, EP = padded(D, E)
    num_chunks = -(-L // CHUNK)
    segment_chunks = segment_chunks or segment_chunks_of(B * H, num_chunks, D)
    num_segments = -(-num_chunks // segment_chunks)
    return Cut(B, H, L, D, DP, E, EP, num_chunks, num_segments, segment_chunks)


class Chain:
    """The launch that turns what segments add into what holds behind them, in place."""

    __slots__ = ("_launch", "_maps_start", "_numbers")

    def __init__(self, cut: Cut, *, is_backwards: bool, precision: str):
        """For one cut, on one device."""
        from ena_kernels.delta_rule.forward_kernels import delta_rule_chain_kernel

        num_links = cut.num_segments - 1
        maps_rows = cut.EP + cut.DP
        self._launch = None
        if num_links > 1:
            self._maps_start = cut.EP * cut.DP
            rows = cut.EP if is_backwards else maps_rows
            self._numbers = num_links, rows * cut.DP, maps_rows * cut.DP
            self._launch = Launch(
                delta_rule_chain_kernel,
                cut.num_heads * (cut.EP // CHAIN_ROWS),
                {"EP": cut.EP, "DP": cut.DP, "BLOCK_R": CHAIN_ROWS}
                | {"BACKWARDS": is_backwards, "PRECISION": precision},
                num_warps=8,
            )

    def __call__(self, values: Tensor, transfer: Tensor) -> None:
        """``values [B * H, segments - 1, rows, DP]`` change; transfer has maps below EP rows.

        Values are those of `forward.Forward.transfer` itself or, backwards, of EP rows.
        """
        if self._launch is not None:
            self._launch(values, transfer.view(-1)[self._maps_start :], *self._numbers)
