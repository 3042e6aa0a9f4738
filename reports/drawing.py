"""Draws the figures of a report into files, in several processes where there are many."""

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context

import matplotlib
from matplotlib.figure import Figure

from reports.document import Part, Picture
from reports.figures import FIGURES, FigureKind

PNG_DPI = 150
FIGURES_PER_PROCESS = 5
"""A process pays for its start from so many figures on."""
MAX_PROCESSES = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A figure that is to be drawn."""

    kind: FigureKind
    part: Part
    picture: Picture


def draw_all(jobs: Sequence[Job]) -> None:
    """Write the files of every picture.

    Raises:
        OSError: a file cannot be written.
    """
    number = min(len(jobs) // FIGURES_PER_PROCESS, _num_processors(), MAX_PROCESSES)
    if number < 2 or not all(job.kind in FIGURES for job in jobs):
        for job in jobs:
            _draw(job)
        return
    try:
        _draw_in_processes(jobs, number)
    except BrokenProcessPool:
        # a program without a main guard cannot start processes; its figures are drawn here
        for job in jobs:
            _draw(job)


def _draw_in_processes(jobs: Sequence[Job], number: int) -> None:
    with ProcessPoolExecutor(number, mp_context=get_context("spawn")) as pool:
        waiting = [pool.submit(_draw_named, job.kind.name, job.part, job.picture) for job in jobs]
        for done in waiting:
            done.result()


def _draw_named(name: str, part: Part, picture: Picture) -> None:
    """In a process of its own, which knows the same kinds of figures by name."""
    kind = next(kind for kind in FIGURES if kind.name == name)
    _draw(Job(kind=kind, part=part, picture=picture))


def _draw(job: Job) -> None:
    _save(job.kind.draw(job.part.frame, job.part.styles), job.picture)


def _save(figure: Figure, picture: Picture) -> None:
    """Equal data give equal files: no date, and ids that depend on the figure's name only."""
    for path in picture.files:
        if path.suffix == ".png":
            figure.savefig(path, dpi=PNG_DPI)
        else:
            date = "CreationDate" if path.suffix == ".pdf" else "Date"
            with matplotlib.rc_context({"svg.hashsalt": picture.name}):
                figure.savefig(path, metadata={date: None})


def _num_processors() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
