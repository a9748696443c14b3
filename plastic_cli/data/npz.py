"""Reading NumPy's .npz files without running anything that may be pickled in them."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plastic_cli.data.arrays import damaged
from plastic_cli.errors import UserError


def read_npz(path: Path, names: Sequence[str]) -> list[NDArray[Any]]:
    """Return the arrays called `names` in an .npz file.

    Raises UserError, naming the file, where it cannot be read, lacks an array or holds pickled objects.
    """
    try:
        with path.open("rb") as stream:
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise damaged(path, "it holds a single array and is no .npz file")
            if absent := [name for name in names if name not in archive.files]:
                raise UserError(f"{path} has no array {' or '.join(absent)}: it holds {', '.join(archive.files)}.")
            return [archive[name] for name in names]
    except (zipfile.BadZipFile, ValueError, EOFError, zlib.error) as error:
        raise damaged(path, str(error).partition("\n")[0]) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
