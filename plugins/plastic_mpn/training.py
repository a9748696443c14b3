"""Puts a run's network, environments and learner together, for each algorithm, and reads a trained one back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from plastic_cli import Run, UserError
from plastic_cli.numerics.seeds import derived_seed, seed_sequence
from plastic_mpn.checkpoints import Checkpoints, load_network
from plastic_mpn.environment_options import read_options
from plastic_mpn.environments import Environments, make_environment, package_versions
from plastic_mpn.evaluation import GreedyEpisodes, evaluation_seeds
from plastic_mpn.networks import MPNDQN, ActorCritic, Network, Readout

if TYPE_CHECKING:
    from plastic_mpn.commands import Analyze, Evaluate, Render, Train


def by_dqn(config: Train, run: Run) -> None:
    """Train by Q-learning."""
    from plastic_mpn.dqn import DQN, DQNSettings, train_dqn

    environments = _environments(config, run)
    network = make_network(config, run, environments.observation_dim, environments.action_count)
    settings = DQNSettings(
        gamma=config.gamma,
        epsilon_start=config.epsilon_start,
        epsilon_end=config.epsilon_end,
        epsilon_decay=config.epsilon_decay,
        learning_rate=config.learning_rate,
        batch_size=config.batch_size,
        buffer_size=config.buffer_size,
        learning_starts=config.learning_starts,
        train_every=config.train_every,
        target_every=config.target_every,
        tau=config.tau,
        gradient_clip=config.gradient_clip,
        double=config.double_q,
        replay=config.replay,
        burn_in=config.burn_in,
        sequence_length=config.sequence_length,
    )
    assert isinstance(network, MPNDQN)
    dqn = DQN(network, environments, settings, seed_sequence(run.seed, "exploration"))
    checkpoints = _checkpoints(config, run, network, "episode")
    run.track(checkpoints=checkpoints)
    train_dqn(
        dqn,
        run,
        config.num_episodes,
        log_every=max(1, config.num_episodes // 500),
        total_steps=config.total_steps or None,
        after_episode=checkpoints.after,
    )
    checkpoints.finish(run.step, config.test_episodes)


def by_a2c(config: Train, run: Run) -> None:
    """Train by advantage actor-critic."""
    from plastic_mpn.a2c import A2C, A2CSettings, train_a2c

    environments = _environments(config, run)
    network = make_network(config, run, environments.observation_dim, environments.action_count)
    settings = A2CSettings(
        learning_rate=config.learning_rate,
        gamma=config.gamma,
        entropy_coefficient=config.entropy_coefficient,
        value_coefficient=config.value_coefficient,
        rollout=config.rollout,
        gradient_clip=config.gradient_clip,
        gae_lambda=config.gae_lambda,
        normalise_advantages=config.normalise_advantages,
    )
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
    """Train a readout of the published integration tasks."""
    from plastic_mpn.supervised import SupervisedSettings, train_supervised
    from plastic_mpn.tasks.integration import ContextIntegration, SimpleIntegration

    made = make_environment(config.env, options=environment_options(config, run))
    note_versions(run, package_versions(made))
    environment = made.unwrapped
    assert isinstance(environment, SimpleIntegration | ContextIntegration)
    task = environment.task
    network = make_network(config, run, task.dimension, task.classes)
    assert isinstance(network, Readout)
    if config.readout_only:
        network.core.requires_grad_(False)
    train_supervised(
        network,
        task,
        run,
        SupervisedSettings(
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            l1=config.l1,
            gradient_clip=config.gradient_clip,
            minimum_batches=min(config.minimum_batches, config.maximum_batches),
            maximum_batches=config.maximum_batches,
            target_accuracy=config.target_accuracy,
        ),
    )


@dataclass(frozen=True)
class Trained:
    """A run's network as it was kept, and the environment that it is to be looked at in."""

    network: Network
    env_id: str
    options: Mapping[str, Any]
    max_steps: int | None
    checkpoint: str


def open_trained(config: Evaluate | Analyze | Render, run: Run) -> Trained:
    """Read a run's network back, and name the environment: its own, with what `config` changes.

    Raises UserError where there is no such checkpoint, or the environment has other sizes.
    """
    from plastic_mpn.commands import Train

    trained_as = Train.from_values(run.config, source=f"run {run.id}")
    own = make_environment(
        trained_as.env, max_steps=trained_as.step_limit, options=environment_options(trained_as, run)
    )
    network = make_network(trained_as, run, *_sizes(own))
    if trained_as.algorithm == "supervised":
        if config.checkpoint not in ("best", "final"):
            raise UserError(f"--checkpoint {config.checkpoint}: a supervised run keeps one network, its last.")
        run.restore("network", network)
    else:
        load_network(network, run, config.checkpoint)
    # Options of its own environment mean nothing to another one.
    options = environment_options(trained_as, run) if config.env in (None, trained_as.env) else {}
    chosen = Trained(
        network.eval(),
        config.env or trained_as.env,
        {**options, **read_options(config.env_options)},
        config.step_limit or trained_as.step_limit,
        config.checkpoint,
    )
    other = make_environment(chosen.env_id, max_steps=chosen.max_steps, options=chosen.options)
    if _sizes(other) != _sizes(own):
        raise UserError(
            f"{chosen.env_id} shows {_sizes(other)[0]} numbers and takes {_sizes(other)[1]} actions; run {run.id}"
            f" learned with {_sizes(own)[0]} and {_sizes(own)[1]} ({trained_as.env}). Choose one of the same sizes."
        )
    return chosen


def evaluate(config: Evaluate, run: Run) -> None:
    """Log the return over greedy episodes with seeds that training never saw."""
    from plastic_cli.statistics.intervals import mean_interval

    trained = open_trained(config, run)
    played = GreedyEpisodes(trained.env_id, max_steps=trained.max_steps, options=trained.options)
    seeds = evaluation_seeds(seed_sequence(run.seed, "fresh episodes"), config.episodes)
    returns = played.returns(trained.network, seeds)
    interval = mean_interval(returns)
    labels = {"env": trained.env_id, "checkpoint": trained.checkpoint, "options": dict(trained.options)}
    measured = {
        "return": interval.mean,
        "return_low": interval.low,
        "return_high": interval.high,
        "return_min": float(returns.min()),
        "return_max": float(returns.max()),
    }
    run.log("fresh", labels, **measured)
    run.results |= {f"fresh/{name}": value for name, value in measured.items()}


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


def _environments(config: Train, run: Run) -> Environments:
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


def _checkpoints(config: Train, run: Run, network: Network, unit: str) -> Checkpoints:
    return Checkpoints(
        network,
        run,
        GreedyEpisodes(config.env, max_steps=config.step_limit, options=environment_options(config, run)),
        unit=unit,
        evaluate_every=config.evaluate_every,
        evaluation_episodes=config.evaluation_episodes,
        checkpoint_every=config.checkpoint_every,
    )


def _sizes(environment: Any) -> tuple[int, int]:
    return int(environment.observation_space.shape[0]), int(environment.action_space.n)
