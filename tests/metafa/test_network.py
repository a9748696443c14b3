"""The network of a stored run, as another program loads and adapts it."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch

from plastic_cli.data.datasets import load_dataset
from plastic_cli.runs.folder import open_run
from plastic_cli.testing import plastic, write_tiny_dataset
from plastic_metafa import AdaptiveNetwork
from plastic_metafa.benchmark import EpisodeBenchmark
from plastic_metafa.config import trained_as
from plastic_metafa.network import network
from plastic_metafa.setting import training_setting
from plastic_metafa.theta_file import learned_rule

SMALL = ["--hidden", "8,6", "--episodes", 4, "--ways", 3, "--held-out-classes", 0, "--shots", 5, "--queries", 3]


@pytest.fixture
def data(tmp_path):
    return write_tiny_dataset(tmp_path / "data", classes=4, images=80)


@pytest.fixture
def trained(data):
    def train(*options):
        outcome = plastic("train", "metafa", "--json", "--dataset", data, *SMALL, "--test-episodes", 6, *options)
        assert outcome.code == 0, outcome.err
        return open_run(Path(outcome.results[0]["folder"]), stage="analyze")

    return train


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--feedback", "direct"],
        ["--feedback", "symmetric", "--terms", "0"],
        ["--outputs", "episode", "--image-size", 4],
    ],
)
def test_the_adapted_network_has_the_accuracy_of_the_run(trained, data, options):
    run = trained(*options)
    setting = training_setting(trained_as(run), load_dataset(str(data)), run)
    bench = EpisodeBenchmark(setting, setting.test, 6, run, "test")
    loaded = network(run)
    loaded.pixels = torch.nn.Identity()  # the images of these episodes are pixels already
    accuracies = []
    for seed, episode in zip(bench.seeds, bench.episodes, strict=True):
        loaded.reset(seed).adapt(episode.x, episode.y)
        accuracies.append((loaded(episode.query_x).argmax(1) == episode.query_y).float().mean())
    assert float(torch.stack(accuracies).mean()) == run.record.summary["test/accuracy"]


def test_images_are_taken_as_the_data_set_gives_them(trained, data):
    loaded, x = network(trained("--image-size", 4)), load_dataset(str(data)).test.x
    logits = loaded(x)
    assert logits.shape == (80, 4)
    assert torch.equal(loaded(x.view(-1, 1, 6, 6)), logits)
    assert loaded.W[0].shape == (8, 16)
    pixels = loaded.pixels(x)
    assert 0 <= pixels.min() < pixels.max() <= 1


def test_adapting_learns_and_resetting_draws_again(data):
    wide = ["--hidden", 32, "--feedback", "symmetric", "--initial-rate", 0.1, *SMALL[2:], "--test-episodes", 3]
    [result] = plastic("train", "metafa", "--json", "--dataset", data, *wide).results
    loaded = network(open_run(Path(result["folder"]), stage="analyze"))
    train = load_dataset(str(data)).train
    first = [weights.clone() for weights in loaded.W]
    before = (loaded(train.x).argmax(1) == train.y).double().mean()
    for _ in range(10):
        loaded.adapt(train.x, train.y)
    assert (loaded(train.x).argmax(1) == train.y).double().mean() > before + 0.2
    seeded = [[weights.clone() for weights in loaded.reset(seed).W] for seed in (1, 1, 2)]
    assert all(torch.equal(one, other) for one, other in zip(seeded[0], seeded[1], strict=True))
    assert not torch.equal(seeded[0][0], seeded[2][0])
    assert not torch.equal(seeded[0][0], first[0])


def test_it_is_a_module_like_others(trained, data):
    run, x = trained(), load_dataset(str(data)).test.x
    loaded = network(run)
    assert [name for name, _ in loaded.named_parameters()] == ["theta", "W.0", "W.1", "W.2"]
    assert loaded.theta.tolist() == list(learned_rule(run).theta.values())
    loaded(x).logsumexp(1).sum().backward()
    assert all(weights.grad.any() for weights in loaded.W)
    assert torch.equal(pickle.loads(pickle.dumps(loaded)).reset(seed=5)(x), copy.deepcopy(loaded).reset(seed=5)(x))
    other = network(run).reset(seed=5)
    assert not torch.equal(other(x), loaded(x))
    other.load_state_dict(loaded.state_dict())
    assert torch.equal(other(x), loaded(x))
    adapted = loaded.double().adapt(x.double(), torch.zeros(len(x), dtype=torch.int64))
    assert adapted(x).dtype == torch.float64


def test_print_shows_the_sizes_and_the_learned_strengths(trained):
    loaded = network(trained())
    assert isinstance(loaded, AdaptiveNetwork)
    strength = loaded.theta[1].item()
    assert f"36-8-6-4, feedback=fixed, theta={{0 pseudo-gradient: {loaded.theta[0].item():.4g}, 2 ehebb" in repr(loaded)
    assert f"2 ehebb: {strength:.4g}, 9 oja" in repr(loaded)


def test_a_label_that_is_no_output_is_an_error(trained, data):
    loaded, x = network(trained()), load_dataset(str(data)).test.x[:2]
    with pytest.raises(ValueError, match="y has labels from 0 to 4: the outputs are 0 to 3"):
        loaded.adapt(x, torch.tensor([0, 4]))
    before = loaded(x)
    assert torch.equal(loaded.adapt(x[:0], torch.zeros(0, dtype=torch.int64))(x), before)
