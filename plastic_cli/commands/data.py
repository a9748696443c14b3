"""`plastic data` lists the data sets, and `plastic data fetch` downloads and checks them."""

from __future__ import annotations

import json
import shutil
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import Any

from plastic_cli.commands.groups import Group
from plastic_cli.commands.invocation import DatasetName, OutputOptions
from plastic_cli.commands.options import toolkit_function, toolkit_group
from plastic_cli.commands.show import print_rows
from plastic_cli.config.model import field
from plastic_cli.data.catalog import (
    DATASETS,
    DatasetInfo,
    check_dataset_name,
    data_folder,
    known_dataset,
    missing_files,
)
from plastic_cli.data.overview import DataRow, data_rows
from plastic_cli.errors import RunFailed, UserError
from plastic_cli.runs.console import Console
from plastic_cli.tables import NOTHING
from plastic_cli.verbs.options import DataOptions


class Options(DataOptions, OutputOptions):
    """Options of `plastic data`."""


class FetchOptions(DataOptions, OutputOptions):
    """Options of `plastic data fetch`."""

    names: list[DatasetName] = field(..., "names of data sets", argument="NAME...", complete="dataset", repeat=True)


class DataGroup(Group):
    """The group of `plastic data`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return a command; raises UserError with the command that downloads, if the name of a data set was typed."""
        if args and (dataset := known_dataset(args[0])) is not None:
            raise UserError(f"'{args[0]}' is a data set, not a command. Get it with: plastic data fetch {dataset}")
        return super().resolve_command(ctx, args)


def command(name: str, about: str) -> Any:
    """Build the group, which lists the data sets if no command follows."""
    return toolkit_group(
        name,
        about,
        toolkit_function(Options, list_datasets),
        {
            "fetch": (
                "Download and check data sets in advance, for machines without a network connection.",
                toolkit_function(FetchOptions, fetch_datasets),
            )
        },
        DataGroup,
    )


def list_datasets(options: Options) -> None:
    """Print the data sets of the catalog on stdout, as a table, Markdown, JSON (a list) or CSV."""
    folder, output_format = options.data, options.output_format()
    if folder is not None and folder.exists() and not folder.is_dir():
        raise UserError(f"--data {folder}: it is not a folder.")
    rows = data_rows(folder)
    if output_format == "json":
        print(json.dumps([asdict(row) for row in rows], indent=2))  # noqa: T201
    elif output_format == "csv":
        flat = [_flat(row) for row in rows]
        print_rows(flat, list(flat[0]), "csv")
    else:
        _print_overview(rows, data_folder(folder), output_format)


def fetch_datasets(options: FetchOptions) -> None:
    """Download the named data sets that are missing, and read all of them to check their files.

    Raises UserError for an unknown name before anything is downloaded, and RunFailed if a data set could not be
    downloaded or is damaged; the others are complete then.
    """
    infos = {info.name: info for info in map(_known, options.names)}
    folder = data_folder(options.data)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--data {folder}: it is not a folder.")
    output_format, console = options.output_format(), Console()
    rows, errors = [], []
    for name, info in infos.items():
        status = "downloaded" if missing_files(info, folder) else "already here"
        try:
            rows.append({"set": info.name, "status": status, **_read(info, folder)})
        except UserError as error:
            errors.append(str(error))
            if len(infos) > 1:
                console.warning(f"{name}: {error}")
    if rows or output_format != "table":
        print_rows(rows, ["set", "status", "training", "test", "folder"], output_format)
    if errors:
        alone = len(infos) == 1
        raise RunFailed(errors[0] if alone else f"{len(errors)} of {len(infos)} data sets could not be fetched.")
    if output_format == "table":
        console.message(f"next: `plastic train RULE --dataset {rows[0]['set']}`")


def _read(info: DatasetInfo, folder: Path) -> dict[str, Any]:
    """Read a data set, after its download if it is missing, and return its numbers of images and its folder."""
    # Reading arrays needs NumPy, which help and completion do not import.
    from plastic_cli.data.sources import read_dataset

    stored = read_dataset(info.name, folder)
    where = str(folder / info.folder) if info.files else "scikit-learn"
    return {"training": len(stored.train.y), "test": len(stored.test.y), "folder": where}


def _known(name: str) -> DatasetInfo:
    known = known_dataset(name)
    if known is None:
        check_dataset_name(name)
        raise UserError(f"{name}: your own data set needs no download. Give the name of a data set of `plastic data`.")
    return DATASETS[known]


def _print_overview(rows: list[DataRow], folder: Path, output_format: str) -> None:
    shown = []
    for row in rows:
        files = len(DATASETS[row.name].files)
        partly = f"{files - len(row.missing)} of {files} files" if len(row.missing) < files else "no"
        shown.append(
            {
                "set": row.name,
                "here": "yes" if row.here else partly,
                "training": f"{row.train_images:,}",
                "test": f"{row.test_images:,}",
                "classes": row.classes,
                "image": _shape(row),
                "disk": f"{row.disk_bytes / 1e6:,.0f} MB" if row.disk_bytes else NOTHING,
                "license": row.license,
            }
        )
    print_rows(shown, list(shown[0]), output_format, right=["training", "test", "disk"])
    print(f"folder: {folder}")  # noqa: T201
    for row in rows:
        to_fetch = "" if row.here else f"download {row.download_bytes / 1e6:,.1f} MB"
        parts = [row.title, row.note, to_fetch, DATASETS[row.name].download_note if to_fetch else "", row.source]
        about = f"{row.name}: {'; '.join(part for part in parts if part)}"
        width = max(20, shutil.get_terminal_size().columns)
        lines = textwrap.wrap(about, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        print("\n".join(lines))  # noqa: T201


def _flat(row: DataRow) -> dict[str, Any]:
    separated = {key: " ".join(str(part) for part in getattr(row, key)) for key in ("missing", "mean", "std")}
    return asdict(row) | separated | {"image_shape": _shape(row)}


def _shape(row: DataRow) -> str:
    return "x".join(str(size) for size in row.image_shape)
