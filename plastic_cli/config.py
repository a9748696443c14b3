"""One typed model per command: its fields are the options, the keys of a configuration file and what a run stores."""

from __future__ import annotations

import tomllib
import types
import typing
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from plastic_cli.errors import OptionError, UserError, did_you_mean, match_choice

LARGEST = 2**31 - 1
"""No option counts further than this unless it says so."""
MOST_DIGITS = 40
"""A whole number with more digits than this is refused before it is made."""

OnlyWith = tuple[tuple[str, tuple[Any, ...], tuple[str, ...]], ...]
"""Entries (option, values of it, other options): the others have an effect only where the option has such a value."""


def field(
    default: Any,
    help: str,  # noqa: A002  the word that every command line uses
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    panel: str | None = None,
    complete: Literal["dataset", "run", "exporter"] | None = None,
    option: str | None = None,
    search: tuple[float, float, Literal["linear", "log"]] | None = None,
    repeat: bool = False,
) -> Any:
    """Describe one field of a Config: its default, its help and its bounds.

    panel: the heading under which `--help` lists it. complete: what shell completion offers. option: how it is typed,
    where that is not the field's name with hyphens; of a switch, `--on/--off`. search: lowest and highest value that
    `plastic tune` tries unless told otherwise, and whether it looks at them or at their logarithms. repeat: the option
    may be typed several times, and arrives as a list of texts.
    """
    extra: dict[str, Any] = {"panel": panel, "complete": complete, "option": option, "repeat": repeat}
    if search is not None:
        extra["search"] = list(search)
    if le is None and isinstance(default, int) and not isinstance(default, bool):
        le = LARGEST
    return Field(default, description=help, ge=ge, gt=gt, le=le, lt=lt, json_schema_extra=extra, validate_default=True)


class Config(BaseModel):
    """The configuration of a command. Unknown keys are errors, values are checked, and nothing changes after that."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    panel: ClassVar[str] = "Options of the rule"
    only_with: ClassVar[OnlyWith] = ()

    @model_validator(mode="before")
    @classmethod
    def _read_texts(cls, values: Any) -> Any:
        """Read what was typed: lists as `256,128`, whole numbers as `1e6`, choices in any case; refuse yes or no."""
        if not isinstance(values, Mapping):
            return values
        read = dict(values)
        for name, value in values.items():
            info = cls.model_fields.get(name)
            if info is None:
                continue
            if isinstance(value, bool) and not is_switch(info):
                # Python counts true as 1; in a file it is a slip.
                raise ValueError(f"{name} takes no yes or no: give a value")
            read[name] = _read(name, info, value)
        return read

    @classmethod
    def implied(cls, typed: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG003
        """Return values that `typed` implies for other fields; they take precedence over a file.

        Called with what was typed, or with a file's keys; the rule of one option implying another goes here.
        """
        return {}

    @classmethod
    def unused_beside(cls, chosen: Mapping[str, Any]) -> dict[str, str]:
        """Return the options that have no effect beside `chosen`, with the reason; `only_with` says which."""
        found: dict[str, str] = {}
        for entries in (vars(base).get("only_with", ()) for base in cls.__mro__):
            for option, values, names in entries:
                if option in chosen and not any(_same(chosen[option], value) for value in values):
                    reason = _without(option, chosen[option], values)
                    found.update({name: reason for name in names if name not in found})
        return found

    @classmethod
    def meant(cls, typed: Mapping[str, Any]) -> dict[str, Any]:
        """Return what `typed` means for fields that it does not name: implied values, defaults of those without use."""
        implied = cls.implied(typed)
        unused = cls.unused_beside({**implied, **typed})
        return {**{name: cls.model_fields[name].default for name in unused}, **implied}

    def refuse_unused(self) -> None:
        """Raise OptionError where an option has no effect beside the others.

        The default, and a value that another option implies, were not asked for.
        """
        fields = type(self).model_fields
        values = {name: getattr(self, name) for name in fields}
        asked = {name: value for name, value in values.items() if value != fields[name].default}
        for name, reason in self.unused_beside(values).items():
            if name not in asked:
                continue
            others = {other: value for other, value in asked.items() if other != name}
            groups = [others, *({other: value} for other, value in others.items())]
            if not any(self.implied(group).get(name) == asked[name] for group in groups):
                raise OptionError(f"{as_typed(name, asked[name])} does nothing {reason}. Leave it out.", name)

    @classmethod
    def from_values(cls, values: Mapping[str, Any], source: str = "") -> Self:
        """Check `values` and return the configuration; raises UserError, one line that names option and value."""
        for name in values:
            if name not in cls.model_fields:
                where = f"{source}: " if source else ""
                guess = did_you_mean(name, cls.model_fields)
                raise OptionError(f"{where}there is no key '{name}'.{guess} `--help` lists the options.", name)
        try:
            return cls.model_validate({**cls.implied(values), **values})
        except ValidationError as error:
            location = error.errors()[0]["loc"]
            raise OptionError(_first_error(error, source), str(location[0]) if location else None) from None


class TrainConfig(Config):
    """What every train command can be told."""

    seed: int = field(0, "root of every random number of the run", ge=0, le=2**63 - 1, panel="Run")
    device: Literal["auto", "cpu", "cuda"] = field("auto", "where to compute", panel="Run")

    def learns_from(self) -> str | None:
        """Return what the run learns from, under which tables list it: the data set, or an environment."""
        dataset: str | None = getattr(self, "dataset", None)
        return dataset


class ClassifierTrainConfig(TrainConfig):
    """What every rule that learns to classify images can be told."""

    dataset: str = field(
        "digits",
        "digits, mnist, fashion, kmnist, emnist, emnist-letters, emnist-digits, emnist-mnist, emnist-byclass,"
        " emnist-bymerge, cifar10, or a folder with your own data set",
        panel="Data",
        complete="dataset",
    )
    validation: int = field(
        0, "training images set aside as a validation split, the same ones always", ge=0, panel="Data"
    )


class StageConfig(Config):
    """What every command that looks at a trained run can be told."""

    device: Literal["auto", "cpu", "cuda"] = field("auto", "where to compute", panel="Run")


class EvaluateConfig(StageConfig):
    """Measure a trained run."""


class AnalyzeConfig(StageConfig):
    """Look inside a trained run."""


class RenderConfig(StageConfig):
    """Show a trained run as pictures."""


class ClassifierEvaluateConfig(EvaluateConfig):
    """Measure a trained classifier: any data set, split and corruption."""

    dataset: str | None = field(None, "data set (default: the one it was trained on)", panel="Data", complete="dataset")
    split: Literal["test", "train", "validation"] = field("test", "split of the data set", panel="Data")
    corruption: tuple[str, ...] = field(
        (),
        "KIND:STRENGTH, several with commas: gaussian-noise (after normalisation), pixel-noise (before it),"
        " rotation (random, up to that many degrees), fixed-rotation",
        panel="Data",
    )


class ClassifierAnalyzeConfig(AnalyzeConfig):
    """Look inside a trained classifier. Without an option: accuracy by class, confusion matrix and sparsity."""

    panel: ClassVar[str] = "What to look at"

    confusion: bool = field(False, "accuracy by class and confusion matrix")
    sparsity: bool = field(False, "how sparse the activity of each layer is")
    probe: bool = field(False, "linear probe of each layer, beside the untrained network's")
    robustness: bool = field(False, "accuracy under noise and rotation")
    cka: bool = field(False, "similarity (linear CKA) to the untrained network, or to the run of --other")
    other: str | None = field(None, "run to compare with, for --cka", complete="run")

    only_with: ClassVar[OnlyWith] = (("cka", (True,), ("other",)),)


def option_name(field_name: str) -> str:
    """Return the option of a field: `batch_size` is `--batch-size`."""
    return "--" + field_name.replace("_", "-")


def as_typed(field_name: str, value: Any) -> str:
    """Return how a value is typed: `--epochs 3`, `--joint`, `--no-joint`."""
    option = option_name(field_name)
    if isinstance(value, bool):
        return option if value else f"--no-{option[2:]}"
    return f"{option} {','.join(str(entry) for entry in value) if isinstance(value, tuple | list) else value}"


def holds_several(info: FieldInfo) -> bool:
    """Say whether a field holds a list or tuple of values."""
    return any(typing.get_origin(choice) in (tuple, list) for choice in _alternatives(info.annotation))


def literal_choices(info: FieldInfo) -> tuple[str, ...]:
    """Return the words that a field admits, or an empty tuple where it is not a choice of words."""
    for choice in _alternatives(info.annotation):
        if typing.get_origin(choice) is Literal:
            return tuple(str(word) for word in typing.get_args(choice))
    return ()


def type_word(info: FieldInfo) -> str:
    """Return what `--help` shows in place of the value: int, float, text, a choice of words or a list."""
    choices = literal_choices(info)
    if choices:
        # Two or three words fit where the value goes; the help of a longer choice names them.
        return "|".join(choices) if len("|".join(choices)) <= 16 else "word"
    for choice in _alternatives(info.annotation):
        if typing.get_origin(choice) in (tuple, list):
            return f"{_plain_word(typing.get_args(choice)[0])},..."
        if choice is not type(None):
            return _plain_word(choice)
    return "text"


def is_switch(info: FieldInfo) -> bool:
    """Say whether a field is a yes-or-no option."""
    return bool in _alternatives(info.annotation)


def bounds_text(info: FieldInfo) -> str:
    """Return the bounds of a numeric field as text, such as "1 or more" or "from 0 to 1"."""
    found: dict[str, Any] = {}
    for constraint in info.metadata:
        for key in ("ge", "gt", "le", "lt"):
            if getattr(constraint, key, None) is not None:
                found[key] = getattr(constraint, key)
    if found.get("le") in (LARGEST, 2**63 - 1):
        del found["le"]
    low = f"at least {found['ge']:g}" if "ge" in found else f"above {found['gt']:g}" if "gt" in found else ""
    high = f"at most {found['le']:g}" if "le" in found else f"below {found['lt']:g}" if "lt" in found else ""
    return ", ".join(part for part in (low, high) if part)


def split_list(text: str) -> list[str]:
    """Return the values of a text such as `256,128`; raises ValueError for an empty one between commas."""
    parts = [part.strip() for part in text.split(",")]
    if parts == [""]:
        return []
    if "" in parts:
        raise ValueError("there is an empty value between the commas")
    return parts


def whole_number(text: str) -> int | str:
    """Return a whole number that is written with a point or an exponent, as in `1e6`; other texts as they are."""
    if not text.isascii() or not any(letter in text for letter in ".eE"):
        return text
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        return text
    if not number.is_finite():
        return text
    if number.adjusted() > MOST_DIGITS:
        raise ValueError("the number is too large")
    return int(number) if number == number.to_integral_value() else text


def decode_toml(content: bytes) -> str:
    """Return the text of a TOML file, without the byte order mark of some editors; raises UnicodeDecodeError."""
    return content.decode("utf-8-sig")


def read_toml(path: Path) -> dict[str, Any]:
    """Read the keys of a configuration file; hyphens count as underscores. Raises UserError where it cannot be read."""
    try:
        values = tomllib.loads(decode_toml(path.read_bytes()))
    except FileNotFoundError:
        raise UserError(f"there is no configuration file {path}.") from None
    except RecursionError:
        raise UserError(f"cannot read the configuration file {path}: it is nested too deep.") from None
    except OSError as error:
        raise UserError(f"cannot read the configuration file {path}: {error.strerror or error}.") from None
    except ValueError as error:  # no UTF-8, no TOML, or an integer longer than Python reads
        raise UserError(f"cannot read the configuration file {path}: {error}.") from None
    named = {key.replace("-", "_"): value for key, value in values.items()}
    if len(named) < len(values):
        twice = next(key for key in values if "-" in key and key.replace("-", "_") in values)
        raise UserError(f"{path}: '{twice}' and '{twice.replace('-', '_')}' are the same key. Keep one of them.")
    return named


def to_toml(config: Config, heading: str = "") -> str:
    """Write a configuration as TOML that `--config` accepts; a field without a value stands there as a comment."""
    import tomli_w

    lines = [f"# {heading}"] if heading else []
    for name, value in config.model_dump(mode="json").items():
        help_text = type(config).model_fields[name].description or ""
        lines.append(f"# {help_text}")
        # TOML has no null: a comment keeps the key visible and the default in force.
        lines.append(f"# {name} =" if value is None else tomli_w.dumps({name: value}).rstrip())
    return "\n".join(lines) + "\n"


def _read(name: str, info: FieldInfo, value: Any) -> Any:
    """Return a value as the field takes it, where that is unambiguous, and unchanged otherwise."""
    if holds_several(info):
        if isinstance(value, str):
            try:
                value = split_list(value)
            except ValueError as error:
                raise ValueError(f"{as_typed(name, value)}: {error}") from None
        elif isinstance(value, int | float):
            value = [value]
        if isinstance(value, list | tuple):
            return [_read_one(name, info, entry) for entry in value]
        return value
    return _read_one(name, info, value)


def _read_one(name: str, info: FieldInfo, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    choices = literal_choices(info)
    if choices:
        return match_choice(value, choices)
    if type_word(info).removesuffix(",...") == "int":
        try:
            return whole_number(value)
        except ValueError as error:
            raise ValueError(f"{as_typed(name, value)}: {error}") from None
    return value


def _same(value: Any, wanted: Any) -> bool:
    """Say whether a value, perhaps still a text, is a wanted one."""
    if not isinstance(value, str):
        return bool(value == wanted)
    if isinstance(wanted, str):
        return value.strip().casefold() == wanted.casefold()
    if isinstance(wanted, bool):
        return value.casefold() in (("true", "yes", "on", "1") if wanted else ("false", "no", "off", "0"))
    try:
        return bool(float(value) == wanted)
    except (TypeError, ValueError):
        return False


def _without(option: str, value: Any, values: tuple[Any, ...]) -> str:
    if values == (True,):
        return f"without {option_name(option)}"
    if values == (None,):
        return f"beside {as_typed(option, value)}"
    *others, last = [str(entry) for entry in values]
    listed = f"{', '.join(others)} or {last}" if others else last
    return f"with {as_typed(option, value)}: it belongs to {option_name(option)} {listed}"


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _plain_word(annotation: Any) -> str:
    return {int: "int", float: "float", str: "text", Path: "path", bool: "yes|no"}.get(annotation, "text")


_PLAIN_MESSAGES = {
    "int_parsing": "should be a whole number",
    "float_parsing": "should be a number",
    "bool_parsing": "should be true or false",
}


def _first_error(error: ValidationError, source: str) -> str:
    first = error.errors()[0]
    where = f"{source}: " if source else ""
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if not first["loc"]:
        return f"{where}{message}."
    name = str(first["loc"][0])
    option = name if source else f"--{name.replace('_', '-')}"
    given = first.get("input")
    if isinstance(given, list | tuple):
        given = ",".join(map(str, given))
    elif given == "":
        given = "''"
    # A text that is no number, in other words than those of parsing.
    message = _PLAIN_MESSAGES.get(first["type"], message)
    guess = ""
    if first["type"] == "literal_error" and isinstance(given, str):
        guess = did_you_mean(given, first["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", "))
    return f"{where}{option} {given}: it {message}.{guess}" if given is not None else f"{where}{option}: it {message}."
