"""`plastic analyze metafa`: theta, accuracy, angles and orthonormality over the episodes, and what each term is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from plastic_cli import UserError
from plastic_cli.analysis.intervals import mean_interval
from plastic_cli.data.datasets import load_dataset
from plastic_cli.runs.store import RunStore
from plastic_metafa import figures, rule
from plastic_metafa.adaptation import Plasticity, adapt_step, feedback_errors
from plastic_metafa.evaluation import learned_rule, trained_as
from plastic_metafa.meta_learning import SETTLED, Bench, setting_of

if TYPE_CHECKING:
    from plastic_cli import Run
    from plastic_metafa.commands import Analyze, Train
    from plastic_metafa.theta_file import LearnedRule

SHARE_EPISODES = 3
"""Episodes whose changes of weights are taken apart by term: step by step, in whole tensors."""
LEFT = 0.01
"""A term counts as left where its part of the weight change is at least this share of the largest one's."""


def analyze_rule(config: Analyze, run: Run) -> None:
    """Write tables and figures of what was asked for, of everything if nothing was."""
    trained = trained_as(run)
    looks = {
        "accuracy": lambda: show_accuracy(run, config.window),
        "theta": lambda: show_theta(trained, run),
        "angles": lambda: show_angles(trained, run, config.window),
        "orthonormality": lambda: show_orthonormality(run, config.window),
        "terms": lambda: measure_terms(trained, run, config.episodes),
    }
    chosen = [name for name in looks if getattr(config, name)] or list(looks)
    for name in chosen:
        looks[name]()


def history(run: Run) -> pd.DataFrame:
    """Return what meta-learning logged for each episode: columns step, metric, value, layer (missing for the whole).

    Raises UserError where no episode was logged.
    """
    metrics = RunStore(run.folder.parent).metrics(runs=[run.id], stage="train")
    metrics = metrics[metrics["split"] == "train"]
    if metrics.empty:
        raise UserError(f"run {run.id} has no episode to show yet.")
    layers = metrics["labels"].map(lambda text: _layer(text))
    return pd.DataFrame(
        {"step": metrics["step"], "metric": metrics["metric"], "value": metrics["value"], "layer": layers}
    ).reset_index(drop=True)


def _layer(labels: Any) -> float:
    import json

    return float(json.loads(labels)["layer"]) if isinstance(labels, str) else float("nan")


def show_accuracy(run: Run, window: int) -> None:
    """Draw accuracy and loss as moving averages, beside chance and the controls of the test."""
    curves = history(run)
    curves = curves[curves["metric"].isin(["accuracy", "loss"])]
    averaged = moving_average(curves, window, ["metric"])
    summary = run.record.summary
    levels = {
        name: float(value)
        for name, key in (
            ("backprop", "backprop/accuracy"),
            ("feedback alignment", "control/accuracy"),
            ("chance among the episode's classes", "test/chance"),
        )
        if (value := summary.get(key)) is not None
    }
    run.results["last accuracy"] = float(averaged.loc[averaged["metric"] == "accuracy", "value"].iloc[-1])
    run.save_table("accuracy", averaged)
    run.save_figure("accuracy", figures.accuracy_figure(averaged, levels, window))


def show_theta(trained: Train, run: Run) -> None:
    """Draw theta over the episodes, and say where it settled: mean and spread of its last tenth."""
    curves = history(run)
    theta = curves[curves["metric"].str.startswith("theta_")].copy()
    theta["term"] = theta["metric"].str.removeprefix("theta_").astype(int)
    theta["name"] = [f"{term} {rule.TERMS[term].name}" for term in theta["term"]]
    last = theta[theta["step"] > theta["step"].max() * (1 - SETTLED)]
    table = last.groupby(["term", "name"])["value"].agg(["mean", "std"]).reset_index()
    for row in table.itertuples():
        run.results[f"theta_{row.term}"] = float(row.mean)  # type: ignore[arg-type]
    run.save_table("theta", table)
    run.save_figure("theta", figures.theta_figure(theta, table, trained.l1))


def show_angles(trained: Train, run: Run, window: int) -> None:
    """Draw the angles between errors by this feedback and by backprop, of the mean over queries and of each."""
    if trained.feedback == "symmetric":
        run.message("with symmetric feedback errors are those of backprop: there is no angle to show")
        return
    curves = history(run)
    chosen = moving_average(curves[curves["metric"].isin(["angle", "angle_by_sample"])], window, ["metric", "layer"])
    last = chosen[chosen["step"] == chosen["step"].max()]
    for metric, layer, value in last[["metric", "layer", "value"]].itertuples(index=False):
        run.results[f"layer {int(layer)}/{metric}"] = float(value)
    run.save_table("angles", chosen)
    run.save_figure("angles", figures.angles_figure(chosen, window))


def show_orthonormality(run: Run, window: int) -> None:
    """Draw E_W of each layer's weights behind adaptation over the episodes."""
    curves = history(run)
    chosen = moving_average(curves[curves["metric"] == "orthonormality"], window, ["layer"])
    for layer, part in chosen.groupby("layer"):
        run.results[f"layer {int(layer)}/E_W"] = float(part["value"].iloc[-1])  # type: ignore[call-overload]
    run.save_table("orthonormality", chosen)
    run.save_figure("orthonormality", figures.orthonormality_figure(chosen, window))


def moving_average(curves: pd.DataFrame, window: int, by: list[str]) -> pd.DataFrame:
    """Return the mean of the last `window` episodes, of fewer at the beginning; columns as in `history`."""
    ordered = curves.sort_values("step")
    means = ordered.groupby(by)["value"].transform(lambda values: values.rolling(window, min_periods=1).mean())
    return ordered.assign(value=means).reset_index(drop=True)


def measure_terms(trained: Train, run: Run, episodes: int) -> None:
    """Measure each term's share of the weight change, and the accuracy of the rule without it."""
    learned = learned_rule(run)
    data = load_dataset(trained.dataset, run.data_folder, device=run.device)
    setting = setting_of(trained, data, run)
    bench = Bench(setting, setting.test, episodes, run, "terms")
    shares = change_by_term(bench, learned)
    largest = max(shares.values())
    whole = _accuracies(bench, learned, None)
    rows = []
    for term, strength in learned.theta.items():
        without = _accuracies(bench, learned, term)
        interval = mean_interval(without - whole)
        rows.append(
            {
                "term": term,
                "name": rule.TERMS[term].name,
                "theta": strength,
                "share": shares[term] / sum(shares.values()) if largest > 0 else 0.0,
                "left": largest > 0 and shares[term] >= LEFT * largest,
                "accuracy_without": float(without.mean()),
                "difference": interval.mean,
                "low": interval.low,
                "high": interval.high,
            }
        )
    table = pd.DataFrame(rows)
    run.results["all terms/accuracy"] = float(whole.mean())
    for row in rows:
        run.results[f"without {row['name']}/accuracy"] = row["accuracy_without"]
        run.log("test", {"without": row["name"]}, accuracy=row["accuracy_without"], share=row["share"])
    run.save_table("terms", table)
    run.save_figure("terms", figures.terms_figure(table, float(whole.mean())))


def _accuracies(bench: Bench, learned: LearnedRule, without: int | None) -> np.ndarray[Any, np.dtype[np.float64]]:
    strengths = [0.0 if term == without else value for term, value in learned.theta.items()]
    plasticity = Plasticity(tuple(learned.theta), learned.feedback)  # type: ignore[arg-type]
    return bench.measure(torch.tensor(strengths, dtype=torch.float64), plasticity)[0].double().numpy()


@torch.no_grad()
def change_by_term(bench: Bench, learned: LearnedRule) -> dict[int, float]:
    """Return for each term the mean size of what it adds to the weights at a sample, |theta_r F_r|, summed over layers."""
    plasticity = Plasticity(tuple(learned.theta), learned.feedback)  # type: ignore[arg-type]
    theta = torch.tensor(list(learned.theta.values()), dtype=torch.float32, device=bench.device)
    found = dict.fromkeys(learned.theta, 0.0)
    for number in range(min(SHARE_EPISODES, len(bench.episodes))):
        W, B = bench.network(number, plasticity.feedback)
        episode = bench.episodes[number]
        targets = functional.one_hot(episode.y, W[-1].shape[0]).to(episode.x.dtype)
        sizes = torch.zeros(len(theta))
        for x, target in zip(episode.x, targets, strict=True):
            sizes += _sizes_of_terms(W, B, x, target, learned)
            W = adapt_step(W, B, x, target, theta, plasticity)
        for place, (term, strength) in enumerate(learned.theta.items()):
            found[term] += abs(strength) * float(sizes[place]) / len(episode.y)
    return found


def _sizes_of_terms(W: list[Tensor], B: list[Tensor], x: Tensor, target: Tensor, learned: LearnedRule) -> Tensor:
    """Return the norm of each term, summed over layers, (terms,)."""
    y = rule.forward(W, x)
    e = feedback_errors(W, B, learned.feedback, y, target)  # type: ignore[arg-type]
    layers = range(len(W))
    norms = [
        torch.stack([rule.TERMS[term].expression(W[n], y[n], y[n + 1], e[n], e[n + 1]).norm() for n in layers]).sum()
        for term in learned.theta
    ]
    return torch.stack(norms).cpu()


