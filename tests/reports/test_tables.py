import csv
import io
import json
import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plastic_cli.escapes import csv_cell, csv_text, printable
from plastic_cli.reports.claims import read_claims
from plastic_cli.reports.comparisons import compare, iqm_table
from plastic_cli.reports.content import json_text
from plastic_cli.reports.frames import claims_frame, results_frame
from plastic_cli.reports.grouping import group_runs
from plastic_cli.reports.latex import latex, latex_text
from plastic_cli.reports.results import judge_claims, summarize
from plastic_cli.reports.tables import claims_table, context_table, results_table
from plastic_cli.statistics.intervals import Interval
from plastic_cli.tables import NOTHING, Column, Detailed, Number, Table, cell_text, markdown, number_text
from plastic_cli.terminal_tables import table_text
from reports.report_frames import grlu_experiments

LATEX_COMMAND = re.compile(
    r"\\(ensuremath\{(\\[a-z]+|\^\{\\circ\})\}|[a-z]+\{\}|[`'^~\"vrc]\{(\\?[A-Za-z]?)\}|[{}&%$#_])"
)


@pytest.fixture
def reported(experiments, claims_text):
    runs, _ = experiments
    groups = group_runs(runs)
    published = {"grlu": read_claims("grlu", claims_text)}
    return summarize(runs, groups, published), judge_claims(runs, groups, published)


def interval(mean, low=math.nan, high=math.nan, n=5, dropped=0):
    return Interval(mean, low, high, n, "method", dropped)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.92834, "0.9283"), (0.9, "0.9000"), (12.3, "12.30"), (168, "168.0"), (1234.4, "1234"), (12345.6, "12346"),
        (1.5e-5, "1.500e-05"), (0, "0"), (-0.5, "-0.5000"), (math.nan, NOTHING), (math.inf, NOTHING),
        (2e12, "2.000e+12"),
    ],
)  # fmt: skip
def test_numbers_have_four_significant_digits(value, text):
    assert number_text(value) == text


@given(st.floats(-1e300, 1e300))
def test_a_number_can_be_read_back_to_four_digits(value):
    assert float(number_text(value)) == pytest.approx(value, rel=6e-4, abs=0.0)


def test_cells():
    assert cell_text(None) == NOTHING
    assert cell_text(3) == "3"
    assert cell_text(interval(0.5, 0.25, 0.75)) == "0.5000 [0.2500, 0.7500]"
    assert cell_text(interval(0.5, 0.25, 0.75, n=4, dropped=1)) == "0.5000 [0.2500, 0.7500] (n=4)"
    assert cell_text(interval(0.5, n=2)) == "0.5000"
    assert cell_text(Detailed("untested", "no run")) == "untested (no run)"


# ------------------------------------------------------------------------------------------------------------ tables


def headings(table):
    return [column.heading for column in table.columns]


def test_the_results_say_what_was_measured_and_published(reported):
    results, _ = reported
    table = results_table(results)
    assert headings(table) == [
        "rule", "data set", "setting", "n", "test accuracy (%)", "test loss", "time of training (s)", "published",
        "verdict",
    ]  # fmt: skip
    row = dict(zip(headings(table), table.rows[3], strict=True))
    assert row["setting"] == "perturbations = 16, activation = top-k, k = 0.5"
    assert row["n"] == "5"
    assert row["test accuracy (%)"] == Number("92.75", "[92.63, 92.87]", results[3].value.mean)
    assert row["published"] == Detailed("92.83 ± 0.5", "GR-02")
    assert row["verdict"] == "reproduced"
    assert "95% t interval of the mean" in table.caption
    assert "Left out" not in table.caption


def test_groups_with_different_metrics_name_them():
    runs, _ = grlu_experiments(seeds=3)
    runs["test/return"] = np.where(runs["rule"] == "backprop", 3.0, np.nan)
    runs.loc[runs["rule"] == "backprop", ["test/accuracy", "test/loss"]] = np.nan
    table = results_table(summarize(runs, group_runs(runs)))
    assert headings(table)[4:6] == ["metric", "value"]
    assert [table.rows[0][4], table.rows[1][4]] == ["test return", "test accuracy (%)"]


def test_repeated_seeds_are_mentioned():
    runs, _ = grlu_experiments(seeds=3)
    again = runs.assign(run=runs["run"] + "b")
    both = pd.concat([runs, again], ignore_index=True)
    assert "15 runs that repeat a seed" in results_table(summarize(both, group_runs(both))).caption
    one = pd.concat([runs, again.iloc[:1]], ignore_index=True)
    assert "1 run that repeats a seed" in results_table(summarize(one, group_runs(one))).caption


def test_claims_and_other_methods(reported):
    _, claims = reported
    table = claims_table(claims)
    assert headings(table) == ["id", "statement", "our setting", "published", "measured", "n", "verdict", "source"]
    assert table.title == "Published claims on test accuracy (%)"
    assert [row[0] for row in table.rows] == ["GR-02", "GR-06"]
    assert cell_text(table.rows[1][6]) == "not reproduced (ours lies below, 5 seeds)"
    assert "tolerance" in table.caption
    others = context_table(claims)
    assert others.rows == (
        ("GR-21", "Forward gradient, activity noise", "test/error", "0.0324", "Ren et al. 2023, Table 3"),
    )


def test_a_line_of_our_own_is_never_shown_as_published(experiments, claims_text):
    runs, _ = experiments
    text = claims_text.replace('evidence = "V"', 'evidence = "V"\nwords = "much better"', 1)
    published = {"grlu": read_claims("grlu", text)}
    claims = judge_claims(runs, group_runs(runs), published)
    table = claims_table(claims)
    assert table.rows[0][3] == Detailed("much better", "compared with 92.83 ± 0.5")
    assert table.rows[1][3] == "94.45 ± 0.5"
    assert "the band is our own" in table.caption
    written = claims_frame(claims)
    assert math.isnan(written["published"][0])
    assert (written["words"][0], written["held_to"][0]) == ("much better", 0.9283)
    results = summarize(runs, group_runs(runs), published)
    shown = [row[headings(results_table(results)).index("published")] for row in results_table(results).rows]
    assert Detailed("much better", "GR-02") in shown
    assert 0.9283 not in results_frame(results)["published"].tolist()


def test_notes_on_the_data_are_below_every_table(experiments, claims_text):
    runs, _ = experiments
    runs = runs.assign(data_note="not the official set", data_checksum="a" * 64)
    groups = group_runs(runs)
    results = summarize(runs, groups)
    claims = judge_claims(runs, groups, {"grlu": read_claims("grlu", claims_text)})
    (comparison,) = compare(runs, results)
    for table in (results_table(results), claims_table(claims), iqm_table(comparison)):
        assert table.caption.endswith(" * mnist: not the official set."), table.title
    table = results_table(results)
    assert {row[headings(table).index("data set")] for row in table.rows} == {"mnist*"}
    assert set(results_frame(results)["data_note"]) == {"not the official set"}
    assert "* mnist" not in results_table(summarize(runs, group_runs(runs.assign(data_note=None)))).caption


def test_chance_is_shown_where_runs_say_what_it_is(experiments):
    runs, _ = experiments
    results = summarize(runs, group_runs(runs))
    assert "chance" not in headings(results_table(results))
    runs = runs.assign(**{"test/chance": 0.1})
    table = results_table(summarize(runs, group_runs(runs)))
    assert {row[headings(table).index("chance")] for row in table.rows} == {"10.00"}


def test_unsupported_claims_are_marked(experiments, claims_text):
    runs, _ = experiments
    text = claims_text.replace('evidence = "V"', 'evidence = "V"\nunsupported = "no log"', 1)
    claims = judge_claims(runs, group_runs(runs), {"grlu": read_claims("grlu", text)})
    assert claims_table(claims).rows[0][1] == "16 perturbations, k .5 (unsupported: no log)"
    assert claims_frame(claims)["unsupported"].tolist()[0] == "no log"


def test_bounds_are_written_as_bounds(experiments, claims_text):
    runs, _ = experiments
    text = claims_text.replace("value = 0.9283", 'comparison = "at-least"\nvalue = 0.9283')
    claims = judge_claims(runs, group_runs(runs), {"grlu": read_claims("grlu", text)})
    assert claims_table(claims).rows[0][3] == "at least 92.83 ± 0.5"


def test_nothing_to_show_is_an_empty_table():
    for table in (results_table([]), claims_table([]), context_table([])):
        assert table.rows == ()
    assert list(results_frame([]).columns) == list(results_frame(summarize_one()).columns)
    assert len(claims_frame([])) == 0


def summarize_one():
    runs, _ = grlu_experiments(seeds=1)
    return summarize(runs.iloc[:1], group_runs(runs.iloc[:1]))


# --------------------------------------------------------------------------------------------------------- CSV, JSON


def test_csv_is_clean_and_keeps_every_digit(reported):
    results, claims = reported
    read = pd.read_csv(io.StringIO(csv_text(results_frame(results))))
    assert len(read) == len(results)
    for row, result in zip(read.itertuples(), results, strict=True):
        assert (row.mean, row.low, row.high, row.n) == (
            result.value.mean, result.value.low, result.value.high, result.value.n,
        )  # fmt: skip
        assert row.loss_mean == result.loss.mean
        assert row.seconds_high == result.seconds.high
    assert read["published"].dtype == float
    claimed = pd.read_csv(io.StringIO(csv_text(claims_frame(claims))))
    assert claimed["verdict"].tolist() == ["reproduced", "not reproduced", "context"]
    assert claimed["published"].tolist() == [0.9283, 0.9445, 0.0324]


def test_a_single_seed_leaves_the_bounds_of_csv_empty():
    (row,) = csv.DictReader(io.StringIO(csv_text(results_frame(summarize_one()))))
    assert (row["low"], row["high"], row["n"]) == ("", "", "1")


@given(st.lists(st.tuples(st.text(), st.floats(allow_nan=False, allow_infinity=False)), min_size=1, max_size=5))
def test_any_text_and_number_survive_csv(rows):
    # Control characters are written as codes, and what a spreadsheet would compute gets an apostrophe.
    rows = [
        (text if text.isprintable() and text[:1] not in ("=", "+", "-", "@") else "x", value) for text, value in rows
    ]
    text = csv_text(pd.DataFrame(rows, columns=["text", "value"]))
    read = list(csv.reader(io.StringIO(text, newline="")))
    assert read[0] == ["text", "value"]
    assert [(cells[0], float(cells[1])) for cells in read[1:]] == rows


@given(st.text(min_size=1).filter(lambda text: text != "value"))
def test_no_cell_of_a_csv_is_a_formula_or_moves_a_cursor(text):
    frame = pd.DataFrame({text: [text, "x"], "value": [-1.5, 2.0]})
    read = list(csv.reader(io.StringIO(csv_text(frame), newline="")))
    for cell in (read[0][0], read[1][0]):
        assert cell == csv_cell(text)
        assert not cell.startswith(("=", "@", "\t", "\r"))
        assert not cell.startswith(("+", "-")) or float(cell) == float(text)
        assert printable(cell, keep="\n\t") == cell
    assert read[1][1] == "-1.5"


def test_json_has_null_for_what_is_missing(reported):
    results, claims = reported
    read = json.loads(json_text(results=results_frame(results), claims=claims_frame(claims)))
    assert [row["claim"] for row in read["results"]] == [None, None, None, "GR-02", "GR-06"]
    assert read["results"][0]["mean"] == results[0].value.mean
    assert read["claims"][2]["mean"] is None
    assert read["claims"][0]["n"] == 5


# ------------------------------------------------------------------------------------------------------------- LaTeX


def printed(text):
    """Return what LaTeX would print: every command must be one that is known here, and no special character is bare."""
    pieces, position = [], 0
    while position < len(text):
        if match := LATEX_COMMAND.match(text, position):
            pieces.append("?")
            position = match.end()
        elif text.startswith(("{[}", "{]}", "{*}"), position):
            pieces.append(text[position + 1])
            position += 3
        elif text.startswith("{}", position):
            position += 2
        else:
            assert text[position] not in '\\{}&%$#_^~<>|"`[]*'
            assert text[position].isascii()
            assert text[position].isprintable()
            pieces.append(text[position])
            position += 1
    return "".join(pieces)


@given(st.text())
def test_no_text_reaches_latex_as_a_command(text):
    printed(latex_text(text))


@given(st.text(st.sampled_from("\\{}&%$#_^~<>|\"`[]*-',ab é±β"), max_size=30))
def test_special_characters_neither_vanish_nor_join(text):
    escaped = latex_text(text)
    assert len(printed(escaped)) == len(re.sub(r"\s+", " ", text))
    for pair in ("--", "''", ",,"):
        assert pair not in escaped


@given(st.text(st.sampled_from("abcXYZ 0123.:;()/+=!?@"), max_size=30))
def test_plain_text_is_left_alone(text):
    assert latex_text(text) == re.sub(r"\s+", " ", text)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("50%", r"50\%"),
        ("a_b", r"a\_b"),
        ("José", r"Jos\'{e}"),
        ("naïve", r"na\"{\i}ve"),
        ("λ ± 1", r"\ensuremath{\lambda} \ensuremath{\pm} 1"),
        ("Ж", "U+0416"),
        ("a\n\tb", "a b"),
        ("[x]", "{[}x{]}"),
        ("a--b", "a-{}-b"),
        ("a---b", "a-{}-{}-b"),
        ("\x00", ""),
    ],
)
def test_escapes(text, escaped):
    assert latex_text(text) == escaped


def test_a_latex_table_has_as_many_cells_in_every_row(reported):
    results, claims = reported
    for table in (results_table(results), claims_table(claims), context_table(claims)):
        text = latex(table, "tab:x")
        body = text[text.index(r"\toprule") : text.index(r"\bottomrule")].splitlines()
        rows = [line for line in body if line.endswith(r" \\")]
        assert len(rows) == 1 + len(table.rows)
        assert all(line.count(" & ") == len(table.columns) - 1 for line in rows)
        columns = re.search(r"\\begin\{tabular\}\{(.*)\}\n", text).group(1)
        assert len(re.sub(r"p\{\d+em\}", "p", columns)) == len(table.columns)
        for name in ("table", "tabular"):
            assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") == 1
        assert text.count("{") == text.count("}")
        assert r"\label{tab:x}" in text
        assert r"\hline" not in text


def test_numbers_in_latex():
    table = Table("t", "c", (Column("x", numeric=True),), ((interval(-1.5e-5, -2e-5, 3e12),), (interval(-2.0, n=2),)))
    text = latex(table, "l")
    assert r"$-$1.500\ensuremath{\times 10^{-5}} {[}$-$2.000\ensuremath{\times 10^{-5}}, " in text
    assert r", 3.000\ensuremath{\times 10^{12}}{]}" in text
    assert r"$-$2.000 \\" in text


# -------------------------------------------------------------------------------------------- Markdown, the terminal


@given(st.lists(st.text(max_size=20), min_size=2, max_size=2))
def test_markdown_keeps_its_columns_whatever_the_text(texts):
    table = Table("t", "c", (Column("a"), Column("b", numeric=True)), (tuple(texts),))
    lines = markdown(table).splitlines()
    assert lines[3] == "| --- | ---: |"
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", lines[4])) == 3
    assert lines[5] == ""


def test_a_terminal_table_fits_its_width(reported):
    results, claims = reported
    for table in (results_table(results), claims_table(claims), context_table(claims)):
        for width in (80, 100, 140, 200):
            lines = table_text(table, width).splitlines()
            assert max(map(len, lines)) <= width


def test_a_narrow_terminal_leaves_out_optional_columns_and_names_them(reported):
    results, _ = reported
    narrow, wide = table_text(results_table(results), 84), table_text(results_table(results), 200)
    assert "Left out to fit: test loss, time of training (s)." in " ".join(narrow.split())
    assert "42." not in narrow.split("Mean over")[0]
    assert "Left out to fit" not in wide
    assert "test loss" in wide
    for text in (narrow, wide):
        # Intervals and words stay whole.
        assert "[92.63, 92.87]" in text
        assert "perturbations" in text


def test_at_80_columns_a_setting_has_two_lines_and_the_time_that_is_not_shown_is_not_explained(reported):
    results, _ = reported
    plain = [replace(result, verdict=None) for result in results]
    narrow = table_text(results_table(plain), 80)
    caption = " ".join(narrow.split())
    assert "perturbations = 16," in narrow
    assert narrow.count("perturbations") == narrow.count("top-k") + 1
    assert len(narrow.partition("Mean over")[0].splitlines()) <= 6 + 2 * len(results)
    assert "Left out to fit: test loss, time of training (s)." in caption
    assert "The time of training does not include" not in caption
    assert "The time of training does not include" in " ".join(table_text(results_table(plain), None).split())
    repeated = [replace(plain[0], group=replace(plain[0].group, older=("x",) * 2)), *plain[1:]]
    assert "Not counted: 2 runs that repeat a seed" in results_table(repeated).caption


def test_without_a_width_nothing_is_left_out_or_broken(reported):
    results, _ = reported
    text = table_text(results_table(results), None)
    assert "perturbations = 16, activation = top-k, k = 0.25" in text
    assert "[92.63, 92.87]" in text
    assert "time of training (s)" in text


@pytest.mark.parametrize(
    ("comparison", "tolerance", "text"),
    [("at-least", 0.0, "at least 475"), ("equal", 0.0, "475"), ("at-most", 5.0, "at most 475 ± 5")],
)
def test_a_tolerance_of_0_is_not_written(comparison, tolerance, text):
    entry = f"""
[[claim]]
id = "MR-03"
statement = "solved at 475"
metric = "test/return"
value = 475
comparison = "{comparison}"
tolerance = {tolerance}
tolerance_reason = "none"
source = "somewhere"
evidence = "V"
"""
    runs, _ = grlu_experiments(seeds=3)
    table = claims_table(judge_claims(runs, group_runs(runs), {"grlu": read_claims("grlu", entry)}))
    assert text in {cell_text(cell) for cell in table.rows[0] if cell is not None}


def test_the_caption_explains_chance_and_control_if_they_are_shown(reported):
    results, _ = reported
    plain = results_table(results).caption
    assert "Control: " not in plain
    assert "Chance: " not in plain
    measured = [replace(result, control=result.value, chance=result.value) for result in results]
    caption = results_table(measured).caption
    assert "Control: the result of a control" in caption
    assert "Chance: the accuracy of a guess." in caption
