"""The search of `plastic tune`: the options and their ranges, and the study that stores the trials."""

from __future__ import annotations

import itertools
import json
import math
import secrets
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from plastic_cli.config.describe import is_switch, literal_choices, type_word
from plastic_cli.config.model import Config
from plastic_cli.config.parsing import split_list
from plastic_cli.distribution import install_command
from plastic_cli.errors import PlasticError, UserError, match_choice
from plastic_cli.escapes import printable_line
from plastic_cli.files import write_atomically
from plastic_cli.runs.cleaning import SWEEPS_FOLDER

Scale = Literal["linear", "log"]
MOST_EXTREMES = 4096


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, on a linear or logarithmic scale; whole: integers only."""

    low: float
    high: float
    scale: Scale
    whole: bool


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    values: tuple[str, ...]


Space = Mapping[str, Range | Choice]


def search_space(given: Config, texts: Sequence[str], fixed: Collection[str]) -> dict[str, Range | Choice]:
    """Return the options to search: those of `--search`, else all with a declared range that have an effect.

    given: the configuration without the searched options. If it has another value of one of them than the default, the
    logarithmic range moves with the value. texts: NAME (its declared range), NAME=LOW:HIGH, NAME=LOW:HIGH:log or
    NAME=A,B,C. fixed: the names of the options that keep their value. Raises UserError for options that cannot be
    searched.
    """
    model = type(given)
    space: dict[str, Range | Choice] = {}
    for text in texts:
        typed, equals, values = text.partition("=")
        (name,) = model.read_names({typed.strip().removeprefix("--").replace("-", "_"): values}, "--search")
        if name not in model.model_fields:
            raise UserError(f"--search {text}: there is no option '{name}'.{model.similar_option(name)}")
        if name in ("seed", "validation", "dataset", "device"):
            raise UserError(f"--search {text}: '{name}' cannot be searched: its best value would have no meaning.")
        if name in space:
            raise UserError(f"--search {text}: '{name}' is named twice. Name it once.")
        if name in fixed:
            raise UserError(f"--search {text}: '{name}' has a value already. Leave one of them out.")
        if equals:
            space[name] = _read_space(model, name, values, text)
        else:
            space[name] = _moved(_declared(model, name, text), given, name)
    if not texts:
        unused = model.unused_options({name: getattr(given, name) for name in model.model_fields})
        for name in model.model_fields:
            if name not in fixed and name not in unused and _declaration(model, name) is not None:
                space[name] = _moved(_declared(model, name, name), given, name)
    if not space:
        raise UserError(
            "there is nothing to search: name an option and its range, as in --search learning_rate=1e-4:0.1:log."
        )
    return space


def _declaration(model: type[Config], name: str) -> Any:
    extra = model.model_fields[name].json_schema_extra
    return extra.get("search") if isinstance(extra, dict) else None


def _declared(model: type[Config], name: str, text: str) -> Range | Choice:
    declared = _declaration(model, name)
    if declared is not None:
        low, high, scale = declared
        return Range(low, high, scale, whole=_is_whole(model, name))
    choices = literal_choices(model.model_fields[name])
    if choices:
        return Choice(choices)
    if is_switch(model.model_fields[name]):
        return Choice(("true", "false"))
    raise UserError(f"--search {text}: the rule declares no range for it. Give one: {name}=LOW:HIGH or {name}=A,B,C.")


def _moved(declared: Range | Choice, given: Config, name: str) -> Range | Choice:
    """Return a declared range; a logarithmic one is multiplied by the ratio of the present value to the default.

    It ends at the bounds of the option.
    """
    field, present = type(given).model_fields[name], getattr(given, name)
    if not isinstance(declared, Range) or declared.scale != "log" or not present or not field.default:
        return declared
    factor = present / field.default
    least = max(
        (bound for part in field.metadata if (bound := getattr(part, "ge", None)) is not None), default=-math.inf
    )
    most = min((bound for part in field.metadata if (bound := getattr(part, "le", None)) is not None), default=math.inf)
    return replace(declared, low=max(declared.low * factor, least), high=min(declared.high * factor, most))


def _read_space(model: type[Config], name: str, values: str, text: str) -> Range | Choice:
    parts = values.split(":")
    if len(parts) == 1:
        try:
            parts = split_list(values)
        except ValueError as error:
            raise UserError(f"--search {text}: {error}.") from None
        choices = tuple(dict.fromkeys(_as_choice(model, name, part) for part in parts))
        if len(choices) < 2:
            raise UserError(f"--search {text}: give two values or more, as in {name}=A,B.")
        return Choice(choices)
    try:
        low, high = float(parts[0]), float(parts[1])
        scale: Scale = "log" if parts[2:] == ["log"] else "linear"
        finite = math.isfinite(low) and math.isfinite(high)
        if parts[2:] not in ([], ["log"], ["linear"]) or not (finite and low < high) or (scale == "log" and low <= 0):
            raise ValueError
    except ValueError:
        raise UserError(
            f"--search {text}: write a range as LOW:HIGH or LOW:HIGH:log, the lower end first, and above 0 for log."
        ) from None
    if type_word(model.model_fields[name]) not in ("int", "float"):
        raise UserError(f"--search {text}: '{name}' is not a number. Give the values to try: {name}=A,B,C.")
    found = Range(low, high, scale, whole=_is_whole(model, name))
    _ends(name, found)
    return found


def extremes(space: Space) -> Iterator[dict[str, Any]]:
    """Yield settings at the ends of all ranges with all choices, so that invalid settings are found before any run.

    At most MOST_EXTREMES settings are yielded.
    """
    ends = {
        name: searched.values if isinstance(searched, Choice) else _ends(name, searched)
        for name, searched in space.items()
    }
    for values in itertools.islice(itertools.product(*ends.values()), MOST_EXTREMES):
        yield dict(zip(ends, values, strict=True))


def _ends(name: str, searched: Range) -> tuple[float, float]:
    """Return the lowest and highest value of a range; raises UserError if it contains no integer."""
    if not searched.whole:
        return searched.low, searched.high
    low, high = math.ceil(searched.low), math.floor(searched.high)
    if low > high:
        raise UserError(f"--search {name}={searched.low:g}:{searched.high:g}: there is no integer in that range.")
    return low, high


def _as_choice(model: type[Config], name: str, text: str) -> str:
    return match_choice(text, literal_choices(model.model_fields[name]))


def _is_whole(model: type[Config], name: str) -> bool:
    return type_word(model.model_fields[name]) == "int"


def study_name(
    origin: str, rule: str, config: Config, space: Space, metric: str | None, seeds: int, *, maximize: bool
) -> str:
    """Return a name that is the same for the same search. origin: the package of the rule with its version."""
    fixed = {name: value for name, value in config.model_dump(mode="json").items() if name not in space}
    ranges = {name: repr(space[name]) for name in sorted(space)}
    search = json.dumps([origin, rule, fixed, ranges, metric, seeds, maximize], sort_keys=True)
    return f"{rule}-{sha256(search.encode()).hexdigest()[:10]}"


class Study:
    """The trials of one search, stored in a journal under the store. One process at a time adds to it."""

    def __init__(self, study: Any, space: Space, path: Path) -> None:
        self._study = study
        self.path = path
        self._distributions = _distributions(space)

    @property
    def metric(self) -> str | None:
        """The metric of the trials; None before the first trial has ended."""
        name: str | None = self._study.user_attrs.get("metric")
        return name

    @metric.setter
    def metric(self, name: str) -> None:
        if name != self.metric:
            self._study.set_user_attr("metric", name)

    def ask(self) -> tuple[int, dict[str, Any]]:
        """Return the number and the values of the next trial."""
        trial = self._study.ask(self._distributions)
        return trial.number, dict(trial.params)

    def tell(self, number: int, value: float | None) -> None:
        """Store the result of a trial; None: it failed, which counts as worse than all others."""
        from optuna.trial import TrialState

        if value is None:
            self._study.tell(number, state=TrialState.PRUNED)
        else:
            self._study.tell(number, value)

    def give_back(self, number: int) -> None:
        """Let `ask` return a trial again that was not finished."""
        from optuna.trial import TrialState

        trial = next(trial for trial in self._study.trials if trial.number == number)
        self._study.tell(number, state=TrialState.FAIL)
        self._study.enqueue_trial(trial.params)

    def finished(self) -> list[tuple[int, dict[str, Any], float | None]]:
        """Return number, values and result of every finished trial, the best first, failed trials last."""
        from optuna.study import StudyDirection
        from optuna.trial import TrialState

        sign = -1 if self._study.direction == StudyDirection.MAXIMIZE else 1
        over = [
            (trial.number, dict(trial.params), trial.value if trial.state == TrialState.COMPLETE else None)
            for trial in self._study.trials
            if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        ]
        return sorted(over, key=lambda entry: (entry[2] is None, sign * (entry[2] or 0.0), entry[0]))


@contextmanager
def open_study(store: Path, name: str, space: Space, *, maximize: bool, seed: int) -> Iterator[Study]:
    """Open the study `name` of a store, or begin it; raises UserError if another process works on it.

    Trials that a killed process left unfinished come first. The study is a journal file, because databases are not safe
    on the shared disks of clusters.
    """
    optuna = _import_optuna()
    folder = store / SWEEPS_FOLDER / "tune"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.journal"
    lock = FileLock(folder / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"another process works on the search {name}. Wait for it, or choose another name with --study."
        ) from None
    try:
        cut_torn_tail(path)
        # This process has the lock. Optuna would wait for its own lock that a killed process left.
        Path(f"{path}.lock").unlink(missing_ok=True)
        with warnings.catch_warnings(), _damage_as_error(path, name):
            warnings.simplefilter("ignore")
            optuna.logging.set_verbosity(optuna.logging.ERROR)
            opened = _opened(optuna, path, name, space, maximize=maximize, seed=seed)
        yield opened
    finally:
        lock.release()


def cut_torn_tail(path: Path) -> None:
    """Cut a journal before its first incomplete line, so that Optuna reads the lines before.

    A full disk, a kill or a network disk can leave an incomplete line, and Optuna cannot read a journal with one. If
    more than that line is cut off, the rest is kept in a file next to the journal.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    whole = 0
    for line in content.splitlines(keepends=True):
        if not line.endswith(b"\n") or not _is_operation(line):
            break
        whole += len(line)
    cut = content[whole:]
    if not cut:
        return
    if cut.count(b"\n") > cut.endswith(b"\n"):
        write_atomically(path.with_name(f"{path.name}.cut-{secrets.token_hex(4)}"), cut)
    write_atomically(path, content[:whole])


def _is_operation(line: bytes) -> bool:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(entry, dict) and isinstance(entry.get("op_code"), int) and "worker_id" in entry


@contextmanager
def _damage_as_error(path: Path, name: str) -> Iterator[None]:
    """Raise UserError, in one line, if Optuna cannot read a journal."""
    try:
        yield
    except (PlasticError, OSError, MemoryError):
        raise
    except Exception as error:
        reason = printable_line(f"{type(error).__name__}: {error}")
        raise UserError(
            f"the journal {path} is damaged ({reason:.200}). Move it away, or choose another name than {name}"
            " with --study."
        ) from error


def _opened(optuna: Any, path: Path, name: str, space: Space, *, maximize: bool, seed: int) -> Study:
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    known = {entry.study_name: entry for entry in optuna.study.get_all_study_summaries(storage)}
    before = known[name].n_trials if name in known else 0
    # The first draws must not come again after every interruption.
    sampler = optuna.samplers.TPESampler(seed=(seed + before) % 2**32, constant_liar=True)
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        sampler=sampler,
        direction="maximize" if maximize else "minimize",
        load_if_exists=True,
    )
    opened = Study(study, space, path)
    if (study.direction == optuna.study.StudyDirection.MAXIMIZE) != maximize:
        before = "minimizes" if maximize else "maximizes"
        raise UserError(f"the study {name} {before} its metric. Give this search another --study.")
    described = json.dumps({key: repr(space[key]) for key in sorted(space)})
    if study.user_attrs.get("space", described) != described:
        raise UserError(f"the study {name} searched something else. Give this search another --study.")
    study.set_user_attr("space", described)
    for trial in study.trials:
        if trial.state == optuna.trial.TrialState.RUNNING:
            opened.give_back(trial.number)
    # Read here, so that damage is reported here.
    opened.finished()
    return opened


def _distributions(space: Space) -> dict[str, Any]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, Any] = {}
    for name, searched in space.items():
        if isinstance(searched, Choice):
            found[name] = CategoricalDistribution(searched.values)
        elif searched.whole:
            low, high = _ends(name, searched)
            found[name] = IntDistribution(int(low), int(high), log=searched.scale == "log")
        else:
            found[name] = FloatDistribution(searched.low, searched.high, log=searched.scale == "log")
    return found


def _import_optuna() -> Any:
    try:
        optuna = import_module("optuna")
        import_module("optuna.storages.journal")
    except ImportError:
        raise UserError(f"tune needs optuna, which is not installed: {install_command('tune')}.") from None
    return optuna
