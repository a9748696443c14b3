"""`plastic.compare`: the command `plastic compare` as a function."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plastic_cli.api.plot import AnyRuns, folders_of

if TYPE_CHECKING:
    from plastic_cli.reports.side_by_side import Comparison


def compare(*runs: AnyRuns) -> Comparison:
    """Compare runs side by side: the options that differ, the results with their differences, and the curves.

    runs: two or more runs, each a StoredRun, an id, a name or a folder; lists of runs; or a store with its completed
    runs. Runs that differ only in their seed form one setting, and differences are taken seed by seed.

    Returns a Comparison with `.options`, `.results`, `.circumstances` and `.curves`, which are DataFrames, and
    `.figure(metric)`. It shows itself in a notebook. Raises UserError, a ValueError, for a run that does not exist and
    for fewer than two runs.
    """
    from plastic_cli.reports.curves import read_runs
    from plastic_cli.reports.side_by_side import Comparison

    return Comparison(read_runs(folder for each in runs for folder in folders_of(each)))
