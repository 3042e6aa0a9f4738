"""A row survives parquet unchanged; every column is documented and the page is up to date."""

import io
import math
from dataclasses import fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.outcome import columns_of
from bench.row import SCHEMA_VERSION, Row, arrow_schema, columns_markdown

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
VALUES = {
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.float64(): st.floats(allow_nan=False),
    pa.string(): TEXT,
    pa.bool_(): st.booleans(),
    pa.list_(pa.float64()): st.lists(st.floats(allow_nan=False), max_size=3),
    pa.list_(pa.bool_()): st.lists(st.booleans(), max_size=3),
    pa.list_(pa.string()): st.lists(TEXT, max_size=3),
}
ROWS = st.fixed_dictionaries(
    {}, optional={field.name: VALUES[field.type] for field in arrow_schema()}
).map(lambda values: Row(**values))


def through_parquet(rows):
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([columns_of(r) for r in rows], arrow_schema()), buffer)
    return [Row(**values) for values in pq.ParquetFile(buffer).read().to_pylist()]


@given(st.lists(ROWS, min_size=1, max_size=3))
def test_rows_come_back_from_parquet_exactly(rows):
    assert through_parquet(rows) == rows


def test_nan_infinity_and_empty_lists_come_back():
    row = Row(error_forward=math.nan, error_gradient=math.inf, samples_ms=[], warnings=[])
    (back,) = through_parquet([row])
    assert math.isnan(back.error_forward)
    assert (back.error_gradient, back.samples_ms, back.outliers) == (math.inf, [], None)


def test_a_value_of_another_type_is_refused():
    with pytest.raises(pa.ArrowException):
        through_parquet([Row(latency_ms="fast")])


def test_the_schema_has_every_field_in_order():
    assert arrow_schema().names == [f.name for f in fields(Row)]
    assert Row().schema_version == SCHEMA_VERSION


@pytest.mark.parametrize("field", fields(Row), ids=lambda field: field.name)
def test_a_column_says_what_it_means(field):
    assert len(field.metadata["doc"]) > 3


def test_names_and_units_agree():
    ends = {
        "_ms": "ms",
        "_mib": "MiB",
        "_mhz": "MHz",
        "_w": "W",
        "_j": "J",
        "tokens_per_s": "tokens/s",
        "tflops_per_s": "TFLOP/s",
        "gb_per_s": "GB/s",
        "_fraction": "fraction",
    }
    for field in fields(Row):
        for end, unit in ends.items():
            if field.name.endswith(end):
                assert field.metadata["unit"] == unit, field.name


def test_the_names_that_people_rely_on_are_there():
    fixed = """
        run_id case_id case_path round level contender impl mode scan canvas ndim seq_len tile
        window sparsity_target sparsity batch heads head_dim depth dtype device device_name status
        reason timer samples_ms latency_ms latency_ms_lo latency_ms_hi tokens_per_s peak_memory_mib
        flops tflops_per_s warnings schema_version
    """
    assert set(fixed.split()) <= set(arrow_schema().names)


def test_the_page_of_columns_is_up_to_date():
    page = Path(__file__).parents[2] / "docs" / "columns.md"
    assert page.read_text(encoding="utf-8") == columns_markdown(), "run make docs"


def test_the_page_lists_every_column_with_type_and_unit():
    lines = columns_markdown().splitlines()
    table = [line for line in lines if line.startswith("| `")]
    assert len(table) == len(fields(Row))
    assert "| `latency_ms` | float | ms | median of samples_ms |" in table
    assert "| `samples_ms` | list[float] | ms | every sample in order, nothing dropped |" in table
