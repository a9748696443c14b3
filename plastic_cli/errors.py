"""Expected errors: each has one line that says what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class PlasticError(Exception):
    """An expected failure: shown as one line, without a traceback. Exit code 1."""

    exit_code = 1


class UserError(PlasticError, ValueError):
    """Wrong usage or input: a ValueError in Python, exit code 2 on the command line."""

    exit_code = 2


class OptionError(UserError):
    """An option or key that does not exist or has an invalid value; `key`: its name, None for several options."""

    def __init__(self, message: str, key: str | None) -> None:
        super().__init__(message)
        self.key = key


class FormerName(FutureWarning):
    """An option was given under a former name, which the next version refuses."""


class RunFailed(PlasticError):
    """A run stopped because of a value that it computed or a file that it could not write. Exit code 1."""


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the most similar of `choices`, or an empty string if none is similar."""
    folded = {choice.casefold(): choice for choice in choices}
    matches = get_close_matches(word.casefold(), list(folded), n=1, cutoff=0.5)
    return f" Did you mean '{folded[matches[0]]}'?" if matches else ""


def with_article(name: str) -> str:
    """Return the name of a type with "a" or "an"."""
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def match_choice(text: str, choices: Iterable[str]) -> str:
    """Return the one of `choices` that equals `text` except for upper and lower case, or `text` if there is none."""
    listed = list(choices)
    if text in listed:
        return text
    alike = [choice for choice in listed if choice.casefold() == text.strip().casefold()]
    return alike[0] if len(alike) == 1 else text
