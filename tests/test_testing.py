"""The doubles that users' tests stand on behave like what they stand for."""

from __future__ import annotations

import gzip
import http.client
import threading
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode

from otelweir.testing import Answer, Backend, Clock, GrpcBackend, MemoryLogs, Point


def logs_request(body: str = "hello") -> bytes:
    message = ExportLogsServiceRequest()
    logs = message.resource_logs.add()
    service = logs.resource.attributes.add(key="service.name")
    service.value.string_value = "shop"
    scope = logs.scope_logs.add()
    scope.scope.name = "shop.orders"
    record = scope.log_records.add(severity_number=9, severity_text="INFO", trace_id=bytes(range(16)), event_name="e")
    record.body.string_value = body
    items = record.attributes.add(key="order").value.kvlist_value.values.add(key="items").value.array_value.values
    items.add(int_value=1)
    items.add(bool_value=True)
    encoded: bytes = message.SerializeToString()
    return encoded


def post(backend: Backend, body: bytes, path: str = "/v1/logs", **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", backend.port, timeout=5)
    connection.request("POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


class TestTheBackend:
    @pytest.mark.parametrize("encoding", ["identity", "gzip"])
    def test_reads_logs(self, encoding: str) -> None:
        body = gzip.compress(logs_request()) if encoding == "gzip" else logs_request()
        with Backend() as backend:
            assert post(backend, body, Content_Encoding=encoding).status == 200
            (log,) = backend.logs
        assert (log.body, log.scope, log.event_name) == ("hello", "shop.orders", "e")
        assert (log.severity_number, log.severity_text) == (9, "INFO")
        assert log.attributes == {"order": {"items": [1, True]}}
        assert log.resource == {"service.name": "shop"}
        assert (log.trace_id, log.span_id) == ("000102030405060708090a0b0c0d0e0f", "")

    def test_reads_spans_of_the_official_exporter(self) -> None:
        from opentelemetry.exporter.otlp.proto.http import Compression
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        with Backend() as backend:
            provider = TracerProvider(shutdown_on_exit=False)
            exporter = OTLPSpanExporter(f"{backend.endpoint}/v1/traces", compression=Compression.Gzip)
            provider.add_span_processor(SimpleSpanProcessor(exporter))
            tracer = provider.get_tracer("shop")
            with (
                tracer.start_as_current_span("outer", kind=SpanKind.SERVER),
                tracer.start_as_current_span("inner") as span,
            ):
                span.add_event("tried", {"n": 2})
                span.set_status(Status(StatusCode.ERROR, "no"))
            provider.shutdown()
            inner, outer = backend.spans
        assert (outer.name, outer.kind, outer.status_code, outer.parent_span_id) == ("outer", "server", "unset", "")
        assert (inner.name, inner.kind, inner.status_code, inner.status_message) == ("inner", "internal", "error", "no")
        assert (inner.parent_span_id, inner.trace_id) == (outer.span_id, outer.trace_id)
        assert inner.events == [("tried", {"n": 2})]

    def test_reads_metrics_of_the_official_exporter(self) -> None:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

        with Backend() as backend:
            reader = PeriodicExportingMetricReader(OTLPMetricExporter(f"{backend.endpoint}/v1/metrics"))
            provider = MeterProvider([reader], shutdown_on_exit=False)
            meter = provider.get_meter("shop")
            meter.create_counter("orders", "1").add(3, {"shop": "north"})
            duration = meter.create_histogram("duration", "s")
            duration.record(0.5)
            duration.record(1.5)
            provider.shutdown()
            metrics = {metric.name: metric for metric in backend.metrics}
        assert (metrics["orders"].kind, metrics["orders"].unit) == ("sum", "1")
        assert metrics["orders"].points == [Point({"shop": "north"}, 3)]
        assert (metrics["duration"].points, metrics["duration"].counts) == ([Point({}, 2.0)], [2])

    @pytest.mark.parametrize(
        ("path", "body", "headers", "status"),
        [
            ("/v1/logs", b"\xff\xff", {}, 400),
            ("/v1/logs", b"not gzip", {"Content_Encoding": "gzip"}, 400),
            ("/v1/logs", b"", {"Content_Encoding": "br"}, 400),
            ("/elsewhere", b"", {}, 404),
        ],
    )
    def test_refuses_what_is_not_otlp(self, path: str, body: bytes, headers: dict[str, str], status: int) -> None:
        with Backend() as backend:
            assert post(backend, body, path, **headers).status == status
            assert backend.logs == []

    def test_gives_scripted_answers_and_counts_only_what_it_accepts(self) -> None:
        with Backend() as backend:
            backend.answers = [Answer(429, {"Retry-After": "7"}), Answer(503)]
            answers = [post(backend, logs_request(str(number))) for number in range(3)]
            assert [answer.status for answer in answers] == [429, 503, 200]
            assert answers[0].headers["Retry-After"] == "7"
            assert [log.body for log in backend.logs] == ["2"]
            assert [request.path for request in backend.requests] == ["/v1/logs"] * 3

    def test_can_hang_up(self) -> None:
        with Backend() as backend:
            backend.default_answer = Answer(hang_up=True)
            with pytest.raises(http.client.RemoteDisconnected):
                post(backend, logs_request())
            assert backend.logs == []

    def test_stopped_and_started_keeps_its_port_and_what_it_received(self) -> None:
        """That is how a test makes an outage."""
        with Backend() as backend:
            post(backend, logs_request("before"))
            backend.stop()
            with pytest.raises(OSError):
                post(backend, logs_request("lost"))
            backend.start()
            post(backend, logs_request("after"))
            assert [log.body for log in backend.logs] == ["before", "after"]

    def test_waits_for_what_is_expected(self) -> None:
        with Backend() as backend:
            timer = threading.Timer(0.1, post, (backend, logs_request()))
            timer.start()
            assert backend.wait_for(lambda: backend.logs)[0].body == "hello"
            timer.join()

    def test_says_what_had_arrived_when_the_wait_was_in_vain(self) -> None:
        with Backend() as backend:
            post(backend, logs_request())
            with pytest.raises(AssertionError, match=r"1 logs.*hello"):
                backend.wait_for(lambda: False, timeout_s=0.05)

    def test_takes_requests_from_many_threads(self) -> None:
        with Backend() as backend:
            threads = [threading.Thread(target=post, args=(backend, logs_request(str(n)))) for n in range(20)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sorted(int(log.body) for log in backend.logs) == list(range(20))

    def test_forgets_when_told_to(self) -> None:
        with Backend() as backend:
            post(backend, logs_request())
            backend.clear()
            assert (backend.logs, backend.requests) == ([], [])


def test_the_clock_stands_still_until_it_is_moved() -> None:
    clock = Clock(10)
    assert (clock(), clock()) == (10, 10)
    clock.advance(2.5)
    assert clock() == 12.5


def test_memory_logs_hold_what_the_capture_is_given() -> None:
    memory = MemoryLogs()
    attributes: dict[str, Any] = {"n": [1]}
    memory.capture.emit("shop", 20, "hello", attributes, {}, timestamp_ns=5)
    assert [(log.body, log.attributes, log.scope, log.time_unix_nano) for log in memory.logs] == [
        ("hello", {"n": [1]}, "shop", 5)
    ]


class TestGrpcBackend:
    def export(self, backend: Backend, body: bytes) -> Any:
        import grpc  # type: ignore[import-untyped]

        with grpc.insecure_channel(backend.endpoint.removeprefix("http://")) as channel:
            call = channel.unary_unary("/opentelemetry.proto.collector.logs.v1.LogsService/Export")
            try:
                call(body, timeout=10, metadata=[("x-key", "k")])
            except grpc.RpcError as error:
                return error.code().name, error.details()
        return "OK"

    def test_what_comes_can_be_read_and_an_outage_keeps_the_port(self) -> None:
        with GrpcBackend() as backend:
            assert self.export(backend, logs_request()) == "OK"
            port = backend.port
            backend.stop()
            backend.start()
            assert backend.port == port
            assert self.export(backend, logs_request("again")) == "OK"
            backend.wait_for(lambda: [log.body for log in backend.logs] == ["hello", "again"])
            assert (backend.requests[0].path, backend.requests[0].headers["x-key"]) == ("/v1/logs", "k")

    def test_scripted_answers_mean_the_same_as_over_http(self) -> None:
        with GrpcBackend() as backend:
            backend.answers = [Answer(401, body=b"who?"), Answer(hang_up=True)]
            assert self.export(backend, logs_request()) == ("UNAUTHENTICATED", "who?")
            assert self.export(backend, logs_request()) == ("UNAVAILABLE", "hung up")
            assert self.export(backend, b"no protobuf")[0] == "INVALID_ARGUMENT"
            assert len(backend.requests) == 3
            assert not backend.logs
