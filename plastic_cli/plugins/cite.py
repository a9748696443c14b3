"""BibTeX of the sources of rules, and of plastic."""

from __future__ import annotations

from collections.abc import Sequence

from plastic_cli.distribution import installed_version
from plastic_cli.plugins.discovery import find_rule

PLASTIC = """\
@misc{{plastic,
  author = {{{{The plastic authors}}}},
  title  = {{plastic: train, evaluate, analyze and render biologically plausible learning rules}},
  note   = {{Version {version}}},
  year   = {{2026}}
}}
"""
"""The same facts as in CITATION.cff."""


def cite(rules: str | Sequence[str] = ()) -> str:
    """Return BibTeX: the sources of one rule or of several rules, if any is named, and plastic once.

    The entries of a rule come from `citation.bib` in the package of its plugin. A rule without this file is described
    by its `citation` in a comment. A rule that is named twice is printed once.

    Raises:
        UserError: there is no such rule.
    """
    named = [rules] if isinstance(rules, str) else rules
    found = [find_rule(name) for name in dict.fromkeys(named)]
    sources = [rule.bibtex() or f"% {rule.name}: {rule.citation}\n" for rule in found]
    return "\n".join([*sources, PLASTIC.format(version=installed_version())])
