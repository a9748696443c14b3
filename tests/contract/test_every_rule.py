"""Every installed rule keeps the contract, with options small enough for seconds."""

from __future__ import annotations

import pytest

from plastic_cli.classifier import fit
from plastic_cli.plugins.discovery import discover
from plastic_cli.plugins.metrics import metric_of
from plastic_cli.runs.store import RunStore
from plastic_cli.testing import check_rule

SMALL = {
    "backprop": {"hidden": [8], "epochs": 3},
    "eglp": {"hidden": [8, 6], "epochs": 3, "batch_size": 16, "event_warmup": 5},
    "grlu": {"hidden": [8], "epochs": 3, "perturbations": 2},
    "metafa": {
        "hidden": [8, 6],
        "episodes": 3,
        "ways": 3,
        "held_out_classes": 0,
        "shots": 5,
        "queries": 3,
        "test_episodes": 3,
    },
    "mpn": {"num_episodes": 3, "hidden_dim": 4, "batch_size": 8, "max_episode_steps": 20, "test_episodes": 3},
    "selective": {"hidden": [8], "epochs": 2, "batch_size": 16},
}
"""By rule; one that is not named here is checked with its defaults and three epochs."""


@pytest.mark.parametrize("name", list(discover().rules))
def test_rule_keeps_the_contract(name, tmp_path):
    check_rule(name, tmp_path, SMALL.get(name, {"epochs": 3}))
    logged = RunStore(tmp_path / "runs").metrics()[["split", "metric"]].drop_duplicates().itertuples(index=False)
    keys = [f"{split}/{metric}" for split, metric in logged]
    assert keys
    assert [key for key in keys if metric_of(key, name).name == key] == [], "these metrics have no name for a reader"


@pytest.mark.parametrize("marked", [False, True])
def test_a_number_from_test_images_that_counts_as_training_data_breaks_the_contract(marked, tmp_path, monkeypatch):
    measure = fit._log_splits

    def leaking(learner, splits, run):
        measure(learner, splits, run)
        run.log("train", None, "test" if marked else None, leak=splits["test"].x.sum())

    monkeypatch.setattr(fit, "_log_splits", leaking)
    if marked:
        check_rule("backprop", tmp_path, SMALL["backprop"])
    else:
        with pytest.raises(AssertionError, match=r"train/leak: they depend on test images"):
            check_rule("backprop", tmp_path, SMALL["backprop"])
