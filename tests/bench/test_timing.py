"""The loop that warms up and stops, driven by a fake timer on a fake clock."""

import math
import subprocess
import sys
from collections.abc import Callable
from itertools import chain, repeat

import pytest

from bench.errors import UsageError
from bench.queued_events import Sample
from bench.timers import EventTimer, GraphTimer, WallTimer
from bench.timing import Settings, Timing, measure, resolve_timer, sample_adaptively


class FakeTimer:
    """Hands out scripted durations; each also passes on the clock that the loop reads."""

    name = "fake"
    calls_per_sample = 3

    def __init__(self, durations_ms, *, warmup_share=1.0, exposed=None, batch_size=1):
        self.durations_ms = iter(durations_ms)
        self.batch_size = batch_size
        self.warmup_share = warmup_share
        self.exposed = iter(exposed) if exposed is not None else repeat(None)
        self.num_calls = 100
        self.now_s = 0.0
        self.handed_out_ms = []
        self.batches = []

    def samples(self, n):
        self.batches.append(n)
        taken = []
        for _ in range(n):
            ms = next(self.durations_ms)
            self.now_s += ms / 1e3
            self.num_calls += self.calls_per_sample
            taken.append(Sample(ms, next(self.exposed)))
        self.handed_out_ms += [s.ms for s in taken]
        return taken

    def close(self):
        pass


def run(timer: FakeTimer, on_sample: Callable | None = None, **changes) -> Timing:
    return sample_adaptively(
        timer, Settings(**changes), on_sample=on_sample, now=lambda: timer.now_s
    )


def num_warmup_samples(timer: FakeTimer, result: Timing) -> int:
    return (result.num_warmup - 100) // timer.calls_per_sample


def alternating(low_ms: float, high_ms: float):
    while True:
        yield from (low_ms, high_ms)


def test_a_steady_call_warms_up_for_the_least_time():
    timer = FakeTimer(repeat(2.0))
    result = run(timer, warmup_s=0.1)
    warmup_s = 0.002 * num_warmup_samples(timer, result)
    assert 0.1 <= warmup_s <= 0.1 + 0.025


def test_a_cpu_timer_warms_up_for_its_share_of_the_time():
    timer = FakeTimer(repeat(0.2), warmup_share=0.05)
    result = run(timer, warmup_s=0.1)
    assert 0.005 <= 0.0002 * num_warmup_samples(timer, result) <= 0.008


def test_warm_up_outlasts_the_least_time_until_batches_agree():
    slow_start = [4.0 * 0.9**i for i in range(50)]
    timer = FakeTimer(chain(slow_start, repeat(slow_start[-1])), warmup_share=0.05)
    result = run(timer, warmup_s=0.1)
    assert num_warmup_samples(timer, result) >= 45
    assert max(result.samples_ms) <= 1.2 * slow_start[-1]


def test_warm_up_that_never_gets_steady_is_capped():
    growing = (1.05**i for i in range(10_000))
    timer = FakeTimer(growing, warmup_share=0.05)
    result = run(timer, warmup_s=0.02, budget_s=0.5)
    warmup_s = sum(timer.handed_out_ms[: num_warmup_samples(timer, result)]) / 1e3
    assert 0.1 <= warmup_s <= 0.12


def test_a_call_longer_than_any_warm_up_warms_up_once():
    timer = FakeTimer(repeat(900.0))
    assert num_warmup_samples(timer, run(timer, warmup_s=0.1)) == 1


def test_a_precise_median_stops_at_the_fewest_samples():
    timer = FakeTimer(alternating(1.0, 1.001))
    result = run(timer, min_samples=12)
    assert (len(result.samples_ms), result.stop_reason) == (12, "converged")


def test_a_precise_median_of_a_slow_call_still_takes_the_fewest_samples():
    timer = FakeTimer(repeat(150.0))
    result = run(timer, budget_s=1.0, min_samples=10)
    assert (len(result.samples_ms), result.stop_reason) == (10, "converged")


def test_a_wide_interval_goes_on_until_it_is_narrow():
    timer = FakeTimer(chain([1.2], [1.0, 1.4] * 10, repeat(1.2)))
    result = run(timer, warmup_s=0.0)
    assert result.stop_reason == "converged"
    assert 20 < len(result.samples_ms) < 200


def test_a_noisy_call_stops_when_the_budget_is_spent():
    timer = FakeTimer(alternating(8.0, 12.0))
    result = run(timer, budget_s=0.6)
    assert result.stop_reason == "budget"
    assert 0.6 <= sum(result.samples_ms) / 1e3 <= 0.6 + 0.012


def test_a_noisy_short_call_stops_at_the_most_samples():
    timer = FakeTimer(alternating(0.01, 0.02))
    result = run(timer, max_samples=37)
    assert (len(result.samples_ms), result.stop_reason) == (37, "budget")


@pytest.mark.parametrize(("high_ms", "num_samples"), [(1.001, 16), (1.5, 100)])
def test_samples_are_taken_in_full_batches_as_far_as_there_is_room(high_ms, num_samples):
    timer = FakeTimer(alternating(1.0, high_ms), batch_size=8)
    result = run(timer, min_samples=11, max_samples=100)
    assert len(result.samples_ms) == num_samples
    assert [n for n in timer.batches if n % 8] == ([] if num_samples % 8 == 0 else [4])


def test_a_batch_is_cut_to_the_most_samples():
    timer = FakeTimer(alternating(1.0, 1.5), batch_size=32)
    result = run(timer, min_samples=3, max_samples=5)
    assert len(result.samples_ms) == 5
    assert max(timer.batches) == 5


def test_fewest_samples_are_taken_even_over_budget():
    timer = FakeTimer(alternating(500.0, 800.0))
    result = run(timer, budget_s=1.0, min_samples=10)
    assert (len(result.samples_ms), result.stop_reason) == (10, "budget")


@pytest.mark.parametrize(("call_s", "num_samples"), [(1.2, 3), (2.0, 2), (40.0, 1)])
def test_a_call_longer_than_the_budget_gets_at_most_three_samples(call_s, num_samples):
    timer = FakeTimer(repeat(1e3 * call_s))
    result = run(timer, budget_s=1.0, min_samples=10)
    assert (len(result.samples_ms), result.stop_reason) == (num_samples, "budget")


def test_too_few_samples_for_an_interval_never_count_as_converged():
    timer = FakeTimer(repeat(1.0))
    result = run(timer, min_samples=2, max_samples=5)
    assert (len(result.samples_ms), result.stop_reason) == (5, "budget")


def test_every_recorded_sample_is_kept_in_order():
    durations = [1.0 + 0.1 * math.sin(3 * i) + (50.0 if i % 9 == 0 else 0.0) for i in range(400)]
    timer = FakeTimer(durations)
    result = run(timer, budget_s=2.0, warmup_s=0.01)
    assert len(result.samples_ms) > 200
    skipped = num_warmup_samples(timer, result)
    assert list(result.samples_ms) == durations[skipped : skipped + len(result.samples_ms)]
    assert timer.handed_out_ms == durations[: skipped + len(result.samples_ms)]
    assert max(result.samples_ms) > 50.0


def test_each_recorded_sample_is_reported_and_no_warm_up():
    heard = []
    timer = FakeTimer(alternating(1.0, 1.5))
    result = run(timer, heard.append, max_samples=15)
    assert tuple(heard) == result.samples_ms


def test_exposed_samples_are_counted_among_the_recorded_ones_only():
    exposed = chain([True], [False, True, True, False], repeat(True))
    timer = FakeTimer(repeat(900.0), exposed=exposed)
    result = run(timer, min_samples=4, max_samples=4)
    assert result.exposed_fraction == 0.5


def test_sampling_does_not_end_on_an_exposed_batch_while_there_is_time():
    hidden_warm_up, exposed_then_hidden = repeat(False, 60), chain(repeat(True, 12), repeat(False))
    timer = FakeTimer(repeat(2.0), exposed=chain(hidden_warm_up, exposed_then_hidden), batch_size=4)
    result = run(timer, warmup_s=0.1, min_samples=10, budget_s=1.0)
    assert result.stop_reason == "converged"
    assert 0.0 < result.exposed_fraction < 0.75
    always = FakeTimer(repeat(2.0), exposed=repeat(True))
    assert run(always, min_samples=10, budget_s=0.5).exposed_fraction == 1.0
    assert always.now_s < 1.0


def test_a_timer_that_counts_host_gaps_on_purpose_has_no_exposure():
    assert run(FakeTimer(repeat(1.0))).exposed_fraction is None


def test_result_carries_the_timer_and_its_calls_per_sample():
    result = run(FakeTimer(repeat(1.0)))
    assert (result.timer, result.calls_per_sample) == ("fake", 3)


def test_no_sample_starts_that_would_not_fit_when_enough_are_there():
    timer = FakeTimer(alternating(90.0, 110.0))
    result = run(timer, budget_s=1.5, min_samples=4)
    assert sum(result.samples_ms) <= 1500.0 + 110.0


@pytest.mark.parametrize(
    ("name", "device", "expected"),
    [
        ("auto", "cpu", WallTimer),
        ("auto", "cuda", EventTimer),
        ("wall", "cuda", WallTimer),
        ("events", "cuda", EventTimer),
        ("graph", "cuda", GraphTimer),
    ],
)
def test_timer_names_resolve_per_device(name, device, expected):
    assert resolve_timer(name, device) is expected


@pytest.mark.parametrize("name", ["events", "graph"])
def test_gpu_timers_on_a_cpu_are_refused(name):
    with pytest.raises(UsageError, match=f"timer '{name}' on device 'cpu'\nExpected: wall"):
        resolve_timer(name, "cpu")


def test_measure_times_a_cpu_call_with_the_wall_clock():
    result = measure(lambda: sum(range(40)), device="cpu", settings=Settings(budget_s=0.05))
    assert result.timer == "wall"
    assert result.calls_per_sample > 1
    assert all(0 < ms < 50 for ms in result.samples_ms)


def test_measure_prefers_its_own_timer_to_the_one_in_settings():
    with pytest.raises(UsageError, match="timer 'graph'"):
        measure(lambda: None, device="cpu", settings=Settings(timer="wall"), timer="graph")
    with pytest.raises(UsageError, match="timer 'events'"):
        measure(lambda: None, device="cpu", settings=Settings(timer="events"))


def test_an_error_of_the_call_reaches_the_caller():
    def broken():
        raise MemoryError("too much")

    with pytest.raises(MemoryError, match="too much"):
        measure(broken, device="cpu", settings=Settings())


def test_settings_survive_a_round_trip():
    settings = Settings(timer="wall", budget_s=0.25, min_samples=7, precision=0.05, seed=3)
    assert Settings.from_dict(settings.to_dict()) == settings
    assert Settings.from_dict({"budget_s": 2}) == Settings(budget_s=2)


@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        ({"timer": "sundial"}, "timer 'sundial' is unknown"),
        ({"warmup_s": -0.1}, "warmup_s is -0.1"),
        ({"budget_s": 0.0}, "budget_s is 0.0"),
        ({"budget_s": math.nan}, "budget_s is nan"),
        ({"precision": 0.0}, "precision is 0.0"),
        ({"min_samples": 0}, "min_samples is 0"),
        ({"min_samples": 20, "max_samples": 19}, "max_samples is 19"),
        ({"min_samples": 2.5}, "setting min_samples is 2.5"),
        ({"budget_s": "1"}, "setting budget_s is '1'"),
        ({"seed": True}, "setting seed is True"),
        ({"patience": 3}, "setting 'patience' is unknown"),
    ],
)
def test_settings_out_of_range_say_what_is_expected(values, wrong):
    with pytest.raises(UsageError) as caught:
        Settings.from_dict(values)
    assert caught.value.wrong == wrong
    assert caught.value.expected
    assert caught.value.try_


def test_timing_imports_without_torch():
    code = "import sys; sys.modules['torch'] = None; import bench.timing"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
