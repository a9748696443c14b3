"""The LaTeX tables, set by a LaTeX engine where there is one."""

import shutil
import string
import subprocess

import pandas as pd
import pytest

from plastic_cli.errors import UserError
from plastic_cli.reports.claims import read_claims
from plastic_cli.reports.columns import chosen_results_table
from plastic_cli.reports.comparisons import compare, improvement_table, iqm_table
from plastic_cli.reports.grouping import group_runs
from plastic_cli.reports.latex import LATEX_LINES, latex, latex_caption
from plastic_cli.reports.numbers import NumberStyle
from plastic_cli.reports.results import judge_claims, summarize
from plastic_cli.reports.tables import claims_table, context_table, results_table
from plastic_cli.statistics.intervals import Interval
from plastic_cli.tables import Column, Detailed, Table
from reports.report_frames import grlu_experiments, run_row

ENGINE = shutil.which("pdflatex")


def has_booktabs():
    """Say whether LaTeX finds the package that the tables need; Debian ships it apart from pdflatex."""
    found = subprocess.run(["kpsewhich", "booktabs.sty"], capture_output=True, text=True, check=False)
    return bool(found.stdout.strip())


needs_latex = pytest.mark.skipif(
    ENGINE is None or not has_booktabs(),
    reason="there is no pdflatex with booktabs: apt-get install texlive-latex-recommended",
)

DOCUMENT = r"""\documentclass{article}
\usepackage{booktabs,graphicx}
\begin{document}
%s
\end{document}
"""


def compiled(folder, *tables):
    """Return the log of a document that contains only the tables."""
    content = "\n".join(latex(table, f"tab:{number}") for number, table in enumerate(tables))
    assert content.isascii()
    return compiled_text(folder, content)


def compiled_text(folder, content):
    (folder / "report.tex").write_text(DOCUMENT % content, encoding="utf-8")
    command = [ENGINE, "-halt-on-error", "-interaction=nonstopmode", "report.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (folder / "report.pdf").stat().st_size > 1000
    return (folder / "report.log").read_text(errors="replace")


def many_settings(count):
    rows = [run_row(i, accuracy=i / count, rate=i, schedule=f"a word and another of number {i}") for i in range(count)]
    return results_table(summarize(pd.DataFrame(rows), group_runs(pd.DataFrame(rows))))


@needs_latex
def test_every_table_of_a_report_compiles(tmp_path, claims_text):
    runs, _ = grlu_experiments(seeds=3, datasets=("fashion", "mnist"))
    groups = group_runs(runs)
    results = summarize(runs, groups, {"grlu": read_claims("grlu", claims_text)})
    judged = judge_claims(runs, groups, {"grlu": read_claims("grlu", claims_text)})
    (comparison,) = compare(runs, results)
    tables = [results_table(results), claims_table(judged), context_table(judged), iqm_table(comparison)]
    log = compiled(tmp_path, *tables, improvement_table(comparison))
    assert "Overfull" not in log
    assert "Float too large" not in log


@needs_latex
@pytest.mark.parametrize("caption", ["50% more & a_b", r"The share $k = 0.5$ of \emph{units} \& more", None])
@pytest.mark.parametrize("style", [NumberStyle(), NumberStyle(deviation=True, digits=1), NumberStyle(percent=False)])
def test_tables_for_a_paper_compile(tmp_path, caption, style):
    runs, _ = grlu_experiments(seeds=3)
    names = ["rule", "setting", "perturbations", "n", "test/accuracy", "test/loss", "seconds"]
    table = chosen_results_table(runs, summarize(runs, group_runs(runs)), names, style)
    text = latex(table, "tab:own-label_1", caption)
    assert r"Rule & Setting & Perturbations & $n$ & Test accuracy" in text
    assert ("\\pm 0." in text) == style.deviation
    assert "Overfull" not in compiled_text(tmp_path, text)


def test_a_caption_with_a_command_is_latex_and_any_other_is_text():
    assert latex_caption("50% & a_b") == r"50\% \& a\_b"
    assert latex_caption(r"$k = 0.5$, 50\% of \emph{all}") == r"$k = 0.5$, 50\% of \emph{all}"
    table = Table("t", "An explanation of ± 50%.", (Column("n"),), (("1",),))
    text = latex(table, "l", "Mine")
    assert text.splitlines()[1] == "% An explanation of ± 50%."
    assert r"\caption{Mine}" in text
    assert r"\caption{t. An explanation of" in latex(table, "l")


@pytest.mark.parametrize("label", ["a{b", "a%", "a\nb", "", "a\\b", "é"])
def test_a_label_that_latex_cannot_read_is_an_error(label):
    with pytest.raises(UserError, match="a label has letters"):
        latex(Table("t", "c", (Column("n"),), (("1",),)), label)


@needs_latex
def test_any_text_compiles(tmp_path):
    odd = [
        string.printable,
        "Ж 漢字 🧠 \x00\x1b",
        "ñ é ő ç å ï Ǻ",
        "αβγδεζηθικλμνξοπρστυφχψω",
        "–—…“”‘’±×·≤≥°",  # noqa: RUF001
        r"\end{table}",
    ]
    rows = [
        (text, Detailed(text, text), Interval(-1.5e-5, -2e-12, 3e12, 5, "m"), None)
        for text in (*odd, *string.printable)
    ]
    columns = (Column("text & more"), Column("100%"), Column("x_1^2", numeric=True), Column("#"))
    compiled(tmp_path, Table("title", "".join(odd), columns, tuple(rows)))


@needs_latex
def test_a_long_table_goes_on_over_pages(tmp_path):
    log = compiled(tmp_path, many_settings(3 * LATEX_LINES))
    assert "Float too large" not in log
    assert "multiply defined" not in log


def test_a_long_table_is_divided_and_loses_no_row():
    table = many_settings(3 * LATEX_LINES)
    text = latex(table, "tab:x")
    assert text.count(r"\begin{table}") == text.count(r"\end{tabular}}") > 3
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == text.count(r"\begin{table}")
    assert text.count(r"\label{tab:x}") == 1
    assert text.count(r"\caption[]{(continued)}") == text.count(r"\begin{table}") - 1
    rows = [line for line in text.splitlines() if line.startswith("grlu")]
    assert len(rows) == len(set(rows)) == len(table.rows)


def test_a_short_table_stays_whole():
    assert latex(many_settings(5), "tab:x").count(r"\begin{table}") == 1


def test_a_row_taller_than_a_page_does_not_stop_it():
    table = Table("t", "c", (Column("a"), Column("b")), (("x", "word " * 900), ("y", "short")))
    text = latex(table, "tab:x")
    assert text.count(r"\begin{table}") == 2
    assert "short" in text


def test_the_usual_caption_has_a_subject_and_the_symbol_of_the_heading():
    columns = (Column("rule"), Column("n", numeric=True))
    text = latex(Table("Results", "Mean over n seeds.", columns, (("grlu", 3),)), "tab:results")
    assert r"\caption{Results. Mean over $n$ seeds.}" in text
    assert "Rule & $n$" in text
