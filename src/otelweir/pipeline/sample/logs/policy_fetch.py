"""Ask a URL for a policy: one request, and what the world's answer means.

Whatever answers, the time, the size and the hosts that see the key are bounded. No text that comes from here holds the
key, or the parts of a URL in which people put secrets.
"""

from __future__ import annotations

import base64
import email.utils
import http.client
import io
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from otelweir.pipeline.sample.logs.document import MAX_BYTES

TIMEOUT_S: Final = 10.0
"""For the whole answer, from the connection to the last byte."""

_MAX_REDIRECTS: Final = 3
_LONGEST_WAIT_S: Final = 3600.0
_ETAG: Final = re.compile(r'(?:W/)?"[\x21\x23-\x7e]{0,512}"')


@dataclass(frozen=True, slots=True)
class Fetched:
    """A body came. `etag` is None when there is none to be used."""

    body: bytes
    etag: str | None


@dataclass(frozen=True, slots=True)
class Unchanged:
    """What the ETag stands for still holds."""


@dataclass(frozen=True, slots=True)
class Failed:
    """No policy came. `after_s`: how long the server asks to wait; None when it does not."""

    why: str
    after_s: float | None = None


Answer: TypeAlias = Fetched | Unchanged | Failed
Fetch: TypeAlias = Callable[[str, str | None, str | None], Answer]
"""Takes the URL, the ETag of what is had, and the bearer key."""


def shown_url(url: str) -> str:
    """A URL without user, password, query and fragment.

    >>> shown_url("https://u:p@example.com:8443/policy.yaml?token=x")
    'https://example.com:8443/policy.yaml'
    """
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        return "the URL"
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def fetch(url: str, etag: str | None, key: str | None, *, timeout_s: float = TIMEOUT_S) -> Answer:
    """Ask once. Follows redirects on the same host only; asks through the proxy that the environment names."""
    deadline = time.monotonic() + timeout_s
    opener = _opener(deadline)
    try:
        target, headers = _request(url, etag, key)
        for _ in range(_MAX_REDIRECTS + 1):
            request = urllib.request.Request(target, headers=headers)  # noqa: S310 - the setting allows http(s) only
            with opener.open(request, timeout=timeout_s) as response:
                if response.status not in (301, 302, 303, 307, 308):
                    return _answer(response, asked_with=etag)
                onward = urllib.parse.urljoin(target, response.headers.get("Location", ""))
            if not _same_host(target, onward):
                return Failed(f"it redirects to {shown_url(onward)}, another host; name that URL instead")
            target = onward
        return Failed(f"it redirects more than {_MAX_REDIRECTS} times")
    except TimeoutError:
        return Failed(f"no complete answer within {timeout_s:g} s")
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Failed(_words(error, timeout_s))


def _request(url: str, etag: str | None, key: str | None) -> tuple[str, dict[str, str]]:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
        raise _Unusable("it is not a URL beginning with http:// or https://")
    user, at, host = parts.netloc.rpartition("@")
    headers = {
        "Accept": "application/yaml, application/json;q=0.9, */*;q=0.1",
        "Accept-Encoding": "gzip",
        "User-Agent": "otelweir",
    }
    if key:
        if not re.fullmatch(r"[\x20-\x7e]+", key):
            raise _Unusable("the key has characters that a header cannot carry")
        headers["Authorization"] = f"Bearer {key}"
    elif at:
        headers["Authorization"] = "Basic " + base64.b64encode(urllib.parse.unquote_to_bytes(user)).decode()
    if etag:
        headers["If-None-Match"] = etag
    path = urllib.parse.quote(parts.path, safe="/%:@!$&'()*+,;=~")
    query = urllib.parse.quote(parts.query, safe="/%:@!$&'()*+,;=~?")
    return urllib.parse.urlunsplit((parts.scheme, host, path, query, "")), headers


def _same_host(here: str, there: str) -> bool:
    """Whether the key may go along: the same host, and not from https to http."""
    a, b = urllib.parse.urlsplit(here), urllib.parse.urlsplit(there)
    if a.hostname != b.hostname or "@" in b.netloc:
        return False
    return (a.scheme, a.port) == (b.scheme, b.port) or (a.scheme, b.scheme, b.port) == ("http", "https", None)


def _answer(response: http.client.HTTPResponse, asked_with: str | None) -> Answer:
    match response.status:
        case 200:
            return _fetched(response)
        case 304 if asked_with:
            return Unchanged()
        case 401 | 403:
            why = f"it answers {response.status}: the key (WEIR_POLICY_KEY) is missing or not accepted"
        case status:
            why = f"it answers {status} {http.client.responses.get(status, '')}".rstrip()
    return Failed(why, _retry_after(response.headers.get("Retry-After")))


def _fetched(response: http.client.HTTPResponse) -> Answer:
    raw = response.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        return Failed(f"the answer is longer than {MAX_BYTES:,} bytes")
    if response.length:
        return Failed("the answer ended too early")
    etag = response.headers.get("ETag", "").strip()
    usable = etag if _ETAG.fullmatch(etag) else None
    match response.headers.get("Content-Encoding", "").strip().lower():
        case "" | "identity":
            return Fetched(raw, usable)
        case "gzip" | "x-gzip":
            return _unpacked(raw, usable)
        case coding:
            return Failed(f"the answer has the encoding {coding[:40]!r}, which was not asked for")


def _unpacked(raw: bytes, etag: str | None) -> Answer:
    stream = zlib.decompressobj(wbits=31)
    try:
        body = stream.decompress(raw, MAX_BYTES + 1)
    except zlib.error:
        return Failed("the answer is not the gzip it says it is")
    if len(body) > MAX_BYTES:
        return Failed(f"the answer is longer than {MAX_BYTES:,} bytes when unpacked")
    return Fetched(body, etag) if stream.eof else Failed("the answer ended too early")


def _retry_after(value: str | None) -> float | None:
    """Seconds from now; the header has a number or a date. A mistake there must not cost more than an hour."""
    if not value:
        return None
    try:
        seconds = float(value) if value.strip().isdecimal() else _until(value)
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, 0.0), _LONGEST_WAIT_S)


def _until(date: str) -> float:
    return email.utils.parsedate_to_datetime(date).timestamp() - time.time()


class _Unusable(ValueError):
    """Words that may be shown as they are."""


def _words(error: Exception, timeout_s: float) -> str:
    """What went wrong, without what the libraries quote: header values and URLs."""
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
        error = error.reason
    match error:
        case _Unusable():
            return str(error)
        case TimeoutError():
            return f"no complete answer within {timeout_s:g} s"
        case ssl.SSLCertVerificationError():
            return f"its certificate is not accepted: {error.verify_message}"
        case http.client.IncompleteRead():
            return "the answer ended too early"
        case OSError() if error.strerror:
            return error.strerror
    return f"the request failed ({type(error).__name__})"


def _opener(deadline: float) -> urllib.request.OpenerDirector:
    """An opener that follows no redirect, raises for no status, and lets no answer drip beyond the deadline."""

    class Response(http.client.HTTPResponse):
        def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
            super().__init__(sock, *args, **kwargs)
            self.fp = io.BufferedReader(_Until(self.fp.detach(), sock, deadline))

    class Plain(http.client.HTTPConnection):
        response_class = Response

    class Tls(http.client.HTTPSConnection):
        response_class = Response

    class PlainHandler(urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Plain, req)

    class TlsHandler(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Tls, req)

    opener = urllib.request.OpenerDirector()
    opener.addheaders = []
    for handler in (urllib.request.ProxyHandler(), PlainHandler(), TlsHandler()):
        opener.add_handler(handler)
    return opener


class _Until(io.RawIOBase):
    """Reads from a socket until a deadline. The socket's own timeout begins anew with every byte."""

    def __init__(self, raw: io.RawIOBase, sock: Any, deadline: float) -> None:
        self._raw = raw
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()
