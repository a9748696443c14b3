"""Perceptual decision making with a delayed response (Britten et al. 1992; Inagaki et al. 2019), after NeuroGym."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from plastic_mpn.environments.tasks.trial_task import (
    Observation,
    Steps,
    Trial,
    TrialTask,
    accumulated,
    check_choices,
    check_number,
)


@dataclass(kw_only=True, eq=False, repr=False)
class PerceptualDecisionMaking(TrialTask):
    """Two noisy inputs, then a delay; report which of the two had the higher mean.

    In the stimulus period the two inputs have the means (1 + c) / 2 and (1 - c) / 2 for signed coherence c, whose
    strength is drawn from `coherences` and whose sign is random. With strength 0 the correct side is random.
    Fixation, stimulus, decision (100, 2000, 100 ms at 100 ms a step), coherences, noise and rewards are the published
    defaults of the task without delay, which `delay=0` gives; the published delayed-response version draws delays
    from 300 to 4000 ms, which `delay=(3, 5, 7, 9, 12, 20, 32, 40)` gives. Differences: noise at every step, no mean
    input outside the stimulus period, the go entry, and fixation is required until the decision period.

    Perfect integration of n steps of stimulus gives a fraction Phi(c sqrt(n) / (sigma sqrt(2))) of correct choices at
    strength c: 89.6% over the default coherences. In one fifth of these trials the strength is 0.

    Actions: 0 fixate, 1 left, 2 right. Info: "coherence" (signed, positive for left), "evidence" (left minus right,
    summed over the stimulus period so far; its mean after n of those steps is n times the coherence).

    Attributes:
        fixation, stimulus, delay, decision: steps of each period.
        coherences: strengths, from 0 to 1, drawn with equal probability.
    """

    periods = ("fixation", "stimulus", "delay", "decision")
    actions = ("fixate", "left", "right")
    stimuli = ("left", "right")

    fixation: Steps = 1
    stimulus: Steps = 20
    delay: Steps = 10
    decision: Steps = 1
    coherences: float | Sequence[float] = (0.0, 0.064, 0.128, 0.256, 0.512)

    def __post_init__(self) -> None:
        self._strengths = check_choices("coherences", self.coherences)
        for strength in self._strengths:
            check_number("coherences", strength, low=0, high=1)
        super().__post_init__()

    def new_trial(self, shown: Observation, periods: Mapping[str, slice]) -> Trial:
        """Draw the side and the strength."""
        side = self.draw((0, 1))
        coherence = float(self.draw(self._strengths)) * (1 - 2 * side)
        stimulus = shown[periods["stimulus"]]
        stimulus += ((1 + coherence) / 2, (1 - coherence) / 2)
        evidence = accumulated(stimulus[:, 0] - stimulus[:, 1], periods["stimulus"], len(shown))
        return Trial(1 + side, {"coherence": coherence}, {"evidence": evidence})
