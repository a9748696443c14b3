"""GRLU's rule for any torch module: node perturbation at every function that combines activity with parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from plastic_cli.credit.gradient import Rest, attached, rest_credit
from plastic_cli.credit.nested import mapped, tensors_of
from plastic_cli.credit.parameters import named_parameters, taught
from plastic_cli.credit.protocol import Loss, call, checked_losses
from plastic_cli.errors import UserError
from plastic_cli.numerics.random_states import RandomStates
from plastic_grlu import rule
from plastic_grlu.learned_feedback import (
    DirectSignals,
    Feedback,
    FeedbackWeights,
    Regression,
    Signals,
    Structure,
    add_unexplained,
    errors_at_output,
    errors_of_samples,
    exact_credits,
    explained,
    find_structure,
    layer_signals,
    share_that_counts,
)
from plastic_grlu.nodes import (
    CleanPass,
    OtherCalls,
    PerturbedPass,
    Place,
    Start,
    Trace,
)
from plastic_grlu.samples import from_derivatives, from_responses

if TYPE_CHECKING:
    from plastic_cli import Run
    from plastic_grlu.config import Train

# On the CPU a batch of passes is faster than a loop up to about this many numbers for each node (measured on linear,
# convolutional and recurrent networks with batches of 1 to 64; one thread).
_NUMBERS_OF_NODE = 45_000
# What a batch of passes may hold on a GPU, in numbers of noise; the activity takes several times as much.
_NUMBERS_ON_GPU = 2**28
_REMEMBERED = 64
# Of the nodes without derivatives, those that are tested one by one.
_MOST_TESTED = 32
# What modules raise under torch.vmap, or with other parameters. An error of the module itself comes before.
_UNSUPPORTED = (AttributeError, IndexError, RuntimeError, TypeError, ValueError)
_MISSING = object()


def make_credit(config: Train, model: nn.Module, run: Run) -> NodePerturbation | None:
    """Return the credit rule of a run for another network than the rule's own; None for the control, the gradient."""
    if config.update == "backprop":
        return None
    assert config.feedback != "transposed"
    assert config.feedback != "none"
    return NodePerturbation(
        model,
        perturbations=config.perturbations,
        noise=config.noise,
        credit=config.credit,
        normalize=True,
        # With batch normalization, noise that is credited with all losses of a batch hides the gradient.
        across_samples=False,
        feedback=config.feedback,
        feedback_rate=config.feedback_rate,
        generator=run.generator("noise"),
    )


class NodePerturbation:
    """Node perturbation with antithetic noise for any torch module; equations (7) to (10) of rule.py.

    With SGD use normalize=True: without it `.grad` is noise^2 times the gradient, as published. Adam does not mind. For
    a module with batch normalization in training use across_samples=False: with True the estimate has no bias, but on a
    ResNet its noise hides the gradient.

    Noise enters at every node, a torch function that combines activity with parameters that the rule teaches: linear
    maps, convolutions, embeddings, attention, normalization, learned positions and scales. No error is propagated from
    one node to another. A normalization that directly follows a node, and an addition or a scale, belongs to it.
    Weights that are used several times, also in time, add up what each use learns.

    perturbations: pairs of perturbed passes for each step. noise: standard deviation sigma, in units of the activity;
    it can be set between steps. credit: "preactivation", noise is added to the output of a node, and the expected
    `.grad` is sigma^2 times the gradient to leading order in sigma; "output", as published: noise is added after the
    nonlinearity, if one directly follows the node, so that silent units learn too. normalize: divide by sigma^2.

    credit="learned": the layer of the output learns from its exact error, and hidden layers from an error that feedback
    weights B bring. Noise on hidden layers alone teaches B; see `plastic_grlu.learned_feedback`. A layer is then a node
    with the nonlinearity, normalization, dropout and pooling that directly follow it: noise is added after them, and
    the node learns through their exact derivative. The expected `.grad` has the size of the gradient, with and without
    `normalize`. Losses of other samples are left out, as with across_samples=False.

    feedback: "direct", from the output to each layer, B (numbers of the layer, numbers of the output) for each sample:
    a convolution of C channels on H x W positions has C H W rows. Every input must have the same shape. "layer", from
    each layer to those that it receives: B has the shape of the weight, and is shared by positions and time steps as
    the weight is. What lies between weights passes errors by its exact derivative, as skip connections and attention.
    feedback_rate: the share of the error of its predictions that B removes in a step, 0 to 2; 0: random feedback, which
    needs no noise. In "layer", functions between two layers must have second derivatives.

    across_samples: a sample's noise is credited with all losses that it can change, also those of other samples in a
    module that mixes samples, such as batch normalization in training. This keeps the expectation exact. False: only
    with the loss of its own sample, which leaves out a part of the gradient, and divides the variance by about the size
    of the batch.

    modules, rest: the modules that the rule teaches, and how other parameters learn; see `plastic_cli.credit`.
    chunk_size: pairs that are computed in one batch, which takes their memory; 1: one pass after the other; None:
    chosen by the size of the network, one if torch.vmap does not support the module. generator: draws the noise; None:
    one with a seed from torch's global generator.

    Each pass of a step begins with the same buffers, attributes of modules and random numbers, such as dropout masks.
    It has batch statistics of its own. After a step all of these are as after one forward pass. Forward hooks of the
    user see every pass. The estimate follows all paths of the loss: `detach` within the module does not stop it. Raises
    UserError for wrong arguments.
    """

    def __init__(
        self,
        model: nn.Module,
        perturbations: int = 16,
        noise: float = 0.1,
        credit: rule.Credit = "preactivation",
        *,
        normalize: bool = False,
        across_samples: bool = True,
        feedback: Feedback = "direct",
        feedback_rate: float = 1.0,
        modules: str | Sequence[str] | None = None,
        rest: Rest = "none",
        chunk_size: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        if perturbations != int(perturbations) or perturbations < 1:
            raise UserError(f"perturbations is {perturbations}: it must be a whole number, 1 or more.")
        if chunk_size is not None and (chunk_size != int(chunk_size) or chunk_size < 1):
            raise UserError(f"chunk_size is {chunk_size}: it must be a whole number, 1 or more, or None.")
        if credit not in ("output", "preactivation", "learned"):
            raise UserError(f"credit is {credit!r}: it must be 'output', 'preactivation' or 'learned'.")
        if feedback not in ("direct", "layer"):
            raise UserError(f"feedback is {feedback!r}: it must be 'direct' or 'layer'.")
        if not 0 <= feedback_rate < 2:
            raise UserError(f"feedback_rate is {feedback_rate}: it must be 0 or more and below 2.")
        self.model: nn.Module | None = model
        self.parameters: Mapping[str, nn.Parameter] = taught(model, modules)
        self.rest = rest_credit(model, self.parameters, rest)
        self.perturbations, self.noise, self.credit = int(perturbations), noise, credit
        self.normalize, self.chunk_size, self.feedback_rate = normalize, chunk_size, feedback_rate
        self.across_samples = across_samples and credit != "learned"
        if generator is None:
            generator = torch.Generator().manual_seed(int(torch.randint(2**63 - 1, ())))
        self.generator = generator
        self.feedback = FeedbackWeights(feedback, generator) if credit == "learned" else None
        # What torch.vmap turned out to need: a start without it, or a loop of passes in its place.
        self._starts_alone = self._loops = False
        self._indices: dict[Any, dict[Place, Tensor | None]] = {}
        self._structures: dict[Any, Structure] = {}

    def backward(self, inputs: Any, loss: Loss) -> Tensor:
        """Add the estimate of the gradient of the mean loss to `.grad`; return the losses of the pass without noise.

        inputs, loss: see `plastic_cli.credit.protocol.Credit`; loss depends on parameters through the output alone, so
        that a penalty of weights belongs into the optimizer. Raises UserError if the losses are not one for each
        sample, if nothing that the rule teaches takes part, or if the module's control flow depends on the noise.
        """
        if not self.noise > 0:
            raise UserError(f"noise is {self.noise}: it must be positive.")
        model = _inner(attached(self.model, self.parameters))
        step = (_Step if self.feedback is None else _LearnedStep)(self, model, inputs, loss)
        try:
            try:
                return step.learn()
            except OtherCalls:
                # The first call of a module may fill a cache. The second finds it filled.
                step.take_back()
                return step.learn()
        except OtherCalls as error:
            raise UserError(
                f"with noise the module takes another branch ({error}): its control flow depends on activity. Leave the"
                " layers before the branch out with modules=, or choose another rule."
            ) from error

    def feedback_weights(self) -> dict[str, Tensor]:
        """Return B by the name of the layer (direct) or of the weight (layer); empty before the first step."""
        return {} if self.feedback is None else dict(self.feedback.weights)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the generator, the feedback weights, and the state of the rule for the rest."""
        rest = {} if self.rest is None else {"rest": self.rest.state_dict()}
        feedback = {} if self.feedback is None else {"feedback": self.feedback.state_dict()}
        return {"generator": self.generator.get_state(), **feedback, **rest}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Restore what `state_dict` returned; raises UserError for the state of another kind of credit."""
        if ("feedback" in state) != (self.feedback is not None):
            raise UserError("the state is that of another credit: one of the two learns feedback, the other does not.")
        self.generator.set_state(state["generator"])
        if self.feedback is not None:
            self.feedback.load_state_dict(state["feedback"])
        if self.rest is not None:
            self.rest.load_state_dict(state["rest"])

    def detach(self) -> None:
        """Let go of the module."""
        if self.rest is not None:
            self.rest.detach()
        self.model, self.parameters, self.rest = None, {}, None
        self._indices, self._structures = {}, {}
        if self.feedback is not None:
            self.feedback.weights = {}


@dataclass
class Noise:
    """The noise of all places with one device and type: rows of one buffer, one for each perturbation.

    offsets: where each place begins in a row.
    """

    device: torch.device
    dtype: torch.dtype
    shapes: dict[Place, torch.Size]
    key: int

    def __post_init__(self) -> None:
        self.offsets, self.size = {}, 0
        for place, shape in self.shapes.items():
            self.offsets[place] = self.size
            self.size += shape.numel()
        # The kernel fills multiples of 4, torch fills fastest by multiples of 16.
        self.size = -(-self.size // 16) * 16
        self._generator = torch.Generator(self.device).manual_seed(self.key)
        self._drawn = 0
        self._memory: Tensor | None = None

    @property
    def exact(self) -> torch.dtype:
        """The type in which the noise is drawn and summed."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    def draw(self, rows: int, sigma: float) -> Tensor:
        """Return the noise of the next perturbations, (rows, size), which takes the memory of the former."""
        if self._memory is None or len(self._memory) < rows:
            self._memory = torch.empty(rows, self.size, dtype=self.exact, device=self.device)
        noise = self._memory[:rows]
        if self.device.type == "cpu" and self.exact == torch.float32:
            # Six times as fast as torch's normal_.
            from plastic_grlu.kernels.noise import fill

            fill(noise.numpy(), np.empty((rows, 0), np.float32), sigma, np.uint64(self.key), np.uint64(self._drawn))
        else:
            # Row by row, so that the noise does not depend on how many perturbations are drawn together.
            for row in noise:
                row.normal_(0, sigma, generator=self._generator)
        self._drawn += rows
        return noise.to(self.dtype)

    def split(self, rows: Tensor) -> Iterator[tuple[Place, Tensor]]:
        """Yield the part of each place, in its shape; rows (..., size)."""
        for place, shape in self.shapes.items():
            part = rows[..., self.offsets[place] : self.offsets[place] + shape.numel()]
            yield place, part.view(*rows.shape[:-1], *shape)


@dataclass
class _Buffer:
    """A buffer of a module, and its value before the step."""

    owner: nn.Module
    name: str
    tensor: Tensor
    before: Tensor

    def has_changed(self) -> bool:
        return self.owner._buffers[self.name] is not self.tensor or not torch.equal(self.tensor, self.before)


class _Step:
    """One step of the rule: the passes of one module on one batch."""

    def __init__(self, settings: NodePerturbation, model: nn.Module, inputs: Any, loss: Loss) -> None:
        self.settings, self.model, self.inputs, self.loss = settings, model, inputs, loss
        self._before = RandomStates.now()
        self._buffers = [
            _Buffer(owner, name, buffer, buffer.clone())
            for owner in model.modules()
            for name, buffer in owner._buffers.items()
            if buffer is not None
        ]
        self._changed: list[_Buffer] = []
        self._attributes = [(owner, dict(vars(owner))) for owner in model.modules()]
        self._replaced: list[tuple[dict[str, Any], str, Any]] = []
        # The inputs before the step, if the module changes them; whether it draws random numbers.
        self._original: Any = None
        self._random = True
        self._start = Start(uses_random=True)
        # What the module returned, and the losses; both with a graph if their derivatives are needed.
        self._output: Any = None
        self._losses = torch.empty(0)

    def take_back(self) -> None:
        """Restore buffers, attributes and random states."""
        self._before.restore()
        _put(self._replaced)
        with torch.no_grad():
            for buffer in self._changed:
                buffer.owner._buffers[buffer.name] = buffer.tensor
                buffer.tensor.copy_(buffer.before)

    def learn(self) -> Tensor:
        """Add to `.grad`; return the losses (batch,)."""
        losses, trace = self._clean_pass()
        after = RandomStates.now()
        try:
            self._random = not self._before.same(after)
            trace.learn(self._credits(trace, losses))
            if self.settings.rest is not None:
                self.take_back()
                self.settings.rest.backward(self._fresh_inputs(), self.loss)
        finally:
            after.restore()
        return losses

    def _credits(self, trace: Trace, losses: Tensor) -> dict[Place, Tensor]:
        """Return c of equation (9) for each place."""
        noises, sums = self._perturb(trace, losses)
        scale = 1 / (self.settings.perturbations * (self.settings.noise**2 if self.settings.normalize else 1))
        return {
            place: part.to(noise.dtype)
            for noise, total in zip(noises, sums, strict=True)
            for place, part in noise.split(total.mul_(scale))
        }

    def _clean_pass(self) -> tuple[Tensor, Trace]:
        learned = self.settings.feedback is not None
        clean = CleanPass(
            self.settings.parameters,
            after_nonlinearity=self.settings.credit == "output",
            whole_layers=named_parameters(self.model) if learned else None,
        )
        inputs = self._fresh_inputs()
        tensors, copies = list(tensors_of(inputs)), mapped(Tensor.clone, inputs)
        versions = [tensor._version for tensor in tensors]
        observed = clean.enter(inputs)
        with torch.enable_grad(), clean:
            output = call(self.model, observed)
        if versions != [tensor._version for tensor in tensors]:
            self._original = copies
        self._changed = [buffer for buffer in self._buffers if buffer.has_changed()]
        self._replaced = [
            (vars(owner), name, before.get(name, _MISSING))
            for owner, before in self._attributes
            for name in before.keys() | vars(owner).keys()
            if vars(owner).get(name, _MISSING) is not before.get(name, _MISSING)
        ]
        output, trace = clean.finish(output)
        if not trace.nodes:
            raise UserError(
                "no parameter that the rule teaches takes part in the module's output. Choose others with modules=."
            )
        with torch.set_grad_enabled(learned):
            self._output = mapped(_with_derivative, output) if learned else output
            self._losses = checked_losses(self.loss(self._output))
        return self._losses.detach(), trace

    def _fresh_inputs(self) -> Any:
        """Return the inputs, or copies of them if the module changes its inputs in place."""
        return self.inputs if self._original is None else mapped(Tensor.clone, self._original)

    def _perturb(self, trace: Trace, losses: Tensor) -> tuple[list[Noise], list[Tensor]]:
        """Return the noise, and its sums over pairs, weighted by differences: equations (8) and (9)."""
        indices = self._sample_indices(trace, losses)
        noises = self._noises(trace.places)
        sums = [torch.zeros(noise.size, dtype=noise.exact, device=noise.device) for noise in noises]
        self._start = Start(self._random)
        for drawn in self._chunks(noises):
            difference = rule.antithetic_difference(*self._pairs(trace, noises, drawn))
            for noise, rows, total in zip(noises, drawn, sums, strict=True):
                exact = difference.to(noise.device, noise.exact)
                of_place = noise.split(total)
                for (place, part), (_, whole) in zip(noise.split(rows), of_place, strict=True):
                    rule.add_credit(whole, part, exact, indices[place])
        return noises, sums

    def _chunks(self, noises: list[Noise]) -> Iterator[list[Tensor]]:
        """Yield the noise of all pairs, some at a time, which takes the memory of the former."""
        done = 0
        while done < self.settings.perturbations:
            pairs = min(self._chunk_size(noises), self.settings.perturbations - done)
            yield [noise.draw(pairs, self.settings.noise) for noise in noises]
            done += pairs

    def _noises(self, places: Mapping[Place, Tensor]) -> list[Noise]:
        kinds: dict[tuple[torch.device, torch.dtype], dict[Place, torch.Size]] = {}
        for place, like in places.items():
            kinds.setdefault((like.device, like.dtype), {})[place] = like.shape
        generator = self.settings.generator
        keys = torch.randint(2**63 - 1, (len(kinds),), generator=generator, device=generator.device).tolist()
        return [Noise(*kind, shapes, key) for (kind, shapes), key in zip(kinds.items(), keys, strict=True)]

    def _chunk_size(self, noises: list[Noise]) -> int:
        if self.settings._loops or any(module._forward_hooks for module in self.model.modules()):
            # A hook of the user may keep activity, which torch.vmap makes useless outside of it.
            return 1
        if self.settings.chunk_size is not None:
            return self.settings.chunk_size
        size = sum(noise.size for noise in noises)
        if all(noise.device.type == "cpu" for noise in noises):
            nodes = sum(len(noise.shapes) for noise in noises)
            return max(1, _NUMBERS_OF_NODE * nodes // size)
        return max(1, _NUMBERS_ON_GPU // (2 * size))

    def _pairs(self, trace: Trace, noises: list[Noise], drawn: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the losses (pairs, batch) with plus and with minus the noise."""
        pairs = len(drawn[0])
        if not self.settings._loops and (pairs > 1 or self._chunk_size(noises) > 1):
            try:
                return self._together(trace, noises, drawn)
            except UserError:
                raise
            except (*_UNSUPPORTED, OtherCalls):
                # torch.vmap cannot add a batch of noise in place to the first activity, but to a batch of it. Nor does
                # it support everything else.
                self.settings._loops, self.settings._starts_alone = self.settings._starts_alone, True
                self._start = Start(self._random)
                return self._pairs(trace, noises, drawn)
        both = [
            torch.stack([self._pass(trace, noises, [rows[pair] for rows in drawn], sign) for pair in range(pairs)])
            for sign in (1.0, -1.0)
        ]
        return both[0], both[1]

    def _together(self, trace: Trace, noises: list[Noise], drawn: list[Tensor]) -> tuple[Tensor, Tensor]:
        def one(*rows: Tensor) -> Tensor:
            return self._pass(trace, noises, rows, 1.0, alone=False)

        if self.settings._starts_alone and not self._start.complete:
            self._pass(trace, noises, [rows[0] for rows in drawn], 1.0)
        both = [torch.cat([rows, -rows]) for rows in drawn]
        losses: Tensor = torch.vmap(one, randomness="same")(*both)
        plus, minus = losses.chunk(2)
        return plus, minus

    def _pass(
        self, trace: Trace, noises: list[Noise], rows: Sequence[Tensor], sign: float, *, alone: bool = True
    ) -> Tensor:
        """Return the losses (batch,) of a pass with noise."""
        at = {place: part for noise, row in zip(noises, rows, strict=True) for place, part in noise.split(row)}
        start = self._start if self._start.usable else None
        perturbed = PerturbedPass(trace.functions, at, sign, start, alone=alone)
        with torch.no_grad():
            return self._call(perturbed, {})

    def _call(self, perturbed: PerturbedPass, parameters: Mapping[str, Tensor]) -> Tensor:
        """Call the module as in the clean pass: with its buffers and random states before it."""
        if self._random:
            self._before.restore()
        inputs = self._fresh_inputs()
        with self._former_state():
            if parameters:
                named = {f"model.{name}": value for name, value in parameters.items()}
                output = torch.func.functional_call(_Observed(self.model, perturbed), named, (inputs,))
            else:
                with perturbed:
                    output = call(self.model, inputs)
        perturbed.finish()
        return checked_losses(self.loss(output))

    @contextmanager
    def _former_state(self) -> Iterator[None]:
        """Let buffers and attributes that the clean pass changed have their values before it."""
        buffers = [(buffer.owner._buffers, buffer.name, buffer.before.clone()) for buffer in self._changed]
        former: list[tuple[dict[str, Any], str, Any]] = [*buffers, *self._replaced]
        present = [(attributes, name, attributes.get(name, _MISSING)) for attributes, name, _ in former]
        _put(former)
        try:
            yield
        finally:
            _put(present)

    def _sample_indices(self, trace: Trace, losses: Tensor) -> dict[Place, Tensor | None]:
        """Return which sample each entry of each node belongs to, which is found once for each shape."""
        places = trace.places
        if len(losses) == 1:
            return dict.fromkeys(places)
        signature = self._signature(trace, losses)
        known = self.settings._indices
        if signature not in known:
            if len(known) >= _REMEMBERED:
                known.pop(next(iter(known)))
            known[signature] = self._find_samples(places, trace.functions)
        return known[signature]

    def _signature(self, trace: Trace, losses: Tensor) -> Any:
        """Return what the arrangement of samples and layers depends on."""
        training = tuple(module.training for module in self.model.modules())
        shapes = tuple((place, like.shape) for place, like in trace.places.items())
        return training, shapes, len(losses), len(trace.functions)

    def _find_samples(
        self, places: Mapping[Place, Tensor], functions: Sequence[Callable[..., Any]]
    ) -> dict[Place, Tensor | None]:
        # Other parameters than the present ones, which may be zero and hide a dependence. Recurrent layers of torch
        # keep theirs, because they copy references to them.
        random = torch.Generator().manual_seed(0)
        parameters = {}
        recurrent = [module for module in self.model.modules() if isinstance(module, nn.RNNBase)]
        kept = {id(parameter) for module in recurrent for parameter in module.parameters()}
        for name, parameter in self.model.named_parameters():
            if id(parameter) in kept:
                continue
            spread = parameter.detach().float().std(correction=0).item() or 0.1
            noise = torch.randn(parameter.shape, generator=random) * spread
            other = parameter.detach() + noise.to(parameter.device, parameter.dtype)
            parameters[name] = nn.Parameter(other, requires_grad=False)
        zeros = {place: torch.zeros_like(like, requires_grad=True) for place, like in places.items()}
        perturbed = PerturbedPass(functions, zeros, fixed_statistics=not self.settings.across_samples)
        try:
            with torch.enable_grad():
                found = from_derivatives(self._call(perturbed, parameters), zeros)
        except UserError:
            raise
        except (*_UNSUPPORTED, OtherCalls):
            found = {}

        def losses_with(place: Place, noise: Tensor) -> Tensor:
            with torch.no_grad():
                return self._call(PerturbedPass(functions, {place: noise}), {})

        silent = [place for place in places if place not in found]
        for place in silent[:_MOST_TESTED]:
            found[place] = from_responses(partial(losses_with, place), places[place])
        # Where nothing is known, an entry counts as one that reaches all losses, which is never wrong.
        return {
            place: index if (index := found.get(place)) is None else index.to(like.device)
            for place, like in places.items()
        }


class _LearnedStep(_Step):
    """One step of learned feedback."""

    def _credits(self, trace: Trace, losses: Tensor) -> dict[Place, Tensor]:
        """Return the credit of each place, divided by the batch, and let B learn."""
        places, structure = trace.places, self._structure(trace, losses)
        errors = errors_at_output(self._output, self._losses)
        signals = self._signals(trace, structure, errors)
        by_place = signals.credits
        if self.settings.feedback_rate and structure.hidden:
            rate = self.settings.feedback_rate * share_that_counts(errors, len(losses))
            self._learn_feedback(trace, structure, signals, rate)
        return {
            place: by_place[place].to(like.dtype) / len(losses) if place in by_place else torch.zeros_like(like)
            for place, like in places.items()
        }

    def _losses_of(self, error_pass: PerturbedPass) -> Tensor:
        return self._call(error_pass, {})

    def _structure(self, trace: Trace, losses: Tensor) -> Structure:
        known, signature = self.settings._structures, self._signature(trace, losses)
        if signature not in known:
            indices = self._sample_indices(trace, losses)
            one_output = isinstance(self._output, Tensor)
            if len(known) >= _REMEMBERED:
                known.pop(next(iter(known)))
            known[signature] = find_structure(trace, self._losses_of, indices, len(losses), one_output=one_output)
        return known[signature]

    def _signals(self, trace: Trace, structure: Structure, errors: Sequence[Tensor]) -> Signals:
        feedback = self.settings.feedback
        assert feedback is not None
        if feedback.kind == "layer":
            return layer_signals(feedback, trace, self._losses_of, learns=self.settings.feedback_rate > 0)
        of_samples = errors_of_samples(errors, len(self._losses))
        if structure.output is None:
            exact = exact_credits(trace, self._losses_of)
        else:
            exact = {structure.output: of_samples.view(trace.places[structure.output].shape)}
        return DirectSignals(feedback, structure, trace.places, exact, of_samples)

    def _learn_feedback(self, trace: Trace, structure: Structure, signals: Signals, rate: float) -> None:
        """Measure how noise on hidden layers changes the losses, and let B explain more of it."""
        feedback, places = self.settings.feedback, trace.places
        assert feedback is not None
        noises = self._noises({place: places[place] for place in structure.hidden})
        sums = {
            place: torch.zeros(places[place].shape, dtype=noise.exact, device=noise.device)
            for noise in noises
            for place in noise.shapes
        }
        self._start = Start(self._random)
        residuals = []
        for drawn in self._chunks(noises):
            difference = rule.antithetic_difference(*self._pairs(trace, noises, drawn))
            noise_at = _at_places(noises, drawn)
            expected = explained(structure, noise_at, signals.credits)
            residual = difference if expected is None else difference - expected.to(difference)
            residuals.append(residual)
            add_unexplained(sums, structure, noise_at, residual)
        directions, changes = signals.direction(sums)
        search = Regression()
        again = [Noise(noise.device, noise.dtype, noise.shapes, noise.key) for noise in noises]
        for residual in residuals:
            drawn = [noise.draw(len(residual), self.settings.noise) for noise in again]
            change = explained(structure, _at_places(again, drawn), changes)
            if change is not None:
                search.add(residual.to(change), change)
        for name, direction in directions.items():
            former = feedback.weights[name]
            feedback.weights[name] = former + (rate * search.step * direction).to(former)


def _at_places(noises: Sequence[Noise], drawn: Sequence[Tensor]) -> dict[Place, Tensor]:
    """Return the noise (pairs, *place) of each place."""
    return {place: part for noise, rows in zip(noises, drawn, strict=True) for place, part in noise.split(rows)}


def _with_derivative(tensor: Tensor) -> Tensor:
    return tensor.requires_grad_() if tensor.is_floating_point() else tensor


def _put(values: Iterable[tuple[dict[str, Any], str, Any]]) -> None:
    """Set entries of dictionaries; `_MISSING` deletes one."""
    for entries, name, value in values:
        if value is not _MISSING:
            entries[name] = value
        else:
            entries.pop(name, None)


class _Observed(nn.Module):
    """Calls a module under a mode, which does not observe how torch replaces parameters and buffers."""

    def __init__(self, model: nn.Module, mode: PerturbedPass) -> None:
        super().__init__()
        self.model, self.mode = model, mode

    def forward(self, inputs: Any) -> Any:
        with self.mode:
            return call(self.model, inputs)


def _inner(model: nn.Module) -> nn.Module:
    """Return the module inside wrappers of torch that copy it to several devices."""
    while isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        model = model.module
    return model
