"""Supervised training on the integration tasks, as published, and the published measures.

Source: Aitken & Mihalas, eLife 12:e83035 (2023), Methods. Adam minimizes the cross-entropy of the output at go plus an
L1 penalty on all learned parameters. Every batch has new trials. `reason_to_stop` is the stopping rule.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from plastic_cli.analysis.dimensionality import participation_ratio
from plastic_cli.errors import UserError
from plastic_cli.numerics.clock import training_clock
from plastic_cli.numerics.seeds import seed_sequence
from plastic_cli.runs.run import Run
from plastic_mpn.environments.tasks.integration import (
    ContextTask,
    IntegrationBatch,
    IntegrationTask,
    batch,
    with_novel_classes,
)
from plastic_mpn.learning.integration_measures import (
    cross_validated_accuracy,
    decoding_accuracy,
    input_indicators,
    relative_evidence,
    variance_explained,
)
from plastic_mpn.networks.agents import Readout

TRIALS_AT_ONCE = 250
"""Number of trials that are measured at once. M of each of them is held in memory."""

MODULATION_STATES = 1000
"""Approximate number of M from which the dimension of M is measured: those of all steps of some trials."""

FOLDS = 10
"""Number of folds of the cross-validated classifiers."""


@dataclass(frozen=True)
class SupervisedSettings:
    """Settings of supervised training.

    learning_rate: that of Adam. l1: coefficient of the L1 penalty on all learned parameters. gradient_clip: maximum L2
    norm of the gradient. validate_every: batches between validations, all on the same `validation_trials`. window:
    validations in a rolling mean. target_accuracy: accuracy at which training stops; 1 to train to the plateau.
    patience: number of validations without improvement that is a plateau. test_trials: new trials for the measures at
    the end.

    The batch size, the validation trials and patience were not published with the results; the first two are those of
    the authors' demonstration. Raises UserError for a count below 1, or if minimum_batches is above maximum_batches.
    """

    batch_size: int = 64
    learning_rate: float = 1e-3
    l1: float = 1e-4
    gradient_clip: float = 10.0
    minimum_batches: int = 2000
    maximum_batches: int = 20_000
    validate_every: int = 10
    validation_trials: int = 500
    window: int = 10
    target_accuracy: float = 0.98
    patience: int = 100
    test_trials: int = 1000

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = getattr(self, setting.name)
            if isinstance(setting.default, int) and value < 1:
                raise UserError(f"{setting.name} must be at least 1, not {value}.")
        if self.minimum_batches > self.maximum_batches:
            raise UserError(
                f"minimum_batches is {self.minimum_batches}, more than maximum_batches, {self.maximum_batches}."
            )


@dataclass
class Validations:
    """The results of all validations, in order: objectives (cross-entropy plus L1 penalty) and accuracies."""

    objectives: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)

    def state_dict(self) -> dict[str, Any]:
        """Return the lists."""
        return {"objectives": list(self.objectives), "accuracies": list(self.accuracies)}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Restore the result of `state_dict`."""
        self.objectives, self.accuracies = list(state["objectives"]), list(state["accuracies"])


_STOPPED = {
    "accuracy": "it reached the target accuracy",
    "plateau": "the loss stopped improving",
    "maximum": "it reached --maximum-batches",
    None: "the run had already stopped",
}


def reason_to_stop(validations: Validations, settings: SupervisedSettings) -> str | None:
    """Return "accuracy", "plateau" or "maximum" if training must stop, otherwise None.

    Training never stops before `minimum_batches`. After that: "accuracy" if the mean accuracy of the last `window`
    validations is above `target_accuracy`; "plateau" if none of the last `patience` rolling means of the objective was
    the lowest so far; "maximum" at `maximum_batches`.
    """
    batches = len(validations.objectives) * settings.validate_every
    if batches < settings.minimum_batches:
        return None
    if (_rolling_means(validations.accuracies, settings.window)[-1:] > settings.target_accuracy).any():
        return "accuracy"
    objectives = _rolling_means(validations.objectives, settings.window)
    if len(objectives) > settings.patience and objectives[: -settings.patience].min() <= objectives.min():
        return "plateau"
    return "maximum" if batches >= settings.maximum_batches else None


def _rolling_means(values: list[float], window: int) -> NDArray[np.float64]:
    """Return the mean of every `window` consecutive values: (values - window + 1,), empty if there are fewer."""
    # Divided last, so that rounding does not make the mean of ones larger than 1.
    return np.convolve(values, np.ones(window), "valid") / window if len(values) >= window else np.empty(0)


def train_supervised(
    network: Readout, task: IntegrationTask | ContextTask, run: Run, settings: SupervisedSettings
) -> None:
    """Train until `reason_to_stop` returns a reason, then log the published measures on new trials as split "test".

    One step of the run is one validation and the `validate_every` batches before it. Each step draws its trials with
    its own random generator, so that a resumed run has the same trials. Raises RunFailed if the loss is not finite.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    validations = Validations()
    run.track(network=network, optimizer=optimizer, validations=validations)
    held_out = batch(task, _generator(run.seed, "validation trials"), settings.validation_trials)
    if run.begins("validation"):
        _log_validation(network, held_out, run, settings.l1)
    steps = -(-settings.maximum_batches // settings.validate_every)
    for index in run.steps(steps, "validation"):
        # Checked at the start of a step, so that a resumed run stops at the same step.
        if reason_to_stop(validations, settings):
            break
        began = training_clock()
        trials = _generator(run.seed, "training trials", index)
        batches = min(settings.validate_every, settings.maximum_batches - index * settings.validate_every)
        measured = [
            train_batch(network, optimizer, batch(task, trials, settings.batch_size), settings) for _ in range(batches)
        ]
        loss, accuracy = torch.stack(measured).mean(0).tolist()
        run.count_samples(batches * settings.batch_size, training_clock() - began)
        run.log("train", loss=loss, accuracy=accuracy)
        objective, accuracy = _log_validation(network, held_out, run, settings.l1)
        validations.objectives.append(objective)
        validations.accuracies.append(accuracy)
    # Leaving the loop early skips the checkpoint that its last step writes.
    run.step = len(validations.objectives)
    run.save_checkpoint()
    batches = min(run.step * settings.validate_every, settings.maximum_batches)
    run.message(f"stopped after {batches} batches: {_STOPPED[reason_to_stop(validations, settings)]}")
    run.log("test", None, batches=batches, **measure_integration(network, task, run.seed, settings.test_trials))


def train_batch(
    network: Readout,
    optimizer: torch.optim.Optimizer,
    trials: IntegrationBatch,
    settings: SupervisedSettings,
) -> Tensor:
    """Learn from one batch; return its cross-entropy and accuracy before the step, (2,), without synchronizing."""
    device = network.head.weight.device
    inputs, labels = torch.from_numpy(trials.inputs).to(device), torch.from_numpy(trials.labels).to(device)
    h, _ = network.core(inputs)
    outputs = network.head(h[-1])
    loss = functional.cross_entropy(outputs, labels)
    optimizer.zero_grad()
    (loss + settings.l1 * magnitude(network)).backward()
    nn.utils.clip_grad_norm_(network.parameters(), settings.gradient_clip)
    optimizer.step()
    network.core.constrain()
    return torch.stack([loss.detach(), (outputs.detach().argmax(1) == labels).to(loss.dtype).mean()])


def magnitude(network: Readout) -> Tensor:
    """Return the L1 norm of all learned parameters."""
    return torch.stack([parameter.abs().sum() for parameter in network.parameters() if parameter.requires_grad]).sum()


@torch.no_grad()
def measure_integration(
    network: Readout, task: IntegrationTask | ContextTask, seed: int, trials: int
) -> dict[str, float]:
    """Return the published measures on `trials` new trials.

    - accuracy, loss: of the output at go.
    - participation_ratio: of h over all steps and trials.
    - participation_ratio_m: of M_t of the lowest layer that has one, over all steps of some of the trials
      (`MODULATION_STATES`).

    Only for simple integration:

    - r2_evidence: the variance of h explained by the evidence so far, relative to the mean over the classes.
    - r2_input: the variance of h explained by the identity of the input. Both are over all steps, including delay and
      go; see `variance_explained`.
    - decoded_stimulus, decoded_delay, decoded_go, only with a delay: the accuracy of a linear classifier that decodes
      the class with most evidence from h at the last stimulus, at the last step of the delay, and at go. It is
      cross-validated over `FOLDS` parts of the trials, and missing if a class has fewer trials.
    - novel_class_accuracy: the accuracy of a linear classifier that decodes the class from the state at the end of
      `trials` more trials, whose classes the network was not trained on. The classifier is fitted to as many other
      trials. Missing for a network without a state.
    """
    drawn = batch(task, _generator(seed, "test trials"), trials)
    h, _ = observe_trials(network, drawn)
    outputs, labels = network.head(h[-1]), torch.from_numpy(drawn.labels).to(h.device)
    activity = h.flatten(0, 1).double().cpu().numpy()
    measures = {
        "accuracy": float((outputs.argmax(1) == labels).double().mean()),
        "loss": float(functional.cross_entropy(outputs, labels)),
        "participation_ratio": participation_ratio(activity),
    }
    modulations = observe_modulations(network, drawn)
    if modulations is not None:
        measures["participation_ratio_m"] = participation_ratio(modulations)
    if isinstance(task, IntegrationTask):
        evidence = relative_evidence(drawn.evidence).reshape(-1, task.classes)
        measures["r2_evidence"] = variance_explained(evidence, activity)
        measures["r2_input"] = variance_explained(input_indicators(drawn.indices.ravel()), activity)
        if task.delay and np.bincount(drawn.labels, minlength=task.classes).min() >= FOLDS:
            for name, step in (("stimulus", task.steps - 2 - task.delay), ("delay", task.steps - 2), ("go", -1)):
                measures[f"decoded_{name}"] = cross_validated_accuracy(
                    h[step].double().cpu().numpy(), drawn.labels, FOLDS
                )
        accuracy = _novel_class_accuracy(network, task, seed, trials)
        if accuracy is not None:
            measures["novel_class_accuracy"] = accuracy
    return measures


@torch.no_grad()
def observe_trials(network: Readout, trials: IntegrationBatch) -> tuple[Tensor, Tensor]:
    """Return h (steps, trials, hidden) and the state at the end (trials, *state_shape)."""
    inputs = torch.from_numpy(trials.inputs).to(network.head.weight.device)
    parts = [network.core(part) for part in inputs.split(TRIALS_AT_ONCE, dim=1)]
    return torch.cat([h for h, _ in parts], dim=1), torch.cat([state for _, state in parts])


@torch.no_grad()
def observe_modulations(network: Readout, trials: IntegrationBatch) -> NDArray[np.float32] | None:
    """Return M_t of the lowest layer with M, flattened: (states, n d), about `MODULATION_STATES` of them.

    They belong to all steps of as many trials as are needed. None for a network without M, or if M never varies.
    """
    steps = len(trials.inputs)
    inputs = torch.from_numpy(trials.inputs[:, : max(2, MODULATION_STATES // steps)]).to(network.head.weight.device)
    state, found = network.init_state(inputs.shape[1]), []
    if not network.core.plastic_layers():
        return None
    for x in inputs:
        _, state = network.core(x, state)
        found.append(network.core.matrices(state)[0].flatten(1).clone())
    states: NDArray[np.float32] = torch.cat(found).cpu().numpy()
    return states if np.ptp(states, axis=0).any() else None


def _novel_class_accuracy(network: Readout, task: IntegrationTask, seed: int, trials: int) -> float | None:
    """Return the accuracy; None if the state is the same after every trial, or if there are no other classes."""
    generator = _generator(seed, "novel classes")
    novel = with_novel_classes(task, generator)
    if novel is None:
        return None
    drawn = batch(novel, generator, 2 * trials)
    states = observe_trials(network, drawn)[1].flatten(1).cpu().numpy()
    if not states.size or not np.ptp(states, axis=0).any():
        return None
    return decoding_accuracy(states[:trials], drawn.labels[:trials], states[trials:], drawn.labels[trials:])


@torch.no_grad()
def _log_validation(network: Readout, trials: IntegrationBatch, run: Run, l1: float) -> tuple[float, float]:
    """Log loss and accuracy, and return the objective and the accuracy."""
    h, _ = observe_trials(network, trials)
    outputs, labels = network.head(h[-1]), torch.from_numpy(trials.labels).to(h.device)
    accuracy = (outputs.argmax(1) == labels).double().mean()
    loss = functional.cross_entropy(outputs, labels)
    measured = torch.stack([loss.double(), accuracy, magnitude(network).double()]).tolist()
    run.log("validation", loss=measured[0], accuracy=measured[1])
    return measured[0] + l1 * measured[2], measured[1]


def _generator(seed: int, purpose: str, step: int | None = None) -> np.random.Generator:
    """Return the random generator for one purpose, or for one step of it."""
    root = seed_sequence(seed, purpose)
    key = root.spawn_key if step is None else (*root.spawn_key, step)
    return np.random.default_rng(np.random.SeedSequence(root.entropy, spawn_key=key))
