"""The norm of heads: explicit loops, then Triton's against the eager one in float64."""

import math

import pytest
import torch

from ena_kernels.components import HeadNorm
from ena_kernels.errors import ShapeError, UnsupportedError
from ena_kernels.head_norm import head_norm
from tests.ena_kernels.sm90 import compiled

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
EPS = 1e-2
# heads of 40 channels come 32 to a block and 8 blocks to a share: the third shape needs two shares
SHAPES = [(2, 7, 3, 5), (1, 1, 1, 1), (1, 67, 4, 40), (3, 2, 8), (2, 130)]


def make_case(shape, dtype=torch.float32):
    x, grad = (torch.randn(shape, device=DEVICE, dtype=dtype) + 0.5 for _ in range(2))
    return x, torch.randn(shape[-1], device=DEVICE, dtype=dtype), grad.flatten(-2)


def outcomes(x, weight, grad, dtype, impl):
    """y, dx and dweight from the same numbers in any dtype."""
    x, weight = (t.detach().to(dtype).requires_grad_() for t in (x, weight))
    y = head_norm(x, weight, eps=EPS, impl=impl)
    return y, *torch.autograd.grad(y, (x, weight), grad.to(dtype))


def test_each_head_is_divided_by_its_own_root_mean_square():
    x, weight, _ = make_case((2, 3, 5), torch.float64)
    y = head_norm(x, weight, eps=EPS)
    for b in range(2):
        for h in range(3):
            mean_square = sum(float(z) ** 2 for z in x[b, h]) / 5
            for d in range(5):
                expected = float(x[b, h, d]) / math.sqrt(mean_square + EPS) * float(weight[d])
                assert float(y[b, 5 * h + d]) == pytest.approx(expected, 1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_value_and_gradients_equal_the_eager_ones(shape):
    case = make_case(shape)
    ours = outcomes(*case, torch.float32, "triton")
    theirs = outcomes(*case, torch.float64, "eager")
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


def test_half_precision_adds_in_float32():
    case = make_case((2, 70, 3, 40), torch.float16)
    ours = outcomes(*case, torch.float16, "triton")
    theirs = outcomes(*case, torch.float64, "eager")
    for found, expected in zip(ours, theirs, strict=True):
        assert found.dtype == torch.float16
        torch.testing.assert_close(found.double(), expected, rtol=2e-3, atol=2e-3)


def test_heads_that_lie_apart_are_read_all_the_same():
    x, weight, grad = make_case((2, 7, 3, 5))
    apart = x.transpose(1, 2).contiguous().transpose(1, 2)
    ours = outcomes(apart, weight, grad, torch.float32, "triton")
    for found, expected in zip(
        ours, outcomes(x, weight, grad, torch.float32, "triton"), strict=True
    ):
        assert torch.equal(found, expected)


def test_a_gradient_without_strides_is_read_all_the_same():
    x, weight, _ = make_case((2, 7, 3, 5))
    gradients = []
    for dtype, impl in ((torch.float32, "triton"), (torch.float64, "eager")):
        leaf = x.detach().to(dtype).requires_grad_()
        head_norm(leaf, weight.to(dtype), eps=EPS, impl=impl).sum().backward()
        gradients.append(leaf.grad.double())
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_gradients_repeat_bit_for_bit():
    case = make_case((1, 67, 4, 40))
    first, second = (outcomes(*case, torch.float32, "triton") for _ in range(2))
    assert all(map(torch.equal, first, second))


def test_nothing_gives_nothing():
    y, dx, dweight = outcomes(*make_case((0, 7, 3, 5)), torch.float32, "triton")
    assert y.shape == (0, 7, 15)
    assert dx.shape == (0, 7, 3, 5)
    assert not dweight.any()


def test_operators_are_registered_soundly():
    x, weight, grad = make_case((2, 7, 3, 5))
    leaves = x.requires_grad_(), weight.requires_grad_(), EPS
    torch.library.opcheck(torch.ops.ena_kernels.head_norm.default, leaves)
    backward = torch.ops.ena_kernels.head_norm_backward.default
    torch.library.opcheck(backward, (x.detach(), weight.detach(), grad.view_as(x), EPS))


def test_it_traces_into_one_graph():
    x, weight, _ = make_case((2, 7, 3, 5))

    def call(x, weight):
        return head_norm(x.sin(), weight, eps=EPS, impl="triton")

    traced = torch.compile(call, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(traced(x, weight), call(x, weight))


def test_what_no_kernel_computes_is_refused():
    x, weight, _ = make_case((2, 3, 5), torch.float64)
    with pytest.raises(UnsupportedError, match=r"no kernel for torch.float64\nExpected: .*\nTry: "):
        head_norm(x, weight, eps=EPS, impl="triton")
    with pytest.raises(ShapeError, match=r"impl 'cuda' is unknown\nExpected: .*\nTry: "):
        head_norm(x, weight, eps=EPS, impl="cuda")
    with pytest.raises(ShapeError, match=r"weight has shape \(4,\) beside.*\nExpected: .*\nTry: "):
        head_norm(x, weight[:4], eps=EPS)


def test_the_component_keeps_one_state_whatever_the_implementation():
    ours, eager = (HeadNorm(5, impl).to(DEVICE) for impl in ("triton", "eager"))
    with torch.no_grad():
        eager.weight.copy_(torch.linspace(1, 2, 5))
    ours.load_state_dict(eager.state_dict())
    x, _, _ = make_case((2, 7, 3, 5))
    assert ours(x).shape == (2, 7, 15)
    torch.testing.assert_close(ours(x), eager(x), rtol=1e-5, atol=1e-6)


def test_hopper_moves_sixteen_bytes_at_a_time_without_spills():
    pointers = dict.fromkeys(("x_ptr", "weight_ptr", "y_ptr", "dy_ptr", "dx_ptr"), "*bf16")
    signature = {**pointers, "share_ptr": "*fp32", "R": "i32"}
    blocks = {"D": 64, "EPS": 1e-6, "BLOCK_R": 32, "BLOCK_D": 64}
    for kernel, missing, more in (
        ("head_norm_fwd_kernel", {"dy_ptr", "dx_ptr", "share_ptr"}, {}),
        ("head_norm_bwd_kernel", {"y_ptr"}, {"BLOCKS": 8}),
    ):
        binary = compiled(
            module="ena_kernels.head_norm.triton",
            kernel=kernel,
            signature={name: kind for name, kind in signature.items() if name not in missing},
            constexprs=blocks | more,
        )
        assert binary.local_bytes == 0
        assert binary.registers <= 128
        assert "ld.global.v4.b32" in binary.ptx
        assert "st.global.v4.b32" in binary.ptx
