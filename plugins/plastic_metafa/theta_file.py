"""theta.toml: a learned rule as a file that a person can read, edit and pass to `--theta`."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from plastic_cli.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from plastic_cli import Run

THETA_FILE = "theta.toml"
"""Name of the file in a run's artifacts."""

Feedback = Literal["fixed", "symmetric", "direct", "sign"]
FEEDBACKS: tuple[Feedback, ...] = get_args(Feedback)

PUBLISHED_TERMS = 10
"""Number of terms in the publication: indices 0 to 9."""


@dataclass(frozen=True)
class LearnedRule:
    """The content of a theta.toml.

    theta: the strength of each term by its index, in the order of the file. feedback: the one that theta was learned
    with. name: the path of the file, for messages.
    """

    theta: Mapping[int, float]
    feedback: Feedback
    name: str


def term_number(word: str | int) -> int:
    """Return the index of a term given by index or name; raises UserError for an unknown term."""
    text = str(word).strip().lower()
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
    raise UserError(f"there is no term '{word}'.{did_you_mean(text, names)} The terms are {known}.")


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
    theta: dict[int, float] = {}
    for word, value in table.items():
        try:
            number = term_number(word)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
            raise UserError(f"{path}: {word} is {value!r}: it must be a finite number.")
        if number in theta:
            raise UserError(f"{path}: term {number} occurs twice.")
        theta[number] = float(value)
    return LearnedRule(theta, feedback, str(path))


def theta_toml(theta: Mapping[int, float], feedback: str, heading: str) -> str:
    """Return the text of a theta.toml; `heading` is its first line, a comment."""
    import tomli_w

    from plastic_metafa.rule import TERMS

    lines = [f"# {heading}", tomli_w.dumps({"feedback": feedback}), "[theta]"]
    for number, value in theta.items():
        expression = (TERMS[number].expression.__doc__ or "").strip().splitlines()
        if expression:
            lines.append(f"# {expression[0]}")
        lines.append(tomli_w.dumps({TERMS[number].name: float(value)}).rstrip())
    return "\n".join(lines) + "\n"
