"""Layers and stacks on CUDA: agreement with float64, and draws that repeat."""

import pytest
import torch

from ena_kernels.components import LayerNorm
from ena_kernels.layers import DeltaNet
from ena_kernels.models import build
from ena_kernels.short_conv import by_taps, short_conv

pytestmark = pytest.mark.gpu

# what the compiler warns of, PyTorch's own deprecations among it, is not the layers' doing
IGNORE_COMPILER = pytest.mark.filterwarnings("default")
CANVAS, TILE, WINDOW = (24, 48), (8, 16), (16, 16)
SHAPE = {"canvas": CANVAS, "heads": 3, "head_dim": 32, "depth": 2}


def relative_error(actual, expected):
    actual, expected = actual.detach().double(), expected.detach()
    return float((actual - expected).norm() / expected.norm())


@pytest.mark.parametrize(("dtype", "budget"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_short_conv_agrees_with_float64_in_value_and_gradient(dtype, budget):
    torch.manual_seed(0)
    x = torch.randn(2, 777, 72, device="cuda", dtype=dtype, requires_grad=True)
    weight = torch.randn(72, 1, 4, device="cuda", dtype=dtype, requires_grad=True)
    y = short_conv(x, weight)
    gradient = torch.randn_like(y)
    y.backward(gradient)
    exact = [leaf.detach().double().requires_grad_() for leaf in (x, weight)]
    padded = torch.nn.functional.pad(exact[0].mT, (3, 0))
    expected = torch.nn.functional.silu(by_taps(padded, exact[1])).mT
    expected.backward(gradient.double())
    assert relative_error(y, expected) < budget
    assert relative_error(x.grad, exact[0].grad) < budget
    assert relative_error(weight.grad, exact[1].grad) < budget


@pytest.mark.parametrize("level", ["layer", "model"])
@pytest.mark.parametrize(
    ("contender", "impl"),
    [
        ("ena", "eager"),
        pytest.param("ena", "flex", marks=IGNORE_COMPILER),
        ("transformer", "sdpa_flash"),
        ("linear", "eager"),
    ],
)
@pytest.mark.parametrize("permute", ["io", "qkvo"])
def test_bfloat16_agrees_with_float64_in_value_and_gradient(level, contender, impl, permute):
    torch.manual_seed(0)
    tiles = {"tile": TILE, "window": WINDOW, "permute": permute}
    fast = build(contender, level=level, **SHAPE, **tiles, attention_impl=impl)
    exact = build(contender, level=level, **SHAPE, **tiles)
    fast, exact = fast.to("cuda", torch.bfloat16), exact.to("cuda", torch.float64)
    exact.load_state_dict(fast.state_dict())
    x = torch.randn(2, 24 * 48, 96, device="cuda", dtype=torch.bfloat16)
    y, expected = fast(x), exact(x.double())
    gradient = torch.randn_like(y)
    y.backward(gradient)
    expected.backward(gradient.double())
    assert relative_error(y, expected) < 4e-2
    for (name, p), q in zip(fast.named_parameters(), exact.parameters(), strict=True):
        assert relative_error(p.grad, q.grad) < 8e-2, name


@pytest.mark.parametrize("scan", ["random", "learnable"])
def test_drawn_orders_repeat_with_the_seed_whatever_the_dtype(scan):
    outputs = []
    for dtype in (torch.float64, torch.bfloat16):
        torch.manual_seed(1)
        layer = DeltaNet(96, 3, canvas=CANVAS, scan=scan).to("cuda", torch.bfloat16).to(dtype)
        x = torch.randn(2, 24 * 48, 96, dtype=torch.float64).to("cuda", torch.bfloat16)
        torch.manual_seed(2)
        outputs.append(layer(x.to(dtype)))
    assert relative_error(outputs[1], outputs[0]) < 4e-2


def test_layer_norm_keeps_gradients_of_many_tokens():
    torch.manual_seed(0)
    norm = LayerNorm(96).to("cuda", torch.bfloat16)
    gradient = torch.randn(20_000, 96, device="cuda", dtype=torch.bfloat16) + 1
    norm(torch.randn_like(gradient)).backward(gradient)
    assert relative_error(norm.bias.grad, gradient.double().sum(0)) < 5e-3


def test_decoding_token_by_token_gives_the_whole_output():
    torch.manual_seed(0)
    layer = DeltaNet(96, 3, canvas=(40,)).to("cuda", torch.float32)
    x = torch.randn(2, 40, 96, device="cuda")
    with torch.no_grad():
        whole, cache, stepped = layer(x), layer.empty_cache(2), []
        for t in range(40):
            y, cache = layer.step(x[:, t], cache)
            stepped.append(y)
    assert relative_error(torch.stack(stepped, 1), whole.double()) < 1e-3
