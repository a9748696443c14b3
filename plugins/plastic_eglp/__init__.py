"""EGLP: event-gated local plasticity. Registers the rule; the public names are imported when first used."""

from __future__ import annotations

import lazy_loader

from plastic_cli import Metric, Rule, hookimpl


@hookimpl
def plastic_rule() -> Rule:
    """Register EGLP."""
    return Rule(
        name="eglp",
        summary="Event-gated local plasticity: hidden layers learn locally, and only during global events.",
        citation="github.com/debg48/EGLP",
        commands="plastic_eglp.commands",
        build="plastic_eglp.training:build",
        network="plastic_eglp.training:network",
        credit="plastic_eglp.credit:make_credit",
        cost="plastic_eglp.cost:cost",
        metrics={
            "train/events": Metric("events", "batches"),
            "events": Metric("events", "batches"),
            "train/event_images": Metric("images with an event", "images"),
            "train/synaptic_updates": Metric("updates of hidden synapses", "updates"),
            "train/messages": Metric("messages to hidden layers", "messages"),
        },
    )


# `__init__.pyi` lists the names; each is imported when it is first used. pluggy finds hooks in the unchanged `dir`.
__getattr__, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
