"""The strengths theta of the terms: from numbers, from a theta.toml, or from a run of metafa."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from plastic_cli import UserError
from plastic_cli.runs.record import read_record
from plastic_cli.runs.store import RunStore
from plastic_metafa.feedback.config import Train, as_numbers, is_file
from plastic_metafa.theta_file import THETA_FILE, TermKey, read_theta

if TYPE_CHECKING:
    from plastic_cli import Run

ARTIFACT = "theta"
"""Name of the artifact with the strengths that a run learns with."""


def strengths(config: Train, run: Run) -> dict[TermKey, float]:
    """Return theta by term, in the order of the terms, for a run.

    They are read once: a run that is resumed, evaluated or analyzed uses those that it began with. Raises UserError if
    there is no such file or run, and if a term of `--terms` has no strength.
    """
    if ARTIFACT in run.stored_tensors(ARTIFACT):
        return dict(run.load_tensors(ARTIFACT)["theta"])
    theta = dict(_given(config, run))
    run.save_tensors(ARTIFACT, {"theta": theta})
    return theta


def _given(config: Train, run: Run) -> Mapping[TermKey, float]:
    if config.theta is None:
        return {0: 1.0}
    numbers = as_numbers(config.theta)
    if numbers is not None:
        return dict(zip(config.terms or (0,), numbers, strict=True))
    path = Path(config.theta) if is_file(config.theta) else _theta_of_run(config.theta, run)
    learned = read_theta(path)
    if learned.feedback != config.feedback:
        run.message(f"theta was learned with {learned.feedback} feedback; this run has {config.feedback} feedback")
    if config.terms is None:
        return learned.theta
    missing = [term for term in config.terms if term not in learned.theta]
    if missing:
        known = ",".join(map(str, learned.theta))
        raise UserError(f"--terms {missing[0]}: {config.theta} has no strength for it. Its terms are {known}.")
    return {term: learned.theta[term] for term in config.terms}


def _theta_of_run(text: str, run: Run) -> Path:
    """Return the theta.toml of a run of metafa in the store of `run`."""
    folder = RunStore(run.folder.parent).find(text)
    record = read_record(folder)
    if record.rule != "metafa":
        raise UserError(f"--theta {text}: it is a run of {record.rule}. Choose a run of metafa, or a theta.toml.")
    return folder / "artifacts" / THETA_FILE
