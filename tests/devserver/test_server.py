"""Over real HTTP: what exporters send arrives, what nobody should send is refused in words."""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.rpc import status_pb2  # type: ignore[import-untyped]
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from otelweir.devserver import DevServer
from otelweir.errors import ServerError

JSON = {"Content-Type": "application/json"}
PROTOBUF = {"Content-Type": "application/x-protobuf"}
ONE_LOG: dict[str, Any] = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": "hello"}}]}]}]}


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip, Compression.Deflate])
class TestTheOfficialExporters:
    resource = Resource.create({"service.name": "shop"})

    def test_logs_arrive(self, server: DevServer, compression: Compression) -> None:
        provider = LoggerProvider(resource=self.resource)
        exporter = OTLPLogExporter(f"{server.url}/v1/logs", compression=compression)
        provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
        logger = provider.get_logger("shop.users")
        logger.emit(
            body="user 7 logged in",
            severity_number=SeverityNumber.INFO,
            attributes={
                "weir.sample.weight": 4.0,
                "weir.pattern.id": "00ff",
                "log.record.template": "user <*> logged in",
            },
        )
        logger.emit(body="no", severity_number=SeverityNumber.ERROR, attributes={"exception.type": "ValueError"})
        logger.emit(
            event_name="weir.log.pattern.rollup",
            attributes={"weir.pattern.id": "00ff", "weir.severity": "info", "weir.seen": 5, "weir.kept": 1},
        )
        provider.shutdown()
        [pattern] = server.store.patterns()
        assert (pattern.template, pattern.seen, pattern.kept, pattern.services) == (
            "user <*> logged in",
            5,
            1,
            ("shop",),
        )
        [error] = server.store.recent_errors()
        assert (error.body, error.exception, error.service, error.scope) == ("no", "ValueError", "shop", "shop.users")
        assert server.store.totals().intake["logs"].bytes > 0

    def test_traces_arrive(self, server: DevServer, compression: Compression) -> None:
        provider = TracerProvider(resource=self.resource)
        provider.add_span_processor(
            BatchSpanProcessor(OTLPSpanExporter(f"{server.url}/v1/traces", compression=compression))
        )
        tracer = provider.get_tracer("shop")
        with tracer.start_as_current_span("GET /orders") as root, tracer.start_as_current_span("SELECT"):
            pass
        provider.shutdown()
        [tree] = server.store.trace(f"{root.get_span_context().trace_id:032x}")
        assert (tree.name, [child.name for child in tree.children]) == ("GET /orders", ["SELECT"])

    def test_metrics_arrive(self, server: DevServer, compression: Compression) -> None:
        reader = PeriodicExportingMetricReader(OTLPMetricExporter(f"{server.url}/v1/metrics", compression=compression))
        provider = MeterProvider([reader], resource=self.resource)
        meter = provider.get_meter("shop")
        meter.create_counter("orders").add(3)
        meter.create_histogram("latency", unit="s").record(0.25)
        provider.shutdown()
        rows = server.store.ask(lambda db: db.execute("SELECT name, value, measurements FROM points").fetchall())
        assert sorted(rows) == [("latency", 0.25, 1), ("orders", 3, None)]


class TestAnswers:
    def test_json_is_answered_in_json(self, server: DevServer) -> None:
        answer = httpx.post(f"{server.url}/v1/logs", json=ONE_LOG)
        assert (answer.status_code, answer.headers["content-type"], answer.json()) == (200, "application/json", {})
        assert [record.body for record in server.store.recent_records()] == ["hello"]

    def test_protobuf_is_answered_in_protobuf(self, server: DevServer) -> None:
        answer = httpx.post(f"{server.url}/v1/logs", content=b"", headers=PROTOBUF)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-protobuf")
        assert ExportLogsServiceResponse.FromString(answer.content) == ExportLogsServiceResponse()

    def test_many_at_once_all_arrive(self, server: DevServer) -> None:
        with httpx.Client() as client, ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: client.post(f"{server.url}/v1/logs", json=ONE_LOG), range(100)))
        assert {answer.status_code for answer in answers} == {200}
        assert server.store.totals().received == 100
        assert server.store.totals().intake["logs"].requests == 100


class TestRefusals:
    @pytest.mark.parametrize(
        ("headers", "body"),
        [
            (JSON, b"{"),
            (JSON, b""),
            (JSON, json.dumps({"resourceLogs": 1}).encode()),
            (JSON | {"Content-Encoding": "gzip"}, b"{}"),
            (JSON | {"Content-Encoding": "gzip"}, gzip.compress(b"{}", mtime=0)[:-4]),
        ],
        ids=str,
    )
    def test_a_malformed_body_is_a_400_with_a_status(
        self, server: DevServer, headers: dict[str, str], body: bytes
    ) -> None:
        answer = httpx.post(f"{server.url}/v1/logs", content=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (400, 3)
        assert answer.json()["message"]
        assert server.store.totals().intake["logs"].requests == 0

    def test_the_status_is_in_the_encoding_of_the_request(self, server: DevServer) -> None:
        answer = httpx.post(f"{server.url}/v1/traces", content=b"nonsense", headers=PROTOBUF)
        status = status_pb2.Status.FromString(answer.content)
        assert (answer.status_code, answer.headers["content-type"], status.code) == (400, "application/x-protobuf", 3)
        assert "ExportTraceServiceRequest" in status.message

    @pytest.mark.parametrize(
        "headers", [{}, {"Content-Type": "text/plain"}, JSON | {"Content-Encoding": "br"}], ids=str
    )
    def test_an_unknown_type_or_encoding_is_a_415(self, server: DevServer, headers: dict[str, str]) -> None:
        answer = httpx.post(f"{server.url}/v1/logs", content=b"{}", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (415, 3)

    def test_another_path_is_a_404_that_says_which_there_are(self, server: DevServer) -> None:
        for path in ("/", "/v1/logs/", "/v1/profiles"):
            answer = httpx.post(f"{server.url}{path}", json=ONE_LOG)
            assert (answer.status_code, answer.json()["code"]) == (404, 5)
            assert "/v1/logs, /v1/traces, /v1/metrics" in answer.json()["message"]

    def test_another_method_is_a_405(self, server: DevServer) -> None:
        answer = httpx.get(f"{server.url}/v1/logs")
        assert (answer.status_code, answer.headers["allow"], answer.json()["code"]) == (405, "POST", 12)

    def test_a_store_that_takes_nothing_is_a_503_to_be_sent_again(self, server: DevServer) -> None:
        """Exporters keep what got a 503 and try again; any other answer would lose it."""
        server.store.close()
        answer = httpx.post(f"{server.url}/v1/logs", json=ONE_LOG)
        assert (answer.status_code, answer.headers["retry-after"], answer.json()["code"]) == (503, "1", 14)


class TestLimits:
    def test_a_body_at_the_limit_is_taken_and_one_byte_more_is_a_413(self) -> None:
        body = json.dumps(ONE_LOG).encode()
        for room, expected in ((0, 200), (-1, 413)):
            with DevServer(port=0, max_body_bytes=len(body) + room) as server:
                answer = httpx.post(f"{server.url}/v1/logs", content=body, headers=JSON)
                assert answer.status_code == expected
                if expected == 413:
                    assert f"the body is larger than {len(body) - 1} bytes;" in answer.json()["message"]

    @pytest.mark.parametrize("encoding", ["gzip", "deflate"])
    def test_a_bomb_is_a_413(self, server: DevServer, encoding: str) -> None:
        """100 MB in 100 kB."""
        import zlib

        packer = zlib.compressobj(9, wbits=31 if encoding == "gzip" else 15)
        bomb = b"".join(packer.compress(bytes(2**20)) for _ in range(100)) + packer.flush()
        answer = httpx.post(f"{server.url}/v1/logs", content=bomb, headers=JSON | {"Content-Encoding": encoding})
        assert (answer.status_code, answer.json()["code"]) == (413, 8)
        assert "the body unpacks to more than" in answer.json()["message"]
        assert "--max-body" in answer.json()["message"]

    def test_a_body_far_too_large_is_answered_in_words(self) -> None:
        """The sender is still sending when it is clear; it must be able to read why."""
        with DevServer(port=0, max_body_bytes=1000) as server:
            answer = httpx.post(f"{server.url}/v1/logs", content=bytes(5_000_000), headers=JSON, timeout=30)
            assert answer.status_code == 413

    def test_a_sender_that_goes_away_does_no_harm(self, server: DevServer) -> None:
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(
                b"POST /v1/logs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
            )
        assert httpx.post(f"{server.url}/v1/logs", json=ONE_LOG).status_code == 200
        assert server.store.totals().received == 1

    def test_what_is_not_http_does_no_harm(self, server: DevServer) -> None:
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(b"\x16\x03\x01 not http\r\n\r\n")
            connection.recv(1000)
        assert httpx.post(f"{server.url}/v1/logs", json=ONE_LOG).status_code == 200


class TestLifeOfAServer:
    def test_port_0_takes_a_free_one_and_tells(self, server: DevServer) -> None:
        assert server.port > 0
        assert server.url == f"http://127.0.0.1:{server.port}"
        assert repr(server) == f"<DevServer {server.url} up>"

    def test_a_port_in_use_says_what_to_do(self, server: DevServer) -> None:
        with pytest.raises(ServerError, match=rf"WEIR-SERVER-001: .*127\.0\.0\.1:{server.port}.* --port"):
            DevServer(port=server.port)

    def test_a_host_that_is_not_here_says_so(self) -> None:
        with pytest.raises(ServerError, match=r"192\.0\.2\.1"):
            DevServer(port=0, host="192.0.2.1")

    @pytest.mark.parametrize("host", ["bogus.invalid", "a" * 64 + ".example", "a..b"])
    def test_a_name_that_cannot_be_resolved_is_not_a_matter_of_ports(self, host: str) -> None:
        with pytest.raises(ServerError, match=r"WEIR-SERVER-005: .* the host name cannot be resolved\. .*--host"):
            DevServer(port=0, host=host)

    @pytest.mark.parametrize(("host", "exposed"), [("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True)])
    def test_it_knows_whether_others_may_reach_it(self, host: str, exposed: bool) -> None:
        with DevServer(port=0, host=host) as server:
            assert server.is_exposed is exposed

    def test_without_a_folder_for_temporary_files_it_says_what_to_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tempfile, "tempdir", "/does/not/exist")
        with pytest.raises(ServerError, match=r"WEIR-SERVER-006: .*No such file.*TMPDIR"):
            DevServer(port=0)

    def test_the_port_is_free_again_after_a_stop(self) -> None:
        with DevServer(port=0) as first:
            httpx.post(f"{first.url}/v1/logs", json=ONE_LOG)
        with DevServer(port=first.port) as second:
            assert httpx.post(f"{second.url}/v1/logs", json=ONE_LOG).status_code == 200

    def test_a_stop_leaves_no_thread_and_may_be_repeated(self) -> None:
        before = threading.active_count()
        with DevServer(port=0) as server, httpx.Client() as client:
            client.post(f"{server.url}/v1/logs", json=ONE_LOG)  # an open connection does not hold it up
            server.stop()
            server.stop()
        names = {thread.name for thread in threading.enumerate()}
        assert not names & {"weir-dev", "weir-store"}
        assert before <= threading.active_count() + 1

    def test_one_that_was_never_started_can_be_stopped(self) -> None:
        DevServer(port=0).stop()

    def test_it_is_kept_in_a_file_that_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "kept.sqlite3"
        for expected in (1, 2):
            with DevServer(port=0, db=path) as server:
                httpx.post(f"{server.url}/v1/logs", json=ONE_LOG)
                assert server.store.totals().received == expected
        assert [file.name for file in tmp_path.iterdir()] == ["kept.sqlite3"]


class TestTheFace:
    def test_all_is_what_is_visible(self) -> None:
        import otelweir.devserver as face

        assert dir(face) == sorted(face.__all__)
        for name in face.__all__:
            assert getattr(face, name).__module__.startswith("otelweir.devserver.")

    def test_importing_it_loads_nothing_heavy(self) -> None:
        program = """
import sys, otelweir.devserver
heavy = {"sqlite3", "google.protobuf", "starlette", "uvicorn", "rich"} & sys.modules.keys()
sys.exit(", ".join(heavy) or 0)
"""
        subprocess.run([sys.executable, "-c", program], check=True)

    def test_a_missing_extra_prints_its_remedy(self) -> None:
        program = """
import sys
sys.modules["uvicorn"] = None
from otelweir.devserver import DevServer
from otelweir.errors import MissingExtra
try:
    DevServer(port=0)
except MissingExtra as error:
    print(error)
"""
        done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
        assert "pip install 'otelweir[dev]'" in done.stdout
