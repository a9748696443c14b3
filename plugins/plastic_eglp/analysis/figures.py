"""The figures of `plastic analyze eglp`: contribution of layers, effect of the event rate, and events over time."""

# plotnine declares types, but not that of a figure plus a layer.
# mypy: no-warn-return-any

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.ticker import MaxNLocator
from plotnine import (
    aes,
    coord_flip,
    element_blank,
    element_text,
    expand_limits,
    facet_wrap,
    geom_blank,
    geom_hline,
    geom_label,
    geom_line,
    geom_point,
    geom_tile,
    ggplot,
    labs,
    scale_color_manual,
    scale_linetype_manual,
    scale_shape_manual,
    scale_x_continuous,
    scale_x_discrete,
    scale_y_continuous,
    scale_y_reverse,
    theme,
)

from plastic_cli.figures.theme import GRAY, INK, PALETTE, PAPER, percent, theme_plastic
from plastic_eglp.control import NAME


def sensitivity_figure(table: pd.DataFrame) -> ggplot:
    """Draw accuracy by condition: columns condition, accuracy. The last condition is the zero-event control."""
    data = table.assign(accuracy=100 * table["accuracy"])
    names = list(data["condition"])
    data["condition"] = pd.Categorical(data["condition"], names[::-1])
    data["text"] = [f"{value:.1f}%" for value in data["accuracy"]]
    control = float(data["accuracy"].iloc[-1])
    low, high = data["accuracy"].min(), data["accuracy"].max()
    room = max(1.0, 0.12 * (high - low))
    return (
        ggplot(data, aes("condition", "accuracy"))
        + geom_hline(yintercept=control, linetype="dashed", color=GRAY, size=0.6)
        + geom_point(size=3, color=PALETTE[0])
        + geom_label(aes(label="text"), nudge_x=0.3, size=8.5, label_size=0, fill=PAPER, color=INK)
        + scale_x_discrete()
        + scale_y_continuous(limits=(low - room, high + room), labels=percent)
        + coord_flip()
        + labs(title="Accuracy without learning in one layer", subtitle=f"dashed: {NAME}", x="", y="Test accuracy")
        + theme_plastic(figure_size=(6, 0.5 * len(names) + 1.4))
        + theme(panel_grid_major_y=element_blank())
    )


def event_rates_figure(table: pd.DataFrame) -> ggplot:
    """Draw accuracy as a function of the event rate and of the number of synaptic updates.

    table: columns events by, share (of all images), rate, synaptic_updates, accuracy. The horizontal axes are
    logarithmic; the control, rate 0, is a dashed line.
    """
    control = 100 * float(table.loc[table["rate"] == 0, "accuracy"].iloc[0])
    learned = table[table["rate"] > 0]
    facets = {"share": ("images in events (%)", 100), "synaptic_updates": ("synaptic updates (millions)", 1e-6)}
    data = pd.concat(
        [
            learned.assign(x=scale * learned[column], facet=name, accuracy=100 * learned["accuracy"])
            for column, (name, scale) in facets.items()
        ]
    )
    data = data[data["x"] > 0].rename(columns={"events by": "by"})
    data["facet"] = pd.Categorical(data["facet"], [name for name, _ in facets.values()])
    kinds = list(data["by"].unique())
    names = ["random" if kind == "fixed" else kind for kind in kinds]
    data["by"] = pd.Categorical(data["by"], kinds)
    return (
        ggplot(data, aes("x", "accuracy", color="by", shape="by"))
        + geom_hline(yintercept=control, linetype="dashed", color=GRAY, size=0.6)
        + geom_line(size=0.9)
        + geom_point(size=2.6)
        + facet_wrap("facet", scales="free_x")
        + scale_x_continuous(trans="log10", labels=_plain)
        + scale_y_continuous(labels=percent)
        + scale_color_manual(values=[PALETTE[0], PALETTE[1]], name="Events", labels=names)
        + scale_shape_manual(values=["o", "^"], name="Events", labels=names)
        + labs(
            title="Accuracy as a function of the event rate",
            subtitle=f"dashed: {NAME}, {control:.1f}%",
            x="",
            y="Test accuracy",
        )
        + theme_plastic(figure_size=(8.4, 3.9))
        + theme(legend_position="bottom", strip_text=element_text(size=10))
    )


def event_images_figure(table: pd.DataFrame) -> ggplot:
    """Draw over the epochs which images have events: solid, and as many random images: dashed.

    table: see `measures.event_image_table`.
    """
    kinds = {
        "doubtful": "doubtful",
        "again": "with an event\nin the epoch before",
        "largest_class": "of the largest class",
    }
    parts = [
        pd.DataFrame({"epoch": table["epoch"], "percent": 100 * table[prefix + name], "kind": label, "images": images})
        for name, label in kinds.items()
        for prefix, images in (("", "with events"), ("random_", "random"))
    ]
    data = pd.concat(parts).dropna()
    data["kind"] = pd.Categorical(data["kind"], list(kinds.values()))
    data["images"] = pd.Categorical(data["images"], ["with events", "random"])
    return (
        ggplot(data, aes("epoch", "percent", color="images", linetype="images"))
        + geom_line(size=0.9)
        + geom_point(size=1.8)
        + facet_wrap("kind", nrow=1)
        + scale_x_continuous(breaks=MaxNLocator(5, integer=True).tick_values(1, int(table["epoch"].max())))
        + expand_limits(y=0)
        + scale_y_continuous(labels=percent)
        + scale_color_manual(values=[PALETTE[0], GRAY], name="Images")
        + scale_linetype_manual(values=["solid", "dashed"], name="Images")
        + labs(title="Which images have events", x="Epoch", y="Share of the images with events")
        + theme_plastic(figure_size=(8.4, 3.4))
        + theme(legend_position="bottom", strip_text=element_text(size=10))
    )


def raster_figure(raster: pd.DataFrame) -> ggplot:
    """Draw which batches of which epochs had an event: columns epoch, batch, event (0 or 1)."""
    with_event = raster[raster["event"] > 0]
    batches, epochs = int(raster["batch"].max()), int(raster["epoch"].max())
    share = raster["event"].mean()
    # plotnine cannot draw a layer without rows.
    events = geom_tile(aes(width=1, height=0.8), data=with_event, fill=PALETTE[0]) if len(with_event) else geom_blank()
    return (
        ggplot(raster, aes("batch", "epoch"))
        + events
        + scale_x_continuous(limits=(0.5, batches + 0.5), breaks=_whole_numbers(batches), expand=(0.01, 0))
        + scale_y_reverse(limits=(epochs + 0.5, 0.5), breaks=_whole_numbers(epochs))
        + labs(
            title="Events: batches from which the hidden layers learned",
            subtitle=f"{len(with_event)} events in {len(raster)} batches ({100 * share:.1f}%)",
            x="Batch of the epoch",
            y="Epoch",
        )
        + theme_plastic(figure_size=(8, min(6.0, 0.16 * epochs + 1.8)))
        + theme(panel_grid_major=element_blank())
    )


def _whole_numbers(last: int) -> list[int]:
    """Return about eight whole numbers at equal distances from 1 to `last`."""
    ticks = MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]).tick_values(1, last)
    return [int(tick) for tick in ticks if 1 <= tick <= last]


def _plain(values: Sequence[float] | Sequence[str]) -> list[str]:
    return [f"{float(value):g}" for value in values]
