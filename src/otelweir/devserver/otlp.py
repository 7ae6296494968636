"""OTLP over HTTP, read: a request's bytes and headers become plain rows.

Nothing here touches a disk, a socket or a clock. What a client did wrong is one of the `RequestError` exceptions, which
carry the HTTP status to answer with.

The JSON form is protobuf's JSON mapping with OTLP's own exceptions: trace and span ids are hexadecimal rather than
base64, keys are lowerCamelCase, 64-bit integers are strings, enumerations are numbers, unknown keys are ignored.

Source: https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import zlib
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from typing import Any, Literal, TypeAlias

from google.protobuf import json_format  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]
from google.rpc import status_pb2  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from otelweir.devserver.rows import (
    ROLLUP_EVENT,
    Batch,
    LogRow,
    PointRow,
    ResourceRow,
    RollupRow,
    Signal,
    SpanRow,
    severity_band,
)

Encoding: TypeAlias = Literal["protobuf", "json"]

CONTENT_TYPES: Mapping[Encoding, str] = {"protobuf": "application/x-protobuf", "json": "application/json"}

_INT64_MAX = 2**63 - 1
# No process logs this often; a sum of such counts still fits into SQLite's integers.
_ABSURD = 10**12
_SPAN_KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
_STATUSES = ("unset", "ok", "error")
_TEMPORALITIES = ("", "delta", "cumulative")
_ID_FIELDS = frozenset({"traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"})
# Taking a member off the front copies what is behind it, so their number must have an end.
_MAX_GZIP_MEMBERS = 100


class RequestError(Exception):
    """A request that cannot be taken, through no fault of ours.

    ├── MalformedError          400: the body is not what its headers say
    ├── TooLargeError           413: the body, or what it unpacks to, is above the limit
    └── UnsupportedMediaError   415: a content type or encoding that OTLP does not have
    """

    status = 400


class MalformedError(RequestError):
    """The body is not what its headers say."""


class TooLargeError(RequestError):
    """The body, or what it unpacks to, is above the limit."""

    status = 413


class UnsupportedMediaError(RequestError):
    """A content type or a content encoding that OTLP over HTTP does not have."""

    status = 415


def encoding_of(content_type: str) -> Encoding:
    """The encoding a Content-Type header names; parameters such as a charset are ignored.

    Raises:
        UnsupportedMediaError: It is neither of OTLP's two.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    for encoding, name in CONTENT_TYPES.items():
        if media_type == name:
            return encoding
    said = f"not {media_type!r}" if media_type else "and there is none"
    raise UnsupportedMediaError(f"Content-Type must be application/x-protobuf or application/json, {said}")


def unpack(body: bytes, content_encoding: str, max_bytes: int) -> bytes:
    """The body without its compression.

    Args:
        body: As received.
        content_encoding: The header of that name: gzip, deflate, identity or nothing.
        max_bytes: More than this is never produced, however well it was packed.

    Raises:
        TooLargeError: The body unpacks to more than `max_bytes`.
        MalformedError: The body is not in the format the header names, or ends early.
        UnsupportedMediaError: A compression other than these.
    """
    match content_encoding.strip().lower():
        case "" | "identity":
            if len(body) > max_bytes:
                raise too_large(max_bytes, "is larger than")
            return body
        case "gzip" | "x-gzip":
            return _inflate(body, "gzip", zlib.MAX_WBITS | 16, max_bytes)
        case "deflate":
            # "deflate" means the zlib format, but some clients send the bare stream. A zlib header says method 8.
            zlib_format = body[:1] and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0
            return _inflate(body, "deflate", zlib.MAX_WBITS if zlib_format else -zlib.MAX_WBITS, max_bytes)
        case other:
            raise UnsupportedMediaError(f"Content-Encoding must be gzip, deflate or absent, not {other!r}")


def decode(signal: Signal, encoding: Encoding, body: bytes) -> Batch:
    """The rows in the body of an export request.

    Raises:
        MalformedError: The body is not such a request.
    """
    request = _REQUESTS[signal]()
    if encoding == "protobuf":
        try:
            request.ParseFromString(body)
        except DecodeError as error:
            raise MalformedError(f"the body is not a protobuf {request.DESCRIPTOR.name}: {error}") from None
    else:
        _parse_json(request, body)
    batch = Batch(signal)
    _FILLERS[signal](request, batch)
    return batch


def success(signal: Signal, encoding: Encoding) -> bytes:
    """The body of a full success: an export response in which nothing is set."""
    return _RESPONSES[signal]().SerializeToString() if encoding == "protobuf" else b"{}"


def failure(encoding: Encoding, code: int, message: str) -> bytes:
    """The body of a failure: a google.rpc.Status with a gRPC status code."""
    # A message may quote the request, and protobuf takes no lone surrogates.
    message = message.encode("utf-8", "replace").decode()
    if encoding == "protobuf":
        return bytes(status_pb2.Status(code=code, message=message).SerializeToString())
    return json.dumps({"code": code, "message": message}).encode()


_REQUESTS: Mapping[Signal, Callable[[], Any]] = {
    "logs": logs_service_pb2.ExportLogsServiceRequest,
    "traces": trace_service_pb2.ExportTraceServiceRequest,
    "metrics": metrics_service_pb2.ExportMetricsServiceRequest,
}
_RESPONSES: Mapping[Signal, Callable[[], Any]] = {
    "logs": logs_service_pb2.ExportLogsServiceResponse,
    "traces": trace_service_pb2.ExportTraceServiceResponse,
    "metrics": metrics_service_pb2.ExportMetricsServiceResponse,
}


# ── bytes ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def too_large(max_bytes: int, how: Literal["is larger than", "unpacks to more than"]) -> TooLargeError:
    return TooLargeError(f"the body {how} {max_bytes:,} bytes; send smaller batches or raise the limit (--max-body)")


def _inflate(body: bytes, name: str, wbits: int, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    room = max_bytes
    rest = body
    for _ in range(_MAX_GZIP_MEMBERS):  # a gzip file may have several members, one after the other
        stream = zlib.decompressobj(wbits)
        try:
            # One byte more than allowed, to tell "just fits" from "too large".
            part = stream.decompress(rest, room + 1)
        except zlib.error as error:
            raise MalformedError(f"the body is not valid {name}: {error}") from None
        room -= len(part)
        if room < 0:
            raise too_large(max_bytes, "unpacks to more than")
        parts.append(part)
        if not stream.eof:
            raise MalformedError(f"the {name} body ends early")
        rest = stream.unused_data
        if not rest:
            return b"".join(parts)
        if name != "gzip":
            raise MalformedError(f"the {name} body has {len(rest):,} bytes too many")
    raise MalformedError(f"the gzip body has more than {_MAX_GZIP_MEMBERS} members")


def _parse_json(request: Message, body: bytes) -> None:
    name = request.DESCRIPTOR.name
    try:
        document = json.loads(body)
    except RecursionError:
        raise MalformedError("the JSON body is nested too deeply") from None
    except ValueError as error:  # also what is not UTF-8
        raise MalformedError(f"the body is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise MalformedError(f"the JSON body must be an object, an {name}")
    _hex_to_base64(document)
    try:
        json_format.ParseDict(document, request, ignore_unknown_fields=True)
    except (json_format.ParseError, ValueError, TypeError, RecursionError) as error:
        raise MalformedError(f"the body is not an {name} in JSON: {error}") from None


def _hex_to_base64(document: dict[str, Any]) -> None:
    """Turn OTLP's hexadecimal ids into the base64 of protobuf's JSON mapping, in place.

    Attribute names are values of "key" in this format, so a key called traceId is always the field.
    """
    todo: list[Any] = [document]
    while todo:
        node = todo.pop()
        if isinstance(node, dict):
            for key, value in node.items():
                if key in _ID_FIELDS and isinstance(value, str):
                    try:
                        node[key] = base64.b64encode(binascii.unhexlify(value)).decode()
                    except ValueError:
                        raise MalformedError(f"{key} must be hexadecimal, not {value[:40]!r}") from None
                elif isinstance(value, dict | list):
                    todo.append(value)
        else:
            todo.extend(value for value in node if isinstance(value, dict | list))


# ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _fill_logs(request: logs_service_pb2.ExportLogsServiceRequest, batch: Batch) -> None:
    for group in request.resource_logs:
        resource = _resource(group.resource, batch)
        for scope_logs in group.scope_logs:
            scope = scope_logs.scope.name
            for record in scope_logs.log_records:
                attributes = _attributes(record.attributes)
                rollup = _rollup(record, attributes, resource)
                if rollup is not None:
                    batch.rollups.append(rollup)
                else:
                    batch.logs.append(_log(record, attributes, resource, scope))


def _log(record: LogRecord, attributes: dict[str, Any], resource: ResourceRow, scope: str) -> LogRow:
    body = _plain(record.body)
    return LogRow(
        time_ns=_time(record.time_unix_nano or record.observed_time_unix_nano),
        severity=severity_band(record.severity_number, record.severity_text),
        severity_text=record.severity_text,
        body=body if isinstance(body, str) else "" if body is None else _json(body),
        event=record.event_name or _text(attributes.get("weir.event")),
        trace_id=_id(record.trace_id, 16, "trace_id"),
        span_id=_id(record.span_id, 8, "span_id"),
        resource=resource.key,
        service=resource.service,
        scope=scope,
        pattern_id=_text(attributes.get("weir.pattern.id")),
        template=_text(attributes.get("log.record.template")),
        weight=_weight(attributes.get("weir.sample.weight")),
        reason=_text(attributes.get("weir.sample.reason")),
        is_new=attributes.get("weir.pattern.new") is True,
        attributes=_json(attributes),
    )


def _rollup(record: LogRecord, attributes: dict[str, Any], resource: ResourceRow) -> RollupRow | None:
    """The roll-up this record is; None where it is an ordinary record."""
    # Some senders drop event names, so the name stands in an attribute too.
    if ROLLUP_EVENT not in (record.event_name, attributes.get("weir.event")):
        return None
    pattern_id = _text(attributes.get("weir.pattern.id"))
    seen, kept = _whole(attributes.get("weir.seen")), _whole(attributes.get("weir.kept"))
    if not pattern_id or seen is None or kept is None or max(seen, kept) > _ABSURD:
        return None
    time_ns = _time(record.time_unix_nano or record.observed_time_unix_nano)
    first_ns, last_ns = _whole(attributes.get("weir.first_time")), _whole(attributes.get("weir.last_time"))
    return RollupRow(
        time_ns=time_ns,
        resource=resource.key,
        pattern_id=pattern_id,
        severity=severity_band(0, _text(attributes.get("weir.severity"))),
        template=_text(attributes.get("log.record.template")),
        logger=_text(attributes.get("weir.logger")),
        seen=seen,
        kept=kept,
        first_ns=time_ns if first_ns is None else first_ns,
        last_ns=time_ns if last_ns is None else last_ns,
    )


def _fill_spans(request: trace_service_pb2.ExportTraceServiceRequest, batch: Batch) -> None:
    for group in request.resource_spans:
        resource = _resource(group.resource, batch)
        for scope_spans in group.scope_spans:
            scope = scope_spans.scope.name
            batch.spans.extend(_span(span, resource, scope) for span in scope_spans.spans)


def _span(span: Span, resource: ResourceRow, scope: str) -> SpanRow:
    return SpanRow(
        trace_id=_id(span.trace_id, 16, "trace_id"),
        span_id=_id(span.span_id, 8, "span_id"),
        parent_id=_id(span.parent_span_id, 8, "parent_span_id"),
        name=span.name,
        kind=_name(_SPAN_KINDS, span.kind),
        start_ns=_time(span.start_time_unix_nano),
        end_ns=_time(span.end_time_unix_nano),
        status=_name(_STATUSES, span.status.code),
        status_message=span.status.message,
        resource=resource.key,
        service=resource.service,
        scope=scope,
        attributes=_json(_attributes(span.attributes)),
        events=_json(
            [
                {
                    "name": event.name,
                    "time_ns": _time(event.time_unix_nano),
                    "attributes": _attributes(event.attributes),
                }
                for event in span.events
            ]
        ),
        links=_json(
            [
                {
                    "trace_id": _id(link.trace_id, 16, "link's trace_id"),
                    "span_id": _id(link.span_id, 8, "link's span_id"),
                    "attributes": _attributes(link.attributes),
                }
                for link in span.links
            ]
        ),
    )


def _fill_points(request: metrics_service_pb2.ExportMetricsServiceRequest, batch: Batch) -> None:
    for group in request.resource_metrics:
        resource = _resource(group.resource, batch)
        for scope_metrics in group.scope_metrics:
            scope = scope_metrics.scope.name
            for metric in scope_metrics.metrics:
                _fill_metric(metric, resource, scope, batch.points)


def _fill_metric(metric: metrics_pb2.Metric, resource: ResourceRow, scope: str, points: list[PointRow]) -> None:
    kind = metric.WhichOneof("data")
    if kind is None:
        return
    data: Any = getattr(metric, kind)
    temporality = _name(_TEMPORALITIES, getattr(data, "aggregation_temporality", 0))
    for point in data.data_points:
        value, count, detail = _READERS[kind](point)
        exemplars = getattr(point, "exemplars", ())  # a summary has none
        if exemplars:
            detail["exemplars"] = [_exemplar(exemplar) for exemplar in exemplars]
        points.append(
            PointRow(
                time_ns=_time(point.time_unix_nano),
                start_ns=_time(point.start_time_unix_nano),
                name=metric.name,
                description=metric.description,
                unit=metric.unit,
                kind=kind,
                temporality=temporality,
                monotonic=bool(getattr(data, "is_monotonic", False)),
                # SQLite has no NaN.
                value=None if isinstance(value, float) and math.isnan(value) else value,
                measurements=None if count is None else min(count, _INT64_MAX),
                resource=resource.key,
                service=resource.service,
                scope=scope,
                attributes=_json(_attributes(point.attributes)),
                detail=_json(detail),
            )
        )


_Reading: TypeAlias = tuple[float | None, int | None, dict[str, Any]]


def _read_number(point: metrics_pb2.NumberDataPoint) -> _Reading:
    match point.WhichOneof("value"):
        case "as_int":
            return point.as_int, None, {}
        case "as_double":
            return point.as_double, None, {}
        case None:
            return None, None, {}


def _read_histogram(point: metrics_pb2.HistogramDataPoint) -> _Reading:
    detail: dict[str, Any] = {
        "bounds": [_finite(bound) for bound in point.explicit_bounds],
        "counts": list(point.bucket_counts),
    }
    return _optional(point, "sum"), point.count, detail | _extremes(point)


def _read_exponential(point: metrics_pb2.ExponentialHistogramDataPoint) -> _Reading:
    detail: dict[str, Any] = {
        "scale": point.scale,
        "zero_count": point.zero_count,
        "positive": {"offset": point.positive.offset, "counts": list(point.positive.bucket_counts)},
        "negative": {"offset": point.negative.offset, "counts": list(point.negative.bucket_counts)},
    }
    return _optional(point, "sum"), point.count, detail | _extremes(point)


def _read_summary(point: metrics_pb2.SummaryDataPoint) -> _Reading:
    quantiles = [[_finite(one.quantile), _finite(one.value)] for one in point.quantile_values]
    return point.sum, point.count, {"quantiles": quantiles}


_READERS: Mapping[str, Callable[[Any], _Reading]] = {
    "gauge": _read_number,
    "sum": _read_number,
    "histogram": _read_histogram,
    "exponential_histogram": _read_exponential,
    "summary": _read_summary,
}
_FILLERS: Mapping[Signal, Callable[[Any, Batch], None]] = {
    "logs": _fill_logs,
    "traces": _fill_spans,
    "metrics": _fill_points,
}


# ── values ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _resource(resource: Resource, batch: Batch) -> ResourceRow:
    attributes = _attributes(resource.attributes)
    text = _json(dict(sorted(attributes.items())))
    key = blake2b(text.encode(), digest_size=8).hexdigest()
    service = _text(attributes.get("service.name")) or "unknown_service"
    return batch.resources.setdefault(key, ResourceRow(key, service, text))


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _plain(pair.value) for pair in pairs}


def _plain(value: AnyValue) -> Any:
    match value.WhichOneof("value"):
        case "string_value":
            return value.string_value
        case "int_value":
            return value.int_value
        case "double_value":
            return _finite(value.double_value)
        case "bool_value":
            return value.bool_value
        case "array_value":
            return [_plain(item) for item in value.array_value.values]
        case "kvlist_value":
            return _attributes(value.kvlist_value.values)
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        case _:
            return None


def _exemplar(exemplar: metrics_pb2.Exemplar) -> dict[str, Any]:
    return {
        "time_ns": _time(exemplar.time_unix_nano),
        "value": exemplar.as_int if exemplar.WhichOneof("value") == "as_int" else _finite(exemplar.as_double),
        "trace_id": _id(exemplar.trace_id, 16, "exemplar's trace_id"),
        "span_id": _id(exemplar.span_id, 8, "exemplar's span_id"),
        "attributes": _attributes(exemplar.filtered_attributes),
    }


def _extremes(point: Any) -> dict[str, Any]:
    return {name: _finite(getattr(point, name)) for name in ("min", "max") if point.HasField(name)}


def _optional(point: Any, name: str) -> float | None:
    return float(getattr(point, name)) if point.HasField(name) else None


def _finite(value: float) -> float | str:
    """JSON has no such numbers; protobuf's mapping writes them as strings."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _weight(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _ABSURD:
        return float(value)
    return 1.0


def _whole(value: object) -> int | None:
    """A whole number that is not negative, also where a sender made it a string or a double."""
    if isinstance(value, str):
        value = int(value) if value.isascii() and value.isdigit() and len(value) < 20 else None
    elif isinstance(value, float):
        value = int(value) if value.is_integer() else None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        return None
    return min(value, _INT64_MAX)


def _time(unsigned_ns: int) -> int:
    # SQLite's integers are signed; the year 2262 is soon enough.
    return min(unsigned_ns, _INT64_MAX)


def _id(raw: bytes, size: int, what: str) -> str:
    if len(raw) not in (0, size):
        raise MalformedError(f"a {what} must have {size} bytes, not {len(raw)}")
    return raw.hex() if any(raw) else ""  # all zeros is how some senders write "none"


def _name(names: tuple[str, ...], number: int) -> str:
    return names[number] if 0 <= number < len(names) else names[0]


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
