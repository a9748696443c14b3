"""Time and memory of the selective optimizer, compared with torch's optimizers: one step, and a whole training step.

All optimizers take a few steps in turn, in the same process. Ratios to Adam's default are computed within a round of
turns, so that other load on the machine affects all optimizers alike. A training step is forward, backward and step at
batch size 64.

    OMP_NUM_THREADS=1 python benchmarks/selective.py [--json] [--rounds 60] [--without-memory]
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from plastic_selective import SelectivePlasticityOptimizer

PEERS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "Adam": lambda parameters: torch.optim.Adam(parameters, lr=1e-4),
    "Adam, foreach": lambda parameters: torch.optim.Adam(parameters, lr=1e-4, foreach=True),
    "Adam, fused": lambda parameters: torch.optim.Adam(parameters, lr=1e-4, fused=True),
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=1e-4),
    "SGD, momentum": lambda parameters: torch.optim.SGD(parameters, lr=1e-4, momentum=0.9),
    "selective, base sgd": lambda parameters: SelectivePlasticityOptimizer(
        parameters, lr=1e-4, warmup_steps=10, base="sgd"
    ),
    "selective, base adam": lambda parameters: SelectivePlasticityOptimizer(
        parameters, lr=1e-4, warmup_steps=10, base="adam"
    ),
}
BATCH, TURN, WARM_UP = 64, 10, 20


def perceptron(*sizes: int) -> nn.Sequential:
    """Return a network of ReLU layers."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "784-256-10": lambda: perceptron(784, 256, 10),
    "784-1024-1024-10": lambda: perceptron(784, 1024, 1024, 10),
    "ResNet-18": lambda: resnet18(num_classes=10),
}


def in_turns(measures: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Call each measure in turn, for `rounds` rounds, and return the seconds of each call."""
    seconds: dict[str, list[float]] = {name: [] for name in measures}
    names = list(measures)
    for number in range(rounds):
        # Each round starts with another measure, because a measure after a large one has cold caches.
        for name in names[number % len(names) :] + names[: number % len(names)]:
            began = time.perf_counter()
            for _ in range(TURN):
                measures[name]()
            seconds[name].append((time.perf_counter() - began) / TURN)
    return seconds


def compare(seconds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Return median time in microseconds, and the median and quartiles of the ratio to Adam's default."""
    table = {}
    for name, times in seconds.items():
        ratios = [own / adam for own, adam in zip(times, seconds["Adam"], strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4)
        table[name] = {"microseconds": 1e6 * statistics.median(times), "ratio": median, "low": low, "high": high}
    return table


def with_gradients(network: nn.Module) -> list[nn.Parameter]:
    """Return the network's parameters, each with a gradient."""
    parameters = list(network.parameters())
    for parameter in parameters:
        parameter.grad = 0.01 * torch.randn_like(parameter)
    return parameters


def steps(make: Callable[[], nn.Module], rounds: int) -> dict[str, dict[str, float]]:
    """Time `step()` only."""
    measures: dict[str, Callable[[], object]] = {}
    for name, peer in PEERS.items():
        optimizer = peer(with_gradients(make()))
        for _ in range(WARM_UP):
            optimizer.step()
        measures[name] = optimizer.step
    return compare(in_turns(measures, rounds))


def training_steps(make: Callable[[], nn.Module], rounds: int) -> dict[str, dict[str, float]]:
    """Time forward, backward and step on 64 images."""
    x, y = torch.randn(BATCH, 784), torch.randint(10, (BATCH,))
    measures: dict[str, Callable[[], object]] = {}
    for name, peer in PEERS.items():
        torch.manual_seed(0)
        network = make()
        optimizer = peer(list(network.parameters()))

        def train(network: nn.Module = network, optimizer: torch.optim.Optimizer = optimizer) -> None:
            optimizer.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(network(x), y).backward()
            optimizer.step()

        for _ in range(WARM_UP):
            train()
        measures[name] = train
    return compare(in_turns(measures, rounds))


def peak_memory() -> int:
    """Return the largest number of bytes that this process has occupied."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def memory(name: str) -> dict[str, float]:
    """Return the memory of an optimizer's state for ResNet-18, and the peak memory of its steps.

    The unit is the size of the parameters. Call this in a new process, because the peak is counted per process.
    """
    parameters = with_gradients(NETWORKS["ResNet-18"]())
    size = sum(parameter.numel() * parameter.element_size() for parameter in parameters)
    optimizer = PEERS[name](parameters)
    # Compiling and importing are not part of a step.
    small = PEERS[name](with_gradients(perceptron(8, 8)))
    for _ in range(3):
        small.step()
    # Reset the peak that the operating system counts.
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_memory()
    for _ in range(3):
        optimizer.step()
    occupied = peak_memory() - before
    held = sum(
        value.numel() * value.element_size()
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor)
    )
    return {"held": held / size, "occupied": occupied / size}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--without-memory", action="store_true")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        print(json.dumps(memory(arguments.memory_of)))
        return
    results: dict[str, Any] = {"threads": torch.get_num_threads()}
    for name, make in NETWORKS.items():
        results[f"step, {name}"] = steps(
            make, arguments.rounds if name != "ResNet-18" else max(5, arguments.rounds // 6)
        )
    for name in ("784-256-10", "784-1024-1024-10"):
        results[f"training step, {name}"] = training_steps(NETWORKS[name], arguments.rounds)
    if not arguments.without_memory:
        results["memory"] = {
            name: json.loads(
                subprocess.run(
                    [sys.executable, __file__, "--memory-of", name], capture_output=True, text=True, check=True
                ).stdout
            )
            for name in PEERS
        }
    if arguments.json:
        print(json.dumps(results))
        return
    print(f"{results.pop('threads')} thread(s); median, ratio to Adam's default with quartiles")
    held = results.pop("memory", {})
    for title, table in results.items():
        print(f"\n{title}")
        for name, row in table.items():
            quartiles = f"({row['low']:.2f} to {row['high']:.2f})"
            print(f"  {name:22} {row['microseconds']:9.0f} us   {row['ratio']:5.2f} {quartiles}")
    if held:
        print("\nmemory for ResNet-18, in sizes of its parameters: state, and peak of three steps")
        for name, row in held.items():
            print(f"  {name:22} {row['held']:5.2f} {row['occupied']:5.2f}")


if __name__ == "__main__":
    main()
