"""The kernel that learns: many steps in one call, networks of any depth, every option of the rule.

Equation numbers are those of rule.py.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from plastic_cli.numerics.kernels import part, section
from plastic_grlu.kernels.blocks import (
    Block,
    Floats,
    Integers,
    Real,
    Samples,
    begin_block,
    correct_first_layer,
    end_block,
    make_block,
    matrix,
)
from plastic_grlu.kernels.compiler import kernel
from plastic_grlu.kernels.noise import fill_gumbel, fill_normal
from plastic_grlu.kernels.primitives import BLOCK, choose_largest, log_probabilities, standardize


class Options(NamedTuple):
    """The options of the rule.

    rate is the learning rate. kept (L - 1,) holds the units that a top-k mask keeps in each hidden layer, 0 for ReLU.
    groups is the number of rewards per perturbation.
    """

    batch: int
    perturbations: int
    sigma: float
    rate: float
    preactivation: bool
    skip: bool
    kept: Integers
    groups: int = 1


class Draws(NamedTuple):
    """The noise of a call: drawn from `key` and the number of the step (see noise.py), or given.

    normal (steps, n), already times sigma, and gumbel (steps, m) are the given noise; without rows it is drawn. A row
    holds the (batch * perturbations, width) numbers of each layer, one layer after the other. With several groups
    gumbel has `groups` times as many rows of numbers.
    """

    key: np.uint64
    first_step: np.uint64
    normal: Floats
    gumbel: Floats


class _Step(NamedTuple):
    """Scratch of one step. The numbers of the layers follow each other in noise, gumbel, outputs and normed.

    outputs and normed hold two rows per row of noise: first all rows with +n, then all with -n. With one group, drawn
    is the noise itself. With several, it is the noise of all units, and noise that of each group alone.
    """

    drawn: Floats
    noise: Floats
    gumbel: Floats
    outputs: Floats
    normed: Floats
    z: Floats
    mask: Floats
    keys: NDArray[np.float32]
    change: Floats
    labels: Integers
    log_probability: NDArray[np.float64]


# Loops over at most four arrays: with more, the compiler cannot prove that they do not overlap and uses no vector
# instructions.
@part
def _activate(
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
def _gate(
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
    """As `_activate`, with a top-k mask (width,) as the nonlinearity."""
    for i in range(outputs.shape[1]):
        n = noise[noise_row, i]
        outputs[output, i] = (z[z_row, i] + before * n) * mask[i] + after * n


@section
def _make_step(parameters: Floats, sizes: Integers, options: Options) -> _Step:
    layers = len(sizes) - 1
    rows = options.batch * options.perturbations * options.groups
    noise_count, gumbel_count, widest, largest_matrix = 0, 0, 0, 0
    for layer in range(layers):
        noise_count += rows * sizes[layer + 1]
        widest = max(widest, sizes[layer + 1])
        largest_matrix = max(largest_matrix, sizes[layer] * sizes[layer + 1])
        if layer < layers - 1 and options.kept[layer] > 0:
            gumbel_count += rows * sizes[layer + 1]
    real = parameters.dtype
    noise = np.zeros(-(-noise_count // 4) * 4, real)
    return _Step(
        noise if options.groups == 1 else np.zeros(-(-noise_count // options.groups // 4) * 4, real),
        noise,
        np.zeros(-(-gumbel_count // 4) * 4, real),
        np.empty(2 * noise_count, real),
        np.empty(2 * noise_count, real),
        np.empty(2 * rows * widest, real),
        np.empty(widest, real),
        np.empty(widest, np.float32),
        np.empty(largest_matrix, real),
        np.empty(options.batch, np.int64),
        np.empty(2 * rows, np.float64),
    )


@section
def _draw(draws: Draws, number: int, sigma: float, step: _Step) -> None:
    """Put the noise of step `number` of this call into the buffers."""
    if len(draws.normal) == 0:
        fill_normal(step.drawn, sigma, draws.key, draws.first_step + np.uint64(number))
        fill_gumbel(step.gumbel, draws.key, draws.first_step + np.uint64(number))
    else:
        for i in range(draws.normal.shape[1]):
            step.drawn[i] = draws.normal[number, i]
        for i in range(draws.gumbel.shape[1]):
            step.gumbel[i] = draws.gumbel[number, i]


@section
def _separate_groups(sizes: Integers, options: Options, step: _Step) -> None:
    """Equation (11): from the noise of all units, that of each group alone."""
    batch, groups = options.batch, options.groups
    units = 0
    for layer in range(len(sizes) - 1):
        units += sizes[layer + 1]
    start, first_unit = 0, 0
    for layer in range(len(sizes) - 1):
        width = sizes[layer + 1]
        drawn = matrix(step.drawn, start, batch * options.perturbations, width)
        noise = matrix(step.noise, start * groups, batch * options.perturbations * groups, width)
        for row in range(len(noise)):
            group = row // batch % groups
            source = row // (batch * groups) * batch + row % batch
            # Unit u is in group g where g N / k <= u < (g + 1) N / k.
            first = min(max(-(-group * units // groups) - first_unit, 0), width)
            end = min(max(-(-(group + 1) * units // groups) - first_unit, 0), width)
            for i in range(width):
                noise[row, i] = 0
            for i in range(first, end):
                noise[row, i] = drawn[source, i]
        start += batch * options.perturbations * width
        first_unit += width


@section
def _z_of_layer(weights: Floats, bias: Floats, below: Floats, xhat: Floats, z: Floats) -> None:
    """Equations (1) and (2) of a layer after the first; leaves the mean of the pair's inputs in `xhat`, for (6)."""
    double_rows, fan_in = xhat.shape
    rows = double_rows // 2
    for row in range(double_rows):
        standardize(below, row, xhat, row)
    np.dot(xhat, weights.T, z)
    for row in range(double_rows):
        for i in range(len(bias)):
            z[row, i] += bias[i]
    half = xhat.dtype.type(0.5)
    for row in range(rows):
        for i in range(fan_in):
            xhat[row, i] = half * (xhat[row, i] + xhat[rows + row, i])


@section
def _forward(parameters: Floats, sizes: Integers, options: Options, step: _Step, block_z: Floats, first: int) -> Floats:
    """Equations (1) to (3) for both members of every pair; returns the logits (2 * rows, d_L).

    `block_z` holds z of the first layer; the samples of this step begin at its row `first`.
    """
    real = parameters.dtype.type
    layers = len(sizes) - 1
    rows = options.batch * options.perturbations * options.groups
    before = real(1) if options.preactivation else real(0)
    after = real(0) if options.preactivation else real(1)
    start, gumbel_start, parameter = 0, 0, 0
    below = matrix(step.outputs, 0, 0, 0)
    for layer in range(layers):
        width, fan_in = sizes[layer + 1], sizes[layer]
        noise = matrix(step.noise, start, rows, width)
        h = matrix(step.outputs, 2 * start, 2 * rows, width)
        z = block_z if layer == 0 else matrix(step.z, 0, 2 * rows, width)
        if layer > 0:
            weights = matrix(parameters, parameter, width, fan_in)
            bias = parameters[parameter + width * fan_in : parameter + width * (fan_in + 1)]
            xhat = matrix(step.normed, 2 * (start - rows * fan_in), 2 * rows, fan_in)
            _z_of_layer(weights, bias, below, xhat, z)
        last = layer == layers - 1
        choose = not last and options.kept[layer] > 0
        lowest = real(-np.inf) if last else real(0)
        to_minus = 0 if layer == 0 else rows  # the members of a pair share z of the first layer
        for row in range(rows):
            z_row = first + row % options.batch if layer == 0 else row
            if choose:
                for i in range(width):
                    mean = real(0.5) * (z[z_row, i] + z[z_row + to_minus, i])
                    step.keys[i] = np.float32(mean + step.gumbel[gumbel_start + i])
                gumbel_start += width
                choose_largest(step.keys, width, options.kept[layer], step.mask)
            for member in range(2):
                sign = real(1 - 2 * member)
                of_z, of_h = z_row + member * to_minus, member * rows + row
                if choose:
                    _gate(h, of_h, z, of_z, noise, row, sign * before, sign * after, step.mask)
                else:
                    _activate(h, of_h, z, of_z, noise, row, sign * before, sign * after, lowest)
        if options.skip and layer > 0 and not last and width == fan_in:
            for row in range(2 * rows):
                for i in range(width):
                    h[row, i] += below[row, i]
        below = h
        start += rows * width
        parameter += width * (fan_in + 1)
    return below


@section
def _reward(logits: Floats, step: _Step, rows: int) -> float:
    """Equations (4) and (5): returns the mean reward; the differences go to the first rows of `log_probability`."""
    log_probability = step.log_probability
    log_probabilities(logits, step.labels, log_probability)
    reward = 0.0
    for row in range(rows):
        reward += (log_probability[row] + log_probability[rows + row]) / 2
        log_probability[row] = (log_probability[row] - log_probability[rows + row]) / 2
    return reward / rows


@section
def _update(parameters: Floats, sizes: Integers, options: Options, step: _Step, block: Block, first: int) -> None:
    """Equation (6) or (13), times the learning rate: u_s of the first layer, and the change of all other layers.

    The samples of this step begin at row `first` of `block.update`.
    """
    real = parameters.dtype.type
    rows = options.batch * options.perturbations * options.groups
    start, parameter = 0, 0
    for layer in range(len(sizes) - 1):
        width, fan_in = sizes[layer + 1], sizes[layer]
        postsynaptic = matrix(step.noise, start, rows, width)
        if layer == 0:
            for b in range(options.batch):
                for i in range(width):
                    block.update[first + b, i] = 0
            for row in range(rows):
                sample = first + row % options.batch
                factor = real(step.log_probability[row] * options.rate / options.perturbations)
                for i in range(width):
                    block.update[sample, i] += factor * postsynaptic[row, i]
        else:
            for row in range(rows):
                factor = real(step.log_probability[row] * options.rate / options.perturbations)
                for i in range(width):
                    postsynaptic[row, i] *= factor
            presynaptic = matrix(step.normed, 2 * (start - rows * fan_in), rows, fan_in)
            change = matrix(step.change, 0, width, fan_in)
            np.dot(postsynaptic.T, presynaptic, change)
            weights = matrix(parameters, parameter, width, fan_in)
            for j in range(width):
                for i in range(fan_in):
                    weights[j, i] += change[j, i]
            bias = parameters[parameter + width * fan_in : parameter + width * (fan_in + 1)]
            for row in range(rows):
                for i in range(width):
                    bias[i] += postsynaptic[row, i]
        start += rows * width
        parameter += width * (fan_in + 1)


@kernel
def learn(
    parameters: Floats,
    sizes: Integers,
    samples: Samples,
    options: Options,
    draws: Draws,
    rewards: NDArray[np.float64],
) -> None:
    """Apply len(rewards) steps of the rule to `parameters` in place.

    parameters: W_0, b_0, W_1, b_1, ..., each flattened in C order, one after the other. sizes: d_0, ..., d_L. rewards
    (steps,) receives the mean reward of each step.
    """
    batch = options.batch
    rows = batch * options.perturbations * options.groups
    inputs, hidden = sizes[0], sizes[1]
    steps_per_block = max(1, BLOCK // batch)
    step = _make_step(parameters, sizes, options)
    block = make_block(parameters, inputs, hidden, steps_per_block * batch)
    first_bias = parameters[inputs * hidden : (inputs + 1) * hidden]
    for block_start in range(0, len(rewards), steps_per_block):
        block_steps = min(steps_per_block, len(rewards) - block_start)
        count = block_steps * batch
        gram = begin_block(parameters, samples, block_start * batch, count, block)
        for block_step in range(block_steps):
            number, first = block_start + block_step, block_step * batch
            for b in range(batch):
                step.labels[b] = samples.y[samples.order[number * batch + b]]
            correct_first_layer(first_bias, block, gram, first, batch)
            _draw(draws, number, options.sigma, step)
            if options.groups > 1:
                _separate_groups(sizes, options, step)
            logits = _forward(parameters, sizes, options, step, block.z, first)
            rewards[number] = _reward(logits, step, rows)
            _update(parameters, sizes, options, step, block, first)
        end_block(parameters, block, count, step.change)
