"""The optimizer, compared with loops over single numbers, and the symmetries of its equations."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from plastic_selective import SelectivePlasticityOptimizer
from selective.optimizer.synapses import (
    ALLOWED,
    BASES,
    FLOATS,
    TORCH_OWN,
    LoopSynapses,
    each_base,
    each_float,
    learn,
    normal,
    only,
    parameter,
    steady,
    stream,
)


@each_float
@each_base
def test_every_group_follows_the_equations_number_by_number(base, dtype):
    """Several parameters, groups with their own options, and gradients that are sometimes missing."""
    shapes = [(7, 5), (13,), (), (4, 2, 3), (6, 6), (40,), (9, 4)]
    parameters = [parameter(*shape, seed=n, dtype=dtype) for n, shape in enumerate(shapes)]
    plain = {"lr": 0.02, "plasticity_k": 5.0, "warmup_steps": 30}
    strong = {"lr": 0.005, "plasticity_k": 25, "warmup_steps": 0, "trace_decay": 0.9, "betas": (0.8, 0.95)}
    frozen = {"lr": 0.01, "plasticity_k": 8.0, "warmup_steps": 77, "adaptive_threshold": False}
    frozen |= {"threshold_percentile": 40, "betas": (0.0, 0.98), "trace_decay": 0.0}
    uniform = {"gating": "uniform", "plasticity_k": 8.0, "warmup_steps": 10, "lr": 0.01}
    decayed = {"weight_decay": 0.3, "maximize": True, "lr": 0.01, "plasticity_k": 9.0, "warmup_steps": 3}
    options = [plain, strong, frozen, uniform, decayed]
    members = [parameters[:3], parameters[3:4], parameters[4:5], parameters[5:6], parameters[6:]]
    groups = [{"params": some, **own} for some, own in zip(members, options, strict=True)]
    optimizer = SelectivePlasticityOptimizer(groups, base=base)

    names = {
        "plasticity_k": "k",
        "warmup_steps": "warmup",
        "trace_decay": "decay",
        "threshold_percentile": "percentile",
    }
    names["adaptive_threshold"] = "adaptive"
    loops = [
        LoopSynapses(p, base=base, **{names.get(name, name): value for name, value in own.items()})
        for some, own in zip(members, options, strict=True)
        for p in some
    ]
    gradients = [stream(*shape, steps=230, seed=1000 * n + 500, dtype=dtype) for n, shape in enumerate(shapes)]
    for t, now in enumerate(zip(*gradients, strict=True)):
        for n, (p, g, loop) in enumerate(zip(parameters, now, loops, strict=True)):
            missing = n == 1 and t % 3 == 0
            p.grad = None if missing else g
            if not missing:
                loop.step(g)
        optimizer.step()
    for p, loop in zip(parameters, loops, strict=True):
        found, expected = p.detach().double().flatten(), torch.tensor(loop.p, dtype=torch.float64)
        torch.testing.assert_close(found, expected, **ALLOWED[dtype])


@each_base
def test_the_update_is_torchs_update_times_the_gate(base):
    p, plain = parameter(30, dtype=torch.float64), parameter(30, dtype=torch.float64)
    gated = SelectivePlasticityOptimizer([p], lr=0.1, base=base, plasticity_k=9.0, warmup_steps=0)
    ungated = TORCH_OWN[base]([plain], lr=0.1)
    closed = 0
    for g in stream(30, steps=20, dtype=torch.float64):
        before = p.detach().clone(), plain.detach().clone()
        learn(gated, [p], [g])
        learn(ungated, [plain], [g])
        gate = gated.get_param_gate(p)
        torch.testing.assert_close(
            (p - before[0]).detach(), (gate * (plain - before[1])).detach(), rtol=1e-9, atol=1e-12
        )
        closed += int((gate < 0.9).sum())
    assert closed > 50


# ----------------------------------------------------------------------------------------------------------- symmetries


@settings(max_examples=30)
@given(
    st.sampled_from(BASES),
    st.sampled_from(FLOATS),
    st.sampled_from(["selective", "uniform"]),
    st.floats(0, 1e6),
    st.integers(0, 5),
    st.floats(0, 100),
    st.integers(0, 10_000),
    st.floats(-30, 30),
)
def test_the_gate_stays_within_its_bounds(base, dtype, gating, k, warmup, percentile, seed, log_scale):
    p = parameter(3, 4, dtype=dtype)
    optimizer = SelectivePlasticityOptimizer(
        [p], plasticity_k=k, warmup_steps=warmup, threshold_percentile=percentile, base=base, gating=gating
    )
    for g in stream(3, 4, steps=4, seed=seed, dtype=dtype):
        learn(optimizer, [p], [g * 2.0**log_scale])
        gate = optimizer.get_param_gate(p)
        assert gate.shape == p.shape
        assert (gate >= torch.tensor(0.1, dtype=dtype) - 1e-6).all()
        assert (gate <= 1).all()
        assert p.isfinite().all()


@each_float
@each_base
def test_permuting_synapses_permutes_their_updates(base, dtype):
    order = torch.randperm(101, generator=torch.Generator().manual_seed(1))
    ends = []
    for arrange in (slice(None), order):
        p = nn.Parameter(normal(101, dtype=dtype)[arrange])
        optimizer = SelectivePlasticityOptimizer([p], lr=0.1, base=base, warmup_steps=3)
        learn(optimizer, [p], [g[arrange] for g in stream(101, steps=20, dtype=dtype)])
        ends.append(p.detach())
    assert torch.equal(ends[0][order], ends[1])


@pytest.mark.parametrize("gating", ["selective", "uniform"])
@each_float
@each_base
def test_the_gate_does_not_depend_on_the_unit_of_the_gradient(base, dtype, gating):
    def gates(scale):
        p = parameter(41, dtype=dtype)
        optimizer = SelectivePlasticityOptimizer([p], base=base, warmup_steps=3, plasticity_k=8.0, gating=gating)
        for g in stream(41, steps=12, dtype=dtype):
            learn(optimizer, [p], [g * scale])
        return optimizer.get_param_gate(p)

    expected = gates(1.0)
    assert expected.min() < 0.9
    for power in (-12, 3, 20):
        assert torch.equal(gates(2.0**power), expected)
    torch.testing.assert_close(gates(0.3), expected)


@each_float
@each_base
def test_the_update_follows_the_unit_of_the_gradient(base, dtype):
    """In both paths: the steps of SGD are proportional to the gradient's unit, those of Adam are not."""

    def end(scale):
        p = nn.Parameter(torch.zeros(41, dtype=dtype))
        optimizer = SelectivePlasticityOptimizer([p], base=base, warmup_steps=3, plasticity_k=8.0, eps=0)
        learn(optimizer, [p], [g * scale for g in stream(41, steps=12, dtype=dtype)])
        return p.detach()

    for power in (-12, 3, 20):
        assert torch.equal(end(2.0**power), end(1.0) * (2.0**power if base == "sgd" else 1.0))


# -------------------------------------------------------------------------------------- busy synapses and the threshold


@pytest.mark.parametrize("adaptive", [True, False])
@each_float
def test_synapses_that_do_not_change_stay_busy_or_idle(dtype, adaptive):
    """Adam's second moment grows from 0. A threshold of an earlier step has to grow with it."""
    p = parameter(25, 8, dtype=dtype)
    optimizer = SelectivePlasticityOptimizer([p], base="adam", warmup_steps=7, adaptive_threshold=adaptive)
    shares = steady(p, optimizer, 130)
    assert shares[0] == 0.25
    assert all(0.25 <= share <= 0.255 for share in shares)  # a synapse exactly at the threshold may be on either side


@pytest.mark.parametrize(("percentile", "share"), [(0, 199 / 200), (10, 0.9), (75, 0.25), (99.5, 1 / 200), (100, 0.0)])
def test_the_percentile_is_the_share_that_is_not_busy(percentile, share):
    p = parameter(200)
    optimizer = SelectivePlasticityOptimizer([p], base="adam", threshold_percentile=percentile)
    assert steady(p, optimizer, 2) == [pytest.approx(share), pytest.approx(share)]


def test_of_equally_busy_synapses_none_is_above_the_threshold():
    p = parameter(12)
    optimizer = SelectivePlasticityOptimizer([p], base="adam", threshold_percentile=50)
    learn(optimizer, [p], [torch.full((12,), 0.3)] * 2)
    assert optimizer.get_diagnostics()["busy_ratio"] == 0
    ties = torch.tensor([3.0, *[1.0] * 8, *[0.5] * 3])  # the median is one of eight equal
    optimizer.reset_eligibility()
    learn(optimizer, [p], [ties])
    assert optimizer.get_diagnostics()["busy_ratio"] == pytest.approx(1 / 12)


@each_float
def test_only_an_adaptive_threshold_follows(dtype):
    shares = {}
    for adaptive in (True, False):
        p = parameter(200, dtype=dtype)
        optimizer = SelectivePlasticityOptimizer(
            [p], base="adam", adaptive_threshold=adaptive, warmup_steps=20, betas=(0.9, 0.8)
        )
        before = steady(p, optimizer, 20)
        quiet = steady(p, optimizer, 80, scale=0.01)  # to step 100, where an adaptive threshold is measured
        loud = steady(p, optimizer, 100, scale=100.0)
        assert before[-1] == pytest.approx(0.25, abs=0.006)
        shares[adaptive] = (quiet[-1], loud[-2], loud[-1])
    assert shares[True] == (0.25, 1.0, 0.25)
    assert shares[False] == (0.0, 1.0, 1.0)


@pytest.mark.parametrize(("warmup", "last"), [(0, 1), (1, 1), (3, 3), (20, 20), (250, 250)])
def test_a_fixed_threshold_is_measured_last_at_the_end_of_the_warm_up(warmup, last):
    p = parameter(40)
    optimizer = SelectivePlasticityOptimizer([p], base="adam", adaptive_threshold=False, warmup_steps=warmup)
    learn(optimizer, [p], stream(40, steps=last))
    expected = only(optimizer)["exp_avg_sq"].sort().values[29]
    learn(optimizer, [p], stream(40, steps=301 - last, seed=700))
    assert only(optimizer)["threshold"] == expected


def test_a_gate_that_is_switched_on_late_has_a_threshold():
    p = parameter(200)
    optimizer = SelectivePlasticityOptimizer([p], base="adam", plasticity_k=0, warmup_steps=0, threshold_percentile=75)
    steady(p, optimizer, 70)
    optimizer.param_groups[0]["plasticity_k"] = 5.0
    assert steady(p, optimizer, 1) == [pytest.approx(0.25, abs=0.006)]


@each_float
@each_base
def test_uniform_gates_are_the_mean_of_the_selective_ones(base, dtype):
    gates = {}
    for gating in ("selective", "uniform"):
        p = parameter(6, 7, dtype=dtype)
        optimizer = SelectivePlasticityOptimizer([p], base=base, gating=gating, warmup_steps=2, plasticity_k=8.0)
        learn(optimizer, [p], stream(6, 7, steps=9, dtype=dtype))
        gates[gating] = optimizer.get_param_gate(p)
    assert gates["selective"].std() > 0.01
    torch.testing.assert_close(gates["uniform"], gates["selective"].mean().expand(6, 7))
