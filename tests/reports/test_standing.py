"""Where runs stand in the reference: prediction intervals, repeated seeds, controls and published figures."""

import math
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from plastic_cli.errors import PlasticError, UserError
from plastic_cli.reports.standing import Standing, ordered_metrics, position
from plastic_cli.reports.standing_tables import as_text, content_of, tables_of
from plastic_cli.runs.record import settings_text
from plastic_cli.runs.reference import Reference, write_reference
from plastic_cli.runs.stages import StageRecord, commit_stage
from plastic_cli.runs.store import RunStore
from plastic_cli.statistics.intervals import prediction_interval
from reports.references import record_of, reference_of, write_runs

VALUES = (0.90, 0.92, 0.91, 0.94, 0.93)

finite = st.floats(-1e3, 1e3, allow_nan=False).map(lambda value: round(value, 6))


def expected(values, of=1):
    """Return the ends of a prediction interval, written down again."""
    values = np.asarray(values, np.float64)
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) * math.sqrt(1 / of + 1 / len(values))
    return values.mean() - half, values.mean() + half


def runs(values=VALUES, rule="grlu", metric="test/accuracy", start=0, **facts):
    return [
        record_of(rule, seed, {metric: value, "test/loss": 1 - value}, number=start + seed, **facts)
        for seed, value in enumerate(values)
    ]


def own(seed, value, number=500, rule="grlu", **facts):
    return record_of(rule, seed, {"test/accuracy": value, "test/loss": 1 - value}, number=number, **facts)


def stand(records, reference):
    """Return where runs stand that are written into a folder of their own."""
    folder = Path(tempfile.mkdtemp())
    write_runs(folder, records)
    return Standing([folder / record.run for record in records], reference)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Five seeds of the defaults of grlu, and three of its control."""
    control = [
        record_of("grlu", seed, {"test/accuracy": 0.98, "test/loss": 0.1}, number=10 + seed, update="backprop")
        for seed in range(3)
    ]
    return reference_of(tmp_path_factory.mktemp("reference"), [*runs(), *control])


# ------------------------------------------------------------------------------------------------------- membership


@settings(deadline=None, max_examples=60)
@given(st.lists(finite, min_size=3, max_size=8), finite)
@example([1.898438, 1.898438, 1.898438], 0.0)
def test_a_value_is_inside_exactly_between_the_ends_and_its_mirror_image_on_the_other_side(values, value):
    low, high = expected(values)
    found = position(value, prediction_interval(values))
    slack = 1e-9 * max(1.0, *map(abs, values))
    if min(abs(value - low), abs(value - high)) > slack:
        assert found == ("below" if value < low else "above" if value > high else "inside")
    mirrored = position(-value, prediction_interval([-each for each in values]))
    assert mirrored == {"below": "above", "above": "below", "inside": "inside"}[found]
    # The mean by NumPy can differ from equal values in the last digit.
    assert position(prediction_interval(values).mean, prediction_interval(values)) == "inside"


def test_of_normal_runs_a_further_one_is_inside_with_the_stated_probability_and_outside_on_both_sides_equally():
    draws = np.random.default_rng(3).normal(size=(4000, 6))
    found = [position(row[0], prediction_interval(row[1:])) for row in draws]
    counts = {word: found.count(word) / len(found) for word in ("inside", "below", "above")}
    # Four standard errors.
    assert counts["inside"] == pytest.approx(0.95, abs=0.014)
    assert counts["below"] == pytest.approx(0.025, abs=0.01)
    assert counts["above"] == pytest.approx(0.025, abs=0.01)


def test_without_an_interval_or_a_finite_value_the_position_is_not_known():
    assert position(0.5, prediction_interval([0.4, 0.6])) == "unknown"
    assert position(math.nan, prediction_interval([0.4, 0.5, 0.6])) == "not finite"
    assert position(0.5, prediction_interval([0.5, 0.5, 0.5])) == "inside"
    assert position(0.5 + 1e-15, prediction_interval([0.5, 0.5, 0.5])) == "above"


@pytest.mark.parametrize(("value", "word"), [(0.92, "inside"), (0.5, "below"), (0.999, "above")])
def test_a_further_seed_is_compared_with_all_runs_of_its_setting(reference, value, word):
    frame = stand([own(7, value)], reference).results.set_index("metric")
    row = frame.loc["test/accuracy"]
    assert (row["low"], row["high"]) == pytest.approx(expected(VALUES))
    assert (row["n"], row["position"], row["value"]) == (5, word, value)
    # The loss falls where the accuracy rises: a swapped metric or sign would show.
    assert frame.loc["test/loss", "position"] == {"inside": "inside", "below": "above", "above": "below"}[word]


def test_a_metric_is_compared_with_the_same_split_only(tmp_path):
    records = runs()
    for record in records:
        record.summary["train/accuracy"] = record.summary["test/accuracy"] + 0.06
    one = own(7, 0.92)
    one.summary["train/accuracy"] = 0.92
    frame = stand([one], reference_of(tmp_path, records)).results.set_index("metric")
    assert frame.loc["test/accuracy", "position"] == "inside"
    assert frame.loc["train/accuracy", "position"] == "below"


def test_a_repeated_seed_is_left_out_of_its_own_interval(reference):
    row = stand([own(3, 0.94)], reference).results.set_index("metric").loc["test/accuracy"]
    others = [value for seed, value in enumerate(VALUES) if seed != 3]
    assert (row["low"], row["high"]) == pytest.approx(expected(others))
    assert row["n"] == 4


def test_the_mean_of_several_runs_has_a_narrower_interval(reference):
    standing = stand([own(seed, 0.9 + seed / 1000, number=500 + seed) for seed in (7, 8, 9, 10)], reference)
    row = standing.means.set_index("metric").loc["test/accuracy"]
    assert (row["low"], row["high"]) == pytest.approx(expected(VALUES, of=4))
    assert (row["runs"], row["n"], row["inside"]) == (4, 5, 4)
    assert row["mean"] == pytest.approx(0.9085)
    assert row["reference_mean"] == pytest.approx(np.mean(VALUES))
    assert stand([own(7, 0.9)], reference).means.empty


def test_common_seeds_are_compared_seed_by_seed(reference):
    shift = np.array([-0.0102, -0.0099, -0.0101, -0.0098])
    mine = [own(seed, VALUES[seed] + by, 500 + seed) for seed, by in enumerate(shift)]
    standing = stand([*mine, own(9, 0.5, 600)], reference)
    row = standing.paired.set_index("metric").loc["test/accuracy"]
    of_pairs = stats.ttest_rel(np.array(VALUES[:4]) + shift, VALUES[:4]).confidence_interval()
    assert row["pairs"] == 4
    assert row[["difference", "low", "high"]].tolist() == pytest.approx([shift.mean(), of_pairs.low, of_pairs.high])
    same = stand(mine, reference)
    assert same.means.set_index("metric").loc["test/accuracy", "position"] == "inside", "the spread of seeds hides it"
    text = " ".join(as_text(same, None).split())
    assert "-1.00 points [-1.03, -0.97]" in text
    assert "the mean difference of 4 runs from the reference runs with the same seeds" in text
    equal = stand([own(seed, VALUES[seed], 500 + seed) for seed in range(3)], reference)
    assert "seed by seed" not in as_text(equal, None)
    assert stand(mine[:1], reference).paired.empty


def test_a_run_of_the_reference_itself_is_no_evidence(reference):
    itself = own(2, 0.91, number=2)
    standing = stand([itself], reference)
    assert standing.repeats["same_run"].tolist() == [True]
    text = " ".join(as_text(standing, None).split())
    assert "The run with seed 2 is itself the run of the reference" in text
    assert "equal to the bit" not in text
    both = stand([itself, own(3, VALUES[3], number=500)], reference)
    text = " ".join(as_text(both, None).split())
    assert "The run with seed 2 is itself the run of the reference" in text
    assert "Seed 3 is in the reference: all results are equal to the bit." in text
    assert both.paired.empty


# ---------------------------------------------------------------------------------------------------- repeated seeds


def test_a_run_with_a_seed_of_the_reference_is_compared_to_the_bit(reference):
    (row,) = stand([own(2, 0.91)], reference).repeats.to_dict("records")
    assert (row["seed"], row["results"], row["equal"], row["furthest"]) == (2, 2, 2, None)
    other = math.nextafter(0.91, 1)
    (row,) = stand([own(2, other)], reference).repeats.to_dict("records")
    assert (row["equal"], row["furthest"]) in [(0, "test/accuracy"), (0, "test/loss"), (1, "test/accuracy")]
    one = own(2, 0.91)
    one.summary["test/loss"] = 0.2
    one.versions["torch"] = "2.5"
    standing = stand([one], reference)
    (row,) = standing.repeats.to_dict("records")
    assert (row["equal"], row["furthest"], row["value"], row["reference_value"]) == (1, "test/loss", 0.2, 1 - 0.91)
    assert row["made_with"] == "version of torch: 2.4 (here 2.5)"
    one.versions["torch"], one.machine["instructions"] = "2.4", "AVX2"
    (row,) = stand([one], reference).repeats.to_dict("records")
    assert row["made_with"] == "vector instructions: unknown (here AVX2)"
    said = " ".join(as_text(standing, 200).split())
    assert "Seed 2 is in the reference: 1 of 2 results are equal to the bit. Test loss differs most: 0.2 here" in said
    assert stand([own(7, 0.9)], reference).repeats.empty


def test_results_without_a_finite_value_are_equal_and_times_do_not_count(tmp_path):
    records = runs()
    for record in records:
        record.summary |= {"test/loss": None, "test/seconds": 1.0}
    one = own(1, VALUES[1])
    one.summary |= {"test/loss": None, "test/seconds": 2.0}
    (row,) = stand([one], reference_of(tmp_path, records)).repeats.to_dict("records")
    assert (row["results"], row["equal"]) == (2, 2)


# ------------------------------------------------------------------------------------- which runs of the reference


def test_the_device_is_not_part_of_the_setting(reference):
    assert stand([own(7, 0.9, device="cuda")], reference).same is not None


def test_other_data_under_the_same_name_is_said_and_its_seeds_are_not_compared_to_the_bit(reference):
    standing = stand([own(2, 0.91, checksum="b" * 64)], reference)
    (note,) = standing.notes
    assert "other data under the name digits: its checksum is aaaaaaaa, here it is bbbbbbbb" in note
    assert standing.repeats.empty
    assert not standing.results["n"].eq(0).any()


def test_nearest_settings_and_controls_on_other_data_are_said(tmp_path):
    there = [*runs(perturbations=4), *runs([0.98] * 3, start=20, update="backprop")]
    for record in there:
        record.data["note"] = "not the official split"
    reference = reference_of(tmp_path, there)
    nearest, note, special = stand([own(7, 0.9, checksum="b" * 64)], reference).notes
    assert "The nearest settings are shown" in nearest
    assert note.startswith("The reference was measured on other data under the name digits")
    assert special == "About the data of the reference: not the official split."
    assert len(stand([own(7, 0.9)], reference).notes) == 1
    mixed = [*runs(), *runs([0.98] * 3, start=20, checksum="b" * 64, update="backprop")]
    (note,) = stand([own(7, 0.9)], reference_of(tmp_path / "mixed", mixed)).notes
    assert note.startswith("The reference (the gradient) was measured on other data")


def test_runs_of_the_own_data_come_before_those_of_other_data(tmp_path):
    records = [*runs(), *runs([0.5] * 4, checksum="b" * 64, start=50)]
    for record in records[5:]:
        record.config["seed"] = record.seed = record.seed + 20
    reference = reference_of(tmp_path, records)
    for checksum, mean in (("a" * 64, np.mean(VALUES)), ("b" * 64, 0.5)):
        standing = stand([own(90, 0.9, checksum=checksum)], reference)
        assert standing.results["mean"].iloc[0] == pytest.approx(mean)
        assert standing.notes == []


def test_another_version_is_said_and_the_own_version_is_preferred(tmp_path):
    old = runs([0.1, 0.2, 0.3, 0.4], version="0.1.0", start=50)
    for record in old:
        record.config["seed"] = record.seed = record.seed + 20
    # A reference is written with one version for each setting; one that was written earlier can have several.
    reference, earlier = reference_of(tmp_path / "new", runs(VALUES[:3])), reference_of(tmp_path / "old", old)
    reference._records |= earlier._records
    reference._recipes |= earlier._recipes
    standing = stand([own(90, 0.9)], reference)
    assert (standing.same.version, standing.notes) == ("0.2.0", [])
    assert stand([own(90, 0.9, version="0.1.0")], reference).same.version == "0.1.0"
    standing = stand([own(90, 0.9, version="0.3.0")], reference)
    assert standing.same.version == "0.1.0", "the version with most seeds"
    assert standing.notes == ["The reference was measured with plastic 0.1.0, and this with plastic 0.3.0."]


def test_failed_runs_of_the_reference_are_counted_and_have_no_value(tmp_path):
    records = runs()
    records[4].status = "failed"
    standing = stand([own(7, 0.9)], reference_of(tmp_path, records))
    assert standing.results["n"].iloc[0] == 4
    assert standing.notes == ["1 of 5 runs of this setting in the reference failed and have no result."]


def test_the_nearest_settings_name_what_differs(tmp_path):
    far = runs([0.3] * 3, start=20, perturbations=1, epochs=3)
    near = runs([0.6] * 3, start=40, perturbations=4)
    other = runs([0.7] * 3, start=60, dataset="mnist")
    standing = stand([own(0, 0.9)], reference_of(tmp_path, [*far, *near, *other]))
    assert standing.same is None
    assert standing.nearest["options"].tolist() == [
        "perturbations = 4 (here 16)",
        f"epochs = 3 (here {own(0, 0.9).config['epochs']}), perturbations = 1 (here 16)",
    ]
    assert standing.nearest["mean"].tolist() == pytest.approx([0.6, 0.3])
    assert standing.notes == ["The reference has no run of this setting. The nearest settings are shown."]


def test_an_option_that_follows_from_another_is_not_named(tmp_path):
    # k follows from the activation.
    records = [record_of("grlu", seed, {"test/accuracy": 0.6}, number=seed, activation="top-k") for seed in range(3)]
    standing = stand([own(0, 0.9)], reference_of(tmp_path, records))
    assert standing.nearest["options"].tolist() == ["activation = top-k (here relu)"]


# ------------------------------------------------------------------------------------------- controls and claims


def test_controls_are_the_nearest_settings_of_the_rule_and_of_backpropagation(tmp_path):
    def of(rule, value, number, **options):
        return [record_of(rule, seed, {"test/accuracy": value}, number=number + seed, **options) for seed in range(3)]

    reference = reference_of(
        tmp_path,
        [
            *runs(),
            *of("grlu", 0.98, 10, update="backprop"),
            *of("grlu", 0.5, 20, update="backprop", epochs=1),
            *of("backprop", 0.97, 30, hidden=[256]),
            *of("backprop", 0.7, 40, trained="readout", hidden=[32]),
            *of("backprop", 0.2, 50, trained="readout", dataset="mnist"),
        ],
    )
    frame = stand([own(7, 0.9)], reference).controls.set_index("control")
    assert frame["mean"].to_dict() == pytest.approx({"the gradient": 0.98, "backprop": 0.97, "random features": 0.7})
    assert frame["difference"].to_dict() == pytest.approx(
        {"the gradient": -0.08, "backprop": -0.07, "random features": 0.2}
    )
    assert frame.loc["the gradient", "options"] == ""
    # Equal control runs: a further one is the same, so the difference has no spread.
    assert frame.loc["the gradient", ["difference_low", "difference_high"]].tolist() == pytest.approx([-0.08, -0.08])
    assert "hidden = 32 (here 256)" in frame.loc["random features", "options"]
    control = stand([own(7, 0.9, update="backprop")], reference).controls
    assert "the gradient" not in set(control["control"]), "it is the control itself"


def test_a_difference_to_a_control_has_the_interval_of_its_runs(tmp_path):
    control = [0.5, 0.55, 0.6, 0.52]
    records = [record_of("grlu", seed, {"test/accuracy": value}, number=20 + seed, update="backprop")
               for seed, value in enumerate(control)]  # fmt: skip
    reference = reference_of(tmp_path, [*runs(), *records])
    bounds = ["difference", "difference_low", "difference_high"]
    row = stand([own(7, 0.62)], reference).controls.iloc[0]
    low, high = expected(control)
    assert row[bounds].tolist() == pytest.approx([0.62 - np.mean(control), 0.62 - high, 0.62 - low])
    three = [0.62, 0.64, 0.7]
    row = stand([own(7 + seed, value, 500 + seed) for seed, value in enumerate(three)], reference).controls.iloc[0]
    welch = stats.ttest_ind(three, control, equal_var=False).confidence_interval()
    assert row[bounds].tolist() == pytest.approx([np.mean(three) - np.mean(control), welch.low, welch.high])
    shown = as_text(stand([own(7, 0.62)], reference), None)
    assert "+7.75 points [-" in shown
    assert "points are percentage points" in " ".join(shown.lower().split())


def test_the_version_of_controls_is_shown_if_it_is_not_that_of_the_run(tmp_path):
    control = [record_of("grlu", seed, {"test/accuracy": 0.5}, number=20 + seed, update="backprop", version="0.1.0")
               for seed in range(3)]  # fmt: skip
    reference = reference_of(tmp_path, [*runs(), *control])
    (found,) = [table for table in tables_of(stand([own(7, 0.9)], reference)).values() if table.title == "Controls"]
    place = [column.heading for column in found.columns].index("plastic version")
    assert [row[place] for row in found.rows] == ["0.1.0"]
    reference = reference_of(tmp_path / "same", runs())
    assert "plastic version" not in as_text(stand([own(7, 0.9, epochs=3)], reference), None)
    old = as_text(stand([own(7, 0.9, epochs=3, version="0.1.0")], reference), None)
    assert "plastic version" in old, "the nearest settings"


def test_the_control_that_each_run_includes_is_a_control(tmp_path):
    records = runs()
    for record in records:
        record.summary["control/accuracy"] = 0.5
    frame = stand([own(7, 0.9)], reference_of(tmp_path, records)).controls
    assert frame.loc[0, ["control", "mean", "n"]].tolist() == ["control of each run", 0.5, 5]


def of_claim(seed, value, number, **options):
    """A run that meets the conditions of the claim GR-02: 92.83% with a tolerance of .5 points."""
    published = {
        "dataset": "mnist", "batch_size": 1, "epochs": 10, "hidden": [256], "perturbations": 16, "activation": "top-k",
        "k": 0.5, **options,
    }  # fmt: skip
    return record_of("grlu", seed, {"test/accuracy": value}, number=number, **published)


def test_a_published_figure_has_the_verdict_of_the_reference_and_not_of_the_runs(tmp_path):
    near = [of_claim(seed, 0.9283 + (seed - 2) / 10_000, seed) for seed in range(5)]
    reference = reference_of(tmp_path, near)
    (row,) = stand([of_claim(9, 0.5, 500)], reference).published.to_dict("records")
    assert (row["id"], row["verdict"], row["reference_n"]) == ("GR-02", "reproduced", 5)
    assert (row["published"], row["value"], row["position"]) == (0.9283, 0.5, "below")
    assert (row["band_low"], row["band_high"]) == pytest.approx((0.9233, 0.9333))
    assert stand([of_claim(9, 0.9283, 500, k=0.4)], reference).published.empty


def test_a_claim_about_an_analysis_has_the_value_of_the_analysis_in_both(tmp_path):
    def records(values, number):
        return [
            of_claim(seed, 0.9, number + seed, perturbations=128, activation="relu", k=None)
            for seed, _ in enumerate(values)
        ]

    def analyzed(folder, found, values):
        write_runs(folder, found)
        for record, value in zip(found, values, strict=True):
            stage = StageRecord("analyze", {"sparsity": True}, {"layer 1/silent": value}, [], 1.0)
            commit_stage(folder / record.run, stage, "")

    shipped, ours = records((0.509, 0.51, 0.511), 0), records((0.7, 0.8), 500)
    analyzed(tmp_path / "measured", shipped, (0.509, 0.51, 0.511))
    analyzed(tmp_path / "ours", ours, (0.7, 0.8))
    settings = {settings_text(record.rule, record.config) for record in shipped}
    write_reference(RunStore(tmp_path / "measured"), tmp_path / "reference", {"made-up": settings})
    standing = Standing([tmp_path / "ours" / record.run for record in ours], Reference(tmp_path / "reference"))
    row = standing.published.set_index("id").loc["GR-06-silent"]
    assert (row["value"], row["reference_mean"], row["reference_n"]) == pytest.approx((0.75, 0.51, 3))
    assert (row["position"], row["verdict"]) == ("above", "reproduced")


def test_a_published_figure_without_runs_in_the_reference_is_untested(reference):
    (row,) = stand([of_claim(9, 0.9283, 500)], reference).published.to_dict("records")
    assert (row["verdict"], row["reference_n"], row["position"]) == ("untested", 0, "inside")


# ----------------------------------------------------------------------------------------------------- wrong input


def test_a_run_that_is_not_completed_is_refused_in_one_line(reference):
    one = own(7, 0.9)
    one.status = "interrupted"
    with pytest.raises(UserError, match=r"^run 20261101-0500 is not completed \(interrupted\).*--resume") as raised:
        stand([one], reference)
    folder = str(raised.value).partition(" --runs ")[2]
    assert (Path(folder) / "20261101-0500" / "run.json").exists(), "the command as it is printed works"


def test_the_command_for_the_store_in_use_names_no_folder(reference, tmp_path, monkeypatch):
    monkeypatch.setenv("PLASTIC_RUNS", str(tmp_path))
    one = own(7, 0.9)
    one.status = "interrupted"
    write_runs(tmp_path, [one])
    with pytest.raises(UserError, match=r"--resume 20261101-0500$"):
        Standing([tmp_path / one.run], reference)


def test_runs_that_differ_in_more_than_their_seed_are_refused(reference):
    with pytest.raises(UserError, match="differ in more than their seed"):
        stand([own(7, 0.9), own(8, 0.9, number=501, epochs=2)], reference)


def test_a_missing_or_damaged_reference_is_one_line(tmp_path):
    with pytest.raises(PlasticError, match=r"^there is no reference in"):
        stand([own(7, 0.9)], Reference(tmp_path / "nothing"))
    reference_of(tmp_path, runs())
    path = tmp_path / "reference" / "runs.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(PlasticError, match=r"^cannot read the reference in [^\n]*$"):
        stand([own(7, 0.9)], Reference(tmp_path / "reference"))


def test_a_reference_without_the_rule_or_the_data_says_what_it_has(reference):
    standing = stand([own(7, 0.9, dataset="mnist")], reference)
    assert standing.notes == ["The reference has no run of grlu on mnist. It has runs on digits."]
    stranger = own(7, 0.9)
    stranger.rule = "stranger"
    standing = stand([stranger], reference)
    assert standing.controls["control"].tolist() == []
    assert standing.notes == ["The reference has no run of stranger. It has runs of grlu."]
    assert standing.nearest.empty
    assert standing.published.empty


# ------------------------------------------------------------------------------------------------------ for a reader


def test_main_metrics_come_first():
    names = ["train/loss", "control/accuracy", "test/loss", "validation/accuracy", "test/accuracy"]
    ordered = ["test/accuracy", "validation/accuracy", "test/loss", "control/accuracy", "train/loss"]
    assert ordered_metrics(names) == ordered


def test_a_standing_shows_itself_as_text_html_and_plain_values(reference):
    standing = stand([own(7, 0.92)], reference)
    text = repr(standing)
    for words in ("Compared with the reference", "test accuracy (%)", "inside", "Controls", "the gradient"):
        assert words in text
    assert max(map(len, text.splitlines())) <= 80
    assert standing._repr_html_().count("<table>") == 3
    content = content_of(standing)
    assert content["runs"] == [{"run": "20261101-0500", "seed": 7, "setting": "grlu on digits, defaults"}]
    assert content["results"][0]["position"] == "inside"
    assert content["notes"] == []


def test_no_package_for_figures_and_no_torch_is_imported():
    text = "import sys, plastic_cli.reports.standing; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout.split()
    assert {"torch", "matplotlib", "plotnine", "sklearn", "numba"}.isdisjoint(loaded)
