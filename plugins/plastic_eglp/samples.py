"""Which sample of a batch each stimulus of a layer belongs to, for layers of any module."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from plastic_cli import UserError
from plastic_cli.credit.parameters import named_parameters
from plastic_cli.credit.passes import BeforePass
from plastic_cli.credit.products import Product
from plastic_cli.credit.protocol import Loss, call
from plastic_cli.credit.recording import Recording
from plastic_eglp.stimuli import Stimuli

Derivatives = Callable[[], Sequence[Tensor]]
"""Returns, for each use of a weight in the order of the calls, what `first_loss_derivatives` returns."""


class Samples:
    """Finds the sample of each stimulus. In most layers the shape of the responses shows it.

    Where it does not, for example if there are as many time steps as samples, the derivatives of the first sample's
    loss show which responses are its own. The answer is kept for later batches.
    """

    def __init__(self) -> None:
        self._chosen: dict[tuple[str, tuple[int, ...], int], int] = {}

    def of(self, name: str, stimuli: Stimuli, samples: int, derivatives: Derivatives) -> Tensor:
        """Return the number of the sample (n,) of each stimulus of the layer `name`, for a batch of `samples`.

        Raises UserError if the stimuli cannot be divided among the samples.
        """
        parts = []
        for use, number, positions in zip(stimuli.uses, stimuli.numbers, stimuli.positions(), strict=True):
            possible = assignments(positions, samples, stimuli.W.device)
            if not possible:
                raise UserError(
                    f"'{name}' has responses of shape {tuple(use.z.shape)} for {samples} samples: which belong to which"
                    " sample is unknown. Use events for whole batches and feedback='none', or leave it out with"
                    " modules=."
                )
            chosen = 0
            if len(possible) > 1:
                key = (name, positions, samples)
                if key not in self._chosen:
                    self._chosen[key] = _most_likely(possible, derivatives()[number])
                chosen = self._chosen[key]
            parts.append(possible[chosen])
        return torch.cat(parts)

    def activity(self, name: str, stimuli: Stimuli, samples: int, derivatives: Derivatives) -> Tensor:
        """Return the activity of each sample with its graph: (samples, units), or the maps of a 2D convolution.

        Other layers with several positions, tokens or time steps have the mean over them.
        Raises UserError as `of` does.
        """
        activities = stimuli.activity_with_graph()
        first, product = activities[0], stimuli.uses[0].product
        if len(activities) == 1 and len(first) == samples:
            is_map = product.kind == "convolution" and first.ndim == 4
            if is_map or first.ndim == 2:
                # A map of one position is a vector of units.
                return first.flatten(1) if is_map and first.shape[2:].numel() == 1 else first
        sample = self.of(name, stimuli, samples, derivatives)
        rows = torch.cat(
            [
                y.movedim(use.product.unit_dimension, -1).reshape(-1, len(stimuli.W))
                for use, y in zip(stimuli.uses, activities, strict=True)
            ]
        )
        sums = rows.new_zeros(samples, rows.shape[1]).index_add(0, sample, rows)
        return sums / torch.bincount(sample, minlength=samples).to(rows)[:, None]


def assignments(positions: tuple[int, ...], samples: int, device: torch.device | str = "cpu") -> list[Tensor]:
    """Return each possible assignment of stimuli to samples: the number of the sample of each stimulus (n,).

    positions: shape of the responses without the units. Samples are along one dimension, or the first dimension holds
    several positions of each sample, in either order.
    """
    numbers = torch.arange(samples, device=device)
    if samples == 1:
        return [numbers.expand(prod(positions))]
    found = []
    for dimension, size in enumerate(positions):
        if size == samples:
            shape = [-1 if at == dimension else 1 for at in range(len(positions))]
            found.append(numbers.view(shape).expand(positions).reshape(-1))
        elif dimension == 0 and size % samples == 0:
            several = size // samples
            orders = numbers.repeat_interleave(several), numbers.repeat(several)
            found += [order.repeat_interleave(prod(positions[1:])) for order in orders]
    return found


def first_loss_derivatives(model: nn.Module, inputs: Any, loss: Loss) -> list[Tensor]:
    """Return, for each use of a weight, the squared derivatives (n,) of the first sample's loss by its stimuli.

    The module runs once more. Its buffers and torch's random states are restored.
    """
    before = BeforePass.of(model)
    probe = _Probe(named_parameters(model))
    with torch.enable_grad():
        with probe:
            output = call(model, inputs)
        found = torch.autograd.grad(loss(output)[0], probe.zeros, allow_unused=True)
    before.restore()
    return [
        (zeros if derivative is None else derivative).square().sum(use.product.unit_dimension).flatten()
        for use, zeros, derivative in zip(probe.uses, probe.zeros, found, strict=True)
    ]


class _Probe(Recording):
    """Adds zeros to every response, so that losses can be differentiated with respect to them."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        super().__init__(parameters)
        self.zeros: list[Tensor] = []

    def multiply(
        self,
        name: str,
        product: Product,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Tensor:
        """Return the response, with zeros added."""
        z = super().multiply(name, product, function, args, kwargs)
        self.zeros.append(torch.zeros_like(z, requires_grad=True))
        return z + self.zeros[-1]


def _most_likely(possible: Sequence[Tensor], squares: Tensor) -> int:
    """Return which assignment gives the first sample the largest squared derivatives; the first of equal ones."""
    return max(range(len(possible)), key=lambda number: float(squares[possible[number] == 0].sum()))
