"""CartPole without velocities in the observation, so that balancing the pole requires memory."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.spaces import Box
from numpy.typing import NDArray

SHOWN = slice(0, 4, 2)
"""The entries of CartPole-v1's observation that hold the position and the angle."""


class CartPoleNoVelocity(CartPoleEnv):
    """Gymnasium's CartPole-v1 with a shorter observation; physics, rewards, ends and images are unchanged.

    Observation: cart position (m), pole angle (rad). Actions: 0 push left, 1 push right. Reward 1 for every step. Info:
    the hidden "cart_velocity" (m/s) and "pole_velocity" (rad/s). With `scaled`, position and angle are fractions of the
    values at which an episode ends. The differences between steps, from which a velocity can be computed, are then
    larger.
    """

    entries: ClassVar[tuple[str, ...]] = ("cart position", "pole angle")
    actions: ClassVar[tuple[str, ...]] = ("push left", "push right")

    def __init__(self, sutton_barto_reward: bool = False, scaled: bool = False, render_mode: str | None = None) -> None:
        super().__init__(sutton_barto_reward, render_mode)
        ends = (self.x_threshold, self.theta_threshold_radians) if scaled else (1.0, 1.0)
        self._unit = np.array(ends, np.float32)
        whole = self.observation_space
        assert isinstance(whole, Box)
        self.observation_space = Box(whole.low[SHOWN] / self._unit, whole.high[SHOWN] / self._unit)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin an episode. The options are those of CartPole-v1: "low" and "high" of the initial state."""
        observation, info = super().reset(seed=seed, options=options)
        return observation[SHOWN] / self._unit, info | hidden(observation)

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Push the cart for one time step of 0.02 s."""
        observation, reward, terminated, truncated, info = super().step(action)  # type: ignore[no-untyped-call]
        return observation[SHOWN] / self._unit, reward, terminated, truncated, info | hidden(observation)


def hidden(observation: NDArray[np.float32]) -> dict[str, float]:
    """Return the velocities in an observation of CartPole-v1."""
    return {"cart_velocity": float(observation[1]), "pole_velocity": float(observation[3])}
