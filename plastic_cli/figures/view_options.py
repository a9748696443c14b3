"""The options of every figure of runs: which metric it shows, and which part of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import field_validator

from plastic_cli.config.model import Config, field

if TYPE_CHECKING:
    from plastic_cli.figures.view import View


class ViewOptions(Config):
    """Which metric a figure shows, and how."""

    metric: str | None = field(
        None, "SPLIT/METRIC, or METRIC for all splits (default: the main metric, such as test/accuracy)", panel="Figure"
    )
    smooth: int = field(1, "each point of a curve is the mean of this number of steps", ge=1, panel="Figure")
    log: Literal["x", "y", "both"] | None = field(None, "logarithmic axes: x, y or both", panel="Figure")
    x_range: str | None = field(
        None,
        "LOW,HIGH: the part of the horizontal axis to show, such as 5,20; 5, or ,20 leaves one end free",
        panel="Figure",
    )
    y_range: str | None = field(
        None,
        "LOW,HIGH: the part of the vertical axis to show; for shares in percent, such as 90,95",
        panel="Figure",
    )
    width: float | None = field(None, "width in inches", gt=0, le=100, panel="Figure")
    height: float | None = field(None, "height in inches", gt=0, le=100, panel="Figure")
    title: str | None = field(None, "title of the figure", panel="Figure")

    @field_validator("x_range", "y_range", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        """Return a pair of numbers, as Python programs give it, as the text of the command line: (None, 5) as ",5"."""
        if isinstance(value, tuple | list) and len(value) == 2:
            return ",".join("" if end is None else repr(end) for end in value)
        return value

    def view(self) -> View:
        """Return the view; raises UserError for a range that cannot be read."""
        from plastic_cli.figures.view import View, read_range

        x_range = None if self.x_range is None else read_range(self.x_range, "--x-range")
        y_range = None if self.y_range is None else read_range(self.y_range, "--y-range")
        return View(self.log, x_range, y_range, self.width, self.height, self.title)
