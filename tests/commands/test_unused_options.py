"""Options that have no effect given others are refused, for every rule and command, before anything runs."""

from __future__ import annotations

import json
import re
import typing

import pytest

from plastic_cli.config.describe import literal_choices
from plastic_cli.config.model import Config, TrainConfig, field
from plastic_cli.errors import UserError
from plastic_cli.plugins.discovery import discover
from plastic_cli.plugins.models import config_model
from plastic_cli.plugins.rule import VERBS
from plastic_cli.resolve import resolve
from plastic_cli.testing import plastic

REFUSED = ["--events", "never", "--event-rate", "0.5"]


class Bench(TrainConfig):
    only_with = (
        ("mode", ("fast", "slow"), ("speed",)),
        ("warm", (True,), ("degrees",)),
        ("warm", (False,), ("frost",)),
        ("limit", (0,), ("degrees",)),
    )

    mode: typing.Literal["fast", "slow", "off"] = field("fast", "mode")
    speed: float = field(1.0, "speed")
    warm: bool = field(True, "warm")
    degrees: int = field(3, "degrees")
    frost: int = field(1, "frost")
    limit: float = field(0.0, "limit")

    @classmethod
    def implied(cls, typed):
        return {"degrees": 9} if typed.get("mode") == "off" else {}


def models():
    for rule in discover().rules.values():
        for verb in VERBS:
            function = rule.function(verb)
            if function is not None:
                yield rule.name, verb, config_model(function)


def entries():
    for rule, verb, model in models():
        for base in model.__mro__:
            for option, values, names in vars(base).get("only_with", ()):
                yield pytest.param(model, option, values, names, id=f"{rule} {verb} {option} {names[0]}")


@pytest.mark.parametrize(("model", "option", "values", "names"), list(entries()))
def test_declared_dependencies_name_existing_options_and_values(model, option, values, names):
    assert {option, *names} <= set(model.model_fields)
    choices = literal_choices(model.model_fields[option])
    assert values
    assert not choices or {str(value) for value in values} < set(choices)


@pytest.mark.parametrize(
    ("rule", "typed", "reason"),
    [
        ("backprop", {"probe": True, "samples": 8}, "--samples 8 does nothing without --angles. Leave it out."),
        ("feedback", {"images": 30}, "--images 30 does nothing without --angles. Leave it out."),
        ("grlu", {"weights": True, "images": 30}, "--images 30 does nothing without --angles. Leave it out."),
        ("grlu", {"images": 30, "samples": 8}, None),
        ("feedback", {"angles": True, "images": 30}, None),
        ("metafa", {"theta": True, "episodes": 5}, "--episodes 5 does nothing without --terms. Leave it out."),
        ("metafa", {"terms": True, "window": 5}, "--window 5 does nothing without --accuracy, --angles or"),
        ("metafa", {"accuracy": True, "window": 5}, None),
        ("metafa", {"window": 5, "episodes": 5}, None),
    ],
)
def test_settings_of_analyses_that_are_not_made_are_refused(rule, typed, reason):
    model = config_model(discover().rules[rule].function("analyze"))
    config = model.from_values(typed)
    if reason is None:
        config.refuse_unused()
    else:
        with pytest.raises(UserError, match=re.escape(reason)):
            config.refuse_unused()


@pytest.mark.parametrize("rule", ["backprop", "feedback"])
def test_a_rate_that_never_drops_is_refused(rule):
    drops = ["train", rule, "--dry-run", "--rate-drops"]
    assert plastic(*drops, "0.5,0.75", "--epochs", 4).code == 0
    late = plastic(*drops, "0.5,0.75", "--epochs", 3)
    assert late.code == 2
    assert "--rate-drops 0.75 does nothing with --epochs 3: no epoch begins after this share. Choose" in late.err
    assert "Choose shares up to 0.666," in plastic(*drops, "0.667", "--epochs", 3).err
    assert "--rate-drops does nothing with --epochs 1" in plastic(*drops, "0.5", "--epochs", 1).err


def test_every_bundled_rule_with_dependent_options_declares_them():
    declared = {rule for rule, verb, model in models() if verb == "train" and model.only_with}
    assert {"backprop", "eglp", "grlu", "mpn", "selective"} <= declared


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ({"mode": "off", "speed": "2"}, "--speed 2.0 does nothing with --mode off: it belongs to --mode fast or slow."),
        ({"warm": False, "degrees": 4}, "--degrees 4 does nothing without --warm."),
        ({"warm": True, "frost": 4}, "--frost 4 does nothing with --warm."),
        ({"limit": "2", "degrees": "4"}, "--degrees 4 does nothing with --limit 2.0: it belongs to --limit 0."),
    ],
)
def test_an_option_without_effect_is_refused_with_the_reason(typed, message):
    with pytest.raises(UserError) as error:
        resolve(Bench, typed)
    assert str(error.value) == f"{message} Leave it out."


@pytest.mark.parametrize(
    "typed",
    [
        {},
        {"mode": "SLOW", "speed": 2},
        {"mode": "off", "speed": 1.0},
        {"mode": "off", "limit": 1},
        {"warm": "true", "degrees": 4},
        {"limit": "0", "degrees": 4},
    ],
)
def test_defaults_and_implied_values_are_accepted(typed):
    resolve(Bench, typed)


def test_a_typed_choice_resets_the_dependent_options_of_a_file():
    assert resolve(Bench, {"mode": "off"}, {"speed": 3}, "file").speed == Bench().speed
    assert resolve(Bench, {"limit": "2"}, {"degrees": 7}, "file").degrees == Bench().degrees
    assert resolve(Bench, {"limit": "0"}, {"degrees": 7}, "file").degrees == 7


def test_the_error_names_the_file():
    with pytest.raises(UserError, match=r"^options\.toml: --speed 3\.0 does nothing with --mode off"):
        resolve(Bench, {}, {"speed": 3, "mode": "off"}, "options.toml")


def test_stored_options_are_not_refused():
    resolve(Bench, {"warm": True}, stored={"mode": "off", "speed": 3})
    Bench.from_values({"mode": "off", "speed": 3})


@pytest.mark.parametrize("more", [[], ["--dry-run"], ["--grid", "epochs=1,2"], ["--grid", "epochs=1,2", "--dry-run"]])
def test_a_dry_run_and_a_grid_refuse_what_the_run_refuses(more, runs_folder):
    outcome = plastic("train", "eglp", *REFUSED, *more)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == (
        "error: --event-rate 0.5 does nothing with --events never: it belongs to --events triggered, sampled or fixed."
        " Leave it out.\n"
    )
    assert not runs_folder.exists()


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_sweep_refuses_it_with_its_line_before_any_run(more, tmp_path, runs_folder):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'title = "t"\nwhy = "w"\nrule = "eglp"\n[options]\nevent_rate = 0.5\n[grid]\nevents = ["triggered", "never"]\n'
    )
    outcome = plastic("sweep", recipe, *more)
    assert (outcome.code, outcome.out) == (2, "")
    assert f"{recipe}, line 5: --event-rate 0.5 does nothing with --events never" in outcome.err
    assert not runs_folder.exists()


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_tune_refuses_it_before_any_run(more, runs_folder):
    outcome = plastic("tune", "eglp", *REFUSED, *more)
    assert (outcome.code, outcome.out) == (2, "")
    assert "--event-rate 0.5 does nothing" in outcome.err
    assert not runs_folder.exists()


@pytest.mark.parametrize("verb", ["analyze"])
def test_later_verbs_refuse_it_too(verb, train, runs_folder):
    folder = train()
    outcome = plastic(verb, "backprop", "--run", folder.name, "--other", folder.name)
    assert outcome.code == 2
    assert "--other" in outcome.err
    assert "does nothing without --cka" in outcome.err


def test_resume_accepts_options_that_were_accepted_when_the_run_started(tiny_data, runs_folder, monkeypatch):
    from plastic_cli.testing import interrupted_after

    small = ["--dataset", tiny_data, "--hidden", 4, "--epochs", 3, "--optimizer", "adam", "--momentum", 0.5]
    with monkeypatch.context() as before:
        before.setattr(Config, "refuse_unused", lambda _: None)
        with interrupted_after(1):
            assert plastic("train", "backprop", *small).code == 130
    run = next(runs_folder.glob("2*")).name
    outcome = plastic("train", "backprop", "--resume", run, "--momentum", 0.5, "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["status"] == "completed"
