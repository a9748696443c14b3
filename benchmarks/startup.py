"""Times `plastic --help` and other first commands, relative to importing Typer and rich, interleaved in one run.

python benchmarks/startup.py
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

FLOOR = "import typer, rich"
COMMANDS = {
    "plastic --help": ["--help"],
    "plastic train --help": ["train", "--help"],
    "plastic train grlu --help": ["train", "grlu", "--help"],
    "plastic runs": ["runs"],
}


def seconds(program: str) -> float:
    """Return the time of a fresh interpreter that runs `program`."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return time.perf_counter() - began


def main() -> None:
    """Print median and range of each command in milliseconds, and its ratio to the floor."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=21)
    repeats = parser.parse_args().repeats
    programs = {f"python -c '{FLOOR}'": FLOOR} | {
        name: f"import sys; sys.argv = {['plastic', *arguments]!r}\nfrom plastic_cli.__main__ import main\nmain()"
        for name, arguments in COMMANDS.items()
    }
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(repeats):
        for name, program in programs.items():
            times[name].append(1000 * seconds(program))
    floor = statistics.median(next(iter(times.values())))
    print(f"{'command':34}{'median ms':>10}{'range ms':>16}{'x floor':>9}")
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:34}{median:10.0f}{f'{min(values):.0f} to {max(values):.0f}':>16}{median / floor:9.2f}")


if __name__ == "__main__":
    main()
