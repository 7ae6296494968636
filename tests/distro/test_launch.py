"""Under the launcher, with nothing but environment variables."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc  # type: ignore[import-untyped]
import pytest
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from otelweir.testing import Backend

if TYPE_CHECKING:
    from tests.distro.conftest import Launch

SERVICE = """
    import logging
    from opentelemetry import metrics, trace
    with trace.get_tracer("t").start_as_current_span("work"):
        logging.getLogger("shop").warning("order %d", 7)
    metrics.get_meter("m").create_counter("orders").add(1)
"""


class TestAService:
    def test_sends_all_three_signals(self, launch: Launch, backend: Backend) -> None:
        ended = launch(
            SERVICE,
            OTEL_EXPORTER_OTLP_ENDPOINT=backend.endpoint,
            OTEL_EXPORTER_OTLP_HEADERS="api-key=secret",
            OTEL_SERVICE_NAME="shop",
            OTEL_RESOURCE_ATTRIBUTES="team=checkout,service.version=1.2",
        )
        assert (ended.code, ended.out, ended.err) == (0, "", "order 7\n")
        (log,) = [log for log in backend.logs if log.scope == "shop"]
        (span,) = backend.spans
        assert (log.body, log.severity_text, log.trace_id, log.span_id) == (
            "order 7",
            "WARN",
            span.trace_id,
            span.span_id,
        )
        assert {"orders", "weir.log.records"} <= {metric.name for metric in backend.metrics}
        for received in (log, span, backend.metrics[0]):
            wanted = {
                "service.name": "shop",
                "team": "checkout",
                "service.version": "1.2",
                "telemetry.distro.name": "otelweir",
            }
            assert wanted.items() <= received.resource.items()
            assert {"service.instance.id", "process.pid", "telemetry.auto.version"} <= received.resource.keys()
        assert {request.headers.get("api-key") for request in backend.requests} == {"secret"}

    def test_can_send_each_signal_elsewhere(self, launch: Launch, backend: Backend) -> None:
        with Backend() as second, Backend() as third:
            ended = launch(
                SERVICE,
                OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=f"{backend.endpoint}/v1/logs",
                OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{second.endpoint}/v1/traces",
                OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=f"{third.endpoint}/v1/metrics",
                OTEL_EXPORTER_OTLP_LOGS_HEADERS="a=1",
                OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
            )
            assert (ended.code, ended.err) == (0, "order 7\n")
            assert backend.logs and not backend.spans and not backend.metrics
            assert second.spans and not second.logs and not second.metrics
            assert third.metrics and not third.logs and not third.spans
            assert backend.requests[0].headers["a"] == "1"
            assert "a" not in second.requests[0].headers
            assert backend.requests[0].headers["content-encoding"] == "gzip"

    def test_can_send_over_grpc(self, launch: Launch, backend: Backend) -> None:
        with GrpcBackend() as (endpoint, received):
            ended = launch(
                SERVICE,
                OTEL_EXPORTER_OTLP_PROTOCOL="grpc",
                OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
                OTEL_EXPORTER_OTLP_HEADERS="api-key=secret",
                OTEL_EXPORTER_OTLP_METRICS_PROTOCOL="http/protobuf",
                OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=f"{backend.endpoint}/v1/metrics",
            )
            assert (ended.code, ended.out, ended.err) == (0, "", "order 7\n")
            logs = [
                record.body.string_value
                for request, _ in received["logs"]
                for scope in request.resource_logs[0].scope_logs
                for record in scope.log_records
            ]
            assert "order 7" in logs
            assert len(received["traces"]) == 1
            assert received["metrics"] == []
            assert {headers["api-key"] for _, headers in received["logs"] + received["traces"]} == {"secret"}
        assert backend.metrics

    def test_sends_nothing_when_the_sdk_is_disabled(self, launch: Launch, backend: Backend) -> None:
        ended = launch(
            SERVICE + "    import otelweir; print(bool(otelweir.configure().flush()))\n",
            OTEL_SDK_DISABLED="true",
            OTEL_EXPORTER_OTLP_ENDPOINT=backend.endpoint,
        )
        assert (ended.code, ended.out) == (0, "True\n")
        assert "order 7\n" in ended.err
        assert backend.requests == []

    def test_sends_nothing_where_no_exporter_is_wanted(self, launch: Launch, backend: Backend) -> None:
        none = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("LOGS", "TRACES", "METRICS")}
        ended = launch(SERVICE, OTEL_EXPORTER_OTLP_ENDPOINT=backend.endpoint, **none)
        assert (ended.code, ended.out, ended.err) == (0, "", "order 7\n")
        assert backend.requests == []

    def test_can_have_several_exporters_and_survives_unknown_ones(self, launch: Launch, backend: Backend) -> None:
        ended = launch(
            SERVICE,
            OTEL_LOGS_EXPORTER="console,otlp,nope",
            OTEL_TRACES_EXPORTER="console",
            OTEL_METRICS_EXPORTER="nope",
            OTEL_EXPORTER_OTLP_ENDPOINT=backend.endpoint,
        )
        assert ended.code == 0
        assert ended.err.count("WEIR-CONFIG-005") == 2
        assert "OTEL_LOGS_EXPORTER=nope" in ended.err and "OTEL_METRICS_EXPORTER=nope" in ended.err
        assert '"body": "order 7"' in ended.out and '"name": "work"' in ended.out
        assert [log.body for log in backend.logs if log.scope == "shop"] == ["order 7"]
        assert not backend.spans and not backend.metrics

    def test_obeys_samplers_queues_limits_and_intervals(self, launch: Launch, backend: Backend) -> None:
        program = """
            import logging, time
            from opentelemetry import metrics, trace
            with trace.get_tracer("t").start_as_current_span("work"):
                for n in range(30):
                    extra = {f"k{k}": k for k in range(12)} | {"text": "y" * 90, "z": [1, "y" * 90]}
                    logging.getLogger("shop").error("order " + "x" * 90, extra=extra)
            metrics.get_meter("m").create_counter("orders").add(1)
            time.sleep(0.7)
        """
        ended = launch(
            program,
            OTEL_EXPORTER_OTLP_ENDPOINT=backend.endpoint,
            OTEL_TRACES_SAMPLER="always_off",
            OTEL_BLRP_MAX_EXPORT_BATCH_SIZE="10",
            OTEL_BLRP_SCHEDULE_DELAY="100",
            OTEL_METRIC_EXPORT_INTERVAL="200",
            OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT="50",
            OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT="12",
        )
        assert ended.code == 0
        assert ended.err == f"order {'x' * 90}\n" * 30
        logs = [log for log in backend.logs if log.scope == "shop"]
        assert len(logs) == 30
        assert all(len(log.attributes) == 12 for log in logs)
        assert all(len(text) <= 50 for log in logs for text in log.attributes.values() if isinstance(text, str))
        assert all(log.attributes["z"] == [1, "y" * 50] for log in logs)
        assert all("weir.sample.weight" in log.attributes and len(log.body) == 96 for log in logs)
        assert sum(request.path == "/v1/logs" for request in backend.requests) >= 3
        assert sum(request.path == "/v1/metrics" for request in backend.requests) >= 2
        assert not backend.spans

    def test_leaves_logging_alone_where_its_instrumentation_is_disabled(self, launch: Launch, backend: Backend) -> None:
        program = """
            import logging
            from opentelemetry import _logs, trace
            with trace.get_tracer("t").start_as_current_span("work"):
                logging.warning("by logging")
            record = _logs.LogRecord(body="by the API", severity_number=_logs.SeverityNumber.INFO)
            _logs.get_logger("direct").emit(record)
        """
        ended = launch(
            program,
            OTEL_EXPORTER_OTLP_ENDPOINT=backend.endpoint,
            OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="flask, logging",
        )
        assert (ended.code, ended.err) == (0, "WARNING:root:by logging\n")
        assert [log.body for log in backend.logs if log.scope != "otelweir"] == ["by the API"]

    def test_correlates_logs_for_formatters_where_asked_to(self, launch: Launch, backend: Backend) -> None:
        program = """
            import logging, sys
            from opentelemetry import trace
            logging.basicConfig(format="%(otelTraceID)s %(message)s", stream=sys.stdout, force=True)
            with trace.get_tracer("t").start_as_current_span("work"):
                logging.warning("hello", extra={"k": 1})
        """
        ended = launch(program, OTEL_EXPORTER_OTLP_ENDPOINT=backend.endpoint, OTEL_PYTHON_LOG_CORRELATION="true")
        (log,) = [log for log in backend.logs if log.scope == "root"]
        assert (ended.code, ended.out, ended.err) == (0, f"{log.trace_id} hello\n", "")
        assert log.attributes["k"] == 1
        assert not any(name.startswith("otel") for name in log.attributes)

    def test_comes_to_rest_though_its_http_client_logs(self, launch: Launch, backend: Backend) -> None:
        """At level DEBUG the client logs each export: to export that, too, would never end."""
        program = """
            import logging, sys, time
            logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)
            logging.getLogger("shop").info("order")
            time.sleep(1.5)
        """
        ended = launch(
            program,
            OTEL_EXPORTER_OTLP_ENDPOINT=backend.endpoint,
            OTEL_BLRP_SCHEDULE_DELAY="50",
            OTEL_METRIC_EXPORT_INTERVAL="100",
        )
        assert (ended.code, ended.out, ended.err) == (0, "INFO:shop:order\n", "")
        assert {log.body for log in backend.logs if log.event_name == ""} == {"order"}
        assert sum(request.path == "/v1/logs" for request in backend.requests) <= 2

    def test_with_a_configuration_file_but_without_its_package_says_what_to_install(
        self, launch: Launch, tmp_path: Path
    ) -> None:
        (tmp_path / "otel.yaml").write_text('file_format: "1.0"\n')
        ended = launch("import logging; logging.warning('hello')", OTEL_CONFIG_FILE="otel.yaml")
        assert ended.code == 0
        assert "WEIR-CONFIG-005" in ended.err and "opentelemetry-configuration is not installed" in ended.err
        assert "Traceback" not in ended.err


class TestTheStart:
    def test_imports_nothing_that_can_wait(self, launch: Launch) -> None:
        """Half of a second of processor time goes into clients, encoders and models that a start does not need."""
        program = """
            import sys
            heavy = ("pydantic", "click", "rich", "requests", "urllib3", "grpc", "google.protobuf", "yaml",
                     "http.client", "otelweir.cli", "otelweir.testing", "otelweir.devserver")
            print([name for name in heavy if name in sys.modules])
        """
        ended = launch(program, OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="*", WEIR_LOG_CAPTURE="true")
        assert (ended.code, ended.out, ended.err) == (0, "[]\n", "")

    def test_instrumented_packages_wait_until_they_are_imported(self, launch: Launch) -> None:
        program = """
            import sys
            late = ("anthropic", "fastapi", "flask", "langchain_core", "openai")
            print([name for name in late if name in sys.modules])
            import flask
            from flask import Flask
            print(flask.Flask is Flask, Flask.__module__.startswith("opentelemetry."))
        """
        ended = launch(program, OTEL_LOGS_EXPORTER="none", OTEL_TRACES_EXPORTER="none", OTEL_METRICS_EXPORTER="none")
        assert (ended.code, ended.out, ended.err) == (0, "[]\nTrue True\n", "")

    def test_leaves_the_environment_as_it_was(self, launch: Launch) -> None:
        """A child process with other packages would stumble over our defaults."""
        program = "import os; print(sorted(k for k in os.environ if k.startswith(('OTEL_', 'WEIR_'))))"
        ended = launch.plain(program)
        assert ended.out == "[]\n"
        configured = launch.plain(f"import otelweir; otelweir.configure(endpoint='http://127.0.0.1:9'); {program}")
        assert configured.out == "[]\n"


class TestTwoDistributions:
    @pytest.mark.parametrize("chosen", [None, "weir"])
    def test_are_named_with_what_to_do(
        self, launch: Launch, tmp_path: Path, backend: Backend, chosen: str | None
    ) -> None:
        """Whichever of them wins: the launcher takes the first that it finds, without a word."""
        other = tmp_path / "site"
        info = other / "other_distro-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-distro\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(
            "[opentelemetry_distro]\nother = other_distro:Distro\n"
            "[opentelemetry_configurator]\nother = other_distro:Configurator\n"
        )
        (other / "other_distro.py").write_text(
            "from opentelemetry.instrumentation.distro import BaseDistro\n"
            "class Distro(BaseDistro):\n    def _configure(self, **kwargs): print('other distro')\n"
            "class Configurator:\n    def configure(self, **kwargs): print('other configurator')\n"
        )
        choice = {"OTEL_PYTHON_DISTRO": chosen, "OTEL_PYTHON_CONFIGURATOR": chosen} if chosen else {}
        ended = launch(
            "import logging; logging.error('hello')",
            PYTHONPATH=str(other),
            OTEL_EXPORTER_OTLP_ENDPOINT=backend.endpoint,
            **choice,
        )
        assert ended.code == 0
        if chosen:
            assert "WEIR-CONFIG-003" not in ended.err and "other" not in ended.out
            assert [log.body for log in backend.logs if log.scope == "root"] == ["hello"]
        else:
            assert ended.err.count("WEIR-CONFIG-003") == 2
            for word in ("other_distro", "otelweir.distro", "OTEL_PYTHON_DISTRO=weir", "OTEL_PYTHON_CONFIGURATOR=weir"):
                assert word in ended.err


class GrpcBackend:
    """An OTLP/gRPC backend; gives its endpoint and, by signal, the requests with their headers."""

    def __enter__(self) -> tuple[str, dict[str, list[tuple[Any, dict[str, str]]]]]:
        received: dict[str, list[tuple[Any, dict[str, str]]]] = {"logs": [], "traces": [], "metrics": []}
        lock = threading.Lock()

        def service(base: type, signal: str, answer: Any) -> Any:
            def export(_: object, request: Any, context: Any) -> Any:
                with lock:
                    received[signal].append((request, dict(context.invocation_metadata())))
                return answer()

            return type(base.__name__, (base,), {"Export": export})()

        self._server = grpc.server(ThreadPoolExecutor(2))
        logs_service_pb2_grpc.add_LogsServiceServicer_to_server(  # type: ignore[no-untyped-call]
            service(logs_service_pb2_grpc.LogsServiceServicer, "logs", logs_service_pb2.ExportLogsServiceResponse),
            self._server,
        )
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(  # type: ignore[no-untyped-call]
            service(
                trace_service_pb2_grpc.TraceServiceServicer, "traces", trace_service_pb2.ExportTraceServiceResponse
            ),
            self._server,
        )
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(  # type: ignore[no-untyped-call]
            service(
                metrics_service_pb2_grpc.MetricsServiceServicer,
                "metrics",
                metrics_service_pb2.ExportMetricsServiceResponse,
            ),
            self._server,
        )
        port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        return f"http://127.0.0.1:{port}", received

    def __exit__(self, *_: object) -> None:
        self._server.stop(None)


def test_json_of_the_console_exporter_can_be_read(launch: Launch) -> None:
    """The bridge hands the SDK plain dictionaries where it expects its own mappings."""
    program = """
        import logging
        logging.getLogger("a").error("hello", extra={"k": {"a": [1, None, b"x", 2.5]}, "big": 10**30})
    """
    ended = launch(
        program,
        OTEL_LOGS_EXPORTER="console",
        OTEL_TRACES_EXPORTER="none",
        OTEL_METRICS_EXPORTER="none",
        WEIR_LOG_SAMPLING="off",
    )
    record = json.loads(ended.out)
    assert (record["body"], record["dropped_attributes"]) == ("hello", 0)
    assert record["attributes"]["k"]["a"][0] == 1
    assert record["attributes"]["big"] == str(10**30)
