"""The cost of learning: of one stimulus, for the metrics of a run, and of a whole training."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING

from plastic_cli.analysis.cost import Cost, TrainedRun, count_of, epoch_steps, samples_of
from plastic_cli.analysis.shapes import Layer, NetworkShape, activity_of, fully_connected, weights_of
from plastic_cli.classifier.cost import Training, gradient_cost, moments_of
from plastic_cli.classifier.shapes import image_facts, network_shape
from plastic_eglp.config import KERNELS, LOSSES, OWN_MODELS, SOFTHEBB, SOFTHEBB_MODELS, Train
from plastic_eglp.pooling import map_sizes
from plastic_eglp.windows import windows

if TYPE_CHECKING:
    from plastic_eglp.learner import EGLPLearner


@dataclass(frozen=True)
class StimulusCost:
    """The cost of one stimulus; what counts is said in `plastic_cli.Cost`.

    forward: operations of a prediction. readout: of an update of a supervised readout. event: of an update of all
    hidden layers, and of a local readout, from one stimulus of an event; a collected stimulus needs a second forward
    pass, which is included. messages: numbers that reach the hidden layers from other layers for the update.
    """

    forward: int
    readout: int
    event: int
    messages: int


def stimulus_cost(
    shape: NetworkShape,
    *,
    feedback: str,
    update: str = "local",
    readout: str = "supervised",
    presented_twice: bool = False,
    frozen: Collection[int] = (),
) -> StimulusCost:
    """Return the cost of one stimulus, from shapes alone.

    A message is a number that a layer cannot compute itself: for each hidden layer the event's strength and, with
    direct feedback, the error of each class; with backpropagation the errors of all channels of the layer above.
    presented_twice: stimuli of an event are collected first. frozen: hidden layers, counted from 0, that never learn.
    """
    layers = shape.hidden
    learned = [number for number in range(len(layers)) if number not in frozen]
    classes, of_readout = shape.readout.units, shape.readout.flops
    if update == "backprop":
        # The gradient of the weights costs as much as the forward pass of the layer, and so does the gradient of its
        # input, which is needed in the layers above the lowest one that learns.
        of_inputs = sum(layer.flops for layer in shape.layers[min(learned) + 1 :]) if learned else 0
        event = sum(layers[number].flops for number in learned) + of_readout + of_inputs
        messages = sum(layer.channels for layer in shape.layers[1:]) if learned else 0
        return StimulusCost(shape.forward_flops, 0, event, messages)
    event = sum(layers[number].flops for number in learned)
    if feedback == "direct":
        event += sum(2 * classes * layers[number].channels for number in learned)
    if readout == "local":
        event += of_readout
    if presented_twice:
        event += shape.forward_flops
    names = {layers[number].name for number in learned}
    messages = len(names) * (1 + (classes if feedback == "direct" else 0))
    return StimulusCost(shape.forward_flops, 0 if readout == "local" else of_readout, event, messages)


def cost_of_stimulus(learner: EGLPLearner) -> StimulusCost:
    """Return the cost of one stimulus for a learner."""
    network = learner.network
    hidden = [len(layer.weight) for layer in network.layers()]
    return stimulus_cost(
        own_shape(network.model, network.image_shape, hidden, len(network.readout.weight)),
        feedback=learner.feedback,
        update=learner.update,
        readout="supervised" if learner.optimizer is not None else "local",
        presented_twice=learner.collects,
        frozen=learner.frozen,
    )


def own_shape(model: str, image_shape: Sequence[int], hidden: Sequence[int], classes: int) -> NetworkShape:
    """Return the shape of the rule's own networks: mlp, or cnn with pooling that halves the image."""
    if model == "mlp":
        return fully_connected([prod(image_shape), *hidden, classes])
    channels, height, width = image_shape
    maps = [(channels, height, width)]
    for units in hidden:
        height, width = height // 2, width // 2
        maps.append((units, height, width))
    return _convolutions(maps, classes, statistics=2 * sum(hidden))


def softhebb_shape(image_shape: Sequence[int], filters: Sequence[int], classes: int) -> NetworkShape:
    """Return the shape of the published network of SoftHebb."""
    maps = map_sizes(image_shape, filters)
    return _convolutions(maps, classes, statistics=2 * sum(channels for channels, _, _ in maps[:-1]))


def perceptron_shape(image_shape: Sequence[int], hidden: Sequence[int], classes: int) -> NetworkShape:
    """Return the shape of the fully connected network of SoftHebb, whose hidden units have no biases."""
    shape = fully_connected([prod(image_shape), *hidden, classes])
    layers = (*(replace(layer, biases=0) for layer in shape.hidden), shape.readout)
    return replace(shape, layers=layers, parameters=shape.parameters - sum(hidden))


def _convolutions(maps: Sequence[Sequence[int]], classes: int, *, statistics: int) -> NetworkShape:
    """Return the shape of convolutions, each followed by pooling, and a readout.

    maps: (channels, height, width) of the input of each layer and of the readout. statistics: of batch normalization,
    the mean and the variance of each channel.
    """
    layers = []
    for number, ((channels, height, width), (units, _, _)) in enumerate(pairwise(maps)):
        weights = units * channels * KERNELS[min(number, 1)] ** 2
        pixels, inputs = height * width, channels * height * width
        shapes = (inputs, units * pixels, pixels, inputs, units)
        layers.append(Layer(f"hidden.{number}.weight", weights, 0, *shapes, reads_data=number == 0))
    readout = fully_connected([prod(maps[-1]), classes])
    every = (*layers, replace(readout.readout, reads_data=False))
    forward = sum(layer.flops for layer in every)
    parameters = sum(layer.weights + layer.biases for layer in every)
    return NetworkShape(every, forward, 2 * forward - every[0].flops, parameters, statistics)


def cost(record: TrainedRun) -> Cost:
    """Return the cost of the training of a run, without its control. Events are those that the run counted."""
    config = Train.from_values(record.config, source="the run")
    image_shape, classes = image_facts(record.data)
    if config.model in SOFTHEBB_MODELS:
        made = softhebb_shape if config.model == SOFTHEBB else perceptron_shape
        return softhebb_cost(record, config, made(image_shape, config.hidden, classes))
    if config.model in OWN_MODELS:
        shape = own_shape(config.model, image_shape, config.hidden, classes)
        if config.batch_norm:
            of_norms = 2 * sum(config.hidden)
            shape = replace(shape, parameters=shape.parameters + of_norms, buffers=of_norms)
    else:
        shape = network_shape(config.model, record.data, config.hidden)
    if config.update == "backprop":
        steps = epoch_steps(record, config.model_dump())
        return gradient_cost(Training(samples_of(record), steps, config.batch_size, moments_of("adam")), shape)
    return local_cost(record, config, shape)


def softhebb_cost(record: TrainedRun, config: Train, shape: NetworkShape) -> Cost:
    """Return the cost of hidden layers that learn without labels, and of a readout that learns from stored features.

    The features of an image are computed once, whatever the number of epochs. The images by which batch normalization
    finds its statistics, if filters do not learn, do not count.
    """
    steps = epoch_steps(record, config.model_dump())
    if config.update == "backprop":
        return gradient_cost(Training(samples_of(record), steps, config.batch_size, moments_of("adam")), shape)
    samples, stimuli = samples_of(record), count_of(record, "train/event_images")
    images = samples // config.epochs
    of_hidden = sum(layer.flops for layer in shape.hidden)
    of_readout = shape.readout.weights + shape.readout.biases
    of_steps = [config.batch_size * activity_of(shape.layers[-1:]) + of_readout]
    if stimuli:
        of_steps.append(config.unsupervised_batch_size * activity_of(shape.hidden))
    return Cost(
        samples=samples,
        inference_flops=(stimuli + images) * of_hidden + samples * shape.readout.flops,
        learning_flops=stimuli * of_hidden + samples * shape.readout.flops,
        messages=count_of(record, "train/messages"),
        updates=count_of(record, "train/synaptic_updates") + steps * shape.readout.weights,
        state_bytes=shape.number_bytes
        * (shape.parameters + shape.buffers + moments_of("adam") * of_readout + images * shape.readout.inputs),
        step_bytes=shape.number_bytes * max(of_steps),
    )


@dataclass(frozen=True)
class HeadCost:
    """The heads of one local loss.

    weights, biases: numbers in them. map_flops: operations of the linear maps for one stimulus; the gradients of their
    weights and of the activity cost as much each. compared: numbers of a stimulus that are compared with another one.
    """

    weights: int
    biases: int
    map_flops: int
    compared: int


def head_cost(layer: Layer, local_rule: str, outputs: int) -> HeadCost:
    """Return the heads of a layer: a linear map before the similarity, and a classifier."""
    channels, positions = layer.channels, layer.positions
    # A layer of tokens or time steps is averaged over them, and each weight of it has an input of its own.
    is_map = positions > 1 and layer.weights != layer.features * channels
    weights = biases = flops = compared = 0
    if local_rule != "sim":
        inputs = channels
        if is_map:
            height = width = math.isqrt(positions)
            inputs = channels * math.prod(windows(channels, height, width))
        weights += outputs * inputs
        biases += outputs
        flops += 2 * outputs * inputs
    if local_rule != "pred":
        square = channels**2 * (9 if is_map else 1)
        weights += square
        flops += 2 * square * (positions if is_map else 1)
        compared = channels * positions if is_map and channels <= 3 else channels
    return HeadCost(weights, biases, flops, compared)


def local_cost(record: TrainedRun, config: Train, shape: NetworkShape) -> Cost:
    """Return the cost of local learning at events, and of a readout that learns from every batch or at events."""
    samples, stimuli = samples_of(record), count_of(record, "train/event_images")
    collects = config.is_plain and config.events == "triggered" and config.event_scope == "stimulus"
    one = stimulus_cost(shape, feedback=config.feedback, readout=config.readout, presented_twice=collects)
    losses = config.local_rule in LOSSES and config.feedback == "none"
    heads = [head_cost(layer, config.local_rule, shape.readout.units) for layer in shape.hidden] if losses else []
    learning = samples * one.readout + stimuli * one.event
    if heads and stimuli:
        # Two products of matrices lead back from the similarities of the stimuli of an event.
        together = stimuli / count_of(record, "train/events")
        learning += round(stimuli * sum(3 * head.map_flops + 6 * together * head.compared for head in heads))
    readout_steps = epoch_steps(record, config.model_dump())
    if config.readout == "local":
        readout_steps = count_of(record, "train/events")
    updates = count_of(record, "train/synaptic_updates") + readout_steps * shape.readout.weights
    if heads:
        updates += count_of(record, "train/events") * sum(head.weights for head in heads)
    learns = config.events != "never"
    kept, held = numbers_of_state(config, shape), 0
    if collects:
        gathered = config.event_batch_size or config.batch_size
        kept += gathered * shape.layers[0].inputs
        held = max(gathered, config.batch_size) * activity_of(shape.layers)
    else:
        held = config.batch_size * activity_of(shape.layers if learns else shape.layers[-1:])
    held += shape.readout.weights + shape.readout.biases if config.readout == "supervised" else 0
    if learns and not config.is_plain:
        held += numbers_that_learn(config, shape)
    if learns and heads:
        of_heads = sum(head.weights + head.biases for head in heads)
        kept += (1 + moments_of("adam")) * of_heads
        held += of_heads
    return Cost(
        samples=samples,
        inference_flops=samples * one.forward,
        learning_flops=learning,
        # A local loss needs the label.
        messages=stimuli * (one.messages + (len(shape.hidden_names) if heads else 0)),
        updates=updates,
        state_bytes=shape.number_bytes * kept,
        step_bytes=shape.number_bytes * held,
    )


def numbers_that_learn(config: Train, shape: NetworkShape) -> int:
    """Return the number of hidden parameters that learn: weights, with direct feedback biases, by local losses all."""
    if config.local_rule in LOSSES and config.feedback == "none":
        return shape.parameters - shape.readout.weights - shape.readout.biases
    biases = {layer.name: layer.biases for layer in shape.hidden} if config.feedback == "direct" else {}
    return weights_of(shape.hidden) + sum(biases.values())


def numbers_of_state(config: Train, shape: NetworkShape) -> int:
    """Return the numbers that are kept: parameters, moments of the optimizers, feedback weights and thresholds."""
    kept = shape.parameters + shape.buffers
    if config.readout == "supervised":
        kept += moments_of("adam") * (shape.readout.weights + shape.readout.biases)
    if config.events == "never":
        return kept
    channels = sum({layer.name: layer.channels for layer in shape.hidden}.values())
    if config.feedback == "direct":
        kept += channels * shape.readout.units
    elif config.local_rule == "bcm":
        kept += channels
    if not config.is_plain:
        kept += moments_of(config.optimizer, config.momentum) * numbers_that_learn(config, shape)
    return kept
