"""What the runs of a command are called: the directories and files that somebody named."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from bench.results import RunDirectory


def names_of(paths: Sequence[Path]) -> dict[str, str]:
    """Run to the name of its directory, or of the file that holds it and no other run.

    A run that is named twice has no name.

    Raises:
        StorageError: a directory is no run.
    """
    named: dict[str, set[str]] = {}
    for path in paths:
        place, runs = path.resolve(), _runs(path)
        for run in runs if len(runs) == 1 else ():
            named.setdefault(run, set()).add(place.name if place.is_dir() else place.stem)
    return {run: name for run, (name, *others) in named.items() if not others}


def _runs(path: Path) -> set[str]:
    if path.is_dir():
        return {RunDirectory(path).run_id}
    return set(pq.read_table(path, columns=["run_id"])["run_id"].to_pylist())
