"""Measured numbers in the pages: this program writes them, from the reference and from `docs/measurements/`.

    python website/measurements.py              # write the tables and numbers of all pages
    python website/measurements.py --missing    # list what the reference does not hold, and what would measure it
    python website/measurements.py --changes    # compare values measured earlier with those of the reference

In a page, a table lies between `<!-- measured: FILE/TABLE -->` and `<!-- end -->`, and a number in a sentence between
`<!-- number: FILE/TABLE/KEY -->` and `<!-- end -->`. docs/measurements/index.md describes the files.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from measured import (
    NotMeasuredError,
    Setting,
    Value,
    claims,
    count_of_verdicts,
    measured,
    setting_of,
    settings_of_recipe,
    share_of_outliers,
    stored_reference,
)
from plastic_cli.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs/measurements"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

BLOCK = re.compile(r"^( *)<!-- measured: (\S+?)/(\S+?) -->\n.*?^ *<!-- end -->$", re.DOTALL | re.MULTILINE)
FENCE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"<!-- number: (\S+?)/(\S+?)/([^\n]+?) -->([^\n]*?)<!-- end -->")
PARTS = ("mean", "interval", "low", "high", "n", "verdict", "words", "each", "count")
FIELD = re.compile(r"\{([^{}:]+?)(?:\.(" + "|".join(PARTS) + r"))?(?::([^{}]*))?\}")
SHARED = ("settings", "measures")
"""Tables of a file that hold for all its other tables."""

EARLIER, NOT_YET = "†", "‡"


@dataclass
class Notes:
    """What a reader must know about the values of a table: filled while its cells are written."""

    seeds: Counter[int] = field(default_factory=Counter)
    versions: set[str] = field(default_factory=set)
    earlier: set[str] = field(default_factory=set)
    not_yet: bool = False

    @property
    def usual(self) -> int | None:
        """The number of seeds of most values; None without any."""
        return self.seeds.most_common(1)[0][0] if self.seeds else None

    def lines(self) -> list[str]:
        """Return the notes as a paragraph below the table."""
        notes = []
        if self.seeds:
            stated = " unless stated" if len(self.seeds) > 1 else ""
            notes.append(f"{_seeds(self.usual)}{stated}.")
        if self.versions:
            notes.append(f"Measured with plastic {' and '.join(sorted(self.versions))}.")
        if self.earlier:
            notes.append(f"{EARLIER} Measured earlier, not in the reference: {'; '.join(sorted(self.earlier))}.")
        if self.not_yet:
            notes.append(f"{NOT_YET} Not measured yet.")
        return ["", " ".join(notes)] if notes else []


@dataclass(frozen=True)
class Cell:
    """A cell of a table, and the numbers of seeds of its values."""

    text: str
    seeds: frozenset[int]

    @property
    def in_sentence(self) -> str:
        """The text, with the mark close to the number, because a unit may follow."""
        return self.text.replace(f" {EARLIER}", EARLIER)

    def with_seeds(self, usual: int | None) -> str:
        """Return the text, with the number of seeds if it is not the usual one of the table."""
        unusual = sorted(self.seeds - {usual})
        return f"{self.text} ({_seeds(unusual[0])})" if len(unusual) == 1 and len(self.seeds) == 1 else self.text


def _seeds(number: int | None) -> str:
    return f"{number} seed{'' if number == 1 else 's'}"


def with_numbers(text: str) -> str:
    """Return the text of a page with its tables and numbers written again."""

    def written(found: re.Match[str]) -> str:
        indent, file, name = found.groups()
        lines = [f"<!-- measured: {file}/{name} -->", *table(file, name), "<!-- end -->"]
        return "\n".join((indent + line).rstrip() for line in lines)

    def number(found: re.Match[str]) -> str:
        file, name, key, _ = found.groups()
        return f"<!-- number: {file}/{name}/{key} -->{shown(f'{{{key}}}', file, name, Notes()).in_sentence}<!-- end -->"

    # Every second part is a fenced block, in which comments are an example.
    parts = FENCE.split(text)
    parts[::2] = [NUMBER.sub(number, BLOCK.sub(written, part)) for part in parts[::2]]
    return "".join(parts)


def table(file: str, name: str) -> list[str]:
    """Return the lines of one table in Markdown, and the notes on its values."""
    content = measurements(file)[name]
    notes = Notes()
    cells = [[shown(cell, file, name, notes) for cell in row] for row in (content["columns"], *content["rows"])]
    notes.seeds.update(number for row in cells for cell in row for number in cell.seeds)
    head, *rows = [[cell.with_seeds(notes.usual) for cell in row] for row in cells]
    lines = ["| " + " | ".join(row) + " |" for row in (head, *rows)]
    lines.insert(1, "|" + "".join("---:|" if side == "r" else "---|" for side in content.get("align", "l" * len(head))))
    return [*(re.sub(r"\|  (?=\|)", "| ", line) for line in lines), *notes.lines()]


@cache
def measurements(file: str) -> dict[str, Any]:
    """Return the tables of one file, each with the settings and measures that hold for all of them."""
    content = tomllib.loads((FOLDER / f"{file}.toml").read_text(encoding="utf-8"))
    shared = {name: content.pop(name, {}) for name in SHARED}
    return {
        name: _with_rows({**own, **{kind: {**shared[kind], **own.get(kind, {})} for kind in SHARED}})
        for name, own in content.items()
    }


def _with_rows(content: dict[str, Any]) -> dict[str, Any]:
    """Return a table; one with a `recipe` has a row for each setting of it, and a cell for each measure of `show`."""
    if "recipe" not in content:
        return content
    # A colon in a key would begin a format.
    own = {label.replace(":", ","): (label, each) for label, each in settings_of_recipe(content["recipe"]).items()}
    rows = [[label, *(f"{{{key} / {measure}}}" for measure in content["show"])] for key, (label, _) in own.items()]
    settings = {**content["settings"], **{key: setting for key, (_, setting) in own.items()}}
    return {**content, "rows": [*rows, *content.get("rows", [])], "settings": settings}


@cache
def settings_of(file: str, name: str) -> Mapping[str, Setting]:
    """Return the settings of a table by their names; raises UserError, with file and name, for a wrong one."""
    found = {}
    for key, entry in measurements(file)[name].get("settings", {}).items():
        try:
            found[key] = entry if isinstance(entry, Setting) else setting_of(entry)
        except UserError as error:
            raise UserError(f"docs/measurements/{file}.toml, setting '{key}': {error}") from None
    return found


def query_of(key: str, file: str, name: str) -> Mapping[str, Any] | None:
    """Return the query of a key: its own, or that of "SETTING / MEASURE"; None for another key."""
    content = measurements(file)[name]
    own = content.get("values", {}).get(key)
    if isinstance(own, dict) and "of" in own:
        query = own
    else:
        setting, slash, measure = key.rpartition(" / ")
        if (
            own is not None
            or not slash
            or setting not in content.get("settings", {})
            or measure not in content["measures"]
        ):
            return None
        query = {"of": setting, **content["measures"][measure]}
    return {"scale": content["scale"], **query} if "scale" in content else query


@cache
def value_of(key: str, file: str, name: str) -> Value:
    """Return a value: of the reference, typed with a benchmark, of another table ("FILE/TABLE/KEY"), or of a claim.

    Where the reference has no runs for it, it is the value that was measured earlier. Raises NotMeasuredError if
    there is none.
    """
    other, _, rest = key.partition("/")
    table_of_other, _, inner = rest.partition("/")
    if inner and (FOLDER / f"{other}.toml").is_file():
        return value_of(inner, other, table_of_other)
    content = measurements(file)[name]
    query = query_of(key, file, name)
    try:
        if query is not None:
            return measured(query, settings_of(file, name), stored_reference())
        if isinstance(own := content.get("values", {}).get(key), dict) and "claims" in own:
            return count_of_verdicts(own, stored_reference())
        if isinstance(own, dict) and "outliers" in own:
            return share_of_outliers(own, stored_reference())
        if key in content.get("values", {}):
            return _typed(content["values"][key])
        return _of_claim(key, content.get("scale", 1))
    except NotMeasuredError:
        if key not in (earlier := _earlier(key, file, name)).get("values", {}):
            raise
        return replace(_typed(earlier["values"][key]), earlier=f"{earlier['source']} ({earlier['date']})")
    except UserError as error:
        raise UserError(f"docs/measurements/{file}.toml, {name}, '{key}': {error}") from None


def _earlier(key: str, file: str, name: str) -> Mapping[str, Any]:
    """Return the table of earlier values that has a key: that of its own table or, for a claim, of any table."""
    own: Mapping[str, Any] = measurements(file)[name].get("earlier", {})
    if key in own.get("values", {}) or key not in claims(stored_reference()):
        return own
    every = [
        content.get("earlier", {}) for path in FOLDER.glob("*.toml") for content in measurements(path.stem).values()
    ]
    return next((earlier for earlier in every if key in earlier.get("values", {})), own)


def _typed(value: float | Mapping[str, Any]) -> Value:
    return Value(**value) if isinstance(value, Mapping) else Value(mean=value)


def _of_claim(name: str, scale: float) -> Value:
    known = claims(stored_reference())
    if name not in known:
        raise UserError("it is no key of values, no SETTING / MEASURE and no claim.")
    value = known[name]
    if value.word == "untested":
        raise NotMeasuredError(f"claim {name}: {value.words}")
    mean, low, high = (None if part is None else scale * part for part in (value.mean, value.low, value.high))
    return replace(value, mean=mean, low=low, high=high)


def shown(cell: str, file: str, name: str, notes: Notes) -> Cell:
    """Return a cell with its values; a mark at its end says that one was measured earlier."""
    earlier, seeds = False, set()

    def field_of(found: re.Match[str]) -> str:
        nonlocal earlier
        key, part, spec = found[1], found[2], found[3] or str(measurements(file)[name].get("digits", 2))
        try:
            value = value_of(key, file, name)
        except NotMeasuredError:
            notes.not_yet = True
            return "untested" if part in ("verdict", "words") else NOT_YET
        if value.earlier:
            earlier = True
            notes.earlier.add(value.earlier)
        notes.versions |= value.versions
        if value.n and value.count is None and part not in ("n", "verdict", "words"):
            seeds.add(value.n)
        return formatted(value, part, spec)

    text = FIELD.sub(field_of, cell)
    return Cell(f"{text} {EARLIER}" if earlier else text, frozenset(seeds))


def formatted(value: Value, part: str | None, spec: str) -> str:
    """Return a value, or a part of it, as a page shows it."""
    if part in ("n", "verdict", "words"):
        return str({"n": value.n, "verdict": value.word, "words": value.words or value.word}[part])
    if part == "each" or (part is None and value.each and value.mean is None and value.count is None):
        return ", ".join(_number(each, spec) for each in value.each)
    if part == "count":
        return f"{value.count:,}"
    if part is None and value.count is not None:
        return f"{value.count} of {value.n}"
    if part in ("mean", "low", "high"):
        return _number(getattr(value, part), spec)
    known = value.low is not None and value.high is not None
    interval = f"[{_number(value.low, spec)}, {_number(value.high, spec)}]" if known else ""
    if part == "interval":
        return interval
    mean = _number(value.mean, spec)
    return f"{mean} {interval}" if interval else mean


def _number(number: float | None, spec: str) -> str:
    """Format a number. spec: decimals, after "." to leave out the zero before the point; "," separates thousands."""
    assert number is not None
    if spec == ",":
        return f"{number:,.0f}"
    text = f"{number:.{int(spec.lstrip('.'))}f}"
    if float(text) == 0:
        text = text.removeprefix("-")
    return re.sub(r"^(-?)0(?=\.)", r"\1", text) if spec.startswith(".") else text


# --- what is missing, and what has changed ----------------------------------------------------------------------------


def keys_of(file: str, name: str) -> Iterator[str]:
    """Yield each key that the rows of a table, or its values, have."""
    content = measurements(file)[name]
    cells = [cell for row in content["rows"] for cell in row]
    yield from dict.fromkeys([
        *(found[1] for cell in cells for found in FIELD.finditer(cell)),
        *content.get("values", {}),
        *content.get("earlier", {}).get("values", {}),
    ])  # fmt: skip


Place = tuple[str, str, str]
"""File, table and key of a value."""


def missing() -> list[tuple[float, Place, str]]:
    """Return the values that the reference does not hold: minutes of one run, the place, and what measures it."""
    found: list[tuple[float, Place, str]] = []
    for file, name, key in all_keys():
        query = query_of(key, file, name)
        try:
            if query is not None:
                measured(query, settings_of(file, name), stored_reference())
            elif key in claims(stored_reference()):
                _of_claim(key, 1)
        except NotMeasuredError as error:
            names = [] if query is None else [query["of"], query.get("against", [])]
            names = [each for name in names for each in ([name] if isinstance(name, str) else name)]
            minutes = max((settings_of(file, name)[each].minutes for each in names), default=math.inf)
            found.append((minutes, (file, name, key), str(error)))
    return sorted(found, key=lambda entry: (not entry[0] < math.inf, entry[0]))


def missing_lines() -> list[str]:
    """Return one line for each setting that is missing, with the tables that show it."""
    tables: dict[tuple[float, str], dict[str, None]] = {}
    for minutes, (file, name, _), text in missing():
        tables.setdefault((minutes, text), {})[f"{file}/{name}"] = None
    return [f"{minutes:5.1f} min a run  {text}  ({', '.join(names)})" for (minutes, text), names in tables.items()]


def changes() -> list[str]:
    """Return one line for each value that was measured earlier and is in the reference now."""
    lines = []
    for file, name, key in all_keys():
        old = measurements(file)[name].get("earlier", {}).get("values", {}).get(key)
        if old is None:
            continue
        with_new = value_of(key, file, name)
        if not with_new.earlier:
            lines.append(f"{file}/{name}/{key}: {_compared(_typed(old), with_new)}")
    return lines


def _compared(old: Value, new: Value) -> str:
    def interval(value: Value) -> str:
        return "" if value.low is None else f" [{value.low:.4g}, {value.high:.4g}]"

    if old.mean is None or new.mean is None:
        return f"{formatted(old, None, '5')} -> {formatted(new, None, '5')}"
    outside = not _contains(old, new.mean) and not _contains(new, old.mean)
    text = f"{old.mean:.5g}{interval(old)} -> {new.mean:.5g}{interval(new)} ({new.n} seeds)"
    return text + (" DIFFERS" if outside else "")


def _contains(value: Value, number: float) -> bool:
    assert value.mean is not None
    low, high = (value.mean if end is None else end for end in (value.low, value.high))
    # Typed values have few digits.
    slack = 0.005 * max(abs(number), abs(value.mean))
    return low - slack <= number <= high + slack


def all_keys() -> Iterator[Place]:
    """Yield file, table and key of each value."""
    for path in sorted(FOLDER.glob("*.toml")):
        for name in measurements(path.stem):
            for key in keys_of(path.stem, name):
                other = key.partition("/")[0]
                if not (FOLDER / f"{other}.toml").is_file():
                    yield path.stem, name, key


def main() -> None:
    """Write the tables and numbers of all pages, or list what is missing or has changed."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--missing", action="store_true", help="list the values that the reference does not hold")
    only.add_argument("--changes", action="store_true", help="compare values measured earlier with the reference")
    arguments = parser.parse_args()
    if arguments.missing or arguments.changes:
        lines = changes() if arguments.changes else missing_lines()
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        return
    # Imported here, because it imports torch.
    import combinations
    import figures

    combinations.write()
    for cached in (measurements, settings_of, value_of):
        cached.cache_clear()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        try:
            written = with_numbers(text)
        except UserError as error:
            sys.exit(f"{page.relative_to(ROOT)}: {error}")
        if written != text:
            page.write_text(written, encoding="utf-8")
            sys.stderr.write(f"wrote {page.relative_to(ROOT)}\n")
    figures.draw()


if __name__ == "__main__":
    main()
