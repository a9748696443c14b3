"""`plastic verify`: which runs are compared with the reference, and what is found of a result that has shifted."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import plastic_cli
from plastic_cli.api.verify import Verification
from plastic_cli.errors import UserError
from plastic_cli.plugins.discovery import discover
from plastic_cli.runs.folder import create_run
from plastic_cli.runs.record import RunRecord, read_record
from plastic_cli.runs.reference import Reference, write_reference
from plastic_cli.runs.store import RunStore
from plastic_cli.statistics import intervals
from plastic_cli.statistics.intervals import MINIMUM_VALUES, prediction_interval
from plastic_cli.sweeps.engine import SweepRun
from plastic_cli.sweeps.job import Outcome
from plastic_cli.sweeps.lookup import with_data
from plastic_cli.sweeps.plan import plan_recipe
from plastic_cli.sweeps.recipe import read_recipe
from plastic_cli.sweeps.steps import PlannedStep
from plastic_cli.testing import plastic
from plastic_cli.verbs.verify import (
    CONFIDENCE,
    FEWEST_SEEDS,
    Check,
    StepCheck,
    check_of,
    failure_text,
    judged,
    judged_means,
    judgment,
    relative_difference,
    summary_text,
)
from sweeps.watching import statuses, until

pytestmark = pytest.mark.usefixtures("starts")

MACHINE = {"processor": "P", "instructions": "AVX2", "threads": 1, "device": "cpu"}
VERSIONS = {"torch": "2", "numpy": "2", "numba": "0"}


def record(seed, accuracy, **summary):
    values = {"test/accuracy": accuracy, **summary}
    about = {"machine": dict(MACHINE), "versions": dict(VERSIONS), "status": "completed"}
    return RunRecord("r", "backprop", seed, {}, summary=values, **about)


@pytest.fixture
def planned(recipe):
    return plan_recipe(read_recipe(str(recipe())))[0]


def check(planned, others, stored=None, metrics=("test/accuracy",)):
    return Check("x", planned, stored, tuple(others), metrics)


# ------------------------------------------------------------------------------------------------------ one verdict


def test_the_fewest_seeds_are_those_of_an_interval():
    assert FEWEST_SEEDS == MINIMUM_VALUES
    assert CONFIDENCE == intervals.CONFIDENCE


def test_the_interval_is_that_of_the_other_seeds(planned):
    values = [0.5, 0.6, 0.55, 0.7]
    verdict = judgment(check(planned, map(record, range(4), values), record(9, 0.1)), record(9, 0.61), 0.9)
    expected = prediction_interval(values, 0.9)
    (judged_metric,) = verdict.metrics
    assert (judged_metric.interval.low, judged_metric.interval.high) == (expected.low, expected.high)
    assert (verdict.word, verdict.same_seed) == ("inside", "different")
    for value in (expected.low, expected.high):
        assert judgment(check(planned, map(record, range(4), values)), record(9, value), 0.9).word == "inside"
    for value in (np.nextafter(expected.low, 0), np.nextafter(expected.high, 1), None, math.nan):
        verdict = judgment(check(planned, map(record, range(4), values)), record(9, value), 0.9)
        assert (verdict.word, verdict.alarm, verdict.same_seed) == ("outside", True, None)


def test_equal_to_the_bit_means_every_final_metric(planned):
    stored = record(0, 0.5, **{"test/loss": 0.1, "train/nothing": None})
    others = [record(seed, 0.5 + seed / 100) for seed in range(1, 5)]

    def verdict(now, before=stored):
        return judgment(check(planned, others, before), now)

    same = verdict(record(0, 0.5, **{"test/loss": 0.1, "train/nothing": None, "train/added_since": 3.0}))
    assert (same.same_seed, same.differences, same.conditions, same.changed) == ("equal", {}, (), False)
    bit = float(np.nextafter(0.1, 1))
    close = verdict(record(0, 0.5, **{"test/loss": bit, "train/nothing": None}))
    assert (close.same_seed, close.differences) == ("different", {"test/loss": (0.1, bit)})
    assert close.changed
    assert 0 < close.largest_difference < 3e-16
    gone = verdict(record(0, 0.5, **{"test/loss": 0.1}))
    assert (gone.same_seed, gone.largest_difference) == ("different", 0.0)
    lost = verdict(record(0, 0.5, **{"test/loss": None, "train/nothing": None}))
    assert lost.largest_difference == math.inf
    for name, where in {**dict.fromkeys(MACHINE, "machine"), **dict.fromkeys(VERSIONS, "versions")}.items():
        other = record(0, 0.5, **{"test/loss": bit, "train/nothing": None})
        getattr(other, where)[name] = "other"
        found = verdict(other)
        assert (found.same_seed, found.conditions, found.changed) == ("different", (name,), False)
    # A run of an earlier version does not hold the instructions.
    del stored.machine["instructions"]
    assert verdict(record(0, 0.5, **{"test/loss": 0.1, "train/nothing": None})).conditions == ()
    unknown = verdict(record(0, 0.5, **{"test/loss": bit, "train/nothing": None}))
    assert (unknown.conditions, unknown.changed) == (("instructions",), False)


def test_an_outlier_of_the_reference_that_repeats_itself_has_not_shifted(planned):
    others = [record(seed, 1.0) for seed in range(1, 5)]
    verdict = judgment(check(planned, others, record(0, 0.98)), record(0, 0.98))
    assert (verdict.word, verdict.same_seed, verdict.alarm) == ("outside", "equal", False)
    assert failure_text([verdict], [], exact=True) is None
    assert judgment(check(planned, others, record(0, 0.98)), record(0, 0.97)).alarm


def test_twenty_of_twenty_are_inside_in_19_of_20_verifications_without_a_change():
    """All intervals together hold with 95%: 400 verifications of 20 runs of normal results."""
    generator = np.random.default_rng(0)
    passed = 0
    for _ in range(400):
        # The seeds of the reference and the repeated run come from one distribution; each setting has its own.
        values = 5 * generator.normal(size=(20, 1)) + generator.exponential(size=(20, 1)) * generator.normal(
            size=(20, 6)
        )
        intervals = [prediction_interval(row[1:], 1 - 0.05 / 20) for row in values]
        passed += all(interval.low <= row[0] <= interval.high for interval, row in zip(intervals, values, strict=True))
    # The bound of Bonferroni is 0.951 for independent runs; 400 draws have a standard error of 0.011.
    assert abs(passed / 400 - (1 - 0.05 / 20) ** 20) < 0.033


def seeds_of(planned, number):
    return [replace(planned, config={**planned.config, "seed": seed}) for seed in range(number)]


def of_five_seeds(planned, stored, repeated, confidence):
    """The verdicts of five seeds whose values are `repeated`, where the reference has `stored`."""
    records = [replace(record(seed, value), run=f"stored-{seed}") for seed, value in enumerate(stored)]
    return [
        judgment(check(run, records[:seed] + records[seed + 1 :], records[seed]), record(seed, value), confidence)
        for seed, (run, value) in enumerate(zip(seeds_of(planned, 5), repeated, strict=True))
    ]


def test_the_mean_of_the_repeated_seeds_is_judged_against_all_stored_seeds(planned):
    stored, repeated = [0.50, 0.52, 0.51, 0.49, 0.53], [0.54, 0.52, 0.55, 0.53, 0.56]
    (mean,) = judged_means(of_five_seeds(planned, stored, repeated, 0.95))
    # Six numbers are judged: five runs and their mean.
    expected = prediction_interval(stored, 1 - 0.05 / 6, of=5)
    assert (mean.interval.low, mean.interval.high) == (expected.low, expected.high)
    assert mean.value == pytest.approx(0.54)
    assert mean.inside == (expected.low <= 0.54 <= expected.high)
    (same,) = judged_means(of_five_seeds(planned, stored, stored, 0.95))
    assert same.inside
    assert judged_means(of_five_seeds(planned, stored, repeated, 0.95)[:1]) == []


def test_a_shift_of_all_seeds_is_seen_in_their_mean_where_single_runs_miss_it(planned):
    generator = np.random.default_rng(1)
    seen = {"runs": 0, "mean": 0, "mean without a shift": 0}
    for _ in range(200):
        stored, again = 0.5 + 0.01 * generator.normal(size=(2, 5))
        verdicts = of_five_seeds(planned, stored, again + 0.04, 1 - 0.05 / 6)
        seen["runs"] += failure_text([verdicts[0]], [], exact=False) is not None
        seen["mean"] += judged_means(verdicts)[0].alarm
        seen["mean without a shift"] += judged_means(of_five_seeds(planned, stored, again, 0.95))[0].alarm
    assert seen["mean"] > 120 > 80 > seen["runs"], seen
    assert seen["mean without a shift"] < 8, seen


def test_runs_that_repeat_the_stored_ones_to_the_bit_have_no_shifted_mean(planned):
    stored = [0.5, 0.5, 0.5, 0.5, 0.9]
    verdicts = of_five_seeds(planned, stored, stored, 0.95)[-2:]
    assert [verdict.same_seed for verdict in verdicts] == ["equal", "equal"]
    assert not judged_means(verdicts)[0].alarm
    moved = of_five_seeds(planned, [0.5, 0.501, 0.499, 0.5, 0.502], [0.6] * 5, 0.95)
    assert judged_means(moved)[0].alarm
    assert failure_text([], [], exact=False) is not None, "nothing was compared"


def test_a_shifted_mean_is_a_failure_of_the_verification(planned):
    # Each seed alone lies inside its wide interval; all of them together do not.
    stored = [0.50, 0.54, 0.46, 0.52, 0.48]
    verdicts = of_five_seeds(planned, stored, [value + 0.12 for value in stored], 1 - 0.05 / 6)
    assert [verdict.word for verdict in verdicts] == ["inside"] * 5
    assert "1 mean over seeds has shifted: " in failure_text(verdicts, judged_means(verdicts), exact=False)
    assert "0 of 1 means over seeds inside" in summary_text(verdicts, judged_means(verdicts))
    same = of_five_seeds(planned, stored, stored[::-1], 0.99)
    assert failure_text(same, judged_means(same), exact=False) is None


def test_the_means_of_a_verification_are_computed_once(planned, monkeypatch):
    calls = []
    monkeypatch.setattr("plastic_cli.api.verify.judged_means", lambda verdicts: calls.append(verdicts) or [])
    stored = [0.50, 0.54, 0.46, 0.52, 0.48]
    found = Verification(tuple(of_five_seeds(planned, stored, stored[::-1], 0.99)))
    assert found.passed
    assert len(found.table) == 5
    assert "5 of 5 inside" in repr(found)
    assert len(calls) == 1


def test_the_confidence_is_shared_by_the_judged_metrics_of_all_runs(planned, runs_folder):
    others = [record(seed, 0.5 + seed / 10, **{"validation/accuracy": 0.4}) for seed in range(1, 5)]
    checks = [
        check(planned, others),
        replace(check(planned, others, metrics=("test/accuracy", "validation/accuracy")), planned=planned),
        Check("x", planned, reason="the reference has no run with this setting"),
    ]
    runs_folder.mkdir()
    record(9, 0.75, **{"validation/accuracy": 0.4}).write(_made(runs_folder / "r"))
    verdicts = judged(checks, [_ended(planned, "r")], runs_folder)
    expected = prediction_interval([0.6, 0.7, 0.8, 0.9], 1 - 0.05 / 3)
    for verdict in verdicts[:2]:
        assert verdict.metrics[0].interval == expected
    assert [len(verdict.metrics) for verdict in verdicts] == [1, 2, 0]
    assert [verdict.word for verdict in verdicts] == ["inside", "inside", "not comparable"]


def test_a_failed_run_or_step_is_not_hidden_by_steps_that_were_left(planned, runs_folder):
    runs_folder.mkdir()
    record(9, 0.75).write(_made(runs_folder / "r"))
    steps = [PlannedStep(verb, planned, {}, "") for verb in ("eval", "analyze")]
    stages = tuple(StepCheck(step, None, ()) for step in steps)
    chosen = replace(check(planned, map(record, range(4), [0.6, 0.7, 0.8, 0.9])), stages=stages)

    def found(*ended):
        (verdict,) = judged([chosen], list(ended), runs_folder)
        return verdict.word, verdict.reason

    def ended(of, word, error=None):
        return SweepRun(of, word=word, outcome=Outcome("failed" if error else "interrupted", error=error))

    done, left = _ended(planned, "r"), [ended(step, "left") for step in steps]
    assert found(ended(planned, "failed", "broken"), *left) == ("failed", "broken")
    assert found(ended(planned, "failed", "broken")) == ("failed", "broken")
    assert found(done, ended(steps[0], "failed", "no figure"), left[1]) == ("failed", "no figure")
    for stopped in ([], [done], [done, *left], [done, _ended(steps[0], "r"), left[1]]):
        assert found(*stopped) == ("not finished", "the verification was stopped")
    assert found(done, *(_ended(step, "r") for step in steps))[0] == "inside"


def test_a_stored_run_that_failed_is_not_equal_to_one_that_completes(planned):
    stored = replace(record(9, 0.1), summary={}, status="failed")
    others = [record(seed, value) for seed, value in enumerate([0.6, 0.62, 0.64, 0.66])]
    verdict = judgment(check(planned, others, stored), record(9, 0.01))
    assert (verdict.word, verdict.same_seed, verdict.alarm) == ("outside", "different", True)


def _made(folder):
    folder.mkdir()
    return folder


def _ended(planned, run):
    return SweepRun(planned, word="done", outcome=Outcome("done", run))


# ---------------------------------------------------------------------------------------- results that have shifted


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Six seeds of backprop on digits, trained as they should be: the reference, and the recipe."""
    folder = tmp_path_factory.mktemp("trained")
    options = {"hidden": [32], "epochs": 6, "learning_rate": 0.03}
    plastic_cli.train("backprop", seeds=6, runs=folder / "runs", quiet=True, **options)
    file = folder / "own.toml"
    listed = "".join(f"{name} = {value}\n" for name, value in options.items())
    file.write_text(f'title = "t"\nwhy = "w"\nrule = "backprop"\nminutes = 0.1\nseeds = 6\n[options]\n{listed}')
    plan = with_data(plan_recipe(read_recipe(str(file))), None)
    write_reference(RunStore(folder / "runs"), folder / "reference", {"own": [run.settings for run in plan]})
    return plan, Reference(folder / "reference"), options, file


@pytest.fixture
def repeated(trained, tmp_path):
    """Train seed 0 again, with changed options, and return the verdict as in a verification of 20 runs."""
    plan, reference, options, _ = trained

    def repeat(**changed):
        run = plastic_cli.train("backprop", runs=tmp_path / "again", quiet=True, **{**options, **changed})
        return judgment(check_of(plan[0], "own", reference), read_record(run.folder), 1 - 0.05 / 20)

    return repeat


def test_a_run_that_is_repeated_is_inside_and_equal(repeated):
    verdict = repeated()
    assert (verdict.word, verdict.same_seed, verdict.conditions) == ("inside", "equal", ())
    assert len(verdict.check.others) == 5
    assert not verdict.alarm


def test_an_update_of_the_wrong_sign_is_found(repeated, monkeypatch):
    import torch

    step = torch.optim.Adam.step

    def upwards(self, *arguments, **options):
        for parameter in (parameter for group in self.param_groups for parameter in group["params"]):
            if parameter.grad is not None:
                parameter.grad.neg_()
        return step(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.Adam, "step", upwards)
    verdict = repeated()
    assert (verdict.word, verdict.alarm, verdict.changed) == ("outside", True, True)


def test_another_learning_rate_is_found(repeated):
    assert repeated(learning_rate=0.001).alarm


def test_an_accuracy_of_training_images_in_place_of_test_images_is_found(repeated, monkeypatch):
    from plastic_backprop import training

    load = training.load_training_data

    def mistaken(*arguments, **options):
        data = load(*arguments, **options)
        return replace(data, test=data.train)

    monkeypatch.setattr(training, "load_training_data", mistaken)
    verdict = repeated()
    assert (verdict.word, verdict.alarm) == ("outside", True)


def test_another_seed_is_inside_and_not_equal(repeated):
    """A change of the random streams shifts no distribution; only the equality to the bit shows it."""
    verdict = repeated(seed=6)
    assert (verdict.word, verdict.same_seed, verdict.alarm, verdict.changed) == ("inside", "different", False, True)
    assert failure_text([verdict], [], exact=False) is None
    assert "not equal to the bit" in failure_text([verdict], [], exact=True)


# ------------------------------------------------------------------------------------------------ what is comparable


def test_why_a_run_cannot_be_compared(trained, tmp_path):
    plan, reference, _, file = trained
    assert check_of(plan[0], "own", reference).reason is None
    assert check_of(plan[0].with_checksum("0" * 64), "own", reference).reason == (
        "the reference was measured on other data with the name digits: the checksums differ"
    )
    assert check_of(plan[0].with_checksum(None), "own", reference).reason == "the data set digits is not here"
    other = tmp_path / "other.toml"
    other.write_text(file.read_text().replace("epochs = 6", "epochs = 7"))
    unknown = plan_recipe(read_recipe(str(other)))[0]
    assert check_of(unknown, "own", reference).reason == "the reference has no run with this setting"
    runs = RunStore(reference.folder.parent / "runs")
    few = write_reference(runs, tmp_path / "few", {"own": [run.settings for run in plan[:3]]})
    assert few == 3
    small = Reference(tmp_path / "few")
    assert check_of(plan[0], "own", small).reason == (
        "the reference has 2 other seeds of this setting, and an interval needs 3"
    )
    # A seed that the reference does not have has all three as others.
    assert check_of(plan[5], "own", small).reason is None
    assert check_of(plan[5], "own", small).stored is None


# ---------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def stored(runs_folder, tmp_path, monkeypatch):
    """Write a reference of instant runs with these test accuracies, one for each seed, and the recipe of the runs."""
    monkeypatch.setattr("plastic_cli.runs.reference.reference_folder", lambda: tmp_path / "reference")
    monkeypatch.setattr("plastic_cli.sweeps.recipe.recipes_folder", lambda: tmp_path)

    def write(file, *accuracies, status="completed"):
        plan = plan_recipe(read_recipe(str(file)), seeds=len(accuracies))
        for planned, accuracy in zip(plan, accuracies, strict=True):
            versions = {"rule": discover().origins["backprop"]}
            run = create_run(runs_folder, rule="backprop", config=planned.config, versions=versions)
            summary = {"test/accuracy": accuracy, "validation/accuracy": 1.0, "validation/loss": 0.0}
            replace(run.record, status=status, summary=summary, seconds=2.0).write(run.folder)
        names = {file.stem: [planned.settings for planned in plan]}
        assert write_reference(RunStore(runs_folder), tmp_path / "reference", names) == len(plan)
        return file

    return write


@pytest.fixture
def reference(stored, recipe):
    """A recipe of four seeds whose instant runs have an accuracy of 0.5, as seed 0 of its reference has."""
    return stored(recipe(seeds="4", options="learning_rate = 0.01"), 0.5, 0.501, 0.502, 0.503)


def test_results_inside_pass(reference, runs_folder, instant_runs):
    before = sorted(RunStore(runs_folder).folders())
    outcome = plastic("verify", reference, "--seeds", 2, "--workers", 2)
    assert outcome.code == 0, outcome.err
    assert outcome.out.count(" inside ") == 4
    assert outcome.out.count("differs by 0.002") == 2
    assert outcome.err.endswith(
        "2 of 2 inside; 2 of 2 means over seeds inside; 1 of 2 equal to the bit to the stored run of the same seed\n"
    )
    assert "[2/2] done" in outcome.err
    # The runs are new, in a folder of their own that is gone.
    assert sorted(RunStore(runs_folder).folders()) == before
    folder = re.search(r"2 runs in (\S+plastic-verify-\w+)", outcome.err)[1]
    assert not Path(folder).exists()


def test_a_result_outside_is_exit_code_1(stored, recipe, instant_runs):
    file = stored(recipe(options="learning_rate = 0.01"), 0.8, 0.801, 0.802, 0.803)
    outcome = plastic("verify", file, "--seeds", 2, "--format", "csv")
    assert outcome.code == 1
    lines = outcome.out.splitlines()
    assert len(lines) == 1 + 2 * 2 + 2, "a line for each metric of each run, and of the mean of both"
    runs = lines[1:5]
    assert sum(",outside," in line for line in runs) == sum(",inside," in line for line in runs) == 2
    assert "error: 2 runs are shifted: backprop seed=0 has test accuracy 50.00%, outside " in outcome.err
    found = plastic("verify", file, "--json")
    assert (found.code, found.err.count("\n")) == (1, 1)
    (result,) = found.results
    assert (result["verdict"], result["shifted"], result["same_seed"]) == ("outside", True, "different")
    assert result["differences"] == {"test/accuracy": [0.8, 0.5]}
    assert result["metrics"]["validation/accuracy"]["inside"]


def test_exact_also_refuses_what_differs_from_the_stored_run(reference, instant_runs):
    outcome = plastic("verify", reference, "--seeds", 2, "--exact", "--quiet")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err == (
        "error: 1 run is not equal to the bit: backprop seed=1 differs from the stored run by 0.002.\n"
    )


def test_a_folder_keeps_the_runs_and_says_that_they_are_old(reference, tmp_path, starts, instant_runs):
    kept = tmp_path / "kept"
    assert plastic("verify", reference, "--runs", kept, "--seeds", 1).code == 0
    assert len(RunStore(kept).folders()) == len(starts()) == 1
    again = plastic("verify", reference, "--runs", kept, "--seeds", 1)
    assert again.code == 0
    assert len(starts()) == 1
    assert f"warning: {kept} holds 1 of the 1 runs already: they are judged and not run again" in again.err


def test_nothing_is_run_that_cannot_be_compared(reference, recipe, starts, instant_runs):
    other = recipe(seeds="2", options="learning_rate = 0.5", name="other")
    outcome = plastic("verify", other)
    assert outcome.code == 1
    assert "2 runs are not comparable: the reference has no run with this setting" in outcome.err
    assert outcome.err.endswith("error: no run was compared: the reference has no run with this setting.\n")
    assert starts() == []
    mixed = plastic("verify", recipe(grid="learning_rate = [0.01, 0.5]", name="mixed"), "--json")
    assert mixed.code == 0, mixed.err
    assert [result["verdict"] for result in mixed.results] == ["inside", "not comparable"]
    assert len(starts()) == 1


def test_a_run_that_fails_is_exit_code_1(stored, recipe, instant_runs):
    file = recipe(options="batch_size = 13")
    stored(file, 0.5, 0.5, 0.5, 0.5)
    outcome = plastic("verify", file)
    assert outcome.code == 1
    assert "failed: backprop seed=0: train/loss became nan" in outcome.err
    assert "error: 1 run is shifted or failed: backprop seed=0 failed: train/loss became nan" in outcome.err


def test_the_steps_of_a_recipe_are_compared_with_those_of_the_stored_run(
    stored, recipe, sweep, instant_runs, runs_folder, tmp_path, starts
):
    file = recipe(options="learning_rate = 0.01", steps='[[steps]]\nverb = "eval"\n')
    stored(file, 0.5, 0.501, 0.502, 0.503)
    sweep(file)
    plan = plan_recipe(read_recipe(str(file)), seeds=4)

    def write():
        write_reference(RunStore(runs_folder), tmp_path / "reference", {"mine": [planned.settings for planned in plan]})

    write()
    same = plastic("verify", file, "--steps", "--exact", "--json")
    assert same.code == 0, same.err
    assert same.results[0]["same_seed"] == "equal"
    # Without --steps only the run is repeated.
    assert plastic("verify", file, "--json").code == 0
    assert [start["verb"] for start in starts()] == ["eval", "train", "eval", "train"]
    (path,) = runs_folder.glob("*/stages/*.json")
    record = json.loads(path.read_text())
    (name, value) = next(iter(record["results"].items()))
    path.write_text(json.dumps({**record, "results": {name: value + 0.25}}))
    write()
    other = plastic("verify", file, "--steps", "--exact", "--json")
    assert other.code == 1
    assert other.results[0]["differences"] == {f"eval: {name}": [value + 0.25, value]}
    assert other.results[0]["verdict"] == "inside"


def test_a_result_of_a_step_has_an_interval_from_the_other_seeds(
    stored, recipe, sweep, instant_runs, runs_folder, tmp_path
):
    file = recipe(options="learning_rate = 0.01", steps='[[steps]]\nverb = "eval"\n', seeds="4")
    sweep(file)
    plan = plan_recipe(read_recipe(str(file)), seeds=4)
    reference = {"mine": [planned.settings for planned in plan]}

    def write(shift):
        for path in runs_folder.glob("*/stages/*.json"):
            stage = json.loads(path.read_text())
            seed = json.loads((path.parents[1] / "run.json").read_text())["seed"]
            results = dict.fromkeys(stage["results"], 0.5 + seed / 1000 + shift)
            path.write_text(json.dumps({**stage, "results": results}))
        write_reference(RunStore(runs_folder), tmp_path / "reference", reference)

    def words():
        outcome = plastic("verify", file, "--seeds", 1, "--steps", "--format", "csv")
        rows = list(csv.DictReader(io.StringIO(outcome.out)))
        return outcome.code, {row["step"]: row["verdict"] for row in rows}

    (value,) = {
        value
        for path in runs_folder.glob("*/stages/*.json")
        for value in json.loads(path.read_text())["results"].values()
    }
    write(value - 0.5)
    assert words() == (0, {"train": "inside", "eval": "inside"})
    write(value - 0.25)
    assert words() == (1, {"train": "inside", "eval": "outside"})
    # Also if the stored run of this seed does not have the step, and the training is equal to the bit.
    for path in runs_folder.glob("*/stages/*.json"):
        if json.loads((path.parents[1] / "run.json").read_text())["seed"] == 0:
            path.unlink()
    write(value - 0.25)
    assert words() == (1, {"train": "inside", "eval": "outside"})


def test_a_sample_is_drawn_from_all_recipes(reference, recipe, instant_runs):
    # The reference has no runs of this one.
    recipe(seeds="9", options="learning_rate = 0.5", name="unmeasured")

    def drawn(*options):
        outcome = plastic("verify", "--sample", 2, *options, "--dry-run", "--json")
        assert outcome.code == 0, outcome.err
        return [(row["recipe"], row["seed"]) for row in json.loads(outcome.out)]

    assert {recipe for recipe, _ in drawn()} == {"mine"}
    assert drawn("--seed", 3) == drawn("--seed", 3)
    assert len({tuple(drawn("--seed", seed)) for seed in range(6)}) > 1
    # Each run took two seconds.
    assert len(drawn("--minutes", 0.07)) == 2
    assert len(drawn("--minutes", 0.06)) == 1
    outcome = plastic("verify", "--sample", 1, "--json")
    assert (outcome.code, outcome.results[0]["recipe"]) == (0, "mine")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name a recipe, or the number of runs to draw with --sample, as in"),
        (["mine", "--sample", 3], "not both"),
        (["--minutes", 3], "needs the number of runs to draw, as in `plastic verify --sample 10 --minutes 3`"),
        (["--sample", 2, "--minutes", "nan"], "--minutes nan"),
        (["mine", "--minutes", 3], "--minutes 3 does nothing without --sample"),
        (["mine", "--seed", 3], "--seed 3 does nothing without --sample"),
        (["--sample", 3, "--seeds", 2], "--seeds 2 does nothing with --sample"),
        (["--sample", 0], "--sample 0: it should be greater than or equal to 1"),
        (["--sample", 2, "--rule", "grlu"], "the reference has no runs of grlu, so that none can be drawn"),
        (["--sample", 2, "--minutes", 1e-9], "the reference has no run that takes at most 1e-09 minutes"),
        (["nonsense"], "there is no recipe 'nonsense'"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(reference, arguments, words):
    outcome = plastic("verify", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert words in outcome.err
    assert outcome.err.count("\n") == 1


def test_a_reference_that_cannot_be_read_is_one_line(reference, tmp_path, monkeypatch):
    monkeypatch.setattr("plastic_cli.runs.reference.reference_folder", lambda: tmp_path / "nowhere")
    outcome = plastic("verify", reference)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "there is no reference in" in outcome.err


def test_ctrl_c_stops_the_runs_and_says_what_is_left(processes, reference, tmp_path, instant_runs):
    kept = tmp_path / "kept"
    program = (
        "import sys; from plastic_cli.runs import reference; from pathlib import Path;"
        "reference.reference_folder = lambda: Path(sys.argv[1]);"
        "from plastic_cli.app import run_command_line; sys.exit(run_command_line(sys.argv[2:]))"
    )
    arguments = ["verify", reference, "--runs", kept, "--workers", 1]
    process = processes(program, tmp_path / "reference", *arguments, INSTANT_SECONDS="30")
    until(lambda: kept.is_dir() and statuses(kept) == ["running"])
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "stopped: 4 of 4 runs are not finished. Repeat the same command to finish them" in output
    assert plastic("verify", reference, "--seeds", 1, "--runs", kept).code == 0
    assert statuses(kept) == ["completed"]


# ----------------------------------------------------------------------------------------------- the Python interface


def test_the_python_interface_returns_the_same(reference, instant_runs):
    found = plastic_cli.verify(reference, seeds=2, quiet=True)
    assert found.passed
    assert found.failure is None
    assert (found.table["verdict"] == "inside").all()
    means, table = (found.table[found.table["seed"].isna() == mean] for mean in (True, False))
    assert list(zip(table["metric"], table["seed"], strict=True)) == [
        (metric, seed) for seed in (0, 1) for metric in ("test/accuracy", "validation/accuracy")
    ]
    assert list(means["metric"]) == [mean.metric for mean in found.means] == ["test/accuracy", "validation/accuracy"]
    assert list(means["value"]) == [table.loc[table["metric"] == name, "value"].mean() for name in means["metric"]]
    assert "2 of 2 inside" in repr(found)
    assert "<table" in found._repr_html_()
    assert not replace(found, exact=True).passed
    with pytest.raises(UserError, match="there is no option 'samples'\\. Did you mean 'sample'"):
        plastic_cli.verify(samples=3)


def test_the_command_runs_real_processes(trained, monkeypatch):
    """Without stand-ins: a run of the reference is repeated by `plastic train` and is equal to the bit."""
    _, shipped, _, file = trained
    monkeypatch.setattr("plastic_cli.runs.reference.reference_folder", lambda: shipped.folder)
    outcome = plastic("verify", file, "--seeds", 1, "--exact", "--json")
    assert outcome.code == 0, outcome.err
    (result,) = outcome.results
    assert (result["verdict"], result["same_seed"], result["difference"]) == ("inside", "equal", 0.0)


def test_the_page_says_from_which_shift_on_a_result_lies_outside():
    page = (Path(__file__).parents[2] / "docs/measured-reference.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", page, re.MULTILINE)
    assert len(rows) == 3
    for number, *distances in rows:
        for (others, repeated), shown in zip(((4, 1), (9, 1), (5, 5)), distances, strict=True):
            values = np.arange(others) / np.arange(others).std(ddof=1)
            interval = prediction_interval(values, 1 - 0.05 / int(number), of=repeated)
            assert f"{interval.high - interval.mean:.1f}" == shown


@pytest.mark.parametrize(
    ("stored", "value", "difference"),
    [(1.0, 2.0, 0.5), (2.0, 1.0, 0.5), (-1.0, 1.0, 2.0), (0.0, 0.0, 0.0), (0.0, 3.0, 1.0), (None, None, 0.0),
     (None, 1.0, math.inf), (1.0, None, math.inf)],
)  # fmt: skip
def test_a_difference_is_a_share_of_the_larger_value(stored, value, difference):
    assert relative_difference(stored, value) == difference
