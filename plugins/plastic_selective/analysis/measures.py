"""`plastic analyze selective`: each analysis measures, logs, and writes tables and figures."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from plastic_cli import Run, UserError
from plastic_cli.analysis import continual
from plastic_cli.classifier.analyze import analyze_classifier, check_other_run
from plastic_cli.classifier.data import trained_on
from plastic_cli.runs.folder import open_run
from plastic_cli.runs.store import RunStore
from plastic_selective.analysis import figures
from plastic_selective.analysis.overlap import (
    BUSIEST,
    carried_over,
    chance_among_active,
    shared_share,
)
from plastic_selective.config import Train
from plastic_selective.continual.accuracy import summary_of
from plastic_selective.continual.components import build, steps_of_tasks, stream_of
from plastic_selective.continual.history import (
    History,
    read_history,
    require_eligibility,
    snapshots,
)
from plastic_selective.continual.snapshots import kept_artifacts
from plastic_selective.continual.training import train_unlogged

if TYPE_CHECKING:
    from plastic_cli.classifier.learner import Build
    from plastic_selective.config import Analyze


def analyze_run(config: Analyze, run: Run) -> None:
    """Carry out the chosen analyses of a run. Without a choice: forgetting, and of selective plasticity its traces.

    Raises UserError, before anything is measured, if the run does not have the data for a chosen analysis.
    """
    history = read_history(run)
    joint = None if config.joint is None else _joint_history(config.joint, history)
    if config.other is not None:
        check_other_run(run, config.other)
    analyses: dict[str, tuple[bool, Callable[[], None]]] = {
        "--forgetting": (config.forgetting or joint is not None, lambda: analyze_forgetting(history, joint)),
        "--eligibility": (config.eligibility, lambda: analyze_distribution(history, "eligibility")),
        "--gates": (config.gates, lambda: analyze_distribution(history, "gate")),
        "--overlap": (config.overlap, lambda: analyze_overlap(history)),
        "--sweep-k": (config.sweep_k, lambda: analyze_strengths(history, config.k)),
    }
    shared = [
        f"--{name}"
        for name in ("confusion", "sparsity", "probe", "robustness", "cka", "other", "angles")
        if getattr(config, name) not in (False, None)
    ]
    chosen = [switch for switch, (wanted, _) in analyses.items() if wanted]
    for switch in chosen:
        if switch != "--forgetting":
            require_eligibility(history, switch)
    if shared:
        _require_classes(history, shared[0])
    if not chosen and not shared:
        chosen = ["--forgetting"]
        if history.config.optimizer == "selective":
            chosen += ["--eligibility", "--gates"]
    for switch in chosen:
        analyses[switch][1]()
    if shared:
        # The shared analyses call only `predict` and `features` of a Learner.
        analyze_classifier(config, run, cast("Build", build), others_chosen=bool(chosen))


# ------------------------------------------------------------------------------------------------------- forgetting


def analyze_forgetting(history: History, joint: History | None = None) -> None:
    """Write the accuracy matrix, the accuracies over time, and transfer and forgetting by task.

    joint: a run of joint training, with which intransigence is measured.
    """
    run, learned = history.run, history.learned
    run.log("test", None, **summary_of(history.matrix, learned))
    table = forgetting_table(history.matrix, learned, None if joint is None else joint.matrix)
    if joint is not None:
        for row in table.dropna(subset=["intransigence"]).to_dict("records"):
            run.log("test", {"task": row["task"], "joint": joint.run.id}, intransigence=row["intransigence"])
            run.results[f"test/intransigence_task_{row['task']}"] = row["intransigence"]
        run.save_figure("intransigence", figures.intransigence_figure(history, table))
    run.save_table("forgetting", table)
    run.save_figure("accuracy_matrix", figures.matrix_figure(history))
    run.save_figure("accuracy_curves", figures.curves_figure(history))


def forgetting_table(
    matrix: NDArray[np.float64], learned: int, joint: NDArray[np.float64] | None = None
) -> pd.DataFrame:
    """Return accuracy, transfer and forgetting of each learned task. `joint` adds the intransigence.

    joint: the accuracy matrix of joint training. Columns: task (from 1); the accuracies untrained, before (just before
    the task was learned), learned (just after), best (before the last task) and final; and forward_transfer,
    backward_transfer and forgetting, whose means `plastic_cli.analysis.continual` computes; nan if not defined.
    """
    rows = []
    for task in range(1, learned + 1):
        column = matrix[:, task - 1]
        earlier = task < learned
        best = float(np.nanmax(column[1:learned])) if earlier else math.nan
        row = {
            "task": task,
            "untrained": column[0],
            "before": column[task - 1],
            "learned": column[task],
            "best": best,
            "final": column[learned],
            "forward_transfer": column[task - 1] - column[0] if task > 1 else math.nan,
            "backward_transfer": column[learned] - column[task] if earlier else math.nan,
            "forgetting": best - column[learned],
        }
        if joint is not None:
            row["joint"] = joint[task, task - 1]
            row["intransigence"] = continual.intransigence(matrix, joint, task)
        rows.append(row)
    return pd.DataFrame(rows)


SAME_STREAM = ("stream", "scenario", "tasks", "class_order", "shuffle_classes", "max_degrees")
"""The options that define the tasks, together with the data set."""


def _joint_history(name: str, history: History) -> History:
    """Open the run of --joint. Raises UserError if it is not joint training on the same tasks."""
    folder = RunStore(history.run.folder.parent).find(name)
    other = open_run(folder, stage="analyze", data_folder=history.run.data_folder)
    if other.record.rule != history.run.record.rule or not other.config.get("joint"):
        raise UserError(f"--joint {name}: that run did not use joint training. Train a run with --joint.")
    joint = read_history(other)
    this, that = history.run.record, other.record
    if this.data.get("checksum") != that.data.get("checksum"):
        raise UserError(f"--joint {name}: that run used {that.dataset}, this run used {this.dataset}.")
    for option in SAME_STREAM:
        if getattr(joint.config, option) != getattr(history.config, option):
            raise UserError(f"--joint {name}: that run has other tasks: its --{option.replace('_', '-')} differs.")
    drawn = history.config.stream == "permuted" or history.config.shuffle_classes
    if drawn and other.seed != history.run.seed:
        raise UserError(
            f"--joint {name}: the tasks of that run come from seed {other.seed}, those of this run from"
            f" {history.run.seed}."
        )
    return joint


# ------------------------------------------------------------------------------------------------ eligibility, gates


def analyze_distribution(history: History, quantity: str) -> None:
    """Write the distribution of "eligibility" or "gate" in each layer after each round."""
    histogram, means = distribution_tables(history, quantity)
    run = history.run
    for row in means[means["step"] == means["step"].max()].to_dict("records"):
        for name in (column for column in means.columns if column.startswith(quantity)):
            run.log("train", {"layer": row["layer"]}, **{name: row[name]})
            run.results[f"layer {row['layer']}/{name}"] = row[name]
    run.save_table(f"{quantity}_means", means)
    run.save_table(f"{quantity}_histograms", histogram)
    run.save_figure(f"{quantity}_history", figures.distribution_figure(history, histogram, means, quantity))
    run.save_figure(f"{quantity}_histogram", figures.histogram_figure(history, histogram, quantity))


def distribution_tables(history: History, quantity: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the histograms and the means of a quantity after each round, by layer.

    Columns of both: step, task (from 1), layer (from 1), layer_name. Histograms also have low and high, the ends of a
    bin, count, and synapses, the number in the layer. Means also have eligibility_mean, or gate_mean and
    gate_low_ratio, the share of gates below one half.
    """
    parts, means = [], []
    for snapshot in snapshots(history):
        for number, layer in enumerate(snapshot["layers"], start=1):
            counts = layer[f"{quantity}_counts"].numpy()
            synapses, inputs = int(counts.sum()), layer[quantity].shape[1]
            where = {
                "step": int(snapshot["epoch"]),
                "task": int(snapshot["task"]),
                "layer": number,
                "layer_name": f"{inputs} to {synapses // inputs} units",
            }
            edges = np.linspace(0, 1, len(counts) + 1)
            parts.append(
                pd.DataFrame({**where, "low": edges[:-1], "high": edges[1:], "count": counts, "synapses": synapses})
            )
            names = [f"{quantity}_mean"] + ["gate_low_ratio"] * (quantity == "gate")
            means.append({**where, **{name: float(layer[name]) for name in names}})
    return pd.concat(parts, ignore_index=True), pd.DataFrame(means)


# ---------------------------------------------------------------------------------------------------------- overlap


def analyze_overlap(history: History) -> None:
    """Write the share of busiest synapses that each pair of tasks has in common."""
    table = overlap_table(history)
    run = history.run
    for row in table.to_dict("records"):
        labels = {"layer": row["layer"], "task": row["task"], "other task": row["other_task"]}
        run.log("train", labels, overlap=row["shared"], overlap_by_chance=row["chance"])
    for layer, rows in table.groupby("layer"):
        run.results[f"layer {layer}/overlap"] = float(rows["shared"].mean())
    run.save_table("overlap", table)
    run.save_figure("overlap", figures.overlap_figure(history, table))


def overlap_table(history: History) -> pd.DataFrame:
    """Return the overlap of each pair of tasks in each layer, from the eligibility at the end of each task.

    Columns: layer (from 1), layer_name, task < other_task (from 1); shared, chance and chance_active as in
    `overlap.py`; carried_over: the share of the later task's eligibility that comes from the earlier task and those
    before it, as a share of the weights of the gradients (of their squares, with base "adam").
    """
    run, config = history.run, history.config
    if history.learned < 2:
        raise UserError(f"--overlap: run {run.id} completed only 1 task, but the overlap needs at least two.")
    names = kept_artifacts(run, "eligibility", range(1, history.learned + 1))
    kept = [run.load_tensors(name)["layers"] for name in names]
    decay = config.second_moment_decay if config.base == "adam" else config.trace_decay
    steps = steps_of_tasks(config, stream_of(config, trained_on(run), run.seed))
    rows = []
    for layer, name in enumerate(kept[0], start=1):
        outputs, inputs = kept[0][name].shape
        for first, second in itertools.combinations(range(len(kept)), 2):
            pair = kept[first][name], kept[second][name]
            rows.append(
                {
                    "layer": layer,
                    "layer_name": f"{inputs} to {outputs} units",
                    "task": first + 1,
                    "other_task": second + 1,
                    "shared": shared_share(*pair),
                    "chance": BUSIEST,
                    "chance_active": chance_among_active(*pair),
                    "carried_over": carried_over(decay, steps, first + 1, second + 1),
                }
            )
    return pd.DataFrame(rows)


# ---------------------------------------------------------------------------------------------------------- sweep k


def analyze_strengths(history: History, strengths: tuple[float, ...]) -> None:
    """Train on the same stream with other strengths of the gate, in memory, and write the results."""
    run = history.run
    table = sweep_k(history, strengths)
    for row in table.to_dict("records"):
        numbers = {name: row[name] for name in ("accuracy", "backward_transfer", "forgetting")}
        run.log("test", {"plasticity_k": row["k"]}, **numbers)
        run.results |= {f"k={row['k']:g}/{name}": value for name, value in numbers.items()}
    run.save_table("sweep_k", table)
    run.save_figure("sweep_k", figures.sweep_figure(history, table))


def sweep_k(history: History, strengths: tuple[float, ...]) -> pd.DataFrame:
    """Train on the stream with each strength of the gate, from the run's seed. k = 0, the base only, is always added.

    Columns: k, accuracy (mean over tasks at the end), forgetting, backward_transfer, forward_transfer,
    accuracy_task_1, accuracy_task_2, ... Raises UserError, before training, if a strength is out of range.
    """
    run = history.run
    source = f"run {run.id}"
    swept = [Train.from_values({**run.config, "plasticity_k": k}, source) for k in sorted({0.0, *strengths})]
    data = trained_on(run)
    total = len(swept) * history.tasks * history.rounds
    rows = []
    with run.console.progress("round", total, 0) as bar:
        done = itertools.count(1)
        for config in swept:
            k = config.plasticity_k
            matrix = train_unlogged(config, data, run, lambda: bar.end_step(next(done), {}))
            numbers = summary_of(matrix, history.tasks)
            rows.append({"k": k, **numbers})
            run.message(f"k = {k:g}: accuracy {numbers['accuracy']:.4f}, forgetting {numbers['forgetting']:.4f}")
    return pd.DataFrame(rows)


# --------------------------------------------------------------------------------------------- the shared analyses


def _require_classes(history: History, switch: str) -> None:
    """Raise UserError if the outputs of the network are not the classes of the data set, which `switch` needs."""
    config = history.config
    plain = (config.scenario == "class") if config.stream == "split" else (config.scenario == "domain")
    if not plain:
        raise UserError(
            f"{switch}: the outputs of run {history.run.id} ({config.stream}, {config.scenario}-incremental) are not"
            f" the classes of the data set. Use {switch} with split class-incremental runs and with permuted or rotated"
            " domain-incremental runs."
        )
    if config.stream != "split":
        history.run.message(f"{switch} measures on the original images, which are task 1")
