"""Groups of runs that repeat one experiment: same rule, data set and configuration, different seeds."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from plastic_cli.config.classifier import FitConfig
from plastic_cli.config.model import Config, TrainConfig
from plastic_cli.runs.record import BOOKKEEPING, NOTES_BETWEEN
from plastic_cli.tables import NOTE_MARK

CONFIG_PREFIX = "config."

SOURCE = "source"
"""The column of a frame that says where runs come from: `OWN` runs, or the `REFERENCE` that comes with plastic."""
OWN, REFERENCE = "own", "reference"

_FAILED = "is_failed"

NAMED_IN_FULL = 5
"""If more fields than this differ, a group names only the fields that differ from their default."""

_LARGE = 10**9
"""A round number from here on is written as 1e+09."""

DEFAULTS = "defaults"
"""The text of a setting that has nothing to name."""


class NotInstalled(Config):
    """The options of a rule that is not installed, such as one of `plastic.fit`: its defaults are not known."""


@dataclass(frozen=True)
class Group:
    """Completed runs that differ only in their seed.

    setting: the fields that differ from the defaults of the rule or from other groups of the rule and data set, as
    text. distinction: only the fields that distinguish the group, and a choice of classes, for legends; "" if there
    are none. runs: their ids in the order of the seeds; of several runs with one seed the newest, since a repeated seed
    adds no information. older: the runs that are left out for that reason. failed_seeds: the seeds that failed
    and were never completed. differing: the fields that distinguish this group from the others of its rule and data
    set, without those that follow from other fields. named: the fields that `setting` names, without those that it
    names only because another rule does. config: the configuration of its runs, as plain JSON values, without
    bookkeeping. note: what a reader must know about the data set. contents: the beginning of the checksum, if runs used
    different data under the same name. source: `REFERENCE` for runs that come with plastic, else "".
    """

    rule: str
    dataset: str | None
    setting: str
    runs: tuple[str, ...]
    config: Mapping[str, Any]
    distinction: str = ""
    differing: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    older: tuple[str, ...] = ()
    note: str = ""
    contents: str = ""
    failed_seeds: tuple[float, ...] = ()
    source: str = ""

    @property
    def label(self) -> str:
        """The rule and what distinguishes the group, as one short text."""
        return f"{self.rule}: {self.distinction}" if self.distinction else self.rule

    @property
    def repeated(self) -> int:
        """The number of runs that are left out because a newer one has their seed."""
        return len(self.older)

    @property
    def failed(self) -> int:
        """The number of seeds that failed and were never completed."""
        return len(self.failed_seeds)

    @property
    def data(self) -> str | None:
        """The name of the data set, with the beginning of its checksum if the name is ambiguous."""
        return f"{self.dataset} ({self.contents})" if self.contents else self.dataset


def group_runs(
    runs: pd.DataFrame, models: Mapping[str, type[Config]] | None = None, failed: pd.DataFrame | None = None
) -> list[Group]:
    """Group the rows of `runs`, a frame as `RunStore.runs()` gives it, by rule, version, data and configuration.

    Data with one name and two checksums form two groups. A run without a checksum joins the only group there is. Runs
    of two versions of plastic or of the rule form two groups, whose settings name the version. With a column `source`,
    own runs and those of the reference form two groups.

    models: the training configuration by rule, from which follows which fields depend on others. failed: runs that
    failed; a seed with failed runs only is one of `Group.failed_seeds`. All rows of `runs` count, whatever their
    status. The groups are sorted by rule, data set and the values of the differing fields.
    """
    groups: list[Group] = []
    marked = runs.assign(**{_FAILED: False})
    if failed is not None and len(failed):
        marked = pd.concat([marked, failed.assign(**{_FAILED: True})], ignore_index=True)
    if marked.empty:
        return groups
    for rule, of_rule in marked.groupby("rule", sort=True):
        frame = _with_versions(of_rule)
        for _, part in frame.groupby("dataset", sort=False, dropna=False):
            for same_data in _by_contents(part):
                groups.extend(_groups_of_data_set(str(rule), same_data, (models or {}).get(str(rule))))
    # The settings of own runs come first, each with its runs in the reference.
    own = {_setting_and_data(group) for group in groups if group.source != REFERENCE}
    groups.sort(key=lambda group: (_setting_and_data(group) not in own, group.rule, sort_key(group.data)))
    rows = [_Row(group.rule, group.config, group.differing, group.named, group.dataset) for group in groups]
    texts = _settings_of_rows(rows, models or {})
    return [replace(group, setting=text) for group, text in zip(groups, texts, strict=True)]


@dataclass(frozen=True)
class Setting:
    """One configuration of a rule on all data sets: its groups by data set ("" for runs without one).

    text: the fields that differ from the defaults of the rule or from its other settings. distinction: only the fields
    that distinguish the setting, for legends; "" if the rule has no other setting. Both say if the runs are those of
    the reference.
    """

    rule: str
    text: str
    distinction: str
    groups: Mapping[str, Group]

    @property
    def label(self) -> str:
        """The rule and what distinguishes the setting, as one short text."""
        return f"{self.rule}: {self.distinction}" if self.distinction else self.rule


def data_notes(groups: Iterable[Group]) -> str:
    """Return the notes on the data sets that `marked_data` marks, or ""."""
    notes: dict[str | None, dict[str, None]] = {}
    for group in groups:
        if group.note:
            notes.setdefault(group.data, {}).update(dict.fromkeys(group.note.split(NOTES_BETWEEN)))
    return "".join(f" {NOTE_MARK} {data}: {NOTES_BETWEEN.join(of_data)}." for data, of_data in notes.items())


def marked_data(group: Group) -> str | None:
    """Return the name of the data set, with a mark if there is a note on it."""
    return f"{group.data}{NOTE_MARK}" if group.note else group.data


def short_data_names(data: Iterable[str | None]) -> dict[str | None, str]:
    """Return the name of each data set in a figure: of a file, its name without the folder, unless two files share it.

    None is left out.
    """
    whole = [name for name in dict.fromkeys(data) if name is not None]
    short = {name: re.split(r"[/\\\\]", name)[-1] or name for name in whole}
    times = Counter(short.values())
    return {name: text if times[text] == 1 else name for name, text in short.items()}


def settings_across(groups: Sequence[Group], models: Mapping[str, type[Config]] | None = None) -> list[Setting]:
    """Join the groups of one rule, configuration and source on different data sets.

    A field whose value is the data set itself does not count. models: as for `group_runs`.
    """
    rows: list[_Row] = []
    distinctions: list[str] = []
    members: list[dict[str, Group]] = []
    for rule in dict.fromkeys(group.rule for group in groups):
        own: dict[str, dict[str, Group]] = {}
        configurations: dict[str, dict[str, Any]] = {}
        for group in (group for group in groups if group.rule == rule):
            key = setting_key(group)
            own.setdefault(key, {}).setdefault(group.data or "", group)
            configurations.setdefault(key, _known_values(group))
        names = list(dict.fromkeys(name for group in groups if group.rule == rule for name in group.config))
        filled = [{name: config.get(name) for name in names} for config in configurations.values()]
        named = [name for name in names if len({json.dumps(config[name]) for config in filled}) > 1]
        model = (models or {}).get(rule)
        if model is not None:
            named = _without_implied(named, _unique(filled), model)
        rows.extend(_Row(rule, config, named, _named_options(config, named, model)) for config in filled)
        distinctions.extend(_distinction(config, named, model) for config in filled)
        members.extend(own.values())
    texts = _settings_of_rows(rows, models or {})
    sources = [next(iter(by_dataset.values())).source for by_dataset in members]
    return [
        Setting(row.rule, with_source(text, source), with_source(distinction, source), by_dataset)
        for row, text, distinction, by_dataset, source in zip(rows, texts, distinctions, members, sources, strict=True)
    ]


def with_source(text: str, source: str) -> str:
    """Return the text of a setting, with the source of its runs if it is the reference: "k = 0.5 (reference)"."""
    return (f"{text} ({source})" if text else source) if source else text


def setting_key(group: Group) -> str:
    """Return rule, configuration and source of a group as text: equal for one setting on different data sets."""
    return json.dumps([group.rule, _known_values(group), group.source], sort_keys=True)


def setting_and_data(rule: str, dataset: str | None, config: Mapping[str, Any]) -> str:
    """Return a rule, a data set and a configuration as text: equal for a group and for each of its runs.

    Fields without a value and those of bookkeeping, such as the seed, do not count.
    """
    plain = {name: plain_value(value) for name, value in config.items() if name not in BOOKKEEPING}
    known = {name: value for name, value in plain.items() if value is not None}
    return json.dumps([rule, plain_value(dataset), known], sort_keys=True)


def control_name(group: Group, model: type[Config] | None) -> str | None:
    """Return the name of the control that the runs of a group are; None for runs that learn by the rule.

    model: the training options of the rule.
    """
    if model is None or not issubclass(model, TrainConfig):
        return None
    return model.control_of(group.config) or (group.rule if model.controls_all_rules else None)


def _setting_and_data(group: Group) -> str:
    return json.dumps([group.rule, _known_values(group), group.data], sort_keys=True)


def _known_values(group: Group) -> dict[str, Any]:
    return {name: value for name, value in group.config.items() if value not in (None, group.dataset)}


def chosen_classes(config: Mapping[str, Any]) -> list[Any]:
    """Return the classes whose images a run is limited to, empty for all.

    An option `classes` that is a number chooses no images.
    """
    chosen = config.get("classes")
    return list(chosen) if isinstance(chosen, list | tuple) else []


def plain_value(value: Any) -> Any:
    """Return `value` as a plain JSON value: 16.0 as 16, NaN as None, a tuple as a list."""
    if isinstance(value, np.generic):
        value = value.item()
    # A column with a missing value holds floats, so that 16 is read as 16.0.
    if isinstance(value, float):
        return None if math.isnan(value) else int(value) if value.is_integer() else value
    if value is None or value is pd.NA or isinstance(value, bool | int | str):
        return None if value is pd.NA else value
    if isinstance(value, Mapping):
        return {str(key): plain_value(entry) for key, entry in value.items()}
    if isinstance(value, Iterable):
        return [plain_value(entry) for entry in value]
    return str(value)


def setting_text(values: Mapping[str, Any]) -> str:
    """Return the text of some fields: "perturbations = 16, k = 0.5, hidden = 256,128, no skip".

    A field without a value is left out, unless no field has one.
    """
    present = [_field_text(name, value) for name, value in values.items() if value is not None]
    return ", ".join(present or [f"{_words(name)} = none" for name in values])


def _by_contents(frame: pd.DataFrame) -> list[pd.DataFrame]:
    """Split the rows of one data set by checksum, if there are several, and mark each part with its checksum."""
    if "data_checksum" not in frame.columns or frame["data_checksum"].nunique() < 2:
        return [frame]
    marked = frame.assign(data_contents=[str(checksum)[:8] for checksum in frame["data_checksum"].fillna("unknown")])
    return [part for _, part in marked.groupby("data_contents", sort=False)]


def _with_versions(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of one rule with the versions of plastic and of the rule as fields, where there are several.

    With the reference, a version is a field only if runs of one configuration have several: then it tells them apart.
    The version of a rule that comes with plastic is left out, since it equals the version of plastic.
    """
    marked = frame
    if SOURCE in frame.columns and not _in_several_versions(frame):
        return frame
    if "version" in frame.columns and len(frame["version"].dropna().unique()) > 1:
        marked = marked.assign(**{f"{CONFIG_PREFIX}plastic version": frame["version"].fillna("unknown")})
    if "rule_version" in frame.columns and len(frame["rule_version"].dropna().unique()) > 1:
        rule = frame["rule_version"].fillna("unknown")
        if "version" not in frame.columns or rule.groupby(frame["version"], dropna=False).nunique().gt(1).any():
            marked = marked.assign(**{f"{CONFIG_PREFIX}rule version": rule})
    return marked


def _in_several_versions(frame: pd.DataFrame) -> bool:
    """Return whether a configuration has runs of several versions, on one data set."""
    names = [column for column in frame.columns if column.startswith(CONFIG_PREFIX)]
    names = [column for column in names if column.removeprefix(CONFIG_PREFIX) not in BOOKKEEPING]
    versions = [column for column in ("version", "rule_version") if column in frame.columns]
    codes = [_codes(frame[column]) for column in ("dataset", *names)]
    settings = len(np.unique(np.column_stack(codes), axis=0))
    with_versions = [*codes, *(_codes(frame[column]) for column in versions)]
    return len(np.unique(np.column_stack(with_versions), axis=0)) > settings


def _groups_of_data_set(rule: str, frame: pd.DataFrame, model: type[Config] | None) -> list[Group]:
    columns = [column for column in frame.columns if column.startswith(CONFIG_PREFIX)]
    codes = [np.zeros(len(frame), np.intp)]
    differing: list[str] = []
    for column in columns:
        name = column.removeprefix(CONFIG_PREFIX)
        if name in BOOKKEEPING:
            continue
        code = _codes(frame[column])
        if (code != code[0]).any():
            differing.append(name)
            codes.append(code)
    if SOURCE in frame.columns:
        codes.append(_codes(frame[SOURCE]))
    _, first, member = np.unique(np.column_stack(codes), axis=0, return_index=True, return_inverse=True)
    failed = frame[_FAILED].to_numpy(dtype=bool)
    kept = _newest_of_each_seed(frame[~failed], member.ravel()[~failed])
    members = frame[~failed].groupby(member.ravel()[~failed])["run"].agg(tuple).to_dict()
    newest = {run for ids in kept.values() for run in ids}
    lost = _failed_seeds(frame["seed"], member.ravel(), failed)
    dataset = frame["dataset"].iloc[0]
    configurations = [
        {
            name: plain_value(value)
            for key, value in record.items()
            if (name := str(key).removeprefix(CONFIG_PREFIX)) not in BOOKKEEPING
        }
        for record in frame.iloc[first][columns].to_dict("records")
    ]
    # A field with another name than "dataset" that names the training data is known from the data set.
    named = [name for name in differing if any(config[name] != plain_value(dataset) for config in configurations)]
    if model is not None:
        # Own runs and those of the reference can have one configuration.
        named = _without_implied(named, _unique(configurations), model)
    notes = _notes(frame, member.ravel(), len(first))
    unordered: list[tuple[Any, Group]] = []
    for number, config in enumerate(configurations):
        ids = kept.get(number, ())
        group = Group(
            rule=rule,
            dataset=plain_value(dataset),
            setting="",
            named=tuple(_named_options(config, named, model, plain_value(dataset))),
            distinction=_distinction(config, named, model),
            runs=ids,
            config=config,
            differing=tuple(named),
            older=tuple(run for run in members.get(number, ()) if run not in newest),
            note=NOTES_BETWEEN.join(notes[number]),
            contents=str(frame["data_contents"].iloc[0]) if "data_contents" in frame.columns else "",
            failed_seeds=lost.get(number, ()),
            source=REFERENCE if SOURCE in frame.columns and frame[SOURCE].iloc[first[number]] == REFERENCE else "",
        )
        # Of one setting, own runs come before those of the reference.
        unordered.append(([*(sort_key(config[name]) for name in named), sort_key(group.source)], group))
    return [group for _, group in sorted(unordered, key=lambda pair: pair[0])]


def _notes(frame: pd.DataFrame, member: NDArray[np.intp], groups: int) -> list[dict[str, None]]:
    """Return the notes on the data of each group, once each. member (n,): the number of the group of each row."""
    notes: list[dict[str, None]] = [{} for _ in range(groups)]
    if "data_note" in frame.columns:
        for number, note in zip(member.tolist(), frame["data_note"].tolist(), strict=True):
            if isinstance(note, str) and note:
                notes[number][note] = None
    return notes


def _named_options(
    config: Mapping[str, Any], named: Sequence[str], model: type[Config] | None, dataset: str | None = None
) -> list[str]:
    """Return the fields that differ from the defaults of the rule or, as `named` does, between groups.

    dataset: a field with this value is known from the data set.
    """
    if model is None:
        return list(named)
    if model is NotInstalled:
        own = _own_options(config, dataset)
        distinguishing = [name for name in named if not _is_missing_setting(name, config)]
        return list(dict.fromkeys([*distinguishing, *own]))
    distinguishing = _shown_of(named, config, model)
    return list(dict.fromkeys([*distinguishing, *_changed(config, model, dataset, distinguishing)]))


def _own_options(config: Mapping[str, Any], dataset: str | None) -> list[str]:
    """Return the options to name of a run whose rule is not installed.

    Of a run of `plastic.fit` these are all settings of the user, and the options without their default.
    """
    known = {name: value for name, value in config.items() if value not in (None, dataset)}
    if _is_of_fit(config):
        defaults = _defaults(FitConfig)
        settings = [name for name in known if name not in defaults]
        return [*settings, *(name for name in known if name in defaults and known[name] != defaults[name])]
    own = [name for name, value in known.items() if value not in (False, 0)]
    return own if len(own) <= NAMED_IN_FULL else []


def _is_of_fit(config: Mapping[str, Any]) -> bool:
    """Return whether the rule is one of `plastic.fit`, if it is not installed."""
    return config.get("images") is not None


def _is_missing_setting(name: str, config: Mapping[str, Any]) -> bool:
    """Return whether a run of `plastic.fit` was made without this setting, which needs no word."""
    return _is_of_fit(config) and config.get(name) is None


def _setting(config: Mapping[str, Any], shown: Sequence[str], model: type[Config] | None) -> str:
    """Return the text of the fields `shown`."""
    if model is None:
        return setting_text({name: config.get(name) for name in shown})
    # A differing field without a value is named; left out, it would be read as the default.
    nothing = "" if model is NotInstalled and not _is_of_fit(config) else DEFAULTS
    return ", ".join(setting_text({name: config.get(name)}) for name in shown) or nothing


@dataclass(frozen=True)
class _Row:
    """What the setting of a row names. differing: the fields that distinguish it; shown: the fields that it names."""

    rule: str
    config: Mapping[str, Any]
    differing: Sequence[str]
    shown: Sequence[str]
    dataset: str | None = None


def _settings_of_rows(rows: Sequence[_Row], models: Mapping[str, type[Config]]) -> list[str]:
    """Return the settings of the rows of one table.

    An option that one rule names is named by each rule that has it, so that the rows can be compared; if these are many
    options, each rule names only its own.
    """
    having: dict[str, set[str]] = {}
    for row in rows:
        if row.rule in models:
            for name in _own_values(row):
                having.setdefault(name, set()).add(row.rule)
    common = [
        name
        for name in dict.fromkeys(name for row in rows for name in row.shown if _is_of_rule(name, models.get(row.rule)))
        if len(having.get(name, ())) > 1
    ]
    if len(common) > NAMED_IN_FULL:
        common = []
    texts = []
    for row in rows:
        model, shown = models.get(row.rule), list(row.shown)
        if model is not None and common:
            own = _own_values(row)
            first = [name for name in shown if name in row.differing]
            shown = list(dict.fromkeys([*first, *(name for name in common if name in own), *shown]))
        texts.append(_setting(row.config, shown, model))
    return texts


def _is_of_rule(name: str, model: type[Config] | None) -> bool:
    """Return whether a field is an option with a known default, and not a setting that a user named."""
    return name in (FitConfig if model is NotInstalled or model is None else model).model_fields


def _own_values(row: _Row) -> list[str]:
    return [name for name, value in row.config.items() if value not in (None, row.dataset)]


def _distinction(config: Mapping[str, Any], named: Sequence[str], model: type[Config] | None) -> str:
    """Return the text of the fields that distinguish a group; of many, only those that differ from the default.

    A choice of classes is always named, because other images are an easier or a harder test.
    """
    if chosen_classes(config) and "classes" not in named:
        named = [*named, "classes"]
    shown = _shown_of(named, config, model)
    if model is NotInstalled and named and _is_of_fit(config):
        return setting_text({n: config[n] for n in shown if not _is_missing_setting(n, config)}) or DEFAULTS
    if shown == list(named):
        return setting_text({name: config[name] for name in named})
    return ", ".join(setting_text({name: config[name]}) for name in shown) or DEFAULTS


def _shown_of(named: Sequence[str], config: Mapping[str, Any], model: type[Config] | None) -> list[str]:
    """Return those of the differing fields that a group names: few in full, of many those with another value."""
    if model is None or len(named) <= NAMED_IN_FULL:
        return list(named)
    defaults = _defaults(model)
    return [name for name in named if name not in defaults or config[name] != defaults[name]]


def _defaults(model: type[Config]) -> dict[str, Any]:
    return {name: plain_value(info.default) for name, info in model.model_fields.items()}


def _changed(config: Mapping[str, Any], model: type[Config], dataset: str | None, named: Collection[str]) -> list[str]:
    """Return the fields that were chosen: with another value than the default, or than others imply.

    named: fields that are named in any case; what follows from them is left out. A field without a value may come from
    a version that did not have it, and is left out.
    """
    known = {
        name: default
        for name, default in _defaults(model).items()
        if name not in BOOKKEEPING and config.get(name) not in (None, dataset)
    }
    typed = {name: config[name] for name, default in known.items() if config[name] != default}
    implied = model.consequences(typed)
    chosen = [
        name for name, default in known.items() if name in typed or plain_value(implied.get(name, default)) != default
    ]
    return _without_implied(chosen, [config], model, named)


def differing_options(
    first: Mapping[str, Any], second: Mapping[str, Any], model: type[Config] | None = None
) -> list[str]:
    """Return the options in which two configurations differ, without those that follow from the others.

    model: the training configuration of their rule, from which follows which fields depend on others.
    """
    configs = [{name: plain_value(value) for name, value in each.items()} for each in (first, second)]
    names = [name for name in dict.fromkeys([*first, *second]) if name not in BOOKKEEPING]
    differing = [name for name in names if configs[0].get(name) != configs[1].get(name)]
    if model is None or model is NotInstalled:
        return differing
    return _without_implied(differing, [{**dict.fromkeys(names), **each} for each in configs], model)


def _unique(configurations: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return list({json.dumps(config, sort_keys=True): config for config in configurations}.values())


def _without_implied(
    names: Sequence[str], configurations: Sequence[Mapping[str, Any]], model: type[Config], kept: Collection[str] = ()
) -> list[str]:
    """Return the differing fields without those whose values follow from the others.

    kept: fields that stay. Fields are left out from the last to the first, so that of two fields that imply each other
    one stays. A field that an older version did not store is left out too, unless two groups would then look the same.
    """
    defaults = _defaults(model)
    known = list(names)
    for name in (name for name in reversed(names) if name in defaults and name not in kept):
        others = [other for other in known if other != name]
        left_out = {name, *names}.difference(others)
        if all(config[name] in (None, _expected(name, config, left_out, defaults, model)) for config in configurations):
            distinct = {json.dumps([config[other] for other in others]) for config in configurations}
            known = others if len(distinct) == len(configurations) else known
    return known


def _expected(
    name: str, config: Mapping[str, Any], left_out: Collection[str], defaults: Mapping[str, Any], model: type[Config]
) -> Any:
    """Return the value of a field if only the other fields are typed that differ from the default."""
    typed = {
        other: config[other]
        for other, default in defaults.items()
        if other not in left_out and config.get(other) not in (None, default)
    }
    return plain_value(model.consequences(typed).get(name, defaults[name]))


def _codes(column: pd.Series[Any]) -> NDArray[np.intp]:
    """Return a number for each distinct value of a column; missing values and lists are allowed."""
    values: Any = column
    if column.dtype == object and pd.api.types.infer_dtype(column, skipna=True) not in ("string", "empty"):
        values = np.array([json.dumps(plain_value(value), sort_keys=True) for value in column], dtype=object)
    code: NDArray[np.intp] = pd.factorize(values)[0]
    return code


def _newest_of_each_seed(frame: pd.DataFrame, member: NDArray[np.intp]) -> dict[int, tuple[str, ...]]:
    order = pd.DataFrame(
        {"member": member, "run": frame["run"].to_numpy(), "seed": frame["seed"].to_numpy()}, index=frame.index
    )
    order["started"] = frame["started"] if "started" in frame.columns else 0
    order = order.sort_values(["member", "seed", "started", "run"], kind="stable")
    older = order.duplicated(["member", "seed"], keep="last") & order["seed"].notna()
    kept = order[~older]
    # All runs of a rule may have failed.
    if kept.empty:
        return {}
    boundaries = np.flatnonzero(np.diff(kept["member"].to_numpy())) + 1
    parts = np.split(kept["run"].to_numpy(), boundaries)
    return {int(number): tuple(map(str, part)) for number, part in zip(kept["member"].unique(), parts, strict=True)}


def _failed_seeds(
    seeds: pd.Series[Any], member: NDArray[np.intp], failed: NDArray[np.bool_]
) -> dict[int, tuple[float, ...]]:
    """Return by group the seeds with failed runs only."""
    if not failed.any():
        return {}
    rows = pd.DataFrame({"member": member, "seed": seeds.to_numpy(), "failed": failed})
    of_seeds = rows.groupby(["member", "seed"], dropna=False)["failed"].all().reset_index()
    lost: dict[int, tuple[float, ...]] = {}
    for number, seed in of_seeds.loc[of_seeds["failed"], ["member", "seed"]].itertuples(index=False):
        lost[number] = (*lost.get(number, ()), seed)
    return lost


def sort_key(value: Any) -> tuple[int, float, str]:
    """Return what sorts values of any type: numbers, then lists of numbers, then texts."""
    if value is None:
        return (0, 0.0, "")
    if isinstance(value, int | float):
        return (1, float(value), "")
    if isinstance(value, list) and value and all(isinstance(entry, int | float) for entry in value):
        return (2, float(len(value)), ",".join(f"{entry:020.6f}" for entry in value))
    return (3, 0.0, value if isinstance(value, str) else json.dumps(value, sort_keys=True))


def _field_text(name: str, value: Any) -> str:
    words = _words(name)
    if value is True:
        return words
    if value is False:
        return f"no {words}"
    if isinstance(value, list):
        return f"{words} = {','.join(_value_text(entry) for entry in value) or 'empty'}"
    return f"{words} = {_value_text(value)}"


def _value_text(value: Any) -> str:
    if isinstance(value, float):
        short = f"{value:.6g}"
        return short if float(short) == value else repr(value)
    if isinstance(value, int) and abs(value) >= _LARGE:
        short = f"{value:.6g}"
        return short if int(float(short)) == value else str(value)
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _words(name: str) -> str:
    return name.replace("_", " ")
