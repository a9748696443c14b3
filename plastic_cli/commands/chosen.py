"""The options that choose runs, and where their figures are written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from plastic_cli.commands.invocation import DatasetName, RuleName
from plastic_cli.config.model import Config, field
from plastic_cli.errors import PlasticError, UserError
from plastic_cli.runs.console import Console
from plastic_cli.verbs.options import RunsOptions

if TYPE_CHECKING:
    from plotnine import ggplot

    from plastic_cli.figures.view import View

PICTURES = (".png", ".svg", ".pdf")


class ChosenOptions(RunsOptions):
    """Which runs: those that are named, or all that fit."""

    names: list[str] = field(
        [],
        "ids, unique beginnings of ids, or names (default: all completed runs that fit the options)",
        argument="RUN...",
        complete="run",
        repeat=True,
    )
    rule: RuleName | None = field(None, "only runs of this rule", panel="Which runs", complete="rule")
    dataset: DatasetName | None = field(None, "only runs on this data set", panel="Which runs", complete="dataset")
    status: Literal["completed", "running", "failed", "interrupted", "crashed", "all"] | None = field(
        None, "only runs with this status (default: completed, or all if runs are named)", panel="Which runs"
    )
    where: list[str] = field(
        [],
        'only runs with this option or result, such as perturbations=16 or "test/accuracy>0.9" (can be repeated)',
        panel="Which runs",
        repeat=True,
    )

    def rows(self) -> list[Mapping[str, Any]]:
        """Return the records of the chosen runs; raises UserError if there is none."""
        from plastic_cli.runs.selection import Selection, select
        from plastic_cli.runs.store import RunStore

        store = RunStore(self.runs_folder())
        status = self.status or (None if self.names else "completed")
        present = store.rows()
        for error in store.errors:
            Console().warning(f"{error.folder}: {error.message}")
        selection = Selection(
            tuple(self.names), self.rule, self.dataset, None if status == "all" else status, tuple(self.where)
        )
        chosen = select(present, selection)
        if not chosen:
            what = f"no {status} run" if status not in (None, "all") else "no run"
            raise UserError(f"{what} in {store.folder} fits. `plastic runs` lists all runs.")
        return chosen


class ViewOptions(Config):
    """What is shown of a figure, and how large."""

    panel: ClassVar[str] = "Figure"

    log: Literal["x", "y", "both"] | None = field(None, "logarithmic axes: x, y or both")
    x_range: str | None = field(
        None, "LOW,HIGH: show this part of the horizontal axis; an end can be left out, as in 5,"
    )
    y_range: str | None = field(
        None, "LOW,HIGH: show this part of the vertical axis, such as 90,95 for 90 to 95 per cent of a share"
    )
    width: float | None = field(None, "width in inches", gt=0, le=100)
    height: float | None = field(None, "height in inches", gt=0, le=100)
    title: str | None = field(None, "title of the figure")

    def view(self) -> View:
        """Return the view; raises UserError for a range that cannot be read."""
        from plastic_cli.figures.view import View, read_range

        x_range = None if self.x_range is None else read_range(self.x_range, "--x-range")
        y_range = None if self.y_range is None else read_range(self.y_range, "--y-range")
        return View(self.log, x_range, y_range, self.width, self.height, self.title)


def check_output(path: Path, suffixes: tuple[str, ...] = PICTURES) -> None:
    """Raise UserError or PlasticError, before anything is drawn, for a file that cannot be written."""
    if path.suffix.lower() not in suffixes:
        listed = ", ".join(suffixes[:-1]) + f" or {suffixes[-1]}"
        raise UserError(f"--output {path}: the name must end with {listed}.")
    if path.is_dir():
        raise PlasticError(f"cannot write {path}: it is a folder. Choose another --output.")


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
