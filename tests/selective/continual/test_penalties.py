"""penalties.py, compared with the papers' equations in float64 for one parameter or image at a time."""

import io

import numpy as np
import pytest
import torch
from torch import nn

from plastic_cli.errors import UserError
from plastic_selective.continual.penalties import OnlineEWC, SynapticIntelligence
from selective.continual.models import Unused, assert_same, fisher_by_definition, frozen, generator, images, masked, mlp


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


# ----------------------------------------------------------------------------------------------------------------- EWC


def ewc(model, **changes):
    return OnlineEWC(model, **{"strength": 3.0, "decay": 0.7, "samples": 100, "generator": generator(), **changes})


def make_penalty(kind, model, strength=3.0):
    if kind == "ewc":
        return ewc(model, strength=strength)
    return SynapticIntelligence(model, strength=strength, damping=0.1)


def importance_of(penalty):
    """The importance of each parameter, by the parameter's name."""
    return penalty.state_dict()["importance"]


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
        assert_same(importance_of(penalty), fisher)
        anchor = {name: p.detach().clone() for name, p in model.named_parameters()}
    penalty.add_gradients()
    assert not any(gradient.any() for gradient in gradients(model).values())
    move(model, 30)
    penalty.add_gradients()
    # The gradient of 3 / 2 sum F (theta - anchor)^2.
    moved = {name: (p - anchor[name]).detach().numpy() for name, p in model.named_parameters()}
    assert_same(gradients(model), {name: 3.0 * fisher[name] * moved[name] for name in moved})


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


def test_parameters_that_the_loss_does_not_depend_on_are_penalized_too():
    model = Unused().double()
    penalty = ewc(model)
    penalty.end_task(images(15), lambda x: model.unused(x) + model.used(x))
    move(model, 32)
    task_loss(model).backward()
    assert model.unused.weight.grad is None
    penalty.add_gradients()
    importance = importance_of(penalty)["unused.weight"]
    moved = model.unused.weight.detach() - penalty.state_dict()["anchor"]["unused.weight"]
    torch.testing.assert_close(model.unused.weight.grad, 3.0 * importance * moved, rtol=1e-12, atol=0)
    assert model.unused.weight.grad.any()


@pytest.mark.parametrize("kind", ["ewc", "si"])
def test_frozen_parameters_are_left_out(kind):
    model = frozen()
    penalty = make_penalty(kind, model)
    penalty.end_task(images(15), model)
    task_loss(model).backward()
    penalty.add_gradients()
    assert model[0].weight.grad is None
    assert set(importance_of(penalty)) == {"0.bias", "2.weight"}


def test_ewc_uses_the_number_of_images_of_its_option_and_draws_them_from_the_seed():
    model, x = mlp(), images(50)
    found = []
    for seed in (0, 1):
        penalty = ewc(model, samples=8, generator=generator(seed))
        penalty.end_task(x, model)
        chosen = x[torch.randperm(50, generator=generator(seed))[:8]]
        assert_same(importance_of(penalty), fisher_by_definition(model, chosen, model))
        found.append(importance_of(penalty)["0.weight"])
    assert not torch.allclose(*found)
    few = ewc(model, samples=80)
    few.end_task(x, model)
    assert_same(importance_of(few), fisher_by_definition(model, x, model))


# ------------------------------------------------------------------------------------------------------------------ SI


class Bowl(nn.Module):
    """The loss 1/2 sum_i h_i (theta_i - center_i)^2."""

    def __init__(self, start, curvature):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(start, dtype=torch.float64))
        self.curvature = torch.tensor(curvature, dtype=torch.float64)

    def loss(self, center=0.0):
        return 0.5 * (self.curvature * (self.theta - torch.as_tensor(center)) ** 2).sum()


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


def test_for_small_steps_the_path_integral_is_the_decrease_of_the_loss():
    errors = []
    for rate in (0.04, 0.02, 0.01):
        found, fall = path_after(rate, 2.0)
        errors.append(found.sum() - fall)
    # The error is the second-order term of a step: positive, and smaller for smaller steps.
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.1)
    assert 0 < errors[2] < 0.02 * fall
    theta, h = np.array(START), np.array(CURVATURE)
    np.testing.assert_allclose(found, 0.5 * h * theta**2 * (1 - np.exp(-2 * h * 2.0)), rtol=0.03)


def test_noise_of_batches_adds_to_the_path_integral():
    """A gradient g + n gives a step of -rate (g + n). omega grows by rate n^2, but the loss does not decrease by it."""
    model = Bowl([0.0], [1e-9])
    penalty = SynapticIntelligence(model, strength=1.0, damping=0.1)
    optimizer, noise = torch.optim.SGD(model.parameters(), lr=0.01), images(400, 1, seed=7)
    for n in noise:
        step(penalty, optimizer, lambda n=n: (model.theta * n).sum())
    assert float(penalty.state_dict()["path"]["theta"]) == pytest.approx(0.01 * float((noise**2).sum()), rel=1e-9)


def synaptic_intelligence(centers, steps, rate, momentum, c, xi):
    """Three tasks of bowls by Zenke et al.'s equations 3 to 5, one parameter at a time, with momentum SGD."""
    importances, ends = [], []
    for start, h, *own in zip(START, CURVATURE, *centers, strict=True):
        theta, anchor, importance, velocity = start, start, 0.0, 0.0
        for task, center in enumerate(own):
            omega = 0.0
            for _ in range(steps):
                gradient = h * (theta - center)
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


CENTERS = ([0.0, 0.0, 0.0], [1.0, -3.0, 0.5], [1.0, 1.0, 9.0])


@pytest.mark.parametrize("steps", [3, 40])
def test_synaptic_intelligence_over_three_tasks(steps):
    model = Bowl(START, CURVATURE)
    penalty = SynapticIntelligence(model, strength=0.8, damping=0.05)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for center in CENTERS:
        for _ in range(steps):
            step(penalty, optimizer, lambda center=center: model.loss(torch.tensor(center)))
        penalty.end_task()
        assert not penalty.state_dict()["path"]["theta"].any()
    importance, end = synaptic_intelligence(CENTERS, steps, 0.05, 0.9, 0.8, 0.05)
    np.testing.assert_allclose(model.theta.detach().numpy(), end, rtol=1e-10)
    np.testing.assert_allclose(importance_of(penalty)["theta"].numpy(), importance, rtol=1e-9)


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
        return importance_of(penalty)["theta"].tolist()

    # -g dtheta / (dtheta^2 + xi): g = 1, dtheta = -0.5 and +0.5.
    assert moved_by([-0.5, 0.5]) == pytest.approx([0.5 / 0.35, 0.0])
    # g = 0.5, dtheta = +0.2 reduces the importance; g = 1.5, dtheta = -0.5 starts from an importance of 0.
    assert moved_by([0.2, -0.5]) == pytest.approx([0.5 / 0.35 - 0.1 / 0.14, 0.75 / 0.35])


def test_a_parameter_that_did_not_move_has_no_importance():
    model = Bowl(START, [1.0, 0.0, 1.0])
    penalty = SynapticIntelligence(model, strength=1.0, damping=1e-3)
    step(penalty, torch.optim.SGD(model.parameters(), lr=0.1), model.loss)
    penalty.end_task()
    importance = importance_of(penalty)["theta"]
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
    """The distance to the anchor after gradient descent on the penalty, as a share of that at the start."""
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
        # The first task has no penalty, whatever the strength.
        step(penalty, optimizer, lambda: task_loss(model))
    penalty.end_task(images(15), model)
    scale = strength / 2 if kind == "ewc" else strength
    curvature = 2 * scale * max(float(importance.max()) for importance in importance_of(penalty).values())
    ratio = largest_move(penalty, model, factor * 2 / curvature)
    assert ratio > 100 if diverges else ratio <= 1


@pytest.mark.parametrize("kind", ["ewc", "si"])
@pytest.mark.parametrize("interrupted", [5, 12, 20])
def test_a_restored_penalty_continues_identically(kind, interrupted):
    def parts(seed):
        model = mlp()
        if kind == "ewc":
            return model, ewc(model, samples=6, generator=generator(seed))
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
    assert all(torch.equal(values, importance_of(restored)[name]) for name, values in importance_of(penalty).items())
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


def test_values_out_of_range_are_errors_that_name_them():
    model = mlp()
    for wrong in ({"strength": -1.0}, {"strength": float("nan")}, {"decay": 1.1}, {"decay": -0.1}, {"samples": 0}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            ewc(model, **wrong)
    for strength, damping, name in ((-1.0, 0.1, "strength"), (1.0, 0.0, "damping"), (1.0, float("inf"), "damping")):
        with pytest.raises(UserError, match=name):
            SynapticIntelligence(model, strength=strength, damping=damping)
