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
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import TYPE_CHECKING

from bench.case import Case
from bench.errors import EnaBenchError, UsageError

if TYPE_CHECKING:
    from bench.workload import Workload

ENTRY_POINTS = "ena_bench.contenders"
ANY_DTYPE = ("float32", "bfloat16", "float16", "float64")

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

    def why_not(self, case: Case) -> str | None:
        """Why this case cannot run, None if it can."""
        for need in self.missing_libraries():
            return f"{need.replace('|', ' or ')} is not installed"
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


@cache
def is_installed(library: str) -> bool:
    """Whether a module can be found, without importing it (its parents are imported)."""
    try:
        return find_spec(library) is not None
    except ModuleNotFoundError:
        return False


def registry() -> dict[tuple[str, str, str], Contender]:
    """Every contender by (level, name, impl): ours, then those of installed packages.

    Raises:
        EnaBenchError: a published contender cannot be loaded or takes a name that is taken.
    """
    found: dict[tuple[str, str, str], Contender] = {}
    for source, contenders in _sources():
        for contender in contenders:
            key = (contender.level, contender.name, contender.impl)
            if key in found:
                raise EnaBenchError(
                    f"contender {'/'.join(key)} of {source} is already registered",
                    expected="one contender per level, name and impl",
                    try_=f"rename it in {source}, or uninstall that package",
                )
            found[key] = contender
    return found


def lookup(case: Case) -> Contender:
    """The contender of a case.

    Raises:
        UsageError: nothing is registered under the case's level, contender and impl.
    """
    known = registry()
    contender = known.get((case.level, case.contender, case.impl))
    if contender is None:
        impls = sorted(i for lv, n, i in known if (lv, n) == (case.level, case.contender))
        raise UsageError(
            f"{case.contender} has no impl {case.impl!r} at level {case.level}",
            expected=f"one of {', '.join(impls) or 'none'}",
            try_="ena-bench list contenders",
        )
    return contender


def _sources() -> Iterable[tuple[str, Iterable[Contender]]]:
    yield "ena-bench", import_module("bench.catalog").contenders()
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            published = entry.load()
            contenders = tuple(published() if callable(published) else published)
            if not all(isinstance(c, Contender) for c in contenders):
                raise TypeError("it yields something else than bench.contenders.Contender")
        except Exception as err:
            raise EnaBenchError(
                f"entry point {entry.name} = {entry.value} cannot be loaded: {err}",
                expected=f"{ENTRY_POINTS} entry points to name Contenders or a function that "
                "returns them",
                try_="mend or uninstall that package",
            ) from err
        yield entry.value, contenders
