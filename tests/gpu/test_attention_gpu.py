"""Full attention on CUDA: every impl against float64, forward and gradients, by its own kernel."""

import pytest
import torch

from ena_kernels import UnsupportedError, attention
from ena_kernels.attention.reference import reference_rows
from tests.gpu.attending import assert_agrees_with_float64, kernels_of

# Compilers and libraries warn about things that are no concern of these tests.
pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore")]

HALF = (torch.bfloat16, torch.float16)
DTYPES = {
    "eager": (*HALF, torch.float32),
    "sdpa_flash": HALF,
    "sdpa_cudnn": HALF,
    "sdpa_math": (*HALF, torch.float32),
    "flex": (*HALF, torch.float32),
    "flex_flash": HALF,
    "flash_attn": HALF,
    "flash_attn_4": HALF,
}
LIBRARIES = {
    "flash_attn": "flash_attn.flash_attn_interface",
    "flash_attn_4": "flash_attn.cute",
    "flex_flash": "flash_attn.cute",
}


def inputs(dtype, *, num_heads=4, num_kv_heads=4, seq_len=333, head_dim=64):
    generator = torch.Generator("cuda").manual_seed(seq_len)
    return [
        torch.randn(2, heads, seq_len, head_dim, generator=generator, device="cuda")
        .to(dtype)
        .requires_grad_()
        for heads in (num_heads, num_kv_heads, num_kv_heads)
    ]


def skip_if_absent(impl):
    if impl in LIBRARIES:
        pytest.importorskip(LIBRARIES[impl])


def skip_if_refused(impl, tensors):
    """Which kernels take shared key heads is for PyTorch to say; refusing is right, too."""
    try:
        attention(*tensors, impl=impl)
    except UnsupportedError as err:
        pytest.skip(str(err))


@pytest.mark.parametrize(
    ("impl", "dtype"), [(impl, dtype) for impl, dtypes in DTYPES.items() for dtype in dtypes]
)
def test_output_and_every_gradient_agree_with_float64(impl, dtype):
    skip_if_absent(impl)
    assert_agrees_with_float64(attention, impl, inputs(dtype), dtype)


@pytest.mark.parametrize("impl", DTYPES)
@pytest.mark.parametrize("head_dim", [40, 128])
def test_other_head_dims_agree_with_float64(impl, head_dim):
    skip_if_absent(impl)
    tensors = inputs(torch.bfloat16, seq_len=270, head_dim=head_dim)
    if head_dim % 64 and LIBRARIES.get(impl) == "flash_attn.cute":
        with pytest.raises(UnsupportedError, match="no gradients to rely on"):
            attention(*tensors, impl=impl)
        return
    assert_agrees_with_float64(attention, impl, tensors, torch.bfloat16)


@pytest.mark.parametrize("impl", DTYPES)
def test_query_heads_that_share_a_key_head_agree_with_float64(impl):
    skip_if_absent(impl)
    tensors = inputs(torch.bfloat16, num_heads=6, num_kv_heads=2, seq_len=290)
    if impl.startswith("sdpa"):
        skip_if_refused(impl, tensors)
    assert_agrees_with_float64(attention, impl, tensors, torch.bfloat16)


@pytest.mark.parametrize("impl", DTYPES)
def test_a_long_sequence_agrees_with_float64_on_sampled_rows(impl):
    skip_if_absent(impl)
    q, k, v = inputs(torch.bfloat16, seq_len=9000)
    rows = [0, 127, 128, 4500, 8999]
    with torch.no_grad():
        actual = attention(q, k, v, impl=impl)[:, :, rows].double()
        expected = reference_rows(q, k, v, rows)
    assert (actual - expected).norm() <= 5e-3 * expected.norm()


@pytest.mark.parametrize("impl", DTYPES)
def test_backward_runs_twice_through_a_kept_graph(impl):
    skip_if_absent(impl)
    q, k, v = inputs(torch.bfloat16, seq_len=256)
    out = attention(q, k, v, impl=impl)
    grad_out = torch.randn_like(out)
    grads = [torch.autograd.grad(out, (q, k, v), grad_out, retain_graph=True) for _ in range(2)]
    for first, second in zip(*grads, strict=True):
        assert (first - second).norm() <= 1e-2 * first.norm()


@pytest.mark.parametrize(
    ("impl", "wanted", "unwanted"),
    [
        ("sdpa_flash", "flash", "cudnn"),
        ("sdpa_cudnn", "cudnn", "pytorch_flash"),
        ("sdpa_math", "softmax", "flash"),
        ("flex", "flex", "softmax"),
        ("flex_flash", "flash", "triton_tem"),
        ("flash_attn", "flash", "cudnn"),
        ("flash_attn_4", "flash", "cudnn"),
        ("eager", "exp", "flash"),
    ],
)
def test_the_kernels_that_run_are_those_the_impl_is_named_after(impl, wanted, unwanted):
    skip_if_absent(impl)
    q, k, v = inputs(torch.bfloat16, seq_len=512)

    def forward_and_backward():
        torch.autograd.grad(attention(q, k, v, impl=impl).sum(), (q, k, v))

    kernels = kernels_of(forward_and_backward)
    assert any(wanted in name for name in kernels), kernels
    assert not any(unwanted in name for name in kernels), kernels


@pytest.mark.parametrize("impl", ["sdpa_flash", "sdpa_cudnn"])
def test_a_kernel_of_pytorch_that_cannot_run_says_why(impl):
    q = torch.randn(1, 2, 33, 64, device="cuda")
    with pytest.raises(UnsupportedError) as caught:
        attention(q, q, q, impl=impl)
    wrong, *_, way_out = str(caught.value).splitlines()
    what, reason = wrong.split(": ", 1)
    assert what == f"impl '{impl}' cannot run q [1, 2, 33, 64] in torch.float32"
    assert "dtype" in reason or reason == f"PyTorch {torch.__version__} does not say why"
    assert way_out == "Try: q, k and v in torch.bfloat16 with a head dim of 64, or impl='eager'"


@pytest.mark.parametrize(
    ("impl", "dtype"), [("flex", torch.float64), ("flash_attn", torch.float32)]
)
def test_a_dtype_without_a_kernel_is_refused(impl, dtype):
    q = torch.randn(1, 2, 33, 64, device="cuda", dtype=dtype)
    with pytest.raises(UnsupportedError, match=r"has no kernel for torch\.float"):
        attention(q, q, q, impl=impl)


def test_eager_keeps_memory_linear_in_tokens():
    peaks = []
    for seq_len in (8192, 16384):
        q, k, v = inputs(torch.bfloat16, num_heads=1, num_kv_heads=1, seq_len=seq_len)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        torch.autograd.grad(attention(q, k, v).sum(), (q, k, v))
        peaks.append(torch.cuda.max_memory_allocated() - before)
    assert peaks[1] < 1.5 * peaks[0]
