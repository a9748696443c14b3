"""The numbers on the page about cost are those that the program counts."""

import re
from dataclasses import asdict

import pytest

from docs.pages import ROOT
from plastic_cli import cost_of
from plastic_cli.commands.runs import cost_for_readers
from plastic_cli.runs.record import RunRecord

PAGE = (ROOT / "docs/cost.md").read_text(encoding="utf-8")


def record(rule, config, data, samples):
    return RunRecord("run", rule, 0, config, status="completed", data=data, speed={"samples": samples})


def test_the_lines_of_a_run_of_grlu_on_the_digits():
    digits = {"image_shape": [1, 8, 8], "classes": 10}
    shown = cost_for_readers(cost_of(record("grlu", {"hidden": [64]}, digits, 14_370)))
    for name, text in shown.items():
        assert f"| {name} | {text} |" in PAGE


def test_the_example_by_hand():
    tiny = {"image_shape": [1, 2, 3], "classes": 3}
    cost = cost_of(record("backprop", {"hidden": [5, 4], "epochs": 2, "batch_size": 4}, tiny, 28))
    for name, value in asdict(cost).items():
        [(arithmetic, result)] = re.findall(rf"^\| `{name}` \| (.*) = (\d+)(?:: .*)? \|$", PAGE, re.MULTILINE)
        assert eval(arithmetic.replace("\N{MULTIPLICATION SIGN}", "*")) == int(result) == value


SIZES = {"W": 62, "A": 32, "R": 12, "H": 2, "C": 3, "U": 7, "P": 5, "S": 27, "D": 27}
"""Of the network 6-5-4-3. Local readouts and direct feedback have 3 x 5 and 3 x 4 weights."""
ROWS = {
    "backprop": ("backprop", {}),
    "backprop, `--trained readout` (random features)": ("backprop", {"trained": "readout"}),
    "backprop, `--trained deep-supervision`, with S weights of all local readouts": (
        "backprop",
        {"trained": "deep-supervision"},
    ),
    "feedback: fixed, sign, uniform-sign, batchwise-sign, kolen-pollack, symmetric": ("feedback", {}),
    "feedback: direct, with D feedback weights": ("feedback", {"feedback": "direct"}),
    "grlu with P perturbations": ("grlu", {"perturbations": 5}),
    "grlu with P perturbations and another optimizer": ("grlu", {"perturbations": 5, "optimizer": "adam"}),
    "selective and its controls": ("selective", {"replay": "none", "tasks": 3, "epochs": 2}),
    "eglp, readout, in all images": ("eglp", {"events": "never"}),
    "eglp without feedback, in images of events": ("eglp", {"events": "always", "feedback": "none"}),
    "eglp with `--local-rule pred`, in images of events, with S weights of all local classifiers": (
        "eglp",
        {"events": "always", "feedback": "none", "optimizer": "adam", "local_rule": "pred"},
    ),
    "eglp with direct feedback of D weights, in images of events": ("eglp", {"events": "always"}),
}


def value(formula):
    """Evaluate a formula that leaves the signs of multiplications out."""
    tokens = re.findall(r"\d+|[A-Z]|[-+()]", formula)
    joined = ""
    for before, token in zip(["+", *tokens], tokens, strict=False):
        joined += " * " if before not in "+-(" and token not in "+-)" else " "
        joined += token
    return eval(joined, dict(SIZES))


@pytest.mark.parametrize("row", list(ROWS))
def test_the_formulas_of_the_table_are_those_of_the_rules(row):
    rule, options = ROWS[row]
    tiny = {"image_shape": [1, 2, 3], "classes": 3}
    run = record(rule, {"hidden": [5, 4], "epochs": 2, **options}, tiny, 60)
    if rule == "eglp":
        images = 0 if options["events"] == "never" else 60
        run.summary = {"train/events": 2.0, "train/event_images": images, "train/synaptic_updates": 100.0}
    cost = cost_of(run)
    [(learning, messages)] = re.findall(rf"^\| {re.escape(row)} \| ([^|]*) \| ([^|]*) \|$", PAGE, re.MULTILINE)
    of_readout = 60 * 2 * SIZES["R"] if rule == "eglp" and options["events"] == "always" else 0
    assert cost.learning_flops == 60 * value(learning) + of_readout
    assert cost.messages == 60 * value(messages)
