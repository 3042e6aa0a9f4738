"""Energy from power and time."""

import pandas as pd
import pytest

from reports import energy, frames


def case(row, **columns):
    (found,) = frames.records(frames.tidy(pd.DataFrame([row(**columns)])))
    return found


def test_energy_is_power_times_latency_over_tokens(row):
    found = case(row, power_w=400.0, latency_ms=5.0, batch=2, canvas="32x64")
    assert energy.energy_j(found) == pytest.approx(2.0)
    assert energy.microjoules_per_token(found) == pytest.approx(2.0 / 4096 * 1e6)


@pytest.mark.parametrize("unknown", [{"power_w": None}, {"power_w": 400.0, "status": "oom"}])
def test_without_power_or_time_energy_is_unknown(row, unknown):
    found = case(row, **unknown)
    assert energy.energy_j(found) is energy.microjoules_per_token(found) is None
