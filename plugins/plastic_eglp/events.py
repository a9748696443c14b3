"""Controllers of the global event that decides when hidden layers learn: a scalar for a batch or for each stimulus."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import torch
from torch import Tensor

from plastic_cli.numerics.seeds import torch_generator
from plastic_eglp import rule

if TYPE_CHECKING:
    from plastic_eglp.config import Train

MEAN_DECAY = 0.99
"""Decay factor of the running mean of the signal, per batch."""

Strength = Literal["binary", "surprise", "normalized"]
SampledStrength = Literal["binary", "importance", "normalized"]

THRESHOLD_BATCHES = {"stimulus": 8, "batch": 100}
"""Number of past batches, by scope, from which the adaptive threshold is computed."""


class Controller:
    """Decides whether an event happens, and counts events.

    budget: maximum number of events, None for no limit. used: number of events so far; an event of part of a batch
    counts as that fraction.
    """

    per_stimulus = False
    """Whether single stimuli can trigger events."""

    def __init__(self, budget: float | None = None) -> None:
        if budget is not None and not budget >= 0:
            raise ValueError(f"budget is {budget}: it must be 0 or more, or None")
        self.budget = budget
        self.used = 0.0

    @property
    def exhausted(self) -> bool:
        """Whether the budget is used up."""
        return self.budget is not None and self.used >= self.budget

    @property
    def warming_up(self) -> bool:
        """Whether the last batch is one of the first, which are always events."""
        return False

    def should_trigger(self, loss: float | Tensor) -> float:
        """Return the strength of the event for a batch with this loss, 0 for no event.

        Raises ValueError for a tensor of several values.
        """
        if isinstance(loss, Tensor) and loss.numel() != 1:
            raise ValueError(f"loss has shape {tuple(loss.shape)}: give one number, or see `gate`")
        strength = 0.0 if self.exhausted else self._strength(loss)
        if strength > 0:
            self.used += 1
        return strength

    def _strength(self, loss: float | Tensor) -> float:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Return the state on which later events depend."""
        return {"used": self.used}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Restore what `state_dict` returned."""
        self.used = float(state["used"])


class AlwaysOnController(Controller):
    """An event of strength 1 at every batch."""

    def _strength(self, loss: float | Tensor) -> float:  # noqa: ARG002
        return 1.0


class NeverController(Controller):
    """No event: the hidden layers keep their initial weights. This is the control."""

    def _strength(self, loss: float | Tensor) -> float:  # noqa: ARG002
        return 0.0


class FixedRateController(Controller):
    """An event of strength 1 at random, with probability `rate` at every batch.

    warmup: number of first batches that are always events, as in ThresholdController, for a fair comparison.
    """

    def __init__(
        self,
        rate: float = 0.1,
        *,
        warmup: int = 0,
        budget: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(budget)
        if not 0 <= rate <= 1:
            raise ValueError(f"rate is {rate}: it must lie between 0 and 1")
        if warmup < 0:
            raise ValueError(f"warmup is {warmup}: it must be 0 or more")
        self.rate = rate
        self.warmup = warmup
        self.batches = 0
        self.generator = generator or torch.Generator().manual_seed(0)

    def _strength(self, loss: float | Tensor) -> float:  # noqa: ARG002
        self.batches += 1
        chance = float(torch.rand((), generator=self.generator))
        return float(self.batches <= self.warmup or chance < self.rate)

    def state_dict(self) -> dict[str, Any]:
        """Return the counts and the random state."""
        return {**super().state_dict(), "batches": self.batches, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Restore the counts and the random state."""
        super().load_state_dict(state)
        self.batches = int(state["batches"])
        self.generator.set_state(state["generator"].cpu())


class ThresholdController(Controller):
    """An event if a signal such as the loss is unusually high.

    threshold_factor: the published rule, an event if the signal exceeds this multiple of its running mean. None: an
    event if the signal is among the highest fraction `rate` of the last `window` signals. The fraction of events is
    then `rate`, as long as the signal's drift over the window is smaller than its scatter, and lower if the signal
    falls faster. per_stimulus: decide for each stimulus of a batch (`gate`) instead of for the batch's mean
    (`should_trigger`). strength: "binary", every event has strength 1; "surprise", the number of standard deviations of
    the signal above its running mean, at most 3; "normalized", 1 / mean of the last `window` signals, as random events
    of a SampledController have it, for signals of 0 or more. warmup: number of first batches that are always events of
    strength 1.

    Raises ValueError, with the name of the argument, for invalid values.
    """

    def __init__(
        self,
        threshold_factor: float | None = None,
        *,
        rate: float = 0.1,
        window: int = 100,
        warmup: int = 40,
        strength: Strength = "binary",
        per_stimulus: bool = False,
        budget: float | None = None,
    ) -> None:
        super().__init__(budget)
        if threshold_factor is not None and not 0 < threshold_factor < math.inf:
            raise ValueError(f"threshold_factor is {threshold_factor}: it must be above 0, or None")
        if not 0 <= rate <= 1:
            raise ValueError(f"rate is {rate}: it must lie between 0 and 1")
        if window < 1 or warmup < 0:
            raise ValueError(f"window is {window}, warmup {warmup}: they must be at least 1 and 0")
        if strength not in get_args(Strength):
            raise ValueError(f"strength is {strength!r}: it must be one of {', '.join(get_args(Strength))}")
        self.threshold_factor = threshold_factor
        self.rate = rate
        self.window = window
        self.warmup = warmup
        self.strength = strength
        self.per_stimulus = per_stimulus
        self.batches = 0
        # Only these two look at the running moments.
        self.needs_moments = threshold_factor is not None or strength == "surprise"
        self.mean: Tensor | None = None
        self.square: Tensor | None = None
        self.recent: Tensor | None = None

    def gate(self, signals: Tensor) -> Tensor:
        """Return the strength (n,) of the event for each signal (n,), 0 for no event. Does not synchronize a GPU."""
        # A restored state is on the CPU.
        self.mean, self.square, self.recent = (
            part if part is None else part.to(signals.device) for part in (self.mean, self.square, self.recent)
        )
        strengths = self._strengths(signals)
        self.batches += 1
        self._observe(signals)
        if self.exhausted:
            return torch.zeros_like(signals)
        # During the warm-up there is no reference yet for what is unusual.
        return torch.ones_like(signals) if self.warming_up else strengths

    @property
    def warming_up(self) -> bool:
        """Whether the last batch is one of the first `warmup`."""
        return 0 < self.batches <= self.warmup

    def _strength(self, loss: float | Tensor) -> float:
        return float(self.gate(torch.as_tensor(loss, dtype=torch.float32).detach().reshape(1)))

    def _strengths(self, signals: Tensor) -> Tensor:
        if self.recent is None:
            return torch.zeros_like(signals)
        exceeds = signals > self._threshold(self.recent)
        if self.strength == "binary":
            return exceeds.to(signals.dtype)
        if self.strength == "normalized":
            known = self.recent.where(torch.isfinite(self.recent), 0.0)
            return _divided_by_mean(exceeds.to(signals.dtype), known)
        assert self.mean is not None
        assert self.square is not None
        deviation = (self.square - self.mean.square()).clamp_min(0).sqrt()
        return exceeds * rule.surprise(signals, self.mean, deviation)

    def _threshold(self, recent: Tensor) -> Tensor | float:
        if self.threshold_factor is not None:
            assert self.mean is not None
            return self.threshold_factor * self.mean
        # With the new signal there are remembered + 1; the `highest` of them have an event, none at rate 0.
        remembered = len(recent)
        highest = math.floor(self.rate * (remembered + 1))
        if highest == 0 or highest > remembered:
            return -math.inf if highest else math.inf
        return recent.kthvalue(remembered + 1 - highest).values

    def _observe(self, signals: Tensor) -> None:
        known = signals if self.recent is None else torch.cat([self.recent, signals])
        self.recent = known[-self.window :]
        if not self.needs_moments:
            return
        mean, square = signals.mean(), signals.square().mean()
        if self.mean is None or self.square is None:
            self.mean, self.square = mean, square
            return
        # A signal that is not finite must not stay in the running mean.
        finite = torch.isfinite(square)
        self.mean = torch.where(finite, MEAN_DECAY * self.mean + (1 - MEAN_DECAY) * mean, self.mean)
        self.square = torch.where(finite, MEAN_DECAY * self.square + (1 - MEAN_DECAY) * square, self.square)

    def state_dict(self) -> dict[str, Any]:
        """Return the counts, the running moments and the recent signals."""
        own = {"batches": self.batches, "mean": self.mean, "square": self.square, "recent": self.recent}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.batches, self.mean = int(state["batches"]), state["mean"]
        self.square, self.recent = state["square"], state["recent"]


class SampledController(Controller):
    """An event at random for single stimuli, with a probability that rises with a signal such as the error.

    rate: mean probability over the last `window` signals, which include the new ones. uniform: share of the probability
    that is the same for all stimuli; with 1 the signal decides nothing, and events are random. The probabilities are
    `rule.event_probabilities`. strength: "importance", rate / probability (`rule.importance`): the expected change is
    that of random events, with less variance. "normalized", the same divided by the mean of the recent signals: if the
    signal is the size of the error, all events have about the same size, and they do not become smaller while the error
    falls. "binary", 1: the expected change is then that of another objective, in which stimuli of high signal count
    more. generator: random generator (CPU) of the events.

    Signals must not be negative; those that are not finite have no event.
    Raises ValueError, with the name of the argument, for invalid values.
    """

    per_stimulus = True

    def __init__(
        self,
        rate: float = 0.1,
        *,
        uniform: float = 0.1,
        strength: SampledStrength = "normalized",
        window: int = 1024,
        budget: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(budget)
        for name, value in (("rate", rate), ("uniform", uniform)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}: it must lie between 0 and 1")
        if window < 1:
            raise ValueError(f"window is {window}: it must be at least 1")
        if strength not in get_args(SampledStrength):
            raise ValueError(f"strength is {strength!r}: it must be one of {', '.join(get_args(SampledStrength))}")
        self.rate = rate
        self.uniform = uniform
        self.strength = strength
        self.window = window
        self.generator = generator or torch.Generator().manual_seed(0)
        self.recent: Tensor | None = None

    def gate(self, signals: Tensor) -> Tensor:
        """Return the strength (n,) of the event for each signal (n,), 0 for no event.

        Raises ValueError for a negative signal.
        """
        if bool((signals < 0).any()):
            raise ValueError("the signal is negative, and probabilities of events rise from 0: use another signal")
        finite = torch.isfinite(signals)
        known = signals.where(finite, 0.0)
        # A signal of a batch that is larger than the window is still compared with all others of its batch. A restored
        # state is on the CPU.
        before = known[:0] if self.recent is None else self.recent.to(signals.device)
        recent = torch.cat([before, known])[-max(self.window, len(known)) :]
        self.recent = recent[-self.window :]
        chance = torch.rand(len(signals), generator=self.generator).to(signals)
        if self.exhausted or not len(signals):
            return torch.zeros_like(signals)
        probabilities = rule.event_probabilities(known, recent, self.rate, self.uniform)
        happens = finite & (chance < probabilities)
        if self.strength == "binary":
            return happens.to(signals.dtype)
        strengths = rule.importance(probabilities, self.rate)
        if self.strength == "normalized":
            strengths = _divided_by_mean(strengths, recent)
        return strengths.where(happens, 0.0)

    def _strength(self, loss: float | Tensor) -> float:
        return float(self.gate(torch.as_tensor(loss, dtype=torch.float32).detach().reshape(1)))

    def state_dict(self) -> dict[str, Any]:
        """Return the count, the recent signals and the random state."""
        return {**super().state_dict(), "recent": self.recent, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.recent = state["recent"]
        self.generator.set_state(state["generator"].cpu())


def _divided_by_mean(strengths: Tensor, recent: Tensor) -> Tensor:
    """Return strengths divided by the mean of recent signals; 0 if there is no error, as there is nothing to learn."""
    mean = recent.mean()
    return torch.where(mean > 0, strengths / mean, torch.zeros_like(strengths))


def make_controller(config: Train, seed: int) -> Controller:
    """Return the controller of events that a configuration describes."""
    budget = config.event_budget or None
    if config.events == "always":
        return AlwaysOnController(budget)
    if config.events == "never":
        return NeverController()
    if config.events == "fixed":
        generator = torch_generator(seed, "events")
        return FixedRateController(config.event_rate, warmup=config.event_warmup, budget=budget, generator=generator)
    if config.events == "sampled":
        return SampledController(
            config.event_rate,
            uniform=config.event_uniform,
            strength=cast("SampledStrength", config.event_strength),
            window=THRESHOLD_BATCHES["stimulus"] * config.batch_size,
            budget=budget,
            generator=torch_generator(seed, "events"),
        )
    per_stimulus = config.event_scope == "stimulus"
    return ThresholdController(
        config.threshold_factor or None,
        rate=config.event_rate,
        window=THRESHOLD_BATCHES[config.event_scope] * (config.batch_size if per_stimulus else 1),
        warmup=config.event_warmup,
        strength=cast("Strength", config.event_strength),
        per_stimulus=per_stimulus,
        budget=budget,
    )
