"""The feedback weights B of a module: how they are drawn, how they follow the weights, and their state."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from plastic_cli import UserError
from plastic_cli.errors import did_you_mean
from plastic_cli.numerics.seeds import torch_generator
from plastic_metafa import rule

ModuleFeedback = Literal[
    "fixed",
    "direct",
    "sign",
    "uniform-sign",
    "batchwise-sign",
    "symmetric",
    "kolen-pollack",
    "weight-mirror",
]
MODULE_FEEDBACKS: tuple[ModuleFeedback, ...] = get_args(ModuleFeedback)

Scale = Literal["xavier", "kaiming"]
SCALES: tuple[Scale, ...] = get_args(Scale)


@dataclass(frozen=True)
class Fan:
    """Inputs and outputs of one unit, which decide how large random feedback is."""

    inputs: int
    outputs: int

    def bound(self, scale: Scale) -> float:
        """Return the largest value of uniform random weights: Glorot & Bengio 2010, or torch's own for its layers."""
        return math.sqrt(6 / (self.inputs + self.outputs)) if scale == "xavier" else 1 / math.sqrt(self.inputs)


def fan_of(weight: Tensor, *, inputs_first: bool = False) -> Fan:
    """Return the fan of a weight as torch counts it: (out, in) or (out, in, *kernel); inputs_first: (in, out)."""
    if weight.ndim < 2:
        return Fan(weight.numel(), 1)
    field = math.prod(weight.shape[2:])
    inputs, outputs = weight.shape[1] * field, weight.shape[0] * field
    return Fan(outputs, inputs) if inputs_first else Fan(inputs, outputs)


class FeedbackWeights:
    """B of every weight of a module, for one kind of feedback.

    A B is drawn when its weight is first used. Its values depend on the seed and the name of the weight and on nothing
    else, so that the order of the layers does not matter. `stored` holds what is kept between calls, by name: B for
    fixed, direct and weight-mirror, magnitudes for sign, W - B for kolen-pollack.
    """

    def __init__(
        self,
        kind: ModuleFeedback,
        *,
        scale: Scale = "xavier",
        decay: float = 1e-3,
        mirror_rate: float = 0.003,
        mirror_samples: int = 16,
        generator: torch.Generator | None = None,
    ) -> None:
        if kind not in MODULE_FEEDBACKS:
            raise UserError(
                f"feedback is {kind!r}: it must be one of {', '.join(MODULE_FEEDBACKS)}."
                f"{did_you_mean(str(kind), MODULE_FEEDBACKS)}"
            )
        if scale not in SCALES:
            raise UserError(f"scale is {scale!r}: it must be xavier or kaiming.")
        for name, value in (("decay", decay), ("mirror_rate", mirror_rate)):
            if not 0 <= value <= 1:
                raise UserError(f"{name} is {value}: it must be from 0 to 1.")
        if mirror_samples < 1:
            raise UserError(f"mirror_samples is {mirror_samples}: it must be 1 or more.")
        if generator is None:
            generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        self.kind, self.scale, self.decay = kind, scale, decay
        self.mirror_rate, self.mirror_samples, self.generator = mirror_rate, mirror_samples, generator
        self.seed = int(torch.randint(2**62, (), generator=generator))
        self.stored: dict[str, Tensor] = {}
        # B in the present call of `backward`, and the weights that were used, both by name.
        self.now: dict[str, Tensor] = {}
        self.used: dict[str, Tensor] = {}
        self._buffers: dict[str, tuple[Tensor, Tensor]] = {}

    def begin(self) -> None:
        """Begin a call of `backward`: the weights may have changed."""
        self.now.clear()
        self.used.clear()

    def end(self) -> None:
        """End a call of `backward`: learned feedback changes, for each weight that was used."""
        for name, W in self.used.items():
            if self.kind == "kolen-pollack":
                self.stored[name] = (1 - self.decay) * self.stored[name]
            elif self.kind == "weight-mirror":
                matrix = W.flatten(1) if W.ndim > 1 else W[None]
                drawn = torch.randn(self.mirror_samples, matrix.shape[1], generator=self.generator)
                B = self.stored[name]
                changed = rule.weight_mirror(B.view_as(matrix), matrix, drawn.to(W), self.mirror_rate)
                self.stored[name] = changed.view_as(B)

    def forget(self, name: str) -> None:
        """Drop B of a tensor that is no weight of a layer."""
        for kept in (self.now, self.used, self.stored):
            kept.pop(name, None)

    @torch.no_grad()
    def of(self, name: str, W: Tensor, fan: Fan) -> Tensor:
        """Return B of a weight in the shape of W, which is the whole parameter or a weight computed from parameters."""
        if name not in self.now:
            W = W.detach()
            self.now[name] = self._feedback(name, W, fan)
            self.used[name] = W
        return self.now[name]

    @torch.no_grad()
    def direct(self, name: str, outputs: int, features: torch.Size, like: Tensor) -> Tensor:
        """Return the direct feedback (outputs, *features) from the output of the module to the input of a layer."""
        shape = (outputs, *features)
        B = self._stored(name, lambda: self._drawn(name, shape, Fan(math.prod(features), outputs), like))
        if B.shape != shape:
            raise UserError(
                f"direct feedback of '{name}' was drawn for an output of {B.shape[0]} units and inputs"
                f" {tuple(B.shape[1:])}; now they are {outputs} and {tuple(features)}. Give inputs of one size, or"
                " leave the layer out with modules=."
            )
        self.now[name] = B.to(like)
        return self.now[name]

    def _feedback(self, name: str, W: Tensor, fan: Fan) -> Tensor:
        if self.kind == "symmetric":
            return W
        if self.kind == "uniform-sign":
            return rule.uniform_sign(W, fan.bound(self.scale) / math.sqrt(3))
        if self.kind == "batchwise-sign":
            return rule.random_magnitudes(self._drawn_in_place(name, W, fan).to(W), W)
        if self.kind == "kolen-pollack":
            D = self._stored(name, lambda: W - self._drawn(name, W.shape, fan, W), W)
            return rule.kolen_pollack(W, D)
        B = self._stored(name, lambda: self._drawn(name, W.shape, fan, W), W)
        return rule.random_magnitudes(B, W) if self.kind == "sign" else B

    def _stored(self, name: str, draw: Callable[[], Tensor], like: Tensor | None = None) -> Tensor:
        if name not in self.stored:
            self.stored[name] = draw()
        kept = self.stored[name]
        if like is not None:
            if kept.shape != like.shape:
                raise UserError(
                    f"feedback of '{name}' has shape {tuple(kept.shape)}, and the weight {tuple(like.shape)}: the state"
                    " belongs to another module."
                )
            if kept.device != like.device or kept.dtype != like.dtype:
                kept = self.stored[name] = kept.to(like)
        return kept

    def _drawn(self, name: str, shape: tuple[int, ...], fan: Fan, like: Tensor) -> Tensor:
        return self._uniform(shape, fan, torch_generator(self.seed, name), like)

    def _drawn_in_place(self, name: str, W: Tensor, fan: Fan) -> Tensor:
        """Return random weights that are uniform on 2^16 levels within the bound; their signs are random too."""
        # 16 bits for each number and memory that is used again: a quarter of the time of `_uniform`.
        bits, buffer = self._buffers.get(name, (None, None))
        if bits is None or buffer is None or buffer.shape != W.shape:
            bits = torch.empty((W.numel() + 3) // 4, dtype=torch.int64)
            buffer = torch.empty(W.shape, dtype=torch.float64 if W.dtype == torch.float64 else torch.float32)
            self._buffers[name] = bits, buffer
        bits.random_(-(2**63), None, generator=self.generator)
        buffer.copy_(bits.view(torch.int16)[: W.numel()].view(W.shape))
        return buffer.mul_(fan.bound(self.scale) / 2**15)

    def _uniform(self, shape: tuple[int, ...], fan: Fan, generator: torch.Generator, like: Tensor) -> Tensor:
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        drawn = torch.rand(shape, generator=generator, dtype=dtype)
        return drawn.mul_(2).sub_(1).mul_(fan.bound(self.scale)).to(like)

    def state_dict(self) -> dict[str, Any]:
        """Return the kind, the seed, the state of the generator, and `stored`."""
        return {
            "kind": self.kind,
            "seed": self.seed,
            "generator": self.generator.get_state(),
            "feedback": {name: tensor.clone() for name, tensor in self.stored.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; raises UserError for the state of another kind of feedback."""
        if state["kind"] != self.kind:
            raise UserError(f"the state is that of feedback={state['kind']!r}, and this rule has {self.kind!r}.")
        self.seed = int(state["seed"])
        self.generator.set_state(state["generator"].cpu())
        self.stored = {name: tensor.clone() for name, tensor in state["feedback"].items()}
        self.begin()
