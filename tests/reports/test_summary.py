"""What the numbers say in words."""

import pandas as pd
import pytest

from reports import frames, scaling, summary


def _sentences(rows):
    tidy = frames.tidy(pd.DataFrame(rows))
    return summary.sentences(tidy, scaling.scaling_table(tidy))


def test_the_study_in_one_sentence(study):
    (sentence,) = _sentences(study())
    assert sentence == (
        "Layer, forward, 2-D: ENA 70% (flex+fla) overtakes Transformer (sdpa_cudnn) at about 4k "
        "tokens (between 3.9k and 4.1k); at 16k its speed-up is 4.00x (3.92x to 4.08x), using "
        "0.500x as much memory."
    )


def test_the_fastest_linear_model_is_named(study):
    rows = study()
    (sentence,) = _sentences(rows[rows["seq_len"] <= 8192])
    assert "at 8k Linear cross (fla) takes 1.50x its time" in sentence


@pytest.mark.parametrize(
    ("ena_ms", "words"),
    [
        ((1.0, 2.0), "is faster than Transformer (sdpa_cudnn) wherever both were measured"),
        ((3.0, 9.0), "is nowhere faster than Transformer (sdpa_cudnn)"),
        ((1.0, 9.0), "is faster than Transformer (sdpa_cudnn) only up to about 5"),
    ],
)
def test_verdicts_in_words(row, ena_ms, words):
    ena = {"contender": "ena", "impl": "flex+fla", "sparsity_target": 0.7}
    rows = []
    for canvas, transformer_ms, latency_ms in zip(
        ("64x64", "64x128"), (2.0, 4.0), ena_ms, strict=True
    ):
        rows += [
            row(canvas=canvas, latency_ms=transformer_ms),
            row(canvas=canvas, latency_ms=latency_ms, **ena),
        ]
    (sentence,) = _sentences(rows)
    assert words in sentence


def test_a_ratio_whose_interval_holds_one_is_no_clear_difference(row):
    ena = {"contender": "ena", "impl": "flex+fla", "sparsity_target": 0.7}
    (sentence,) = _sentences([row(), row(**ena, latency_ms=1.99)])
    assert "no clear difference" in sentence
    assert "wherever both were measured, if not clearly so at 4k;" in sentence


def test_a_transformer_that_ran_out_of_memory_is_said_so(study):
    rows = study()
    failing = (rows["contender"] == "transformer") & (rows["seq_len"] == 16384)
    rows.loc[failing, ["status", "reason"]] = ["oom", "CUDA out of memory"]
    (sentence,) = _sentences(rows)
    assert "at 8k its speed-up is 2.00x" in sentence
    assert "Transformer gave no result at 16k (out of memory)" in sentence


def test_without_a_transformer_there_is_no_comparison(study):
    rows = study()
    (sentence,) = _sentences(rows[rows["contender"] == "ena"])
    assert "has no Transformer to be compared with" in sentence


def test_several_settings_are_named(study):
    rows = pd.concat([study(), study(heads=3)])
    assert [s.count("heads of 64") for s in _sentences(rows)] == [1, 1]


def test_of_setting_and_device_only_what_differs_within_a_level_is_named(study):
    levels = _sentences(pd.concat([study(), study(level="model", depth=12)]))
    assert [s.partition(":")[0] for s in levels] == ["Model, forward, 2-D", "Layer, forward, 2-D"]
    devices = _sentences(pd.concat([study(), study(device_name="NVIDIA H200", device_id="ef34")]))
    places = [s.partition(":")[0] for s in devices]
    assert places[1] == "Layer, forward, 2-D (NVIDIA H200)"
    assert not any("heads of 64" in place for place in places)


def test_operators_speak_of_sliding_tile_attention(row):
    op = {"level": "op", "depth": 1}
    rows = [
        row(**op, contender="attention"),
        row(**op, contender="sliding_tile", impl="flex", sparsity_target=0.7, latency_ms=1.0),
    ]
    (sentence,) = _sentences(rows)
    assert sentence.startswith("Operator, forward, 2-D: Sliding tile 70% (flex) is faster than")


def test_each_of_several_runs_has_its_own_sentence(row):
    op = {"level": "op", "depth": 1}
    sparse = {"contender": "sliding_tile", "impl": "flex", "sparsity_target": 0.7}
    rows = [
        row(**op, run_id=run, torch=torch, **kind, latency_ms=ms)
        for run, torch, ms_of_sparse in (("a", "2.11.0", 1.0), ("b", "2.12.0", 8.0))
        for kind, ms in (({"contender": "attention"}, 4.0), (sparse, ms_of_sparse))
    ]
    first, second = _sentences(rows)
    assert "torch 2.11.0" in first
    assert "its speed-up is 4.00x" in first
    assert "torch 2.12.0" in second
    assert "is nowhere faster than" in second
    assert "its speed-up is 0.500x" in second


def test_the_machine_line_skips_what_is_unknown(row):
    assert summary.machine_line(row(git_dirty=True)) == (
        "NVIDIA H100 80GB HBM3 | driver 570.1 | cuda 13.0 | torch 2.11.0 | triton 3.6.0 | "
        "commit a1b2c3d + changes"
    )
    bare = row(driver=None, cuda=None, triton=None, git_commit=None, device_name=None)
    assert summary.machine_line(bare) == "unknown device | torch 2.11.0"


def test_correctness_counts_what_was_compared(row):
    cases = [
        row(error_budget_used=0.41),
        row(),
        row(status="oom"),
        row(status="incorrect", reason="off by 0.3"),
    ]
    assert summary.correctness_line(cases) == (
        "2 of 3 cases agree with float64 (worst uses 0.41 of its error budget)"
    )
    assert summary.correctness_line([row(verified=None)]) == "no case was compared with float64"


def test_warnings_that_differ_in_numbers_are_one(row):
    cases = [row(warnings=[f"noisy: span {n}.5% of the median"], heads=n) for n in range(1, 301)]
    cases.append(row(warnings=["throttled: power cap"]))
    noisy, throttled = summary.warning_groups(cases)
    assert (noisy.num_cases, throttled.num_cases) == (300, 1)
    assert noisy.sentence.startswith("noisy: span 300.5% of the median (300 cases, worst in ")
    assert "-300-" in noisy.example


def test_warnings_that_differ_in_units_are_one(row):
    texts = ("16.5 ms for 1.13 ms", "4.46 ms for 191 us", "692 us for 55.1 us")
    cases = [row(warnings=[f"launch-bound: ({text})"], heads=n) for n, text in enumerate(texts)]
    assert [g.num_cases for g in summary.warning_groups(cases)] == [3]


def test_of_warnings_about_too_few_samples_the_fewest_are_worst(row):
    cases = [row(warnings=[f"too few samples: {n} samples"], heads=n) for n in (4, 2, 3)]
    (group,) = summary.warning_groups(cases)
    assert group.text == "too few samples: 2 samples"


@pytest.mark.parametrize(
    ("text", "numbers", "worst"),
    [
        ("noisy: samples from 5% to 95% span {}% of the median; add --rounds 5", (19, 57, 48), 57),
        ("too few samples: {} samples fitted, and their range is no 95% interval", (4, 2, 3), 2),
        ("throttled: the driver held the clock down; lock-gpu-clocks={}", (1980, 1635, 1800), 1635),
    ],
)
def test_the_worst_of_warnings_goes_by_what_was_measured(row, text, numbers, worst):
    cases = [row(warnings=[text.format(n)], heads=n) for n in numbers]
    (group,) = summary.warning_groups(cases)
    assert group.text == text.format(worst)


def test_a_number_with_text_around_it_does_not_upset_the_order(row):
    cases = [row(warnings=["libcudart.so.13.0.1: 1,2."]), row(warnings=["version 2.11.0 is old"])]
    assert len(summary.warning_groups(cases)) == 2


@pytest.mark.parametrize("warning", ["noisy: 30%", "not converged: 5%", "too few samples: 2"])
def test_a_sentence_says_when_what_it_rests_on_is_doubtful(study, warning):
    rows = study()
    for index in rows.index[(rows["contender"] == "ena") & (rows["status"] == "ok")][:2]:
        rows.at[index, "warnings"] = [warning]
    (sentence,) = _sentences(rows)
    assert sentence.endswith("; 2 of the 10 cases behind this are noisy or not converged.")


def test_doubts_about_another_series_are_not_held_against_a_sentence(study):
    rows = study()
    rows.at[rows.index[rows["contender"] == "linear"][0], "warnings"] = ["noisy: 30%"]
    (sentence,) = _sentences(rows)
    assert "behind this" not in sentence


def test_failures_and_unsupported_cases_are_grouped_by_reason(row):
    cases = [
        row(status="oom", reason="needs 12 GiB"),
        row(status="oom", reason="needs 24 GiB"),
        row(status="crashed", reason=None),
        row(status="unsupported", reason="natten is not installed"),
        row(),
    ]
    assert [(g.text, g.num_cases) for g in summary.failure_groups(cases)] == [
        ("out of memory: needs 12 GiB", 2),
        ("crashed: no reason given", 1),
    ]
    assert [g.text for g in summary.unsupported_groups(cases)] == ["natten is not installed"]


def test_outcomes_are_counted(row):
    cases = [row(), row(), row(status="oom"), row(status="unsupported")]
    assert summary.outcome_line(cases) == "4 cases: 2 ok, 1 out of memory, 1 unsupported"
    assert summary.outcome_line([]) == "0 cases: none"
