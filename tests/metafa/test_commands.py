"""The commands of metafa, end to end in a temporary folder."""

from __future__ import annotations

import json
import math
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from plastic_cli.data.datasets import load_dataset
from plastic_cli.resolve import resolve
from plastic_cli.runs.metrics import data_of
from plastic_cli.runs.record import read_record
from plastic_cli.runs.store import RunStore
from plastic_cli.statistics.intervals import mean_interval
from plastic_cli.testing import interrupted_after, plastic, training_numbers, write_tiny_dataset
from plastic_metafa import adaptation, benchmark, evaluation, meta_learning, results, rule, setting
from plastic_metafa.config import Train
from plastic_metafa.theta_file import theta_toml

DRAWN = ["--shots", 5, "--queries", 3, "--ways", 3, "--held-out-classes", 3]
SMALL = ["--hidden", "12,8", "--episodes", 4, "--test-episodes", 3, *DRAWN]
FOUR = {"learned", "no learning", "backprop", "feedback alignment"}


def trained(*options):
    """Train with small settings; return the folder of the run."""
    outcome = plastic("train", "metafa", "--json", *SMALL, *options)
    assert outcome.code == 0, outcome.err
    return Path(outcome.results[0]["folder"])


def evaluated(*options):
    """Evaluate the newest run; return its metrics."""
    outcome = plastic("eval", "metafa", "--json", "--episodes", 4, *options)
    assert outcome.code == 0, outcome.err
    return outcome.results[0]["metrics"]


def labels_of_tests(run):
    metrics = RunStore(run.parent).metrics(runs=[run.name], stage="eval")
    return [json.loads(text) for text in metrics["labels"]]


def strengths(run):
    return tomllib.loads((run / "artifacts" / "theta.toml").read_text(encoding="utf-8"))["theta"]


def theta_by_step(run, terms=(0, 2, 9)):
    """Return theta before each episode and after the last, (episodes + 1, terms)."""
    numbers = training_numbers(run)
    numbers = numbers[numbers["split"] == "train"]
    columns = [numbers[numbers["metric"] == f"theta_{term}"].sort_values("step")["value"] for term in terms]
    last = [strengths(run)[rule.TERMS[term].name] for term in terms]
    return np.vstack([np.column_stack(columns), last])


def refused(*arguments):
    """Return the one-line error of a command."""
    outcome = plastic(*arguments)
    assert outcome.code == 2, outcome.err
    (line,) = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert outcome.err.rstrip().endswith(line), "the error is the last thing said, and one line"
    assert "Traceback" not in outcome.err
    assert outcome.out == ""
    return line


@pytest.fixture(autouse=True)
def _quick_tuning(monkeypatch):
    """Choose the rates of the controls on few episodes."""
    for module in (results, evaluation):
        monkeypatch.setattr(module, "TUNING_EPISODES", 3)


@pytest.fixture(scope="module")
def one_run(tmp_path_factory):
    """A run with small settings that tests do not change."""
    runs = tmp_path_factory.mktemp("one") / "runs"
    outcome = plastic("train", "metafa", "--json", "--runs", runs, *SMALL)
    assert outcome.code == 0, outcome.err
    return Path(outcome.results[0]["folder"])


@pytest.fixture
def run(one_run, runs_folder):
    """A copy of `one_run` in the runs folder of this test."""
    return Path(shutil.copytree(one_run, runs_folder / one_run.name))


@pytest.fixture
def theta_file(tmp_path):
    def write(theta, feedback="fixed"):
        path = tmp_path / "by-hand.toml"
        path.write_text(theta_toml(theta, feedback, "by hand"), encoding="utf-8")
        return path

    return write


@pytest.fixture
def plain_descent(monkeypatch):
    """Replace Adam by gradient descent, so that a step is the gradient; return the list of gradients."""
    gradients = []
    adapt_to = meta_learning.adapt_to

    def recording(*arguments, **options):
        found = adapt_to(*arguments, **options)
        if found.gradient is not None:
            gradients.append(found.gradient.numpy())
        return found

    monkeypatch.setattr(torch.optim, "Adam", torch.optim.SGD)
    monkeypatch.setattr(meta_learning, "adapt_to", recording)
    return gradients


# ------------------------------------------------------------------------------------------------------- training


def test_training_stores_theta_and_tests_it_with_its_controls(run):
    metrics = json.loads((run / "run.json").read_text(encoding="utf-8"))["summary"]
    assert list(strengths(run)) == ["pseudo-gradient", "ehebb", "oja"]
    assert all(value != 0 for value in strengths(run).values())
    first = theta_by_step(run)[0]
    assert first.tolist() == [1e-3, 0, 0]
    assert metrics["test/above_feedback_alignment"] == pytest.approx(
        metrics["test/accuracy"] - metrics["control/accuracy"]
    )
    assert metrics["test/below_backprop"] == pytest.approx(metrics["backprop/accuracy"] - metrics["test/accuracy"])
    assert (metrics["test/chance"], metrics["test/chance_of_all_outputs"]) == (pytest.approx(1 / 3), 0.1)
    assert {metrics["control/rate"], metrics["backprop/rate"]} <= set(benchmark.RATES)
    numbers = training_numbers(run)
    angles = numbers[numbers["metric"] == "angle"]
    assert angles["value"].between(0, 180).all()
    assert set(angles.loc[angles["split"] == "train", "labels"]) == {'{"layer": 1}', '{"layer": 2}'}
    assert (numbers.loc[numbers["metric"] == "orthonormality", "value"] >= 0).all()
    assert set(numbers.loc[numbers["metric"] == "accuracy", "step"]) == {1, 2, 3, 4}


@pytest.mark.parametrize("feedback", adaptation.KERNEL_FEEDBACK)
def test_every_kind_of_feedback(feedback):
    run = trained("--feedback", feedback, "--terms", "0,2")
    content = tomllib.loads((run / "artifacts" / "theta.toml").read_text(encoding="utf-8"))
    assert content["feedback"] == feedback
    numbers = training_numbers(run)
    angles = numbers.loc[(numbers["metric"] == "angle") & (numbers["split"] == "train"), "value"]
    # The errors are those of backprop if feedback is symmetric, and only then.
    assert (angles.abs() < 0.1).all() == (feedback == "symmetric")
    assert set(evaluated()) >= {f"{name}/accuracy" for name in FOUR}


@pytest.mark.parametrize(
    ("typed", "terms"),
    [
        ("0", (0,)),
        ("oja", (9,)),
        ("pseudo-gradient,EHEBB, 9", (0, 2, 9)),
        ("9,0,oja", (0, 9)),
        ("all", tuple(range(10))),
        ("ALL", tuple(range(10))),
    ],
)
def test_terms_by_name_by_index_and_all(typed, terms):
    assert Train.from_values({"terms": typed}).terms == terms


def test_the_whole_pool_is_learned():
    run = trained("--terms", "all")
    assert list(strengths(run)) == [term.name for term in rule.TERMS.values()]
    assert all(strengths(run).values())


def test_an_eleventh_term_is_learned_too(monkeypatch):
    def hebb(W, y_pre, y_post, e_pre, e_post):
        return rule.outer(y_post, y_pre)

    monkeypatch.setitem(rule.TERMS, 10, rule.Term("hebb", hebb, uses_e_pre=False))
    run = trained("--terms", "0,hebb", "--episodes", 2, "--test-episodes", 2)
    assert strengths(run)["hebb"] != 0
    assert theta_by_step(run, (0, 10)).shape == (3, 2)
    evaluated("--episodes", 2)


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others():
    one, again, other = trained("--seed", 3), trained("--seed", 3), trained("--seed", 4)
    pd.testing.assert_frame_equal(training_numbers(one), training_numbers(again))
    assert strengths(one) == strengths(again) != strengths(other)


@pytest.mark.parametrize("options", [[], ["--terms", "all", "--batch-size", 2, "--feedback", "direct"]])
def test_a_resumed_run_ends_with_the_same_bits(options, tmp_path):
    whole = trained(*options)
    runs = tmp_path / "stopped"
    with interrupted_after(2):
        outcome = plastic("train", "metafa", "--runs", runs, *SMALL, *options)
    assert outcome.code == 130
    (run,) = RunStore(runs).folders()
    torch.manual_seed(99)
    assert plastic("train", "metafa", "--runs", runs, "--resume", run).code == 0
    pd.testing.assert_frame_equal(training_numbers(runs / run), training_numbers(whole))
    assert strengths(runs / run) == strengths(whole)


@pytest.mark.parametrize("tasks", [1, 3])
def test_a_step_follows_the_mean_gradient_of_its_tasks(tasks, plain_descent):
    run = trained("--batch-size", tasks, "--learning-rate", 0.01)
    gradients = np.array(plain_descent).reshape(4, tasks, 3)
    assert len(np.unique(gradients[..., 0])) == 4 * tasks
    np.testing.assert_allclose(np.diff(theta_by_step(run), axis=0), -0.01 * gradients.mean(1), rtol=1e-9, atol=1e-15)


def test_l1_adds_its_sign_to_the_gradient(plain_descent, theta_file):
    run = trained("--theta", theta_file({0: 0.01, 2: -0.02, 9: 0.0}), "--l1", 0.7, "--learning-rate", 1e-4)
    theta = theta_by_step(run)
    wanted = -1e-4 * (np.array(plain_descent) + 0.7 * np.sign(theta[:-1]))
    np.testing.assert_allclose(np.diff(theta, axis=0), wanted, rtol=1e-8, atol=1e-15)


def test_a_large_l1_pulls_every_strength_towards_0(theta_file):
    begin = {number: 0.01 * (-1) ** number for number in range(10)}
    run = trained("--theta", theta_file(begin), "--l1", 1000, "--learning-rate", 1e-3)
    for number, value in begin.items():
        end = strengths(run)[rule.TERMS[number].name]
        # Four steps of Adam, each as large as its rate.
        assert end == pytest.approx(value * 0.6, rel=0.02)


def test_a_theta_file_implies_its_terms_and_feedback(theta_file):
    path = theta_file({2: -0.05, 0: 0.02}, "sign")
    config = Train.from_values({"theta": str(path)})
    assert (config.terms, config.feedback) == ((0, 2), "sign")
    assert theta_by_step(trained("--theta", path), (0, 2))[0].tolist() == [0.02, -0.05]
    # Options take precedence over the file; a term that is not in the file starts at 0.
    run = trained("--theta", path, "--terms", "0,9", "--feedback", "direct")
    assert theta_by_step(run, (0, 9))[0].tolist() == [0.02, 0]
    assert tomllib.loads((run / "artifacts" / "theta.toml").read_text(encoding="utf-8"))["feedback"] == "direct"


def test_a_resumed_run_does_not_need_its_theta_file(theta_file):
    path = theta_file({0: 0.02, 9: 0.001})
    with interrupted_after(1):
        assert plastic("train", "metafa", *SMALL, "--theta", path).code == 130
    path.unlink()
    (run,) = RunStore(Path("runs")).folders()
    outcome = plastic("train", "metafa", "--resume", run)
    assert outcome.code == 0, outcome.err
    assert set(evaluated()) >= {f"{name}/accuracy" for name in FOUR}


def test_reference_sampling_holds_no_class_out_and_uses_the_same_images(monkeypatch):
    drawn = []
    draw = setting.Setting.draw

    def recording(self, episodes, generator):
        drawn.append((episodes, draw(self, episodes, generator)))
        return drawn[-1][1]

    monkeypatch.setattr(setting.Setting, "draw", recording)
    options = ["--hidden", "6", "--episodes", 30, "--shots", 2, "--queries", 1, "--ways", 5, "--test-episodes", 1]
    assert plastic("train", "metafa", "--reference-sampling", *options).code == 0
    learned = [episode for episodes, episode in drawn[:30]]
    assert any(episode.classes.unique().numel() < 5 for episode in learned)
    for label in range(10):
        images = [episode.query_x[episode.query_y == label] for episode in learned]
        assert len(torch.cat(images).unique(dim=0)) == 1


def of_training(run):
    """Return the metrics of a run that are not marked as measured on test data."""
    record = read_record(run)
    return {key: value for key, value in record.summary.items() if data_of(key, record.measured_on) != "test"}


def test_an_initial_theta_that_nothing_uses_is_refused(tmp_path):
    given = tmp_path / "theta.toml"
    given.write_text('feedback = "fixed"\n[theta]\noja = 0.001\n')
    assert "does nothing with --theta" in refused("train", "metafa", "--theta", given, "--initial-theta", 0.5)
    assert "does nothing without the pseudo-gradient" in refused(
        "train", "metafa", "--terms", "2,9", "--initial-theta", 0.5
    )
    # A run that was accepted before is resumed.
    assert resolve(Train, {}, stored={"terms": (2, 9), "initial_theta": 0.5}).initial_theta == 0.5


def test_only_metrics_of_training_episodes_count_as_measured_on_training_data():
    run = trained("--terms", "0,2,3,9")
    assert set(of_training(run)) == {
        *("train/accuracy", "train/loss", "train/theta_0", "train/theta_2", "train/theta_3", "train/theta_9"),
        *("train/theta_0_settled", "train/terms_nonzero", "train/nonzero_as_published"),
    }
    assert {"test/terms_needed", "test/needed_as_published"} <= read_record(run).summary.keys()


def test_with_reference_sampling_every_number_is_measured_on_test_data():
    options = ["--reference-sampling", "--held-out-classes", 0, "--terms", "0,2,3,9"]
    assert of_training(trained(*options)) == {}


@pytest.mark.parametrize("held_out", [0, 3])
def test_meta_learning_does_not_depend_on_the_test_images(held_out, tmp_path):
    write_tiny_dataset(tmp_path / "one", classes=6, images=120)
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    with np.load(tmp_path / "one" / "test.npz") as stored:
        np.savez(tmp_path / "other" / "test.npz", x=255 - stored["x"], y=stored["y"])
    one, other = (trained("--dataset", tmp_path / name, "--held-out-classes", held_out) for name in ("one", "other"))
    assert of_training(one) == of_training(other)
    assert strengths(one) == strengths(other)
    tests = [{key: read_record(run).summary[key] for key in ("test/loss", "control/accuracy")} for run in (one, other)]
    assert tests[0]["test/loss"] != tests[1]["test/loss"]
    # The rates of the controls are chosen on training images.
    rates = [[read_record(run).summary[f"{split}/rate"] for split in ("control", "backprop")] for run in (one, other)]
    assert rates[0] == rates[1]


@pytest.fixture
def benches(monkeypatch):
    """Return the benchmarks that a command makes, by purpose, and those that rates were chosen on."""
    made = {}
    begin, choose = benchmark.EpisodeBenchmark.__init__, benchmark.best_rate

    def recording(self, chosen, episodes, count, run, purpose):
        begin(self, chosen, episodes, count, run, purpose)
        made[purpose] = self

    def choosing(bench, feedback):
        made.setdefault("chosen on", []).append(bench)
        return choose(bench, feedback)

    monkeypatch.setattr(benchmark.EpisodeBenchmark, "__init__", recording)
    for module in (results, evaluation):
        monkeypatch.setattr(module, "best_rate", choosing)
    return made


def images_of(bench):
    return {tuple(image.tolist()) for episode in bench.episodes for image in (*episode.x, *episode.query_x)}


def classes_of(bench):
    return {label for episode in bench.episodes for label in episode.classes.tolist()}


@pytest.mark.parametrize("held_out", [0, 3])
@pytest.mark.parametrize("verb", ["train", "eval"])
def test_the_rates_of_controls_are_not_chosen_on_test_images(verb, held_out, benches):
    trained("--held-out-classes", held_out, "--test-episodes", 20)
    if verb == "eval":
        benches.clear()
        evaluated("--episodes", 20)
    names = {"train": ("test", "tuning"), "eval": ("evaluation", "evaluation tuning")}[verb]
    test, tuning = (benches[name] for name in names)
    assert benches["chosen on"] == [tuning, tuning]
    assert not images_of(test) & images_of(tuning)
    assert tuning.episodes != test.episodes
    assert bool(classes_of(test) & classes_of(tuning)) == (held_out == 0)


def test_on_another_data_set_rates_are_chosen_on_its_training_images(run, tiny_data, benches):
    evaluated("--dataset", tiny_data)
    data = load_dataset(str(tiny_data))
    # Resized to the size of the digits.
    images = [{tuple(x.tolist()) for x in setting.as_pixels(data, part, 8).x} for part in (data.train, data.test)]
    assert images_of(benches["evaluation tuning"]) <= images[0]
    assert images_of(benches["evaluation"]) <= images[1]


@pytest.mark.parametrize(
    ("split", "feedback", "other"), [("control", "fixed", "backprop"), ("backprop", "symmetric", "control")]
)
def test_a_control_is_the_pseudo_gradient_with_its_feedback_at_its_rate(split, feedback, other, theta_file):
    easy = ["--test-episodes", 20, "--shots", 30]
    rates = read_record(trained("--terms", 0, *easy)).summary
    # With steps of almost 0 the tested rule is the control.
    fixed = ["--learning-rate", 1e-300, "--theta", theta_file({0: rates[f"{split}/rate"]}, feedback), *easy]
    summary = read_record(trained(*fixed)).summary
    for name in ("accuracy", "angle", "log10_orthonormality_error"):
        assert summary[f"test/{name}"] == summary[f"{split}/{name}"], name
    assert summary["test/accuracy"] != summary[f"{other}/accuracy"]
    assert summary["test/above_feedback_alignment" if split == "control" else "test/below_backprop"] == 0


def test_milestones_compare_the_accuracy_of_episodes_with_that_of_controls(monkeypatch, theta_file):
    seen = {}

    def rises(accuracy, level, window=10):
        seen[window] = (accuracy.tolist(), level)
        return {10: 7, 30: 8}[window]

    def settled(theta):
        seen["theta"] = theta.tolist()
        return 9

    monkeypatch.setattr(results, "rises_from", rises)
    monkeypatch.setattr(results, "settled_from", settled)
    outcome = plastic("train", "metafa", *SMALL, "--terms", "0,9")
    (name,) = RunStore(Path("runs")).folders()
    run = Path("runs") / name
    summary = read_record(run).summary
    assert summary["test/passes_feedback_alignment"] == 7
    assert summary["test/reaches_backprop"] == 8
    assert summary["train/theta_0_settled"] == 9
    numbers = training_numbers(run)
    accuracy = numbers[(numbers["metric"] == "accuracy") & (numbers["split"] == "train")].sort_values("step")["value"]
    assert seen[10] == (accuracy.tolist(), pytest.approx(summary["control/accuracy"] + 0.05))
    assert seen[30] == (accuracy.tolist(), pytest.approx(summary["backprop/accuracy"] - 0.05))
    assert seen["theta"] == theta_by_step(run, (0, 9))[:-1, 0].tolist()
    said = "passes_feedback_alignment and reaches_backprop and theta_0_settled: not within 4 episodes"
    assert said in outcome.err


def test_needed_terms_and_nonzero_terms_are_counted(monkeypatch):
    monkeypatch.setattr(results, "needed_terms", lambda bench, theta, plasticity: [0, 2])
    monkeypatch.setattr(results, "keeps_its_sign", lambda theta: len(theta) == 4 and abs(theta.iloc[0]) > 0)
    summary = read_record(trained("--terms", "0,1,2,3,9")).summary
    assert (summary["test/terms_needed"], summary["train/terms_nonzero"]) == (2, 1)
    # Of 0, 1, 2, 3 and 9 all agree on being needed except 9; only term 0 is nonzero.
    assert summary["test/needed_as_published"] == pytest.approx(4 / 5)
    assert summary["train/nonzero_as_published"] == pytest.approx(3 / 5)
    for terms in ("0,2,9", "0,1,2"):
        assert "test/needed_as_published" not in read_record(trained("--terms", terms)).summary


def test_classes_that_are_held_out_are_never_learned(monkeypatch):
    drawn = {}
    draw = setting.Setting.draw

    def recording(self, episodes, generator):
        episode = draw(self, episodes, generator)
        drawn.setdefault(episodes is self.train, set()).update(episode.classes.tolist())
        return episode

    monkeypatch.setattr(setting.Setting, "draw", recording)
    trained("--episodes", 20, "--test-episodes", 20)
    assert len(drawn[True]) == 7
    assert len(drawn[False]) == 3
    assert not drawn[True] & drawn[False]


@pytest.mark.parametrize("feedback", ["symmetric", "fixed"])
def test_meta_learning_makes_networks_learn(feedback, tmp_path):
    data = write_tiny_dataset(tmp_path / "easy", size=4)
    easy = ["--dataset", data, "--ways", 3, "--held-out-classes", 0, "--shots", 10, "--queries", 5]
    meta = ["--hidden", 12, "--episodes", 120, "--learning-rate", 0.004, "--outputs", "episode", "--test-episodes", 20]
    run = trained(*easy, *meta, "--feedback", feedback)
    numbers = training_numbers(run)
    accuracy = numbers[(numbers["metric"] == "accuracy") & (numbers["split"] == "train")].sort_values("step")["value"]
    assert accuracy[-20:].mean() > accuracy[:20].mean() + 0.2
    metrics = evaluated("--episodes", 20)
    assert metrics["learned/accuracy"] > metrics["no learning/accuracy"] + 0.2
    assert strengths(run)["pseudo-gradient"] > 0.01


# ----------------------------------------------------------------------------------------------------- evaluation


def test_evaluation_compares_four_rules(run):
    metrics = evaluated()
    for name in FOUR:
        # A t interval of few episodes may reach beyond 0 and 1.
        assert metrics[f"{name}/low"] <= metrics[f"{name}/accuracy"] <= metrics[f"{name}/high"]
        assert 0 <= metrics[f"{name}/accuracy"] <= 1
    (table,) = (run / "tables").glob("evaluation_*.csv")
    assert set(pd.read_csv(table)["rule"]) == FOUR
    assert {entry["classes"] for entry in labels_of_tests(run)} == {"held-out"}
    # A second evaluation gives the same numbers.
    assert evaluated() == metrics


def test_evaluation_of_other_classes_shapes_and_streams(run):
    for options, wanted in (
        (["--classes", "seen"], {"classes": "seen", "ways": 3, "passes": 1}),
        (["--classes", "all"], {"classes": "all", "outputs": "all"}),
        (["--ways", 2], {"ways": 2, "classes": "held-out"}),
        (["--epochs", 2], {"passes": 2}),
        (["--hidden", "9"], {"hidden": "9"}),
        (["--outputs", "episode"], {"outputs": "episode"}),
        (["--shots", 7], {"shots": 7}),
    ):
        before = len(labels_of_tests(run)) if (run / "tables").exists() else 0
        evaluated(*options)
        found = labels_of_tests(run)[before:]
        assert found
        assert all(entry.items() >= wanted.items() for entry in found)


def test_several_passes_use_the_same_images(run, monkeypatch):
    streams = []
    draw = setting.Setting.draw

    def recording(self, episodes, generator):
        streams.append(draw(self, episodes, generator))
        return streams[-1]

    monkeypatch.setattr(setting.Setting, "draw", recording)
    evaluated("--epochs", 3)
    for episode in streams:
        first, second, third = episode.x.split(15)
        assert len(episode.y) == 45
        for other in (second, third):
            assert torch.equal(first.unique(dim=0), other.unique(dim=0))
            assert not torch.equal(first, other)


def test_evaluation_on_another_data_set(run, tiny_data):
    metrics = evaluated("--dataset", tiny_data)
    assert set(metrics) >= {f"{name}/accuracy" for name in FOUR}
    assert {entry["classes"] for entry in labels_of_tests(run)} == {"all"}
    for classes in ("held-out", "seen"):
        line = refused("eval", "metafa", "--dataset", tiny_data, "--classes", classes)
        assert "training used no class of" in line


def test_evaluation_of_an_edited_theta_file(run, theta_file):
    metrics = evaluated("--theta", theta_file({0: 0.0, 5: 0.0}, "direct"))
    assert metrics["learned/accuracy"] == metrics["no learning/accuracy"]
    symmetric = evaluated("--theta", theta_file({0: 0.1}, "symmetric"))
    other = evaluated("--theta", theta_file({0: 0.001}, "symmetric"))
    assert symmetric["learned/accuracy"] != other["learned/accuracy"]
    assert symmetric["backprop/accuracy"] == other["backprop/accuracy"] == metrics["backprop/accuracy"]


def test_without_classes_held_out_the_test_is_on_other_images():
    run = trained("--held-out-classes", 0)
    evaluated()
    assert {entry["classes"] for entry in labels_of_tests(run)} == {"all"}
    assert "training held no classes out. Choose seen or all." in refused("eval", "metafa", "--classes", "held-out")


# ------------------------------------------------------------------------------------------------------- divergence


@pytest.fixture
def gradients(monkeypatch):
    """Give the episodes the listed gradients, one after the other, and use plain gradient descent."""

    adapt_to = meta_learning.adapt_to

    def say(*values):
        left = list(values)

        def saying(network, episode, theta, plasticity, *, gradient=False):
            found = adapt_to(network, episode, theta, plasticity, gradient=gradient)
            if not gradient:
                return found
            value = torch.full_like(theta, left.pop(0)) if left else torch.zeros_like(theta)
            return found._replace(gradient=value.detach())

        monkeypatch.setattr(torch.optim, "Adam", torch.optim.SGD)
        monkeypatch.setattr(meta_learning, "adapt_to", saying)

    return say


@pytest.mark.parametrize("broken", [math.nan, math.inf, 1e5])
def test_after_a_diverged_episode_theta_is_the_last_sound_one_but_smaller(broken, gradients):
    gradients(-1.0, -1.0, broken, broken, -1.0, broken, -1.0)
    run = trained("--terms", 0, "--learning-rate", 0.01, "--episodes", 8)
    # 0.001 and 0.011 are sound; with 0.021 the networks diverge. A sound episode resets the count.
    wanted = [0.001, 0.011, 0.021, 0.9 * 0.011, 0.81 * 0.011, 0.81 * 0.011 + 0.01, 0.9 * 0.81 * 0.011]
    wanted += [wanted[-1] + 0.01] * 2
    assert theta_by_step(run, (0,))[:, 0].tolist() == pytest.approx(wanted, rel=1e-12)


def test_a_run_that_stops_among_diverged_episodes_continues_to_the_same_theta(gradients):
    options = ("--terms", 0, "--learning-rate", 0.01, "--episodes", 6)
    gradients(-1.0, -1.0, math.nan, math.nan, math.nan)
    whole = theta_by_step(trained(*options), (0,))
    gradients(-1.0, -1.0, math.nan, math.nan)
    with interrupted_after(4):
        assert plastic("train", "metafa", *SMALL, *options, "--name", "stopped").code == 130
    gradients(math.nan)
    resumed = plastic("train", "metafa", "--resume", "stopped", "--json")
    assert theta_by_step(Path(resumed.results[0]["folder"]), (0,)).tolist() == whole.tolist()


def test_ten_diverged_episodes_in_a_row_end_the_run_and_nine_do_not(gradients):
    gradients(*[math.nan] * 9, 0.0, *[math.nan] * 9)
    trained("--terms", 0, "--episodes", 19)
    gradients(0.0, *[math.nan] * 10)
    outcome = plastic("train", "metafa", *SMALL, "--terms", 0, "--episodes", 19)
    assert outcome.code == 1
    assert (
        "the networks diverged in 10 episodes in a row. Try a smaller --learning-rate, or other terms." in outcome.err
    )
    assert sorted(row["status"] for row in RunStore(Path("runs")).rows()) == ["completed", "failed"]


# ------------------------------------------------------------------------------------ what a test and an `eval` measure


def test_the_final_test_uses_the_last_theta(benches):
    run = trained("--terms", "0,9", "--learning-rate", 0.01)
    theta = torch.tensor(list(strengths(run).values()), dtype=torch.float64)
    accuracies, losses = benches["test"].measure(theta, adaptation.Plasticity((0, 9), "fixed"))
    summary = read_record(run).summary
    assert summary["test/accuracy"] == pytest.approx(float(accuracies.mean()))
    assert summary["test/loss"] == pytest.approx(float(losses.mean()))


def test_images_are_resized(benches):
    trained("--image-size", 4, "--outputs", "episode")
    assert benches["test"].setting.sizes == (16, 12, 8, 3)
    images = torch.tensor(sorted(images_of(benches["test"])))
    assert images.shape[1] == 16
    assert 0 <= images.min() < 0.1
    assert 0.6 < images.max() <= 1
    trained("--image-size", 8)
    assert benches["test"].setting.sizes == (64, 12, 8, 10)


def test_evaluation_logs_accuracy_and_loss_of_each_rule_on_the_same_episodes(run, benches, theta_file):
    metrics = evaluated("--theta", theta_file({0: 0.05, 9: 0.001}, "sign"))
    bench, symmetric, fixed = benches["evaluation"], "symmetric", "fixed"
    (table,) = (run / "tables").glob("evaluation_*.csv")
    rates = pd.read_csv(table).set_index("rule")["rate"]
    pair = torch.tensor([0.05, 0.001], dtype=torch.float64)
    wanted = {
        "learned": bench.measure(pair, adaptation.Plasticity((0, 9), "sign")),
        "no learning": bench.measure(0 * pair, adaptation.Plasticity((0, 9), "sign")),
        "feedback alignment": bench.measure_rate(float(rates["feedback alignment"]), fixed),
        "backprop": bench.measure_rate(float(rates["backprop"]), symmetric),
    }
    logged = RunStore(run.parent).metrics(runs=[run.name], stage="eval")
    logged["rule"] = [json.loads(text)["rule"] for text in logged["labels"]]
    values = logged.set_index(["rule", "metric"])["value"]
    for name, (accuracies, losses) in wanted.items():
        assert metrics[f"{name}/accuracy"] == pytest.approx(float(accuracies.mean()))
        assert values[name, "accuracy"] == pytest.approx(float(accuracies.mean()))
        assert values[name, "loss"] == pytest.approx(float(losses.mean()))
        interval = mean_interval(accuracies.numpy())
        for end, value in (("low", interval.low), ("high", interval.high)):
            assert metrics[f"{name}/{end}"] == values[name, f"accuracy_{end}"] == pytest.approx(value)
    assert len({round(float(losses.mean()), 6) for _, losses in wanted.values()}) == 4, "four rules that differ"


def test_evaluation_uses_the_requested_classes(run, benches):
    data = load_dataset("digits")
    x = {part: {tuple(x.tolist()) for x in data.to_pixels(getattr(data, part).x)} for part in ("train", "test")}
    trained("--episodes", 1)
    learned = benches["test"].setting
    seen, held_out = ({int(label) for label in part.classes} for part in (learned.train, learned.test))
    assert (len(seen), len(held_out)) == (7, 3)
    for asked, classes, new in (("held-out", held_out, True), ("seen", seen, False), ("all", seen | held_out, False)):
        evaluated("--classes", asked, "--episodes", 25, "--ways", 2)
        assert classes_of(benches["evaluation"]) == classes
        assert classes_of(benches["evaluation tuning"]) <= seen
        assert images_of(benches["evaluation tuning"]) <= x["train"]
        # All images of held-out classes are new; of other classes those of the test split.
        assert bool(images_of(benches["evaluation"]) & x["train"]) is new
        assert images_of(benches["evaluation"]) & x["test"]


def test_evaluation_uses_the_requested_outputs(run, benches):
    for asked, sizes, labels in (("episode", (64, 12, 8, 3), {0, 1, 2}), ("all", (64, 12, 8, 10), None)):
        evaluated("--outputs", asked)
        bench = benches["evaluation"]
        assert bench.setting.sizes == sizes
        found = {int(label) for episode in bench.episodes for label in episode.y}
        assert found == (labels or classes_of(bench))
    evaluated("--epochs", 2, "--hidden", 9)
    assert benches["evaluation"].setting.sizes == (64, 9, 10)


@pytest.mark.parametrize("tasks", [1, 3])
def test_an_episode_logs_means_over_tasks_and_the_layers_of_the_first_network(tasks, monkeypatch):
    adapted, measured = [], []
    adapt_to, layers = meta_learning.adapt_to, meta_learning.layer_measures

    def adapting(*arguments, **options):
        found = adapt_to(*arguments, **options)
        if options.get("gradient"):
            adapted.append((arguments, found))
        return found

    def measuring(network, episode, feedback):
        measured.append((network, episode, feedback))
        return layers(network, episode, feedback)

    monkeypatch.setattr(meta_learning, "adapt_to", adapting)
    monkeypatch.setattr(meta_learning, "layer_measures", measuring)
    run = trained("--batch-size", tasks, "--feedback", "sign", "--initial-theta", 0.05)
    numbers = training_numbers(run)
    numbers = numbers[(numbers["split"] == "train") & numbers["labels"].isna()].set_index(["step", "metric"])["value"]
    for step in range(1, 5):
        own = adapted[(step - 1) * tasks : step * tasks]
        assert numbers[step, "accuracy"] == pytest.approx(np.mean([float(found.accuracy) for _, found in own]))
        assert numbers[step, "loss"] == pytest.approx(np.mean([float(found.loss) for _, found in own]))
        network, episode, feedback = measured[step - 1]
        (drawn, asked, *_), first = own[0]
        assert all(torch.equal(a, b) for a, b in zip(network.W, first.W, strict=True))
        assert not any(torch.equal(a, b) for a, b in zip(network.W, drawn.W, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(network.B, drawn.B, strict=True))
        assert (episode is asked, feedback) == (True, "sign")
    record = read_record(run)
    assert record.speed["samples"] == 4 * tasks * 15


def test_held_out_classes_are_tested_on_images_of_both_splits(benches):
    data = load_dataset("digits")
    trained("--test-episodes", 20)
    for part in (data.train, data.test):
        assert images_of(benches["test"]) & {tuple(x.tolist()) for x in data.to_pixels(part.x)}


def test_an_evaluation_says_what_chance_is(run):
    outcome = plastic("eval", "metafa", "--episodes", 4)
    assert "chance is 33.3% among an episode's classes, 10.0% among all" in outcome.err


# -------------------------------------------------------------------------------------------------------- analysis


def analyzed(*options):
    """Analyze the newest run; return its results."""
    outcome = plastic("analyze", "metafa", "--json", *options)
    assert outcome.code == 0, outcome.err
    return outcome.results[0]["metrics"]


def test_the_analysis_of_terms_measures_the_rule_without_each_term(benches):
    run = trained("--terms", "0,2,9", "--learning-rate", 0.02)
    benches.clear()
    shown = analyzed("--terms", "--episodes", 6)
    bench, theta = benches["terms"], torch.tensor(list(strengths(run).values()), dtype=torch.float64)
    table = pd.read_csv(run / "tables" / "terms.csv").set_index("term")
    whole = bench.measure(theta, adaptation.Plasticity((0, 2, 9), "fixed"))[0]
    assert shown["all terms/accuracy"] == pytest.approx(float(whole.mean()))
    for place, term in enumerate((0, 2, 9)):
        others = [number for number in (0, 2, 9) if number != term]
        kept = torch.tensor([value for index, value in enumerate(theta.tolist()) if index != place])
        without = bench.measure(kept.double(), adaptation.Plasticity(tuple(others), "fixed"))[0]
        row, interval = table.loc[term], mean_interval((without - whole).double().numpy())
        assert row["theta"] == pytest.approx(float(theta[place]))
        assert (
            shown[f"without {row['name']}/accuracy"] == row["accuracy_without"] == pytest.approx(float(without.mean()))
        )
        assert row[["difference", "low", "high"]].tolist() == pytest.approx(
            [interval.mean, interval.low, interval.high]
        )
        assert bool(row["needed"]) is (interval.mean <= -0.02)
    assert len(set(table["difference"])) > 1
    assert (run / "figures" / "terms.png").exists()


def test_the_share_of_a_term_is_the_size_of_its_weight_change(benches):
    run = trained("--terms", "0,2,9", "--learning-rate", 0.02)
    benches.clear()
    analyzed("--terms", "--episodes", 2)
    learned, sizes = strengths(run), dict.fromkeys((0, 2, 9), 0.0)
    assert min(learned.values()) < 0 < max(learned.values())
    theta = torch.tensor(list(learned.values()))
    for number, episode in enumerate(benches["terms"].episodes):
        W, B = benches["terms"].network(number, "fixed")
        for x, label in zip(episode.x, episode.y, strict=True):
            y = rule.forward(W, x)
            e = rule.errors(B, y, torch.eye(10)[label])
            parts = {
                term: [
                    strength * rule.TERMS[term].expression(W[n], y[n], y[n + 1], e[n], e[n + 1]) for n in range(len(W))
                ]
                for term, strength in zip(sizes, theta, strict=True)
            }
            for term, changes in parts.items():
                sizes[term] += sum(float(change.norm()) for change in changes)
            W = [weights + sum(changes[n] for changes in parts.values()) for n, weights in enumerate(W)]
    shares = pd.read_csv(run / "tables" / "terms.csv").set_index("term")["share"]
    assert shares.sum() == pytest.approx(1)
    for term, size in sizes.items():
        assert shares[term] == pytest.approx(size / sum(sizes.values()), rel=1e-4)


def test_an_analysis_of_curves_shows_their_last_values(run):
    run = trained("--episodes", 20, "--terms", "0,9")
    numbers = training_numbers(run)
    numbers = numbers[numbers["split"] == "train"]
    shown = analyzed("--theta", "--angles", "--orthonormality", "--accuracy", "--window", 3)
    for term in (0, 9):
        theta = theta_by_step(run, (term,))[:-1, 0]
        assert shown[f"theta_{term}"] == pytest.approx(theta[-2:].mean())
        assert theta[-2:].mean() != pytest.approx(theta.mean())
    for metric, key in (("angle", "angle"), ("angle_by_sample", "angle_by_sample"), ("orthonormality", "E_W")):
        for layer in (1, 2):
            values = numbers[(numbers["metric"] == metric) & (numbers["labels"] == f'{{"layer": {layer}}}')]
            assert shown[f"layer {layer}/{key}"] == pytest.approx(values.sort_values("step")["value"][-3:].mean())
    accuracy = numbers[(numbers["metric"] == "accuracy") & numbers["labels"].isna()].sort_values("step")["value"]
    assert shown["last accuracy"] == pytest.approx(accuracy[-3:].mean())


# ---------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("typed", "complaint"),
    [
        (["--terms", "oia"], "there is no term 'oia'. Did you mean 'oja'?"),
        (["--terms", "0,10"], "--terms 0,10: there is no term '10'. The terms are"),
        (["--terms", "0,10"], "MODULE:TERM is a term of your own."),
        (
            ["--terms", "0,all"],
            "--terms 0,all: 'all' means the ten published terms and cannot be combined with others.",
        ),
        (["--terms", ","], "--terms ,: there is an empty value between the commas"),
        (["--terms", ""], "names no term"),
        (["--feedback", "fixd"], "Did you mean 'fixed'?"),
        (["--hidden", "12,0"], "needs at least one layer, with 1 to"),
        (["--hidden", ""], "needs at least one layer, with 1 to"),
        (["--ways", 8, "--held-out-classes", 0, "--shots", 90], "class 0 has"),
        (["--ways", 11, "--held-out-classes", 0], "fewer than --ways 11"),
        (["--ways", 6], "fewer than --ways 6. Ask for fewer ways or --held-out-classes."),
        (["--held-out-classes", 30], "10 held out leave 0, fewer than --ways 5"),
        (["--held-out-classes", 3], "--held-out-classes 3: the test draws 5 of them"),
        (["--shots", 500], "500 shots and 10 queries need 510: ask for fewer of them"),
        (["--reference-sampling", "--held-out-classes", 3], "--reference-sampling draws from all classes"),
        (["--dataset", "digit"], "Did you mean 'digits'?"),
        (["--theta", "nowhere.toml"], "there is no file nowhere.toml"),
        (["--batch-size", 0], "--batch-size 0"),
        (["--learning-rate", 0], "--learning-rate 0"),
        (["--l1", -1], "--l1 -1"),
        (["--episodes", 0], "--episodes 0"),
    ],
)
def test_wrong_options_of_training_are_one_line_errors(typed, complaint):
    line = refused("train", "metafa", *typed)
    assert complaint in line
    assert not line.endswith("..")


@pytest.mark.parametrize(
    ("typed", "complaint"),
    [
        (["--ways", 4], "an episode of 4 classes cannot be drawn from 3"),
        (["--shots", 400], "400 shots and 3 queries need 403"),
        (["--hidden", "0"], "hidden"),
        (["--hidden", "4,-3"], "hidden"),
        (["--epochs", 0], "--epochs 0"),
        (["--classes", "held"], "Did you mean 'held-out'?"),
        (["--theta", "nowhere.toml"], "there is no file"),
    ],
)
def test_wrong_options_of_evaluation_are_one_line_errors(run, typed, complaint):
    assert complaint in refused("eval", "metafa", *typed)


def test_an_invalid_theta_file_is_an_error(run, tmp_path):
    path = tmp_path / "wrong.toml"
    path.write_text("[theta]\noia = 0.1\n", encoding="utf-8")
    assert "Did you mean 'oja'?" in refused("train", "metafa", "--theta", path)
    assert "Did you mean 'oja'?" in refused("eval", "metafa", "--theta", path)
