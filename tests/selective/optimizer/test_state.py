"""Diagnostics, saving and loading."""

from __future__ import annotations

import copy
import io
import itertools
import math
import pickle

import pytest
import torch
from torch import nn

from plastic_selective import SelectivePlasticityOptimizer
from selective.optimizer.synapses import (
    FLOATS,
    HALVES,
    each_base,
    each_float,
    learn,
    normal,
    only,
    parameter,
    steady,
    stream,
)

# ---------------------------------------------------------------------------------------------------------- diagnostics


@each_float
@each_base
def test_diagnostics_are_what_the_equations_say(base, dtype):
    p, q = parameter(6, 7, dtype=dtype), parameter(5, seed=1, dtype=dtype)
    optimizer = SelectivePlasticityOptimizer(
        [{"params": [p]}, {"params": [q], "plasticity_k": 9.9}], base=base, warmup_steps=0, plasticity_k=6.0
    )
    gradients = [stream(6, 7, steps=8, dtype=dtype), stream(5, steps=8, seed=300, dtype=dtype)]
    learn(optimizer, [p, q], zip(*gradients, strict=True))

    eligibilities, shares, gates = [], [], []
    for seen, k in zip(gradients, (6.0, 9.9), strict=True):
        g = torch.stack(seen).double()
        ages = torch.arange(7, -1, -1, dtype=torch.float64).view(-1, *[1] * (g.dim() - 1))
        if base == "sgd":
            e = (0.01 * 0.99**ages * g.abs()).sum(0)
            busy = e / e.max()
        else:
            e = ((0.001 * 0.999**ages * g.square()).sum(0) / (1 - 0.999**8)).sqrt()
            busy = (e > e.flatten().sort().values[math.ceil(0.75 * e.numel()) - 1]).double()
        eligibilities.append(e.flatten())
        shares.append(busy.flatten())
        gates.append((1 - k / 10 * busy * (1 - g[-1].abs() / g[-1].abs().max())).clamp(0.1, 1).flatten())
    e, busy, gate = torch.cat(eligibilities), torch.cat(shares), torch.cat(gates)
    assert (gate < 0.5).any()
    assert optimizer.get_diagnostics() == {
        "step_count": 8.0,
        "eligibility_mean": pytest.approx(e.mean().item(), rel=1e-5),
        "eligibility_max": pytest.approx(e.max().item(), rel=1e-5),
        "busy_ratio": pytest.approx(busy.mean().item(), rel=1e-5),
        "gate_mean": pytest.approx(gate.mean().item(), rel=1e-5),
        "gate_low_ratio": pytest.approx((gate < 0.5).double().mean().item()),
    }
    for one, shape, found in ((p, (6, 7), 0), (q, (5,), 1)):
        e, gate = eligibilities[found].view(shape).to(dtype), gates[found].view(shape).to(dtype)
        torch.testing.assert_close(optimizer.get_param_eligibility(one), e, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(optimizer.get_param_gate(one), gate, rtol=1e-5, atol=1e-6)


@each_base
def test_diagnostics_before_the_first_step_and_without_gradients(base):
    p = parameter(4)
    optimizer = SelectivePlasticityOptimizer([p], base=base)
    nothing = {"step_count": 0.0, "eligibility_mean": 0.0, "eligibility_max": 0.0}
    unknown = {"busy_ratio": math.nan, "gate_mean": math.nan, "gate_low_ratio": math.nan}
    assert optimizer.get_diagnostics() == pytest.approx({**nothing, **unknown}, nan_ok=True)
    assert optimizer.get_param_eligibility(p) is None
    assert optimizer.get_param_gate(p) is None
    p.grad = normal(4)
    assert optimizer.get_param_gate(p) is None
    assert optimizer.get_diagnostics()["step_count"] == 0

    optimizer.step()
    seen = optimizer.get_diagnostics()
    assert all(math.isfinite(value) for value in seen.values())
    optimizer.zero_grad()
    without = optimizer.get_diagnostics()
    assert without == pytest.approx({**seen, "gate_mean": math.nan, "gate_low_ratio": math.nan}, nan_ok=True)
    assert optimizer.get_param_gate(p) is None
    assert optimizer.get_param_eligibility(p).shape == p.shape
    assert optimizer.get_param_eligibility(parameter(4)) is None


@each_base
def test_diagnostics_change_nothing(base):
    p = parameter(9)
    optimizer = SelectivePlasticityOptimizer([p], base=base)
    learn(optimizer, [p], stream(9, steps=3))
    before = copy.deepcopy((p.detach(), optimizer.state_dict()["state"][0]))
    optimizer.get_diagnostics()
    optimizer.get_param_eligibility(p).fill_(7.0)
    optimizer.get_param_gate(p)
    assert torch.equal(p, before[0])
    assert all(torch.equal(value, before[1][name]) for name, value in only(optimizer).items())


@each_base
def test_a_reset_restarts_the_optimizer(base):
    p, q = parameter(9), parameter(9)
    options = {"base": base, "lr": 0.1, "warmup_steps": 5}
    optimizer = SelectivePlasticityOptimizer([p], **options)
    learn(optimizer, [p], stream(9, steps=7))
    optimizer.reset_eligibility()
    assert torch.equal(optimizer.get_param_eligibility(p), torch.zeros(9))
    found = optimizer.get_diagnostics()
    assert (found["step_count"], found["eligibility_max"], found["busy_ratio"]) == (0, 0, 0)
    assert found["gate_mean"] == 1
    q.data.copy_(p.data)
    fresh = SelectivePlasticityOptimizer([q], **options)
    for one, its in ((optimizer, p), (fresh, q)):
        learn(one, [its], stream(9, steps=5, seed=900))
    assert torch.equal(p, q)


# --------------------------------------------------------------------------------------------------- saving and loading


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("way", [lambda state: state, copy.deepcopy, through_a_file], ids=["as is", "copy", "file"])
@pytest.mark.parametrize("dtype", [*FLOATS, *HALVES], ids=str)
@each_base
def test_a_loaded_state_continues_bit_for_bit(base, dtype, way):
    p, q = parameter(7, 3, dtype=dtype), parameter(7, 3, seed=5, dtype=dtype)
    optimizer = SelectivePlasticityOptimizer([p], base=base, lr=0.1, warmup_steps=9, plasticity_k=8.0)
    learn(optimizer, [p], stream(7, 3, steps=6, dtype=dtype))
    other = SelectivePlasticityOptimizer([q])
    with torch.no_grad():
        q.copy_(p)
    other.load_state_dict(way(optimizer.state_dict()))
    for again in ((optimizer, p), (other, q)):
        learn(again[0], [again[1]], stream(7, 3, steps=9, seed=500, dtype=dtype))
    assert torch.equal(p, q)
    assert other.get_diagnostics() == optimizer.get_diagnostics()
    assert other.param_groups[0]["base"] == base


@each_base
def test_a_loaded_state_is_a_copy(base):
    p, q = parameter(5), parameter(5)
    optimizer, other = (SelectivePlasticityOptimizer([x], base=base) for x in (p, q))
    learn(optimizer, [p], stream(5, steps=3))
    other.load_state_dict(optimizer.state_dict())
    kept = copy.deepcopy(only(other))
    learn(optimizer, [p], stream(5, steps=3, seed=300))
    assert all(torch.equal(value, kept[name]) for name, value in only(other).items())


@pytest.mark.parametrize("way", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))], ids=["copy", "pickle"])
@each_base
def test_a_copied_optimizer_continues_bit_for_bit(base, way):
    p = parameter(7)
    optimizer = SelectivePlasticityOptimizer([p], base=base, lr=0.1)
    learn(optimizer, [p], stream(7, steps=3))
    q, other = way((p, optimizer))
    for one, its in ((optimizer, p), (other, q)):
        learn(one, [its], stream(7, steps=5, seed=500))
        one.add_param_group({"params": parameter(2)})
    assert torch.equal(p, q)
    assert p is not q


@each_base
def test_a_state_moves_between_layouts(base):
    """Saved from a model in channels_last, loaded into a contiguous one, and back."""
    shape, ends = (4, 3, 5, 5), []
    layouts = [torch.contiguous_format, torch.channels_last]
    for start, end in itertools.product(layouts, layouts):
        p = nn.Parameter(normal(*shape).contiguous(memory_format=start))
        optimizer = SelectivePlasticityOptimizer([p], base=base, lr=0.1, warmup_steps=0)
        learn(optimizer, [p], stream(*shape, steps=4))
        q = nn.Parameter(p.detach().clone(memory_format=end))
        other = SelectivePlasticityOptimizer([q], base=base)
        other.load_state_dict(optimizer.state_dict())
        learn(other, [q], stream(*shape, steps=4, seed=300))
        assert q.is_contiguous(memory_format=end)
        ends.append(q.detach())
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], rtol=1e-5, atol=1e-5)


def test_states_are_exchanged_with_torchs_adam():
    """Bit for bit with k = 0. The threshold, which Adam does not have, is measured."""
    p, q = parameter(40), parameter(40)
    adam = torch.optim.Adam([p], lr=0.1, betas=(0.8, 0.98), foreach=False)
    learn(adam, [p], stream(40, steps=5))
    with torch.no_grad():
        q.copy_(p)
    ours = SelectivePlasticityOptimizer([q], base="adam", plasticity_k=0, lr=0.5)
    ours.load_state_dict(through_a_file(adam.state_dict()))
    assert ours.param_groups[0]["lr"] == 0.1
    assert ours.param_groups[0]["plasticity_k"] == 0
    assert ours.get_diagnostics()["busy_ratio"] == 0.25
    for one, its in ((adam, p), (ours, q)):
        learn(one, [its], stream(40, steps=5, seed=300))
    assert torch.equal(p, q)

    saved = {"state": ours.state_dict()["state"], "param_groups": adam.state_dict()["param_groups"]}
    adam.load_state_dict(copy.deepcopy(saved))
    for one, its in ((adam, p), (ours, q)):
        learn(one, [its], stream(40, steps=5, seed=600))
    assert torch.equal(p, q)


@pytest.mark.parametrize("adaptive", [True, False])
@each_float
def test_a_gate_works_with_loaded_moments_of_adam(dtype, adaptive):
    p = parameter(200, dtype=dtype)
    adam = torch.optim.Adam([p])
    sizes = torch.linspace(1, 2, 200, dtype=dtype)
    learn(adam, [p], [sizes] * 37)
    ours = SelectivePlasticityOptimizer([p], base="adam", warmup_steps=5, adaptive_threshold=adaptive)
    ours.load_state_dict(adam.state_dict())
    assert ours.get_diagnostics()["busy_ratio"] == 0.25
    shares = steady(p, ours, 3)
    assert all(0.25 <= share <= 0.255 for share in shares)
    assert ours.get_param_gate(p).min() < 0.95


@pytest.mark.parametrize("maximize", [False, True])
def test_states_are_exchanged_with_torchs_adamw(maximize):
    """Bit for bit with k = 0, including weight decay and maximize. Adam then decays as AdamW."""
    p, q = parameter(40), parameter(40)
    adamw = torch.optim.AdamW([p], lr=0.1, weight_decay=0.4, maximize=maximize, foreach=False)
    learn(adamw, [p], stream(40, steps=5))
    with torch.no_grad():
        q.copy_(p)
    ours = SelectivePlasticityOptimizer([q], plasticity_k=0, lr=0.5)
    ours.load_state_dict(through_a_file(adamw.state_dict()))
    assert ours.param_groups[0]["weight_decay"] == 0.4
    assert ours.param_groups[0]["maximize"] is maximize
    for one, its in ((adamw, p), (ours, q)):
        learn(one, [its], stream(40, steps=5, seed=300))
    assert torch.equal(p, q)
    for kind in (torch.optim.AdamW, torch.optim.Adam):
        r = nn.Parameter(q.detach().clone())
        theirs = kind([r], foreach=False)
        theirs.load_state_dict(through_a_file(ours.state_dict()))
        again = nn.Parameter(q.detach().clone())
        mine = SelectivePlasticityOptimizer([again])
        mine.load_state_dict(ours.state_dict())
        for one, its in ((theirs, r), (mine, again)):
            learn(one, [its], stream(40, steps=5, seed=600))
        assert torch.equal(r, again)


def foreign_states():
    """States of torch's optimizers with an option that does not exist here, and its name."""
    adam, sgd = torch.optim.Adam, torch.optim.SGD
    for kind, options, name in (
        (adam, {"amsgrad": True}, "amsgrad"),
        (adam, {"weight_decay": 0.1}, "weight_decay"),
        (adam, {"foreach": True}, "foreach"),
        (adam, {"fused": True}, "fused"),
        (torch.optim.NAdam, {}, "momentum_decay"),
        (torch.optim.AdamW, {"differentiable": True}, "differentiable"),
        (sgd, {"nesterov": True, "momentum": 0.9}, "momentum"),
        (torch.optim.RMSprop, {}, "alpha"),
    ):
        yield pytest.param(kind, options, name, id=f"{kind.__name__}-{name}")


@pytest.mark.parametrize("stepped", [False, True])
@pytest.mark.parametrize(("kind", "options", "name"), [*foreign_states()])
def test_a_state_with_an_unknown_option_is_refused_and_nothing_changes(kind, options, name, stepped):
    p = parameter(5)
    theirs = kind([p], lr=0.5, **options)
    if stepped and name != "differentiable":
        learn(theirs, [p], stream(5, steps=1))
    optimizer = SelectivePlasticityOptimizer([p], lr=0.3)
    learn(optimizer, [p], stream(5, steps=2))
    kept = copy.deepcopy(only(optimizer))
    groups = copy.deepcopy([{n: v for n, v in group.items() if n != "params"} for group in optimizer.param_groups])
    with pytest.raises(ValueError, match=r"^state_dict: ") as refused:
        optimizer.load_state_dict(theirs.state_dict())
    assert name in str(refused.value) or "has no" in str(refused.value)
    assert all(torch.equal(value, kept[name]) for name, value in only(optimizer).items())
    assert [{n: v for n, v in group.items() if n != "params"} for group in optimizer.param_groups] == groups


def test_a_saved_weight_decay_of_unknown_kind_is_refused():
    """torch 2.6 saves the same keys for Adam and AdamW."""
    p = parameter(5)
    theirs = torch.optim.AdamW([p], weight_decay=0.2)
    learn(theirs, [p], stream(5, steps=1))
    saved = theirs.state_dict()
    saved["param_groups"][0].pop("decoupled_weight_decay", None)
    optimizer = SelectivePlasticityOptimizer([p])
    with pytest.raises(ValueError, match="add decoupled_weight_decay=True"):
        optimizer.load_state_dict(saved)
    saved["param_groups"][0]["decoupled_weight_decay"] = True
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["weight_decay"] == 0.2


def test_a_state_of_sgd_without_momentum_is_loaded():
    p = parameter(5)
    theirs = torch.optim.SGD([p], lr=0.2, weight_decay=0.1, maximize=True)
    learn(theirs, [p], stream(5, steps=1))
    q = nn.Parameter(p.detach().clone())
    ours = SelectivePlasticityOptimizer([q], base="sgd", plasticity_k=0)
    ours.load_state_dict(theirs.state_dict())
    learn(theirs, [p], stream(5, steps=3))
    learn(ours, [q], stream(5, steps=3))
    torch.testing.assert_close(p, q)


def test_a_pickle_of_an_earlier_version_has_the_later_options_off():
    p = parameter(5)
    optimizer = SelectivePlasticityOptimizer([p])
    learn(optimizer, [p], stream(5, steps=2))
    state = optimizer.__getstate__()
    for group in state["param_groups"]:
        for name in ("weight_decay", "maximize", "foreach", "fused", "decoupled_weight_decay"):
            del group[name]
    old = SelectivePlasticityOptimizer.__new__(SelectivePlasticityOptimizer)
    old.__setstate__(state)
    learn(old, [p], stream(5, steps=2))
    assert (old.param_groups[0]["weight_decay"], old.param_groups[0]["maximize"]) == (0.0, False)


def test_a_state_that_is_not_of_the_base_is_refused_and_nothing_changes():
    p = parameter(5)
    momentum = torch.optim.SGD([p], momentum=0.9)
    learn(momentum, [p], stream(5, steps=1))
    adam = torch.optim.Adam([p])
    learn(adam, [p], stream(5, steps=1))
    wide = parameter(3, 5)
    other = SelectivePlasticityOptimizer([wide], base="sgd")
    learn(other, [wide], stream(3, 5, steps=1))

    optimizer = SelectivePlasticityOptimizer([p], base="sgd", lr=0.3)
    learn(optimizer, [p], stream(5, steps=2))
    kept = copy.deepcopy(only(optimizer))
    for foreign, message in ((momentum, "'step'"), (adam, "'eligibility'"), (other, r"\(3, 5\)")):
        with pytest.raises(ValueError, match=message):
            optimizer.load_state_dict(foreign.state_dict())
    with pytest.raises(ValueError, match="size of optimizer's group"):
        optimizer.load_state_dict(SelectivePlasticityOptimizer([p, wide], base="sgd").state_dict())
    assert all(torch.equal(value, kept[name]) for name, value in only(optimizer).items())
    assert optimizer.param_groups[0]["lr"] == 0.3


def test_hooks_around_saving_and_loading_are_called():
    p, q = parameter(4), parameter(4)
    optimizer, other = SelectivePlasticityOptimizer([p], base="sgd"), SelectivePlasticityOptimizer([q], base="sgd")
    learn(optimizer, [p], stream(4, steps=2))

    def exchange(_, state_dict):
        state_dict = copy.deepcopy(state_dict)
        state_dict["state"][0]["eligibility"].fill_(7.0)
        return state_dict

    other.register_load_state_dict_pre_hook(exchange)
    other.load_state_dict(optimizer.state_dict())
    assert torch.equal(other.get_param_eligibility(q), torch.full((4,), 7.0))
    assert len(other._optimizer_load_state_dict_pre_hooks) == 1
