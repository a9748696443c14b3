"""The cost and the angles that a run of a credit rule logs."""

import pytest
import torch
from torch import nn

import plastic_cli as plastic
from plastic_cli.analysis.angles import angle_degrees
from plastic_cli.classifier.credit_metrics import CreditMetrics
from plastic_cli.classifier.fit import fit, stratified_sample
from plastic_cli.classifier.module import ModuleLearner
from plastic_cli.credit.gradient import Gradient
from plastic_cli.data.datasets import load_dataset
from plastic_cli.runs.folder import create_run
from plastic_cli.runs.store import RunStore

BATCH, WEIGHTS = 100, 64 * 9 + 9 * 10


class Noisy(Gradient):
    """The gradient plus noise; a batch with a large loss is an event, for which the module is called once more."""

    def __init__(self, model):
        super().__init__(model)
        self.generator, self.events, self.batches = torch.Generator().manual_seed(3), 0, 0

    def backward(self, inputs, loss):
        losses = super().backward(inputs, loss)
        self.batches += 1
        if losses.mean() > self.threshold:
            self.events += 1
            with torch.no_grad():
                self.model(inputs)
        for parameter in self.parameters.values():
            parameter.grad += torch.randn(parameter.shape, generator=self.generator)
        return losses

    threshold = 0.0

    def state_dict(self):
        return {"generator": self.generator.get_state(), "events": self.events, "batches": self.batches}

    def load_state_dict(self, state):
        self.generator.set_state(state["generator"])
        self.events, self.batches = state["events"], state["batches"]


def make_learner(threshold=0.0):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 9), nn.ReLU(), nn.BatchNorm1d(9), nn.Linear(9, 10))
    credit = Noisy(network)
    credit.threshold = threshold
    return ModuleLearner(network, torch.optim.SGD(network.parameters(), 0.01), credit=credit)


@pytest.fixture(scope="module")
def data():
    return load_dataset("digits")


def trained(data, folder, *, measured, threshold=0.0):
    run = create_run(folder, rule="noisy", stage="train", config={"seed": 0}, device="cpu")
    learner = make_learner(threshold)
    after = CreditMetrics(learner, run, data, BATCH).log if measured else None
    with run.locked():
        run.start()
        fit(learner, data, run, epochs=2, batch_size=BATCH, after_epoch=after)
        run.finish("completed")
    return learner, RunStore(folder).metrics()


def test_measuring_does_not_change_what_is_learned(data, tmp_path):
    plain, _ = trained(data, tmp_path / "plain", measured=False)
    measured, _ = trained(data, tmp_path / "measured", measured=True)
    for name, value in plain.network.state_dict().items():
        assert torch.equal(value, measured.network.state_dict()[name]), name
    assert measured.credit.events == plain.credit.events


def rows(metrics, name):
    return metrics[(metrics["metric"] == name) & (metrics["split"] == "train")]


def test_the_cost_grows_with_the_images_seen(data, tmp_path):
    _, metrics = trained(data, tmp_path, measured=True)
    forward, learning = rows(metrics, "forward_flops"), rows(metrics, "learning_flops")
    assert list(forward["value"]) == [2 * WEIGHTS * 1437 * epoch for epoch in range(3)]
    # Every batch is an event: a second forward pass, the gradients of the weights, and those of the hidden activity.
    of_image = 2 * WEIGHTS + 2 * WEIGHTS + 2 * 9 * 10
    assert list(learning["value"]) == pytest.approx([of_image * 1437 * epoch for epoch in range(3)])


def test_batches_with_and_without_an_event_have_their_own_cost(data, tmp_path):
    learner, metrics = trained(data, tmp_path, measured=True, threshold=2.5)
    assert 0 < learner.credit.events < 30
    of_image = 2 * WEIGHTS + 2 * 9 * 10
    learning = rows(metrics, "learning_flops")["value"].iloc[-1]
    expected = of_image * 2 * 1437 + learner.credit.events * BATCH * 2 * WEIGHTS
    assert learning == pytest.approx(expected)


def test_angles_are_those_of_one_update_by_layer_and_as_a_whole(data, tmp_path):
    learner, metrics = trained(data, tmp_path, measured=True)
    angles = rows(metrics, "angle")
    last = angles[angles["step"] == 2].assign(where=angles["labels"].fillna("whole")).set_index("where")["value"]
    assert set(last.index) == {'{"layer": "0"}', '{"layer": "3"}', "whole"}

    batch = stratified_sample(data.train, BATCH)
    network = learner.network.train()
    loss = nn.functional.cross_entropy(network(batch.x), batch.y)
    exact = torch.autograd.grad(loss, list(network.parameters()))
    noisy = [g + torch.randn(g.shape, generator=learner.credit.generator) for g in exact]
    assert last['{"layer": "0"}'] == pytest.approx(angle_degrees(noisy[0], exact[0]), abs=0.1)
    whole = angle_degrees(torch.cat([g.flatten() for g in noisy]), torch.cat([g.flatten() for g in exact]))
    assert last["whole"] == pytest.approx(whole, abs=0.1)


def test_the_gradient_has_a_cost_and_no_angle(data, tmp_path):
    run = create_run(tmp_path, rule="plain", stage="train", config={"seed": 0}, device="cpu")
    with run.locked():
        run.start()
        CreditMetrics(ModuleLearner(nn.Linear(64, 10)), run, data, BATCH).log(1)
        run.finish("completed")
    metrics = RunStore(tmp_path).metrics()
    assert set(metrics["metric"]) == {"forward_flops", "learning_flops"}
    assert set(metrics["value"]) == {2 * 640 * 1437}


def test_a_batch_larger_than_the_data_counts_each_image_once_in_an_epoch(data, tmp_path):
    run = create_run(tmp_path, rule="plain", stage="train", config={"seed": 0}, device="cpu")
    with run.locked():
        run.start()
        CreditMetrics(ModuleLearner(nn.Linear(64, 10)), run, data, 10_000).log(2)
        run.finish("completed")
    assert set(RunStore(tmp_path).metrics()["value"]) == {2 * 640 * 1437 * 2}


def test_a_run_of_fit_with_a_credit_rule_logs_them(tmp_path):
    def learner(seed):
        made = make_learner()
        return made.network, made.optimizer, made.credit

    run = plastic.fit(learner, rule="noisy", epochs=1, runs=tmp_path, quiet=True)
    assert {"train/angle", "train/forward_flops", "train/learning_flops"} <= set(run.results)
