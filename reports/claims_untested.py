"""The claims that nothing here can test, each with its source and the reason."""

from reports.claim import Claim
from reports.claim_rules_others import ACCURACY, GENERAL_SOURCE

_OUT_OF_SCOPE = "decoding, other hardware, several GPUs or training from scratch are out of scope"


def _absent(contender: str) -> str:
    return f"{contender} is no contender here"


_ENTRIES: tuple[tuple[str, str, str, str], ...] = (
    (
        "L1",
        "GLA, arXiv 2312.06635",
        "is faster than FLASHATTENTION-2 (Dao, 2023) as a standalone layer even "
        "on short sequence lengths (e.g., 1K).",
        _absent("GLA"),
    ),
    (
        "L2",
        "GLA, arXiv 2312.06635, an earlier version",
        "outperforming FlashAttention-2 when training on longer sequences beyond 4096.",
        _absent("GLA"),
    ),
    (
        "L3",
        "GLA, arXiv 2312.06635",
        "the GLA Transformer has higher throughput than a similarly-sized Mamba model.",
        _absent("GLA or Mamba"),
    ),
    (
        "L4",
        "Lightning Attention-2, arXiv 2401.04658",
        "retains consistent training and inference speed regardless of input sequence length",
        _absent("Lightning Attention"),
    ),
    (
        "L5",
        "Lightning Attention, arXiv 2405.17381",
        "maintains a constant training speed for various sequence lengths under "
        "fixed memory consumption.",
        _absent("Lightning Attention"),
    ),
    (
        "L6",
        "LightNet, arXiv 2405.21022",
        "can handle multi-dimensional data within a single scan",
        _absent("LightNet"),
    ),
    (
        "L7",
        "CHELA, arXiv 2406.08128",
        "while maintaining real linear complexity.",
        _absent("CHELA"),
    ),
    (
        "L8",
        "CHELA, arXiv 2406.08128",
        "the efficiency of linear attention remains only at the theoretical "
        "level in a causal setting",
        _absent("naive causal linear attention"),
    ),
    (
        "L10",
        "WERSA, arXiv 2507.08637",
        "cutting training time by 81% (296s vs 1554s) and FLOPS by 73.4% (26.2G vs 98.4G)",
        _absent("WERSA"),
    ),
    (
        "L11",
        "PoNet, arXiv 2110.02442",
        "only slightly slower than the fastest model, FNet, across all sequence "
        "lengths measured on GPUs.",
        _absent("PoNet or FNet"),
    ),
    (
        "L12",
        "L2ViT, arXiv 2501.16182",
        "enjoying linear computational complexity",
        _absent("L2ViT"),
    ),
    (
        "L13",
        "kernelized attention with relative positions, arXiv 2106.12566",
        "faster than standard Transformer in the long-sequence regime",
        _absent("kernelized attention with relative positions"),
    ),
    (
        "S1",
        "Faster Neighborhood Attention, arXiv 2403.04690",
        "improve naive kernels by an average of 1607% and 581% in 1-D and 2-D "
        "problems respectively",
        _absent("naive neighborhood attention"),
    ),
    (
        "S2",
        "Faster Neighborhood Attention, arXiv 2403.04690",
        "can now enjoy a reduced and constant memory footprint",
        _absent("token-wise neighborhood attention"),
    ),
    (
        "S4",
        "AdaSpa, arXiv 2502.21079",
        "about 600 PFLOPs, with around 500 PFLOPs consumed by attention computations",
        "it is about FLOPs, not time: by 4N / (4N + 24D) attention takes 86% of a forward at 110k "
        "tokens and width 3072",
    ),
    (
        "S5",
        "Flash Sparse Attention, arXiv 2508.18224, version 1",
        "is efficient only with large Grouped Query Attention (GQA) sizes",
        _absent("NSA"),
    ),
    (
        "S6",
        "PAROAttention, arXiv 2506.16054",
        "1.9x to 2.7x end-to-end latency speedup",
        _absent("a block that has Sliding Tile Attention in every layer"),
    ),
    (
        "S7",
        "HiLo, arXiv 2205.13213",
        "1.4x faster than spatial reduction attention and 1.6x faster than local "
        "window attention on CPUs",
        _absent("HiLo"),
    ),
    (
        "S8",
        "SQA, arXiv 2510.01817",
        "throughput improvements of up to 3x in computation-bound scenarios",
        _absent("SQA"),
    ),
    ("S9", "Apriel-H1, arXiv 2511.02651", "over 2x higher inference throughput", _OUT_OF_SCOPE),
    (
        "S10",
        "MaxViT, arXiv 2204.01697",
        "only linear complexity",
        _absent("MaxViT, axial or halo attention"),
    ),
    (
        "S11",
        "Sparsifiner, arXiv 2303.13755",
        "reduces 48% to 69% FLOPs of MHSA",
        _absent("Sparsifiner"),
    ),
    (
        "S12",
        "LeanAttention, arXiv 2405.10480, version 1",
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
