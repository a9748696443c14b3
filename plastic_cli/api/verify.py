"""`plastic.verify`: run recipes again and compare the results with the reference, as a function."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plastic_cli.api.console import PythonConsole
from plastic_cli.config.model import field
from plastic_cli.errors import OptionError, did_you_mean
from plastic_cli.signals import TWICE, signals_as_interrupts
from plastic_cli.sweeps.engine import Progress, Sweep, SweepRun
from plastic_cli.sweeps.lookup import Planned
from plastic_cli.sweeps.pools import open_pool
from plastic_cli.verbs.options import VerificationOptions
from plastic_cli.verbs.sweep import checked_plan
from plastic_cli.verbs.verify import (
    COLUMNS,
    JudgedMean,
    Verdict,
    chosen_checks,
    failure_text,
    judged,
    judged_means,
    mean_row,
    plan_of_checks,
    steps_of_checks,
    summary_text,
    verdict_rows,
)

if TYPE_CHECKING:
    import pandas as pd


class VerifyOptions(VerificationOptions):
    """The options of `plastic.verify`."""

    runs: Path | None = field(None, "folder for the runs, in which they stay (default: a temporary folder)")
    quiet: bool = field(False, "show no progress")


@dataclass(frozen=True, repr=False)
class Verification:
    """The result of a verification.

    verdicts: one for each run, in the order of the recipe or of the draw. exact: whether a run also had to be equal to
    the bit to the stored run of its seed, on the same kind of machine.
    """

    verdicts: tuple[Verdict, ...]
    exact: bool = False

    @property
    def failure(self) -> str | None:
        """Why the verification has failed, in one line: a result has shifted, or no run was compared; else None."""
        return failure_text(self.verdicts, self.means, exact=self.exact)

    @property
    def passed(self) -> bool:
        """Whether no result has shifted."""
        return self.failure is None

    @cached_property
    def means(self) -> tuple[JudgedMean, ...]:
        """The means of each setting of which several seeds were repeated, against the seeds of the reference."""
        return tuple(judged_means(self.verdicts))

    @property
    def table(self) -> pd.DataFrame:
        """One row for each judged metric of each run, with its prediction interval and what differs from the reference.

        Rows without a seed are the means over the repeated seeds of a setting.

        difference: the largest relative difference of a final metric to the stored run of the same seed. conditions: in
        what the two runs differ apart from the code of plastic.
        """
        import pandas as pd

        rows = [row for verdict in self.verdicts for row in verdict_rows(verdict)]
        return pd.DataFrame([*rows, *map(mean_row, self.means)], columns=COLUMNS)

    def __repr__(self) -> str:
        return f"<Verification: {self.failure or summary_text(self.verdicts, self.means)}>"

    def _repr_html_(self) -> str:
        import html

        shown = [
            "recipe",
            "settings",
            "seed",
            "step",
            "metric",
            "value",
            "low",
            "high",
            "verdict",
            "same_seed",
            "difference",
        ]
        text: str = self.table[shown].to_html(index=False, na_rep="", float_format="{:.4g}".format)
        return f"<p>{html.escape(repr(self)[1:-1])}</p>{text}"


def verify(recipe: str | Path | None = None, **options: Any) -> Verification:
    """Run a recipe again, or a sample of all recipes, and say whether the results agree with the reference.

    recipe: the name of a recipe that comes with plastic, or a TOML file. options: those of `plastic verify`: `sample`,
    `minutes` and `seed` in place of a recipe; `seeds`, `rule` and `only`; `steps` and `exact`; `runs` (a folder in
    which the runs stay; default: a temporary one) and `data`; `workers`, `threads`, `retry`, `timeout`, `keep_going`,
    `scheduler`, `quiet`.

    Raises UserError, a ValueError, for an unknown recipe or a wrong option, KeyboardInterrupt if it was stopped. A
    result that has shifted raises nothing: see `Verification.passed`.
    """
    from plastic_cli.runs.reference import read_reference

    for name in options:
        if name not in VerifyOptions.model_fields:
            raise OptionError(f"there is no option '{name}'.{did_you_mean(name, VerifyOptions.model_fields)}", name)
    chosen = VerifyOptions.from_values(options)
    checks = chosen_checks(None if recipe is None else str(recipe), chosen, read_reference())
    with ExitStack() as stack:
        folder = chosen.runs or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="plastic-verify-", ignore_cleanup_errors=True))
        )
        plan = checked_plan(plan_of_checks(checks), chosen, folder, chosen.data, steps_of_checks(checks))
        results = _carry_out(plan, chosen, folder) if plan else []
        verdicts = judged(checks, results, folder)
    left = sum(verdict.word == "not finished" for verdict in verdicts)
    if left and chosen.keep_going:
        raise KeyboardInterrupt(f"{left} of {len(verdicts)} runs are not finished")
    return Verification(tuple(verdicts), chosen.exact)


def _carry_out(plan: Sequence[Planned], options: VerifyOptions, folder: Path) -> list[SweepRun]:
    """Carry out the runs with one bar over them."""
    with (
        signals_as_interrupts(TWICE),
        open_pool(options.scheduler, options.workers, options.threads) as pool,
        PythonConsole(quiet=options.quiet).progress("run", len(plan), 0) as bar,
    ):
        shown = 0

        def show(progress: Progress) -> None:
            nonlocal shown
            while shown < len(progress.results):
                shown += 1
                bar.end_step(shown, progress.results[shown - 1].outcome.summary)

        return Sweep(plan, pool, folder, options, data=options.data).run(show)
