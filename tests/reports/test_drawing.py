"""Figures are drawn alike in one process and in several."""

import multiprocessing
from concurrent.futures.process import BrokenProcessPool

import pandas as pd
import pytest

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


def test_processes_draw_what_one_process_draws(jobs, monkeypatch):
    assert len(jobs) == 10
    monkeypatch.setattr(drawing, "_num_processors", lambda: 1)
    drawing.draw_all(jobs)
    alone = _written(jobs)
    assert len(set(alone)) == 10
    for job in jobs:
        job.picture.files[0].unlink()
    monkeypatch.setattr(drawing, "_num_processors", lambda: 2)
    monkeypatch.setattr(drawing, "_draw", lambda job: pytest.fail("drawn in this process"))
    drawing.draw_all(jobs)
    assert _written(jobs) == alone
    assert multiprocessing.active_children() == []


def test_figures_are_drawn_here_where_no_process_can_start(jobs, monkeypatch):
    def broken(jobs, number):
        raise BrokenProcessPool("no main guard")

    monkeypatch.setattr(drawing, "_num_processors", lambda: 2)
    monkeypatch.setattr(drawing, "_draw_in_processes", broken)
    drawing.draw_all(jobs)
    assert len(_written(jobs)) == 10


def test_a_fault_of_a_figure_is_not_swallowed_by_a_process(jobs, monkeypatch, tmp_path):
    monkeypatch.setattr(drawing, "_num_processors", lambda: 2)
    (tmp_path / f"{jobs[3].part.anchor}.svg").mkdir()
    with pytest.raises(OSError, match="directory"):
        drawing.draw_all(jobs)
