"""What continual learning costs, counted by hand on small networks."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plastic_cli.analysis.cost import cost_of
from plastic_cli.runs.record import RunRecord
from plastic_selective.continual.replay import FirstInFirstOut, make_buffer, mixed_batch
from plastic_selective.cost import Passes, ReplayPlan, TaskPlan, passes

# Images of 2 x 3 pixels, 6 numbers, in 4 classes. The network 6-5-4 has 30 + 20 = 50 weights and 9 biases.
DATA = {"image_shape": [1, 2, 3], "classes": 4}
ACTIVITY = 6 + 5 + 5 + 4


def price(samples=40, **options):
    """Of two tasks with 10 images each, and 2 epochs of each; batches of 4, 4 and 2."""
    config = {"hidden": [5], "epochs": 2, "batch_size": 4, "tasks": 2, "replay": "none", "optimizer": "sgd", **options}
    found = cost_of(RunRecord("run", "selective", 0, config, status="completed", data=DATA, speed={"samples": samples}))
    assert found is not None
    return found


def test_the_gradient_of_two_tasks():
    cost = price()
    assert cost.samples == 40
    assert cost.inference_flops == 40 * 2 * 50
    assert cost.learning_flops == 40 * 2 * (50 + 20)
    assert cost.messages == 40 * 4
    assert cost.updates == 2 * 2 * 3 * 50
    assert cost.state_bytes == 4 * 59
    assert cost.step_bytes == 4 * (4 * ACTIVITY + 59)


@pytest.mark.parametrize(
    ("options", "stored"),
    [
        ({"optimizer": "momentum"}, 1),
        ({"optimizer": "adam"}, 2),
        ({"optimizer": "adamw"}, 2),
        ({"optimizer": "selective"}, 2),
        ({"optimizer": "selective", "base": "sgd"}, 1),
        ({"penalty": "ewc"}, 2),
        ({"penalty": "si"}, 3),
    ],
)
def test_optimizers_and_penalties_store_numbers_for_each_parameter(options, stored):
    assert price(**options).state_bytes == 4 * 59 * (1 + stored)


def test_replayed_images_are_learned_from_and_stored():
    cost, without = price(replay="reservoir", buffer_size=8), price()
    # Batches of 4, 4 and 2 new images: 0, 4 and 2 replayed ones in the first epoch, then 4, 4 and 2.
    replayed = 6 + 3 * 10
    assert cost.samples == 40
    assert cost.inference_flops == without.inference_flops
    assert cost.learning_flops == without.learning_flops + replayed * 2 * (50 + 50 + 20)
    assert cost.messages == (40 + replayed) * 4
    assert cost.updates == without.updates
    assert cost.state_bytes == without.state_bytes + 4 * 8 * 6
    assert cost.step_bytes == 4 * (8 * ACTIVITY + 59)


def test_the_fisher_information_is_computed_after_each_task():
    cost, without = price(penalty="ewc", fisher_samples=3), price()
    # Of 3 images: a prediction, the errors of the hidden layer for each of 4 outputs, and a product for each weight.
    assert cost.learning_flops == without.learning_flops + 2 * 3 * 2 * (50 + 4 * 20 + 50)


def test_synaptic_intelligence_holds_gradient_and_parameters_of_a_step():
    assert price(penalty="si").step_bytes == price().step_bytes + 4 * 2 * 59


@pytest.mark.parametrize(
    ("options", "outputs"),
    [
        ({}, 4),
        ({"scenario": "task"}, 4),
        ({"scenario": "domain"}, 2),
        ({"stream": "permuted", "scenario": "domain"}, 4),
        ({"stream": "permuted", "scenario": "class"}, 8),
        ({"stream": "rotated", "scenario": "task", "tasks": 3}, 12),
    ],
)
def test_outputs_of_all_tasks(options, outputs):
    cost = price(samples=120, **options)
    assert cost.inference_flops == 120 * 2 * (30 + 5 * outputs)
    assert cost.state_bytes == 4 * (30 + 5 + 6 * outputs)


def test_joint_training_repeats_earlier_tasks():
    # 10 images of the first task, then 20 of both: 3 and 5 batches in each of 2 epochs.
    assert price(samples=60, joint=True).updates == 2 * (3 + 5) * 50


def test_iterations_are_steps_of_whole_batches():
    assert price(samples=2 * 7 * 4, iterations=7).updates == 2 * 7 * 50


def test_a_record_of_a_run_without_end_has_no_price():
    config = {"hidden": [5], "epochs": 1, "batch_size": 1}
    data = {"image_shape": [1, 2, 3], "classes": 4}
    run = RunRecord("run", "selective", 0, config, status="completed", data=data, speed={"samples": 10**15})
    assert cost_of(run) is None


@settings(max_examples=50)
@given(
    images=st.integers(1, 60),
    rounds=st.integers(1, 3),
    groups=st.integers(1, 3),
    capacity=st.integers(4, 30),
    share=st.sampled_from([0.0, 0.25, 0.5, 0.8]),
    kind=st.sampled_from(["reservoir", "class-balanced", "fifo", "none"]),
)
def test_replay_is_bounded_by_the_share_and_the_buffer(images, rounds, groups, capacity, share, kind):
    task = TaskPlan(rounds, images, groups)
    found = passes((task, task), 8, ReplayPlan(kind, capacity, share, capacity // (2 * groups)))
    steps = 2 * rounds * -(-images // 8)
    assert found.steps == steps
    assert found.largest <= min(8, images) + min(capacity, round(8 * share / (1 - share)))
    assert found.replayed <= steps * min(capacity, round(8 * share / (1 - share)))
    if kind == "none" or share == 0:
        assert found.replayed == 0
    reservoir = passes((task, task), 8, ReplayPlan("reservoir", capacity, share, 0))
    assert (found.replayed <= reservoir.replayed) or kind == "fifo"


def test_the_published_buffer_stores_replayed_images_again():
    """Batches of 2 ask for 6 replayed images. A buffer with room for all has 0, 2, 4 of them, or 0, 2, 6."""
    task = (TaskPlan(1, 6, 1),)
    assert passes(task, 2, ReplayPlan("reservoir", 100, 0.75, 0)) == Passes(steps=3, replayed=6, largest=6)
    assert passes(task, 2, ReplayPlan("fifo", 100, 0.75, 0)) == Passes(steps=3, replayed=8, largest=8)


@pytest.mark.parametrize("kind", ["reservoir", "class-balanced", "fifo"])
@pytest.mark.parametrize("capacity", [8, 40])
@pytest.mark.parametrize("share", [0.25, 0.5, 0.7])
def test_buffers_replay_as_many_images_as_are_counted(kind, capacity, share):
    """Two tasks of two classes, whose images alternate."""
    buffer = make_buffer(kind, capacity, 1, 4, torch.Generator().manual_seed(0))
    replayed = 0
    for task in range(2):
        for _ in range(3):
            for group in (2 * task + torch.arange(22) % 2).split(8):
                x = torch.zeros(len(group), 1)
                mixed = mixed_batch(x, group, group, buffer, share)
                replayed += len(mixed.y) - len(group)
                buffer.add(*(mixed if isinstance(buffer, FirstInFirstOut) else (x, group, group)))
    tasks = (TaskPlan(3, 22, 2), TaskPlan(3, 22, 2))
    assert passes(tasks, 8, ReplayPlan(kind, capacity, share, capacity // 4)).replayed == replayed
