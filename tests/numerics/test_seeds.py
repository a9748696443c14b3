"""Random streams: equal for equal seeds and purposes, independent otherwise."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from plastic_cli.numerics.seeds import derived_seed, seed_sequence, torch_generator

SEEDS = st.integers(0, 2**63 - 1)
PURPOSES = st.text(max_size=20)


@given(SEEDS, PURPOSES)
def test_the_same_seed_and_purpose_give_the_same_stream(seed, purpose):
    assert derived_seed(seed, purpose) == derived_seed(seed, purpose)
    one, two = (torch.rand(5, generator=torch_generator(seed, purpose)) for _ in range(2))
    assert torch.equal(one, two)
    states = [seed_sequence(seed, purpose).generate_state(4).tolist() for _ in range(2)]
    assert states[0] == states[1]


@given(SEEDS, PURPOSES)
def test_derived_seeds_fit_into_an_integer(seed, purpose):
    assert 0 <= derived_seed(seed, purpose) < 2**63


def test_streams_differ_between_seeds_and_purposes():
    seeds, purposes = range(200), ("noise", "order", "weights", "eval", "")
    derived = {derived_seed(seed, purpose) for seed, purpose in itertools.product(seeds, purposes)}
    assert len(derived) == 1000


def test_neighbouring_seeds_and_purposes_are_uncorrelated():
    streams = [torch_generator(seed, purpose) for seed in range(6) for purpose in ("noise", "order")]
    draws = torch.stack([torch.randn(20_000, generator=stream, dtype=torch.float64) for stream in streams])
    correlation = torch.corrcoef(draws) - torch.eye(len(streams))
    # 66 pairs; a standard deviation is 1/sqrt(20000) = .007.
    assert correlation.abs().max() < 5 / 20_000**0.5


def test_the_global_random_states_have_no_influence():
    expected = derived_seed(1, "noise"), torch.rand(3, generator=torch_generator(1, "noise")).tolist()
    before = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    left = torch.get_rng_state()
    assert (derived_seed(1, "noise"), torch.rand(3, generator=torch_generator(1, "noise")).tolist()) == expected
    assert torch.equal(torch.get_rng_state(), left)
    torch.set_rng_state(before[0])
    np.random.set_state(before[1])  # noqa: NPY002


def test_the_streams_have_fixed_values():
    """A change here would give every stored seed another meaning."""
    assert derived_seed(0, "weights") == 8123138349646949767
    assert derived_seed(1, "noise") == 7676080414298300998
