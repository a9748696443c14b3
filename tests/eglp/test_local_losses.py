"""Local losses: equation (2) in float64, written once more; gradients stay within a layer."""

import copy
import io
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from credit.networks import Encoder, Shared, Transformer, UnrolledCell, gradient_of, losses_of
from plastic_cli import UserError
from plastic_cli.analysis.cost import cost_of, step_cost
from plastic_cli.classifier.data import described_data
from plastic_cli.runs.folder import open_run
from plastic_cli.runs.record import RunRecord
from plastic_cli.testing import interrupted_after, plastic, write_tiny_dataset
from plastic_eglp import AlwaysOnController, LocalPlasticity, rule
from plastic_eglp.augmentation import Augmentation
from plastic_eglp.events import Controller
from plastic_eglp.network import NormalizedNetwork
from plastic_eglp.training import build
from plastic_eglp.training import network as network_of
from plastic_eglp.windows import windows

CLASSES = 3
BETA = 0.99
KINDS = ("predsim", "pred", "sim")


class Given(Controller):
    """Events of given strengths, one for each sample."""

    per_stimulus = True

    def __init__(self, strengths):
        super().__init__()
        self.strengths = torch.as_tensor(strengths, dtype=torch.float64)

    def gate(self, signals):
        return self.strengths.clone()


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels(n, seed=0, classes=CLASSES):
    return torch.randint(classes, (n,), generator=torch.Generator().manual_seed(seed))


def network(hidden=(6, 5), dropout=0.0, activation="leaky-relu"):
    generator = torch.Generator().manual_seed(1)
    options = {"activation": activation, "dropout": dropout, "generator": generator}
    return NormalizedNetwork((1, 2, 4), hidden, CLASSES, **options).double()


def plasticity(model, kind="predsim", **options):
    return LocalPlasticity(model, kind, events=options.pop("events", None) or AlwaysOnController(), **options)


def learned(model, kind, x, y, steps=0, **options):
    """The gradients of the next batch, by name, and the rule, whose heads have learned for some steps."""
    credit = plasticity(model, kind, **options)
    for _ in range(steps + 1):
        # Statistics of normalization are those of the batch.
        model.zero_grad()
        heads = copy.deepcopy(getattr(credit.local_losses, "heads", {}))
        credit.backward(x, losses_of(y))
    return {name: value.grad for name, value in model.named_parameters()}, credit, heads


# ----------------------------------------------------------------------------------------------------- the two losses


def slow_similarity(h):
    n = len(h)
    R = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            a, b = h[i] - h[i].mean(), h[j] - h[j].mean()
            R[i, j] = (a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum())
    return R


def test_the_similarity_is_the_cosine_of_centered_rows():
    h = draw(7, 5)
    np.testing.assert_allclose(rule.similarity(h), slow_similarity(h.numpy()), atol=1e-14)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_the_similarity_of_labels_is_that_of_one_hot_vectors(classes):
    y = labels(9, classes=classes)
    expected = slow_similarity(np.eye(classes)[y])
    np.testing.assert_allclose(rule.label_similarity(y, classes, torch.float64), expected, atol=1e-14)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 100), shift=st.floats(-10, 10))
def test_scale_and_mean_of_a_row_do_not_matter(seed, scale, shift):
    h = draw(5, 4, seed=seed)
    changed = h.clone()
    changed[2] = scale * changed[2] + shift
    torch.testing.assert_close(rule.similarity(changed), rule.similarity(h), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("strengths", [1.0, 0.7, [0.5, 0.0, 1.0, 3.0, 0.2, 0.0]])
def test_the_order_of_the_batch_does_not_matter(strengths):
    h, y, order = draw(6, 4), labels(6), torch.randperm(6, generator=torch.Generator().manual_seed(3))
    event = torch.tensor(strengths, dtype=torch.float64)
    permuted = event[order] if event.ndim else event

    def loss(h, y, event):
        return rule.similarity_loss(rule.similarity(h), rule.label_similarity(y, CLASSES, h.dtype), event)

    torch.testing.assert_close(loss(h[order], y[order], permuted), loss(h, y, event))


def test_an_event_of_each_stimulus_weighs_pairs():
    R, target, e = draw(5, 5), draw(5, 5, seed=1), torch.tensor([0.5, 0.0, 2.0, 1.0, 0.0], dtype=torch.float64)
    pairs = [(i, j) for i in range(5) for j in range(5)]
    total = sum((e[i] * e[j]).sqrt() for i, j in pairs)
    weighted = sum((e[i] * e[j]).sqrt() * (R[i, j] - target[i, j]) ** 2 for i, j in pairs)
    torch.testing.assert_close(rule.similarity_loss(R, target, e), e.mean() * weighted / total)
    # An event that all share, and no event at all.
    torch.testing.assert_close(
        rule.similarity_loss(R, target, torch.full((5,), 0.3, dtype=e.dtype)), 0.3 * (R - target).square().mean()
    )
    assert rule.similarity_loss(R, target, torch.zeros(5, dtype=e.dtype)) == 0


# ---------------------------------------------------------------------------------------- one layer, without autograd


def softmax(u):
    e = np.exp(u - u.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def gradients_of_a_layer(x, y, W, b, gamma, beta, heads, kind, e):
    """The gradients of equation (2) with respect to W, b, gamma and beta by the chain rule, and the activity."""
    n = len(x)
    z = x @ W.T + b
    mean, sd = z.mean(0), np.sqrt(z.var(0) + 1e-5)
    unit = (z - mean) / sd
    u = gamma * unit + beta
    h = np.where(u > 0, u, 0.01 * u)
    one_hot, dh = np.eye(CLASSES)[y], np.zeros_like(h)
    if kind != "sim":
        V, c = heads["classifier"], heads["bias"]
        error = (softmax(h @ V.T + c) - one_hot) * e[:, None] / n
        dh += (1 if kind == "pred" else 1 - BETA) * error @ V
    if kind != "pred":
        S = heads["similarity"]
        g = h @ S.T
        centered = g - g.mean(1, keepdims=True)
        norms = np.sqrt((centered**2).sum(1, keepdims=True))
        rows = centered / norms
        pairs = np.sqrt(np.outer(e, e))
        dR = 2 * (rows @ rows.T - slow_similarity(one_hot)) * pairs / pairs.sum() * e.mean()
        drows = 2 * dR @ rows
        dcentered = (drows - rows * (drows * rows).sum(1, keepdims=True)) / norms
        dg = dcentered - dcentered.mean(1, keepdims=True)
        dh += (1 if kind == "sim" else BETA) * dg @ S
    du = dh * np.where(u > 0, 1, 0.01)
    dunit = du * gamma
    dz = (dunit - dunit.mean(0) - unit * (dunit * unit).mean(0)) / sd
    return {"weight": dz.T @ x, "bias": dz.sum(0), "gamma": (du * unit).sum(0), "beta": du.sum(0)}, h


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strengths", [None, [1.0, 0.0, 0.5, 2.0, 0.0, 1.0, 1.0, 0.3, 1.0]])
def test_gradients_of_normalized_layers_follow_the_chain_rule(kind, strengths):
    model, x, y = network(), draw(9, 8), labels(9)
    events = None if strengths is None else Given(strengths)
    found, _, heads = learned(model, kind, x, y, steps=2, events=events)
    h = x.numpy()
    for number, (layer, norm) in enumerate(zip(model.hidden, model.norms, strict=True)):
        values = [value.detach().numpy() for value in (layer.weight, layer.bias, norm.weight, norm.bias)]
        own = {name: value.detach().numpy() for name, value in heads[f"hidden.{number}.weight"].items()}
        e = np.ones(9) if strengths is None else np.array(strengths)
        expected, h = gradients_of_a_layer(h, y.numpy(), *values, own, kind, e)
        for name, value in (("weight", "hidden"), ("bias", "hidden"), ("gamma", "norms"), ("beta", "norms")):
            key = f"{value}.{number}.{ {'gamma': 'weight', 'beta': 'bias'}.get(name, name) }"
            np.testing.assert_allclose(found[key], expected[name], rtol=1e-9, atol=1e-12, err_msg=key)
    expected = gradient_of(model, x, y)
    torch.testing.assert_close(found["readout.weight"], expected["readout.weight"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_against_the_gradient_lowers_the_loss_of_the_layer(kind):
    """Fails if a sign is wrong."""
    model, x, y = network(hidden=(6,)), draw(9, 8), labels(9)
    found, _, heads = learned(model, kind, x, y, steps=2)
    head = heads["hidden.0.weight"]

    def loss():
        h = functional.leaky_relu(model.norms[0](model.hidden[0](x)), 0.01)
        parts = {}
        if kind != "sim":
            parts["pred"] = functional.cross_entropy(h @ head["classifier"].T + head["bias"], y)
        if kind != "pred":
            target = rule.similarity(functional.one_hot(y, CLASSES).double())
            parts["sim"] = (rule.similarity(h @ head["similarity"].T) - target).square().mean()
        return float(((1 - BETA) * parts["pred"] + BETA * parts["sim"] if kind == "predsim" else parts[kind]).detach())

    before, gradient = loss(), found["hidden.0.weight"]
    with torch.no_grad():
        model.hidden[0].weight -= 1e-4 * gradient
    # To first order the loss falls by the rate times the squared norm.
    assert before - loss() == pytest.approx(1e-4 * float(gradient.square().sum()), rel=1e-2)


def test_the_prediction_loss_trains_a_linear_probe_and_the_features_below_it():
    model, x, y = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, CLASSES)).double(), draw(9, 8), labels(9)
    found, credit, heads = learned(model, "pred", x, y, steps=3)
    probe = nn.Linear(6, CLASSES).double()
    probe.weight.data, probe.bias.data = heads["0.weight"]["classifier"].data, heads["0.weight"]["bias"].data
    model.zero_grad()
    functional.cross_entropy(probe(torch.tanh(model[0](x))), y).backward()
    torch.testing.assert_close(found["0.weight"], model[0].weight.grad)
    assert set(credit.local_losses.heads["0.weight"]) == {"classifier", "bias"}


# ------------------------------------------------------------------------------------------- nothing crosses a layer


@pytest.mark.parametrize("kind", KINDS)
def test_layers_above_do_not_matter(kind):
    x, y = draw(9, 8), labels(9)
    one, other = network(hidden=(6, 5, 4)), network(hidden=(6, 5, 4))
    with torch.no_grad():
        for parameter in (*other.hidden[2].parameters(), *other.readout.parameters()):
            parameter.add_(1.0)
    first, second = (learned(model, kind, x, y, steps=2)[0] for model in (one, other))
    for number in (0, 1):
        torch.testing.assert_close(first[f"hidden.{number}.weight"], second[f"hidden.{number}.weight"])
    assert not torch.allclose(first["hidden.2.weight"], second["hidden.2.weight"])


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.fc = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, CLASSES)

    def forward(self, x):
        h = torch.relu(self.first(x))
        return self.fc(torch.relu(self.second(h) + h))


def test_no_gradient_passes_through_a_skip_connection():
    model, x, y = Residual().double(), draw(9, 8), labels(9)
    found, _, heads = learned(model, "pred", x, y, steps=2)
    model.zero_grad()
    h = torch.relu(model.first(x))
    for name, activity in (("first", h), ("second", torch.relu(model.second(h.detach()) + h.detach()))):
        head = heads[f"{name}.weight"]
        functional.cross_entropy(activity @ head["classifier"].T + head["bias"], y).backward()
        torch.testing.assert_close(found[f"{name}.weight"], getattr(model, name).weight.grad)


def test_a_layer_that_is_used_twice_has_the_mean_activity_and_no_gradient_through_its_first_use():
    model, x, y = Shared().double(), draw(9, 6), labels(9)
    found, _, heads = learned(model, "pred", x, y, steps=2)
    model.zero_grad()
    first = torch.tanh(model.inside(x))
    mean = (first + torch.tanh(model.inside(first.detach()))) / 2
    head = heads["inside.weight"]
    functional.cross_entropy(mean @ head["classifier"].T + head["bias"], y).backward()
    torch.testing.assert_close(found["inside.weight"], model.inside.weight.grad)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [UnrolledCell, Transformer, Encoder])
def test_time_steps_and_tokens_learn(make, kind):
    model = make().double()
    x = torch.randint(7, (6, 4)) if make is Transformer else draw(6, 4, 3 if make is UnrolledCell else 8)
    found, credit, _ = learned(model, kind, x, labels(6), steps=1)
    taught = [name for name, value in credit.parameters.items() if value.ndim > 1]
    assert len(taught) > 2
    for name in taught:
        assert torch.isfinite(found[name]).all(), name
        assert found[name].abs().sum() > 0, name


# ------------------------------------------------------------------------------------------------------- convolutions


def test_a_convolution_has_the_published_heads():
    """The spread over positions after a 3 x 3 convolution is compared, the flattened maps are classified."""
    model = nn.Sequential(
        *(nn.Conv2d(1, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(20, CLASSES)),
    ).double()
    x, y = draw(9, 1, 4, 4), labels(9)
    found, _, heads = learned(model, "predsim", x, y, steps=2)
    head = heads["0.weight"]
    model.zero_grad()
    maps = torch.relu(model[1](model[0](x)))
    compared = functional.conv2d(maps, head["similarity"], padding=1)
    spread = ((compared - compared.mean((2, 3), keepdim=True)).square().sum((2, 3)) / 15).sqrt()
    target = rule.similarity(functional.one_hot(y, CLASSES).double())
    similar = (rule.similarity(spread) - target).square().mean()
    predicted = functional.cross_entropy(maps.flatten(1) @ head["classifier"].T + head["bias"], y)
    ((1 - BETA) * predicted + BETA * similar).backward()
    for name in ("0.weight", "1.weight", "1.bias"):
        torch.testing.assert_close(found[name], model.get_parameter(name).grad)


def test_a_nonlinearity_after_pooling_is_followed():
    model = nn.Sequential(nn.Conv2d(1, 5, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(5, CLASSES)).double()
    found, *_ = learned(model, "predsim", draw(9, 1, 4, 4), labels(9), steps=1)
    assert found["0.weight"].abs().sum() > 0


@pytest.mark.parametrize(
    ("channels", "size", "expected"),
    [(128, (28, 28), (4, 7)), (512, (7, 7), (2, 4)), (32, (8, 8), (8, 8)), (5000, (4, 4), (1, 1))],
)
def test_maps_are_averaged_until_the_classifier_has_4096_inputs(channels, size, expected):
    assert windows(channels, *size) == expected


# ------------------------------------------------------------------------------------------- training, state and cost


@pytest.mark.parametrize("kind", KINDS)
def test_training_goes_on_as_if_it_had_not_stopped(kind):
    x, y = draw(9, 8), labels(9)

    def parts():
        model = network(dropout=0.2)
        return model, plasticity(model, kind), torch.optim.Adam(model.parameters(), lr=0.01)

    def steps(model, credit, optimizer, n):
        for _ in range(n):
            optimizer.zero_grad()
            credit.backward(x, losses_of(y))
            optimizer.step()

    torch.manual_seed(0)
    one = parts()
    steps(*one, 3)
    file = io.BytesIO()
    torch.save([part.state_dict() for part in one], file)
    file.seek(0)
    states = torch.get_rng_state()
    steps(*one, 2)
    other = parts()
    for part, state in zip(other, torch.load(file, weights_only=True), strict=True):
        part.load_state_dict(state)
    torch.set_rng_state(states)
    steps(*other, 2)
    for name, value in one[0].state_dict().items():
        assert torch.equal(value, other[0].state_dict()[name]), name
    for name, heads in one[1].local_losses.heads.items():
        for key, value in heads.items():
            assert torch.equal(value, other[1].local_losses.heads[name][key])


def test_the_rate_of_the_heads_can_change():
    model, x, y = network(), draw(9, 8), labels(9)
    credit = plasticity(model)
    credit.backward(x, losses_of(y))
    credit.local_losses.rate = 0.0
    before = copy.deepcopy(credit.local_losses.heads)
    credit.backward(x, losses_of(y))
    for name, heads in credit.local_losses.heads.items():
        for key, value in heads.items():
            assert torch.equal(value, before[name][key])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_the_price_of_a_run_equals_the_operations_of_torch(kind, model):
    """Four batches of 6 images; the record of the run has what its training counted."""
    x, y = draw(6, 1, 8, 8), labels(6)
    if model == "mlp":
        net = NormalizedNetwork((1, 8, 8), (7, 5), CLASSES).double()
    else:
        net = nn.Sequential(
            *(nn.Conv2d(1, 4, 5, padding=2, bias=False), nn.LeakyReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(4)),
            *(nn.Conv2d(4, 5, 3, padding=1, bias=False), nn.LeakyReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(5)),
            *(nn.Flatten(), nn.Linear(20, CLASSES)),
        ).double()
    credit = plasticity(net, kind)
    credit.backward(x, losses_of(y))
    counted = step_cost(credit, net, x, losses_of(y))
    config = {
        "model": model,
        "hidden": [7, 5] if model == "mlp" else [4, 5],
        "epochs": 2,
        "batch_size": 6,
        "local_rule": kind,
        "feedback": "none",
        "optimizer": "adam",
        "events": "always",
        "activation": "leaky-relu",
        **({"batch_norm": True} if model == "mlp" else {}),
    }
    summary = {"train/events": 4.0, "train/event_images": 24.0, "train/synaptic_updates": 0.0}
    data = {"image_shape": [1, 8, 8], "classes": CLASSES}
    price = cost_of(
        RunRecord("run", "eglp", 0, config, status="completed", data=data, summary=summary, speed={"samples": 24})
    )
    assert price.inference_flops == 4 * counted.forward
    assert price.learning_flops == 4 * counted.learning
    # Two layers get the event and the label.
    assert price.messages == 24 * 2 * 2
    assert credit.messages == 6 * 2 * 2
    numbers = sum(value.numel() for heads in credit.local_losses.heads.values() for value in heads.values())
    biases = sum(heads["bias"].numel() for heads in credit.local_losses.heads.values() if "bias" in heads)
    # The summary has no changes of hidden weights: the readout learns in 4 steps, and the heads in 4 events.
    assert price.updates == 4 * (5 if model == "mlp" else 20) * CLASSES + 4 * (numbers - biases)
    moments = sum(value.numel() for value in net.parameters()) + numbers
    buffers = sum(value.numel() for value in net.buffers() if value.is_floating_point())
    # The published cnn has no affine parameters of normalization.
    affine = 2 * (4 + 5) if model == "cnn" else 0
    assert price.state_bytes == 4 * (3 * (moments - affine) + buffers)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"feedback": "direct"}, "feedback='direct' does not go together with local_rule='predsim'"),
        ({"rest": "gradient"}, "rest='gradient' does not go together"),
        ({"similarity_weight": 1.5}, "similarity_weight is 1.5"),
        ({"head_rate": -1.0}, "head_rate is -1.0"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(UserError, match=message):
        plasticity(network(), **options)


def test_labels_are_needed_by_the_similarity_alone():
    model, x, target = network(), draw(9, 8), draw(9, CLASSES, seed=4)

    def squares(output):
        return (output - target).square().mean(1)

    with pytest.raises(UserError, match=r"local_rule='sim' needs labels.*local_rule='pred'"):
        plasticity(model, "sim").backward(x, squares)
    plasticity(model, "pred").backward(x, squares)
    assert model.hidden[0].weight.grad is not None


# -------------------------------------------------------------------------------------------------------- the command


def test_shifts_move_images_and_show_the_background():
    image = torch.arange(1.0, 13.0).view(1, 12)
    seen = set()
    move = Augmentation((1, 3, 4), (-1.0,), torch.Generator().manual_seed(0), shift=1, flip=True)
    for _ in range(200):
        moved = move(image).view(3, 4)
        options = {
            (dy, dx, flip): torch.roll(functional.pad(image.view(3, 4), (1, 1, 1, 1), value=-1.0), (dy, dx), (0, 1))[
                1:-1, 1:-1
            ].flip(1 if flip else ())
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
            for flip in (False, True)
        }
        seen |= {key for key, value in options.items() if torch.equal(value, moved)}
    assert len(seen) == 18


def test_a_shift_that_hides_whole_images_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ["--dataset", str(write_tiny_dataset(tmp_path / "data")), "--hidden", "4", "--epochs", "1"]
    outcome = plastic("train", "eglp", *small, "--shift", "6")
    assert outcome.code == 2
    assert "have 6 x 6 pixels" in outcome.err
    assert "Choose 5 or fewer." in outcome.err


def test_an_augmentation_of_nothing_returns_the_images():
    x = draw(5, 24)
    assert torch.equal(Augmentation((2, 3, 4), (0.0, 0.0), torch.Generator())(x), x)


def test_a_loss_implies_the_published_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written = tomllib.loads(plastic("train", "eglp", "--local-rule", "predsim", "--dry-run").out)
    expected = {
        "feedback": "none",
        "optimizer": "adam",
        "events": "always",
        "activation": "leaky-relu",
        "dropout": 0.1,
        "learning_rate": 0.0005,
        "local_learning_rate": 0.0005,
        "batch_norm": True,
        "anneal": False,
        "rate_drops": [0.5, 0.75, 0.89, 0.94],
        "similarity_weight": 0.99,
    }
    assert {name: written[name] for name in expected} == expected
    of_lenet = tomllib.loads(plastic("train", "eglp", "--local-rule", "pred", "--model", "lenet", "--dry-run").out)
    assert not of_lenet["batch_norm"]
    assert of_lenet["learning_rate"] == of_lenet["local_learning_rate"] == 0.0005


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--local-rule", "predsim", "--feedback", "direct"], "--local-rule predsim does nothing"),
        (["--local-rule", "pred", "--similarity-weight", "0.5"], "--similarity-weight 0.5 does nothing"),
        (["--local-rule", "pred", "--optimizer", "sgd", "--readout", "local"], "--readout local does not go together"),
        (["--rate-drops", "0.5", "--anneal"], "--rate-drops"),
        (["--rate-drops", "1.5"], "--rate-drops"),
        (["--model", "lenet", "--dropout", "0.5"], "--dropout 0.5 does nothing with --model lenet"),
        (["--batch-norm", "--initial-weights", "xavier"], "--initial-weights xavier does not go together"),
    ],
)
def test_options_that_contradict_are_refused(options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = plastic("train", "eglp", *options)
    assert outcome.code == 2
    assert message in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1


def test_a_stopped_run_continues_to_the_same_bits(tmp_path, monkeypatch):
    """With shifted images, dropout, the moments of both optimizers and the heads."""
    monkeypatch.chdir(tmp_path)
    data = ["--dataset", str(write_tiny_dataset(tmp_path / "data"))]
    options = ["--local-rule", "predsim", "--hidden", "8,6", "--batch-size", "20", "--shift", "1", "--flip"]
    command = ["train", "eglp", *data, *options, "--epochs", "3", "--json"]
    (whole,) = plastic(*command).results
    with interrupted_after(2):
        assert plastic(*command, "--name", "stopped").code == 130
    (continued,) = plastic("train", "eglp", "--resume", "stopped", "--json").results
    assert continued["metrics"] == whole["metrics"]
    metrics = whole["metrics"]
    assert metrics["train/messages"] == metrics["train/event_images"] * 2 * 2 > 0
    assert metrics["control/loss"] != metrics["test/loss"]


def test_backpropagation_has_the_same_network_and_schedule(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = ["--dataset", str(write_tiny_dataset(tmp_path / "data")), "--hidden", "8,6", "--epochs", "4", "--json"]
    same = ["--activation", "leaky-relu", "--batch-norm", "--dropout", "0.1", "--learning-rate", "0.0005"]
    drops = ["--rate-drops", "0.5,0.75,0.89,0.94"]
    (backprop,) = plastic("train", "eglp", *data, "--update", "backprop", *same, *drops).results
    (local,) = plastic("train", "eglp", *data, "--local-rule", "predsim").results
    networks = [network_of(open_run(Path(result["folder"]), stage="analyze")) for result in (backprop, local)]
    shapes = [{name: value.shape for name, value in network.state_dict().items()} for network in networks]
    assert shapes[0] == shapes[1]
    for result in (backprop, local):
        checkpoint = open_run(Path(result["folder"]), stage="analyze").record.config
        assert checkpoint["rate_drops"] == [0.5, 0.75, 0.89, 0.94]


def test_the_rates_drop_by_four_also_those_of_the_heads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = ["--dataset", str(write_tiny_dataset(tmp_path / "data")), "--hidden", "8", "--epochs", "1", "--json"]
    (result,) = plastic("train", "eglp", *data, "--local-rule", "predsim").results
    run = open_run(Path(result["folder"]), stage="analyze")
    learner = build(run, described_data(run), trained=False)
    for epoch, factor in ((0, 1.0), (9, 1.0), (10, 1 / 4), (15, 1 / 16), (18, 1 / 64), (19, 1 / 256)):
        learner.begin_epoch(epoch, 20)
        assert [group["lr"] for group in learner.optimizer.param_groups] == pytest.approx([0.0005 * factor] * 2)
        assert learner.credit.local_losses.rate == pytest.approx(0.0005 * factor)
