"""`plastic eval metafa`: fresh networks with a learned theta, compared with backprop and feedback alignment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor

from plastic_cli import UserError
from plastic_cli.data.datasets import Dataset, load_dataset
from plastic_cli.statistics.intervals import interval_method, mean_interval
from plastic_metafa.adaptation import Plasticity
from plastic_metafa.benchmark import CONTROLS, TUNING_EPISODES, EpisodeBenchmark, best_rate
from plastic_metafa.config import trained_as
from plastic_metafa.own_terms import load_terms
from plastic_metafa.setting import Classes, Setting, make_setting, split_classes
from plastic_metafa.theta_file import learned_rule, read_theta

if TYPE_CHECKING:
    from plastic_cli import Run
    from plastic_metafa.config import Evaluate, Train

NAMES = {"control": "feedback alignment", "backprop": "backprop"}
"""The name of each control, by the split under which training logs it."""


def evaluate_rule(config: Evaluate, run: Run) -> None:
    """Log the accuracy of the learned rule and of its controls over episodes, with intervals.

    The rates of the controls are chosen on other images, in episodes of the same kind. Raises UserError if the options
    do not fit the data.
    """
    trained = trained_as(run)
    learned = learned_rule(run) if config.theta is None else read_theta(config.theta)
    load_terms(learned.theta)
    plasticity = Plasticity(tuple(learned.theta), learned.feedback)
    theta = torch.tensor(list(learned.theta.values()), dtype=torch.float64)
    setting, labels = evaluated_setting(config, trained, run)
    bench = EpisodeBenchmark(setting, setting.test, config.episodes, run, "evaluation")
    tuning = EpisodeBenchmark(setting, setting.train, TUNING_EPISODES, run, "evaluation tuning")
    measured: list[tuple[str, float | None, tuple[Tensor, Tensor]]] = [
        ("learned", None, bench.measure(theta, plasticity)),
        ("no learning", None, bench.measure(torch.zeros_like(theta), plasticity)),
    ]
    for split, feedback in CONTROLS.items():
        best = best_rate(tuning, feedback)
        measured.append((NAMES[split], best, bench.measure_rate(best, feedback)))
    if config.theta is not None:
        labels["theta"] = config.theta.stem
    rows = []
    for name, rate, (accuracies, losses) in measured:
        interval = mean_interval(accuracies.numpy())
        run.log("test", {"rule": name, **labels}, accuracy=interval.mean, loss=float(losses.mean()))
        run.results[f"{name}/accuracy"] = interval.mean
        if interval.known:
            run.log("test", {"rule": name, **labels}, accuracy_low=interval.low, accuracy_high=interval.high)
            run.results[f"{name}/low"], run.results[f"{name}/high"] = interval.low, interval.high
        rows.append({"rule": name, "rate": rate, "accuracy": interval.mean, "low": interval.low, "high": interval.high})
    run.save_table("evaluation_" + "_".join(str(value) for value in labels.values()), pd.DataFrame(rows))
    chance = f"chance is {1 / setting.test.ways:.1%} among an episode's classes, {1 / setting.sizes[-1]:.1%} among all"
    run.message(f"{config.episodes} episodes, {chance}; {interval_method()} over episodes")


def evaluated_setting(config: Evaluate, trained: Train, run: Run) -> tuple[Setting, dict[str, str | int]]:
    """Return the setting of an evaluation, and the labels that name it in metrics and tables.

    Options that are not given are those of training. Images of another data set get the size of the trained ones.
    """
    own = config.dataset in (None, trained.dataset)
    data = load_dataset(config.dataset or trained.dataset, run.data_folder, device=run.device)
    seen, held_out = split_classes(data.classes, trained.held_out_classes if own else 0, run)
    classes = _classes(config, data, seen, held_out, own)
    given = {name: getattr(config, name) for name in ("ways", "shots", "queries", "hidden", "outputs")}
    changes = {name: value for name, value in given.items() if value is not None}
    if not own and not trained.image_size:
        changes["image_size"] = int(run.record.data["image_shape"][-1])
    chosen = trained.model_copy(update={**changes, "reference_sampling": False})
    labels: dict[str, str | int] = {
        "dataset": data.name,
        "classes": config.classes or ("held-out" if held_out else "all"),
        "ways": chosen.ways,
        "shots": chosen.shots,
        "passes": config.epochs,
        "hidden": "-".join(map(str, chosen.hidden)),
        "outputs": chosen.outputs,
    }
    return make_setting(chosen, data, classes, passes=config.epochs), labels


def _classes(config: Evaluate, data: Dataset, seen: list[int], held_out: list[int], own: bool) -> Classes:
    """Return the classes to test on, and those to choose the rates of the controls on.

    All images of held-out classes are new to the rule and to the controls. Of other classes the test split is.
    """
    requested = config.classes or ("held-out" if held_out else "all")
    if not own and requested != "all":
        raise UserError(f"--classes {requested}: training used no class of {data.name}. Choose all, or leave it out.")
    if requested == "held-out" and not held_out:
        raise UserError("--classes held-out: training held no classes out. Choose seen or all.")
    if requested == "held-out":
        return Classes(seen, held_out, unseen=True)
    return Classes(seen, seen if requested == "seen" else sorted([*seen, *held_out]), unseen=False)
