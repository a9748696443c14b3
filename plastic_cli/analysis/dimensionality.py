"""Participation ratio: the effective number of dimensions of states."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def participation_ratio(states: NDArray[np.floating[Any]]) -> float:
    """Return (sum_i l_i)^2 / sum_i l_i^2 with the eigenvalues l of the covariance of states (samples, p).

    It is p if the variance is the same in all directions, 1 if there is variance in one direction only, and nan without
    variance. The sums are the trace and the squared Frobenius norm of the covariance, so that no spectrum is computed.
    """
    centered = np.asarray(states, np.float64)
    centered = centered - centered.mean(axis=0)
    # The products of samples and those of columns have the same eigenvalues: compute the smaller matrix.
    gram = centered.T @ centered if centered.shape[1] <= centered.shape[0] else centered @ centered.T
    total = float(np.trace(gram))
    return total**2 / float(np.sum(gram**2)) if total > 0 else float("nan")
