"""Where runs stand in the reference, for a reader: in a terminal, in Markdown, in a notebook and on a page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from plastic_cli.plugins.metrics import Metric, metric_of
from plastic_cli.reports.claims import Claim, quantity
from plastic_cli.reports.content import json_text
from plastic_cli.reports.numbers import NumberStyle, shown_interval, signed_cell
from plastic_cli.reports.tables import claim_figure
from plastic_cli.statistics.intervals import CONFIDENCE, MINIMUM_VALUES, Interval, difference_method, mean_interval
from plastic_cli.tables import Cell, Column, Detailed, Number, Table, html

if TYPE_CHECKING:
    from plastic_cli.reports.standing import JudgedClaim, Standing

STYLE = NumberStyle()

MOST_METRICS = 12
"""A table for a reader shows up to this number of metrics."""
SHOWN_SPLITS = ("test/", "control/")
"""Splits of the results that a table shows if there are any; the frames have all."""


def tables_of(standing: Standing) -> dict[str, Table]:
    """Return the tables with rows by name: what is compared, results, nearest settings, controls, published figures."""
    tables = {
        "runs": compared_table(standing),
        "results": results_table(standing),
        "nearest": nearest_table(standing),
        "controls": controls_table(standing),
        "published": published_table(standing),
    }
    return {name: table for name, table in tables.items() if table.rows}


def title_of(standing: Standing) -> str:
    """Return the rule, the data and the options of the runs: "grlu on digits, perturbations = 1"."""
    on = f" on {standing.first.dataset}" if standing.first.dataset else ""
    return ", ".join(part for part in (f"{standing.first.rule}{on}", standing.group.setting) if part)


def compared_table(standing: Standing) -> Table:
    """Return the table of what is compared: the runs, and those of the reference with the same setting."""
    records, same = standing.records, standing.same
    ids = [f"{record.run} ({record.name})" if record.name else record.run for record in records]
    shown = ids[0] if len(ids) == 1 else str(len(ids))
    heading, metric = _main(standing)
    value = STYLE.estimate(standing.value, metric)
    rows: list[tuple[Cell, ...]] = [
        (ours_text(standing), title_of(standing), shown, _seeds(records_seeds(standing)), value)
    ]
    if same is not None:
        made = f"{len(same.rows)}, measured with plastic {same.version}"
        mean = STYLE.estimate(mean_interval(same.values(standing.metric) if standing.metric else []), metric)
        rows.append(("reference", "the same setting", made, _seeds([row["seed"] for row in same.rows]), mean))
    columns = [Column("", names_row=True), Column("rule, data, options"), Column("runs"), Column("seeds")]
    columns += [Column(heading, numeric=True)]
    caption = [f"In brackets: {shown_interval()}."] if same is not None else []
    return Table("Compared with the reference", " ".join([*caption, *standing.notes]), tuple(columns), tuple(rows))


def ours_text(standing: Standing) -> str:
    """Return what the runs are called in tables: "this run", or "these runs"."""
    return "this run" if len(standing.records) == 1 else "these runs"


def records_seeds(standing: Standing) -> list[int]:
    """Return the seeds of the runs."""
    return [record.seed for record in standing.records]


def _seeds(seeds: Sequence[int]) -> str:
    """Return seeds as text: "0 to 4", or "0, 3"."""
    ordered = sorted(set(seeds))
    if len(ordered) > 2 and ordered[-1] - ordered[0] == len(ordered) - 1:
        return f"{ordered[0]} to {ordered[-1]}"
    return ", ".join(map(str, ordered))


def shown_metrics(standing: Standing) -> list[str]:
    """Return the metrics that a table for a reader shows."""
    metrics = standing.metrics
    chosen = [name for name in metrics if name.startswith(SHOWN_SPLITS)] or metrics
    return chosen[:MOST_METRICS]


def results_table(standing: Standing) -> Table:
    """Return the table of results: the run, or the mean of the runs, and the reference with its prediction interval."""
    several = len(standing.records) > 1
    frame = standing.means if several else standing.results
    of_metric = {row["metric"]: row for row in frame.to_dict("records")}
    # If all results are equal to the bit, a sentence says so, and the differences are 0.
    paired = {} if _all_equal(standing) else {row["metric"]: row for row in standing.paired.to_dict("records")}
    rows: list[tuple[Cell, ...]] = []
    for name in shown_metrics(standing) if standing.same is not None else []:
        row, metric = of_metric[name], metric_of(name, standing.first.rule)
        value = row["mean"] if several else row["value"]
        predicted = _interval(row, "reference_mean" if several else "mean")
        more: tuple[Cell, ...] = (f"{row['inside']} of {len(standing.records)}",) if several else ()
        if paired:
            pair = paired[name]
            more += (signed_cell(pair["difference"], pair["low"], pair["high"], metric),)
        cells = (_number(value, metric), STYLE.estimate(predicted, metric), predicted.n or None, row["position"])
        rows.append((STYLE.heading(metric), *cells, *more))
    columns = (
        Column("result", names_row=True),
        Column(f"mean of {len(standing.records)} runs" if several else "this run", numeric=True),
        Column("reference", numeric=True),
        Column("n", numeric=True),
        Column("position"),
        *((Column("runs inside"),) if several else ()),
        *((Column("difference seed by seed", numeric=True),) if paired else ()),
    )
    return Table("Results", _results_caption(standing), columns, tuple(rows))


def _results_caption(standing: Standing) -> str:
    what = "the mean of this number of further runs" if len(standing.records) > 1 else "a further run"
    probability = f"{100 * CONFIDENCE:g}%"
    method = shown_interval(f"{probability} prediction interval")
    explained = (
        f"Reference: the mean of n runs. In brackets: the {method}. With a probability of {probability}, {what} lies in"
        f" it. The interval needs {MINIMUM_VALUES} runs."
    )
    texts = [explained]
    if len(standing.records) == 1 and not standing.repeats.empty:
        texts.append("The reference run with the same seed is left out.")
    elif not standing.repeats.empty:
        texts.append("Some seeds are the same in both: then the mean lies inside more often.")
        if not standing.paired.empty and not _all_equal(standing):
            pairs = int(standing.paired["pairs"].max())
            few = f", with {MINIMUM_VALUES} seeds or more" if pairs < MINIMUM_VALUES else ""
            texts.append(
                f"Difference seed by seed: the mean difference of {pairs} runs from the reference runs with the same"
                f" seeds, with its {difference_method(paired=True).removesuffix(' of the difference')}{few}. If 0 lies"
                " outside, the results have shifted."
            )
    left_out = len(standing.metrics) - len(shown_metrics(standing))
    if left_out:
        texts.append(f"{left_out} more results: --format csv.")
    return " ".join([*texts, repeats_text(standing)]).strip()


def _all_equal(standing: Standing) -> bool:
    """Return whether all runs whose seed is in the reference have results that are equal to the bit."""
    return bool((standing.repeats["results"] == standing.repeats["equal"]).all())


def repeats_text(standing: Standing) -> str:
    """Say whether runs whose seed is in the reference are equal to the runs there; "" if there are none."""
    stored = standing.repeats["same_run"].astype(bool)
    texts = [_stored_text(list(standing.repeats[stored]["seed"])), _repeats_text(standing, standing.repeats[~stored])]
    return " ".join(text for text in texts if text)


def _stored_text(seeds: Sequence[int]) -> str:
    """Say that the runs with these seeds are runs of the reference themselves."""
    if not seeds:
        return ""
    if len(seeds) == 1:
        return f"The run with seed {seeds[0]} is itself the run of the reference, so it is not compared with that run."
    return f"The runs with seeds {_seeds(seeds)} are themselves runs of the reference and not compared with it."


def _repeats_text(standing: Standing, frame: pd.DataFrame) -> str:
    if frame.empty:
        return ""
    equal = frame[frame["results"] == frame["equal"]]
    seeds = f"seed {frame['seed'].iloc[0]}" if len(frame) == 1 else f"seeds {_seeds(list(frame['seed']))}"
    verb = "is" if len(frame) == 1 else "are"
    begin = f"{seeds[0].upper()}{seeds[1:]} {verb} in the reference:"
    if len(equal) == len(frame):
        return f"{begin} all results are equal to the bit."
    row = frame[frame["results"] != frame["equal"]].iloc[0].to_dict()
    metric = metric_of(row["furthest"], standing.first.rule)
    if len(frame) == 1:
        counted = f"{row['equal']} of {row['results']} results are equal to the bit."
    else:
        counted = f"{len(equal)} of {len(frame)} runs have results that are all equal to the bit."
    of_seed = f" (seed {row['seed']})" if len(frame) > 1 else ""
    furthest = f"{metric.name[0].upper()}{metric.name[1:]} differs most{of_seed}"
    values = f"{row['value']!r} here, {row['reference_value']!r} in the reference"
    made = row["made_with"]
    same = f"The reference was made with {made}." if made else "Versions and machine are the same."
    return f"{begin} {counted} {furthest}: {values}. {same}"


def nearest_table(standing: Standing) -> Table:
    """Return the table of the nearest settings, if the reference does not have the setting itself."""
    heading, metric = _main(standing)
    frame = standing.nearest
    versions = _versions(standing, frame)
    rows = tuple(
        (row["options"] or "none", STYLE.estimate(_interval(row), metric), row["n"], *versions[index : index + 1])
        for index, row in enumerate(frame.to_dict("records"))
    )
    columns = [Column("options that differ", names_row=True), Column(heading, numeric=True), Column("n", numeric=True)]
    columns += [VERSION] if versions else []
    caption = f"Of the same rule and data, with the fewest options that differ. In brackets: {shown_interval()}."
    return Table("Nearest settings in the reference", caption, tuple(columns), rows)


VERSION = Column("plastic version")


def _versions(standing: Standing, frame: pd.DataFrame) -> list[str]:
    """Return the version of each setting of the reference; nothing if all are of the version of the runs."""
    found = [str(version) for version in frame["version"]]
    return found if set(found) - {standing.own_version} else []


def controls_table(standing: Standing) -> Table:
    """Return the table of controls."""
    heading, metric = _main(standing)
    versions = _versions(standing, standing.controls)
    rows = []
    for index, row in enumerate(standing.controls.to_dict("records")):
        shown = signed_cell(row["difference"], row["difference_low"], row["difference_high"], metric)
        options, value = row["options"] or None, STYLE.estimate(_interval(row), metric)
        rows.append((row["control"], row["rule"], options, value, row["n"], shown, *versions[index : index + 1]))
    columns = [
        Column("control", names_row=True),
        Column("rule"),
        Column("other options that differ", lines=3),
        Column(heading, numeric=True),
        Column("n", numeric=True),
        Column(f"{ours_text(standing)} minus control", numeric=True),
        *([VERSION] if versions else []),
    ]
    return Table("Controls", _controls_caption(standing, metric), tuple(columns), tuple(rows), wrap=40)


def _controls_caption(standing: Standing, metric: Metric) -> str:
    known = standing.value.known
    further = "a further run" if standing.value.n == 1 else "the mean of as many further runs"
    texts = [
        "Each control is shown in the setting of the reference that is nearest to this one: the fewest options differ.",
        "The seed, the device, the options that make the control, and those that follow from others do not count.",
        "Of another rule, only options that both rules have count.",
        f"In brackets: {shown_interval()}; of the difference, the {difference_method(paired=False)}."
        if known
        else f"In brackets: {shown_interval()}; of the difference, the {100 * CONFIDENCE:g}% prediction interval of the"
        f" difference from {further} of the control.",
        "Points are percentage points." if metric.unit == "%" else "",
    ]
    return " ".join(text for text in texts if text)


def published_table(standing: Standing) -> Table:
    """Return the table of published figures whose conditions the runs meet."""
    rule = standing.first.rule
    rows = []
    for each in standing.judged:
        claim, verdict = each.claim, each.verdict
        metric = quantity(claim, rule) or Metric("")
        value, estimate = _number(each.value, metric), STYLE.estimate(verdict.interval, metric)
        measured = (value, estimate, verdict.interval.n, _verdict(each))
        rows.append((claim.id, claim.statement, _published(claim, rule), *measured))
    columns = (
        Column("id", names_row=True, whole=True),
        Column("statement", names_row=True),
        Column("published"),
        Column(ours_text(standing), numeric=True),
        Column("reference", numeric=True),
        Column("n", numeric=True),
        Column("verdict of the reference"),
    )
    caption = (
        f"A published value and the distance that counts as equal. In brackets: {shown_interval()}. A verdict needs"
        f" {MINIMUM_VALUES} seeds, and only the runs of the reference count."
    )
    return Table("Published", caption, columns, tuple(rows))


def _published(claim: Claim, rule: str) -> Cell:
    figure = claim_figure(claim, rule, STYLE)
    return Detailed(claim.words, f"compared with {figure}") if claim.words else figure


def _verdict(judged: JudgedClaim) -> Cell:
    other = f"of the setting: {judged.other_setting}" if judged.other_setting else ""
    reason = "" if judged.verdict.word == "reproduced" else judged.verdict.reason
    return Detailed(judged.verdict.word, "; ".join(part for part in (reason, other) if part))


def _main(standing: Standing) -> tuple[str, Metric]:
    metric = metric_of(standing.metric or "", standing.first.rule)
    return STYLE.heading(metric), metric


def _interval(row: Mapping[Any, Any], mean: str = "mean") -> Interval:
    return Interval(row[mean], row["low"], row["high"], int(row["n"]), "")


def _number(value: float, metric: Metric) -> Cell:
    return None if value != value else Number(STYLE.text(value, metric), value=value)


def as_text(standing: Standing, width: int | None) -> str:
    """Return the tables as plain text for a terminal of `width` columns."""
    from plastic_cli.terminal_tables import table_text

    return "\n\n".join(table_text(table, width).rstrip("\n") for table in tables_of(standing).values())


def as_html(standing: Standing) -> str:
    """Return the tables as HTML, for a notebook."""
    return "".join(html(table) for table in tables_of(standing).values())


def frames_of(standing: Standing) -> dict[str, pd.DataFrame]:
    """Return all parts as frames by name."""
    runs = pd.DataFrame({"run": [record.run for record in standing.records], "seed": records_seeds(standing)})
    names = ("results", "means", "repeats", "paired", "nearest", "controls", "published")
    return {"runs": runs.assign(setting=title_of(standing)), **{name: getattr(standing, name) for name in names}}


def content_of(standing: Standing) -> dict[str, Any]:
    """Return all parts and the notes as plain values for JSON."""
    return {**json.loads(json_text(**frames_of(standing))), "notes": standing.notes}


def as_json(standing: Standing) -> str:
    """Return all parts and the notes as one JSON object."""
    return json.dumps(content_of(standing), indent=1) + "\n"


def standing_page(standing: Standing) -> str:
    """Return the tables as one HTML page, in the style of the report."""
    from plastic_cli.distribution import installed_version
    from plastic_cli.reports.html_tables import PageTable
    from plastic_cli.reports.page import Section, render_page

    sections = [
        Section(name, table.title, (), (PageTable(f"{name}-table", table),))
        for table in tables_of(standing).values()
        for name in [table.title.lower().replace(" ", "-")]
    ]
    runs = ", ".join(record.run for record in standing.records)
    return render_page(f"{title_of(standing)} in the reference", f"Runs: {runs}.", sections, installed_version())
