"""The options of MPN, one model for each verb."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import field_validator, model_validator

from plastic_cli import AnalyzeConfig, Config, EvaluateConfig, FilmConfig, OnlyWith, TrainConfig, field
from plastic_cli.config.model import Device
from plastic_mpn.environments.options import read_options, split_options

IMPLIED: dict[str, dict[str, Any]] = {
    "a2c": {
        "env": "plastic/GoNogo-v0",
        "hidden": 128,
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
        "normalize_advantages": True,
    },
    "supervised": {
        "env": "plastic/SimpleIntegration-v0",
        "hidden": 100,
        "learn_eta": True,
        "learn_lambda": True,
        "draw_eta": True,
        "bias": False,
        "lambda_decay": 0.95,
        "lambda_max": 0.95,
    },
}
"""Defaults that an algorithm changes: the settings with which it learns the task that it was published on."""


class EnvironmentConfig(Config):
    """Options of every command that makes an environment."""

    env_options: tuple[str, ...] = field(
        (), "keyword arguments of the environment, e.g. delay=20,sigma=1.0", panel="Task"
    )
    max_episode_steps: int = field(
        0, "maximum number of steps per episode; 0: the environment's own limit", ge=0, panel="Task"
    )

    @property
    def step_limit(self) -> int | None:
        """The limit in Gymnasium's form: None means the environment's own limit."""
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
        # An id with a version is complete. Otherwise Gymnasium is imported, which takes time.
        if env is None or re.search(r"-v\d+$", env):
            return env
        from plastic_mpn.environments.vector import versioned_id

        return versioned_id(env)

    @model_validator(mode="after")
    def _options_are_pairs(self) -> Self:
        read_options(self.env_options)
        return self


class TrainedAgentConfig(EnvironmentConfig):
    """Options of every command that runs a trained agent; the defaults are the values used in training."""

    env: str | None = field(
        None, "another environment with the same sizes (default: the one used in training)", panel="Task"
    )
    checkpoint: str = field(
        "best",
        "checkpoint to load: best, final (or last), the name of a periodic checkpoint, or a .pt file",
        panel="Task",
    )


class NamedAgentConfig(TrainedAgentConfig):
    """Options of the commands that show what a trained agent observes and does."""

    labels: tuple[str, ...] = field(
        (), "names of the entries of an observation, as NAME,NAME,... (default: those of the environment)", panel="Task"
    )
    action_labels: tuple[str, ...] = field(
        (), "names of the actions, as NAME,NAME,... (default: those of the environment)", panel="Task"
    )


class Train(EnvironmentConfig, TrainConfig):
    """Train a multi-plasticity network (MPN) by Q-learning, by actor-critic, or supervised on the published tasks."""

    device: Device = field(
        "cpu",
        "device to compute on; the compiled kernels run on the CPU, which is fastest for small networks",
        panel="Run",
    )

    algorithm: Literal["dqn", "a2c", "supervised"] = field(
        "dqn", "dqn, a2c, or supervised (integration tasks); a2c and supervised set a task and other defaults"
    )
    env: str = field("CartPole-v1", "Gymnasium id (vector observations, discrete actions)", panel="Task")

    core: Literal["mpn", "mpn-pre", "mpn-post", "mpn-additive", "mpn-frozen", "rnn", "gru", "lstm", "mlp"] = field(
        "mpn",
        "network: mpn; its variants mpn-pre, mpn-post and mpn-additive; or a control: mpn-frozen (M stays 0), rnn, gru,"
        " lstm, mlp (two layers, no memory)",
        panel="Network",
    )
    hidden: int = field(64, "number of hidden units", ge=1, le=65536, panel="Network")
    layers: int = field(1, "number of layers of the core", ge=1, le=64, panel="Network")
    input_projection: int = field(
        0, "project the input to N dimensions with a fixed random affine map; 0: no projection", ge=0, panel="Network"
    )
    eta: float = field(0.05, "learning rate of M, of either sign (initial value with --learn-eta)", panel="Network")
    draw_eta: bool = field(
        False, "draw the initial eta uniformly from -sqrt(3) to sqrt(3), as published", panel="Network"
    )
    lambda_decay: float = field(
        0.9, "decay factor of M per step (initial value with --learn-lambda)", ge=0, le=1, panel="Network"
    )
    lambda_max: float = field(0.99, "upper bound of lambda with --learn-lambda", ge=0, le=1, panel="Network")
    modulation_bound: float = field(0.0, "maximum magnitude of the modulations M; 0: no bound", ge=0, panel="Network")
    learn_eta: bool = field(False, "learn eta (requires --replay sequences, a2c or supervised)", panel="Network")
    learn_lambda: bool = field(False, "learn lambda (requires --replay sequences, a2c or supervised)", panel="Network")
    activation: Literal["tanh", "relu", "sigmoid", "linear"] = field(
        "tanh", "activation function of MPN layers", panel="Network"
    )
    bias: bool = field(True, "learn a bias for each unit of MPN layers", panel="Network")

    learning_rate: float = field(1e-3, "learning rate of Adam", gt=0, panel="Learning", search=(1e-4, 1e-2, "log"))
    gamma: float = field(0.99, "discount factor of future rewards", ge=0, le=1, panel="Learning")
    gradient_clip: float = field(10.0, "maximum L2 norm of the gradient", gt=0, panel="Learning")
    batch_size: int = field(64, "transitions per gradient step (dqn) or trials (supervised)", ge=1, panel="Learning")
    total_steps: int = field(
        0,
        "total number of environment steps (a2c: 500000); dqn stops after this number or after --episodes, whichever"
        " comes first (0: after --episodes)",
        ge=0,
        panel="Learning",
    )
    num_envs: int = field(1, "number of environments that run in parallel (dqn, a2c)", ge=1, le=4096, panel="Learning")

    episodes: int = field(500, "number of training episodes", ge=1, panel="dqn")
    epsilon_start: float = field(1.0, "initial probability of a random action", ge=0, le=1, panel="dqn")
    epsilon_end: float = field(0.01, "final probability of a random action", ge=0, le=1, panel="dqn")
    epsilon_decay: float = field(0.995, "decay factor of this probability per episode", gt=0, le=1, panel="dqn")
    buffer_size: int = field(10_000, "number of transitions in the replay buffer", ge=1, panel="dqn")
    learning_starts: int = field(64, "number of transitions before the first gradient step", ge=1, panel="dqn")
    train_every: int = field(1, "number of transitions per gradient step", ge=1, panel="dqn")
    tau: float = field(
        0.005,
        "soft-update rate of the target network; 0: copy the network every --target-every episodes",
        ge=0,
        le=1,
        panel="dqn",
    )
    target_every: int = field(10, "episodes between copies to the target network (with --tau 0)", ge=1, panel="dqn")
    double_q: bool = field(True, "double Q-learning: the network, not its target, selects the next action", panel="dqn")
    replay: Literal["states", "sequences"] = field(
        "states",
        "states: replay single steps with their stored state; sequences: backpropagate through time",
        panel="dqn",
    )
    burn_in: int = field(
        8, "steps that only update the state before each sequence (with --replay sequences)", ge=0, panel="dqn"
    )
    sequence_length: int = field(16, "number of steps of a sequence (with --replay sequences)", ge=1, panel="dqn")

    rollout: int = field(50, "steps per update, and of backpropagation through time", ge=1, panel="a2c")
    entropy_coefficient: float = field(0.01, "weight of the entropy bonus in the loss", ge=0, panel="a2c")
    value_coefficient: float = field(1.0, "weight of the value loss", ge=0, panel="a2c")
    gae_lambda: float = field(
        1.0, "lambda of generalized advantage estimation; 1: n-step returns", ge=0, le=1, panel="a2c"
    )
    normalize_advantages: bool = field(False, "normalize advantages to mean 0 and standard deviation 1", panel="a2c")

    classes: int = field(2, "number of classes of the integration task", ge=2, panel="supervised")
    steps: int = field(20, "number of steps of a trial, including the go signal", ge=2, panel="supervised")
    delay: int = field(0, "number of steps without input before the go signal", ge=0, panel="supervised")
    context: Literal["retrospective", "prospective"] = field(
        "retrospective", "whether the context cue comes after or before the stimuli", panel="supervised"
    )
    readout_only: bool = field(
        False, "learn only the readout; the core keeps its random initial weights", panel="supervised"
    )
    input_noise: float = field(0.1, "expected L2 norm of the noise added to each input", ge=0, panel="supervised")
    l1: float = field(1e-4, "coefficient of the L1 penalty on all learned parameters", ge=0, panel="supervised")
    minimum_batches: int = field(2000, "minimum number of batches", ge=1, panel="supervised")
    maximum_batches: int = field(20_000, "maximum number of batches", ge=1, panel="supervised")
    target_accuracy: float = field(
        0.98,
        "stop training at this validation accuracy; 1: train until the loss stops improving",
        gt=0,
        le=1,
        panel="supervised",
    )

    evaluate_every: int = field(10, "episodes (dqn) or updates (a2c) between evaluations", ge=1, panel="Evaluation")
    evaluation_episodes: int = field(
        10, "greedy episodes per evaluation, which select the best checkpoint", ge=1, panel="Evaluation"
    )
    checkpoint_every: int = field(
        100, "also save the network every N episodes (dqn) or updates (a2c)", ge=1, panel="Evaluation"
    )
    test_episodes: int = field(100, "greedy test episodes at the end, with new seeds", ge=1, panel="Evaluation")

    controls: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "frozen plasticity": {"core": "mpn-frozen"},
        **{name: {"core": name} for name in ("rnn", "gru", "lstm", "mlp")},
        "trained readout": {"readout_only": True},
    }
    renamed: ClassVar[Mapping[str, str]] = {
        "hidden_dim": "hidden",
        "num_episodes": "episodes",
        "normalise_advantages": "normalize_advantages",
    }
    published_names: ClassVar[Mapping[str, str]] = {
        "env_name": "env",
        "env_config": "env_options",
        "model_type": "core",
        "num_layers": "layers",
        "total_frames": "total_steps",
        "tbptt_len": "rollout",
        "entropy_coef": "entropy_coefficient",
        "value_coef": "value_coefficient",
        "grad_clip": "gradient_clip",
        "eta_init": "eta",
        "lambda_init": "lambda_decay",
        "mpn_bias": "bias",
        "print_freq": "evaluate_every",
        "num_eval_episodes": "evaluation_episodes",
        "experiment_name": "name",
        "wandb": "export",
    }
    only_with: ClassVar[OnlyWith] = (
        (
            "algorithm",
            ("dqn",),
            (
                *("episodes", "epsilon_start", "epsilon_end", "epsilon_decay", "buffer_size", "learning_starts"),
                *("train_every", "tau", "target_every", "double_q", "replay", "burn_in", "sequence_length"),
            ),
        ),
        (
            "algorithm",
            ("a2c",),
            ("rollout", "entropy_coefficient", "value_coefficient", "gae_lambda", "normalize_advantages"),
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
                *("gamma", "total_steps", "num_envs", "max_episode_steps"),
                *("evaluate_every", "evaluation_episodes", "checkpoint_every", "test_episodes"),
            ),
        ),
        ("replay", ("sequences",), ("burn_in", "sequence_length")),
        ("tau", (0,), ("target_every",)),
        ("readout_only", (False,), ("learn_eta", "learn_lambda")),
        ("env", ("plastic/SimpleIntegration-v0",), ("steps", "delay")),
        ("env", ("plastic/ContextIntegration-v0",), ("context",)),
        ("draw_eta", (False,), ("eta",)),
        ("learn_lambda", (True,), ("lambda_max",)),
        (
            "core",
            ("mpn", "mpn-pre", "mpn-post", "mpn-additive"),
            ("eta", "draw_eta", "lambda_decay", "lambda_max", "modulation_bound", "learn_eta", "learn_lambda"),
        ),
        ("core", ("mpn", "mpn-pre", "mpn-post", "mpn-additive", "mpn-frozen"), ("activation", "bias")),
    )

    @classmethod
    def unused_options(cls, chosen: Mapping[str, Any]) -> dict[str, str]:
        """Return the options that have no effect given `chosen`, with the reason."""
        env = chosen.get("env")
        # An id can be typed without its version.
        versioned = {"env": f"{env}-v0"} if isinstance(env, str) and f"{env}-v0" in SUPERVISED_TASKS else {}
        return super().unused_options({**chosen, **versioned})

    @classmethod
    def implied(cls, typed: Mapping[str, Any]) -> dict[str, Any]:
        """The defaults of the algorithm; --target-every sets tau to 0, and a fixed core has a fixed eta and lambda.

        A given eta is not drawn.
        """
        meant = dict(IMPLIED.get(str(typed.get("algorithm")), {}))
        if "eta" in typed:
            meant["draw_eta"] = False
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
            raise ValueError("--buffer-size is smaller than --batch-size: it must hold at least one batch")
        needed = self.burn_in + self.sequence_length + 1
        if self.algorithm == "dqn" and self.replay == "sequences" and self.buffer_size // self.num_envs < needed:
            raise ValueError(
                f"--buffer-size is too small for one sequence of {needed} steps (burn-in, sequence length, one more)"
                f" per environment: set it to at least {needed * self.num_envs}"
            )
        if self.epsilon_end > self.epsilon_start:
            raise ValueError("--epsilon-end must not be larger than --epsilon-start")
        if self.algorithm == "a2c" and not self.total_steps:
            raise ValueError("--algorithm a2c needs --total-steps, the number of environment steps")
        if self.algorithm == "a2c" and self.normalize_advantages and self.rollout * self.num_envs < 2:
            raise ValueError("--normalize-advantages needs more than one step per update: raise --rollout")
        twice = OWN_OPTIONS.keys() & read_options(self.env_options).keys()
        if self.algorithm == "supervised" and twice:
            name = min(twice)
            raise ValueError(f"--env-options {name}: for supervised learning, {OWN_OPTIONS[name]}")
        if self.algorithm == "supervised" and self.env not in SUPERVISED_TASKS:
            raise ValueError(f"--env {self.env}: --algorithm supervised needs {' or '.join(SUPERVISED_TASKS)}")
        return self

    def learns_from(self) -> str:
        """Return the environment."""
        return self.env


OWN_OPTIONS = {name: f"use --{name}" for name in ("classes", "steps", "delay", "context")} | {
    "noise": "use --input-noise",
    "vectors_seed": "--seed determines it",
}
"""Options of the task that supervised learning sets itself, with what to use instead."""


SUPERVISED_TASKS = ("plastic/SimpleIntegration-v0", "plastic/ContextIntegration-v0")


class Evaluate(TrainedAgentConfig, EvaluateConfig):
    """Measure the return of a trained agent without exploration, with new seeds, in its own or another environment."""

    episodes: int = field(100, "number of episodes", ge=1)


class Analyze(NamedAgentConfig, AnalyzeConfig):
    """Analyze the activity and the modulations M of a trained agent. Without an option, run every analysis."""

    pca: bool = field(False, "principal components of the hidden states and of M", panel="Analyses")
    m_matrix: bool = field(
        False, "M over an episode: heat maps, norms, and its share of the preactivation", panel="Analyses"
    )
    decode: bool = field(False, "how well past inputs and evidence can be decoded from h and M", panel="Analyses")
    ablate: bool = field(False, "return with M set to zero, frozen or shuffled", panel="Analyses")
    episodes: int = field(30, "number of greedy episodes", ge=2, panel="Settings")
    color: str | None = field(
        None,
        "color of the states with --pca: time, action, reward, return, the name of an observation or of an entry of"
        " info (default: the correct answer in tasks of trials, otherwise the action)",
        panel="Settings",
    )


class Render(NamedAgentConfig, FilmConfig):
    """Render an episode as a film: the environment, M as a heat map, the inputs, the choice and the return."""

    episode: int = field(0, "index of the test episode", ge=0, panel="Film")
    frames: int = field(
        150, "maximum number of frames; a longer episode is shown in equal steps", ge=1, le=100_000, panel="Film"
    )
    still: tuple[int, ...] = field((), "steps to save as images", panel="Film")
