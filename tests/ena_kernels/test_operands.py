"""What operators do before their kernels run: the device and the context that these need."""

import threading
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from ena_kernels.operands import bind_context, on_its_device


@pytest.mark.parametrize(
    ("device", "expected"),
    [("cuda:1", ["cuda:1", "ran", "cuda:0"]), ("cuda:0", ["ran"]), ("cpu", ["ran"])],
)
def test_kernels_run_on_the_device_of_the_first_tensor(monkeypatch, device, expected):
    found = []

    @contextmanager
    def current(device):
        found.append(str(device))
        yield
        found.append("cuda:0")

    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "device", current)
    device = torch.device(device)
    x = SimpleNamespace(device=device, is_cuda=device.type == "cuda")
    run = on_its_device(lambda x, y, z: found.append("ran") or (x, y, z))
    assert run(x, 2, None) == (x, 2, None)
    assert found == expected


def test_every_thread_gets_a_cuda_context_once():
    made = []
    x = SimpleNamespace(new_zeros=made.append)

    def bind_twice():
        bind_context(x)
        bind_context(x)

    for _ in range(2):
        thread = threading.Thread(target=bind_twice)
        thread.start()
        thread.join()
    assert made == [1, 1]
