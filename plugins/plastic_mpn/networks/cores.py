"""Networks with a state and one interface: the MPN and the controls that it is compared with.

    h, new_state = core(x, state)               # x (batch, input): one step
    h, new_state = core(x, state, starts)       # x (time, batch, input): a whole sequence

A state is one tensor whose first axis is the batch. starts (time, batch) is true where a new episode begins: the state
is set to 0 before that step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from plastic_mpn import rule
from plastic_mpn.networks.sequence import mpn_sequence
from plastic_mpn.rule import Activation, Interaction, Plasticity, Variant

CoreName = Literal["mpn", "mpn-pre", "mpn-post", "mpn-additive", "mpn-frozen", "rnn", "gru", "lstm", "mlp"]

LARGEST_FIRST_ETA = math.sqrt(3)
"""The published networks that learn eta draw its initial value from +- this value (Aitken & Mihalas, Methods)."""


class Core(nn.Module):
    """The interface of all networks with a state.

    input_dim, hidden_dim: sizes of x and h. state_shape: shape of the state of one sample.
    """

    input_dim: int
    hidden_dim: int
    state_shape: tuple[int, ...]

    def init_state(self, batch_size: int) -> Tensor:
        """Return the state at the beginning of an episode: zeros (batch_size, *state_shape)."""
        like = next(self.parameters())
        return torch.zeros(batch_size, *self.state_shape, dtype=like.dtype, device=like.device)

    def forward(self, x: Tensor, state: Tensor | None = None, starts: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return (h, new_state) for one step x (batch, input) or a sequence x (time, batch, input).

        Raises ValueError if x or the state has another shape.
        """
        if x.dim() not in (2, 3) or x.shape[-1] != self.input_dim:
            raise ValueError(
                f"x has the shape {tuple(x.shape)}; it must be (batch, {self.input_dim}) for one step"
                f" or (time, batch, {self.input_dim}) for a sequence"
            )
        if state is None:
            state = self.init_state(x.shape[-2])
        elif state.shape != (x.shape[-2], *self.state_shape):
            raise ValueError(
                f"the state has the shape {tuple(state.shape)}; with x {tuple(x.shape)} it must be"
                f" {(x.shape[-2], *self.state_shape)}: create one with init_state({x.shape[-2]})"
            )
        if x.dim() == 3:
            return self.sequence(x, state, starts)
        if starts is not None:
            state = state * (~starts).to(state.dtype).view(-1, *[1] * len(self.state_shape))
        return self.step(x, state)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return (h (batch, hidden), new_state) of one step."""
        raise NotImplementedError

    def sequence(self, x: Tensor, state: Tensor, starts: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return (h (time, batch, hidden), state after the last step)."""
        raise NotImplementedError

    def project(self, x: Tensor) -> Tensor:
        """Return the input of the lowest layer for inputs (..., input): x, or its fixed projection."""
        return x

    def constrain(self) -> None:
        """Clip constrained parameters to their range. Call it after each step of the optimizer."""

    def plastic_layers(self) -> list[MPN]:
        """Return the MPN layers, the lowest first."""
        return []

    def matrices(self, state: Tensor) -> list[Tensor]:
        """Return M (batch, n, d) of each MPN layer."""
        del state
        return []


class MPN(Core):
    """One multi-plasticity layer; its state is M (batch, n, d).

    plasticity, interaction, activation, bound: see `rule.Variant`. eta: None draws the initial value as published. With
    learn_lambda, lambda is kept in [0, lambda_max]; a fixed lambda_decay may be larger. Raises ValueError if a size is
    below 1, if lambda_decay or lambda_max is outside [0, 1], if bound is not above 0, and for an unknown variant.
    """

    W: nn.Parameter
    b: Tensor
    eta: Tensor
    lambda_: Tensor

    def __init__(
        self,
        input_dim: int,
        hidden_dim: int,
        *,
        plasticity: Plasticity = "hebbian",
        interaction: Interaction = "multiplicative",
        eta: float | None = 0.01,
        lambda_decay: float = 0.95,
        lambda_max: float = 0.99,
        learn_eta: bool = False,
        learn_lambda: bool = False,
        activation: Activation = "tanh",
        bias: bool = True,
        bound: float = math.inf,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        for name, size in (("input_dim", input_dim), ("hidden_dim", hidden_dim)):
            if size < 1:
                raise ValueError(f"{name} is {size}; it must be at least 1")
        for name, value in (("lambda_decay", lambda_decay), ("lambda_max", lambda_max)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}; it must lie between 0 and 1")
        for name, word, known in (
            ("plasticity", plasticity, get_args(Plasticity)),
            ("interaction", interaction, get_args(Interaction)),
            ("activation", activation, get_args(Activation)),
        ):
            if word not in known:
                raise ValueError(f"{name} is '{word}'; it must be one of {', '.join(known)}")
        self.input_dim, self.hidden_dim, self.state_shape = input_dim, hidden_dim, (hidden_dim, input_dim)
        if not bound > 0:
            raise ValueError(f"bound is {bound}; it must be above 0")
        self.variant = Variant(activation, plasticity, interaction, bound)
        self.lambda_max = lambda_max
        self.learns_lambda = learn_lambda
        self.W = nn.Parameter(torch.empty(hidden_dim, input_dim))
        nn.init.xavier_uniform_(self.W, generator=generator)
        if eta is None:
            first_eta = torch.empty(()).uniform_(-LARGEST_FIRST_ETA, LARGEST_FIRST_ETA, generator=generator)
        else:
            first_eta = torch.tensor(float(eta))
        self._hold("b", torch.zeros(hidden_dim), learned=bias)
        self._hold("eta", first_eta, learned=learn_eta)
        first_lambda = min(lambda_decay, lambda_max) if learn_lambda else lambda_decay
        self._hold("lambda_", torch.tensor(float(first_lambda)), learned=learn_lambda)

    def _hold(self, name: str, value: Tensor, *, learned: bool) -> None:
        if learned:
            self.register_parameter(name, nn.Parameter(value))
        else:
            self.register_buffer(name, value)

    def decay(self) -> Tensor:
        """Return lambda. A learned lambda is clipped to [0, lambda_max], and its gradient ignores the clipping."""
        if not self.learns_lambda:
            return self.lambda_
        return self.lambda_ + (self.lambda_.clamp(0, self.lambda_max) - self.lambda_).detach()

    def constrain(self) -> None:
        """Clip a learned lambda to [0, lambda_max]."""
        if self.learns_lambda:
            with torch.no_grad():
                self.lambda_.clamp_(0, self.lambda_max)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return (h_t, M_t)."""
        return rule.step(x, state, self.W, self.b, self.eta, self.decay(), self.variant)

    def sequence(self, x: Tensor, state: Tensor, starts: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return (h_1 ... h_T, M_T)."""
        return mpn_sequence(x, state, starts, self.W, self.b, self.eta, self.decay(), self.variant)

    def plastic_layers(self) -> list[MPN]:
        """Return the layer itself."""
        return [self]

    def matrices(self, state: Tensor) -> list[Tensor]:
        """Return the state, which is M."""
        return [state]

    def extra_repr(self) -> str:
        """Return the text that `print` shows for the layer."""
        form = self.variant
        return f"{self.input_dim}, {self.hidden_dim}, {form.plasticity}, {form.interaction}, {form.activation}"


class Recurrent(Core):
    """torch's RNN (tanh), GRU or LSTM, one layer; the state is h (batch, n), for the LSTM h and c (batch, 2, n).

    Each gate has Xavier weights at the start, and biases of 0, as in the published comparisons.
    """

    def __init__(
        self, kind: Literal["rnn", "gru", "lstm"], input_dim: int, hidden_dim: int, generator: torch.Generator | None
    ) -> None:
        super().__init__()
        self.input_dim, self.hidden_dim = input_dim, hidden_dim
        self.state_shape = (2, hidden_dim) if kind == "lstm" else (hidden_dim,)
        types: dict[str, Callable[[int, int], nn.RNNBase]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
        self.network = types[kind](input_dim, hidden_dim)
        for weights in self.network.parameters():
            if weights.dim() == 1:
                nn.init.zeros_(weights)
                continue
            for gate in weights.data.split(hidden_dim):
                nn.init.xavier_uniform_(gate, generator=generator)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return one step of torch's cell, which is faster than a sequence of length 1."""
        weights = tuple(self.network.parameters())
        if isinstance(self.network, nn.LSTM):
            h, cell = torch.lstm_cell(x, (state[:, 0], state[:, 1]), *weights)
            return h, torch.stack([h, cell], dim=1)
        h = (torch.gru_cell if isinstance(self.network, nn.GRU) else torch.rnn_tanh_cell)(x, state, *weights)
        return h, h.clone()

    def sequence(self, x: Tensor, state: Tensor, starts: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the sequence, run in segments that begin where an episode begins."""
        if starts is None or not bool(starts.any()):
            return self._run(x, state)
        cuts = sorted({0, *starts.any(dim=1).nonzero().flatten().tolist(), x.shape[0]})
        segments = []
        for first, end in pairwise(cuts):
            state = state * (~starts[first]).to(state.dtype).view(-1, *[1] * len(self.state_shape))
            h, state = self._run(x[first:end], state)
            segments.append(h)
        return torch.cat(segments), state

    def _run(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(self.network, nn.LSTM):
            h, (last, cell) = self.network(x, (state[None, :, 0].contiguous(), state[None, :, 1].contiguous()))
            return h, torch.stack([last[0], cell[0]], dim=1)
        h, last = self.network(x, state.unsqueeze(0).contiguous())
        return h, last[0]


class Feedforward(Core):
    """Two layers of n ReLU units without memory; the state is empty (batch, 0)."""

    def __init__(self, input_dim: int, hidden_dim: int, generator: torch.Generator | None) -> None:
        super().__init__()
        self.input_dim, self.hidden_dim, self.state_shape = input_dim, hidden_dim, (0,)
        self.network = nn.Sequential(
            make_linear(input_dim, hidden_dim, generator),
            nn.ReLU(),
            make_linear(hidden_dim, hidden_dim, generator),
            nn.ReLU(),
        )

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the layers' output."""
        return self.network(x), state

    def sequence(self, x: Tensor, state: Tensor, starts: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the layers' output. `starts` has no effect without a state."""
        del starts
        return self.network(x), state


class Stack(Core):
    """A stack of cores. The state (batch, total) is the concatenation of their flattened states."""

    def __init__(self, layers: Sequence[Core]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.input_dim, self.hidden_dim = layers[0].input_dim, layers[-1].hidden_dim
        self._shapes = [layer.state_shape for layer in layers]
        self.state_shape = (sum(math.prod(shape) for shape in self._shapes),)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the top layer's h and the states of all."""
        return self._through(x, state, None)

    def sequence(self, x: Tensor, state: Tensor, starts: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the top layer's h and the states of all."""
        return self._through(x, state, starts)

    def _through(self, h: Tensor, state: Tensor, starts: Tensor | None) -> tuple[Tensor, Tensor]:
        after = []
        for layer, part in zip(self._cores(), self._parts(state), strict=True):
            h, new = layer(h, part, starts)
            after.append(new.flatten(1))
        return h, torch.cat(after, dim=1)

    def _cores(self) -> list[Core]:
        return [layer for layer in self.layers if isinstance(layer, Core)]

    def _parts(self, state: Tensor) -> list[Tensor]:
        sizes = [math.prod(shape) for shape in self._shapes]
        return [
            part.unflatten(1, shape) if len(shape) > 1 else part
            for part, shape in zip(state.split(sizes, dim=1), self._shapes, strict=True)
        ]

    def constrain(self) -> None:
        """Constrain every layer."""
        for layer in self._cores():
            layer.constrain()

    def plastic_layers(self) -> list[MPN]:
        """Return the MPN layers, the lowest first."""
        return [plastic for layer in self._cores() for plastic in layer.plastic_layers()]

    def matrices(self, state: Tensor) -> list[Tensor]:
        """Return M of each MPN layer."""
        return [M for layer, part in zip(self._cores(), self._parts(state), strict=True) for M in layer.matrices(part)]


class Projected(Core):
    """A core with a fixed random affine map of its input, A x + c, as in the published networks on tasks.

    A is normal with variance 1/input_dim, c is normal with variance 1. An MPN needs the constant part: it reads a past
    input x_s only through products x_s * x_t with the present input, and c makes one of the factors constant.
    """

    A: Tensor
    c: Tensor

    def __init__(self, core: Core, input_dim: int, generator: torch.Generator | None) -> None:
        super().__init__()
        self.core = core
        self.input_dim, self.hidden_dim, self.state_shape = input_dim, core.hidden_dim, core.state_shape
        self.register_buffer("A", torch.randn(core.input_dim, input_dim, generator=generator) / math.sqrt(input_dim))
        self.register_buffer("c", torch.randn(core.input_dim, generator=generator))

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the core's step on the projected input."""
        return self.core.step(self.project(x), state)

    def sequence(self, x: Tensor, state: Tensor, starts: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the core's sequence on the projected inputs."""
        return self.core.sequence(self.project(x), state, starts)

    def project(self, x: Tensor) -> Tensor:
        """Return A x + c."""
        return nn.functional.linear(x, self.A, self.c)

    def constrain(self) -> None:
        """Constrain the core."""
        self.core.constrain()

    def plastic_layers(self) -> list[MPN]:
        """Return the MPN layers, the lowest first."""
        return self.core.plastic_layers()

    def matrices(self, state: Tensor) -> list[Tensor]:
        """Return M of each MPN layer."""
        return self.core.matrices(state)


def make_core(
    name: CoreName,
    input_dim: int,
    hidden_dim: int,
    *,
    layers: int = 1,
    projection: int = 0,
    generator: torch.Generator | None = None,
    **mpn_options: Any,
) -> Core:
    """Make a core by its name.

    layers: number of layers; each takes the activity of the layer below. projection: dimensions of a fixed random
    affine map of the input, 0 for none. mpn_options: arguments of `MPN`, for cores that are MPNs. Raises ValueError for
    an unknown name.
    """
    if name not in get_args(CoreName):
        raise ValueError(f"there is no core '{name}'; choose one of {', '.join(get_args(CoreName))}")
    for count, value, least in (("layers", layers, 1), ("projection", projection, 0)):
        if value < least:
            raise ValueError(f"{count} is {value}; it must be at least {least}")
    width = projection or input_dim
    cores = [
        _make_layer(name, width if layer == 0 else hidden_dim, hidden_dim, generator, mpn_options)
        for layer in range(layers)
    ]
    core = cores[0] if layers == 1 else Stack(cores)
    return Projected(core, input_dim, generator) if projection else core


def _make_layer(
    name: CoreName, input_dim: int, hidden_dim: int, generator: torch.Generator | None, mpn_options: dict[str, Any]
) -> Core:
    if name in ("rnn", "gru", "lstm"):
        return Recurrent(name, input_dim, hidden_dim, generator)
    if name == "mlp":
        return Feedforward(input_dim, hidden_dim, generator)
    options: dict[str, dict[str, Any]] = {
        "mpn-pre": {"plasticity": "pre"},
        "mpn-post": {"plasticity": "post"},
        "mpn-additive": {"interaction": "additive"},
        "mpn-frozen": {"learn_eta": False, "learn_lambda": False},
    }
    layer = MPN(input_dim, hidden_dim, generator=generator, **{**mpn_options, **options.get(name, {})})
    if name == "mpn-frozen":
        # With eta 0 the modulations stay at 0: this is the same network without its memory. Eta was drawn where it is
        # drawn, so that all weights of a seed are those of an MPN.
        layer.eta.data.zero_()
    return layer


def make_linear(inputs: int, outputs: int, generator: torch.Generator | None) -> nn.Linear:
    """Return a linear layer whose parameters have torch's default distribution and are drawn from `generator`."""
    layer = nn.Linear(inputs, outputs)
    for weights in layer.parameters():
        nn.init.uniform_(weights, -1 / math.sqrt(inputs), 1 / math.sqrt(inputs), generator=generator)
    return layer
