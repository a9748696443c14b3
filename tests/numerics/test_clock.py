"""The clock of training time, and what is shown while numba compiles."""

import time
from contextlib import contextmanager

import numba
import pytest

from plastic_cli.numerics.clock import compilation_begins, compilation_ends, training_clock, while_compiling
from plastic_cli.numerics.kernels import Kernels, part


@part
def _square(value):
    return value * value


def _sum_of_squares(count):
    total = 0.0
    for i in range(count):
        total += _square(float(i))
    return total


@pytest.fixture
def shown():
    """What was shown, as a list, and a function for `while_compiling` that adds to it."""
    seen = []

    @contextmanager
    def show():
        seen.append("begin")
        yield
        seen.append("end")

    return seen, show


def test_the_clock_stops_during_compilation():
    before, real = training_clock(), time.perf_counter()
    compilation_begins()
    compilation_begins()
    time.sleep(0.05)
    compilation_ends()
    compilation_ends()
    elapsed, really = training_clock() - before, time.perf_counter() - real
    assert elapsed <= really - 0.05


def test_compilation_is_shown_once_and_a_cached_kernel_is_not(shown, tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    seen, show = shown
    first, second = (Kernels(tmp_path).kernel(_sum_of_squares) for _ in range(2))
    with while_compiling(show):
        assert first(4) == 14
        assert seen == ["begin", "end"]  # the kernel and the function that it calls, together
        assert first(4) == 14  # compiled in this process
        assert second(4) == 14  # found in the cache
    assert seen == ["begin", "end"]
    unseen = Kernels(tmp_path).kernel(lambda value: value + 1)
    assert unseen(1) == 2
    assert seen == ["begin", "end"]


def test_what_is_shown_ends_when_compilation_fails(shown, tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    seen, show = shown
    wrong = Kernels(tmp_path).kernel(lambda value: value.no_such_attribute)
    with while_compiling(show), pytest.raises(numba.TypingError):
        wrong(1)
    assert seen == ["begin", "end"]
