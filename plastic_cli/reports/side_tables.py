"""A comparison of runs for a reader: as tables of a terminal, in Markdown, in a notebook and on a page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import pandas as pd

from plastic_cli.errors import UserError, did_you_mean
from plastic_cli.plugins.metrics import Metric
from plastic_cli.reports.circumstances import CHECKSUM, CLASSES
from plastic_cli.reports.content import json_text
from plastic_cli.reports.numbers import has_width, possible_ends, shown_interval, signed_cell, value_texts
from plastic_cli.reports.standing_tables import content_of
from plastic_cli.runs.record import ranges_text
from plastic_cli.statistics.intervals import MINIMUM_VALUES, Interval, difference_method
from plastic_cli.tables import NOTHING, Cell, Column, Number, Table, duration, html, markdown

if TYPE_CHECKING:
    from plastic_cli.reports.side_by_side import Comparison, Side
    from plastic_cli.reports.standing import Standing

TIMES = ("training_seconds", "seconds")
"""Results that are times: they are shown in readable units and without intervals."""
MACHINE = ("device", "gpu", "processor", "cores", "threads", "system")
"""Facts about the machine of a run, as run.json names them."""

MOST_METRICS = 20
"""A table for a reader shows up to this number of metrics."""
MOST_FIGURES = 6
"""A page shows the curves of up to this number of metrics."""

MOST_NAMED = 12
"""Up to this number of options are named in a caption."""

SideTableName = Literal["settings", "options", "results", "circumstances"]
"""The tables of a comparison."""

MINUS = "\N{MINUS SIGN}"
DEFAULT_MARK = " *"


def tables_of(comparison: Comparison) -> dict[str, Table]:
    """Return the tables with rows by name: what is compared, options, results, and circumstances that differ."""
    tables = {
        "settings": settings_table(comparison),
        "options": options_table(comparison),
        "results": results_table(comparison),
        "circumstances": circumstances_table(comparison),
    }
    return {name: table for name, table in tables.items() if table.rows}


def table_alone(comparison: Comparison, name: SideTableName) -> Table | None:
    """Return one table, whose caption also says what the settings are; None if it is empty."""
    table = tables_of(comparison).get(name)
    if table is None or name == "settings":
        return table
    sides = " ".join(f"{side.letter}: {side.title}." for side in comparison.sides)
    return replace(table, caption=f"{sides} {table.caption}".strip())


def one_table(comparison: Comparison, name: SideTableName, form: Literal["latex", "markdown"]) -> str:
    """Return one table as text; raises UserError for an unknown name."""
    from plastic_cli.reports.latex import latex

    if name not in get_args(SideTableName):
        known = get_args(SideTableName)
        guess = did_you_mean(name, known)
        raise UserError(f"there is no table '{name}' of a comparison.{guess} It has {', '.join(known)}.")
    table = table_alone(comparison, name)
    if table is None:
        return ""
    return latex(table, label_of("compare", table)) if form == "latex" else markdown(table)


def label_of(part: str, table: Table) -> str:
    """Return the label of a table in LaTeX; part: "compare" or "reference"."""
    return f"tab:{part}-{table.title.lower().replace(' ', '-')}"


def frames_of(comparison: Comparison) -> dict[str, pd.DataFrame]:
    """Return the same parts as frames."""
    settings = pd.DataFrame(
        [
            {
                "setting": side.letter,
                "title": side.title,
                "runs": [record.run for record in side.records],
                "seeds": list(side.seeds),
            }
            for side in comparison.sides
        ]
    )
    return {
        "settings": settings,
        "options": comparison.options.reset_index(),
        "results": comparison.results,
        "circumstances": comparison.circumstances.reset_index(),
    }


def settings_table(comparison: Comparison) -> Table:
    """Return the table of what is compared: one row per setting."""
    rows = tuple((side.letter, side.title, _runs_text(side), ranges_text(side.seeds)) for side in comparison.sides)
    columns = (
        Column("setting", names_row=True),
        Column("rule, data, options"),
        Column("runs", whole=True),
        Column("seeds"),
    )
    return Table("Compared", " ".join(comparison.notes), columns, rows)


def _runs_text(side: Side) -> str:
    if len(side.records) > 1:
        return str(len(side.records))
    record = side.records[0]
    return f"{record.run} ({record.name})" if record.name else record.run


def options_table(comparison: Comparison) -> Table:
    """Return the table of the options that differ, without those of some rules only that have their defaults.

    With one rule, a column shows the default; with several, a mark shows which values are the default of their rule.
    """
    frame, sides = comparison.options, comparison.sides
    letters = [side.letter for side in sides]
    is_one_rule = len({side.rule for side in sides}) == 1
    default_of = {side.letter: "default" if is_one_rule else f"default of {side.rule}" for side in sides}
    shown, left_out = [], []
    # itertuples keeps pandas.NA, which to_dict turns into None.
    for name, *values in frame.itertuples():
        row = dict(zip(frame.columns, values, strict=True))
        at_default = {letter: _same(row[letter], row[default_of[letter]]) for letter in letters}
        having = [letter for letter in letters if row[letter] is not pd.NA]
        if len(having) < len(letters) and all(at_default[letter] for letter in having):
            left_out.append(str(name).replace("_", "-"))
            continue
        marks = {letter: DEFAULT_MARK if at_default[letter] and not is_one_rule else "" for letter in letters}
        cells = [option_text(row[letter]) + marks[letter] for letter in letters]
        cells += [option_text(row["default"])] if is_one_rule else []
        shown.append((str(name).replace("_", "-"), *cells))
    columns = (Column("option", names_row=True), *(Column(letter) for letter in letters))
    columns += (Column("default"),) if is_one_rule else ()
    return Table("Options that differ", _options_caption(shown, left_out), columns, tuple(shown), wrap=24)


def _options_caption(shown: Sequence[Sequence[str]], left_out: Sequence[str]) -> str:
    texts = []
    if any(cell.endswith(DEFAULT_MARK) for row in shown for cell in row):
        texts.append(f"{DEFAULT_MARK.strip()} the default of the rule.")
    if any(NOTHING in row for row in shown):
        texts.append(f"{NOTHING} the rule has no such option.")
    if len(left_out) > MOST_NAMED:
        texts.append(
            f"{len(left_out)} options that only some of the rules have are left out: they have their defaults."
        )
    elif left_out:
        texts.append(f"Left out, because only some of the rules have them, with their defaults: {', '.join(left_out)}.")
    return " ".join(texts)


def _same(first: Any, second: Any) -> bool:
    return (
        first is not pd.NA
        and second is not pd.NA
        and json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)
    )


def option_text(value: Any) -> str:
    """Return a value as it is typed: "16", "no", "none", "256,128"; a dash for pandas.NA."""
    if value is pd.NA:
        return NOTHING
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ",".join(map(option_text, value)) or "empty"
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def results_table(comparison: Comparison, *, repeat_names: bool = False) -> Table:
    """Return the table of results: side by side for two settings, below each other for more.

    repeat_names: each row has the name of its result, for a table that can be sorted.
    """
    frame, sides = comparison.results, comparison.sides
    shown = comparison.metrics[:MOST_METRICS]
    first = sides[0].letter
    rows: list[tuple[Cell, ...]] = []
    for name in shown:
        metric = comparison.metric(name)
        heading = metric.name if name in TIMES or metric.unit == "%" else metric.heading
        of_side = {row["setting"]: row for row in frame[frame["metric"] == name].to_dict("records")}
        longest = max((row["mean"] for row in of_side.values() if row["n"]), default=0.0)
        values = {letter: _value(row, metric, longest) for letter, row in of_side.items()}
        differences = {letter: _difference(row, metric, longest) for letter, row in of_side.items()}
        if len(sides) == 2:
            rows.append((heading, *values.values(), differences[sides[1].letter]))
        else:
            # A setting without the result has no row.
            having = [letter for letter, value in values.items() if value is not None]
            for place, letter in enumerate(having):
                shown_name = heading if repeat_names or place == 0 else ""
                rows.append((shown_name, letter, values[letter], differences[letter]))
    if len(sides) == 2:
        columns = (Column("result", names_row=True), *(Column(side.letter, numeric=True) for side in sides))
        columns += (Column(f"{sides[1].letter} {MINUS} {first}", numeric=True),)
    else:
        columns = (Column("result", names_row=True), Column("setting"), Column("value", numeric=True))
        columns += (Column(f"difference from {first}", numeric=True),)
    return Table("Results", _results_caption(frame, len(comparison.metrics), comparison), columns, tuple(rows), wrap=34)


def _value(row: Mapping[Any, Any], metric: Metric, longest: float) -> Cell:
    if not row["n"]:
        return None
    if row["metric"] in TIMES:
        return Number(_time(row["mean"], longest), value=row["mean"])
    ends = possible_ends(Interval(row["mean"], row["low"], row["high"], row["n"], ""), metric)
    texts = value_texts([row["mean"], *(ends if has_width(*ends) else [])], metric, digits=4)
    bounds = f"[{', '.join(texts[1:])}]" if texts[1:] else ""
    return Number(texts[0] + ("%" if metric.unit == "%" else ""), bounds, row["mean"])


def _difference(row: Mapping[Any, Any], metric: Metric, longest: float) -> Cell:
    """Return a difference with its sign; that of a share in percentage points."""
    difference = row["difference"]
    if math.isnan(difference):
        return None
    if row["metric"] in TIMES:
        text = _time(abs(difference), longest)
        sign = "" if text == _time(0, longest) else "-" if difference < 0 else "+"
        return Number(sign + text, value=difference)
    return signed_cell(difference, row["difference_low"], row["difference_high"], metric)


def _time(seconds: float, longest: float) -> str:
    """Return a time in the unit and with the decimals of the longest one, so that times and differences agree."""
    size, unit = next((size, unit) for size, unit, least in _UNITS if longest >= least)
    text = f"{seconds / size:.{2 if longest / size < 10 else 1}f}"
    return f"{text} {unit}" if float(text) or not seconds else duration(seconds)


_UNITS = ((86400, "days", 48 * 3600), (3600, "h", 90 * 60), (60, "min", 90), (1, "s", -math.inf))
"""The units of time: their seconds, their names, and the shortest time for which they are used."""


def _results_caption(frame: pd.DataFrame, metrics: int, comparison: Comparison) -> str:
    counts = frame.loc[frame["n"] > 0, "n"]
    texts = ["The last value of each metric."]
    if len(counts) and counts.max() > 1:
        few = f", if there are at least {MINIMUM_VALUES} runs" if counts.min() < MINIMUM_VALUES else ""
        texts = [f"The mean of the last values over the runs of a setting. In brackets: {shown_interval()}{few}."]
    with_bounds = frame[frame["difference_low"].notna()]
    if len(with_bounds):
        paired = with_bounds["pairs"].notna()
        methods = [difference_method(paired=each) for each in (True, False) if (paired == each).any()]
        seed_by_seed = ", taken seed by seed" if paired.all() else ""
        texts.append(f"Differences{seed_by_seed}: {' or '.join(methods)}.")
    if any(comparison.metric(name).unit == "%" for name in comparison.metrics):
        texts.append("Points are percentage points.")
    if metrics > MOST_METRICS:
        texts.append(f"{metrics - MOST_METRICS} more metrics: --format csv.")
    return " ".join(texts)


def circumstances_table(comparison: Comparison) -> Table:
    """Return the table of versions, machine, data and commit that differ."""
    frame, letters = comparison.circumstances, [side.letter for side in comparison.sides]
    rows = tuple((str(name), *(str(row[letter]) for letter in letters)) for name, row in frame.iterrows())
    columns = (Column("", names_row=True), *(Column(letter) for letter in letters))
    return Table("Made with", "Only what differs is shown.", columns, rows, wrap=28)


def equal_text(comparison: Comparison) -> str:
    """Say what is known to be the same in all settings; "" if that is nothing."""
    differing = {*map(str, comparison.circumstances.index)}
    known = [name for name in comparison.facts if name not in differing]
    kinds = {
        "versions": [name for name in comparison.facts if name.startswith("version of")],
        "machine": [name for name in comparison.facts if name in MACHINE],
        "data": [CHECKSUM, CLASSES],
        "commit": ["commit"],
    }
    same = ["options"] if comparison.options.empty else []
    same += [kind for kind, names in kinds.items() if differing.isdisjoint(names) and not set(known).isdisjoint(names)]
    return f"The same in all settings: {', '.join(same)}." if same else ""


def as_text(comparison: Comparison, width: int | None) -> str:
    """Return the tables as plain text for a terminal of `width` columns."""
    from plastic_cli.terminal_tables import table_text

    texts = [table_text(table, width).rstrip("\n") for table in tables_of(comparison).values()]
    return "\n\n".join([*texts, *([equal_text(comparison)] if equal_text(comparison) else [])])


def as_html(comparison: Comparison) -> str:
    """Return the tables as HTML, for a notebook."""
    return "".join(html(table) for table in tables_of(comparison).values())


def as_json(comparison: Comparison, standing: Standing | None = None) -> str:
    """Return settings, options, results and circumstances as one JSON object.

    standing: where the runs stand in the reference, which is added under the key "reference".
    """
    text = json_text(**frames_of(comparison))
    if standing is None:
        return text
    return json.dumps({**json.loads(text), "reference": content_of(standing)}, indent=1) + "\n"


def comparison_page(comparison: Comparison) -> str:
    """Return the comparison as one HTML page, in the style of the report."""
    from plastic_cli.distribution import installed_version
    from plastic_cli.figures.metric_rows import has_curve, known_metrics, metric_rows
    from plastic_cli.reports.comparisons import unique_name
    from plastic_cli.reports.drawings import PageFigure, page_figure
    from plastic_cli.reports.html_tables import PageTable
    from plastic_cli.reports.page import Section, render_page

    figures: list[PageFigure] = []
    # A damaged metrics file can lack a metric of the results.
    logged = known_metrics(comparison.chosen.metrics)
    for name in comparison.metrics:
        if name not in logged or len(figures) == MOST_FIGURES:
            continue
        if has_curve(metric_rows(comparison.chosen.metrics, name)):
            anchor = unique_name(name.replace("/", "-"), [figure.anchor for figure in figures])
            figures.append(page_figure(comparison.figure(name), name, anchor))
    settings, options, made_with = (table(comparison) for table in (settings_table, options_table, circumstances_table))
    results = results_table(comparison, repeat_names=True)
    same = equal_text(comparison)
    sections = [
        Section("settings", "Compared", (), (PageTable("settings-table", settings),)),
        Section("results", "Results", (), (PageTable("results-table", results),)),
        Section("figures", "Curves", figures=tuple(figures)),
        Section("options", "Options", (), (PageTable("options-table", options),)),
        Section("made-with", "Made with", (same,) if same else (), (PageTable("made-with-table", made_with),)),
    ]
    present = [
        each for each in sections if each.figures or each.texts or any(table.table.rows for table in each.tables)
    ]
    rules = list(dict.fromkeys(side.rule for side in comparison.sides))
    title = f"{' and '.join(rules)} side by side" if len(rules) < 4 else f"{len(rules)} rules side by side"
    runs = sum(len(side.records) for side in comparison.sides)
    return render_page(title, f"{len(comparison.sides)} settings, {runs} runs.", present, installed_version())
