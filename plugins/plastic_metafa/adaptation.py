"""Adaptation of networks by a plasticity rule, one sample at a time, and the meta-gradient through it.

The published terms on the CPU use the compiled kernels. Other terms, and GPUs, use whole tensors and automatic
differentiation with checkpointing: activity is recomputed in short segments on the way back. Both give the same numbers
up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from plastic_cli.data.episodes import Episode
from plastic_metafa import kernels, rule
from plastic_metafa.theta_file import PUBLISHED_TERMS, Feedback, TermKey

KERNEL_FEEDBACK = {
    "fixed": kernels.FIXED,
    "symmetric": kernels.SYMMETRIC,
    "direct": kernels.DIRECT,
    "sign": kernels.SIGN,
}
SEGMENT = 16
"""Samples per checkpointed segment: about the square root of the length of a published stream."""
MAX_LOG_GROWTH = math.log(100)
"""Logarithm of how far rounding errors of the weights may grow on the way back through a segment."""

T = TypeVar("T")


@dataclass(frozen=True)
class Plasticity:
    """A plasticity rule: its terms (keys of `rule.TERMS`) and its feedback."""

    terms: tuple[TermKey, ...]
    feedback: Feedback = "fixed"


class Network(NamedTuple):
    """W (..., out, in) and B for each layer of weights: B as W, or (..., classes, in) for direct feedback."""

    W: list[Tensor]
    B: list[Tensor]


def draw_network(
    sizes: Sequence[int],
    feedback: Feedback,
    generator: torch.Generator,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Network:
    """Draw weights and, independently, feedback: Xavier uniform, within +-sqrt(6 / (in + out)).

    sizes: units of layers 0 (the input) to L. W is drawn first: networks of one seed have the same W for every kind of
    feedback.
    """

    def xavier(out: int, into: int) -> Tensor:
        drawn = torch.rand(out, into, generator=generator, dtype=dtype)
        return ((2 * drawn - 1) * math.sqrt(6 / (into + out))).to(device)

    pairs = list(zip(sizes[1:], sizes, strict=False))
    W = [xavier(out, into) for out, into in pairs]
    B = [xavier(out, into) for out, into in pairs]
    if feedback == "direct":
        B = [xavier(sizes[-1], units) for units in sizes[:-1]]
    return Network(W, B)


def feedback_errors(
    W: Sequence[Tensor], B: Sequence[Tensor], feedback: Feedback, y: Sequence[Tensor], target: Tensor
) -> list[Tensor]:
    """Return e_0 to e_L of `rule.errors` for one kind of feedback."""
    if feedback == "direct":
        return rule.direct_errors(B, y, target)
    if feedback == "symmetric":
        return rule.errors(W, y, target)
    return rule.errors(rule.sign_concordant(B, W) if feedback == "sign" else B, y, target)


def adapt_step(
    W: Sequence[Tensor], B: Sequence[Tensor], x: Tensor, target: Tensor, theta: Tensor, plasticity: Plasticity
) -> list[Tensor]:
    """Return the weights after one sample x (..., inputs) with its one-hot target (..., classes)."""
    y = rule.forward(W, x)
    e = feedback_errors(W, B, plasticity.feedback, y, target)
    layers = zip(W, y, y[1:], e, e[1:], strict=False)
    return [
        weights + rule.plasticity_update(weights, y_pre, y_post, e_pre, e_post, theta, plasticity.terms)
        for weights, y_pre, y_post, e_pre, e_post in layers
    ]


def adapt(network: Network, x: Tensor, labels: Tensor, theta: Tensor, plasticity: Plasticity) -> list[Tensor]:
    """Return the weights after a stream x (..., samples, inputs), labels (..., samples); gradients flow to theta.

    Leading dimensions are the same in W, B and x: one network for each.
    """

    def segment(W: list[Tensor], samples: Tensor, targets: Tensor, theta: Tensor) -> list[Tensor]:
        for number in range(samples.shape[-2]):
            W = adapt_step(W, network.B, samples[..., number, :], targets[..., number, :], theta, plasticity)
        return W

    W = list(network.W)
    targets = functional.one_hot(labels, W[-1].shape[-2]).to(x.dtype)
    for samples, wanted in zip(x.split(SEGMENT, -2), targets.split(SEGMENT, -2), strict=True):
        if torch.is_grad_enabled() and theta.requires_grad:
            W = checkpoint(segment, W, samples, wanted, theta, use_reentrant=False)
        else:
            W = segment(W, samples, wanted, theta)
    return W


class Adapted(NamedTuple):
    """An adapted network: its weights, and its loss and accuracy (...,) on the queries.

    gradient: of the mean loss with respect to theta, (terms,); None if not requested.
    """

    W: list[Tensor]
    loss: Tensor
    accuracy: Tensor
    gradient: Tensor | None


def adapt_to(
    network: Network, episode: Episode, theta: Tensor, plasticity: Plasticity, *, gradient: bool = False
) -> Adapted:
    """Adapt one network to an episode and test it on the queries. theta: (terms,).

    gradient: also return the gradient of the cross-entropy with respect to theta; the L1 penalty of the meta-loss (6)
    is not part of it.
    """
    if has_kernels(network, plasticity):
        return _adapt_compiled(network, episode, theta, plasticity, gradient)
    leaf = theta.detach().to(episode.x.dtype).requires_grad_(gradient)
    with torch.set_grad_enabled(gradient):
        W = adapt(network, episode.x, episode.y, leaf, plasticity)
        z = rule.logits(W, episode.query_x)
        loss = functional.cross_entropy(z, episode.query_y)
    found = torch.autograd.grad(loss, leaf)[0].to(theta.dtype) if gradient else None
    return Adapted([w.detach() for w in W], loss.detach(), _accuracy(z, episode), found)


def in_threads(function: Callable[[int], T], count: int) -> list[T]:
    """Return function(0) to function(count - 1), computed in as many threads as torch uses."""
    threads = min(count, torch.get_num_threads())
    if threads < 2:
        return [function(number) for number in range(count)]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, range(count)))


def has_kernels(network: Network, plasticity: Plasticity) -> bool:
    """Return whether the compiled kernels apply: published terms, one network, on the CPU."""
    published = all(isinstance(term, int) and term < PUBLISHED_TERMS for term in plasticity.terms)
    return published and network.W[0].is_cpu and network.W[0].ndim == 2


def _adapt_compiled(
    network: Network, episode: Episode, theta: Tensor, plasticity: Plasticity, gradient: bool
) -> Adapted:
    if ((episode.y < 0) | (episode.y >= len(network.W[-1]))).any():
        raise ValueError(f"labels must be from 0 to {len(network.W[-1]) - 1}, the outputs of the network")
    dtype = network.W[0].numpy().dtype
    sizes = np.array([network.W[0].shape[1], *(len(W) for W in network.W)], np.int64)
    W, B = _flat(network.W), _flat(network.B)
    strengths, active = np.zeros(PUBLISHED_TERMS, dtype), np.zeros(PUBLISHED_TERMS, np.bool_)
    terms = [term for term in plasticity.terms if isinstance(term, int)]  # all of them: see `has_kernels`
    strengths[terms] = theta.detach().numpy()
    active[terms] = True
    kind = KERNEL_FEEDBACK[plasticity.feedback]
    samples = len(episode.y)
    activity = [np.zeros((samples, int(sizes.sum())), dtype) for _ in range(5)]
    x, labels = episode.x.contiguous().numpy(), episode.y.numpy()
    length = _segment_to_undo(float(strengths[3]), samples) if gradient else samples
    segments = [slice(begin, begin + length) for begin in range(0, samples, length)]
    ends = []
    for part in segments:
        kernels.adapt(sizes, W, B, x[part], labels[part], strengths, active, kind, *(entry[part] for entry in activity))
        # The meta-gradient overwrites them.
        ends.append(W.copy() if gradient else W)
    learned = _layers(W, sizes)
    for layer in learned:
        layer.requires_grad_(gradient)
    with torch.set_grad_enabled(gradient):
        z = rule.logits(learned, episode.query_x)
        loss = functional.cross_entropy(z, episode.query_y)
    found = None
    if gradient:
        G = _flat(torch.autograd.grad(loss, learned))
        of_theta = np.zeros(PUBLISHED_TERMS)
        for part, end in zip(reversed(segments), reversed(ends), strict=True):
            of_part = np.zeros(PUBLISHED_TERMS)
            kernels.meta_gradient(  # type: ignore[call-arg]
                sizes, end, B, strengths, active, kind, *(entry[part] for entry in activity), G, of_part
            )
            of_theta += of_part
        found = torch.from_numpy(of_theta[terms]).to(theta.dtype)
    return Adapted([layer.detach() for layer in learned], loss.detach(), _accuracy(z, episode), found)


def _segment_to_undo(decay: float, samples: int) -> int:
    """Return how many samples can be undone from stored weights before their rounding errors grow too far.

    Undoing a sample divides the weights, and their errors, by 1 - decay.
    """
    growth = -math.log(abs(1 - decay)) if decay != 1 else math.inf
    return max(1, int(MAX_LOG_GROWTH / growth) if growth * samples > MAX_LOG_GROWTH else samples)


def _accuracy(z: Tensor, episode: Episode) -> Tensor:
    return (z.detach().argmax(-1) == episode.query_y).to(z.dtype).mean(-1)


def _flat(tensors: Sequence[Tensor]) -> NDArray[np.floating]:
    return np.concatenate([tensor.detach().numpy().ravel() for tensor in tensors])


def _layers(flat: NDArray[np.floating], sizes: NDArray[np.int64]) -> list[Tensor]:
    """Return the weights of each layer (out, in), in the memory of `flat`."""
    ends = np.cumsum(sizes[1:] * sizes[:-1])
    parts = np.split(flat, ends[:-1])
    shapes = zip(parts, sizes[1:], sizes[:-1], strict=True)
    return [torch.from_numpy(part.reshape(out, into)) for part, out, into in shapes]
