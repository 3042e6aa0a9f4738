"""A stack or model of full size compared with float64, block by block, at sampled tokens.

for each block, as its output leaves it:
    what its mixer adds, what its MLP adds, and its output, from the input that really came
then what came into the first block, and what the module made of the output of the last

What a mixer adds is compared by itself: beside the residual stream it can be so small that the
output alone would hide an attention that does nothing.
"""

import copy
import math
from contextlib import ExitStack
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bench.workload import SpotCheck, relative_error
from ena_kernels.attention.reference import reference_rows as attention_rows
from ena_kernels.canvas import num_tokens
from ena_kernels.layers import Attention, Block, DeltaNet, SlidingTileAttention
from ena_kernels.models import Model
from ena_kernels.sliding_tile.reference import reference_rows as sliding_tile_rows

NUM_ROWS = 64
TOKENS_PER_CHUNK = 8192
SCORE_BYTES = 2**30
M = TypeVar("M", bound=nn.Module)

# Legend: B batch, L tokens, C model_dim, H heads, D head_dim, n sampled tokens.


@torch.no_grad()
def check_blocks(module: nn.Module, plain: nn.Module, x: Tensor, output: Tensor) -> SpotCheck:
    """The largest error of any block, of the input of the first, and of the module's output.

    Attention is computed for the last sequence, at the first and the middle tile, or at NUM_ROWS
    queries where there are no tiles; a recurrence for all its tokens, of which the MLP takes
    NUM_ROWS. The random orders of a scan are those of `output` if the caller seeds alike.
    Memory: blocks are compared one at a time; the most is a recurrence, about 15 tensors
    ``[B, L, C]`` in float64 for each pass of its scan (B is 1 but for a random one).

    Args:
        module: A stack of `Block`, or a `Model` of one.
        plain: The same built on the meta device, recurrences ``eager``: what should be computed.
            Nothing is taken from `module` but its weights and what flows between its blocks.
        x: ``[B, L, C]``, the input of `module`.
        output: ``module(x)``.

    Raises:
        Incorrect: a shape differs.
    """
    watch = _Watch(x.double() + module.positions.double() if isinstance(module, Model) else x)
    blocks, like = _blocks(module), _blocks(plain)
    with ExitStack() as hooks:
        for block, plain_block in zip(blocks, like, strict=True):
            for handle in watch.hooks(block, plain_block):
                hooks.enter_context(handle)
        module(x)
    last = watch.stream
    if isinstance(module, Model) and isinstance(plain, Model):
        last = _classified(module, plain, last)
    errors = [*watch.errors, relative_error(output, last)]
    unsound = watch.visited != blocks or any(map(math.isnan, errors))
    return SpotCheck(error=math.nan if unsound else max(errors), part="blocks")


def spread(count: int, wanted: int) -> list[int]:
    """Up to `wanted` different numbers below `count`, first and last among them."""
    steps = max(wanted - 1, 1)
    return sorted({round(i * (count - 1) / steps) for i in range(wanted)})


class _Watch:
    """Compares every block with float64 when its output leaves it, and keeps only errors.

    Args:
        stream: ``[B, L, C]``, what the first block should be given.
    """

    def __init__(self, stream: Tensor) -> None:
        self.stream = stream
        self.errors: list[float] = []
        self.visited: list[nn.Module] = []
        self._parts: list[Tensor] = []
        self._generators: _Generators

    def hooks(self, block: Block, plain: Block) -> list[Any]:
        """Hook the block that computes and what it is made of; handles to remove the hooks."""
        return [
            block.register_forward_pre_hook(self._enter),
            block.mixer.register_forward_hook(self._keep),
            block.mlp.register_forward_hook(self._keep),
            block.register_forward_hook(partial(self._leave, plain)),
        ]

    def _enter(self, block: nn.Module, args: tuple[Tensor, ...]) -> None:
        self._parts = []
        self._generators = _Generators(args[0].device)

    def _keep(self, part: nn.Module, args: tuple[Tensor, ...], added: Tensor) -> None:
        self._parts.append(added)

    def _leave(
        self, plain: Block, block: nn.Module, args: tuple[Tensor, ...], output: Tensor
    ) -> None:
        (x,) = args
        if x is not self.stream:
            self.errors.append(relative_error(x, self.stream))
        with self._generators.as_they_were():
            tokens, *expected = _expected(_in_float64(plain, block), x)
        actual = [*self._parts, output]
        self._parts = []
        for got, rows in zip(actual, expected, strict=True):
            self.errors.append(relative_error(got[-1:, tokens], rows))
        self.stream = output
        self.visited.append(block)


class _Generators:
    """The default generators as they are now, to draw the same again."""

    def __init__(self, device: torch.device) -> None:
        self._gpus = [device] if device.type == "cuda" else []
        self._states = [torch.cuda.get_rng_state(gpu) for gpu in self._gpus]
        self._cpu_state = torch.get_rng_state()

    def as_they_were(self) -> ExitStack:
        """A context that draws what was drawn since, and leaves no trace."""
        with ExitStack() as stack:
            gpus = [gpu.index or 0 for gpu in self._gpus]
            stack.enter_context(torch.random.fork_rng(devices=gpus))
            torch.set_rng_state(self._cpu_state)
            for gpu, state in zip(self._gpus, self._states, strict=True):
                torch.cuda.set_rng_state(state, gpu)
            return stack.pop_all()


def _expected(block: Block, x: Tensor) -> tuple[Tensor, ...]:
    """A float64 block on x ``[B, L, C]``: sampled tokens n of the last sequence and, at these,
    what the mixer adds, what the MLP adds, and the output, ``[1, n, C]`` each."""
    tokens, mixed = _mixed(block, x)
    stream = x[-1:, tokens].double() + mixed
    added = block.mlp(block.mlp_norm(stream))
    return tokens, mixed, added, stream + added


def _mixed(block: Block, x: Tensor) -> tuple[Tensor, Tensor]:
    mixer = block.mixer
    if isinstance(mixer, DeltaNet):
        tokens = torch.tensor(spread(x.shape[1], NUM_ROWS), device=x.device)
        # a random scan draws an order for each sequence of the batch
        needed = x if mixer.scan == "random" else x[-1:]
        return tokens, mixer(block.mixer_norm(needed.double()))[-1:, tokens]
    assert isinstance(mixer, Attention | SlidingTileAttention)
    q, k, v = _queries_keys_values(block, mixer, x[-1:])
    if isinstance(mixer, Attention):
        sampled = spread(x.shape[1], NUM_ROWS)
        tokens, rows = torch.tensor(sampled, device=x.device), attention_rows(q, k, v, sampled)
    else:
        tokens, rows = _tiles(mixer, q, k, v)
    return tokens, mixer.out(rows.transpose(1, 2).flatten(2))


def _queries_keys_values(
    block: Block, mixer: Attention | SlidingTileAttention, x: Tensor
) -> list[Tensor]:
    """``[1, H, L, D]`` each in float64, in raster order."""
    qkv = x.new_empty(1, x.shape[1], 3 * x.shape[2], dtype=torch.float64)
    for first in range(0, x.shape[1], TOKENS_PER_CHUNK):
        tokens = slice(first, first + TOKENS_PER_CHUNK)
        qkv[:, tokens] = mixer.qkv(block.mixer_norm(x[:, tokens].double()))
    by_head = (*x.shape[:2], mixer.attend.heads, -1)
    return [part.view(by_head).transpose(1, 2) for part in qkv.chunk(3, dim=-1)]


def _tiles(mixer: SlidingTileAttention, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens and rows of the first and the middle tile, some heads at a time."""
    geometry: dict[str, Any] = {**mixer.attend.geometry, "order": "raster"}
    volume, seq_len = num_tokens(geometry["tile"]), q.shape[2]
    tiles = sorted({0, seq_len // volume // 2})
    heads_per_part = max(1, SCORE_BYTES // (8 * volume * seq_len))
    rows = []
    for first in range(0, q.shape[1], heads_per_part):
        heads = slice(first, first + heads_per_part)
        tokens, part = sliding_tile_rows(q[:, heads], k[:, heads], v[:, heads], tiles, **geometry)
        rows.append(part)
    return tokens, torch.cat(rows, dim=1)


def _classified(module: Model, plain: Model, x: Tensor) -> Tensor:
    """What the classifier should make of the output of the last block, ``[B, num_classes]``."""
    norm, hidden, classes = (
        _in_float64(getattr(plain, name), getattr(module, name))
        for name in ("norm", "hidden", "classes")
    )
    means = [norm(sequence.double()).mean(dim=0) for sequence in x]
    logits: Tensor = classes(hidden(torch.stack(means)).tanh())
    return logits


def _in_float64(plain: M, module: nn.Module) -> M:
    """A copy of `plain`, which holds no values, with the weights of `module`."""
    device = next(module.parameters()).device
    twin = copy.deepcopy(plain).double().to_empty(device=device)
    twin.load_state_dict(module.state_dict())
    return twin


def _blocks(module: nn.Module) -> list[Block]:
    return [part for part in module.modules() if isinstance(part, Block)]
