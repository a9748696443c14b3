"""BibTeX of the source of a rule, and of plastic."""

from __future__ import annotations

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


def cite(rule: str | None = None) -> str:
    """Return BibTeX: the source of a rule, if one is named, and plastic.

    The entries of a rule come from `citation.bib` in the package of its plugin. A rule without this file is described
    by its `citation` in a comment.

    Raises:
        UserError: there is no such rule.
    """
    entries = [PLASTIC.format(version=installed_version())]
    if rule is not None:
        found = find_rule(rule)
        entries.insert(0, found.bibtex() or f"% {found.name}: {found.citation}\n")
    return "\n".join(entries)
