"""The zero-event control of a run, and its backprop baseline: the same network and seed, trained in another way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from plastic_cli import UserError
from plastic_cli.analysis.classification import evaluate
from plastic_eglp.config import Train
from plastic_eglp.training import make_learner, train_unlogged

if TYPE_CHECKING:
    from plastic_cli import Run
    from plastic_cli.data.datasets import Dataset
    from plastic_eglp.training import Learner

NAME = "zero events"
SPLIT = "control"
"""Split of the metrics where the report finds the control of a run."""
ARTIFACT = "zero-events"


def has_control(config: Train) -> bool:
    """Return whether a run has a zero-event control: runs without events and runs of backprop have none."""
    return config.control and config.events != "never" and config.update == "local"


def train_control(config: Train, data: Dataset, run: Run) -> None:
    """Train the run's network again without events, log its test accuracy and store it."""
    run.message("training the control: the same network with zero events")
    control = train_variant(config, data, run, events="never")
    measured = evaluate(control.predict, data.test.x, data.test.y)
    run.images[SPLIT] = len(data.test)
    run.log(SPLIT, accuracy=measured.accuracy, loss=measured.loss)
    run.save_tensors(ARTIFACT, control.state_dict())


def load_control(run: Run, data: Dataset) -> Mapping[str, Learner]:
    """Return the stored control of a run, by name; empty if the run has none or stopped before training it.

    Raises UserError if the file is missing.
    """
    config = Train.from_values(run.config, source=f"run {run.id}")
    if ARTIFACT not in run.stored_tensors(ARTIFACT):
        if has_control(config) and run.record.status == "completed":
            raise UserError(f"run {run.id}: artifacts/{ARTIFACT}.pt, its control, is missing. Train it again.")
        return {}
    control = make_learner(config.model_copy(update={"events": "never"}), data, run)
    control.load_state_dict(run.load_tensors(ARTIFACT))
    return {NAME: control}


def backprop_baseline(config: Train, data: Dataset, run: Run) -> Mapping[str, Learner]:
    """Train the run's network by backpropagation instead, and return it by name."""
    run.message("training the backprop baseline: the same network trained by backpropagation")
    own, trained = (Train.from_values({"model": config.model, "update": update}) for update in ("local", "backprop"))
    # A default that --update backprop changes, unless the run has another value.
    changed = {
        name: getattr(trained, name)
        for name in Train.model_fields
        if getattr(config, name) == getattr(own, name) != getattr(trained, name)
    }
    always = {"update": "backprop", "readout": "supervised", "events": "always", "event_budget": 0}
    return {"backprop": train_variant(config, data, run, **{**changed, **always})}


def train_variant(config: Train, data: Dataset, run: Run, *, frozen: Sequence[int] = (), **changes: Any) -> Learner:
    """Train the run's network with `changes` to its configuration, and return it; the run itself stays unchanged."""
    return train_unlogged(config.model_copy(update=changes), data, run, frozen)
