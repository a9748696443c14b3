"""One step of one parameter by the compiled kernels; large parameters are split over threads."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from plastic_selective.optimizer import kernels
from plastic_selective.rule import STRENGTH_UNIT

STRETCH = 1 << 17
"""Smallest number of entries for which a further thread saves time."""


def step_sgd(p: Tensor, g: Tensor, e: Tensor, step: float, group: dict[str, Any]) -> None:
    """Update the trace e and the parameter p in place by gated SGD; all tensors are contiguous float32."""
    size, p_, g_, e_ = p.numel(), p.data_ptr(), g.data_ptr(), e.data_ptr()
    maxima = _run_in_stretches(kernels.trace_and_maxima, size, g_, e_, float(group["trace_decay"]))
    largest_e, largest_g = maxima[0] if len(maxima) == 1 else map(max, zip(*maxima, strict=True))
    _run_in_stretches(
        kernels.gated_sgd,
        size,
        p_,
        g_,
        e_,
        float(group["lr"]),
        group["plasticity_k"] / STRENGTH_UNIT,
        _warmth(step, group),
        float(group["eps"]),
        largest_e,
        largest_g,
    )
    _mark_changed(p)


def update_second_moment(g: Tensor, v: Tensor, group: dict[str, Any]) -> int:
    """Update Adam's second moment v in place, the first half of a step. Return the bits of the largest |g|."""
    g_, v_, decay = g.data_ptr(), v.data_ptr(), float(group["betas"][1])
    largest: int = max(_run_in_stretches(kernels.second_moment_and_maximum, g.numel(), g_, v_, decay))
    return largest


def step_adam(
    p: Tensor,
    g: Tensor,
    m: Tensor,
    v: Tensor,
    step: float,
    threshold: float,
    largest_g: int,
    group: dict[str, Any],
) -> None:
    """Update Adam's first moment m and the parameter p in place by gated Adam, the second half of a step.

    threshold: synapses with v above it are busy. largest_g: the result of `update_second_moment`.
    """
    first, second = group["betas"]
    _run_in_stretches(
        kernels.gated_adam,
        p.numel(),
        p.data_ptr(),
        g.data_ptr(),
        m.data_ptr(),
        v.data_ptr(),
        float(group["lr"] / (1 - first**step)),
        float(first),
        float((1 - second**step) ** -0.5),
        float(group["eps"]),
        group["plasticity_k"] / STRENGTH_UNIT,
        _warmth(step, group),
        threshold,
        largest_g,
    )
    _mark_changed(p)


def _mark_changed(p: Tensor) -> None:
    # The kernels write to memory directly, so autograd has to be told that saved copies of p are out of date.
    torch.autograd.graph.increment_version(p)


def _warmth(step: float, group: dict[str, Any]) -> float:
    """Return the strength of the gate during the warm-up, 0 to 1."""
    return min(1.0, step / group["warmup_steps"]) if group["warmup_steps"] else 1.0


def _run_in_stretches(kernel: Callable[..., Any], size: int, *arguments: Any) -> list[Any]:
    """Run a kernel on stretches of its tensors, large ones in threads. Return the result of each stretch."""
    stretches = min(torch.get_num_threads(), -(-size // STRETCH))
    if stretches <= 1:
        return [kernel(*arguments, 0, size)]
    edges = [size * number // stretches for number in range(stretches + 1)]
    others = [
        _pool(os.getpid()).submit(kernel, *arguments, start, stop) for start, stop in itertools.pairwise(edges[1:])
    ]
    first = kernel(*arguments, edges[0], edges[1])
    return [first, *(other.result() for other in others)]


@functools.lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:  # noqa: ARG001  a forked process needs threads of its own
    return ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="plastic-selective")
