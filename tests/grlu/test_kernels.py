"""The parts of the kernels: random numbers against known answers and distributions, and the functions of a step."""

import math
from collections import Counter

import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from plastic_grlu.kernels import noise
from plastic_grlu.kernels.noise import fill, random_words
from plastic_grlu.kernels.primitives import choose_largest, log_probabilities

# Random numbers


def test_philox_gives_the_published_words():
    # Known answers of Random123 (Salmon et al. 2011) for philox4x32 with 10 rounds.
    pi = [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344]
    cases = [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (pi, [0xA4093822, 0x299F31D0], [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]),
    ]
    for counter, key, words in cases:
        drawn = random_words(np.array([counter], np.uint32), np.array(key, np.uint32))
        assert drawn[0].tolist() == words


def drawn(key, steps, width, first_step=0, sigma=1.0):
    normals, gumbels = np.empty((steps, width), np.float32), np.empty((steps, width), np.float32)
    fill(normals, gumbels, sigma, np.uint64(key), np.uint64(first_step))
    return normals, gumbels


@pytest.fixture(scope="module")
def numbers():
    return drawn(key=2024, steps=1000, width=2000)


def test_normal_numbers_are_normal(numbers):
    normals = numbers[0].astype(np.float64).ravel()
    count = len(normals)
    # Five standard errors of each moment, whose variances are 1, 2, 15 and 96 over the count.
    assert abs(normals.mean()) < 5 / math.sqrt(count)
    assert abs((normals**2).mean() - 1) < 5 * math.sqrt(2 / count)
    assert abs((normals**3).mean()) < 5 * math.sqrt(15 / count)
    assert abs((normals**4).mean() - 3) < 5 * math.sqrt(96 / count)
    assert scipy.stats.kstest(normals, "norm").pvalue > 1e-4
    for bound in (3, 4, 4.5):
        for tail in (normals > bound, normals < -bound):
            expected = count * scipy.stats.norm.sf(bound)
            assert abs(tail.sum() - expected) < 5 * math.sqrt(expected) + 1
    assert np.abs(normals).max() > 4.8


def test_gumbel_numbers_are_gumbel(numbers):
    gumbels = numbers[1].astype(np.float64).ravel()
    assert scipy.stats.kstest(gumbels, "gumbel_r").pvalue > 1e-4
    assert abs(gumbels.mean() - np.euler_gamma) < 5 * math.pi / math.sqrt(6 * len(gumbels))


def test_random_numbers_are_independent(numbers):
    normals, gumbels = numbers
    normals = normals.astype(np.float64)
    gumbels = (gumbels - gumbels.mean()) / gumbels.std()
    quarter = normals.shape[1] // 4
    other_key = drawn(key=2025, steps=1000, width=2000)[0]
    distant_key = drawn(key=2024 + 2**32, steps=1000, width=2000)[0]
    pairs = {
        "neighbors": (normals[:, :-1], normals[:, 1:]),
        "the two of one Box-Muller": (normals[:, :quarter], normals[:, quarter : 2 * quarter]),
        "one Philox call": (normals[:, :quarter], normals[:, 2 * quarter : 3 * quarter]),
        "steps": (normals[:-1], normals[1:]),
        "keys": (normals, other_key),
        "keys that differ in the high word": (normals, distant_key),
        "kinds": (normals, gumbels),
    }
    for name, (a, b) in pairs.items():
        for transform in (lambda v: v, lambda v: (v**2 - (v**2).mean()) / (v**2).std()):
            correlation = (transform(a) * transform(b)).mean()
            assert abs(correlation) < 5 / math.sqrt(a.size), name


def test_no_words_repeat():
    # A thousand steps of two keys: no block of four words occurs twice.
    counters = np.zeros((50_000, 4), np.uint32)
    counters[:, 0] = np.arange(50_000) % 50
    counters[:, 2] = np.arange(50_000) // 50
    blocks = Counter()
    for key in (1, 2):
        words = random_words(counters, np.array([key, 0], np.uint32))
        blocks.update(map(tuple, words.tolist()))
    assert max(blocks.values()) == 1


def test_random_numbers_are_a_function_of_the_step(numbers):
    later = drawn(key=2024, steps=3, width=2000, first_step=500)
    assert np.array_equal(later[0], numbers[0][500:503])
    assert np.array_equal(later[1], numbers[1][500:503])
    scaled = drawn(key=2024, steps=2, width=2000, sigma=0.25)[0]
    np.testing.assert_allclose(scaled, 0.25 * numbers[0][:2], rtol=1e-5)
    beyond = drawn(key=2024, steps=2, width=2000, first_step=2**32 - 1)[0]
    assert not np.array_equal(beyond[1], numbers[0][0])  # step 2^32 is not step 0


def test_extreme_words_give_finite_numbers():
    words = np.array([0, 1, 2**31, 2**32 - 129, 2**32 - 1], np.uint32)
    expected = -np.log((words.astype(np.float64) + 0.5) / 2**32)
    exponentials = np.array([noise._exponential(word) for word in words])
    np.testing.assert_allclose(exponentials, expected, rtol=1e-6, atol=1e-7)
    gumbels = np.array([noise._gumbel(word) for word in words])
    assert np.isfinite(gumbels).all()
    np.testing.assert_allclose(gumbels[:3], -np.log(expected[:3]), rtol=1e-5)
    for angle in words:
        pair = np.array(noise._box_muller(np.uint32(0), angle, np.float32(2)))
        assert np.hypot(*pair) == pytest.approx(math.sqrt(2 * expected[0]), rel=1e-6)


# Parts of the kernels


@settings(max_examples=200, deadline=None)
@given(
    keys=st.lists(
        st.one_of(st.floats(-50, 50, width=32), st.sampled_from([0.0, -0.0, 1.0, 1e-38, -3e38, 3e38])),
        min_size=1,
        max_size=70,
    ),
    data=st.data(),
)
def test_choose_largest_keeps_exactly_the_largest(keys, data):
    kept = data.draw(st.integers(1, len(keys)))
    values = np.array([*keys, 99.0], np.float32)  # the last entry is beyond the width
    mask = np.full(len(values), 7.0)
    choose_largest(values, len(keys), kept, mask)
    chosen = mask[:-1] == 1
    assert mask[-1] == 7
    assert chosen.sum() == kept
    assert set(mask[:-1]) <= {0, 1}
    np.testing.assert_array_equal(np.sort(values[:-1][chosen]), np.sort(values[:-1])[len(keys) - kept :])


def test_log_probabilities_equal_scipy():
    logits = np.random.default_rng(0).normal(scale=20, size=(6, 11))
    logits[0, 0] = 2000
    labels = np.array([3, 0], np.int64)
    result = np.empty(6)
    log_probabilities(logits, labels, result)
    expected = scipy.special.log_softmax(logits, axis=1)[np.arange(6), np.tile(labels, 3)]
    np.testing.assert_allclose(result, expected, rtol=1e-13)
