"""For authors of rules: a check of the requirements of plastic, and the command line as a function.

A rule's own test suite calls `check_rule("my-rule", tmp_path, {"epochs": 3})`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch

from plastic_cli.analysis.cost import Cost
from plastic_cli.app import run_command_line
from plastic_cli.classifier.data import trained_on
from plastic_cli.config.model import Config, TrainConfig
from plastic_cli.config.toml import read_toml, to_toml
from plastic_cli.plugins.discovery import find_rule
from plastic_cli.plugins.models import config_model
from plastic_cli.plugins.rule import VERBS
from plastic_cli.runs.folder import open_run
from plastic_cli.runs.metrics import data_of
from plastic_cli.runs.record import RECORD_FILE, read_record
from plastic_cli.runs.run import Run
from plastic_cli.runs.stages import read_stage
from plastic_cli.runs.store import RunStore

HEAVY = ("torch", "pandas", "matplotlib", "sklearn", "scipy", "numba", "torchvision", "plotnine")
"""Packages that the help of a rule must not import."""


@dataclass(frozen=True)
class Outcome:
    """The result of a command: exit code, stdout and stderr."""

    code: int
    out: str
    err: str

    @property
    def results(self) -> list[dict[str, Any]]:
        """The JSON objects on stdout, one per run."""
        return [json.loads(line) for line in self.out.splitlines()]


def plastic(*arguments: object) -> Outcome:
    """Run `plastic` with these arguments in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_command_line([str(argument) for argument in arguments])
    return Outcome(code, out.getvalue(), err.getvalue())


def write_tiny_dataset(folder: Path, *, classes: int = 3, images: int = 60, size: int = 6, seed: int = 0) -> Path:
    """Write a small data set that can be learned as train.npz and test.npz: uint8 images (n, size, size)."""
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    prototypes = generator.integers(0, 200, (classes, size, size))
    for split in ("train", "test"):
        y = np.arange(images) % classes
        x = np.clip(prototypes[y] + generator.normal(0, 20, (images, size, size)), 0, 255).astype(np.uint8)
        np.savez(folder / f"{split}.npz", x=x, y=y)
    return folder


def check_rule(name: str, folder: Path, options: Mapping[str, Any] | None = None) -> None:
    """Check that the installed rule `name` meets the requirements of plastic; raises AssertionError if it does not.

    folder: where its runs may be written. options: options of its train command, by field name, for a training of
    seconds with at least two steps. A rule with a `dataset` field is trained on a tiny data set of 6 x 6 images and
    three classes, unless the options name another.

    It checks that
    - the rule has the functions `train`, `evaluate`, `analyze` and `render`, and each option has a help text;
    - `--help` imports neither torch nor another package of `HEAVY`;
    - the options do not change if they are written to a TOML file and read again;
    - all four commands work and print one JSON object;
    - `eval`, `analyze` and `render` leave a record by which a sweep knows that they are done;
    - the same seed gives the same metrics, and another seed gives other metrics;
    - a run that is stopped and resumed has the metrics and the state of an uninterrupted run;
    - `torch.load(..., weights_only=True)` can load the checkpoint;
    - `network`, if the rule has it, returns a module in evaluation mode, through which gradients flow; if the rule also
      has `build`, the module gives the logits of the trained learner;
    - `cost`, if the rule has it, returns a Cost of whole numbers, which depends on nothing but the configuration, the
      shapes of the data, the metrics and the number of samples of a record;
    - on the tiny data set, each metric that depends on test images is logged as measured on them.
    """
    problems = find_rule(name).problems()
    assert not problems, " ".join(problems)
    options = dict(options or {})
    tiny = None
    model = config_model(_function(name, "train"))
    assert issubclass(model, TrainConfig), f"{model.__qualname__} must be a subclass of TrainConfig, which has the seed"
    if "dataset" in model.model_fields and "dataset" not in options:
        tiny = write_tiny_dataset(folder / "data")
        options["dataset"] = str(tiny)
    _check_help(name)
    _check_configuration(model, options, folder)
    first = _check_train(name, options, folder / "runs")
    _check_checkpoint(Path(first["folder"]))
    _check_seeds(name, options, folder, first)
    _check_resume(name, options, folder, first)
    _check_cost(name, Path(first["folder"]))
    _check_stages(name, folder / "runs", first)
    _check_network(name, Path(first["folder"]))
    if tiny is not None:
        _check_test_data(name, options, tiny, first)


def training_numbers(folder: Path) -> pd.DataFrame:
    """Return what a run logged while training, without the times: two equal runs have equal frames."""
    metrics = RunStore(folder.parent).metrics(runs=[folder.name], stage="train")
    return metrics.drop(columns=["run", "time"])


@contextlib.contextmanager
def interrupted_after(checkpoints: int) -> Iterator[None]:
    """Stop every run inside the block after its n-th checkpoint, as Ctrl-C does; every step writes a checkpoint."""
    save = Run.save_checkpoint
    saved = 0

    def save_and_stop(run: Run) -> None:
        nonlocal saved
        save(run)
        saved += 1
        if saved == checkpoints:
            raise KeyboardInterrupt

    with (
        mock.patch.object(Run, "save_checkpoint", save_and_stop),
        mock.patch.object(Run, "checkpoint_is_due", lambda _: True),
    ):
        yield


def _function(name: str, verb: str) -> Any:
    function = find_rule(name).function(verb)
    assert function is not None, f"the rule '{name}' has no `{VERBS[verb]}` in its commands"
    return function


def _typed(options: Mapping[str, Any]) -> list[str]:
    arguments = []
    for key, value in options.items():
        option = f"--{key.replace('_', '-')}"
        if isinstance(value, bool):
            arguments.append(option if value else f"--no-{option[2:]}")
        else:
            text = ",".join(str(entry) for entry in value) if isinstance(value, list | tuple) else str(value)
            arguments += [option, text]
    return arguments


def _done(*arguments: object) -> Outcome:
    outcome = plastic(*arguments)
    command = " ".join(str(argument) for argument in arguments)
    assert outcome.code == 0, f"`plastic {command}` ended with {outcome.code}:\n{outcome.err}"
    return outcome


def _check_help(name: str) -> None:
    """Run in a new process, since this one has imported everything already."""
    program = (
        "import sys\nfrom plastic_cli.app import run_command_line\n"
        f"for verb in {list(VERBS)!r}:\n"
        f"    assert run_command_line([verb, {name!r}, '--help']) == 0, verb\n"
        f"heavy = sorted(set({HEAVY!r}) & set(sys.modules))\n"
        "assert not heavy, f'--help imported {heavy}'\n"
    )
    # Wide, so that no name of an option is cut.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for field_name in config_model(_function(name, "train")).model_fields:
        shown = field_name.replace("_", "-")
        assert shown in done.stdout, f"`plastic train {name} --help` does not name --{shown}"


def _check_configuration(model: type[TrainConfig], options: Mapping[str, Any], folder: Path) -> None:
    config = model.from_values(options)
    file = folder / "configuration.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(to_toml(config), encoding="utf-8")
    assert model.from_values(read_toml(file)) == config, "the configuration changes on its way through TOML"
    assert model.from_values(config.model_dump(mode="json")) == config, "the configuration changes when it is stored"
    for field_name, info in model.model_fields.items():
        assert info.description, f"{model.__qualname__}.{field_name} has no help"
    for former, present in model.former_names().items():
        assert present in model.model_fields, f"{former} is renamed to {present}, which is no field"


def _check_train(name: str, options: Mapping[str, Any], runs: Path) -> dict[str, Any]:
    outcome = _done("train", name, "--json", "--runs", runs, *_typed(options))
    assert len(outcome.results) == 1, "--json prints one object per run"
    result = outcome.results[0]
    assert {"run", "rule", "seed", "status", "folder", "seconds", "metrics"} <= result.keys()
    assert (result["rule"], result["status"]) == (name, "completed")
    assert result["metrics"], "training logged no metric"
    assert all("/" in key for key in result["metrics"]), "the keys of metrics are split/metric"
    return result


def _check_checkpoint(folder: Path) -> None:
    torch.load(folder / "checkpoint.pt", weights_only=True)


def _check_seeds(name: str, options: Mapping[str, Any], folder: Path, first: Mapping[str, Any]) -> None:
    _disturb_global_random_states()
    again, other = _done(
        "train", name, "--json", "--runs", folder / "seeds", *_typed({**options, "seed": first["seed"]}), "--seeds", 2
    ).results
    assert again["metrics"] == first["metrics"], "the same seed gives different numbers"
    pd.testing.assert_frame_equal(training_numbers(Path(again["folder"])), training_numbers(Path(first["folder"])))
    assert other["seed"] == first["seed"] + 1
    assert other["metrics"] != first["metrics"], "another seed gives the same numbers: it is not used"


def _check_resume(name: str, options: Mapping[str, Any], folder: Path, first: Mapping[str, Any]) -> None:
    runs = folder / "resumed"
    stops = 0
    with interrupted_after(1):
        outcome = plastic("train", name, "--json", "--runs", runs, *_typed(options))
    run = next(iter(RunStore(runs).folders()))
    while outcome.code == 130:
        stops += 1
        _disturb_global_random_states()
        with interrupted_after(1):
            outcome = plastic("train", name, "--json", "--runs", runs, "--resume", run)
    assert outcome.code == 0, outcome.err
    assert stops >= 2, "give options with at least two steps, so that resuming can be checked"
    pd.testing.assert_frame_equal(training_numbers(runs / run), training_numbers(Path(first["folder"])))
    assert _state(runs / run) == _state(Path(first["folder"])), "a resumed run ends in another state"


def _check_stages(name: str, runs: Path, first: Mapping[str, Any]) -> None:
    for verb in ("eval", "analyze", "render"):
        function = _function(name, verb)
        result = _done(verb, name, "--json", "--runs", runs).results[0]
        assert result["run"] == first["run"], f"{verb} without a run takes the newest completed one"
        _check_record(config_model(function), verb, runs / first["run"])
    record = json.loads((runs / first["run"] / RECORD_FILE).read_text(encoding="utf-8"))
    assert record["status"] == "completed"
    assert record["summary"] == first["metrics"], "a later verb changed the result of training"
    pictures = [path for path in (runs / first["run"]).rglob("*") if path.suffix in (".gif", ".png", ".mp4")]
    assert pictures, "render wrote no picture"


def _check_record(model: type[Config], verb: str, folder: Path) -> None:
    """Check that a sweep, which gives all options in a TOML file, finds the record and does not repeat the verb."""
    config = model.from_values({})
    file = folder / f"{verb}.toml"
    file.write_text(to_toml(config), encoding="utf-8")
    again = model.from_values(read_toml(file))
    file.unlink()
    assert again == config, f"the configuration of {verb} changes on its way through TOML"
    stage = read_stage(folder, verb, again.model_dump(mode="json"))
    assert stage is not None, f"{verb} left no record with its options"
    missing = [name for name in stage.files if not (folder / name).is_file()]
    assert not missing, f"{verb} says that it wrote {', '.join(missing)}, and there is no such file in the run"


def _check_network(name: str, folder: Path) -> None:
    rule, run = find_rule(name), open_run(folder, stage="analyze")
    load, build = rule.member("network"), rule.member("build")
    if load is None:
        return
    network = load(run)
    assert isinstance(network, torch.nn.Module), f"{rule.network} returns a {type(network).__name__}, not a Module"
    assert not network.training, f"{rule.network}: the network is not in evaluation mode, call its eval()"
    assert list(network.parameters()), f"{rule.network}: the network has no parameters"
    load(run).load_state_dict(network.state_dict())
    if build is None:
        return
    data = trained_on(run)
    x = data.test.x
    logits = network(x)
    with torch.no_grad():
        expected = build(run, data, trained=True).predict(x)
    assert torch.equal(logits, expected), f"{rule.network}: the network does not give the logits of the learner"
    images = network(x.view(-1, *data.image_shape))
    assert torch.equal(images, expected), f"{rule.network}: images (batch, channels, height, width) give other logits"
    logits.logsumexp(1).sum().backward()
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    assert any(gradient.any() for gradient in gradients), f"{rule.network}: no gradient flows to the parameters"
    assert network.double()(x.double()).dtype == torch.float64, f"{rule.network}: double() does not change the network"


def _check_cost(name: str, folder: Path) -> None:
    rule, record = find_rule(name), read_record(folder)
    price = rule.member("cost")
    if price is None:
        return
    cost = price(record)
    assert isinstance(cost, Cost), f"{rule.cost} returns a {type(cost).__name__}, not a Cost"
    for part, value in asdict(cost).items():
        whole = isinstance(value, int) and value >= 0
        assert whole, f"{rule.cost}: {part} is {value!r}, it must be a whole number of 0 or more"
    assert cost.samples > 0, f"{rule.cost}: a run that was trained has no samples"
    speed = {**record.speed, "seconds": 2 * record.speed.get("seconds", 1.0)}
    elsewhere = replace(record, run="other", seconds=0.0, machine={}, versions={}, argv=[], process={}, speed=speed)
    assert price(elsewhere) == cost, f"{rule.cost}: the cost depends on the machine or the time of the run"


def _check_test_data(name: str, options: Mapping[str, Any], data: Path, first: Mapping[str, Any]) -> None:
    """Train again with other test images: only numbers that are marked as measured on test data may change."""
    other = data.with_name("other-test-images")
    other.mkdir()
    (other / "train.npz").write_bytes((data / "train.npz").read_bytes())
    with np.load(data / "test.npz") as stored:
        x, y = stored["x"], stored["y"]
    np.savez(other / "test.npz", x=np.random.default_rng(0).integers(0, 256, x.shape, dtype=np.uint8), y=y)
    runs = data.with_name("other-test-runs")
    changed = {**options, "dataset": str(other)}
    again = _done("train", name, "--json", "--runs", runs, *_typed(changed)).results[0]
    measured_on = read_record(Path(again["folder"])).measured_on
    changes = {key for key, value in again["metrics"].items() if value != first["metrics"].get(key)}
    hidden = sorted(key for key in changes if data_of(key, measured_on) != "test")
    assert not hidden, (
        f'{", ".join(hidden)}: they depend on test images. Log them under `test`, or with `measured_on="test"`'
    )
    assert changes, "no number depends on the test images: the rule is never evaluated on test data"


def _state(folder: Path) -> str:
    """Return the tracked state as text, without rounding."""

    def plain(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return [str(value.dtype), value.tolist()]
        if isinstance(value, Mapping):
            return {str(key): plain(entry) for key, entry in value.items()}
        if isinstance(value, list | tuple):
            return [plain(entry) for entry in value]
        return value

    return json.dumps(plain(torch.load(folder / "checkpoint.pt", weights_only=True)["tracked"]), sort_keys=True)


def _disturb_global_random_states() -> None:
    """Set the global random states to values that no new process starts with."""
    torch.manual_seed(random.SystemRandom().randrange(2**31))
    np.random.seed(random.SystemRandom().randrange(2**31))  # noqa: NPY002  a rule must not use the global state
    random.seed()
