"""What several rounds of a case come to: the one definition, of a comparison and of a report."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

TRIMMED = 0.1
"""Share of the rounds at each end that does not count for their centre."""


def trimmed_mean(values: Floats) -> Floats:
    """Mean along the last axis without `TRIMMED` of the values at each end, fractions counted.

    Five values have weights 1/8, 1/4, 1/4, 1/4, 1/8 by size; of ten the two extreme ones have none.
    """
    edges = np.arange(values.shape[-1] + 1) / values.shape[-1]
    kept = np.minimum(edges[1:], 1.0 - TRIMMED) - np.maximum(edges[:-1], TRIMMED)
    weights = np.clip(kept, 0.0, None)
    centre: Floats = np.sort(values, axis=-1) @ (weights / weights.sum())
    return centre


def centre_ms(medians_ms: Sequence[float]) -> float:
    """The latency of a case by the medians of its rounds: their trimmed mean, on logarithms.

    A round counts once, however many samples it had time for.
    """
    return float(np.exp(trimmed_mean(np.log(medians_ms))))
