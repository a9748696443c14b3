"""What says when hidden layers learn: controllers of the global event, one scalar for a batch or for each stimulus."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from plastic_eglp import rule

MEAN_DECAY = 0.99
"""How much the running mean of the signal keeps at each batch."""

Strength = Literal["binary", "surprise"]


class Controller:
    """Decides whether an event happens, and keeps count.

    budget: how many events there may be, without end if None. used: how many there were; an event of part of a batch
    counts as that part.
    """

    per_stimulus = False
    """Whether it looks at every stimulus on its own."""

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
        """Whether the batch that it saw last is one of the first, which are events whatever their signal."""
        return False

    def should_trigger(self, loss: float | Tensor) -> float:
        """Return the strength of the event that a batch's loss causes, 0 for none.

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
        """Return what decides about later events."""
        return {"used": self.used}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Take back what `state_dict` returned."""
        self.used = float(state["used"])


class AlwaysOnController(Controller):
    """An event of strength 1 at every batch."""

    def _strength(self, loss: float | Tensor) -> float:  # noqa: ARG002
        return 1.0


class NeverController(Controller):
    """No event: hidden layers stay as they were drawn, the control of every comparison."""

    def _strength(self, loss: float | Tensor) -> float:  # noqa: ARG002
        return 0.0


class FixedRateController(Controller):
    """An event of strength 1 at random, with probability `rate` at every batch, whatever the loss.

    warmup: batches at the start that are all events, as ThresholdController has them, to compare like with like.
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
        """Take back counts and random state."""
        super().load_state_dict(state)
        self.batches = int(state["batches"])
        self.generator.set_state(state["generator"].cpu())


class ThresholdController(Controller):
    """An event where a signal such as the loss is unusually high.

    threshold_factor: an event where the signal exceeds this many times its running mean, the published rule. None: an
    event where it is among the highest `rate` of the last `window` signals, so that as many events happen as are asked
    for while the signal drifts less over the window than it scatters; fewer where it falls faster. per_stimulus: look
    at each stimulus of a batch on its own (`gate`), not at the batch's mean (`should_trigger`). strength: "binary"
    gives every event strength 1, "surprise" how far the signal lies above its running mean, in standard deviations, 3
    at most. warmup: batches at the start that are events of strength 1 whatever the signal, since at first everything
    is new.

    Raises ValueError, naming the argument, for values that make no sense.
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
        if strength not in ("binary", "surprise"):
            raise ValueError(f"strength is {strength!r}: it must be 'binary' or 'surprise'")
        self.threshold_factor = threshold_factor
        self.rate = rate
        self.window = window
        self.warmup = warmup
        self.strength = strength
        self.per_stimulus = per_stimulus
        self.batches = 0
        self.mean: Tensor | None = None
        self.square: Tensor | None = None
        self.recent: Tensor | None = None

    def gate(self, signals: Tensor) -> Tensor:
        """Return the strength (n,) of the event for each signal (n,), 0 for none. Nothing is synchronised."""
        strengths = self._strengths(signals)
        self.batches += 1
        self._observe(signals)
        if self.exhausted:
            return torch.zeros_like(signals)
        # At first everything is new: what is unusual cannot be told before something was usual.
        return torch.ones_like(signals) if self.warming_up else strengths

    @property
    def warming_up(self) -> bool:
        """Whether the batch that it saw last is one of the first `warmup`."""
        return 0 < self.batches <= self.warmup

    def _strength(self, loss: float | Tensor) -> float:
        return float(self.gate(torch.as_tensor(loss, dtype=torch.float32).detach().reshape(1)))

    def _strengths(self, signals: Tensor) -> Tensor:
        if self.mean is None or self.square is None or self.recent is None:
            return torch.zeros_like(signals)
        fires = signals > self._threshold()
        if self.strength == "binary":
            return fires.to(signals.dtype)
        deviation = (self.square - self.mean.square()).clamp_min(0).sqrt()
        return fires * rule.surprise(signals, self.mean, deviation)

    def _threshold(self) -> Tensor:
        assert self.mean is not None
        assert self.recent is not None
        if self.threshold_factor is not None:
            return self.threshold_factor * self.mean
        # The new signal is one more: of all, `highest` may have an event, none at rate 0.
        remembered = len(self.recent)
        highest = math.floor(self.rate * (remembered + 1))
        if highest == 0 or highest > remembered:
            return torch.full_like(self.mean, -math.inf if highest else math.inf)
        return self.recent.kthvalue(remembered + 1 - highest).values

    def _observe(self, signals: Tensor) -> None:
        mean, square = signals.mean(), signals.square().mean()
        if self.mean is None or self.square is None or self.recent is None:
            self.mean, self.square, self.recent = mean, square, signals
            return
        # A signal that is no number must not stay in the mean for ever.
        sound = torch.isfinite(square)
        self.mean = torch.where(sound, MEAN_DECAY * self.mean + (1 - MEAN_DECAY) * mean, self.mean)
        self.square = torch.where(sound, MEAN_DECAY * self.square + (1 - MEAN_DECAY) * square, self.square)
        self.recent = torch.cat([self.recent, signals])[-self.window :]

    def state_dict(self) -> dict[str, Any]:
        """Return the count, the running moments and the recent signals."""
        own = {"batches": self.batches, "mean": self.mean, "square": self.square, "recent": self.recent}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Take back what `state_dict` returned."""
        super().load_state_dict(state)
        self.batches, self.mean = int(state["batches"]), state["mean"]
        self.square, self.recent = state["square"], state["recent"]
