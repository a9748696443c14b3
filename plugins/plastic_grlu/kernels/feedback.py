"""The kernel that learns with learned feedback: many steps in one call, networks of any depth.

Equation numbers are those of rule.py.
"""

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from plastic_cli.numerics.kernels import part, section
from plastic_grlu.kernels.blocks import (
    Block,
    Integers,
    Samples,
    begin_block,
    correct_first_layer,
    end_block,
    make_block,
    matrix,
)
from plastic_grlu.kernels.compiler import kernel
from plastic_grlu.kernels.noise import fill_gumbel, fill_normal
from plastic_grlu.kernels.primitives import (
    BLOCK,
    Floats,
    activate,
    choose_largest,
    gate,
    log_probabilities,
    standardize,
)

DAMPING: Final = 1e-6  # of rule.py


class FeedbackOptions(NamedTuple):
    """The options of the rule.

    rate multiplies the updates of weights and biases, and feedback_rate those of the feedback, which does not learn
    without perturbations. direct: the feedback carries the error of the readout to each hidden layer, else it carries
    the signal of the layer above. transposed: the transposed weights carry it. kept (L - 1,) holds the units that a
    top-k mask keeps in each hidden layer, 0 for ReLU. silent: hidden layers receive nothing and do not learn.
    """

    batch: int
    perturbations: int
    sigma: float
    rate: float
    feedback_rate: float
    direct: bool
    transposed: bool
    skip: bool
    kept: Integers
    silent: bool


class FeedbackDraws(NamedTuple):
    """The noise of a call: drawn from `key` and the number of the step (see noise.py), or given.

    normal (steps, n), already times sigma, and gumbel (steps, m) are the given noise; without rows of both it is drawn.
    A row of normal holds the (batch * perturbations, width) numbers of each hidden layer, one layer after the other; a
    row of gumbel, which masks need, the (batch, width) numbers.
    """

    key: np.uint64
    first_step: np.uint64
    normal: Floats
    gumbel: Floats


class _Step(NamedTuple):
    """Scratch of one step. The numbers of the layers follow each other in all but z, above, signal and products.

    outputs and normed hold all samples without noise, then all rows with +n, then all with -n. gumbel, active, deltas
    and scales have one row or number per sample: noise of masks, f'(z), delta, and 1 / std of the input of a layer.
    change, power and predicted have a number per row of noise: d and then e, p, and c. direction holds D_l of all
    layers if there are several rows.
    """

    noise: Floats
    gumbel: Floats
    keys: NDArray[np.float32]
    mask: Floats
    outputs: Floats
    normed: Floats
    scales: Floats
    active: Floats
    deltas: Floats
    z: Floats
    above: Floats
    signal: Floats
    products: Floats
    labels: Integers
    log_probability: NDArray[np.float64]
    change: NDArray[np.float64]
    power: NDArray[np.float64]
    predicted: NDArray[np.float64]
    direction: Floats


@section
def _make_step(parameters: Floats, feedback: Floats, sizes: Integers, options: FeedbackOptions) -> _Step:
    layers, batch = len(sizes) - 1, options.batch
    noise_rows = batch * options.perturbations
    rows = batch + 2 * noise_rows
    hidden, widest, largest_matrix, masked = 0, 0, 0, False
    for layer in range(layers):
        widest = max(widest, sizes[layer + 1])
        largest_matrix = max(largest_matrix, sizes[layer] * sizes[layer + 1])
        if layer < layers - 1:
            hidden += sizes[layer + 1]
            masked = masked or options.kept[layer] > 0
    real = parameters.dtype
    return _Step(
        np.zeros(-(-noise_rows * hidden // 4) * 4, real),
        np.zeros(-(-batch * hidden // 4) * 4 if masked else 0, real),
        np.empty(widest, np.float32),
        np.empty(widest, real),
        np.empty(rows * (hidden + sizes[layers]), real),
        np.empty(rows * hidden, real),
        np.empty(batch * layers, real),
        np.empty(batch * hidden, real),
        np.empty(batch * (hidden + sizes[layers]), real),
        np.empty(rows * widest, real),
        np.empty(batch * widest, real),
        np.empty(batch * widest, real),
        np.empty(largest_matrix, real),
        np.empty(batch, np.int64),
        np.empty(max(batch, 2 * noise_rows), np.float64),
        np.empty(noise_rows, np.float64),
        np.empty(noise_rows, np.float64),
        np.empty(noise_rows, np.float64),
        np.empty(len(feedback) if noise_rows > 1 else 0, real),
    )


@section
def _draw(draws: FeedbackDraws, number: int, sigma: float, step: _Step) -> None:
    """Put the noise of step `number` of this call into the buffer."""
    if len(draws.normal) == 0 and len(draws.gumbel) == 0:
        fill_normal(step.noise, sigma, draws.key, draws.first_step + np.uint64(number))
        fill_gumbel(step.gumbel, draws.key, draws.first_step + np.uint64(number))
    else:
        for i in range(draws.normal.shape[1]):
            step.noise[i] = draws.normal[number, i]
        for i in range(draws.gumbel.shape[1]):
            step.gumbel[i] = draws.gumbel[number, i]


@part
def _scale(sources: Floats, source: int) -> float:
    """1 / std of row `source`, as in layer norm."""
    real = sources.dtype.type
    width = sources.shape[1]
    total = real(0)
    for i in range(width):
        total += sources[source, i]
    mean = total / real(width)
    squares = real(0)
    for i in range(width):
        squares += (sources[source, i] - mean) * (sources[source, i] - mean)
    return 1 / math.sqrt(squares / width + 1e-5)


@part
def _project(vectors: Floats, vector: int, normed: Floats, row: int) -> None:
    """Take from row `vector` what layer norm takes from a change of its input: its mean and its part along xhat."""
    real = vectors.dtype.type
    width = vectors.shape[1]
    total, along = real(0), real(0)
    for i in range(width):
        total += vectors[vector, i]
        along += vectors[vector, i] * normed[row, i]
    mean, along = total / real(width), along / real(width)
    for i in range(width):
        vectors[vector, i] -= mean + along * normed[row, i]


@part
def _multiply_three(xhat: Floats, weights: Floats, z: Floats) -> None:
    """The product of three rows, one sample and its pair, with the transpose of `weights`: one pass over the weights.

    BLAS copies the weights first, which takes longer than the product.
    """
    real = z.dtype.type
    for j in range(weights.shape[0]):
        first, second, third = real(0), real(0), real(0)
        for i in range(weights.shape[1]):
            first += weights[j, i] * xhat[0, i]
            second += weights[j, i] * xhat[1, i]
            third += weights[j, i] * xhat[2, i]
        z[0, j], z[1, j], z[2, j] = first, second, third


@section
def _mask(
    h: Floats,
    z: Floats,
    noise: Floats,
    active: Floats,
    first: int,
    own_z: bool,
    kept: int,
    gumbel_start: int,
    step: _Step,
) -> None:
    """Outputs under the top-k mask of each sample, which all its passes share; the masks go to `active`.

    The samples of this step begin at row `first` of `z`. own_z: whether each pass has a row of `z` of its own, which
    all layers but the first have.
    """
    batch, width = active.shape
    noise_rows = len(noise)
    real = h.dtype.type
    for b in range(batch):
        for i in range(width):
            step.keys[i] = np.float32(z[first + b, i] + step.gumbel[gumbel_start + b * width + i])
        choose_largest(step.keys, width, kept, step.mask)
        for i in range(width):
            active[b, i] = step.mask[i]
            h[b, i] = z[first + b, i] * step.mask[i]
        for row in range(b, noise_rows, batch):
            for member in range(2):
                of_h = batch + member * noise_rows + row
                of_z = of_h if own_z else first + b
                gate(h, of_h, z, of_z, noise, row, real(1 - 2 * member), real(0), step.mask)


@section
def _forward(
    parameters: Floats, sizes: Integers, options: FeedbackOptions, step: _Step, block_z: Floats, first: int
) -> Floats:
    """Equations (1) to (3) without noise and for both members of every pair; returns the logits (rows, d_L)."""
    real = parameters.dtype.type
    layers, batch = len(sizes) - 1, options.batch
    noise_rows = batch * options.perturbations
    rows = batch + 2 * noise_rows
    start, parameter = 0, 0
    below = matrix(step.outputs, 0, 0, 0)
    for layer in range(layers):
        width, fan_in = sizes[layer + 1], sizes[layer]
        h = matrix(step.outputs, rows * start, rows, width)
        z = block_z if layer == 0 else matrix(step.z, 0, rows, width)
        if layer > 0:
            weights = matrix(parameters, parameter, width, fan_in)
            bias = parameters[parameter + width * fan_in : parameter + width * (fan_in + 1)]
            xhat = matrix(step.normed, rows * (start - fan_in), rows, fan_in)
            for row in range(rows):
                standardize(below, row, xhat, row)
            for b in range(batch):
                step.scales[layer * batch + b] = _scale(below, b)
            if rows == 3:
                _multiply_three(xhat, weights, z)
            else:
                np.dot(xhat, weights.T, z)
            for row in range(rows):
                for i in range(width):
                    z[row, i] += bias[i]
        if layer == layers - 1:
            for row in range(rows):
                z_row = row if layer > 0 else first + row % batch
                for i in range(width):
                    h[row, i] = z[z_row, i]
        else:
            active = matrix(step.active, batch * start, batch, width)
            noise = matrix(step.noise, noise_rows * start, noise_rows, width)
            if options.kept[layer] > 0:
                of_b = 0 if layer > 0 else first
                _mask(h, z, noise, active, of_b, layer > 0, options.kept[layer], batch * start, step)
            else:
                for b in range(batch):
                    z_row = b if layer > 0 else first + b
                    for i in range(width):
                        active[b, i] = z[z_row, i] > 0
                        h[b, i] = max(z[z_row, i], real(0))
                for row in range(noise_rows):
                    for member in range(2):
                        of_h = batch + member * noise_rows + row
                        z_row = of_h if layer > 0 else first + row % batch
                        activate(h, of_h, z, z_row, noise, row, real(1 - 2 * member), real(0), real(0))
            if options.skip and layer > 0 and width == fan_in:
                for row in range(rows):
                    for i in range(width):
                        h[row, i] += below[row, i]
        below = h
        start += width
        parameter += width * (fan_in + 1)
    return below


@section
def _reward(logits: Floats, options: FeedbackOptions, step: _Step) -> float:
    """Equations (4), (5) and (14); returns the mean reward of the pairs, or without noise if there are none."""
    batch, classes = options.batch, logits.shape[1]
    noise_rows = batch * options.perturbations
    log_probabilities(logits[batch if noise_rows > 0 else 0 :], step.labels, step.log_probability)
    reward = 0.0
    if noise_rows == 0:
        for b in range(batch):
            reward += step.log_probability[b]
    for row in range(noise_rows):
        plus, minus = step.log_probability[row], step.log_probability[noise_rows + row]
        reward += (plus + minus) / 2
        step.change[row] = (plus - minus) / 2
    error = matrix(step.deltas, len(step.deltas) - batch * classes, batch, classes)
    for b in range(batch):
        largest = logits[b, 0]
        for j in range(classes):
            largest = max(largest, logits[b, j])
        total = 0.0
        for j in range(classes):
            total += math.exp(np.float64(logits[b, j]) - np.float64(largest))
        for j in range(classes):
            probability = math.exp(np.float64(logits[b, j]) - np.float64(largest)) / total
            error[b, j] = (1.0 if j == step.labels[b] else 0.0) - probability
    return reward / (noise_rows if noise_rows > 0 else batch)


@section
def _send_back(parameters: Floats, feedback: Floats, sizes: Integers, options: FeedbackOptions, step: _Step) -> None:
    """Equation (15): the signals of the hidden layers, from the last to the first."""
    layers, batch = len(sizes) - 1, options.batch
    classes = sizes[layers]
    rows = batch + 2 * batch * options.perturbations
    end, end_of_feedback = len(step.deltas) // batch - classes, len(feedback)
    end_of_parameters = len(parameters)
    error = matrix(step.deltas, batch * end, batch, classes)
    for back in range(layers - 1):
        layer = layers - 2 - back
        width, sent = sizes[layer + 1], classes if options.direct else sizes[layer + 2]
        start, start_of_feedback = end - width, end_of_feedback - width * sent
        signal = error if options.direct else matrix(step.deltas, batch * end, batch, sent)
        arrived = matrix(step.signal, 0, batch, width)
        above = matrix(step.above, 0, batch, width)
        if options.transposed:
            end_of_parameters -= sent * (width + 1)
            np.dot(signal, matrix(parameters, end_of_parameters, sent, width), arrived)
        else:
            np.dot(signal, matrix(feedback, start_of_feedback, width, sent).T, arrived)
        xhat = matrix(step.normed, rows * start, rows, width)
        for b in range(batch):
            _project(arrived, b, xhat, b)
            scale = step.scales[(layer + 1) * batch + b]
            for i in range(width):
                arrived[b, i] *= scale
        has_skip = options.skip and not options.direct and layer < layers - 2 and sizes[layer + 2] == width
        active = matrix(step.active, batch * start, batch, width)
        delta = matrix(step.deltas, batch * start, batch, width)
        for b in range(batch):
            for i in range(width):
                change = arrived[b, i] + above[b, i] if has_skip else arrived[b, i]
                delta[b, i] = active[b, i] * change
                above[b, i] = change
        end, end_of_feedback = start, start_of_feedback


@section
def _find_error(sizes: Integers, options: FeedbackOptions, step: _Step) -> None:
    """Equation (17), and the power by which (18) divides."""
    batch = options.batch
    noise_rows = batch * options.perturbations
    for row in range(noise_rows):
        step.power[row] = 0
    start = 0
    for layer in range(len(sizes) - 2):
        width = sizes[layer + 1]
        noise = matrix(step.noise, noise_rows * start, noise_rows, width)
        delta = matrix(step.deltas, batch * start, batch, width)
        active = matrix(step.active, batch * start, batch, width)
        for row in range(noise_rows):
            b = row % batch
            predicted, power = noise.dtype.type(0), noise.dtype.type(0)
            for i in range(width):
                predicted += noise[row, i] * delta[b, i]
                power += noise[row, i] * noise[row, i] * active[b, i]
            step.change[row] -= predicted
            step.power[row] += power
        start += width


@section
def _learn_feedback(feedback: Floats, sizes: Integers, options: FeedbackOptions, step: _Step) -> None:
    """Equations (18) and (19)."""
    layers, batch = len(sizes) - 1, options.batch
    classes = sizes[layers]
    noise_rows = batch * options.perturbations
    rows = batch + 2 * noise_rows
    real = feedback.dtype.type
    several = noise_rows > 1
    target = step.direction if several else feedback
    for i in range(len(step.direction)):
        step.direction[i] = 0
    for row in range(noise_rows):
        step.predicted[row] = 0
    error = matrix(step.deltas, len(step.deltas) - batch * classes, batch, classes)
    start, start_of_feedback = 0, 0
    for layer in range(layers - 1):
        width, sent = sizes[layer + 1], classes if options.direct else sizes[layer + 2]
        noise = matrix(step.noise, noise_rows * start, noise_rows, width)
        active = matrix(step.active, batch * start, batch, width)
        xhat = matrix(step.normed, rows * start, rows, width)
        signal = error if options.direct else matrix(step.deltas, batch * (start + width), batch, sent)
        taught = matrix(step.above, 0, batch, width)
        scaled = matrix(step.signal, 0, batch, sent)
        for b in range(batch):
            for i in range(width):
                taught[b, i] = 0
        for row in range(noise_rows):
            b = row % batch
            factor = real(step.change[row] / step.power[row]) if step.power[row] > 0 else real(0)
            for i in range(width):
                taught[b, i] += factor * noise[row, i] * active[b, i]
        for b in range(batch):
            _project(taught, b, xhat, b)
            square = real(DAMPING)
            for j in range(sent):
                square += signal[b, j] * signal[b, j]
            factor = 1 / (square * step.scales[(layer + 1) * batch + b])
            if not several:
                factor *= real(options.feedback_rate)
            for j in range(sent):
                scaled[b, j] = factor * signal[b, j]
        weights = matrix(target, start_of_feedback, width, sent)
        _add_products(weights, taught, scaled, step.products)
        if several:
            np.dot(signal, weights.T, taught)
            for b in range(batch):
                _project(taught, b, xhat, b)
            for row in range(noise_rows):
                b = row % batch
                total = real(0)
                for i in range(width):
                    total += noise[row, i] * active[b, i] * taught[b, i]
                step.predicted[row] += total * step.scales[(layer + 1) * batch + b]
        start += width
        start_of_feedback += width * sent
    if several:
        _search_line(feedback, options.feedback_rate, step)


@section
def _search_line(feedback: Floats, feedback_rate: float, step: _Step) -> None:
    """Equation (19) for several rows of noise."""
    products, squares = 0.0, 0.0
    for row in range(len(step.predicted)):
        if step.power[row] > 0:
            products += step.change[row] * step.predicted[row]
        squares += step.predicted[row] * step.predicted[row]
    rate = feedback.dtype.type(feedback_rate * max(0.0, min(1.0, products / squares)) if squares > 0 else 0.0)
    for i in range(len(feedback)):
        feedback[i] += rate * step.direction[i]


@part
def _add_products(weights: Floats, left: Floats, right: Floats, buffer: Floats) -> None:
    """Add to `weights` (m, n) the outer products of the rows of `left` (batch, m) and `right` (batch, n)."""
    if len(left) == 1:
        for j in range(weights.shape[0]):
            factor = left[0, j]
            for i in range(weights.shape[1]):
                weights[j, i] += factor * right[0, i]
    else:
        change = buffer[: weights.size].reshape(weights.shape)
        np.dot(left.T, right, change)
        for j in range(weights.shape[0]):
            for i in range(weights.shape[1]):
                weights[j, i] += change[j, i]


@section
def _update(
    parameters: Floats, sizes: Integers, options: FeedbackOptions, step: _Step, block: Block, first: int
) -> None:
    """Equation (16), times the rate: u_s of the first layer, and the change of all other layers."""
    batch = options.batch
    rows = batch + 2 * batch * options.perturbations
    real = parameters.dtype.type
    rate = real(options.rate)
    start, parameter = 0, 0
    for layer in range(len(sizes) - 1):
        width, fan_in = sizes[layer + 1], sizes[layer]
        delta = matrix(step.deltas, batch * start, batch, width)
        still = options.silent and layer < len(sizes) - 2
        for b in range(batch):
            for i in range(width):
                delta[b, i] = real(0) if still else rate * delta[b, i]
        if layer == 0:
            for b in range(batch):
                for i in range(width):
                    block.update[first + b, i] = delta[b, i]
        elif not still:
            xhat = matrix(step.normed, rows * (start - fan_in), rows, fan_in)[:batch]
            weights = matrix(parameters, parameter, width, fan_in)
            _add_products(weights, delta, xhat, step.products)
            bias = parameters[parameter + width * fan_in : parameter + width * (fan_in + 1)]
            for b in range(batch):
                for i in range(width):
                    bias[i] += delta[b, i]
        start += width
        parameter += width * (fan_in + 1)


@kernel
def learn_with_feedback(
    parameters: Floats,
    feedback: Floats,
    sizes: Integers,
    samples: Samples,
    options: FeedbackOptions,
    draws: FeedbackDraws,
    rewards: NDArray[np.float64],
) -> None:
    """Apply len(rewards) steps of the rule to `parameters` and `feedback` in place.

    parameters: W_0, b_0, W_1, b_1, ..., each flattened in C order, one after the other. feedback: B_0, B_1, ... in the
    same way. sizes: d_0, ..., d_L. rewards (steps,) receives the mean reward of each step.
    """
    batch = options.batch
    inputs, hidden = sizes[0], sizes[1]
    steps_per_block = max(1, BLOCK // batch)
    step = _make_step(parameters, feedback, sizes, options)
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
            logits = _forward(parameters, sizes, options, step, block.z, first)
            rewards[number] = _reward(logits, options, step)
            if not options.silent:
                _send_back(parameters, feedback, sizes, options, step)
            if options.perturbations > 0:
                _find_error(sizes, options, step)
                _learn_feedback(feedback, sizes, options, step)
            _update(parameters, sizes, options, step, block, first)
        end_block(parameters, block, count, step.products)
