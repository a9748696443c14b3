"""Learning one image at a time by the compiled kernels: the fast path of `--activation softplus`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from plastic_cli.classifier.module import ModuleLearner, cross_entropies
from plastic_metafa import kernels
from plastic_metafa.adaptation import KERNEL_FEEDBACK
from plastic_metafa.credit import RandomFeedback
from plastic_metafa.feedback.network import SoftplusNetwork
from plastic_metafa.theta_file import PUBLISHED_TERMS

STRETCH = 500
"""Images of one call of the kernel, which keeps the activity of all units for each of them."""


def has_kernel(credit: RandomFeedback, device: torch.device) -> bool:
    """Return whether the compiled kernels know the feedback and the terms of a rule, on this device."""
    published = all(isinstance(term, int) and term < PUBLISHED_TERMS for term in credit.theta)
    return published and credit.feedback in KERNEL_FEEDBACK and device.type == "cpu"


class OnlineLearner(ModuleLearner):
    """Teaches a network by `credit` and plain gradient descent, one image at a time, in compiled code.

    The numbers are those of `ModuleLearner`, up to rounding. The weights of `network` become views of one array, which
    the kernel changes.
    """

    def __init__(self, network: SoftplusNetwork, credit: RandomFeedback, learning_rate: float) -> None:
        super().__init__(network, torch.optim.SGD(network.parameters(), lr=learning_rate), credit=credit)
        self.inputs = network.inputs
        layers = [layer.get_parameter("weight") for layer in network.layers]
        self.sizes = np.array([layers[0].shape[1], *(len(W) for W in layers)], np.int64)
        W = parameters_to_vector(layers).detach()
        vector_to_parameters(W, layers)
        self.W = W.numpy()
        self.kind = KERNEL_FEEDBACK[credit.feedback]
        self.B = self._flat_feedback(network, credit)
        self.theta, self.active = np.zeros(PUBLISHED_TERMS), np.zeros(PUBLISHED_TERMS, np.bool_)
        for term, strength in credit.theta.items():
            self.theta[int(term)], self.active[int(term)] = strength, True

    def train_epoch(self, x: Tensor, y: Tensor, order: Tensor, progress: Callable[[int], None]) -> None:
        """Learn from `x[order]` and `y[order]`, in this order; call `progress` with the number of images so far."""
        assert self.optimizer is not None
        units = int(self.sizes.sum())
        # Zeros, because the kernel reads errors and products that its terms do not need without writing them.
        activity = [np.zeros((min(STRETCH, len(order)), units), self.W.dtype) for _ in range(5)]
        strengths = (self.optimizer.param_groups[0]["lr"] * self.theta).astype(self.W.dtype)
        seen = 0
        for part in order.split(STRETCH):
            images = self.inputs(x[part]).contiguous().numpy()
            buffers = [entry[: len(part)] for entry in activity]
            kernels.adapt(
                self.sizes, self.W, self.B, images, y[part].numpy(), strengths, self.active, self.kind, *buffers
            )
            if not np.isfinite(self.W).all():
                raise FloatingPointError(f"the weights are no longer finite after {seen + len(part)} images")
            seen += len(part)
            progress(seen)

    def _flat_feedback(self, network: SoftplusNetwork, credit: RandomFeedback) -> np.ndarray:
        """Return the feedback weights of all layers in one array, as the kernels take them.

        The rule draws them when they are first used, so it sees a blank image. Layers without feedback get zeros.
        """
        classes = int(self.sizes[-1])
        blank = torch.zeros(1, int(self.sizes[0]))
        credit.backward(blank, lambda logits: cross_entropies(logits, torch.zeros(1, dtype=torch.long)))
        network.zero_grad(set_to_none=True)
        drawn = credit.feedback_weights()
        parts = []
        for number, layer in enumerate(network.layers):
            W = layer.get_parameter("weight").detach()
            shape = (classes, W.shape[1]) if credit.feedback == "direct" else W.shape
            parts.append(drawn.get(f"layers.{number}.weight", torch.zeros(shape)).reshape(shape).flatten())
        return torch.cat(parts).numpy().copy()
