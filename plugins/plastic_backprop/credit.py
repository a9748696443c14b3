"""Deep supervision as a credit rule: each hidden layer learns from a readout of its own, a control for all rules.

Lee et al. 2015 (Deeply-supervised nets) train such readouts in addition to the last one. Here no error passes from one
layer to another, as in Nøkland & Eidnes 2019 (Training neural networks with local error signals, with their prediction
loss).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from plastic_cli.credit.gradient import Rest, attached, rest_credit
from plastic_cli.credit.interception import Interception, plain_name
from plastic_cli.credit.parameters import taught
from plastic_cli.credit.passes import BeforePass
from plastic_cli.credit.products import product_of
from plastic_cli.credit.protocol import Loss, call, checked_losses
from plastic_cli.credit.recording import NONLINEARITIES
from plastic_cli.errors import UserError

MOST_FEATURES = 2048
"""The readout of a convolutional layer sees the means of parts of the image, in the finest grid with no more numbers
(Nøkland & Eidnes 2019, section 3)."""


class DeepSupervision:
    """Gives each layer the gradient of the loss of its own linear readout; no error passes between layers.

    A layer is what lies between two nonlinearities, with its normalization and the skip connection that ends in it. The
    layers after the last nonlinearity have the loss of the model. A readout receives the activity of its layer, and
    learns by Adam within `backward`; the readouts are no part of the model.

    model: its output is (batch, classes). modules, rest: as for `Gradient`. learning_rate: of the readouts. generator:
    draws their initial weights. Raises UserError if there is nothing to teach.
    """

    def __init__(
        self,
        model: nn.Module,
        modules: str | Sequence[str] | None = None,
        rest: Rest = "none",
        *,
        learning_rate: float = 0.001,
        generator: torch.Generator | None = None,
    ) -> None:
        self.model: nn.Module | None = model
        self.parameters: Mapping[str, nn.Parameter] = taught(model, modules)
        self.rest = rest_credit(model, self.parameters, rest)
        self.learning_rate = learning_rate
        self.generator = generator or torch.Generator().manual_seed(0)
        self.readouts: list[nn.Parameter] = []
        self._optimizer: torch.optim.Optimizer | None = None

    def backward(self, inputs: Any, loss: Loss) -> Tensor:
        """Add to `.grad` the gradients of the losses of all readouts; return the losses (batch,) of the model."""
        model = attached(self.model, self.parameters)
        # A rule for the rest calls the model again: statistics and random numbers must change once.
        before = None if self.rest is None else BeforePass.of(model)
        separated = _SeparatedLayers()
        with torch.enable_grad():
            with separated:
                output = call(model, inputs)
            losses = checked_losses(loss(output))
            activity = [_features(each, len(losses)) for each in separated.layers if each.activity.requires_grad]
            self._make_readouts(activity, output)
            local = [
                checked_losses(loss(functional.linear(each, weight))).mean()
                for each, weight in zip(activity, self.readouts, strict=True)
            ]
            total = losses.mean() + sum(local)
        if self._optimizer is not None:
            self._optimizer.zero_grad(set_to_none=True)
        if total.requires_grad:
            torch.autograd.backward(total, inputs=[*self.parameters.values(), *self.readouts])
        if self._optimizer is not None:
            self._optimizer.step()
        if self.rest is not None and before is not None:
            before.restore()
            self.rest.backward(inputs, loss)
        return losses.detach()

    def state_dict(self) -> dict[str, Any]:
        """Return the readouts, their optimizer and the position of the generator."""
        return {
            "readouts": [readout.detach().clone() for readout in self.readouts],
            "optimizer": None if self._optimizer is None else copy.deepcopy(self._optimizer.state_dict()),
            "generator": self.generator.get_state(),
            "rest": None if self.rest is None else self.rest.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Restore what `state_dict` returned."""
        self.generator.set_state(state["generator"])
        self._set_readouts([readout.clone() for readout in state["readouts"]])
        if self._optimizer is not None:
            self._optimizer.load_state_dict(state["optimizer"])
        if self.rest is not None:
            self.rest.load_state_dict(state["rest"])

    def detach(self) -> None:
        """Release the module and the readouts. `backward` then raises UserError."""
        if self.rest is not None:
            self.rest.detach()
        self.model, self.parameters, self.rest, self.readouts, self._optimizer = None, {}, None, [], None

    def _make_readouts(self, activity: Sequence[Tensor], output: Any) -> None:
        """Draw the readouts for the first batch: the shapes of the activity are not known before."""
        if len(self.readouts) == len(activity) or not activity:
            return
        if self.readouts:
            raise UserError(
                f"deep supervision: this batch has {len(activity)} layers, the first one had {len(self.readouts)}. The"
                " module must call the same layers for each batch."
            )
        if not isinstance(output, Tensor) or output.ndim != 2:
            raise UserError("deep supervision needs a module that returns logits (batch, classes).")
        drawn = []
        for each in activity:
            features = each.shape[1]
            weight = torch.randn(output.shape[1], features, generator=self.generator) / math.sqrt(features)
            drawn.append(weight.to(each))
        self._set_readouts(drawn)

    def _set_readouts(self, weights: Sequence[Tensor]) -> None:
        self.readouts = [nn.Parameter(weight) for weight in weights]
        self._optimizer = torch.optim.Adam(self.readouts, lr=self.learning_rate) if self.readouts else None


class _Layer(NamedTuple):
    """The activity of a layer, with its own graph, and whether the last product before it was a convolution."""

    activity: Tensor
    is_convolution: bool


class _SeparatedLayers(Interception):
    """Lets no gradient pass a nonlinearity, and keeps the activity of each with its own graph."""

    def __init__(self) -> None:
        super().__init__()
        self.layers: list[_Layer] = []
        self._is_convolution = False

    def handle(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        result = function(*args, **kwargs)
        product = product_of(function, args, kwargs)
        if product is not None:
            self._is_convolution = "convolution" in product.kind
        if plain_name(function) not in NONLINEARITIES or not isinstance(result, Tensor):
            return result
        # A copy, since the module may change the activity in place.
        self.layers.append(_Layer(result.clone(), self._is_convolution))
        return result.detach()


def _features(layer: _Layer, batch: int) -> Tensor:
    """Return the activity of a layer as the input (batch, features) of its readout.

    A convolution has activity (batch, channels, positions), in up to three dimensions of space. Another layer with
    three dimensions has (batch, time, features).
    """
    activity = layer.activity
    if activity.ndim < 2 or len(activity) != batch:
        raise UserError(
            f"deep supervision: a nonlinearity returned {tuple(activity.shape)}, without the dimension of the {batch}"
            " samples first. Name layers that have it with modules=..."
        )
    if activity.ndim == 4 or (layer.is_convolution and activity.ndim in _POOLING):
        channels, *sizes = activity.shape[1:]
        side = _largest_side(MOST_FEATURES // channels, len(sizes))
        activity = _POOLING[activity.ndim](activity, [min(side, size) for size in sizes])
    elif activity.ndim == 3:
        activity = activity.mean(1)
    return activity.flatten(1)


_POOLING: dict[int, Callable[..., Tensor]] = {
    3: functional.adaptive_avg_pool1d,
    4: functional.adaptive_avg_pool2d,
    5: functional.adaptive_avg_pool3d,
}
"""How the mean of parts of the positions is taken, by the number of dimensions of the activity."""


def _largest_side(positions: int, dimensions: int) -> int:
    """Return the side of the largest cube with at most this number of positions; at least 1."""
    side = 1
    while (side + 1) ** dimensions <= positions:
        side += 1
    return side
