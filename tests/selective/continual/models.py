"""Small networks, and the Fisher information by its definition, for the tests of penalties."""

import numpy as np
import torch
from torch import nn


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count, features=5, seed=1):
    return torch.randn(count, features, generator=generator(seed), dtype=torch.float64)


def network(*modules):
    return nn.Sequential(*modules).double()


def mlp():
    return network(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4))


def masked(model, allowed=(0, 2)):
    keep = torch.zeros(4, dtype=torch.bool)
    keep[list(allowed)] = True
    return lambda x: model(x).masked_fill(~keep, -torch.inf)


def fisher_by_definition(model, x, logits):
    """The mean over images of the expected squared derivative of log p, with labels from the model's own answer."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    total = {name: np.zeros(tuple(p.shape)) for name, p in parameters.items()}
    for image in x:
        probabilities = logits(image[None])[0].softmax(0).tolist()
        for label, probability in enumerate(probabilities):
            if probability == 0:
                continue
            log_p = logits(image[None])[0].log_softmax(0)[label]
            gradients = torch.autograd.grad(log_p, list(parameters.values()), allow_unused=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    total[name] += probability * gradient.numpy() ** 2 / len(x)
    return total


def assert_same(tensors, arrays, rtol=1e-10, atol=1e-14):
    assert tensors.keys() == arrays.keys()
    for name, tensor in tensors.items():
        np.testing.assert_allclose(tensor.detach().numpy(), arrays[name], rtol=rtol, atol=atol, err_msg=name)


class Unused(nn.Module):
    """Has a layer that the logits do not depend on."""

    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(5, 4), nn.Linear(5, 4)

    def forward(self, x):
        self.unused(x)
        return self.used(x)


def frozen():
    model = mlp()
    model[0].weight.requires_grad_(False)
    model[2].bias.requires_grad_(False)
    return model
