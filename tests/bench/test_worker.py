"""A worker ends at once: what it wrote is whole, what libraries say at exit is not in the log."""

from pathlib import Path

import pytest

from bench.case import Case
from bench.executor import Executor
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
INSTRUMENTS = """
import atexit
import sys

from bench.machine import facts
from bench.outcome import identity
from bench.row import Row

atexit.register(print, "leaked 7 instances")


def measure(case, settings, *, round, run_id, **others):
    say = open(sys.stderr.fileno(), "w", closefd=False, buffering=1 << 20)
    sys.stderr = say
    say.write("buffered until the end")
    known = identity(case, round=round, run_id=run_id, seed=settings.seed)
    return Row(**known, status="ok", latency_ms=1.0, samples_ms=[1.0] * 50_000)


def measure_peaks(device, dtype):
    return None
"""


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """A long row, and the log of a worker that was asked to end right after sending it."""
    folder: Path = tmp_path_factory.mktemp("worker")
    (folder / "loud_instruments.py").write_text(INSTRUMENTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        with Executor(
            device="cpu",
            settings=Settings(),
            timeout_s=60.0,
            log_path=folder / "log.txt",
            measure="loud_instruments:measure",
            facts="loud_instruments:facts",
            peaks="loud_instruments:measure_peaks",
        ) as executor:
            row = executor.measure(CASE, round=3, run_id="a-run")
    return row, (folder / "log.txt").read_text()


def test_the_last_row_of_a_worker_is_whole(ended):
    row, _ = ended
    assert (row.status, row.round, len(row.samples_ms)) == ("ok", 3, 50_000)


def test_what_was_measured_has_its_output_in_the_log_though_it_was_buffered(ended):
    assert "buffered until the end" in ended[1]


def test_what_libraries_do_at_exit_does_not_fill_the_log(ended):
    assert "leaked 7 instances" not in ended[1]
