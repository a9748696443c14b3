import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plastic_cli.analysis.sparsity import (
    dead_units,
    lifetime_sparsity,
    population_sparsity,
    silent_fraction,
    sparsity,
)

ACTIVITY = torch.tensor([[1.0, 0.0, 2.0, 0.0], [3.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])


def treves_rolls(values):
    n = len(values)
    mean = sum(abs(value) for value in values) / n
    square = sum(value**2 for value in values) / n
    return (1 - mean**2 / square) / (1 - 1 / n)


def test_silent_and_dead():
    assert silent_fraction(ACTIVITY).tolist() == [0.5, 0.75, 1.0]
    assert dead_units(ACTIVITY).tolist() == [False, True, False, True]


def test_equals_its_formula():
    activity = np.maximum(np.random.default_rng(0).normal(size=(9, 5)), 0)
    activity[0] += 0.1
    lifetime = [treves_rolls(activity[:, unit]) for unit in range(5)]
    population = [treves_rolls(row) if row.any() else float("nan") for row in activity]
    np.testing.assert_allclose(lifetime_sparsity(torch.from_numpy(activity)), lifetime, rtol=1e-12)
    np.testing.assert_allclose(population_sparsity(torch.from_numpy(activity)), population, rtol=1e-12)


def test_limits():
    assert population_sparsity(torch.ones(1, 7)).item() == pytest.approx(0, abs=1e-12)
    assert population_sparsity(torch.eye(7)[:1]).item() == pytest.approx(1)
    assert lifetime_sparsity(torch.eye(4)).tolist() == pytest.approx([1] * 4)
    assert lifetime_sparsity(ACTIVITY)[[1, 3]].isnan().all()
    assert population_sparsity(ACTIVITY)[2].isnan()
    assert lifetime_sparsity(torch.ones(1, 3)).isnan().all()


@given(
    st.lists(st.floats(-1e3, 1e3).map(lambda value: round(value, 6)), min_size=2, max_size=20).filter(any),
    st.floats(1e-100, 1e100),
)
def test_bounded_and_independent_of_scale_and_sign(values, scale):
    activity = torch.tensor([values], dtype=torch.float64)
    value = population_sparsity(activity).item()
    assert -1e-12 <= value <= 1 + 1e-12
    assert population_sparsity(-scale * activity).item() == pytest.approx(value, abs=1e-9)
    assert lifetime_sparsity(activity.T).item() == value


def test_summary_leaves_out_dead_units_and_empty_samples():
    summary = sparsity(ACTIVITY)
    assert summary.silent == pytest.approx(0.75)
    assert summary.dead == 0.5
    assert summary.lifetime == pytest.approx((treves_rolls([1, 3, 0]) + treves_rolls([2, 0, 0])) / 2)
    assert summary.population == pytest.approx((treves_rolls([1, 0, 2, 0]) + treves_rolls([3, 0, 0, 0])) / 2)


def test_feature_maps_are_flattened():
    maps = torch.relu(torch.from_numpy(np.random.default_rng(1).normal(size=(6, 2, 3, 3))))
    assert sparsity(maps) == sparsity(maps.flatten(1))
