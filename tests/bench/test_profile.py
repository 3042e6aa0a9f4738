"""The share of every component is where the time went."""

import gzip
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from bench import profile as profiling
from bench.case import Case
from bench.contenders import Contender
from bench.errors import EnaBenchError, UsageError
from bench.profile import KernelTime, Profile, profile, profile_text, short_name
from bench.workload import Workload, module_workload, normal
from ena_kernels.components import COMPONENTS

CASE = Case(
    level="layer", contender="planted", impl="eager", mode="fwd", canvas=(96,), heads=3, head_dim=5
)
WIDTH = 640


class Product(torch.autograd.Function):
    """A large matrix product, three times, in a function of its own."""

    @staticmethod
    def forward(ctx, weight):
        ctx.save_for_backward(weight)
        return weight @ weight @ weight

    @staticmethod
    def backward(ctx, gradient):
        (weight,) = ctx.saved_tensors
        return gradient @ weight @ weight


def plain_product(weight):
    return weight @ weight @ weight


@torch.compile(backend="aot_eager")
def compiled_product(weight):
    return weight @ weight @ weight


class Slow(nn.Module):
    component = "recurrence"

    def __init__(self, product):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(WIDTH, WIDTH) / WIDTH)
        self.product = product

    def forward(self, x):
        return x + self.product(self.weight).mean()


class Quick(nn.Module):
    component = "mlp"

    def forward(self, x):
        return x * 0.5


class Planted(nn.Module):
    def __init__(self, product):
        super().__init__()
        self.slow, self.quick = Slow(product), Quick()

    def forward(self, x):
        return x + self.quick(self.slow(x))


@pytest.fixture
def plant(monkeypatch):
    """Make a function from case to workload the contender of every case."""

    def plant(build, **limits):
        contender = Contender(level="layer", name="planted", impl="eager", build=build, **limits)
        monkeypatch.setattr(profiling, "lookup", lambda case: contender)

    return plant


@pytest.mark.parametrize("mode", ["fwd", "bwd", "fwdbwd"])
@pytest.mark.parametrize("product", [plain_product, Product.apply, compiled_product])
def test_a_slow_part_gets_most_of_the_time(plant, tmp_path, mode, product):
    plant(lambda case: module_workload(case, lambda: Planted(product)))
    found = profile(CASE.with_(mode=mode), tmp_path, num_calls=2)
    assert found.shares["recurrence"] > 0.8
    assert found.shares["mlp"] > 0
    assert sum(found.shares.values()) == pytest.approx(1)


def test_a_profile_counts_calls_and_leaves_a_trace_and_its_table(plant, tmp_path):
    plant(lambda case: module_workload(case, lambda: Planted(plain_product)))
    found = profile(CASE, tmp_path / "new" / "folder", num_calls=3)
    products = [k for k in found.kernels if k.name == "aten::mm"]
    assert [(k.component, k.launches) for k in products] == [("recurrence", 2)]
    assert found.trace.name == f"{CASE.case_id}.json.gz"
    events = json.loads(gzip.decompress(found.trace.read_bytes()))["traceEvents"]
    assert sum(e.get("name") == "ena::mlp" for e in events) == 3
    assert found.trace.with_name(f"{CASE.case_id}.txt").read_text() == profile_text(found) + "\n"


def test_kernels_come_longest_first_and_add_up(plant, tmp_path):
    plant(lambda case: module_workload(case, lambda: Planted(plain_product)))
    found = profile(CASE, tmp_path, num_calls=2)
    times_us = [k.time_us for k in found.kernels]
    assert times_us == sorted(times_us, reverse=True)
    assert sum(times_us) == pytest.approx(found.time_us)
    assert json.loads(json.dumps(found.to_dict()))["shares"] == found.shares


def test_a_contender_without_modules_is_other_altogether(plant, tmp_path):
    def build(case):
        x = normal(case, 7, 11)
        return Workload(forward=torch.tanh, inputs={"x": x}, reference=lambda leaves: leaves["x"])

    plant(build)
    found = profile(CASE.with_(mode="fwdbwd"), tmp_path, num_calls=2)
    assert found.shares == {**dict.fromkeys(COMPONENTS, 0.0), "other": pytest.approx(1)}
    # gradients are written, not added to those of the call before
    assert not any("add" in k.name for k in found.kernels)


@pytest.mark.parametrize(
    ("contender", "component", "axes"),
    [
        ("attention", "attention", {}),
        ("sliding_tile", "attention", {"tile": (4, 2), "window": (12, 2)}),
        ("delta_rule", "recurrence", {}),
        ("scan", "permutation", {"scan": "flip", "scan_variant": "fixed"}),
    ],
)
def test_an_operator_is_one_component_altogether(tmp_path, contender, component, axes):
    case = Case(
        level="op",
        contender=contender,
        impl="eager",
        mode="fwdbwd",
        canvas=(12, 6),
        heads=3,
        head_dim=16,
        **axes,
    )
    shares = profile(case, tmp_path, num_calls=1).shares
    assert shares[component] == pytest.approx(1)


def test_a_block_of_ena_has_all_components_and_little_else(tmp_path):
    case = Case(
        level="layer",
        contender="ena",
        impl="eager",
        mode="fwdbwd",
        canvas=(12, 16),
        tile=(4, 8),
        window=(12, 8),
        heads=3,
        head_dim=32,
        depth=2,
        scan="flip",
        scan_variant="fixed",
        permute="io",
    )
    shares = profile(case, tmp_path, num_calls=1).shares
    assert all(shares[component] > 0 for component in COMPONENTS)
    assert shares["other"] < 0.5


def test_a_case_that_cannot_run_says_why(plant, tmp_path):
    plant(lambda case: None, modes=("bwd",))
    with pytest.raises(EnaBenchError, match="it is unsupported: eager at level layer runs mode"):
        profile(CASE, tmp_path)


def test_memory_that_runs_out_is_no_bug(plant, tmp_path):
    def build(case):
        raise MemoryError("too large")

    plant(build)
    with pytest.raises(EnaBenchError, match="it is oom: MemoryError: too large") as caught:
        profile(CASE, tmp_path)
    assert isinstance(caught.value.__cause__, MemoryError)


def test_a_bug_keeps_its_traceback(plant, tmp_path):
    plant(lambda case: {}["nothing"])
    with pytest.raises(KeyError):
        profile(CASE, tmp_path)


def test_an_unknown_case_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match=r"contender planted of layer.* is missing here"):
        profile(CASE, tmp_path)


def test_a_profiler_that_sees_no_kernel_is_an_error(plant, tmp_path, monkeypatch):
    def build(case):
        x = normal(case, 2, 3)
        return Workload(forward=torch.tanh, inputs={"x": x}, reference=lambda leaves: leaves["x"])

    plant(build)
    monkeypatch.setattr(profiling, "attributed", lambda *_, **__: iter(()))
    with pytest.raises(EnaBenchError, match="recorded no kernel") as caught:
        profile(CASE, tmp_path, num_calls=1)
    assert caught.value.try_ == "ena-bench doctor"


def a_profile(num_kernels, device):
    kernels = tuple(
        KernelTime(
            name=f"kernel_{i:03d}",
            component="norm",
            launches=2.0,
            time_us=1234.5 / num_kernels,
            share=1 / num_kernels,
        )
        for i in range(num_kernels)
    )
    return Profile(
        case_path="layer/ena/eager/fwd/B1",
        device=device,
        num_calls=5,
        time_us=1234.5,
        kernels=kernels,
        trace=Path("x.json.gz"),
    )


def test_the_table_has_units_all_components_and_the_longest_kernels():
    text = profile_text(a_profile(40, "cuda"))
    assert text.startswith(
        "layer/ena/eager/fwd/B1\n1.23 ms in kernels per call, mean of 5 calls\n\n"
        "component    us_per_call   share\n"
        "projections            0    0.0%\n"
    )
    assert "\nnorm               1,235  100.0%\n" in text
    assert (
        "\nkernel      component    launches  us_per_call   share\n"
        "kernel_000  norm                2         30.9    2.5%\n"
    ) in text
    assert "kernel_024" in text
    assert "\nand 15 more, together 37.5%\n" in text
    assert text.endswith("\ntrace  x.json.gz (open it in https://ui.perfetto.dev)")


def test_a_short_table_names_operators_and_no_rest():
    text = profile_text(a_profile(2, "cpu"))
    assert "1.23 ms in operators per call" in text
    assert "more" not in text
    assert any(line.startswith("operator    component") for line in text.splitlines())


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("aten::mm", "aten::mm"),
        ("Memcpy DtoD (Device -> Device)", "Memcpy DtoD"),
        (
            "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>,"
            " std::array<char*, 3ul> >(int, at::native::CUDAFunctor_add<float>)",
            "vectorized_elementwise_kernel<4, CUDAFunctor_add<fl...r*, 3ul> >",
        ),
        ("void (anonymous namespace)::softmax<(int)4>(float*)", "softmax<(int)4>"),
        ("a" * 40 + "b" * 40 + "c" * 40, "a" * 40 + "b" * 11 + "..." + "c" * 10),
    ],
)
def test_kernel_names_lose_their_noise(name, short):
    assert short_name(name) == short
