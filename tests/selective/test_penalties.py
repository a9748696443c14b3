"""penalties.py: held against the papers' equations, written out in float64 for one parameter or image at a time."""

import io

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from plastic_cli.errors import UserError
from plastic_selective import penalties
from plastic_selective.penalties import OnlineEWC, SynapticIntelligence, diagonal_fisher


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count, features=5, seed=1):
    return torch.randn(count, features, generator=generator(seed), dtype=torch.float64)


def network(*modules):
    return nn.Sequential(*modules).double()


def mlp():
    return network(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4))


def masked(model, allowed=(0, 2)):
    keep = torch.zeros(4, dtype=torch.bool)
    keep[list(allowed)] = True
    return lambda x: model(x).masked_fill(~keep, -torch.inf)


def fisher_by_definition(model, x, logits):
    """The mean over images of the expectation, over the model's own answer, of the squared derivative of log p."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    total = {name: np.zeros(tuple(p.shape)) for name, p in parameters.items()}
    for image in x:
        probabilities = logits(image[None])[0].softmax(0).tolist()
        for label, probability in enumerate(probabilities):
            if probability == 0:
                continue
            log_p = logits(image[None])[0].log_softmax(0)[label]
            gradients = torch.autograd.grad(log_p, list(parameters.values()), allow_unused=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    total[name] += probability * gradient.numpy() ** 2 / len(x)
    return total


def assert_same(tensors, arrays, rtol=1e-10, atol=1e-14):
    assert tensors.keys() == arrays.keys()
    for name, tensor in tensors.items():
        np.testing.assert_allclose(tensor.detach().numpy(), arrays[name], rtol=rtol, atol=atol, err_msg=name)


# -------------------------------------------------------------------------------------------------------------- Fisher


def test_fisher_of_softmax_regression_is_its_closed_form():
    """E_y (1[y = k] - p_k)^2 = p_k (1 - p_k), times the input squared."""
    model, x = nn.Linear(5, 4).double(), images(30)
    p = model(x).softmax(1).detach().numpy()
    variance = p * (1 - p)
    expected = {"weight": np.einsum("nk,ni->ki", variance, x.numpy() ** 2) / 30, "bias": variance.mean(axis=0)}
    assert_same(diagonal_fisher(model, x, model), expected)


def test_images_do_not_cancel():
    """The gradient of these two images together is zero, the Fisher information of their labels is not."""
    model = nn.Linear(1, 2, bias=False).double()
    nn.init.zeros_(model.weight)
    x = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    (batch,) = torch.autograd.grad(model(x).log_softmax(1)[:, 0].mean(), [model.weight])
    assert torch.equal(batch, torch.zeros_like(batch))
    assert_same(diagonal_fisher(model, x, model), {"weight": np.full((2, 1), 0.25)})


class Twice(nn.Module):
    """Calls one layer twice."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(5, 5), nn.Linear(5, 4)

    def forward(self, x):
        return self.outer(torch.tanh(self.inner(torch.tanh(self.inner(x)))))


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 4)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.out(torch.tanh(self.b(torch.tanh(self.a(x)))))


class Rows(nn.Module):
    """A linear layer over several rows of an image."""

    def __init__(self):
        super().__init__()
        self.row, self.out = nn.Linear(3, 2), nn.Linear(6, 4)

    def forward(self, x):
        rows = torch.stack([x[:, :3], x[:, 1:4], x[:, 2:]], dim=1)
        return self.out(torch.tanh(self.row(rows)).flatten(1))


class Unused(nn.Module):
    """Has a head that does not answer."""

    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(5, 4), nn.Linear(5, 4)

    def forward(self, x):
        self.unused(x)
        return self.used(x)


def frozen():
    model = mlp()
    model[0].weight.requires_grad_(False)
    model[2].bias.requires_grad_(False)
    return model


def frozen_layer():
    model = mlp()
    model[0].requires_grad_(False)
    return model


MODELS = {
    "linear layers": mlp,
    "ReLU in place": lambda: network(nn.Linear(5, 6), nn.ReLU(inplace=True), nn.Linear(6, 4)),
    "no bias": lambda: network(nn.Linear(5, 6, bias=False), nn.ELU(inplace=True), nn.Linear(6, 4)),
    "frozen": frozen,
    "frozen layer": frozen_layer,
    "called twice": lambda: Twice().double(),
    "tied": lambda: Tied().double(),
    "several rows": lambda: Rows().double(),
    "unused": lambda: Unused().double(),
    "convolution": lambda: network(
        nn.Unflatten(1, (1, 5)), nn.Conv1d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.LayerNorm(12), nn.Linear(12, 4)
    ),
    "batch normalisation": lambda: network(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 4)),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("mask", [False, True])
def test_fisher_is_its_definition_for_any_model(name, mask):
    model = MODELS[name]()
    x, logits = images(12), masked(model) if mask else model
    model(images(20, seed=2))  # batch normalisation then has a mean that is not zero
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = diagonal_fisher(model, x, logits)
    model.eval()
    assert_same(found, fisher_by_definition(model, x, logits))
    assert any(values.any() for values in found.values())
    after = model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


@pytest.mark.parametrize("labels", ["expected", "drawn"])
@pytest.mark.parametrize("chunk", [1, 100, 2**21])
def test_both_ways_of_computing_it_agree(labels, chunk, monkeypatch):
    model, x = mlp(), images(23)
    by_layer = diagonal_fisher(model, x, model, labels, generator(3))
    monkeypatch.setattr(penalties, "CHUNK", chunk)
    monkeypatch.setattr(penalties, "_linear_layers", lambda model: None)
    by_image = diagonal_fisher(model, x, model, labels, generator(3))
    assert_same(by_layer, {name: values.numpy() for name, values in by_image.items()})


def test_drawn_labels_come_from_the_models_own_answer():
    """Of many copies of one image, the squared derivative by the bias is (1[y = k] - p_k)^2, with y as p says."""
    model, count = nn.Linear(5, 4).double(), 20_000
    x = images(1).expand(count, -1)
    p = model(x[:1])[0].softmax(0).detach().numpy()
    found = diagonal_fisher(model, x, model, "drawn", generator(4))["bias"].numpy()
    # From the share of draws f_k of each label: f_k (1 - p_k)^2 + (1 - f_k) p_k^2.
    drawn = (found - p**2) / (1 - 2 * p) * count
    np.testing.assert_allclose(drawn, drawn.round(), atol=1e-6)
    assert 0.001 < stats.chisquare(drawn, p * count).pvalue < 0.999


def test_a_sure_model_still_has_fisher_information_with_expected_labels():
    """Where drawing a few labels finds only the likely one."""
    model = nn.Linear(5, 4).double()
    with torch.no_grad():
        model.bias.copy_(torch.tensor([12.0, 0, 0, 0]))
    p = model(images(20)).softmax(1).detach()
    expected = diagonal_fisher(model, images(20), model)["bias"]
    drawn = diagonal_fisher(model, images(20), model, "drawn", generator())["bias"]
    np.testing.assert_allclose(expected.numpy(), (p * (1 - p)).mean(0).numpy(), rtol=1e-10)
    assert drawn[1] < 1e-3 * expected[1]


@pytest.mark.parametrize("between", [nn.ReLU, lambda: nn.BatchNorm1d(6)])
def test_nothing_of_the_model_is_changed(between):
    model = network(nn.Linear(5, 6), nn.Dropout(0.5), between(), nn.Linear(6, 4))
    model[2].eval()
    parameters, flags = list(model.parameters()), [module.training for module in model.modules()]
    for labels in ("expected", "drawn"):
        first = diagonal_fisher(model, images(8), model, labels, generator(5))
        again = diagonal_fisher(model, images(8), model, labels, generator(5))
        assert_same(first, {name: values.numpy() for name, values in again.items()}, rtol=0)
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert [module.training for module in model.modules()] == flags
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_logits_that_do_not_depend_on_the_model_are_an_error():
    model, other = mlp(), mlp()
    for logits in (torch.no_grad()(lambda x: model(x)), lambda x: model(x).detach(), lambda x: x[:, :4], other):
        with pytest.raises(UserError, match="logits"):
            diagonal_fisher(model, images(4), logits)


def test_the_fisher_information_is_found_where_gradients_are_off():
    model = mlp()
    expected = fisher_by_definition(model, images(4), model)
    with torch.no_grad():
        assert_same(diagonal_fisher(model, images(4), model), expected)


def test_unknown_labels_are_an_error():
    with pytest.raises(UserError, match="expected"):
        diagonal_fisher(mlp(), images(4), lambda x: x, "expectd")


# ----------------------------------------------------------------------------------------------------------------- EWC


def ewc(model, **changes):
    return OnlineEWC(model, **{"strength": 3.0, "decay": 0.7, "samples": 100, "generator": generator(), **changes})


def make_penalty(kind, model, strength=3.0):
    if kind == "ewc":
        return ewc(model, strength=strength)
    return SynapticIntelligence(model, strength=strength, damping=0.1)


def value_of(penalty):
    return penalty.penalty().item()


def move(model, seed, scale=0.3):
    draws = generator(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(scale * torch.randn(p.shape, generator=draws, dtype=p.dtype))


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def task_loss(model, seed=6):
    x = images(9, seed=seed)
    return nn.functional.cross_entropy(model(x), torch.arange(9) % 4)


def test_online_ewc_decays_the_old_information_and_anchors_at_the_latest_parameters():
    model = mlp()
    penalty = ewc(model)
    fisher = dict.fromkeys(dict(model.named_parameters()), 0.0)
    for task in range(3):
        move(model, 10 + task)
        x = images(15, seed=20 + task)
        logits = masked(model, (task, 3))
        new = fisher_by_definition(model, x, logits)
        fisher = {name: 0.7 * fisher[name] + new[name] for name in fisher}
        penalty.end_task(x, logits)
        assert_same(penalty.importance(), fisher)
        anchor = {name: p.detach().clone() for name, p in model.named_parameters()}
    assert value_of(penalty) == 0
    move(model, 30)
    value = sum((fisher[name] * (p - anchor[name]).detach().numpy() ** 2).sum() for name, p in model.named_parameters())
    assert value_of(penalty) == pytest.approx(3.0 / 2 * value, rel=1e-10)


@pytest.mark.parametrize(("kind", "factor"), [("ewc", 3.0 / 2), ("si", 3.0)])
def test_the_added_gradient_is_that_of_the_penalty(kind, factor):
    model = mlp()
    penalty = make_penalty(kind, model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(20):
        step(penalty, optimizer, lambda: task_loss(model))
    penalty.end_task(images(15), model)
    move(model, 31)
    importance, anchor = penalty.state_dict()["importance"], penalty.state_dict()["anchor"]
    by_hand = factor * sum((importance[name] * (p - anchor[name]) ** 2).sum() for name, p in model.named_parameters())
    total = task_loss(model) + by_hand
    expected = dict(
        zip(dict(model.named_parameters()), torch.autograd.grad(total, list(model.parameters())), strict=True)
    )
    assert value_of(penalty) == pytest.approx(by_hand.item(), rel=1e-12)
    model.zero_grad()
    task_loss(model).backward()
    penalty.after_backward()
    before = gradients(model)
    penalty.add_gradients()
    assert_same(gradients(model), {name: value.numpy() for name, value in expected.items()})
    assert all(not torch.equal(before[name], value) for name, value in gradients(model).items())


@pytest.mark.parametrize("kind", ["ewc", "si"])
def test_the_first_task_has_no_penalty(kind):
    model = mlp()
    penalty = make_penalty(kind, model)
    penalty.add_gradients()
    assert gradients(model) == {}
    task_loss(model).backward()
    before = gradients(model)
    penalty.after_backward()
    penalty.add_gradients()
    assert_same(gradients(model), {name: value.numpy() for name, value in before.items()}, rtol=0, atol=0)
    assert value_of(penalty) == 0


def test_parameters_that_the_loss_does_not_reach_are_held_too():
    model = Unused().double()
    penalty = ewc(model)
    penalty.end_task(images(15), lambda x: model.unused(x) + model.used(x))
    move(model, 32)
    task_loss(model).backward()
    assert model.unused.weight.grad is None
    penalty.add_gradients()
    importance = penalty.importance()["unused.weight"]
    moved = model.unused.weight.detach() - penalty.state_dict()["anchor"]["unused.weight"]
    torch.testing.assert_close(model.unused.weight.grad, 3.0 * importance * moved, rtol=1e-12, atol=0)
    assert model.unused.weight.grad.any()


@pytest.mark.parametrize("kind", ["ewc", "si"])
def test_frozen_parameters_have_no_part_in_it(kind):
    model = frozen()
    penalty = make_penalty(kind, model)
    penalty.end_task(images(15), model)
    task_loss(model).backward()
    penalty.add_gradients()
    assert model[0].weight.grad is None
    assert set(penalty.importance()) == {"0.bias", "2.weight"}


def test_ewc_takes_as_many_images_as_it_is_told_and_others_with_another_seed():
    model, x = mlp(), images(50)
    found = []
    for seed in (0, 1):
        penalty = ewc(model, samples=8, generator=generator(seed))
        penalty.end_task(x, model)
        chosen = x[torch.randperm(50, generator=generator(seed))[:8]]
        assert_same(penalty.importance(), fisher_by_definition(model, chosen, model))
        found.append(penalty.importance()["0.weight"])
    assert not torch.allclose(*found)
    few = ewc(model, samples=80)
    few.end_task(x, model)
    assert_same(few.importance(), fisher_by_definition(model, x, model))


# ------------------------------------------------------------------------------------------------------------------ SI


class Bowl(nn.Module):
    """The loss 1/2 sum_i h_i (theta_i - centre_i)^2."""

    def __init__(self, start, curvature):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(start, dtype=torch.float64))
        self.curvature = torch.tensor(curvature, dtype=torch.float64)

    def loss(self, centre=0.0):
        return 0.5 * (self.curvature * (self.theta - torch.as_tensor(centre)) ** 2).sum()


def step(penalty, optimizer, loss):
    optimizer.zero_grad()
    loss().backward()
    penalty.after_backward()
    penalty.add_gradients()
    optimizer.step()
    penalty.after_step()


START, CURVATURE = [2.0, -1.0, 0.5], [1.0, 3.0, 0.2]


def path_after(rate, time):
    model = Bowl(START, CURVATURE)
    penalty = SynapticIntelligence(model, strength=1.0, damping=0.1)
    optimizer, before = torch.optim.SGD(model.parameters(), lr=rate), model.loss().item()
    for _ in range(round(time / rate)):
        step(penalty, optimizer, model.loss)
    return penalty.state_dict()["path"]["theta"].numpy(), before - model.loss().item()


def test_the_path_integral_of_gradient_descent_in_a_bowl():
    """theta_k = r^k theta_0 with r = 1 - rate h, so that omega = rate h^2 theta_0^2 (1 - r^2K) / (1 - r^2)."""
    rate, steps = 0.1, 25
    found, _ = path_after(rate, rate * steps)
    theta, h = np.array(START), np.array(CURVATURE)
    r = 1 - rate * h
    np.testing.assert_allclose(found, rate * h**2 * theta**2 * (1 - r ** (2 * steps)) / (1 - r**2), rtol=1e-12)


def test_the_path_integral_is_the_fall_of_the_loss_for_small_steps():
    errors = []
    for rate in (0.04, 0.02, 0.01):
        found, fall = path_after(rate, 2.0)
        errors.append(found.sum() - fall)
    # The error falls with the step, and is what a step's second-order term leaves: positive.
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.1)
    assert 0 < errors[2] < 0.02 * fall
    theta, h = np.array(START), np.array(CURVATURE)
    np.testing.assert_allclose(found, 0.5 * h * theta**2 * (1 - np.exp(-2 * h * 2.0)), rtol=0.03)


def test_noise_of_batches_adds_to_the_path_integral():
    """A gradient g + n steps by -rate (g + n): omega gains rate n^2 although the loss does not fall by it."""
    model = Bowl([0.0], [1e-9])
    penalty = SynapticIntelligence(model, strength=1.0, damping=0.1)
    optimizer, noise = torch.optim.SGD(model.parameters(), lr=0.01), images(400, 1, seed=7)
    for n in noise:
        step(penalty, optimizer, lambda n=n: (model.theta * n).sum())
    assert float(penalty.state_dict()["path"]["theta"]) == pytest.approx(0.01 * float((noise**2).sum()), rel=1e-9)


def synaptic_intelligence(centres, steps, rate, momentum, c, xi):
    """Three tasks of bowls by Zenke et al.'s equations 3 to 5, one parameter at a time, with momentum SGD."""
    importances, ends = [], []
    for start, h, *own in zip(START, CURVATURE, *centres, strict=True):
        theta, anchor, importance, velocity = start, start, 0.0, 0.0
        for task, centre in enumerate(own):
            omega = 0.0
            for _ in range(steps):
                gradient = h * (theta - centre)
                pull = 2 * c * importance * (theta - anchor) if task else 0.0
                velocity = momentum * velocity + gradient + pull
                moved = -rate * velocity
                omega += -gradient * moved
                theta += moved
            importance = max(0.0, importance + omega / ((theta - anchor) ** 2 + xi))
            anchor = theta
        importances.append(importance)
        ends.append(theta)
    return np.array(importances), np.array(ends)


CENTRES = ([0.0, 0.0, 0.0], [1.0, -3.0, 0.5], [1.0, 1.0, 9.0])


@pytest.mark.parametrize("steps", [3, 40])
def test_synaptic_intelligence_over_three_tasks(steps):
    model = Bowl(START, CURVATURE)
    penalty = SynapticIntelligence(model, strength=0.8, damping=0.05)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for centre in CENTRES:
        for _ in range(steps):
            step(penalty, optimizer, lambda centre=centre: model.loss(torch.tensor(centre)))
        penalty.end_task()
        assert not penalty.state_dict()["path"]["theta"].any()
    importance, end = synaptic_intelligence(CENTRES, steps, 0.05, 0.9, 0.8, 0.05)
    np.testing.assert_allclose(model.theta.detach().numpy(), end, rtol=1e-10)
    np.testing.assert_allclose(penalty.importance()["theta"].numpy(), importance, rtol=1e-9)


def test_moving_against_the_gradient_never_makes_importance_negative():
    model = Bowl([1.0, 1.0], [1.0, 1.0])
    penalty = SynapticIntelligence(model, strength=1.0, damping=0.1)

    def moved_by(distances):
        model.zero_grad()
        model.loss().backward()
        penalty.after_backward()
        with torch.no_grad():
            model.theta += torch.tensor(distances, dtype=torch.float64)
        penalty.after_step()
        penalty.end_task()
        return penalty.importance()["theta"].tolist()

    # -g dtheta / (dtheta^2 + xi): g = 1, dtheta = -0.5 and +0.5.
    assert moved_by([-0.5, 0.5]) == pytest.approx([0.5 / 0.35, 0.0])
    # g = 0.5, dtheta = +0.2: takes away from what was there; g = 1.5, dtheta = -0.5: nothing owed from before.
    assert moved_by([0.2, -0.5]) == pytest.approx([0.5 / 0.35 - 0.1 / 0.14, 0.75 / 0.35])


def test_a_parameter_that_did_not_move_does_not_matter():
    model = Bowl(START, [1.0, 0.0, 1.0])
    penalty = SynapticIntelligence(model, strength=1.0, damping=1e-3)
    step(penalty, torch.optim.SGD(model.parameters(), lr=0.1), model.loss)
    penalty.end_task()
    importance = penalty.importance()["theta"]
    assert importance[1] == 0
    assert (importance[[0, 2]] > 0).all()


def test_a_step_without_its_gradient_is_an_error():
    model = Bowl(START, CURVATURE)
    penalty = SynapticIntelligence(model, strength=1.0, damping=0.1)
    with pytest.raises(RuntimeError, match="after_backward"):
        penalty.after_step()
    step(penalty, torch.optim.SGD(model.parameters(), lr=0.1), model.loss)
    with pytest.raises(RuntimeError, match="after_backward"):
        penalty.after_step()


# ---------------------------------------------------------------------------------------------------------------- both


def largest_move(penalty, model, rate, steps=400):
    """How far plain gradient descent on the penalty alone gets away from the anchor, as a share of the start."""
    anchor = torch.cat([values.flatten() for values in penalty.state_dict()["anchor"].values()])
    move(model, 33)
    distances = []
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        penalty.add_gradients()
        optimizer.step()
        distances.append(float((nn.utils.parameters_to_vector(model.parameters()) - anchor).detach().norm()))
    return distances[-1] / distances[0]


@pytest.mark.parametrize("kind", ["ewc", "si"])
@pytest.mark.parametrize("strength", [1.0, 1e6])
@pytest.mark.parametrize(("factor", "diverges"), [(0.97, False), (1.03, True)])
def test_gradient_descent_diverges_above_two_divided_by_the_largest_curvature(kind, strength, factor, diverges):
    model = mlp()
    penalty = make_penalty(kind, model, strength)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(20):
        # The first task: there is no penalty yet, however strong it will be.
        step(penalty, optimizer, lambda: task_loss(model))
    penalty.end_task(images(15), model)
    parabola = strength / 2 if kind == "ewc" else strength
    curvature = 2 * parabola * max(float(importance.max()) for importance in penalty.importance().values())
    ratio = largest_move(penalty, model, factor * 2 / curvature)
    assert ratio > 100 if diverges else ratio <= 1


@pytest.mark.parametrize("kind", ["ewc", "si"])
@pytest.mark.parametrize("interrupted", [5, 12, 20])
def test_a_restored_penalty_goes_on_as_if_nothing_had_happened(kind, interrupted):
    def parts(seed):
        model = mlp()
        if kind == "ewc":
            return model, ewc(model, samples=6, labels="drawn", generator=generator(seed))
        return model, SynapticIntelligence(model, strength=3.0, damping=0.1)

    def learn(model, penalty, optimizer, first, end):
        for number in range(first, end):
            step(penalty, optimizer, lambda number=number: task_loss(model, seed=40 + number))
            if number % 10 == 9:
                penalty.end_task(images(15, seed=number), model)

    model, penalty = parts(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    learn(model, penalty, optimizer, 0, interrupted)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "penalty": penalty.state_dict()}, file)
    file.seek(0)
    learn(model, penalty, optimizer, interrupted, 30)
    again, restored = parts(2)
    state = torch.load(file, weights_only=True)
    again.load_state_dict(state["model"])
    restored.load_state_dict(state["penalty"])
    learn(again, restored, torch.optim.SGD(again.parameters(), lr=0.05), interrupted, 30)
    for name, values in model.state_dict().items():
        assert torch.equal(values, again.state_dict()[name])
    assert all(torch.equal(values, restored.importance()[name]) for name, values in penalty.importance().items())
    assert penalty.tasks == restored.tasks == 3


@pytest.mark.parametrize("kind", ["ewc", "si"])
def test_a_state_does_not_change_with_the_penalty(kind):
    model = mlp()
    penalty = make_penalty(kind, model)
    state = penalty.state_dict()
    step(penalty, torch.optim.SGD(model.parameters(), lr=0.1), lambda: task_loss(model))
    penalty.end_task(images(15), model)
    assert state["tasks"] == 0
    assert not any(values.any() for values in state["importance"].values())
    assert any(not torch.equal(values, state["anchor"][name]) for name, values in model.state_dict().items())


def test_impossible_values_are_errors_that_name_them():
    model = mlp()
    for wrong in ({"strength": -1.0}, {"strength": float("nan")}, {"decay": 1.1}, {"decay": -0.1}, {"samples": 0}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            ewc(model, **wrong)
    for strength, damping, name in ((-1.0, 0.1, "strength"), (1.0, 0.0, "damping"), (1.0, float("inf"), "damping")):
        with pytest.raises(UserError, match=name):
            SynapticIntelligence(model, strength=strength, damping=damping)
