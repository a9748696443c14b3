"""Learning from many samples in one call, with compiled kernels or in plain PyTorch.

The same calls of `train_epoch` give the same parameters bit for bit on the same machine and library versions. Noise is
a function of (state.key, state.counter), and the kernels run on one thread. They run in chunks whose length depends on
the clock, but a chunk is a whole number of blocks, which are computed separately. Splitting one call into two uses the
same noise. If it splits a block of max(1, 64 // batch_size) steps, sums are taken in another order, and results agree
up to rounding.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, get_args

import numpy as np
import scipy.linalg.cython_blas  # noqa: F401  np.dot in the kernels calls it; the limit of threads needs it loaded
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor

from plastic_grlu import rule
from plastic_grlu.kernels.blocks import Samples
from plastic_grlu.kernels.feedback import FeedbackDraws, FeedbackOptions, learn_with_feedback
from plastic_grlu.kernels.learn import Draws, Form, Options, learn
from plastic_grlu.kernels.primitives import BLOCK

_CHUNK_SECONDS = 0.1


@dataclass
class NoiseState:
    """The position in the sequence of noise: with the parameters, all that changes during learning.

    key: 64 bits that identify the random numbers of this run. counter: steps taken so far.
    """

    key: int
    counter: int = 0

    @classmethod
    def from_seed(cls, seed: np.random.SeedSequence) -> "NoiseState":
        """Return the state before the first step, with a key drawn from `seed`."""
        return cls(int(seed.generate_state(1, np.uint64)[0]))


@dataclass(frozen=True)
class Feedback:
    """The feedback of credit "learned", which changes in place.

    matrices: B_l of each hidden layer, none with the paths "transposed" and "none". path: see rule.py. rate: at which
    they learn.
    """

    matrices: list[Tensor]
    path: rule.Path = "direct"
    rate: float = 1.0

    @property
    def learns(self) -> bool:
        """Whether perturbations are needed."""
        return self.rate > 0 and bool(self.matrices)


@dataclass(frozen=True)
class Decorrelation:
    """R_l of each layer, which change in place, and the rate rho at which they learn; equations (24) and (25)."""

    matrices: list[Tensor]
    rate: float


@dataclass(frozen=True)
class Settings:
    """The options of an epoch.

    perturbations: noise samples per image. sigma: standard deviation of the noise. learning_rate multiplies the update.
    top_k: fraction of hidden units that a Gumbel top-k mask keeps, None for ReLU. credit, skip: as in rule.py. groups:
    of units, each with a reward of its own; several groups need ReLU. feedback: for credit "learned", which needs one
    group. Its update is multiplied by learning_rate * sigma^2, as is that of the other credits in expectation.
    form, decorrelation: of the noise and the inputs, see rule.py; both need one group and another credit than
    "learned". Noise in active units alone and decorrelation need ReLU. The turn of the form is ignored.
    """

    perturbations: int
    sigma: float
    learning_rate: float
    batch_size: int = 1
    credit: rule.Credit = "output"
    top_k: float | None = None
    skip: bool = False
    groups: int = 1
    feedback: Feedback | None = None
    form: rule.NoiseForm = rule.OWN_NOISE
    decorrelation: Decorrelation | None = None

    @property
    def steps_per_block(self) -> int:
        """The steps after which the decorrelation learns, and whose first products the kernels compute together."""
        return max(1, BLOCK // self.batch_size)


class _Network(NamedTuple):
    """The tensors that learn."""

    weights: list[Tensor]
    biases: list[Tensor]
    feedback: list[Tensor]
    decorrelation: list[Tensor]

    @property
    def tensors(self) -> list[Tensor]:
        return [*self.weights, *self.biases, *self.feedback, *self.decorrelation]

    @property
    def compiled(self) -> bool:
        """Whether the kernels apply."""
        return all(part.device.type == "cpu" and part.dtype == torch.float32 for part in self.tensors)


def train_epoch(
    weights: list[Tensor],
    biases: list[Tensor],
    x: Tensor,
    y: Tensor,
    order: Tensor,
    settings: Settings,
    state: NoiseState,
    progress: Callable[[int], None] | None = None,
) -> float:
    """Learn from x[order], y[order] batch by batch, changing `weights`, `biases` and the feedback in place.

    x (samples, d_0), not normalized, and integer y (samples,). order (n,): indices into them; the last batch may be
    smaller. Float32 parameters on the CPU use the compiled
    kernels. All others, for example on CUDA, use rule.py in a loop, with noise from a torch generator seeded by
    `state`.

    Advances state.counter by the number of steps. Calls progress(samples done) about ten times per second. With the
    compiled kernels, Ctrl-C takes effect at such a call and leaves the parameters and `state` of that moment.

    If one call is split within a block, the decorrelation learns from other blocks, and results differ.

    Returns the mean reward over samples (log-probability of the label, averaged over each pair), or nan without
    samples. Raises ValueError if arguments do not fit each other; nothing has changed then. Raises FloatingPointError,
    which names the step, if the reward or a parameter is not finite; with the compiled kernels, the parameters are then
    those of the last call of `progress`.
    """
    _check(weights, x, y, order, settings)
    _check_feedback(weights, settings)
    _check_form(weights, settings)
    network = _Network(
        weights,
        biases,
        settings.feedback.matrices if settings.feedback is not None else [],
        settings.decorrelation.matrices if settings.decorrelation is not None else [],
    )
    run = _train_compiled if network.compiled else _train_eager
    return run(network, x, y, order, settings, state, progress or (lambda _: None))


def _check(weights: list[Tensor], x: Tensor, y: Tensor, order: Tensor, settings: Settings) -> None:
    """Raise ValueError for arguments with which the kernels, which check no bounds, would read beyond their arrays."""
    if settings.credit not in get_args(rule.Credit):
        raise ValueError(f"credit must be 'output', 'preactivation' or 'learned', not {settings.credit!r}")
    if settings.perturbations < 1 or settings.batch_size < 1:
        raise ValueError("perturbations and batch_size must be at least 1")
    units = sum(len(weight) for weight in weights)
    if not 1 <= settings.groups <= units:
        raise ValueError(f"groups must be between 1 and the number of units, {units}, not {settings.groups}")
    if settings.groups > 1 and settings.top_k is not None:
        raise ValueError("several groups need ReLU, not top_k")
    features, classes = weights[0].shape[1], weights[-1].shape[0]
    if x.ndim != 2 or x.shape[1] != features:
        raise ValueError(f"x has {x.shape[-1]} features per sample, but the first layer has {features} inputs")
    for name, indices, count in (("label", y, classes), ("index", order, min(len(x), len(y)))):
        wrong = indices[(indices < 0) | (indices >= count)]
        if len(wrong):
            raise ValueError(f"{name} {wrong[0].item()} is not between 0 and {count - 1}")


def _check_feedback(weights: list[Tensor], settings: Settings) -> None:
    """Raise ValueError if the feedback does not fit the network or the other settings."""
    if (settings.credit == "learned") != (settings.feedback is not None):
        raise ValueError("credit 'learned' needs feedback, and feedback needs credit 'learned'")
    if settings.feedback is None:
        return
    if settings.groups > 1:
        raise ValueError("credit 'learned' needs one group")
    expected = rule.shapes_of_feedback(_sizes(weights), settings.feedback.path)
    found = [tuple(part.shape) for part in settings.feedback.matrices]
    if found != expected:
        raise ValueError(f"feedback has shapes {found}, but path {settings.feedback.path!r} needs {expected}")


def _check_form(weights: list[Tensor], settings: Settings) -> None:
    """Raise ValueError if the form of the noise or the decorrelation do not fit the network or the other settings."""
    form, sizes = settings.form, _sizes(weights)
    own_noise = not form.sources and form._replace(sources=(), turn=0) == rule.OWN_NOISE
    if own_noise and settings.decorrelation is None:
        return
    if settings.groups > 1 or settings.credit == "learned":
        raise ValueError("the form of the noise and decorrelation need one group and noise that teaches weights")
    if settings.top_k is not None and (form.active_only or settings.decorrelation is not None):
        raise ValueError("noise in active units alone and decorrelation need ReLU, not top_k")
    if not form.readout > 0:
        raise ValueError(f"the noise of the readout is multiplied by {form.readout}, which must be positive")
    expected = [(width, sizes[-1]) for width in sizes[1:-1]]
    found = [tuple(part.shape) for part in form.sources]
    if found and found != expected:
        raise ValueError(f"sources have shapes {found}, but the network needs {expected}")
    squares = [(width, width) for width in sizes[:-1]]
    if settings.decorrelation is not None:
        shapes = [tuple(part.shape) for part in settings.decorrelation.matrices]
        if shapes != squares:
            raise ValueError(f"decorrelation has shapes {shapes}, but the network needs {squares}")


def _train_compiled(
    network: _Network,
    x: Tensor,
    y: Tensor,
    order: Tensor,
    settings: Settings,
    state: NoiseState,
    progress: Callable[[int], None],
) -> float:
    samples = len(order)
    inputs = np.ascontiguousarray(x.detach().cpu().to(torch.float32).numpy())
    labels = np.ascontiguousarray(y.detach().cpu().to(torch.int64).numpy())
    indices = np.ascontiguousarray(order.detach().cpu().to(torch.int64).numpy())
    parameters, feedback = _flat(network), _flat_matrices(network.feedback)
    decorrelation, sources = _flat_matrices(network.decorrelation), _flat_matrices(settings.form.sources)
    sizes = _sizes(network.weights)
    rewards = np.empty(-(-samples // settings.batch_size), np.float64)
    steps_per_block = settings.steps_per_block
    form = Form(
        settings.form.active_only,
        settings.form.one_layer,
        settings.form.only_readout,
        float(settings.form.readout),
        sources,
        decorrelation,
        0.0 if settings.decorrelation is None else float(settings.decorrelation.rate),
    )
    blocks, done = 1, 0
    # One thread: with another number of threads, BLAS may sum a product in another order.
    with threadpool_limits(1, user_api="blas"):
        while done < samples:
            start = time.perf_counter()
            full = min((samples - done) // settings.batch_size, blocks * steps_per_block)
            steps, batch = (full, settings.batch_size) if full else (1, samples - done)
            first = done // settings.batch_size
            chunk = indices[done : done + steps * batch]
            of_chunk = rewards[first : first + steps]
            of_samples = Samples(inputs, labels, chunk)
            if settings.feedback is not None:
                _learn_with_feedback(parameters, feedback, sizes, of_samples, batch, settings, state, of_chunk)
            else:
                _learn(parameters, sizes, of_samples, batch, settings, form, state, of_chunk)
            for part in (parameters, feedback, decorrelation):
                _raise_if_not_finite(part, of_chunk, state.counter)
            _write_back(parameters, feedback, decorrelation, network)
            done += steps * batch
            state.counter += steps
            progress(done)
            # The first chunks compile or warm up, so chunks grow slowly and shrink at once.
            blocks = max(1, min(2 * blocks, int(blocks * _CHUNK_SECONDS / (time.perf_counter() - start))))
    return _mean_reward(rewards, samples, settings.batch_size)


def _learn(
    parameters: NDArray[np.float32],
    sizes: list[int],
    samples: Samples,
    batch: int,
    settings: Settings,
    form: Form,
    state: NoiseState,
    rewards: NDArray[np.float64],
) -> None:
    """Run the kernel over `samples` in batches of `batch`."""
    none = np.empty((0, 0), np.float32)
    learn(
        parameters,
        np.array(sizes, np.int64),
        samples,
        Options(
            batch,
            settings.perturbations,
            float(settings.sigma),
            float(settings.learning_rate),
            settings.credit == "preactivation",
            settings.skip,
            _kept(sizes, settings),
            settings.groups,
        ),
        Draws(np.uint64(state.key), np.uint64(state.counter), none, none),
        rewards,
        form,
    )


def _learn_with_feedback(
    parameters: NDArray[np.float32],
    feedback: NDArray[np.float32],
    sizes: list[int],
    samples: Samples,
    batch: int,
    settings: Settings,
    state: NoiseState,
    rewards: NDArray[np.float64],
) -> None:
    """Run the kernel of learned feedback over `samples` in batches of `batch`."""
    assert settings.feedback is not None
    sigma, none = float(settings.sigma), np.empty((0, 0), np.float32)
    learn_with_feedback(
        parameters,
        feedback,
        np.array(sizes, np.int64),
        samples,
        FeedbackOptions(
            batch,
            settings.perturbations if settings.feedback.learns else 0,
            sigma,
            float(settings.learning_rate) * sigma**2,
            float(settings.feedback.rate),
            settings.feedback.path == "direct",
            settings.feedback.path == "transposed",
            settings.skip,
            _kept(sizes, settings),
            settings.feedback.path == "none",
        ),
        FeedbackDraws(np.uint64(state.key), np.uint64(state.counter), none, none),
        rewards,
    )


def _kept(sizes: list[int], settings: Settings) -> NDArray[np.int64]:
    """Return the units that a top-k mask keeps in each hidden layer, 0 for ReLU."""
    kept = [0 if settings.top_k is None else rule.kept_units(width, settings.top_k) for width in sizes[1:-1]]
    return np.array(kept, np.int64)


def _train_eager(
    network: _Network,
    x: Tensor,
    y: Tensor,
    order: Tensor,
    settings: Settings,
    state: NoiseState,
    progress: Callable[[int], None],
) -> float:
    device, dtype = network.weights[0].device, network.weights[0].dtype
    x, y, order = x.to(device, dtype), y.to(device), order.to(device)
    generator = torch.Generator(device)
    generator.manual_seed(int(np.random.SeedSequence([state.key, state.counter]).generate_state(1, np.uint64)[0] >> 1))
    rewards: list[Tensor] = []
    checked, last_check = 0, time.perf_counter()
    batches = order.split(settings.batch_size) if len(order) else ()
    step_of_rule = _step if settings.feedback is None else _learned_step
    decorrelating, first_step = _Decorrelating(network, settings), state.counter
    for step, batch in enumerate(batches, 1):
        turn = (first_step + step - 1) * settings.perturbations
        of_step = replace(settings, form=settings.form._replace(turn=turn))
        if settings.decorrelation is not None:
            rewards.append(decorrelating.step(x[batch], y[batch], of_step, generator))
            ends = step == len(batches) or len(batches[step]) < settings.batch_size
            if ends or step % settings.steps_per_block == 0:
                decorrelating.learn()
        else:
            rewards.append(step_of_rule(network, x[batch], y[batch], of_step, generator))
        # Synchronize with the device once per report only.
        if step == len(batches) or time.perf_counter() - last_check > _CHUNK_SECONDS:
            recent = torch.stack(rewards[checked:]).cpu().double().numpy()
            _raise_if_not_finite(
                torch.cat([part.flatten() for part in network.tensors]).cpu().numpy(), recent, state.counter
            )
            state.counter += len(recent)
            progress(min(step * settings.batch_size, len(order)))
            checked, last_check = step, time.perf_counter()
    means = torch.stack(rewards).cpu().double().numpy() if rewards else np.empty(0)
    return _mean_reward(means, len(order), settings.batch_size)


def _step(network: _Network, x: Tensor, y: Tensor, settings: Settings, generator: torch.Generator) -> Tensor:
    """Learn from one batch by rule.py; return the reward."""
    weights, biases = network.weights, network.biases
    credit, skip = settings.credit, settings.skip
    noises = _normal(biases, len(x), settings, generator)
    if settings.groups > 1:
        updates = rule.update_of_groups(weights, biases, x, y, noises, settings.groups, credit=credit, skip=skip)
    else:
        shaped = rule.noise_of_form(weights, biases, x, noises, settings.form, credit=credit, skip=skip)
        masks = None
        if settings.top_k is not None:
            gumbels = [-torch.empty_like(noise).exponential_(generator=generator).log() for noise in noises[:-1]]
            masks = rule.pair_masks(weights, biases, x, shaped, gumbels, settings.top_k, credit=credit, skip=skip)
        of_pairs = rule.grlu_update(weights, biases, x, y, shaped, masks, credit=credit, skip=skip)
        updates = rule.scaled_by_form(of_pairs, settings.form)
    weight_updates, bias_updates, reward = updates
    _add((*weights, *biases), (*weight_updates, *bias_updates), settings)
    return reward


def _add(parameters: Sequence[Tensor], updates: Sequence[Tensor], settings: Settings) -> None:
    for parameter, update in zip(parameters, updates, strict=True):
        parameter.add_(update, alpha=settings.learning_rate)


class _Decorrelating:
    """Steps with decorrelated inputs, which teach R_l at the end of each block."""

    def __init__(self, network: _Network, settings: Settings) -> None:
        self.network, self.settings = network, settings
        self.seen: list[list[Tensor]] = [[] for _ in network.weights]

    def step(self, x: Tensor, y: Tensor, settings: Settings, generator: torch.Generator) -> Tensor:
        """Learn from one batch by rule.py; return the reward."""
        biases, matrices = self.network.biases, self.network.decorrelation
        credit, skip = settings.credit, settings.skip
        weights = rule.decorrelated_weights(self.network.weights, matrices)
        noises = _normal(biases, len(x), settings, generator)
        shaped = rule.noise_of_form(weights, biases, x, noises, settings.form, credit=credit, skip=skip)
        inputs = rule.mean_inputs(weights, biases, x, shaped, credit=credit, skip=skip)
        for seen, normed, matrix in zip(self.seen, inputs, matrices, strict=True):
            seen.append(normed @ matrix.T)
        of_pairs = rule.grlu_update(weights, biases, x, y, shaped, None, credit=credit, skip=skip)
        updates, bias_updates, reward = rule.scaled_by_form(of_pairs, settings.form)
        _add((*self.network.weights, *biases), (*rule.decorrelated_updates(updates, matrices), *bias_updates), settings)
        return reward

    def learn(self) -> None:
        """Let R_l learn from the block."""
        assert self.settings.decorrelation is not None
        for matrix, seen in zip(self.network.decorrelation, self.seen, strict=True):
            matrix.add_(rule.decorrelation_update(matrix, torch.cat(seen)), alpha=self.settings.decorrelation.rate)
            seen.clear()


def _learned_step(network: _Network, x: Tensor, y: Tensor, settings: Settings, generator: torch.Generator) -> Tensor:
    """Learn from one batch by rule.py with learned feedback; return the reward."""
    assert settings.feedback is not None
    learning = network.biases[:-1] if settings.feedback.learns else []
    noises = _normal(learning, len(x), settings, generator)
    masks = None
    if settings.top_k is not None:
        silent = [x.new_zeros(len(x), len(bias)) for bias in network.biases]
        gumbels = [-torch.empty_like(part).exponential_(generator=generator).log() for part in silent[:-1]]
        masks = rule.pair_masks(network.weights, network.biases, x, silent, gumbels, settings.top_k, skip=settings.skip)
    weight_updates, bias_updates, feedback_updates, reward = rule.learned_update(
        network.weights,
        network.biases,
        network.feedback,
        x,
        y,
        rule.Draws(noises, masks),
        path=settings.feedback.path,
        skip=settings.skip,
    )
    for parameter, update in zip((*network.weights, *network.biases), (*weight_updates, *bias_updates), strict=True):
        parameter.add_(update, alpha=settings.learning_rate * settings.sigma**2)
    for part, update in zip(network.feedback if noises else [], feedback_updates, strict=True):
        part.add_(update, alpha=settings.feedback.rate)
    return reward


def _normal(biases: list[Tensor], batch: int, settings: Settings, generator: torch.Generator) -> list[Tensor]:
    """Draw the noise of the layers with these biases."""
    rows = batch * settings.perturbations
    return [
        torch.randn(rows, len(bias), generator=generator, device=bias.device, dtype=bias.dtype) * settings.sigma
        for bias in biases
    ]


def _sizes(weights: list[Tensor]) -> list[int]:
    return [weights[0].shape[1], *(weight.shape[0] for weight in weights)]


def _flat(network: _Network) -> NDArray[np.float32]:
    parts = [part.detach().flatten() for pair in zip(network.weights, network.biases, strict=True) for part in pair]
    flat: NDArray[np.float32] = torch.cat(parts).numpy()
    return flat


def _flat_matrices(matrices: Sequence[Tensor]) -> NDArray[np.float32]:
    flat: NDArray[np.float32] = torch.cat([torch.empty(0), *(part.detach().flatten() for part in matrices)]).numpy()
    return flat


def _write_back(
    parameters: NDArray[np.float32],
    feedback: NDArray[np.float32],
    decorrelation: NDArray[np.float32],
    network: _Network,
) -> None:
    learned = [target for pair in zip(network.weights, network.biases, strict=True) for target in pair]
    pairs = ((parameters, learned), (feedback, network.feedback), (decorrelation, network.decorrelation))
    for flat, targets in pairs:
        parts = torch.from_numpy(flat).split([target.numel() for target in targets])
        for target, part in zip(targets, parts, strict=True):
            target.detach().copy_(part.view_as(target))


def _raise_if_not_finite(parameters: NDArray[Any], rewards: NDArray[np.float64], first_step: int) -> None:
    broken = np.flatnonzero(~np.isfinite(rewards))
    if len(broken):
        raise FloatingPointError(f"the reward is no longer finite at step {first_step + broken[0]}")
    if not np.isfinite(parameters).all():
        raise FloatingPointError(f"a parameter is no longer finite by step {first_step + len(rewards) - 1}")


def _mean_reward(rewards: NDArray[np.float64], samples: int, batch_size: int) -> float:
    """Return the mean over samples of the steps' mean rewards; the last step may have fewer samples."""
    if not samples:
        return float("nan")
    counts = np.full(len(rewards), batch_size)
    counts[-1] = samples - batch_size * (len(rewards) - 1)
    return float(rewards @ counts / samples)
