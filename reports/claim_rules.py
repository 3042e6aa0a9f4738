"""The claims of SPEC 7 that can be tested here: what was said, and what would confirm or refute it.

This table is all that decides a verdict. `reports.claim_quantities` computes the quantities that it
names, `reports.claims` holds readings against the bounds.
"""

import math
from dataclasses import dataclass, replace

TRAINING = ("fwdbwd", "step")
STACKS = ("layer", "model")
SINGLE_PASS = ("flip", "random", "1d-shift", "2d-shift", "switch", "mh2d", "mh3d")
FASTER, SLOWER = 1.03, 1 / 1.03
"""Differences of less than 3% do not count."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Where:
    """Which readings a check looks at; an empty tuple allows every value."""

    levels: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()
    contenders: tuple[str, ...] = ()
    impls: tuple[str, ...] = ()
    scans: tuple[str, ...] = ()
    sparsities: tuple[float, ...] = ()
    ndims: tuple[int, ...] = ()
    min_len: int = 0
    max_len: float = math.inf
    attended: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """A reading holds if `low <= quantity <= high`; `everywhere` or `somewhere` is enough."""

    text: str
    quantity: str
    where: Where
    low: float = -math.inf
    high: float = math.inf
    holds: str = "everywhere"


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A statement, who made it, and its checks; `untested` is the part or reason that none covers.

    Without checks it is not tested at all.
    """

    name: str
    source: str
    quotation: str
    checks: tuple[Check, ...] = ()
    untested: str | None = None


ENA_SOURCE = "ENA, arXiv 2508.11921 (SPEC 7.1)"
LINEAR_SOURCE = "linear attention systems (SPEC 7.2)"
SPARSE_SOURCE = "sparse and local attention (SPEC 7.3)"
GENERAL_SOURCE = "general statements (SPEC 7.4)"
ACCURACY = "a statement about accuracy; this benchmark measures time and memory"

_ENA = Where(levels=STACKS, contenders=("ena",), sparsities=(0.0, 0.7), scans=("uni",))

CLAIMS: tuple[Claim, ...] = (
    Claim(
        name="E1",
        source=ENA_SOURCE,
        quotation="ENA's training and inference times scale more favorably, offering notable "
        "speedups for sequences thousands of tokens long.",
        checks=(
            Check(
                text="the speed-up over the Transformer does not fall from one length to the next",
                quantity="speedup_rise",
                where=_ENA,
                low=SLOWER,
            ),
            Check(
                text="it exceeds 1.1 at some length from 2k to 16k",
                quantity="most_speedup",
                where=Where(
                    levels=STACKS,
                    contenders=("ena",),
                    sparsities=(0.0, 0.7),
                    scans=("uni",),
                    ndims=(2, 3),
                    min_len=2048,
                    max_len=16384,
                ),
                low=1.1,
            ),
            Check(
                text="exponent of time, less the Transformer's, is negative at the top 3 lengths",
                quantity="exponent_difference",
                where=_ENA,
                high=0.0,
            ),
        ),
    ),
    Claim(
        name="E2",
        source=ENA_SOURCE,
        quotation="its memory consumption is slightly higher, the difference is minor and can be "
        "further optimized.",
        checks=(
            Check(
                text="peak training memory is 1.00 to 1.25 times the Transformer's",
                quantity="memory_ratio",
                where=replace(_ENA, modes=TRAINING),
                low=1.0,
                high=1.25,
            ),
        ),
        untested="activation checkpointing is not measured",
    ),
    Claim(
        name="E3",
        source=ENA_SOURCE,
        quotation="A sparsity level of around 70% ... offers an excellent balance between "
        "performance and efficiency.",
        checks=(
            Check(
                text="time over sparsity s is within 15% of a line c + k(1 - s)",
                quantity="line_deviation",
                where=Where(levels=("layer",), contenders=("ena",)),
                high=0.15,
            ),
            Check(
                text="the gain from 70% to 90% is smaller than from 0 to 70%: ratio of the gains",
                quantity="gain_ratio",
                where=Where(levels=STACKS, contenders=("ena",), min_len=4096),
                high=1.0,
            ),
        ),
        untested="the quality half is about accuracy",
    ),
    Claim(
        name="E4",
        source=ENA_SOURCE,
        quotation="increasing the window size (reducing sparsity) yields diminishing performance "
        "improvements.",
        untested=f"{ACCURACY}; the cost side is E3",
    ),
    Claim(
        name="E5",
        source=ENA_SOURCE,
        quotation="Multi-pass scanning, for instance, often introduces significant speed and memory"
        " overhead, sometimes even making linear models slower than a Transformer utilizing "
        "optimized attention mechanisms like FlashAttention.",
        checks=(
            Check(
                text="bi or cross is slower than the Transformer at some length: speed-up",
                quantity="speedup",
                where=Where(levels=STACKS, contenders=("linear",), scans=("bi", "cross")),
                high=SLOWER,
                holds="somewhere",
            ),
            *(
                Check(
                    text=f"{scan} takes at least {least:g} times the {what} of uni",
                    quantity=quantity,
                    where=Where(
                        levels=STACKS,
                        modes=TRAINING if quantity == "scan_memory" else (),
                        contenders=("linear",),
                        scans=(scan,),
                    ),
                    low=least,
                )
                for scan, quantity, what, least in (
                    ("bi", "scan_time", "time", 1.3),
                    ("cross", "scan_time", "time", 1.8),
                    ("bi", "scan_memory", "activation memory", 1.3),
                    ("cross", "scan_memory", "activation memory", 2.0),
                )
            ),
        ),
    ),
    Claim(
        name="E6",
        source=ENA_SOURCE,
        quotation="Even single-pass scanning variants, which permute sequences, generally fail to "
        "show notable improvements over a simple uni-directional scan, and can even degrade "
        "performance.",
        checks=(
            Check(
                text="a single-pass scan takes at most 1.1 times the time of uni",
                quantity="scan_time",
                where=Where(levels=STACKS, contenders=("linear",), scans=SINGLE_PASS),
                high=1.1,
            ),
            Check(
                text="what the learnable scan adds to uni grows with exponent 1.7 to 2.3",
                quantity="scan_exponent",
                where=Where(levels=STACKS, contenders=("linear",), scans=("learnable",)),
                low=1.7,
                high=2.3,
            ),
        ),
        untested="the improvements themselves are about accuracy",
    ),
    Claim(
        name="E7",
        source=ENA_SOURCE,
        quotation="Unlike naive SWA implementations that suffer from poor hardware utilization due "
        "to 'mixed blocks' in attention maps, STA shifts its window tile-by-tile.",
        untested="no contender slides its window token by token",
    ),
    Claim(
        name="E8",
        source=ENA_SOURCE,
        quotation="eliminating mixed blocks and achieving tangible hardware speedups over "
        "traditional full attention.",
        checks=(
            Check(
                text="tiles that 128-token blocks divide: pairs in touched blocks over attended",
                quantity="aligned_waste",
                where=Where(contenders=("sliding_tile", "ena")),
                high=1.0,
            ),
            Check(
                text="8x8 tiles in 128-token blocks: pairs in touched blocks over attended",
                quantity="unaligned_waste",
                where=Where(levels=("op",), contenders=("sliding_tile",)),
                low=1.0 + 1e-9,
            ),
            Check(
                text="speed-up over dense attention times attended fraction is at least 0.6",
                quantity="efficiency",
                where=Where(
                    levels=("op",),
                    contenders=("sliding_tile",),
                    min_len=16384,
                    attended=(0.1, 0.5),
                ),
                low=0.6,
            ),
        ),
    ),
    Claim(
        name="E9",
        source=ENA_SOURCE,
        quotation="By replacing half of the Transformer's layers with linear recurrence, ENA "
        "achieves linear time complexity",
        checks=(
            Check(
                text="exponent of time over length at the top 3 lengths is at most 1.1",
                quantity="exponent",
                where=Where(levels=STACKS, contenders=("ena",)),
                high=1.1,
            ),
        ),
    ),
    Claim(
        name="E10",
        source=ENA_SOURCE,
        quotation="the ability to replace the full attention component with ... Sliding Tile "
        "Attention allows for even greater speedups",
        checks=(
            Check(
                text="ENA at 70% is faster than ENA with full attention from 4k on: time ratio",
                quantity="dense_ratio",
                where=Where(levels=STACKS, contenders=("ena",), sparsities=(0.7,), min_len=4096),
                low=FASTER,
            ),
            Check(
                text="that ratio does not fall from one length to the next",
                quantity="dense_ratio_rise",
                where=Where(levels=STACKS, contenders=("ena",), sparsities=(0.7,), min_len=4096),
                low=SLOWER,
            ),
        ),
    ),
    Claim(
        name="E11",
        source=ENA_SOURCE,
        quotation="Interleaving attention layers throughout the model yields better performance "
        "than stacking them in deeper layers.",
        checks=(
            Check(
                text="stacked over interleaved: time differs by less than 2%",
                quantity="stacked_time",
                where=Where(levels=("model",), contenders=("ena",)),
                low=0.98,
                high=1.02,
            ),
            Check(
                text="stacked over interleaved: peak memory differs by less than 2%",
                quantity="stacked_memory",
                where=Where(levels=("model",), contenders=("ena",)),
                low=0.98,
                high=1.02,
            ),
        ),
        untested="the better performance itself is about accuracy",
    ),
    Claim(
        name="L9",
        source=LINEAR_SOURCE,
        quotation="Theta(n^2 d) and Theta(n d^2) complexity",
        checks=(
            Check(
                text="exponent of attention's time at the top 3 lengths is 1.8 to 2.2",
                quantity="exponent",
                where=Where(levels=("op",), contenders=("attention",)),
                low=1.8,
                high=2.2,
            ),
            Check(
                text="exponent of the delta rule's time at the top 3 lengths is 0.9 to 1.1",
                quantity="exponent",
                where=Where(levels=("op",), contenders=("delta_rule",)),
                low=0.9,
                high=1.1,
            ),
        ),
        untested="the linear form is the delta rule; plain linear attention is no contender",
    ),
    Claim(
        name="S3",
        source=SPARSE_SOURCE,
        quotation="reduces attention computations by 99.5% and accelerates generation by 6.3 times "
        "for generating 8K-resolution images.",
        checks=(
            Check(
                text="attention on 512x512 tokens, which must gain 6.3 times if the whole does",
                quantity="speedup",
                where=Where(
                    levels=("op",),
                    contenders=("sliding_tile",),
                    sparsities=(0.995,),
                    min_len=512 * 512,
                ),
                low=6.3,
            ),
        ),
        untested="generation from end to end is not measured",
    ),
    Claim(
        name="Q1",
        source=GENERAL_SOURCE,
        quotation="if a sequence length doubles, a standard Transformer requires four times the "
        "computation, whereas a linear-attention model only requires twice.",
        checks=(
            Check(
                text="the Transformer's time grows 3.6 to 4.4 times per doubling",
                quantity="doubling",
                where=Where(levels=STACKS, contenders=("transformer",)),
                low=3.6,
                high=4.4,
            ),
            Check(
                text="the linear model's time grows 1.8 to 2.2 times per doubling",
                quantity="doubling",
                where=Where(levels=STACKS, contenders=("linear",), scans=("uni",)),
                low=1.8,
                high=2.2,
            ),
        ),
    ),
    Claim(
        name="Q2",
        source=GENERAL_SOURCE,
        quotation="O(N^2) in terms of both time and memory",
        checks=(
            Check(
                text="exponent of attention's time at the top 3 lengths is at least 1.8",
                quantity="exponent",
                where=Where(levels=("op",), contenders=("attention",)),
                low=1.8,
            ),
            Check(
                text="exponent of its training memory is at least 1.8, for each implementation",
                quantity="memory_exponent",
                where=Where(levels=("op",), modes=TRAINING, contenders=("attention",)),
                low=1.8,
            ),
        ),
    ),
    Claim(
        name="Q5",
        source=GENERAL_SOURCE,
        quotation="With reduced computational complexity and memory demands comes a direct "
        "improvement in inference speed.",
        checks=(
            Check(
                text="the forward is faster than the Transformer's: speed-up",
                quantity="speedup",
                where=Where(levels=STACKS, modes=("fwd",), contenders=("ena", "linear")),
                low=FASTER,
            ),
        ),
    ),
)
