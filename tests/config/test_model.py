"""Former names of fields, and options that imply others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import pytest

from plastic_cli import TrainConfig, UserError, field
from plastic_cli.config.other_words import similar_option
from plastic_cli.resolve import resolve


class Renamed(TrainConfig):
    """A model with a field that had another name."""

    renamed: ClassVar[Mapping[str, str]] = {"colour": "color"}
    color: str = field("red", "color")


def test_a_stored_configuration_with_the_former_name_is_read():
    assert Renamed.from_values({"colour": "blue"}).color == "blue"
    assert Renamed.from_values({"colour": "blue", "color": "green"}).color == "green"
    assert Renamed.from_values({"colour": "blue"}).model_dump().keys() == {"seed", "device", "color"}


@pytest.mark.filterwarnings("ignore::plastic_cli.errors.FormerName")
def test_typed_options_take_precedence_over_a_former_name_in_a_file_or_a_run():
    assert resolve(Renamed, {"color": "green"}, {"colour": "blue"}).color == "green"
    assert resolve(Renamed, {}, {"colour": "blue"}).color == "blue"
    assert resolve(Renamed, {"color": "green"}, stored={"colour": "blue"}).color == "green"
    assert resolve(Renamed, {}, stored={"colour": "blue"}).color == "blue"


def test_a_name_that_was_never_used_is_refused():
    with pytest.raises(UserError, match="there is no key 'hue'"):
        Renamed.from_values({"hue": "blue"})


class Implying(TrainConfig):
    """A model where one option implies the value of another."""

    optimizer: Literal["adam", "sgd"] = field("adam", "optimizer")
    rate: float = field(0.001, "learning rate")
    joint: bool = field(False, "all tasks together")
    share: float = field(0.5, "share of replayed images")
    sizes: tuple[int, ...] = field((4,), "units of each layer")

    @classmethod
    def implied(cls, typed: Mapping[str, Any]) -> dict[str, Any]:
        if typed.get("joint") is True:
            return {"rate": 0.2}
        if typed.get("share") == 0:
            return {"rate": 0.3}
        if typed.get("sizes") == (8, 4):
            return {"rate": 0.4}
        return {"rate": 0.01} if typed.get("optimizer") == "sgd" else {}


@pytest.mark.parametrize("word", ["sgd", "SGD", "Sgd"])
def test_a_choice_implies_the_same_in_any_case(word):
    assert resolve(Implying, {"optimizer": word}).rate == 0.01
    assert resolve(Implying, {}, {"optimizer": word}).rate == 0.01
    assert resolve(Implying, {"optimizer": word, "rate": 0.5}).rate == 0.5


@pytest.mark.parametrize(
    ("typed", "rate"),
    [
        ({"joint": "true"}, 0.2),
        ({"joint": "yes"}, 0.2),
        ({"joint": True}, 0.2),
        ({"joint": "false"}, 0.001),
        ({"joint": "false", "optimizer": "sgd"}, 0.01),
        ({"share": "0.0"}, 0.3),
        ({"share": "0"}, 0.3),
        ({"share": "0.1"}, 0.001),
        ({"sizes": "8,4"}, 0.4),
        ({"sizes": [8, 4]}, 0.001),
    ],
)
def test_a_text_implies_what_its_value_implies(typed, rate):
    assert resolve(Implying, typed).rate == rate
    assert resolve(Implying, {}, typed).rate == rate


class Pairs(TrainConfig):
    """A model where two options together imply the value of a third one."""

    model: Literal["mlp", "lenet"] = field("mlp", "network")
    optimizer: Literal["sgd", "adam"] = field("sgd", "optimizer")
    rate: float = field(0.1, "learning rate")

    @classmethod
    def implied(cls, typed: Mapping[str, Any]) -> dict[str, Any]:
        if typed.get("model") != "lenet":
            return {"rate": 0.003} if typed.get("optimizer") == "adam" else {}
        optimizer = typed.get("optimizer", "adam")
        return {"optimizer": optimizer, "rate": {"adam": 0.001, "sgd": 0.01}[optimizer]}


@pytest.mark.parametrize(
    ("typed", "in_file", "found"),
    [
        ({"model": "lenet", "optimizer": "sgd"}, {}, ("sgd", 0.01)),
        ({"optimizer": "sgd"}, {"model": "lenet"}, ("sgd", 0.01)),
        # A file that holds every option.
        ({"optimizer": "sgd"}, {"model": "lenet", "optimizer": "adam", "rate": 0.001}, ("sgd", 0.01)),
        ({"model": "lenet"}, {"model": "mlp", "optimizer": "sgd", "rate": 0.1}, ("adam", 0.001)),
        ({"model": "lenet"}, {"optimizer": "sgd"}, ("adam", 0.001)),
        ({"optimizer": "sgd"}, {"model": "lenet", "rate": 0.5}, ("sgd", 0.5)),
        ({"optimizer": "sgd"}, {"model": "lenet", "optimizer": "adam", "rate": 0.5}, ("sgd", 0.5)),
        ({"rate": 0.5}, {"model": "lenet"}, ("adam", 0.5)),
        ({}, {"model": "lenet", "rate": 0.5}, ("adam", 0.5)),
    ],
)
def test_what_a_typed_option_and_one_of_a_file_imply_together(typed, in_file, found):
    config = resolve(Pairs, typed, in_file)
    assert (config.optimizer, config.rate) == found


def test_a_text_that_is_wrong_is_refused_and_not_hidden_by_what_it_implies():
    for name, text in (("joint", "perhaps"), ("share", "half"), ("sizes", "wide")):
        with pytest.raises(UserError, match=f"--{name} {text}"):
            resolve(Implying, {name: text})


def test_former_names_of_base_classes_count_unless_the_name_is_a_field():
    class Derived(Renamed):
        renamed: ClassVar[Mapping[str, str]] = {"size": "width"}
        width: int = field(1, "width")

    class Again(Derived):
        size: int = field(2, "another size")

    assert Derived.former_names() == {"colour": "color", "size": "width"}
    assert Again.former_names() == {"colour": "color"}
    assert Again.from_values({"size": 3}).size == 3


@pytest.mark.parametrize(
    ("word", "options", "meant"),
    [
        ("--lr", ["--runs", "--learning-rate"], "--learning-rate"),
        ("lr", ["l1", "learning_rate"], "learning_rate"),
        ("--hidden-layer-sizes", ["--event-batch-size", "--hidden"], "--hidden"),
        ("--max-epochs", ["--image-size", "--episodes"], "--episodes"),
        ("--Num-Epochs", ["--name", "--epochs", "--episodes"], "--epochs"),
        ("--random-state", ["--trained", "--seed"], "--seed"),
        ("--perturbation", ["--perturbations", "--hidden"], "--perturbations"),
    ],
)
def test_a_word_of_another_program_suggests_the_option_that_it_means(word, options, meant):
    assert similar_option(word, options) == f" Did you mean '{meant}'?"


def test_a_word_of_the_published_program_suggests_its_option():
    words = {"m": "ways", "gone": "no_option"}
    assert similar_option("--M", ["--momentum", "--ways"], words) == " Did you mean '--ways'?"
    assert similar_option("gone", ["batch_size", "ways"], words) == ""


def test_no_suggestion_for_a_word_that_means_nothing_here():
    assert similar_option("--zzzz", ["--hidden"]) == ""
    assert similar_option("--lr", ["--hidden"]) == ""
