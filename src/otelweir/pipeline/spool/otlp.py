"""Spans and log records as OTLP bytes, written directly: no protobuf library, nothing to decode later.

A record becomes an `Encoded`: its group, and its own bytes. The group is the resource and the scope it came from. A
service has a handful of groups and a million records, and a resource is often longer than a log record, so whoever
keeps records keeps each group once, and `join` gathers records by group again, by copying alone.

    ExportTraceServiceRequest, ExportLogsServiceRequest
    └─ 1 ResourceSpans, ResourceLogs
       ├─ 1 resource, 3 schema_url          Group.resource
       └─ 2 ScopeSpans, ScopeLogs
          ├─ 1 scope, 3 schema_url          Group.scope
          └─ 2 Span, LogRecord              the record, with its tag and length

The two signals have the same field numbers down to the record, hence one `join` (but one signal a request).

Invariants:

- `join` of any records of one signal is a valid request. Joins are concatenable, and so are the records of a group.
- What the official encoder can encode comes out as the same message, field by field. What it cannot, it drops or
  raises for; here the record survives: lone surrogates are escaped, integers beyond 64 bits and values of unknown types
  become text, a value within itself or too deep for a receiver becomes "…".
- Encoding never raises, whatever the record holds.
- Groups are equal by value. As long as they stay cached, equal ones are one object.
- Caches are bounded in entries and in the length of an entry; when one is full, it starts over.
- With caches that have a check, nothing becomes bytes that the check has not passed. What is in such a cache has
  passed, so a check costs only what is encoded for the first time.

Where the speed comes from: an attribute's key, type and length, and short values whole, are bytes in a dict whose
`__missing__` encodes what is new, so most attributes cost two look-ups. Repeated fields are joined with their tag as
the separator: `b"\\x4a".join(attributes)`.

Source: https://github.com/open-telemetry/opentelemetry-proto (v1.9), https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import ReadableLogRecord, ReadWriteLogRecord
    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["Caches", "Check", "Encoded", "Group", "Unclean", "encode_log", "encode_span", "join"]


class Group(NamedTuple):
    """What records have in common: where they come from. A value; good as a key."""

    resource: bytes
    """The fields of ResourceSpans or ResourceLogs before the scopes: resource and schema URL."""

    scope: bytes
    """The fields of ScopeSpans or ScopeLogs before the records: scope and schema URL."""


Encoded: TypeAlias = tuple[Group, bytes]
"""A record and its group. The bytes are one field of ScopeSpans or ScopeLogs, with tag and length.

A plain tuple, as it is built for every record.
"""


class Unclean(Exception):
    """A check did not pass what a record holds. The record was not encoded."""


class Check(Protocol):
    """Says what may become bytes. It must not raise."""

    def text(self, text: str) -> bool:
        """Whether a text may."""

    def name(self, name: Any) -> bool:
        """Whether the key of an attribute may, with whatever value."""

    def value(self, value: Any) -> bool:
        """Whether a value of any type may."""

    def origin(self, origin: Any) -> Any:
        """What is encoded for a resource or a scope, and not checked further."""


def encode_span(span: ReadableSpan, caches: Caches | None = None) -> Encoded:
    """A finished span as bytes.

    Args:
        span: The span.
        caches: Those of one's own, with a check; None for the ones that everybody shares, without.

    Raises:
        Unclean: The check did not pass what the span holds. Nothing else is raised.
    """
    if caches is None:
        caches = _shared
    try:
        return _span(span, caches)
    except Unclean:
        raise
    except Exception:  # noqa: BLE001 - values of the application's own types may do anything
        return _span(_repaired_span(span), caches)


def encode_log(record: ReadableLogRecord | ReadWriteLogRecord, caches: Caches | None = None) -> Encoded:
    """A log record as bytes. As `encode_span`."""
    if caches is None:
        caches = _shared
    try:
        return _log(record, caches)
    except Unclean:
        raise
    except Exception:  # noqa: BLE001 - values of the application's own types may do anything
        return _log(_repaired_log(record), caches)


def join(records: Iterable[Encoded]) -> bytes:
    """One request of records of one signal. Groups come in the order of their first record, records in theirs."""
    resources: dict[bytes, dict[bytes, list[bytes]]] = {}
    last = None
    add = [b""].append  # replaced before it is used
    for group, record in records:
        if group is not last:
            last = group
            add = resources.setdefault(group.resource, {}).setdefault(group.scope, []).append
        add(record)
    request: list[bytes] = []
    for resource, scopes in resources.items():
        parts = [resource]
        for scope, of_scope in scopes.items():
            content = b"".join((scope, *of_scope))
            parts += (b"\x12", _sizes[len(content)], content)
        content = b"".join(parts)
        request += (b"\x0a", _sizes[len(content)], content)
    return b"".join(request)


# --- numbers and lengths --------------------------------------------------------------------------------------------


def _varint(number: int) -> bytes:
    """Seven bits a byte, lowest first. `number` is below 2**64."""
    if number < 0x80:
        return bytes((number,))
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    if number < 0x200000:
        return bytes((number & 0x7F | 0x80, number >> 7 & 0x7F | 0x80, number >> 14))
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


class _Sizes(dict[int, bytes]):
    """Varints by number; those that lengths often have are kept."""

    def __missing__(self, number: int) -> bytes:
        varint = _varint(number)
        if number < _KEPT_SIZES:
            self[number] = varint
        return varint


class _TextSizes(dict[int, bytes]):
    """By the length of a string: what precedes it as the content of an AnyValue field, from the field's length on."""

    def __missing__(self, length: int) -> bytes:
        varint = _varint(length)
        before = _varint(1 + len(varint) + length) + b"\x0a" + varint
        if length < _KEPT_SIZES:
            self[length] = before
        return before


_KEPT_SIZES: Final = 4096
_sizes: Final = _Sizes()
_text_sizes: Final = _TextSizes()
_double: Final = struct.Struct("<d").pack
_fixed32: Final = struct.Struct("<I").pack
_UINT64: Final = 2**64 - 1
_INT64: Final = 2**63


def _utf8(text: str) -> bytes:
    """UTF-8, with lone surrogates escaped. `str.encode`, because a subclass may have its own idea of it."""
    try:
        return str.encode(text)
    except UnicodeEncodeError:
        return str.encode(text, "utf-8", "backslashreplace")


class _Texts(dict[str, bytes]):
    """Texts as the content of a string field, from its length on; short ones are kept."""

    __slots__ = ("_check",)

    def __init__(self, check: Check | None) -> None:
        super().__init__()
        self._check = check

    def __missing__(self, text: str) -> bytes:
        if self._check is not None and not self._check.text(text):
            raise Unclean
        data = _utf8(text)
        field = _sizes[len(data)] + data
        if len(text) < _SHORT and type(text) is str:
            if len(self) >= _MAX_TEXTS:
                self.clear()
            self[text] = field
        return field


_SHORT: Final = 96
"""Characters below which a string may be kept. Longer ones are not even looked up: hashing them costs more."""

_MAX_TEXTS: Final = 2048


# --- values ---------------------------------------------------------------------------------------------------------
# A value is encoded as the content of an AnyValue field, from the field's length on.

_DEPTH: Final = 94
"""Messages within one value. Protobuf's parsers stop at 100 in all, and an event's attribute is six deep itself."""

_BEYOND: Final = b"\x05\x0a\x03\xe2\x80\xa6"
"""The text "…", for what is too deep or within itself."""

_EMPTY: Final = b"\x00"
_TRUE: Final = b"\x02\x10\x01"
_FALSE: Final = b"\x02\x10\x00"


def _value(value: Any, left: int, inside: tuple[int, ...], caches: Caches) -> bytes:
    """The AnyValue of a Python value.

    Args:
        left: how many messages deep this value may be.
        inside: ids of the containers this value is in.
        caches: for attributes within it. Whoever calls this has had it checked.
    """
    kind = type(value)
    if kind is str:
        data = _utf8(value)
        return _text_sizes[len(data)] + data
    if kind is int:
        return _int(value)
    if kind is bool:
        return _TRUE if value else _FALSE
    if kind is float:
        return b"\x09\x21" + _double(value)
    if kind is dict:
        return _map(value, left, inside, caches)
    if kind is list or kind is tuple:
        return _array(value, left, inside, caches)
    if value is None:
        return _EMPTY
    # The order is the official encoder's, for what is more than one of these.
    if isinstance(value, str):
        data = _utf8(value)
        return _text_sizes[len(data)] + data
    if isinstance(value, int):
        return _int(int.__index__(value))
    if isinstance(value, float):
        return b"\x09\x21" + _double(value)
    if isinstance(value, bytes):
        size = _sizes[len(value)]
        return b"".join((_sizes[1 + len(size) + len(value)], b"\x3a", size, value))
    if isinstance(value, Sequence):
        return _array(value, left, inside, caches)
    if isinstance(value, Mapping):
        return _map(value, left, inside, caches)
    data = _utf8(_text_of(value))
    return _text_sizes[len(data)] + data


def _int(number: int) -> bytes:
    if -_INT64 <= number < _INT64:
        varint = _sizes[number & _UINT64]
        return _sizes[1 + len(varint)] + b"\x18" + varint
    data = _digits(number)
    return _text_sizes[len(data)] + data


def _digits(number: int) -> bytes:
    try:
        return str(number).encode()
    except ValueError:  # longer than sys.set_int_max_str_digits allows
        return hex(number).encode()


def _array(values: Any, left: int, inside: tuple[int, ...], caches: Caches) -> bytes:
    if left < 2 or id(values) in inside:
        return _BEYOND
    inside = (*inside, id(values))
    left -= 2
    content = b"\x0a".join([b"", *[_value(value, left, inside, caches) for value in values]])
    size = _sizes[len(content)]
    return b"".join((_sizes[1 + len(size) + len(content)], b"\x2a", size, content))


def _map(pairs: Any, left: int, inside: tuple[int, ...], caches: Caches) -> bytes:
    if left < 3 or id(pairs) in inside:
        return _BEYOND
    inside = (*inside, id(pairs))
    left -= 3
    items = [b""]
    short_texts, by_type = caches.short_texts, caches.by_type
    # A list first: the application may go on to write to its dict.
    for key, value in list(pairs.items()):
        kind = type(value)
        if kind is str and len(value) < _SHORT:
            items.append(short_texts[key][value])
        elif kind is str or kind not in by_type:
            field = _value(value, left, inside, caches)
            before, size_before = caches.others[key].before
            items.append(b"".join((_sizes[size_before + len(field)], before, field)))
        else:
            items.append(by_type[kind][key][value])
    content = b"\x0a".join(items)
    size = _sizes[len(content)]
    return b"".join((_sizes[1 + len(size) + len(content)], b"\x32", size, content))


def _text_of(value: object) -> str:
    """What `str` says, or the type's name where it raises."""
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - the value's own code may do anything
        return f"<{type(value).__name__}>"


# --- attributes -----------------------------------------------------------------------------------------------------
# An attribute is encoded as the content of a KeyValue field, from the field's length on; the tag of the field is what
# attributes are joined with, so one entry serves spans, events, links, logs, resources and scopes. Looking up goes by
# type, then key, then value: equal values of different types (1, True, 1.0) never meet. Keys that are equal are the
# same key, as in any dict.


class _Values(dict[Any, bytes]):
    """The attributes with one key and values of one type that can be kept; the first values to come are."""

    __slots__ = ("_before", "_by_key", "_size")

    def __init__(self, key: bytes, by_key: _ByKey) -> None:
        super().__init__()
        self._before, self._size = key, len(key)
        self._by_key = by_key

    def _keep(self, value: Any, attribute: bytes) -> None:
        self._by_key.count_one()
        self[value] = attribute


class _Numbers(_Values):
    """The attributes with one key and integers, or booleans."""

    __slots__ = ()

    def __missing__(self, value: int) -> bytes:
        if (
            type(value) is int
            and not -_IDENTIFIER < value < _IDENTIFIER
            and (check := self._by_key.check) is not None
            and not check.value(value)
        ):
            raise Unclean
        if type(value) is int and 0 <= value < _INT64:
            varint = _sizes[value]
            size = len(varint) + 1
            attribute = b"".join((_sizes[self._size + size + 1], self._before, _sizes[size], b"\x18", varint))
            if len(self) < _MAX_VALUES:
                self._keep(value, attribute)
            return attribute
        field = _value(value, _DEPTH, (), self._by_key.caches)
        attribute = _sizes[self._size + len(field)] + self._before + field
        if len(self) < _MAX_VALUES and len(field) < _SHORT:  # an integer can be long, too
            self._keep(value, attribute)
        return attribute


class _ShortTexts(_Values):
    """The attributes with one key and short strings: most attributes, so this one is written out."""

    __slots__ = ()

    def __missing__(self, value: str) -> bytes:
        if (check := self._by_key.check) is not None and not check.text(value):
            raise Unclean
        try:
            data = value.encode()
        except UnicodeEncodeError:
            data = _utf8(value)
        before = _text_sizes[len(data)]
        attribute = b"".join((_sizes[self._size + len(before) + len(data)], self._before, before, data))
        if len(self) < _MAX_VALUES:
            self._keep(value, attribute)
        return attribute


class _LongTexts:
    """The attributes with one key and strings that are not kept."""

    __slots__ = ("_before", "_check", "_size")

    def __init__(self, key: bytes, by_key: _ByKey) -> None:
        self._before, self._size = key, len(key)
        self._check = by_key.check

    def __getitem__(self, value: str) -> bytes:
        if self._check is not None and not self._check.text(value):
            raise Unclean
        data = _utf8(value)
        before = _text_sizes[len(data)]
        return b"".join((_sizes[self._size + len(before) + len(data)], self._before, before, data))


class _Floats:
    """The attributes with one key and floats. Not kept: nan is not itself, and 0.0 is -0.0."""

    __slots__ = ("_before",)

    def __init__(self, key: bytes, _: _ByKey) -> None:
        self._before = _sizes[len(key) + 10] + key + b"\x09\x21"

    def __getitem__(self, value: float) -> bytes:
        return self._before + _double(value)


class _AnyValues:
    """The attributes with one key and values of any type."""

    __slots__ = ("_caches", "_check", "before")

    def __init__(self, key: bytes, by_key: _ByKey) -> None:
        self.before = (key, len(key))
        self._caches, self._check = by_key.caches, by_key.check

    def __getitem__(self, value: object) -> bytes:
        if self._check is not None and not self._check.value(value):
            raise Unclean
        field = _value(value, _DEPTH, (), self._caches)
        before, size = self.before
        return b"".join((_sizes[size + len(field)], before, field))


class _ByKey(dict[Any, Any]):
    """By key, the attributes with that key. Starts over when there are too many keys, or too many values in all."""

    __slots__ = ("_kind", "_left", "caches", "check")

    def __init__(self, kind: type[_Numbers | _ShortTexts | _LongTexts | _Floats | _AnyValues], caches: Caches) -> None:
        super().__init__()
        self.caches, self.check = caches, caches.check
        self._kind = kind
        self._left = _MAX_ALL_VALUES

    def __missing__(self, key: object) -> Any:
        if self.check is not None and not self.check.name(key):
            raise Unclean
        data = _utf8(key if isinstance(key, str) else _text_of(key))
        values = self._kind(b"\x0a" + _sizes[len(data)] + data + b"\x12", self)
        if type(key) is str and len(key) < _SHORT:
            if len(self) >= _MAX_KEYS:
                self.clear()
            self[key] = values
        return values

    def clear(self) -> None:
        super().clear()
        self._left = _MAX_ALL_VALUES

    def count_one(self) -> None:
        """One more value is kept."""
        self._left -= 1
        if self._left < 0:
            self.clear()


class _ByType(dict[type, _ByKey]):
    """By type, the attributes with values of that type."""

    __slots__ = ("_others",)

    def __init__(self, known: Mapping[type, _ByKey], others: _ByKey) -> None:
        super().__init__(known)
        self._others = others

    def __missing__(self, kind: type) -> _ByKey:
        return self._others


_IDENTIFIER: Final = 10**11
"""From here on an integer is looked at: it may be the number of a card or an account."""

_MAX_KEYS: Final = 1024
"""Keys kept, for each type of value."""

_MAX_VALUES: Final = 64
"""Values kept for one key: enough for methods, routes and status codes; a key with ids soon stops trying."""

_MAX_ALL_VALUES: Final = 8192
"""Values kept over all keys, for each type of value. At most a few MiB."""


class Caches:
    """What was encoded and may be wanted again.

    Args:
        check: Has to pass what is encoded; None for no check.
    """

    __slots__ = ("by_type", "check", "groups", "groups_by_id", "others", "resources_by_id", "short_texts", "texts")

    def __init__(self, check: Check | None = None) -> None:
        self.check = check
        self.texts = _Texts(check)
        self.short_texts = _ByKey(_ShortTexts, self)
        self.others = _ByKey(_AnyValues, self)
        self.by_type = _ByType(
            {
                str: _ByKey(_LongTexts, self),  # short ones do not come here
                int: _ByKey(_Numbers, self),
                bool: _ByKey(_Numbers, self),
                float: _ByKey(_Floats, self),
            },
            self.others,
        )
        # Both are immutable and their hashes are slow, so they are known by identity. Holding them keeps an id from
        # being used again.
        self.groups_by_id: dict[tuple[int, int], tuple[object, object, Group]] = {}
        self.resources_by_id: dict[int, tuple[object, bytes]] = {}
        self.groups: dict[Group, Group] = {}


_shared: Final = Caches()


def _attributes(attributes: Any, caches: Caches) -> list[bytes]:
    """The attributes of a mapping that can be copied.

    The copy is what makes this safe while another thread writes, and the SDK's mappings give theirs at once, whereas
    iterating over them runs Python code for every key.
    """
    found: list[bytes] = []
    short_texts, by_type = caches.short_texts, caches.by_type
    for key, value in attributes.copy().items():
        if type(value) is str and len(value) < _SHORT:
            found.append(short_texts[key][value])
        else:
            found.append(by_type[type(value)][key][value])
    return found


# --- resources and scopes -------------------------------------------------------------------------------------------

_MAX_GROUPS: Final = 256
_MAX_GROUP_BYTES: Final = 64 * 1024
"""A larger resource or scope is encoded each time: what is kept stays below 16 MiB, whatever an application makes."""


def _group(resource: Any, scope: Any, caches: Caches) -> Group:
    """The group of a resource and a scope that were not seen lately, or not as these objects."""
    texts, check = _shared.texts, caches.check
    known = caches.resources_by_id.get(id(resource))
    if known is not None and known[0] is resource:
        of_resource = known[1]
    else:
        shown = resource if check is None else check.origin(resource)
        of_resource = b"" if shown is None else _guarded(shown.attributes)
        of_resource = b"\x0a" + _sizes[len(of_resource)] + of_resource
        if schema_url := getattr(shown, "schema_url", None):
            of_resource += b"\x1a" + texts[schema_url]
        if len(of_resource) <= _MAX_GROUP_BYTES:
            if len(caches.resources_by_id) >= _MAX_GROUPS:
                caches.resources_by_id.clear()
            caches.resources_by_id[id(resource)] = (resource, of_resource)
    of_scope = b""
    shown = scope if check is None else check.origin(scope)
    if shown is not None:
        if name := shown.name:
            of_scope += b"\x0a" + texts[name]
        if version := shown.version:
            of_scope += b"\x12" + texts[version]
        of_scope += _guarded(shown.attributes, b"\x1a")
    of_scope = b"\x0a" + _sizes[len(of_scope)] + of_scope
    if schema_url := getattr(shown, "schema_url", None):
        of_scope += b"\x1a" + texts[schema_url]
    group = Group(of_resource, of_scope)
    if len(of_resource) + len(of_scope) <= _MAX_GROUP_BYTES:
        # Tracers are often made anew for each call, each with a scope of its own that equals the last.
        if len(caches.groups) >= _MAX_GROUPS:
            caches.groups.clear()
        group = caches.groups.setdefault(group, group)
        if len(caches.groups_by_id) >= _MAX_GROUPS:
            caches.groups_by_id.clear()
        caches.groups_by_id[id(resource), id(scope)] = (resource, scope, group)
    return group


def _guarded(attributes: Any, tag: bytes = b"\x0a") -> bytes:
    """The attributes of a resource or a scope, with their tags."""
    if not attributes:
        return b""
    return tag + tag.join(_attributes(dict(attributes), _shared))


# --- spans ----------------------------------------------------------------------------------------------------------

_span_head: Final = struct.Struct("<H16sH8sBQBQ").pack
"""trace_id, span_id, start_time_unix_nano and end_time_unix_nano, with their tags."""

_FLAGS: Final = b"\x85\x01" + _fixed32(0x100)
"""It is known whether the parent is remote (it is not). The official encoder has no other flags."""

_FLAGS_REMOTE: Final = b"\x85\x01" + _fixed32(0x300)
_LINK_FLAGS: Final = b"\x35" + _fixed32(0x100)
_LINK_FLAGS_REMOTE: Final = b"\x35" + _fixed32(0x300)

# Members of enumerations by identity: their hash and their value are Python code.
_MAX_MEMBERS: Final = 256
_kinds: Final[dict[int, tuple[object, bytes]]] = {}
_statuses: Final[dict[int, tuple[object, bytes]]] = {}
_severities: Final[dict[int, tuple[object, bytes]]] = {}


def _span(span: Any, caches: Caches) -> Encoded:
    resource, scope = span.resource, span.instrumentation_scope
    known = caches.groups_by_id.get((id(resource), id(scope)))
    if known is not None and known[0] is resource and known[1] is scope:
        group = known[2]
    else:
        group = _group(resource, scope, caches)
    texts = caches.texts

    context = span.context
    head = _span_head(
        0x100A,
        context.trace_id.to_bytes(16, "big"),
        0x0812,
        context.span_id.to_bytes(8, "big"),
        0x39,
        span.start_time or 0,
        0x41,
        span.end_time or 0,
    )
    kind = span.kind
    member = _kinds.get(id(kind))
    of_kind = member[1] if member is not None and member[0] is kind else _kind(kind)
    parts = [head, b"\x2a", texts[span.name], of_kind]
    if (status := span.status) is not None:
        code = status.status_code
        member = _statuses.get(id(code))
        of_status = member[1] if member is not None and member[0] is code else _status(code)
        if description := status.description:
            of_status += b"\x12" + texts[description]
        parts += (b"\x7a", _sizes[len(of_status)], of_status)
    if parent := span.parent:
        parts.append(b"\x22\x08")
        parts.append(parent.span_id.to_bytes(8, "big"))
        parts.append(_FLAGS_REMOTE if parent.is_remote else _FLAGS)
    else:
        parts.append(_FLAGS)
    if state := context.trace_state:
        parts += (b"\x1a", texts[_state(state)])
    if attributes := _attributes(span.attributes, caches):
        parts.append(b"\x4a")
        parts.append(b"\x4a".join(attributes))
    if dropped := span.dropped_attributes:
        parts += (b"\x50", _count(dropped))
    if events := span.events:
        parts += [_event(event, caches) for event in events]
    if dropped := span.dropped_events:
        parts += (b"\x60", _count(dropped))
    if links := span.links:
        parts += [_link(link, caches) for link in links]
    if dropped := span.dropped_links:
        parts += (b"\x70", _count(dropped))
    content = b"".join(parts)
    return group, b"".join((b"\x12", _sizes[len(content)], content))


_event_head: Final = struct.Struct("<BQB").pack
_link_head: Final = struct.Struct("<H16sH8s").pack


def _event(event: Any, caches: Caches) -> bytes:
    parts = [_event_head(0x09, event.timestamp or 0, 0x12), caches.texts[event.name]]
    if (pairs := event.attributes) is not None and (attributes := _attributes(pairs, caches)):
        parts += (b"\x1a", b"\x1a".join(attributes))
    if dropped := event.dropped_attributes:
        parts += (b"\x20", _count(dropped))
    content = b"".join(parts)
    return b"".join((b"\x5a", _sizes[len(content)], content))


def _link(link: Any, caches: Caches) -> bytes:
    """A link. Its trace state is left out, as the official encoder does."""
    context = link.context
    parts = [
        _link_head(0x100A, context.trace_id.to_bytes(16, "big"), 0x0812, context.span_id.to_bytes(8, "big")),
        _LINK_FLAGS_REMOTE if context.is_remote else _LINK_FLAGS,
    ]
    if (pairs := link.attributes) is not None and (attributes := _attributes(pairs, caches)):
        parts += (b"\x22", b"\x22".join(attributes))
    if dropped := link.dropped_attributes:
        parts += (b"\x28", _count(dropped))
    content = b"".join(parts)
    return b"".join((b"\x6a", _sizes[len(content)], content))


def _count(dropped: int) -> bytes:
    return _sizes[min(dropped, 0xFFFFFFFF) if dropped > 0 else 0]


def _state(state: Any) -> str:
    return ",".join([f"{key}={value}" for key, value in state.items()])


def _kind(kind: Any) -> bytes:
    """OpenTelemetry's API counts kinds from 0, OTLP from 1."""
    return _member(_kinds, kind, b"\x30", kind.value + 1)


def _status(code: Any) -> bytes:
    return _member(_statuses, code, b"\x18", code.value)


def _severity(number: Any) -> bytes:
    return _member(_severities, number, b"\x10", getattr(number, "value", number) or 0)


def _member(known: dict[int, tuple[object, bytes]], member: object, tag: bytes, number: int) -> bytes:
    field = tag + _sizes[number & _UINT64] if number else b""
    if len(known) >= _MAX_MEMBERS:
        known.clear()
    known[id(member)] = (member, field)
    return field


# --- log records ----------------------------------------------------------------------------------------------------

_log_head: Final = struct.Struct("<BQBQB").pack
"""time_unix_nano and observed_time_unix_nano, with their tags, and the tag of the body."""

_log_trace: Final = struct.Struct("<H16sH8sBI").pack
"""trace_id, span_id and flags, with their tags."""


def _log(record: Any, caches: Caches) -> Encoded:
    resource, scope = record.resource, record.instrumentation_scope
    known = caches.groups_by_id.get((id(resource), id(scope)))
    if known is not None and known[0] is resource and known[1] is scope:
        group = known[2]
    else:
        group = _group(resource, scope, caches)
    texts = caches.texts

    log = record.log_record
    body = log.body
    # The application may go on to write to containers of its own, after they were checked.
    if (check := caches.check) is not None and not (
        check.text(body) if (kind := type(body)) is str else kind is not dict and kind is not list and check.value(body)
    ):
        raise Unclean
    number = log.severity_number
    member = _severities.get(id(number))
    parts = [
        _log_head(0x09, log.timestamp or 0, 0x59, log.observed_timestamp or 0, 0x2A),
        _value(body, _DEPTH, (), caches),
        member[1] if member is not None and member[0] is number else _severity(number),
    ]
    if text := log.severity_text:
        parts += (b"\x1a", texts[text])
    if (pairs := log.attributes) is not None and (attributes := _attributes(pairs, caches)):
        parts += (b"\x32", b"\x32".join(attributes))
    if dropped := record.dropped_attributes:
        parts += (b"\x38", _count(dropped))
    trace_id, span_id = log.trace_id, log.span_id
    if trace_id and span_id:
        parts.append(
            _log_trace(
                0x104A,
                trace_id.to_bytes(16, "big"),
                0x0852,
                span_id.to_bytes(8, "big"),
                0x45,
                log.trace_flags,
            )
        )
    else:
        if trace_id:
            parts += (b"\x4a\x10", trace_id.to_bytes(16, "big"))
        if span_id:
            parts += (b"\x52\x08", span_id.to_bytes(8, "big"))
        if flags := log.trace_flags:
            parts += (b"\x45", _fixed32(flags))
    if name := log.event_name:
        parts += (b"\x62", texts[name])
    content = b"".join(parts)
    return group, b"".join((b"\x12", _sizes[len(content)], content))


# --- records that cannot be encoded as they are ---------------------------------------------------------------------
# What breaks the type annotations of the SDK, or runs code of the application that raises. Each field is read and
# converted on its own, so that one bad field costs no other; what cannot be read is left out.


def _repaired_span(span: object) -> SimpleNamespace:
    return SimpleNamespace(
        resource=_repaired_origin(_read(span, "resource")),
        instrumentation_scope=_repaired_origin(_read(span, "instrumentation_scope")),
        context=_repaired_context(_read(span, "context")),
        parent=None if (parent := _read(span, "parent")) is None else _repaired_context(parent),
        name=_repaired_text(_read(span, "name")),
        kind=SimpleNamespace(value=_whole(_read(_read(span, "kind"), "value", -1), 31, lowest=-1)),
        start_time=_whole(_read(span, "start_time"), 64),
        end_time=_whole(_read(span, "end_time"), 64),
        attributes=_repaired_attributes(_read(span, "attributes")),
        events=[
            SimpleNamespace(
                name=_repaired_text(_read(event, "name")),
                timestamp=_whole(_read(event, "timestamp"), 64),
                attributes=_repaired_attributes(_read(event, "attributes")),
                dropped_attributes=_whole(_read(event, "dropped_attributes"), 32),
            )
            for event in _items(_read(span, "events"))
        ],
        links=[
            SimpleNamespace(
                context=_repaired_context(_read(link, "context")),
                attributes=_repaired_attributes(_read(link, "attributes")),
                dropped_attributes=_whole(_read(link, "dropped_attributes"), 32),
            )
            for link in _items(_read(span, "links"))
        ],
        status=SimpleNamespace(
            status_code=SimpleNamespace(value=_whole(_read(_read(_read(span, "status"), "status_code"), "value"), 31)),
            description=_repaired_text(_read(_read(span, "status"), "description")),
        ),
        dropped_attributes=_whole(_read(span, "dropped_attributes"), 32),
        dropped_events=_whole(_read(span, "dropped_events"), 32),
        dropped_links=_whole(_read(span, "dropped_links"), 32),
    )


def _repaired_log(record: object) -> SimpleNamespace:
    log = _read(record, "log_record")
    number = _read(log, "severity_number")
    return SimpleNamespace(
        resource=_repaired_origin(_read(record, "resource")),
        instrumentation_scope=_repaired_origin(_read(record, "instrumentation_scope")),
        dropped_attributes=_whole(_read(record, "dropped_attributes"), 32),
        log_record=SimpleNamespace(
            timestamp=_whole(_read(log, "timestamp"), 64),
            observed_timestamp=_whole(_read(log, "observed_timestamp"), 64),
            severity_number=_whole(_read(number, "value", number), 31),
            severity_text=_repaired_text(_read(log, "severity_text")),
            body=_repaired_value(_read(log, "body")),
            attributes=_repaired_attributes(_read(log, "attributes")),
            trace_id=_low_bits(_read(log, "trace_id"), 128),
            span_id=_low_bits(_read(log, "span_id"), 64),
            trace_flags=_low_bits(_read(log, "trace_flags"), 32),
            event_name=_repaired_text(_read(log, "event_name")),
        ),
    )


def _repaired_origin(origin: object) -> SimpleNamespace | None:
    """A resource or a scope."""
    if origin is None:
        return None
    return SimpleNamespace(
        name=_repaired_text(_read(origin, "name")),
        version=_repaired_text(_read(origin, "version")),
        schema_url=_repaired_text(_read(origin, "schema_url")),
        attributes=_repaired_attributes(_read(origin, "attributes")),
    )


def _repaired_context(context: object) -> SimpleNamespace:
    state = _repaired_attributes(_read(context, "trace_state"))
    return SimpleNamespace(
        trace_id=_low_bits(_read(context, "trace_id"), 128),
        span_id=_low_bits(_read(context, "span_id"), 64),
        is_remote=_read(context, "is_remote") is True,
        trace_state={_text_of(key): _text_of(value) for key, value in state.items()},
    )


def _repaired_attributes(attributes: Any) -> dict[object, object]:
    try:
        pairs: dict[object, object] = dict(attributes or {})
    except Exception:  # noqa: BLE001 - a mapping's own code may do anything
        return {}
    return {_repaired_text(key): _repaired_value(value) for key, value in pairs.items()}


def _repaired_value(value: object) -> object:
    try:
        _value(value, _DEPTH, (), _shared)
    except Exception:  # noqa: BLE001 - the value's own code may do anything
        return _text_of(value)
    return value


def _repaired_text(text: object) -> str:
    return str.__str__(text) if isinstance(text, str) else "" if text is None else _text_of(text)


def _items(values: Any) -> list[object]:
    try:
        return list(values or ())
    except Exception:  # noqa: BLE001 - a sequence's own code may do anything
        return []


def _read(source: object, name: str, default: object = None) -> Any:
    try:
        return getattr(source, name, default)
    except Exception:  # noqa: BLE001 - a property's own code may do anything
        return default


def _whole(number: Any, bits: int, lowest: int = 0) -> int:
    """The nearest number that has a place in the field; 0 for what is no number."""
    try:
        whole: int = int(number)
        return max(lowest, min(whole, (1 << bits) - 1))
    except Exception:  # noqa: BLE001 - a number's own code may do anything
        return 0


def _low_bits(number: Any, bits: int) -> int:
    """As much of an identifier as its field can hold; 0 for what is no number."""
    try:
        whole: int = int(number)
        return whole & ((1 << bits) - 1)
    except Exception:  # noqa: BLE001 - a number's own code may do anything
        return 0
