"""Triton's short convolution against the eager one in float64, value and every gradient."""

import os
import subprocess
import sys

import pytest
import torch

from ena_kernels.components import ShortConvolution, impl_around
from ena_kernels.errors import UnsupportedError
from ena_kernels.short_conv import short_conv
from ena_kernels.short_conv.triton import BACKWARD, FORWARD
from tests.ena_kernels.sm90 import compiled

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CHUNK = max(FORWARD.chunk, BACKWARD.chunk)
SHAPES = [(2, 7, 15), (3, 2, 6), (1, 1, 3), (2, CHUNK, 12), (2, 2 * CHUNK + 3, 9), (1, 5, 900)]


def make_case(B, L, C, dtype=torch.float32):
    """Channels inside a wider tensor, as a packed projection holds them, and weights."""
    x = torch.randn(B, L, 3 * C, device=DEVICE, dtype=dtype)[..., C : 2 * C]
    return x, torch.randn(C, 1, 4, device=DEVICE, dtype=dtype)


def outcomes(x, weight, grads, dtype, impl):
    """q, k, v, dx and dweight from the same numbers in any dtype."""
    x, weight = (t.detach().to(dtype).requires_grad_() for t in (x, weight))
    parts = short_conv(x, weight, impl=impl)
    return *parts, *torch.autograd.grad(parts, (x, weight), [grad.to(dtype) for grad in grads])


def gradients(B, L, C, dtype=torch.float32):
    """Of q, k and v."""
    return torch.randn(3, B, L, C // 3, device=DEVICE, dtype=dtype)


@pytest.mark.parametrize(("B", "L", "C"), SHAPES)
def test_value_and_gradients_equal_the_eager_ones(B, L, C):
    x, weight = make_case(B, L, C)
    grads = gradients(B, L, C)
    ours = outcomes(x, weight, grads, torch.float32, "triton")
    theirs = outcomes(x, weight, grads, torch.float64, "eager")
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


LAYOUTS = {
    "side by side": lambda grads: torch.cat([*grads], dim=-1).chunk(3, dim=-1),
    "tokens apart": lambda grads: grads.mT.contiguous().mT,
    "not alike": lambda grads: [grads[0].mT.contiguous().mT, *grads[1:]],
    "without strides": lambda grads: torch.ones_like(grads[:, :1, :1, :1]).expand_as(grads),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_are_read_however_they_lie(layout):
    x, weight = make_case(2, 7, 15)
    grads = LAYOUTS[layout](gradients(2, 7, 15))
    ours = outcomes(x, weight, grads, torch.float32, "triton")
    theirs = outcomes(x, weight, grads, torch.float64, "eager")
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


def test_a_part_that_nothing_reads_has_no_gradient_to_add():
    x, weight = make_case(2, 7, 15)
    x.requires_grad_()
    q, _, v = short_conv(x, weight, impl="triton")
    (dx,) = torch.autograd.grad(q.sum() + v.sum(), x)
    assert dx[..., :5].any()
    assert not dx[..., 5:10].any()


def test_half_precision_adds_in_float32():
    x, weight = make_case(2, 19, 6, torch.float16)
    grads = gradients(2, 19, 6, torch.float16)
    ours = outcomes(x, weight, grads, torch.float16, "triton")
    theirs = outcomes(x, weight, grads, torch.float64, "eager")
    for found, expected in zip(ours, theirs, strict=True):
        assert found.dtype == torch.float16
        torch.testing.assert_close(found.double(), expected, rtol=2e-3, atol=2e-3)


def test_gradients_repeat_bit_for_bit():
    x, weight = make_case(2, CHUNK + 9, 6)
    grads = gradients(2, CHUNK + 9, 6)
    first, second = (outcomes(x, weight, grads, torch.float32, "triton") for _ in range(2))
    assert all(map(torch.equal, first, second))


@pytest.mark.parametrize("cut", [1, 3, 5])
def test_a_sequence_can_be_convolved_in_two_pieces(cut):
    x, weight = make_case(2, 7, 15)
    past = torch.cat([torch.zeros(2, 3, 15, device=DEVICE), x[:, :cut]], dim=1)[:, -3:]
    first = short_conv(x[:, :cut], weight, impl="triton")
    second = short_conv(x[:, cut:], weight, past, impl="triton")
    for *pieces, whole in zip(first, second, short_conv(x, weight, impl="triton"), strict=True):
        torch.testing.assert_close(torch.cat(pieces, dim=1), whole)


@pytest.mark.parametrize("impl", ["eager", "triton"])
def test_parts_have_the_dtype_of_the_tokens_whatever_else_is_wider(impl):
    if impl == "eager" and DEVICE == "cuda":
        pytest.skip("PyTorch's convolution takes one dtype")
    x, weight = make_case(2, 7, 15)
    past = torch.randn(2, 3, 15, device=DEVICE)
    for part in short_conv(x.half(), weight, past, impl=impl):
        assert part.dtype == torch.float16


def test_the_output_is_contiguous_and_written_everywhere():
    x, weight = make_case(2, CHUNK + 3, 15)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        # in this mode fresh memory holds NaN
        parts = short_conv(x, weight, impl="triton")
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(part.is_contiguous() and part.isfinite().all() for part in parts)


@pytest.mark.parametrize("shape", [(0, 5, 6), (2, 0, 6)])
def test_nothing_gives_nothing(shape):
    x, weight = torch.ones(shape, device=DEVICE), torch.ones(6, 1, 4, device=DEVICE)
    *parts, dx, dweight = outcomes(x, weight, gradients(*shape), torch.float32, "triton")
    assert {part.shape for part in parts} == {(*shape[:2], 2)}
    assert dx.shape == shape
    assert not dweight.any()


@pytest.mark.parametrize("shape", [(2, 7, 15), (1, 3, 6)])
def test_operators_are_registered_soundly(shape):
    x, weight = make_case(*shape)
    leaves = x.detach().requires_grad_(), weight.requires_grad_()
    torch.library.opcheck(torch.ops.ena_kernels.short_conv.default, leaves)
    backward = torch.ops.ena_kernels.short_conv_backward.default
    torch.library.opcheck(backward, (x, weight.detach(), *gradients(*shape)))


def test_differentiating_twice_is_refused():
    x, weight = (t.requires_grad_() for t in make_case(2, 7, 15))
    q, *_ = short_conv(x, weight, impl="triton")
    (dx,) = torch.autograd.grad(q.sum(), x, create_graph=True)
    with pytest.raises(UnsupportedError, match=r"no second derivative\nExpected: .*\nTry: "):
        torch.autograd.grad(dx.sum(), weight)


def test_it_traces_into_one_graph():
    x, weight = make_case(2, 7, 15)

    def call(x, weight):
        return short_conv(x.sin(), weight, impl="triton")

    traced = torch.compile(call, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(traced(x, weight), call(x, weight))


def test_float64_is_refused():
    x, weight = torch.ones(1, 5, 3, dtype=torch.float64), torch.ones(3, 1, 4)
    with pytest.raises(UnsupportedError, match=r"no kernel for torch.float64\nExpected: .*\nTry: "):
        short_conv(x.to(DEVICE), weight.to(DEVICE), impl="triton")


def test_a_cpu_without_the_interpreter_is_refused():
    code = """
import torch
from ena_kernels import UnsupportedError
from ena_kernels.short_conv import short_conv
try:
    short_conv(torch.ones(1, 5, 3), torch.ones(3, 1, 4), impl="triton")
except UnsupportedError as error:
    print(str(error).splitlines()[0])
"""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    output = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    assert output == "impl 'triton' has no kernel for cpu tensors\n"


def test_parts_around_a_recurrence_of_triton_kernels_are_tritons_and_share_a_state():
    found = [impl_around(impl) for impl in ("triton", "fla", "eager", "reference")]
    assert found == ["triton", "triton", "eager", "eager"]
    ours, eager = (ShortConvolution(6, impl).to(DEVICE) for impl in ("triton", "eager"))
    ours.load_state_dict(eager.state_dict())
    qkv = torch.randn(2, 5, 18, device=DEVICE)
    for found, expected in zip(ours(qkv), eager(qkv), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_hopper_moves_vectors_without_spills():
    sizes = dict.fromkeys(("x_batch", "x_token", "L", "W"), "i32:16")
    forward = {
        **dict.fromkeys(("x_ptr", "weight_ptr", "q_ptr", "k_ptr", "v_ptr"), "*bf16"),
        **sizes,
    }
    backward = {
        **dict.fromkeys(("x_ptr", "weight_ptr", "dq_ptr", "dk_ptr", "dv_ptr", "dx_ptr"), "*bf16"),
        "share_ptr": "*fp32",
        **sizes,
        **dict.fromkeys(("dy_batch", "dy_token"), "i32:16"),
    }
    for kernel, signature, config in (
        ("short_conv_fwd_kernel", forward, FORWARD),
        ("short_conv_bwd_kernel", backward, BACKWARD),
    ):
        width = 16 * config.num_bytes
        binary = compiled(
            module="ena_kernels.short_conv.triton",
            kernel=kernel,
            signature=signature,
            constexprs={"CHUNK": config.chunk, "UNROLL": config.unroll, "BLOCK_C": width},
            num_warps=1,
        )
        assert binary.local_bytes == 0
        vector = f"global.v{config.num_bytes // 4}.b32"
        assert f"ld.{vector}" in binary.ptx
        assert f"st.{vector}" in binary.ptx
