"""A worker that crashes, hangs, lies or shouts costs one row; the next case is measured."""

import importlib
import inspect
import math
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from bench import executor as executor_module
from bench.case import Case
from bench.child import Log
from bench.errors import EnaBenchError, StorageError, UsageError
from bench.executor import Executor
from bench.outcome import LATENCY_COLUMNS
from bench.row import Row

GIVEN_UP_S = 1.5
SLOW_TO_SHOW = ("hang", "pipe_closed")

FAULTS = [
    ("segfault", "crashed", "killed by SIGSEGV in phase build; log: "),
    ("exit_code", "crashed", "exited with code 3 in phase build"),
    ("sys_exit", "failed", "SystemExit: enough"),
    ("hang", "timeout", "no result within 1.5 s, in phase build; log: "),
    ("memory_error", "oom", "MemoryError"),
    ("cuda_out_of_memory", "oom", "OutOfMemoryError: Tried to allocate 80.00 GiB"),
    ("wrapped_out_of_memory", "oom", "you tried to allocate 4 TB"),
    ("raises", "failed", "ValueError: tile (3,) does not divide 128"),
    ("recompiles", "fallback", "recompile limit 8 reached"),
    ("unsupported", "unsupported", "triton runs on CUDA only"),
    ("incorrect", "incorrect", "dq is off by 0.3"),
    ("unknown_column", "failed", "TypeError: ['error_of_dq'] are no columns"),
    ("latency_without_ok", "fallback", "eager ran"),
    ("pipe_garbage", "crashed", "worker spoke nonsense in phase build"),
    ("pipe_wrong_message", "crashed", "worker spoke nonsense: measuring returned dict"),
    ("pipe_closed", "crashed", "worker closed its pipe in phase build"),
    ("dies_with_child_on_the_pipe", "crashed", "exited with code 5"),
    ("returns_number", "failed", "measuring returned float, not a Row"),
    ("other_case", "failed", "measuring returned a row of case 0123456789abcdef"),
    ("nan_latency", "failed", "measuring returned a latency of nan ms"),
    ("unknown_status", "failed", "measuring returned the unknown status 'fine'"),
    ("unsendable", "failed", "set cannot be sent"),
]


@pytest.fixture(scope="module")
def fakes():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent)
        yield importlib.import_module("fake_instruments")


@pytest.fixture(scope="module")
def make_executor(fakes, tmp_path_factory):
    def make(**options):
        defaults = {
            "device": "cpu",
            "settings": fakes.Settings(),
            "timeout_s": 20.0,
            "log_path": tmp_path_factory.mktemp("run") / "log.txt",
            "measure": "fake_instruments:measure",
            "facts": "fake_instruments:facts",
            "peaks": "fake_instruments:measure_peaks",
        }
        return Executor(**(defaults | options))

    return make


@pytest.fixture(scope="module")
def shared(make_executor):
    with make_executor() as executor:
        yield executor


@pytest.fixture
def case_of(fakes):
    def make(fault="none"):
        names = [function.__name__ for function in fakes.FAULTS]
        return Case(
            level="op",
            contender="delta_rule",
            impl="eager",
            mode="fwd",
            canvas=(3, 5),
            heads=2,
            head_dim=7,
            batch=1 + names.index(fault),
        )

    return make


def ended_soon(pid):
    for _ in range(200):
        if not is_running(pid):
            return True
        time.sleep(0.02)
    return False


def measure(executor, case, *, round=4, **options):
    return executor.measure(case, round=round, run_id="a-run", **options)


def measure_fault(executor, case, fault):
    """As `measure`, but give up soon on what shows only by waiting."""
    with pytest.MonkeyPatch.context() as patch:
        if fault in SLOW_TO_SHOW:
            patch.setattr(executor, "_timeout_s", GIVEN_UP_S)
            patch.setattr("bench.child._GOODBYE_S", 0.4)
        return measure(executor, case)


def is_running(pid):
    # an orphan that nobody reaps stays as a zombie; it runs no more
    with suppress(FileNotFoundError):
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False


def test_a_case_comes_back_as_its_row_whole(shared, case_of):
    row = measure(shared, case_of())
    assert isinstance(row, Row)
    assert row.status == "ok"
    assert row.samples_ms == [1.25, 1.5, 1.75]
    assert row.error_forward == math.inf
    assert (row.run_id, row.case_id, row.round) == ("a-run", case_of().case_id, 4)
    assert row.device_name == "fake cpu"
    assert row.seed == 3


def test_the_worker_stays_warm_between_cases_and_imports_no_torch_by_itself(shared, case_of):
    first, second = measure(shared, case_of()), measure(shared, case_of())
    assert first.num_warmup == second.num_warmup == shared.machine().worker_pid
    assert first.warnings == []


@pytest.mark.parametrize(("fault", "status", "reason"), FAULTS, ids=[f[0] for f in FAULTS])
def test_a_fault_is_a_row_without_latency_and_the_next_case_is_measured(
    shared, case_of, fault, status, reason
):
    row = measure_fault(shared, case_of(fault), fault)
    assert (row.status, reason in row.reason) == (status, True), row.reason
    assert {name for name in LATENCY_COLUMNS if getattr(row, name) is not None} == set()
    assert (row.case_id, row.round, row.run_id) == (case_of(fault).case_id, 4, "a-run")
    assert (row.device_name, row.canvas, row.seed) == ("fake cpu", "3x5", 3)
    assert measure(shared, case_of()).status == "ok"


def test_every_fault_of_the_fakes_is_tried(fakes):
    harmless = {"none", "prints", "pipe_garbage_afterwards"}
    assert {f.__name__ for f in fakes.FAULTS} == {name for name, _, _ in FAULTS} | harmless


def test_only_ok_and_unsupported_keep_the_worker(shared, case_of):
    before = measure(shared, case_of()).num_warmup
    measure(shared, case_of("unsupported"))
    assert measure(shared, case_of()).num_warmup == before
    measure(shared, case_of("raises"))
    assert measure(shared, case_of()).num_warmup != before
    assert not is_running(before)


def test_what_a_contender_prints_goes_to_the_log_and_harms_nothing(
    make_executor, case_of, tmp_path
):
    log = tmp_path / "log.txt"
    with make_executor(log_path=log) as executor:
        assert measure(executor, case_of("prints")).status == "ok"
    text = log.read_bytes()
    assert text.count(b'\xff\x00{"event":"row"}\n') == 5000
    assert b'{"event":"quit"}\n' in text
    assert case_of("prints").case_path.encode() in text


def test_the_columns_known_before_a_wrong_result_are_kept(shared, case_of):
    assert measure(shared, case_of("incorrect")).error_gradient == 0.3


def test_a_crash_and_a_hang_say_where_the_worker_was(shared, case_of):
    assert "in segfault" in measure(shared, case_of("segfault")).reason
    assert "in hang" in measure_fault(shared, case_of("hang"), "hang").reason


def test_what_a_dead_worker_had_started_is_killed_too(shared, case_of):
    reason = measure(shared, case_of("dies_with_child_on_the_pipe")).reason
    pid = int(reason.rpartition("child ")[2])
    assert ended_soon(pid)


def test_phases_and_estimates_reach_the_listener(shared, case_of):
    heard = []
    measure(shared, case_of(), on_event=lambda phase, values: heard.append((phase, dict(values))))
    assert [phase for phase, _ in heard] == ["build", "time"]
    assert heard[0][1] == {}
    assert heard[1][1]["num_samples"] == 2
    assert math.isnan(heard[1][1]["latency_ms"])


def test_a_listener_that_raises_ends_the_worker_and_is_heard(make_executor, case_of):
    def interrupt(phase, values):
        raise KeyboardInterrupt

    with make_executor() as executor:
        pid = executor.machine().worker_pid
        with pytest.raises(KeyboardInterrupt):
            measure(executor, case_of(), on_event=interrupt)
        assert not is_running(pid)


def test_a_worker_that_dies_between_cases_costs_no_row(make_executor, case_of):
    with make_executor() as executor:
        pid = measure(executor, case_of()).num_warmup
        os.kill(pid, signal.SIGKILL)
        assert ended_soon(pid)
        row = measure(executor, case_of())
        assert (row.status, row.warnings) == ("ok", [])


def test_garbage_between_cases_costs_no_row(make_executor, case_of):
    with make_executor() as executor:
        before = measure(executor, case_of("pipe_garbage_afterwards"))
        time.sleep(0.3)
        after = measure(executor, case_of())
    assert (before.status, after.status) == ("ok", "ok")
    assert before.num_warmup != after.num_warmup


def test_leaving_ends_the_worker(make_executor):
    with make_executor() as executor:
        pid = executor.machine().worker_pid
        assert is_running(pid)
        assert os.getsid(pid) == pid
    assert not is_running(pid)


def test_facts_about_the_machine_arrive_as_they_were(make_executor, fakes):
    with make_executor() as executor:
        assert executor.known_machine is None
        machine = executor.machine()
        assert isinstance(machine, fakes.Machine)
        assert machine.capability == (9, 0)
        assert executor.known_machine is machine


def test_peaks_are_measured_once_for_a_dtype(shared):
    first = shared.peaks("cpu", "bfloat16")
    shared.close()
    assert shared.peaks("cpu", "bfloat16") is first
    assert shared.peaks("cpu", "float32").bandwidth_gb_per_s != first.bandwidth_gb_per_s
    assert (first.tflops_per_s, shared.peaks("cpu", "float32").tflops_per_s) == (8.0, 7.0)


@pytest.mark.parametrize(
    ("function", "told"),
    [("peaks_that_raise", "no product of float32"), ("peaks_that_crash", "exited with code 9")],
)
def test_peaks_that_cannot_be_measured_are_unknown_and_said_so(
    make_executor, case_of, function, told
):
    with make_executor(peaks=f"fake_instruments:{function}") as executor:
        row = measure(executor, case_of())
    assert (row.status, row.peak_tflops_per_s) == ("ok", None)
    assert row.warnings[0].startswith("peaks of float32 on cpu are unknown: ")
    assert told in row.warnings[0]


@pytest.mark.parametrize(
    ("function", "told"),
    [
        ("facts_without_torch", "ImportError: libcudart.so.13"),
        ("facts_that_exit", "exited with code 7; log: the driver is older than the runtime"),
        ("no_such_function", "no_such_function"),
    ],
)
def test_a_worker_that_cannot_start_is_an_error_with_the_log(make_executor, function, told):
    with (
        make_executor(facts=f"fake_instruments:{function}") as executor,
        pytest.raises(EnaBenchError, match="the worker process did not start") as caught,
    ):
        executor.machine()
    assert told in caught.value.wrong
    assert "log.txt" in caught.value.try_


def test_a_worker_that_never_says_hello_is_an_error(make_executor, monkeypatch):
    monkeypatch.setattr(executor_module, "START_TIMEOUT_S", 0.05)
    with (
        make_executor() as executor,
        pytest.raises(EnaBenchError, match="it said nothing for"),
    ):
        executor.machine()


def test_a_log_that_cannot_be_written_is_a_storage_error(make_executor, tmp_path):
    (tmp_path / "file").touch()
    with (
        make_executor(log_path=tmp_path / "file" / "log.txt") as executor,
        pytest.raises(StorageError, match=r"log\.txt cannot be written: Not a directory"),
    ):
        executor.machine()


def test_an_excerpt_is_the_end_of_what_was_logged_since_the_mark(tmp_path):
    log = Log(tmp_path / "log.txt")
    log.mark()
    log.path.write_bytes(b"an earlier case\n")
    log.mark()
    assert log.excerpt() == ""
    with log.path.open("ab") as file:
        file.write(b"\xff" * 10**6 + b"\n\n  first \nsecond\n")
    excerpt = log.excerpt()
    assert excerpt.endswith(" | first | second")
    assert len(excerpt) < 10**5
    with log.path.open("ab") as file:
        file.write(b"Thread 0x1 (most recent call first):\n  File a, line 1\n")
        file.write(b"Current thread 0x2 (most recent call first):\n  File b, line 2\n  File c\n")
        file.write(b"\nExtension modules: numpy (total: 1)\n")
    assert log.excerpt() == "; log: File b, line 2 | File c"


@pytest.mark.parametrize(
    ("device", "visible", "expected"),
    [("cuda:1", None, "1"), ("cuda:1", "5,7", "7"), ("cuda", "5,7", "5,7"), ("cpu", None, None)],
)
def test_a_worker_sees_the_gpu_that_it_is_given(
    make_executor, monkeypatch, device, visible, expected
):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert make_executor(device=device)._environment.get("CUDA_VISIBLE_DEVICES") == expected


@pytest.mark.parametrize("device", ["cuda:2", "cuda:x", "cpu:1", "cuda:-1"])
def test_a_device_that_is_not_there_is_refused(make_executor, monkeypatch, device):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    with pytest.raises(UsageError, match="does not name a visible GPU"):
        make_executor(device=device)


def test_what_a_worker_calls_unless_told_otherwise_takes_what_it_is_called_with():
    defaults = inspect.signature(Executor).parameters
    wanted = {
        "measure": ["case", "settings", "machine", "peaks", "round", "run_id", "say"],
        "facts": [],
        "peaks": ["device", "dtype"],
    }
    for name, parameters in wanted.items():
        module, _, function = defaults[name].default.partition(":")
        called = getattr(importlib.import_module(module), function)
        assert list(inspect.signature(called).parameters) == parameters


def test_a_worker_whose_parent_is_gone_already_ends_at_once(fakes):
    command = [sys.executable, "-m", "bench.worker", "--in", "0", "--out", "1", "--parent", "1"]
    names = ["--measure", "x:y", "--facts", "fake_instruments:facts", "--peaks", "x:y"]
    ended = subprocess.run([*command, *names], capture_output=True, timeout=20, check=False)
    assert (ended.returncode, ended.stdout) == (1, b"")
