"""Selective plasticity: registers the rule, and gives the optimizer to other programs when they first use it."""

from __future__ import annotations

import lazy_loader

from plastic_cli import Metric, Rule, hookimpl


@hookimpl
def plastic_rule() -> Rule:
    """Register selective plasticity."""
    return Rule(
        name="selective",
        summary="An optimizer with a gate for each synapse, and experiments on continual learning with controls.",
        citation="Selective plasticity (published program)",
        commands="plastic_selective.commands",
        build="plastic_selective.continual.components:build",
        network="plastic_selective.continual.trained:network",
        cost="plastic_selective.cost:cost",
        optimizers={"selective": "plastic_selective.optimizer.optimizer:SelectivePlasticityOptimizer"},
        metrics={
            "accuracy": Metric("accuracy, mean of the tasks", "%"),
            "loss": Metric("loss, mean of the tasks", bounds=(0.0, float("inf"))),
            "accuracy_task_N": Metric("accuracy on task N", "%"),
            "forgetting": Metric("forgetting", "%", signed=True),
            "backward_transfer": Metric("backward transfer", "%", signed=True),
            "forward_transfer": Metric("forward transfer", "%", signed=True),
            "intransigence_task_N": Metric("intransigence on task N", "%", signed=True),
            "eligibility_mean": Metric("mean eligibility"),
            "gate_mean": Metric("mean gate"),
            "gate_low_ratio": Metric("share of synapses with a low gate", "%"),
            "overlap": Metric("share of busiest synapses that two tasks share", "%"),
        },
    )


# `__init__.pyi` lists the names; each is imported when it is first used. pluggy finds hooks in the unchanged `dir`.
__getattr__, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
