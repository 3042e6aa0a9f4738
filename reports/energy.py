"""Energy of a call, from the median power of the board while it was timed.

The board is read every 50 ms, so the power is that of many calls and of what lies between them:
flushes of the cache and gaps of the host. For calls that keep the GPU busy that is close. Drivers
that only tell a mean of the last second blur it with what ran before.
"""

from collections.abc import Mapping
from typing import Any


def energy_j(case: Mapping[str, Any]) -> float | None:
    """Joules of one call; None where power or time is unknown."""
    if case["status"] != "ok" or not case["power_w"] or not case["latency_ms"]:
        return None
    return float(case["power_w"] * case["latency_ms"] / 1e3)


def microjoules_per_token(case: Mapping[str, Any]) -> float | None:
    """Energy of a call over its tokens; None where energy is unknown."""
    joules, tokens = energy_j(case), (case["batch"] or 0) * (case["seq_len"] or 0)
    return None if joules is None or not tokens else joules / tokens * 1e6
