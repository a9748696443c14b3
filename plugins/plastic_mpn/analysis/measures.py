"""The parts of `plastic analyze mpn`: each measures greedy episodes, logs, and writes tables and figures."""

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
    summarise_ablations,
)
from plastic_mpn.analysis.decoding import FEWEST_EPISODES, decode
from plastic_mpn.analysis.modulation import modulation_table, summarise_modulation, variance_share
from plastic_mpn.analysis.principal_components import (
    ALWAYS_THERE,
    colour_values,
    principal_components,
    state_sequences,
    trajectory_table,
    variance_table,
)
from plastic_mpn.analysis.recording import Episode, record_episodes
from plastic_mpn.environments.greedy import evaluation_seeds

if TYPE_CHECKING:
    from plastic_mpn.config import Analyze
    from plastic_mpn.trained import Trained

PICTURES_OF_M = 6


@dataclass(frozen=True)
class AnalysisContext:
    """What is looked at: a trained network, the episodes that it played, and how to name them."""

    run: Run
    trained: Trained
    episodes: Sequence[Episode]

    @property
    def name(self) -> str:
        """The network and where it acted, for titles."""
        return f"{self.core} on {self.trained.env_id}, seed {self.run.seed}"

    @property
    def core(self) -> str:
        """The kind of network."""
        return str(self.run.config.get("core", "mpn"))

    def log(self, labels: dict[str, Any], metrics: Mapping[str, float], *, show: bool = True) -> None:
        """Store metrics with what tells them apart, and show them among the results."""
        where = {"env": self.trained.env_id, "checkpoint": self.trained.checkpoint, "options": self.trained.options}
        self.run.log("episodes", {**where, **labels}, **metrics)
        if not show:
            return
        prefix = "/".join(str(value) for value in ("episodes", *labels.values()))
        for name, value in metrics.items():
            self.run.results[f"{prefix}/{name}"] = float(value)


def analyze_network(config: Analyze, run: Run, trained: Trained) -> None:
    """Let the network play and look at it: at what `config` asks for, or at everything.

    Raises UserError where something was asked for that this network or these episodes do not have.
    """
    switches = {
        "--pca": config.pca,
        "--m-matrix": config.m_matrix,
        "--decode": config.decode,
        "--ablate": config.ablate,
    }
    seeds = evaluation_seeds(seed_sequence(run.seed, "analysed episodes"), config.episodes)

    def recorded(chosen: Sequence[int]) -> list[Episode]:
        return record_episodes(
            trained.network, trained.env_id, chosen, max_steps=trained.max_steps, options=trained.options
        )

    if config.colour not in ALWAYS_THERE:
        # What else there is to colour by, one episode shows.
        colour_values(recorded(seeds[:1])[0], config.colour)
    episodes = recorded(seeds)
    subject = AnalysisContext(run, trained, episodes)
    for switch, wanted in switches.items():
        missing = _missing(switch, subject)
        if wanted and missing is not None:
            raise UserError(f"{switch}: {missing}")
    interval = mean_interval([episode.episode_return for episode in episodes])
    steps = float(np.mean([len(episode) for episode in episodes]))
    measured = {"return": interval.mean, "return_low": interval.low, "return_high": interval.high}
    subject.log({}, {**measured, "steps": steps})
    parts: dict[str, Callable[[], None]] = {
        "--pca": lambda: analyze_components(subject, config.colour),
        "--m-matrix": lambda: analyze_modulations(subject),
        "--decode": lambda: analyze_decoding(subject),
        "--ablate": lambda: analyze_ablations(subject),
    }
    for switch, part in parts.items():
        missing = _missing(switch, subject)
        if missing is None and (switches[switch] or not any(switches.values())):
            part()
        elif missing is not None and not any(switches.values()):
            run.message(f"without {switch}: {missing}")


def analyze_components(subject: AnalysisContext, colour: str = "time") -> None:
    """Write the principal components of h and M, and the ways of the episodes among them."""
    found = {}
    for state, sequences in state_sequences(subject.episodes).items():
        components = principal_components(sequences, seed=derived_seed(subject.run.seed, "components") % 2**32)
        if components is None:
            subject.run.message(f"{state} does not vary: it has no principal components")
            continue
        found[state] = components
        ratios = components.variance_ratios
        subject.log(
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
    subject.run.save_table("pca_variance", variances)
    subject.run.save_figure("pca_variance", figures.variance_figure(variances, found, subject.name))
    trajectories = trajectory_table(subject.episodes, found, colour)
    subject.run.save_table("pca_trajectories", trajectories)
    subject.run.save_figure("pca_trajectories", figures.trajectories_figure(trajectories, found, colour, subject.name))


def analyze_modulations(subject: AnalysisContext) -> None:
    """Write M over an episode as pictures, its norm, and its share of the drive."""
    table = modulation_table(subject.trained.network, subject.episodes)
    share = variance_share(subject.trained.network, subject.episodes)
    summary = summarise_modulation(table)
    measured = {"norm": float(table["norm"].mean()), "share": float(table["share"].mean()), "variance_share": share}
    subject.log({}, measured)
    subject.run.save_table("modulations", table)
    subject.run.save_table("modulations_mean", summary)
    subject.run.save_figure("modulations", figures.modulation_figure(table, summary, share, subject.name))
    # The longest episode shows most of what M does.
    longest = max(subject.episodes, key=len)
    assert longest.matrices is not None
    # Before step 0 it is always 0.
    steps = np.unique(np.linspace(0, len(longest) - 1, PICTURES_OF_M + 1)[1:].round().astype(int)).tolist()
    subject.run.save_figure("m_matrix", figures.matrices_figure(longest.matrices, steps, subject.name))


def analyze_decoding(subject: AnalysisContext) -> None:
    """Write how well the past and what the environment tells can be read from h and M."""
    table = decode(subject.episodes, seed=derived_seed(subject.run.seed, "decoding") % 2**32)
    for row in table.to_dict("records"):
        labels = {"state": row["state"], "target": row["target"], "lag": row["lag"]}
        measured = {str(row["score"]): row["value"], "chance": row["chance"]}
        subject.log(labels, measured, show=row["target"] == "observation")
    subject.run.save_table("decoding", table)
    subject.run.save_figure("decoding_past", figures.past_inputs_figure(table, subject.name))
    now = figures.entries_figure(table, subject.name)
    if now is not None:
        subject.run.save_figure("decoding_now", now)


def analyze_ablations(subject: AnalysisContext) -> None:
    """Write the return of the same episodes with the memory zeroed, frozen and shuffled."""
    trained = subject.trained
    part = ablated_part(trained.network.core)
    assert part is not None
    if part != "M":
        subject.run.message(f"{subject.core} has no M: its {part} is zeroed, frozen and shuffled instead")
    table = ablate(
        trained.network,
        trained.env_id,
        subject.episodes,
        max_steps=trained.max_steps,
        options=trained.options,
        seed=derived_seed(subject.run.seed, "ablations"),
    )
    summary = summarise_ablations(table)
    for row in summary.to_dict("records"):
        measured = {"return": row["mean"], "return_low": row["low"], "return_high": row["high"]}
        subject.log({"ablation": row["ablation"]}, {**measured, "difference": row["difference"]})
    subject.run.save_table("ablations", table.assign(part=part))
    freezes = freezing_step(subject.episodes)
    subject.run.save_table("ablations_mean", summary.assign(part=part, freezing_step=freezes))
    subject.run.save_figure("ablations", figures.ablation_figure(table, summary, part, freezes, subject.name))


def _missing(switch: str, subject: AnalysisContext) -> str | None:
    """Return what this network or these episodes lack for a part, or None."""
    if switch == "--m-matrix" and subject.episodes[0].matrices is None:
        return f"the core {subject.core} has no M; --pca and --decode look at its hidden state."
    if switch == "--decode" and len(subject.episodes) < FEWEST_EPISODES:
        return f"it reads some episodes with what it learned from others, and needs --episodes {FEWEST_EPISODES}."
    if switch == "--ablate" and ablated_part(subject.trained.network.core) is None:
        return f"the core {subject.core} has no memory that could be taken away."
    return None
