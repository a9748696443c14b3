"""How often a run of the reference lies outside the prediction interval of the other seeds of its setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plastic_cli.runs.metrics import MAIN_METRICS
from plastic_cli.runs.reference import Reference, setting_text
from plastic_cli.statistics.intervals import MINIMUM_VALUES, prediction_interval
from plastic_cli.verbs.verify import shared_confidence


@dataclass(frozen=True)
class Outliers:
    """Main metrics of the reference, each judged by the other seeds. outside: how many of them lie outside."""

    values: int
    outside: int

    @property
    def share(self) -> float:
        """The share that lies outside."""
        return self.outside / self.values


def outliers_by_rule(reference: Reference, numbers: int) -> dict[str, Outliers]:
    """Return, by rule, how many main metrics of runs lie outside the interval of the other seeds.

    numbers: how many numbers a verification judges, which share its confidence. A value counts
    if at least three other seeds have one. Of normal results, a share of 0.05 / numbers lies outside.
    """
    settings: dict[tuple[str, str, str], dict[int, dict[str, float | None]]] = {}
    for row in reference.rows():
        if row["status"] == "completed":
            key = (row["rule"], setting_text(row["rule"], row["config"]), row["data_checksum"] or "")
            settings.setdefault(key, {})[row["seed"]] = row["summary"]
    judged: dict[str, list[bool]] = {}
    for (rule, *_), by_seed in settings.items():
        for seed, summary in by_seed.items():
            for metric in (metric for metric in MAIN_METRICS if metric in summary):
                others = [other.get(metric) for key, other in by_seed.items() if key != seed]
                if len(others) >= MINIMUM_VALUES and None not in others:
                    judged.setdefault(rule, []).append(_is_outside(summary[metric], others, shared_confidence(numbers)))
    return {rule: Outliers(len(judged[rule]), sum(judged[rule])) for rule in sorted(judged)}


def outliers(reference: Reference, numbers: int) -> Outliers:
    """Return how many main metrics of all rules lie outside, see `outliers_by_rule`."""
    of_rules = outliers_by_rule(reference, numbers).values()
    return Outliers(sum(found.values for found in of_rules), sum(found.outside for found in of_rules))


def _is_outside(value: float | None, others: Sequence[float | None], confidence: float) -> bool:
    interval = prediction_interval([float(other) for other in others if other is not None], confidence)
    return value is None or not interval.low <= value <= interval.high
