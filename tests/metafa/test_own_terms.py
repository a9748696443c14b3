"""Terms of the user's own: `--terms MODULE:TERM`, from the shell and from Python."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import plastic_cli
from plastic_cli.errors import UserError
from plastic_cli.plugins.metrics import metric_of
from plastic_cli.runs.folder import open_run
from plastic_cli.testing import plastic, training_numbers, write_tiny_dataset
from plastic_metafa import rule
from plastic_metafa.config import Train
from plastic_metafa.network import network
from plastic_metafa.own_terms import load_terms
from plastic_metafa.theta_file import read_theta, term_key
from processes import run_plastic

OWN = '''
import torch

from plastic_metafa import Term


def hebb(W, y_pre, y_post, e_pre, e_post):
    """Hebb: y_l y_{l-1}^T."""
    return y_post[..., :, None] * y_pre[..., None, :]


def gradient(W, y_pre, y_post, e_pre, e_post):
    return -e_post[..., :, None] * y_pre[..., None, :]


named = Term("another name", hebb)
transposed = lambda W, *others: W.T
number = lambda W, *others: 1.0
few = lambda W, y_pre: W
word = "hebb"
'''
SMALL = ["--hidden", "6", "--episodes", 3, "--ways", 3, "--held-out-classes", 0, "--shots", 4, "--queries", 3]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with the modules of a user, which is not on the path, as for the installed program."""
    write_tiny_dataset(tmp_path / "data")
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "my_terms.py").write_text(OWN)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(folder))])
    monkeypatch.setattr(rule, "TERMS", dict(rule.TERMS))
    for module in ("metafa.own_terms", "metafa.rule"):
        monkeypatch.setattr(sys.modules[f"plastic_{module}"], "TERMS", rule.TERMS)
    yield folder
    sys.modules.pop("my_terms", None)


def command(*options):
    return ["train", "metafa", "--json", "--dataset", "../data", *SMALL, "--test-episodes", 3, *options]


def trained(*options):
    outcome = plastic(*command(*options))
    assert outcome.code == 0, outcome.err
    return Path(outcome.results[0]["folder"])


def in_the_shell(*words):
    done = run_plastic(*words, PYTHONSAFEPATH="1")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_an_own_term_of_the_working_directory_is_learned_and_evaluated_in_the_shell(here):
    result = in_the_shell(*command("--terms", "0,my_terms:hebb"))
    assert result["metrics"]["train/theta_my_terms:hebb"] != 0
    assert in_the_shell("eval", "metafa", "--episodes", 2, "--json")["run"] == result["run"]


def test_a_run_with_an_own_term_opens_again(here):
    folder = trained("--terms", "0,my_terms:hebb")
    text = (folder / "artifacts/theta.toml").read_text()
    assert list(tomllib.loads(text)["theta"]) == ["pseudo-gradient", "my_terms:hebb"]
    assert "# Hebb: y_l y_{l-1}^T." in text
    record = json.loads((folder / "run.json").read_text())
    assert record["config"]["terms"] == [0, "my_terms:hebb"]
    assert record["versions"]["my_terms"].startswith("sha256 ")
    again = trained("--theta", folder / "artifacts/theta.toml")
    assert list(read_theta(again / "artifacts/theta.toml").theta) == [0, "my_terms:hebb"]
    for words in (["eval", "metafa"], ["analyze", "metafa", "--terms"]):
        assert plastic(*words, "--episodes", 2, "--run", folder.name).code == 0
    assert pd.read_csv(folder / "tables/terms.csv")["term"].tolist() == ["0", "my_terms:hebb"]

    (here / "my_terms.py").rename(here / "moved.py")
    sys.modules.pop("my_terms")
    closed = plastic("eval", "metafa", "--episodes", 2)
    assert closed.code == 2
    assert closed.err.strip().splitlines()[-1] == (
        "error: --terms my_terms:hebb: there is no module my_terms to import. Start plastic in the folder that contains"
        " my_terms, or add this folder to PYTHONPATH."
    )
    # What needs only the stored numbers works without the module.
    rule.TERMS.pop("my_terms:hebb")
    for words in (["analyze", "metafa", "--theta"], ["render", "metafa", "--frames", 2]):
        assert plastic(*words, "--run", folder.name).code == 0
    assert pd.read_csv(folder / "tables/theta.csv")["name"].tolist() == ["0 pseudo-gradient", "my_terms:hebb"]


def test_an_own_copy_of_a_published_term_does_the_same(here):
    run, accuracies = trained("--terms", "0").name, []
    for term in ("0", '"my_terms:gradient"'):
        (here / "theta.toml").write_text(f"[theta]\n{term} = 0.02\n")
        outcome = plastic("eval", "metafa", "--json", "--episodes", 5, "--run", run, "--theta", "theta.toml")
        accuracies.append(outcome.results[0]["metrics"]["learned/accuracy"])
    assert accuracies[0] == accuracies[1] != outcome.results[0]["metrics"]["no learning/accuracy"]


def test_a_run_from_python_is_the_run_of_the_shell(here):
    sys.path.append(str(here))
    import my_terms

    data = str(here.parent / "data")
    sizes = {"hidden": [6], "episodes": 3, "ways": 3, "held_out_classes": 0, "shots": 4, "queries": 3}
    options = {"dataset": data, **sizes, "test_episodes": 3, "quiet": True}
    by_name = plastic_cli.train("metafa", terms=[0, "my_terms:hebb"], **options)
    by_function = plastic_cli.train("metafa", terms=[0, my_terms.hebb], **options)
    shell = trained("--terms", "0,my_terms:hebb", "--dataset", data)
    for run in (by_name, by_function):
        assert run.config["terms"] == [0, "my_terms:hebb"]
        pd.testing.assert_frame_equal(training_numbers(run.folder), training_numbers(shell))
    assert network(open_run(shell, stage="analyze")).plasticity.terms == (0, "my_terms:hebb")


def test_the_network_of_a_run_with_an_own_term_adapts(here):
    loaded = network(open_run(trained("--terms", "0,my_terms:hebb"), stage="analyze"))
    before = loaded.W[0].clone()
    loaded.adapt(torch.rand(4, 36), torch.tensor([0, 1, 2, 0]))
    assert not torch.equal(loaded.W[0], before)


def test_the_strength_of_an_own_term_has_a_name_for_readers():
    assert metric_of("train/theta_my_terms:hebb", "metafa").name == "theta my_terms:hebb"
    assert metric_of("train/theta_10", "metafa").name == "theta 10"


def test_terms_are_sorted_and_read_again():
    config = Train.from_values({"terms": "z.y:x,oja,a:b,0,a:b"})
    assert config.terms == (0, 9, "a:b", "z.y:x")
    assert Train.from_values(config.model_dump(mode="json")) == config
    assert term_key("My.Module:Term") == "My.Module:Term"


def test_a_term_is_loaded_as_it_is_now(here):
    assert load_terms((0, "my_terms:hebb", "my_terms:named")).keys() == {"my_terms"}
    assert rule.TERMS["my_terms:named"].name == "my_terms:named"
    W, y_pre, y_post = torch.rand(2, 3), torch.rand(3), torch.rand(2)
    for key in ("my_terms:hebb", "my_terms:named"):
        change = rule.plasticity_update(W, y_pre, y_post, y_pre, y_post, torch.tensor([2.0]), (key,))
        np.testing.assert_allclose(change, 2 * torch.outer(y_post, y_pre))
    sys.modules["my_terms"].hebb = lambda W, *others: -W
    load_terms(["my_terms:hebb"])
    assert torch.equal(rule.TERMS["my_terms:hebb"].expression(W, y_pre, y_post, y_pre, y_post), -W)


@pytest.mark.parametrize(
    ("term", "complaint"),
    [
        ("nowhere:hebb", "there is no module nowhere to import"),
        ("my_terms:heb", r"the module my_terms \(.*my_terms\.py\) has no heb\. Did you mean 'hebb'"),
        ("my_terms:word", "it is a str. A term is a function"),
        ("my_terms:number", r"it returned a float for W \(3, 5\); the change has the shape of W"),
        ("my_terms:transposed", r"it returned a tensor \(5, 3\) for W \(3, 5\)"),
        ("my_terms:few", r"it failed with TypeError: .*It is called with W, y_pre, y_post, e_pre, e_post"),
        ("broken:hebb", "the module broken cannot be imported: ZeroDivisionError"),
        ("needy:hebb", "the module needy needs a_library_that_nobody_has, which is not installed"),
    ],
)
def test_a_term_that_cannot_be_used_is_an_error_of_one_line(term, complaint, here):
    (here / "broken.py").write_text("1 / 0\n")
    (here / "needy.py").write_text("import a_library_that_nobody_has\n")
    with pytest.raises(UserError, match=f"--terms {term}: {complaint}") as raised:
        load_terms([term])
    assert "\n" not in str(raised.value)
    outcome = plastic(*command("--terms", f"0,{term}"))
    assert (outcome.code, outcome.err.strip().splitlines()[-1]) == (2, f"error: {raised.value}")


@pytest.mark.parametrize(
    ("term", "complaint"),
    [
        ("./my_terms.py:hebb", "write my_terms:hebb, without a path and without .py"),
        ("my_terms:", "TERM is the name of a function"),
        (":hebb", "an empty text is not the name of a module"),
        (lambda W, *others: W, "the name of a function at the top level of MODULE"),
        ("hebbb", "MODULE:TERM is a term of your own"),
    ],
)
def test_a_wrong_name_is_refused_before_a_run_exists(term, complaint):
    with pytest.raises(UserError, match=complaint):
        Train.from_values({"terms": [0, term]})
