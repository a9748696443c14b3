"""A trained network, loaded from its run, and `plastic eval mpn`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from plastic_cli import Run, UserError
from plastic_cli.numerics.seeds import seed_sequence
from plastic_cli.runs.checkpoint import read_checkpoint
from plastic_cli.statistics.intervals import mean_interval
from plastic_mpn.config import Evaluate, NamedAgentConfig, Train, TrainedAgentConfig
from plastic_mpn.environments.greedy import GreedyEpisodes, evaluation_seeds
from plastic_mpn.environments.names import Names, names_of
from plastic_mpn.environments.options import read_options
from plastic_mpn.environments.vector import make_environment
from plastic_mpn.make import environment_options, make_network, sizes
from plastic_mpn.networks.agents import Network
from plastic_mpn.networks.stored import BEST, FINAL, load_network, load_state, sizes_of, stored_state


@dataclass(frozen=True)
class Trained:
    """The stored network of a run, the environment in which it is evaluated, analyzed or rendered, and its names."""

    network: Network
    env_id: str
    options: Mapping[str, Any]
    max_steps: int | None
    checkpoint: str
    names: Names


def network(run: Run, *, checkpoint: str = BEST) -> Network:
    """Return the trained network of a run as a module.

    It is called as `network(observations, state)`. An agent trained by dqn returns (Q-values, state), one trained by
    a2c ((logits, values), state), a supervised network (outputs, state): see the classes of `networks.agents`. The
    environment is not needed.

    checkpoint: best, final (also called last), the name of a periodic checkpoint, or a .pt file.
    Raises UserError if there is no such checkpoint.
    """
    trained_as = Train.from_values(run.config, source=f"run {run.id}")
    if trained_as.algorithm == "supervised":
        _check_supervised(checkpoint)
        state = read_checkpoint(run.folder).tracked["network"]
    else:
        state = stored_state(run, checkpoint)
    made = make_network(trained_as, run, *sizes_of(state, run, checkpoint))
    load_state(made, state, run, checkpoint)
    return made.requires_grad_(True).eval()


def open_trained(config: TrainedAgentConfig, run: Run) -> Trained:
    """Load the network of a run and choose its environment: that of training, with the changes in `config`.

    Raises UserError if there is no such checkpoint, or if the sizes of the environment differ.
    """
    trained_as = Train.from_values(run.config, source=f"run {run.id}")
    own = make_environment(
        trained_as.env, max_steps=trained_as.step_limit, options=environment_options(trained_as, run.seed)
    )
    network = make_network(trained_as, run, *sizes(own))
    if trained_as.algorithm == "supervised":
        _check_supervised(config.checkpoint)
        run.restore("network", network)
    else:
        load_network(network, run, config.checkpoint)
    # The options of the training environment do not apply to another one.
    options = environment_options(trained_as, run.seed) if config.env in (None, trained_as.env) else {}
    options |= read_options(config.env_options)
    env_id, limit = config.env or trained_as.env, config.step_limit or trained_as.step_limit
    chosen = make_environment(env_id, max_steps=limit, options=options)
    if sizes(chosen) != sizes(own):
        raise UserError(
            f"{env_id} has observations of size {sizes(chosen)[0]} and {sizes(chosen)[1]} actions; run {run.id}"
            f" was trained with {sizes(own)[0]} and {sizes(own)[1]} ({trained_as.env}). Choose one with the same sizes."
        )
    labels = (config.labels, config.action_labels) if isinstance(config, NamedAgentConfig) else ()
    return Trained(network.eval(), env_id, options, limit, config.checkpoint, names_of(chosen, *labels))


def _check_supervised(checkpoint: str) -> None:
    if checkpoint not in (BEST, FINAL, "last"):
        raise UserError(f"--checkpoint {checkpoint}: a supervised run has one network, the final one.")


def evaluate(config: Evaluate, run: Run) -> None:
    """Log the return over greedy episodes with new seeds."""
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
