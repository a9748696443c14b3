import math
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plastic_cli.data.corruptions import Corruption, apply_corruption
from plastic_cli.data.datasets import Dataset, Split, load_dataset
from plastic_cli.data.streams import corrupted, make_stream
from plastic_cli.errors import UserError


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _dataset(classes=5, image_shape=(2, 3, 4), train=40, test=20, validation=10, seed=0):
    """Random, distinct images with unordered labels and every class in every split."""
    rng = np.random.default_rng(seed)
    mean, std = (0.25, 0.5, 0.75)[: image_shape[0]], (0.5, 0.25, 2.0)[: image_shape[0]]

    def split(count):
        x = torch.from_numpy(rng.normal(size=(count, math.prod(image_shape))).astype(np.float32))
        return Split(x, torch.from_numpy(rng.permutation(np.arange(count) % classes)))

    return Dataset(
        name="noise",
        train=split(train),
        test=split(test),
        validation=split(validation) if validation else None,
        classes=classes,
        class_names=tuple(map(str, range(classes))),
        image_shape=image_shape,
        mean=mean,
        std=std,
        checksum="",
        note="",
    )


def _splits(holder):
    return [holder.train, holder.test, holder.validation]


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits", validation=200)


# Split


@settings(max_examples=60, deadline=None)
@given(
    classes=st.integers(2, 9),
    data=st.data(),
    scenario=st.sampled_from(["class", "domain", "task"]),
    shuffle=st.booleans(),
)
def test_every_image_is_in_one_task_with_its_own_label(classes, data, scenario, shuffle):
    tasks = data.draw(st.integers(2, classes))
    dataset = _dataset(classes, validation=12)
    order = None if shuffle else data.draw(st.none() | st.permutations(range(classes)))
    stream = make_stream(dataset, "split", scenario, tasks, _generator(), class_order=order, shuffle_classes=shuffle)
    for whole, parts in zip(_splits(dataset), zip(*map(_splits, stream.tasks), strict=True), strict=True):
        position = {tuple(image): number for number, image in enumerate(whole.x.tolist())}
        seen = []
        for task, part in zip(stream.tasks, parts, strict=True):
            found = [position[tuple(image)] for image in part.x.tolist()]
            assert found == sorted(found)
            seen += found
            class_of_output = dict(zip(task.outputs, task.classes, strict=True))
            assert [class_of_output[output] for output in part.y.tolist()] == whole.y[found].tolist()
            assert part.y.dtype == torch.int64
        assert sorted(seen) == list(range(len(whole)))


@given(classes=st.integers(2, 40), data=st.data())
def test_classes_are_divided_evenly_and_in_order(classes, data):
    tasks = data.draw(st.integers(2, classes))
    order = data.draw(st.permutations(range(classes)))
    dataset = _dataset(classes, image_shape=(1, 1, 1), train=classes, test=classes, validation=0)
    made = make_stream(dataset, "split", "domain", tasks, _generator(), class_order=order).tasks
    assert [task.number for task in made] == list(range(tasks))
    assert [label for task in made for label in task.classes] == order
    sizes = [len(task.classes) for task in made]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] - sizes[-1] <= 1


@pytest.mark.parametrize(
    ("scenario", "outputs", "units"),
    [
        ("class", [(3, 0, 4), (1, 2)], 5),
        ("domain", [(0, 1, 2), (0, 1)], 3),
        ("task", [(3, 0, 4), (1, 2)], 5),
    ],
)
def test_split_by_hand(scenario, outputs, units):
    dataset = _dataset()
    stream = make_stream(dataset, "split", scenario, 2, _generator(), class_order=(3, 0, 4, 1, 2))
    assert [task.classes for task in stream.tasks] == [(3, 0, 4), (1, 2)]
    assert [task.outputs for task in stream.tasks] == outputs
    assert (stream.kind, stream.scenario, stream.units) == ("split", scenario, units)
    last = stream.tasks[1].test
    first_image = next(number for number, label in enumerate(dataset.test.y.tolist()) if label in (1, 2))
    assert torch.equal(last.x[0], dataset.test.x[first_image])
    assert last.y[0] == outputs[1][(1, 2).index(dataset.test.y[first_image])]


def test_digits_in_two_tasks_of_five(digits):
    low, high = make_stream(digits, "split", "class", 2, _generator()).tasks
    assert (low.classes, high.classes) == ((0, 1, 2, 3, 4), (5, 6, 7, 8, 9))
    assert len(low.train) + len(high.train) == 1237
    assert len(low.validation) + len(high.validation) == 200
    assert len(low.test) + len(high.test) == 360
    assert low.test.y.max() == 4
    assert high.test.y.min() == 5
    assert torch.equal(high.test.x, digits.test.x[digits.test.y > 4])


def test_shuffled_classes_depend_on_the_generator_only(digits):
    def classes(dataset, seed):
        stream = make_stream(dataset, "split", "task", 5, _generator(seed), shuffle_classes=True)
        return [task.classes for task in stream.tasks]

    state = torch.random.get_rng_state()
    first = classes(digits, 3)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(99)
    assert classes(_dataset(10, image_shape=(1, 2, 2)), 3) == first
    assert len({tuple(classes(digits, seed)) for seed in range(20)}) == 20
    assert sorted(sum(first, ())) == list(range(10))


# Permuted


def _numbered(dataset):
    """The data set with the index of each feature as its value."""
    numbers = torch.arange(math.prod(dataset.image_shape), dtype=torch.float32)
    splits = {
        name: Split(numbers.repeat(len(dataset.split(name)), 1), dataset.split(name).y)
        for name in ("train", "test", "validation")
    }
    return Dataset(**{**vars(dataset), **splits})


def _orders(dataset, tasks, seed):
    """The permutation of each task, read from its images."""
    stream = make_stream(_numbered(dataset), "permuted", "domain", tasks, _generator(seed))
    orders = []
    for task in stream.tasks:
        rows = torch.cat([split.x for split in _splits(task)]).long()
        assert (rows == rows[0]).all()
        orders.append(rows[0].tolist())
    return orders


def test_a_permuted_task_is_one_permutation_of_all_features():
    orders = _orders(_dataset(), 6, 1)
    features = list(range(24))
    assert orders[0] == features
    assert all(sorted(order) == features for order in orders)
    assert len(set(map(tuple, orders))) == 6
    # Pixels are permuted across channels.
    assert all(max(order[:12]) >= 12 for order in orders[1:])


def test_permuted_images_are_the_same_images_in_the_same_order():
    dataset = _dataset()
    stream = make_stream(dataset, "permuted", "domain", 3, _generator(1))
    for task, order in zip(stream.tasks, _orders(dataset, 3, 1), strict=True):
        for whole, part in zip(_splits(dataset), _splits(task), strict=True):
            expected = [[image[feature] for feature in order] for image in whole.x.tolist()]
            assert part.x.tolist() == expected
            assert torch.equal(part.y, whole.y)


def test_permutations_depend_on_the_generator_only():
    orders = _orders(_dataset(), 5, 7)
    state = torch.random.get_rng_state()
    other = _dataset(classes=3, image_shape=(1, 4, 6), train=9, test=6, validation=3, seed=5)
    assert _orders(other, 5, 7) == orders
    assert torch.equal(torch.random.get_rng_state(), state)
    assert _orders(_dataset(), 3, 7) == orders[:3]
    assert _orders(_dataset(), 5, 8)[1:] != orders[1:]


# Rotated


def _picture(rows):
    return Split(torch.tensor(rows).flatten()[None], torch.tensor([0]))


def _pictures(rows, image_shape):
    picture = _picture(rows)
    fields = {**vars(_dataset(2, image_shape)), "train": picture, "test": picture, "validation": picture}
    return Dataset(**fields)


def test_quarter_turns_by_hand():
    dataset = _pictures([[1.0, 2.0], [3.0, 4.0]], (1, 2, 2))
    stream = make_stream(dataset, "rotated", "domain", 4, _generator(), max_degrees=360)
    assert [task.degrees for task in stream.tasks] == [0, 90, 180, 270]
    expected = [[1, 2, 3, 4], [2, 4, 1, 3], [4, 3, 2, 1], [3, 1, 4, 2]]
    for task, pixels in zip(stream.tasks, expected, strict=True):
        for split in _splits(task):
            torch.testing.assert_close(split.x[0], torch.tensor(pixels, dtype=torch.float32), atol=1e-5, rtol=0)


def test_an_eighth_of_a_turn_by_hand():
    dataset = _pictures([[0.0] * 3, [0.0, 1.0, 0.0], [0.0] * 3], (1, 3, 3))
    turned = make_stream(dataset, "rotated", "domain", 2, _generator(), max_degrees=90).tasks[1].test.x.view(3, 3)
    black = dataset.black[0]
    assert turned[1, 1].item() == pytest.approx(1, abs=1e-6)
    # The middle of a side comes from a point sqrt(1/2) away from the bright center along both axes.
    at_sides = (1 - math.sqrt(0.5)) ** 2
    for row, column in ((0, 1), (1, 0), (1, 2), (2, 1)):
        assert turned[row, column].item() == pytest.approx(at_sides, abs=1e-6)
    # A corner comes from a point sqrt(2) away along one axis: between the middle of a side, 0, and the black outside.
    outside = math.sqrt(2) - 1
    for row, column in ((0, 0), (0, 2), (2, 0), (2, 2)):
        assert turned[row, column].item() == pytest.approx(outside * black, abs=1e-6)


def test_angles_grow_evenly_from_none_and_corners_are_black():
    dataset = _dataset(image_shape=(3, 9, 9))
    stream = make_stream(dataset, "rotated", "domain", 4, _generator())
    assert [task.degrees for task in stream.tasks] == [0, 45, 90, 135]
    assert torch.equal(stream.tasks[0].train.x, dataset.train.x)
    for task in (stream.tasks[1], stream.tasks[3]):
        corners = task.test.x.view(-1, 3, 9, 9)[:, :, [0, 0, -1, -1], [0, -1, 0, -1]]
        torch.testing.assert_close(corners, torch.tensor(dataset.black)[:, None].expand_as(corners))
    quarter = torch.rot90(dataset.validation.x.view(-1, 3, 9, 9), 1, (-2, -1)).flatten(1)
    torch.testing.assert_close(stream.tasks[2].validation.x, quarter, atol=1e-4, rtol=0)
    assert torch.equal(stream.tasks[2].validation.y, dataset.validation.y)


# Outputs


@pytest.mark.parametrize("kind", ["permuted", "rotated"])
@pytest.mark.parametrize(("scenario", "units"), [("domain", 5), ("class", 15), ("task", 15)])
def test_outputs_of_tasks_with_all_classes(kind, scenario, units):
    dataset = _dataset()
    stream = make_stream(dataset, kind, scenario, 3, _generator())
    assert stream.units == units
    for number, task in enumerate(stream.tasks):
        first = 0 if scenario == "domain" else 5 * number
        assert task.classes == (0, 1, 2, 3, 4)
        assert task.outputs == tuple(range(first, first + 5))
        for whole, part in zip(_splits(dataset), _splits(task), strict=True):
            assert part.y.tolist() == [first + label for label in whole.y.tolist()]


@pytest.mark.parametrize("kind", ["split", "permuted", "rotated"])
@pytest.mark.parametrize("scenario", ["class", "domain", "task"])
def test_a_prediction_may_be_any_label_of_its_task(kind, scenario):
    stream = make_stream(_dataset(), kind, scenario, 3, _generator())
    for number, task in enumerate(stream.tasks):
        labels = set(task.train.y.tolist())
        assert labels == set(task.outputs)
        allowed = stream.allowed(number)
        if scenario == "task":
            assert (allowed.dtype, allowed.shape) == (torch.bool, (stream.units,))
            assert set(allowed.nonzero().flatten().tolist()) == labels
        else:
            assert allowed is None
    overlap = [set(a.outputs) & set(b.outputs) for a in stream.tasks for b in stream.tasks if a is not b]
    assert all(overlap) if scenario == "domain" else not any(overlap)


def test_predictions_among_the_classes_trained_so_far():
    def allowed(scenario, task, trained):
        stream = make_stream(_dataset(), "split", scenario, 2, _generator(), class_order=(3, 0, 4, 1, 2))
        mask = stream.allowed(task, trained=trained)
        return mask if mask is None else mask.nonzero().flatten().tolist()

    assert allowed("class", 0, 1) == allowed("class", 1, 1) == [0, 3, 4]
    assert allowed("class", 0, 2) == [0, 1, 2, 3, 4]
    assert allowed("task", 0, 2) == [0, 3, 4]
    assert allowed("task", 1, 1) == [1, 2]
    assert allowed("domain", 0, 1) is None
    for trained in (0, 3):
        with pytest.raises(ValueError, match="must be from 1 to 2"):
            allowed("class", 0, trained)


# Splits on request


@pytest.mark.parametrize("kind", ["split", "permuted", "rotated"])
def test_a_task_keeps_no_images(kind):
    dataset = _dataset()
    before = [split.x.clone() for split in _splits(dataset)]
    task = make_stream(dataset, kind, "domain", 3, _generator()).tasks[1]
    made = task.train
    gone = weakref.ref(made.x)
    del made
    assert gone() is None
    assert all(map(torch.equal, before, (split.x for split in _splits(dataset))))


@pytest.mark.parametrize("kind", ["permuted", "rotated"])
def test_an_unchanged_split_is_not_copied(kind):
    dataset = _dataset()
    assert make_stream(dataset, kind, "domain", 2, _generator()).tasks[0].train.x is dataset.train.x


def test_no_validation_split():
    task = make_stream(_dataset(validation=0), "split", "class", 2, _generator()).tasks[0]
    assert task.validation is None
    with pytest.raises(UserError, match="without a validation split"):
        task.split("validation")
    with pytest.raises(UserError, match="Did you mean 'train'"):
        task.split("trian")


# Corruption


@pytest.mark.parametrize("corruption", [Corruption("gaussian-noise", 0.3), Corruption("fixed-rotation", 30)])
def test_images_are_corrupted_before_they_are_permuted_or_rotated(digits, corruption):
    noisy = apply_corruption(digits, digits.test.x, corruption, _generator(4))
    orders = _orders(digits, 3, 1)
    permuted = corrupted(make_stream(digits, "permuted", "domain", 3, _generator(1)), corruption, 4)
    for task, order in zip(permuted.tasks, orders, strict=True):
        assert torch.equal(task.test.x, noisy[:, order])
        assert torch.equal(task.train.x, digits.train.x[:, order])
    turned = corrupted(make_stream(digits, "rotated", "domain", 2, _generator()), corruption, 4).tasks[1].test.x
    quarter = torch.rot90(noisy.view(-1, 8, 8), 1, (-2, -1)).flatten(1)
    torch.testing.assert_close(turned, quarter, atol=1e-5, rtol=0)
    split = corrupted(make_stream(digits, "split", "domain", 2, _generator()), corruption, 4)
    assert torch.equal(split.tasks[1].test.x, noisy[digits.test.y > 4])
    assert torch.equal(split.tasks[1].test.y, digits.test.y[digits.test.y > 4] - 5)


def test_corruption_of_another_split_by_another_seed(digits):
    stream = make_stream(digits, "split", "class", 2, _generator())
    noise = Corruption("gaussian-noise", 0.3)
    changed = corrupted(stream, noise, 1, split="validation")
    assert (changed.units, changed.kind, changed.scenario) == (stream.units, "split", "class")
    for before, after in zip(stream.tasks, changed.tasks, strict=True):
        assert not torch.equal(before.validation.x, after.validation.x)
        assert torch.equal(before.validation.y, after.validation.y)
        assert torch.equal(before.test.x, after.test.x)
    same, other = (corrupted(stream, noise, seed, split="validation").tasks[0].validation.x for seed in (1, 2))
    assert torch.equal(same, changed.tasks[0].validation.x)
    assert not torch.equal(same, other)


def test_impossible_corruptions():
    table = _dataset(image_shape=(1, 1, 24), validation=0)
    stream = make_stream(table, "permuted", "domain", 2, _generator())
    with pytest.raises(UserError, match="no images to rotate"):
        corrupted(stream, Corruption("rotation", 10))
    with pytest.raises(UserError, match="without a validation split"):
        corrupted(stream, Corruption("gaussian-noise", 1), split="validation")


# Errors


@pytest.mark.parametrize(
    ("kind", "scenario", "tasks", "options", "message"),
    [
        ("permute", "class", 2, {}, "Did you mean 'permuted'?"),
        ("split", "classes", 2, {}, "Did you mean 'class'?"),
        ("split", "class", 6, {}, "at most one per class, and noise has 5 classes"),
        ("split", "class", 1, {}, "a stream has at least 2"),
        ("permuted", "domain", 1, {}, "a stream has at least 2"),
        ("rotated", "domain", 0, {}, "a stream has at least 2"),
        ("split", "class", 2, {"class_order": (0, 1, 2, 3)}, "list every class from 0 to 4 once"),
        ("split", "class", 2, {"class_order": (0, 1, 2, 3, 3)}, "0,1,2,3,3 is not an order"),
        ("split", "class", 2, {"class_order": (1, 2, 3, 4, 5)}, "list every class from 0 to 4 once"),
        ("split", "class", 2, {"class_order": range(5), "shuffle_classes": True}, "choose one"),
        ("permuted", "class", 2, {"class_order": range(5)}, "every task of a permuted stream has all classes"),
        ("rotated", "class", 2, {"shuffle_classes": True}, "every task of a rotated stream has all classes"),
        ("rotated", "domain", 2, {"max_degrees": 0}, "more than 0 and at most 360"),
        ("rotated", "domain", 2, {"max_degrees": 361}, "rotation is 361 degrees"),
        ("rotated", "domain", 2, {"max_degrees": math.nan}, "more than 0 and at most 360"),
    ],
)
def test_impossible_streams(kind, scenario, tasks, options, message):
    with pytest.raises(UserError) as raised:
        make_stream(_dataset(), kind, scenario, tasks, _generator(), **options)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_rotation_needs_images():
    with pytest.raises(UserError, match="no images to rotate"):
        make_stream(_dataset(image_shape=(1, 1, 7)), "rotated", "domain", 2, _generator())
    assert make_stream(_dataset(image_shape=(1, 1, 7)), "permuted", "domain", 2, _generator()).units == 5


@pytest.mark.parametrize("split", ["train", "test"])
def test_classes_without_images(split):
    dataset = _dataset()
    present = (dataset.split(split).y != 1) & (dataset.split(split).y != 4)
    part = Split(dataset.split(split).x[present], dataset.split(split).y[present])
    lacking = Dataset(**{**vars(dataset), split: part})
    with pytest.raises(UserError, match=f"no {split} images of class 1, 4"):
        make_stream(lacking, "split", "class", 2, _generator())
    assert make_stream(lacking, "permuted", "domain", 2, _generator()).units == 5
