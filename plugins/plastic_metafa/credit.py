"""Random feedback as a credit rule: errors reach the layers of any module through feedback weights B."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointError

from plastic_cli import Run, UserError
from plastic_cli.credit.gradient import Rest, attached, rest_credit
from plastic_cli.credit.parameters import accumulate, others, taught
from plastic_cli.credit.passes import BeforePass
from plastic_cli.credit.protocol import Credit, Loss, call, checked_losses
from plastic_metafa import layer_terms
from plastic_metafa.computed_weights import hidden_weight
from plastic_metafa.feedback_pass import Multiplying, Pass, RecordingTerms
from plastic_metafa.feedback_weights import FeedbackWeights, ModuleFeedback, Scale
from plastic_metafa.own_terms import load_terms
from plastic_metafa.theta_file import THETA_FILE, TermKey, learned_rule, read_theta, sort_terms, term_key

Theta = Sequence[float] | Tensor | Mapping[Any, float] | str | Path | Run


class RandomFeedback:
    """Feedback alignment and its relatives for any module: the error reaches lower layers through B instead of W.

    `backward` carries the errors through the module as backpropagation does. Wherever backpropagation multiplies an
    error by the transpose of a weight that the rule teaches, it multiplies by the transpose of B. Everything else keeps
    its exact derivative: biases, normalization, embeddings, pooling, the softmax of attention, skip connections,
    dropout, the unrolling in time, and matrices in elementwise products. A weight that is computed from parameters, as
    W + A B in low-rank adaptation, has one B, and its parameters learn by the chain rule.

    feedback:
        "fixed": random B. Lillicrap et al. 2016, Nature Communications 7:13276.
        "direct": random B from the output of the module to the input of each layer. Nokland 2016, arXiv 1609.01596.
        "sign", "batchwise-sign": random magnitudes with the signs of W, drawn once or for each call. "uniform-sign":
        one magnitude for each layer. Liao, Leibo & Poggio 2016; Moskovitz et al. 2018.
        "kolen-pollack": B receives the same changes as W, and the difference of both decays. "weight-mirror": B learns
        W from noise. Akrout et al. 2019, arXiv 1904.05391.
        "symmetric": B = W, which is backpropagation.
    terms: the terms of the plasticity rule (5) of `plastic_metafa.rule`, by index or name; theta: their strengths, as
    numbers in the order of `terms`, as a mapping from term to strength, as the path of a theta.toml or of the folder of
    a run, or as a run. Without both, the rule is term 0, the pseudo-gradient, with strength 1. Weights learn by all
    terms, all other parameters by term 0. Terms beyond 0 teach linear layers and convolutions. The change is the sum
    over positions and time steps and the mean over the batch: SGD with learning rate 1 and one sample is the step of
    the published rule.
    modules: what to teach, see `plastic_cli.credit.parameters.taught`; None: everything. rest: how the other parameters
    learn: "none"; "gradient", in the same backward pass, in which they carry errors by their own weights; or another
    credit rule.
    scale: how large random B are. "xavier", uniform within +-sqrt(6 / (in + out)), is what the publication of the terms
    uses, and the benchmark of feedback alignment by biotorch; "kaiming", within +-sqrt(1 / in), is how torch draws the
    weights of its layers. "uniform-sign" takes the standard deviation of the same distribution.
    output: the activity of the last layer in the terms: its "softmax", as published, or "linear".
    decay: of W - B for each call, for kolen-pollack. In the published rule it is learning rate times weight decay; here
    it acts with any optimizer, with and without weight decay.
    mirror_rate, mirror_samples: how far B moves for each call towards the W that this many noise vectors show, for
    weight-mirror.
    generator: of the random numbers, on the CPU; None: a new one, seeded by torch's global generator.

    Raises UserError for an unknown name or term, and in `backward` for a use of a weight that has no feedback.
    """

    def __init__(
        self,
        model: nn.Module,
        feedback: ModuleFeedback = "fixed",
        terms: Sequence[TermKey | Callable[..., Any]] | None = None,
        theta: Theta | None = None,
        *,
        modules: str | Sequence[str] | None = None,
        rest: Rest = "none",
        scale: Scale = "xavier",
        output: Literal["softmax", "linear"] = "softmax",
        decay: float = 1e-3,
        mirror_rate: float = 0.003,
        mirror_samples: int = 16,
        generator: torch.Generator | None = None,
    ) -> None:
        if output not in ("softmax", "linear"):
            raise UserError(f"output is {output!r}: it must be softmax or linear.")
        self.theta = strengths(terms, theta)
        self.parameters: Mapping[str, nn.Parameter] = taught(model, modules)
        self.model: nn.Module | None = model
        self.feedback, self.output = feedback, output
        self.weights = FeedbackWeights(
            feedback,
            scale=scale,
            decay=decay,
            mirror_rate=mirror_rate,
            mirror_samples=mirror_samples,
            generator=generator,
        )
        self.rest: Credit | None = None
        self._by_gradient: dict[str, nn.Parameter] = {}
        if rest == "gradient":
            self._by_gradient = others(model, self.parameters)
        else:
            self.rest = rest_credit(model, self.parameters, rest)

    @property
    def generator(self) -> torch.Generator:
        """The generator of the random numbers."""
        return self.weights.generator

    def backward(self, inputs: Any, loss: Loss) -> Tensor:
        """Add the descent direction to `.grad` of the parameters taught; return the losses (batch,)."""
        model = attached(self.model, self.parameters)
        before = None if self.rest is None else BeforePass.of(model)
        self.weights.begin()
        learning = {name: parameter for name, parameter in self.parameters.items() if parameter.requires_grad}
        by_gradient = [parameter for parameter in self._by_gradient.values() if parameter.requires_grad]
        passed = Pass(self.weights, learning, self.theta)
        interception = Multiplying(passed) if passed.plain else RecordingTerms(passed)
        with torch.enable_grad():
            with interception:
                output = call(model, inputs)
            if self.feedback == "direct":
                passed.watch_error_of(output)
            losses = checked_losses(loss(output))
            mean = losses.mean()
        passed.samples = len(losses)
        self._check_observed(model, passed, mean)
        if isinstance(interception, RecordingTerms):
            interception.give_activity(output if self.output == "softmax" else None)
        scaled = [] if self.theta.get(0, 0.0) == 1 else self._scale_by_theta_0(passed)
        try:
            if mean.requires_grad and (learning or by_gradient):
                torch.autograd.backward(mean, inputs=[*learning.values(), *by_gradient])
        except CheckpointError as error:
            raise UserError(
                "the module computes parts again in the backward pass (torch.utils.checkpoint), where errors cannot"
                " pass through feedback. Switch activation checkpointing off."
            ) from error
        finally:
            for handle in scaled:
                handle.remove()
        if decay := self.theta.get(layer_terms.DECAY):
            for name in passed.multiplied:
                accumulate(self.parameters[name], decay * self.parameters[name])
        self.weights.end()
        if self.rest is not None and before is not None:
            before.restore()
            self.rest.backward(inputs, loss)
        return losses.detach()

    def feedback_weights(self) -> dict[str, Tensor]:
        """Return B of the last call of `backward`, by the name of its weight and in the shape of it.

        Direct feedback has the shape (outputs of the module, *inputs of the layer).
        """
        return dict(self.weights.now)

    def state_dict(self) -> dict[str, Any]:
        """Return the feedback weights, the state of the generator, and the state of the rule of the other parameters.

        "feedback" holds by name: B for fixed, direct and weight-mirror, the magnitudes for sign, W - B for
        kolen-pollack. A B is drawn when its weight is first used; before that it is missing here.
        """
        state = self.weights.state_dict()
        return state if self.rest is None else {**state, "rest": self.rest.state_dict()}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Restore what `state_dict` returned; raises UserError for the state of another kind of feedback."""
        self.weights.load_state_dict(state)
        if self.rest is not None:
            self.rest.load_state_dict(state["rest"])

    def detach(self) -> None:
        """Let go of the module and of the feedback weights."""
        self.model, self.parameters, self._by_gradient = None, {}, {}
        self.weights.begin()
        self.weights.stored.clear()
        if self.rest is not None:
            self.rest.detach()

    def _scale_by_theta_0(self, passed: Pass) -> list[Any]:
        """Scale the gradients by the strength of term 0, except of the weights whose changes are scaled already."""
        strength, done = self.theta.get(0, 0.0), passed.by_terms
        return [
            parameter.register_hook(lambda gradient: strength * gradient)
            for name, parameter in passed.parameters.items()
            if name not in done
        ]

    def _check_observed(self, model: nn.Module, passed: Pass, mean: Tensor) -> None:
        """Raise UserError if a weight is used where feedback cannot replace it."""
        matrices = {name: weight for name, weight in passed.parameters.items() if weight.ndim > 1}
        if matrices and not passed.multiplied:
            raise UserError(
                "no layer multiplied by a weight that the rule teaches. Call the module itself: copies of it on several"
                " devices (DataParallel), scripted and exported modules cannot be observed."
            )
        left = {id(weight): name for name, weight in matrices.items() if name not in passed.used}
        hidden = hidden_weight(model, mean, left) if left else None
        if hidden is not None:
            raise UserError(
                f"'{hidden}' is used in a scripted module or in a torch.autograd.Function, where feedback cannot"
                ' replace it. Leave it out with modules=, and let it learn with rest="gradient".'
            )


def strengths(terms: Sequence[TermKey | Callable[..., Any]] | None, theta: Theta | None) -> dict[TermKey, float]:
    """Return the strength of each term, by its key; see `RandomFeedback`. Raises UserError if they do not fit."""
    keys = None if terms is None else [term_key(term) for term in terms]
    if isinstance(theta, Run):
        theta = learned_rule(theta).theta
    elif isinstance(theta, str | Path):
        path = Path(theta)
        theta = read_theta(path / "artifacts" / THETA_FILE if path.is_dir() else path).theta
    if theta is None:
        beyond = [key for key in keys or () if key != 0]
        if beyond:
            raise UserError(
                f"terms has {beyond[0]!r} and there is no theta: give the strength of each term, for example theta="
                "{0: 0.01, 2: -0.05, 9: 0.004}, or the path of a theta.toml."
            )
        theta = {0: 1.0}
    if isinstance(theta, Mapping):
        known = {term_key(term): float(value) for term, value in theta.items()}
        missing = [key for key in keys or () if key not in known]
        if missing:
            raise UserError(f"theta has no strength for the term {missing[0]!r}; it has {', '.join(map(str, known))}.")
        found = {key: known[key] for key in sort_terms(keys if keys is not None else known)}
    else:
        numbers = [float(value) for value in theta]
        keys = [0] if keys is None else keys
        if len(numbers) != len(keys):
            raise UserError(f"theta has {len(numbers)} numbers for {len(keys)} terms: give one for each.")
        found = dict(zip(keys, numbers, strict=True))
    if not found:
        raise UserError("terms names no term: give at least one, as in terms=(0,).")
    load_terms(found)
    return found
