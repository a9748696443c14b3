"""Episodes: their classes, images and order, and errors."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plastic_cli import UserError
from plastic_cli.data.datasets import Split
from plastic_cli.data.episodes import Episodes


def numbered(classes=6, each=12, seed=0):
    """A split in shuffled order; an image is its place in the split and its class, so that it can be identified."""
    order = torch.randperm(classes * each, generator=torch.Generator().manual_seed(seed))
    y = (torch.arange(classes * each) % classes)[order]
    x = torch.stack([torch.arange(classes * each).float(), y.float()], 1)
    return Split(x, y)


def draw(episodes, seed=0):
    return episodes.draw(torch.Generator().manual_seed(seed))


def places(x):
    return x[:, 0].long().tolist()


@settings(max_examples=40, deadline=None)
@given(ways=st.integers(1, 6), shots=st.integers(1, 8), queries=st.integers(1, 4), seed=st.integers(0, 2**40))
def test_an_episode_has_distinct_classes_and_no_query_is_a_training_image(ways, shots, queries, seed):
    split = numbered()
    episode = draw(Episodes(split, ways=ways, shots=shots, queries=queries), seed)
    assert episode.classes.unique().numel() == len(episode.classes) == ways
    assert episode.x.shape == (ways * shots, 2)
    assert episode.query_x.shape == (ways * queries, 2)
    used = places(episode.x) + places(episode.query_x)
    assert len(set(used)) == len(used)
    for x, y, number in ((episode.x, episode.y, shots), (episode.query_x, episode.query_y, queries)):
        assert torch.equal(x[:, 1].long(), y)
        assert torch.equal(x, split.x[places(x)])
        for label in episode.classes:
            assert (y == label).sum() == number


def test_the_order_of_learning_mixes_the_classes():
    episodes = Episodes(numbered(), ways=3, shots=8, queries=1)
    orders = [draw(episodes, seed) for seed in range(20)]
    in_blocks = [(episode.y.diff() != 0).sum() == 2 for episode in orders]
    assert not all(in_blocks)
    assert len({tuple(episode.y.tolist()) for episode in orders}) > 15


def test_an_episode_depends_on_the_generator_only():
    episodes = Episodes(numbered(), ways=3, shots=4, queries=2)
    first, again, other = draw(episodes, 1), draw(episodes, 1), draw(episodes, 2)
    assert torch.equal(first.x, again.x)
    assert torch.equal(first.query_x, again.query_x)
    assert not torch.equal(first.x, other.x)
    generator = torch.Generator().manual_seed(1)
    assert torch.equal(episodes.draw(generator).x, first.x)
    assert not torch.equal(episodes.draw(generator).x, first.x)


def test_all_classes_and_images_have_the_same_probability():
    episodes = Episodes(numbered(classes=5, each=4), ways=2, shots=1, queries=1)
    generator = torch.Generator().manual_seed(0)
    classes, images = torch.zeros(5), torch.zeros(20)
    for _ in range(2000):
        episode = episodes.draw(generator)
        classes[episode.classes] += 1
        images[places(episode.x)] += 1
    # 800 of 2000 and 200 of 2000, within five standard deviations.
    assert (classes - 800).abs().max() < 5 * (2000 * 0.4 * 0.6) ** 0.5
    assert (images - 200).abs().max() < 5 * (2000 * 0.1 * 0.9) ** 0.5


def test_only_the_given_classes_are_drawn():
    episodes = Episodes(numbered(), ways=2, shots=3, queries=2, classes=[5, 1, 3])
    seen = {int(label) for seed in range(40) for label in draw(episodes, seed).classes}
    assert seen == {1, 3, 5}


def test_classes_need_not_be_numbered_from_0():
    split = Split(torch.arange(12.0)[:, None], torch.tensor([4, 9, 40] * 4))
    episode = draw(Episodes(split, ways=3, shots=2, queries=2))
    assert set(episode.classes.tolist()) == {4, 9, 40}


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**40), replacement=st.booleans())
def test_own_labels_number_the_classes_as_they_were_drawn(seed, replacement):
    split = Split(torch.arange(60.0)[:, None], torch.arange(60) % 6 * 7)
    drawn = draw(Episodes(split, ways=4, shots=3, queries=2, replacement=replacement), seed)
    own = drawn.with_own_labels()
    assert torch.equal(own.x, drawn.x)
    assert torch.equal(own.query_x, drawn.query_x)
    assert torch.equal(own.classes, drawn.classes)
    assert torch.equal(own.classes[own.y], drawn.y)
    assert torch.equal(own.classes[own.query_y], drawn.query_y)
    # A class that occurs twice has one label.
    assert set(own.query_y.tolist()) == set(own.y.tolist())
    assert own.y.unique().numel() == drawn.classes.unique().numel()


def test_with_replacement_repeated_classes_have_the_expected_frequency():
    episodes = Episodes(numbered(classes=5, each=3), ways=3, shots=1, queries=1, replacement=True)
    generator = torch.Generator().manual_seed(0)
    distinct = sum(episodes.draw(generator).classes.unique().numel() == 3 for _ in range(2000))
    expected = 4 / 5 * 3 / 5
    assert abs(distinct - 2000 * expected) < 5 * (2000 * expected * (1 - expected)) ** 0.5


@pytest.mark.parametrize("first_images", [False, True])
def test_no_query_of_a_repeated_class_is_a_training_image(first_images):
    episodes = Episodes(
        numbered(classes=2, each=6), ways=4, shots=3, queries=3, replacement=True, first_images=first_images
    )
    for seed in range(20):
        episode = draw(episodes, seed)
        assert len(episode.y) == len(episode.query_y) == 12
        assert not set(places(episode.x)) & set(places(episode.query_x))


def test_more_ways_than_classes_need_replacement():
    split = numbered(classes=2)
    assert len(draw(Episodes(split, ways=5, shots=1, queries=1, replacement=True)).classes) == 5
    with pytest.raises(UserError, match=r"5 classes cannot be drawn from 2: ask for fewer ways"):
        Episodes(split, ways=5, shots=1, queries=1)


def test_first_images_are_always_the_first_ones_of_a_class():
    split = numbered()
    episodes = Episodes(split, ways=2, shots=4, queries=3, first_images=True)
    for seed in range(10):
        episode = draw(episodes, seed)
        for label in episode.classes.tolist():
            images = torch.nonzero(split.y == label)[:, 0].tolist()
            taught = sorted(place for place in places(episode.x) if split.y[place] == label)
            asked = [place for place in places(episode.query_x) if split.y[place] == label]
            assert (taught, asked) == (images[:4], images[4:7])


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"ways": 7}, "an episode of 7 classes cannot be drawn from 6: ask for fewer ways."),
        ({"ways": 3, "classes": [0, 1]}, "an episode of 3 classes cannot be drawn from 2: ask for fewer ways."),
        (
            {"shots": 9, "queries": 4},
            "class 0 has 12 images in the data, and 9 shots and 4 queries need 13: ask for fewer",
        ),
        ({"classes": [3, 9]}, "class 9 has 0 images"),
    ],
)
def test_impossible_episodes_are_one_line_errors(options, complaint):
    with pytest.raises(UserError) as caught:
        Episodes(numbered(), **{"ways": 2, "shots": 4, "queries": 2, **options})
    assert str(caught.value).startswith(complaint)
    assert "\n" not in str(caught.value)


def test_every_image_can_be_used():
    episode = draw(Episodes(numbered(each=6), ways=6, shots=4, queries=2))
    assert sorted(places(episode.x) + places(episode.query_x)) == list(range(36))
