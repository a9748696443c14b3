"""Context-dependent decision making (Mante et al. 2013, Nature 503:78), after NeuroGym's description of it."""

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

MODALITIES = ("motion", "color")


@dataclass(kw_only=True, eq=False, repr=False)
class ContextDecisionMaking(TrialTask):
    """Motion and color each favor one of two choices; the context selects which of them to integrate and report.

    In the stimulus period each modality has the means (1 + c) / 2 and (1 - c) / 2 on its two inputs; its signed
    coherence c has a strength drawn from `coherences` and a random sign. The context is shown at every step. Fixation,
    stimulus, decision (300, 750, 100 ms at 100 ms a step, rounded), coherences, noise and rewards are the published
    defaults. The published delay is drawn for each trial (exponential, mean 600 ms, clipped to 300 to 3000 ms); here it
    is 6 steps unless several are given. Other differences: noise at every step, no mean input outside the stimulus
    period, the go entry, and fixation is required until the decision period.

    Perfect integration of n steps of the relevant modality gives a fraction Phi(c sqrt(n) / (sigma sqrt(2))) of correct
    choices at strength c: 94.7% over the default coherences.

    Actions: 0 fixate, 1 and 2 the choices. Info: "context" ("motion" or "color"), "coherence_motion" and
    "coherence_color" (signed, positive for choice 1), "coherence" (that of the context), "congruent" (both favor the
    same choice), "evidence_motion" and "evidence_color" (input 1 minus input 2, summed over the stimulus period so
    far), "evidence" (that of the context).

    Attributes:
        fixation, stimulus, delay, decision: steps of each period.
        coherences: strengths, from 0 to 1, drawn with equal probability.
        contexts: the modalities that the context can select ("motion", "color"), drawn with equal probability.
    """

    periods = ("fixation", "stimulus", "delay", "decision")
    actions = ("fixate", "choice 1", "choice 2")
    stimuli = ("motion 1", "motion 2", "color 1", "color 2")
    cues = ("motion context", "color context")

    fixation: Steps = 3
    stimulus: Steps = 8
    delay: Steps = 6
    decision: Steps = 1
    coherences: float | Sequence[float] = (0.05, 0.15, 0.5)
    contexts: str | Sequence[str] = MODALITIES

    def __post_init__(self) -> None:
        self._strengths = check_choices("coherences", self.coherences)
        for strength in self._strengths:
            check_number("coherences", strength, low=0, high=1)
        # Older runs have stored the British spelling.
        contexts = ["color" if context == "colour" else context for context in check_choices("contexts", self.contexts)]
        for context in contexts:
            if context not in MODALITIES:
                raise ValueError(f"contexts must be of 'motion' and 'color', not {context!r}")
        self._contexts = [MODALITIES.index(context) for context in contexts]
        super().__post_init__()

    def new_trial(self, shown: Observation, periods: Mapping[str, slice]) -> Trial:
        """Draw the context, and a side and a strength for each modality."""
        context = self.draw(self._contexts)
        sides = [self.draw((0, 1)) for _ in MODALITIES]
        motion, color = (float(self.draw(self._strengths)) * (1 - 2 * side) for side in sides)
        stimulus = shown[periods["stimulus"], :4]
        stimulus += ((1 + motion) / 2, (1 - motion) / 2, (1 + color) / 2, (1 - color) / 2)
        shown[:, 4 + context] = 1
        evidence = accumulated(stimulus[:, 0::2] - stimulus[:, 1::2], periods["stimulus"], len(shown))
        facts: dict[str, float | bool | str] = {
            "context": MODALITIES[context],
            "coherence": (motion, color)[context],
            "coherence_motion": motion,
            "coherence_color": color,
            "congruent": sides[0] == sides[1],
        }
        traces = {
            "evidence": evidence[:, context],
            "evidence_motion": evidence[:, 0],
            "evidence_color": evidence[:, 1],
        }
        return Trial(1 + sides[context], facts, traces)
