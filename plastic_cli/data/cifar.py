"""Reading the batches of CIFAR-10, which are pickles, without letting a pickle run anything.

Source of the format: https://www.cs.toronto.edu/~kriz/cifar.html, section "Dataset layout".
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from plastic_cli.data.arrays import LabelledImages, check_labels
from plastic_cli.data.files import damaged
from plastic_cli.errors import UserError

# NumPy rebuilds an array by a function that it keeps private and that it has moved: an array tells which one it is.
_REBUILD = np.empty(0).__reduce__()[0]
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _REBUILD,
    ("numpy._core.multiarray", "_reconstruct"): _REBUILD,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that builds plain containers and NumPy arrays and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which image data do not need")
        return _ALLOWED[module, name]


def read_cifar_batch(path: Path, classes: int) -> LabelledImages:
    """Return the images, (n, 3, 32, 32) uint8, and labels of one batch.

    Raises UserError, naming the file, where it cannot be read, asks for anything but arrays, or is not such a batch.
    """
    try:
        with path.open("rb") as stream:
            batch = _ArraysOnly(stream, encoding="latin1").load()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # a broken pickle may raise anything at all
        raise damaged(path, str(error) or type(error).__name__) from error
    data = batch.get("data") if isinstance(batch, dict) else None
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3 * 32 * 32:
        raise damaged(path, "it is not a CIFAR-10 batch of uint8 images of 3 x 32 x 32")
    try:
        labels = np.asarray(batch.get("labels"))
    except ValueError as error:
        raise damaged(path, "its labels are not a list of numbers") from error
    return LabelledImages(data.reshape(-1, 3, 32, 32), check_labels(labels, len(data), path, classes))
