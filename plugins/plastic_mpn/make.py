"""Creates the network and the environments of a run from its options."""

from __future__ import annotations

import math
from typing import Any

from plastic_cli import Run
from plastic_cli.numerics.seeds import derived_seed, seed_sequence
from plastic_cli.runs.own_modules import note_versions
from plastic_mpn.config import Train
from plastic_mpn.environments.options import read_options
from plastic_mpn.environments.vector import Environments
from plastic_mpn.networks.agents import MPNDQN, ActorCritic, Network, Readout


def make_network(config: Train, run: Run, observation_dim: int, action_count: int) -> Network:
    """Create the network of a configuration. The run's seed determines its initial weights."""
    made: type[Network] = {"dqn": MPNDQN, "a2c": ActorCritic, "supervised": Readout}[config.algorithm]
    options: dict[str, Any] = {}
    if config.core.startswith("mpn"):
        options = {
            "eta": None if config.draw_eta else config.eta,
            "lambda_decay": config.lambda_decay,
            "lambda_max": config.lambda_max,
            "bound": config.modulation_bound or math.inf,
            "learn_eta": config.learn_eta,
            "learn_lambda": config.learn_lambda,
            "activation": config.activation,
            "bias": config.bias,
        }
    network = made(
        observation_dim,
        config.hidden,
        action_count,
        core=config.core,
        layers=config.layers,
        projection=config.input_projection,
        generator=run.generator("weights"),
        **options,
    )
    return network.to(run.device)


def environment_options(config: Train, seed: int) -> dict[str, Any]:
    """Return the keyword arguments of a run's environment. Those of a supervised task depend on the seed of the run."""
    task: dict[str, Any] = {}
    if config.algorithm == "supervised":
        task = {
            "classes": config.classes,
            "noise": config.input_noise,
            "vectors_seed": derived_seed(seed, "input vectors"),
        }
        if config.env == "plastic/SimpleIntegration-v0":
            task |= {"steps": config.steps, "delay": config.delay}
        else:
            task |= {"context": config.context}
    return {**task, **read_options(config.env_options)}


def make_environments(config: Train, run: Run) -> Environments:
    """Create the environments of a run, store their versions, and warn if they are not repeatable or unlimited."""
    environments = Environments(
        config.env,
        config.num_envs,
        seed_sequence(run.seed, "environments"),
        max_steps=config.step_limit,
        options=environment_options(config, run.seed),
    )
    note_versions(run, environments.versions)
    if not environments.repeatable():
        run.message(
            f"{config.env} is not determined by its seed and actions: this run can be neither repeated nor resumed"
        )
    if not environments.limited:
        run.message(f"{config.env} has no step limit: add --max-episode-steps N if episodes may not end")
    return environments


def sizes(environment: Any) -> tuple[int, int]:
    """Return the size of an observation and the number of actions."""
    return int(environment.observation_space.shape[0]), int(environment.action_space.n)
