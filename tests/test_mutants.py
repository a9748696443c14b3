"""The lists of mutants in `benchmarks/mutants` fit the sources; `python benchmarks/mutants.py` tries them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def mutants(monkeypatch):
    """The program, as a module."""
    spec = importlib.util.spec_from_file_location("mutants", BENCHMARKS / "mutants.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "mutants", module)
    spec.loader.exec_module(module)
    return module


def test_every_mutant_changes_one_place_of_a_source_and_names_tests_that_exist(mutants):
    found = mutants.read_mutants()
    assert found
    names = [(mutant.rule, mutant.name) for mutant in found]
    assert len(set(names)) == len(names)
    for mutant in found:
        for test in (name for tests in mutant.tests for name in tests):
            assert (BENCHMARKS.parent / test.partition("::")[0]).exists(), test


def test_a_mutant_is_killed_by_a_test_that_fails_and_survives_where_none_does(mutants, tmp_path):
    (tmp_path / "sums.py").write_text("def add(a, b):\n    return a + b\n")
    (tmp_path / "test_sums.py").write_text(
        "from sums import add\n\n\ndef test_zero():\n    assert add(0, 0) == 0\n\n\n"
        "def test_sum():\n    assert add(1, 2) == 3\n"
    )

    def outcome(new, tests):
        return mutants.try_mutant(tmp_path, mutants.Mutant("sums", "one", "sums.py", "a + b", new, (tests,)))

    assert outcome("a - b", ["test_sums.py::test_zero"]) is None
    assert outcome("a - b", ["test_sums.py"]) == "test_sums.py::test_sum"
    assert outcome("b + a", ["test_sums.py"]) is None
    assert (tmp_path / "sums.py").read_text() == "def add(a, b):\n    return a + b\n", "the source is as it was"
    with pytest.raises(RuntimeError, match="pytest ended with 4"):
        outcome("a - b", ["test_nothing.py"])


def test_a_list_that_does_not_fit_the_sources_is_refused(mutants, monkeypatch, tmp_path):
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    monkeypatch.setattr(mutants, "LISTS", tmp_path)
    (tmp_path / "sums.py").write_text("a + b + a")

    def listed(old, new="-"):
        (tmp_path / "sums.toml").write_text(
            f'tests = ["tests"]\n[[mutant]]\nname = "one"\nfile = "sums.py"\nold = "{old}"\nnew = "{new}"\n'
        )
        return mutants.read_mutants(["sums"])

    assert [mutant.old for mutant in listed("b")] == ["b"]
    for old, new in (("a", "-"), ("c", "-"), ("b", "b")):
        with pytest.raises(ValueError, match="'one' must change one place"):
            listed(old, new)
