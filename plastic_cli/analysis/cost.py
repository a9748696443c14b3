"""What learning costs: the price of a whole training from its configuration, and of one step as torch counts it.

No function here imports torch before it counts a step, so that stored runs are priced fast.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from plastic_cli.errors import UserError
from plastic_cli.plugins.discovery import find_rule

if TYPE_CHECKING:
    from torch import nn

    from plastic_cli.credit.protocol import Credit, Loss


@dataclass(frozen=True)
class Cost:
    """What the training of one run costs. It is counted from shapes, so it does not depend on kernels and devices.

    samples: number of training samples, each as often as the rule learned from it. inference_flops: floating-point
    operations of one prediction of each training sample. learning_flops: of all else that the rule computes to learn:
    further forward passes, backward passes, feedback, changes of weights and of learned feedback. In both, matrix
    products, outer products, convolutions and attention count, a multiplication and an addition as two operations.
    Operations on single numbers do not count: activation functions, normalization, noise, the step of the optimizer.

    messages: numbers that reach the hidden layers from outside, which are neither activity nor weights of their own
    synapses. A number counts once for each layer that it reaches, however many units use it. So a scalar reward or an
    event counts 1 for a sample and a layer, direct feedback the number of outputs, and an error that passes from layer
    to layer the number of units of the next layer. The target of the readout and the weights that a feedback path
    copies do not count.

    updates: number of changes of single weights: for each update of a tensor of weights, the number of its entries.
    All weights that learn count: those of the layers, of learned feedback, and of the heads of local losses. Biases,
    parameters of normalization, and feedback that is drawn or copied do not count.

    state_bytes: what is kept between two steps: parameters, state of the optimizer, traces, feedback weights, learned
    parameters of the rule, stored samples. step_bytes: what a step holds in addition, from where it is computed until
    the weights change: inputs and responses of the layers that learn, noise and perturbed copies, and changes of
    weights that wait for an optimizer. Counters and single numbers do not count, and neither do the data set,
    evaluations, and the temporary numbers of one layer.

    samples, operations, messages and updates are totals of the training; bytes are those of the largest step.
    """

    samples: int
    inference_flops: int
    learning_flops: int
    messages: int
    updates: int
    state_bytes: int
    step_bytes: int


class TrainedRun(Protocol):
    """What is read from the record of a run, such as a RunRecord, to price its training."""

    rule: str
    status: str
    config: dict[str, Any]
    data: dict[str, Any]
    summary: dict[str, float | None]
    speed: dict[str, float]


KNOWN_NETWORKS = ("plastic_cli.classifier.networks:", "torchvision.models:")
"""Modules whose networks are made without being asked for; making another one runs code that the record names."""
_NAMES_CODE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def cost_of(record: TrainedRun, *, own_code: bool = False) -> Cost | None:
    """Return the cost of the training of a run, whatever version stored it. Nothing is trained or measured.

    own_code: also make networks and environments that the run names as MODULE:NAME, which runs this code. Networks of
    plastic and of torchvision are always made.

    None if the run is not completed, if its rule has no cost or is not installed, and if the network or the environment
    of the run cannot be made here.
    """
    if record.status != "completed" or not (own_code or _is_known(list(record.config.values()))):
        return None
    try:
        function: Callable[[TrainedRun], Cost] | None = find_rule(record.rule).member("cost")
        return None if function is None else function(record)
    except (UserError, TypeError):
        # A damaged record can have a list in place of a word.
        return None


def _is_known(value: Any) -> bool:
    """Return whether no text in a value names code, except networks that are known."""
    if isinstance(value, list | tuple):
        return all(map(_is_known, value))
    return not isinstance(value, str) or not _NAMES_CODE.fullmatch(value) or value.startswith(KNOWN_NETWORKS)


def samples_of(record: TrainedRun) -> int:
    """Return the number of training samples of a completed run; raises UserError if the record does not have it."""
    samples = record.speed.get("samples")
    if not samples or samples != int(samples):
        raise UserError("the record of the run has no number of training samples, so its cost is unknown.")
    return int(samples)


def count_of(record: TrainedRun, metric: str) -> int:
    """Return a number of events of the run, such as "train/events"; raises UserError if the run did not log it."""
    value = record.summary.get(metric)
    if value is None:
        raise UserError(f"the run has no {metric}, so its cost is unknown.")
    return round(value)


def epoch_steps(record: TrainedRun, config: Mapping[str, Any]) -> int:
    """Return the number of steps of a run that passes `epochs` times over its images in batches of `batch_size`."""
    images, rest = divmod(samples_of(record), config["epochs"])
    if rest:
        raise UserError("the number of training samples is not a multiple of the epochs, so the cost is unknown.")
    return int(config["epochs"] * -(-images // config["batch_size"]))


# ------------------------------------------------------------------------------------------------ one step, by torch


@dataclass(frozen=True)
class StepCost:
    """Floating-point operations of one step. forward: of one prediction of the batch. learning: of all the rest.

    events: number of events in the step, of a rule that counts them.

    The same operations count as in `Cost`. torch counts what it computes: it does not see what other programs compute,
    such as kernels of Numba.
    """

    forward: int
    learning: int
    events: int = 0


def step_cost(credit: Credit, model: nn.Module, inputs: Any, loss: Loss) -> StepCost:
    """Count the operations of one step of a credit rule for a batch, in the present mode of the model.

    What a rule computes for its first batch only, such as which samples a layer mixes, does not count.

    inputs, loss: as for `credit.backward`. A rule may count its events as `events`. The step has no effect on the
    model, the rule and torch's random states.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from plastic_cli.analysis.without_effect import without_effect
    from plastic_cli.credit.protocol import call

    with without_effect(model, credit) as begin_again:
        with torch.no_grad(), FlopCounterMode(display=False) as prediction:
            call(model, inputs)
        for parameter in model.parameters():
            parameter.grad = None
        # The counter calls functions of its own, so a rule that looks at the functions looks again.
        with FlopCounterMode(display=False):
            credit.backward(inputs, loss)
        begin_again()
        before = _events(credit)
        with FlopCounterMode(display=False) as step:
            credit.backward(inputs, loss)
        events = _events(credit) - before
    forward = int(prediction.get_total_flops())
    return StepCost(forward, int(step.get_total_flops()) - forward, events)


def _events(credit: Credit) -> int:
    events = getattr(credit, "events", 0)
    return events if isinstance(events, int) else 0
