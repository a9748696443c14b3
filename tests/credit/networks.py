"""The networks on which every credit rule is tested, in float64, with a batch of inputs and labels for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 5


class Attention(nn.Module):
    """Self-attention built of Linear layers."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(features, features) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        scores = torch.softmax(q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5, -1)
        return self.out((scores @ v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(features, heads)
        self.norm1, self.norm2 = nn.LayerNorm(features), nn.LayerNorm(features)
        self.up, self.down = nn.Linear(features, 2 * features), nn.Linear(2 * features, features)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """Two blocks on tokens, with a learned position and a readout of the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 8)
        self.position = nn.Parameter(0.1 * torch.randn(4, 8))
        self.blocks = nn.Sequential(Block(8, 2), Block(8, 2))
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc(self.blocks(self.embedding(tokens) + self.position).mean(1))


class Recurrent(nn.Module):
    """A recurrent layer of torch.nn on (batch, time, features), and a readout of the last time step."""

    def __init__(self, layer: nn.Module, hidden: int) -> None:
        super().__init__()
        self.rnn, self.fc = layer, nn.Linear(hidden, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.rnn(x)[0][:, -1])


class UnrolledCell(nn.Module):
    """A GRU cell, called once for each time step: its weights are shared in time."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.fc = nn.GRUCell(3, 6), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 6)
        for step in x.unbind(1):
            h = self.cell(step, h)
        return self.fc(h)


class Shared(nn.Module):
    """One layer that is used twice, with a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.fc = nn.Linear(6, 6), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.inside(x))
        return self.fc(h + torch.tanh(self.inside(h)))


class Encoder(nn.Module):
    """An encoder layer of torch.nn, with nn.MultiheadAttention."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer(x).mean(1))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, CLASSES))


def lenet() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(16, 10), nn.ReLU(), nn.Linear(10, CLASSES)),
    )


def normalized() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True)),
        *(nn.Conv2d(4, 4, 3, groups=2), nn.GroupNorm(2, 4), nn.Sigmoid()),
        *(nn.Flatten(), nn.LayerNorm(16), nn.Linear(16, CLASSES)),
    )


@dataclass(frozen=True)
class Case:
    """A network with the shape of its inputs, without the batch. tokens: the inputs are integers below 7."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    tokens: bool = False
    batch: int = 4

    def draw(self, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Any, Tensor]:
        """Return the network, a batch of inputs, and labels."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = self.make().to(dtype)
            shape = (self.batch, *self.shape)
            x = torch.randint(7, shape) if self.tokens else torch.randn(shape, dtype=dtype)
            y = torch.randint(CLASSES, (self.batch,))
        return model, x, y


NETWORKS = {
    "mlp": Case(mlp, (6,)),
    "lenet": Case(lenet, (1, 12, 12)),
    "resnet18": Case(lambda: torchvision.models.resnet18(num_classes=CLASSES), (3, 16, 16), batch=2),
    "transformer": Case(Transformer, (4,), tokens=True),
    "gru": Case(lambda: Recurrent(nn.GRU(3, 6, batch_first=True), 6), (4, 3)),
}
"""The networks of the issue on which feedback rules equal the gradient if feedback is symmetric."""

UNUSUAL = {
    "gru-cell": Case(UnrolledCell, (4, 3)),
    "lstm": Case(lambda: Recurrent(nn.LSTM(3, 6, num_layers=2, batch_first=True, bidirectional=True), 12), (4, 3)),
    "elman": Case(lambda: Recurrent(nn.RNN(3, 6, batch_first=True), 6), (4, 3)),
    "encoder-layer": Case(Encoder, (4, 8)),
    "shared": Case(Shared, (6,)),
    "normalized": Case(normalized, (2, 6, 6)),
    "conv1d": Case(
        lambda: nn.Sequential(nn.Conv1d(2, 4, 3, stride=2, dilation=2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 5)),
        (2, 10),
    ),
    "conv3d": Case(
        lambda: nn.Sequential(nn.Conv3d(1, 3, 2, padding="same"), nn.Tanh(), nn.Flatten(), nn.Linear(81, 5)),
        (1, 3, 3, 3),
    ),
    "transposed": Case(
        lambda: nn.Sequential(
            nn.ConvTranspose2d(2, 3, 3, stride=2, output_padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(192, 5)
        ),
        (2, 3, 3),
    ),
}
"""Further layers that every credit rule must be able to teach."""

EVERY = {**NETWORKS, **UNUSUAL}


def losses_of(y: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the cross-entropy of each sample as a function of the logits."""
    return lambda output: functional.cross_entropy(output, y, reduction="none")


def gradient_of(model: nn.Module, x: Any, y: Tensor) -> dict[str, Tensor]:
    """Return the gradient of the mean loss with respect to each parameter, by autograd; changes nothing."""
    parameters = dict(model.named_parameters())
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    losses = losses_of(y)(torch.func.functional_call(model, {**parameters, **buffers}, (x,)))
    found = torch.autograd.grad(losses.mean(), list(parameters.values()))
    return dict(zip(parameters, found, strict=True))
