"""`plastic tune RULE`: a search for the best options on a validation split; every trial is an ordinary run."""

from __future__ import annotations

import inspect
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from plastic_cli.commands.invocation import SweepInvocation
from plastic_cli.commands.options import build_command
from plastic_cli.commands.show import print_rows
from plastic_cli.config.describe import as_typed
from plastic_cli.config.model import TrainConfig
from plastic_cli.config.model import field as option
from plastic_cli.data.catalog import DATASETS
from plastic_cli.errors import PlasticError, RunFailed, UserError
from plastic_cli.escapes import printable_line
from plastic_cli.plugins.discovery import discover, find_rule
from plastic_cli.plugins.models import train_model
from plastic_cli.plugins.rule import Rule
from plastic_cli.resolve import resolve
from plastic_cli.runs.exports import find_exports
from plastic_cli.runs.metrics import data_of
from plastic_cli.runs.record import read_record
from plastic_cli.signals import TWICE, signals_as_interrupts
from plastic_cli.sweeps.engine import Progress, Sweep, SweepRun
from plastic_cli.sweeps.lookup import with_data
from plastic_cli.sweeps.plan import PlannedRun, planned
from plastic_cli.sweeps.pools import Pool, check_scheduler, open_pool
from plastic_cli.sweeps.recipe import read_options
from plastic_cli.sweeps.search import Space, Study, extremes, open_study, search_space, study_name
from plastic_cli.tables import duration
from plastic_cli.verbs.verb import check_device

DEFAULT_METRICS = ("validation/accuracy", "validation/return")
LARGEST_VALIDATION = 10_000
SHOWN_TRIALS = 10


class TuneInvocation(SweepInvocation):
    """Options of `plastic tune RULE`."""

    trials: int = option(20, "number of trials, including those of earlier calls of this search", ge=1, panel="Search")
    search: list[str] = option(
        [],
        "an option to search, in place of those that the rule declares: NAME, NAME=LOW:HIGH, NAME=LOW:HIGH:log or"
        " NAME=A,B,C (can be repeated)",
        panel="Search",
        repeat=True,
    )
    metric: str | None = option(
        None, "metric that compares trials (default: validation/accuracy, validation/return)", panel="Search"
    )
    direction: Literal["auto", "maximize", "minimize"] = option(
        "auto", "auto minimizes a loss or an error and maximizes any other metric", panel="Search"
    )
    seeds: int = option(1, "number of runs per trial; their mean is compared", ge=1, panel="Search")
    study: str | None = option(None, "name of the search (default: derived from its options)", panel="Search")


def tune_command(rule_name: str) -> Any:
    """Build the command for one rule; raises UserError if it does not exist or cannot train."""
    rule = find_rule(rule_name)
    model = train_model(rule)

    def run(values: dict[str, dict[str, Any]]) -> None:
        _tune(rule, model, values["config"], TuneInvocation.from_values(values["invocation"]))

    about = (
        f"Search for the best options of: {inspect.getdoc(model) or rule.summary}\n\n"
        "Options that are typed stay fixed. Trials are compared on validation images, never on the test split."
    )
    return build_command(rule.name, about, {"config": model, "invocation": TuneInvocation}, run)


def _tune(rule: Rule, model: type[TrainConfig], typed: dict[str, Any], invocation: TuneInvocation) -> None:
    _check_metric(invocation.metric)
    source = str(invocation.config or "")
    from_file = model.read_names(read_options(invocation.config, rule.name), source) if invocation.config else {}
    space = search_space(model, invocation.search, {**from_file, **typed})
    fixed = {**typed, **_validation(model, resolve(model, typed, from_file, source), typed)}
    config = resolve(model, fixed, from_file, source)

    def point(values: Mapping[str, Any]) -> TrainConfig:
        found = resolve(model, {**fixed, **values}, from_file, source)
        assert isinstance(found, TrainConfig)
        return found

    assert isinstance(config, TrainConfig)
    for values in extremes(space):
        point(values)
    check_scheduler(invocation.scheduler, invocation.workers)
    if invocation.scheduler is None:
        check_device(config.device)
    if invocation.study is not None and not re.fullmatch(r"[^/\\\x00-\x1f.][^/\\\x00-\x1f]{0,99}", invocation.study):
        raise UserError(f"--study {invocation.study}: the name must not contain '/' and must not begin with '.'.")
    name = invocation.study or study_name(rule.name, config, space, invocation.metric, invocation.seeds)
    if invocation.dry_run:
        _print_space(space, name, config, invocation)
        return
    if invocation.scheduler is None:
        find_exports(None, invocation.console().warning)
    maximize = _maximizes(invocation)
    store = invocation.runs_folder().resolve()
    console = invocation.console()
    with open_study(store, name, space, maximize=maximize, seed=config.seed) as study:
        before = len(study.finished())
        if before:
            console.message(f"{before} trials of this search are already done")
        search = _Search(rule, study, point, invocation, store)
        with signals_as_interrupts(TWICE), open_pool(invocation.scheduler, invocation.workers) as pool:
            console.message(f"search {name}: {', '.join(space)}; {pool.description}")
            stopped = search.run(pool)
        _print_best(rule, study, search, typed, space, invocation)
    if stopped:
        raise KeyboardInterrupt


@dataclass
class _Trial:
    number: int
    values: dict[str, Any]
    runs: list[PlannedRun]
    results: list[SweepRun] = field(default_factory=list)


class _Search:
    """Trials, carried out as runs of a sweep, and their results."""

    def __init__(self, rule: Rule, study: Study, point: Any, invocation: TuneInvocation, store: Path) -> None:
        self._rule, self._study, self._point, self._invocation = rule, study, point, invocation
        self._store = store
        self.metric = invocation.metric
        self._trials: dict[int, _Trial] = {}
        self._of_run: dict[int, _Trial] = {}
        self._collected = 0
        self._finished = len(study.finished())
        self._console = invocation.console()
        self._error: PlasticError | None = None

    def run(self, pool: Pool) -> bool:
        """Carry out trials until there are enough; return whether the search was stopped before."""
        options = self._invocation
        sweep = Sweep([], pool, self._store, options, data=options.data)
        self._add(sweep, max(1, pool.slots()))
        results = sweep.run(lambda progress: self._go_on(sweep, progress))
        self._collect(results)
        stopped = bool(self._trials)
        for trial in self._trials.values():
            self._study.give_back(trial.number)
        if self._error is not None:
            raise self._error
        return stopped

    def _go_on(self, sweep: Sweep, progress: Progress) -> None:
        self._collect(progress.results)
        if not progress.stopping and self._error is None:
            self._add(sweep, max(1, progress.slots))

    def _add(self, sweep: Sweep, at_once: int) -> None:
        """Ask for new trials while a worker is idle."""
        version = discover().origins.get(self._rule.name, "")
        while len(self._trials) < at_once and self._finished + len(self._trials) < self._invocation.trials:
            number, values = self._study.ask()
            try:
                first = self._point(values)
                runs = [
                    planned(
                        self._rule.name,
                        first.from_values({**first.model_dump(), "seed": first.seed + index}),
                        version,
                        {**values, "seed": first.seed + index},
                    )
                    for index in range(self._invocation.seeds)
                ]
            except UserError as error:
                # The range of the search exceeds the bounds of the option, so further trials would fail as well.
                self._study.tell(number, None)
                self._error = error
                return
            trial = _Trial(number, values, with_data(runs, self._invocation.data, self._store))
            self._trials[number] = trial
            for run in trial.runs:
                self._of_run[id(run)] = trial
                sweep.add(run)

    def _collect(self, results: list[SweepRun]) -> None:
        for result in results[self._collected :]:
            self._collected += 1
            trial = self._of_run[id(result.planned)]
            trial.results.append(result)
            if result.word == "failed" and result.outcome.lasting:
                self._error = UserError(str(result.outcome.error))
            elif result.word == "failed" and not self._invocation.keep_going:
                self._error = RunFailed(f"stopped at a failure: {result.outcome.error}")
            if len(trial.results) == len(trial.runs) and all(r.word in ("done", "failed") for r in trial.results):
                self._finish(trial)

    def _finish(self, trial: _Trial) -> None:
        value = self._value(trial)
        if self.metric is not None:
            self._study.metric = self.metric
        self._study.tell(trial.number, value)
        del self._trials[trial.number]
        self._finished += 1
        shown = ", ".join(f"{name}={_short(entry)}" for name, entry in trial.values.items())
        failed = next((r.outcome.error for r in trial.results if r.word == "failed"), None)
        result = f"{self.metric} {value:.4g}" if value is not None else f"failed: {failed or f'no {self.metric}'}"
        seconds = sum(result.outcome.seconds for result in trial.results)
        self._console.message(f"[{self._finished}/{self._invocation.trials}] {shown}: {result} ({duration(seconds)})")

    def _value(self, trial: _Trial) -> float | None:
        if any(result.word == "failed" for result in trial.results):
            return None
        summaries = [result.outcome.summary for result in trial.results]
        measured_on = self._measured_on(trial)
        known = [name for name in summaries[0] if not (_is_of_test(name) or _is_of_test(name, measured_on))]
        if self.metric is None:
            self.metric = next((name for name in DEFAULT_METRICS if name in known), None)
        elif _is_of_test(self.metric, measured_on):
            self._error = _refused(self.metric, known)
            return None
        values = [summary.get(str(self.metric)) for summary in summaries]
        if self.metric is None or any(str(self.metric) not in summary for summary in summaries):
            self._error = UserError(
                f"runs of {self._rule.name} have no {self.metric or 'metric of validation data'}."
                f" Choose one with --metric: {', '.join(known) or 'there is none'}."
            )
            return None
        return None if None in values else fmean(value for value in values if value is not None)

    def _measured_on(self, trial: _Trial) -> dict[str, str]:
        """Return the data that each metric of a trial was measured on, from the records of its runs."""
        measured_on: dict[str, str] = {}
        for result in trial.results:
            if result.outcome.run is not None:
                measured_on |= read_record(self._store / result.outcome.run).measured_on
        return measured_on


def _check_metric(metric: str | None) -> None:
    """Refuse, before the first trial, a metric whose name says that it is measured on test data."""
    if metric is not None and _is_of_test(metric):
        raise _refused(metric)


def _is_of_test(metric: str, measured_on: Mapping[str, str] | None = None) -> bool:
    return data_of(metric, measured_on or {}) == "test"


def _refused(metric: str, others: Sequence[str] = ()) -> UserError:
    which = ", ".join(others) or "a metric of validation data"
    return UserError(
        f"--metric {metric}: it is measured on test data. Options that were chosen on test data cannot be tested on the"
        f" same data. Name {which}."
    )


def _maximizes(invocation: TuneInvocation) -> bool:
    if invocation.direction != "auto":
        return invocation.direction == "maximize"
    return (invocation.metric or "").rpartition("/")[2] not in ("loss", "error")


def _validation(model: type[TrainConfig], config: Any, typed: Mapping[str, Any]) -> dict[str, int]:
    """Return the number of validation images by default; nothing if it was chosen."""
    if "validation" not in model.model_fields or config.validation > 0:
        return {}
    if "validation" in typed:
        raise UserError("--validation 0: a search needs validation images. Leave it out, or choose a larger number.")
    name = config.dataset
    if name in DATASETS:
        images = DATASETS[name].train_images
    else:
        from plastic_cli.data.sources import read_own_set

        images = len(read_own_set(Path(name)).train.y)
    # A fifth of the training images, and at most as many as is usual for MNIST.
    return {"validation": min(LARGEST_VALIDATION, images // 5)}


def _print_space(space: Space, name: str, config: TrainConfig, invocation: TuneInvocation) -> None:
    rows = []
    for option_name, searched in space.items():
        bounds = (
            {"values": ",".join(getattr(searched, "values", ()))} if hasattr(searched, "values") else vars(searched)
        )
        rows.append({"option": option_name, **bounds})
    print_rows(rows, ["option", "low", "high", "scale", "values"], invocation.output_format())
    validation = getattr(config, "validation", None)
    aside = f", {validation} training images set aside for validation" if validation else ""
    invocation.console().message(f"search {name}: {invocation.trials} trials of {invocation.seeds} run(s) each{aside}")


def _print_best(
    rule: Rule, study: Study, search: _Search, typed: Mapping[str, Any], space: Space, invocation: TuneInvocation
) -> None:
    finished = study.finished()
    completed = [entry for entry in finished if entry[2] is not None]
    metric = search.metric or study.metric or "value"
    if invocation.output_format() == "json":
        for number, values, value in finished:
            print(json.dumps({"trial": number, "settings": values, "metric": metric, "value": value}))  # noqa: T201
    elif finished and not invocation.quiet:
        shown = finished if invocation.output_format() != "table" else finished[:SHOWN_TRIALS]
        rows = [{"trial": number, **values, metric: value} for number, values, value in shown]
        print_rows(rows, ["trial", *space, metric], invocation.output_format(), title="best trials first")
    if not finished:
        return
    if not completed:
        raise RunFailed(f"no trial succeeded: {len(finished)} failed. Narrow the ranges with --search.")
    fixed = {name: value for name, value in typed.items() if name != "validation"}
    words = ["plastic", "train", rule.name]
    if invocation.config is not None:
        words += ["--config", str(invocation.config)]
    for name, value in {**fixed, **completed[0][1]}.items():
        words += as_typed(name, value).split(" ", 1)
    line = shlex.join(words)
    if invocation.output_format() == "json" or invocation.quiet:
        # The command line is for people; a program reads only the results on stdout.
        if invocation.quiet and invocation.output_format() != "json":
            print(line)  # noqa: T201
        return
    print(printable_line(f"best: {line}"))  # noqa: T201


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
