"""A baseline: a run directory or an exported file, its rows, and how to measure its cases again."""

import tomllib
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bench import units
from bench.case import Case, parse_shape
from bench.errors import EnaBenchError, StorageError, UsageError
from bench.results import RunDirectory, load, unfinished
from bench.row import SCHEMA_VERSION

if TYPE_CHECKING:
    from bench.timing import Settings

ROUNDS = {"cuda": 10, "cpu": 20}
"""Rounds with which a slow-down of 5% on a GPU, 10% on a CPU, is found 95 times in 100: so says
`ena-bench selftest`."""

_REFRESH = "make another: ena-bench run --preset ci --rounds 10 --fresh-workers -o runs/new, then "
_REFRESH += "ena-bench export runs/new -o FILE"
_UNFINISHED = "not measured yet: the candidate's run is unfinished"


class NotComparableError(EnaBenchError):
    """Two runs cannot be compared at all, through no fault of the code that was measured."""

    exit_code: ClassVar[int] = 4


def read(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """The rows of a run directory or a parquet file, and what a directory lacks: what could not be
    read, and what was planned and is not measured yet.

    Raises:
        NotComparableError: it has another schema version.
        StorageError: it is missing, damaged, or holds no successful measurement.
    """
    version = _schema_version(path)
    if version not in (None, SCHEMA_VERSION):
        raise NotComparableError(
            f"{path} has schema version {version}, this ena-bench writes {SCHEMA_VERSION}",
            expected="two runs of one schema",
            try_=_REFRESH,
        )
    try:
        rows, problems = load(path)
    except StorageError as err:
        raise StorageError(err.wrong, expected=err.expected, try_=_REFRESH) from err
    if not (rows["status"] == "ok").any():
        raise StorageError(
            f"{path} holds no successful measurement ({len(rows)} rows)",
            expected="at least one row with status ok",
            try_=_REFRESH,
        )
    return rows, [*problems, *unfinished([path])]


def require_whole(path: Path) -> None:
    """Refuse a run directory whose lost or missing cases a gate would say nothing about.

    A file does not tell what was planned, and case by case fewer rounds than planned will do.

    Raises:
        StorageError: a row cannot be read, or a case was never measured.
    """
    if not path.is_dir():
        return
    run = RunDirectory.open(path)
    if lost := run.unreadable():
        wrong = f"{units.plural(len(lost), 'row')} of the baseline cannot be read: {lost[0].wrong}"
    elif absent := run.unmeasured():
        first = next(iter(absent)).case_path
        planned = units.plural(len(run.cases), "case")
        wrong = f"the baseline {path} lacks {len(absent)} of {planned}, such as {first}"
    else:
        return
    raise StorageError(
        wrong,
        expected="a baseline with every case that it plans: nothing is said about any other",
        try_=f"ena-bench run --resume {path}, at the revision that it measured; or {_REFRESH}",
    )


def unmeasured(path: Path) -> dict[str, str]:
    """Cases that a run directory plans and has no row of, by id, and why not; a file does not
    tell."""
    if not path.is_dir():
        return {}
    return {
        case.case_id: _UNFINISHED if err is None else f"not readable: {err.wrong}"
        for case, err in RunDirectory.open(path).unmeasured().items()
    }


def cases(rows: pd.DataFrame) -> list[Case]:
    """The cases that were ok at least once, in order of appearance.

    Raises:
        NotComparableError: a case of these columns has another case_id now.
    """
    found = rows[rows["status"] == "ok"].drop_duplicates("case_id")
    return [_case(row) for row in found.to_dict("records")]


def settings(path: Path, rows: pd.DataFrame, changes: dict[str, Any]) -> "Settings":
    """How the baseline was measured, with changes that are not None.

    A run directory says so itself; a file tells timer and seed, and the rest is the default.

    Raises:
        UsageError: a change is out of range.
    """
    from bench.timing import Settings

    known: dict[str, Any] = {}
    if path.is_dir():
        known = dict(RunDirectory.open(path).options.get("settings", {}))
    else:
        for column in ("timer", "seed"):
            values = rows.loc[rows["status"] == "ok", column].dropna().unique().tolist()
            if len(values) == 1:
                known[column] = values[0] if column == "timer" else int(values[0])
    return Settings.from_dict(known | {k: v for k, v in changes.items() if v is not None})


def num_rounds(rows: pd.DataFrame) -> int:
    """The most successful rounds of any case."""
    return int(rows[rows["status"] == "ok"].groupby("case_id").size().max())


def _case(row: dict[Any, Any]) -> Case:
    plain: dict[str, Any] = {
        f.name: None if _is_missing(row[f.name]) else row[f.name] for f in fields(Case)
    }
    try:
        for name in ("canvas", "tile", "window"):
            if plain[name] is not None:
                plain[name] = parse_shape(plain[name], name=name)
        for name in ("batch", "heads", "head_dim", "depth"):
            plain[name] = int(plain[name])
        found = Case.from_dict(plain)
    except (UsageError, TypeError, ValueError) as err:
        raise _other_case(row, str(err).split("\n")[0]) from err
    if found.case_id != row["case_id"]:
        raise _other_case(row, f"its case_id is {found.case_id} now")
    return found


def _other_case(row: dict[Any, Any], why: str) -> NotComparableError:
    return NotComparableError(
        f"{row['case_path']} of the baseline is another case now: {why}",
        expected="a baseline whose cases this ena-bench can measure",
        try_=_REFRESH,
    )


def _is_missing(value: Any) -> bool:
    return value is None or bool(pd.isna(value))


def _schema_version(path: Path) -> object:
    """What a run or file says about its schema; None where it does not say, or cannot be read."""
    try:
        if path.is_dir():
            return tomllib.loads((path / "run.toml").read_text("utf-8")).get("schema_version")
        column = pq.read_table(path, columns=["schema_version"])["schema_version"]
        versions = pc.unique(column).to_pylist()
    except (OSError, ValueError, KeyError, pa.ArrowException):
        return None
    odd = [version for version in versions if version != SCHEMA_VERSION]
    return odd[0] if odd else None
