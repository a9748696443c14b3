"""replay.py, compared with algorithms that add one image at a time. The images contain their own number."""

import io
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from plastic_cli.errors import PlasticError, UserError
from plastic_selective.continual.replay import (
    make_buffer,
    mixed_batch,
    shuffle_first,
    surviving_share,
)

KINDS = ("reservoir", "class-balanced", "fifo")
GROUPS = 3


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def numbered(first, end, groups=GROUPS):
    """Images whose two pixels contain their number; y and group follow from it."""
    number = torch.arange(first, end)
    return torch.stack([number, -number], dim=1).float(), number * 10, group_of(number, groups)


def group_of(number, groups=GROUPS):
    """Uneven groups: number 0 is twice as frequent as the others."""
    return (number % (groups + 1)).clamp(max=groups) % groups


def feed(buffer, sizes, first=0, groups=GROUPS):
    for size in sizes:
        buffer.add(*numbered(first, first + size, groups))
        first += size
    return first


def contents(buffer):
    """The numbers of all images that are in the buffer, after checking that each still has its own y and group."""
    everything = buffer.sample(len(buffer))
    if everything is None:
        return []
    number = everything.x[:, 0].long()
    assert torch.equal(everything.x[:, 1].long(), -number)
    assert torch.equal(everything.y, number * 10)
    return number.tolist()


def p_value_of_inclusion(counts, trials, kept):
    """The p value of the hypothesis that each of len(counts) images is among the `kept` ones equally often.

    The indicators of one trial have variance p (1 - p) and, as they sum to `kept`, covariance -p (1 - p) / (n - 1).
    """
    n, p = len(counts), kept / len(counts)
    statistic = ((counts - trials * p) ** 2).sum() / (trials * p * (1 - p) * n / (n - 1))
    return stats.chi2.sf(statistic, n - 1)


sizes = st.lists(st.integers(0, 25), max_size=8)


# ---------------------------------------------------------------------------------------------------------- reservoir


def algorithm_r(numbers, groups_of_numbers, quota, chances):
    """Vitter's algorithm R within every group, one image at a time: group -> list of numbers."""
    kept, seen = {}, {}
    for number, group, chance in zip(numbers, groups_of_numbers, chances, strict=True):
        held = kept.setdefault(group, [])
        seen[group] = seen.get(group, 0) + 1
        if len(held) < quota:
            held.append(number)
        else:
            place = int(chance * seen[group])
            if place < quota:
                held[place] = number
    return kept


@settings(max_examples=60, deadline=None)
@given(sizes=sizes, capacity=st.integers(GROUPS, 20), kind=st.sampled_from(["reservoir", "class-balanced"]))
def test_a_reservoir_keeps_what_algorithm_r_keeps(sizes, capacity, kind):
    buffer = make_buffer(kind, capacity, 2, GROUPS, generator(5))
    total = feed(buffer, sizes)
    chances_from = generator(5)
    chances = [c for size in sizes for c in torch.rand(size, dtype=torch.float64, generator=chances_from).tolist()]
    numbers = range(total)
    balanced = kind == "class-balanced"
    stratum = group_of(torch.arange(total)).tolist() if balanced else [0] * total
    expected = algorithm_r(numbers, stratum, capacity // GROUPS if balanced else capacity, chances)
    assert sorted(contents(buffer)) == sorted(number for held in expected.values() for number in held)
    counts = np.bincount(group_of(torch.tensor(contents(buffer), dtype=torch.long)), minlength=GROUPS)
    assert buffer.groups().tolist() == counts.tolist()


@pytest.mark.parametrize(("batches", "trials"), [([1] * 60, 400), ([60], 3000), ([7, 13, 1, 0, 39], 2000)])
def test_every_image_of_the_stream_is_kept_equally_often(batches, trials):
    kept = 12
    draws, counts = generator(1), np.zeros(60)
    for _ in range(trials):
        buffer = make_buffer("reservoir", kept, 2, GROUPS, draws)
        feed(buffer, batches)
        counts[contents(buffer)] += 1
    assert 0.001 < p_value_of_inclusion(counts, trials, kept) < 0.999


def test_every_pair_of_images_is_kept_equally_often():
    pairs = dict.fromkeys(itertools.combinations(range(6), 2), 0)
    draws = generator(2)
    for _ in range(6000):
        buffer = make_buffer("reservoir", 2, 2, GROUPS, draws)
        feed(buffer, [4, 2])
        pairs[tuple(sorted(contents(buffer)))] += 1
    assert 0.001 < stats.chisquare(list(pairs.values())).pvalue < 0.999


# ----------------------------------------------------------------------------------------------------- class-balanced


def test_each_group_has_its_quota_even_if_it_is_rare():
    buffer = make_buffer("class-balanced", 32, 1, 3, generator())
    for group, count in ((0, 1000), (1, 4), (2, 500), (0, 1000), (1, 3)):
        buffer.add(torch.zeros(count, 1), torch.zeros(count, dtype=torch.long), torch.full((count,), group))
    assert buffer.capacity == 30
    assert buffer.groups().tolist() == [10, 7, 10]
    assert len(buffer) == 27
    # The empty places of group 1 are never sampled.
    assert sorted(buffer.sample(100).group.tolist()) == [0] * 10 + [1] * 7 + [2] * 10


def test_within_a_group_every_image_is_kept_equally_often():
    trials, draws = 3000, generator(3)
    frequent, rare = torch.arange(0, 40), torch.arange(40, 50)
    mixed = torch.cat([frequent, rare])[torch.randperm(50, generator=generator(4))]
    counts = np.zeros(50)
    for _ in range(trials):
        buffer = make_buffer("class-balanced", 10, 1, 2, draws)
        for part in mixed.split(9):
            buffer.add(part[:, None].float(), part, (part >= 40).long())
        counts[buffer.sample(10).y] += 1
    assert counts[:40].sum() == counts[40:].sum() == 5 * trials
    assert 0.001 < p_value_of_inclusion(counts[:40], trials, 5) < 0.999
    assert 0.001 < p_value_of_inclusion(counts[40:], trials, 5) < 0.999


# ---------------------------------------------------------------------------------------------------------------- fifo


@settings(max_examples=60, deadline=None)
@given(sizes=sizes, capacity=st.integers(1, 20))
def test_first_in_first_out(sizes, capacity):
    buffer = make_buffer("fifo", capacity, 2, GROUPS, generator())
    first = 0
    for size in sizes:
        first = feed(buffer, [size], first)
        assert sorted(contents(buffer)) == list(range(max(0, first - capacity), first))


def expected_share(capacity, new, replayed, steps):
    """The same expectation from groups of images: those replayed at step j are an interval of the queue."""
    shares = [1.0]
    for s in range(1, steps + 1):
        old = max(0.0, capacity - s * (new + replayed))
        for j in range(1, s + 1):
            after = (s - j) * (new + replayed)
            old += shares[j - 1] * max(0, min(replayed, capacity - after))
        shares.append(old / capacity)
    return np.array(shares)


@pytest.mark.parametrize(("capacity", "new", "replayed"), [(2000, 64, 64), (100, 64, 64), (50, 64, 64), (97, 5, 14)])
def test_surviving_share_is_its_recursion(capacity, new, replayed):
    expected = expected_share(capacity, new, replayed, 60)
    np.testing.assert_allclose(surviving_share(capacity, new, replayed, 60), expected, rtol=1e-12, atol=1e-15)


def test_images_of_an_earlier_task_disappear_as_computed_if_the_mixed_batch_is_added():
    """The published loop: a buffer of 2000 images. Each step adds 64 new and 64 replayed images."""
    trials, steps, draws = 150, 60, generator(6)
    x, y = torch.zeros(64, 1), torch.zeros(64, dtype=torch.long)
    shares = np.empty((trials, steps + 1))
    for trial in range(trials):
        buffer = make_buffer("fifo", 2000, 1, 2, draws)
        buffer.add(torch.zeros(2000, 1), torch.zeros(2000, dtype=torch.long), torch.zeros(2000, dtype=torch.long))
        for step in range(steps + 1):
            shares[trial, step] = int(buffer.groups()[0]) / 2000
            buffer.add(*mixed_batch(x, y, torch.ones(64, dtype=torch.long), buffer, 0.5))
    expected = surviving_share(2000, 64, 64, steps)
    for step in (5, 10, 15, 16, 20, 30, 40, 60):
        error = shares[:, step].std(ddof=1) / np.sqrt(trials)
        assert abs(shares[:, step].mean() - expected[step]) <= 4.5 * error
    # The first step always removes 128 old images and adds 64 of them again.
    assert (shares[:, 1] == 1936 / 2000).all()
    assert expected[1] == pytest.approx(1936 / 2000, rel=1e-12)


@pytest.mark.parametrize("p", [0.25, 0.5, 0.8])
def test_the_share_in_the_limit_of_small_batches(p):
    """1/p - (1/p - 1) exp(p t) until the buffer has been filled once more, then exp(-x t) with x = p (exp(x) - 1)."""
    capacity, added = 40_000, 100
    per_turn = capacity // added
    share = surviving_share(capacity, round(added * (1 - p)), round(added * p), 6 * per_turn)
    t = np.arange(per_turn + 1) / per_turn
    np.testing.assert_allclose(share[: per_turn + 1], 1 / p - (1 / p - 1) * np.exp(p * t), atol=3e-3)
    x = np.log(share[5 * per_turn] / share[6 * per_turn])
    assert x == pytest.approx(p * (np.exp(x) - 1), rel=0.01)
    assert x > 0.1


def test_the_published_buffer_loses_the_earlier_task():
    """A third of task A is left after 16 steps, a thirtieth after 50, and less than one image after 109."""
    share = surviving_share(2000, 64, 64, 120)
    assert share[16] == pytest.approx(2 - np.exp(0.5), abs=0.02)
    assert share[50] == pytest.approx(1 / 30, abs=1e-3)
    assert (share * 2000 < 1).argmax() == 109


def test_the_same_loop_with_a_reservoir_keeps_the_earlier_task():
    buffer = make_buffer("reservoir", 200, 1, 2, generator(7))
    x, y = torch.zeros(64, 1), torch.zeros(64, dtype=torch.long)
    for group in (0, 1):
        for _ in range(100):
            mixed_batch(x, y, torch.full((64,), group), buffer, 0.5)
            buffer.add(x, y, torch.full((64,), group))
    # Half of 200, hypergeometric: standard deviation 7.
    assert 65 < int(buffer.groups()[0]) < 135


# ------------------------------------------------------------------------------------------------------------ sampling


@pytest.mark.parametrize("kind", KINDS)
@given(stored=st.integers(0, 30), count=st.integers(0, 40))
@settings(max_examples=40, deadline=None)
def test_a_sample_has_different_images_and_at_most_all(kind, stored, count):
    buffer = make_buffer(kind, 24, 2, GROUPS, generator())
    feed(buffer, [stored])
    sample = buffer.sample(count)
    if min(count, len(buffer)) == 0:
        assert sample is None
        return
    assert len(sample.y) == len(set(sample.y.tolist())) == min(count, len(buffer))
    assert set((sample.y // 10).tolist()) <= set(contents(buffer))
    assert torch.equal(sample.group, group_of(sample.y // 10))


def test_every_ordered_choice_has_the_same_chance():
    """The order of places is reset every time, so that the result cannot depend on an earlier sample."""
    counts = dict.fromkeys(itertools.permutations(range(6), 3), 0)
    assert len(counts) == 120
    for chance in torch.rand(24_000, 3, dtype=torch.float64, generator=generator(8)).numpy():
        numbers = np.arange(8)
        shuffle_first(numbers, 6, chance)
        counts[tuple(numbers[:3].tolist())] += 1
        assert sorted(numbers.tolist()) == list(range(8))
    assert 0.001 < stats.chisquare(list(counts.values())).pvalue < 0.999


def test_samples_after_one_another_are_independent():
    """The first image of a sample is independent of the first image of the next."""
    buffer = make_buffer("fifo", 4, 2, GROUPS, generator(9))
    feed(buffer, [4])
    first = [int(buffer.sample(2).y[0]) // 10 for _ in range(8001)]
    table = np.zeros((4, 4))
    np.add.at(table, (first[:-1], first[1:]), 1)
    assert 0.001 < stats.chi2_contingency(table).pvalue < 0.999


def test_a_sample_is_a_copy():
    buffer = make_buffer("fifo", 4, 2, GROUPS, generator())
    feed(buffer, [4])
    buffer.sample(4).x.zero_()
    assert sorted(contents(buffer)) == [0, 1, 2, 3]


# --------------------------------------------------------------------------------------------------------- mixed batch


@pytest.mark.parametrize(("new", "share", "replayed"), [(64, 0.5, 64), (10, 0.0, 0), (30, 0.25, 10), (10, 0.8, 40)])
def test_a_mixed_batch_has_the_new_images_and_then_its_share_of_old_ones(new, share, replayed):
    buffer = make_buffer("reservoir", 200, 2, GROUPS, generator())
    feed(buffer, [200])
    before = buffer.state_dict()
    mixed = mixed_batch(*numbered(1000, 1000 + new), buffer, share)
    assert len(mixed.x) == len(mixed.y) == len(mixed.group) == new + replayed
    assert (mixed.y // 10)[:new].tolist() == list(range(1000, 1000 + new))
    assert torch.equal(mixed.x[:, 0].long() * 10, mixed.y)
    assert torch.equal(mixed.group, group_of(mixed.y // 10))
    assert set((mixed.y // 10)[new:].tolist()) <= set(range(200))
    assert sorted(before["y"].tolist()) == sorted(buffer.state_dict()["y"].tolist())


def test_without_anything_to_replay_a_mixed_batch_is_the_new_images():
    new = numbered(0, 5)
    for buffer in (None, make_buffer("fifo", 4, 2, GROUPS, generator())):
        assert all(a is b for a, b in zip(mixed_batch(*new, buffer, 0.5), new, strict=True))


def test_a_buffer_with_too_few_images_gives_all():
    buffer = make_buffer("fifo", 50, 2, GROUPS, generator())
    feed(buffer, [3])
    assert sorted((mixed_batch(*numbered(10, 20), buffer, 0.5).y // 10).tolist()) == [0, 1, 2, *range(10, 20)]


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_out_of_range_is_an_error(share):
    with pytest.raises(UserError, match="share"):
        mixed_batch(*numbered(0, 5), None, share)


# --------------------------------------------------------------------------------------------------------------- state


def after_a_while(buffer, rounds=6):
    """All results of a buffer while images are added."""
    shown, first = [], 500
    for _ in range(rounds):
        first = feed(buffer, [7, 4], first)
        shown.append(buffer.sample(9))
    return [part.tolist() for sample in shown for part in sample]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stored", [0, 5, 90])
def test_a_restored_buffer_continues_identically(kind, stored):
    buffer = make_buffer(kind, 12, 2, GROUPS, generator(10))
    feed(buffer, [stored // 2, stored - stored // 2])
    buffer.sample(4)
    file = io.BytesIO()
    torch.save(buffer.state_dict(), file)
    file.seek(0)
    restored = make_buffer(kind, 12, 2, GROUPS, generator(99))
    feed(restored, [3])
    restored.load_state_dict(torch.load(file, weights_only=True))
    assert len(restored) == len(buffer)
    assert restored.groups().tolist() == buffer.groups().tolist()
    assert after_a_while(restored) == after_a_while(buffer)


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_does_not_change_with_the_buffer(kind):
    buffer = make_buffer(kind, 12, 2, GROUPS, generator(11))
    feed(buffer, [40])
    state = buffer.state_dict()
    expected = after_a_while(buffer)
    buffer.load_state_dict(state)
    assert after_a_while(buffer) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_of_another_buffer_is_an_error(kind):
    buffer = make_buffer(kind, 12, 2, GROUPS, generator())
    feed(buffer, [7])
    others = [make_buffer(kind, 15, 2, GROUPS, generator()), make_buffer(kind, 12, 3, GROUPS, generator())]
    if kind != "fifo":
        others.append(make_buffer({"reservoir", "class-balanced"}.difference({kind}).pop(), 12, 2, 3, generator()))
    for other in others:
        with pytest.raises(PlasticError, match="does not fit a buffer"):
            other.load_state_dict(buffer.state_dict())
        assert len(other) == 0


def test_a_state_that_contradicts_itself_is_an_error():
    """A kernel would write beyond the end of its array."""
    buffer = make_buffer("class-balanced", 12, 2, GROUPS, generator())
    feed(buffer, [50])
    for seen in ([0, 0, 0], [50, 50, -50], [2, 50, 50]):
        with pytest.raises(PlasticError, match="does not fit a buffer"):
            buffer.load_state_dict({**buffer.state_dict(), "seen": torch.tensor(seen)})


@pytest.mark.parametrize("kind", KINDS)
@given(sizes=sizes)
@settings(max_examples=30, deadline=None)
def test_no_two_images_of_a_batch_get_the_same_place(kind, sizes):
    """On a GPU the result would be undefined."""
    buffer = make_buffer(kind, 6, 2, GROUPS, generator(13))
    for size in (5, *sizes):
        if size:
            places = buffer._place(numbered(0, size)[2])
            kept = places[places >= 0].tolist()
            assert len(places) == size
            assert len(kept) == len(set(kept))


@pytest.mark.parametrize("kind", KINDS)
def test_the_path_for_other_devices_keeps_the_same_images(kind):
    """On other devices torch writes the images. The kept images must be the same."""
    buffers = [make_buffer(kind, 12, 2, GROUPS, generator(12)) for _ in range(2)]
    buffers[1]._views = None
    for buffer in buffers:
        feed(buffer, [0, 1, 30, 5, 11])
    assert after_a_while(buffers[0]) == after_a_while(buffers[1])


# ---------------------------------------------------------------------------------------------------------------- input


@pytest.mark.parametrize("kind", KINDS)
def test_other_types_and_layouts_are_accepted(kind):
    x, y, group = numbered(0, 10)
    buffer = make_buffer(kind, 12, 2, GROUPS, generator())
    buffer.add(x.double().T.contiguous().T.requires_grad_(), y.int(), group.int())
    assert sorted(contents(buffer)) == (list(range(10)) if kind != "class-balanced" else sorted(contents(buffer)))
    sample = buffer.sample(3)
    assert (sample.x.dtype, sample.y.dtype, sample.group.dtype) == (torch.float32, torch.int64, torch.int64)
    assert not sample.x.requires_grad


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_that_do_not_fit_are_an_error(kind):
    x, y, group = numbered(0, 10)
    buffer = make_buffer(kind, 12, 2, GROUPS, generator())
    for wrong in ((x[:, :1], y, group), (x, y[:5], group), (x, y, group[:, None]), (x[:, :, None], y, group)):
        with pytest.raises(UserError, match="do not fit"):
            buffer.add(*wrong)
    assert len(buffer) == 0


@pytest.mark.parametrize("wrong", [-1, GROUPS])
def test_a_group_that_does_not_exist_is_an_error(wrong):
    x, y, group = numbered(0, 10)
    group[4] = wrong
    buffer = make_buffer("class-balanced", 12, 2, GROUPS, generator())
    with pytest.raises(UserError, match=f"groups .*{wrong}"):
        buffer.add(x, y, group)
    assert len(buffer) == 0


def test_unknown_kinds_and_capacities_out_of_range_are_errors():
    assert make_buffer("none", 0, 2, GROUPS, generator()) is None
    with pytest.raises(UserError, match="reservoir"):
        make_buffer("resevoir", 5, 2, GROUPS, generator())
    for kind in KINDS:
        with pytest.raises(UserError, match="capacity of the buffer is 0"):
            make_buffer(kind, 0, 2, GROUPS, generator())
    with pytest.raises(UserError, match=r"capacity 4 .* 5 groups"):
        make_buffer("class-balanced", 4, 2, 5, generator())
    assert make_buffer("class-balanced", 5, 2, 5, generator()).capacity == 5
