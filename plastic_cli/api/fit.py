"""`plastic.fit`: a learner or a module of a notebook becomes a run, without a plugin."""

from __future__ import annotations

import copy
import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, overload

from pydantic import create_model

from plastic_cli.api.chosen import with_resumed
from plastic_cli.api.console import PythonConsole
from plastic_cli.api.options import split_options
from plastic_cli.api.training import train_all
from plastic_cli.config.classifier import ClassifierAnalyzeConfig, ClassifierEvaluateConfig, FitConfig
from plastic_cli.config.model import Config
from plastic_cli.errors import OptionError, UserError
from plastic_cli.plugins.discovery import plugin_names
from plastic_cli.plugins.rule import Rule
from plastic_cli.runs.attributes import independent_copy
from plastic_cli.runs.exports import find_exports
from plastic_cli.runs.folder import check_run_name
from plastic_cli.runs.record import BOOKKEEPING, RunRecord, read_record
from plastic_cli.runs.store import RunStore
from plastic_cli.runs.stored import StoredRun
from plastic_cli.verbs.options import TrainingOptions
from plastic_cli.verbs.train import new_runs, planned_config, resumed_run
from plastic_cli.verbs.verb import RuleVerb, Session

if TYPE_CHECKING:
    import torch
    from torch import nn

    from plastic_cli.classifier.learner import Learner
    from plastic_cli.credit.protocol import Credit
    from plastic_cli.data.datasets import Dataset
    from plastic_cli.runs.run import Run

INITIAL = "initial-learner"
"""The stored state of a learner before it has learned."""


@overload
def fit(
    learner: Any, optimizer: Any = None, *, credit: Any = None, seeds: None = None, **options: Any
) -> StoredRun: ...
@overload
def fit(learner: Any, optimizer: Any = None, *, credit: Any = None, seeds: int, **options: Any) -> list[StoredRun]: ...
def fit(
    learner: Any,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    credit: Credit | None = None,
    seeds: int | None = None,
    rule: str | None = None,
    settings: Mapping[str, Any] | None = None,
    **options: Any,
) -> StoredRun | list[StoredRun]:
    """Train a classifier of your own, and store it as a run with metrics, checkpoints and a row in the report.

    learner: an object with `train_batch(x, y)`, which learns from one batch and returns its loss or None, and
    `predict(x)`, which returns logits (batch, classes); or a torch module that returns logits, with its `optimizer`;
    or a function that receives a seed and returns one of these, a pair (module, optimizer), or (module, optimizer,
    credit). x is (batch, features), normalized; y is (batch,), class numbers. With `features(x)`, which returns the
    activity of each hidden layer, a learner can be analyzed further. Without `state_dict` and `load_state_dict`, a
    checkpoint holds the attributes of the learner.

    credit: a credit rule of this module, such as `NodePerturbation(module)`, which fills the gradients that the
    optimizer applies; None for backpropagation.

    seeds: the number of runs, with the seeds seed, seed + 1, ...; the learner is then a function. rule: the name in
    tables and reports (default: the name of the class or function in lower case with hyphens). settings: values that
    distinguish runs in the report, such as {"rate": 0.1}. A class or function gets those that are names of its
    parameters: fit(DeltaRule, settings={"rate": 0.1}) calls DeltaRule(seed, rate=0.1); **kwargs get none. For a module
    its optimizer, learning rate and credit rule are added.
    options: `dataset` (a name, folder or .npz file), `epochs`, `batch_size`, `validation`, `seed`, `device`, `images`
    (the module takes images (batch, channels, height, width)); `name`, `runs` and `data` (folders), `resume` (a run or
    its id), `export`, `quiet`.

    The global random numbers of torch, NumPy and Python are seeded for each run, and restored at the end.

    Returns a StoredRun, or with `seeds` a list. Raises UserError, a ValueError, for a wrong learner or option;
    RunFailed if the loss is not finite.
    """
    given = with_resumed({**options, **({} if seeds is None else {"seeds": seeds})})
    chosen = TrainingOptions.from_values({name: given[name] for name in TrainingOptions.model_fields if name in given})
    resumed = None if chosen.resume is None else read_record(RunStore(chosen.runs_folder()).find(chosen.resume))
    own = {**_settings_of_optimizer(optimizer), **_settings_of_credit(credit), **_plain_settings(settings)}
    model = _model_with(own, resumed)
    typed, chosen = split_options(given, model, TrainingOptions)
    named = {name: field.default for name, field in model.model_fields.items() if name not in FitConfig.model_fields}
    make = _maker(learner, optimizer, credit, named, one=chosen.seeds == 1)
    made: dict[str, Any] = {}

    def learn(config: FitConfig, run: Run) -> None:
        _seed_global_random_numbers(run.seed)
        made[run.id] = make(run.seed)
        _learn(config, run, made[run.id])

    name = _rule_name(rule, learner) if resumed is None else resumed.rule
    verb = RuleVerb("train", _unregistered(name), learn, model)
    console = PythonConsole(quiet=chosen.quiet)
    exports = find_exports(chosen.export, console.warning)
    session = Session(chosen.runs_folder(), console, chosen.data, exports, (f"plastic.fit(rule={name!r})",))
    if resumed is None:
        runs = new_runs(verb, planned_config(verb, {**typed, **own}, chosen), chosen, session)
    else:
        runs = iter([resumed_run(verb, {**typed, **own}, chosen, session)])
    with _global_random_numbers_restored():
        trained = train_all(verb, runs, chosen.data, lambda run: f'plastic.fit(learner, resume="{run.id}")')
    finished = [
        replace(run, learner=_as_given(made.get(run.id)), credit=getattr(made.get(run.id), "credit", None))
        for run in trained
    ]
    return finished[0] if seeds is None else finished


def learner_verb(name: str, rule: str, learner: Any) -> RuleVerb:
    """Return eval or analyze for a run of `fit`: `learner` gets the trained state, or the one before training."""
    from plastic_cli.classifier.analyze import analyze_classifier
    from plastic_cli.classifier.evaluate import evaluate_classifier

    carried_out: dict[str, tuple[Callable[..., Any], type[Config]]] = {
        "eval": (evaluate_classifier, ClassifierEvaluateConfig),
        "analyze": (analyze_classifier, ClassifierAnalyzeConfig),
    }

    def build(run: Run, data: Dataset, *, trained: bool = True) -> Learner:
        # Two of them are compared, so the user's own object stays as it is.
        built: Learner = _with_images(
            independent_copy(as_learner(learner)), data, images=bool(run.config.get("images"))
        )
        if trained:
            run.restore("learner", built)
        else:
            run.restore_state(INITIAL, built)
        return built

    if name not in carried_out:
        raise UserError(f"a run of fit has no {name}. Write a plugin for it: plastic new-rule.")
    function, model = carried_out[name]
    return RuleVerb(name, _unregistered(rule), lambda config, run: function(config, run, build), model)


def as_learner(thing: Any) -> Any:
    """Return a learner, a module, (module, optimizer) or (module, optimizer, credit) as a learner.

    Raises UserError for anything else.
    """
    from torch import nn

    from plastic_cli.classifier.module import ModuleLearner

    if callable(getattr(thing, "train_batch", None)) and callable(getattr(thing, "predict", None)):
        return thing
    if isinstance(thing, tuple) and len(thing) in (2, 3) and isinstance(thing[0], nn.Module):
        module, optimizer, credit = (*thing, None)[:3]
        return ModuleLearner(module, optimizer, credit=credit)
    if isinstance(thing, nn.Module):
        return ModuleLearner(thing)
    raise UserError(
        f"fit cannot train an object of type {type(thing).__name__}: give one with train_batch(x, y) and predict(x), or"
        " a torch module and its optimizer."
    )


def _learn(config: FitConfig, run: Run, learner: Any) -> None:
    """Train a learner on the data set of the configuration, from its initial state or from the checkpoint."""
    from plastic_cli.classifier.credit_metrics import CreditMetrics
    from plastic_cli.classifier.fit import fit as fit_classifier
    from plastic_cli.classifier.module import ModuleLearner
    from plastic_cli.data.datasets import load_dataset

    data = load_dataset(config.dataset, run.data_folder, validation=config.validation, device=run.device)
    learner = _with_images(learner, data, images=config.images)
    if run.stored_tensors(INITIAL):
        # The learner of an interrupted cell has learned already.
        run.restore_state(INITIAL, learner)
    else:
        run.save_state(INITIAL, learner)
    after_epoch = None
    with _rows_refused(learner, data):
        if isinstance(learner, ModuleLearner) and learner.credit is not None:
            after_epoch = CreditMetrics(learner, run, data, config.batch_size).log
        fit_classifier(learner, data, run, epochs=config.epochs, batch_size=config.batch_size, after_epoch=after_epoch)


@contextmanager
def _rows_refused(learner: Any, data: Dataset) -> Iterator[None]:
    """Raise UserError in place of the error of a module with convolutions that gets rows of pixels, not images."""
    from torch.nn.modules.conv import _ConvNd

    from plastic_cli.classifier.module import ModuleLearner
    from plastic_cli.classifier.networks import takes_only_images

    try:
        yield
    except Exception as error:
        # Layers before a convolution and rules raise errors of several kinds.
        if (
            isinstance(learner, ModuleLearner)
            and learner.image_shape is None
            and any(isinstance(layer, _ConvNd) for layer in learner.network.modules())
            and takes_only_images(learner.network, data)
        ):
            raise UserError(
                f"the module {type(learner.network).__name__} takes images, not rows of pixels: add images=True."
            ) from error
        raise


def _maker(
    learner: Any, optimizer: Any, credit: Any, settings: Mapping[str, Any], *, one: bool
) -> Callable[[int], Any]:
    """Return the function that builds the learner of a seed, with the settings that it has parameters for."""
    from torch import nn

    from plastic_cli.classifier.module import ModuleLearner

    def finished(thing: Any) -> Any:
        built = as_learner(thing)
        if isinstance(built, ModuleLearner):
            if built.optimizer is None:
                raise UserError("a module needs an optimizer to learn: fit(module, optimizer).")
            _check_optimizes(built.optimizer, built.network)
            _check_teaches(built.credit, built.network)
        return built

    is_learner = isinstance(learner, nn.Module) or hasattr(learner, "train_batch")
    if isinstance(learner, type) or (callable(learner) and not is_learner):
        if credit is not None:
            raise UserError("credit belongs to one module: let the function return (module, optimizer, credit).")
        taken = _taken_settings(learner, settings)
        # A copy, so that a learner that changes a list changes neither the next seed nor what the run stores.
        return lambda seed: finished(learner(seed, **copy.deepcopy(taken)))
    if not one:
        raise UserError("seeds needs a function that builds the learner of a seed: fit(lambda seed: ..., seeds=3).")
    if credit is not None and not isinstance(learner, nn.Module):
        raise UserError("credit is for a torch module and its optimizer. A learner of your own learns by itself.")
    ready = finished((learner, optimizer, credit) if isinstance(learner, nn.Module) else learner)
    return lambda _: ready


def _taken_settings(build: Callable[..., Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that are names of parameters of a class or function, apart from the first: the seed.

    A parameter whose default is no plain value, such as a module, gets none: there a setting is a label. Raises
    UserError, before a run is created, if it cannot be called with the seed and these.
    """
    try:
        # The function that is called, not one that it wraps.
        signature = inspect.signature(build, follow_wrapped=False)
    except ValueError:
        # Some functions that are not written in Python do not tell.
        return {}
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    plain = (bool, int, float, str, list, tuple, type(None))
    names = [
        name
        for name, parameter in [*signature.parameters.items()][1:]
        if parameter.kind in by_name and (parameter.default is parameter.empty or isinstance(parameter.default, plain))
    ]
    taken = {name: value for name, value in settings.items() if name in names}
    try:
        signature.bind(0, **taken)
    except TypeError as error:
        name = getattr(build, "__name__", type(build).__name__)
        raise UserError(
            f"fit calls {name}(seed), but {error}. Give an object, or a function of the seed: lambda seed: ..."
        ) from None
    return taken


def _check_optimizes(optimizer: Any, network: nn.Module) -> None:
    """Raise UserError if an optimizer holds no parameter of a module, so that nothing would be learned."""
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if held.isdisjoint(map(id, network.parameters())):
        raise UserError(
            f"the optimizer holds no parameter of the {type(network).__name__}: create it with module.parameters()."
        )


def _check_teaches(credit: Any, network: nn.Module) -> None:
    """Raise UserError if a credit rule is none, or one of another module."""
    from plastic_cli.credit.protocol import Credit

    if credit is None:
        return
    if not isinstance(credit, Credit):
        raise UserError(
            f"credit is a {type(credit).__name__}: give a credit rule such as NodePerturbation(module), with"
            " backward(inputs, loss), parameters, state_dict, load_state_dict and detach."
        )
    if {id(parameter) for parameter in credit.parameters.values()}.isdisjoint(map(id, network.parameters())):
        raise UserError(
            f"the credit rule teaches no parameter of the {type(network).__name__}: create it for this module."
        )


def _with_images(learner: Any, data: Dataset, *, images: bool) -> Any:
    """Tell a module that takes images their shape; raises UserError for another learner."""
    from plastic_cli.classifier.module import ModuleLearner

    if images:
        if not isinstance(learner, ModuleLearner):
            raise UserError("images is for a torch module. In a learner, reshape x yourself: x.unflatten(1, shape).")
        learner.image_shape = data.image_shape
    return learner


def _as_given(learner: Any) -> Any:
    """Return the module of a module's learner, and another learner as it is."""
    from plastic_cli.classifier.module import ModuleLearner

    return learner.network if isinstance(learner, ModuleLearner) else learner


def _settings_of_optimizer(optimizer: Any) -> dict[str, Any]:
    """Return the optimizer and its learning rate, as the run stores them."""
    if optimizer is None:
        return {}
    if not hasattr(optimizer, "param_groups"):
        raise UserError(
            f"the optimizer is {optimizer!r}: give an optimizer such as torch.optim.SGD(module.parameters(), lr=0.1)."
        )
    return {"optimizer": type(optimizer).__name__.lower(), "learning_rate": float(optimizer.param_groups[0]["lr"])}


def _settings_of_credit(credit: Any) -> dict[str, Any]:
    """Return the name of a credit rule, as the run stores it."""
    return {} if credit is None else {"credit": _hyphenated(type(credit).__name__)}


def _hyphenated(name: str) -> str:
    """Return the name of a class or function in lower case with hyphens."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower().strip("_")


def _model_with(settings: Mapping[str, Any], resumed: RunRecord | None) -> type[FitConfig]:
    """Return FitConfig with a field for each setting, and for each setting of the run that is continued."""
    stored = {} if resumed is None else resumed.config
    known = FitConfig.model_fields
    fields = {**{name: value for name, value in stored.items() if name not in known}, **settings}
    for name, value in fields.items():
        if not str(name).isidentifier() or str(name).startswith("_"):
            raise OptionError(
                f"settings: '{name}' cannot be the name of a setting."
                " Use letters, digits and _, and begin with a letter.",
                str(name),
            )
        # The fields of the model are attributes, and so are its methods.
        is_new = name in settings
        if hasattr(FitConfig, name) or name in known or (is_new and name in BOOKKEEPING):
            raise OptionError(
                f"settings: '{name}' cannot be the name of a setting. Choose another.",
                str(name),
            )
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            shown = value if isinstance(value, float) else f"of type {type(value).__name__}"
            raise OptionError(
                f"settings: {name} is {shown}. Give a finite number, a text, true or false, or a list of these.", name
            ) from None
    model: type[FitConfig] = create_model(
        "FitConfig",
        __base__=FitConfig,
        **{name: (bool | Any if isinstance(value, bool) else Any, value) for name, value in fields.items()},
    )  # type: ignore[call-overload]
    return model


def _plain_settings(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return settings as a run stores them: numbers, arrays and tuples as numbers and lists of Python."""
    if not isinstance(settings, Mapping | None):
        raise OptionError(
            f"settings: give a dictionary such as {{'rate': 0.1}}, not a {type(settings).__name__}.", None
        )
    plain = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in (settings or {}).items()}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}


def _rule_name(rule: str | None, learner: Any) -> str:
    """Return the name under which the run is stored; raises UserError for one that is taken or not valid."""
    word = getattr(learner, "__name__", type(learner).__name__)
    if rule is None and word == "<lambda>":
        raise OptionError("a lambda has no name for tables and reports: add rule='my-rule'.", "rule")
    name = str(rule) if rule is not None else _hyphenated(word)
    check_run_name(name, "rule")
    # Commands accept the name of an installed rule in capital letters too.
    if name.casefold() in plugin_names():
        raise OptionError(f"rule {name}: this is an installed rule. Choose another name with rule=...", "rule")
    return name


def _unregistered(name: str) -> Rule:
    return Rule(name=name, summary="", citation="", commands="")


def _seed_global_random_numbers(seed: int) -> None:
    import random

    import numpy as np
    import torch

    from plastic_cli.numerics.seeds import derived_seed

    number = derived_seed(seed, "global")
    random.seed(number)
    np.random.seed(number % 2**32)  # noqa: NPY002  the global state is what a learner may use
    torch.manual_seed(number)


@contextmanager
def _global_random_numbers_restored() -> Iterator[None]:
    from plastic_cli.runs.checkpoint import random_states, restore_random_states

    before = random_states()
    try:
        yield
    finally:
        restore_random_states(before, "of this session")
