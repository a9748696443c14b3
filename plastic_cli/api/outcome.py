"""What analyses and films return: tables and figures in memory, and files that show themselves in a notebook."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from plotnine import ggplot

    from plastic_cli.runs.run import Run

    _PATH = Path
else:
    # Before Python 3.12 only the class of this system can be a base class.
    _PATH = type(Path())

_MEDIA = {".gif": "image/gif", ".png": "image/png", ".mp4": "video/mp4", ".webm": "video/webm"}


class Film(_PATH):
    """The path of a film or picture, which shows itself in a notebook."""

    def _repr_html_(self) -> str:
        kind = _MEDIA.get(self.suffix.lower())
        if kind is None or not self.is_file():
            return html.escape(str(self))
        source = f"data:{kind};base64,{base64.b64encode(self.read_bytes()).decode()}"
        if kind.startswith("video"):
            return f'<video controls loop style="max-width:100%" src="{source}"></video>'
        return f'<img style="max-width:100%" alt="{html.escape(self.stem)}" src="{source}">'


@dataclass(frozen=True, repr=False)
class Analysis:
    """What an analysis computed.

    results: the main numbers by name. tables: pandas tables by name. figures: plotnine figures by name, or the path of
    a picture that is not a plotnine figure. files: the paths of all files that were written.

    To store it elsewhere, take its tables and results: not every plotnine figure can be pickled.
    """

    results: Mapping[str, float]
    tables: Mapping[str, pd.DataFrame]
    figures: Mapping[str, ggplot | Film]
    files: tuple[Path, ...]

    @classmethod
    def of(cls, run: Run) -> Analysis:
        """Return what a stage computed on a run."""
        pictures = {Path(name).stem: Film(run.folder / name) for name in run.files if name.endswith(".png")}
        return cls(
            results=dict(run.results),
            tables=dict(run.tables),
            figures={**pictures, **run.figures},
            files=tuple(run.folder / name for name in run.files),
        )

    def __repr__(self) -> str:
        parts = [f"{len(self.results)} results"]
        parts += [f"{kind}: {', '.join(names)}" for kind, names in self._named() if names]
        return f"<Analysis with {'; '.join(parts)}>"

    def _repr_html_(self) -> str:
        import pandas as pd

        series = pd.Series(dict(self.results), name="value", dtype=float)
        results = series.rename_axis("result").reset_index()
        text = str(results.to_html(index=False, float_format="{:.4g}".format)) if len(results) else ""
        shown = [
            f"<p>{html.escape(kind)}: {html.escape(', '.join(names))}</p>" for kind, names in self._named() if names
        ]
        return text + "".join(shown)

    def _named(self) -> tuple[tuple[str, Any], ...]:
        return ("tables", list(self.tables)), ("figures", list(self.figures))
