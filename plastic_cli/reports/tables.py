"""The tables of the report for a reader."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from plastic_cli.plugins.metrics import Metric, metric_of
from plastic_cli.reports.claims import Claim, Context, Unmeasured, Verdict, VerdictWord, finished_text, quantity
from plastic_cli.reports.grouping import OWN, data_notes, marked_data
from plastic_cli.reports.numbers import NumberStyle
from plastic_cli.reports.results import CHANCE_METRIC, LOSS_METRIC, TRAINING_SECONDS, ClaimResult, Result
from plastic_cli.statistics.intervals import MINIMUM_VALUES, Interval
from plastic_cli.tables import Cell, Column, Detailed, Table, cell_text

TableColumn = tuple[Column, list[Cell]]

_SIGNS = {"equal": "", "at-least": "at least ", "at-most": "at most "}

DEFAULT_STYLE = NumberStyle()

SETTING_EXPLAINED = (
    "A setting is named by the options that are not the defaults of the rule or that differ between settings."
)

SOURCE_EXPLAINED = "Source: your own runs, or the reference, whose runs come with plastic. The two are never mixed."
REFERENCE_EXPLAINED = "Reference: the verdict of the runs that come with plastic. The verdict counts your runs only."

CHANCE_EXPLAINED = "Chance: the accuracy of a guess."
CONTROL_EXPLAINED = "Control: the result of a control, for example the same network with random features."
TIME_EXPLAINED = "The time of training does not include imports, compilation or evaluation."


def results_table(
    results: Sequence[Result],
    style: NumberStyle = DEFAULT_STYLE,
    columns: Sequence[TableColumn] | None = None,
    estimates: Sequence[Interval] | None = None,
) -> Table:
    """Return the table of results, without empty columns; a metric that all results share is a heading.

    columns: those to show in place of the usual ones; estimates: the estimates in them.
    """
    shown = [each for each in result_columns(results, style).values() if _has_content(each)]
    headings = {column.heading for column, _ in (shown if columns is None else columns)}
    repeated = sum(result.group.repeated for result in results)
    sentences = [style.caption([result.value for result in results] if estimates is None else list(estimates))]
    if repeated:
        runs = "1 run that repeats" if repeated == 1 else f"{repeated} runs that repeat"
        sentences.append(f"Not counted: {runs} a seed of the same setting.")
    if "setting" in headings:
        sentences.append(SETTING_EXPLAINED)
    if any(result.group.source for result in results):
        sentences.append(SOURCE_EXPLAINED)
    sentences += [column.note for column, _ in (shown if columns is None else columns)]
    caption = " ".join(sentence for sentence in sentences if sentence)
    if "data set" in headings:
        caption += data_notes(result.group for result in results)
    return _table("Results", caption.strip(), shown if columns is None else columns)


def result_columns(results: Sequence[Result], style: NumberStyle = DEFAULT_STYLE) -> dict[str, TableColumn]:
    """Return the columns of the table of results by name."""
    metrics = {result.metric for result in results if result.metric}
    shared = metrics.pop() if len(metrics) == 1 else None
    named = [common_metric(result.metric, [result.group.rule]) if result.metric else None for result in results]
    value = style.heading(common_metric(shared, [result.group.rule for result in results])) if shared else "value"

    def estimates(key: str, cells: Iterable[Interval | None]) -> TableColumn:
        metric = metric_of(key)
        note = TIME_EXPLAINED if key == TRAINING_SECONDS else ""
        heading = Column(style.heading(metric), numeric=True, optional=True, note=note)
        return heading, [style.estimate(cell, metric) for cell in cells]

    return {
        "rule": (Column("rule", names_row=True), [result.group.rule for result in results]),
        "dataset": (Column("data set", names_row=True), [marked_data(result.group) for result in results]),
        "setting": (Column("setting", names_row=True, lines=2), [result.group.setting or None for result in results]),
        "source": (Column("source"), source_cells(results)),
        "n": (Column("n", numeric=True), [runs_text(result) for result in results]),
        "metric": (Column("metric"), [None if shared or not metric else style.heading(metric) for metric in named]),
        "value": (
            Column(value, numeric=True),
            [
                style.estimate(result.value, metric) if metric else None
                for result, metric in zip(results, named, strict=True)
            ],
        ),
        "chance": (
            Column("chance", numeric=True, optional=True, note=CHANCE_EXPLAINED),
            [
                style.text(result.chance.mean, metric_of(CHANCE_METRIC)) if result.chance and result.chance.n else None
                for result in results
            ],
        ),
        "control": (
            Column("control", numeric=True, optional=True, note=CONTROL_EXPLAINED),
            [
                style.estimate(result.control, metric) if metric else None
                for result, metric in zip(results, named, strict=True)
            ],
        ),
        "loss": estimates(LOSS_METRIC, [result.loss for result in results]),
        "seconds": estimates(TRAINING_SECONDS, [result.seconds for result in results]),
        "published": (Column("published"), [_published(result, style) for result in results]),
        "verdict": (Column("verdict"), [_result_verdict(result.verdict) for result in results]),
    }


def source_cells(results: Sequence[Result]) -> list[Cell]:
    """Return where the runs of each result come from; nothing if the report is about own runs only."""
    with_reference = any(result.group.source for result in results)
    return [(result.group.source or OWN) if with_reference else None for result in results]


def common_metric(key: str, rules: Iterable[str]) -> Metric:
    """Return the name and unit of a metric as its rules name it; the usual ones if the rules differ."""
    named = {metric_of(key, rule) for rule in rules}
    return named.pop() if len(named) == 1 else metric_of(key)


def claims_table(
    claims: Sequence[ClaimResult], style: NumberStyle = DEFAULT_STYLE, columns: Sequence[str] | None = None
) -> Table:
    """Return the table of published claims and of what our runs measured. columns: the names of those to show."""
    rows = [row for row in claims if not isinstance(row.entry, Context)]
    built = claim_columns(rows, style)
    shown = [each for each in built.values() if _has_content(each)] if columns is None else [built[n] for n in columns]
    shared = _shared_quantity(rows)
    sentences = [style.caption([row.verdict.interval for row in rows if row.verdict]), VERDICTS_EXPLAINED]
    if any(column.heading == "our setting" for column, _ in shown):
        sentences.append(SETTING_EXPLAINED)
    sentences.append(f"A claim is untested with fewer than {MINIMUM_VALUES} seeds.")
    sentences += [column.note for column, _ in shown]
    if any(isinstance(row.entry, Claim) and row.entry.words for row in rows):
        sentences.append("If no number was published, the band is our own.")
    caption = " ".join(sentence for sentence in sentences if sentence)
    caption += data_notes(row.group for row in rows if row.group is not None)
    return _table(f"Published claims{f' on {style.heading(shared)}' if shared else ''}", caption, shown)


def claim_columns(rows: Sequence[ClaimResult], style: NumberStyle = DEFAULT_STYLE) -> dict[str, TableColumn]:
    """Return the columns of the table of claims by name."""
    several = len({row.rule for row in rows}) > 1
    shared = _shared_quantity(rows)
    metrics = [quantity(row.entry, row.rule) for row in rows]
    return {
        "rule": (Column("rule", names_row=True), [row.rule if several else None for row in rows]),
        "id": (Column("id", names_row=True, whole=True), [row.entry.id for row in rows]),
        "statement": (Column("statement", names_row=True), [_statement(row.entry) for row in rows]),
        "setting": (
            Column("our setting", optional=True),
            [row.group.setting or None if row.group else None for row in rows],
        ),
        "metric": (Column("metric"), [None if shared or not metric else style.heading(metric) for metric in metrics]),
        "published": (Column("published"), [_figure(row, style) for row in rows]),
        "measured": (
            Column("measured", numeric=True),
            [
                style.estimate(row.verdict.interval, metric) if row.verdict and metric else None
                for row, metric in zip(rows, metrics, strict=True)
            ],
        ),
        "n": (Column("n", numeric=True), [seeds_text(row.verdict) if row.verdict else "0" for row in rows]),
        "verdict": (Column("verdict"), [_with_reason(row.word, row.reason) for row in rows]),
        "reference": (
            Column("reference", note=REFERENCE_EXPLAINED),
            [reference_cell(row, metric, style) for row, metric in zip(rows, metrics, strict=True)],
        ),
        "source": (Column("source", optional=True), [row.entry.source for row in rows]),
    }


def reference_cell(row: ClaimResult, metric: Metric | None, style: NumberStyle = DEFAULT_STYLE) -> Cell:
    """Return the verdict of the reference and its mean: "reproduced (n = 5: 93.02 [92.90, 93.14])"."""
    verdict = row.reference
    if verdict is None:
        return None
    estimate = style.estimate(verdict.interval, metric or Metric(""))
    return Detailed(verdict.word, f"n = {seeds_text(verdict)}: {cell_text(estimate)}" if estimate else verdict.reason)


def _shared_quantity(rows: Sequence[ClaimResult]) -> Metric | None:
    """Return what all claims are about, if it is the same."""
    quantities = {quantity(row.entry, row.rule) for row in rows}
    return quantities.pop() if len(quantities) == 1 else None


def context_table(claims: Sequence[ClaimResult], style: NumberStyle = DEFAULT_STYLE) -> Table:
    """Return the table of published figures of other methods."""
    context = [(row.entry, metric_of(row.entry.metric)) for row in claims if isinstance(row.entry, Context)]
    columns: list[TableColumn] = [
        (Column("id", names_row=True, whole=True), [entry.id for entry, _ in context]),
        (Column("statement", names_row=True), [entry.statement for entry, _ in context]),
        (Column("metric"), [style.heading(metric) for _, metric in context]),
        (Column("published", numeric=True), [style.figure(entry.value, 0.0, metric) for entry, metric in context]),
        (Column("source"), [entry.source for entry, _ in context]),
    ]
    return _table("Other methods", "Published results of other methods, for comparison; they have no verdict.", columns)


VERDICTS_EXPLAINED = (
    "Reproduced: the whole interval lies in the band that the claim allows (published value ± tolerance, or one side"
    " of a bound), no seed failed, and the control lies outside. Not reproduced: the whole interval lies outside."
    " Inconclusive: neither."
)


def seeds_text(verdict: Verdict) -> str:
    """Return the number of seeds of a verdict: "5", or "3 of 5 finished" if some failed."""
    return finished_text(verdict.interval.n, verdict.lost)


def runs_text(result: Result) -> str:
    """Return the number of seeds of a result in words: "5", or "3 of 5 finished"."""
    dropped = result.value.dropped
    return finished_text(len(result.group.runs) - dropped, result.group.failed + dropped)


def _has_content(column: TableColumn) -> bool:
    return any(cell is not None for cell in column[1])


def _table(title: str, caption: str, columns: Sequence[TableColumn]) -> Table:
    """Return a table of columns; without rows, one without columns."""
    return Table(
        title=title,
        caption=caption,
        columns=tuple(column for column, _ in columns),
        rows=tuple(zip(*(cells for _, cells in columns), strict=True)),
    )


def _published(result: Result, style: NumberStyle) -> Cell:
    if result.verdict is None:
        return None
    claim = result.verdict.claim
    return Detailed(claim.words or claim_figure(claim, result.group.rule, style), claim.id)


def _figure(row: ClaimResult, style: NumberStyle) -> Cell:
    entry = row.entry
    if isinstance(entry, Claim):
        figure = claim_figure(entry, row.rule, style)
        return Detailed(entry.words, f"compared with {figure}") if entry.words else figure
    if isinstance(entry, Unmeasured) and entry.words:
        return entry.words
    metric = quantity(entry, row.rule)
    return None if entry.value is None else style.figure(entry.value, 0.0, metric or Metric(""))


def claim_figure(claim: Claim, rule: str | None = None, style: NumberStyle = DEFAULT_STYLE) -> str:
    """Return the number that a claim is compared with and its tolerance as text."""
    return f"{_SIGNS[claim.comparison]}{style.figure(claim.value, claim.margin, quantity(claim, rule) or Metric(''))}"


def _result_verdict(verdict: Verdict | None) -> Cell:
    return _with_reason(verdict.word, verdict.reason) if verdict else None


def _with_reason(word: VerdictWord, reason: str | None) -> Cell:
    return word if word == "reproduced" or not reason else Detailed(word, reason)


def _statement(entry: Claim | Context | Unmeasured) -> str:
    unsupported = entry.unsupported if isinstance(entry, Claim) else None
    return f"{entry.statement} (unsupported: {unsupported})" if unsupported else entry.statement
