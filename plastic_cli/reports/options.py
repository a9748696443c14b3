"""The options of a report."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import field_validator

from plastic_cli.config.model import Config, field

if TYPE_CHECKING:
    import pandas as pd
    from plotnine import ggplot

    from plastic_cli.reports.numbers import NumberStyle

    Headline = Callable[[pd.DataFrame, pd.DataFrame], dict[str, ggplot]]

PriceName = Literal["messages", "flops", "updates", "seconds", "bytes"]
"""The prices of learning that results can be compared with."""

PAGE = "index.html"
"""The file that `--html` writes."""


class ReportOptions(Config):
    """What is reported and how.

    Only completed runs are compared with published claims. `pareto`: the price of learning that results are compared
    with; its table can have a caption and a label. `columns`, `caption` and `label` are for one table: that of
    the results, or with table "claims" that of the claims. CSV holds one table: the results with table "all", the
    interquartile means with `compare`. `output` gets the tables as Markdown, LaTeX and CSV, the figures as PNG and SVG.
    """

    panel: ClassVar[str] = "Report"

    runs: Path = field(Path("runs"), "folder of the runs (or PLASTIC_RUNS)", panel="Run")
    rule: list[str] = field([], "only runs of these rules", complete="rule")
    dataset: str | None = field(None, "only runs on this data set", complete="dataset")
    status: Literal["completed", "created", "running", "failed", "interrupted", "crashed", "all"] = field(
        "completed", "only runs with this status, or all runs"
    )
    table: Literal["all", "results", "claims"] = field("all", "results, claims or all tables")
    reference: bool = field(
        False, "also show the runs of the reference that comes with plastic, on the data sets of your runs"
    )
    compare: bool = field(
        False, "print another table: interquartile means and probabilities of improvement of the settings"
    )
    pareto: PriceName | None = field(
        None,
        "print another table: results against a price of learning, and the settings that no cheaper one reaches; it is"
        " also a figure of --output and --html. messages: numbers that reach the hidden layers from outside; flops:"
        " operations; updates: changes of single weights; seconds: time of training; bytes: memory",
    )
    columns: tuple[str, ...] | None = field(
        None,
        "columns of the table, in this order: rule, dataset, setting, source, n, value, chance, control, loss, seconds,"
        " published, verdict, metrics such as test/accuracy, options of the rules such as epochs",
        panel="Table",
    )
    percent: bool = field(True, "show shares such as accuracy in percent, not from 0 to 1", panel="Table")
    sd: bool = field(False, "show the standard deviation over seeds, not the confidence interval", panel="Table")
    digits: int | None = field(
        None,
        "number of decimals (default: 2 for percentages, 4 significant digits for other numbers)",
        ge=0,
        le=12,
        panel="Table",
    )
    caption: str | None = field(None, "caption of the table; it replaces the explanations", panel="Table")
    label: str | None = field(None, "label of the table in LaTeX (default: tab:results or tab:claims)", panel="Table")
    output: Path | None = field(None, "also write tables and figures into this folder")
    html: Path | None = field(None, "also write the whole report as one HTML page into this folder")

    @field_validator("rule", mode="before")
    @classmethod
    def _none_is_all(cls, given: object) -> object:
        return [] if given is None else given

    @property
    def style(self) -> NumberStyle:
        """How the tables show numbers."""
        from plastic_cli.reports.numbers import NumberStyle

        return NumberStyle(self.percent, self.sd, self.digits)

    @property
    def table_option(self) -> str | None:
        """The first option that is given and is for one table."""
        return next((name for name in ("columns", "caption", "label") if getattr(self, name) is not None), None)


@dataclass(frozen=True)
class Sources:
    """What a report takes from rules and recipes.

    claims: the text of `claims.toml` by rule. headline: returns the function of a rule that makes figures by file name
    from runs and their metrics, or None. recipes: by rule and id of a claim, the recipes that test the claim.
    recipes_of: by `setting_and_data`, the recipes that have a setting.
    """

    claims: Mapping[str, str]
    headline: Callable[[str], Headline | None]
    recipes: Mapping[tuple[str, str], Sequence[str]]
    recipes_of: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
