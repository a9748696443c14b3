"""The episodes and networks of a run: classes, images and layer sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from plastic_cli import UserError
from plastic_cli.data.datasets import Dataset, Split
from plastic_cli.data.episodes import Episode, Episodes

if TYPE_CHECKING:
    from plastic_cli import Run
    from plastic_cli.runs.metrics import MeasuredOn
    from plastic_metafa.config import Train


class Classes(NamedTuple):
    """Classes to draw episodes from: `train` for meta-learning and to tune the controls, `test` for the test.

    unseen: meta-learning sees no image of the test classes, so that the images of both splits can be tested on.
    """

    train: list[int]
    test: list[int]
    unseen: bool


@dataclass(frozen=True)
class Setting:
    """The episodes and networks that a rule is trained and tested on.

    train, test: the sources of episodes. sizes: units of each layer, from input to output. own_labels: the outputs are
    the classes of the episode, not those of the data set. passes: passes over the training images of an episode, each
    in a new random order.
    """

    train: Episodes
    test: Episodes
    sizes: tuple[int, ...]
    own_labels: bool
    passes: int = 1

    def draw(self, episodes: Episodes, generator: torch.Generator) -> Episode:
        """Draw an episode whose labels are indices of the output units."""
        episode = episodes.draw(generator)
        if self.own_labels:
            episode = episode.with_own_labels()
        if self.passes == 1:
            return episode
        count = len(episode.y)
        order = torch.cat([torch.randperm(count, generator=generator) for _ in range(self.passes)]).to(episode.y.device)
        return Episode(episode.classes, episode.x[order], episode.y[order], episode.query_x, episode.query_y)


def training_setting(config: Train, data: Dataset, run: Run) -> Setting:
    """Return the setting of a training run; raises UserError if the data set has too few classes or images."""
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
    return make_setting(config, data, Classes(seen, held_out or seen, unseen=bool(held_out)))


def make_setting(config: Train, data: Dataset, classes: Classes, *, passes: int = 1) -> Setting:
    """Return the setting of a configuration on a data set; raises UserError if there are too few classes or images."""
    train, test = as_pixels(data, data.train, config.image_size), as_pixels(data, data.test, config.image_size)
    both = Split(torch.cat([train.x, test.x]), torch.cat([train.y, test.y])) if classes.unseen else None
    reference = config.reference_sampling

    def episodes(split: Split, chosen: list[int], name: str) -> Episodes:
        return Episodes(
            split,
            classes=chosen,
            ways=config.ways,
            shots=config.shots,
            queries=config.queries,
            replacement=reference,
            first_images=reference,
            name=name,
        )

    train_images, train_name = (test, "the test split") if reference else (train, "the training split")
    test_images, test_name = (test, "the test split") if both is None else (both, "both splits together")
    return Setting(
        episodes(train_images, classes.train, train_name),
        episodes(test_images, classes.test, test_name),
        (train.x.shape[1], *config.hidden, data.classes if config.outputs == "all" else config.ways),
        config.outputs == "episode",
        passes,
    )


def measured_on(config: Train) -> MeasuredOn:
    """Return the split that training episodes come from: the published program draws them from the test split."""
    return "test" if config.reference_sampling else "train"


def split_classes(classes: int, held_out: int, run: Run) -> tuple[list[int], list[int]]:
    """Return the classes that meta-learning sees and the held-out ones. The seed of the run decides."""
    order = torch.randperm(classes, generator=run.generator("held-out classes")).tolist()
    return sorted(order[held_out:]), sorted(order[:held_out])


def as_pixels(data: Dataset, split: Split, size: int) -> Split:
    """Return a split with the images of `pixels_of`."""
    return Split(pixels_of(data, split.x, size), split.y)


def pixels_of(data: Dataset, x: Tensor, size: int) -> Tensor:
    """Return images with pixels from 0 to 1 (published), resized to `size` x `size`; 0 keeps the size."""
    x = data.to_pixels(x)
    if size and (size, size) != data.image_shape[1:]:
        images = x.view(-1, *data.image_shape)
        x = functional.interpolate(images, (size, size), mode="bilinear", antialias=True).flatten(1)
    return x
