"""The tasks of the mpn plugin. Importing this package registers them with Gymnasium.

    import gymnasium
    import plastic_mpn.environments.tasks

    env = gymnasium.make("plastic/GoNogo-v0", delay=20)

`gymnasium.make("plastic_mpn.environments.tasks:plastic/GoNogo-v0")` does both. The keyword arguments are those of the
task's class.
"""

from __future__ import annotations

import gymnasium

TASKS: dict[str, str] = {
    "plastic/SimpleIntegration-v0": "Report at the go input which of several kinds of evidence occurred most often.",
    "plastic/ContextIntegration-v0": "Simple integration of one of two inputs; a context cue selects which.",
    "plastic/DelayedMatchToSample-v0": "Remember a sample over a delay and report whether the test matches it.",
    "plastic/GoNogo-v0": "Respond after a delay if the stimulus meant go; do not respond if it meant no-go.",
    "plastic/PerceptualDecisionMaking-v0": "Integrate two noisy inputs and report the stronger one after a delay.",
    "plastic/ContextDecisionMaking-v0": "Integrate motion or color, as the context selects, and ignore the other.",
    "plastic/CartPoleNoVelocity-v1": "CartPole-v1 with the cart position and the pole angle, but without velocities.",
}
"""Every task: its Gymnasium id and a one-line description."""

_ENTRY_POINTS = {
    "plastic/SimpleIntegration-v0": "integration:SimpleIntegration",
    "plastic/ContextIntegration-v0": "integration:ContextIntegration",
    "plastic/DelayedMatchToSample-v0": "delayed_match:DelayedMatchToSample",
    "plastic/GoNogo-v0": "go_nogo:GoNogo",
    "plastic/PerceptualDecisionMaking-v0": "perceptual_decision:PerceptualDecisionMaking",
    "plastic/ContextDecisionMaking-v0": "context_decision:ContextDecisionMaking",
    "plastic/CartPoleNoVelocity-v1": "cartpole:CartPoleNoVelocity",
}
_STEP_LIMITS = {"plastic/CartPoleNoVelocity-v1": 500}

__all__ = ["TASKS", "register_tasks"]


def register_tasks() -> None:
    """Register with Gymnasium every task that is not registered yet. Creating a task imports its module."""
    for task, entry_point in _ENTRY_POINTS.items():
        if task not in gymnasium.registry:
            gymnasium.register(task, entry_point=f"{__name__}.{entry_point}", max_episode_steps=_STEP_LIMITS.get(task))


register_tasks()
