"""Rule: what a plugin registers. Imports nothing heavy, so that a plugin's `__init__` stays light."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from types import FunctionType, ModuleType
from typing import Any, Literal

from plastic_cli.errors import UserError, did_you_mean
from plastic_cli.plugins.metrics import Metric

VERBS = {"train": "train", "eval": "evaluate", "analyze": "analyze", "render": "render"}
"""The four verbs of the command line, and the function of each in a rule's commands module."""

Member = Literal["build", "network", "credit", "cost", "headline_figures"]
MEMBERS: tuple[Member, ...] = ("build", "network", "credit", "cost", "headline_figures")
"""Optional functions of a rule."""


@dataclass(frozen=True)
class Rule:
    """One plasticity rule, with everything that a plugin can offer for it.

    name: the word on the command line. summary: one line for `--help`. citation: where the rule was published.
    commands: the module with `train`, `evaluate`, `analyze` and `render`, which is imported if one of them runs or
    shows its help. In the package of this module, a file `claims.toml` holds published results, and `citation.bib` the
    BibTeX entries that `plastic cite` prints. metrics: names and units of the metrics that the rule logs, by their name
    or by "split/name"; `theta_N` stands for `theta_0`, `theta_1`, ...

    Optional functions, each as "module:function":
    build: `build(run, data, *, trained=True)` returns the learner of a run of a classifier, trained or with its initial
    weights; `plastic analyze RULE --other` needs it.
    network: `network(run)` returns the trained network of a run as a torch.nn.Module in evaluation mode, whose
    parameters are the trained weights. For a classifier `network(x)` returns logits (batch, classes) of images x as the
    data set gives them. It may have options, as keyword arguments with defaults.
    credit: `credit(config, model, run)` returns the credit rule of a torch module for the options `config` of the train
    command, or None for the gradient. `run` offers the seed, as in `run.generator("noise")`.
    cost: `cost(record)` returns the Cost of the training of a completed run, a function of its configuration, the
    shapes of its data and the events that it counted (`record.config`, `record.data`, `record.summary`). It trains
    nothing. It raises UserError if the record does not say enough.
    headline_figures: `headline_figures(runs, metrics)` returns figures of plotnine by file name for `plastic report`,
    from the frames of `RunStore.runs` and `RunStore.metrics`.

    optimizers: optimizers that the rule offers to all others for `--optimizer`, as "module:class" by name. They are
    called as those of torch: `class(parameters, lr=..., weight_decay=...)`.
    """

    name: str
    summary: str
    citation: str
    commands: str
    build: str | None = None
    network: str | None = None
    credit: str | None = None
    cost: str | None = None
    headline_figures: str | None = None
    optimizers: Mapping[str, str] = field(default_factory=dict, hash=False)
    metrics: Mapping[str, Metric] = field(default_factory=dict, hash=False)

    def load(self) -> ModuleType:
        """Import the module of the rule's commands."""
        return import_module(self.commands)

    def function(self, verb: str) -> Callable[..., Any] | None:
        """Return the function of `verb`, or None if the rule has none."""
        function: Callable[..., Any] | None = getattr(self.load(), VERBS[verb], None)
        return function

    def member(self, name: Member) -> Callable[..., Any] | None:
        """Return an optional function, or None if the rule has none; raises UserError if it does not exist."""
        reference: str | None = getattr(self, name)
        return None if reference is None else self._function(f"{name}='{reference}'", reference)

    def optimizer(self, name: str) -> Callable[..., Any]:
        """Return the class of an optimizer; raises UserError if it does not exist."""
        reference = self.optimizers[name]
        return self._function(f"optimizers={{'{name}': '{reference}'}}", reference)

    def _function(self, named: str, reference: str) -> Callable[..., Any]:
        module_name, _, function_name = reference.partition(":")
        module = import_module(module_name)
        function: Callable[..., Any] | None = getattr(module, function_name, None)
        if function is None:
            guess = did_you_mean(function_name, vars(module))
            raise UserError(f"the rule '{self.name}' names {named}, but {module_name} has no '{function_name}'.{guess}")
        return function

    def claims_text(self) -> str | None:
        """Return the text of the `claims.toml` next to the rule's commands, or None if there is none."""
        return self._file("claims.toml")

    def bibtex(self) -> str | None:
        """Return the text of the `citation.bib` next to the rule's commands, or None if there is none."""
        return self._file("citation.bib")

    def _file(self, name: str) -> str | None:
        from importlib.resources import files

        package = self.commands.rpartition(".")[0] or self.commands
        path = files(package) / name
        return path.read_text(encoding="utf-8") if path.is_file() else None

    def problems(self) -> list[str]:
        """Return what is wrong with the functions of the rule: a missing or misspelled one, or one not registered.

        Raises whatever importing the rule's modules raises.
        """
        module = self.load()
        missing = [name for name in VERBS.values() if not hasattr(module, name)]
        found = [f"{self.commands} has none of {', '.join(VERBS.values())}."] if len(missing) == len(VERBS) else []
        for name, value in vars(module).items():
            if not isinstance(value, FunctionType) or value.__module__ != module.__name__ or name.startswith("_"):
                continue
            if name in MEMBERS and getattr(self, name) is None:
                found.append(f"{self.commands} has {name}: register it with Rule({name}='{self.commands}:{name}').")
            elif name not in VERBS.values() and (guess := did_you_mean(name, missing)):
                found.append(f"{self.commands}.{name} is not a command.{guess}")
        checks: list[Callable[[], object]] = [partial(self.member, member) for member in MEMBERS]
        checks += [partial(self.optimizer, name) for name in self.optimizers]
        for check in checks:
            try:
                check()
            except UserError as error:
                found.append(str(error))
        return found
