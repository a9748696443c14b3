"""Events at random with a probability that rises with a signal: their probabilities, rate, and expected change."""

import io
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plastic_cli import UserError
from plastic_eglp import (
    AlwaysOnController,
    EGLPLearner,
    EGLPNetwork,
    LocalPlasticity,
    SampledController,
    ThresholdController,
    rule,
)
from plastic_eglp.cost import cost_of_stimulus
from plastic_eglp.signals import uncertainty

rates = st.sampled_from([0.01, 0.05, 0.1, 0.33, 0.5, 0.9, 0.999])
uniforms = st.sampled_from([0.0, 0.1, 0.5, 1.0])


def errors(n, seed=0):
    """Most of them small, some near 1, as the errors of a trained network."""
    return torch.from_numpy(np.random.default_rng(seed).beta(0.2, 1.0, n))


def probabilities_by_bisection(signals, recent, rate, uniform):
    """The largest factor c for which the mean probability over `recent` is at most `rate`, in float64."""
    mean = float(np.mean(recent))
    mixed = [(1 - uniform) * value + uniform * mean for value in recent]
    low, high = 0.0, 1e200
    for _ in range(300):
        middle = math.sqrt(low * high) if low > 0 else high * 1e-24
        if np.mean([min(1.0, middle * value) for value in mixed]) <= rate:
            low = middle
        else:
            high = middle
    return [min(1.0, low * ((1 - uniform) * value + uniform * mean)) for value in signals]


# -------------------------------------------------------------------------------------------- probabilities


@settings(max_examples=40, deadline=None)
@given(rates, uniforms, st.integers(1, 60), st.integers(0, 1000))
def test_probabilities_equal_a_search_for_their_factor(rate, uniform, n, seed):
    recent = errors(n, seed)
    signals = torch.cat([recent[: n // 2], errors(5, seed + 1)])
    found = rule.event_probabilities(signals, recent, rate, uniform)
    expected = probabilities_by_bisection(signals.tolist(), recent.tolist(), rate, uniform)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(rates, uniforms, st.integers(1, 200), st.integers(0, 1000), st.integers(-10, 10))
def test_the_mean_probability_is_the_rate_in_any_unit_of_the_signal(rate, uniform, n, seed, power):
    signals = errors(n, seed) + 1e-6
    found = rule.event_probabilities(signals, signals, rate, uniform)
    assert float(found.mean()) == pytest.approx(rate, rel=1e-9)
    assert bool(((found >= 0) & (found <= 1)).all())
    # A higher signal never has a lower probability.
    assert bool((found[signals.argsort()].diff() >= -1e-12).all())
    scaled = rule.event_probabilities(signals * 2.0**power, signals * 2.0**power, rate, uniform)
    torch.testing.assert_close(scaled, found, rtol=1e-12, atol=0)


def test_the_limits_of_the_probabilities():
    signals = errors(40)
    for uniform in (0.0, 0.3):
        assert torch.equal(rule.event_probabilities(signals, signals, 1.0, uniform), torch.ones(40).double())
        assert torch.equal(rule.event_probabilities(signals, signals, 0.0, uniform), torch.zeros(40).double())
    torch.testing.assert_close(rule.event_probabilities(signals, signals, 0.2, 1.0), torch.full((40,), 0.2).double())
    zeros = torch.zeros(7)
    assert torch.equal(rule.event_probabilities(zeros, zeros, 0.25, 0.1), torch.full((7,), 0.25))
    # A tenth of the signals has all of the error: at rate .2 they are certain, and with uniform 0 nothing else can be.
    few = torch.tensor([1.0, 2.0] + [0.0] * 18)
    assert rule.event_probabilities(few, few, 0.2, 0.0).tolist() == [1.0] * 2 + [0.0] * 18
    assert float(rule.event_probabilities(few, few, 0.2, 0.1).mean()) == pytest.approx(0.2)
    assert rule.event_probabilities(few, few, 0.05, 0.0)[:3].tolist() == pytest.approx([1 / 3, 2 / 3, 0])


# ---------------------------------------------------------------------------------------------- strengths


@settings(max_examples=30, deadline=None)
@given(rates, uniforms.filter(lambda uniform: uniform > 0), st.integers(0, 100))
def test_the_expected_strength_is_the_rate_for_every_stimulus(rate, uniform, seed):
    p = rule.event_probabilities(errors(50, seed), errors(50, seed), rate, uniform)
    torch.testing.assert_close(p * rule.importance(p, rate), torch.full((50,), rate).double())
    # The share that is the same for all bounds the strength.
    assert float(rule.importance(p, rate).max()) <= 1 / uniform + 1e-9


def test_strengths_over_many_draws():
    """Frequencies are the probabilities, and each draw has the strength that its probability gives."""
    signals, draws = errors(24), 4000
    for strength in ("binary", "importance", "normalized"):
        controller = SampledController(0.3, uniform=0.2, strength=strength, window=24)
        found = torch.stack([controller.gate(signals) for _ in range(draws)])
        p = torch.tensor(probabilities_by_bisection(signals.tolist(), signals.tolist(), 0.3, 0.2))
        spread = (p * (1 - p) / draws).sqrt() + 1e-12
        assert bool(((((found > 0).double().mean(0)) - p).abs() < 5 * spread).all())
        value = {"binary": torch.ones(24), "importance": 0.3 / p, "normalized": 0.3 / p / signals.mean()}[strength]
        expected = torch.where(found > 0, value.double(), torch.zeros(24).double())
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_normalized_events_have_the_same_size():
    """Where no probability is at its limits, strength times signal is 1, in any unit of the signal."""
    for unit in (1.0, 1e-3, 50.0):
        signals = unit * (errors(500) * 0.1 + 0.05)
        strengths = SampledController(0.3, uniform=0.0, strength="normalized", window=500).gate(signals)
        happened = strengths > 0
        assert 0 < int(happened.sum()) < 500
        np.testing.assert_allclose((strengths * signals)[happened], 1.0, rtol=1e-9)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5])
def test_the_rate_is_kept_while_the_signal_falls(rate):
    batches, size = 300, 64
    level = np.exp(-np.arange(batches) / 100)[:, None]
    signals = torch.from_numpy(level) * errors(batches * size).view(batches, size)
    controller = SampledController(rate, window=8 * size)
    shares = torch.stack([(controller.gate(row) > 0).double().mean() for row in signals])
    n = batches * size
    assert float(shares.mean()) == pytest.approx(rate, abs=5 * math.sqrt(rate * (1 - rate) / n) + 0.12 * rate)


def test_the_ends_of_the_rate_and_signals_without_information():
    signals = errors(30)
    assert torch.equal(SampledController(1.0, strength="importance").gate(signals), torch.ones(30).double())
    assert torch.equal(SampledController(0.0).gate(signals), torch.zeros(30).double())
    # Without any error there is nothing to learn.
    assert torch.equal(SampledController(0.5).gate(torch.zeros(30)), torch.zeros(30))
    random = SampledController(0.4, uniform=1.0, strength="importance", generator=torch.Generator().manual_seed(3))
    other = SampledController(0.4, uniform=1.0, strength="importance", generator=torch.Generator().manual_seed(3))
    found = random.gate(signals)
    torch.testing.assert_close(found[found > 0], torch.ones(int((found > 0).sum())).double())
    assert torch.equal(found > 0, other.gate(errors(30, 8)) > 0)


def test_a_signal_that_is_not_finite_has_no_event_and_is_forgotten():
    controller = SampledController(1.0, strength="importance", window=4)
    assert controller.gate(torch.tensor([1.0, math.nan, math.inf, 2.0])).tolist() == [1, 0, 0, 1]
    assert bool(torch.isfinite(controller.gate(torch.ones(4))).all())


def test_bad_values_are_named():
    for options, name in (
        ({"rate": 1.5}, "rate"),
        ({"uniform": -0.1}, "uniform"),
        ({"uniform": math.nan}, "uniform"),
        ({"window": 0}, "window"),
        ({"strength": "surprise"}, "strength"),
        ({"budget": -1}, "budget"),
    ):
        with pytest.raises(ValueError, match=f"^{name} is"):
            SampledController(**options)
    with pytest.raises(ValueError, match="negative"):
        SampledController().gate(torch.tensor([0.5, -0.1]))
    with pytest.raises(ValueError, match=r"^signal is 'margin'"):
        EGLPLearner(network(), SampledController(), batch_size=8, signal="margin")
    with pytest.raises(ValueError, match=r"^signal is 'margin'"):
        EGLPLearner(network(), ThresholdController(strength="normalized"), batch_size=8, signal="margin")


@pytest.mark.parametrize("middle", [0, 1, 20])
def test_a_restored_controller_makes_the_same_decisions(middle):
    signals = errors(40 * 16).view(40, 16)
    make = lambda: SampledController(0.3, window=50, generator=torch.Generator().manual_seed(4))  # noqa: E731
    whole, before, after = make(), make(), make()
    expected = [whole.gate(row) for row in signals]
    for row in signals[:middle]:
        before.gate(row)
    file = io.BytesIO()
    torch.save(before.state_dict(), file)
    file.seek(0)
    after.gate(errors(16, 9))
    after.load_state_dict(torch.load(file, weights_only=True))
    assert all(
        torch.equal(after.gate(row), want) for row, want in zip(signals[middle:], expected[middle:], strict=True)
    )


# ----------------------------------------------------------------------------------------------- learning


class Drawn(SampledController):
    """Draws given events, with the strengths of importance; shows the probabilities."""

    happens, probabilities = None, None

    def gate(self, signals):
        self.probabilities = rule.event_probabilities(signals, signals, self.rate, self.uniform)
        strengths = rule.importance(self.probabilities, self.rate)
        return strengths if self.happens is None else strengths * torch.tensor(self.happens).to(strengths)


def network(seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    return EGLPNetwork((1, 3, 3), (6, 5), 3, activation="tanh", lr=0.05, generator=generator, **options).double()


def batch(n=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 9, generator=generator).double(), torch.randint(3, (n,), generator=generator)


def change(controller, *, feedback="direct", readout="supervised"):
    net = network(readout=readout)
    before = torch.cat([value.flatten().clone() for value in net.state_dict().values()])
    one = EGLPLearner(net, controller, batch_size=4, feedback=feedback, signal="error", readout_lr=1e-300)
    one.train_batch(*batch())
    return torch.cat([value.flatten() for value in net.state_dict().values()]) - before


@pytest.mark.parametrize("options", [{}, {"feedback": "none"}, {"readout": "local"}], ids=str)
def test_the_expected_change_is_the_rate_times_an_event_for_all(options):
    """Over all possible events of a batch, each with its probability: exact, in all layers."""
    rate = 0.35
    shown = Drawn(rate, uniform=0.2)
    change(shown, **options)
    expected, total = 0.0, 0.0
    for happens in itertools.product([0.0, 1.0], repeat=4):
        controller = Drawn(rate, uniform=0.2)
        controller.happens = happens
        p = math.prod(p if h else 1 - p for p, h in zip(shown.probabilities.tolist(), happens, strict=True))
        expected, total = expected + p * change(controller, **options), total + p
    assert total == pytest.approx(1)
    whole = change(AlwaysOnController(), **options)
    assert float(whole.abs().max()) > 1e-3
    torch.testing.assert_close(expected, rate * whole, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_at_rate_one_importance_is_an_event_at_every_batch(model):
    for feedback in ("direct", "none"):
        nets = []
        for controller in (AlwaysOnController(), SampledController(1.0, strength="importance")):
            net = EGLPNetwork((1, 4, 4), (4,), 3, model=model, generator=torch.Generator().manual_seed(0)).double()
            one = EGLPLearner(net, controller, batch_size=8, feedback=feedback, signal="error")
            for seed in range(3):
                x = torch.randn(8, 16, generator=torch.Generator().manual_seed(seed)).double()
                one.train_batch(x, torch.arange(8) % 3)
            nets.append(net)
        torch.testing.assert_close(nets[0].state_dict(), nets[1].state_dict(), rtol=1e-10, atol=1e-13)
        assert one.events == 3
        assert one.event_stimuli == 24


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 12))
def test_the_budget_is_exact(quarters):
    budget = quarters / 4
    one = EGLPLearner(network(), SampledController(0.8, budget=budget), batch_size=4, signal="error")
    for seed in range(12):
        one.train_batch(*batch(seed=seed))
    assert one.event_stimuli == quarters
    assert one.controller.used == budget


def test_stimuli_without_an_event_are_skipped():
    """The layers see as many stimuli as have an event, once."""
    controller = Drawn(0.5)
    controller.happens = (0.0, 1.0, 0.0, 1.0)
    one = EGLPLearner(network(), controller, batch_size=4, signal="error")
    x, y = batch()
    one.train_batch(x, y)
    assert torch.equal(one.network.hidden[0].stored.pre, x[[1, 3]])
    assert one.event_stimuli == 2
    sampled, always = (
        cost_of_stimulus(EGLPLearner(network(), c, batch_size=4)) for c in (controller, AlwaysOnController())
    )
    assert sampled == always
    with pytest.raises(RuntimeError, match="no activity"):
        network().hidden[0].keep(torch.tensor([0]))


def test_in_any_module_the_change_is_that_of_the_layers():
    net = network()
    module = torch.nn.Sequential(torch.nn.Linear(9, 6), torch.nn.Tanh(), torch.nn.Linear(6, 5), torch.nn.Tanh())
    module.append(torch.nn.Linear(5, 3)).double()
    for number, layer in ((0, net.hidden[0]), (2, net.hidden[1]), (4, net.readout)):
        module[number].load_state_dict({"weight": layer.weight, "bias": layer.bias})
    make = lambda: SampledController(0.5, generator=torch.Generator().manual_seed(1))  # noqa: E731
    credit = LocalPlasticity(module, events=make(), feedback="direct", signal="error")
    x, y = batch(8)
    cross_entropy = torch.nn.functional.cross_entropy
    credit.backward(x, lambda output: cross_entropy(output, y, reduction="none"))
    for number, name in ((0, "0.weight"), (1, "2.weight")):
        net.get_buffer(f"feedback_{number}").copy_(credit._feedback[name])
    before = [layer.weight.clone() for layer in net.hidden]
    one = EGLPLearner(net, make(), batch_size=8, signal="error")
    one.train_batch(x, y)
    assert 0 < one.event_stimuli == credit.event_stimuli < 8
    for number, layer in ((0, net.hidden[0]), (2, net.hidden[1])):
        torch.testing.assert_close(layer.weight - before[number // 2], -0.05 * module[number].weight.grad)


# -------------------------------------------------------------------------------------------- uncertainty


def test_uncertainty_is_one_minus_the_largest_probability():
    logits = torch.randn(20, 5, generator=torch.Generator().manual_seed(0)).double()
    expected = [1 - max(math.exp(v) for v in row) / sum(math.exp(v) for v in row) for row in logits.tolist()]
    np.testing.assert_allclose(uncertainty(logits), expected, rtol=1e-12)
    assert float(uncertainty(torch.zeros(1, 4))) == pytest.approx(0.75)


def test_uncertainty_needs_no_label():
    found = []
    for labels in (torch.zeros(8, dtype=torch.long), torch.arange(8) % 3):
        controller = Drawn(0.5)
        one = EGLPLearner(network(), controller, batch_size=8, signal="uncertainty")
        one.train_batch(batch(8)[0], labels)
        found.append(controller.probabilities)
    assert torch.equal(*found)
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), torch.nn.Conv2d(2, 3, 1))
    credit = LocalPlasticity(model, events=SampledController(), signal="uncertainty")
    with pytest.raises(UserError, match="signal='uncertainty' needs logits"):
        credit.backward(torch.randn(2, 1, 4, 4), lambda output: output.square().flatten(1).mean(1))


# ------------------------------------------------------------------------------- triggered with normalized strength


def test_loss_and_error_trigger_events_of_the_same_stimuli():
    """The loss -log p and the error 1 - p rise together, so only the strength of the events differs."""
    chosen = []
    for signal, strength in (("loss", "binary"), ("error", "normalized")):
        controller = ThresholdController(rate=0.3, window=64, warmup=0, strength=strength, per_stimulus=True)
        found = []
        for seed in range(6):
            logits, y = 3 * torch.randn(16, 3, generator=torch.Generator().manual_seed(seed)).double(), batch(16)[1]
            losses = torch.nn.functional.cross_entropy(logits, y, reduction="none")
            found.append(controller.gate(losses if signal == "loss" else -(-losses).exp() + 1) > 0)
        chosen.append(torch.cat(found))
    assert torch.equal(*chosen)
    assert 0 < int(chosen[0].sum()) < 96
