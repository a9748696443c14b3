"""`plastic train mpn` and `plastic eval mpn` on the command line, and the errors for invalid input."""

import json
import shutil
from dataclasses import fields
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

from plastic_cli.errors import UserError
from plastic_cli.runs.checkpoint import read_checkpoint
from plastic_cli.runs.folder import open_run
from plastic_cli.testing import plastic
from plastic_mpn.config import IMPLIED, Evaluate, Train
from plastic_mpn.environments.options import read_options
from plastic_mpn.learning.a2c import A2CSettings
from plastic_mpn.learning.dqn_update import DQNSettings
from plastic_mpn.learning.supervised import SupervisedSettings
from plastic_mpn.trained import open_trained
from plastic_mpn.training import shared_fields

GO_NOGO = "plastic/GoNogo-v0"
PAYING = "plastic-tests/Paying-v0"


class Paying(gym.Env):
    """The reward per step is `wage`, or half of it in every second episode. Ends after `length` steps."""

    observation_space = gym.spaces.Box(-1, 1, (4,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, wage=1.0, length=3, render_mode=None):
        self.wage, self.length, self.render_mode = wage, length, render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time, self.paid = 0, self.wage * (1 if seed % 2 else 0.5)
        return np.zeros(4, np.float32), {}

    def step(self, action):
        self.time += 1
        return np.zeros(4, np.float32), self.paid, self.time == self.length, False, {}


class Images(Paying):
    observation_space = gym.spaces.Box(0, 255, (8, 8, 3), np.uint8)


class Lottery(Paying):
    """Rewards come from numpy's global random state, which the seed of an episode does not set."""

    def reset(self, *, seed=None, options=None):
        seen, told = super().reset(seed=seed)
        self.paid = np.random.rand()  # noqa: NPY002
        return seen, told


LOTTERY = "plastic-tests/Lottery-v0"
TOYS = {PAYING: Paying, LOTTERY: Lottery, "plastic-tests/Images-v0": Images}

SMALL = ["--hidden", 5, "--evaluation-episodes", 2, "--test-episodes", 4]
DQN = [*SMALL, "--episodes", 6, "--batch-size", 8, "--learning-starts", 10, "--checkpoint-every", 2]
ALGORITHMS = {
    "dqn": [*DQN, "--env", "CartPole-v1", "--max-episode-steps", 20],
    "a2c": [
        *SMALL, "--algorithm", "a2c", "--env", GO_NOGO, "--env-options", "trials=2", "--total-steps", 60,
        "--rollout", 5, "--num-envs", 2, "--checkpoint-every", 4,
    ],
    "supervised": [
        "--algorithm", "supervised", "--hidden", 5, "--minimum-batches", 5, "--maximum-batches", 10,
        "--batch-size", 4, "--steps", 6,
    ],
}  # fmt: skip


@pytest.fixture(autouse=True)
def toys():
    """Register the environments while a test runs."""
    for name, made in TOYS.items():
        gym.register(name, made)
    yield
    for name in TOYS:
        del gym.registry[name]


def carried_out(*arguments):
    outcome = plastic(*arguments, "--json", "--quiet")
    assert outcome.code == 0, outcome.err
    return outcome.results[0]


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory):
    """A folder with one small run of each algorithm, by name; it is only copied."""
    base = tmp_path_factory.mktemp("mpn")
    results = {}
    for algorithm, options in ALGORITHMS.items():
        results[algorithm] = carried_out("train", "mpn", "--runs", base / algorithm, *options)
    return base, results


@pytest.fixture
def run_of(trained_once, runs_folder):
    """Return a function that copies the run of an algorithm into the runs folder and returns its folder."""
    base, results = trained_once

    def copied(algorithm):
        folder = Path(results[algorithm]["folder"])
        return Path(shutil.copytree(base / algorithm / folder.name, runs_folder / folder.name))

    return copied


def rows(folder, stage):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["stage"] == stage]


def refused(*arguments, code=2):
    """The one line that a refused command prints on stderr."""
    outcome = plastic(*arguments, "--quiet")
    assert outcome.code == code, outcome.err
    assert outcome.out == ""
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


# -------------------------------------------------------------------------------------------------------------- train


def test_readout_only_trains_only_the_readout():
    options = [*ALGORITHMS["supervised"], "--readout-only"]
    folders = [
        Path(carried_out("train", "mpn", *options, "--maximum-batches", batches)["folder"]) for batches in (10, 20)
    ]
    few, more = (read_checkpoint(folder).tracked["network"] for folder in folders)
    assert {name for name, value in few.items() if not torch.equal(value, more[name])} == {"head.weight"}
    assert "--readout-only does nothing" in refused("train", "mpn", "--readout-only")
    record = json.loads((folders[0] / "run.json").read_text())
    assert not record["config"]["learn_eta"]
    assert not record["config"]["learn_lambda"]
    assert (record["config"]["eta"], record["config"]["lambda_decay"]) == (1.0, 0.95)


def test_readout_only_networks_differ_only_in_their_core():
    made = [
        Train.from_values({"algorithm": "supervised", "readout_only": True, "core": core})
        for core in ("mpn", "rnn", "gru")
    ]
    assert len({json.dumps(config.model_dump(mode="json") | {"core": ""}) for config in made}) == 1


@pytest.mark.parametrize(
    ("algorithm", "metrics", "kept"),
    [
        ("dqn", ["train/return", "train/epsilon", "train/loss", "validation/return", "test/return"], "episode"),
        ("a2c", ["train/return", "train/loss", "validation/return", "test/return"], "update"),
        ("supervised", ["train/loss", "validation/accuracy", "test/accuracy", "test/batches"], None),
    ],
)
def test_each_algorithm_trains_from_end_to_end(trained_once, algorithm, metrics, kept):
    result = trained_once[1][algorithm]
    assert (result["rule"], result["status"]) == ("mpn", "completed")
    assert set(metrics) <= result["metrics"].keys()
    assert all(np.isfinite(value) for value in result["metrics"].values())
    stored = sorted(path.stem for path in Path(result["folder"]).glob("artifacts/*.pt"))
    if kept:
        steps = [2, 4, 6] if algorithm == "dqn" else [4]
        assert stored == sorted(["best", "final", *(f"{kept}-{step:07d}" for step in steps)])
    record = json.loads((Path(result["folder"]) / "run.json").read_text())
    assert record["config"]["algorithm"] == algorithm
    assert record["config"]["hidden"] == 5
    assert record["versions"]["gymnasium"] == gym.__version__


def test_the_version_of_a_users_environment_is_stored_and_a_change_is_reported_on_resume():
    folder = Path(carried_out("train", "mpn", *DQN, "--env", PAYING)["folder"])
    record = json.loads((folder / "run.json").read_text())
    assert record["versions"][Paying.__module__].startswith("sha256 ")
    record["versions"]["gymnasium"] = "0.1"
    (folder / "run.json").write_text(json.dumps(record | {"status": "interrupted"}))
    resumed = plastic("train", "mpn", "--resume", folder.name)
    assert resumed.code == 0, resumed.err
    assert f"began with gymnasium 0.1 and continues with {gym.__version__}" in resumed.err


def test_an_unrepeatable_environment_is_reported_at_the_start_and_not_resumed():
    began = plastic("train", "mpn", *DQN, "--env", LOTTERY)
    assert began.code == 0, began.err
    assert f"{LOTTERY} is not determined by its seed and actions" in began.err
    assert "is not determined" not in plastic("train", "mpn", *DQN, "--env", PAYING).err
    folder = Path(carried_out("train", "mpn", *DQN, "--env", LOTTERY)["folder"])
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"status": "interrupted"}))
    line = refused("train", "mpn", "--resume", folder.name, code=1)
    assert "cannot be resumed exactly" in line


def test_a_dqn_run_logs_the_number_of_its_gradient_steps(trained_once):
    metrics = trained_once[1]["dqn"]["metrics"]
    assert metrics["train/environment_steps"] >= 6 * 8
    assert metrics["train/gradient_steps"] == metrics["train/environment_steps"] - 9
    assert metrics["train/epsilon"] == pytest.approx(0.995**6)


def test_options_of_the_environment_reach_training():
    options = [*DQN, "--env", PAYING, "--env-options", "wage=4,length=5"]
    metrics = carried_out("train", "mpn", *options)["metrics"]
    assert metrics["train/environment_steps"] == 30
    assert metrics["train/return"] in (10, 20)
    # The mean of returns of 10 and 20.
    assert metrics["test/return"] in (10, 12.5, 15, 17.5, 20)
    limited = carried_out("train", "mpn", *options, "--max-episode-steps", 2)["metrics"]
    assert limited["train/environment_steps"] == 12


@pytest.mark.parametrize("core", ["mpn-pre", "mpn-post", "mpn-additive", "mpn-frozen", "rnn", "gru", "lstm", "mlp"])
def test_every_core_trains_and_is_evaluated(core):
    few = ["--episodes", 2, "--test-episodes", 2, "--max-episode-steps", 12, "--layers", 2]
    trained = carried_out("train", "mpn", *DQN, *few, "--core", core, "--input-projection", 3)
    evaluated = carried_out("eval", "mpn", "--episodes", 3)
    assert evaluated["run"] == trained["run"]
    assert 8 <= evaluated["metrics"]["fresh/return"] <= 12


def test_training_depends_on_the_seed_only():
    def weights(seed):
        folder = Path(carried_out("train", "mpn", *ALGORITHMS["dqn"], "--seed", seed)["folder"])
        return torch.load(folder / "artifacts" / "final.pt", weights_only=True)

    first, again, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["core.W"], other["core.W"])


@pytest.mark.parametrize("verb", ["train", "eval"])
def test_an_environment_id_without_a_version_is_stored_with_its_version(run_of, verb, runs_folder):
    if verb == "train":
        folder = carried_out("train", "mpn", *DQN, "--env", "CartPole", "--max-episode-steps", 9)["folder"]
        record = json.loads((Path(folder) / "run.json").read_text())
        assert (record["config"]["env"], record["dataset"]) == ("CartPole-v1", "CartPole-v1")
    else:
        folder = run_of("dqn")
        carried_out("eval", "mpn", "--env", "CartPole", "--episodes", 3)
        assert {row["labels"]["env"] for row in rows(folder, "eval")} == {"CartPole-v1"}


class Breaking(Paying):
    """Raises an error in the eighth step."""

    taken = 0

    def step(self, action):
        Breaking.taken += 1
        if Breaking.taken == 8:
            raise IndexError("no such cell")
        return super().step(action)


@pytest.mark.parametrize("debug", [False, True])
def test_an_error_of_an_environment_ends_the_run_in_one_line_and_has_a_traceback_with_debug(debug, runs_folder):
    gym.register("plastic-tests/Breaking-v0", Breaking)
    Breaking.taken = 0
    try:
        outcome = plastic("train", "mpn", *DQN, "--env", "plastic-tests/Breaking-v0", *["--debug"] * debug)
    finally:
        del gym.registry["plastic-tests/Breaking-v0"]
    assert outcome.code == 1
    lines = outcome.err.splitlines()
    said = "plastic-tests/Breaking-v0: its step() failed with IndexError: no such cell."
    assert lines[-1].startswith(f"error: {said}")
    assert ('raise IndexError("no such cell")' in outcome.err) == debug
    assert debug or "Traceback" not in outcome.err
    (record,) = (json.loads(path.read_text()) for path in runs_folder.glob("*/run.json"))
    assert record["status"] == "failed"
    assert record["error"].startswith(said)


@pytest.mark.parametrize("env", [GO_NOGO, PAYING])
def test_only_environments_without_a_step_limit_cause_a_warning(env):
    outcome = plastic("train", "mpn", *DQN, "--env", env)
    assert outcome.code == 0, outcome.err
    assert ("has no step limit" in outcome.err) == (env == PAYING)


def test_square_brackets_in_a_help_text_are_shown():
    assert "pip install 'plastic-cli[video]'" in " ".join(
        plastic("render", "mpn", "--help").out.replace("│", " ").split()
    )


# ------------------------------------------------------------------------------------------- what an option implies


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--core", "gru", "--eta", "0.5"], ["--eta 0.5 does nothing", "--core gru", "belongs to --core mpn"]),
        (["--core", "lstm", "--learn-eta", "--replay", "sequences"], ["--learn-eta does nothing", "--core lstm"]),
        (["--core", "mlp", "--no-bias"], ["--no-bias does nothing", "--core mlp"]),
        (["--core", "gru", "--modulation-bound", "1"], ["--modulation-bound 1.0 does nothing", "--core gru"]),
        (["--core", "mpn-frozen", "--lambda-decay", "0.5"], ["--lambda-decay 0.5 does nothing", "--core mpn-frozen"]),
        (["--algorithm", "a2c", "--replay", "sequences"], ["--replay sequences does nothing", "--algorithm dqn"]),
        (["--algorithm", "a2c", "--target-every", "5"], ["--target-every 5 does nothing", "--algorithm dqn"]),
        (["--algorithm", "a2c", "--batch-size", "8"], ["--batch-size 8", "--algorithm dqn or supervised"]),
        (["--rollout", "9"], ["--rollout 9 does nothing", "--algorithm a2c"]),
        (["--burn-in", "3"], ["--burn-in 3 does nothing", "--replay sequences"]),
        (["--algorithm", "supervised", "--gamma", "0.5"], ["--gamma 0.5 does nothing", "--algorithm dqn or a2c"]),
        (
            ["--algorithm", "supervised", "--max-episode-steps", "5"],
            ["--max-episode-steps 5 does nothing", "--algorithm dqn or a2c"],
        ),
        (["--algorithm", "supervised", "--context", "prospective"], ["--context prospective does nothing", "Context"]),
        (
            ["--algorithm", "supervised", "--env", "plastic/ContextIntegration-v0", "--delay", "5"],
            ["--delay 5 does nothing", "SimpleIntegration"],
        ),
        (["--eta", "0.3", "--draw-eta"], ["--eta 0.3 does nothing with --draw-eta"]),
        (["--lambda-max", "0.5"], ["--lambda-max 0.5 does nothing without --learn-lambda"]),
    ],
)
def test_an_option_that_does_nothing_is_refused(options, words, runs_folder):
    line = refused("train", "mpn", *options)
    assert all(word in line for word in words), line
    assert not list(runs_folder.glob("*"))


def test_a_given_eta_is_not_drawn():
    drawn = Train.from_values({"algorithm": "supervised"})
    given = Train.from_values({"algorithm": "supervised", "eta": 0.5})
    assert (drawn.draw_eta, given.draw_eta, given.eta) == (True, False, 0.5)


@pytest.mark.parametrize("bound", [0, 0.01])
def test_modulations_of_a_trained_network_stay_within_the_bound(bound):
    options = ["--modulation-bound", bound, "--eta", 1.0]
    folder = carried_out("train", "mpn", *ALGORITHMS["supervised"], *options)["folder"]
    core = open_trained(Evaluate.from_values({}), open_run(Path(folder))).network.core
    with torch.no_grad():
        _, M = core(torch.ones(20, 3, core.input_dim))
    assert float(M.abs().max()) == pytest.approx(0.01) if bound else float(M.abs().max()) > 0.1


@pytest.mark.parametrize("core", ["mpn-frozen", "gru", "mlp"])
def test_another_core_than_in_a_recipe_resets_its_unused_options(core, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('core = "mpn"\neta = 0.5\nlearn_eta = true\nlearn_lambda = true\nreplay = "sequences"\n')
    options = ["--config", recipe, "--core", core, *SMALL, "--episodes", 3, "--max-episode-steps", 5]
    config = json.loads((Path(carried_out("train", "mpn", *options)["folder"]) / "run.json").read_text())["config"]
    assert (config["eta"], config["learn_eta"], config["replay"]) == (Train().eta, False, "sequences")


def test_another_algorithm_than_in_a_recipe_resets_its_unused_options(tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('replay = "sequences"\ntau = 0.0\ntarget_every = 3\n')
    folder = Path(carried_out("train", "mpn", "--config", recipe, *ALGORITHMS["a2c"])["folder"])
    config = json.loads((folder / "run.json").read_text())["config"]
    assert (config["replay"], config["tau"], config["target_every"]) == ("states", Train().tau, Train().target_every)


@pytest.mark.parametrize("core", ["gru", "mpn-frozen"])
@pytest.mark.parametrize("algorithm", ["a2c", "supervised"])
def test_defaults_of_an_algorithm_are_never_refused(algorithm, core):
    Train.from_values({"algorithm": algorithm, "core": core}).refuse_unused()
    whole = Train.from_values({"algorithm": algorithm, "core": core, **IMPLIED[algorithm]})
    whole.refuse_unused()


def test_a_run_of_an_earlier_version_can_be_opened_and_finished(run_of):
    folder = run_of("dqn")
    record = json.loads((folder / "run.json").read_text())
    record["config"]["rollout"] = 9
    record["status"] = "interrupted"
    (folder / "run.json").write_text(json.dumps(record))
    carried_out("eval", "mpn", "--run", folder.name, "--episodes", 2)
    assert carried_out("train", "mpn", "--resume", folder.name)["status"] == "completed"


@pytest.mark.parametrize("algorithm", ["a2c", "supervised"])
def test_an_algorithm_sets_defaults_and_typed_options_take_precedence(algorithm):
    config, plain = Train.from_values({"algorithm": algorithm}), Train()
    for name, value in IMPLIED[algorithm].items():
        assert getattr(config, name) == value
    assert config.learn_eta
    assert config.learn_lambda
    assert not plain.learn_eta
    others = set(Train.model_fields) - set(IMPLIED[algorithm]) - {"algorithm"}
    assert all(getattr(config, name) == getattr(plain, name) for name in others)
    typed = Train.from_values({"algorithm": algorithm, "hidden": 7, "learn_eta": False})
    assert (typed.hidden, typed.learn_eta, typed.learn_lambda) == (7, False, True)


def test_defaults_of_an_algorithm_reach_the_run(trained_once):
    def config_of(algorithm):
        return json.loads((Path(trained_once[1][algorithm]["folder"]) / "run.json").read_text())["config"]

    a2c, supervised, dqn = (config_of(algorithm) for algorithm in ("a2c", "supervised", "dqn"))
    assert (a2c["learn_eta"], a2c["learn_lambda"]) == (True, True)
    assert a2c["gamma"] == IMPLIED["a2c"]["gamma"]
    assert (a2c["num_envs"], a2c["hidden"]) == (2, 5), "as typed"
    assert supervised["env"] == "plastic/SimpleIntegration-v0"
    assert (supervised["draw_eta"], supervised["lambda_max"]) == (True, 0.95)
    assert (dqn["learn_eta"], dqn["draw_eta"]) == (False, False)


def test_settings_are_the_options_of_the_same_names():
    config = Train.from_values({"gamma": 0.5, "double_q": False, "batch_size": 7, "target_accuracy": 0.7})
    for made in (DQNSettings, A2CSettings):
        settings = shared_fields(made, config)
        assert {field.name: getattr(settings, field.name) for field in fields(made)} == {
            field.name: getattr(config, field.name) for field in fields(made)
        }
    supervised = shared_fields(SupervisedSettings, config, minimum_batches=3)
    assert (supervised.batch_size, supervised.target_accuracy, supervised.minimum_batches) == (7, 0.7, 3)
    without_an_option = {"validate_every", "validation_trials", "window", "patience", "test_trials"}
    assert {field.name for field in fields(SupervisedSettings) if not hasattr(config, field.name)} == without_an_option


def test_target_every_sets_tau_to_zero():
    assert Train().tau > 0
    assert Train.from_values({"target_every": 5}).tau == 0
    assert Train.from_values({"target_every": 5, "tau": 0.1}).tau == 0.1
    assert Train.from_values({"tau": 0.0}).target_every == Train().target_every


@pytest.mark.parametrize("algorithm", ["a2c", "supervised"])
def test_a_frozen_core_has_a_fixed_eta_and_lambda(algorithm):
    config = Train.from_values({"algorithm": algorithm, "core": "mpn-frozen"})
    assert (config.learn_eta, config.learn_lambda) == (False, False)


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("delay=20", 20),
        ("delay=-1.5", -1.5),
        ("delay=true", True),
        ("delay=True", True),
        ("delay=False", False),
        ("delay=[1,2]", [1, 2]),
        ("delay=word", "word"),
        ("delay=a=b", "a=b"),
        ("delay=", ""),
    ],
)
def test_options_of_an_environment_are_read_as_values(typed, read):
    assert read_options((typed,)) == {"delay": read}
    assert type(read_options((typed,))["delay"]) is type(read)


def test_several_options_of_an_environment_are_read_in_order():
    assert read_options(("delay=20", "sigma=1.0", "delay=3")) == {"delay": 3, "sigma": 1.0}
    assert Train.from_values({"env_options": "delay=20, sigma=1"}).env_options == ("delay=20", "sigma=1")


# --------------------------------------------------------------------------------------------------------------- eval


@pytest.mark.parametrize("algorithm", ["dqn", "a2c", "supervised"])
def test_each_algorithm_is_evaluated_with_an_interval(run_of, algorithm):
    folder = run_of(algorithm)
    metrics = carried_out("eval", "mpn", "--episodes", 20)["metrics"]
    mean, low, high, least, most = (
        metrics[f"fresh/return{suffix}"] for suffix in ("", "_low", "_high", "_min", "_max")
    )
    assert least <= low <= mean <= high <= most
    assert least < most
    logged = rows(folder, "eval")
    assert {f"fresh/{row['metric']}": row["value"] for row in logged} == metrics
    config = json.loads((folder / "run.json").read_text())["config"]
    assert {row["labels"]["env"] for row in logged} == {config["env"]}
    # The same episodes again.
    assert carried_out("eval", "mpn", "--episodes", 20)["metrics"] == metrics
    assert carried_out("eval", "mpn", "--episodes", 19)["metrics"] != metrics


def test_the_evaluated_mean_is_that_of_the_episodes(run_of):
    run_of("dqn")
    metrics = carried_out("eval", "mpn", "--env", PAYING, "--env-options", "wage=8,length=5", "--episodes", 40)[
        "metrics"
    ]
    # An episode pays 20 or 40, by its seed.
    share = (metrics["fresh/return"] - 20) / 20
    assert share * 40 == round(share * 40)
    assert 0.2 < share < 0.8
    assert (metrics["fresh/return_min"], metrics["fresh/return_max"]) == (20, 40)
    assert metrics["fresh/return_low"] < metrics["fresh/return"] < metrics["fresh/return_high"]
    # About two standard errors of a mean of 40 on either side.
    width = metrics["fresh/return_high"] - metrics["fresh/return_low"]
    assert width == pytest.approx(2 * 1.96 * 20 * np.sqrt(share * (1 - share) / 40), rel=0.25)


def test_evaluation_with_a_longer_delay_and_in_another_environment(run_of):
    folder = run_of("a2c")
    trained = json.loads((folder / "run.json").read_text())["config"]
    assert trained["env_options"] == ["trials=2"]

    def labels_of(*options):
        carried_out("eval", "mpn", "--episodes", 4, *options)
        return rows(folder, "eval")[-1]["labels"]

    assert labels_of()["options"] == {"trials": 2}
    assert labels_of("--env-options", "delay=20")["options"] == {"trials": 2, "delay": 20}
    assert labels_of("--env-options", "trials=1,delay=20")["options"] == {"trials": 1, "delay": 20}
    # Another environment does not know the options of its own.
    labels = labels_of("--env", PAYING, "--env-options", "wage=2", "--checkpoint", "final")
    assert labels == {"env": PAYING, "checkpoint": "final", "options": {"wage": 2}}
    assert rows(folder, "eval")[-1]["value"] == 6


def test_evaluation_uses_the_step_limit_of_training_or_its_own(run_of):
    run_of("dqn")
    paying = ["eval", "mpn", "--env", PAYING, "--env-options", "wage=2,length=100", "--episodes", 12]
    assert carried_out(*paying)["metrics"]["fresh/return_max"] == 40, "20 steps as in training"
    assert carried_out(*paying, "--max-episode-steps", 7)["metrics"]["fresh/return_max"] == 14


def choose_always(folder, **actions):
    """Make stored networks of a run, by name, always choose the same action."""
    for name, chosen in actions.items():
        path = folder / "artifacts" / f"{name}.pt"
        state = torch.load(path, weights_only=True)
        state["head.weight"].zero_()
        state["head.bias"].zero_()[chosen] = 1.0
        torch.save(state, path)


def test_the_chosen_checkpoint_is_evaluated(run_of, tmp_path):
    folder = run_of("dqn")
    choose_always(folder, best=0, final=1)
    shutil.copy(folder / "artifacts" / "final.pt", tmp_path / "mine.pt")

    def metrics_of(*options):
        return carried_out("eval", "mpn", "--episodes", 25, *options)["metrics"]

    best, final = metrics_of("--checkpoint", "best"), metrics_of("--checkpoint", "final")
    assert best != final
    assert metrics_of() == best
    assert metrics_of("--checkpoint", tmp_path / "mine.pt") == final


# ---------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--env", "Pendulum-v1"], ["--env Pendulum-v1", "continuous", "Discrete", "CartPole-v1"]),
        (["--env", "plastic-tests/Images-v0"], ["arrays of shape (8, 8, 3)", "whose observations are vectors"]),
        (["--env", "CartPol-v1"], ["there is no such Gymnasium environment", "Did you mean 'CartPole-v1'?"]),
        (
            ["--env-options", "nonsense=3"],
            ["--env CartPole-v1: the environment has no option nonsense. Its options: sutton_barto_reward."],
        ),
        (["--env", GO_NOGO, "--env-options", "delay=-1"], ["delay must be a whole number of at least 0, not -1"]),
        (["--env-options", "3=4"], ["--env-options 3=4", "write KEY=VALUE"]),
        (["--learn-eta"], ["--learn-eta", "--replay sequences", "--algorithm a2c"]),
        (["--learn-lambda"], ["--learn-lambda", "--replay sequences"]),
        (["--buffer-size", "10"], ["--buffer-size", "--batch-size"]),
        (["--epsilon-end", "0.5", "--epsilon-start", "0.1"], ["--epsilon-end", "--epsilon-start"]),
        (["--algorithm", "supervised", "--env", "CartPole-v1"], ["SimpleIntegration-v0", "--env CartPole-v1"]),
        (["--core", "gruu"], ["--core gruu", "Did you mean 'gru'?"]),
        (["--lambda-decay", "1.5"], ["--lambda-decay 1.5", "less than or equal to 1"]),
        (["--eta", "nan"], ["--eta nan", "finite number"]),
        (["--hidden", "0"], ["--hidden 0"]),
        (["--layers", "0"], ["--layers 0"]),
        (["--input-projection", "-1"], ["--input-projection -1"]),
        (["--max-episode-steps", "-1"], ["--max-episode-steps -1"]),
        (["--num-envs", "0"], ["--num-envs 0"]),
        (["--episodes", "0"], ["--episodes 0"]),
    ],
)
def test_invalid_training_options_are_refused_in_one_line_and_leave_no_run(options, words, runs_folder):
    line = refused("train", "mpn", *options)
    assert all(word in line for word in words), line
    assert not list(runs_folder.glob("*/run.json"))


@pytest.mark.parametrize("verb", ["train", "eval", "analyze", "render"])
def test_an_option_of_an_environment_without_a_value_is_named_once(verb):
    assert refused(verb, "mpn", "--env-options", "delay") == "--env-options delay: write KEY=VALUE, e.g. delay=20."


def test_a_buffer_too_small_for_sequences_is_refused_before_training(runs_folder):
    line = refused("train", "mpn", "--replay", "sequences", "--num-envs", 8, "--buffer-size", 64, "--episodes", 60)
    assert "--buffer-size" in line
    assert not list(runs_folder.glob("*/run.json"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--checkpoint", "bets"], ["--checkpoint bets", "Did you mean 'best'?", "best, episode-0000002"]),
        (["--checkpoint", "absent.pt"], ["--checkpoint absent.pt", "no such file"]),
        (
            ["--env", "MountainCar-v0"],
            ["MountainCar-v0 has observations of size 2 and 3 actions", "4 and 2 (CartPole-v1)"],
        ),
        (["--env", "plastic/CartPoleNoVelocity-v1"], ["observations of size 2", "4 and 2"]),
        (["--env", "Pendulum-v1"], ["continuous"]),
        (["--env", "plastic-tests/Images-v0"], ["arrays of shape (8, 8, 3)"]),
        (["--env", "CartPol-v1"], ["Did you mean 'CartPole-v1'?"]),
        (["--env-options", "nonsense=3"], ["nonsense"]),
        (["--episodes", "0"], ["--episodes 0"]),
        (["--max-episode-steps", "-1"], ["--max-episode-steps -1"]),
    ],
)
def test_invalid_evaluation_options_are_refused_in_one_line(run_of, options, words):
    folder = run_of("dqn")
    before = (folder / "metrics.jsonl").read_bytes()
    line = refused("eval", "mpn", *options)
    assert all(word in line for word in words), line
    assert (folder / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("options", [["--core", "gru"], ["--hidden", 6], ["--layers", 2], ["--input-projection", 3]])
def test_a_checkpoint_of_another_architecture_is_refused(run_of, options, tmp_path):
    other = carried_out("train", "mpn", "--runs", tmp_path / "other", *ALGORITHMS["dqn"], "--episodes", 1, *options)
    run = run_of("dqn").name
    file = Path(other["folder"]) / "artifacts" / "best.pt"
    line = refused("eval", "mpn", "--checkpoint", file)
    assert "its architecture is not that of run" in line
    assert f"run {run} (core mpn, 5 units, CartPole-v1)" in line


def test_the_network_of_another_algorithm_is_refused(run_of):
    file = run_of("a2c") / "artifacts" / "best.pt"
    run = run_of("dqn").name
    assert "its architecture is not that of run" in refused("eval", "mpn", "--run", run, "--checkpoint", file)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_a_damaged_checkpoint_is_refused(run_of, content, tmp_path):
    run_of("dqn")
    file = tmp_path / "damaged.pt"
    if content is None:
        torch.save(torch.nn.Linear(2, 2), file)
    else:
        file.write_bytes(content)
    assert "the file is damaged, or contains more than tensors" in refused("eval", "mpn", "--checkpoint", file)


def test_a_checkpoint_that_is_no_network_is_refused(run_of, tmp_path):
    run_of("dqn")
    for content in ([1, 2], torch.zeros(3), {"core.W": "word"}, {}):
        torch.save(content, tmp_path / "other.pt")
        assert "its architecture is not that of run" in refused("eval", "mpn", "--checkpoint", tmp_path / "other.pt")


def test_other_checkpoints_of_a_supervised_run_are_refused(run_of):
    run_of("supervised")
    line = refused("eval", "mpn", "--checkpoint", "episode-0000100")
    assert "--checkpoint episode-0000100" in line


def test_a_run_of_another_rule_is_refused(train):
    folder = train()
    assert folder.name in refused("eval", "mpn", "--run", folder.name)


def test_bounds_are_checked_in_the_configuration_too():
    with pytest.raises(UserError, match=r"--episodes 0"):
        Evaluate.from_values({"episodes": 0})
    with pytest.raises(UserError, match=r"--tau 1.5"):
        Train.from_values({"tau": 1.5})
