"""Tables of measured numbers: the numbers lie in `docs/measurements/`, and this program writes them into the pages.

    python website/measurements.py                                 # write the tables of all pages
    python website/measurements.py --collect eglp --runs FOLDER    # write eglp-claims.csv from the runs of a store

In a page, a table lies between `<!-- measured: FILE/TABLE -->` and `<!-- end -->`. FILE.toml has its columns, its rows
and its values; a row shows a value with `{KEY}`, `{KEY:FORMAT}` or `{KEY.PART:FORMAT}`. Keys that are ids of claims are
read from the files that `--collect` writes from the report.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import io
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs/measurements"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

BLOCK = re.compile(r"^( *)<!-- measured: (\S+?)/(\S+?) -->\n.*?^ *<!-- end -->$", re.DOTALL | re.MULTILINE)
FIELD = re.compile(r"\{([^{}:]+?)(?:\.(mean|interval|low|high|n|verdict))?(?::([^{}]*))?\}")
COLUMNS = ["id", "dataset", "setting", "mean", "low", "high", "n", "verdict"]

Value = Mapping[str, Any]


def with_tables(text: str) -> str:
    """Return the text of a page with its tables of measured numbers written again."""

    def written(found: re.Match[str]) -> str:
        indent, file, name = found.groups()
        lines = [f"<!-- measured: {file}/{name} -->", *table(file, name), "<!-- end -->"]
        return "\n".join(indent + line for line in lines)

    return BLOCK.sub(written, text)


def table(file: str, name: str) -> list[str]:
    """Return the lines of one table in Markdown."""
    content = measurements(file)[name]
    head, *rows = [[_shown(cell, content) for cell in row] for row in (content["columns"], *content["rows"])]
    lines = ["| " + " | ".join(row) + " |" for row in (head, *rows)]
    lines.insert(1, "|" + "".join("---:|" if side == "r" else "---|" for side in content.get("align", "l" * len(head))))
    return [re.sub(r"\|  (?=\|)", "| ", line) for line in lines]


@cache
def measurements(file: str) -> dict[str, Any]:
    """Return the tables of one file."""
    return tomllib.loads((FOLDER / f"{file}.toml").read_text(encoding="utf-8"))


@cache
def claims() -> dict[str, Value]:
    """Return what the report measured for each claim, by the claim's id."""
    found: dict[str, Value] = {}
    for path in sorted(FOLDER.glob("*-claims.csv")):
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
        for row in csv.DictReader(lines):
            numbers = {name: float(row[name]) for name in ("mean", "low", "high") if row[name]}
            found[row["id"]] = {**numbers, "n": row["n"], "verdict": row["verdict"]}
    return found


def value_of(key: str, content: Mapping[str, Any]) -> Value:
    """Return a value: of the table itself, of another one ("FILE/TABLE/KEY"), or of a claim."""
    own = content.get("values", {})
    if key in own:
        return own[key] if isinstance(own[key], dict) else {"mean": own[key]}
    file, _, rest = key.partition("/")
    name, _, inner = rest.partition("/")
    if inner and (FOLDER / f"{file}.toml").is_file():
        return value_of(inner, measurements(file)[name])
    scale = content.get("scale", 1)
    return {part: scale * number if isinstance(number, float) else number for part, number in claims()[key].items()}


def _shown(cell: str, content: Mapping[str, Any]) -> str:
    def value(found: re.Match[str]) -> str:
        key, part, spec = found[1], found[2], found[3] or str(content.get("digits", 2))
        measured = value_of(key, content)
        if part in ("n", "verdict"):
            return str(measured[part])
        interval = f"[{_number(measured['low'], spec)}, {_number(measured['high'], spec)}]" if "low" in measured else ""
        if part == "interval":
            return interval
        mean = _number(measured[part or "mean"], spec)
        return mean if part or not interval else f"{mean} {interval}"

    return FIELD.sub(value, cell)


def _number(number: float, spec: str) -> str:
    """Format a number. spec: decimals, after "." to leave out the zero before the point; "," separates thousands."""
    if spec == ",":
        return f"{number:,.0f}"
    text = f"{number:.{int(spec.lstrip('.'))}f}"
    if float(text) == 0:
        text = text.removeprefix("-")
    return re.sub(r"^(-?)0(?=\.)", r"\1", text) if spec.startswith(".") else text


def collect(rule: str, runs: Path) -> None:
    """Write what the report says of the claims of a rule, for the runs of a store."""
    command = ["plastic", "report", "--rule", rule, "--table", "claims", "--format", "csv"]
    report = subprocess.run([*command, "--runs", str(runs)], capture_output=True, text=True, check=True)
    version = subprocess.run(["plastic", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    text = io.StringIO()
    text.write(f"# {' '.join(command)}\n# {version}\n# {datetime.date.today()}\n")
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(row for row in csv.DictReader(io.StringIO(report.stdout)) if row["mean"])
    (FOLDER / f"{rule}-claims.csv").write_text(text.getvalue(), encoding="utf-8")


def main() -> None:
    """Write the tables of all pages, or first collect the results of a rule."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--collect", metavar="RULE", help="write RULE-claims.csv from the runs of a store")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="the store")
    arguments = parser.parse_args()
    if arguments.collect:
        collect(arguments.collect, arguments.runs)
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if (written := with_tables(text)) != text:
            page.write_text(written, encoding="utf-8")
            sys.stderr.write(f"wrote {page.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
