"""The cost of learning from errors that return through feedback weights, on any network."""

from __future__ import annotations

from math import prod

from plastic_cli import UserError
from plastic_cli.analysis.cost import Cost, TrainedRun
from plastic_cli.analysis.shapes import fully_connected
from plastic_cli.classifier.cost import training_of
from plastic_cli.classifier.shapes import image_facts, network_shape
from plastic_metafa.cost import error_flops, feedback_numbers, messages_of, term_flops
from plastic_metafa.feedback.config import MIRROR_SAMPLES, Train, as_numbers
from plastic_metafa.theta_file import TermKey


def cost(record: TrainedRun) -> Cost:
    """Return the cost of the training of a run."""
    config = Train.from_values(record.config, source="the run")
    image_shape, classes = image_facts(record.data)
    if config.activation == "softplus":
        shape = fully_connected([prod(image_shape), *config.hidden, classes], biases=False)
    else:
        shape = network_shape(config.model, record.data, config.hidden)
    terms, kind = terms_of(config), config.feedback
    training = training_of(record, config.model_dump())
    of_layers = sum(layer.flops for layer in shape.layers)
    # Products without weights, such as the scores of attention, have their exact derivatives.
    of_others = shape.gradient_flops - of_layers - shape.error_flops
    of_changes = sum(term_flops(layer, terms) for layer in shape.layers)
    learning = training.samples * (of_others + of_changes + error_flops(shape, kind, terms))
    numbers = feedback_numbers(shape, kind, terms)
    if kind == "weight-mirror":
        # Each vector of noise needs a response and an outer product of response and noise.
        learning += training.steps * MIRROR_SAMPLES * 4 * numbers
    drawn = feedback_numbers(shape, "sign", terms) if kind == "batchwise-sign" else 0
    return Cost(
        samples=training.samples,
        inference_flops=training.samples * shape.forward_flops,
        learning_flops=learning,
        messages=training.samples * messages_of(shape, kind),
        updates=training.steps * (shape.weights + (numbers if feedback_learns(config) else 0)),
        state_bytes=shape.number_bytes * ((1 + training.moments) * shape.parameters + shape.buffers + numbers),
        step_bytes=shape.number_bytes * (training.batch_size * shape.activity + shape.parameters + drawn),
    )


def feedback_learns(config: Train) -> bool:
    """Return whether feedback weights change by learning: not if they are drawn or follow from the weights."""
    return config.feedback == "kolen-pollack" or (config.feedback == "weight-mirror" and config.mirror_rate > 0)


def terms_of(config: Train) -> tuple[TermKey, ...]:
    """Return the terms that teach the weights; raises UserError if only the file of `--theta` names them."""
    if config.terms is not None:
        return config.terms
    if config.theta is None or as_numbers(config.theta) is not None:
        return (0,)
    raise UserError("the terms of the run are those of another run or of a file, so its cost is unknown.")
