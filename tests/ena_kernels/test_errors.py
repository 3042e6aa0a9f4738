"""What every operator answers alike."""

import pytest
import torch

from ena_kernels import (
    UnsupportedError,
    attention,
    delta_rule,
    delta_rule_step,
    scan_merge,
    scan_split,
    sliding_tile,
)
from ena_kernels.attention import api as attention_api
from ena_kernels.delta_rule import api as delta_rule_api
from ena_kernels.norms import IMPLS as NORMS
from ena_kernels.norms import head_norm, layer_norm
from ena_kernels.scans import api as scans_api
from ena_kernels.short_conv import IMPLS as CONVOLUTIONS
from ena_kernels.short_conv import short_conv
from ena_kernels.sliding_tile import api as sliding_tile_api

B, H, L, D = 2, 3, 15, 4
QKV = [torch.ones(B, H, L, D)] * 3
TOKEN = [torch.ones(B, H, D)] * 3
CHANNELS = torch.ones(B, L, 3 * D)
CANVAS = {"canvas": (3, 5)}
TILED = CANVAS | {"tile": (3, 5), "window": (3, 5)}
SCANS = "scan_split and scan_merge"


@pytest.mark.parametrize(
    ("operator", "known", "call"),
    [
        ("attention", attention_api.IMPLS, lambda impl: attention(*QKV, impl=impl)),
        (
            "sliding_tile",
            sliding_tile_api.IMPLS,
            lambda impl: sliding_tile(*QKV, impl=impl, **TILED),
        ),
        ("sliding_tile", sliding_tile_api.IMPLS, sliding_tile_api.orders_of),
        (
            "delta_rule",
            delta_rule_api.IMPLS,
            lambda impl: delta_rule(*QKV, torch.ones(B, H, L), impl=impl),
        ),
        (
            "delta_rule",
            delta_rule_api.IMPLS,
            lambda impl: delta_rule_step(
                *TOKEN, torch.ones(B, H), torch.ones(B, H, D, D), impl=impl
            ),
        ),
        (
            SCANS,
            scans_api.IMPLS,
            lambda impl: scan_split(CHANNELS, scan="flip", impl=impl, **CANVAS),
        ),
        (
            SCANS,
            scans_api.IMPLS,
            lambda impl: scan_merge(CHANNELS, scan="flip", impl=impl, **CANVAS),
        ),
        (
            "layer_norm",
            NORMS,
            lambda impl: layer_norm(CHANNELS, *[torch.ones(3 * D)] * 2, eps=1e-5, impl=impl),
        ),
        ("head_norm", NORMS, lambda impl: head_norm(QKV[0], torch.ones(D), eps=1e-5, impl=impl)),
        (
            "short_conv",
            CONVOLUTIONS,
            lambda impl: short_conv(CHANNELS, torch.ones(3 * D, 1, 4), impl=impl),
        ),
    ],
)
def test_an_unknown_impl_is_answered_alike_by_every_operator(operator, known, call):
    with pytest.raises(UnsupportedError) as caught:
        call("tritno")
    assert str(caught.value).split("\n") == [
        f"impl 'tritno' is unknown to {operator}",
        f"Expected: one of {', '.join(known)}",
        "Try: impl='eager'",
    ]
    call("eager")
