"""Published results of a rule (its `claims.toml`), and verdicts on whether our runs reproduce them."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, Literal, TypeVar

from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from plastic_cli.config.model import present_names
from plastic_cli.config.other_words import similar_option
from plastic_cli.errors import UserError, did_you_mean
from plastic_cli.plugins.metrics import Metric, metric_of
from plastic_cli.plugins.models import added_options, former_names
from plastic_cli.reports.grouping import Group, plain_value, setting_text
from plastic_cli.statistics.intervals import (
    CONFIDENCE,
    MINIMUM_VALUES,
    Interval,
    half_width,
    mean_interval,
    quantile,
)

VerdictWord = Literal["reproduced", "not reproduced", "inconclusive", "untested"]
VERDICTS: tuple[VerdictWord, ...] = ("reproduced", "not reproduced", "inconclusive", "untested")

TABLES = ("claim", "context", "settings")

_METRIC = r"^[^/\s]+/[^/\s]+$"
"""The name of a metric of training: "test/accuracy"."""
_RESULT = r"^[^/\s]([^/\n]*[^/\s])?(/[^/\s]([^/\n]*[^/\s])?)+$"
"""The name of a result of eval or analyze, with several parts and spaces in them: "probe/layer 2 trained"."""

POWER = 0.8
"""Probability with which the reported number of seeds would decide a claim."""

MOST_SEEDS = 1000
"""Largest number of seeds that is computed."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    id: str = Field(min_length=1)
    statement: str = Field(min_length=1)
    source: str = Field(min_length=1)
    url: str | None = None
    doi: str | None = None
    evidence: Literal["V", "S", "R", "I"]
    conditions: dict[str, Any] = {}

    @field_validator("conditions", "against", "control_setting", "options", check_fields=False)
    @classmethod
    def _plain_conditions(cls, conditions: dict[str, Any]) -> dict[str, Any]:
        for name, value in conditions.items():
            if not isinstance(value, bool | int | float | str | list):
                raise ValueError(f"'{name}' must be a number, a text, true or false, or a list")
        return {name: plain_value(value) for name, value in conditions.items()}

    @property
    def link(self) -> str | None:
        """The address of the source."""
        return f"https://doi.org/{self.doi}" if self.doi else self.url

    def holds_for(self, group: Group) -> bool:
        """Return whether the runs of a group meet every condition.

        An option without a condition can have any value, unless a later version of the rule added it. Then it must have
        the value with which a run is what it was without the option: older claims know nothing of it.
        """
        described = {**group.config, "dataset": group.dataset}
        plain = {name: plain_value(value) for name, value in added_options(group.rule).items()}
        # An option without a value is one that the run did not have.
        unchanged = all(described.get(name) in (None, plain[name]) for name in plain if name not in self.conditions)
        return unchanged and all(described.get(name) == value for name, value in self.conditions.items())


@dataclass(frozen=True)
class Band:
    """The values that a claim allows: from `low` to `high`, both included; infinite without a bound."""

    low: float
    high: float

    def contains(self, low: float, high: float, slack: float = 0.0) -> bool:
        """Return whether the whole interval from `low` to `high` lies in the band, widened by `slack`."""
        return self.low - slack <= low and high <= self.high + slack

    def touches(self, low: float, high: float) -> bool:
        """Return whether some of the interval from `low` to `high` lies in the band."""
        return low <= self.high and self.low <= high


class Claim(_Entry):
    """A published number with which runs of the rule are compared.

    metric: `split/metric`, as runs store it. tolerance: distance, in units of the metric, between the published value
    and the ends of the band of values that count as equal; tolerance_reason says why. If the publication gives a spread
    over several runs, the band follows from it (`Claim.margin`), without a tolerance: spread is the standard error of
    the mean or, with spread_of "runs", the standard deviation over runs; published_runs is the number of runs.
    chance, control: the values of guessing and of the claim's control, which the band must not contain. about_control:
    the claim is about the control itself, so that measured controls are not compared with it. against: options of a
    second setting of the rule, which is otherwise equal; the claim is then about the differences between the two, seed
    by seed, or with relation "ratio" about their ratios. control_setting: options of a second setting that is the
    control, otherwise equal; the band must not contain its values. words: the published statement if it is not a
    number; value and tolerance are then our criterion. unsupported: what is missing if the source gives a number but
    not how to repeat it.

    stage: "eval" or "analyze" for a claim about a result of this command; metric is then the name of the result, such
    as "layer 1/silent". options: those of the command; an option that is not named has its default, except switches,
    which select further measures. The newest completed stage of a run counts. against_metric: another result of the
    same run, or a metric of its training; the claim is then about the difference from it, or the ratio.
    control_metric: the result that is the control; without it, it is `control/NAME` of training.
    """

    metric: str = Field(pattern=_RESULT)
    value: float
    tolerance: float | None = Field(None, ge=0)
    tolerance_reason: str | None = Field(None, min_length=1)
    spread: float | None = Field(None, ge=0)
    spread_of: Literal["mean", "runs"] = "mean"
    published_runs: int | None = Field(None, ge=2)
    comparison: Literal["equal", "at-least", "at-most"] = "equal"
    chance: float | None = None
    control: float | None = None
    about_control: bool = False
    against: dict[str, Any] = {}
    control_setting: dict[str, Any] = {}
    relation: Literal["difference", "ratio"] = "difference"
    words: str | None = None
    unsupported: str | None = None
    stage: Literal["eval", "analyze"] | None = None
    options: dict[str, Any] = {}
    against_metric: str | None = Field(None, pattern=_RESULT)
    control_metric: str | None = Field(None, pattern=_RESULT)

    @property
    def is_comparison(self) -> bool:
        """Whether the claim is about a difference or a ratio: of two settings, or of two results of a run."""
        return bool(self.against) or self.against_metric is not None

    @property
    def command(self) -> str:
        """The stage and its options as text: "eval with corruption = gaussian-noise:0.3"; empty without a stage."""
        if self.stage is None:
            return ""
        return f"{self.stage} with {setting_text(self.options)}" if self.options else self.stage

    @property
    def margin(self) -> float:
        """The distance from the published value to the ends of the band.

        If a spread was published, it is the least significant difference of two groups of this number of runs with this
        spread: two means that are closer do not differ in a two-sample t test at 5%.
        """
        if self.tolerance is not None:
            return self.tolerance
        assert self.spread is not None
        assert self.published_runs is not None
        n = self.published_runs
        deviation = self.spread * math.sqrt(n) if self.spread_of == "mean" else self.spread
        return quantile(CONFIDENCE, 2 * n - 2) * deviation * math.sqrt(2 / n)

    @property
    def reason(self) -> str:
        """The reason for the width of the band."""
        if self.tolerance is not None:
            return str(self.tolerance_reason)
        kind = "standard error" if self.spread_of == "mean" else "standard deviation over runs"
        return f"published with a {kind} of {self.spread:g} over {self.published_runs} runs"

    @property
    def band(self) -> Band:
        """The values that the claim allows."""
        low = -math.inf if self.comparison == "at-most" else self.value - self.margin
        high = math.inf if self.comparison == "at-least" else self.value + self.margin
        return Band(low, high)


class Unmeasured(_Entry):
    """A published result that is not measured; `unmeasured` is the reason.

    metric, value, words: the published number or statement.
    """

    unmeasured: str = Field(min_length=1)
    metric: str | None = Field(None, pattern=r"^[^/\s]+/[^/\s]+$")
    value: float | None = None
    words: str | None = None


class Context(_Entry):
    """A published number of another method, shown for comparison and without a verdict."""

    metric: str = Field(pattern=_METRIC)
    value: float


@dataclass(frozen=True)
class PublishedFigures:
    """The entries of a rule's `claims.toml` that were read in the source itself."""

    rule: str
    claims: tuple[Claim, ...] = ()
    context: tuple[Context, ...] = ()
    unmeasured: tuple[Unmeasured, ...] = ()

    def about(self, dataset: str) -> PublishedFigures:
        """Return the entries for one data set."""
        return PublishedFigures(
            self.rule,
            claims=tuple(entry for entry in self.claims if entry.conditions.get("dataset", dataset) == dataset),
            context=tuple(entry for entry in self.context if entry.conditions.get("dataset", dataset) == dataset),
            unmeasured=tuple(e for e in self.unmeasured if e.conditions.get("dataset", dataset) == dataset),
        )


def quantity(entry: Claim | Context | Unmeasured, rule: str | None) -> Metric | None:
    """Return the name and unit of what an entry is about: a metric, or its difference or ratio between two settings."""
    if entry.metric is None:
        return None
    metric = metric_of(entry.metric, rule)
    if not isinstance(entry, Claim) or not entry.is_comparison:
        return metric
    if entry.relation == "ratio":
        return Metric(f"ratio of {metric.name}")
    return Metric(f"difference of {metric.name}", metric.unit, signed=True)


@dataclass(frozen=True)
class Verdict:
    """The verdict of our runs on a claim.

    reason: in words. side: the side of the band on which our whole interval lies, for a claim that is not reproduced.
    lost: number of seeds that failed or ended without a finite value. seeds_needed: number of seeds that would probably
    decide an inconclusive claim; None if it is above `MOST_SEEDS` or if more seeds do not help.
    """

    claim: Claim
    word: VerdictWord
    reason: str
    interval: Interval = field(repr=False)
    side: Literal["below", "above"] | None = None
    lost: int = 0
    seeds_needed: int | None = None


def read_claims(rule: str, text: str) -> PublishedFigures:
    """Read the text of a rule's `claims.toml`: tables `[[claim]]`, `[[context]]` and `[settings.NAME]`.

    An entry with `settings = "NAME"`, or a list of names, has the conditions of `[settings.NAME]`; later names and the
    entry's own conditions take precedence. Entries whose evidence is not "V" (read in the source itself) are checked
    and left out. Raises UserError, one line that names the file, the entry and the key, also for a claim whose band
    contains chance or its own control.
    """
    file = f"claims.toml of rule '{rule}'"
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: it is not valid TOML: {error}.") from None
    for name in tables:
        if name not in TABLES:
            raise UserError(f"{file}: there is no table '{name}'.{did_you_mean(name, TABLES)}")
    entries = _Entries(file, tables, former_names(rule))
    claims: list[Claim] = []
    unmeasured: list[Unmeasured] = []
    for name, entry in entries.of_kind("claim"):
        if "unmeasured" in entry:
            unmeasured.append(_read_entry(Unmeasured, name, entry))
        else:
            claims.append(_read_entry(Claim, name, entry))
            _check_stage(claims[-1], name)
            _check_band(claims[-1], name)
    context = [_read_entry(Context, name, entry) for name, entry in entries.of_kind("context")]
    entries.check_all_used()
    seen: set[str] = set()
    for known in (*claims, *unmeasured, *context):
        if known.id in seen:
            raise UserError(f"{file}: the id '{known.id}' is used twice.")
        seen.add(known.id)
    return PublishedFigures(
        rule,
        claims=tuple(claim for claim in claims if claim.evidence == "V"),
        context=tuple(entry for entry in context if entry.evidence == "V"),
        unmeasured=tuple(entry for entry in unmeasured if entry.evidence == "V"),
    )


def judge(claim: Claim, values: ArrayLike, *, failed: int = 0, control: ArrayLike = ()) -> Verdict:
    """Compare one value per seed (n,), from runs that meet the claim's conditions, with the published one.

    "reproduced": the whole interval of the mean lies in the claim's band. "not reproduced": the whole interval lies
    outside. "inconclusive": neither. "untested": there are fewer than `MINIMUM_VALUES` finite values.

    failed: number of further seeds without a value because their run failed. A claim is never reproduced if a seed
    failed or has no finite value, because the remaining seeds were selected by their outcome. control (m,): values of
    the control in the claim's metric. A claim is never reproduced if the interval of the control (with fewer than
    `MINIMUM_VALUES` values its mean) touches the band. In both cases more seeds can decide only that
    it is not reproduced.
    """
    interval = mean_interval(values)
    lost = interval.dropped + failed
    counted = finished_text(interval.n, lost) if lost else f"{interval.n} seeds"
    if not interval.known:
        reason = counted if lost else f"{interval.n} of {MINIMUM_VALUES} seeds" if interval.n else "no run"
        return Verdict(claim, "untested", reason, interval, lost=lost)
    band = claim.band
    # Decimal fractions such as .93 - .005 are not exact in binary, and rounding must not decide.
    slack = 1e-12 * max(1.0, abs(claim.value))
    if not band.touches(interval.low - slack, interval.high + slack):
        side: Literal["below", "above"] = "below" if interval.high < band.low else "above"
        return Verdict(claim, "not reproduced", f"ours lies {side}, {counted}", interval, side, lost)
    is_control_inside = not claim.about_control and _touched_by(band, mean_interval(control))
    if not band.contains(interval.low, interval.high, slack):
        cannot_reproduce = is_control_inside or lost > 0
        needed = seeds_to_decide(interval, band, only_outside=cannot_reproduce)
        more = f"about {needed} would probably decide" if needed else f"more than {MOST_SEEDS} would be needed"
        texts = [more] if needed or not cannot_reproduce else []
        if is_control_inside:
            texts.insert(0, "the control lies in the band too")
        reason = "; ".join([counted, *([", ".join(texts)] if texts else [])])
        return Verdict(claim, "inconclusive", reason, interval, lost=lost, seeds_needed=needed)
    if lost:
        return Verdict(claim, "inconclusive", counted, interval, lost=lost)
    if is_control_inside:
        return Verdict(claim, "inconclusive", f"the control lies in the band too, {counted}", interval)
    return Verdict(claim, "reproduced", counted, interval)


def finished_text(n: int, lost: int) -> str:
    """Return in words how many seeds have a value: "3 of 5 finished", or "5" if none was lost."""
    return f"{n} of {n + lost} finished" if lost else str(n)


def seeds_to_decide(interval: Interval, band: Band, *, only_outside: bool = False) -> int | None:
    """Return the number of seeds with which the interval lies inside or outside the band with probability `POWER`.

    only_outside: an interval inside decides nothing.

    Assumes that the mean and the standard deviation of the present runs are the true ones, and that the mean of n
    further runs is normal. None if more than `MOST_SEEDS` seeds would be needed.
    """
    deviation = (interval.high - interval.low) / 2 / half_width(1.0, interval.n)
    below = NormalDist().cdf
    for n in range(interval.n + 1, MOST_SEEDS + 1):
        half, error = half_width(deviation, n), deviation / math.sqrt(n)

        def at_most(value: float, error: float = error) -> float:
            return below((value - interval.mean) / error)

        inside = 0.0 if only_outside else at_most(band.high - half) - at_most(band.low + half)
        outside = at_most(band.low - half) + 1 - at_most(band.high + half)
        if max(inside, outside) >= POWER:
            return n
    return None


def _touched_by(band: Band, control: Interval) -> bool:
    if not control.n:
        return False
    return band.touches(control.low, control.high) if control.known else band.touches(control.mean, control.mean)


def _check_stage(claim: Claim, name: str) -> None:
    """Raise UserError for the name of a metric or for options that only a claim about a stage can have."""
    if claim.stage is not None:
        return
    if not re.match(_METRIC, claim.metric):
        raise UserError(
            f"{name}: 'metric': '{claim.metric}' is not the name of a metric of training, such as test/accuracy. For a"
            ' result of eval or analyze, add stage = "eval" or stage = "analyze".'
        )
    if claim.options:
        raise UserError(f"{name}: 'options' needs 'stage', \"eval\" or \"analyze\".")


def _check_band(claim: Claim, name: str) -> None:
    """Raise UserError if a claim has no band, two bands, or a band that contains chance or the control."""
    if claim.tolerance is None and claim.spread is None:
        raise UserError(f"{name}: the key 'tolerance' is missing; or give 'spread' and 'published_runs'.")
    if claim.tolerance is not None and claim.spread is not None:
        raise UserError(f"{name}: 'tolerance' and 'spread' both define the band. Keep one of them.")
    if claim.tolerance is not None and claim.tolerance_reason is None:
        raise UserError(f"{name}: the key 'tolerance_reason' is missing.")
    if claim.spread is not None and claim.published_runs is None:
        raise UserError(f"{name}: the key 'published_runs' is missing: the number of runs of the published spread.")
    if claim.relation == "ratio" and not claim.is_comparison:
        raise UserError(f"{name}: 'relation' needs 'against', the second setting, or 'against_metric'.")
    if claim.against and claim.against_metric is not None:
        raise UserError(f"{name}: 'against' and 'against_metric' both say what to compare with. Keep one of them.")
    if claim.control_setting and (claim.is_comparison or claim.stage is not None):
        raise UserError(f"{name}: 'control_setting' is for a claim about a metric of training, without 'against'.")
    for key, value in (("chance", claim.chance), ("control", claim.control)):
        if value is not None and claim.band.touches(value, value):
            raise UserError(
                f"{name}: its band {_band_text(claim.band)} contains its {key}, {value:g}. Make the tolerance smaller."
            )


def _band_text(band: Band) -> str:
    if math.isinf(band.high):
        return f"from {band.low:g} up"
    return f"up to {band.high:g}" if math.isinf(band.low) else f"from {band.low:g} to {band.high:g}"


def unknown_conditions(claims: Sequence[_Entry], fields: Sequence[str]) -> list[str]:
    """Return one line for each condition on an unknown option; such a claim can never be tested."""
    return [
        f"{entry.id}: there is no option '{name}'.{similar_option(name, fields)}"
        for entry in claims
        for name in (*entry.conditions, *((*entry.against, *entry.control_setting) if isinstance(entry, Claim) else ()))
        if name not in fields
    ]


def unknown_stage_options(claims: Sequence[Claim], fields: Mapping[str, Sequence[str]]) -> list[str]:
    """Return one line for each option of a stage that this command does not have. fields: its options by command."""
    return [
        f"{claim.id}: {claim.stage} has no option '{name}'.{similar_option(name, fields.get(claim.stage, ()))}"
        for claim in claims
        if claim.stage is not None
        for name in claim.options
        if name not in fields.get(claim.stage, ())
    ]


Kind = TypeVar("Kind", bound=_Entry)


class _Entries:
    """The entries of a `claims.toml`, with the conditions of the settings that they name.

    former: former names of options, which conditions may use, and the present ones.
    """

    def __init__(self, file: str, tables: Mapping[str, Any], former: Mapping[str, str]) -> None:
        self.file = file
        self.tables = tables
        self.former = former
        self.settings = tables.get("settings", {})
        self.used: set[str] = set()
        if not isinstance(self.settings, Mapping):
            raise UserError(f"{file}: write [settings.NAME], one table for each name.")
        for name, conditions in self.settings.items():
            if not isinstance(conditions, Mapping):
                raise UserError(f"{file}: [settings.{name}] must be a table of keys and values.")

    def of_kind(self, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the name of each entry, for messages, and its keys and values."""
        entries = self.tables.get(kind, [])
        if not isinstance(entries, list):
            raise UserError(f"{self.file}: write [[{kind}]] with two brackets, once for each entry.")
        for number, entry in enumerate(entries, start=1):
            if not isinstance(entry, Mapping):
                raise UserError(f"{self.file}: {kind} {number} must be a table of keys and values.")
            of_id = f" ({entry['id']})" if isinstance(entry.get("id"), str) else ""
            name = f"{self.file}: {kind} {number}{of_id}"
            complete = self._with_settings(name, dict(entry))
            for key in ("conditions", "against", "control_setting"):
                if isinstance(complete.get(key), Mapping):
                    complete[key] = present_names(complete[key], self.former)
            yield name, complete

    def _with_settings(self, name: str, entry: dict[str, Any]) -> dict[str, Any]:
        chosen = entry.pop("settings", [])
        chosen = [chosen] if isinstance(chosen, str) else chosen
        if not isinstance(chosen, list) or not all(isinstance(setting, str) for setting in chosen):
            raise UserError(f"{name}: 'settings' must be the name of a table [settings.NAME], or a list of names.")
        conditions: dict[str, Any] = {}
        for setting in chosen:
            if setting not in self.settings:
                guess = did_you_mean(setting, self.settings)
                raise UserError(f"{name}: 'settings': there is no table [settings.{setting}].{guess}")
            conditions |= self.settings[setting]
            self.used.add(setting)
        own = entry.get("conditions", {})
        # Conditions of another type are an error, which the model reports.
        return {**entry, "conditions": {**conditions, **own}} if chosen and isinstance(own, Mapping) else entry

    def check_all_used(self) -> None:
        """Raise UserError if there are settings that no entry names."""
        for name in self.settings:
            if name not in self.used:
                raise UserError(f"{self.file}: no claim or context uses [settings.{name}]. Remove the table.")


def _read_entry(model: type[Kind], name: str, entry: Mapping[str, Any]) -> Kind:
    try:
        return model.model_validate(dict(entry))
    except ValidationError as error:
        # A misspelled key is also a missing one: the first says more.
        first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
        key = str(first["loc"][0])
        if first["type"] == "extra_forbidden":
            guess = did_you_mean(key, [*model.model_fields, "settings"])
            raise UserError(f"{name}: there is no key '{key}'.{guess}") from None
        if first["type"] == "missing":
            raise UserError(f"{name}: the key '{key}' is missing.") from None
        message = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{name}: '{key}': {message[0].lower()}{message[1:]}.") from None
