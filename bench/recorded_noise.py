"""Noise models fitted to recorded runs: parameters, not samples."""

from pathlib import Path

from bench.errors import UsageError
from bench.noise import NoiseModel, visits_of

MODELS = (
    NoiseModel(
        name="cpu",
        machine="Intel(R) Xeon(R) Processor, 2 cores, virtual",
        device="cpu",
        recorded="2026-11-25",
        num_cases=32,
        num_rounds=10,
        machine_sigma=0.0337,
        machine_correlation=0.938,
        visit_sigma=0.0306,
        visit_spread=0.0977,
        visit_quantiles=(
            -2.03,
            -2.01,
            -1.67,
            -1.3,
            -1.05,
            -0.794,
            -0.324,
            0.741,
            1.55,
            1.81,
            2.18,
            2.44,
            2.44,
        ),
        sample_sigma=0.0347,
        sample_spread=0.47,
        sample_correlation=0.178,
        sample_quantiles=(
            -7.99,
            -2.75,
            -1.77,
            -1.1,
            -0.868,
            -0.57,
            0.0,
            0.984,
            2.48,
            4.07,
            9.32,
            17.3,
            63.2,
        ),
        num_samples=97,
        latency_ms=(0.0478, 11.4),
    ),
    NoiseModel(
        name="h200",
        machine="NVIDIA H200",
        device="cuda",
        recorded="2026-11-25",
        num_cases=12,
        num_rounds=10,
        machine_sigma=0.00314,
        machine_correlation=0.751,
        visit_sigma=0.00582,
        visit_spread=0.598,
        visit_quantiles=(
            -2.47,
            -2.43,
            -2.28,
            -1.59,
            -1.31,
            -0.872,
            0.0136,
            0.751,
            1.19,
            1.41,
            1.96,
            2.43,
            2.57,
        ),
        sample_sigma=0.00715,
        sample_spread=1.03,
        sample_correlation=0.198,
        sample_quantiles=(
            -70.2,
            -9.88,
            -3.44,
            -1.65,
            -1.2,
            -0.643,
            0.0,
            0.711,
            1.42,
            1.92,
            4.61,
            6.29,
            15.5,
        ),
        num_samples=60,
        latency_ms=(0.00917, 1.76),
    ),
)
"""Fresh workers each round.

cpu   the op and layer cases of `quick` at 256 and 512 tokens, wall clock
h200  products, attention, copies, softmax and an MLP of 9 us to 1.8 ms, events with a cold L2, the
      clock not locked: under a power cap a large product has two speeds 6% apart
"""


def recorded(name: str) -> NoiseModel:
    """A shipped model; `NAME-bimodal` adds a mode 10% slower that a third of the visits are in.

    Raises:
        UsageError: there is none of that name.
    """
    models = {model.name: model for model in MODELS}
    base = name.removesuffix("-bimodal")
    if base not in models:
        names = [n for model in models for n in (model, f"{model}-bimodal")]
        raise UsageError(
            f"noise {name!r} is unknown",
            expected=f"one of {', '.join(names)}, or a run directory to fit",
            try_=f"--noise {names[0]}",
        )
    model = models[base]
    return model if base == name else model.with_modes(gap=0.10, share=1 / 3)


def recorded_or_fitted(noise: str) -> NoiseModel:
    """A shipped model by its name, or the one of a run directory.

    Raises:
        UsageError: neither, or a run with too few cases or rounds.
        StorageError: the run cannot be read.
    """
    path = Path(noise)
    if not path.exists():
        return recorded(noise)
    from bench.results import load

    rows, _ = load(path)
    measured = rows[rows["status"] == "ok"]
    machine = str(measured["device_name"].iloc[0]) if len(measured) else "unknown"
    when = str(measured["started_at"].min())[:10] if len(measured) else "unknown"
    device = str(measured["device"].iloc[0]) if len(measured) else "cpu"
    return NoiseModel.fit(
        visits_of(rows), name=path.name, machine=machine, device=device, recorded=when
    )
