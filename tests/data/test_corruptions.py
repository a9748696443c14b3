import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from plastic_cli.data.corruptions import (
    CORRUPTIONS,
    Corruption,
    apply_corruption,
    gaussian_noise,
    parse_corruption,
    pixel_gaussian_noise,
    random_rotation,
    rotate,
)
from plastic_cli.data.datasets import load_dataset
from plastic_cli.data.streams import make_stream
from plastic_cli.errors import UserError


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _images(count, shape, seed=0):
    return torch.rand(count, math.prod(shape), generator=_generator(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


# Noise


def test_gaussian_noise_has_the_stated_size_and_no_clipping():
    x = torch.zeros(200, 500, dtype=torch.float64)
    noise = gaussian_noise(x, 0.3, _generator())
    assert (x == 0).all()
    assert stats.kstest(noise.flatten()[:20_000].numpy() / 0.3, "norm").pvalue > 1e-3
    assert abs(noise.mean().item()) < 5 * 0.3 / math.sqrt(noise.numel())
    assert abs(noise.std().item() / 0.3 - 1) < 0.01
    assert noise.min() < -1


def test_pixel_noise_is_clipped():
    pixels = torch.full((100, 1000), 0.9, dtype=torch.float64)
    noisy = pixel_gaussian_noise(pixels, 0.1, _generator())
    assert noisy.max() == 1
    # A normal variable clipped at one standard deviation above its mean.
    assert abs((noisy == 1).double().mean().item() - stats.norm.sf(1)) < 0.005
    expected = 0.9 + 0.1 * (stats.norm.sf(1) - stats.norm.pdf(1))
    assert abs(noisy.mean().item() - expected) < 0.002


def test_pixel_noise_is_added_before_normalization(digits):
    x = digits.test.x
    noisy = apply_corruption(digits, x, Corruption("pixel-noise", 0.2), _generator())
    by_hand = pixel_gaussian_noise(digits.to_pixels(x), 0.2, _generator())
    torch.testing.assert_close(digits.to_pixels(noisy), by_hand, atol=1e-6, rtol=1e-6)
    assert digits.to_pixels(noisy).min() > -1e-6
    assert digits.to_pixels(noisy).max() < 1 + 1e-6


def test_gaussian_noise_is_added_after_normalization(digits):
    x = digits.test.x
    noisy = apply_corruption(digits, x, Corruption("gaussian-noise", 0.2), _generator())
    assert abs((noisy - x).std().item() - 0.2) < 0.005
    assert digits.to_pixels(noisy).min() < 0


def test_pixel_noise_needs_pixels_from_0_to_1(tmp_path):
    x = np.random.default_rng(0).normal(size=(20, 4, 4))
    np.savez(tmp_path / "mine.npz", x_train=x, y_train=np.arange(20) % 2, x_test=x, y_test=np.arange(20) % 2)
    dataset = load_dataset(str(tmp_path / "mine.npz"))
    with pytest.raises(UserError, match="Use gaussian-noise"):
        apply_corruption(dataset, dataset.test.x, Corruption("pixel-noise", 0.1), _generator())


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_corruption_depends_on_the_generator_and_keeps_its_input(digits, kind):
    x = digits.test.x[:20]
    before = x.clone()
    corruption = Corruption(kind, 0.5)
    first, again, other = (apply_corruption(digits, x, corruption, _generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert torch.equal(x, before)
    assert not torch.equal(first, x)
    assert torch.equal(first, other) == (kind == "fixed-rotation")
    assert (first.shape, first.dtype) == (x.shape, x.dtype)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_strength_of_0_changes_nothing(digits, kind):
    x = digits.test.x
    torch.testing.assert_close(apply_corruption(digits, x, Corruption(kind, 0), _generator()), x, atol=1e-5, rtol=1e-5)


# Rotation


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 9, 9)])
@pytest.mark.parametrize("turns", [-1, 0, 1, 2, 3])
def test_quarter_turns_are_those_of_rot90(shape, turns):
    x = _images(5, shape)
    expected = torch.rot90(x.view(5, *shape), turns, (-2, -1)).flatten(1)
    torch.testing.assert_close(rotate(x, shape, torch.full((5,), 90.0 * turns)), expected, atol=1e-9, rtol=0)


def test_half_turn_of_an_oblong_image():
    x = _images(4, (2, 5, 8))
    expected = x.view(4, 2, 5, 8).flip((-2, -1)).flatten(1)
    torch.testing.assert_close(rotate(x, (2, 5, 8), torch.full((4,), 180.0)), expected, atol=1e-9, rtol=0)


def _rotated_by_hand(image, degrees, background):
    """One image (height, width), each pixel sampled bilinearly by plain arithmetic in pixel coordinates."""
    height, width = image.shape
    radians = math.radians(degrees)
    result = np.empty((height, width))

    def pixel(row, column):
        inside = 0 <= row < height and 0 <= column < width
        return image[row, column] if inside else background

    for row in range(height):
        for column in range(width):
            right, up = column - (width - 1) / 2, (height - 1) / 2 - row
            # A counter-clockwise rotation moves pixels from the clockwise side to here.
            from_right = right * math.cos(radians) + up * math.sin(radians)
            from_up = -right * math.sin(radians) + up * math.cos(radians)
            at_column, at_row = from_right + (width - 1) / 2, (height - 1) / 2 - from_up
            first_row, first_column = math.floor(at_row), math.floor(at_column)
            down, along = at_row - first_row, at_column - first_column
            result[row, column] = (
                (1 - down) * (1 - along) * pixel(first_row, first_column)
                + (1 - down) * along * pixel(first_row, first_column + 1)
                + down * (1 - along) * pixel(first_row + 1, first_column)
                + down * along * pixel(first_row + 1, first_column + 1)
            )
    return result


@settings(max_examples=25, deadline=None)
@given(
    degrees=st.lists(st.floats(-360, 360), min_size=1, max_size=3),
    height=st.integers(2, 9),
    width=st.integers(2, 9),
    background=st.floats(-3, 3),
)
def test_rotation_is_bilinear_sampling(degrees, height, width, background):
    x = _images(len(degrees), (1, height, width))
    turned = rotate(x, (1, height, width), torch.tensor(degrees, dtype=torch.float64), background)
    for image, angle, result in zip(x, degrees, turned, strict=True):
        expected = _rotated_by_hand(image.view(height, width).numpy(), angle, background)
        np.testing.assert_allclose(result.view(height, width).numpy(), expected, atol=1e-9)


def test_background_is_filled_by_channel():
    turned = rotate(torch.ones(2, 2 * 9 * 9), (2, 9, 9), torch.full((2,), 45.0), (5.0, -7.0)).view(2, 2, 9, 9)
    assert (turned[:, 0, 0, 0] == 5).all()
    assert (turned[:, 1, -1, -1] == -7).all()
    assert torch.allclose(turned[:, :, 4, 4], torch.ones(2, 2))


def test_corners_of_a_turned_data_set_are_black(digits):
    turned = apply_corruption(digits, digits.test.x, Corruption("fixed-rotation", 45), _generator())
    pixels = digits.to_pixels(turned).view(-1, 8, 8)
    assert pixels[:, [0, 0, -1, -1], [0, -1, 0, -1]].abs().max() < 1e-6


@pytest.mark.parametrize("change", [lambda x: 2 * x - 1, lambda x: (x - 0.3) / 0.2, lambda x: 255 * x])
@pytest.mark.parametrize("kind", ["rotation", "fixed-rotation"])
def test_rotation_fills_with_the_darkest_value_in_all_units(tmp_path, change, kind):
    """Corners of a rotated set in other units are those of the plain set in these units."""
    rng = np.random.default_rng(0)
    x = rng.random((20, 3, 9, 9)).astype(np.float32)
    x[0, :, 0, 0] = 0
    turned = []
    for name, images in (("plain", x), ("changed", change(x))):
        path = tmp_path / f"{name}.npz"
        np.savez(path, x_train=images, y_train=np.arange(20) % 2, x_test=images, y_test=np.arange(20) % 2)
        dataset = load_dataset(str(path))
        corrupted = apply_corruption(dataset, dataset.test.x, Corruption(kind, 45), _generator())
        pixels = dataset.to_pixels(corrupted)
        turned.append(change(pixels) if name == "plain" else pixels)
        if kind == "fixed-rotation":
            corner = pixels.view(-1, 3, 9, 9)[..., 0, 0]
            torch.testing.assert_close(corner, torch.full_like(corner, float(images.min())), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(turned[0], turned[1], atol=2e-4, rtol=1e-4)


def test_rotation_fills_with_the_darkest_byte(tmp_path):
    x = np.random.default_rng(0).integers(50, 200, (20, 9, 9)).astype(np.uint8)
    x[0, 0, 0] = 50
    np.savez(tmp_path / "set.npz", x_train=x, y_train=np.arange(20) % 2, x_test=x, y_test=np.arange(20) % 2)
    dataset = load_dataset(str(tmp_path / "set.npz"))
    turned = apply_corruption(dataset, dataset.test.x, Corruption("fixed-rotation", 45), _generator())
    corner = 255 * dataset.to_pixels(turned).view(-1, 9, 9)[:, 0, 0]
    torch.testing.assert_close(corner, torch.full_like(corner, 50), atol=1e-3, rtol=1e-5)


def test_a_stream_of_rotated_tasks_fills_with_the_darkest_value(tmp_path):
    x = 2 * np.random.default_rng(0).random((20, 1, 9, 9)).astype(np.float32) - 1
    x[0, 0, 0, 0] = -1
    np.savez(tmp_path / "set.npz", x_train=x, y_train=np.arange(20) % 2, x_test=x, y_test=np.arange(20) % 2)
    dataset = load_dataset(str(tmp_path / "set.npz"))
    task = make_stream(dataset, "rotated", "domain", 4, _generator()).tasks[1]
    assert task.degrees == 45
    corner = dataset.to_pixels(task.test.x).view(-1, 9, 9)[:, 0, 0]
    torch.testing.assert_close(corner, torch.full_like(corner, -1), atol=1e-5, rtol=1e-5)


def test_pixel_noise_does_not_clip_to_other_units(tmp_path):
    """If pixels are not in [0, 1], clipping would turn black into gray without an error."""
    x = 2 * np.random.default_rng(0).random((20, 9, 9)).astype(np.float32) - 1
    np.savez(tmp_path / "set.npz", x_train=x, y_train=np.arange(20) % 2, x_test=x, y_test=np.arange(20) % 2)
    dataset = load_dataset(str(tmp_path / "set.npz"))
    with pytest.raises(UserError, match=r"clips to \[0, 1\] and the pixels of set.npz range from -"):
        apply_corruption(dataset, dataset.test.x, Corruption("pixel-noise", 0.1), _generator())


def test_each_image_is_rotated_by_its_own_angle():
    count = 8192 + 3
    x = _images(count, (1, 4, 4))
    quarter_turns = torch.arange(count) % 4
    turned = rotate(x, (1, 4, 4), 90.0 * quarter_turns).view(-1, 4, 4)
    for turns in range(4):
        chosen = quarter_turns == turns
        expected = torch.rot90(x.view(-1, 4, 4)[chosen], turns, (-2, -1))
        torch.testing.assert_close(turned[chosen], expected, atol=1e-9, rtol=0)


def test_random_rotation_is_uniform_in_both_directions():
    # One bright pixel right of the center shows the angle: the center of mass moves with it.
    image = torch.zeros(41, 41, dtype=torch.float64)
    image[19:22, 34:37] = 1
    count = 2000
    x = image.flatten().expand(count, -1)
    turned = random_rotation(x, (1, 41, 41), 30, _generator()).view(count, 41, 41)
    mass = turned.sum((1, 2))
    axis = torch.arange(41, dtype=torch.float64) - 20
    right, down = (turned.sum(1) @ axis) / mass, (turned.sum(2) @ axis) / mass
    degrees = torch.rad2deg(torch.atan2(-down, right)).numpy()
    assert stats.kstest(degrees, stats.uniform(-30, 60).cdf).pvalue > 1e-3
    assert degrees.min() < -29
    assert degrees.max() > 29


def test_rotation_needs_images(tmp_path):
    x = np.random.default_rng(0).random((20, 7))
    np.savez(tmp_path / "mine.npz", x_train=x, y_train=np.arange(20) % 2, x_test=x, y_test=np.arange(20) % 2)
    dataset = load_dataset(str(tmp_path / "mine.npz"))
    with pytest.raises(UserError, match="no images to rotate"):
        apply_corruption(dataset, dataset.test.x, Corruption("rotation", 10), _generator())


# As text


@pytest.mark.parametrize(
    ("text", "kind", "strength"),
    [
        ("gaussian-noise:0.3", "gaussian-noise", 0.3),
        ("pixel-noise:.1", "pixel-noise", 0.1),
        ("rotation:30", "rotation", 30),
        ("fixed-rotation:-15", "fixed-rotation", -15),
        (" rotation: 5 ", "rotation", 5),
    ],
)
def test_parse(text, kind, strength):
    corruption = parse_corruption(text)
    assert corruption == Corruption(kind, strength)
    assert parse_corruption(str(corruption)) == corruption


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gausian-noise:0.3", "Did you mean 'gaussian-noise'?"),
        ("rotate:3", "Did you mean 'rotation'?"),
        ("", "The kinds are gaussian-noise, pixel-noise, rotation, fixed-rotation"),
        ("rotation", "write KIND:STRENGTH, such as rotation:30"),
        ("rotation:a lot", "write KIND:STRENGTH"),
        ("pixel-noise:-1", "a finite number of 0 or more"),
        ("gaussian-noise:nan", "a finite number of 0 or more"),
        ("fixed-rotation:inf", "give a finite number."),
    ],
)
def test_bad_text(text, message):
    with pytest.raises(UserError) as raised:
        parse_corruption(text)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
