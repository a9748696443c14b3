"""The pages of the documentation, taken apart into blocks and command lines."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "recipes/README.md",
    ROOT / "benchmarks/README.md",
]


@dataclass(frozen=True)
class Block:
    """A fenced block, by what stands behind its fence, or an indented one ("")."""

    page: str
    line: int
    kind: str
    text: str

    @property
    def file(self):
        """The file that a listing is, or None."""
        found = re.search(r"file=(\S+)", self.kind)
        return found[1] if found else None

    @property
    def language(self):
        return self.kind.split()[0] if self.kind else ""

    def __str__(self):
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Command:
    """One command line: its words, the variables before it, and the file that it writes to."""

    page: str
    text: str
    words: tuple[str, ...]
    variables: tuple[str, ...] = ()
    output: str | None = None

    def __str__(self):
        return self.text


def blocks_of(path):
    """The blocks of one page."""
    page = str(path.relative_to(ROOT))
    lines = path.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        line = lines[number]
        first = number
        if line.startswith("```"):
            number += 1
            while not lines[number].startswith("```"):
                number += 1
            yield Block(page, first + 1, line[3:].strip(), "\n".join(lines[first + 1 : number]) + "\n")
        elif line.startswith("    ") and (first == 0 or not lines[first - 1].strip()) and not _in_list(lines, first):
            while number < len(lines) and (lines[number].startswith("    ") or not lines[number].strip()):
                number += 1
            text = "\n".join(inner[4:] for inner in lines[first:number]).rstrip() + "\n"
            yield Block(page, first + 1, "", text)
            continue
        number += 1


def _in_list(lines, number):
    """Whether an indented line goes on with an item of a list."""
    for line in reversed(lines[:number]):
        if line.strip() and not line.startswith(" "):
            return re.match(r"(-|\*|\d+\.) ", line) is not None
    return False


def commands_of(block):
    """The command lines of a block, of whatever program; remarks are left out."""
    for line in block.text.splitlines():
        spoken = re.sub(r"(^|\s+)#( .*)?$", "", line).strip()
        for part in spoken.split("&&"):
            if part.strip():
                yield _command(block.page, part.strip())


def inline_commands(path):
    """What is said of `plastic` in the middle of a text."""
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    for found in re.findall(r"`(plastic [^`]+)`", text):
        yield _command(str(path.relative_to(ROOT)), " ".join(found.split()))


def _command(page, text):
    spoken, _, output = text.partition(" > ")
    words = shlex.split(spoken)
    variables = []
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        variables.append(words.pop(0))
    return Command(page, text, tuple(words), tuple(variables), output.strip() or None)


BLOCKS = [block for path in PAGES for block in blocks_of(path)]
