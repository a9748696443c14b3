"""What backpropagation, random features and deep supervision cost, counted by hand on small networks."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plastic_cli.analysis.cost import cost_of
from plastic_cli.runs.record import RunRecord

# Images of 2 x 3 pixels, 6 numbers, in 3 classes. The network 6-5-4-3 has 30 + 20 + 12 = 62 weights and 12 biases.
DATA = {"image_shape": [1, 2, 3], "classes": 3}
WEIGHTS, PARAMETERS = 62, 74


def record(samples=14, epochs=2, batch_size=4, **options):
    config = {"hidden": [5, 4], "epochs": epochs, "batch_size": batch_size, "optimizer": "sgd", **options}
    return RunRecord(
        "run", "backprop", 0, config, status="completed", data=DATA, speed={"samples": samples * epochs, "seconds": 1.0}
    )


def test_the_gradient_of_all_layers():
    cost = cost_of(record())
    # 14 images in two epochs; batches of 4, 4, 4 and 2, so 4 steps in each epoch.
    assert cost.samples == 28
    assert cost.inference_flops == 28 * 2 * 62
    # The change of each weight; the errors of the inputs of layers 2 and 3, not of the image.
    assert cost.learning_flops == 28 * (2 * 62 + 2 * (20 + 12))
    # Layer 1 needs the errors of 4 units, layer 2 those of 3 units.
    assert cost.messages == 28 * (4 + 3)
    assert cost.updates == 2 * 4 * 62
    assert cost.state_bytes == 4 * 74
    # Inputs and responses of 6 + 5, 5 + 4 and 4 + 3 numbers for 4 images, and a change for each parameter.
    assert cost.step_bytes == 4 * (4 * (11 + 9 + 7) + 74)


@pytest.mark.parametrize(
    ("optimizer", "moments"), [("sgd", 0), ("momentum", 1), ("adam", 2), ("adamw", 2), ("selective", 2)]
)
@pytest.mark.parametrize(("trained", "learned"), [("all", 74), ("readout", 15)])
def test_optimizers_store_their_moments_of_what_learns(optimizer, moments, trained, learned):
    cost = cost_of(record(optimizer=optimizer, trained=trained))
    assert cost.state_bytes == 4 * (74 + moments * learned)


def test_random_features_teach_the_readout_alone():
    cost = cost_of(record(trained="readout"))
    assert cost.inference_flops == 28 * 2 * 62
    assert cost.learning_flops == 28 * 2 * 12
    assert cost.messages == 0
    assert cost.updates == 8 * 12
    assert cost.step_bytes == 4 * (4 * (4 + 3) + 12 + 3)


def test_deep_supervision_has_a_readout_of_each_hidden_layer():
    cost = cost_of(record(trained="deep-supervision"))
    readouts = 3 * 5 + 3 * 4
    # The change of each weight of the network; of each readout the response, the change and the error of its input.
    assert cost.learning_flops == 28 * (2 * 62 + 3 * 2 * readouts)
    # Each hidden layer receives the errors of the 3 units of its own readout.
    assert cost.messages == 28 * 2 * 3
    assert cost.updates == 8 * (62 + readouts)
    # The readouts learn by Adam.
    assert cost.state_bytes == 4 * (74 + 3 * readouts)
    assert cost.step_bytes == 4 * (4 * (11 + 9 + 7) + 74 + 4 * (5 + 3 + 4 + 3) + readouts)


def test_a_convolution_uses_its_weights_at_each_position():
    # 8 x 8 pixels; convolutions 3 x 3 with 2 and 3 channels, each followed by pooling; 3 * 2 * 2 = 12 numbers are read.
    run = replace(record(model="cnn", hidden=[2, 3]), data={"image_shape": [1, 8, 8], "classes": 3})
    cost = cost_of(run)
    first, second, readout = 64 * 2 * 9, 16 * 3 * 2 * 9, 12 * 3
    assert cost.inference_flops == 28 * 2 * (first + second + readout)
    assert cost.learning_flops == 28 * 2 * (first + 2 * second + 2 * readout)
    # The errors of 3 channels at 4 x 4 positions, and of 3 units.
    assert cost.messages == 28 * (3 * 16 + 3)
    assert cost.updates == 8 * (18 + 54 + 36)
    assert cost.state_bytes == 4 * (18 + 2 + 54 + 3 + 36 + 3)
    activity = 64 + 2 * 64 + 2 * 16 + 3 * 16 + 12 + 3
    assert cost.step_bytes == 4 * (4 * activity + 116)


@settings(max_examples=20)
@given(samples=st.integers(1, 50), batch_size=st.integers(1, 8), trained=st.sampled_from(["all", "readout"]))
def test_twice_the_epochs_cost_twice_as_much_and_need_the_same_memory(samples, batch_size, trained):
    once = cost_of(record(samples, 1, batch_size, trained=trained))
    twice = cost_of(record(samples, 2, batch_size, trained=trained))
    for name in ("samples", "inference_flops", "learning_flops", "messages", "updates"):
        assert getattr(twice, name) == 2 * getattr(once, name)
    assert (twice.state_bytes, twice.step_bytes) == (once.state_bytes, once.step_bytes)


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "running"},
        {"rule": "not-installed"},
        {"speed": {}},
        {"data": {}},
        {"data": {"image_shape": "large", "classes": 3}},
        {"config": {"model": "no_such_module:Net"}},
        {"config": {"epochs": 0}},
        {"config": {"model": "torchvision.models:no_such_network"}},
        {"config": {"model": "torchvision.models:list_models"}},
        {"config": {"model": "cnn"}},
        {"config": {"optimizer": ["adam"]}},
        {"config": {"model": "cnn"}, "data": {"image_shape": [1, 2**33, 2**33], "classes": 3}},
    ],
)
def test_a_run_that_says_too_little_has_no_cost(changes):
    assert cost_of(replace(record(), **changes)) is None


def test_code_that_a_record_names_runs_only_on_request(tmp_path, monkeypatch):
    called = []
    (tmp_path / "own_network.py").write_text(
        "from torch import nn\n"
        "def make():\n    made.append(1)\n    return nn.Sequential(nn.Flatten(), nn.Linear(6, 3))\n",
        encoding="utf-8",
    )
    monkeypatch.setattr("builtins.made", called, raising=False)
    run = record(model="own_network:make")
    assert cost_of(run) is None
    assert not called
    cost = cost_of(run, own_code=True)
    assert called
    assert cost.learning_flops == 28 * 2 * 18
    assert cost.messages == 0
    assert cost_of(replace(run, config={**run.config, "model": "os:abort"})) is None
