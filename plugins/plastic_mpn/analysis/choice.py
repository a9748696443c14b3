"""What the outputs of a network say about its actions, in a form in which small preferences can be seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from plastic_mpn.networks.agents import MPNDQN, Network


@dataclass(frozen=True)
class Choice:
    """Values to draw at each step, and how to label them.

    values: (T, actions), or (T, 1) for two actions. names: one for each action. label: what the values are. sides: the
    two actions that a single value prefers below and above `middle`; empty for several actions. limits: of the axis;
    None for those of the values.
    """

    values: NDArray[np.float64]
    names: tuple[str, ...]
    label: str
    sides: tuple[str, ...] = ()
    middle: float = 0.0
    limits: tuple[float, float] | None = None


def choice_of(network: Network, outputs: NDArray[np.floating], names: tuple[str, ...]) -> Choice:
    """Return the choice for the outputs (T, actions) of a network.

    Q-values hardly differ between actions relative to their common part, which is the expected return. So they are
    shown relative to their mean over the actions, as the advantages of a dueling network are, and for two actions as
    their difference. Logits and readouts are shown as the probabilities (%) of their softmax.
    """
    values = np.asarray(outputs, np.float64)
    both = names if len(names) == 2 else ()
    if isinstance(network, MPNDQN):
        if both:
            return Choice(values[:, 1:] - values[:, :1], names, "Q-value difference", both)
        return Choice(values - values.mean(axis=1, keepdims=True), names, "Q-value minus mean")
    shares = 100 * softmax(values, axis=1)
    if both:
        return Choice(shares[:, 1:], names, f"probability of {names[1]} (%)", both, 50.0, (0.0, 100.0))
    return Choice(shares, names, "probability (%)", limits=(0.0, 100.0))
