"""Linear probes: accuracy of a softmax regression on the features of a frozen network.

After Alain and Bengio 2016, "Understanding intermediate layers using linear classifier probes". Probes of an untrained
network are already accurate on easy data, so always compare with the untrained network.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from torch import Tensor

from plastic_cli.errors import PlasticError

if TYPE_CHECKING:
    from plastic_cli.data.datasets import Dataset

L2_CHOICES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
"""The L2 strengths to choose from, strongest first."""

VALIDATION_SHARE = 1 / 6
"""Fraction of the training examples on which L2 is chosen."""

Features = Callable[[Tensor], Sequence[Tensor]]
"""Inputs (n, features) to one tensor (n, units) per layer."""


@dataclass(frozen=True)
class ProbeResult:
    """The result of a probe. Accuracies are between 0 and 1; `examples` is the number of training examples.

    l2: the factor l in (mean cross-entropy) + l/2 |weights|^2 on standardized features. converged: whether all fits
    reached the gradient tolerance.
    """

    accuracy: float
    l2: float
    examples: int
    validation_accuracy: float
    converged: bool


@dataclass(frozen=True)
class LayerProbe(ProbeResult):
    """The probe of one layer, counted from 0, of a network."""

    layer: int
    network: str


def linear_probe(
    train_features: Tensor,
    train_y: Tensor,
    test_features: Tensor,
    test_y: Tensor,
    *,
    seed: int,
    examples: int | None = None,
) -> ProbeResult:
    """Train softmax regression on features (n, units) with labels (n,); return its accuracy on the test features.

    seed: draws the subset of `examples` training examples (all if None) and, from it, the sixth on which L2 is chosen
    from `L2_CHOICES` by accuracy; of two equal strengths the stronger is chosen. The probe is then fitted again on the
    whole subset. The test split has no influence on this choice. Features are standardized with the mean and standard
    deviation of the subset, and constant units are excluded. Trailing dimensions are flattened.

    Uses scikit-learn's LogisticRegression (L-BFGS, float32, one CPU thread); each fit starts from the previous one. The
    same inputs give the same result on the same machine.

    Raises ValueError for fewer than two classes, and PlasticError for features that are not finite.
    """
    chosen = _subset(len(train_y), examples, seed)
    y = train_y.detach().cpu().numpy()[chosen]
    train, test = _standardized(train_features[torch.from_numpy(chosen).to(train_features.device)], test_features)
    # `chosen` is already in random order.
    held_out = max(1, round(len(y) * VALIDATION_SHARE))
    if len(np.unique(y[held_out:])) < 2:
        raise ValueError(f"A probe needs examples of at least two classes; the {len(y)} examples have one.")

    model = LogisticRegression(warm_start=True, max_iter=500, tol=1e-4)
    best_accuracy, best_l2, converged = -1.0, L2_CHOICES[0], True
    start: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
    for l2 in L2_CHOICES:
        converged &= _fit(model, train[held_out:], y[held_out:], l2)
        validation_accuracy = float(np.mean(model.predict(train[:held_out]) == y[:held_out]))
        if validation_accuracy > best_accuracy:
            best_accuracy, best_l2, start = validation_accuracy, l2, (model.coef_.copy(), model.intercept_.copy())

    # The held-out sixth can have classes that the previous fits did not have.
    if start is not None and len(np.unique(y)) == len(model.classes_):
        model.coef_, model.intercept_ = start
    else:
        model = LogisticRegression(max_iter=500, tol=1e-4)
    converged &= _fit(model, train, y, best_l2)
    accuracy = float(np.mean(model.predict(test) == test_y.detach().cpu().numpy()))
    return ProbeResult(accuracy, best_l2, len(y), best_accuracy, converged)


def probe_layers(
    networks: Mapping[str, Features],
    dataset: Dataset,
    *,
    seed: int,
    examples: int | None = None,
    batch_size: int = 1000,
) -> list[LayerProbe]:
    """Probe every layer of several networks, such as the trained and the untrained one.

    networks: by name; each returns one tensor (n, units) per layer for inputs (n, features). Probes are trained on the
    training split, or on `examples` of it, and evaluated on the test split; all use the same examples. See
    `linear_probe`. The result is sorted by layer, then in the order of `networks`.
    """
    chosen = torch.from_numpy(_subset(len(dataset.train.y), examples, seed)).to(dataset.train.y.device)
    train_x, train_y = dataset.train.x[chosen], dataset.train.y[chosen]
    probes = []
    for name, network in networks.items():
        train = _collect(network, train_x, batch_size)
        test = _collect(network, dataset.test.x, batch_size)
        for layer, (train_features, test_features) in enumerate(zip(train, test, strict=True)):
            result = linear_probe(train_features, train_y, test_features, dataset.test.y, seed=seed)
            probes.append(LayerProbe(**vars(result), layer=layer, network=name))
    return sorted(probes, key=lambda probe: probe.layer)


def _subset(available: int, examples: int | None, seed: int) -> NDArray[np.int64]:
    order: NDArray[np.int64] = np.random.default_rng(seed).permutation(available)
    return order[:examples]


def _collect(network: Features, x: Tensor, batch_size: int) -> list[Tensor]:
    """Return the features of each layer for all of `x` on the CPU, computed in batches."""
    with torch.no_grad():
        batches = [[layer.cpu() for layer in network(inputs)] for inputs in torch.split(x, batch_size)]
    return [torch.cat(layer) for layer in zip(*batches, strict=True)]


def _standardized(train: Tensor, test: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    train, test = train.detach().cpu().flatten(1), test.detach().cpu().flatten(1)
    deviation, mean = torch.std_mean(train.double(), dim=0, correction=0)
    if not (torch.isfinite(deviation).all() and torch.isfinite(test).all()):
        raise PlasticError("The features are not finite: the network has probably diverged.")
    # A deviation at the level of float32 rounding counts as 0.
    varies = deviation > 1e-6 * mean.abs()
    mean, deviation = mean[varies].float(), deviation[varies].float()
    if not varies.any():
        return np.zeros((len(train), 1), np.float32), np.zeros((len(test), 1), np.float32)
    return ((train[:, varies] - mean) / deviation).numpy(), ((test[:, varies] - mean) / deviation).numpy()


def _fit(model: LogisticRegression, features: NDArray[np.float32], y: NDArray[np.int64], l2: float) -> bool:
    """Fit `model`, and return whether it converged."""
    # scikit-learn sums the loss over examples and divides the penalty by C.
    model.set_params(C=1 / (l2 * len(y)))
    # One thread: results then do not depend on the number of threads. On a busy machine several threads were ten times
    # slower, and on two idle cores hardly faster.
    with threadpool_limits(limits=1), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(features, y)
    return not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
