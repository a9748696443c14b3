"""The learner of EGLP: the readout learns from every batch, the hidden layers only during events."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from plastic_eglp.adam import Adam
from plastic_eglp.change import Feedback
from plastic_eglp.events import Controller, SampledController, ThresholdController
from plastic_eglp.layers import LocalLinear
from plastic_eglp.network import EGLPNetwork
from plastic_eglp.signals import Novelty, Signal, label_error, margin, uncertainty

Update = Literal["local", "backprop"]
FEWEST_UNITS = 16
"""With fewer rows or columns in a product of matrices, the bits of a row can depend on the number of rows."""


class EGLPLearner:
    """Trains an EGLPNetwork batch by batch.

    A controller with `per_stimulus` selects the surprising stimuli of each batch. They are collected until there are
    `gather` of them (a whole batch if None or 0). The network then sees them again and its hidden layers learn: this is
    one event. During the controller's warm-up nothing is collected: each batch is an event, however small. Any other
    controller decides about a batch as a whole. A SampledController draws single stimuli of each batch, and they learn
    at once, from the activity that is there. Each stimulus of an event changes the weights by lr / batch_size, so a
    collected event and a batch have the same effect. Where the controller decides about a batch as a whole, this is
    lr / n for a batch of n stimuli, such as a smaller last one.

    feedback: "none", each layer learns by its own rule, or "direct", learning is modulated by the error through fixed
    random weights. signal: what the controller receives: the cross-entropy ("loss"), one minus the probability of the
    label ("error"), the largest other logit minus the label's logit ("margin"), or, without labels, the squared
    distance of the last hidden activity from its running mean, in units of its variance ("novelty"), or one minus the
    largest probability ("uncertainty"). frozen: hidden
    layers, counted from 0, that never learn. update: "backprop" trains all layers by backpropagation (Adam) instead,
    the upper bound.

    events: number of updates of the hidden layers. event_stimuli: number of stimuli in them. had_event: for each batch,
    whether the hidden layers learned.

    Raises ValueError, with the name of the argument, for invalid values.
    """

    def __init__(
        self,
        network: EGLPNetwork,
        controller: Controller,
        *,
        batch_size: int,
        feedback: Feedback = "direct",
        signal: Signal = "loss",
        gather: int | None = None,
        readout_lr: float = 0.001,
        update: Update = "local",
        anneal: bool = True,
        frozen: Sequence[int] = (),
    ) -> None:
        for name, value, choices in (
            ("feedback", feedback, get_args(Feedback)),
            ("signal", signal, get_args(Signal)),
            ("update", update, get_args(Update)),
        ):
            if value not in choices:
                raise ValueError(f"{name} is {value!r}: it must be one of {', '.join(choices)}")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}: it must be 1 or more")
        if gather is not None and gather < 0:
            raise ValueError(f"gather is {gather}: it must be 1 or more, or None or 0 for a batch")
        if not set(frozen) <= set(range(len(network.hidden))):
            raise ValueError(f"frozen is {tuple(frozen)}: hidden layers are 0 to {len(network.hidden) - 1}")
        if update == "backprop" and isinstance(network.readout, LocalLinear):
            raise ValueError(
                "update is 'backprop': no gradient flows through a local readout, so it must be supervised"
            )
        normalized = isinstance(controller, ThresholdController) and controller.strength == "normalized"
        if signal == "margin" and (normalized or isinstance(controller, SampledController)):
            own = "strength 'normalized'" if normalized else "a SampledController"
            raise ValueError(f"signal is 'margin', which can be negative: {own} needs another signal")
        self.network = network
        self.controller = controller
        self.batch_size = batch_size
        self.feedback = feedback
        self.signal = signal
        self.gather = gather or batch_size
        self.update = update
        self.readout_lr = readout_lr
        self.anneal = anneal
        self.frozen = frozenset(frozen)
        self.events = 0
        self.event_stimuli = 0
        self.had_event: list[bool] = []
        self._scale = 1.0
        self._kept: list[tuple[Tensor, Tensor, Tensor]] = []
        # The hidden layers do not change until the event, so the activity of its stimuli is kept. But in small products
        # the bits depend on the other stimuli, and batch normalization does too.
        self._kept_activity: list[list[tuple[Tensor, Tensor]]] = []
        fewest = min(len(layer.weight) for layer in network.local_layers())
        self._keeps_activity = network.model == "mlp" and fewest >= FEWEST_UNITS
        self._novelty = Novelty()
        local_readout = isinstance(network.readout, LocalLinear)
        if update == "backprop":
            network.requires_grad_(True)
            for name, parameter in network.named_parameters():
                parameter.requires_grad_(not any(name.startswith(f"hidden.{number}.") for number in self.frozen))
        learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
        # With a local readout there is nothing to optimize.
        self.optimizer = None if local_readout and update == "local" else Adam(learned, lr=readout_lr)

    # --------------------------------------------------------------------------------------------------- learning

    @property
    def collects(self) -> bool:
        """Whether stimuli that can trigger an event are collected, and presented again."""
        return self.controller.per_stimulus and not isinstance(self.controller, SampledController)

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Decrease the learning rates linearly, to 1 / epochs of their initial values in the last epoch."""
        self._scale = 1 - epoch / epochs if self.anneal else 1.0
        if self.optimizer is not None:
            self.optimizer.lr = self.readout_lr * self._scale

    def train_batch(self, x: Tensor, y: Tensor) -> Tensor:
        """Learn from a batch x (n, features), y (n,); return its mean cross-entropy before the update."""
        if not self.network.training:
            self.network.train()
        before = self.events
        loss = self._train_by_backprop(x, y) if self.update == "backprop" else self._train_gated(x, y)
        self.had_event.append(self.events > before)
        return loss

    def _train_gated(self, x: Tensor, y: Tensor) -> Tensor:
        """Update the readout, and the hidden layers if there is an event."""
        with torch.no_grad():
            logits = self.network(x)
            losses, error = self._train_readout(logits, y)
            loss = losses.mean()
            if isinstance(self.controller, SampledController):
                self._learn_at_once(error, self._signals(logits, losses, error, y))
            elif self.collects:
                self._collect(x, y, self._signals(logits, losses, error, y))
            else:
                signal = loss if self.signal == "loss" else self._signals(logits, losses, error, y).mean()
                self._learn(error, self.controller.should_trigger(signal), len(y))
        return loss

    def _train_by_backprop(self, x: Tensor, y: Tensor) -> Tensor:
        assert self.optimizer is not None
        logits = self.network.readout(self.network.activity(x, graph=True)[-1].flatten(1))
        loss = functional.cross_entropy(logits, y)
        self.optimizer.step(torch.autograd.grad(loss, self.optimizer.parameters))
        self._count(len(y))
        return loss.detach()

    def _train_readout(self, logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Update a supervised readout along the gradient of the mean cross-entropy, for one layer the delta rule.

        Returns each stimulus' cross-entropy (n,) and the error, softmax minus one-hot (n, classes).
        """
        losses = functional.cross_entropy(logits, y, reduction="none")
        error = _error(logits, y)
        if self.optimizer is not None:
            mean = error / len(error)
            self.optimizer.step([mean.T @ self.network.last_hidden, mean.sum(0)])
        return losses, error

    def _collect(self, x: Tensor, y: Tensor, signals: Tensor) -> None:
        """Collect the stimuli that can trigger an event; learn once there are enough, in the warm-up at once."""
        strengths = self.controller.gate(signals)  # type: ignore[attr-defined]
        chosen = strengths.nonzero()[:, 0]
        if len(chosen):
            self._kept.append((x.index_select(0, chosen), y.index_select(0, chosen), strengths.index_select(0, chosen)))
            if self._keeps_activity and len(x) >= FEWEST_UNITS:
                self._kept_activity.append(self.network.stored(chosen))
            if self.controller.warming_up or sum(len(kept[1]) for kept in self._kept) >= self.gather:
                x, y, strengths = (
                    torch.cat(parts)[: self._remaining_stimuli()] for parts in zip(*self._kept, strict=True)
                )
                activity = self._kept_activity if len(self._kept_activity) == len(self._kept) else []
                self._kept, self._kept_activity = [], []
                if len(y):
                    known = activity and len(y) >= FEWEST_UNITS
                    error = _error(self.network.present(x, activity) if known else self.network(x), y)
                    # Counted in whole stimuli, so that sums of fractions of a batch reach the budget exactly.
                    self.controller.used = (round(self.controller.used * self.batch_size) + len(y)) / self.batch_size
                    self._learn(error, strengths * (len(y) / self.batch_size), len(y))

    def _learn_at_once(self, error: Tensor, signals: Tensor) -> None:
        """Let the hidden layers learn from the stimuli of the batch that have an event, and skip the others."""
        strengths = self.controller.gate(signals)  # type: ignore[attr-defined]
        chosen = strengths.nonzero()[:, 0][: self._remaining_stimuli()]
        if len(chosen):
            self.controller.used = (round(self.controller.used * self.batch_size) + len(chosen)) / self.batch_size
            for layer in self.network.local_layers():
                layer.keep(chosen)
            share = len(chosen) / self.batch_size
            self._learn(error.index_select(0, chosen), strengths.index_select(0, chosen) * share, len(chosen))

    def _remaining_stimuli(self) -> int | None:
        """Return how many stimuli the controller's budget still allows, None for no limit."""
        if self.controller.budget is None:
            return None
        allowed = math.floor(self.controller.budget * self.batch_size)
        return max(0, allowed - round(self.controller.used * self.batch_size))

    def _learn(self, error: Tensor, event: float | Tensor, stimuli: int) -> None:
        """Let the hidden layers learn from their stored activity, if there is an event."""
        if not isinstance(event, Tensor) and event == 0:
            return
        self.network.local_update(error, event * self._scale, feedback=self.feedback, frozen=self.frozen)
        self._count(stimuli)

    def _count(self, stimuli: int) -> None:
        self.events += 1
        self.event_stimuli += stimuli

    def _signals(self, logits: Tensor, losses: Tensor, error: Tensor, y: Tensor) -> Tensor:
        """Return the controller's signal (n,) for each stimulus."""
        if self.signal == "loss":
            return losses
        if self.signal == "error":
            return label_error(error, y)
        if self.signal == "margin":
            return margin(logits, y)
        if self.signal == "uncertainty":
            return uncertainty(logits)
        return self._novelty.of(self.network.last_hidden)

    # ------------------------------------------------------------------------------------------------- predictions

    def predict(self, x: Tensor) -> Tensor:
        """Return logits (n, classes)."""
        self.network.eval()
        with torch.no_grad():
            logits: Tensor = self.network(x)
        return logits

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the activity of each hidden layer, (n, units)."""
        self.network.eval()
        with torch.no_grad():
            return self.network.features(x)

    @property
    def synaptic_updates(self) -> int:
        """Number of changes of single hidden weights."""
        layers = enumerate(self.network.layers())
        return self.events * sum(layer.weight.numel() for number, layer in layers if number not in self.frozen)

    @property
    def first_weights(self) -> Tensor:
        """The weights (units, inputs) of the first layer, or its filters (channels, patch)."""
        return self.network.layers()[0].weight.detach().flatten(1)

    # ------------------------------------------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """Return the network, the optimizer, the controller and the collected stimuli."""
        return {
            "network": self.network.state_dict(),
            "controller": self.controller.state_dict(),
            "optimizer": None if self.optimizer is None else self.optimizer.state_dict(),
            "events": self.events,
            "event_stimuli": self.event_stimuli,
            "scale": self._scale,
            "kept": [list(kept) for kept in self._kept],
            # So that a resumed run has the same bits on every machine.
            "kept_activity": [[list(of_layer) for of_layer in batch] for batch in self._kept_activity],
            "mean": self._novelty.mean,
            "variance": self._novelty.variance,
        }

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Restore what `state_dict` returned."""
        self.network.load_state_dict(state["network"])
        self.controller.load_state_dict(state["controller"])
        if self.optimizer is not None:
            self.optimizer.load_state_dict(state["optimizer"])
        self.events = int(state["events"])
        self.event_stimuli = int(state["event_stimuli"])
        self._scale = float(state.get("scale", 1.0))
        device = self.network.readout.weight.device
        self._kept = [(x.to(device), y.to(device), strengths.to(device)) for x, y, strengths in state["kept"]]
        self._kept_activity = [
            [(response.to(device), post.to(device)) for response, post in batch]
            for batch in state.get("kept_activity", [])
        ]
        self._novelty.mean, self._novelty.variance = state["mean"], state["variance"]


def _error(logits: Tensor, y: Tensor) -> Tensor:
    """Return softmax minus one-hot (n, classes), the gradient of each stimulus' cross-entropy."""
    return torch.softmax(logits, 1).scatter_(1, y[:, None], -1.0, reduce="add")
