"""`plastic report --reference`: own runs and those of the reference side by side, and never in one group."""

import csv
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import plastic_cli as plastic
from plastic_cli.reports.content import training_models
from plastic_cli.reports.grouping import OWN, REFERENCE, SOURCE, group_runs
from plastic_cli.reports.results import summarize
from plastic_cli.reports.with_reference import PREFIX, joined, reference_runs
from plastic_cli.runs import reference as module
from plastic_cli.testing import plastic as command
from reports.references import record_of, reference_of, write_runs
from reports.report_frames import grlu_experiments

PUBLISHED = {
    "dataset": "mnist", "batch_size": 1, "epochs": 10, "hidden": [256], "perturbations": 16, "activation": "top-k",
    "k": 0.5,
}  # fmt: skip
"""The conditions of the claim GR-02: 92.83% with a tolerance of .5 points."""


def runs(values, number=0, rule="grlu", **options):
    return [record_of(rule, seed, {"test/accuracy": value}, number=number + seed, **options)
            for seed, value in enumerate(values)]  # fmt: skip


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """A function that makes these runs the reference that comes with plastic."""

    def make(records):
        monkeypatch.setattr(module, "reference_folder", lambda: tmp_path / "reference")
        return reference_of(tmp_path, records)

    return make


# --------------------------------------------------------------------------------------------------------- groups


@settings(deadline=None, max_examples=25)
@given(st.lists(st.booleans(), min_size=25, max_size=25))
def test_own_runs_and_those_of_the_reference_are_never_in_one_group(marks):
    frame, _ = grlu_experiments()
    frame = frame.assign(**{SOURCE: np.where(np.resize(marks, len(frame)), REFERENCE, OWN)})
    models = training_models(["grlu", "backprop"])
    source = dict(zip(frame["run"], frame[SOURCE], strict=True))
    together = group_runs(frame, models)
    for group in together:
        assert {source[run] for run in group.runs} <= {group.source or OWN}
    apart = [group_runs(frame[frame[SOURCE] == name], models) for name in (OWN, REFERENCE)]
    assert sorted(group.runs for group in together) == sorted(group.runs for groups in apart for group in groups)
    values = {result.group.runs: result.value for result in summarize(frame, together)}
    for name, groups in zip((OWN, REFERENCE), apart, strict=True):
        part = frame[frame[SOURCE] == name]
        # As text, because a missing bound is NaN.
        for result in summarize(part, groups):
            assert repr(values[result.group.runs]) == repr(result.value)


def test_one_setting_has_one_name_in_both_sources_and_own_runs_come_first(measured):
    reference = measured([*runs([0.9, 0.91]), *runs([0.8], number=20, perturbations=4)])
    own = reference.runs().iloc[:1]
    frame = joined(own, reference_runs(reference, (), None))
    groups = group_runs(frame, training_models(["grlu"]))
    assert [(group.setting, group.source) for group in groups] == [
        ("perturbations = 16", ""), ("perturbations = 16", REFERENCE), ("perturbations = 4", REFERENCE),
    ]  # fmt: skip


def test_a_run_with_the_id_of_a_run_of_the_reference_stays_an_own_run(measured, runs_folder):
    measured(runs([0.9, 0.91, 0.92]))
    write_runs(runs_folder, runs([0.5]))
    report = plastic.report(runs_folder, reference=True)
    assert report.results.set_index("source")["mean"].to_dict() == pytest.approx({OWN: 0.5, REFERENCE: 0.91})
    assert report.runs["run"].tolist() == ["20261101-0000", *(f"{PREFIX}20261101-000{seed}" for seed in range(3))]


def test_the_best_settings_that_a_figure_shows_begin_with_own_ones(measured, runs_folder):
    records = [run for size in range(1, 10) for run in runs([0.9 + size / 1000], size * 20, perturbations=size)]
    measured([*records, *runs([0.2], 300)])
    write_runs(runs_folder, runs([0.1], 400))
    report = plastic.report(runs_folder, reference=True)
    data = report.figures["learning-curves-test-accuracy"].data
    # The own setting and the same one of the reference are the two worst.
    assert set(map(str, data["label"])) == {
        "perturbations = 16", "perturbations = 16 (reference)",
        *(f"perturbations = {size} (reference)" for size in range(4, 10)),
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------------- verdicts


@pytest.mark.parametrize(("own", "reference", "words"), [
    (0.9283, 0.5, ("reproduced", "not reproduced")), (0.5, 0.9283, ("not reproduced", "reproduced")),
])  # fmt: skip
def test_a_verdict_counts_own_runs_only(measured, runs_folder, own, reference, words):
    spread = np.array([-1, 0, 1, 0, 0]) / 10_000
    measured(runs(reference + spread, **PUBLISHED))
    write_runs(runs_folder, runs(own + spread[:4], 100, **PUBLISHED))
    report = plastic.report(runs_folder, reference=True)
    (row,) = report.claims[report.claims["id"] == "GR-02"].to_dict("records")
    assert (row["verdict"], row["reference_verdict"]) == words
    assert (row["n"], row["reference_n"]) == (4, 5)
    assert (row["mean"], row["reference_mean"]) == pytest.approx((own, reference))
    assert plastic.report(runs_folder).claims["reference_verdict"].isna().all()


def test_runs_of_the_reference_do_not_test_a_claim_and_its_verdict_stands_beside(measured, runs_folder):
    measured(runs([0.928, 0.9283, 0.9286], **PUBLISHED))
    write_runs(runs_folder, runs([0.9], 100, **{**PUBLISHED, "k": 0.25}))
    done = command("report", "--reference", "--runs", runs_folder)
    (line,) = [line for line in done.out.splitlines() if line.strip().startswith("GR-02 ")]
    assert "untested" in line
    assert "reproduced" in line
    rows = {row["id"]: row for row in json.loads(command("report", "--reference", "--json").out)["claims"]}
    assert (rows["GR-02"]["verdict"], rows["GR-02"]["reference_verdict"]) == ("untested", "reproduced")
    assert (rows["GR-03"]["n"], rows["GR-03"]["reference_verdict"]) == (1, None)


# --------------------------------------------------------------------------------------------------- what is shown


def test_the_runs_of_the_reference_are_on_the_data_sets_of_the_own_runs(measured, runs_folder):
    measured([*runs([0.9]), *runs([0.8], 20, dataset="mnist"), *runs([0.7], 40, "backprop")])
    write_runs(runs_folder, runs([0.5], 100))
    found = plastic.report(runs_folder, reference=True).results
    assert set(zip(found["rule"], found["dataset"], found["source"], strict=True)) == {
        ("grlu", "digits", OWN), ("grlu", "digits", REFERENCE), ("backprop", "digits", REFERENCE),
    }  # fmt: skip
    found = plastic.report(runs_folder, reference=True, rule="grlu").results
    assert set(found["rule"]) == {"grlu"}
    found = plastic.report(runs_folder, reference=True, dataset="mnist").results
    assert found["source"].tolist() == [REFERENCE]


def test_without_own_runs_it_is_a_report_of_the_reference(measured, runs_folder):
    measured([*runs([0.928, 0.9283, 0.9286], **PUBLISHED), *runs([0.9], 20)])
    runs_folder.mkdir()
    done = command("report", "--reference")
    assert done.code == 0, done.err
    assert "reference: 4 runs" in done.err
    assert done.out.count(" reference ") >= 2
    report = plastic.report(reference=True)
    assert report.results["source"].tolist() == [REFERENCE, REFERENCE]
    assert report.claims.set_index("id").loc["GR-02", ["verdict", "reference_verdict"]].tolist() == [
        "untested", "reproduced",
    ]  # fmt: skip
    assert "0 runs and 4 of the reference" in repr(report)


def test_every_format_marks_the_rows_of_the_reference(measured, runs_folder, tmp_path):
    measured(runs([0.9, 0.91, 0.92]))
    write_runs(runs_folder, runs([0.5], 100))
    rows = list(csv.DictReader(io.StringIO(command("report", "--reference", "--format", "csv").out)))
    assert [row["source"] for row in rows] == [OWN, REFERENCE]
    for form in ("markdown", "latex", "table"):
        out = command("report", "--reference", "--format", form, "--table", "results").out
        assert "source" in out.lower()
        assert OWN in out
    columns = command("report", "--reference", "--columns", "rule,source,value", "--format", "csv").out
    assert columns.splitlines()[0].startswith("rule,source,value")
    assert command("report", "--reference", "--html", tmp_path / "page").code == 0
    page = (tmp_path / "page" / "index.html").read_text()
    assert "1 run and 3 of the reference," in page
    assert "(reference)" in page, "the legends"
    compared = plastic.report(runs_folder, reference=True).comparisons
    assert set(compared["setting"]) == {"defaults", "defaults (reference)"} or set(compared["setting"]) == {
        "", REFERENCE,
    }  # fmt: skip


def test_without_the_option_nothing_changes(measured, runs_folder):
    measured(runs([0.9, 0.91, 0.92]))
    write_runs(runs_folder, runs([0.5], 100))
    report = plastic.report(runs_folder)
    assert report.results["source"].tolist() == [OWN]
    assert SOURCE not in report.runs.columns
    assert "source" not in report.markdown()


def test_a_missing_reference_is_a_warning_and_own_runs_are_reported(tmp_path, monkeypatch, runs_folder):
    monkeypatch.setattr(module, "reference_folder", lambda: tmp_path / "nothing")
    write_runs(runs_folder, runs([0.5]))
    done = command("report", "--reference")
    assert done.code == 0
    assert "there is no reference in" in done.err
    assert "50.00" in done.out


def test_the_price_of_a_result_of_the_reference_is_known(measured, runs_folder):
    records = [*runs([0.9, 0.91]), *runs([0.5], 100)]
    for record in records:
        record.data |= {"image_shape": [1, 8, 8], "classes": 10}
        record.speed["samples"] = 14_380
    measured(records[:2])
    write_runs(runs_folder, records[2:])
    rows = json.loads(command("report", "--reference", "--pareto", "messages", "--json").out)["pareto"]
    assert [row["source"] for row in rows] == [OWN, REFERENCE]
    assert rows[0]["price_mean"] == rows[1]["price_mean"] > 0


def test_a_figure_shows_the_same_settings_of_the_reference(measured, runs_folder):
    measured([*runs([0.9, 0.91, 0.92]), *runs([0.5], 50, perturbations=4)])
    write_runs(runs_folder, runs([0.3, 0.4, 0.5], 100))
    data = plastic.plot(runs_folder, "test/accuracy", reference=True).data
    last = data[data["step"] == 1].set_index(data["label"].astype(str)[data["step"] == 1])["mean"]
    assert last.to_dict() == pytest.approx({OWN: 0.4, REFERENCE: 0.91})
    final = plastic.plot(runs_folder, "test/accuracy", by="perturbations", final=True, reference=True)
    assert set(final.data["label"].astype(str)) == {OWN, REFERENCE}
    with pytest.warns(UserWarning, match="no run of these settings"):
        write_runs(runs_folder / "other", runs([0.3], 200, epochs=2))
        plastic.plot(runs_folder / "other", "test/accuracy", reference=True)
    assert command("plot", "--reference", "--combinations").code == 2
