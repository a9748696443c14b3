"""The cost of learning by feedback and by local terms: of `metafa`, and shared with `feedback`."""

from __future__ import annotations

from collections.abc import Collection

from plastic_cli import UserError
from plastic_cli.analysis.cost import Cost, TrainedRun, samples_of
from plastic_cli.analysis.shapes import Layer, NetworkShape, fully_connected
from plastic_cli.classifier.shapes import image_facts
from plastic_metafa.config import Train
from plastic_metafa.theta_file import PUBLISHED_TERMS, TermKey

USE_E_PRE = frozenset((1, 2, 4, 6, 7, 8))
"""Published terms that use the error of the layer below."""
USE_W_E_PRE = frozenset((6, 7))
"""Those that use W e_pre."""
OJA = 9


def term_flops(layer: Layer, terms: Collection[TermKey]) -> int:
    """Return the operations of the weight change by the terms of equation (5), for one sample and one layer.

    All terms together need an outer product of y_pre with a factor of the layer above, and one of e_pre if a term uses
    it. F6 and F7 need W e_pre; F9 has a second factor, y_l (y_l^T W). F3 and F8 need no further product: W y_pre is the
    response. Raises UserError for a term of the user's own.
    """
    if not all(isinstance(term, int) and term < PUBLISHED_TERMS for term in terms):
        raise UserError("the run has a term of your own, whose cost is unknown.")
    found = set(terms)
    products = 1 + bool(found & USE_E_PRE) + bool(found & USE_W_E_PRE) + 2 * (OJA in found)
    return products * layer.flops


def error_flops(shape: NetworkShape, kind: str, terms: Collection[TermKey]) -> int:
    """Return the operations that carry the errors to the inputs of all layers where they are needed, for one sample.

    Direct feedback multiplies the error of the output by a matrix for each layer. The input of the network needs an
    error only if a term uses it.
    """
    of_data = bool(set(terms) & USE_E_PRE)
    layers = [layer for layer in shape.layers if of_data or not layer.reads_data]
    if kind == "direct":
        return sum(2 * shape.readout.channels * layer.features for layer in layers)
    return sum(layer.flops for layer in layers)


def feedback_numbers(shape: NetworkShape, kind: str, terms: Collection[TermKey] = (0,)) -> int:
    """Return how many feedback weights, or magnitudes of them, are kept between steps."""
    if kind in ("symmetric", "uniform-sign", "batchwise-sign"):
        return 0
    of_data = bool(set(terms) & USE_E_PRE)
    layers = {layer.name: layer for layer in shape.layers if of_data or not layer.reads_data}.values()
    if kind == "direct":
        return sum(shape.readout.channels * layer.features for layer in layers)
    return sum(layer.weights for layer in layers)


def messages_of(shape: NetworkShape, kind: str) -> int:
    """Return the messages to the hidden layers for one sample."""
    return len(shape.hidden_names) * shape.readout.channels if kind == "direct" else shape.errors_from_above


def cost(record: TrainedRun) -> Cost:
    """Return the cost of meta-learning, without the final test of the rule and its controls.

    A sample is a training image of an episode: the network predicts it, and the terms change all weights. Then the
    network predicts the queries, whose loss is differentiated through the whole stream of samples. The way back costs,
    for each product of the way there, one product for each factor that depends on theta. Messages are those of the
    samples: the error of each unit of the next layer, or of the output with direct feedback.
    """
    config = Train.from_values(record.config, source="the run")
    image_shape, classes = image_facts(record.data)
    channels, height, width = image_shape
    inputs = channels * (config.image_size**2 if config.image_size else height * width)
    outputs = classes if config.outputs == "all" else config.ways
    shape = fully_connected([inputs, *config.hidden, outputs], biases=False)
    samples = samples_of(record)
    episodes = config.episodes * config.batch_size
    errors = error_flops(shape, config.feedback, config.terms)
    changes = sum(term_flops(layer, config.terms) for layer in shape.layers)
    queries = config.ways * config.queries
    back = reverse_flops(shape, config.feedback, errors, changes)
    numbers = feedback_numbers(shape, config.feedback, config.terms)
    units = inputs + sum(layer.units for layer in shape.layers)
    # Activity and error of each unit for each sample of the stream, queries, and the gradient of the weights.
    held = config.ways * config.shots * 2 * units + queries * shape.activity + shape.weights
    return Cost(
        samples=samples,
        inference_flops=samples * shape.forward_flops,
        learning_flops=samples * (errors + changes + back)
        + episodes * queries * (shape.forward_flops + shape.gradient_flops),
        messages=samples * messages_of(shape, config.feedback),
        updates=samples * shape.weights,
        state_bytes=4 * (config.batch_size * (shape.weights + numbers) + 3 * len(config.terms)),
        step_bytes=4 * config.batch_size * held,
    )


def reverse_flops(shape: NetworkShape, kind: str, errors: int, changes: int) -> int:
    """Return the operations of the way back through one sample. errors, changes: those of the way there.

    A response W y depends on theta through W and, above the first layer, through y. A product B e depends on it through
    e and, with symmetric feedback, through B, which is W. Both factors of a weight change depend on theta; the pixels,
    which are the input of the first layer, do not, but are counted as if they did.
    """
    responses = shape.forward_flops + shape.error_flops
    return responses + (2 if kind == "symmetric" else 1) * errors + 2 * changes
