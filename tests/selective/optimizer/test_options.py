"""Which options the optimizer accepts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from plastic_selective import SelectivePlasticityOptimizer
from plastic_selective.optimizer import optimizer as optimizer_module
from selective.optimizer.synapses import (
    each_base,
    each_float,
    learn,
    parameter,
    stream,
)

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
def test_an_unknown_option_is_refused_by_name_wherever_it_is_given(name):
    p = parameter(3)
    message = rf"SelectivePlasticityOptimizer has no option {name}\."
    with pytest.raises(ValueError, match=message):
        SelectivePlasticityOptimizer([p], **{name: 0.1})
    with pytest.raises(ValueError, match=message):
        SelectivePlasticityOptimizer([{"params": [p], name: 0.1}])
    optimizer = SelectivePlasticityOptimizer([p])
    with pytest.raises(ValueError, match=message):
        optimizer.add_param_group({"params": [parameter(2)], name: 0.1})
    saved = optimizer.state_dict()
    saved["param_groups"][0][name] = 0.1
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(saved)
    optimizer.param_groups[0][name] = 0.1
    p.grad = torch.ones(3)
    with pytest.raises(ValueError, match=message):
        optimizer.step()
    del optimizer.param_groups[0][name]
    optimizer.step()


def test_a_misspelled_option_gets_a_suggestion():
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


def test_coupled_weight_decay_of_adam_is_refused_unless_it_is_0():
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


def test_options_are_checked_again_only_if_one_changed(monkeypatch):
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
