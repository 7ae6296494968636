"""What became of a request: one value for each way it can end, read from the answer of the server or from its absence.

| outcome | what the sender of the request does |
|---|---|
| `Delivered` | forgets it; counts what the server says it refused |
| `RetryAfter` | sends the same bytes again later |
| `TooLarge` | sends the same records in smaller requests |
| `Unauthorised` | keeps it, and waits for another key |
| `Rejected` | sets it aside: sending it again would not help |

Nothing here raises, whatever the bytes: they come from outside. Texts from outside are cut short and hold no control
characters, so they are fit for a log line.

Source: https://opentelemetry.io/docs/specs/otlp/ (version 1.9), "Failures" of OTLP/gRPC and of OTLP/HTTP.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final, TypeAlias

from otelweir.signals import Lane

MAX_WAIT_S: Final = 366 * 86400.0
"""No server is believed to mean a longer wait than a year."""

MAX_TEXT: Final = 300
"""Characters of a server's message that are kept."""

_RETRYABLE_HTTP: Final = frozenset({408, 425, 429, 502, 503, 504})
# 407 comes from a proxy, which waits for a key just as well.
_UNAUTHORISED_HTTP: Final = frozenset({401, 403, 407})
_TOO_LARGE: Final = (
    r"request body too large|message length too large"
    r"|message (?:after decompression )?larger than max|message exceeds (?:the )?max"
    # A collector that keeps nothing itself passes on what its own server answered, in words only.
    r"|responded with HTTP Status Code 413"
)
_TOO_LARGE_HTTP: Final = re.compile(_TOO_LARGE.encode(), re.IGNORECASE)
_TOO_LARGE_GRPC: Final = re.compile(_TOO_LARGE, re.IGNORECASE)
_TOO_LARGE_EXHAUSTED: Final = re.compile(rf"{_TOO_LARGE}|larger than (?:the )?(?:max|limit)|too large", re.IGNORECASE)
"""Of RESOURCE_EXHAUSTED, which is about a size or a quota, fewer words will do."""

_GRPC: Final = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
_RETRYABLE_GRPC: Final = frozenset(
    {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}
)
_FAULTS_GRPC: Final = frozenset({"INTERNAL", "UNKNOWN"})
_SIZES_GRPC: Final = _FAULTS_GRPC | {"INVALID_ARGUMENT", "OUT_OF_RANGE"}
"""What else is answered when a message is too large: by collectors, and by servers that are not Go's."""
_UNAUTHORISED_GRPC: Final = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED"})

_RECORDS: Final[Mapping[Lane, str]] = {"traces": "Spans", "logs": "LogRecords", "metrics": "DataPoints"}
"""How OTLP's JSON names what a partial success refuses: `rejectedSpans`."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """The server took the request.

    Attributes:
        rejected: Records of it that the server refused for good; 0 is a plain success.
        message: Why, or a warning, in the server's words; empty when it has nothing to say.
    """

    rejected: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """The server did not take the request, or nobody knows; it may be sent again.

    Attributes:
        after_s: How long the server wants to be left alone, in seconds from now; None when it did not say.
        why: In a few words.
        suspect: The server failed over this request (500), so that the request itself may be what it fails over.
    """

    after_s: float | None
    why: str
    suspect: bool = False


@dataclass(frozen=True, slots=True)
class TooLarge:
    """The request has more bytes than the server reads; its records may well pass in smaller ones."""

    why: str


@dataclass(frozen=True, slots=True)
class Unauthorised:
    """The server does not accept the key. Keys rotate, so the request is good still."""

    why: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """The server will not take this request, now or later."""

    why: str


Outcome: TypeAlias = Delivered | RetryAfter | TooLarge | Unauthorised | Rejected


def of_http(status: int, headers: Mapping[str, str], body: bytes, lane: Lane, now: float) -> Outcome:
    """Read an answer of OTLP/HTTP.

    A server's own fault (500 and the like) is no word on the records: OTLP would have them dropped, but who promised to
    keep them sends them again. So it is with 408 and 425, by which HTTP asks for just that.

    A body that is too large has a status of its own, 413, but collectors say 400, and pass on what others say of a size
    as 429 or 500; so the words count as well.

    A status that neither takes nor refuses (1xx, 3xx) is no success, and somebody else than an OTLP server may have
    given it; so nothing is set aside for it. The same goes for a web page with status 200, as a login portal sends it.

    Args:
        status: The HTTP status.
        headers: Of the answer; names in lower case.
        body: Of the answer, decompressed; may be cut short.
        lane: The signal that was sent.
        now: Unix time in seconds, against which a date in `Retry-After` is read.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if 200 <= status < 300:
        if kind in ("text/html", "application/xhtml+xml") and body.lstrip()[:1] == b"<":
            return RetryAfter(None, f"HTTP {status} with a web page, which is not OTLP")
        return _partial_json(body, lane) if kind == "application/json" else partial_success(body)
    said = _message(kind, body)
    why = f"HTTP {status}: {said}" if said else f"HTTP {status}"
    if status == 413 or (status in (400, 429, 500) and _TOO_LARGE_HTTP.search(body)):
        return TooLarge(why)
    if status in _RETRYABLE_HTTP:
        return RetryAfter(retry_after(headers.get("retry-after", ""), now), why)
    if status in _UNAUTHORISED_HTTP:
        return Unauthorised(why)
    if status >= 500:
        return RetryAfter(retry_after(headers.get("retry-after", ""), now), why, suspect=True)
    if 300 <= status < 400:
        return RetryAfter(None, f"HTTP {status}: a redirect, which is not followed")
    if status < 400:
        return RetryAfter(None, why)
    return Rejected(why)


def of_grpc(code: int | str, details: str = "", *, body: bytes = b"", status: bytes = b"") -> Outcome:
    """Read an answer of OTLP/gRPC.

    INTERNAL and UNKNOWN, which OTLP would not have sent again, are the server's own fault, as HTTP's 500 is. So is
    RESOURCE_EXHAUSTED without a `RetryInfo`, unless it is about the size: a quota that is used up is no word on the
    records, and a collector on the way drops the `RetryInfo` of the server behind it.

    Args:
        code: The status code, as its number or its name.
        details: The status message.
        body: The response message, when the code is OK.
        status: The trailer `grpc-status-details-bin`, a `google.rpc.Status`; its `RetryInfo` says how long to wait.
    """
    name = code.upper() if isinstance(code, str) else _GRPC[code] if 0 <= code < len(_GRPC) else str(code)
    if name == "OK":
        return partial_success(body)
    said = _plain(details)
    why = f"gRPC {name}: {said}" if said else f"gRPC {name}"
    if name == "RESOURCE_EXHAUSTED":
        after_s = _retry_info(status)
        if after_s is not None:
            return RetryAfter(after_s, why)
        return TooLarge(why) if _TOO_LARGE_EXHAUSTED.search(details) else RetryAfter(None, why, suspect=True)
    if name in _SIZES_GRPC and _TOO_LARGE_GRPC.search(details):
        return TooLarge(why)
    if name in _RETRYABLE_GRPC:
        return RetryAfter(_retry_info(status), why)
    if name in _FAULTS_GRPC:
        return RetryAfter(_retry_info(status), why, suspect=True)
    return Unauthorised(why) if name in _UNAUTHORISED_GRPC else Rejected(why)


def of_failure(error: BaseException) -> RetryAfter:
    """Read the absence of an answer: no connection, a time-out, an answer that is not HTTP.

    The text is made of the kind of the error and the system's own words for it, never of what an exception says by
    itself: some repeat the header or the address that was at fault.
    """
    name = type(error).__name__
    match error:
        case ssl.SSLCertVerificationError():
            why = f"the certificate is not trusted: {_plain(str(getattr(error, 'verify_message', '')))}"
        case ssl.SSLError():
            why = f"TLS failed: {_plain(str(getattr(error, 'reason', None) or name))}"
        case socket.gaierror():
            why = f"the host name does not resolve: {_plain(str(error.strerror or name))}"
        case TimeoutError():
            why = "no answer in time"
        case OSError() if error.strerror:
            # The name of a file is shown: it is one of the certificates.
            of_file = f": {_plain(str(error.filename))}" if error.filename else ""
            why = f"{_plain(error.strerror)}{of_file}"
        case ConnectionError():
            why = "the connection was closed without an answer"
        case _:
            why = f"no answer that can be read: {name}"
    return RetryAfter(None, why)


def retry_after(value: str, now: float) -> float | None:
    """The wait that a `Retry-After` header asks for, in seconds: at least 0, at most `MAX_WAIT_S`.

    Args:
        value: Seconds or an HTTP date.
        now: Unix time in seconds.

    Returns:
        None when the value is neither.
    """
    text = value.strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]*)?", text):
        # A float, because reading a very long number as an int fails; one beyond its range is infinity.
        return min(float(text), MAX_WAIT_S)
    try:
        date = parsedate_to_datetime(text)
        # HTTP dates are in GMT, and a date without a zone is one that forgot to say so.
        at = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError, OSError):
        return None
    return min(max(0.0, at - now), MAX_WAIT_S)


def partial_success(body: bytes) -> Delivered:
    """What an `Export…ServiceResponse` says; its shape is the same for every signal.

    A response that cannot be read is a plain success: the status had already said that the request was taken.
    """
    rejected, message = 0, ""
    for number, value in fields(body):
        if number == 1 and isinstance(value, bytes):
            for inner, content in fields(value):
                if inner == 1 and isinstance(content, int):
                    # An int64; a negative number of records would be nonsense.
                    rejected = content if content < 1 << 63 else 0
                elif inner == 2 and isinstance(content, bytes):
                    message = _plain(content.decode("utf-8", "replace"))
    return Delivered(rejected, message)


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protobuf message, one after the other: number, and varint or bytes.

    Ends at the first byte that cannot be understood, so it never raises and reads each byte once; fields of fixed width
    are passed over.
    """
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        if key is None:
            return
        match key & 7:
            case 0:
                value, at = _varint(message, at)
                if value is None:
                    return
                yield key >> 3, value
            case 1:
                at += 8
            case 2:
                length, at = _varint(message, at)
                if length is None or length > end - at:
                    return
                yield key >> 3, message[at : at + length]
                at += length
            case 5:
                at += 4
            case _:
                return


def _varint(message: bytes, at: int) -> tuple[int | None, int]:
    value = 0
    for shift, byte in enumerate(message[at : at + 10]):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value & (1 << 64) - 1, at + shift + 1
    return None, at


def _retry_info(status: bytes) -> float | None:
    """`google.rpc.Status.details` (3) holds `Any` messages; `RetryInfo.retry_delay` (1) is a `Duration`."""
    for number, detail in fields(status):
        if number != 3 or not isinstance(detail, bytes):
            continue
        parts = dict(fields(detail))
        kind, value = parts.get(1), parts.get(2, b"")
        if not isinstance(kind, bytes) or not kind.endswith(b"google.rpc.RetryInfo") or not isinstance(value, bytes):
            continue
        delay = dict(fields(value)).get(1)
        if not isinstance(delay, bytes):
            return None
        parts = dict(fields(delay))
        seconds, nanos = parts.get(1, 0), parts.get(2, 0)
        if not isinstance(seconds, int) or not isinstance(nanos, int) or seconds >= 1 << 63 or nanos >= 1 << 63:
            return 0.0
        return min(seconds + nanos / 1e9, MAX_WAIT_S)
    return None


def _partial_json(body: bytes, lane: Lane) -> Delivered:
    partial = _json(body).get("partialSuccess")
    if not isinstance(partial, dict):
        return Delivered()
    rejected, message = partial.get(f"rejected{_RECORDS[lane]}", 0), partial.get("errorMessage", "")
    # Protobuf's JSON writes an int64 as a string.
    digits = str(rejected) if isinstance(rejected, int | str) else ""
    count = int(digits) if re.fullmatch("[0-9]{1,19}", digits) else 0
    return Delivered(count, _plain(message) if isinstance(message, str) else "")


def _message(kind: str, body: bytes) -> str:
    """What an error's body says: a `google.rpc.Status` as protobuf or JSON, else text."""
    if kind in ("application/x-protobuf", "application/protobuf"):
        said = dict(fields(body)).get(2, b"")
        return _plain(said.decode("utf-8", "replace")) if isinstance(said, bytes) else ""
    if kind == "application/json":
        message = _json(body).get("message")
        if isinstance(message, str):
            return _plain(message)
    text = body[: 4 * MAX_TEXT].decode("utf-8", "replace")
    # A page of HTML says little that fits one line, and bytes without a kind may be anything.
    return "" if text.lstrip()[:1] == "<" or "\0" in text or "\x08" in text else _plain(text)


def _json(body: bytes) -> dict[str, object]:
    try:
        read = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return read if isinstance(read, dict) else {}


def _plain(text: str) -> str:
    """A text of one line, printable, and not too long."""
    words = " ".join(text[: 4 * MAX_TEXT].split())
    plain = "".join(letter if letter.isprintable() else "�" for letter in words)
    return plain if len(plain) <= MAX_TEXT else f"{plain[: MAX_TEXT - 1]}…"
