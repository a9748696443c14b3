"""Adam for gradients that are given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class Adam:
    """Adam (Kingma & Ba 2015) with torch's default options and its fused step, on the CPU or a GPU.

    `torch.optim.Adam(fused=True)` makes the same steps, bit for bit. Its `step` takes a tenth of a millisecond for what
    it does around the step, and its first one imports torch's compiler, which takes a second.

    lr: learning rate.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float) -> None:
        self.parameters = list(parameters)
        self.lr = lr
        self._states: list[dict[str, Tensor]] = []

    def step(self, gradients: Sequence[Tensor]) -> None:
        """Change each parameter along its gradient."""
        if not self._states:
            self._states = [
                {
                    "step": torch.zeros((), device=parameter.device),
                    "exp_avg": torch.zeros_like(parameter, requires_grad=False),
                    "exp_avg_sq": torch.zeros_like(parameter, requires_grad=False),
                }
                for parameter in self.parameters
            ]
        adam(
            self.parameters,
            list(gradients),
            [state["exp_avg"] for state in self._states],
            [state["exp_avg_sq"] for state in self._states],
            [],
            [state["step"] for state in self._states],
            fused=True,
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=self.lr,
            weight_decay=0.0,
            eps=EPSILON,
            maximize=False,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the moments and the learning rate, in the form of torch's optimizers."""
        numbers = list(range(len(self.parameters)))
        group = {"lr": self.lr, "betas": BETAS, "eps": EPSILON, "params": numbers}
        return {"state": dict(enumerate(self._states)), "param_groups": [group]}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Restore what `state_dict` returned, or that of `torch.optim.Adam`."""
        (group,) = state["param_groups"]
        self.lr = group["lr"]
        stored = state["state"]
        self._states = [
            {
                "step": torch.as_tensor(stored[number]["step"], dtype=torch.float32).to(parameter.device, copy=True),
                **{name: stored[number][name].to(parameter, copy=True) for name in ("exp_avg", "exp_avg_sq")},
            }
            for number, parameter in enumerate(self.parameters)
            if stored
        ]
