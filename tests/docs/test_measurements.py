"""The measured numbers of the pages come from the reference or from a benchmark, and no page is older than they are."""

from __future__ import annotations

import re

import pytest

import combinations
import measured
import measurements
from docs.pages import PAGES, ROOT

FILES = sorted(path.stem for path in (ROOT / "docs/measurements").glob("*.toml"))
TABLES = [(file, name) for file in FILES for name in measurements.measurements(file)]


def is_benchmark(content):
    return "python benchmarks/" in content.get("command", "")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_show_what_the_reference_and_the_files_hold(page):
    text = page.read_text(encoding="utf-8")
    assert measurements.with_numbers(text) == text, "run: python website/measurements.py"


def test_the_tables_of_combinations_are_those_of_the_reference():
    text = (ROOT / "docs/measurements/combinations.toml").read_text(encoding="utf-8")
    assert combinations.tables_text(measured.stored_reference()) == text, "run: python website/measurements.py"


def test_every_table_of_a_file_is_in_a_page():
    shown = {block for page in PAGES for block in measurements.BLOCK.findall(page.read_text(encoding="utf-8"))}
    with_rows = {(file, name) for file, name in TABLES if measurements.measurements(file)[name]["rows"]}
    assert {(file, name) for _, file, name in shown} == with_rows


EXAMPLES = ["docs/writing-a-rule.md"]
"""Pages whose tables are what a command prints for a rule that is not in the reference."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_table_has_intervals_typed_by_hand(page):
    text = measurements.BLOCK.sub("", page.read_text(encoding="utf-8"))
    assert (
        str(page.relative_to(ROOT)) in EXAMPLES
        or [line for line in text.splitlines() if line.lstrip().startswith("|") and re.search(r"\[-?[\d.]+, ", line)]
        == []
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_number_in_a_sentence_does_not_begin_a_line(page):
    """A line that begins with a comment is HTML, so its Markdown would not be read."""
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"^[ \t]*(?:[-*] |\d+\. )?<!-- number.*", text, re.MULTILINE) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_explains_the_marks_of_its_sentences(page):
    sentences = measurements.BLOCK.sub("", page.read_text(encoding="utf-8"))
    for mark, words in ((measurements.EARLIER, "measured earlier"), (measurements.NOT_YET, "not measured yet")):
        shown = any(mark in found[0] for found in measurements.NUMBER.finditer(sentences))
        assert not shown or (mark in measurements.NUMBER.sub("", sentences) and words in sentences), mark


@pytest.mark.parametrize(("file", "name"), TABLES)
def test_only_a_benchmark_has_typed_values(file, name):
    content = measurements.measurements(file)[name]
    values = content.get("values", {})
    queries = {"of", "claims", "outliers"}
    typed = [key for key, own in values.items() if not isinstance(own, dict) or own.keys().isdisjoint(queries)]
    if content.get("generated"):
        assert content["command"].startswith("plastic sweep ")
    elif is_benchmark(content):
        assert content["date"]
        assert content["machine"]
    else:
        assert typed == []
    earlier = content.get("earlier")
    assert earlier is None or (earlier["source"] and earlier["date"] and earlier["values"])


@pytest.mark.parametrize(("file", "name"), TABLES)
def test_every_query_has_a_recipe_that_measures_it(file, name):
    content = measurements.measurements(file)[name]
    for setting in measurements.settings_of(file, name).values():
        assert setting.recipes, str(setting)
    known = measured.claims(measured.stored_reference())

    def counted(key):
        return not {"claims", "outliers"}.isdisjoint(content.get("values", {}).get(key, {}))

    for key in measurements.keys_of(file, name):
        typed = content.get("generated") or is_benchmark(content)
        other = key.partition("/")[0] in FILES
        assert typed or other or key in known or measurements.query_of(key, file, name) or counted(key), key


@pytest.mark.parametrize(("file", "name"), TABLES)
def test_every_value_and_setting_is_shown(file, name):
    content = measurements.measurements(file)[name]
    pages = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    rows = [cell for table in measurements.measurements(file).values() for row in table["rows"] for cell in row]
    used = {found[0] for cell in rows for found in measurements.FIELD.findall(cell)}
    elsewhere = (ROOT / "docs/measurements/readme.toml").read_text(encoding="utf-8") + pages
    for key in {**content.get("values", {}), **content.get("earlier", {}).get("values", {})}:
        assert key in used or f"{file}/{name}/{key}" in elsewhere, key
    queries = [measurements.query_of(key, file, each) for each in measurements.measurements(file) for key in used]
    of = {str(query["of"]) + str(query.get("against")) for query in queries if query}
    for setting in content["settings"]:
        assert any(setting in text for text in of) or f"/{setting} / " in pages, setting


def test_what_is_missing_is_marked_in_the_pages():
    """Each value that the reference does not hold has a mark where it is shown, and no other value has one."""
    lacking = {(file, name, key) for _, (file, name, key), _ in measurements.missing()}
    for file, name in TABLES:
        for row in measurements.measurements(file)[name]["rows"]:
            for cell in row:
                keys = [found[0] for found in measurements.FIELD.findall(cell)]
                own = [(file, name, key) for key in keys if key.partition("/")[0] not in FILES]
                if own and len(own) == len(keys):
                    shown = measurements.shown(cell, file, name, measurements.Notes()).text
                    marked = shown.endswith(measurements.EARLIER) or measurements.NOT_YET in shown
                    marked = marked or shown == "untested"
                    assert marked == any(key in lacking for key in own), (file, name, cell)


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
    assert measurements.formatted(measured.Value(number), None, spec) == text


def test_a_value_can_be_shown_in_parts():
    value = measured.Value(
        mean=62.4, low=57, high=67, n=5, each=(61, 64.2), word="inconclusive", words="inconclusive: x"
    )
    parts = {None: "62 [57, 67]", "mean": "62", "interval": "[57, 67]", "low": "57", "n": "5", "each": "61, 64",
             "verdict": "inconclusive", "words": "inconclusive: x"}  # fmt: skip
    assert {part: measurements.formatted(value, part, "0") for part in parts} == parts
    assert measurements.formatted(measured.Value(count=7, n=10), None, "0") == "7 of 10"
    assert measurements.formatted(measured.Value(count=7, n=10), "count", "0") == "7"
    assert measurements.formatted(measured.Value(each=(1.0, 2.0), n=2), None, "1") == "1.0, 2.0"


def test_a_table_says_how_many_seeds_it_has_and_what_was_measured_earlier(monkeypatch):
    content = {
        "table": {
            "digits": 1,
            "columns": ["", "value"],
            "rows": [["a", "{a}"], ["b", "{b}"], ["c", "{c}"], ["d", "**{d}**"], ["e", "{e}"]],
            "settings": {},
            "measures": {},
        }
    }
    values = {
        "a": measured.Value(1, 0.5, 1.5, 5, versions=frozenset({"0.1.0"})),
        "b": measured.Value(2, 1.5, 2.5, 5),
        "c": measured.Value(3, 2.5, 3.5, 10),
        "d": measured.Value(4, earlier="x"),
    }

    def value_of(key, file, name):
        if key not in values:
            raise measured.NotMeasuredError("no run")
        return values[key]

    monkeypatch.setattr(measurements, "measurements", lambda file: content)
    monkeypatch.setattr(measurements, "value_of", value_of)
    lines = measurements.table("any", "table")[2:]
    assert lines[:-1] == [
        "| a | 1.0 [0.5, 1.5] |",
        "| b | 2.0 [1.5, 2.5] |",
        "| c | 3.0 [2.5, 3.5] (10 seeds) |",
        "| d | **4.0** † |",
        "| e | ‡ |",
        "",
    ]
    notes = "5 seeds unless stated. Measured with plastic 0.1.0."
    assert lines[-1] == f"{notes} † Measured earlier, not in the reference: x. ‡ Not measured yet."
    text = "It is <!-- number: any/table/a.mean:2 -->9<!-- end --> or <!-- number: any/table/d -->9<!-- end -->."
    assert measurements.with_numbers(text) == text.replace("2 -->9", "2 -->1.00").replace("d -->9", "d -->4.0†")
    example = f"```markdown\n{text}\n```"
    assert measurements.with_numbers(example) == example


def test_a_table_of_a_recipe_has_a_row_for_each_setting(monkeypatch):
    measures = {"accuracy": {"metric": "test/accuracy"}, "angle": {"metric": "train/angle"}}
    content = {"recipe": "grlu-position-of-noise", "show": ["accuracy:1", "angle.mean:0"], "measures": measures}
    table = measurements._with_rows({**content, "settings": {}})
    settings = measured.settings_of_recipe("grlu-position-of-noise")
    assert [row[0] for row in table["rows"]] == list(settings)
    assert table["rows"][0] == [
        "noise after ReLU perturbations=1",
        "{noise after ReLU perturbations=1 / accuracy:1}",
        "{noise after ReLU perturbations=1 / angle.mean:0}",
    ]
    assert all(
        key in table["settings"] for key in ("control, random hidden weights", "noise before ReLU perturbations=16")
    )
    assert settings["noise before ReLU perturbations=16"].config["credit"] == "preactivation"


def test_a_value_that_differs_from_an_earlier_one_is_marked():
    def compared(old, new):
        return measurements._compared(old, new).endswith("DIFFERS")

    earlier = measured.Value(90.0, 89.5, 90.5, 5)
    assert not compared(earlier, measured.Value(90.4, 90.0, 90.8, 5))
    assert compared(earlier, measured.Value(93.0, 92.0, 94.0, 5))
    assert not compared(earlier, measured.Value(93.0, 85.0, 101.0, 3))
    assert not compared(measured.Value(97.6), measured.Value(97.62, 97.5, 97.7, 5))
    assert compared(measured.Value(10.0), measured.Value(20.0, 19.0, 21.0, 5))
