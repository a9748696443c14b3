"""The hybrid network of GRLU's author: GRLU learns from the code of a frozen autoencoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from plastic_grlu.config import BACKBONE_BATCH, BACKBONE_HIDDEN

if TYPE_CHECKING:
    from plastic_cli import Run
    from plastic_cli.data.datasets import Dataset


def make_autoencoder(inputs: int, latent: int, generator: torch.Generator, device: torch.device | str) -> nn.Module:
    """Return an autoencoder inputs-256-latent-256-inputs with ReLU; its parts are `encoder` and `decoder`."""
    autoencoder = nn.ModuleDict(
        {
            "encoder": nn.Sequential(nn.Linear(inputs, BACKBONE_HIDDEN), nn.ReLU(), nn.Linear(BACKBONE_HIDDEN, latent)),
            "decoder": nn.Sequential(
                nn.ReLU(), nn.Linear(latent, BACKBONE_HIDDEN), nn.ReLU(), nn.Linear(BACKBONE_HIDDEN, inputs)
            ),
        }
    )
    for module in autoencoder.modules():
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(module.bias)
    return autoencoder.to(device)


def train_autoencoder(autoencoder: nn.Module, data: Dataset, run: Run, epochs: int) -> None:
    """Train the autoencoder to reconstruct the training images (mean squared error, Adam at 1e-3), then freeze it."""
    optimizer = torch.optim.Adam(autoencoder.parameters(), lr=1e-3)
    order = run.generator("backbone order")
    run.track(autoencoder=autoencoder, autoencoder_optimizer=optimizer, autoencoder_order=order)
    parts = dict(autoencoder.named_children())
    x = data.train.x
    for _ in run.steps(epochs, "backbone epoch"):
        total = torch.zeros((), device=x.device)
        for batch in torch.randperm(len(x), generator=order).to(x.device).split(BACKBONE_BATCH):
            loss = nn.functional.mse_loss(parts["decoder"](parts["encoder"](x[batch])), x[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(batch)
        run.log("backbone", loss=total / len(x))
    autoencoder.requires_grad_(False)
