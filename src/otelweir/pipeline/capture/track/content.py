"""Input and output as JSON text: bounded in bytes, depth, items and time, and without running the values' own code.

No `__repr__`, `__str__`, `__getattr__` or property of a value is called, because nothing bounds what it does: an object
is what its instance dictionary and slots hold. What runs is the iteration of mappings that are no `dict`, item by item
while there is time. Of libraries that are not imported nothing is needed: their values are told by their type.

The forms:

- pydantic models, dataclasses, attrs classes and other objects are objects of their fields. Fields whose names begin
  with an underscore, and those that are excluded from the `repr`, are not shown; an object without any is `"<Type>"`.
- numpy, pandas and torch values are told by type, shape and dtype, small ones with their numbers.
- bytes and files become attachments, `{"attachment": {"sha256": …, "size": …, "mime_type": …}}`: not their content.
- What was cut is marked by `…` in its place; what is hidden is `***`.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import datetime
import decimal
import enum
import hashlib
import io
import json
import math
import os
import pathlib
import re
import stat
import sys
import types
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from time import perf_counter
from typing import Any, Final, NamedTuple

from otelweir.pipeline.capture.track.hidden import HIDDEN, is_hidden
from otelweir.pipeline.capture.track.limits import MAX_BYTES
from otelweir.pipeline.capture.values import MAX_DEPTH, MAX_ITEMS, Conversion, clean
from otelweir.signals import AnyValue

MAX_S: Final = 0.05
"""Seconds that one value may take; looked at between items."""

MAX_ATTACHMENTS: Final = 32
MAX_HASHED: Final = 4 * 2**20
"""Bytes that are read for a hash; what is larger has none."""

_FEW: Final = 16
"""Numbers of an array, rows and columns of a table, that are shown."""


def _encoder() -> Callable[[Any], str]:
    """What turns plain values into JSON.

    `JSONEncoder.encode` makes this C object anew for each call, which takes longer than its work. What it gives has no
    circles: nothing gets here that was not looked through.
    """
    try:
        made = json.encoder.c_make_encoder(  # type: ignore[attr-defined]
            None,
            None,
            json.encoder.encode_basestring,
            None,
            ": ",
            ", ",
            False,
            False,
            False,
        )
        if "".join(made({"a": ["ä", 1.5, None]}, 0)) == '{"a": ["ä", 1.5, null]}':
            return lambda value: "".join(made(value, 0))
    except (AttributeError, TypeError):
        pass  # another Python
    return json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


_encode: Final = _encoder()


class Attachment(NamedTuple):
    """What is told of a file or of bytes, instead of their content.

    Attributes:
        size: Bytes; None where nobody can tell.
        mime_type: By the first bytes, else by the file's name.
        sha256: Hexadecimal hash of the content; None above `MAX_HASHED` and where it cannot be read.
        name: The file's name.
    """

    size: int | None
    mime_type: str
    sha256: str | None
    name: str | None

    def told(self) -> dict[str, AnyValue]:
        """What is known, by name."""
        return {key: value for key, value in self._asdict().items() if value is not None}


class Content(NamedTuple):
    """A value as JSON.

    Attributes:
        text: The JSON.
        cut: Whether something is missing.
        attachments: The files and bytes that were in it.
    """

    text: str
    cut: bool = False
    attachments: tuple[Attachment, ...] = ()


def content_of(value: object, max_bytes: int = MAX_BYTES, clock: Callable[[], float] = perf_counter) -> Content:
    """A value as JSON. Never raises.

    Args:
        value: Any value.
        max_bytes: Bytes that the JSON may have in UTF-8.
        clock: A monotonic clock in seconds.
    """
    try:
        if _is_plain(value, 3):
            text = clean(_encode(value))
            if _fits(text, max_bytes):
                return Content(text)
    except Exception:  # noqa: BLE001 - numbers that JSON does not have, or a change by another thread
        pass
    until = clock() + MAX_S
    # Room for punctuation; escapes may still make the text longer than what was counted.
    room = max_bytes - max_bytes // 8
    for share in (1, 4, 16, 64):
        conversion = JsonConversion(MAX_ITEMS // share, room // share, until, clock)
        try:
            text = clean(_encode(conversion.convert(value, 0)))
        except Exception:  # noqa: BLE001 - the value's own code may do anything
            break
        if _fits(text, max_bytes):
            return Content(text, conversion.cut or share > 1, tuple(conversion.attachments))
    return Content('"…"', cut=True)


def _fits(text: str, max_bytes: int) -> bool:
    return len(text) <= max_bytes and (text.isascii() or len(text.encode()) <= max_bytes)


def _is_plain(value: object, depth: int) -> bool:
    """Whether a value is small and of built-in types only, so that JSON's own encoder may have it as it is."""
    kind = type(value)
    if kind is str:
        return len(value) <= 2048 and not value.startswith("data:")  # type: ignore[arg-type,attr-defined]
    if kind is dict:
        if not depth or len(value) > 20:  # type: ignore[arg-type]
            return False
        for key, item in value.items():  # type: ignore[attr-defined]
            if type(key) is not str or len(key) > 256 or is_hidden(key) or not _is_plain(item, depth - 1):
                return False
        return True
    if kind is list or kind is tuple:
        if not depth or len(value) > 20:  # type: ignore[arg-type]
            return False
        return all(_is_plain(item, depth - 1) for item in value)  # type: ignore[attr-defined]
    return kind in _SCALARS or (kind is int and -(2**63) <= value < 2**63)  # type: ignore[operator]


_SCALARS: Final = frozenset({bool, float, type(None)})


class JsonConversion(Conversion):
    """One conversion to what JSON has.

    Args:
        items: As of `Conversion`.
        room: As of `Conversion`.
        until: When to stop, by the clock.
        clock: A monotonic clock in seconds.

    Attributes:
        attachments: The files and bytes so far.
    """

    __slots__ = ("_clock", "_until", "attachments")

    def __init__(self, items: int, room: int, until: float, clock: Callable[[], float] = perf_counter) -> None:
        super().__init__(items, room)
        self._until = until
        self._clock = clock
        self.attachments: list[Attachment] = []

    def _take(self) -> bool:
        if self._clock() > self._until:
            self._left = 0
        return super()._take()

    def _converted(self, value: Any, depth: int) -> AnyValue:
        # By its type, not by `isinstance`: that asks the value for its class, and a proxy would go and fetch one.
        kind = type(value)
        if kind is str:
            return self._string(value)
        if value is None or kind is bool:
            return value  # type: ignore[no-any-return]
        if kind is int or kind is float:
            return self._number(value)
        # Not by the attribute: a metaclass may have its own.
        module = type.__getattribute__(kind, "__module__")
        library = module.partition(".")[0] if type(module) is str else ""
        if library in _MACHINERY and not issubclass(kind, _DATA) and not module.endswith(_OF_DATA):
            # A request is no data, but leads to all of its application.
            return f"<{_name_of(kind)}>"
        for known, form in _FORMS:
            if issubclass(kind, known):
                return form(self, value, depth)
        if library in _LIBRARIES and (found := _LIBRARIES[library](self, value, depth)) is not None:
            return found
        return self._object(value, depth)

    def _string(self, value: str) -> AnyValue:
        text = str.__str__(value)
        if text.startswith("data:") and (match := _DATA_URL.match(text)) is not None:
            return self._data_url(text, match)
        return self._cut(text)

    def _data_url(self, text: str, match: re.Match[str]) -> AnyValue:
        data: bytes | None = None
        if len(text) <= 2 * MAX_HASHED:
            try:
                data = base64.b64decode(text[match.end() :])
            except (binascii.Error, ValueError):
                return self._cut(text)
        size = (len(text) - match.end()) * 3 // 4 if data is None else len(data)
        return self._attach(Attachment(size, match[1] or "text/plain", _sha256(data), None))

    def _number(self, value: float) -> AnyValue:
        if type(value) is int or issubclass(type(value), int):
            whole = int.__int__(value)  # type: ignore[arg-type]
            if -(2**63) <= whole < 2**63:
                return whole
            return self._cut(str(whole) if whole.bit_length() < 10_000 else hex(whole))
        number = float.__float__(value)
        return number if math.isfinite(number) else str(number)

    def _enum(self, value: enum.Enum, depth: int) -> AnyValue:
        # As it is kept: `value` may be a property of the enumeration's own.
        kept = vars(value).get("_value_")
        return self.convert(kept, depth + 1) if depth < MAX_DEPTH else "…"

    def _dict(self, value: dict[Any, Any], depth: int) -> AnyValue:
        return self._within(value, depth, lambda inner: self._pairs(dict.items(value), dict.__len__(value), inner))

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> AnyValue:
        return self._within(value, depth, lambda inner: self._pairs(value.items(), len(value), inner))

    def _sequence(self, value: Any, depth: int) -> AnyValue:
        base = next(base for base in _SEQUENCES if issubclass(type(value), base))
        names = vars(type(value)).get("_fields") if base is tuple else None
        if type(names) is tuple and len(names) == tuple.__len__(value):
            pairs = list(zip(names, tuple.__iter__(value), strict=True))
            return self._within(value, depth, lambda inner: self._pairs(pairs, len(pairs), inner))
        return self._within(value, depth, lambda inner: self._items(base.__iter__(value), base.__len__(value), inner))

    def _pairs(self, pairs: Iterable[tuple[Any, Any]], count: int, depth: int) -> dict[str, AnyValue]:
        def shown() -> Iterator[tuple[Any, Any]]:
            for key, item in pairs:
                if issubclass(type(key), str):
                    name = str.__str__(key)
                    yield name, (HIDDEN if is_hidden(name) else item)
                else:
                    yield self._key_text(key), item

        return super()._pairs(shown(), count, depth)

    def _key_text(self, key: object) -> str:
        found = JsonConversion(_FEW, 1024, self._until, self._clock).convert(key, MAX_DEPTH - 2)
        return found if type(found) is str else _encode(found)

    def _bytes(self, value: bytes | bytearray | memoryview) -> AnyValue:
        if type(value) is memoryview:
            size, data = value.nbytes, bytes(value) if value.nbytes <= MAX_HASHED else b""
        else:
            base: Any = bytes if issubclass(type(value), bytes) else bytearray
            size = base.__len__(value)
            data = bytes(base.__getitem__(value, slice(size if size <= MAX_HASHED else _FEW)))
        return self._attach(Attachment(size, mime_type(data), _sha256(data) if size <= MAX_HASHED else None, None))

    def _file(self, value: Any, _: int) -> AnyValue:
        if type(value) is io.BytesIO:
            return self._bytes(value.getvalue())
        if type(value) is io.StringIO:
            data = value.getvalue().encode("utf-8", "backslashreplace")
            return self._attach(
                Attachment(len(data), "text/plain", _sha256(data) if len(data) <= MAX_HASHED else None, None)
            )
        if type(value) in _FILES:
            return self._attach(_open_file(value))
        tempfile = sys.modules.get("tempfile")
        if tempfile is not None and type(value) is tempfile.SpooledTemporaryFile:
            return self._file(vars(value).get("_file"), 0)  # the one behind it
        return f"<{_name_of(type(value))}>"

    def _attach(self, attachment: Attachment) -> AnyValue:
        if len(self.attachments) < MAX_ATTACHMENTS:
            self.attachments.append(attachment)
        return {"attachment": attachment.told()}

    def _as_text(self, value: object, _: int) -> AnyValue:
        if type(value) in _TEXTS:
            return self._cut(str(value))
        if issubclass(type(value), datetime.timedelta):
            return self._cut(datetime.timedelta.__str__(value))
        return f"<{_name_of(type(value))}>"

    def _time(self, value: Any, _: int) -> AnyValue:
        pandas = sys.modules.get("pandas")
        if pandas is not None and value is getattr(pandas, "NaT", None):
            return None  # it is no time, though its type says so
        base = next(base for base in _TIMES if issubclass(type(value), base))
        return self._cut(base.isoformat(value))

    def _path(self, value: pathlib.PurePath, _: int) -> AnyValue:
        return self._cut(pathlib.PurePath.__str__(value))

    def _exception(self, value: BaseException, depth: int) -> AnyValue:
        arguments = BaseException.__dict__["args"].__get__(value)
        return {"type": _name_of(type(value)), "args": self.convert(arguments, depth + 1)}

    def _code(self, value: Any, _: int) -> AnyValue:
        if issubclass(type(value), type):
            return self._cut(f"<class {_name_of(value)}>")
        return self._cut(f"<{_name_of(type(value))} {getattr(value, '__qualname__', '') or value.__name__}>")

    def _opaque(self, value: object, _: int) -> AnyValue:
        return f"<{_name_of(type(value))}>"

    def _object(self, value: object, depth: int) -> AnyValue:
        fields = _fields(value)
        if not fields:
            return f"<{_name_of(type(value))}>"
        return self._within(value, depth, lambda inner: self._pairs(fields.items(), len(fields), inner))

    def _fraction(self, value: Any, _: int) -> AnyValue:
        fractions = sys.modules.get("fractions")
        return self._cut(str(value)) if fractions is not None and type(value) is fractions.Fraction else None

    def _numpy(self, value: Any, depth: int) -> AnyValue:
        numpy = sys.modules.get("numpy")
        if numpy is None:
            return None
        if issubclass(type(value), numpy.generic):
            return self.convert(numpy.generic.item(value), depth + 1)
        if not issubclass(type(value), numpy.ndarray):
            return None
        described = self._described(value, str(value.dtype), list(value.shape))
        # Objects in an array have code of their own; a masked or memory-mapped one may have to be fetched.
        if value.size <= _FEW and value.dtype.kind in "biufcUS" and type(value) is numpy.ndarray:
            described["values"] = self.convert(value.tolist(), depth + 1)
        return described

    def _torch(self, value: Any, depth: int) -> AnyValue:
        torch = sys.modules.get("torch")
        kind = getattr(torch, "Tensor", None)
        if kind is None or not issubclass(type(value), kind):
            return None
        described = self._described(value, str(value.dtype), list(value.shape))
        described["device"] = str(value.device)
        # Only where the numbers lie at hand: asking another device for them would wait for it.
        if value.numel() <= _FEW and value.device.type == "cpu":
            described["values"] = self.convert(value.detach().tolist(), depth + 1)
        return described

    def _pandas(self, value: Any, depth: int) -> AnyValue:
        pandas = sys.modules.get("pandas")
        if pandas is None or not issubclass(type(value), (pandas.DataFrame, pandas.Series, pandas.Index)):
            return "<NA>" if pandas is not None and value is getattr(pandas, "NA", None) else None
        if not issubclass(type(value), pandas.DataFrame):
            described = self._described(value, str(value.dtype), list(value.shape))
            described["head"] = self.convert(value[:_FEW].tolist(), depth + 1)
            return described
        described = self._described(value, None, list(value.shape))
        few = value.iloc[:_FEW, :_FEW]
        columns = [str(name) if type(name) is not str else name for name in few.columns.tolist()]
        described["columns"] = self.convert(columns, depth + 1)
        rows = [dict(zip(columns, row, strict=True)) for row in few.itertuples(index=False, name=None)]
        described["head"] = self.convert(rows, depth + 1)
        return described

    def _described(self, value: object, dtype: str | None, shape: list[Any]) -> dict[str, AnyValue]:
        told: dict[str, AnyValue] = {"type": _name_of(type(value)), "shape": [int(length) for length in shape]}
        if dtype is not None:
            told["dtype"] = dtype
        return told


def _fields(value: object) -> dict[str, object]:
    """The public fields of an object, as they are kept: no code of the object runs."""
    kind = type(value)
    secret = _not_shown(kind)
    found: dict[str, object] = {}
    for base in reversed(type.__getattribute__(kind, "__mro__")):
        inside = type.__getattribute__(base, "__dict__")
        slots = inside.get("__slots__", ())
        for name in (slots,) if type(slots) is str else slots if type(slots) in (tuple, list) else ():
            place = inside.get(name) if type(name) is str else None
            if type(place) is types.MemberDescriptorType and not name.startswith("_") and name not in secret:
                try:
                    found[name] = place.__get__(value, kind)
                except AttributeError:  # nothing was assigned yet
                    continue
    try:
        kept = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return found
    if type(kept) is dict:
        for name, item in list(kept.items()):
            if type(name) is str and not name.startswith("_") and name not in secret:
                found[name] = item
                if len(found) > MAX_ITEMS:
                    break
    # Models that allow further fields keep them apart.
    extra = next(filter(None, map(_extra_slot, type.__getattribute__(kind, "__mro__"))), None)
    if extra is not None:
        try:
            more = extra.__get__(value, kind)
        except AttributeError:
            more = None
        if type(more) is dict:
            found.update(more)
    return found


def _extra_slot(base: type) -> Any:
    found = type.__getattribute__(base, "__dict__").get("__pydantic_extra__")
    return found if type(found) is types.MemberDescriptorType else None


def _not_shown(kind: type) -> frozenset[str]:
    """The fields that a class keeps out of its `repr`, or out of what it gives to others."""
    names: set[str] = set()
    for base in type.__getattribute__(kind, "__mro__"):
        inside = type.__getattribute__(base, "__dict__")
        fields = inside.get("__dataclass_fields__")
        if type(fields) is dict:
            names.update(name for name, field in fields.items() if type(field) is dataclasses.Field and not field.repr)
        models = inside.get("__pydantic_fields__")
        if type(models) is dict:
            for name, field in models.items():
                if getattr(field, "repr", True) is False or getattr(field, "exclude", None) is True:
                    names.add(name)
        attributes = inside.get("__attrs_attrs__")
        if attributes is not None and issubclass(type(attributes), tuple):
            names.update(field.name for field in tuple.__iter__(attributes) if getattr(field, "repr", True) is False)
    return frozenset(names)


def _name_of(kind: type) -> str:
    # Not by the attribute: a metaclass may have its own.
    return str(type.__dict__["__qualname__"].__get__(kind)).rpartition("<locals>.")[2]


def _open_file(file: Any) -> Attachment:
    """What can be told of an open file without moving its position, and without reading what is no regular file."""
    name = file.name if type(getattr(file, "name", None)) is str else None
    size = digest = None
    start = b""
    try:
        number = file.fileno()
        status = os.fstat(number)
        if stat.S_ISREG(status.st_mode):
            size = status.st_size
            if size <= MAX_HASHED and hasattr(os, "pread"):
                data = os.pread(number, size, 0)
                start, digest = data, _sha256(data)
            elif hasattr(os, "pread"):
                start = os.pread(number, _FEW, 0)
    except (OSError, ValueError):  # closed, or opened for writing only
        pass
    return Attachment(size, mime_type(start, name), digest, pathlib.PurePath(name).name if name else None)


def _sha256(data: bytes | None) -> str | None:
    return None if data is None else hashlib.sha256(data, usedforsecurity=False).hexdigest()


def mime_type(start: bytes, name: str | None = None) -> str:
    """The type of a content by its first bytes, else by its file's name.

    Source: https://mimesniff.spec.whatwg.org/
    """
    for magic, kind in _MAGIC:
        if start.startswith(magic):
            return kind
    if start[:4] == b"RIFF":
        return {b"WEBP": "image/webp", b"WAVE": "audio/wave", b"AVI ": "video/avi"}.get(start[8:12], _UNKNOWN)
    if start[4:8] == b"ftyp":
        return "video/mp4"
    if name is not None:
        import mimetypes

        # The built-in table: the usual one reads files of the system first.
        return mimetypes.MimeTypes().guess_type(name)[0] or _UNKNOWN
    return _UNKNOWN


_UNKNOWN: Final = "application/octet-stream"
_MAGIC: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"%PDF-", "application/pdf"),
    (b"ID3", "audio/mpeg"),
    (b"OggS\x00", "application/ogg"),
    (b"fLaC", "audio/flac"),
    (b"PK\x03\x04", "application/zip"),
    (b"\x1f\x8b\x08", "application/gzip"),
)
_DATA_URL: Final = re.compile(r"data:([\w.+-]{1,64}/[\w.+-]{1,64})?(?:;[\w=.+-]{1,64}){0,3};base64,")

_TEXTS: Final = frozenset({uuid.UUID, decimal.Decimal, complex, datetime.timedelta, range, slice})
"""Types whose `str` is code of the standard library."""

_TIMES: Final = (datetime.datetime, datetime.date, datetime.time)
_SEQUENCES: Final = (list, tuple, set, frozenset, deque)
_FILES: Final = frozenset({io.FileIO, io.BufferedReader, io.BufferedWriter, io.BufferedRandom, io.TextIOWrapper})

_J = JsonConversion
_FORMS: Final[tuple[tuple[type | tuple[type, ...], Callable[[JsonConversion, Any, int], AnyValue]], ...]] = (
    (enum.Enum, _J._enum),
    (str, lambda self, value, _: self._string(value)),
    ((int, float), lambda self, value, _: self._number(value)),
    ((bytes, bytearray, memoryview), lambda self, value, _: self._bytes(value)),
    (dict, _J._dict),
    (_SEQUENCES, _J._sequence),
    (_TIMES, _J._time),
    (pathlib.PurePath, _J._path),
    (tuple(_TEXTS - {range, slice}), _J._as_text),
    ((range, slice), _J._as_text),
    (BaseException, _J._exception),
    ((type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType), _J._code),
    ((types.MethodType, types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType), _J._opaque),
    (io.IOBase, _J._file),
    (Mapping, _J._mapping),
)
_MACHINERY: Final = frozenset(
    {"aiohttp", "asyncio", "celery", "concurrent", "contextlib", "fastapi", "flask", "kombu", "logging"}
    | {"multiprocessing", "opentelemetry", "queue", "socket", "sqlalchemy", "ssl", "starlette", "threading"}
    | {"tornado", "uvicorn", "werkzeug"}
)
"""Libraries whose own objects are told by their type. Those of classes that the application derives are its own."""

_DATA: Final = (BaseException, enum.Enum, str, int, float, bytes, dict, *_SEQUENCES)
_OF_DATA: Final = (".datastructures", ".structures", ".file_storage", "sqlalchemy.engine.row")
"""What is data all the same."""

_LIBRARIES: Final[Mapping[str, Callable[[JsonConversion, Any, int], AnyValue]]] = {
    "fractions": _J._fraction,
    "numpy": _J._numpy,
    "pandas": _J._pandas,
    "torch": _J._torch,
}


class Parts:
    """The parts of a stream, as far as there is room for them.

    Args:
        max_bytes: Bytes that their JSON may have.
        reduce: Makes one value of the parts; then the parts are kept as they are, up to `MAX_PARTS`.

    Attributes:
        attachments: The files and bytes in them.
        count: How many there were.
        cut: Whether some are missing.
        first_s: Seconds until the first came; None before that.
    """

    MAX_PARTS: Final = 10_000

    __slots__ = ("_began", "_kept", "_left", "_reduce", "_room", "attachments", "count", "cut", "first_s")

    def __init__(self, max_bytes: int = MAX_BYTES, reduce: Callable[[list[Any]], object] | None = None) -> None:
        self._reduce = reduce
        self._room = max_bytes
        self._left = MAX_ITEMS
        self._kept: list[Any] = []
        self.attachments: tuple[Attachment, ...] = ()
        self.count = 0
        self.cut = False
        self._began = perf_counter()
        self.first_s: float | None = None

    def add(self, part: object) -> None:
        """Take one more."""
        self.count += 1
        if self.first_s is None:
            self.first_s = perf_counter() - self._began
        if self.cut:
            return
        if len(self._kept) >= self.MAX_PARTS or self._room <= 0 or self._left <= 0:
            self.cut = True
        elif self._reduce is not None:
            self._kept.append(part)
        elif type(part) is str:
            # Tokens are short and many, and what bounds them is the room that each takes.
            self._kept.append(part[: self._room])
            self._room -= len(part)
            self.cut = self._room < 0
        else:
            conversion = JsonConversion(self._left, self._room, perf_counter() + MAX_S)
            conversion._take()
            self._kept.append(conversion.convert(part, 1))
            self.attachments = (*self.attachments, *conversion.attachments)[:MAX_ATTACHMENTS]
            self._left, self._room, self.cut = conversion._left, conversion._room, conversion.cut

    def value(self) -> object:
        """What they make together: what the reducer says, text where all of them are text, else a list.

        Raises:
            Exception: Whatever the reducer raises.
        """
        if self._reduce is not None:
            return self._reduce(self._kept)
        if all(type(part) is str for part in self._kept):
            return "".join(self._kept)
        return self._kept
