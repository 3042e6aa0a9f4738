"""Which scans exist, how often each runs the mixer, and where each cannot run.

Pure Python: the grid and the command line read it without loading torch.
"""

import math

from ena_kernels.errors import ShapeError, message

SCANS = (
    "uni",
    "flip",
    "bi",
    "cross",
    "random",
    "learnable",
    "1d-shift",
    "2d-shift",
    "switch",
    "mh2d",
    "mh3d",
)
VARIANTS = ("fixed", "official")
MAX_LEARNABLE_TOKENS = 4096
"""A learnable scan holds an L x L matrix per layer: 64 MiB of float32 logits at this length."""

_PASSES = {"bi": 2, "cross": 4}
_NUM_AXES = {"2d-shift": 2, "switch": 2, "mh2d": 2, "mh3d": 3}
_CANVAS_OF_RANK = {2: "64x64", 3: "16x32x32"}

Refusal = tuple[str, str, str]


def check_scan_name(name: str) -> str:
    """Return `name` if it is a scan; raise ShapeError otherwise."""
    if name not in SCANS:
        raise ShapeError(
            f"scan {name!r} is unknown",
            expected=f"one of {', '.join(SCANS)}",
            try_="scan='uni'",
        )
    return name


def scan_passes(name: str) -> int:
    """How many times the mixer runs: 1, 2 (bi) or 4 (cross), as a batch that many times larger."""
    return _PASSES.get(check_scan_name(name), 1)


def scan_reason(name: str, canvas: tuple[int, ...], heads: int) -> str | None:
    """Why this scan cannot run on this canvas with this many heads; None where it can.

    The text has the three lines of every error (wrong, `Expected:`, `Try:`) and equals the text
    of the UnsupportedError that `scan_split` and `scan_merge` raise for the same arguments.

    Raises:
        ShapeError: `name` is not a scan.
    """
    refusal = scan_refusal(name, canvas, heads)
    return None if refusal is None else message(*refusal)


def scan_refusal(name: str, canvas: tuple[int, ...], heads: int) -> Refusal | None:
    """The parts of `scan_reason`: what was wrong, the rule, the way out."""
    check_scan_name(name)
    rank = _NUM_AXES.get(name, len(canvas))
    if len(canvas) != rank:
        return _wrong_rank(name, canvas, rank)
    if name == "cross" and len(canvas) == 1:
        return _cross_on_a_line(canvas)
    if name == "learnable" and math.prod(canvas) > MAX_LEARNABLE_TOKENS:
        return _too_long(canvas)
    if name == "mh2d" and heads % 4:
        return _heads_not_in_four_groups(heads)
    if name == "mh3d" and heads < 12:
        return _too_few_heads(heads)
    return None


def _wrong_rank(name: str, canvas: tuple[int, ...], rank: int) -> Refusal:
    return (
        f"scan {name} cannot read canvas {_text(canvas)}, which has {len(canvas)} "
        f"{'axis' if len(canvas) == 1 else 'axes'}",
        f"a canvas of {rank} axes for {name}",
        f"canvas {_CANVAS_OF_RANK[rank]}, or scan bi, which takes any canvas",
    )


def _cross_on_a_line(canvas: tuple[int, ...]) -> Refusal:
    return (
        f"scan cross has no transposed order on canvas {_text(canvas)}, which has 1 axis",
        "a canvas of at least 2 axes for cross; on one axis its 4 passes are bi done twice",
        "scan bi, or canvas 64x64",
    )


def _too_long(canvas: tuple[int, ...]) -> Refusal:
    num_tokens = math.prod(canvas)
    return (
        f"scan learnable would hold a {num_tokens} x {num_tokens} matrix for canvas "
        f"{_text(canvas)}",
        f"at most {MAX_LEARNABLE_TOKENS} tokens for learnable, whose memory grows as their square",
        "canvas 64x64, or scan random",
    )


def _heads_not_in_four_groups(heads: int) -> Refusal:
    return (
        f"scan mh2d cannot split {heads} heads into its 4 orders",
        "heads divisible by 4 for mh2d",
        f"heads {max(4, heads // 4 * 4)}, or scan cross",
    )


def _too_few_heads(heads: int) -> Refusal:
    return (
        f"scan mh3d permutes none of {heads} heads, so it would be uni under another name",
        "at least 12 heads for mh3d, one for each of its orders",
        "heads 12, or scan cross",
    )


def _text(canvas: tuple[int, ...]) -> str:
    return "x".join(map(str, canvas))
