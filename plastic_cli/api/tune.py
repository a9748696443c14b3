"""`plastic.tune`: a search for the best options of a rule, as a function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from plastic_cli.api.console import PythonConsole
from plastic_cli.api.options import split_options
from plastic_cli.errors import RunFailed
from plastic_cli.plugins.discovery import find_rule
from plastic_cli.plugins.models import train_model
from plastic_cli.verbs.options import TuningOptions
from plastic_cli.verbs.tune import carry_out_search, planned_search

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class Tuning:
    """The result of a search: `plastic.train(tuning.rule, **tuning.best)` trains with the best options.

    best: the options of the best trial, with those that stayed fixed. metric: what was compared, on validation data.
    trials: one row per finished trial, the best first, with the values and the metric; NaN if the trial failed.
    """

    rule: str
    best: dict[str, Any]
    metric: str
    trials: pd.DataFrame

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self.best.items())
        return f"<Tuning of {len(self.trials)} trials, {self.metric}: plastic.train({self.rule!r}{options})>"

    def _repr_html_(self) -> str:
        return str(self.trials.to_html(index=False, float_format="{:.4g}".format))


def tune(rule: str, **options: Any) -> Tuning:
    """Search for the best options of a rule on validation data; every trial is an ordinary run.

    Repeating the call continues the same search. options: those of `plastic tune RULE --help`, with underscores:
    options of the rule, which stay fixed, and `trials`, `search` (a list of texts such as "learning_rate=0.001:1:log"),
    `metric`, `seeds` (runs per trial), `workers`, `study`, `runs` and `data` (folders), `quiet`.

    Raises UserError, a ValueError, for an unknown rule, a wrong option or range; RunFailed if no trial succeeded;
    KeyboardInterrupt if the search was stopped.
    """
    import pandas as pd

    found = find_rule(rule)
    typed, chosen = split_options(options, train_model(found), TuningOptions)
    search = planned_search(found, typed, chosen)
    result = carry_out_search(search, chosen, PythonConsole(quiet=chosen.quiet))
    if result.stopped:
        raise KeyboardInterrupt(f"{len(result.trials)} trials are stored: repeat the call to continue the search")
    if result.best is None:
        raise RunFailed(f"no trial succeeded: {len(result.trials)} failed. Narrow the ranges with search=[...].")
    rows = [{"trial": number, **values, result.metric: value} for number, values, value in result.trials]
    frame = pd.DataFrame(rows)
    frame[result.metric] = frame[result.metric].astype(float)
    # The images set aside for the search can be learned from afterwards.
    fixed = {name: value for name, value in typed.items() if name != "validation"}
    return Tuning(found.name, {**fixed, **result.best}, result.metric, frame)
