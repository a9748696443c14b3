"""GRLU: global reward, local updates. Registers the rule; public names are imported at first use."""

from __future__ import annotations

import lazy_loader

from plastic_cli import Metric, Rule, hookimpl


@hookimpl
def plastic_rule() -> Rule:
    """Register GRLU."""
    return Rule(
        name="grlu",
        summary="Global reward, local updates: node perturbation with antithetic noise and one scalar reward.",
        citation="github.com/steve-z-wang/grlu",
        commands="plastic_grlu.commands",
        build="plastic_grlu.training:build",
        network="plastic_grlu.training:network",
        credit="plastic_grlu.credit:make_credit",
        cost="plastic_grlu.cost:cost",
        headline_figures="plastic_grlu.analysis.figures:headline_figures",
        metrics={
            "backbone/loss": Metric("loss of the backbone"),
            "feedback_angle": Metric("angle of the feedback to the transposed weights", "degrees"),
        },
    )


# `__init__.pyi` lists the names; each is imported when it is first used. pluggy finds hooks in the unchanged `dir`.
__getattr__, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
