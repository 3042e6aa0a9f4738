"""The sweep and the map, read back from their artists."""

import pandas as pd
import pytest

from reports import frames, sparsity_plots

ENA = {"contender": "ena", "tile": "8x16"}


@pytest.fixture
def tidy(row):
    """64x64 and 64x128: half and a quarter of the FLOPs left take 0.8 and 0.5 of the time."""
    rows = []
    for canvas, factor in (("64x64", 1.0), ("64x128", 2.0)):
        rows.append(row(canvas=canvas, latency_ms=8.0 * factor**2))
        for target, share, flops in ((0.0, 1.0, 8e12), (0.5, 0.8, 4e12), (0.7, 0.5, 2e12)):
            rows.append(
                row(
                    **ENA,
                    canvas=canvas,
                    impl="triton+fla" if target else "sdpa_cudnn+fla",
                    sparsity_target=target,
                    sparsity=target,
                    latency_ms=10.0 * share * factor,
                    flops=flops * factor,
                )
            )
    return frames.tidy(pd.DataFrame(rows))


def lines(panel, kind):
    found = [a for a in panel.lines if (a.get_gid() or "").startswith(kind)]
    return {a.get_gid().rpartition(":")[2]: a for a in found}


def test_the_sweep_starts_at_full_attention_and_holds_measured_and_ideal(tidy):
    (panel,) = sparsity_plots.sweep(tidy).axes
    measured, ideal = lines(panel, "sweep:"), lines(panel, "ideal:")
    assert list(measured) == list(ideal) == ["4096", "8192"]
    for length in measured:
        assert list(measured[length].get_xdata()) == [0.0, 0.5, 0.7]
        assert list(measured[length].get_ydata()) == pytest.approx([1.0, 1.25, 2.0])
        assert list(ideal[length].get_ydata()) == pytest.approx([1.0, 2.0, 4.0])
    assert measured["4096"].get_color() != measured["8192"].get_color()


def test_the_sweep_writes_the_efficiency_at_the_largest_length(tidy):
    (panel,) = sparsity_plots.sweep(tidy).axes
    texts = [t.get_text() for t in panel.texts]
    assert texts == ["efficiency at 8k:", "50%: 62%", "70%: 50%"]


def test_a_single_sparsity_is_no_sweep(tidy):
    assert sparsity_plots.swept(frames.records(tidy[tidy["sparsity_target"] != 0.5])) == []


def cells(panel):
    texts = [t.get_text() for t in panel.texts]
    keys = [p.get_gid() for p in panel.patches if (p.get_gid() or "").startswith("cell:")]
    return dict(zip(keys, texts, strict=True))


def test_the_map_holds_the_speedup_of_each_length_and_sparsity(tidy):
    (panel,) = sparsity_plots.heat_map(tidy).axes
    assert cells(panel) == {
        "cell:4096:0.0": "0.80",
        "cell:4096:0.5": "1.0",
        "cell:4096:0.7": "1.6",
        "cell:8192:0.0": "1.6",
        "cell:8192:0.5": "2.0",
        "cell:8192:0.7": "3.2",
    }
    colours = {p.get_gid(): p.get_facecolor() for p in panel.patches}
    red, _, blue, _ = colours["cell:4096:0.0"]
    assert red > blue
    red, _, blue, _ = colours["cell:8192:0.7"]
    assert blue > red


def test_a_cell_shows_the_fastest_implementation_and_failures_by_name(row, tidy):
    rows = [
        row(latency_ms=8.0),
        row(**ENA, impl="flex+fla", sparsity_target=0.7, latency_ms=4.0),
        row(**ENA, impl="triton+fla", sparsity_target=0.7, latency_ms=2.0),
        row(**ENA, impl="flex+fla", sparsity_target=0.9, status="oom"),
        row(**ENA, impl="natten+fla", sparsity_target=0.5, status="unsupported"),
    ]
    (panel,) = sparsity_plots.heat_map(frames.tidy(pd.DataFrame(rows))).axes
    assert cells(panel) == {
        "cell:4096:0.5": "n/a",
        "cell:4096:0.7": "4.0",
        "cell:4096:0.9": "OOM",
    }


def test_a_failure_beside_a_success_hides_nothing(row):
    rows = [
        row(latency_ms=8.0),
        row(**ENA, impl="natten+fla", sparsity_target=0.7, status="unsupported"),
        row(**ENA, impl="flex+fla", sparsity_target=0.7, status="oom"),
        row(**ENA, impl="triton+fla", sparsity_target=0.7, latency_ms=2.0),
    ]
    for order in (rows, rows[::-1]):
        (case,) = sparsity_plots.mapped(frames.records(frames.tidy(pd.DataFrame(order))))
        assert case["impl"] == "triton+fla"


def test_one_length_or_one_sparsity_is_no_map(tidy):
    cases = frames.records(tidy)
    assert sparsity_plots.is_map_worth(cases)
    assert not sparsity_plots.is_map_worth([c for c in cases if c["seq_len"] == 4096])
    assert not sparsity_plots.is_map_worth([c for c in cases if c["sparsity_target"] in (None, 0)])


def test_of_several_runs_map_and_words_show_the_latest(row):
    made = []
    for run, begun, factor in (("old", "2026-01-01", 0.1), ("new", "2026-02-01", 1.0)):
        known = {"run_id": run, "started_at": begun, "device_name": f"NVIDIA {run}"}
        for canvas in ("64x64", "64x128"):
            made.append(row(canvas=canvas, latency_ms=8.0 * factor, **known))
            for target, latency_ms in ((0.5, 4.0), (0.7, 2.0)):
                sparse = ENA | {"sparsity_target": target, "sparsity": target}
                made.append(row(**sparse, canvas=canvas, latency_ms=latency_ms * factor, **known))
    cases = frames.records(frames.tidy(pd.DataFrame(made)))
    assert {c["run_id"] for c in sparsity_plots.mapped(cases)} == {"new"}
    assert sparsity_plots.heat_map_alt(cases).startswith("Speed-up over the FlashAttention")
    assert "4 of 4 cells" in sparsity_plots.heat_map_alt(cases)
