"""The view of a figure of values: the axes, ranges, size and title that a user chooses, and what they show."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from plastic_cli.errors import UserError

Range = tuple[float | None, float | None]
"""The ends of an axis; None: where the values end."""

EARLY_SHARE = 0.1
"""The first tenth of the steps, and always the first step, does not decide what the axis shows."""
LARGEST_VIEW = 2.5
"""Early means are shown as far as the axis grows to this multiple of what the later means need."""
SHORTEST_CUT = 0.1
"""On an axis without a chosen range, a line with less than this share of a step looks vertical: it is left out."""
MARGIN = 0.05
"""Empty share of the axis on both sides of the values."""

POINT = ["step", "mean", "low", "high"]
"""The coordinates of a point of a curve with its interval."""
CURVE = ["label", "style", "panel", "line"]
"""The columns that tell curves apart."""


@dataclass(frozen=True)
class View:
    """How a figure is shown.

    log: the logarithmic axes. x_range, y_range: the shown part. width, height: in inches. None: chosen by the values.
    """

    log: Literal["x", "y", "both"] | None = None
    x_range: Range | None = None
    y_range: Range | None = None
    width: float | None = None
    height: float | None = None
    title: str | None = None

    @property
    def log_x(self) -> bool:
        """Whether the horizontal axis is logarithmic."""
        return self.log in ("x", "both")

    @property
    def log_y(self) -> bool:
        """Whether the vertical axis is logarithmic."""
        return self.log in ("y", "both")


@dataclass(frozen=True)
class Shown:
    """What is shown of some curves.

    lines: the curves inside the view, cut exactly at its edges; `piece` numbers the parts of a curve that leaves it.
    ribbons: the intervals inside the view: both of their edges run to the edge of the view; `piece` as in lines.
    points: the points of the curves inside the view. edges: two corners of the view of each panel (panel, step, mean).
    hidden: the points that lie outside although no range was asked for (panel, step, value, below), and the place of
    their mark (mean).
    """

    lines: pd.DataFrame
    ribbons: pd.DataFrame
    points: pd.DataFrame
    edges: pd.DataFrame
    hidden: pd.DataFrame


def read_range(text: str, option: str) -> Range:
    """Return the range of a text such as `0.9,1`, `90%,95%`, `90,` or `,95`; raises UserError for another text."""
    ends = [end.strip() for end in text.replace(":", ",").split(",")]
    try:
        if len(ends) != 2:
            raise ValueError
        low, high = (None if not end else _end(end) for end in ends)
    except ValueError:
        raise UserError(f"{option} {text}: write two numbers, LOW,HIGH; one of them may be left out.") from None
    if low is not None and high is not None and low >= high:
        raise UserError(f"{option} {text}: the first number must be smaller than the second.")
    return low, high


def _end(text: str) -> float:
    value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    if not math.isfinite(value):
        raise ValueError
    return value


def share_range(wanted: Range | None) -> Range | None:
    """Return the range of a share: numbers above 1 are in percent, as the axis shows them."""
    if wanted is None or all(end is None or abs(end) <= 1 for end in wanted):
        return wanted
    low, high = (None if end is None else end / 100 for end in wanted)
    return low, high


def shown(curves: pd.DataFrame, view: View, *, share: bool, skip_early: bool = True) -> Shown:
    """Return the part of `curves` that the view shows, panel by panel.

    curves: label, style, panel, line, step, mean, low, high. Without a range in the view, the axis shows where the
    curves differ: all values after the first tenth of the steps with their intervals, and the earlier ones as far as
    they do not flatten these. skip_early: without it, the axis shows all values. share: values are between 0 and 1.
    Raises UserError if no value lies in the ranges of the view.
    """
    lines, ribbons, points, edges, hidden = [], [], [], [], []
    shortest = SHORTEST_CUT if view.y_range is None else 0.0
    for panel, own in curves.groupby("panel", sort=False, observed=True):
        inside = _between(own, "step", view.x_range or (None, None), view)
        if inside.empty:
            raise UserError(f"no value lies in the range {range_text(view.x_range)}. Choose another --x-range.")
        low, high = _ends(inside, view, share=share, skip_early=skip_early)
        lines.append(_between(inside, "mean", (low, high), view, shortest))
        ribbons.append(_ribbons(inside, (low, high), view, shortest))
        has_place = own["step"].between(*_limits(view.x_range)) & ((own["step"] > 0) | (not view.log_x))
        points.append(own[own["mean"].between(low, high) & has_place])
        ends = [inside["step"].min(), inside["step"].max()]
        edges.append(pd.DataFrame({"panel": panel, "step": ends, "mean": [low, high]}))
        expected = own[has_place & (view.y_range is None)]
        hidden.append(_hidden(expected, low, high, log=view.log_y).assign(panel=panel))
    return Shown(*(_joined(parts, curves) for parts in (lines, ribbons, points, edges, hidden)))


def range_text(ends: Range | None) -> str:
    """Return a range in words: "2 to 5", "from 2"."""
    low, high = ends or (None, None)
    if high is None:
        return "of all values" if low is None else f"from {low:g}"
    return f"up to {high:g}" if low is None else f"{low:g} to {high:g}"


def named(frame: pd.DataFrame, columns: Sequence[str], values: Iterable[Any]) -> pd.DataFrame:
    """Return the frame with columns that hold one value each."""
    constant: dict[str, Any] = dict(zip(columns, values, strict=True))
    return frame.assign(**constant)


def _joined(parts: list[pd.DataFrame], curves: pd.DataFrame) -> pd.DataFrame:
    """Join frames, with the categories of `curves`, whose order is that of legends and panels."""
    frame = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    ordered = [name for name in ("label", "style", "panel") if name in frame and curves[name].dtype == "category"]
    return frame.assign(**{name: pd.Categorical(frame[name], curves[name].cat.categories) for name in ordered})


def _ends(curves: pd.DataFrame, view: View, *, share: bool, skip_early: bool) -> tuple[float, float]:
    """Return the ends of the vertical axis of one panel: the wanted ones, else those of the values with a margin."""
    low, high = _where_curves_differ(curves, log=view.log_y, skip_early=skip_early)
    bottom, top = _places(np.array([low, high]), log=view.log_y)
    room = MARGIN * (top - bottom) or MARGIN * abs(top) or MARGIN
    ends = _values(np.array([bottom - room, top + room]), log=view.log_y)
    if share and curves["mean"].between(0, 1).all() and not view.log_y:
        # An interval can reach beyond what a share can be.
        ends = np.clip(ends, 0, 1)
    wanted = (share_range(view.y_range) if share else view.y_range) or (None, None)
    bottom, top = (float(end) if other is None else other for end, other in zip(ends, wanted, strict=True))
    if bottom >= top:
        raise UserError(f"no value lies in the range {range_text(view.y_range)}. Choose another --y-range.")
    return bottom, top


def _where_curves_differ(curves: pd.DataFrame, *, log: bool, skip_early: bool) -> tuple[float, float]:
    """Return the ends of the values that the axis shows, without margin."""
    steps = curves.groupby(CURVE, observed=True)["step"]
    first, last = steps.transform("min"), steps.transform("max")
    early = curves["step"] <= first + EARLY_SHARE * (last - first)
    if not skip_early or curves.loc[~early, "step"].nunique() < 2:
        early = pd.Series(False, index=curves.index)
    low, high = _reach(curves[~early], log=log)
    others = _finite_places(curves[early], ["mean"], log=log)
    # The intervals of few seeds vary widely, so that with them similar runs would have different axes.
    means = _finite_places(curves[~early], ["mean"], log=log)
    largest = LARGEST_VIEW * (means.max() - means.min())
    near = others[(others >= means.max() - largest) & (others <= means.min() + largest)]
    ends = _values(np.array([min([low, *near]), max([high, *near])]), log=log)
    return float(ends[0]), float(ends[1])


def _reach(curves: pd.DataFrame, *, log: bool) -> tuple[float, float]:
    """Return the lowest and the highest place of the curves and their intervals."""
    means = _finite_places(curves, ["mean"], log=log)
    everything = _finite_places(curves, POINT[1:], log=log)
    if log:
        # On a logarithmic axis an interval that ends near 0 would take nearly all of the height.
        room = max((means.max() - means.min()) / 2, 0.3)
        everything = everything.clip(means.min() - room, means.max() + room)
    return float(everything.min()), float(everything.max())


def _finite_places(curves: pd.DataFrame, columns: Sequence[str], *, log: bool) -> NDArray[np.float64]:
    places = _places(curves[columns].to_numpy(dtype=np.float64).ravel(), log=log)
    return places[np.isfinite(places)]


def _places(values: NDArray[np.float64], *, log: bool) -> NDArray[np.float64]:
    """Return the places of values on the axis; a value without a place on a logarithmic axis is -inf."""
    if not log:
        return values
    return np.log10(values, out=np.full(len(values), -np.inf), where=values > 0)


def _values(places: NDArray[np.float64], *, log: bool) -> NDArray[np.float64]:
    return 10.0**places if log else places


def _hidden(curves: pd.DataFrame, low: float, high: float, *, log: bool) -> pd.DataFrame:
    """Return the points outside the view, and the place of their mark at its edge."""
    outside = curves[(curves["mean"] < low) | (curves["mean"] > high)]
    below = (outside["mean"] < low).to_numpy()
    bottom, top = _places(np.array([low, high]), log=log)
    marks = np.where(below, bottom + 0.02 * (top - bottom), top - 0.02 * (top - bottom))
    return pd.DataFrame(
        {"step": outside["step"], "value": outside["mean"], "below": below, "mean": _values(marks, log=log)}
    )


def _limits(ends: Range | None) -> tuple[float, float]:
    low, high = ends or (None, None)
    return -math.inf if low is None else low, math.inf if high is None else high


def _between(
    curves: pd.DataFrame, column: Literal["step", "mean"], ends: Range, view: View, shortest: float = 0.0
) -> pd.DataFrame:
    """Return the curves where a column lies between the ends, cut exactly at these. shortest: as for `_pieces`."""
    key = POINT.index(column)
    low, high = _places(np.array(_limits(ends)), log=_LOGS[key](view))
    parts = []
    for names, own in curves.groupby(CURVE, sort=False, observed=True):
        for number, piece in enumerate(_pieces(_points_of(own, view), key, low, high, shortest)):
            parts.append(named(_frame_of(piece, view), CURVE, names).assign(piece=number))
    return _joined(parts, curves) if parts else curves.iloc[:0].assign(piece=0)


def _ribbons(curves: pd.DataFrame, ends: tuple[float, float], view: View, shortest: float) -> pd.DataFrame:
    """Return the intervals of the curves between the ends of the vertical axis. shortest: as for `_pieces`."""
    low, high = _places(np.array(ends), log=view.log_y)
    parts = []
    for names, own in curves.dropna(subset=["low", "high"]).groupby(CURVE, sort=False, observed=True):
        for number, piece in enumerate(_ribbon_pieces(_points_of(own, view), low, high, shortest)):
            frame = _frame_of(piece, view)
            frame = frame.assign(low=frame["low"].clip(*ends), high=frame["high"].clip(*ends))
            parts.append(named(frame, CURVE, names).assign(piece=number))
    return _joined(parts, curves) if parts else curves.iloc[:0].assign(piece=0)


_LOGS: Sequence[Callable[[View], bool]] = (lambda view: view.log_x, *[lambda view: view.log_y] * 3)
"""Whether the axis of each coordinate of POINT is logarithmic."""


def _points_of(curve: pd.DataFrame, view: View) -> NDArray[np.float64]:
    """Return the places (n, 4) of the points of a curve on the axes, in the order of POINT."""
    values = curve.sort_values("step")[POINT].to_numpy(dtype=np.float64)
    points = np.column_stack([_places(each, log=log(view)) for each, log in zip(values.T, _LOGS, strict=True)])
    # A step or mean of 0 has no place on a logarithmic axis; the lower end of an interval may lie anywhere below.
    points = points[np.isfinite(points[:, :2]).all(axis=1)]
    points[np.isneginf(points)] = points[np.isfinite(points)].min(initial=0)
    return points


def _frame_of(points: NDArray[np.float64], view: View) -> pd.DataFrame:
    """Return the values at places (n, 4) on the axes."""
    columns = zip(POINT, points.T, _LOGS, strict=True)
    return pd.DataFrame({name: _values(places, log=log(view)) for name, places, log in columns})


def _pieces(
    points: NDArray[np.float64], key: int, low: float, high: float, shortest: float
) -> list[NDArray[np.float64]]:
    """Return the parts of a line of points (n, 4) whose coordinate `key` lies between two ends, cut at these.

    shortest: a smaller share of the way between two points is left out.
    """
    pieces: list[list[NDArray[np.float64]]] = []
    is_inside = bool(len(points)) and low <= points[0, key] <= high
    if is_inside:
        pieces.append([points[0]])
    for before, point in pairwise(points):
        begin, end = _shares_between(before[key], point[key], low, high)
        if end > begin:
            is_short = end - begin < shortest
            if not is_inside:
                pieces.append([] if is_short else [_at(before, point, begin)])
            if end == 1 or not is_short:
                pieces[-1].append(_at(before, point, end))
        is_inside = begin <= end == 1
    return [np.array(piece) for piece in pieces if piece]


def _ribbon_pieces(points: NDArray[np.float64], low: float, high: float, shortest: float) -> list[NDArray[np.float64]]:
    """Return the parts of a ribbon of points (n, 4), with a point wherever one of its edges crosses one of two ends."""
    pieces: list[list[NDArray[np.float64]]] = [[]]
    for before, point in pairwise(points):
        begin, end = _shares_between(before[1], point[1], low, high)
        if 0 < end - begin < shortest:
            pieces.append([])
            continue
        crossings = {share for key in (2, 3) for share in _shares_between(before[key], point[key], low, high)}
        shares = [0.0, *sorted(share for share in crossings if 0 < share < 1), 1.0]
        pieces[-1] += [_at(before, point, share) for share in (shares[1:] if pieces[-1] else shares)]
    return [np.array(piece) for piece in pieces if piece]


def _shares_between(first: float, second: float, low: float, high: float) -> tuple[float, float]:
    """Return the shares of the way from `first` to `second` between which the way lies in the range; (1, 0): never."""
    if first == second:
        return (0.0, 1.0) if low <= first <= high else (1.0, 0.0)
    shares = sorted(((low - first) / (second - first), (high - first) / (second - first)))
    return max(0.0, shares[0]), min(1.0, shares[1])


def _at(before: NDArray[np.float64], point: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    # The ends themselves are returned without rounding.
    return point if share == 1 else before if share == 0 else before + share * (point - before)
