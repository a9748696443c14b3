"""The diagonal of the Fisher information of a network's answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from plastic_cli.errors import UserError

Logits = Callable[[Tensor], Tensor]


def diagonal_fisher(model: nn.Module, x: Tensor, logits: Logits) -> dict[str, Tensor]:
    """Return the diagonal of the Fisher information for images x (n, features), by the parameters' names.

    F_i is the mean over images of E_y (d log p(y | x) / d theta_i)^2. y follows the model's own answer p, the softmax
    of the logits, and the expectation over y is computed exactly. The labels of the data are not used, so this is not
    the empirical Fisher information. The squares are taken for each image, since in a batch gradients could cancel.

    The derivative of one image with respect to a weight is a product: the derivative with respect to the layer's output
    times the layer's input. The sum of the squares over images is therefore one product of two matrices of squares.

    model: all its parameters that require a gradient belong to linear layers, and no two layers share one. It is in
    evaluation mode during the call. logits: maps images (n, features) to logits (n, outputs) and calls each layer of
    the model once. It may mask outputs with minus infinity.

    Raises UserError if the model or the logits are not of this kind.
    """
    layers = _linear_layers(model)
    with _evaluating(model), torch.enable_grad():
        inputs, outputs, answers = _recorded(layers, logits, x)
        log_probabilities, probabilities = answers.log_softmax(dim=-1), answers.detach().softmax(dim=-1)
    squares = [torch.zeros_like(output) for output in outputs]
    one_hot = torch.eye(answers.shape[1], dtype=answers.dtype, device=x.device)
    for label, probability in zip(one_hot, probabilities.unbind(1), strict=True):
        derivatives = torch.autograd.grad(
            log_probabilities, outputs, label.expand(len(x), -1), retain_graph=True, materialize_grads=True
        )
        for sums, derivative in zip(squares, derivatives, strict=True):
            sums.addcmul_(derivative.square(), probability[:, None])
    fisher = {}
    for (name, layer), squared_inputs, sums in zip(layers.items(), inputs, squares, strict=True):
        if layer.weight.requires_grad:
            fisher[f"{name}weight"] = sums.T @ squared_inputs / len(x)
        if layer.bias is not None and layer.bias.requires_grad:
            fisher[f"{name}bias"] = sums.sum(dim=0) / len(x)
    return fisher


def check_layers(model: nn.Module) -> None:
    """Raise UserError if `diagonal_fisher` cannot be computed for this model."""
    _linear_layers(model)


def _linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """Return the linear layers that learn, by the beginning of their parameters' names."""
    layers = {
        f"{name}." if name else "": module
        for name, module in model.named_modules()
        if type(module) is nn.Linear and _learning(module)
    }
    owned = [id(p) for layer in layers.values() for p in _learning(layer)]
    if sorted(owned) != sorted(id(p) for p in _learning(model)):
        raise UserError("the Fisher information is implemented for linear layers that share no parameters only.")
    return layers


def _learning(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def _recorded(layers: dict[str, nn.Linear], logits: Logits, x: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Compute the logits. Return the squared input and the output of each layer, and the logits."""
    calls: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in layers}

    def record(name: str, layer_input: Tensor, output: Tensor) -> Tensor:
        # An in-place operation after the layer, such as ReLU(inplace=True), must not change the recorded output.
        calls[name].append((layer_input.detach().square(), output))
        return output.clone()

    hooks = [
        layer.register_forward_hook(lambda _, inputs, output, name=name: record(name, inputs[0], output))
        for name, layer in layers.items()
    ]
    try:
        answers = logits(x)
    finally:
        for hook in hooks:
            hook.remove()
    once = all(len(call) == 1 and call[0][0].shape[:-1] == (len(x),) for call in calls.values())
    if not once or not answers.requires_grad:
        raise UserError("the logits must call each linear layer once, on one row per image, with gradients enabled.")
    return [call[0][0] for call in calls.values()], [call[0][1] for call in calls.values()], answers


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model into evaluation mode, in which images do not influence each other, and restore the mode after."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
