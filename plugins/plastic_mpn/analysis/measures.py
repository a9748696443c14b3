"""The analyses of `plastic analyze mpn`. Each measures greedy episodes, logs, and writes tables and figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from plastic_cli import Run, UserError
from plastic_cli.numerics.seeds import derived_seed, seed_sequence
from plastic_cli.statistics.intervals import mean_interval
from plastic_mpn.analysis import figures
from plastic_mpn.analysis.ablation import (
    ablate,
    ablated_part,
    freezing_step,
    summarize_ablations,
)
from plastic_mpn.analysis.component_figures import states_figure, trials_figure, variance_figure
from plastic_mpn.analysis.decoding import MIN_EPISODES, decode
from plastic_mpn.analysis.modulation import modulation_table, summarize_modulation, variance_share
from plastic_mpn.analysis.principal_components import (
    STEP_COLORS,
    color_values,
    has_trials,
    principal_components,
    state_sequences,
    trajectory_table,
    trial_table,
    variance_table,
)
from plastic_mpn.analysis.recording import Episode, record_episodes
from plastic_mpn.environments.greedy import evaluation_seeds
from plastic_mpn.networks.agents import Readout

if TYPE_CHECKING:
    from plastic_mpn.config import Analyze
    from plastic_mpn.trained import Trained

HEAT_MAPS = 6


@dataclass(frozen=True)
class AnalysisContext:
    """The input of an analysis: a run, its trained network, and greedy episodes of the network."""

    run: Run
    trained: Trained
    episodes: Sequence[Episode]

    @property
    def name(self) -> str:
        """The core, the environment and the seed, for titles."""
        return f"{self.core} on {self.trained.env_id}, seed {self.run.seed}"

    @property
    def core(self) -> str:
        """The name of the core."""
        return str(self.run.config.get("core", "mpn"))

    def log(self, labels: dict[str, Any], metrics: Mapping[str, float], *, show: bool = True) -> None:
        """Log metrics with labels that identify them, and add them to the results if `show` is true."""
        where = {"env": self.trained.env_id, "checkpoint": self.trained.checkpoint, "options": self.trained.options}
        self.run.log("episodes", {**where, **labels}, **metrics)
        if not show:
            return
        prefix = "/".join(str(value) for value in ("episodes", *labels.values()))
        for name, value in metrics.items():
            self.run.results[f"{prefix}/{name}"] = float(value)


def analyze_network(config: Analyze, run: Run, trained: Trained) -> None:
    """Record greedy episodes and run the analyses that `config` selects, or all.

    Raises UserError if a selected analysis does not apply to this network or these episodes.
    """
    switches = {
        "--pca": config.pca,
        "--m-matrix": config.m_matrix,
        "--decode": config.decode,
        "--ablate": config.ablate,
    }
    seeds = evaluation_seeds(seed_sequence(run.seed, "analyzed episodes"), config.episodes)

    def recorded(chosen: Sequence[int]) -> list[Episode]:
        return record_episodes(
            trained.network, trained.env_id, chosen, max_steps=trained.max_steps, options=trained.options
        )

    if config.color not in (None, *STEP_COLORS):
        # The names of observations and of info are known after one episode.
        color_values(recorded(seeds[:1])[0], config.color, trained.names.observations)
    episodes = recorded(seeds)
    context = AnalysisContext(run, trained, episodes)
    for switch, selected in switches.items():
        missing = _missing(switch, context)
        if selected and missing is not None:
            raise UserError(f"{switch}: {missing}")
    interval = mean_interval([episode.episode_return for episode in episodes])
    steps = float(np.mean([len(episode) for episode in episodes]))
    measured = {"return": interval.mean, "return_low": interval.low, "return_high": interval.high}
    context.log({}, {**measured, "steps": steps})
    parts: dict[str, Callable[[], None]] = {
        "--pca": lambda: analyze_components(context, config.color),
        "--m-matrix": lambda: analyze_modulations(context),
        "--decode": lambda: analyze_decoding(context),
        "--ablate": lambda: analyze_ablations(context),
    }
    for switch, part in parts.items():
        missing = _missing(switch, context)
        if missing is None and (switches[switch] or not any(switches.values())):
            part()
        elif missing is not None and not any(switches.values()):
            run.message(f"skipped {switch}: {missing}")


def analyze_components(context: AnalysisContext, color: str | None = None) -> None:
    """Write the principal components of h and M, and the states of the episodes in their plane.

    color: what colors the states. By default, tasks of trials show the trials by their correct answer, and others the
    states by the action.
    """
    found = {}
    for state, sequences in state_sequences(context.episodes).items():
        components = principal_components(sequences, seed=derived_seed(context.run.seed, "components") % 2**32)
        if components is None:
            context.run.message(f"{state} is constant: it has no principal components")
            continue
        found[state] = components
        ratios = components.variance_ratios
        context.log(
            {"state": state},
            {
                "participation_ratio": components.participation_ratio,
                "variance_1": float(ratios[0]),
                "variance_2": float(ratios[:2].sum()),
            },
        )
    if not found:
        return
    variances = variance_table(found)
    context.run.save_table("pca_variance", variances)
    context.run.save_figure("pca_variance", variance_figure(variances, found, context.name))
    names = context.trained.names
    trajectories = trajectory_table(context.episodes, found, color or "action", names.observations)
    context.run.save_table("pca_trajectories", trajectories)
    if color is None and has_trials(context.episodes):
        trials = trial_table(context.episodes, found)
        context.run.save_table("pca_trials", trials)
        figure = trials_figure(trials, found, context.name, names.actions)
    else:
        values = names.actions if color in (None, "action", "target") else ()
        figure = states_figure(trajectories, found, color or "action", context.name, values)
    context.run.save_figure("pca_trajectories", figure)


def analyze_modulations(context: AnalysisContext) -> None:
    """Write heat maps of M over an episode, the norm of M, and its share of the preactivation."""
    table = modulation_table(context.trained.network, context.episodes)
    share = variance_share(context.trained.network, context.episodes)
    summary = summarize_modulation(table)
    measured = {"norm": float(table["norm"].mean()), "share": float(table["share"].mean()), "variance_share": share}
    context.log({}, measured)
    context.run.save_table("modulations", table)
    context.run.save_table("modulations_mean", summary)
    context.run.save_figure("modulations", figures.modulation_figure(table, summary, share, context.name))
    # The longest episode shows most of the time course of M.
    longest = max(context.episodes, key=len)
    assert longest.matrices is not None
    # M is always 0 before step 0.
    steps = np.unique(np.linspace(0, len(longest) - 1, HEAT_MAPS + 1)[1:].round().astype(int)).tolist()
    inputs = ((), "Projected input") if longest.projected else (context.trained.names.observations, "Input")
    context.run.save_figure("m_matrix", figures.matrices_figure(longest.matrices, steps, context.name, *inputs))


def analyze_decoding(context: AnalysisContext) -> None:
    """Write how well past observations and the environment's info can be decoded from h and M."""
    table = decode(context.episodes, seed=derived_seed(context.run.seed, "decoding") % 2**32)
    for row in table.to_dict("records"):
        labels = {"state": row["state"], "target": row["target"], "lag": row["lag"]}
        measured = {str(row["score"]): row["value"], "chance": row["chance"]}
        context.log(labels, measured, show=row["target"] == "observation")
    context.run.save_table("decoding", table)
    context.run.save_figure("decoding_past", figures.past_inputs_figure(table, context.name))
    drawn = {
        "decoding_now": figures.entries_figure(table, context.name, context.trained.names.observations),
        "decoding_classes": figures.classes_figure(table, context.name),
    }
    for name, figure in drawn.items():
        if figure is not None:
            context.run.save_figure(name, figure)


def analyze_ablations(context: AnalysisContext) -> None:
    """Write the returns of the same episodes with the memory set to zero, frozen and shuffled."""
    trained = context.trained
    part = ablated_part(trained.network.core)
    assert part is not None
    if part != "M":
        context.run.message(f"{context.core} has no M: its {part} is set to zero, frozen and shuffled instead")
    table = ablate(
        trained.network,
        trained.env_id,
        context.episodes,
        max_steps=trained.max_steps,
        options=trained.options,
        seed=derived_seed(context.run.seed, "ablations"),
    )
    summary = summarize_ablations(table)
    for row in summary.to_dict("records"):
        measured = {"return": row["mean"], "return_low": row["low"], "return_high": row["high"]}
        context.log({"ablation": row["ablation"]}, {**measured, "difference": row["difference"]})
    context.run.save_table("ablations", table.assign(part=part))
    freezes = freezing_step(context.episodes)
    context.run.save_table("ablations_mean", summary.assign(part=part, freezing_step=freezes))
    # A supervised task rewards every correct trial with 1 and nothing else.
    supervised = isinstance(trained.network, Readout)
    trials = len({info["trial"] for info in context.episodes[0].infos}) if supervised else 0
    figure = figures.ablation_figure(table, summary, part, freezes, context.name, trials=trials)
    context.run.save_figure("ablations", figure)


def _missing(switch: str, context: AnalysisContext) -> str | None:
    """Return why an analysis does not apply to this network or these episodes, or None."""
    if switch == "--m-matrix" and context.episodes[0].matrices is None:
        return f"the core {context.core} has no M; use --pca and --decode, which analyze its hidden state."
    if switch == "--decode" and len(context.episodes) < MIN_EPISODES:
        return f"cross-validation over episodes needs --episodes {MIN_EPISODES} or more."
    if switch == "--ablate" and ablated_part(context.trained.network.core) is None:
        return f"the core {context.core} has no memory to change."
    return None
