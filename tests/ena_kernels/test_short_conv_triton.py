"""Triton's short convolution against the eager one in float64, value and every gradient."""

import os
import subprocess
import sys

import pytest
import torch

from ena_kernels.components import Recurrence, ShortConvolution, impl_around
from ena_kernels.errors import ShapeError, UnsupportedError
from ena_kernels.short_conv import short_conv
from ena_kernels.short_conv.triton import CHUNK
from tests.ena_kernels.sm90 import compiled

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = [(2, 7, 5), (3, 2, 6), (1, 1, 3), (2, CHUNK, 4), (2, 2 * CHUNK + 3, 5), (1, 5, 300)]


def make_case(B, L, C, dtype=torch.float32):
    """Channels inside a wider tensor, as a packed projection holds them, and weights."""
    x = torch.randn(B, L, 3 * C, device=DEVICE, dtype=dtype)[..., C : 2 * C]
    return x, torch.randn(C, 1, 4, device=DEVICE, dtype=dtype)


def outcomes(x, weight, grad, dtype, impl):
    """y, dx and dweight from the same numbers in any dtype."""
    x, weight = (t.detach().to(dtype).requires_grad_() for t in (x, weight))
    y = short_conv(x, weight, impl=impl)
    return y, *torch.autograd.grad(y, (x, weight), grad.to(dtype))


@pytest.mark.parametrize(("B", "L", "C"), SHAPES)
def test_value_and_gradients_equal_the_eager_ones(B, L, C):
    x, weight = make_case(B, L, C)
    # a gradient whose tokens lie apart, as that of a transposed output does
    grad = torch.randn(B, C, L, device=DEVICE).mT
    ours = outcomes(x, weight, grad, torch.float32, "triton")
    theirs = outcomes(x, weight, grad, torch.float64, "eager")
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


def test_half_precision_adds_in_float32():
    x, weight = make_case(2, 19, 6, torch.float16)
    grad = torch.randn(2, 19, 6, device=DEVICE, dtype=torch.float16)
    ours = outcomes(x, weight, grad, torch.float16, "triton")
    theirs = outcomes(x, weight, grad, torch.float64, "eager")
    for found, expected in zip(ours, theirs, strict=True):
        assert found.dtype == torch.float16
        torch.testing.assert_close(found.double(), expected, rtol=2e-3, atol=2e-3)


def test_gradients_repeat_bit_for_bit():
    x, weight = make_case(2, CHUNK + 9, 5)
    grad = torch.randn(2, CHUNK + 9, 5, device=DEVICE)
    first, second = (outcomes(x, weight, grad, torch.float32, "triton") for _ in range(2))
    assert all(map(torch.equal, first, second))


@pytest.mark.parametrize("cut", [1, 3, 5])
def test_a_sequence_can_be_convolved_in_two_pieces(cut):
    x, weight = make_case(2, 7, 5)
    past = torch.cat([torch.zeros(2, 3, 5, device=DEVICE), x[:, :cut]], dim=1)[:, -3:]
    pieces = [
        short_conv(x[:, :cut], weight, impl="triton"),
        short_conv(x[:, cut:], weight, past, impl="triton"),
    ]
    whole = short_conv(x, weight, impl="triton")
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole)


def test_the_output_is_contiguous_and_written_everywhere():
    x, weight = make_case(2, CHUNK + 3, 5)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        # in this mode fresh memory holds NaN
        y = short_conv(x, weight, impl="triton")
    finally:
        torch.use_deterministic_algorithms(False)
    assert y.is_contiguous()
    assert y.isfinite().all()


@pytest.mark.parametrize("shape", [(0, 5, 4), (2, 0, 4)])
def test_nothing_gives_nothing(shape):
    x, weight = torch.ones(shape, device=DEVICE), torch.ones(4, 1, 4, device=DEVICE)
    y, dx, dweight = outcomes(x, weight, x, torch.float32, "triton")
    assert y.shape == dx.shape == shape
    assert not dweight.any()


@pytest.mark.parametrize("shape", [(2, 7, 5), (1, 3, 4)])
def test_operators_are_registered_soundly(shape):
    x, weight = make_case(*shape)
    leaves = x.detach().requires_grad_(), weight.requires_grad_()
    torch.library.opcheck(torch.ops.ena_kernels.short_conv.default, leaves)
    grad = torch.randn(shape, device=DEVICE)
    backward = torch.ops.ena_kernels.short_conv_backward.default
    torch.library.opcheck(backward, (x, weight.detach(), grad))


def test_it_traces_into_one_graph():
    x, weight = make_case(2, 7, 5)

    def call(x, weight):
        return short_conv(x.sin(), weight, impl="triton")

    traced = torch.compile(call, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(traced(x, weight), call(x, weight))


def test_float64_and_unknown_implementations_are_refused():
    x, weight = torch.ones(1, 5, 2, dtype=torch.float64), torch.ones(2, 1, 4)
    with pytest.raises(UnsupportedError, match=r"no kernel for torch.float64\nExpected: .*\nTry: "):
        short_conv(x.to(DEVICE), weight.to(DEVICE), impl="triton")
    with pytest.raises(ShapeError, match=r"impl 'cuda' is unknown\nExpected: .*\nTry: "):
        short_conv(x, weight, impl="cuda")


def test_a_cpu_without_the_interpreter_is_refused():
    code = """
import torch
from ena_kernels import UnsupportedError
from ena_kernels.short_conv import short_conv
try:
    short_conv(torch.ones(1, 5, 2), torch.ones(2, 1, 4), impl="triton")
except UnsupportedError as error:
    print(str(error).splitlines()[0])
"""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    output = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    assert output == "impl 'triton' has no kernel for cpu tensors\n"


def test_parts_around_a_triton_recurrence_are_tritons_and_share_a_state():
    assert [impl_around(impl) for impl in ("triton", "eager", "fla")] == [
        "triton",
        "eager",
        "eager",
    ]
    ours, eager = (ShortConvolution(6, impl).to(DEVICE) for impl in ("triton", "eager"))
    ours.load_state_dict(eager.state_dict())
    qkv = torch.randn(2, 5, 18, device=DEVICE)
    parts = ours(qkv)
    for found, expected in zip(parts, eager(qkv), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert len({part.untyped_storage().data_ptr() for part in parts}) == 1


def test_a_recurrence_reads_the_convolution_as_views():
    conv, recurrence = ShortConvolution(8, "triton").to(DEVICE), Recurrence(2, "eager")
    qkv, strength = torch.randn(2, 5, 24, device=DEVICE), torch.randn(2, 5, 2, device=DEVICE)
    views = conv(qkv)
    copies = (part.contiguous() for part in views)
    torch.testing.assert_close(recurrence(*views, strength), recurrence(*copies, strength))


def test_hopper_moves_sixteen_bytes_at_a_time_without_spills():
    blocks = {"CHUNK": CHUNK, "UNROLL": 4, "BLOCK_C": 256}
    strides = dict.fromkeys(("x_batch", "x_token", "L", "C"), "i32:16")
    pointers = dict.fromkeys(("x_ptr", "weight_ptr", "y_ptr"), "*bf16")
    more = {
        **dict.fromkeys(("dy_ptr", "dx_ptr"), "*bf16"),
        **dict.fromkeys(("dy_batch", "dy_token"), "i32:16"),
        "share_ptr": "*fp32",
    }
    backward = {k: v for k, v in {**pointers, **strides, **more}.items() if k != "y_ptr"}
    for kernel, signature in (
        ("short_conv_fwd_kernel", {**pointers, **strides}),
        ("short_conv_bwd_kernel", backward),
    ):
        binary = compiled(
            module="ena_kernels.short_conv.triton",
            kernel=kernel,
            signature=signature,
            constexprs=blocks,
            num_warps=1,
        )
        assert binary.local_bytes == 0
        assert "ld.global.v4.b32" in binary.ptx
        assert "st.global.v4.b32" in binary.ptx
