"""A grid becomes the cases its author meant, and says no before anything is measured."""

import pytest

from bench import contenders
from bench.errors import UsageError
from bench.grid import expand, load_file, load_preset, override, parse_grid, preset_names


@pytest.fixture
def nothing_installed(monkeypatch):
    """As on a machine without the optional libraries."""
    monkeypatch.setattr(contenders, "is_installed", lambda library: False)


@pytest.fixture
def everything_installed(monkeypatch):
    monkeypatch.setattr(contenders, "is_installed", lambda library: True)


def plan(text, device="cpu", **axes):
    return expand(override(parse_grid(text, name="test"), axes), device=device)


def paths(planned):
    return [p.case.case_path for p in planned]


def test_blocks_are_products_and_equal_cases_are_planned_once():
    planned = plan(
        """
        [[cases]]
        level = "op"
        contender = "attention"
        impl = "eager"
        mode = ["fwd", "bwd"]
        seq_len = [256, 512]
        [[cases]]
        level = "op"
        contender = "attention"
        impl = "eager"
        mode = "fwd"
        seq_len = 512
        """
    )
    assert [(p.case.mode, p.case.canvas) for p in planned] == [
        ("fwd", (256,)),
        ("bwd", (256,)),
        ("fwd", (512,)),
        ("bwd", (512,)),
    ]


def test_axes_that_mean_nothing_to_a_contender_do_not_multiply_it():
    planned = plan(
        """
        [[cases]]
        contender = ["transformer", "linear", "ena"]
        impl = "eager"
        seq_len = 1024
        ndim = 2
        sparsity = [0.5, 0.7]
        scan = ["uni", "cross"]
        """
    )
    by_name = {}
    for p in planned:
        by_name.setdefault(p.case.contender, []).append((p.case.sparsity_target, p.case.scan))
    assert by_name["transformer"] == [(None, None)]
    assert by_name["linear"] == [(None, "uni"), (None, "cross")]
    assert sorted(by_name["ena"]) == [(0.5, "cross"), (0.5, "uni"), (0.7, "cross"), (0.7, "uni")]


def test_length_and_number_of_axes_pick_the_most_square_canvas_that_tiles_divide():
    planned = plan(
        """
        [[cases]]
        impl = "eager"
        seq_len = 2048
        ndim = [1, 2, 3]
        """
    )
    assert [(p.case.canvas, p.case.tile) for p in planned] == [
        ((2048,), (128,)),
        ((32, 64), (8, 16)),
        ((8, 16, 16), (4, 4, 8)),
    ]


def test_a_tile_is_used_for_canvases_of_its_own_rank():
    planned = plan(
        """
        [[cases]]
        impl = "eager"
        canvas = ["96", "24x40"]
        tile = ["32", "4x8"]
        """
    )
    assert [(p.case.canvas, p.case.tile) for p in planned] == [((96,), (32,)), ((24, 40), (4, 8))]


def test_best_takes_the_preferred_installed_impl_and_the_case_names_it(everything_installed):
    grid = '[[cases]]\nseq_len = 4096\nsparsity = [0.0, 0.7]\ncontender = ["ena", "transformer"]'
    impls = {p.case.case_path.rsplit("-s")[-1][:4]: p.case.impl for p in plan(grid, "cuda")}
    assert impls["0.00"] == "flash_attn_4+triton"
    assert impls["0.70"] == "triton"


def test_best_without_libraries_is_what_torch_brings(nothing_installed):
    grid = '[[cases]]\nseq_len = 4096\nsparsity = [0.0, 0.7]\ncontender = ["ena", "transformer"]'
    assert [p.case.impl for p in plan(grid, "cuda")] == [
        "sdpa_cudnn+eager",
        "flex+eager",
        "sdpa_cudnn",
    ]
    assert [p.case.impl for p in plan(grid, "cpu")] == ["sdpa_flash+eager", "eager", "sdpa_flash"]


def test_available_takes_every_impl_that_can_run_the_case(nothing_installed):
    grid = '[[cases]]\nlevel = "op"\ncontender = "attention"\nimpl = "available"\nseq_len = 512'
    assert [p.case.impl for p in plan(grid, "cpu")] == ["sdpa_flash", "eager"]
    assert [p.case.impl for p in plan(grid, "cuda")] == [
        "sdpa_cudnn",
        "sdpa_flash",
        "flex",
        "eager",
    ]


def test_an_unsupported_case_stays_in_the_plan_with_its_reason():
    planned = plan("[[cases]]\ncontender = 'linear'\nimpl = 'eager'\nseq_len = 512\nscan = 'cross'")
    assert len(planned) == 1
    assert "cross" in planned[0].reason
    assert "\n" not in planned[0].reason


def test_training_steps_are_for_models():
    planned = plan(
        "[[cases]]\ncontender = 'transformer'\nimpl = 'eager'\nseq_len = 512\nmode = 'step'"
    )
    assert planned[0].reason == "eager at level layer runs mode fwd, bwd, fwdbwd only"


def test_a_canvas_that_the_default_tile_does_not_divide_is_unsupported_where_tiles_are_needed():
    planned = plan(
        "[[cases]]\ncontender = ['ena', 'transformer']\nimpl = 'eager'\ncanvas = '15x20'"
    )
    assert {p.case.contender: p.reason for p in planned} == {
        "ena": "canvas 15x20 has no tile that divides it",
        "transformer": None,
    }


def test_command_line_selects_contenders_and_replaces_other_axes():
    text = """
        [[cases]]
        contender = ["ena", "transformer"]
        impl = "eager"
        seq_len = [1024, 2048]
        ndim = 2
        [[cases]]
        contender = "linear"
        seq_len = 512
        """
    planned = plan(text, contender=["transformer"], seq_len=["256"], mode=["bwd"])
    assert [(p.case.contender, p.case.canvas, p.case.mode) for p in planned] == [
        ("transformer", (16, 16), "bwd")
    ]
    assert [p.case.canvas for p in plan(text, contender=["linear"], canvas=["3x5x7"])] == [
        (3, 5, 7)
    ]


def test_a_contender_that_the_grid_lacks_gets_its_own_block():
    planned = plan("[[cases]]\ncontender = 'ena'", contender=["delta_rule"], seq_len=["77"])
    assert [(p.case.level, p.case.contender, p.case.seq_len) for p in planned] == [
        ("op", "delta_rule", 77)
    ]


def test_a_contender_that_the_grid_lacks_at_its_level_borrows_the_grids_axes():
    text = "[[cases]]\ncontender = 'ena'\nimpl = 'eager'\nseq_len = [256, 512]\nmode = 'fwdbwd'"
    planned = plan(text, contender=["ena", "transformer"])
    assert [(p.case.contender, p.case.seq_len, p.case.mode) for p in planned] == [
        ("ena", 256, "fwdbwd"),
        ("ena", 512, "fwdbwd"),
        ("transformer", 256, "fwdbwd"),
        ("transformer", 512, "fwdbwd"),
    ]


def test_what_the_command_line_names_is_never_dropped(nothing_installed):
    text = "[[cases]]\ncanvas = '64x64'"
    (windowed,) = plan(text, window=["24x48"], sparsity=["0.9"])
    assert windowed.case.window == (24, 48)
    assert windowed.case.sparsity_target is None
    (sized,) = plan(text, heads=["5"], size=["small"], depth=["4"])
    assert (sized.case.heads, sized.case.head_dim, sized.case.depth) == (5, 64, 4)


def test_ena_without_a_layer_of_each_kind_is_unsupported(nothing_installed):
    for interleave, absent in (
        ("linear-first", "attention"),
        ("attention-first", "recurrence"),
        ("stacked", "attention"),
    ):
        (planned,) = plan("[[cases]]", depth=["1"], interleave=[interleave])
        assert f"no layer of {absent}" in planned.reason
    (planned,) = plan("[[cases]]", depth=["2"])
    assert planned.reason is None


def test_a_length_replaces_named_canvases_and_keeps_their_rank():
    planned = plan("[[cases]]\nimpl = 'eager'\ncanvas = ['32x64', '8x16x16']", seq_len=["4096"])
    assert [p.case.canvas for p in planned] == [(64, 64), (16, 16, 16)]


@pytest.mark.parametrize("name", preset_names())
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_preset_plans_runnable_cases_on_both_devices(name, device, everything_installed):
    planned = expand(load_preset(name), device=device)
    runnable = [p for p in planned if p.reason is None]
    assert len(runnable) >= 0.8 * len(planned)


def test_paper_covers_what_it_promises(everything_installed):
    planned = [p.case for p in expand(load_preset("paper"), device="cuda") if p.reason is None]
    assert {c.seq_len for c in planned} == {1024 * 2**i for i in range(7)}
    assert {c.ndim for c in planned} == {1, 2, 3}
    assert {c.sparsity_target for c in planned if c.contender == "ena"} == {0.0, 0.5, 0.7, 0.9}
    assert {c.scan for c in planned if c.contender == "linear"} == {"uni", "bi", "cross"}
    assert {c.mode for c in planned} == {"fwd", "fwdbwd"}
    assert len({c.case_id for c in planned}) == len(planned)


@pytest.mark.parametrize(
    ("text", "axes", "complaint"),
    [
        ("[[cases]\n", {}, "is not TOML"),
        ("", {}, "has no cases"),
        ("cases = 3", {}, "has no cases"),
        ("[grid]\n[[cases]]", {}, "table 'grid' is unknown"),
        ("[[cases]]\ncolour = 'red'", {}, "axis 'colour' is unknown"),
        ("[[cases]]\nmode = []", {}, "axis mode is empty"),
        ("[[cases]]\nmode = 'train'", {}, "mode 'train' is unknown"),
        ("[[cases]]\ncontender = 7", {}, "contender 7 is not a name"),
        ("[[cases]]\ncontender = 'enna'", {}, "'enna' is unknown"),
        ("[[cases]]\nimpl = 'fast'", {}, "'fast' is unknown"),
        ("[[cases]]\nscan = 'zigzag'", {}, "scan 'zigzag' is unknown"),
        ("[[cases]]", {"level": ["op"]}, "has nothing at level op"),
        ("[[cases]]", {"contender": ["enna"]}, "'enna' is unknown"),
        ("[[cases]]", {"dtype": ["int4"]}, "dtype 'int4' is unknown"),
        ("[[cases]]", {"canvas": ["64x"]}, "'64x' is not a grid of tokens"),
        ("[[cases]]", {"sparsity": ["1.5"]}, "sparsity 1.5 is outside"),
        ("[[cases]]", {"sparsity": ["lots"]}, "sparsity 'lots' is not a number"),
        ("[[cases]]", {"batch": ["none"]}, "batch 'none' is not a positive whole number"),
        ("[[cases]]", {"batch": ["0"]}, "batch '0' is not a positive whole number"),
        ("[[cases]]", {"canvas": ["64x60"], "tile": ["8x16"]}, "tile 8x16 does not divide"),
        ("[[cases]]", {"seq_len": ["1000"], "ndim": ["2"]}, "1000"),
        ("[[cases]]", {"canvas": ["64x64"], "seq_len": ["1024"]}, "canvas and seq_len are both"),
        ("[[cases]]\ncanvas = '64x64'\nseq_len = 1024", {}, "canvas and seq_len are both"),
        ("[[cases]]", {"canvas": ["4096"], "window": ["24x48"]}, "window 24x48 has 2 axes"),
    ],
)
def test_a_bad_grid_is_a_usage_error_with_a_way_out(text, axes, complaint):
    with pytest.raises(UsageError, match=complaint) as caught:
        plan(text, **axes)
    assert caught.value.exit_code == 2
    assert caught.value.try_


def test_a_close_name_is_suggested():
    with pytest.raises(UsageError) as caught:
        load_preset("papper")
    assert caught.value.try_ == "paper"


@pytest.mark.parametrize(
    ("axis", "foreign", "ours"),
    [
        ("mode", "backward", "bwd"),
        ("mode", "Forward", "fwd"),
        ("dtype", "fp16", "float16"),
        ("dtype", "bf16", "bfloat16"),
        ("dtype", "double", "float64"),
    ],
)
def test_what_other_tools_call_a_value_is_answered_with_our_word(axis, foreign, ours):
    with pytest.raises(UsageError, match=f"{foreign}' is unknown") as caught:
        plan("[[cases]]", **{axis: [foreign]})
    assert caught.value.try_ == ours


@pytest.mark.parametrize(("text", "tokens"), [("4k", 4096), ("12K", 12288), ("1m", 2**20)])
def test_a_length_may_be_written_in_units_of_1024(text, tokens):
    (planned,) = plan("[[cases]]\nimpl = 'eager'", seq_len=[text])
    assert planned.case.seq_len == tokens


@pytest.mark.parametrize("text", ["k", "4g", "4.5k", "0k", "-4k"])
def test_what_is_no_length_is_refused_with_one_that_is(text):
    with pytest.raises(UsageError, match="not a positive whole number") as caught:
        plan("[[cases]]", seq_len=[text])
    assert caught.value.try_ == "--seq-len 4096"


def test_a_tile_of_another_rank_is_refused_and_not_replaced():
    with pytest.raises(UsageError, match="tile 8x16 has 2 axes, canvas 8x8x16 has 3") as caught:
        plan("[[cases]]\nimpl = 'eager'", tile=["8x16"], ndim=["3"], seq_len=["1024"])
    assert caught.value.try_ == "--tile 4x4x8"


def test_the_grids_own_tiles_do_not_stand_in_the_way_of_another_rank():
    (planned,) = plan("[[cases]]\nimpl = 'eager'\ntile = '4x8'", ndim=["3"], seq_len=["1024"])
    assert planned.case.tile == (4, 4, 8)


def test_an_impossible_length_among_others_is_unsupported_and_the_rest_is_planned():
    found = plan("[[cases]]\nimpl = 'eager'", seq_len=["1000", "1024"], ndim=["2"], tile=["4x8"])
    assert [p.case.seq_len for p in found] == [1000, 1024]
    assert "1000 tokens cannot be cut into tiles of 4x8" in found[0].reason
    assert (found[0].case.tile, found[1].reason) == (None, None)


def test_an_impossible_length_is_a_row_of_an_impl_with_tiles(nothing_installed):
    found = plan("[[cases]]", seq_len=["1000", "1024"], ndim=["2"], tile=["4x8"])
    assert [(p.case.impl, p.reason is None) for p in found] == [("eager", False), ("eager", True)]


def test_an_impl_without_tiles_runs_a_length_that_no_tile_divides(nothing_installed):
    found = plan("[[cases]]\nsparsity = 0.0", seq_len=["1000", "1024"], ndim=["2"])
    assert [(p.case.seq_len, p.case.impl, p.reason) for p in found] == [
        (1000, "sdpa_flash+eager", None),
        (1024, "sdpa_flash+eager", None),
    ]


def test_a_length_that_no_tile_divides_is_no_problem_to_those_without_tiles():
    found = plan(
        "[[cases]]\nimpl = 'eager'\ncontender = 'transformer'", seq_len=["1000"], ndim=["2"]
    )
    assert [(p.case.canvas, p.reason) for p in found] == [((25, 40), None)]


@pytest.mark.parametrize(("sparsity", "is_told"), [(0.999, True), (0.8, False)])
def test_a_sparsity_that_no_window_comes_near_is_warned_of(sparsity, is_told):
    block = "[[cases]]\nlevel = 'op'\ncontender = 'sliding_tile'\nimpl = 'eager'"
    (planned,) = plan(block, canvas=["16x16"], tile=["4x8"], sparsity=[str(sparsity)])
    told = "sparsity 87.5% was measured where 99.9% was asked for"
    assert (planned.warning or "").startswith(told) is is_told


def test_a_window_wider_than_the_canvas_is_planned_as_wide_as_it_is_and_warned_of():
    found = plan("[[cases]]\nimpl = 'eager'", canvas=["16x32"], tile=["4x8"], window=["8x64"])
    (planned,) = found
    assert planned.case.window == (8, 32)
    assert planned.warning.startswith("window 8x64 is wider than canvas 16x32: 8x32 was measured")


def test_a_window_that_fits_is_not_warned_of():
    (planned,) = plan("[[cases]]\nimpl = 'eager'", canvas=["16x32"], tile=["4x8"], window=["16x8"])
    assert (planned.case.window, planned.warning) == ((16, 8), None)


def test_a_contender_whose_libraries_are_all_absent_names_them(nothing_installed, monkeypatch):
    only = contenders.Contender(
        level="op", name="comb", impl="fast", build="m:f", needs=("fla",), rank=(("cpu", 1),)
    )
    monkeypatch.setattr("bench.grid.registry", lambda: {("op", "comb", "fast"): only})
    with pytest.raises(UsageError, match="fast needs flash-linear-attention") as caught:
        plan("[[cases]]\nlevel = 'op'\ncontender = 'comb'")
    assert caught.value.try_ == "pip install flash-linear-attention"


def test_an_impl_whose_library_is_absent_is_refused_with_the_install_command(nothing_installed):
    with pytest.raises(UsageError, match="needs fla, which is not installed") as caught:
        plan("[[cases]]\nlevel = 'op'\ncontender = 'delta_rule'\nimpl = 'fla'", "cuda")
    assert caught.value.try_ == "pip install flash-linear-attention"


def test_an_unreadable_grid_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"missing\.toml cannot be read"):
        load_file(tmp_path / "missing.toml")
