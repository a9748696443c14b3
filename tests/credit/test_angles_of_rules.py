"""Angles to the gradient of the rules that come with plastic, before their first update."""

from __future__ import annotations

import math

import pytest

from credit.networks import NETWORKS, losses_of
from plastic_cli.analysis.gradient_angles import WHOLE, gradient_angles
from plastic_eglp import LocalPlasticity
from plastic_grlu import NodePerturbation
from plastic_metafa import RandomFeedback

DRAWS = 3


def measured(rule, network="mlp", **options):
    model, x, y = NETWORKS[network].draw()
    return gradient_angles(rule(model, **options), model, x, losses_of(y), draws=DRAWS)


@pytest.mark.parametrize("network", ["mlp", "lenet", "transformer", "gru"])
def test_symmetric_feedback_has_the_angle_0(network):
    for name, part in measured(RandomFeedback, network, feedback="symmetric").items():
        assert part.angle == pytest.approx(0, abs=1e-5), name
        assert part.draws == 1


@pytest.mark.parametrize("kind", ["fixed", "direct", "sign", "uniform-sign", "kolen-pollack"])
def test_feedback_without_noise_is_deterministic(kind):
    found = measured(RandomFeedback, feedback=kind)
    assert {part.draws for part in found.values()} == {1}
    assert found["4.weight"].angle == pytest.approx(0, abs=1e-5), "the readout has the gradient"
    assert 1 < found["0.weight"].angle < 179


def test_signs_with_new_magnitudes_are_stochastic():
    found = measured(RandomFeedback, feedback="batchwise-sign")
    assert found["0.weight"].draws == DRAWS
    assert 0 < found["0.weight"].signal_to_noise < math.inf


def test_node_perturbation_is_stochastic_and_nears_the_gradient_with_perturbations():
    few, many = (measured(NodePerturbation, perturbations=number, noise=0.001)[WHOLE] for number in (1, 1000))
    assert few.draws == many.draws == DRAWS
    assert many.angle < 30 < few.angle
    assert many.signal_to_noise > few.signal_to_noise


def test_local_plasticity_has_the_angles_of_all_that_it_teaches():
    found = measured(LocalPlasticity, local_rule="softhebb")
    assert {"0.weight", "2.weight", "4.weight", "4.bias", WHOLE} <= found.keys()
    assert found["4.weight"].angle == pytest.approx(0, abs=1e-5)
    assert found["0.weight"].angle > 1
