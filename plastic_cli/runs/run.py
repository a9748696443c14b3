"""One run: its folder, metrics, checkpoints and pictures, and the loop that can be interrupted and resumed.

A training function sees this:

    run.track(learner=learner, order=generator)
    for epoch in run.steps(config.epochs, "epoch"):
        ...
        run.log("test", accuracy=accuracy, loss=loss)

Everything that is tracked, the global random states and the position of the loop go into the checkpoint, and what was
logged after it is dropped on resume, so that a resumed run ends with the numbers of one that was never stopped.
"""

from __future__ import annotations

import errno
import json
import math
import os
import pickle
import random
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from filelock import FileLock, Timeout

from plastic_cli.errors import PlasticError, RunFailed, UserError
from plastic_cli.escapes import csv_text
from plastic_cli.files import (
    append_whole,
    atomic_file,
    read_tensors,
    remove_leftovers,
    write_atomically,
    write_tensors,
    write_through,
)
from plastic_cli.runs.cleaning import clean_store_daily
from plastic_cli.runs.console import Console
from plastic_cli.runs.metrics import MeasuredOn, read_rows
from plastic_cli.runs.record import CHECKPOINT_FILE, LOCK_FILE, METRICS_FILE, RunRecord, now, read_record

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from numpy.typing import NDArray
    from plotnine import ggplot

    from plastic_cli.runs.exports import Exports

CHECKPOINT_SHARE = 0.05
"""Checkpoints may take this share of the time at most, unless CHECKPOINT_SECONDS have passed since the last one."""
CHECKPOINT_SECONDS = 60.0
COPIED_AT_ONCE = 1 << 20
"""Bytes."""


@runtime_checkable
class Stateful(Protocol):
    """What can be tracked, besides torch generators: modules, optimizers, schedulers, learners."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes, as tensors, numbers, text, lists and dictionaries."""

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Take back what `state_dict` returned."""


class Run:
    """One run, open for one stage (train, eval, analyze or render). One process writes it at a time."""

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
        self.step = 0
        self.signals: Sequence[int] = ()
        self._exports = exports
        self._device_name = device
        self._device: torch.device | None = None
        self._tracked: dict[str, Stateful | torch.Generator] = {}
        self._restored: dict[str, Any] | None = None
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
        """Where to compute. Raises UserError where CUDA is asked for and absent."""
        if self._device is None:
            from plastic_cli.numerics.devices import find_device

            self._device = find_device(self._device_name)
        return self._device

    @property
    def seconds(self) -> float:
        """Time spent on this run in this and all earlier sittings, without work that was lost and done again."""
        return self._seconds_before + time.perf_counter() - self._sitting

    def generator(self, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
        """Return the run's random stream for one purpose, such as "noise"; purposes are independent of each other."""
        from plastic_cli.numerics.seeds import torch_generator

        return torch_generator(self.seed, purpose, device)

    # ------------------------------------------------------------------------------------------- the locked folder

    @contextmanager
    def locked(self) -> Iterator[Run]:
        """Hold the folder against other processes; raises UserError where another one is writing to it.

        The operating system frees the lock of a process that dies, however it dies. What a stage other than "train"
        logs inside is written when the block ends well, so that a stage that is killed or fails leaves no half of its
        rows.
        """
        with _lock(self.folder, self.record.process):
            # Another process may have gone on with the run since this one looked at it.
            self.record = _read_present_record(self.folder)
            self._seconds_before = self.record.seconds
            remove_leftovers(self.folder)
            self._rows_at_end = None if self.stage == "train" else []
            try:
                yield self
                if self._rows_at_end:
                    append_whole(self.folder / METRICS_FILE, "".join(self._rows_at_end))
            finally:
                self._rows_at_end = None

    def write_record(self, **changes: Any) -> None:
        """Change fields of run.json, in one step for a reader."""
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
        )
        if self._exports is not None:
            self._exports.begin(self.description, self.training_rows())

    def finish(self, status: str, error: str | None = None) -> None:
        """Mark the run as completed, failed or interrupted."""
        self.write_record(status=status, finished=now(), error=error)
        if self._exports is not None:
            self._exports.finished()

    def export(self) -> None:
        """Hand the whole run to the exporters that it was opened with."""
        if self.record.status == "running":
            # Its process is gone: the lock is ours.
            self.record.status = "crashed"
        if self._exports is not None:
            self._exports.begin(self.description, self.training_rows())
            self._exports.finished()

    def description(self) -> dict[str, Any]:
        """Return what run.json holds, and the run's folder: what exporters are given."""
        return {**asdict(self.record), "folder": str(self.folder)}

    def training_rows(self) -> list[dict[str, Any]]:
        """Return what was logged while training, as it stands in the metrics file."""
        try:
            pieces = list(read_rows(self.folder / METRICS_FILE))
        except FileNotFoundError:
            return []
        return [row for rows, _ in pieces for row in rows if row["stage"] == "train"]

    def is_untouched(self) -> bool:
        """Say whether nothing has been logged or stored yet."""
        return not (self.folder / METRICS_FILE).exists() and not (self.folder / CHECKPOINT_FILE).exists()

    def discard(self) -> None:
        """Remove the whole run, in one step for a reader."""
        _remove(self.folder)

    # ------------------------------------------------------------------------------------------------- the loop

    def track(self, **parts: Stateful | torch.Generator) -> None:
        """Include parts in the checkpoint: anything with state_dict and load_state_dict, and torch generators.

        On resume a part is restored here, at once, so that what is built from it afterwards is right as well.
        """
        self._tracked.update(parts)
        if self._restored is not None:
            for name, part in parts.items():
                if name in self._restored["tracked"]:
                    self._give_back(name, part, self._restored["tracked"])

    def steps(self, total: int, unit: str = "step") -> Iterator[int]:
        """Count from where the run stopped to `total`, with a progress bar and checkpoints behind steps.

        A run may have several such loops, one after the other, each with a `unit` of its own. Raises KeyboardInterrupt
        before the next step where `signals` holds one.
        """
        done = self.record.steps_done.get(unit, 0)
        # What is logged behind the loop stands at its last step, also where a resumed run finds nothing left to do.
        self.step = done
        if unit in self._random:
            try:
                _restore_random_states(self._random[unit])
            except (AttributeError, IndexError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
                raise UserError(f"the checkpoint of run {self.id} is damaged. Train the run again.") from error
        self._unit = unit
        with self.console.progress(unit, total, done) as bar:
            for index in range(done, total):
                if self.signals:
                    # Its KeyboardInterrupt was lost: C extensions that are being imported swallow what is raised there.
                    raise KeyboardInterrupt
                self.step = index + 1
                bar.begin_step(index)
                yield index
                self.record.steps_done[unit] = index + 1
                bar.end_step(index + 1, self.record.summary)
                if index + 1 == total or self._checkpoint_is_due():
                    self.save_checkpoint()

    def within_step(self, fraction: float) -> None:
        """Move the progress bar inside the present step; `fraction` runs from 0 to 1."""
        self.console.within_step(fraction)

    def log(
        self,
        split: str,
        labels: Mapping[str, Any] | None = None,
        measured_on: MeasuredOn | None = None,
        /,
        **metrics: float | torch.Tensor,
    ) -> None:
        """Store metrics of a split at the present step, and keep the last value of each as the run's result.

        labels: what else tells these rows apart, such as a corruption; rows with labels stay out of the summary.
        measured_on: the data that the numbers come from, where `split` does not say so: "test" as soon as any test
        sample has a part in them. Without it a split other than train and validation counts as test data.
        Training stores at once, another stage when it ends (see `locked`). Raises RunFailed where a loss or reward is
        not finite while training.
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
        """Say whether the loop of `unit` is still to begin; if so, what is logged now stands at step 0."""
        if self.record.steps_done.get(unit, 0):
            return False
        self.step = 0
        return True

    def count_samples(self, samples: int, seconds: float) -> None:
        """Add to the samples that the run has learned from and the time that learning took, without evaluation."""
        speed = self.record.speed
        speed["samples"] = speed.get("samples", 0) + samples
        speed["seconds"] = speed.get("seconds", 0.0) + seconds

    def describe_data(self, **facts: Any) -> None:
        """Store what the run learns from: name, checksum, normalisation.

        Raises UserError where a resumed run meets data of another checksum: its numbers would be those of neither.
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
        """Write everything that is tracked, whole or not at all."""
        began = time.perf_counter()
        metrics = self.folder / METRICS_FILE
        # One for each loop, so that what comes between two loops draws what it drew before.
        self._random[self._unit] = _random_states()
        state = {
            "tracked": {name: _state_of(part) for name, part in self._tracked.items()},
            "random": dict(self._random),
            "speed": dict(self.record.speed),
            "steps_done": dict(self.record.steps_done),
            "metrics_bytes": metrics.stat().st_size if metrics.exists() else 0,
            "seconds": self.seconds,
        }
        write_tensors(self.folder / CHECKPOINT_FILE, state)
        self.write_record()
        self._last_checkpoint = time.perf_counter()
        self._checkpoint_cost = self._last_checkpoint - began

    def load_checkpoint(self) -> dict[str, Any]:
        """Return the checkpoint's content, tensors on the CPU; raises UserError where it is missing or damaged.

        Only tensors and plain values are read: nothing in the file can run code.
        """
        path = self.folder / CHECKPOINT_FILE
        if not path.exists():
            raise UserError(f"run {self.id} has no checkpoint yet: it stopped before its first one. Train it again.")
        try:
            content: dict[str, Any] = read_tensors(path)
            _check_checkpoint(content)
        except PlasticError:
            raise
        except pickle.UnpicklingError:
            raise UserError(
                f"the checkpoint {path} is damaged (it holds more than tensors and plain values, and nothing else is"
                " loaded). Train the run again."
            ) from None
        except Exception as error:  # noqa: BLE001  torch.load raises whatever the damage happens to provoke
            reason = str(error).splitlines()[0].partition(". ")[0] if str(error) else type(error).__name__
            raise UserError(f"the checkpoint {path} is damaged ({reason}). Train the run again.") from None
        return content

    def tracked_state(self, name: str) -> dict[str, Any]:
        """Return the stored state of the part that was tracked as `name`; raises UserError where there is none."""
        tracked = self.load_checkpoint()["tracked"]
        self._check_tracked(name, tracked)
        state: dict[str, Any] = tracked[name]
        return state

    def restore(self, name: str, part: Stateful | torch.Generator) -> None:
        """Give `part` the state of what was tracked as `name`; raises UserError where it does not fit."""
        self._give_back(name, part, self.load_checkpoint()["tracked"])

    def _give_back(self, name: str, part: Stateful | torch.Generator, tracked: Mapping[str, Any]) -> None:
        self._check_tracked(name, tracked)
        try:
            _restore(part, tracked[name])
        except (MemoryError, PlasticError):
            raise
        except Exception as error:
            # A state of another shape provokes whatever the part happens to raise.
            raise UserError(
                f"the checkpoint of run {self.id} does not fit this version of the rule. Train the run again."
            ) from error

    def _check_tracked(self, name: str, tracked: Mapping[str, Any]) -> None:
        if name not in tracked:
            raise UserError(f"the checkpoint of run {self.id} holds no '{name}': another version of the rule wrote it.")

    def resume(self) -> None:
        """Take up the run behind its last checkpoint, or from the beginning where it has none."""
        restored = self.load_checkpoint() if (self.folder / CHECKPOINT_FILE).exists() else None
        threads = self.record.machine.get("threads")
        if isinstance(threads, int) and threads > 0:
            import torch

            # Another number of threads takes sums in another order, which shows in the last digits.
            torch.set_num_threads(threads)
        if restored is not None:
            self._seconds_before = float(restored["seconds"])
        summary = self._drop_metrics_behind(0 if restored is None else int(restored["metrics_bytes"]))
        self._restored = restored
        self._random = {} if restored is None else dict(restored["random"])
        self.record.speed = {} if restored is None else dict(restored["speed"])
        self.record.steps_done = {} if restored is None else dict(restored["steps_done"])
        self.record.summary = summary
        self.results = {key: math.nan if value is None else value for key, value in summary.items()}

    def _drop_metrics_behind(self, kept: int) -> dict[str, float | None]:
        """Drop training rows written after the checkpoint, which the resumed loop writes again.

        Returns the last value of every metric before it.
        """
        path = self.folder / METRICS_FILE
        path.touch()
        summary: dict[str, float | None] = {}
        for rows, _ in read_rows(path, end=kept):
            for row in rows:
                if row["stage"] == "train" and "labels" not in row:
                    summary[f"{row['split']}/{row['metric']}"] = row["value"]
        with atomic_file(path) as stream:
            # The bytes before the checkpoint stay as they are: it says how many they are.
            with path.open("rb") as before:
                while kept > 0 and (block := before.read(min(kept, COPIED_AT_ONCE))):
                    stream.write(block)
                    kept -= len(block)
                begin = before.tell()
            for rows, _ in read_rows(path, begin):
                stream.writelines(json.dumps(row).encode() + b"\n" for row in rows if row["stage"] != "train")
        return summary

    def _checkpoint_is_due(self) -> bool:
        elapsed = time.perf_counter() - self._last_checkpoint
        return elapsed > CHECKPOINT_SECONDS or elapsed * CHECKPOINT_SHARE > self._checkpoint_cost

    # ------------------------------------------------------------------------------------------- what a run shows

    def save_table(self, name: str, table: pd.DataFrame) -> Path:
        """Write a table as `tables/NAME.csv`."""
        path = self._inside("tables", f"{name}.csv")
        write_atomically(path, csv_text(table))
        return self._wrote(path)

    def save_figure(self, name: str, figure: ggplot) -> list[Path]:
        """Write a plotnine figure as `figures/NAME.png` and `.svg`."""
        from plastic_cli.figures.files import save_figure

        folder = self._inside("figures", "").parent / "figures"
        return [self._wrote(path) for path in save_figure(figure, folder, name)]

    def save_image(self, name: str, image: NDArray[Any]) -> Path:
        """Write an array (height, width[, 3]) of uint8 as `figures/NAME.png`."""
        import imageio.v3 as imageio

        path = self._inside("figures", f"{name}.png")
        write_through(path, lambda temporary: imageio.imwrite(temporary, image))
        return self._wrote(path)

    def save_video(
        self,
        name: str,
        frames: Sequence[NDArray[Any]],
        seconds_per_frame: float = 0.25,
        file_format: Literal["gif", "mp4"] = "gif",
    ) -> Path:
        """Write frames, arrays (height, width, 3) of uint8, as `videos/NAME.gif`, which repeats, or `videos/NAME.mp4`.

        MP4 (H.264) has even sizes only: an odd one grows by a copy of its last row or column. Raises UserError where it
        is asked for and imageio-ffmpeg, which writes it, is missing.
        """
        import imageio.v3 as imageio

        options: dict[str, Any] = {"duration": 1000 * seconds_per_frame, "loop": 0}
        if file_format == "mp4":
            import numpy as np

            check_mp4_can_be_written()
            height, width = frames[0].shape[:2]
            # At a size that players take, imageio would otherwise scale the picture, and blur it.
            frames = [np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge") for frame in frames]
            options = {"plugin": "FFMPEG", "fps": 1 / seconds_per_frame, "macro_block_size": 2}
        path = self._inside("videos", f"{name}.{file_format}")
        write_through(path, lambda temporary: imageio.imwrite(temporary, frames, **options))
        return self._wrote(path)

    def save_tensors(self, name: str, tensors: Mapping[str, Any]) -> Path:
        """Write tensors as `artifacts/NAME.pt`, to be read back with `load_tensors`."""
        path = self._inside("artifacts", f"{name}.pt")
        write_tensors(path, tensors)
        return path

    def load_tensors(self, name: str) -> dict[str, Any]:
        """Read what `save_tensors` wrote; raises UserError where it is missing or damaged."""
        path = self.folder / "artifacts" / f"{name}.pt"
        try:
            content = read_tensors(path)
        except FileNotFoundError:
            raise UserError(f"run {self.id} stored no '{name}'.") from None
        except Exception:  # noqa: BLE001  torch.load raises whatever the damage happens to provoke
            raise UserError(f"{path} is damaged.") from None
        return dict(content)

    def stored_tensors(self, prefix: str) -> list[str]:
        """Return the names of the stored tensors that begin with `prefix`, in order."""
        return sorted(path.stem for path in (self.folder / "artifacts").glob(f"{prefix}*.pt"))

    def message(self, text: str) -> None:
        """Tell the person at the terminal something, on stderr."""
        self.console.message(text)

    def _inside(self, folder: str, name: str) -> Path:
        (self.folder / folder).mkdir(exist_ok=True)
        return self.folder / folder / name

    def _wrote(self, path: Path) -> Path:
        self.files.append(str(path.relative_to(self.folder)))
        self.console.message(f"wrote {path}")
        return path


def check_run_name(name: str) -> None:
    """Raise UserError where a run cannot be called so."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise UserError(f"--name {name}: use letters, digits, '.', '_' and '-', beginning with a letter or digit.")


def create_run(
    runs_folder: Path,
    *,
    rule: str,
    config: Mapping[str, Any],
    dataset: str | None = None,
    name: str | None = None,
    argv: Sequence[str] = (),
    versions: Mapping[str, str] | None = None,
    **options: Any,
) -> Run:
    """Claim a new folder for a run and write its first record.

    dataset: what the run learns from, if the configuration does not name it so. The id is the time and four random
    letters; `mkdir` decides which process has it. Raises UserError for a folder that cannot be written and a name that
    cannot be typed, RunFailed where the disk is full.
    """
    if name is not None:
        check_run_name(name)
    try:
        runs_folder.mkdir(parents=True, exist_ok=True)
        while True:
            stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
            identity = f"{stamp}-{''.join(secrets.choice('abcdefghjkmnpqrstuvwxyz') for _ in range(4))}"
            folder = runs_folder / identity
            try:
                folder.mkdir()
                break
            except FileExistsError:
                continue
        record = RunRecord(
            run=identity,
            rule=rule,
            seed=int(config.get("seed", 0)),
            config=dict(config),
            name=name,
            dataset=dataset or config.get("dataset"),
            created=now(),
            argv=list(argv),
            versions=dict(versions or {}),
        )
        try:
            record.write(folder)
        except OSError:
            folder.rmdir()
            raise
        clean_store_daily(runs_folder)
    except OSError as error:
        kind = RunFailed if error.errno in (errno.ENOSPC, errno.EDQUOT) else UserError
        raise kind(f"cannot write to {runs_folder}: {error.strerror or error}. Choose another with --runs.") from None
    return Run(folder, record, **options)


def check_mp4_can_be_written() -> None:
    """Raise UserError, with what to install or mend, where imageio-ffmpeg or the ffmpeg that it would start is missing.

    The environment's IMAGEIO_FFMPEG_EXE names another one, which imageio-ffmpeg takes without looking.
    """
    try:
        named = import_module("imageio_ffmpeg").get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        raise UserError(
            "MP4 needs imageio-ffmpeg, which is not installed here: `pip install 'plastic[video]'`, or choose GIF."
        ) from None
    if shutil.which(named) is None:
        raise UserError(
            f"IMAGEIO_FFMPEG_EXE names {named}, which is no program here. Correct or unset it, or choose GIF."
        )


def open_run(folder: Path, **options: Any) -> Run:
    """Open the run in `folder`; raises UserError where its record is missing, damaged or too new."""
    return Run(folder, _read_present_record(folder), **options)


def remove_run(folder: Path) -> None:
    """Remove the run in `folder`, in one step for a reader, whatever state its record is in.

    Of a link only the link goes. Raises UserError where another process is writing to the run.
    """
    if folder.is_symlink():
        folder.unlink()
        return
    with _lock(folder, {}):
        _remove(folder)


@contextmanager
def _lock(folder: Path, holder: Mapping[str, Any]) -> Iterator[None]:
    lock = FileLock(folder / LOCK_FILE)
    try:
        # Readers that ask whether a run is alive hold the lock for microseconds; a writer waits them out.
        lock.acquire(timeout=1.0)
    except Timeout:
        where = f" (process {holder['pid']} on {holder['host']})" if {"pid", "host"} <= holder.keys() else ""
        raise UserError(
            f"run {folder.name} is being written by another process{where}. Wait for it or stop it."
        ) from None
    except OSError as error:
        raise RunFailed(f"cannot write to {folder}: {error.strerror or error}.") from None
    try:
        yield
    finally:
        lock.release()


def _remove(folder: Path) -> None:
    # A name of its own each time: what a killed process left must not be in the way.
    shutil.rmtree(folder.rename(folder.with_name(f".removed-{folder.name:.100}-{secrets.token_hex(4)}")))


def _read_present_record(folder: Path) -> RunRecord:
    record = read_record(folder)
    # A copied or renamed folder goes by the name it has now.
    record.run = folder.name
    return record


def _check_checkpoint(content: Any) -> None:
    """Raise ValueError where a checkpoint lacks what every run has, or holds numbers that no run comes to."""
    kinds: dict[str, Any] = {"tracked": dict, "random": dict, "steps_done": dict, "speed": dict}
    kinds |= {"metrics_bytes": int, "seconds": float}
    if not isinstance(content, dict) or not all(isinstance(content.get(name), kind) for name, kind in kinds.items()):
        raise ValueError("parts of it are missing")
    counts = [content["metrics_bytes"], *content["steps_done"].values()]
    if not all(type(count) is int and 0 <= count < 2**63 for count in counts):
        raise ValueError("a count is no count")
    if not all(math.isfinite(number) for number in (content["seconds"], *content["speed"].values())):
        raise ValueError("a time is no time")


def _state_of(part: Stateful | torch.Generator) -> Any:
    if isinstance(part, Stateful):
        return part.state_dict()
    return part.get_state()


def _restore(part: Stateful | torch.Generator, state: Any) -> None:
    if isinstance(part, Stateful):
        part.load_state_dict(state)
    else:
        part.set_state(state)


def _random_states() -> dict[str, Any]:
    """Return the global random states as plain values and tensors, which a safe loader accepts."""
    import numpy as np
    import torch

    numpy_state: Any = np.random.get_state()  # noqa: NPY002  the global state is what is stored
    kind, keys, position, has_gauss, gauss = numpy_state
    version, internal, cached = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        # Only where CUDA is in use: asking for the state would occupy every GPU there is.
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "numpy": [str(kind), torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(gauss)],
        "python": [version, list(internal), cached],
    }


def _restore_random_states(states: Mapping[str, Any]) -> None:
    import numpy as np
    import torch

    torch.set_rng_state(states["torch"])
    for index, state in zip(range(torch.cuda.device_count()), states["cuda"], strict=False):
        torch.cuda.set_rng_state(state, index)
    kind, keys, position, has_gauss, gauss = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    version, internal, cached = states["python"]
    random.setstate((version, tuple(internal), cached))
