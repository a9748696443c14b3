"""Choosing where to compute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plastic_cli.errors import UserError

if TYPE_CHECKING:
    import torch


def find_device(name: str) -> torch.device:
    """Return the device called `name`; `auto` takes CUDA where there is one.

    Raises UserError where CUDA is asked for and torch finds none.
    """
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        build = "this build of torch has no CUDA" if torch.version.cuda is None else "torch finds no CUDA device here"
        raise UserError(f"--device cuda: {build}. Use --device cpu, or auto to take a GPU only where there is one.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
