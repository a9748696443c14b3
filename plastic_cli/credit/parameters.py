"""Which parameters of a module a credit rule teaches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from torch import Tensor, nn

from plastic_cli.errors import UserError, did_you_mean

WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that DataParallel and torch.compile add to all names of a module."""


def named_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of a module by name, without the prefixes of wrappers. A shared parameter has one name."""
    found = dict(model.named_parameters())
    return dict(zip(unwrapped(found), found.values(), strict=True))


def unwrapped(names: Iterable[str]) -> list[str]:
    """Return names without the prefixes of wrappers, which all names of a wrapped module share."""
    found = list(names)
    while found:
        prefix = next((prefix for prefix in WRAPPERS if all(name.startswith(prefix) for name in found)), None)
        if prefix is None:
            break
        found = [name.removeprefix(prefix) for name in found]
    return found


def taught(model: nn.Module, modules: str | Sequence[str] | None = None) -> dict[str, nn.Parameter]:
    """Return the parameters that a rule teaches, by name: those of `modules` that require a gradient.

    modules: names of modules or parameters, which include everything inside them, or patterns such as "layer*.conv1";
    None: the whole module. Raises UserError if a name does not exist, if nothing is left to teach, and if the model is
    no torch module.
    """
    if not isinstance(model, nn.Module):
        kind = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
        raise UserError(f"the model is {kind}: a credit rule teaches a torch module.")
    every = named_parameters(model)
    chosen = every if modules is None else _matching(every, [modules] if isinstance(modules, str) else modules)
    learning = {name: parameter for name, parameter in chosen.items() if parameter.requires_grad}
    if not learning:
        where = "the module has" if modules is None else f"modules={modules!r}: they have"
        raise UserError(f"{where} no parameter that requires a gradient, so there is nothing to teach.")
    return learning


def others(model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """Return the parameters of a module that require a gradient and are not among `parameters`."""
    return {
        name: parameter
        for name, parameter in named_parameters(model).items()
        if parameter.requires_grad and name not in parameters
    }


def accumulate(parameter: nn.Parameter, gradient: Tensor) -> None:
    """Add a gradient to `.grad` of a parameter, in the type of the parameter, as torch's backward does."""
    if parameter.grad is None:
        # A copy: autograd gives one tensor to both terms of a sum.
        parameter.grad = gradient.detach().to(parameter.dtype, copy=True)
    else:
        parameter.grad.add_(gradient.detach())


def _matching(every: Mapping[str, nn.Parameter], modules: Sequence[str]) -> dict[str, nn.Parameter]:
    prefixes = {name: _prefixes(name) for name in every}
    known = sorted({prefix for own in prefixes.values() for prefix in own})
    chosen: set[str] = set()
    for word in modules:
        plain = word
        for wrapper in WRAPPERS:
            plain = plain.removeprefix(wrapper) if word not in known else plain
        found = {name for name, own in prefixes.items() if any(fnmatchcase(prefix, plain) for prefix in own)}
        if not found:
            raise UserError(
                f"modules: there is no module '{word}' with parameters.{did_you_mean(word, known)} print(model) shows"
                " their names."
            )
        chosen |= found
    return {name: parameter for name, parameter in every.items() if name in chosen}


def _prefixes(name: str) -> list[str]:
    """Return the names of the modules that contain a parameter, and its own name."""
    parts = name.split(".")
    return [".".join(parts[: length + 1]) for length in range(len(parts))]
