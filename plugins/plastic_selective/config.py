"""The options of the four verbs of selective plasticity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import model_validator

from plastic_cli import (
    ClassifierAnalyzeConfig,
    ClassifierEvaluateConfig,
    ClassifierTrainConfig,
    FilmConfig,
    OnlyWith,
    field,
)
from plastic_cli.config.classifier import CHANNELS, DECAY, DECAY_HELP, MODEL_HELP, LayerSizes, Model

LARGEST_STRENGTH = 1e6
"""The largest plasticity k that the optimizer accepts."""
DESCENT_RATE = 0.01
"""Default learning rate of steps along the gradient. Adam's steps have the default of `Train.learning_rate`."""


class Train(ClassifierTrainConfig):
    """Train on several tasks in sequence with an optimizer that has a gate for each synapse, or with a control."""

    optimizer: Literal["selective", "sgd", "momentum", "adam", "adamw"] = field(
        "selective",
        "selective (selective plasticity: a gate for each synapse scales the steps of --base), or a control without"
        " gates: sgd, momentum, adam or adamw",
    )
    base: Literal["adam", "sgd"] = field(
        "adam",
        "optimizer whose steps the gates scale, with --optimizer selective: adam, or sgd as in the published code",
    )
    plasticity_k: float = field(
        5.0,
        "strength k of the gate; 0: all gates are 1; 10: the gate can reach its lowest value, 0.1",
        ge=0,
        le=LARGEST_STRENGTH,
    )
    gating: Literal["selective", "uniform"] = field(
        "selective",
        "selective: a gate for each synapse; uniform (a control): each synapse gets the mean gate of its tensor",
    )
    threshold_percentile: float = field(
        75,
        "synapses with an eligibility (size of recent gradients) above this percentile of their tensor are busy (base"
        " adam)",
        ge=0,
        le=100,
    )
    adaptive_threshold: bool = field(
        True, "compute the percentile again every 100 steps; off: it is fixed at the end of the warm-up (base adam)"
    )
    trace_decay: float = field(
        0.99, "decay rate of the eligibility, the running mean of the size of the gradient (base sgd)", ge=0, lt=1
    )
    second_moment_decay: float = field(0.999, "decay rate of the eligibility (base adam): Adam's beta 2", ge=0, lt=1)
    warmup_share: float = field(
        0.1, "steps until the gate has its full effect, as a share of the first task's steps", ge=0, le=1
    )
    warmup_steps: int | None = field(
        None, "steps until the gate has its full effect (published README: 1000, code: 100)", ge=0
    )

    stream: Literal["split", "permuted", "rotated"] = field(
        "split",
        "how the tasks differ: split: in their classes; permuted: in the order of the pixels; rotated: in the angle",
        panel="Tasks",
    )
    scenario: Literal["class", "domain", "task"] = field(
        "class",
        "what the network predicts: class: one of the classes of all tasks; domain: the class within the task, without"
        " knowing the task; task: the class within the task, and it knows the task",
        panel="Tasks",
    )
    tasks: int = field(2, "number of tasks", ge=2, le=1000, panel="Tasks")
    class_order: tuple[int, ...] = field((), "classes in the order of their tasks (default: by number)", panel="Tasks")
    shuffle_classes: bool = field(False, "draw the order of the classes from the seed", panel="Tasks")
    max_degrees: float = field(
        180.0, "with --stream rotated: task t of n is rotated by (t - 1) / n of this angle", gt=0, le=360, panel="Tasks"
    )
    active: Literal["all", "seen"] = field(
        "all",
        "outputs that the softmax includes, with --scenario class: all, or seen (those of the tasks so far)",
        panel="Tasks",
    )
    joint: bool = field(
        False, "train on each task together with all earlier tasks: the upper bound of the accuracy", panel="Tasks"
    )

    replay: Literal["none", "reservoir", "class-balanced", "fifo"] = field(
        "reservoir",
        "how the replay buffer is filled: reservoir: a random sample of all images so far; class-balanced: the same"
        " number of places for each class; fifo: first in, first out, and replayed images are stored again, as"
        " published; none: no replay",
        panel="Replay",
    )
    buffer_size: int = field(200, "number of images in the replay buffer", ge=1, panel="Replay")
    replay_share: float = field(0.5, "share of replayed images in a batch", ge=0, lt=1, panel="Replay")

    penalty: Literal["none", "ewc", "si"] = field(
        "none",
        "a control: ewc (online elastic weight consolidation), si (synaptic intelligence), or none",
        panel="Penalty",
    )
    penalty_strength: float = field(100.0, "strength of the penalty: lambda of EWC or c of SI", ge=0, panel="Penalty")
    ewc_decay: float = field(1.0, "factor on the old importance at the end of each task", ge=0, le=1, panel="Penalty")
    fisher_samples: int = field(1000, "number of images from which EWC computes importance", ge=1, panel="Penalty")
    si_damping: float = field(0.1, "damping xi of SI", gt=0, panel="Penalty")

    model: Model = field("mlp", f"{MODEL_HELP}; --penalty ewc needs mlp", panel="Network")
    hidden: LayerSizes = field(
        (256, 256), "units of each hidden layer; with --model cnn, channels of each convolution", panel="Network"
    )
    learning_rate: float = field(
        0.001,
        f"learning rate (default with sgd, momentum or base sgd: {DESCENT_RATE})",
        gt=0,
        panel="Learning",
        search=(1e-4, 0.1, "log"),
    )
    momentum: float = field(0.9, "momentum of --optimizer momentum", ge=0, lt=1, panel="Learning")
    weight_decay: float = field(0.0, DECAY_HELP, ge=0, panel="Learning")
    batch_size: int = field(64, "new images per step", ge=1, panel="Learning")
    epochs: int = field(5, "passes over the images of a task", ge=1, panel="Learning")
    iterations: int = field(0, "steps per task, instead of --epochs; 0: use --epochs", ge=0, panel="Learning")

    controls: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        **{f"plain {name}": {"optimizer": name} for name in ("sgd", "momentum", "adam", "adamw")},
        "one gate for each tensor": {"optimizer": "selective", "gating": "uniform"},
        "all tasks together": {"joint": True},
    }
    added: ClassVar[Mapping[str, Any]] = {"model": "mlp", "weight_decay": 0.0}
    published_names: ClassVar[Mapping[str, str]] = {"replay_buffer": "buffer_size"}
    only_with: ClassVar[OnlyWith] = (
        (
            "optimizer",
            ("selective",),
            (
                *("base", "plasticity_k", "gating", "threshold_percentile", "adaptive_threshold"),
                *("trace_decay", "warmup_share", "warmup_steps"),
            ),
        ),
        ("optimizer", ("selective", "adam", "adamw"), ("second_moment_decay",)),
        ("model", ("mlp", "cnn"), ("hidden",)),
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
        """Return the values that `typed` implies for other options.

        A step along the gradient has another learning rate than a step of Adam, and joint training has no replay.
        """
        optimizer, base = typed.get("optimizer", "selective"), typed.get("base", "adam")
        descends = optimizer in ("sgd", "momentum") or (optimizer == "selective" and base == "sgd")
        implied: dict[str, Any] = {"learning_rate": DESCENT_RATE} if descends else {}
        if optimizer == "adamw":
            implied["weight_decay"] = DECAY
        if typed.get("model") == "cnn":
            implied["hidden"] = CHANNELS
        if typed.get("joint") is True:
            implied["replay"] = "none"
        if "epochs" in typed:
            implied["iterations"] = 0
        if "warmup_share" in typed:
            implied["warmup_steps"] = None
        return implied

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if self.stream != "split" and (self.class_order or self.shuffle_classes):
            raise ValueError(f"--class-order and --shuffle-classes need --stream split, not {self.stream}")
        if self.joint and (self.penalty != "none" or self.replay != "none"):
            raise ValueError("--joint already trains on all tasks: remove --replay and --penalty")
        return self


class Evaluate(ClassifierEvaluateConfig):
    """Measure the accuracy on all tasks after training on each task, on another data set, split or corruption."""


class Analyze(ClassifierAnalyzeConfig):
    """Analyze continual learning. Without an option: forgetting, and for selective plasticity eligibility and gates."""

    panel: ClassVar[str] = "Analyses"

    forgetting: bool = field(
        False, "accuracy on all tasks after training on each task: matrix, curves, transfer and forgetting"
    )
    joint: str | None = field(
        None,
        "run with --joint on the same tasks, to measure intransigence: the accuracy of joint training minus that of"
        " this run",
        complete="run",
    )
    eligibility: bool = field(False, "eligibility of each layer over time")
    gates: bool = field(False, "gates of each layer over time")
    overlap: bool = field(False, "share of busy synapses that two tasks have in common, compared with chance")
    sweep_k: bool = field(False, "train again on the same tasks with other strengths k of the gate")
    only_with: ClassVar[OnlyWith] = (("sweep_k", (True,), ("k",)),)
    k: tuple[float, ...] = field((0.0, 2.5, 5.0, 7.5, 10.0), "strengths k of the gate for --sweep-k", panel="Settings")

    @model_validator(mode="after")
    def _check_strengths(self) -> Self:
        for k in self.k:
            if not 0 <= k <= LARGEST_STRENGTH:
                raise ValueError(f"--k {k:g}: the strength must be from 0 to {LARGEST_STRENGTH:.0f}")
        return self


class Render(FilmConfig):
    """Render the eligibility and gates of a layer during training, with the accuracies: a film and its last frame."""

    layer: int = field(1, "number of the layer, from 1", ge=1, panel="Film")
