"""The kernel that learns: many steps in one call, networks of any depth, every option of the rule.

Equation numbers are those of rule.py.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from plastic_cli.numerics.kernels import part, section
from plastic_grlu.kernels.blocks import (
    Block,
    Integers,
    Samples,
    begin_block,
    begin_decorrelated_block,
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


class Form(NamedTuple):
    """Which noise the units get, and the decorrelation of inputs: equations (20) to (25).

    active_only, one_layer, only_readout, readout: as in `rule.NoiseForm`. sources holds B_l of each hidden layer, and
    decorrelation R_l of each layer, which changes in place; each is flattened in C order, one after the other, and
    empty without it.
    """

    active_only: bool
    one_layer: bool
    only_readout: bool
    readout: float
    sources: Floats
    decorrelation: Floats
    decorrelation_rate: float


class Draws(NamedTuple):
    """The noise of a call: drawn from `key` and the number of the step (see noise.py), or given.

    normal (steps, n), already times sigma, and gumbel (steps, m) are the given noise; without rows it is drawn. A row
    holds the (batch * perturbations, width) numbers of each layer, one layer after the other; with sources, those of
    the readout alone. With several groups gumbel has `groups` times as many rows of numbers.
    """

    key: np.uint64
    first_step: np.uint64
    normal: Floats
    gumbel: Floats


class _Step(NamedTuple):
    """Scratch of one step. The numbers of the layers follow each other in noise, gumbel, outputs and normed.

    outputs and normed hold two rows per row of noise: first all rows with +n, then all with -n. With one group, drawn
    is the noise itself. With several, it is the noise of all units, and noise that of each group alone. With sources it
    is the noise of the readout. mapped, seen and products are for the decorrelation: the product of R_l with the inputs
    of a layer; x*_l of each sample of a block, one layer after the other, without the first; and scratch.
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
    mapped: Floats
    seen: Floats
    products: Floats


@part
def _silence(noise: Floats, row: int, z: Floats, plus: int, minus: int) -> None:
    """Equation (23): row `row` of `noise` is 0 where the sum of the rows `plus` and `minus` of `z` is not positive."""
    zero = noise.dtype.type(0)
    for i in range(noise.shape[1]):
        noise[row, i] = noise[row, i] if z[plus, i] + z[minus, i] > zero else zero


@section
def _make_step(parameters: Floats, sizes: Integers, options: Options, form: Form) -> _Step:
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
    drawn_count = rows * sizes[layers] if len(form.sources) > 0 else noise_count // options.groups
    wide = len(form.decorrelation) > 0
    inputs = 0
    for layer in range(layers):
        inputs = max(inputs, sizes[layer])
    samples = max(1, BLOCK // options.batch) * options.batch
    return _Step(
        noise if options.groups == 1 and len(form.sources) == 0 else np.zeros(-(-drawn_count // 4) * 4, real),
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
        np.empty(max(2 * rows, samples) * inputs if wide else 0, real),
        np.empty(samples * (noise_count // rows) if wide else 0, real),
        np.empty(inputs * inputs if wide else 0, real),
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
def _shape_noise(sizes: Integers, options: Options, form: Form, turn: int, step: _Step) -> None:
    """Equations (20), (21) and (22). `turn`: the number of perturbations before this step."""
    layers = len(sizes) - 1
    rows, classes = options.batch * options.perturbations, sizes[layers]
    start, start_of_source = 0, 0
    for layer in range(layers):
        width, last = sizes[layer + 1], layer == layers - 1
        noise = matrix(step.noise, start, rows, width)
        if len(form.sources) > 0:
            readout = matrix(step.drawn, 0, rows, classes)
            if last:
                for row in range(rows):
                    for i in range(width):
                        noise[row, i] = readout[row, i]
            else:
                np.dot(readout, matrix(form.sources, start_of_source, width, classes).T, noise)
                start_of_source += width * classes
        if last:
            scale = noise.dtype.type(form.readout)
            for row in range(rows):
                for i in range(width):
                    noise[row, i] *= scale
        if form.one_layer:
            for row in range(rows):
                if (turn + row // options.batch) % layers != layer:
                    for i in range(width):
                        noise[row, i] = 0
        if form.only_readout and not last:
            for row in range(rows):
                for i in range(width):
                    noise[row, i] = 0
        start += rows * width


@section
def _z_of_layer(
    weights: Floats, bias: Floats, below: Floats, xhat: Floats, z: Floats, decorrelation: Floats, mapped: Floats
) -> None:
    """Equations (1) and (2) of a layer after the first; leaves the mean of the pair's inputs in `xhat`, for (6).

    decorrelation: R_l (fan_in, fan_in), or without rows if there is none. mapped: scratch of the size of xhat.
    """
    double_rows, fan_in = xhat.shape
    rows = double_rows // 2
    for row in range(double_rows):
        standardize(below, row, xhat, row)
    if len(decorrelation) > 0:
        np.dot(xhat, decorrelation.T, mapped)
        for row in range(double_rows):
            for i in range(fan_in):
                xhat[row, i] = mapped[row, i]
    np.dot(xhat, weights.T, z)
    for row in range(double_rows):
        for i in range(len(bias)):
            z[row, i] += bias[i]
    half = xhat.dtype.type(0.5)
    for row in range(rows):
        for i in range(fan_in):
            xhat[row, i] = half * (xhat[row, i] + xhat[rows + row, i])


@section
def _forward(
    parameters: Floats, sizes: Integers, options: Options, form: Form, step: _Step, block_z: Floats, first: int
) -> Floats:
    """Equations (1) to (3) for both members of every pair; returns the logits (2 * rows, d_L).

    `block_z` holds z of the first layer; the samples of this step begin at its row `first`.
    """
    real = parameters.dtype.type
    layers = len(sizes) - 1
    rows = options.batch * options.perturbations * options.groups
    before = real(1) if options.preactivation else real(0)
    after = real(0) if options.preactivation else real(1)
    start, gumbel_start, parameter, start_of_map = 0, 0, 0, 0
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
            side = fan_in if len(form.decorrelation) > 0 else 0
            decorrelation = matrix(form.decorrelation, start_of_map, side, side)
            mapped = matrix(step.mapped, 0, 2 * rows if side > 0 else 0, side)
            _z_of_layer(weights, bias, below, xhat, z, decorrelation, mapped)
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
            if form.active_only and not last:
                _silence(noise, row, z, z_row, z_row + to_minus)
            for member in range(2):
                sign = real(1 - 2 * member)
                of_z, of_h = z_row + member * to_minus, member * rows + row
                if choose:
                    gate(h, of_h, z, of_z, noise, row, sign * before, sign * after, step.mask)
                else:
                    activate(h, of_h, z, of_z, noise, row, sign * before, sign * after, lowest)
        if options.skip and layer > 0 and not last and width == fan_in:
            for row in range(2 * rows):
                for i in range(width):
                    h[row, i] += below[row, i]
        below = h
        start += rows * width
        parameter += width * (fan_in + 1)
        start_of_map += fan_in * fan_in
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
def _update(
    parameters: Floats, sizes: Integers, options: Options, form: Form, step: _Step, block: Block, first: int
) -> None:
    """Equation (6) or (13), times the learning rate: u_s of the first layer, and the change of all other layers.

    In (21) and (22), the rate is that of the layer.

    The samples of this step begin at row `first` of `block.update`.
    """
    real = parameters.dtype.type
    rows = options.batch * options.perturbations * options.groups
    start, parameter = 0, 0
    for layer in range(len(sizes) - 1):
        width, fan_in = sizes[layer + 1], sizes[layer]
        postsynaptic = matrix(step.noise, start, rows, width)
        rate = options.rate * (len(sizes) - 1 if form.one_layer else 1)
        if layer == len(sizes) - 2:
            rate /= form.readout**2
        if layer == 0:
            for b in range(options.batch):
                for i in range(width):
                    block.update[first + b, i] = 0
            for row in range(rows):
                sample = first + row % options.batch
                factor = real(step.log_probability[row] * rate / options.perturbations)
                for i in range(width):
                    block.update[sample, i] += factor * postsynaptic[row, i]
        else:
            for row in range(rows):
                factor = real(step.log_probability[row] * rate / options.perturbations)
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


@section
def _note_inputs(sizes: Integers, options: Options, step: _Step, first: int, samples: int) -> None:
    """Put x*_l of the samples of this step, the mean over their passes, into `seen`, from sample `first` on."""
    rows = options.batch * options.perturbations
    start = 0
    for layer in range(1, len(sizes) - 1):
        width = sizes[layer]
        presynaptic = matrix(step.normed, 2 * rows * start, rows, width)
        seen = matrix(step.seen, samples * start, samples, width)
        for b in range(options.batch):
            for i in range(width):
                seen[first + b, i] = 0
        for row in range(rows):
            for i in range(width):
                seen[first + row % options.batch, i] += presynaptic[row, i] / options.perturbations
        start += width


@section
def _decorrelate(sizes: Integers, form: Form, step: _Step, block: Block, count: int) -> None:
    """Equation (25) for all layers, from the `count` samples of a block."""
    samples = len(block.inputs)
    real = block.inputs.dtype.type
    start, start_of_map = 0, 0
    for layer in range(len(sizes) - 1):
        side = sizes[layer]
        seen = block.inputs[:count] if layer == 0 else matrix(step.seen, samples * start, samples, side)[:count]
        decorrelation = matrix(form.decorrelation, start_of_map, side, side)
        mapped, change = matrix(step.mapped, 0, count, side), matrix(step.products, 0, side, side)
        np.dot(seen, decorrelation, mapped)
        np.dot(seen.T, mapped, change)
        rate = real(form.decorrelation_rate / count)
        for i in range(side):
            square = real(0)
            for s in range(count):
                square += seen[s, i] * seen[s, i]
            for j in range(side):
                decorrelation[i, j] -= rate * (change[i, j] - square * decorrelation[i, j])
        start += 0 if layer == 0 else side
        start_of_map += side * side


@kernel
def _learn(
    parameters: Floats,
    sizes: Integers,
    samples: Samples,
    options: Options,
    form: Form,
    draws: Draws,
    rewards: NDArray[np.float64],
) -> None:
    batch = options.batch
    rows = batch * options.perturbations * options.groups
    inputs, hidden = sizes[0], sizes[1]
    steps_per_block = max(1, BLOCK // batch)
    decorrelates = len(form.decorrelation) > 0
    shapes = len(form.sources) > 0 or form.one_layer or form.only_readout or form.readout != 1
    step = _make_step(parameters, sizes, options, form)
    block = make_block(parameters, inputs, hidden, steps_per_block * batch)
    first_bias = parameters[inputs * hidden : (inputs + 1) * hidden]
    for block_start in range(0, len(rewards), steps_per_block):
        block_steps = min(steps_per_block, len(rewards) - block_start)
        count = block_steps * batch
        if decorrelates:
            plain = matrix(step.mapped, 0, count, inputs)
            first_map = matrix(form.decorrelation, 0, inputs, inputs)
            gram = begin_decorrelated_block(parameters, samples, block_start * batch, count, block, plain, first_map)
        else:
            gram = begin_block(parameters, samples, block_start * batch, count, block)
        for block_step in range(block_steps):
            number, first = block_start + block_step, block_step * batch
            for b in range(batch):
                step.labels[b] = samples.y[samples.order[number * batch + b]]
            correct_first_layer(first_bias, block, gram, first, batch)
            _draw(draws, number, options.sigma, step)
            if options.groups > 1:
                _separate_groups(sizes, options, step)
            if shapes:
                turn = (np.int64(draws.first_step) + number) * options.perturbations
                _shape_noise(sizes, options, form, int(turn), step)
            logits = _forward(parameters, sizes, options, form, step, block.z, first)
            rewards[number] = _reward(logits, step, rows)
            if decorrelates:
                _note_inputs(sizes, options, step, first, len(block.inputs))
            _update(parameters, sizes, options, form, step, block, first)
        end_block(parameters, block, count, step.change)
        if decorrelates:
            _decorrelate(sizes, form, step, block, count)


def learn(
    parameters: Floats,
    sizes: Integers,
    samples: Samples,
    options: Options,
    draws: Draws,
    rewards: NDArray[np.float64],
    form: Form | None = None,
) -> None:
    """Apply len(rewards) steps of the rule to `parameters` in place.

    parameters: W_0, b_0, W_1, b_1, ..., each flattened in C order, one after the other. sizes: d_0, ..., d_L. rewards
    (steps,) receives the mean reward of each step. form: None for noise of its own in every unit; another form needs
    one group, and noise in active units and decorrelation need ReLU.
    """
    if form is None:
        none = np.empty(0, parameters.dtype)
        form = Form(
            active_only=False,
            one_layer=False,
            only_readout=False,
            readout=1.0,
            sources=none,
            decorrelation=none,
            decorrelation_rate=0.0,
        )
    _learn(parameters, sizes, samples, options, form, draws, rewards)
