"""Memory, telemetry, fingerprint and machine on a real GPU."""

import json
import time
from functools import partial

import pytest
import torch
import triton
import triton.language as tl
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from bench import fingerprint
from bench.machine import checks, facts, measure_peaks
from bench.memory import MIB, measure_memory
from bench.nvml import current_gpu, own_gpu_mib
from bench.telemetry import Telemetry

pytestmark = pytest.mark.gpu


@triton.autotune(configs=[triton.Config({"BLOCK": 256}), triton.Config({"BLOCK": 512})], key=["n"])
@triton.jit
def instrument_test_double_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    tl.store(out_ptr + offs, 2 * tl.load(x_ptr + offs, mask=mask, other=0.0), mask=mask)


def double(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    n = x.numel()
    instrument_test_double_kernel[lambda meta: (triton.cdiv(n, meta["BLOCK"]),)](x, out, n)
    return out


def mib(num: float) -> int:
    """Elements of float32 in so many MiB."""
    return int(num * MIB / 4)


def used(call, *, parameters=(), inputs=(), reset=None):
    return measure_memory(call, device="cuda", parameters=parameters, inputs=inputs, reset=reset)


def test_a_temporary_that_is_gone_before_the_end_counts_at_the_peak():
    resident = torch.zeros(mib(7), device="cuda")

    def call():
        first = torch.zeros(mib(30), device="cuda")
        second = torch.zeros(mib(20), device="cuda")
        del first, second
        return torch.zeros(mib(10), device="cuda")

    measured = used(call, inputs=[resident])
    assert measured.activations_mib == pytest.approx(50.0, abs=0.01)
    assert measured.peak_memory_mib >= 57.0
    assert measured.inputs_mib == 7.0


def test_gradients_of_an_earlier_call_do_not_hide_those_of_this_one():
    x = torch.ones(mib(24), device="cuda", requires_grad=True)
    y = x * 2.0
    ones = torch.ones_like(y)
    y.backward(ones, retain_graph=True)

    measured = used(
        lambda: y.backward(ones, retain_graph=True),
        parameters=[x],
        reset=lambda: setattr(x, "grad", None),
    )
    assert measured.activations_mib == pytest.approx(24.0, abs=0.01)
    assert measured.parameters_mib == 24.0
    assert x.grad is None


def test_reserved_covers_the_peak_and_not_what_earlier_calls_cached():
    cached = torch.zeros(mib(400), device="cuda")
    del cached
    measured = used(lambda: torch.zeros(mib(30), device="cuda"))
    assert measured.reserved_mib >= measured.peak_memory_mib
    assert measured.reserved_mib < measured.peak_memory_mib + 200


def test_process_memory_includes_the_context():
    held = torch.zeros(mib(64), device="cuda")
    own = own_gpu_mib()
    assert own is None or own > 64
    del held


def test_kernels_are_named_and_counted():
    a, b = (torch.randn(512, 256, device="cuda", dtype=torch.bfloat16) for _ in range(2))

    def call():
        torch.softmax(a @ b.mT, -1)

    call()
    ran = fingerprint.take(call, "cuda")
    assert ran.num_kernels >= 2
    assert fingerprint.missing(ran, ["(?i)softmax"]) == []
    assert fingerprint.missing(ran, ["no_such_kernel"]) == ["no_such_kernel"]
    assert all(kernel.total_us > 0 for kernel in ran.by_time)
    assert fingerprint.take(call, "cuda").digest == ran.digest


def test_another_path_has_another_digest():
    q = torch.randn(1, 4, 512, 64, device="cuda", dtype=torch.bfloat16)
    attend = partial(scaled_dot_product_attention, q, q, q)
    digests = set()
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH):
        with sdpa_kernel(backend):
            attend()
            digests.add(fingerprint.take(attend, "cuda").digest)
    assert len(digests) == 2


def test_autotune_choices_are_those_of_the_kernels_that_ran():
    x = torch.randn(3 * 1000 + 7, device="cuda")
    assert torch.equal(double(x), 2 * x)
    ran = fingerprint.take(lambda: double(x), "cuda")
    assert "instrument_test_double_kernel" in ran.kernels
    choices = json.loads(fingerprint.autotune_choices(ran.kernels))
    assert choices.keys() == {"instrument_test_double_kernel"}
    assert choices["instrument_test_double_kernel"]["BLOCK"] in (256, 512)


def test_telemetry_reads_a_busy_gpu():
    if current_gpu() is None:
        pytest.skip("NVML cannot be asked")
    a = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16)
    with Telemetry("cuda") as telemetry:
        deadline = time.monotonic() + 1.2
        while time.monotonic() < deadline:
            a @ a
            torch.cuda.synchronize()
    summary = telemetry.summary()
    assert summary.num_readings > 10
    assert 100 < summary.sm_clock_mhz_min <= summary.sm_clock_mhz <= summary.sm_clock_mhz_max
    assert 10 < summary.temperature_c < 110
    assert summary.power_w > 50
    assert summary.throttle_reasons is not None


def test_facts_know_the_gpu():
    found = facts()
    assert found.cuda_available
    assert found.gpu_name == torch.cuda.get_device_name()
    assert found.capability == torch.cuda.get_device_capability()
    assert found.l2_bytes > 2**20
    assert {"cuda", "triton"} <= {check.name for check in checks(found)}


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_nothing_ordinary_is_faster_than_the_measured_peak(dtype):
    before = torch.backends.cuda.matmul.fp32_precision
    peaks = measure_peaks("cuda", dtype)
    assert torch.backends.cuda.matmul.fp32_precision == before
    a = torch.randn(6144, 6144, device="cuda", dtype=getattr(torch, dtype))
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for event in (start, end):
        a @ a
        event.record()
    torch.cuda.synchronize()
    tflops_per_s = 2 * 6144**3 / start.elapsed_time(end) / 1e9
    assert 0.05 * peaks.tflops_per_s < tflops_per_s < 1.1 * peaks.tflops_per_s
    assert 100 < peaks.bandwidth_gb_per_s < 20_000
