"""The device that a run computes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plastic_cli.errors import UserError

if TYPE_CHECKING:
    import torch


def find_device(name: str) -> torch.device:
    """Return the device with this name; `auto` is CUDA if torch finds a CUDA device, otherwise the CPU.

    Raises UserError if torch does not find the device.
    """
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        build = "this build of torch has no CUDA" if torch.version.cuda is None else "torch finds no CUDA device"
        raise UserError(f"--device cuda: {build}. Use --device cpu, or auto for a GPU only if there is one.")
    if name == "mps" and not torch.backends.mps.is_available():
        raise UserError("--device mps: torch finds no Apple GPU. Use --device cpu or --device auto.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
