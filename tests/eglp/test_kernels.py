"""The compiled kernels against the same learning in whole tensors of double precision."""

import pytest
import torch
from torch.nn import functional

from plastic_eglp import AlwaysOnController, EGLPLearner, EGLPNetwork, FixedRateController, LocalLinear, kernels
from plastic_eglp import layers as layers_module
from plastic_eglp import learner as learner_module


def learner(dtype, controller, batch_size):
    network = EGLPNetwork((1, 4, 5), (7, 6), 5, lr=0.3, generator=torch.Generator().manual_seed(3)).to(dtype)
    return EGLPLearner(network, controller(), batch_size=batch_size, readout_lr=0.01)


def batches(number, size, dtype):
    generator = torch.Generator().manual_seed(4)
    for _ in range(number):
        x = torch.randn(size, 20, generator=generator)
        yield x.to(dtype), torch.randint(5, (size,), generator=generator)


@pytest.mark.parametrize("size", [1, 2, 13])
@pytest.mark.parametrize("controller", [AlwaysOnController, lambda: FixedRateController(0.5)])
def test_float32_learns_compiled_what_float64_learns_in_tensors(controller, size, monkeypatch):
    calls = {"readout": 0, "hidden": 0}

    def counting(function, name):
        def call(*arguments):
            calls[name] += 1
            return function(*arguments)

        return call

    monkeypatch.setattr(learner_module, "adam_step", counting(kernels.adam_step, "readout"))
    monkeypatch.setattr(layers_module, "direct_tanh", counting(kernels.direct_tanh, "hidden"))
    plain, fast = learner(torch.float64, controller, size), learner(torch.float32, controller, size)
    before = fast.network.state_dict()["readout.weight"].clone()
    for (x, y), (x32, _) in zip(batches(40, size, torch.float64), batches(40, size, torch.float32), strict=True):
        expected = plain.train_batch(x, y)
        assert calls["readout"] == len(plain.had_event) - 1
        torch.testing.assert_close(fast.train_batch(x32, y).double(), expected, rtol=2e-4, atol=1e-5)
    assert fast.events == plain.events > 0
    assert calls == {"readout": 40, "hidden": 2 * fast.events}
    for name, expected in plain.network.state_dict().items():
        torch.testing.assert_close(fast.network.state_dict()[name].double(), expected, rtol=1e-3, atol=2e-5)
    assert not torch.equal(before, fast.network.state_dict()["readout.weight"])
    found, expected = fast.state_dict()["optimizer"]["state"], plain.state_dict()["optimizer"]["state"]
    for number, entries in expected.items():
        for name, value in entries.items():
            torch.testing.assert_close(found[number][name].double(), value.double(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("event", [1.0, 0.0, 2.5, torch.tensor(0.5), torch.linspace(0, 2, 9)])
def test_one_layer_under_direct_feedback(event, bias):
    generator = torch.Generator().manual_seed(0)
    layer = LocalLinear(6, 4, lr=0.2, bias=bias, activation="tanh", generator=generator)
    x, error, B = (torch.randn(shape, generator=generator) for shape in [(9, 6), (9, 3), (4, 3)])
    W, b = layer.weight.double().clone(), layer.bias.double().clone() if bias else torch.zeros(4).double()
    y = layer(x)
    layer.direct_update(event, error, B)
    of_each = torch.as_tensor(event, dtype=torch.float64).expand(9)
    for s in range(9):
        factor = -of_each[s] * (B.double() @ error[s].double()) * (1 - y[s].double() ** 2)
        W += 0.2 * torch.outer(factor, x[s].double()) / 9
        b += 0.2 * factor / 9
    torch.testing.assert_close(layer.weight.double(), W, rtol=1e-5, atol=1e-6)
    if bias:
        torch.testing.assert_close(layer.bias.double(), b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("error", "feedback", "event"), [((8, 3), (4, 3), 1.0), ((9, 3), (5, 3), 1.0), ((9, 3), (4, 3), torch.ones(8))]
)
def test_arrays_that_do_not_fit_are_refused(error, feedback, event):
    layer = LocalLinear(6, 4, activation="tanh")
    layer(torch.randn(9, 6))
    with pytest.raises(ValueError, match="shape"):
        layer.direct_update(event, torch.zeros(error), torch.zeros(feedback))


def test_adam_takes_torchs_step():
    generator = torch.Generator().manual_seed(0)
    readout = torch.nn.Linear(5, 3).requires_grad_(True)
    twin = torch.nn.Linear(5, 3)
    twin.load_state_dict(readout.state_dict())
    fast = torch.optim.Adam(readout.parameters(), lr=0.05, fused=True)
    plain = torch.optim.Adam(twin.parameters(), lr=0.05)
    for _ in range(20):
        h, y = torch.randn(8, 5, generator=generator), torch.randint(3, (8,), generator=generator)
        with torch.no_grad():
            losses, error = kernels.adam_step(fast, h, readout(h), y)
        logits = twin(h)
        expected = functional.cross_entropy(logits, y, reduction="none")
        plain.zero_grad()
        expected.mean().backward()
        plain.step()
        torch.testing.assert_close(losses, expected.detach())
        one_hot = functional.one_hot(y, 3)
        torch.testing.assert_close(error, (torch.softmax(logits, 1) - one_hot).detach(), atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(readout.weight, twin.weight)
        torch.testing.assert_close(readout.bias, twin.bias)


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.9999)])
def test_adams_means_take_one_minus_beta_of_the_gradient_to_single_precision(betas):
    """1 - float32(.999) would be 4.7e-5 off."""
    generator = torch.Generator().manual_seed(0)
    readout = torch.nn.Linear(5, 3)
    optimizer = torch.optim.Adam(readout.parameters(), lr=0.05, betas=betas, fused=True)
    h, y = torch.randn(8, 5, generator=generator), torch.randint(3, (8,), generator=generator)
    logits = readout(h).detach()
    with torch.no_grad():
        kernels.adam_step(optimizer, h, logits, y)
    error = torch.softmax(logits.double(), 1) - functional.one_hot(y, 3)
    gradients = (error.T @ h.double() / 8, error.mean(0))
    for parameter, gradient in zip(readout.parameters(), gradients, strict=True):
        state = optimizer.state[parameter]
        torch.testing.assert_close(state["exp_avg"].double(), (1 - betas[0]) * gradient, rtol=2e-6, atol=1e-9)
        torch.testing.assert_close(
            state["exp_avg_sq"].double(), (1 - betas[1]) * gradient.square(), rtol=4e-6, atol=1e-12
        )
