"""What one side writes, the other reads: values, tuples, dataclasses, NaN; all else is refused."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import protocol
from bench.case import Case
from bench.protocol import LineBuffer, ProtocolError, decode, encode
from bench.row import Row

KEYS = st.text(max_size=5).filter(lambda key: not key.startswith("$"))
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(KEYS, PLAIN, max_size=4))
def test_plain_values_and_tuples_arrive_as_they_were(message):
    line = encode(message)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert decode(line) == message


def test_nan_and_infinities_arrive():
    arrived = decode(encode({"x": [math.nan, math.inf, -math.inf]}))["x"]
    assert math.isnan(arrived[0])
    assert arrived[1:] == [math.inf, -math.inf]


def test_a_case_and_a_row_arrive_as_they_were():
    case = Case(
        level="op",
        contender="sliding_tile",
        impl="eager",
        mode="bwd",
        canvas=(4, 16, 8),
        tile=(2, 4, 8),
        sparsity_target=0.5,
    )
    row = Row(run_id="r", case_id=case.case_id, round=2, samples_ms=[0.5, 2e-9], outliers=[True])
    arrived = decode(encode({"case": case, "row": row}))
    assert arrived == {"case": case, "row": row}
    assert isinstance(arrived["case"].window, tuple)
    assert isinstance(arrived["row"].samples_ms, list)


def test_numbers_of_numpy_arrive_as_plain_numbers():
    arrived = decode(encode({"n": np.int64(7), "x": np.float32(0.5), "b": True}))
    assert arrived == {"n": 7, "x": 0.5, "b": True}
    assert [type(v) for v in arrived.values()] == [int, float, bool]


@pytest.mark.parametrize(
    "value", [{1, 2}, object(), b"bytes", {3: "key"}, {"$type": "x"}, {"$tuple": []}, Fraction]
)
def test_what_the_other_side_could_not_read_is_not_sent(value):
    with pytest.raises(TypeError):
        encode({"value": value})


@pytest.mark.parametrize(
    "line",
    [
        b"garbage",
        b"\xff\xfe",
        b"",
        b"3",
        b"[1]",
        b'{"half": ',
        b'{"$type":"os:system","$fields":{}}',
        b'{"$type":"no.such.module:X","$fields":{}}',
        b'{"$type":"bench.row:Nothing","$fields":{}}',
        b'{"$type":"bench.row:Row","$fields":{"no_column":1}}',
        b'{"$type":"bench.row:Row"}',
        b'{"$type":"bench.case:Case","$fields":{"level":"no such level"}}',
        b'{"$type":"bench.case:parse_shape","$fields":{"text":"4x4"}}',
        b'{"$type":5,"$fields":{}}',
        b'{"$tuple":5}',
        b"[" * 100_000,
    ],
)
def test_nonsense_is_refused(line):
    with pytest.raises(ProtocolError, match="is not a message"):
        decode(line)


def test_a_case_that_breaks_its_own_rules_is_refused():
    case = Case(level="op", contender="attention", impl="eager", mode="fwd", canvas=(5, 7))
    line = encode({"case": case}).replace(b'"heads":4', b'"heads":-4')
    with pytest.raises(ProtocolError, match="heads -4 is not a positive whole number"):
        decode(line)


@given(st.lists(st.binary(max_size=30).filter(lambda b: b"\n" not in b)), st.integers(1, 9))
def test_lines_are_whole_however_the_bytes_arrive(lines, step):
    stream = b"".join(line + b"\n" for line in lines)
    buffer = LineBuffer()
    got = [
        line for at in range(0, len(stream), step) for line in buffer.feed(stream[at : at + step])
    ]
    assert got == lines


def test_a_line_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(protocol, "MAX_LINE_BYTES", 100)
    buffer = LineBuffer()
    buffer.feed(b"x" * 100)
    with pytest.raises(ProtocolError, match="has no end"):
        buffer.feed(b"x")
