"""`plastic eval metafa`: fresh networks that adapt with a learned theta, beside backprop and feedback alignment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor

from plastic_cli import UserError
from plastic_cli.data.datasets import Dataset, Split, load_dataset
from plastic_cli.data.episodes import Episode, Episodes
from plastic_cli.statistics.intervals import interval_method, mean_interval
from plastic_metafa.adaptation import Plasticity
from plastic_metafa.commands import Train
from plastic_metafa.meta_learning import (
    CONTROLS,
    THETA_FILE,
    TUNING_EPISODES,
    Bench,
    Setting,
    as_pixels,
    best_rate,
    split_classes,
)
from plastic_metafa.theta_file import LearnedRule, read_theta

if TYPE_CHECKING:
    from plastic_cli import Run
    from plastic_metafa.commands import Evaluate

NAMES = {"control": "feedback alignment", "backprop": "backprop"}
"""What the controls are called, by the split under which training logs them."""


@dataclass(frozen=True)
class LongSetting(Setting):
    """A setting in which each episode's images are learned several times, in an order drawn anew for each."""

    passes: int = 1

    def draw(self, episodes: Episodes, generator: torch.Generator) -> Episode:
        """Draw an episode with its longer stream."""
        episode = super().draw(episodes, generator)
        if self.passes == 1:
            return episode
        count = len(episode.y)
        order = torch.cat([torch.randperm(count, generator=generator) for _ in range(self.passes)]).to(episode.y.device)
        return Episode(episode.classes, episode.x[order], episode.y[order], episode.query_x, episode.query_y)


def trained_as(run: Run) -> Train:
    """Return the configuration of a trained run."""
    return Train.from_values(run.config, source=f"run {run.id}")


def learned_rule(run: Run) -> LearnedRule:
    """Return what a run has learned."""
    return read_theta(run.folder / "artifacts" / THETA_FILE)


def evaluate_rule(config: Evaluate, run: Run) -> None:
    """Log accuracy over episodes for the learned rule and its controls, with intervals.

    Rates of the controls are chosen on other images, in episodes of the same kind. Raises UserError where what is asked
    for does not go with the data.
    """
    trained = trained_as(run)
    learned = learned_rule(run) if config.theta is None else read_theta(config.theta)
    plasticity = Plasticity(tuple(learned.theta), learned.feedback)
    theta = torch.tensor(list(learned.theta.values()), dtype=torch.float64)
    setting, where = _setting(config, trained, run)
    bench = Bench(setting, setting.test, config.episodes, run, "evaluation")
    tuning = Bench(setting, setting.train, TUNING_EPISODES, run, "evaluation tuning")
    measured: list[tuple[str, float | None, tuple[Tensor, Tensor]]] = [
        ("learned", None, bench.measure(theta, plasticity)),
        ("no learning", None, bench.measure(torch.zeros_like(theta), plasticity)),
    ]
    for split, feedback in CONTROLS.items():
        best = best_rate(tuning, feedback)
        measured.append((NAMES[split], best, bench.measure_rate(best, feedback)))
    if config.theta is not None:
        where["theta"] = config.theta.stem
    rows = []
    for name, rate, (accuracies, losses) in measured:
        interval = mean_interval(accuracies.numpy())
        labels = {"rule": name, **where}
        run.log("test", labels, accuracy=interval.mean, loss=float(losses.mean()))
        run.results[f"{name}/accuracy"] = interval.mean
        if interval.known:
            run.log("test", labels, accuracy_low=interval.low, accuracy_high=interval.high)
            run.results[f"{name}/low"], run.results[f"{name}/high"] = interval.low, interval.high
        rows.append({"rule": name, "rate": rate, "accuracy": interval.mean, "low": interval.low, "high": interval.high})
    run.save_table("evaluation_" + "_".join(str(value) for value in where.values()), pd.DataFrame(rows))
    chance = f"chance is {1 / setting.test.ways:.1%} among an episode's classes, {1 / setting.sizes[-1]:.1%} among all"
    run.message(f"{config.episodes} episodes, {chance}; {interval_method()} over episodes")


def _setting(config: Evaluate, trained: Train, run: Run) -> tuple[LongSetting, dict[str, str | int]]:
    """Return what is to be measured, and the labels that name it."""
    own = config.dataset in (None, trained.dataset)
    data = load_dataset(config.dataset or trained.dataset, run.data_folder, device=run.device)
    held_out = split_classes(data.classes, trained.held_out_classes, run) if own else (list(range(data.classes)), [])
    chosen, tuned_on, pool = _classes(config, data, held_out, own)
    ways, shots = config.ways or trained.ways, config.shots or trained.shots
    queries, hidden = config.queries or trained.queries, config.hidden or trained.hidden
    size = trained.image_size or (trained_side(run) if not own else 0)
    train, test = as_pixels(data, data.train, size), as_pixels(data, data.test, size)
    both = Split(torch.cat([train.x, test.x]), torch.cat([train.y, test.y]))
    outputs = config.outputs or trained.outputs
    setting = LongSetting(
        Episodes(train, classes=tuned_on, ways=ways, shots=shots, queries=queries, name="the training split"),
        Episodes(
            both if pool == "both" else test,
            classes=chosen,
            ways=ways,
            shots=shots,
            queries=queries,
            name="both splits together" if pool == "both" else "the test split",
        ),
        (train.x.shape[1], *hidden, data.classes if outputs == "all" else ways),
        outputs == "episode",
        passes=config.passes,
    )
    where: dict[str, str | int] = {
        "dataset": data.name,
        "classes": config.classes or ("held-out" if own and held_out[1] else "all"),
        "ways": ways,
        "shots": shots,
        "passes": config.passes,
        "hidden": "-".join(map(str, hidden)),
        "outputs": outputs,
    }
    return setting, where


def _classes(
    config: Evaluate, data: Dataset, split: tuple[list[int], list[int]], own: bool
) -> tuple[list[int], list[int], str]:
    """Return the classes to test on, those to choose the controls' rates on, and the images to test on: both or test.

    Of held-out classes every image is new to rule and controls; of others those of the test split.
    """
    seen, held_out = split
    asked = config.classes or ("held-out" if held_out else "all")
    if not own and asked != "all":
        raise UserError(f"--classes {asked}: {data.name} is new altogether. Choose all, or leave it out.")
    if asked == "held-out" and not held_out:
        raise UserError("--classes held-out: meta-learning held none out. Choose seen or all.")
    if asked == "held-out":
        return held_out, seen, "both"
    everything = sorted([*seen, *held_out])
    return seen if asked == "seen" else everything, seen, "test"


def trained_side(run: Run) -> int:
    """Return how many pixels a side the images of a run's data set have."""
    return int(run.record.data["image_shape"][-1])
