"""What can be held of a log call that is not kept: values as they are now, made without running anybody's code.

A record that sampling did not keep is usually never seen, so its arguments must not be rendered: `__str__` of the
application's own types may be slow, or do something. They must not be held either, as they may change until they are
read, or keep much else alive. So immutable values of Python's own types are held as they are, small lists and mappings
of such values are copied, and of everything else only the name of its type remains.
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Mapping
from typing import Any, Final

MAX_HELD: Final = 1024
"""Characters or bytes of one text; the rest is cut."""

MAX_ITEMS: Final = 16
"""Items of one list or mapping; a larger one is named, not copied."""

_PLAIN: Final = frozenset({int, float, bool, type(None)})
_TEXT: Final = frozenset({str, bytes})
_HARMLESS: Final = _PLAIN | _TEXT
_DATES: Final = frozenset({complex, datetime.date, datetime.datetime, datetime.time, datetime.timedelta})
_ELSEWHERE: Final = (
    ("decimal", "Decimal"),
    ("uuid", "UUID"),
    ("pathlib", "PosixPath"),
    ("pathlib", "WindowsPath"),
    ("pathlib", "PurePosixPath"),
    ("pathlib", "PureWindowsPath"),
)
"""Where further types are that never change and render with Python's own code; subclasses are not among them."""


def _immutable(kind: type) -> bool:
    # Looked up where they are, if they are: a start need not wait for modules that nobody uses.
    return kind in _DATES or any(
        getattr(sys.modules[module], name, None) is kind for module, name in _ELSEWHERE if module in sys.modules
    )


class Named:
    """Stands for a value of which only the type is known; in every conversion of a format it gives the type's name."""

    __slots__ = ("_text",)

    def __init__(self, value: object) -> None:
        kind = type.__getattribute__(type(value), "__name__")
        self._text = f"<{kind} of {len(value)}>" if type(value) in _SIZED else f"<{kind}>"  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return self._text

    def __format__(self, spec: str) -> str:
        return self._text


_SIZED: Final = frozenset({list, tuple, set, frozenset, dict, bytearray})


def frozen(value: object) -> object:
    """The value as it can be held."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind in _TEXT:
        return value if len(value) <= MAX_HELD else value[:MAX_HELD]  # type: ignore[arg-type,index]
    if _immutable(kind):
        return value
    if kind in _SIZED and len(value) <= MAX_ITEMS:  # type: ignore[arg-type]
        if kind is dict:
            return {_flat(key): _flat(item) for key, item in value.items()}  # type: ignore[attr-defined]
        if kind is list or kind is tuple:
            return kind([_flat(item) for item in value])  # type: ignore[attr-defined]
    # What subclasses add, such as numpy's, is left out: only the type's own slots are asked.
    if issubclass(kind, str):
        return frozen(str.__str__(value))
    if issubclass(kind, float):
        return float.__float__(value)  # type: ignore[arg-type]
    if issubclass(kind, int):
        return int.__int__(value)  # type: ignore[arg-type]
    if issubclass(kind, BaseException) and kind.__str__ is BaseException.__str__:
        error: BaseException = value  # type: ignore[assignment]
        if _HARMLESS.issuperset(map(type, BaseException.__reduce__(error)[1])):
            return frozen(BaseException.__str__(error))
    return Named(value)


def frozen_args(args: Any) -> Any:
    """The arguments of a logging call as they can be held."""
    if type(args) is not tuple:
        return frozen(args) if args else ()
    for value in args:
        kind = type(value)
        if kind is str:
            if len(value) > MAX_HELD:
                break
        elif kind not in _PLAIN:
            break
    else:
        return args
    return tuple([frozen(value) for value in args])


def frozen_pairs(pairs: Mapping[Any, object]) -> dict[Any, object]:
    """Attributes as they can be held; the first of them, where there are many."""
    found: dict[Any, object] = {}
    for key, value in pairs.items():
        if len(found) >= MAX_ITEMS:
            break
        found[_flat(key)] = frozen(value)
    return found


def _flat(value: object) -> object:
    kind = type(value)
    if kind in _PLAIN or _immutable(kind):
        return value
    if kind in _TEXT:
        return value if len(value) <= MAX_HELD else value[:MAX_HELD]  # type: ignore[arg-type,index]
    return Named(value)
