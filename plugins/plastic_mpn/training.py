"""Trains a run: connects its network, environments and learner for each algorithm."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from plastic_cli import Run
from plastic_cli.numerics.seeds import seed_sequence
from plastic_cli.runs.own_modules import note_versions
from plastic_mpn.config import Train
from plastic_mpn.environments.greedy import GreedyEpisodes
from plastic_mpn.environments.vector import make_environment, package_versions
from plastic_mpn.learning.checkpoints import Checkpoints
from plastic_mpn.make import environment_options, make_environments, make_network
from plastic_mpn.networks.agents import MPNDQN, ActorCritic, Network, Readout

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

S = TypeVar("S", bound="DataclassInstance")


def by_dqn(config: Train, run: Run) -> None:
    """Train by Q-learning."""
    from plastic_mpn.learning.dqn import DQN, train_dqn
    from plastic_mpn.learning.dqn_update import DQNSettings

    environments = make_environments(config, run)
    network = make_network(config, run, environments.observation_dim, environments.action_count)
    settings = shared_fields(DQNSettings, config)
    assert isinstance(network, MPNDQN)
    dqn = DQN(network, environments, settings, seed_sequence(run.seed, "exploration"))
    checkpoints = _checkpoints(config, run, network, "episode")
    run.track(checkpoints=checkpoints)
    train_dqn(
        dqn,
        run,
        config.episodes,
        log_every=max(1, config.episodes // 500),
        total_steps=config.total_steps or None,
        after_episode=checkpoints.after,
    )
    checkpoints.finish(run.step, config.test_episodes)


def by_a2c(config: Train, run: Run) -> None:
    """Train by advantage actor-critic."""
    from plastic_mpn.learning.a2c import A2C, A2CSettings, train_a2c

    environments = make_environments(config, run)
    network = make_network(config, run, environments.observation_dim, environments.action_count)
    settings = shared_fields(A2CSettings, config)
    assert isinstance(network, ActorCritic)
    algorithm = A2C(network, environments, run.generator("actions"), settings)
    updates = -(-config.total_steps // (config.rollout * config.num_envs))
    checkpoints = _checkpoints(config, run, network, "update")
    run.track(checkpoints=checkpoints)
    train_a2c(
        algorithm,
        run,
        total_steps=config.total_steps,
        log_every=max(1, updates // 500),
        after_update=checkpoints.after,
    )
    checkpoints.finish(updates, config.test_episodes)


def by_supervised(config: Train, run: Run) -> None:
    """Train a network with a readout on a published integration task."""
    from plastic_mpn.environments.tasks.integration import ContextIntegration, SimpleIntegration
    from plastic_mpn.learning.supervised import SupervisedSettings, train_supervised

    made = make_environment(config.env, options=environment_options(config, run.seed))
    note_versions(run, package_versions(made))
    environment = made.unwrapped
    assert isinstance(environment, SimpleIntegration | ContextIntegration)
    task = environment.task
    network = make_network(config, run, task.dimension, task.classes)
    assert isinstance(network, Readout)
    if config.readout_only:
        network.core.requires_grad_(False)
    settings = shared_fields(
        SupervisedSettings, config, minimum_batches=min(config.minimum_batches, config.maximum_batches)
    )
    train_supervised(network, task, run, settings)


def shared_fields(made: type[S], config: Train, **changes: Any) -> S:
    """Return a dataclass whose fields have the values of the options of the same names; `changes` take precedence.

    Fields that are not options keep their defaults.
    """
    options = {field.name: getattr(config, field.name) for field in fields(made) if hasattr(config, field.name)}
    return made(**options | changes)


def _checkpoints(config: Train, run: Run, network: Network, unit: str) -> Checkpoints:
    return Checkpoints(
        network,
        run,
        GreedyEpisodes(config.env, max_steps=config.step_limit, options=environment_options(config, run.seed)),
        unit=unit,
        evaluate_every=config.evaluate_every,
        evaluation_episodes=config.evaluation_episodes,
        checkpoint_every=config.checkpoint_every,
    )
