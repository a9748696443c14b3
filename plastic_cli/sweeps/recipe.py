"""Recipes: files that define what to run, why, and which published figure or table it reproduces."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from plastic_cli.config.toml import decode_toml, read_toml
from plastic_cli.errors import UserError, did_you_mean

Where = tuple[str | int, ...]
"""The place of a key in a file: names of tables and keys, and positions in lists of tables."""


class _Options(BaseModel):
    """Options of a command, and the values of a grid."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    rule: str | None = None
    options: dict[str, Any] = {}
    grid: dict[str, list[Any]] = {}
    minutes: float | None = Field(None, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _underscores(cls, values: Any) -> Any:
        """Let options be written as they are typed, with hyphens."""
        if not isinstance(values, Mapping):
            return values
        tables = {
            name: _with_underscores(values[name], levels)
            for name, levels in _LEVELS.items()
            if isinstance(values.get(name), Mapping)
        }
        # An integer may be written as 1e3.
        seeds = values.get("seeds")
        whole = {"seeds": int(seeds)} if isinstance(seeds, float) and seeds.is_integer() else {}
        return {**values, **tables, **whole}


_LEVELS: dict[str, Sequence[bool]] = {
    "options": (True,),
    "grid": (True,),
    "where": (True, False, True),
    "report": (True,),
}
"""For each table of options, the levels of its keys that are names of options."""


def _with_underscores(values: Any, levels: Sequence[bool]) -> Any:
    """Return nested tables with underscores in the keys of the levels whose keys are names of options."""
    if not levels or not isinstance(values, Mapping):
        return values
    return {
        str(key).replace("-", "_") if levels[0] else key: _with_underscores(value, levels[1:])
        for key, value in values.items()
    }


class _Table(_Options):
    where: dict[str, dict[str, dict[str, Any]]] = {}
    seeds: int | list[int] | None = None


class RecipeRuns(_Table):
    """Runs of one rule in a recipe with several; keys that are missing here are those of the recipe."""

    name: str | None = None


class RecipeStep(_Options):
    """A command that is carried out on trained runs of the recipe.

    runs: the names of the [[runs]] that it takes; none: all. rule: only runs of this rule. seeds: the number of seeds
    of each setting that it takes; None: all. options, grid: those of the command; all combinations of the grid are
    carried out. minutes: the time of one step on two cores.
    """

    verb: Literal["eval", "analyze", "render"]
    runs: list[str] = []
    seeds: int | None = Field(None, ge=1)


class Recipe(_Table):
    """What to run and why.

    reproduces: the published figure or table. claims: ids in the `claims.toml` of the rules. minutes: the time of one
    run on two cores, measured or estimated. seeds: the number of seeds, starting with the option `seed`, or a list of
    seeds. options: those of the train command. grid: the values of each option; all combinations are run. where: by
    option and its value, further options of the runs with this value. runs: for several rules or settings, a table for
    each with its own keys; the options, grid and where of the recipe hold for all. steps: what is carried out on the
    trained runs. report: options of `plastic report` about the runs of the recipe; None: no report is written.
    """

    title: str = Field(min_length=1)
    why: str = Field(min_length=1)
    reproduces: str = ""
    claims: list[str] = []
    runs: list[RecipeRuns] = []
    steps: list[RecipeStep] = []
    report: dict[str, Any] | None = None


@dataclass(frozen=True)
class RecipeFile:
    """A recipe and its file."""

    name: str
    path: Path
    recipe: Recipe
    text: str

    def error(self, where: Where, message: str) -> UserError:
        """Return the error for a place in the file, with its line."""
        return UserError(f"{_place(self.path, self.text, where)}: {message}")


def recipes_folder() -> Path:
    """Return the folder of the recipes that come with plastic: in the package, or next to it in a checkout."""
    installed = Path(str(files("plastic_cli"))) / "recipes"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "recipes"


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with plastic."""
    return sorted(path.stem for path in recipes_folder().glob("*.toml"))


def find_recipe(text: str) -> Path:
    """Return the file of a recipe, given a path or the name of a recipe that comes with plastic.

    Raises UserError, with the most similar name, if there is none.
    """
    path = Path(text).expanduser()
    if path.is_file():
        return path
    named = recipes_folder() / f"{text.removesuffix('.toml')}.toml"
    if "/" not in text and named.is_file():
        return named
    if "/" in text or path.suffix == ".toml" or path.exists():
        raise UserError(
            f"there is no recipe {text}: no such file. `plastic recipes` lists those that come with plastic."
        )
    raise UserError(f"there is no recipe '{text}'.{did_you_mean(text, recipe_names())} `plastic recipes` lists them.")


def read_recipe(text: str) -> RecipeFile:
    """Read a recipe by name or path; raises UserError, with the line, if it is not valid."""
    path = find_recipe(text)
    content, values = _read(path)
    if not is_recipe(values):
        raise UserError(
            f"{path} holds options for --config and is not a recipe: a recipe has a title, a why, a rule and [options]."
        )
    try:
        file = RecipeFile(path.stem, path, Recipe.model_validate(values), content)
    except ValidationError as error:
        raise _invalid(path, content, error) from None
    for where, tables in tables_of(file.recipe):
        if all(table.rule is None for table in tables):
            raise file.error((*where, "rule"), "it names no rule. Add a line: rule = ...")
        for place, table in zip([(), where], tables, strict=False):
            _check_seeds(file, place, table.seeds)
            _check_grid(file, place, table)
    for number, step in enumerate(file.recipe.steps):
        _check_grid(file, ("steps", number), step)
    return file


def _check_seeds(file: RecipeFile, where: Where, seeds: int | list[int] | None) -> None:
    """Raise UserError for seeds that are not valid."""
    if isinstance(seeds, int) and seeds < 1:
        raise file.error((*where, "seeds"), f"seeds {seeds}: give their number, 1 or more, or a list of seeds.")
    if isinstance(seeds, list) and (not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds)):
        raise file.error((*where, "seeds"), f"seeds {seeds}: a list of seeds has one or more, each once, 0 or above.")


def _check_grid(file: RecipeFile, where: Where, table: _Options) -> None:
    """Raise UserError for a grid that is not valid."""
    for name, values in table.grid.items():
        place = (*where, "grid", name)
        if not values:
            raise file.error(place, f"the grid of '{name}' has no value.")
        if name == "seed":
            raise file.error(place, "seeds are not part of a grid: give their number or a list with seeds = ...")
        if name in table.options:
            raise file.error(place, f"'{name}' is under options and under grid: keep one of them.")


def is_recipe(values: Mapping[str, Any]) -> bool:
    """Return whether the content of a TOML file is a recipe or meant as one, and not only options."""
    tables = any(isinstance(values.get(name), dict) for name in ("options", "grid"))
    listed = isinstance(values.get("runs"), list) and any(isinstance(entry, dict) for entry in values["runs"])
    return "title" in values or tables or listed


def read_options(path: Path, rule: str) -> dict[str, Any]:
    """Return the options in a file for `--config`: its keys, or the [options] of a recipe.

    A recipe that comes with plastic can be given by its name. Raises UserError if the file is a recipe of another rule
    or of several rules.
    """
    file = path
    if not path.exists() and path.name == str(path) and path.stem in recipe_names():
        file = find_recipe(str(path))
    values = read_toml(file)
    if not is_recipe(values):
        return values
    recipe = read_recipe(str(file)).recipe
    several = len(recipe.runs) > 1
    if several:
        raise UserError(f"{path} has several [[runs]], which --config cannot choose from: `plastic sweep {path}`.")
    tables: list[_Table] = [recipe, *recipe.runs]
    named = next(table.rule for table in reversed(tables) if table.rule is not None)
    if named != rule:
        raise UserError(f"{path} is a recipe of {named}: plastic train {named} --config {path}")
    return {name: value for table in tables for name, value in table.options.items()}


def line_of(text: str, where: Where) -> int | None:
    """Return the line, counted from 1, of the statement that defines `where` in a TOML text.

    It is found by reading longer and longer beginnings of the text, so that it is right for any valid TOML.
    """
    lines = text.splitlines()
    whole = 0
    for number in range(1, len(lines) + 1):
        try:
            values = tomllib.loads("\n".join(lines[:number]))
        except (ValueError, RecursionError):
            continue
        if _contains(values, where):
            return whole + 1
        whole = number
    return None


def _contains(values: Any, where: Where) -> bool:
    for key in where:
        if isinstance(values, dict):
            # Hyphens and underscores are the same in the name of an option.
            found = next((name for name in values if name in (key, str(key).replace("_", "-"))), None)
            if found is None:
                return False
            values = values[found]
        elif isinstance(values, list) and isinstance(key, int) and key < len(values):
            values = values[key]
        else:
            return False
    return True


def _place(path: Path, text: str, where: Where) -> str:
    for end in range(len(where), 0, -1):
        line = line_of(text, where[:end])
        if line is not None:
            return f"{path}, line {line}"
    return str(path)


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = decode_toml(path.read_bytes())
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        what, _, line = str(error).partition(" (at line ")
        place = f", line {line.partition(',')[0]}" if line else ""
        raise UserError(f"{path}{place}: it is not valid TOML: {what}.") from None
    except RecursionError:
        raise UserError(f"cannot read {path}: it is nested too deep.") from None
    except (OSError, ValueError) as error:  # no UTF-8, or an integer longer than Python reads
        raise UserError(f"cannot read {path}: {error}.") from None


def _invalid(path: Path, text: str, error: ValidationError) -> UserError:
    # An unknown key explains more than the key that is missing because of it.
    first = min(error.errors(), key=lambda entry: entry["type"] != "extra_forbidden")
    where: Where = first["loc"]
    # Apart from keys, pydantic names the members of a choice of types.
    while where and not _known_place(text, where):
        where = where[:-1]
    place = _place(path, text, where)
    if first["type"] == "extra_forbidden":
        tables: dict[str, type[BaseModel]] = {"runs": RecipeRuns, "steps": RecipeStep}
        known = tables.get(str(where[0]), Recipe).model_fields
        return UserError(f"{place}: a recipe has no key '{where[-1]}'.{did_you_mean(str(where[-1]), known)}")
    if first["type"] == "missing":
        what = "the step" if where[:1] == ("steps",) else "the recipe"
        return UserError(f"{place}: {what} has no {first['loc'][-1]}. Say it in a line: {first['loc'][-1]} = ...")
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    name = ".".join(str(part) for part in where)
    return UserError(f"{place}: {name + ': it ' if name and first['type'] != 'value_error' else ''}{message}.")


def _known_place(text: str, where: Where) -> bool:
    return _contains(tomllib.loads(text), where)


def tables_of(recipe: Recipe) -> Iterator[tuple[Where, Sequence[_Table]]]:
    """Yield, for each set of runs, its place in the file and its tables, the most specific last."""
    if not recipe.runs:
        yield (), [recipe]
    for number, runs in enumerate(recipe.runs):
        yield ("runs", number), [recipe, runs]
