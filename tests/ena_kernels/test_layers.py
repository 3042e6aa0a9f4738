"""Layers against float64 loops over the formulas of docs/maths.md that share no code with them."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ena_kernels.components import COMPONENTS, BiasedLinear, LayerNorm
from ena_kernels.errors import ShapeError, UnsupportedError
from ena_kernels.layers import MLP, Attention, Block, DeltaNet, SlidingTileAttention

HEADS, HEAD_DIM = 2, 3
WIDTH = HEADS * HEAD_DIM
CANVAS, TILE, WINDOW = (6, 8), (2, 2), (4, 6)


def randomised(module, seed=0):
    """The module in float64 with weights far from their start, none of them zero or one."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return module


def hidden(canvas, batch=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, math.prod(canvas), WIDTH)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def silu(x):
    return x / (1 + torch.exp(-x))


@torch.no_grad()
def delta_net_by_hand(layer, x):
    """The whole layer, token by token and head by head."""
    w_q, w_k, w_v = layer.qkv.weight.split(WIDTH)
    taps_q, taps_k, taps_v = layer.conv.weight[:, 0].split(WIDTH)
    y = torch.zeros_like(x)
    for b in range(x.shape[0]):
        mixed = []
        for weight, taps in ((w_q, taps_q), (w_k, taps_k), (w_v, taps_v)):
            projected = [weight @ token for token in x[b]]
            convolved = []
            for t in range(len(projected)):
                past = range(max(0, t - 3), t + 1)
                convolved.append(silu(sum(taps[:, 3 - t + s] * projected[s] for s in past)))
            mixed.append(convolved)
        outputs = [torch.zeros(WIDTH, dtype=torch.float64) for _ in x[b]]
        for h in range(HEADS):
            span = slice(h * HEAD_DIM, (h + 1) * HEAD_DIM)
            state = torch.zeros(HEAD_DIM, HEAD_DIM, dtype=torch.float64)
            for t, (q, k, v) in enumerate(zip(*mixed, strict=True)):
                q, k, v = q[span], k[span], v[span]
                q, k = (z / math.sqrt(float(z @ z) + 1e-6) for z in (q, k))
                beta = 1 / (1 + math.exp(-float(layer.beta.weight[h] @ x[b, t])))
                state = state + torch.outer(k, beta * (v - k @ state))
                o = q @ state / math.sqrt(HEAD_DIM)
                o = o / math.sqrt(float(o @ o) / HEAD_DIM + 1e-6) * layer.norm.weight
                outputs[t][span] = o
        for t, o in enumerate(outputs):
            y[b, t] = layer.out.weight @ o
    return y


@torch.no_grad()
def attention_by_hand(layer, x, sees):
    """Softmax attention of every token over the tokens it sees."""
    w_q, w_k, w_v = layer.qkv.weight.split(WIDTH)
    y = torch.zeros_like(x)
    for b, i in itertools.product(range(x.shape[0]), range(x.shape[1])):
        seen = [j for j in range(x.shape[1]) if sees(i, j)]
        o = torch.zeros(WIDTH, dtype=torch.float64)
        for h in range(HEADS):
            span = slice(h * HEAD_DIM, (h + 1) * HEAD_DIM)
            q = (w_q @ x[b, i])[span]
            keys, values = ((x[b, seen] @ w.T)[:, span] for w in (w_k, w_v))
            p = torch.exp(keys @ q / math.sqrt(HEAD_DIM))
            o[span] = (p / p.sum()) @ values
        y[b, i] = layer.out.weight @ o
    return y


def sees_on_tiles(i, j):
    """By the official rule: the centre of the window is clamped, then both reaches."""
    for axis, (t, w) in enumerate(zip(TILE, WINDOW, strict=True)):
        size, stride = CANVAS[axis], math.prod(CANVAS[axis + 1 :])
        query, key = (n // stride % size // t for n in (i, j))
        num_tiles, num_seen = size // t, w // t
        left, right = num_seen // 2, num_seen // 2 + num_seen % 2 - 1
        centre = min(max(query, left), num_tiles - 1 - right)
        if not centre - left <= key <= centre + right:
            return False
    return True


def sliding_tile_layer(**settings):
    geometry = {"canvas": CANVAS, "window": WINDOW, "tile": TILE}
    return SlidingTileAttention(WIDTH, HEADS, **geometry, **settings)


def test_delta_net_is_what_loops_over_tokens_and_heads_give():
    layer = randomised(DeltaNet(WIDTH, HEADS, canvas=(3, 5)))
    x = hidden((3, 5))
    torch.testing.assert_close(layer(x), delta_net_by_hand(layer, x), rtol=1e-9, atol=1e-9)


def test_full_attention_is_what_loops_over_tokens_give():
    layer, x = randomised(Attention(WIDTH, HEADS)), hidden((3, 5))
    expected = attention_by_hand(layer, x, lambda i, j: True)
    torch.testing.assert_close(layer(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("permute", ["io", "qkvo"])
def test_sliding_tile_attention_is_what_loops_over_seen_tokens_give(permute):
    layer, x = randomised(sliding_tile_layer(permute=permute)), hidden(CANVAS, batch=1)
    expected = attention_by_hand(layer, x, sees_on_tiles)
    torch.testing.assert_close(layer(x), expected, rtol=1e-9, atol=1e-9)


def test_a_block_adds_mixer_and_mlp_to_their_normalised_inputs():
    block, x = randomised(Block(Attention(WIDTH, HEADS), WIDTH)), hidden((3, 4))

    def norm(z, module):
        centred = z - z.mean(-1, keepdim=True)
        variance = centred.square().mean(-1, keepdim=True)
        return centred / torch.sqrt(variance + 1e-6) * module.weight + module.bias

    y = x + block.mixer(norm(x, block.mixer_norm))
    up = norm(y, block.mlp_norm) @ block.mlp.up.weight.T + block.mlp.up.bias
    gelu = up * 0.5 * (1 + torch.erf(up / math.sqrt(2)))
    expected = y + gelu @ block.mlp.down.weight.T + block.mlp.down.bias
    torch.testing.assert_close(block(x), expected, rtol=1e-9, atol=1e-9)


def test_parameter_counts_follow_the_formula():
    def count(module):
        return sum(p.numel() for p in module.parameters())

    recurrent = 4 * WIDTH**2 + WIDTH * HEADS + 12 * WIDTH + HEAD_DIM
    assert count(DeltaNet(WIDTH, HEADS, canvas=(4,))) == recurrent
    assert count(Attention(WIDTH, HEADS)) == count(sliding_tile_layer()) == 4 * WIDTH**2
    assert count(MLP(WIDTH)) == 8 * WIDTH**2 + 5 * WIDTH
    assert count(LayerNorm(WIDTH)) == 2 * WIDTH


def test_linear_weights_start_small_and_biases_at_zero():
    torch.manual_seed(0)
    block = Block(DeltaNet(96, 4, canvas=(4,)), 96)
    for module in block.modules():
        if isinstance(module, nn.Linear):
            assert float(module.weight.detach().mean()) == pytest.approx(0.0, abs=0.003)
            assert float(module.weight.detach().std()) == pytest.approx(0.02, rel=0.15)
            assert module.bias is None or not module.bias.any()
    assert float(block.mixer.norm.weight.detach().min()) == 1.0


def test_no_output_of_delta_net_depends_on_a_later_token():
    layer, x = randomised(DeltaNet(WIDTH, HEADS, canvas=(11,))), hidden((11,)).requires_grad_()
    for t in (0, 4, 9):
        (gradient,) = torch.autograd.grad(layer(x)[:, t].sum(), x)
        assert not gradient[:, t + 1 :].any()
        assert gradient[:, t].abs().min() > 0


def test_decoding_token_by_token_gives_the_whole_output():
    layer, x = randomised(DeltaNet(WIDTH, HEADS, canvas=(70,))), hidden((70,))
    whole, cache, stepped = layer(x), layer.empty_cache(2), []
    for t in range(70):
        y, cache = layer.step(x[:, t], cache)
        stepped.append(y)
    torch.testing.assert_close(torch.stack(stepped, 1), whole, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scan", ["cross", "mh2d"])
def test_a_layer_of_triton_kernels_computes_what_the_eager_one_does(scan):
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    layers = [DeltaNet(64, 4, canvas=(3, 4), scan=scan, impl=i) for i in ("triton", "eager")]
    ours, exact = layers[0].to(device), layers[1].to(device).double()
    exact.load_state_dict(ours.state_dict())
    x, gradient = torch.randn(2, 1, 12, 64, device=device)
    results = []
    for layer, dtype in ((ours, torch.float32), (exact, torch.float64)):
        leaf = x.to(dtype).requires_grad_()
        y = layer(leaf)
        leaves = (leaf, *layer.parameters())
        results.append((y, *torch.autograd.grad(y, leaves, gradient.to(dtype))))
    for found, expected in zip(*results, strict=True):
        assert (found.double() - expected).norm() < 1e-3 * expected.norm()


@pytest.mark.parametrize(
    ("recurrence", "around"), [("triton", "triton"), ("fla", "triton"), ("eager", "eager")]
)
def test_scan_convolution_and_norm_follow_the_recurrence(recurrence, around):
    layer = DeltaNet(WIDTH, HEADS, canvas=CANVAS, scan="bi", impl=recurrence)
    parts = layer.conv.impl, layer.norm.impl, layer.split.scan["impl"], layer.merge.scan["impl"]
    assert set(parts) == {around}


@pytest.fixture
def kernels_everywhere(monkeypatch):
    """Modules that run Triton's kernels on CUDA only run them here too."""
    monkeypatch.setattr("ena_kernels.components.runs_triton", lambda impl, x: impl == "triton")


@pytest.mark.parametrize("permute", ["io", "qkvo"])
def test_a_block_computes_the_same_with_kernels_beside_its_mixer(permute, kernels_everywhere):
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    blocks = []
    for impl in ("eager", "triton"):
        block = Block(sliding_tile_layer(permute=permute), WIDTH, impl).to(device)
        block.mixer.tile.impl = block.mixer.untile.impl = impl
        blocks.append(block)
    blocks[1].load_state_dict(blocks[0].state_dict())
    x, gradient = torch.randn(2, 3, math.prod(CANVAS), WIDTH, device=device)
    results = []
    for block in blocks:
        leaf = x.clone().requires_grad_()
        y = block(leaf)
        results.append((y, *torch.autograd.grad(y, (leaf, *block.parameters()), gradient)))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_layer_of_kernels_moves_tokens_by_a_scan():
    layers = {impl: sliding_tile_layer(impl=impl) for impl in ("eager", "triton", "flex")}
    found = {impl: (layer.tile.impl, layer.untile.impl) for impl, layer in layers.items()}
    assert found == {"eager": ("eager",) * 2, "triton": ("triton",) * 2, "flex": ("triton",) * 2}


@pytest.mark.parametrize("has_gradient", [False, True])
def test_a_layer_of_triton_kernels_decodes_token_by_token(has_gradient):
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    layer = DeltaNet(32, 2, canvas=(7,), impl="triton").to(device)
    x = torch.randn(2, 7, 32, device=device)
    with torch.set_grad_enabled(has_gradient):
        whole, cache, stepped = layer(x), layer.empty_cache(2), []
        for t in range(7):
            y, cache = layer.step(x[:, t], cache)
            stepped.append(y)
    assert (torch.stack(stepped, 1) - whole).norm() < 1e-3 * whole.norm()
    assert stepped[-1].requires_grad == has_gradient


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
def test_under_autocast_a_layer_decodes_what_it_computes():
    torch.manual_seed(0)
    layer = DeltaNet(32, 2, canvas=(7,))
    x = torch.randn(2, 7, 32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        whole, cache, stepped = layer(x), layer.empty_cache(2), []
        for t in range(7):
            y, cache = layer.step(x[:, t], cache)
            stepped.append(y)
    assert whole.dtype == torch.bfloat16
    assert (torch.stack(stepped, 1) - whole).norm() < 2e-2 * whole.norm()


def test_decoding_refuses_a_scan_that_needs_the_whole_canvas():
    layer = DeltaNet(WIDTH, HEADS, canvas=(5,), scan="flip")
    with pytest.raises(UnsupportedError, match="scan flip needs the whole canvas"):
        layer.step(torch.zeros(1, WIDTH), layer.empty_cache(1))


def with_scan(uni, scan, canvas, **settings):
    layer = DeltaNet(WIDTH, HEADS, canvas=canvas, scan=scan, **settings).double()
    layer.load_state_dict(uni.state_dict(), strict=scan != "learnable")
    return layer


@pytest.fixture
def uni():
    return randomised(DeltaNet(WIDTH, HEADS, canvas=(3, 4)))


def transposed(x, canvas):
    return x.unflatten(1, canvas).transpose(1, 2).flatten(1, 2)


def test_flip_reads_backwards_and_restores(uni):
    x = hidden((3, 4))
    layer = with_scan(uni, "flip", (3, 4))
    torch.testing.assert_close(layer(x), uni(x.flip(1)).flip(1))


def test_official_bi_leaves_its_second_half_reversed(uni):
    x = hidden((3, 4))
    fixed = with_scan(uni, "bi", (3, 4))
    official = with_scan(uni, "bi", (3, 4), scan_variant="official")
    torch.testing.assert_close(fixed(x), uni(x) + uni(x.flip(1)).flip(1))
    torch.testing.assert_close(official(x), uni(x) + uni(x.flip(1)))


def test_cross_sums_four_orders_with_shared_weights(uni):
    x = hidden((3, 4))
    down = transposed(x, (3, 4))
    expected = (
        uni(x)
        + uni(x.flip(1)).flip(1)
        + transposed(uni(down), (4, 3))
        + transposed(uni(down.flip(1)).flip(1), (4, 3))
    )
    torch.testing.assert_close(with_scan(uni, "cross", (3, 4))(x), expected)


def test_shifts_depend_on_the_layer(uni):
    x = hidden((3, 4))
    layer = with_scan(uni, "1d-shift", (3, 4), layer=5, scan_variant="official")
    torch.testing.assert_close(layer(x), uni(x).roll(5, dims=1))


def test_multi_head_scans_slice_as_many_channels_as_there_are_heads():
    layer = randomised(DeltaNet(8, 4, canvas=(2, 3), scan="mh2d"))
    x = torch.randn(1, 6, 8, dtype=torch.float64)
    assert layer.split.scan["heads"] == layer.merge.scan["heads"] == 4
    seen = layer.split(x, None)
    down = transposed(x, (2, 3))
    for head, order in enumerate((x, down, x.flip(1), down.flip(1))):
        span = slice(2 * head, 2 * head + 2)
        assert torch.equal(seen[..., span], order[..., span])


def test_a_random_scan_is_fresh_at_every_call_and_repeats_with_the_seed(uni):
    x, layer = hidden((3, 4)), with_scan(uni, "random", (3, 4))
    torch.manual_seed(5)
    first, second = layer(x), layer(x)
    assert not torch.allclose(first, second)
    torch.manual_seed(5)
    assert torch.equal(layer(x), first)
    torch.manual_seed(5)
    half = layer.float()(x.float())
    torch.testing.assert_close(half.double(), first, rtol=1e-3, atol=1e-4)


def test_a_learnable_scan_starts_as_the_identity_and_learns(uni):
    x, layer = hidden((3, 4)), with_scan(uni, "learnable", (3, 4))
    torch.manual_seed(0)
    y = layer(x)
    torch.testing.assert_close(y, uni(x), rtol=1e-5, atol=1e-5)
    y.square().sum().backward()
    assert layer.order.logits.shape == (12, 12)
    assert layer.order.logits.grad.any()


ALL_LAYERS = {
    "delta_net": lambda: DeltaNet(WIDTH, HEADS, canvas=CANVAS),
    "learnable": lambda: DeltaNet(WIDTH, HEADS, canvas=CANVAS, scan="learnable"),
    "cross": lambda: DeltaNet(WIDTH, HEADS, canvas=CANVAS, scan="cross"),
    "attention": lambda: Attention(WIDTH, HEADS),
    "io": lambda: sliding_tile_layer(permute="io"),
    "qkvo": lambda: sliding_tile_layer(permute="qkvo"),
}


@pytest.mark.parametrize("name", ALL_LAYERS)
def test_every_parameter_gets_a_gradient(name):
    block = randomised(Block(ALL_LAYERS[name](), WIDTH))
    block(hidden(CANVAS)).square().sum().backward()
    assert [n for n, p in block.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("name", ALL_LAYERS)
def test_every_module_without_children_names_its_component(name):
    block = Block(ALL_LAYERS[name](), WIDTH)
    leaves = [m for m in block.modules() if not list(m.children())]
    assert {getattr(type(leaf), "component", None) for leaf in leaves} <= set(COMPONENTS)
    owned = {p for leaf in leaves for p in leaf.parameters(recurse=False)}
    assert owned == set(block.parameters())


VIEWS = {"aten.view", "aten.detach", "aten.t", "aten.transpose", "aten.unsqueeze", "aten.alias"}


class OutsideLeaves(TorchDispatchMode):
    """Names of the operators that run while no module without children does."""

    def __init__(self, module):
        super().__init__()
        self.depth, self.names = 0, []
        for leaf in (m for m in module.modules() if not list(m.children())):
            leaf.register_forward_pre_hook(lambda *_: self.enter(1))
            leaf.register_forward_hook(lambda *_: self.enter(-1))

    def enter(self, step):
        self.depth += step

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func).rsplit(".", 1)[0]
        if self.depth == 0 and name not in VIEWS:
            self.names.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ALL_LAYERS)
def test_components_account_for_everything_but_the_residual_additions(name):
    block, x = Block(ALL_LAYERS[name](), WIDTH).double(), hidden(CANVAS)
    outside = OutsideLeaves(block)
    with outside:
        block(x)
    assert outside.names == ["aten.add", "aten.add"]


@pytest.mark.parametrize("impl", ["reference", "eager"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_same_weights_agree_across_implementations_and_dtypes(impl, dtype):
    torch.manual_seed(0)
    tiles = {"canvas": CANVAS, "window": WINDOW, "tile": TILE}
    for make in (
        lambda impl: DeltaNet(WIDTH, HEADS, canvas=CANVAS, impl=impl),
        lambda impl: Attention(WIDTH, HEADS, impl=impl),
        lambda impl: SlidingTileAttention(WIDTH, HEADS, **tiles, impl=impl),
    ):
        low, exact = make(impl).to(dtype), make("reference").double()
        exact.load_state_dict(low.state_dict())
        x = hidden(CANVAS).to(dtype)
        expected = exact(x.double())
        error = (low(x).double() - expected).norm() / expected.norm()
        assert error < (2e-5 if dtype == torch.float32 else 2e-2)


def test_one_state_fits_both_places_of_the_permutation():
    around, inside = sliding_tile_layer(permute="io"), sliding_tile_layer(permute="qkvo")
    inside.load_state_dict(around.state_dict())
    x = hidden(CANVAS).float()
    torch.testing.assert_close(around(x), inside(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_layer_norm_keeps_gradients_of_many_tokens_in_half_precision(dtype):
    generator = torch.Generator().manual_seed(2)
    x, gradient = (torch.randn(3000, WIDTH, generator=generator) + 1 for _ in range(2))
    low, exact = LayerNorm(WIDTH).to(dtype), LayerNorm(WIDTH).double()
    low(x.to(dtype)).backward(gradient.to(dtype))
    exact(x.to(dtype).double()).backward(gradient.to(dtype).double())
    for p, q in zip(low.parameters(), exact.parameters(), strict=True):
        assert (p.grad.double() - q.grad).norm() < 5e-3 * q.grad.norm()


@pytest.mark.parametrize("lead", [(2, 35), (3,), ()])
def test_the_gradients_of_a_biased_linear_map_are_pytorchs(lead):
    generator = torch.Generator().manual_seed(4)
    shapes = [(*lead, 6), (5, 6), (5,)]
    leaves = [torch.randn(shape, generator=generator) for shape in shapes]
    exact = [leaf.double().requires_grad_() for leaf in leaves]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    results = []
    for function, inputs in ((BiasedLinear.apply, leaves), (nn.functional.linear, exact)):
        y = function(*inputs)
        first = torch.autograd.grad(y.sin().sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum((grad**2).sum() for grad in first), inputs)
        results.append((y, *first, *second))
    for found, value in zip(*results, strict=True):
        torch.testing.assert_close(found.double(), value, rtol=1e-4, atol=1e-4)


def test_heads_must_divide_the_width():
    for make in (
        lambda: DeltaNet(10, 3, canvas=(4,)),
        lambda: Attention(10, 3),
        lambda: SlidingTileAttention(10, 3, canvas=(4,), window=(2,), tile=(2,)),
    ):
        with pytest.raises(ShapeError, match="model_dim 10 cannot be shared among 3 heads"):
            make()


def test_a_scan_that_cannot_read_the_canvas_is_refused_when_built():
    with pytest.raises(UnsupportedError, match="scan cross has no transposed order"):
        DeltaNet(WIDTH, HEADS, canvas=(12,), scan="cross")


def test_wrong_tiles_and_permutations_are_refused_when_built():
    with pytest.raises(ShapeError, match="not divisible by tile"):
        SlidingTileAttention(WIDTH, HEADS, canvas=(6, 8), window=(2, 3), tile=(2, 3))
    with pytest.raises(ShapeError, match="permute 'none' is unknown"):
        sliding_tile_layer(permute="none")
    with pytest.raises(UnsupportedError, match="impl 'flex' cannot fuse the permutation"):
        sliding_tile_layer(permute="fused", impl="flex")
