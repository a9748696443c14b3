"""Which runs of a store are meant: by id or name, rule, data set, status, values of options and results."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plastic_cli.errors import UserError, did_you_mean
from plastic_cli.plugins.metrics import metric_of
from plastic_cli.plugins.models import former_names

Row = Mapping[str, Any]
"""The record of a run, as `RunStore.rows()` gives it."""

FACTS = ("rule", "dataset", "seed", "status", "name", "version", "seconds", "training_seconds", "created", "run")
"""What `where` can compare, next to the options and the results that a run stores."""

COLUMNS = {"time": "seconds", "data-set": "dataset", "id": "run"}
"""Headings of the table of `plastic runs` that have another name in `FACTS`."""

_MOST_LISTED = 8
_CONDITION = re.compile(r"\s*([^\s=!<>]+)\s*(!=|<=|>=|=|<|>)\s*(.*?)\s*")
_COMPARED: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Selection:
    """Which runs are meant; an empty field selects all runs.

    runs: ids, unique beginnings of ids, the letters at their ends, or names; a name also means its runs of several
    seeds, NAME-seed0, NAME-seed1.
    where: conditions NAME=VALUE or NAME!=VALUE, or with <, <=, > or >= and a number, on the options and the results
    that the runs store, such as "test/accuracy>0.9", or on one of `FACTS`.
    """

    runs: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    dataset: str | None = None
    status: str | None = None
    where: tuple[str, ...] = ()


def select(rows: Sequence[Row], selection: Selection) -> list[Row]:
    """Return the rows that fit: in the order of `selection.runs`, or without these in the order of `rows`.

    Raises UserError for a run, rule, data set, option or value of an option that no run has.
    """
    chosen = list(_named(rows, selection.runs)) if selection.runs else list(rows)
    for option, wanted in (("rule", selection.rules), ("dataset", (selection.dataset,) if selection.dataset else ())):
        known = {str(row[option]) for row in rows if row[option] is not None}
        for given in wanted:
            if known and given not in known:
                raise UserError(
                    f"--{option} {given}: no run has it.{did_you_mean(given, known)} There are: {_listed(known)}."
                )
        if wanted:
            chosen = [row for row in chosen if row[option] in wanted]
    if selection.status is not None:
        chosen = [row for row in chosen if row["status"] == selection.status]
    for condition in selection.where:
        chosen = _where(chosen, condition)
    return chosen


def find_rows(rows: Sequence[Row], text: str) -> list[Row]:
    """Return the runs with this id, this name, or the seeds of this name, else with a unique part of the id.

    A part is the beginning of the id, or the letters at its end. Raises UserError if no run matches, or several ids
    have this part.
    """
    exact = [row for row in rows if row["run"] == text] or [row for row in rows if text and row["name"] == text]
    if exact:
        return exact
    of_seeds = [row for row in rows if re.fullmatch(re.escape(text) + r"-seed\d+", row["name"] or "")]
    alike = set(ids_with_part([row["run"] for row in rows], text))
    with_part = [row for row in rows if row["run"] in alike]
    if of_seeds or len(with_part) == 1:
        return of_seeds or with_part
    if with_part:
        raise UserError(
            f"'{text}' matches {len(with_part)} runs: {_listed(row['run'] for row in with_part)}. Type more of the id."
        )
    names = [row["name"] for row in rows if row["name"]]
    if any(row["rule"] == text for row in rows):
        raise UserError(
            f"there is no run '{text}', which is a rule: name one of its runs. `plastic runs --rule {text}` lists them."
        )
    guess = did_you_mean(text, [*names, *(row["run"] for row in rows)])
    raise UserError(f"there is no run '{text}'.{guess} `plastic runs` lists them.")


def ids_with_part(ids: Iterable[str], text: str) -> list[str]:
    """Return the ids that begin with the text; if none does, the ids that end with it after a hyphen."""
    every = list(ids) if text else []
    return [run for run in every if run.startswith(text)] or [run for run in every if run.endswith(f"-{text}")]


def option_value(row: Row, name: str) -> Any:
    """Return the value of an option, of a result or of one of `FACTS` in a run, None if the run has none."""
    if name in FACTS:
        return row.get(name)
    return row["config"][name] if name in row["config"] else row["summary"].get(name)


def known_name(rows: Sequence[Row], typed: str, where: str) -> str:
    """Return the option, result or one of `FACTS` that was typed, such as "learning-rate" for learning_rate.

    A heading of `COLUMNS` is a name too, unless an option or a result has it.

    where: what the user typed, for the message. Raises UserError if no run has it.
    """
    name = typed.replace("-", "_")
    known = dict.fromkeys(FACTS)
    for row in rows:
        known.update(row["config"])
        known.update(row["summary"])
    if typed in known or name in known:
        return typed if typed in known else name
    if typed in COLUMNS:
        return COLUMNS[typed]
    for rule in dict.fromkeys(row["rule"] for row in rows):
        if name in former_names(rule):
            return former_names(rule)[name]
    results = dict.fromkeys(result for row in rows for result in row["summary"])
    options = ", ".join(option.replace("_", "-") for option in known if option not in results)
    listed = f" There are: {options}." + (f" Results: {', '.join(results)}." if results else "")
    guess = did_you_mean(name, known) or listed
    raise UserError(f"{where}: no run has the option or the result '{typed}'.{guess}")


def matches(value: Any, text: str) -> bool:
    """Return whether a stored value is what `text` says: `0.5`, `no`, `none`, `256,128`, or one of `1,16`."""
    if isinstance(value, list | tuple):
        entries = [entry.strip() for entry in text.split(",") if entry.strip()]
        return len(entries) == len(value) and all(map(matches, value, entries))
    return any(_is_value(value, entry.strip()) for entry in text.split(","))


def _named(rows: Sequence[Row], texts: Iterable[str]) -> list[Row]:
    return list({row["run"]: row for text in texts for row in find_rows(rows, text)}.values())


def _where(rows: list[Row], condition: str) -> list[Row]:
    parts = _CONDITION.fullmatch(condition)
    if parts is None:
        raise UserError(
            f"--where {condition}: write NAME=VALUE, or !=, <, <=, >, >= in place of =, such as perturbations=16."
        )
    typed, sign, text = parts[1], parts[2], parts[3]
    if not rows:
        return rows
    name = known_name(rows, typed, f"--where {condition}")
    having = [row for row in rows if name in FACTS or name in row["config"] or name in row["summary"]]
    if sign in _COMPARED:
        number = _number(text, condition)
        if abs(number) > 1 and not text.endswith("%") and _is_share(having, name):
            raise UserError(
                f"--where {condition}: {name} is stored as a share between 0 and 1."
                f" Write {number / 100:g}, or {text}% in quotation marks."
            )
        return _compared(having, name, sign, number)
    fitting = [row for row in having if matches(option_value(row, name), text) == (sign == "=")]
    if having and not fitting:
        values = _listed(_typed(option_value(row, name)) for row in having)
        raise UserError(f"--where {condition}: no run has it. Values of {name.replace('_', '-')} here: {values}.")
    return fitting


def _is_share(rows: Sequence[Row], name: str) -> bool:
    """Return whether a name is a result that is shown in percent."""
    rules = dict.fromkeys(row["rule"] for row in rows if name in row["summary"] and name not in row["config"])
    return name not in FACTS and bool(rules) and all(metric_of(name, rule).unit == "%" for rule in rules)


def _compared(rows: Sequence[Row], name: str, sign: str, number: float) -> list[Row]:
    values = [(row, option_value(row, name)) for row in rows]
    return [
        row
        for row, value in values
        if isinstance(value, int | float) and not isinstance(value, bool) and _COMPARED[sign](value, number)
    ]


def _number(text: str, condition: str) -> float:
    """Return the number of a comparison, also in percent."""
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise UserError(f"--where {condition}: '{text}' is not a number.") from None


def _is_value(value: Any, text: str) -> bool:
    folded = text.casefold()
    if value is None or isinstance(value, bool):
        words = {None: ("none", ""), True: ("yes", "true", "on"), False: ("no", "false", "off")}[value]
        return folded in words
    if isinstance(value, int | float):
        try:
            return float(text) == value
        except ValueError:
            return False
    return folded == str(value).casefold()


def _typed(value: Any) -> str:
    """Return a value as the text that `matches` reads."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(map(_typed, value)) if isinstance(value, list | tuple) else str(value)


def _listed(texts: Iterable[str]) -> str:
    unique = list(dict.fromkeys(sorted(texts, key=_in_order)))
    return ", ".join(unique[:_MOST_LISTED]) + (", ..." if len(unique) > _MOST_LISTED else "")


def _in_order(text: str) -> tuple[float, str]:
    try:
        return float(text), ""
    except ValueError:
        return float("inf"), text
