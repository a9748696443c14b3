"""The marker that a plugin puts on its hooks, and the hooks that there are.

A rule implements `plastic_rule`. An exporter implements some of the other four and is active only in a run that asks
for it, by the name of its entry point: `export-NAME` for `plastic train RULE --export NAME`. A hook may leave out
arguments that it does not need. An exporter that raises is named in one warning and not called again in that run, but
for `plastic_run_finished`; the run goes on.

`run` is what run.json holds (docs/results.md) and "folder", the path of the run's folder as text. `rows` are lines of
metrics.jsonl: dictionaries with "stage", "split", "step", "metric", "value" (None where it was not finite), "time" and
perhaps "labels".
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
    """What a plugin can implement."""

    @_hookspec
    def plastic_rule(self) -> Rule | list[Rule]:
        """Return the rule, or the rules, that this plugin adds."""
        raise NotImplementedError

    @_hookspec
    def plastic_export_check(self) -> None:
        """Raise UserError, with what to install or set, where exporting cannot work. Called before a run is made."""

    @_hookspec
    def plastic_run_started(self, run: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
        """Begin a run, or go on with one: called before its first metrics are exported, or at its end if it has none.

        rows: what was logged before and stands: empty but for a run that was resumed or is exported later. Anything
        else that an earlier sitting exported was dropped, and comes again.
        """

    @_hookspec
    def plastic_metrics_logged(self, run: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
        """Export the metrics of one call of `Run.log`; `run` is what `plastic_run_started` was given."""

    @_hookspec
    def plastic_run_finished(self, run: Mapping[str, Any]) -> None:
        """End the run: run["status"] is "completed", "failed" (run["error"] says why), "interrupted" or "crashed"."""
