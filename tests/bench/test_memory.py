"""Peaks of calls whose every tensor has a known size."""

from pathlib import Path

import pytest
import torch

from bench.memory import MIB, Memory, measure_memory, resident_process_mib

KIB_OF_SCALARS = 1 / 1024
"""torch turns Python numbers into tensors of a few bytes."""


def used(call, *, parameters=(), inputs=(), reset=None) -> Memory:
    return measure_memory(call, device="cpu", parameters=parameters, inputs=inputs, reset=reset)


def mib(num: float) -> int:
    """Elements of float32 in so many MiB."""
    return int(num * MIB / 4)


def test_a_temporary_that_is_gone_before_the_end_counts_at_the_peak():
    def call():
        first = torch.zeros(mib(3))
        second = torch.zeros(mib(2))
        del first, second
        return torch.zeros(mib(1))

    assert used(call).activations_mib == pytest.approx(5.0, abs=KIB_OF_SCALARS)


def test_memory_that_is_released_is_used_again():
    def call():
        for _ in range(4):
            torch.zeros(mib(3))

    assert used(call).activations_mib == pytest.approx(3.0, abs=KIB_OF_SCALARS)


def test_a_temporary_inside_an_operator_counts():
    x = torch.ones(mib(2))

    def call():
        # the sum of squares needs the squares
        return (x * x).sum()

    assert used(call, inputs=[x]).activations_mib == pytest.approx(2.0, abs=KIB_OF_SCALARS)


def test_tensors_saved_for_backward_and_gradients_count():
    x = torch.ones(mib(2), requires_grad=True)

    def call():
        # relu saves its output and backward makes the gradients of both relu and x
        (x * 2.0).relu().sum().backward()

    measured = used(call, inputs=[x], reset=lambda: setattr(x, "grad", None))
    assert measured.activations_mib >= 4.0
    assert x.grad is None


def test_gradients_of_an_earlier_call_do_not_hide_those_of_this_one():
    x = torch.ones(mib(2), requires_grad=True)
    y = x * 2.0
    ones = torch.ones_like(y)
    y.backward(ones, retain_graph=True)

    def call():
        y.backward(ones, retain_graph=True)

    fresh = used(call, inputs=[x], reset=lambda: setattr(x, "grad", None))
    assert fresh.activations_mib == pytest.approx(2.0, abs=KIB_OF_SCALARS)


def test_releasing_what_was_there_before_is_no_negative_peak():
    held = [torch.zeros(mib(2))]
    assert used(held.clear).activations_mib == 0.0


def test_a_call_without_allocations_needs_nothing():
    measured = used(lambda: None)
    assert (measured.activations_mib, measured.peak_memory_mib) == (0.0, 0.0)


def test_parameters_and_inputs_are_the_storage_behind_them():
    weight, bias, x = torch.ones(mib(2)), torch.ones(mib(0.5)), torch.ones(mib(3))
    measured = used(lambda: None, parameters=[weight, bias], inputs=[x])
    assert (measured.parameters_mib, measured.inputs_mib) == (2.5, 3.0)
    assert measured.peak_memory_mib == 5.5


def test_views_and_shared_tensors_are_counted_once():
    weight, x = torch.ones(2, mib(1)), torch.ones(mib(3))
    measured = used(lambda: None, parameters=[weight, weight[1]], inputs=[x, x[5:], weight.mT])
    assert (measured.parameters_mib, measured.inputs_mib) == (2.0, 3.0)


def test_peak_on_a_cpu_is_parameters_inputs_and_activations():
    weight, x = torch.ones(mib(2)), torch.ones(mib(2))
    measured = used(lambda: weight + x, parameters=[weight], inputs=[x])
    assert measured.peak_memory_mib == pytest.approx(6.0, abs=KIB_OF_SCALARS)


def test_a_cpu_has_no_caching_allocator():
    assert used(lambda: None).reserved_mib is None


def test_reset_runs_before_and_after_the_call():
    order = []
    used(lambda: order.append("call"), reset=lambda: order.append("reset"))
    assert order == ["reset", "call", "reset"]


def test_process_memory_is_the_resident_set(tmp_path):
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmPeak:\t  999999 kB\nVmRSS:\t  204800 kB\nThreads:\t3\n")
    assert resident_process_mib(status) == 200.0


def test_process_memory_is_unknown_without_proc(tmp_path):
    assert resident_process_mib(tmp_path / "absent") is None
    empty = tmp_path / "status"
    empty.write_text("Name:\tpython\n")
    assert resident_process_mib(empty) is None


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
def test_process_memory_grows_with_what_is_touched():
    before = resident_process_mib()
    held = torch.ones(mib(64))
    assert resident_process_mib() - before > 48
    del held
