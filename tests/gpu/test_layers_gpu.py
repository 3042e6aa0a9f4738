"""Layers and stacks on CUDA: agreement with float64, graphs, decoding, draws that repeat."""

import pytest
import torch

from bench.contenders import registry
from bench.fingerprint import missing, take
from ena_kernels.components import LayerNorm, MLPLinear, Tile, Untile
from ena_kernels.layers import DeltaNet
from ena_kernels.models import build
from ena_kernels.norms import head_norm, layer_norm
from ena_kernels.short_conv import by_taps, short_conv

pytestmark = [
    pytest.mark.gpu,
    # the thread of the backward makes its context when its first kernel is a matrix product
    pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS"),
]

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
    y = torch.cat(short_conv(x, weight), dim=-1)
    gradient = torch.randn_like(y)
    y.backward(gradient)
    exact = [leaf.detach().double().requires_grad_() for leaf in (x, weight)]
    padded = torch.nn.functional.pad(exact[0].mT, (3, 0))
    expected = torch.nn.functional.silu(by_taps(padded, exact[1])).mT
    expected.backward(gradient.double())
    assert relative_error(y, expected) < budget
    assert relative_error(x.grad, exact[0].grad) < budget
    assert relative_error(weight.grad, exact[1].grad) < budget


def outcome(module, x, gradient):
    """Value, gradient of the tokens, and gradients of the weights by name."""
    x = x.detach().requires_grad_()
    y = module(x)
    named = dict(module.named_parameters())
    dx, *rest = torch.autograd.grad(y, (x, *named.values()), gradient)
    return {"y": y, "x": dx, **dict(zip(named, rest, strict=True))}


def pair(contender, level, dtype, *, attend="eager", recur="eager", **settings):
    """A module of fast parts, and the same weights in float64."""
    if "fla" in recur:
        pytest.importorskip("fla")
    torch.manual_seed(0)
    shape = SHAPE | {"tile": TILE, "window": WINDOW} | settings
    fast = build(contender, level=level, **shape, attention_impl=attend, recurrence_impl=recur)
    exact = build(contender, level=level, **shape | {"permute": "io"})
    fast, exact = fast.to("cuda", dtype), exact.to("cuda", torch.float64)
    exact.load_state_dict(fast.state_dict())
    return fast, exact


BF16, FP16 = torch.bfloat16, torch.float16
STACKS = [
    ("layer", BF16, "ena", "eager", "eager", {}),
    ("model", BF16, "ena", "eager", "eager", {"permute": "qkvo"}),
    pytest.param("layer", BF16, "ena", "flex", "eager", {}, marks=IGNORE_COMPILER),
    ("layer", BF16, "ena", "triton", "eager", {"permute": "qkvo"}),
    ("layer", BF16, "ena", "triton", "fla", {}),
    ("model", FP16, "ena", "triton", "fla", {"permute": "fused", "scan": "cross"}),
    ("layer", FP16, "ena", "triton", "triton", {"permute": "fused"}),
    ("model", BF16, "ena", "triton", "triton", {}),
    ("layer", BF16, "transformer", "sdpa_flash", "eager", {}),
    ("model", BF16, "linear", "eager", "eager", {}),
    ("layer", BF16, "linear", "eager", "fla", {"scan": "bi"}),
    ("layer", BF16, "linear", "eager", "triton", {"scan": "cross"}),
    ("model", FP16, "linear", "eager", "triton", {"scan": "random"}),
]


@pytest.mark.parametrize(("level", "dtype", "contender", "attend", "recur", "settings"), STACKS)
def test_halves_agree_with_float64_in_value_and_gradient(
    level, dtype, contender, attend, recur, settings
):
    fast, exact = pair(contender, level, dtype, attend=attend, recur=recur, **settings)
    x = torch.randn(2, 24 * 48, 96, device="cuda", dtype=dtype)
    shape = x.shape if level == "layer" else (2, 1000)
    gradient = torch.randn(shape, device="cuda", dtype=dtype)
    torch.manual_seed(1)
    found = outcome(fast, x, gradient)
    torch.manual_seed(1)
    expected = outcome(exact, x.double(), gradient.double())
    for name, value in found.items():
        assert relative_error(value, expected[name]) < (4e-2 if name == "y" else 8e-2), name


@pytest.mark.parametrize("recur", ["triton", "fla"])
@pytest.mark.parametrize("scan", ["uni", "cross"])
def test_the_kernels_around_a_recurrence_are_tritons(recur, scan):
    fast, _ = pair("linear", "layer", torch.bfloat16, recur=recur, scan=scan, depth=1)
    x = torch.randn(1, 24 * 48, 96, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    fast(x)
    found = take(lambda: fast(x).sum().backward(), "cuda")
    assert missing(found, registry()["layer", "linear", recur].expected_kernels("cuda")) == []
    ran = set(found.kernels)
    moved = {"scan_spread_kernel", "scan_collect_kernel"} if scan == "cross" else set()
    ours = {f"{name}_{way}_kernel" for name in ("short_conv", "norm") for way in ("fwd", "bwd")}
    assert ours | moved <= ran
    foreign = ("conv_depthwise", "indexSelect", "layer_norm", "LayerNorm")
    assert not [name for name in ran if any(part in name for part in foreign)]


def test_a_captured_layer_replays_forward_and_backward():
    fast, _ = pair("ena", "layer", torch.bfloat16, attend="triton", recur="triton", scan="cross")
    held = torch.randn(1, 24 * 48, 96, device="cuda", dtype=torch.bfloat16)
    gradient = torch.randn_like(held)
    graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            outcome(fast, held, gradient)
        with torch.cuda.graph(graph, stream=side):
            found = outcome(fast, held, gradient)
        held.copy_(torch.randn_like(held))
        graph.replay()
        again = outcome(fast, held, gradient)
    torch.cuda.synchronize()
    for name, expected in again.items():
        assert relative_error(found[name], expected.double()) < 1e-6, name


@IGNORE_COMPILER
def test_a_layer_compiles_into_one_graph():
    fast, exact = pair("ena", "layer", torch.bfloat16, attend="triton", recur="triton", scan="bi")
    x = torch.randn(1, 24 * 48, 96, device="cuda", dtype=torch.bfloat16)
    gradient = torch.randn_like(x)
    found = outcome(torch.compile(fast, fullgraph=True), x, gradient)
    expected = outcome(exact, x.double(), gradient.double())
    for name, value in found.items():
        error = relative_error(value, expected[name.removeprefix("_orig_mod.")])
        assert error < (4e-2 if name == "y" else 8e-2), name


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


@pytest.mark.parametrize("shape", [(2, 3000, 96), (70, 40), (1, 5, 3072)])
def test_the_gradients_of_a_biased_linear_map_agree_with_float64(shape):
    torch.manual_seed(0)
    x = torch.randn(shape, device="cuda", dtype=torch.bfloat16)
    ours = MLPLinear(shape[-1], 72, "triton").to("cuda", torch.bfloat16)
    exact = MLPLinear(shape[-1], 72).to("cuda", torch.float64)
    exact.load_state_dict(ours.state_dict())
    gradient = torch.randn(*shape[:-1], 72, device="cuda", dtype=torch.bfloat16) + 1
    ran = take(lambda: outcome(ours, x, gradient), "cuda").kernels
    assert "column_sum_kernel" in ran
    found, expected = outcome(ours, x, gradient), outcome(exact, x.double(), gradient.double())
    for name, value in found.items():
        assert relative_error(value, expected[name]) < 5e-3, name


@pytest.mark.parametrize("impl", ["eager", "triton"])
def test_layer_norm_keeps_gradients_of_many_tokens(impl):
    torch.manual_seed(0)
    norm = LayerNorm(96, impl).to("cuda", torch.bfloat16)
    gradient = torch.randn(20_000, 96, device="cuda", dtype=torch.bfloat16) + 1
    norm(torch.randn_like(gradient)).backward(gradient)
    assert relative_error(norm.bias.grad, gradient.double().sum(0)) < 5e-3


@pytest.mark.parametrize(
    ("impl", "dtype", "budget"),
    [
        ("eager", torch.float32, 1e-3),
        ("triton", torch.float32, 1e-3),
        ("triton", torch.bfloat16, 4e-2),
        ("fla", torch.bfloat16, 4e-2),
    ],
)
def test_decoding_token_by_token_gives_the_whole_output(impl, dtype, budget):
    if impl == "fla":
        pytest.importorskip("fla")
    torch.manual_seed(0)
    layer = DeltaNet(96, 3, canvas=(40,), impl=impl).to("cuda", dtype)
    x = torch.randn(2, 40, 96, device="cuda", dtype=dtype)
    with torch.no_grad():
        whole, cache, stepped = layer(x), layer.empty_cache(2), []
        for t in range(40):
            y, cache = layer.step(x[:, t], cache)
            stepped.append(y)
    assert relative_error(torch.stack(stepped, 1), whole.double()) < budget


@pytest.mark.parametrize("shape", [(2, 1000, 12, 64), (1, 333, 3, 40), (700, 2, 128), (9, 1100)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("norm", ["head", "layer"])
def test_norms_and_their_gradients_agree_with_float64(norm, dtype, shape):
    x, gradient = (torch.randn(shape, device="cuda", dtype=dtype) for _ in range(2))
    parameters = [torch.randn(shape[-1], device="cuda", dtype=dtype) for _ in range(2)]
    results = []
    for kind, impl in ((dtype, "triton"), (torch.float64, "eager")):
        leaves = [t.detach().to(kind).requires_grad_() for t in (x, *parameters)]
        if norm == "head":
            leaves = leaves[:2]
            y = head_norm(*leaves, eps=1e-6, impl=impl).view(shape)
        else:
            y = layer_norm(*leaves, eps=1e-6, impl=impl)
        results.append((y, *torch.autograd.grad(y, leaves, gradient.to(kind))))
    for found, expected in zip(*results, strict=True):
        assert relative_error(found, expected) < 4e-3


def test_heads_beyond_two_to_the_31_elements_are_normalised():
    x, gradient = (
        torch.randn(2**20 + 1, 32, 64, device="cuda", dtype=torch.bfloat16) for _ in range(2)
    )
    weight = torch.ones(64, device="cuda", dtype=torch.bfloat16)
    results = []
    for impl, rows in (("triton", slice(None)), ("eager", slice(-2, None))):
        leaf = x[rows].requires_grad_()
        y = head_norm(leaf, weight, eps=1e-6, impl=impl)
        (dx,) = torch.autograd.grad(y, leaf, gradient[rows].flatten(-2))
        results.append((y[-2:], dx[-2:]))
    for found, expected in zip(*results, strict=True):
        assert relative_error(found, expected.double()) < 4e-3


@pytest.mark.parametrize(("canvas", "tile"), [((24, 48), (8, 16)), ((6, 10, 4), (3, 2, 4))])
def test_tokens_move_into_tiled_order_bit_for_bit(canvas, tile):
    L = torch.Size(canvas).numel()
    x = torch.randn(2, L, 96, device="cuda", dtype=torch.bfloat16)
    for kind in (Tile, Untile):
        ours, eager = (kind(canvas, tile, impl).cuda() for impl in ("triton", "eager"))
        found, expected = outcome(ours, x, x), outcome(eager, x, x)
        assert torch.equal(found["y"], expected["y"])
        assert torch.equal(found["x"], expected["x"])
        assert not ours.state_dict()
