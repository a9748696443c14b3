"""Learns from a stream with networks of any depth, every option of the rule; equation numbers as in rule.py."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from plastic_cli.numerics.kernels import part
from plastic_grlu.kernels.compiler import kernel
from plastic_grlu.kernels.noise import fill_gumbel, fill_normal
from plastic_grlu.kernels.primitives import (
    BLOCK,
    choose_largest,
    log_probabilities,
    standardise,
)

Real = np.floating[Any]
Floats = NDArray[Real]


# Loops over few arrays: beyond four the compiler gives up proving that they do not overlap, and on vector instructions.
@part
def _activate(
    outputs: Floats,
    output: int,
    z: Floats,
    of_z: int,
    noise: Floats,
    of_noise: int,
    before: Real,
    after: Real,
    lowest: Real,
) -> None:
    """Equation (3) for row `output` of `outputs` (., width), from the rows `of_z` of `z` and `of_noise` of `noise`.

    `before` and `after` say where the noise joins (0, or +-1 for a member of the pair); `lowest` is 0 for ReLU, else
    -inf.
    """
    for i in range(outputs.shape[1]):
        n = noise[of_noise, i]
        activation = z[of_z, i] + before * n
        outputs[output, i] = (lowest if activation < lowest else activation) + after * n


@part
def _gate(
    outputs: Floats,
    output: int,
    z: Floats,
    of_z: int,
    noise: Floats,
    of_noise: int,
    before: Real,
    after: Real,
    mask: Floats,
) -> None:
    """As `_activate`, with a top-k mask (width,) for the nonlinearity."""
    for i in range(outputs.shape[1]):
        n = noise[of_noise, i]
        outputs[output, i] = (z[of_z, i] + before * n) * mask[i] + after * n


@kernel
def learn(
    parameters: Floats,
    sizes: NDArray[np.int64],
    x: Floats,
    y: NDArray[np.int64],
    order: NDArray[np.int64],
    batch: int,
    perturbations: int,
    sigma: float,
    rate: float,
    preactivation: bool,
    skip: bool,
    kept: NDArray[np.int64],
    key: np.uint64,
    first_step: np.uint64,
    given_noise: Floats,
    given_gumbel: Floats,
    rewards: NDArray[np.float64],
) -> None:
    """Apply len(rewards) steps of the rule to `parameters` in place.

    - parameters: W_0, b_0, W_1, b_1, ..., each flattened in C order, behind each other. sizes: d_0, ..., d_L.
    - x (samples, d_0), y (samples,), order (steps * batch,): step s learns from order[s * batch : (s + 1) * batch].
    - kept (L - 1,): units that a top-k mask keeps in each hidden layer, 0 for ReLU.
    - key, first_step: name the noise, see noise.py.
    - given_noise (steps, n), given_gumbel (steps, m): noise to use instead, already times sigma; per step the layers'
      (batch * perturbations, width) behind each other. Without rows the noise is drawn.
    - rewards (steps,): receives the mean reward of each step.

    The first layer's inputs are data, so its products with a block of samples are taken at once and corrected for the
    updates within the block: z_t = W_0 x_t + sum over s < t of u_s (x_s . x_t + 1), where u_s is the learning rate
    times the postsynaptic factor of (6), and the 1 is the bias. W_0 itself changes once per block. This only reorders
    sums.
    """
    real = parameters.dtype.type
    layers = len(sizes) - 1
    rows = batch * perturbations
    steps = len(rewards)
    inputs, hidden = sizes[0], sizes[1]
    drawn = len(given_noise) == 0

    noise_numbers, gumbel_numbers, widest, matrix = 0, 0, 0, 0
    for layer in range(layers):
        noise_numbers += rows * sizes[layer + 1]
        widest = max(widest, sizes[layer + 1])
        matrix = max(matrix, sizes[layer] * sizes[layer + 1])
        if layer < layers - 1 and kept[layer] > 0:
            gumbel_numbers += rows * sizes[layer + 1]
    noise = np.zeros(-(-noise_numbers // 4) * 4, parameters.dtype)
    gumbel = np.zeros(-(-gumbel_numbers // 4) * 4, parameters.dtype)
    outputs = np.empty(2 * noise_numbers, parameters.dtype)
    normed = np.empty(2 * noise_numbers, parameters.dtype)
    product = np.empty(matrix, parameters.dtype)
    mask = np.empty(widest, parameters.dtype)
    keys = np.empty(widest, np.float32)
    z_of_layer = np.empty(2 * rows * widest, parameters.dtype)
    before = real(1) if preactivation else real(0)
    after = real(0) if preactivation else real(1)
    classes = sizes[layers]
    log_probability = np.empty(2 * rows, np.float64)
    exponentials = np.empty(2 * rows * classes, np.float64)
    labels = np.empty(batch, np.int64)

    steps_per_block = max(1, BLOCK // batch)
    block_inputs = np.empty((steps_per_block * batch, inputs), parameters.dtype)
    block_z = np.empty((steps_per_block * batch, hidden), parameters.dtype)
    block_gram = np.empty((steps_per_block * batch) ** 2, parameters.dtype)
    block_update = np.empty((steps_per_block * batch, hidden), parameters.dtype)
    first_weights = parameters[: inputs * hidden].reshape(hidden, inputs)
    first_bias = parameters[inputs * hidden : (inputs + 1) * hidden]

    for block_start in range(0, steps, steps_per_block):
        block_steps = min(steps_per_block, steps - block_start)
        samples = block_steps * batch
        for i in range(samples):
            standardise(x, order[block_start * batch + i], block_inputs, i)
        xhat = block_inputs[:samples]
        gram = block_gram[: samples * samples].reshape(samples, samples)
        np.dot(xhat, first_weights.T, block_z[:samples])
        np.dot(xhat, xhat.T, gram)

        for block_step in range(block_steps):
            step = block_start + block_step
            first_sample = block_step * batch
            for b in range(batch):
                labels[b] = y[order[step * batch + b]]
                sample = first_sample + b
                for i in range(hidden):
                    block_z[sample, i] += first_bias[i]
                for s in range(first_sample):
                    overlap = gram[sample, s] + real(1)
                    for i in range(hidden):
                        block_z[sample, i] += overlap * block_update[s, i]
            if drawn:
                fill_normal(noise, sigma, key, first_step + np.uint64(step))
                fill_gumbel(gumbel, key, first_step + np.uint64(step))
            else:
                for i in range(noise_numbers):
                    noise[i] = given_noise[step, i]
                for i in range(gumbel_numbers):
                    gumbel[i] = given_gumbel[step, i]

            # Equations (1) to (3), both members of every pair: rows 0 to rows - 1 are +, the next `rows` are -.
            at, gumbel_at, parameter_at = 0, 0, 0
            below = outputs[:0].reshape(0, 0)
            for layer in range(layers):
                width, fan_in = sizes[layer + 1], sizes[layer]
                end = at + rows * width
                layer_noise = noise[at:end].reshape(rows, width)
                h = outputs[2 * at : 2 * end].reshape(2 * rows, width)
                bias = parameters[parameter_at + width * fan_in : parameter_at + width * (fan_in + 1)]
                z = block_z if layer == 0 else z_of_layer[: 2 * rows * width].reshape(2 * rows, width)
                if layer > 0:
                    below_at = at - rows * fan_in
                    xhat = normed[2 * below_at : 2 * at].reshape(2 * rows, fan_in)
                    for row in range(2 * rows):
                        standardise(below, row, xhat, row)
                    weights = parameters[parameter_at : parameter_at + width * fan_in].reshape(width, fan_in)
                    np.dot(xhat, weights.T, z)
                    for row in range(2 * rows):
                        for i in range(width):
                            z[row, i] += bias[i]
                    for row in range(rows):  # (6) wants the mean of the pair
                        for i in range(fan_in):
                            xhat[row, i] = real(0.5) * (xhat[row, i] + xhat[rows + row, i])
                last = layer == layers - 1
                choose = not last and kept[layer] > 0
                lowest = real(-np.inf) if last else real(0)
                to_minus = 0 if layer == 0 else rows
                for row in range(rows):
                    z_row = first_sample + row % batch if layer == 0 else row
                    if choose:
                        for i in range(width):
                            mean = real(0.5) * (z[z_row, i] + z[z_row + to_minus, i])
                            keys[i] = np.float32(mean + gumbel[gumbel_at + i])
                        gumbel_at += width
                        choose_largest(keys, width, kept[layer], mask)
                    for member in range(2):
                        sign = real(1 - 2 * member)
                        of_z, of_h = z_row + member * to_minus, member * rows + row
                        if choose:
                            _gate(h, of_h, z, of_z, layer_noise, row, sign * before, sign * after, mask)
                        else:
                            _activate(h, of_h, z, of_z, layer_noise, row, sign * before, sign * after, lowest)
                if skip and layer > 0 and not last and width == fan_in:
                    for row in range(2 * rows):
                        for i in range(width):
                            h[row, i] += below[row, i]
                below = h
                at = end
                parameter_at += width * (fan_in + 1)

            # Equations (4) to (6); the learning rate joins the postsynaptic factor.
            log_probabilities(below, labels, exponentials, log_probability)
            reward = 0.0
            for row in range(rows):
                reward += (log_probability[row] + log_probability[rows + row]) / 2
                log_probability[row] = (log_probability[row] - log_probability[rows + row]) / 2
            rewards[step] = reward / rows
            at, parameter_at = 0, 0
            for layer in range(layers):
                width, fan_in = sizes[layer + 1], sizes[layer]
                end = at + rows * width
                postsynaptic = noise[at:end].reshape(rows, width)
                if layer == 0:
                    for b in range(batch):
                        for i in range(width):
                            block_update[first_sample + b, i] = 0
                    for row in range(rows):
                        sample = first_sample + row % batch
                        factor = real(log_probability[row] * rate / perturbations)
                        for i in range(width):
                            block_update[sample, i] += factor * postsynaptic[row, i]
                else:
                    below_at = at - rows * fan_in
                    for row in range(rows):
                        factor = real(log_probability[row] * rate / perturbations)
                        for i in range(width):
                            postsynaptic[row, i] *= factor
                    presynaptic = normed[2 * below_at : 2 * below_at + rows * fan_in].reshape(rows, fan_in)
                    change = product[: width * fan_in].reshape(width, fan_in)
                    np.dot(postsynaptic.T, presynaptic, change)
                    weights = parameters[parameter_at : parameter_at + width * fan_in].reshape(width, fan_in)
                    for j in range(width):
                        for i in range(fan_in):
                            weights[j, i] += change[j, i]
                    bias = parameters[parameter_at + width * fan_in : parameter_at + width * (fan_in + 1)]
                    for row in range(rows):
                        for i in range(width):
                            bias[i] += postsynaptic[row, i]
                at = end
                parameter_at += width * (fan_in + 1)

        change = product[: inputs * hidden].reshape(hidden, inputs)
        np.dot(block_update[:samples].T, block_inputs[:samples], change)
        for j in range(hidden):
            for i in range(inputs):
                first_weights[j, i] += change[j, i]
        for s in range(samples):
            for i in range(hidden):
                first_bias[i] += block_update[s, i]
