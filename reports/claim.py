"""What a claim is made of, and how readings become a verdict.

A claim is a sentence that somebody wrote, and checks that together are what it says in numbers. A
check asks one quantity of many places: lengths, modes, dimensionalities. A place counts for or
against only if the whole interval of its reading lies on one side of the bounds.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass

CONFIRMED, REFUTED, MIXED, NOT_TESTED = "confirmed", "refuted", "mixed", "not tested"
VERDICTS = (CONFIRMED, REFUTED, MIXED, NOT_TESTED)
HOLDS, FAILS, UNDECIDED = "holds", "fails", "undecided"
EVERYWHERE, SOMEWHERE = "everywhere", "somewhere"

TOLERANCE = 1e-9

VERDICT_RULES = (
    (
        CONFIRMED,
        "every check holds, everywhere that it must, and nothing that it needs is missing",
    ),
    (REFUTED, "at least one check fails, and none holds anywhere"),
    (MIXED, "it holds in places and fails, or cannot be told, in others, which are named"),
    (
        NOT_TESTED,
        "nothing speaks against it, but cases that it needs are missing or have too few samples, "
        "or no interval is narrow enough",
    ),
)
"""What each verdict means, in words; `check_verdict` and `claim_verdict` are the rules."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Where:
    """Which cases a check looks at; an empty tuple allows every value.

    A `sparsities` entry of None is a window fixed in tokens. `attended` bounds the achieved share
    of pairs.
    """

    levels: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()
    contenders: tuple[str, ...] = ()
    impls: tuple[str, ...] = ()
    scans: tuple[str, ...] = ()
    sparsities: tuple[float | None, ...] = ()
    ndims: tuple[int, ...] = ()
    tiles: tuple[str, ...] = ()
    min_len: int = 0
    max_len: float = math.inf
    attended: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Need:
    """Some reading whose `column` has one of `values` must be there before a check can hold."""

    column: str
    values: tuple[str | float | None, ...]
    words: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """A reading holds if `low <= quantity <= high`, `everywhere` or `somewhere`."""

    text: str
    quantity: str
    where: Where
    low: float = -math.inf
    high: float = math.inf
    holds: str = EVERYWHERE
    needs: tuple[Need, ...] = ()

    @property
    def rule(self) -> str:
        """`at least 1 and at most 1.25, everywhere`."""
        low = f"at least {self.low:.3g}" if self.low > -math.inf else ""
        high = f"at most {self.high:.3g}" if self.high < math.inf else ""
        return f"{' and '.join(filter(None, (low, high)))}, {self.holds}"

    def side(self, low: float, high: float) -> str:
        """On which side of the bounds an interval lies: `holds`, `fails` or `undecided`."""
        least, most = self.low - TOLERANCE, self.high + TOLERANCE
        if least <= low and high <= most:
            return HOLDS
        return FAILS if high < least or low > most else UNDECIDED


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A quotation, who wrote it, and its checks.

    `aspect` is set where the checks cover a part of the statement only, and the verdict speaks of
    no more; `untested` says what is left, or why nothing is tested at all.
    """

    name: str
    source: str
    quotation: str
    checks: tuple[Check, ...] = ()
    aspect: str | None = None
    untested: str | None = None


def check_verdict(check: Check, sides: Collection[str], *, is_complete: bool) -> str:
    """The verdict of one check.

    Args:
        sides: Of its readings.
        is_complete: Each of its needs has a reading.
    """
    if check.holds == SOMEWHERE:
        if HOLDS in sides:
            return CONFIRMED
        return REFUTED if is_complete and sides and UNDECIDED not in sides else NOT_TESTED
    if FAILS in sides:
        return MIXED if HOLDS in sides else REFUTED
    if HOLDS not in sides or not is_complete:
        return NOT_TESTED
    return MIXED if UNDECIDED in sides else CONFIRMED


def claim_verdict(verdicts: Collection[str], *, is_supported: bool, is_contradicted: bool) -> str:
    """The verdict of a claim by those of its checks, all of which must hold.

    Args:
        is_supported: Some check holds somewhere.
        is_contradicted: A check is refuted, or mixed because it fails in places.
    """
    found = set(verdicts)
    if found and found <= {CONFIRMED}:
        return CONFIRMED
    if is_contradicted:
        return MIXED if is_supported else REFUTED
    return MIXED if MIXED in found and NOT_TESTED not in found else NOT_TESTED
