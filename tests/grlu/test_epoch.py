"""The compiled epoch against rule.py: step by step, as a whole, and continued."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from grlu.drawn import noise_of_steps
from plastic_grlu import epoch, rule
from plastic_grlu.epoch import NoiseState, Settings, train_epoch
from plastic_grlu.kernels.learn import Draws, Options, Samples, learn
from plastic_grlu.kernels.primitives import BLOCK

DEFAULTS = {
    "perturbations": 3,
    "sigma": 0.1,
    "learning_rate": 0.5,
    "batch_size": 1,
    "credit": "output",
    "top_k": None,
    "skip": False,
}


def network(sizes, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weights, biases = rule.initial_parameters(sizes, generator, dtype)
    return weights, [0.1 * torch.randn(bias.shape, generator=generator, dtype=dtype) for bias in biases]


def samples(sizes, count=50, dtype=torch.float32, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, sizes[0], generator=generator, dtype=dtype)
    return x, torch.randint(sizes[-1], (count,), generator=generator), generator


def copies(parts):
    return [part.clone() for part in parts]


def epoch_of_rule(weights, biases, x, y, order, noises, gumbels, options):
    """Run rule.py once per step and return the mean reward over samples: what `train_epoch` must compute."""
    credit, skip = options["credit"], options["skip"]
    total = 0.0
    for step, batch in enumerate(order.split(options["batch_size"])):
        n, masks = noises[step], None
        if options["top_k"] is not None:
            masks = rule.pair_masks(
                weights, biases, x[batch], n, gumbels[step], options["top_k"], credit=credit, skip=skip
            )
        dw, db, reward = rule.grlu_update(weights, biases, x[batch], y[batch], n, masks, credit=credit, skip=skip)
        for parameter, update in zip((*weights, *biases), (*dw, *db), strict=True):
            parameter += options["learning_rate"] * update
        total += reward.item() * len(batch)
    return total / len(order)


NETWORKS = [([20, 10], False), ([20, 16, 10], False), ([20, 16, 16, 10], True), ([16, 16, 16, 12, 5], True)]


@pytest.mark.parametrize(("sizes", "skip"), NETWORKS)
@pytest.mark.parametrize("credit", ["output", "preactivation"])
@pytest.mark.parametrize("top_k", [None, 0.25])
@pytest.mark.parametrize(("batch", "perturbations"), [(1, 3), (3, 2)])
def test_kernel_equals_rule_with_given_noise(sizes, skip, credit, top_k, batch, perturbations):
    steps = 2 * BLOCK // batch + 7
    weights, biases = network(sizes, torch.float64)
    x, y, generator = samples(sizes, dtype=torch.float64)
    order = torch.randint(len(x), (steps * batch,), generator=generator)
    rows = batch * perturbations
    options = {**DEFAULTS, "batch_size": batch, "credit": credit, "top_k": top_k, "skip": skip}

    def draw(widths, sampler):
        return [[sampler(torch.empty(rows, w, dtype=torch.float64)) for w in widths] for _ in range(steps)]

    noises = draw(sizes[1:], lambda t: 0.1 * t.normal_(generator=generator))
    gumbels = draw(sizes[1:-1] if top_k else [], lambda t: -t.exponential_(generator=generator).log())
    parameters = torch.cat([part.flatten() for pair in zip(weights, biases, strict=True) for part in pair]).numpy()
    rewards = np.empty(steps)
    kept = [0 if top_k is None else rule.kept_units(width, top_k) for width in sizes[1:-1]]
    learn(
        parameters,
        np.array(sizes),
        Samples(x.numpy(), y.numpy(), order.numpy()),
        Options(batch, perturbations, math.nan, 0.5, credit == "preactivation", skip, np.array(kept, np.int64)),
        Draws(
            np.uint64(0),
            np.uint64(0),
            np.stack([torch.cat([n.flatten() for n in step]).numpy() for step in noises]),
            np.stack([torch.cat([g.flatten() for g in step]).numpy() if step else np.empty(0) for step in gumbels]),
        ),
        rewards,
    )
    before = torch.cat([part.flatten() for pair in zip(weights, biases, strict=True) for part in pair]).numpy()
    mean_reward = epoch_of_rule(weights, biases, x, y, order, noises, gumbels, options)
    expected = torch.cat([part.flatten() for pair in zip(weights, biases, strict=True) for part in pair]).numpy()
    # Learning amplifies rounding, more in deeper networks. A wrong term would exceed this bound by far.
    assert np.abs(expected - before).max() > 0.1
    np.testing.assert_allclose(parameters, expected, rtol=0, atol=1e-8)
    assert rewards.mean() == pytest.approx(mean_reward, abs=1e-8)


@pytest.mark.parametrize(("sizes", "skip"), NETWORKS)
@pytest.mark.parametrize(
    ("credit", "top_k", "batch"), [("output", None, 1), ("output", 0.5, 1), ("preactivation", None, 4)]
)
def test_epoch_equals_rule_with_the_same_noise(sizes, skip, credit, top_k, batch):
    options = {**DEFAULTS, "credit": credit, "top_k": top_k, "batch_size": batch, "skip": skip, "learning_rate": 0.1}
    weights, biases = network(sizes)
    x, y, generator = samples(sizes)
    order = torch.randint(len(x), (90,), generator=generator)  # 90 = 22 * 4 + 2: the last batch is smaller
    state = NoiseState(key=2**64 - 3, counter=17)
    full, rest = divmod(90, batch)
    noises, gumbels = noise_of_steps(state, full, sizes, rows=3 * batch, sigma=0.1, top_k=top_k)
    if rest:
        last = noise_of_steps(NoiseState(state.key, 17 + full), 1, sizes, rows=3 * rest, sigma=0.1, top_k=top_k)
        noises, gumbels = noises + last[0], gumbels + last[1]
    fast_weights, fast_biases = copies(weights), copies(biases)
    reward = train_epoch(fast_weights, fast_biases, x, y, order, Settings(**options), state)
    expected = epoch_of_rule(weights, biases, x, y, order, noises, gumbels, options)
    assert state == NoiseState(2**64 - 3, 17 + full + (rest > 0))
    assert reward == pytest.approx(expected, abs=1e-4)
    for fast, slow in zip((*fast_weights, *fast_biases), (*weights, *biases), strict=True):
        torch.testing.assert_close(fast, slow, rtol=0, atol=1e-4)


def run(count, *, start=0, key=5, parameters=None, progress=None, **changes):
    """Train [12, 9, 4] on samples start to start + count; returns the parameters, the reward and the state."""
    weights, biases = network([12, 9, 4]) if parameters is None else parameters
    x, y, _ = samples([12, 9, 4], 400)
    state = changes.pop("state", None) or NoiseState(key)
    order = torch.arange(start, start + count)
    reward = train_epoch(weights, biases, x, y, order, Settings(**{**DEFAULTS, **changes}), state, progress)
    return (weights, biases), reward, state


def assert_same(a, b, **tolerance):
    for left, right in zip((*a[0], *a[1]), (*b[0], *b[1]), strict=True):
        if tolerance:
            torch.testing.assert_close(left, right, **tolerance)
        else:
            assert torch.equal(left, right)


@pytest.mark.parametrize("changes", [{}, {"top_k": 0.5}, {"batch_size": 5, "credit": "preactivation"}])
def test_the_same_key_gives_the_same_numbers_for_any_chunk_size(changes, monkeypatch):
    once, reward, _ = run(330, **changes)
    again, same_reward, _ = run(330, **changes)
    assert_same(once, again)
    assert reward == same_reward
    other, _, _ = run(330, key=6, **changes)
    assert not torch.equal(once[0][0], other[0][0])
    monkeypatch.setattr(epoch, "_CHUNK_SECONDS", 0.0)
    small, small_reward, _ = run(330, **changes)
    assert_same(once, small)
    assert reward == small_reward


def test_the_number_of_threads_does_not_change_the_numbers():
    # In separate processes, where the matrix library is loaded only when the kernel is.
    program = """if True:
        import hashlib, torch
        from plastic_grlu import rule
        from plastic_grlu.epoch import NoiseState, Settings, train_epoch
        generator = torch.Generator().manual_seed(0)
        weights, biases = rule.initial_parameters([784, 256, 64, 10], generator)
        x, y = torch.rand(100, 784, generator=generator), torch.arange(100) % 10
        train_epoch(weights, biases, x, y, torch.arange(100), Settings(64, 0.1, 0.1), NoiseState(5))
        print(hashlib.sha256(b"".join(weight.numpy().tobytes() for weight in weights)).hexdigest())
    """
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "OMP_NUM_THREADS": threads, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(outputs) == 1


def test_a_continued_epoch_equals_an_uninterrupted_one():
    whole, _, end = run(300)
    at_block, _, state = run(2 * BLOCK)
    run(300 - 2 * BLOCK, start=2 * BLOCK, parameters=at_block, state=NoiseState(state.key, state.counter))
    assert_same(whole, at_block)
    anywhere, _, state = run(101)
    _, _, last = run(199, start=101, parameters=anywhere, state=state)
    assert_same(whole, anywhere, rtol=0, atol=1e-5)
    assert last == end == NoiseState(5, 300)


def test_learning_can_continue_after_an_interrupt(monkeypatch):
    monkeypatch.setattr(epoch, "_CHUNK_SECONDS", 0.0)
    seen = []

    def interrupt(done):
        seen.append(done)
        if done >= 100:
            raise KeyboardInterrupt

    parameters, state = network([12, 9, 4]), NoiseState(5)
    with pytest.raises(KeyboardInterrupt):
        run(300, parameters=parameters, state=state, progress=interrupt)
    assert seen == [BLOCK, 2 * BLOCK]
    assert state.counter == 2 * BLOCK
    run(300 - 2 * BLOCK, start=2 * BLOCK, parameters=parameters, state=state)
    assert_same(parameters, run(300)[0])


def test_progress_counts_samples_up_to_the_end():
    seen = []
    run(333, batch_size=4, progress=seen.append)
    assert seen == sorted(set(seen))
    assert seen[-1] == 333


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_divergence_is_reported_with_its_step(dtype):
    weights, biases = network([12, 9, 4], dtype)
    x, y, _ = samples([12, 9, 4], 100, dtype)
    x[70] = math.nan
    with pytest.raises(FloatingPointError, match="reward is no longer finite at step 1070"):
        train_epoch(weights, biases, x, y, torch.arange(100), Settings(**DEFAULTS), NoiseState(1, 1000))
    weights, biases = network([12, 9, 4], dtype)
    options = {**DEFAULTS, "learning_rate": 1e38 if dtype == torch.float32 else 1e308, "sigma": 10.0}
    with pytest.raises(FloatingPointError, match=r"step \d+"):
        train_epoch(weights, biases, x[:70], y, torch.arange(70), Settings(**options), NoiseState(1))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"credit": "input"}, "credit"),
        ({"y": torch.tensor([0, 1, 2, 4])}, "label 4"),
        ({"y": torch.tensor([0, -1, 2, 3])}, "label -1"),
        ({"order": torch.tensor([0, 4])}, "index 4"),
        ({"x": torch.zeros(4, 11)}, "11 features"),
        ({"perturbations": 0}, "perturbations"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_arguments_that_the_kernel_cannot_take_are_refused(changed, message):
    weights, biases = network([12, 9, 4])
    before = copies(weights)
    given = {"x": torch.zeros(4, 12), "y": torch.tensor([0, 1, 2, 3]), "order": torch.arange(4), **DEFAULTS, **changed}
    data = [given.pop(name) for name in ("x", "y", "order")]
    with pytest.raises(ValueError, match=message):
        train_epoch(weights, biases, *data, Settings(**given), NoiseState(1))
    assert all(torch.equal(a, b) for a, b in zip(weights, before, strict=True))


def test_without_samples_there_is_no_reward():
    _, reward, state = run(0)
    assert math.isnan(reward)
    assert state.counter == 0


@pytest.mark.parametrize("top_k", [None, 0.5])
@pytest.mark.parametrize("credit", ["output", "preactivation"])
def test_compiled_and_eager_paths_learn_equally_well(top_k, credit):
    # Eight well separated classes. Parameters in float64 take the eager path, with other noise.
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(8, 30, generator=generator)
    y = torch.randint(8, (1200,), generator=generator)
    x = centers[y] + 0.3 * torch.randn(1200, 30, generator=generator)
    options = {**DEFAULTS, "perturbations": 16, "learning_rate": 1.0, "credit": credit, "top_k": top_k}
    accuracy, rewards = {}, {}
    for dtype in (torch.float32, torch.float64):
        weights, biases = rule.initial_parameters([30, 32, 8], torch.Generator().manual_seed(1), dtype)
        rewards[dtype] = train_epoch(weights, biases, x, y, torch.arange(1000), Settings(**options), NoiseState(3))
        logits = rule.predict(weights, biases, x[1000:].to(dtype), top_k=top_k)
        accuracy[dtype] = (logits.argmax(1) == y[1000:]).double().mean().item()
    assert min(accuracy.values()) > 0.9
    assert rewards[torch.float32] == pytest.approx(rewards[torch.float64], abs=0.15)
    assert rewards[torch.float32] != rewards[torch.float64]


def test_the_eager_path_is_deterministic():
    results = []
    for _ in range(2):
        weights, biases = network([12, 9, 4], torch.float64)
        x, y, _ = samples([12, 9, 4], 30)
        train_epoch(weights, biases, x, y, torch.arange(30), Settings(**{**DEFAULTS, "top_k": 0.5}), NoiseState(4))
        results.append((weights, biases))
    assert_same(*results)


def test_the_noise_key_is_drawn_from_a_seed():
    seeds = np.random.SeedSequence(7).spawn(2)
    first, second = (NoiseState.from_seed(seed) for seed in seeds)
    assert first == NoiseState.from_seed(np.random.SeedSequence(7).spawn(2)[0])
    assert first.key != second.key
    assert type(first.key) is int
