"""The Triton delta rule, forward, interpreted in float32 against the reference in float64."""

import pytest
import torch

from ena_kernels.delta_rule import reference
from ena_kernels.errors import UnsupportedError
from tests.ena_kernels.sm90 import compiled

triton_impl = pytest.importorskip("ena_kernels.delta_rule.triton")


def make_inputs(seq_len, dims=(1, 2, 20, 17), *, keys="random", seed=0):
    """q, k, v, beta in (0, 2) with one 0, initial state; float32, stored as [B, L, H, D]."""
    b, h, d, e = dims
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    q, k, v = (draw(b, seq_len, h, x).transpose(1, 2) for x in (d, d, e))
    if keys == "similar":
        k = k + 3 * draw(b, h, 1, d)
    beta = 2 * torch.rand(b, seq_len, h, generator=generator).transpose(1, 2)
    beta[:, :, seq_len // 2] = 0
    return q, k, v, beta, draw(b, h, d, e)


@pytest.mark.parametrize("keys", ["random", "similar"])
@pytest.mark.parametrize("segment_chunks", [None, 1, 2])
@pytest.mark.parametrize("seq_len", [1, 63, 64, 65, 200])
def test_output_and_final_state_match_the_reference(seq_len, segment_chunks, keys):
    *tokens, state = make_inputs(seq_len, keys=keys)
    options = {"scale": 0.3, "output_final_state": True, "qk_l2norm": True}
    actual = triton_impl.forward(
        *tokens, initial_state=state, segment_chunks=segment_chunks, **options
    )
    exact = [x.double() for x in tokens]
    expected = reference.forward(*exact, initial_state=state.double(), **options)
    for x, y in zip(actual, expected, strict=True):
        assert ((x.double() - y).norm() / y.norm()).item() < 1e-5


def test_keys_are_taken_as_they_are_without_the_norm_and_a_state():
    q, k, v, beta, _ = make_inputs(70, (2, 1, 33, 70))
    tokens = (q, torch.nn.functional.normalize(k, dim=-1), v, beta)
    options = {"scale": 1.0, "initial_state": None, "output_final_state": False}
    actual, final = triton_impl.forward(*tokens, qk_l2norm=False, **options)
    expected, _ = reference.forward(*(x.double() for x in tokens), qk_l2norm=False, **options)
    assert ((actual - expected).norm() / expected.norm()).item() < 1e-5
    assert final is None


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda x: x.requires_grad_(), "a gradient is asked for"),
        (lambda x: x.double(), "q is float64"),
        (lambda x: x[..., :8], "head dims 8 and 17"),
    ],
)
def test_what_the_kernels_cannot_do_is_refused(change, text):
    q, *others, _ = make_inputs(3)
    options = {"scale": 1.0, "initial_state": None, "output_final_state": False}
    with pytest.raises(UnsupportedError, match=text):
        triton_impl.forward(change(q), *others, qk_l2norm=False, **options)


def signature(pointers, integers, **others):
    """Argument names to types: strides of tokens are multiples of 16 in the models."""
    floats = ("scalars_ptr", "initial_ptr", "transfer_ptr", "final_ptr")
    types = {x: "*fp32" if x in floats else "*bf16" for x in pointers}
    strides = {f"{x}_stride_{axis}": "i32:16" for x in others["strided"] for axis in "bhl"}
    return types | dict.fromkeys(integers, "i32") | strides


@pytest.mark.parametrize("head_dim", [64, 128])
def test_the_output_kernel_uses_hopper_products_and_spills_nothing(head_dim):
    pointers = ["q", "k", "v", "n", "p", "scalars", "initial", "transfer", "o", "final"]
    integers = ("H", "L", "num_chunks", "num_segments", "segment_chunks", "plane")
    sizes = {"D": head_dim, "DP": head_dim, "E": head_dim, "EP": head_dim, "C": 64, "BLOCK_R": 64}
    binary = compiled(
        module="ena_kernels.delta_rule.forward_kernels",
        kernel="output_kernel",
        signature=signature([f"{x}_ptr" for x in pointers], integers, strided="qkvo"),
        constexprs=sizes | {"PRECISION": "ieee"},
        num_warps=4,
        num_stages=2,
    )
    assert binary.has_hgmma
    assert not binary.has_hmma
    assert binary.local_bytes == 0
