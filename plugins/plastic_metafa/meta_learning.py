"""Meta-learning: theta by Adam, through whole adaptations of fresh networks; and the test at its end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from plastic_cli import RunFailed, UserError
from plastic_cli.data.datasets import Dataset, Split, load_dataset
from plastic_cli.data.episodes import Episode, Episodes
from plastic_cli.numerics.clock import training_clock
from plastic_metafa import rule
from plastic_metafa.adaptation import (
    Adapted,
    Network,
    Plasticity,
    adapt_to,
    draw_network,
    feedback_errors,
    in_threads,
)
from plastic_metafa.history import WINDOW, history, keeps_its_sign, rises_from, settled_from, strengths
from plastic_metafa.theta_file import Feedback, read_theta, theta_toml

if TYPE_CHECKING:
    import pandas as pd

    from plastic_cli import Run
    from plastic_cli.runs.metrics import MeasuredOn
    from plastic_metafa.commands import Train

THETA_FILE = "theta.toml"
RATES = (0.001, 0.002, 0.003, 0.005, 0.007, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1)
"""Learning rates that backprop and feedback alignment may choose from."""
TUNING_EPISODES = 20
CONTROLS: dict[str, Feedback] = {"control": "fixed", "backprop": "symmetric"}
"""Split under which a control is logged, and its feedback: feedback alignment, and backprop."""
PUBLISHED_LEFT = (0, 2, 9)
"""The terms that the published pool is left with."""
LOST = 0.02
"""A term counts as needed where the accuracy without it is lower by this at least."""
CLEARLY_ABOVE = 0.05
"""How far above feedback alignment's accuracy meta-learning counts as having passed it."""
NEAR_BACKPROP = 0.05
"""How far below backprop's accuracy meta-learning counts as having reached it."""
LARGEST_GRADIENT = 1e4
"""Norm of the gradient beyond which networks broke down: hundreds are usual, and Adam would remember for long."""
CAUTION = 0.9
"""By which theta shrinks for each episode in a row in which networks break down."""
MOST_BROKEN = 10
"""Episodes in a row with a gradient that is not finite, before a run gives up."""


@dataclass(frozen=True)
class Setting:
    """What episodes and networks are made of. outputs: units of the output layer; own_labels: those of the episode."""

    train: Episodes
    test: Episodes
    sizes: tuple[int, ...]
    own_labels: bool

    def draw(self, episodes: Episodes, generator: torch.Generator) -> Episode:
        """Draw an episode, its labels those of the output units."""
        episode = episodes.draw(generator)
        return episode.with_own_labels() if self.own_labels else episode


def setting_of(config: Train, data: Dataset, run: Run) -> Setting:
    """Return what the run of a configuration learns from.

    Raises UserError where the data set has too few classes or images.
    """
    train, test = as_pixels(data, data.train, config.image_size), as_pixels(data, data.test, config.image_size)
    seen, held_out = split_classes(data.classes, config.held_out_classes, run)
    if len(seen) < config.ways and not config.reference_sampling:
        raise UserError(
            f"{data.name} has {data.classes} classes; {len(held_out)} held out leave {len(seen)}, fewer than --ways"
            f" {config.ways}. Ask for fewer ways or --held-out-classes."
        )
    if 0 < len(held_out) < config.ways:
        raise UserError(
            f"--held-out-classes {len(held_out)}: the test draws {config.ways} of them. Hold out at least that many, or"
            " 0 to test on other images of the same classes."
        )
    # Meta-learning sees no image of a class that is held out, so that those of both splits may test.
    unseen = Split(torch.cat([train.x, test.x]), torch.cat([train.y, test.y])) if held_out else test
    reference = config.reference_sampling

    def episodes(split: Split, classes: list[int], name: str) -> Episodes:
        return Episodes(
            split,
            classes=classes,
            ways=config.ways,
            shots=config.shots,
            queries=config.queries,
            replacement=reference,
            first_images=reference,
            name=name,
        )

    return Setting(
        episodes(*((test, seen, "the test split") if reference else (train, seen, "the training split"))),
        episodes(unseen, held_out or seen, "both splits together" if held_out else "the test split"),
        (train.x.shape[1], *config.hidden, data.classes if config.outputs == "all" else config.ways),
        config.outputs == "episode",
    )


def split_classes(classes: int, held_out: int, run: Run) -> tuple[list[int], list[int]]:
    """Return the classes that meta-learning sees and those that it does not, by the run's seed."""
    order = torch.randperm(classes, generator=run.generator("held-out classes")).tolist()
    return sorted(order[held_out:]), sorted(order[:held_out])


def as_pixels(data: Dataset, split: Split, size: int) -> Split:
    """Return a split with pixels from 0 to 1, as published, `size` a side (0: as they are)."""
    x = data.to_pixels(split.x)
    if size and (size, size) != data.image_shape[1:]:
        images = x.view(-1, *data.image_shape)
        x = functional.interpolate(images, (size, size), mode="bilinear", antialias=True).flatten(1)
    return Split(x, split.y)


def meta_learn(config: Train, run: Run) -> None:
    """Learn theta and test it. Raises RunFailed where networks break down in episode after episode."""
    data = load_dataset(config.dataset, run.data_folder, device=run.device)
    run.describe_data(**data.description())
    if data.note:
        run.message(data.note)
    setting = setting_of(config, data, run)
    plasticity = Plasticity(config.terms, config.feedback)
    theta = nn.Parameter(torch.zeros(len(config.terms), dtype=torch.float64))
    optimizer = torch.optim.Adam([theta], lr=config.meta_lr)
    learned = nn.ParameterDict({"theta": theta})
    networks, draws = run.generator("networks"), run.generator("episodes")
    if run.begins("episode"):
        _begin(theta, config)
    # The last theta under which networks did not break down.
    learned["last"] = nn.Parameter(theta.detach().clone(), requires_grad=False)
    last = learned["last"]
    run.track(theta=learned, optimizer=optimizer, networks=networks, episodes=draws)
    broken = 0
    for _ in run.steps(config.episodes, "episode"):
        began = training_clock()
        drawn = [
            (
                draw_network(setting.sizes, config.feedback, networks, device=run.device),
                setting.draw(setting.train, draws),
            )
            for _ in range(config.tasks)
        ]
        found = _adapt_all(drawn, theta, plasticity, gradient=True)
        gradient = torch.stack([one.gradient for one in found if one.gradient is not None]).mean(0)
        before = theta.detach().clone()
        # False for NaN as well.
        if gradient.norm() < LARGEST_GRADIENT:
            broken = 0
            last.copy_(theta.detach())
            theta.grad = gradient + config.l1 * theta.detach().sign()
            optimizer.step()
        else:
            # Networks broke down under this theta: back to the last sound one, and more cautious each time.
            broken += 1
            with torch.no_grad():
                theta.copy_(CAUTION**broken * last)
        if broken == MOST_BROKEN:
            raise RunFailed(
                f"networks broke down in {broken} episodes in a row. Try a smaller --meta-lr, or other terms."
            )
        run.count_samples(config.tasks * config.ways * config.shots, training_clock() - began)
        _log_episode(run, config, before, found, drawn)
    learned_strengths = dict(zip(config.terms, theta.detach().tolist(), strict=True))
    heading = f"learned by run {run.id}: {config.episodes} episodes of {data.name}, seed {run.seed}"
    save_text(run, THETA_FILE, theta_toml(learned_strengths, config.feedback, heading))
    _test(config, run, setting, theta.detach(), plasticity)


def save_text(run: Run, name: str, text: str) -> None:
    """Write a text into the artifacts of a run."""
    from plastic_cli.files import write_atomically

    path = run.folder / "artifacts" / name
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, text.encode())


def _begin(theta: nn.Parameter, config: Train) -> None:
    """Give theta its first values: those of --theta, or --initial-rate for the pseudo-gradient and 0 for others."""
    given: Mapping[int, float] = {0: config.initial_rate} if config.theta is None else read_theta(config.theta).theta
    with torch.no_grad():
        for place, term in enumerate(config.terms):
            theta[place] = given.get(term, 0.0)


def _adapt_all(
    drawn: Sequence[tuple[Network, Episode]], theta: Tensor, plasticity: Plasticity, *, gradient: bool = False
) -> list[Adapted]:
    return in_threads(lambda number: adapt_to(*drawn[number], theta, plasticity, gradient=gradient), len(drawn))


def _log_episode(
    run: Run, config: Train, theta: Tensor, found: Sequence[Adapted], drawn: Sequence[tuple[Network, Episode]]
) -> None:
    """Log what an episode's networks came to with the theta that they learned with."""
    loss = torch.stack([one.loss for one in found]).mean()
    accuracy = torch.stack([one.accuracy for one in found]).mean()
    measured = {f"theta_{term}": value for term, value in zip(config.terms, theta.tolist(), strict=True)}
    if loss.isfinite():
        measured["loss"] = float(loss)
    run.log("train", None, _learned_from(config), accuracy=accuracy, **measured)
    network, episode = drawn[0]
    for layer, values in layer_measures(Network(found[0].W, network.B), episode, config.feedback).items():
        run.log("train", {"layer": layer}, **values)


def _learned_from(config: Train) -> MeasuredOn:
    """Return the data that meta-learning draws its episodes from: the published program takes the test split."""
    return "test" if config.reference_sampling else "train"


@torch.no_grad()
def layer_measures(network: Network, episode: Episode, feedback: Feedback) -> dict[int, dict[str, float]]:
    """Return for each hidden layer, from 1, how an adapted network's errors on queries compare with backprop's.

    angle: in degrees, between the errors by `feedback` and by backprop, each the mean over queries, as published.
    angle_by_sample: mean over queries of the angle of each. orthonormality: E_W (11, 12), mean over queries; the
    output layer has it too.
    """
    W, B = network
    y = rule.forward(W, episode.query_x)
    target = functional.one_hot(episode.query_y, W[-1].shape[0]).to(y[-1].dtype)
    e = feedback_errors(W, B, feedback, y, target)
    by_backprop = rule.errors(W, y, target)
    measures: dict[int, dict[str, float]] = {}
    for layer in range(1, len(W) + 1):
        found = {"orthonormality": rule.orthonormality(W[layer - 1], y[layer - 1], y[layer]).mean()}
        if layer < len(W):
            found["angle"] = degrees(e[layer].mean(0), by_backprop[layer].mean(0))
            found["angle_by_sample"] = degrees(e[layer], by_backprop[layer]).mean()
        measures[layer] = {name: float(value) for name, value in found.items()}
    return measures


def degrees(a: Tensor, b: Tensor) -> Tensor:
    """Return the angle between a and b (..., n) in degrees, (...,)."""
    return torch.rad2deg(torch.acos(functional.cosine_similarity(a.double(), b.double(), -1).clamp(-1, 1)))


# -------------------------------------------------------------------------------------------------------- the test


class Bench:
    """The same fresh networks and episodes for every rule that is to be compared.

    Networks and feedback are drawn alike for every rule; episodes come from `episodes`.
    """

    def __init__(self, setting: Setting, episodes: Episodes, count: int, run: Run, purpose: str) -> None:
        self.setting, self.device = setting, run.device
        draws = run.generator(f"{purpose} episodes")
        self.episodes = [setting.draw(episodes, draws) for _ in range(count)]
        states = run.generator(f"{purpose} networks")
        self.seeds = torch.randint(2**62, (count,), generator=states).tolist()

    def network(self, number: int, feedback: Feedback) -> Network:
        """Draw the network of one episode."""
        generator = torch.Generator().manual_seed(self.seeds[number])
        return draw_network(self.setting.sizes, feedback, generator, device=self.device)

    def adapted(self, theta: Tensor, plasticity: Plasticity) -> list[Adapted]:
        """Adapt with theta (terms,) to every episode, each with its network."""

        def one(number: int) -> Adapted:
            network = self.network(number, plasticity.feedback)
            return adapt_to(network, self.episodes[number], theta, plasticity)

        return in_threads(one, len(self.episodes))

    def measure(self, theta: Tensor, plasticity: Plasticity) -> tuple[Tensor, Tensor]:
        """Adapt with theta (terms,); return accuracy and loss of each episode."""
        found = self.adapted(theta, plasticity)
        return torch.stack([each.accuracy for each in found]), torch.stack([each.loss for each in found])

    def measure_rate(self, rate: float, feedback: Feedback) -> tuple[Tensor, Tensor]:
        """Adapt with the pseudo-gradient alone, at `rate`."""
        return self.measure(torch.tensor([rate], dtype=torch.float64), Plasticity((0,), feedback))

    def layers(self, theta: Tensor, plasticity: Plasticity) -> tuple[float, float]:
        """Adapt with theta (terms,); return means over hidden layers and episodes: the angle, and log10 E_W."""
        angles, rests = [], []
        for number, adapted in enumerate(self.adapted(theta, plasticity)):
            network = Network(adapted.W, self.network(number, plasticity.feedback).B)
            measured = layer_measures(network, self.episodes[number], plasticity.feedback)
            hidden = [values for values in measured.values() if "angle" in values]
            angles += [values["angle"] for values in hidden]
            rests += [math.log10(max(values["orthonormality"], 1e-30)) for values in hidden]
        return sum(angles) / len(angles), sum(rests) / len(rests)


def best_rate(bench: Bench, feedback: Feedback) -> float:
    """Return the rate of RATES with which the pseudo-gradient alone comes to the highest mean accuracy."""
    accuracies = [float(bench.measure_rate(rate, feedback)[0].mean()) for rate in RATES]
    return RATES[max(range(len(RATES)), key=accuracies.__getitem__)]


def _test(config: Train, run: Run, setting: Setting, theta: Tensor, plasticity: Plasticity) -> None:
    """Log what fresh networks learn in fresh episodes with theta, and with backprop and feedback alignment.

    The rates of these controls are chosen on other episodes, of the classes that meta-learning saw.
    """
    bench = Bench(setting, setting.test, config.test_episodes, run, "test")
    tuning = Bench(setting, setting.train, TUNING_EPISODES, run, "tuning")
    accuracy, loss = (float(values.mean()) for values in bench.measure(theta, plasticity))
    reached = {}
    for split, feedback in CONTROLS.items():
        rate = best_rate(tuning, feedback)
        reached[split] = float(bench.measure_rate(rate, feedback)[0].mean())
        alone = torch.tensor([rate], dtype=torch.float64)
        angle, orthonormality_error = bench.layers(alone, Plasticity((0,), feedback))
        run.log(
            split,
            None,
            "test",
            accuracy=reached[split],
            rate=rate,
            angle=angle,
            log10_orthonormality_error=orthonormality_error,
        )
    angle, orthonormality_error = bench.layers(theta, plasticity)
    run.log(
        "test",
        None,
        accuracy=accuracy,
        above_feedback_alignment=accuracy - reached["control"],
        below_backprop=reached["backprop"] - accuracy,
        angle=angle,
        log10_orthonormality_error=orthonormality_error,
        # Of a network that answers with the episode's classes alone.
        chance=1 / config.ways,
        chance_of_all_outputs=1 / setting.sizes[-1],
    )
    if math.isfinite(loss):
        run.log("test", None, loss=loss)
    episodes = history(run)
    _log_terms(run, config, episodes, bench, theta, plasticity)
    _log_course(run, config, episodes, reached)


def _log_terms(
    run: Run, config: Train, episodes: pd.DataFrame, bench: Bench, theta: Tensor, plasticity: Plasticity
) -> None:
    """Log how many terms the accuracy on test episodes needs, and how many L1 leaves other than 0.

    For a pool that has the published terms and others, also the share of terms whose fate is the published one.
    """
    needed = needed_terms(bench, theta, plasticity)
    curves = strengths(episodes)
    nonzero = [term for term in config.terms if keeps_its_sign(curves.loc[curves["term"] == term, "value"])]
    run.log("test", None, terms_needed=len(needed))
    run.log("train", None, _learned_from(config), terms_nonzero=len(nonzero))
    if set(config.terms) > set(PUBLISHED_LEFT):
        run.log("test", None, needed_as_published=share_as_published(config.terms, needed))
        share = share_as_published(config.terms, nonzero)
        run.log("train", None, _learned_from(config), nonzero_as_published=share)


def needed_terms(bench: Bench, theta: Tensor, plasticity: Plasticity) -> list[int]:
    """Return the terms without which networks lose at least LOST of their accuracy."""
    whole = bench.measure(theta, plasticity)[0].mean()
    needed = []
    for place, term in enumerate(plasticity.terms):
        without = theta.clone()
        without[place] = 0
        if float(whole - bench.measure(without, plasticity)[0].mean()) >= LOST:
            needed.append(term)
    return needed


def share_as_published(terms: Sequence[int], left: Sequence[int]) -> float:
    """Return the share of `terms` that are left where the publication leaves them, and gone where it does not."""
    return sum((term in left) == (term in PUBLISHED_LEFT) for term in terms) / len(terms)


def _log_course(run: Run, config: Train, episodes: pd.DataFrame, reached: Mapping[str, float]) -> None:
    """Log from which episode on meta-learning passes feedback alignment, comes near backprop, and keeps theta_0.

    episodes: of `history`. reached: the accuracy of the controls on test episodes. What does not happen counts as one
    episode more than there are.
    """
    accuracy = episodes.loc[episodes["metric"] == "accuracy", "value"]
    course = {
        "passes_feedback_alignment": rises_from(accuracy, reached["control"] + CLEARLY_ABOVE),
        "reaches_backprop": rises_from(accuracy, reached["backprop"] - NEAR_BACKPROP, window=WINDOW),
    }
    run.log("test", None, **course)
    if 0 in config.terms:
        course["theta_0_settled"] = settled_from(episodes.loc[episodes["metric"] == "theta_0", "value"])
        run.log("train", None, _learned_from(config), theta_0_settled=course["theta_0_settled"])
    never = [name for name, episode in course.items() if episode > config.episodes]
    if never:
        run.message(f"{' and '.join(never)}: not within {config.episodes} episodes, and so counted as one more")
