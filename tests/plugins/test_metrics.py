"""A reader sees names and units; programs see the stored keys and values."""

from __future__ import annotations

import math

import pytest

from plastic_cli.plugins.metrics import METRICS, Metric, metric_of


@pytest.mark.parametrize(
    ("key", "rule", "value", "name", "text"),
    [
        ("test/accuracy", None, 0.925, "test accuracy", "92.50%"),
        ("train/loss", None, 0.40331, "training loss", "0.4033"),
        ("validation/return", None, 12.25, "validation return", "12.25"),
        ("control/accuracy", "eglp", 0.1, "accuracy of the control", "10.00%"),
        ("layer 1/angle", "grlu", 81.46, "angle to the gradient, layer 1", "81.5 degrees"),
        ("test+gaussian-noise:0.3/accuracy", None, 1.0, "test accuracy under gaussian-noise:0.3", "100.00%"),
        ("zero events/rotation:15/accuracy", None, 0.5, "accuracy, zero events, rotation:15", "50.00%"),
        ("probe/layer 1 trained", None, 0.5, "accuracy of a linear probe, layer 1 trained", "50.00%"),
        ("train/synaptic_updates", "eglp", 589824.0, "updates of hidden synapses", "589,824 updates"),
        ("test/accuracy_task_12", "selective", 0.5, "test accuracy on task 12", "50.00%"),
        ("theta_0", "metafa", -0.5, "theta 0", "-0.5000"),
        ("episodes/h/participation_ratio", "mpn", 2.5, "participation ratio, h", "2.500"),
        ("episodes/M/variance_1", "mpn", 0.5, "variance explained up to component 1, M", "50.00%"),
        # Without a name the key is shown, and a name of another rule is not used.
        ("test/unheard_of", None, 0.5, "test/unheard_of", "0.5000"),
        ("train/synaptic_updates", "grlu", 589824.0, "train/synaptic_updates", "589,824"),
        ("test/accuracy", "not-installed", 0.5, "test accuracy", "50.00%"),
    ],
)
def test_a_metric_has_a_name_and_a_unit(key, rule, value, name, text):
    metric = metric_of(key, rule)
    assert (metric.name, metric.text(value)) == (name, text)


@pytest.mark.parametrize("missing", [None, math.nan, math.inf, -math.inf])
def test_a_missing_value_is_a_dash(missing):
    assert all(metric.number(missing) == "\N{EN DASH}" for metric in METRICS.values())


def test_a_heading_says_the_unit_and_the_scale_goes_with_it():
    assert metric_of("test/accuracy").heading == "test accuracy (%)"
    assert metric_of("test/accuracy").scale == 100
    assert Metric("loss").heading == "loss"
    assert Metric("images with an event", "images").heading == "images with an event", "the unit is said once"
    assert Metric("span of time", "s").heading == "span of time (s)"
    assert Metric("loss").scale == 1
