"""Geometry against brute force: explicit loops over coordinates, and the clamped-centre rule."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ena_kernels.canvas import (
    attended_fraction,
    most_square_canvas,
    num_tokens,
    tile_grid,
    tiled_order,
    transposed_tiles,
    visible_tiles,
    window_for_sparsity,
    window_grid,
)
from ena_kernels.errors import ShapeError

GEOMETRIES = [
    ((12,), (3,), (6,)),
    ((6, 20), (2, 4), (6, 8)),
    ((4, 6, 10), (2, 3, 2), (2, 6, 6)),
    ((2, 3, 8, 6), (1, 3, 2, 2), (2, 3, 6, 4)),
    ((6, 20), (2, 4), (60, 8)),
]


def centre_rule(num_tiles, width, query):
    """The published rule: clamp the window's centre, then reach out to both sides."""
    left = width // 2
    right = width // 2 + width % 2 - 1
    centre = min(max(query, left), num_tiles - 1 - right)
    return [j for j in range(num_tiles) if centre - left <= j <= centre + right]


def tile_of(token, canvas, tile):
    """Tile coordinates of a raster index, by successive division."""
    coords = []
    for side in reversed(canvas):
        token, coord = divmod(token, side)
        coords.append(coord)
    return tuple(c // t for c, t in zip(reversed(coords), tile, strict=True))


def dense_mask(canvas, tile, window):
    """[L, L] in raster order, token pair by token pair."""
    grid = [n // t for n, t in zip(canvas, tile, strict=True)]
    seen = [w // t for w, t in zip(window, tile, strict=True)]
    tiles = [tile_of(i, canvas, tile) for i in range(math.prod(canvas))]
    return np.array(
        [
            [
                all(
                    kc in centre_rule(g, k, qc)
                    for g, k, qc, kc in zip(grid, seen, q, key, strict=True)
                )
                for key in tiles
            ]
            for q in tiles
        ]
    )


def mask_from_tiles(canvas, tile, window):
    """[L, L] in raster order from the list of visible tiles and the tiled order."""
    volume = math.prod(tile)
    order = tiled_order(canvas, tile)
    mask = np.zeros((len(order), len(order)), dtype=bool)
    for query_tile, keys in enumerate(visible_tiles(canvas, tile, window)):
        rows = order[query_tile * volume : (query_tile + 1) * volume]
        for key_tile in keys:
            mask[np.ix_(rows, order[key_tile * volume : (key_tile + 1) * volume])] = True
    return mask


@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4)), min_size=1, max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_tiled_order_puts_each_token_where_the_formula_says(axes):
    grid = [g for g, _ in axes]
    tile = tuple(t for _, t in axes)
    canvas = tuple(g * t for g, t in axes)
    expected = {}
    for raster, x in enumerate(itertools.product(*map(range, canvas))):
        tile_id = within = 0
        for xa, g, t in zip(x, grid, tile, strict=True):
            tile_id = tile_id * g + xa // t
            within = within * t + xa % t
        expected[tile_id * math.prod(tile) + within] = raster
    assert tiled_order(canvas, tile).tolist() == [expected[j] for j in range(len(expected))]


def test_tiled_order_of_a_line_is_the_line():
    order = tiled_order((12,), (4,))
    assert order.dtype == np.int64
    assert order.tolist() == list(range(12))


@pytest.mark.parametrize("num_tiles", range(1, 14))
def test_visible_tiles_follow_the_clamped_centre_rule(num_tiles):
    for width in range(1, num_tiles + 4):
        expected = [centre_rule(num_tiles, width, c) for c in range(num_tiles)]
        assert visible_tiles((num_tiles * 3,), (3,), (width * 3,)).tolist() == expected


@pytest.mark.parametrize(("canvas", "tile", "window"), GEOMETRIES)
def test_mask_from_visible_tiles_equals_the_mask_token_by_token(canvas, tile, window):
    expected = dense_mask(canvas, tile, window)
    assert (mask_from_tiles(canvas, tile, window) == expected).all()
    fraction = attended_fraction(canvas, tile, window)
    assert (expected.sum(axis=1) == fraction * num_tokens(canvas)).all()
    assert Fraction(int(expected.sum()), expected.size) == fraction


@pytest.mark.parametrize(("canvas", "tile", "window"), GEOMETRIES)
def test_visible_tiles_ascend_and_contain_the_own_tile(canvas, tile, window):
    tiles = visible_tiles(canvas, tile, window)
    assert tiles.dtype == np.int32
    assert (np.diff(tiles, axis=1) > 0).all()
    assert all(own in row for own, row in enumerate(tiles))


def test_window_as_wide_as_the_canvas_or_wider_sees_everything():
    for window in [(6, 20), (8, 40)]:
        assert mask_from_tiles((6, 20), (2, 4), window).all()


def test_window_of_one_tile_sees_only_itself():
    assert visible_tiles((6, 20), (2, 4), (2, 4)).tolist() == [[c] for c in range(15)]


def test_odd_windows_commute_with_flips_and_even_ones_lean_to_the_earlier_side():
    odd = visible_tiles((21,), (3,), (9,))
    even = visible_tiles((21,), (3,), (6,))
    assert ((6 - odd[::-1, ::-1]) == odd).all()
    assert even.tolist() == [[0, 1], [0, 1], [1, 2], [2, 3], [3, 4], [4, 5], [5, 6]]


def test_odd_windows_are_symmetric_away_from_the_border():
    mask = dense_mask((21,), (3,), (9,))
    interior = slice(6, 15)
    assert (mask[interior, interior] == mask[interior, interior].T).all()


@pytest.mark.parametrize(
    ("num_tiles", "width", "counts"),
    [
        (6, 3, [2, 3, 4, 4, 3, 2]),
        (6, 2, [2, 3, 2, 2, 2, 1]),
        (6, 4, [3, 4, 6, 6, 3, 2]),
        (10, 3, [2, 3, 4, 3, 3, 3, 3, 4, 3, 2]),
    ],
)
def test_number_of_query_tiles_that_see_each_key_tile(num_tiles, width, counts):
    offsets, _ = transposed_tiles((num_tiles * 5,), (5,), (width * 5,))
    assert np.diff(offsets).tolist() == counts


@pytest.mark.parametrize(("canvas", "tile", "window"), GEOMETRIES)
def test_transposed_tiles_invert_visible_tiles(canvas, tile, window):
    visible = visible_tiles(canvas, tile, window)
    offsets, ids = transposed_tiles(canvas, tile, window)
    assert offsets.dtype == ids.dtype == np.int32
    for key in range(len(visible)):
        expected = [q for q, keys in enumerate(visible) if key in keys]
        assert ids[offsets[key] : offsets[key + 1]].tolist() == expected


# By the rule of docs/maths.md, "Choosing a window", worked out apart from this code: canvas, tile,
# then windows in tiles for (s .5, tol .02), (.7, 0), (.7, .02), (.9, .02), each with the achieved
# sparsity to four digits.
CHOICES = """
1024       | 128   | 4      .5000 | 2      .7500 | 2      .7500 | 1     .8750
4096       | 128   | 16     .5000 | 10     .6875 | 10     .6875 | 3     .9062
16384      | 128   | 64     .5000 | 38     .7031 | 38     .7031 | 13    .8984
16x16      | 8x8   | 1x2    .5000 | 1x1    .7500 | 1x1    .7500 | 1x1   .7500
16x16      | 4x4   | 2x4    .5000 | 2x2    .7500 | 2x2    .7500 | 1x1   .9375
32x32      | 8x8   | 2x4    .5000 | 2x2    .7500 | 2x2    .7500 | 1x1   .9375
64x64      | 8x8   | 4x8    .5000 | 4x5    .6875 | 4x5    .6875 | 2x3   .9062
64x64      | 8x16  | 4x4    .5000 | 5x2    .6875 | 5x2    .6875 | 3x1   .9062
128x128    | 8x8   | 11x12  .4844 | 7x11   .6992 | 9x9    .6836 | 5x5   .9023
128x128    | 8x16  | 11x6   .4844 | 13x3   .6953 | 9x4    .7188 | 5x3   .8828
256x256    | 8x16  | 23x11  .5059 | 14x11  .6992 | 18x9   .6836 | 10x5  .9023
8x16x16    | 4x4x8 | 1x4x2  .5000 | 1x4x1  .7500 | 1x4x1  .7500 | 1x2x1 .8750
16x16x16   | 4x4x8 | 4x4x1  .5000 | 3x3x1  .7188 | 3x3x1  .7188 | 2x2x1 .8750
32x16x16   | 4x4x8 | 8x4x1  .5000 | 5x4x1  .6875 | 6x3x1  .7188 | 4x2x1 .8750
16x32x32   | 4x4x8 | 3x7x3  .5078 | 2x5x4  .6875 | 3x4x3  .7188 | 2x4x2 .8750
32x32x32   | 8x8x8 | 2x4x4  .5000 | 2x3x3  .7188 | 2x3x3  .7188 | 2x2x2 .8750
32x32x32   | 4x4x8 | 6x7x3  .5078 | 5x5x3  .7070 | 5x5x3  .7070 | 3x4x2 .9062
30x48x80   | 6x8x8 | 4x4x9  .5200 | 3x5x6  .7000 | 3x4x7  .7200 | 2x3x5 .9000
18x48x80   | 6x8x8 | 2x5x9  .5000 | 2x3x9  .7000 | 2x4x7  .6889 | 1x3x5 .9167
36x48x48   | 6x8x8 | 3x6x6  .5000 | 4x4x4  .7037 | 4x4x4  .7037 | 3x3x3 .8750
"""
TARGETS = ((0.5, 0.02), (0.7, 0.0), (0.7, 0.02), (0.9, 0.02))


def shape(text):
    return tuple(int(side) for side in text.split("x"))


@pytest.mark.parametrize("line", CHOICES.strip().splitlines())
def test_window_for_sparsity_chooses_what_was_worked_out_by_its_rule(line):
    canvas, tile, *choices = (cell.strip() for cell in line.split("|"))
    canvas, tile = shape(canvas), shape(tile)
    for (sparsity, tolerance), choice in zip(TARGETS, choices, strict=True):
        in_tiles, achieved = choice.split()
        window = window_for_sparsity(canvas, tile, sparsity, tolerance)
        assert window == tuple(k * t for k, t in zip(shape(in_tiles), tile, strict=True))
        assert 1 - float(attended_fraction(canvas, tile, window)) == pytest.approx(
            float(achieved), abs=5.1e-5
        )


def chosen_by_enumeration(grid, sparsity, tolerance):
    """The rule of docs/maths.md word by word, over every window."""
    total = math.prod(grid)
    goal = 1 - Fraction(str(sparsity))
    windows = list(itertools.product(*(range(1, g + 1) for g in grid)))
    delta = {k: abs(Fraction(math.prod(k), total) - goal) for k in windows}
    limit = min(delta.values()) + Fraction(str(tolerance))

    def key(k):
        shares = [Fraction(a, g) for a, g in zip(k, grid, strict=True)]
        even = sum(a % 2 == 0 and a < g for a, g in zip(k, grid, strict=True))
        return max(shares) - min(shares), delta[k], even, -math.prod(k), k

    return min((k for k in windows if delta[k] <= limit), key=key)


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=3),
    st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.62, 0.75, 0.9, 0.99]),
    st.sampled_from([0.0, 0.02, 0.2]),
)
@settings(max_examples=80, deadline=None)
def test_window_for_sparsity_equals_full_enumeration(grid, sparsity, tolerance):
    canvas = tuple(2 * g for g in grid)
    tile = (2,) * len(grid)
    expected = chosen_by_enumeration(grid, sparsity, tolerance)
    assert window_for_sparsity(canvas, tile, sparsity, tolerance) == tuple(2 * k for k in expected)


def test_window_for_sparsity_handles_thousands_of_tiles_on_an_axis():
    assert window_for_sparsity((4096 * 128,), (128,), 0.7) == (1229 * 128,)
    fine = window_for_sparsity((30, 48, 80), (1, 1, 1), 0.7, 0.02)
    assert abs(float(attended_fraction((30, 48, 80), (1, 1, 1), fine)) - 0.3) <= 0.02


def test_sparsity_is_read_as_the_decimal_it_prints_as():
    # 1 and 2 of 5 tiles are equally near to 30%, so the odd window wins; as a binary float they
    # would not be.
    assert window_for_sparsity((35,), (7,), 0.7) == (7,)


def test_equally_near_windows_with_equally_many_even_sides_leave_the_denser_one():
    assert window_for_sparsity((6, 20), (3, 5), 0.4375, 0.2) == (6, 15)


def test_sparsity_zero_sees_everything():
    assert window_for_sparsity((6, 20), (2, 4), 0.0) == (6, 20)


@pytest.mark.parametrize(
    ("seq_len", "tile", "expected"),
    [
        (2048, (4, 4, 8), (8, 16, 16)),
        (4096, (8, 16), (64, 64)),
        (8192, (8, 16), (64, 128)),
        (4096, (128,), (4096,)),
        (4096, (4, 4, 8), (16, 16, 16)),
        (96, (1, 8), (12, 8)),
        (384, (16, 4), (16, 24)),
    ],
)
def test_most_square_canvas(seq_len, tile, expected):
    assert most_square_canvas(seq_len, len(tile), tile) == expected


def test_most_square_canvas_equals_full_enumeration():
    for seq_len, tile in itertools.product([24, 96, 144, 360], [(1, 2, 1), (2, 1, 3), (3, 2, 4)]):
        fitting = [
            sides
            for sides in itertools.product(range(1, seq_len + 1), repeat=2)
            if seq_len % (sides[0] * sides[1]) == 0
        ]
        canvases = [(a, b, seq_len // (a * b)) for a, b in fitting]
        canvases = [c for c in canvases if all(n % t == 0 for n, t in zip(c, tile, strict=True))]
        expected = min(canvases, key=lambda c: (Fraction(max(c), min(c)), c))
        assert most_square_canvas(seq_len, 3, tile) == expected


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: tile_grid((16, 15), (4, 4)), ["16x15", "axis 1", "Try: canvas 16x16"]),
        (lambda: tile_grid((16, 15), (4,)), ["tile 4 has 1 axes", "Try: tile 4x4"]),
        (lambda: tile_grid((16, 0), (4, 4)), ["canvas (16, 0) is not a grid"]),
        (lambda: tile_grid((), ()), ["canvas () is not a grid"]),
        (lambda: tile_grid((16, True), (4, 1)), ["canvas (16, True) is not a grid"]),
        (lambda: tile_grid((16, 8), (4, 2.0)), ["tile (4, 2.0) is not a grid"]),
        (lambda: attended_fraction((16,), (4,), (6,)), ["window 6", "Try: window 8"]),
        (lambda: visible_tiles((16,), (4,), (8, 4)), ["window 8x4 has 2 axes", "Try: window 8"]),
        (lambda: transposed_tiles((16,), (4,), (0,)), ["window (0,) is not a grid"]),
        (lambda: window_grid((9, 16), (3, 4), (1, 4)), ["Try: window 3x4"]),
        (lambda: window_for_sparsity((16,), (4,), 1.0), ["sparsity 1.0 is outside [0, 1)"]),
        (lambda: window_for_sparsity((16,), (4,), math.nan), ["sparsity nan is outside"]),
        (lambda: window_for_sparsity((16,), (4,), 0.5, -0.1), ["tolerance -0.1 is outside"]),
        (lambda: most_square_canvas(1000, 2, (8, 16)), ["1000 tokens", "Try: seq_len 1024"]),
        (lambda: most_square_canvas(3, 2, (8, 16)), ["Try: seq_len 128"]),
        (lambda: most_square_canvas(1024, 3, (8, 16)), ["tile 8x16 has 2 axes", "Try: ndim 2"]),
    ],
)
def test_wrong_shapes_say_what_was_wrong_and_what_to_try(call, words):
    with pytest.raises(ShapeError) as caught:
        call()
    text = str(caught.value)
    assert len(text.splitlines()) == 3
    for word in words:
        assert word in text
