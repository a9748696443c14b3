"""Where data sets lie on this machine. Light: it looks at names only and reads nothing."""

from __future__ import annotations

import os
from pathlib import Path

from plastic_cli.data.catalogue import DatasetInfo


def data_folder(folder: Path | None = None) -> Path:
    """Return the folder of all data sets: the argument, else $PLASTIC_DATA, else one in the user's cache."""
    if folder is not None:
        return folder.expanduser()
    if named := os.environ.get("PLASTIC_DATA"):
        return Path(named).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("plastic") / "data"


def stored_file(folder: Path, name: str) -> Path | None:
    """Return the file called `name` in `folder`, or None where there is none.

    It may end in `.gz` and, for IDX files, have a dot before `idx` as in Kaggle's copies: train-images.idx3-ubyte.
    """
    for spelled in (name, name.replace("-idx", ".idx")):
        for path in (folder / spelled, folder / f"{spelled}.gz"):
            if path.is_file():
                return path
    return None


def missing_files(info: DatasetInfo, folder: Path) -> tuple[str, ...]:
    """Return which files of a data set are not under the data folder `folder`."""
    return tuple(name for name in info.files if stored_file(folder / info.folder, name) is None)


def where_to_put(info: DatasetInfo, folder: Path) -> str:
    """Return the sentence that tells how to provide a data set by hand."""
    files = ", ".join(missing_files(info, folder) or info.files)
    return (
        f"Put {files} into {folder / info.folder} (source: {info.source}), "
        f"or name the folder that has {info.folder} with --data or PLASTIC_DATA."
    )
