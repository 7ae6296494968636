"""Python values as OTLP values: mappings and lists keep their structure, everything else becomes text.

What comes out can always be encoded: no lone surrogates, no integer beyond 64 bits, no cycles, bounded depth, size and
text. A `__str__` that raises gives the type's name.
"""

from __future__ import annotations

import enum
import string
from collections.abc import Callable, Iterable, Mapping
from threading import get_ident
from typing import Any, Final

from otelweir.pipeline.capture.quiet import rendering
from otelweir.signals import AnyValue

MAX_DEPTH: Final = 8
MAX_ITEMS: Final = 1000
"""Items over all levels of one value; the rest is cut, and a last item says how many."""

_OF_A_WORD: Final = f"{string.ascii_letters}{string.digits}_-+/=.~%@:"
"""What keys, tokens, addresses and URLs consist of."""

_LONGEST_WORD: Final = 4096

MAX_TEXT: Final = 256 * 1024
"""Characters of one value, over all its texts; the rest is cut."""

_PLAIN: Final = frozenset({bool, float, type(None)})
_TAME: Final = frozenset({str, int, float, bool, type(None), bytes})
"""Types that run nobody's code when they are formatted."""
_INT64: Final = 2**63


def any_value(value: object) -> AnyValue:
    """The OTLP value of a Python value. Never raises."""
    kind = type(value)
    if kind is str:
        return clean(value)  # type: ignore[arg-type]
    if kind in _PLAIN:
        return value  # type: ignore[return-value]
    if kind is int:
        return _integer(value)  # type: ignore[arg-type]
    return Conversion().convert(value, 0)


def attributes_of(pairs: Mapping[Any, object]) -> dict[str, AnyValue]:
    """Attributes of any mapping; keys become text, empty ones are dropped."""
    return {name: any_value(value) for key, value in pairs.items() if (name := _key(key))}


def message_of(msg: object, args: Any) -> AnyValue:
    """A log message: text as `logging` renders it; without arguments, mappings and lists keep their structure.

    Args:
        msg: The message or %-style format string.
        args: What fills it, as a record of `logging` has it; empty for nothing.
    """
    if not args:
        if type(msg) is str:
            return clean(msg)
        return any_value(msg) if _has_structure(msg) else clean(_text(msg))
    thread = get_ident()
    try:
        if type(args) is tuple:
            if len(args) == 1 and isinstance(args[0], Mapping) and args[0]:
                args = args[0]  # as LogRecord does: a single mapping fills named places
            elif type(msg) is str and _TAME.issuperset(map(type, args)):
                return clean(msg % args)
        rendering.add(thread)
        return clean(str(msg) % args)
    except Exception:  # noqa: BLE001 - the arguments do not fit the format; handlers will say so
        return clean(_text(msg))
    finally:
        rendering.discard(thread)


def _has_structure(value: object) -> bool:
    try:
        return isinstance(value, (Mapping, list, tuple))
    except Exception:  # noqa: BLE001 - asks the value for its class
        return False


def beginning(text: str, length: int) -> str:
    """A text that is longer than a length, cut, and with how much was cut.

    No word is cut: redaction, which comes later, may not know half a key as one.
    """
    head = text[:length]
    if text[length] in _OF_A_WORD:
        least = max(0, length - _LONGEST_WORD)
        head = head[:least] + head[least:].rstrip(_OF_A_WORD)
    return f"{head}… ({len(text) - len(head)} more characters)"


def clean(text: str) -> str:
    """Text that can be encoded as UTF-8 and is not too long."""
    if len(text) > MAX_TEXT:
        text = beginning(text, MAX_TEXT)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def shortened(value: AnyValue, length: int) -> AnyValue:
    """A value with all its texts cut to a length, as OpenTelemetry's limit on attribute values wants it."""
    match value:
        case str() | bytes():
            return value[:length]
        case list():
            return [shortened(item, length) for item in value]
        case dict():
            return {key: shortened(item, length) for key, item in value.items()}
    return value


def _key(key: object) -> str:
    if type(key) is str:
        return clean(key) if len(key) <= 1024 else clean(key[:1024])
    return clean(_text(key)[:1024])


def _integer(value: int) -> int | str:
    if -_INT64 <= value < _INT64:
        return value
    try:
        return str(value)
    except ValueError:  # Python writes no more than some thousand digits, as that takes time quadratic in them
        return clean(hex(value))


def _text(value: object) -> str:
    """The text of an object; the type's name when it has none."""
    thread = get_ident()
    rendering.add(thread)
    try:
        text = str(value)
        return text if type(text) is str else str.__str__(text)
    except Exception:  # noqa: BLE001 - the value's own code may do anything
        return _name(value)
    finally:
        rendering.discard(thread)


def _name(value: object) -> str:
    return f"<{type.__getattribute__(type(value), '__name__')}>"


class Conversion:
    """One conversion: counts the items and knows the containers it is inside of.

    Args:
        items: How many items it may have, over all levels.
        room: How many characters it may have, over all its texts.

    Attributes:
        cut: Whether something did not find room.
    """

    __slots__ = ("_inside", "_left", "_room", "cut")

    def __init__(self, items: int = MAX_ITEMS, room: int = MAX_TEXT) -> None:
        self._left = items
        self._room = room
        self._inside: set[int] | None = None
        self.cut = False

    def convert(self, value: Any, depth: int) -> AnyValue:
        try:
            return self._converted(value, depth)
        except Exception:  # noqa: BLE001 - the value's own code may do anything
            return _name(value)

    def _converted(self, value: Any, depth: int) -> AnyValue:
        if isinstance(value, enum.Enum):
            # A value of an enumeration may be anything, itself included.
            return self.convert(value.value, depth + 1) if depth < MAX_DEPTH else "…"
        if isinstance(value, str):
            return self._cut(str.__str__(value))
        if value is None or isinstance(value, bool):
            return value
        # What subclasses add, such as numpy's, is no business of an encoder.
        if isinstance(value, float):
            return float.__float__(value)
        if isinstance(value, int):
            return _integer(int.__int__(value))
        if isinstance(value, (bytes, bytearray, memoryview)):
            return self._bytes(value)
        if isinstance(value, Mapping):
            return self._within(value, depth, lambda inner: self._pairs(value.items(), len(value), inner))
        if isinstance(value, (list, tuple, set, frozenset)):
            return self._within(value, depth, lambda inner: self._items(value, len(value), inner))
        return self._cut(_text(value))

    def _within(self, value: object, depth: int, content: Callable[[int], AnyValue]) -> AnyValue:
        """The content of a container, unless it is too deep or inside of itself."""
        inside = self._inside
        if inside is None:
            inside = self._inside = set()
        if depth >= MAX_DEPTH or id(value) in inside:
            self.cut = True
            return "…"
        inside.add(id(value))
        try:
            return content(depth + 1)
        finally:
            inside.discard(id(value))

    def _pairs(self, pairs: Iterable[tuple[Any, Any]], count: int, depth: int) -> dict[str, AnyValue]:
        found: dict[str, AnyValue] = {}
        for seen, (key, item) in enumerate(pairs):
            if not self._take():
                found["…"] = f"{count - seen} more"
                break
            if name := self._cut(_key(key)):
                found[name] = self.convert(item, depth)
        return found

    def _items(self, items: Iterable[Any], count: int, depth: int) -> list[AnyValue]:
        found: list[AnyValue] = []
        for seen, item in enumerate(items):
            if not self._take():
                found.append(f"… {count - seen} more")
                break
            found.append(self.convert(item, depth))
        return found

    def _take(self) -> bool:
        self._left -= 1
        if self._left < 0:
            self.cut = True
        return self._left >= 0

    def _cut(self, text: str) -> str:
        """The text, as far as there is room for it."""
        room = self._room
        if len(text) > room:
            self.cut = True
            text = beginning(text, room)
        self._room = max(0, room - len(text))
        return clean(text)

    def _bytes(self, value: bytes | bytearray | memoryview) -> AnyValue:
        found = bytes(value[: self._room])
        self._room -= len(found)
        return found
