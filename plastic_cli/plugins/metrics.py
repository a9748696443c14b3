"""The names and units under which metrics are shown to a reader; stored data keep keys such as "test/accuracy".

A rule names its own metrics with `Rule(metrics=...)`. A metric without a name is shown by its key.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from plastic_cli.tables import NOTHING, number_text


@dataclass(frozen=True)
class Metric:
    """A metric for a reader.

    name: in words, such as "angle to the gradient". unit: such as "degrees", or "%" for a share between 0 and 1, which
    is shown in percent. signed: whether it can be negative, as a difference of shares; shares and times cannot.
    bounds: the lowest and the highest possible value, if the unit does not say it.
    """

    name: str
    unit: str = ""
    signed: bool = False
    bounds: tuple[float, float] = (-math.inf, math.inf)

    @property
    def heading(self) -> str:
        """The name and, unless it begins with it, the unit, for axes and columns: "angle to the gradient (degrees)"."""
        is_said = self.name.partition(" ")[0] == self.unit
        return self.name if not self.unit or is_said else f"{self.name} ({self.unit})"

    @property
    def possible(self) -> tuple[float, float]:
        """The lowest and the highest stored value that is possible: 0 and 1 for a share, 0 and infinity for a time."""
        if self.signed or self.unit not in ("%", "s"):
            return self.bounds
        return 0.0, 1.0 if self.unit == "%" else math.inf

    @property
    def scale(self) -> float:
        """The factor from a stored value to a shown one: 100 for a share."""
        return 100.0 if self.unit == "%" else 1.0

    def number(self, value: float | None) -> str:
        """Return a value without its unit, except for "%": "92.50%", "81.5", "0.4033"; a dash for a missing value."""
        if value is None or not math.isfinite(value):
            return NOTHING
        if self.unit == "%":
            return f"{100 * value:.2f}%"
        if self.unit == "degrees":
            return f"{value:.1f}"
        counts = self.unit not in ("", "s") and float(value).is_integer()
        return f"{value:,.0f}" if counts or 1e4 <= abs(value) < 1e9 else number_text(value)

    @property
    def unit_after(self) -> str:
        """The unit as it follows `number`."""
        return "" if self.unit == "%" else self.unit

    def text(self, value: float | None) -> str:
        """Return a value with its unit: "92.50%", "81.5 degrees"."""
        return f"{self.number(value)} {self.unit_after}".strip()


POSITIVE = (0.0, math.inf)
"""The bounds of a metric that is 0 or more."""

METRICS: dict[str, Metric] = {
    "accuracy": Metric("accuracy", "%"),
    "loss": Metric("loss", bounds=POSITIVE),
    "return": Metric("return"),
    "reward": Metric("reward"),
    "chance": Metric("accuracy by chance", "%"),
    "angle": Metric("angle to the gradient", "degrees", bounds=(0.0, 180.0)),
    "train/angle": Metric("angle to the gradient", "degrees", bounds=(0.0, 180.0)),
    "train/forward_flops": Metric("cost of forward passes", "FLOPs", bounds=POSITIVE),
    "train/learning_flops": Metric("cost of learning", "FLOPs", bounds=POSITIVE),
    "signal_to_noise": Metric("signal-to-noise ratio", bounds=POSITIVE),
    "silent": Metric("share of silent activity", "%"),
    "dead": Metric("share of dead units", "%"),
    "lifetime": Metric("lifetime sparsity", bounds=(0.0, 1.0)),
    "population": Metric("population sparsity", bounds=(0.0, 1.0)),
    "probe": Metric("accuracy of a linear probe", "%"),
    "cka": Metric("CKA of layers", bounds=(0.0, 1.0)),
    "cka of the untrained": Metric("CKA of layers of the untrained network", bounds=(0.0, 1.0)),
    "accuracy_low": Metric("lower bound of the accuracy", "%"),
    "accuracy_high": Metric("upper bound of the accuracy", "%"),
    "return_low": Metric("lower bound of the return"),
    "return_high": Metric("upper bound of the return"),
    "return_min": Metric("lowest return"),
    "return_max": Metric("highest return"),
    "seconds": Metric("time of the run", "s"),
    "training_seconds": Metric("time of training", "s"),
}
"""Metrics of the toolkit, and metrics that several rules log, by their name or by "split/name"."""

SPLITS = {
    "train": "training {}",
    "validation": "validation {}",
    "test": "test {}",
    "control": "{} of the control",
}
"""How the name of a metric says its split."""


def metric_of(key: str, rule: str | None = None) -> Metric:
    """Return the name and the unit of a metric.

    key: "split/name" as stored, or a key of the results of a command, such as "layer 1/angle". rule: the rule whose
    own names are known too.
    """
    known = {**METRICS, **_metrics_of_rule(rule)}
    parts = key.split("/")
    whole = _find(known, key)
    if whole is not None:
        return whole
    first, last = parts[0], parts[-1]
    of_split = _find(known, f"{first}/{last}") if len(parts) > 2 else None
    if of_split is not None:
        return _with_details(of_split, parts[1:-1])
    for place in range(len(parts) - 1, -1, -1):
        found = _find(known, parts[place])
        if found is not None:
            return _with_details(found, parts[:place] + parts[place + 1 :])
    return Metric(key)


def _metrics_of_rule(rule: str | None) -> Mapping[str, Metric]:
    if rule is None:
        return {}
    # Imported here: a rule refers to this module.
    from plastic_cli.plugins.discovery import discover

    registered = discover().rules.get(rule)
    return {} if registered is None else registered.metrics


def _find(known: Mapping[str, Metric], key: str) -> Metric | None:
    """Return the metric of a key; `accuracy_task_2` has the name of `accuracy_task_N`, and N may be MODULE:NAME."""
    if key in known:
        return known[key]
    numbered = re.fullmatch(r"(.*?_)(\d+|[\w.]+:\w+)", key)
    pattern = known.get(f"{numbered[1]}N") if numbered else None
    if numbered is None or pattern is None:
        return None
    return replace(pattern, name=re.sub(r"\bN\b", numbered[2], pattern.name))


def _with_details(metric: Metric, details: list[str]) -> Metric:
    """Return the metric with its split and what else distinguishes it: "test accuracy under gaussian-noise:0.3"."""
    # A corruption is named with its strength; clean images have none.
    name, rest = metric.name, ["clean" if detail == "clean:0" else detail for detail in details]
    if rest:
        split, _, condition = rest[0].partition("+")
        if split in SPLITS:
            name = SPLITS[split].format(name) + (f" under {condition}" if condition else "")
            del rest[0]
    return replace(metric, name=", ".join([name, *rest]))
