"""Two revisions: each checked out for itself, measured in turn, cleaned up after."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import ab
from bench.baseline import NotComparableError
from bench.decision import Question
from bench.errors import UsageError
from bench.grid import Grid, Planned
from bench.session import Request
from bench.timing import Settings
from bench.verdict import Limits
from bench.worktree import WORKING_TREE, Revision, revisions
from tests.comparing import case_of

ROOT = Path(__file__).parents[2]


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def repository(tmp_path):
    """Two commits and a change that is not committed."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=main")
    for text in ("one", "two"):
        (folder / "kernel.py").write_text(text)
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "-m", text)
    (folder / "kernel.py").write_text("three")
    return folder


def test_each_revision_has_its_own_files_and_the_working_tree_its_changes(repository):
    with revisions(repository, ["HEAD~1", "main", None]) as found:
        assert [(r.path / "kernel.py").read_text() for r in found] == ["one", "two", "three"]
        assert found[0].name == f"HEAD~1 ({git(repository, 'rev-parse', 'HEAD~1')[:7]})"
        assert found[2].name == WORKING_TREE
        assert found[2].path == repository
        assert found[0].import_path.split(os.pathsep)[0] == str(found[0].path)
        made = found[0].path
    assert not made.exists()
    assert git(repository, "worktree", "list").count("\n") == 0
    assert (repository / "kernel.py").read_text() == "three"


def test_checkouts_are_removed_whatever_happens(repository):
    made = []

    def interrupted():
        with revisions(repository, ["HEAD", None]) as found:
            made.append(found[0].path)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not made[0].exists()
    assert git(repository, "worktree", "list").count("\n") == 0


@pytest.mark.parametrize("name", ["nosuch", "--all", "HEAD:kernel.py"])
def test_an_unknown_revision_is_a_usage_error(repository, name):
    with (
        pytest.raises(UsageError, match="is unknown in"),
        revisions(repository, [name, None]),
    ):
        pytest.fail("it was checked out")


def test_a_folder_outside_any_repository_is_a_usage_error(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(UsageError, match="is in no git repository"), revisions(tmp_path, ["HEAD"]):
        pytest.fail("there is nothing to check out")


def test_a_revision_whose_rows_have_other_columns_is_not_comparable(repository):
    package = repository / "bench"
    package.mkdir()
    for name in ("__init__", "case", "machine", "row", "timing"):
        (package / f"{name}.py").write_text("")
    with (
        pytest.raises(NotComparableError, match="cannot be imported: ImportError"),
        revisions(repository, [None]),
    ):
        pytest.fail("it understood")
    (package / "row.py").write_text(
        "from dataclasses import make_dataclass\nRow = make_dataclass('Row', ['karma'])"
    )
    for name, kind in (("case", "Case"), ("machine", "Machine"), ("timing", "Settings")):
        (package / f"{name}.py").write_text(
            "import sys\n"
            f"sys.path.insert(0, {str(ROOT)!r})\n"
            f"from dataclasses import make_dataclass\n{kind} = make_dataclass('{kind}', ['karma'])"
        )
    with (
        pytest.raises(NotComparableError, match="differ in Case") as caught,
        revisions(repository, [None]),
    ):
        pytest.fail("it understood")
    assert caught.value.exit_code == 4


class Turns:
    """A session that notes its turns."""

    def __init__(self, name, log):
        self.name, self.log, self.executor = name, log, self

    def close(self):
        self.log.append(f"{self.name} closed")


def test_rounds_go_a_b_b_a_and_one_worker_lives_at_a_time(monkeypatch):
    log = []
    monkeypatch.setattr(
        ab,
        "measured",
        lambda session, planned, rounds, on_event: log.append(
            f"{session.name}{rounds - 1}{on_event}"
        ),
    )
    for round in range(3):
        ab.take_turns([Turns("A", log), Turns("B", log)], [], round, ["a", "b"])
    assert [entry for entry in log if "closed" not in entry] == [
        *("A0a", "B0b", "B1b", "A1a", "A2a", "B2b")
    ]
    assert log[1::2] == [f"{entry[0]} closed" for entry in log[::2]]


@pytest.mark.slow
def test_a_slower_revision_is_found(tmp_path):
    """Two trees with the same harness; the contender of the second sleeps twice as long."""
    found = []
    for name, sleep_s in (("old", 0.003), ("new", 0.006)):
        folder = tmp_path / name
        info = folder / "mixers-1.0.dist-info"
        info.mkdir(parents=True)
        (folder / "mixers.py").write_text(
            "import time\nfrom bench.contenders import Contender\n"
            "from bench.workload import Workload, normal\n"
            f"def forward(x):\n    time.sleep({sleep_s})\n    return 2 * x\n"
            "def build(case):\n    x = normal(case, case.batch, case.seq_len, case.model_dim)\n"
            "    return Workload(forward=forward, inputs={'x': x},\n"
            "        reference=lambda leaves: 2 * leaves['x'])\n"
            "contenders = [Contender(level='op', name='sleeper', impl='eager', build=build)]\n"
        )
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mixers\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[ena_bench.contenders]\nm = mixers:contenders\n")
        found.append(Revision(name=name, path=folder))
    case = case_of(2, contender="sleeper")
    made = Request(
        grid=Grid(name="one", description="", blocks=()),
        settings=Settings(budget_s=0.04, warmup_s=0.001, min_samples=5),
        device="cpu",
        rounds=3,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(found[0].path))
        patch.setattr(ab, "plan", lambda made, machine: [Planned(case=case)])
        said, events = [], []
        pair = ab.compare_revisions(
            made,
            found,
            Question(limits=Limits()),
            tmp_path / "out",
            events.append,
            said.append,
        )
    sys.modules.pop("mixers", None)
    assert pair.comparison.exit_code == 3
    (judged,) = pair.comparison.cases
    assert (judged.verdict, judged.num_rounds) == ("slower", (6, 6))
    assert 1.5 < judged.ratio < 2.2
    finished = [event for event in events if event.kind == "finished"]
    assert [event.num_done for event in finished] == list(range(1, 13))
    assert [event.num_total for event in finished] == [6] * 6 + [12] * 6
    assert [event.whose for event in finished[:4]] == ["old", "new", "new", "old"]
    assert set(pair.baseline["status"]) == set(pair.candidate["status"]) == {"ok"}
    assert said == [
        "1 case in 3 rounds each of old and new",
        "1 case again, before any of them fails (batch 1 of 3 at most)",
    ]
