"""The participation ratio: the effective number of dimensions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plastic_cli.analysis.dimensionality import participation_ratio


@pytest.mark.parametrize("shape", [(60, 5), (7, 40)])
def test_the_participation_ratio_is_that_of_the_covariance_spectrum(shape):
    states = np.random.default_rng(0).normal(size=shape) * np.linspace(1, 3, shape[1])
    eigenvalues = np.linalg.eigvalsh(np.cov(states.T))
    assert participation_ratio(states) == pytest.approx(eigenvalues.sum() ** 2 / (eigenvalues**2).sum())


@given(st.integers(1, 6), st.floats(0.1, 100), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_the_participation_ratio_counts_equal_directions_whatever_scale_and_rotation(dimensions, scale, seed):
    # Plus and minus each axis: the same variance in all of them.
    states = np.concatenate([np.eye(dimensions, 8), -np.eye(dimensions, 8)]) * scale
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(8, 8)))
    assert participation_ratio(states @ rotation + 5) == pytest.approx(dimensions)


def test_the_participation_ratio_is_that_of_the_principal_components():
    activity = np.random.default_rng(0).normal(size=(300, 7)) * np.arange(1, 8) + 5
    variances = np.linalg.svd(activity - activity.mean(0), compute_uv=False) ** 2
    shares = variances / variances.sum()
    assert participation_ratio(activity) == pytest.approx(1 / (shares**2).sum(), rel=1e-12)


def test_the_participation_ratio_counts_directions():
    line = np.outer(np.random.default_rng(0).normal(size=200), np.random.default_rng(1).normal(size=30)) + 3
    assert participation_ratio(line) == pytest.approx(1)
    assert participation_ratio(line[:, :1]) == pytest.approx(1)
    plus_and_minus = np.concatenate([np.eye(12), -np.eye(12)])
    assert participation_ratio(plus_and_minus) == pytest.approx(12)
    assert participation_ratio(plus_and_minus * 1e-3 + 7) == pytest.approx(12)
    assert math.isnan(participation_ratio(np.ones((10, 3))))


def test_states_that_do_not_vary_have_no_participation_ratio():
    assert np.isnan(participation_ratio(np.ones((5, 3))))
