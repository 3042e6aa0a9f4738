"""Noise models: what is fitted is what is drawn."""

from dataclasses import replace

import numpy as np
import pytest

from bench.errors import UsageError
from bench.noise import NoiseModel, Visit
from bench.recorded_noise import MODELS, recorded, recorded_or_fitted

CPU = MODELS[0]
KNOWN = replace(
    CPU,
    machine_sigma=0.03,
    machine_correlation=0.9,
    visit_sigma=0.02,
    sample_sigma=0.01,
    num_samples=31,
)


def drawn(model, *, seed, num_cases=17, num_rounds=40):
    rng = np.random.default_rng(seed)
    return model.visits(rng, model.cases(rng, num_cases), num_rounds)


def fitted(visits):
    return NoiseModel.fit(visits, name="again", machine="here", device="cpu", recorded="today")


def test_the_fit_of_what_a_model_draws_is_the_model():
    found = fitted(drawn(KNOWN, seed=3, num_rounds=150))
    assert found.machine_sigma == pytest.approx(0.03, rel=0.25)
    assert found.machine_correlation == pytest.approx(0.9, abs=0.06)
    assert found.visit_sigma == pytest.approx(0.02, rel=0.25)
    assert found.sample_sigma == pytest.approx(0.01, rel=0.5)


def test_noise_of_visits_alone_is_not_taken_for_the_machines():
    found = fitted(drawn(replace(KNOWN, machine_sigma=0.0), seed=5))
    assert found.machine_sigma < 0.3 * found.visit_sigma


def test_a_run_visits_every_case_once_a_round():
    visits = drawn(CPU, seed=7, num_cases=5, num_rounds=3)
    for round in range(3):
        assert sorted(v.case for v in visits if v.round == round) == list("01234")


def test_a_second_mode_is_slower_in_its_share_of_the_visits():
    calm = replace(KNOWN, machine_sigma=0.0, visit_sigma=0.0, sample_sigma=0.0, latency_ms=(2, 2))
    visits = drawn(calm.with_modes(gap=0.5, share=0.25), seed=11)
    medians = np.array([np.median(v.samples_ms) for v in visits])
    assert set(np.round(medians, 6)) == {2.0, 3.0}
    assert np.mean(medians > 2.5) == pytest.approx(0.25, abs=0.06)


def test_too_few_rounds_are_an_error_that_says_what_to_measure():
    visits = [Visit(case, 0, [1.0, 2.0]) for case in "abcd"]
    with pytest.raises(UsageError, match="4 cases in 1 rounds"):
        fitted(visits)


def test_recorded_models_are_found_by_name():
    assert recorded("cpu") is CPU
    assert [(m.name, m.device) for m in MODELS] == [("cpu", "cpu"), ("h200", "cuda")]
    assert recorded("cpu-bimodal").mode_share > 0
    with pytest.raises(UsageError, match="cpu-bimodal"):
        recorded_or_fitted("none-such")


def test_rounds_further_apart_have_less_of_the_machine_in_common():
    drifting = replace(KNOWN, visit_sigma=0.0, sample_sigma=0.0, machine_correlation=0.99)
    rng = np.random.default_rng(13)
    cases = drifting.cases(rng, 1)

    def agreement(round_length):
        visits = drifting.visits(rng, cases, 600, round_length=round_length)
        assert [visit.round for visit in visits] == list(range(600))
        levels = np.log([np.median(visit.samples_ms) for visit in visits])
        return np.corrcoef(levels[:-1], levels[1:])[0, 1]

    assert agreement(0) > 0.9
    assert agreement(200) < 0.4
