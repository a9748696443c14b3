"""The options of the four verbs of selective plasticity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import model_validator

from plastic_cli import (
    ClassifierAnalyzeConfig,
    ClassifierEvaluateConfig,
    ClassifierTrainConfig,
    OnlyWith,
    RenderConfig,
    field,
)

LARGEST_STRENGTH = 1e6
"""The largest plasticity k that the optimizer takes."""


DESCENT_RATE = 0.01
"""Learning rate where nothing else is typed and the step is the gradient's, not Adam's."""


class Train(ClassifierTrainConfig):
    """Learn one task after another with an optimizer that protects busy synapses, or with a control."""

    optimizer: Literal["selective", "sgd", "momentum", "adam"] = field(
        "selective", "how the gradient becomes a step: selective plasticity or, as controls, sgd, momentum, adam"
    )
    base: Literal["adam", "sgd"] = field("adam", "what selective plasticity gates; sgd is the published code")
    plasticity_k: float = field(
        5.0, "strength of the gate; 0: the base alone, 10: closed as far as it goes", ge=0, le=LARGEST_STRENGTH
    )
    gating: Literal["selective", "uniform"] = field(
        "selective", "uniform is a control: all synapses are slowed down alike, as much as they are on average"
    )
    threshold_percentile: float = field(
        75, "synapses above this percentile of eligibility are busy (base adam)", ge=0, le=100
    )
    adaptive_threshold: bool = field(True, "measure the percentile again as learning goes on (base adam)")
    trace_decay: float = field(0.99, "decay of the eligibility (base sgd)", ge=0, lt=1)
    second_moment_decay: float = field(0.999, "decay of the eligibility (base adam): Adam's beta 2", ge=0, lt=1)
    warmup_share: float = field(
        0.1, "until the gate is in full force: this share of the first task's steps", ge=0, le=1
    )
    warmup_steps: int | None = field(None, "the same in steps, whatever the task's length (published: 1000)", ge=0)

    stream: Literal["split", "permuted", "rotated"] = field(
        "split", "tasks: the classes in portions, or all of them with permuted pixels, or turned", panel="Tasks"
    )
    scenario: Literal["class", "domain", "task"] = field(
        "class",
        "what is answered: class: which of all classes; domain: which of this task's, task unknown; task: the same,"
        " task known",
        panel="Tasks",
    )
    tasks: int = field(2, "how many", ge=2, le=1000, panel="Tasks")
    class_order: tuple[int, ...] = field((), "classes in the order of their tasks (default: by number)", panel="Tasks")
    shuffle_classes: bool = field(False, "draw the order of the classes from the seed", panel="Tasks")
    max_degrees: float = field(180.0, "the whole turn of rotated tasks", gt=0, le=360, panel="Tasks")
    active: Literal["all", "seen"] = field(
        "all", "outputs that compete in class-incremental learning: all, or those of tasks so far", panel="Tasks"
    )
    joint: bool = field(False, "the upper bound: each task is learned together with all before it", panel="Tasks")

    replay: Literal["none", "reservoir", "class-balanced", "fifo"] = field(
        "reservoir",
        "images kept and shown again: none, reservoir, class-balanced, or fifo, fed what it replayed (published)",
        panel="Replay",
    )
    buffer_size: int = field(200, "images kept", ge=1, panel="Replay")
    replay_share: float = field(0.5, "share of replayed images in a mixed batch", ge=0, lt=1, panel="Replay")

    penalty: Literal["none", "ewc", "si"] = field(
        "none", "controls: online elastic weight consolidation, synaptic intelligence", panel="Penalty"
    )
    penalty_strength: float = field(100.0, "EWC's lambda or SI's c", ge=0, panel="Penalty")
    ewc_decay: float = field(1.0, "what old importance keeps when a task ends", ge=0, le=1, panel="Penalty")
    fisher_samples: int = field(1000, "images by which EWC measures importance", ge=1, panel="Penalty")
    si_damping: float = field(0.1, "SI's xi", gt=0, panel="Penalty")

    hidden: tuple[int, ...] = field((256, 256), "units of each hidden layer", panel="Learning")
    learning_rate: float = field(
        0.001,
        "learning rate; with an sgd base 0.01 unless typed",
        gt=0,
        panel="Learning",
        search=(1e-4, 0.1, "log"),
    )
    momentum: float = field(0.9, "of --optimizer momentum", ge=0, lt=1, panel="Learning")
    batch_size: int = field(64, "new images per step", ge=1, panel="Learning")
    epochs: int = field(5, "passes over the images of a task", ge=1, panel="Learning")
    iterations: int = field(0, "steps per task instead of passes; 0: --epochs", ge=0, panel="Learning")

    only_with: ClassVar[OnlyWith] = (
        (
            "optimizer",
            ("selective",),
            (
                *("base", "plasticity_k", "gating", "threshold_percentile", "adaptive_threshold"),
                *("trace_decay", "warmup_share", "warmup_steps"),
            ),
        ),
        ("optimizer", ("selective", "adam"), ("second_moment_decay",)),
        ("optimizer", ("momentum",), ("momentum",)),
        ("base", ("adam",), ("threshold_percentile", "adaptive_threshold", "second_moment_decay")),
        ("base", ("sgd",), ("trace_decay",)),
        ("warmup_steps", (None,), ("warmup_share",)),
        ("stream", ("rotated",), ("max_degrees",)),
        ("scenario", ("class",), ("active",)),
        ("replay", ("reservoir", "class-balanced", "fifo"), ("buffer_size", "replay_share")),
        ("penalty", ("ewc", "si"), ("penalty_strength",)),
        ("penalty", ("ewc",), ("ewc_decay", "fisher_samples")),
        ("penalty", ("si",), ("si_damping",)),
        ("iterations", (0,), ("epochs",)),
    )

    @classmethod
    def implied(cls, typed: Mapping[str, Any]) -> dict[str, Any]:
        """A step along the gradient needs another learning rate than one of Adam's; joint training needs no replay."""
        optimizer, base = typed.get("optimizer", "selective"), typed.get("base", "adam")
        descends = optimizer in ("sgd", "momentum") or (optimizer == "selective" and base == "sgd")
        meant: dict[str, Any] = {"learning_rate": DESCENT_RATE} if descends else {}
        if typed.get("joint") is True:
            meant["replay"] = "none"
        if "epochs" in typed:
            meant["iterations"] = 0
        if "warmup_share" in typed:
            meant["warmup_steps"] = None
        return meant

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not self.hidden or not all(1 <= units <= 2**20 for units in self.hidden):
            raise ValueError("--hidden: name at least one layer, of 1 to 1048576 units each")
        if self.stream != "split" and (self.class_order or self.shuffle_classes):
            raise ValueError(f"--class-order and --shuffle-classes go with --stream split, not with {self.stream}")
        if self.joint and (self.penalty != "none" or self.replay != "none"):
            raise ValueError("--joint sees everything: leave --replay and --penalty out")
        return self


class Evaluate(ClassifierEvaluateConfig):
    """Measure the accuracy on every task after every task again: another data set, split or corruption."""


class Analyze(ClassifierAnalyzeConfig):
    """Look inside continual learning. Without an option: forgetting, and of selective plasticity also its traces."""

    panel: ClassVar[str] = "What to look at"

    forgetting: bool = field(False, "accuracy on every task after every task: matrix, curves, transfer")
    joint: str | None = field(None, "run with --joint on the same tasks, for intransigence", complete="run")
    eligibility: bool = field(False, "eligibility of each layer over time")
    gates: bool = field(False, "gates of each layer over time")
    overlap: bool = field(False, "which busy synapses two tasks share, beside chance")
    sweep_k: bool = field(False, "learn the same tasks again with other strengths of the gate")
    only_with: ClassVar[OnlyWith] = (("sweep_k", (True,), ("k",)),)
    k: tuple[float, ...] = field((0.0, 2.5, 5.0, 7.5, 10.0), "strengths of --sweep-k", panel="How")

    @model_validator(mode="after")
    def _strengths_can_be_swept(self) -> Self:
        for k in self.k:
            if not 0 <= k <= LARGEST_STRENGTH:
                raise ValueError(
                    f"--k {k:g}: the strength of the gate is at least 0 and at most {LARGEST_STRENGTH:.0f}"
                )
        return self


class Render(RenderConfig):
    """Show eligibility and gates of a layer across the tasks, with the accuracies beside them: a GIF and a still."""

    layer: int = field(1, "which layer, from 1", ge=1)
    frame_seconds: float = field(0.35, "seconds per frame", ge=0.02, le=60)
