"""The compiled stream against rule.py, step by step and as a whole; its random numbers; resuming."""

import math
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plastic_cli.numerics import kernels
from plastic_grlu import any_depth, compiled, noise, rule, stream
from plastic_grlu.noise import fill, random_words
from plastic_grlu.steps import BLOCK, choose_largest, log_probabilities
from plastic_grlu.stream import StreamState, stream_noise, train_stream

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


def rule_stream(weights, biases, x, y, order, noises, gumbels, options):
    """What the stream has to do, one step of rule.py after the other; returns the mean reward over samples."""
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
    any_depth.learn(
        parameters,
        np.array(sizes),
        x.numpy(),
        y.numpy(),
        order.numpy(),
        batch,
        perturbations,
        math.nan,
        0.5,
        credit == "preactivation",
        skip,
        np.array([0 if top_k is None else rule.kept_units(width, top_k) for width in sizes[1:-1]], np.int64),
        np.uint64(0),
        np.uint64(0),
        np.stack([torch.cat([n.flatten() for n in step]).numpy() for step in noises]),
        np.stack([torch.cat([g.flatten() for g in step]).numpy() if step else np.empty(0) for step in gumbels]),
        rewards,
    )
    before = torch.cat([part.flatten() for pair in zip(weights, biases, strict=True) for part in pair]).numpy()
    mean_reward = rule_stream(weights, biases, x, y, order, noises, gumbels, options)
    expected = torch.cat([part.flatten() for pair in zip(weights, biases, strict=True) for part in pair]).numpy()
    # The stream amplifies rounding, the more the deeper: the bound is far below what any wrong term would do.
    assert np.abs(expected - before).max() > 0.1
    np.testing.assert_allclose(parameters, expected, rtol=0, atol=1e-8)
    assert rewards.mean() == pytest.approx(mean_reward, abs=1e-8)


@pytest.mark.parametrize(("sizes", "skip"), NETWORKS)
@pytest.mark.parametrize(
    ("credit", "top_k", "batch"), [("output", None, 1), ("output", 0.5, 1), ("preactivation", None, 4)]
)
def test_stream_equals_rule_with_the_noise_it_names(sizes, skip, credit, top_k, batch):
    options = {**DEFAULTS, "credit": credit, "top_k": top_k, "batch_size": batch, "skip": skip, "learning_rate": 0.1}
    weights, biases = network(sizes)
    x, y, generator = samples(sizes)
    order = torch.randint(len(x), (90,), generator=generator)  # 90 = 22 * 4 + 2: the last batch is smaller
    state = StreamState(key=2**64 - 3, counter=17)
    full, rest = divmod(90, batch)
    noises, gumbels = stream_noise(state, full, sizes, rows=3 * batch, sigma=0.1, top_k=top_k)
    if rest:
        last = stream_noise(StreamState(state.key, 17 + full), 1, sizes, rows=3 * rest, sigma=0.1, top_k=top_k)
        noises, gumbels = noises + last[0], gumbels + last[1]
    fast_weights, fast_biases = copies(weights), copies(biases)
    reward = train_stream(fast_weights, fast_biases, x, y, order, state=state, **options)
    expected = rule_stream(weights, biases, x, y, order, noises, gumbels, options)
    assert state == StreamState(2**64 - 3, 17 + full + (rest > 0))
    assert reward == pytest.approx(expected, abs=1e-4)
    for fast, slow in zip((*fast_weights, *fast_biases), (*weights, *biases), strict=True):
        torch.testing.assert_close(fast, slow, rtol=0, atol=1e-4)


def run(count, *, start=0, key=5, parameters=None, progress=None, **changes):
    """Train [12, 9, 4] on samples start to start + count; returns the parameters, the reward and the state."""
    weights, biases = network([12, 9, 4]) if parameters is None else parameters
    x, y, _ = samples([12, 9, 4], 400)
    state = changes.pop("state", None) or StreamState(key)
    order = torch.arange(start, start + count)
    reward = train_stream(weights, biases, x, y, order, state=state, progress=progress, **{**DEFAULTS, **changes})
    return (weights, biases), reward, state


def assert_same(a, b, **tolerance):
    for left, right in zip((*a[0], *a[1]), (*b[0], *b[1]), strict=True):
        if tolerance:
            torch.testing.assert_close(left, right, **tolerance)
        else:
            assert torch.equal(left, right)


@pytest.mark.parametrize("changes", [{}, {"top_k": 0.5}, {"batch_size": 5, "credit": "preactivation"}])
def test_same_key_same_numbers_whatever_the_chunks(changes, monkeypatch):
    once, reward, _ = run(330, **changes)
    again, same_reward, _ = run(330, **changes)
    assert_same(once, again)
    assert reward == same_reward
    other, _, _ = run(330, key=6, **changes)
    assert not torch.equal(once[0][0], other[0][0])
    monkeypatch.setattr(stream, "_CHUNK_SECONDS", 0.0)
    small, small_reward, _ = run(330, **changes)
    assert_same(once, small)
    assert reward == small_reward


def test_same_numbers_on_any_number_of_threads():
    # In processes of their own, where the matrix library is loaded only when the kernel is.
    program = """if True:
        import hashlib, torch
        from plastic_grlu import rule
        from plastic_grlu.stream import StreamState, train_stream
        generator = torch.Generator().manual_seed(0)
        weights, biases = rule.initial_parameters([784, 256, 64, 10], generator)
        x, y = torch.rand(100, 784, generator=generator), torch.arange(100) % 10
        train_stream(weights, biases, x, y, torch.arange(100), perturbations=64, sigma=0.1, learning_rate=0.1,
                     batch_size=1, credit="output", top_k=None, skip=False, state=StreamState(5))
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


def test_continued_stream_equals_an_uninterrupted_one():
    whole, _, end = run(300)
    at_block, _, state = run(2 * BLOCK)
    run(300 - 2 * BLOCK, start=2 * BLOCK, parameters=at_block, state=StreamState(state.key, state.counter))
    assert_same(whole, at_block)
    anywhere, _, state = run(101)
    _, _, last = run(199, start=101, parameters=anywhere, state=state)
    assert_same(whole, anywhere, rtol=0, atol=1e-5)
    assert last == end == StreamState(5, 300)


def test_interrupt_leaves_parameters_and_state_to_continue_from(monkeypatch):
    monkeypatch.setattr(stream, "_CHUNK_SECONDS", 0.0)
    seen = []

    def interrupt(done):
        seen.append(done)
        if done >= 100:
            raise KeyboardInterrupt

    parameters, state = network([12, 9, 4]), StreamState(5)
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
def test_breakdown_is_reported_with_its_step(dtype):
    weights, biases = network([12, 9, 4], dtype)
    x, y, _ = samples([12, 9, 4], 100, dtype)
    x[70] = math.nan
    with pytest.raises(FloatingPointError, match="reward is no longer finite at step 1070"):
        train_stream(weights, biases, x, y, torch.arange(100), state=StreamState(1, 1000), **DEFAULTS)
    weights, biases = network([12, 9, 4], dtype)
    options = {**DEFAULTS, "learning_rate": 1e38 if dtype == torch.float32 else 1e308, "sigma": 10.0}
    with pytest.raises(FloatingPointError, match=r"step \d+"):
        train_stream(weights, biases, x[:70], y, torch.arange(70), state=StreamState(1), **options)


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
def test_arguments_that_would_lead_the_kernel_astray_are_refused(changed, message):
    weights, biases = network([12, 9, 4])
    before = copies(weights)
    given = {"x": torch.zeros(4, 12), "y": torch.tensor([0, 1, 2, 3]), "order": torch.arange(4), **DEFAULTS, **changed}
    with pytest.raises(ValueError, match=message):
        train_stream(weights, biases, state=StreamState(1), **given)
    assert all(torch.equal(a, b) for a, b in zip(weights, before, strict=True))


def test_no_samples_no_reward():
    _, reward, state = run(0)
    assert math.isnan(reward)
    assert state.counter == 0


@pytest.mark.parametrize("top_k", [None, 0.5])
@pytest.mark.parametrize("credit", ["output", "preactivation"])
def test_compiled_and_eager_streams_learn_alike(top_k, credit):
    # Eight well separated classes. Parameters in float64 take the eager path, with other noise.
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(8, 30, generator=generator)
    y = torch.randint(8, (1200,), generator=generator)
    x = centres[y] + 0.3 * torch.randn(1200, 30, generator=generator)
    options = {**DEFAULTS, "perturbations": 16, "learning_rate": 1.0, "credit": credit, "top_k": top_k}
    accuracy, rewards = {}, {}
    for dtype in (torch.float32, torch.float64):
        weights, biases = rule.initial_parameters([30, 32, 8], torch.Generator().manual_seed(1), dtype)
        rewards[dtype] = train_stream(weights, biases, x, y, torch.arange(1000), state=StreamState(3), **options)
        logits = rule.predict(weights, biases, x[1000:].to(dtype), top_k=top_k)
        accuracy[dtype] = (logits.argmax(1) == y[1000:]).double().mean().item()
    assert min(accuracy.values()) > 0.9
    assert rewards[torch.float32] == pytest.approx(rewards[torch.float64], abs=0.15)
    assert rewards[torch.float32] != rewards[torch.float64]


def test_eager_stream_repeats_itself():
    results = []
    for _ in range(2):
        weights, biases = network([12, 9, 4], torch.float64)
        x, y, _ = samples([12, 9, 4], 30)
        train_stream(weights, biases, x, y, torch.arange(30), state=StreamState(4), **{**DEFAULTS, "top_k": 0.5})
        results.append((weights, biases))
    assert_same(*results)


def test_state_is_drawn_from_a_seed():
    seeds = np.random.SeedSequence(7).spawn(2)
    first, second = (StreamState.from_seed(seed) for seed in seeds)
    assert first == StreamState.from_seed(np.random.SeedSequence(7).spawn(2)[0])
    assert first.key != second.key
    assert type(first.key) is int


# Random numbers


def test_philox_gives_the_published_words():
    # Known answers of Random123 (Salmon et al. 2011) for philox4x32 with 10 rounds.
    pi = [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344]
    cases = [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (pi, [0xA4093822, 0x299F31D0], [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]),
    ]
    for counter, key, words in cases:
        drawn = random_words(np.array([counter], np.uint32), np.array(key, np.uint32))
        assert drawn[0].tolist() == words


def drawn(key, steps, width, first_step=0, sigma=1.0):
    normals, gumbels = np.empty((steps, width), np.float32), np.empty((steps, width), np.float32)
    fill(normals, gumbels, sigma, np.uint64(key), np.uint64(first_step))
    return normals, gumbels


@pytest.fixture(scope="module")
def numbers():
    return drawn(key=2024, steps=1000, width=2000)


def test_normal_numbers_are_normal(numbers):
    normals = numbers[0].astype(np.float64).ravel()
    count = len(normals)
    # Five standard errors of each moment, whose variances are 1, 2, 15 and 96 over the count.
    assert abs(normals.mean()) < 5 / math.sqrt(count)
    assert abs((normals**2).mean() - 1) < 5 * math.sqrt(2 / count)
    assert abs((normals**3).mean()) < 5 * math.sqrt(15 / count)
    assert abs((normals**4).mean() - 3) < 5 * math.sqrt(96 / count)
    assert scipy.stats.kstest(normals, "norm").pvalue > 1e-4
    for bound in (3, 4, 4.5):
        for tail in (normals > bound, normals < -bound):
            expected = count * scipy.stats.norm.sf(bound)
            assert abs(tail.sum() - expected) < 5 * math.sqrt(expected) + 1
    assert np.abs(normals).max() > 4.8


def test_gumbel_numbers_are_gumbel(numbers):
    gumbels = numbers[1].astype(np.float64).ravel()
    assert scipy.stats.kstest(gumbels, "gumbel_r").pvalue > 1e-4
    assert abs(gumbels.mean() - np.euler_gamma) < 5 * math.pi / math.sqrt(6 * len(gumbels))


def test_numbers_do_not_depend_on_each_other(numbers):
    normals, gumbels = numbers
    normals = normals.astype(np.float64)
    gumbels = (gumbels - gumbels.mean()) / gumbels.std()
    quarter = normals.shape[1] // 4
    other_key = drawn(key=2025, steps=1000, width=2000)[0]
    distant_key = drawn(key=2024 + 2**32, steps=1000, width=2000)[0]
    pairs = {
        "neighbours": (normals[:, :-1], normals[:, 1:]),
        "the two of one Box-Muller": (normals[:, :quarter], normals[:, quarter : 2 * quarter]),
        "one Philox call": (normals[:, :quarter], normals[:, 2 * quarter : 3 * quarter]),
        "steps": (normals[:-1], normals[1:]),
        "keys": (normals, other_key),
        "keys that differ in the high word": (normals, distant_key),
        "kinds": (normals, gumbels),
    }
    for name, (a, b) in pairs.items():
        for transform in (lambda v: v, lambda v: (v**2 - (v**2).mean()) / (v**2).std()):
            correlation = (transform(a) * transform(b)).mean()
            assert abs(correlation) < 5 / math.sqrt(a.size), name


def test_no_words_repeat():
    # A thousand steps of two keys: no block of four words occurs twice.
    counters = np.zeros((50_000, 4), np.uint32)
    counters[:, 0] = np.arange(50_000) % 50
    counters[:, 2] = np.arange(50_000) // 50
    blocks = Counter()
    for key in (1, 2):
        words = random_words(counters, np.array([key, 0], np.uint32))
        blocks.update(map(tuple, words.tolist()))
    assert max(blocks.values()) == 1


def test_numbers_belong_to_their_step(numbers):
    later = drawn(key=2024, steps=3, width=2000, first_step=500)
    assert np.array_equal(later[0], numbers[0][500:503])
    assert np.array_equal(later[1], numbers[1][500:503])
    scaled = drawn(key=2024, steps=2, width=2000, sigma=0.25)[0]
    np.testing.assert_allclose(scaled, 0.25 * numbers[0][:2], rtol=1e-5)
    beyond = drawn(key=2024, steps=2, width=2000, first_step=2**32 - 1)[0]
    assert not np.array_equal(beyond[1], numbers[0][0])  # step 2^32 is not step 0


def test_extreme_words_give_finite_numbers():
    words = np.array([0, 1, 2**31, 2**32 - 129, 2**32 - 1], np.uint32)
    expected = -np.log((words.astype(np.float64) + 0.5) / 2**32)
    exponentials = np.array([noise._exponential(word) for word in words])
    np.testing.assert_allclose(exponentials, expected, rtol=1e-6, atol=1e-7)
    gumbels = np.array([noise._gumbel(word) for word in words])
    assert np.isfinite(gumbels).all()
    np.testing.assert_allclose(gumbels[:3], -np.log(expected[:3]), rtol=1e-5)
    for angle in words:
        pair = np.array(noise._box_muller(np.uint32(0), angle, np.float32(2)))
        assert np.hypot(*pair) == pytest.approx(math.sqrt(2 * expected[0]), rel=1e-6)


# Parts of the kernels


@settings(max_examples=200, deadline=None)
@given(
    keys=st.lists(
        st.one_of(st.floats(-50, 50, width=32), st.sampled_from([0.0, -0.0, 1.0, 1e-38, -3e38, 3e38])),
        min_size=1,
        max_size=70,
    ),
    data=st.data(),
)
def test_choose_largest_keeps_exactly_the_largest(keys, data):
    kept = data.draw(st.integers(1, len(keys)))
    values = np.array([*keys, 99.0], np.float32)  # the last entry is beyond the width
    mask = np.full(len(values), 7.0)
    choose_largest(values, len(keys), kept, mask)
    chosen = mask[:-1] == 1
    assert mask[-1] == 7
    assert chosen.sum() == kept
    assert set(mask[:-1]) <= {0, 1}
    np.testing.assert_array_equal(np.sort(values[:-1][chosen]), np.sort(values[:-1])[len(keys) - kept :])


def test_log_probabilities_equal_scipy():
    logits = np.random.default_rng(0).normal(scale=20, size=(6, 11))
    logits[0, 0] = 2000
    labels = np.array([3, 0], np.int64)
    result = np.empty(6)
    log_probabilities(logits, labels, np.empty(66), result)
    expected = scipy.special.log_softmax(logits, axis=1)[np.arange(6), np.tile(labels, 3)]
    np.testing.assert_allclose(result, expected, rtol=1e-13)


def test_kernel_runs_without_a_cache(monkeypatch):
    options = []

    def njit(**chosen):
        options.append(chosen)
        if chosen.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(kernels.numba, "njit", njit)
    before = kernels.numba.config.CACHE_DIR
    double = compiled.kernel(lambda value: 2 * value)
    assert double(4) == 8
    assert [chosen.get("cache", False) for chosen in options] == [True, False]
    assert before == kernels.numba.config.CACHE_DIR


def test_kernel_survives_a_cache_that_cannot_be_written(monkeypatch):
    calls = []

    def full_disk_once(value):
        calls.append(value)
        if len(calls) == 1:
            raise OSError("No space left on device")
        return value

    monkeypatch.setattr(kernels.numba, "njit", lambda **_: lambda function: full_disk_once)
    assert compiled.kernel(lambda value: value)(3) == 3
