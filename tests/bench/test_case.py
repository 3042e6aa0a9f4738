"""A case is checked when it is made, and keeps its name on every machine."""

import subprocess
import sys

import pytest

from bench.case import Case, parse_shape
from bench.errors import UsageError

SPARSE = {"contender": "sliding_tile", "impl": "eager", "level": "op", "mode": "fwd"}


def test_window_is_chosen_for_the_sparsity_that_was_asked_for():
    case = Case(**SPARSE, canvas=(16, 32, 32), tile=(4, 4, 8), sparsity_target=0.7)
    assert case.window == (8, 20, 32)
    assert case.sparsity == pytest.approx(0.6875)
    assert case.tiles_attended == 128 * 40
    assert case.sparsity_target == 0.7


def test_a_changed_canvas_chooses_its_window_anew():
    case = Case(**SPARSE, canvas=(64, 128), tile=(8, 16), sparsity_target=0.5)
    smaller = case.with_(canvas=(16, 96))
    assert smaller.sparsity == pytest.approx(0.5)
    assert smaller.window != case.window


def test_named_window_wins_over_any_sparsity():
    case = Case(**SPARSE, canvas=(24, 64), tile=(8, 16), window=(8, 32))
    assert case.sparsity == pytest.approx(1 - 1 / 6)


def test_nothing_tiled_has_no_sparsity_unless_full_attention_was_asked_for():
    plain = Case(level="op", contender="attention", impl="eager", mode="fwd", canvas=(48,))
    assert plain.sparsity is None
    assert plain.with_(sparsity_target=0.0).sparsity == 0.0


def test_path_names_what_a_reader_needs():
    case = Case(
        level="layer",
        contender="ena",
        impl="flex+fla",
        mode="fwdbwd",
        canvas=(64, 128),
        batch=2,
        heads=12,
        head_dim=64,
        depth=2,
        tile=(8, 16),
        sparsity_target=0.7,
        scan="cross",
        scan_variant="official",
        interleave="stacked",
        permute="qkvo",
        dtype="bfloat16",
        device="cuda",
    )
    assert case.case_path == (
        "layer/ena/flex+fla/fwdbwd/"
        "B2-H12-64x128-D64-N2-t8x16-s0.70-cross-official-stacked-qkvo-bfloat16-cuda"
    )


def test_id_is_the_same_in_another_process_and_differs_with_any_field():
    case = Case(**SPARSE, canvas=(24, 64), tile=(8, 16), sparsity_target=0.7)
    code = (
        "from bench.case import Case; print(Case(level='op', contender='sliding_tile', "
        "impl='eager', mode='fwd', canvas=(24, 64), tile=(8, 16), sparsity_target=0.7).case_id)"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == case.case_id
    changed = [case.with_(mode="bwd"), case.with_(batch=3), case.with_(canvas=(64, 32))]
    assert len({case.case_id, *(c.case_id for c in changed)}) == 4


def test_a_case_survives_its_dictionary():
    case = Case(**SPARSE, canvas=(24, 64), tile=(8, 16), sparsity_target=0.7)
    assert Case.from_dict(case.to_dict()) == case


def test_case_imports_no_torch():
    code = "import sys, bench.case, bench.grid; print('torch' in sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "False"


@pytest.mark.parametrize("text", ["", "64x", "x64", "64*64", "-4x8", "0x8", "4.5", "64 x y"])
def test_malformed_canvas_is_refused_with_examples(text):
    with pytest.raises(UsageError, match="is not a grid of tokens") as caught:
        parse_shape(text)
    assert "16x32x32" in caught.value.try_


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("level", "block", "level 'block' is unknown"),
        ("mode", "train", "mode 'train' is unknown"),
        ("dtype", "int8", "dtype 'int8' is unknown"),
        ("scan", "zigzag", "scan 'zigzag' is unknown"),
        ("batch", 0, "batch 0 is not a positive whole number"),
        ("heads", True, "heads True is not a positive whole number"),
        ("sparsity_target", 1.0, "sparsity 1 is outside"),
        ("sparsity_target", -0.1, "sparsity -0.1 is outside"),
        ("sparsity_target", float("nan"), "sparsity nan is outside"),
        ("canvas", (), "is not a grid of tokens"),
        ("tile", (8, 24), "is not divisible"),
        ("window", (8, 17), "window"),
    ],
)
def test_a_bad_field_is_refused_by_name(field, value, complaint):
    values = {**SPARSE, "canvas": (24, 64), "tile": (8, 16), "sparsity_target": 0.7}
    with pytest.raises(UsageError, match=complaint) as caught:
        Case(**(values | {field: value}))
    assert caught.value.expected
    assert caught.value.try_
    assert caught.value.exit_code == 2
