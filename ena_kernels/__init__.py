"""Operators, layers and models of ENA: DeltaNet recurrences and Sliding Tile Attention.

Names load on first use, so `ena_kernels.canvas` works where torch is not installed.
"""

import sys
from importlib import import_module
from types import ModuleType

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

__all__ = sorted(_HOMES)


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
