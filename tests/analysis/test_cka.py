import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plastic_cli.analysis.cka import cka_matrix


def linear_cka(x, y, debiased=False):
    return cka_matrix([x], [y], debiased).item()


def random_features(seed, n, p):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, p)))


def cka_by_definition(x, y, hsic):
    k, l = x @ x.T, y @ y.T  # noqa: E741
    return hsic(k, l) / np.sqrt(hsic(k, k) * hsic(l, l))


def biased_hsic(k, l):  # noqa: E741
    n = len(k)
    centring = np.eye(n) - np.ones((n, n)) / n
    return np.trace(k @ centring @ l @ centring)


def unbiased_hsic(k, l):  # noqa: E741
    """Song et al. 2012, equation 5, in loops."""
    n = len(k)
    k, l = k.copy(), l.copy()  # noqa: E741
    for i in range(n):
        k[i, i] = l[i, i] = 0
    trace = sum(k[i, j] * l[j, i] for i in range(n) for j in range(n))
    sums = sum(k[i, j] for i in range(n) for j in range(n)) * sum(l[i, j] for i in range(n) for j in range(n))
    chain = sum(k[i, j] * l[j, m] for i in range(n) for j in range(n) for m in range(n))
    return (trace + sums / ((n - 1) * (n - 2)) - 2 / (n - 2) * chain) / (n * (n - 3))


@pytest.mark.parametrize(("debiased", "hsic"), [(False, biased_hsic), (True, unbiased_hsic)])
@pytest.mark.parametrize("shape", [(12, 3, 5), (12, 40, 30), (6, 2, 50), (4, 3, 3)])
def test_equals_its_definition_with_kernels(debiased, hsic, shape):
    n, p1, p2 = shape
    x, y = random_features(0, n, p1) + 3, random_features(1, n, p2) * 5
    expected = cka_by_definition(x.numpy(), y.numpy(), hsic)
    assert linear_cka(x, y, debiased) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(5, 30), st.integers(1, 20), st.integers(1, 20), st.booleans())
def test_invariant_under_rotation_scale_and_shift(seed, n, p1, p2, debiased):
    x, y = random_features(seed, n, p1), random_features(seed + 1, n, p2)
    rotation = torch.linalg.qr(random_features(seed + 2, p1, p1))[0]
    moved = 37.5 * x @ rotation + random_features(seed + 3, 1, p1)
    assert linear_cka(moved, y, debiased) == pytest.approx(linear_cka(x, y, debiased), abs=1e-9)
    assert linear_cka(x, y, debiased) == pytest.approx(linear_cka(y, x, debiased), abs=1e-12)
    assert linear_cka(moved, x, debiased) == pytest.approx(1, abs=1e-9)


def test_not_invariant_under_general_linear_maps():
    x = random_features(0, 50, 4)
    assert linear_cka(x, x * torch.tensor([10.0, 1, 1, 1])) < 0.9


def test_only_debiased_cka_is_near_zero_for_unrelated_features_of_few_examples():
    pairs = [(random_features(2 * seed, 20, 100), random_features(2 * seed + 1, 20, 100)) for seed in range(50)]
    assert np.mean([linear_cka(x, y) for x, y in pairs]) > 0.7
    debiased = [linear_cka(x, y, debiased=True) for x, y in pairs]
    assert abs(np.mean(debiased)) < 3 * np.std(debiased) / np.sqrt(len(debiased))
    assert np.std(debiased) < 0.2


def test_plain_cka_is_between_zero_and_one():
    values = cka_matrix([random_features(0, 30, 5)], [random_features(seed, 30, 7) for seed in range(1, 20)])
    assert ((values >= 0) & (values <= 1)).all()


@pytest.mark.parametrize("debiased", [False, True])
def test_constant_features_have_no_similarity(debiased):
    constant = torch.full((10, 3), 0.1)
    assert np.isnan(linear_cka(constant, random_features(0, 10, 4), debiased))
    assert np.isnan(linear_cka(random_features(0, 10, 4), constant, debiased))


def test_the_matrix_has_every_pair_and_accumulates_in_float64():
    left = [random_features(seed, 15, 4).float() for seed in range(2)]
    right = [random_features(seed, 15, 6).float() * 1e-30 for seed in range(3)]
    matrix = cka_matrix(left, right)
    assert matrix.dtype == torch.float64
    assert matrix.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            assert matrix[i, j].item() == linear_cka(left[i], right[j])
            assert 0 < matrix[i, j] < 1


def test_flattens_feature_maps():
    maps = random_features(0, 9, 12)
    assert linear_cka(maps.view(9, 3, 2, 2), maps) == pytest.approx(1)


def test_different_or_too_few_examples_are_refused():
    with pytest.raises(ValueError, match="same examples"):
        linear_cka(random_features(0, 5, 2), random_features(0, 6, 2))
    with pytest.raises(ValueError, match="at least 4"):
        linear_cka(random_features(0, 3, 2), random_features(1, 3, 2), debiased=True)
