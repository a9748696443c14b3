"""The learner: parameters, the schedules of noise and learning rate, and the control by backpropagation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from plastic_cli.analysis.angles import angle_degrees
from plastic_cli.classifier.fit import raise_if_not_finite
from plastic_grlu import rule
from plastic_grlu.epoch import Decorrelation, Feedback, NoiseState, Settings, train_epoch


class GRLUNetwork(nn.Module):
    """The network of a learner as a module: linear layers with layer-normed inputs, without noise, top-k hard.

    layers: linear layers, the readout last. encoder: the frozen network whose output the first layer receives, or None.
    top_k, skip: as in rule.py.
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor],
        *,
        top_k: float | None = None,
        skip: bool = False,
        encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.layers = nn.ModuleList()
        for weight, bias in zip(weights, biases, strict=True):
            layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
            layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
            self.layers.append(layer)
        self.top_k, self.skip = top_k, skip

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, classes) of x (batch, features), or of images (batch, channels, height, width)."""
        weights, biases, code = self._inputs(x)
        return rule.predict(weights, biases, code, top_k=self.top_k, skip=self.skip)

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the activity of each hidden layer, (batch, units) each."""
        weights, biases, code = self._inputs(x)
        return rule.features(weights, biases, code, top_k=self.top_k, skip=self.skip)

    def extra_repr(self) -> str:
        """Return the text that `print` shows for the network."""
        return f"top_k={self.top_k}, skip={self.skip}"

    def _inputs(self, x: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Return weights, biases and the input of the first layer."""
        weights: list[Tensor] = [layer.get_parameter("weight") for layer in self.layers]
        biases: list[Tensor] = [layer.get_parameter("bias") for layer in self.layers]
        x = x.flatten(1)
        return weights, biases, x if self.encoder is None else self.encoder(x)


class GRLULearner:
    """A network that learns by GRLU.

    sizes: d_0, ..., d_L. noise_key: seed of the noise. perturbations: noise samples per image. top_k: fraction of
    hidden units that the Gumbel mask keeps, None for ReLU. skip, credit: as in rule.py. noise, learning_rate: first and
    last value of their half-cosine schedules. groups: of units, each with a reward of its own; see
    rule.py. path, feedback_rate: with credit "learned", the path of the feedback and the rate at which it learns.
    form: of the noise. common_noise: fixed random weights carry the noise of the readout to the hidden layers.
    decorrelation: rate at which matrices learn that decorrelate the inputs of layers, 0 without them. encoder: a frozen
    network whose output the first layer receives.

    update: "grlu", or "backprop" for the control: the true gradient of the same network with step lr * sigma^2. That is
    the limit of GRLU's step with noise before the nonlinearity and infinitely many perturbations.
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
        groups: int = 1,
        path: rule.Path = "direct",
        feedback_rate: float = 1.0,
        form: rule.NoiseForm = rule.OWN_NOISE,
        common_noise: bool = False,
        decorrelation: float = 0.0,
        encoder: nn.Module | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        weights, biases = rule.initial_parameters(sizes, generator)
        self.weights = [weight.to(device) for weight in weights]
        self.biases = [bias.to(device) for bias in biases]
        self.perturbations, self.top_k, self.skip = perturbations, top_k, skip
        self.credit, self.update, self.batch_size, self.groups = credit, update, batch_size, groups
        self.feedback: Feedback | None = None
        if credit == "learned" and update == "grlu":
            matrices = [part.to(device) for part in rule.initial_feedback(sizes, path, generator)]
            self.feedback = Feedback(matrices, path, feedback_rate)
        sources = [part.to(device) for part in rule.initial_sources(sizes, generator)] if common_noise else []
        self.form = form._replace(sources=sources)
        self.decorrelation: Decorrelation | None = None
        if decorrelation:
            matrices = [torch.eye(width, device=device) for width in sizes[:-1]]
            self.decorrelation = Decorrelation(matrices, decorrelation)
        self.noise_range, self.learning_rate_range = noise, learning_rate
        self.sigma, self.learning_rate = noise[0], learning_rate[0]
        self.state = NoiseState.from_seed(noise_key)
        self.encoder = encoder

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Set noise and learning rate by their half-cosine schedules."""
        progress = epoch / epochs
        self.sigma = rule.cosine(*self.noise_range, progress)
        self.learning_rate = rule.cosine(*self.learning_rate_range, progress)

    def train_epoch(self, x: Tensor, y: Tensor, order: Tensor, progress: Callable[[int], None]) -> None:
        """Learn from `x[order]` batch by batch; raises FloatingPointError if learning diverges."""
        codes = self.encode(x)
        if self.update == "backprop":
            self._descend(codes, y, order, progress)
            return
        train_epoch(self.weights, self.biases, codes, y, order, self._settings(), self.state, progress)

    def prepare(self, x: Tensor, y: Tensor) -> None:
        """Compile the kernels, or load them from the cache, by one step on copies of the parameters."""
        if self.update == "grlu":
            weights, biases = ([part.clone() for part in parts] for parts in (self.weights, self.biases))
            feedback = self.feedback
            if feedback is not None:
                feedback = replace(feedback, matrices=[part.clone() for part in feedback.matrices])
            decorrelation = self.decorrelation
            if decorrelation is not None:
                decorrelation = replace(decorrelation, matrices=[part.clone() for part in decorrelation.matrices])
            settings = replace(
                self._settings(),
                perturbations=1,
                learning_rate=0.0,
                batch_size=1,
                feedback=feedback,
                decorrelation=decorrelation,
            )
            first = torch.zeros(1, dtype=torch.int64)
            train_epoch(weights, biases, self.encode(x[:1]), y[:1], first, settings, NoiseState(0))

    def train_batch(self, x: Tensor, y: Tensor) -> None:
        """Learn from one batch."""
        self.train_epoch(x, y, torch.arange(len(x)), lambda _: None)

    def predict(self, x: Tensor) -> Tensor:
        """Return logits (batch, classes) without noise, top-k hard."""
        return rule.predict(self.effective_weights(), self.biases, self.encode(x), top_k=self.top_k, skip=self.skip)

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the activity of each hidden layer, (batch, units) each."""
        return rule.features(self.effective_weights(), self.biases, self.encode(x), top_k=self.top_k, skip=self.skip)

    def effective_weights(self) -> list[Tensor]:
        """Return the weights that multiply the layer-normed inputs: with decorrelation W_l R_l, else W_l."""
        if self.decorrelation is None:
            return self.weights
        return rule.decorrelated_weights(self.weights, self.decorrelation.matrices)

    def state_dict(self) -> dict[str, Any]:
        """Return the parameters, the other matrices of the rule, and the position in the sequence of noise."""
        # Text, because a 64-bit key does not fit into a signed integer of torch.
        state = {
            "weights": list(self.weights),
            "biases": list(self.biases),
            "noise": {"key": str(self.state.key), "counter": self.state.counter},
        }
        return state | {name: list(matrices) for name, matrices in self._matrices().items() if matrices}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Restore what `state_dict` returned."""
        names = ("weights", "biases", *self._matrices())
        stored = [part for name in names for part in state.get(name, [])]
        for mine, part in zip(self._tensors(), stored, strict=True):
            mine.copy_(part)
        self.state = NoiseState(int(state["noise"]["key"]), state["noise"]["counter"])

    def feedback_angles(self) -> list[float]:
        """Return the angle in degrees of the feedback of each hidden layer to the weights that it stands for.

        See `rule.transposed_weights`; parts of both that have no effect are left out.
        """
        if self.feedback is None or self.feedback.path in ("transposed", "none"):
            return []
        targets = rule.transposed_weights(self.weights, self.feedback.path)
        angles = []
        for layer, (mine, target) in enumerate(zip(self.feedback.matrices, targets, strict=True), 1):
            of_error = self.feedback.path == "direct" or layer == len(targets)
            used = (rule.without_unused(part, of_error=of_error) for part in (mine, target))
            angles.append(angle_degrees(*used))
        return angles

    def _matrices(self) -> dict[str, Sequence[Tensor]]:
        """Return what a checkpoint has besides parameters, by its name there."""
        return {
            "feedback": [] if self.feedback is None else self.feedback.matrices,
            "sources": self.form.sources,
            "decorrelation": [] if self.decorrelation is None else self.decorrelation.matrices,
        }

    def _tensors(self) -> list[Tensor]:
        """Return all that a checkpoint has: parameters, then the other matrices."""
        return [*self.weights, *self.biases, *(part for parts in self._matrices().values() for part in parts)]

    def draw(self, rows: int, seed: int) -> tuple[list[Tensor], list[Tensor] | None]:
        """Draw noise, and Gumbel noise for top-k masks, for `rows` rows: to analyze updates without learning."""
        device = self.weights[0].device
        generator = torch.Generator(device).manual_seed(seed)
        shapes = [(rows, len(bias)) for bias in self.biases]
        noises = [torch.randn(shape, generator=generator, device=device) * self.noise_range[0] for shape in shapes]
        if self.top_k is None:
            return noises, None
        uniform = [torch.empty(shape, device=device).exponential_(generator=generator) for shape in shapes[:-1]]
        return noises, [-draw.log() for draw in uniform]

    def masks(self, x: Tensor, noises: list[Tensor], gumbels: list[Tensor] | None) -> list[Tensor] | None:
        """Return the masks of an antithetic pair, or None for ReLU. `x` is the input of the first layer."""
        if gumbels is None or self.top_k is None:
            return None
        return rule.pair_masks(
            self.weights, self.biases, x, noises, gumbels, self.top_k, credit=self.credit, skip=self.skip
        )

    def encode(self, x: Tensor) -> Tensor:
        """Return the input of the first layer for images x (batch, features): the images, or the encoder's code."""
        if self.encoder is None:
            return x
        with torch.no_grad():
            code: Tensor = self.encoder(x)
        return code

    def _settings(self) -> Settings:
        return Settings(
            self.perturbations,
            self.sigma,
            self.learning_rate,
            self.batch_size,
            self.credit,
            self.top_k,
            self.skip,
            self.groups,
            self.feedback,
            self.form,
            self.decorrelation,
        )

    def _descend(self, x: Tensor, y: Tensor, order: Tensor, progress: Callable[[int], None]) -> None:
        """The control: gradient steps of lr * sigma^2 on the same network, with masks of the same kind."""
        step = self.learning_rate * self.sigma**2
        order = order.to(x.device)
        rewards: list[Tensor] = []
        for number, batch in enumerate(order.split(self.batch_size)):
            no_noise = [torch.zeros(len(batch), len(bias), device=x.device) for bias in self.biases]
            gumbels = None
            if self.top_k is not None:
                gumbels = self.draw(len(batch), (self.state.key + self.state.counter + number) % 2**63)[1]
            masks = self.masks(x[batch], no_noise, gumbels)
            weight_updates, bias_updates, reward = rule.gradient_update(
                self.weights, self.biases, x[batch], y[batch], masks, skip=self.skip
            )
            torch._foreach_add_([*self.weights, *self.biases], [*weight_updates, *bias_updates], alpha=step)
            rewards.append(reward)
            if number % 256 == 0:
                progress(number * self.batch_size)
        raise_if_not_finite(torch.stack(rewards), self.state.counter)
        self.state.counter += len(rewards)
