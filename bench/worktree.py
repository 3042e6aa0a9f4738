"""Revisions of a repository, each checked out for itself, and workers that measure their code."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bench.baseline import NotComparableError
from bench.errors import EnaBenchError, UsageError
from bench.executor import Executor

WORKING_TREE = "working tree"
_TALK = "from dataclasses import fields; import json; from bench.case import Case; "
_TALK += "from bench.machine import Machine; from bench.row import Row; "
_TALK += "from bench.timing import Settings; "
_TALK += "print(json.dumps({k.__name__: [f.name for f in fields(k)] "
_TALK += "for k in (Case, Machine, Row, Settings)}))"


@dataclass(frozen=True, kw_only=True, slots=True)
class Revision:
    """Code on disk.

    Args:
        name: As the user called it, with the short commit; or `working tree`.
        path: The root of its files.
    """

    name: str
    path: Path

    @property
    def import_path(self) -> str:
        """Where its packages are: the root, `src` if there is one, then what this process has."""
        own = [self.path, *(p for p in [self.path / "src"] if p.is_dir())]
        return os.pathsep.join([*map(str, own), *(str(Path(p).resolve()) for p in sys.path)])


class RevisionExecutor(Executor):
    """An executor whose worker imports a revision's code, the harness in it included."""

    def __init__(self, revision: Revision, **options: Any) -> None:
        super().__init__(**options)
        self._environment["PYTHONPATH"] = revision.import_path


@contextmanager
def revisions(folder: Path, names: Sequence[str | None]) -> Iterator[list[Revision]]:
    """Check out each named revision of the repository around `folder`; None is the working tree.

    Checkouts are temporary and removed at the end; the repository's own files stay untouched.

    Raises:
        UsageError: there is no repository, or no such revision.
        NotComparableError: the harness of a revision does not understand this one.
    """
    root = _root(folder)
    _git(root, "worktree", "prune")
    with tempfile.TemporaryDirectory(prefix="ena-bench-ab-") as temporary:
        made: list[Path] = []
        try:
            found = []
            for index, name in enumerate(names):
                if name is None:
                    found.append(Revision(name=WORKING_TREE, path=root))
                    continue
                path = Path(temporary) / f"{index}"
                commit = _commit(root, name)
                _git(root, "worktree", "add", "--detach", str(path), commit)
                made.append(path)
                found.append(Revision(name=f"{name} ({commit[:7]})", path=path))
            for revision in found:
                _require_understanding(revision)
            yield found
        finally:
            for path in made:
                _git(root, "worktree", "remove", "--force", str(path))


def _root(folder: Path) -> Path:
    try:
        return Path(_git(folder, "rev-parse", "--show-toplevel"))
    except EnaBenchError as err:
        raise UsageError(
            f"{folder.resolve()} is in no git repository",
            expected="to be called inside the repository whose revisions are compared",
            try_="cd into it; git status",
        ) from err


def _commit(root: Path, name: str) -> str:
    try:
        return _git(
            root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"
        )
    except EnaBenchError as err:
        raise UsageError(
            f"revision {name!r} is unknown in {root}",
            expected="a commit, branch or tag of this repository",
            try_="git log --oneline; a shallow clone has few: git fetch --unshallow",
        ) from err


def _require_understanding(revision: Revision) -> None:
    """Parent and worker exchange dataclasses; what one sends, the other has to know."""
    theirs = _dataclasses(revision)
    for kind in _exchanged():
        ours = {f.name for f in fields(kind)}
        known = set(theirs[kind.__name__])
        sent_to_worker = kind.__name__ in ("Case", "Settings")
        unknown = ours - known if sent_to_worker else known - ours
        if unknown:
            raise NotComparableError(
                f"{revision.name} and this ena-bench differ in {kind.__name__}: "
                f"{', '.join(sorted(unknown))}",
                expected="two revisions whose harness agrees on what a case and a row are",
                try_="run each revision's own ena-bench with --rounds 5 --fresh-workers, then "
                "ena-bench compare",
            )


def _exchanged() -> tuple[type[Any], ...]:
    from bench.case import Case
    from bench.machine import Machine
    from bench.row import Row
    from bench.timing import Settings

    return Case, Machine, Row, Settings


def _dataclasses(revision: Revision) -> dict[str, list[str]]:
    done = subprocess.run(
        [sys.executable, "-P", "-c", _TALK],
        env=os.environ | {"PYTHONPATH": revision.import_path},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise NotComparableError(
            f"the harness of {revision.name} cannot be imported: {last}",
            expected="a revision that runs with the libraries installed here",
            try_="an environment with the libraries of that revision",
        )
    names: dict[str, list[str]] = json.loads(done.stdout)
    return names


def _git(folder: Path, *arguments: str) -> str:
    """Output of a git command.

    Raises:
        EnaBenchError: it failed.
    """
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as err:
        raise EnaBenchError(
            f"git cannot be run: {err}", expected="git on the PATH", try_="install git"
        ) from err
    if done.returncode != 0:
        raise EnaBenchError(
            f"git {' '.join(arguments[:2])} failed: {done.stderr.strip() or 'no reason given'}",
            expected="a repository that git can read and write",
            try_=" ".join(command),
        )
    return done.stdout.strip()
