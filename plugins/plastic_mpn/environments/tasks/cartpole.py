"""CartPole that hides the velocities, so that balancing the pole needs memory."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.spaces import Box
from numpy.typing import NDArray

SHOWN = slice(0, 4, 2)
"""Where CartPole-v1's observation has the position and the angle."""


class CartPoleNoVelocity(CartPoleEnv):
    """Gymnasium's CartPole-v1: its physics, rewards, ends and pictures; only the observation is cut.

    Observation: cart position (m), pole angle (rad). Actions: 0 push left, 1 push right. Reward 1 for every step.
    Info: "cart_velocity" (m/s) and "pole_velocity" (rad/s), what is hidden. With `scaled` position and angle are shown
    as fractions of where an episode ends, so that a step's difference, which is all there is of a velocity, is not lost
    among numbers near 0.
    """

    entries: ClassVar[tuple[str, ...]] = ("cart position", "pole angle")
    actions: ClassVar[tuple[str, ...]] = ("left", "right")

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
        """Begin an episode; options as CartPole-v1's: "low" and "high" of the first state."""
        observation, info = super().reset(seed=seed, options=options)
        return observation[SHOWN] / self._unit, info | hidden(observation)

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Push the cart for one time step of 0.02 s."""
        observation, reward, terminated, truncated, info = super().step(action)  # type: ignore[no-untyped-call]
        return observation[SHOWN] / self._unit, reward, terminated, truncated, info | hidden(observation)


def hidden(observation: NDArray[np.float32]) -> dict[str, float]:
    """The velocities in an observation of CartPole-v1."""
    return {"cart_velocity": float(observation[1]), "pole_velocity": float(observation[3])}
