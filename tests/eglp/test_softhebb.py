"""SoftHebb's published network: its step in NumPy, its control, what is stored, and what it costs."""

import json
import math

import numpy as np
import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from plastic_cli.analysis.cost import cost_of
from plastic_cli.data.datasets import load_dataset
from plastic_cli.runs.record import RunRecord
from plastic_cli.runs.store import RunStore
from plastic_cli.testing import check_rule, interrupted_after, plastic, training_numbers, write_tiny_dataset
from plastic_eglp.cost import perceptron_shape, softhebb_shape
from plastic_eglp.pooling import Pooling, map_sizes, pooling_of
from plastic_eglp.softhebb import (
    HiddenLearner,
    Pixels,
    ReadoutLearner,
    SoftHebbLearner,
    SoftHebbNetwork,
    SoftHebbPerceptron,
    begin_with_patches,
    descent_of_network,
    pooled_triangle,
)

SHAPE, FILTERS, CLASSES = (2, 12, 10), (5, 6, 7), 3
RATES, INVERSE_TEMPERATURES, POWERS = (0.08, 0.005, 0.01), (1.0, 0.65, 0.25), (0.7, 1.4, 1.0)
SMALL = ["--model", "softhebb", "--hidden", "4,5", "--epochs", "2", "--unsupervised-images", "60"]


def network(depth=3, *, radius=2.0, dropout=0.0, seed=0):
    return SoftHebbNetwork(
        SHAPE,
        FILTERS[:depth],
        CLASSES,
        rates=RATES[:depth],
        inverse_temperatures=INVERSE_TEMPERATURES[:depth],
        powers=POWERS[:depth],
        radius=radius,
        dropout=dropout,
        generator=torch.Generator().manual_seed(seed),
    ).double()


def learner(depth=3, *, learns=True, dropout=0.0, frozen=()):
    net = network(depth, dropout=dropout)
    readout = ReadoutLearner(net.readout, net.dropout, rate=0.01, anneal=True)
    return SoftHebbLearner(net, HiddenLearner(net, learns=learns, frozen=frozen), readout)


def images(n=4, seed=0):
    return torch.randn(n, math.prod(SHAPE), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---------------------------------------------------------------------------------------------- the step, in NumPy


def normalized(maps):
    """Batch normalization by the statistics of the batch, without parameters."""
    mean, variance = maps.mean((0, 2, 3), keepdims=True), maps.var((0, 2, 3), keepdims=True)
    return (maps - mean) / np.sqrt(variance + 1e-5)


def patches(maps, kernel):
    """The patch (channels * kernel * kernel) around each position: (n, height, width, patch), edges reflected."""
    edge = kernel // 2
    padded = np.pad(maps, ((0, 0), (0, 0), (edge, edge), (edge, edge)), mode="reflect")
    views = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), (2, 3))
    return views.transpose(0, 2, 3, 1, 4, 5).reshape(len(maps), *maps.shape[2:], -1)


def pooled(y, pooling):
    """Pooling of y (n, height, width, channels) by loops over the windows."""
    n, height, width, channels = y.shape
    fill = -np.inf if pooling.largest else 0.0
    edge = pooling.padding
    padded = np.full((n, height + 2 * edge, width + 2 * edge, channels), fill)
    padded[:, edge : edge + height, edge : edge + width] = y
    rows, columns = pooling.side(height), pooling.side(width)
    out = np.empty((n, channels, rows, columns))
    for row in range(rows):
        for column in range(columns):
            top, left = row * pooling.stride, column * pooling.stride
            window = padded[:, top : top + pooling.size, left : left + pooling.size]
            out[:, :, row, column] = window.max((1, 2)) if pooling.largest else window.mean((1, 2))
    return out


def step(maps, W, rate, inverse_temperature, power, pooling):
    """One layer for a batch: its pooled maps, and its filters after one step of SoftHebb, by loops over stimuli."""
    flat = W.reshape(len(W), -1)
    x = patches(normalized(maps), W.shape[-1])
    u = x @ flat.T
    change = np.zeros_like(flat)
    for stimulus, response in zip(x.reshape(-1, x.shape[-1]), u.reshape(-1, len(W)), strict=True):
        exponentials = np.exp(inverse_temperature * (response - response.max()))
        s = -exponentials / exponentials.sum()
        winner = int(response.argmax())
        s[winner] *= -1
        for unit in range(len(W)):
            change[unit] += s[unit] * (stimulus - response[unit] * flat[unit])
    norms = np.sqrt((flat**2).sum(1))
    new = flat + rate * np.sqrt(np.abs(norms - 1))[:, None] * change / np.abs(change).max()
    y = np.maximum(u - u.mean(-1, keepdims=True), 0) ** power
    return pooled(y, pooling), new.reshape(W.shape)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_two_batches_of_learning_are_those_of_the_equations(depth):
    one = learner(depth)
    weights = [layer.weight.numpy().copy() for layer in one.network.layers()]
    for seed in range(2):
        x = images(seed=seed)
        with torch.no_grad():
            found = [maps.numpy() for maps in one.network.train().maps(x)]
        one.hidden.learn(x)
        maps = x.numpy().reshape(-1, *SHAPE)
        for number in range(depth):
            maps, weights[number] = step(
                maps,
                weights[number],
                RATES[number],
                INVERSE_TEMPERATURES[number],
                POWERS[number],
                pooling_of(depth)[number],
            )
            np.testing.assert_allclose(found[number], maps, rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(one.network.layers()[number].weight.numpy(), weights[number], rtol=1e-9)
    assert (one.hidden.events, one.hidden.event_stimuli, one.hidden.messages) == (2, 8, 8 * depth)


def perceptron(radius=35.0, units=(9, 6)):
    return SoftHebbPerceptron(
        (2, 5, 4),
        units,
        CLASSES,
        rates=(0.045, 0.02),
        inverse_temperatures=(0.3, 2.0),
        radius=radius,
        dropout=0.0,
        pixels=Pixels((0.5, 0.25), (0.2, 0.1)),
        generator=torch.Generator().manual_seed(1),
    ).double()


def test_fully_connected_layers_learn_with_one_sign():
    net = perceptron(radius=3.0)
    hidden = HiddenLearner(net)
    weights = [layer.weight.numpy().copy() for layer in net.layers()]
    x = images(7)[:, :40]
    hidden.learn(x)
    h = x.numpy().reshape(7, 2, 20) * np.array([0.2, 0.1])[:, None] + np.array([0.5, 0.25])[:, None]
    h = h.reshape(7, 40)
    for layer, W, rate, inverse_temperature in zip(net.layers(), weights, (0.045, 0.02), (0.3, 2.0), strict=True):
        u = h @ W.T
        change = np.zeros_like(W)
        for stimulus, response in zip(h, u, strict=True):
            exponentials = np.exp(inverse_temperature * (response - response.max()))
            for unit, s in enumerate(exponentials / exponentials.sum()):
                change[unit] += s * (stimulus - response[unit] * W[unit])
        norms = np.sqrt((W**2).sum(1))
        new = W + rate * (np.abs(norms - 1) ** 0.2)[:, None] * change / np.abs(change).max()
        np.testing.assert_allclose(layer.weight.numpy(), new, rtol=1e-6)
        exponentials = np.exp(5 * (u - u.max(1, keepdims=True)))
        h = exponentials / exponentials.sum(1, keepdims=True)


def test_fully_connected_weights_begin_positive_with_the_radius():
    weight = perceptron(units=(3000,)).layers()[0].weight
    assert weight.min() >= 0
    assert weight.flatten(1).norm(dim=1).square().mean().sqrt() == pytest.approx(35, rel=0.01)


@pytest.mark.parametrize("largest", [True, False])
def test_the_power_before_and_after_pooling(largest):
    u = images().view(-1, *SHAPE)
    y = torch.relu(u - u.mean(1, keepdim=True)) ** 0.7
    pool = functional.max_pool2d if largest else functional.avg_pool2d
    torch.testing.assert_close(pooled_triangle(u, 0.7, Pooling(largest, 4, 2, 1)), pool(y, 4, 2, 1))


def test_the_published_sizes_of_maps():
    # 32 x 32 pixels, as in the published program, whose readout has 24576 inputs.
    assert map_sizes((3, 32, 32), (96, 384, 1536)) == [(3, 32, 32), (96, 16, 16), (384, 8, 8), (1536, 4, 4)]
    assert math.prod((1536, 4, 4)) == 24576
    assert [pooling.largest for pooling in pooling_of(4)] == [True, True, True, False]
    with pytest.raises(ValueError, match="too small for layer 3"):
        map_sizes((1, 4, 4), (2, 2, 2))


def test_filters_have_the_radius_on_average():
    net = SoftHebbNetwork(
        (3, 32, 32), (400,), 10, rates=(0.1,), inverse_temperatures=(1.0,), powers=(1.0,), radius=25.0, dropout=0.5
    )
    norms = net.layers()[0].weight.flatten(1).norm(dim=1)
    # The norm of 75 normal numbers varies by 1 / sqrt(150).
    assert norms.mean() == pytest.approx(25, rel=5 / math.sqrt(150 * 400) + 1 / 300)


def test_filters_from_patches_are_patches():
    one = learner(2)
    x = images(6)
    begin_with_patches(one.network, x, torch.Generator().manual_seed(3))
    maps = x.numpy().reshape(-1, *SHAPE)
    for number, layer in enumerate(one.network.layers()):
        W = layer.weight.numpy()
        every = patches(normalized(maps), W.shape[-1]).reshape(-1, W[0].size)
        centered = every - every.mean(1, keepdims=True)
        unit = centered / np.sqrt((centered**2).sum(1, keepdims=True))
        flat = W.reshape(len(W), -1)
        np.testing.assert_allclose(np.sqrt((flat**2).sum(1)), one.network.radius, rtol=1e-12)
        np.testing.assert_allclose((unit @ flat.T).max(0), one.network.radius, rtol=1e-12)
        maps, _ = step(maps, W, 0.0, 1.0, POWERS[number], pooling_of(2)[number])
    assert all(norm.num_batches_tracked == 0 for norm in one.network.norms)


# ----------------------------------------------------------------------------------------- the control, and the readout


def test_the_control_sees_the_same_images_and_keeps_its_filters():
    learned, control, begin = learner(), learner(learns=False), learner()
    for seed in range(3):
        learned.hidden.learn(images(seed=seed))
        control.hidden.learn(images(seed=seed))
    for layer, other in zip(control.network.layers(), begin.network.layers(), strict=True):
        assert torch.equal(layer.weight, other.weight)
    assert all(norm.num_batches_tracked == 3 for norm in control.network.norms)
    # The first layer's input does not depend on learning, the second's does.
    means = [[norm.running_mean for norm in one.network.norms] for one in (learned, control)]
    assert torch.equal(means[0][0], means[1][0])
    assert not torch.allclose(means[0][1], means[1][1])
    assert torch.equal(learned.network.readout.weight, control.network.readout.weight)
    assert control.hidden.synaptic_updates == 0


def test_a_frozen_layer_does_not_learn():
    one, begin = learner(frozen=(1,)), learner()
    one.hidden.learn(images())
    same = [
        torch.equal(layer.weight, other.weight)
        for layer, other in zip(one.network.layers(), begin.network.layers(), strict=True)
    ]
    assert same == [False, True, False]


def test_stored_features_teach_the_readout_as_images_do():
    stored, by_image = learner(), learner()
    x, y = images(30), torch.arange(30) % CLASSES
    for one in (stored, by_image):
        one.hidden.learn(x[:8])
    h = stored.last_features(x)
    for layer in by_image.network.layers():
        layer.requires_grad_(False)
    adam = torch.optim.Adam(by_image.network.readout.parameters(), lr=0.01)
    for batch in torch.arange(30).split(7):
        loss = stored.readout.train_batch(h[batch], y[batch])
        own = functional.cross_entropy(by_image.network.eval()(x[batch]), y[batch])
        adam.zero_grad()
        own.backward()
        adam.step()
        torch.testing.assert_close(loss, own.detach())
    torch.testing.assert_close(stored.predict(x), by_image.predict(x))
    torch.testing.assert_close(stored.predict(x), stored.readout.predict(h))


def test_dropout_has_its_share_and_keeps_the_mean():
    one = learner(dropout=0.5)
    h = torch.ones(50, one.network.readout.in_features, dtype=torch.float64)
    torch.manual_seed(0)
    dropped = one.network.dropout.train()(h)
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert dropped.mean() == pytest.approx(1, abs=5 / math.sqrt(h.numel()))
    torch.testing.assert_close(one.readout.predict(h), functional.linear(h, *one.network.readout.parameters()))


def test_backpropagation_teaches_all_layers():
    one, by_hand = learner(), network()
    one.backprop = descent_of_network(one.network, rate=0.01, anneal=True)
    x, y = images(), torch.arange(4) % CLASSES
    one.train_batch(x, y)
    assert (one.hidden.events, one.hidden.event_stimuli) == (1, 4)
    torch.testing.assert_close(one.first_weights.norm(dim=1), torch.ones(5, dtype=torch.float64))
    by_hand.requires_grad_(True).train()
    adam = torch.optim.Adam(by_hand.parameters(), lr=0.01)
    functional.cross_entropy(by_hand(x), y).backward()
    adam.step()
    for (name, found), expected in zip(one.network.named_parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(found, expected, msg=name)


# ---------------------------------------------------------------------------------------------------- runs, and costs


@pytest.fixture
def runs_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def metrics_of(*options):
    outcome = plastic("train", "eglp", *SMALL, *options, "--json")
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)["metrics"]


def test_without_a_step_a_run_is_its_control(runs_folder):
    metrics = metrics_of("--layer-rates", "0")
    assert metrics["control/accuracy"] == metrics["test/accuracy"]
    assert metrics["control/loss"] == metrics["test/loss"]
    learned = metrics_of()
    assert learned["control/loss"] == metrics["test/loss"]
    assert learned["test/loss"] != metrics["test/loss"]
    never = metrics_of("--events", "never")
    assert never["test/loss"] == metrics["test/loss"]
    assert (never["train/events"], learned["train/events"], learned["train/event_images"]) == (0, 6, 60)


def test_labels_of_some_images(runs_folder):
    few = metrics_of("--labeled-images", "50", "--no-control")
    (row,) = RunStore(runs_folder).rows()
    assert json.loads((runs_folder / row["run"] / "run.json").read_text())["speed"]["samples"] == 2 * 50
    assert few["train/event_images"] == 60


def test_a_run_that_stops_in_either_part_ends_with_the_same_bits(tmp_path):
    data = write_tiny_dataset(tmp_path / "data", size=8)
    options = ["--dataset", str(data), *SMALL, "--no-control", "--quiet"]
    assert plastic("train", "eglp", *options, "--runs", tmp_path / "whole").code == 0
    whole = state_of(tmp_path / "whole")
    for checkpoints in (2, 7):
        runs = tmp_path / f"stopped-{checkpoints}"
        with interrupted_after(checkpoints):
            plastic("train", "eglp", *options, "--runs", runs)
        (row,) = RunStore(runs).rows()
        assert row["status"] == "interrupted"
        assert plastic("train", "eglp", "--resume", row["run"], "--runs", runs, "--quiet").code == 0
        numbers, tensors = state_of(runs)
        assert numbers == whole[0]
        assert all(torch.equal(tensors[name], expected) for name, expected in whole[1].items())


def state_of(runs):
    from plastic_cli.classifier.data import described_data
    from plastic_cli.runs.folder import open_run
    from plastic_eglp.training import build

    (row,) = RunStore(runs).rows()
    run = open_run(runs / row["run"])
    frame = training_numbers(runs / row["run"])
    return frame.to_csv(), build(run, described_data(run)).network.state_dict()


@pytest.mark.slow
@pytest.mark.parametrize("model", ["softhebb", "softhebb-mlp"])
def test_it_meets_what_plastic_expects_of_a_rule(model, tmp_path):
    check_rule("eglp", tmp_path, {"model": model, "hidden": [4, 5], "epochs": 3, "batch_size": 16})


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--model", "softhebb", "--hidden", "4,4,4,4"], "too small for layer 4"),
        (["--model", "softhebb", "--hidden", "4,1"], "at least 2 units"),
        (["--model", "softhebb", "--update", "backprop", "--hidden", "1"], "at least 2 units"),
        (["--model", "softhebb-mlp", "--hidden", "1"], "at least 2 units"),
        (["--model", "cnn", "--hidden", "4,1"], "at least 2 units"),
        (["--activation", "triangle", "--hidden", "1"], "at least 2 units"),
        (["--model", "softhebb", "--events", "fixed"], "--events always or never"),
        (["--model", "softhebb", "--feedback", "direct"], "--feedback none"),
        (["--model", "softhebb", "--optimizer", "adam"], "--optimizer adam"),
        (["--model", "softhebb", "--local-learning-rate", "0.1"], "--local-learning-rate"),
        (["--model", "softhebb", "--update", "backprop", "--layer-rates", "0.1"], "--layer-rates"),
        (["--model", "cnn", "--layer-powers", "1"], "--layer-powers"),
        (["--model", "softhebb", "--layer-rates", "-1"], "--layer-rates"),
        (["--model", "softhebb", "--layer-powers", "0"], "--layer-powers"),
        (["--model", "softhebb", "--layer-powers", "1e30"], "--layer-powers"),
        (["--model", "softhebb-mlp", "--initial-filters", "patches"], "--initial-filters"),
        (["--model", "softheb"], "softhebb"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, word, runs_folder):
    outcome = plastic("train", "eglp", *options)
    assert outcome.code == 2
    assert word in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_shape_has_the_operations_that_torch_counts(depth):
    net = network(depth).eval()
    shape = softhebb_shape(SHAPE, FILTERS[:depth], CLASSES)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(images(5))
    assert counter.get_total_flops() == 5 * shape.forward_flops
    with FlopCounterMode(display=False) as counter:
        net.requires_grad_(True)(images(5)).sum().backward()
    assert counter.get_total_flops() == 5 * (shape.forward_flops + shape.gradient_flops)
    assert shape.parameters == sum(parameter.numel() for parameter in net.parameters())
    assert shape.buffers == sum(norm.running_mean.numel() + norm.running_var.numel() for norm in net.norms)


def test_the_shape_of_fully_connected_layers():
    net = perceptron().eval()
    shape = perceptron_shape((2, 5, 4), (9, 6), CLASSES)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(images(5)[:, :40])
    assert counter.get_total_flops() == 5 * shape.forward_flops
    assert shape.parameters == sum(parameter.numel() for parameter in net.parameters())


def test_features_are_computed_once_for_each_image():
    config = {"model": "softhebb", "hidden": [2, 3], "epochs": 4, "batch_size": 6, "event_budget": 0}
    config |= {"events": "always", "feedback": "none", "local_rule": "softhebb", "activation": "triangle"}
    summary = {"train/events": 3.0, "train/event_images": 30.0, "train/messages": 60.0, "train/synaptic_updates": 312.0}
    data = {"image_shape": [1, 8, 8], "classes": 3}
    run = RunRecord("run", "eglp", 0, config, status="completed", data=data, summary=summary, speed={"samples": 4 * 20})
    cost = cost_of(run)
    # Kernels 5 and 3 on 64 and 16 positions, then 3 * 2 * 2 numbers for 3 classes.
    hidden, readout = 2 * (64 * 2 * 25 + 16 * 3 * 2 * 9), 2 * 12 * 3
    assert cost.inference_flops == (30 + 20) * hidden + 80 * readout
    assert cost.learning_flops == 30 * hidden + 80 * readout
    assert (cost.samples, cost.messages, cost.updates) == (80, 60, 312 + 4 * 4 * 36)
    # The mean and the variance of 1 + 2 channels, two moments of the readout, and 20 images' features.
    assert cost.state_bytes == 4 * (50 + 54 + 39 + 6 + 2 * 39 + 20 * 12)
    assert cost.step_bytes == 4 * 10 * (64 + 128 + 32 + 48)


def test_backpropagation_is_priced_as_such():
    config = {"model": "softhebb", "hidden": [2, 3], "epochs": 4, "batch_size": 6, "update": "backprop"}
    config |= {"events": "always", "event_budget": 0, "activation": "triangle"}
    data = {"image_shape": [1, 8, 8], "classes": 3}
    run = RunRecord("run", "eglp", 0, config, status="completed", data=data, summary={}, speed={"samples": 80})
    first, second, readout = 64 * 2 * 25, 16 * 3 * 2 * 9, 12 * 3
    cost = cost_of(run)
    assert cost.inference_flops == 80 * 2 * (first + second + readout)
    assert cost.learning_flops == 80 * 2 * (first + 2 * second + 2 * readout)
    assert cost.updates == 16 * (50 + 54 + 36)


def test_few_data_have_a_network_too(tmp_path):
    data = load_dataset(
        str(write_tiny_dataset(tmp_path / "data", size=8)), None, validation=0, classes=(), device="cpu"
    )
    assert map_sizes(data.image_shape, (4, 5)) == [(data.image_shape[0], 8, 8), (4, 4, 4), (5, 2, 2)]
