"""Time by component and memory by what holds it."""

import json

import pandas as pd
import pytest

from ena_kernels.components import COMPONENTS
from reports import frames, parts


def cases(*rows):
    return frames.records(frames.tidy(pd.DataFrame(list(rows))))


def test_components_are_stacked_in_a_fixed_order_and_sum_to_one(row):
    component_ms = json.dumps({"mlp": 3.0, "attention": 1.0, "other": 0.5, "mine": 0.5})
    (found,) = parts.component_table(
        frames.tidy(pd.DataFrame([row(component_ms=component_ms), row(mode="bwd")]))
    )
    assert [name for name, _ in found.parts] == ["attention", "mlp", "other", "mine"]
    assert found.total == 5.0
    assert dict(found.shares) == {"attention": 0.2, "mlp": 0.6, "other": 0.1, "mine": 0.1}


def test_the_components_of_a_layer_are_known_to_figures():
    assert set(COMPONENTS) < set(parts.COMPONENTS)


@pytest.mark.parametrize("text", [None, "", "no json", "[1, 2]", "3", '{"mlp": "fast"}', "{}"])
def test_what_is_no_map_to_numbers_is_unknown(row, text):
    assert parts.splits(cases(row(component_ms=text)), parts.component_ms) == []


def test_a_failed_case_has_no_components(row):
    failed = row(status="oom", component_ms='{"mlp": 1.0}')
    assert parts.splits(cases(failed), parts.component_ms) == []


def test_memory_is_split_into_what_was_there_and_what_the_call_adds(row):
    (found,) = parts.memory_table(
        frames.tidy(pd.DataFrame([row(parameters_mib=27.0, inputs_mib=3.0, activations_mib=70.0)]))
    )
    assert found.parts == (("parameters", 27.0), ("inputs", 3.0), ("activations", 70.0))
    assert found.total == 100.0
    assert dict(found.shares)["activations"] == 0.7


def test_memory_without_all_its_parts_is_unknown(row):
    assert parts.splits(cases(row(parameters_mib=27.0)), parts.memory_mib) == []
    nothing = row(parameters_mib=0.0, inputs_mib=0.0, activations_mib=0.0)
    assert parts.splits(cases(nothing), parts.memory_mib) == []


def test_names_come_in_order_and_strangers_last(row):
    found = parts.splits(
        cases(
            row(component_ms='{"other": 1.0, "mine": 2.0}'),
            row(component_ms='{"norm": 1.0, "attention": 2.0}', mode="bwd"),
        ),
        parts.component_ms,
    )
    assert parts.names(found, parts.COMPONENTS) == ["attention", "norm", "other", "mine"]
