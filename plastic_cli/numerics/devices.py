"""Choosing where to compute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plastic_cli.errors import UserError

if TYPE_CHECKING:
    import torch


def find_device(name: str) -> torch.device:
    """Return the device called `name`; `auto` is CUDA where torch finds a CUDA device, and the CPU otherwise.

    Raises UserError where `name` is a device that torch does not find.
    """
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        build = "this build of torch has no CUDA" if torch.version.cuda is None else "torch finds no CUDA device"
        raise UserError(f"--device cuda: {build}. Use --device cpu, or auto to take a GPU only where there is one.")
    if name == "mps" and not torch.backends.mps.is_available():
        raise UserError("--device mps: torch finds no Apple GPU here. Use --device cpu or auto.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
