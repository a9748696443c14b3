"""The settings of the reference that a run is compared with: its own, the nearest ones, and controls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from plastic_cli.config.model import Config, TrainConfig, meets
from plastic_cli.reports.grouping import differing_options
from plastic_cli.runs.record import RunRecord
from plastic_cli.runs.reference import Reference, setting_text
from plastic_cli.statistics.intervals import MINIMUM_VALUES

Row = Mapping[str, Any]
"""A run of the reference, as `Reference.rows()` gives it."""

COMPLETED = "completed"


@dataclass(frozen=True)
class ReferenceSetting:
    """Completed runs of the reference with one configuration, one version and one content of the data, one per seed.

    rows: in the order of their seeds. failed: number of seeds that failed. same_data: whether the content of the data
    is that of the run. differing: the options in which the configuration differs from that of the run.
    """

    rows: tuple[Row, ...]
    failed: int = 0
    same_data: bool = True
    differing: tuple[str, ...] = ()

    @property
    def rule(self) -> str:
        """The name of the rule."""
        return str(self.rows[0]["rule"])

    @property
    def config(self) -> Mapping[str, Any]:
        """The configuration of the first run."""
        config: Mapping[str, Any] = self.rows[0]["config"]
        return config

    @property
    def version(self) -> str:
        """The version of plastic, with that of the rule if the rule does not come with plastic."""
        return version_text(self.rows[0]["version"], self.rows[0]["rule_version"])

    def values(self, metric: str, without: Iterable[int] = ()) -> list[float]:
        """Return the values of a metric that runs have, one per run. without: seeds that are left out."""
        left_out = set(without)
        values = [row["summary"].get(metric) for row in self.rows if row["seed"] not in left_out]
        return [float(value) for value in values if value is not None]


def version_text(plastic: object, rule: object) -> str:
    """Return the version of plastic, and that of the rule if it is another distribution: "0.2.0, plastic-oja 1.0"."""
    own = str(rule or "")
    other = own and own.rpartition(" ")[0] not in ("plastic", "plastic-cli")
    return f"{plastic or 'unknown'}, {own}" if other else str(plastic or "unknown")


def same_setting(reference: Reference, record: RunRecord) -> ReferenceSetting | None:
    """Return the runs of the reference with the setting of a run; None if there are none."""
    return _chosen(reference.with_setting(record.rule, record.config), record)


def nearest_settings(
    rows: Iterable[Row], record: RunRecord, model: type[Config] | None, count: int
) -> list[ReferenceSetting]:
    """Return the settings of the rule of a run with the fewest differing options, nearest first.

    rows: those of the reference on the data set of the run.
    """
    return _nearest([row for row in rows if row["rule"] == record.rule], record, model, count)


def own_control(
    rows: Iterable[Row], record: RunRecord, model: type[TrainConfig], options: Mapping[str, Any]
) -> ReferenceSetting | None:
    """Return the setting that has the options of a control, and otherwise is nearest to a run.

    rows: those of the reference on the data set of the run. None if there is none, or if the run is this control.
    """
    if meets(record.config, options):
        return None
    having = [row for row in rows if row["rule"] == record.rule and meets(row["config"], options)]
    # The options of the control and what follows from them are no further differences.
    follow = model.consequences({name: list(v) if isinstance(v, tuple) else v for name, v in options.items()})
    return next(iter(_nearest(having, record, model, 1, {*options, *follow})), None)


def control_of_all(
    rows: Iterable[Row], record: RunRecord, model: type[TrainConfig], rule: str, control: str | None
) -> ReferenceSetting | None:
    """Return the setting of another rule that is nearest to a run, by the options that both rules have.

    rows: those of the reference on the data set of the run. model: the options of the other rule. control: its control
    of this name; None: the rule itself.
    """
    having = [row for row in rows if row["rule"] == rule and model.control_of(row["config"]) == control]
    not_common = {name for row in having for name in {*row["config"]} ^ {*record.config}}
    return next(iter(_nearest(having, record, None, 1, not_common)), None)


def _nearest(
    rows: Iterable[Row], record: RunRecord, model: type[Config] | None, count: int, ignored: Iterable[str] = ()
) -> list[ReferenceSetting]:
    """Return the settings of some rows with the fewest options that differ from those of a run, without `ignored`."""
    by_setting: dict[str, list[Row]] = {}
    for row in rows:
        by_setting.setdefault(setting_text(row["rule"], row["config"]), []).append(row)
    settings = [found for of_setting in by_setting.values() if (found := _chosen(of_setting, record)) is not None]
    left_out = set(ignored)

    def measured_from_run(setting: ReferenceSetting) -> ReferenceSetting:
        names = differing_options(record.config, setting.config, model)
        return replace(setting, differing=tuple(name for name in names if name not in left_out))

    measured = [measured_from_run(setting) for setting in settings]
    measured.sort(key=lambda setting: (not setting.same_data, len(setting.differing), -len(setting.rows)))
    return measured[:count]


def _chosen(rows: Sequence[Row], record: RunRecord) -> ReferenceSetting | None:
    """Return those of the rows of one configuration that a run is compared with.

    Rows on the same content of the data come first, then those of the version of the run, if they are enough for an
    interval; otherwise the version with most seeds is chosen, and of these the newest.
    """
    checksum = record.data.get("checksum")
    own = (record.versions.get("plastic"), record.versions.get("rule"))
    parts: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        same = row["data_checksum"] is None or checksum is None or row["data_checksum"] == checksum
        contents = "" if same else str(row["data_checksum"])
        parts.setdefault((contents, row["version"], row["rule_version"]), []).append(row)

    def rank(key: tuple[Any, ...]) -> tuple[Any, ...]:
        seeds = {row["seed"] for row in parts[key] if row["status"] == COMPLETED}
        is_own = key[1:] == own and len(seeds) >= MINIMUM_VALUES
        return (key[0] == "", is_own, len(seeds), max(row["created"] for row in parts[key]))

    usable = [key for key, part in parts.items() if any(row["status"] == COMPLETED for row in part)]
    if not usable:
        return None
    best = max(usable, key=rank)
    newest: dict[int, Row] = {}
    for row in sorted(parts[best], key=lambda row: (row["created"], row["run"])):
        if row["status"] == COMPLETED:
            newest[row["seed"]] = row
    failed = {row["seed"] for row in parts[best] if row["status"] != COMPLETED} - newest.keys()
    return ReferenceSetting(tuple(newest[seed] for seed in sorted(newest)), len(failed), best[0] == "")
