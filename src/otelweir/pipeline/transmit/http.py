"""Requests over HTTP: one POST, one answer, one deadline over all of it.

`http.client` speaks the protocol; this file owns what lies below it, the sockets, because a deadline over the entire
exchange is kept where bytes are waited for: the look-up of the name, the connection, TLS, each byte sent and each byte
received get what is left of the same time. A server that drips costs no more than one that hangs.

What comes back is bounded in size too, before and after decompression. Nothing is logged here, and no header's value or
address's password appears in a `repr`, an outcome or an error.
"""

from __future__ import annotations

import io
import os
import select
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection, HTTPException, HTTPResponse, IncompleteRead
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

from otelweir.pipeline.transmit.compression import Compression, compressed, decompressed
from otelweir.pipeline.transmit.headers import FRAMES, check, hushed
from otelweir.pipeline.transmit.outcome import Outcome, Rejected, Unauthorised, of_failure, of_http
from otelweir.signals import Lane

TIMEOUT_S: Final = 10.0
MAX_ANSWER: Final = 64 * 2**10
"""Bytes of an answer that are read, and bytes that are decompressed from it."""

MAX_IDLE: Final = 4
IDLE_S: Final = 50.0
"""Load balancers close idle connections after a minute, as a rule."""

_CHUNK: Final = 64 * 2**10
_HUNG_UP: Final = (
    ConnectionResetError,
    ConnectionAbortedError,
    BrokenPipeError,
    ssl.SSLEOFError,
    ssl.SSLZeroReturnError,
)


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM form, read when a connection is made and again when they changed.

    Attributes:
        ca: Certificates to trust instead of the system's; `OTEL_EXPORTER_OTLP_CERTIFICATE`.
        client_certificate: To show to the server; `OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE`.
        client_key: Of that certificate, unless its file holds it; `OTEL_EXPORTER_OTLP_CLIENT_KEY`.
    """

    ca: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None


class HttpSender:
    """Sends the requests of one endpoint. Threads may use it at the same time, and it survives a fork.

    Args:
        url: The whole URL of a signal: `https://collector:4318/v1/logs`. A user and a password in it are sent as Basic
            authorization.
        headers: Asked before each request, so that keys may rotate. Whatever it raises counts as a missing key.
        timeout_s: For one request, from the look-up of the name to the last byte of the answer.
        compression: What to compress requests with. An endpoint that refuses a request for its compression (415) gets
            that one and all later ones as they are.
        tls: Certificates.
        environ: Where the proxies are named (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`, in lower case too;
            `NO_PROXY` may name networks, as `10.0.0.0/8`).

    Attributes:
        raw_bytes: Of the last request's body, before compression.
        wire_bytes: The same as it was sent.

    Raises:
        ValueError: The URL is none, or not one of HTTP. The text does not repeat it.
    """

    def __init__(
        self,
        url: str,
        headers: Callable[[], Mapping[str, str]] = dict,
        *,
        timeout_s: float = TIMEOUT_S,
        compression: Compression = "none",
        tls: Tls = Tls(),
        user_agent: str = "otelweir",
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._route = _Route.of(url, environ)
        self._headers = headers
        self._timeout_s = timeout_s
        self._compression: Compression = compression
        self._user_agent = user_agent
        self._clock = clock
        self._trust = _Trust(tls)
        # The ends of a deque need no lock, and a lock is what a fork breaks.
        self._idle: deque[_Connection] = deque(maxlen=MAX_IDLE)
        self.raw_bytes = self.wire_bytes = 0

    def __repr__(self) -> str:
        return f"<HttpSender {self._route}, {len(self._idle)} idle connections>"

    def send(self, body: bytes, lane: Lane, deadline: float | None = None, frames: str = "") -> Outcome:
        """Send one request, and read the answer.

        Never raises for what the world does. A status that came counts, even where the rest of the answer did not; with
        a status of success the server has the request.

        Args:
            body: A serialized `Export…ServiceRequest`.
            lane: The signal it holds.
            deadline: A time of the clock by which to be back, if that is sooner than the time-out.
            frames: What names the records in it; goes out as the header `weir-frames`.
        """
        until = self._clock() + self._timeout_s
        if deadline is not None:
            until = min(until, deadline)
        try:
            given = dict(self._headers())
            check(given)
        except Exception as error:  # noqa: BLE001 - a credential provider is anybody's code
            return Unauthorised(f"the headers cannot be sent: {type(error).__name__}")
        headers = {"User-Agent": self._user_agent, **self._route.headers}
        _update(headers, given)
        while True:
            sent, encoding = compressed(body, self._compression)
            self.raw_bytes, self.wire_bytes = len(body), len(sent)
            # Ours to say, whatever was given: the body is what it is.
            ours = {"Content-Type": "application/x-protobuf", "Content-Encoding": encoding or "", FRAMES: frames}
            _update(headers, ours)
            status, outcome = self._exchange(sent, headers, lane, until)
            if encoding is None or not _refuses_encoding(status, outcome):
                return hushed(outcome, [*given.values(), self._route.headers.get("Authorization", "")])
            # From now on as it is: this endpoint cannot decompress.
            self._compression = "none"

    def close(self) -> None:
        """Close idle connections. The sender can be used on, and opens new ones."""
        while True:
            try:
                self._idle.pop().close()
            except IndexError:
                return

    def _exchange(self, body: bytes, headers: Mapping[str, str], lane: Lane, until: float) -> tuple[int, Outcome]:
        while True:
            connection = self._pooled()
            reused = connection is not None
            wire: _Wire | None = None
            try:
                if connection is None:
                    connection = _Connection(self._route, self._clock)
                    wire = connection.open(until, self._trust)
                else:
                    wire = connection.take(until)
                status, answered, content = connection.post(self._route.target, body, headers)
            except (OSError, HTTPException, ValueError) as error:
                if connection is not None:
                    connection.close()
                # The server had closed while nothing was going on, which shows only now: a fresh connection, at once.
                if reused and isinstance(error, _HUNG_UP) and wire is not None and not wire.received:
                    self.close()
                    continue
                return 0, of_failure(error)
            if connection.reusable:
                self._keep(connection)
            else:
                connection.close()
            return status, of_http(status, answered, content, lane, time.time())

    def _pooled(self) -> _Connection | None:
        while True:
            try:
                # The one used last: the others may grow old and go.
                connection = self._idle.pop()
            except IndexError:
                return None
            if connection.alive(self._clock()):
                return connection
            connection.close()

    def _keep(self, connection: _Connection) -> None:
        connection.rest(self._clock())
        if len(self._idle) < MAX_IDLE:
            self._idle.append(connection)
        else:
            connection.close()


@dataclass(frozen=True, slots=True)
class _Route:
    """Where requests go, and which way.

    Attributes:
        host, port: Of the endpoint.
        target: What stands in the request line.
        secure: Whether the endpoint speaks TLS.
        headers: What every request gets: the host, a user and password.
        proxy: Where to connect instead, if anywhere.
        tunnel: Whether the proxy is asked for a tunnel.
        proxy_headers: For the request for the tunnel.
    """

    host: str
    port: int
    target: str = field(repr=False)
    secure: bool
    headers: Mapping[str, str] = field(repr=False)
    proxy: tuple[str, int, bool] | None = None
    tunnel: bool = False
    proxy_headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, url: str, environ: Mapping[str, str]) -> _Route:
        try:
            parts = urlsplit(url.strip())
            scheme, host, port = parts.scheme.lower(), parts.hostname, parts.port
        except ValueError:
            scheme, host, port = "", None, None
        if scheme not in ("http", "https") or not host or not parts.netloc.isascii():
            # Without the cause, whose text may hold a part of the URL.
            raise ValueError("the endpoint is no URL of http:// or https:// with a host") from None
        secure = scheme == "https"
        default = 443 if secure else 80
        shown = f"[{host}]" if ":" in host else host
        place = shown if port in (None, default) else f"{shown}:{port}"
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not path.isascii() or not path.isprintable() or " " in path:
            raise ValueError("the path of the endpoint has characters that must be escaped")
        headers = {"Host": place, **_basic("Authorization", parts)}
        route = cls(host, port or default, path, secure, headers)
        proxy = _proxy(scheme, host, port or default, environ)
        if proxy is None or not proxy.hostname:
            return route
        through = proxy.scheme == "https"
        address = (proxy.hostname, proxy.port or (443 if through else 80), through)
        if through and secure:
            raise ValueError("an https:// proxy before an https:// endpoint is not supported; name it as http://")
        key = _basic("Proxy-Authorization", proxy)
        if secure:
            return replace(route, proxy=address, tunnel=True, proxy_headers=key)
        return replace(route, proxy=address, target=f"http://{place}{path}", headers={**headers, **key})

    def __str__(self) -> str:
        scheme = "https" if self.secure else "http"
        by = f" by {self.proxy[0]}:{self.proxy[1]}" if self.proxy else ""
        return f"{scheme}://{self.host}:{self.port}{by}"


def _proxy(scheme: str, host: str, port: int, environ: Mapping[str, str]) -> SplitResult | None:
    found = {name.lower(): value for name, value in environ.items() if name.lower().endswith("_proxy") and value}
    # In lower case it wins, as everywhere.
    found.update({name: value for name, value in environ.items() if name.endswith("_proxy")})
    if "REQUEST_METHOD" in environ and "http_proxy" not in environ:
        # A CGI program gets HTTP_PROXY from a header that anybody may send.
        found.pop("http_proxy", None)
    proxy = found.get(f"{scheme}_proxy") or found.get("all_proxy")
    if not proxy:
        return None
    # Imported where there is a proxy, because it takes its time.
    from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    exempt = found.get("no_proxy", "")
    if proxy_bypass_environment(place, {"no": exempt}) or ("/" in exempt and _in_network(host, exempt)):
        return None
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(f"the proxy for {scheme}:// in the environment is no URL of an HTTP proxy") from None
    return parts


def _in_network(host: str, networks: str) -> bool:
    """Whether a host is an address of a network that is named as `10.0.0.0/8`; among other names, which are skipped."""
    from ipaddress import ip_address, ip_network

    try:
        address = ip_address(host)
    except ValueError:
        return False
    for name in networks.split(","):
        with suppress(ValueError):
            if "/" in name and address in ip_network(name.strip(), strict=False):
                return True
    return False


def _basic(header: str, parts: SplitResult) -> dict[str, str]:
    if not parts.username and not parts.password:
        return {}
    key = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    return {header: f"Basic {b64encode(key.encode()).decode()}"}


class _Trust:
    """The TLS context, made when it is first needed and again when a file of it changed."""

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._made: tuple[object, ssl.SSLContext] | None = None

    def context(self) -> ssl.SSLContext:
        """Raises OSError when a file cannot be read, ssl.SSLError when it holds no certificate."""
        files = (self._tls.ca, self._tls.client_certificate, self._tls.client_key)
        now = tuple(os.stat(name).st_mtime_ns if name else None for name in files)  # noqa: PTH116 - as given
        made = self._made
        if made is None or made[0] != now:
            context = ssl.create_default_context(cafile=self._tls.ca)
            if self._tls.client_certificate:
                # Without a password: OpenSSL would ask for one on the terminal, and wait.
                context.load_cert_chain(self._tls.client_certificate, self._tls.client_key, password=_no_password)
            self._made = made = (now, context)
        return made[1]


def _no_password() -> str:
    return ""


class _Connection(HTTPConnection):
    """One connection, on a socket that keeps to deadlines."""

    auto_open = 0  # opening needs a deadline

    def __init__(self, route: _Route, clock: Callable[[], float]) -> None:
        super().__init__(route.host, route.port)
        self._route = route
        self._clock = clock
        self._pid = os.getpid()
        self._since = 0.0
        self._wire: _Wire | None = None
        self.reusable = False

    def open(self, until: float, trust: _Trust) -> _Wire:
        """Connect, by the proxy if there is one."""
        route = self._route
        # Certificates first: a file that is missing is said, whether or not the server is there.
        context = trust.context() if route.secure or (route.proxy and route.proxy[2]) else None
        host, port, _ = route.proxy or (route.host, route.port, False)

        def left() -> float:
            return _left(until, self._clock)

        plain = _connected(host, port, left)
        try:
            if context is not None and route.tunnel:
                self._ask_for_tunnel(plain, until)
            if context is not None:
                plain.settimeout(left())
                name = route.host if route.secure else host
                plain = context.wrap_socket(plain, server_hostname=name)
        except BaseException:
            plain.close()
            raise
        self._wire = self.sock = _Wire(plain, self._clock)
        self._wire.until = until
        return self._wire

    def _ask_for_tunnel(self, plain: socket.socket, until: float) -> None:
        route = self._route
        host = f"[{route.host}]" if ":" in route.host else route.host
        lines = [f"CONNECT {host}:{route.port} HTTP/1.1", f"Host: {host}:{route.port}"]
        lines += [f"{name}: {value}" for name, value in route.proxy_headers.items()]
        wire = _Wire(plain, self._clock)
        wire.until = until
        with suppress(_AnsweredEarly):
            wire.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        with HTTPResponse(wire, method="CONNECT") as answer:  # type: ignore[arg-type]
            answer.begin()
            if answer.status != 200:
                raise ConnectionError(None, f"the proxy answers HTTP {answer.status} to the request for a tunnel")

    def take(self, until: float) -> _Wire:
        """Begin another exchange on an open connection."""
        assert self._wire is not None
        self._wire.until = until
        self._wire.received = 0
        self._wire.cut = self._wire.lenient = False
        return self._wire

    def post(self, target: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, dict[str, str], bytes]:
        """Send a request; the status, the headers and the content of the answer."""
        wire = self._wire
        assert wire is not None
        self.reusable = False
        self.putrequest("POST", target, skip_host=True)
        for name, value in headers.items():
            self.putheader(name, value)
        self.putheader("Content-Length", str(len(body)))
        early = False
        try:
            self.endheaders(body)
        except (_AnsweredEarly, *_HUNG_UP):
            # A server that refuses a request may say so, and close, before it has read all of it. What it said is in
            # the socket still; where it said nothing, reading fails as sending did.
            early = True
        answer = self.getresponse()
        wire.lenient = True
        raw, whole = _content(answer)
        self.reusable = whole and not early and not wire.cut and not answer.will_close
        fields = {name.lower(): value for name, value in answer.getheaders()}
        content = decompressed(raw, fields.get("content-encoding", ""), MAX_ANSWER)
        answer.close()
        return answer.status, fields, content

    def rest(self, now: float) -> None:
        self._since = now

    def alive(self, now: float) -> bool:
        """Whether an idle connection can be used: ours, not too old, and the server has neither closed it nor said
        anything that nobody asked for."""
        if self._wire is None or self._pid != os.getpid() or now - self._since > IDLE_S:
            return False
        return not self._wire.ready(read=True, write=False, wait_s=0)[0]

    def close(self) -> None:
        super().close()
        self._wire = None


def _content(answer: HTTPResponse) -> tuple[bytes, bool]:
    """The content as far as it came and is wanted, and whether that is all of it."""
    pieces, size = [], 0
    try:
        while size < MAX_ANSWER:
            piece = answer.read(MAX_ANSWER - size)
            if not piece:
                break
            pieces.append(piece)
            size += len(piece)
    except IncompleteRead as error:
        pieces.append(error.partial)
    except (OSError, HTTPException, ValueError):
        pass
    else:
        return b"".join(pieces), answer.isclosed()
    return b"".join(pieces)[:MAX_ANSWER], False


class _AnsweredEarly(Exception):  # not an OSError: nothing is wrong
    """The server answers, or has closed, before it has the whole request."""


class _Wire:
    """A socket of which every step is cut off at one moment. It has what `http.client` uses of a socket.

    Attributes:
        until: That moment, by the clock.
        received: Bytes received in this exchange.
        lenient: The status is known, so the end of the time and a lost connection count as the end of the answer.
        cut: That happened.
    """

    def __init__(self, sock: socket.socket, clock: Callable[[], float]) -> None:
        self._sock = sock
        self._clock = clock
        self.until = 0.0
        self.received = 0
        self.lenient = False
        self.cut = False

    def left(self) -> float:
        return _left(self.until, self._clock)

    def sendall(self, data: Any) -> None:
        view = memoryview(data).cast("B")
        # Over TLS, what can be read may belong to TLS itself; there the answer is found when sending fails.
        listens = not isinstance(self._sock, ssl.SSLSocket)
        while view:
            if listens and self.ready(read=True, write=True, wait_s=self.left())[0]:
                raise _AnsweredEarly
            self._sock.settimeout(self.left())
            view = view[self._sock.send(view[:_CHUNK]) :]

    def ready(self, *, read: bool, write: bool, wait_s: float) -> tuple[bool, bool]:
        """Whether there is something to read, or an end; and whether there is room to write."""
        if not hasattr(select, "poll"):
            reads, writes, _ = select.select([self._sock] * read, [self._sock] * write, [], wait_s)
            return bool(reads), bool(writes)
        # Where there is poll: select knows no descriptor above 1023.
        poll = select.poll()
        poll.register(self._sock, select.POLLIN * read | select.POLLOUT * write)
        events = sum(event for _, event in poll.poll(wait_s * 1000))
        return bool(events & ~select.POLLOUT), bool(events & select.POLLOUT)

    def receive_into(self, buffer: Any, file: io.RawIOBase) -> int | None:
        try:
            self._sock.settimeout(self.left())
            count: int | None = file.readinto(buffer)
        except OSError:
            if not self.lenient:
                raise
            self.cut = True
            return 0
        self.received += count or 0
        return count

    def makefile(self, mode: str) -> io.BufferedReader:
        assert mode == "rb"
        # Unbuffered, it counts as a user of the socket, which so stays open until both are closed.
        return io.BufferedReader(_Reader(self, self._sock.makefile("rb", buffering=0)))

    def close(self) -> None:
        with suppress(OSError):
            self._sock.close()


class _Reader(io.RawIOBase):
    def __init__(self, wire: _Wire, file: io.RawIOBase) -> None:
        self._wire = wire
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        return self._wire.receive_into(buffer, self._file)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _left(until: float, clock: Callable[[], float]) -> float:
    """Seconds that are left; raises TimeoutError where none are."""
    left_s = until - clock()
    if left_s <= 0:
        raise TimeoutError
    return left_s


def _connected(host: str, port: int, left: Callable[[], float]) -> socket.socket:
    """A connection to the first address of a host that accepts one."""
    addresses = _addresses(host, port, left)
    failure: OSError = OSError(None, "the host has no address")
    for place, (family, kind, protocol, _, address) in enumerate(addresses):
        sock = socket.socket(family, kind, protocol)
        try:
            # Each address gets its part of the time: the first may be one that no packet reaches.
            sock.settimeout(left() / (len(addresses) - place))
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
    raise failure


def _addresses(host: str, port: int, left: Callable[[], float]) -> list[tuple[Any, ...]]:
    """What the name stands for. The system's look-up knows no deadline, so a thread is left behind with a slow one."""
    found: list[list[tuple[Any, ...]]] = []
    failed: list[BaseException] = []

    def look_up() -> None:
        try:
            found.append([*socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)])
        except (OSError, UnicodeError) as error:
            failed.append(error)

    if host.replace(".", "").isdigit() or ":" in host:
        look_up()  # an address already
    else:
        thread = threading.Thread(target=look_up, name="weir-look-up", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # The interpreter is ending and starts no threads.
            look_up()
        else:
            thread.join(left())
    if failed:
        raise failed[0]
    if not found:
        raise TimeoutError
    return found[0]


def _refuses_encoding(status: int, outcome: Outcome) -> bool:
    """Whether a compressed request was refused for that: 415, or 400 with a word on it, as the collector says it."""
    if not isinstance(outcome, Rejected):
        return False
    return status == 415 or (status == 400 and "content-encoding" in outcome.why.lower())


def _update(headers: dict[str, str], more: Mapping[str, str]) -> None:
    """Set headers whatever the case of their names; an empty value takes one away."""
    for name, value in more.items():
        for old in [old for old in headers if old.lower() == name.lower()]:
            del headers[old]
        if value:
            headers[name] = value
