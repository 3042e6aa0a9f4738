"""A baseline reads back as the cases and settings it was measured with, or says what is wrong."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench import baseline
from bench.baseline import NotComparableError
from bench.errors import StorageError, UsageError
from bench.results import RunDirectory
from bench.row import Row, arrow_schema
from bench.timing import Settings
from tests.comparing import case_of, failed, replaced, rows_of

STORED = Path(__file__).parents[2] / "baselines"
CASES = [
    case_of(3),
    case_of(
        2, contender="sliding_tile", canvas=(8, 12), tile=(4, 6), sparsity_target=0.5, permute="io"
    ),
    case_of(2, contender="sliding_tile", canvas=(8, 12), tile=(4, 6), window=(4, 6)),
    case_of(5, contender="scan", scan="cross", scan_variant="official", dtype="float64"),
    case_of(7, level="layer", contender="ena", interleave="stacked", depth=2, mode="fwdbwd"),
]


def plain(values):
    """Columns without NaN, which a frame makes of None."""
    return {k: None if isinstance(v, float) and v != v else v for k, v in values.items()}


def written(frame, path):
    records = [plain(row) for row in frame.to_dict("records")]
    pq.write_table(pa.Table.from_pylist(records, schema=arrow_schema()), path)
    return path


@pytest.fixture
def file(tmp_path):
    return written(rows_of(CASES, rounds=2), tmp_path / "baseline.parquet")


def test_the_cases_of_a_file_are_those_that_were_measured(file):
    rows, problems = baseline.read(file)
    assert problems == []
    assert baseline.cases(rows) == CASES
    assert baseline.num_rounds(rows) == 2


def test_cases_that_were_never_ok_are_left_out(file):
    rows, _ = baseline.read(file)
    lost = failed(rows, rows["case_id"] == CASES[1].case_id, "oom", "out of memory")
    assert baseline.cases(lost) == [CASES[0], *CASES[2:]]


@pytest.mark.parametrize(
    ("column", "value", "why"),
    [
        ("heads", 4, "its case_id is"),
        ("scan", "zigzag", "scan 'zigzag' is unknown"),
        ("canvas", "5by7", "canvas '5by7' is not a grid"),
    ],
)
def test_a_case_that_is_another_one_now_is_not_comparable(file, column, value, why):
    rows, _ = baseline.read(file)
    changed = replaced(rows, rows["case_id"] == CASES[0].case_id, **{column: value})
    with pytest.raises(NotComparableError, match="is another case now") as caught:
        baseline.cases(changed)
    assert why in caught.value.wrong
    assert caught.value.exit_code == 4


def test_an_unfinished_run_says_what_it_lacks_and_which_cases_it_never_came_to(tmp_path):
    made = RunDirectory.create(tmp_path / "run", run_id="x", cases=CASES, options={"rounds": 2})
    for record in rows_of(CASES[1:], rounds=1).to_dict("records"):
        made.write_row(Row(**plain(record)))
    _, problems = baseline.read(made.path)
    assert problems == [
        f"{made.path} lacks 6 of 10 measurements; ena-bench run --resume {made.path}"
    ]
    assert baseline.unmeasured(made.path) == {
        CASES[0].case_id: "not measured yet: the candidate's run is unfinished"
    }


def run_of(path, cases):
    """A run that plans all cases, with two rounds of some."""
    run = RunDirectory.create(path, run_id="night", cases=CASES, options={"rounds": 2})
    for values in rows_of(cases, rounds=2).to_dict("records"):
        run.write_row(Row(**plain(values)))
    return run


def test_a_case_whose_every_row_is_damaged_is_not_measured_and_the_file_is_named(tmp_path):
    run = run_of(tmp_path / "run", CASES)
    lost = [path for path in run.row_paths() if path.name.startswith(CASES[1].case_id)]
    lost[0].write_bytes(b"torn")
    assert baseline.unmeasured(run.path) == {}
    lost[1].write_bytes(b"torn")
    ((case_id, reason),) = baseline.unmeasured(run.path).items()
    assert case_id == CASES[1].case_id
    assert reason.startswith(f"not readable: {lost[1]} is damaged")


def test_a_whole_run_and_a_file_are_whole_baselines(tmp_path, file):
    baseline.require_whole(run_of(tmp_path / "run", CASES).path)
    baseline.require_whole(file)


def test_a_run_that_has_fewer_rounds_of_a_case_is_a_whole_baseline(tmp_path):
    run = run_of(tmp_path / "run", CASES)
    run.row_paths()[0].unlink()
    baseline.require_whole(run.path)


def test_a_run_that_lost_rows_is_no_whole_baseline(tmp_path):
    run = run_of(tmp_path / "run", CASES)
    victim = run.row_paths()[3]
    victim.write_bytes(b"torn")
    with pytest.raises(StorageError) as caught:
        baseline.require_whole(run.path)
    assert caught.value.exit_code == 1
    assert caught.value.wrong.startswith(
        f"1 row of the baseline cannot be read: {victim} is damaged"
    )


def test_a_run_that_never_came_to_a_case_is_no_whole_baseline(tmp_path):
    run = run_of(tmp_path / "run", CASES[1:])
    with pytest.raises(StorageError) as caught:
        baseline.require_whole(run.path)
    wrong = f"the baseline {run.path} lacks 1 of 5 cases, such as {CASES[0].case_path}"
    assert caught.value.wrong == wrong


def test_a_file_does_not_tell_what_was_planned(file):
    assert baseline.unmeasured(file) == {}


def test_a_file_is_measured_again_with_its_own_timer_and_seed(file):
    rows, _ = baseline.read(file)
    rows = rows.assign(timer="graph", seed=11)
    found = baseline.settings(file, rows, {"budget_s": 0.5, "timer": None})
    assert found == Settings(timer="graph", seed=11, budget_s=0.5)
    mixed = replaced(rows, rows["round"] == 1, timer="wall")
    assert baseline.settings(file, mixed, {}).timer == "auto"


def test_a_run_is_measured_again_with_its_own_settings(tmp_path):
    settings = Settings(budget_s=0.7, min_samples=4, seed=5)
    run = RunDirectory.create(
        tmp_path / "run", run_id="night", cases=CASES, options={"settings": settings.to_dict()}
    )
    rows = rows_of(CASES, rounds=1)
    assert baseline.settings(run.path, rows, {}) == settings
    assert baseline.settings(run.path, rows, {"seed": 6}).seed == 6
    with pytest.raises(UsageError, match="budget_s is -1"):
        baseline.settings(run.path, rows, {"budget_s": -1.0})


def test_a_run_directory_is_a_baseline_too(tmp_path):
    run = RunDirectory.create(tmp_path / "run", run_id="night", cases=CASES, options={})
    for values in rows_of(CASES, rounds=2).to_dict("records"):
        run.write_row(Row(**plain(values)))
    rows, problems = baseline.read(run.path)
    assert (len(rows), problems) == (2 * len(CASES), [])
    run.row_paths()[0].write_bytes(b"PAR1 torn")
    rows, problems = baseline.read(run.path)
    assert len(rows) == 2 * len(CASES) - 1
    assert "is damaged" in problems[0]


def test_damaged_empty_and_absent_baselines_are_clear_errors(file, tmp_path):
    whole = file.read_bytes()
    for name, content in (
        ("torn", whole[: len(whole) // 2]),
        ("none", b""),
        ("text", b"latency_ms\n1.0\n"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(StorageError, match=f"{name} is damaged") as caught:
            baseline.read(path)
        assert "ena-bench export" in caught.value.try_
        assert caught.value.exit_code == 1
    with pytest.raises(StorageError, match="does not exist"):
        baseline.read(tmp_path / "nowhere.parquet")
    with pytest.raises(StorageError, match="no rows"):
        baseline.read(written(rows_of(CASES).head(0), tmp_path / "bare"))


def test_a_baseline_without_any_success_is_an_error(file, tmp_path):
    rows, _ = baseline.read(file)
    nothing = failed(rows, rows["round"] >= 0, "crashed", "worker died")
    path = written(nothing, tmp_path / "all-failed")
    with pytest.raises(StorageError, match=r"holds no successful measurement \(10 rows\)"):
        baseline.read(path)
    run = RunDirectory.create(tmp_path / "run", run_id="night", cases=CASES, options={})
    with pytest.raises(StorageError, match=r"holds no successful measurement \(0 rows\)"):
        baseline.read(run.path)


def test_another_schema_is_not_comparable(file, tmp_path):
    table = pq.read_table(file)
    position = table.schema.get_field_index("schema_version")
    older = table.set_column(
        position, "schema_version", pa.array([0] * len(table), type=pa.int64())
    )
    path = tmp_path / "older.parquet"
    pq.write_table(older, path)
    with pytest.raises(NotComparableError, match="has schema version 0, this ena-bench writes 2"):
        baseline.read(path)
    run = RunDirectory.create(tmp_path / "run", run_id="night", cases=CASES, options={})
    document = run.path / "run.toml"
    document.write_text(document.read_text().replace("schema_version = 2", "schema_version = 9"))
    with pytest.raises(NotComparableError, match="has schema version 9"):
        baseline.read(run.path)


def test_missing_values_of_a_frame_are_no_shapes():
    frame = pd.DataFrame(rows_of([case_of(3)], rounds=1))
    assert baseline.cases(frame) == [case_of(3)]


@pytest.mark.parametrize("path", sorted(STORED.glob("*.parquet")), ids=lambda path: path.name)
def test_a_stored_baseline_can_be_checked_and_its_page_says_how_it_was_made(path):
    rows, problems = baseline.read(path)
    assert problems == []
    assert baseline.cases(rows)
    page = (STORED / "README.md").read_text("utf-8")
    (line,) = (line for line in page.splitlines() if f"`{path.name}`" in line and "|" in line)
    (name,) = rows["device_name"].unique()
    (commit,) = rows["git_commit"].unique()
    assert name in line
    assert commit[:7] in line
    assert f"--rounds {baseline.num_rounds(rows)} " in line
    assert not rows["git_dirty"].any()
