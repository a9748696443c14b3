"""Random numbers of the kernels: a pure function of a key, the number of the step, and the position within the step.

Random words come from Philox-4x32 with 10 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC
2011). Philox is a counter-based generator: a checkpoint stores (key, step) and continues bit for bit. Normal numbers
are drawn by Box-Muller from 32 + 32 bits (largest magnitude 6.76), Gumbel numbers as -log(-log u) (from -3.1 to 17.3).

Why not a library's generator: with many perturbations most of the time goes into the noise. The loops here have no
branches and no calls, so they compile to vector instructions. At 16 perturbations on MNIST, noise from NumPy's Philox,
drawn per block, makes training take 2.8 times as long; torch's `normal_` 1.5 times; our Philox with the C library's
logarithm, sine and cosine 2.1 times (benchmarks/README.md).

Counter layout: (index, kind, step low, step high). The four words of index i go to positions i, i + n/4, i + n/2 and
i + 3n/4 of a buffer of n numbers.
"""

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial
from numpy.typing import NDArray

from plastic_cli.numerics.kernels import part
from plastic_grlu.kernels.compiler import kernel

Floats = NDArray[np.floating[Any]]

NORMAL: Final = 0
GUMBEL: Final = 1


def _power_series(
    function: Callable[[NDArray[Any]], NDArray[Any]], degree: int, low: float, high: float
) -> tuple[float, ...]:
    """Coefficients, constant first, of the polynomial that equals `function` at the Chebyshev points of [low, high]."""
    series = Chebyshev.interpolate(function, degree, domain=[low, high]).convert(kind=Polynomial)
    return tuple(float(coefficient) for coefficient in series.coef)


# log(1 + f) = f * LOG(f) for 1 + f in [sqrt(1/2), sqrt(2)]; at f = 0 the quotient is 1.
_LOG = _power_series(
    lambda f: np.where(np.abs(f) < 1e-9, 1.0, np.log1p(f) / np.where(f == 0, 1, f)),
    9,
    math.sqrt(0.5) - 1,
    math.sqrt(2) - 1,
)
# sin(a) = a * SIN(a^2) and cos(a) = COS(a^2) for an angle a in [-pi/4, pi/4].
_SIN = _power_series(lambda s: np.sinc(np.sqrt(np.maximum(s, 0)) / np.pi), 3, 0, (math.pi / 4) ** 2)
_COS = _power_series(lambda s: np.cos(np.sqrt(np.maximum(s, 0))), 4, 0, (math.pi / 4) ** 2)

_L0, _L1, _L2, _L3, _L4, _L5, _L6, _L7, _L8, _L9 = map(np.float32, _LOG)
_S0, _S1, _S2, _S3 = map(np.float32, _SIN)
_C0, _C1, _C2, _C3, _C4 = map(np.float32, _COS)

_LOG_2: Final = np.float32(math.log(2))
_ONE: Final = np.float32(1)
_SMALLEST: Final = np.float32(2.0**-25)
_TO_UNIT: Final = np.float32(2.0**-32)
_HALF_UNIT: Final = np.float32(2.0**-33)
_TO_ANGLE: Final = np.float32(2.0**-32 * math.pi / 2)
_SQRT_HALF_BITS: Final = np.int32(np.float32(math.sqrt(0.5)).view(np.int32))

_MULTIPLIER_0: Final = np.uint64(0xD2511F53)
_MULTIPLIER_1: Final = np.uint64(0xCD9E8D57)
_WEYL_0: Final = np.uint32(0x9E3779B9)
_WEYL_1: Final = np.uint32(0xBB67AE85)
_LOW: Final = np.uint64(0xFFFFFFFF)
_32: Final = np.uint64(32)


@part
def philox(
    c0: np.uint32, c1: np.uint32, c2: np.uint32, c3: np.uint32, k0: np.uint32, k1: np.uint32
) -> tuple[np.uint32, np.uint32, np.uint32, np.uint32]:
    """Philox-4x32-10: four random words for the counter (c0, c1, c2, c3) under the key (k0, k1)."""
    for _ in range(10):
        product_0 = np.uint64(c0) * _MULTIPLIER_0
        product_1 = np.uint64(c2) * _MULTIPLIER_1
        c0 = np.uint32(np.uint32(product_1 >> _32) ^ c1 ^ k0)
        c1 = np.uint32(product_1 & _LOW)
        c2 = np.uint32(np.uint32(product_0 >> _32) ^ c3 ^ k1)
        c3 = np.uint32(product_0 & _LOW)
        k0 = np.uint32(k0 + _WEYL_0)
        k1 = np.uint32(k1 + _WEYL_1)
    return c0, c1, c2, c3


@part
def _log(value: np.float32) -> np.float32:
    """The natural logarithm of a positive normal float32."""
    bits = np.float32(value).view(np.int32)
    exponent = np.int32(np.int32(bits - _SQRT_HALF_BITS) >> np.int32(23))
    f = np.int32(bits - np.int32(exponent << np.int32(23))).view(np.float32) - _ONE
    series = _L8 + f * _L9
    series = _L7 + f * series
    series = _L6 + f * series
    series = _L5 + f * series
    series = _L4 + f * series
    series = _L3 + f * series
    series = _L2 + f * series
    series = _L1 + f * series
    series = _L0 + f * series
    return np.float32(np.float32(exponent) * _LOG_2 + f * series)


@part
def _exponential(word: np.uint32) -> np.float32:
    """-log((word + 1/2) / 2^32)."""
    return -_log(np.float32(word) * _TO_UNIT + _HALF_UNIT)


@part
def _gumbel(word: np.uint32) -> np.float32:
    exponential = _exponential(word)
    # (word + 1/2) / 2^32 rounds to 1 for the last 128 words.
    return -_log(exponential if exponential > _SMALLEST else _SMALLEST)


@part
def _box_muller(
    radius_word: np.uint32, angle_word: np.uint32, twice_variance: np.float32
) -> tuple[np.float32, np.float32]:
    """Two independent normal numbers: 30 bits turn within a quarter circle, one bit mirrors it, one negates."""
    radius = np.sqrt(twice_variance * _exponential(radius_word))
    a = np.float32(np.int32(angle_word << np.uint32(2))) * _TO_ANGLE
    square = a * a
    sine = a * (_S0 + square * (_S1 + square * (_S2 + square * _S3)))
    cosine = _C0 + square * (_C1 + square * (_C2 + square * (_C3 + square * _C4)))
    signed = -radius if angle_word & np.uint32(0x80000000) else radius
    mirrored = (angle_word & np.uint32(0x40000000)) != 0
    return signed * (sine if mirrored else cosine), signed * (cosine if mirrored else sine)


@part
def fill_normal(buffer: Floats, sigma: float, key: np.uint64, step: np.uint64) -> None:
    """Fill `buffer` (n,), n a multiple of 4, with N(0, sigma^2) of this key and step."""
    quarter = len(buffer) // 4
    first, second = buffer[:quarter], buffer[quarter : 2 * quarter]
    third, fourth = buffer[2 * quarter : 3 * quarter], buffer[3 * quarter : 4 * quarter]
    key_low, key_high = np.uint32(key & _LOW), np.uint32(key >> _32)
    step_low, step_high = np.uint32(step & _LOW), np.uint32(step >> _32)
    twice_variance = np.float32(2 * sigma * sigma)
    for index in range(quarter):
        a, b, c, d = philox(np.uint32(index), np.uint32(NORMAL), step_low, step_high, key_low, key_high)
        first[index], second[index] = _box_muller(a, b, twice_variance)
        third[index], fourth[index] = _box_muller(c, d, twice_variance)


@part
def fill_gumbel(buffer: Floats, key: np.uint64, step: np.uint64) -> None:
    """Fill `buffer` (n,), n a multiple of 4, with standard Gumbel numbers of this key and step."""
    quarter = len(buffer) // 4
    first, second = buffer[:quarter], buffer[quarter : 2 * quarter]
    third, fourth = buffer[2 * quarter : 3 * quarter], buffer[3 * quarter : 4 * quarter]
    key_low, key_high = np.uint32(key & _LOW), np.uint32(key >> _32)
    step_low, step_high = np.uint32(step & _LOW), np.uint32(step >> _32)
    for index in range(quarter):
        a, b, c, d = philox(np.uint32(index), np.uint32(GUMBEL), step_low, step_high, key_low, key_high)
        first[index] = _gumbel(a)
        second[index] = _gumbel(b)
        third[index] = _gumbel(c)
        fourth[index] = _gumbel(d)


@kernel
def fill(normals: Floats, gumbels: Floats, sigma: float, key: np.uint64, first_step: np.uint64) -> None:
    """The random numbers that the kernels use: row s of `normals` and of `gumbels` belongs to step first_step + s.

    Both are (steps, n), each n a multiple of 4 and possibly 0. `normals` gets N(0, sigma^2).
    """
    for step in range(len(normals)):
        fill_normal(normals[step], sigma, key, first_step + np.uint64(step))
        fill_gumbel(gumbels[step], key, first_step + np.uint64(step))


@kernel
def random_words(counters: NDArray[np.uint32], key: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Philox words (n, 4) of the counters (n, 4) under the key (2,), to test against the published test vectors."""
    words = np.empty_like(counters)
    for row in range(len(counters)):
        c = counters[row]
        words[row, 0], words[row, 1], words[row, 2], words[row, 3] = philox(c[0], c[1], c[2], c[3], key[0], key[1])
    return words


def padded(count: int) -> int:
    """The buffer length that holds `count` numbers: the next multiple of 4."""
    return -(-count // 4) * 4
