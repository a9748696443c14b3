"""The optimizer against loops over single numbers, against torch's own optimizers, and as a guest in torch's programs.

float32 parameters that lie flat in memory take the compiled kernels; float64 ones take whole tensors of torch. Both are
held against the same loops.
"""

import copy
import io
import itertools
import math
import os
import pickle
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from plastic_selective import SelectivePlasticityOptimizer
from plastic_selective.optimizer import optimizer as optimizer_module
from plastic_selective.optimizer import threads as compiled_steps

BASES = ["sgd", "adam"]
FLOATS = [torch.float32, torch.float64]
HALVES = [torch.float16, torch.bfloat16]
ALLOWED = {torch.float32: {"rtol": 1e-5, "atol": 1e-6}, torch.float64: {"rtol": 1e-12, "atol": 1e-13}}
TORCH_OWN = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
each_base = pytest.mark.parametrize("base", BASES)
each_float = pytest.mark.parametrize("dtype", FLOATS, ids=str)


def normal(*shape, seed=0, dtype=torch.float32):
    """Draw in float64, so that every type sees the same numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def parameter(*shape, seed=0, dtype=torch.float32):
    return nn.Parameter(normal(*shape, seed=seed, dtype=dtype))


def stream(*shape, steps=10, seed=100, dtype=torch.float32):
    """Gradients of synapses of which some are always busier than others."""
    busy = normal(*shape, seed=seed - 1, dtype=torch.float64).exp()
    return [(normal(*shape, seed=seed + t, dtype=torch.float64) * busy).to(dtype) for t in range(steps)]


def learn(optimizer, parameters, gradients):
    """Take a step for each gradient, or tuple of gradients, one per parameter."""
    for now in gradients:
        for p, g in zip(parameters, now if isinstance(now, tuple) else (now,), strict=True):
            p.grad = None if g is None else g.clone()
        optimizer.step()


def only(optimizer):
    """The state of the optimizer's only parameter."""
    (state,) = optimizer.state.values()
    return state


# ------------------------------------------------------------------------------------------------ loops over numbers


class LoopSynapses:
    """The synapses of one tensor, as lists of Python's numbers; `step` follows the equations, for either base."""

    def __init__(self, values, lr, k, warmup, base, decay=0.99, betas=(0.9, 0.999), percentile=75, **others):
        self.p = values.detach().double().flatten().tolist()
        self.lr, self.k, self.warmup, self.base, self.decay = lr, k, warmup, base, decay
        self.beta1, self.beta2, self.percentile = *betas, percentile
        self.adaptive, self.uniform = others.get("adaptive", True), others.get("gating") == "uniform"
        self.decay_of_weights, self.sign = others.get("weight_decay", 0.0), -1.0 if others.get("maximize") else 1.0
        self.e, self.m, self.v = ([0.0] * len(self.p) for _ in range(3))
        self.t, self.threshold = 0, None

    def measured_now(self):
        if not self.adaptive and self.t >= max(1, self.warmup):
            return self.t == max(1, self.warmup)
        return self.t in {1, 2, 4, 8, 16, 32, 64} or self.t % 100 == 0

    def busy(self, g):
        self.e = [self.decay * e + (1 - self.decay) * abs(x) for e, x in zip(self.e, g, strict=True)]
        self.m = [self.beta1 * m + (1 - self.beta1) * x for m, x in zip(self.m, g, strict=True)]
        self.v = [self.beta2 * v + (1 - self.beta2) * x * x for v, x in zip(self.v, g, strict=True)]
        if self.base == "sgd":
            return [e / max(self.e) for e in self.e]
        unbiased = [v / (1 - self.beta2**self.t) for v in self.v]
        if self.measured_now():
            self.threshold = sorted(unbiased)[math.ceil(len(g) * self.percentile / 100) - 1]
        return [float(v > self.threshold) for v in unbiased]

    def step(self, gradient):
        g = [self.sign * x for x in gradient.double().flatten().tolist()]
        self.p = [(1 - self.lr * self.decay_of_weights) * p for p in self.p]
        self.t += 1
        busy, largest = self.busy(g), max(map(abs, g))
        force = min(1.0, self.t / self.warmup) if self.warmup else 1.0
        gates = [1 - self.k / 10 * b * (1 - abs(x) / largest) for b, x in zip(busy, g, strict=True)]
        gates = [1 - force * (1 - min(1.0, max(0.1, gate))) for gate in gates]
        if self.uniform:
            gates = [sum(gates) / len(gates)] * len(gates)
        for i, gate in enumerate(gates):
            if self.base == "sgd":
                self.p[i] -= self.lr * gate * g[i]
            else:
                m, v = self.m[i] / (1 - self.beta1**self.t), self.v[i] / (1 - self.beta2**self.t)
                self.p[i] -= self.lr * gate * m / (math.sqrt(v) + 1e-8)


@each_float
@each_base
def test_every_group_follows_the_equations_number_by_number(base, dtype):
    """Several parameters, groups with options of their own, gradients that are missing now and then."""
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
def test_a_large_parameter_is_cut_into_blocks_and_stretches_without_a_seam(base):
    """More numbers than a block of the kernels, and an odd number of them, in both paths."""
    ends = []
    for dtype in FLOATS:
        p = parameter(9001, dtype=dtype)
        optimizer = SelectivePlasticityOptimizer([p], lr=0.1, base=base, warmup_steps=2, threshold_percentile=50)
        learn(optimizer, [p], stream(9001, steps=4, dtype=dtype))
        ends.append(p.detach().double())
    torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-5)


def test_float32_takes_the_compiled_path_and_float64_does_not(monkeypatch):
    """Without which the tests of two paths would test one."""
    taken = []
    step_sgd = compiled_steps.step_sgd
    monkeypatch.setattr(compiled_steps, "step_sgd", lambda p, *others: (taken.append(p.dtype), step_sgd(p, *others)))
    for dtype in FLOATS:
        p = parameter(3, dtype=dtype)
        learn(SelectivePlasticityOptimizer([p], base="sgd"), [p], stream(3, steps=1, dtype=dtype))
    assert taken == [torch.float32]


@each_base
def test_the_update_is_that_of_torch_times_the_gate(base):
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


# ------------------------------------------------------------------------------------------------ without a gate


EXACT = [("sgd", dtype) for dtype in (*FLOATS, *HALVES)] + [("adam", dtype) for dtype in FLOATS]


@pytest.mark.parametrize("tensor_lr", [False, True])
@pytest.mark.parametrize(("base", "dtype"), EXACT)
def test_without_a_gate_it_is_torchs_own_to_the_last_bit(base, dtype, tensor_lr):
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
def test_without_a_gate_weight_decay_and_maximize_are_torchs_own_to_the_last_bit(base, dtype, maximize, tensor_lr):
    """AdamW for base "adam"; torch's SGD has no decoupled decay, and its sign alone is compared to the last bit."""
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
def test_in_plain_descent_decoupled_decay_is_that_of_torchs_sgd(dtype, maximize):
    """p - lr (g + d p) is (1 - lr d) p - lr g. To climb, torch turns the gradient first: the decay still shrinks."""
    p, q = parameter(31, dtype=dtype), parameter(31, dtype=dtype)
    own = {"lr": 0.05, "weight_decay": 0.2, "maximize": maximize}
    learn(SelectivePlasticityOptimizer([p], base="sgd", plasticity_k=0, **own), [p], stream(31, steps=50, dtype=dtype))
    learn(torch.optim.SGD([q], foreach=False, **own), [q], stream(31, steps=50, dtype=dtype))
    torch.testing.assert_close(p, q, **ALLOWED[dtype])


@each_float
@each_base
def test_climbing_is_descending_against_the_gradient(base, dtype):
    """With the gate at work, in both paths: the gate sees magnitudes alone."""
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
def test_the_gate_does_not_slow_weight_decay_down(base, dtype):
    """Where the gradient is 0 and the synapse idle, the parameter shrinks by 1 - lr decay, whatever the gate."""
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


def test_adam_without_a_denominators_floor():
    """Like torch's Adam, ours takes eps = 0."""
    p, q = parameter(9), parameter(9)
    learn(SelectivePlasticityOptimizer([p], base="adam", eps=0, plasticity_k=0), [p], stream(9))
    learn(torch.optim.Adam([q], eps=0, foreach=False), [q], stream(9))
    assert torch.equal(p, q)


def test_adam_keeps_no_more_than_adam_and_sgd_one_buffer():
    for base, buffers in (("adam", 2), ("sgd", 1)):
        p = parameter(50, 20)
        optimizer = SelectivePlasticityOptimizer([p], base=base)
        learn(optimizer, [p], stream(50, 20, steps=2))
        assert sum(value.numel() for value in only(optimizer).values()) <= buffers * p.numel() + 3


# ------------------------------------------------------------------------------------------------ symmetries


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
    """What the gates that a step really uses come to, compiled or not: SGD moves in proportion, Adam not at all."""

    def end(scale):
        p = nn.Parameter(torch.zeros(41, dtype=dtype))
        optimizer = SelectivePlasticityOptimizer([p], base=base, warmup_steps=3, plasticity_k=8.0, eps=0)
        learn(optimizer, [p], [g * scale for g in stream(41, steps=12, dtype=dtype)])
        return p.detach()

    for power in (-12, 3, 20):
        assert torch.equal(end(2.0**power), end(1.0) * (2.0**power if base == "sgd" else 1.0))


# ------------------------------------------------------------------------------------------------ who is busy


def steady(p, optimizer, steps, scale=1.0):
    """Learn from gradients of an always equal size, different for each synapse; return who was busy at each step."""
    sizes = torch.linspace(1, 2, p.numel(), dtype=p.dtype).view_as(p) * scale
    shares = []
    for t in range(steps):
        signs = torch.sign(normal(*p.shape, seed=t, dtype=p.dtype))
        learn(optimizer, [p], [signs * sizes])
        shares.append(optimizer.get_diagnostics()["busy_ratio"])
    return shares


@pytest.mark.parametrize("adaptive", [True, False])
@each_float
def test_synapses_that_do_not_change_stay_busy_or_idle(dtype, adaptive):
    """Adam's second moment grows from nothing; a threshold of an earlier step has to grow with it."""
    p = parameter(25, 8, dtype=dtype)
    optimizer = SelectivePlasticityOptimizer([p], base="adam", warmup_steps=7, adaptive_threshold=adaptive)
    shares = steady(p, optimizer, 130)
    assert shares[0] == 0.25
    assert all(0.25 <= share <= 0.255 for share in shares)  # the one on the threshold may fall to either side


@pytest.mark.parametrize(("percentile", "share"), [(0, 199 / 200), (10, 0.9), (75, 0.25), (99.5, 1 / 200), (100, 0.0)])
def test_the_percentile_is_the_share_that_is_not_busy(percentile, share):
    p = parameter(200)
    optimizer = SelectivePlasticityOptimizer([p], base="adam", threshold_percentile=percentile)
    assert steady(p, optimizer, 2) == [pytest.approx(share), pytest.approx(share)]


def test_among_synapses_that_are_busy_alike_none_is_above_the_others():
    p = parameter(12)
    optimizer = SelectivePlasticityOptimizer([p], base="adam", threshold_percentile=50)
    learn(optimizer, [p], [torch.full((12,), 0.3)] * 2)
    assert optimizer.get_diagnostics()["busy_ratio"] == 0
    ties = torch.tensor([3.0, *[1.0] * 8, *[0.5] * 3])  # the median is one of eight equal
    optimizer.reset_eligibility()
    learn(optimizer, [p], [ties])
    assert optimizer.get_diagnostics()["busy_ratio"] == pytest.approx(1 / 12)


@each_float
def test_an_adaptive_threshold_follows_and_another_does_not(dtype):
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
def test_a_threshold_is_measured_for_the_last_time_when_the_warm_up_ends(warmup, last):
    p = parameter(40)
    optimizer = SelectivePlasticityOptimizer([p], base="adam", adaptive_threshold=False, warmup_steps=warmup)
    learn(optimizer, [p], stream(40, steps=last))
    expected = only(optimizer)["exp_avg_sq"].sort().values[29]
    learn(optimizer, [p], stream(40, steps=301 - last, seed=700))
    assert only(optimizer)["threshold"] == expected


def test_a_gate_that_opens_late_finds_a_threshold():
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


# ------------------------------------------------------------------------------------------------ diagnostics


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
def test_looking_changes_nothing(base):
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
def test_after_a_reset_it_begins_anew(base):
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


# ------------------------------------------------------------------------------------------------ groups and closures


@each_base
def test_a_group_that_joins_later_warms_up_on_its_own(base):
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


def test_a_parameter_twice_is_what_it_is_to_torch():
    p = parameter(3)
    with pytest.warns(UserWarning, match="duplicate"):
        SelectivePlasticityOptimizer([p, p])
    with pytest.raises(ValueError, match="more than one parameter group"):
        SelectivePlasticityOptimizer([{"params": [p]}, {"params": [p]}])
    with pytest.raises(ValueError, match="empty parameter list"):
        SelectivePlasticityOptimizer([])
    with pytest.raises(TypeError, match="must be a dict"):
        SelectivePlasticityOptimizer([p]).add_param_group(parameter(3))


# ------------------------------------------------------------------------------------------------ saving


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("way", [lambda state: state, copy.deepcopy, through_a_file], ids=["as is", "copy", "file"])
@pytest.mark.parametrize("dtype", [*FLOATS, *HALVES], ids=str)
@each_base
def test_a_loaded_state_goes_on_bit_for_bit(base, dtype, way):
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
def test_a_loaded_state_shares_nothing_with_where_it_came_from(base):
    p, q = parameter(5), parameter(5)
    optimizer, other = (SelectivePlasticityOptimizer([x], base=base) for x in (p, q))
    learn(optimizer, [p], stream(5, steps=3))
    other.load_state_dict(optimizer.state_dict())
    kept = copy.deepcopy(only(other))
    learn(optimizer, [p], stream(5, steps=3, seed=300))
    assert all(torch.equal(value, kept[name]) for name, value in only(other).items())


@pytest.mark.parametrize("way", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))], ids=["copy", "pickle"])
@each_base
def test_a_copied_optimizer_goes_on_bit_for_bit(base, way):
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
    """Saved from a model in channels_last, loaded into one that is not, and back."""
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


def test_it_goes_on_from_the_moments_of_adam_and_adam_from_its_own():
    """With k = 0 to the last bit; a threshold, which Adam has none of, is measured."""
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
def test_a_gate_works_on_from_the_moments_of_adam(dtype, adaptive):
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
def test_it_goes_on_from_adamw_and_adamw_and_adam_from_its_own(maximize):
    """To the last bit with k = 0, weight decay and sign included; Adam then decays as AdamW does."""
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
def test_a_state_with_an_option_that_does_not_exist_here_is_refused_and_nothing_changes(kind, options, name, stepped):
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


def test_a_saved_weight_decay_of_unknown_kind_is_refused_until_it_is_said():
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


def test_sgd_without_momentum_can_be_gone_on_from():
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


def test_hooks_around_saving_and_loading_have_their_say():
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


# ------------------------------------------------------------------------------------------------ kinds of gradients


@each_base
def test_a_sparse_gradient_is_the_dense_one(base):
    """Rows that were looked up twice, and rows that were not: momentum moves these on, and their trace fades."""
    words = [torch.tensor(batch) for batch in ([1, 1, 4], [2, 0, 2], [4, 4, 4], [1, 5, 0])]
    ends = []
    for sparse in (True, False):
        torch.manual_seed(0)
        table = nn.Embedding(6, 3, sparse=sparse)
        optimizer = SelectivePlasticityOptimizer(table.parameters(), base=base, lr=0.1, warmup_steps=0)
        for batch in words:
            optimizer.zero_grad()
            table(batch).square().sum().backward()
            assert table.weight.grad.is_sparse == sparse
            optimizer.step()
        ends.append((table.weight.detach(), optimizer.get_param_gate(table.weight), optimizer.get_diagnostics()))
    assert torch.equal(ends[0][0], ends[1][0])
    assert torch.equal(ends[0][1], ends[1][1])
    assert ends[0][2] == ends[1][2]


@each_base
def test_gradients_may_share_memory(base):
    """One gradient for two parameters, and a gradient that is the parameter itself: as with copies of them."""
    ends = []
    for shared in (True, False):
        p, q, own = parameter(9), parameter(9, seed=1), parameter(9, seed=2)
        optimizer = SelectivePlasticityOptimizer([p, q, own], base=base, lr=0.1, warmup_steps=0)
        for g in stream(9, steps=5):
            p.grad = g
            q.grad = g if shared else g.clone()
            own.grad = own.detach() if shared else own.detach().clone()
            optimizer.step()
        ends.append(torch.cat([p.detach(), q.detach(), own.detach()]))
    assert torch.equal(*ends)


@each_float
@each_base
def test_gradients_may_be_expanded_or_transposed(base, dtype):
    forms = {
        "expanded": lambda g: g[:1].expand(6, 4),
        "transposed": lambda g: g.t().contiguous().t(),
        "every other": lambda g: g.repeat_interleave(2, dim=1)[:, ::2],
    }
    for form in forms.values():
        ends = []
        for flat in (False, True):
            p = parameter(6, 4, dtype=dtype)
            optimizer = SelectivePlasticityOptimizer([p], base=base, lr=0.1, warmup_steps=0, plasticity_k=8.0)
            for g in stream(6, 4, steps=5, dtype=dtype):
                p.grad = form(g).contiguous() if flat else form(g)
                assert p.grad.is_contiguous() == flat
                optimizer.step()
            ends.append(p.detach())
        torch.testing.assert_close(*ends, **ALLOWED[dtype])


def test_a_gradient_whose_sign_is_a_note_in_the_margin():
    """The imaginary part of a conjugate: torch keeps the numbers and notes that they are to be negated."""
    p = nn.Parameter(torch.zeros(1))
    p.grad = torch.complex(torch.zeros(1), torch.ones(1)).conj().imag
    assert p.grad.is_neg()
    SelectivePlasticityOptimizer([p], lr=1.0, base="sgd").step()
    assert p.item() == 1


@each_float
@each_base
def test_gradients_of_zero_move_nothing(base, dtype):
    p = parameter(5, dtype=dtype)
    before = p.detach().clone()
    for eps in (1e-8, 1e-40, 5e-324):
        optimizer = SelectivePlasticityOptimizer([p], base=base, warmup_steps=0, eps=eps)
        if base == "adam" and eps < 1e-8:
            continue  # 0 / 0 in float32, as in torch's own
        learn(optimizer, [p], [torch.zeros(5, dtype=dtype)] * 3)
        assert torch.equal(p, before)
        assert torch.equal(optimizer.get_param_gate(p), torch.ones(5, dtype=dtype))
    learn(optimizer, [p], [normal(5, dtype=dtype), torch.zeros(5, dtype=dtype)])
    assert p.isfinite().all()
    assert optimizer.get_param_gate(p).min() < 0.9  # busy, and nothing is a surprise


@pytest.mark.parametrize("gating", ["selective", "uniform"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@each_base
def test_what_is_no_number_shows_and_shows_alike_in_both_paths(base, bad, gating):
    """A NaN has no place in the order of gradients: every gate of its tensor is NaN. An infinite one is the largest."""
    seen = []
    for dtype in FLOATS:
        p, beside = parameter(40, dtype=dtype), parameter(40, dtype=dtype)
        optimizer = SelectivePlasticityOptimizer([p, beside], base=base, warmup_steps=0, lr=0.1, gating=gating)
        good = stream(40, steps=5, dtype=dtype)
        learn(optimizer, [p, beside], [(g, g) for g in good[:3]])
        poisoned = good[3].clone()
        poisoned[7] = bad
        learn(optimizer, [p, beside], [(poisoned, good[3]), (good[4], good[4])])
        assert p[7].isnan()
        assert beside.isfinite().all()
        assert math.isnan(optimizer.get_diagnostics()["eligibility_max"]) == math.isnan(bad)
        seen.append(p.detach().double())
    everywhere = math.isnan(bad) or gating == "uniform"
    assert seen[0].isnan().sum() == (40 if everywhere else 1)
    torch.testing.assert_close(*seen, rtol=1e-5, atol=1e-5, equal_nan=True)


@each_float
@each_base
def test_without_a_gate_what_is_no_number_stays_where_it_is(base, dtype):
    p, q = parameter(6, dtype=dtype), parameter(6, dtype=dtype)
    gradients = [torch.tensor([1.0, math.nan, 2.0, math.inf, 0.0, -1.0], dtype=dtype), normal(6, dtype=dtype)]
    learn(SelectivePlasticityOptimizer([p], base=base, plasticity_k=0), [p], gradients)
    learn(TORCH_OWN[base]([q], lr=1e-3, foreach=False), [q], gradients)
    assert torch.equal(p.nan_to_num(9.0), q.nan_to_num(9.0))
    assert p.isnan()[1]


# ------------------------------------------------------------------------------------------------ kinds of parameters


@pytest.mark.parametrize("others", [{}, {"weight_decay": 0.1, "maximize": True}], ids=["plain", "decayed"])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@each_base
def test_16_bit_parameters_follow_the_equations_rounded_once_a_step(base, dtype, others):
    p = parameter(31, dtype=dtype)
    loop = LoopSynapses(p, lr=0.05, k=8.0, warmup=3, base=base, **others)
    optimizer = SelectivePlasticityOptimizer([p], base=base, lr=0.05, plasticity_k=8.0, warmup_steps=3, **others)
    for g in stream(31, steps=40, dtype=dtype):
        learn(optimizer, [p], [g])
        loop.p, before = p.detach().tolist(), loop.p
        follow = LoopSynapses(torch.tensor(before), lr=0.05, k=8.0, warmup=3, base=base, **others)
        follow.__dict__.update({**loop.__dict__, "p": list(before)})
        follow.step(g)
        loop.__dict__.update({**follow.__dict__, "p": loop.p})
        expected = torch.tensor(follow.p, dtype=torch.float64)
        torch.testing.assert_close(p.detach().double(), expected, rtol=torch.finfo(dtype).eps, atol=1e-6)
    state = [value for name, value in only(optimizer).items() if name != "step"]
    assert {value.dtype for value in state} == {torch.float32}
    assert p.dtype == dtype


def test_a_trace_of_16_bit_gradients_does_not_stand_still():
    """In bfloat16 0.99 e + 0.01 g would stop growing far below g."""
    p = parameter(2, dtype=torch.bfloat16)
    optimizer = SelectivePlasticityOptimizer([p], base="sgd")
    learn(optimizer, [p], [torch.tensor([1.0, 2.0], dtype=torch.bfloat16)] * 600)
    found = optimizer.get_param_eligibility(p)
    torch.testing.assert_close(found, (1 - 0.99**600) * torch.tensor([1.0, 2.0]), rtol=1e-4, atol=0)


@each_base
def test_parameters_may_lie_in_memory_in_any_order(base):
    forms = {
        "transposed": lambda x: x.t().contiguous().t(),
        "channels last": lambda x: x.view(4, 3, 5, 2).contiguous(memory_format=torch.channels_last),
        "every other": lambda x: x.repeat_interleave(2, dim=1)[:, ::2],
    }
    for form in forms.values():
        ends = []
        for flat in (False, True):
            p = nn.Parameter(form(normal(12, 10)).contiguous() if flat else form(normal(12, 10)).detach())
            strides = p.stride()
            assert p.is_contiguous() == flat
            optimizer = SelectivePlasticityOptimizer([p], base=base, lr=0.1, warmup_steps=0, plasticity_k=8.0)
            learn(optimizer, [p], [g.view(p.shape) for g in stream(12, 10, steps=5)])
            assert p.stride() == strides
            ends.append(p.detach())
        torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-6)


def test_a_parameter_may_be_a_stretch_of_a_larger_tensor():
    """The kernels work on addresses: not a number beside the parameter may change."""
    whole = normal(40)
    kept = whole.clone()
    p = nn.Parameter(whole[11:29])
    for base in BASES:
        learn(SelectivePlasticityOptimizer([p], base=base, lr=0.1), [p], stream(18, steps=3))
    assert torch.equal(whole[:11], kept[:11])
    assert torch.equal(whole[29:], kept[29:])
    assert (whole[11:29] != kept[11:29]).all()


@each_float
@each_base
def test_parameters_without_entries_and_with_one(base, dtype):
    empty, one, other = parameter(0, 3, dtype=dtype), parameter(dtype=dtype), parameter(1, 1, dtype=dtype)
    optimizer = SelectivePlasticityOptimizer([empty, one, other], base=base, lr=0.1, plasticity_k=9.0, warmup_steps=0)
    plain = [nn.Parameter(x.detach().clone()) for x in (one, other)]
    ungated = TORCH_OWN[base](plain, lr=0.1)
    for g in stream(1, steps=4, dtype=dtype):
        learn(optimizer, [empty, one, other], [(torch.zeros(0, 3, dtype=dtype), g[0], g.view(1, 1))])
        learn(ungated, plain, [(g[0], g.view(1, 1))])
    # One synapse's gradient is always the largest of its tensor, and so a surprise.
    assert optimizer.get_diagnostics()["gate_mean"] == 1
    for p, q in zip((one, other), plain, strict=True):
        torch.testing.assert_close(p, q, **ALLOWED[dtype])


def test_a_parameter_that_changed_its_size_is_refused():
    """And not stepped on: the kernels would write beyond the end of the trace."""
    for base in BASES:
        p = parameter(5)
        optimizer = SelectivePlasticityOptimizer([p], base=base)
        learn(optimizer, [p], stream(5, steps=1))
        p.grad = None
        p.data = normal(7)
        p.grad = normal(7)
        with pytest.raises(RuntimeError, match="size"):
            optimizer.step()


def test_a_model_that_changed_its_precision():
    """State in float64 must not be read as float32; torch's own Adam refuses too."""
    ends = []
    for turn in (True, False):
        p = parameter(5, dtype=torch.float64)
        optimizer = SelectivePlasticityOptimizer([p], lr=0.1, warmup_steps=0, base="sgd")
        learn(optimizer, [p], stream(5, steps=3, dtype=torch.float64))
        if turn:
            p.grad = None
            p.data = p.data.float()
        learn(optimizer, [p], stream(5, steps=3, seed=300, dtype=p.dtype))
        ends.append(p.detach().double())
    torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-6)


def test_autograd_knows_that_a_parameter_has_changed():
    """As with every optimizer: what was saved for the backward pass is no longer what the parameter is."""
    for base, dtype in itertools.product(BASES, FLOATS):
        p, x = parameter(5, dtype=dtype), parameter(5, seed=1, dtype=dtype)
        optimizer = SelectivePlasticityOptimizer([p], base=base)
        loss = (p * x).sum()
        learn(optimizer, [p], stream(5, steps=1, dtype=dtype))
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_gradients_that_have_gradients_themselves():
    ends = []
    for create_graph in (False, True):
        p = parameter(5)
        optimizer = SelectivePlasticityOptimizer([p], lr=0.1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of a cycle, which is broken below
            (p**3).sum().backward(create_graph=create_graph)
        assert p.grad.requires_grad == create_graph
        optimizer.step()
        assert not optimizer.get_param_gate(p).requires_grad
        p.grad = None
        ends.append(p.detach())
    assert torch.equal(*ends)


# ------------------------------------------------------------------------------------------------ a guest in torch


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
def test_one_cycle_turns_betas_too(tensor_lr):
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


def test_one_cycle_leaves_the_trace_of_base_sgd_alone():
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
    """Every scheduler of torch that is made of an optimizer alone."""
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
def test_what_schedulers_note_in_a_group_is_accepted_and_saved(base, make):
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


# ------------------------------------------------------------------------------------------------ torch.compile


def compiled_and_not(base, dtype, backend, tensor_lr=False, **others):
    ends = []
    for compiled in (True, False):
        parameters = [parameter(8, 3, dtype=dtype), parameter(5, seed=1, dtype=dtype)]
        lr = torch.tensor(0.125) if tensor_lr else 0.125
        optimizer = SelectivePlasticityOptimizer(
            parameters, lr=lr, base=base, warmup_steps=4, plasticity_k=8.0, **others
        )

        def step(optimizer=optimizer):
            optimizer.step()

        run = torch.compile(step, backend=backend, fullgraph=True) if compiled else step
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        for g in zip(stream(8, 3, steps=11, dtype=dtype), stream(5, steps=11, seed=300, dtype=dtype), strict=True):
            for p, now in zip(parameters, g, strict=True):
                p.grad = now
            run()
        if compiled:
            # One in which the state is made, one for all steps to come.
            assert torch._dynamo.utils.counters["stats"]["unique_graphs"] - graphs == 2
        ends.append(torch.cat([p.detach().flatten() for p in parameters]))
    return ends


@pytest.fixture
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize(
    ("base", "dtype", "backend", "tensor_lr"),
    [
        ("sgd", torch.float64, "eager", False),
        ("sgd", torch.float32, "aot_eager", True),
        ("adam", torch.float64, "eager", True),
        ("adam", torch.float32, "aot_eager", False),
    ],
)
def test_torch_compile_makes_one_graph_of_a_step_and_the_same_numbers(base, dtype, backend, tensor_lr):
    found, expected = compiled_and_not(base, dtype, backend, tensor_lr)
    # A learning rate in float32 is divided by Adam's bias in float32 or, compiled, in float64.
    allowed = ALLOWED[torch.float32 if tensor_lr else dtype]
    torch.testing.assert_close(found, expected, **allowed)


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("tensor_lr", [False, True])
@each_base
def test_a_compiled_step_decays_and_climbs(base, tensor_lr):
    found, expected = compiled_and_not(base, torch.float64, "eager", tensor_lr, weight_decay=0.3, maximize=True)
    torch.testing.assert_close(found, expected, **ALLOWED[torch.float32 if tensor_lr else torch.float64])


@pytest.fixture
def asked_for(request):
    if "slow" not in request.config.option.markexpr:
        pytest.skip("takes a minute: run with -m slow")


@pytest.mark.slow
@pytest.mark.usefixtures("asked_for", "fresh_compiler")
@pytest.mark.parametrize("tensor_lr", [False, True])
@each_float
@each_base
def test_inductor_makes_the_same_numbers(base, dtype, tensor_lr):
    found, expected = compiled_and_not(base, dtype, "inductor", tensor_lr)
    torch.testing.assert_close(found, expected, **ALLOWED[torch.float32 if tensor_lr else dtype])


# ------------------------------------------------------------------------------------------------ threads, processes


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_parameters_distributed_over_two_processes_follow_whole_ones(tmp_path):
    """DTensor, in all placements, both bases and gatings; looking inside and saving too."""
    script = Path(__file__).with_name("distributed_steps.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), "2", str(tmp_path / "meeting")],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=300)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said


@pytest.fixture
def threads():
    """Set how many threads torch may use; one again in the end."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


LARGE = (1 << 18) + 4099


@each_base
def test_two_threads_do_what_one_does_bit_for_bit(base, threads):
    gradients = stream(LARGE, steps=3)
    ends = []
    for number in (1, 2, 3):
        p = parameter(LARGE)
        optimizer = SelectivePlasticityOptimizer([p], base=base, lr=0.1, warmup_steps=2, plasticity_k=9.0)
        threads(number)
        learn(optimizer, [p], gradients)
        threads(1)
        ends.append(p.detach())
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])


def test_a_large_parameter_is_shared_out(threads, monkeypatch):
    """Without which the test of two threads would test one."""
    took_part = set()
    kernel = compiled_steps.kernels.gated_sgd

    def watched(*arguments):
        took_part.add(threading.get_ident())
        return kernel(*arguments)

    monkeypatch.setattr(compiled_steps.kernels, "gated_sgd", watched)
    p = parameter(LARGE)
    threads(2)
    learn(SelectivePlasticityOptimizer([p], base="sgd"), [p], [torch.ones(LARGE)])
    assert len(took_part) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own(threads):
    p = parameter(LARGE)
    optimizer = SelectivePlasticityOptimizer([p], lr=0.1, base="sgd")
    gradients = stream(LARGE, steps=4)
    learn(optimizer, [p], gradients[:1])

    def end():
        # No more of torch than the optimizer itself needs: in a forked process torch's own threads are gone for good.
        threads(2)
        for g in gradients[1:]:
            p.grad = g
            optimizer.step()
        return repr(float(p.detach().numpy().sum(dtype=np.float64))).encode()

    p.grad = gradients[0]
    threads(2)
    optimizer.step()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(30)  # nobody else would end a child that hangs
        os.write(writer, end())
        os._exit(0)
    os.close(writer)
    expected = end()
    with open(reader, "rb") as answer:  # noqa: PTH123  a pipe has no path
        found = answer.read()
    assert os.waitpid(child, 0)[1] == 0
    assert found == expected


@each_base
def test_two_python_threads_with_an_optimizer_each(base, threads):
    def end(seed):
        p = parameter(LARGE, seed=seed)
        learn(SelectivePlasticityOptimizer([p], base=base, lr=0.1), [p], gradients[seed])
        ends[seed] = p.detach()

    gradients = {seed: stream(LARGE, steps=2, seed=100 * seed) for seed in (1, 2)}
    ends = {}
    threads(2)
    end(1)
    end(2)
    expected = dict(ends)
    at_once = [threading.Thread(target=end, args=(seed,)) for seed in (1, 2)]
    for thread in at_once:
        thread.start()
    for thread in at_once:
        thread.join()
    for seed in (1, 2):
        assert ends[seed] is not expected[seed]
        assert torch.equal(ends[seed], expected[seed])


# ------------------------------------------------------------------------------------------------ what is refused


BAD = {
    "lr": [-1.0, math.nan, math.inf, "0.1", None, [0.1], True, 1j, torch.tensor([0.1, 0.2]), torch.tensor(-1.0)],
    "trace_decay": [-0.1, 1.0, math.nan, "0.9", None, [0.9]],
    "plasticity_k": [-1.0, math.nan, math.inf, 1e300, "5", None, [5.0], torch.tensor(5.0)],
    "threshold_percentile": [-1, 100.5, math.nan, "75", None, [75]],
    "warmup_steps": [-1, 2.5, math.nan, math.inf, "10", None, [10]],
    "eps": [-1e-8, math.nan, math.inf, "1e-8", None, [1e-8]],
    "betas": [0.9, None, "ab", (0.9,), (0.9, 1.0), (-0.1, 0.9), (math.nan, 0.9), (0.9, None), ("a", 0.9), (0.9, True)],
    "base": ["SGD", None, ["sgd"], 1],
    "gating": ["none", None, ["uniform"], True],
    "adaptive_threshold": [1, "yes", None, [True]],
    "weight_decay": [-0.1, math.nan, math.inf, "0.1", None, [0.1], True],
    "maximize": [1, "yes", None],
    "foreach": [True, "yes"],
    "fused": [True, "yes"],
    "amsgrad": [True],
    "capturable": [True],
    "differentiable": [True],
    "momentum": [0.9],
    "dampening": [0.1],
    "nesterov": [True],
}
BAD_VALUES = [(name, value) for name, values in BAD.items() for value in values]


@pytest.mark.parametrize(("name", "value"), BAD_VALUES, ids=lambda value: str(value).replace("\n", ""))
def test_a_bad_value_is_refused_by_name(name, value):
    p = parameter(3)
    with pytest.raises(ValueError, match=rf"^{name} is .*: it must be"):
        SelectivePlasticityOptimizer([p], **{name: value})
    with pytest.raises(ValueError, match=rf"^{name} is .*: it must be"):
        SelectivePlasticityOptimizer([{"params": [p], name: value}])
    optimizer = SelectivePlasticityOptimizer([p])
    with pytest.raises(ValueError, match=rf"^{name} is .*: it must be"):
        optimizer.add_param_group({"params": [parameter(2)], name: value})
    assert len(optimizer.param_groups) == 1
    learn(optimizer, [p], stream(3, steps=1))
    kept, saved = p.detach().clone(), optimizer.state_dict()
    saved["param_groups"][0][name] = value
    with pytest.raises(ValueError, match=rf"^state_dict: parameter group 0: {name} is .*: it must be"):
        optimizer.load_state_dict(saved)
    for changed_when in ("before a step", "after one that was refused"):
        optimizer.param_groups[0][name] = value
        p.grad = torch.ones(3)
        with pytest.raises(ValueError, match=rf"^{name} is .*: it must be"):
            optimizer.step()
        assert torch.equal(p, kept), changed_when


@pytest.mark.parametrize("name", ["plasticity_K", "weight_decy", "centered", "trace"])
def test_an_option_that_does_not_exist_is_refused_by_name_wherever_it_is_given(name):
    p = parameter(3)
    said = rf"SelectivePlasticityOptimizer has no option {name}\."
    with pytest.raises(ValueError, match=said):
        SelectivePlasticityOptimizer([p], **{name: 0.1})
    with pytest.raises(ValueError, match=said):
        SelectivePlasticityOptimizer([{"params": [p], name: 0.1}])
    optimizer = SelectivePlasticityOptimizer([p])
    with pytest.raises(ValueError, match=said):
        optimizer.add_param_group({"params": [parameter(2)], name: 0.1})
    saved = optimizer.state_dict()
    saved["param_groups"][0][name] = 0.1
    with pytest.raises(ValueError, match=said):
        optimizer.load_state_dict(saved)
    optimizer.param_groups[0][name] = 0.1
    p.grad = torch.ones(3)
    with pytest.raises(ValueError, match=said):
        optimizer.step()
    del optimizer.param_groups[0][name]
    optimizer.step()


def test_a_misspelt_option_is_told_its_name():
    with pytest.raises(ValueError, match="plasticity_k"):
        SelectivePlasticityOptimizer([{"params": [parameter(3)], "plasticity_K": 1.0}])


@each_base
def test_options_of_torch_that_are_off_change_nothing(base):
    p, q = parameter(3), parameter(3)
    off = {"foreach": None, "fused": False, "amsgrad": False, "capturable": False, "differentiable": False}
    off |= {"momentum": 0, "dampening": 0, "nesterov": False, "maximize": False, "weight_decay": 0.0}
    learn(SelectivePlasticityOptimizer([p], base=base, **off), [p], stream(3))
    learn(SelectivePlasticityOptimizer([q], base=base), [q], stream(3))
    assert torch.equal(p, q)


def test_adams_coupled_weight_decay_is_refused_and_no_decay_is_of_any_kind():
    p = parameter(3)
    with pytest.raises(ValueError, match=r"^weight_decay is 0\.1 with decoupled_weight_decay False"):
        SelectivePlasticityOptimizer([{"params": [p], "weight_decay": 0.1, "decoupled_weight_decay": False}])
    optimizer = SelectivePlasticityOptimizer([{"params": [p], "decoupled_weight_decay": False}])
    learn(optimizer, [p], stream(3, steps=1))
    optimizer.param_groups[0]["weight_decay"] = 0.1
    with pytest.raises(ValueError, match="weight_decay"):
        optimizer.step()


def test_the_base_of_a_group_cannot_change_once_it_has_a_state():
    p = parameter(3)
    optimizer = SelectivePlasticityOptimizer([p])
    optimizer.param_groups[0]["base"] = "sgd"
    learn(optimizer, [p], stream(3, steps=1))
    optimizer.param_groups[0]["base"] = "adam"
    with pytest.raises(ValueError, match="make a new optimizer with that base"):
        optimizer.step()


def test_options_are_checked_again_only_where_one_was_changed(monkeypatch):
    checked = []
    check = optimizer_module.check_option
    monkeypatch.setattr(
        optimizer_module, "check_option", lambda name, value: (checked.append(name), check(name, value))
    )
    p, q = parameter(3), parameter(2)
    optimizer = SelectivePlasticityOptimizer([{"params": [p]}, {"params": [q]}])
    learn(optimizer, [p, q], [(torch.ones(3), torch.ones(2))])
    checked.clear()
    learn(optimizer, [p, q], [(torch.ones(3), torch.ones(2))] * 2)
    assert checked == []
    optimizer.param_groups[1]["lr"] = 0.5
    learn(optimizer, [p, q], [(torch.ones(3), torch.ones(2))] * 2)
    assert checked == ["lr"]


@pytest.mark.parametrize(
    "options",
    [
        {"lr": 0, "plasticity_k": 10, "eps": 0, "trace_decay": 0, "betas": (0, 0), "warmup_steps": 0},
        {"lr": np.float32(0.1), "plasticity_k": np.float64(2), "warmup_steps": np.int64(3), "betas": [0.5, 0.5]},
        {"lr": torch.tensor([0.1]), "warmup_steps": 10.0, "threshold_percentile": 100, "plasticity_k": 1e6},
        {"weight_decay": 1, "maximize": True, "foreach": False, "fused": None},
    ],
)
@each_float
@each_base
def test_good_values_at_the_edges_work(base, dtype, options):
    p = parameter(2, 3, dtype=dtype)
    learn(SelectivePlasticityOptimizer([p], base=base, **options), [p], stream(2, 3, steps=3, dtype=dtype))
    assert p.isfinite().all()


def test_complex_parameters_are_refused():
    p = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    with pytest.raises(TypeError, match="complex"):
        SelectivePlasticityOptimizer([p])
    optimizer = SelectivePlasticityOptimizer([parameter(2)])
    with pytest.raises(TypeError, match="complex"):
        optimizer.add_param_group({"params": [parameter(3), p]})
    assert len(optimizer.param_groups) == 1


# ------------------------------------------------------------------------------------------------ CUDA


@on_cuda
@pytest.mark.parametrize("dtype", [*FLOATS, *HALVES], ids=str)
@each_base
def test_on_cuda_it_does_what_it_does_on_the_cpu(base, dtype):
    ends = []
    for device in ("cpu", "cuda"):
        p = nn.Parameter(normal(40, 5, dtype=dtype).to(device))
        optimizer = SelectivePlasticityOptimizer([p], base=base, lr=0.1, warmup_steps=3, plasticity_k=8.0)
        learn(optimizer, [p], [g.to(device) for g in stream(40, 5, steps=5, dtype=dtype)])
        ends.append((p.detach().cpu().double(), optimizer.get_diagnostics()))
    allowed = {"rtol": 2e-2, "atol": 2e-2} if dtype in HALVES else ALLOWED[dtype]
    torch.testing.assert_close(ends[0][0], ends[1][0], **allowed)
    assert ends[1][1] == pytest.approx(ends[0][1], rel=1e-4)


@on_cuda
@each_base
def test_a_state_moves_between_cuda_and_the_cpu(base):
    p = nn.Parameter(normal(9).cuda())
    optimizer = SelectivePlasticityOptimizer([p], base=base, lr=0.1)
    learn(optimizer, [p], [g.cuda() for g in stream(9, steps=3)])
    q = nn.Parameter(p.detach().cpu())
    other = SelectivePlasticityOptimizer([q])
    other.load_state_dict(optimizer.state_dict())
    learn(optimizer, [p], [g.cuda() for g in stream(9, steps=3, seed=300)])
    learn(other, [q], stream(9, steps=3, seed=300))
    torch.testing.assert_close(p.detach().cpu(), q.detach(), rtol=1e-5, atol=1e-6)


@on_cuda
@each_base
def test_learning_rates_may_lie_on_cuda(base):
    p = nn.Parameter(normal(9).cuda())
    learn(SelectivePlasticityOptimizer([p], base=base, lr=torch.tensor(0.1).cuda()), [p], [normal(9).cuda()])
    assert p.isfinite().all()
