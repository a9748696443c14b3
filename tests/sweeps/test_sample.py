"""The random choice of runs for `plastic verify --sample`."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from plastic_cli.sweeps.plan import PlannedRun
from plastic_cli.sweeps.sample import Candidate, draw

RUN = PlannedRun("backprop", {"seed": 0}, "", "plastic", None, {})


def candidates(**recipes):
    """Candidates of RULE_RECIPE = the seconds of its runs."""
    found = []
    for name, times in recipes.items():
        rule, _, recipe = name.partition("_")
        for number, seconds in enumerate(times):
            config = {"seed": number, "recipe": recipe}
            found.append(Candidate(recipe, replace(RUN, rule=rule, config=config), float(seconds)))
    return found


MANY = candidates(
    a_short=[1] * 200, a_long=range(100, 140), b_some=range(5, 60, 5), c_one=[300], c_two=[20, 30], d_few=[2, 3, 400]
)


def total(drawn):
    return sum(candidate.seconds for candidate in drawn)


@pytest.mark.parametrize("seed", range(40))
def test_the_time_is_kept_and_no_run_is_drawn_twice(seed):
    drawn = draw(MANY, 10, 600, seed)
    assert len(drawn) == 10
    assert total(drawn) <= 600
    assert len({candidate.planned.settings for candidate in drawn}) == 10


@pytest.mark.parametrize("seed", range(10))
def test_rules_and_their_recipes_are_drawn_equally_often(seed):
    drawn = draw(MANY, 8, float("inf"), seed)
    assert Counter(candidate.planned.rule for candidate in drawn) == dict.fromkeys("abcd", 2)
    # Two recipes of one rule are both drawn, however many runs each has.
    assert {candidate.recipe for candidate in drawn if candidate.planned.rule in "ac"} == {
        "short",
        "long",
        "one",
        "two",
    }


def test_the_same_seed_draws_the_same_runs_in_any_order_of_the_candidates():
    def runs(listed, seed):
        return [candidate.planned.settings for candidate in draw(listed, 6, 200, seed)]

    assert runs(MANY, 3) == runs(MANY[::-1], 3)
    assert len({tuple(runs(MANY, seed)) for seed in range(20)}) > 15


def test_long_runs_are_drawn_too_and_leave_time_for_others():
    shares = [max(candidate.seconds for candidate in draw(MANY, 10, 600, seed)) / 600 for seed in range(100)]
    assert max(shares) <= 0.5
    # The 300 s of one run in 200 candidates fit; a choice among all candidates would nearly always miss them.
    assert sum(share >= 0.15 for share in shares) > 60


def test_as_many_runs_as_fit_are_drawn():
    tight = candidates(a_x=[1, 2, 3, 50], b_y=[4, 90])
    for seed in range(20):
        drawn = draw(tight, 4, 10, seed)
        assert sorted(candidate.seconds for candidate in drawn) == [1, 2, 3, 4]
        # One run may take all of the time, half of it only while others follow.
        assert total(draw(tight, 1, 90, seed)) <= 90
    assert {draw(tight, 1, 90, seed)[0].seconds for seed in range(60)} == {1, 2, 3, 4, 50, 90}
    assert total(draw(tight, 6, 12, 0)) <= 12
    assert draw(tight, 3, 0.5, 0) == []
    assert draw([], 3, 10, 0) == []
    assert len(draw(tight, 99, 1000, 0)) == 6


def test_runs_that_cannot_be_used_are_replaced_by_others():
    asked = []

    def usable(candidate):
        asked.append(candidate)
        return candidate.recipe != "short"

    drawn = draw(MANY, 10, 2000, 1, usable)
    assert len(drawn) == 10
    assert all(candidate.recipe != "short" for candidate in drawn)
    assert len(asked) == len(set(map(id, asked)))
    assert draw(MANY, 3, 100, 0, lambda _: False) == []


def test_a_run_of_two_recipes_is_drawn_once():
    (run,) = candidates(a_x=[1])
    drawn = draw([run, replace(run, recipe="y")], 2, 10, 0)
    assert len(drawn) == 1
