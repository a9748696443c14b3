"""Seconds per step of the credit rules on ResNet-18, as ratios to backpropagation and to a forward pass.

torchvision's ResNet-18, batches of 64 images of 32 x 32. Peer of the feedback rules and of local plasticity: the
forward and backward pass of torch, for the same batch. Floor of node perturbation: the forward pass alone, without
gradients, in training mode. A step is `Credit.backward`, without the optimizer, which is the same for all. Each takes
one step in its turn, in one process, and ratios are taken within a round of turns, so that other load affects all
alike.

    OMP_NUM_THREADS=1 python benchmarks/credit.py [--json] [--rounds 9] [--threads 1]
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from plastic_cli.credit.gradient import Gradient
from plastic_cli.credit.protocol import Credit
from plastic_eglp import AlwaysOnController, LocalPlasticity, NeverController
from plastic_grlu import NodePerturbation
from plastic_metafa import RandomFeedback

BATCH, SIZE, CLASSES = 64, 32, 10
FEEDBACKS = (
    *("symmetric", "fixed", "direct", "sign", "uniform-sign", "batchwise-sign", "kolen-pollack", "weight-mirror"),
)
PERTURBATIONS = (1, 4, 16)
MOST_OF_BACKPROP = 1.3
"""The most that a step of a feedback rule may cost, in steps of backpropagation."""
EXTRA_PASSES = 1.5
"""The most that node perturbation may cost beyond two forward passes for each perturbation, in forward passes."""


def networks() -> tuple[nn.Module, Tensor, Tensor]:
    """Return the network, a batch of images, and their labels."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=CLASSES)
    return model, torch.randn(BATCH, 3, SIZE, SIZE), torch.randint(CLASSES, (BATCH,))


def steps() -> dict[str, Callable[[], object]]:
    """Return what is timed, by name: one step of each rule, of backpropagation, and a forward pass."""
    model, x, y = networks()

    def forward() -> None:
        with torch.no_grad():
            model(x)

    def backprop() -> None:
        functional.cross_entropy(model(x), y).backward()

    rules: dict[str, Credit] = {
        "gradient": Gradient(model),
        **{f"{kind} feedback": RandomFeedback(model, feedback=kind) for kind in FEEDBACKS},
        "softhebb, always an event": LocalPlasticity(model, local_rule="softhebb", events=AlwaysOnController()),
        "softhebb, no event": LocalPlasticity(model, local_rule="softhebb", events=NeverController()),
        **{f"node perturbation, {count}": NodePerturbation(model, perturbations=count) for count in PERTURBATIONS},
    }

    def step(credit: Credit) -> Callable[[], object]:
        return lambda: credit.backward(x, lambda output: functional.cross_entropy(output, y, reduction="none"))

    found = {"forward pass": forward, "backprop": backprop, **{name: step(rule) for name, rule in rules.items()}}

    def cleared(function: Callable[[], object]) -> Callable[[], object]:
        def run() -> None:
            model.zero_grad(set_to_none=True)
            function()

        return run

    return {name: cleared(function) for name, function in found.items()}


def seconds(function: Callable[[], object]) -> float:
    """Return how long one call takes."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def main() -> int:
    """Print the table; return 1 if a rule costs more than it may."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    functions = steps()
    for function in functions.values():
        function()
    rounds = [{name: seconds(function) for name, function in functions.items()} for _ in range(options.rounds)]
    rows = []
    missed = []
    for name in functions:
        of_backprop = [turn[name] / turn["backprop"] for turn in rounds]
        of_forward = [turn[name] / turn["forward pass"] for turn in rounds]
        bound: float | None = None
        measured = statistics.median(of_backprop)
        if name.endswith(" feedback"):
            bound = MOST_OF_BACKPROP
        elif name.startswith("node perturbation"):
            bound, measured = 2 * int(name.rpartition(" ")[2]) + EXTRA_PASSES, statistics.median(of_forward)
        if bound is not None and measured > bound:
            missed.append(f"{name}: {measured:.2f}, at most {bound:g}")
        rows.append(
            {
                "step": name,
                "seconds": statistics.median(turn[name] for turn in rounds),
                "times backprop": statistics.median(of_backprop),
                "times backprop, quartiles": _quartiles(of_backprop),
                "forward passes": statistics.median(of_forward),
                "forward passes, quartiles": _quartiles(of_forward),
                "bound": bound,
            }
        )
    if options.json:
        json.dump(rows, sys.stdout, indent=2)
        print()
    else:
        print(f"{'step':36} {'s':>7} {'times backprop':>24} {'forward passes':>26} {'bound':>7}")
        for row in rows:
            low, high = row["times backprop, quartiles"]
            first, third = row["forward passes, quartiles"]
            print(
                f"{row['step']:36} {row['seconds']:7.3f} {row['times backprop']:8.2f} ({low:.2f} to {high:.2f})"
                f" {row['forward passes']:10.2f} ({first:.2f} to {third:.2f}) {row['bound'] or '':>7}"
            )
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if missed else 0


def _quartiles(values: list[float]) -> tuple[float, float]:
    low, _, high = statistics.quantiles(values, n=4)
    return low, high


if __name__ == "__main__":
    raise SystemExit(main())
