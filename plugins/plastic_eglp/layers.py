"""Layers that learn locally: a synapse uses its input, its output, and a scalar event."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_weight

from plastic_eglp import rule
from plastic_eglp.change import BCM_RATE, LOCAL_RULES, LocalRule, add_change, factors_of, softhebb_step

Activation = Literal["linear", "relu", "tanh", "triangle", "leaky-relu"]
ACTIVATIONS: tuple[Activation, ...] = ("linear", "relu", "tanh", "triangle", "leaky-relu")
LEAK = 0.01
"""Slope of the leaky ReLU below 0."""
InitialWeights = Literal["uniform", "xavier"]
INITIAL_WEIGHTS: tuple[InitialWeights, ...] = ("uniform", "xavier")

SOFTHEBB_RADIUS = 25.0
"""Norm of a unit's initial weights for SoftHebb (published recipe for convolutions). Learning takes it to 1."""


def activate(z: Tensor, activation: Activation) -> Tensor:
    """Return y = f(z), units along dimension 1."""
    if activation == "tanh":
        return torch.tanh(z)
    if activation == "relu":
        return torch.relu(z)
    if activation == "leaky-relu":
        return functional.leaky_relu(z, LEAK)
    return rule.triangle(z) if activation == "triangle" else z


class Activity(NamedTuple):
    """The activity of a layer in one call: its input, and its response before and after the activation function."""

    pre: Tensor
    response: Tensor
    post: Tensor

    def of(self, stimuli: Tensor) -> Activity:
        """Return the activity of the stimuli with these numbers (n,)."""
        return Activity(*(tensor.index_select(0, stimuli) for tensor in self))


class _LocalLayer(nn.Module):
    """Base of linear and convolutional layers: parameters without gradients, stored activity, the local update."""

    softhebb_power = 0.5
    """Power of `rule.softhebb_rate`."""

    weight: nn.Parameter
    bias: nn.Parameter | None
    theta: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        lr: float,
        bias: bool,
        local_rule: LocalRule,
        activation: Activation,
        inverse_temperature: float,
        initial_weights: InitialWeights,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        if not (math.isfinite(lr) and lr >= 0):
            raise ValueError(f"lr is {lr}: it must be a finite number of 0 or more")
        if local_rule not in LOCAL_RULES:
            raise ValueError(f"local_rule is {local_rule!r}: it must be one of {', '.join(LOCAL_RULES)}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation is {activation!r}: it must be one of {', '.join(ACTIVATIONS)}")
        if initial_weights not in INITIAL_WEIGHTS:
            raise ValueError(f"initial_weights is {initial_weights!r}: it must be one of {', '.join(INITIAL_WEIGHTS)}")
        if not (math.isfinite(inverse_temperature) and inverse_temperature > 0):
            raise ValueError(f"inverse_temperature is {inverse_temperature}: it must be a finite number above 0")
        self.lr = lr
        self.local_rule = local_rule
        self.activation = activation
        self.inverse_temperature = inverse_temperature
        fan_in = math.prod(shape[1:])
        if local_rule == "softhebb":
            weight = torch.randn(shape, generator=generator) * (SOFTHEBB_RADIUS / math.sqrt(fan_in))
        else:
            fan_out = shape[0] * math.prod(shape[2:])
            limit = math.sqrt(6 / (fan_in + fan_out)) if initial_weights == "xavier" else 1 / math.sqrt(fan_in)
            weight = (2 * torch.rand(shape, generator=generator) - 1) * limit
        self.weight = nn.Parameter(weight, requires_grad=False)
        offsets = None
        if bias:
            offsets = (2 * torch.rand(shape[0], generator=generator) - 1) / math.sqrt(fan_in)
            if initial_weights == "xavier":
                offsets.zero_()
        self.bias = None if offsets is None else nn.Parameter(offsets, requires_grad=False)
        self.register_buffer("theta", torch.ones(shape[0]))
        # In a list, because a module takes long to set an attribute.
        self._stored: list[Activity] = []

    @property
    def stored(self) -> Activity:
        """The activity of the last call in training mode; raises RuntimeError if none is stored."""
        if not self._stored:
            raise RuntimeError("no activity is stored: call the layer in training mode before local_update or keep")
        return self._stored[0]

    def store(self, activity: Activity) -> None:
        """Store activity in place of that of the last call."""
        self._stored[:] = [activity]

    def forget(self) -> None:
        """Discard the stored activity."""
        self._stored.clear()

    def keep(self, stimuli: Tensor) -> None:
        """Discard the stored activity, except that of the stimuli with these numbers (n,).

        Raises RuntimeError if no activity is stored.
        """
        self.store(self.stored.of(stimuli))

    def response(self, x: Tensor) -> Tensor:
        """Return z, the linear response to x."""
        raise NotImplementedError

    def activate(self, z: Tensor) -> Tensor:
        """Return y = f(z), units along dimension 1."""
        return activate(z, self.activation)

    def derivative(self, y: Tensor) -> Tensor:
        """Return f'(z) for y = f(z). For the triangle, the mean over units is treated as constant."""
        if self.activation == "tanh":
            return 1 - y * y
        if self.activation == "leaky-relu":
            return torch.where(y > 0, 1.0, LEAK).to(y.dtype)
        return torch.ones_like(y) if self.activation == "linear" else (y > 0).to(y.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Return y, and in training mode store input and output for `local_update`. No gradient is computed.

        Raises ValueError if x is not a batch of inputs.
        """
        if x.ndim != self.weight.ndim or x.shape[1] != self.weight.shape[1]:
            expected = ", ".join(["batch", str(self.weight.shape[1]), "height", "width"][: self.weight.ndim])
            raise ValueError(f"x has shape {tuple(x.shape)}: it must be ({expected})")
        if torch.is_grad_enabled():
            with torch.no_grad():
                return self.forward(x)
        z = self.response(x)
        y = self.activate(z)
        if self.training:
            self.store(Activity(x.detach() if x.requires_grad else x, z, y))
        return y

    def local_update(self, event: float | Tensor, modulation: Tensor | None = None) -> None:
        """Apply equation (1) of rule.py to the activity that the last call of the layer stored.

        event: the event's strength, one number, or (batch,), one for each stimulus. modulation: a third factor for each
        stimulus and unit, (batch, out). With modulation the rule is `rule.direct`, and the bias learns like the synapse
        of an input that is always 1. Without it the layer's `local_rule` applies, and the bias does not change.

        Raises RuntimeError if no activity is stored, and ValueError for wrong shapes.
        """
        if torch.is_grad_enabled():
            with torch.no_grad():
                self.local_update(event, modulation)
            return
        pre, response, post = self.stored
        batch = len(pre)
        if isinstance(event, Tensor) and event.shape not in (torch.Size([]), torch.Size([batch])):
            raise ValueError(f"event has shape {tuple(event.shape)}: give a number, or ({batch},)")
        if modulation is not None and modulation.shape != (batch, len(self.weight)):
            expected = (batch, len(self.weight))
            raise ValueError(f"modulation has shape {tuple(modulation.shape)}: it must be {expected}")
        if not isinstance(event, Tensor) and not (math.isfinite(event) and event >= 0):
            raise ValueError(f"event is {event}: its strength must be a finite number of 0 or more")
        if batch == 0 or (not isinstance(event, Tensor) and event == 0):
            return
        if isinstance(event, Tensor):
            event = event.to(self.weight.dtype)
        # Equation (1) is linear in the event: a strength that all stimuli share becomes part of the rate.
        rate, event = (self.lr, event) if isinstance(event, Tensor) else (self.lr * event, 1.0)
        z, y, event, modulation = self._by_position(response, post, event, modulation)
        factors = self._factors(z, y, event, modulation)
        if modulation is None and self.local_rule == "softhebb":
            self._softhebb_step(factors, rate, event)
            return
        add_change(self.weight, self.weight, factors, rate, self._add_products)
        if modulation is not None and self.bias is not None:
            self.bias.add_(factors.post.sum(0), alpha=rate / len(factors.post))

    def _factors(self, z: Tensor, y: Tensor, event: float | Tensor, modulation: Tensor | None) -> rule.Factors:
        if modulation is not None:
            return rule.direct(modulation, self.derivative(y), event)
        factors = factors_of(
            self.local_rule,
            z,
            y,
            self.weight,
            theta=self.theta,
            inverse_temperature=self.inverse_temperature,
            event=event,
        )
        if self.local_rule == "bcm":
            self.theta.copy_(rule.bcm_threshold(self.theta, y, BCM_RATE, event))
        return factors

    def _softhebb_step(self, factors: rule.Factors, rate: float, event: float | Tensor) -> None:
        change = torch.zeros_like(self.weight)
        add_change(change, self.weight, factors, 1.0, self._add_products)
        strength = event.mean() if isinstance(event, Tensor) else event
        self.weight.add_(softhebb_step(self.weight, change, rate * strength, self.softhebb_power))

    def _add_products(self, target: Tensor, post: Tensor, scale: float) -> None:
        """Add scale times the sum over stimuli of post x^T to `target`, which has the shape of the weights."""
        raise NotImplementedError

    def _by_position(
        self, z: Tensor, y: Tensor, event: float | Tensor, modulation: Tensor | None
    ) -> tuple[Tensor, Tensor, float | Tensor, Tensor | None]:
        """Return z, y, event and modulation for each stimulus of equation (1), tensors with n rows."""
        return z, y, event, modulation


class LocalLinear(_LocalLayer):
    """A linear layer that learns locally: y = f(W x + b), with W (out_features, in_features).

    lr: learning rate. local_rule: the rule of `local_update` without modulation, see rule.py. activation: f.
    inverse_temperature: of SoftHebb's competition. initial_weights: "uniform", weights and biases uniform within
    1 / sqrt(in_features); "xavier", weights uniform within sqrt(6 / (in_features + out_features)) (Glorot & Bengio
    2010) and biases 0, as in the published program. With SoftHebb the weights are normal, and rows have a norm of about
    25. generator: random generator of the weights, torch's default generator if None.

    Raises ValueError, with the name of the argument, for invalid values.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        lr: float = 0.01,
        bias: bool = True,
        *,
        local_rule: LocalRule = "oja",
        activation: Activation = "linear",
        inverse_temperature: float = 1.0,
        initial_weights: InitialWeights = "uniform",
        generator: torch.Generator | None = None,
    ) -> None:
        _check_sizes(in_features=in_features, out_features=out_features)
        shape = (out_features, in_features)
        super().__init__(shape, lr, bias, local_rule, activation, inverse_temperature, initial_weights, generator)
        self.in_features, self.out_features = in_features, out_features

    def response(self, x: Tensor) -> Tensor:
        """Return z = W x + b, (batch, out_features)."""
        return functional.linear(x, self.weight, self.bias)

    def _add_products(self, target: Tensor, post: Tensor, scale: float) -> None:
        target.addmm_(post.T, self.stored.pre, alpha=scale)

    def extra_repr(self) -> str:
        """Return the description of the layer for print(layer)."""
        return f"{self.in_features}, {self.out_features}, lr={self.lr}, rule={self.local_rule}, f={self.activation}"


class LocalConv2d(_LocalLayer):
    """A convolution with stride 1 that learns locally. Each position of each image is a stimulus of equation (1).

    The input x of a stimulus is the patch at its position, and the mean of (1) is over images and positions. weight
    (out_channels, in_channels, kernel_size, kernel_size). The other arguments are those of LocalLinear.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        lr: float = 0.01,
        bias: bool = True,
        *,
        padding: int = 0,
        local_rule: LocalRule = "oja",
        activation: Activation = "linear",
        inverse_temperature: float = 1.0,
        initial_weights: InitialWeights = "uniform",
        generator: torch.Generator | None = None,
    ) -> None:
        _check_sizes(in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size)
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        super().__init__(shape, lr, bias, local_rule, activation, inverse_temperature, initial_weights, generator)
        if padding < 0:
            raise ValueError(f"padding is {padding}: it must be 0 or more")
        self.padding = padding

    def response(self, x: Tensor) -> Tensor:
        """Return z (batch, out_channels, height, width)."""
        return functional.conv2d(x, self.weight, self.bias, padding=self.padding)

    def _by_position(
        self, z: Tensor, y: Tensor, event: float | Tensor, modulation: Tensor | None
    ) -> tuple[Tensor, Tensor, float | Tensor, Tensor | None]:
        positions = z.shape[2] * z.shape[3]
        if isinstance(event, Tensor) and event.ndim == 1:
            event = event.repeat_interleave(positions)
        if modulation is not None:
            modulation = modulation.repeat_interleave(positions, 0)
        return _rows(z), _rows(y), event, modulation

    def _add_products(self, target: Tensor, post: Tensor, scale: float) -> None:
        pre, response, _ = self.stored
        batch, channels, height, width = response.shape
        maps = post.view(batch, height, width, channels).permute(0, 3, 1, 2)
        # The sum over images and positions, without unfolding the patches.
        target.add_(conv2d_weight(pre, self.weight.shape, maps, padding=self.padding), alpha=scale)

    def extra_repr(self) -> str:
        """Return the description of the layer for print(layer)."""
        out, into, size, _ = self.weight.shape
        return f"{into}, {out}, {size} x {size}, lr={self.lr}, rule={self.local_rule}, f={self.activation}"


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} is {size}: it must be 1 or more")


def _rows(maps: Tensor) -> Tensor:
    """Return maps (batch, channels, height, width) as one row for each position, (batch * height * width, channels)."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])
