"""ReplayBuffer: the replay buffer of a program of the user's own."""

from __future__ import annotations

import io

import pytest
import torch

from plastic_cli.errors import PlasticError, UserError
from plastic_selective import MemoryBuffer, ReplayBuffer
from plastic_selective.continual.replay import make_buffer


def numbered(first, count, shape=(1, 2, 2), dtype=torch.float32):
    """Images of which every pixel is their number, and targets that follow from it."""
    number = torch.arange(first, first + count)
    return number.to(dtype).view(-1, *[1] * len(shape)).expand(-1, *shape), number % 3


def stored(memory):
    """The numbers in a buffer, after checking that each still has its own target."""
    data, target = memory.sample(len(memory))
    number = data.flatten(1)[:, 0].long()
    assert torch.equal(data.flatten(1), data.flatten(1)[:, :1].expand(-1, data[0].numel()))
    assert torch.equal(number % 3, target)
    return sorted(number.tolist())


def test_the_published_loop_runs_as_documented():
    memory = ReplayBuffer(capacity=20)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    sizes = []
    for first in range(0, 60, 10):
        data, target = numbered(first, 10)
        if len(memory) > 0:
            replay_data, replay_target = memory.sample(8)
            data, target = torch.cat([data, replay_data]), torch.cat([target, replay_target])
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(data), target).backward()
        optimizer.step()
        memory.add(data, target)
        sizes.append((len(data), len(memory)))
    assert sizes == [(10, 10), (18, 20), (18, 20), (18, 20), (18, 20), (18, 20)]


@pytest.mark.parametrize(("shape", "dtype"), [((1, 2, 2), torch.float64), ((4,), torch.float32), ((), torch.float16)])
def test_images_come_back_in_their_shape_and_type(shape, dtype):
    memory = ReplayBuffer(5)
    data, target = numbered(0, 3, shape, dtype)
    memory.add(data, target)
    drawn, targets = memory.sample(10)
    assert (drawn.shape, drawn.dtype, targets.dtype) == ((3, *shape), dtype, torch.int64)
    assert sorted(drawn.reshape(3, -1).mean(1).tolist()) == [0, 1, 2]


@pytest.mark.parametrize("kind", ["reservoir", "fifo"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.uint8, torch.bool, torch.float16, torch.bfloat16])
def test_every_value_comes_back_as_it_was(kind, dtype):
    random = torch.Generator().manual_seed(3)
    wide = torch.randint(0, 2**62, (6, 3), generator=random)
    data = wide if dtype == torch.int64 else torch.rand(6, 3, generator=random, dtype=torch.float64).mul(255).to(dtype)
    memory, restored = ReplayBuffer(6, kind), ReplayBuffer(6, kind)
    memory.add(data, torch.arange(6))
    restored.load_state_dict(memory.state_dict())
    for buffer in (memory, restored):
        drawn, target = buffer.sample(6)
        assert torch.equal(drawn[target.argsort()], data)


def test_a_reservoir_is_that_of_the_command():
    memory = ReplayBuffer(7, seed=4)
    own = make_buffer("reservoir", 7, 4, 1, torch.Generator().manual_seed(4))
    for first in range(0, 50, 10):
        data, target = numbered(first, 10)
        memory.add(data, target)
        own.add(data.flatten(1), target, torch.zeros_like(target))
        drawn, expected = memory.sample(3), own.sample(3)
        assert torch.equal(drawn[0].flatten(1), expected.x)
        assert torch.equal(drawn[1], expected.y)
    assert len(stored(memory)) == 7


def test_the_other_kinds():
    fifo = ReplayBuffer(6, "fifo")
    balanced = ReplayBuffer(6, "class-balanced", classes=3)
    for first in range(0, 40, 8):
        for memory in (fifo, balanced):
            memory.add_batch(*numbered(first, 8))
    assert stored(fifo) == list(range(34, 40))
    assert sorted(number % 3 for number in stored(balanced)) == [0, 0, 1, 1, 2, 2]
    assert MemoryBuffer is ReplayBuffer


def test_nothing_of_the_graph_is_kept():
    memory = ReplayBuffer(4)
    data, target = numbered(0, 2)
    memory.add(data.clone().requires_grad_() * 2, target)
    assert not memory.sample(2)[0].requires_grad


def test_a_stored_buffer_goes_on_as_the_original():
    one = ReplayBuffer(5, seed=1)
    one.add(*numbered(0, 30))
    file = io.BytesIO()
    torch.save(one.state_dict(), file)
    file.seek(0)
    other = ReplayBuffer(5, seed=2)
    other.load_state_dict(torch.load(file, weights_only=True))
    for memory in (one, other):
        memory.add(*numbered(30, 20))
    assert stored(one) == stored(other)
    empty = ReplayBuffer(5)
    empty.load_state_dict(ReplayBuffer(5).state_dict())
    assert len(empty) == 0
    with pytest.raises(PlasticError, match="the state does not fit a buffer"):
        ReplayBuffer(6).load_state_dict(one.state_dict())


def test_wrong_use_is_an_error_of_one_line():
    for arguments, complaint in (
        ({"capacity": 0}, "the capacity of the buffer is 0"),
        ({"capacity": 5, "kind": "lifo"}, "unknown buffer 'lifo'. Did you mean 'fifo'"),
        ({"capacity": 5, "kind": "none"}, "choose reservoir or fifo"),
        ({"capacity": 5, "kind": "class-balanced"}, "class-balanced with the number of classes"),
        ({"capacity": 5, "classes": 3}, "class-balanced with the number of classes"),
        ({"capacity": 2, "kind": "class-balanced", "classes": 3}, "too small for 3 groups"),
    ):
        with pytest.raises(UserError) as raised:
            ReplayBuffer(**arguments)
        assert complaint in str(raised.value)
    memory = ReplayBuffer(5)
    with pytest.raises(UserError, match="the replay buffer is empty"):
        memory.sample(2)
    memory.add(*numbered(0, 4))
    assert [len(part) for part in memory.sample(0)] == [0, 0]
    with pytest.raises(UserError, match="do not fit"):
        memory.add(*numbered(0, 4, (4,)))
