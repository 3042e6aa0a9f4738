"""Runs are called as their directories and files are."""

import pytest
from click.testing import CliRunner

from bench.errors import StorageError
from bench.results import RunDirectory, export
from bench.row import Row
from cli import main
from reports.run_names import names_of


@pytest.fixture
def made(tmp_path, row):
    """Makes a run directory with one row."""

    def make(name, run_id, **columns):
        run = RunDirectory.create(tmp_path / name, run_id=run_id, cases=[], options={})
        run.write_row(Row(**row(run_id=run_id, case_id="c0ffee", **columns)))
        return run.path

    return make


def test_a_directory_or_file_names_its_run_whatever_it_was_called_before(made, tmp_path):
    first, second = made("base", "ci-0a1b2c"), made("next", "ci-3d4e5f")
    export([second], tmp_path / "D.parquet")
    assert names_of([first, tmp_path / "D.parquet"]) == {"ci-0a1b2c": "base", "ci-3d4e5f": "D"}
    assert names_of([]) == {}


def test_a_file_of_several_runs_names_none_of_them(made, tmp_path):
    export([made("base", "ci-0a1b2c"), made("next", "ci-3d4e5f")], tmp_path / "both.parquet")
    assert names_of([tmp_path / "both.parquet"]) == {}


def test_a_run_that_is_named_twice_has_no_name(made, tmp_path):
    first = made("base", "ci-0a1b2c")
    export([first], tmp_path / "again.parquet")
    assert names_of([first, tmp_path / "again.parquet"]) == {}


def test_a_directory_that_is_no_run_is_said_to_be_none(tmp_path):
    with pytest.raises(StorageError, match=r"run\.toml"):
        names_of([tmp_path])


def test_a_report_of_two_runs_bears_their_names(made, tmp_path):
    runs = [made("base", "ci-0a1b2c"), made("D", "ci-3d4e5f", started_at="2026-01-31T17:34:00")]
    command = ["report", *map(str, runs), "-o", str(tmp_path / "report")]
    told = CliRunner().invoke(main, command)
    assert told.exit_code == 0, told.output
    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "Transformer (sdpa_cudnn), base" in text
    assert "Transformer (sdpa_cudnn), D" in text
    assert "17:34" not in text.split("Transformer (sdpa_cudnn), D")[1].splitlines()[0]
