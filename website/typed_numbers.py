"""Numbers in the running text of the pages that look measured and do not come from the generator.

    python website/typed_numbers.py          # list them, with page and line

A number looks measured if it has decimals, or if a unit of results follows it, and an interval always does. Numbers in
code, in generated tables and numbers, and those that ALLOWED describes are left out, and so are those of
`typed_numbers.toml`: numbers of sources, of definitions and of benchmarks.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import measurements

ROOT = measurements.ROOT

NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d*\.?\d+)"
UNIT = r"(?:%| percent| points?\b|°| degrees| times\b| TFLOP)"
MEASURED = re.compile(
    rf"\[-?{NUMBER}, -?{NUMBER}\]|(?<![\w.,:/-])[-+±]?(?:\d*\.\d+(?![\d.]*\.\d)|{NUMBER}(?={UNIT}))(?!\w)"
)

HIDDEN = (
    (r"^(```|~~~).*?^\1", "code"),
    (r"(?<=\n\n)(?: {4}[^\n]*\n)+", "indented code"),
    (r"^ *<!-- measured: .*?^ *<!-- end -->", "a generated table"),
    (r"<!-- number: [^\n]*?<!-- end -->", "a generated number"),
    (r"<!--.*?-->", "a comment"),
    (r"`[^`]*`", "code in a sentence"),
    (r"\]\([^)]*\)", "the address of a link"),
    (r"https?://\S+", "an address"),
    (r"\$[^$\n]*\$", "a formula"),
)
"""What is no running text, with its name."""

NAME = r"[^\W\d]\w*"
ALLOWED = (
    (r"\b(?:19|20)\d\d-\d\d-\d\d\b", "a date"),
    (
        r"\b(?:Python|plastic|torch|PyTorch|numpy|pandas|version|from|schema|Zensical|format) v?\d+\.\d+(?:\.\d+)?",
        "a version",
    ),
    (r"\barXiv[: ]\d+\.\d+|\bdoi\S*|10\.\d{4,}/\S+", "a source"),
    (r"\b(?:Figs?|Figures?|Tables?|Eqs?|Sections?|Suppl)\. ?\S+", "a place in a source"),
    (r"\b95%|\b5%(?= in a)|100%", "a confidence, or all"),
    (rf"\b{NAME} ?(?:=|≈|≤|≥|<|>) ?-?{NUMBER}", "the value of a symbol or an option"),
    (rf"\b(?:learning )?rates?(?: is| of| at)? (?:{NUMBER}(?:,| and| to| or) ?)*{NUMBER}", "a learning rate"),
    (rf"\b(?:default|weight decay|noise|L1|tolerance|strength)s?(?: is| of| at|:)? {NUMBER}", "the value of an option"),
    (rf"\b{NUMBER}(?: for| with) (?:SGD|Adam)", "the value of an option"),
    (rf"\b{NUMBER} x {NUMBER}\b|\b\d+(?:-\d+)+\b", "the shape of a network or an image"),
    (rf"\b{NUMBER} ?(?:MB|GB|kB|ms|s|seconds|minutes|hours)\b", "a time or a size, which benchmarks measure"),
)
"""Numbers that are not measured by us, with what they are."""


@dataclass(frozen=True)
class Found:
    """A number in a page."""

    page: str
    line: int
    number: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.number:>10}  {self.text}"


@cache
def given() -> dict[str, dict[str, Any]]:
    """Return the tables of `typed_numbers.toml`: the pages that are left out, and phrases by kind and page."""
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def typed_numbers(page: Path) -> Iterator[Found]:
    """Yield the numbers of a page that look measured and are typed."""
    text, name = page.read_text(encoding="utf-8"), page.relative_to(ROOT).as_posix()
    if any(fnmatch(name, pattern) for pattern in given()["pages"]):
        return
    blank = text
    # Phrases first, because they are written as the page has them.
    for pattern in (*map(pattern_of, phrases_of(name)), *(pattern for pattern, _ in (*HIDDEN, *ALLOWED))):
        blank = re.sub(pattern, lambda found: re.sub(r"[^\n]", " ", found[0]), blank, flags=re.DOTALL | re.MULTILINE)
    lines = text.splitlines()
    for found in MEASURED.finditer(blank):
        line = blank.count("\n", 0, found.start())
        yield Found(name, line + 1, found[0], lines[line].strip())


def phrases_of(page: str) -> list[str]:
    """Return the phrases of `typed_numbers.toml` in a page."""
    return [phrase for kind, by_page in given().items() if kind != "pages" for phrase in by_page.get(page, [])]


def pattern_of(phrase: str) -> str:
    """Return the pattern that finds a phrase in a page, wherever its lines end."""
    return r"\s+".join(re.escape(word) for word in phrase.split())


def main() -> None:
    """List the typed numbers of all pages."""
    for page in measurements.PAGES:
        sys.stdout.write("".join(f"{found}\n" for found in typed_numbers(page)))


if __name__ == "__main__":
    main()
