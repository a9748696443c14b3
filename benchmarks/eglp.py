"""Seconds per MNIST epoch of event-gated plasticity, beside a plain DataLoader and the floor of the matrix products.

784-256-128-10, batches of 128. Peer: the same learner, events always on, fed by a plain DataLoader over PIL images with
transforms for each (ToTensor, Normalize). Floor: the forward matrix products of each batch alone, on rows that lie in
memory in order. Each takes a stretch of batches in its turn, in one process, and ratios are taken within a round of
turns, so that what else the machine does falls on all alike.

    OMP_NUM_THREADS=1 PLASTIC_DATA=... python benchmarks/eglp.py [--json] [--rounds 15] [--batches 60]
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import MNIST

from plastic_cli.data.catalog import data_folder
from plastic_cli.data.datasets import Dataset, load_dataset
from plastic_eglp import (
    AlwaysOnController,
    EGLPLearner,
    EGLPNetwork,
    FixedRateController,
    NeverController,
    ThresholdController,
)
from plastic_eglp.events import Controller

BATCH, HIDDEN, EPOCH = 128, (256, 128), 60_000
CONTROLLERS: dict[str, Callable[[], Controller]] = {
    "events always": AlwaysOnController,
    "events triggered": lambda: ThresholdController(per_stimulus=True, window=8 * BATCH, warmup=0),
    "events fixed": FixedRateController,
    "events never": NeverController,
}


def learner_with(controller: Controller, **options: Any) -> EGLPLearner:
    """Return a learner as `plastic train eglp --dataset mnist` makes it."""
    network = EGLPNetwork((1, 28, 28), HIDDEN, 10, lr=0.05, generator=torch.Generator().manual_seed(0))
    return EGLPLearner(network, controller, batch_size=BATCH, **options)


def batches_in_memory(data: Dataset) -> Iterator[tuple[Tensor, Tensor]]:
    """Draw batches as the training loop does, without end."""
    while True:
        for batch in torch.randperm(len(data.train)).split(BATCH)[:-1]:
            yield data.train.x.index_select(0, batch), data.train.y.index_select(0, batch)


def batches_of_images() -> Iterator[tuple[Tensor, Tensor]]:
    """Draw batches from a DataLoader over PIL images, without end."""
    prepare = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    images = MNIST(str(data_folder(None)), train=True, transform=prepare)
    while True:
        for x, y in DataLoader(images, batch_size=BATCH, shuffle=True, drop_last=True):
            yield x.flatten(1), y


def matrix_products(data: Dataset, count: int) -> Callable[[], None]:
    """Return what multiplies `count` batches through the network's weights."""
    sizes = (784, *HIDDEN, 10)
    weights = [torch.randn(inputs, outputs) for inputs, outputs in pairwise(sizes)]
    batches = data.train.x[: count * BATCH].split(BATCH)

    def multiply() -> None:
        for x in batches:
            for weight in weights:
                x = x @ weight

    return multiply


def taught(learner: EGLPLearner, batches: Iterator[tuple[Tensor, Tensor]], count: int) -> Callable[[], None]:
    """Return what teaches `learner` `count` batches."""

    def teach() -> None:
        for _ in range(count):
            learner.train_batch(*next(batches))

    return teach


def main() -> int:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batches", type=int, default=60, help="batches in a turn")
    arguments = parser.parse_args()
    data = load_dataset("mnist")
    count = arguments.batches
    measures = {"floor: matrix products": matrix_products(data, count)}
    for name, controller in CONTROLLERS.items():
        measures[name] = taught(learner_with(controller()), batches_in_memory(data), count)
    backprop = learner_with(AlwaysOnController(), update="backprop")
    measures["backprop"] = taught(backprop, batches_in_memory(data), count)
    measures["DataLoader over images"] = taught(learner_with(AlwaysOnController()), batches_of_images(), count)
    seconds: dict[str, list[float]] = {name: [] for name in measures}
    names = list(measures)
    for number in range(arguments.rounds + 1):
        # Another one begins each time: whoever follows a large one finds the caches cold.
        for name in names[number % len(names) :] + names[: number % len(names)]:
            began = time.perf_counter()
            measures[name]()
            # The first round warms up.
            if number:
                seconds[name].append((time.perf_counter() - began) * EPOCH / (count * BATCH))
    floor, peer = seconds[names[0]], seconds["DataLoader over images"]
    table = {}
    for name, times in seconds.items():
        low, middle, high = statistics.quantiles([mine / one for mine, one in zip(times, floor, strict=True)], n=4)
        faster = statistics.median(other / mine for mine, other in zip(times, peer, strict=True))
        table[name] = {
            "seconds_per_epoch": statistics.median(times),
            "times_the_floor": middle,
            "low": low,
            "high": high,
            "faster_than_dataloader": faster,
        }
    if arguments.json:
        print(json.dumps({"threads": torch.get_num_threads(), "batches": count, "results": table}))
        return 0
    print(f"{torch.get_num_threads()} thread(s), medians of {arguments.rounds} rounds, quartiles in brackets")
    for name, row in table.items():
        spread = f"{row['times_the_floor']:5.2f} [{row['low']:.2f}, {row['high']:.2f}]"
        print(
            f"{name:26} {row['seconds_per_epoch']:7.2f} s/epoch   {spread} x floor"
            f"   {row['faster_than_dataloader']:6.1f} x faster than the DataLoader"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
