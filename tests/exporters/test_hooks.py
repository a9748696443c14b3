"""The hooks of a run: what an exporter is told, and that it cannot cost the run anything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from plastic_cli.errors import UserError
from plastic_cli.plugins.discovery import (
    discover,
    exporter_names,
    find_exporter,
    plugin_names,
)
from plastic_cli.runs.exports import hyperparameters, metric_name
from plastic_cli.testing import plastic
from processes import environment, run_plastic

RECORDER = """
import json, os, pathlib
from plastic_cli import UserError, hookimpl

def note(*entry):
    with pathlib.Path(os.environ["HEARD"]).open("a") as file:
        file.write(json.dumps(entry) + "\\n")

@hookimpl
def plastic_run_started(run, rows):
    note("started", run, rows)

@hookimpl
def plastic_metrics_logged(rows):
    note("logged", rows)

@hookimpl
def plastic_run_finished(run):
    note("finished", run)
"""
TINY = ["--hidden", "4", "--epochs", "2"]


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Write an exporter as an installer leaves it, so that this process finds it."""

    def write(source, *, name="export-recorder"):
        folder = tmp_path / "site"
        about = folder / "plastic_recorder-1.0.dist-info"
        about.mkdir(parents=True)
        (folder / "plastic_recorder.py").write_text(source)
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: plastic-recorder\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[plastic]\n{name} = plastic_recorder\n")
        monkeypatch.syspath_prepend(folder)
        return folder

    yield write
    sys.modules.pop("plastic_recorder", None)


@pytest.fixture
def heard(tmp_path, monkeypatch):
    """What the recording exporter wrote down."""
    path = tmp_path / "heard.jsonl"
    monkeypatch.setenv("HEARD", str(path))

    def read():
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    return read


def written_by(run):
    """The rows of a run's metrics file."""
    return [json.loads(line) for line in Path(run["folder"], "metrics.jsonl").read_text().splitlines()]


def test_an_exporter_is_told_when_it_is_asked_for(install, heard, tiny_data):
    install(RECORDER)
    train = ["train", "backprop", "--dataset", tiny_data, *TINY, "--json"]
    silent = plastic(*train)
    assert silent.code == 0
    assert heard() == []
    done = plastic(*train, "--export", "recorder")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    (_, started, earlier), *logged, (_, finished) = heard()
    assert [entry[0] for entry in heard()] == ["started", *["logged"] * 6, "finished"]
    assert (started["run"], started["status"], started["folder"]) == (result["run"], "running", result["folder"])
    assert started["config"]["hidden"] == [4]
    assert earlier == []
    assert [row for _, rows in logged for row in rows] == written_by(result)
    assert (finished["status"], finished["summary"]) == ("completed", result["metrics"])
    assert json.loads(silent.out)["metrics"] == result["metrics"]


def test_the_environment_asks_for_exporters_and_an_empty_option_turns_them_off(install, heard, tiny_data, monkeypatch):
    install(RECORDER)
    monkeypatch.setenv("PLASTIC_EXPORT", "recorder")
    train = ["train", "backprop", "--dataset", tiny_data, *TINY, "--quiet"]
    assert plastic(*train, "--export", "").code == 0
    assert heard() == []
    assert plastic(*train).code == 0
    assert heard()


@pytest.mark.parametrize("hook", ["plastic_run_started", "plastic_metrics_logged", "plastic_run_finished"])
@pytest.mark.parametrize("error", ["1 / 0", "raise SystemExit(3)"])
def test_an_exporter_that_raises_is_named_once_and_costs_nothing(install, heard, tiny_data, hook, error):
    install(RECORDER.replace(f"def {hook}(", f"def {hook}(", 1).replace(_body(hook), f"    {error}\n"))
    arguments = ["train", "backprop", "--dataset", tiny_data, *TINY, "--json", "--seeds", 2]
    done = plastic(*arguments, "--export", "recorder")
    assert done.code == 0, done.err
    warnings = [line for line in done.err.splitlines() if "recorder" in line]
    assert len(warnings) == 1
    assert f"'recorder' (plastic-recorder 1.0) failed in {hook}" in warnings[0]
    plain = [json.loads(line)["metrics"] for line in plastic(*arguments).out.splitlines()]
    assert [json.loads(line)["metrics"] for line in done.out.splitlines()] == plain
    # Having failed once it is left alone in that run, but for the end.
    assert sum(entry[0] == "logged" for entry in heard()) == (12 if hook == "plastic_run_finished" else 0)


def _body(hook):
    return RECORDER.split(f"def {hook}(")[1].split(":\n", 1)[1].split("\n@")[0].rstrip("\n") + "\n"


def test_a_failed_run_is_exported_as_failed(install, heard, tiny_data):
    install(RECORDER)
    arguments = ["train", "backprop", "--dataset", tiny_data, *TINY, "--optimizer", "sgd", "--learning-rate", "1e30"]
    done = plastic(*arguments, "--export", "recorder")
    assert done.code == 1
    last = heard()[-1]
    assert (last[0], last[1]["status"]) == ("finished", "failed")
    assert "smaller learning rate" in last[1]["error"]


def test_a_run_that_was_given_up_for_wrong_input_is_never_exported(install, heard, tmp_path):
    install(RECORDER)
    arguments = ["train", "backprop", "--dataset", tmp_path / "nothing-here", "--export", "recorder"]
    assert plastic(*arguments).code == 2
    assert heard() == []


def test_an_interrupt_inside_an_exporter_interrupts_the_run(install, heard, tiny_data):
    # A library may turn it into an error of its own.
    body = "    try:\n        os.kill(os.getpid(), 15)\n    except BaseException:\n        raise OSError()\n"
    install(RECORDER.replace(_body("plastic_metrics_logged"), body))
    arguments = ["train", "backprop", "--dataset", tiny_data, *TINY, "--export", "recorder"]
    done = plastic(*arguments)
    assert done.code == 130, done.err
    assert "--resume" in done.err
    assert heard()[-1][1]["status"] == "interrupted"


def test_an_interrupt_while_the_end_is_exported_leaves_the_run_completed(install, heard, tiny_data):
    install(RECORDER.replace(_body("plastic_run_finished"), "    os.kill(os.getpid(), 15)\n"))
    arguments = ["train", "backprop", "--dataset", tiny_data, *TINY, "--export", "recorder"]
    done = plastic(*arguments)
    assert done.code == 130
    assert [row["status"] for row in json.loads(plastic("runs", "--json").out)] == ["completed"]


def test_a_resumed_run_tells_what_stands_and_nothing_else(install, heard, tiny_data, monkeypatch):
    from plastic_cli.testing import interrupted_after

    arguments = ["--dataset", tiny_data, "--hidden", 4, "--epochs", 3]
    with interrupted_after(1):
        assert plastic("train", "backprop", *arguments).code == 130
    run = json.loads(plastic("runs", "--json").out)[0]
    # Work that was lost: logged behind the last checkpoint.
    lost = {"stage": "train", "split": "test", "step": 2, "metric": "accuracy", "value": 0.5, "time": 1.0}
    with Path(run["folder"], "metrics.jsonl").open("a") as file:
        file.write(json.dumps(lost) + "\n")
    install(RECORDER)
    resume = ["train", "backprop", "--resume", run["run"], "--export", "recorder"]
    assert plastic(*resume).code == 0
    (_, _, earlier), *logged, _ = heard()
    everything = earlier + [row for _, rows in logged for row in rows]
    assert everything == written_by(run)
    assert {row["step"] for row in earlier} == {0, 1}
    assert not any(row["time"] == 1.0 for row in everything)


def test_what_is_not_installed_is_one_line():
    outcome = plastic("train", "backprop", "--export", "tensorbord")
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert "Did you mean 'tensorboard'?" in outcome.err
    outcome = plastic("train", "backprop", "--export", "grlu")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "'grlu'" in outcome.err
    assert "exports nothing" in outcome.err


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_a_missing_library_is_one_line_that_names_the_extra(name, monkeypatch, runs_folder):
    for module in [module for module in sys.modules if module.startswith(f"plastic_{name}.")]:
        monkeypatch.delitem(sys.modules, module)
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    done = plastic("train", "backprop", "--export", name)
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert f"pip install 'plastic-cli[{name}]'" in done.err
    assert not runs_folder.exists()


@pytest.mark.parametrize(
    ("source", "complaint"),
    [("1 / 0\n", "ZeroDivisionError"), ("nothing = 1\n", "exports nothing")],
)
def test_an_exporter_that_does_not_load_is_one_line_and_no_rule_minds(install, source, complaint):
    site = install(source)
    done = plastic("train", "backprop", "--export", "recorder")
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert complaint in done.err
    assert run_plastic("rules", folders=[site]).stderr == "", "an exporter is loaded by those who ask for it"


def test_a_plugin_with_other_hooks_and_no_rule_is_not_broken(install, heard, tiny_data):
    site = install(RECORDER, name="recorder")
    done = run_plastic("rules", "--json", folders=[site])
    assert done.stderr == ""
    assert "recorder" not in [row["rule"] for row in json.loads(done.stdout)]
    arguments = ["train", "backprop", "--dataset", tiny_data, *TINY, "--export", "recorder", "--quiet"]
    assert plastic(*arguments).code == 0
    assert heard()


def test_exporters_are_no_rules():
    assert {"tensorboard", "mlflow", "wandb"} <= set(exporter_names())
    assert not set(exporter_names()) & set(plugin_names())
    assert not [name for name in discover().rules if name.startswith("export")]
    assert "wandb" not in plastic("--help").out
    with pytest.raises(UserError, match="there is no exporter"):
        find_exporter("nothing")


def test_how_a_row_and_a_configuration_are_named():
    row = {"split": "test", "metric": "accuracy", "step": 1, "value": 0.5}
    assert metric_name(row) == "test/accuracy"
    assert metric_name({**row, "labels": {"task": 2}}) == "test/accuracy/task 2"
    run = {"rule": "r", "dataset": None, "config": {"hidden": [4, 3], "rate": 0.1, "joint": True, "other": None}}
    assert hyperparameters(run) == {"rule": "r", "hidden": "4,3", "rate": 0.1, "joint": True}


def test_no_exporter_is_loaded_where_none_is_asked_for(tiny_data):
    arguments = ["train", "backprop", "--dataset", str(tiny_data), *TINY, "--quiet"]
    program = f"""
import sys
from plastic_cli.app import run_command_line
assert run_command_line({arguments!r}) == 0
assert "plastic_backprop" in sys.modules
print(sorted(set({["plastic_tensorboard", "plastic_mlflow", "plastic_wandb"]!r}) & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment(), timeout=120, check=False
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


# ------------------------------------------------------------------------------------------- exporting afterwards


def test_runs_are_exported_later_as_they_ended(install, heard, train):
    install(RECORDER)
    first, second = train(), train()
    record = json.loads((first / "run.json").read_text())
    # A process that was killed leaves a run that says so and a lock that nobody holds.
    (first / "run.json").write_text(json.dumps({**record, "status": "running", "finished": None}))
    outcome = plastic("runs", "export", "--to", "recorder")
    assert (outcome.code, outcome.out) == (0, "")
    finished = {run["run"]: run["status"] for kind, run, *_ in heard() if kind == "finished"}
    assert finished == {first.name: "crashed", second.name: "completed"}
    assert [entry[2] for entry in heard() if entry[0] == "started"] == [
        written_by({"folder": first}),
        written_by({"folder": second}),
    ]
    assert json.loads((first / "run.json").read_text())["status"] == "running", "exporting changes nothing"


def test_exporting_later_reports_what_failed_and_goes_on(install, heard, train):
    install(RECORDER.replace(_body("plastic_run_started"), "    1 / 0\n"))
    train(), train()
    outcome = plastic("runs", "export", "--to", "recorder")
    assert outcome.code == 1
    assert outcome.err.count("ZeroDivisionError") == 1
    assert outcome.err.splitlines()[-1] == "error: could not export everything to recorder."


def test_exporting_later_what_cannot_be_exported_is_one_line(install, train):
    install(RECORDER)
    run = train()
    for arguments, complaint in [
        ([run.name], "--to"),
        (["--to", ""], "name at least one exporter"),
        (["--to", "nothing"], "there is no exporter 'nothing'"),
        (["elsewhere", "--to", "recorder"], "elsewhere"),
    ]:
        outcome = plastic("runs", "export", *arguments)
        assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome.err
        assert complaint in outcome.err


def test_a_run_that_is_being_written_is_not_exported(install, heard, train):
    from filelock import FileLock

    install(RECORDER)
    run = train()
    with FileLock(run / "lock"):
        outcome = plastic("runs", "export", run.name, "--to", "recorder")
    assert outcome.code == 2
    assert "is being written by another process" in outcome.err
    assert heard() == []


def test_the_shell_completes_exporters():
    from plastic_cli.commands.completion import exporters

    assert exporters("ten") == [("tensorboard", "")]


def test_doctor_names_the_exporters_and_those_whose_library_is_missing(monkeypatch):
    for module in [module for module in sys.modules if module.startswith("plastic_tensorboard.")]:
        monkeypatch.delitem(sys.modules, module)
    for module in [module for module in sys.modules if module.partition(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    outcome = plastic("doctor", "--json")
    checks = {check["check"]: check for check in json.loads(outcome.out)}
    assert checks["exporter tensorboard"]["state"] == "note", "its library is optional"
    assert "pip install 'plastic-cli[tensorboard]'" in checks["exporter tensorboard"]["detail"]
    assert checks["exporter wandb"]["state"] == "ok"
