"""The checkpoints of a run: the best by its evaluation episodes, periodic ones, and the final one."""

from __future__ import annotations

import math
from typing import Any

from plastic_cli import Run
from plastic_cli.numerics.seeds import seed_sequence
from plastic_mpn.environments.greedy import GreedyEpisodes, evaluation_seeds
from plastic_mpn.networks.stored import BEST, FINAL, load_network


class Checkpoints:
    """Evaluates a network at intervals and stores the best one. Its state is part of the run's checkpoint.

    Greedy validation episodes select the best network. They use the same seeds every time, and these seeds are not used
    for training or for the test. unit: what is counted, "episode" or "update".
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
        # Also without a finished episode there is a network to evaluate.
        self.evaluated_at = -1

    def after(self, done: int) -> None:
        """Evaluate and store the network if that is due after `done` episodes or updates."""
        if done % self._evaluate_every == 0:
            self._evaluate(done)
        if done % self._checkpoint_every == 0:
            self._store(f"{self._unit}-{done:07d}")

    def finish(self, done: int, test_episodes: int) -> None:
        """Store the final network, and log the returns of the best and of the final one on test episodes."""
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
        # Of equally good networks, the one with the longest training.
        if value >= self.best:
            self.best, self.best_at = value, done
            self._store(BEST)

    def state_dict(self) -> dict[str, Any]:
        """Return the return of the best network, and when it was evaluated."""
        return {"best": self.best, "best_at": self.best_at, "evaluated_at": self.evaluated_at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of `state_dict`."""
        self.best, self.best_at = float(state["best"]), int(state["best_at"])
        self.evaluated_at = int(state["evaluated_at"])

    def _store(self, name: str) -> None:
        self._run.save_tensors(name, self._network.state_dict())
