"""`plastic cite` and `plastic_cli.cite`: one source for the command, Python, the pages and CITATION.cff."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import plastic_cli
from plastic_cli.plugins.discovery import discover
from plastic_cli.plugins.rule import Rule
from plastic_cli.testing import plastic

ROOT = Path(__file__).parents[2]


def entries(text):
    """The keys of BibTeX entries, and the fields of each."""
    return {
        key: dict(re.findall(r"^  (\w+) += \{(.*)\},?$", body, re.MULTILINE))
        for key, body in re.findall(r"^@\w+\{([\w-]+),\n(.*?)^\}$", text, re.MULTILINE | re.DOTALL)
    }


@pytest.mark.parametrize("rule", list(discover().rules))
def test_a_rule_is_cited_in_the_same_words_everywhere(rule):
    outcome = plastic("cite", rule)
    assert outcome.code == 0
    assert outcome.out == plastic_cli.cite(rule)
    *sources, own = entries(outcome.out)
    assert own == "plastic"
    assert sources
    page = (ROOT / f"docs/rules/{rule}.md").read_text(encoding="utf-8")
    [block] = re.findall(r"```bibtex\n(.*?)```", page, re.DOTALL)
    assert outcome.out == block + "\n" + plastic("cite").out


def test_several_rules_are_cited_in_one_call_with_plastic_once():
    outcome = plastic("cite", "grlu", "eglp", "grlu")
    assert outcome.code == 0
    assert list(entries(outcome.out)) == ["grlu", "eglp", "plastic"]
    assert plastic_cli.cite(["grlu", "eglp"]) == plastic_cli.cite(("grlu", "eglp")) == outcome.out


@pytest.mark.parametrize("rule", ["grlu", "eglp", "selective", "mpn"])
def test_bibtex_keeps_the_letters_of_names_of_programs(rule):
    # Without the second braces BibTeX writes "Eglp", and takes a name apart.
    programs = [fields for fields in entries(plastic_cli.cite(rule)).values() if "howpublished" in fields]
    assert programs
    for fields in programs:
        assert re.fullmatch(r"\{.*\}", fields["author"])
        assert re.fullmatch(r"\{.*\}", fields["title"])


def test_plastic_is_cited_as_in_its_citation_file():
    [(_, own)] = entries(plastic("cite").out).items()
    file = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    facts = dict(re.findall(r"^(\S+?): +\"?(.*?)\"?$", file, re.MULTILINE))
    [author] = re.findall(r"^  - name: (.*)$", file, re.MULTILINE)
    assert own == {
        "author": f"{{{author}}}",
        "title": facts["title"],
        "note": f"Version {facts['version']}",
        "year": facts["date-released"][:4],
    }


def test_a_rule_without_a_file_is_described_in_a_comment(monkeypatch):
    rule = Rule(name="mine", summary="", citation="Me 2026", commands="plastic_cli.commands")
    monkeypatch.setitem(discover().rules, "mine", rule)
    assert plastic_cli.cite("mine") == f"% mine: Me 2026\n\n{plastic_cli.cite()}"


def test_a_wrong_rule_is_one_line_with_a_suggestion():
    outcome = plastic("cite", "grul")
    assert outcome.code == 2
    assert "Did you mean 'grlu'?" in outcome.err
    with pytest.raises(plastic_cli.UserError, match="Did you mean 'grlu'"):
        plastic_cli.cite("grul")
