"""What a run shows while it measures: a bar on a terminal, a line per measured case elsewhere."""

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Bar
from rich.table import Column

from bench import units
from reports.listing import shorten

if TYPE_CHECKING:
    from bench.case import Case
    from bench.row import Row
    from bench.runner import Event


WIDE = 100
"""Columns of a terminal in which the bar is long."""
LEAST_PATH = 24
"""Columns that a path keeps beside a long text."""


class Progress:
    """Shows a run on stderr; a context manager.

    Feed it with the events of a run through `show`, or call `started`, `phase`, `progress`,
    `finished` and `skipped` as they happen.

    Args:
        is_quiet: Show nothing at all.
        console: Where to write; by default stderr.
        clock: Seconds, only differences count.
    """

    def __init__(
        self,
        *,
        is_quiet: bool = False,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console or Console(stderr=True)
        self._is_quiet = is_quiet
        self._clock = clock
        self._bar = self._new_bar() if self._console.is_terminal and not is_quiet else None
        self._task: TaskID | None = None
        self._path = ""
        self._whose = ""
        self._phase = ""
        self._num_done = 0
        self._num_total = 0
        self._num_measured = 0
        self._began_s: float | None = None

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, event: "Event") -> None:
        """Take an event of `bench.runner`."""
        self._num_done, self._num_total = event.num_done, event.num_total
        self._whose = f"{event.whose}  " if event.whose else ""
        match event.kind:
            case "started":
                self.started(event.case, event.num_done, event.num_total)
            case "phase":
                self.phase(event.phase or "")
            case "progress":
                self._estimate(event.values)
            case "finished" if event.row is not None:
                self._show_finished(event.row)
            case "skipped":
                self._refresh("saved before")

    def started(self, case: "Case", index: int, total: int) -> None:
        """A case begins; `index` others are done out of `total`."""
        if self._began_s is None:
            self._began_s = self._clock()
        self._path, self._num_done, self._num_total = case.case_path, index, total
        self.phase("start")

    def phase(self, name: str) -> None:
        """The worker turns to something: build, verify, time, ..."""
        self._phase = name
        self._refresh(name)

    def progress(
        self, estimate_ms: float, num_samples: int, interval_fraction: float | None = None
    ) -> None:
        """While timing: the latest estimate, and how far the interval is from the median."""
        text = f"{units.duration(estimate_ms)} after {units.plural(num_samples, 'sample')}"
        if interval_fraction is not None:
            text += f", known to {units.known_to(interval_fraction)}"
        self._refresh(text)

    def finished(self, row: "Row") -> None:
        """A case is done, whatever its status."""
        self._num_done += 1
        self._show_finished(row)

    def skipped(self) -> None:
        """A case was saved before and is not measured again."""
        self._num_done += 1
        self._refresh("saved before")

    def seconds_left(self) -> float | None:
        """From the mean time of the cases measured so far; None before the first."""
        if not self._num_measured or self._began_s is None:
            return None
        each_s = (self._clock() - self._began_s) / self._num_measured
        return each_s * max(self._num_total - self._num_done, 0)

    def _estimate(self, values: Mapping[str, float]) -> None:
        self.progress(
            values["latency_ms"], int(values["num_samples"]), values.get("interval_fraction")
        )

    def _show_finished(self, row: "Row") -> None:
        if row.status != "unsupported":
            self._num_measured += 1
            self._print(row)
        self._refresh(_result(row))

    def _print(self, row: "Row") -> None:
        """A line per case; on a terminal only for failures, above the bar."""
        if self._is_quiet or (self._bar is not None and row.status == "ok"):
            return
        number = f"[{self._num_done}/{self._num_total}]"
        line = f"{number} {self._whose}{row.case_path}  {_result(row)}"
        style = None if row.status == "ok" else "red"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True, style=style)

    def _refresh(self, text: str) -> None:
        if self._bar is None:
            return
        left = self.seconds_left()
        left_text = f"{units.duration(left * 1e3)} left" if left is not None else ""
        if self._task is None:
            self._task = self._bar.add_task("", total=None, left="", what="")
        path, state = self._fitting(self._whose + self._path, text, left_text)
        self._bar.update(
            self._task,
            completed=self._num_done,
            total=self._num_total or None,
            left=left_text,
            what=f"[cyan]{escape(path)}[/] {escape(state)}",
        )

    def _fitting(self, path: str, state: str, left: str) -> tuple[str, str]:
        """Both as long as the width allows beside the count and the time left."""
        count = f"{self._num_total}/{self._num_total}"
        taken = [" " * _bar_width(self._console), count, left, ""]
        room = self._console.width - len(" ".join(taken)) - 1
        state = shorten(state, max(room - min(len(path), LEAST_PATH, room // 2), 0))
        return _cut_in_the_middle(path, max(room - len(state), 0)), state

    def _new_bar(self) -> Bar:
        return Bar(
            BarColumn(bar_width=_bar_width(self._console)),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[what]}"),
            console=self._console,
            transient=True,
        )


def _bar_width(console: Console) -> int:
    return 20 if console.width >= WIDE else 10


def _cut_in_the_middle(path: str, width: int) -> str:
    """`layer/ena/...-bfloat16-cuda`: a path differs from the next at both ends."""
    if len(path) <= width:
        return path
    kept = max(width - 3, 0)
    end = kept // 2
    return f"{path[: kept - end]}...{path[len(path) - end :]}"[:width]


def _result(row: "Row") -> str:
    if row.status == "ok" and row.latency_ms is not None:
        return units.duration(row.latency_ms)
    reason = " ".join((row.reason or "").split())
    return f"{row.status}: {reason}" if reason else str(row.status)
