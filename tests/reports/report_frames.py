"""Frames as a store of runs gives them, made up."""

import numpy as np
import pandas as pd

CLAIMS = """
[[claim]]
id = "GR-02"
statement = "16 perturbations, k .5"
metric = "test/accuracy"
value = 0.9283
tolerance = 0.005
tolerance_reason = "one published seed"
source = "configs.md, Run 1"
url = "https://example.org"
evidence = "V"
conditions = { dataset = "mnist", hidden = [256], perturbations = 16, k = 0.5 }

[[claim]]
id = "GR-06"
statement = "128 perturbations, ReLU"
metric = "test/accuracy"
value = 0.9445
tolerance = 0.005
tolerance_reason = "one published seed"
source = "configs.md, Run 5"
evidence = "V"
conditions = { dataset = "mnist", perturbations = 128, activation = "relu" }

[[claim]]
id = "GR-99"
statement = "from memory"
metric = "test/accuracy"
value = 0.99
tolerance = 0.005
tolerance_reason = "none"
source = "memory"
evidence = "R"

[[context]]
id = "GR-21"
statement = "Forward gradient, activity noise"
metric = "test/error"
value = 0.0324
source = "Ren et al. 2023, Table 3"
doi = "10.0000/example"
evidence = "V"
conditions = { dataset = "mnist" }
"""


def run_row(number, *, rule="grlu", dataset="mnist", seed=0, accuracy=None, loss=None, seconds=10.0, **config):
    started = pd.Timestamp("2026-01-01", tz="UTC") + pd.Timedelta(minutes=number)
    row = {
        "run": f"r{number:05d}",
        "name": None,
        "rule": rule,
        "verb": "train",
        "status": "completed",
        "seed": seed,
        "dataset": dataset,
        "created": started,
        "started": started,
        "finished": started + pd.Timedelta(seconds=2 * seconds),
        "seconds": 2 * seconds,
        "training_seconds": seconds,
        "folder": f"runs/r{number:05d}",
        "version": "0.1.0",
        "host": "here",
        "error": None,
        "config.seed": seed,
        "config.dataset": dataset,
        "config.device": "auto",
        **{f"config.{name}": value for name, value in config.items()},
    }
    if accuracy is not None:
        row["test/accuracy"] = accuracy
    if loss is not None:
        row["test/loss"] = loss
    return row


def grlu_experiments(seeds=5, datasets=("mnist",)):
    """Runs of five settings with `seeds` seeds each, and their learning curves."""
    random = np.random.default_rng(7)
    settings = [
        ({"perturbations": 1, "activation": "top-k", "k": 0.5}, 0.896),
        ({"perturbations": 16, "activation": "top-k", "k": 0.25}, 0.925),
        ({"perturbations": 16, "activation": "top-k", "k": 0.5}, 0.928),
        ({"perturbations": 128, "activation": "relu", "k": None}, 0.9335),
    ]
    rows, curves = [], []
    cases = [("grlu", setting, level) for setting, level in settings] + [("backprop", {}, 0.978)]
    for dataset in datasets:
        for rule, setting, level in cases:
            for seed in range(seeds):
                final = level - (0.12 if dataset == "fashion" else 0.0) + random.normal(0, 0.0015)
                config = {"hidden": [256], "epochs": 10, "batch_size": 1, "skip": False, **setting}
                row = run_row(len(rows), rule=rule, dataset=dataset, seed=seed, accuracy=final, loss=2 * (1 - final),
                              seconds=random.uniform(40, 45), **config)  # fmt: skip
                rows.append(row)
                for epoch in range(1, 11):
                    value = final - 0.25 * np.exp(-epoch / 2) + random.normal(0, 0.002)
                    for metric, logged in (("accuracy", value), ("loss", 2 * (1 - value))):
                        curves.append(
                            {"run": row["run"], "stage": "train", "split": "test", "step": epoch, "metric": metric,
                             "value": logged, "labels": None, "time": 0.0}
                        )  # fmt: skip
    return pd.DataFrame(rows), pd.DataFrame(curves)
