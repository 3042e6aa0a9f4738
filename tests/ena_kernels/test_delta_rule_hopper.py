"""The launches of the delta rule's Hopper kernels, planned and carried out without a GPU."""

import pytest
import torch

pytest.importorskip("triton.experimental.gluon.nvidia.hopper")

from ena_kernels.delta_rule import backward, forward, hopper, hopper_backward, segments

LAUNCHED = []


class Recorded:
    """In the place of a `Launch`: it checks what a kernel would be given."""

    def __init__(self, kernel, grid, constants, **options):
        self.kernel, self.grid, self.constants = kernel, grid, constants
        assert options["num_warps"] in (4, 8)

    def __call__(self, *arguments):
        names = self.kernel.arg_names
        assert names[len(arguments) :] == list(self.constants)
        given = dict(zip(names, arguments, strict=False)) | self.constants
        for name, value in given.items():
            if name.endswith("_desc") and value is not None:
                assert list(value.base.shape[-1:]) == value.shape[-1:], name
                assert value.base.dtype == torch.bfloat16
            elif name.endswith("_ptr"):
                assert value is None or isinstance(value, torch.Tensor), name
            elif name in ("H", "L", "num_chunks", "num_segments", "total", "num_items", "plane"):
                assert type(value) is int, name
        LAUNCHED.append((self.kernel.__name__.removeprefix("delta_rule_"), self.grid, given))


@pytest.fixture(autouse=True)
def a_hopper_device_that_launches_nothing(monkeypatch):
    for module in (hopper, hopper_backward, segments):
        monkeypatch.setattr(module, "Launch", Recorded)
    for module in (hopper, hopper_backward):
        monkeypatch.setattr(module, "supports", lambda *_: True)
        module._planned.cache_clear()
    monkeypatch.setattr(hopper_backward, "num_multiprocessors", lambda _: 132)
    LAUNCHED.clear()
    yield
    for module in (hopper, hopper_backward):
        module._planned.cache_clear()


def make_inputs(dims=(2, 3, 64, 128), seq_len=1500):
    """q, k, v as parts of one projection, and beta."""
    b, h, d, e = dims
    packed = torch.zeros(b, seq_len, h * (2 * d + e), dtype=torch.bfloat16)
    parts = packed.split([h * d, h * d, h * e], -1)
    q, k, v = (x.unflatten(-1, (h, -1)).transpose(1, 2) for x in parts)
    return q, k, v, torch.zeros(b, seq_len, h, dtype=torch.bfloat16).transpose(1, 2)


def run(*inputs, initial=None, last=None, segment_chunks=None):
    options = {"scale": 0.5, "qk_l2norm": True, "segment_chunks": segment_chunks}
    kept = forward.forward(*inputs, initial, **options)
    backward.backward(kept.o, last, *inputs, initial, *kept[2:], **options)
    launched = list(LAUNCHED)
    LAUNCHED.clear()
    return launched


NAMES = [
    "hopper_matrices_kernel",
    "recurrence_kernel",
    "chain_kernel",
    "recurrence_kernel",
    "rebuild_hopper_kernel",
    "scan_hopper_kernel",
    "chain_kernel",
    "scan_hopper_kernel",
    "token_hopper_kernel",
]


@pytest.mark.parametrize(
    "dims", [(2, 3, 64, 64), (1, 2, 128, 64), (2, 3, 72, 128), (1, 2, 128, 96)]
)
def test_every_kernel_is_given_what_it_takes(dims):
    launched = run(*make_inputs(dims), segment_chunks=5)
    assert [name for name, _, _ in launched] == NAMES


def test_programs_cover_heads_segments_and_rows_of_the_state():
    grids = [grid for _, grid, _ in run(*make_inputs(), segment_chunks=5)]
    # 6 heads of 24 chunks in 5 segments; 128 rows of the state, and 64 of the map
    assert grids == [36, 6 * 4 * 3, 6 * 8, 6 * 5, 6 * 5, 6 * 4, 6 * 8, 6 * 5, 132]


def test_one_segment_needs_no_maps_and_no_chain():
    launched = run(*make_inputs(seq_len=300))
    assert [name for name, _, _ in launched] == [NAMES[i] for i in (0, 3, 4, 7, 8)]


def test_two_segments_need_no_chain():
    launched = run(*make_inputs(), segment_chunks=12)
    assert [name for name, _, _ in launched] == [NAMES[i] for i in (0, 1, 3, 4, 5, 7, 8)]


def test_the_chain_backwards_takes_the_maps_of_the_forward():
    chains = [given for name, _, given in run(*make_inputs(), segment_chunks=5) if "chain" in name]
    for given, rows in zip(chains, (128 + 64, 128), strict=True):
        assert (given["num_links"], given["values_stride"]) == (4, rows * 64)
        assert given["maps_stride"] == (128 + 64) * 64
        assert given["maps_ptr"].storage_offset() == 128 * 64
    assert [given["BACKWARDS"] for given in chains] == [False, True]


def test_a_call_like_one_before_is_not_planned_again():
    inputs = make_inputs()
    run(*inputs)
    run(*(x.clone() for x in make_inputs()))
    assert hopper._planned.cache_info().currsize == 2
    run(*inputs)
    for module in (hopper, hopper_backward):
        assert module._planned.cache_info().currsize == 2


@pytest.mark.parametrize(
    "which", ["strides", "state", "last state", "beta's place", "beta's dtype"]
)
def test_what_kernels_are_compiled_for_has_a_plan_of_its_own(which):
    q, k, v, beta = make_inputs()
    run(q, k, v, beta)
    state = torch.zeros(2, 3, 64, 128)
    if which == "strides":
        run(q.contiguous(), k, v, beta)
    elif which == "state":
        run(q, k, v, beta, initial=state)
    elif which == "last state":
        run(q, k, v, beta, last=state)
    elif which == "beta's place":
        shifted = torch.zeros(beta.numel() + 1, dtype=beta.dtype)[1:].view(2, 1500, 3)
        run(q, k, v, shifted.transpose(1, 2))
    else:
        run(q, k, v, beta.float())
    planned = [x._planned.cache_info().currsize for x in (hopper, hopper_backward)]
    assert planned == {"last state": [1, 2], "beta's place": [2, 1]}.get(which, [2, 2])


@pytest.mark.parametrize(
    ("dtype", "precision"), [(torch.bfloat16, "tf32"), (torch.float16, "tf32x3")]
)
def test_the_chain_is_no_coarser_than_the_tensors(dtype, precision):
    q, k, v, beta = make_inputs()
    cut = segments.cut_of(q, v, 5)
    strides = tuple(x.stride() for x in (q, k, v, beta))
    planned = hopper.Forward(cut, dtype, strides, qk_l2norm=True)
    assert planned._chain._launch.constants["PRECISION"] == precision
