"""theta.toml: a learned rule as a file that a person can read, edit and give to `--theta`."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from plastic_cli.errors import UserError, did_you_mean

Feedback = Literal["fixed", "symmetric", "direct", "sign"]
FEEDBACKS: tuple[Feedback, ...] = get_args(Feedback)

PUBLISHED_TERMS = 10


@dataclass(frozen=True)
class LearnedRule:
    """What theta.toml says: the strength of each term, and the feedback that it was learned with.

    theta: by the term's index, in the order of the file. name: where it comes from, for messages.
    """

    theta: Mapping[int, float]
    feedback: Feedback
    name: str


def term_number(word: str | int) -> int:
    """Return the index of a term given by index or name; raises UserError where there is none."""
    text = str(word).strip().lower()
    # A published index needs no list of terms, and so not torch, where only a configuration is read.
    if text.isdecimal() and int(text) < PUBLISHED_TERMS:
        return int(text)
    from plastic_metafa.rule import TERMS

    names = {term.name: number for number, term in TERMS.items()}
    if text in names:
        return names[text]
    if text.isdecimal() and int(text) in TERMS:
        return int(text)
    if text == "all":
        raise UserError("'all' means the ten published terms and stands alone: name the others by themselves.")
    known = ", ".join(f"{number} {term.name}" for number, term in TERMS.items())
    raise UserError(f"there is no term '{word}'.{did_you_mean(text, names)} There are: {known}.")


def read_theta(path: Path) -> LearnedRule:
    """Read a theta.toml; raises UserError, one line, where it cannot be read or says what makes no sense."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"there is no file {path}. A finished run of metafa has one: artifacts/theta.toml.") from None
    except RecursionError:
        raise UserError(f"cannot read {path}: it is nested too deep.") from None
    except (OSError, ValueError) as error:  # no UTF-8, no TOML, or an integer longer than Python reads
        raise UserError(f"cannot read {path}: {error}.") from None
    unknown = content.keys() - {"feedback", "theta"}
    if unknown:
        raise UserError(f"{path}: there is no key '{min(unknown)}'. There are feedback and the table [theta].")
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
            raise UserError(f"{path}: term {number} stands there twice.")
        theta[number] = float(value)
    return LearnedRule(theta, feedback, str(path))


def theta_toml(theta: Mapping[int, float], feedback: str, heading: str) -> str:
    """Return the text of a theta.toml; `heading` goes into its first line."""
    import tomli_w

    from plastic_metafa.rule import TERMS

    lines = [f"# {heading}", tomli_w.dumps({"feedback": feedback}), "[theta]"]
    for number, value in theta.items():
        expression = (TERMS[number].expression.__doc__ or "").strip().splitlines()
        if expression:
            lines.append(f"# {expression[0]}")
        lines.append(tomli_w.dumps({TERMS[number].name: float(value)}).rstrip())
    return "\n".join(lines) + "\n"
