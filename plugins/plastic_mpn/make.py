"""Makes a run's network and environments from its options."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from plastic_cli import Run
from plastic_cli.numerics.seeds import derived_seed, seed_sequence
from plastic_mpn.config import Train
from plastic_mpn.environments.options import read_options
from plastic_mpn.environments.vector import Environments
from plastic_mpn.networks.agents import MPNDQN, ActorCritic, Network, Readout


def make_network(config: Train, run: Run, observation_dim: int, action_count: int) -> Network:
    """Make the network that a configuration describes, its weights drawn from the run's seed."""
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
        config.hidden_dim,
        action_count,
        core=config.core,
        layers=config.layers,
        projection=config.input_projection,
        generator=run.generator("weights"),
        **options,
    )
    return network.to(run.device)


def environment_options(config: Train, run: Run) -> dict[str, Any]:
    """Return the options of a run's environment; a supervised task takes them from the configuration and the seed."""
    task: dict[str, Any] = {}
    if config.algorithm == "supervised":
        task = {
            "classes": config.classes,
            "noise": config.input_noise,
            "vectors_seed": derived_seed(run.seed, "input vectors"),
        }
        if config.env == "plastic/SimpleIntegration-v0":
            task |= {"steps": config.steps, "delay": config.delay}
        else:
            task |= {"context": config.context}
    return {**task, **read_options(config.env_options)}


def make_environments(config: Train, run: Run) -> Environments:
    """Make a run's environments, store the versions of what they come from, and warn of what they lack."""
    environments = Environments(
        config.env,
        config.num_envs,
        seed_sequence(run.seed, "environments"),
        max_steps=config.step_limit,
        options=environment_options(config, run),
    )
    note_versions(run, environments.versions)
    if not environments.repeatable():
        run.message(
            f"{config.env} goes another way every time with the same seed and actions: this run can be neither repeated"
            " nor resumed exactly"
        )
    if not environments.limited:
        run.message(f"{config.env} sets no limit of steps: if an episode does not end, --max-episode-steps N ends it")
    return environments


def note_versions(run: Run, versions: Mapping[str, str]) -> None:
    """Store the versions of what a run's environment comes from, and say where a resumed run meets others."""
    for package, number in versions.items():
        before = run.record.versions.get(package, number)
        if before != number:
            run.message(f"run {run.id} began with {package} {before} and goes on with {number}")
    run.write_record(versions={**run.record.versions, **versions})


def sizes(environment: Any) -> tuple[int, int]:
    """Return how many numbers an observation has, and how many actions there are."""
    return int(environment.observation_space.shape[0]), int(environment.action_space.n)
