import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plastic_cli.analysis.angles import angle_degrees, signal_to_noise


@pytest.mark.parametrize(
    ("a", "b", "degrees"),
    [
        ([1, 0], [1, 0], 0),
        ([1, 0], [1, 1], 45),
        ([1, 0], [0, 3], 90),
        ([1, 0], [-2, 2], 135),
        ([1, 2], [-1, -2], 180),
        ([1, 0], [1, math.sqrt(3)], 60),
    ],
)
def test_known_angles(a, b, degrees):
    assert angle_degrees(*torch.tensor([a, b], dtype=torch.float64)) == pytest.approx(degrees, abs=1e-12)


@given(st.floats(1e-12, math.pi), st.floats(1e-150, 1e150), st.floats(1e-150, 1e150))
def test_exact_for_small_and_large_angles_and_any_length(radians, first, second):
    a = torch.tensor([first, 0.0], dtype=torch.float64)
    b = torch.tensor([math.cos(radians) * second, math.sin(radians) * second], dtype=torch.float64)
    assert angle_degrees(a, b) == pytest.approx(math.degrees(radians), rel=1e-9)
    assert angle_degrees(b, a) == pytest.approx(math.degrees(radians), rel=1e-9)


def test_a_tiny_angle_is_not_lost_in_rounding():
    a = torch.tensor([1.0, 0.0], dtype=torch.float64)
    b = torch.tensor([1.0, 1e-10], dtype=torch.float64)
    assert math.degrees(math.acos(min(1.0, float(a @ b / b.norm())))) == 0
    assert angle_degrees(a, b) == pytest.approx(math.degrees(1e-10), rel=1e-12)


def test_a_zero_vector_has_no_angle():
    assert math.isnan(angle_degrees(torch.zeros(3), torch.ones(3)))
    assert math.isnan(angle_degrees(torch.ones(3), torch.zeros(3)))


def test_float32_matrices_are_flattened():
    generator = np.random.default_rng(0)
    a, b = (generator.normal(size=(20, 30)).astype(np.float32) for _ in range(2))
    flat = [matrix.astype(np.float64).ravel() for matrix in (a, b)]
    cosine = flat[0] @ flat[1] / np.linalg.norm(flat[0]) / np.linalg.norm(flat[1])
    expected = math.degrees(math.acos(cosine))
    assert angle_degrees(torch.from_numpy(a), torch.from_numpy(b)) == pytest.approx(expected, rel=1e-9)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="one shape"):
        angle_degrees(torch.ones(2, 3), torch.ones(3, 2))


def test_signal_to_noise_by_definition():
    samples = np.random.default_rng(0).normal(size=(8, 3, 2)) * 0.3 + 1
    n, flat = len(samples), samples.reshape(8, 6)
    mean = [sum(flat[i][j] for i in range(n)) / n for j in range(6)]
    variance = sum(sum((flat[i][j] - mean[j]) ** 2 for i in range(n)) / (n - 1) for j in range(6))
    expected = (sum(value**2 for value in mean) - variance / n) / variance
    assert signal_to_noise(torch.from_numpy(samples)) == pytest.approx(expected, rel=1e-12)
    assert signal_to_noise(sample for sample in torch.from_numpy(samples)) == pytest.approx(expected, rel=1e-12)


def test_signal_to_noise_estimates_the_true_ratio_from_few_samples():
    generator = np.random.default_rng(1)
    units, noise = 50, 2.0
    mean = np.full(units, 1.5)
    truth = (mean @ mean) / (units * noise**2)
    estimates = [
        signal_to_noise(torch.from_numpy(mean + noise * generator.normal(size=(5, units)))) for _ in range(400)
    ]
    # |m|^2 without its correction would be higher by 1/5.
    assert np.mean(estimates) == pytest.approx(truth, abs=0.03)


def test_signal_to_noise_does_not_depend_on_scale_and_is_never_negative():
    samples = torch.from_numpy(np.random.default_rng(2).normal(size=(4, 100)))
    assert signal_to_noise(samples + 1) == pytest.approx(signal_to_noise(1e-20 * (samples + 1)), rel=1e-9)
    assert signal_to_noise(samples - samples.mean(dim=0)) == 0


def test_signal_to_noise_limits():
    assert signal_to_noise(torch.ones(3, 2)) == math.inf
    assert math.isnan(signal_to_noise(torch.zeros(3, 2)))
    for samples in ([], torch.ones(1, 4)):
        with pytest.raises(ValueError, match="at least 2"):
            signal_to_noise(samples)


def test_small_noise_on_a_large_mean_is_not_lost_in_rounding():
    noise = torch.from_numpy(np.random.default_rng(3).normal(size=(20, 10)))
    variance = noise.var(dim=0).sum().item()
    samples = 1e7 + noise
    assert signal_to_noise(samples) == pytest.approx(10 * 1e14 / variance, rel=1e-4)
