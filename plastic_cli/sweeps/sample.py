"""A random choice of planned runs, spread over rules and recipes, that fits into a given time."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from plastic_cli.sweeps.plan import PlannedRun


@dataclass(frozen=True)
class Candidate:
    """A run that can be drawn; seconds: the time that it took before. A run of two recipes is two candidates."""

    recipe: str
    planned: PlannedRun
    seconds: float


def draw(
    candidates: Sequence[Candidate],
    number: int,
    seconds: float,
    seed: int,
    usable: Callable[[Candidate], bool] = lambda _: True,
) -> list[Candidate]:
    """Draw up to `number` runs whose times add up to at most `seconds`; equal arguments give the same runs.

    Each draw takes one of the rules that have been drawn least often, then one of its recipes that have been drawn
    least often, then one of its runs. Without this, the rule with the most and shortest runs would be drawn nearly
    always. As long as more runs follow, one run takes at most half of the time that is left, and leaves enough for
    as many of the shortest runs as are to be drawn. So neither one long run nor only short runs are drawn.

    usable: asked of a run before it is drawn, because the answer may take time; one that is not usable is left out.
    """
    # The choice must not depend on the order of recipes or of equal runs.
    left = sorted(candidates, key=lambda candidate: (candidate.recipe, candidate.planned.settings))
    generator = random.Random(seed)
    drawn: list[Candidate] = []
    of_rules: Counter[str] = Counter()
    of_recipes: Counter[str] = Counter()
    while len(drawn) < number:
        rest = seconds - sum(candidate.seconds for candidate in drawn)
        limit = _longest(left, number - len(drawn) - 1, rest)
        fitting = [candidate for candidate in left if candidate.seconds <= limit]
        if not fitting:
            return drawn
        fitting = _least_drawn(fitting, of_rules, lambda candidate: candidate.planned.rule, generator)
        fitting = _least_drawn(fitting, of_recipes, lambda candidate: candidate.recipe, generator)
        chosen = generator.choice(fitting)
        if not usable(chosen):
            left.remove(chosen)
            continue
        left = [candidate for candidate in left if candidate.planned.settings != chosen.planned.settings]
        drawn.append(chosen)
        of_rules[chosen.planned.rule] += 1
        of_recipes[chosen.recipe] += 1
    return drawn


def _longest(left: Sequence[Candidate], following: int, rest: float) -> float:
    """Return the longest time that the next run may take, if `following` more are drawn after it."""
    if following == 0 or not left:
        return rest
    shortest = sorted({candidate.planned.settings: candidate.seconds for candidate in left}.values())
    limit = min(rest / 2, rest - sum(shortest[:following]))
    # Where that is too little for any run, one that fits into the rest is better than none.
    return limit if limit >= shortest[0] else min(rest, shortest[0])


def _least_drawn(
    candidates: Sequence[Candidate],
    counts: Counter[str],
    name_of: Callable[[Candidate], str],
    generator: random.Random,
) -> list[Candidate]:
    """Return the candidates of one name, chosen by chance from the names that have been drawn least often."""
    names = sorted({name_of(candidate) for candidate in candidates})
    fewest = min(counts[name] for name in names)
    chosen = generator.choice([name for name in names if counts[name] == fewest])
    return [candidate for candidate in candidates if name_of(candidate) == chosen]
