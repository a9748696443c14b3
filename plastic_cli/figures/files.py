"""Figures as files, written atomically and drawn without a display."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path

import matplotlib
from matplotlib.backends.registry import BackendFilter, backend_registry
from plotnine import ggplot

from plastic_cli.errors import PlasticError
from plastic_cli.figures.alternatives import alternative, with_alternative
from plastic_cli.files import write_through

# SVG names its parts by salted hashes, and both formats can have a date. Fixed values make files reproducible.
_SVG_HASH_SALT = "plastic"
_WITHOUT_WINDOWS = backend_registry.list_builtin(BackendFilter.NON_INTERACTIVE)
_METADATA: dict[str, dict[str, str | None]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}


def save_figure(
    figure: ggplot,
    folder: Path,
    name: str,
    formats: Sequence[str] = ("png", "svg"),
    description: str | None = None,
) -> list[Path]:
    """Write `figure` as `folder`/`name`.FORMAT for each of `formats` and return the paths.

    The folder is created if it is missing. Size and resolution are those of the figure's theme. Each file is written to
    a temporary file and then moved. An SVG contains a text alternative; `description` adds to it what the labels of the
    figure do not say, mainly its values. Raises PlasticError if a file cannot be written.
    """
    if Path(name).name != name:
        raise ValueError(f"'{name}' is not the name of a file without its suffix.")
    paths = [folder / f"{name}.{suffix}" for suffix in formats]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in paths:
            if path.suffix == ".svg":
                content = svg_text(figure, name, description)
                write_through(path, partial(Path.write_text, data=content, encoding="utf-8"))
            else:
                with headless():
                    write_through(path, partial(_draw, figure))
    except OSError as error:
        raise PlasticError(f"Cannot write the figure {folder / name}: {error.strerror or error}.") from error
    return paths


def svg_text(figure: ggplot, name: str, description: str | None = None) -> str:
    """Return `figure` as the text of an SVG file with a text alternative."""
    drawn = BytesIO()
    with headless():
        figure.save(drawn, format="svg", verbose=False, limitsize=False, metadata=_METADATA["svg"])
    return with_alternative(drawn.getvalue().decode(), alternative(figure, name, description))


def _draw(figure: ggplot, path: Path) -> None:
    # plotnine draws a copy of the figure and closes it in pyplot, so that it does not stay in memory.
    suffix = path.suffix.lstrip(".")
    figure.save(path, format=suffix, verbose=False, limitsize=False, metadata=_METADATA.get(suffix))


@contextmanager
def headless() -> Iterator[None]:
    """Draw with a backend that opens no window, then restore the one that a script had chosen.

    A backend that opens no window is kept. That of notebooks must not be replaced before it is first used: it would
    never show the figures of later cells.
    """
    chosen = matplotlib.get_backend(auto_select=False)
    opens_windows = chosen is None or not (chosen.lower() in _WITHOUT_WINDOWS or "inline" in chosen)
    if opens_windows:
        matplotlib.use("Agg")
    try:
        with matplotlib.rc_context({"svg.hashsalt": _SVG_HASH_SALT}):
            yield
    finally:
        if opens_windows and chosen is not None:
            matplotlib.use(chosen, force=False)
