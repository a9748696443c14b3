"""overlap.py: the busiest synapses, and the share that two tasks have in common."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plastic_selective.analysis.overlap import (
    busiest,
    carried_over,
    chance_among_active,
    shared_share,
)

eligibilities = st.lists(st.integers(0, 4), min_size=4, max_size=6).map(lambda v: torch.tensor(v, dtype=torch.float16))


@given(eligibilities)
def test_the_busiest_quarter_is_the_mean_over_all_ways_to_break_ties(values):
    wanted = len(values) / 4
    whole = int(wanted)
    expected = np.zeros(len(values))
    orders = [
        order
        for order in itertools.permutations(range(len(values)))
        if all(values[a] >= values[b] for a, b in itertools.pairwise(order))
    ]
    for order in orders:
        expected[list(order[:whole])] += 1
        expected[order[whole]] += wanted - whole
    np.testing.assert_allclose(busiest(values), expected / len(orders), atol=1e-12)


def test_without_ties_the_busiest_quarter_is_that_of_a_sort():
    values = torch.from_numpy(np.random.default_rng(0).permutation(240).reshape(12, 20).astype(np.float32))
    marks = busiest(values).numpy()
    assert set(np.unique(marks)) == {0.0, 1.0}
    np.testing.assert_array_equal(np.flatnonzero(marks), np.sort(np.argsort(-values.numpy().ravel())[:60]))


def test_shared_share_of_the_same_of_others_and_of_chance():
    generator = torch.Generator().manual_seed(0)
    first, second = torch.rand(200, 300, generator=generator), torch.rand(200, 300, generator=generator)
    assert shared_share(first, first) == pytest.approx(1)
    assert shared_share(first, -first) == 0
    assert shared_share(first, second) == pytest.approx(0.25, abs=4 * np.sqrt(0.75 / 60000))
    assert shared_share(first, second) == shared_share(second, first)
    assert shared_share(first**3, second) == shared_share(first, second), "only the order counts"
    # All values are tied, so all probabilities are equal.
    assert shared_share(torch.zeros(8), torch.zeros(8)) == pytest.approx(0.25)


def test_chance_among_active_synapses():
    active = torch.ones(100)
    half, other_half, few = active.clone(), active.clone(), torch.zeros(100)
    half[50:], other_half[:50], few[:10] = 0, 0, 1
    assert chance_among_active(active, active) == pytest.approx(0.25)
    assert chance_among_active(half, half) == pytest.approx(0.5)
    assert chance_among_active(half, active) == pytest.approx(0.25)
    assert chance_among_active(half, other_half) == 0
    # 10 are certain, 15 are drawn from the 90 that are silent: (10 + 90 (15 / 90)^2) / 25.
    assert chance_among_active(few, few) == pytest.approx((10 + 90 * (15 / 90) ** 2) / 25)


@given(
    st.lists(st.integers(1, 30), min_size=2, max_size=5),
    st.floats(0.0, 0.999),
    st.data(),
)
def test_carried_over_is_the_share_that_a_running_mean_keeps(steps, decay, data):
    earlier = data.draw(st.integers(1, len(steps) - 1))
    later = data.draw(st.integers(earlier + 1, len(steps)))
    before, everything = 0.0, 0.0
    for step in range(sum(steps[:later])):
        gradient = 1.0 if step < sum(steps[:earlier]) else 0.0
        before = decay * before + (1 - decay) * gradient
        everything = decay * everything + (1 - decay)
    assert carried_over(decay, steps, earlier, later) == pytest.approx(before / everything, abs=1e-9)
