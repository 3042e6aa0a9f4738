"""Names of what ran, from real profiles of small calls and from invented events."""

import json
import sys
import types
import warnings

import pytest
import torch

from bench import fingerprint
from bench.fingerprint import Fingerprint, Kernel, autotune_choices, missing, take
from bench.scopes import scopes


def of(*names: str) -> Fingerprint:
    return Fingerprint(by_time=tuple(Kernel(name=n, count=1, total_us=1.0) for n in names))


def softmax_of_product():
    a = torch.ones(3, 5)
    return (a @ a.mT).softmax(-1)


def test_operators_are_named_by_what_computes_and_not_by_wrappers():
    kernels = take(softmax_of_product, "cpu").kernels
    assert {"aten::mm", "aten::_softmax"} <= set(kernels)
    assert not {"aten::matmul", "aten::softmax", "aten::empty", "aten::as_strided"} & set(kernels)


def test_attention_is_named_by_its_fused_operator():
    q = torch.randn(1, 2, 7, 8)
    ran = take(lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q), "cpu")
    assert missing(ran, ["flash_attention_for_cpu"]) == []


def test_backward_operators_are_seen():
    x = torch.randn(3, 5, requires_grad=True)
    y = (x @ x.mT).softmax(-1).sum()
    ran = take(y.backward, "cpu")
    assert "aten::_softmax_backward_data" in ran.kernels
    assert not [name for name in ran.kernels if "autograd" in name]


def test_launches_are_counted():
    a = torch.ones(3, 5)

    def call():
        for _ in range(4):
            torch.mm(a, a.mT)

    ran = take(call, "cpu")
    assert [(k.name, k.count) for k in ran.by_time] == [("aten::mm", 4)]
    assert ran.num_kernels == 4
    assert ran.by_time[0].total_us > 0


def test_a_call_that_runs_nothing_has_no_kernels():
    ran = take(lambda: None, "cpu")
    assert (ran.kernels, ran.num_kernels) == ([], 0)


def test_a_warning_of_the_profiler_about_further_cycles_is_no_concern(monkeypatch):
    class Profile(torch.profiler.profile):
        def __enter__(self):
            warnings.warn("Warning: Profiler clears events at the end of each cycle.", stacklevel=2)
            return super().__enter__()

    monkeypatch.setattr(torch.profiler, "profile", Profile)
    assert "aten::mm" in take(softmax_of_product, "cpu").kernels


def test_a_warning_of_the_call_is_passed_on():
    with pytest.warns(UserWarning, match="Profiler clears events"):
        take(lambda: warnings.warn("Warning: Profiler clears events", stacklevel=2), "cpu")


def test_custom_operators_are_seen_with_what_they_call():
    library = torch.library.Library("fingerprint_test", "DEF")
    library.define("double(Tensor x) -> Tensor")
    library.impl("double", lambda x: torch.mul(x, 2), "CPU")
    ran = take(lambda: torch.ops.fingerprint_test.double(torch.ones(3)), "cpu")
    assert {"fingerprint_test::double", "aten::mul"} <= set(ran.kernels)


class Event:
    """What the profiler hands out, invented."""

    def __init__(
        self, name, start_ns, end_ns, thread=1, device="CPU", annotation=False, correlation=0
    ):
        self._name, self._start, self._end = name, start_ns, end_ns
        self._correlation = correlation
        self._thread, self._device, self._annotation = thread, device, annotation

    def name(self):
        return self._name

    def start_ns(self):
        return self._start

    def end_ns(self):
        return self._end

    def duration_ns(self):
        return self._end - self._start

    def start_thread_id(self):
        return self._thread

    def device_type(self):
        return getattr(torch.autograd.DeviceType, self._device)

    def correlation_id(self):
        return self._correlation

    def is_user_annotation(self):
        return self._annotation


@pytest.fixture
def profile_of(monkeypatch):
    def profile(device: str, *events: Event) -> Fingerprint:
        monkeypatch.setattr(fingerprint, "profiled_events", lambda call, device: list(events))
        return take(lambda: None, device)

    return profile


def test_time_inside_another_operator_counts_once(profile_of):
    ran = profile_of(
        "cpu",
        Event("aten::_softmax_backward_data", 0, 10_000),
        Event("aten::matmul", 1_000, 9_000),
        Event("aten::mm", 2_000, 5_000),
        Event("aten::copy_", 6_000, 8_000),
        Event("aten::mm", 12_000, 16_000),
        Event("aten::copy_", 3_000, 4_500, thread=2),
    )
    assert [(k.name, k.count, k.total_us) for k in ran.by_time] == [
        ("aten::mm", 2, 7.0),
        ("aten::_softmax_backward_data", 1, 5.0),
        ("aten::copy_", 2, 3.5),
    ]


def test_gpu_kernels_come_longest_total_first_and_host_events_do_not_count(profile_of):
    ran = profile_of(
        "cuda",
        Event("short", 0, 3_000, device="CUDA"),
        Event("long", 3_000, 5_000, device="CUDA"),
        Event("long", 5_000, 7_000, device="CUDA"),
        Event("region", 0, 9_000, device="CUDA", annotation=True),
        Event("cudaLaunchKernel", 0, 9_000),
    )
    assert ran.by_time == (
        Kernel(name="long", count=2, total_us=4.0),
        Kernel(name="short", count=1, total_us=3.0),
    )


def test_a_kernel_counts_to_the_scope_that_was_open_when_it_was_launched(profile_of):
    ran = profile_of(
        "cuda",
        Event("ena::mlp", 10, 50),
        Event("ena::norm", 20, 30),
        Event("ena::attention", 60, 80, thread=2),
        Event("cudaLaunchKernel", 12, 14, correlation=1),
        Event("cuLaunchKernelEx", 22, 24, thread=9, correlation=2),
        Event("cudaMemcpyAsync", 35, 36, correlation=3),
        Event("cudaLaunchKernelExC", 61, 90, thread=9, correlation=4),
        Event("cudaLaunchKernel", 85, 90, correlation=5),
        Event("aten::mm", 12, 14, correlation=4),
        Event("gemm", 500, 4_500, device="CUDA", correlation=1),
        Event("norm", 5_000, 6_000, device="CUDA", correlation=2),
        Event("Memcpy", 6_000, 6_500, device="CUDA", correlation=3),
        Event("flash", 7_000, 15_000, device="CUDA", correlation=4),
        Event("add", 15_000, 15_250, device="CUDA", correlation=5),
        Event("stray", 16_000, 16_125, device="CUDA", correlation=77),
        Event("ena::mlp", 500, 9_000, device="CUDA", annotation=True),
    )
    assert ran.component_us == {"attention": 8.0, "mlp": 4.5, "norm": 1.0, "other": 0.375}
    assert list(ran.component_us) == ["attention", "mlp", "norm", "other"]
    assert "ena::mlp" not in ran.kernels


def test_an_operator_counts_to_the_innermost_scope_with_the_time_spent_in_itself(profile_of):
    ran = profile_of(
        "cpu",
        Event("ena::recurrence", 0, 10_000),
        Event("aten::_softmax_backward_data", 500, 9_000),
        Event("ena::norm", 1_000, 4_000),
        Event("aten::mm", 1_500, 3_500),
        Event("aten::add", 20_000, 21_000),
    )
    assert ran.component_us == {"recurrence": 6.5, "norm": 2.0, "other": 1.0}
    assert "ena::norm" not in ran.kernels


def test_scopes_of_a_real_module_split_forward_and_backward():
    linear, gelu = torch.nn.Linear(16, 24), torch.nn.GELU()
    linear.component, gelu.component = "projections", "mlp"
    block = torch.nn.Sequential(linear, gelu)
    x = torch.randn(32, 16)
    with scopes(block):
        forward = take(lambda: block(x), "cpu").component_us
        both = take(lambda: block(x).sum().backward(), "cpu").component_us
    assert set(forward) == {"projections", "mlp"}
    assert set(both) == {"projections", "mlp", "other"}
    assert min(both.values()) > 0


def test_what_no_scope_encloses_counts_to_the_component_that_was_named():
    assert set(take(softmax_of_product, "cpu", outside="attention").component_us) == {"attention"}
    assert set(take(softmax_of_product, "cpu").component_us) == {"other"}


def test_digest_ignores_order_and_counts():
    once = Fingerprint(
        by_time=(
            Kernel(name="b", count=1, total_us=9.0),
            Kernel(name="a", count=1, total_us=1.0),
        )
    )
    often = Fingerprint(
        by_time=(
            Kernel(name="a", count=5, total_us=3.0),
            Kernel(name="b", count=2, total_us=2.0),
        )
    )
    assert once.digest == often.digest
    assert len(once.digest) == 12


def test_digest_changes_with_the_names():
    assert of("a", "b").digest != of("a").digest
    assert of("matmul_64x128").digest != of("matmul_64x256").digest


def test_digest_leaves_out_the_numbers_of_inductor_only():
    assert of("triton_poi_fused_add_mul_3").digest == of("triton_poi_fused_add_mul_12").digest
    assert of("triton_tem_fused_0").digest != of("triton_red_fused_0").digest
    assert of("my_kernel_3").digest != of("my_kernel_12").digest


def test_missing_lists_patterns_without_a_kernel():
    ran = of("void pytorch_flash::flash_fwd_kernel<...>", "Memset (Device)")
    assert missing(ran, [r"(?i)FLASH_fwd", r"cudnn", r"^flash"]) == [r"cudnn", r"^flash"]
    assert missing(of(), ["x"]) == ["x"]
    assert missing(of(), []) == []


@pytest.fixture
def tuned_module():
    """A loaded module with kernels as libraries write them: tuned, wrapped, and never launched."""
    autotuner = pytest.importorskip("triton.runtime.autotuner")

    class Tuner(autotuner.Autotuner):
        def __init__(self, name):
            self.base_fn = types.SimpleNamespace(__name__=name)

    def tuner(name, **kwargs):
        made = Tuner(name)
        if kwargs:
            made.best_config = autotuner.Config(kwargs, num_warps=8, num_stages=2)
        return made

    module = types.ModuleType("tuned_module_of_this_test")
    module.plain = tuner("scan_kernel_of_this_test", BLOCK_M=64)
    module.wrapped = autotuner.Heuristics(tuner("wrapped_kernel_of_this_test", BLOCK_N=32), [], {})
    module.idle = tuner("idle_kernel_of_this_test")
    module.other = 3
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


def test_autotune_choices_are_those_of_launched_kernels(tuned_module):
    choices = json.loads(autotune_choices())
    ours = {name: value for name, value in choices.items() if name.endswith("of_this_test")}
    assert ours.keys() == {"scan_kernel_of_this_test", "wrapped_kernel_of_this_test"}
    assert ours["scan_kernel_of_this_test"].items() >= {
        ("BLOCK_M", 64),
        ("num_warps", 8),
        ("num_stages", 2),
    }


def test_autotune_choices_of_kernels_that_did_not_run_are_left_out(tuned_module):
    choices = json.loads(autotune_choices(["wrapped_kernel_of_this_test", "Memset"]))
    assert choices.keys() == {"wrapped_kernel_of_this_test"}
    assert autotune_choices(["Memset"]) is None


def test_autotune_choices_are_unknown_without_triton(monkeypatch):
    monkeypatch.delitem(sys.modules, "triton.runtime.autotuner", raising=False)
    assert autotune_choices() is None
