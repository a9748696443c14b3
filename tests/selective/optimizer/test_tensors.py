"""Gradients and parameters of every type, layout and device."""

from __future__ import annotations

import itertools
import math
import warnings

import pytest
import torch
from torch import nn

from plastic_selective import SelectivePlasticityOptimizer
from selective.optimizer.synapses import (
    ALLOWED,
    BASES,
    FLOATS,
    HALVES,
    TORCH_OWN,
    LoopSynapses,
    each_base,
    each_float,
    learn,
    normal,
    on_cuda,
    only,
    parameter,
    stream,
)

# ------------------------------------------------------------------------------------------------------------ gradients


@each_base
def test_a_sparse_gradient_is_the_dense_one(base):
    """Rows with two gradients, and rows without: momentum still moves these, and their trace decays."""
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
    """One gradient for two parameters, and a gradient that is the parameter itself, act like copies."""
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


def test_a_gradient_with_the_negative_bit():
    """The imaginary part of a conjugate: torch stores the numbers and a bit that negates them."""
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
    assert optimizer.get_param_gate(p).min() < 0.9  # busy, and no gradient is a surprise


@pytest.mark.parametrize("gating", ["selective", "uniform"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@each_base
def test_nan_and_infinity_show_alike_in_kernels_and_tensors(base, bad, gating):
    """With a NaN gradient every gate of the tensor is NaN. An infinite gradient is the largest."""
    seen = []
    for dtype in FLOATS:
        p, other = parameter(40, dtype=dtype), parameter(40, dtype=dtype)
        optimizer = SelectivePlasticityOptimizer([p, other], base=base, warmup_steps=0, lr=0.1, gating=gating)
        good = stream(40, steps=5, dtype=dtype)
        learn(optimizer, [p, other], [(g, g) for g in good[:3]])
        poisoned = good[3].clone()
        poisoned[7] = bad
        learn(optimizer, [p, other], [(poisoned, good[3]), (good[4], good[4])])
        assert p[7].isnan()
        assert other.isfinite().all()
        assert math.isnan(optimizer.get_diagnostics()["eligibility_max"]) == math.isnan(bad)
        seen.append(p.detach().double())
    everywhere = math.isnan(bad) or gating == "uniform"
    assert seen[0].isnan().sum() == (40 if everywhere else 1)
    torch.testing.assert_close(*seen, rtol=1e-5, atol=1e-5, equal_nan=True)


@each_float
@each_base
def test_without_a_gate_nan_and_infinity_stay_in_their_entries(base, dtype):
    p, q = parameter(6, dtype=dtype), parameter(6, dtype=dtype)
    gradients = [torch.tensor([1.0, math.nan, 2.0, math.inf, 0.0, -1.0], dtype=dtype), normal(6, dtype=dtype)]
    learn(SelectivePlasticityOptimizer([p], base=base, plasticity_k=0), [p], gradients)
    learn(TORCH_OWN[base]([q], lr=1e-3, foreach=False), [q], gradients)
    assert torch.equal(p.nan_to_num(9.0), q.nan_to_num(9.0))
    assert p.isnan()[1]


# ----------------------------------------------------------------------------------------------------------- parameters


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


def test_a_trace_of_16_bit_gradients_keeps_changing():
    """In bfloat16, 0.99 e + 0.01 g would stop growing far below g."""
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
    """The kernels work on addresses: no number outside the parameter may change."""
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
    # The gradient of a single synapse is always the largest of its tensor, and therefore a surprise.
    assert optimizer.get_diagnostics()["gate_mean"] == 1
    for p, q in zip((one, other), plain, strict=True):
        torch.testing.assert_close(p, q, **ALLOWED[dtype])


def test_a_parameter_that_changed_its_size_is_refused():
    """Without a check, the kernels would write beyond the end of the trace."""
    for base in BASES:
        p = parameter(5)
        optimizer = SelectivePlasticityOptimizer([p], base=base)
        learn(optimizer, [p], stream(5, steps=1))
        p.grad = None
        p.data = normal(7)
        p.grad = normal(7)
        with pytest.raises(RuntimeError, match="size"):
            optimizer.step()


def test_a_model_whose_precision_changed():
    """A state in float64 must not be read as float32. torch's Adam refuses it too."""
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
    """As with every optimizer, tensors saved for the backward pass are out of date after a step."""
    for base, dtype in itertools.product(BASES, FLOATS):
        p, x = parameter(5, dtype=dtype), parameter(5, seed=1, dtype=dtype)
        optimizer = SelectivePlasticityOptimizer([p], base=base)
        loss = (p * x).sum()
        learn(optimizer, [p], stream(5, steps=1, dtype=dtype))
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_gradients_with_a_graph():
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


# ----------------------------------------------------------------------------------------------------------------- CUDA


@on_cuda
@pytest.mark.parametrize("dtype", [*FLOATS, *HALVES], ids=str)
@each_base
def test_cuda_and_cpu_agree(base, dtype):
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
