"""Where noise enters any torch module, and what the parameters of each place learn from it.

A node is the output z = f(x, w) of a torch function that combines activity x with parameters w (equation (7) of
rule.py). Activity is what the module computes from its inputs. A clean pass finds the nodes and keeps the graph of each
f by itself, from which the exact derivative with respect to w follows. A perturbed pass adds noise at the nodes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MethodWrapperType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from plastic_cli.credit.interception import Interception, function_name, plain_name
from plastic_cli.credit.nested import mapped, tensors_of
from plastic_cli.credit.products import BILINEAR, WITH_SUMMAND, product_of
from plastic_cli.credit.recording import NONLINEARITIES, NORMALIZATIONS
from plastic_cli.errors import UserError
from plastic_cli.numerics.random_states import RandomStates

Function = Callable[..., Any]
Place = tuple[int, int]
"""The number of a call in the pass, and the number of the tensor in its result."""

# Functions that continue a node: they act within a unit, or normalize units with a scale and a shift for each.
_CONTINUE = NORMALIZATIONS | {
    *("add", "radd", "iadd", "sub", "rsub", "isub"),
    *("mul", "rmul", "imul", "div", "truediv", "idiv", "itruediv"),
}
# Functions without parameters that belong to a layer too, if its noise is added to what the next layer receives.
_DROPOUT = {"dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"}
_POOLING = {f"{kind}_pool{size}d" for kind in ("max", "avg", "adaptive_max", "adaptive_avg") for size in (1, 2, 3)}
_OF_LAYER = NONLINEARITIES | NORMALIZATIONS | _DROPOUT | _POOLING
# The type of attributes of tensors, such as shape and T, which do not count as calls.
_ATTRIBUTE = MethodWrapperType


class OtherCalls(Exception):
    """A perturbed pass calls other functions than the clean pass."""


@dataclass(eq=False)
class Node:
    """One use of parameters in a pass.

    place: where z appears. root: z with the graph of f. leaf: the tensor in this graph that stands for the output of
    the node `before`, if f receives nothing else. noise_place: where noise is added. continued: whether the next
    node receives z and nothing else does; then this node has no noise, and learns through the next one. name: of a
    parameter, empty if it is computed, None if f has none. is_output: the module returns z, and nothing else receives
    it.
    """

    place: Place
    root: Tensor
    leaf: Tensor | None = None
    before: Node | None = None
    noise_place: Place = (0, 0)
    continued: bool = False
    name: str | None = ""
    is_output: bool = False

    @property
    def layer(self) -> str | None:
        """The name of the first node that this one continues; None if no parameter learns through it."""
        before = self.before.layer if self.before is not None and self.before.continued else None
        return self.name if before is None else before


@dataclass
class Trace:
    """What a clean pass finds.

    derived: tensors computed from parameters alone, with the leaf that nodes use instead. weights: the calls that
    multiply activity by something else, and the names of these operands, by their number among the tensors of the call.
    """

    functions: list[Function]
    nodes: list[Node]
    derived: list[tuple[Tensor, Tensor]]
    weights: dict[int, dict[int, str]]

    @property
    def places(self) -> dict[Place, Tensor]:
        """Where noise is added, in the order of the calls, and a tensor of its shape, type and device."""
        places = {node.noise_place: node.root for node in self.nodes if not node.continued}
        return {place: places[place] for place in sorted(places)}

    @property
    def names(self) -> dict[Place, str]:
        """A name for each place: of a parameter of its layer, with a number if it is used again."""
        named: dict[Place, str] = {}
        uses: Counter[str] = Counter()
        for node in sorted((node for node in self.nodes if not node.continued), key=lambda node: node.noise_place):
            name = node.layer or "computed weights"
            uses[name] += 1
            named[node.noise_place] = name if uses[name] == 1 else f"{name} #{uses[name]}"
        return named

    def learn(self, cotangents: Mapping[Place, Tensor]) -> None:
        """Add the derivative of sum(cotangent * z) to `.grad` of the parameters. cotangents: by place."""
        nodes = [node for node in self.nodes if not node.continued]
        reached = {id(node): cotangents[node.noise_place] for node in nodes}
        while nodes:
            torch.autograd.backward([node.root for node in nodes], [reached[id(node)] for node in nodes])
            earlier = []
            for node in nodes:
                if node.before is not None and node.before.continued:
                    assert node.leaf is not None and node.leaf.grad is not None
                    reached[id(node.before)] = node.leaf.grad
                    earlier.append(node.before)
            nodes = earlier
        used = [(derived, leaf.grad) for derived, leaf in self.derived if leaf.grad is not None]
        if used:
            torch.autograd.backward([derived for derived, _ in used], [gradient for _, gradient in used])


class CleanPass(Interception):
    """Observes a pass without noise. Activity has no graph, except within each node.

    parameters: those that learn. after_nonlinearity: noise is added after the nonlinearity that receives z, if there is
    one and nothing else receives z. whole_layers: nonlinearities, normalizations, dropout and pooling that directly
    follow a node continue it, so that noise is added after them, and the node learns through their derivative; None,
    or all parameters of the module by name.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        *,
        after_nonlinearity: bool,
        whole_layers: Mapping[str, nn.Parameter] | None = None,
    ) -> None:
        super().__init__()
        self._parameters = parameters
        self._names = {id(parameter): name for name, parameter in (whole_layers or parameters).items()}
        self._whole_layers = whole_layers is not None
        self._weights: dict[int, dict[int, str]] = {}
        self._learning = {id(parameter) for parameter in parameters.values()}
        # Ids of parameters that functions used with derivatives, and without.
        self._used: set[int] = set()
        self._unseen: set[int] = set()
        self._after_nonlinearity = after_nonlinearity
        self._functions: list[Function] = []
        self._nodes: list[Node] = []
        # Tensors by their id, which are kept so that no id is used again.
        self._activity: dict[int, Tensor] = {}
        self._derived: dict[int, Tensor] = {}
        self._leaves: dict[int, Tensor] = {}
        self._node_of: dict[int, Node] = {}
        # The calls that receive each node, by the id of the node; None for the output of the module or an attribute.
        self._receivers: dict[int, list[int | None]] = {}

    def enter(self, inputs: Any) -> Any:
        """Return the inputs without graph, as activity."""

        def activity(tensor: Tensor) -> Tensor:
            tensor = tensor.detach()
            self._activity[id(tensor)] = tensor
            return tensor

        return mapped(activity, inputs)

    def finish(self, output: Any) -> tuple[Any, Trace]:
        """Return the module's output without graph, and what was found."""
        unseen = self._unseen - self._used
        for name, parameter in self._parameters.items():
            if id(parameter) in unseen:
                raise UserError(
                    f"'{name}' is used where torch computes no derivatives, such as in torch.no_grad, in a"
                    " torch.autograd.Function or in a reentrant checkpoint. Leave it out with modules=."
                )
        for tensor in tensors_of(output):
            self._receive(tensor, None)
        self._place_noise()
        derived = [(self._derived[name], leaf) for name, leaf in self._leaves.items()]
        trace = Trace(self._functions, self._nodes, derived, self._weights)
        self._activity.clear()
        return mapped(Tensor.detach, output), trace

    def handle(self, function: Function, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Carry out a function; keep its graph if it combines activity with parameters that learn."""
        call = None
        if not isinstance(function, _ATTRIBUTE):
            call = len(self._functions)
            self._functions.append(function)
        tensors = list(tensors_of((*args, *kwargs.values())))
        names = [self._names.get(id(tensor)) for tensor in tensors] if self._whole_layers else []
        if any(self._is_foreign(tensor) for tensor in tensors):
            args, kwargs = mapped(self._without_graph, args), mapped(self._without_graph, kwargs)
            tensors = list(tensors_of((*args, *kwargs.values())))
        active = [tensor for tensor in tensors if id(tensor) in self._activity]
        used = [tensor for tensor in tensors if tensor.requires_grad]
        learning = bool(used) and torch.is_grad_enabled()
        if active or learning:
            (self._used if learning else self._unseen).update(map(id, used))
        if self._whole_layers and active and call is not None:
            self._note_weights(call, function, args, kwargs, names)
        if call is not None and active and (learning or self._is_of_layer(function, active)):
            return self._node(call, function, args, kwargs, active)
        versions = [tensor._version for tensor in active]
        result = (max_pool2d if function is functional.max_pool2d else function)(*args, **kwargs)
        self._note(call, result, args, active, versions, learning=learning)
        return result

    def _note(
        self,
        call: int | None,
        result: Any,
        args: Sequence[Any],
        active: list[Tensor],
        versions: list[int],
        *,
        learning: bool,
    ) -> None:
        """Note the activity, or the tensors computed from parameters alone, that a function returned."""
        found = list(tensors_of(result))
        same = {id(tensor) for tensor in found}
        for tensor, version in zip(active, versions, strict=True):
            changed = tensor._version != version
            # A function that returns what it received, such as dropout in evaluation, does not receive it.
            if changed or ((found or result is None) and id(tensor) not in same):
                self._receive(tensor, call)
            if changed:
                self._node_of.pop(id(tensor), None)
        if result is None and args and isinstance(args[0], Tensor):
            found = [args[0]]
        for tensor in found:
            if active:
                self._activity[id(tensor)] = tensor
            elif learning and tensor.requires_grad:
                self._derived[id(tensor)] = tensor

    def _is_of_layer(self, function: Function, active: list[Tensor]) -> bool:
        return (
            self._whole_layers
            and len(active) == 1
            and id(active[0]) in self._node_of
            and plain_name(function) in _OF_LAYER
            and torch.is_grad_enabled()
        )

    def _note_weights(
        self, call: int, function: Function, args: Sequence[Any], kwargs: Mapping[str, Any], names: list[str | None]
    ) -> None:
        """Note which operands of a product are no activity. names: of the operands that are parameters."""
        tensors = list(tensors_of((*args, *kwargs.values())))
        product, name = product_of(function, args, kwargs), function_name(function)
        if product is not None:
            factors = [] if product.kind == "embedding" else [product.weight]
        elif name in WITH_SUMMAND:
            factors = tensors[1:]
        elif name in BILINEAR:
            factors = [tensor for tensor in tensors if name != "bilinear" or tensor.ndim > 1]
        else:
            factors = []
        chosen = {id(factor) for factor in factors if id(factor) not in self._activity}
        weights = {
            number: names[number] or f"call {call}.{number}"
            for number, tensor in enumerate(tensors)
            if id(tensor) in chosen
        }
        if weights:
            self._weights[call] = weights

    def _node(
        self, call: int, function: Function, args: Sequence[Any], kwargs: Mapping[str, Any], active: list[Tensor]
    ) -> Any:
        for tensor in active:
            self._receive(tensor, call)
        before = None
        if len(active) == 1 and (_continues(function) or self._is_of_layer(function, active)):
            before = self._node_of.get(id(active[0]))
        name = self._name_of_node(args, kwargs)
        leaf = None if before is None else active[0].detach().requires_grad_()

        def local(tensor: Tensor) -> Tensor:
            if leaf is not None and tensor is active[0]:
                return leaf
            return self._leaf(tensor) if id(tensor) in self._derived else tensor

        inner, named = mapped(local, args), mapped(local, kwargs)
        target = args[0] if args and isinstance(args[0], Tensor) and in_place(function, kwargs) else None
        if target is not None:
            inner = (inner[0].clone(), *inner[1:])
        # A checkpoint of the module would store nothing, and compute a larger part again.
        with torch.autograd.graph.saved_tensors_hooks(_with_version, _unchanged):
            result = function(*inner, **named)
        if target is not None:
            return self._change(target, inner[0], result, Node((call, 0), inner[0], leaf, before, name=name))

        outputs = iter(range(sum(1 for _ in tensors_of(result))))
        return mapped(lambda z: self._visible(Node((call, next(outputs)), z, leaf, before, name=name)), result)

    def _name_of_node(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
        """Return the name of a parameter that learns here; empty for computed parameters, None without any."""
        own = [tensor for tensor in tensors_of((*args, *kwargs.values())) if tensor.requires_grad]
        named = [self._names[id(tensor)] for tensor in own if id(tensor) in self._names]
        return named[0] if named else "" if own else None

    def _visible(self, node: Node) -> Tensor:
        """Return the output of a node as the module receives it, without graph."""
        visible = node.root.detach()
        self._activity[id(visible)] = visible
        if node.root.requires_grad:
            self._add(node, visible)
        return visible

    def _change(self, target: Tensor, z: Tensor, result: Any, node: Node) -> Any:
        """Let a function that works in place change the module's tensor, which from now on is activity."""
        if target.requires_grad:
            self._derived.pop(id(target), None)
            target.detach_()
        target.copy_(z.detach())
        self._activity[id(target)] = target
        self._add(node, target)
        return None if result is None else target

    def _add(self, node: Node, visible: Tensor) -> None:
        if node.root.is_complex():
            raise UserError(
                f"{function_name(self._functions[-1])}: node perturbation cannot teach parameters whose output is"
                " complex. Leave them out with modules=."
            )
        self._nodes.append(node)
        self._node_of[id(visible)] = node
        self._receivers[id(node)] = []

    def _receive(self, tensor: Tensor, call: int | None) -> None:
        node = self._node_of.get(id(tensor))
        if node is not None:
            self._receivers[id(node)].append(call)

    def _place_noise(self) -> None:
        for node in self._nodes:
            node.is_output = self._receivers[id(node)] == [None]
            if node.before is not None:
                node.before.continued = self._receivers[id(node.before)] == [node.place[0]]
        self._nodes = [node for node in self._nodes if node.layer is not None]
        for node in self._nodes:
            node.noise_place = node.place
            receivers = self._receivers[id(node)]
            only = receivers[0] if len(receivers) == 1 else None
            if self._after_nonlinearity and only is not None and plain_name(self._functions[only]) in NONLINEARITIES:
                node.noise_place = (only, 0)

    def _is_foreign(self, tensor: Tensor) -> bool:
        """Return whether a tensor has a graph or needs a gradient that is not of parameters that learn here."""
        return tensor.requires_grad and id(tensor) not in self._learning and id(tensor) not in self._derived

    def _without_graph(self, tensor: Tensor) -> Tensor:
        if not self._is_foreign(tensor):
            return tensor
        plain = tensor.detach()
        if id(tensor) in self._activity:
            self._activity[id(plain)] = plain
        return plain

    def _leaf(self, derived: Tensor) -> Tensor:
        """Return the leaf that stands for a tensor computed from parameters alone."""
        if id(derived) not in self._leaves:
            self._leaves[id(derived)] = derived.detach().requires_grad_()
        return self._leaves[id(derived)]


@dataclass
class Start:
    """The calls before the first noise, which are the same in all perturbed passes of one step: they are made once.

    uses_random: whether the module draws random numbers. results: of these calls. z: what the first noise is added to;
    None if the first call with noise works in place. changed: in that case a copy of the tensor that it changes, which
    stands in `results`. random: the random states at the first noise. usable: False if a later call changes a result in
    place.
    """

    uses_random: bool
    results: list[Any] = field(default_factory=list)
    z: Any = None
    changed: Tensor | None = None
    random: RandomStates | None = None
    complete: bool = False
    usable: bool = True
    versions: list[tuple[Tensor, int]] = field(default_factory=list)

    def random_states(self) -> RandomStates | None:
        """Return the present random states, or None if the module draws no random numbers."""
        return RandomStates.now() if self.uses_random else None

    def close(self) -> None:
        """Accept the results at the end of the pass that made them."""
        self.usable = all(tensor._version == version for tensor, version in self.versions)
        self.complete = True


class PerturbedPass(Interception):
    """Repeats the calls of a clean pass and adds sign * noise at its places.

    noises: by place. start: receives the calls before the first noise, or gives their results. Raises OtherCalls if the
    module calls other functions. Running statistics of batch normalization do not change. alone: the pass is not one
    of a batch of torch.vmap. fixed_statistics: derivatives take the statistics of batch normalization as constants.
    """

    def __init__(
        self,
        functions: Sequence[Function],
        noises: Mapping[Place, Tensor],
        sign: float = 1.0,
        start: Start | None = None,
        *,
        alone: bool = False,
        fixed_statistics: bool = False,
    ) -> None:
        super().__init__()
        self._functions, self._sign, self._alone = functions, sign, alone
        self._noises: dict[int, dict[int, Tensor]] = {}
        for (call, number), noise in noises.items():
            self._noises.setdefault(call, {})[number] = noise
        self._start = start
        self._repeats = start is not None and start.complete
        self._first = min(self._noises) if start is not None else -1
        self._changed = None if start is None or start.changed is None else start.changed.clone()
        if self._changed is not None and not alone:
            # What changes in place must be a batch, as the noise is.
            self._changed = self._changed + torch.zeros_like(next(iter(self._noises[self._first].values())))
        self._calls, self._fixed_statistics = 0, fixed_statistics

    def handle(self, function: Function, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Carry out a function, and add noise to its result if a node is here."""
        if isinstance(function, _ATTRIBUTE):
            return function(*args, **kwargs)
        call = self._calls
        self._calls += 1
        if call >= len(self._functions) or not _same(function, self._functions[call]):
            expected = function_name(self._functions[call]) if call < len(self._functions) else "the end"
            raise OtherCalls(f"{function_name(function)} instead of {expected}")
        if call <= self._first:
            return self._begin(call, function, args, kwargs)
        result = self._carry_out(function, args, kwargs)
        noises = self._noises.get(call)
        return result if noises is None else self._perturbed(result, args, noises)

    def finish(self) -> None:
        """Raise OtherCalls if calls are missing."""
        if self._calls != len(self._functions):
            raise OtherCalls(f"the end instead of {function_name(self._functions[self._calls])}")
        if self._start is not None and not self._repeats:
            self._start.close()

    def _carry_out(self, function: Function, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        return carry_out(function, args, kwargs, alone=self._alone, fixed_statistics=self._fixed_statistics)

    def _begin(self, call: int, function: Function, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Carry out a call before the first noise, or the first call with noise."""
        start = self._start
        assert start is not None
        if call < self._first:
            if not self._repeats:
                start.results.append(self._carry_out(function, args, kwargs))
                return start.results[-1]
            result = start.results[call]
            return self._changed if result is start.changed and self._changed is not None else result
        noises = self._noises[call]
        if self._repeats:
            if start.random is not None:
                start.random.restore()
            if start.z is not None:
                return self._perturbed(start.z, (), noises)
            return self._perturbed(self._carry_out(function, args, kwargs), args, noises)
        if in_place(function, kwargs):
            target = args[0]
            start.changed, start.random = target.clone(), start.random_states()
            start.results = [start.changed if result is target else result for result in start.results]
            result = self._carry_out(function, args, kwargs)
        else:
            result = start.z = self._carry_out(function, args, kwargs)
            start.random = start.random_states()
        start.versions = [(tensor, tensor._version) for tensor in tensors_of([*start.results, start.z])]
        return self._perturbed(result, args if start.z is None else (), noises)

    def _perturbed(self, result: Any, args: Sequence[Any], noises: Mapping[int, Tensor]) -> Any:
        target = args[0] if args else None
        if result is None or result is target:
            assert isinstance(target, Tensor)
            for noise in noises.values():
                target.add_(_fitting(noise, target), alpha=self._sign)
            return result
        if isinstance(result, Tensor):
            # The results of the start are kept.
            fresh = self._alone and result._base is None and (self._start is None or result is not self._start.z)
            return (result.add_ if fresh else result.add)(_fitting(noises[0], result), alpha=self._sign)
        numbers = iter(range(sum(1 for _ in tensors_of(result))))

        def add(tensor: Tensor) -> Tensor:
            noise = noises.get(next(numbers))
            return tensor if noise is None else torch.add(tensor, _fitting(noise, tensor), alpha=self._sign)

        return mapped(add, result)


def _fitting(noise: Tensor, tensor: Tensor) -> Tensor:
    """Return the noise of a tensor; raises OtherCalls if the tensor belongs to another layer than in the clean pass."""
    if noise.shape != tensor.shape:
        raise OtherCalls(f"an output of shape {tuple(tensor.shape)} instead of {tuple(noise.shape)}")
    return noise


def carry_out(
    function: Function,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    alone: bool = False,
    fixed_statistics: bool = False,
) -> Any:
    """Call a function in a perturbed pass: running statistics of batch normalization in training do not change.

    alone: the pass is not one of a batch of torch.vmap. fixed_statistics: see `PerturbedPass`.
    """
    if function is functional.max_pool2d and alone:
        return max_pool2d(*args, **kwargs)
    if function is not functional.batch_norm:
        return function(*args, **kwargs)
    x, mean, variance, weight, bias, training, momentum, eps = _batch_norm_arguments(*args, **kwargs)
    if training:
        mean = variance = None
        if fixed_statistics:
            others = [dimension for dimension in range(x.ndim) if dimension != 1]
            # Under autocast, batch normalization wants statistics in the type of its parameters.
            exact = x.detach() if weight is None else x.detach().to(weight.dtype)
            variance, mean = torch.var_mean(exact, others, correction=0)
            training = False
    return functional.batch_norm(x, mean, variance, weight, bias, training, momentum, eps)


def max_pool2d(x: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Return the same numbers as torch's max_pool2d; on the CPU three times as fast, with channels last in memory."""
    slow = x.device.type == "cpu" and x.ndim == 4 and x.is_contiguous() and not x.requires_grad
    pooled = functional.max_pool2d(x.contiguous(memory_format=torch.channels_last) if slow else x, *args, **kwargs)
    return pooled.contiguous() if slow and isinstance(pooled, Tensor) else pooled


def _batch_norm_arguments(
    input: Tensor,  # noqa: A002  torch's name
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Any, ...]:
    return input, running_mean, running_var, weight, bias, training, momentum, eps


def _with_version(tensor: Tensor) -> tuple[Tensor, int]:
    return tensor, tensor._version


def _unchanged(stored: tuple[Tensor, int]) -> Tensor:
    """Return what a node stores for its derivatives; raises UserError if the module changed it, as torch does."""
    tensor, version = stored
    if tensor._version != version:
        raise UserError(
            f"the module changes a tensor of shape {tuple(tensor.shape)} in place after a layer received it, so the"
            " derivative of the layer is lost. Change a copy, as torch's backward demands too."
        )
    return tensor


def _same(function: Function, other: Function) -> bool:
    return function is other or function == other or function_name(function) == function_name(other)


def _continues(function: Function) -> bool:
    return function_name(function).strip("_") in _CONTINUE


def in_place(function: Function, kwargs: Mapping[str, Any]) -> bool:
    """Return whether a function changes its first argument."""
    name = function_name(function)
    return (
        name == "__setitem__"
        or (name.endswith("_") and not name.endswith("__"))
        or (name.startswith("__i") and name not in ("__invert__", "__index__", "__int__"))
        or bool(kwargs.get("inplace"))
    )
