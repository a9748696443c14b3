"""`plastic.analyze` of a torch module that belongs to no run."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plastic_cli.api.console import PythonConsole
from plastic_cli.api.options import split_options
from plastic_cli.api.outcome import Analysis
from plastic_cli.config.classifier import NetworkAnalyzeConfig
from plastic_cli.errors import OptionError, UserError
from plastic_cli.runs.attributes import independent_copy
from plastic_cli.signals import signals_as_interrupts
from plastic_cli.verbs.network import Build, NetworkOptions, Source, analyze_source

if TYPE_CHECKING:
    from torch import nn

    from plastic_cli.classifier.networks import BuiltNetwork
    from plastic_cli.data.datasets import Dataset

ONLY_IN_THE_SHELL = ("model", "weights", "hidden")
"""Options that name a network, which a module replaces."""


def analyze_module(module: nn.Module, options: dict[str, Any]) -> Analysis:
    """Analyze a trained module; see `plastic.analyze`."""
    given = dict(options)
    untrained, other = given.pop("untrained", None), given.pop("other", None)
    for name in ONLY_IN_THE_SHELL:
        if name in given:
            raise OptionError(f"there is no option '{name}' for a module: the module is the network.", name)
    typed, chosen = split_options(given, NetworkAnalyzeConfig, NetworkOptions)
    config = NetworkAnalyzeConfig.from_values(typed)
    if config.dataset is None:
        raise OptionError("analyze(module) needs a data set: analyze(module, dataset='mnist').", "dataset")
    if other is not None and not config.cka:
        raise OptionError("other does nothing without cka=True. Leave it out.", "other")
    name = type(module).__name__
    source = Source(
        name,
        _building(module, "the module"),
        lambda data: _building(_untrained(module, untrained, config.seed), "untrained")(data),
        None if other is None else _building(other, "other"),
        "" if other is None else f"the other {type(other).__name__}",
        {"model": name},
    )
    with signals_as_interrupts():
        run = analyze_source(source, config, chosen, PythonConsole(quiet=chosen.quiet), Path("analysis") / name)
    return Analysis.of(run)


def _building(module: Any, option: str) -> Build:
    """Return the function that gives a copy of a module for a data set; the user's own stays as it is."""
    from torch import nn

    if not isinstance(module, nn.Module):
        raise OptionError(f"{option} is of type {type(module).__name__}: give a torch module.", option)

    def build(data: Dataset) -> BuiltNetwork:
        from plastic_cli.classifier.networks import existing_network

        return existing_network(independent_copy(module).cpu(), data)

    return build


def _untrained(module: nn.Module, untrained: nn.Module | Callable[[], nn.Module] | None, seed: int) -> Any:
    """Return the untrained network: what the user gives, or a copy of the module with new initial weights.

    Raises UserError if a layer cannot draw its weights again.
    """
    from torch import nn

    from plastic_cli.classifier.networks import seeded
    from plastic_cli.numerics.seeds import derived_seed

    with seeded(derived_seed(seed, "weights")):
        if untrained is not None:
            return untrained if isinstance(untrained, nn.Module) or not callable(untrained) else untrained()
        fresh = copy.deepcopy(module)
        drawn: set[int] = set()
        for layer in fresh.modules():
            # nn.MultiheadAttention has the name with an underscore.
            draw = getattr(layer, "reset_parameters", None) or getattr(layer, "_reset_parameters", None)
            if callable(draw):
                draw()
                drawn |= {id(parameter) for parameter in layer.parameters()}
        left = [name for name, parameter in fresh.named_parameters() if id(parameter) not in drawn]
    if left:
        raise UserError(
            f"the untrained network is not known: no layer can draw {left[0]} again with reset_parameters(). Pass"
            " untrained=..., a module before training or a function that makes one."
        )
    return fresh
