"""The run directory: one file per finished measurement, written so that a kill loses none.

    run.toml            the resolved grid and the options
    machine.json        facts about the machine
    results/*.parquet   one row each, named by case and round
    log.txt             what workers printed

Processes and hosts share a run directory without locks: a row appears whole or not at all.
"""

import io
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bench.case import Case
from bench.disk import remove_orphans, unwritable, write_whole
from bench.errors import StorageError
from bench.outcome import columns_of
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

    @classmethod
    def create(
        cls, path: Path, *, run_id: str, cases: Iterable[Case], options: Mapping[str, Any]
    ) -> Self:
        """Start a run in a directory that is new or empty.

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

    @staticmethod
    def prepare(path: Path) -> None:
        """Make the directory of a new run, where its worker may begin a log.

        Raises:
            StorageError: it holds something else than a log, or cannot be made.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            if any(found.name != "log.txt" for found in path.iterdir()):
                raise _occupied(path)
        except OSError as err:
            raise unwritable(err, path) from err

    @classmethod
    def open(cls, path: Path) -> Self:
        """Take up a run where it stopped; half-written files of dead processes are removed.

        Raises:
            StorageError: this is no run directory, or one of another schema version.
        """
        run = cls(path)
        found = run._document.get("schema_version")
        if found != SCHEMA_VERSION:
            raise _other_version(path, found)
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
        """Whether that measurement is finished, by whichever process."""
        return self._row_path(case_id, round).exists()

    def write_row(self, row: Row) -> None:
        """Save a finished measurement: on disk when this returns.

        Raises:
            StorageError: the disk is full or the directory cannot be written; rows that were
                written before are intact.
        """
        assert row.case_id is not None
        assert row.round is not None
        table = pa.Table.from_pylist([columns_of(row)], schema=arrow_schema())
        write_whole(self._row_path(row.case_id, row.round), _parquet_bytes(table, "none"))

    def write_machine(self, machine: "Machine") -> None:
        """Save the facts of the first machine that measures; every row has its own."""
        path = self.path / "machine.json"
        if not path.exists():
            write_whole(path, json.dumps(asdict(machine), indent=2).encode() + b"\n")

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
        except (OSError, ValueError) as err:
            raise _no_run(self.path, f"run.toml cannot be read: {err}") from err
        if missing := {"run_id", "cases", "schema_version"} - document.keys():
            raise _no_run(self.path, f"run.toml has no {', '.join(sorted(missing))}")
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

    Raises:
        StorageError: something that was named cannot be read, or `out` cannot be written.
    """
    table, problems = _load_table(paths)
    write_whole(out, _parquet_bytes(table, "zstd"))
    return problems


def _load_table(paths: Paths) -> tuple[pa.Table, list[str]]:
    schema = arrow_schema()
    tables = [schema.empty_table()]
    problems: list[str] = []
    for path in [paths] if isinstance(paths, Path) else paths:
        for file in RunDirectory.open(path).row_paths() if path.is_dir() else [path]:
            try:
                tables.append(_read(file, schema))
            except StorageError as err:
                if file == path:
                    raise
                problems.append(f"{err.wrong}; skipped. {err.try_}")
    table = pa.concat_tables(tables).combine_chunks()
    first = _first_of_each(table)
    if len(first) < len(table):
        problems.append(f"{len(table) - len(first)} rows came more than once; each counts once")
        table = table.take(first)
    return table, problems


def _read(path: Path, schema: pa.Schema) -> pa.Table:
    """The rows of one file.

    Raises:
        StorageError: it is missing, damaged, empty or of another schema.
    """
    try:
        table = pq.ParquetFile(path, page_checksum_verification=True).read(use_threads=False)
    except FileNotFoundError as err:
        raise StorageError(
            f"{path} does not exist",
            expected="a run directory or a parquet file of results",
            try_="ls runs",
        ) from err
    except (pa.ArrowException, OSError) as err:
        raise _damaged(path, str(err).split("\n")[0]) from err
    if table.num_rows == 0:
        raise _damaged(path, "no rows")
    if "schema_version" in table.column_names:
        versions = pc.unique(table["schema_version"]).to_pylist()
        if versions != [SCHEMA_VERSION]:
            raise _other_version(path, *versions)
    if not table.schema.equals(schema):
        raise _other_columns(path, table.schema, schema)
    return table


def _first_of_each(table: pa.Table) -> list[int]:
    """Positions of rows that no earlier row repeats."""
    keys = zip(*(table[name].to_pylist() for name in ("run_id", "case_id", "round")), strict=True)
    positions: dict[tuple[Any, ...], int] = {}
    for position, key in enumerate(keys):
        positions.setdefault(key, position)
    return list(positions.values())


def _parquet_bytes(table: pa.Table, compression: str) -> bytes:
    buffer = io.BytesIO()
    # a row is smaller than the statistics about it
    pq.write_table(
        table,
        buffer,
        compression=compression,
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
    )
    return buffer.getvalue()


def _occupied(path: Path) -> StorageError:
    return StorageError(
        f"{path} is not empty",
        expected="a new or empty directory for a new run",
        try_=f"ena-bench run --resume {path}, or -o with another path",
    )


def _no_run(path: Path, why: str) -> StorageError:
    return StorageError(
        f"{path} is no run directory: {why}",
        expected="a directory that ena-bench run made, with run.toml and results/",
        try_="ls runs",
    )


def _other_version(path: Path, *found: object) -> StorageError:
    shown = " and ".join(map(str, found))
    return StorageError(
        f"{path} has schema version {shown}",
        expected=f"schema version {SCHEMA_VERSION}, the one of this ena-bench",
        try_="read it with the version that wrote it, or measure anew: ena-bench run -o runs/new",
    )


def _damaged(path: Path, why: str) -> StorageError:
    return StorageError(
        f"{path} is damaged: {why}",
        expected="a whole parquet file of results",
        try_=f"Delete it with rm {path} and resume the run",
    )


def _other_columns(path: Path, found: pa.Schema, schema: pa.Schema) -> StorageError:
    names = sorted({*found.names, *schema.names})
    odd = [n for n in names if _type_of(n, found) != _type_of(n, schema)] or ["their order"]
    return StorageError(
        f"{path} differs from schema version {SCHEMA_VERSION} in {', '.join(odd[:4])}",
        expected="the columns of docs/columns.md, in that order",
        try_="ena-bench export from the run directory it came from",
    )


def _type_of(name: str, schema: pa.Schema) -> pa.DataType | None:
    position = schema.get_field_index(name)
    return schema.field(position).type if position >= 0 else None
