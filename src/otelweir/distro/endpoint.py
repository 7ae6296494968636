"""Whether each signal's endpoint answers: where the exporters would send, one empty request, what the answer means.

The request is an empty but valid OTLP export (zero bytes of protobuf), so nothing is stored. `targets` and `judged` are
plain functions; `ask` is the only one that touches the network.
"""

from __future__ import annotations

import email.utils
import importlib
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from otelweir.distro.otel_variables import PROTOCOLS, SIGNALS, headers, is_url
from otelweir.pipeline.transmit.credentials import HeadersFile
from otelweir.variables import scrubbed, without_credentials

TIMEOUT_S: Final = 3.0
MOST_SKEW_S: Final = 5.0
"""Difference of clocks that is not worth a word; the `Date` header has whole seconds only."""

_HOST_AND_PORT: Final = re.compile(r"[\w.-]+:\d{1,5}|\[[\da-fA-F:]+\]:\d{1,5}")

Failure = Literal[
    "refused", "dns", "timeout", "tls", "plain", "foreign", "closed", "unreachable", "file", "provider", "other"
]

_SERVICES: Final = {
    "traces": "trace.v1.TraceService",
    "metrics": "metrics.v1.MetricsService",
    "logs": "logs.v1.LogsService",
}


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """Where one exporter of one signal sends.

    Attributes:
        url: As the exporter uses it; may hold credentials.
        certificate, client_certificate, client_key: Paths of files, as the variables give them.
        insecure: For gRPC: no TLS.
        provider: Name of a credential provider.
    """

    signal: str
    protocol: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    certificate: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None
    insecure: bool = False
    provider: str | None = None

    @property
    def shown(self) -> str:
        """The URL as it may be shown."""
        return without_credentials(self.url)

    def hushed(self, text: str) -> str:
        """A text without the values of the headers, and without the words in them."""
        words = {word for value in self.headers.values() for word in (value, *value.split())}
        # The longest first: a word may be part of another. One of a few letters is no secret.
        for word in sorted(words - {"Bearer", "Basic"}, key=len, reverse=True):
            if len(word) > 3:
                text = text.replace(word, "***")
        return text

    @property
    def fit(self) -> bool:
        """Whether an exporter could send there."""
        if self.protocol == "grpc":
            return bool(_HOST_AND_PORT.fullmatch(self.url)) or is_url(self.url)
        return self.protocol in PROTOCOLS and is_url(self.url)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        status: An HTTP status, or the name of a gRPC status; None when nothing came.
        failure: Why nothing came.
        detail: The particulars, in the words of the library.
        latency_s: From the request to the answer or the failure.
        skew_s: How far the server's clock is ahead of ours, when it told the time.
        location: Where a redirect leads.
        page: Whether what came is a web page.
    """

    status: int | str | None = None
    failure: Failure | None = None
    detail: str = ""
    latency_s: float = 0.0
    skew_s: float | None = None
    location: str | None = None
    page: bool = False


def targets(environ: Mapping[str, str]) -> Iterator[Target]:
    """Where the OTLP exporters would send, by the rules that the exporters themselves follow.

    Args:
        environ: The environment, the distribution's defaults included.
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return
    file = environ.get("WEIR_HEADERS_FILE", "").strip()
    from_file = HeadersFile(file)() if file else {}
    for signal in SIGNALS:

        def get(name: str, signal: str = signal) -> str:
            given = environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}") or environ.get(
                f"OTEL_EXPORTER_OTLP_{name}"
            )
            return (given or "").strip()

        for exporter in environ.get(f"OTEL_{signal.upper()}_EXPORTER", "").split(","):
            match exporter.strip():
                case "otlp":
                    protocol = get("PROTOCOL") or "http/protobuf"
                case "otlp_proto_http":
                    protocol = "http/protobuf"
                case "otlp_proto_grpc":
                    protocol = "grpc"
                case _:
                    continue
            own = environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT", "").strip()
            base = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
            if protocol == "grpc":
                url = own or base or "http://localhost:4317"
            else:
                url = own or f"{(base or 'http://localhost:4318').removesuffix('/')}/v1/{signal}"
            kind = "GRPC" if protocol == "grpc" else "HTTP"
            provider = f"OTEL_PYTHON_EXPORTER_OTLP_{kind}_CREDENTIAL_PROVIDER"
            own_provider = f"OTEL_PYTHON_EXPORTER_OTLP_{kind}_{signal.upper()}_CREDENTIAL_PROVIDER"
            yield Target(
                signal,
                protocol,
                url,
                {**headers(get("HEADERS")), **from_file},
                get("CERTIFICATE") or None,
                get("CLIENT_CERTIFICATE") or None,
                get("CLIENT_KEY") or None,
                _insecure(url, get("INSECURE")),
                environ.get(provider) or environ.get(own_provider) or None,
            )


def _insecure(url: str, given: str) -> bool:
    scheme = url.partition("://")[0].lower()
    return scheme != "https" and (given.lower() == "true" if given else scheme == "http")


def ask(targets: Sequence[Target], timeout_s: float = TIMEOUT_S) -> list[Answer]:
    """Send one empty request to each target, all at the same time.

    Never raises, and returns within little more than the timeout.
    """
    answers: dict[int, Answer] = {}

    def work(place: int, target: Target) -> None:
        started = time.perf_counter()
        try:
            answer = (_ask_grpc if target.protocol == "grpc" else _ask_http)(target, timeout_s)
        except Exception as error:  # noqa: BLE001 - the failure is the answer
            answer = _failed(error, time.perf_counter() - started)
        location = None if answer.location is None else target.hushed(answer.location)
        answers[place] = replace(answer, detail=target.hushed(answer.detail), location=location)

    # Imported beforehand, because the time that takes is not the endpoint's.
    for library in {"grpc" if target.protocol == "grpc" else "requests" for target in targets}:
        importlib.import_module(library)
    # Libraries bound each step; a name that does not resolve or an answer that drips in takes longer altogether. So
    # the wait is bounded here, and a thread that is still busy is left behind: a daemon holds up no exit.
    workers = [threading.Thread(target=work, args=both, daemon=True) for both in enumerate(targets)]
    for worker in workers:
        worker.start()
    until = time.monotonic() + timeout_s + 1
    for worker in workers:
        worker.join(max(0.0, until - time.monotonic()))
    return [answers.get(place, Answer(failure="timeout", latency_s=timeout_s)) for place in range(len(targets))]


def _ask_http(target: Target, timeout_s: float) -> Answer:
    import requests
    from opentelemetry.util._importlib_metadata import entry_points

    # The library and the session that the exporter uses: proxies, certificates and credentials count alike.
    session: requests.Session
    if target.provider:
        found = entry_points(group="opentelemetry_otlp_credential_provider", name=target.provider)
        session = next(iter(found)).load()()
    else:
        session = requests.Session()
    certificate: Any = target.client_certificate
    if certificate and target.client_key:
        certificate = (certificate, target.client_key)
    given = {"content-type": "application/x-protobuf", "user-agent": "weir-doctor", **target.headers}
    # Some servers refuse a body of zero bytes; one resource without anything in it is as empty.
    for body in (b"", b"\n\x00"):
        started = time.perf_counter()
        sent = time.time()
        with session.post(
            target.url,
            data=body,
            headers=given,
            timeout=timeout_s,
            verify=target.certificate or True,
            cert=certificate,
            allow_redirects=False,
            stream=True,
        ) as response:
            latency_s = time.perf_counter() - started
            answer = Answer(
                response.status_code,
                latency_s=latency_s,
                skew_s=_skew(response.headers.get("date"), sent + latency_s / 2),
                location=response.headers.get("location"),
                page=response.ok and _is_page(response),
            )
        if answer.status != 400:
            break
    return answer


def _is_page(response: Any) -> bool:
    """Whether a web server answers, with HTML, where OTLP has protobuf or JSON."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in ("application/x-protobuf", "application/protobuf", "application/json"):
        return False
    return kind in ("text/html", "application/xhtml+xml") or next(response.iter_content(16), b"").lstrip()[:1] == b"<"


def _skew(date: str | None, here_s: float) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(date).timestamp() - here_s if date else None
    except ValueError:
        return None


def _ask_grpc(target: Target, timeout_s: float) -> Answer:
    import grpc  # type: ignore[import-untyped]

    address = urlsplit(target.url).netloc or target.url
    if target.insecure:
        channel = grpc.insecure_channel(address)
    else:
        channel = grpc.secure_channel(
            address,
            grpc.ssl_channel_credentials(
                _bytes(target.certificate), _bytes(target.client_key), _bytes(target.client_certificate)
            ),
        )
    with channel:
        call = channel.unary_unary(
            f"/opentelemetry.proto.collector.{_SERVICES[target.signal]}/Export",
            request_serializer=None,
            response_deserializer=None,
        )
        started = time.perf_counter()
        try:
            call(b"", timeout=timeout_s, metadata=tuple(target.headers.items()))
        except grpc.RpcError as error:
            latency_s = time.perf_counter() - started
            return _grpc_failure(error.code().name, error.details() or "", latency_s)
        return Answer("OK", latency_s=time.perf_counter() - started)


def _grpc_failure(status: str, detail: str, latency_s: float) -> Answer:
    if status not in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
        return Answer(status, detail=detail, latency_s=latency_s)
    words = detail.lower()
    failure: Failure
    if status == "DEADLINE_EXCEEDED":
        failure = "timeout"
    elif "dns" in words or "name resolution" in words or "resolve" in words:
        failure = "dns"
    elif "refused" in words:
        failure = "refused"
    elif "http/2" in words or "http1" in words:
        failure = "foreign"
    elif "ssl" in words or "tls" in words or "certificate" in words or "handshake" in words:
        failure = "tls"
    else:
        failure = "closed" if "closed" in words or "reset" in words else "unreachable"
    return Answer(failure=failure, detail=detail, latency_s=latency_s)


def _bytes(path: str | None) -> bytes | None:
    if path is None:
        return None
    with open(path, "rb") as file:  # noqa: PTH123 - the path is the user's, as they wrote it
        return file.read()


def _failed(error: BaseException, latency_s: float) -> Answer:
    """What an exception of an HTTP library means; the cause lies deep in its chain."""
    import requests

    chain = list(_chain(error))
    names = " ".join(type(link).__name__ for link in chain)
    # Of an unknown exception only the kind: one from building the request repeats the header that is at fault.
    detail = type(error).__name__
    failure: Failure = "other"
    if any(isinstance(link, ConnectionRefusedError) for link in chain):
        failure = "refused"
    elif any(isinstance(link, socket.gaierror) for link in chain) or "NameResolutionError" in names:
        failure = "dns"
    elif any(isinstance(link, (requests.Timeout, TimeoutError)) for link in chain):
        failure = "timeout"
    elif "SSL" in names:
        failure = "plain" if re.search("WRONG_VERSION_NUMBER|RECORD_LAYER|HTTP_REQUEST", str(error)) else "tls"
        detail = str(chain[-1])
    elif "BadStatusLine" in names:
        failure = "foreign"
    elif any(isinstance(link, ConnectionError) for link in chain):
        failure = "closed"
    elif isinstance(error, StopIteration):
        failure, detail = "provider", "no installed package registers the credential provider"
    elif isinstance(error, OSError) and not isinstance(error, requests.RequestException):
        failure, detail = "file", str(error)
    elif isinstance(error, requests.ConnectionError):
        failure, detail = "unreachable", str(chain[-1])
    return Answer(failure=failure, detail=detail, latency_s=latency_s)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    waiting: list[Any] = [error]
    while waiting:
        link = waiting.pop(0)
        if not isinstance(link, BaseException) or link in seen:
            continue
        seen.append(link)
        yield link
        waiting += [link.__cause__, link.__context__, getattr(link, "reason", None), *link.args]


_CHECK_PORT: Final = "check the port and OTEL_EXPORTER_OTLP_PROTOCOL."
_NO_KEY: Final = "The key is missing or wrong: check OTEL_EXPORTER_OTLP_HEADERS (name, value, URL-encoding)."
_NO_RIGHT: Final = "The key may not write {signal}: check its rights, and OTEL_EXPORTER_OTLP_HEADERS."
_NO_PATH: Final = (
    "Nothing takes {signal} there: correct the path (OTEL_EXPORTER_OTLP_ENDPOINT is the base, without /v1/{signal};"
    " OTEL_EXPORTER_OTLP_{SIGNAL}_ENDPOINT the whole), enable {signal} in the collector, or set"
    " OTEL_{SIGNAL}_EXPORTER=none."
)
_NO_OTLP: Final = f"This is no OTLP endpoint, or it takes another protocol: {_CHECK_PORT}"
_TOO_MUCH: Final = "The backend limits what it takes: lower WEIR_LOG_BUDGET, or raise the limit there."
_BROKEN: Final = "The backend or a proxy before it fails: look at its log, and try again."
_MOVED: Final = "Exporters do not follow redirects: write the address it leads to (often https instead of http)."

_STATUSES: Final[Mapping[int | str, str]] = {
    401: _NO_KEY,
    "UNAUTHENTICATED": _NO_KEY,
    403: _NO_RIGHT,
    "PERMISSION_DENIED": _NO_RIGHT,
    404: _NO_PATH,
    "UNIMPLEMENTED": _NO_PATH,
    400: _NO_OTLP,
    405: _NO_OTLP,
    415: _NO_OTLP,
    429: _TOO_MUCH,
    "RESOURCE_EXHAUSTED": _TOO_MUCH,
}
"""What to do about a status."""

_FAILURES: Final[Mapping[Failure, tuple[str, str]]] = {
    "refused": (
        "refuses the connection",
        "Start the collector (or `weir dev`), or correct OTEL_EXPORTER_OTLP_ENDPOINT; in a container, localhost is the"
        " container itself.",
    ),
    "dns": (
        "has a name that does not resolve",
        "Correct the host in OTEL_EXPORTER_OTLP_ENDPOINT, or the name server of this machine.",
    ),
    "timeout": (
        "does not answer within {latency} s",
        "Something on the way swallows the request: check firewall, proxy and network policy.",
    ),
    "tls": (
        "cannot be trusted ({detail})",
        "Give the CA's certificate in OTEL_EXPORTER_OTLP_CERTIFICATE, or use the host name that the certificate has.",
    ),
    "plain": (
        "speaks no TLS",
        "Write http:// instead of https:// in the endpoint, or use the port that speaks TLS.",
    ),
    "foreign": (
        "does not speak {protocol}",
        f"It is no OTLP endpoint, or one for the other protocol: {_CHECK_PORT}",
    ),
    "closed": (
        "closes the connection without an answer",
        f"It speaks another protocol: choose http:// or https://, {_CHECK_PORT}",
    ),
    "unreachable": ("cannot be reached ({detail})", "Check the host, the port and the network."),
    "file": (
        "cannot be asked ({detail})",
        "Correct the path in OTEL_EXPORTER_OTLP_CERTIFICATE, _CLIENT_CERTIFICATE or _CLIENT_KEY.",
    ),
    "provider": (
        "cannot be asked ({detail})",
        "Correct OTEL_PYTHON_EXPORTER_OTLP_*_CREDENTIAL_PROVIDER, or install the package.",
    ),
    "other": ("cannot be asked ({detail})", "Check OTEL_EXPORTER_OTLP_ENDPOINT, headers and certificates."),
}
"""What is wrong when nothing came, and what to do."""


def meaning(target: Target, answer: Answer) -> tuple[str, str] | None:
    """What is wrong with an endpoint, and what to do; None when it takes telemetry."""
    status = answer.status
    if status in ("OK", 200, 202, 204):
        return (f"answers {status} with a web page, which is not OTLP", _NO_OTLP) if answer.page else None
    if answer.failure:
        what, remedy = _FAILURES[answer.failure]
        remedy += _port_hint(target)
    elif isinstance(status, int) and 300 <= status < 400:
        what, remedy = f"answers {status} and leads to {scrubbed(answer.location or 'nowhere')}", _MOVED
    else:
        what = f"answers {status}" + (" ({detail})" if answer.detail else "")
        other = _BROKEN if isinstance(status, int) and status >= 500 else "Look up what the backend means by it."
        remedy = _STATUSES.get(status or "", other)
    words = {
        "{signal}": target.signal,
        "{protocol}": target.protocol,
        "{SIGNAL}": target.signal.upper(),
        "{latency}": f"{answer.latency_s:.0f}",
        "{detail}": scrubbed(answer.detail),
    }
    # Not str.format: a detail may hold braces.
    for place, word in words.items():
        what, remedy = what.replace(place, word), remedy.replace(place, word)
    return what, remedy


def skewed(answer: Answer) -> tuple[str, str] | None:
    """What is wrong with the clocks, if anything."""
    if answer.skew_s is None or abs(answer.skew_s) <= MOST_SKEW_S:
        return None
    side = "behind" if answer.skew_s > 0 else "ahead of"
    return (
        f"This machine's clock is {abs(answer.skew_s):.0f} s {side} the backend's",
        "Synchronise the clocks (NTP), else telemetry is shown at the wrong time or refused as too old.",
    )


def _port_hint(target: Target) -> str:
    try:
        port = urlsplit(target.url).port
    except ValueError:
        return ""
    if target.protocol == "grpc" and port == 4318:
        return " Port 4318 usually speaks http/protobuf: set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, or use 4317."
    if target.protocol != "grpc" and port == 4317:
        return " Port 4317 usually speaks gRPC: set OTEL_EXPORTER_OTLP_PROTOCOL=grpc, or use port 4318."
    return ""
