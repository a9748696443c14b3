"""`plastic analyze metafa`: theta, accuracy, angles and E_W over the episodes, and what each term is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from plastic_cli.data.datasets import load_dataset
from plastic_cli.statistics.intervals import mean_interval
from plastic_metafa import figures, rule
from plastic_metafa.adaptation import Plasticity
from plastic_metafa.evaluation import learned_rule, trained_as
from plastic_metafa.history import SETTLED, history, moving_average, strengths
from plastic_metafa.meta_learning import LOST, Bench, setting_of
from plastic_metafa.shares import change_by_term

if TYPE_CHECKING:
    from plastic_cli import Run
    from plastic_metafa.commands import Analyze, Train
    from plastic_metafa.theta_file import LearnedRule


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
    theta = strengths(history(run))
    theta["name"] = [f"{term} {rule.TERMS[term].name}" for term in theta["term"]]
    last = theta[theta["step"] > theta["step"].max() * (1 - SETTLED)]
    table = last.groupby(["term", "name"])["value"].agg(["mean", "std"]).reset_index()
    for term, mean in zip(table["term"], table["mean"], strict=True):
        run.results[f"theta_{term}"] = float(mean)
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
    last = chosen[chosen["step"] == chosen["step"].max()]
    for layer, value in zip(last["layer"], last["value"], strict=True):
        run.results[f"layer {int(layer)}/E_W"] = float(value)
    run.save_table("orthonormality", chosen)
    run.save_figure("orthonormality", figures.orthonormality_figure(chosen, window))


def measure_terms(trained: Train, run: Run, episodes: int) -> None:
    """Measure each term's share of the weight change, and the accuracy of the rule without it."""
    learned = learned_rule(run)
    data = load_dataset(trained.dataset, run.data_folder, device=run.device)
    setting = setting_of(trained, data, run)
    bench = Bench(setting, setting.test, episodes, run, "terms")
    shares = change_by_term(bench, learned)
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
                "share": shares[term] / (sum(shares.values()) or 1.0),
                "needed": -interval.mean >= LOST,
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
    plasticity = Plasticity(tuple(learned.theta), learned.feedback)
    return bench.measure(torch.tensor(strengths, dtype=torch.float64), plasticity)[0].double().numpy()
