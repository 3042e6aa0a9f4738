"""Rows are on disk whole or not at all; what cannot be trusted is named and never read."""

import errno
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench import disk, results
from bench.case import Case
from bench.errors import StorageError
from bench.outcome import columns_of, identity
from bench.parquet import read_all
from bench.results import RunDirectory, export, load, unfinished
from bench.row import SCHEMA_VERSION, Row, arrow_schema
from bench.toml import toml_text

CASES = tuple(
    Case(
        level="op",
        contender="sliding_tile",
        impl="eager",
        mode="fwd",
        canvas=(2, 4, 6),
        tile=(1, 2, 3),
        window=window,
        heads=heads,
        dtype="bfloat16",
    )
    for heads, window in ((1, (1, 2, 3)), (3, (2, 2, 6)), (5, (2, 4, 6)))
)
OPTIONS = {"rounds": 2, "timeout_s": 1.5, "budget_s": None, "note": 'a "b"\n', "axes": {"n": [1]}}


def row_of(case, round=0, latency_ms=0.5):
    known = identity(case, round=round, run_id="night", seed=1)
    return Row(**known, status="ok", latency_ms=latency_ms, samples_ms=[0.25, latency_ms])


@pytest.fixture
def run(tmp_path):
    return RunDirectory.create(tmp_path / "run", run_id="night", cases=CASES, options=OPTIONS)


@pytest.fixture
def full_run(run):
    for case in CASES:
        run.write_row(row_of(case, round=1, latency_ms=0.1 * case.heads))
    return run


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    device_name: str
    capability: tuple[int, int]


def only_file(directory):
    (path,) = directory.iterdir()
    return path


def test_a_run_remembers_its_grid_and_options(run):
    again = RunDirectory.open(run.path)
    assert again.cases == CASES
    assert again.run_id == "night"
    assert again.options == {k: v for k, v in OPTIONS.items() if v is not None}


def test_a_row_is_there_as_soon_as_it_is_written(run):
    row = row_of(CASES[1], round=2)
    assert not run.has(CASES[1].case_id, 2)
    run.write_row(row)
    assert run.has(CASES[1].case_id, 2)
    assert not run.has(CASES[1].case_id, 1)
    assert not run.has(CASES[0].case_id, 2)
    assert only_file(run.path / "results").name == f"{CASES[1].case_id}-r2.parquet"
    assert pq.ParquetFile(only_file(run.path / "results")).read().to_pylist() == [columns_of(row)]


def test_writing_a_row_again_replaces_it(run):
    run.write_row(row_of(CASES[0], latency_ms=1.0))
    run.write_row(row_of(CASES[0], latency_ms=2.0))
    frame, _ = load(run.path)
    assert frame.latency_ms.tolist() == [2.0]


def test_loading_gives_every_row_in_schema_order(full_run):
    frame, problems = load(full_run.path)
    assert problems == []
    assert list(frame.columns) == arrow_schema().names
    assert dict(zip(frame.heads, frame.latency_ms, strict=True)) == pytest.approx(
        {1: 0.1, 3: 0.3, 5: 0.5}
    )
    assert set(frame.canvas) == {"2x4x6"}


def test_plain_pandas_reads_the_same(full_run):
    (full_run.path / "results" / ".x-r0.parquet.abc-1.tmp").write_bytes(b"half")
    plain = pd.read_parquet(full_run.path / "results")
    pd.testing.assert_frame_equal(plain, load(full_run.path)[0])


def test_a_run_hands_out_its_rows_unless_one_is_unreadable(full_run):
    assert sorted(full_run.rows().heads) == [1, 3, 5]
    full_run.row_paths()[0].write_bytes(b"")
    with pytest.raises(StorageError, match=r"is damaged: .*\nExpected: every row of"):
        full_run.rows()


def test_a_run_without_rows_loads_as_an_empty_frame(run):
    frame, problems = load(run.path)
    assert (len(frame), problems) == (0, [])
    assert list(frame.columns) == arrow_schema().names


def test_the_machine_is_saved_once(run):
    run.write_machine(Facts(device_name="first", capability=(9, 0)))
    run.write_machine(Facts(device_name="second", capability=(8, 0)))
    saved = json.loads((run.path / "machine.json").read_text())
    assert saved == {"device_name": "first", "capability": [9, 0]}


@pytest.mark.parametrize("damage", ["truncated", "emptied", "flipped", "text", "no rows"])
def test_a_damaged_file_is_named_and_the_rest_is_read(full_run, damage):
    victim = full_run.row_paths()[1]
    data = victim.read_bytes()
    latency = pa.array([row_of(CASES[1]).seq_len]).buffers()[1].to_pybytes()[:8]
    flipped = data.replace(latency, b"\x01" + latency[1:], 1)
    assert flipped != data
    if damage == "no rows":
        pq.write_table(arrow_schema().empty_table(), victim)
    else:
        kinds = {"truncated": data[:-9], "emptied": b"", "flipped": flipped, "text": b"a,b\n1,2\n"}
        victim.write_bytes(kinds[damage])
    frame, problems = load(full_run.path)
    assert len(frame) == 2
    (problem,) = problems
    assert problem.startswith(f"{victim} is damaged: ")
    assert f"rm {victim}" in problem


def test_a_damaged_row_does_not_count_as_finished_and_is_replaced(full_run):
    case = CASES[1]
    victim = full_run.path / "results" / f"{case.case_id}-r1.parquet"
    victim.write_bytes(victim.read_bytes()[:-9])
    assert not full_run.has(case.case_id, 1)
    assert full_run.damaged(case.case_id, 1) == victim
    full_run.write_row(row_of(case, round=1))
    assert full_run.has(case.case_id, 1)
    assert full_run.damaged(case.case_id, 1) is None
    assert full_run.damaged(case.case_id, 2) is None


def test_a_finished_row_is_read_once_and_again_only_if_its_file_changed(full_run, monkeypatch):
    case = CASES[1]
    read = []
    monkeypatch.setattr(
        "bench.results.read_all", lambda paths: (read.extend(paths), read_all(paths))[1]
    )
    assert [full_run.has(case.case_id, 1) for _ in range(3)] == [True] * 3
    assert full_run.damaged(case.case_id, 1) is None
    assert len(read) == 1
    victim = full_run.path / "results" / f"{case.case_id}-r1.parquet"
    victim.write_bytes(victim.read_bytes()[:-9])
    assert not full_run.has(case.case_id, 1)
    victim.unlink()
    assert not full_run.has(case.case_id, 1)
    assert len(read) == 2


def test_a_file_of_another_schema_version_is_named_and_the_rest_is_read(full_run):
    full_run.write_row(replace(row_of(CASES[0], round=7), schema_version=SCHEMA_VERSION + 1))
    frame, problems = load(full_run.path)
    assert len(frame) == 3
    assert f"r7.parquet has schema version {SCHEMA_VERSION + 1}" in problems[0]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.drop_columns(["impl"]), "impl"),
        (lambda t: t.append_column("colour", pa.array(["red"])), "colour"),
        (lambda t: t.select(t.column_names[::-1]), "their order"),
        (lambda t: t.select(["impl"]), "batch"),
    ],
)
def test_a_file_with_other_columns_is_named(full_run, change, told):
    victim = full_run.row_paths()[0]
    pq.write_table(change(pq.ParquetFile(victim).read()), victim)
    frame, problems = load(full_run.path)
    assert len(frame) == 2
    assert told in problems[0]


def test_a_run_of_another_schema_version_is_refused_whole(full_run):
    text = (full_run.path / "run.toml").read_text()
    newer = text.replace(f"schema_version = {SCHEMA_VERSION}", "schema_version = 999")
    (full_run.path / "run.toml").write_text(newer)
    for use in (load, RunDirectory.open):
        with pytest.raises(StorageError, match="has schema version 999\nExpected: schema version"):
            use(full_run.path)


@pytest.mark.parametrize("text", ["", "run_id = ", "run_id = 'x'\nschema_version = 1\n", b"\xff"])
def test_a_damaged_run_toml_is_called_so(run, text):
    data = text if isinstance(text, bytes) else text.encode()
    (run.path / "run.toml").write_bytes(data)
    for use in (load, RunDirectory.open):
        with pytest.raises(StorageError, match=r"run\.toml is damaged: it (has no|cannot be)"):
            use(run.path)


def test_what_is_no_run_directory_is_refused(run):
    (run.path / "run.toml").unlink()
    with pytest.raises(StorageError, match=r"is no run directory: run\.toml"):
        RunDirectory.open(run.path)


def test_a_run_without_rows_is_not_exported(run, tmp_path):
    with pytest.raises(StorageError, match="there is no row to export\nExpected: a run with"):
        export(run.path, tmp_path / "run.parquet")
    assert not (tmp_path / "run.parquet").exists()


def test_a_run_says_how_much_of_it_is_missing(tmp_path):
    made = RunDirectory.create(tmp_path / "a", run_id="x", cases=CASES, options={"rounds": 2})
    made.write_row(row_of(CASES[0], round=0))
    (told,) = unfinished([made.path])
    assert told == f"{made.path} lacks 5 of 6 measurements; ena-bench run --resume {made.path}"
    for case in CASES:
        for number in (0, 1, 2):
            made.write_row(row_of(case, round=number))
    assert unfinished([made.path, tmp_path / "a.parquet"]) == []
    for path in made.row_paths()[:2]:
        path.write_bytes(b"torn")
    (told,) = unfinished([made.path])
    assert told.startswith(f"{made.path} lacks 1 of 6 measurements")


def test_several_runs_and_files_load_together(full_run, tmp_path):
    other = RunDirectory.create(tmp_path / "b", run_id="day", cases=CASES, options={})
    other.write_row(replace(row_of(CASES[0]), run_id="day"))
    assert export(other.path, tmp_path / "day.parquet") == []
    frame, problems = load([full_run.path, tmp_path / "day.parquet"])
    assert problems == []
    assert sorted(frame.run_id) == ["day", "night", "night", "night"]


def test_a_row_that_comes_twice_counts_once(full_run, tmp_path):
    export(full_run.path, tmp_path / "all.parquet")
    frame, problems = load([full_run.path, tmp_path / "all.parquet"])
    assert len(frame) == 3
    assert problems == ["3 rows came more than once; each counts once"]


def test_an_export_holds_the_same_rows_and_says_what_it_left_out(full_run, tmp_path):
    before, _ = load(full_run.path)
    (full_run.path / "results" / "x-r0.parquet").write_bytes(b"")
    problems = export(full_run.path, tmp_path / "all.parquet")
    assert len(problems) == 1
    after, none = load(tmp_path / "all.parquet")
    assert none == []
    pd.testing.assert_frame_equal(after, before)


@pytest.mark.parametrize("data", [None, b"", b"PAR1"])
def test_a_named_file_that_cannot_be_read_is_an_error(tmp_path, data):
    path = tmp_path / "baseline.parquet"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(StorageError, match=r"baseline\.parquet (does not exist|is damaged)"):
        load(path)


def test_a_named_file_of_another_schema_is_an_error(full_run, tmp_path):
    table = pq.ParquetFile(full_run.row_paths()[0]).read()
    versions = pa.array([99], pa.int64())
    pq.write_table(table.set_column(0, "schema_version", versions), tmp_path / "old.parquet")
    with pytest.raises(StorageError, match="has schema version 99"):
        load([full_run.path, tmp_path / "old.parquet"])


def test_a_directory_in_use_is_not_taken_for_a_new_run(full_run, tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "letter.txt").touch()
    for path in (full_run.path, tmp_path / "docs"):
        with pytest.raises(StorageError, match="is not empty\n") as caught:
            RunDirectory.create(path, run_id="x", cases=CASES, options={})
        assert f"--resume {path}" in caught.value.try_
    assert RunDirectory.open(full_run.path).run_id == "night"


def test_a_worker_may_begin_a_log_before_the_grid_is_known(tmp_path):
    path = tmp_path / "deep" / "run"
    RunDirectory.prepare(path)
    (path / "log.txt").write_text("hello")
    run = RunDirectory.create(path, run_id="x", cases=CASES, options={})
    assert run.log_path.read_text() == "hello"
    with pytest.raises(StorageError, match="is not empty"):
        RunDirectory.prepare(path)


def test_one_of_two_that_create_the_same_run_is_refused(tmp_path, monkeypatch):
    RunDirectory.create(tmp_path / "run", run_id="first", cases=CASES, options={})
    monkeypatch.setattr(RunDirectory, "prepare", lambda path: None)
    with pytest.raises(StorageError, match="is not empty"):
        RunDirectory.create(tmp_path / "run", run_id="second", cases=CASES, options={})
    assert RunDirectory.open(tmp_path / "run").run_id == "first"


def test_a_place_that_cannot_be_written_is_an_error_with_a_way_out(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(StorageError, match="cannot be written") as caught:
            RunDirectory.create(path, run_id="x", cases=CASES, options={})
        assert "-o" in caught.value.try_


def test_results_that_became_a_file_are_an_error(full_run):
    shutil.rmtree(full_run.path / "results")
    (full_run.path / "results").touch()
    with pytest.raises(StorageError, match="Not a directory"):
        full_run.write_row(row_of(CASES[0]))


def test_an_export_replaces_an_export_and_nothing_else(full_run, tmp_path):
    page, rows = tmp_path / "report.html", tmp_path / "all.parquet"
    page.write_text("<html>")
    with pytest.raises(StorageError, match=r"report\.html is there and is no parquet file"):
        export(full_run.path, page)
    assert page.read_text() == "<html>"
    export(full_run.path, rows)
    export(full_run.path, rows)
    assert len(pd.read_parquet(rows)) == len(full_run.rows())


def test_what_a_run_lacks_is_told_without_reading_its_rows_again(full_run, monkeypatch):
    rows, _ = load(full_run.path)
    read = []
    original = results.read_all
    monkeypatch.setattr(results, "read_all", lambda files: read.extend(files) or original(files))
    told = unfinished([full_run.path])
    assert read == []
    full_run.row_paths()[0].write_bytes(b"damaged")
    assert unfinished([full_run.path]) != told
    assert read == full_run.row_paths()[:1]
    assert len(rows) == len(full_run.row_paths())


def test_an_export_is_not_named_like_another_kind_of_file(full_run, tmp_path):
    with pytest.raises(StorageError, match=r"rows\.csv would be a parquet file .*\n.*\n.*rows\.p"):
        export([full_run.path], tmp_path / "rows.csv")
    assert not (tmp_path / "rows.csv").exists()


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("notes.txt", "name a run directory"),
        ("old.parquet", "export it anew"),
        ("results/row.parquet", "Delete it with rm .*row.parquet and resume"),
    ],
)
def test_what_to_do_about_a_damaged_file_depends_on_whose_it_is(tmp_path, name, cure):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("no rows")
    (problem,) = read_all([path])
    assert re.search(f"is damaged: .*\nExpected: .*\nTry: {cure}", str(problem.error))


def test_an_export_into_nowhere_is_an_error(full_run, tmp_path):
    with pytest.raises(StorageError, match="No such file or directory"):
        export(full_run.path, tmp_path / "absent" / "all.parquet")


def test_a_full_disk_is_an_error_and_finished_rows_are_intact(full_run, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(disk.os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device") as caught:
        full_run.write_row(row_of(CASES[2], round=9))
    monkeypatch.undo()
    assert "free some space" in caught.value.try_
    assert not full_run.has(CASES[2].case_id, 9)
    assert list((full_run.path / "results").glob(".*")) == []
    frame, problems = load(full_run.path)
    assert (len(frame), problems) == (3, [])


def test_a_file_size_limit_is_an_error_and_finished_rows_are_intact(full_run):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
    try:
        with pytest.raises(StorageError, match="File too large"):
            full_run.write_row(row_of(CASES[0], round=1, latency_ms=99.0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    frame, problems = load(full_run.path)
    assert problems == []
    assert 99.0 not in frame.latency_ms.tolist()
    assert list((full_run.path / "results").glob(".*")) == []


def test_file_and_directory_are_durable_before_the_name_appears(run, monkeypatch):
    done = []

    def sync(descriptor):
        done.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)

    def rename(self, target):
        done.append("rename")
        self.rename(target)

    monkeypatch.setattr(disk.os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", rename)
    run.write_row(row_of(CASES[0]))
    # plain readers of the directory leave out what begins with a dot
    assert done[0].startswith(".")
    assert done[0].endswith(".tmp")
    assert done[1:] == ["rename", "results"]


def test_a_run_whose_rows_were_deleted_can_be_resumed(full_run):
    shutil.rmtree(full_run.path / "results")
    assert RunDirectory.open(full_run.path).row_paths() == []
    assert (full_run.path / "results").is_dir()


def test_leftovers_of_dead_processes_go_when_a_run_is_resumed(full_run):
    ended = subprocess.Popen(["true"])
    ended.wait()
    results = full_run.path / "results"
    host = disk._host()
    dead, alive = (results / f".a-r0.parquet.{host}-{pid}.tmp" for pid in (ended.pid, os.getpid()))
    foreign, old = (results / f".a-r{n}.parquet.00c0ffee-1.tmp" for n in (0, 1))
    for path in (dead, alive, foreign, old):
        path.write_bytes(b"half a row")
    os.utime(old, (0, 0))
    assert len(load(full_run.path)[0]) == 3
    RunDirectory.open(full_run.path)
    assert set(results.glob(".*")) == {alive, foreign}


WRITER = """
import sys
from pathlib import Path
from bench.outcome import identity
from bench.results import RunDirectory
from bench.row import Row

run = RunDirectory.open(Path(sys.argv[1]))
for round in range(8):
    for case in run.cases:
        known = identity(case, round=round, run_id=run.run_id, seed=1)
        run.write_row(Row(**known, status="ok", latency_ms=round + 1.0))
"""


def test_processes_write_into_one_directory_at_once(run):
    command = [sys.executable, "-c", WRITER, str(run.path)]
    root = Path(disk.__file__).parents[1]
    writers = [subprocess.Popen(command, cwd=root) for _ in range(2)]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    frame, problems = load(run.path)
    assert problems == []
    assert len(frame) == 8 * len(CASES)
    assert (frame.latency_ms == frame["round"] + 1).all()
    assert list((run.path / "results").glob(".*")) == []


def test_hundreds_of_files_load(run):
    run.write_row(row_of(CASES[0]))
    table = pq.ParquetFile(run.row_paths()[0]).read()
    for round in range(1, 300):
        changed = table.set_column(
            table.column_names.index("round"), "round", pa.array([round], pa.int64())
        )
        pq.write_table(changed, run.path / "results" / f"{CASES[0].case_id}-r{round}.parquet")
    frame, problems = load(run.path)
    assert problems == []
    assert sorted(frame["round"]) == list(range(300))


def test_a_run_of_another_writer_s_toml_is_read(tmp_path):
    path = tmp_path / "by-hand"
    (path / "results").mkdir(parents=True)
    (path / "run.toml").write_text(
        f"schema_version = {SCHEMA_VERSION}\nrun_id = 'hand'\n[[cases]]\n"
        + toml_text({k: v for k, v in CASES[0].to_dict().items() if k != "window"})
    )
    assert RunDirectory.open(path).cases[0].tile == CASES[0].tile
