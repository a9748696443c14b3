"""The four verbs of Oja's rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from plastic_cli import AnalyzeConfig, EvaluateConfig, RenderConfig, Run, TrainConfig, field

if TYPE_CHECKING:
    import torch


class Train(TrainConfig):
    """Find the first principal component of correlated noise with Oja's rule."""

    inputs: int = field(5, "inputs of the unit", ge=2)
    learning_rate: float = field(0.01, "learning rate", gt=0)
    epochs: int = field(5, "passes over 200 samples", ge=1)


class Unit:
    """One linear unit."""

    def __init__(self, weights: torch.Tensor) -> None:
        self.weights = weights

    def learn(self, x: torch.Tensor, rate: float) -> None:
        """Oja 1982, equation 3: w += rate * y * (x - y * w)."""
        y = self.weights @ x
        self.weights += rate * y * (x - y * self.weights)

    def state_dict(self) -> dict[str, Any]:
        """Return the weights."""
        return {"weights": self.weights}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Take back the weights."""
        self.weights = state["weights"]


def samples(run: Run, inputs: int) -> torch.Tensor:
    """Return samples (200, inputs) whose first input varies most."""
    import torch

    x = torch.randn(200, inputs, generator=run.generator("samples"))
    x[:, 0] *= 3
    return x


def train(config: Train, run: Run) -> None:
    """Train the unit."""
    import torch

    x = samples(run, config.inputs)
    unit = Unit(torch.nn.functional.normalize(torch.randn(config.inputs, generator=run.generator("weights")), dim=0))
    order = run.generator("order")
    run.track(unit=unit, order=order)
    for _ in run.steps(config.epochs, "epoch"):
        for index in torch.randperm(len(x), generator=order):
            unit.learn(x[index], config.learning_rate)
        run.log("train", variance=(x @ unit.weights).var(), norm=unit.weights.norm())


def trained_weights(run: Run) -> torch.Tensor:
    """Return the weights of a trained run."""
    import torch

    unit = Unit(torch.empty(0))
    run.restore("unit", unit)
    return unit.weights


def evaluate(config: EvaluateConfig, run: Run) -> None:
    """Measure how much of the variance the unit explains."""
    weights = trained_weights(run)
    x = samples(run, len(weights))
    run.log("train", explained=(x @ weights).var() / x.var(0).sum())


def analyze(config: AnalyzeConfig, run: Run) -> None:
    """Measure the angle to the first principal component."""
    import torch

    weights = trained_weights(run)
    component = torch.linalg.eigh(samples(run, len(weights)).T.cov())[1][:, -1]
    run.log("train", cosine=torch.nn.functional.cosine_similarity(weights, component, dim=0).abs())


def render(config: RenderConfig, run: Run) -> None:
    """Show the weights as a row of pixels."""
    weights = trained_weights(run)
    run.save_image("weights", ((weights / weights.abs().max() + 1) * 127).byte().numpy()[None].repeat(8, 0))
