"""Records of the spool, to be read: as OTLP's JSON, and as a line."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import import_module
from typing import Any, Final

from otelweir.pipeline.spool import Group, join
from otelweir.signals import Lane

_REQUESTS: Final[dict[Lane, tuple[str, str]]] = {
    "traces": ("trace", "ExportTraceServiceRequest"),
    "logs": ("logs", "ExportLogsServiceRequest"),
    "metrics": ("metrics", "ExportMetricsServiceRequest"),
}
_LISTS: Final[dict[Lane, tuple[str, str, str]]] = {
    "traces": ("resourceSpans", "scopeSpans", "spans"),
    "logs": ("resourceLogs", "scopeLogs", "logRecords"),
    "metrics": ("resourceMetrics", "scopeMetrics", "metrics"),
}
_IDS: Final = ("traceId", "spanId", "parentSpanId")
_KINDS: Final = ("gauge", "sum", "histogram", "exponentialHistogram", "summary")
_STATUS: Final = {1: "OK", 2: "ERROR"}


def decoded(lane: Lane, group: Group, record: bytes) -> dict[str, Any] | None:
    """A record as the OTLP request that holds it alone, in OTLP's JSON; None where it is no such message."""
    from google.protobuf.json_format import Error, MessageToDict  # type: ignore[import-untyped]
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    package, name = _REQUESTS[lane]
    request = getattr(import_module(f"opentelemetry.proto.collector.{package}.v1.{package}_service_pb2"), name)()
    try:
        request.ParseFromString(join([(group, record)]))
        said: dict[str, Any] = MessageToDict(request, use_integers_for_enums=True)
    except (DecodeError, Error, ValueError, RecursionError):
        return None
    _write_ids(said)
    return said


def _write_ids(value: Any) -> None:
    """OTLP's JSON writes ids in hexadecimal digits, where protobuf's has base64."""
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        if key in _IDS and isinstance(part, str):
            value[key] = b64decode(part).hex()
        elif isinstance(part, dict | list):
            _write_ids(part)


def line(lane: Lane, said: dict[str, Any]) -> str:
    """One line for each record of a request, with what matters most first. Not yet fit for a terminal."""
    return "\n".join(_lines(lane, said))


def _lines(lane: Lane, said: dict[str, Any]) -> Iterator[str]:
    by_resource, by_scope, records = _LISTS[lane]
    for of_resource in said.get(by_resource, []):
        service = _attributes(of_resource.get("resource", {})).pop("service.name", "")
        for of_scope in of_resource.get(by_scope, []):
            scope = of_scope.get("scope", {}).get("name", "")
            for record in of_scope.get(records, []):
                parts = _PARTS[lane](record)
                origin = "/".join(part for part in (service, scope) if part)
                yield "  ".join(part for part in (parts[0], lane, origin, *parts[1:]) if part)


def _of_log(record: dict[str, Any]) -> list[str]:
    number = record.get("severityNumber", 0)
    return [
        _time(record.get("timeUnixNano") or record.get("observedTimeUnixNano")),
        record.get("severityText") or (f"severity {number}" if number else ""),
        record.get("eventName", ""),
        _text(_value(record.get("body", {}))),
        _pairs(record),
        f"trace={record['traceId']}" if "traceId" in record else "",
    ]


def _of_span(span: dict[str, Any]) -> list[str]:
    took_ns = int(span.get("endTimeUnixNano", 0)) - int(span.get("startTimeUnixNano", 0))
    status = span.get("status", {})
    return [
        _time(span.get("startTimeUnixNano")),
        span.get("name", ""),
        f"{took_ns / 1e6:.3f} ms",
        " ".join(part for part in (_STATUS.get(status.get("code", 0), ""), status.get("message", "")) if part),
        _pairs(span),
        f"trace={span.get('traceId', '')} span={span.get('spanId', '')}",
    ]


def _of_metric(metric: dict[str, Any]) -> list[str]:
    kind = next((kind for kind in _KINDS if kind in metric), "")
    points = metric.get(kind, {}).get("dataPoints", [])
    shown = []
    for point in points:
        value = point.get("asInt", point.get("asDouble"))
        value = f"count {point.get('count', 0)} sum {point.get('sum', 0)}" if value is None else value
        shown.append(" ".join(part for part in (str(value), _pairs(point)) if part))
    first = points[0].get("timeUnixNano") if points else None
    return [_time(first), metric.get("name", ""), kind, metric.get("unit", ""), "; ".join(shown)]


_PARTS: Final = {"logs": _of_log, "traces": _of_span, "metrics": _of_metric}


def _time(unix_ns: str | None) -> str:
    try:
        return datetime.fromtimestamp(int(unix_ns or 0) // 1000 / 1e6, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return str(unix_ns)


def _attributes(holder: dict[str, Any]) -> dict[str, Any]:
    return {pair.get("key", ""): _value(pair.get("value", {})) for pair in holder.get("attributes", [])}


def _pairs(holder: dict[str, Any]) -> str:
    return " ".join(f"{name}={_text(value)}" for name, value in _attributes(holder).items())


def _value(said: dict[str, Any]) -> Any:
    """An `AnyValue` as a plain one."""
    if "arrayValue" in said:
        return [_value(value) for value in said["arrayValue"].get("values", [])]
    if "kvlistValue" in said:
        return {pair.get("key", ""): _value(pair.get("value", {})) for pair in said["kvlistValue"].get("values", [])}
    if "intValue" in said:
        return int(said["intValue"])
    return next(iter(said.values()), None)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)
