"""A figure of the eligibility of an optimizer that is in use, for programs of the user's own."""

from __future__ import annotations

import math

import pandas as pd
import torch
from matplotlib.ticker import MaxNLocator
from plotnine import (
    aes,
    element_blank,
    element_text,
    facet_wrap,
    geom_raster,
    ggplot,
    guide_colorbar,
    guides,
    labs,
    scale_fill_gradientn,
    scale_x_continuous,
    scale_y_reverse,
    theme,
)
from torch import Tensor, nn

from plastic_cli.figures.theme import SEQUENTIAL, percent_of_one, theme_plastic
from plastic_selective.optimizer.optimizer import SelectivePlasticityOptimizer
from plastic_selective.rule import share_of_largest

MOST_CELLS = 128
"""Largest number of rows and of columns of a panel. A cell of a larger matrix is the mean over a block of synapses."""
SMALLEST = 1e-12


def plot_eligibility(optimizer: SelectivePlasticityOptimizer, model: nn.Module | None = None) -> ggplot:
    """Draw the eligibility of every synapse of an optimizer as a heat map for each weight matrix.

    Rows are units and columns their inputs; the inputs of a convolution are the entries of its filters. The eligibility
    is shown as a share of the largest in its matrix. model: the module whose names of parameters title the panels.
    Biases are left out. Raises ValueError if no matrix has an eligibility yet.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()} if model is not None else {}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"] if parameter.dim() > 1]
    panels, titles = [], []
    for number, parameter in enumerate(parameters, start=1):
        eligibility = optimizer.get_param_eligibility(parameter)
        if eligibility is None:
            continue
        share = share_of_largest(eligibility.flatten(1), SMALLEST)
        rows, columns = share.shape
        titles.append(f"{names.get(id(parameter), f'matrix {number}')} ({rows} x {columns})")
        panels.append(_cells(share).assign(panel=titles[-1]))
    if not panels:
        raise ValueError("no weight matrix has an eligibility yet: call the optimizer's step() first")
    cells = pd.concat(panels)
    cells["panel"] = pd.Categorical(cells["panel"], titles)
    width = min(3, len(titles))
    figure = ggplot(cells, aes("input", "unit", fill="share"))
    for title in titles:
        # A layer for each matrix, because the cells of a layer have one size.
        figure += geom_raster(data=cells[cells["panel"] == title])
    return (
        figure
        + facet_wrap("panel", scales="free", ncol=width)
        + scale_fill_gradientn(SEQUENTIAL, limits=(0, 1), name="Eligibility", labels=percent_of_one)
        + scale_x_continuous(breaks=_numbers, expand=(0, 0))
        + scale_y_reverse(breaks=_numbers, expand=(0, 0))
        + guides(fill=guide_colorbar(display="raster", nbin=100))
        + labs(
            title="Eligibility of each synapse",
            subtitle=f"as a share of the largest in its matrix, after {_steps(optimizer)} steps",
            x="Input",
            y="Unit",
        )
        + theme_plastic(figure_size=(1.4 + 3.2 * width, 1.2 + 2.8 * -(-len(titles) // width)))
        + theme(panel_grid_major=element_blank(), strip_text=element_text(size=9))
    )


def _cells(share: Tensor) -> pd.DataFrame:
    """Return columns unit, input, share: one row for each synapse (units, inputs), or for each block of them."""
    high, wide = (math.ceil(size / MOST_CELLS) for size in share.shape)
    # Blocks at the border, which may be smaller, are means over their own synapses.
    means = nn.functional.avg_pool2d(
        share.detach().double().cpu()[None], (high, wide), ceil_mode=True, count_include_pad=False
    )[0]
    unit, source = torch.meshgrid(*(torch.arange(size) for size in means.shape), indexing="ij")
    return pd.DataFrame(
        {
            # The middle of a block, counted from 1.
            "unit": (unit * high + (high + 1) / 2).flatten().numpy(),
            "input": (source * wide + (wide + 1) / 2).flatten().numpy(),
            "share": means.flatten().numpy(),
        }
    )


def _numbers(limits: tuple[float, float]) -> list[float]:
    """Return the numbers of some units or inputs, from 1; an axis that is reversed has negative limits."""
    low, high = sorted(abs(limit) for limit in limits)
    return [number for number in MaxNLocator(nbins=5, integer=True).tick_values(low, high) if low <= number <= high]


def _steps(optimizer: SelectivePlasticityOptimizer) -> str:
    return f"{int(max(float(state['step']) for state in optimizer.state.values() if state)):,}"
