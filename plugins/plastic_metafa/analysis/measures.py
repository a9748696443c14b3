"""`plastic analyze metafa`: theta, accuracy, angles and E_W over the episodes, and the value of each term."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from plastic_cli.data.datasets import load_dataset
from plastic_cli.statistics.intervals import mean_interval
from plastic_metafa import rule
from plastic_metafa.adaptation import Plasticity, adapt_step, feedback_errors
from plastic_metafa.analysis import figures
from plastic_metafa.benchmark import MIN_ACCURACY_DROP, EpisodeBenchmark
from plastic_metafa.config import trained_as
from plastic_metafa.history import FINAL_SHARE, history, moving_average, strengths
from plastic_metafa.own_terms import load_terms
from plastic_metafa.setting import training_setting
from plastic_metafa.theta_file import learned_rule

if TYPE_CHECKING:
    from plastic_cli import Run
    from plastic_metafa.config import Analyze, Train
    from plastic_metafa.theta_file import LearnedRule, TermKey

CONTRIBUTION_EPISODES = 3
"""Episodes whose weight changes are split into terms, one sample at a time and in whole tensors."""


def analyze_rule(config: Analyze, run: Run) -> None:
    """Write tables and figures of the chosen analyses, of all if none is chosen."""
    trained = trained_as(run)
    analyses = {
        "accuracy": lambda: analyze_accuracy(run, config.window),
        "theta": lambda: analyze_theta(trained, run),
        "angles": lambda: analyze_angles(trained, run, config.window),
        "orthonormality": lambda: analyze_orthonormality(run, config.window),
        "terms": lambda: analyze_terms(trained, run, config.episodes),
    }
    chosen = [name for name in analyses if getattr(config, name)] or list(analyses)
    for name in chosen:
        analyses[name]()


def analyze_accuracy(run: Run, window: int) -> None:
    """Draw accuracy and loss as moving averages, with chance and the test accuracy of the controls."""
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


def analyze_theta(trained: Train, run: Run) -> None:
    """Draw theta over the episodes, and write its final values: mean and spread of the last tenth."""
    theta = strengths(history(run))
    theta["name"] = [rule.term_label(term) for term in theta["term"]]
    last = theta[theta["step"] > theta["step"].max() * (1 - FINAL_SHARE)]
    table = last.groupby(["term", "name"], sort=False)["value"].agg(["mean", "std"]).reset_index()
    for term, mean in zip(table["term"], table["mean"], strict=True):
        run.results[f"theta_{term}"] = float(mean)
    run.save_table("theta", table)
    run.save_figure("theta", figures.theta_figure(theta, table, trained.l1))


def analyze_angles(trained: Train, run: Run, window: int) -> None:
    """Draw the angles between errors by this feedback and by backprop: of the mean over queries, and of each query."""
    if trained.feedback == "symmetric":
        run.message("with symmetric feedback the errors are those of backprop: there are no angles to show")
        return
    curves = history(run)
    chosen = moving_average(curves[curves["metric"].isin(["angle", "angle_by_sample"])], window, ["metric", "layer"])
    last = chosen[chosen["step"] == chosen["step"].max()]
    for metric, layer, value in last[["metric", "layer", "value"]].itertuples(index=False):
        run.results[f"layer {int(layer)}/{metric}"] = float(value)
    run.save_table("angles", chosen)
    run.save_figure("angles", figures.angles_figure(chosen, window))


def analyze_orthonormality(run: Run, window: int) -> None:
    """Draw E_W of each layer after adaptation, over the episodes."""
    curves = history(run)
    chosen = moving_average(curves[curves["metric"] == "orthonormality"], window, ["layer"])
    last = chosen[chosen["step"] == chosen["step"].max()]
    for layer, value in zip(last["layer"], last["value"], strict=True):
        run.results[f"layer {int(layer)}/E_W"] = float(value)
    run.save_table("orthonormality", chosen)
    run.save_figure("orthonormality", figures.orthonormality_figure(chosen, window))


def analyze_terms(trained: Train, run: Run, episodes: int) -> None:
    """Measure the contribution of each term to the weight change, and the accuracy without the term."""
    learned = learned_rule(run)
    load_terms(learned.theta)
    data = load_dataset(trained.dataset, run.data_folder, device=run.device)
    setting = training_setting(trained, data, run)
    bench = EpisodeBenchmark(setting, setting.test, episodes, run, "terms")
    contributions = change_by_term(bench, learned)
    whole = _accuracies(bench, learned, None)
    rows: list[dict[str, Any]] = []
    for term, strength in learned.theta.items():
        without = _accuracies(bench, learned, term)
        interval = mean_interval(without - whole)
        rows.append(
            {
                "term": term,
                "name": rule.TERMS[term].name,
                "theta": strength,
                "share": contributions[term] / (sum(contributions.values()) or 1.0),
                "needed": -interval.mean >= MIN_ACCURACY_DROP,
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


def _accuracies(
    bench: EpisodeBenchmark, learned: LearnedRule, without: TermKey | None
) -> np.ndarray[Any, np.dtype[np.float64]]:
    values = [0.0 if term == without else value for term, value in learned.theta.items()]
    plasticity = Plasticity(tuple(learned.theta), learned.feedback)
    return bench.measure(torch.tensor(values, dtype=torch.float64), plasticity)[0].double().numpy()


@torch.no_grad()
def change_by_term(bench: EpisodeBenchmark, learned: LearnedRule) -> dict[TermKey, float]:
    """Return for each term the mean size of its change per sample, |theta_r F_r|, summed over layers."""
    plasticity = Plasticity(tuple(learned.theta), learned.feedback)
    theta = torch.tensor(list(learned.theta.values()), dtype=torch.float32, device=bench.device)
    found: dict[TermKey, float] = dict.fromkeys(learned.theta, 0.0)
    for number in range(min(CONTRIBUTION_EPISODES, len(bench.episodes))):
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
    e = feedback_errors(W, B, learned.feedback, y, target)
    layers = range(len(W))
    norms = [
        torch.stack([rule.TERMS[term].expression(W[n], y[n], y[n + 1], e[n], e[n + 1]).norm() for n in layers]).sum()
        for term in learned.theta
    ]
    return torch.stack(norms).cpu()
