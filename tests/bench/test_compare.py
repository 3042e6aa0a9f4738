"""Two runs case by case: what is found, what is not, and what is never cried about."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bench.compare import Limits, compare, compare_samples
from tests.comparing import case_of, failed, replaced, rows_of

CASES = [case_of(heads) for heads in (1, 2, 3, 5, 7, 11)]
SECOND = CASES[1].case_id


def by_id(found):
    return {case.case_id: case for case in found.cases}


def verdicts(found):
    return {case.case_id: case.verdict for case in found.cases}


def only(case_id, ratio):
    """Latencies of a run in which one case takes `ratio` times as long."""
    return {case.case_id: ratio if case.case_id == case_id else 1.0 for case in CASES}


@pytest.fixture(scope="module")
def baseline():
    return rows_of(CASES, run="main", seed=1)


def test_a_run_of_the_same_code_passes(baseline):
    found = compare(baseline, rows_of(CASES, run="change", seed=2))
    assert set(verdicts(found).values()) == {"same"}
    assert found.verdict == "passed"
    assert found.exit_code == 0
    assert found.suspects == ()
    assert found.geomean.ratio == pytest.approx(1.0, abs=0.005)
    assert found.geomean.lo <= 1.0 <= found.geomean.hi
    assert found.geomean.num_cases == len(CASES)


def test_a_run_compared_with_itself_is_the_same(baseline):
    found = compare(baseline, baseline)
    assert {case.ratio for case in found.cases} == {1.0}
    assert found.verdict == "passed"


def test_a_slow_case_is_found_and_no_other(baseline):
    after = rows_of(CASES, run="change", latency_ms=only(SECOND, 1.05), seed=2)
    found = compare(baseline, after)
    assert {i for i, v in verdicts(found).items() if v == "slower"} == {SECOND}
    slow = by_id(found)[SECOND]
    assert slow.ratio == pytest.approx(1.05, abs=0.01)
    assert 1.02 < slow.ratio_lo < slow.ratio < slow.ratio_hi
    assert slow.baseline_ms == pytest.approx(1.0, rel=0.01)
    assert slow.num_rounds == (5, 5)
    assert found.exit_code == 3
    assert [case.case_id for case in found.suspects] == [SECOND]
    assert 1.003 < found.geomean.ratio < 1.015


def test_a_fast_case_is_found_and_passes(baseline):
    after = rows_of(CASES, run="change", latency_ms=only(SECOND, 0.9), seed=2)
    found = compare(baseline, after)
    assert verdicts(found)[SECOND] == "faster"
    assert found.exit_code == 0


def test_a_tolerated_slow_down_passes(baseline):
    after = rows_of(CASES, run="change", latency_ms=1.05, seed=2)
    assert compare(baseline, after, Limits(max_slowdown=0.08)).exit_code == 0
    assert compare(baseline, after, Limits(max_slowdown=0.02)).exit_code == 3


def test_microseconds_below_the_absolute_floor_do_not_count():
    before = rows_of(CASES, latency_ms=0.0010, seed=1)
    after = rows_of(CASES, latency_ms=0.0011, seed=2)
    assert compare(before, after).exit_code == 0
    assert compare(before, after, Limits(floor_ms=0.0)).exit_code == 3


def test_noise_between_rounds_raises_the_bound_of_its_own_case_only(baseline):
    before = pd.concat(
        [rows_of(CASES[:1], between=0.05, seed=3), rows_of(CASES[1:], run="main", seed=1)]
    )
    after = pd.concat(
        [
            rows_of(CASES[:1], between=0.05, latency_ms=1.05, seed=4),
            rows_of(CASES[1:], latency_ms=1.05, seed=2),
        ]
    )
    found = compare(before, after)
    noisy = by_id(found)[CASES[0].case_id]
    assert noisy.noise_floor > 0.03
    assert noisy.bound == noisy.noise_floor
    assert noisy.verdict == "ambiguous"
    assert {v for i, v in verdicts(found).items() if i != noisy.case_id} == {"slower"}


def test_one_outlier_does_not_fail(baseline):
    after = rows_of(CASES, run="change", seed=2)
    samples = [list(s) for s in after["samples_ms"]]
    samples[7][3] = 1000.0
    after["samples_ms"] = samples
    assert compare(baseline, after).verdict == "passed"
    assert compare(baseline, after).suspects == ()


@pytest.mark.parametrize("factor", [1.1, 1.5, 4.0])
def test_one_slow_round_does_not_fail(baseline, factor):
    after = rows_of(CASES, run="change", seed=2)
    is_slow = (after["case_id"] == SECOND) & (after["round"] == 3)
    for column in ("samples_ms", "wall_samples_ms"):
        after[column] = [
            [factor * t for t in samples] if slow else samples
            for samples, slow in zip(after[column], is_slow, strict=True)
        ]
    found = compare(baseline, after)
    assert found.exit_code == 0
    assert verdicts(found)[SECOND] == "ambiguous"


def test_two_modes_of_a_machine_do_not_fail(baseline):
    """Rounds are either at 22 or at 25 ms, steady in themselves."""

    def bimodal(modes, seed):
        return pd.concat(
            rows_of(CASES, rounds=1, between=0.0, latency_ms=mode, seed=seed + i).assign(round=i)
            for i, mode in enumerate(modes)
        )

    found = compare(bimodal((22, 25, 22, 22, 25), 10), bimodal((25, 22, 25, 25, 22), 20))
    assert found.verdict == "undecided"
    assert min(case.noise_floor for case in found.cases) > 0.05


@pytest.mark.parametrize("ratio", [0.62, 0.9, 1.0, 1.06, 1.6])
def test_one_round_on_each_side_knows_no_noise(ratio):
    """Not even samples that agree to a hundredth make a faster or slower case of it."""
    before = rows_of(CASES, rounds=1, between=0.0, seed=1)
    found = compare(before, rows_of(CASES, rounds=1, between=0.0, latency_ms=ratio, seed=2))
    assert set(verdicts(found).values()) == {"ambiguous"}
    reason = "so few rounds say nothing about the noise between rounds"
    assert {case.reason for case in found.cases} == {reason}
    assert (found.verdict, found.exit_code) == ("undecided", 4)
    (note,) = found.notes
    assert note.startswith("6 cases measured in fewer than 3 rounds: how much rounds differ is")


@pytest.mark.parametrize(
    ("ratio", "verdict", "exit_code"), [(2.0, "slower", 3), (0.5, "faster", 4)]
)
def test_one_round_shows_what_is_beyond_any_noise(ratio, verdict, exit_code):
    before = rows_of(CASES, rounds=1, between=0.0, seed=1)
    found = compare(before, rows_of(CASES, rounds=1, between=0.0, latency_ms=ratio, seed=2))
    assert set(verdicts(found).values()) == {verdict}
    assert found.exit_code == exit_code
    assert "so that only gross differences count" in found.notes[0]


def noisy_runs(ratio, *, between=0.9, **changes):
    """Two runs whose rounds differ by more than anything a gate is about."""
    return (
        rows_of(CASES, run="main", between=between, seed=1, **changes),
        rows_of(CASES, run="change", between=between, latency_ms=ratio, seed=2, **changes),
    )


@pytest.mark.parametrize("ratio", [1.0, 2.565])
def test_noise_that_hides_every_regression_is_neither_the_same_nor_a_pass(ratio):
    found = compare(*noisy_runs(ratio))
    assert set(verdicts(found).values()) == {"ambiguous"}
    assert not any(case.is_judged for case in found.cases)
    assert all(case.detectable > 1.0 for case in found.cases)
    assert (found.verdict, found.exit_code) == ("undecided", 4)


def test_one_case_that_can_be_judged_makes_a_gate(baseline):
    noisy = CASES[1:]
    before, after = (
        pd.concat([rows_of(noisy, run=run, between=0.9, seed=s), rows_of(CASES[:1], run=run)])
        for run, s in (("main", 1), ("change", 2))
    )
    # the steady case is taken to be as noisy as the others unless few others are there
    before, after = (f[f["case_id"].isin([c.case_id for c in CASES[:3]])] for f in (before, after))
    found = compare(before, after)
    assert [case.is_judged for case in found.cases].count(True) == 1
    assert (found.verdict, found.exit_code) == ("passed", 0)


def test_a_case_that_got_faster_does_not_make_a_gate_of_blind_ones():
    before, after = (
        rows_of(CASES, run=run, between=0.3, latency_ms=only(SECOND, ratio), seed=s)
        for s, (run, ratio) in enumerate((("main", 1.0), ("change", 0.1)))
    )
    found = compare(before, after)
    assert verdicts(found)[SECOND] == "faster"
    assert not any(case.is_judged for case in found.cases)
    assert (found.verdict, found.exit_code) == ("undecided", 4)


def test_a_control_that_is_judged_does_not_make_a_gate():
    steady = [case_of(case.heads, contender="attention") for case in CASES[:2]]
    before, after = (
        pd.concat([rows_of(CASES[:2], between=0.9, seed=s), rows_of(steady, seed=s)])
        for s in (1, 2)
    )
    found = compare(before, after, Limits(control="attention"))
    assert {case.is_judged for case in found.cases if case.is_control} == {True}
    assert found.exit_code == 4


def test_a_control_that_is_too_noisy_to_be_one_is_noted():
    loud = [case_of(case.heads, contender="attention") for case in CASES[:2]]
    before, after = (
        pd.concat([rows_of(CASES[:2], seed=s), rows_of(loud, between=0.9, seed=s)]) for s in (1, 2)
    )
    found = compare(before, after, Limits(control="attention"))
    assert "the control is too noisy to tell whether the machine changed" in found.notes
    assert found.exit_code == 0


def test_what_must_be_visible_is_for_the_user_to_say():
    runs = noisy_runs(1.0, between=0.02, rounds=12, device="cuda")
    assert compare(*runs).verdict == "passed"
    assert compare(*runs, Limits(must_see=0.045)).verdict == "undecided"
    assert compare(*noisy_runs(1.0, between=0.1), Limits(must_see=0.9)).verdict == "passed"


def test_ordinary_noise_of_a_gpu_is_judged_throughout():
    for seed in range(5):
        before, after = (
            rows_of(CASES, run=run, between=0.01, device="cuda", seed=10 * seed + n)
            for n, run in enumerate(("main", "change"))
        )
        found = compare(before, after)
        assert all(case.is_judged for case in found.cases)
        assert found.exit_code == 0


def test_a_crash_of_the_candidate_is_broken(baseline):
    after = rows_of(CASES, run="change", seed=2)
    crashed = failed(after, after["case_id"] == SECOND, "crashed", "worker was killed by SIGSEGV")
    found = compare(baseline, crashed)
    case = by_id(found)[SECOND]
    assert case.verdict == "broken"
    assert case.reason == "was ok, now crashed: worker was killed by SIGSEGV"
    assert found.exit_code == 3
    assert SECOND not in [c.case_id for c in found.suspects]


@pytest.mark.parametrize("status", ["oom", "timeout", "incorrect", "fallback", "unsupported"])
def test_one_failed_round_is_broken_too(baseline, status):
    after = rows_of(CASES, run="change", seed=2)
    where = (after["case_id"] == SECOND) & (after["round"] == 2)
    found = compare(baseline, failed(after, where, status, "why\nmore"))
    assert by_id(found)[SECOND].reason == f"was ok, now {status} in 1 of 5 rounds: why"
    assert found.exit_code == 3


def test_a_missing_case_is_broken_not_removed(baseline):
    after = rows_of(CASES[2:], run="change", seed=2)
    found = compare(baseline, after)
    assert verdicts(found)[SECOND] == "broken"
    assert "missing" in by_id(found)[SECOND].reason
    assert found.exit_code == 3


def test_a_case_that_an_unfinished_run_has_not_come_to_is_not_broken(baseline):
    after = rows_of(CASES[2:], run="change", seed=2)
    found = compare(baseline, after, unmeasured={SECOND: "not measured yet"})
    assert verdicts(found)[SECOND] == "not comparable"
    assert by_id(found)[SECOND].reason == "not measured yet"
    assert verdicts(found)[CASES[0].case_id] == "broken"
    after = rows_of([CASES[0], *CASES[2:]], run="change", seed=2)
    assert compare(baseline, after, unmeasured={SECOND: "not measured yet"}).exit_code == 4


def test_an_ok_without_a_latency_is_broken(baseline):
    after = rows_of(CASES, run="change", seed=2)
    lost = replaced(after, after["case_id"] == SECOND, latency_ms=None)
    assert verdicts(compare(baseline, lost))[SECOND] == "broken"


def test_what_never_worked_is_a_note(baseline):
    broken = failed(baseline, baseline["case_id"] == SECOND, "oom", "out of memory")
    found = compare(broken, rows_of([*CASES, case_of(13)], run="change", seed=2))
    assert SECOND not in by_id(found)
    assert found.exit_code == 0
    notes = "\n".join(found.notes)
    assert "1 case had no result in the baseline (1 of them now ok)" in notes
    assert "1 case not in the baseline" in notes


def test_more_memory_fails_and_less_does_not(baseline):
    after = rows_of(CASES, run="change", seed=2)
    more = replaced(after, after["case_id"] == SECOND, peak_memory_mib=112.0)
    found = compare(baseline, more)
    case = by_id(found)[SECOND]
    assert (case.verdict, case.memory_verdict) == ("same", "more")
    assert case.memory_ratio == pytest.approx(1.12)
    assert case.is_regression
    assert found.exit_code == 3
    assert compare(baseline, more, Limits(max_memory=0.2)).exit_code == 0
    less = replaced(after, after["case_id"] == SECOND, peak_memory_mib=70.0)
    found = compare(baseline, less)
    assert by_id(found)[SECOND].memory_verdict == "less"
    assert found.exit_code == 0


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("device_name", "NVIDIA H200", "another device (NVIDIA H100 80GB HBM3, now NVIDIA H200)"),
        ("driver", "580.2", "another driver (570.1, now 580.2)"),
        ("timer", "graph", "another timer (events, now graph)"),
        ("schema_version", 3, "another schema (2, now 3)"),
    ],
)
def test_another_machine_or_clock_is_not_comparable_and_named(baseline, column, value, reason):
    after = rows_of(CASES, run="change", seed=2).assign(**{column: value})
    found = compare(baseline, after)
    assert set(verdicts(found).values()) == {"not comparable"}
    assert {case.reason for case in found.cases} == {reason}
    assert found.geomean is None
    assert found.exit_code == 4


def test_several_machines_in_one_run_are_not_comparable(baseline):
    def mixed(frame):
        return replaced(frame, frame["round"] == 1, driver="580.2")

    found = compare(mixed(baseline), mixed(rows_of(CASES, run="change", seed=2)))
    assert found.exit_code == 4
    assert found.cases[0].reason == "several drivers in one run (570.1 and 580.2)"


@pytest.mark.parametrize(
    ("device", "before", "after", "reason"),
    [
        ("cpu", 2, 8, "another number of CPU threads (2, now 8)"),
        ("cpu", 2, 2, ""),
        ("cpu", None, 8, ""),
        ("cpu", 8, None, ""),
        ("cuda", 2, 8, ""),
    ],
)
def test_a_cpu_with_other_threads_is_another_machine(device, before, after, reason):
    cases = [case_of(3, device=device)]
    old, new = (
        rows_of(cases, run=run, num_threads=threads, seed=1)
        for run, threads in (("main", before), ("change", after))
    )
    (case,) = compare(old, new).cases
    assert case.reason == reason
    assert (case.verdict == "not comparable") == bool(reason)


def test_other_kernels_are_not_comparable_unless_that_is_the_point(baseline):
    after = rows_of(CASES, run="change", latency_ms=1.5, seed=2)
    after = replaced(
        after,
        after["case_id"] == SECOND,
        kernel_fingerprint="ba4",
        kernels=["gemm_kernel", "slow_copy"],
    )
    found = compare(baseline, after)
    assert by_id(found)[SECOND].reason == "other kernels (now slow_copy)"
    assert verdicts(found)[SECOND] == "not comparable"
    allowed = compare(baseline, after, Limits(new_kernels=True))
    assert verdicts(allowed)[SECOND] == "slower"


def test_kernels_that_a_library_chooses_anew_in_each_process_are_comparable(baseline):
    def chosen(frame, rounds):
        return replaced(frame, frame["round"].isin(rounds), kernel_fingerprint="ba4")

    after = rows_of(CASES, run="change", seed=2)
    assert compare(chosen(baseline, [0]), chosen(after, [1, 2, 3])).exit_code == 0


def test_the_host_clock_does_not_depend_on_the_timer(baseline):
    after = rows_of(CASES, run="change", seed=2, timer="graph")
    limits = Limits(metric="wall_ms")
    found = compare(baseline, after, limits)
    assert found.exit_code == 0
    assert found.cases[0].baseline_ms == pytest.approx(1.3, rel=0.02)


def test_a_run_without_samples_of_the_metric_is_not_comparable(baseline):
    after = rows_of(CASES, run="change", seed=2).assign(wall_samples_ms=None)
    found = compare(baseline, after, Limits(metric="wall_ms"))
    assert found.cases[0].reason == "no samples of wall_ms"
    assert found.exit_code == 4


def test_other_versions_are_noted_and_compared(baseline):
    after = rows_of(CASES, run="change", seed=2, torch="2.12.0")
    found = compare(baseline, after)
    assert found.exit_code == 0
    assert "torch was 2.11.0 and is 2.12.0" in found.notes


ANCHORS = [case_of(case.heads, contender="attention") for case in CASES]


def with_anchor(seed, *, machine=1.0, slow=1.0, anchor=1.0, **changes):
    """A run in which everything takes `machine` times as long, and the second case `slow` times."""
    latencies = {i: machine * t for i, t in only(SECOND, slow).items()}
    latencies |= {case.case_id: machine * anchor * 2.0 for case in ANCHORS}
    return rows_of([*CASES, *ANCHORS], latency_ms=latencies, seed=seed, **changes)


def test_speed_ups_over_an_anchor_are_compared_across_machines():
    there = with_anchor(1)
    here = with_anchor(2, machine=0.6, slow=1.08, device_name="NVIDIA H200", driver="580.2")
    assert compare(there, here).exit_code == 4
    found = compare(there, here, relative_to="attention")
    assert {i for i, v in verdicts(found).items() if v == "slower"} == {SECOND}
    assert by_id(found)[SECOND].ratio == pytest.approx(1.08, abs=0.015)
    assert by_id(found)[SECOND].candidate_ms == pytest.approx(0.6 * 1.08, rel=0.02)
    assert found.exit_code == 3


def shared_anchor(seed, *, rounds, slow_round=None):
    """Seven cases of one shape, one of which the others are relative to; in one round of it the
    machine was busy."""
    others = [case_of(impl=f"way{number}") for number in range(6)]
    anchor = case_of(contender="attention")
    frame = rows_of([*others, anchor], rounds=rounds, run=f"run {seed}", between=0.03, seed=seed)
    is_slow = (frame["case_id"] == anchor.case_id) & (frame["round"] == slow_round)
    scaled = [
        [3.0 * t for t in samples] if slow else samples
        for samples, slow in zip(frame["samples_ms"], is_slow, strict=True)
    ]
    return frame.assign(samples_ms=scaled)


def test_one_slow_round_of_a_shared_anchor_does_not_move_the_mean_of_all_cases():
    for seed in range(8):
        found = compare(
            shared_anchor(2 * seed, rounds=2),
            shared_anchor(2 * seed + 1, rounds=2, slow_round=1),
            relative_to="attention",
        )
        assert set(verdicts(found).values()) == {"ambiguous", "same"}
        assert found.geomean.num_cases == 6
        assert found.geomean.ratio < 0.65
        assert found.geomean.hi > 1.0


@pytest.mark.parametrize("relative_to", [None, "attention"])
@pytest.mark.parametrize("rounds", [3, 5, 10])
def test_the_interval_of_the_mean_covers_1_where_cases_share_an_anchor(relative_to, rounds):
    num_pairs, excluded = 40, 0
    for seed in range(num_pairs):
        before, after = (shared_anchor(2 * seed + n, rounds=rounds) for n in (0, 1))
        mean = compare(before, after, Limits(num_draws=300), relative_to=relative_to).geomean
        excluded += not mean.lo <= 1.0 <= mean.hi
    assert excluded <= 5


@pytest.mark.parametrize("busy", [1.0, 1.4])
def test_the_mean_of_all_cases_knows_as_little_of_one_round_as_each_case_does(busy):
    """A machine that was busy in one of two runs is no change of the code."""
    before, after = (
        rows_of(CASES, rounds=1, between=0.0, latency_ms=ms, seed=n)
        for n, ms in enumerate((1.0, busy))
    )
    found = compare(before, after)
    assert set(verdicts(found).values()) == {"ambiguous"}
    assert found.geomean.lo < 1.0 < found.geomean.hi


def test_rounds_that_all_cases_share_are_seen_by_their_mean():
    def run(seed):
        drift = np.exp(np.random.default_rng(seed).normal(0.0, 0.05, 5))
        rounds = [
            rows_of(CASES, rounds=1, run=f"run {seed}", latency_ms=ms, seed=50 * seed + n)
            for n, ms in enumerate(drift)
        ]
        return pd.concat([frame.assign(round=n) for n, frame in enumerate(rounds)])

    found = compare(run(1), run(2))
    widths = [np.log(case.ratio_hi / case.ratio_lo) for case in found.cases]
    mean = np.log(found.geomean.hi / found.geomean.lo)
    assert mean > 0.8 * np.median(widths)


def test_a_case_without_an_anchor_of_its_shape_is_not_comparable():
    before, after = (
        run[run["case_id"] != ANCHORS[1].case_id] for run in (with_anchor(1), with_anchor(2))
    )
    found = compare(before, after, relative_to="attention/eager")
    assert verdicts(found)[SECOND] == "not comparable"
    assert "no attention/eager of its shape" in by_id(found)[SECOND].reason
    assert found.exit_code == 4
    assert compare(before, after, relative_to="attention/flash").exit_code == 4


def test_an_anchor_is_not_judged_by_itself_and_makes_no_gate():
    before, after = (with_anchor(seed, between=0.15, device="cuda") for seed in (1, 2))
    found = compare(before, after, relative_to="attention")
    anchors = [case for case in found.cases if case.is_anchor]
    assert {case.case_id for case in anchors} == {case.case_id for case in ANCHORS}
    assert {(c.ratio, c.detectable, c.is_judged) for c in anchors} == {(None, None, False)}
    assert anchors[0].baseline_ms == pytest.approx(2.0, rel=0.3)
    assert {case.case_id for case in found.gated} == {case.case_id for case in CASES}
    assert found.geomean.num_cases == len(CASES)
    assert (found.verdict, found.exit_code) == ("undecided", 4)


def test_anchors_do_not_make_a_discovery_of_other_cases_less_certain():
    found = compare(with_anchor(1), with_anchor(2, slow=1.03), relative_to="attention")
    p_values = [case.p_value for case in found.cases if not case.is_anchor]
    expected = stats.false_discovery_control(p_values)
    assert [c.q_value for c in found.cases if not c.is_anchor] == pytest.approx(list(expected))


def test_the_slower_of_two_anchors_is_relative_to_the_faster():
    math = [case_of(case.heads, contender="attention", impl="math") for case in CASES]
    before, after = (
        pd.concat([with_anchor(seed), rows_of(math, latency_ms=ms, seed=seed + 9)])
        for seed, ms in ((1, 3.0), (2, 3.6))
    )
    found = compare(before, after, relative_to="attention")
    assert {c.case_id for c in found.cases if c.is_anchor} == {case.case_id for case in ANCHORS}
    assert {c.verdict for c in found.cases if c.impl == "math"} == {"slower"}
    lost = after[after["case_id"] != math[0].case_id]
    unmeasured = {math[0].case_id: "not measured yet"}
    found = compare(before, lost, relative_to="attention", unmeasured=unmeasured)
    assert not by_id(found)[math[0].case_id].is_anchor
    assert by_id(found)[math[0].case_id] in found.gated


def test_nothing_but_anchors_is_undecided():
    runs = (rows_of(ANCHORS, seed=seed) for seed in (1, 2))
    found = compare(*runs, relative_to="attention")
    assert found.gated == ()
    assert (found.verdict, found.exit_code) == ("undecided", 4)


def test_an_anchor_that_broke_fails_the_gate():
    after = with_anchor(2)
    crashed = failed(after, after["case_id"] == ANCHORS[1].case_id, "crashed", "worker died")
    found = compare(with_anchor(1), crashed, relative_to="attention")
    assert verdicts(found)[ANCHORS[1].case_id] == "broken"
    assert found.exit_code == 3


def test_a_case_whose_anchor_is_not_measured_yet_says_so():
    after = with_anchor(2)
    after = after[after["case_id"] != ANCHORS[1].case_id]
    unmeasured = {ANCHORS[1].case_id: "not measured yet"}
    found = compare(with_anchor(1), after, relative_to="attention", unmeasured=unmeasured)
    reason = f"its anchor {ANCHORS[1].case_path} is not measured yet"
    assert by_id(found)[SECOND].reason == reason
    assert found.exit_code == 4


def test_a_control_that_is_also_the_anchor_is_noted():
    runs = with_anchor(1), with_anchor(2)
    found = compare(*runs, Limits(control="attention"), relative_to="attention")
    assert "the control is what others are relative to" in found.notes[0]
    assert found.exit_code == 0


def test_a_control_that_moved_means_that_the_machine_did():
    slow_machine = with_anchor(2, machine=1.1)
    found = compare(with_anchor(1), slow_machine, Limits(control="attention"))
    assert {c.case_id for c in found.moved_controls} == {case.case_id for case in ANCHORS}
    assert found.verdict == "not comparable"
    assert found.exit_code == 4
    assert compare(with_anchor(1), slow_machine).exit_code == 3


def test_a_control_that_got_faster_means_so_too():
    found = compare(with_anchor(1), with_anchor(2, anchor=0.9), Limits(control="attention/eager"))
    assert found.exit_code == 4


def test_a_steady_control_lets_a_regression_stand():
    found = compare(with_anchor(1), with_anchor(2, slow=1.1), Limits(control="attention"))
    assert found.moved_controls == ()
    assert found.exit_code == 3


def test_what_broke_is_a_regression_whatever_the_machine_did():
    after = with_anchor(2, machine=1.1)
    after = failed(after, after["case_id"] == SECOND, "incorrect", "output differs")
    assert compare(with_anchor(1), after, Limits(control="attention")).exit_code == 3


def test_a_control_that_is_not_there_is_noted(baseline):
    found = compare(baseline, baseline, Limits(control="attention"))
    assert "no case of the baseline is of the control attention" in found.notes


def test_false_discoveries_are_controlled_over_the_grid(baseline):
    found = compare(baseline, rows_of(CASES, run="change", latency_ms=1.03, seed=2))
    expected = stats.false_discovery_control([case.p_value for case in found.cases])
    assert [case.q_value for case in found.cases] == pytest.approx(list(expected))


def test_the_order_of_rows_and_cases_changes_nothing(baseline):
    after = rows_of(CASES, run="change", latency_ms=1.03, seed=2)
    there = by_id(compare(baseline, after))
    back = by_id(
        compare(
            baseline.sort_values("case_id", ascending=False, kind="stable"),
            after.sort_values("case_id", kind="stable"),
        )
    )
    assert there == back


def test_a_few_rounds_that_happen_to_agree_prove_nothing():
    """One case of six seems steadier than the machine is, and a little slower."""
    steady, others = CASES[:1], CASES[1:]

    def run(seed, latency_ms):
        return pd.concat(
            [
                rows_of(steady, between=0.0, within=1e-4, latency_ms=latency_ms, seed=seed),
                rows_of(others, between=0.04, seed=seed + 1),
            ]
        )

    before, after = run(1, 1.0), run(7, 1.04)
    alone = compare(*(frame[frame["case_id"] == steady[0].case_id] for frame in (before, after)))
    assert alone.exit_code == 3
    assert verdicts(compare(before, after))[steady[0].case_id] == "ambiguous"


def test_rounds_of_several_runs_are_pooled(baseline):
    second = rows_of(CASES, run="main again", seed=5)
    found = compare(pd.concat([baseline, second]), rows_of(CASES, seed=2))
    assert found.cases[0].num_rounds == (10, 5)


def test_nothing_to_compare_is_not_a_pass(baseline):
    assert compare(baseline.head(0), baseline).exit_code == 4


def test_samples_alone_can_be_compared():
    before = [np.array(samples) for samples in rows_of(CASES[:1], seed=1)["samples_ms"]]
    after = [1.1 * samples for samples in before]
    ratio, lo, hi, p_value = compare_samples(before, after, Limits(), 0)
    assert ratio == pytest.approx(1.1)
    assert 1.08 < lo < ratio < hi < 1.12
    assert p_value < 1e-3
