"""MPN: multi-plasticity networks. Registers the rule; the names of the library are imported at first use."""

from __future__ import annotations

import lazy_loader

from plastic_cli import Metric, Rule, hookimpl


@hookimpl
def plastic_rule() -> Rule:
    """Register MPN."""
    return Rule(
        name="mpn",
        summary="Multi-plasticity networks: Hebbian modulation of the input weights as the memory of an agent.",
        citation="Aitken & Mihalas 2023",
        commands="plastic_mpn.commands",
        network="plastic_mpn.trained:network",
        cost="plastic_mpn.cost:cost",
        metrics={
            "test/return": Metric("test return of the best network"),
            "test/last_return": Metric("test return of the last network"),
            "test/spread": Metric("SD of the test return over episodes"),
            "test/best_at": Metric("training step of the best network"),
            "train/episodes": Metric("training episodes", "episodes"),
            "train/length": Metric("length of training episodes", "steps"),
            "train/batches": Metric("training batches", "batches"),
            "test/batches": Metric("training batches", "batches"),
            "train/environment_steps": Metric("training steps of the environments", "steps"),
            "train/gradient_steps": Metric("training steps of the optimizer", "steps"),
            "train/epsilon": Metric("share of random actions", "%"),
            "train/entropy": Metric("entropy of the policy", "nats"),
            "policy_loss": Metric("loss of the policy"),
            "value_loss": Metric("loss of the value"),
            "gradient_norm": Metric("norm of the gradient"),
            "episodes/return": Metric("return"),
            "episodes/return_low": Metric("lower bound of the return"),
            "episodes/return_high": Metric("upper bound of the return"),
            "episodes/steps": Metric("length of an episode", "steps"),
            "episodes/difference": Metric("return minus that of the intact network"),
            "episodes/norm": Metric("norm of M"),
            "episodes/share": Metric("share of M in the preactivation", "%"),
            "episodes/variance_share": Metric("share of M in the variance of the preactivation", "%"),
            "episodes/participation_ratio": Metric("participation ratio"),
            "episodes/variance_N": Metric("variance explained up to component N", "%"),
            "episodes/R2": Metric("R2 of decoding"),
            "episodes/accuracy": Metric("accuracy of decoding", "%"),
            "episodes/chance": Metric("decoding by chance"),
            "fresh/return": Metric("return of new episodes"),
            "fresh/return_low": Metric("lower bound of the return of new episodes"),
            "fresh/return_high": Metric("upper bound of the return of new episodes"),
            "fresh/return_min": Metric("lowest return of a new episode"),
            "fresh/return_max": Metric("highest return of a new episode"),
            "render/return": Metric("return of the shown episode"),
            "participation_ratio": Metric("participation ratio of h"),
            "participation_ratio_m": Metric("participation ratio of M"),
            "r2_evidence": Metric("variance of h explained by the evidence (R2)"),
            "r2_input": Metric("variance of h explained by the input (R2)"),
            "decoded_stimulus": Metric("accuracy decoded from h at the last stimulus", "%"),
            "decoded_delay": Metric("accuracy decoded from h at the end of the delay", "%"),
            "decoded_go": Metric("accuracy decoded from h at go", "%"),
            "novel_class_accuracy": Metric("accuracy decoded for new classes", "%"),
        },
    )


# `__init__.pyi` lists the names; each is imported when it is first used. pluggy finds hooks in the unchanged `dir`.
__getattr__, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
