"""theta.toml: a learned rule as a file that a person can read, edit and pass to `--theta`."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from plastic_cli.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from plastic_cli import Run

THETA_FILE = "theta.toml"
"""Name of the file in a run's artifacts."""

Feedback = Literal["fixed", "symmetric", "direct", "sign"]
FEEDBACKS: tuple[Feedback, ...] = get_args(Feedback)

PUBLISHED_TERMS = 10
"""Number of terms in the publication: indices 0 to 9."""

TermKey = int | str
"""A term: its index, or MODULE:TERM for a term of the user's own."""


@dataclass(frozen=True)
class LearnedRule:
    """The content of a theta.toml.

    theta: the strength of each term by its key, in the order of the file. feedback: the one that theta was learned
    with. name: the path of the file, for messages.
    """

    theta: Mapping[TermKey, float]
    feedback: Feedback
    name: str


def term_key(word: str | int | Callable[..., Any]) -> TermKey:
    """Return the key of a term given by index, by name, as MODULE:TERM, or as a function of a module.

    MODULE:TERM is not imported. Raises UserError for an unknown term.
    """
    if callable(word):
        word = f"{word.__module__}:{word.__qualname__}"
    text = str(word).strip()
    if ":" in text:
        return _own_term(text)
    text = text.lower()
    # A published index needs no list of terms: reading a configuration does not import torch.
    if text.isdecimal() and int(text) < PUBLISHED_TERMS:
        return int(text)
    from plastic_metafa.rule import TERMS

    names = {term.name: number for number, term in TERMS.items()}
    if text in names:
        return names[text]
    if text.isdecimal() and int(text) in TERMS:
        return int(text)
    if text == "all":
        raise UserError("'all' means the ten published terms and cannot be combined with others.")
    known = ", ".join(f"{number} {term.name}" for number, term in TERMS.items())
    raise UserError(
        f"there is no term '{word}'.{did_you_mean(text, names)} The terms are {known}; MODULE:TERM is a term of your"
        " own."
    )


def _own_term(text: str) -> str:
    from plastic_cli.runs.own_modules import check_module_name

    option = f"--terms {text}"
    check_module_name(text, option)
    if not text.partition(":")[2].isidentifier():
        raise UserError(f"{option}: write MODULE:TERM; TERM is the name of a function at the top level of MODULE.")
    return text


def read_terms(given: Any) -> Any:
    """Return the keys of `--terms`, in the order given: a text such as "0,2,9" or "all", or a sequence of words.

    Anything else is returned as it is. Raises UserError for an unknown term.
    """
    words = [part for part in given.split(",") if part.strip()] if isinstance(given, str) else given
    if not isinstance(words, list | tuple):
        return given
    if [str(word).strip().lower() for word in words] == ["all"]:
        return tuple(range(PUBLISHED_TERMS))
    return tuple(term_key(word) for word in words)


def sort_terms(keys: Iterable[TermKey]) -> tuple[TermKey, ...]:
    """Return the different keys in order: indices first, then the terms of the user's own."""
    return tuple(sorted(set(keys), key=lambda key: (isinstance(key, str), key)))


def learned_rule(run: Run) -> LearnedRule:
    """Return the rule that a run has learned."""
    return read_theta(run.folder / "artifacts" / THETA_FILE)


def read_theta(path: Path) -> LearnedRule:
    """Read a theta.toml; raises UserError, in one line, if it cannot be read or its content is invalid."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"there is no file {path}. A finished run of metafa has one: artifacts/theta.toml.") from None
    except RecursionError:
        raise UserError(f"cannot read {path}: it is nested too deep.") from None
    except (OSError, ValueError) as error:  # not UTF-8, not TOML, or an integer longer than Python reads
        raise UserError(f"cannot read {path}: {error}.") from None
    unknown = content.keys() - {"feedback", "theta"}
    if unknown:
        raise UserError(f"{path}: unknown key '{min(unknown)}'. The keys are feedback and the table [theta].")
    feedback = content.get("feedback", "fixed")
    if feedback not in FEEDBACKS:
        raise UserError(f"{path}: feedback is {feedback!r}: it must be one of {', '.join(FEEDBACKS)}.")
    table = content.get("theta")
    if not isinstance(table, dict) or not table:
        raise UserError(f"{path}: it has no table [theta] with the strength of each term.")
    theta: dict[TermKey, float] = {}
    for word, value in table.items():
        try:
            key = term_key(word)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
            raise UserError(f"{path}: {word} is {value!r}: it must be a finite number.")
        if key in theta:
            raise UserError(f"{path}: term {key} occurs twice.")
        theta[key] = float(value)
    return LearnedRule(theta, feedback, str(path))


def theta_toml(theta: Mapping[TermKey, float], feedback: str, heading: str) -> str:
    """Return the text of a theta.toml; `heading` is its first line, a comment."""
    import tomli_w

    from plastic_metafa.rule import TERMS

    lines = [f"# {heading}", tomli_w.dumps({"feedback": feedback}), "[theta]"]
    for key, value in theta.items():
        expression = (TERMS[key].expression.__doc__ or "").strip().splitlines()
        if expression:
            lines.append(f"# {expression[0]}")
        lines.append(tomli_w.dumps({TERMS[key].name: float(value)}).rstrip())
    return "\n".join(lines) + "\n"
