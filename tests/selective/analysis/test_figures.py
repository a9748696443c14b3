"""figures.py, and the ticks of its axes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import pyplot

from plastic_selective.analysis import figures
from plastic_selective.continual.history import every
from selective.analysis.runs import history_with


def test_the_matrix_shows_its_numbers_if_they_fit():
    def numbers(tasks):
        history = history_with(tasks, 1)
        drawn = figures.matrix_figure(history).draw()
        found = {tuple(np.abs(text.get_position()).round()): text.get_text() for text in drawn.axes[0].texts}
        pyplot.close(drawn)
        return found, history.matrix

    found, matrix = numbers(4)
    assert found == {(task + 1, after): f"{100 * value:.1f}" for (after, task), value in np.ndenumerate(matrix)}
    assert numbers(30)[0] == {}


def test_figures_of_many_tasks_name_what_they_leave_out():
    assert "framed" in figures.matrix_figure(history_with(40, 1)).labels.subtitle
    few, many = (figures.curves_figure(history_with(tasks, 1)).labels.subtitle for tasks in (12, 13))
    assert "blue" not in few
    assert "blue (task 1) to orange (task 13)" in many.replace("\n", " ")
    values = {"layer": 1, "layer_name": "a", "low": 0.5, "high": 0.52, "count": 3, "synapses": 3}
    for tasks, note in ((6, None), (8, "tasks 1, 2, 4, 5, 7 and 8 of 8")):
        table = pd.DataFrame([{**values, "step": step} for step in range(1, tasks + 1)])
        subtitle = figures.histogram_figure(history_with(tasks, 1), table, "gate").labels.subtitle
        assert note in subtitle if note else "tasks" not in subtitle


@pytest.mark.parametrize(("tasks", "rounds"), [(2, 1), (2, 5), (10, 3), (60, 1)])
def test_ticks_are_few_whole_and_include_the_borders_of_few_tasks(tasks, rounds):
    history = history_with(tasks, rounds)
    ticks = history.ticks(most=20)
    assert len(ticks) <= 21
    assert ticks[0] == 0
    assert set(ticks) <= set(range(history.last + 1))
    assert len(set(np.diff(ticks))) == 1
    if tasks <= 20:
        assert {*history.borders, history.last} <= set(ticks)


@given(st.integers(0, 10**6), st.integers(4, 40))
def test_every_counts_in_strides_of_1_2_and_5(count, most):
    numbers = every(count, most)
    assert numbers[0] == 0
    assert numbers[-1] <= count
    assert len(numbers) <= most + 1
    assert len(set(np.diff(numbers))) <= 1
