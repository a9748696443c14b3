"""Options under the names of an older version: accepted everywhere, with a notice, and shown nowhere."""

from __future__ import annotations

import json
import tomllib
import warnings
from pathlib import Path

import pytest

import plastic_cli
from plastic_cli.commands.invocation import TrainInvocation
from plastic_cli.errors import FormerName, OptionError, UserError
from plastic_cli.plugins.discovery import discover, find_rule
from plastic_cli.plugins.models import config_model, former_names, train_model
from plastic_cli.plugins.rule import VERBS
from plastic_cli.reports.claims import read_claims
from plastic_cli.resolve import resolve
from plastic_cli.runs.store import RunStore
from plastic_cli.sweeps.plan import filter_runs, plan_recipe
from plastic_cli.sweeps.recipe import read_recipe, recipe_names
from plastic_cli.testing import interrupted_after, plastic

NOTICE = "note: --lr-max is now called --learning-rate."
RECIPE = 'title = "a test"\nwhy = "to test"\nrule = "grlu"\n'


def refused(*arguments):
    """Return the last line with which `plastic` refuses a command."""
    outcome = plastic(*arguments)
    assert outcome.code == 2, outcome
    return outcome.err.splitlines()[-1]


def every_model():
    for rule in discover().rules.values():
        for verb in VERBS:
            function = rule.function(verb)
            if function is not None:
                yield rule.name, verb, config_model(function)


def test_every_former_name_leads_to_a_field_and_is_none():
    seen = 0
    for rule, verb, model in every_model():
        for former, name in model.former_names().items():
            seen += 1
            assert name in model.model_fields, f"{verb} {rule}: {former}"
            assert former not in model.model_fields, f"{verb} {rule}: {former}"
    assert seen >= 12


def test_every_name_of_a_published_program_suggests_an_option_of_the_command():
    for rule, verb, model in every_model():
        if verb == "train":
            known = {**model.model_fields, **TrainInvocation.model_fields}
            for word, name in model.published_names.items():
                assert word == word.casefold(), f"{rule}: {word}"
                assert word not in known, f"{rule}: {word}"
                assert name in known, f"{rule}: {word}"
    assert "Did you mean '--ways'?" in refused("train", "metafa", "--M", 5)
    assert "Did you mean '--learning-rate'?" in refused("train", "metafa", "--lr_meta", 5)
    with pytest.raises(ValueError, match="Did you mean 'feedback'"):
        plastic_cli.train("metafa", fbk="sym")


def test_options_may_be_typed_with_underscores():
    outcome = plastic(
        "train", "eglp", "--dry-run", "--batch_size", 64, "--local_lr=0.2", "--no_anneal", "--name", "a_b"
    )
    config = tomllib.loads(outcome.out)
    assert (config["batch_size"], config["local_learning_rate"], config["anneal"]) == (64, 0.2, False)
    assert outcome.err == "note: --local-lr is now called --local-learning-rate.\n"
    assert "no_such_folder" in refused("train", "eglp", "--dry_run", "--dataset", "./no_such_folder"), "as typed"


def test_the_rules_share_one_vocabulary():
    for rule, verb, model in every_model():
        own = set(model.model_fields)
        assert not {name for name in own if name.endswith("_lr") or name.startswith("lr_")}, f"{verb} {rule}"
        assert not own & {"hidden_dim", "num_episodes", "passes", "lr", "iters", "batch"}, f"{verb} {rule}"
        if verb == "train":
            assert {"hidden", "learning_rate", "batch_size"} <= own, rule
            assert own & {"epochs", "episodes"}, rule
        if verb == "render":
            assert {"frame_seconds", "video"} <= own, rule


def test_the_command_line_takes_a_former_name_and_says_the_present_one():
    outcome = plastic("train", "grlu", "--dry-run", "--lr-max", "0.2", "--noise-min", "0.01")
    config = tomllib.loads(outcome.out)
    assert (config["learning_rate"], config["final_noise"]) == (0.2, 0.01)
    assert "lr_max" not in config
    assert sorted(outcome.err.splitlines()) == [NOTICE, "note: --noise-min is now called --final-noise."]


def test_options_of_other_verbs_have_former_names_too():
    outcome = plastic("eval", "metafa", "--dry-run", "--passes", 3)
    assert tomllib.loads(outcome.out)["epochs"] == 3
    assert outcome.err == "note: --passes is now called --epochs.\n"


def test_a_former_switch_can_be_turned_off():
    a2c = ["--algorithm", "a2c", "--dry-run"]
    assert tomllib.loads(plastic("train", "mpn", *a2c).out)["normalize_advantages"] is True
    outcome = plastic("train", "mpn", *a2c, "--no-normalise-advantages")
    assert tomllib.loads(outcome.out)["normalize_advantages"] is False


def test_no_notice_with_quiet_or_json():
    assert plastic("train", "grlu", "--dry-run", "--lr-max", "0.2", "--quiet").err == ""
    assert plastic("train", "grlu", "--dry-run", "--lr-max", "0.2", "--json").err == ""


def test_a_former_name_is_neither_in_the_help_nor_in_the_suggestions():
    shown = plastic("train", "grlu", "--help").out
    assert "--learning-rate" in shown
    assert "--lr-max" not in shown
    assert "--lr-max" not in refused("train", "grlu", "--lr-mix", "1")


def test_both_names_are_refused_in_one_line():
    line = refused("train", "grlu", "--lr-max", "0.2", "--learning-rate", "0.1")
    assert line == "error: --learning-rate and --lr-max are the same option. Keep --learning-rate."


def test_a_former_name_is_checked_like_the_present_one():
    assert "--learning-rate fast: it should be a number" in refused("train", "grlu", "--lr-max", "fast")
    assert "--perturbations 2 does nothing" in refused("train", "grlu", "--perturbations", 2, "--update", "backprop")
    assert "--learning-rate 0.5 does nothing" in refused("train", "eglp", "--readout", "local", "--readout-lr", "0.5")


def test_a_configuration_file_may_use_former_names(tmp_path):
    file = tmp_path / "options.toml"
    file.write_text("lr-max = 0.3\n")
    outcome = plastic("train", "grlu", "--dry-run", "--config", file)
    assert tomllib.loads(outcome.out)["learning_rate"] == 0.3
    assert outcome.err == f"note: {file}: 'lr_max' is now called 'learning_rate'.\n"
    typed = plastic("train", "grlu", "--dry-run", "--config", file, "--learning-rate", "0.1")
    assert tomllib.loads(typed.out)["learning_rate"] == 0.1
    file.write_text("lr_max = 0.3\nlearning_rate = 0.1\n")
    line = refused("train", "grlu", "--dry-run", "--config", file)
    assert line == f"error: {file}: 'lr_max' and 'learning_rate' are the same option. Keep 'learning_rate'."


def test_a_former_name_in_python_is_a_warning_at_the_line_of_the_caller():
    model = train_model(find_rule("grlu"))
    with pytest.warns(FormerName, match="'lr_max' is now called 'learning_rate'") as caught:
        assert resolve(model, {"lr_max": 0.2}).learning_rate == 0.2
    assert [warning.filename for warning in caught] == [__file__]
    assert issubclass(FormerName, FutureWarning)
    with pytest.raises(OptionError, match="are the same option"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        resolve(model, {"lr_max": 0.2, "learning_rate": 0.2})


def test_a_grid_takes_a_former_name():
    typed = ["train", "grlu", "--epochs", 1, "--format", "json", "--dry-run", "--grid"]
    rows = json.loads(plastic(*typed, "lr-max=0.1,0.2").out)
    assert [row["learning_rate"] for row in rows] == ["0.1", "0.2"]
    assert "is also in --grid" in refused(*typed, "lr_max=0.1,0.2", "--learning-rate", 1)
    assert "has a grid already" in refused(*typed, "lr_max=0.1", "--grid", "learning_rate=0.1")


def test_a_search_takes_a_former_name():
    outcome = plastic("tune", "grlu", "--dry-run", "--search", "lr_max=0.1:0.5", "--format", "json")
    assert [row["option"] for row in json.loads(outcome.out)] == ["learning_rate"]
    assert "named twice" in refused("tune", "grlu", "--search", "lr_max", "--search", "learning_rate")
    assert "has a value already" in refused("tune", "grlu", "--search", "lr_max", "--learning-rate", "0.1")


@pytest.fixture
def recipe(tmp_path):
    def write(text):
        file = tmp_path / "mine.toml"
        file.write_text(text)
        return read_recipe(str(file))

    return write


def test_a_recipe_and_only_take_former_names(recipe):
    with pytest.warns(FormerName):
        runs = plan_recipe(recipe(f"{RECIPE}[options]\nnoise-max = 0.2\n[grid]\nlr_max = [0.1, 0.3]\n"))
    assert [run.config["learning_rate"] for run in runs] == [0.1, 0.3]
    assert {run.config["noise"] for run in runs} == {0.2}
    assert "learning_rate=0.3" in runs[1].label
    assert filter_runs(runs, ["lr_max=0.3"]) == filter_runs(runs, ["learning_rate=0.3"]) == [runs[1]]
    with pytest.raises(UserError, match="no run has an option 'lr_mix'"):
        filter_runs(runs, ["lr_mix=0.3"])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("tables", "line"),
    [
        ("[options]\nlr_max = 0.1\nlearning_rate = 0.1\n", 4),
        ("[options]\nlr_max = 0.1\n[grid]\nlearning_rate = [0.1]\n", 7),
    ],
)
def test_a_recipe_with_both_names_is_refused_with_the_line(recipe, tables, line):
    with pytest.raises(UserError, match=f"mine.toml, line {line}: .*keep one of them|Keep 'learning_rate'"):
        plan_recipe(recipe(RECIPE + tables))


def test_a_more_specific_table_takes_precedence_under_either_name(recipe):
    text = f'{RECIPE}[options]\nlr_max = 0.1\n[[runs]]\nname = "one"\noptions = {{ learning_rate = 0.5 }}\n'
    with pytest.warns(FormerName):
        (run,) = plan_recipe(recipe(text))
    assert run.config["learning_rate"] == 0.5


CLAIM = """
[[claim]]
id = "X-1"
statement = "it learns"
source = "a paper"
evidence = "V"
metric = "test/accuracy"
value = 0.9
tolerance = 0.1
tolerance_reason = "a tenth"
against = { noise_max = 0.5 }
[claim.conditions]
lr_max = 0.1
"""


def test_conditions_of_claims_take_former_names():
    (claim,) = read_claims("grlu", CLAIM).claims
    assert claim.conditions == {"learning_rate": 0.1}
    assert claim.against == {"noise": 0.5}


def test_the_control_setting_of_a_claim_takes_former_names():
    text = CLAIM.replace("against = { noise_max = 0.5 }", "control_setting = { lr_max = 0.5 }")
    (claim,) = read_claims("grlu", text).claims
    assert claim.control_setting == {"learning_rate": 0.5}


@pytest.mark.filterwarnings("error")
def test_recipes_and_claims_that_come_with_plastic_use_the_present_names():
    for name in recipe_names():
        assert plan_recipe(read_recipe(name), seeds=1), name
    for rule in discover().rules.values():
        text, former = rule.claims_text(), former_names(rule.name)
        tables = tomllib.loads(text or "")
        settings = [
            *tables.get("settings", {}).values(),
            *(entry.get("conditions", {}) for entry in tables.get("claim", [])),
        ]
        assert not [name for conditions in settings for name in conditions if name in former], rule.name


def test_a_rule_that_is_not_installed_has_no_former_names():
    assert former_names("no-such-rule") == {}


@pytest.fixture
def old_run(runs_folder):
    """A run of backprop's control of grlu as an older version stored it."""
    outcome = plastic("train", "grlu", "--update", "backprop", "--hidden", 4, "--epochs", 1, "--lr-max", 0.3, "--quiet")
    (folder,) = runs_folder.glob("2*")
    assert outcome.out.strip() == str(folder)
    store_under_former_names(folder)
    return folder


def store_under_former_names(folder):
    record = json.loads((folder / "run.json").read_text())
    former = {name: old for old, name in former_names("grlu").items()}
    record["config"] = {former.get(name, name): value for name, value in record["config"].items()}
    assert {"lr_max", "lr_min", "noise_max", "noise_min"} <= record["config"].keys()
    (folder / "run.json").write_text(json.dumps(record))


def test_a_run_stored_under_old_names_is_the_same_setting_everywhere(old_run, runs_folder):
    frame = RunStore(runs_folder).runs()
    assert frame["config.learning_rate"].tolist() == [0.3]
    assert not {"config.lr_max", "config.noise_max"} & set(frame.columns)

    shown = json.loads(plastic("runs", "show", old_run.name, "--json").out)["config"]
    assert (shown["learning_rate"], "lr_max" in shown) == (0.3, False)

    same = ["--update", "backprop", "--hidden", 4, "--epochs", 1]
    done = plastic("train", "grlu", *same, "--grid", "learning_rate=0.3")
    assert "already in the store" in done.err
    assert len(list(runs_folder.glob("2*"))) == 1

    for option in ("--learning-rate", "--lr-max"):
        resumed = plastic("train", "grlu", "--resume", old_run.name, option, 0.3)
        assert (resumed.code, "already completed" in resumed.err) == (0, True), resumed.err
        assert "was started, with learning_rate = 0.3" in refused(
            "train", "grlu", "--resume", old_run.name, option, 0.4
        )

    for verb in ("eval", "analyze", "render"):
        outcome = plastic(verb, "grlu", "--run", old_run.name)
        assert outcome.code == 0, outcome.err


def test_a_run_that_an_older_version_left_unfinished_is_resumed_and_gets_the_present_names(tiny_data, runs_folder):
    options = ["--dataset", tiny_data, "--hidden", 4, "--epochs", 3, "--lr-max", 0.3, "--json"]
    [whole] = plastic("train", "grlu", *options).results
    with interrupted_after(1):
        [stopped] = plastic("train", "grlu", *options).results
    assert stopped["status"] == "interrupted"
    store_under_former_names(Path(stopped["folder"]))
    [finished] = plastic("train", "grlu", "--resume", stopped["run"], "--json").results
    assert finished["metrics"] == whole["metrics"]
    stored = json.loads((runs_folder / finished["run"] / "run.json").read_text())
    assert stored["config"] == json.loads((runs_folder / whole["run"] / "run.json").read_text())["config"]


def test_old_and_new_runs_form_one_group_in_the_report(old_run, runs_folder):
    typed = ["--update", "backprop", "--hidden", 4, "--epochs", 1, "--seed", 1, "--quiet"]
    for rate in (0.3, 0.1):
        assert plastic("train", "grlu", *typed, "--learning-rate", rate).code == 0
    results = json.loads(plastic("report", "--format", "json").out)["results"]
    counted = {row["setting"].partition(",")[0]: row["n"] for row in results if row["metric"] == "test/accuracy"}
    assert counted == {"learning rate = 0.1": 1, "learning rate = 0.3": 2}


def test_the_python_interface_takes_former_names(tiny_data, runs_folder):
    small = {"dataset": tiny_data, "hidden": 4, "epochs": 1, "update": "backprop", "quiet": True}
    with pytest.warns(FormerName, match="'lr_max' is now called 'learning_rate'"):
        run = plastic_cli.train("grlu", lr_max=0.2, **small)
    assert run.config["learning_rate"] == 0.2
    with pytest.warns(FormerName), pytest.raises(ValueError, match="are the same option"):
        plastic_cli.train("grlu", lr_max=0.2, learning_rate=0.2, **small)
    with pytest.warns(FormerName), pytest.raises(ValueError, match=r"was started, with learning_rate = 0\.2"):
        plastic_cli.train("grlu", resume=run, lr_max=0.3)
    with pytest.warns(FormerName):
        (again,) = plastic_cli.train("grlu", grid={"lr_max": [0.2]}, **small)
    assert again.id == run.id
    with pytest.warns(FormerName), pytest.raises(ValueError, match="learning_rate is also in grid"):
        plastic_cli.train("grlu", grid={"lr_max": [0.2]}, learning_rate=0.1, **small)


def test_the_list_of_runs_can_be_asked_by_a_former_name(old_run):
    for name in ("lr_max", "lr-max", "learning_rate"):
        listed = json.loads(plastic("runs", "--where", f"{name}=0.3", "--format", "json").out)
        assert [row["run"] for row in listed] == [old_run.name]


def test_a_grid_of_switches_implies_what_the_switch_implies():
    rows = json.loads(plastic("train", "selective", "--dry-run", "--format", "json", "--grid", "joint=true,false").out)
    assert [row["joint"] for row in rows] == ["True", "False"]


def test_evaluations_in_python_take_former_names(tiny_data):
    episodes = {"ways": 3, "held_out_classes": 0, "shots": 5, "queries": 3, "episodes": 2, "test_episodes": 2}
    run = plastic_cli.train("metafa", dataset=tiny_data, hidden=4, **episodes, quiet=True)
    with pytest.warns(FormerName, match="'passes' is now called 'epochs'"):
        old = plastic_cli.evaluate(run, passes=2, episodes=2, quiet=True)
    assert old == plastic_cli.evaluate(run, epochs=2, episodes=2, quiet=True)
