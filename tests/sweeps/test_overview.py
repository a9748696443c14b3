"""The result of a recipe in the reference: means over all seeds of its settings, whatever their device."""

import json

import pandas as pd
import pytest

import plastic_cli as plastic
from plastic_cli.commands.recipes import listed_table, settings_table
from plastic_cli.reports.standing import Standing
from plastic_cli.runs import reference as module
from plastic_cli.statistics.intervals import mean_interval
from plastic_cli.sweeps.overview import reference_result
from plastic_cli.sweeps.plan import plan_recipe
from plastic_cli.sweeps.recipe import read_recipe
from plastic_cli.tables import cell_text
from plastic_cli.terminal_tables import table_text
from plastic_cli.testing import plastic as command
from reports.references import record_of, reference_of, write_runs


def planned(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(f'title = "t"\nwhy = "w"\nrule = "grlu"\nseeds = 5\n{text}')
    return plan_recipe(read_recipe(str(path)))


def runs(values, number=0, **options):
    return [record_of("grlu", seed, {"test/accuracy": value}, number=number + seed, **options)
            for seed, value in enumerate(values)]  # fmt: skip


def test_one_setting_has_a_mean_and_the_number_of_its_seeds(tmp_path):
    reference = reference_of(tmp_path, runs([0.9, 0.91, 0.92, 0.93, 0.99], device="cpu"))
    result = reference_result(planned(tmp_path, "[options]\nepochs = 10"), reference)
    assert (result.metric, result.runs, result.missing) == ("test/accuracy", 5, 0)
    assert result.means == pytest.approx((0.93,))
    assert result.text == "93.00%, n = 5"


def test_all_seeds_of_a_setting_count_as_in_a_comparison(tmp_path):
    records = runs([0.9, 0.8, 0.1, 0.1, 0.1])
    reference = reference_of(tmp_path, records)
    result = reference_result([each for each in planned(tmp_path, "") if each.seed < 2], reference)
    assert (result.runs, result.means, result.text) == (5, pytest.approx((0.4,)), "40.00%, n = 5")
    write_runs(tmp_path / "own", [record_of("grlu", 9, {"test/accuracy": 0.5}, number=99)])
    standing = Standing([tmp_path / "own" / "20261101-0099"], reference)
    assert standing.results["mean"].tolist() == pytest.approx(result.means)


def test_several_settings_have_a_range_and_missing_runs_are_counted(tmp_path):
    records = [*runs([0.5, 0.7]), *runs([0.9, 0.9, 0.9], number=20, perturbations=4)]
    result = reference_result(planned(tmp_path, "[grid]\nperturbations = [1, 4, 16]"), reference_of(tmp_path, records))
    assert sorted(result.means) == pytest.approx([0.6, 0.9])
    assert result.text == "60.00% to 90.00%, 2 settings, n = 5, 10 missing"


def test_failed_runs_and_values_that_are_not_finite_do_not_count(tmp_path):
    records = runs([0.5, 0.7, 0.9, None, 0.9])
    records[4].status = "failed"
    result = reference_result(planned(tmp_path, ""), reference_of(tmp_path, records))
    assert (result.runs, result.means) == (3, pytest.approx((0.7,)))


def test_a_note_on_the_data_marks_the_result_and_is_said(tmp_path):
    records = runs([0.5, 0.7, 0.9])
    for record in records:
        record.data["note"] = "not the official split"
    result = reference_result(planned(tmp_path, ""), reference_of(tmp_path, records))
    assert (result.text, result.data_notes) == ("70.00%*, n = 3, 2 missing", ("digits: not the official split",))


def test_notes_on_one_data_set_are_said_once(tmp_path):
    records = runs([0.5, 0.7, 0.9])
    for record in records:
        record.data |= {"note": "not the official split", "classes": 10}
    records[0].data["only_classes"] = [0, 1, 2]
    result = reference_result(planned(tmp_path, ""), reference_of(tmp_path, records))
    assert result.data_notes == (
        "digits: not the official split",
        "digits: runs with classes 0 to 2 are trained and tested on images of these classes only",
    )


def test_each_setting_of_a_recipe_has_its_values_or_is_not_measured(tmp_path):
    records = [*runs([0.5, 0.7]), *runs([0.9, 0.9, 0.93], number=20, perturbations=4)]
    named = '[[runs]]\nname = "noise"\n[runs.grid]\nperturbations = [1, 4, 16]'
    result = reference_result(planned(tmp_path, named), reference_of(tmp_path, records))
    rows = [[cell_text(cell) for cell in row] for row in settings_table(result).rows]
    assert rows == [
        ["noise, perturbations=1", "not measured", "0"],
        ["noise, perturbations=4", "91.00 [86.70, 95.30]", "3"],
        ["noise, perturbations=16", "60.00", "2"],
    ]


def test_a_recipe_without_runs_is_not_measured_and_a_data_set_without_any_run_is_the_reason(tmp_path):
    reference = reference_of(tmp_path, [record_of("backprop", 0, {"test/accuracy": 0.5})])
    assert reference_result(planned(tmp_path, ""), reference).text == "not measured"
    missing = planned(tmp_path, '[options]\ndataset = "cifar10"')
    assert reference_result(missing, reference).text == "not measured: CIFAR-10 is not here"
    both = planned(tmp_path, '[grid]\ndataset = ["cifar10", "digits"]')
    assert reference_result(both, reference).text == "not measured"


def test_the_recipes_and_the_reference_are_tables_and_the_shell_shows_the_same(tmp_path, monkeypatch):
    plan = plan_recipe(read_recipe("grlu-quick"))
    records = [
        record_of("grlu", summary={"test/accuracy": 0.5 + place / 100}, number=place, **each.config)
        for place, each in enumerate(plan)
    ]
    reference_of(tmp_path, records, "grlu-quick")
    monkeypatch.setattr(module, "reference_folder", lambda: tmp_path / "reference")
    table = plastic.reference()
    assert len(table) == len(plan)
    assert table["recipes"].map(list).tolist() == [["grlu-quick"]] * len(plan)
    assert {"test/accuracy", "config.perturbations", "torch", "commit"} <= set(table.columns)
    row = plastic.recipes().set_index("recipe").loc["grlu-quick"]
    settings = [str(row) for row in table.filter(like="config.").drop(columns="config.seed").to_dict("records")]
    by_setting = table["test/accuracy"].groupby(settings).mean()
    assert (row["reference_low"], row["reference_high"]) == pytest.approx((by_setting.min(), by_setting.max()))
    assert (row["reference_runs"], row["reference_settings"]) == (len(plan), len(by_setting))
    assert pd.isna(row["reference_mean"])
    listed = {each["recipe"]: each for each in json.loads(command("recipes", "--json").out)}
    assert listed["grlu-quick"]["reference"] == row["reference"]
    assert listed["eglp-eg-02-cifar10"]["reference"] == "not measured: CIFAR-10 is not here"
    shown = command("recipes", "grlu-quick")
    assert shown.err.endswith(f"reference: {row['reference']}\n")
    assert shown.err.startswith("Results in the reference\n\n setting")
    for planned_runs, accuracies in table["test/accuracy"].groupby(settings):
        interval = mean_interval(accuracies)
        assert f"{100 * interval.mean:.2f} [{100 * interval.low:.2f}, {100 * interval.high:.2f}]" in shown.err, (
            planned_runs
        )
    assert "reference:" not in shown.out, "the text can be copied into a file"


@pytest.mark.parametrize("width", [80, 100])
def test_a_recipe_has_at_most_three_lines_in_a_narrow_terminal(width):
    results = ["21.11% to 97.31%*, 96 settings, n = 180, 252 missing", "not measured: CIFAR-10 is not here", None]
    rows = [
        {"recipe": f"selective-sp-05-cifar10-{number}", "rule": "grlu, backprop, eglp", "runs": 400, "done": 0,
         "steps": 39, "steps_done": 0, "time": "19.7 h", "reference": result, "title": "A title of many words " * 6}
        for number, result in enumerate(results)
    ]  # fmt: skip
    text = table_text(listed_table(rows), width)
    assert max(map(len, text.splitlines())) <= width
    body = text.partition("─\n")[2].partition("\n\n")[0].splitlines()
    assert len(body) <= 3 * len(rows)
    assert [line.split()[0] for line in body if "selective" in line] == [row["recipe"] for row in rows]
    assert "0 of 439" in text
    wide = table_text(listed_table(rows), None)
    assert "A title of many words" in wide and "grlu, backprop, eglp" in wide


def test_a_missing_reference_is_a_warning_and_the_recipes_are_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "reference_folder", lambda: tmp_path / "nothing")
    done = command("recipes", "--json", "--rule", "grlu")
    assert done.code == 0
    assert "there is no reference in" in done.err
    assert {row["reference"] for row in json.loads(done.out)} == {None}
    with pytest.raises(plastic.PlasticError, match="there is no reference in"):
        plastic.reference()
