"""What a recipe says, where it is found, and what is told of one that is wrong."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plastic_cli.errors import UserError
from plastic_cli.sweeps.plan import plan_recipe
from plastic_cli.sweeps.recipe import find_recipe, line_of, read_options, read_recipe, recipe_names, recipes_folder
from plastic_cli.testing import plastic

ROOT = Path(__file__).parents[2]
GOOD = """# a remark
title = "t"
why = "w"
rule = "backprop"

[options]
hidden = [
    4,
]
batch-size = 8

[grid]
learning_rate = [0.1, 0.01]
"""


@pytest.fixture
def wrong(tmp_path):
    """Write a recipe and return what planning it complains of."""

    def complain(text):
        file = tmp_path / "wrong.toml"
        file.write_text(text)
        with pytest.raises(UserError) as caught:
            plan_recipe(read_recipe(str(file)))
        message = str(caught.value)
        assert "\n" not in message
        return message.replace(str(file), "FILE")

    return complain


def test_a_recipe_is_read_and_planned(tmp_path):
    file = tmp_path / "good.toml"
    file.write_text(GOOD)
    plan = plan_recipe(read_recipe(str(file)))
    assert [planned.config["learning_rate"] for planned in plan] == [0.1, 0.01]
    assert {planned.config["batch_size"] for planned in plan} == {8}, "hyphens as typed"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("why", "whi"), "FILE, line 3: a recipe has no key 'whi'. Did you mean 'why'?"),
        (
            ('rule = "backprop"', 'rule = "backprob"'),
            "FILE, line 4: there is no rule 'backprob'. Did you mean 'backprop'?",
        ),
        (
            ("batch-size", "batch-sise"),
            "FILE, line 10: backprop has no option 'batch_sise'. Did you mean 'batch_size'?",
        ),
        (("learning_rate", "learning"), "FILE, line 13: backprop has no option 'learning'."),
        (
            ("batch-size = 8", "batch-size = 0"),
            "FILE, line 10: --batch-size 0: it should be greater than or equal to 1.",
        ),
        (("hidden = [\n    4,\n]", "hidden = [\n]"), "FILE, line 7: --hidden '': it needs at least one layer"),
        (("batch-size = 8", 'dataset = "mnits"'), "FILE, line 10: unknown data set 'mnits'. Did you mean 'mnist'?"),
        (("[0.1, 0.01]", "[0.1, -1]"), "FILE, line 13: --learning-rate -1: it should be greater than 0."),
        (("[0.1, 0.01]", "[]"), "FILE, line 13: the grid of 'learning_rate' has no value."),
        (("[0.1, 0.01]", "0.1"), "FILE, line 13: grid.learning_rate: it should be a valid list."),
        (("learning_rate =", "seed ="), "FILE, line 13: seeds are not part of a grid"),
        (
            ("[grid]\nlearning_rate", "[grid]\nbatch_size"),
            "FILE, line 13: 'batch_size' is under options and under grid",
        ),
        (('title = "t"', "title = 3"), "FILE, line 2: title: it should be a valid string."),
        (('why = "w"', 'why = "w"\nseeds = 0'), "FILE, line 4: seeds 0: give their number"),
        (('why = "w"', 'why = "w"\nseeds = [1, 1]'), "FILE, line 4: seeds [1, 1]"),
        (('why = "w"\n', ""), "FILE: the recipe has no why."),
        (('rule = "backprop"\n', ""), "FILE: it names no rule"),
        (("[options]", "[options"), "FILE, line 6: it is not valid TOML: Expected"),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value[1]).partition("\n")[0],
)
def test_an_error_names_its_line(wrong, change, said):
    assert change[0] in GOOD
    message = wrong(GOOD.replace(*change))
    assert said in message


def test_lines_inside_runs_are_found(wrong):
    text = 'title = "t"\nwhy = "w"\n\n[[runs]]\nrule = "backprop"\n\n[[runs]]\nrule = "grlu"\n[runs.options]\n'
    assert "line 10: grlu has no option 'perturbation'" in wrong(text + "perturbation = 3\n")
    assert "line 10: a recipe has no key 'naem'. Did you mean 'name'?" in wrong(text + "[runs.naem]\n")
    assert "line 8: there is no rule 'grul'" in wrong(text.replace('"grlu"', '"grul"'))


@given(st.lists(st.sampled_from(["", "# x", "a{} = 1", "b{} = [\n 1,\n 2,\n]", "c{} = '''\nz = 1\n'''"]), max_size=8))
def test_the_line_of_a_key_is_that_on_which_it_begins(parts):
    text = "\n".join(part.format(number) for number, part in enumerate(parts))
    for key in tomllib.loads(text):
        line = line_of(text, (key,))
        assert text.splitlines()[line - 1].startswith(f"{key} =")
    assert line_of(text, ("z",)) is None, "what stands in a text is no key"


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_damaged_recipe_is_one_line_and_no_traceback(data, tmp_path):
    text = GOOD + '\n[[runs]]\nname = "a"\noptions = { momentum = 0.5 }\nseeds = [1, 2]\n'
    position = data.draw(st.integers(0, len(text) - 1))
    length = data.draw(st.integers(0, 12))
    put = data.draw(
        st.sampled_from(["", "[", "]", "{", "=", "3", "true", '"', "\n", "[grid]", "1e999", "-1", "nan", "a.b = 1"])
    )
    file = tmp_path / "damaged.toml"
    file.write_text(text[:position] + put + text[position + length :])
    try:
        plan_recipe(read_recipe(str(file)))
    except UserError as error:
        assert "\n" not in str(error)
        assert "damaged.toml" in str(error)


def test_recipes_are_found_by_name_and_by_path(tmp_path):
    assert find_recipe("arena") == recipes_folder() / "arena.toml"
    assert find_recipe("arena.toml") == recipes_folder() / "arena.toml"
    file = tmp_path / "arena"
    file.write_text(GOOD)
    assert find_recipe(str(file)) == file
    with pytest.raises(UserError, match="Did you mean 'arena'"):
        find_recipe("arema")
    with pytest.raises(UserError, match="no such file"):
        find_recipe(str(tmp_path / "none.toml"))


def test_options_without_a_title_are_not_a_recipe(tmp_path):
    file = tmp_path / "flat.toml"
    file.write_text("epochs = 1\n")
    with pytest.raises(UserError, match="options for --config"):
        read_recipe(str(file))
    assert read_options(file, "backprop") == {"epochs": 1}


def test_a_recipe_serves_as_configuration(tmp_path, monkeypatch):
    file = tmp_path / "good.toml"
    file.write_text(GOOD)
    shown = tomllib.loads(plastic("train", "backprop", "--config", file, "--dry-run").out)
    assert (shown["hidden"], shown["batch_size"]) == ([4], 8)
    typed = tomllib.loads(plastic("train", "backprop", "--config", file, "--batch-size", 3, "--dry-run").out)
    assert typed["batch_size"] == 3
    other = plastic("train", "grlu", "--config", file, "--dry-run")
    assert other.code == 2
    assert f"is a recipe of backprop: plastic train backprop --config {file}" in other.err
    several = plastic("train", "grlu", "--config", recipes_folder() / "arena.toml")
    assert several.code == 2
    assert "several [[runs]]" in several.err
    named = tomllib.loads(plastic("train", "grlu", "--config", "grlu-gr-06", "--dry-run").out)
    assert named["perturbations"] == 128


def test_the_arena_keeps_everything_else_equal():
    everything = plan_recipe(read_recipe("arena"))
    plan = [planned for planned in everything if not str(planned.name).startswith("LeNet")]
    assert {planned.rule for planned in plan} >= {"backprop", "grlu", "eglp"}
    assert {planned.config["dataset"] for planned in plan} == {"digits", "mnist", "fashion"}
    assert {(tuple(planned.config["hidden"]), planned.config["epochs"]) for planned in plan} == {((256,), 10)}
    assert {planned.config["trained"] for planned in plan if planned.rule == "backprop"} == {"all", "readout"}
    by_name = {}
    for planned in plan:
        by_name.setdefault(planned.name, []).append((planned.config["dataset"], planned.seed))
    assert len({tuple(sorted(runs)) for runs in by_name.values()}) == 1

    lenet = [planned for planned in everything if planned not in plan]
    assert {planned.rule for planned in lenet} >= {"backprop", "feedback", "grlu", "eglp"}
    shared = [(each.dataset, each.config["model"], each.config["epochs"], each.config["batch_size"]) for each in lenet]
    assert set(shared) == {("fashion", "lenet", 10, 64)}
    of_name = {name: sorted((p.config["optimizer"], p.seed) for p in lenet if p.name == name)
               for name in {p.name for p in lenet}}  # fmt: skip
    assert set(map(tuple, of_name.values())) == {
        tuple((update, seed) for update in ("adam", "sgd") for seed in range(5))
    }


def test_the_combinations_are_complete_and_see_the_same_samples():
    plan = plan_recipe(read_recipe("combinations"))
    cells = {}
    for planned in plan:
        config = planned.config
        cell = (planned.dataset, config["model"], config["optimizer"], config["epochs"], config["batch_size"])
        cells.setdefault(planned.name, set()).add(cell)
    assert len(cells) == 8
    assert len({frozenset(each) for each in cells.values()}) == 1
    epochs = {"digits": 10, "fashion": 1}
    assert all(cell[3] == epochs[cell[0]] for cell in next(iter(cells.values())))
    assert len(next(iter(cells.values()))) == 18
    constant = [
        run.config.get("final_learning_rate", run.config["learning_rate"]) for run in plan if run.rule == "grlu"
    ]
    assert constant == [run.config["learning_rate"] for run in plan if run.rule == "grlu"]


def test_every_rule_has_a_quick_recipe_without_downloads():
    for rule in {planned.rule for name in recipe_names() for planned in plan_recipe(read_recipe(name))}:
        quick = plan_recipe(read_recipe(f"{rule}-quick"))
        assert {planned.config.get("dataset", "digits") for planned in quick} == {"digits"}


def test_the_wheel_holds_the_recipes(tmp_path):
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
        assert {f"plastic_cli/recipes/{name}.toml" for name in recipe_names()} <= inside
        archive.extractall(tmp_path / "installed")
    program = (
        "from plastic_cli.sweeps.recipe import recipes_folder, recipe_names; "
        "print(recipes_folder(), len(recipe_names()))"
    )
    shown = subprocess.run(
        [sys.executable, "-P", "-c", program],
        env={"PYTHONPATH": str(tmp_path / "installed")},
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert shown.stdout.split() == [str(tmp_path / "installed/plastic_cli/recipes"), str(len(recipe_names()))]


CASES = """
title = "Two rates and two data sets"
why = "Options that go with a value."
rule = "backprop"
options = { hidden = [8], epochs = 2 }
grid = { dataset = ["digits", "mnist"], optimizer = ["sgd", "adam"] }
where.dataset.mnist = { epochs = 1 }

[[runs]]
name = "all"
where.optimizer.sgd = { learning_rate = 0.5 }

[[runs]]
name = "readout"
options = { trained = "readout" }
where.optimizer = { sgd = { learning-rate = 0.25 }, adam = { learning_rate = 0.125 } }
"""


def test_where_adds_options_to_the_runs_with_a_value(tmp_path):
    path = tmp_path / "cases.toml"
    path.write_text(CASES)
    plan = plan_recipe(read_recipe(str(path)))
    found = {
        (run.name, run.dataset, run.config["optimizer"]): (run.config["epochs"], run.config["learning_rate"])
        for run in plan
    }
    assert found == {
        ("all", "digits", "sgd"): (2, 0.5),
        ("all", "digits", "adam"): (2, 0.001),
        ("all", "mnist", "sgd"): (1, 0.5),
        ("all", "mnist", "adam"): (1, 0.001),
        ("readout", "digits", "sgd"): (2, 0.25),
        ("readout", "digits", "adam"): (2, 0.125),
        ("readout", "mnist", "sgd"): (1, 0.25),
        ("readout", "mnist", "adam"): (1, 0.125),
    }


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("dataset.mnist", "dataset.fashion", 7, "no run of backprop has dataset = fashion. There are: digits, mnist."),
        ("epochs = 1", "epoch = 1", 7, "backprop has no option 'epoch'. Did you mean 'epochs'?"),
        ("where.dataset.mnist", "where.data.mnist", 7, "backprop has no option 'data'"),
        ("epochs = 1", "epochs = 0", 7, "--epochs 0"),
        ("learning_rate = 0.5", "learning_rate = -1", 11, "--learning-rate -1"),
    ],
)
def test_a_wrong_case_is_reported_with_its_line(old, new, line, said, tmp_path):
    path = tmp_path / "cases.toml"
    path.write_text(CASES.replace(old, new))
    with pytest.raises(UserError) as error:
        plan_recipe(read_recipe(str(path)))
    assert f"line {line}" in str(error.value)
    assert said in str(error.value)
