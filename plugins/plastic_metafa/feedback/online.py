"""Learning one image at a time by the compiled kernels: the fast path of `--model softplus-mlp`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from plastic_metafa import kernels
from plastic_metafa.adaptation import KERNEL_FEEDBACK
from plastic_metafa.feedback.network import SoftplusNetwork
from plastic_metafa.theta_file import PUBLISHED_TERMS, TermKey

STRETCH = 500
"""Images of one call of the kernel, which keeps the activity of all units for each of them."""


class OnlineLearner:
    """Teaches a network by a plasticity rule, one image at a time.

    B: the feedback weights of each layer, in the shape of its weights; (classes, inputs) for direct feedback. theta:
    the strength of each term. learning_rate: factor on all of them. The weights of `network` become views of one
    array, which the kernel changes.
    """

    def __init__(
        self,
        network: SoftplusNetwork,
        B: Sequence[Tensor],
        feedback: str,
        theta: Mapping[TermKey, float],
        learning_rate: float,
    ) -> None:
        self.network, self.kind, self.learning_rate = network, KERNEL_FEEDBACK[feedback], learning_rate
        layers = [layer.get_parameter("weight") for layer in network.layers]
        self.sizes = np.array([layers[0].shape[1], *(len(W) for W in layers)], np.int64)
        W = parameters_to_vector(layers).detach()
        vector_to_parameters(W, layers)
        self.W, self.B = W.numpy(), torch.cat([feedback.detach().flatten() for feedback in B]).numpy()
        self.theta, self.active = np.zeros(PUBLISHED_TERMS, self.W.dtype), np.zeros(PUBLISHED_TERMS, np.bool_)
        for term, strength in theta.items():
            self.theta[int(term)], self.active[int(term)] = strength, True

    def train_epoch(self, x: Tensor, y: Tensor, order: Tensor, progress: Callable[[int], None]) -> None:
        """Learn from `x[order]` and `y[order]`, in this order; call `progress` with the number of images so far."""
        units = int(self.sizes.sum())
        # Zeros, because the kernel reads errors and products that its terms do not need without writing them.
        activity = [np.zeros((min(STRETCH, len(order)), units), self.W.dtype) for _ in range(5)]
        strengths = (self.learning_rate * self.theta).astype(self.W.dtype)
        seen = 0
        for part in order.split(STRETCH):
            images = self.network.inputs(x[part]).contiguous().numpy()
            buffers = [entry[: len(part)] for entry in activity]
            kernels.adapt(
                self.sizes, self.W, self.B, images, y[part].numpy(), strengths, self.active, self.kind, *buffers
            )
            if not np.isfinite(self.W).all():
                raise FloatingPointError(f"the weights are no longer finite after {seen + len(part)} images")
            seen += len(part)
            progress(seen)

    def train_batch(self, x: Tensor, y: Tensor) -> None:
        """Learn from images x (batch, features) and labels y (batch,), one after the other."""
        self.train_epoch(x, y, torch.arange(len(y)), lambda _: None)

    def predict(self, x: Tensor) -> Tensor:
        """Return logits (batch, classes)."""
        logits: Tensor = self.network(x)
        return logits

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the activity of each hidden layer."""
        return self.network.features(x)

    @property
    def first_weights(self) -> Tensor:
        """The weights (units, inputs) of the first layer."""
        return self.network.layers[0].get_parameter("weight")

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the network."""
        return {"network": self.network.state_dict()}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Restore the network."""
        self.network.load_state_dict(state["network"])
