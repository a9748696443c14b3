"""The rule as a learner: parameters, noise and learning rate over the epochs, and the control on the same network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from plastic_cli.classifier.fit import raise_if_not_finite
from plastic_grlu import rule
from plastic_grlu.epoch import NoiseState, train_epoch


class GRLULearner:
    """A GRLU network.

    sizes: d_0, ..., d_L. top_k: fraction of hidden units that the Gumbel mask keeps, None for ReLU. update: "grlu", or
    "backprop" for the control: the true gradient on the same network with the step lr * sigma^2, which is what GRLU's
    step with noise before the non-linearity comes to when averaged over infinitely many perturbations.
    encoder: a frozen network that images pass first.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        generator: torch.Generator,
        noise_key: np.random.SeedSequence,
        *,
        perturbations: int,
        top_k: float | None = None,
        skip: bool = False,
        credit: rule.Credit = "output",
        update: Literal["grlu", "backprop"] = "grlu",
        batch_size: int = 1,
        noise: tuple[float, float] = (0.1, 0.0),
        learning_rate: tuple[float, float] = (0.1, 0.0),
        encoder: nn.Module | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        weights, biases = rule.initial_parameters(sizes, generator)
        self.weights = [weight.to(device) for weight in weights]
        self.biases = [bias.to(device) for bias in biases]
        self.perturbations, self.top_k, self.skip = perturbations, top_k, skip
        self.credit, self.update, self.batch_size = credit, update, batch_size
        self.noise_range, self.learning_rate_range = noise, learning_rate
        self.sigma, self.learning_rate = noise[0], learning_rate[0]
        self.state = NoiseState.from_seed(noise_key)
        self.encoder = encoder

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Set noise and learning rate on their half cosines."""
        progress = epoch / epochs
        self.sigma = rule.cosine(*self.noise_range, progress)
        self.learning_rate = rule.cosine(*self.learning_rate_range, progress)

    def train_stream(self, x: Tensor, y: Tensor, order: Tensor, progress: Callable[[int], None]) -> None:
        """Learn from `x[order]` one batch after the other; raises FloatingPointError where learning diverges."""
        codes = self.encode(x)
        if self.update == "backprop":
            self._descend(codes, y, order, progress)
            return
        train_epoch(
            self.weights,
            self.biases,
            codes,
            y,
            order,
            perturbations=self.perturbations,
            sigma=self.sigma,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            credit=self.credit,
            top_k=self.top_k,
            skip=self.skip,
            state=self.state,
            progress=progress,
        )

    def prepare(self, x: Tensor, y: Tensor) -> None:
        """Compile the kernels, or load them from the cache, by one step on copies of the parameters."""
        if self.update == "grlu":
            train_epoch(
                [weight.clone() for weight in self.weights],
                [bias.clone() for bias in self.biases],
                self.encode(x[:1]),
                y[:1],
                torch.zeros(1, dtype=torch.int64),
                perturbations=1,
                sigma=self.sigma,
                learning_rate=0.0,
                batch_size=1,
                credit=self.credit,
                top_k=self.top_k,
                skip=self.skip,
                state=NoiseState(0),
            )

    def train_batch(self, x: Tensor, y: Tensor) -> None:
        """Learn from one batch."""
        self.train_stream(x, y, torch.arange(len(x)), lambda _: None)

    def predict(self, x: Tensor) -> Tensor:
        """Return logits (batch, classes) without noise, top-k hard."""
        return rule.predict(self.weights, self.biases, self.encode(x), top_k=self.top_k, skip=self.skip)

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the activity of each hidden layer, (batch, units) each."""
        return rule.features(self.weights, self.biases, self.encode(x), top_k=self.top_k, skip=self.skip)

    def state_dict(self) -> dict[str, Any]:
        """Return parameters and the position in the stream of noise."""
        # 64-bit keys do not fit a signed integer of torch; as text they survive any reader.
        return {
            "weights": list(self.weights),
            "biases": list(self.biases),
            "noise": {"key": str(self.state.key), "counter": self.state.counter},
        }

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Take back what `state_dict` returned."""
        for mine, stored in zip([*self.weights, *self.biases], [*state["weights"], *state["biases"]], strict=True):
            mine.copy_(stored)
        self.state = NoiseState(int(state["noise"]["key"]), state["noise"]["counter"])

    def draw(self, rows: int, seed: int) -> tuple[list[Tensor], list[Tensor] | None]:
        """Draw noise, and Gumbel noise where masks are used, for `rows` rows: to look at updates without learning."""
        device = self.weights[0].device
        generator = torch.Generator(device).manual_seed(seed)
        shapes = [(rows, len(bias)) for bias in self.biases]
        noises = [torch.randn(shape, generator=generator, device=device) * self.noise_range[0] for shape in shapes]
        if self.top_k is None:
            return noises, None
        uniform = [torch.empty(shape, device=device).exponential_(generator=generator) for shape in shapes[:-1]]
        return noises, [-draw.log() for draw in uniform]

    def masks(self, x: Tensor, noises: list[Tensor], gumbels: list[Tensor] | None) -> list[Tensor] | None:
        """Return the masks of an antithetic pair, or None for ReLU. `x` is what the first layer sees."""
        if gumbels is None or self.top_k is None:
            return None
        return rule.pair_masks(
            self.weights, self.biases, x, noises, gumbels, self.top_k, credit=self.credit, skip=self.skip
        )

    def encode(self, x: Tensor) -> Tensor:
        """Return what the first layer sees of images x (batch, features): themselves, or the encoder's code."""
        if self.encoder is None:
            return x
        with torch.no_grad():
            code: Tensor = self.encoder(x)
        return code

    def _descend(self, x: Tensor, y: Tensor, order: Tensor, progress: Callable[[int], None]) -> None:
        """The control: plain gradient steps of lr * sigma^2 on the same network, with masks of the same kind."""
        step = self.learning_rate * self.sigma**2
        order = order.to(x.device)
        rewards: list[Tensor] = []
        for number, batch in enumerate(order.split(self.batch_size)):
            silent = [torch.zeros(len(batch), len(bias), device=x.device) for bias in self.biases]
            gumbels = None
            if self.top_k is not None:
                gumbels = self.draw(len(batch), (self.state.key + self.state.counter + number) % 2**63)[1]
            masks = self.masks(x[batch], silent, gumbels)
            weight_updates, bias_updates, reward = rule.gradient_update(
                self.weights, self.biases, x[batch], y[batch], masks, skip=self.skip
            )
            torch._foreach_add_([*self.weights, *self.biases], [*weight_updates, *bias_updates], alpha=step)
            rewards.append(reward)
            if number % 256 == 0:
                progress(number * self.batch_size)
        raise_if_not_finite(torch.stack(rewards), self.state.counter)
        self.state.counter += len(rewards)
