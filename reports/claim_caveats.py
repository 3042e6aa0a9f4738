"""What makes the numbers behind a verdict doubtful, said with the verdict."""

from collections.abc import Iterable, Sequence
from typing import Any

from bench import units
from reports.claim_readings import Reading
from reports.few_samples import ENOUGH_SAMPLES
from reports.speedup import FLASH_IMPLS

Record = dict[str, Any]

PLAIN = ("eager", "reference")
"""Implementations in plain PyTorch: on a GPU they say little about an operator's worth."""
_SUSPICIOUS = ("noisy:", "not converged:")


def caveats_of(found: Iterable[Reading], cases: Sequence[Record]) -> list[str]:
    """Sentences about the cases that readings were made of.

    Args:
        cases: Records of `frames.tidy`, among which they are looked up.
    """
    known = list(found)
    names = {name for r in known for name in r.case_ids}
    clocked = {name for r in known if r.is_timed for name in r.case_ids}
    behind = [c for c in cases if c["case_id"] in names]
    timed = [c for c in behind if c["case_id"] in clocked]
    return [*_plain(behind), *_anchors(timed), *_few_samples(timed), *_noisy(timed)]


def _plain(behind: Sequence[Record]) -> list[str]:
    own = [c for c in behind if c["device"] == "cuda" and _is_plain(c)]
    if not own:
        return []
    number = f"{len(own)} of {units.plural(len(behind), 'case')}"
    impls = sorted({str(c["impl"]) for c in own})
    return [
        f"{number} ran at least one operator as plain PyTorch on the GPU ({', '.join(impls)}): "
        "fused kernels may change the verdict"
    ]


def _is_plain(case: Record) -> bool:
    return any(part in PLAIN for part in str(case["impl"]).split("+"))


def _anchors(behind: Sequence[Record]) -> list[str]:
    used = {(c["run_id"], c["anchor_case_id"]): c for c in behind if c["anchor_case_id"]}
    compared = [c for c in used.values() if c["contender"] not in ("transformer", "attention")]
    others = sorted({str(c["anchor"]) for c in compared if not c["anchor_is_flash"]})
    if not others:
        return []
    flash = ", ".join(FLASH_IMPLS)
    return [f"no FlashAttention ({flash}) was measured; {', '.join(others)} stands in"]


def _few_samples(behind: Sequence[Record]) -> list[str]:
    own = sum(not c["is_sure"] for c in behind)
    if not own:
        return []
    number = f"{own} of {units.plural(len(behind), 'case')}"
    return [
        f"{number} {_have(own)} fewer than {ENOUGH_SAMPLES} samples: nothing is judged from "
        f"{'it' if own == 1 else 'them'}"
    ]


def _noisy(behind: Sequence[Record]) -> list[str]:
    own = sum(any(w.startswith(_SUSPICIOUS) for w in c["warnings"] or ()) for c in behind)
    if not own:
        return []
    number = f"{own} of {units.plural(len(behind), 'case')}"
    return [f"{number} {_have(own)} samples that are noisy or did not converge"]


def _have(number: int) -> str:
    return "has" if number == 1 else "have"
