"""Alternative text for figures: a title and a description."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape

import pandas as pd
from plotnine import ggplot

_MOST_NAMES = 12
"""Up to this number of colors are named; more are only counted."""


@dataclass(frozen=True)
class Alternative:
    """A figure in words."""

    title: str
    description: str


def alternative(figure: ggplot, name: str, description: str | None = None) -> Alternative:
    """Return the title and the description of a figure, from its labels, its colors and `description`.

    name: the title of a figure without one.
    """
    texts = {key: figure.labels.get(key, "") for key in ("title", "subtitle", "x", "y", "caption")}
    labels = {key: _one_line(str(text)) for key, text in texts.items() if text}
    title = labels.get("title") or name.replace("-", " ").replace("_", " ")
    if labels.get("subtitle"):
        title += f": {labels['subtitle']}"
    sentences = [
        f"Horizontal: {labels['x']}" if labels.get("x") else "",
        f"vertical: {labels['y']}" if labels.get("y") else "",
        _colors(figure),
    ]
    text = "; ".join(sentence for sentence in sentences if sentence)
    text = f"{text[:1].upper()}{text[1:]}." if text else ""
    return Alternative(title, " ".join(part for part in (text, labels.get("caption"), description) if part))


def with_alternative(svg: str, words: Alternative) -> str:
    """Return an SVG with the elements `title` and `desc`, and the role that makes screen readers read them."""
    # The title that the drawing library writes, from its metadata, is removed.
    head, _, rest = re.sub(r"\s*<title>.*?</title>", "", svg, count=1, flags=re.DOTALL).partition("<svg ")
    attributes, _, content = rest.partition(">")
    named = 'role="img" aria-labelledby="title" aria-describedby="description"'
    title = f'<title id="title">{escape(words.title, quote=False)}</title>'
    text = f'<desc id="description">{escape(words.description, quote=False)}</desc>'
    # The drawing library also writes the texts of a figure into comments, unchecked.
    return _valid_xml(f"{head}<svg {named} {attributes}>\n {title}\n {text}{content}")


def _colors(figure: ggplot) -> str:
    column = figure.mapping.get("color") or figure.mapping.get("fill")
    if not isinstance(figure.data, pd.DataFrame) or column not in figure.data.columns:
        return ""
    values = figure.data[column]
    if pd.api.types.is_numeric_dtype(values):
        return ""
    drawn = [value for value in pd.unique(values.dropna()) if str(value)]
    if all(re.fullmatch("#[0-9A-Fa-f]{6}", str(value)) for value in drawn):
        # A column of colors says nothing in words.
        return ""
    if len(drawn) > _MOST_NAMES:
        return f"{len(drawn)} colors"
    return f"colors: {', '.join(_one_line(str(value)) for value in drawn)}" if len(drawn) > 1 else ""


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _valid_xml(xml: str) -> str:
    """Return a text with the characters that XML forbids replaced; one of them makes a whole file unreadable."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\N{REPLACEMENT CHARACTER}", xml)
