"""Replay buffers: images that are stored and mixed into later batches."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plastic_cli.errors import PlasticError, UserError, did_you_mean
from plastic_cli.numerics.kernels import Kernels

BufferKind = Literal["none", "reservoir", "class-balanced", "fifo"]
Array = NDArray[Any]

ONE_STRATUM = np.zeros(1, np.int64)

kernel = Kernels(Path(__file__)).kernel


class Batch(NamedTuple):
    """Images x (n, features), labels y (n,) as outputs, and groups (n,): the class, or the class within a task."""

    x: Tensor
    y: Tensor
    group: Tensor


class Buffer:
    """At most `capacity` images in tensors on `device`. Subclasses decide which images are kept.

    Random numbers come from `generator` on the CPU, so that a seed keeps the same images on every device.
    """

    def __init__(
        self,
        capacity: int,
        features: int,
        groups: int,
        generator: torch.Generator,
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.capacity = capacity
        self._size = 0
        self._groups = groups
        self._generator = generator
        self._stored = Batch(
            torch.zeros(capacity, features, dtype=dtype, device=device),
            torch.zeros(capacity, dtype=torch.int64, device=device),
            torch.zeros(capacity, dtype=torch.int64, device=device),
        )
        on_cpu = self._stored.x.device.type == "cpu"
        self._views: tuple[Array, ...] | None = tuple(part.numpy() for part in self._stored) if on_cpu else None
        # The places that hold an image, in any order: sampling shuffles them.
        self._occupied: NDArray[np.int64] = np.zeros(capacity, np.int64)

    def __len__(self) -> int:
        """Return the number of images."""
        return self._size

    def add(self, x: Tensor, y: Tensor, group: Tensor) -> None:
        """Add images x (n, features), y (n,) and group (n,) int64, on any device, in this order.

        A class-balanced buffer reads the groups on the CPU, which waits once for a GPU. Other buffers do not wait.

        Raises UserError if shapes do not fit, or if a group is out of range.
        """
        count, stored = len(x), self._stored
        if x.shape[1:] != stored.x.shape[1:] or y.shape != (count,) or group.shape != (count,):
            raise UserError(
                f"images {tuple(x.shape)}, y {tuple(y.shape)} and groups {tuple(group.shape)} do not fit a buffer of "
                f"{stored.x.shape[1]} features: give (n, features), (n,) and (n,)."
            )
        if not count:
            return
        places = self._place(group)
        if self._views is not None:
            arrays = [
                np.ascontiguousarray(values.detach().to("cpu", part.dtype).numpy())
                for values, part in zip((x, y, group), stored, strict=True)
            ]
            write(places, *arrays, *self._views)
            return
        kept = torch.from_numpy(np.flatnonzero(places >= 0))
        if not len(kept):
            return
        target = torch.from_numpy(places)[kept].to(stored.x.device, non_blocking=True)
        for part, values in zip(stored, (x, y, group), strict=True):
            part.index_copy_(0, target, values.detach()[kept.to(values.device, non_blocking=True)].to(part))

    def _place(self, group: Tensor) -> NDArray[np.int64]:
        """Return the place of each image (n,), -1 for images that are not kept. No place occurs twice."""
        raise NotImplementedError

    def sample(self, count: int) -> Batch | None:
        """Return min(count, len) different images, drawn uniformly, in random order; None if the buffer is empty."""
        count = min(count, self._size)
        if count <= 0:
            return None
        chance = torch.rand(count, dtype=torch.float64, generator=self._generator).numpy()
        shuffle_first(self._occupied, self._size, chance)
        x, y, group = self._stored
        index = torch.from_numpy(self._occupied[:count].copy()).to(x.device, non_blocking=True)
        return Batch(x.index_select(0, index), y.index_select(0, index), group.index_select(0, index))

    def groups(self) -> Tensor:
        """Return the number of images of each group: (groups,) int64, on the CPU."""
        occupied = torch.from_numpy(self._occupied[: self._size])
        return torch.bincount(self._stored.group.cpu()[occupied], minlength=self._groups)

    def state_dict(self) -> dict[str, Any]:
        """Return the images, their places, and the state of the generator."""
        occupied = torch.from_numpy(self._occupied[: self._size].copy())
        index = occupied.to(self._stored.x.device)
        images = {name: part.index_select(0, index) for name, part in self._stored._asdict().items()}
        return {
            **images,
            "occupied": occupied,
            "capacity": self.capacity,
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned. Raises PlasticError if it is the state of another buffer."""
        occupied = state["occupied"].cpu()
        if state["capacity"] != self.capacity or state["x"].shape[1:] != self._stored.x.shape[1:]:
            raise PlasticError(
                f"the state does not fit a buffer of capacity {self.capacity}: make the buffer with the same options."
            )
        self._size = len(occupied)
        self._occupied[: self._size] = occupied.numpy()
        for name, part in self._stored._asdict().items():
            part[occupied.to(part.device)] = state[name].to(part)
        self._generator.set_state(state["generator"].cpu())


class Reservoir(Buffer):
    """Algorithm R (Vitter 1985, ACM TOMS 11, 37-57) within each of `strata` equal parts of the buffer.

    With one stratum, all images that were ever added are kept with the same probability. With a stratum for each group,
    every group has `capacity // groups` places (a class-balanced buffer). Places of groups without images stay empty,
    and the remainder of the division is not used. An image that is added in several epochs counts each time.
    """

    def __init__(
        self,
        capacity: int,
        features: int,
        groups: int,
        generator: torch.Generator,
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
        *,
        strata: int = 1,
    ) -> None:
        self._quota = capacity // strata
        super().__init__(self._quota * strata, features, groups, generator, device, dtype)
        self._seen: NDArray[np.int64] = np.zeros(strata, np.int64)
        self._newest: NDArray[np.int64] = np.zeros(self.capacity, np.int64)

    def _place(self, group: Tensor) -> NDArray[np.int64]:
        stratum, strata = ONE_STRATUM, len(self._seen)
        if strata > 1:
            stratum = np.ascontiguousarray(group.numpy(force=True), np.int64)
            lowest, highest = stratum.min(), stratum.max()
            if lowest < 0 or highest >= strata:
                raise UserError(f"groups {lowest} to {highest} do not fit a buffer with the groups 0 to {strata - 1}.")
        chance = torch.rand(len(group), dtype=torch.float64, generator=self._generator).numpy()
        places, self._size = algorithm_r(
            stratum, chance, self._quota, self._seen, self._occupied, self._size, self._newest
        )
        return places

    def state_dict(self) -> dict[str, Any]:
        """Return the images, their places, the number of images seen, and the state of the generator."""
        return {**super().state_dict(), "seen": torch.from_numpy(self._seen.copy())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned. Raises PlasticError if it is the state of another buffer."""
        seen: NDArray[np.int64] = state["seen"].cpu().numpy()
        # The kernel does not check the places to which it writes.
        filled = np.clip(seen, 0, self._quota).sum()
        if seen.shape != self._seen.shape or filled != len(state["occupied"]):
            raise PlasticError(
                f"the state does not fit a buffer of {len(self._seen)} parts: make the buffer with the same options."
            )
        super().load_state_dict(state)
        self._seen[:] = seen


class FirstInFirstOut(Buffer):
    """The last `capacity` images that were added. `surviving_share` computes how long those of an earlier task stay."""

    _next = 0
    """The place of the next image."""

    def _place(self, group: Tensor) -> NDArray[np.int64]:
        count = len(group)
        places = np.arange(self._next, self._next + count) % self.capacity
        places[: max(0, count - self.capacity)] = -1
        self._next = (self._next + count) % self.capacity
        size = min(self._size + count, self.capacity)
        self._occupied[self._size : size] = np.arange(self._size, size)
        self._size = size
        return places

    def state_dict(self) -> dict[str, Any]:
        """Return the images, their places, the place of the next image, and the state of the generator."""
        return {**super().state_dict(), "next": self._next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned. Raises PlasticError if it is the state of another buffer."""
        super().load_state_dict(state)
        self._next = int(state["next"])


def make_buffer(
    kind: BufferKind,
    capacity: int,
    features: int,
    groups: int,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Buffer | None:
    """Return an empty buffer for images of the type `dtype`, or None for "none".

    reservoir: every added image is kept with the same probability. class-balanced: a reservoir of capacity // groups
    images for each group. fifo: the last `capacity` images.

    Raises UserError for an unknown kind, a capacity below 1, or one below the number of groups that share it.
    """
    kinds = get_args(BufferKind)
    if kind not in kinds:
        raise UserError(f"unknown buffer '{kind}'.{did_you_mean(kind, kinds)} Choose one of {', '.join(kinds)}.")
    if kind == "none":
        return None
    if capacity < 1:
        raise UserError(
            f"the capacity of the buffer is {capacity}: it must be at least 1. Choose the buffer 'none' for no replay."
        )
    if kind == "class-balanced" and capacity < groups:
        raise UserError(
            f"a class-balanced buffer of capacity {capacity} is too small for {groups} groups: "
            f"use a capacity of at least {groups}, or the buffer 'reservoir'."
        )
    if kind == "fifo":
        return FirstInFirstOut(capacity, features, groups, generator, device, dtype)
    strata = groups if kind == "class-balanced" else 1
    return Reservoir(capacity, features, groups, generator, device, dtype, strata=strata)


class ReplayBuffer:
    """Stored images for replay in a training loop of the user's own, as the published program documents it.

        memory = ReplayBuffer(capacity=2000)
        for data, target in loader:
            if len(memory):
                replay_data, replay_target = memory.sample(32)
                ...
            memory.add(data, target)

    The buffers of `plastic train selective --replay KIND` keep the images. kind: "reservoir" (a random sample of all
    images so far), "class-balanced" (the same number of places for each of `classes` classes; targets are class
    numbers), or "fifo" (the last images). seed: of the random numbers. The first batch sets the shape of the images,
    their type and the device of the buffer.

    Raises UserError for an unknown kind and for an impossible capacity.
    """

    def __init__(
        self, capacity: int, kind: BufferKind = "reservoir", *, classes: int | None = None, seed: int = 0
    ) -> None:
        if kind == "none" or (kind == "class-balanced") != (classes is not None):
            raise UserError(
                f"a ReplayBuffer of the kind '{kind}' with {classes or 'no number of'} classes: choose reservoir or"
                " fifo, or class-balanced with the number of classes."
            )
        self.capacity, self.kind, self.classes = capacity, kind, classes
        self._generator = torch.Generator().manual_seed(seed)
        self._like: Tensor | None = None
        # Also checks the arguments. The real one is made when the size of an image is known.
        self._buffer = self._make(0, torch.empty(0))

    def _make(self, features: int, like: Tensor) -> Buffer:
        """Return an empty buffer on the device of `like`, which keeps its values exactly."""
        # The kernels have no numbers of 16 bits.
        dtype = torch.float32 if like.dtype in (torch.float16, torch.bfloat16) else like.dtype
        groups, drawn = self.classes or 1, self._generator
        made = make_buffer(self.kind, self.capacity, features, groups, drawn, like.device, dtype)
        assert made is not None
        return made

    def __len__(self) -> int:
        """Return the number of stored images."""
        return len(self._buffer)

    def add(self, data: Tensor, target: Tensor) -> None:
        """Add images (n, ...) and their targets (n,), integers, in this order.

        Raises UserError if the images have another shape than the first ones, or if a target is not a class number.
        """
        if self._like is None:
            self._like = data.detach()[:0].clone()
            self._buffer = self._make(math.prod(data.shape[1:]), data)
        elif data.shape[1:] != self._like.shape[1:]:
            raise UserError(f"images {tuple(data.shape[1:])} do not fit a buffer of images {self._like.shape[1:]}.")
        group = target if self.kind == "class-balanced" else torch.zeros_like(target)
        self._buffer.add(data.detach().reshape(len(data), math.prod(data.shape[1:])), target, group)

    add_batch = add

    def sample(self, count: int) -> tuple[Tensor, Tensor]:
        """Return min(count, len) different images and their targets, drawn uniformly, in random order.

        Raises UserError if nothing was added yet.
        """
        if self._like is None:
            raise UserError("the replay buffer is empty: add images first, or check len(buffer).")
        drawn = self._buffer.sample(count)
        if drawn is None:
            return self._like, torch.zeros(0, dtype=torch.int64, device=self._like.device)
        return drawn.x.to(self._like.dtype).view(-1, *self._like.shape[1:]), drawn.y

    def state_dict(self) -> dict[str, Any]:
        """Return the images, their places, and the state of the generator."""
        return {"like": self._like, "buffer": self._buffer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned. Raises PlasticError if it is the state of another buffer."""
        self._like = state["like"]
        features = 0 if self._like is None else math.prod(self._like.shape[1:])
        self._buffer = self._make(features, torch.empty(0) if self._like is None else self._like)
        self._buffer.load_state_dict(state["buffer"])


MemoryBuffer = ReplayBuffer
"""Another name that the published program documents."""


def mixed_batch(x: Tensor, y: Tensor, group: Tensor, buffer: Buffer | None, share: float) -> Batch:
    """Return the new images followed by replayed images, which are the given share of the batch.

    share: 0.5 replays as many images as are new; in general round(n share / (1 - share)), or all images of the buffer
    if it has fewer. Without a buffer, or with an empty one, only the new images are returned.

    Raises UserError if the share is not in [0, 1).
    """
    if not 0 <= share < 1:
        raise UserError(f"the share of replayed images is {share:g}: it must be at least 0 and below 1.")
    new = Batch(x, y, group)
    replayed = buffer.sample(round(len(x) * share / (1 - share))) if buffer is not None else None
    if replayed is None:
        return new
    return Batch(*(torch.cat(parts) for parts in zip(new, replayed, strict=True)))


def surviving_share(capacity: int, new: int, replayed: int, steps: int) -> NDArray[np.float64]:
    """Return the expected share of old images in a first-in-first-out buffer to which mixed batches are added.

    At the start the buffer has only old images. Every step draws `replayed` of its images uniformly, and adds `new`
    images followed by the drawn ones. Element s of the result (steps + 1,) is the share after s steps. The result is
    exact: the expected share in a sample is the share in the buffer, and new images replace the oldest.

    For small batches, with p = replayed / (new + replayed) and t = steps (new + replayed) / capacity, the share is
    1/p - (1/p - 1) exp(p t) up to t = 1. After that it decreases as exp(-x t), where x > 0 solves x = p (exp(x) - 1).
    At p = 1/2, a third of the old images (2 - sqrt(e) = 0.35) is left at t = 1, and x is 1.26. The replayed copies
    therefore delay the loss of an earlier task, but do not prevent it.
    """
    chance = np.ones(capacity)  # that an image is old, from the oldest place to the newest
    share = np.ones(steps + 1)
    for step in range(1, steps + 1):
        added = np.repeat([0.0, share[step - 1]], [new, replayed])
        chance = np.concatenate([chance, added])[-capacity:]
        share[step] = chance.mean()
    return share


# ------------------------------------------------------------------------------------------------------------- kernels


@kernel
def algorithm_r(
    stratum: Array, chance: Array, quota: int, seen: Array, occupied: Array, size: int, newest: Array
) -> tuple[Array, int]:
    """Return the place of each of n images, -1 for none, and the number of occupied places after that.

    stratum (n,) of each image, or (1,) for all. chance (n,) in [0, 1). seen (strata,) and occupied are updated. newest
    (capacity,) is working memory: if several images have the same place, only the last gets it.
    """
    count = len(chance)
    places = np.empty(count, np.int64)
    for i in range(count):
        own = stratum[i] if len(stratum) > 1 else stratum[0]
        before = seen[own]
        seen[own] += 1
        # An image after t others gets place floor(u (t + 1)), if this is a place of the stratum.
        number = before if before < quota else int(chance[i] * (before + 1))
        place = own * quota + number
        places[i] = place if number < quota else -1
        if before < quota:
            occupied[size] = place
            size += 1
        if number < quota:
            newest[place] = i
    for i in range(count):
        if places[i] >= 0 and newest[places[i]] != i:
            places[i] = -1
    return places, size


@kernel
def shuffle_first(numbers: Array, size: int, chance: Array) -> None:
    """Move n of the first `size` numbers to the front, drawn uniformly and in random order. chance: (n,).

    These are the first n steps of a Fisher-Yates shuffle. The result does not depend on the order before.
    """
    for i in range(len(chance)):
        j = min(i + int(chance[i] * (size - i)), size - 1)
        numbers[i], numbers[j] = numbers[j], numbers[i]


@kernel
def write(places: Array, x: Array, y: Array, group: Array, all_x: Array, all_y: Array, all_groups: Array) -> None:
    """Write n images to their places. Images with place -1 are not written."""
    for i in range(len(places)):
        place = places[i]
        if place >= 0:
            for j in range(x.shape[1]):
                all_x[place, j] = x[i, j]
            all_y[place] = y[i]
            all_groups[place] = group[i]
