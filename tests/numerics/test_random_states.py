"""The states of the global random numbers: read, compared and restored."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from plastic_cli.numerics.random_states import RandomStates

DRAWS = {
    "torch": lambda: torch.rand(()).item(),
    "numpy": lambda: float(np.random.rand()),  # noqa: NPY002
    "python": random.random,
}


@pytest.mark.parametrize("source", DRAWS)
def test_a_number_drawn_changes_the_state_and_is_drawn_again_after_restoring(source):
    draw = DRAWS[source]
    before = RandomStates.now()
    assert before.same(RandomStates.now())
    first = draw()
    assert not before.same(RandomStates.now())
    before.restore()
    assert before.same(RandomStates.now())
    assert draw() == first


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_numbers_of_a_gpu_are_restored_too():
    torch.cuda.init()
    before = RandomStates.now()
    first = torch.rand((), device="cuda").item()
    assert not before.same(RandomStates.now())
    before.restore()
    assert torch.rand((), device="cuda").item() == first
