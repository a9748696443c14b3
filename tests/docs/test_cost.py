"""The numbers on the page about cost are those that the program counts."""

import re
from dataclasses import asdict

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
