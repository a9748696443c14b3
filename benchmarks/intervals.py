"""How often the intervals of the report contain the true value, and how often its verdicts are wrong.

    python benchmarks/intervals.py [--samples 4000]

Samples of n seeds are drawn from distributions whose true value is known. "Peer" is the percentile bootstrap, for
comparisons the stratified one of rliable. An interval of 95% should contain the true value in 95% of the samples; a
claim whose true value lies at the end of its band should be "reproduced" in no more than 5%.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "plugins")]

from plastic_cli.reports.claims import Claim, judge  # noqa: E402
from plastic_cli.statistics.aggregates import (  # noqa: E402
    interquartile_mean_interval,
    performance_profile,
    probability_of_improvement_interval,
)
from plastic_cli.statistics.intervals import mean_intervals  # noqa: E402

SIZES = (3, 5, 10, 20)
RESAMPLES = 999

Draw = Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float64]]

DISTRIBUTIONS: dict[str, Draw] = {
    "normal": lambda random, shape: random.normal(size=shape),
    "skewed (exponential)": lambda random, shape: random.exponential(size=shape) - 1,
    "two modes (70% and 30%)": lambda random, shape: (
        np.where(random.random(shape) < 0.7, 0.3, -0.7) + random.normal(0, 0.02, size=shape)
    ),
}
"""Distributions with the mean 0."""


def share(inside: object) -> str:
    """Return the share of true values as text, in percent."""
    return f"{100 * np.mean(inside):.1f}"


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table in Markdown."""
    print(f"\n{title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def coverage_of_the_mean(samples: int) -> None:
    """Print how often the t interval and the percentile bootstrap contain the true mean."""
    rows = []
    for name, draw in DISTRIBUTIONS.items():
        ours, peer = [], []
        for n in SIZES:
            values = draw(np.random.default_rng(n), (samples, n))
            ours.append(share([each.low <= 0 <= each.high for each in mean_intervals(list(values))]))
            drawn = np.random.default_rng(0).integers(n, size=(RESAMPLES, n))
            bounds = np.percentile(values[:, drawn].mean(axis=2), [2.5, 97.5], axis=1)
            peer.append(share((bounds[0] <= 0) & (bounds[1] >= 0)))
        rows += [[name, "t", *ours], [name, "percentile bootstrap", *peer]]
    print_table(
        "True mean inside the 95% interval, %",
        ["distribution over seeds", "interval", *(f"n = {n}" for n in SIZES)],
        rows,
    )


def coverage_of_comparisons(samples: int) -> None:
    """Print how often the intervals of the comparisons contain the true value, for normal scores on equal tasks."""
    rows = []
    for tasks in (1, 3):
        found: dict[tuple[str, str], list[str]] = {}
        for n in SIZES:
            random = np.random.default_rng(n)
            middle, pairs, far, profile, peer_middle, peer_pairs = [], [], [], [], [], []
            # The probability that a normal value is larger than another whose mean is lower by 1.5.
            truth = float(stats.norm.cdf(1.5 / np.sqrt(2)))
            for _ in range(samples // 4):
                x, y = random.normal(size=(n, tasks)), random.normal(size=(n, tasks))
                each = interquartile_mean_interval(x)
                middle.append(each.low <= 0 <= each.high)
                each = probability_of_improvement_interval(x, y)
                pairs.append(each.low <= 0.5 <= each.high)
                each = probability_of_improvement_interval(x + 1.5, y)
                far.append(each.low <= truth <= each.high)
                curve = performance_profile(x, [0.5])
                profile.append(curve.low[0] <= stats.norm.sf(0.5) <= curve.high[0])
                rows_x, rows_y = random.integers(n, size=(2, RESAMPLES // 3, n, tasks))
                columns = np.arange(tasks)
                resampled = np.sort(x[rows_x, columns].reshape(len(rows_x), -1), axis=1)
                cut = resampled.shape[1] // 4
                low, high = np.percentile(resampled[:, cut : resampled.shape[1] - cut].mean(axis=1), [2.5, 97.5])
                peer_middle.append(low <= 0 <= high)
                wins = (x[rows_x, columns][:, :, None] > y[rows_y, columns][:, None]).mean(axis=(1, 2, 3))
                low, high = np.percentile(wins, [2.5, 97.5])
                peer_pairs.append(low <= 0.5 <= high)
            equal, better = "probability of improvement, true value .5", "probability of improvement, true value .86"
            for measure, interval, inside in (
                ("interquartile mean", "t", middle),
                ("interquartile mean", "stratified bootstrap", peer_middle),
                (equal, "score", pairs),
                (equal, "stratified bootstrap", peer_pairs),
                (better, "score", far),
                ("performance profile, true value .31", "score", profile),
            ):
                found.setdefault((measure, interval), []).append(share(inside))
        rows += [[str(tasks), *names, *shares] for names, shares in found.items()]
    print_table(
        "True value inside the 95% interval, %",
        ["data sets", "measure", "interval", *(f"n = {n}" for n in SIZES)],
        rows,
    )


def errors_of_verdicts(samples: int) -> None:
    """Print how often a claim is "reproduced", by where the true mean lies relative to the band."""
    claim = Claim(
        id="X", statement="s", metric="test/accuracy", value=0.95, tolerance=0.01, tolerance_reason="r", source="s",
        evidence="V",
    )  # fmt: skip
    bound = Claim(
        id="X", statement="s", metric="test/return", value=475, tolerance=0, tolerance_reason="r", source="s",
        evidence="V", comparison="at-least",
    )  # fmt: skip
    cases: list[tuple[str, str, Claim, Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float64]]]] = []
    for name, draw in DISTRIBUTIONS.items():
        spread = ", SD .0046" if name.startswith("two modes") else ""
        cases.append((name + spread, ".94 (lower end)", claim, lambda r, s, d=draw: 0.94 + 0.01 * d(r, s)))
        cases.append((name + spread, ".96 (upper end)", claim, lambda r, s, d=draw: 0.96 + 0.01 * d(r, s)))
    cases.append(("normal", ".965 (outside)", claim, lambda r, s: 0.965 + 0.01 * r.normal(size=s)))
    cases.append(("normal", ".9567 (inside)", claim, lambda r, s: 0.9567 + 0.01 * r.normal(size=s)))
    cases.append(("normal", ".95 (middle)", claim, lambda r, s: 0.95 + 0.01 * r.normal(size=s)))
    cases.append(("normal, SD .0033", ".95 (middle)", claim, lambda r, s: 0.95 + 0.0033 * r.normal(size=s)))
    cases.append(
        (
            "490 in 70% of seeds, 90 in 30%; claim: at least 475",
            "370 (outside)",
            bound,
            lambda r, s: np.where(r.random(s) < 0.7, 490, 90) + r.normal(0, 8, size=s),
        )
    )
    rows = []
    for name, mean, one, draw in cases:
        words = []
        for n in SIZES:
            drawn = draw(np.random.default_rng(n), (samples, n))
            found = [judge(one, row).word for row in drawn]
            words.append(" / ".join(f"{100 * found.count(w) / samples:.1f}" for w in ("reproduced", "not reproduced")))
        rows.append([name, mean, *words])
    print_table(
        "Verdicts on .95 +- .01, SD over seeds .01 unless named: reproduced / not reproduced, %",
        ["distribution over seeds", "true mean", *(f"n = {n}" for n in SIZES)],
        rows,
    )


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=4000)
    samples = parser.parse_args().samples
    coverage_of_the_mean(samples)
    coverage_of_comparisons(samples)
    errors_of_verdicts(samples)


if __name__ == "__main__":
    main()
