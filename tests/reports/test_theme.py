"""Series look different from each other and the same everywhere."""

from reports import theme


def test_forty_series_all_look_different():
    named = [(f"s{i}", c) for i, c in enumerate(("ena", "linear", "transformer", "other") * 8)]
    styles = theme.styles(named)
    assert len({(s.colour, s.dash) for s in styles.values()}) == 32
    beyond = theme.styles([(f"s{i}", "ena") for i in range(40)])
    assert len(beyond) == 40


def test_the_baseline_is_black_and_ena_is_blue():
    styles = theme.styles([("t", "transformer"), ("e", "ena"), ("l", "linear")])
    assert styles["t"].colour == theme.BLACK
    assert styles["e"].colour == theme.BLUE
    assert styles["l"].colour == theme.GREEN


def test_a_crowd_takes_free_colours_but_not_those_that_another_contender_prefers():
    linear = [f"l{i}" for i in range(20)]
    named = [("t", "transformer"), *((n, "linear") for n in linear), ("e", "ena"), ("f", "ena")]
    styles = theme.styles(named)
    solid = [styles[n].colour for n in linear if styles[n].dash == theme.DASHES[0]]
    assert solid[:2] == [theme.GREEN, theme.ORANGE]
    assert set(solid) == set(theme.PALETTE) - {theme.BLACK, theme.BLUE, theme.VERMILLION}
    assert (styles["e"].colour, styles["f"].colour) == (theme.BLUE, theme.VERMILLION)
    assert {styles[n].colour for n in linear[5:11]} == {theme.GREEN, theme.ORANGE}


def test_the_same_series_get_the_same_styles():
    named = [("a", "ena"), ("b", "linear"), ("a", "ena")]
    assert theme.styles(named) == theme.styles(named)
    assert len(theme.styles(named)) == 2


def test_palette_stands_out_from_paper_and_from_itself():
    def luminance(colour):
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    contrasts = {c: 1.05 / (luminance(c) + 0.05) for c in theme.PALETTE}
    assert min(contrasts.values()) > 2.0, contrasts
    assert len(set(theme.PALETTE)) == len(theme.PALETTE)


def test_no_failure_shares_its_marker_with_a_series():
    assert not {m for m in theme.FAILURES.values() if isinstance(m, str)} & set(theme.MARKERS)
    assert theme.FAILURES.keys() == theme.FAILURE_WORDS.keys()
    assert theme.failure_order(["failed", "ok", "oom", "oom", "unsupported"]) == ["oom", "failed"]


def test_text_is_drawn_as_it_is():
    assert theme.literal("a $b$") == r"a \$b\$"
    assert theme.literal("\u5b57 x\ny") == "? x?y"
    assert theme.literal("_x$") == r" _x\$"
