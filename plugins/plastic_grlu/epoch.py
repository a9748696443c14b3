"""The fast path of GRLU: learning from a stream of samples with compiled kernels, the same numbers as rule.py.

A given call sequence of `train_epoch` yields the same parameters bit for bit on the same machine and library versions:
noise is a function of (state.key, state.counter), the kernels run on one thread, and chunk boundaries, which follow the
clock, fall between blocks that are computed separately anyway. Splitting one call into two (other than at a multiple of
the block of max(1, 64 // batch_size) steps) uses the same noise but sums in another order, so the results agree to
rounding.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg.cython_blas  # noqa: F401  np.dot in the kernels calls it: loaded now, a thread limit finds it
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor

from plastic_grlu import rule
from plastic_grlu.kernels.learn import Draws, Options, Samples, learn
from plastic_grlu.kernels.noise import fill, padded
from plastic_grlu.kernels.primitives import BLOCK

_CHUNK_SECONDS = 0.1


@dataclass
class NoiseState:
    """Everything that changes while learning besides the parameters: plain integers, fit for a checkpoint.

    key: 64 bits that tell this run's random numbers from any other's. counter: steps taken so far.
    """

    key: int
    counter: int = 0

    @classmethod
    def from_seed(cls, seed: np.random.SeedSequence) -> "NoiseState":
        """A state before the first step, its key drawn from `seed`."""
        return cls(int(seed.generate_state(1, np.uint64)[0]))


def noise_of_steps(
    state: NoiseState,
    steps: int,
    sizes: Sequence[int],
    *,
    rows: int,
    sigma: float,
    top_k: float | None,
) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
    """The noise that `train_epoch` would use on CPU in its next `steps` steps; does not advance `state`.

    sizes: d_0, ..., d_L. rows: batch_size * perturbations. Returns (noises, gumbels), a list per step of a (rows,
    width) tensor per layer, as `rule.grlu_update` and `rule.pair_masks` take them (noises times sigma; gumbels for
    hidden layers, empty without top_k).
    """
    widths = list(sizes[1:])
    gumbel_widths = [] if top_k is None else widths[:-1]
    normal = np.empty((steps, padded(rows * sum(widths))), np.float32)
    gumbel = np.empty((steps, padded(rows * sum(gumbel_widths))), np.float32)
    fill(normal, gumbel, float(sigma), np.uint64(state.key), np.uint64(state.counter))

    def split(flat: Tensor, of: Sequence[int]) -> list[Tensor]:
        parts = flat[: rows * sum(of)].split([rows * width for width in of])
        return [part.view(rows, width) for part, width in zip(parts, of, strict=True)]

    return (
        [split(flat, widths) for flat in torch.from_numpy(normal)],
        [split(flat, gumbel_widths) for flat in torch.from_numpy(gumbel)],
    )


def train_epoch(
    weights: list[Tensor],
    biases: list[Tensor],
    x: Tensor,
    y: Tensor,
    order: Tensor,
    *,
    perturbations: int,
    sigma: float,
    learning_rate: float,
    batch_size: int,
    credit: str,
    top_k: float | None,
    skip: bool,
    state: NoiseState,
    progress: Callable[[int], None] | None = None,
) -> float:
    """Learn from x[order], y[order] one batch after the other, changing `weights` and `biases` in place.

    x (samples, d_0), raw, and integer y (samples,); order (n,) indices into them; the last batch may be smaller. The
    other arguments are those of rule.py: `sigma` multiplies the noise, `learning_rate` the update, `top_k` is the
    fraction of hidden units that a Gumbel top-k mask keeps (None: ReLU). Parameters that are float32 on the CPU go
    through the compiled kernels; any others, CUDA for one, through `rule.grlu_update` in a loop, with noise of torch's
    own generator seeded from `state`.

    Advances state.counter by the number of steps. Calls progress(samples done) every tenth of a second or so; Ctrl-C
    takes effect between those calls, and leaves the parameters and `state` of the last one. Returns the mean reward
    (log-probability of the label, both members of each pair) over the stream, nan for an empty one. Raises
    ValueError where arguments do not fit each other, before anything changes, and FloatingPointError when the reward or
    a parameter is no longer finite, naming the step, counted from the state's beginning; the parameters then stay as
    they were at the last call of `progress`.
    """
    options = _Options(perturbations, sigma, learning_rate, batch_size, credit, top_k, skip)
    _check(weights, x, y, order, options)
    compiled = all(p.device.type == "cpu" and p.dtype == torch.float32 for p in (*weights, *biases))
    run = _train_compiled if compiled else _train_eager
    return run(weights, biases, x, y, order, options, state, progress or (lambda _: None))


@dataclass(frozen=True)
class _Options:
    perturbations: int
    sigma: float
    learning_rate: float
    batch_size: int
    credit: str
    top_k: float | None
    skip: bool


def _check(weights: list[Tensor], x: Tensor, y: Tensor, order: Tensor, options: _Options) -> None:
    """Refuse what would make the kernels, which check no bounds, read beyond their arrays."""
    if options.credit not in ("output", "preactivation"):
        raise ValueError(f"credit is 'output' or 'preactivation', not {options.credit!r}")
    if options.perturbations < 1 or options.batch_size < 1:
        raise ValueError("perturbations and batch_size are at least 1")
    features, classes = weights[0].shape[1], weights[-1].shape[0]
    if x.ndim != 2 or x.shape[1] != features:
        raise ValueError(f"x has {x.shape[-1]} features a sample, but the first layer takes {features}")
    for name, indices, count in (("label", y, classes), ("index", order, min(len(x), len(y)))):
        wrong = indices[(indices < 0) | (indices >= count)]
        if len(wrong):
            raise ValueError(f"{name} {wrong[0].item()} is outside 0 to {count - 1}")


def _train_compiled(
    weights: list[Tensor],
    biases: list[Tensor],
    x: Tensor,
    y: Tensor,
    order: Tensor,
    options: _Options,
    state: NoiseState,
    progress: Callable[[int], None],
) -> float:
    samples = len(order)
    inputs = np.ascontiguousarray(x.detach().cpu().to(torch.float32).numpy())
    labels = np.ascontiguousarray(y.detach().cpu().to(torch.int64).numpy())
    indices = np.ascontiguousarray(order.detach().cpu().to(torch.int64).numpy())
    parameters = _flat(weights, biases)
    rewards = np.empty(-(-samples // options.batch_size), np.float64)
    steps_per_block = max(1, BLOCK // options.batch_size)
    blocks, done = 1, 0
    # One limit for the whole stream: BLAS may share out a product differently among another number of threads.
    with threadpool_limits(1, user_api="blas"):
        while done < samples:
            start = time.perf_counter()
            full = min((samples - done) // options.batch_size, blocks * steps_per_block)
            steps, batch = (full, options.batch_size) if full else (1, samples - done)
            first = done // options.batch_size
            chunk = indices[done : done + steps * batch]
            of_chunk = rewards[first : first + steps]
            _learn(parameters, _sizes(weights), inputs, labels, chunk, batch, options, state, of_chunk)
            _raise_if_not_finite(parameters, of_chunk, state.counter)
            _write_back(parameters, weights, biases)
            done += steps * batch
            state.counter += steps
            progress(done)
            # The first chunks compile or warm up: grow slowly, shrink at once.
            blocks = max(1, min(2 * blocks, int(blocks * _CHUNK_SECONDS / (time.perf_counter() - start))))
    return _mean_reward(rewards, samples, options.batch_size)


def _learn(
    parameters: NDArray[np.float32],
    sizes: list[int],
    inputs: NDArray[np.float32],
    labels: NDArray[np.int64],
    indices: NDArray[np.int64],
    batch: int,
    options: _Options,
    state: NoiseState,
    rewards: NDArray[np.float64],
) -> None:
    """Choose the kernel for these options and run it over `indices`."""
    kept = [0 if options.top_k is None else rule.kept_units(width, options.top_k) for width in sizes[1:-1]]
    none = np.empty((0, 0), np.float32)
    learn(
        parameters,
        np.array(sizes, np.int64),
        Samples(inputs, labels, indices),
        Options(
            batch,
            options.perturbations,
            float(options.sigma),
            float(options.learning_rate),
            options.credit == "preactivation",
            options.skip,
            np.array(kept, np.int64),
        ),
        Draws(np.uint64(state.key), np.uint64(state.counter), none, none),
        rewards,
    )


def _train_eager(
    weights: list[Tensor],
    biases: list[Tensor],
    x: Tensor,
    y: Tensor,
    order: Tensor,
    options: _Options,
    state: NoiseState,
    progress: Callable[[int], None],
) -> float:
    device, dtype = weights[0].device, weights[0].dtype
    x, y, order = x.to(device, dtype), y.to(device), order.to(device)
    generator = torch.Generator(device)
    generator.manual_seed(int(np.random.SeedSequence([state.key, state.counter]).generate_state(1, np.uint64)[0] >> 1))
    credit: rule.Credit = "preactivation" if options.credit == "preactivation" else "output"
    rewards: list[Tensor] = []
    checked, last_check = 0, time.perf_counter()
    batches = order.split(options.batch_size) if len(order) else ()
    for step, batch in enumerate(batches, 1):
        rows = len(batch) * options.perturbations
        noises = [
            torch.randn(rows, len(bias), generator=generator, device=device, dtype=dtype) * options.sigma
            for bias in biases
        ]
        masks = None
        if options.top_k is not None:
            gumbels = [
                -torch.empty(rows, len(bias), device=device, dtype=dtype).exponential_(generator=generator).log()
                for bias in biases[:-1]
            ]
            masks = rule.pair_masks(
                weights, biases, x[batch], noises, gumbels, options.top_k, credit=credit, skip=options.skip
            )
        weight_updates, bias_updates, reward = rule.grlu_update(
            weights, biases, x[batch], y[batch], noises, masks, credit=credit, skip=options.skip
        )
        for parameter, update in zip((*weights, *biases), (*weight_updates, *bias_updates), strict=True):
            parameter.add_(update, alpha=options.learning_rate)
        rewards.append(reward)
        # One synchronisation with the device per report.
        if step == len(batches) or time.perf_counter() - last_check > _CHUNK_SECONDS:
            recent = torch.stack(rewards[checked:]).double().cpu().numpy()
            _raise_if_not_finite(
                torch.cat([p.flatten() for p in (*weights, *biases)]).cpu().numpy(), recent, state.counter
            )
            state.counter += len(recent)
            progress(min(step * options.batch_size, len(order)))
            checked, last_check = step, time.perf_counter()
    means = torch.stack(rewards).double().cpu().numpy() if rewards else np.empty(0)
    return _mean_reward(means, len(order), options.batch_size)


def _sizes(weights: list[Tensor]) -> list[int]:
    return [weights[0].shape[1], *(weight.shape[0] for weight in weights)]


def _flat(weights: list[Tensor], biases: list[Tensor]) -> NDArray[np.float32]:
    parts = [part.detach().flatten() for pair in zip(weights, biases, strict=True) for part in pair]
    flat: NDArray[np.float32] = torch.cat(parts).numpy()
    return flat


def _write_back(parameters: NDArray[np.float32], weights: list[Tensor], biases: list[Tensor]) -> None:
    targets = [target for pair in zip(weights, biases, strict=True) for target in pair]
    parts = torch.from_numpy(parameters).split([target.numel() for target in targets])
    for target, part in zip(targets, parts, strict=True):
        target.detach().copy_(part.view_as(target))


def _raise_if_not_finite(parameters: NDArray[Any], rewards: NDArray[np.float64], first_step: int) -> None:
    broken = np.flatnonzero(~np.isfinite(rewards))
    if len(broken):
        raise FloatingPointError(f"the reward is no longer finite at step {first_step + broken[0]}")
    if not np.isfinite(parameters).all():
        raise FloatingPointError(f"a parameter is no longer finite by step {first_step + len(rewards) - 1}")


def _mean_reward(rewards: NDArray[np.float64], samples: int, batch_size: int) -> float:
    """The mean over samples of the steps' mean rewards, of which the last may stand for fewer samples."""
    if not samples:
        return float("nan")
    counts = np.full(len(rewards), batch_size)
    counts[-1] = samples - batch_size * (len(rewards) - 1)
    return float(rewards @ counts / samples)
