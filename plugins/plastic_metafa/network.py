"""A network that learns by a meta-learned rule, as a torch module: what a trained run is loaded as."""

from __future__ import annotations

import math
from typing import Self

import torch
from torch import Tensor, nn

from plastic_cli import Run
from plastic_cli.classifier.data import described_data
from plastic_cli.data.datasets import Dataset
from plastic_cli.data.episodes import Episode
from plastic_cli.numerics.seeds import derived_seed
from plastic_metafa import rule
from plastic_metafa.adaptation import Network, Plasticity, adapt_to, draw_network
from plastic_metafa.config import trained_as
from plastic_metafa.own_terms import load_terms
from plastic_metafa.setting import pixels_of
from plastic_metafa.theta_file import learned_rule


class AdaptiveNetwork(nn.Module):
    """A network with random weights, and the learned rule that adapts it to labeled images.

    Meta-learning learns a rule and keeps no network. Every episode draws new weights and adapts them:

        network.reset(seed=1)            # new random weights and feedback
        network.adapt(x, y)              # changes the weights: one pass over labeled images, one image at a time
        logits = network(other_x)

    Images x are (batch, features) or (batch, channels, height, width), as the data set gives them; `pixels` turns them
    into the pixels from 0 to 1 that the first layer receives. W: the weights, (out, in) for each layer. theta: the
    strengths of the terms in `plasticity`.
    """

    def __init__(self, sizes: tuple[int, ...], plasticity: Plasticity, theta: Tensor, pixels: nn.Module) -> None:
        super().__init__()
        self.sizes, self.plasticity, self.pixels = sizes, plasticity, pixels
        drawn = draw_network(sizes, plasticity.feedback, torch.Generator().manual_seed(0))
        self.W = nn.ParameterList(drawn.W)
        for number, feedback in enumerate(drawn.B):
            self.register_buffer(f"B_{number}", feedback)
        self.theta = nn.Parameter(theta)

    def feedback(self) -> list[Tensor]:
        """Return the feedback weights B of each layer, in the shape of `W`; (classes, in) for direct feedback."""
        return [self.get_buffer(f"B_{number}") for number in range(len(self.W))]

    @torch.no_grad()
    def reset(self, seed: int) -> Self:
        """Draw new weights and feedback. The seed determines them."""
        drawn = draw_network(self.sizes, self.plasticity.feedback, torch.Generator().manual_seed(seed))
        for own, new in zip([*self.W, *self.feedback()], [*drawn.W, *drawn.B], strict=True):
            own.copy_(new)
        return self

    @torch.no_grad()
    def adapt(self, x: Tensor, y: Tensor) -> Self:
        """Learn from images x and labels y (batch,), one after the other in this order, by the learned rule.

        The labels are indices of the outputs: the classes of the data set, or of the episode with --outputs episode.
        Raises ValueError if there is no such output.
        """
        if not len(y):
            return self
        if int(y.min()) < 0 or int(y.max()) >= self.sizes[-1]:
            raise ValueError(f"y has labels from {y.min()} to {y.max()}: the outputs are 0 to {self.sizes[-1] - 1}")
        x = self._inputs(x)
        # `adapt_to` also measures the network on queries; one image is enough.
        episode = Episode(y.unique(), x, y, x[:1], y[:1])
        adapted = adapt_to(Network(list(self.W), self.feedback()), episode, self.theta, self.plasticity)
        for own, new in zip(self.W, adapted.W, strict=True):
            own.copy_(new)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, outputs) of the network with its present weights."""
        return rule.logits(list(self.W), self._inputs(x))

    def extra_repr(self) -> str:
        """Return the text that `print` shows for the network."""
        strengths = zip(self.plasticity.terms, self.theta.tolist(), strict=True)
        theta = ", ".join(f"{rule.term_label(term)}: {strength:.4g}" for term, strength in strengths)
        return f"{'-'.join(map(str, self.sizes))}, feedback={self.plasticity.feedback}, theta={{{theta}}}"

    def _inputs(self, x: Tensor) -> Tensor:
        pixels: Tensor = self.pixels(x.flatten(1))
        return pixels.to(self.W[0].dtype)


class Pixels(nn.Module):
    """Turns normalized images (batch, features) of a data set into pixels from 0 to 1, of another size unless 0."""

    def __init__(self, data: Dataset, size: int) -> None:
        super().__init__()
        self.data, self.size = data, size

    def forward(self, x: Tensor) -> Tensor:
        """Return the images, (batch, features)."""
        return pixels_of(self.data, x, self.size)


def network(run: Run) -> AdaptiveNetwork:
    """Return the learned rule of a run with a network to adapt, whose weights are drawn from the seed of the run."""
    config, data, learned = trained_as(run), described_data(run), learned_rule(run)
    load_terms(learned.theta)
    channels, height, width = data.image_shape
    side = config.image_size
    inputs = channels * side * side if side else math.prod((channels, height, width))
    outputs = data.classes if config.outputs == "all" else config.ways
    theta = torch.tensor(list(learned.theta.values()), dtype=torch.float64)
    plasticity = Plasticity(tuple(learned.theta), learned.feedback)
    made = AdaptiveNetwork((inputs, *config.hidden, outputs), plasticity, theta, Pixels(data, side))
    return made.reset(derived_seed(run.seed, "network")).to(run.device).eval()
