"""Parameters, gradients, and the equations in loops over single numbers, for the tests of the optimizer."""

import math

import pytest
import torch
from torch import nn

BASES = ["sgd", "adam"]
FLOATS = [torch.float32, torch.float64]
HALVES = [torch.float16, torch.bfloat16]
ALLOWED = {torch.float32: {"rtol": 1e-5, "atol": 1e-6}, torch.float64: {"rtol": 1e-12, "atol": 1e-13}}
TORCH_OWN = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
each_base = pytest.mark.parametrize("base", BASES)
each_float = pytest.mark.parametrize("dtype", FLOATS, ids=str)


def normal(*shape, seed=0, dtype=torch.float32):
    """Draw in float64, so that all types have the same numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def parameter(*shape, seed=0, dtype=torch.float32):
    return nn.Parameter(normal(*shape, seed=seed, dtype=dtype))


def stream(*shape, steps=10, seed=100, dtype=torch.float32):
    """Gradients of synapses, some of which are always busier than others."""
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


def steady(p, optimizer, steps, scale=1.0):
    """Take steps with gradients of constant size, different for each synapse; return the busy share of each step."""
    sizes = torch.linspace(1, 2, p.numel(), dtype=p.dtype).view_as(p) * scale
    shares = []
    for t in range(steps):
        signs = torch.sign(normal(*p.shape, seed=t, dtype=p.dtype))
        learn(optimizer, [p], [signs * sizes])
        shares.append(optimizer.get_diagnostics()["busy_ratio"])
    return shares


class LoopSynapses:
    """The synapses of one tensor as lists of Python numbers. `step` follows the equations of both bases."""

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
