"""Triton's scans against the eager ones in float64: every scan, both variants, gradients."""

import os
import subprocess
import sys
from itertools import product

import pytest
import torch

from ena_kernels.errors import UnsupportedError
from ena_kernels.scans.api import scan_merge, scan_split
from ena_kernels.scans.catalog import SCANS, VARIANTS, scan_passes, scan_reason
from ena_kernels.scans.orders import random_order
from ena_kernels.scans.triton import collect, spread
from tests.ena_kernels.sm90 import compiled

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CANVASES = [(3, 5), (2, 3, 4), (7,)]
HEADS = {"mh2d": 8, "mh3d": 13}
B = 2
MOVING = [scan for scan in SCANS if scan not in ("uni", "learnable")]


def cases(*, canvases=CANVASES, scans=MOVING):
    return [
        (scan, canvas)
        for scan, canvas in product(scans, canvases)
        if scan_reason(scan, canvas, HEADS.get(scan, 1)) is None
    ]


def make_case(scan, canvas, *, layer=3, dtype=torch.float32):
    """Tokens inside a wider tensor, and the keywords of both functions."""
    heads, L = HEADS.get(scan, 1), torch.Size(canvas).numel()
    x = torch.randn(B, L, 5 * heads, device=DEVICE, dtype=dtype)[..., heads : 4 * heads]
    order = random_order(B, L, device=DEVICE) if scan == "random" else None
    return x, {"scan": scan, "canvas": canvas, "layer": layer, "heads": heads, "order": order}


def outcomes(x, keywords, dtype, impl):
    """Split, merge and the gradient of both, from the same numbers in any dtype."""
    x = x.detach().to(dtype).requires_grad_()
    split = scan_split(x, **keywords, impl=impl)
    y = torch.linspace(-1, 1, split.numel(), device=DEVICE).view_as(split).to(dtype)
    y = y.requires_grad_()
    (dx,) = torch.autograd.grad(split, x, y.detach())
    merged = scan_merge(y, **keywords, impl=impl)
    (dy,) = torch.autograd.grad(merged, y, x.detach())
    return split, dx, merged, dy


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("layer", [3, 4])
@pytest.mark.parametrize(("scan", "canvas"), cases())
def test_split_merge_and_their_gradients_equal_the_eager_ones(scan, canvas, layer, variant):
    x, keywords = make_case(scan, canvas, layer=layer)
    keywords["variant"] = variant
    found = outcomes(x, keywords, torch.float32, "triton")
    expected = outcomes(x, keywords, torch.float64, "eager")
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("scan", "canvas"), cases())
def test_split_then_merge_returns_every_token_once_per_pass(scan, canvas):
    x, keywords = make_case(scan, canvas)
    split = scan_split(x, **keywords, impl="triton")
    merged = scan_merge(split, **keywords, impl="triton")
    torch.testing.assert_close(merged, scan_passes(scan) * x)


@pytest.mark.parametrize("scan", ["cross", "mh2d"])
def test_half_precision_moves_exactly_and_sums_in_float32(scan):
    x, keywords = make_case(scan, (3, 5), dtype=torch.float16)
    split = scan_split(x, **keywords, impl="triton")
    assert torch.equal(split, scan_split(x, **keywords))
    y = torch.randn_like(split) * 8
    exact = scan_merge(y.double(), **keywords).half()
    torch.testing.assert_close(
        scan_merge(y, **keywords, impl="triton"), exact, rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize("scan", ["flip", "bi", "cross", "mh2d"])
def test_every_element_is_written(scan):
    x, keywords = make_case(scan, (3, 5))
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        # in this mode fresh memory holds NaN
        split = scan_split(x, **keywords, impl="triton")
        merged = scan_merge(split, **keywords, impl="triton")
    finally:
        torch.use_deterministic_algorithms(False)
    assert split.isfinite().all()
    assert merged.isfinite().all()


def test_an_empty_batch_gives_an_empty_batch():
    x = torch.ones(0, 15, 8, device=DEVICE)
    split = scan_split(x, scan="cross", canvas=(3, 5), impl="triton")
    assert split.shape == (0, 15, 8)
    assert scan_merge(split, scan="cross", canvas=(3, 5), impl="triton").shape == (0, 15, 8)


def test_the_gradient_of_a_sum_has_no_strides_and_is_read_all_the_same():
    x = torch.randn(B, 15, 3, device=DEVICE, requires_grad=True)
    scan_split(x, scan="cross", canvas=(3, 5), impl="triton").sum().backward()
    torch.testing.assert_close(x.grad, torch.full_like(x, 4.0))


@pytest.mark.parametrize("operator", [spread, collect])
@pytest.mark.parametrize("scan", ["cross", "bi", "random", "mh2d"])
def test_operators_are_registered_soundly(scan, operator):
    x, keywords = make_case(scan, (3, 5))
    if operator is collect:
        x = scan_split(x, **keywords)
    registered = torch.ops.ena_kernels.scan_spread.default
    if operator is collect:
        registered = torch.ops.ena_kernels.scan_collect.default
    settings = [keywords[name] for name in ("order", "scan", "canvas", "layer", "heads")]
    torch.library.opcheck(registered, (x.detach().requires_grad_(), *settings))


def test_split_and_merge_trace_into_one_graph():
    x, keywords = make_case("cross", (3, 5))

    def there_and_back(x):
        y = scan_split(x, **keywords, impl="triton").sin()
        return scan_merge(y, **keywords, impl="triton")

    traced = torch.compile(there_and_back, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(traced(x), there_and_back(x))


@pytest.mark.parametrize("function", [scan_split, scan_merge])
def test_float64_is_refused(function):
    x = torch.ones(4, 15, 2, device=DEVICE, dtype=torch.float64)
    with pytest.raises(UnsupportedError, match=r"no kernel for torch.float64\nExpected: .*\nTry: "):
        function(x, scan="cross", canvas=(3, 5), impl="triton")


def test_a_cpu_without_the_interpreter_is_refused():
    code = """
import torch
from ena_kernels import UnsupportedError, scan_merge, scan_split
for function in (scan_split, scan_merge):
    try:
        function(torch.ones(4, 15, 2), scan="cross", canvas=(3, 5), impl="triton")
    except UnsupportedError as error:
        print(str(error).splitlines()[0])
"""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", code]
    output = subprocess.check_output(command, env=environment, text=True)
    assert output == "impl 'triton' has no kernel for cpu tensors\n" * 2


@pytest.mark.parametrize("offset", ["tl.int32", "tl.int64"])
@pytest.mark.parametrize("readings", [(0, 1, 2, 3), (-1, -1)])
@pytest.mark.parametrize("kernel", ["scan_spread_kernel", "scan_collect_kernel"])
def test_hopper_moves_sixteen_bytes_at_a_time_without_spills(kernel, readings, offset):
    strides = ("x_batch", "x_token", "y_batch", "y_copy", "y_token", "R")
    binary = compiled(
        module="ena_kernels.scans.triton",
        kernel=kernel,
        signature={
            **dict.fromkeys(("x_ptr", "y_ptr"), "*bf16"),
            **dict.fromkeys(strides, "i32:16"),
            "position_ptr": "*i32",
            "position_batch": "i32",
        },
        constexprs={
            "READINGS": readings,
            "AXES": (48, 32, 32, 1),
            "HEADS": 1,
            "VECS": 96,
            "VEC": 8,
            "BLOCK": 256,
            "OFFSET": offset,
        },
    )
    assert binary.local_bytes == 0
    assert binary.registers <= 96
    assert "ld.global.v4.b32" in binary.ptx
    assert "st.global.v4.b32" in binary.ptx
