"""`plastic.compare`: the command `plastic compare` as a function."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plastic_cli.api.plot import AnyRuns, folders_of
from plastic_cli.errors import UserError

if TYPE_CHECKING:
    from plastic_cli.reports.side_by_side import Comparison
    from plastic_cli.reports.standing import Standing


def compare(*runs: AnyRuns, baseline: AnyRuns | None = None) -> Comparison | Standing:
    """Compare one run with the reference, or runs side by side.

    runs: one run or several, each a StoredRun, an id, a name or a folder; lists of runs; or a store with its completed
    runs. baseline: a run, or several of one setting, from whose setting A differences are taken; it need not be among
    `runs`. None: the first run, or the oldest of a store.

    For one run, returns a Standing: where it stands among the runs of the same setting that come with plastic
    (`.results`), its controls (`.controls`) and published figures (`.published`), which are DataFrames. For several
    runs, returns a Comparison with the options that differ (`.options`), the results with their differences
    (`.results`), `.circumstances` and `.curves`, `.figure(metric)`, and `.latex(table)` and `.markdown(table)` for a
    paper. Runs that differ only in their seed form one setting, and differences are taken seed by seed. If all runs
    have one setting, its `.standing` is where they and
    their mean stand in the reference. Both show themselves in a notebook.

    Raises UserError, a ValueError, for a run that does not exist and for one run that is not completed; PlasticError if
    the reference cannot be read.
    """
    first = () if baseline is None else (baseline,)
    folders = list(dict.fromkeys(folder for each in (*first, *runs) for folder in folders_of(each)))
    if first and len(folders) < 2:
        raise UserError("baseline: there is no other run to compare it with. Give more runs.")
    if len(folders) == 1:
        from plastic_cli.reports.standing import Standing
        from plastic_cli.runs.reference import read_reference

        return Standing(folders, read_reference())

    from plastic_cli.reports.curves import read_runs
    from plastic_cli.reports.side_by_side import Comparison

    return Comparison(read_runs(folders))
