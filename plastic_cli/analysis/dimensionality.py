"""The effective number of dimensions in which states vary."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def participation_ratio(states: NDArray[np.floating[Any]]) -> float:
    """Return (sum_i l_i)^2 / sum_i l_i^2 with the eigenvalues l of the covariance of states (samples, p).

    It is p where the variance is the same in all directions and 1 where there is only one; NaN without any variance.
    As the sums are the trace of the covariance and the square of its Frobenius norm, no spectrum has to be computed.
    """
    centred = np.asarray(states, np.float64)
    centred = centred - centred.mean(axis=0)
    # The products of samples have the same eigenvalues as those of columns; the smaller matrix is enough.
    gram = centred.T @ centred if centred.shape[1] <= centred.shape[0] else centred @ centred.T
    total = float(np.trace(gram))
    return total**2 / float(np.sum(gram**2)) if total > 0 else float("nan")
