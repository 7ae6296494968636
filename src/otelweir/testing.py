"""Doubles for tests: an OTLP backend that listens on a real socket, logs in memory, and a clock that one moves.

    from otelweir.testing import Backend

    def test_an_order_is_logged():
        with Backend() as backend:
            run_my_service(OTEL_EXPORTER_OTLP_ENDPOINT=backend.endpoint)
            backend.wait_for(lambda: backend.logs)
            assert backend.logs[0].body == "order placed"

What was answered with success counts as received; what was refused with a scripted answer appears in `requests` only.
"""

from __future__ import annotations

import gzip
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue as AnyValueMessage
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

if TYPE_CHECKING:
    from otelweir.pipeline.capture.otel import LogSampler

__all__ = [
    "Answer",
    "Backend",
    "Clock",
    "GrpcBackend",
    "MemoryLogs",
    "Point",
    "ReceivedLog",
    "ReceivedMetric",
    "ReceivedRequest",
    "ReceivedSpan",
]

T = TypeVar("T")

_MAX_BODY: Final = 64 * 2**20
_GRPC_PATHS: Final = {
    "/opentelemetry.proto.collector.logs.v1.LogsService/Export": "/v1/logs",
    "/opentelemetry.proto.collector.trace.v1.TraceService/Export": "/v1/traces",
    "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export": "/v1/metrics",
}
_GRPC_CODES: Final = {
    400: ("INVALID_ARGUMENT", ""),
    401: ("UNAUTHENTICATED", ""),
    403: ("PERMISSION_DENIED", ""),
    404: ("UNIMPLEMENTED", ""),
    413: ("RESOURCE_EXHAUSTED", "SERVER: Received message larger than max"),
    429: ("RESOURCE_EXHAUSTED", "slow down"),
    500: ("INTERNAL", ""),
    502: ("UNAVAILABLE", ""),
    503: ("UNAVAILABLE", ""),
    504: ("DEADLINE_EXCEEDED", ""),
}
"""What means the same as an HTTP status, and the message where the answer has none."""

_KINDS: Final = ("unspecified", "internal", "server", "client", "producer", "consumer")
_STATUSES: Final = ("unset", "ok", "error")


@dataclass(frozen=True, slots=True)
class ReceivedLog:
    """One log record. `trace_id` and `span_id` are lower-case hexadecimal, empty when there is none."""

    body: Any
    attributes: dict[str, Any]
    severity_number: int
    severity_text: str
    event_name: str
    trace_id: str
    span_id: str
    scope: str
    resource: dict[str, Any]
    time_unix_nano: int
    observed_time_unix_nano: int


@dataclass(frozen=True, slots=True)
class ReceivedSpan:
    """One span. `kind` and `status_code` are OpenTelemetry's words in lower case: `server`, `error`."""

    name: str
    attributes: dict[str, Any]
    trace_id: str
    span_id: str
    parent_span_id: str
    kind: str
    status_code: str
    status_message: str
    events: list[tuple[str, dict[str, Any]]]
    scope: str
    resource: dict[str, Any]
    start_time_unix_nano: int
    end_time_unix_nano: int
    trace_state: str


class Point(NamedTuple):
    """One data point of a metric; of a histogram, `value` is the sum."""

    attributes: dict[str, Any]
    value: float


@dataclass(frozen=True, slots=True)
class ReceivedMetric:
    """One metric of one export.

    Attributes:
        kind: `sum`, `gauge`, `histogram`, `exponential_histogram` or `summary`.
        points: The data points.
        counts: For histograms and summaries, the number of measurements of each point.
    """

    name: str
    unit: str
    kind: str
    points: list[Point]
    scope: str
    resource: dict[str, Any]
    counts: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """One HTTP request as it came, whatever was answered. Names of headers are in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What the backend answers to one request.

    Attributes:
        status: The HTTP status; only with 2xx does the content count as received.
        headers: Further response headers, such as `Retry-After`.
        body: The response body; empty is OTLP's "everything accepted".
        delay_s: How long to wait before answering.
        hang_up: Whether to close the connection instead of answering.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay_s: float = 0.0
    hang_up: bool = False


class Backend:
    """An OTLP/HTTP backend (protobuf, gzip or plain; logs, traces and metrics) on a loopback port.

    Use it as a context manager, or call `start` and `stop`; started again, it listens on the same port, so that
    `stop` and `start` make an outage.

    Args:
        port: The port to listen on; 0 takes a free one.
        certificate: A PEM file with a certificate and its key, to speak TLS.
        client_ca: A PEM file with the certificates by which clients have to be vouched for.

    Attributes:
        answers: Scripted answers, used up one per request. Assign or append at any time.
        default_answer: The answer when `answers` is empty.
        max_body: Larger bodies, unpacked, are answered with 413; None takes all.
    """

    def __init__(self, port: int = 0, *, certificate: str | None = None, client_ca: str | None = None) -> None:
        self.answers: list[Answer] = []
        self.default_answer = Answer()
        self.max_body: int | None = None
        self._port = port
        self._certificate = certificate
        self._client_ca = client_ca
        self._changed = threading.Condition()
        self._changes = 0
        self._logs: list[ReceivedLog] = []
        self._spans: list[ReceivedSpan] = []
        self._metrics: list[ReceivedMetric] = []
        self._requests: list[ReceivedRequest] = []
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen."""
        if self._server is None:
            self._server = _Server(self, self._port)
            self._port = self._server.server_address[1]
            if self._certificate is not None:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(self._certificate)
                if self._client_ca is not None:
                    context.load_verify_locations(self._client_ca)
                    context.verify_mode = ssl.CERT_REQUIRED
                # Shaking hands is left to the thread of each connection.
                self._server.socket = context.wrap_socket(
                    self._server.socket, server_side=True, do_handshake_on_connect=False
                )
            self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop listening and cut open connections. What was received stays."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server.cut_connections()
            self._server = self._thread = None

    def __enter__(self) -> Backend:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.endpoint} {len(self._requests)} requests, {len(self._logs)} logs, "
            f"{len(self._spans)} spans, {len(self._metrics)} metrics>"
        )

    @property
    def port(self) -> int:
        """The port; 0 before the first `start` unless one was given."""
        return self._port

    @property
    def endpoint(self) -> str:
        """The value for `OTEL_EXPORTER_OTLP_ENDPOINT`."""
        return f"http{'s' if self._certificate else ''}://127.0.0.1:{self._port}"

    @property
    def logs(self) -> list[ReceivedLog]:
        """The log records received so far, in order of arrival."""
        with self._changed:
            return list(self._logs)

    @property
    def spans(self) -> list[ReceivedSpan]:
        """The spans received so far, in order of arrival."""
        with self._changed:
            return list(self._spans)

    @property
    def metrics(self) -> list[ReceivedMetric]:
        """The metrics received so far, in order of arrival; each export brings its own."""
        with self._changed:
            return list(self._metrics)

    @property
    def requests(self) -> list[ReceivedRequest]:
        """The raw requests received so far, refused ones included."""
        with self._changed:
            return list(self._requests)

    def clear(self) -> None:
        """Forget what was received."""
        with self._changed:
            for received in (self._logs, self._spans, self._metrics, self._requests):
                received.clear()

    def wait_for(self, predicate: Callable[[], T], timeout_s: float = 10.0) -> T:
        """Wait until the predicate gives something true, and return that.

        The predicate is asked again after each request that arrives, and now and then in between.

        Raises:
            AssertionError: It did not become true in time; the message says what had arrived.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            changes = self._changes
            # Asked without the lock: a predicate may well talk to the service that sends to us.
            if found := predicate():
                return found
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                names = sorted({span.name for span in self.spans})
                bodies = [log.body for log in self.logs[-20:]]
                raise AssertionError(
                    f"not true within {timeout_s:g} s: {self!r}; spans named {names}; last log bodies {bodies}"
                )
            with self._changed:
                if changes == self._changes:
                    self._changed.wait(min(left_s, 0.2))

    def _receive(self, request: ReceivedRequest, encoding: str) -> Answer:
        """Keep the request and, when it is to be accepted, its content."""
        with self._changed:
            self._requests.append(request)
            self._changes += 1
            answer = self.answers.pop(0) if self.answers else self.default_answer
            self._changed.notify_all()
            if not 200 <= answer.status < 300 or answer.hang_up:
                return answer
        try:
            body = _unpacked(request.body, encoding)
            if self.max_body is not None and len(body) > self.max_body:
                return Answer(413, body=f"{len(body)} bytes are more than {self.max_body}".encode())
            match request.path:
                case "/v1/logs":
                    self._keep(self._logs, _logs(ExportLogsServiceRequest.FromString(body)))
                case "/v1/traces":
                    self._keep(self._spans, _spans(ExportTraceServiceRequest.FromString(body)))
                case "/v1/metrics":
                    self._keep(self._metrics, _metrics(ExportMetricsServiceRequest.FromString(body)))
                case _:
                    return Answer(404, body=b"no such path: use /v1/logs, /v1/traces or /v1/metrics")
        except (DecodeError, OSError, EOFError, zlib.error, ValueError) as error:
            return Answer(400, body=f"the body is not OTLP protobuf: {error}".encode())
        return answer

    def _keep(self, received: list[T], new: Iterable[T]) -> None:
        found = list(new)
        with self._changed:
            received.extend(found)
            self._changes += 1
            self._changed.notify_all()


class GrpcBackend(Backend):
    """An OTLP/gRPC backend with the face of `Backend`; needs grpcio.

    Scripted answers have HTTP statuses here, too, so that the same script serves both: each is answered as the code of
    gRPC that means the same, with the body as its message and `Retry-After` as a `RetryInfo`. Other headers come back
    as trailers. A request's `path` is that of HTTP, and its body is already decompressed.
    """

    def __init__(self, port: int = 0, *, certificate: str | None = None, client_ca: str | None = None) -> None:
        super().__init__(port, certificate=certificate, client_ca=client_ca)
        self._rpc: Any = None

    def start(self) -> None:
        if self._rpc is not None:
            return
        from concurrent.futures import ThreadPoolExecutor

        import grpc  # type: ignore[import-untyped]

        class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
            def service(_, details: Any) -> Any:  # noqa: N805 - self is the backend's
                path = _GRPC_PATHS.get(details.method)
                if path is None:
                    return None
                return grpc.unary_unary_rpc_method_handler(lambda body, call: self._answer(path, body, call))

        server = grpc.server(
            ThreadPoolExecutor(16), [Handler()], options=[("grpc.max_receive_message_length", _MAX_BODY)]
        )
        if self._certificate is None:
            self._port = server.add_insecure_port(f"127.0.0.1:{self._port}")
        else:
            pem = Path(self._certificate).read_bytes()
            ca = Path(self._client_ca).read_bytes() if self._client_ca else None
            trust = grpc.ssl_server_credentials([(pem, pem)], ca, ca is not None)
            self._port = server.add_secure_port(f"127.0.0.1:{self._port}", trust)
        server.start()
        self._rpc = server

    def stop(self) -> None:
        if self._rpc is not None:
            self._rpc.stop(None).wait()
            self._rpc = None

    def _answer(self, path: str, body: bytes, call: Any) -> bytes:
        import grpc

        headers = {str(name): str(value) for name, value in call.invocation_metadata()}
        answer = self._receive(ReceivedRequest(path, headers, body), "identity")
        if answer.delay_s:
            time.sleep(answer.delay_s)
        trailers: list[tuple[str, str | bytes]] = [
            (name.lower(), value) for name, value in answer.headers.items() if name.lower() != "retry-after"
        ]
        if 200 <= answer.status < 300 and not answer.hang_up:
            call.set_trailing_metadata(trailers)
            return answer.body
        code, words = ("UNAVAILABLE", "hung up") if answer.hang_up else _GRPC_CODES.get(answer.status, ("UNKNOWN", ""))
        after_s = {name.lower(): value for name, value in answer.headers.items()}.get("retry-after", "")
        if after_s.isdigit():
            from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
            from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

            status = Status(code=grpc.StatusCode[code].value[0])
            status.details.add().Pack(RetryInfo(retry_delay={"seconds": int(after_s)}))
            trailers.append(("grpc-status-details-bin", status.SerializeToString()))
        call.set_trailing_metadata(trailers)
        call.abort(grpc.StatusCode[code], answer.body.decode("utf-8", "replace") or words)
        raise AssertionError("abort raises")


class MemoryLogs:
    """Logs that stay in memory: a capture without network, for what hands in records one by one.

    Args:
        sampler: Decides which records are kept; None keeps all.

    Attributes:
        capture: What to hand the records to.
    """

    def __init__(self, sampler: LogSampler | None = None) -> None:
        from opentelemetry.sdk._logs import LoggerProvider
        from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor

        from otelweir.pipeline.capture.otel import LogCapture

        self._exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
        provider = LoggerProvider(shutdown_on_exit=False)
        provider.add_log_record_processor(SimpleLogRecordProcessor(self._exporter))
        self.capture = LogCapture(provider, sampler)

    @property
    def logs(self) -> list[ReceivedLog]:
        """The log records so far."""
        from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs

        return sorted(_logs(encode_logs(self._exporter.get_finished_logs())), key=lambda log: log.time_unix_nano)

    def __repr__(self) -> str:
        return f"<MemoryLogs {len(self._exporter.get_finished_logs())} records>"


class Clock:
    """A clock that moves only when told to; called, it gives the time in seconds.

    >>> clock = Clock(100.0)
    >>> clock.advance(2.5)
    >>> clock()
    102.5
    """

    def __init__(self, start_s: float = 0.0) -> None:
        self._now_s = start_s

    def __call__(self) -> float:
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self._now_s += seconds

    def __repr__(self) -> str:
        return f"<Clock {self._now_s:g} s>"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # the standard 5 turns away a burst of connections
    block_on_close = False

    def __init__(self, backend: Backend, port: int) -> None:
        self.backend = backend
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no news."""

    def cut_connections(self) -> None:
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # already gone


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body leave in one packet; otherwise each answer waits for the delayed acknowledgement.
    wbufsize = -1
    disable_nagle_algorithm = True
    server: _Server

    def do_POST(self) -> None:
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            length = -1
        if not 0 <= length <= _MAX_BODY:
            self.close_connection = True
            self._send(Answer(411 if length < 0 else 413))
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = ReceivedRequest(self.path.partition("?")[0], headers, self.rfile.read(length))
        answer = self.server.backend._receive(request, headers.get("content-encoding", "identity"))
        if answer.delay_s:
            time.sleep(answer.delay_s)
        if answer.hang_up:
            self.close_connection = True
        else:
            self._send(answer)

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in {"Content-Type": "application/x-protobuf", **answer.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that http.server gives
        """Say nothing."""


def _unpacked(body: bytes, encoding: str) -> bytes:
    match encoding.strip().lower():
        case "gzip":
            return gzip.decompress(body)
        case "deflate":
            return zlib.decompress(body)
        case "identity" | "":
            return body
    raise ValueError(f"unknown content encoding {encoding!r}")


def _value(message: AnyValueMessage) -> Any:
    match message.WhichOneof("value"):
        case None:
            return None
        case "array_value":
            return [_value(item) for item in message.array_value.values]
        case "kvlist_value":
            return _dict(message.kvlist_value.values)
        case name:
            return getattr(message, name)


def _dict(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _logs(request: ExportLogsServiceRequest) -> Iterable[ReceivedLog]:
    for resource_logs in request.resource_logs:
        resource = _dict(resource_logs.resource.attributes)
        for scope_logs in resource_logs.scope_logs:
            for record in scope_logs.log_records:
                yield ReceivedLog(
                    body=_value(record.body),
                    attributes=_dict(record.attributes),
                    severity_number=record.severity_number,
                    severity_text=record.severity_text,
                    event_name=record.event_name,
                    trace_id=record.trace_id.hex(),
                    span_id=record.span_id.hex(),
                    scope=scope_logs.scope.name,
                    resource=resource,
                    time_unix_nano=record.time_unix_nano,
                    observed_time_unix_nano=record.observed_time_unix_nano,
                )


def _spans(request: ExportTraceServiceRequest) -> Iterable[ReceivedSpan]:
    for resource_spans in request.resource_spans:
        resource = _dict(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield _span(span, scope_spans.scope.name, resource)


def _span(span: Span, scope: str, resource: dict[str, Any]) -> ReceivedSpan:
    return ReceivedSpan(
        name=span.name,
        attributes=_dict(span.attributes),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_span_id=span.parent_span_id.hex(),
        kind=_KINDS[span.kind],
        status_code=_STATUSES[span.status.code],
        status_message=span.status.message,
        events=[(event.name, _dict(event.attributes)) for event in span.events],
        scope=scope,
        resource=resource,
        start_time_unix_nano=span.start_time_unix_nano,
        end_time_unix_nano=span.end_time_unix_nano,
        trace_state=span.trace_state,
    )


def _metrics(request: ExportMetricsServiceRequest) -> Iterable[ReceivedMetric]:
    for resource_metrics in request.resource_metrics:
        resource = _dict(resource_metrics.resource.attributes)
        for scope_metrics in resource_metrics.scope_metrics:
            for metric in scope_metrics.metrics:
                yield _metric(metric, scope_metrics.scope.name, resource)


def _metric(metric: Metric, scope: str, resource: dict[str, Any]) -> ReceivedMetric:
    kind = metric.WhichOneof("data") or "gauge"
    points: list[Point] = []
    counts: list[int] = []
    for point in getattr(metric, kind).data_points:
        if kind in ("sum", "gauge"):
            value = point.as_int if point.WhichOneof("value") == "as_int" else point.as_double
        else:
            value = point.sum
            counts.append(point.count)
        points.append(Point(_dict(point.attributes), value))
    return ReceivedMetric(metric.name, metric.unit, kind, points, scope, resource, counts)
