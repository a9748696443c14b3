"""What `plastic verify` checks: which runs can be compared with the reference, and where a repeated run stands."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from plastic_cli.distribution import installed_version
from plastic_cli.errors import UserError
from plastic_cli.plugins.metrics import metric_of
from plastic_cli.runs.metrics import MAIN_METRICS
from plastic_cli.runs.record import RunRecord, read_record, settings_text
from plastic_cli.runs.stages import StageRecord, read_stage
from plastic_cli.sweeps.engine import SweepRun
from plastic_cli.sweeps.lookup import same_data, with_data
from plastic_cli.sweeps.plan import PlannedRun, filter_runs, option_text, plan_recipe
from plastic_cli.sweeps.recipe import RecipeFile, read_recipe, recipe_names
from plastic_cli.sweeps.sample import Candidate, draw
from plastic_cli.sweeps.steps import PlannedStep, plan_steps
from plastic_cli.verbs.options import VerificationOptions

if TYPE_CHECKING:
    from plastic_cli.runs.reference import Reference
    from plastic_cli.statistics.intervals import Interval

VerdictWord = Literal["inside", "outside", "failed", "not comparable", "not finished"]
SameSeed = Literal["equal", "different"]

CONFIDENCE = 0.95
"""Probability with which all intervals of one verification hold if nothing has changed."""
FEWEST_REPEATED = 2
"""Repeated seeds of a setting whose mean is judged."""
FEWEST_SEEDS = 3
"""Other seeds that an interval needs, as in `statistics.intervals`, which imports NumPy; help must not."""

COLUMNS = [
    "recipe",
    "rule",
    "settings",
    "seed",
    "verdict",
    "step",
    "metric",
    "value",
    "mean",
    "low",
    "high",
    "other_seeds",
    "repeated_seeds",
    "same_seed",
    "difference",
    "conditions",
    "stored_value",
    "run",
    "seconds",
    "stored_seconds",
    "stored_version",
    "reason",
]
"""Columns of `verdict_rows` and `mean_row`."""


@dataclass(frozen=True)
class StepCheck:
    """An evaluation or analysis that is to be repeated, and its records in the reference.

    stored: that of the stored run with the same seed. others: those of the completed runs with other seeds.
    """

    step: PlannedStep
    stored: StageRecord | None
    others: tuple[StageRecord, ...]

    @property
    def text(self) -> str:
        """The step as it is typed."""
        return " ".join(filter(None, [self.step.verb, self.step.options_text]))

    @property
    def metrics(self) -> tuple[str, ...]:
        """The results that are judged: those that enough other seeds have."""
        names = dict.fromkeys(name for stage in self.others for name in stage.results)
        return tuple(
            name for name in names if sum(stage.results.get(name) is not None for stage in self.others) >= FEWEST_SEEDS
        )


@dataclass(frozen=True)
class Check:
    """One run that is to be repeated, and what the reference holds of its setting.

    stored: the record of the run with the same seed, if there is one. others: the records of the completed runs with
    other seeds. metrics: the main metrics that are judged. reason: why the run cannot be compared; None if it can.
    stages: the steps that are repeated too.
    """

    recipe: str
    planned: PlannedRun
    stored: RunRecord | None = None
    others: tuple[RunRecord, ...] = ()
    metrics: tuple[str, ...] = ()
    reason: str | None = None
    stages: tuple[StepCheck, ...] = ()

    @property
    def seconds(self) -> float | None:
        """The time that the run took in the reference, or the median time of the other seeds."""
        if self.stored is not None:
            return self.stored.seconds
        return median(record.seconds for record in self.others) if self.others else None


@dataclass(frozen=True)
class JudgedMetric:
    """A final metric of a repeated run, and the prediction interval from the other seeds of the reference.

    stored: the value of the stored run with the same seed. step: the step that gave the value; "" for the training.
    """

    metric: str
    value: float | None
    interval: Interval
    stored: float | None = None
    step: str = ""

    @property
    def inside(self) -> bool:
        """Whether the value lies in the interval; a value that is missing or not finite does not."""
        value = math.nan if self.value is None else self.value
        return self.interval.low <= value <= self.interval.high


@dataclass(frozen=True)
class JudgedMean:
    """The mean of a metric over the repeated seeds of a setting, against all seeds of the reference.

    A small shift of all seeds is seen here, where no single run lies outside. verdicts: those of the repeated runs.
    """

    metric: str
    value: float
    interval: Interval
    verdicts: tuple[Verdict, ...]

    @property
    def inside(self) -> bool:
        """Whether the mean lies in the interval; one that is not finite does not."""
        return self.interval.low <= self.value <= self.interval.high

    @property
    def alarm(self) -> bool:
        """Whether the mean has shifted: it lies outside, and not all runs repeat the stored ones to the bit."""
        return not self.inside and any(verdict.same_seed != "equal" for verdict in self.verdicts)


@dataclass(frozen=True)
class Verdict:
    """Where a repeated run stands.

    same_seed: whether all final metrics are equal to the bit to those of the stored run with this seed; None without
    such a run. conditions: in what the two runs differ apart from the code of plastic, such as "processor"; without
    any, they should be equal. differences: stored and new value of each final metric that differs.
    """

    check: Check
    word: VerdictWord
    metrics: tuple[JudgedMetric, ...] = ()
    same_seed: SameSeed | None = None
    conditions: tuple[str, ...] = ()
    differences: Mapping[str, tuple[float | None, float | None]] | None = None
    run: str | None = None
    seconds: float | None = None
    reason: str | None = None

    @property
    def alarm(self) -> bool:
        """Whether the result has shifted: it lies outside, and it is not equal to the stored run of its seed either.

        A run that repeats the stored one to the bit has not shifted, even if its seed is an outlier among the seeds. A
        step that the stored run does not have counts by itself.
        """
        if self.word not in ("outside", "failed"):
            return False
        new = {stage.text for stage in self.check.stages if stage.stored is None}
        return self.same_seed != "equal" or any(not entry.inside and entry.step in new for entry in self.metrics)

    @property
    def changed(self) -> bool:
        """Whether the run differs from the stored run of its seed although nothing but plastic's code can differ."""
        return self.same_seed == "different" and not self.conditions

    @property
    def largest_difference(self) -> float | None:
        """The largest relative difference of a final metric to the stored run; infinite if one of them is missing."""
        if self.differences is None:
            return None
        return max((relative_difference(*pair) for pair in self.differences.values()), default=0.0)


def relative_difference(stored: float | None, value: float | None) -> float:
    """Return |value - stored| divided by the larger of the two sizes; infinite if one of them is missing."""
    if stored is None or value is None:
        return 0.0 if stored is value else math.inf
    return abs(value - stored) / max(abs(value), abs(stored)) if value != stored else 0.0


def chosen_checks(recipe: str | None, options: VerificationOptions, reference: Reference) -> list[Check]:
    """Return what is to be verified: the runs of a recipe, or a sample of the runs of all recipes.

    Raises UserError for a wrong combination of options, for wrong names, and if no run can be drawn.
    """
    if reference.problem is not None:
        raise UserError(reference.problem)
    if recipe is None and options.sample is None and options.minutes is not None:
        raise UserError(
            f"--minutes {options.minutes:g} needs the number of runs to draw, as in"
            f" `plastic verify --sample 10 --minutes {options.minutes:g}`."
        )
    if (recipe is None) == (options.sample is None):
        what = "not both" if recipe is not None else "as in `plastic verify backprop-quick` or --sample 10"
        raise UserError(f"name a recipe, or the number of runs to draw with --sample, {what}.")
    if recipe is not None:
        for name, value in (("minutes", options.minutes), ("seed", options.seed or None)):
            if value is not None:
                raise UserError(f"--{name} {value:g} does nothing without --sample. Leave it out.")
        file = read_recipe(recipe)
        plan = filter_runs(plan_recipe(file, seeds=options.seeds, rules=options.rule), options.only)
        checks = [check_of(planned, file.name, reference) for planned in with_data(plan, options.data)]
        return [with_stages(check, file, reference) for check in checks] if options.steps else checks
    if options.seeds is not None:
        raise UserError(f"--seeds {options.seeds} does nothing with --sample, which draws single runs. Leave it out.")
    return _sampled(options, reference)


def _sampled(options: VerificationOptions, reference: Reference) -> list[Check]:
    """Return checks of runs that are drawn from all recipes."""
    measured = reference.recipes()
    plans = {name: _plan_of(name) for name in recipe_names() if name in measured}
    owners = [(name, planned) for name, plan in plans.items() for planned in plan]
    plan = [planned for _, planned in owners if not options.rule or planned.rule in options.rule]
    if not plan:
        of = f" of {' or '.join(options.rule)}" if options.rule else ""
        raise UserError(f"the reference has no runs{of}, so that none can be drawn.")
    kept = {planned.settings for planned in filter_runs(plan, options.only)}
    candidates, checks = [], {}
    for name, planned in owners:
        if planned.settings not in kept:
            continue
        # Without its data: that takes longer, and is asked only of runs that are drawn.
        check = check_of(planned, name, reference, data_known=False)
        if check.reason is None and check.seconds is not None:
            candidates.append(Candidate(name, planned, check.seconds))

    def comparable(candidate: Candidate) -> bool:
        (planned,) = with_data([candidate.planned], options.data)
        check = check_of(planned, candidate.recipe, reference)
        checks[candidate.recipe, candidate.planned.settings] = check
        return check.reason is None

    assert options.sample is not None
    seconds = math.inf if options.minutes is None else 60 * options.minutes
    drawn = draw(candidates, options.sample, seconds, options.seed, comparable)
    if not drawn:
        within = "" if options.minutes is None else f" that takes at most {options.minutes:g} minutes"
        raise UserError(f"the reference has no run{within} with {FEWEST_SEEDS} other seeds and with its data here.")
    found = [checks[candidate.recipe, candidate.planned.settings] for candidate in drawn]
    return [with_stages(check, read_recipe(check.recipe), reference) for check in found] if options.steps else found


def _plan_of(name: str) -> list[PlannedRun]:
    """Return the runs of a recipe; none if its plugin is missing or broken, which must not hide the others."""
    try:
        return plan_recipe(read_recipe(name))
    except UserError:
        return []


def check_of(planned: PlannedRun, recipe: str, reference: Reference, *, data_known: bool = True) -> Check:
    """Return what the reference holds of the setting of a planned run, measured on the same data.

    data_known: whether the plan knows the checksum of every data set that is here.
    """
    rows = reference.with_setting(planned.rule, planned.config)
    if not rows:
        return Check(recipe, planned, reason="the reference has no run with this setting")
    name = planned.config.get("dataset")
    if isinstance(name, str) and planned.checksum is None and data_known and rows[0]["data_checksum"] is not None:
        return Check(recipe, planned, reason=f"the data set {name} is not here")
    # Without a checksum the rule learns from no data set, or a run failed before it read it.
    same = [row for row in rows if same_data(row["data_checksum"], planned.checksum)]
    if not same:
        return Check(
            recipe,
            planned,
            reason=f"the reference was measured on other data with the name {name}: the checksums differ",
        )
    # Of several runs with one seed, that of the newest version is written last.
    by_seed = {row["seed"]: reference.record(row["run"]) for row in same}
    stored = by_seed.pop(planned.seed, None)
    others = tuple(by_seed[seed] for seed in sorted(by_seed) if by_seed[seed].status == "completed")
    metrics = tuple(
        metric
        for metric in MAIN_METRICS
        if sum(record.summary.get(metric) is not None for record in others) >= FEWEST_SEEDS
    )
    reason = None
    if not metrics:
        seeds = f"{len(others)} other seed{'' if len(others) == 1 else 's'}"
        reason = f"the reference has {seeds} of this setting, and an interval needs {FEWEST_SEEDS}"
    return Check(recipe, planned, stored, others, metrics, reason)


def with_stages(check: Check, file: RecipeFile, reference: Reference) -> Check:
    """Return a check that also repeats the evaluations and analyses of a recipe that the reference has."""
    if check.reason is not None:
        return check
    records = ([] if check.stored is None else [check.stored]) + list(check.others)
    stages = {
        record.run: {
            (stage.verb, settings_text(stage.verb, stage.config)): stage for stage in reference.stages(record.run)
        }
        for record in records
    }
    found = []
    for step in plan_steps(file, [check.planned]):
        key = (step.verb, settings_text(step.verb, step.config))
        stored = None if check.stored is None else stages[check.stored.run].get(key)
        others = tuple(stages[other.run][key] for other in check.others if key in stages[other.run])
        if step.verb != "render" and (stored is not None or len(others) >= FEWEST_SEEDS):
            found.append(StepCheck(step, stored, others))
    return replace(check, stages=tuple(found))


def steps_of_checks(checks: Sequence[Check]) -> list[PlannedStep]:
    """Return the steps that are repeated, each once."""
    return list({stage.step.settings: stage.step for check in checks for stage in check.stages}.values())


def plan_of_checks(checks: Sequence[Check]) -> list[PlannedRun]:
    """Return the runs that can be compared, each once, with the time that they took in the reference."""
    found: dict[str, PlannedRun] = {}
    for check in checks:
        if check.reason is None:
            minutes = check.planned.minutes if check.seconds is None else check.seconds / 60
            found[check.planned.settings] = replace(check.planned, minutes=minutes)
    return list(found.values())


def judged(checks: Sequence[Check], results: Sequence[SweepRun], store: Path) -> list[Verdict]:
    """Return a verdict for each check.

    All intervals of final metrics together, those of means included, hold with probability CONFIDENCE if nothing has
    changed, and so do all intervals of results of steps: each of K intervals has the confidence
    1 - (1 - CONFIDENCE) / K (Bonferroni).
    """
    comparable = [check for check in checks if check.reason is None]
    of_steps = shared_confidence(sum(len(stage.metrics) for check in comparable for stage in check.stages))
    ended = {result.planned.settings: result for result in results}
    return [_verdict(check, ended, store, confidence_of_metrics(checks), of_steps) for check in checks]


def judged_means(verdicts: Sequence[Verdict]) -> list[JudgedMean]:
    """Return the means of each setting of which at least two seeds were repeated and ended."""
    from plastic_cli.statistics.intervals import prediction_interval

    checks = [verdict.check for verdict in verdicts]
    confidence = confidence_of_metrics(checks)
    found = []
    for places in _by_setting(checks):
        ended = tuple(verdicts[place] for place in places if verdicts[place].metrics)
        if len({verdict.check.planned.seed for verdict in ended}) < FEWEST_REPEATED:
            continue
        for metric in checks[places[0]].metrics:
            of = [entry for verdict in ended for entry in verdict.metrics if (entry.metric, entry.step) == (metric, "")]
            value = sum(_number(entry.value) for entry in of) / len(of)
            stored = _stored_values([checks[place] for place in places], metric)
            found.append(JudgedMean(metric, value, prediction_interval(stored, confidence, of=len(of)), ended))
    return found


def confidence_of_metrics(checks: Sequence[Check]) -> float:
    """Return the confidence of each interval of a final metric, or of its mean over the seeds of a setting."""
    means = sum(len(checks[places[0]].metrics) for places in _by_setting(checks))
    return shared_confidence(means + sum(len(check.metrics) for check in checks if check.reason is None))


def shared_confidence(number: int) -> float:
    """Return the confidence of each of some intervals that together hold with CONFIDENCE."""
    return 1 - (1 - CONFIDENCE) / max(1, number)


def _by_setting(checks: Sequence[Check]) -> list[list[int]]:
    """Return the places of the checks of each setting of a recipe of which several seeds are repeated."""
    from plastic_cli.runs.reference import setting_text

    groups: dict[tuple[str, str, tuple[str, ...]], list[int]] = {}
    for place, check in enumerate(checks):
        if check.reason is None:
            setting = setting_text(check.planned.rule, check.planned.config)
            groups.setdefault((check.recipe, setting, check.metrics), []).append(place)
    return [places for places in groups.values() if len({checks[at].planned.seed for at in places}) >= FEWEST_REPEATED]


def _stored_values(checks: Sequence[Check], metric: str) -> list[float]:
    """Return a metric of all completed runs of the reference of one setting, each once."""
    records = {
        record.run: record
        for check in checks
        for record in (*check.others, *([check.stored] if check.stored is not None else []))
        if record.status == "completed"
    }
    return [_number(record.summary.get(metric)) for record in records.values()]


def _verdict(check: Check, ended: Mapping[str, SweepRun], store: Path, confidence: float, of_steps: float) -> Verdict:
    if check.reason is not None:
        return Verdict(check, "not comparable", reason=check.reason)
    result = ended.get(check.planned.settings)
    steps = [ended.get(stage.step.settings) for stage in check.stages]
    if result is not None and result.word == "failed":
        # A run that diverges in the reference too repeats it.
        also = check.stored is not None and check.stored.status == "failed"
        same: SameSeed | None = None if check.stored is None else "equal" if also else "different"
        return Verdict(check, "failed", same_seed=same, run=result.outcome.run, reason=result.outcome.error)
    # After a failed step, the others may be left: --stop-at-failure.
    has_failed = any(of is not None and of.word == "failed" for of in steps)
    is_stopped = any(of is None or of.word in ("interrupted", "left") for of in steps) and not has_failed
    folder = None if result is None or result.outcome.run is None else store / result.outcome.run
    if result is None or folder is None or result.word in ("interrupted", "left") or is_stopped:
        return Verdict(check, "not finished", reason="the verification was stopped")
    found = judgment(check, read_record(folder), confidence, folder, of_steps)
    for stage, of in zip(check.stages, steps, strict=True):
        if of is not None and of.word in ("failed", "blocked"):
            same_seed = None if stage.stored is None else found.same_seed
            return replace(found, word="failed", same_seed=same_seed, reason=of.outcome.error)
    return found


def judgment(
    check: Check,
    record: RunRecord,
    confidence: float = CONFIDENCE,
    folder: Path | None = None,
    of_steps: float = CONFIDENCE,
) -> Verdict:
    """Return where a completed run stands.

    confidence, of_steps: of the prediction interval of each judged metric, and of each result of a step. folder: that
    of the run, with its stages.
    """
    before = None if check.stored is None else check.stored.summary
    summaries = [other.summary for other in check.others]
    metrics = [_judged(metric, "", record.summary, before, summaries, confidence) for metric in check.metrics]
    differences = {} if check.stored is None else _differences("", check.stored.summary, record.summary)
    for stage in check.stages:
        again = None if folder is None else read_stage(folder, stage.step.verb, stage.step.config)
        results = {} if again is None else again.results
        of_others = [other.results for other in stage.others]
        stored = None if stage.stored is None else stage.stored.results
        metrics += [_judged(name, stage.text, results, stored, of_others, of_steps) for name in stage.metrics]
        differences |= {} if stored is None else _differences(f"{stage.text}: ", stored, results)
    word: VerdictWord = "inside" if all(entry.inside for entry in metrics) else "outside"
    found = Verdict(check, word, tuple(metrics), run=record.run, seconds=record.seconds)
    if check.stored is None:
        return found
    # A stored run that failed may have no results to differ in.
    is_equal = not differences and check.stored.status == record.status
    return replace(
        found,
        same_seed="equal" if is_equal else "different",
        conditions=_other_conditions(check.stored, record, equal=is_equal),
        differences=differences,
    )


def _judged(
    metric: str,
    step: str,
    now: Mapping[str, float | None],
    stored: Mapping[str, float | None] | None,
    others: Sequence[Mapping[str, float | None]],
    confidence: float,
) -> JudgedMetric:
    from plastic_cli.statistics.intervals import prediction_interval

    interval = prediction_interval([_number(other.get(metric)) for other in others], confidence)
    return JudgedMetric(metric, now.get(metric), interval, None if stored is None else stored.get(metric), step)


def _differences(
    prefix: str, stored: Mapping[str, float | None], now: Mapping[str, float | None]
) -> dict[str, tuple[float | None, float | None]]:
    """Return the stored results that are not equal to the present ones, as the stored and the new value.

    A result that only the new run has is not a difference: a later version may log more.
    """
    pairs = {name: (value, now.get(name)) for name, value in stored.items()}
    return {prefix + name: pair for name, pair in pairs.items() if pair[0] != pair[1] or name not in now}


def _other_conditions(stored: RunRecord, record: RunRecord, *, equal: bool) -> tuple[str, ...]:
    """Return what can change the last digits of a result and is not equal for the two runs.

    equal: whether all results are. Runs of earlier versions do not hold the instructions of their processor. They were
    the same if the results are equal, and are another condition if not.
    """
    of_machine = ["processor", "threads", "device"]
    if "instructions" in stored.machine or not equal:
        of_machine.append("instructions")
    pairs = {
        **{name: (stored.machine.get(name), record.machine.get(name)) for name in of_machine},
        **{name: (stored.versions.get(name), record.versions.get(name)) for name in ("torch", "numpy", "numba")},
    }
    return tuple(name for name, (before, now) in pairs.items() if before != now)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def verdict_rows(verdict: Verdict) -> list[dict[str, Any]]:
    """Return one row with COLUMNS for each judged metric, or one row for a run without any."""
    check = verdict.check
    about = {
        "recipe": check.recipe,
        "rule": check.planned.rule,
        "settings": settings_of(check.planned),
        "seed": check.planned.seed,
        "verdict": verdict.word,
        "other_seeds": len(check.others),
        "same_seed": verdict.same_seed,
        "difference": verdict.largest_difference,
        "conditions": ", ".join(verdict.conditions) or None,
        "run": verdict.run,
        "seconds": verdict.seconds,
        "stored_seconds": None if check.stored is None else check.stored.seconds,
        "stored_version": None if check.stored is None else check.stored.versions.get("plastic"),
        "reason": verdict.reason,
    }
    rows = [
        {
            **about,
            "verdict": "inside" if judged.inside else "outside",
            "step": judged.step or "train",
            "metric": judged.metric,
            "value": judged.value,
            "mean": judged.interval.mean,
            "low": judged.interval.low,
            "high": judged.interval.high,
            "stored_value": judged.stored,
        }
        for judged in verdict.metrics
    ]
    return [{name: row.get(name) for name in COLUMNS} for row in rows or [about]]


def mean_row(mean: JudgedMean) -> dict[str, Any]:
    """Return the row with COLUMNS of the mean over the repeated seeds of a setting; it has no seed and no run."""
    check = mean.verdicts[0].check
    row: dict[str, Any] = {
        "recipe": check.recipe,
        "rule": check.planned.rule,
        "settings": settings_of(check.planned),
        "verdict": "inside" if mean.inside else "outside",
        "step": "train",
        "metric": mean.metric,
        "value": mean.value,
        **{name: getattr(mean.interval, name) for name in ("mean", "low", "high")},
        "other_seeds": mean.interval.n,
        "repeated_seeds": len(mean.verdicts),
    }
    return {name: row.get(name) for name in COLUMNS}


def settings_of(planned: PlannedRun) -> str:
    """Return the name of a run in its recipe and the options that distinguish it, without the seed."""
    varied = [f"{name}={option_text(value)}" for name, value in planned.varied.items() if name != "seed"]
    return ", ".join([*([planned.name] if planned.name else []), *varied])


def same_seed_text(verdict: Verdict) -> str | None:
    """Return in a few words how a run differs from the stored run of its seed."""
    if verdict.same_seed is None:
        return "no stored run" if verdict.word in ("inside", "outside") else None
    largest = verdict.largest_difference
    words = "equal" if verdict.same_seed == "equal" else "different"
    if largest:
        words = f"differs by {largest:.1g}" if math.isfinite(largest) else "differs: a metric is missing"
    stored = verdict.check.stored
    version = None if stored is None else stored.versions.get("plastic")
    if verdict.same_seed == "different" and version not in (None, installed_version()):
        words += f", stored by plastic {version}"
    return f"{words} (other {', '.join(verdict.conditions)})" if verdict.conditions else words


def summary_text(verdicts: Sequence[Verdict], means: Sequence[JudgedMean]) -> str:
    """Return the numbers of runs and means inside, of runs equal and not comparable in one line.

    means: those of the verdicts, by `judged_means`.
    """
    compared = [verdict for verdict in verdicts if verdict.word in ("inside", "outside", "failed")]
    inside = sum(verdict.word == "inside" for verdict in compared)
    with_stored = [verdict for verdict in compared if verdict.same_seed is not None]
    alike = [verdict for verdict in with_stored if not verdict.conditions]
    parts = [f"{inside} of {len(compared)} inside"]
    if means:
        parts.append(f"{sum(mean.inside for mean in means)} of {len(means)} means over seeds inside")
    if alike:
        equal = sum(verdict.same_seed == "equal" for verdict in alike)
        parts.append(f"{equal} of {len(alike)} equal to the bit to the stored run of the same seed")
    if len(alike) < len(with_stored):
        parts.append(f"{len(with_stored) - len(alike)} stored on another kind of machine or with other versions")
    left = sum(verdict.word == "not comparable" for verdict in verdicts)
    if left:
        parts.append(f"{left} not comparable")
    return "; ".join(parts)


def _outside_text(judged: JudgedMetric | JudgedMean, check: Check) -> str:
    metric = metric_of(judged.metric, check.planned.rule)
    bounds = f"{metric.number(judged.interval.low)} to {metric.text(judged.interval.high)}"
    return f"{metric.name} {metric.text(judged.value)}, outside {bounds}."


def failure_text(verdicts: Sequence[Verdict], means: Sequence[JudgedMean], *, exact: bool) -> str | None:
    """Return in one line why the verification has failed, or None if it has not.

    means: those of the verdicts, by `judged_means`. exact: a run that differs from the stored run of its seed is a
    failure too, where nothing but the code can differ.
    """
    compared = [verdict for verdict in verdicts if verdict.word in ("inside", "outside", "failed")]
    alarms = [verdict for verdict in compared if verdict.alarm]
    changed = [verdict for verdict in compared if exact and verdict.changed and not verdict.alarm]
    if alarms:
        first = alarms[0]
        if first.word == "failed":
            return f"{_runs(len(alarms))} shifted or failed: {first.check.planned.label} failed: {first.reason}"
        judged = next(entry for entry in first.metrics if not entry.inside)
        label = first.check.planned.label + (f" ({judged.step})" if judged.step else "")
        return f"{_runs(len(alarms))} shifted: {label} has {_outside_text(judged, first.check)}"
    shifted = [mean for mean in means if mean.alarm]
    if shifted:
        check = shifted[0].verdicts[0].check
        settings = settings_of(check.planned) or check.planned.rule
        number = "1 mean over seeds has" if len(shifted) == 1 else f"{len(shifted)} means over seeds have"
        return f"{number} shifted: {settings} has mean {_outside_text(shifted[0], check)}"
    if changed:
        return (
            f"{_runs(len(changed))} not equal to the bit: {changed[0].check.planned.label} differs from the stored run"
            f" by {changed[0].largest_difference:.1g}."
        )
    if not compared:
        reasons = [verdict.reason for verdict in verdicts if verdict.reason]
        return f"no run was compared: {reasons[0]}." if reasons else "no run was compared."
    return None


def _runs(number: int) -> str:
    return "1 run is" if number == 1 else f"{number} runs are"
