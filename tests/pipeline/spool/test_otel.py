"""The spool's seams in the SDK: what enters it, as what, and what the SDK is told."""

from __future__ import annotations

from collections import Counter as Counts
from typing import Any

import pytest
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics as official
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider, ObservableCounter, UpDownCounter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    InMemoryMetricReader,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import StatusCode

from otelweir.pipeline.spool import Encoded, join
from otelweir.pipeline.spool.otel import (
    SpoolLogExporter,
    SpoolLogProcessor,
    SpoolMetricExporter,
    SpoolSpanExporter,
    SpoolSpanProcessor,
    encode_metrics,
    preferred_aggregation,
    preferred_temporality,
)
from otelweir.signals import Lane

PREFERENCE = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
HISTOGRAMS = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"


class Outlet:
    """Keeps what it gets; refuses everything when it is full."""

    def __init__(self, *, full: bool = False) -> None:
        self.kept: list[tuple[Lane, Encoded, bool]] = []
        self.calls: list[tuple[str, Lane, float]] = []
        self._full = full

    def append(self, lane: Lane, encoded: Encoded, *, urgent: bool = False) -> bool:
        if not self._full:
            self.kept.append((lane, encoded, urgent))
        return not self._full

    def flush_lane(self, lane: Lane, timeout_s: float) -> bool:
        self.calls.append(("flush", lane, timeout_s))
        return not self._full

    def release(self, lane: Lane, timeout_s: float) -> None:
        self.calls.append(("release", lane, timeout_s))

    def request(self) -> bytes:
        return join(encoded for _, encoded, _ in self.kept)


def measured() -> MetricsData:
    """Metrics of every kind, of two scopes."""
    reader = InMemoryMetricReader()
    views = [View(instrument_name="sizes", aggregation=ExponentialBucketHistogramAggregation())]
    provider = MeterProvider([reader], Resource({"service.name": "shop"}, "https://schema/1"), views=views)
    meter = provider.get_meter("shop", "1.2", "https://schema/2", {"team": "a"})
    meter.create_counter("orders", "{order}", "Orders.").add(3, {"kind": "new"})
    meter.create_up_down_counter("open").add(-2)
    meter.create_histogram("seconds").record(0.25)
    meter.create_histogram("sizes").record(1e9)
    other = provider.get_meter("other")
    other.create_gauge("level").set(1.5)
    other.create_observable_counter("ticks", [lambda _: []])
    data = reader.get_metrics_data()
    assert data is not None
    provider.shutdown()
    return data


class TestMetrics:
    def test_are_what_the_official_encoder_says(self) -> None:
        data = measured()
        records = encode_metrics(data)
        assert len(records) == 5
        assert ExportMetricsServiceRequest.FromString(join(records)) == official(data)

    def test_in_any_division_they_are_the_same(self) -> None:
        records = encode_metrics(measured())
        names = [
            metric.name
            for one in records
            for resource in ExportMetricsServiceRequest.FromString(join([one])).resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]
        assert Counts(names) == Counts(["orders", "open", "seconds", "sizes", "level"])

    def test_go_out_with_the_reader_and_its_end(self) -> None:
        outlet = Outlet()
        provider = MeterProvider([PeriodicExportingMetricReader(SpoolMetricExporter(outlet, 3.0, {}))])
        provider.get_meter("shop").create_counter("orders").add(1)
        assert provider.force_flush()
        provider.shutdown()
        assert {lane for lane, _, _ in outlet.kept} == {"metrics"}
        assert ("release", "metrics", 3.0) in outlet.calls

    def test_that_are_refused_are_a_failure(self) -> None:
        exporter = SpoolMetricExporter(Outlet(full=True), environ={})
        assert exporter.export(measured()) is MetricExportResult.FAILURE
        assert not exporter.force_flush()

    @pytest.mark.parametrize(
        ("given", "delta"),
        [
            ("", ()),
            ("Cumulative", ()),
            ("delta", (Counter, Histogram, ObservableCounter)),
            (" LOWMEMORY ", (Counter, Histogram)),
            ("sometimes", ()),
        ],
    )
    def test_have_the_temporality_that_is_asked_for(
        self, given: str, delta: tuple[type, ...], caplog: pytest.LogCaptureFixture
    ) -> None:
        found = preferred_temporality({PREFERENCE: given})
        assert found == dict.fromkeys(delta, AggregationTemporality.DELTA)
        assert UpDownCounter not in found
        assert (PREFERENCE in caplog.text) == (given == "sometimes")

    def test_have_the_histograms_that_are_asked_for(self, caplog: pytest.LogCaptureFixture) -> None:
        assert preferred_aggregation({}) == {} == preferred_aggregation({HISTOGRAMS: "explicit_bucket_histogram"})
        found = preferred_aggregation({HISTOGRAMS: "base2_exponential_bucket_histogram"})
        assert isinstance(found[Histogram], ExponentialBucketHistogramAggregation)
        assert not caplog.text
        assert preferred_aggregation({HISTOGRAMS: "round"}) == {}
        assert f"{HISTOGRAMS}='round'" in caplog.text


def _span_set_up(outlet: Outlet, batched: bool, **provider: Any) -> TracerProvider:
    found = TracerProvider(shutdown_on_exit=False, **provider)
    found.add_span_processor(
        BatchSpanProcessor(SpoolSpanExporter(outlet, 3.0)) if batched else SpoolSpanProcessor(outlet, 3.0)
    )
    return found


def _log_set_up(outlet: Outlet, batched: bool) -> LoggerProvider:
    found = LoggerProvider(shutdown_on_exit=False)
    found.add_log_record_processor(
        BatchLogRecordProcessor(SpoolLogExporter(outlet, 3.0)) if batched else SpoolLogProcessor(outlet, 3.0)
    )
    return found


@pytest.mark.parametrize("batched", [False, True], ids=["processor", "exporter"])
class TestSpansAndRecords:
    def test_that_failed_are_urgent(self, batched: bool) -> None:
        outlet = Outlet()
        provider = _span_set_up(outlet, batched)
        tracer = provider.get_tracer("shop")
        tracer.start_span("fine").end()
        span = tracer.start_span("failed")
        span.set_status(StatusCode.ERROR)
        span.end()
        provider.shutdown()
        request = ExportTraceServiceRequest.FromString(outlet.request())
        names = [span.name for span in request.resource_spans[0].scope_spans[0].spans]
        assert list(zip(names, [urgent for _, _, urgent in outlet.kept], strict=True)) == [
            ("fine", False),
            ("failed", True),
        ]
        assert outlet.calls == [("release", "traces", 3.0)]

    def test_that_are_not_sampled_stay_out(self, batched: bool) -> None:
        outlet = Outlet()
        provider = _span_set_up(outlet, batched, sampler=ALWAYS_OFF)
        provider.get_tracer("shop").start_span("unwanted").end()
        provider.shutdown()
        assert outlet.kept == []

    def test_errors_and_events_are_urgent(self, batched: bool) -> None:
        outlet = Outlet()
        provider = _log_set_up(outlet, batched)
        logger = provider.get_logger("shop")
        logger.emit(LogRecord(body="fine", severity_number=SeverityNumber.WARN4))
        logger.emit(LogRecord(body="error", severity_number=SeverityNumber.ERROR))
        logger.emit(LogRecord(body="event", event_name="ordered"))
        logger.emit(LogRecord(body="unknown"))
        provider.shutdown()
        request = ExportLogsServiceRequest.FromString(outlet.request())
        bodies = [record.body.string_value for record in request.resource_logs[0].scope_logs[0].log_records]
        assert dict(zip(bodies, [urgent for _, _, urgent in outlet.kept], strict=True)) == {
            "fine": False,
            "error": True,
            "event": True,
            "unknown": False,
        }
        assert outlet.calls == [("release", "logs", 3.0)]


class TestProcessors:
    def test_ask_the_outlet_whether_all_of_it_arrived(self) -> None:
        for full in (False, True):
            outlet = Outlet(full=full)
            assert SpoolSpanProcessor(outlet).force_flush(2000) is not full
            assert SpoolLogProcessor(outlet).force_flush(500) is not full
            assert outlet.calls == [("flush", "traces", 2.0), ("flush", "logs", 0.5)]

    def test_take_nothing_after_their_end_and_end_once(self) -> None:
        outlet = Outlet()
        spans, logs = _span_set_up(outlet, False), _log_set_up(outlet, False)
        span = spans.get_tracer("shop").start_span("late")
        for provider in (spans, logs, spans, logs):
            provider.shutdown()
        span.end()
        assert outlet.kept == []
        assert [(name, lane) for name, lane, _ in outlet.calls] == [("release", "traces"), ("release", "logs")]

    def test_a_fault_of_ours_is_not_the_hosts(self, caplog: pytest.LogCaptureFixture) -> None:
        class Broken(Outlet):
            def append(self, lane: Lane, encoded: Encoded, *, urgent: bool = False) -> bool:
                raise RuntimeError(f"broken {lane}")

        outlet = Broken()
        spans, logs = _span_set_up(outlet, False), _log_set_up(outlet, False)
        spans.get_tracer("shop").start_span("one").end()
        logs.get_logger("shop").emit(LogRecord(body="one"))
        assert "WEIR-SPOOL-005: RuntimeError: broken traces" in caplog.text
        assert "WEIR-SPOOL-005: RuntimeError: broken logs" in caplog.text
