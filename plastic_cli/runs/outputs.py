"""The files that a run produces: tables, figures, images, videos and tensors, each in its own subfolder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plastic_cli.errors import PlasticError, UserError
from plastic_cli.escapes import csv_text
from plastic_cli.files import read_tensors, write_atomically, write_tensors, write_through

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from plotnine import ggplot

    from plastic_cli.figures.encoding import FilmFormat


OUTPUTS = (".gif", ".mp4", ".webm", ".png")
"""How the name of a file for the film or the picture of a run can end."""


def output_is_picture(path: Path) -> bool:
    """Return whether a file with this name holds a picture and not a film."""
    return path.suffix.lower() == ".png"


def write_table(folder: Path, name: str, table: pd.DataFrame) -> Path:
    """Write `tables/NAME.csv` into the folder of a run and return its path."""
    path = _path(folder, "tables", f"{name}.csv")
    write_atomically(path, csv_text(table))
    return path


def write_figure(folder: Path, name: str, figure: ggplot) -> list[Path]:
    """Write `figures/NAME.png` and `figures/NAME.svg` and return their paths."""
    from plastic_cli.figures.files import save_figure

    return save_figure(figure, folder / "figures", name)


def write_image(folder: Path, name: str, image: NDArray[Any], output: Path | None = None) -> Path:
    """Write an array (height, width[, 3]) of uint8 as `figures/NAME.png`, or as `output`, and return the path."""
    import imageio.v3 as imageio

    path = output or _path(folder, "figures", f"{name}.png")
    _write_file(path, lambda temporary: imageio.imwrite(temporary, image))
    return path


def write_video(
    folder: Path,
    name: str,
    frames: Sequence[NDArray[Any]],
    seconds_per_frame: float,
    file_format: FilmFormat,
    output: Path | None = None,
) -> Path:
    """Write frames, arrays (height, width, 3) of uint8, as `videos/NAME.FORMAT` and return the path.

    output: another file, whose suffix is the format. Raises UserError if MP4 or WebM cannot be written.
    """
    from plastic_cli.figures.encoding import check_film_can_be_written, write_film

    if output is None:
        check_film_can_be_written(file_format)
    path = output or _path(folder, "videos", f"{name}.{file_format}")
    _write_file(path, lambda temporary: write_film(temporary, frames, seconds_per_frame))
    return path


def write_artifact(folder: Path, name: str, tensors: Mapping[str, Any]) -> Path:
    """Write tensors as `artifacts/NAME.pt` and return the path."""
    path = _path(folder, "artifacts", f"{name}.pt")
    write_tensors(path, tensors)
    return path


def read_artifact(folder: Path, name: str) -> dict[str, Any]:
    """Read `artifacts/NAME.pt`, tensors on the CPU; raises UserError if it is missing or damaged."""
    try:
        return dict(read_tensors(folder / "artifacts" / f"{name}.pt"))
    except FileNotFoundError:
        raise UserError(f"run {folder.name} stored no '{name}'.") from None


def artifact_names(folder: Path, prefix: str) -> list[str]:
    """Return the names of the stored artifacts that begin with `prefix`, sorted."""
    return sorted(path.stem for path in (folder / "artifacts").glob(f"{prefix}*.pt"))


def _write_file(path: Path, write: Callable[[Path], object]) -> None:
    try:
        write_through(path, write)
    except OSError as error:
        raise PlasticError(f"Cannot write {path}: {error.strerror or error}.") from error


def _path(folder: Path, kind: str, name: str) -> Path:
    """Return the path of an output and make its subfolder."""
    (folder / kind).mkdir(exist_ok=True)
    return folder / kind / name
