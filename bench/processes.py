"""Processes that take a share of some work: plain interpreters that get it through a pipe.

They do not import the main module, as those of `multiprocessing` do: whoever calls from a script
without a main guard would find the script run again.
"""

import os
import pickle
import subprocess
import sys

_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""There are as many processes as processors."""


def num_processors() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def start(program: str, share: object, *, is_heard: bool = False) -> "subprocess.Popen[bytes]":
    """Run a program that reads its share from `sys.stdin.buffer` by `pickle`.

    Args:
        program: Python code; it finds the modules that this process finds.
        is_heard: Whether `stdout` is a pipe to read from; else nobody hears it.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE if is_heard else subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | _ONE_THREAD | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert process.stdin is not None
    try:
        with process.stdin as pipe:
            pickle.dump(share, pipe)
    except BrokenPipeError:
        # it ended before it read its share, which its exit code says
        process.wait()
    return process
