"""Adam for given gradients, against torch's optimizer."""

import io

import pytest
import torch

from plastic_eglp.adam import Adam


def parameters(dtype):
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in [(10, 16), (10,)]]


def gradients(seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(dtype) for shape in [(10, 16), (10,)]]


def torchs_step(optimizer, found):
    for parameter, gradient in zip(optimizer.param_groups[0]["params"], found, strict=True):
        parameter.grad = gradient
    optimizer.step()


def stored(optimizer):
    """As a checkpoint takes it."""
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_step_is_that_of_torch_to_the_bit(dtype):
    ours, theirs = parameters(dtype), parameters(dtype)
    fast, plain = Adam(ours, lr=0.1), torch.optim.Adam(theirs, lr=0.1, fused=True)
    for number in range(10):
        if number == 6:
            fast.lr = plain.param_groups[0]["lr"] = 0.01
        found = gradients(number, dtype)
        fast.step(found)
        torchs_step(plain, found)
        assert all(torch.equal(mine, other) for mine, other in zip(ours, theirs, strict=True))
    expected = plain.state_dict()["state"]
    assert fast.state_dict()["state"].keys() == expected.keys()
    for number, state in fast.state_dict()["state"].items():
        assert state.keys() == expected[number].keys()
        assert all(torch.equal(value, expected[number][name]) for name, value in state.items())


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("from_torch", [True, False])
def test_a_checkpoint_continues_also_one_of_torchs_optimizer(steps, from_torch):
    dtype = torch.float32
    first, whole = parameters(dtype), parameters(dtype)
    begun = torch.optim.Adam(first, lr=0.1, fused=True) if from_torch else Adam(first, lr=0.1)
    reference = Adam(whole, lr=0.1)
    for number in range(steps):
        torchs_step(begun, gradients(number, dtype)) if from_torch else begun.step(gradients(number, dtype))
        reference.step(gradients(number, dtype))
    state = stored(begun)
    continued = Adam(first, lr=7.0)
    continued.load_state_dict(state)
    assert continued.lr == 0.1
    before = {name: value.clone() for name, value in state["state"].get(0, {}).items()}
    for number in range(3):
        continued.step(gradients(9 + number, dtype))
        reference.step(gradients(9 + number, dtype))
    assert all(torch.equal(mine, other) for mine, other in zip(first, whole, strict=True))
    # The loaded state is a copy.
    assert all(torch.equal(state["state"][0][name], value) for name, value in before.items())
