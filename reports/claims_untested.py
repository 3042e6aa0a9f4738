"""The claims of SPEC 7 that nothing here can test, each with the reason."""

from reports.claim import Claim
from reports.claim_rules_others import ACCURACY, GENERAL_SOURCE, LINEAR_SOURCE, SPARSE_SOURCE

_OUT_OF_SCOPE = "decoding, other hardware, several GPUs or training from scratch are out of scope"


def _absent(contender: str) -> str:
    return f"{contender} is no contender here"


_ENTRIES: tuple[tuple[str, str, str, str], ...] = (
    (
        "L1",
        LINEAR_SOURCE,
        "is faster than FLASHATTENTION-2 (Dao, 2023) as a standalone layer even "
        "on short sequence lengths (e.g., 1K).",
        _absent("GLA"),
    ),
    (
        "L2",
        LINEAR_SOURCE,
        "outperforming FlashAttention-2 when training on longer sequences beyond 4096.",
        _absent("GLA"),
    ),
    (
        "L3",
        LINEAR_SOURCE,
        "the GLA Transformer has higher throughput than a similarly-sized Mamba model.",
        _absent("GLA or Mamba"),
    ),
    (
        "L4",
        LINEAR_SOURCE,
        "retains consistent training and inference speed regardless of input sequence length",
        _absent("Lightning Attention"),
    ),
    (
        "L5",
        LINEAR_SOURCE,
        "maintains a constant training speed for various sequence lengths under "
        "fixed memory consumption.",
        _absent("Lightning Attention"),
    ),
    (
        "L6",
        LINEAR_SOURCE,
        "can handle multi-dimensional data within a single scan",
        _absent("LightNet"),
    ),
    ("L7", LINEAR_SOURCE, "while maintaining real linear complexity.", _absent("CHELA")),
    (
        "L8",
        LINEAR_SOURCE,
        "the efficiency of linear attention remains only at the theoretical "
        "level in a causal setting",
        _absent("naive causal linear attention"),
    ),
    (
        "L10",
        LINEAR_SOURCE,
        "cutting training time by 81% (296s vs 1554s) and FLOPS by 73.4% (26.2G vs 98.4G)",
        _absent("WERSA"),
    ),
    (
        "L11",
        LINEAR_SOURCE,
        "only slightly slower than the fastest model, FNet, across all sequence "
        "lengths measured on GPUs.",
        _absent("PoNet or FNet"),
    ),
    ("L12", LINEAR_SOURCE, "enjoying linear computational complexity", _absent("L2ViT")),
    (
        "L13",
        LINEAR_SOURCE,
        "faster than standard Transformer in the long-sequence regime",
        _absent("kernelized attention with relative positions"),
    ),
    (
        "S1",
        SPARSE_SOURCE,
        "improve naive kernels by an average of 1607% and 581% in 1-D and 2-D "
        "problems respectively",
        _absent("naive neighborhood attention"),
    ),
    (
        "S2",
        SPARSE_SOURCE,
        "can now enjoy a reduced and constant memory footprint",
        _absent("token-wise neighborhood attention"),
    ),
    (
        "S4",
        SPARSE_SOURCE,
        "about 600 PFLOPs, with around 500 PFLOPs consumed by attention computations",
        "it is about FLOPs, not time: by 4N / (4N + 24D) attention takes 86% of a forward at 110k "
        "tokens and width 3072",
    ),
    (
        "S5",
        SPARSE_SOURCE,
        "is efficient only with large Grouped Query Attention (GQA) sizes",
        _absent("NSA"),
    ),
    (
        "S6",
        SPARSE_SOURCE,
        "1.9x to 2.7x end-to-end latency speedup",
        _absent("a block that has Sliding Tile Attention in every layer"),
    ),
    (
        "S7",
        SPARSE_SOURCE,
        "1.4x faster than spatial reduction attention and 1.6x faster than local "
        "window attention on CPUs",
        _absent("HiLo"),
    ),
    (
        "S8",
        SPARSE_SOURCE,
        "throughput improvements of up to 3x in computation-bound scenarios",
        _absent("SQA"),
    ),
    ("S9", SPARSE_SOURCE, "over 2x higher inference throughput", _OUT_OF_SCOPE),
    ("S10", SPARSE_SOURCE, "only linear complexity", _absent("MaxViT, axial or halo attention")),
    ("S11", SPARSE_SOURCE, "reduces 48% to 69% FLOPs of MHSA", _absent("Sparsifiner")),
    (
        "S12",
        SPARSE_SOURCE,
        "2.6x attention execution speedup over FlashAttention-2 and up to 8.33x "
        "speedup for 512k context lengths",
        f"{_OUT_OF_SCOPE}; likewise {ACCURACY}",
    ),
    (
        "Q3",
        GENERAL_SOURCE,
        "O(N * M) + O(M^2) where M << N",
        _absent("Longformer, BigBird, Reformer or Perceiver IO"),
    ),
    (
        "Q4",
        GENERAL_SOURCE,
        "enabling it to handle sequences up to 4x longer than standard Transformers.",
        _absent("BigBird"),
    ),
    (
        "Q6",
        GENERAL_SOURCE,
        "drastically reduces the number of attention computations",
        _absent("Reformer"),
    ),
)
UNTESTED = tuple(
    Claim(name=name, source=source, quotation=quotation, untested=reason)
    for name, source, quotation, reason in _ENTRIES
)
