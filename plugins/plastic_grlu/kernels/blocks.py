"""The products of the first layer, for a block of samples at once.

The inputs of the first layer are data and known in advance. A block of samples therefore takes one product with W_0,
corrected for the updates within the block: z_t = W_0 x_t + sum over s < t of u_s (x_s . x_t + 1), where u_s is what
sample s adds to the biases, and its outer product with x_s what it adds to W_0. The 1 is the bias. W_0 changes once per
block. This only changes the order of sums.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from plastic_cli.numerics.kernels import called, section
from plastic_grlu.kernels.primitives import Floats, standardize

Integers = NDArray[np.int64]


class Samples(NamedTuple):
    """The data of a call: step s learns from the samples order[s * batch : (s + 1) * batch].

    x (samples, d_0), y (samples,), order (steps * batch,).
    """

    x: Floats
    y: Integers
    order: Integers


class Block(NamedTuple):
    """Scratch of one block: the normed inputs, their products with W_0 and with each other, and the updates u_s."""

    inputs: Floats
    z: Floats
    gram: Floats
    update: Floats


@called
def matrix(buffer: Floats, start: int, rows: int, columns: int) -> Floats:
    """The (rows, columns) numbers of the flat `buffer` that begin at `start`."""
    return buffer[start : start + rows * columns].reshape(rows, columns)


@section
def make_block(parameters: Floats, inputs: int, hidden: int, samples: int) -> Block:
    """Return the scratch of blocks of `samples` samples."""
    real = parameters.dtype
    return Block(
        np.empty((samples, inputs), real),
        np.empty((samples, hidden), real),
        np.empty(samples**2, real),
        np.empty((samples, hidden), real),
    )


@section
def begin_block(parameters: Floats, samples: Samples, first: int, count: int, block: Block) -> Floats:
    """Norm the inputs of `count` samples from `first` on and multiply them; return x_s . x_t (count, count)."""
    hidden, inputs = block.z.shape[1], block.inputs.shape[1]
    for i in range(count):
        standardize(samples.x, samples.order[first + i], block.inputs, i)
    xhat = block.inputs[:count]
    gram = matrix(block.gram, 0, count, count)
    np.dot(xhat, matrix(parameters, 0, hidden, inputs).T, block.z[:count])
    np.dot(xhat, xhat.T, gram)
    return gram


@section
def begin_decorrelated_block(
    parameters: Floats,
    samples: Samples,
    first: int,
    count: int,
    block: Block,
    plain: Floats,
    decorrelation: Floats,
) -> Floats:
    """As `begin_block`, with the inputs R x of the matrix `decorrelation` R. plain (count, d_0) is scratch for x."""
    hidden, inputs = block.z.shape[1], block.inputs.shape[1]
    for i in range(count):
        standardize(samples.x, samples.order[first + i], plain, i)
    xhat = block.inputs[:count]
    gram = matrix(block.gram, 0, count, count)
    np.dot(plain, decorrelation.T, xhat)
    np.dot(xhat, matrix(parameters, 0, hidden, inputs).T, block.z[:count])
    np.dot(xhat, xhat.T, gram)
    return gram


@section
def correct_first_layer(first_bias: Floats, block: Block, gram: Floats, first_sample: int, batch: int) -> None:
    """Add to z of `batch` samples of the block the bias and what the block's earlier samples have changed."""
    hidden = len(first_bias)
    for sample in range(first_sample, first_sample + batch):
        for i in range(hidden):
            block.z[sample, i] += first_bias[i]
        for s in range(first_sample):
            overlap = gram[sample, s] + gram.dtype.type(1)
            for i in range(hidden):
                block.z[sample, i] += overlap * block.update[s, i]


@section
def end_block(parameters: Floats, block: Block, count: int, buffer: Floats) -> None:
    """Apply the updates of the block's `count` samples to the first layer."""
    hidden, inputs = block.z.shape[1], block.inputs.shape[1]
    weights = matrix(parameters, 0, hidden, inputs)
    bias = parameters[hidden * inputs : hidden * (inputs + 1)]
    change = matrix(buffer, 0, hidden, inputs)
    np.dot(block.update[:count].T, block.inputs[:count], change)
    for j in range(hidden):
        for i in range(inputs):
            weights[j, i] += change[j, i]
    for s in range(count):
        for i in range(hidden):
            bias[i] += block.update[s, i]
