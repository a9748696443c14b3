"""`plastic.report`: the results of runs over their seeds, next to published results, as tables and figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from plastic_cli.api.chosen import AnyRun, named_run
from plastic_cli.api.console import PythonConsole
from plastic_cli.api.report_sources import installed_sources, with_recipes
from plastic_cli.errors import OptionError, PlasticError, UserError, did_you_mean
from plastic_cli.reports.options import PAGE, ReportOptions, Sources
from plastic_cli.runs.console import Console
from plastic_cli.runs.store import RunStore
from plastic_cli.runs.stored import StoredRun
from plastic_cli.tables import Table, html, markdown
from plastic_cli.terminal_tables import table_text
from plastic_cli.verbs.options import RunsOptions

if TYPE_CHECKING:
    import pandas as pd
    from plotnine import ggplot

    from plastic_cli.reports.content import Content
    from plastic_cli.reports.plots import Figure
    from plastic_cli.reports.steps import StepOnRun
    from plastic_cli.runs.reference import Reference

TableName = Literal["results", "claims", "comparisons"]

DEFAULT_FOLDER = Path("runs")
"""The default folder of the runs; it is not an error if this folder does not exist yet."""

UNREADABLE_SHOWN = 5

_PARTS = "see .results, .claims, .comparisons, .figures, .latex(), .html(folder)"

GENERATOR = b'<meta name="generator" content="plastic '
"""The text that identifies the page of an earlier report."""

WIDTH, MOST_ROWS = 80, 20
"""The size of a report as text."""


def report(runs: AnyRun | RunStore | Iterable[AnyRun] | None = None, **options: Any) -> Report:
    """Return the results of runs over their seeds, and the verdicts on published results.

    runs: a folder, a RunStore, or one run or several (default: the folder PLASTIC_RUNS, or ./runs). options: those
    of `plastic report --help`, with underscores; with `output` or `html` the files are written too.

    Raises UserError, a ValueError, for a wrong option and for a folder that does not exist.
    """
    stored: list[StoredRun] | None = None
    if isinstance(runs, RunStore):
        options["runs"] = runs.folder
    elif isinstance(runs, str | Path):
        options["runs"] = runs
    elif runs is not None:
        stored = [named_run(run) for run in (runs if isinstance(runs, Iterable) else [runs])]
    given = ReportOptions.read_names(options)
    for name in given:
        if name not in ReportOptions.model_fields:
            raise OptionError(f"there is no option '{name}'.{did_you_mean(name, ReportOptions.model_fields)}", name)
    if stored is None and "runs" not in given:
        given["runs"] = RunsOptions().runs_folder()
    made = make_report(ReportOptions.from_values(given), console=PythonConsole(), stored=stored)
    made.write_chosen()
    return made


def make_report(
    options: ReportOptions,
    sources: Sources | None = None,
    console: Console | None = None,
    stored: Sequence[StoredRun] | None = None,
    steps: Sequence[StepOnRun] = (),
) -> Report:
    """Return the report about the runs of a folder, or about the runs `stored`.

    sources: what rules and recipes contribute; None: the installed ones. steps: those of a recipe on the runs. Raises
    UserError for an unknown choice and for a folder of runs that does not exist, PlasticError for a folder that cannot
    be written.
    """
    from plastic_cli.reports.content import read_content, tables_of

    console = console or Console()
    check_options(options, of_folder=stored is None)
    folders = [options.runs] if stored is None else list(dict.fromkeys(run.folder.parent for run in stored))
    stores = [RunStore(folder) for folder in folders]
    frame = _runs_of(stores, None if stored is None else {run.id for run in stored})
    reported = set(frame["run"])
    for run in stored or []:
        if run.id not in reported:
            # Raises UserError, which says why the run cannot be read.
            _ = run.record
    for store in stores:
        _warn_of_unreadable(store, console)
    sources = sources or installed_sources(options)
    reference = _reference(console) if options.reference else None
    content = read_content(frame, options, sources.claims, console, reference)
    made = Report(replace(content, steps=_named_steps(steps, content)), options, sources, stores, console, reference)
    if options.table_option is not None and options.pareto is None:
        # Wrong columns and labels are errors before anything is written.
        for name, table in tables_of(made.content, options).items():
            made._latex(name, table, options)
    return made


def _named_steps(steps: Sequence[StepOnRun], content: Content) -> tuple[StepOnRun, ...]:
    """Return the steps with the names that the table of results gives their settings."""
    if not steps:
        return ()
    from plastic_cli.reports.steps import with_settings

    return with_settings(steps, {run: result.group.setting for result in content.results for run in result.group.runs})


@dataclass(frozen=True, repr=False)
class Report:
    """The results of runs over their seeds, and the verdicts on published results.

    It shows its table of results, in a notebook as HTML.
    """

    content: Content = field(repr=False)
    options: ReportOptions
    sources: Sources = field(repr=False)
    stores: Sequence[RunStore] = field(repr=False)
    console: Console = field(repr=False)
    reference: Reference | None = field(default=None, repr=False)

    @property
    def runs(self) -> pd.DataFrame:
        """The reported runs, with the columns of `RunStore.runs()`; with the reference also `source`."""
        return self.content.runs

    @cached_property
    def results(self) -> pd.DataFrame:
        """One row per rule, data set and setting: mean, low, high, n and sd over the seeds; shares from 0 to 1."""
        from plastic_cli.reports.frames import results_frame

        return results_frame(self.content.results)

    @cached_property
    def claims(self) -> pd.DataFrame:
        """One row per published claim and setting of ours, with the verdict."""
        from plastic_cli.reports.frames import claims_frame

        return claims_frame(self.content.judged)

    @cached_property
    def comparisons(self) -> pd.DataFrame:
        """One row per setting, compared over the data sets that settings share: the interquartile mean."""
        from plastic_cli.reports.comparisons import comparisons_frame

        return comparisons_frame(self._compared.comparisons)

    @cached_property
    def improvements(self) -> pd.DataFrame:
        """One row per pair of settings: the probability that a run of the first is better than one of the second."""
        from plastic_cli.reports.comparisons import improvements_frame

        return improvements_frame(self._compared.comparisons)

    @cached_property
    def pareto(self) -> pd.DataFrame:
        """One row per result with a price, and whether it is on the frontier; needs the option `pareto`."""
        from plastic_cli.reports.pareto import pareto_frame

        if self.content.pareto is None:
            raise UserError("the report has no price. Choose one: plastic.report(pareto='messages').")
        return pareto_frame(self.content.pareto)

    @property
    def figures(self) -> dict[str, ggplot]:
        """The figures by name, as plotnine figures."""
        return {name: figure.plot for name, figure in self._figures.items()}

    def latex(self, table: TableName = "results", **options: Any) -> str:
        """Return a table as LaTeX for booktabs and graphicx.

        options: `columns`, `percent`, `sd`, `digits`, `caption` and `label`, in place of those of the report.
        """
        chosen = self._with(table, options)
        return "\n".join(self._latex(name, each, chosen) for name, each in self._tables(table, chosen).items())

    def markdown(self, table: TableName = "results", **options: Any) -> str:
        """Return a table as Markdown; the arguments are those of `latex`."""
        from plastic_cli.reports.content import with_caption

        chosen = self._with(table, options)
        return "\n".join(markdown(with_caption(each, chosen)) for each in self._tables(table, chosen).values())

    def text(self, table: TableName = "results", width: int | None = WIDTH, **options: Any) -> str:
        """Return a table as text of `width` columns, None: as wide as it needs; the options are those of `latex`."""
        from plastic_cli.reports.content import with_caption

        chosen = self._with(table, options)
        tables = self._tables(table, chosen).values()
        return "\n".join(table_text(with_caption(each, chosen), width) for each in tables)

    def write(self, folder: str | Path) -> Path:
        """Write all tables (Markdown, LaTeX, CSV) and figures (PNG, SVG) into a folder, and return the folder."""
        from plastic_cli.reports.write import write_figures, write_tables

        write_tables(Path(folder), self._compared, self.options.model_copy(update={"compare": True}))
        write_figures(Path(folder), self._figures, self.console)
        return Path(folder)

    def html(self, folder: str | Path) -> Path:
        """Write the report as one HTML page into a folder, and return the path of the page."""
        from plastic_cli.reports.write import write_page

        _check_page_can_be_replaced(Path(folder) / PAGE)
        return write_page(Path(folder), self._compared, self._figures, with_recipes(self.sources), self.console)

    def write_chosen(self) -> None:
        """Write what the options `output` and `html` name."""
        from plastic_cli.reports.write import write_figures, write_page, write_tables

        if self.options.output is not None:
            write_tables(self.options.output, self.content, self.options)
        if self.options.output is None and self.options.html is None:
            return
        figures = self._figures_of(self.content)
        if self.options.output is not None:
            write_figures(self.options.output, figures, self.console)
            self.console.message(f"wrote tables and figures into {self.options.output}")
        if self.options.html is not None:
            path = write_page(self.options.html, self.content, figures, self.sources, self.console)
            self.console.message(f"wrote {path}")

    def __repr__(self) -> str:
        if not self.content.results:
            return f"Report: no run in {self.options.runs}"
        tables = self._tables("results", self._with("results", {}))
        return "\n".join(
            [self._summary(), _PARTS, "", *(table_text(_first_rows(each), WIDTH) for each in tables.values())]
        ).rstrip()

    def _repr_html_(self) -> str:
        tables = self._tables("results", self._with("results", {}))
        about = f"<p>{escape(self._summary())}<br>{_PARTS}</p>"
        return "\n".join([about, *(html(_first_rows(each)) for each in tables.values())])

    def _summary(self) -> str:
        from plastic_cli.reports.with_reference import own_only

        rules = ", ".join(sorted(set(self.runs["rule"])))
        own = len(own_only(self.runs))
        count = "1 run" if own == 1 else f"{own} runs"
        shipped = len(self.runs) - own
        return f"Report on {count}{f' and {shipped} of the reference,' if shipped else ''} of {rules}"

    def _with(self, table: TableName, options: Mapping[str, Any]) -> ReportOptions:
        """Return the options of the report with others for one table."""
        known = ("columns", "percent", "sd", "digits", "caption", "label")
        for name in options:
            if name not in known:
                raise UserError(f"there is no option '{name}' of a table. There are: {', '.join(known)}.")
        own = {name: getattr(self.options, name) for name in known}
        if table == "comparisons":
            if options.get("columns") is not None:
                raise UserError("the tables of comparisons have no columns to choose. Leave columns out.")
            return ReportOptions.from_values({**own, "columns": None, **options, "compare": True})
        if table not in ("results", "claims"):
            raise UserError(f"there is no table '{table}'. There are: results, claims, comparisons.")
        return ReportOptions.from_values({**own, **options, "table": table})

    def _tables(self, table: TableName, options: ReportOptions) -> dict[str, Table]:
        from plastic_cli.reports.content import comparison_tables, tables_of

        if table == "comparisons":
            return comparison_tables(self._compared.comparisons, options.style)
        return {name: each for name, each in tables_of(self.content, options).items() if name == table}

    def _latex(self, name: str, table: Table, options: ReportOptions) -> str:
        from plastic_cli.reports.content import latex_of

        return latex_of(name, table, options)

    @cached_property
    def _compared(self) -> Content:
        """The content with comparisons, also if the options leave them out."""
        from plastic_cli.reports.content import with_comparisons

        return with_comparisons(self.content)

    @cached_property
    def _figures(self) -> dict[str, Figure]:
        return self._figures_of(self._compared)

    def _figures_of(self, content: Content) -> dict[str, Figure]:
        from plastic_cli.reports.write import make_figures

        if content.runs.empty:
            return {}
        import pandas as pd

        parts = []
        for store in self.stores:
            parts.append(store.metrics(runs=list(content.runs["run"]), stage="train"))
            _warn_of_unreadable(store, self.console)
        if self.reference is not None:
            from plastic_cli.reports.with_reference import reference_metrics

            try:
                parts.append(reference_metrics(self.reference, list(content.runs["run"]), "train"))
            except UserError as error:
                self.console.warning(str(error))
        metrics = parts[0] if len(parts) == 1 else pd.concat(parts, ignore_index=True)
        return make_figures(content, metrics, self.sources.headline, self.console)


def _first_rows(table: Table) -> Table:
    """Return a table with the first rows, and say in its caption how many there are more."""
    more = len(table.rows) - MOST_ROWS
    if more <= 0:
        return table
    return replace(table, rows=table.rows[:MOST_ROWS], caption=f"{more} more rows are in .results. {table.caption}")


def _runs_of(stores: Sequence[RunStore], ids: set[str] | None) -> pd.DataFrame:
    frames = [store.runs() for store in stores]
    if len(frames) == 1:
        frame = frames[0]
    else:
        import pandas as pd

        frame = pd.concat(frames, ignore_index=True) if frames else RunStore(DEFAULT_FOLDER / "none").runs()
    return frame if ids is None else frame[frame["run"].isin(ids)].reset_index(drop=True)


def check_options(options: ReportOptions, *, of_folder: bool = True) -> None:
    """Raise UserError or PlasticError, before anything is read, for options that cannot work."""
    if options.compare and options.table != "all":
        raise UserError(f"--compare prints its own tables: leave --table {options.table} out.")
    if options.compare and options.table_option is not None:
        raise UserError(
            f"--{options.table_option} is for one table, and --compare prints several: leave one of them out."
        )
    if options.pareto is not None:
        for name, given in (
            ("compare", options.compare),
            ("table", options.table != "all"),
            ("columns", options.columns is not None),
        ):
            if given:
                raise UserError(f"--pareto prints its own table: leave --{name} out.")
    for option, folder in (("--output", options.output), ("--html", options.html)):
        if folder is not None and folder.exists() and not folder.is_dir():
            raise PlasticError(f"cannot write to {folder}: it is a file. Choose another {option}.")
    if options.html is not None:
        _check_page_can_be_replaced(options.html / PAGE)
    if of_folder and not options.runs.is_dir() and options.runs != DEFAULT_FOLDER:
        raise UserError(f"there is no folder {options.runs}. Name the folder with your runs: --runs FOLDER.")


def _check_page_can_be_replaced(path: Path) -> None:
    """Raise PlasticError if `path` exists and plastic did not write it."""
    try:
        head = path.read_bytes()[:4096]
    except FileNotFoundError:
        return
    except OSError as error:
        raise PlasticError(f"cannot replace {path}: {error.strerror or error}. Choose another --html.") from None
    if GENERATOR not in head:
        raise PlasticError(f"{path} was not written by plastic, and is left as it is. Choose another --html.")


def _reference(console: Console) -> Reference | None:
    """Return the reference that comes with plastic; one that cannot be read costs a warning."""
    from plastic_cli.runs.reference import read_reference

    reference = read_reference()
    if reference.problem is not None:
        console.warning(reference.problem)
        return None
    return reference


def _warn_of_unreadable(store: RunStore, console: Console) -> None:
    for error in store.errors[:UNREADABLE_SHOWN]:
        console.warning(f"{error.folder}: {error.message}")
    if len(store.errors) > UNREADABLE_SHOWN:
        console.warning(f"{len(store.errors) - UNREADABLE_SHOWN} more could not be read")
