"""Go/no-go with a delay (Zhang et al. 2019, eLife 8:e43191), as NeuroGym describes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from plastic_mpn.environments.tasks.trial_task import (
    FIXATE,
    Observation,
    Steps,
    Trial,
    TrialTask,
    check_number,
)

GO = 1


@dataclass(kw_only=True, eq=False, repr=False)
class GoNogo(TrialTask):
    """One of two stimuli is shown; after a delay, respond if it was the go stimulus, otherwise keep fixating.

    Durations (0, 500, 500, 500 ms at 100 ms a step), rewards and the absence of noise are the published defaults.
    Differences: the go entry, and fixation is required until the decision period; the published penalty covers only the
    fixation period. The maximum return is `reward_correct` times the number of go trials, which depends on the seed.

    Actions: 0 fixate, 1 go. Info: "sample" (0 no-go, 1 go).

    Attributes:
        fixation, stimulus, delay, decision: steps of each period.
        go_probability: probability of the go stimulus.
        reward_fail: for a response in a no-go trial. reward_miss: for no response in a go trial.
        reward_reject: for no response in a no-go trial.
    """

    periods = ("fixation", "stimulus", "delay", "decision")
    actions = ("fixate", "go")
    stimuli = ("no-go stimulus", "go stimulus")

    fixation: Steps = 0
    stimulus: Steps = 5
    delay: Steps = 5
    decision: Steps = 5
    go_probability: float = 0.5
    sigma: float = 0.0
    reward_fail: float = -0.5
    reward_miss: float = -0.5
    reward_reject: float = 0.0

    def __post_init__(self) -> None:
        check_number("go_probability", self.go_probability, low=0, high=1)
        check_number("reward_reject", self.reward_reject)
        super().__post_init__()

    def new_trial(self, shown: Observation, periods: Mapping[str, slice]) -> Trial:
        """Draw go or no-go."""
        go = int(self.np_random.random() < self.go_probability)
        shown[periods["stimulus"], go] += 1
        return Trial(GO if go else FIXATE, {"sample": go}, reward_withheld=self.reward_reject)
