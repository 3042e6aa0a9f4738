"""A slow and a quick part of a module; the slow one works by torch or by a Triton kernel."""

import torch
import triton
import triton.language as tl
from torch import nn

SIZE = 2560


@triton.jit
def _spin_kernel(x_ptr, steps, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs)
    for _ in range(steps):
        x = x * 0.999 + 0.001
    tl.store(x_ptr + offs, x)


def spin(weight):
    """A slow kernel that no operator of torch encloses."""
    out = weight.detach().clone()
    _spin_kernel[(out.numel() // 1024,)](out, 2000, BLOCK=1024)
    return out


class Spin(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight):
        return spin(weight)

    @staticmethod
    def backward(ctx, gradient):
        return spin(gradient)


def product(weight):
    return weight @ weight @ weight


class Slow(nn.Module):
    component = "recurrence"

    def __init__(self, work, device=None):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(SIZE, SIZE, device=device) / SIZE)
        self.work = work

    def forward(self, x):
        return x + self.work(self.weight)[0, 0]


class Quick(nn.Module):
    component = "mlp"

    def forward(self, x):
        return x * 0.5
