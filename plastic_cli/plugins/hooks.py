"""The marker that a plugin puts on its hooks, and the hooks that exist.

A rule implements `plastic_rule`. An exporter implements some of the other four. It is active only in a run that names
it: the entry point `export-NAME` belongs to `plastic train RULE --export NAME`. A hook may omit arguments that it does
not need. If an exporter raises an error, the run goes on: the user gets one warning, and in this run only
`plastic_run_finished` of the exporter is called from then on.

`run` holds the content of run.json (docs/results.md) and "folder", the path of the run's folder as text. `rows` are
lines of metrics.jsonl: dictionaries with "stage", "split", "step", "metric", "value" (None if it was not finite),
"time" and sometimes "labels".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pluggy import HookimplMarker, HookspecMarker

from plastic_cli.plugins.entry_points import GROUP
from plastic_cli.plugins.rule import Rule

hookimpl = HookimplMarker(GROUP)
_hookspec = HookspecMarker(GROUP)


class HookSpecifications:
    """The hooks that a plugin can implement."""

    @_hookspec
    def plastic_rule(self) -> Rule | list[Rule]:
        """Return the rule or the rules of this plugin."""
        raise NotImplementedError

    @_hookspec
    def plastic_export_check(self) -> None:
        """Raise UserError, which says what to install or set, if exporting cannot work. Called before a run starts."""

    @_hookspec
    def plastic_run_started(self, run: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
        """Start or continue a run. Called before its first metrics are exported, or at its end if it has none.

        rows: the valid rows that were logged before; not empty only if the run was resumed or is exported later. Other
        rows that were exported before the run stopped are no longer valid; they are computed and exported again.
        """

    @_hookspec
    def plastic_metrics_logged(self, run: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
        """Export the metrics of one call of `Run.log`; `run` is the same as in `plastic_run_started`."""

    @_hookspec
    def plastic_run_finished(self, run: Mapping[str, Any]) -> None:
        """End the run: run["status"] is "completed", "failed" (run["error"] says why), "interrupted" or "crashed"."""
