"""metafa: meta-learned plasticity. Registers the rule; the public names are imported when first used."""

from __future__ import annotations

import lazy_loader

from plastic_cli import Metric, Rule, hookimpl


@hookimpl
def plastic_rule() -> Rule:
    """Register metafa."""
    return Rule(
        name="metafa",
        summary="Meta-learned plasticity rules for networks with random feedback.",
        citation="Shervani-Tabar & Rosenbaum 2023",
        commands="plastic_metafa.commands",
        network="plastic_metafa.network:network",
        cost="plastic_metafa.cost:cost",
        metrics={
            "theta_N": Metric("theta N"),
            "train/theta_N": Metric("theta N"),
            "rate": Metric("learning rate"),
            "share": Metric("share of the weight change", "%"),
            "low": Metric("lower bound of the accuracy", "%"),
            "high": Metric("upper bound of the accuracy", "%"),
            "last accuracy": Metric("training accuracy, mean of the last episodes", "%"),
            "angle": Metric("angle to the errors of backprop", "degrees"),
            "test/angle": Metric("angle to the errors of backprop", "degrees"),
            "angle_by_sample": Metric("angle to the errors of backprop, by query", "degrees"),
            "E_W": Metric("orthonormality error E_W"),
            "orthonormality": Metric("orthonormality error E_W"),
            "log10_orthonormality_error": Metric("log10 of the orthonormality error E_W"),
            "test/log10_orthonormality_error": Metric("log10 of the orthonormality error E_W"),
            "test/chance": Metric("accuracy by chance among the classes of an episode", "%"),
            "test/chance_of_all_outputs": Metric("accuracy by chance among all outputs", "%"),
            "test/above_feedback_alignment": Metric("test accuracy minus that of feedback alignment", "%", signed=True),
            "test/below_backprop": Metric("test accuracy of backprop minus that of the rule", "%", signed=True),
            "test/terms_needed": Metric("terms that the accuracy needs", "terms"),
            "train/terms_nonzero": Metric("terms that are not zero", "terms"),
            "test/needed_as_published": Metric("share of terms needed or not as published", "%"),
            "train/nonzero_as_published": Metric("share of terms zero or not as published", "%"),
            "test/passes_feedback_alignment": Metric("training until it passes feedback alignment", "episodes"),
            "test/reaches_backprop": Metric("training until it reaches backprop", "episodes"),
            "train/theta_0_settled": Metric("training until theta 0 has settled", "episodes"),
        },
    )


# `__init__.pyi` lists the names; each is imported when it is first used. pluggy finds hooks in the unchanged `dir`.
__getattr__, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
