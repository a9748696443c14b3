"""The options of MPN, one model for each verb."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import field_validator, model_validator

from plastic_cli import AnalyzeConfig, Config, EvaluateConfig, OnlyWith, RenderConfig, TrainConfig, field
from plastic_cli.distribution import install_command
from plastic_mpn.environments.options import read_options, split_options

IMPLIED: dict[str, dict[str, Any]] = {
    "a2c": {
        "env": "plastic/GoNogo-v0",
        "hidden_dim": 128,
        "input_projection": 10,
        "eta": 0.3,
        "lambda_decay": 0.95,
        "learn_eta": True,
        "learn_lambda": True,
        "learning_rate": 1e-3,
        "gamma": 0.98,
        "num_envs": 16,
        "total_steps": 500_000,
        "value_coefficient": 0.5,
        "normalise_advantages": True,
    },
    "supervised": {
        "env": "plastic/SimpleIntegration-v0",
        "hidden_dim": 100,
        "learn_eta": True,
        "learn_lambda": True,
        "draw_eta": True,
        "bias": False,
        "lambda_decay": 0.95,
        "lambda_max": 0.95,
    },
}
"""What an algorithm means for options that are not typed, with which it learns the task that it was published on."""


class EnvironmentConfig(Config):
    """What every command that makes an environment can be told about it."""

    env_options: tuple[str, ...] = field((), "options of the environment, as in delay=20,sigma=1.0", panel="Task")
    max_episode_steps: int = field(0, "end episodes here; 0: the environment's own limit", ge=0, panel="Task")

    @property
    def step_limit(self) -> int | None:
        """The limit as Gymnasium takes it: None for the environment's own."""
        return self.max_episode_steps or None

    @model_validator(mode="before")
    @classmethod
    def _split_options(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and isinstance(values.get("env_options"), str):
            return {**values, "env_options": split_options(values["env_options"])}
        return values

    @field_validator("env", check_fields=False)
    @classmethod
    def _name_the_version(cls, env: str | None) -> str | None:
        # Importing Gymnasium takes time, and an id with a version is whole.
        if env is None or re.search(r"-v\d+$", env):
            return env
        from plastic_mpn.environments.vector import versioned_id

        return versioned_id(env)

    @model_validator(mode="after")
    def _options_are_pairs(self) -> Self:
        read_options(self.env_options)
        return self


class TrainedAgentConfig(EnvironmentConfig):
    """What every command that lets a trained agent play can be told; what is not told is as in training."""

    env: str | None = field(None, "another environment with the same sizes (default: its own)", panel="Task")
    checkpoint: str = field("best", "best, final, one of the periodic ones, or a file", panel="Task")


class Train(EnvironmentConfig, TrainConfig):
    """Train an agent whose memory is a multi-plasticity network: Q-learning, actor-critic, or the published tasks."""

    device: Literal["auto", "cpu", "cuda"] = field(
        "cpu", "where to compute; networks of this size are fastest on the cpu, where the kernels are", panel="Run"
    )

    algorithm: Literal["dqn", "a2c", "supervised"] = field(
        "dqn", "dqn, a2c, or supervised (integration tasks); the last two imply a task and settings"
    )
    env: str = field("CartPole-v1", "id of a Gymnasium environment: a vector to see, a number of actions", panel="Task")

    core: Literal["mpn", "mpn-pre", "mpn-post", "mpn-additive", "mpn-frozen", "rnn", "gru", "lstm", "mlp"] = field(
        "mpn",
        "network: mpn, its variants mpn-pre, mpn-post and mpn-additive, and the controls mpn-frozen (M stays 0), rnn,"
        " gru, lstm, mlp (two layers, no memory)",
        panel="Network",
    )
    hidden_dim: int = field(64, "units", ge=1, le=65536, panel="Network")
    layers: int = field(1, "layers of the core", ge=1, le=64, panel="Network")
    input_projection: int = field(
        0, "see the input through a fixed random affine map to this many dimensions; 0: as it is", ge=0, panel="Network"
    )
    eta: float = field(0.05, "rate of plasticity, of any sign; where it is learned, its first value", panel="Network")
    draw_eta: bool = field(False, "draw the first eta between -sqrt(3) and sqrt(3), as published", panel="Network")
    lambda_decay: float = field(
        0.9, "what M keeps from step to step; where it is learned, its first value", ge=0, le=1, panel="Network"
    )
    lambda_max: float = field(0.99, "largest lambda where it is learned", ge=0, le=1, panel="Network")
    modulation_bound: float = field(0.0, "largest magnitude of a modulation; 0: no bound", ge=0, panel="Network")
    learn_eta: bool = field(False, "learn eta (with sequences, a2c or supervised)", panel="Network")
    learn_lambda: bool = field(False, "learn lambda (with sequences, a2c or supervised)", panel="Network")
    activation: Literal["tanh", "relu", "sigmoid", "linear"] = field("tanh", "of an mpn", panel="Network")
    bias: bool = field(True, "let an mpn's units learn a bias", panel="Network")

    learning_rate: float = field(1e-3, "Adam's learning rate", gt=0, panel="Learning", search=(1e-4, 1e-2, "log"))
    gamma: float = field(0.99, "discount of later rewards", ge=0, le=1, panel="Learning")
    gradient_clip: float = field(10.0, "largest norm of the gradient", gt=0, panel="Learning")
    batch_size: int = field(64, "transitions per gradient step (dqn) or trials (supervised)", ge=1, panel="Learning")
    total_steps: int = field(
        0, "environment steps in all (a2c: 500000); 0: dqn ends with --num-episodes alone", ge=0, panel="Learning"
    )
    num_envs: int = field(1, "environments side by side (dqn, a2c)", ge=1, le=4096, panel="Learning")

    num_episodes: int = field(500, "episodes to learn from", ge=1, panel="dqn")
    epsilon_start: float = field(1.0, "probability of a random action at first", ge=0, le=1, panel="dqn")
    epsilon_end: float = field(0.01, "and at last", ge=0, le=1, panel="dqn")
    epsilon_decay: float = field(0.995, "factor per episode", gt=0, le=1, panel="dqn")
    buffer_size: int = field(10_000, "transitions that are remembered", ge=1, panel="dqn")
    learning_starts: int = field(64, "transitions before the first gradient step", ge=1, panel="dqn")
    train_every: int = field(1, "transitions per gradient step", ge=1, panel="dqn")
    tau: float = field(
        0.005, "share by which the target network follows at every gradient step; 0: copies", ge=0, le=1, panel="dqn"
    )
    target_every: int = field(10, "episodes between copies into the target network, with --tau 0", ge=1, panel="dqn")
    double_q: bool = field(True, "let the network, not its target, choose the next action's value", panel="dqn")
    replay: Literal["states", "sequences"] = field(
        "states", "states: replay with the stored state (published); sequences: go back through time", panel="dqn"
    )
    burn_in: int = field(8, "steps that only bring the state up to date, with sequences", ge=0, panel="dqn")
    sequence_length: int = field(16, "steps that are learned from, with sequences", ge=1, panel="dqn")

    rollout: int = field(50, "steps between updates; gradients go back as far", ge=1, panel="a2c")
    entropy_coefficient: float = field(0.01, "weight of the policy's entropy", ge=0, panel="a2c")
    value_coefficient: float = field(1.0, "weight of the value's loss", ge=0, panel="a2c")
    gae_lambda: float = field(1.0, "1: n-step returns; below: generalised advantages", ge=0, le=1, panel="a2c")
    normalise_advantages: bool = field(False, "bring advantages to mean 0 and deviation 1", panel="a2c")

    classes: int = field(2, "classes of the integration task", ge=2, panel="supervised")
    steps: int = field(20, "steps of a trial, the last of them the go signal", ge=2, panel="supervised")
    delay: int = field(0, "steps of silence before the go signal", ge=0, panel="supervised")
    context: Literal["retrospective", "prospective"] = field(
        "retrospective", "whether the context comes behind or before the stimulus", panel="supervised"
    )
    readout_only: bool = field(False, "learn the readout alone: the core stays as it is drawn", panel="supervised")
    input_noise: float = field(0.1, "expected norm of the noise on an input", ge=0, panel="supervised")
    l1: float = field(1e-4, "weight of the sum of magnitudes of what is learned", ge=0, panel="supervised")
    minimum_batches: int = field(2000, "never stop before", ge=1, panel="supervised")
    maximum_batches: int = field(20_000, "always stop here", ge=1, panel="supervised")
    target_accuracy: float = field(0.98, "stop at this accuracy", gt=0, le=1, panel="supervised")

    evaluate_every: int = field(10, "episodes (dqn) or updates (a2c) between evaluations", ge=1, panel="Evaluation")
    evaluation_episodes: int = field(10, "greedy episodes by which the best is chosen", ge=1, panel="Evaluation")
    checkpoint_every: int = field(100, "keep the network this often besides", ge=1, panel="Evaluation")
    test_episodes: int = field(100, "greedy episodes with fresh seeds at the end", ge=1, panel="Evaluation")

    only_with: ClassVar[OnlyWith] = (
        (
            "algorithm",
            ("dqn",),
            (
                *("num_episodes", "epsilon_start", "epsilon_end", "epsilon_decay", "buffer_size", "learning_starts"),
                *("train_every", "tau", "target_every", "double_q", "replay", "burn_in", "sequence_length"),
            ),
        ),
        (
            "algorithm",
            ("a2c",),
            ("rollout", "entropy_coefficient", "value_coefficient", "gae_lambda", "normalise_advantages"),
        ),
        (
            "algorithm",
            ("supervised",),
            (
                *("classes", "steps", "delay", "context", "readout_only", "input_noise", "l1"),
                *("minimum_batches", "maximum_batches", "target_accuracy"),
            ),
        ),
        ("algorithm", ("dqn", "supervised"), ("batch_size",)),
        (
            "algorithm",
            ("dqn", "a2c"),
            (
                *("gamma", "total_steps", "num_envs"),
                *("evaluate_every", "evaluation_episodes", "checkpoint_every", "test_episodes"),
            ),
        ),
        ("replay", ("sequences",), ("burn_in", "sequence_length")),
        ("tau", (0,), ("target_every",)),
        ("readout_only", (False,), ("learn_eta", "learn_lambda")),
        (
            "core",
            ("mpn", "mpn-pre", "mpn-post", "mpn-additive"),
            ("eta", "draw_eta", "lambda_decay", "lambda_max", "modulation_bound", "learn_eta", "learn_lambda"),
        ),
        ("core", ("mpn", "mpn-pre", "mpn-post", "mpn-additive", "mpn-frozen"), ("activation", "bias")),
    )

    @classmethod
    def implied(cls, typed: Mapping[str, Any]) -> dict[str, Any]:
        """An algorithm means settings of its own, --target-every a target that is copied, a fixed core a fixed eta."""
        meant = dict(IMPLIED.get(str(typed.get("algorithm")), {}))
        if "target_every" in typed:
            meant["tau"] = 0.0
        if typed.get("core") == "mpn-frozen" or typed.get("readout_only"):
            meant.update(learn_eta=False, learn_lambda=False)
        if typed.get("readout_only"):
            # As published.
            meant.update(eta=1.0, draw_eta=False)
        return meant

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.algorithm == "dqn" and self.replay == "states" and (self.learn_eta or self.learn_lambda):
            raise ValueError(
                "--learn-eta and --learn-lambda need gradients through time: add --replay sequences or --algorithm a2c"
            )
        if self.algorithm == "dqn" and self.buffer_size < self.batch_size:
            raise ValueError("--buffer-size is below --batch-size: remember at least one batch")
        needed = self.burn_in + self.sequence_length + 1
        if self.algorithm == "dqn" and self.replay == "sequences" and self.buffer_size // self.num_envs < needed:
            raise ValueError(
                f"--buffer-size is below one sequence of {needed} steps (burn-in, sequence length, one more) for each"
                f" environment: remember at least {needed * self.num_envs}"
            )
        if self.epsilon_end > self.epsilon_start:
            raise ValueError("--epsilon-end is the end of the schedule: not above --epsilon-start")
        if self.algorithm == "a2c" and not self.total_steps:
            raise ValueError("--algorithm a2c needs --total-steps, how many environment steps it learns from")
        if self.algorithm == "a2c" and self.normalise_advantages and self.rollout * self.num_envs < 2:
            raise ValueError("--normalise-advantages needs more than one step per update: raise --rollout")
        twice = OWN_OPTIONS.keys() & read_options(self.env_options).keys()
        if self.algorithm == "supervised" and twice:
            name = min(twice)
            raise ValueError(f"--env-options {name}: for supervised learning {OWN_OPTIONS[name]}")
        if self.algorithm == "supervised" and self.env not in SUPERVISED_TASKS:
            raise ValueError(f"--algorithm supervised learns {' or '.join(SUPERVISED_TASKS)}, not --env {self.env}")
        return self

    def learns_from(self) -> str:
        """Return the environment."""
        return self.env


OWN_OPTIONS = {name: f"type --{name}" for name in ("classes", "steps", "delay", "context")} | {
    "noise": "type --input-noise",
    "vectors_seed": "--seed decides",
}
"""What supervised learning tells its task itself."""


SUPERVISED_TASKS = ("plastic/SimpleIntegration-v0", "plastic/ContextIntegration-v0")


class Evaluate(TrainedAgentConfig, EvaluateConfig):
    """Let a trained agent play without exploring, with fresh seeds, in its own or another environment."""

    episodes: int = field(100, "episodes", ge=1)


class Analyze(TrainedAgentConfig, AnalyzeConfig):
    """Look inside a trained agent while it plays. Without an option: everything."""

    pca: bool = field(False, "principal components of hidden states and of M", panel="What to look at")
    m_matrix: bool = field(False, "M over an episode: pictures, norms, its share of the input", panel="What to look at")
    decode: bool = field(False, "how well past inputs and evidence can be read from h and M", panel="What to look at")
    ablate: bool = field(False, "return with M zeroed, frozen or shuffled", panel="What to look at")
    episodes: int = field(30, "greedy episodes", ge=2, panel="How")
    colour: str = field(
        "time", "of the trajectories: time, action, reward, return, observation-0, observation-1, ...", panel="How"
    )


class Render(TrainedAgentConfig, RenderConfig):
    """Show an episode: the environment, M as a heat map, the Q-values and the return so far."""

    episode: int = field(0, "which of the run's test episodes", ge=0)
    video: Literal["gif", "mp4"] = field("gif", f"mp4 needs `{install_command('video')}`")
    frames: int = field(150, "show at most this many steps", ge=1, le=100_000)
    frame_seconds: float = field(0.06, "seconds per frame", ge=0.02, le=60)
    still: tuple[int, ...] = field((), "steps to write as pictures of their own")
