"""Observe every torch function that a module calls, without changing the module."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.overrides import TorchFunctionMode

from plastic_cli.credit.unrolled import PARTS


class Interception(TorchFunctionMode):
    """While it is active, `handle` receives each torch function that is called, and returns its result.

    Recurrent layers and attention of torch.nn, which are one function each, arrive as the linear maps, additions and
    nonlinearities that they consist of (`unrolled.PARTS`). Functions that `handle` calls are not intercepted.
    """

    def handle(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Carry out a torch function, such as torch.conv2d."""
        raise NotImplementedError

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        parts = PARTS.get(func)
        if parts is None:
            return self.handle(func, args, kwargs or {})
        with self:
            return parts(*args, **(kwargs or {}))


def function_name(function: Callable[..., Any]) -> str:
    """Return the name of a torch function for messages, such as "conv2d"."""
    return str(getattr(function, "__name__", function))
