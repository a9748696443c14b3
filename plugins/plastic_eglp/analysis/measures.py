"""The analyses of EGLP: contribution of each layer, effect of the event rate, receptive fields and events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from plastic_cli import UserError
from plastic_cli.analysis.classification import evaluate
from plastic_cli.classifier.data import trained_on
from plastic_cli.classifier.fit import fit_unlogged, predict
from plastic_cli.classifier.module import ModuleLearner
from plastic_cli.classifier.networks import seeded
from plastic_cli.classifier.weight_snapshots import stored_shape
from plastic_cli.data.datasets import Split
from plastic_cli.figures.weights import weights_picture
from plastic_cli.numerics.seeds import derived_seed
from plastic_eglp.analysis import figures
from plastic_eglp.config import OWN_MODELS, SOFTHEBB_MLP, SOFTHEBB_MODELS
from plastic_eglp.control import NAME, load_control, train_variant
from plastic_eglp.softhebb import HiddenLearner
from plastic_eglp.training import Learner, build, counts_of, hidden_layers, make_learner

if TYPE_CHECKING:
    from plastic_cli import Run
    from plastic_cli.data.datasets import Dataset
    from plastic_eglp.config import Train

SHOWN_UNITS = 64
DOUBT_EPOCHS = 5
"""Epochs, at most, of the networks that find doubtful images: after more, they are sure of their errors too."""


def measure_sensitivity(config: Train, run: Run) -> None:
    """Train the network without learning in one hidden layer at a time, and without learning in all of them."""
    data = trained_on(run)
    layers = hidden_layers(make_learner(config, data, run), data)
    rows: list[dict[str, Any]] = []
    conditions: list[tuple[str, Sequence[int]]] = [("all learn", ())]
    if len(layers) > 1:
        conditions += [(f"{name} fixed", (number,)) for number, name in enumerate(layers)]
    for name, frozen in conditions:
        run.message(f"training again: {name}")
        rows.append({"condition": name, **_measured(train_variant(config, data, run, frozen=frozen), data)})
    run.message(f"training again: {NAME}")
    # With backprop there are no events: the control is a network whose hidden layers do not learn.
    fixed = tuple(range(len(layers)))
    never: dict[str, Any] = {"frozen": fixed} if config.update == "backprop" else {"events": "never"}
    rows.append({"condition": NAME, **_measured(train_variant(config, data, run, **never), data)})
    frame = pd.DataFrame(rows)
    for row in rows:
        run.log("test", {"condition": row["condition"]}, accuracy=row["accuracy"])
        run.results[f"{row['condition']}/accuracy"] = float(row["accuracy"])
    run.save_table("sensitivity", frame)
    run.save_figure("sensitivity", figures.sensitivity_figure(frame))


def measure_event_rates(config: Train, run: Run, rates: Sequence[float]) -> None:
    """Train the network at each event rate, with its kind of events and random ones, no budget, and without events.

    Random events: `fixed`, batches, for triggered events, and single images (--event-uniform 1) for sampled events.

    Raises UserError for a run without events that have a rate: of backprop, or of SoftHebb's published networks.
    """
    if config.update == "backprop":
        raise UserError(f"run {run.id} was trained by backprop, which has no events. Choose a run with --update local.")
    if config.model in SOFTHEBB_MODELS:
        raise UserError(
            f"run {run.id} was trained with --model {config.model}, whose hidden layers learn from every image: it has"
            " no event rate. Choose a run of another network."
        )
    data = trained_on(run)
    run.message(f"training again: {NAME}")
    images = len(data.train) * config.epochs
    none = {"rate": 0.0, **_measured(train_variant(config, data, run, events="never"), data)}
    kinds: Mapping[str, dict[str, Any]] = {"triggered": {"events": "triggered"}, "fixed": {"events": "fixed"}}
    if config.events == "sampled":
        kinds = {"sampled": {}, "fixed": {"event_uniform": 1.0}}
    rows: list[dict[str, Any]] = [{"events by": name, **none} for name in kinds]
    for rate in sorted(rates):
        for name, kind in kinds.items():
            run.message(f"training again: {name}, rate {rate:g}")
            # Without a factor the threshold adapts to the rate.
            changes: dict[str, Any] = {**kind, "event_rate": rate, "event_budget": 0, "threshold_factor": 0.0}
            rows.append(
                {"events by": name, "rate": rate, **_measured(train_variant(config, data, run, **changes), data)}
            )
    for row in rows:
        labels = {"events by": row["events by"], "rate": row["rate"]}
        run.log("test", labels, accuracy=row["accuracy"], events=row["events"])
        run.results[f"{row['events by']} {row['rate']:g}/accuracy"] = float(row["accuracy"])
    frame = pd.DataFrame(rows)
    # The measured fraction of images: it differs from the rate, because the first batches are always events.
    frame["share"] = frame["event_images"] / images
    run.save_table("event_rates", frame)
    run.save_figure("event_rates", figures.event_rates_figure(frame))


def measure_event_images(config: Train, run: Run) -> None:
    """Train the network again, and measure which images have events in each epoch: `event_image_table`.

    Raises UserError for a run whose events are those of whole batches.
    """
    data = trained_on(run)
    with seeded(derived_seed(run.seed, "global")):
        learner = make_learner(config, data, run)
        counts = counts_of(learner)
        if (
            config.update == "backprop"
            or counts is None
            or isinstance(counts, HiddenLearner)
            or not counts.controller.per_stimulus
        ):
            raise UserError(
                f"run {run.id} has no events of single images. Choose a run with --events sampled, or with --events"
                " triggered and --event-scope stimulus."
            )
        run.message("training again: which images have events")
        had_event = images_with_events(learner, counts.controller, config, data, run)
    table = event_image_table(had_event, data.train.y.cpu(), doubtful_images(config, data, run))
    last = table.iloc[-1]
    for name in ("share", "doubtful", "again", "largest_class"):
        run.results[f"images with events/{name}"] = float(last[name])
    run.save_table("event_images", table)
    run.save_figure("event_images", figures.event_images_figure(table))


def images_with_events(learner: Learner, controller: Any, config: Train, data: Dataset, run: Run) -> Tensor:
    """Train a new learner; return which images had an event in which epoch (epochs, images).

    An image that would trigger an event has one here, if the budget allows it when its batch comes.
    """
    happened: list[Tensor] = []
    gate = controller.gate

    def recorded(signals: Tensor) -> Tensor:
        strengths: Tensor = gate(signals)
        happened.append((strengths > 0).cpu())
        return strengths

    controller.gate = recorded
    fit_unlogged(learner, data, run, epochs=config.epochs, batch_size=config.batch_size)
    images = len(data.train)
    order = run.generator("order")
    found = torch.zeros(config.epochs, images, dtype=torch.bool)
    for epoch, in_order in zip(found, torch.cat(happened).view(config.epochs, images), strict=True):
        epoch[torch.randperm(images, generator=order)] = in_order
    return found


def doubtful_images(config: Train, data: Dataset, run: Run) -> Tensor:
    """Return which training images (n,) are misclassified by a network that learned from the other half of them.

    The network is that of the run, trained by backpropagation for at most DOUBT_EPOCHS epochs.
    """
    changes: dict[str, Any] = {"update": "backprop", "readout": "supervised", "events": "always", "event_budget": 0}
    changes |= {"epochs": min(config.epochs, DOUBT_EPOCHS)}
    halves = torch.randperm(len(data.train), generator=run.generator("halves")).to(data.train.y.device).chunk(2)
    doubtful = torch.zeros(len(data.train), dtype=torch.bool)
    for learned, other in (halves, halves[::-1]):
        run.message("training by backpropagation on half of the images")
        half = replace(data, train=Split(data.train.x[learned], data.train.y[learned]))
        gradient = train_variant(config, half, run, **changes)
        predicted = predict(gradient.predict, data.train.x[other]).argmax(1)
        doubtful[other.cpu()] = (predicted != data.train.y[other]).cpu()
    return doubtful


def event_image_table(had_event: Tensor, y: Tensor, doubtful: Tensor) -> pd.DataFrame:
    """Return, for each epoch, what share of the images had an event, and of which kind these are.

    had_event (epochs, n), labels y (n,), doubtful (n,). Columns: epoch (from 1); share, of all images; of the images
    with events doubtful, again (had one in the epoch before, missing in the first) and largest_class (those of the most
    frequent class); random_doubtful, random_again and random_largest_class, the expected values of as many random
    images.
    """
    rows, before = [], torch.zeros(len(y), dtype=torch.bool)
    for epoch, now in enumerate(had_event, 1):
        rows.append(
            {
                "epoch": epoch,
                "share": _share(now),
                "doubtful": _share(doubtful[now]),
                "again": _share(before[now]) if epoch > 1 else float("nan"),
                "largest_class": _share_of_largest(y[now]),
                "random_doubtful": _share(doubtful),
                "random_again": _share(before) if epoch > 1 else float("nan"),
                "random_largest_class": _share_of_largest(y),
            }
        )
        before = now
    return pd.DataFrame(rows)


def _share(condition: Tensor) -> float:
    return float(condition.double().mean()) if len(condition) else float("nan")


def _share_of_largest(y: Tensor) -> float:
    return float(y.bincount().max() / len(y)) if len(y) else float("nan")


def save_features(run: Run) -> None:
    """Write the receptive fields of the first layer before and after training as one picture, on one color scale."""
    data = trained_on(run)
    before, after = (
        first_weights(build(run, data, trained=trained), data)[:SHOWN_UNITS].cpu() for trained in (False, True)
    )
    shape = receptive_shape(run, before)
    if shape is None:
        run.message("no picture of the receptive fields: the inputs of a unit are not an image of 1 or 3 channels")
        return
    title = f"Receptive fields of {len(before)} units of the first layer: eglp on {run.record.dataset}, seed {run.seed}"
    run.save_image("features", weights_picture({"before training": before, "after training": after}, shape, title))


def receptive_shape(run: Run, weights: Tensor) -> tuple[int, int, int] | None:
    """Return the shape of the input of a unit of the first layer: the image, or a patch; None if it is no image."""
    if run.config["model"] not in (*OWN_MODELS, *SOFTHEBB_MODELS):
        return stored_shape(run, weights.shape[1])
    channels, height, width = (int(size) for size in run.record.data["image_shape"])
    if channels not in (1, 3):
        return None
    if run.config["model"] in ("mlp", SOFTHEBB_MLP):
        return channels, height, width
    side = round((weights.shape[1] / channels) ** 0.5)
    return channels, side, side


def save_events(run: Run) -> None:
    """Write the raster plot of events, and the number of events in each epoch."""
    raster = event_raster(run)
    run.save_table("events", raster.groupby("epoch")["event"].sum().rename("events").reset_index())
    run.save_figure("events", figures.raster_figure(raster))


def event_raster(run: Run) -> pd.DataFrame:
    """Return one row for each batch: epoch (from 1), batch (from 1), event (0 or 1)."""
    parts = []
    for name in run.stored_tensors("events-"):
        stored = run.load_tensors(name)
        events = stored["events"].int().tolist()
        if not events:  # before the first epoch
            continue
        batches = range(1, len(events) + 1)
        parts.append(pd.DataFrame({"epoch": int(stored["epoch"]), "batch": batches, "event": events}))
    raster = pd.concat(parts) if parts else pd.DataFrame(columns=["epoch", "batch", "event"])
    if raster.empty:
        raise UserError(f"run {run.id} has no stored events to show. Train it for at least one epoch.")
    return raster.reset_index(drop=True)


def measure_control(run: Run) -> None:
    """Evaluate the stored zero-event control of the run."""
    data = trained_on(run)
    for name, control in load_control(run, data).items():
        run.results[f"{name}/accuracy"] = float(evaluate(control.predict, data.test.x, data.test.y).accuracy)


def first_weights(learner: Learner, data: Dataset) -> Tensor:
    """Return the weights (units, inputs) of the first layer, or its filters (channels, patch)."""
    if not isinstance(learner, ModuleLearner):
        return learner.first_weights
    weights = learner.first_layer(data.train.x[:2])
    assert weights is not None
    return weights.detach().flatten(1)


def _measured(learner: Learner, data: Dataset) -> dict[str, float]:
    counts = counts_of(learner)
    return {
        "accuracy": float(evaluate(learner.predict, data.test.x, data.test.y).accuracy),
        "events": 0 if counts is None else counts.events,
        "event_images": 0 if counts is None else counts.event_stimuli,
        "synaptic_updates": 0 if counts is None else counts.synaptic_updates,
    }
