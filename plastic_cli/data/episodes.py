"""Episodes of few-shot learning: a few classes, with training images (shots) and test images (queries) of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from plastic_cli.data.datasets import Split
from plastic_cli.errors import UserError


@dataclass(frozen=True, eq=False)
class Episode:
    """One episode.

    classes: (ways,), classes of the data set. x (ways * shots, features), y (ways * shots,): training images and labels
    in the order of training. query_x (ways * queries, features), query_y (ways * queries,): test images and labels. The
    labels are classes of the data set.
    """

    classes: Tensor
    x: Tensor
    y: Tensor
    query_x: Tensor
    query_y: Tensor

    def with_own_labels(self) -> Episode:
        """Return the episode with labels from 0 to ways - 1, the indices into `classes`."""
        order = torch.argsort(self.classes)
        ranks = self.classes[order]
        y, query_y = (order[torch.searchsorted(ranks, labels)] for labels in (self.y, self.query_y))
        return Episode(self.classes, self.x, y, self.query_x, query_y)


class Episodes:
    """Draws episodes from one split of a data set.

    classes: the classes to draw from, all of the split if None. ways: classes per episode. shots, queries: training and
    test images per class; no image is both. replacement: draw classes with replacement; a class that occurs twice has
    the same images. first_images: always use the first images of a class, in the order of the split. name: name of the
    split in errors.

    Raises UserError if there are too few classes or images.
    """

    def __init__(
        self,
        split: Split,
        *,
        ways: int,
        shots: int,
        queries: int,
        classes: Sequence[int] | None = None,
        replacement: bool = False,
        first_images: bool = False,
        name: str = "the data",
    ) -> None:
        self.split = split
        self.classes = torch.tensor(sorted(split.y.unique().tolist() if classes is None else classes))
        self.ways, self.shots, self.queries = ways, shots, queries
        self.replacement, self.first_images = replacement, first_images
        if ways > len(self.classes) and not replacement:
            available = len(self.classes)
            raise UserError(f"an episode of {ways} classes cannot be drawn from {available}: ask for fewer ways.")
        y = split.y.cpu()
        self._images = {int(label): torch.nonzero(y == label)[:, 0] for label in self.classes.tolist()}
        needed = shots + queries
        for label, images in self._images.items():
            if len(images) < needed:
                raise UserError(
                    f"class {label} has {len(images)} images in {name}, and {shots} shots and {queries} queries need"
                    f" {needed}: ask for fewer of them."
                )

    def draw(self, generator: torch.Generator) -> Episode:
        """Draw one episode."""
        count = len(self.classes)
        if self.replacement:
            picked = torch.randint(count, (self.ways,), generator=generator)
        else:
            picked = torch.randperm(count, generator=generator)[: self.ways]
        classes = self.classes[picked]
        shots, queries = [], []
        chosen: dict[int, Tensor] = {}
        for label in classes.tolist():
            images = self._images[label]
            if not self.first_images and label not in chosen:
                images = images[torch.randperm(len(images), generator=generator)]
            # A class that occurs twice has the same shots and queries: no query is a training image.
            images = chosen.setdefault(label, images)
            shots.append(images[: self.shots])
            queries.append(images[self.shots : self.shots + self.queries])
        order = torch.randperm(self.ways * self.shots, generator=generator)
        support, query = torch.cat(shots)[order], torch.cat(queries)
        split, device = self.split, self.split.x.device
        support, query = support.to(device), query.to(device)
        return Episode(classes.to(device), split.x[support], split.y[support], split.x[query], split.y[query])
