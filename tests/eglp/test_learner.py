"""The learner: what one event does, which stimuli take part, what the readout learns, and that nothing is lost."""

import copy
import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from plastic_cli.data.datasets import load_dataset
from plastic_eglp import (
    AlwaysOnController,
    EGLPLearner,
    EGLPNetwork,
    FixedRateController,
    NeverController,
    SampledController,
    ThresholdController,
)
from plastic_eglp.events import Controller

BATCH = 8
PIXELS, HIDDEN, CLASSES = 9, (6, 5), 3
LR = 0.05


class Scripted(Controller):
    """Returns given decisions, and records the signals that it receives."""

    def __init__(self, script, *, per_stimulus, budget=None):
        super().__init__(budget)
        self.script = [torch.as_tensor(entry, dtype=torch.float64) for entry in script]
        self.per_stimulus = per_stimulus
        self.shown = []

    def gate(self, signals):
        self.shown.append(signals.clone())
        return self.script[len(self.shown) - 1]

    def _strength(self, loss):
        self.shown.append(torch.as_tensor(loss).clone())
        return float(self.script[len(self.shown) - 1])


def network(seed=0, dtype=torch.float64, **options):
    options = {"activation": "tanh", "lr": LR, **options}
    return EGLPNetwork(
        (1, 3, 3), options.pop("hidden", HIDDEN), CLASSES, generator=torch.Generator().manual_seed(seed), **options
    ).to(dtype)


def learner(controller=None, net=None, **options):
    return EGLPLearner(net or network(), controller or AlwaysOnController(), batch_size=BATCH, **options)


def batch(n=BATCH, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, PIXELS, generator=generator, dtype=torch.float64).to(dtype)
    return x, torch.randint(CLASSES, (n,), generator=generator)


def hidden_state(net):
    return {name: tensor.clone() for name, tensor in net.state_dict().items() if name.startswith("hidden.")}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name]), name


def direct_feedback_alignment(net, x, y, strengths, divisor, lr=LR):
    """New weights and biases of the hidden layers after one step, written out for tanh, in NumPy."""
    layers = [(layer.weight.numpy().copy(), layer.bias.numpy().copy()) for layer in net.hidden]
    h, inputs, outputs = x.numpy(), [], []
    for W, b in layers:
        inputs.append(h)
        h = np.tanh(h @ W.T + b)
        outputs.append(h)
    logits = h @ net.readout.weight.detach().numpy().T + net.readout.bias.detach().numpy()
    error = np.exp(logits - logits.max(1, keepdims=True))
    error /= error.sum(1, keepdims=True)
    for s, label in enumerate(y.tolist()):
        error[s, label] -= 1
    new = []
    for number, (W, b) in enumerate(layers):
        B = net.get_buffer(f"feedback_{number}").numpy()
        W, b = W.copy(), b.copy()
        for s in range(len(x)):
            for k in range(len(b)):
                credit = -sum(B[k, c] * error[s, c] for c in range(CLASSES)) * (1 - outputs[number][s, k] ** 2)
                W[k] += lr * strengths[s] * credit * inputs[number][s] / divisor
                b[k] += lr * strengths[s] * credit / divisor
        new.append((W, b))
    return new


def assert_layers(net, expected):
    for layer, (W, b) in zip(net.hidden, expected, strict=True):
        np.testing.assert_allclose(layer.weight.numpy(), W, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(layer.bias.numpy(), b, rtol=1e-9, atol=1e-12)


def watch(one):
    """Record the input of each update of the first hidden layer, with its event."""
    layer, seen = one.network.layers()[0], []
    update = layer.local_update

    def recorded(event, modulation=None):
        seen.append((layer.stored.pre.clone(), event))
        update(event, modulation)

    layer.local_update = recorded
    return seen


# ------------------------------------------------------------------------------------------------ one event


@pytest.mark.parametrize("strength", [1.0, 0.4, 2.5])
def test_an_event_is_a_step_of_direct_feedback_alignment(strength):
    x, y = batch()
    one = learner(Scripted([strength], per_stimulus=False))
    expected = direct_feedback_alignment(one.network, x, y, [strength] * BATCH, BATCH)
    one.train_batch(x, y)
    assert_layers(one.network, expected)
    assert (one.events, one.event_stimuli, one.had_event) == (1, BATCH, [True])
    assert one.synaptic_updates == 9 * 6 + 6 * 5


def test_a_collected_event_is_a_step_of_direct_feedback_alignment_over_a_whole_batch():
    """Strengths of their own, and each stimulus weighs lr / batch, however many there are."""
    x, y = batch()
    strengths = [0, 1, 0, 0.5, 3, 0, 1, 1]
    one = learner(Scripted([strengths], per_stimulus=True), gather=3)
    one.optimizer.lr = 0.0  # The readout stays, since the stimuli are looked at after it has learned.
    picked = [n for n, strength in enumerate(strengths) if strength]
    expected = direct_feedback_alignment(one.network, x[picked], y[picked], [strengths[n] for n in picked], BATCH)
    one.train_batch(x, y)
    assert_layers(one.network, expected)
    assert (one.events, one.event_stimuli) == (1, 5)
    assert one.controller.used == 5 / BATCH


@pytest.mark.parametrize("feedback", ["direct", "none"])
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_an_event_of_all_stimuli_is_an_event_of_the_batch(feedback, model):
    nets = [network(hidden=(4,), model=model, activation="relu") for _ in range(2)]
    x, y = batch()
    whole = learner(Scripted([1.0], per_stimulus=False), nets[0], feedback=feedback)
    each = learner(Scripted([[1.0] * BATCH], per_stimulus=True), nets[1], feedback=feedback)
    for one in (whole, each):
        one.optimizer.lr = 0.0
        one.train_batch(x, y)
    torch.testing.assert_close(nets[0].hidden[0].weight, nets[1].hidden[0].weight, rtol=1e-10, atol=1e-13)
    assert whole.controller.used == each.controller.used == 1


def test_without_feedback_each_layer_follows_its_own_rule():
    x, y = batch()
    one = learner(feedback="none", net=network(local_rule="oja"))
    h, expected = x, []
    for layer in one.network.layers():
        out = torch.tanh(h @ layer.weight.T + layer.bias)
        change = out.T @ h / BATCH - out.square().mean(0)[:, None] * layer.weight
        expected.append(layer.weight + LR * change)
        h = out
    one.train_batch(x, y)
    for layer, weight in zip(one.network.layers(), expected, strict=True):
        torch.testing.assert_close(layer.weight, weight)


def test_hidden_layers_do_not_depend_on_the_weights_of_the_readout():
    """Another readout with the same errors: its weights differ where this batch has no activity."""
    x, y = batch(3)
    for update in ("local", "backprop"):
        one, other = learner(update=update), learner(update=update)
        h = one.network.features(x)[-1].detach()
        silent = torch.eye(5, dtype=torch.float64) - torch.linalg.pinv(h) @ h
        with torch.no_grad():
            other.network.readout.weight += 10 * torch.randn(CLASSES, 5, dtype=torch.float64) @ silent
        torch.testing.assert_close(other.predict(x), one.predict(x))
        one.train_batch(x, y)
        other.train_batch(x, y)
        for a, b in zip(one.network.layers(), other.network.layers(), strict=True):
            same = torch.allclose(a.weight, b.weight, rtol=1e-9, atol=1e-11)
            assert same == (update == "local"), "backpropagation does see them"


def test_feedback_is_fixed():
    one = learner()
    before = [one.network.get_buffer(f"feedback_{n}").clone() for n in range(2)]
    for seed in range(5):
        one.train_batch(*batch(seed=seed))
    for n, feedback in enumerate(before):
        assert torch.equal(one.network.get_buffer(f"feedback_{n}"), feedback)


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(BATCH)))
def test_the_order_of_a_batch_does_not_matter(order):
    x, y = batch()
    one, other = learner(), learner()
    one.train_batch(x, y)
    other.train_batch(x[order], y[order])
    for a, b in zip(one.network.parameters(), other.network.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_frozen_layers_do_not_change():
    for update in ("local", "backprop"):
        one = learner(frozen=(0,), update=update)
        before = hidden_state(one.network)
        one.train_batch(*batch())
        after = hidden_state(one.network)
        assert torch.equal(after["hidden.0.weight"], before["hidden.0.weight"])
        assert torch.equal(after["hidden.0.bias"], before["hidden.0.bias"])
        assert not torch.equal(after["hidden.1.weight"], before["hidden.1.weight"])
        assert one.synaptic_updates == 30


def test_a_local_readout_follows_the_delta_rule_at_events_only():
    one = learner(Scripted([0.0, 1.0], per_stimulus=False), network(readout="local"))
    assert one.optimizer is None
    x, y = batch()
    before = one.network.readout.weight.clone()
    one.train_batch(x, y)
    assert torch.equal(one.network.readout.weight, before)
    logits = one.network(x)
    h = one.network.last_hidden.clone()
    error = torch.softmax(logits, 1) - functional.one_hot(y, CLASSES)
    one.train_batch(x, y)
    torch.testing.assert_close(one.network.readout.weight, before - LR * error.T @ h / BATCH)
    assert one.had_event == [False, True]


def test_annealing_decreases_both_learning_rates_linearly():
    x, y = batch()
    one, plain = learner(readout_lr=0.01), learner(readout_lr=0.01, anneal=False)
    for either in (one, plain):
        either.begin_epoch(3, 4)
    expected = direct_feedback_alignment(one.network, x, y, [0.25] * BATCH, BATCH)
    one.train_batch(x, y)
    assert_layers(one.network, expected)
    assert one.optimizer.lr == pytest.approx(0.0025)
    expected = direct_feedback_alignment(plain.network, x, y, [1.0] * BATCH, BATCH)
    plain.train_batch(x, y)
    assert_layers(plain.network, expected)
    assert plain.optimizer.lr == 0.01


# ------------------------------------------------------------------------------------------------ gathering


@settings(max_examples=25, deadline=None)
@given(
    picks=st.lists(st.lists(st.booleans(), min_size=BATCH, max_size=BATCH), min_size=1, max_size=8),
    gather=st.integers(1, 20),
)
def test_every_selected_stimulus_is_learned_once_and_in_order(picks, gather):
    one = learner(Scripted(np.array(picks, dtype=float), per_stimulus=True), gather=gather)
    seen = watch(one)
    waiting, learned, events, happened = [], [], 0, []
    for number, chosen in enumerate(picks):
        x, y = batch(seed=number)
        one.train_batch(x, y)
        waiting += [row for row, pick in zip(x, chosen, strict=True) if pick]
        happened.append(any(chosen) and len(waiting) >= gather)
        if happened[-1]:
            learned.append(torch.stack(waiting))
            waiting = []
            events += 1
    assert one.had_event == happened
    assert one.events == len(seen) == events
    for (pre, event), expected in zip(seen, learned, strict=True):
        assert torch.equal(pre, expected)
        torch.testing.assert_close(event, torch.full((len(expected),), len(expected) / BATCH, dtype=torch.float64))
    assert one.event_stimuli == sum(len(part) for part in learned)
    assert one.controller.used == pytest.approx(one.event_stimuli / BATCH)
    assert sum(len(kept[1]) for kept in one.state_dict()["kept"]) == len(waiting)
    if waiting:
        assert torch.equal(torch.cat([kept[0] for kept in one.state_dict()["kept"]]), torch.stack(waiting))


def test_collected_stimuli_keep_their_labels_and_strengths():
    scripts = [[0, 2, 0, 0, 0, 0, 0, 1], [0.5, 0, 0, 0, 0, 0, 0, 0]]
    one = learner(Scripted(scripts, per_stimulus=True), gather=3)
    one.optimizer.lr = 0.0
    (xa, ya), (xb, yb) = batch(seed=1), batch(seed=2)
    x, y = torch.stack([xa[1], xa[7], xb[0]]), torch.stack([ya[1], ya[7], yb[0]])
    expected = direct_feedback_alignment(one.network, x, y, [2, 1, 0.5], BATCH)
    one.train_batch(xa, ya)
    assert one.events == 0
    one.train_batch(xb, yb)
    assert_layers(one.network, expected)


def test_a_whole_batch_is_collected_by_default():
    for gather in (None, 0):
        assert learner(gather=gather).gather == BATCH


@pytest.mark.parametrize("gather", [1, 8, 30])
def test_every_batch_of_the_warm_up_is_an_event_of_any_size(gather):
    controller = ThresholdController(rate=0.0, warmup=5, per_stimulus=True)
    one = learner(controller, gather=gather)
    one.optimizer.lr = 0.0
    for number, size in enumerate((BATCH, 3, BATCH, 1, 5, BATCH, 3)):
        x, y = batch(size, seed=number)
        weights = [float(number < 5)] * size
        expected = direct_feedback_alignment(one.network, x, y, weights, BATCH)
        one.train_batch(x, y)
        # Each stimulus weighs lr / batch, as everywhere.
        assert_layers(one.network, expected)
    assert one.had_event == [True] * 5 + [False] * 2
    assert one.event_stimuli == BATCH + 3 + BATCH + 1 + 5
    assert one.controller.used == one.event_stimuli / BATCH
    assert not one.state_dict()["kept"]


@pytest.mark.parametrize("budget", [0, 1.5, 4])
@pytest.mark.parametrize("gather", [1, 8, 13])
@pytest.mark.parametrize("batch_size", [8, 10])
def test_the_budget_is_counted_in_batches_and_never_exceeded(budget, gather, batch_size):
    controller = ThresholdController(rate=0.6, window=40, warmup=2, per_stimulus=True, budget=budget)
    one = EGLPLearner(network(), controller, batch_size=batch_size, gather=gather)
    seen = watch(one)
    for seed in range(40):
        one.train_batch(*batch(batch_size, seed))
    stimuli = sum(len(pre) for pre, _ in seen)
    # All of it is used, to the stimulus.
    assert stimuli == one.event_stimuli == math.floor(budget * batch_size)
    assert controller.used == stimuli / batch_size <= budget
    assert one.events == len(seen)


@pytest.mark.parametrize("budget", [1, 4])
def test_tenths_of_a_batch_add_up_to_the_budget(budget):
    one_each = np.eye(10)[np.zeros(50, dtype=int)]
    controller = Scripted(one_each, per_stimulus=True, budget=budget)
    one = EGLPLearner(network(), controller, batch_size=10, gather=1)
    for seed in range(50):
        one.train_batch(*batch(10, seed))
    assert one.events == one.event_stimuli == 10 * budget
    assert controller.used == budget
    assert controller.exhausted


@pytest.mark.parametrize("budget", [0, 3])
def test_the_budget_of_batches(budget):
    for controller in (
        AlwaysOnController(budget),
        FixedRateController(0.7, budget=budget),
        ThresholdController(rate=0.7, warmup=1, budget=budget),
    ):
        one = learner(controller)
        for seed in range(20):
            one.train_batch(*batch(seed=seed))
        assert one.events == controller.used == sum(one.had_event) == budget
        assert one.event_stimuli == budget * BATCH


# ------------------------------------------------------------------------------------------------ readout


def test_without_events_only_the_readout_learns():
    one = learner(NeverController(), network(dtype=torch.float32), readout_lr=0.05)
    before = hidden_state(one.network)
    x, y = batch(dtype=torch.float32)
    losses = [one.train_batch(x, y).item() for _ in range(60)]
    assert_equal(hidden_state(one.network), before)
    assert losses[-1] < losses[0] / 2
    assert (one.events, one.event_stimuli, one.synaptic_updates) == (0, 0, 0)
    assert one.had_event == [False] * 60


@pytest.mark.parametrize("controller", [NeverController, AlwaysOnController])
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_the_readout_learns_like_autograd_and_adam(controller, model):
    one = learner(controller(), network(model=model, hidden=(5,)), readout_lr=0.02)
    reference = nn.Linear(one.network.readout.in_features, CLASSES).double()
    reference.load_state_dict(one.network.readout.state_dict())
    adam = torch.optim.Adam(reference.parameters(), lr=0.02)
    for seed in range(6):
        x, y = batch(seed=seed)
        one.network.train()
        h = one.network.activity(x)[-1].flatten(1)
        loss = functional.cross_entropy(reference(h), y)
        adam.zero_grad()
        loss.backward()
        adam.step()
        torch.testing.assert_close(one.train_batch(x, y), loss.detach())
        torch.testing.assert_close(one.network.readout.weight, reference.weight, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(one.network.readout.bias, reference.bias, rtol=1e-9, atol=1e-11)


def test_backprop_is_plain_adam_on_the_whole_network():
    net = network()
    reference = nn.Sequential(nn.Linear(9, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    layers = [net.hidden[0], net.hidden[1], net.readout]
    for mine, theirs in zip(layers, reference[::2], strict=True):
        theirs.load_state_dict({"weight": mine.weight, "bias": mine.bias})
    adam = torch.optim.Adam(reference.parameters(), lr=0.02)
    one = learner(AlwaysOnController(), net, update="backprop", readout_lr=0.02)
    for seed in range(6):
        x, y = batch(seed=seed)
        loss = functional.cross_entropy(reference(x), y)
        adam.zero_grad()
        loss.backward()
        adam.step()
        torch.testing.assert_close(one.train_batch(x, y), loss.detach())
    for mine, theirs in zip(layers, reference[::2], strict=True):
        torch.testing.assert_close(mine.weight, theirs.weight, rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(mine.bias, theirs.bias, rtol=1e-8, atol=1e-10)
    assert (one.events, one.event_stimuli, one.synaptic_updates) == (6, 6 * BATCH, 6 * 84)
    torch.testing.assert_close(one.predict(x), reference(x).detach())


# ------------------------------------------------------------------------------------------------ signals


def loop_signals(signal, net, x, y, moments):
    """One number for each stimulus, from its description. moments: what novelty has seen, changed here."""
    hidden = [row.tolist() for row in net.features(x)[-1]]
    weight, bias = net.readout.weight.tolist(), net.readout.bias.tolist()
    found = []
    for h, label in zip(hidden, y.tolist(), strict=True):
        logits = [sum(w * v for w, v in zip(row, h, strict=True)) + b for row, b in zip(weight, bias, strict=True)]
        p = math.exp(logits[label]) / sum(math.exp(v) for v in logits)
        others = [v for c, v in enumerate(logits) if c != label]
        found.append({"loss": -math.log(p), "error": 1 - p, "margin": max(others) - logits[label]}.get(signal))
    if signal == "novelty":
        units, n = len(hidden[0]), len(hidden)
        mean = [sum(h[k] for h in hidden) / n for k in range(units)]
        variance = [sum((h[k] - mean[k]) ** 2 for h in hidden) / n for k in range(units)]
        old_mean, old_variance = moments or (mean, variance)
        for s, h in enumerate(hidden):
            found[s] = sum((h[k] - old_mean[k]) ** 2 / (old_variance[k] + 1e-6) for k in range(units)) / units
        moments[:] = [
            [0.99 * old + 0.01 * new for old, new in zip(*pair, strict=True)]
            for pair in ((old_mean, mean), (old_variance, variance))
        ]
    return found


@pytest.mark.parametrize("signal", ["loss", "error", "margin", "novelty"])
@pytest.mark.parametrize("per_stimulus", [True, False])
def test_signals_equal_loops(signal, per_stimulus):
    nothing = [[0.0] * BATCH] * 4 if per_stimulus else [0.0] * 4
    controller = Scripted(nothing, per_stimulus=per_stimulus)
    one = learner(controller, signal=signal, readout_lr=0.1)
    moments = []
    for seed in range(4):
        x, y = batch(seed=seed)
        one.network.train()
        expected = torch.tensor(loop_signals(signal, one.network, x, y, moments), dtype=torch.float64)
        one.train_batch(x, y)
        torch.testing.assert_close(controller.shown[-1], expected if per_stimulus else expected.mean())


def test_novelty_needs_no_labels():
    x, y = batch()
    shown = []
    for labels in (y, (y + 1) % CLASSES):
        controller = Scripted([[0.0] * BATCH] * 3, per_stimulus=True)
        one = learner(controller, signal="novelty")
        for factor in (1.0, 2.0, 0.1):
            one.train_batch(factor * x, labels)
        shown.append(torch.stack(controller.shown))
    assert torch.equal(*shown)
    assert shown[0][1].mean() > shown[0][2].mean()


# ------------------------------------------------------------------------------------------------ state


def saved(state):
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def round_trip(state):
    return torch.load(io.BytesIO(saved(state)), weights_only=True)


@pytest.mark.parametrize(
    ("options", "make"),
    [
        (
            {"signal": "novelty", "gather": 11},
            lambda: ThresholdController(rate=0.3, window=40, warmup=1, per_stimulus=True),
        ),
        (
            {"gather": 11},
            lambda: ThresholdController(
                rate=0.4, window=40, warmup=0, per_stimulus=True, strength="surprise", budget=4
            ),
        ),
        ({"feedback": "none"}, lambda: FixedRateController(0.5, budget=6)),
        ({"update": "backprop"}, AlwaysOnController),
        ({}, lambda: ThresholdController(rate=0.4, warmup=2)),
    ],
)
@pytest.mark.parametrize("model", ["mlp", "cnn"])
@pytest.mark.parametrize("middle", [3, 7])
def test_a_restored_learner_continues_bit_for_bit(options, make, model, middle):
    def fresh(seed):
        net = network(seed, torch.float32, model=model, hidden=(4,), local_rule="bcm", activation="relu")
        return learner(make(), net, **options)

    def teach(one, seeds):
        for seed in seeds:
            if seed == 6:
                one.begin_epoch(1, 2)
            one.train_batch(*batch(seed=seed, dtype=torch.float32))

    whole, first, second = fresh(0), fresh(0), fresh(1)
    teach(whole, range(20))
    teach(first, range(middle))
    while "gather" in options and not first.state_dict()["kept"]:
        teach(first, [middle])
        middle += 1
    second.load_state_dict(round_trip(first.state_dict()))
    teach(second, range(middle, 20))
    assert_equal(second.network.state_dict(), whole.network.state_dict())
    for name in ("events", "event_stimuli", "synaptic_updates"):
        assert getattr(second, name) == getattr(whole, name)
    assert second.controller.used == whole.controller.used
    assert second.had_event == whole.had_event[middle:]
    assert whole.events > first.events
    assert middle < 10


def test_a_restored_learner_has_its_stimuli_on_the_device_of_the_network():
    """Files are read to the CPU. "meta" is a device without numbers."""
    controller = ThresholdController(rate=0.3, window=40, warmup=0, per_stimulus=True)
    first = learner(controller, network(0, torch.float32, hidden=(20, 16)), gather=1000, signal="novelty")
    for seed in range(5):
        first.train_batch(*batch(20, seed=seed, dtype=torch.float32))
    state = round_trip(first.state_dict())
    assert state["kept"]
    assert state["kept_activity"]
    second = learner(ThresholdController(per_stimulus=True), network(1, torch.float32, hidden=(20, 16)).to("meta"))
    second.optimizer = None
    with pytest.warns(UserWarning, match="meta"):
        second.load_state_dict(state)
    kept = second.state_dict()
    moved = [*(part for of in kept["kept"] for part in of), *(of[1] for batch in kept["kept_activity"] for of in batch)]
    assert {part.device.type for part in moved} == {"meta"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("signal", ["loss", "novelty"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: ThresholdController(rate=0.3, window=40, warmup=1, per_stimulus=True),
        lambda: SampledController(rate=0.4, window=40),
    ],
)
def test_a_learner_on_a_gpu_continues_from_a_file(make, signal):
    first, second = (
        learner(make(), network(seed, torch.float32, hidden=(20, 16)).cuda(), gather=11, signal=signal)
        for seed in range(2)
    )
    for seed in range(4):
        first.train_batch(*(part.cuda() for part in batch(20, seed=seed, dtype=torch.float32)))
    state = torch.load(io.BytesIO(saved(first.state_dict())), map_location="cpu", weights_only=True)
    second.load_state_dict(state)
    second.train_batch(*(part.cuda() for part in batch(20, seed=4, dtype=torch.float32)))
    assert second.events >= first.events


def test_predictions_do_not_depend_on_other_calls():
    one = learner(net=network(model="cnn", hidden=(4,)))
    one.train_batch(*batch())
    x, _ = batch(seed=5)
    before = {name: tensor.clone() for name, tensor in one.network.state_dict().items()}
    together = one.predict(x)
    torch.testing.assert_close(together[3:4], one.predict(x[3:4]))
    torch.testing.assert_close(one.features(x)[-1][:2], one.features(x[:2])[-1])
    assert not together.requires_grad
    assert_equal(dict(one.network.state_dict()), before)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"feedback": "symmetric"}, "feedback"),
        ({"signal": "reward"}, "signal"),
        ({"update": "hebbian"}, "update"),
        ({"gather": -1}, "gather"),
        ({"frozen": (2,)}, "frozen"),
        ({"frozen": (-1,)}, "frozen"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_bad_values_are_named(options, name):
    with pytest.raises(ValueError, match=f"^{name} is "):
        EGLPLearner(network(), AlwaysOnController(), **{"batch_size": BATCH, **options})


def test_backprop_needs_a_supervised_readout():
    with pytest.raises(ValueError, match=r"^update is 'backprop'"):
        learner(net=network(readout="local"), update="backprop")


# ------------------------------------------------------------------------------------------------ digits


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def taught(data, controller, epochs=8, hidden=(16,)):
    net = EGLPNetwork(
        data.image_shape, hidden, data.classes, lr=0.2, activation="tanh", generator=torch.Generator().manual_seed(0)
    )
    one = EGLPLearner(net, controller, batch_size=32, readout_lr=0.005)
    order = torch.Generator().manual_seed(1)
    for epoch in range(epochs):
        one.begin_epoch(epoch, epochs)
        for rows in torch.randperm(len(data.train), generator=order).split(32):
            one.train_batch(data.train.x[rows], data.train.y[rows])
    accuracy = (one.predict(data.test.x).argmax(1) == data.test.y).float().mean().item()
    return one, accuracy


def test_features_learned_from_events_are_better_than_the_control(digits):
    triggered = ThresholdController(rate=0.1, window=8 * 32, warmup=10, per_stimulus=True)
    one, accuracy = taught(digits, triggered)
    control, without = taught(digits, NeverController())
    assert control.events == 0
    assert accuracy > without + 0.03
    batches = 8 * len(digits.train) / 32
    assert triggered.used == one.event_stimuli / 32
    assert triggered.used < 0.15 * batches + 10


def test_equal_budgets_are_equal_numbers_of_stimuli(digits):
    budget = 20
    triggered, _ = taught(
        digits, ThresholdController(rate=0.2, window=8 * 32, warmup=5, per_stimulus=True, budget=budget), epochs=4
    )
    # A last batch of fewer than 32 would count as a whole one.
    fixed, _ = taught(digits, FixedRateController(0.3, budget=budget), epochs=4)
    assert triggered.controller.used == fixed.controller.used == budget
    assert triggered.event_stimuli == budget * 32
    short = len(digits.train) % 32
    assert fixed.event_stimuli in (budget * 32 - taken * (32 - short) for taken in range(5))
    assert fixed.events == sum(fixed.had_event) == budget
    for one in (triggered, fixed):
        assert one.synaptic_updates == one.events * 64 * 16


@pytest.mark.parametrize("budget", [None, 1.3])
@pytest.mark.parametrize("options", [{}, {"feedback": "none", "local_rule": "softhebb"}, {"readout": "local"}])
def test_kept_activity_is_that_of_another_presentation(options, budget, monkeypatch):
    options = dict(options)
    feedback = options.pop("feedback", "direct")
    learners = []
    for _ in range(2):
        net = EGLPNetwork(
            (1, 4, 5), (24, 20), 16, lr=0.1, **options, generator=torch.Generator().manual_seed(0)
        ).double()
        controller = ThresholdController(rate=0.4, window=64, warmup=1, per_stimulus=True, budget=budget)
        learners.append(EGLPLearner(net, controller, batch_size=32, feedback=feedback, gather=40, readout_lr=0.01))
    kept, again = learners
    presented = []
    own = kept.network.present
    monkeypatch.setattr(kept.network, "present", lambda x, batches: presented.append(len(x)) or own(x, batches))
    again._keeps_activity = False
    generator = torch.Generator().manual_seed(1)
    for number in range(12):
        x, y = torch.randn(32, 20, generator=generator).double(), torch.randint(16, (32,), generator=generator)
        if number == 5:
            # Checkpoints of older versions do not hold the activity.
            kept.load_state_dict({name: value for name, value in kept.state_dict().items() if name != "kept_activity"})
        losses = [one.train_batch(x, y) for one in learners]
        torch.testing.assert_close(losses[0], losses[1], rtol=1e-12, atol=1e-12)
        for name, value in kept.network.state_dict().items():
            torch.testing.assert_close(value, again.network.state_dict()[name], rtol=1e-10, atol=1e-12)
    assert kept.events == again.events > 1
    assert kept.event_stimuli == again.event_stimuli
    assert len(presented) >= (1 if budget else 2)
    torch.testing.assert_close(kept.network.last_hidden, again.network.last_hidden)


def test_a_checkpoint_holds_the_activity_that_waits_for_an_event():
    """A resumed run presents no stimulus twice, so its bits do not depend on how a product adds other rows."""
    learners = []
    for _ in range(2):
        net = EGLPNetwork((1, 4, 5), (24, 20), 4, lr=0.1, generator=torch.Generator().manual_seed(0))
        controller = ThresholdController(rate=0.3, window=64, warmup=0, per_stimulus=True)
        learners.append(EGLPLearner(net, controller, batch_size=32, gather=40, readout_lr=0.01))
    first, resumed = learners
    generator = torch.Generator().manual_seed(1)
    batches = [
        (torch.randn(32, 20, generator=generator), torch.randint(4, (32,), generator=generator)) for _ in range(8)
    ]
    waiting = 0
    for x, y in batches:
        first.train_batch(x, y)
        state = copy.deepcopy(first.state_dict())
        waiting = max(waiting, len(state["kept"]))
        resumed.load_state_dict(state)
        assert len(resumed._kept_activity) == len(resumed._kept) == len(state["kept"])
        for mine, other in zip(resumed._kept_activity, first._kept_activity, strict=True):
            for (response, post), (of_response, of_post) in zip(mine, other, strict=True):
                assert torch.equal(response, of_response)
                assert torch.equal(post, of_post)
    assert waiting > 1


def test_the_inverse_temperature_is_also_that_of_a_local_readout():
    made = network(local_rule="softhebb", readout="local", inverse_temperature=7.0)
    assert [layer.inverse_temperature for layer in (*made.hidden, made.readout)] == [7.0] * (len(made.hidden) + 1)
