"""Former names of fields, and options that imply others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import pytest

from plastic_cli import TrainConfig, UserError, field
from plastic_cli.resolve import resolve


class Renamed(TrainConfig):
    """A model with a field that had another name."""

    renamed: ClassVar[Mapping[str, str]] = {"colour": "color"}
    color: str = field("red", "color")


def test_a_stored_configuration_with_the_former_name_is_read():
    assert Renamed.from_values({"colour": "blue"}).color == "blue"
    assert Renamed.from_values({"colour": "blue", "color": "green"}).color == "green"
    assert Renamed.from_values({"colour": "blue"}).model_dump().keys() == {"seed", "device", "color"}


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

    @classmethod
    def implied(cls, typed: Mapping[str, Any]) -> dict[str, Any]:
        return {"rate": 0.01} if typed.get("optimizer") == "sgd" else {}


@pytest.mark.parametrize("word", ["sgd", "SGD", "Sgd"])
def test_a_choice_implies_the_same_in_any_case(word):
    assert resolve(Implying, {"optimizer": word}).rate == 0.01
    assert resolve(Implying, {}, {"optimizer": word}).rate == 0.01
    assert resolve(Implying, {"optimizer": word, "rate": 0.5}).rate == 0.5
