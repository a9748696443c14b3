"""The share of mutants that the tests kill: one small fault at a time, put into a copy of the sources.

The mutants of a rule are in `mutants/RULE.toml`:

    tests = ["tests/metafa"]                # what must fail
    [[mutant]]
    name = "the worst rate is chosen"
    file = "plugins/plastic_metafa/meta_learning.py"
    old = "RATES[max("                      # occurs exactly once in the file
    new = "RATES[min("
    tests = ["tests/metafa/test_measures.py"]     # tried before the others

    python benchmarks/mutants.py [RULE ...] [--only TEXT] [--json]

Prints each mutant with the test that kills it. Exit code 1 where one survives.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LISTS = Path(__file__).resolve().parent / "mutants"
SECONDS = 900
"""How long the tests of one mutant may take; one that never ends is killed too."""


@dataclass(frozen=True)
class Mutant:
    """One fault: where `old` stands, exactly once, `new` takes its place. tests: in the order in which they are run."""

    rule: str
    name: str
    file: str
    old: str
    new: str
    tests: tuple[tuple[str, ...], ...]


def read_mutants(rules: Sequence[str] = ()) -> list[Mutant]:
    """Return the mutants of `rules`, of all if there are none; raises ValueError where one does not fit the sources."""
    mutants = []
    for path in sorted(LISTS.glob("*.toml")):
        if rules and path.stem not in rules:
            continue
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        every = tuple(content["tests"])
        for entry in content["mutant"]:
            first = tuple(entry.get("tests", ()))
            tests = (first, every) if first else (every,)
            mutant = Mutant(path.stem, entry["name"], entry["file"], entry["old"], entry["new"], tests)
            occurrences = (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.old)
            if occurrences != 1 or mutant.old == mutant.new:
                raise ValueError(f"{path.name}: '{mutant.name}' must change one place of {mutant.file}: {occurrences}")
            mutants.append(mutant)
    return mutants


def copy_sources(folder: Path) -> None:
    """Copy the files of the working tree that git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def killer(folder: Path, tests: Sequence[str]) -> str | None:
    """Return the first test that fails in `folder`, or None where all pass."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(folder / "plugins")])}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no end within {SECONDS} s"
    if done.returncode == 0:
        return None
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    if done.returncode != 1 or failed is None:
        raise RuntimeError(f"pytest ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return failed[1]


def try_mutant(folder: Path, mutant: Mutant) -> str | None:
    """Return what kills a mutant, or None where it survives."""
    path = folder / mutant.file
    sound = path.read_text(encoding="utf-8")
    path.write_text(sound.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        return next((found for tests in mutant.tests if (found := killer(folder, tests)) is not None), None)
    finally:
        path.write_text(sound, encoding="utf-8")


def main() -> int:
    """Try all mutants that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rules", nargs="*", metavar="RULE")
    parser.add_argument("--only", default="", metavar="TEXT", help="only mutants whose name contains this")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    mutants = [mutant for mutant in read_mutants(options.rules) if options.only in mutant.name]
    killed = 0
    with tempfile.TemporaryDirectory(prefix="plastic-mutants-") as temporary:
        folder = Path(temporary)
        copy_sources(folder)
        for tests in dict.fromkeys(mutant.tests[-1] for mutant in mutants):
            if (broken := killer(folder, tests)) is not None:
                print(f"{broken} fails without a mutant")
                return 2
        for mutant in mutants:
            began = time.perf_counter()
            found = try_mutant(folder, mutant)
            killed += found is not None
            row = {"rule": mutant.rule, "mutant": mutant.name, "file": mutant.file, "killed_by": found}
            if options.json:
                print(json.dumps(row), flush=True)
            else:
                print(
                    f"{mutant.rule}: {mutant.name}: {found or 'SURVIVED'} ({time.perf_counter() - began:.0f} s)",
                    flush=True,
                )
    if not options.json:
        print(f"{killed} of {len(mutants)} killed ({killed / max(1, len(mutants)):.0%})")
    return int(killed < len(mutants))


if __name__ == "__main__":
    sys.exit(main())
