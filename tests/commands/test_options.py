"""Typed options, configuration files and defaults: which takes precedence, and what is refused."""

from __future__ import annotations

import tomllib
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plastic_cli.config.model import Config, TrainConfig, field
from plastic_cli.config.toml import read_toml, to_toml
from plastic_cli.errors import UserError
from plastic_cli.plugins.discovery import discover, find_rule
from plastic_cli.plugins.models import config_model
from plastic_cli.plugins.rule import VERBS
from plastic_cli.testing import plastic


def resolved(*arguments, rule="grlu"):
    """Return the configuration that --dry-run prints."""
    outcome = plastic("train", rule, "--dry-run", *arguments)
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    return tomllib.loads(outcome.out)


def refused(*arguments):
    """Return the one line with which `plastic` refuses a command."""
    outcome = plastic(*arguments)
    assert outcome.code == 2, outcome
    assert outcome.out == ""
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.fixture
def file(tmp_path):
    """Write a configuration file."""

    def write(text):
        path = tmp_path / "options.toml"
        path.write_text(text)
        return path

    return write


def test_typed_options_take_precedence_over_the_file_and_the_file_over_defaults(file):
    options = file("perturbations = 3\nhidden = [7, 5]\nskip = true\n")
    config = resolved("--config", options, "--hidden", "9")
    assert (config["perturbations"], config["hidden"], config["skip"], config["epochs"]) == (3, [9], True, 10)


def test_a_typed_default_takes_precedence_over_the_file(file):
    options = file("perturbations = 3\nskip = true\ndataset = 'mnist'\nseed = 5\n")
    config = resolved("--config", options, "--perturbations", 16, "--no-skip", "--dataset", "digits", "--seed", 0)
    assert (config["perturbations"], config["skip"], config["dataset"], config["seed"]) == (16, False, "digits", 0)


def test_keys_of_a_file_may_have_hyphens(file):
    assert resolved("--config", file("batch-size = 4\n"))["batch_size"] == 4


def test_an_unknown_key_in_the_file_is_named_with_its_file(file):
    options = file("perturbation = 3\n")
    line = refused("train", "grlu", "--config", options)
    assert f"{options}: there is no key 'perturbation'. Did you mean 'perturbations'?" in line


def test_a_wrong_value_in_the_file_is_named_with_its_file(file):
    options = file("epochs = 'many'\n")
    line = refused("train", "grlu", "--config", options)
    assert f"{options}: epochs many" in line


@pytest.mark.parametrize("text", ["epochs = \n", "[train\n", "\xff"])
def test_a_file_that_is_not_toml(file, text):
    assert "cannot read the configuration file" in refused("train", "grlu", "--config", file(text))


def test_a_file_that_is_not_there(tmp_path):
    assert "there is no configuration file" in refused("train", "grlu", "--config", tmp_path / "absent.toml")


def test_a_folder_as_file(tmp_path):
    assert "cannot read the configuration file" in refused("train", "grlu", "--config", tmp_path)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("rule", list(discover().rules))
def test_dry_run_prints_what_config_accepts(verb, rule, file):
    printed = plastic(verb, rule, "--dry-run")
    assert printed.code == 0
    again = plastic(verb, rule, "--dry-run", "--config", file(printed.out))
    assert again.out == printed.out
    assert again.err == ""


def test_dry_run_of_much_that_is_typed_round_trips(file):
    typed = [
        "--hidden",
        "12,8",
        "--k",
        "0.25",
        "--credit",
        "preactivation",
        "--seed",
        2**63 - 1,
        "--final-learning-rate",
        "1e-7",
    ]
    printed = plastic("train", "grlu", "--dry-run", *typed).out
    assert plastic("train", "grlu", "--dry-run", "--config", file(printed)).out == printed
    config = tomllib.loads(printed)
    assert (config["hidden"], config["k"], config["activation"]) == ([12, 8], 0.25, "top-k")
    assert (config["seed"], config["final_learning_rate"]) == (2**63 - 1, 1e-7)


def test_dry_run_makes_nothing(runs_folder):
    plastic("train", "grlu", "--dry-run")
    assert not runs_folder.exists()


def test_lists_and_switches():
    assert resolved("--hidden", "256")["hidden"] == [256]
    assert resolved("--hidden", "256, 128")["hidden"] == [256, 128]
    assert resolved("--skip")["skip"] is True
    assert resolved("--no-skip")["skip"] is False


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("--epochs", "0", "--epochs 0: it should be greater than or equal to 1"),
        ("--epochs", "-3", "--epochs -3"),
        ("--epochs", "2.5", "--epochs 2.5"),
        ("--epochs", "many", "--epochs many"),
        ("--epochs", "", "--epochs"),
        ("--learning-rate", "fast", "--learning-rate fast"),
        ("--learning-rate", "nan", "--learning-rate nan"),
        ("--learning-rate", "inf", "--learning-rate inf"),
        ("--noise", "0", "--noise 0"),
        ("--k", "1.5", "--k 1.5"),
        ("--k", "0", "--k 0"),
        ("--hidden", "64,x", "--hidden x"),
        ("--hidden", "64,0", "--hidden"),
        ("--seed", "-1", "--seed -1"),
        ("--seed", str(2**63), f"--seed {2**63}"),
        ("--seeds", "0", "--seeds 0"),
        ("--credit", "outptu", "Did you mean 'output'?"),
        ("--device", "gpu", "--device gpu"),
        ("--validation", "-1", "--validation -1"),
    ],
)
def test_a_value_out_of_range_is_named(option, value, complaint, runs_folder):
    assert complaint in refused("train", "grlu", option, value)
    assert not runs_folder.exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["trian"], "there is no command 'trian'. Did you mean 'train'?"),
        (["grlu"], "'grlu' is a rule, not a command. Put a command before it, as in `plastic train grlu`"),
        (["train", "grul"], "there is no rule 'grul'. Did you mean 'grlu'?"),
        (["train", "zzz"], "Installed rules: backprop, eglp, feedback, grlu, metafa, mpn, selective"),
        (
            ["train", "grlu", "--perturbation", "3"],
            "there is no option '--perturbation'. Did you mean '--perturbations'?",
        ),
        (["train", "grlu", "--epochs"], "--epochs"),
        (["train", "grlu", "surplus"], "'surplus' is not expected here. See `plastic train grlu --help`."),
        (["train", "grlu", "quiet=true"], "'quiet=true' is not an option. Did you mean '--quiet'?"),
        (["train", "grlu", "epochs="], "'epochs=' is not an option. Did you mean '--epochs'?"),
        (["train", "grlu", "epochs=3"], "'epochs=3' is not an option. Did you mean '--epochs 3'?"),
        (["train", "grlu", "lr=.1", "k=2"], "'lr=.1 k=2' is not an option. Did you mean '--learning-rate .1'?"),
        (["train", "grlu", "-epochs", "3"], "there is no option '-epochs'. Did you mean '--epochs'?"),
        (["train", "grlu", "--dataset", "mnits"], "Did you mean 'mnist'?"),
        (["runs", "--status", "complete"], "Did you mean 'completed'?"),
        (["runs", "--format", "jsn"], "Did you mean 'json'?"),
        (["train", "grlu", "--k", ".5", "--activation", "relu"], "--k has no effect with --activation relu: use"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else "",
)
def test_wrong_usage_is_one_line_that_helps(arguments, complaint, runs_folder):
    assert complaint in refused(*arguments)
    assert not runs_folder.exists()


def test_a_verb_that_a_rule_does_not_have(monkeypatch):
    from plastic_grlu import commands

    monkeypatch.delattr(commands, "render")
    line = refused("render", "grlu")
    assert "the rule 'grlu' has no render. It has `plastic train grlu`, `plastic eval grlu`" in line


def test_debug_shows_where_an_error_comes_from():
    outcome = plastic("train", "grlu", "--debug", "--config", "absent.toml")
    assert outcome.code == 2
    assert "Traceback" in outcome.err
    assert outcome.err.splitlines()[-1] == "error: there is no configuration file absent.toml."


def test_the_same_key_in_two_spellings_is_an_error(tmp_path):
    file = tmp_path / "twice.toml"
    file.write_text("batch-size = 2\nbatch_size = 3\n", encoding="utf-8")
    outcome = plastic("train", "grlu", "--config", file)
    assert outcome.code == 2
    assert "'batch-size' and 'batch_size' are the same key" in outcome.err


def test_true_is_not_a_number(tmp_path):
    file = tmp_path / "yes.toml"
    file.write_text("epochs = true\n", encoding="utf-8")
    outcome = plastic("train", "grlu", "--config", file)
    assert outcome.code == 2
    assert "epochs needs a value, not true or false" in outcome.err


class Everything(TrainConfig):
    """One field of every kind that a rule may have."""

    number: int = field(1, "an integer", ge=-5)
    share: float = field(0.5, "a float")
    word: str = field("a", "a text")
    maybe: float | None = field(None, "a float or nothing")
    said: str | None = field(None, "a text or nothing")
    choice: Literal["x", "y-z"] = field("x", "a choice")
    switch: bool = field(False, "a switch")
    numbers: tuple[int, ...] = field((1, 2), "integers")
    shares: tuple[float, ...] = field((), "floats")


FINITE = st.floats(allow_nan=False, allow_infinity=False)
# Text in a file is Unicode; half a surrogate pair is not.
TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "seed": st.integers(0, 2**63 - 1),
            "number": st.integers(-5, 2**31 - 1),
            "share": FINITE,
            "word": TEXT,
            "maybe": st.none() | FINITE,
            "said": st.none() | TEXT,
            "choice": st.sampled_from(["x", "y-z"]),
            "switch": st.booleans(),
            "numbers": st.lists(st.integers(-(2**40), 2**40)).map(tuple),
            "shares": st.lists(FINITE).map(tuple),
        },
    )
)
def test_any_configuration_survives_toml_and_the_record(values):
    config = Everything.from_values(values)
    written = tomllib.loads(to_toml(config, "any heading"))
    assert Everything.from_values(written) == config
    assert Everything.from_values(config.model_dump(mode="json")) == config


@given(st.lists(st.integers(1, 4096), min_size=1, max_size=4))
def test_a_typed_list_is_the_list(units):
    model = config_model(find_rule("grlu").function("train"))
    assert model.from_values({"hidden": ",".join(map(str, units))}).hidden == tuple(units)


@given(TEXT)
def test_any_text_for_a_number_is_a_number_or_an_error_of_one_line(text):
    try:
        assert isinstance(Everything.from_values({"number": text}).number, int)
    except UserError as error:
        assert str(error).startswith("--number")


def test_a_configuration_does_not_change_and_takes_no_unknown_field():
    config = Everything()
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3
    with pytest.raises(UserError, match=r"there is no key 'sead'\. Did you mean 'seed'\?"):
        Everything.from_values({"sead": 3})


def test_a_default_is_checked_too():
    class Wrong(Config):
        """A default out of its own bounds."""

        units: int = field(0, "units", ge=1)

    with pytest.raises(UserError, match="--units 0"):
        Wrong.from_values({})


def test_toml_keeps_a_field_without_a_value_visible(tmp_path):
    text = to_toml(Everything())
    assert "# maybe =" in text
    path = tmp_path / "all.toml"
    path.write_text(text)
    assert "maybe" not in read_toml(path)


@pytest.mark.parametrize("line", ["epochs = true", "hidden = true", "learning_rate = false"])
def test_booleans_are_not_numbers(file, line):
    complaint = refused("train", "grlu", "--config", file(line + "\n"))
    assert line.split()[0] in complaint


def test_a_typed_fraction_takes_precedence_over_relu_in_a_file(tmp_path):
    file = tmp_path / "relu.toml"
    file.write_text(plastic("train", "grlu", "--dry-run").out, encoding="utf-8")
    merged = tomllib.loads(plastic("train", "grlu", "--config", file, "--k", 0.25, "--dry-run").out)
    assert (merged["activation"], merged["k"]) == ("top-k", 0.25)
    file.write_text(plastic("train", "grlu", "--k", 0.25, "--dry-run").out, encoding="utf-8")
    merged = tomllib.loads(plastic("train", "grlu", "--config", file, "--activation", "relu", "--dry-run").out)
    assert merged["activation"] == "relu"
    assert "k" not in merged


@pytest.mark.parametrize(
    "typed", [["--hidden", ""], ["--hidden", "10000000000"], ["--perturbations", 10**20], ["--final-noise", 0.5]]
)
def test_values_that_no_network_can_have_are_refused(typed):
    outcome = plastic("train", "grlu", *typed)
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 1


def test_the_last_of_several_seeds_is_checked_before_the_first_run(runs_folder):
    outcome = plastic("train", "grlu", "--seed", 2**63 - 1, "--seeds", 2)
    assert outcome.code == 2
    assert not runs_folder.exists() or not list(runs_folder.iterdir())


def test_the_folder_of_a_data_set_is_stored_as_an_absolute_path(tiny_data, monkeypatch):
    monkeypatch.chdir(tiny_data.parent)
    outcome = plastic("train", "backprop", "--json", "--dataset", tiny_data.name, "--hidden", 4, "--epochs", 1)
    monkeypatch.chdir("/")
    assert outcome.code == 0, outcome.err
    assert plastic("eval", "backprop", "--json").code == 0
