import csv
import io
import json
import xml.etree.ElementTree as ElementTree

import pandas as pd
import pytest
from plotnine import aes, geom_point, ggplot

from plastic_cli.api.report import DEFAULT_FOLDER
from plastic_cli.api.report_sources import recipes_by_claim, recipes_by_setting
from plastic_cli.commands.report import Options, print_report
from plastic_cli.errors import PlasticError, UserError
from plastic_cli.reports.grouping import group_runs, setting_and_data
from plastic_cli.reports.options import Sources
from plastic_cli.sweeps.plan import plan_recipe
from plastic_cli.sweeps.recipe import read_recipe
from reports.report_frames import CLAIMS, grlu_experiments
from reports.stores import write_store


@pytest.fixture
def store(tmp_path):
    runs, metrics = grlu_experiments(seeds=3)
    write_store(tmp_path / "store", runs, metrics)
    return tmp_path / "store"


def report(runs, *, claims=None, headlines=None, **options):
    sources = Sources({"grlu": CLAIMS} if claims is None else claims, (headlines or {}).get, {})
    print_report(Options.from_values({"runs": runs, **options}), sources)


def test_csv_on_stdout_is_nothing_but_csv(store, capsys):
    report(store, format="csv")
    out, err = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["claim"] for row in rows] == ["", "", "", "GR-02", "GR-06"]
    assert all(0 < float(row["low"]) < float(row["mean"]) < float(row["high"]) < 1 for row in rows)
    assert err == ""


def test_csv_of_the_claims(store, capsys):
    report(store, format="csv", table="claims")
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["verdict"] for row in rows] == ["reproduced", "not reproduced", "context"]


def test_json_is_one_object(store, capsys):
    report(store, format="json")
    read = json.loads(capsys.readouterr().out)
    assert list(read) == ["results", "claims"]
    assert len(read["results"]) == 5
    report(store, format="json", table="claims")
    assert list(json.loads(capsys.readouterr().out)) == ["claims"]


@pytest.mark.parametrize(
    ("output_format", "mark"), [("table", "Published claims"), ("markdown", "| --- |"), ("latex", r"\toprule")]
)
def test_tables_for_readers_hold_results_claims_and_others(store, capsys, output_format, mark):
    report(store, format=output_format)
    out = capsys.readouterr().out
    assert mark in out
    for text in ("backprop", "GR-02", "not reproduced", "Ren et al."):
        assert text in out
    report(store, format=output_format, table="results")
    assert "Ren et al." not in capsys.readouterr().out


def test_filters(store, capsys):
    report(store, format="json", rule="backprop")
    read = json.loads(capsys.readouterr().out)
    assert [row["rule"] for row in read["results"]] == ["backprop"]
    assert read["claims"] == []
    report(store, format="json", dataset="mnist")
    assert len(json.loads(capsys.readouterr().out)["results"]) == 5


def test_claims_on_other_data_sets_are_not_listed_when_one_is_chosen(tmp_path, capsys):
    runs, metrics = grlu_experiments(seeds=1, datasets=("digits",))
    write_store(tmp_path / "store", runs, metrics)
    report(tmp_path / "store", format="json", dataset="digits")
    assert json.loads(capsys.readouterr().out)["claims"] == []
    report(tmp_path / "store", format="json")
    assert [row["verdict"] for row in json.loads(capsys.readouterr().out)["claims"]] == ["untested", "untested"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"format": "markdwn"},
            "--format markdwn: it should be 'table', 'markdown', 'latex', 'csv' or 'json'. Did you mean 'markdown'?",
        ),
        ({"table": "claim"}, "--table claim: it should be 'all', 'results' or 'claims'. Did you mean 'claims'?"),
        ({"status": "complete"}, "Did you mean 'completed'?"),
        ({"rule": "grul"}, "--rule grul: no run has it. Did you mean 'grlu'? There are: backprop, grlu."),
        ({"dataset": "mnits"}, "--dataset mnits: no run has it. Did you mean 'mnist'? There are: mnist."),
    ],
)
def test_a_wrong_choice_gets_the_nearest_one(store, options, message):
    with pytest.raises(UserError) as caught:
        report(store, **options)
    assert message in str(caught.value)


def test_a_folder_that_was_named_and_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        report(tmp_path / "nowhere")


def test_an_empty_store_says_how_to_begin(tmp_path, capsys, monkeypatch):
    report(tmp_path)
    out, err = capsys.readouterr()
    assert out == ""
    assert "Train a first one with: plastic train grlu" in err
    # Nobody has named the default folder: that it is not there is an empty store too.
    monkeypatch.chdir(tmp_path)
    report(DEFAULT_FOLDER, format="csv")
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    assert "Train a first one" in err


def test_a_rule_without_runs_is_no_error(store, capsys):
    report(store, claims={"grlu": CLAIMS, "oja": ""}, rule="oja", format="csv")
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    assert "plastic train oja" in err


def test_runs_that_are_not_complete_are_left_out_and_counted(store, capsys):
    runs, metrics = grlu_experiments(seeds=1)
    failed = runs.assign(run=[f"f{i}" for i in range(len(runs))])
    write_store(store, failed, metrics, status="failed")
    report(store, format="json")
    out, err = capsys.readouterr()
    assert {row["seeds"] for row in json.loads(out)["results"]} == {3}
    assert "not counted: 5 failed" in err
    report(store, format="json", status="failed")
    read = json.loads(capsys.readouterr().out)
    assert {row["seeds"] for row in read["results"]} == {1}
    # What was published is held against completed runs alone.
    assert read["claims"] == []


def test_a_damaged_run_costs_a_warning(store, capsys):
    (store / "r00000" / "run.json").write_text("{")
    report(store, format="csv")
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 6
    assert "warning" in err
    assert "r00000" in err


def test_a_wrong_claims_file_costs_its_rule_the_claims(store, capsys):
    report(store, format="json", claims={"grlu": "[[claim]]\nid = 3"})
    out, err = capsys.readouterr()
    assert json.loads(out)["claims"] == []
    assert len(json.loads(out)["results"]) == 5
    assert "claims.toml of rule 'grlu'" in err
    assert "left out" in err


def test_output_gets_every_table_and_figure(store, tmp_path, capsys):
    def headline(runs, metrics):
        assert set(runs["rule"]) == {"grlu"}
        assert set(metrics["run"]) == set(runs["run"])
        return {"headline": ggplot(runs, aes("config.perturbations", "test/accuracy")) + geom_point()}

    output = tmp_path / "new" / "report"
    report(store, output=output, format="csv", headlines={"grlu": headline})
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 6
    assert str(output) in err
    tables = {f"{name}.{suffix}" for name in ("table", "claims") for suffix in ("md", "tex", "csv")}
    assert {path.name for path in output.iterdir()} == tables | {"figures"}
    names = ("learning-curves-test-accuracy", "claims", "grlu-headline")
    assert {path.name for path in (output / "figures").iterdir()} == {f"{n}.{s}" for n in names for s in ("png", "svg")}
    for path in (output / "figures").iterdir():
        if path.suffix == ".svg":
            ElementTree.parse(path)
        else:
            assert path.read_bytes().startswith(b"\x89PNG")
    assert (output / "table.csv").read_text() == out
    assert "GR-21" in (output / "claims.tex").read_text()
    assert "GR-21" not in (output / "table.md").read_text()


def test_the_same_runs_give_the_same_files(store, tmp_path):
    contents = []
    for name in ("a", "b"):
        report(store, output=tmp_path / name, format="csv")
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        contents.append({str(path.relative_to(tmp_path / name)): path.read_bytes() for path in files})
    assert contents[0] == contents[1]


def test_a_headline_that_fails_costs_only_itself(store, tmp_path, capsys):
    def headline(runs, metrics):
        raise RuntimeError("no such column")

    report(store, output=tmp_path / "report", headlines={"grlu": headline})
    assert "the headline figure of grlu failed: RuntimeError: no such column" in capsys.readouterr().err
    assert (tmp_path / "report" / "figures" / "claims.png").exists()


def test_an_output_that_cannot_be_written_is_one_line(store, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PlasticError, match="Choose another --output"):
        report(store, output=tmp_path / "file" / "report")


def test_an_empty_report_writes_tables_without_rows(tmp_path):
    (tmp_path / "store").mkdir()
    report(tmp_path / "store", output=tmp_path / "report")
    assert len((tmp_path / "report" / "table.csv").read_text().splitlines()) == 1
    assert (tmp_path / "report" / "table.md").read_text() == ""


# ------------------------------------------------------------------------------------------------------- comparisons


def test_compare_prints_how_the_settings_compare(store, capsys):
    report(store, compare=True)
    out = capsys.readouterr().out
    assert "Interquartile means of test accuracy on mnist" in out
    assert "Probability of improvement" in out
    assert "Published claims" not in out


@pytest.mark.parametrize(("output_format", "mark"), [("markdown", "| --- |"), ("latex", r"\toprule")])
def test_comparisons_in_other_formats(store, capsys, output_format, mark):
    report(store, compare=True, format=output_format)
    out = capsys.readouterr().out
    assert out.count(mark) >= 2
    assert "nterquartile mean (" in out


def test_comparisons_for_programs(store, capsys):
    report(store, compare=True, format="json")
    read = json.loads(capsys.readouterr().out)
    assert {name: len(rows) for name, rows in read.items()} == {"comparisons": 5, "improvements": 10}
    report(store, compare=True, format="csv")
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert rows[0]["rule"] == "backprop"
    assert float(rows[0]["low"]) < float(rows[0]["interquartile_mean"]) < float(rows[0]["high"])


def test_compare_and_output_write_comparisons_and_profiles(store, tmp_path):
    report(store, compare=True, format="csv", output=tmp_path / "report")
    written = {path.name for path in (tmp_path / "report").iterdir()}
    assert {"comparisons.csv", "comparisons.md", "comparisons.tex", "improvements.csv", "table.csv"} <= written
    assert (tmp_path / "report" / "figures" / "performance-profile-test-accuracy-mnist.svg").exists()


def test_one_setting_alone_is_compared_with_nothing(store, capsys):
    report(store, compare=True, rule="backprop")
    out, err = capsys.readouterr()
    assert out == ""
    assert "nothing to compare" in err


def test_compare_and_a_table_contradict_each_other(store):
    with pytest.raises(UserError, match="leave --table claims out"):
        report(store, compare=True, table="claims")


def test_recipes_are_found_by_the_claims_that_they_test(tmp_path, monkeypatch):
    from plastic_cli.sweeps import recipe

    good = 'title = "t"\nwhy = "w"\nrule = "grlu"\nclaims = ["GR-02", "GR-03"]\n[options]\nepochs = 1\n'
    (tmp_path / "table-one.toml").write_text(good)
    (tmp_path / "broken.toml").write_text(good.replace("title", "titel"))
    (tmp_path / "options.toml").write_text("epochs = 3\n")
    monkeypatch.setattr(recipe, "recipes_folder", lambda: tmp_path)
    assert recipes_by_claim() == {("grlu", "GR-02"): ["table-one"], ("grlu", "GR-03"): ["table-one"]}


def test_recipes_are_found_by_the_settings_that_they_have(tmp_path, monkeypatch):
    from plastic_cli.sweeps import recipe

    text = 'title = "t"\nwhy = "w"\nrule = "grlu"\nseeds = 2\n[options]\nepochs = 1\n[grid]\nperturbations = [1, 16]\n'
    (tmp_path / "two.toml").write_text(text)
    (tmp_path / "one.toml").write_text(text.replace("[1, 16]", "[16]"))
    (tmp_path / "broken.toml").write_text(text.replace("epochs", "epoch"))
    monkeypatch.setattr(recipe, "recipes_folder", lambda: tmp_path)
    found = recipes_by_setting()
    assert sorted(found.values()) == [["one", "two"], ["two"]]
    # A run that is stored has the same key as its plan, and so has the group of its runs.
    rows = [
        {"run": str(seed), "rule": "grlu", "dataset": planned.dataset, "seed": seed,
         **{f"config.{name}": value for name, value in planned.config.items()}}
        for seed, planned in enumerate(plan_recipe(read_recipe(str(tmp_path / "one.toml"))))
    ]  # fmt: skip
    other = {**rows[0], "run": "other", "rule": "eglp", "config.events": "never"}
    groups = group_runs(pd.DataFrame([*rows, other]))
    keys = [setting_and_data(group.rule, group.dataset, group.config) for group in groups]
    assert [found.get(key) for key in keys] == [None, ["one", "two"]]


def test_a_rule_whose_runs_all_failed_is_a_row_of_the_table(tmp_path, capsys):
    runs, metrics = grlu_experiments(seeds=1)
    lost = runs[runs["rule"] == "backprop"].assign(**{"config.epochs": 7})
    write_store(tmp_path / "store", lost, metrics, status="failed")
    report(tmp_path / "store", claims={})
    out = capsys.readouterr().out
    assert "0 of 1 finished" in out
    assert "epochs = 7" in out
    write_store(tmp_path / "store", runs[runs["rule"] == "grlu"], metrics)
    report(tmp_path / "store", claims={}, format="csv")
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["rule"] for row in rows] == ["backprop", *["grlu"] * 4]


def test_a_note_on_a_data_set_is_shown_only_with_the_name_of_the_data_set(make_runs, tmp_path, capsys):
    make_runs(facts={"data": {"name": "digits", "note": "no official test split"}})
    report(tmp_path / "store", claims={}, columns=["rule", "n", "value"])
    assert "no official" not in capsys.readouterr().out
    report(tmp_path / "store", claims={}, columns=["rule", "n", "value"], format="latex")
    assert "no official" not in capsys.readouterr().out
    report(tmp_path / "store", claims={}, columns=["rule", "dataset", "n", "value"])
    assert "* digits: no official" in " ".join(capsys.readouterr().out.split())
