"""`plastic eval selective`: the accuracy matrix on other data, another split or under corruptions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from plastic_cli import Run, UserError
from plastic_cli.analysis import continual
from plastic_cli.classifier.data import data_for
from plastic_cli.data.corruptions import Corruption, parse_corruption
from plastic_cli.data.streams import Stream, corrupted
from plastic_selective.continual.accuracy import accuracy_by_task, allowed_by_task, summary_of
from plastic_selective.continual.components import make_network, stream_of
from plastic_selective.continual.history import History, read_history
from plastic_selective.continual.snapshots import kept_artifacts

if TYPE_CHECKING:
    from plastic_selective.config import Evaluate


def evaluate_on_stream(config: Evaluate, run: Run) -> None:
    """Measure the accuracy matrix of the stored networks of a run, without and with each corruption.

    Of a stopped run, the completed tasks are measured. Raises UserError if no task was completed, if the data set does
    not fit, or if a stored network is missing.
    """
    history = read_history(run)
    data = data_for(run, config.dataset, validation=config.split == "validation")
    labels = {} if config.dataset in (None, run.record.dataset) else {"dataset": data.name}
    stream = stream_of(history.config, data, run.seed)
    corruptions: list[Corruption | None] = [parse_corruption(text) for text in config.corruption]
    for corruption in corruptions or [None]:
        tested = stream if corruption is None else corrupted(stream, corruption, run.seed, split=config.split)
        matrix = matrix_of_run(history, tested, config.split)
        marked = labels if corruption is None else {**labels, "corruption": str(corruption)}
        numbers = summary_of(matrix, history.learned)
        run.log(config.split, marked, **numbers)
        name = config.split if corruption is None else f"{config.split}+{corruption}"
        run.results |= {f"{name}/{metric}": value for metric, value in numbers.items()}
        suffix = "-".join(str(value).replace(":", "-") for value in (config.split, *marked.values()))
        run.save_table(f"accuracy_matrix-{suffix}", continual.accuracy_matrix_frame(matrix))


def matrix_of_run(history: History, stream: Stream, split: str) -> NDArray[np.float64]:
    """Measure the accuracy matrix (tasks + 1, tasks) of the networks that a run stored after each task.

    The rows of tasks that were not completed are nan.
    """
    run = history.run
    network = make_network(history.config, stream, run)
    matrix = np.full((history.tasks + 1, history.tasks), np.nan)
    splits = [task.split(split) for task in stream.tasks]
    for learned, name in enumerate(kept_artifacts(run, "network", range(history.learned + 1))):
        try:
            network.load_state_dict(run.load_tensors(name)["network"])
        except RuntimeError:
            raise UserError(f"the networks of run {run.id} do not fit {stream.tasks[0].dataset.name}.") from None
        rows = accuracy_by_task(network, splits, allowed_by_task(stream, learned, history.config))
        matrix[learned] = [row.accuracy for row in rows]
    return matrix
