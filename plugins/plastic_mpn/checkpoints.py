"""Which networks of a run are kept: the best by its own evaluation episodes, one every so often, and the last."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from plastic_cli import Run, UserError
from plastic_cli.errors import did_you_mean
from plastic_cli.numerics.seeds import seed_sequence
from plastic_mpn.evaluation import GreedyEpisodes, Observing, evaluation_seeds

BEST, FINAL = "best", "final"


class Checkpoints:
    """Evaluates a network now and then, and keeps the best; its state belongs into the run's checkpoint.

    The best is chosen on greedy episodes with seeds of their own, the same every time: neither the returns of episodes
    with exploration nor those of the test decide. unit: what is counted, "episode" or "update".
    """

    def __init__(
        self,
        network: Any,
        run: Run,
        episodes: GreedyEpisodes,
        *,
        unit: str,
        evaluate_every: int,
        evaluation_episodes: int,
        checkpoint_every: int,
    ) -> None:
        self._network = network
        self._run = run
        self._episodes = episodes
        self._unit = unit
        self._evaluate_every = evaluate_every
        self._checkpoint_every = checkpoint_every
        self._seeds = evaluation_seeds(seed_sequence(run.seed, "validation episodes"), evaluation_episodes)
        self.best = -math.inf
        self.best_at = 0
        self.evaluated_at = 0

    def after(self, done: int) -> None:
        """Evaluate and store what is due when `done` episodes or updates are done."""
        if done % self._evaluate_every == 0:
            self._evaluate(done)
        if done % self._checkpoint_every == 0:
            self._store(f"{self._unit}-{done:07d}")

    def finish(self, done: int, test_episodes: int) -> None:
        """Store the last network, and log how the best and the last one do on episodes that nothing was chosen by."""
        if self.evaluated_at != done:
            self._evaluate(done)
        self._store(FINAL)
        seeds = evaluation_seeds(seed_sequence(self._run.seed, "test episodes"), test_episodes)
        last = self._episodes.returns(self._network, seeds)
        load_network(self._network, self._run, BEST)
        best = self._episodes.returns(self._network, seeds)
        load_network(self._network, self._run, FINAL)
        spread = best.std(ddof=1) if test_episodes > 1 else 0.0
        self._run.log("test", None, **{"return": float(best.mean())}, spread=float(spread))
        self._run.log("test", best_at=self.best_at, last_return=float(last.mean()))

    def _evaluate(self, done: int) -> None:
        value = float(self._episodes.returns(self._network, self._seeds).mean())
        self._run.log("validation", None, **{"return": value})
        self.evaluated_at = done
        # Of equals the one that has learned longest.
        if value >= self.best:
            self.best, self.best_at = value, done
            self._store(BEST)

    def state_dict(self) -> dict[str, Any]:
        """Return how good the best network was, and when."""
        return {"best": self.best, "best_at": self.best_at, "evaluated_at": self.evaluated_at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self.best, self.best_at = float(state["best"]), int(state["best_at"])
        self.evaluated_at = int(state["evaluated_at"])

    def _store(self, name: str) -> None:
        self._run.save_tensors(name, self._network.state_dict())


def load_network(network: Observing | nn.Module, run: Run, name: str) -> None:
    """Give a network the parameters that were kept as `name`: best, final, one of the periodic ones, or a file.

    Raises UserError where there is no such checkpoint or it is one of another architecture.
    """
    assert isinstance(network, nn.Module)
    if name.endswith(".pt"):
        state = _read_file(Path(name))
    else:
        known = run.stored_tensors("")
        if name not in known:
            raise UserError(
                f"--checkpoint {name}: run {run.id} has none of that name.{did_you_mean(name, known)} It has:"
                f" {', '.join(known) or 'none'}."
            )
        state = run.load_tensors(name)
    try:
        network.load_state_dict(state)
    except (RuntimeError, AttributeError, TypeError):
        raise UserError(
            f"the checkpoint {name} is one of another architecture than run {run.id}"
            f" (core {run.config.get('core')}, {run.config.get('hidden_dim')} units, {run.config.get('env')})."
            " Use a run that was trained like it."
        ) from None


def _read_file(path: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"--checkpoint {path}: there is no such file.") from None
    except Exception:  # noqa: BLE001  torch.load raises whatever the damage happens to provoke
        raise UserError(f"--checkpoint {path}: it is damaged, or holds more than tensors.") from None
    return state
