"""The four verbs of meta-learned plasticity."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import field_validator, model_validator

from plastic_cli import AnalyzeConfig, Config, EvaluateConfig, RenderConfig, Run, TrainConfig, field
from plastic_metafa.theta_file import Feedback, read_theta, term_number

EPISODES = "Episodes"
META = "Meta-learning"


class InEpisodes(Config):
    """What training and evaluation can be told about the rule and its file."""

    theta: Path | None = field(None, "theta.toml of a run, edited by hand or not, to begin with", panel="Rule")

    @field_validator("theta", mode="after")
    @classmethod
    def _absolute(cls, theta: Path | None) -> Path | None:
        # A run stores it, and may be resumed from another folder.
        return None if theta is None else theta.absolute()

    @field_validator("hidden", check_fields=False)
    @classmethod
    def _whole_layers(cls, hidden: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if hidden is not None and (not hidden or min(hidden) < 1):
            raise ValueError("needs at least one layer of at least one unit, as in 170,130,100,70")
        return hidden


class Train(InEpisodes, TrainConfig):
    """Meta-learn the strengths theta of plasticity terms, so that networks learn despite random feedback.

    Each episode adapts a freshly drawn network to a few classes, one image at a time; theta follows the gradient of the
    loss behind it, through the whole adaptation.
    """

    terms: tuple[int, ...] = field(
        (0, 2, 9),
        "terms of the rule by index or name, as in 0,2,9 or pseudo-gradient,ehebb,oja; all: the ten published",
        panel="Rule",
    )
    feedback: Feedback = field(
        "fixed",
        "how errors reach lower layers: fixed (random B), symmetric (W transposed: backprop), direct (random, from the"
        " output), sign (random, with the signs of W)",
        panel="Rule",
    )
    hidden: tuple[int, ...] = field((170, 130, 100, 70), "units of each hidden layer", panel="Rule")
    outputs: Literal["all", "episode"] = field(
        "all", "output units: all classes of the data set, as published, or the episode's", panel="Rule"
    )

    dataset: str = field(
        "digits",
        "digits, mnist, fashion, kmnist, emnist (as published), emnist-letters, emnist-digits, emnist-mnist,"
        " emnist-byclass, emnist-bymerge, cifar10, or a folder with your own data set",
        panel="Data",
        complete="dataset",
    )
    image_size: int = field(0, "bring images to this many pixels a side; 0: as they are", ge=0, panel="Data")
    held_out_classes: int = field(
        5, "classes that meta-learning never sees, for the test; 0: the test is on other images", ge=0, panel="Data"
    )

    ways: int = field(5, "classes of an episode", ge=1, panel=EPISODES)
    shots: int = field(50, "images of each class to learn from, one at a time", ge=1, panel=EPISODES)
    queries: int = field(10, "other images of each class to be asked about", ge=1, panel=EPISODES)
    reference_sampling: bool = field(
        False,
        "draw as the published program does: from the test split, always the same images of a class, and classes with"
        " replacement, so that one may come twice",
        panel=EPISODES,
    )

    episodes: int = field(600, "meta-learning steps", ge=1, panel=META)
    tasks: int = field(1, "episodes whose mean gradient makes a step", ge=1, panel=META)
    meta_lr: float = field(1e-3, "Adam's learning rate for theta", gt=0, panel=META)
    l1: float = field(0.0, "weight of the sum of |theta| in the loss", ge=0, panel=META)
    initial_rate: float = field(1e-3, "first strength of the pseudo-gradient; all others begin at 0", panel=META)

    test_episodes: int = field(100, "episodes of the test at the end, and of its controls", ge=1, panel="Test")

    @field_validator("terms", mode="before")
    @classmethod
    def _name_terms(cls, given: Any) -> Any:
        words = [part for part in given.split(",") if part.strip()] if isinstance(given, str) else given
        if not isinstance(words, list | tuple):
            return given
        if [str(word).strip().lower() for word in words] == ["all"]:
            return tuple(range(10))
        return tuple(sorted({term_number(word) for word in words}))

    @field_validator("terms")
    @classmethod
    def _some_terms(cls, terms: tuple[int, ...]) -> tuple[int, ...]:
        if not terms:
            raise ValueError("names no term: give at least one, as in 0,2,9")
        return terms

    @classmethod
    def implied(cls, typed: Mapping[str, Any]) -> dict[str, Any]:
        """A file with theta means its terms and its feedback; the reference's sampling that no class is held out."""
        meant: dict[str, Any] = {}
        if str(typed.get("reference_sampling", False)) == "True":
            meant["held_out_classes"] = 0
        # A stored configuration says both, and its file may be gone.
        if typed.get("theta") and not {"terms", "feedback"} <= typed.keys():
            learned = read_theta(Path(str(typed["theta"])))
            meant.update(terms=tuple(learned.theta), feedback=learned.feedback)
        return meant

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.reference_sampling and self.held_out_classes:
            raise ValueError("--reference-sampling draws from all classes: it goes with --held-out-classes 0")
        return self


class Evaluate(InEpisodes, EvaluateConfig):
    """Adapt fresh networks with a learned theta, beside backprop and feedback alignment at their best rates."""

    dataset: str | None = field(None, "data set (default: the one of training)", panel="Data", complete="dataset")
    classes: Literal["held-out", "seen", "all"] | None = field(
        None, "held-out, seen in meta-learning, or all (default: held-out where there are any)", panel="Data"
    )
    ways: int | None = field(None, "classes of an episode (default: as in training)", ge=1, panel=EPISODES)
    shots: int | None = field(None, "images of each class to learn from (as in training)", ge=1, panel=EPISODES)
    queries: int | None = field(None, "images of each class to be asked about", ge=1, panel=EPISODES)
    passes: int = field(1, "how often an episode's images are learned, for longer streams", ge=1, panel=EPISODES)
    hidden: tuple[int, ...] | None = field(None, "units of each hidden layer (default: as in training)", panel="Rule")
    outputs: Literal["all", "episode"] | None = field(None, "output units (default: as in training)", panel="Rule")
    episodes: int = field(100, "episodes", ge=1, panel=EPISODES)


class Analyze(AnalyzeConfig):
    """Look inside a meta-learned rule. Without an option: everything."""

    panel: ClassVar[str] = "What to look at"

    theta: bool = field(False, "how theta developed, and which terms are left")
    accuracy: bool = field(False, "accuracy and loss over the episodes, as a moving average")
    angles: bool = field(False, "angles between the errors by this feedback and by backprop, for each layer")
    orthonormality: bool = field(False, "how far each layer is from where Oja's rule comes to rest")
    terms: bool = field(False, "each term's share of the weight change, and the accuracy without it")
    window: int = field(30, "episodes of the moving average", ge=1, panel="How")
    episodes: int = field(50, "episodes to measure the terms with", ge=2, panel="How")


class Render(RenderConfig):
    """Show theta and the angles as they develop, as a film."""

    frames: int = field(60, "frames of the film", ge=2, le=600)


def train(config: Train, run: Run) -> None:
    """Meta-learn; the headline is `test/accuracy`, of fresh networks on queries of fresh episodes."""
    from plastic_metafa.meta_learning import meta_learn

    meta_learn(config, run)


def evaluate(config: Evaluate, run: Run) -> None:
    """Adapt fresh networks with what was learned."""
    from plastic_metafa.evaluation import evaluate_rule

    evaluate_rule(config, run)


def analyze(config: Analyze, run: Run) -> None:
    """Look inside a meta-learned rule."""
    from plastic_metafa.analysis import analyze_rule

    analyze_rule(config, run)


def render(config: Render, run: Run) -> None:
    """Show how a rule was learned."""
    from plastic_metafa.rendering import render_learning

    render_learning(config, run)
