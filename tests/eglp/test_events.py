"""Controllers: when there is an event, how strong it is, and how many there are."""

import io
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plastic_eglp import (
    AlwaysOnController,
    FixedRateController,
    NeverController,
    SampledController,
    ThresholdController,
)


def round_trip(state):
    """As a checkpoint takes it."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def strengths(controller, losses):
    return [controller.should_trigger(loss) for loss in losses]


def heavy_tailed(n, seed=0):
    return np.exp(1.2 * np.random.default_rng(seed).standard_normal(n))


class LoopController:
    """The threshold's decisions about single signals, from its description, in float64."""

    def __init__(self, threshold_factor=None, rate=0.1, window=100, warmup=0, strength="binary"):
        self.options = (threshold_factor, rate, window, warmup, strength)
        self.mean = self.square = None
        self.recent = []
        self.batches = 0

    def decide(self, signals):
        factor, rate, window, warmup, strength = self.options
        self.batches += 1
        found = []
        for signal in signals:
            if self.batches <= warmup:
                found.append(1.0)
                continue
            if self.mean is None:
                found.append(0.0)
                continue
            if factor is not None:
                fires = signal > factor * self.mean
            else:
                rank = 1 + sum(other >= signal for other in self.recent)
                fires = rank <= math.floor(rate * (len(self.recent) + 1))
            value = 1.0
            if strength == "surprise":
                deviation = math.sqrt(max(0.0, self.square - self.mean**2))
                above = max(0.0, signal - self.mean)
                value = min(3.0, above / deviation) if deviation else 3.0 * (above > 0)
            if strength == "normalized":
                value = 1 / float(np.mean(self.recent))
            found.append(value if fires else 0.0)
        mean, square = float(np.mean(signals)), float(np.mean(np.square(signals)))
        self.mean = mean if self.mean is None else 0.99 * self.mean + 0.01 * mean
        self.square = square if self.square is None else 0.99 * self.square + 0.01 * square
        self.recent = [*self.recent, *signals][-window:]
        return found


# ------------------------------------------------------------------------------------------------ simple ones


def test_always_and_never():
    losses = heavy_tailed(50)
    assert strengths(AlwaysOnController(), losses) == [1.0] * 50
    assert strengths(NeverController(), losses) == [0.0] * 50
    always, never = AlwaysOnController(), NeverController()
    strengths(always, losses)
    strengths(never, losses)
    assert (always.used, never.used) == (50, 0)


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5, 0.9])
def test_a_fixed_rate_is_kept(rate):
    n = 4000
    controller = FixedRateController(rate, generator=torch.Generator().manual_seed(1))
    found = strengths(controller, [0.0] * n)
    assert set(found) == {0.0, 1.0}
    assert abs(sum(found) - n * rate) < 4 * math.sqrt(n * rate * (1 - rate))
    assert controller.used == sum(found)
    # Events come independently of each other.
    together = sum(a * b for a, b in pairwise(found))
    assert abs(together - n * rate**2) < 5 * math.sqrt(n) * rate


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_the_ends_of_the_fixed_rate(rate):
    assert strengths(FixedRateController(rate), [1.0] * 200) == [rate] * 200


def test_a_fixed_rate_ignores_the_loss_and_draws_from_its_generator_alone():
    losses, others = heavy_tailed(200), 1 / heavy_tailed(200, 1)
    torch.manual_seed(0)
    first = strengths(FixedRateController(0.3, generator=torch.Generator().manual_seed(5)), losses)
    torch.manual_seed(1)
    assert strengths(FixedRateController(0.3, generator=torch.Generator().manual_seed(5)), others) == first
    assert strengths(FixedRateController(0.3, generator=torch.Generator().manual_seed(6)), losses) != first


# ------------------------------------------------------------------------------------------------ threshold


@settings(max_examples=25, deadline=None)
@given(
    factor=st.sampled_from([0.3, 1.0, 1.5, 2.0]),
    warmup=st.integers(0, 10),
    strength=st.sampled_from(["binary", "surprise", "normalized"]),
    seed=st.integers(0, 1000),
)
def test_a_multiple_of_the_running_mean_equals_loops(factor, warmup, strength, seed):
    losses = heavy_tailed(150, seed)
    controller = ThresholdController(factor, warmup=warmup, strength=strength)
    loop = LoopController(factor, warmup=warmup, strength=strength)
    expected = [loop.decide([loss])[0] for loss in losses.astype(np.float32).tolist()]
    np.testing.assert_allclose(strengths(controller, losses), expected, rtol=1e-3, atol=1e-4)
    assert controller.used == sum(value > 0 for value in expected)
    assert controller.mean.item() == pytest.approx(loop.mean, rel=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    rate=st.sampled_from([0.0, 0.05, 0.1, 0.33, 0.9, 1.0]),
    window=st.integers(1, 60),
    warmup=st.integers(0, 5),
    strength=st.sampled_from(["binary", "surprise", "normalized"]),
    batch=st.integers(1, 7),
    seed=st.integers(0, 1000),
)
def test_the_adaptive_threshold_equals_loops(rate, window, warmup, strength, batch, seed):
    # The first batch is remembered whole.
    signals = heavy_tailed(40 * batch, seed).astype(np.float32).reshape(40, batch)
    controller = ThresholdController(rate=rate, window=window, warmup=warmup, strength=strength, per_stimulus=True)
    loop = LoopController(rate=rate, window=window, warmup=warmup, strength=strength)
    for row in signals:
        found = controller.gate(torch.from_numpy(row))
        np.testing.assert_allclose(found.numpy(), loop.decide(row.tolist()), rtol=1e-3, atol=1e-4)


def test_the_published_trap():
    """Twice the running mean is never reached by a loss that falls slowly with a little noise, as losses do."""
    noise = np.random.default_rng(0).standard_normal(1500)
    losses = 2.3 * np.exp(-np.arange(1500) / 4000) * (1 + 0.1 * noise)
    published = ThresholdController(2.0, warmup=0)
    assert strengths(published, losses) == [0.0] * 1500
    assert published.used == 0
    ours = ThresholdController(rate=0.1, warmup=0)
    strengths(ours, losses)
    assert ours.used > 75


def test_a_signal_that_only_falls_is_never_unusual():
    assert sum(strengths(ThresholdController(rate=0.5, warmup=0), np.linspace(2, 1, 300))) == 0


@pytest.mark.parametrize("drift", ["none", "falling", "rising", "seasons"])
@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3])
def test_the_rate_is_kept_on_drifting_heavy_tailed_losses(drift, rate):
    n = 2000
    t = np.arange(n)
    level = {
        "none": np.ones(n),
        "falling": np.exp(-t / 1500),
        "rising": np.exp(t / 1500),
        "seasons": 2 + np.sin(t / 200),
    }[drift]
    controller = ThresholdController(rate=rate, warmup=0)
    found = strengths(controller, level * heavy_tailed(n))
    assert np.mean(found) == pytest.approx(rate, rel=0.25)
    # Not all at once: in each fifth too.
    for part in np.array_split(np.array(found), 5):
        assert np.mean(part) == pytest.approx(rate, rel=0.5)


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3])
def test_the_rate_is_kept_over_stimuli(rate):
    batches, size = 300, 64
    level = np.exp(-np.arange(batches) / 100)[:, None]
    signals = torch.from_numpy(level * heavy_tailed(batches * size).reshape(batches, size)).float()
    controller = ThresholdController(rate=rate, window=8 * size, warmup=0, per_stimulus=True)
    shares = [(controller.gate(row) > 0).float().mean().item() for row in signals]
    assert np.mean(shares) == pytest.approx(rate, rel=0.15)


def test_with_distinct_signals_the_fraction_is_not_above_the_rate():
    """Of equally likely orders: k of n + 1."""
    n = 8000
    controller = ThresholdController(rate=0.1, window=9, warmup=0)
    found = np.mean(strengths(controller, np.random.default_rng(0).random(n)))
    assert found == pytest.approx(0.1, abs=4 * math.sqrt(0.09 / n))


def test_the_ends_of_the_rate():
    losses = heavy_tailed(300)
    none, all_ = ThresholdController(rate=0.0, warmup=0), ThresholdController(rate=1.0, warmup=0)
    assert sum(strengths(none, losses)) == 0
    # Of the first signal nothing is known.
    assert strengths(all_, losses) == [0.0] + [1.0] * 299


def test_the_highest_signals_are_selected():
    controller = ThresholdController(rate=0.25, window=8, warmup=0, per_stimulus=True)
    controller.gate(torch.arange(8.0))
    assert controller.gate(torch.tensor([5.0, 5.5, 6.0, 6.5, 7.0, 9.0])).tolist() == [0, 0, 0, 1, 1, 1]


def test_only_signals_within_the_window_are_remembered():
    controller = ThresholdController(rate=0.5, window=3, warmup=0)
    strengths(controller, [100.0] * 5 + [1.0, 2.0, 3.0])
    assert controller.recent.tolist() == [1.0, 2.0, 3.0]
    assert controller.should_trigger(2.5) == 1.0


@settings(max_examples=20, deadline=None)
@given(st.integers(-20, 20), st.integers(0, 100), st.sampled_from([None, 1.3]))
def test_the_unit_of_the_signal_does_not_matter(power, seed, factor):
    losses = heavy_tailed(80, seed).astype(np.float32)
    found = strengths(ThresholdController(factor, warmup=3, strength="surprise"), losses)
    scaled = strengths(ThresholdController(factor, warmup=3, strength="surprise"), losses * 2.0**power)
    assert scaled == found


def test_the_warm_up_is_a_number_of_events_of_strength_one():
    for controller in (
        ThresholdController(warmup=7, rate=0.0),
        ThresholdController(5.0, warmup=7, strength="surprise"),
    ):
        assert strengths(controller, [1.0, 0.5] * 10) == [1.0] * 7 + [0.0] * 13
        assert controller.used == 7
    each = ThresholdController(warmup=2, rate=0.0, per_stimulus=True)
    found = [each.gate(torch.tensor([3.0, 1.0])).tolist() for _ in range(4)]
    assert found == [[1, 1], [1, 1], [0, 0], [0, 0]]


def test_the_warm_up_of_a_fixed_rate_does_not_change_later_draws():
    plain, warm = FixedRateController(0.3), FixedRateController(0.3, warmup=9)
    losses = [0.0] * 100
    later = strengths(plain, losses)[9:]
    assert strengths(warm, losses) == [1.0] * 9 + later
    assert warm.used == 9 + sum(later)


def test_surprise_is_at_most_three_and_a_weak_event_counts_as_one():
    controller = ThresholdController(1.0, warmup=0, strength="surprise")
    found = strengths(controller, [1.0, 1.2, 0.8, 1.1, 0.9, 1.01, 100.0])
    assert found[-1] == 3.0
    assert 0 < found[-2] < 0.5
    assert controller.used == sum(value > 0 for value in found)


def test_normalized_strength_is_that_of_random_events():
    """The same recent signals, the same strength, in any unit of the signal. Those that are not finite do not count."""
    signals = torch.from_numpy(heavy_tailed(200))
    for unit in (1.0, 1e-3):
        triggered = ThresholdController(rate=0.3, window=64, warmup=0, strength="normalized", per_stimulus=True)
        drawn = SampledController(1.0, uniform=1.0, window=64)
        before, events = signals.new_zeros(()), 0
        for row in (unit * signals).split(20):
            found, random = triggered.gate(row), drawn.gate(row)
            # A threshold is compared with the batches before, and so is the mean.
            torch.testing.assert_close(found, torch.where(found > 0, before, 0.0))
            before, events = random[0], events + int((found > 0).sum())
        assert 20 < events < 100
        assert float(before) == pytest.approx(1 / float((unit * signals)[-64:].mean()))
    odd = ThresholdController(rate=0.5, window=8, warmup=0, strength="normalized", per_stimulus=True)
    odd.gate(torch.tensor([1.0, 3.0, 2.0, math.inf]))
    torch.testing.assert_close(odd.gate(torch.tensor([2.5, 3.5])), torch.tensor([0.0, 1 / 1.5]))
    silent = ThresholdController(rate=1.0, window=8, warmup=0, strength="normalized")
    assert strengths(silent, [0.0, 0.0, 0.0, 1.0]) == [0.0] * 4


def test_a_loss_can_be_a_number_or_a_tensor_with_a_graph():
    losses = heavy_tailed(60).tolist()
    numbers = strengths(ThresholdController(1.2, warmup=0), losses)
    tensors = strengths(ThresholdController(1.2, warmup=0), [torch.tensor(v, requires_grad=True) * 1 for v in losses])
    assert numbers == tensors
    assert all(type(value) is float for value in numbers)


# ------------------------------------------------------------------------------------------------ budget


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 30), st.integers(0, 60))
def test_the_budget_is_never_exceeded_and_is_used_up(budget, batches):
    losses = heavy_tailed(batches)
    for make in (
        AlwaysOnController,
        lambda budget: FixedRateController(1.0, budget=budget),
        lambda budget: ThresholdController(rate=1.0, budget=budget, warmup=40),
    ):
        controller = make(budget)
        found = strengths(controller, losses)
        assert sum(value > 0 for value in found) == controller.used == min(budget, batches)
        assert controller.exhausted == (budget <= batches)
        # The budget goes to the first ones.
        assert all(value == 0 for value in found[budget:])


def test_an_exhausted_controller_selects_no_stimulus():
    controller = ThresholdController(rate=1.0, per_stimulus=True, budget=2, warmup=10)
    assert controller.gate(torch.ones(3)).tolist() == [1, 1, 1]
    controller.used = 2.0
    assert controller.gate(torch.ones(3)).tolist() == [0, 0, 0]


# ------------------------------------------------------------------------------------------------ state


@pytest.mark.parametrize(
    "make",
    [
        lambda: AlwaysOnController(60),
        NeverController,
        lambda: FixedRateController(0.4, budget=40),
        lambda: FixedRateController(0.2, warmup=55),
        lambda: ThresholdController(1.4, warmup=30),
        lambda: ThresholdController(1.4, warmup=3, strength="surprise", budget=20),
        lambda: ThresholdController(rate=0.3, window=30, strength="surprise"),
        lambda: ThresholdController(rate=0.2, window=80, warmup=70),
    ],
)
@pytest.mark.parametrize("middle", [0, 1, 50])
def test_a_restored_controller_makes_the_same_decisions(make, middle):
    losses = heavy_tailed(120)
    whole = make()
    expected = strengths(whole, losses)
    before = make()
    strengths(before, losses[:middle])
    state = round_trip(before.state_dict())
    strengths(before, losses[middle:])  # A state that was taken is not moved by what comes later.
    after = make()
    strengths(after, heavy_tailed(9, 5))  # Whatever it has seen is forgotten.
    after.load_state_dict(state)
    assert strengths(after, losses[middle:]) == expected[middle:]
    assert after.used == whole.used


@pytest.mark.parametrize("options", [{"strength": "surprise"}, {"threshold_factor": 1.4}, {"rate": 0.4}], ids=str)
def test_a_restored_state_follows_the_signals_to_their_device(options):
    """Files are read to the CPU, and signals come from any device. "meta" is a device without numbers."""
    before = ThresholdController(**options, warmup=0, window=4, per_stimulus=True)
    before.gate(torch.tensor([0.1, 0.7, 0.3]))
    after = ThresholdController(**options, warmup=0, window=4, per_stimulus=True)
    after.load_state_dict(round_trip(before.state_dict()))
    assert after.gate(torch.ones(3, device="meta")).device.type == "meta"
    assert {part.device.type for part in after.state_dict().values() if isinstance(part, torch.Tensor)} == {"meta"}


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: AlwaysOnController(-1), "budget"),
        (lambda: AlwaysOnController(math.nan), "budget"),
        (lambda: FixedRateController(1.1), "rate"),
        (lambda: FixedRateController(-0.1), "rate"),
        (lambda: FixedRateController(math.nan), "rate"),
        (lambda: FixedRateController(0.1, budget=-2), "budget"),
        (lambda: FixedRateController(0.1, warmup=-1), "warmup"),
        (lambda: ThresholdController(0.0), "threshold_factor"),
        (lambda: ThresholdController(-1.0), "threshold_factor"),
        (lambda: ThresholdController(math.nan), "threshold_factor"),
        (lambda: ThresholdController(math.inf), "threshold_factor"),
        (lambda: ThresholdController(rate=2.0), "rate"),
        (lambda: ThresholdController(window=0), "window"),
        (lambda: ThresholdController(warmup=-1), "warmup"),
        (lambda: ThresholdController(strength="graded"), "strength"),
        (lambda: ThresholdController(budget=-1), "budget"),
    ],
)
def test_bad_values_are_named(make, name):
    with pytest.raises(ValueError, match=f"{name} (is )?-?[\\w']"):
        make()


def test_several_losses_are_refused():
    with pytest.raises(ValueError, match=r"^loss has shape \(4,\)"):
        ThresholdController().should_trigger(torch.rand(4))


def test_a_loss_that_is_not_finite_does_not_stop_the_controller():
    controller = ThresholdController(2.0, warmup=0)
    strengths = [controller.should_trigger(loss) for loss in (1.0, math.nan, 5.0)]
    assert strengths == [0.0, 0.0, 1.0]
