"""One forward and backward pass of a module in which errors reach the layers through feedback weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from plastic_cli import UserError
from plastic_cli.credit.interception import Interception, function_name
from plastic_cli.credit.nested import mapped, tensors_of
from plastic_cli.credit.products import BILINEAR, WITH_SUMMAND, Product, product_of
from plastic_cli.credit.recording import Recording
from plastic_cli.credit.unrolled import PARTS
from plastic_metafa import layer_terms
from plastic_metafa.computed_weights import MULTIPLY, of_parameters_alone, origin
from plastic_metafa.feedback_weights import FeedbackWeights, fan_of
from plastic_metafa.theta_file import TermKey

NO_FEEDBACK = frozenset({"cdist", "pairwise_distance", "cosine_similarity"})
"""Names of functions that combine a weight and activity in another way."""
SAME_UNITS = frozenset({"View", "UnsafeView", "Reshape", "Squeeze", "Unsqueeze", "Clone", "ToCopy", "LogSoftmax"})
"""Nodes of differentiation that may lie between the last response and the output of the module."""


@dataclass
class Layer:
    """One use of a weight in a forward pass.

    name: of the weight. direct: the name of its direct feedback. time_first: the input is (time, batch, features).
    by_terms: the weight learns by the terms; otherwise by term 0 with strength 1. of_parameters: the input is computed
    from parameters alone. in_weight: so is the response, and it is part of the weight of another layer. This is then
    no layer of its own, and has its exact derivative. y_post, and the slope of the first layer, are known after the
    forward pass.
    """

    passed: Pass
    name: str
    direct: str | None
    time_first: bool
    by_terms: bool
    of_parameters: bool
    in_weight: bool = False
    slope: layer_terms.Slope | None = None
    y_post: Tensor | None = None


@dataclass
class Pass:
    """What the layers share in one pass.

    multiplied: names of the parameters that multiplied activity. embedded: of those that were looked up. samples: the
    size of the batch, known after the forward pass. output_error: the error at the output of the module, known when the
    backward pass begins.
    """

    weights: FeedbackWeights
    parameters: Mapping[str, nn.Parameter]
    theta: Mapping[TermKey, float]
    multiplied: set[str] = field(default_factory=set)
    embedded: set[str] = field(default_factory=set)
    samples: int = 1
    output_error: Tensor | None = None
    time_first: bool = False

    def __post_init__(self) -> None:
        self._uses: Counter[str] = Counter()
        self._names = {id(parameter): name for name, parameter in self.parameters.items() if parameter.ndim > 1}
        self.plain = set(self.theta) == {0}
        self.uses_e_pre = not self.plain and layer_terms.uses_e_pre(self.theta)

    @property
    def used(self) -> set[str]:
        """Names of the parameters that multiplied activity or were looked up."""
        return self.multiplied | self.embedded

    @property
    def by_terms(self) -> set[str]:
        """Names of the parameters whose gradients contain the strengths of the terms already."""
        return set() if self.plain else self.used

    def name_of(self, product: Product) -> str | None:
        """Return the name of a taught weight: a parameter, a view of one, or computed from some, with joined names.

        Without gradients, as inside a torch.autograd.Function, there is no error that feedback could carry.
        """
        if not torch.is_grad_enabled():
            return None
        name = self._name_of_parameter(product.weight)
        if name is None and product.weight.grad_fn is not None:
            name = self._name_of_computed(product.weight, maybe_activity=product.kind == "matmul")
        return name

    def multiply(self, name: str, product: Product) -> tuple[Tensor, Layer]:
        """Return the product of a layer, whose error will reach x through B, and what the terms need."""
        self.multiplied.update(name.split("+"))
        x, weight, bias = product.x, product.weight, product.bias
        self._uses[name] += 1
        time_first, alone = self.time_first and x.ndim > 2, of_parameters_alone(x)
        layer = Layer(self, name, self._direct_name(name, weight), time_first, not self.plain, alone)
        B = None if self.weights.kind in ("symmetric", "direct") else self._feedback(name, weight, product.kind)
        device = x.device.type
        if torch.is_autocast_enabled(device) and x.dtype != torch.float64:
            dtype = torch.get_autocast_dtype(device)
            x, weight = x.to(dtype), weight.to(dtype)
            bias, B = None if bias is None else bias.to(dtype), None if B is None else B.to(dtype)
        if self.uses_e_pre:
            layer.slope = layer_terms.slope_before(x)
        return _Multiply.apply(x, weight, bias, B, product, layer), layer

    def multiply_by_other(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Tensor | None:
        """Return the result of a function that uses a weight as a factor; None if it does not, or carries no error.

        The derivative with respect to the weight is that of f(x, W), and with respect to the activity that of f(x, B).
        """
        called = function_name(function)
        if (called not in BILINEAR and called not in NO_FEEDBACK) or not torch.is_grad_enabled():
            return None
        summand = args[0] if called in WITH_SUMMAND and args else None
        factors = [part for part in tensors_of((args, kwargs)) if part.requires_grad and part is not summand]
        found = {id(part): name for part in factors if (name := self._name_of_factor(part)) is not None}
        names = [found[id(part)] for part in factors if id(part) in found]
        if not names or len(names) == len(factors):
            return None
        self._check_function(called, names)
        self.multiplied.update(names[0].split("+"))

        def for_weight(part: Tensor) -> Tensor:
            return part if part is summand or id(part) in found else part.detach()

        def for_activity(part: Tensor) -> Tensor:
            if id(part) not in found:
                return part.detach() if part is summand else part
            return part.detach() if self.weights.kind == "symmetric" else self._feedback(names[0], part, "linear")

        own = function(*mapped(for_weight, args), **mapped(for_weight, kwargs))
        carried = function(*mapped(for_activity, args), **mapped(for_activity, kwargs))
        # The second summand is 0 and has a derivative.
        result: Tensor = own + (carried - carried.detach())
        return result

    def _check_function(self, called: str, names: Sequence[str]) -> None:
        """Raise UserError if a weight cannot be taught in a function."""
        if called in NO_FEEDBACK or len(names) > 1:
            reason = "feedback weights cannot replace a weight there"
        elif not self.plain:
            reason = "the terms beyond 0 teach linear layers and convolutions"
        elif self.weights.kind == "direct":
            reason = "direct feedback teaches linear layers and convolutions"
        else:
            return
        raise UserError(
            f"'{names[0]}' is used in {called}: {reason}. Leave it out with modules=, and let it learn with"
            ' rest="gradient".'
        )

    def embed(self, name: str, product: Product) -> Tensor:
        """Return an embedding that learns by term 0 with its strength: its error goes nowhere else."""
        self.embedded.update(name.split("+"))
        kept = product.weight.detach()
        return product.apply(product.x, kept + self.theta.get(0, 0.0) * (product.weight - kept))

    def watch_error_of(self, output: Any) -> None:
        """Note the error at the output of the module when the backward pass begins, for direct feedback.

        A tuple, dictionary or dataclass must contain one tensor that depends on the parameters.
        """
        learning = {id(part): part for part in tensors_of(output) if part.requires_grad}
        if len(learning) > 1 or (not learning and next(tensors_of(output), None) is None):
            raise UserError(
                f"feedback='direct' needs a module that returns one tensor; it returned a {type(output).__name__} with"
                f" {len(learning)} tensors that depend on the parameters. Use another feedback, or wrap the module."
            )

        def note(error: Tensor) -> None:
            self.output_error = error

        for tensor in learning.values():
            tensor.register_hook(note)

    def direct_error(self, layer: Layer, product: Product) -> Tensor:
        """Return the error at the input of a layer by direct feedback from the output, in the shape of the input.

        Where input and output have the same positions, each receives its own error. Otherwise each sample has one
        error, the sum over the positions of the output. Linear layers have one B for each feature, at all positions;
        convolutions have one for each feature and position.
        """
        error, x = self.output_error, product.x
        assert error is not None
        assert layer.direct is not None
        error = (error if error.ndim > 1 else error[:, None]).to(x.dtype)
        if "convolution" in product.kind:
            if error.ndim == x.ndim and error.shape[0] == x.shape[0] and error.shape[2:] == x.shape[2:]:
                B = self.weights.direct(layer.direct, error.shape[1], x.shape[1:2], x)
                return torch.einsum("nc...,cf->nf...", error, B)
            error = self._error_of_samples(error)
            self._check_samples(layer.direct, x.shape[0], x.ndim == product.weight.ndim)
            B = self.weights.direct(layer.direct, error.shape[1], x.shape[1:], x)
            return (error @ B.flatten(1)).view(x.shape)
        B = self.weights.direct(layer.direct, error.shape[1 if error.ndim > 3 else -1], x.shape[-1:], x)
        if error.shape[:-1] == x.shape[:-1] and not layer.time_first:
            return error @ B
        if layer.time_first and error.ndim == 3 and error.transpose(0, 1).shape[:-1] == x.shape[:-1]:
            return (error @ B).transpose(0, 1)
        error = self._error_of_samples(error)
        batch = 1 if layer.time_first or (x.ndim > 2 and x.shape[0] != len(error)) else 0
        self._check_samples(layer.direct, x.shape[batch], x.ndim > 1)
        shape = [1] * x.ndim
        shape[batch], shape[-1] = x.shape[batch], x.shape[-1]
        return (error @ B).view(shape).expand(x.shape)

    def _error_of_samples(self, error: Tensor) -> Tensor:
        """Return the error at the output as (batch, outputs): the sum over positions."""
        if error.ndim == 2:
            return error
        if error.ndim > 3:
            return error.flatten(2).sum(2)
        return error.sum(1 if error.shape[0] == self.samples else 0)

    def _check_samples(self, name: str, samples: int, batched: bool) -> None:
        if samples != self.samples or not batched:
            raise UserError(
                f"direct feedback: the input of '{name}' has {samples if batched else 'no'} samples, and there are"
                f" {self.samples} losses. Leave the layer out with modules=, or use another feedback."
            )

    def _feedback(self, name: str, weight: Tensor, kind: str) -> Tensor:
        whole = self.parameters.get(name, weight)
        B = self.weights.of(name, whole, fan_of(weight, inputs_first=kind == "matmul"))
        if weight is whole or weight._base is None:
            return B
        if B.stride() != whole.stride():
            B = torch.empty_strided(whole.shape, whole.stride(), dtype=B.dtype, device=B.device).copy_(B)
        return B.as_strided(weight.shape, weight.stride(), weight.storage_offset() - whole.storage_offset())

    def _direct_name(self, name: str, weight: Tensor) -> str | None:
        if self.weights.kind != "direct":
            return None
        whole = self.parameters.get(name)
        if whole is None or weight is whole:
            return name
        return f"{name}[{weight.storage_offset() - whole.storage_offset()}]"

    def _name_of_parameter(self, weight: Tensor) -> str | None:
        name = self._names.get(id(weight))
        return name if name is not None or weight._base is None else self._names.get(id(weight._base))

    def _name_of_factor(self, factor: Tensor) -> str | None:
        """Return the name of a factor that is a taught weight: a parameter, or a matrix of parameters alone."""
        name = self._name_of_parameter(factor)
        if name is None and factor.ndim == 2 and factor.grad_fn is not None and of_parameters_alone(factor):
            return self._name_of_computed(factor, maybe_activity=False)
        return name

    def _name_of_computed(self, weight: Tensor, *, maybe_activity: bool) -> str | None:
        """Return the joined names of what a weight was computed from; products on the way become part of it."""
        found = origin(weight, self._names, maybe_activity=maybe_activity)
        if found is None:
            return None
        for layer in found.products:
            self._include_in_weight(layer)
        return "+".join(found.names)

    def _include_in_weight(self, layer: Layer) -> None:
        """Let a product of parameters have its exact derivative. It needs no feedback, unless used elsewhere too."""
        if layer.in_weight:
            return
        layer.in_weight, layer.by_terms, layer.direct, layer.slope = True, False, None, None
        self._uses[layer.name] -= 1
        if not self._uses[layer.name]:
            self.weights.forget(layer.name)


class _Multiply(torch.autograd.Function):
    """z = f(x, W, b), whose error reaches x through B in place of W."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, B: Tensor | None, product: Product, layer: Layer
    ) -> Tensor:
        """Compute the product. B: in the shape of the weight; None for the weight itself."""
        ctx.save_for_backward(x, weight, B)
        ctx.function, ctx.kind, ctx.options, ctx.bias = product.function, product.kind, product.options, bias
        ctx.layer = layer
        return product.apply(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, error: Tensor) -> tuple[Tensor | None, ...]:
        """Return the errors of x, weight and bias, and None for the other arguments."""
        x, weight, B = ctx.saved_tensors
        layer: Layer = ctx.layer
        product = Product(ctx.function, ctx.kind, x, weight, ctx.bias, ctx.options)
        carrying = weight if B is None or layer.in_weight else B
        of_x_needed, of_weight_needed, of_bias_needed = ctx.needs_input_grad[:3]
        of_x_here = of_x_needed or (layer.slope is not None and "convolution" not in product.kind)
        of_x, of_weight, of_bias = product.gradients(
            error,
            carrying,
            (of_x_here and layer.direct is None, of_weight_needed and not layer.by_terms, of_bias_needed),
        )
        if layer.direct is not None and (of_x_needed or layer.slope is not None):
            of_x = layer.passed.direct_error(layer, product)
        if layer.by_terms and of_weight_needed:
            of_weight = _change_by_terms(layer, product, carrying, error, of_x)
        return of_x if of_x_needed else None, of_weight, of_bias, None, None, None


def _change_by_terms(layer: Layer, product: Product, B: Tensor, error: Tensor, of_x: Tensor | None) -> Tensor:
    """Return minus the mean over the batch of the weight change, in the shape of the weight."""
    samples = layer.passed.samples
    assert layer.y_post is not None
    # The error of a convolution at one position is not the one at x, which is the sum over all positions.
    known = of_x is not None and (layer.direct is not None or "convolution" not in product.kind)
    change = layer_terms.weight_change(
        product,
        B,
        layer.y_post.to(error.dtype),
        samples * error,
        samples * of_x if known and of_x is not None else None,
        None if layer.slope is None else layer.slope(product.x),
        layer.passed.theta,
    )
    return change / -samples


class _Observing(Interception):
    """Notes while a recurrent layer or attention of torch.nn is computed, whose inputs are (time, batch, features)."""

    passed: Pass

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func not in PARTS:
            return super().__torch_function__(func, types, args, kwargs)
        before, self.passed.time_first = self.passed.time_first, True
        try:
            return super().__torch_function__(func, types, args, kwargs)
        finally:
            self.passed.time_first = before


class Multiplying(_Observing):
    """Lets the errors of all products with taught weights pass through their feedback."""

    def __init__(self, passed: Pass) -> None:
        super().__init__()
        self.passed = passed

    def handle(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Carry out a torch function."""
        product = product_of(function, args, kwargs)
        name = None if product is None else self.passed.name_of(product)
        if product is not None and name is not None:
            if product.kind != "embedding":
                return self.passed.multiply(name, product)[0]
            self.passed.embedded.update(name.split("+"))
        result = self.passed.multiply_by_other(function, args, kwargs)
        return function(*args, **kwargs) if result is None else result


class RecordingTerms(_Observing, Recording):
    """Does the same, and notes the activity of each layer for the terms."""

    def __init__(self, passed: Pass) -> None:
        super().__init__(passed.parameters)
        self.passed = passed
        self.layers: list[Layer | None] = []
        self._name: str | None = None

    def handle(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Carry out a torch function."""
        product = product_of(function, args, kwargs)
        self._name = None if product is None else self.passed.name_of(product)
        if self._name is None:
            result = self.passed.multiply_by_other(function, args, kwargs)
            if result is not None:
                return result
        return super().handle(function, args, kwargs)

    def name_of(self, weight: Tensor) -> str | None:  # noqa: ARG002  of the base class
        """Return the name of the weight of the present product; None if it is not taught."""
        return self._name

    def multiply(
        self,
        name: str,
        product: Product,
        function: Callable[..., Any],  # noqa: ARG002  of the base class
        args: Sequence[Any],  # noqa: ARG002
        kwargs: Mapping[str, Any],  # noqa: ARG002
    ) -> Tensor:
        """Compute a product with a taught weight."""
        layer = None
        if product.kind == "embedding":
            z = self.passed.embed(name, product)
        else:
            z, layer = self.passed.multiply(name, product)
        self.layers.append(layer)
        return z

    @torch.no_grad()
    def give_activity(self, output: Any) -> None:
        """Give each layer its activity after the forward pass; the layer that makes `output` has its softmax.

        output: all that the module returned; None for no softmax. Raises UserError if several layers make it.
        """
        last = None if output is None else _last_product(output)
        pairs = list(zip(self.uses, self.layers, strict=True))
        first = next(
            (use.activations[0].result for use, layer in pairs if use.activations and not (layer and layer.in_weight)),
            None,
        )
        of_input = torch.ones_like if first is None else layer_terms.slope_of_output(first)
        for use, layer in pairs:
            if layer is None or layer.in_weight:
                continue
            if last is not None and use.z.grad_fn is last:
                layer.y_post = torch.softmax(use.z.detach(), use.product.unit_dimension)
            else:
                layer.y_post = use.y.detach()
            if self.passed.uses_e_pre and layer.slope is None:
                layer.slope = of_input


def _last_product(output: Any) -> Any:
    """Return the node of the layer that makes the output of a module; None if something lies between.

    A tuple, dictionary or dataclass may contain the output of one layer. Raises UserError if there are several.
    """
    found = {node for tensor in tensors_of(output) if (node := _product_before(tensor)) is not None}
    if len(found) > 1:
        raise UserError(
            f"the module returned a {type(output).__name__} with the responses of {len(found)} layers, so it is not"
            " known which of them has the softmax. Use output='linear', or wrap the module so that it returns one"
            " tensor."
        )
    return next(iter(found), None)


def _product_before(tensor: Tensor) -> Any:
    node: Any = tensor.grad_fn
    while node is not None:
        if type(node).__name__ == MULTIPLY:
            return node
        if type(node).__name__.partition("Backward")[0] not in SAME_UNITS:
            return None
        node = node.next_functions[0][0]
    return None
