"""The sum of many rows against float64, in one step and in two."""

import pytest
import torch

from ena_kernels.column_sum_kernel import BLOCK_D, LEAST_RUN, RUNS, column_sum
from ena_kernels.errors import UnsupportedError
from tests.ena_kernels.sm90 import compiled

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = [(1, 5), (33, 70), (2 * LEAST_RUN + 1, 129), (LEAST_RUN * 5 + 7, 3)]


def assert_close(found, expected, rtol=1e-5):
    torch.testing.assert_close(found.double(), expected, rtol=rtol, atol=2e-5)


@pytest.mark.parametrize(("R", "D"), SHAPES)
def test_rows_inside_a_wider_tensor_are_summed(R, D):
    x = torch.randn(R, 3 * D, device=DEVICE)[:, D : 2 * D]
    assert_close(column_sum(x, torch.float32), x.double().sum(0))


def test_more_runs_than_there_may_be_grow_longer(monkeypatch):
    monkeypatch.setattr("ena_kernels.column_sum_kernel.RUNS", 3)
    x = torch.randn(LEAST_RUN * 4 + 9, 6, device=DEVICE)
    assert_close(column_sum(x, torch.float32), x.double().sum(0))
    assert RUNS > 3


def test_half_precision_adds_in_float32_and_rounds_once():
    x = torch.rand(LEAST_RUN * 6, 20, device=DEVICE, dtype=torch.float16)
    assert_close(column_sum(x, torch.float16), x.double().sum(0), rtol=5e-4)
    assert_close(column_sum(x, torch.float32), x.double().sum(0))


def test_rows_without_strides_are_summed():
    x = torch.ones((), device=DEVICE).expand(70, 9)
    assert torch.equal(column_sum(x, torch.float32), torch.full((9,), 70.0, device=DEVICE))


def test_the_operator_is_registered_soundly_and_sums_nothing_to_zero():
    operator = torch.ops.ena_kernels.column_sum.default
    for has_gradient in (False, True):
        x = torch.randn(33, 70, device=DEVICE, requires_grad=has_gradient)
        torch.library.opcheck(operator, (x,))
    assert not operator(torch.ones(0, 4, device=DEVICE)).any()
    with pytest.raises(UnsupportedError, match=r"no kernel for torch.float64"):
        operator(torch.ones(3, 4, device=DEVICE, dtype=torch.float64))


@pytest.mark.parametrize(("dtype", "size"), [("*bf16", 2), ("*fp32", 4)])
def test_hopper_moves_sixteen_bytes_at_a_time_without_spills(dtype, size):
    binary = compiled(
        module="ena_kernels.column_sum_kernel",
        kernel="column_sum_kernel",
        signature={
            **{"x_ptr": dtype, "y_ptr": "*fp32", "R": "i32", "run": "i32"},
            **dict.fromkeys(("D", "x_row"), "i32:16"),
        },
        constexprs={"BLOCK_R": 32, "BLOCK_D": BLOCK_D[size]},
    )
    assert binary.local_bytes == 0
    assert binary.registers <= 96
    assert "ld.global.v4.b32" in binary.ptx
