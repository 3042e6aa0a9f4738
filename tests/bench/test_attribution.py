"""Every kernel of a trace finds the component that launched it: traces written by hand, in us."""

import pytest

from bench.attribution import attributed


def event(category, name, start, end, *, thread=7, **args):
    return {
        "ph": "X",
        "cat": category,
        "name": name,
        "ts": start,
        "dur": end - start,
        "pid": 3,
        "tid": thread,
        "args": args,
    }


def op(name, start, end, **other):
    return event("cpu_op", name, start, end, **other)


def scope(name, start, end, **other):
    return event("user_annotation", name, start, end, **other)


def launch(start, correlation, *, name="cudaLaunchKernel", category="cuda_runtime", thread=7):
    return event(category, name, start, start + 1, thread=thread, correlation=correlation)


def kernel(name, start, end, correlation, category="kernel"):
    return event(category, name, start, end, thread=22, correlation=correlation)


def times(events, device, outside="other"):
    found = attributed(events, device, outside=outside)
    return sorted((e.name, e.component, e.time_ns) for e in found)


def test_an_operator_counts_the_time_outside_the_operators_within_it():
    trace = [op("inner", 15, 40), op("outer", 10, 50), op("innermost", 20, 27)]
    assert times(trace, "cpu") == [
        ("inner", "other", 18_000),
        ("innermost", "other", 7_000),
        ("outer", "other", 15_000),
    ]


def test_the_innermost_scope_is_the_component_and_its_own_python_is_nobody_s():
    trace = [
        op("before", 0, 5),
        scope("ena::mlp", 10, 90),
        op("mm", 12, 32),
        scope("ena::norm", 40, 70),
        op("mean", 45, 56),
        op("gelu", 75, 78),
        op("after", 90, 94),
    ]
    assert times(trace, "cpu") == [
        ("after", "other", 4_000),
        ("before", "other", 5_000),
        ("gelu", "mlp", 3_000),
        ("mean", "norm", 11_000),
        ("mm", "mlp", 20_000),
    ]


def test_a_scope_inside_an_operator_takes_its_time_from_it():
    trace = [op("checkpoint", 0, 100), scope("ena::mlp", 10, 90), op("mm", 20, 50)]
    assert times(trace, "cpu") == [("checkpoint", "other", 20_000), ("mm", "mlp", 30_000)]


def test_a_scope_reaches_no_other_thread():
    trace = [scope("ena::mlp", 0, 100), op("mm", 10, 30, thread=8)]
    assert times(trace, "cpu") == [("mm", "other", 20_000)]


def test_other_annotations_are_no_scopes():
    trace = [
        scope("ena::recurrence", 0, 50),
        scope("Optimizer.step#AdamW.step", 5, 40),
        op("adamw", 10, 30),
        scope("Optimizer.zero_grad", 60, 80),
        op("zero", 65, 70),
    ]
    assert times(trace, "cpu") == [("adamw", "recurrence", 20_000), ("zero", "other", 5_000)]


@pytest.mark.parametrize(
    "name", ["autograd::engine::evaluate_function: MmBackward0", "profiler::_record_function_exit"]
)
def test_what_opening_scopes_costs_is_not_counted(name):
    trace = [op(name, 0, 100), op("MmBackward0", 40, 60)]
    assert times(trace, "cpu") == [("MmBackward0", "other", 20_000)]


def test_neighbours_that_touch_are_not_nested():
    start = 4_474_371_188_328.227
    trace = [op("first", start, start + 2.5), op("second", start + 2.5, start + 9.5)]
    first, second = times(trace, "cpu")
    assert first[2] == pytest.approx(2_500, abs=2)
    assert second[2] == pytest.approx(7_000, abs=2)


def test_a_kernel_belongs_to_the_scope_that_launched_it_not_to_the_one_open_when_it_ran():
    trace = [
        scope("ena::attention", 0, 20),
        launch(5, 101),
        scope("ena::mlp", 30, 60),
        launch(35, 102),
        kernel("flash", 31, 58, 101),
        kernel("gemm", 59, 72, 102),
    ]
    assert times(trace, "cuda") == [("flash", "attention", 27_000), ("gemm", "mlp", 13_000)]


def test_launches_by_the_driver_copies_and_fills_count_too():
    trace = [
        scope("ena::recurrence", 0, 20, thread=9),
        launch(3, 5, category="cuda_driver", name="cuLaunchKernelEx", thread=9),
        launch(6, 6, name="cudaMemcpyAsync", thread=9),
        launch(9, 8, name="cudaMemsetAsync", thread=9),
        kernel("chunk_fwd", 30, 41, 5),
        kernel("Memcpy DtoD", 41, 44, 6, "gpu_memcpy"),
        kernel("Memset", 44, 46, 8, "gpu_memset"),
    ]
    assert times(trace, "cuda") == [
        ("Memcpy DtoD", "recurrence", 3_000),
        ("Memset", "recurrence", 2_000),
        ("chunk_fwd", "recurrence", 11_000),
    ]


def test_operators_and_annotations_of_the_device_take_no_kernel_time():
    trace = [
        scope("ena::mlp", 0, 20),
        op("mm", 2, 18),
        launch(5, 1),
        kernel("gemm", 30, 37, 1),
        event("gpu_user_annotation", "ena::mlp", 30, 37, thread=22),
    ]
    assert times(trace, "cuda") == [("gemm", "mlp", 7_000)]


def test_a_kernel_without_a_launch_belongs_outside():
    trace = [scope("ena::mlp", 0, 20), kernel("orphan", 30, 37, 404)]
    assert times(trace, "cuda", outside="attention") == [("orphan", "attention", 7_000)]


def test_marks_and_counters_of_a_trace_are_passed_over():
    trace = [{"ph": "M", "name": "process_name", "pid": 3}, {"ph": "i", "cat": "cpu_op"}]
    assert times(trace, "cpu") == []
