"""Full attention against explicit loops, on shapes that break every symmetry."""

import itertools
import math
import sys
import warnings
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from ena_kernels.attention import checks, eager, flash_attn, flash_attn_4, flex, flex_flash, sdpa
from ena_kernels.attention.api import attention
from ena_kernels.attention.reference import reference_rows
from ena_kernels.errors import ShapeError, UnsupportedError

B, L, D = 2, 13, 8
EXACT = {"atol": 1e-12, "rtol": 1e-12}
CPU_IMPLS = ["reference", "eager", "sdpa_flash", "sdpa_math"]
HEADS = [(3, 3), (4, 2), (3, 1)]


def inputs(num_heads, num_kv_heads, dtype=torch.float64, seq_len=L, head_dim=D):
    generator = torch.Generator().manual_seed(num_heads)
    return [
        torch.randn(B, heads, seq_len, head_dim, generator=generator).to(dtype).requires_grad_()
        for heads in (num_heads, num_kv_heads, num_kv_heads)
    ]


def query_by_query(q, k, v, scale):
    """The definition, one query at a time, with exponentials and sums spelled out."""
    out = torch.empty_like(q)
    for b, h, i in itertools.product(*map(range, q.shape[:3])):
        key_head = h * k.shape[1] // q.shape[1]
        scores = torch.stack([scale * (q[b, h, i] * key).sum() for key in k[b, key_head]])
        weights = scores.exp() / scores.exp().sum()
        out[b, h, i] = sum(w * value for w, value in zip(weights, v[b, key_head], strict=True))
    return out


def output_and_grads(function, tensors):
    out = function(*tensors)
    grad_out = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out).sin()
    return [out, *torch.autograd.grad(out, tensors, grad_out)]


@pytest.mark.parametrize("impl", CPU_IMPLS)
@pytest.mark.parametrize(("num_heads", "num_kv_heads"), HEADS)
def test_output_and_every_gradient_equal_the_definition(impl, num_heads, num_kv_heads):
    tensors = inputs(num_heads, num_kv_heads)
    expected = output_and_grads(lambda q, k, v: query_by_query(q, k, v, 0.3), tensors)
    actual = output_and_grads(lambda q, k, v: attention(q, k, v, scale=0.3, impl=impl), tensors)
    for got, want in zip(actual, expected, strict=True):
        torch.testing.assert_close(got, want, **EXACT)


@pytest.mark.parametrize("impl", CPU_IMPLS)
def test_default_scale_is_one_over_root_head_dim(impl):
    tensors = inputs(2, 2)
    explicit = attention(*tensors, scale=D**-0.5, impl=impl)
    assert torch.equal(attention(*tensors, impl=impl), explicit)


@pytest.mark.parametrize("impl", CPU_IMPLS)
@pytest.mark.parametrize(
    ("dtype", "forward_limit", "gradient_limit"),
    [
        (torch.float32, 1e-5, 1e-5),
        (torch.bfloat16, 5e-3, 1e-2),
        (torch.float16, 5e-3, 1e-2),
    ],
)
def test_low_precision_stays_within_the_error_budget(impl, dtype, forward_limit, gradient_limit):
    tensors = inputs(4, 2, dtype, seq_len=70, head_dim=40)
    wide = [x.detach().double().requires_grad_() for x in tensors]
    expected = output_and_grads(lambda q, k, v: attention(q, k, v, impl="reference"), wide)
    actual = output_and_grads(lambda q, k, v: attention(q, k, v, impl=impl), tensors)
    assert actual[0].dtype == dtype
    limits = [forward_limit, *[gradient_limit] * 3]
    for got, want, limit in zip(actual, expected, limits, strict=True):
        assert (got.double() - want).norm() <= limit * want.norm()


def test_reference_computes_in_float32_and_rounds_once():
    tensors = inputs(4, 2, torch.bfloat16, seq_len=70)
    expected = attention(*(x.double() for x in tensors), impl="reference")
    assert (attention(*tensors, impl="reference") - expected).norm() <= 2e-3 * expected.norm()


@pytest.mark.parametrize("impl", ["reference", "eager"])
def test_large_scores_do_not_overflow(impl):
    tensors = inputs(2, 2, torch.float32)
    wide = [x.detach().double().requires_grad_() for x in tensors]
    expected = output_and_grads(lambda q, k, v: attention(300 * q, k, v, impl="reference"), wide)
    actual = output_and_grads(lambda q, k, v: attention(300 * q, k, v, impl=impl), tensors)
    for got, want in zip(actual, expected, strict=True):
        assert (got.double() - want).norm() <= 1e-3 * want.norm()


def test_eager_in_blocks_of_one_query_gives_the_same_result(monkeypatch):
    tensors = inputs(4, 2)
    whole = output_and_grads(attention, tensors)
    monkeypatch.setitem(eager.SCORE_BYTES, "cpu", 1)
    for got, want in zip(output_and_grads(attention, tensors), whole, strict=True):
        torch.testing.assert_close(got, want, **EXACT)


def test_eager_sums_gradients_over_blocks_in_float32(monkeypatch):
    tensors = inputs(3, 3, torch.bfloat16, seq_len=300)
    wide = [x.detach().double().requires_grad_() for x in tensors]
    monkeypatch.setitem(eager.SCORE_BYTES, "cpu", 1)
    expected = output_and_grads(lambda q, k, v: attention(q, k, v, impl="reference"), wide)
    for got, want in zip(output_and_grads(attention, tensors), expected, strict=True):
        assert (got.double() - want).norm() <= 1e-2 * want.norm()


def test_eager_holds_the_scores_of_one_block_only(monkeypatch):
    sizes = []
    scores = eager._scores

    def spy(q, k, scale):
        block = scores(q, k, scale)
        sizes.append(block.numel() * block.element_size())
        return block

    monkeypatch.setattr(eager, "_scores", spy)
    monkeypatch.setitem(eager.SCORE_BYTES, "cpu", 3000)
    q, k, v = inputs(3, 3, torch.float32, seq_len=23)
    torch.autograd.grad(attention(q, k, v).sum(), (q, k, v))
    assert len(sizes) == 2 * math.ceil(23 / 5)
    assert max(sizes) == B * 3 * 5 * 23 * 4


@pytest.mark.parametrize("impl", CPU_IMPLS)
def test_backward_runs_twice_through_a_kept_graph(impl):
    q, k, v = inputs(4, 2)
    out = attention(q, k, v, impl=impl)
    grads = [torch.autograd.grad(out.sum(), (q, k, v), retain_graph=True) for _ in range(2)]
    for first, second in zip(*grads, strict=True):
        torch.testing.assert_close(first, second, **EXACT)


@pytest.mark.parametrize("impl", CPU_IMPLS)
def test_transposed_inputs_are_read_through_their_strides(impl):
    tensors = inputs(4, 2)
    strided = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in tensors]
    torch.testing.assert_close(
        attention(*strided, impl=impl), attention(*tensors, impl=impl), **EXACT
    )


@pytest.mark.parametrize(("num_heads", "num_kv_heads"), HEADS)
def test_reference_rows_are_rows_of_the_whole_result(num_heads, num_kv_heads):
    tensors = inputs(num_heads, num_kv_heads, torch.float32)
    whole = attention(*(x.double() for x in tensors), scale=0.7, impl="reference")
    rows = reference_rows(*tensors, [L - 1, 0, 5], scale=0.7)
    assert rows.dtype == torch.float64
    torch.testing.assert_close(rows, whole[:, :, [L - 1, 0, 5]], **EXACT)


def test_reference_rows_scale_by_one_over_root_head_dim_unless_told():
    tensors = inputs(2, 2)
    torch.testing.assert_close(
        reference_rows(*tensors, [4]), attention(*tensors)[:, :, [4]], **EXACT
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("impl", "operator"),
    [
        ("sdpa_flash", "aten::_scaled_dot_product_flash_attention_for_cpu"),
        ("sdpa_math", "aten::_scaled_dot_product_attention_math"),
    ],
)
def test_sdpa_runs_the_one_kernel_it_is_named_after(impl, operator):
    tensors = inputs(2, 2, torch.float32)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        attention(*tensors, impl=impl)
    kernels = {event.name for event in profiler.events()}
    fused = {name for name in kernels if name.startswith("aten::_scaled_dot_product")}
    assert fused == {operator}


def test_sdpa_repeats_the_reasons_pytorch_gives_for_refusing():
    def refuses(_params, debug):
        if debug:
            warnings.warn("head dim is odd (Triggered internally at a.cpp:1)", stacklevel=1)
            warnings.warn("and it is Monday (Triggered internally at a.cpp:2)", stacklevel=1)
        return False

    q, k, v = inputs(2, 2)
    with pytest.raises(UnsupportedError) as caught:
        sdpa._check_cuda(q, k, v, False, refuses, "sdpa_cudnn")
    wrong = str(caught.value).splitlines()[0]
    assert wrong == (
        "impl 'sdpa_cudnn' cannot run q [2, 2, 13, 8] in torch.float64: "
        "head dim is odd and it is Monday"
    )


def test_sdpa_asks_pytorch_about_the_tensors_at_hand():
    asked = []

    def accepts(params, debug):
        asked.append((params.query.shape, params.key.shape, params.enable_gqa, debug))
        return True

    q, k, v = inputs(4, 2)
    sdpa._check_cuda(q, k, v, True, accepts, "sdpa_flash")
    assert asked == [((B, 4, L, D), (B, 2, L, D), True, False)]


def loop_in_library_layout(q, k, v, scale):
    """[B, L, H, D] in and out, and a log-sum-exp [B, H, L]."""
    assert q.shape[1] == L
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return query_by_query(q, k, v, scale).transpose(1, 2), torch.zeros(q.shape[:3])


def library_2(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False):
    assert dropout_p == 0.0
    assert not causal
    return loop_in_library_layout(q, k, v, softmax_scale)[0]


def library_4(q, k, v, qv=None, softmax_scale=None, causal=False):
    assert qv is None
    assert not causal
    return loop_in_library_layout(q, k, v, softmax_scale)


@pytest.fixture
def flash_attn_on_cpu(monkeypatch):
    """Pretend that a GPU of some capability is there and that float64 has a kernel.

    The returned function installs libraries: name of the module to its function, or None.
    """
    for module in (flash_attn, flash_attn_4):
        monkeypatch.setattr(module, "require_cuda", lambda q, impl: None)
    monkeypatch.setattr(flash_attn, "DTYPES", (torch.float64,))
    monkeypatch.setattr(flash_attn_4, "GRADIENT_HEAD_DIM", 1)

    def install(capability=(9, 0), **functions):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100")
        for name in ("flash_attn", "flash_attn.cute"):
            function = functions.get(name.rpartition(".")[2])
            module = ModuleType(name)
            module.__path__ = []
            module.flash_attn_func = function
            monkeypatch.setitem(sys.modules, name, module if function else None)

    return install


def never(*_, **__):
    raise AssertionError("the other library was called")


@pytest.mark.parametrize(
    ("impl", "libraries"),
    [
        ("flash_attn", {"flash_attn": library_2, "cute": never}),
        ("flash_attn_4", {"flash_attn": never, "cute": library_4}),
        ("flash_attn_4", {"flash_attn": never, "cute": library_2}),
    ],
    ids=["2", "4-with-lse", "4-without-lse"],
)
@pytest.mark.parametrize(("num_heads", "num_kv_heads"), HEADS)
def test_flash_attn_adapters_equal_the_definition(
    flash_attn_on_cpu, impl, libraries, num_heads, num_kv_heads
):
    flash_attn_on_cpu(**libraries)
    tensors = inputs(num_heads, num_kv_heads)
    expected = output_and_grads(lambda q, k, v: query_by_query(q, k, v, 0.3), tensors)
    actual = output_and_grads(lambda q, k, v: attention(q, k, v, scale=0.3, impl=impl), tensors)
    for got, want in zip(actual, expected, strict=True):
        torch.testing.assert_close(got, want, **EXACT)


@pytest.mark.parametrize(
    ("impl", "module", "install"),
    [
        ("flash_attn", "flash_attn", "flash-attn"),
        ("flash_attn_4", "flash_attn.cute", "flash-attn-4"),
    ],
)
def test_a_flash_attn_that_is_not_installed_is_answered_with_how_to(
    flash_attn_on_cpu, impl, module, install
):
    flash_attn_on_cpu()
    with pytest.raises(UnsupportedError, match=f"needs the library {module},") as caught:
        attention(*inputs(2, 2), impl=impl)
    assert str(caught.value).endswith(f"Try: pip install {install}")


@pytest.mark.parametrize("impl", ["flash_attn_4", "flex_flash"])
def test_gradients_of_flash_attn_4_are_refused_where_they_may_be_wrong(
    flash_attn_on_cpu, monkeypatch, impl
):
    flash_attn_on_cpu(cute=library_4)
    monkeypatch.setattr(flash_attn_4, "GRADIENT_HEAD_DIM", 64)
    with pytest.raises(UnsupportedError, match=f"{impl!r} has no gradients to rely on .* 40"):
        attention(*inputs(2, 2, head_dim=40), impl=impl)
    with torch.no_grad():
        assert attention(*inputs(2, 2, head_dim=40), impl="flash_attn_4").shape[-1] == 40


def test_flash_attn_4_refuses_a_gpu_older_than_hopper(flash_attn_on_cpu):
    flash_attn_on_cpu((8, 9), cute=library_4)
    with pytest.raises(UnsupportedError, match="no kernel for NVIDIA A100") as caught:
        attention(*inputs(2, 2), impl="flash_attn_4")
    assert "impl='flash_attn'" in str(caught.value)


@pytest.fixture
def flex_flash_on_cpu(monkeypatch, flash_attn_on_cpu):
    """A Hopper GPU and flash-attn-4 pretended; what FlexAttention is asked for, in a list."""
    flash_attn_on_cpu(flash_attn=never, cute=never)
    for module in (flex, flex_flash):
        monkeypatch.setattr(module, "DTYPES", (torch.float64,))
    monkeypatch.setattr(flex.shutil, "which", lambda name: name)
    asked = []

    def compiled(q, k, v, *, scale, **options):
        asked.append(options)
        return query_by_query(q, k, v, scale)

    monkeypatch.setattr(flex, "_compiled", lambda: compiled)
    return asked


def test_flex_flash_asks_flex_attention_for_the_kernels_of_flash_attn_4(flex_flash_on_cpu):
    tensors = [x.detach() for x in inputs(4, 2, head_dim=24)]
    actual = attention(*tensors, scale=0.3, impl="flex_flash")
    torch.testing.assert_close(actual, query_by_query(*tensors, 0.3), **EXACT)
    assert flex_flash_on_cpu == [{"block_mask": None, "enable_gqa": True, "backend": "FLASH"}]


@pytest.mark.parametrize("head_dim", [8, 20, 136])
def test_flex_flash_refuses_head_dims_without_a_kernel(flex_flash_on_cpu, head_dim):
    with pytest.raises(
        UnsupportedError, match=f"'flex_flash' has no kernel for head dim {head_dim}"
    ):
        attention(*inputs(2, 2, head_dim=head_dim), impl="flex_flash")
    assert flex_flash_on_cpu == []


def test_flex_flash_refuses_float32(flash_attn_on_cpu):
    flash_attn_on_cpu(cute=never)
    with pytest.raises(UnsupportedError, match=r"'flex_flash' has no kernel for torch.float32"):
        attention(*inputs(2, 2, torch.float32), impl="flex_flash")


def test_flex_flash_refuses_a_gpu_older_than_hopper(flash_attn_on_cpu):
    flash_attn_on_cpu((8, 9), cute=never)
    with pytest.raises(UnsupportedError, match="'flex_flash' has no kernel for NVIDIA A100"):
        attention(*inputs(2, 2), impl="flex_flash")


def test_flex_flash_without_flash_attn_4_says_how_to_install_it(monkeypatch, flash_attn_on_cpu):
    flash_attn_on_cpu()
    monkeypatch.setattr(flex_flash, "DTYPES", (torch.float64,))
    with pytest.raises(UnsupportedError, match=r"needs the library flash_attn\.cute,") as caught:
        attention(*inputs(2, 2, head_dim=16), impl="flex_flash")
    assert str(caught.value).endswith("Try: pip install flash-attn-4")


def test_a_backend_of_flex_attention_is_asked_for_on_cuda_only(monkeypatch):
    seen = []
    monkeypatch.setattr(
        torch, "compile", lambda function, **_: lambda q, k, v, **options: seen.append(options)
    )
    compiled = flex._Compiled()
    on_cpu = torch.zeros(1, 2, 33, 16)
    on_cuda = SimpleNamespace(is_cuda=True, stride=lambda: (), shape=(), dtype=None, device="cuda")
    on_cuda.requires_grad = False
    for x in (on_cpu, on_cuda):
        compiled(x, x, x, block_mask=None, scale=1.0, enable_gqa=False, backend="FLASH")
    assert "kernel_options" not in seen[0]
    assert seen[1]["kernel_options"] == {"BACKEND": "FLASH"}


@pytest.mark.parametrize("failure", ["ImportError", "OSError", "AttributeError", "RuntimeError"])
def test_a_library_that_breaks_on_import_says_how(monkeypatch, tmp_path, failure):
    (tmp_path / "broken_library.py").write_text(f"raise {failure}('undefined symbol\\nmore')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnsupportedError) as caught:
        checks.library("broken_library", impl="broken", install="broken-library")
    assert str(caught.value).splitlines() == [
        "impl 'broken' needs the library broken_library, which cannot be imported: "
        f"{failure}: undefined symbol",
        "Expected: broken_library installed for this Python, PyTorch and CUDA",
        "Try: pip install broken-library",
    ]


@pytest.mark.parametrize("head_dim", [12, 264])
def test_flash_attn_refuses_head_dims_without_a_kernel(flash_attn_on_cpu, head_dim):
    flash_attn_on_cpu(flash_attn=library_2)
    with pytest.raises(UnsupportedError, match=f"no kernel for head dim {head_dim}"):
        attention(*inputs(2, 2, head_dim=head_dim), impl="flash_attn")


def test_flash_attn_refuses_float32(monkeypatch):
    monkeypatch.setattr(flash_attn, "require_cuda", lambda q, impl: None)
    with pytest.raises(UnsupportedError, match=r"no kernel for torch.float32") as caught:
        attention(*inputs(2, 2, torch.float32), impl="flash_attn")
    assert "one of torch.float16, torch.bfloat16" in str(caught.value)


@pytest.mark.parametrize("impl", ["flash_attn", "flash_attn_4", "flex_flash", "sdpa_cudnn"])
def test_impls_for_cuda_refuse_tensors_on_the_cpu(impl):
    with pytest.raises(UnsupportedError, match=f"impl '{impl}' has no kernel for cpu tensors"):
        attention(*inputs(2, 2, torch.float16), impl=impl)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        (inputs(2, 2), "no kernel for torch.float64"),
        (inputs(2, 2, torch.float32), "no backward on a CPU"),
    ],
)
def test_flex_refuses_what_it_has_no_kernel_for(tensors, words):
    with pytest.raises(UnsupportedError, match=words):
        attention(*tensors, impl="flex")


def test_flex_refuses_head_dims_below_sixteen_on_cuda():
    q = torch.zeros(1, 2, 3, 8, device="meta")
    with pytest.raises(UnsupportedError, match="no kernel for head dim 8"):
        flex.run(q, q, q, scale=1.0, block_mask=None)


def test_flex_compiles_every_shape_and_may_run_its_backward_twice():
    import torch._dynamo
    import torch._functorch.config

    dynamo = torch._dynamo.config
    before = dynamo.recompile_limit, torch._functorch.config.donated_buffer
    with flex._compile_settings():
        assert dynamo.recompile_limit == flex.MAX_COMPILED_VARIANTS
        assert dynamo.fail_on_recompile_limit_hit
        assert not torch._functorch.config.donated_buffer
    assert (dynamo.recompile_limit, torch._functorch.config.donated_buffer) == before


def test_flex_enters_its_compiler_settings_only_for_a_new_layout(monkeypatch):
    entered = []
    settings = flex._compile_settings

    def spy():
        entered.append(True)
        return settings()

    monkeypatch.setattr(flex, "_compile_settings", spy)
    monkeypatch.setattr(torch, "compile", lambda function, **_: lambda q, k, v, **options: q)
    compiled = flex._Compiled()
    q = torch.zeros(1, 2, 33, 16)
    strided = torch.zeros(1, 33, 2, 16).transpose(1, 2)
    options = {"block_mask": None, "scale": 1.0, "enable_gqa": False}
    for x in (q, q + 1, q.half(), q.clone().requires_grad_(), q.half(), q[:, :1], strided):
        compiled(x, x, x, **options)
    compiled(q, q, q, **{**options, "scale": 2.0})
    with torch.no_grad():
        compiled(q, q, q, **options)
    assert len(entered) == 7


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_flex_compiled_for_the_cpu_equals_the_reference():
    for seq_len in (70, 150):
        tensors = inputs(4, 2, torch.float32, seq_len, head_dim=16)
        with torch.no_grad():
            actual = attention(*tensors, scale=0.3, impl="flex")
        expected = attention(*(x.double() for x in tensors), scale=0.3, impl="reference")
        assert (actual.double() - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_flex_never_runs_eagerly_when_it_may_not_compile_again(monkeypatch):
    from torch._dynamo.exc import FailOnRecompileLimitHit

    flex._compiled.cache_clear()
    torch._dynamo.reset()
    monkeypatch.setattr(flex, "MAX_COMPILED_VARIANTS", 1)
    with torch.no_grad():
        attention(*inputs(2, 2, torch.float32, seq_len=80, head_dim=16), impl="flex")
        with pytest.raises(FailOnRecompileLimitHit):
            attention(*inputs(2, 2, torch.float32, seq_len=90, head_dim=16), impl="flex")
    torch._dynamo.reset()


def test_wrong_shapes_are_refused_before_any_impl_is_loaded():
    q, k, v = inputs(4, 3)
    with pytest.raises(ShapeError, match=r"k is \[2, 3, 13, 8\]"):
        attention(q, k, v, impl="flash_attn")
    with pytest.raises(ShapeError, match="scale is nan"):
        attention(q, q, q, scale=math.nan)
