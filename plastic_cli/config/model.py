"""One typed model per command: its fields are its options, the keys of a configuration file, and what a run stores."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from plastic_cli.config.describe import LARGEST, as_typed, is_switch, option_name
from plastic_cli.config.other_words import similar_option
from plastic_cli.config.parsing import as_value, read_value
from plastic_cli.config.unused import matches, reason_unused
from plastic_cli.distribution import install_command
from plastic_cli.errors import FormerName, OptionError, did_you_mean

Device = Literal["auto", "cpu", "cuda", "mps"]
"""Where to compute; mps is the GPU of Apple processors."""

OnlyWith = tuple[tuple[str, tuple[Any, ...], tuple[str, ...]], ...]
"""Entries (option, values, dependent options): the dependent options have an effect only with one of these values."""


def field(
    default: Any,
    help: str,  # noqa: A002  the word that every command line uses
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    panel: str | None = None,
    complete: Literal["dataset", "run", "exporter", "rule", "recipe"] | None = None,
    option: str | None = None,
    argument: str | None = None,
    search: tuple[float, float, Literal["linear", "log"]] | None = None,
    repeat: bool = False,
) -> Any:
    """Describe one field of a Config: its default, its help and its bounds.

    default: `...` for a required field. panel: the heading in `--help`. complete: what shell completion offers.
    option: how the option is typed, if not as the field's name with hyphens; for a switch, `--on/--off`. argument: the
    name of a positional argument in `--help`. search: the lowest and the highest value that `plastic tune` tries by
    default, on a linear or logarithmic scale. repeat: the option may be typed several times; it is a list of texts.
    """
    extra: dict[str, Any] = {"panel": panel, "complete": complete, "option": option, "repeat": repeat}
    extra["argument"] = argument
    if search is not None:
        extra["search"] = list(search)
    if le is None and isinstance(default, int) and not isinstance(default, bool):
        le = LARGEST
    return Field(default, description=help, ge=ge, gt=gt, le=le, lt=lt, json_schema_extra=extra, validate_default=True)


class Config(BaseModel):
    """The configuration of a command. Unknown keys are errors, values are checked, and an instance does not change."""

    # Help needs only the fields, so the validator is built when values are checked.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)
    panel: ClassVar[str] = "Options of the rule"
    only_with: ClassVar[OnlyWith] = ()
    renamed: ClassVar[Mapping[str, str]] = {}
    """Former names of fields and the present ones. Options, keyword arguments and files may use a former name, with a
    warning that names the present one. Stored configurations are read under both."""

    added: ClassVar[Mapping[str, Any]] = {}
    """Fields that the previous version did not have, and the plain values with which a run is what it was without them.
    Stored configurations of that version are read with these values, see `added_fields`."""

    published_names: ClassVar[Mapping[str, str]] = {}
    """Lower-case names that options have in the published program, and the names here, for suggestions."""

    @model_validator(mode="before")
    @classmethod
    def _read_texts(cls, values: Any) -> Any:
        """Read texts: lists as `256,128`, whole numbers as `1e6`, choices in any case. Refuse true as a number."""
        if not isinstance(values, Mapping):
            return values
        read = dict(values)
        for name, value in values.items():
            info = cls.model_fields.get(name)
            if info is None:
                continue
            if hasattr(value, "tolist"):
                # A number or an array of NumPy or torch.
                value = value.tolist()
            if isinstance(value, bool) and not is_switch(info):
                # Python accepts true as 1; in a file it is a mistake.
                raise ValueError(f"{name} needs a value, not true or false")
            read[name] = read_value(name, info, value)
        return read

    @classmethod
    def implied(cls, typed: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG003
        """Return values that `typed` implies for other fields; they take precedence over a file.

        `typed`: the options that were typed, or the keys of a file, with values of the type of their field unless they
        are wrong. Override this method if one option implies another.
        """
        return {}

    @classmethod
    def _implied_by(cls, typed: Mapping[str, Any]) -> dict[str, Any]:
        """Return `implied(typed)` for texts too: `--optimizer SGD` means sgd, and in a grid "true" means True."""
        fields = cls.model_fields
        return cls.implied(
            {name: as_value(name, fields[name], value) if name in fields else value for name, value in typed.items()}
        )

    @classmethod
    def unused_options(cls, chosen: Mapping[str, Any]) -> dict[str, str]:
        """Return the options that have no effect given `chosen`, with the reason, as `only_with` declares."""
        found: dict[str, str] = {}
        for entries in (vars(base).get("only_with", ()) for base in cls.__mro__):
            for option, values, names in entries:
                if option in chosen and not any(matches(chosen[option], value) for value in values):
                    reason = reason_unused(option, chosen[option], values)
                    found.update({name: reason for name in names if name not in found})
        return found

    @classmethod
    def consequences(cls, typed: Mapping[str, Any]) -> dict[str, Any]:
        """Return values that follow from `typed`: implied values, and the defaults of options without effect."""
        implied = cls._implied_by(typed)
        unused = cls.unused_options({**implied, **typed})
        return {**{name: cls.model_fields[name].default for name in unused}, **implied}

    def refuse_unused(self) -> None:
        """Raise OptionError if an option has no effect given the others.

        A default is not refused, and neither is a value that another option implies.
        """
        fields = type(self).model_fields
        values = {name: getattr(self, name) for name in fields}
        changed = {name: value for name, value in values.items() if value != fields[name].default}
        for name, reason in self.unused_options(values).items():
            if name not in changed:
                continue
            others = {other: value for other, value in changed.items() if other != name}
            groups = [others, *({other: value} for other, value in others.items())]
            if not any(self.implied(group).get(name) == changed[name] for group in groups):
                raise OptionError(f"{as_typed(name, changed[name])} does nothing {reason}. Leave it out.", name)

    @classmethod
    def _complete(cls) -> None:
        """Build the validator, without pydantic's plugins: the search for them takes longer than the rest."""
        if cls.__pydantic_complete__:
            return
        before = os.environ.get("PYDANTIC_DISABLE_PLUGINS")
        os.environ["PYDANTIC_DISABLE_PLUGINS"] = "1"
        try:
            cls.model_rebuild()
        finally:
            if before is None:
                del os.environ["PYDANTIC_DISABLE_PLUGINS"]
            else:
                os.environ["PYDANTIC_DISABLE_PLUGINS"] = before

    @classmethod
    def added_fields(cls) -> dict[str, Any]:
        """Return the added fields of this class and of its base classes, with their plain values."""
        found: dict[str, Any] = {}
        for base in cls.__mro__:
            found = {**vars(base).get("added", {}), **found}
        return found

    @classmethod
    def former_names(cls) -> dict[str, str]:
        """Return the former names of all fields and the present ones, with those of the base classes."""
        found: dict[str, str] = {}
        for base in cls.__mro__:
            found = {**vars(base).get("renamed", {}), **found}
        return {former: name for former, name in found.items() if former not in cls.model_fields}

    @classmethod
    def similar_option(cls, word: str) -> str:
        """Return " Did you mean 'x'?" for the field that a word means or resembles, or an empty string."""
        return similar_option(word, cls.model_fields, cls.published_names)

    @classmethod
    def with_present_names(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return `values` with the present names of renamed fields; a value under the present name takes precedence."""
        return present_names(values, cls.former_names())

    @classmethod
    def read_names(cls, values: Mapping[str, Any], source: str = "", *, typed: bool = False) -> dict[str, Any]:
        """Return what a user gave, with the present names of renamed fields; a former name gives a FormerName warning.

        source: the file that holds the values. typed: they are options of the command line. Raises OptionError if a
        field has a value under both names.
        """
        former = cls.former_names()
        names: dict[str, str] = {}
        for name in values:
            present = former.get(name, name)
            shown, new = (option_name(name), option_name(present)) if typed else (f"'{name}'", f"'{present}'")
            where = f"{source}: " if source else ""
            if present in names:
                both = option_name(names[present]) if typed else f"'{names[present]}'"
                raise OptionError(f"{where}{both} and {shown} are the same option. Keep {new}.", present)
            names[present] = name
            if present != name:
                warnings.warn(f"{where}{shown} is now called {new}.", FormerName, stacklevel=_levels_to_user())
        return cls.with_present_names(values)

    @classmethod
    def from_values(cls, values: Mapping[str, Any], source: str = "") -> Self:
        """Check `values` and return the configuration; raises UserError, which names the option and the value."""
        values = cls.with_present_names(values)
        for name in values:
            if name not in cls.model_fields:
                where = f"{source}: " if source else ""
                guess = cls.similar_option(name)
                raise OptionError(f"{where}there is no key '{name}'.{guess} `--help` lists the options.", name)
        cls._complete()
        try:
            return cls.model_validate({**cls._implied_by(values), **values})
        except ValidationError as error:
            location = error.errors()[0]["loc"]
            raise OptionError(_first_error(error, source), str(location[0]) if location else None) from None


def present_names(values: Mapping[str, Any], former: Mapping[str, str]) -> dict[str, Any]:
    """Return `values` with present names; `former` maps former names to them. A present name takes precedence."""
    if former.keys().isdisjoint(values):
        return dict(values)
    return {former.get(name, name): values.get(former.get(name, name), value) for name, value in values.items()}


def _levels_to_user() -> int:
    """Return the `stacklevel` at which a warning names the line of the user, and not one of this program."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).startswith("plastic_cli."):
        level, frame = level + 1, frame.f_back
    return level


class TrainConfig(Config):
    """Options of every train command."""

    controls: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Controls of the rule that are runs of the rule itself: the name of each, and the options that make it one."""
    controls_all_rules: ClassVar[bool] = False
    """Whether runs of this rule, and its controls, are controls for the other rules on the same data."""

    seed: int = field(0, "seed of all random numbers of the run", ge=0, le=2**63 - 1, panel="Run")
    device: Device = field("auto", "where to compute", panel="Run")

    def learns_from(self) -> str | None:
        """Return the name of the data set or environment, under which tables list the run."""
        dataset: str | None = getattr(self, "dataset", None)
        return dataset

    @classmethod
    def control_of(cls, config: Mapping[str, Any]) -> str | None:
        """Return the name of the control that a run with this configuration is; None for a run of the rule itself."""
        return next((name for name, options in cls.controls.items() if meets(config, options)), None)


def meets(config: Mapping[str, Any], options: Mapping[str, Any]) -> bool:
    """Return whether a stored configuration has these values; a list is equal to a tuple of the same values."""

    def plain(value: Any) -> Any:
        return list(value) if isinstance(value, tuple) else value

    return all(name in config and plain(config[name]) == plain(value) for name, value in options.items())


class StageConfig(Config):
    """Options of every command that takes a trained run."""

    device: Device = field("auto", "where to compute", panel="Run")


class EvaluateConfig(StageConfig):
    """Evaluate a trained run."""


class AnalyzeConfig(StageConfig):
    """Analyze a trained run."""


class RenderConfig(StageConfig):
    """Render a trained run as pictures."""


class FilmConfig(RenderConfig):
    """Render a trained run as a film."""

    frame_seconds: float | None = field(
        None,
        "seconds per frame (default: 0.06 to 0.5, so that the film takes about 8 seconds)",
        ge=0.02,
        le=60,
        panel="Film",
    )
    video: Literal["gif", "mp4", "webm"] = field(
        "gif", f"format of the film; mp4 and webm need `{install_command('video')}`", panel="Film"
    )


_PLAIN_MESSAGES = {
    "int_parsing": "should be a whole number",
    "float_parsing": "should be a number",
    "bool_parsing": "should be true or false",
    "int_type": "should be a whole number",
    "float_type": "should be a number",
    "bool_type": "should be true or false",
    "string_type": "should be text",
    "tuple_type": "should be a list",
    "list_type": "should be a list",
    "path_type": "should be a path",
}


def _first_error(error: ValidationError, source: str) -> str:
    first = error.errors()[0]
    where = f"{source}: " if source else ""
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if not first["loc"]:
        return f"{where}{message}."
    name = str(first["loc"][0])
    option = name if source else f"--{name.replace('_', '-')}"
    given, is_list = first.get("input"), isinstance(first.get("input"), list | tuple)
    if is_list:
        given = ",".join(map(str, given))
    if given == "":
        given = "''"
    # Plainer words than pydantic's for a text that is not a number.
    plain = _PLAIN_MESSAGES.get(first["type"])
    message = f"{plain}, not a list" if plain is not None and is_list else plain or message
    guess = ""
    if first["type"] == "literal_error" and isinstance(given, str):
        guess = did_you_mean(given, first["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", "))
    typed = option if given is None else f"{option} {given}"
    # A validator can raise a predicate such as "needs two numbers", or sentences about a part of the value.
    if message.startswith(("there ", "the ", "'")):
        return f"{where}{typed}: {message.rstrip('.')}."
    if message.startswith("--"):
        return f"{where}{message.rstrip('.')}."
    end = "" if message.endswith("?") else "."
    return f"{where}{typed}: it {message.rstrip('.')}{end}{guess if given is not None else ''}"
