"""Redaction in the SDK: processors and an exporter that stand before others."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import AlwaysOnExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.metrics.view import View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanContext, Status, StatusCode, TraceFlags
from opentelemetry.trace.span import TraceState

from otelweir.distro.redaction import log_encoder, span_encoder
from otelweir.errors import MissingExtra
from otelweir.pipeline.redact import (
    LogRedaction,
    MetricRedaction,
    RedactingLogProcessor,
    RedactingMetricExporter,
    RedactingSpanProcessor,
    Redactor,
    SpanRedaction,
)
from otelweir.pipeline.redact.actions import FAILED
from otelweir.pipeline.redact.otel import count_replacements, redactor_of
from otelweir.pipeline.redact.presidio import PresidioDetector
from otelweir.pipeline.redact.settings import RedactSettings
from otelweir.pipeline.spool.otlp import encode_log, encode_span

SECRET = "bob@example.org"
RESOURCE = Resource({"service.name": "shop", "owner": SECRET})


def spans(redactor: Redactor | None = None, **limits: Any) -> tuple[TracerProvider, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(resource=RESOURCE, span_limits=SpanLimits(**limits), shutdown_on_exit=False)
    provider.add_span_processor(RedactingSpanProcessor(SimpleSpanProcessor(exporter), redactor or Redactor()))
    return provider, exporter


def full_span() -> ReadableSpan:
    provider = TracerProvider(resource=RESOURCE, shutdown_on_exit=False)
    state = TraceState([("v", SECRET), ("w", "1")])
    link = Link(SpanContext(1, 2, True, TraceFlags(1), state), {"to": SECRET})
    span = provider.get_tracer(f"scope of {SECRET}", attributes={"by": SECRET}).start_span(
        f"mail {SECRET}", links=[link], attributes={"to": SECRET, "n": 1, "nested": [SECRET], "password": "hunter2"}
    )
    span.add_event(f"sent to {SECRET}", {"to": SECRET})
    span.record_exception(ValueError(f"no {SECRET}"))
    span.set_status(Status(StatusCode.ERROR, f"no {SECRET}"))
    span.end()
    return span  # type: ignore[return-value]


def log_record(body: Any = f"mail {SECRET}") -> LogRecord:
    return LogRecord(
        timestamp=1, body=body, severity_number=SeverityNumber.INFO, attributes={"to": SECRET}, event_name="mail.sent"
    )


class TestSpans:
    def test_no_part_keeps_a_secret_and_the_rest_stays(self) -> None:
        given = full_span()
        found = SpanRedaction(Redactor().of("traces"))(given)
        assert SECRET not in found.to_json() and "hunter2" not in found.to_json()
        assert found.name == "mail [redacted:email]"
        assert found.context == given.context and found.start_time == given.start_time
        assert found.attributes is not None and found.attributes["n"] == 1
        assert found.status.status_code is StatusCode.ERROR
        assert found.instrumentation_scope is not None and SECRET not in repr(found.instrumentation_scope)
        assert SECRET not in repr([link.attributes for link in found.links])

    def test_the_original_is_not_changed(self) -> None:
        given = full_span()
        SpanRedaction(Redactor().of("traces"))(given)
        assert given.name == f"mail {SECRET}"

    def test_without_a_secret_it_is_the_same_object(self) -> None:
        provider = TracerProvider(resource=Resource({}), shutdown_on_exit=False)
        span: Any = provider.get_tracer("a").start_span("GET /", attributes={"n": 1, "http.route": "/"})
        span.end()
        assert SpanRedaction(Redactor().of("traces"))(span) is span

    def test_what_was_dropped_before_is_still_counted(self) -> None:
        provider, exporter = spans(max_attributes=1, max_events=1)
        with provider.get_tracer("a").start_as_current_span("x", attributes={"a": 1, "to": SECRET}) as span:
            span.add_event("one")
            span.add_event("two")
        [found] = exporter.get_finished_spans()
        assert (found.dropped_attributes, found.dropped_events, found.dropped_links) == (1, 1, 0)
        assert found.attributes == {"to": "[redacted:email]"}

    def test_what_cannot_be_read_leaves_next_to_nothing(self) -> None:
        class Broken(ReadableSpan):
            @property
            def events(self) -> Any:
                raise RuntimeError(SECRET)

        context = SpanContext(1, 2, False, TraceFlags(1))
        found = SpanRedaction(Redactor().of("traces"))(Broken(SECRET, context, attributes={"to": SECRET}))
        assert (found.name, found.context, dict(found.attributes or {})) == (FAILED, context, {})

    def test_entries_of_the_trace_state_with_a_secret_are_left_out(self) -> None:
        context = SpanContext(1, 2, False, TraceFlags(1), TraceState([("v", SECRET), ("w", "1")]))
        found = SpanRedaction(Redactor().of("traces"))(ReadableSpan("x", context, resource=Resource({})))
        assert found.context is not None and dict(found.context.trace_state) == {"w": "1"}


class TestLogs:
    def test_no_part_keeps_a_secret_and_other_processors_get_the_original(self) -> None:
        ours: Any = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
        theirs: Any = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
        provider = LoggerProvider(resource=RESOURCE, shutdown_on_exit=False)
        provider.add_log_record_processor(RedactingLogProcessor(SimpleLogRecordProcessor(ours), Redactor()))
        provider.add_log_record_processor(SimpleLogRecordProcessor(theirs))
        provider.get_logger("a").emit(log_record())
        provider.get_logger("a").emit(log_record({"to": [SECRET], "token": "abc"}))
        first, second = ours.get_finished_logs()
        assert SECRET not in first.to_json() + second.to_json()
        assert second.log_record.body == {"to": ["[redacted:email]"], "token": "[redacted:name]"}
        assert first.log_record.event_name == "mail.sent"
        assert theirs.get_finished_logs()[0].log_record.body == f"mail {SECRET}"


class TestEncoders:
    """The way into the spool has the same outcome as replacing each record first, and is cheaper."""

    def test_of_spans(self) -> None:
        redactor = Redactor()
        encode, given = span_encoder(redactor), full_span()
        for _ in range(2):
            group, record = encode(given)
            assert SECRET.encode() not in group.resource + group.scope + record
            assert (group, record) == encode_span(SpanRedaction(redactor.of("traces"))(given))

    def test_of_log_records(self) -> None:
        from opentelemetry.sdk._logs import ReadWriteLogRecord

        redactor = Redactor()
        encode, redact = log_encoder(redactor), LogRedaction(redactor.of("logs"))
        for body in ("plain", f"mail {SECRET}", {"to": SECRET}, ["a", 1], None, 4111111111111111, b"x"):
            given = ReadWriteLogRecord(log_record(body), RESOURCE)
            for _ in range(2):
                assert encode(given) == encode_log(redact(given))
                assert SECRET.encode() not in encode(given)[1]

    def test_another_plan_holds_from_the_next_record_on(self) -> None:
        redactor = Redactor()
        encode = span_encoder(redactor)
        clean = ReadableSpan(
            "to 10.1.2.3", SpanContext(1, 2, False, TraceFlags(1)), resource=Resource({}), attributes={}
        )
        assert b"10.1.2.3" in encode(clean)[1]
        redactor.apply({"rules": "default,ipv4"})
        assert b"[redacted:ipv4]" in encode(clean)[1]


class Kept(MetricExporter):
    def __init__(self) -> None:
        super().__init__()
        self.data: list[MetricsData] = []

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        self.data.append(metrics_data)
        return MetricExportResult.SUCCESS

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        pass

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True


class TestMetrics:
    def test_points_and_resource(self) -> None:
        reader = InMemoryMetricReader()
        provider = MeterProvider([reader], resource=RESOURCE, shutdown_on_exit=False)
        meter = provider.get_meter("a")
        meter.create_counter("logins").add(1, {"user": SECRET, "route": "/"})
        meter.create_histogram("times").record(0.1, {"password": "hunter2"})
        data = reader.get_metrics_data()
        assert data is not None
        kept = Kept()
        RedactingMetricExporter(kept, Redactor()).export(data)
        assert SECRET not in kept.data[0].to_json() and "hunter2" not in kept.data[0].to_json()
        assert '"route": "/"' in kept.data[0].to_json()
        assert SECRET in data.to_json()

    def test_exemplars(self) -> None:
        """They carry the attributes that a view took off the point."""
        reader, view = InMemoryMetricReader(), View(instrument_name="*", attribute_keys={"route"})
        provider = MeterProvider(
            [reader], RESOURCE, views=[view], exemplar_filter=AlwaysOnExemplarFilter(), shutdown_on_exit=False
        )
        provider.get_meter("a").create_counter("logins").add(1, {"user": SECRET, "password": "hunter2", "route": "/"})
        data = reader.get_metrics_data()
        assert data is not None and "hunter2" in data.to_json()
        found = MetricRedaction(Redactor().of("metrics"))(data).to_json()
        assert "hunter2" not in found and SECRET not in found
        assert '"user": "[redacted:email]"' in found

    def test_what_cannot_be_read_does_not_leave(self) -> None:
        broken: Any = MetricsData([object()])  # type: ignore[list-item]
        assert MetricRedaction(Redactor().of("metrics"))(broken).resource_metrics == []

    def test_what_was_hidden_is_counted(self) -> None:
        redactor, reader = Redactor(), InMemoryMetricReader()
        count_replacements(redactor, MeterProvider([reader], shutdown_on_exit=False))
        redactor.of("logs").text(SECRET)
        data = reader.get_metrics_data()
        assert data is not None
        [metric] = data.resource_metrics[0].scope_metrics[0].metrics
        [point] = metric.data.data_points
        assert metric.name == "weir.redact.replaced"
        assert dict(point.attributes or {}) == {"weir.redact.rule": "email", "weir.signal": "logs"}


class TestPresidio:
    def test_that_is_not_installed_names_what_to_install(self) -> None:
        with pytest.raises(MissingExtra, match=r"pip install 'otelweir\[presidio\]'"):
            redactor_of(RedactSettings(redact_detector="presidio"))

    def test_without_its_model_nothing_is_downloaded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The default analyser would, on the thread of the first log call."""
        presidio: Any = ModuleType("presidio_analyzer")
        presidio.AnalyzerEngine = None
        monkeypatch.setitem(sys.modules, "presidio_analyzer", presidio)
        with pytest.raises(MissingExtra, match="python -m spacy download en_core_web_lg"):
            redactor_of(RedactSettings(redact_detector="presidio"))

    def test_an_analyser_of_ones_own(self) -> None:
        class Result:
            start, end, score, entity_type = 0, 3, 0.9, "PERSON"

        class Analyzer:
            def analyze(self, **_: Any) -> list[Result]:
                return [Result()]

        redactor = Redactor(detector=PresidioDetector(Analyzer()))
        assert redactor.of("logs").text("Bob paid") == "[redacted:person] paid"
