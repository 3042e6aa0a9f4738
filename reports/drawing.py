"""Draws the figures of a report into files, with the help of processes where there are many."""

import pickle
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.figure import Figure

from bench import processes
from reports.document import Part, Picture
from reports.figures import FIGURES, FigureKind

PNG_DPI = 150
FIGURES_PER_PROCESS = 5
"""A process pays for its start from so many figures on."""
MAX_PROCESSES = 8
_PROGRAM = "from reports.drawing import draw_share; draw_share()"


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
    number = min(len(jobs) // FIGURES_PER_PROCESS, processes.num_processors(), MAX_PROCESSES)
    if number < 2 or not all(job.kind in FIGURES for job in jobs):
        _draw_here(jobs)
        return
    own, *shares = (jobs[first::number] for first in range(number))
    helpers = [
        processes.start(_PROGRAM, [(job.kind.name, job.part, job.picture) for job in share])
        for share in shares
    ]
    try:
        _draw_here(own)
        for helper, share in zip(helpers, shares, strict=True):
            if helper.wait() != 0:
                # here its fault, if it has one, is an error as any other
                _draw_here(share)
    finally:
        for helper in helpers:
            helper.kill()
            helper.wait()


def draw_share() -> None:
    """In a process of its own: draw what comes through the pipe."""
    kinds = {kind.name: kind for kind in FIGURES}
    share = pickle.load(sys.stdin.buffer)
    _draw_here([Job(kind=kinds[name], part=part, picture=pic) for name, part, pic in share])


def _draw_here(jobs: Sequence[Job]) -> None:
    for job in jobs:
        _save(job.kind.draw(job.part.frame, job.part.styles), job.picture)


def _save(figure: Figure, picture: Picture) -> None:
    """Equal data give equal files: no date, and ids that depend on the figure's name only."""
    for path in picture.files:
        if path.suffix == ".png":
            figure.savefig(path, dpi=PNG_DPI, pil_kwargs={"compress_level": 4})
        else:
            date = "CreationDate" if path.suffix == ".pdf" else "Date"
            # publishers refuse fonts of type 3, which a PDF has otherwise
            with matplotlib.rc_context({"svg.hashsalt": picture.name, "pdf.fonttype": 42}):
                figure.savefig(path, metadata={date: None})
