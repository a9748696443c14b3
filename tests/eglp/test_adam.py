"""Adam's step along given gradients, against torch's optimizer."""

import copy

import pytest
import torch

from plastic_eglp.adam import adam_step


def readout(dtype):
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in [(10, 16), (10,)]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", [{}, {"betas": (0.5, 0.99), "eps": 1e-3, "weight_decay": 0.1, "maximize": True}])
def test_every_step_is_that_of_torch(dtype, options):
    ours, theirs = readout(dtype), readout(dtype)
    fast = torch.optim.Adam(ours, lr=0.1, fused=True, **options)
    plain = torch.optim.Adam(theirs, lr=0.1, fused=True, **options)
    generator = torch.Generator().manual_seed(1)
    for number in range(12):
        gradients = [torch.randn(parameter.shape, generator=generator).to(dtype) for parameter in ours]
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = gradient
        plain.step()
        adam_step(fast, gradients)
        if number == 5:
            # As after a checkpoint, and with another learning rate.
            fast.load_state_dict(copy.deepcopy(fast.state_dict()))
            fast.param_groups[0]["lr"] = plain.param_groups[0]["lr"] = 0.01
        assert all(torch.equal(mine, other) for mine, other in zip(ours, theirs, strict=True))
    for mine, other in zip(ours, theirs, strict=True):
        assert fast.state[mine].keys() == plain.state[other].keys()
        assert all(torch.equal(fast.state[mine][name], value) for name, value in plain.state[other].items())
