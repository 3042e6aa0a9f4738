"""Our own contenders made callable: tensors, modules, and their float64 truth."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench.case import Case
from bench.spot import NUM_ROWS, check_blocks, spread
from bench.workload import (
    SpotCheck,
    SpotChecking,
    Workload,
    module_workload,
    normal,
    relative_error,
)
from ena_kernels import attention, delta_rule, scan_merge, scan_split, sliding_tile
from ena_kernels.attention.reference import reference_rows as attention_rows
from ena_kernels.models import build
from ena_kernels.scans.catalog import scan_passes
from ena_kernels.scans.orders import learnable_logits, learnable_order, random_order
from ena_kernels.sliding_tile.reference import reference_rows as sliding_tile_rows

NUM_TILES = 4


def operator(case: Case) -> Workload:
    """An operator on normal q, k, v ``[B, H, L, D]`` (and beta ``[B, H, L]``), or a scan on
    hidden states ``[B, L, model_dim]``, each asking for its gradient."""
    return _OPERATORS[case.contender](case)


def stack(case: Case) -> Workload:
    """A period of blocks (`layer`) or a model, on normal hidden states ``[B, L, model_dim]``.

    At full size the float64 recurrence runs in its chunkwise form: token by token takes minutes.
    Where all of float64 takes too long, every block is compared at sampled tokens.
    """

    def sampled(module: torch.nn.Module, x: Tensor, output: Tensor) -> SpotCheck:
        with torch.device("meta"):
            plain = _module(case, "eager")
        return check_blocks(module, plain, x, output)

    return module_workload(
        case,
        partial(_module, case, case.impl),
        exact=partial(_module, case, "reference"),
        exact_at_full_size=partial(_module, case, "eager"),
        sampled=sampled,
    )


def _module(case: Case, impl: str) -> torch.nn.Module:
    attend, _, recur = impl.partition("+")
    return build(
        case.contender,
        level=case.level,
        canvas=case.canvas,
        heads=case.heads,
        head_dim=case.head_dim,
        depth=case.depth,
        tile=case.tile,
        window=case.window,
        scan=case.scan or "uni",
        scan_variant=case.scan_variant or "fixed",
        interleave=case.interleave or "linear-first",
        # the truth may permute as it likes, and not every implementation can fuse it
        permute=(case.permute or "io") if impl == case.impl else "io",
        attention_impl=attend,
        recurrence_impl=recur or attend,
    )


def _sliding_tile(case: Case) -> Workload:
    geometry: dict[str, Any] = {
        "canvas": case.canvas,
        "window": case.window,
        "tile": case.tile,
    }
    inputs = _qkv(case)

    def spot_check(output: Tensor) -> SpotCheck:
        num_tiles = case.seq_len // math.prod(case.tile or ())
        tiles = spread(num_tiles, NUM_TILES)
        q, k, v = (x[-1:, -1:].detach() for x in inputs.values())
        tokens, rows = sliding_tile_rows(q, k, v, tiles, **geometry)
        return SpotCheck(error=relative_error(output[-1:, -1:, tokens], rows), part="sampled")

    def run(impl: str, *tensors: Tensor) -> Tensor:
        output = sliding_tile(*tensors, **geometry, impl=impl)
        assert isinstance(output, Tensor)
        return output

    return _workload(inputs, partial(run, case.impl), partial(run, "reference"), spot_check)


def _attention(case: Case) -> Workload:
    inputs = _qkv(case)

    def spot_check(output: Tensor) -> SpotCheck:
        chosen = spread(case.seq_len, NUM_ROWS)
        q, k, v = (x[-1:, -1:].detach() for x in inputs.values())
        rows = attention_rows(q, k, v, chosen)
        return SpotCheck(error=relative_error(output[-1:, -1:, chosen], rows), part="sampled")

    return _workload(
        inputs, partial(attention, impl=case.impl), partial(attention, impl="reference"), spot_check
    )


def _delta_rule(case: Case) -> Workload:
    inputs = _qkv(case)
    beta = normal(case, case.batch, case.heads, case.seq_len).detach().sigmoid()
    inputs["beta"] = beta.requires_grad_()

    def run(impl: str, *tensors: Tensor) -> Tensor:
        output: Tensor = delta_rule(*tensors, qk_l2norm=True, impl=impl)[0]
        return output

    def spot_check(output: Tensor) -> SpotCheck:
        heads = [x[-1:, -1:].detach().double() for x in inputs.values()]
        return SpotCheck(
            error=relative_error(output[-1:, -1:], run("eager", *heads)), part="sampled"
        )

    return _workload(inputs, partial(run, case.impl), partial(run, "reference"), spot_check)


def _scan(case: Case) -> Workload:
    """Split and merge with nothing between them: what the order itself costs."""
    scan = case.scan or "uni"
    keywords: dict[str, Any] = {
        "scan": scan,
        "canvas": case.canvas,
        "variant": case.scan_variant,
        "heads": case.heads,
        "layer": 1,
        "order": _scan_order(case),
    }

    def run(impl: str, x: Tensor) -> Tensor:
        merged: Tensor = scan_merge(scan_split(x, **keywords, impl=impl), **keywords, impl=impl)
        return merged

    def reference(x: Tensor) -> Tensor:
        return x * scan_passes(scan) if case.scan_variant == "fixed" else run("eager", x)

    x = normal(case, case.batch, case.seq_len, case.model_dim)
    return _workload({"x": x}, partial(run, case.impl), reference, None)


def _scan_order(case: Case) -> Tensor | None:
    if case.scan == "random":
        return random_order(case.batch, case.seq_len, device=case.device)
    if case.scan == "learnable":
        return learnable_order(learnable_logits(case.seq_len, device=case.device)).detach()
    return None


_OPERATORS: dict[str, Callable[[Case], Workload]] = {
    "sliding_tile": _sliding_tile,
    "attention": _attention,
    "delta_rule": _delta_rule,
    "scan": _scan,
}


def _workload(
    inputs: dict[str, Tensor],
    forward: Callable[..., Tensor],
    exact: Callable[..., Tensor],
    spot_check: SpotChecking | None,
) -> Workload:
    def reference(leaves: Mapping[str, Tensor]) -> Tensor:
        return exact(*leaves.values())

    return Workload(
        forward=forward,
        inputs=inputs,
        reference=reference,
        spot_check=spot_check,
    )


def _qkv(case: Case) -> dict[str, Tensor]:
    shape = (case.batch, case.heads, case.seq_len, case.head_dim)
    return {name: normal(case, *shape) for name in ("q", "k", "v")}
