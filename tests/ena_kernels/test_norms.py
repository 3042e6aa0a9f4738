"""Norms of heads and tokens: explicit loops, then Triton's against the eager ones in float64."""

import math

import pytest
import torch

from ena_kernels.components import HeadNorm, impl_beside
from ena_kernels.errors import ShapeError, UnsupportedError
from ena_kernels.norms import head_norm, layer_norm, triton
from tests.ena_kernels.sm90 import compiled

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
EPS = 1e-2
SHAPES = [(2, 7, 3, 5), (1, 1, 1, 1), (1, 67, 4, 40), (3, 2, 8), (2, 130), (5, 2100)]
NORMS = ["head", "layer"]


def make_case(shape, dtype=torch.float32):
    """Rows away from zero, a gradient, and two parameters."""
    x, grad = (torch.randn(shape, device=DEVICE, dtype=dtype) + 0.5 for _ in range(2))
    return x, grad, *(torch.randn(shape[-1], device=DEVICE, dtype=dtype) for _ in range(2))


def outcomes(norm, case, dtype, impl):
    """y, dx, dweight and, for tokens, dbias from the same numbers in any dtype."""
    x, grad, *parameters = (t.detach().to(dtype) for t in case)
    leaves = [t.requires_grad_() for t in (x, *parameters)]
    if norm == "layer":
        y = layer_norm(*leaves, eps=EPS, impl=impl)
    else:
        leaves = leaves[:2]
        y = head_norm(*leaves, eps=EPS, impl=impl).view(x.shape)
    return y, *torch.autograd.grad(y, leaves, grad)


def test_each_head_is_divided_by_its_own_root_mean_square():
    x, _, weight, _ = make_case((2, 3, 5), torch.float64)
    y = head_norm(x, weight, eps=EPS)
    for b in range(2):
        for h in range(3):
            mean_square = sum(float(z) ** 2 for z in x[b, h]) / 5
            for d in range(5):
                expected = float(x[b, h, d]) / math.sqrt(mean_square + EPS) * float(weight[d])
                assert float(y[b, 5 * h + d]) == pytest.approx(expected, 1e-12)


def test_each_token_is_centred_and_divided_by_its_deviation():
    x, _, weight, bias = make_case((2, 3, 5), torch.float64)
    y = layer_norm(x, weight, bias, eps=EPS)
    for b in range(2):
        for t in range(3):
            mean = sum(map(float, x[b, t])) / 5
            variance = sum((float(z) - mean) ** 2 for z in x[b, t]) / 5
            for c in range(5):
                z = (float(x[b, t, c]) - mean) / math.sqrt(variance + EPS)
                expected = z * float(weight[c]) + float(bias[c])
                assert float(y[b, t, c]) == pytest.approx(expected, 1e-12)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_value_and_gradients_equal_the_eager_ones(shape, norm, monkeypatch):
    # three programs, so that most shapes have several blocks for each and one has fewer blocks
    monkeypatch.setattr(triton, "SHARES", 3)
    case = make_case(shape)
    ours = outcomes(norm, case, torch.float32, "triton")
    theirs = outcomes(norm, case, torch.float64, "eager")
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", NORMS)
def test_half_precision_adds_in_float32(norm):
    case = make_case((2, 70, 3, 40), torch.float16)
    ours = outcomes(norm, case, torch.float16, "triton")
    theirs = outcomes(norm, case, torch.float64, "eager")
    for found, expected in zip(ours, theirs, strict=True):
        assert found.dtype == torch.float16
        torch.testing.assert_close(found.double(), expected, rtol=2e-3, atol=4e-3)


@pytest.mark.parametrize("norm", NORMS)
def test_rows_and_gradients_that_lie_apart_are_read_all_the_same(norm):
    x, grad, *parameters = make_case((2, 7, 3, 5))
    apart = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in (x, grad)]
    ours = outcomes(norm, (*apart, *parameters), torch.float32, "triton")
    same = outcomes(norm, (x, grad, *parameters), torch.float32, "triton")
    assert all(map(torch.equal, ours, same))


@pytest.mark.parametrize("norm", NORMS)
def test_a_gradient_without_strides_is_read_all_the_same(norm):
    x, grad, *parameters = make_case((2, 7, 3, 5))
    case = x, torch.ones((), device=DEVICE).expand_as(grad), *parameters
    ours = outcomes(norm, case, torch.float32, "triton")
    theirs = outcomes(norm, case, torch.float64, "eager")
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", NORMS)
def test_gradients_repeat_bit_for_bit(norm):
    case = make_case((1, 67, 4, 40))
    first, second = (outcomes(norm, case, torch.float32, "triton") for _ in range(2))
    assert all(map(torch.equal, first, second))


@pytest.mark.parametrize("norm", NORMS)
def test_nothing_gives_nothing(norm):
    y, dx, *parameters = outcomes(norm, make_case((0, 7, 3, 5)), torch.float32, "triton")
    assert y.shape == dx.shape == (0, 7, 3, 5)
    assert [tuple(p.shape) for p in parameters] == [(5,)] * (2 if norm == "layer" else 1)
    assert not any(p.any() for p in parameters)


@pytest.mark.parametrize("is_centred", [False, True])
def test_operators_are_registered_soundly(is_centred):
    x, grad, *parameters = make_case((2, 7, 3, 5))
    leaves = [t.requires_grad_() for t in (x, *parameters)]
    bias = leaves[2] if is_centred else None
    torch.library.opcheck(torch.ops.ena_kernels.norm.default, (*leaves[:2], bias, EPS))
    backward = torch.ops.ena_kernels.norm_backward.default
    tensors = x.detach(), leaves[1].detach(), grad
    torch.library.opcheck(backward, (*tensors, EPS, is_centred))


@pytest.mark.parametrize("norm", NORMS)
def test_differentiating_twice_is_refused(norm):
    x, _, *parameters = make_case((2, 7, 3, 5))
    leaves = [t.requires_grad_() for t in (x, *parameters)]
    leaves = leaves if norm == "layer" else leaves[:2]
    y = {"layer": layer_norm, "head": head_norm}[norm](*leaves, eps=EPS, impl="triton")
    (dx,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    with pytest.raises(UnsupportedError, match=r"no second derivative\nExpected: .*\nTry: "):
        torch.autograd.grad(dx.sum(), leaves[1])


def test_it_traces_into_one_graph():
    x, _, weight, bias = make_case((2, 7, 3, 5))

    def call(x, weight, bias):
        y = layer_norm(x.sin(), weight, bias, eps=EPS, impl="triton")
        return head_norm(y, weight, eps=EPS, impl="triton")

    traced = torch.compile(call, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(traced(x, weight, bias), call(x, weight, bias))


def test_what_no_kernel_computes_is_refused():
    x, _, weight, bias = make_case((2, 3, 5), torch.float64)
    with pytest.raises(UnsupportedError, match=r"no kernel for torch.float64\nExpected: .*\nTry: "):
        head_norm(x, weight, eps=EPS, impl="triton")
    with pytest.raises(ShapeError, match=r"weight has shape \(4,\) beside.*\nExpected: .*\nTry: "):
        head_norm(x, weight[:4], eps=EPS)
    with pytest.raises(ShapeError, match=r"bias has shape \(4,\) beside"):
        layer_norm(x, weight, bias[:4], eps=EPS)


def test_the_component_keeps_one_state_whatever_the_implementation():
    ours, eager = (HeadNorm(5, impl).to(DEVICE) for impl in ("triton", "eager"))
    with torch.no_grad():
        eager.weight.copy_(torch.linspace(1, 2, 5))
    ours.load_state_dict(eager.state_dict())
    x, *_ = make_case((2, 7, 3, 5))
    assert ours(x).shape == (2, 7, 15)
    torch.testing.assert_close(ours(x), eager(x), rtol=1e-5, atol=1e-6)


def test_layer_norms_are_pytorchs_only_among_parts_of_pytorch(monkeypatch):
    assert impl_beside("eager", "reference") == impl_beside("eager") == "eager"
    assert impl_beside("triton", "eager") == impl_beside("sdpa_flash") == "triton"
    monkeypatch.setattr("ena_kernels.components.find_spec", lambda name: None)
    assert impl_beside("sdpa_flash") == "eager"


@pytest.mark.parametrize(
    ("D", "blocks"),
    [
        (64, {"CENTRED": False, "BLOCK_R": 32, "BLOCK_D": 64}),
        (768, {"CENTRED": True, "BLOCK_R": 2, "BLOCK_D": 1024}),
    ],
)
def test_hopper_moves_sixteen_bytes_at_a_time_without_spills(D, blocks):
    forward = dict.fromkeys(("x_ptr", "weight_ptr", "bias_ptr", "y_ptr"), "*bf16") | {"R": "i32"}
    backward = {
        **dict.fromkeys(("x_ptr", "weight_ptr", "dy_ptr", "dx_ptr"), "*bf16"),
        **{"share_ptr": "*fp32", "R": "i32", "num_blocks": "i32"},
    }
    for kernel, signature in (("norm_fwd_kernel", forward), ("norm_bwd_kernel", backward)):
        binary = compiled(
            module="ena_kernels.norms.triton",
            kernel=kernel,
            signature=signature,
            constexprs={"D": D, "EPS": 1e-6, **blocks},
        )
        assert binary.local_bytes == 0
        assert binary.registers <= 128
        assert "ld.global.v4.b32" in binary.ptx
        assert "st.global.v4.b32" in binary.ptx
