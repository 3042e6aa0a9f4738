"""Settings of every test."""

import os
import signal
import sys

import torch
from hypothesis import settings

# how long an example takes depends on what else the machine does
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# a shell starts background jobs deaf to Ctrl-C, and what a test starts would inherit it
signal.signal(signal.SIGINT, signal.default_int_handler)

# Without a GPU our Triton kernels run in Triton's interpreter, which is chosen when Triton loads.
if not torch.cuda.is_available():
    assert "triton" not in sys.modules, "triton was loaded before its tests"
    os.environ["TRITON_INTERPRET"] = "1"
