"""The delta rule by flash-linear-attention: `fla.ops.delta_rule.chunk_delta_rule` (0.6.0).

Its chunk kernels are called directly at every length; the switch to a token-by-token kernel at 64
tokens or fewer belongs to its layer, not to this function. It works on contiguous
``[B, L, H, D]`` tensors, so inputs that are contiguous as ``[B, H, L, D]`` are copied on the way
in; views of ``[B, L, H, D]`` tensors are not.
"""

from torch import Tensor

from ena_kernels.errors import UnsupportedError

DEVICE_TYPE = "cuda"
DTYPES = ("bfloat16", "float16")
MAX_HEAD_DIM = 256


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    *,
    scale: float,
    initial_state: Tensor | None,
    output_final_state: bool,
    qk_l2norm: bool,
) -> tuple[Tensor, Tensor | None]:
    """Output ``[B, H, L, E]`` and the last state; differentiable.

    Raises:
        UnsupportedError: not on a CUDA device, not half precision, ``D > 256``, or no fla.
    """
    _check(q)
    chunk_delta_rule = _load()
    o, final_state = chunk_delta_rule(
        *(x.transpose(1, 2) for x in (q, k, v, beta)),
        scale=scale,
        initial_state=initial_state,
        output_final_state=output_final_state,
        use_qk_l2norm_in_kernel=qk_l2norm,
    )
    return o.transpose(1, 2), final_state if output_final_state else None


def _check(q: Tensor) -> None:
    dtype = str(q.dtype).removeprefix("torch.")
    if q.device.type != DEVICE_TYPE:
        raise UnsupportedError(
            f"q is on {q.device.type}, where fla has no delta rule kernels",
            expected="tensors on a CUDA device for impl fla",
            try_='impl="eager", or q.cuda() and the same for the other tensors',
        )
    if dtype not in DTYPES:
        raise UnsupportedError(
            f"q is {dtype}, which the chunk kernels of fla refuse",
            expected=f"{' or '.join(DTYPES)} for impl fla",
            try_='q.bfloat16() and the same for k, v and beta, or impl="eager"',
        )
    if q.shape[-1] > MAX_HEAD_DIM:
        raise UnsupportedError(
            f"head dim {q.shape[-1]} of q is too wide for fla",
            expected=f"a head dim of q and k of at most {MAX_HEAD_DIM} for impl fla",
            try_=f'head dim {MAX_HEAD_DIM}, or impl="eager"',
        )


def _load():
    try:
        from fla.ops.delta_rule import chunk_delta_rule
    except ImportError as err:
        raise UnsupportedError(
            f"fla cannot be imported: {err}",
            expected="flash-linear-attention 0.6 or newer for impl fla",
            try_="pip install 'flash-linear-attention>=0.6', or impl=\"eager\"",
        ) from err
    return chunk_delta_rule
