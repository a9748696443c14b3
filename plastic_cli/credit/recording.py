"""One forward pass of a module, with the input, the response and the activity of every layer of weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from plastic_cli.credit.interception import Interception, function_name, plain_name
from plastic_cli.credit.parameters import named_parameters
from plastic_cli.credit.products import Product, product_of
from plastic_cli.credit.protocol import call

NONLINEARITIES = frozenset(
    {
        *("relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus"),
        *("sigmoid", "tanh", "hardtanh", "hardsigmoid", "hardswish", "softsign", "softshrink", "hardshrink"),
        *("tanhshrink", "threshold", "logsigmoid", "clamp", "clamp_min"),
    }
)
"""Names of the torch functions that turn a response into activity, without a trailing underscore."""
NORMALIZATIONS = frozenset({"batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm"})
_ADDITIONS = frozenset({"add", "sub", "dropout"})
_VIEWS = frozenset(
    {
        *("chunk", "split", "unbind", "__getitem__", "select", "narrow", "squeeze", "unsqueeze"),
        *("view", "reshape", "flatten", "unflatten", "transpose", "permute", "t"),
    }
)
# A nonlinearity that does not decrease can act before or after them.
_MAXIMA = frozenset({f"{kind}max_pool{dimensions}d" for kind in ("", "adaptive_") for dimensions in (1, 2, 3)})
_FOLLOWED = NORMALIZATIONS | _ADDITIONS | _VIEWS | _MAXIMA

_ASSIGNMENTS = frozenset({"__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__"})

View = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Activation:
    """A nonlinearity that acts on all or on a part of a layer's response.

    function: the nonlinearity, of one tensor. received: the tensor that it received. result: its output. views: lead
    from the whole response to this part; empty for the whole.
    """

    function: Callable[[Tensor], Tensor]
    received: Tensor
    result: Tensor
    views: tuple[View, ...]

    def part_of(self, whole: Tensor) -> Tensor:
        """Return this part of a tensor in the shape of the response: a view of it, or a copy."""
        for view in self.views:
            whole = view(whole)
        return whole

    def places_in(self, whole: Tensor) -> Tensor:
        """Return where the entries of this part are in `whole`, flattened: also if `part_of` returns a copy."""
        numbers = torch.arange(whole.numel(), device=whole.device).view(whole.shape)
        return self.part_of(numbers).reshape(-1)

    def set_part(self, whole: Tensor, values: Tensor) -> None:
        """Set this part of a contiguous tensor in the shape of the response."""
        part = self.part_of(whole)
        if part.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr():
            part.copy_(values)
        else:
            # A copy: its entries are looked up.
            whole.view(-1).index_copy_(0, self.places_in(whole), values.flatten().to(whole.dtype))


@dataclass
class Use:
    """One use of a weight in a forward pass. A shared weight, and one of a recurrent layer, has several.

    name: of the weight parameter. product: the function and its arguments. z: the response W x + b, before
    normalization. activations: the nonlinearities that receive z directly or after normalization, addition and dropout;
    the gates of a recurrent layer have one each.
    """

    name: str
    product: Product
    z: Tensor
    activations: list[Activation] = field(default_factory=list)

    @property
    def x(self) -> Tensor:
        """The input of the layer."""
        return self.product.x

    @property
    def y(self) -> Tensor:
        """The activity of the layer in the shape of z: the output of the nonlinearity, or z where there is none."""
        if len(self.activations) == 1 and not self.activations[0].views:
            return self.activations[0].result
        if not self.activations:
            return self.z
        y = self.z.clone(memory_format=torch.contiguous_format)
        for activation in self.activations:
            activation.set_part(y, activation.result)
        return y

    @property
    def slope(self) -> Tensor:
        """The derivative of each entry of y with respect to what its nonlinearity received; 1 where there is none."""
        slope = torch.ones_like(self.z, memory_format=torch.contiguous_format)
        for activation in self.activations:
            with torch.enable_grad():
                received = activation.received.detach().requires_grad_()
                (derivative,) = torch.autograd.grad(activation.function(received).sum(), received)
            activation.set_part(slope, derivative)
        return slope


def record(
    model: nn.Module, inputs: Any, parameters: Mapping[str, nn.Parameter] | None = None
) -> tuple[Any, list[Use]]:
    """Call a module without gradients; return its output and each use of its weights, in the order of the calls.

    parameters: the parameters to observe, by name; None: all.
    """
    recording = Recording(named_parameters(model) if parameters is None else parameters)
    with torch.no_grad(), recording:
        output = call(model, inputs)
    return output, recording.uses


@dataclass(frozen=True)
class _Carried:
    """The responses that a tensor carries, with the views that lead to it from each of them.

    tensor: is kept, so that no other tensor gets its id. before_pooling: what max pooling received, if it made
    `tensor`.
    """

    tensor: Tensor
    uses: list[tuple[Use, tuple[View, ...]]]
    before_pooling: Tensor | None = None


class Recording(Interception):
    """Collects the uses of weights while a module is called. parameters: the weights to observe, by name."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        super().__init__()
        self.uses: list[Use] = []
        self._names = {id(parameter): name for name, parameter in parameters.items()}
        self._carried: dict[int, _Carried] = {}

    def handle(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Carry out a torch function, and note what it does to the responses."""
        if args and isinstance(args[0], Tensor) and _in_place(function, args, kwargs):
            self._protect(args[0])
        product = product_of(function, args, kwargs)
        if product is not None and (name := self.name_of(product.weight)) is not None:
            z = self.multiply(name, product, function, args, kwargs)
            use = Use(name, product, z)
            self.uses.append(use)
            self._carried[id(z)] = _Carried(z, [(use, ())])
            return z
        name = plain_name(function)
        if self._carried and (name in _FOLLOWED or name in NONLINEARITIES):
            return self._follow(name, function, args, kwargs)
        return function(*args, **kwargs)

    def multiply(
        self,
        name: str,  # noqa: ARG002  for subclasses
        product: Product,  # noqa: ARG002
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Tensor:
        """Compute a product with a weight that is observed; a subclass may compute it in another way."""
        z: Tensor = function(*args, **kwargs)
        return z

    def name_of(self, weight: Tensor) -> str | None:
        """Return the name of a weight that is observed, also for a view of it; None for all other tensors."""
        name = self._names.get(id(weight))
        return name if name is not None or weight._base is None else self._names.get(id(weight._base))

    def _follow(self, name: str, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        operands = [part for part in (*args, *kwargs.values()) if isinstance(part, Tensor)]
        carried = [self._carried[id(part)] for part in operands if id(part) in self._carried]
        if not carried:
            return function(*args, **kwargs)
        received = args[0].clone() if _in_place(function, args, kwargs) else args[0]
        result = function(*args, **kwargs)
        if name in NONLINEARITIES:
            nonlinearity = _of_one_tensor(function, args, kwargs)
            before = carried[0].before_pooling
            if before is None:
                self._note(carried, nonlinearity, received, result)
            else:
                with torch.no_grad():
                    self._note(carried, nonlinearity, before, nonlinearity(before))
            # An output in place of the response is not followed further.
            self._carried.pop(id(result), None)
            return result
        self._carry_on(name, function, args, kwargs, result, carried)
        return result

    def _note(
        self, carried: Sequence[_Carried], nonlinearity: Callable[[Tensor], Tensor], received: Tensor, result: Tensor
    ) -> None:
        for use, views in (pair for one in carried for pair in one.uses):
            # Only the first nonlinearity that receives the whole response.
            if all(activation.views for activation in use.activations):
                use.activations.append(Activation(nonlinearity, received, result, views))

    def _carry_on(
        self,
        name: str,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        result: Any,
        carried: Sequence[_Carried],
    ) -> None:
        """Note that a result carries the responses of its operands."""
        parts = result if isinstance(result, tuple | list) else [result]
        for number, part in enumerate(parts):
            # What broadcasts has no place in the response.
            same = [one for one in carried if one.tensor.shape == part.shape and one.before_pooling is None]
            uses = [pair for one in same for pair in one.uses]
            before = None
            if name in _VIEWS:
                view = _view(function, args[1:], kwargs, number if part is not result else None)
                uses = [(use, (*views, view)) for use, views in carried[0].uses if carried[0].before_pooling is None]
            elif name in _MAXIMA:
                uses, before = carried[0].uses, args[0]
            if uses:
                self._carried[id(part)] = _Carried(part, uses, before)
            else:
                self._carried.pop(id(part), None)

    def _protect(self, changed: Tensor) -> None:
        """Copy what the uses hold in the memory of a tensor that the next function changes in place."""
        memory = changed.untyped_storage().data_ptr()

        def kept(tensor: Tensor) -> Tensor:
            return tensor.clone() if tensor.untyped_storage().data_ptr() == memory else tensor

        for use in self.uses:
            use.z, use.product = kept(use.z), replace(use.product, x=kept(use.x))
            use.activations = [
                replace(activation, received=kept(activation.received), result=kept(activation.result))
                for activation in use.activations
            ]


def _view(function: Callable[..., Any], options: Sequence[Any], kwargs: Mapping[str, Any], number: int | None) -> View:
    """Return a function that makes a view, as a function of one tensor; number: of the part, None for one result."""

    def view(whole: Tensor) -> Tensor:
        parts = function(whole, *options, **kwargs)
        part: Tensor = parts if number is None else parts[number]
        return part

    return view


def _in_place(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Return whether a function changes its first argument."""
    name = function_name(function)
    return (
        name in _ASSIGNMENTS
        or (name.endswith("_") and not name.endswith("__"))
        or bool(kwargs.get("inplace"))
        or _in_place_by_position(function, args)
    )


def _in_place_by_position(function: Callable[..., Any], args: Sequence[Any]) -> bool:
    """Return whether a nonlinearity or dropout of torch.nn.functional gets inplace=True as its last argument."""
    module = getattr(function, "__module__", None)
    name = function_name(function)
    return module == "torch.nn.functional" and len(args) > 1 and args[-1] is True and name not in NORMALIZATIONS


def _of_one_tensor(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Callable[[Tensor], Tensor]:
    """Return a nonlinearity with its options, as a function that changes nothing in place."""
    name = function_name(function)
    options = args[1:-1] if _in_place_by_position(function, args) else args[1:]
    named = {key: value for key, value in kwargs.items() if key != "inplace"}
    if name.endswith("_"):
        function = getattr(torch, name.removesuffix("_"), None) or getattr(functional, name.removesuffix("_"))
    return lambda z: function(z, *options, **named)
