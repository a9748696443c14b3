"""feedback: feedback alignment and its relatives, on whole data sets and any network. Registers the rule."""

from __future__ import annotations

from plastic_cli import Metric, Rule, hookimpl


@hookimpl
def plastic_rule() -> Rule:
    """Register feedback."""
    return Rule(
        name="feedback",
        summary="Errors return through random, direct, sign or learned feedback weights, on any network.",
        citation="Lillicrap et al. 2016; Shervani-Tabar & Rosenbaum 2023",
        commands="plastic_metafa.feedback.commands",
        build="plastic_metafa.feedback.training:build",
        network="plastic_metafa.feedback.training:network",
        credit="plastic_metafa.feedback.training:make_credit",
        cost="plastic_metafa.feedback.cost:cost",
        metrics={
            "begins": Metric("training until it begins to learn", "images"),
            "accuracy_along": Metric("accuracy, mean along the stream", "%"),
            "best_accuracy": Metric("highest accuracy of an epoch, chosen on the same images", "%"),
        },
    )
