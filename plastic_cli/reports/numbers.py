"""How a report shows numbers: shares in percent, intervals or standard deviations, the number of decimals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from plastic_cli.plugins.metrics import Metric
from plastic_cli.statistics.intervals import MINIMUM_VALUES, Interval, interval_method
from plastic_cli.tables import NOTHING, Number, number_text

SIGNIFICANT = 4
"""Significant digits of numbers that are not shares, unless a number of decimals is given."""

PERCENT_DECIMALS = 2

MINIMUM_FOR_DEVIATION = 2
"""A standard deviation needs two values."""


def shown_interval(method: str = "") -> str:
    """Return the name of the interval that tables show, for captions. method: its name if it is not that of a mean."""
    return f"{method or interval_method()}, cut at the lowest and the highest possible value"


def possible_ends(interval: Interval, metric: Metric) -> tuple[float, float]:
    """Return the ends of an interval without values that are not possible, such as an accuracy above 100%.

    No value lies there, so the interval contains the true one as often as before. An interval whose mean is not
    possible is that of another quantity, such as a difference, and keeps its ends.
    """
    least, most = metric.possible
    if not least <= interval.mean <= most:
        return interval.low, interval.high
    # A missing end stays missing.
    low = least if interval.low < least else interval.low
    return low, most if interval.high > most else interval.high


def signed_cell(difference: float, low: float, high: float, metric: Metric) -> Number | None:
    """Return a difference with its interval and their signs; that of a share in percentage points."""
    if math.isnan(difference):
        return None
    texts = _signed([difference, *((low, high) if has_width(low, high) else ())], metric)
    bounds = f"[{', '.join(texts[1:])}]" if texts[1:] else ""
    return Number(texts[0] + (" points" if metric.unit == "%" else ""), bounds, difference)


def has_width(low: float, high: float) -> bool:
    """Return whether an interval is known, and is not that of constant values."""
    return not math.isnan(low) and not math.isclose(low, high, rel_tol=1e-9)


def _signed(values: Sequence[float], metric: Metric) -> list[str]:
    """Return a difference and the ends of its interval with their signs."""
    signs = ["-" if value < 0 else "+" if value > 0 else "" for value in values]
    # Four digits, as results have, are more than a difference needs.
    texts = value_texts([abs(value) for value in values], metric, digits=3)
    return [sign + text for sign, text in zip(signs, texts, strict=True)]


def value_texts(values: Sequence[float], metric: Metric, digits: int) -> list[str]:
    """Return a number and the ends of its interval with equally many decimals: the largest has this many digits."""
    if metric.unit in ("%", "degrees"):
        return [metric.number(value).removesuffix("%") for value in values]
    largest = max(map(abs, values))
    if not 1e-4 <= largest < 1e9:
        return [number_text(value) for value in values]
    counts = metric.unit not in ("", "s")
    is_whole = counts and all(float(value).is_integer() for value in values)
    decimals = 0 if is_whole else max(0, digits - 1 - math.floor(math.log10(largest)))
    comma = "," if counts or largest >= 1e4 else ""
    return [f"{value:{comma}.{decimals}f}" for value in values]


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
        low, high = possible_ends(estimate, metric)
        mean, low, high = (self._shown(value, metric) for value in (estimate.mean, low, high))
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
        return f"{shown:.12g}" + (f" ± {float(f'{around:.3g}'):.12g}" if margin else "")

    def caption(self, estimates: list[Interval]) -> str:
        """Return what the cells of `estimates` say, as sentences."""
        counts = [estimate.n for estimate in estimates if estimate.n]
        if not counts or max(counts) == 1:
            return "One seed each, so there is no interval." if counts else ""
        if self.deviation:
            return "Mean ± standard deviation over n seeds."
        if max(counts) < MINIMUM_VALUES:
            return f"Mean over n seeds. An interval needs {MINIMUM_VALUES} seeds."
        return f"Mean over n seeds. In brackets: {shown_interval()}, if there are at least {MINIMUM_VALUES} seeds."

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
