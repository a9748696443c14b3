"""The controls that each rule declares: options that it has, and the settings that its claims call controls."""

import pytest

from plastic_cli.plugins.discovery import discover, find_rule
from plastic_cli.plugins.models import train_model
from plastic_cli.reports.claims import read_claims

RULES = list(discover().rules)


@pytest.mark.parametrize("name", RULES)
def test_a_control_has_options_of_its_rule_and_its_configuration_is_that_control(name):
    model = train_model(find_rule(name))
    defaults = model.from_values({}).model_dump(mode="json")
    assert model.control_of(defaults) is None, "a run with the defaults is a run of the rule"
    for control, options in model.controls.items():
        # Options that a control needs follow from it, as they do on the command line.
        config = model.from_values(dict(options)).model_dump(mode="json")
        assert model.control_of(config) == control


@pytest.mark.parametrize("name", [name for name in RULES if discover().rules[name].claims_text()])
def test_a_claim_about_a_control_has_the_options_of_a_control(name):
    model = train_model(find_rule(name))
    claims = read_claims(name, discover().rules[name].claims_text()).claims
    for claim in claims:
        if claim.about_control:
            defaults = model.from_values({}).model_dump(mode="json")
            assert model.control_of({**defaults, **claim.conditions}), claim.id


def test_backpropagation_and_random_features_are_controls_for_all_rules():
    assert [name for name in RULES if train_model(find_rule(name)).controls_all_rules] == ["backprop"]
    assert "random features" in train_model(find_rule("backprop")).controls
