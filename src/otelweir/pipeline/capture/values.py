"""Python values as OTLP values: mappings and lists keep their structure, everything else becomes text.

What comes out can always be encoded: no lone surrogates, no integer beyond 64 bits, no cycles, bounded depth, size and
text. A `__str__` that raises gives the type's name.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Final

from otelweir.signals import AnyValue

MAX_DEPTH: Final = 8
MAX_ITEMS: Final = 1000
"""Items over all levels of one value; the rest is cut, and a last item says how many."""

MAX_TEXT: Final = 256 * 1024
"""Characters of one text; the rest is cut."""

_PLAIN: Final = frozenset({bool, float, type(None)})
_INT64: Final = 2**63


def any_value(value: object) -> AnyValue:
    """The OTLP value of a Python value. Never raises."""
    kind = type(value)
    if kind is str:
        return clean(value)  # type: ignore[arg-type]
    if kind in _PLAIN:
        return value  # type: ignore[return-value]
    if kind is int:
        return value if -_INT64 <= value < _INT64 else str(value)  # type: ignore[operator,return-value]
    try:
        return _Conversion().convert(value, 0)
    except Exception:  # noqa: BLE001 - the value's own code may do anything
        return f"<{kind.__name__}>"


def attributes_of(pairs: Mapping[Any, object]) -> dict[str, AnyValue]:
    """Attributes of any mapping; keys become text, empty ones are dropped."""
    return {name: any_value(value) for key, value in pairs.items() if (name := _key(key))}


def clean(text: str) -> str:
    """Text that can be encoded as UTF-8 and is not too long."""
    if len(text) > MAX_TEXT:
        text = text[:MAX_TEXT] + f"… ({len(text) - MAX_TEXT} more characters)"
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def _key(key: object) -> str:
    return clean(key if type(key) is str else str(key)[:1024])


class _Conversion:
    """One conversion: counts the items and knows the containers it is inside of."""

    __slots__ = ("_inside", "_left")

    def __init__(self) -> None:
        self._left = MAX_ITEMS
        self._inside: set[int] = set()

    def convert(self, value: Any, depth: int) -> AnyValue:
        if isinstance(value, str):
            return clean(str.__str__(value) if not isinstance(value, enum.Enum) else str(value.value))
        if isinstance(value, enum.Enum):
            return self.convert(value.value, depth)
        if value is None or isinstance(value, (bool, float)):
            return value
        if isinstance(value, int):
            return int(value) if -_INT64 <= value < _INT64 else str(int(value))
        if isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value[:MAX_TEXT])
        if isinstance(value, (Mapping, list, tuple, set, frozenset)):
            if depth >= MAX_DEPTH or id(value) in self._inside:
                return "…"
            self._inside.add(id(value))
            try:
                return self._container(value, depth + 1)
            finally:
                self._inside.discard(id(value))
        return clean(str(value))

    def _container(self, value: Any, depth: int) -> AnyValue:
        if isinstance(value, Mapping):
            pairs: dict[str, AnyValue] = {}
            for seen, (key, item) in enumerate(value.items()):
                if not self._take():
                    pairs["…"] = f"{len(value) - seen} more"
                    break
                if name := _key(key):
                    pairs[name] = self.convert(item, depth)
            return pairs
        items: list[AnyValue] = []
        for seen, item in enumerate(value):
            if not self._take():
                items.append(f"… {len(value) - seen} more")
                break
            items.append(self.convert(item, depth))
        return items

    def _take(self) -> bool:
        self._left -= 1
        return self._left >= 0
