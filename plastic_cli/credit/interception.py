"""Observe every torch function that a module calls, without changing the module."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Self

import torch
from torch.overrides import TorchFunctionMode

from plastic_cli.credit.unrolled import PARTS


class Interception(TorchFunctionMode):
    """While it is active, `handle` receives each torch function that is called, and returns its result.

    Recurrent layers and attention of torch.nn, which are one function each, arrive as the linear maps, additions and
    nonlinearities that they consist of (`unrolled.PARTS`). Functions that `handle` calls are not intercepted. Modules
    of torch.compile run without their compiled code, in which no function can be observed.
    """

    def __init__(self) -> None:
        super().__init__()
        self._depth, self._uncompiled = 0, ExitStack()

    def __enter__(self) -> Self:
        """Begin to intercept."""
        # Without torch.compile its compiler is not loaded.
        if self._depth == 0 and "torch._dynamo" in sys.modules:
            self._uncompiled.enter_context(torch.compiler.set_stance("force_eager"))
        self._depth += 1
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        """End what `__enter__` began."""
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._depth -= 1
        if self._depth == 0:
            self._uncompiled.close()

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


def plain_name(function: Callable[..., Any]) -> str:
    """Return the name of a torch function without the underscore of its form in place: "relu" for relu_."""
    name = function_name(function)
    return name if name.endswith("__") else name.removesuffix("_")
