"""Operators, layers and models of ENA: DeltaNet recurrences and Sliding Tile Attention.

Names load on first use, so `ena_kernels.canvas` works where torch is not installed.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ena_kernels.attention.api import attention
    from ena_kernels.delta_rule.api import delta_rule, delta_rule_step
    from ena_kernels.errors import ShapeError, UnsupportedError
    from ena_kernels.scans.api import scan_merge, scan_split
    from ena_kernels.sliding_tile.api import sliding_tile

_HOMES = {
    "ShapeError": "errors",
    "UnsupportedError": "errors",
    "attention": "attention.api",
    "delta_rule": "delta_rule.api",
    "delta_rule_step": "delta_rule.api",
    "scan_merge": "scans.api",
    "scan_split": "scans.api",
    "sliding_tile": "sliding_tile.api",
}

__all__ = [
    "ShapeError",
    "UnsupportedError",
    "attention",
    "delta_rule",
    "delta_rule_step",
    "scan_merge",
    "scan_split",
    "sliding_tile",
]


class _Package(ModuleType):
    """Keeps a function's name its own where importing a subpackage of that name would take it."""

    def __setattr__(self, name, value):
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__():
    return __all__
