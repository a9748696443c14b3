"""The configuration of a command: typed options, a file and defaults are merged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plastic_cli.config.model import Config
from plastic_cli.errors import OptionError, UserError


def resolve(
    model: type[Config],
    typed: Mapping[str, Any],
    from_file: Mapping[str, Any] | None = None,
    source: str = "",
    stored: Mapping[str, Any] | None = None,
) -> Config:
    """Merge options: typed ones take precedence over the file, the file over stored ones, these over the defaults.

    source: the name of the file for error messages. stored: the configuration of a run, which was accepted before.
    Raises UserError for an unknown option, for a wrong value, and, without `stored`, for an option without effect.
    """
    in_file, typed = model.read_names(from_file or {}, source), model.read_names(typed)
    if in_file:
        model.from_values(in_file, source=source)
    given = {**model.consequences(in_file), **in_file, **_implied_by_typed(model, typed, in_file), **typed}
    config = model.from_values({**model.with_present_names(stored or {}), **given})
    if stored is None:
        try:
            config.refuse_unused()
        except OptionError as error:
            from_source = source and error.key in in_file and error.key not in typed
            raise OptionError(f"{source}: {error}" if from_source else str(error), error.key) from None
    dataset = getattr(config, "dataset", None)
    if dataset is None:
        return config
    from plastic_cli.data.catalog import check_dataset_name, full_dataset_name

    try:
        check_dataset_name(dataset)
    except UserError as error:
        raise OptionError(str(error), "dataset") from None
    # A folder is stored by its absolute path: later commands may run in another folder.
    return config.model_copy(update={"dataset": full_dataset_name(dataset)})


def _implied_by_typed(model: type[Config], typed: Mapping[str, Any], in_file: Mapping[str, Any]) -> dict[str, Any]:
    """Return what typed options imply, which takes precedence over the file.

    What they imply only together with options of the file does so where the file has no value, or the value that its
    own options imply, as a file with all options does.
    """
    alone, of_file = model.consequences(typed), model.consequences(in_file)
    kept = {name: value for name, value in in_file.items() if name not in alone}
    together = model.consequences({**kept, **typed})

    def is_chosen(name: str) -> bool:
        usual = of_file.get(name, model.model_fields[name].default)
        return name in in_file and _plain(in_file[name]) != _plain(usual)

    return {name: value for name, value in together.items() if name in alone or not is_chosen(name)}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
