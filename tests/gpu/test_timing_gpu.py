"""The clock on a real GPU, against `triton.testing.do_bench` and against what must hold."""

import time
from contextlib import closing

import pytest
import torch
from triton.testing import do_bench

from bench import stats
from bench.errors import EnaBenchError
from bench.queued_events import QueuedEvents, no_reset
from bench.timers import EventTimer
from bench.timing import Settings, measure

pytestmark = pytest.mark.gpu

SETTINGS = Settings(warmup_s=0.1, budget_s=0.5, max_samples=200)
STEADY = Settings(warmup_s=0.5, budget_s=1.0, min_samples=300, max_samples=600)
"""As long under load as do_bench, which a GPU at its power limit answers with a lower clock."""


def timed(call, *, timer="events", reset=None):
    call()
    return measure(call, device="cuda", settings=SETTINGS, timer=timer, reset=reset)


def median_ms(call, **options) -> float:
    return stats.median(timed(call, **options).samples_ms)


def copy_256_mb():
    source = torch.randn(32 * 10**6, device="cuda")
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def product_4096():
    a, b = (torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return lambda: a @ b


def softmax_of_rows():
    x = torch.randn(8192, 4096, device="cuda", dtype=torch.bfloat16)
    return lambda: torch.softmax(x, -1)


@pytest.mark.parametrize("make", [copy_256_mb, product_4096, softmax_of_rows])
def test_events_agree_with_do_bench(make):
    call = make()
    differences = []
    for _ in range(3):
        # side by side, so that a change of the GPU's clock meets both
        theirs_ms = do_bench(call, warmup=100, rep=300, return_mode="median")
        ours = measure(call, device="cuda", settings=STEADY, timer="events")
        differences.append(stats.median(ours.samples_ms) / theirs_ms - 1.0)
    shown = ", ".join(f"{difference:+.2%}" for difference in differences)
    assert min(map(abs, differences)) < 0.02, f"events against do_bench: {shown}"


def test_cold_l2_is_slower_than_hot():
    source = torch.randn(10 * 2**18, device="cuda")
    target = torch.empty_like(source)
    events = QueuedEvents(torch.cuda, no_reset)
    events.calibrate(lambda: target.copy_(source), no_reset)
    hot = events.samples(lambda: target.copy_(source), no_reset, 50)
    hot_ms = stats.median([sample.ms for sample in hot])
    assert median_ms(lambda: target.copy_(source)) > 1.1 * hot_ms


def test_a_gap_of_the_host_does_not_count_in_events():
    x = torch.randn(1 << 20, device="cuda")

    def call():
        x.mul_(1.0)
        time.sleep(1e-3)
        x.mul_(1.0)

    events = timed(call)
    assert stats.median(events.samples_ms) < 0.5
    assert events.exposed_fraction < 0.2
    assert median_ms(call, timer="wall") > 1.0


def test_a_call_that_waits_for_the_gpu_is_exposed():
    x = torch.randn(1 << 20, device="cuda")

    def call():
        x.mul_(1.0)
        torch.cuda.synchronize()
        x.mul_(1.0)

    assert timed(call).exposed_fraction == 1.0


def test_more_launches_than_the_queue_holds_end_and_are_exposed():
    x = torch.randn(64, device="cuda")

    def call():
        for _ in range(3000):
            x.mul_(1.0)

    result = timed(call)
    assert len(result.samples_ms) >= 10
    assert result.exposed_fraction > 0.5


def test_short_calls_share_a_spin_and_long_ones_do_not():
    short, long_ = (torch.randn(2**n, device="cuda") for n in (16, 30))
    batch_sizes = []
    for x in (short, long_):
        with closing(
            EventTimer(lambda x=x: [x.mul_(1.0) for _ in range(8)], no_reset, "cuda")
        ) as t:
            assert len(t.samples(t.batch_size + 1)) == t.batch_size + 1
            batch_sizes.append(t.batch_size)
    of_short, of_long = batch_sizes
    assert of_short >= 8
    assert of_long <= 4


def test_an_ordinary_call_is_not_exposed():
    result = timed(product_4096())
    assert result.exposed_fraction < 0.05
    assert (result.timer, result.calls_per_sample) == ("events", 1)


def test_a_graph_of_many_tiny_kernels_is_no_slower_than_events():
    x = torch.randn(64, device="cuda")

    def call():
        for _ in range(200):
            x.mul_(1.0)

    assert median_ms(call, timer="graph") <= 1.02 * median_ms(call)


def test_a_graph_agrees_with_events_on_one_large_kernel():
    call = product_4096()
    ratios = [median_ms(call, timer="graph") / median_ms(call) for _ in range(3)]
    assert min(abs(ratio - 1.0) for ratio in ratios) < 0.05, ratios


def test_a_graph_frees_its_memory():
    call = softmax_of_rows()
    call()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    timed(call, timer="graph")
    assert torch.cuda.memory_allocated() == before


def test_a_graph_of_a_training_step_drops_its_gradients():
    x = torch.randn(300, 200, device="cuda", requires_grad=True)

    def call():
        (x * 2.0).square().sum().backward()

    def reset():
        x.grad = None

    assert timed(call, timer="graph", reset=reset).stop_reason in ("converged", "budget")
    assert x.grad is None


def test_a_call_that_cannot_be_captured_raises_and_leaves_cuda_usable():
    x = torch.ones(64, device="cuda")
    stream, state = torch.cuda.current_stream(), torch.cuda.get_rng_state()
    with pytest.raises(EnaBenchError, match="cannot be captured in a CUDA graph"):
        measure(lambda: x.sum().item(), device="cuda", settings=SETTINGS, timer="graph")
    assert torch.cuda.current_stream() == stream
    assert (x + 1).sum().item() == 128.0
    assert torch.equal(torch.cuda.get_rng_state(), state)
    assert torch.randn(64, device="cuda").unique().numel() > 1


def test_reset_runs_before_every_call_and_outside_the_clock():
    x = torch.randn(1 << 16, device="cuda", requires_grad=True)
    y = (x * 2.0).sum()
    num_calls, left_over = 0, []

    def call():
        nonlocal num_calls
        num_calls += 1
        left_over.append(x.grad is not None)
        y.backward(retain_graph=True)

    def reset():
        x.grad = None
        time.sleep(2e-3)

    result = measure(call, device="cuda", settings=SETTINGS, timer="events", reset=reset)
    assert not any(left_over)
    assert num_calls == result.num_warmup + len(result.samples_ms)
    assert stats.median(result.samples_ms) < 1.0


def test_wall_counts_the_host_and_the_gpu():
    x = torch.randn(64, device="cuda")

    def call():
        for _ in range(20):
            x.mul_(1.0)

    wall = timed(call, timer="wall")
    assert wall.exposed_fraction is None
    assert stats.median(wall.samples_ms) > median_ms(call)


def test_the_flush_buffer_is_freed():
    call = product_4096()
    call()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    timed(call)
    assert torch.cuda.memory_allocated() == before
