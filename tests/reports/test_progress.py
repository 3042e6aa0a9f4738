"""What a run shows while it measures."""

import io
import re
from types import SimpleNamespace

import pytest
from rich.console import Console

from bench.row import Row
from reports.progress import Progress

CASE = SimpleNamespace(case_path="layer/ena/[red]flex/fwd/B1")


class Clock:
    """Time that passes when told to."""

    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def shown():
    """A progress on a plain stream or a terminal, with its text and its clock."""

    def build(*, is_terminal=False, width=200, **options):
        stream, clock = io.StringIO(), Clock()
        console = Console(
            file=stream,
            force_terminal=is_terminal,
            width=width,
            legacy_windows=False,
            color_system=None,
            _environ={},
        )
        return Progress(console=console, clock=clock, **options), stream, clock

    return build


def _row(**columns):
    return Row(**{"case_path": CASE.case_path, "status": "ok", "latency_ms": 1.5} | columns)


def _plain(stream):
    return re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", stream.getvalue())


def test_elsewhere_than_on_a_terminal_each_measured_case_is_a_line(shown):
    progress, stream, _ = shown()
    with progress:
        progress.started(CASE, 0, 3)
        progress.phase("build")
        progress.progress(1.5, 10, 0.02)
        progress.finished(_row())
        progress.started(CASE, 1, 3)
        progress.finished(_row(status="oom", latency_ms=None, reason="needs\n12 GiB"))
    assert stream.getvalue().splitlines() == [
        "[1/3] layer/ena/[red]flex/fwd/B1  1.50 ms",
        "[2/3] layer/ena/[red]flex/fwd/B1  oom: needs 12 GiB",
    ]


def test_what_cannot_run_and_what_was_saved_prints_nothing(shown):
    progress, stream, _ = shown()
    with progress:
        progress.finished(_row(status="unsupported", latency_ms=None, reason="no fla"))
        progress.skipped()
    assert stream.getvalue() == ""


def test_quiet_is_silent_everywhere(shown):
    for is_terminal in (False, True):
        progress, stream, _ = shown(is_terminal=is_terminal, is_quiet=True)
        with progress:
            progress.started(CASE, 0, 1)
            progress.finished(_row())
        assert stream.getvalue() == ""


def _time_the_second(progress, clock, case, *, num_cases, seconds):
    """The first took so long, and of the second 40 samples are there."""
    progress.started(case, 0, num_cases)
    clock.now_s += seconds
    progress.finished(_row())
    progress.started(case, 1, num_cases)
    progress.progress(2.5, 40, 0.013)
    progress._bar.refresh()


def test_a_terminal_shows_case_phase_estimate_count_and_time_left(shown):
    progress, stream, clock = shown(is_terminal=True)
    with progress:
        _time_the_second(progress, clock, CASE, num_cases=4, seconds=30.0)
    text = _plain(stream)
    for part in ("1/4", "90.0 s left", CASE.case_path, "2.50 ms after 40 samples, known to 1.3%"):
        assert part in text


LONG = SimpleNamespace(
    case_path="layer/linear/triton/fwdbwd/128x128-1-12-64-2-cross-official-bfloat16-cuda"
)


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (60, "1/340 8 h 31 min left layer...cuda 2.50 ms a..."),
        (80, "1/340 8 h 31 min left layer/line...at16-cuda 2.50 ms after 40 sa..."),
        (
            160,
            f"1/340 8 h 31 min left {LONG.case_path} 2.50 ms after 40 samples, known to 1.3%",
        ),
    ],
)
def test_count_and_time_left_are_whole_in_every_terminal_and_the_path_is_cut(shown, width, line):
    progress, stream, clock = shown(is_terminal=True, width=width)
    with progress:
        _time_the_second(progress, clock, LONG, num_cases=340, seconds=90.6)
    shown_lines = [part.rstrip() for part in re.split(r"[\r\n]", _plain(stream))]
    assert max(map(len, shown_lines)) <= width
    assert any(part.endswith(f" {line}") for part in shown_lines)


def test_a_terminal_keeps_failures_above_the_bar(shown):
    progress, stream, _ = shown(is_terminal=True)
    with progress:
        progress.started(CASE, 0, 2)
        progress.finished(_row(status="crashed", latency_ms=None, reason="signal 11"))
        progress.finished(_row())
    text = _plain(stream)
    assert "[1/2] layer/ena/[red]flex/fwd/B1  crashed: signal 11" in text
    assert "[2/2]" not in text


def test_the_time_left_comes_from_measured_cases_only(shown):
    progress, _, clock = shown()
    assert progress.seconds_left() is None
    progress.started(CASE, 0, 10)
    progress.skipped()
    assert progress.seconds_left() is None
    clock.now_s += 8.0
    progress.finished(_row())
    assert progress.seconds_left() == pytest.approx(8.0 * 8)
    clock.now_s += 8.0
    progress.finished(_row(status="timeout", latency_ms=None))
    assert progress.seconds_left() == pytest.approx(8.0 * 7)


def test_events_of_a_run_are_understood(shown):
    progress, stream, clock = shown(is_terminal=True)

    def event(kind, done, **details):
        empty = {"phase": None, "values": {}, "row": None, "whose": ""}
        return SimpleNamespace(
            kind=kind, case=CASE, round=0, num_done=done, num_total=7, **empty | details
        )

    with progress:
        progress.show(event("skipped", 1))
        progress.show(event("started", 1))
        progress.show(event("phase", 1, phase="first call"))
        progress._bar.refresh()
        values = {"latency_ms": 3.0, "num_samples": 12}
        progress.show(event("progress", 1, phase="time", values=values))
        progress._bar.refresh()
        clock.now_s += 2.0
        progress.show(event("finished", 2, row=_row()))
        progress._bar.refresh()
    text = _plain(stream)
    for part in ("first call", "3.00 ms after 12 samples", "2/7", "10.0 s left"):
        assert part in text


def test_a_line_names_the_revision_where_there_are_several(shown):
    progress, stream, _ = shown()
    with progress:
        for done, whose in ((1, "main (0a1b2c3)"), (2, "working tree")):
            progress.show(
                SimpleNamespace(
                    kind="finished",
                    case=CASE,
                    num_done=done,
                    num_total=2,
                    row=_row(),
                    whose=whose,
                )
            )
    assert stream.getvalue().splitlines() == [
        "[1/2] main (0a1b2c3)  layer/ena/[red]flex/fwd/B1  1.50 ms",
        "[2/2] working tree  layer/ena/[red]flex/fwd/B1  1.50 ms",
    ]


def test_an_interrupt_passes_and_leaves_the_terminal_clean(shown):
    progress, stream, _ = shown(is_terminal=True)

    def interrupted():
        with progress:
            progress.started(CASE, 0, 2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert stream.getvalue().count("\x1b[?25l") == stream.getvalue().count("\x1b[?25h") == 1
