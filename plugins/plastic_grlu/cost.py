"""The cost of node perturbation: two passes for each pair of perturbations, and one scalar for each pair.

With learned feedback, errors reach the hidden layers too.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import accumulate, pairwise
from math import prod

from plastic_cli import UserError
from plastic_cli.analysis.cost import Cost, TrainedRun
from plastic_cli.analysis.shapes import NetworkShape, fully_connected, weights_of
from plastic_cli.classifier.cost import Training, gradient_cost, moments_of, training_of
from plastic_cli.classifier.shapes import image_facts, network_shape
from plastic_grlu.config import BACKBONE_BATCH, BACKBONE_HIDDEN, Train


def cost(record: TrainedRun) -> Cost:
    """Return the cost of the training of a run."""
    config = Train.from_values(record.config, source="the run")
    image_shape, classes = image_facts(record.data)
    if config.model == "mlp":
        inputs = config.latent if config.backbone == "autoencoder" else prod(image_shape)
        shape = fully_connected([inputs, *config.hidden, classes])
    else:
        shape = network_shape(config.model, record.data, config.hidden)
    training = training_of(record, config.model_dump())
    if config.update == "backprop":
        found = gradient_cost(training, shape)
    elif config.credit == "learned":
        found = (feedback_cost if config.is_plain else feedback_cost_of_module)(training, config, shape)
    else:
        found = perturbation_cost(training, config, shape)
    return with_backbone(config, found, prod(image_shape)) if config.backbone == "autoencoder" else found


def scalars(config: Train, shape: NetworkShape) -> Fraction:
    """Return how many scalars reach the hidden layers for one sample, on average.

    For each perturbation, a layer receives the difference of the rewards of each group that has a unit in it. With the
    readout as the source of noise, it also receives the noise of each unit of the readout. If layers take turns, a
    layer receives these for its own perturbations.
    """
    if config.reward_groups == 1:
        numbers = 1 + (shape.readout.units if config.noise_sources == "readout" else 0)
        received = config.perturbations * len(shape.hidden_names) * numbers
        return Fraction(received, len(shape.layers) if config.noise_layers == "one" else 1)
    hidden = groups_of_layers(shape, config.reward_groups)[:-1]
    return Fraction(config.perturbations * sum(len(groups) for groups in hidden))


def groups_of_layers(shape: NetworkShape, groups: int) -> list[range]:
    """Return the groups that have units in each layer. Unit u of N is in group floor(u k / N), see rule.py.

    Raises UserError for more groups than units.
    """
    units = sum(layer.units for layer in shape.layers)
    if groups > units:
        raise UserError(f"--reward-groups {groups}: the network has {units} units.")
    ends = [0, *accumulate(layer.units for layer in shape.layers)]
    return [range(first * groups // units, (last - 1) * groups // units + 1) for first, last in pairwise(ends)]


def pass_flops(shape: NetworkShape, groups: int) -> int:
    """Return the operations of one pass for each group, of those responses that depend on the noise of the group.

    All others are those of the prediction. Noise reaches the layers above the first one that has a unit of the group.
    """
    if groups == 1:
        return shape.forward_flops - sum(layer.flops for layer in shape.layers if layer.reads_data)
    first = {
        group: number for number, found in reversed([*enumerate(groups_of_layers(shape, groups))]) for group in found
    }
    return sum(layer.flops for lowest in first.values() for layer in shape.layers[lowest + 1 :])


def perturbation_cost(training: Training, config: Train, shape: NetworkShape) -> Cost:
    """Return the cost of node perturbation.

    Each pair of perturbations takes two passes through what depends on the noise, for each group of units that has a
    reward of its own. By equation (6), the change of the weights is an outer product for each pair, but one for all
    pairs in layers that receive the data. By equation (10), for any network and optimizer, it is one for all pairs. If
    the readout alone has noise, one pass serves all pairs with ReLU. With top-k, each pair has a mask and takes a pass
    of its own.

    Pairs are counted one after the other. Held are the noise and, for (6), the inputs of both passes of a pair, for
    (10) the inputs of a pass without noise and the sum over pairs. A top-k mask belongs to a pair.
    """
    if config.noise_layers == "readout":
        found = gradient_cost(training, shape, readout_only=True)
        if config.k is None:
            return found
        more = (config.perturbations - 1) * (pass_flops(shape, 1) + shape.readout.flops)
        masks = training.batch_size * sum(layer.units for layer in shape.hidden)
        return replace(
            found,
            learning_flops=found.learning_flops + training.samples * more,
            step_bytes=found.step_bytes + shape.number_bytes * masks,
        )
    samples, pairs = training.samples, config.perturbations
    of_data = sum(layer.flops for layer in shape.layers if layer.reads_data)
    of_weights = sum(layer.flops for layer in shape.layers)
    inputs, units = sum(layer.inputs for layer in shape.layers), sum(layer.units for layer in shape.layers)
    if config.is_plain:
        of_weights = of_data + pairs * (of_weights - of_data)
        held = 2 * inputs + units
    else:
        held = inputs + 2 * units
    if config.k is not None:
        held += sum(layer.units for layer in shape.hidden)
    of_pairs = 2 * pairs * pass_flops(shape, config.reward_groups)
    if config.noise_layers == "one":
        of_pairs, of_weights = flops_of_turns(shape, pairs)
    found = Cost(
        samples=samples,
        inference_flops=samples * shape.forward_flops,
        learning_flops=samples * (of_pairs + of_weights),
        messages=int(samples * scalars(config, shape)),
        updates=training.steps * shape.weights,
        state_bytes=shape.number_bytes * ((1 + training.moments) * shape.parameters + shape.buffers),
        step_bytes=shape.number_bytes * (training.batch_size * held + shape.parameters),
    )
    return with_decorrelation(training, config, shape, with_sources(config, shape, found))


def flops_of_turns(shape: NetworkShape, pairs: int) -> tuple[int, int]:
    """Return the operations of the passes and of the updates for one sample on average, equation (22).

    Noise in a layer changes the responses of the layers above it, and teaches the layer alone. The inputs of the layer
    have no noise, so all its pairs share one outer product.
    """
    layers = len(shape.layers)
    above = sum(number * layer.flops for number, layer in enumerate(shape.layers))
    return 2 * pairs * above // layers, min(pairs, layers) * sum(layer.flops for layer in shape.layers) // layers


def with_sources(config: Train, shape: NetworkShape, found: Cost) -> Cost:
    """Return a cost with that of noise from the readout, equation (20): a product for each pair, and fixed weights.

    If layers take turns, a hidden layer needs the product for its own pairs.
    """
    if config.noise_sources == "units":
        return found
    numbers = shape.readout.units * sum(layer.units for layer in shape.hidden)
    turns = len(shape.layers) if config.noise_layers == "one" else 1
    return replace(
        found,
        learning_flops=found.learning_flops + 2 * found.samples * config.perturbations * numbers // turns,
        state_bytes=found.state_bytes + shape.number_bytes * numbers,
    )


def with_decorrelation(training: Training, config: Train, shape: NetworkShape, found: Cost) -> Cost:
    """Return a cost with that of decorrelated inputs, equations (24) and (25).

    R_l takes one product for each pass, of which that of the first layer is the one of the prediction, and two for each
    sample to learn. If layers take turns, passes differ in the layers above the one whose turn it is. R_l learns once
    for each block.
    """
    if not config.decorrelation:
        return found
    from plastic_grlu.kernels.primitives import BLOCK

    squares = [layer.inputs**2 for layer in shape.layers]
    numbers = sum(squares)
    images = training.samples // training.epochs
    # A last batch that is smaller is a block of its own.
    full, rest = divmod(images, training.batch_size)
    blocks = training.epochs * (-(-full // max(1, BLOCK // training.batch_size)) + (rest > 0))
    of_passes = 2 * 2 * config.perturbations * sum(squares[1:])
    if config.noise_layers == "one":
        above = sum(number * square for number, square in enumerate(squares))
        of_passes = 2 * 2 * config.perturbations * above // len(squares)
    return replace(
        found,
        inference_flops=found.inference_flops + 2 * found.samples * numbers,
        learning_flops=found.learning_flops + found.samples * (of_passes + 2 * 2 * numbers),
        updates=found.updates + blocks * numbers,
        state_bytes=found.state_bytes + shape.number_bytes * numbers,
        step_bytes=found.step_bytes + shape.number_bytes * numbers,
    )


def feedback_cost(training: Training, config: Train, shape: NetworkShape) -> Cost:
    """Return the cost of the rule's own network with learned feedback, equations (14) to (19).

    Each pair takes two passes, of which the response of the first layer is that of the prediction. The update of the
    weights is one outer product for each sample, and so is that of the feedback; for several pairs the search along the
    direction is one product more. Feedback that does not learn needs no perturbations.

    A hidden layer gets the error of each unit that sends it feedback, and the error of the prediction of each pair.
    Held are the inputs and the signals of the pass without noise, the noise of the hidden units, and top-k masks.
    Without feedback, only the readout learns.
    """
    if config.feedback == "none":
        return gradient_cost(training, shape, readout_only=True)
    samples, units = training.samples, [layer.units for layer in shape.layers]
    sent = [units[-1]] * len(shape.hidden) if config.feedback == "direct" else units[1:]
    read = sum(rows * columns for rows, columns in zip(units, sent, strict=False))
    # The transposed weights are the weights.
    numbers = 0 if config.feedback == "transposed" else read
    pairs = config.perturbations if config.feedback_rate > 0 and numbers else 0
    several = training.batch_size * pairs > 1
    products = read + (min(pairs, 1) + several) * numbers
    of_hidden = sum(units[:-1])
    held = sum(layer.inputs for layer in shape.layers) + sum(units) + (of_hidden if pairs else 0)
    if config.k is not None:
        held += of_hidden
    return Cost(
        samples=samples,
        inference_flops=samples * shape.forward_flops,
        learning_flops=samples * (2 * pairs * pass_flops(shape, 1) + shape.forward_flops + 2 * products),
        messages=samples * (sum(sent) + pairs * len(sent)),
        updates=training.steps * (shape.weights + (numbers if pairs else 0)),
        state_bytes=shape.number_bytes * (shape.parameters + numbers),
        step_bytes=shape.number_bytes * (training.batch_size * held + shape.parameters + (numbers if pairs else 0)),
    )


def feedback_cost_of_module(training: Training, config: Train, shape: NetworkShape) -> Cost:
    """Return the cost of any network with learned feedback, see learned_feedback.py.

    A hidden layer gets noise where the next layer receives its activity. Direct feedback has one number for each of
    these and each class; from layer to layer it has the shape of the weights of all layers but the first, and an error
    costs as much as a response. A product gives the errors. If the feedback learns, two more give its direction and the
    search along it, and each pair takes two passes and three products of noise with a number for each unit with noise.

    Held are the inputs of a pass without noise, the noise and the sum over pairs, as for `perturbation_cost`.
    """
    samples, names, above = training.samples, len(shape.hidden_names), shape.layers[1:]
    pairs = config.perturbations if config.feedback_rate > 0 else 0
    noisy = sum(layer.inputs for layer in above)
    if config.feedback == "direct":
        numbers, sent = noisy * shape.readout.units, names * shape.readout.units
        of_errors = 2 * numbers
    else:
        numbers, sent = weights_of(above), shape.errors_from_above
        of_errors = sum(layer.flops for layer in above)
    of_feedback = of_errors * (3 if pairs else 1) + 3 * 2 * pairs * noisy
    of_weights = sum(layer.flops for layer in shape.layers)
    held = sum(layer.inputs for layer in shape.layers) + 2 * sum(layer.units for layer in shape.layers)
    learned = numbers if pairs else 0
    return Cost(
        samples=samples,
        inference_flops=samples * shape.forward_flops,
        learning_flops=samples * (2 * pairs * pass_flops(shape, 1) + of_weights + of_feedback),
        messages=samples * (sent + pairs * names),
        updates=training.steps * (shape.weights + learned),
        state_bytes=shape.number_bytes * ((1 + training.moments) * shape.parameters + shape.buffers + numbers),
        step_bytes=shape.number_bytes * (training.batch_size * held + shape.parameters + learned),
    )


def with_backbone(config: Train, found: Cost, pixels: int) -> Cost:
    """Return a cost with that of the autoencoder, which learns by backpropagation first, and encodes each sample."""
    encoder = fully_connected([pixels, BACKBONE_HIDDEN, config.latent])
    whole = fully_connected([pixels, BACKBONE_HIDDEN, config.latent, BACKBONE_HIDDEN, pixels])
    images = found.samples // config.epochs
    steps = config.backbone_epochs * -(-images // BACKBONE_BATCH)
    adam = Training(images * config.backbone_epochs, steps, BACKBONE_BATCH, moments_of("adam"))
    trained = gradient_cost(adam, whole)
    return Cost(
        samples=found.samples,
        inference_flops=found.inference_flops + found.samples * encoder.forward_flops,
        learning_flops=found.learning_flops + trained.inference_flops + trained.learning_flops,
        messages=found.messages + trained.messages,
        updates=found.updates + trained.updates,
        state_bytes=max(found.state_bytes + 4 * encoder.parameters, trained.state_bytes),
        step_bytes=max(found.step_bytes, trained.step_bytes),
    )
