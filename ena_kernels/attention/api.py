"""Full softmax attention: one entry point, several implementations (the baseline of ENA)."""

from torch import Tensor

from ena_kernels.attention.checks import check_qkv, implementation

# An implementation is a module of this package with its name. It defines
#   forward(q, k, v, *, scale) -> Tensor: arguments are validated; raises UnsupportedError for what
#   it cannot run here.
IMPLS = (
    *("reference", "eager", "sdpa_flash", "sdpa_cudnn", "sdpa_math", "flex"),
    *("flex_flash", "flash_attn", "flash_attn_4"),
)


def attention(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None, impl: str = "eager"
) -> Tensor:
    """Attend every token to every token: ``softmax(scale * q k^T) v``.

    Args:
        q: ``[B, H, L, D]``, float16, bfloat16, float32 or float64, unit stride in D.
        k, v: ``[B, H_kv, L, D]`` with H_kv dividing H; same dtype, device and rule.
        scale: Score multiplier. Default: ``D ** -0.5``.
        impl: "reference" (the specification), "eager" (plain PyTorch, any device), "sdpa_flash",
            "sdpa_cudnn", "sdpa_math" (scaled_dot_product_attention, forced to that kernel), "flex"
            (FlexAttention), "flex_flash" (the same on the kernels of flash-attn-4), "flash_attn"
            (flash-attn 2), "flash_attn_4" (flash-attn-4, on Hopper and newer).

    Returns:
        ``[B, H, L, D]`` in the dtype of `q`; softmax in float32 or wider.

    Raises:
        ShapeError: arguments that break a rule above.
        UnsupportedError: an unknown `impl`, or one that cannot run these arguments here.

    Cost: ``4 * B * H * L**2 * D`` FLOPs forward, 2.5 times that backward.
    """
    check_qkv(q, k, v, scale)
    module = implementation(impl, IMPLS, __package__)
    scale = q.shape[-1] ** -0.5 if scale is None else float(scale)
    return module.forward(q, k, v, scale=scale)
