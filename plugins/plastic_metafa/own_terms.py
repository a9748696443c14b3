"""Terms of the user's own: functions of a module, which `--terms MODULE:TERM` names."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from plastic_cli import UserError
from plastic_cli.errors import with_article
from plastic_cli.runs.own_modules import import_own, module_version
from plastic_metafa.rule import TERMS, Term
from plastic_metafa.theta_file import TermKey

UNITS, INPUTS = 3, 5
"""Size of the layer with which a term is tried."""


def own_terms(terms: Iterable[TermKey]) -> list[str]:
    """Return those of the terms that are of the user's own."""
    return [term for term in terms if isinstance(term, str)]


def load_terms(terms: Iterable[TermKey]) -> dict[str, str]:
    """Import the terms of the user's own into `rule.TERMS`; return the versions of their modules.

    A term is a function of (W, y_pre, y_post, e_pre, e_post), as the terms in `rule`, or a `rule.Term`. Raises
    UserError if there is no such module or function, and if a layer cannot be changed by it.
    """
    versions: dict[str, str] = {}
    for key in own_terms(terms):
        option = f"--terms {key}"
        found = import_own(key, option)
        term = found._replace(name=key) if isinstance(found, Term) else Term(key, found)
        _try_on_a_layer(term, option)
        TERMS[key] = term
        versions |= module_version(key.partition(":")[0])
    return versions


@torch.no_grad()
def _try_on_a_layer(term: Term, option: str) -> None:
    if not callable(term.expression):
        raise UserError(f"{option}: it is {with_article(type(term.expression).__name__)}. A term is a function.")
    W, y_pre, y_post = torch.full((UNITS, INPUTS), 0.1), torch.full((INPUTS,), 0.5), torch.full((UNITS,), 0.5)
    try:
        change = term.expression(W, y_pre, y_post, torch.full((INPUTS,), 0.2), torch.full((UNITS,), 0.2))
    except Exception as error:
        # The user's function can raise anything.
        reason = str(error).partition("\n")[0].rstrip(".")
        raise UserError(
            f"{option}: it failed with {type(error).__name__}: {reason}. It is called with W, y_pre, y_post, e_pre,"
            " e_post."
        ) from error
    if not isinstance(change, Tensor) or change.shape != W.shape:
        returned = f"a tensor {tuple(change.shape)}" if isinstance(change, Tensor) else f"a {type(change).__name__}"
        raise UserError(f"{option}: it returned {returned} for W {tuple(W.shape)}; the change has the shape of W.")
