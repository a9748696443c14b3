"""How a report shows numbers: shares in percent, intervals or standard deviations, the number of decimals."""

from __future__ import annotations

import math
from dataclasses import dataclass

from plastic_cli.plugins.metrics import Metric
from plastic_cli.statistics.intervals import MINIMUM_VALUES, Interval, interval_method
from plastic_cli.tables import NOTHING, Number, number_text

SIGNIFICANT = 4
"""Significant digits of numbers that are not shares, unless a number of decimals is given."""

PERCENT_DECIMALS = 2

MINIMUM_FOR_DEVIATION = 2
"""A standard deviation needs two values."""


@dataclass(frozen=True)
class NumberStyle:
    """How numbers are shown.

    percent: shares in percent, not from 0 to 1. deviation: mean and standard deviation, not mean and interval. digits:
    the number of decimals; None: two for percent, and four significant digits for others.
    """

    percent: bool = True
    deviation: bool = False
    digits: int | None = None

    def heading(self, metric: Metric) -> str:
        """Return the name of a metric with its unit: "test accuracy (%)"."""
        return metric.name if metric.unit == "%" and not self.percent else metric.heading

    def text(self, value: float, metric: Metric) -> str:
        """Return a value without its unit."""
        shown = self._shown(value, metric)
        return self._text(shown, self._decimals([shown], metric))

    def estimate(self, estimate: Interval | None, metric: Metric) -> Number | None:
        """Return the cell of a mean with its interval or deviation; None without a value."""
        if estimate is None or not estimate.n:
            return None
        mean, low, high = (self._shown(value, metric) for value in (estimate.mean, estimate.low, estimate.high))
        deviation = self._shown(estimate.deviation, metric)
        # The number of values is shown only if it differs from the number of runs.
        count = [f"(n={estimate.n})"] if estimate.dropped else []
        if self.deviation:
            decimals = self._decimals([mean, deviation], metric)
            spread = [f"± {self._text(deviation, decimals)}"] if estimate.n >= MINIMUM_FOR_DEVIATION else []
        else:
            decimals = self._decimals([mean, low, high], metric)
            bounds = f"[{self._text(low, decimals)}, {self._text(high, decimals)}]"
            spread = [bounds] if estimate.known else []
        return Number(self._text(mean, decimals), " ".join(spread + count), estimate.mean)

    def figure(self, value: float, margin: float, metric: Metric) -> str:
        """Return a published value with its tolerance: "92.83 ± 0.5"."""
        shown, around = self._shown(value, metric), self._shown(margin, metric)
        if self.digits is not None:
            return f"{shown:.{self.digits}f}" + (f" ± {around:.{self.digits}f}" if margin else "")
        # Rounded, because 100 times a share can have a wrong last digit.
        return f"{shown:.12g}" + (f" ± {around:.3g}" if margin else "")

    def caption(self, estimates: list[Interval]) -> str:
        """Return what the cells of `estimates` say, as sentences."""
        counts = [estimate.n for estimate in estimates if estimate.n]
        if not counts or max(counts) == 1:
            return "One seed each, so there is no interval." if counts else ""
        if self.deviation:
            return "Mean ± standard deviation over n seeds."
        if max(counts) < MINIMUM_VALUES:
            return f"Mean over n seeds. An interval needs {MINIMUM_VALUES} seeds."
        return f"Mean over n seeds. In brackets: {interval_method()}, if there are at least {MINIMUM_VALUES} seeds."

    def _shown(self, value: float, metric: Metric) -> float:
        return value * metric.scale if self.percent else value

    def _decimals(self, values: list[float], metric: Metric) -> int | None:
        """Return the common number of decimals of a mean and its bounds; None: each has its own."""
        if self.digits is not None:
            return self.digits
        if metric.unit == "%" and self.percent:
            return PERCENT_DECIMALS
        largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
        if not 1e-4 <= largest < 1e9:
            return None
        return max(0, SIGNIFICANT - 1 - math.floor(math.log10(largest)))

    def _text(self, value: float, decimals: int | None) -> str:
        if not math.isfinite(value):
            return NOTHING
        # "+ 0.0" makes 0 of -0.
        return number_text(value + 0.0) if decimals is None else f"{round(value, decimals) + 0.0:.{decimals}f}"
