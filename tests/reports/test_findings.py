"""Sentences about cases whose numbers are known."""

import json

import pandas as pd

from reports import findings, frames

PEAKS = {"peak_tflops_per_s": 500.0, "peak_bandwidth_gb_per_s": 2000.0}


def told(*rows):
    return findings.sentences(frames.tidy(pd.DataFrame(list(rows))))


def test_everything_that_was_measured_is_told_of_the_longest_sequences(row):
    ena = {"contender": "ena", "interleave": "linear-first"}
    full = {"impl": "sdpa_cudnn+fla", "sparsity_target": 0.0, "sparsity": 0.0, "flops": 8e11}
    sparse = {"impl": "triton+fla", "sparsity_target": 0.7, "sparsity": 0.6875, "flops": 2e11}
    linear = {"contender": "linear", "impl": "fla"}
    component_ms = json.dumps({"attention": 6.0, "mlp": 3.5, "norm": 0.4, "other": 0.1})
    (text,) = told(
        row(canvas="32x64", latency_ms=0.5, power_w=400.0),
        row(canvas="4096", latency_ms=2.0, power_w=400.0),
        row(**PEAKS, flops=5e11, bytes=1e9, latency_ms=2.0, power_w=400.0),
        row(**ena, **full, latency_ms=4.0),
        row(**ena, **sparse, latency_ms=2.0, component_ms=component_ms),
        row(**linear, latency_ms=2.0),
        row(**linear, latency_ms=3.0, scan="cross"),
        row(canvas="64x128", status="oom"),
    )
    assert text == (
        "Layer, forward, 2-D at 4k tokens: sparsity gains 2.00x at 70% (50% of the ideal) over ENA "
        "full attention (sdpa_cudnn+fla); beside Linear uni (fla), Linear cross (fla) 1.50x of its "
        "time; the time of ENA 70% (triton+fla) is 60% attention and 35% mlp; of the measured "
        "roofline 50.0% with Transformer (sdpa_cudnn); a token takes 195 uJ with Transformer "
        "(sdpa_cudnn)."
    )


def test_without_anything_to_tell_there_is_no_sentence(row):
    assert told(row(), row(contender="ena", impl="triton", sparsity_target=0.7)) == []
    assert told(row(status="oom")) == []
    assert findings.sentences(frames.tidy(pd.DataFrame())) == []


def test_each_mode_and_each_run_has_its_sentence(row):
    rows = [
        row(power_w=100.0 + 400.0 * i, mode=mode, run_id=f"r{i}", git_commit=f"{i}aaaaaaaaa")
        for mode in ("fwd", "bwd")
        for i in range(2)
    ]
    assert ["48.8 uJ" in text for text in told(*rows)] == [True, False] * 2
    assert [text.partition(": ")[0] for text in told(*rows)] == [
        "Layer, forward, 2-D at 4k tokens, 0aaaaaa",
        "Layer, forward, 2-D at 4k tokens, 1aaaaaa",
        "Layer, backward, 2-D at 4k tokens, 0aaaaaa",
        "Layer, backward, 2-D at 4k tokens, 1aaaaaa",
    ]


def test_of_several_shapes_each_sentence_says_which(row):
    one, two = told(row(power_w=400.0), row(power_w=400.0, heads=3))
    assert "3 heads of 64" in one
    assert "12 heads of 64" in two


def test_the_recommended_sparsity_stands_for_ena(row):
    ena = {"contender": "ena", "impl": "triton", "power_w": 400.0}
    (text,) = told(*(row(**ena, sparsity_target=s) for s in (0.5, 0.7, 0.9)))
    assert "ENA 70% (triton)" in text
    assert "ENA 90%" not in text
