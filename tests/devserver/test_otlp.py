"""Reading OTLP: what a request says is what the rows say, in either encoding."""

from __future__ import annotations

import base64
import gzip
import json
import math
import zlib
from typing import Any

import pytest
from google.protobuf import json_format  # type: ignore[import-untyped]
from google.rpc import status_pb2  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.metrics.v1 import metrics_pb2 as m
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2 as t

from otelweir.devserver import otlp
from otelweir.devserver.rows import Signal, severity_band

# ── makers ───────────────────────────────────────────────────────────────────────────────────────────────────────────

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
uint64 = st.integers(0, 2**64 - 1)
uint32 = st.integers(0, 2**32 - 1)
doubles = st.floats(allow_nan=True, allow_infinity=True)
trace_ids = st.one_of(st.just(b""), st.binary(min_size=16, max_size=16))
span_ids = st.one_of(st.just(b""), st.binary(min_size=8, max_size=8))
values = st.recursive(
    st.one_of(
        st.builds(AnyValue),
        st.builds(AnyValue, string_value=text),
        st.builds(AnyValue, bool_value=st.booleans()),
        st.builds(AnyValue, int_value=st.integers(-(2**63), 2**63 - 1)),
        st.builds(AnyValue, double_value=doubles),
        st.builds(AnyValue, bytes_value=st.binary(max_size=12)),
    ),
    lambda inner: st.one_of(
        st.builds(AnyValue, array_value=st.builds(ArrayValue, values=st.lists(inner, max_size=3))),
        st.builds(
            AnyValue,
            kvlist_value=st.builds(
                KeyValueList, values=st.lists(st.builds(KeyValue, key=text, value=inner), max_size=3)
            ),
        ),
    ),
    max_leaves=6,
)
names = st.one_of(
    text,
    st.sampled_from(["traceId", "service.name", "weir.sample.weight", "weir.seen", "weir.kept", "weir.pattern.id"]),
)
attributes = st.lists(st.builds(KeyValue, key=names, value=values), max_size=4)
resources = st.builds(Resource, attributes=attributes)
scopes = st.builds(InstrumentationScope, name=text)

log_requests = st.builds(
    ExportLogsServiceRequest,
    resource_logs=st.lists(
        st.builds(
            ResourceLogs,
            resource=resources,
            scope_logs=st.lists(
                st.builds(
                    ScopeLogs,
                    scope=scopes,
                    log_records=st.lists(
                        st.builds(
                            LogRecord,
                            time_unix_nano=uint64,
                            observed_time_unix_nano=uint64,
                            severity_number=st.integers(0, 24),
                            severity_text=text,
                            body=values,
                            attributes=attributes,
                            trace_id=trace_ids,
                            span_id=span_ids,
                            event_name=st.one_of(text, st.just("weir.log.pattern.rollup")),
                        ),
                        max_size=3,
                    ),
                ),
                max_size=2,
            ),
        ),
        max_size=2,
    ),
)
span_requests = st.builds(
    ExportTraceServiceRequest,
    resource_spans=st.lists(
        st.builds(
            t.ResourceSpans,
            resource=resources,
            scope_spans=st.lists(
                st.builds(
                    t.ScopeSpans,
                    scope=scopes,
                    spans=st.lists(
                        st.builds(
                            t.Span,
                            trace_id=trace_ids,
                            span_id=span_ids,
                            parent_span_id=span_ids,
                            name=text,
                            kind=st.integers(0, 5),
                            start_time_unix_nano=uint64,
                            end_time_unix_nano=uint64,
                            attributes=attributes,
                            events=st.lists(
                                st.builds(t.Span.Event, name=text, time_unix_nano=uint64, attributes=attributes),
                                max_size=2,
                            ),
                            links=st.lists(
                                st.builds(t.Span.Link, trace_id=trace_ids, span_id=span_ids, attributes=attributes),
                                max_size=2,
                            ),
                            status=st.builds(t.Status, code=st.integers(0, 2), message=text),
                        ),
                        max_size=3,
                    ),
                ),
                max_size=2,
            ),
        ),
        max_size=2,
    ),
)
exemplars = st.lists(
    st.builds(
        m.Exemplar,
        filtered_attributes=attributes,
        time_unix_nano=uint64,
        as_double=doubles,
        trace_id=trace_ids,
        span_id=span_ids,
    ),
    max_size=2,
)
common: dict[str, Any] = {"attributes": attributes, "time_unix_nano": uint64, "start_time_unix_nano": uint64}
numbers = st.lists(
    st.one_of(
        st.builds(m.NumberDataPoint, **common, exemplars=exemplars, as_double=doubles),
        st.builds(m.NumberDataPoint, **common, exemplars=exemplars, as_int=st.integers(-(2**63), 2**63 - 1)),
        st.builds(m.NumberDataPoint, **common),
    ),
    max_size=3,
)
temporalities = st.integers(0, 2)
buckets = st.builds(
    m.ExponentialHistogramDataPoint.Buckets,
    offset=st.integers(-(2**31), 2**31 - 1),
    bucket_counts=st.lists(uint64, max_size=3),
)
metrics = st.one_of(
    st.builds(m.Metric, name=text),
    st.builds(m.Metric, name=text, unit=text, gauge=st.builds(m.Gauge, data_points=numbers)),
    st.builds(
        m.Metric,
        name=text,
        description=text,
        sum=st.builds(m.Sum, data_points=numbers, aggregation_temporality=temporalities, is_monotonic=st.booleans()),
    ),
    st.builds(
        m.Metric,
        name=text,
        histogram=st.builds(
            m.Histogram,
            aggregation_temporality=temporalities,
            data_points=st.lists(
                st.builds(
                    m.HistogramDataPoint,
                    **common,
                    count=uint64,
                    sum=doubles,
                    bucket_counts=st.lists(uint64, max_size=3),
                    explicit_bounds=st.lists(doubles, max_size=3),
                    exemplars=exemplars,
                    min=doubles,
                ),
                max_size=2,
            ),
        ),
    ),
    st.builds(
        m.Metric,
        name=text,
        exponential_histogram=st.builds(
            m.ExponentialHistogram,
            aggregation_temporality=temporalities,
            data_points=st.lists(
                st.builds(
                    m.ExponentialHistogramDataPoint,
                    **common,
                    count=uint64,
                    scale=st.integers(-20, 20),
                    zero_count=uint64,
                    positive=buckets,
                    negative=buckets,
                    max=doubles,
                ),
                max_size=2,
            ),
        ),
    ),
    st.builds(
        m.Metric,
        name=text,
        summary=st.builds(
            m.Summary,
            data_points=st.lists(
                st.builds(
                    m.SummaryDataPoint,
                    **common,
                    count=uint64,
                    sum=doubles,
                    quantile_values=st.lists(
                        st.builds(m.SummaryDataPoint.ValueAtQuantile, quantile=doubles, value=doubles), max_size=2
                    ),
                ),
                max_size=2,
            ),
        ),
    ),
)
metric_requests = st.builds(
    ExportMetricsServiceRequest,
    resource_metrics=st.lists(
        st.builds(
            m.ResourceMetrics,
            resource=resources,
            scope_metrics=st.lists(
                st.builds(m.ScopeMetrics, scope=scopes, metrics=st.lists(metrics, max_size=3)), max_size=2
            ),
        ),
        max_size=2,
    ),
)
requests = st.one_of(
    st.tuples(st.just("logs"), log_requests),
    st.tuples(st.just("traces"), span_requests),
    st.tuples(st.just("metrics"), metric_requests),
)


def as_otlp_json(request: Any) -> bytes:
    """OTLP's JSON by the book: protobuf's mapping, numbers for enumerations, hexadecimal for ids."""

    def hexadecimal(node: Any) -> Any:
        if isinstance(node, list):
            return [hexadecimal(item) for item in node]
        if isinstance(node, dict):
            return {
                key: base64.b64decode(value).hex()
                if key in ("traceId", "spanId", "parentSpanId")
                else hexadecimal(value)
                for key, value in node.items()
            }
        return node

    return json.dumps(hexadecimal(json_format.MessageToDict(request, use_integers_for_enums=True))).encode()


def log_request(**record: Any) -> bytes:
    document = {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}
    return json.dumps(document).encode()


def packed(data: bytes, encoding: str) -> bytes:
    match encoding.lower():
        case "gzip" | "x-gzip":
            return gzip.compress(data)
        case "deflate":
            return zlib.compress(data)
        case _:
            return data


# ── promises ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class TestBothEncodings:
    @settings(deadline=None, max_examples=150)
    @given(requests)
    def test_json_says_what_protobuf_says(self, case: tuple[Signal, Any]) -> None:
        """A sender may choose; the rows must not differ."""
        signal, request = case
        assert otlp.decode(signal, "json", as_otlp_json(request)) == otlp.decode(
            signal, "protobuf", request.SerializeToString()
        )

    @settings(deadline=None, max_examples=150)
    @given(requests)
    def test_rows_fit_into_sqlite(self, case: tuple[Signal, Any]) -> None:
        """Its integers are signed 64-bit, and it has no NaN."""
        signal, request = case
        batch = otlp.decode(signal, "protobuf", request.SerializeToString())
        for row in (*batch.logs, *batch.rollups, *batch.spans, *batch.points):
            for value in row:
                assert not isinstance(value, int) or -(2**63) <= value < 2**63
                assert not isinstance(value, float) or not math.isnan(value)

    @settings(deadline=None, max_examples=200)
    @given(
        st.sampled_from(["logs", "traces", "metrics"]), st.sampled_from(["protobuf", "json"]), st.binary(max_size=60)
    )
    def test_any_bytes_give_rows_or_a_request_error(self, signal: Signal, encoding: otlp.Encoding, body: bytes) -> None:
        """No other exception: it would be an answer of 5xx, and the sender would try again for ever."""
        try:
            otlp.decode(signal, encoding, body)
        except otlp.RequestError:
            pass


class TestJson:
    def test_reads_the_example_of_the_specification(self) -> None:
        body = log_request(
            timeUnixNano="1544712660300000000",
            observedTimeUnixNano="1544712660300000000",
            severityNumber=10,
            severityText="Information",
            traceId="5B8EFFF798038103D269B633813FC60C",
            spanId="EEE19B7EC3C1B174",
            body={"stringValue": "Example log record"},
            attributes=[
                {"key": "string.attribute", "value": {"stringValue": "some string"}},
                {"key": "boolean.attribute", "value": {"boolValue": True}},
                {"key": "int.attribute", "value": {"intValue": "10"}},
                {"key": "double.attribute", "value": {"doubleValue": 637.704}},
                {"key": "array.attribute", "value": {"arrayValue": {"values": [{"stringValue": "many"}]}}},
                {
                    "key": "map.attribute",
                    "value": {"kvlistValue": {"values": [{"key": "k", "value": {"stringValue": "v"}}]}},
                },
            ],
            aKeyOfTheFuture={"x": [1]},
        )
        [row] = otlp.decode("logs", "json", body).logs
        assert (row.time_ns, row.severity, row.body) == (1544712660300000000, 9, "Example log record")
        assert (row.trace_id, row.span_id) == ("5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174")
        assert json.loads(row.attributes) == {
            "string.attribute": "some string",
            "boolean.attribute": True,
            "int.attribute": 10,
            "double.attribute": 637.704,
            "array.attribute": ["many"],
            "map.attribute": {"k": "v"},
        }

    def test_takes_integers_as_numbers_too(self) -> None:
        [row] = otlp.decode("logs", "json", log_request(timeUnixNano=17)).logs
        assert row.time_ns == 17

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"[]",
            b"null",
            b"\xff\xfe",
            b'{"resourceLogs": 3}',
            b'{"resourceLogs": [{"scopeLogs": "x"}]}',
            log_request(traceId="not hexadecimal"),
            log_request(traceId="abcd"),
            log_request(spanId="00 11 22 33 44 55 66 77"),
            log_request(severityNumber=[1]),
            log_request(timeUnixNano="-1"),
            log_request(timeUnixNano=str(2**64)),
            log_request(body={"stringValue": "\ud800"}),
            b"[" * 100_000,
            b'{"resourceLogs":' * 5_000,
        ],
        ids=lambda body: body[:40],
    )
    def test_what_is_no_request_is_malformed(self, body: bytes) -> None:
        with pytest.raises(otlp.MalformedError):
            otlp.decode("logs", "json", body)


class TestProtobuf:
    def test_an_empty_body_is_an_empty_request(self) -> None:
        assert otlp.decode("logs", "protobuf", b"").logs == []

    @pytest.mark.parametrize("body", [b"\x0a", b"not protobuf at all", b"\x0a\x03\x12\x01\x0a"])
    def test_what_is_no_request_is_malformed(self, body: bytes) -> None:
        with pytest.raises(otlp.MalformedError):
            otlp.decode("logs", "protobuf", body)

    def test_an_id_of_another_length_is_malformed(self) -> None:
        record = LogRecord(trace_id=b"short")
        request = ExportLogsServiceRequest(resource_logs=[ResourceLogs(scope_logs=[ScopeLogs(log_records=[record])])])
        with pytest.raises(otlp.MalformedError, match="trace_id must have 16 bytes"):
            otlp.decode("logs", "protobuf", request.SerializeToString())

    def test_an_id_of_zeros_is_none(self) -> None:
        record = LogRecord(trace_id=bytes(16), span_id=bytes(8))
        request = ExportLogsServiceRequest(resource_logs=[ResourceLogs(scope_logs=[ScopeLogs(log_records=[record])])])
        [row] = otlp.decode("logs", "protobuf", request.SerializeToString()).logs
        assert (row.trace_id, row.span_id) == ("", "")


class TestWhatWeirWrites:
    def attribute(self, key: str, **value: Any) -> dict[str, Any]:
        return {"key": key, "value": value}

    def test_a_sampled_record_tells_its_pattern_and_weight(self) -> None:
        body = log_request(
            attributes=[
                self.attribute("weir.sample.weight", doubleValue=20.5),
                self.attribute("weir.pattern.id", stringValue="00ff"),
                self.attribute("log.record.template", stringValue="got <*>"),
                self.attribute("weir.sample.reason", stringValue="rate"),
                self.attribute("weir.pattern.new", boolValue=True),
            ]
        )
        [row] = otlp.decode("logs", "json", body).logs
        assert (row.weight, row.pattern_id, row.template, row.reason, row.is_new) == (
            20.5,
            "00ff",
            "got <*>",
            "rate",
            True,
        )

    @pytest.mark.parametrize(
        ("value", "weight"),
        [
            ({"intValue": "3"}, 3.0),
            ({"doubleValue": 0}, 0.0),
            ({"doubleValue": "NaN"}, 1.0),
            ({"doubleValue": "Infinity"}, 1.0),
            ({"doubleValue": 1e300}, 1.0),
            ({"doubleValue": -2}, 1.0),
            ({"boolValue": True}, 1.0),
            ({"stringValue": "7"}, 1.0),
        ],
        ids=str,
    )
    def test_a_weight_that_is_none_counts_as_one(self, value: dict[str, Any], weight: float) -> None:
        """One strange record must not spoil a sum."""
        body = log_request(attributes=[self.attribute("weir.sample.weight", **value)])
        assert otlp.decode("logs", "json", body).logs[0].weight == weight

    @pytest.mark.parametrize("by", ["name", "attribute"])
    def test_a_rollup_is_known_by_its_name_or_its_attribute(self, by: str) -> None:
        """Some senders drop event names."""
        record: dict[str, Any] = {
            "timeUnixNano": "900",
            "attributes": [
                self.attribute("weir.pattern.id", stringValue="00ff"),
                self.attribute("log.record.template", stringValue="got <*>"),
                self.attribute("weir.severity", stringValue="warn"),
                self.attribute("weir.seen", intValue="1000"),
                self.attribute("weir.kept", intValue="10"),
                self.attribute("weir.first_time", intValue="100"),
                self.attribute("weir.last_time", intValue="800"),
                self.attribute("weir.logger", stringValue="shop"),
            ],
        }
        if by == "name":
            record["eventName"] = "weir.log.pattern.rollup"
        else:
            record["attributes"].append(self.attribute("weir.event", stringValue="weir.log.pattern.rollup"))
        batch = otlp.decode("logs", "json", log_request(**record))
        assert batch.logs == []
        [row] = batch.rollups
        assert row[0:1] + row[2:] == (900, "00ff", 13, "got <*>", "shop", 1000, 10, 100, 800)

    def test_a_rollup_without_counts_is_an_ordinary_record(self) -> None:
        batch = otlp.decode("logs", "json", log_request(eventName="weir.log.pattern.rollup"))
        assert (len(batch.logs), batch.rollups) == (1, [])


class TestUnpack:
    @pytest.mark.parametrize("encoding", ["", "identity", "gzip", "GZIP", "x-gzip", "deflate"])
    def test_gives_back_what_was_packed(self, encoding: str) -> None:
        assert otlp.unpack(packed(b"data" * 100, encoding), encoding, 400) == b"data" * 100

    def test_reads_bare_deflate_and_gzip_of_several_members(self) -> None:
        bare = zlib.compressobj(wbits=-15)
        assert otlp.unpack(bare.compress(b"data") + bare.flush(), "deflate", 100) == b"data"
        assert otlp.unpack(gzip.compress(b"one") + gzip.compress(b"two"), "gzip", 100) == b"onetwo"

    @pytest.mark.parametrize("encoding", ["", "gzip", "deflate"])
    def test_one_byte_above_the_limit_is_too_large(self, encoding: str) -> None:
        with pytest.raises(otlp.TooLargeError):
            otlp.unpack(packed(bytes(401), encoding), encoding, 400)

    def test_a_bomb_of_many_members_is_too_large(self) -> None:
        with pytest.raises(otlp.TooLargeError):
            otlp.unpack(gzip.compress(bytes(300)) * 3, "gzip", 400)

    def test_endless_empty_members_are_malformed(self) -> None:
        """They cost time without ever reaching the size limit."""
        with pytest.raises(otlp.MalformedError):
            otlp.unpack(gzip.compress(b"") * 1000, "gzip", 400)

    @pytest.mark.parametrize(
        ("body", "encoding"),
        [
            (b"", "gzip"),
            (b"plain", "gzip"),
            (gzip.compress(b"data" * 99, mtime=0)[:-9], "gzip"),
            (gzip.compress(b"data", mtime=0) + b"more", "gzip"),
            (b"plain", "deflate"),
            (zlib.compress(b"data") + b"more", "deflate"),
        ],
        ids=str,
    )
    def test_what_is_not_packed_so_is_malformed(self, body: bytes, encoding: str) -> None:
        with pytest.raises(otlp.MalformedError):
            otlp.unpack(body, encoding, 10_000)

    def test_other_compression_is_unsupported(self) -> None:
        with pytest.raises(otlp.UnsupportedMediaError, match="'zstd'"):
            otlp.unpack(b"", "zstd", 100)


class TestHeadersAndAnswers:
    def test_parameters_and_case_of_a_content_type_do_not_matter(self) -> None:
        assert otlp.encoding_of("Application/JSON; charset=utf-8") == "json"
        assert otlp.encoding_of("application/x-protobuf") == "protobuf"

    @pytest.mark.parametrize("name", ["", "text/plain", "application/grpc", "application/jsonl"])
    def test_other_content_types_are_unsupported(self, name: str) -> None:
        with pytest.raises(otlp.UnsupportedMediaError):
            otlp.encoding_of(name)

    def test_a_failure_is_a_status_in_the_same_encoding(self) -> None:
        assert json.loads(otlp.failure("json", 3, "no \ud800")) == {"code": 3, "message": "no ?"}
        status = status_pb2.Status.FromString(otlp.failure("protobuf", 3, "no"))
        assert (status.code, status.message) == (3, "no")

    @pytest.mark.parametrize(
        ("number", "name", "band"),
        [
            (0, "", 0),
            (0, "Error", 17),
            (0, "CRITICAL", 21),
            (1, "", 1),
            (8, "ERROR", 5),
            (24, "", 21),
            (25, "warn", 13),
        ],
    )
    def test_a_severity_is_its_band_and_failing_that_its_name(self, number: int, name: str, band: int) -> None:
        assert severity_band(number, name) == band
