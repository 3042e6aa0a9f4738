"""Settings of every test."""

import os
import sys

import torch
from hypothesis import settings

# how long an example takes depends on what else the machine does
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Without a GPU our Triton kernels run in Triton's interpreter, which is chosen when Triton loads.
if not torch.cuda.is_available():
    assert "triton" not in sys.modules, "triton was loaded before its tests"
    os.environ["TRITON_INTERPRET"] = "1"
