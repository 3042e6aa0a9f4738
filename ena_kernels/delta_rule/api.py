"""The delta rule: one signature, checked once, for every implementation."""

from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

from ena_kernels.delta_rule.common import compute_dtype
from ena_kernels.errors import ShapeError, check_impl

IMPLS = {
    "reference": "ena_kernels.delta_rule.reference",
    "eager": "ena_kernels.delta_rule.eager",
    "triton": "ena_kernels.delta_rule.triton",
    "fla": "ena_kernels.delta_rule.fla",
}
"""Name to module; a module is imported on its first call and offers `forward`."""

STEPS = ("reference", "triton")
"""Those whose modules offer `step`."""

_MODULES: dict[str, ModuleType] = {}
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    *,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    qk_l2norm: bool = False,
    impl: str = "eager",
) -> tuple[Tensor, Tensor | None]:
    """Write each token's value under its key, replacing what the key stored, and read by query.

    With the state ``S`` of ``[D, E]`` per head and tokens as row vectors:
    ``S <- S + k^T beta (v - k S)``, then ``o = scale * q S``. Strictly causal: token t reads
    tokens up to and including t.

    Args:
        q, k: ``[B, H, L, D]``, float16, bfloat16, float32 or float64.
        v: ``[B, H, L, E]``, dtype and device of ``q``; E and D may differ.
        beta: ``[B, H, L]``, writing strength, dtype of ``q`` or float32. The recurrence cannot
            amplify errors while ``0 <= beta * |k|^2 <= 2``; pass normalised keys or `qk_l2norm`.
        scale: Multiplier of the output. Default: ``D ** -0.5``.
        initial_state: ``[B, H, D, E]``, float32 (float64 for float64 inputs). Default: zeros.
        output_final_state: Also return the state after the last token.
        qk_l2norm: Divide each q and k by ``sqrt(|x|^2 + 1e-6)`` first.
        impl: ``"reference"`` (token by token, the specification), ``"eager"`` (chunks, any device),
            ``"triton"`` (CUDA, head dims 16 to 256, in float32 to 128) or ``"fla"`` (CUDA, half
            precision).
    Returns:
        The output ``[B, H, L, E]`` in ``q.dtype``, and the final state ``[B, H, D, E]`` in float32
        (float64 for float64 inputs), or None unless asked for. Both are differentiable in every
        tensor argument.
    Raises:
        ShapeError: shapes, dtypes or devices disagree.
        UnsupportedError: an unknown `impl`, or one that cannot run these arguments here.
    Cost: ``6 D E + C (6 D + 4 E) + C^2 / 3`` FLOPs per token and head forward, in chunks of
    ``C = 64``. Source: Yang et al., arXiv 2406.06484, and docs/maths.md, "Delta rule" and "Chunks".
    Reference: `.reference.forward`.
    """
    _check_tokens(q, k, v, beta, names="BHL")
    _check_state(initial_state, q, v, name="initial_state")
    check_impl(impl, IMPLS, "delta_rule")
    module = _MODULES[_loaded(impl)]
    return module.forward(
        q,
        k,
        v,
        beta,
        scale=q.shape[-1] ** -0.5 if scale is None else float(scale),
        initial_state=initial_state,
        output_final_state=output_final_state,
        qk_l2norm=qk_l2norm,
    )


def delta_rule_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    state: Tensor,
    *,
    scale: float | None = None,
    qk_l2norm: bool = False,
    impl: str = "eager",
) -> tuple[Tensor, Tensor]:
    """One token of `delta_rule`, for decoding; calls in order give what one long call gives.

    Args:
        q, k: ``[B, H, D]``.
        v: ``[B, H, E]``.
        beta: ``[B, H]``.
        state: ``[B, H, D, E]``, float32 (float64 for float64 inputs); left unchanged.
        scale, qk_l2norm: As in `delta_rule`.
        impl: ``"triton"`` for one kernel, without gradients; with any other name of `delta_rule`
            the reference takes the step.
    Returns:
        The output ``[B, H, E]`` in ``q.dtype`` and the next state.
    Raises:
        ShapeError: shapes, dtypes or devices disagree.
        UnsupportedError: an unknown `impl`, or one that cannot run these arguments here.
    """
    _check_tokens(q, k, v, beta, names="BH")
    _check_state(state, q, v, name="state")
    scale = q.shape[-1] ** -0.5 if scale is None else float(scale)
    check_impl(impl, IMPLS, "delta_rule")
    module = _MODULES[_loaded(impl if impl in STEPS else "reference")]
    return module.step(q, k, v, beta, state, scale=scale, qk_l2norm=qk_l2norm)


def _loaded(impl: str) -> str:
    """Name of an implementation that is in `_MODULES` from now on.

    A compiler that traces `delta_rule` calls this as it is, for it cannot trace an import.
    """
    _MODULES[impl] = import_module(IMPLS[impl])
    return impl


# all that torch.compiler.assume_constant_result does, which imports the compiler: seconds
_loaded._dynamo_marked_constant = True


def _check_tokens(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, *, names: str) -> None:
    """The axes in `names` lead every tensor; q, k end in D and v ends in E."""
    leading = len(names)
    if q.ndim != leading + 1 or 0 in q.shape:
        raise ShapeError(
            f"q has shape {tuple(q.shape)}",
            expected=f"{leading + 1} axes [{', '.join(names)}, D], none of them empty",
            try_=f"q of shape {(*(2, 4, 128)[:leading], 64)}",
        )
    lead = tuple(q.shape[:leading])
    _check_shape("k", k, tuple(q.shape), "the shape of q")
    if v.ndim != leading + 1 or v.shape[:-1] != lead or v.shape[-1] == 0:
        raise ShapeError(
            f"v has shape {tuple(v.shape)} beside q of shape {tuple(q.shape)}",
            expected=f"[{', '.join(names)}, E] with the {', '.join(names)} of q",
            try_=f"v of shape {tuple(q.shape)}",
        )
    _check_shape("beta", beta, lead, "the shape of q without its last axis")
    _check_dtypes(q, k, v, beta)
    _check_device(q, k=k, v=v, beta=beta)


def _check_shape(name: str, x: Tensor, shape: tuple[int, ...], rule: str) -> None:
    if tuple(x.shape) != shape:
        raise ShapeError(
            f"{name} has shape {tuple(x.shape)}, not {shape}",
            expected=rule,
            try_=f"{name} of shape {shape}",
        )


def _check_dtypes(q: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> None:
    if q.dtype not in _DTYPES:
        raise ShapeError(
            f"q is {_text(q.dtype)}",
            expected=f"one of {', '.join(map(_text, _DTYPES))}",
            try_="q.float() and the same for k, v and beta",
        )
    for name, x, allowed in (
        ("k", k, (q.dtype,)),
        ("v", v, (q.dtype,)),
        ("beta", beta, (q.dtype, torch.float32)),
    ):
        if x.dtype not in allowed:
            raise ShapeError(
                f"{name} is {_text(x.dtype)} beside q in {_text(q.dtype)}",
                expected="k and v in the dtype of q, beta in that dtype or float32",
                try_=f"{name}.to(q.dtype)",
            )


def _check_state(state: Tensor | None, q: Tensor, v: Tensor, *, name: str) -> None:
    if state is None:
        return
    shape = (*q.shape[:2], q.shape[-1], v.shape[-1])
    _check_shape(name, state, shape, "[B, H, D, E], one row per key channel")
    if state.dtype != compute_dtype(q.dtype):
        raise ShapeError(
            f"{name} is {_text(state.dtype)} beside q in {_text(q.dtype)}",
            expected="a state in float32, or in float64 for float64 inputs",
            try_=f"{name}.to({compute_dtype(q.dtype)})",
        )
    _check_device(q, **{name: state})


def _check_device(q: Tensor, **others: Tensor) -> None:
    for name, x in others.items():
        if x.device != q.device:
            raise ShapeError(
                f"{name} is on {x.device}, q on {q.device}",
                expected="every tensor on one device",
                try_=f"{name}.to(q.device)",
            )


def _text(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
