"""What is written reads back through tomllib exactly, but for None, which TOML does not have."""

import math
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.toml import toml_text

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALARS = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | TEXT
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(TEXT, VALUES, max_size=5))
def test_a_document_reads_back_as_it_was(document):
    assert tomllib.loads(toml_text(document)) == document


def test_every_control_character_and_unicode_survives():
    document = {chr(code): chr(code) for code in [*range(0x250), 0x2028, 0x1F600]}
    assert tomllib.loads(toml_text(document)) == document


def test_not_a_number_survives():
    assert math.isnan(tomllib.loads(toml_text({"x": math.nan}))["x"])


def test_none_is_left_out_and_a_tuple_becomes_a_list():
    document = {"a": None, "t": (1, 2), "in": {"b": None, "c": 3}, "rows": [{"d": None, "e": 4}]}
    assert tomllib.loads(toml_text(document)) == {
        "t": [1, 2],
        "in": {"c": 3},
        "rows": [{"e": 4}],
    }


def test_each_row_of_a_table_has_a_line_of_its_own():
    text = toml_text({"rounds": 3, "cases": [{"canvas": (4, 6)}, {"canvas": (8,)}]})
    assert text == "rounds = 3\ncases = [\n  {canvas = [4, 6]},\n  {canvas = [8]},\n]\n"


@pytest.mark.parametrize("value", [object(), b"bytes", [None], {"deep": {"set": {1}}}])
def test_what_toml_cannot_hold_is_refused(value):
    with pytest.raises(TypeError, match="TOML cannot hold"):
        toml_text({"value": value})
