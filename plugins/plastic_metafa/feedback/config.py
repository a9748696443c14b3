"""The options of the commands of feedback."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, field_validator, model_validator

from plastic_cli import FilmConfig, OnlyWith, field
from plastic_cli.config.classifier import SteppedRateConfig
from plastic_metafa.theta_file import TermKey, read_terms

Kind = Literal[
    "fixed", "direct", "sign", "uniform-sign", "batchwise-sign", "kolen-pollack", "weight-mirror", "symmetric"
]

ONLINE_HIDDEN = (170, 130, 100, 70)
"""Hidden layers of the published network of metafa."""
ONLINE_RATE = 0.003
"""Default learning rate of that network, which learns from one image at a time."""
FEEDBACK_DECAY = 0.001
"""Default decay of W - B for kolen-pollack without weight decay, per step."""


MIRROR_SAMPLES = 16
"""Vectors of noise for each step of weight-mirror."""


def _check_theta(theta: str | None) -> str | None:
    numbers = None if theta is None else as_numbers(theta)
    if numbers is not None:
        return ",".join(str(number) for number in numbers)
    if theta is None or not is_file(theta):
        return theta
    # A run stores the path, and may be resumed from another folder.
    return str(Path(theta).expanduser().absolute())


class Train(SteppedRateConfig):
    """Train a network whose errors return through feedback weights, by the pseudo-gradient or by a meta-learned rule.

    Without --theta the rule is feedback alignment or one of its relatives. With --theta, the local terms of metafa
    change the weights with given strengths, on a whole data set.
    """

    feedback: Kind = field(
        "fixed",
        "how errors reach lower layers: fixed (random weights: feedback alignment), direct (random weights from the"
        " output), sign (random magnitudes with the signs of the weights), uniform-sign (the signs, with one magnitude"
        " for each layer), batchwise-sign (as sign, with new magnitudes at each step), kolen-pollack (feedback"
        " weights change as the weights do), weight-mirror (feedback learns the weights from noise), symmetric (the"
        " weights, as in backprop)",
    )
    feedback_decay: float | None = field(
        None,
        "share of W - B that is lost in each step, with --feedback kolen-pollack (default: learning rate times weight"
        f" decay, or {FEEDBACK_DECAY} without weight decay)",
        ge=0,
        le=1,
        panel="Learning",
    )
    mirror_rate: float = field(
        0.003,
        "how far B moves in each step towards the weights that the noise shows, with --feedback weight-mirror",
        ge=0,
        le=1,
        panel="Learning",
    )
    terms: tuple[TermKey, ...] | None = field(
        None,
        "terms of the rule, by index or name: 0,2,9 or pseudo-gradient,ehebb,oja; MODULE:TERM: a function of your own"
        " (default: the terms of --theta, or 0 without it)",
    )
    theta: Annotated[str | None, AfterValidator(_check_theta)] = field(
        None,
        "strengths of the terms: a run of metafa, by id or name; a theta.toml; or a number for each of --terms, as in"
        " 0.01,-0.05 (default: 1 for the term 0)",
        complete="run",
    )
    images: int = field(0, "number of training images, drawn by the seed; 0: all", ge=0, panel="Data")
    learning_rate: float = field(
        0.1,
        f"learning rate (default with momentum: {SteppedRateConfig.rates['momentum']}; with adam, adamw and selective:"
        f" {SteppedRateConfig.rates['adam']}; with plain sgd and --activation softplus: {ONLINE_RATE}, with --theta:"
        " 1)",
        gt=0,
        search=(1e-4, 1.0, "log"),
        panel="Learning",
    )

    activation: Literal["relu", "softplus"] = field(
        "relu",
        "units of --model mlp; softplus: the network of metafa, with softplus units, no biases, and pixels from 0 to 1."
        " One image per step (its default) and plain sgd then run in compiled code",
        panel="Network",
    )
    initial_weights: Literal["own", "xavier"] = field(
        "own",
        "own: as the network draws them; xavier: uniform with the size of the random feedback weights, and biases 0",
        panel="Network",
    )
    measure_every: int = field(
        0,
        "training images between two measurements; 0: measure at the end of each epoch",
        ge=0,
        panel="Learning",
    )

    controls: ClassVar[Mapping[str, Mapping[str, Any]]] = {"the weights as feedback": {"feedback": "symmetric"}}
    added: ClassVar[Mapping[str, Any]] = {"feedback_decay": None, "mirror_rate": 0.003}
    published_names: ClassVar[Mapping[str, str]] = {
        "fbk": "feedback",
        "mode": "feedback",
        "vec": "terms",
        "init": "initial_weights",
        "architecture": "model",
        "milestones": "rate_drops",
    }
    only_with: ClassVar[OnlyWith] = (
        ("model", ("mlp",), ("activation",)),
        ("activation", ("relu",), ("initial_weights",)),
        ("feedback", ("kolen-pollack",), ("feedback_decay",)),
        ("feedback", ("weight-mirror",), ("mirror_rate",)),
    )

    @field_validator("theta", mode="before")
    @classmethod
    def _numbers_as_text(cls, given: Any) -> Any:
        numbers = given if isinstance(given, list | tuple) else [given]
        if any(isinstance(number, bool) or not isinstance(number, int | float) for number in numbers):
            return given
        return ",".join(str(float(number)) for number in numbers)

    @field_validator("terms", mode="before")
    @classmethod
    def _name_terms(cls, given: Any) -> Any:
        terms = read_terms(given)
        # In the order in which they are typed, which is that of the numbers of --theta.
        return tuple(dict.fromkeys(terms)) if isinstance(terms, tuple) else terms

    @field_validator("terms")
    @classmethod
    def _some_terms(cls, terms: tuple[TermKey, ...] | None) -> tuple[TermKey, ...] | None:
        if terms == ():
            raise ValueError("names no term: give at least one, as in 0,2,9")
        return terms

    @classmethod
    def implied(cls, typed: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the optimizer, the model, softplus units and --theta imply.

        With strengths, the rate of plain gradient descent is 1: the strengths are the rates.
        """
        found = super().implied(typed)
        plain = typed.get("optimizer", "sgd") == "sgd"
        if typed.get("activation") == "softplus":
            found.update(hidden=ONLINE_HIDDEN, batch_size=1)
            if plain:
                found["learning_rate"] = ONLINE_RATE
        if typed.get("theta") is not None and plain:
            found["learning_rate"] = 1.0
        return found

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.theta is None and self.terms not in (None, (0,)):
            raise ValueError("--terms needs the strengths of the terms: add --theta")
        numbers = None if self.theta is None else as_numbers(self.theta)
        terms = self.terms or (0,)
        if numbers is not None and len(numbers) != len(terms):
            listed = ",".join(map(str, terms))
            raise ValueError(
                f"--theta {self.theta} has {len(numbers)} numbers and --terms {listed} names {len(terms)}: give as many"
                " numbers as terms"
            )
        if self.measure_every % self.batch_size:
            raise ValueError("--measure-every must be a multiple of --batch-size")
        return self


class Render(FilmConfig):
    """Render the weights of the first layer and the accuracy over training as a film."""

    units: int = field(36, "number of hidden units to show", ge=1, panel="Film")


def as_numbers(text: str) -> tuple[float, ...] | None:
    """Return the numbers of a text such as "0.01,-0.05", or None for another text."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        return None


def is_file(text: str) -> bool:
    """Say whether `--theta` names a file, not a run."""
    return text.endswith(".toml") or "/" in text or "\\" in text
