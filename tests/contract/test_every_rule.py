"""Every installed rule keeps the contract, with options small enough for seconds."""

from __future__ import annotations

import pytest

from plastic_cli.plugins import discover
from plastic_cli.testing import check_rule

SMALL = {
    "backprop": {"hidden": [8], "epochs": 3},
    "grlu": {"hidden": [8], "epochs": 3, "perturbations": 2},
}
"""By rule; one that is not named here is checked with its defaults and three epochs."""


@pytest.mark.parametrize("name", list(discover().rules))
def test_rule_keeps_the_contract(name, tmp_path):
    check_rule(name, tmp_path, SMALL.get(name, {"epochs": 3}))


@pytest.mark.parametrize(
    "options",
    [
        {"k": 0.5, "hidden": [6, 6], "skip": True, "batch_size": 4},
        {"credit": "preactivation", "validation": 6},
        {"update": "backprop"},
        {"backbone": "autoencoder", "latent": 5, "backbone_epochs": 2},
    ],
    ids=lambda options: next(iter(options)),
)
def test_grlu_keeps_the_contract_in_its_variants(options, tmp_path):
    check_rule("grlu", tmp_path, {"hidden": [8], "epochs": 2, "perturbations": 1, **options})


def test_readout_alone_keeps_the_contract(tmp_path):
    check_rule("backprop", tmp_path, {"trained": "readout", "optimizer": "sgd", "momentum": 0.9, "epochs": 2})
