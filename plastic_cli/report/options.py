"""The options of a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from plotnine import ggplot

    Headline = Callable[[pd.DataFrame, pd.DataFrame], dict[str, ggplot]]

FORMATS = ("table", "markdown", "latex", "csv", "json")
TABLES = ("all", "results", "claims")
PAGE = "index.html"
"""The file that `--html` writes."""


@dataclass(frozen=True)
class ReportOptions:
    """What is reported and how.

    runs: the folder of the runs. rule, dataset, status: report only these runs; only completed runs are compared with
    published claims. table: "results", "claims" or "all"; CSV holds one table, so that "all" prints the results.
    compare: print a comparison of the settings instead; CSV then holds the interquartile means. output: also write the
    tables as Markdown, LaTeX and CSV and the figures as PNG and SVG into this folder. html: also write one page into
    this folder.
    """

    runs: Path
    rule: str | None = None
    dataset: str | None = None
    status: str = "completed"
    table: str = "all"
    format: str = "table"
    compare: bool = False
    output: Path | None = None
    html: Path | None = None


@dataclass(frozen=True)
class Sources:
    """What a report takes from rules and recipes.

    claims: the text of `claims.toml` by rule. headline: returns the function of a rule that makes figures by file name
    from runs and their metrics, or None. recipes: by rule and id of a claim, the recipes that test the claim.
    """

    claims: Mapping[str, str]
    headline: Callable[[str], Headline | None]
    recipes: Mapping[tuple[str, str], Sequence[str]]
