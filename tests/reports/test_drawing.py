"""Figures are drawn alike in one process and in several."""

import sys
import time

import pandas as pd
import pytest

from bench import processes
from reports import document, drawing, figures


@pytest.fixture
def jobs(row, tmp_path):
    """The latency of ten settings, which is enough for two processes."""
    rows = [row(batch=batch, latency_ms=float(batch)) for batch in range(1, 11)]
    content = document.compose(pd.DataFrame(rows), title="", problems=[])
    kind = next(kind for kind in figures.FIGURES if kind.name == "latency")
    parts = [part for part in content.parts if part.scope == kind.scope]
    return [
        drawing.Job(
            kind=kind,
            part=part,
            picture=document.Picture(
                name=part.anchor,
                title="",
                caption="",
                alt="",
                is_interactive=True,
                files=(tmp_path / f"{part.anchor}.svg",),
            ),
        )
        for part in parts
    ]


def _written(jobs):
    return [file.read_bytes() for job in jobs for file in job.picture.files]


def _alone(jobs, monkeypatch):
    """What one process writes; the files are gone again."""
    monkeypatch.setattr(processes, "num_processors", lambda: 1)
    drawing.draw_all(jobs)
    found = _written(jobs)
    for job in jobs:
        job.picture.files[0].unlink()
    monkeypatch.setattr(processes, "num_processors", lambda: 2)
    return found


def test_two_processes_draw_what_one_draws(jobs, monkeypatch, tmp_path):
    script = tmp_path / "script.py"
    script.write_text("raise SystemExit('a script without a main guard was run again')")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(script), raising=False)
    alone = _alone(jobs, monkeypatch)
    assert len(set(alone)) == len(jobs) == 10
    drawn_here = []
    save = drawing._save
    monkeypatch.setattr(
        drawing,
        "_save",
        lambda figure, picture: (drawn_here.append(picture), save(figure, picture)),
    )
    drawing.draw_all(jobs)
    assert _written(jobs) == alone
    assert drawn_here == [job.picture for job in jobs[::2]]


@pytest.mark.parametrize(
    "program", ["raise SystemExit(3)", "import sys; sys.stdin.read(9); exit(1)"]
)
def test_what_a_process_does_not_draw_is_drawn_here(jobs, monkeypatch, program):
    alone = _alone(jobs, monkeypatch)
    monkeypatch.setattr(drawing, "_PROGRAM", program)
    drawing.draw_all(jobs)
    assert _written(jobs) == alone


def test_a_file_that_a_process_cannot_write_is_an_error(jobs, monkeypatch, tmp_path):
    monkeypatch.setattr(processes, "num_processors", lambda: 2)
    (tmp_path / f"{jobs[3].part.anchor}.svg").mkdir()
    with pytest.raises(OSError, match="directory"):
        drawing.draw_all(jobs)


def test_no_process_stays_behind_an_error(jobs, monkeypatch, tmp_path):
    ended = []
    start = processes.start
    monkeypatch.setattr(processes, "start", lambda *a: ended.append(start(*a)) or ended[-1])
    monkeypatch.setattr(processes, "num_processors", lambda: 2)
    program = "import sys, time; sys.stdin.buffer.read(); time.sleep(60)"
    monkeypatch.setattr(drawing, "_PROGRAM", program)
    (tmp_path / f"{jobs[0].part.anchor}.svg").mkdir()
    begun = time.monotonic()
    with pytest.raises(OSError, match="directory"):
        drawing.draw_all(jobs)
    assert time.monotonic() - begun < 50
    assert [process.poll() is not None for process in ended] == [True]
