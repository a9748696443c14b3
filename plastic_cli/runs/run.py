"""One run: its record, its metrics, and the loop that can be interrupted and resumed.

A training function sees this:

    run.track(learner=learner, order=generator)
    for epoch in run.steps(config.epochs, "epoch"):
        ...
        run.log("test", accuracy=accuracy, loss=loss)

The checkpoint holds everything that is tracked, the global random states and the position of the loop. On resume, the
rows that were logged after the checkpoint are dropped. So a resumed run ends with the numbers of an uninterrupted one.
"""

from __future__ import annotations

import json
import math
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plastic_cli.errors import RunFailed, UserError
from plastic_cli.files import append_whole, remove_folder, remove_leftovers
from plastic_cli.runs import outputs
from plastic_cli.runs.checkpoint import (
    Checkpoint,
    random_states,
    read_checkpoint,
    restore_part,
    restore_random_states,
    state_of,
)
from plastic_cli.runs.console import Console
from plastic_cli.runs.lock import locked_folder
from plastic_cli.runs.metrics import MeasuredOn, drop_training_rows_after, read_rows
from plastic_cli.runs.project import project_state
from plastic_cli.runs.record import CHECKPOINT_FILE, METRICS_FILE, RunRecord, now, read_record
from plastic_cli.runs.stages import StageRecord, commit_stage, undo_unfinished_commit

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from numpy.typing import NDArray
    from plotnine import ggplot

    from plastic_cli.figures.encoding import FilmFormat
    from plastic_cli.runs.exports import Exports

CHECKPOINT_SHARE = 0.05
"""The largest share of the time that checkpoints take, unless CHECKPOINT_SECONDS have passed since the last one."""
CHECKPOINT_SECONDS = 60.0


class Run:
    """One run, open for one stage: train, eval, analyze or render. One process at a time writes to a run."""

    def __init__(
        self,
        folder: Path,
        record: RunRecord,
        *,
        stage: str = "train",
        console: Console | None = None,
        data_folder: Path | None = None,
        device: str = "auto",
        exports: Exports | None = None,
    ) -> None:
        self.folder = folder
        self.record = record
        self.stage = stage
        self.console = console or Console(quiet=True)
        self.data_folder = data_folder
        self.results: dict[str, float] = {}
        self.files: list[str] = []
        self.output: Path | None = None
        """The file for the first film or picture of `render`, until it is written."""
        self.images: dict[str, int] = {}
        """The number of images of each split that results were measured on, for a reader."""
        self.conditions: dict[str, str] = {}
        """The corruption of each split that results were measured under, for a reader, if their keys do not name it."""
        self.layers: dict[int, str] = {}
        """The names of the layers that results have by number, for a reader."""
        self.tables: dict[str, pd.DataFrame] = {}
        self.figures: dict[str, ggplot] = {}
        self.step = 0
        self.signals: Sequence[int] = ()
        self._exports = exports
        self._device_name = device
        self._device: torch.device | None = None
        self._tracked: dict[str, object] = {}
        self._restored: Checkpoint | None = None
        self._random: dict[str, Any] = {}
        self._unit = "step"
        self._sitting = time.perf_counter()
        self._seconds_before = record.seconds
        self._last_checkpoint = time.perf_counter()
        self._checkpoint_cost = 0.0
        self._rows_at_end: list[str] | None = None

    # ------------------------------------------------------------------------------------------------- identity

    @property
    def id(self) -> str:
        """The name of the run's folder."""
        return self.record.run

    @property
    def seed(self) -> int:
        """The root of every random number of this run."""
        return self.record.seed

    @property
    def config(self) -> dict[str, Any]:
        """The stored configuration of the training command."""
        return self.record.config

    @property
    def device(self) -> torch.device:
        """The device to compute on; raises UserError if the chosen device is missing."""
        if self._device is None:
            from plastic_cli.numerics.devices import find_device

            self._device = find_device(self._device_name)
        return self._device

    @property
    def seconds(self) -> float:
        """Time spent on this run in all sessions, without work that was lost and repeated."""
        return self._seconds_before + time.perf_counter() - self._sitting

    def generator(self, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
        """Return the random generator of the run for one purpose, such as "noise"; purposes are independent."""
        from plastic_cli.numerics.seeds import torch_generator

        return torch_generator(self.seed, purpose, device)

    # ------------------------------------------------------------------------------------------- the locked folder

    @contextmanager
    def locked(self) -> Iterator[Run]:
        """Lock the folder for this process; raises UserError if another process is writing to it.

        The operating system frees the lock when the process ends, however it ends. A stage other than "train" writes
        its rows when it is completed, or when the block ends without an error, so that a stage that is killed or fails
        leaves no part of them.
        """
        with locked_folder(self.folder, self.record.process):
            # Another process may have continued the run since this one read its record.
            self.record = read_record(self.folder)
            self._seconds_before = self.record.seconds
            remove_leftovers(self.folder)
            undo_unfinished_commit(self.folder)
            self._rows_at_end = None if self.stage == "train" else []
            try:
                yield self
                if self._rows_at_end:
                    append_whole(self.folder / METRICS_FILE, "".join(self._rows_at_end))
            finally:
                self._rows_at_end = None

    def complete_stage(self, config: Mapping[str, Any], versions: Mapping[str, str], started: str) -> None:
        """Write the rows and the record of an eval, analyze or render inside `locked`: both or none.

        config: all options of the stage. versions: of the packages. started: when it began.
        """
        assert self._rows_at_end is not None
        finite = {key: value if math.isfinite(value) else None for key, value in self.results.items()}
        record = StageRecord(
            verb=self.stage,
            config=dict(config),
            results=finite,
            files=list(self.files),
            seconds=round(self.seconds - self._seconds_before, 3),
            versions=dict(versions),
            steps_done=dict(self.record.steps_done),
            started=started,
            finished=now(),
        )
        commit_stage(self.folder, record, self._rows_at_end)
        self._rows_at_end = []

    def write_record(self, **changes: Any) -> None:
        """Change fields of run.json; a reader sees all changes or none."""
        for key, value in changes.items():
            setattr(self.record, key, value)
        self.record.seconds = round(self.seconds, 3)
        self.record.write(self.folder)

    def start(self) -> None:
        """Mark the run as running in this process."""
        from plastic_cli.numerics.machine import machine

        self.write_record(
            status="running",
            started=self.record.started or now(),
            finished=None,
            error=None,
            machine=machine(str(self.device)),
            process={"pid": os.getpid(), "host": socket.gethostname()},
            project=project_state() if self.record.started is None else self.record.project,
        )
        if self._exports is not None:
            self._exports.begin(self.description, self.training_rows())

    def finish(self, status: str, error: str | None = None) -> None:
        """Mark the run as completed, failed or interrupted."""
        self.write_record(status=status, finished=now(), error=error)
        if self._exports is not None:
            self._exports.finished()

    def export(self) -> None:
        """Send the whole run to its exporters."""
        if self.record.status == "running":
            # This process holds the lock, so the process that ran it has ended.
            self.record.status = "crashed"
        if self._exports is not None:
            self._exports.begin(self.description, self.training_rows())
            self._exports.finished()

    def description(self) -> dict[str, Any]:
        """Return the content of run.json and the folder of the run, for exporters."""
        return {**asdict(self.record), "folder": str(self.folder)}

    def training_rows(self) -> list[dict[str, Any]]:
        """Return the training rows of the metrics file."""
        try:
            pieces = list(read_rows(self.folder / METRICS_FILE))
        except FileNotFoundError:
            return []
        return [row for rows, _ in pieces for row in rows if row["stage"] == "train"]

    def is_untouched(self) -> bool:
        """Return whether nothing has been logged or stored yet."""
        return not (self.folder / METRICS_FILE).exists() and not (self.folder / CHECKPOINT_FILE).exists()

    def discard(self) -> None:
        """Remove the whole run; a reader sees all of it or nothing."""
        remove_folder(self.folder)

    # ------------------------------------------------------------------------------------------------- the loop

    def track(self, **parts: object) -> None:
        """Include parts in the checkpoint: anything with state_dict and load_state_dict, and torch generators.

        Of another object, the attributes are stored (see `runs/attributes.py`).

        On resume this call restores the parts, so that what is built from them afterwards is right as well.
        """
        self._tracked.update(parts)
        if self._restored is not None:
            for name, part in parts.items():
                if name in self._restored.tracked:
                    restore_part(part, name, self._restored.tracked, self.id)

    def steps(self, total: int, unit: str = "step") -> Iterator[int]:
        """Yield the steps from where the run stopped to `total`, with a progress bar and checkpoints after steps.

        A run may have several loops, one after the other, each with its own `unit`. Raises KeyboardInterrupt before the
        next step if `signals` holds one.
        """
        done = self.record.steps_done.get(unit, 0)
        # Rows that are logged after the loop get its last step, even if a resumed run has no step left.
        self.step = done
        if unit in self._random:
            restore_random_states(self._random[unit], self.id)
        self._unit = unit
        with self.console.progress(unit, total, done) as bar:
            for index in range(done, total):
                if self.signals:
                    # The KeyboardInterrupt was lost: C extensions swallow exceptions while they are imported.
                    raise KeyboardInterrupt
                self.step = index + 1
                bar.begin_step(index)
                yield index
                self.record.steps_done[unit] = index + 1
                bar.end_step(index + 1, self.record.summary)
                if index + 1 == total or self.checkpoint_is_due():
                    self.save_checkpoint()

    def within_step(self, fraction: float) -> None:
        """Move the progress bar within the present step; `fraction` goes from 0 to 1."""
        self.console.within_step(fraction)

    def log(
        self,
        split: str,
        labels: Mapping[str, Any] | None = None,
        measured_on: MeasuredOn | None = None,
        /,
        **metrics: float | torch.Tensor,
    ) -> None:
        """Store metrics of a split at the present step, and keep the last value of each as the result of the run.

        labels: what else distinguishes these rows, such as a corruption; rows with labels are not part of the summary.
        measured_on: the data that the numbers come from, if it differs from `split`: "test" as soon as any test sample
        contributes. Without it, a split other than train and validation counts as test data.

        Training stores rows at once, another stage when it ends (see `locked`). Raises RunFailed if a loss or reward
        is not finite during training.
        """
        rows = []
        for name, given in metrics.items():
            value = float(given)
            key = f"{split}/{name}"
            if not math.isfinite(value) and self.stage == "train" and name in ("loss", "reward"):
                raise RunFailed(f"{key} became {value} at {self._unit} {self.step}. Try a smaller learning rate.")
            row: dict[str, Any] = {"stage": self.stage, "split": split, "step": self.step, "metric": name}
            row["value"] = value if math.isfinite(value) else None
            if labels:
                row["labels"] = dict(labels)
            row["time"] = round(time.time(), 3)
            rows.append(row)
            if not labels:
                self.results[key] = value
                if self.stage == "train":
                    self.record.summary[key] = row["value"]
                    self.record.measured_on.pop(key, None)
                    if measured_on is not None:
                        self.record.measured_on[key] = measured_on
        lines = [json.dumps(row, allow_nan=False) + "\n" for row in rows]
        if self._rows_at_end is None:
            append_whole(self.folder / METRICS_FILE, "".join(lines))
        else:
            self._rows_at_end += lines
        if self._exports is not None:
            self._exports.logged(rows)

    def begins(self, unit: str) -> bool:
        """Return whether the loop of `unit` has not begun yet; if so, rows that are logged now get step 0."""
        if self.record.steps_done.get(unit, 0):
            return False
        self.step = 0
        return True

    def count_samples(self, samples: int, seconds: float) -> None:
        """Add to the number of training samples and to the time of learning, without evaluation."""
        speed = self.record.speed
        speed["samples"] = speed.get("samples", 0) + samples
        speed["seconds"] = speed.get("seconds", 0.0) + seconds

    def describe_data(self, **facts: Any) -> None:
        """Store a description of the training data: name, checksum, normalization.

        Raises UserError if a resumed run gets data with another checksum, since its numbers would mix the two.
        """
        known = self.record.data.get("checksum")
        if self.stage == "train" and known not in (None, facts.get("checksum", known)):
            raise UserError(
                f"the data set {facts.get('name', '')} is not the one that run {self.id} began with (other checksum)."
                " Restore it, or train a new run."
            )
        self.write_record(data={**self.record.data, **facts})

    # ------------------------------------------------------------------------------------------------ checkpoints

    def save_checkpoint(self) -> None:
        """Write a checkpoint of everything that is tracked; a checkpoint is never half written."""
        began = time.perf_counter()
        metrics = self.folder / METRICS_FILE
        # One for each loop, so that code between two loops draws the same numbers on resume.
        self._random[self._unit] = random_states()
        Checkpoint(
            tracked={name: state_of(part) for name, part in self._tracked.items()},
            random=dict(self._random),
            speed=dict(self.record.speed),
            steps_done=dict(self.record.steps_done),
            metrics_bytes=metrics.stat().st_size if metrics.exists() else 0,
            seconds=self.seconds,
        ).write(self.folder)
        self.write_record()
        self._last_checkpoint = time.perf_counter()
        self._checkpoint_cost = self._last_checkpoint - began

    def restore(self, name: str, part: object) -> None:
        """Load the state that was tracked as `name` into `part`; raises UserError if it is missing or does not fit."""
        restore_part(part, name, read_checkpoint(self.folder).tracked, self.id)

    def resume(self) -> None:
        """Continue after the last checkpoint, or from the beginning if there is none."""
        restored = read_checkpoint(self.folder) if (self.folder / CHECKPOINT_FILE).exists() else None
        threads = self.record.machine.get("threads")
        if isinstance(threads, int) and threads > 0:
            import torch

            # With another number of threads sums are taken in another order, which changes the last digits.
            torch.set_num_threads(threads)
        self._restored = restored
        if restored is not None:
            self._seconds_before = restored.seconds
        summary = drop_training_rows_after(
            self.folder / METRICS_FILE, 0 if restored is None else restored.metrics_bytes
        )
        self._random = {} if restored is None else dict(restored.random)
        self.record.speed = {} if restored is None else dict(restored.speed)
        self.record.steps_done = {} if restored is None else dict(restored.steps_done)
        self.record.summary = summary
        self.results = {key: math.nan if value is None else value for key, value in summary.items()}

    def checkpoint_is_due(self) -> bool:
        """Return whether the loop writes a checkpoint after the present step; after the last step it always does."""
        elapsed = time.perf_counter() - self._last_checkpoint
        return elapsed > CHECKPOINT_SECONDS or elapsed * CHECKPOINT_SHARE > self._checkpoint_cost

    # ------------------------------------------------------------------------------------------------- outputs

    def save_table(self, name: str, table: pd.DataFrame) -> Path:
        """Write a table as `tables/NAME.csv`."""
        self.tables[name] = table
        return self._wrote(outputs.write_table(self.folder, name, table))

    def save_figure(self, name: str, figure: ggplot) -> list[Path]:
        """Write a plotnine figure as `figures/NAME.png` and `.svg`."""
        self.figures[name] = figure
        return [self._wrote(path) for path in outputs.write_figure(self.folder, name, figure)]

    def save_image(self, name: str, image: NDArray[Any]) -> Path:
        """Write an array (height, width[, 3]) of uint8 as `figures/NAME.png`, or as the file that the user chose."""
        return self._wrote(outputs.write_image(self.folder, name, image, self._take_output(picture=True)))

    def save_video(
        self,
        name: str,
        frames: Sequence[NDArray[Any]],
        seconds_per_frame: float = 0.25,
        file_format: FilmFormat = "gif",
    ) -> Path:
        """Write frames, arrays (height, width, 3) of uint8, as `videos/NAME.gif`, which repeats, `.mp4` or `.webm`.

        If the user chose a file for the film of `render`, the first film is written there, in the format of its name.
        MP4 and WebM have even sizes only: a frame of odd size gets a copy of its last row or column. Raises UserError
        if one of them is chosen and imageio-ffmpeg, which writes it, is missing.
        """
        output = self._take_output(picture=False)
        return self._wrote(outputs.write_video(self.folder, name, frames, seconds_per_frame, file_format, output))

    def save_tensors(self, name: str, tensors: Mapping[str, Any]) -> Path:
        """Write tensors as `artifacts/NAME.pt`, which `load_tensors` reads."""
        return outputs.write_artifact(self.folder, name, tensors)

    def save_state(self, name: str, part: object) -> Path:
        """Write the state of a part, as `track` stores it, as `artifacts/NAME.pt`, which `restore_state` reads."""
        return self.save_tensors(name, {"state": state_of(part)})

    def restore_state(self, name: str, part: object) -> None:
        """Load what `save_state` wrote into a part; raises UserError if it is missing, damaged or does not fit."""
        restore_part(part, "state", self.load_tensors(name), self.id)

    def load_tensors(self, name: str) -> dict[str, Any]:
        """Read what `save_tensors` wrote; raises UserError if it is missing or damaged."""
        return outputs.read_artifact(self.folder, name)

    def stored_tensors(self, prefix: str) -> list[str]:
        """Return the names of the stored tensors that begin with `prefix`, sorted."""
        return outputs.artifact_names(self.folder, prefix)

    def message(self, text: str) -> None:
        """Print a line on stderr for the person at the terminal."""
        self.console.message(text)

    def _take_output(self, *, picture: bool) -> Path | None:
        """Return the file that the user chose if it is for a picture or a film, once; None otherwise."""
        chosen = self.output
        if chosen is None or outputs.output_is_picture(chosen) != picture:
            return None
        self.output = None
        return chosen

    def _wrote(self, path: Path) -> Path:
        self.files.append(str(path.relative_to(self.folder) if path.is_relative_to(self.folder) else path.absolute()))
        self.console.message(f"wrote {path}")
        return path
