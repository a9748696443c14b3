"""Search for the best options of a rule on a validation split; every trial is an ordinary run."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from plastic_cli.config.model import TrainConfig
from plastic_cli.data.catalog import DATASETS
from plastic_cli.errors import PlasticError, RunFailed, UserError, did_you_mean
from plastic_cli.plugins.discovery import discover
from plastic_cli.plugins.metrics import metric_of
from plastic_cli.plugins.models import train_model
from plastic_cli.plugins.rule import Rule
from plastic_cli.resolve import resolve
from plastic_cli.runs.console import Console
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
from plastic_cli.verbs.options import TuningOptions
from plastic_cli.verbs.verb import check_device

DEFAULT_METRICS = ("validation/accuracy", "validation/return")
LARGEST_VALIDATION = 10_000


@dataclass(frozen=True)
class Search:
    """A search before its first trial.

    typed: the options that stay fixed. space: the range of each option that is searched. config: the configuration
    that the trials share. point: returns the configuration of a trial from its values.
    """

    rule: Rule
    name: str
    typed: Mapping[str, Any]
    space: Space
    config: TrainConfig
    point: Callable[[Mapping[str, Any]], TrainConfig]


@dataclass(frozen=True)
class SearchResult:
    """The trials of a search: number, values and result of each finished one, the best first, failed ones last."""

    metric: str
    trials: list[tuple[int, dict[str, Any], float | None]]
    stopped: bool

    @property
    def best(self) -> dict[str, Any] | None:
        """The values of the best trial; None if no trial succeeded."""
        return next((values for _, values, result in self.trials if result is not None), None)


def planned_search(rule: Rule, typed: Mapping[str, Any], options: TuningOptions) -> Search:
    """Return the search for the best options of a rule; raises UserError if an option or a range is wrong."""
    _check_metric(options.metric)
    model = train_model(rule)
    source = str(options.config or "")
    from_file = model.read_names(read_options(options.config, rule.name), source) if options.config else {}
    given = resolve(model, typed, from_file, source)
    space = search_space(given, options.search, {**from_file, **typed})
    fixed = {**typed, **_validation(model, given, typed)}

    def point(values: Mapping[str, Any]) -> TrainConfig:
        found = resolve(model, {**fixed, **values}, from_file, source)
        assert isinstance(found, TrainConfig)
        return found

    config = point({})
    for values in extremes(space):
        point(values)
    check_scheduler(options.scheduler, options.workers)
    if options.scheduler is None:
        check_device(config.device)
    if options.study is not None and not re.fullmatch(r"[^/\\\x00-\x1f.][^/\\\x00-\x1f]{0,99}", options.study):
        raise UserError(f"--study {options.study}: the name must not contain '/' and must not begin with '.'.")
    name = options.study or study_name(
        discover().origins[rule.name],
        rule.name,
        config,
        space,
        options.metric,
        options.seeds,
        maximize=_maximizes(options),
    )
    return Search(rule, name, typed, space, config, point)


def carry_out_search(search: Search, options: TuningOptions, console: Console) -> SearchResult:
    """Carry out the trials that are left, and return all; raises RunFailed if a failure or the pool ends the search."""
    if options.scheduler is None:
        find_exports(None, console.warning)
    store = options.runs_folder().resolve()
    with open_study(store, search.name, search.space, maximize=_maximizes(options), seed=search.config.seed) as study:
        before = len(study.finished())
        if before:
            console.message(f"{before} trials of this search are already done")
        trials = _Trials(search, study, options, console)
        with signals_as_interrupts(TWICE), open_pool(options.scheduler, options.workers, options.threads) as pool:
            console.message(f"search {search.name}: {', '.join(search.space)}; {pool.description}")
            stopped = trials.run(pool)
        return SearchResult(trials.metric or study.metric or "value", study.finished(), stopped)


@dataclass
class _Trial:
    number: int
    values: dict[str, Any]
    runs: list[PlannedRun]
    results: list[SweepRun] = field(default_factory=list)


class _Trials:
    """Trials, carried out as runs of a sweep, and their results."""

    def __init__(self, search: Search, study: Study, options: TuningOptions, console: Console) -> None:
        self._rule, self._study, self._point, self._options = search.rule, study, search.point, options
        self._store = options.runs_folder().resolve()
        self.metric = options.metric
        self._trials: dict[int, _Trial] = {}
        self._of_run: dict[int, _Trial] = {}
        self._collected = 0
        self._finished = len(study.finished())
        self._console = console
        self._error: PlasticError | None = None

    def run(self, pool: Pool) -> bool:
        """Carry out trials until there are enough; return whether the search was stopped before."""
        sweep = Sweep([], pool, self._store, self._options, data=self._options.data)
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
        while len(self._trials) < at_once and self._finished + len(self._trials) < self._options.trials:
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
                    for index in range(self._options.seeds)
                ]
            except UserError as error:
                # The range of the search exceeds the bounds of the option, so further trials would fail as well.
                self._study.tell(number, None)
                self._error = error
                return
            trial = _Trial(number, values, with_data(runs, self._options.data, self._store))
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
            elif result.word == "failed" and not self._options.keep_going:
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
        metric = metric_of(str(self.metric), self._rule.name)
        result = (
            f"{metric.name} {metric.text(value)}" if value is not None else f"failed: {failed or f'no {self.metric}'}"
        )
        seconds = sum(result.outcome.seconds for result in trial.results)
        done = f"[{self._finished}/{self._options.trials}]"
        self._console.message(f"{done} trial {trial.number}: {shown}: {result} ({duration(seconds)})")

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
                f"{did_you_mean(self.metric, known) if self.metric else ''}"
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


def _maximizes(options: TuningOptions) -> bool:
    if options.direction != "auto":
        return options.direction == "maximize"
    return (options.metric or "").rpartition("/")[2] not in ("loss", "error")


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


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
