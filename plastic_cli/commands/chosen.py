"""The options that choose runs, and where their figures are written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from plastic_cli.commands.invocation import DatasetName, RuleName
from plastic_cli.config.describe import option_name
from plastic_cli.config.model import Config, field
from plastic_cli.errors import PlasticError, UserError
from plastic_cli.runs.console import Console
from plastic_cli.verbs.options import RunsOptions

if TYPE_CHECKING:
    from plotnine import ggplot

PICTURES = (".png", ".svg", ".pdf")


class FittingOptions(RunsOptions):
    """Which runs of a folder fit, apart from their status."""

    rule: list[RuleName] = field(
        [], "only runs of this rule (can be repeated)", panel="Which runs", complete="rule", repeat=True
    )
    dataset: DatasetName | None = field(None, "only runs on this data set", panel="Which runs", complete="dataset")
    where: list[str] = field(
        [],
        'only runs with this option or result, such as perturbations=16 or "test/accuracy>0.9" (can be repeated)',
        panel="Which runs",
        repeat=True,
    )


class ChosenOptions(FittingOptions):
    """Which runs: those that are named, or all that fit."""

    names: list[str] = field(
        [],
        "ids, unique beginnings of ids, or names (default: all completed runs that match the options)",
        argument="RUN...",
        complete="run",
        repeat=True,
    )
    status: Literal["completed", "running", "failed", "interrupted", "crashed", "all"] | None = field(
        None, "only runs with this status (default: completed, or all if runs are named)", panel="Which runs"
    )

    def rows(self, *, first: str | None = None) -> list[Mapping[str, Any]]:
        """Return the records of the chosen runs; raises UserError if there is none.

        first: a run, or the name of several: they come first, also if the other options do not choose them.
        """
        from plastic_cli.runs.selection import Selection, find_rows, select
        from plastic_cli.runs.store import RunStore

        store = RunStore(self.existing_runs_folder())
        status = self.status or (None if self.names else "completed")
        present = store.rows()
        for error in store.errors:
            Console().warning(f"{error.folder}: {error.message}")
        selection = Selection(
            tuple(self.names), tuple(self.rule), self.dataset, None if status == "all" else status, tuple(self.where)
        )
        chosen = select(present, selection)
        if not present:
            raise UserError(f"there is no run yet in {store.folder}. Create one with: plastic train RULE")
        if not chosen:
            what = f"no {status} run" if status not in (None, "all") else "no run"
            raise UserError(f"{what} in {store.folder} fits. `plastic runs` lists all runs.")
        leading = find_rows(present, first) if first is not None else []
        ids = {row["run"] for row in leading}
        return [*leading, *(row for row in chosen if row["run"] not in ids)]


def check_output(path: Path, suffixes: tuple[str, ...] = PICTURES) -> None:
    """Raise UserError or PlasticError, before anything is drawn, for a file that cannot be written."""
    if path.suffix.lower() not in suffixes:
        listed = ", ".join(suffixes[:-1]) + f" or {suffixes[-1]}"
        raise UserError(f"--output {path}: the name must end with {listed}.")
    if path.is_dir():
        raise PlasticError(f"cannot write {path}: it is a folder. Choose another --output.")


def refuse_typed(options: Config, names: Iterable[str], reason: str) -> None:
    """Raise UserError if one of these options was typed, which has no effect for this reason."""
    for name in names:
        if name in options.model_fields_set:
            raise UserError(f"{option_name(name)} does nothing {reason}. Leave it out.")


def write_figure(figure: ggplot, path: Path, description: str | None = None) -> None:
    """Write a figure as PNG, SVG or PDF; raises PlasticError if that is not possible."""
    from plastic_cli.figures.files import save_figure

    (written,) = save_figure(figure, path.parent, path.stem, (path.suffix[1:].lower(),), description)
    if written != path:
        # A name such as figure.PNG.
        written.replace(path)


def default_name(*parts: str | None) -> str:
    """Return the name of a file from words: "test-accuracy-by-perturbations"."""
    words = "-".join(part for part in parts if part).lower()
    return "-".join("".join(letter if letter.isalnum() else " " for letter in words).split())
