"""Sending the metrics of a run to the chosen exporters; an exporter that fails does not stop the run."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any

from plastic_cli.distribution import install_command
from plastic_cli.errors import UserError
from plastic_cli.plugins.discovery import Exporter, find_exporter


class Exports:
    """The exporters of one command, for its runs one after the other."""

    def __init__(self, exporters: Iterable[Exporter], warn: Callable[[str], None]) -> None:
        self._exporters = list(exporters)
        self._warn = warn
        self._warned: set[str] = set()
        self._lost: set[str] = set()
        self._describe: Callable[[], dict[str, Any]] | None = None
        self._earlier: Sequence[Mapping[str, Any]] = ()
        self._run: dict[str, Any] | None = None

    @property
    def failed(self) -> list[str]:
        """The exporters that failed in any run, by name."""
        return sorted(self._warned)

    def begin(self, describe: Callable[[], dict[str, Any]], earlier: Sequence[Mapping[str, Any]]) -> None:
        """Begin a run; `earlier`: the rows that were logged before.

        Exporters are called when there is something to export. So a run with wrong input leaves no trace in them.
        """
        self._describe, self._earlier, self._run = describe, earlier, None
        self._lost = set()

    def logged(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Export metrics."""
        if self._describe is None:
            return
        run = self._started(self._describe)
        for exporter in self._exporters:
            if exporter.name not in self._lost:
                self._call(exporter, "plastic_metrics_logged", run=run, rows=rows)

    def finished(self) -> None:
        """Export the end of the run, if the run began."""
        if self._describe is None:
            return
        self._started(self._describe)
        run = self._describe()
        self._describe = None
        for exporter in self._exporters:
            self._call(exporter, "plastic_run_finished", run=run)

    def _started(self, describe: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        if self._run is None:
            self._run = describe()
            for exporter in self._exporters:
                self._call(exporter, "plastic_run_started", run=self._run, rows=self._earlier)
            self._earlier = ()
        return self._run

    def _call(self, exporter: Exporter, hook: str, **arguments: Any) -> None:
        handled = sys.exception()
        try:
            exporter.call(hook, **arguments)
        except (Exception, SystemExit) as error:
            if _was_interrupted(error, handled):
                raise KeyboardInterrupt from error
            self._lost.add(exporter.name)
            if exporter.name not in self._warned:
                self._warned.add(exporter.name)
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                self._warn(f"the exporter '{exporter.name}' ({exporter.origin}) failed in {hook}: {reason:.300}")


def exporter_hooks(
    module: str, *, library: str, extra: str
) -> tuple[Callable[..., None], Callable[..., None], Callable[..., None], Callable[..., None]]:
    """Return the hooks of an exporter whose `module` is imported only when it is used.

    The module has `start(run, rows)`, `log(run, rows)` and `finish(run)`, and may have `check()`, which raises
    ImportError if something else is missing. library, extra: what the user has to install. The hooks are, in this
    order, `plastic_export_check`, `plastic_run_started`, `plastic_metrics_logged` and `plastic_run_finished`.
    """
    from plastic_cli.plugins.hooks import hookimpl

    @hookimpl
    def plastic_export_check() -> None:
        try:
            getattr(import_module(module), "check", _nothing)()
        except ImportError as error:
            raise UserError(
                f"exporting to {library} needs its library ({error}): `{install_command(extra)}`."
            ) from None

    @hookimpl
    def plastic_run_started(run: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
        import_module(module).start(run, rows)

    @hookimpl
    def plastic_metrics_logged(run: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
        import_module(module).log(run, rows)

    @hookimpl
    def plastic_run_finished(run: Mapping[str, Any]) -> None:
        import_module(module).finish(run)

    return plastic_export_check, plastic_run_started, plastic_metrics_logged, plastic_run_finished


def _nothing() -> None:
    pass


def find_exports(names: Sequence[str] | None, warn: Callable[[str], None]) -> Exports | None:
    """Return the named exporters; None: those of PLASTIC_EXPORT. The result is None if there are none.

    Raises UserError, with what to install, if an exporter does not exist or cannot work.
    """
    if names is None:
        names = [name.strip() for name in os.environ.get("PLASTIC_EXPORT", "").split(",") if name.strip()]
    exporters = [find_exporter(name) for name in dict.fromkeys(names)]
    for exporter in exporters:
        exporter.check()
    return Exports(exporters, warn) if exporters else None


def metric_name(row: Mapping[str, Any]) -> str:
    """Return the name under which a row is exported: "test/accuracy", or "test/accuracy/task 2" with labels."""
    labels = row.get("labels") or {}
    return "/".join([str(row["split"]), str(row["metric"]), *(f"{key} {value}" for key, value in labels.items())])


def metric_value(row: Mapping[str, Any]) -> float:
    """Return the value of a row; NaN if it was not finite."""
    return math.nan if row["value"] is None else float(row["value"])


def hyperparameters(run: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """Return rule, data set and configuration of a run as plain values: lists as text, missing values left out."""
    named = {"rule": run["rule"], "dataset": run["dataset"], **run["config"]}
    return {key: _plain(value) for key, value in named.items() if value is not None}


def _plain(value: Any) -> bool | int | float | str:
    if isinstance(value, bool | int | float | str):
        return value
    return ",".join(str(entry) for entry in value) if isinstance(value, list | tuple) else str(value)


def _was_interrupted(error: BaseException | None, handled: BaseException | None) -> bool:
    """Return whether an interrupt caused an error: a library may turn an interrupt into its own error.

    handled: the exception that was being handled before; if it is an interrupt, it does not count again.
    """
    while error is not None and error is not handled:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False
