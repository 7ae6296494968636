"""The arguments of a call by the names of their parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from types import FunctionType
from typing import Any

from otelweir.pipeline.capture.track.hidden import HIDDEN, is_hidden

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Arguments:
    """How a function's arguments are called. Found out at the first call: most functions are never called.

    Args:
        function: The function.
        ignore: Parameters that are not captured.
    """

    __slots__ = ("_function", "_ignored", "_is_function", "_names", "_rest", "_secret", "_self")

    def __init__(self, function: Callable[..., Any], ignore: Collection[str] = ()) -> None:
        self._function = function
        self._ignored = frozenset(ignore)
        self._names: tuple[str, ...] | None = None
        self._rest = "args"
        self._secret: frozenset[str] = frozenset()
        self._self = False
        self._is_function = type(function) is FunctionType

    def __repr__(self) -> str:
        return f"<Arguments {self._names or '?'}>"

    def of(self, bound: bool, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments by name. Defaults that were not passed are not among them; `**kwargs` are, one by one.

        Args:
            bound: Whether `args` are without the instance or class that the method is bound to.
            args: As passed.
            kwargs: As passed.
        """
        if self._names is None:
            self._names = self._read()
        names = self._names
        if bound:
            # A function that became a method elsewhere than in a class's body, as tasks of Celery do, is one, too.
            if self._self or self._is_function:
                names = names[1:]
        elif self._self:
            names, args = names[1:], args[1:]
        found = dict(zip(names, args, strict=False)) if args else {}
        if len(args) > len(names):
            found[self._rest] = args[len(names) :]
        if kwargs:
            found.update(kwargs)
        for name in self._ignored:
            found.pop(name, None)
        # What has a secret's name among the parameters is known; what comes as a keyword may be anything.
        for name in self._secret if not kwargs else [name for name in found if is_hidden(name)]:
            if name in found:
                found[name] = HIDDEN
        return found

    def _read(self) -> tuple[str, ...]:
        try:
            parameters = list(inspect.signature(self._function).parameters.values())
        except (ValueError, TypeError):
            parameters = []
        names = tuple(parameter.name for parameter in parameters if parameter.kind in _POSITIONAL)
        for parameter in parameters:
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                self._rest = parameter.name
        self._secret = frozenset(name for name in (*names, self._rest) if is_hidden(name))
        self._self = bool(names) and names[0] in ("self", "cls", "mcs") and _in_class(self._function)
        return names


def _in_class(function: Any) -> bool:
    """Whether a function was defined in the body of a class, so that its first parameter is what it is bound to."""
    if inspect.ismethod(function):
        return False
    owner = getattr(function, "__qualname__", "").rpartition(".")[0]
    return bool(owner) and not owner.endswith("<locals>")
