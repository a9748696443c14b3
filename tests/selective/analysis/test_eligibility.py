"""The figure of an optimizer that is in use."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from plastic_selective import SelectivePlasticityOptimizer, plot_eligibility
from plastic_selective.analysis.eligibility import MOST_CELLS


def after_steps(model, x, base="adam", steps=3):
    optimizer = SelectivePlasticityOptimizer(model.parameters(), base=base, warmup_steps=1)
    for step in range(steps):
        optimizer.zero_grad()
        (model(x) * (step + 1)).square().sum().backward()
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("base", ["adam", "sgd"])
def test_every_cell_is_the_share_of_a_synapse(base):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3))
    optimizer = after_steps(model, torch.randn(4, 5), base)
    figure = plot_eligibility(optimizer, model)
    assert list(figure.data["panel"].unique()) == ["0.weight (7 x 5)", "2.weight (3 x 7)"]
    for panel, layer in zip(("0.weight (7 x 5)", "2.weight (3 x 7)"), (model[0], model[2]), strict=True):
        expected = optimizer.get_param_eligibility(layer.weight)
        found = figure.data[figure.data["panel"] == panel].pivot_table(index="unit", columns="input", values="share")
        np.testing.assert_allclose(found.to_numpy(), expected / expected.max(), rtol=1e-6)
        assert found.index.tolist() == list(range(1, len(expected) + 1))
    assert "after 3 steps" in figure.labels.subtitle
    plt.close(figure.draw())


def test_a_large_matrix_and_a_convolution_are_drawn_in_blocks(recwarn):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3), torch.nn.Flatten(), torch.nn.Linear(64, 2 * MOST_CELLS + 1))
    optimizer = after_steps(model, torch.randn(2, 2, 6, 6))
    data = plot_eligibility(optimizer, model).data
    assert list(data["panel"].unique()) == ["0.weight (4 x 18)", f"2.weight ({2 * MOST_CELLS + 1} x 64)"]
    large = data[data["panel"].str.startswith("2")].pivot_table(index="unit", columns="input", values="share")
    eligibility = optimizer.get_param_eligibility(model[2].weight)
    share = (eligibility / eligibility.max()).double()
    assert large.shape == (-(-(2 * MOST_CELLS + 1) // 3), 64)
    np.testing.assert_allclose(large.to_numpy()[0], share[:3].mean(0), rtol=1e-6)
    np.testing.assert_allclose(large.to_numpy()[-1], share[-2:].mean(0), rtol=1e-6)
    assert large.index[0] == 2
    plt.close(plot_eligibility(optimizer).draw())
    assert not [warning for warning in recwarn if "Raster" in str(warning.message)]


def test_without_a_module_the_matrices_are_numbered():
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    figure = plot_eligibility(after_steps(model, torch.randn(2, 3)))
    assert figure.data["panel"].unique().tolist() == ["matrix 1 (2 x 3)"]


def test_before_the_first_step_there_is_nothing_to_draw():
    optimizer = SelectivePlasticityOptimizer(torch.nn.Linear(3, 2).parameters())
    with pytest.raises(ValueError, match=r"no weight matrix has an eligibility yet: call the optimizer's step\(\)"):
        plot_eligibility(optimizer)
