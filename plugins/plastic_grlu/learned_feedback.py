"""Learned feedback for any torch module: feedback weights B carry the error at the output to the hidden layers.

Noise n is added to the activity h of hidden layers. For sample b with loss l_b and a pair of passes with +n and -n:

    e_b = dl_b / d(output)                                  the error at the output
    c_b = a_b + B e_b                                       "direct": the credit of a layer, one B for each layer
    c_b = a_b + sum over k of (dx_k/dh)^T (df_k/dx)^T delta_k,   f_k = f(x_k, B_k) in place of f(x_k, W_k)      "layer"
    d_b = (l_b(+n) - l_b(-n)) / 2                           the measured change of the loss
    r_b = d_b - sum over layers of n . c_b                  what B does not explain of it
    D   = (sum over b of the derivative of r_b n . c_b with respect to B) / |signal|^2
    B  <- B + rate m D,   m = (sum of r q) / (sum of q^2),  q_b = the change of sum over layers of n . c_b under B + D

E[n d] is sigma^2 dl/dh, so c learns the derivative of the loss. a_b is the part of the error that reaches h without
passing weights; in hidden layers it is 0 but for skip connections to the output, and in the layer of the output it is
all. The products k are those that receive h; delta_k is their own credit. The signal is e, or delta_k. m makes the sum
of (r - m q)^2 over samples and pairs smallest. For one sample, one pair and direct feedback, m D = r n e^T / (|n|^2
|e|^2): normalized least mean squares. Then the parameters of a layer learn by equation (10) of rule.py, with c in place
of n d / sigma^2.

Source: Lansdell, Prakash & Kording 2020, Learning to solve the credit assignment problem (ICLR). There, B is learned
from the estimate n d / sigma^2 itself. Its variance is as large as the gradient of all units; that of r n falls as c
improves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from plastic_cli.credit.interception import function_name
from plastic_cli.credit.nested import mapped, tensors_of
from plastic_cli.errors import UserError
from plastic_grlu.nodes import PerturbedPass, Place, Trace, in_place

Feedback = Literal["direct", "layer"]
DAMPING = 1e-6
"""Of |e|^2 for each sample, in the step of B."""
_NO_SECOND_DERIVATIVE = ("differentiate twice", "is not implemented")


class FeedbackWeights:
    """The feedback weights of a module, by name; each is drawn when it is first used.

    kind: "direct" or "layer". generator: draws them.
    """

    def __init__(self, kind: Feedback, generator: torch.Generator) -> None:
        self.kind, self.generator = kind, generator
        self.weights: dict[str, Tensor] = {}

    def direct(self, name: str, numbers: int, errors: int, like: Tensor) -> Tensor:
        """Return B (numbers, errors) of a layer, at first normal with the variance 1 / numbers.

        Raises UserError if the layer or the output had another size before.
        """
        B = self._stored(name, (numbers, errors), like, numbers**-0.5)
        if B.shape != (numbers, errors):
            raise UserError(
                f"direct feedback to '{name}' leads from {B.shape[1]} numbers of the output to {B.shape[0]} of the"
                f" layer for each sample, and now they are {errors} and {numbers}. Give inputs of one shape, or use"
                ' feedback="layer".'
            )
        return B

    def of_weight(self, name: str, weight: Tensor) -> Tensor:
        """Return B in the shape of a weight, at first normal with the standard deviation of the weight."""
        spread = float(weight.detach().float().std(correction=0)) or weight[0].numel() ** -0.5
        return self._stored(name, weight.shape, weight, spread)

    def state_dict(self) -> dict[str, Any]:
        """Return the kind, and B by name."""
        return {"kind": self.kind, "weights": {name: B.clone() for name, B in self.weights.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; raises UserError for the state of another kind of feedback."""
        if state["kind"] != self.kind:
            raise UserError(f"the state is that of feedback={state['kind']!r}, and this rule has {self.kind!r}.")
        self.weights = {name: B.clone() for name, B in state["weights"].items()}

    def _stored(self, name: str, shape: Sequence[int], like: Tensor, spread: float) -> Tensor:
        if name not in self.weights:
            drawn = torch.randn(tuple(shape), generator=self.generator, device=self.generator.device)
            self.weights[name] = (spread * drawn).to(like.device, _exact(like.dtype))
        B = self.weights[name] = self.weights[name].to(like.device)
        return B


@dataclass(frozen=True)
class Rows:
    """The entries of a place as one row for each sample.

    order: of the entries, sample by sample; None if the first dimension holds the samples.
    """

    shape: torch.Size
    samples: int
    order: Tensor | None

    @classmethod
    def of(cls, name: str, like: Tensor, index: Tensor | None, samples: int) -> Rows:
        """Return the rows of a place. index: the sample of each entry, as of `plastic_grlu.samples`; None: not known.

        Raises UserError if the samples cannot be told apart.
        """
        first = torch.arange(samples, device=like.device)
        if index is None:
            if samples == 1 or (like.ndim and like.shape[0] == samples):
                return cls(like.shape, samples, None)
        elif index.numel() == samples == index.shape[0] and torch.equal(index.flatten(), first):
            return cls(like.shape, samples, None)
        else:
            of_entry = index.expand(like.shape).flatten()
            numbers = torch.bincount(of_entry, minlength=samples)
            if len(numbers) == samples and (numbers == numbers[0]).all():
                return cls(like.shape, samples, torch.argsort(of_entry, stable=True))
        raise UserError(
            f"learned feedback cannot tell which sample each number of the layer '{name}' belongs to, of shape"
            f" {tuple(like.shape)} for {samples} samples. Leave the layer out with modules=, or use"
            ' credit="preactivation".'
        )

    def split(self, z: Tensor) -> Tensor:
        """Return tensors (..., *shape) as (..., samples, numbers)."""
        lead = z.shape[: z.ndim - len(self.shape)]
        flat = z.reshape(*lead, -1)
        return (flat if self.order is None else flat[..., self.order]).view(*lead, self.samples, -1)

    def join(self, rows: Tensor) -> Tensor:
        """Return rows (samples, numbers) in the shape of the place."""
        if self.order is None:
            return rows.reshape(self.shape)
        flat = torch.empty_like(rows.flatten())
        flat[self.order] = rows.flatten()
        return flat.view(self.shape)


@dataclass(frozen=True)
class Structure:
    """What the errors of a module pass, which is found once for each shape of the activity.

    hidden: the places with noise, with their rows. names: of all places. output: the place that is the output of the
    module, if all other places are hidden and no error reaches them but through weights.
    """

    hidden: Mapping[Place, Rows]
    names: Mapping[Place, str]
    output: Place | None


@dataclass
class _Product:
    """A product with weights: with B in place of them, the leaf that its result starts from, and the names of B."""

    carried: Tensor
    leaf: Tensor
    names: tuple[str, ...]


class ErrorPass(PerturbedPass):
    """A pass without noise, whose graph ends where activity is multiplied by weights.

    zeros: zeros by place, the derivatives with respect to which are the errors. feedback: the name and the value of
    weights to the B that carries the error on; None: no error passes.
    """

    def __init__(
        self, trace: Trace, zeros: Mapping[Place, Tensor], feedback: Callable[[str, Tensor], Tensor] | None = None
    ) -> None:
        super().__init__(trace.functions, zeros, fixed_statistics=True)
        self._weights, self._feedback = trace.weights, feedback
        self._done = -1
        self.received: list[Tensor] = []
        self.products: list[_Product] = []

    def handle(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Carry out a function; observers of the module may register hooks on tensors with a graph."""
        if function_name(function) == "register_hook":
            return function(*args, **kwargs)
        return super().handle(function, args, kwargs)

    def _carry_out(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        call = self._calls - 1
        weights = self._weights.get(call)
        if weights is None:
            if call in self._noises and in_place(function, kwargs):
                return self._change(call, function, args, kwargs)
            return super()._carry_out(function, args, kwargs)
        operands = tensors_of((*args, *kwargs.values()))
        received = [operand for number, operand in enumerate(operands) if number not in weights and operand.grad_fn]
        self.received += received
        with torch.no_grad():
            result = function(*args, **kwargs)
        if self._feedback is None or not received:
            # A view without graph may not change in place.
            return result if result._base is None else result.clone()
        numbers, feedback = count(), self._feedback

        def other(tensor: Tensor) -> Tensor:
            name = weights.get(next(numbers))
            return tensor if name is None else feedback(name, tensor).to(tensor.dtype)

        carried = function(*mapped(other, args), **mapped(other, kwargs))
        leaf = torch.zeros_like(result, requires_grad=True)
        self.products.append(_Product(carried, leaf, tuple(weights.values())))
        return result + leaf

    def _change(self, call: int, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Let a function that works in place change a copy, which it may need for its derivative, before zeros."""
        target, copy = args[0], args[0].clone()
        result = function(copy, *args[1:], **kwargs)
        target.copy_(copy + self._noises[call][0])
        self._done = call
        return None if result is None else target

    def _perturbed(self, result: Any, args: Sequence[Any], noises: Mapping[int, Tensor]) -> Any:  # noqa: ARG002
        # What dropout returns in evaluation is its input.
        return result if self._done == self._calls - 1 else super()._perturbed(result, (), noises)


class Signals(Protocol):
    """The credit of each place for one batch, and how it depends on B."""

    credits: dict[Place, Tensor]
    """The derivative of each sample's loss that B claims, by place, in its shape."""

    def direction(self, residuals: Mapping[Place, Tensor]) -> tuple[dict[str, Tensor], dict[Place, Tensor]]:
        """Return D by name, and the change of the credits of hidden places under B + D.

        residuals: the sum over pairs of r n, by hidden place.
        """


class DirectSignals:
    """Direct feedback: c = a + B e.

    exact: a, by place. errors: e (batch, numbers of the output).
    """

    def __init__(
        self,
        weights: FeedbackWeights,
        structure: Structure,
        places: Mapping[Place, Tensor],
        exact: Mapping[Place, Tensor],
        errors: Tensor,
    ) -> None:
        self._structure, self._errors = structure, errors
        self.credits = dict(exact)
        for place, rows in structure.hidden.items():
            like = places[place]
            own = self._errors_at(like)
            B = weights.direct(structure.names[place], like.numel() // rows.samples, own.shape[1], like)
            with _without_autocast(like):
                credit = rows.join(own @ B.T)
            self.credits[place] = credit + self.credits[place] if place in self.credits else credit

    def _errors_at(self, like: Tensor) -> Tensor:
        return self._errors.to(like.device, _exact(like.dtype))

    def direction(self, residuals: Mapping[Place, Tensor]) -> tuple[dict[str, Tensor], dict[Place, Tensor]]:
        """See `Signals`."""
        directions, changes = {}, {}
        for place, rows in self._structure.hidden.items():
            errors = self._errors_at(residuals[place])
            with _without_autocast(errors):
                D = rows.split(residuals[place]).T @ errors / _positive(errors.square().sum())
                changes[place] = rows.join(errors @ D.T)
            directions[self._structure.names[place]] = D
        return directions, changes


@dataclass
class LayerSignals:
    """Feedback from layer to layer.

    credits: by place. parts: what each product adds to the credit of a place, with a graph that starts at B. leaves: B
    by name. signals: |delta|^2 by name, summed over the uses.
    """

    credits: dict[Place, Tensor]
    parts: list[tuple[Place, Tensor]]
    leaves: dict[str, Tensor]
    signals: dict[str, Tensor]

    def direction(self, residuals: Mapping[Place, Tensor]) -> tuple[dict[str, Tensor], dict[Place, Tensor]]:
        """See `Signals`; raises UserError if a function between layers has no second derivative."""
        try:
            return self._direction(residuals)
        except RuntimeError as error:
            if not any(words in str(error) for words in _NO_SECOND_DERIVATIVE):
                raise
            raise _no_second_derivative() from error

    def _direction(self, residuals: Mapping[Place, Tensor]) -> tuple[dict[str, Tensor], dict[Place, Tensor]]:
        variables = {place: residual.clone().requires_grad_() for place, residual in residuals.items()}
        terms = [(variables[place] * part).sum() for place, part in self.parts if part.requires_grad]
        names = list(self.signals)
        if not terms:
            return {}, {}
        leaves = [self.leaves[name] for name in names]
        found = torch.autograd.grad(_sum(terms), leaves, create_graph=True, allow_unused=True)
        gradients = {name: gradient for name, gradient in zip(names, found, strict=True) if gradient is not None}
        if len(gradients) < len(names):
            raise _no_second_derivative()
        directions = {name: gradient.detach() / _positive(self.signals[name]) for name, gradient in gradients.items()}
        products = [(gradient * directions[name]).sum() for name, gradient in gradients.items()]
        changes = torch.autograd.grad(_sum(products), list(variables.values()), allow_unused=True)
        return directions, {
            place: change for place, change in zip(variables, changes, strict=True) if change is not None
        }


def layer_signals(
    weights: FeedbackWeights,
    trace: Trace,
    losses_of: Callable[[PerturbedPass], Tensor],
    *,
    learns: bool,
) -> LayerSignals:
    """Carry the errors back from layer to layer. learns: whether `direction` will be called."""
    leaves: dict[str, Tensor] = {}

    def feedback(name: str, weight: Tensor) -> Tensor:
        if name not in leaves:
            leaves[name] = weights.of_weight(name, weight).detach().requires_grad_(learns)
        return leaves[name]

    zeros = _zeros(trace)
    places, values = list(zeros), list(zeros.values())
    # Only this kind of attention has second derivatives.
    with torch.enable_grad(), torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        error_pass = ErrorPass(trace, zeros, feedback)
        losses = losses_of(error_pass)
        products = error_pass.products
        tails = [product.leaf for product in products]
        found_credits: dict[Place, Tensor] = {}
        parts: list[tuple[Place, Tensor]] = []
        signals: dict[str, Tensor] = {}
        deltas: dict[int, Tensor] = {}

        def arrive(found: Sequence[Tensor | None], *, note: bool) -> None:
            for place, part in zip(places, found, strict=False):
                if part is None:
                    continue
                known = found_credits.get(place)
                found_credits[place] = part.detach() if known is None else known + part.detach()
                if note:
                    parts.append((place, part))
            # What passes two products without noise between them depends on the B of both.
            ends_here = not note or any(part is not None for part in found[: len(places)])
            for number, part in enumerate(found[len(places) :]):
                if part is not None:
                    error = part.detach() if ends_here else part
                    deltas[number] = deltas[number] + error if number in deltas else error

        arrive(_derivatives(losses, [*values, *tails]), note=False)
        for number in reversed(range(len(products))):
            product, delta = products[number], deltas.get(number)
            if delta is None:
                continue
            found = torch.autograd.grad(
                product.carried,
                [*values, *tails[:number]],
                delta.to(product.carried.dtype),
                create_graph=learns,
                retain_graph=True,
                allow_unused=True,
            )
            arrive(found, note=True)
            if any(part is not None for part in found):
                for name in product.names:
                    signals[name] = signals.get(name, delta.new_zeros(())) + delta.detach().square().sum()
    return LayerSignals(found_credits, parts, leaves, signals)


def find_structure(
    trace: Trace,
    losses_of: Callable[[PerturbedPass], Tensor],
    indices: Mapping[Place, Tensor | None],
    samples: int,
    *,
    one_output: bool,
) -> Structure:
    """Return which places are hidden. one_output: whether the module returns one tensor."""
    places, names = trace.places, trace.names
    zeros = _zeros(trace)
    with torch.enable_grad():
        error_pass = ErrorPass(trace, zeros)
        losses = losses_of(error_pass)
        ends = [received.sum() for received in error_pass.received]
    behind = _derivatives(_sum(ends), list(zeros.values())) if ends else [None] * len(zeros)
    exact = _derivatives(losses, list(zeros.values()))
    hidden = [place for place, part in zip(zeros, behind, strict=True) if part is not None]
    reached = [place for place, part in zip(zeros, exact, strict=True) if part is not None]
    outputs = [node.noise_place for node in trace.nodes if node.is_output and not node.continued]
    simple = one_output and reached == outputs and len(outputs) == 1 and outputs[0] not in hidden
    return Structure(
        {place: Rows.of(names[place], places[place], indices[place], samples) for place in hidden},
        names,
        outputs[0] if simple else None,
    )


def exact_credits(trace: Trace, losses_of: Callable[[PerturbedPass], Tensor]) -> dict[Place, Tensor]:
    """Return the derivatives of the losses that reach places without passing weights."""
    zeros = _zeros(trace)
    with torch.enable_grad():
        found = _derivatives(losses_of(ErrorPass(trace, zeros)), list(zeros.values()))
    return {place: part for place, part in zip(zeros, found, strict=True) if part is not None}


def errors_at_output(output: Any, losses: Tensor) -> list[Tensor]:
    """Return the derivatives of each sample's loss with respect to the tensors that the module returned.

    output: of the module, without graph before the loss. Raises UserError if the loss has no derivative.
    """
    parts = [part for part in tensors_of(output) if part.requires_grad]
    errors = [error for error in _derivatives(losses, parts) if error is not None]
    if not errors:
        raise UserError(
            "the loss has no derivative at the output of the module, which learned feedback sends back. Use another"
            ' loss, or credit="preactivation".'
        )
    return errors


def share_that_counts(errors: Sequence[Tensor], samples: int) -> float:
    """Return the share of the step of B: nearly 1, but 0 where all samples are right and d is only rounding."""
    size = sum(float(error.square().sum()) for error in errors) / samples
    return size / (size + DAMPING)


def errors_of_samples(errors: Sequence[Tensor], samples: int) -> Tensor:
    """Return e (batch, numbers); raises UserError if the first dimension of the output is not the batch."""
    for error in errors:
        if not error.ndim or error.shape[0] != samples:
            raise UserError(
                f"the module returned a tensor of shape {tuple(error.shape)} for {samples} samples: direct feedback"
                ' needs the samples in the first dimension. Use feedback="layer", or transpose the output.'
            )
    return torch.cat([error.flatten(1) for error in errors], 1)


@dataclass
class Regression:
    """Sums of the line search over pairs and samples: m = rq / qq."""

    rq: float = 0.0
    qq: float = 0.0

    @property
    def step(self) -> float:
        """The factor m of D; 0 if D changes nothing."""
        return self.rq / self.qq if self.qq > 0 else 0.0

    def add(self, residual: Tensor, change: Tensor) -> None:
        """Add pairs: r and q (pairs, batch)."""
        self.rq += float((residual * change).sum())
        self.qq += float(change.square().sum())


def explained(structure: Structure, noise: Mapping[Place, Tensor], credit: Mapping[Place, Tensor]) -> Tensor | None:
    """Return the sum over hidden places of n . c (pairs, batch) for noise (pairs, *place)."""
    terms = []
    for place, rows in structure.hidden.items():
        if place in credit:
            own = rows.split(credit[place]).to(_exact(noise[place].dtype))
            with _without_autocast(own):
                terms.append(torch.einsum("pbi,bi->pb", rows.split(noise[place]).to(own.dtype), own))
    return _sum([term.to(terms[0].device) for term in terms]) if terms else None


def add_unexplained(
    sums: Mapping[Place, Tensor], structure: Structure, noise: Mapping[Place, Tensor], residual: Tensor
) -> None:
    """Add the sum over pairs of r n to `sums`, by hidden place. residual (pairs, batch), noise (pairs, *place)."""
    for place, rows in structure.hidden.items():
        own = rows.split(noise[place]).to(sums[place].dtype)
        with _without_autocast(own):
            sums[place].add_(rows.join(torch.einsum("pb,pbi->bi", residual.to(own), own)))


def _no_second_derivative() -> UserError:
    return UserError(
        'feedback="layer" needs second derivatives of the functions between two layers, and one of them has none. Use'
        ' feedback="direct".'
    )


def _without_autocast(tensor: Tensor) -> torch.autocast:
    return torch.autocast(tensor.device.type, enabled=False)


def _zeros(trace: Trace) -> dict[Place, Tensor]:
    return {place: torch.zeros_like(like, requires_grad=True) for place, like in trace.places.items()}


def _derivatives(losses: Tensor, inputs: Sequence[Tensor]) -> list[Tensor | None]:
    if not losses.requires_grad or not inputs:
        return [None] * len(inputs)
    return list(torch.autograd.grad(losses.sum(), list(inputs), retain_graph=True, allow_unused=True))


def _sum(terms: Iterable[Tensor]) -> Tensor:
    first, *others = terms
    total = first
    for term in others:
        total = total + term.to(total)
    return total


def _positive(size: Tensor) -> Tensor:
    return size.clamp_min(torch.finfo(size.dtype).tiny)


def _exact(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32
