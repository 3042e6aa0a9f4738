"""A case from beginning to end: a number only where everything about it holds."""

import gc
import json
import math
import weakref
from dataclasses import asdict, replace

import pytest
import torch
from torch import nn

from bench import contenders, fingerprint, machine, measurement
from bench.case import Case
from bench.contenders import Contender
from bench.cost import cost
from bench.errors import UsageError
from bench.machine import Peaks
from bench.outcome import Fallback, Incorrect, Unsupported
from bench.timing import Settings
from bench.workload import SpotCheck, Workload, module_workload, normal, relative_error
from ena_kernels.components import COMPONENTS

SETTINGS = Settings(warmup_s=0.001, budget_s=0.02, min_samples=7, max_samples=11, seed=5)
PEAKS = Peaks(tflops_per_s=1e6, bandwidth_gb_per_s=1e9)
DOUBLE = Case(
    level="op",
    contender="double",
    impl="eager",
    mode="fwd",
    canvas=(7,),
    batch=3,
    heads=2,
    head_dim=5,
)
ATTENTION = Case(
    level="op",
    contender="attention",
    impl="sdpa_flash",
    mode="fwdbwd",
    canvas=(5, 7),
    batch=3,
    heads=2,
    head_dim=16,
)
ENA = Case(
    level="layer",
    contender="ena",
    impl="eager",
    mode="fwd",
    canvas=(6, 8),
    batch=2,
    heads=3,
    head_dim=8,
    depth=2,
    tile=(3, 4),
    sparsity_target=0.5,
    scan="uni",
    scan_variant="fixed",
    interleave="linear-first",
    permute="io",
)
MIB = 2**20


@pytest.fixture(scope="module")
def facts():
    return machine.facts()


@pytest.fixture(scope="module")
def call(facts):
    """Measure or check a case; the phases it went through are in `call.phases`."""

    def run(case, *, what=measurement.measure, settings=SETTINGS, peaks=PEAKS):
        run.phases, run.estimates = [], []

        def say(phase, values):
            (run.estimates if values else run.phases).append((phase, dict(values)))

        try:
            return what(case, settings, machine=facts, peaks=peaks, round=2, run_id="here", say=say)
        finally:
            run.phases = [phase for phase, _ in run.phases]

    return run


def doubled(x):
    return 2 * x


class Counted:
    """A forward of its own for every workload, which knows how often it was called."""

    def __init__(self, rule):
        self.rule = rule
        self.num_calls = 0

    def __call__(self, x):
        self.num_calls += 1
        return self.rule(self, x)


@pytest.fixture
def plant(monkeypatch):
    """Register a contender that doubles its input by the given rule; full size is checked."""
    monkeypatch.setattr(measurement, "CHEAP_CHECK_S", math.inf)

    def plant(rule=lambda self, x: doubled(x), **changes):
        made = []

        def build(case):
            x = normal(case, case.batch, case.seq_len, case.head_dim)

            def spot_check(output):
                spot_check.num_calls += 1
                exact = doubled(x.detach().double())
                return SpotCheck(error=relative_error(output, exact), part="full")

            spot_check.num_calls = 0
            workload = Workload(
                forward=Counted(rule),
                inputs={"x": x},
                reference=lambda leaves: doubled(leaves["x"]),
                spot_check=spot_check,
            )
            made.append((case, workload))
            return workload

        kind = {"level": "op", "name": "double", "impl": "eager", "build": build}
        planted = Contender(**kind | changes)
        monkeypatch.setattr(contenders, "registry", lambda: {contenders._key(planted): planted})
        return made

    return plant


@pytest.fixture(scope="module")
def row(call):
    measured = call(ATTENTION)
    return measured, call.phases, call.estimates


def test_a_row_says_what_was_measured_where_and_in_which_visit(row, facts):
    measured, phases, _ = row
    assert measured.status == "ok"
    assert measured.reason is None
    assert (measured.run_id, measured.round, measured.seed) == ("here", 2, 5)
    assert (measured.case_id, measured.canvas) == (ATTENTION.case_id, "5x7")
    assert (measured.seq_len, measured.ndim) == (35, 2)
    assert (measured.torch, measured.host_id) == (torch.__version__, facts.host_id)
    assert measured.device_name == facts.cpu_name
    assert phases == [
        "build",
        "first call",
        "verify",
        "kernels",
        "memory",
        "time",
        "verify again",
    ]


def test_times_are_those_of_the_samples(row):
    measured, _, estimates = row
    samples = measured.samples_ms
    assert 7 <= len(samples) <= 11
    assert len(measured.outliers) == len(samples)
    assert sorted(samples)[(len(samples) - 1) // 2] <= measured.latency_ms
    assert measured.latency_ms <= sorted(samples)[len(samples) // 2]
    assert 0 < measured.latency_ms_lo <= measured.latency_ms <= measured.latency_ms_hi
    assert min(samples) <= measured.latency_ms_p05 <= measured.latency_ms_p95 <= max(samples)
    assert measured.timer == "wall"
    assert measured.wall_ms == measured.latency_ms
    assert measured.wall_samples_ms == samples
    assert measured.stop_reason in ("converged", "budget")
    assert measured.num_warmup > 0
    assert measured.calls_per_sample >= 1
    assert measured.setup_ms > 0
    assert measured.compile_ms > 0
    assert [values["latency_ms"] for _, values in estimates] == samples
    assert [values["num_samples"] for _, values in estimates] == [*range(1, len(samples) + 1)]


def test_rates_follow_from_the_latency(row):
    measured = row[0]
    seconds = measured.latency_ms / 1e3
    counted = cost(ATTENTION)
    assert measured.tokens_per_s == pytest.approx(3 * 35 / seconds)
    assert measured.flops == counted.flops
    assert measured.flops_computed == counted.flops_computed
    assert measured.flops_dense == counted.flops_dense
    assert measured.bytes == counted.bytes
    assert measured.tflops_per_s == pytest.approx(counted.flops / seconds / 1e12)
    assert measured.bandwidth_gb_per_s == pytest.approx(counted.bytes / seconds / 1e9)
    assert measured.peak_tflops_per_s == 1e6
    assert measured.peak_bandwidth_gb_per_s == 1e9
    assert measured.peak_flops_fraction == pytest.approx(measured.tflops_per_s / 1e6)
    assert measured.peak_bandwidth_fraction == pytest.approx(measured.bandwidth_gb_per_s / 1e9)


def test_the_errors_are_finite_and_within_their_budget(row):
    measured = row[0]
    assert measured.verified == "twin+sampled"
    assert 0 < measured.error_forward < 1e-5
    assert 0 < measured.error_gradient < 1e-4
    assert measured.worst_gradient in ("q", "k", "v")
    used = max(measured.error_forward / 1e-5, measured.error_gradient / 1e-4)
    assert measured.error_budget_used == pytest.approx(used)


def test_the_kernels_that_ran_are_kept(row):
    measured = row[0]
    assert any("flash_attention_for_cpu_backward" in name for name in measured.kernels)
    assert measured.num_kernels >= len(measured.kernels)
    assert len(measured.kernel_fingerprint) == 12


def test_the_time_of_an_operator_is_all_of_one_component(row):
    (name, time_ms), *others = json.loads(row[0].component_ms).items()
    assert (name, others) == ("attention", [])
    assert 0 < time_ms < 1e3


def test_the_time_of_a_layer_is_split_among_its_components(call):
    shares = json.loads(call(ENA.with_(mode="fwdbwd")).component_ms)
    assert set(shares) == {*COMPONENTS, "other"}
    assert min(shares.values()) > 0
    assert list(shares.values()) == sorted(shares.values(), reverse=True)


def test_of_profiled_calls_the_fastest_counts(call, monkeypatch):
    times_us = iter([900.0, 300.0, 500.0])
    real = fingerprint.take

    def take(run, device, *, outside):
        ran = real(run, device, outside=outside)
        return replace(ran, component_us={"attention": next(times_us)})

    monkeypatch.setattr(fingerprint, "take", take)
    assert json.loads(call(ATTENTION).component_ms) == {"attention": 0.3}


def test_a_slow_call_is_profiled_once(call, monkeypatch):
    monkeypatch.setattr(measurement, "CHEAP_CHECK_S", -1.0)
    calls = []
    real = fingerprint.take
    monkeypatch.setattr(
        fingerprint, "take", lambda *args, **more: calls.append(args) or real(*args, **more)
    )
    call(ATTENTION)
    assert len(calls) == 1


def test_a_backward_alone_has_no_components(call):
    assert call(ENA.with_(mode="bwd")).component_ms is None
    assert json.loads(call(ATTENTION.with_(mode="bwd")).component_ms).keys() == {"attention"}


def test_the_number_of_threads_is_kept(row):
    assert row[0].num_threads == torch.get_num_threads()


def test_memory_is_split_into_what_holds_it(row, call):
    of_op = row[0]
    size = 3 * 2 * 35 * 16 * 4 / MIB
    assert of_op.parameters_mib == 0
    assert of_op.inputs_mib == pytest.approx(3 * size)
    assert of_op.activations_mib >= 4 * size, "an output and three gradients"
    of_layer = call(ENA)
    for measured in (of_op, of_layer):
        resident = measured.parameters_mib + measured.inputs_mib
        assert measured.peak_memory_mib == pytest.approx(resident + measured.activations_mib)
        assert measured.process_mib > measured.peak_memory_mib
    assert of_layer.inputs_mib == pytest.approx(2 * 48 * 24 * 4 / MIB)
    assert of_layer.parameters_mib > 24 * 24 * 4 / MIB
    assert of_layer.verified == "twin+full"


@pytest.mark.parametrize("mode", ["fwd", "bwd", "fwdbwd", "step"])
def test_every_mode_of_a_model_ends_well(call, mode):
    measured = call(ENA.with_(level="model", mode=mode))
    assert measured.status == "ok"
    assert any("adamw" in name for name in measured.kernels) == (mode == "step")
    assert any("backward" in name for name in measured.kernels) == (mode != "fwd")


def test_without_peaks_and_without_a_cost_a_row_is_shorter(call, plant):
    assert call(ATTENTION, peaks=None).peak_flops_fraction is None
    plant()
    measured = call(DOUBLE)
    assert measured.tokens_per_s == pytest.approx(21 / measured.latency_ms * 1e3)
    assert measured.flops is measured.tflops_per_s is measured.peak_tflops_per_s is None


def test_absent_kernels_are_a_fallback(call, plant):
    made = plant(kernels=(("cpu", ("aten::mul", "my_kernel_v[23]")),))
    with pytest.raises(Fallback, match=r"no kernel matches 'my_kernel_v\[23\]'.*aten::mul"):
        call(DOUBLE)
    assert call.phases[-1] == "kernels"
    assert made
    plant(kernels=(("cpu", ("aten::mul",)), ("cuda", ("my_kernel",))))
    assert call(DOUBLE).status == "ok"


@pytest.mark.parametrize(
    ("rule", "reason", "phase"),
    [
        (lambda self, x: 2.5 * x, r"output differs from float64 by 2.50e-01.*twin", "verify"),
        (lambda self, x: 2 * x.detach() + (x - x.detach()), "gradient of x differs", "verify"),
        (lambda self, x: 2 * x if len(x) == 2 else 2.5 * x, "full of the full size", "verify"),
        (lambda self, x: 2 * x / (len(x) == 2), "NaN or infinity", "verify"),
        (lambda self, x: 2 * x[: len(x) - 1], "shape", "verify"),
    ],
)
def test_a_wrong_contender_is_incorrect_before_it_is_timed(call, plant, rule, reason, phase):
    plant(rule)
    with pytest.raises(Incorrect, match=reason):
        call(DOUBLE)
    assert call.phases[-1] == phase
    assert call.estimates == []


def test_an_output_that_changes_while_timing_is_incorrect(call, plant):
    made = plant(lambda self, x: 2 * x if self.num_calls < 9 else 2.5 * x)
    with pytest.raises(Incorrect, match=r"after timing, the output of the same.*by 2.50e-01"):
        call(DOUBLE)
    assert made[0][1].forward.num_calls > 9


def remembered(self, x):
    """Compute once; give the same for whatever comes later."""
    if self.num_calls == 1:
        self.kept = doubled(x)
    return self.kept


def test_a_contender_that_kept_its_first_output_is_incorrect(call, plant, monkeypatch):
    plant(remembered)
    with pytest.raises(Incorrect, match="output differs from float64"):
        call(DOUBLE)
    assert call.phases[-1] == "verify again"
    # an expensive comparison is not made twice, but fresh inputs must change the output
    monkeypatch.setattr(measurement, "CHEAP_CHECK_S", 0.0)
    made = plant(remembered)
    with pytest.raises(Incorrect, match="fresh inputs give the output of the old ones"):
        call(DOUBLE)
    (full,) = [workload for case, workload in made if case == DOUBLE]
    assert full.spot_check.num_calls == 1


def test_an_output_buffer_that_timing_overwrites_is_not_compared_with_itself(call, plant):
    def into_one_buffer(self, x):
        if self.num_calls == 1:
            self.buffer = torch.empty_like(x)
        return self.buffer.copy_((2 if self.num_calls < 9 else 2.5) * x.detach())

    made = plant(into_one_buffer, modes=("fwd",))
    with pytest.raises(Incorrect, match="after timing, the output of the same inputs"):
        call(DOUBLE)
    assert made[0][1].forward.num_calls > 9


def test_a_twin_is_verified_once_for_all_lengths(call, plant):
    made = plant()
    for side in (7, 11, 13):
        call(DOUBLE.with_(canvas=(side,)))
    assert [case.canvas for case, _ in made] == [(7,), (373,), (11,), (13,)]


@pytest.mark.parametrize("what", [measurement.measure, measurement.check])
def test_equal_seeds_draw_equal_inputs_and_others_do_not(call, plant, what):
    made = plant()
    for state, seed in enumerate((5, 5, 6)):
        torch.manual_seed(100 + state)
        call(DOUBLE, what=what, settings=replace(SETTINGS, seed=seed))
    first, again, other = [w.inputs["x"] for case, w in made if case == DOUBLE]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_nothing_of_a_case_outlives_the_collection_that_the_worker_makes_after_it(
    call, monkeypatch
):
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(10))
            self.itself = [self]
            kept.append(weakref.ref(self.scale))

        def forward(self, x):
            return x * self.scale

    kept = []
    planted = Contender(
        level="op", name="double", impl="eager", build=lambda case: module_workload(case, Loop)
    )
    monkeypatch.setattr(contenders, "registry", lambda: {contenders._key(planted): planted})
    call(DOUBLE)
    gc.collect()
    assert kept
    assert all(reference() is None for reference in kept)


def test_a_case_that_cannot_run_is_unsupported_before_it_is_built(call, plant):
    made = plant(modes=("fwd",), rules=(lambda case: "batch of 4" if case.batch == 4 else None,))
    for change, reason in (({"mode": "bwd"}, "runs mode fwd only"), ({"batch": 4}, "batch of 4")):
        with pytest.raises(Unsupported, match=reason):
            call(DOUBLE.with_(**change))
    assert made == []
    with pytest.raises(UsageError, match="no impl 'magic'"):
        call(DOUBLE.with_(impl="magic"))


@pytest.mark.parametrize("worse", ["twin", "full size"])
def test_the_larger_of_the_two_errors_is_reported(call, plant, worse):
    plant(lambda self, x: (2 + 8e-6 * ((len(x) == 2) == (worse == "twin"))) * x)
    measured = call(DOUBLE)
    assert measured.error_forward == pytest.approx(4e-6, rel=0.1)
    assert measured.error_budget_used == pytest.approx(0.4, rel=0.1)


@pytest.mark.parametrize("mode", ["fwd", "bwd"])
def test_check_compares_and_times_nothing(call, mode):
    checked = call(ATTENTION.with_(mode=mode), what=measurement.check)
    assert checked.status == "ok"
    assert checked.verified == "twin+sampled"
    assert 0 < checked.error_forward < 1e-5
    assert 0 < checked.error_gradient < 1e-4
    timed = {name: value for name, value in asdict(checked).items() if name.endswith("_ms")}
    assert set(timed.values()) == {None}
    assert checked.tokens_per_s is checked.kernels is checked.peak_memory_mib is None
    assert call.phases == ["build", "verify"]


def test_check_finds_what_measure_finds(call, plant):
    plant(lambda self, x: 2.5 * x)
    with pytest.raises(Incorrect, match=r"by 2\.50e-01"):
        call(DOUBLE, what=measurement.check)
    plant(modes=("bwd",))
    with pytest.raises(Unsupported, match="runs mode bwd only"):
        call(DOUBLE, what=measurement.check)


def share_of_peak(device, share):
    """The rates of an attention that ran at a multiple of the measured peak."""
    case = ATTENTION.with_(device=device)
    latency_ms = 2.0
    peaks = Peaks(
        tflops_per_s=cost(case).flops / latency_ms / 1e9 / share,
        bandwidth_gb_per_s=cost(case).bytes / latency_ms / 1e6 / share,
    )
    return measurement._rates(case, peaks, latency_ms)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("share", [0.25, 0.99])
def test_a_share_of_the_peak_below_one_is_kept(device, share):
    rates = share_of_peak(device, share)
    assert rates["peak_flops_fraction"] == pytest.approx(share)
    assert rates["peak_bandwidth_fraction"] == pytest.approx(share)
    assert rates["tokens_per_s"] == pytest.approx(3 * 35 / 2e-3)


def test_no_gpu_is_faster_than_its_measured_peak():
    with pytest.raises(Incorrect, match=r"TFLOP/s is 1\.20 times the measured peak"):
        share_of_peak("cuda", 1.2)
    within_noise = share_of_peak("cuda", 1.04)
    assert within_noise["peak_flops_fraction"] is None
    assert within_noise["tflops_per_s"] > 0


def test_a_cpu_that_beats_its_measured_peak_only_loses_the_share():
    rates = share_of_peak("cpu", 3.0)
    assert rates["peak_flops_fraction"] is rates["peak_bandwidth_fraction"] is None
    assert rates["tflops_per_s"] == pytest.approx(3 * rates["peak_tflops_per_s"])
