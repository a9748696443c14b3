"""The weights of a network from a file that another program wrote."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from plastic_cli.credit.parameters import unwrapped
from plastic_cli.errors import UserError

NESTED = ("state_dict", "model_state_dict", "model", "network", "net")
"""The keys under which training programs store a state_dict in a checkpoint."""
_MOST_NAMES = 3

HOW_TO_SAVE = "Save its state_dict: torch.save(model.state_dict(), 'weights.pt')."


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load weights by name into a network; names may have the prefixes "module." and "_orig_mod.".

    source: where they come from, for errors. Raises UserError if they do not fit.
    """
    given = dict(zip(unwrapped(weights), weights.values(), strict=True))
    own = network.state_dict()
    expected = dict(zip(unwrapped(own), own, strict=True))
    problems = _problems({name: own[key] for name, key in expected.items()}, given)
    if problems:
        raise UserError(f"{source} does not fit the network: {'; '.join(problems)}.")
    network.load_state_dict({expected[name]: value for name, value in given.items()}, strict=False)


def read_weights(path: Path, option: str = "--weights") -> dict[str, Tensor]:
    """Return the weights in a file by name, on the CPU.

    path: a state_dict written by `torch.save`, or a checkpoint that holds one under a key of `NESTED`, or a file of
    safetensors. Nothing in the file can run code. Raises UserError if it cannot be read.
    """
    if not path.is_file():
        raise UserError(f"{option} {path}: there is no such file.")
    content = _read_safetensors(path, option) if path.suffix == ".safetensors" else _read_torch(path, option)
    candidates = [content, *(content[key] for key in NESTED if key in content)] if isinstance(content, Mapping) else []
    for candidate in candidates:
        if (
            isinstance(candidate, Mapping)
            and candidate
            and all(isinstance(part, Tensor) for part in candidate.values())
        ):
            return {str(name): part for name, part in candidate.items()}
    held = f"a {type(content).__name__}" if not isinstance(content, Mapping) else "other things than weights by name"
    raise UserError(f"{option} {path} holds {held}. {HOW_TO_SAVE}")


def _read_torch(path: Path, option: str) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        if not zipfile.is_zipfile(path):
            raise UserError(f"{option} {path} is not a file of weights. {HOW_TO_SAVE}") from None
        raise UserError(
            f"{option} {path} holds a whole module or other Python objects. They can run code and are not loaded."
            f" {HOW_TO_SAVE}"
        ) from None
    except Exception as error:
        # For a damaged file torch.load raises errors of any kind.
        reason = str(error).partition("\n")[0].partition(". ")[0].rstrip(".") or type(error).__name__
        raise UserError(f"{option} {path} cannot be read ({reason}). {HOW_TO_SAVE}") from error


def _read_safetensors(path: Path, option: str) -> Any:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise UserError(
            f"{option} {path}: files of safetensors need `pip install safetensors`, or save the state_dict with"
            " torch.save."
        ) from None
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{option} {path} cannot be read ({error}).") from error


def _problems(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """Return in words how weights do not fit a network: names that lack, names that are unknown, other shapes."""
    # Files of old versions of torch do not have these counters.
    lacking = [name for name in expected if name not in given and not name.endswith("num_batches_tracked")]
    unknown = [name for name in given if name not in expected]
    other = [
        f"{name} is {_by(given[name])}, not {_by(value)}"
        for name, value in expected.items()
        if name in given and given[name].shape != value.shape
    ]
    problems = []
    if lacking:
        problems.append(f"it has no {_listed(lacking)}")
    if unknown:
        problems.append(f"the network has no {_listed(unknown)}")
    if other:
        problems.append(_listed(other))
    return problems


def _listed(words: list[str]) -> str:
    more = f" and {len(words) - _MOST_NAMES} more" if len(words) > _MOST_NAMES else ""
    return ", ".join(words[:_MOST_NAMES]) + more


def _by(value: Tensor) -> str:
    return " x ".join(str(size) for size in value.shape) or "one number"
