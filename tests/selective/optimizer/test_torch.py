"""The optimizer, compared with torch's own optimizers and used with torch's schedulers, hooks and gradient scaler."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from plastic_selective import SelectivePlasticityOptimizer
from selective.optimizer.synapses import (
    ALLOWED,
    FLOATS,
    HALVES,
    TORCH_OWN,
    each_base,
    each_float,
    learn,
    only,
    parameter,
    stream,
)

# ------------------------------------------------------------------------------------------------------- without a gate


EXACT = [("sgd", dtype) for dtype in (*FLOATS, *HALVES)] + [("adam", dtype) for dtype in FLOATS]


@pytest.mark.parametrize("tensor_lr", [False, True])
@pytest.mark.parametrize(("base", "dtype"), EXACT)
def test_without_a_gate_it_equals_torch_bit_for_bit(base, dtype, tensor_lr):
    shapes = [(33, 17), (17,), (), (1, 2, 3)]
    ours, theirs = ([parameter(*shape, seed=n, dtype=dtype) for n, shape in enumerate(shapes)] for _ in range(2))
    lr = torch.tensor(0.01) if tensor_lr else 0.01
    own = {} if base == "sgd" else {"betas": (0.8, 0.99), "eps": 1e-6}
    mine = SelectivePlasticityOptimizer(ours, lr=lr, plasticity_k=0, base=base, **own)
    other = TORCH_OWN[base](theirs, lr=lr, foreach=False, **own)
    gradients = list(zip(*(stream(*shape, steps=120, dtype=dtype) for shape in shapes), strict=True))
    learn(mine, ours, gradients)
    learn(other, theirs, gradients)
    assert all(torch.equal(p, q) for p, q in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("tensor_lr", [False, True])
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize(("base", "dtype"), EXACT)
def test_without_a_gate_weight_decay_and_maximize_equal_torch_bit_for_bit(base, dtype, maximize, tensor_lr):
    """AdamW for base "adam". torch's SGD has no decoupled decay, so only maximize is compared bit for bit."""
    shapes = [(33, 17), (17,), ()]
    ours, theirs = ([parameter(*shape, seed=n, dtype=dtype) for n, shape in enumerate(shapes)] for _ in range(2))
    own = {"lr": torch.tensor(0.01) if tensor_lr else 0.01, "maximize": maximize}
    own |= {} if base == "sgd" else {"weight_decay": 0.3}
    mine = SelectivePlasticityOptimizer(ours, plasticity_k=0, base=base, **own)
    other = (torch.optim.SGD if base == "sgd" else torch.optim.AdamW)(theirs, foreach=False, **own)
    gradients = list(zip(*(stream(*shape, steps=60, dtype=dtype) for shape in shapes), strict=True))
    learn(mine, ours, gradients)
    learn(other, theirs, gradients)
    assert all(torch.equal(p, q) for p, q in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("maximize", [False, True])
@each_float
def test_in_sgd_decoupled_decay_is_that_of_torch(dtype, maximize):
    """p - lr (g + d p) = (1 - lr d) p - lr g. With maximize, the decay still shrinks p."""
    p, q = parameter(31, dtype=dtype), parameter(31, dtype=dtype)
    own = {"lr": 0.05, "weight_decay": 0.2, "maximize": maximize}
    learn(SelectivePlasticityOptimizer([p], base="sgd", plasticity_k=0, **own), [p], stream(31, steps=50, dtype=dtype))
    learn(torch.optim.SGD([q], foreach=False, **own), [q], stream(31, steps=50, dtype=dtype))
    torch.testing.assert_close(p, q, **ALLOWED[dtype])


@each_float
@each_base
def test_maximize_is_descent_on_the_negative_gradient(base, dtype):
    """With a gate, in both paths: the gate depends on magnitudes only."""
    ends = []
    for sign, maximize in ((1, True), (-1, False)):
        p = parameter(60, dtype=dtype)
        optimizer = SelectivePlasticityOptimizer(
            [p], base=base, lr=0.1, warmup_steps=2, plasticity_k=9.0, maximize=maximize
        )
        learn(optimizer, [p], [sign * g for g in stream(60, steps=12, dtype=dtype)])
        ends.append(p.detach())
        assert optimizer.get_param_gate(p).min() < 0.9
    assert torch.equal(*ends)


@each_float
@each_base
def test_the_gate_does_not_act_on_weight_decay(base, dtype):
    """If the gradient is 0 and the synapse is idle, the parameter shrinks by 1 - lr decay for every gate."""
    p = parameter(20, dtype=dtype)
    start = p.detach().clone()
    optimizer = SelectivePlasticityOptimizer(
        [p], base=base, lr=0.1, weight_decay=0.5, plasticity_k=10.0, warmup_steps=0, eps=1e-3
    )
    learn(optimizer, [p], [torch.zeros(20, dtype=dtype)] * 3)
    torch.testing.assert_close(p.detach(), start * (1 - 0.1 * 0.5) ** 3, **ALLOWED[dtype])
    p.grad = None
    kept = p.detach().clone()
    optimizer.step()
    assert torch.equal(p, kept)  # no gradient, no decay, as in torch's optimizers


def test_adam_with_an_eps_of_0():
    """eps may be 0, as in torch's Adam."""
    p, q = parameter(9), parameter(9)
    learn(SelectivePlasticityOptimizer([p], base="adam", eps=0, plasticity_k=0), [p], stream(9))
    learn(torch.optim.Adam([q], eps=0, foreach=False), [q], stream(9))
    assert torch.equal(p, q)


def test_the_state_is_adams_or_one_buffer():
    for base, buffers in (("adam", 2), ("sgd", 1)):
        p = parameter(50, 20)
        optimizer = SelectivePlasticityOptimizer([p], base=base)
        learn(optimizer, [p], stream(50, 20, steps=2))
        assert sum(value.numel() for value in only(optimizer).values()) <= buffers * p.numel() + 3


# -------------------------------------------------------------------------------------------------- groups and closures


@each_base
def test_a_group_that_is_added_later_has_its_own_warm_up(base):
    first, late, alone = parameter(8), parameter(8, seed=1), parameter(8, seed=1)
    optimizer = SelectivePlasticityOptimizer([first], base=base, warmup_steps=6, lr=0.1)
    learn(optimizer, [first], stream(8, steps=4))
    optimizer.add_param_group({"params": late, "lr": 0.05, "plasticity_k": 9.0})
    learn(optimizer, [first, late], [(g, h) for g, h in zip(stream(8, seed=300), stream(8, seed=400), strict=True)])
    by_itself = SelectivePlasticityOptimizer([alone], base=base, warmup_steps=6, lr=0.05, plasticity_k=9.0)
    learn(by_itself, [alone], stream(8, seed=400))
    assert torch.equal(late, alone)
    assert optimizer.get_diagnostics()["step_count"] == 14


def test_a_closure_is_called_once_with_gradients_on_and_its_loss_comes_back():
    p = parameter(3)
    optimizer = SelectivePlasticityOptimizer([p], lr=0.1)
    calls = []

    def closure():
        calls.append(torch.is_grad_enabled())
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    before = p.detach().clone()
    loss = optimizer.step(closure)
    assert calls == [True]
    assert loss.item() == pytest.approx(before.square().sum().item())
    assert p.square().sum() < before.square().sum()
    assert optimizer.step() is None


@each_base
def test_without_gradients_nothing_moves_and_no_state_appears(base):
    p, q = parameter(3), parameter(3)
    optimizer = SelectivePlasticityOptimizer([p, q], base=base)
    optimizer.step()
    assert not optimizer.state
    before = p.detach().clone()
    learn(optimizer, [p, q], [(None, g) for g in stream(3, steps=2)])
    assert torch.equal(p, before)
    assert list(optimizer.state) == [q]


def test_a_parameter_given_twice_is_handled_as_in_torch():
    p = parameter(3)
    with pytest.warns(UserWarning, match="duplicate"):
        SelectivePlasticityOptimizer([p, p])
    with pytest.raises(ValueError, match="more than one parameter group"):
        SelectivePlasticityOptimizer([{"params": [p]}, {"params": [p]}])
    with pytest.raises(ValueError, match="empty parameter list"):
        SelectivePlasticityOptimizer([])
    with pytest.raises(TypeError, match="must be a dict"):
        SelectivePlasticityOptimizer([p]).add_param_group(parameter(3))


# ---------------------------------------------------------------------------------------- schedulers, hooks and scalers


@pytest.mark.parametrize("tensor_lr", [False, True])
@each_base
def test_schedulers_set_the_learning_rate(base, tensor_lr):
    factors = [1.0, 0.5, 0.25, 2.0, 0.0]
    p, q = parameter(9), parameter(9)
    lr = torch.tensor(0.125) if tensor_lr else 0.125
    optimizer = SelectivePlasticityOptimizer([p], base=base, lr=lr, warmup_steps=2)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: factors[t])
    by_hand = SelectivePlasticityOptimizer([q], base=base, warmup_steps=2)
    path = [p.detach().clone()]
    for t, g in enumerate(stream(9, steps=5)):
        learn(optimizer, [p], [g])
        path.append(p.detach().clone())
        if t < 4:
            scheduler.step()
        by_hand.param_groups[0]["lr"] = 0.125 * factors[t]
        learn(by_hand, [q], [g])
    assert torch.equal(p, q)
    assert [torch.equal(*pair) for pair in itertools.pairwise(path)] == [False, False, False, False, True]


@pytest.mark.parametrize("tensor_lr", [False, True])
def test_one_cycle_changes_betas(tensor_lr):
    p, q = parameter(9), parameter(9)
    ours = SelectivePlasticityOptimizer([p], base="adam", plasticity_k=0, lr=torch.tensor(0.1) if tensor_lr else 0.1)
    theirs = torch.optim.Adam([q], foreach=False, lr=torch.tensor(0.1) if tensor_lr else 0.1)
    for optimizer, x in ((ours, p), (theirs, q)):
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=20)
        firsts = set()
        for g in stream(9, steps=19):
            learn(optimizer, [x], [g])
            firsts.add(optimizer.param_groups[0]["betas"][0])
            scheduler.step()
        assert len(firsts) > 5
    assert torch.equal(p, q)


def test_one_cycle_does_not_change_the_trace_decay_of_base_sgd():
    p, q = parameter(9), parameter(9)
    optimizer = SelectivePlasticityOptimizer([p], base="sgd")
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=20)
    constant = SelectivePlasticityOptimizer([q], base="sgd")
    for g in stream(9, steps=10):
        constant.param_groups[0]["lr"] = optimizer.param_groups[0]["lr"]
        learn(optimizer, [p], [g])
        learn(constant, [q], [g])
        scheduler.step()
    assert torch.equal(p, q)


def schedulers():
    """Every scheduler of torch that needs only an optimizer."""
    on = torch.optim.lr_scheduler
    yield from (
        lambda o: on.LambdaLR(o, lambda t: 0.5**t),
        lambda o: on.StepLR(o, 2),
        lambda o: on.CosineAnnealingLR(o, 3),
        lambda o: on.CyclicLR(o, 0.01, 0.1, 2, cycle_momentum=True),
        lambda o: on.OneCycleLR(o, 0.1, total_steps=9),
        lambda o: on.CosineAnnealingWarmRestarts(o, 2),
        lambda o: on.ReduceLROnPlateau(o),
        lambda o: torch.optim.swa_utils.SWALR(o, 0.05),
    )


@pytest.mark.parametrize("make", [*schedulers()])
@each_base
def test_entries_of_schedulers_in_a_group_are_accepted_and_saved(base, make):
    p = parameter(4)
    optimizer = SelectivePlasticityOptimizer([{"params": [p], "name": "only"}], base=base, lr=0.1)
    scheduler = make(optimizer)
    for g in stream(4, steps=5):
        learn(optimizer, [p], [g])
        scheduler.step(*([1.0] if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau) else []))
    q = parameter(4)
    other = SelectivePlasticityOptimizer([q], base=base)
    other.load_state_dict(optimizer.state_dict())
    learn(other, [q], stream(4, steps=1))
    assert other.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]


def test_step_hooks_are_called_around_a_step():
    p = parameter(3)
    optimizer = SelectivePlasticityOptimizer([p], lr=0.1)
    seen = []
    before = optimizer.register_step_pre_hook(lambda *_: seen.append(p.detach().clone()))
    after = optimizer.register_step_post_hook(lambda *_: seen.append(p.detach().clone()))
    start = p.detach().clone()
    learn(optimizer, [p], stream(3, steps=1))
    assert torch.equal(seen[0], start)
    assert torch.equal(seen[1], p.detach())
    assert not torch.equal(seen[0], seen[1])
    before.remove()
    after.remove()
    learn(optimizer, [p], stream(3, steps=1))
    assert len(seen) == 2


def test_names_of_parameters_are_kept():
    model = nn.Linear(2, 3)
    optimizer = SelectivePlasticityOptimizer(model.named_parameters())
    assert optimizer.state_dict()["param_groups"][0]["param_names"] == ["weight", "bias"]


@each_base
def test_a_gradient_scaler_unscales_and_skips(base):
    p, q = parameter(4), parameter(4)
    scaled, plain = (SelectivePlasticityOptimizer([x], base=base, lr=0.1, warmup_steps=0) for x in (p, q))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for scale in (1.0, 2.0):
        for x, backward in ((p, scaler.scale), (q, lambda loss: loss)):
            x.grad = None
            backward((x.square() * scale).sum()).backward()
        scaler.step(scaled)
        scaler.update()
        plain.step()
    assert torch.equal(p, q)
    p.grad = torch.tensor([1.0, math.inf, 1.0, 1.0])
    scaler.scale(torch.ones(()))
    scaler.step(scaled)
    scaler.update()
    assert torch.equal(p, q)
    assert scaler.get_scale() == 512
    assert scaled.get_diagnostics()["step_count"] == 2
