"""A slow-down that is really there: as much more work as the name of the run says."""

import pytest
import torch

from bench import injection, timing
from bench.case import Case
from bench.injection import run_of, slowdown_of, slowed
from bench.machine import facts
from bench.outcome import Unsupported
from bench.timing import Settings

CASE = Case(
    level="op",
    contender="delta_rule",
    impl="eager",
    mode="fwd",
    canvas=(3, 5),
    heads=2,
    head_dim=7,
)
SETTINGS = Settings(warmup_s=0.001, budget_s=0.002, min_samples=3, max_samples=5)


@pytest.fixture(scope="module")
def machine():
    return facts()


def measured(case, machine, slowdown):
    return injection.measure(
        case,
        SETTINGS,
        machine=machine,
        peaks=None,
        round=2,
        run_id=run_of(slowdown),
        say=lambda phase, values: None,
    )


@pytest.mark.parametrize("slowdown", [0.0, 0.02, 0.05, 0.1])
def test_a_run_is_named_after_the_slow_down_in_it(slowdown):
    assert slowdown_of(run_of(slowdown)) == slowdown


def test_a_slowed_visit_does_its_share_of_the_plain_time_more(machine, monkeypatch):
    asked = []

    def noted(call, by_ms, device):
        asked.append((by_ms, device))
        return call

    times_ms = iter([(4.0, 2.0, 3.0), (6.0, 7.0, 8.0)])

    def taken(call, **options):
        call()
        return timing.Timing(
            timer="wall",
            samples_ms=next(times_ms),
            calls_per_sample=1,
            num_warmup=0,
            stop_reason="budget",
            exposed_fraction=None,
        )

    monkeypatch.setattr(injection, "slowed", noted)
    monkeypatch.setattr(timing, "measure", taken)
    row = measured(CASE, machine, 0.05)
    assert asked == [(pytest.approx(0.05 * 3.0), "cpu")]
    assert (row.run_id, row.round, row.latency_ms) == ("slower-by-0.05", 2, 7.0)


def test_a_plain_visit_is_timed_as_it_is(machine, monkeypatch):
    monkeypatch.setattr(injection, "slowed", lambda *asked: pytest.fail("it was slowed"))
    row = measured(CASE, machine, 0.0)
    assert row.status == "ok"
    assert 0 < row.latency_ms < 1000
    assert len(row.samples_ms) >= 3


def test_a_case_that_cannot_run_is_unsupported(machine):
    on_gpu = Case(**{**CASE.to_dict(), "device": "cuda", "canvas": (3, 5), "impl": "triton"})
    if torch.cuda.is_available():
        pytest.skip("it can run here")
    with pytest.raises(Unsupported):
        measured(on_gpu, machine, 0.05)


def test_work_comes_before_each_call_and_is_as_long_as_asked(monkeypatch):
    done = []
    monkeypatch.setattr(injection, "_count", lambda steps: done.append(steps))
    monkeypatch.setattr(injection, "_steps_per_ms", lambda: 1000.0)
    call = slowed(lambda: done.append("call") or "answer", 0.25, "cpu")
    assert [call(), call()] == ["answer", "answer"]
    assert done == [250, "call", 250, "call"]


def test_on_a_gpu_the_work_is_a_kernel_that_spins_at_the_rate_of_this_clock(monkeypatch):
    class Event:
        now_ms = 0.0

        def __init__(self, enable_timing):
            self.at_ms = None

        def record(self):
            self.at_ms = Event.now_ms

        def synchronize(self):
            pass

        def elapsed_time(self, end):
            return end.at_ms - self.at_ms

    spun = []

    def spin(cycles):
        spun.append(cycles)
        # a launch takes its time whatever the kernel does
        Event.now_ms += 0.004 + cycles / 2_000_000

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "_sleep", spin)
    call = slowed(lambda: None, 0.5, "cuda")
    spun.clear()
    call()
    assert spun == [pytest.approx(1_000_000, rel=1e-3)]
