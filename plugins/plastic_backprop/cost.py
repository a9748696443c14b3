"""The cost of backpropagation, of a readout on random features, and of deep supervision."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from math import prod

from plastic_backprop.config import Train
from plastic_cli.analysis.cost import Cost, TrainedRun
from plastic_cli.analysis.shapes import SAMPLES, flop_counter
from plastic_cli.classifier.cost import gradient_cost, training_of
from plastic_cli.classifier.shapes import image_facts, made_without_memory, network_shape


def cost(record: TrainedRun) -> Cost:
    """Return the cost of the training of a run."""
    config = Train.from_values(record.config, source="the run")
    shape = network_shape(config.model, record.data, config.hidden)
    training = training_of(record, config.model_dump())
    of_gradient = gradient_cost(training, shape, readout_only=config.trained == "readout")
    if config.trained != "deep-supervision":
        return of_gradient
    readouts = local_readouts(config.model, *image_facts(record.data), tuple(config.hidden))
    weights = sum(readouts.features) * shape.readout.units
    # The readouts learn by Adam, which stores two numbers for each of their weights.
    kept = 3 * weights
    answers = len(readouts.features) * shape.readout.units
    held = training.batch_size * (sum(readouts.features) + answers) + weights
    return replace(
        of_gradient,
        learning_flops=training.samples * readouts.flops,
        messages=training.samples * answers,
        updates=of_gradient.updates + training.steps * weights,
        state_bytes=of_gradient.state_bytes + shape.number_bytes * kept,
        step_bytes=of_gradient.step_bytes + shape.number_bytes * held,
    )


@dataclass(frozen=True)
class LocalReadouts:
    """The readouts of deep supervision: the number of inputs of each, and the operations of learning for a sample."""

    features: tuple[int, ...]
    flops: int


@cache
def local_readouts(
    model: str, image_shape: tuple[int, int, int], classes: int, hidden: tuple[int, ...]
) -> LocalReadouts:
    """Return the readouts of a network; which layers have one shows when the network is called."""
    import torch

    from plastic_backprop.credit import DeepSupervision
    from plastic_cli.classifier.module import as_input, cross_entropies

    module, own_shape = made_without_memory(model, image_shape, classes, hidden)
    device = next(module.parameters()).device
    x = as_input(torch.zeros(SAMPLES, prod(image_shape), device=device), module, own_shape)
    y = torch.zeros(SAMPLES, dtype=torch.int64, device=device)
    credit = DeepSupervision(module)
    with torch.no_grad(), flop_counter() as prediction:
        module(x)
    with flop_counter() as step:
        credit.backward(x, lambda logits: cross_entropies(logits, y))
    flops = (step.get_total_flops() - prediction.get_total_flops()) // SAMPLES
    return LocalReadouts(tuple(readout.shape[1] for readout in credit.readouts), flops)
