"""The run directory: one file per finished measurement, written so that a kill loses none.

    run.toml            the resolved grid and the options
    machine.json        facts about the machine
    results/*.parquet   one row each, named by case and round
    log.txt             what workers printed

Processes and hosts share a run directory without locks: a row appears whole or not at all.
"""

import json
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa

from bench import units
from bench.case import Case
from bench.disk import remove_orphans, unwritable, write_whole
from bench.errors import StorageError
from bench.outcome import columns_of
from bench.parquet import Unreadable, is_parquet, other_version, parquet_bytes, read_all
from bench.row import SCHEMA_VERSION, Row, arrow_schema
from bench.toml import toml_text

if TYPE_CHECKING:
    import pandas as pd

    from bench.machine import Machine

Paths = Path | Sequence[Path]


class RunDirectory:
    """A run on disk; `create` a new one or `open` one to resume it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log_path = path / "log.txt"
        self._results = path / "results"

    @staticmethod
    def prepare(path: Path) -> None:
        """Make the directory of a new run, where its worker may begin a log.

        Raises:
            StorageError: it holds something else than a log, or cannot be made.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            if any(entry.name != "log.txt" for entry in path.iterdir()):
                raise _occupied(path)
        except OSError as err:
            raise unwritable(err, path) from err

    @classmethod
    def create(
        cls, path: Path, *, run_id: str, cases: Iterable[Case], options: Mapping[str, Any]
    ) -> Self:
        """Start a run in a directory that is new, empty or prepared.

        Args:
            cases: The resolved grid.
            options: How it is measured, as plain values; None means absent.

        Raises:
            StorageError: the directory holds something, or cannot be written.
        """
        cls.prepare(path)
        try:
            # making this directory decides which of two processes owns the new run
            (path / "results").mkdir()
        except FileExistsError as err:
            raise _occupied(path) from err
        except OSError as err:
            raise unwritable(err, path) from err
        document = {
            "schema_version": SCHEMA_VERSION,
            "run_id": run_id,
            "options": options,
            "cases": [case.to_dict() for case in cases],
        }
        write_whole(path / "run.toml", toml_text(document).encode())
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Take up a run where it stopped; half-written files of dead processes are removed.

        Raises:
            StorageError: this is no run directory, or one of another schema version.
        """
        run = cls(path)
        found = run._document.get("schema_version")
        if found != SCHEMA_VERSION:
            raise other_version(path, found)
        run._results.mkdir(exist_ok=True)
        remove_orphans(run._results)
        return run

    @property
    def run_id(self) -> str:
        run_id: str = self._document["run_id"]
        return run_id

    @property
    def options(self) -> dict[str, Any]:
        """The options of `create`, without those that were None."""
        options: dict[str, Any] = self._document.get("options", {})
        return options

    @property
    def cases(self) -> tuple[Case, ...]:
        """The resolved grid, in the order it was given."""
        return tuple(Case.from_dict(values) for values in self._document["cases"])

    def has(self, case_id: str, round: int) -> bool:
        """Whether that measurement is finished, by whichever process; a damaged file is not."""
        path = self._row_path(case_id, round)
        return _version(path) is not None and not _unreadable([path])

    def damaged(self, case_id: str, round: int) -> Path | None:
        """The file of a measurement that cannot be read, which writing the row replaces."""
        path = self._row_path(case_id, round)
        return path if path.exists() and not self.has(case_id, round) else None

    def write_row(self, row: Row) -> None:
        """Save a finished measurement: on disk when this returns.

        Raises:
            StorageError: the disk is full or the directory cannot be written; rows that were
                written before are intact.
        """
        assert row.case_id is not None
        assert row.round is not None
        table = pa.Table.from_pylist([columns_of(row)], schema=arrow_schema())
        write_whole(self._row_path(row.case_id, row.round), parquet_bytes(table, "none"))

    def write_machine(self, machine: "Machine") -> None:
        """Save the facts of the first machine that measures; every row has its own."""
        path = self.path / "machine.json"
        if not path.exists():
            write_whole(path, json.dumps(asdict(machine), indent=2).encode() + b"\n")

    def rows(self) -> "pd.DataFrame":
        """Every finished row.

        Raises:
            StorageError: a row of this run cannot be read.
        """
        frame, problems = load(self.path)
        if problems:
            raise StorageError(
                problems[0],
                expected=f"every row of {self.path} to be readable",
                try_=f"ena-bench report {self.path}, which leaves such rows out and says so",
            )
        return frame

    def unmeasured(self) -> dict[Case, StorageError | None]:
        """Planned cases without a row that can be read, and what is wrong with a file of theirs."""
        num_rows, damaged = self._found()
        return {
            case: damaged.get(case.case_id) for case in self.cases if not num_rows[case.case_id]
        }

    def missing(self) -> str | None:
        """What is planned and has no row that can be read, in a sentence; None if all of it has."""
        rounds = self.options.get("rounds", 1)
        found, _ = self._found()
        number = sum(max(rounds - found[case.case_id], 0) for case in self.cases)
        if not number:
            return None
        planned = units.plural(rounds * len(self.cases), "measurement")
        return f"{self.path} lacks {number} of {planned}; ena-bench run --resume {self.path}"

    def _found(self) -> tuple[Counter[str], dict[str, StorageError]]:
        """How many rows of a case can be read, and the error of one that cannot, by its id."""
        paths = self.row_paths()
        lost = {found.path: found.error for found in _unreadable(paths)}
        num_rows = Counter(_case_id(path) for path in paths if path not in lost)
        return num_rows, {_case_id(path): error for path, error in lost.items()}

    def unreadable(self) -> list[StorageError]:
        """What is wrong with each file that cannot be read."""
        return [found.error for found in _unreadable(self.row_paths())]

    def row_paths(self) -> list[Path]:
        """Every finished row, by name."""
        return sorted(self._results.glob("[!.]*.parquet"))

    def _row_path(self, case_id: str, round: int) -> Path:
        return self._results / f"{case_id}-r{round}.parquet"

    @cached_property
    def _document(self) -> dict[str, Any]:
        path = self.path / "run.toml"
        try:
            with path.open("rb") as file:
                document = tomllib.load(file)
        except (FileNotFoundError, NotADirectoryError) as err:
            raise _no_run(self.path, f"run.toml cannot be read: {err}") from err
        except (OSError, ValueError) as err:
            raise _damaged(path, f"cannot be read: {err}") from err
        if missing := {"run_id", "cases", "schema_version"} - document.keys():
            raise _damaged(path, f"has no {', '.join(sorted(missing))}")
        return document


def load(paths: Paths) -> "tuple[pd.DataFrame, list[str]]":
    """Read run directories and parquet files into one frame, columns in schema order.

    Returns:
        The rows, and a sentence for each file inside a run directory that was skipped because it
        is damaged, empty or of another schema version, and for rows that came twice.

    Raises:
        StorageError: something that was named cannot be read at all.
    """
    table, problems = _load_table(paths)
    return table.to_pandas(), problems


def export(paths: Paths, out: Path) -> list[str]:
    """Write the rows of run directories and files as one parquet file; return what was skipped.

    `require_whole` then tells whether rows were lost.

    Raises:
        StorageError: something that was named cannot be read or has no rows, or `out` cannot be
            written or is a file of another kind.
    """
    if out.is_file() and not is_parquet(out):
        raise StorageError(
            f"{out} is there and is no parquet file",
            expected="a new file, or an export to replace",
            try_=f"-o {out.with_suffix('.parquet')}",
        )
    if out.suffix not in ("", ".parquet"):
        raise StorageError(
            f"{out} would be a parquet file in spite of its name",
            expected="a name that ends in .parquet",
            try_=f"-o {out.with_suffix('.parquet')}",
        )
    table, problems = _load_table(paths)
    if not table.num_rows:
        raise StorageError(
            "there is no row to export",
            expected="a run with at least one finished measurement",
            try_="ena-bench run --resume RUN, which goes on with it",
        )
    write_whole(out, parquet_bytes(table, "zstd"))
    return problems


def require_whole(paths: Sequence[Path], out: Path) -> None:
    """Refuse an export of run directories that lost rows; `out` holds the others.

    Raises:
        StorageError: files in them cannot be read.
    """
    runs = [RunDirectory(path) for path in paths if path.is_dir()]
    lost = [run for run in runs for _ in run.unreadable()]
    if lost:
        num_rows = sum(len(run.row_paths()) for run in runs)
        raise StorageError(
            f"{len(lost)} of {units.plural(num_rows, 'row')} cannot be read: {out} lacks them",
            expected="a run whose every row can be read; as a baseline, the file would hide cases",
            try_=f"ena-bench run --resume {lost[0].path}, which measures them again; export anew",
        )


def unfinished(paths: Sequence[Path]) -> list[str]:
    """A sentence for each run directory that lacks measurements which it has planned."""
    runs = (RunDirectory(path) for path in paths if path.is_dir())
    return [text for text in (run.missing() for run in runs) if text]


def _load_table(paths: Paths) -> tuple[pa.Table, list[str]]:
    named = [paths] if isinstance(paths, Path) else list(paths)
    files = [
        file
        for path in named
        for file in (RunDirectory.open(path).row_paths() if path.is_dir() else [path])
    ]
    tables = [arrow_schema().empty_table()]
    problems: list[str] = []
    for found in _read(files):
        if isinstance(found, pa.Table):
            tables.append(found)
        elif found.path in named:
            raise found.error
        else:
            problems.append(f"{found.error.wrong}; skipped. {found.error.try_}")
    table = pa.concat_tables(tables).combine_chunks()
    first = _first_of_each(table)
    if len(first) < len(table):
        problems.append(f"{len(table) - len(first)} rows came more than once; each counts once")
        table = table.take(first)
    return table, problems


_WHOLE: dict[Path, tuple[int, ...]] = {}
"""Files that were found whole, and which version of each: they are not read again to tell."""


def _read(files: Sequence[Path]) -> Iterator[pa.Table | Unreadable]:
    """As `read_all`, remembering which files are whole."""
    versions = [_version(file) for file in files]
    for file, version, found in zip(files, versions, read_all(files), strict=True):
        if version is not None and isinstance(found, pa.Table):
            _WHOLE[file] = version
        yield found


def _unreadable(files: Sequence[Path]) -> list[Unreadable]:
    """Those that cannot be read, in order."""
    doubtful = [file for file in files if _WHOLE.get(file, ()) != _version(file)]
    return [found for found in _read(doubtful) if isinstance(found, Unreadable)]


def _version(file: Path) -> tuple[int, ...] | None:
    """What changes whenever a file does; None where there is none."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _case_id(row_path: Path) -> str:
    return row_path.stem.rpartition("-r")[0]


def _first_of_each(table: pa.Table) -> list[int]:
    """Positions of rows that no earlier row repeats."""
    keys = zip(*(table[name].to_pylist() for name in ("run_id", "case_id", "round")), strict=True)
    positions: dict[tuple[Any, ...], int] = {}
    for position, key in enumerate(keys):
        positions.setdefault(key, position)
    return list(positions.values())


def _occupied(path: Path) -> StorageError:
    return StorageError(
        f"{path} is not empty",
        expected="a new or empty directory for a new run",
        try_=f"ena-bench run --resume {path}, or -o with another path",
    )


def _damaged(path: Path, why: str) -> StorageError:
    return StorageError(
        f"{path} is damaged: it {why}",
        expected="the file as ena-bench run wrote it",
        try_=f"restore it from a copy; the rows alone are still in {path.parent / 'results'}",
    )


def _no_run(path: Path, why: str) -> StorageError:
    return StorageError(
        f"{path} is no run directory: {why}",
        expected="a directory that ena-bench run made, with run.toml and results/",
        try_="ls runs",
    )
