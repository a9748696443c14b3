"""The program that writes the tables and figures of any rule on any network."""

import tomllib

import pytest

import combinations
import measurements


def test_a_table_is_read_as_it_is_written(monkeypatch):
    measured = combinations.Measured()
    cells = [
        measured.interval("lenet / a / sgd", [0.98, 0.99, 1.0], combinations.SHARE, 100),
        measured.interval("lenet / a / adam", [0.5], combinations.SHARE, 100),
        measured.interval("lenet / a / angle", [], combinations.HALF_TURN),
        measured.number("lenet / a / cost", 24.25, 1),
    ]
    text = combinations.toml_table("digits", ["network", "credit", "1", "2", "3", "4"], [["lenet", "a", *cells]],
                                   measured, "plastic sweep combinations")  # fmt: skip
    content = tomllib.loads(text)
    monkeypatch.setattr(measurements, "measurements", lambda file: content)
    assert content["digits"]["values"]["lenet / a / sgd"]["high"] == 100
    assert content["digits"]["values"]["lenet / a / adam"] == {"mean": pytest.approx(50), "n": 1}
    shown = measurements.table("any", "digits")[2:]
    assert shown == ["| lenet | a | 99.0 [96.5, 100.0] | 50.0 (1 seed) | | 24.2 |", "", "3 seeds unless stated."]
