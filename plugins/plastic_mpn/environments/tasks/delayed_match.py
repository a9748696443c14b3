"""Delayed match to sample (Miller, Erickson & Desimone 1996, J Neurosci 16:5154), as NeuroGym describes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from plastic_mpn.environments.tasks.trial_task import (
    Observation,
    Steps,
    Trial,
    TrialTask,
    check_count,
    check_number,
)

MATCH, NON_MATCH = 1, 2


@dataclass(kw_only=True, eq=False, repr=False)
class DelayedMatchToSample(TrialTask):
    """A sample is shown, and after a delay a test; report whether the two match.

    Sample and test are directions on a ring, shown as 0.5 + 0.5 cos(difference) on `directions` entries; with two
    directions that is one entry for each stimulus. A test that does not match is one of the other directions, with
    equal probability. The durations are the published ones at 100 ms a step (300, 500, 1000, 500, 900 ms), and so are
    the noise and the rewards. Differences: noise at every step, the go entry, and fixation is required until the
    decision period.

    Actions: 0 fixate, 1 match, 2 non-match. Info: "sample" and "test" (directions, from 0), "match".

    Attributes:
        fixation, sample, delay, test, decision: steps of each period.
        directions: number of directions.
        match_probability: probability that the test matches.
    """

    periods = ("fixation", "sample", "delay", "test", "decision")
    actions = ("fixate", "match", "non-match")

    fixation: Steps = 3
    sample: Steps = 5
    delay: Steps = 10
    test: Steps = 5
    decision: Steps = 9
    directions: int = 2
    match_probability: float = 0.5

    def __post_init__(self) -> None:
        check_count("directions", self.directions, low=2)
        check_number("match_probability", self.match_probability, low=0, high=1)
        angles = 2 * np.pi * np.arange(self.directions) / self.directions
        self._shape = (0.5 + 0.5 * np.cos(angles[:, None] - angles)).astype(np.float32)
        self.stimuli = tuple(f"direction {direction}" for direction in range(self.directions))
        super().__post_init__()

    def new_trial(self, shown: Observation, periods: Mapping[str, slice]) -> Trial:
        """Draw the sample, and a test that matches it or not."""
        match = bool(self.np_random.random() < self.match_probability)
        sample = int(self.np_random.integers(self.directions))
        test = sample if match else (sample + int(self.np_random.integers(1, self.directions))) % self.directions
        shown[periods["sample"]] += self._shape[sample]
        shown[periods["test"]] += self._shape[test]
        return Trial(MATCH if match else NON_MATCH, {"sample": sample, "test": test, "match": match})
