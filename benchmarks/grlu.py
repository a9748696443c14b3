"""Speed of GRLU's online learning, in steps per second and in floors per step.

A floor is the time of the two products of the first layer of 784-256-10 alone: one torch.mv(W, x) and one W.addr_(u, x)
for a float32 W of 256 x 784, on one thread. It is measured again before every timing, so that the load of the machine
affects both. Data are random numbers with the shape of MNIST; the time does not depend on them.

    OMP_NUM_THREADS=1 python benchmarks/grlu.py [--json] [--repeats 7] [--seconds 0.3]
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from plastic_grlu import rule
from plastic_grlu.epoch import Feedback, NoiseState, Settings, train_epoch

Measure = Callable[[int], None]


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    name: str
    perturbations: int
    hidden: tuple[int, ...] = (256,)
    top_k: float | None = None
    batch_size: int = 1
    credit: rule.Credit = "output"
    path: rule.Path = "direct"
    skip: bool = False
    eager: bool = False


CASES = [
    *(Case("ReLU", perturbations) for perturbations in (1, 16, 128)),
    *(Case("k .5", perturbations, top_k=0.5) for perturbations in (1, 16, 128)),
    *(Case("ReLU, preactivation", perturbations, credit="preactivation") for perturbations in (1, 16, 128)),
    Case("ReLU, batch 32", 16, batch_size=32),
    *(Case("ReLU, 256-256 with skip", perturbations, hidden=(256, 256), skip=True) for perturbations in (16, 128)),
    Case("learned feedback", 1, credit="learned"),
    Case("transposed weights", 1, credit="learned", path="transposed"),
    Case("learned, 4 layers", 1, hidden=(256,) * 4, credit="learned"),
    Case("learned, 4, layer to layer", 1, hidden=(256,) * 4, credit="learned", path="layer"),
    Case("transposed, 4 layers", 1, hidden=(256,) * 4, credit="learned", path="transposed"),
    *(Case("plain torch, ReLU", perturbations, eager=True) for perturbations in (1, 16, 128)),
    *(Case("plain torch, k .5", perturbations, top_k=0.5, eager=True) for perturbations in (1, 16, 128)),
]


def floor(repetitions: int = 300) -> float:
    """Seconds of one torch.mv and one addr_ for a float32 256 x 784 matrix."""
    weight, x, u = torch.randn(256, 784), torch.randn(784), 1e-6 * torch.randn(256)
    start = time.perf_counter()
    for _ in range(repetitions):
        torch.mv(weight, x)
        weight.addr_(u, x)
    return (time.perf_counter() - start) / repetitions


def learner(case: Case) -> Measure:
    """A function that takes a given number of learning steps of `case`."""
    generator = torch.Generator().manual_seed(0)
    sizes = (784, *case.hidden, 10)
    weights, biases = rule.initial_parameters(sizes, generator)
    x = torch.rand(8192, 784, generator=generator) * (torch.rand(8192, 784, generator=generator) < 0.2)
    y = torch.randint(10, (8192,), generator=generator)
    sigma, learning_rate = 0.1, 0.01
    state = NoiseState(key=1)
    feedback = None
    if case.credit == "learned":
        feedback = Feedback(rule.initial_feedback(sizes, case.path, generator), case.path)
    settings = Settings(
        case.perturbations,
        sigma,
        learning_rate,
        case.batch_size,
        case.credit,
        case.top_k,
        case.skip,
        feedback=feedback,
    )

    def fast(steps: int) -> None:
        train_epoch(weights, biases, x, y, torch.arange(steps * case.batch_size) % len(x), settings, state)

    def eager(steps: int) -> None:
        for step in range(steps):
            sample = slice(step % len(x), step % len(x) + 1)
            noises = [sigma * torch.randn(case.perturbations, width, generator=generator) for width in sizes[1:]]
            masks = None
            if case.top_k is not None:
                z = rule.layer_norm(x[sample]) @ weights[0].T + biases[0]
                masks = [rule.gumbel_top_k_mask(z.expand(case.perturbations, -1).contiguous(), case.top_k, generator)]
            updates = rule.grlu_update(weights, biases, x[sample], y[sample], noises, masks)
            for parameter, update in zip((*weights, *biases), (*updates[0], *updates[1]), strict=True):
                parameter.add_(update, alpha=learning_rate)

    return eager if case.eager else fast


def measure(case: Case, repeats: int, seconds: float) -> dict[str, float | int | str]:
    """Medians and quartiles over `repeats` timings of about `seconds` each, with the floor measured before each."""
    learn = learner(case)
    learn(64)  # compiles, or warms up
    start = time.perf_counter()
    learn(128)
    steps = max(64, round(128 * seconds / (time.perf_counter() - start)) // 64 * 64)
    floors, times = [], []
    for _ in range(repeats):
        floors.append(floor())
        start = time.perf_counter()
        learn(steps)
        times.append((time.perf_counter() - start) / steps)
    ratios = [took / one for took, one in zip(times, floors, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return {
        "case": case.name,
        "perturbations": case.perturbations,
        "steps_per_second": 1 / statistics.median(times),
        "microseconds_per_step": 1e6 * statistics.median(times),
        "floors_per_step": middle,
        "floors_low_quartile": low,
        "floors_high_quartile": high,
        "floor_microseconds": 1e6 * statistics.median(floors),
    }


def main() -> None:
    """Measure every case and print a table, or JSON."""
    parser = argparse.ArgumentParser(description="Speed of GRLU's online learning.")
    parser.add_argument("--json", action="store_true", help="print a list of objects instead of a table")
    parser.add_argument("--repeats", type=int, default=7, help="timings per case (default 7)")
    parser.add_argument("--seconds", type=float, default=0.3, help="length of a timing (default 0.3)")
    options = parser.parse_args()
    if options.repeats < 2:
        parser.error("--repeats is at least 2: quartiles need two timings")
    torch.set_num_threads(1)
    results = []
    if not options.json:
        numbers = f"{'perturbations':>14}{'steps/s':>10}{'us/step':>10}{'floors/step':>13}"
        print(f"{'case':<28}{numbers}  {'quartiles':<14}floor us")
    for case in CASES:
        result = measure(case, options.repeats, options.seconds)
        results.append(result)
        if not options.json:
            quartiles = f"{result['floors_low_quartile']:.2f}-{result['floors_high_quartile']:.2f}"
            print(
                f"{result['case']:<28}{result['perturbations']:>14}{result['steps_per_second']:>10.0f}"
                f"{result['microseconds_per_step']:>10.1f}{result['floors_per_step']:>13.2f}  {quartiles:<14}"
                f"{result['floor_microseconds']:.1f}"
            )
            sys.stdout.flush()
    if options.json:
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
