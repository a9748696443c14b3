"""Runs on a choice of classes: their test is another one, so tables, figures and comparisons say so."""

import pandas as pd
import pytest

from plastic_cli.reports.curves import plot_runs
from plastic_cli.reports.grouping import data_notes, group_runs
from plastic_cli.reports.results import summarize
from plastic_cli.reports.side_by_side import Comparison
from plastic_cli.reports.side_tables import circumstances_table, equal_text
from plastic_cli.reports.tables import results_table
from plastic_cli.runs.record import RunRecord, ranges_text
from reports.references import record_of, reference_of
from reports.report_frames import run_row
from reports.test_standing import own, runs, stand

CHOSEN = [0, 1, 2, 3, 4]
FACTS = {"checksum": "a" * 64, "classes": 10, "note": "a split of our own"}
NOTE = "runs with classes 0 to 4 are trained and tested on images of these classes only"


@pytest.fixture
def some_and_all(make_runs):
    make_runs(rule="backprop", classes=CHOSEN, facts={"data": {**FACTS, "only_classes": CHOSEN}})
    return make_runs(rule="backprop", classes=[], facts={"data": FACTS})


def test_numbers_as_ranges():
    assert ranges_text([4, 0, 1, 2, 3, 3]) == "0 to 4"
    assert ranges_text([0, 1, 3, 5, 6, 7, 9]) == "0, 1, 3, 5 to 7, 9"
    assert ranges_text([]) == ""


@pytest.mark.parametrize(
    ("data", "classes"),
    [
        ({**FACTS, "only_classes": CHOSEN}, "0 to 4"),
        ({**FACTS, "only_classes": list(range(10))}, "all"),
        ({**FACTS, "only_classes": ["cat", None]}, "all"),
        (FACTS, "all"),
        ({}, ""),
    ],
)
def test_the_classes_of_the_images_of_a_run(data, classes):
    record = RunRecord("r", "backprop", 0, {}, data=data)
    assert record.classes_of_images == classes
    assert (NOTE in record.data_note) is (classes == "0 to 4")
    assert record.data_note.startswith(data.get("note", ""))


def test_a_comparison_does_not_say_that_the_data_are_the_same(some_and_all):
    comparison = Comparison(some_and_all)
    assert "The settings were tested on images of different classes" in comparison.notes[0]
    assert ("classes of the images", "0 to 4", "all") in circumstances_table(comparison).rows
    assert "data" not in equal_text(comparison)


def test_of_one_choice_of_classes_the_data_are_the_same(make_runs):
    facts = {"data": {**FACTS, "only_classes": CHOSEN}}
    make_runs(rule="backprop", classes=CHOSEN, epochs=2, facts=facts)
    comparison = Comparison(make_runs(rule="backprop", classes=CHOSEN, epochs=3, facts=facts))
    assert not any("classes" in note for note in comparison.notes)
    assert "data" in equal_text(comparison)


def test_each_setting_has_the_notes_on_its_own_data(some_and_all):
    groups = group_runs(some_and_all.runs)
    assert [group.note for group in groups] == [f"a split of our own; {NOTE}", "a split of our own"]
    assert data_notes(groups) == f" * digits: a split of our own; {NOTE}."
    assert results_table(summarize(some_and_all.runs, groups)).caption.endswith(data_notes(groups))


def test_a_figure_of_these_runs_alone_names_the_classes(make_runs):
    chosen = make_runs(rule="backprop", classes=CHOSEN, facts={"data": {**FACTS, "only_classes": CHOSEN}})
    assert "backprop on digits: classes = 0,1,2,3,4" in str(plot_runs(chosen).figure.labels.subtitle)


def test_classes_that_are_a_number_are_no_choice_of_images():
    (group,) = group_runs(pd.DataFrame([run_row(0, rule="mpn", classes=2)]))
    assert group.distinction == ""


def test_controls_on_other_classes_are_no_controls(tmp_path):
    control = [record_of("grlu", seed, {"test/accuracy": 0.98}, number=10 + seed, update="backprop") for seed in (0, 1)]
    reference = reference_of(tmp_path, [*runs(), *control])
    assert "the gradient" in set(stand([own(7, 0.9)], reference).controls["control"])
    standing = stand([own(7, 0.9, classes=CHOSEN)], reference)
    assert standing.controls.empty
    assert "The reference has no control with the same test images." in standing.notes
    assert set(standing.nearest["options"]) and all("classes" in text for text in standing.nearest["options"])
