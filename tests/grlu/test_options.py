"""The options of grlu: which of them choose the compiled code, and what another network or optimizer implies."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from plastic_cli.classifier.networks import build_network
from plastic_cli.data.datasets import load_dataset
from plastic_cli.errors import UserError
from plastic_cli.resolve import resolve
from plastic_cli.runs.folder import create_run, open_run
from plastic_cli.testing import plastic
from plastic_grlu.config import Train
from plastic_grlu.credit import NodePerturbation
from plastic_grlu.learner import GRLULearner, GRLUNetwork
from plastic_grlu.training import build, make_learner_of_module


def built(tmp_path, **options):
    config = Train.from_values(options)
    run = create_run(tmp_path / "runs", rule="grlu", config=config.model_dump(mode="json"))
    return build(run, load_dataset("digits"), trained=False)


@pytest.mark.parametrize("options", [{}, {"batch_size": 16}, {"update": "backprop"}, {"k": 0.5}, {"hidden": "8,8"}])
def test_the_published_rule_on_its_own_network_is_compiled(options, tmp_path):
    assert Train.from_values(options).is_plain
    assert isinstance(built(tmp_path, **options), GRLULearner)


@pytest.mark.parametrize("options", [{"optimizer": "adam"}, {"momentum": 0.5}, {"weight_decay": 0.1}, {"model": "cnn"}])
def test_another_network_or_optimizer_learns_by_node_perturbation(options, tmp_path):
    learner = built(tmp_path, **options)
    assert isinstance(learner.credit, NodePerturbation)
    assert learner.credit.normalize
    assert Train.from_values(options).batch_size == 64
    assert built(tmp_path, **options, update="backprop").credit is None


def test_reward_groups_need_the_published_rule_with_relu(tmp_path):
    assert built(tmp_path, reward_groups=5).groups == 5
    assert Train.from_values({"perturbations": 1}).reward_groups == 1
    for options in (
        {"optimizer": "adam"},
        {"model": "lenet"},
        {"momentum": 0.5},
        {"activation": "top-k"},
        {"update": "backprop"},
    ):
        with pytest.raises(UserError, match="reward-groups"):
            resolve(Train, {"reward_groups": 2, **options}).refuse_unused()
    with pytest.raises(UserError, match=r"--reward-groups 99: the network has 18 units\. Choose 18 or fewer\."):
        built(tmp_path, reward_groups=99, hidden="8")


def test_normalized_mlp_is_the_network_of_the_rule():
    data = load_dataset("digits")
    network = build_network("plastic_cli.classifier.networks:normalized_mlp", data, (), torch.Generator()).module
    linear = [layer for layer in network if isinstance(layer, nn.Linear)]
    own = GRLUNetwork([layer.weight for layer in linear], [layer.bias for layer in linear])
    assert [tuple(layer.weight.shape) for layer in linear] == [(256, 64), (64, 256), (10, 64)]
    torch.testing.assert_close(network(data.test.x), own(data.test.x))
    assert not any(layer.bias.any() for layer in linear)
    # He's initialization, within four standard errors of the standard deviation.
    for layer in linear:
        weights = layer.weight.numel()
        ratio = layer.weight.std().item() / math.sqrt(2 / layer.weight.shape[1])
        assert abs(ratio - 1) < 4 / math.sqrt(2 * weights)


def test_defaults_of_other_networks_and_optimizers():
    rates = {
        (): 0.1,
        ("model", "lenet"): 0.001,
        ("optimizer", "momentum"): 0.003,
        ("optimizer", "adam"): 0.003,
        ("optimizer", "selective"): 0.003,
    }
    for typed, rate in rates.items():
        assert Train.from_values(dict([typed]) if typed else {}).learning_rate == rate
    with_lenet = {"sgd": 0.01, "momentum": 0.003, "adam": 0.001, "adamw": 0.001, "selective": 0.003}
    for optimizer, rate in with_lenet.items():
        assert Train.from_values({"model": "lenet", "optimizer": optimizer}).learning_rate == rate
    assert Train.from_values({"model": "lenet", "batch_size": 5}).batch_size == 5
    for typed in ({"model": "cnn"}, {"optimizer": "adamw"}, {"model": "lenet", "optimizer": "momentum"}):
        Train.from_values(typed).refuse_unused()


def test_another_network_learns_by_adam_unless_an_optimizer_or_momentum_is_chosen():
    optimizers = {
        (): "sgd",
        (("model", "mlp"),): "sgd",
        (("model", "lenet"),): "adam",
        (("model", "torchvision.models:resnet18"), ("learning_rate", 0.1)): "adam",
        (("model", "lenet"), ("optimizer", "sgd")): "sgd",
        (("model", "lenet"), ("momentum", 0.9)): "sgd",
    }
    for typed, optimizer in optimizers.items():
        config = resolve(Train, dict(typed))
        assert config.optimizer == optimizer
        assert config.model_dump() == resolve(Train, {**dict(typed), "optimizer": optimizer}).model_dump()


@pytest.mark.slow
def test_the_defaults_stay_finite_on_a_resnet(request):
    if "slow" not in request.config.option.markexpr:
        pytest.skip("run with -m slow")
    options = ["--model", "torchvision.models:resnet18", "--perturbations", 2, "--epochs", 2]
    outcome = plastic("train", "grlu", "--json", *options)
    assert outcome.code == 0, outcome.err
    (result,) = outcome.results
    assert result["metrics"]["test/loss"] < 3
    assert result["metrics"]["test/accuracy"] > 0.1


def test_the_network_of_every_optimizer_is_that_of_the_published_rule(tmp_path):
    plain, with_adam = (
        built(tmp_path, hidden="7,7", skip=True),
        built(tmp_path, hidden="7,7", skip=True, optimizer="adam"),
    )
    x = load_dataset("digits").test.x
    assert torch.equal(with_adam.predict(x), plain.predict(x))


def test_noise_and_learning_rate_follow_their_cosines(tmp_path):
    options = {"optimizer": "adam", "noise": 0.2, "final_noise": 0.1, "learning_rate": 0.4, "final_learning_rate": 0.2}
    learner = built(tmp_path, **options)
    found = []
    for epoch in range(4):
        learner.begin_epoch(epoch, 4)
        found.append((learner.credit.noise, learner.optimizer.param_groups[0]["lr"]))
    cosine = [(1 + torch.cos(torch.tensor(torch.pi * epoch / 4)).item()) / 2 for epoch in range(4)]
    assert found == [pytest.approx((0.1 + 0.1 * part, 0.2 + 0.2 * part), abs=1e-7) for part in cosine]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"k": 0.5, "momentum": 0.5}, "need --model mlp and --optimizer sgd, without --momentum"),
        ({"backbone": "autoencoder", "weight_decay": 0.1}, "--backbone need --model mlp and --optimizer sgd"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(options, problem):
    with pytest.raises(UserError, match=problem):
        Train.from_values(options)


@pytest.mark.parametrize("other", [{"model": "cnn"}, {"optimizer": "adam"}, {"momentum": 0.5}, {"weight_decay": 0.1}])
@pytest.mark.parametrize("noise", ["noise", "final_noise"])
def test_the_noise_of_another_network_that_follows_the_gradient_has_no_effect(other, noise):
    option = f"--{noise.replace('_', '-')} 0.05"
    with pytest.raises(UserError, match=f"{option} does nothing with --update backprop"):
        resolve(Train, {"update": "backprop", **other, noise: 0.05})
    # With the rule's own network and steps, the noise sets the size of the step.
    assert resolve(Train, {"update": "backprop", noise: 0.05})


@pytest.mark.parametrize("typed", [["--model", "lenet"], ["--optimizer", "adam"], ["--momentum", ".5"]])
def test_options_of_the_own_network_are_refused_with_another(typed):
    outcome = plastic("train", "grlu", "--k", ".5", *typed)
    assert outcome.code == 2
    assert "--k, --activation, --reward-groups and --backbone need --model mlp and --optimizer sgd" in outcome.err


def test_the_credit_of_a_run_comes_from_its_seed(tmp_path):
    config = Train.from_values({"model": "cnn", "hidden": "2"})
    data = load_dataset("digits")
    run = create_run(tmp_path / "runs", rule="grlu", config=config.model_dump(mode="json"))
    first, again = (make_learner_of_module(config, data, open_run(run.folder)) for _ in range(2))
    for learner in (first, again):
        learner.train_batch(data.train.x[:8], data.train.y[:8])
    for left, right in zip(first.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(left, right)
