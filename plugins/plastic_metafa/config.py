"""The options of metafa's commands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, field_validator, model_validator

from plastic_cli import AnalyzeConfig, EvaluateConfig, FilmConfig, TrainConfig, UserError, field
from plastic_cli.config.classifier import LayerSizes
from plastic_cli.config.describe import is_switch
from plastic_cli.config.unused import matches
from plastic_metafa.theta_file import Feedback, TermKey, read_terms, read_theta, sort_terms

if TYPE_CHECKING:
    from plastic_cli import Run

EPISODES = "Episodes"
META = "Meta-learning"


def _absolute(theta: Path | None) -> Path | None:
    # A run stores the path, and may be resumed from another folder.
    return None if theta is None else theta.absolute()


ThetaFile = Annotated[Path | None, AfterValidator(_absolute)]


class Train(TrainConfig):
    """Meta-learn a plasticity rule: the strengths theta of local terms, for networks with random feedback.

    Each episode adapts a new random network to a few classes, one image at a time. The loss on other images of these
    classes is then differentiated through the whole adaptation, and theta takes one step along this gradient.
    """

    theta: ThetaFile = field(None, "start from the strengths in this theta.toml (a run writes one)")
    terms: tuple[TermKey, ...] = field(
        (0, 2, 9),
        "terms of the rule, by index or name: 0,2,9 or pseudo-gradient,ehebb,oja; all: the ten published terms;"
        " MODULE:TERM: a function of your own",
    )
    feedback: Feedback = field(
        "fixed",
        "how errors reach lower layers: fixed (random weights B), symmetric (transposed W, as in backprop),"
        " direct (random weights from the output), sign (random magnitudes with the signs of W)",
    )
    hidden: LayerSizes = field((170, 130, 100, 70), "units of each hidden layer", panel="Network")
    outputs: Literal["all", "episode"] = field(
        "all",
        "output units: one per class of the data set (published), or one per class of the episode",
        panel="Network",
    )

    dataset: str = field(
        "digits",
        "digits, mnist, fashion, kmnist, emnist (published), emnist-letters, emnist-digits, emnist-mnist,"
        " emnist-byclass, emnist-bymerge, cifar10, or a folder with your own data set",
        panel="Data",
        complete="dataset",
    )
    image_size: int = field(0, "resize images to this many pixels a side; 0: keep their size", ge=0, panel="Data")
    held_out_classes: int = field(
        5, "number of classes kept for the test; 0: test on other images of the same classes", ge=0, panel="Data"
    )

    ways: int = field(5, "classes per episode", ge=1, panel=EPISODES)
    shots: int = field(50, "training images per class, learned one at a time", ge=1, panel=EPISODES)
    queries: int = field(10, "test images per class (queries)", ge=1, panel=EPISODES)
    reference_sampling: bool = field(
        False,
        "draw episodes as the published program does: from the test split, always the same images of a class, and"
        " classes with replacement (a class may occur twice)",
        panel=EPISODES,
    )

    episodes: int = field(600, "number of meta-learning steps", ge=1, panel=META)
    batch_size: int = field(1, "episodes per step; their gradients are averaged", ge=1, panel=META)
    learning_rate: float = field(1e-3, "learning rate of meta-learning: of Adam, which changes theta", gt=0, panel=META)
    l1: float = field(0.0, "weight of the L1 penalty on theta", ge=0, panel=META)
    initial_theta: float = field(
        1e-3, "initial strength of the pseudo-gradient: theta_0; the other terms start at 0", panel=META
    )

    test_episodes: int = field(100, "episodes of the final test, for the rule and its controls", ge=1, panel="Test")

    controls: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "backpropagation": {"terms": (0,), "feedback": "symmetric"},
        "feedback alignment": {"terms": (0,), "feedback": "fixed"},
    }
    renamed: ClassVar[Mapping[str, str]] = {
        "meta_lr": "learning_rate",
        "initial_rate": "initial_theta",
        "tasks": "batch_size",
    }
    published_names: ClassVar[Mapping[str, str]] = {
        "database": "dataset",
        "m": "ways",
        "k": "shots",
        "q": "queries",
        "lamb": "l1",
        "lr_meta": "learning_rate",
        "a": "initial_theta",
        "vec": "terms",
        "fbk": "feedback",
        "dim": "image_size",
        "gpu_mode": "device",
        "res": "runs",
        "test_name": "name",
    }

    @field_validator("terms", mode="before")
    @classmethod
    def _name_terms(cls, given: Any) -> Any:
        terms = read_terms(given)
        return sort_terms(terms) if isinstance(terms, tuple) else terms

    @field_validator("terms")
    @classmethod
    def _some_terms(cls, terms: tuple[TermKey, ...]) -> tuple[TermKey, ...]:
        if not terms:
            raise ValueError("names no term: give at least one, as in 0,2,9")
        return terms

    @classmethod
    def unused_options(cls, chosen: Mapping[str, Any]) -> dict[str, str]:
        """Return the options that have no effect given `chosen`, with the reason."""
        found = super().unused_options(chosen)
        try:
            terms = read_terms(chosen.get("terms"))
        except UserError:
            # The check of the values says what is wrong.
            terms = None
        if chosen.get("theta"):
            found["initial_theta"] = "with --theta, which holds the strengths of all terms"
        elif isinstance(terms, tuple) and 0 not in terms:
            found["initial_theta"] = "without the pseudo-gradient, the term 0, in --terms"
        return found

    @classmethod
    def implied(cls, typed: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a theta.toml and the reference sampling imply.

        A theta.toml implies its terms and its feedback. The reference sampling implies that no class is held out.
        """
        implied: dict[str, Any] = {}
        if typed.get("reference_sampling") is True:
            implied["held_out_classes"] = 0
        # A stored configuration has both, and its file may no longer exist.
        if typed.get("theta") and not {"terms", "feedback"} <= typed.keys():
            learned = read_theta(Path(str(typed["theta"])))
            implied.update(terms=tuple(learned.theta), feedback=learned.feedback)
        return implied

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.reference_sampling and self.held_out_classes:
            raise ValueError("--reference-sampling draws from all classes: it needs --held-out-classes 0")
        return self


class Evaluate(EvaluateConfig):
    """Adapt new random networks with a learned theta, and compare with backprop and feedback alignment.

    Both controls use their best learning rate, which is chosen on other episodes.
    """

    theta: ThetaFile = field(None, "use this theta.toml instead of the one of the run")
    dataset: str | None = field(None, "data set (default: as in training)", panel="Data", complete="dataset")
    classes: Literal["held-out", "seen", "all"] | None = field(
        None, "classes held out from training, seen in training, or all (default: held-out if any)", panel="Data"
    )
    ways: int | None = field(None, "classes per episode (default: as in training)", ge=1, panel=EPISODES)
    shots: int | None = field(None, "training images per class (default: as in training)", ge=1, panel=EPISODES)
    queries: int | None = field(None, "test images per class (default: as in training)", ge=1, panel=EPISODES)
    epochs: int = field(1, "passes over the training images of an episode", ge=1, panel=EPISODES)
    hidden: LayerSizes | None = field(None, "units of each hidden layer (default: as in training)", panel="Network")
    outputs: Literal["all", "episode"] | None = field(None, "output units (default: as in training)", panel="Network")
    episodes: int = field(100, "number of episodes", ge=1, panel=EPISODES)

    renamed: ClassVar[Mapping[str, str]] = {"passes": "epochs"}


class Analyze(AnalyzeConfig):
    """Analyze a meta-learned rule. Without options: every analysis."""

    panel: ClassVar[str] = "Analyses"

    theta: bool = field(False, "theta over the episodes, and its final values")
    accuracy: bool = field(False, "accuracy and loss over the episodes, as moving averages")
    angles: bool = field(False, "angle between the errors by this feedback and by backprop, for each layer")
    orthonormality: bool = field(False, "distance E_W of each layer from the fixed point of Oja's rule")
    terms: bool = field(False, "contribution of each term to the weight change, and the accuracy without the term")
    window: int = field(30, "episodes per moving average", ge=1, panel="Settings")
    episodes: int = field(50, "episodes to measure the terms on", ge=2, panel="Settings")

    @classmethod
    def unused_options(cls, chosen: Mapping[str, Any]) -> dict[str, str]:
        """Return the options that have no effect: those of analyses that are not chosen, if others are."""
        found = super().unused_options(chosen)
        analyses = [name for name, info in cls.model_fields.items() if is_switch(info)]
        picked = {name for name in analyses if matches(chosen.get(name, False), True)} or {*analyses}
        if "terms" not in picked:
            found["episodes"] = "without --terms"
        if picked.isdisjoint({"accuracy", "angles", "orthonormality"}):
            found["window"] = "without --accuracy, --angles or --orthonormality"
        return found


class Render(FilmConfig):
    """Render theta, accuracy and angles over the episodes as a film."""

    frames: int = field(60, "number of frames", ge=2, le=600, panel="Film")


def trained_as(run: Run) -> Train:
    """Return the configuration of a trained run."""
    return Train.from_values(run.config, source=f"run {run.id}")
