"""What the variables say about where and how to send, over real servers where something is sent."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext
from opentelemetry.util import _importlib_metadata

from otelweir.distro.destinations import Destination, destination, user_agent
from otelweir.pipeline.transmit import Delivered, Outcome, RetryAfter, Unauthorised
from otelweir.settings import Settings, load
from otelweir.signals import LANES, Lane
from otelweir.testing import Answer, Backend, GrpcBackend

PEM = str(Path(__file__).parent / "localhost.pem")
OTLP = "OTEL_EXPORTER_OTLP_"
EMPTY = Settings()


def to(lane: Lane = "logs", code: dict[str, Any] | None = None, /, **variables: str) -> Destination:
    """The destination by variables; those of OTLP without their beginning."""
    own = ("WEIR_", "OTEL_", "HTTP_PROXY")
    environ = {name if name.startswith(own) else OTLP + name: value for name, value in variables.items()}
    return destination(lane, environ, settings=load(environ).settings, **(code or {}))


def sent(where: Destination, body: bytes = b"") -> Outcome:
    sender = where.sender()
    try:
        outcome: Outcome = sender.send(body, where.lane)
        return outcome
    finally:
        sender.close()


@pytest.fixture(params=[("http/protobuf", Backend), ("grpc", GrpcBackend)], ids=["http", "grpc"])
def server(request: pytest.FixtureRequest) -> Iterator[tuple[str, Backend]]:
    protocol, make = request.param
    with make() as backend:
        yield protocol, backend


class TestEndpoint:
    def test_the_default(self) -> None:
        assert [to(lane).endpoint for lane in LANES] == [f"http://localhost:4318/v1/{lane}" for lane in LANES]
        assert to(PROTOCOL="grpc").endpoint == "http://localhost:4317"

    @pytest.mark.parametrize(
        ("base", "endpoint"),
        [
            ("http://c:4318", "http://c:4318/v1/logs"),
            ("http://c:4318/", "http://c:4318/v1/logs"),
            ("https://c/otlp", "https://c/otlp/v1/logs"),
            ("https://c/otlp/?tenant=a", "https://c/otlp/v1/logs?tenant=***"),
            ("https://me:pw@c", "https://***@c/v1/logs"),
        ],
    )
    def test_the_one_of_all_signals_gets_a_path(self, base: str, endpoint: str) -> None:
        assert to(ENDPOINT=base).endpoint == endpoint
        assert to("logs", {"endpoint": base}, LOGS_ENDPOINT="http://other").endpoint == endpoint

    def test_a_signals_own_is_used_as_it_is(self) -> None:
        assert to(LOGS_ENDPOINT="http://own:1/in/", ENDPOINT="http://c").endpoint == "http://own:1/in/"
        assert to("traces", LOGS_ENDPOINT="http://own:1", ENDPOINT="http://c").endpoint == "http://c/v1/traces"
        assert to(LOGS_ENDPOINT="  ", ENDPOINT="http://c").endpoint == "http://c/v1/logs"

    def test_lanes_to_one_server_share_its_key(self) -> None:
        assert {to(lane, ENDPOINT="https://C.example/x").key for lane in LANES} == {"c.example:443"}
        assert {to(lane, ENDPOINT="http://c:4317", PROTOCOL="grpc").key for lane in LANES} == {"c:4317"}
        assert to(LOGS_ENDPOINT="https://c.example:443/").key == "c.example:443"

    def test_equal_settings_make_equal_destinations(self) -> None:
        assert to(ENDPOINT="http://c", HEADERS="a=b") == to(ENDPOINT="http://c", HEADERS="a=b")
        assert to(ENDPOINT="http://c", HEADERS="a=b") != to(ENDPOINT="http://c", HEADERS="a=c")

    @pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
    @pytest.mark.parametrize("wrong", ["http://", "http://h:x", "https://me:s3cr3t@", "http://exa mple", "http://ä"])
    def test_what_is_none_is_said_and_the_next_best_one_applies(
        self, protocol: str, wrong: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        good = to(LOGS_ENDPOINT=wrong, ENDPOINT="http://c:1", PROTOCOL=protocol)
        assert good.key == "c:1"
        default = to(LOGS_ENDPOINT=wrong, ENDPOINT=wrong, PROTOCOL=protocol)
        assert default.key == ("localhost:4317" if protocol == "grpc" else "localhost:4318")
        assert to("logs", {"endpoint": wrong}, ENDPOINT="http://c:1", PROTOCOL=protocol).key == "c:1"
        assert "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=" in caplog.messages[0]
        assert " is not " in caplog.messages[0]
        assert "cr3t" not in caplog.text
        default.sender().close()

    def test_a_protocol_that_is_not_known_falls_back(self, caplog: pytest.LogCaptureFixture) -> None:
        assert to(PROTOCOL="http/json").protocol == "http/protobuf"
        assert "OTEL_EXPORTER_OTLP_PROTOCOL='http/json'" in caplog.text

    def test_a_proxy_that_cannot_be_used_is_said_and_left_out(self, caplog: pytest.LogCaptureFixture) -> None:
        with Backend() as backend:
            assert sent(to(ENDPOINT=backend.endpoint, HTTP_PROXY="socks5://me:s3cr3t@h:1")) == Delivered()
        assert "the proxy" in caplog.text
        assert "cr3t" not in caplog.text


class TestSending:
    @pytest.mark.parametrize("lane", LANES)
    def test_it_arrives_with_headers_and_a_name(self, server: tuple[str, Backend], lane: Lane) -> None:
        protocol, backend = server
        where = to(
            lane, {"headers": {"X-Code": "c"}}, ENDPOINT=backend.endpoint, PROTOCOL=protocol, HEADERS="x-key=a%20b"
        )
        assert sent(where) == Delivered()
        request = backend.requests[0]
        assert request.path == f"/v1/{lane}"
        assert (request.headers["x-key"], request.headers["x-code"]) == ("a b", "c")
        assert request.headers["user-agent"].startswith("otelweir/")
        assert "OTel-OTLP-Exporter-Python/" in request.headers["user-agent"]
        assert "a b" not in repr(where) + repr(where.sender())

    def test_a_signals_own_headers_stand_alone(self, server: tuple[str, Backend]) -> None:
        protocol, backend = server
        assert sent(to(ENDPOINT=backend.endpoint, PROTOCOL=protocol, HEADERS="a=1", LOGS_HEADERS="b=2")) == Delivered()
        assert "a" not in backend.requests[0].headers
        assert backend.requests[0].headers["b"] == "2"

    def test_a_malformed_header_is_said_without_its_value(
        self, server: tuple[str, Backend], caplog: pytest.LogCaptureFixture
    ) -> None:
        protocol, backend = server
        assert sent(to(ENDPOINT=backend.endpoint, PROTOCOL=protocol, HEADERS="Bearer s3cr3t,a=1")) == Delivered()
        assert backend.requests[0].headers["a"] == "1"
        assert "OTEL_EXPORTER_OTLP_HEADERS='***,a=***' is not pairs such as key=value" in caplog.text

    def test_the_time_out_counts_in_seconds(self, server: tuple[str, Backend]) -> None:
        protocol, backend = server
        backend.answers = [Answer(delay_s=3)]
        where = to(ENDPOINT=backend.endpoint, PROTOCOL=protocol, LOGS_TIMEOUT="0.3", TIMEOUT="100")
        assert isinstance(sent(where), RetryAfter)

    def test_compression_and_bad_values(self, server: tuple[str, Backend], caplog: pytest.LogCaptureFixture) -> None:
        protocol, backend = server
        body = b"\x0a\x00" * 5000
        for value in ("gzip", "GZIP", "deflate", "none", "brotli"):
            where = to(
                ENDPOINT=backend.endpoint, PROTOCOL=protocol, COMPRESSION=value, TIMEOUT="soon", INSECURE="maybe"
            )
            sender = where.sender()
            assert sender.send(body, "logs") == Delivered()
            assert (sender.wire_bytes < 1000) == (value.lower() in ("gzip", "deflate"))
        assert "OTEL_EXPORTER_OTLP_COMPRESSION='brotli' is not none, gzip, deflate or zstd" in caplog.text
        assert "OTEL_EXPORTER_OTLP_TIMEOUT='soon' is not seconds, more than 0" in caplog.text
        assert ("OTEL_EXPORTER_OTLP_INSECURE='maybe' is not true or false" in caplog.text) == (protocol == "grpc")

    @pytest.mark.parametrize(("protocol", "make"), [("http/protobuf", Backend), ("grpc", GrpcBackend)])
    def test_certificates(self, protocol: str, make: Callable[..., Backend]) -> None:
        with make(certificate=PEM, client_ca=PEM) as backend:
            base = {"ENDPOINT": backend.endpoint, "PROTOCOL": protocol, "CERTIFICATE": "/nowhere"}
            own = {"LOGS_CERTIFICATE": PEM, "CLIENT_CERTIFICATE": PEM, "LOGS_CLIENT_KEY": PEM}
            assert sent(to(**base, **own)) == Delivered()
            assert sent(to(**base)) == RetryAfter(None, "No such file or directory: /nowhere")

    def test_grpc_without_a_scheme_is_secure_unless_it_is_said(self) -> None:
        with GrpcBackend() as backend:
            plain = backend.endpoint.removeprefix("http://")
            assert sent(to(ENDPOINT=plain, PROTOCOL="grpc", INSECURE="true")) == Delivered()
            assert isinstance(sent(to(ENDPOINT=plain, PROTOCOL="grpc")), RetryAfter)


class TestAsTheOfficialExporters:
    @pytest.mark.parametrize(
        "variables",
        [
            {"ENDPOINT": "{backend}"},
            {"ENDPOINT": "{backend}/", "HEADERS": "A=1%20b,c=d"},
            {"ENDPOINT": "http://h.invalid:1", "TRACES_ENDPOINT": "{backend}/v1/traces"},
            {"ENDPOINT": "{backend}", "HEADERS": "a=b", "TRACES_HEADERS": "e=f"},
            {"ENDPOINT": "{backend}", "COMPRESSION": "gzip", "TIMEOUT": "20"},
            {"ENDPOINT": "{backend}", "TRACES_COMPRESSION": "gzip", "TRACES_INSECURE": "true"},
        ],
    )
    def test_a_request_is_theirs(
        self, server: tuple[str, Backend], variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        protocol, backend = server
        given = {OTLP + name: value.replace("{backend}", backend.endpoint) for name, value in variables.items()}
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        exporter = (HttpExporter if protocol != "grpc" else GrpcExporter)()
        span = ReadableSpan("span " * 500, SpanContext(1, 1, False), start_time=1, end_time=2)
        exporter.export([span])
        exporter.shutdown()
        body = encode_spans([span]).SerializeToString()
        assert sent(destination("traces", {**given, OTLP + "PROTOCOL": protocol}, settings=EMPTY), body) == Delivered()
        theirs, ours = backend.requests
        assert ours.path == theirs.path
        kept = ("a", "c", "e", "content-type", "content-encoding")
        told = [{name: request.headers.get(name) for name in kept} for request in (ours, theirs)]
        assert told[0] == told[1]
        assert [span.name for span in backend.spans] == ["span " * 500] * 2


class TestKeys:
    def test_a_file_of_headers_wins_and_rotates(self, server: tuple[str, Backend], tmp_path: Path) -> None:
        protocol, backend = server
        file = tmp_path / "headers"
        file.write_text("X-Key: first")
        where = to(ENDPOINT=backend.endpoint, PROTOCOL=protocol, HEADERS="x-key=v,y=v", WEIR_HEADERS_FILE=str(file))
        sender = where.sender()
        assert sender.send(b"", "logs") == Delivered()
        file.write_text("X-Key: the second")
        assert sender.send(b"", "logs") == Delivered()
        file.unlink()
        assert sender.send(b"", "logs") == Delivered()
        assert [request.headers["x-key"] for request in backend.requests] == ["first", "the second", "the second"]
        assert backend.requests[0].headers["y"] == "v"

    def test_one_login_serves_all_signals(self, server: tuple[str, Backend]) -> None:
        protocol, backend = server
        with auth_server() as (url, asked):
            variables = {
                "ENDPOINT": backend.endpoint,
                "PROTOCOL": protocol,
                "WEIR_AUTH_URL": url,
                "WEIR_AUTH_USER": "ingest",
                "WEIR_AUTH_PASSWORD": "s3cr3t",
                "WEIR_AUTH_WORKSPACE": "shop",
            }
            senders = {lane: to(lane, **variables).sender() for lane in LANES}
            assert [sender.send(b"", lane) for lane, sender in senders.items()] == [Delivered()] * 3
            assert [request.headers["authorization"] for request in backend.requests] == ["Bearer t0ken"] * 3
            assert [json.loads(body) for body in asked] == [
                {"username": "ingest", "password": "s3cr3t", "workspace": "shop"}
            ]
            shown = repr(senders) + repr(to(**variables))
            assert not [secret for secret in ("s3cr3t", "t0ken") if secret in shown]

    def test_without_a_login_nothing_is_sent_and_nothing_is_lost(self, server: tuple[str, Backend]) -> None:
        protocol, backend = server
        with Backend() as auth:
            auth.answers = [Answer(401)]
            login = {"WEIR_AUTH_URL": f"{auth.endpoint}/v1/logs", "WEIR_AUTH_USER": "a", "WEIR_AUTH_PASSWORD": "s3cr3t"}
            sender = to(ENDPOINT=backend.endpoint, PROTOCOL=protocol, **login).sender()
            outcome = sender.send(b"", "logs")
            assert outcome == Unauthorised(f"{auth.endpoint}/v1/logs answers HTTP 401")
            assert sender.send(b"", "logs") == outcome, "the login is left alone for a while"
            assert len(auth.requests) == 1
        assert not backend.requests

    def test_half_a_login_is_said(self, caplog: pytest.LogCaptureFixture) -> None:
        to(WEIR_AUTH_URL="https://auth", WEIR_AUTH_USER="me").sender()
        assert "WEIR_AUTH_PASSWORD is not" in caplog.text


@contextmanager
def auth_server() -> Iterator[tuple[str, list[bytes]]]:
    """A server that gives a token to everybody, and remembers what it was asked."""
    asked: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.rfile.read(int(self.headers["Content-Length"])))
            body = b'{"access_token": "t0ken", "expires_in": 60}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/login", asked
        server.shutdown()
        thread.join()


PROVIDERS = """
import grpc, requests
def session():
    session = requests.Session()
    session.headers["x-provided"] = "yes"
    return session
def channel():
    with open({pem!r}, "rb") as file:
        return grpc.ssl_channel_credentials(file.read())
def nothing():
    return None
def broken():
    raise RuntimeError("s3cr3t")
"""


@pytest.fixture
def providers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package that registers credential providers, as pip would install it."""
    (tmp_path / "weir_test_providers.py").write_text(PROVIDERS.format(pem=PEM))
    info = tmp_path / "weir_test_providers-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: weir-test-providers\nVersion: 1\n")
    names = ("session", "channel", "nothing", "broken")
    lines = [f"{name} = weir_test_providers:{name}" for name in names]
    (info / "entry_points.txt").write_text("\n".join(["[opentelemetry_otlp_credential_provider]", *lines]))
    monkeypatch.syspath_prepend(str(tmp_path))
    _importlib_metadata._original_entry_points_cached.cache_clear()
    yield
    _importlib_metadata._original_entry_points_cached.cache_clear()
    sys.modules.pop("weir_test_providers", None)


@pytest.mark.usefixtures("providers")
class TestProviders:
    HTTP = "OTEL_PYTHON_EXPORTER_OTLP_HTTP_"
    GRPC = "OTEL_PYTHON_EXPORTER_OTLP_GRPC_"

    @pytest.mark.parametrize("name", ["CREDENTIAL_PROVIDER", "LOGS_CREDENTIAL_PROVIDER"])
    def test_a_session_carries_the_requests(self, name: str) -> None:
        with Backend() as backend:
            assert sent(to(ENDPOINT=backend.endpoint, HEADERS="a=b", **{self.HTTP + name: "session"})) == Delivered()
            assert backend.requests[0].headers["x-provided"] == "yes"
            assert backend.requests[0].headers["a"] == "b"
            assert sent(to("traces", ENDPOINT=backend.endpoint, **{self.HTTP + name: "session"})) == Delivered()
            assert ("x-provided" in backend.requests[1].headers) == (name == "CREDENTIAL_PROVIDER")

    @pytest.mark.parametrize("name", ["CREDENTIAL_PROVIDER", "LOGS_CREDENTIAL_PROVIDER"])
    def test_credentials_of_a_channel_are_used(self, name: str) -> None:
        with GrpcBackend(certificate=PEM) as backend:
            variables = {"ENDPOINT": backend.endpoint, "PROTOCOL": "grpc", self.GRPC + name: "channel"}
            assert sent(to(**variables)) == Delivered()
            del variables[self.GRPC + name]
            assert isinstance(sent(to(**variables)), RetryAfter)

    @pytest.mark.parametrize("wrong", ["nothing", "broken", "missing"])
    @pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
    def test_one_that_gives_none_is_said_and_left_out(
        self, wrong: str, protocol: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with (GrpcBackend if protocol == "grpc" else Backend)() as backend:
            both = {self.HTTP + "CREDENTIAL_PROVIDER": wrong, self.GRPC + "CREDENTIAL_PROVIDER": wrong}
            assert sent(to(ENDPOINT=backend.endpoint, PROTOCOL=protocol, **both)) == Delivered()
        assert f"_CREDENTIAL_PROVIDER={wrong}: " in caplog.text
        assert "cr3t" not in caplog.text


def test_what_a_session_logs_is_known_to_be_ours(providers: None) -> None:
    """It would have to be exported again."""
    from otelweir.pipeline.capture import quiet

    seen: list[bool] = []
    with Backend() as backend:
        where = to(ENDPOINT=backend.endpoint, OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER="session")
        sender = where.sender()
        make = sender._make

        def watched() -> Any:
            session = make()
            session.hooks["response"].append(lambda *_, **__: seen.append(threading.get_ident() in quiet.exporting))
            return session

        sender._make = watched
        assert sender.send(b"", "logs") == Delivered()
    assert seen == [True]


def test_the_name_has_versions() -> None:
    assert len([word for word in user_agent().split() if "/" in word]) == 2


class TestUnderTheLauncher:
    """With nothing but variables."""

    @pytest.mark.parametrize("key", ["", "x-key: f1le"])
    def test_parent_and_children_deliver(
        self, server: tuple[str, Backend], launch: Callable[..., Any], tmp_path: Path, key: str
    ) -> None:
        protocol, backend = server
        (tmp_path / "headers").write_text(key)
        more = {"WEIR_HEADERS_FILE": str(tmp_path / "headers")} if key else {}
        ended = launch(
            """
            import logging, os, time
            logging.getLogger().setLevel(logging.INFO)
            logging.info("parent before")
            time.sleep(1.5)
            for number in range(3):
                child = os.fork()
                if child == 0:
                    logging.info("child %d", number)
                    raise SystemExit
                logging.info("parent after %d", number)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            """,
            OTEL_EXPORTER_OTLP_ENDPOINT=backend.endpoint,
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_METRICS_EXPORTER="none",
            WEIR_LOG_SAMPLING="off",
            WEIR_SPOOL_DIR=str(tmp_path / "spool"),
            **more,
        )
        assert ended.code == 0, ended.err
        children = [f"child {number}" for number in range(3)]
        parents = [f"parent after {number}" for number in range(3)]
        assert sorted(log.body for log in backend.logs) == sorted(["parent before", *children, *parents])
        assert {request.headers.get("x-key", "") for request in backend.requests} == {"f1le" if key else ""}
