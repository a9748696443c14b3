"""Learning in single precision against learning in double precision, and one layer against its equation."""

import pytest
import torch

from plastic_eglp import AlwaysOnController, EGLPLearner, EGLPNetwork, FixedRateController, LocalLinear, rule


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
def test_float32_learns_what_float64_learns(controller, size):
    plain, fast = learner(torch.float64, controller, size), learner(torch.float32, controller, size)
    before = fast.network.state_dict()["readout.weight"].clone()
    for (x, y), (x32, _) in zip(batches(40, size, torch.float64), batches(40, size, torch.float32), strict=True):
        expected = plain.train_batch(x, y)
        torch.testing.assert_close(fast.train_batch(x32, y).double(), expected, rtol=2e-4, atol=1e-5)
    assert fast.events == plain.events > 0
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
    layer.local_update(event, rule.direct_feedback(error, B))
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
def test_arrays_of_wrong_shape_are_refused(error, feedback, event):
    layer = LocalLinear(6, 4, activation="tanh")
    layer(torch.randn(9, 6))
    with pytest.raises(ValueError, match="shape"):
        layer.local_update(event, rule.direct_feedback(torch.zeros(error), torch.zeros(feedback)))
