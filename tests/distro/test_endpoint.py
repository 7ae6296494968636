"""Whether endpoints take telemetry: where the exporters would send, and what each answer means."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from email.utils import formatdate
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext

from otelweir.distro import endpoint
from otelweir.distro.endpoint import Answer as Said
from otelweir.distro.endpoint import Target, ask, meaning, skewed, targets
from otelweir.testing import Answer, Backend

PEM = Path(__file__).with_name("localhost.pem")
OTLP = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "console"}


def http(url: str, **more: Any) -> Target:
    return Target("traces", "http/protobuf", url, **more)


def asked(target: Target, timeout_s: float = 3.0) -> Said:
    return ask([target], timeout_s)[0]


def advice(target: Target, timeout_s: float = 3.0) -> str:
    return " ".join(meaning(target, asked(target, timeout_s)) or ())


@contextlib.contextmanager
def talker(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server on loopback that does with each connection what it is told; gives its port."""
    stopped = threading.Event()

    def quiet(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            talk(connection)

    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            while not stopped.is_set():
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=quiet, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[1]
        stopped.set()
        listening.shutdown(socket.SHUT_RDWR)


def hang(connection: socket.socket) -> None:
    connection.recv(1)
    time.sleep(30)


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class TestTargets:
    @pytest.mark.parametrize(
        "environ",
        [
            {"ENDPOINT": "{backend}"},
            {"ENDPOINT": "{backend}/base/"},
            {"ENDPOINT": "http://h.invalid", "TRACES_ENDPOINT": "{backend}/x"},
            {"ENDPOINT": "{backend}", "HEADERS": "A=1%20b,c=d"},
            {"ENDPOINT": "{backend}", "HEADERS": "a=b", "TRACES_HEADERS": "e=f"},
        ],
    )
    def test_are_where_the_exporters_send(self, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
        """Compared with the exporter itself."""
        with Backend() as backend:
            given = {f"OTEL_EXPORTER_OTLP_{k}": v.replace("{backend}", backend.endpoint) for k, v in environ.items()}
            for name, value in given.items():
                monkeypatch.setenv(name, value)
            context = SpanContext(1, 1, False)
            OTLPSpanExporter().export([ReadableSpan("span", context, start_time=1, end_time=2)])
            ask(list(targets({**OTLP, **given})))
            theirs, ours = backend.requests
        kept = ("a", "c", "e", "content-type")
        assert (ours.path, [ours.headers.get(k) for k in kept]) == (theirs.path, [theirs.headers.get(k) for k in kept])

    def test_the_file_of_headers_counts(self, tmp_path: Path) -> None:
        file = tmp_path / "headers"
        file.write_text("X-Key: from file")
        environ = {**OTLP, "OTEL_EXPORTER_OTLP_HEADERS": "x-key=v,a=b", "WEIR_HEADERS_FILE": str(file)}
        assert {target.headers["x-key"] for target in targets(environ)} == {"from file"}
        assert {target.headers["a"] for target in targets(environ)} == {"b"}

    def test_are_only_the_signals_that_leave_as_otlp(self) -> None:
        assert [(target.signal, target.protocol) for target in targets(OTLP)] == [("traces", "http/protobuf")]

    def test_a_signal_may_have_a_protocol_of_its_own(self) -> None:
        environ = {**OTLP, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}
        assert [(target.protocol, target.url) for target in targets(environ)] == [("grpc", "http://localhost:4317")]

    @pytest.mark.parametrize(("name", "protocol"), [("otlp_proto_grpc", "grpc"), ("otlp_proto_http", "http/protobuf")])
    def test_an_exporter_may_name_its_protocol(self, name: str, protocol: str) -> None:
        assert [t.protocol for t in targets({"OTEL_TRACES_EXPORTER": f"console,{name}"})] == [protocol]

    def test_are_none_when_the_sdk_is_disabled(self) -> None:
        assert list(targets({**OTLP, "OTEL_SDK_DISABLED": "True"})) == []

    @pytest.mark.parametrize(
        ("url", "given", "insecure"),
        [("http://h:1", "", True), ("https://h:1", "true", False), ("h:1", "", False), ("h:1", "true", True)],
    )
    def test_grpc_is_insecure_as_the_exporter_has_it(self, url: str, given: str, insecure: bool) -> None:
        environ = {
            "OTEL_TRACES_EXPORTER": "otlp_proto_grpc",
            "OTEL_EXPORTER_OTLP_ENDPOINT": url,
            "OTEL_EXPORTER_OTLP_INSECURE": given,
        }
        assert [target.insecure for target in targets(environ)] == [insecure]

    @pytest.mark.parametrize(
        ("protocol", "url", "fit"),
        [
            ("http/protobuf", "http://h:4318/v1/traces", True),
            ("http/protobuf", "h:4318", False),
            ("http/json", "http://h:4318", False),
            ("grpc", "h:4317", True),
            ("grpc", "http://h:4317", True),
            ("grpc", "http://", False),
        ],
    )
    def test_fit_when_an_exporter_could_send_there(self, protocol: str, url: str, fit: bool) -> None:
        assert Target("logs", protocol, url).fit is fit

    def test_show_no_credentials(self) -> None:
        target = http("https://me:secret@h/v1/traces?token=secret", headers={"key": "secret"})
        assert "secret" not in target.shown
        assert "headers" not in repr(target)


class TestHttp:
    def test_an_endpoint_that_takes_the_empty_request_is_fine(self) -> None:
        with Backend() as backend:
            target = http(f"{backend.endpoint}/v1/traces", headers={"api-key": "k"})
            said = asked(target)
            assert (said.status, meaning(target, said)) == (200, None)
            assert [(r.path, r.headers["api-key"]) for r in backend.requests] == [("/v1/traces", "k")]
            assert backend.spans == []

    def test_one_that_refuses_an_empty_body_gets_an_empty_resource(self) -> None:
        with Backend() as backend:
            backend.answers = [Answer(400)]
            assert asked(http(f"{backend.endpoint}/v1/traces")).status == 200
            assert backend.spans == []

    @pytest.mark.parametrize(
        ("status", "words"),
        [
            (401, "OTEL_EXPORTER_OTLP_HEADERS"),
            (403, "may not write traces"),
            (404, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
            (405, "no OTLP endpoint"),
            (429, "WEIR_LOG_BUDGET"),
            (503, "fails"),
            (418, "Look up"),
        ],
    )
    def test_what_to_do_about_a_status(self, status: int, words: str) -> None:
        with Backend() as backend:
            backend.default_answer = Answer(status)
            told = advice(http(f"{backend.endpoint}/v1/traces"))
        assert told.startswith(f"answers {status} ")
        assert words in told

    @pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "text/plain", None])
    def test_a_web_page_is_no_otlp(self, kind: str | None) -> None:
        def answer(connection: socket.socket) -> None:
            connection.recv(65536)
            named = f"Content-Type: {kind}\r\n" if kind else ""
            connection.sendall(f"HTTP/1.1 200 OK\r\n{named}Content-Length: 9\r\n\r\n<html> hi".encode())

        with talker(answer) as port:
            told = advice(http(f"http://127.0.0.1:{port}/v1/traces"))
        assert told.startswith("answers 200 with a web page, which is not OTLP This is no OTLP endpoint")

    def test_a_header_that_cannot_be_sent_is_not_repeated(self) -> None:
        """The exception of requests quotes it; gRPC says only that it is invalid."""
        headers = {"api-key": "hu\nsh"}
        said = asked(http("http://127.0.0.1:9/v1/traces", headers=headers))
        assert (said.failure, said.detail) == ("other", "InvalidHeader")
        said = asked(Target("traces", "grpc", "http://127.0.0.1:9", headers=headers, insecure=True))
        assert "sh" not in said.detail

    def test_a_header_that_the_backend_repeats_is_masked(self) -> None:
        with Backend() as backend:
            backend.default_answer = Answer(302, {"location": "https://h/login/hush-hush"})
            said = asked(http(f"{backend.endpoint}/v1/traces", headers={"authorization": "Bearer hush-hush"}))
        assert said.location == "https://h/login/***"

    def test_a_redirect_is_not_followed(self) -> None:
        """Because the exporters do not either."""
        with Backend() as backend:
            backend.default_answer = Answer(301, {"location": "https://me:secret@elsewhere.example/v1/traces"})
            told = advice(http(f"{backend.endpoint}/v1/traces"))
            assert len(backend.requests) == 1
        assert "leads to https://***@elsewhere.example/v1/traces" in told

    def test_nobody_listens(self, free_port: int) -> None:
        assert "refuses the connection" in advice(http(f"http://127.0.0.1:{free_port}/v1/traces"))

    def test_a_server_that_hangs(self) -> None:
        with talker(hang) as port:
            started = time.monotonic()
            told = advice(http(f"http://127.0.0.1:{port}"), timeout_s=0.3)
            assert time.monotonic() - started < 2
        assert told.startswith("does not answer within")

    def test_a_server_that_drips(self) -> None:
        """Each byte comes in time, the answer never does."""

        def drip(connection: socket.socket) -> None:
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            while True:
                connection.sendall(b"x: y\r\n")
                time.sleep(0.1)

        with talker(drip) as port:
            started = time.monotonic()
            said = asked(http(f"http://127.0.0.1:{port}"), timeout_s=0.3)
            assert time.monotonic() - started < 3
        assert said.failure in ("timeout", "closed")  # http.client stops at 100 headers

    def test_a_server_that_hangs_up(self) -> None:
        with talker(socket.socket.close) as port:
            assert "another protocol" in advice(http(f"http://127.0.0.1:{port}"))

    def test_a_server_that_speaks_http_2(self) -> None:
        """A gRPC server answers HTTP/1.1 with a frame."""

        def talk(connection: socket.socket) -> None:
            connection.sendall(b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x05\x00\x00@\x00\n")
            connection.close()

        with talker(talk) as port:
            assert "does not speak http/protobuf" in advice(http(f"http://127.0.0.1:{port}"))

    def test_a_name_that_does_not_resolve(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def no_such_name(*_: object, **__: object) -> None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", no_such_name)
        assert "does not resolve" in advice(http("http://collector.example:4318/v1/traces"))

    def test_https_to_a_server_without_tls(self) -> None:
        with Backend() as backend:
            assert "http:// instead of https://" in advice(http(f"https://127.0.0.1:{backend.port}/v1/traces"))

    def test_a_certificate_that_nobody_vouches_for(self) -> None:
        with tls_server() as port:
            assert "OTEL_EXPORTER_OTLP_CERTIFICATE" in advice(http(f"https://localhost:{port}/v1/traces"))

    def test_a_certificate_that_the_variable_vouches_for(self) -> None:
        with tls_server() as port:
            assert asked(http(f"https://localhost:{port}/v1/traces", certificate=str(PEM))).status == 200

    def test_a_certificate_file_that_is_missing(self, tmp_path: Path) -> None:
        target = http("https://127.0.0.1:9/v1/traces", certificate=str(tmp_path / "ca.pem"))
        assert "Correct the path in OTEL_EXPORTER_OTLP_CERTIFICATE" in advice(target)

    def test_a_credential_provider_that_is_not_installed(self) -> None:
        told = advice(http("http://127.0.0.1:9/v1/traces", provider="nobody"))
        assert "_CREDENTIAL_PROVIDER" in told

    def test_the_wrong_one_of_the_two_usual_ports(self) -> None:
        said = Said(failure="refused")
        assert "OTEL_EXPORTER_OTLP_PROTOCOL=grpc" in " ".join(meaning(http("http://h:4317/v1/traces"), said) or ())
        grpc_target = Target("logs", "grpc", "http://h:4318")
        assert "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf" in " ".join(meaning(grpc_target, said) or ())

    def test_all_are_asked_at_the_same_time(self) -> None:
        with talker(hang) as port:
            started = time.monotonic()
            ask([http(f"http://127.0.0.1:{port}")] * 8, 0.5)
            assert time.monotonic() - started < 3

    def test_every_failure_has_its_words(self) -> None:
        for failure in endpoint._FAILURES:
            what, remedy = meaning(http("http://h"), Said(failure=failure, detail="{signal} at http://u:p@h")) or (
                "",
                "",
            )
            assert what and remedy
            assert "u:p" not in what


@contextlib.contextmanager
def tls_server() -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)

    def answer(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            secured.recv(65536)
            secured.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with talker(answer) as port:
        yield port


class TestClocks:
    @pytest.mark.parametrize(
        ("ahead_s", "words"), [(0, None), (-60, "s ahead of the backend's"), (3600, "s behind the backend's")]
    )
    def test_are_compared_with_the_date_of_the_answer(self, ahead_s: float, words: str | None) -> None:
        def answer(connection: socket.socket) -> None:
            connection.recv(65536)
            date = formatdate(time.time() + ahead_s, usegmt=True)
            connection.sendall(f"HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Length: 0\r\n\r\n".encode())

        with talker(answer) as port:
            told = skewed(asked(http(f"http://127.0.0.1:{port}")))
        assert (told is None) == (words is None)
        assert not told or (words or "") in told[0]

    def test_a_date_that_is_none_says_nothing(self) -> None:
        assert endpoint._skew("yesterday", 0) is None
        assert skewed(Said(200)) is None


class Collector(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers every export of the services that it knows, with a status of its own."""

    def __init__(self, status: grpc.StatusCode | None) -> None:
        self.status = status
        self.metadata: dict[str, str] = {}

    def service(self, details: Any) -> Any:
        if "TraceService" not in details.method:
            return None
        self.metadata = dict(details.invocation_metadata)

        def export(request: bytes, context: Any) -> bytes:
            if self.status:
                context.abort(self.status, "no")
            return b""

        return grpc.unary_unary_rpc_method_handler(export)


@contextlib.contextmanager
def grpc_server(status: grpc.StatusCode | None = None, tls: bool = False) -> Iterator[tuple[Collector, int]]:
    collector = Collector(status)
    server = grpc.server(futures.ThreadPoolExecutor(1), handlers=[collector])
    if tls:
        key, _, chain = PEM.read_bytes().partition(b"-----BEGIN CERT")
        credentials = grpc.ssl_server_credentials([(key, b"-----BEGIN CERT" + chain)])
        port = server.add_secure_port("127.0.0.1:0", credentials)
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield collector, port
    server.stop(None).wait()


class TestGrpc:
    def target(self, port: int, **more: Any) -> Target:
        return Target("traces", "grpc", f"http://127.0.0.1:{port}", **{"insecure": True, **more})

    def test_an_endpoint_that_takes_the_empty_request_is_fine(self) -> None:
        with grpc_server() as (collector, port):
            target = self.target(port, headers={"api-key": "k"})
            assert meaning(target, asked(target)) is None
            assert collector.metadata["api-key"] == "k"

    @pytest.mark.parametrize(
        ("status", "words"),
        [
            (grpc.StatusCode.UNAUTHENTICATED, "OTEL_EXPORTER_OTLP_HEADERS"),
            (grpc.StatusCode.PERMISSION_DENIED, "may not write"),
            (grpc.StatusCode.RESOURCE_EXHAUSTED, "limits"),
            (grpc.StatusCode.INTERNAL, "Look up"),
        ],
    )
    def test_what_to_do_about_a_status(self, status: grpc.StatusCode, words: str) -> None:
        with grpc_server(status) as (_, port):
            told = advice(self.target(port))
        assert status.name in told
        assert words in told

    def test_a_collector_without_the_signal(self) -> None:
        with grpc_server() as (_, port):
            told = advice(Target("logs", "grpc", f"127.0.0.1:{port}", insecure=True))
        assert "UNIMPLEMENTED" in told
        assert "OTEL_LOGS_EXPORTER=none" in told

    def test_nobody_listens(self, free_port: int) -> None:
        assert "refuses the connection" in advice(self.target(free_port))

    def test_a_server_that_hangs(self) -> None:
        with talker(hang) as port:
            started = time.monotonic()
            said = asked(self.target(port), timeout_s=0.5)
            assert time.monotonic() - started < 3
        assert said.failure in ("timeout", "unreachable")

    def test_a_server_that_speaks_http_1(self) -> None:
        with Backend() as backend:
            told = advice(self.target(backend.port))
        assert told.startswith("does not speak grpc")
        assert "OTEL_EXPORTER_OTLP_PROTOCOL" in told

    def test_tls_with_the_certificate_of_the_variable(self) -> None:
        with grpc_server(tls=True) as (_, port):
            target = Target("traces", "grpc", f"https://localhost:{port}", certificate=str(PEM))
            assert asked(target).status == "OK"
            unknown = Target("traces", "grpc", f"https://localhost:{port}")
            assert asked(unknown).failure in ("tls", "unreachable", "closed")

    @pytest.mark.parametrize(
        ("detail", "failure"),
        [
            ("DNS resolution failed for h:1", "dns"),
            ("failed to connect: Connection refused", "refused"),
            ("Ssl handshake failed", "tls"),
            ("Socket closed", "closed"),
            ("no route", "unreachable"),
        ],
    )
    def test_what_unavailable_means_is_in_its_words(self, detail: str, failure: str) -> None:
        assert endpoint._grpc_failure("UNAVAILABLE", detail, 0.1).failure == failure
