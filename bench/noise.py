"""Noise as it was recorded, so that a gate can be tried on runs that nobody has to measure.

A latency varies in three layers, and a comparison that knows the innermost only cries wolf:

machine  slow and shared by all cases: clocks, heat, neighbours; correlated from visit to visit
visit    of one case in one worker process: memory layout, a mode that it settles in
sample   from call to call, skewed, with spikes

Each layer is multiplicative. Shapes of the inner two are tables of quantiles, not formulas.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.special import ndtr

from bench.errors import UsageError

Array = NDArray[np.float64]

LEVELS = (0.0, 0.002, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.998, 1.0)
"""Where the quantiles of a layer's shape are kept."""
MAD_TO_SIGMA = 1.4826
FEWEST_ROUNDS = 4
FEWEST_CASES = 3
FASTEST_FADING = 0.5
"""Least correlation of the machine layer: one that fades faster is a visit's own."""
LONGEST_LAG = 40
"""Visits over which the memory of the machine layer is looked for."""


class Visit(NamedTuple):
    """The samples of one case in one round; a sequence of these is in the order of time."""

    case: str
    round: int
    samples_ms: Sequence[float] | Array


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseNoise:
    """What stays with a case from run to run: its latency and how noisy it is."""

    latency_ms: float
    visit_sigma: float
    sample_sigma: float


@dataclass(frozen=True, kw_only=True, slots=True)
class NoiseModel:
    """How latencies of one machine vary; sigmas are of logarithms.

    Args:
        device: `cpu` or `cuda`.
        machine_sigma, machine_correlation: The shared layer, and its correlation between one visit
            and the next.
        visit_sigma, visit_spread: Median over cases, and the sigma of its logarithm among them.
        visit_quantiles, sample_quantiles: Shapes at `LEVELS`, in units of their sigma.
        sample_correlation: Between one sample and the next.
        num_samples: Of a visit.
        latency_ms: Smallest and largest among the recorded cases.
        mode_gap, mode_share: A slower mode: how much slower, and the share of visits in it.
    """

    name: str
    machine: str
    device: str
    recorded: str
    num_cases: int
    num_rounds: int
    machine_sigma: float
    machine_correlation: float
    visit_sigma: float
    visit_spread: float
    visit_quantiles: tuple[float, ...]
    sample_sigma: float
    sample_spread: float
    sample_correlation: float
    sample_quantiles: tuple[float, ...]
    num_samples: int
    latency_ms: tuple[float, float]
    mode_gap: float = 0.0
    mode_share: float = 0.0

    @classmethod
    def fit(
        cls, visits: Sequence[Visit], *, name: str, machine: str, device: str, recorded: str
    ) -> Self:
        """The model of recorded visits in the order of time.

        Raises:
            UsageError: too few cases or rounds to tell the layers apart.
        """
        table = _Recorded(visits)
        share, correlation = _shared_part(table.deviations)
        total = float(np.std(table.deviations))
        own = [sigma * np.sqrt(1.0 - share) for sigma in table.case_sigmas]
        return cls(
            name=name,
            machine=machine,
            device=device,
            recorded=recorded,
            num_cases=table.num_cases,
            num_rounds=table.num_rounds,
            machine_sigma=_rounded(np.sqrt(share) * total),
            machine_correlation=_rounded(correlation),
            visit_sigma=_rounded(np.median(own)),
            visit_spread=_rounded(_spread(own, noise=0.5 / (table.num_rounds - 1))),
            visit_quantiles=_shape(table.visit_scores / _sigma_drawn(table.visit_scores)),
            sample_sigma=_rounded(np.median(table.sample_sigmas)),
            sample_spread=_rounded(_spread(table.sample_sigmas)),
            sample_correlation=_rounded(max(0.0, float(np.median(table.sample_correlations)))),
            sample_quantiles=_shape(table.sample_scores),
            num_samples=int(np.median([len(visit.samples_ms) for visit in visits])),
            latency_ms=(_rounded(min(table.medians_ms)), _rounded(max(table.medians_ms))),
        )

    def with_modes(self, *, gap: float, share: float) -> "NoiseModel":
        """The same noise with a second mode, in which a share of the visits is slower by `gap`."""
        return replace(self, name=f"{self.name}, bimodal", mode_gap=gap, mode_share=share)

    def cases(self, rng: np.random.Generator, num_cases: int) -> list[CaseNoise]:
        """Cases as different from each other as the recorded ones."""
        low, high = np.log(self.latency_ms)
        return [
            CaseNoise(
                latency_ms=float(np.exp(rng.uniform(low, high))),
                visit_sigma=self.visit_sigma * _factor(rng, self.visit_spread),
                sample_sigma=self.sample_sigma * _factor(rng, self.sample_spread),
            )
            for _ in range(num_cases)
        ]

    def visits(
        self,
        rng: np.random.Generator,
        cases: Sequence[CaseNoise],
        num_rounds: int,
        *,
        round_length: int = 0,
    ) -> list[Visit]:
        """A run that visits each case once a round, shuffled: its visits in the order of time.

        Args:
            round_length: Time from one round to the next, counted in visits, where that is more
                than there are cases.
        """
        length = max(round_length, len(cases))
        machine = self._machine(rng, num_rounds * length)
        return [
            Visit(
                str(place),
                round,
                self._samples(rng, cases[place], machine[round * length + at]),
            )
            for round in range(num_rounds)
            for at, place in enumerate(rng.permutation(len(cases)))
        ]

    def _machine(self, rng: np.random.Generator, num_visits: int) -> Array:
        """The shared layer over successive visits: an autoregression that begins as it goes on."""
        return self.machine_sigma * _remembering(rng, num_visits, self.machine_correlation)

    def _samples(self, rng: np.random.Generator, case: CaseNoise, machine: float) -> Array:
        visit = case.visit_sigma * np.interp(rng.uniform(), LEVELS, self.visit_quantiles)
        if self.mode_share and rng.uniform() < self.mode_share:
            visit += np.log1p(self.mode_gap)
        places = ndtr(_remembering(rng, self.num_samples, self.sample_correlation))
        samples = case.sample_sigma * np.interp(places, LEVELS, self.sample_quantiles)
        drawn: Array = case.latency_ms * np.exp(machine + visit + samples)
        return drawn


def visits_of(rows: Any) -> list[Visit]:
    """The visits in a frame of rows with status ok, in the order of time."""
    measured = rows[rows["status"] == "ok"].sort_values("started_at", kind="stable")
    columns = zip(measured["case_id"], measured["round"], measured["samples_ms"], strict=True)
    return [Visit(case, int(round), list(samples)) for case, round, samples in columns]


class _Recorded:
    """Recorded visits taken apart: deviations of visits from their case, of samples from theirs."""

    def __init__(self, visits: Sequence[Visit]) -> None:
        cases = sorted({visit.case for visit in visits})
        self.num_cases = len(cases)
        self.num_rounds = len({visit.round for visit in visits})
        if self.num_cases < FEWEST_CASES or self.num_rounds < FEWEST_ROUNDS:
            raise UsageError(
                f"noise of {self.num_cases} cases in {self.num_rounds} rounds cannot be told apart",
                expected=f"at least {FEWEST_CASES} cases in {FEWEST_ROUNDS} rounds that went well",
                try_="ena-bench run --rounds 10 --fresh-workers",
            )
        medians = np.log([float(np.median(visit.samples_ms)) for visit in visits])
        places = {
            case: [i for i, visit in enumerate(visits) if visit.case == case] for case in cases
        }
        self.medians_ms = [float(np.exp(np.median(medians[where]))) for where in places.values()]
        self.deviations = np.zeros(len(visits))
        self.case_sigmas: list[float] = []
        scores: list[Array] = []
        for where in places.values():
            deviations = medians[where] - medians[where].mean()
            self.deviations[where] = deviations
            sigma = float(deviations.std(ddof=1)) if len(where) > 1 else 0.0
            self.case_sigmas.append(sigma)
            scores.append(deviations / sigma if sigma else deviations)
        self.visit_scores = np.concatenate(scores)
        self._take_samples(visits, places)

    def _take_samples(self, visits: Sequence[Visit], places: dict[str, list[int]]) -> None:
        self.sample_sigmas: list[float] = []
        self.sample_correlations: list[float] = []
        scores: list[Array] = []
        for where in places.values():
            logs = [np.log(np.asarray(visits[i].samples_ms)) for i in where]
            deviations = [values - np.median(values) for values in logs]
            sigmas = [MAD_TO_SIGMA * float(np.median(np.abs(d))) for d in deviations]
            sigma = float(np.median(sigmas))
            self.sample_sigmas.append(sigma)
            if not sigma:
                continue
            scores += [d / own for d, own in zip(deviations, sigmas, strict=True) if own]
            self.sample_correlations += [_correlation(np.sign(d)) for d in deviations]
        self.sample_scores = np.concatenate(scores) if scores else np.zeros(1)


def _shared_part(deviations: Array) -> tuple[float, float]:
    """Share of the variance that successive visits have in common, and how slowly it fades.

    Successive visits are of different cases, so what they have in common is the machine's. Fitted
    is `share * correlation ** lag`.
    """
    lags = np.arange(1, min(LONGEST_LAG, len(deviations) // 3) + 1)
    variance = float(np.mean(deviations**2))
    if not variance:
        return 0.0, 0.0
    seen = np.array([np.mean(deviations[:-lag] * deviations[lag:]) for lag in lags]) / variance

    def misfit(parameters: Array) -> Array:
        share, correlation = parameters
        found: Array = share * correlation**lags - seen
        return found

    fitted = least_squares(misfit, x0=(0.3, 0.9), bounds=((0.0, FASTEST_FADING), (0.98, 0.999)))
    share, correlation = fitted.x
    return float(share), float(correlation)


def _remembering(rng: np.random.Generator, num: int, correlation: float) -> Array:
    """Standard normal numbers, each correlated with the one before."""
    from scipy.signal import lfilter

    fresh = rng.standard_normal(num)
    fresh[1:] *= np.sqrt(1.0 - correlation**2)
    drawn: Array = lfilter([1.0], [1.0, -correlation], fresh)
    return drawn


def _correlation(signs: Array) -> float:
    """Of successive values, from their signs alone, as for a normal law: spikes do not count."""
    if len(signs) < FEWEST_ROUNDS:
        return 0.0
    return float(np.sin(np.pi / 2.0 * np.mean(signs[:-1] * signs[1:])))


def _spread(sigmas: Sequence[float], noise: float = 0.0) -> float:
    """Sigma of the logarithms, less the variance that estimating each sigma adds."""
    positive = [sigma for sigma in sigmas if sigma > 0.0]
    if len(positive) < FEWEST_CASES:
        return 0.0
    return float(np.sqrt(max(0.0, float(np.var(np.log(positive), ddof=1)) - noise)))


def _shape(scores: Array) -> tuple[float, ...]:
    return tuple(_rounded(value) for value in np.quantile(scores, LEVELS))


def _sigma_drawn(scores: Array) -> float:
    """Of what is drawn between the kept quantiles, so that a shape has a sigma of 1."""
    drawn = np.interp(np.linspace(0.0, 1.0, 2001), LEVELS, np.quantile(scores, LEVELS))
    return float(np.std(drawn)) or 1.0


def _factor(rng: np.random.Generator, spread: float) -> float:
    return float(np.exp(spread * rng.standard_normal()))


def _rounded(value: Any) -> float:
    """Three digits: no table of noise is better known."""
    return float(f"{float(value):.3g}")
