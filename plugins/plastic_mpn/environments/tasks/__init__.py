"""The tasks of the mpn plugin, registered with Gymnasium when this package is imported.

    import gymnasium
    import plastic_mpn.environments.tasks

    env = gymnasium.make("plastic/GoNogo-v0", delay=20)

`gymnasium.make("plastic_mpn.environments.tasks:plastic/GoNogo-v0")` does both. The keyword arguments are those of the
task's class.
"""

from __future__ import annotations

import gymnasium

TASKS: dict[str, str] = {
    "plastic/SimpleIntegration-v0": "Say at the go input which of several kinds of evidence came most often.",
    "plastic/ContextIntegration-v0": "As simple integration, for the one of two parts that a context asks for.",
    "plastic/DelayedMatchToSample-v0": "Keep a sample over a delay and say whether the test is the same.",
    "plastic/GoNogo-v0": "Respond after a delay if the stimulus meant go, withhold if it meant no-go.",
    "plastic/PerceptualDecisionMaking-v0": "Integrate two noisy inputs and report the stronger one after a delay.",
    "plastic/ContextDecisionMaking-v0": "Integrate motion or colour, as the context asks, and ignore the other.",
    "plastic/CartPoleNoVelocity-v1": "CartPole-v1 that shows the cart's position and the pole's angle but no velocity.",
}
"""Every task: its Gymnasium id and what it asks, in a line."""

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
    """Register every task with Gymnasium that is not registered yet. A task's module is imported when it is made."""
    for task, entry_point in _ENTRY_POINTS.items():
        if task not in gymnasium.registry:
            gymnasium.register(task, entry_point=f"{__name__}.{entry_point}", max_episode_steps=_STEP_LIMITS.get(task))


register_tasks()
