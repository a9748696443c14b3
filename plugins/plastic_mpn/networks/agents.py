"""Agents: a core with a state, and heads that read its activity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from plastic_mpn.networks.cores import (
    CoreName,
    Projected,
    make_core,
    make_linear,
)
from plastic_mpn.networks.stored import PUBLISHED_NAMES, PUBLISHED_WEIGHTS, from_published

HEAD_DIM = 64
"""Units of the layer between the core and the heads of an ActorCritic."""


class MPNDQN(nn.Module):
    """A core with a linear head that returns one Q-value for each action.

    The input is observations (batch, obs_dim) or sequences (time, batch, obs_dim). For the other arguments see
    `cores.make_core` and `cores.MPN`. `load_state_dict` also takes a checkpoint of the published program (mpn-rl): its
    first version stores no eta and lambda, so give these to the constructor.
    """

    def __init__(
        self, obs_dim: int, hidden_dim: int, action_dim: int, *, core: CoreName = "mpn", **core_options: Any
    ) -> None:
        super().__init__()
        generator = core_options.get("generator")
        self.core = make_core(core, obs_dim, hidden_dim, **core_options)
        self.head = make_linear(hidden_dim, action_dim, generator)
        self.register_load_state_dict_pre_hook(_accept_published)  # type: ignore[no-untyped-call]

    def init_state(self, batch_size: int) -> Tensor:
        """Return the state at the beginning of an episode."""
        return self.core.init_state(batch_size)

    def forward(self, obs: Tensor, state: Tensor | None = None, starts: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the Q-values (..., action_dim) and the new state."""
        h, state = self.core(obs, state, starts)
        return self.head(h), state

    def observe(self, obs: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the Q-values, the activity h and the new state of one step."""
        h, state = self.core(obs, state)
        return self.head(h), h, state

    def split_projection(self) -> tuple[Callable[[NDArray[np.float32]], NDArray[np.float32]], MPNDQN]:
        """Return the fixed projection of observations (batch, obs_dim), and the network that takes its output.

        The network shares its parameters with this one. Without a projection, return the identity and this network.
        """
        if not isinstance(self.core, Projected):
            return lambda observations: observations, self
        A, c = self.core.A.numpy(force=True), self.core.c.numpy(force=True)
        inner = MPNDQN.__new__(MPNDQN)
        nn.Module.__init__(inner)
        inner.core, inner.head = self.core.core, self.head
        return lambda observations: observations @ A.T + c, inner

    @torch.no_grad()
    def select_action(
        self,
        obs: Tensor | NDArray[np.floating[Any]],
        state: Tensor,
        epsilon: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> tuple[int | Tensor, Tensor]:
        """Return an action and the new state: a random action with probability epsilon, otherwise the best one.

        obs: (batch, obs_dim), or a single observation (obs_dim,). The action is an int for a batch of one, otherwise a
        tensor (batch,).
        """
        observations = torch.as_tensor(obs, dtype=state.dtype, device=state.device)
        q_values, state = self(observations.unsqueeze(0) if observations.dim() == 1 else observations, state)
        actions = q_values.argmax(dim=-1)
        if epsilon > 0:
            explores = torch.rand(actions.shape, generator=generator) < epsilon
            random = torch.randint(q_values.shape[-1], actions.shape, generator=generator)
            actions = torch.where(explores.to(actions.device), random.to(actions.device), actions)
        return int(actions) if actions.numel() == 1 else actions, state


def _accept_published(network: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Replace a state of the published program by one with our names, before a network loads it."""
    if prefix or not (PUBLISHED_WEIGHTS in state or PUBLISHED_NAMES.keys() & state.keys()):
        return
    # What the published state lacks keeps its value.
    own = {name: value for name, value in network.state_dict().items() if name in ("core.eta", "core.lambda_")}
    present = own | from_published(state)
    state.clear()
    state.update(present)


class ActorCritic(nn.Module):
    """A core, a layer of ReLU units that reads its activity, and a policy and a value that read the layer."""

    def __init__(
        self,
        obs_dim: int,
        hidden_dim: int,
        action_dim: int,
        *,
        core: CoreName = "mpn",
        head_dim: int = HEAD_DIM,
        **core_options: Any,
    ) -> None:
        super().__init__()
        generator = core_options.get("generator")
        self.core = make_core(core, obs_dim, hidden_dim, **core_options)
        self.trunk = nn.Sequential(make_linear(hidden_dim, head_dim, generator), nn.ReLU())
        self.actor = make_linear(head_dim, action_dim, generator)
        self.critic = make_linear(head_dim, 1, generator)

    def init_state(self, batch_size: int) -> Tensor:
        """Return the state at the beginning of an episode."""
        return self.core.init_state(batch_size)

    def forward(
        self, obs: Tensor, state: Tensor | None = None, starts: Tensor | None = None
    ) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Return (logits (..., action_dim), values (...)) and the new state."""
        h, state = self.core(obs, state, starts)
        features = self.trunk(h)
        return (self.actor(features), self.critic(features).squeeze(-1)), state

    def observe(self, obs: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the logits, the activity h and the new state of one step."""
        h, state = self.core(obs, state)
        return self.actor(self.trunk(h)), h, state


class Readout(nn.Module):
    """A core and a linear readout, y = W_RO h, for supervised tasks."""

    def __init__(
        self,
        input_dim: int,
        hidden_dim: int,
        outputs: int,
        *,
        core: CoreName = "mpn",
        readout_bias: bool = False,
        **core_options: Any,
    ) -> None:
        super().__init__()
        generator = core_options.get("generator")
        self.core = make_core(core, input_dim, hidden_dim, **core_options)
        self.head = nn.Linear(hidden_dim, outputs, bias=readout_bias)
        nn.init.xavier_uniform_(self.head.weight, generator=generator)

    def init_state(self, batch_size: int) -> Tensor:
        """Return the state at the beginning of a trial."""
        return self.core.init_state(batch_size)

    def forward(self, x: Tensor, state: Tensor | None = None, starts: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return y (..., outputs) and the new state."""
        h, state = self.core(x, state, starts)
        return self.head(h), state

    def observe(self, obs: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return y, the activity h and the new state of one step."""
        h, state = self.core(obs, state)
        return self.head(h), h, state


Network = MPNDQN | ActorCritic | Readout
"""The networks that the algorithms train."""
