"""Linear centered kernel alignment (CKA): similarity of two representations of the same examples.

Kornblith, Norouzi, Lee and Hinton 2019, "Similarity of neural network representations revisited". The debiased form
replaces both kernels' HSIC by the unbiased estimator of Song, Smola, Gretton, Bedo and Borgwardt 2012, "Feature
selection via dependence maximization", equation 5.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def cka_matrix(rows: Sequence[Tensor], columns: Sequence[Tensor], debiased: bool = False) -> Tensor:
    """Return the linear CKA of each of `rows` with each of `columns`, float64 (len(rows), len(columns)).

    Each is a tensor (n, features) of the same n examples in the same order; trailing dimensions are flattened.

    Plain CKA is in [0, 1] and far above 0 for unrelated representations unless n is much larger than their number of
    features. Debiased CKA is about 0 for them and can be slightly negative; it needs n > 3. Both are 1 for
    representations that are equal up to rotation, reflection, isotropic scaling and shift, and nan if a representation
    is constant. Computed in float64.

    Raises ValueError for different or too few examples.
    """
    examples = {len(features) for features in (*rows, *columns)}
    if len(examples) != 1:
        raise ValueError(f"CKA compares representations of the same examples, not of {sorted(examples)} examples.")
    if debiased and examples.pop() < 4:
        raise ValueError("Debiased CKA needs at least 4 examples.")
    left = [_centered(features) for features in rows]
    right = [_centered(features) for features in columns]
    left_norms = torch.stack([_alignment(features, features, debiased) for features in left])
    right_norms = torch.stack([_alignment(features, features, debiased) for features in right])
    aligned = torch.stack([torch.stack([_alignment(x, y, debiased) for y in right]) for x in left])
    # If the alignment of a representation with itself is lost in rounding, the result is nan.
    norms = left_norms[:, None] * right_norms[None, :]
    defined = (left_norms[:, None] > 1e-13) & (right_norms[None, :] > 1e-13)
    return torch.where(defined, aligned / norms.abs().sqrt(), torch.nan)


def _centered(features: Tensor) -> Tensor:
    """Return `features` (n, p) in float64 with columns of mean 0, scaled to Frobenius norm 1; zeros if constant."""
    values = features.detach().flatten(1).double()
    centered = values - values.mean(dim=0)
    norm = torch.linalg.vector_norm(centered)
    constant = norm <= 1e-12 * torch.linalg.vector_norm(values)
    return torch.where(constant, torch.zeros_like(centered), centered / norm)


def _alignment(x: Tensor, y: Tensor, debiased: bool) -> Tensor:
    """Return HSIC of the linear kernels of centered `x` (n, p1) and `y` (n, p2), up to a factor that cancels in CKA."""
    n, p1, p2 = len(x), x.shape[1], y.shape[1]
    # tr(K L) with K = X X^T, L = Y Y^T equals ||X^T Y||_F^2: compute the smaller product.
    feature_space = p1 * p2 <= n * (p1 + p2)
    total = (x.T @ y).square().sum() if feature_space else ((x @ x.T) * (y @ y.T)).sum()
    if not debiased:
        return total
    # Song et al. use K and L with their diagonals k and l set to 0. Rows of a centered kernel sum to 0, so rows without
    # the diagonal sum to -k, and each term of the equation becomes a sum over the diagonals.
    k, l = x.square().sum(dim=1), y.square().sum(dim=1)  # noqa: E741
    return total - n / (n - 2) * (k * l).sum() + k.sum() * l.sum() / ((n - 1) * (n - 2))
