"""The search from Python finds what the shell finds, and its best options train."""

from __future__ import annotations

import json

import pytest

import plastic_cli as plastic
from plastic_cli.testing import plastic as shell

pytest.importorskip("optuna")


@pytest.mark.slow
def test_the_search_is_that_of_the_shell_and_its_best_options_train(tmp_path):
    options = {"epochs": 1, "hidden": "8", "trials": 2, "search": ["learning_rate=0.0001,0.1"], "quiet": True}
    tuning = plastic.tune("backprop", **options)
    typed = ["--epochs", "1", "--hidden", "8", "--trials", "2", "--search", "learning_rate=0.0001,0.1", "--json"]
    outcome = shell("tune", "backprop", *typed)
    lines = [json.loads(line) for line in outcome.out.splitlines()]
    assert [line["value"] for line in lines] == tuning.trials[tuning.metric].tolist()
    assert len(plastic.RunStore("runs").rows()) == 2
    assert tuning.metric == "validation/accuracy"
    assert float(tuning.best["learning_rate"]) == 0.1
    assert tuning.trials[tuning.metric].is_monotonic_decreasing
    run = plastic.train(tuning.rule, **tuning.best, quiet=True)
    assert run.config["learning_rate"] == 0.1
    assert run.config["validation"] == 0
    assert "2 trials" in repr(tuning)
    assert "<table" in tuning._repr_html_()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"metric": "test/accuracy"}, "it is measured on test data"),
        ({"search": ["learning_rat=1:2"]}, "learning_rate"),
        ({"trial": 3}, "there is no option 'trial'. Did you mean 'trials'?"),
    ],
)
def test_wrong_use_is_a_value_error(options, words):
    with pytest.raises(ValueError, match=r".") as caught:
        plastic.tune("backprop", **options)
    assert words in str(caught.value)
