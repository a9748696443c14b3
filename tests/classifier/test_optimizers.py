"""The optimizers of --optimizer: each makes the step of its definition, and a plugin can offer another."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from plastic_cli.classifier.optimizers import make_optimizer
from plastic_cli.config.classifier import ModuleTrainConfig
from plastic_cli.errors import OptionError, UserError
from plastic_cli.plugins.discovery import discover, find_rule
from plastic_cli.plugins.models import train_model


def config(**options):
    return ModuleTrainConfig.from_values(options)


def stepped(gradients, **options):
    """The parameter after one step for each gradient, from 1."""
    parameter = nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = make_optimizer(config(**options), [parameter])
    for gradient in gradients:
        parameter.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
    return parameter.item()


def test_sgd_and_momentum_are_their_definition():
    assert stepped([2.0, 1.0], optimizer="sgd", learning_rate=0.1) == pytest.approx(1 - 0.2 - 0.1)
    assert stepped([2.0, 1.0], optimizer="momentum", learning_rate=0.1) == pytest.approx(1 - 0.2 - 0.1 * (1.8 + 1))
    same = stepped([2.0, 1.0], optimizer="sgd", momentum=0.9, learning_rate=0.1)
    assert same == stepped([2.0, 1.0], optimizer="momentum", learning_rate=0.1)
    assert stepped([0.0], optimizer="sgd", learning_rate=0.1, weight_decay=0.5) == pytest.approx(1 - 0.05)


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_the_first_step_of_adam_is_the_learning_rate(optimizer):
    after = stepped([5.0], optimizer=optimizer, learning_rate=0.1, weight_decay=0.0)
    assert after == pytest.approx(0.9, abs=1e-6)


def test_weight_decay_of_adam_is_in_the_gradient_and_that_of_adamw_next_to_the_step():
    assert stepped([0.0], optimizer="adam", learning_rate=0.1, weight_decay=0.5) == pytest.approx(0.9, abs=1e-6)
    assert stepped([0.0], optimizer="adamw", learning_rate=0.1, weight_decay=0.5) == pytest.approx(0.95)


def test_selective_is_the_optimizer_of_its_plugin():
    parameter = nn.Parameter(torch.ones(4))
    optimizer = make_optimizer(config(optimizer="selective", weight_decay=0.1), [parameter])
    assert type(optimizer).__name__ == "SelectivePlasticityOptimizer"
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"], group["plasticity_k"]) == (0.001, 0.1, 5.0)


def test_without_its_plugin_an_optimizer_is_an_error_of_one_line(monkeypatch):
    monkeypatch.delitem(discover().rules, "selective")
    with pytest.raises(UserError, match="--optimizer selective: no installed plugin has it"):
        make_optimizer(config(optimizer="selective"), [nn.Parameter(torch.ones(1))])


def test_an_optimizer_implies_its_learning_rate_momentum_and_weight_decay():
    chosen = {name: config(optimizer=name) for name in ("sgd", "momentum", "adam", "adamw", "selective")}
    assert [entry.learning_rate for entry in chosen.values()] == [0.1, 0.01, 0.001, 0.001, 0.001]
    assert [entry.momentum for entry in chosen.values()] == [0, 0.9, 0, 0, 0]
    assert [entry.weight_decay for entry in chosen.values()] == [0, 0, 0, 0.01, 0]
    assert config(optimizer="adam", learning_rate=0.3).learning_rate == 0.3
    for entry in chosen.values():
        entry.refuse_unused()
    with pytest.raises(OptionError, match=r"--momentum 0\.5 does nothing with --optimizer adam"):
        config(optimizer="adam", momentum=0.5).refuse_unused()


@pytest.mark.parametrize("name", ["lnet", "mine", "mine:", ":net", ""])
def test_a_model_is_a_known_word_or_a_module_and_a_name(name):
    with pytest.raises(OptionError, match=r"--model .*must be mlp, cnn, lenet, resnet18, or MODULE:FACTORY"):
        config(model=name)
    assert config(model="LeNet").model == "lenet"
    assert config(model=" mine:Net ").model == "mine:Net"


def test_backprop_keeps_its_rate_of_sgd_on_its_own_network():
    rates = {"sgd": 0.001, "momentum": 0.01, "adam": 0.001, "adamw": 0.001, "selective": 0.001}
    model = train_model(find_rule("backprop"))
    assert {name: model.from_values({"optimizer": name}).learning_rate for name in rates} == rates
    on_lenet = {name: model.from_values({"optimizer": name, "model": "lenet"}).learning_rate for name in rates}
    assert on_lenet == {**rates, "sgd": 0.1}
