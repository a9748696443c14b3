"""A run in the store, as Python programs and notebooks read it."""

from __future__ import annotations

import html
import inspect
import math
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plastic_cli.analysis.cost import Cost, cost_of
from plastic_cli.errors import UserError, did_you_mean
from plastic_cli.plugins.discovery import discover
from plastic_cli.plugins.rule import VERBS
from plastic_cli.runs.checkpoint import read_checkpoint, restore_part
from plastic_cli.runs.folder import open_run
from plastic_cli.runs.lock import is_held
from plastic_cli.runs.metrics import MAIN_METRICS, read_rows
from plastic_cli.runs.record import METRICS_FILE, UNFINISHED, RunRecord, read_record
from plastic_cli.runs.stages import StageRecord, read_stages

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from plotnine import ggplot

    from plastic_cli.data.datasets import Dataset
    from plastic_cli.runs.run import Run


@dataclass(frozen=True)
class StoredRun:
    """One run in its folder: configuration, results, metrics, tables, and the trained network.

    `plastic.train` returns it, and `RunStore.run` finds it. Every property is read from the folder when it is used, so
    that a run that is still training shows its present state. Raises UserError if the folder is not a run.

    folder: the folder of the run. data_folder: the folder of the data sets; None for the default. learner: what
    `plastic.fit` trained in this session. credit: the credit rule that taught it.
    """

    folder: Path
    data_folder: Path | None = field(default=None, repr=False, compare=False)
    learner: Any = field(default=None, repr=False, compare=False)
    credit: Any = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        # The working folder of a notebook may change.
        object.__setattr__(self, "folder", Path(self.folder).expanduser().absolute())
        if self.data_folder is not None:
            object.__setattr__(self, "data_folder", Path(self.data_folder).expanduser().absolute())

    @property
    def record(self) -> RunRecord:
        """Everything that run.json holds: machine, versions, times, data, command."""
        return read_record(self.folder)

    @property
    def id(self) -> str:
        """The name of the run's folder."""
        return self.folder.name

    @property
    def name(self) -> str | None:
        """The name that the user gave, if any."""
        return self.record.name

    @property
    def rule(self) -> str:
        """The name of the rule."""
        return self.record.rule

    @property
    def dataset(self) -> str | None:
        """The data set or the environment."""
        return self.record.dataset

    @property
    def seed(self) -> int:
        """The root of every random number of the run."""
        return self.record.seed

    @property
    def config(self) -> dict[str, Any]:
        """The options of the run, defaults included."""
        return self.record.config

    @property
    def status(self) -> str:
        """created, running, completed, failed, interrupted, or crashed: unfinished, and no process works on it."""
        status = self.record.status
        return "crashed" if status in UNFINISHED and not is_held(self.folder) else status

    @property
    def results(self) -> dict[str, float]:
        """The last value of every training metric, such as "test/accuracy"; NaN if it was not finite."""
        return {key: math.nan if value is None else value for key, value in self.record.summary.items()}

    @property
    def cost(self) -> Cost | None:
        """What the training cost, see `Cost`; None if it is unknown. See `plastic_cli.cost_of`."""
        return cost_of(self.record)

    def metrics(self, stage: str | None = None) -> pd.DataFrame:
        """Return every logged metric, one per row, in the order of logging: columns METRIC_COLUMNS of the store.

        stage: only "train", "eval", "analyze" or "render". Warns if lines are damaged and left out. Raises UserError
        for another stage and if the folder is not a run.
        """
        from plastic_cli.runs.compact import Collector, chosen, frame

        _ = self.record
        if stage is not None and stage not in VERBS:
            raise UserError(f"there is no stage '{stage}'. There are: {', '.join(VERBS)}.")
        collector, lost = Collector(), 0
        with suppress(FileNotFoundError):
            for rows, damaged in read_rows(self.folder / METRICS_FILE):
                lost += damaged + collector.add(self.id, rows)
        if lost:
            lines = "1 damaged line is" if lost == 1 else f"{lost} damaged lines are"
            warnings.warn(f"{self.folder / METRICS_FILE}: {lines} left out", stacklevel=2)
        found = collector.collected()
        return frame(found if stage is None else chosen(found, "stage", [stage]))

    def plot(self, metric: str | None = None, *, smooth: int = 1, **view: Any) -> ggplot:
        """Draw the curves of the run: a metric of one split, of each split, or of each layer or task.

        metric: "split/name" such as "test/accuracy", or "name" for all splits; None: the accuracy, else the return,
        else the loss. smooth: each point is the mean of this number of steps. view: `log` ("x", "y" or "both"),
        `x_range`, `y_range` (pairs of numbers; an end can be None), `width`, `height` (inches) and `title`.

        Returns a plotnine figure. Raises UserError for a metric or an option that does not exist.
        """
        from plastic_cli.figures.curves import run_figure
        from plastic_cli.figures.view_options import ViewOptions

        known = ViewOptions.model_fields
        for name in view:
            if name not in known:
                raise UserError(f"there is no option '{name}'.{did_you_mean(name, known)}")
        options = ViewOptions.from_values({"metric": metric, "smooth": smooth, **view})
        record = self.record
        units = list(record.steps_done)
        return run_figure(
            self.metrics("train"),
            options.metric,
            options.view(),
            rule=record.rule,
            step_name=units[0] if len(units) == 1 else "step",
            about=f"{record.rule}{f' on {record.dataset}' if record.dataset else ''}, seed {record.seed}",
            smooth=options.smooth,
        )

    @property
    def tables(self) -> Mapping[str, pd.DataFrame]:
        """The tables that training and analyses wrote, by name."""
        import pandas as pd

        return {path.stem: pd.read_csv(path) for path in sorted((self.folder / "tables").glob("*.csv"))}

    @property
    def stages(self) -> list[StageRecord]:
        """What `eval`, `analyze` and `render` computed on the run, with their options, oldest first."""
        return read_stages(self.folder)

    def data(self) -> Dataset:
        """Load the data set that the run was trained on, normalized and split as in training, on the CPU.

        Raises UserError if the run learned from an environment, or if the data set is missing.
        """
        from plastic_cli.data.datasets import load_dataset

        record = self.record
        if record.dataset is None:
            raise UserError(f"run {self.id} has no data set.")
        return load_dataset(
            record.dataset,
            self.data_folder,
            validation=int(record.config.get("validation") or 0),
            classes=record.config.get("classes") or (),
        )

    def load(self, **options: Any) -> torch.nn.Module:
        """Return the trained network as a module on the CPU, or the learner that `plastic.fit` trained.

        For a classifier `network(x)` returns logits (batch, classes); x is normalized as in `data()`. What other
        networks take and return is on the page of their rule. options: of the rule, such as `checkpoint="last"`.
        Raises UserError if the rule is not installed or offers no network.
        """
        if self.learner is not None:
            trained: torch.nn.Module = self.restore(self.learner)
            return trained
        rule = discover().rules.get(self.rule)
        if rule is None:
            raise UserError(
                f"run {self.id} is of '{self.rule}', which is not an installed rule."
                " Build the learner as for training, and pass it to restore(learner)."
            )
        network = rule.member("network")
        if network is None:
            raise UserError(f"the rule '{rule.name}' offers no network to load.")
        _, *known = inspect.signature(network).parameters
        for name in options:
            if name not in known:
                offered = f"The options are {', '.join(known)}." if known else f"{rule.name} has no options here."
                raise UserError(f"load: there is no option '{name}'.{did_you_mean(name, known)} {offered}")
        module: torch.nn.Module = network(self.open("analyze", device="cpu"), **options)
        return module

    def restore(self, learner: Any) -> Any:
        """Load the trained state into a learner or a module that was built as for training, and return it.

        For runs of `plastic.fit`. Raises UserError if the run has no checkpoint or if the state does not fit.
        """
        tracked = read_checkpoint(self.folder).tracked
        if hasattr(learner, "train_batch"):
            restore_part(learner, "learner", tracked, self.id)
        else:
            restore_part(learner, "network", tracked["learner"], self.id)
        return learner

    def open(self, stage: str, *, device: str = "cpu") -> Run:
        """Open the run for a stage, as the functions of a rule receive it."""
        return open_run(self.folder, stage=stage, data_folder=self.data_folder, device=device)

    def __repr__(self) -> str:
        try:
            record = self.record
        except UserError as error:
            return f"<StoredRun {self.id}: {error}>"
        name = f" ({record.name})" if record.name else ""
        results = "".join(f", {key} {value:.4g}" for key, value in self._headline().items())
        on = f" on {record.dataset}" if record.dataset else ""
        return f"<StoredRun {self.id}{name}: {record.rule}{on}, seed {record.seed}, {self.status}{results}>"

    def _repr_html_(self) -> str:
        try:
            record = self.record
        except UserError as error:
            return html.escape(str(error))
        rows = {
            "run": f"{self.id}{f' ({record.name})' if record.name else ''}",
            "rule": record.rule,
            "data": record.dataset or "",
            "seed": str(record.seed),
            "status": f"{self.status}{f': {record.error}' if record.error else ''}",
            "time": f"{record.seconds:.1f} s",
            "folder": str(self.folder),
            **{key: f"{value:.4g}" for key, value in self.results.items()},
        }
        settings = {name: str(value) for name, value in record.config.items()}
        return f"{_html_table(rows)}<details><summary>options</summary>{_html_table(settings)}</details>"

    def _headline(self) -> dict[str, float]:
        results = self.results
        return {key: results[key] for key in MAIN_METRICS if key in results} or dict(list(results.items())[:1])


def _html_table(rows: Mapping[str, str]) -> str:
    cells = "".join(
        f'<tr><th style="text-align:left">{html.escape(key)}</th>'
        f'<td style="text-align:left">{html.escape(value)}</td></tr>'
        for key, value in rows.items()
    )
    return f"<table>{cells}</table>"
