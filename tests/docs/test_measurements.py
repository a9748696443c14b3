"""The numbers in tables of README.md and of the rules come from files, which say how they were measured."""

from __future__ import annotations

import re
import tomllib

import pytest

import measurements
from docs.pages import PAGES, ROOT

FILES = sorted((ROOT / "docs/measurements").glob("*.toml"))
TABLES = [(path.stem, name) for path in FILES for name in tomllib.loads(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tables_show_what_the_files_hold(page):
    text = page.read_text(encoding="utf-8")
    assert measurements.with_tables(text) == text, "run: python website/measurements.py"


def test_every_table_of_a_file_is_in_a_page():
    shown = {block for page in PAGES for block in measurements.BLOCK.findall(page.read_text(encoding="utf-8"))}
    assert {(file, name) for _, file, name in shown} == {
        (file, name) for file, name in TABLES if measurements.measurements(file)[name]["rows"]
    }


@pytest.mark.parametrize(
    "page", ["README.md", *(f"docs/rules/{path.name}" for path in (ROOT / "docs/rules").glob("*.md"))]
)
def test_no_table_has_intervals_typed_by_hand(page):
    text = measurements.BLOCK.sub("", (ROOT / page).read_text(encoding="utf-8"))
    assert [
        line for line in text.splitlines() if line.lstrip().startswith("|") and re.search(r"\[-?[\d.]+, ", line)
    ] == []


@pytest.mark.parametrize(("file", "name"), TABLES)
def test_a_table_says_how_it_was_measured_and_uses_its_values(file, name):
    content = measurements.measurements(file)[name]
    assert content["date"]
    assert content.get("command") or content.get("note")
    used = {found[0] for row in content["rows"] for cell in row for found in measurements.FIELD.findall(cell)}
    elsewhere = (ROOT / "docs/measurements/readme.toml").read_text(encoding="utf-8")
    for key in content.get("values", {}):
        assert key in used or f"{file}/{name}/{key}" in elsewhere, key


@pytest.mark.parametrize(("file", "name"), TABLES)
def test_a_verdict_is_that_of_the_report(file, name):
    content = measurements.measurements(file)[name]
    for row in content["rows"]:
        shown = re.fullmatch(r"(reproduced|not reproduced|inconclusive)\b.*", row[-1]) if row else None
        ids = [
            found[0] for cell in row for found in measurements.FIELD.findall(cell) if found[0] in measurements.claims()
        ]
        # A row of several claims has a verdict for each; a claim that was judged with other seeds has its own words.
        if shown and ids and (row[0] in ids or not row[0]):
            assert measurements.claims()[ids[0]]["verdict"] == shown[1], row


@pytest.mark.parametrize(
    ("number", "spec", "text"),
    [
        (0.2549, ".3", ".255"),
        (-0.0004, "2", "0.00"),
        (1250.4, ",", "1,250"),
        (97.595, "1", "97.6"),
        (-0.5, ".1", "-.5"),
    ],
)
def test_numbers_are_rounded_as_a_page_shows_them(number, spec, text):
    content = {"values": {"a / b": number}, "digits": 3}
    assert measurements._shown("{a / b:" + spec + "}", content) == text


def test_a_value_with_an_interval_can_be_shown_in_parts():
    content = {"values": {"a": {"mean": 62.4, "low": 57, "high": 67}}, "digits": 0}
    assert measurements._shown("{a}; {a.mean}° {a.interval:1}", content) == "62 [57, 67]; 62° [57.0, 67.0]"
