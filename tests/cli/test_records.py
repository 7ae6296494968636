"""Records of the spool, to be read by people and by programs."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from otelweir.cli import words
from otelweir.cli.records import decoded, line
from otelweir.cli.words import of_age, of_bytes, printable
from otelweir.pipeline.spool import Group
from otelweir.signals import LANES, Lane

NOWHERE = Group(b"", b"")
MILLI = 1_700_000_000_123_000_000


def shown(lane: Lane, message: LogRecord | Span | Metric) -> str:
    content = message.SerializeToString()
    said = decoded(lane, NOWHERE, b"\x12" + varint(len(content)) + content)
    assert said is not None
    return line(lane, said)


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


class TestLine:
    def test_of_a_log_record_has_every_kind_of_value(self) -> None:
        values = [
            AnyValue(string_value="text"),
            AnyValue(int_value=-(2**63)),
            AnyValue(double_value=float("nan")),
            AnyValue(bool_value=True),
            AnyValue(bytes_value=b"\xff"),
            AnyValue(),
        ]
        record = LogRecord(
            time_unix_nano=MILLI,
            severity_number=9,  # type: ignore[arg-type]
            event_name="order.placed",
            body=AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key="list", value=AnyValue(string_value="x"))])),
            attributes=[KeyValue(key="all", value=AnyValue(array_value=ArrayValue(values=values)))],
            trace_id=bytes(range(16)),
        )
        assert shown("logs", record) == (
            '2023-11-14T22:13:20.123+00:00  logs  severity 9  order.placed  {"list": "x"}  '
            'all=["text", -9223372036854775808, "NaN", true, "/w==", null]  trace=000102030405060708090a0b0c0d0e0f'
        )

    def test_of_a_span_says_how_long_and_how_it_ended(self) -> None:
        span = Span(name="GET /", start_time_unix_nano=MILLI, end_time_unix_nano=MILLI + 1_500_000)
        span.status.code = 2  # type: ignore[assignment]
        span.status.message = "gone"
        assert "  traces  GET /  1.500 ms  ERROR gone  trace=" in shown("traces", span)

    def test_of_a_metric_has_its_points(self) -> None:
        metric = Metric(name="orders", unit="1")
        metric.sum.data_points.add(as_int=3, time_unix_nano=MILLI)
        metric.sum.data_points.add(as_double=0.5)
        assert shown("metrics", metric).endswith("  metrics  orders  sum  1  3; 0.5")
        metric = Metric(name="lat")
        metric.exponential_histogram.data_points.add(count=2, sum=3.0)
        assert shown("metrics", metric).endswith("  lat  exponentialHistogram  count 2 sum 3.0")

    @pytest.mark.parametrize("message", [LogRecord(), Span(), Metric(), Span(start_time_unix_nano=2**64 - 1)])
    def test_of_a_record_that_says_nothing(self, message: LogRecord | Span | Metric) -> None:
        lane: Lane = {LogRecord: "logs", Span: "traces", Metric: "metrics"}[type(message)]  # type: ignore[assignment]
        assert lane in shown(lane, message)

    @given(st.sampled_from(LANES), st.binary(), st.binary(), st.binary())
    def test_of_any_bytes_never_fails(self, lane: Lane, resource: bytes, scope: bytes, record: bytes) -> None:
        said = decoded(lane, Group(resource, scope), record)
        if said is not None:
            line(lane, said)


class TestWords:
    @given(st.text())
    def test_printable_has_nothing_that_could_steer_a_terminal(self, text: str) -> None:
        assert printable(text).isprintable()

    @given(st.integers(0, 2**62), st.floats(0, 1e12))
    def test_sizes_and_ages_are_short(self, size: int, age: float) -> None:
        assert len(of_bytes(size)) < 20
        assert len(of_age(age)) < 20

    def test_the_examples_are_true(self) -> None:
        assert doctest.testmod(words).failed == 0
