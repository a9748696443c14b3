"""A learner or a module of a notebook becomes a run: exact resume, seeds, analyses, and a row in the report."""

from __future__ import annotations

import functools
import random
import weakref
from collections import Counter, defaultdict, namedtuple
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import plastic_cli as plastic
from plastic_cli.runs.attributes import attributes_of, restore_attributes
from plastic_cli.testing import interrupted_after


class Perceptron:
    """The delta rule, with everything that a learner of a notebook may hold and no state_dict."""

    stop_at: int | None = None

    def __init__(self, seed=0, rate=0.1):
        self.weights = torch.zeros(64, 10)
        self.traces = [torch.zeros(64), {"mean": torch.zeros(1)}]
        self.noise = torch.Generator().manual_seed(seed)
        self.counts = np.zeros(3)
        self.rate, self.steps, self.label, self.schedule = rate, 0, "delta", None
        self.activation = torch.sigmoid

    def train_batch(self, x, y):
        if self.steps == Perceptron.stop_at:
            Perceptron.stop_at = None
            raise KeyboardInterrupt
        self.steps += 1
        error = nn.functional.one_hot(y, 10).float() - self.predict(x).softmax(1)
        draws = torch.randn(64, generator=self.noise) + torch.randn(64) + random.random() + np.random.rand()  # noqa: NPY002
        self.traces[0] = 0.9 * self.traces[0] + 0.1 * x.mean(0)
        self.traces[1]["mean"] += error.mean()
        self.counts[self.steps % 3] += 1
        self.weights += self.rate * (x + 0.01 * draws + 0.01 * self.traces[0]).T @ error / len(x)
        return float(error.square().mean())

    def predict(self, x):
        return x @ self.weights


def with_dropout(seed=0):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 10))
    return network, torch.optim.Adam(network.parameters(), lr=0.003)


def returning(logits):
    learner = Perceptron()
    learner.predict = lambda x: logits
    return learner


def fit_convolution(*before):
    network = nn.Sequential(*before, nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    return plastic.fit(network, torch.optim.SGD(network.parameters(), lr=0.1), epochs=1)


def with_cycle():
    learner = Perceptron()
    learner.traces = [{}]
    learner.traces[0]["again"] = learner.traces
    return learner


def rows_without_time(run):
    return run.metrics().drop(columns=["run", "time"])


def test_a_learner_without_a_plugin_becomes_a_run():
    run = plastic.fit(Perceptron(), epochs=3, settings={"rate": 0.1}, name="mine")
    assert run.rule == "perceptron"
    assert run.status == "completed"
    assert run.results["test/accuracy"] > 0.85
    assert run.config["rate"] == 0.1
    assert plastic.RunStore("runs").run("mine") == run
    assert isinstance(run.load(), Perceptron)


def test_epochs_match_an_independent_loop():
    """The reported accuracy is that of the weights, trained in the order of the run's own generator."""
    run = plastic.fit(Perceptron(), epochs=2, batch_size=50)
    data = run.data()
    accuracy = (data.test.x @ run.load().weights).argmax(1).eq(data.test.y).double().mean()
    assert run.results["test/accuracy"] == float(accuracy)
    assert run.load().steps == 2 * -(-len(data.train) // 50)


@pytest.mark.parametrize("in_the_same_session", [True, False])
def test_an_interrupted_learner_continues_to_the_same_numbers(in_the_same_session, monkeypatch):
    whole = plastic.fit(Perceptron(), epochs=4, batch_size=100)
    learner = Perceptron()
    monkeypatch.setattr(Perceptron, "stop_at", 40)
    with pytest.raises(KeyboardInterrupt, match=r"Continue it with plastic\.fit"):
        plastic.fit(learner, epochs=4, batch_size=100, name="stopped")
    stopped = plastic.RunStore("runs").run("stopped")
    assert stopped.status == "interrupted"
    continued = plastic.fit(learner if in_the_same_session else Perceptron(), resume=stopped)
    assert continued.status == "completed"
    pd.testing.assert_frame_equal(rows_without_time(continued), rows_without_time(whole))
    assert torch.equal(continued.load().weights, whole.load().weights)


def test_an_interrupt_before_the_first_checkpoint_begins_again_with_the_initial_learner(monkeypatch):
    whole = plastic.fit(Perceptron(), epochs=2)
    learner = Perceptron()
    monkeypatch.setattr(Perceptron, "stop_at", 5)
    with pytest.raises(KeyboardInterrupt):
        plastic.fit(learner, epochs=2, name="stopped")
    continued = plastic.fit(learner, resume="stopped")
    pd.testing.assert_frame_equal(rows_without_time(continued), rows_without_time(whole))


def test_an_interrupted_module_with_dropout_continues_to_the_same_numbers():
    whole = plastic.fit(*with_dropout(), epochs=4)
    network, optimizer = with_dropout()
    calls = []

    def stop(*_):
        calls.append(1)
        if len(calls) == 60:
            raise KeyboardInterrupt

    handle = network.register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        plastic.fit(network, optimizer, epochs=4, name="stopped")
    handle.remove()
    continued = plastic.fit(*with_dropout(seed=9), resume="stopped")
    pd.testing.assert_frame_equal(rows_without_time(continued), rows_without_time(whole))


def test_seeds_build_one_learner_each_and_repeat():
    runs = plastic.fit(with_dropout, epochs=1, seeds=2, rule="dropout")
    again = plastic.fit(with_dropout, epochs=1, seed=1, rule="dropout")
    assert [run.seed for run in runs] == [0, 1]
    assert runs[0].results != runs[1].results
    assert again.results == runs[1].results
    with pytest.raises(ValueError, match="seeds needs a function that builds the learner"):
        plastic.fit(Perceptron(), epochs=1, seeds=2)


def test_the_random_numbers_of_the_session_are_left_alone():
    def draw():
        return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002

    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    expected = draw()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    plastic.fit(Perceptron(), epochs=1)
    assert draw() == expected


def test_a_convolution_gets_images():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    run = plastic.fit(network, torch.optim.SGD(network.parameters(), lr=0.1), epochs=2, images=True)
    assert (run.config["optimizer"], run.config["learning_rate"]) == ("sgd", 0.1)
    assert plastic.evaluate(run)["test/accuracy"] == run.results["test/accuracy"]
    assert run.load() is network
    data = run.data()
    accuracy = network(data.test.x.unflatten(1, data.image_shape)).argmax(1).eq(data.test.y).double().mean()
    assert float(accuracy) == run.results["test/accuracy"]


def test_a_convolution_after_unflatten_gets_rows_of_pixels():
    assert fit_convolution(nn.Unflatten(1, (1, 8, 8))).results["test/accuracy"] > 0.2


def test_a_module_can_be_analyzed_and_stays_as_it_is():
    network, optimizer = with_dropout()
    run = plastic.fit(network, optimizer, epochs=2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    analysis = plastic.analyze(run, probe=True, cka=True)
    assert set(analysis.tables["probe"]["network"]) == {"trained", "untrained", "pixels"}
    table = analysis.tables["probe"].set_index("network")["accuracy"]
    assert table["trained"] != table["untrained"]
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_hidden_activity_is_what_the_next_layer_receives():
    from plastic_cli.classifier.module import ModuleLearner

    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    x = torch.randn(7, 6)
    first, second = ModuleLearner(network).features(x)
    network.eval()
    torch.testing.assert_close(first, network[:3](x))
    torch.testing.assert_close(second, network[:5](x))


def test_a_stored_run_is_read_in_another_session():
    network, optimizer = with_dropout()
    run = plastic.fit(network, optimizer, epochs=2)
    stored = plastic.RunStore("runs").run(run.id)
    with pytest.raises(ValueError, match="not an installed rule"):
        plastic.evaluate(stored)
    with pytest.raises(ValueError, match="not an installed rule"):
        stored.load()
    fresh = with_dropout(seed=8)[0]
    assert plastic.evaluate(stored, learner=fresh)["test/accuracy"] == run.results["test/accuracy"]
    restored = stored.restore(fresh)
    assert all(torch.equal(a, b) for a, b in zip(restored.parameters(), network.parameters(), strict=True))
    with pytest.raises(ValueError, match="does not fit"):
        stored.restore(nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: plastic.fit(3), "fit cannot train an object of type int"),
        (lambda: plastic.fit(nn.Linear(64, 10)), "a module needs an optimizer to learn"),
        (lambda: plastic.fit(Perceptron(), rule="grlu"), "this is an installed rule"),
        (lambda: plastic.fit(lambda seed: Perceptron(seed), epochs=1), "a lambda has no name for tables"),
        (lambda: plastic.fit(Perceptron(), rule="a/b"), "use letters, digits"),
        (lambda: plastic.fit(Perceptron(), epochs=0), "--epochs 0: it should be greater than or equal to 1."),
        (lambda: plastic.fit(Perceptron(), epoch=1), "Did you mean 'epochs'?"),
        (lambda: plastic.fit(Perceptron(), settings={"seed": 3}), "'seed' cannot be the name of a setting"),
        (lambda: plastic.fit(Perceptron(), settings={"rate": object()}), "settings: rate is of type object"),
        (lambda: plastic.fit(Perceptron(), settings={"rate": float("nan")}), "settings: rate is nan"),
        (lambda: plastic.fit(Perceptron(), settings={"model_config": 1}), "'model_config' cannot be the name"),
        (
            lambda: plastic.fit(Perceptron(), settings={"eta %": 5}),
            "Use letters, digits and _, and begin with a letter.",
        ),
        (lambda: plastic.fit(Perceptron(), settings={"copy": 1}), "'copy' cannot be the name"),
        (lambda: plastic.fit(Perceptron(), settings={"threads": 1}), "'threads' cannot be the name"),
        (lambda: plastic.fit(Perceptron(), settings={"name": "a"}), "'name' cannot be the name"),
        (lambda: plastic.fit(Perceptron(), settings={"_rate": 1}), "'_rate' cannot be the name"),
        (lambda: plastic.fit(Perceptron(), settings=[("rate", 1)]), "settings: give a dictionary"),
        (lambda: plastic.fit(Perceptron(), rule="GRLU"), "this is an installed rule"),
        (lambda: plastic.fit(Perceptron(), rule=None, name="a\nb"), "--name a b: use letters"),
        (lambda: plastic.fit(lambda: Perceptron()), "fit calls <lambda>(seed), but too many positional arguments"),
        (lambda: plastic.fit(nn.Linear), "missing a required argument: 'out_features'"),
        (
            lambda: plastic.fit(with_dropout()[0], with_dropout()[1]),
            "the optimizer holds no parameter of the Sequential",
        ),
        (lambda: plastic.fit(returning(torch.zeros(3, 10))), "returned a Tensor of shape (3, 10) for 1000 inputs"),
        (lambda: plastic.fit(returning(None)), "returned a NoneType for 1000 inputs"),
        (lambda: plastic.fit(returning(np.zeros((1000, 10)))), "returned a ndarray of shape (1000, 10)"),
        (lambda: plastic.fit(with_cycle()), "an attribute of Perceptron contains itself"),
        (fit_convolution, "the module Sequential takes images, not rows of pixels: add images=True."),
        (lambda: plastic.fit(Perceptron(), images=True), "images is for a torch module"),
        (lambda: plastic.fit(Perceptron(), dataset="digit"), "Did you mean 'digits'?"),
    ],
)
def test_wrong_use_is_one_clear_line(call, words, runs_folder):
    with pytest.raises(ValueError, match=r".") as caught:
        call()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(runs_folder.glob("*/run.json"))


def test_an_attribute_that_cannot_be_stored_is_named():
    learner = Perceptron()
    learner.window = {"queue": object()}
    with pytest.raises(ValueError, match=r"Perceptron\.window\['queue'\] is a object, which a checkpoint cannot hold"):
        plastic.fit(learner, epochs=1)


def test_a_loss_that_is_not_finite_fails_the_run():
    learner = Perceptron()
    learner.train_batch = lambda x, y: float("nan")
    with pytest.raises(plastic.RunFailed, match="epoch 1"):
        plastic.fit(learner, epochs=1)


def test_attributes_are_restored_in_place():
    a, b = Perceptron(seed=1), Perceptron(seed=2)
    for learner in (a, a):
        learner.train_batch(torch.randn(4, 64), torch.tensor([1, 2, 3, 4]))
    held = b.weights
    restore_attributes(b, attributes_of(a))
    assert b.weights is held
    assert torch.equal(b.weights, a.weights)
    assert torch.equal(b.traces[1]["mean"], a.traces[1]["mean"])
    assert (b.steps, b.counts.tolist()) == (2, a.counts.tolist())
    assert torch.equal(torch.rand(3, generator=b.noise), torch.rand(3, generator=a.noise))


def test_a_class_gets_the_settings_that_it_has_parameters_for():
    given = {"rate": 0.4, "note": "fast"}
    by_settings = plastic.fit(Perceptron, epochs=1, seeds=2, settings=given)
    by_hand = plastic.fit(lambda seed: Perceptron(seed, rate=0.4), rule="by-hand", epochs=1, seeds=2)
    assert [run.learner.rate for run in by_settings] == [0.4, 0.4]
    assert [run.learner.label for run in by_settings] == ["delta", "delta"]
    assert [torch.equal(a.learner.weights, b.learner.weights) for a, b in zip(by_settings, by_hand, strict=True)] == [
        True,
        True,
    ]
    assert by_settings[0].record.config["note"] == "fast"


def test_a_run_that_is_continued_builds_the_class_with_its_stored_settings():
    Perceptron.stop_at = 70
    with pytest.raises(KeyboardInterrupt):
        plastic.fit(Perceptron, epochs=4, settings={"rate": 0.4}, name="stopped")
    assert plastic.fit(Perceptron, resume="stopped").learner.rate == 0.4


def test_a_parameter_without_a_default_can_be_a_setting_and_the_seed_is_none():
    def made(number, *, rate):
        return Perceptron(number, rate)

    assert plastic.fit(made, epochs=1, settings={"rate": 0.3}).learner.rate == 0.3
    assert plastic.fit(made, epochs=1, settings={"rate": 0.3, "number": 7}).record.config["number"] == 7
    with pytest.raises(ValueError, match="missing a required"):
        plastic.fit(made, epochs=1)


def test_a_learner_that_changes_a_setting_changes_it_for_itself():
    def made(seed, sizes):
        sizes.insert(0, seed)
        learner = Perceptron(seed)
        learner.sizes = sizes
        return learner

    runs = plastic.fit(made, epochs=1, seeds=2, settings={"sizes": (6, 5)})
    assert [run.learner.sizes for run in runs] == [[0, 6, 5], [1, 6, 5]]
    assert [run.record.config["sizes"] for run in runs] == [[6, 5], [6, 5]]


def test_a_setting_is_a_label_where_a_parameter_holds_an_object_or_another_function_has_it():
    module = nn.Linear(64, 10)

    def made(seed, m=module):
        return m, torch.optim.SGD(m.parameters(), lr=0.1)

    def plain(seed, rate=0.1):
        return Perceptron(seed, rate)

    @functools.wraps(plain)
    def wrapped(seed):
        return plain(seed)

    assert plastic.fit(made, epochs=1, settings={"m": "linear"}).record.config["m"] == "linear"
    assert plastic.fit(wrapped, rule="wrapped", epochs=1, settings={"rate": 5.0}).learner.rate == 0.1
    assert plastic.fit(lambda *given, **more: Perceptron(*given), rule="any", epochs=1, settings={"rate": 5.0})


def test_a_learner_without_features_is_analyzed_by_its_predictions():
    run = plastic.fit(Perceptron(), epochs=1)
    assert set(plastic.analyze(run).tables) == {"confusion", "accuracy_by_class"}
    with pytest.raises(ValueError, match=r"no features\(x\)"):
        plastic.analyze(run, sparsity=True)


def test_the_run_has_a_row_in_the_report(capsys):
    from plastic_cli.testing import plastic as shell

    plastic.fit(Perceptron, epochs=1, seeds=2, settings={"rate": 0.1})
    outcome = shell("report", "--format", "csv")
    assert outcome.code == 0, outcome.err
    assert "perceptron" in outcome.out


class Slotted:
    """A learner without a dictionary of attributes."""

    __slots__ = ("rate", "weights")

    def __init__(self, seed=0):
        self.weights, self.rate = torch.zeros(64, 10), 0.1

    def train_batch(self, x, y):
        self.weights += self.rate * x.T @ (nn.functional.one_hot(y, 10) - self.predict(x).softmax(1)) / len(x)

    def predict(self, x):
        return x @ self.weights


@dataclass(frozen=True)
class Frozen:
    """A learner whose attributes cannot be set."""

    rate: float = 0.1
    weights: torch.Tensor = field(default_factory=lambda: torch.zeros(64, 10))

    predict = Slotted.predict

    def train_batch(self, x, y):
        self.weights.add_(self.rate * x.T @ (nn.functional.one_hot(y, 10) - self.predict(x).softmax(1)) / len(x))


class Gradient(Slotted):
    """A learner with a tensor that requires gradients, and one that was computed from it."""

    def __init__(self, seed=0):
        super().__init__(seed)
        self.weights.requires_grad_()
        self.squared = None

    def train_batch(self, x, y):
        loss = nn.functional.cross_entropy(self.predict(x), y)
        (slope,) = torch.autograd.grad(loss, self.weights)
        with torch.no_grad():
            self.weights -= self.rate * slope
        self.squared = self.weights**2
        return loss


@pytest.mark.parametrize("kind", [Slotted, Frozen, Gradient])
def test_learners_of_every_kind_are_stored_and_evaluated(kind):
    run = plastic.fit(kind(), epochs=1)
    assert run.results["test/accuracy"] > 0.5
    assert plastic.evaluate(run)["test/loss"] == run.results["test/loss"]
    assert plastic.evaluate(run.id, learner=kind())["test/loss"] == run.results["test/loss"]
    assert torch.equal(run.restore(kind()).weights, run.learner.weights)


def test_generators_of_numpy_and_python_continue():
    def learner(seed):
        made = Perceptron()
        made.numpy, made.python = np.random.default_rng(seed), random.Random(seed)
        made.old = np.random.Generator(np.random.MT19937(seed))
        return made

    a, b = learner(1), learner(2)
    a.numpy.normal(), a.python.gauss(0, 1), a.old.normal()
    held = b.numpy
    restore_attributes(b, attributes_of(a))
    assert b.numpy is held
    assert (b.numpy.normal(), b.python.gauss(0, 1), b.old.normal()) == (
        a.numpy.normal(),
        a.python.gauss(0, 1),
        a.old.normal(),
    )
    assert plastic.fit(learner, epochs=1, seed=3).status == "completed"


def test_a_module_of_float64_is_trained():
    network = nn.Linear(64, 10).double()
    run = plastic.fit(network, torch.optim.SGD(network.parameters(), lr=0.1), epochs=1)
    assert run.results["test/accuracy"] > 0.5
    assert network.weight.dtype == torch.float64


@pytest.mark.parametrize("verb", ["eval", "analyze"])
def test_a_command_for_a_rule_of_fit_says_what_works(verb):
    from plastic_cli.testing import plastic as shell

    wrong = shell(verb, "perceptron")
    assert "In Python" not in wrong.err
    plastic.fit(Perceptron(), epochs=1, quiet=True)
    outcome = shell(verb, "perceptron")
    assert outcome.code == 2
    function = {"eval": "evaluate"}.get(verb, verb)
    assert "there is no rule 'perceptron'" in outcome.err
    assert f"In Python: plastic.{function}(run, learner=...)." in outcome.err


def test_settings_may_be_numbers_of_numpy_and_switches():
    settings = {"rate": np.float64(0.5), "count": np.int64(2), "sizes": np.array([1, 2]), "bias": True, "decay": None}
    run = plastic.fit(Perceptron(), epochs=1, settings={**settings, "scale": torch.tensor(2.0)})
    expected = {"rate": 0.5, "count": 2, "sizes": [1, 2], "bias": True, "decay": None, "scale": 2.0}
    assert {name: run.config[name] for name in expected} == expected
    assert plastic.fit(Perceptron(), resume=run, settings={"bias": True}).status == "completed"


@pytest.mark.parametrize("loss", ["high", {"loss": 1}, torch.ones(4)])
def test_a_loss_that_is_not_a_number_is_named(loss):
    learner = Perceptron()
    learner.train_batch = lambda x, y: loss
    with pytest.raises(
        ValueError, match=r"Perceptron\.train_batch returned a .*: return the loss, one number, or None"
    ):
        plastic.fit(learner, epochs=1)


def test_a_loss_with_its_graph_is_not_kept():
    losses, alive = [], []

    class Kept(Gradient):
        __slots__ = ()

        def train_batch(self, x, y):
            alive.append(sum(loss() is not None for loss in losses))
            loss = super().train_batch(x, y)
            losses.append(weakref.ref(loss))
            return loss

    plastic.fit(Kept(), epochs=1)
    assert max(alive) <= 1


@pytest.mark.parametrize("optimizer", ["adam", torch.optim.SGD])
def test_an_optimizer_of_another_kind_is_a_value_error(optimizer):
    with pytest.raises(ValueError, match=r"the optimizer is .*: give an optimizer such as torch\.optim\.SGD"):
        plastic.fit(nn.Linear(64, 10), optimizer)


class Decay:
    """A learning rate that falls with every call."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return 1 / self.calls


Bounds = namedtuple("Bounds", ["low", "high"])


def test_schedules_and_dictionaries_of_other_classes_are_restored():
    def learner(steps):
        made = Perceptron()
        made.rate_of = Decay()
        made.seen, made.of_class = Counter(), defaultdict(list)
        made.bounds, made.scale, made.square = Bounds(0, steps), np.float32(steps), partial(pow, 2)
        for step in range(steps):
            made.rate_of()
            made.seen[step] += step + 1
            made.of_class[step].append(torch.full((2,), float(step)))
        return made

    a, b = learner(3), learner(1)
    held = b.rate_of
    restore_attributes(b, attributes_of(a))
    assert b.rate_of is held
    assert b.rate_of() == 1 / 4
    assert b.seen == Counter({0: 1, 1: 2, 2: 3})
    assert type(b.seen) is Counter
    assert b.of_class[9] == []
    assert [row.tolist() for row in b.of_class[2]] == [[2, 2]]
    assert (b.bounds, type(b.bounds)) == (Bounds(0, 3), Bounds)
    assert (b.scale, type(b.scale)) == (3, np.float32)


class Note:
    """Knows the learner, and counts."""

    def __init__(self, learner):
        self.learner, self.me, self.words, self.count = learner, self, {"a", "b"}, 0

    def __call__(self):
        self.count += 1


def test_what_a_checkpoint_cannot_hold_of_an_object_that_is_called_is_left_out():
    def learner():
        made = Perceptron()
        made.note, made.kind, made.vector = Note(made), list[int], np.vectorize(abs)
        made.operation = torch.ops.aten.relu
        return made

    a, b = learner(), learner()
    a.note()
    restore_attributes(b, attributes_of(a))
    assert (b.note.count, b.note.learner, b.note.words) == (1, b, {"a", "b"})
    assert plastic.fit(learner(), epochs=1).status == "completed"


def test_a_learner_with_a_schedule_of_its_own_continues_exactly():
    class Scheduled(Perceptron):
        def __init__(self, seed):
            super().__init__(seed)
            self.decay = Decay()

        def train_batch(self, x, y):
            self.rate = self.decay()
            return super().train_batch(x, y)

    whole = plastic.fit(Scheduled, epochs=4)
    with interrupted_after(2), pytest.raises(KeyboardInterrupt):
        plastic.fit(Scheduled, epochs=4, name="stopped")
    again = plastic.fit(Scheduled, resume="stopped")
    assert torch.equal(again.learner.weights, whole.learner.weights)
    assert again.results["test/loss"] == whole.results["test/loss"]
