"""Waste of windows that slide token by token, against counts over all pairs."""

import itertools

import pytest

from reports.token_windows import token_wise_waste


def _counted(canvas, tile, window):
    """Every pair of tiles with an attended pair of tokens, by looking at all pairs."""
    places = list(itertools.product(*map(range, canvas)))

    def sees(query, key):
        for q, k, side, width in zip(query, key, canvas, window, strict=True):
            begin = min(max(q - width // 2, 0), side - width)
            if not begin <= k < begin + width:
                return False
        return True

    def tile_of(token):
        return tuple(i // t for i, t in zip(token, tile, strict=True))

    attended, touched = 0, set()
    for query, key in itertools.product(places, places):
        if sees(query, key):
            attended += 1
            touched.add((tile_of(query), tile_of(key)))
    volume = 1
    for side in tile:
        volume *= side
    return len(touched) * volume**2 / attended


@pytest.mark.parametrize(
    ("canvas", "tile", "window"),
    [
        ((24,), (4,), (9,)),
        ((12, 20), (3, 5), (5, 11)),
        ((12, 20), (4, 2), (6, 20)),
        ((4, 6, 8), (2, 3, 2), (3, 4, 5)),
    ],
)
def test_the_formula_counts_what_there_is(canvas, tile, window):
    expected = _counted(canvas, tile, window)
    assert token_wise_waste(canvas, tile, window) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("canvas", "window", "tile", "waste"),
    [
        ((64, 64), (24, 24), (8, 8), 2.01),
        ((64, 64), (33, 33), (8, 8), 1.47),
        ((256, 256), (80, 80), (16, 8), 1.36),
        ((24, 24, 24), (12, 12, 12), (4, 4, 4), 2.37),
        ((30, 48, 80), (18, 24, 24), (6, 8, 8), 2.48),
        ((32768,), (2048,), (128,), 1.06),
        ((4096,), (1229,), (128,), 1.11),
    ],
)
def test_known_examples(canvas, window, tile, waste):
    assert token_wise_waste(canvas, tile, window) == pytest.approx(waste, abs=0.006)


def test_a_window_as_large_as_the_canvas_wastes_nothing():
    assert token_wise_waste((8, 12), (4, 3), (8, 12)) == 1.0
    assert token_wise_waste((8, 12), (4, 3), (81, 122)) == pytest.approx(1.0)
