"""What tests of full and of Sliding Tile Attention share: an oracle, limits, and what ran."""

import torch
from torch.profiler import ProfilerActivity, profile

from ena_kernels import sliding_tile

# relative error in the 2-norm: of the output, of each gradient
LIMITS = {
    torch.bfloat16: (5e-3, 1e-2),
    torch.float16: (5e-3, 1e-2),
    torch.float32: (1e-5, 1e-5),
}


def wave(out):
    """A gradient for an output, in the output's dtype."""
    angles = torch.linspace(-1, 2, out.numel(), device="cuda").view_as(out).mul(7)
    return angles.sin().to(out.dtype)


def output_and_grads(function, tensors):
    out = function(*tensors)
    return [out, *torch.autograd.grad(out, tensors, wave(out))]


def assert_agrees_with_float64(attend, impl, tensors, dtype, **shapes):
    """`attend` by an impl in this dtype against its reference, in value and gradients."""
    wide = [x.detach().double().requires_grad_() for x in tensors]
    expected = output_and_grads(lambda q, k, v: attend(q, k, v, impl="reference", **shapes), wide)
    actual = output_and_grads(lambda q, k, v: attend(q, k, v, impl=impl, **shapes), tensors)
    assert actual[0].dtype == dtype
    forward_limit, gradient_limit = LIMITS[dtype]
    for i, (got, want) in enumerate(zip(actual, expected, strict=True)):
        error = ((got.double() - want).norm() / want.norm()).item()
        assert error <= (gradient_limit if i else forward_limit), f"tensor {i}: {error:.1e}"


def results(tensors, impl, *, has_grad_lse=True, **options):
    """Of Sliding Tile Attention: output, log-sum-exp, gradients of q, k, v."""
    outs = sliding_tile(*tensors, impl=impl, return_lse=True, **options)
    used = outs if has_grad_lse else outs[:1]
    return [*outs, *torch.autograd.grad(used, tensors, [wave(x) for x in used])]


def kernels_of(call):
    """Names, in lower case, of the kernels that a second call runs."""
    call()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiler:
        call()
        torch.cuda.synchronize()
    on_device = torch.autograd.DeviceType.CUDA
    return {event.name.lower() for event in profiler.events() if event.device_type == on_device}
