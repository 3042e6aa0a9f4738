"""Synthetic runs whose answers are known, for every claim and every verdict."""

from reports.claim import CONFIRMED, MIXED, NOT_TESTED, REFUTED
from reports.claim_rules import SINGLE_PASS

CANVASES = {
    1: {4096: "4096", 8192: "8192", 16384: "16384", 32768: "32768", 65536: "65536"},
    2: {
        1024: "32x32",
        2048: "32x64",
        4096: "64x64",
        8192: "64x128",
        16384: "128x128",
        32768: "128x256",
        65536: "256x256",
        262144: "512x512",
    },
    3: {
        4096: "16x16x16",
        8192: "16x16x32",
        16384: "16x32x32",
        32768: "32x32x32",
        65536: "32x32x64",
    },
}
SHORT, LONG = (4096, 8192, 16384), (16384, 32768, 65536)
MODES, PLANES = ("fwd", "fwdbwd"), (2, 3)


class Study:
    """Makes rows with `row` of the fixtures; latencies are known to 0.1% unless said."""

    def __init__(self, row):
        self.row = row

    def curve(self, power, scale=1.0, *, lengths=SHORT, modes=MODES, ndims=PLANES, **changes):
        """`scale` ms at 4k tokens, growing with a power of the length."""
        return [
            self.point(mode, CANVASES[ndim][n], scale * (n / 4096) ** power, **changes)
            for mode in modes
            for ndim in ndims
            for n in lengths
        ]

    def point(self, mode, canvas, latency_ms, error=0.001, **changes):
        known = {
            "latency_ms_lo": latency_ms * (1 - error),
            "latency_ms_hi": latency_ms * (1 + error),
            "samples_ms": [latency_ms] * 8,
        }
        made = {"mode": mode, "canvas": canvas, "latency_ms": latency_ms, **known}
        return self.row(**made | changes)

    def ena(self, power, scale=1.0, sparsity=0.7, **changes):
        made = {"contender": "ena", "impl": "triton+fla", "interleave": "linear-first"}
        made |= {"tile": "8x16", "sparsity_target": sparsity, "sparsity": sparsity}
        return self.curve(power, scale, **made | changes)

    def both(self, power, scale=1.0, **changes):
        """ENA at 70% and with full attention."""
        return self.ena(power, scale, **changes) + self.ena(power, scale, 0.0, **changes)

    def fixed(self, power, **changes):
        """ENA with a window fixed in tokens."""
        return self.ena(power, sparsity=None, window="32x32", **changes)

    def linear(self, scan, power=1.0, scale=1.0, **changes):
        made = {"contender": "linear", "impl": "fla", "scan": scan}
        return self.curve(power, scale, **made | changes)

    def op(self, contender, power=1.0, scale=1.0, **changes):
        made = {"level": "op", "contender": contender, "depth": None}
        made |= {"lengths": LONG, "ndims": (1,)}
        return self.curve(power, scale, **made | changes)

    def tiles(self, scale, **changes):
        """Sliding Tile Attention at 75% sparsity, over attention that takes 1 ms at 4k."""
        made = {"impl": "triton", "sparsity_target": 0.75, "sparsity": 0.75, "ndims": (2,)}
        made |= {"tile": "8x16", "window": "64x64", "lengths": (16384,)}
        return self.op("sliding_tile", 2.0, scale, **made | changes)

    def dense(self, **changes):
        made = {"impl": "sdpa_cudnn", "ndims": (2,), "lengths": (16384,)}
        return self.op("attention", 2.0, **made | changes)

    def sweep(self, times, **changes):
        """A layer over sparsities: time of each in ms, at whatever length."""
        made = {"lengths": (4096, 16384, 65536), "ndims": (2,)}
        return [
            r
            for sparsity, time in times.items()
            for r in self.ena(0.0, time, sparsity, **made | changes)
        ]

    def waste(self, tile="8x8", window="72x72"):
        """A tile that does not fill a block; the time matters to nobody."""
        made = {"tile": tile, "window": window, "sparsity_target": 0.7, "sparsity": 0.683}
        return self.tiles(0.3, modes=("fwd",), **made)

    def stacks(self, factor, memory=100.0, **changes):
        """A model whose layers are interleaved, and one whose layers are stacked."""
        made = {"level": "model", "modes": ("fwd", "step"), "peak_memory_mib": 100.0}
        other = made | {"interleave": "stacked", "peak_memory_mib": memory}
        return self.ena(1.0, **made | changes) + self.ena(1.0, factor, **other | changes)

    def single_passes(self, factor, scans=SINGLE_PASS):
        found = self.linear("uni", ndims=(2,))
        return found + [r for s in scans for r in self.linear(s, 1.0, factor, ndims=(2,))]

    def learnable(self, power):
        """A scan whose surplus over uni is as large as uni at 4k and grows with a power."""
        made = {"contender": "linear", "impl": "fla", "scan": "learnable"}
        return [
            self.point("fwd", CANVASES[2][n], n / 4096 + (n / 4096) ** power, **made) for n in SHORT
        ]


FLAT = {0.0: 10.0, 0.25: 8.5, 0.5: 6.0, 0.6: 5.0, 0.7: 4.0, 0.8: 3.0, 0.9: 2.0, 0.95: 1.5}
"""1 + 10 (1 - s) but at 0: an implementation of its own; gains of 2.5 up to 70%, then of 2."""
KINKED = FLAT | {0.9: 0.4, 0.95: 3.9}


def multi_pass(s, times, memories=(1.5, 2.5), transformer=10.0):
    """The scans bi and cross as multiples of uni, against a Transformer (ms at 4k)."""
    made = {"lengths": (1024, 4096, 8192), "ndims": (2,)}
    found = s.curve(1.0, transformer, **made) + s.linear("uni", activations_mib=100.0, **made)
    for scan, time, memory in zip(("bi", "cross"), times, memories, strict=True):
        found += s.linear(scan, 1.0, time, activations_mib=100.0 * memory, **made)
    return found


def forwards(s, ena, linear=None):
    """Times at 4k of what grows with the length, against a Transformer that grows with its square
    and takes 1 ms there."""
    made = {"modes": ("fwd",), "ndims": (2,), "lengths": (1024, 4096, 16384)}
    found = s.curve(2.0, **made) + s.ena(1.0, ena, **made)
    return found + (s.linear("uni", 1.0, linear, **made) if linear else [])


def ena_memory(s, *used, **changes):
    """ENA's memory over a Transformer's 100 MiB, at three lengths."""
    base = s.curve(2.0, modes=("fwdbwd",), ndims=(2,), peak_memory_mib=100.0)
    own = s.both(1.0, modes=("fwdbwd",), ndims=(2,), **changes)
    return base + [r | {"peak_memory_mib": m} for r, m in zip(own, used * 2, strict=True)]


def operators(s, attention, delta_rule):
    return s.op("attention", attention, impl="sdpa_flash") + s.op(
        "delta_rule", delta_rule, impl="fla"
    )


def memories(s, flash, plain, time=2.0):
    """Attention whose training memory grows with one exponent for each implementation."""
    return [
        r | {"peak_memory_mib": 100.0 * (r["seq_len"] / 4096) ** power}
        for impl, power in (("sdpa_flash", flash), ("sdpa_math", plain))
        for r in s.op("attention", time, impl=impl)
    ]


def long_ena(s, share, window=None):
    found = s.both(share, lengths=LONG)
    return found + (s.fixed(window, lengths=LONG) if window else [])


def sparse_and_dense(s, sparse, dense=2.0, scale=0.5, **changes):
    found = s.ena(sparse, scale, lengths=LONG, **changes)
    return found + s.ena(dense, 1.0, 0.0, lengths=LONG, **changes)


def eights(s, *, aligned=0.3, waste=True, modes=MODES):
    found = s.dense() + s.tiles(aligned, modes=modes)
    return found + (s.waste() if waste else [])


def windows(s, plane, volume):
    """Windows of Sliding Tile Attention on 128x128 and 16x32x32 tokens: of a plane, a volume."""
    found = s.tiles(0.3, window=plane)
    return found + (s.tiles(0.3, ndims=(3,), tile="4x4x8", window=volume) if volume else [])


HUGE = {"sparsity_target": 0.995, "sparsity": 0.995, "lengths": (262144,)}
STUDIES = {
    ("E1", CONFIRMED): lambda s: s.curve(2.0) + s.both(1.0, 0.5),
    ("E1", REFUTED): lambda s: s.curve(2.0) + s.both(2.6, 4.0),
    ("E1", MIXED): lambda s: s.curve(2.0) + s.both(1.5, 5.0),
    ("E1", NOT_TESTED): lambda s: s.curve(2.0) + s.both(1.0, 0.5, modes=("fwd",)),
    ("E2", CONFIRMED): lambda s: ena_memory(s, 110.0, 115.0, 120.0),
    ("E2", REFUTED): lambda s: ena_memory(s, 90.0, 130.0, 140.0),
    ("E2", MIXED): lambda s: ena_memory(s, 110.0, 120.0, 140.0),
    ("E2", NOT_TESTED): lambda s: ena_memory(s, 110.0, 115.0, 120.0, contender="linear"),
    ("E3", CONFIRMED): lambda s: s.sweep(FLAT),
    ("E3", REFUTED): lambda s: s.sweep(KINKED),
    ("E3", MIXED): lambda s: s.sweep(FLAT | {0.0: 5.0}),
    ("E3", NOT_TESTED): lambda s: s.sweep({k: FLAT[k] for k in (0.0, 0.7, 0.9)}),
    ("E5", CONFIRMED): lambda s: multi_pass(s, (1.6, 2.4), transformer=1.2),
    ("E5", REFUTED): lambda s: multi_pass(s, (1.1, 1.2), (1.1, 1.2)),
    ("E5", MIXED): lambda s: multi_pass(s, (1.6, 2.4)),
    ("E5", NOT_TESTED): lambda s: [
        r for r in multi_pass(s, (1.6, 2.4), transformer=1.2) if r["mode"] == "fwd"
    ],
    ("E6", CONFIRMED): lambda s: s.single_passes(1.05) + s.learnable(2.0),
    ("E6", REFUTED): lambda s: s.single_passes(1.4) + s.learnable(3.0),
    ("E6", MIXED): lambda s: s.single_passes(1.05) + s.learnable(3.0),
    ("E6", NOT_TESTED): lambda s: s.single_passes(1.05, SINGLE_PASS[:-1]) + s.learnable(2.0),
    ("E7", CONFIRMED): lambda s: windows(s, "24x48", "8x16x16"),
    ("E7", REFUTED): lambda s: windows(s, "120x120", "32x28x32"),
    ("E7", MIXED): lambda s: windows(s, "120x120", "8x16x16"),
    ("E7", NOT_TESTED): lambda s: windows(s, "24x48", None),
    ("E8", CONFIRMED): lambda s: eights(s),
    ("E8", REFUTED): lambda s: s.dense() + s.tiles(0.9, tile=None, window=None),
    ("E8", MIXED): lambda s: eights(s, aligned=0.9),
    ("E8", NOT_TESTED): lambda s: eights(s, modes=("fwd",)),
    ("E9", CONFIRMED): lambda s: long_ena(s, 1.0, 1.0),
    ("E9", REFUTED): lambda s: long_ena(s, 1.8, 1.5),
    ("E9", MIXED): lambda s: long_ena(s, 1.8, 1.0),
    ("E9", NOT_TESTED): lambda s: long_ena(s, 1.0),
    ("E10", CONFIRMED): lambda s: sparse_and_dense(s, 1.5),
    ("E10", REFUTED): lambda s: sparse_and_dense(s, 2.5, scale=2.0),
    ("E10", MIXED): lambda s: sparse_and_dense(s, 1.2, scale=6.0),
    ("E10", NOT_TESTED): lambda s: sparse_and_dense(s, 1.5, modes=("fwd",)),
    ("E11", CONFIRMED): lambda s: s.stacks(1.005, 101.0),
    ("E11", REFUTED): lambda s: s.stacks(1.3, 130.0),
    ("E11", MIXED): lambda s: s.stacks(1.3, 101.0),
    ("E11", NOT_TESTED): lambda s: s.stacks(1.0, 100.0, error=0.05, modes=("fwd",)),
    ("L9", CONFIRMED): lambda s: operators(s, 2.0, 1.0),
    ("L9", REFUTED): lambda s: operators(s, 1.0, 2.0),
    ("L9", MIXED): lambda s: operators(s, 2.0, 1.4),
    ("L9", NOT_TESTED): lambda s: operators(s, 2.0, 1.0)[: len(LONG) * 2],
    ("S3", CONFIRMED): lambda s: s.dense(lengths=(262144,)) + s.tiles(0.1, **HUGE),
    ("S3", REFUTED): lambda s: s.dense(lengths=(262144,)) + s.tiles(0.2, **HUGE),
    ("S3", MIXED): lambda s: (
        s.dense(lengths=(262144,))
        + s.tiles(0.1, modes=("fwd",), **HUGE)
        + s.tiles(0.2, modes=("fwdbwd",), **HUGE)
    ),
    ("S3", NOT_TESTED): lambda s: s.dense() + s.tiles(0.1, sparsity_target=0.995),
    ("Q1", CONFIRMED): lambda s: s.curve(2.0) + s.linear("uni", 1.0),
    ("Q1", REFUTED): lambda s: s.curve(1.0) + s.linear("uni", 2.0),
    ("Q1", MIXED): lambda s: s.curve(1.0) + s.linear("uni", 1.0),
    ("Q1", NOT_TESTED): lambda s: s.curve(2.0),
    ("Q2", CONFIRMED): lambda s: memories(s, 2.0, 2.0),
    ("Q2", REFUTED): lambda s: memories(s, 1.0, 1.0, time=1.0),
    ("Q2", MIXED): lambda s: memories(s, 1.0, 2.0),
    ("Q2", NOT_TESTED): lambda s: memories(s, 2.0, 2.0)[: len(LONG) * 2],
    ("Q5", CONFIRMED): lambda s: forwards(s, ena=0.1, linear=0.1),
    ("Q5", REFUTED): lambda s: forwards(s, ena=9.0, linear=9.0),
    ("Q5", MIXED): lambda s: forwards(s, ena=0.1, linear=9.0),
    ("Q5", NOT_TESTED): lambda s: forwards(s, ena=0.1),
}
