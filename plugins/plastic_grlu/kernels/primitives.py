"""Parts of a step: layer norm, the nonlinearity with noise, the k largest, the log-probability of the label."""

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from plastic_cli.numerics.kernels import part

Real = np.floating[Any]
Floats = NDArray[Real]

# Samples whose first-layer pre-activations are computed by one matrix product.
BLOCK: Final = 64


@part
def standardize(sources: Floats, source: int, targets: Floats, target: int) -> None:
    """Layer norm of row `source` of `sources` (., n) into row `target` of `targets` (., n).

    The arguments are indices of rows, because a view of a row would cost time for numba's reference counting.
    """
    real = targets.dtype.type
    width = targets.shape[1]
    total = real(0)
    for i in range(width):
        total += sources[source, i]
    mean = total / real(width)
    squares = real(0)
    for i in range(width):
        squares += (sources[source, i] - mean) * (sources[source, i] - mean)
    scale = real(1) / np.sqrt(squares / real(width) + real(1e-5))
    for i in range(width):
        targets[target, i] = (sources[source, i] - mean) * scale


# Loops over at most four arrays: with more, the compiler cannot prove that they do not overlap and uses no vector
# instructions.
@part
def activate(
    outputs: Floats,
    output: int,
    z: Floats,
    z_row: int,
    noise: Floats,
    noise_row: int,
    before: Real,
    after: Real,
    lowest: Real,
) -> None:
    """Equation (3) for row `output` of `outputs` (., width), from one row of `z` and one of `noise`.

    `before` and `after` multiply the noise before and after the nonlinearity: 0, or +-1 for a member of the pair.
    `lowest` is 0 for ReLU, and -inf for the last layer.
    """
    for i in range(outputs.shape[1]):
        n = noise[noise_row, i]
        activation = z[z_row, i] + before * n
        outputs[output, i] = (lowest if activation < lowest else activation) + after * n


@part
def gate(
    outputs: Floats,
    output: int,
    z: Floats,
    z_row: int,
    noise: Floats,
    noise_row: int,
    before: Real,
    after: Real,
    mask: Floats,
) -> None:
    """As `activate`, with a top-k mask (width,) as the nonlinearity."""
    for i in range(outputs.shape[1]):
        n = noise[noise_row, i]
        outputs[output, i] = (z[z_row, i] + before * n) * mask[i] + after * n


@part
def choose_largest(keys: NDArray[np.float32], width: int, kept: int, mask: Floats) -> None:
    """Set the first `width` entries of `mask`: 1 for the `kept` largest of the first `width` keys, 0 for the others.

    There are exactly `kept` ones; of equal keys, the first are kept. The function searches for a threshold between the
    kept and the other keys. It alternates interpolation and bisection, and needs about six counts for 256 keys.
    """
    # The bits of positive floats have the order of the floats. A maximum of integers compiles to vector instructions;
    # one of floats, which may be NaN, does not.
    largest = np.int32(0)
    for i in range(width):
        magnitude = np.int32(np.float32(keys[i]).view(np.int32) & np.int32(0x7FFFFFFF))
        largest = magnitude if magnitude > largest else largest
    high = np.int32(largest).view(np.float32)
    low = -high
    # Invariant: at most `kept` keys are above `high`, and at least `kept` keys are `low` or more. Counts are float32,
    # because numba widens integers.
    wanted, above, below = np.float32(kept), np.float32(0), np.float32(width)
    half = np.float32(0.5)
    for attempt in range(600):  # enough halvings to reach neighboring floats from any two numbers
        fraction = (below - wanted) / (below - above) if attempt % 2 == 0 else half
        threshold = np.float32(low * (np.float32(1) - fraction) + high * fraction)
        if not low < threshold < high:
            threshold = np.float32(low * half + high * half)
            if not low < threshold < high:
                break
        count = np.float32(0)
        for i in range(width):
            count += np.float32(1) if keys[i] > threshold else np.float32(0)
        if count <= wanted:
            high, above = threshold, count
            if count == wanted:
                break
        else:
            low, below = threshold, count
    for i in range(width):
        mask[i] = keys[i] > high
    if above < wanted:
        _fill_up(keys, width, low, high, kept, mask)


@part
def _fill_up(keys: NDArray[np.float32], width: int, low: np.float32, high: np.float32, kept: int, mask: Floats) -> None:
    """Complete `mask` to `kept` ones where the threshold search ended between equal or neighboring keys."""
    missing = kept
    for i in range(width):
        missing -= keys[i] > high
    for i in range(width):
        if missing > 0 and high >= keys[i] > low:
            mask[i] = 1
            missing -= 1
    for i in range(width):
        if missing > 0 and keys[i] == low:
            mask[i] = 1
            missing -= 1


@part
def log_probabilities(logits: Floats, labels: NDArray[np.int64], result: NDArray[np.float64]) -> None:
    """Log softmax(logits)[label] of each row of `logits` (rows, classes) into `result` (rows,).

    Row i has the label labels[i % len(labels)]. In float64, because the rule learns from small differences of these
    numbers.
    """
    rows, classes = logits.shape
    for row in range(rows):
        largest = logits[row, 0]
        for j in range(classes):
            largest = max(largest, logits[row, j])
        total = 0.0
        for j in range(classes):
            total += math.exp(np.float64(logits[row, j]) - np.float64(largest))
        result[row] = np.float64(logits[row, labels[row % len(labels)]]) - np.float64(largest) - math.log(total)
