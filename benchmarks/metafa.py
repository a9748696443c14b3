"""Seconds per episode and memory of meta-learning, compared with a plain autograd loop and with the products alone.

One episode is adaptation of the published network, 784-170-130-100-70-47, to 250 samples, and the gradient with respect
to theta. Plain: a loop over samples with a dictionary of tensors and one operation per equation, and autograd through
it. Floor: the matrix-vector products and outer products of the adaptation (forward, errors, one update), no graph. In
one process they take turns, an episode each; ratios are within a round. Memory is the largest resident set of a process
that runs one episode, minus that of a process that only imports.

    OMP_NUM_THREADS=1 python benchmarks/metafa.py [--json] [--rounds 5] [--batch 4]
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from plastic_cli.data.episodes import Episode
from plastic_metafa.adaptation import Network, Plasticity, adapt_to, draw_network, in_threads

SIZES, SAMPLES, QUERIES = (784, 170, 130, 100, 70, 47), 250, 50
RULES = {"0": (0,), "0,2,9": (0, 2, 9), "all": tuple(range(10))}
STRENGTHS = {0: 0.01, 2: -0.01, 9: 0.001}


def task(seed: int) -> tuple[Network, Episode]:
    """Draw a network and an episode of random images."""
    generator = torch.Generator().manual_seed(seed)
    x, asked = (torch.rand(count, SIZES[0], generator=generator) for count in (SAMPLES, QUERIES))
    y, answers = (torch.randint(5, (count,), generator=generator) for count in (SAMPLES, QUERIES))
    return draw_network(SIZES, "fixed", generator), Episode(torch.arange(5), x, y, asked, answers)


def theta_of(terms: tuple[int, ...]) -> Tensor:
    """Return strengths with which networks do not diverge."""
    return torch.tensor([STRENGTHS.get(term, 1e-6) for term in terms], dtype=torch.float64)


def plain_loop(network: Network, episode: Episode, theta: Tensor, terms: tuple[int, ...]) -> Tensor:
    """Return the gradient (terms,) by autograd through a loop over samples, an operation for each equation."""
    layers = range(1, len(SIZES))
    W = {l: weights.clone() for l, weights in zip(layers, network.W, strict=True)}
    B = dict(zip(layers, network.B, strict=True))
    theta = theta.float().requires_grad_()
    strength = dict(zip(terms, theta, strict=True))
    top = len(SIZES) - 1
    for x, label in zip(episode.x, episode.y, strict=True):
        y = {0: x}
        for l in layers:
            z = W[l] @ y[l - 1]
            y[l] = torch.softmax(z, 0) if l == top else functional.softplus(z, 10)
        e = {top: y[top] - functional.one_hot(label, SIZES[-1])}
        for l in range(top - 1, -1, -1):
            e[l] = (B[l + 1].T @ e[l + 1]) * (1 - torch.exp(-10 * y[l]))
        changed = {}
        for l in layers:
            change = {
                0: lambda l=l: -torch.outer(e[l], y[l - 1]),
                1: lambda l=l: -torch.outer(y[l], e[l - 1]),
                2: lambda l=l: -torch.outer(e[l], e[l - 1]),
                3: lambda l=l: -W[l],
                4: lambda l=l: -torch.outer(torch.ones_like(y[l]), e[l - 1]),
                5: lambda l=l: -torch.outer(e[l], y[l].sum() * y[l - 1]),
                6: lambda l=l: -torch.outer(y[l], y[l] @ W[l] @ e[l - 1] * e[l - 1]),
                7: lambda l=l: -torch.outer(e[l], y[l] @ W[l] @ e[l - 1] * y[l - 1]),
                8: lambda l=l: -torch.outer(y[l], y[l - 1] @ W[l].T @ e[l] * e[l - 1]),
                9: lambda l=l: torch.outer(y[l], y[l - 1]) - torch.outer(y[l], y[l] @ W[l]),
            }
            changed[l] = W[l] + sum(strength[term] * change[term]() for term in terms)
        W = changed
    h = episode.query_x
    for l in layers:
        h = h @ W[l].T if l == top else functional.softplus(h @ W[l].T, 10)
    return torch.autograd.grad(functional.cross_entropy(h, episode.query_y), theta)[0]


@torch.no_grad()
def floor(network: Network, episode: Episode) -> None:
    """Compute the products of the adaptation only: z = W y, B e, and one outer product added to each W."""
    W = [weights.clone() for weights in network.W]
    e = [torch.ones(size) * 1e-6 for size in SIZES]
    for x in episode.x:
        y = x
        activity = [x]
        for weights in W:
            y = weights.mv(y)
            activity.append(y)
        for feedback, error in zip(network.B, e[1:], strict=True):
            feedback.T.mv(error)
        for weights, error, below in zip(W, e[1:], activity, strict=False):
            weights.addr_(error, below, alpha=1e-6)


def seconds(function: Callable[[], object]) -> float:
    """Return the duration of a call in seconds."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def memory(what: str) -> float:
    """Return the memory that one episode of `what` needs in its own process, in megabytes."""
    own = [sys.executable, __file__, "--memory"]
    used, idle = (
        float(subprocess.run([*own, name], capture_output=True, text=True, check=True).stdout)
        for name in (what, "idle")
    )
    return used - idle


def report_memory(what: str) -> None:
    """Run `what` ("idle", "ours 0,2,9", "plain all") once; print the largest resident set in megabytes."""
    kind, _, rule = what.partition(" ")
    network, episode = task(0)
    if kind == "ours":
        adapt_to(network, episode, theta_of(RULES[rule]), Plasticity(RULES[rule]), gradient=True)
    elif kind == "plain":
        plain_loop(network, episode, theta_of(RULES[rule]), RULES[rule])
    # getrusage includes the memory of the parent process; VmHWM does not.
    (peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    print(int(peak.split()[1]) / 1024)


def main() -> int:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=4, help="episodes in parallel")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        report_memory(arguments.memory)
        return 0
    tasks = [task(seed) for seed in range(arguments.batch)]
    table = {}
    for name, terms in RULES.items():
        theta, plasticity = theta_of(terms), Plasticity(terms)

        def one(number: int, theta: Tensor = theta, plasticity: Plasticity = plasticity) -> object:
            return adapt_to(*tasks[number], theta, plasticity, gradient=True)

        measures: dict[str, Callable[[], object]] = {
            "floor": lambda: floor(*tasks[0]),
            "ours": lambda one=one: one(0),
            "batch": lambda one=one: in_threads(one, len(tasks)),
            "plain": lambda theta=theta, terms=terms: plain_loop(*tasks[0], theta, terms),
        }
        durations: dict[str, list[float]] = {measure: [] for measure in measures}
        for number in range(arguments.rounds + 1):
            for measure, function in measures.items():
                spent = seconds(function)
                # The first round is a warm-up.
                if number:
                    durations[measure].append(spent)
        durations["batch"] = [spent / len(tasks) for spent in durations["batch"]]

        def ratio(over: str, under: str, durations: dict[str, list[float]] = durations) -> float:
            return statistics.median(a / b for a, b in zip(durations[over], durations[under], strict=True))

        table[name] = {
            **{f"{measure} seconds": statistics.median(values) for measure, values in durations.items()},
            "times the floor": ratio("ours", "floor"),
            "faster than plain": ratio("plain", "ours"),
            "faster than plain, batch": ratio("plain", "batch"),
            "megabytes": memory(f"ours {name}"),
            "plain megabytes": memory(f"plain {name}"),
        }
    if arguments.json:
        print(json.dumps({"threads": torch.get_num_threads(), "results": table}))
        return 0
    print(f"{torch.get_num_threads()} thread(s), medians of {arguments.rounds} rounds, per episode")
    for name, row in table.items():
        print(
            f"terms {name:6} ours {1e3 * row['ours seconds']:6.1f} ms = {row['times the floor']:4.1f} x floor,"
            f" {row['faster than plain']:5.1f} x faster than plain;"
            f" {arguments.batch} in parallel {1e3 * row['batch seconds']:6.1f} ms,"
            f" {row['faster than plain, batch']:5.1f} x;"
            f" memory {row['megabytes']:5.0f} MB, plain {row['plain megabytes']:6.0f} MB"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
