"""The replay buffer, filled with numbers that identify their step and environment."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plastic_cli.errors import PlasticError
from plastic_mpn.learning.replay import Replay

ENVIRONMENT = 1000
"""The offset of the written numbers between environments."""


def numbered(step, count):
    """The number of a step in every environment."""
    return np.arange(count) * ENVIRONMENT + step


def write_steps(replay, first, end, state_shape=(2, 3)):
    """Write the steps first ... end - 1, with values that identify the step and the environment."""
    for step in range(first, end):
        number = numbered(step, replay.count)
        cells = np.arange(np.prod(state_shape)).reshape(state_shape) / 100
        replay.write(observations=np.stack([number, -number], axis=1), starts=number % 5 == 0)
        replay.write(states=number.reshape(-1, *[1] * len(state_shape)) + cells)
        replay.write(
            actions=number % 7,
            rewards=number / 8,
            next_observations=np.stack([number + 1, -number - 1], axis=1),
            terminated=number % 5 == 4,
            truncated=number % 3 == 0,
        )
        replay.advance()


def filled(capacity, count, steps, state_shape=(2, 3)):
    replay = Replay(capacity, count, 2, state_shape)
    write_steps(replay, 0, steps, state_shape)
    return replay


def flat(replay, name):
    return getattr(replay, name).flatten(0, 1)


sizes = {"slots": st.integers(1, 9), "count": st.integers(1, 4), "steps": st.integers(0, 30)}


# --------------------------------------------------------------------------------------------------------------- ring


@settings(max_examples=60, deadline=None)
@given(**sizes)
def test_only_the_last_steps_are_stored(slots, count, steps):
    replay = filled(slots * count, count, steps)
    kept = range(max(0, steps - slots), steps)
    assert len(replay) == len(kept) * count
    wanted = sorted(int(number) for step in kept for number in numbered(step, count))
    assert sorted(flat(replay, "observations")[: len(replay), 0].int().tolist()) == wanted
    for row in range(len(replay)):
        number = int(flat(replay, "observations")[row, 0])
        assert flat(replay, "observations")[row].tolist() == [number, -number]
        assert flat(replay, "next_observations")[row].tolist() == [number + 1, -number - 1]
        assert int(flat(replay, "actions")[row]) == number % 7
        assert float(flat(replay, "rewards")[row]) == number / 8
        assert bool(flat(replay, "starts")[row]) == (number % 5 == 0)
        assert bool(flat(replay, "terminated")[row]) == (number % 5 == 4)
        assert bool(flat(replay, "truncated")[row]) == (number % 3 == 0)
        torch.testing.assert_close(
            flat(replay, "states")[row], number + torch.arange(6).reshape(2, 3) / 100, rtol=0, atol=1e-3
        )


@pytest.mark.parametrize(("capacity", "count", "slots"), [(10, 1, 10), (10, 3, 3), (10, 5, 2), (2, 5, 1)])
def test_a_slot_holds_a_step_of_every_environment(capacity, count, slots):
    replay = Replay(capacity, count, 2, (4, 3))
    assert replay.slots == slots
    assert replay.states.shape == (slots, count, 4, 3)
    assert len(replay) == 0


@pytest.mark.parametrize("shape", [(4, 3), (5,), (2, 5), (0,)])
def test_states_of_every_shape_are_returned_unchanged(shape):
    replay = Replay(6, 2, 2, shape)
    states = np.random.default_rng(0).normal(size=(6, 2, *shape)).astype(np.float32)
    for step in range(5):
        replay.write(states=states[step])
        replay.advance()
    assert replay.states.shape == (3, 2, *shape)
    # Steps 3 and 4 have taken the places of 0 and 1.
    np.testing.assert_array_equal(replay.states.numpy(), states[[3, 4, 2]])


def test_modulations_have_the_memory_layout_of_the_kernels():
    replay = Replay(6, 2, 2, (4, 3))
    assert replay.states.transpose(2, 3).is_contiguous()


# ------------------------------------------------------------------------------------------------------------- samples


def test_samples_are_uniform_over_the_stored_transitions():
    replay = filled(20, 2, 4)
    chosen = replay.sample(8000, np.random.default_rng(0))
    frequencies = np.bincount(chosen, minlength=20) / 8000
    assert not frequencies[8:].any()
    np.testing.assert_allclose(frequencies[:8], 1 / 8, atol=4 * np.sqrt(1 / 8 * 7 / 8 / 8000))
    full = filled(20, 2, 14)
    assert set(full.sample(2000, np.random.default_rng(0))) == set(range(20))


def test_the_same_generator_gives_the_same_samples():
    replay = filled(20, 2, 30)
    one, other = (replay.sample(50, np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(one, other)
    first, second = (replay.sequences(50, 3, np.random.default_rng(4)) for _ in range(2))
    assert torch.equal(first.observations, second.observations)


@settings(max_examples=80, deadline=None)
@given(slots=st.integers(2, 9), count=st.integers(1, 4), steps=st.integers(1, 40), seed=st.integers(0, 1000))
def test_sequences_are_consecutive_steps_of_one_environment(slots, count, steps, seed):
    replay = filled(slots * count, count, steps)
    there = min(steps, slots)
    length = 1 + seed % there
    seen = replay.sequences(16, length, np.random.default_rng(seed))
    first = seen.observations[0, :, 0].int()
    # Nothing older than the ring holds and nothing that is still to come, in whichever slot it lies.
    step = first % ENVIRONMENT
    assert int(step.min()) >= steps - there
    assert int(step.max()) + length <= steps
    assert int((first // ENVIRONMENT).max()) < count
    number = first + torch.arange(length)[:, None]
    assert torch.equal(seen.observations, torch.stack([number, -number], dim=2).float())
    assert torch.equal(seen.actions, (number % 7).long())
    assert torch.equal(seen.rewards, number / 8)
    assert torch.equal(seen.starts, number % 5 == 0)
    assert torch.equal(seen.terminated, number % 5 == 4)
    assert torch.equal(seen.truncated, number % 3 == 0)
    cells = torch.arange(6).reshape(2, 3) / 100
    torch.testing.assert_close(seen.state, first[:, None, None] + cells, rtol=0, atol=1e-3)


@pytest.mark.parametrize("steps", [6, 8, 11, 16])
def test_every_stored_sequence_can_be_drawn(steps):
    replay = filled(16, 2, steps)
    there = min(steps, 8)
    seen = replay.sequences(2000, 5, np.random.default_rng(0))
    first = seen.observations[0, :, 0].int()
    wanted = {environment * ENVIRONMENT + step for environment in range(2) for step in range(steps - there, steps - 4)}
    assert set(first.tolist()) == wanted
    frequencies = torch.tensor([int((first == number).sum()) for number in wanted]) / 2000
    share = 1 / len(wanted)
    assert float((frequencies - share).abs().max()) < 4.5 * np.sqrt(share * (1 - share) / 2000)


@pytest.mark.parametrize("steps", [0, 3])
def test_too_few_steps_for_a_sequence_are_refused(steps):
    with pytest.raises(PlasticError, match=f"the buffer holds {steps} steps of each environment"):
        filled(16, 2, steps).sequences(1, 4, np.random.default_rng(0))


def test_sequences_go_to_a_device_with_all_their_parts():
    seen = filled(16, 2, 8).sequences(3, 4, np.random.default_rng(0))
    moved = seen.to(torch.device("cpu"))
    for name in ("observations", "actions", "rewards", "terminated", "truncated", "starts", "state"):
        assert torch.equal(getattr(moved, name), getattr(seen, name))


def test_sequences_are_copies():
    replay = filled(16, 2, 8)
    seen = replay.sequences(3, 4, np.random.default_rng(0))
    state, observations = seen.state.clone(), seen.observations.clone()
    replay.states.zero_()
    replay.observations.zero_()
    assert torch.equal(seen.state, state)
    assert torch.equal(seen.observations, observations)


# -------------------------------------------------------------------------------------------------------------- resume


@settings(max_examples=30, deadline=None)
@given(**sizes)
def test_a_buffer_resumes_from_its_state(slots, count, steps):
    replay = filled(slots * count, count, steps)
    file = io.BytesIO()
    torch.save(replay.state_dict(), file)
    file.seek(0)
    taken_up = Replay(slots * count, count, 2, (2, 3))
    taken_up.load_state_dict(torch.load(file, weights_only=True))
    for each in (replay, taken_up):
        write_steps(each, steps, steps + slots // 2 + 1)
    assert (taken_up.position, taken_up.filled, len(taken_up)) == (replay.position, replay.filled, len(replay))
    for name in ("observations", "next_observations", "states", "actions", "rewards", "terminated", "starts"):
        assert torch.equal(getattr(taken_up, name), getattr(replay, name)), name
    assert torch.equal(taken_up.truncated, replay.truncated)


def test_a_state_is_a_copy_and_holds_no_more_than_was_written():
    replay = filled(1000, 2, 5)
    state = replay.state_dict()
    assert state["states"].shape == (5, 2, 2, 3)
    kept = state["observations"].clone()
    write_steps(replay, 900, 1405)
    assert torch.equal(state["observations"], kept)
