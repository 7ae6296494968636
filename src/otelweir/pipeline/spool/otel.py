"""The spool in the SDK: processors that put records into it when they are finished, exporters that do so in batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from opentelemetry.sdk._logs import LogRecordProcessor, ReadableLogRecord, ReadWriteLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.metrics import Counter, Histogram, ObservableCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.metrics.view import Aggregation, ExponentialBucketHistogramAggregation
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import StatusCode

from otelweir import errors
from otelweir.pipeline.spool.otlp import Encoded, Group, encode_log, encode_span
from otelweir.signals import ERROR, Lane


class Outlet(Protocol):
    """Where finished records go."""

    def append(self, lane: Lane, encoded: Encoded, *, urgent: bool = False) -> bool:
        """Keep a record; False when it was refused, and counted."""

    def flush_lane(self, lane: Lane, timeout_s: float) -> bool:
        """Send what waits in a lane; whether all that was accepted arrived."""

    def release(self, lane: Lane, timeout_s: float) -> None:
        """No more records come for a lane from this side."""


class SpoolSpanProcessor(SpanProcessor):
    """Encodes each sampled span when it ends, and keeps it in the spool.

    Args:
        outlet: The spool, with who empties it.
        shutdown_s: How long `shutdown` may take to send what waits.
        encode: Makes the bytes of a span.
    """

    def __init__(self, outlet: Outlet, shutdown_s: float = 5.0, encode: Callable[[Any], Encoded] = encode_span) -> None:
        self._outlet = outlet
        self._append = outlet.append
        self._shutdown_s = shutdown_s
        self._encode = encode
        self._ended = False

    def on_end(self, span: ReadableSpan) -> None:
        context = span.context
        if context is None or not context.trace_flags & 1 or self._ended:
            return
        try:
            self._append("traces", self._encode(span), urgent=span.status.status_code is StatusCode.ERROR)
        except Exception as error:  # noqa: BLE001 - our bug must not become the host's
            errors.warn(errors.SPOOL_FAILED, f"{type(error).__name__}: {error}", exc_info=error)

    def shutdown(self) -> None:
        if not self._ended:
            self._ended = True
            self._outlet.release("traces", self._shutdown_s)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._outlet.flush_lane("traces", timeout_millis / 1000)


class SpoolLogProcessor(LogRecordProcessor):
    """Encodes each log record when it is emitted, and keeps it in the spool. Errors and events go last when it is full.

    Args:
        outlet: The spool, with who empties it.
        shutdown_s: How long `shutdown` may take to send what waits.
        encode: Makes the bytes of a log record.
    """

    def __init__(self, outlet: Outlet, shutdown_s: float = 5.0, encode: Callable[[Any], Encoded] = encode_log) -> None:
        self._outlet = outlet
        self._append = outlet.append
        self._shutdown_s = shutdown_s
        self._encode = encode
        self._ended = False

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        if self._ended:
            return
        try:
            self._append("logs", self._encode(log_record), urgent=_urgent(log_record))
        except Exception as error:  # noqa: BLE001 - our bug must not become the host's
            errors.warn(errors.SPOOL_FAILED, f"{type(error).__name__}: {error}", exc_info=error)

    def shutdown(self) -> None:
        if not self._ended:
            self._ended = True
            self._outlet.release("logs", self._shutdown_s)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._outlet.flush_lane("logs", timeout_millis / 1000)


class SpoolSpanExporter(SpanExporter):
    """Puts the spans of a batch into the spool. For set-ups with a batch processor of their own.

    Args:
        outlet: The spool, with who empties it.
        shutdown_s: How long `shutdown` may take to send what waits.
        encode: Makes the bytes of a span.
    """

    def __init__(self, outlet: Outlet, shutdown_s: float = 5.0, encode: Callable[[Any], Encoded] = encode_span) -> None:
        self._outlet = outlet
        self._shutdown_s = shutdown_s
        self._encode = encode

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        kept = [
            self._outlet.append("traces", self._encode(span), urgent=span.status.status_code is StatusCode.ERROR)
            for span in spans
        ]
        return SpanExportResult.SUCCESS if all(kept) else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self._outlet.release("traces", self._shutdown_s)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._outlet.flush_lane("traces", timeout_millis / 1000)


class SpoolLogExporter(LogRecordExporter):
    """Puts the records of a batch into the spool. For set-ups with a batch processor of their own.

    Args:
        outlet: The spool, with who empties it.
        shutdown_s: How long `shutdown` may take to send what waits.
        encode: Makes the bytes of a log record.
    """

    def __init__(self, outlet: Outlet, shutdown_s: float = 5.0, encode: Callable[[Any], Encoded] = encode_log) -> None:
        self._outlet = outlet
        self._shutdown_s = shutdown_s
        self._encode = encode

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        kept = [self._outlet.append("logs", self._encode(record), urgent=_urgent(record)) for record in batch]
        return LogRecordExportResult.SUCCESS if all(kept) else LogRecordExportResult.FAILURE

    def shutdown(self) -> None:
        self._outlet.release("logs", self._shutdown_s)

    def force_flush(self, timeout_millis: int = 10_000) -> bool:
        return self._outlet.flush_lane("logs", timeout_millis / 1000)


class SpoolMetricExporter(MetricExporter):
    """Puts metrics into the spool, one frame each, encoded by OpenTelemetry's own encoder.

    Args:
        outlet: The spool, with who empties it.
        shutdown_s: How long `shutdown` may take to send what waits.
        environ: Where the preferred temporality and histogram aggregation stand.
        encode: Makes records of metrics.
    """

    def __init__(
        self,
        outlet: Outlet,
        shutdown_s: float = 5.0,
        environ: Mapping[str, str] = os.environ,
        encode: Callable[[MetricsData], list[Encoded]] | None = None,
    ) -> None:
        super().__init__(preferred_temporality(environ), preferred_aggregation(environ))
        self._outlet = outlet
        self._shutdown_s = shutdown_s
        self._encode = encode or encode_metrics

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: Any) -> MetricExportResult:
        kept = [self._outlet.append("metrics", encoded) for encoded in self._encode(metrics_data)]
        return MetricExportResult.SUCCESS if all(kept) else MetricExportResult.FAILURE

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        self._outlet.release("metrics", min(self._shutdown_s, timeout_millis / 1000))

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return self._outlet.flush_lane("metrics", timeout_millis / 1000)


def _urgent(log_record: ReadableLogRecord | ReadWriteLogRecord) -> bool:
    record = log_record.log_record
    number = record.severity_number
    return (number is not None and number.value >= ERROR) or bool(record.event_name)


def encode_metrics(data: MetricsData) -> list[Encoded]:
    """Metrics as the spool keeps them: one record a metric.

    `ResourceMetrics` and `ScopeMetrics` have the same field numbers as their counterparts for spans, so `join` makes
    requests of them, too.
    """
    # Only here: it brings protobuf.
    from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics as encode

    found: list[Encoded] = []
    for resource in encode(data).resource_metrics:
        of_resource = _field(1, resource.resource.SerializeToString()) + _schema(resource.schema_url)
        for scope in resource.scope_metrics:
            group = Group(of_resource, _field(1, scope.scope.SerializeToString()) + _schema(scope.schema_url))
            found += [(group, _field(2, metric.SerializeToString())) for metric in scope.metrics]
    return found


def _schema(url: str) -> bytes:
    return _field(3, url.encode()) if url else b""


def _field(number: int, content: bytes) -> bytes:
    """A field of bytes, with its tag and length."""
    length = len(content)
    varint = bytearray()
    while length > 0x7F:
        varint.append(length & 0x7F | 0x80)
        length >>= 7
    varint.append(length)
    return bytes([number << 3 | 2]) + varint + content


_DELTA: Final[Mapping[str, tuple[type, ...]]] = {
    "delta": (Counter, Histogram, ObservableCounter),
    "lowmemory": (Counter, Histogram),
}


def preferred_temporality(environ: Mapping[str, str]) -> dict[type, AggregationTemporality]:
    """What `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE` asks for; instruments not in it are cumulative.

    Source: https://opentelemetry.io/docs/specs/otel/metrics/sdk_exporters/otlp/
    """
    given = environ.get("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "").strip().lower()
    if given not in ("", "cumulative", *_DELTA):
        errors.warn(
            errors.BAD_VALUE,
            f"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE={given!r} is not cumulative, delta or lowmemory",
        )
    return dict.fromkeys(_DELTA.get(given, ()), AggregationTemporality.DELTA)


def preferred_aggregation(environ: Mapping[str, str]) -> dict[type, Aggregation]:
    """What `OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION` asks for."""
    name = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"
    given = environ.get(name, "").strip().lower()
    if given == "base2_exponential_bucket_histogram":
        return {Histogram: ExponentialBucketHistogramAggregation()}
    if given not in ("", "explicit_bucket_histogram"):
        allowed = "explicit_bucket_histogram or base2_exponential_bucket_histogram"
        errors.warn(errors.BAD_VALUE, f"{name}={given!r} is not {allowed}")
    return {}
