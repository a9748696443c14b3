"""What a run cost, as `plastic runs show` prints it and as the run itself counted it."""

import csv
import io
import json
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plastic_cli import Cost, RunStore, cost_of
from plastic_cli.runs.record import read_record
from plastic_cli.tables import with_prefix
from plastic_cli.testing import HEAVY, _check_cost, plastic, write_tiny_dataset


@pytest.fixture
def tiny(tmp_path):
    """36 pixels, 3 classes, 60 training images."""
    return write_tiny_dataset(tmp_path / "data")


def trained(rule, tiny, *options):
    (result,) = plastic("train", rule, "--json", "--dataset", tiny, "--epochs", 2, *options).results
    return read_record(Path(result["folder"]))


def test_the_price_is_shown_with_the_mean_of_a_sample(tiny):
    record = trained("backprop", tiny, "--hidden", "5", "--batch-size", "20")
    weights = 36 * 5 + 5 * 3
    content = json.loads(plastic("runs", "show", record.run, "--json").out)
    assert content["cost"] == asdict(cost_of(record))
    assert RunStore().run(record.run).cost == cost_of(record)
    assert content["cost"]["updates"] == 2 * 3 * weights
    table = plastic("runs", "show", record.run).out
    # 120 samples of 2 * 195 operations.
    assert re.search(r"operations of inference +46.8 kFLOP \(390 FLOP for each sample\)", table)
    assert "messages to hidden layers" in table
    exported = dict(csv.reader(io.StringIO(plastic("runs", "show", record.run, "--format", "csv").out)))
    assert int(exported["cost.learning_flops"]) == content["cost"]["learning_flops"]


def test_a_run_without_a_price_shows_none(tiny):
    record = trained("backprop", tiny, "--hidden", "5")
    path = Path(json.loads(plastic("runs", "show", record.run, "--json").out)["folder"]) / "run.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**stored, "status": "failed"}), encoding="utf-8")
    assert json.loads(plastic("runs", "show", record.run, "--json").out)["cost"] is None
    assert RunStore().run(record.run).cost is None
    assert "messages" not in plastic("runs", "show", record.run).out


@pytest.mark.parametrize(
    "options",
    [
        ("--no-control",),
        ("--no-control", "--feedback", "none"),
        ("--no-control", "--event-scope", "batch"),
        ("--update", "backprop"),
    ],
)
def test_the_price_of_eglp_is_what_its_runs_log(tiny, options):
    record = trained("eglp", tiny, "--hidden", "5,4", "--batch-size", "16", *options)
    cost = cost_of(record)
    for name, value in (
        ("forward_flops", cost.inference_flops),
        ("learning_flops", cost.learning_flops),
        ("messages", cost.messages),
    ):
        assert record.summary[f"train/{name}"] == value


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        ("backprop", ("--model", "cnn", "--hidden", "2,3")),
        ("backprop", ("--trained", "deep-supervision", "--hidden", "5,4")),
        ("feedback", ("--feedback", "direct", "--model", "cnn", "--hidden", "2,3")),
    ],
)
def test_the_price_of_any_network_is_what_torch_counted(tiny, rule, options):
    record = trained(rule, tiny, "--batch-size", "20", *options)
    cost = cost_of(record)
    assert record.summary["train/forward_flops"] == cost.inference_flops
    assert record.summary["train/learning_flops"] == cost.learning_flops


@given(st.floats(1, 1e20), st.sampled_from(["", "B", "FLOP"]))
def test_a_number_with_a_prefix_has_four_digits_of_the_value(value, unit):
    number, _, rest = with_prefix(value, unit).partition(" ")
    prefix = rest.removesuffix(unit) if unit else rest
    assert float(number) * 1000 ** " kMGTPE".index(prefix or " ") == pytest.approx(value, rel=6e-4)
    assert float(number) < 1000 or prefix == "E"
    assert with_prefix(0, unit) == f"0 {unit}".strip()


def test_fully_connected_networks_are_priced_without_torch():
    program = (
        "import sys\n"
        "from plastic_cli.analysis.cost import cost_of\n"
        "from plastic_cli.runs.record import RunRecord\n"
        "counts = {f'train/{name}': 1.0 for name in ('events', 'event_images', 'synaptic_updates')}\n"
        "data = {'image_shape': [1, 8, 8], 'classes': 10}\n"
        "for rule in ('backprop', 'eglp', 'feedback', 'grlu', 'metafa', 'selective'):\n"
        "    run = RunRecord('run', rule, 0, {}, status='completed', data=data, summary=counts)\n"
        "    run.speed = {'samples': 7200}\n"
        "    assert cost_of(run) is not None, rule\n"
        f"assert not set({HEAVY!r}) & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (lambda record: 7, "returns a int, not a Cost"),
        (lambda record: Cost(1, 1.5, 0, 0, 0, 0, 0), "inference_flops is 1.5"),
        (lambda record: Cost(1, 1, 1, -1, 0, 0, 0), "messages is -1"),
        (lambda record: Cost(0, 1, 1, 1, 1, 1, 1), "has no samples"),
        (lambda record: Cost(1, 1, 1, 1, 1, round(1e9 * record.seconds), 1), "depends on the machine or the time"),
        (lambda record: Cost(1, 1, 1, 1, 1, len(record.versions), 1), "depends on the machine or the time"),
    ],
)
def test_the_contract_of_rules_names_what_is_wrong_with_a_cost(tiny, monkeypatch, wrong, complaint):
    record = trained("backprop", tiny, "--hidden", "5")
    folder = Path(json.loads(plastic("runs", "show", record.run, "--json").out)["folder"])
    monkeypatch.setattr("plastic_backprop.cost.cost", wrong)
    with pytest.raises(AssertionError, match=complaint):
        _check_cost("backprop", folder)
    monkeypatch.undo()
    _check_cost("backprop", folder)
