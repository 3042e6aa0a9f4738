"""The claims of other papers that can be tested with the contenders at hand."""

from reports.claim import Check, Claim, Need, Where
from reports.speedup import FLASH_IMPLS

TRAINING = ("fwdbwd", "step")
STACKS = ("layer", "model")
FASTER, SLOWER = 1.03, 1 / 1.03
"""Differences of less than 3% do not count."""

GENERAL_SOURCE = "general statements about efficient attention"
SHORT = Need(column="seq_len", values=(1024,), words="1k tokens")
"""Where full attention costs least."""
ACCURACY = "a statement about accuracy; this benchmark measures time and memory"


OTHERS: tuple[Claim, ...] = (
    Claim(
        name="L9",
        source="Local Linear Attention, arXiv 2510.01450",
        quotation="Theta(n^2 d) and Theta(n d^2) complexity",
        checks=(
            Check(
                text="exponent of attention's time at the top 3 lengths is 1.8 to 2.2",
                quantity="exponent",
                where=Where(levels=("op",), contenders=("attention",), min_len=8192),
                low=1.8,
                high=2.2,
            ),
            Check(
                text="exponent of the delta rule's time at the top 3 lengths is 0.9 to 1.1",
                quantity="exponent",
                where=Where(levels=("op",), contenders=("delta_rule",), min_len=8192),
                low=0.9,
                high=1.1,
            ),
        ),
        aspect="with the delta rule",
        untested="plain linear attention is no contender",
    ),
    Claim(
        name="S3",
        source="CLEAR, arXiv 2412.16112",
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
        aspect="a condition that it needs",
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
                where=Where(levels=("op",), contenders=("attention",), min_len=8192),
                low=1.8,
            ),
            Check(
                text="exponent of its training memory is at least 1.8, for each implementation",
                quantity="memory_exponent",
                where=Where(
                    levels=("op",), modes=TRAINING, contenders=("attention",), min_len=2048
                ),
                low=1.8,
                needs=(
                    Need(column="impl", values=FLASH_IMPLS, words="a flash kernel"),
                    Need(column="impl", values=("sdpa_math", "eager"), words="a plain softmax"),
                ),
            ),
        ),
    ),
    Claim(
        name="Q5",
        source=GENERAL_SOURCE,
        quotation="With reduced computational complexity and memory demands comes a direct "
        "improvement in inference speed.",
        checks=(
            *(
                Check(
                    text=f"the forward of {words} is faster than the Transformer's: speed-up",
                    quantity="speedup",
                    where=Where(levels=STACKS, modes=("fwd",), contenders=(contender,)),
                    low=FASTER,
                    needs=(SHORT,),
                )
                for contender, words in (("ena", "ENA"), ("linear", "the linear model"))
            ),
        ),
    ),
)
