"""Polynomials that stand in for library functions in the kernels, where a call would prevent vector instructions."""

from collections.abc import Callable
from typing import Any

from numpy.polynomial import Chebyshev, Polynomial
from numpy.typing import NDArray

Function = Callable[[NDArray[Any]], NDArray[Any]]


def power_series(function: Function, degree: int, low: float, high: float) -> tuple[float, ...]:
    """Coefficients, constant first, of the polynomial that meets `function` at the Chebyshev points of [low, high]."""
    series = Chebyshev.interpolate(function, degree, domain=[low, high]).convert(kind=Polynomial)
    return tuple(float(coefficient) for coefficient in series.coef)
