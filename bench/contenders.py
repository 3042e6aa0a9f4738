"""The registry: what can be measured, what each needs, and why it cannot run here.

Ours and a third party's contenders go through the same door: a `Contender` names the function that
builds it, the libraries it needs and the kernels it must run. Third parties publish theirs under
the entry point group `ena_bench.contenders`.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import TYPE_CHECKING

from bench.axes import check_known
from bench.case import Case
from bench.errors import UsageError

if TYPE_CHECKING:
    from bench.workload import Workload

ENTRY_POINTS = "ena_bench.contenders"
ANY_DTYPE = ("float32", "bfloat16", "float16", "float64")

Key = tuple[str, str, str]
"""Level, name and impl of a contender."""
Rule = Callable[[Case], str | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Contender:
    """One way to compute one thing at one level.

    Args:
        level, name, impl: Where it stands in the grid.
        build: `"package.module:function"`, imported in the worker only; takes a `Case`, returns a
            `bench.workload.Workload`.
        needs: Libraries to import, any of the alternatives in `"a|b"`.
        devices, dtypes, modes: What it can run.
        rules: Each returns why a case cannot run, or None.
        kernels: Per device, regular expressions; every one must match a kernel that ran.
        rank: Per device, order of preference for `impl = "best"`; lower is faster. Contenders
            without a rank are never chosen unasked.
        axes: Optional grid axes that change what is measured: `sparsity`, `scan`.
    """

    level: str
    name: str
    impl: str
    build: "str | Callable[[Case], Workload]"
    needs: tuple[str, ...] = ()
    devices: tuple[str, ...] = ("cpu", "cuda")
    dtypes: tuple[str, ...] = ANY_DTYPE
    modes: tuple[str, ...] = ("fwd", "bwd", "fwdbwd")
    rules: tuple[Rule, ...] = ()
    kernels: tuple[tuple[str, tuple[str, ...]], ...] = ()
    rank: tuple[tuple[str, int], ...] = ()
    axes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for pattern in (p for _, patterns in self.kernels for p in patterns):
            re.compile(pattern)

    def missing_libraries(self) -> list[str]:
        """The needs that are not installed, `a|b` where any would do."""
        return [n for n in self.needs if not any(is_installed(lib) for lib in n.split("|"))]

    def lacks(self) -> str | None:
        """`fla is not installed`; None if nothing is missing. A library that is there and broken
        is told with its error."""
        missing = self.missing_libraries()
        for library in (lib for need in missing for lib in need.split("|")):
            if why := import_failure(library):
                return f"{library} cannot be imported: {why}"
        names = " and ".join(need.replace("|", " or ") for need in missing)
        return f"{names} {'is' if len(missing) == 1 else 'are'} not installed" if missing else None

    def why_not(self, case: Case) -> str | None:
        """Why this case cannot run, None if it can."""
        if reason := self.lacks():
            return reason
        for field, allowed in (
            ("device", self.devices),
            ("dtype", self.dtypes),
            ("mode", self.modes),
        ):
            value = getattr(case, field)
            if value not in allowed:
                return f"{self.impl} at level {self.level} runs {field} {', '.join(allowed)} only"
        return next((reason for rule in self.rules if (reason := rule(case))), None)

    def preference(self, device: str) -> int | None:
        """Rank on a device; None means never chosen unasked."""
        return dict(self.rank).get(device)

    def expected_kernels(self, device: str) -> tuple[str, ...]:
        """What must be among the kernels that ran."""
        return dict(self.kernels).get(device, ())

    def workload(self, case: Case) -> "Workload":
        """Build the case; imports torch and whatever the contender needs."""
        if callable(self.build):
            return self.build(case)
        module, _, function = self.build.partition(":")
        built: Workload = getattr(import_module(module), function)(case)
        return built


@dataclass(frozen=True, kw_only=True, slots=True)
class Unavailable:
    """What an installed package publishes and nobody can use.

    Args:
        package: Name and version, as pip knows them.
        key: Of a contender; None where the package's entry point gives none.
    """

    package: str
    entry_point: str
    reason: str
    key: Key | None = None

    @property
    def text(self) -> str:
        """`entry point mean of third-party 1.0 is unavailable: ImportError: no such file`."""
        return f"entry point {self.entry_point} of {self.package} is unavailable: {self.reason}"

    @property
    def cure(self) -> str:
        return f"mend or uninstall {self.package.partition(' ')[0]}"


def is_installed(library: str) -> bool:
    """Whether a module can be found, without importing it (its parents are imported)."""
    return _search(library) == (True, None)


def import_failure(library: str) -> str | None:
    """The error of a module whose parent is there and breaks on import; None otherwise."""
    return _search(library)[1]


def registry() -> dict[Key, Contender]:
    """Every contender by (level, name, impl): ours, then those of installed packages."""
    return _registered()[0]


def unavailable() -> list[Unavailable]:
    """What installed packages publish and `registry` lacks: it cannot be loaded, or its name is
    taken."""
    return _registered()[1]


def lookup(case: Case) -> Contender:
    """The contender of a case.

    Raises:
        UsageError: nothing is registered under the case's level, contender and impl.
    """
    known = registry()
    contender = known.get((case.level, case.contender, case.impl))
    if contender is None:
        raise _may_be_unavailable(_not_registered(case, known), case.contender)
    return contender


def _not_registered(case: Case, known: Iterable[tuple[str, str, str]]) -> UsageError:
    """What a case lacks: its impl, its contender at that level, or its contender altogether."""
    try_ = "ena-bench list contenders"
    places = [(level, impl) for level, name, impl in known if name == case.contender]
    impls = sorted(impl for level, impl in places if level == case.level)
    if impls:
        return UsageError(
            f"{case.contender} has no impl {case.impl!r} at level {case.level}",
            expected=f"one of {', '.join(impls)}",
            try_=try_,
        )
    if places:
        return UsageError(
            f"{case.contender} is no contender at level {case.level}",
            expected=f"level {' or '.join(sorted({level for level, _ in places}))}",
            try_=try_,
        )
    return UsageError(
        f"contender {case.contender} of {case.case_path} is missing here",
        expected="the package that publishes it to be installed",
        try_=f"install that package; {try_} says what there is",
    )


def check_registered(what: str, name: str, known: Iterable[str]) -> None:
    """Raise a UsageError unless `name` is among the known names of contenders or impls.

    It says what is unavailable, for that may be what the user means.
    """
    try:
        check_known(what, name, known)
    except UsageError as err:
        raise _may_be_unavailable(err, name) from None


def check_anchor(what: str, named: str) -> None:
    """Raise a UsageError unless `named` is a contender, or a contender and one of its impls joined
    by a slash."""
    impls: dict[str, set[str]] = {}
    for _, name, impl in registry():
        impls.setdefault(name, set()).add(impl)
    name, _, impl = named.partition("/")
    if named in impls or name not in impls:
        check_registered(what, named, sorted(impls))
    else:
        check_registered(what, named, sorted(f"{name}/{impl}" for impl in impls[name]))


def _may_be_unavailable(err: UsageError, name: str) -> UsageError:
    found = sorted(unavailable(), key=lambda broken: broken.entry_point != name)
    if not found:
        return err
    told = "; ".join(broken.text for broken in found)
    is_meant = found[0].entry_point == name
    return UsageError(
        f"{err.wrong}; {told}", expected=err.expected, try_=found[0].cure if is_meant else err.try_
    )


@cache
def _search(library: str) -> tuple[bool, str | None]:
    """Whether a module is there, and the error of a parent that breaks on import."""
    try:
        return find_spec(library) is not None, None
    # a library may raise anything when it is loaded, such as one that was built for another torch
    except Exception as err:
        is_absent = isinstance(err, ModuleNotFoundError) and f"{library}.".startswith(
            f"{err.name}."
        )
        return False, None if is_absent else _first_line(err)


def _registered() -> tuple[dict[Key, Contender], list[Unavailable]]:
    """Ours cannot break; a package that does is told and stops nothing else."""
    found: dict[Key, Contender] = {}
    broken: list[Unavailable] = []
    owners: dict[Key, str] = {}
    for contender in import_module("bench.catalog").contenders():
        found[_key(contender)] = contender
    for entry in entry_points(group=ENTRY_POINTS):
        package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
        try:
            published = _published(entry)
        # it is not our code, and may even end the process
        except (Exception, SystemExit) as err:
            broken.append(
                Unavailable(package=package, entry_point=entry.name, reason=_first_line(err))
            )
            continue
        for contender in published:
            key = _key(contender)
            if key in found:
                reason = f"{'/'.join(key)} is already registered by {owners.get(key, 'ena-bench')}"
                broken.append(
                    Unavailable(package=package, entry_point=entry.name, reason=reason, key=key)
                )
            else:
                found[key], owners[key] = contender, package
    return found, broken


def _published(entry: EntryPoint) -> tuple[Contender, ...]:
    published = entry.load()
    contenders = tuple(published() if callable(published) else published)
    if not all(isinstance(c, Contender) for c in contenders):
        raise TypeError("it yields something else than bench.contenders.Contender")
    return contenders


def _key(contender: Contender) -> Key:
    return contender.level, contender.name, contender.impl


def _first_line(err: BaseException) -> str:
    """`ImportError: no such file`, whatever else the error says."""
    return f"{type(err).__name__}: {err}".removesuffix(": ").split("\n")[0]
