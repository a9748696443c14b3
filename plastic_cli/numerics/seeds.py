"""Independent random streams from one seed: each part of a run has its own, identified by its purpose."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def seed_sequence(seed: int, purpose: str) -> np.random.SeedSequence:
    """Return the stream of `seed` for one purpose, such as "noise" or "order".

    Streams of different seeds or purposes are independent, and a new purpose changes none of the others.
    """
    return np.random.SeedSequence(entropy=seed, spawn_key=(zlib.crc32(purpose.encode()),))


def derived_seed(seed: int, purpose: str) -> int:
    """Return a 63-bit seed for one purpose, for libraries that take an integer."""
    return int(seed_sequence(seed, purpose).generate_state(1, np.uint64)[0] >> np.uint64(1))


def torch_generator(seed: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a torch generator for one purpose."""
    import torch

    return torch.Generator(device=device).manual_seed(derived_seed(seed, purpose))
