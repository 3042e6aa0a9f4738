"""The claims of ENA's paper that can be tested: what was said, and what confirms or refutes it.

With `reports.claim_rules_others` this table is all that decides a verdict:
`reports.claim_quantities` computes the quantities that it names, `reports.claim` holds readings
against the bounds.
"""

from dataclasses import replace

from bench import units
from reports.claim import SOMEWHERE, Check, Claim, Need, Where
from reports.claim_rules_others import ACCURACY, FASTER, OTHERS, SHORT, SLOWER, STACKS, TRAINING

ENA_SOURCE = "ENA, arXiv 2508.11921"
SINGLE_PASS = ("flip", "random", "1d-shift", "2d-shift", "switch", "mh2d", "mh3d")

_ENA = Where(
    levels=STACKS, contenders=("ena",), sparsities=(0.0, 0.7), scans=("uni",), ndims=(2, 3)
)
_SPARSE = replace(_ENA, sparsities=(0.7,), min_len=4096)
_LINEAR = Where(levels=STACKS, contenders=("linear",))
_LONG = replace(_ENA, min_len=16384)

_MODES = (
    Need(column="mode", values=("fwd",), words="inference"),
    Need(column="mode", values=TRAINING, words="training"),
)
_CANVASES = (
    Need(column="ndim", values=(2,), words="2-D"),
    Need(column="ndim", values=(3,), words="3-D"),
)
_KINDS = (
    Need(column="sparsity", values=(0.7,), words="ENA at 70%"),
    Need(column="sparsity", values=(0.0,), words="ENA with full attention"),
)
_LENGTHS = tuple(
    Need(column="seq_len", values=(length,), words=f"{units.tokens(length)} tokens")
    for length in (4096, 16384, 65536)
)

_ENA_CLAIMS: tuple[Claim, ...] = (
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
                needs=(*_MODES, *_CANVASES, *_KINDS),
            ),
            Check(
                text="it exceeds 1.1 at some length from 2k to 16k",
                quantity="most_speedup",
                where=replace(_ENA, min_len=2048, max_len=16384),
                low=1.1,
                needs=(*_MODES, *_CANVASES, *_KINDS),
            ),
            Check(
                text="exponent of time, less the Transformer's, is negative at the top 3 lengths",
                quantity="exponent_difference",
                where=replace(_ENA, min_len=2048),
                high=0.0,
                needs=(*_MODES, *_CANVASES, *_KINDS),
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
                where=replace(_ENA, modes=TRAINING, ndims=()),
                low=1.0,
                high=1.25,
                needs=_KINDS,
            ),
        ),
        aspect="memory without checkpointing",
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
                needs=_LENGTHS,
            ),
            Check(
                text="the gain from 70% to 90% is smaller than from 0 to 70%: ratio of the gains",
                quantity="gain_ratio",
                where=Where(levels=STACKS, contenders=("ena",), min_len=4096),
                high=1.0,
                needs=_LENGTHS,
            ),
        ),
        aspect="its speed",
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
            *(
                Check(
                    text=f"{scan} is slower than the Transformer at some length: speed-up",
                    quantity="speedup",
                    where=replace(_LINEAR, scans=(scan,)),
                    high=SLOWER,
                    holds=SOMEWHERE,
                    needs=(SHORT,),
                )
                for scan in ("bi", "cross")
            ),
            *(
                Check(
                    text=f"{scan} takes at least {least:g} times the {what} of uni",
                    quantity=quantity,
                    where=replace(_LINEAR, scans=(scan,), modes=modes),
                    low=least,
                )
                for scan, quantity, what, least, modes in (
                    ("bi", "scan_time", "time", 1.3, ()),
                    ("cross", "scan_time", "time", 1.8, ()),
                    ("bi", "scan_memory", "activation memory", 1.3, TRAINING),
                    ("cross", "scan_memory", "activation memory", 2.0, TRAINING),
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
                where=replace(_LINEAR, scans=SINGLE_PASS),
                high=1.1,
                needs=tuple(Need(column="scan", values=(s,), words=s) for s in SINGLE_PASS),
            ),
            Check(
                text="what the learnable scan adds to uni grows with exponent 1.7 to 2.3",
                quantity="scan_exponent",
                where=replace(_LINEAR, scans=("learnable",)),
                low=1.7,
                high=2.3,
            ),
        ),
        aspect="its cost",
        untested="the improvements themselves are about accuracy",
    ),
    Claim(
        name="E7",
        source=ENA_SOURCE,
        quotation="Unlike naive SWA implementations that suffer from poor hardware utilization due "
        "to 'mixed blocks' in attention maps, STA shifts its window tile-by-tile.",
        checks=(
            Check(
                text="windows that slide by tokens: pairs in touched tiles over attended",
                quantity="token_wise_waste",
                where=Where(contenders=("sliding_tile", "ena"), ndims=(2, 3)),
                low=1.3,
                needs=_CANVASES,
            ),
        ),
        aspect="pairs, not time",
        untested="no contender slides its window token by token, so no times are compared",
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
                where=Where(levels=("op",), contenders=("sliding_tile",), tiles=("8x8",)),
                low=1.01,
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
                needs=(
                    Need(column="mode", values=("fwd",), words="the forward"),
                    Need(column="mode", values=("bwd", "fwdbwd"), words="the backward"),
                ),
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
                text="a share of the tokens is attended: exponent of time at the top 3 lengths",
                quantity="exponent",
                where=replace(_LONG, sparsities=(0.0, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)),
                high=1.1,
                needs=_KINDS,
            ),
            Check(
                text="a window fixed in tokens: exponent of time at the top 3 lengths",
                quantity="exponent",
                where=replace(_LONG, sparsities=(None,)),
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
                where=_SPARSE,
                low=FASTER,
                needs=_MODES,
            ),
            Check(
                text="that ratio does not fall from one length to the next",
                quantity="dense_ratio_rise",
                where=_SPARSE,
                low=SLOWER,
                needs=_MODES,
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
                needs=_MODES,
            ),
            Check(
                text="stacked over interleaved: peak memory differs by less than 2%",
                quantity="stacked_memory",
                where=Where(levels=("model",), contenders=("ena",)),
                low=0.98,
                high=1.02,
                needs=_MODES,
            ),
        ),
        aspect="its cost",
        untested="the better performance itself is about accuracy",
    ),
)
CLAIMS: tuple[Claim, ...] = (*_ENA_CLAIMS, *OTHERS)
