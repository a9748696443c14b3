"""The type of `--hidden`, in a model of its own: what it accepts, what it refuses and how it is shown."""

from __future__ import annotations

import pytest

from plastic_cli import TrainConfig, field
from plastic_cli.config.classifier import MOST_UNITS, LayerSizes
from plastic_cli.config.describe import holds_several, type_word
from plastic_cli.errors import OptionError


class Network(TrainConfig):
    hidden: LayerSizes = field((256,), "units of each hidden layer")
    others: LayerSizes | None = field(None, "units of each hidden layer (default: as in training)")


@pytest.mark.parametrize("name", ["hidden", "others"])
@pytest.mark.parametrize(
    ("typed", "sizes"), [("12", (12,)), ("12, 8", (12, 8)), ([1, MOST_UNITS], (1, MOST_UNITS)), (7, (7,))]
)
def test_layer_sizes_are_whole_numbers_of_units(name, typed, sizes):
    assert getattr(Network.from_values({name: typed}), name) == sizes


@pytest.mark.parametrize("name", ["hidden", "others"])
@pytest.mark.parametrize("typed", ["", "12,0", "-3", str(MOST_UNITS + 1), []])
def test_a_layer_without_units_no_layer_and_too_many_units_are_refused_in_one_line(name, typed):
    with pytest.raises(OptionError, match="needs at least one layer, with 1 to 1048576 units in each") as raised:
        Network.from_values({name: typed})
    assert f"--{name}" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_optional_list_of_sizes_can_be_omitted():
    assert Network.from_values({}).others is None


@pytest.mark.parametrize("name", ["hidden", "others"])
def test_layer_sizes_are_shown_as_a_list_of_whole_numbers(name):
    info = Network.model_fields[name]
    assert holds_several(info)
    assert type_word(info) == "int,..."
