"""plastic.fit with a credit rule: what it stores, exact resume, seeds, later stages, and wrong use in one line."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from torch import nn

import plastic_cli as plastic
from plastic_cli.credit.gradient import Gradient
from plastic_grlu import NodePerturbation
from plastic_selective import SelectivePlasticityOptimizer


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 12), nn.ReLU(), nn.Dropout(0.2), nn.Linear(12, 10))


def perturbed(seed=0):
    module = network(seed)
    credit = NodePerturbation(
        module, perturbations=2, noise=0.01, normalize=True, generator=torch.Generator().manual_seed(seed)
    )
    return module, torch.optim.Adam(module.parameters(), lr=0.003), credit


def rows(run):
    return run.metrics().drop(columns=["run", "time"])


def test_node_perturbation_with_selective_plasticity_is_three_lines():
    module = network()
    credit = NodePerturbation(module, perturbations=4, noise=0.01, normalize=True)
    optimizer = SelectivePlasticityOptimizer(module.parameters(), lr=0.01)
    run = plastic.fit(module, optimizer, credit=credit, epochs=3, rule="mine", batch_size=32)
    assert run.results["test/accuracy"] > 0.5
    assert run.config["credit"] == "node-perturbation"
    assert run.config["optimizer"] == "selectiveplasticityoptimizer"
    assert run.load() is module
    assert plastic.evaluate(run)["test/accuracy"] == run.results["test/accuracy"]
    assert "sparsity" in plastic.analyze(run, sparsity=True).tables


def test_the_gradient_as_credit_gives_the_numbers_of_backpropagation():
    def trained(*, credit):
        module = network()
        module[2].p = 0.0
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        return plastic.fit(module, optimizer, credit=Gradient(module) if credit else None, epochs=1, rule="mine")

    with_credit, plain = trained(credit=True).results, trained(credit=False).results
    for name, value in plain.items():
        assert with_credit[name] == pytest.approx(value, rel=1e-4)


def test_a_stopped_run_continues_to_the_same_numbers():
    """The noise of the rule and the masks of dropout continue where they stopped."""
    module, optimizer, credit = perturbed()
    whole = plastic.fit(module, optimizer, credit=credit, epochs=3, batch_size=100)
    module, optimizer, credit = perturbed()
    calls = []

    def stop(*_):
        calls.append(1)
        if len(calls) == 25:
            raise KeyboardInterrupt

    backward = credit.backward
    credit.backward = lambda *arguments: (stop(), backward(*arguments))[1]
    with pytest.raises(KeyboardInterrupt):
        plastic.fit(module, optimizer, credit=credit, epochs=3, batch_size=100, name="stopped")
    module, optimizer, credit = perturbed(seed=9)
    continued = plastic.fit(module, optimizer, credit=credit, resume="stopped")
    pd.testing.assert_frame_equal(rows(continued), rows(whole))


def test_a_function_of_the_seed_returns_module_optimizer_and_credit():
    first, second = plastic.fit(perturbed, epochs=1, seeds=2, rule="mine", batch_size=100)
    assert first.results != second.results
    assert plastic.fit(perturbed, epochs=1, seed=1, rule="mine", batch_size=100).results == second.results


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: plastic.fit(network(), torch.optim.SGD, credit=3), "the optimizer is"),
        (lambda: fit_with(credit=3), "credit is a int: give a credit rule such as NodePerturbation(module)"),
        (lambda: fit_with(credit=Gradient(network())), "the credit rule teaches no parameter of the Sequential"),
        (lambda: plastic.fit(perturbed, credit=Gradient(network()), rule="mine"), "return (module, optimizer, credit)"),
        (lambda: plastic.fit(Own(), credit=Gradient(network())), "credit is for a torch module and its optimizer"),
    ],
)
def test_wrong_use_is_one_clear_line(call, words):
    with pytest.raises(ValueError, match=r".") as caught:
        call()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


class Own:
    def train_batch(self, x, y):
        pass

    def predict(self, x):
        return x[:, :10]


def fit_with(credit):
    module = network()
    return plastic.fit(module, torch.optim.SGD(module.parameters(), lr=0.1), credit=credit, rule="mine", epochs=1)
