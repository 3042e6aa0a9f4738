"""Our own contenders: operators from their parts, layers and models from pairs of parts."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from bench.case import Case
from bench.contenders import ANY_DTYPE, Contender, Rule
from ena_kernels.scans.catalog import scan_reason
from ena_kernels.sizes import INTERLEAVES, attention_layers

HALF = ("bfloat16", "float16")
SINGLE_AND_HALF = ("float32", "bfloat16", "float16")


def needs_tiles(case: Case) -> str | None:
    if case.tile is None:
        return f"canvas {'x'.join(map(str, case.canvas))} has no tile that divides it"
    return None


def needs_odd_windows(case: Case) -> str | None:
    if case.tile is None or case.window is None:
        return None
    for side, tile, window in zip(case.canvas, case.tile, case.window, strict=True):
        if window // tile % 2 == 0 and window < side:
            return f"window of {window // tile} tiles is even; natten's windows have a centre tile"
    return None


def flash_on_cuda_is_half(case: Case) -> str | None:
    if case.device == "cuda" and case.dtype not in HALF:
        return f"flash attention on CUDA runs {' and '.join(HALF)} only"
    return None


def needs_hopper(case: Case) -> str | None:
    if case.device != "cuda":
        return None
    import torch

    if torch.cuda.is_available() and torch.cuda.get_device_capability() < (9, 0):
        return "flash-attn-4 runs on GPUs of compute capability 9.0 and newer only"
    return None


def needs_right_gradients(case: Case) -> str | None:
    if case.mode == "fwd" or case.head_dim % 64 == 0:
        return None
    return f"flash-attn-4 has no gradients to rely on for head_dim {case.head_dim}"


def needs_full_window(case: Case) -> str | None:
    if case.sparsity_target not in (None, 0.0):
        return "full attention runs at sparsity 0 only"
    return None


def needs_runnable_scan(case: Case) -> str | None:
    reason = scan_reason(case.scan or "uni", case.canvas, case.heads)
    return None if reason is None else reason.split("\n")[0]


def needs_moving_scan(case: Case) -> str | None:
    if case.scan in (None, "uni", "learnable"):
        return f"scan {case.scan or 'uni'} runs no kernel that gathers"
    return None


def needs_layers_of_both_kinds(case: Case) -> str | None:
    interleave = case.interleave or INTERLEAVES[0]
    attends = attention_layers(case.depth, interleave)
    if all(attends) or not any(attends):
        absent = "recurrence" if attends[0] else "attention"
        return f"ENA of depth {case.depth}, {interleave}, has no layer of {absent}"
    return None


def head_dim_at_most(limit: int) -> Rule:
    def rule(case: Case) -> str | None:
        return f"head_dim {case.head_dim} is above {limit}" if case.head_dim > limit else None

    return rule


def head_dim_of_triton_delta_rule(case: Case) -> str | None:
    most = 128 if case.dtype == "float32" else 256
    if not 16 <= case.head_dim <= most:
        return f"head_dim {case.head_dim} is outside 16 to {most} of {case.dtype}"
    return None


def head_dim_power_of_two(case: Case) -> str | None:
    if case.head_dim & (case.head_dim - 1) or case.head_dim < 16:
        return f"head_dim {case.head_dim} is not a power of two of at least 16"
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """An implementation of one operator; layers and models combine them.

    `cpu` and `cuda` are patterns that a profile of it must match, `around` those of what runs with
    it on CUDA in a layer, `rank` its place in the order of preference; see
    `bench.contenders.Contender` for the rest.
    """

    impl: str
    needs: tuple[str, ...] = ()
    devices: tuple[str, ...] = ("cpu", "cuda")
    dtypes: tuple[str, ...] = ANY_DTYPE
    modes: tuple[str, ...] = ("fwd", "bwd", "fwdbwd", "step")
    rules: tuple[Rule, ...] = ()
    cpu: tuple[str, ...] = ()
    cuda: tuple[str, ...] = ()
    around: tuple[str, ...] = ()
    rank: tuple[tuple[str, int], ...] = ()


_FLEX = _Part(
    impl="flex",
    devices=("cuda",),
    dtypes=SINGLE_AND_HALF,
    rules=(head_dim_power_of_two,),
    cuda=(r"flex_attention",),
)
_FLEX_FLASH = replace(
    _FLEX,
    impl="flex_flash",
    needs=("flash_attn.cute",),
    dtypes=HALF,
    rules=(head_dim_power_of_two, head_dim_at_most(128), needs_hopper, needs_right_gradients),
    cuda=(r"(?i)flash",),
)
_ATTENTION = (
    _Part(impl="reference"),
    _Part(impl="eager", rank=(("cpu", 2), ("cuda", 6))),
    _Part(
        impl="flash_attn",
        needs=("flash_attn.flash_attn_interface",),
        devices=("cuda",),
        dtypes=HALF,
        rules=(head_dim_at_most(256),),
        cuda=(r"flash_fwd|flash_bwd",),
        rank=(("cuda", 3),),
    ),
    _Part(
        impl="flash_attn_4",
        needs=("flash_attn.cute",),
        devices=("cuda",),
        dtypes=HALF,
        rules=(head_dim_at_most(128), needs_hopper, needs_right_gradients),
        cuda=(r"(?i)flash",),
        rank=(("cuda", 1),),
    ),
    _Part(
        impl="sdpa_cudnn",
        devices=("cuda",),
        dtypes=HALF,
        rules=(head_dim_at_most(128),),
        cuda=(r"(?i)cudnn",),
        rank=(("cuda", 2),),
    ),
    _Part(
        impl="sdpa_flash",
        rules=(head_dim_at_most(256), flash_on_cuda_is_half),
        cpu=(r"flash_attention_for_cpu",),
        cuda=(r"pytorch_flash|flash_fwd|flash_bwd",),
        rank=(("cpu", 1), ("cuda", 4)),
    ),
    replace(_FLEX, rank=(("cuda", 5),)),
    _FLEX_FLASH,
    _Part(impl="sdpa_math", cpu=(r"attention_math|softmax",), cuda=(r"(?i)softmax",)),
)
_SLIDING_TILE = (
    _Part(impl="reference"),
    _Part(impl="eager", rank=(("cpu", 1), ("cuda", 5))),
    _Part(
        impl="triton",
        needs=("triton",),
        devices=("cuda",),
        dtypes=SINGLE_AND_HALF,
        rules=(head_dim_at_most(128),),
        cuda=(r"sliding_tile",),
        rank=(("cuda", 1),),
    ),
    replace(_FLEX, rank=(("cuda", 2),)),
    replace(_FLEX_FLASH, rank=(("cuda", 4),)),
    _Part(
        impl="natten",
        needs=("natten",),
        devices=("cuda",),
        dtypes=SINGLE_AND_HALF,
        rules=(needs_odd_windows,),
        cuda=(r"(?i)natten|fna|fmha",),
        rank=(("cuda", 3),),
    ),
)
_AROUND_TRITON = (r"short_conv_(fwd|bwd)_kernel", r"^norm_(fwd|bwd)_kernel")
_DELTA_RULE = (
    _Part(impl="reference"),
    _Part(impl="eager", rank=(("cpu", 1), ("cuda", 3))),
    _Part(
        impl="triton",
        needs=("triton",),
        devices=("cuda",),
        dtypes=SINGLE_AND_HALF,
        rules=(head_dim_of_triton_delta_rule,),
        cuda=(r"(?<![a-z_])delta_rule_\w+_kernel",),
        around=_AROUND_TRITON,
        rank=(("cuda", 1),),
    ),
    _Part(
        impl="fla",
        needs=("fla",),
        devices=("cuda",),
        dtypes=HALF,
        rules=(head_dim_at_most(256),),
        cuda=(r"delta_rule|wy_repr|w_u_",),
        around=_AROUND_TRITON,
        rank=(("cuda", 2),),
    ),
)
_SCAN = (
    _Part(impl="eager", rank=(("cpu", 1), ("cuda", 2))),
    _Part(
        impl="triton",
        needs=("triton",),
        devices=("cuda",),
        dtypes=SINGLE_AND_HALF,
        rules=(needs_moving_scan,),
        cuda=(r"scan_(spread|collect)_kernel",),
        rank=(("cuda", 1),),
    ),
)


def contenders() -> Iterator[Contender]:
    """Everything that ena-bench itself can measure."""
    yield from _operators()
    for level in ("layer", "model"):
        yield from _stacks(level)


def _operators() -> Iterator[Contender]:
    for name, parts in (
        ("sliding_tile", _SLIDING_TILE),
        ("attention", _ATTENTION),
        ("delta_rule", _DELTA_RULE),
        ("scan", _SCAN),
    ):
        for part in parts:
            yield _contender("op", name, (part,), axes=_OPERATOR_AXES[name])


def _stacks(level: str) -> Iterator[Contender]:
    for part in _ATTENTION:
        yield _contender(level, "transformer", (part,), axes=())
    recurrences = [replace(part, cuda=part.cuda + part.around) for part in _DELTA_RULE]
    for part in recurrences:
        yield _contender(level, "linear", (part,), axes=("scan",))
    tiled, dense = (
        ("sparsity", "tile", "scan", "interleave", "permute"),
        ("sparsity", "scan", "interleave"),
    )
    for attend, recur in product(_SLIDING_TILE, recurrences):
        if ("reference" in (attend.impl, recur.impl)) == (attend.impl == recur.impl == "reference"):
            yield _contender(level, "ena", (attend, recur), axes=tiled)
    for attend, recur in product(_ATTENTION, recurrences):
        if attend.impl in _DENSE_ONLY and recur.impl != "reference":
            yield _contender(level, "ena", (attend, recur), axes=dense)


_DENSE_ONLY = ("flash_attn", "flash_attn_4", "sdpa_cudnn", "sdpa_flash", "sdpa_math")
_OPERATOR_AXES = {
    "sliding_tile": ("sparsity", "tile"),
    "attention": (),
    "delta_rule": (),
    "scan": ("scan",),
}
_AXIS_RULES: dict[str, Rule] = {"tile": needs_tiles, "scan": needs_runnable_scan}


def _contender(
    level: str, name: str, parts: tuple[_Part, ...], *, axes: tuple[str, ...]
) -> Contender:
    """Combine parts: needs and rules add up, devices, dtypes and modes must suit all."""
    impls = list(dict.fromkeys(part.impl for part in parts))
    rules = [_AXIS_RULES[axis] for axis in axes if axis in _AXIS_RULES]
    if name == "ena":
        rules.append(needs_layers_of_both_kinds)
    if "sparsity" in axes and "tile" not in axes:
        rules.append(needs_full_window)
    modes = ("fwd", "bwd", "fwdbwd", "step") if level == "model" else ("fwd", "bwd", "fwdbwd")
    ranks = [dict(part.rank) for part in parts]
    offset = 100 if name == "ena" and "tile" in axes else 0
    return Contender(
        level=level,
        name=name,
        impl="+".join(impls),
        build=f"bench.builders:{'operator' if level == 'op' else 'stack'}",
        needs=tuple(need for part in parts for need in part.needs),
        devices=_common(*(part.devices for part in parts)),
        dtypes=_common(*(part.dtypes for part in parts)),
        modes=_common(modes, *(part.modes for part in parts)),
        rules=(*rules, *(rule for part in parts for rule in part.rules)),
        kernels=(
            ("cpu", tuple(p for part in parts for p in part.cpu)),
            ("cuda", tuple(p for part in parts for p in part.cuda)),
        ),
        rank=tuple(
            (device, offset + sum(rank[device] * 10**i for i, rank in enumerate(ranks)))
            for device in ("cpu", "cuda")
            if all(device in rank for rank in ranks)
        ),
        axes=axes,
    )


def _common(first: tuple[str, ...], *others: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(value for value in first if all(value in other for other in others))
