"""Rows as parquet bytes and back, with every reason why a file cannot be trusted."""

import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bench.errors import StorageError
from bench.row import SCHEMA_VERSION, arrow_schema

_BATCH_FILES = 64
_MOST_READERS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Unreadable:
    path: Path
    error: StorageError


def read_all(files: Sequence[Path]) -> Iterator[pa.Table | Unreadable]:
    """The table of each file, or why there is none, in order."""
    schema = arrow_schema()

    def read_batch(batch: Sequence[Path]) -> list[pa.Table | Unreadable]:
        found: list[pa.Table | Unreadable] = []
        for path in batch:
            try:
                found.append(_read(path, schema))
            except StorageError as err:
                found.append(Unreadable(path=path, error=err))
        return found

    # decoding a hundred columns takes a millisecond a file, and lets other threads run
    batches = [files[i : i + _BATCH_FILES] for i in range(0, len(files), _BATCH_FILES)]
    with ThreadPoolExecutor(min(_MOST_READERS, os.cpu_count() or 1)) as pool:
        for tables in pool.map(read_batch, batches):
            yield from tables


def is_parquet(path: Path) -> bool:
    """Whether a file begins as parquet files do."""
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


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
            raise other_version(path, *versions)
    if not table.schema.equals(schema):
        raise _other_columns(path, table.schema, schema)
    return table


def parquet_bytes(table: pa.Table, compression: str) -> bytes:
    buffer = io.BytesIO()
    # a row is smaller than the statistics about it
    pq.write_table(
        table,
        buffer,
        compression=compression,
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
        store_schema=False,
    )
    return buffer.getvalue()


def other_version(path: Path, *found: object) -> StorageError:
    shown = " and ".join(map(str, found))
    return StorageError(
        f"{path} has schema version {shown}",
        expected=f"schema version {SCHEMA_VERSION}, the one of this ena-bench",
        try_="read it with the version that wrote it, or measure anew: ena-bench run -o runs/new",
    )


def _cure(path: Path) -> str:
    if path.suffix != ".parquet":
        return "name a run directory, or a file that ena-bench export wrote"
    if path.parent.name == "results":
        return f"Delete it with rm {path} and resume the run"
    return "export it anew from its run directory"


def _damaged(path: Path, why: str) -> StorageError:
    return StorageError(
        f"{path} is damaged: {why}",
        expected="a whole parquet file of results",
        try_=_cure(path),
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
