"""`plastic.rules`, `plastic.datasets`, `plastic.recipes` and `plastic.reference`: what there is, as tables."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from plastic_cli.data.overview import data_rows
from plastic_cli.errors import PlasticError, UserError
from plastic_cli.plugins.discovery import discover
from plastic_cli.runs.reference import read_reference
from plastic_cli.sweeps.overview import recipe_row
from plastic_cli.sweeps.recipe import read_recipe, recipe_names
from plastic_cli.verbs.options import RunsOptions

if TYPE_CHECKING:
    import pandas as pd


def rules() -> pd.DataFrame:
    """Return the installed rules: columns rule, summary, published in, from (the distribution)."""
    import pandas as pd

    plugins = discover()
    for broken in plugins.broken:
        warnings.warn(f"the plugin '{broken.name}' ({broken.distribution}) does not load: {broken.error}", stacklevel=2)
    rows = [(rule.name, rule.summary, rule.citation, plugins.origins[rule.name]) for rule in plugins.rules.values()]
    return pd.DataFrame(rows, columns=["rule", "summary", "published in", "from"])


def datasets(data: str | Path | None = None) -> pd.DataFrame:
    """Return the data sets of the catalog: sizes, licenses, and whether they are here.

    data: the folder of the data sets (default: PLASTIC_DATA, else the user cache directory).
    """
    import pandas as pd

    return pd.DataFrame([asdict(row) for row in data_rows(None if data is None else Path(data))])


def recipes(runs: str | Path | None = None, data: str | Path | None = None) -> pd.DataFrame:
    """Return the recipes that come with plastic: their runs, how many are done, and their results in the reference.

    runs: the folder of the runs (default: PLASTIC_RUNS, else ./runs). data: the folder of the data sets.
    """
    import pandas as pd

    reference = read_reference()
    if reference.problem:
        warnings.warn(reference.problem, stacklevel=2)
    folder = RunsOptions.from_values({} if runs is None else {"runs": runs}).runs_folder()
    rows = []
    for name in recipe_names():
        try:
            rows.append(recipe_row(read_recipe(name), folder, None if data is None else Path(data), reference))
        except UserError as error:
            # A recipe of a plugin that is missing does not hide the others.
            warnings.warn(str(error), stacklevel=2)
    return pd.DataFrame(rows)


def reference() -> pd.DataFrame:
    """Return the reference: the measured runs that come with plastic, one row each.

    The columns are those of `RunStore.runs()`, with the configuration as `config.FIELD` and the last value of each
    metric as `split/metric`; and `recipes` (the names of the recipes that a run belongs to), the versions `torch`,
    `numpy` and `python`, and `processor`, `instructions`, `system`, `threads`, `used_device` and `commit`.

    Raises PlasticError if the files cannot be read.
    """
    shipped = read_reference()
    if shipped.problem:
        raise PlasticError(shipped.problem)
    return shipped.runs()
