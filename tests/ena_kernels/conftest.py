"""Triton kernels run interpreted where CUDA is not available, and compiled where it is."""

import os
import sys

import torch

if not torch.cuda.is_available():
    # each kernel becomes a compiled or an interpreted one where it is defined, so the choice has to
    # stand before anything loads triton; tests/ena_kernels/sm90.py compiles in a process of its own
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    assert interpreted or "triton" not in sys.modules, "triton was loaded before its tests"
    os.environ["TRITON_INTERPRET"] = "1"
