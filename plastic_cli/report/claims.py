"""What was published about a rule (its `claims.toml`), and whether our own runs bear it out."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from plastic_cli.analysis.intervals import MINIMUM_VALUES, Interval, mean_interval
from plastic_cli.errors import UserError, did_you_mean
from plastic_cli.report.grouping import Group, plain_value

VerdictWord = Literal["reproduced", "not reproduced", "untested"]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    id: str = Field(min_length=1)
    statement: str = Field(min_length=1)
    metric: str = Field(pattern=r"^[^/\s]+/[^/\s]+$")
    value: float
    source: str = Field(min_length=1)
    url: str | None = None
    doi: str | None = None
    evidence: Literal["V", "S", "R", "I"]
    conditions: dict[str, Any] = {}

    @field_validator("conditions")
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
        """Say whether a group's runs meet every condition; what the conditions do not name is free."""
        described = {**group.config, "dataset": group.dataset}
        return all(described.get(name) == value for name, value in self.conditions.items())


class Claim(_Entry):
    """A published number that runs of this rule can be held against.

    metric: `split/metric` as runs store it. tolerance: how far, in the metric's units, our interval may lie from the
    value, for the reason given. words: what was published where it was no number; value and tolerance are then where we
    draw the line. unsupported: set where the source gives a number and nothing to repeat it with; it says
    what is missing.
    """

    tolerance: float = Field(ge=0)
    tolerance_reason: str = Field(min_length=1)
    comparison: Literal["equal", "at-least", "at-most"] = "equal"
    words: str | None = None
    unsupported: str | None = None


class Context(_Entry):
    """A published number of another method, to be read beside ours and never judged."""


@dataclass(frozen=True)
class PublishedFigures:
    """What one rule's `claims.toml` says, as far as it was read in the source itself."""

    rule: str
    claims: tuple[Claim, ...] = ()
    context: tuple[Context, ...] = ()

    def about(self, dataset: str) -> PublishedFigures:
        """Return the figures that hold for one data set."""
        return PublishedFigures(
            self.rule,
            claims=tuple(entry for entry in self.claims if entry.conditions.get("dataset", dataset) == dataset),
            context=tuple(entry for entry in self.context if entry.conditions.get("dataset", dataset) == dataset),
        )


@dataclass(frozen=True)
class Verdict:
    """What our runs say about a claim.

    reason: in words. side: on which side of the published value our whole interval lies, where the claim was not
    reproduced.
    """

    claim: Claim
    word: VerdictWord
    reason: str
    interval: Interval = field(repr=False)
    side: Literal["below", "above"] | None = None


def read_claims(rule: str, text: str) -> PublishedFigures:
    """Read the text of a rule's `claims.toml`: tables `[[claim]]` and `[[context]]`.

    Entries whose evidence is not "V" (read in the source itself) are checked and left out. Raises UserError, one line
    that names the file, the entry and the key.
    """
    file = f"claims.toml of rule '{rule}'"
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{file}: it is not valid TOML: {error}.") from None
    for name in tables:
        if name not in ("claim", "context"):
            raise UserError(f"{file}: there is no table '{name}'.{did_you_mean(name, ('claim', 'context'))}")
    claims = [_read_entry(Claim, file, "claim", number, entry) for number, entry in _entries(file, tables, "claim")]
    context = [
        _read_entry(Context, file, "context", number, entry) for number, entry in _entries(file, tables, "context")
    ]
    seen: set[str] = set()
    for known in (*claims, *context):
        if known.id in seen:
            raise UserError(f"{file}: the id '{known.id}' is used twice.")
        seen.add(known.id)
    return PublishedFigures(
        rule,
        claims=tuple(claim for claim in claims if claim.evidence == "V"),
        context=tuple(entry for entry in context if entry.evidence == "V"),
    )


def judge(claim: Claim, values: ArrayLike) -> Verdict:
    """Hold one value per seed (n,), from runs that meet the claim's conditions, against the published one.

    With the interval [low, high] of the mean and the claim's tolerance t, "equal" is reproduced where the value lies in
    [low - t, high + t], "at-least" where high + t reaches the value and "at-most" where low - t does. Fewer than
    `MINIMUM_VALUES` seeds leave it untested.
    """
    interval = mean_interval(values)
    if not interval.known:
        reason = f"{interval.n} of {MINIMUM_VALUES} seeds" if interval.n else "no run"
        return Verdict(claim, "untested", reason, interval)
    # Decimal fractions such as .93 - .005 are not exact in binary: a hair's breadth must not decide.
    slack = claim.tolerance + 1e-12 * max(1.0, abs(claim.value))
    below = claim.value > interval.high + slack
    above = claim.value < interval.low - slack
    failed = {"equal": below or above, "at-least": below, "at-most": above}[claim.comparison]
    if not failed:
        return Verdict(claim, "reproduced", f"{interval.n} seeds", interval)
    side: Literal["below", "above"] = "below" if below else "above"
    return Verdict(claim, "not reproduced", f"ours lies {side}, {interval.n} seeds", interval, side)


def unknown_conditions(claims: Sequence[Claim | Context], fields: Sequence[str]) -> list[str]:
    """Return one line for each condition that names no configuration field, since such a claim can never be tested."""
    return [
        f"{entry.id}: there is no field '{name}'.{did_you_mean(name, fields)}"
        for entry in claims
        for name in entry.conditions
        if name not in fields
    ]


Kind = TypeVar("Kind", bound=_Entry)


def _entries(file: str, tables: Mapping[str, Any], kind: str) -> list[tuple[int, Any]]:
    entries = tables.get(kind, [])
    if not isinstance(entries, list):
        raise UserError(f"{file}: write [[{kind}]] with two brackets, once for each entry.")
    return list(enumerate(entries, start=1))


def _read_entry(model: type[Kind], file: str, kind: str, number: int, entry: Any) -> Kind:
    if not isinstance(entry, Mapping):
        raise UserError(f"{file}: {kind} {number} must be a table of keys and values.")
    name = f"{kind} {number} ({entry['id']})" if isinstance(entry.get("id"), str) else f"{kind} {number}"
    try:
        return model.model_validate(dict(entry))
    except ValidationError as error:
        # A misspelt key is also a missing one: the first says more.
        first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
        key = str(first["loc"][0])
        if first["type"] == "extra_forbidden":
            raise UserError(
                f"{file}: {name}: there is no key '{key}'.{did_you_mean(key, model.model_fields)}"
            ) from None
        if first["type"] == "missing":
            raise UserError(f"{file}: {name}: the key '{key}' is missing.") from None
        message = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{file}: {name}: '{key}': {message[0].lower()}{message[1:]}.") from None
