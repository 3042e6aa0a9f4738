"""Tensor maps of the delta rule's Hopper kernels, made without their constructor."""

import pytest
import torch

from ena_kernels import hopper
from ena_kernels.operands import heads_last

tensor_maps = pytest.importorskip("ena_kernels.delta_rule.tensor_maps")
TensorDescriptor = pytest.importorskip("triton.experimental.gluon.nvidia.hopper").TensorDescriptor


def token_map(x, width):
    return hopper.tensor_map(x, *tensor_maps.token_box(x.shape, x.stride(), x.dtype, width))


def row_map(x):
    return hopper.tensor_map(x, *tensor_maps.row_box(x.shape, x.dtype))


def checked(made):
    """The same map made by its constructor, which refuses what the hardware cannot take."""
    return TensorDescriptor(made.base, made.shape, made.strides, made.block_shape, made.layout)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_part_of_a_packed_projection_is_read_in_place(dtype):
    packed = torch.empty(2, 70, 3 * 5 * 64, dtype=dtype)
    k = packed.chunk(3, dim=-1)[1].unflatten(-1, (5, 64)).transpose(1, 2)
    made = token_map(k, 64)
    assert made == checked(made)
    assert made.base is k
    assert made.shape == [2, 5, 70, 64]
    assert made.strides == [70 * 960, 64, 960, 1]
    assert made.block_shape == [1, 1, 64, 64]


def test_steps_along_axes_of_one_do_not_matter():
    x = torch.empty(1, 1, 70, 72, dtype=torch.bfloat16).as_strided((1, 1, 70, 72), (3, 5, 72, 1))
    made = token_map(x, 128)
    assert made == checked(made)
    assert made.strides == [8, 8, 72, 1]


def test_states_of_chunks_are_rows_of_one_matrix():
    states = torch.empty(6, 128, 64, dtype=torch.float16)
    made = row_map(states)
    assert made == checked(made)
    assert (made.shape, made.strides, made.block_shape) == ([768, 64], [64, 1], [64, 64])


@pytest.mark.parametrize(
    ("shape", "strides", "has_map"),
    [
        ((2, 3, 70, 64), (13440, 64, 192, 1), True),
        ((2, 3, 70, 64), (13440, 4480, 64, 1), True),
        ((2, 3, 70, 60), (12600, 60, 180, 1), False),
        ((2, 3, 70, 20), (13440, 64, 192, 1), False),
        ((2, 3, 70, 24), (13440, 64, 192, 1), True),
        ((2, 3, 70, 64), (0, 64, 192, 1), False),
        ((1, 3, 70, 64), (0, 64, 192, 1), True),
        ((2, 3, 70, 64), (13440, 64, 192, 2), False),
    ],
)
def test_steps_are_multiples_of_16_bytes(shape, strides, has_map):
    assert tensor_maps._has_map(shape, strides) is has_map


def test_a_map_is_made_in_a_thread_with_a_cuda_context(monkeypatch):
    bound = []
    monkeypatch.setattr(hopper, "bind_context", bound.append)
    x = torch.empty(1, 2, 70, 64, dtype=torch.bfloat16)
    token_map(x, 64)
    row_map(x[0])
    assert [seen.data_ptr() for seen in bound] == [x.data_ptr()] * 2


def test_other_devices_and_dtypes_are_left_to_plain_triton():
    assert not tensor_maps.runs_on_hopper(torch.empty(1, 1, 8, 64, dtype=torch.bfloat16))


def test_results_are_stored_with_the_heads_of_a_token_together():
    stored = torch.empty(2, 70, 5, 24).transpose(1, 2)
    assert heads_last(stored.shape) == stored.stride()
