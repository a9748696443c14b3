"""`plastic.analyze(module)`: a torch module in place of a run."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torch.nn import functional

import plastic_cli as plastic
from plastic_cli.data.datasets import load_dataset
from plastic_grlu import NodePerturbation


@pytest.fixture(autouse=True)
def _without_drawing(request, monkeypatch):
    """Figures take seconds to draw: only the test that looks at their files draws them."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr("plastic_cli.figures.files.save_figure", lambda *arguments: [])


@pytest.fixture
def drawn():
    """Draw the figures."""


def trained(tiny_data, *layers):
    torch.manual_seed(0)
    module = nn.Sequential(*layers)
    train = load_dataset(str(tiny_data)).train
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    for _ in range(10):
        optimizer.zero_grad()
        functional.cross_entropy(module(train.x), train.y).backward()
        optimizer.step()
    return module


@pytest.fixture
def module(tiny_data):
    return trained(tiny_data, nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, 3))


def test_a_module_is_analyzed_and_stays_as_it_is(module, tiny_data, tmp_path, drawn):
    test = load_dataset(str(tiny_data)).test
    before = {name: value.clone() for name, value in module.state_dict().items()}
    gradients = [parameter.grad for parameter in module.parameters()]
    analysis = plastic.analyze(module, dataset=str(tiny_data), probe=True, confusion=True, sparsity=True, quiet=True)
    assert isinstance(analysis, plastic.Analysis)
    expected = (module(test.x).argmax(1) == test.y).double().mean().item()
    assert analysis.results["test/accuracy"] == pytest.approx(expected)
    assert analysis.tables["sparsity"]["name"].tolist() == ["0"]
    assert set(analysis.figures) == {"confusion", "accuracy_by_class", "probe"}
    assert [path.suffix for path in analysis.files].count(".png") == 3
    assert all(path.is_file() for path in analysis.files)
    assert (tmp_path / "analysis" / "Sequential" / "tables" / "probe.csv").is_file()
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    for parameter, gradient in zip(module.parameters(), gradients, strict=True):
        assert parameter.grad is gradient
    facts = json.loads((tmp_path / "analysis" / "Sequential" / "analysis.json").read_text())
    assert facts["results"] == analysis.results


def cka(module, data, **options):
    return plastic.analyze(module, dataset=str(data), cka=True, quiet=True, **options).results["cka/1-1"]


def test_the_untrained_network_is_a_copy_whose_layers_draw_their_weights_again(module, tiny_data):
    drawn = cka(module, tiny_data)
    assert drawn < 0.99
    assert cka(module, tiny_data) == drawn
    assert cka(module, tiny_data, seed=1) != drawn
    assert cka(module, tiny_data, untrained=module) == pytest.approx(1)
    assert cka(module, tiny_data, untrained=lambda: module) == pytest.approx(1)
    assert cka(module, tiny_data, other=module) == pytest.approx(1)


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(36))

    def forward(self, x):
        return x * self.scale


def test_a_layer_that_cannot_draw_its_weights_again_needs_an_untrained_network(tiny_data):
    module = trained(tiny_data, Scaled(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 3))
    plastic.analyze(module, dataset=str(tiny_data), sparsity=True, quiet=True)
    with pytest.raises(ValueError, match=r"no layer can draw 0\.scale again.*Pass untrained=\.\.\."):
        plastic.analyze(module, dataset=str(tiny_data), probe=True, quiet=True)
    untrained = nn.Sequential(Scaled(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 3))
    assert cka(module, tiny_data, untrained=untrained) < 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "needs a data set"),
        ({"dataset": "digits", "weights": "net.pt"}, "there is no option 'weights' for a module"),
        ({"dataset": "digits", "prob": True}, "Did you mean 'probe'?"),
        ({"dataset": "digits", "other": nn.Linear(2, 2)}, "other does nothing without cka=True"),
        ({"dataset": "digits", "probe": True}, "the module Sequential: "),
        ({"dataset": "digits", "learner": 3}, "learner is for a run of plastic.fit"),
    ],
)
def test_a_wrong_option_is_a_value_error(options, words, module):
    with pytest.raises(ValueError, match=r".") as caught:
        plastic.analyze(module, **options)
    assert words in str(caught.value)


def test_what_is_no_module_cannot_be_compared_with(module, tiny_data):
    with pytest.raises(ValueError, match="untrained is of type int: give a torch module"):
        plastic.analyze(module, dataset=str(tiny_data), cka=True, untrained=3, quiet=True)
    with pytest.raises(ValueError, match="other is of type int: give a torch module"):
        plastic.analyze(module, dataset=str(tiny_data), cka=True, other=3, quiet=True)


def test_a_run_of_fit_keeps_its_credit_rule_for_the_angles(tiny_data):
    def learner(seed):
        torch.manual_seed(seed)
        module = nn.Sequential(nn.Linear(36, 5), nn.ReLU(), nn.Linear(5, 3))
        return module, torch.optim.SGD(module.parameters(), lr=0.1), NodePerturbation(module, perturbations=2)

    run = plastic.fit(learner, rule="perturbed", dataset=str(tiny_data), epochs=1, quiet=True)
    assert isinstance(run.load(), nn.Sequential)
    found = plastic.analyze(run, angles=True, samples=3, quiet=True).results
    assert 0 < found["layer 1/angle"] < 180
    stored = plastic.RunStore().run(run.id)
    assert plastic.analyze(stored, learner=learner(0), angles=True, samples=3, quiet=True).results == found
    with pytest.raises(ValueError, match=r"pass it, built as for training: analyze\(run, learner=\(module, optimizer"):
        plastic.analyze(stored, learner=learner(0)[0], angles=True, quiet=True)
