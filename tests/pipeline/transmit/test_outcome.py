"""Every answer means one thing, and nothing that a server sends can break the reader."""

from __future__ import annotations

import socket
import ssl
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage  # type: ignore[import-untyped]
from google.protobuf.duration_pb2 import Duration  # type: ignore[import-untyped]
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from otelweir.pipeline.transmit import Delivered, Outcome, Rejected, RetryAfter, TooLarge, Unauthorised
from otelweir.pipeline.transmit.outcome import MAX_TEXT, MAX_WAIT_S, fields, of_failure, of_grpc, of_http, retry_after
from otelweir.signals import LANES, Lane

PROTOBUF = {"content-type": "application/x-protobuf"}
JSON = {"content-type": "application/json"}
OUTCOMES = (Delivered, RetryAfter, TooLarge, Unauthorised, Rejected)


def read(status: int, body: bytes = b"", headers: dict[str, str] | None = None, lane: Lane = "logs") -> Outcome:
    return of_http(status, PROTOBUF if headers is None else headers, body, lane, 0.0)


class TestHttp:
    @pytest.mark.parametrize("status", [200, 202, 204])
    def test_a_status_of_success_is_delivery(self, status: int) -> None:
        assert read(status) == Delivered()

    @pytest.mark.parametrize("status", [408, 425, 429, 502, 503, 504])
    def test_what_otlp_calls_retryable_is_sent_again(self, status: int) -> None:
        assert read(status) == RetryAfter(None, f"HTTP {status}")

    @pytest.mark.parametrize("status", [400, 404, 405, 415, 422])
    def test_every_other_refusal_is_for_good(self, status: int) -> None:
        assert read(status) == Rejected(f"HTTP {status}")

    @pytest.mark.parametrize("status", [500, 501, 505, 507, 511])
    def test_a_servers_own_fault_is_no_word_on_the_records(self, status: int) -> None:
        assert read(status) == RetryAfter(None, f"HTTP {status}", suspect=True)
        assert read(status, headers={"retry-after": "9"}) == RetryAfter(9.0, f"HTTP {status}", suspect=True)

    @pytest.mark.parametrize("status", [401, 403, 407])
    def test_a_key_that_is_refused_may_be_replaced(self, status: int) -> None:
        assert read(status) == Unauthorised(f"HTTP {status}")

    @pytest.mark.parametrize("status", [101, 199, 301, 302, 307, 308])
    def test_what_neither_takes_nor_refuses_is_no_success_and_loses_nothing(self, status: int) -> None:
        """A redirect may come from anybody on the way."""
        assert isinstance(read(status), RetryAfter)

    def test_a_body_that_is_too_large_is_told_from_other_bad_requests(self) -> None:
        """The collector answers 400, not 413."""
        assert read(413) == TooLarge("HTTP 413")
        assert read(400, b"http: request body too large", {}) == TooLarge("HTTP 400: http: request body too large")
        body = Status(code=3, message="http: Request Body Too Large").SerializeToString()
        assert isinstance(read(400, body), TooLarge)

    @pytest.mark.parametrize(
        ("status", "words"),
        [
            (500, "Permanent error: rpc error: ... request to http://gw/v1/logs responded with HTTP Status Code 413"),
            (429, "Permanent error: rpc error: code = ResourceExhausted desc = received message larger than max"),
            (400, "... responded with HTTP Status Code 400, Message=http: request body too large, Details=[]"),
        ],
    )
    def test_so_is_one_that_is_too_large_for_a_server_behind_the_collector(self, status: int, words: str) -> None:
        body = Status(code=13, message=words).SerializeToString()
        assert isinstance(read(status, body), TooLarge)
        assert not isinstance(read(status, Status(code=13, message="no").SerializeToString()), TooLarge)

    def test_a_login_page_with_status_200_is_no_delivery(self) -> None:
        page = {"content-type": "text/html; charset=utf-8"}
        assert isinstance(read(200, b"\n <!DOCTYPE html>", page), RetryAfter)
        # Frameworks call every answer HTML if nobody says otherwise.
        assert read(200, b"", page) == read(200, b"ok", page) == Delivered()

    def test_the_message_of_an_error_is_read_in_each_form(self) -> None:
        status = Status(code=3, message="no such\ntenant").SerializeToString()
        assert read(400, status) == Rejected("HTTP 400: no such tenant")
        assert read(400, b'{"code": 3, "message": "no such tenant"}', JSON) == Rejected("HTTP 400: no such tenant")
        assert read(400, b"no such tenant\n", {}) == Rejected("HTTP 400: no such tenant")
        assert read(400, b"<html>no such tenant", {}) == Rejected("HTTP 400")

    def test_a_message_fits_a_log_line(self) -> None:
        outcome = read(400, b"\x1b[31m" + b"x" * 100_000, {"content-type": "text/plain"})
        assert isinstance(outcome, Rejected)
        assert len(outcome.why) <= MAX_TEXT + 20
        assert outcome.why.isprintable()


class TestPartialSuccess:
    def test_it_is_read_for_every_signal(self) -> None:
        logs, traces, metrics = (
            ExportLogsServiceResponse(),
            ExportTraceServiceResponse(),
            ExportMetricsServiceResponse(),
        )
        logs.partial_success.rejected_log_records = 3
        traces.partial_success.rejected_spans = 3
        metrics.partial_success.rejected_data_points = 3
        for message in (logs, traces, metrics):
            message.partial_success.error_message = "too old"
            assert read(200, message.SerializeToString()) == Delivered(3, "too old")

    def test_in_json_too(self) -> None:
        names: dict[Lane, str] = {
            "traces": "rejectedSpans",
            "logs": "rejectedLogRecords",
            "metrics": "rejectedDataPoints",
        }
        for lane, name in names.items():
            body = f'{{"partialSuccess": {{"{name}": "3", "errorMessage": "too old"}}}}'.encode()
            assert read(200, body, JSON, lane) == Delivered(3, "too old")

    def test_an_empty_one_is_a_plain_success(self) -> None:
        response = ExportLogsServiceResponse()
        response.partial_success.SetInParent()
        assert response.SerializeToString()
        assert read(200, response.SerializeToString()) == Delivered()
        assert read(200, b'{"partialSuccess": {}}', JSON) == Delivered()

    def test_a_negative_number_rejects_nothing(self) -> None:
        response = ExportLogsServiceResponse()
        response.partial_success.rejected_log_records = -1
        assert read(200, response.SerializeToString()) == Delivered()

    @given(st.integers(0, 2**63 - 1), st.text())
    def test_any_number_is_read(self, rejected: int, message: str) -> None:
        response = ExportLogsServiceResponse()
        response.partial_success.rejected_log_records = rejected
        response.partial_success.error_message = message
        outcome = read(200, response.SerializeToString())
        assert isinstance(outcome, Delivered)
        assert outcome.rejected == rejected


class TestRetryAfter:
    def test_seconds(self) -> None:
        assert retry_after("7", 0) == 7.0
        assert retry_after(" 86400 ", 0) == 86400.0
        assert read(503, b"", {"retry-after": "120"}) == RetryAfter(120.0, "HTTP 503")

    def test_a_date(self) -> None:
        now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        later = format_datetime(datetime(2026, 1, 2, 4, 4, 5, tzinfo=UTC), usegmt=True)
        assert retry_after(later, now.timestamp()) == 3600.0
        # The old forms, which HTTP still allows.
        assert retry_after("Friday, 02-Jan-26 04:04:05 GMT", now.timestamp()) == 3600.0
        assert retry_after("Fri Jan  2 04:04:05 2026", now.timestamp()) == 3600.0

    def test_a_date_that_has_passed_is_no_wait(self) -> None:
        assert retry_after("Fri, 02 Jan 2026 04:04:05 GMT", 1e10) == 0.0

    @pytest.mark.parametrize("value", ["", "-5", "soon", "1e3", "nan", "inf", "²", "Fri, 99 Jan 2026 99:04:05 GMT"])
    def test_what_is_neither_says_nothing(self, value: str) -> None:
        assert retry_after(value, 0) is None

    def test_no_wait_is_endless(self) -> None:
        assert retry_after("9" * 5000, 0) == MAX_WAIT_S
        assert retry_after("Fri, 31 Dec 9999 23:59:59 GMT", 0) == MAX_WAIT_S

    def test_only_a_retryable_answer_has_one(self) -> None:
        assert read(400, b"", {"retry-after": "5"}) == Rejected("HTTP 400")

    @given(st.text() | st.from_regex(r"\w{3}, \d+ \w{3} \d+ \d+:\d+:\d+ .*"), st.floats(0, 1e11))
    def test_no_header_breaks_it(self, value: str, now: float) -> None:
        wait_s = retry_after(value, now)
        assert wait_s is None or 0 <= wait_s <= MAX_WAIT_S


def retry_info(seconds: int, nanos: int = 0) -> bytes:
    detail = AnyMessage()
    detail.Pack(RetryInfo(retry_delay=Duration(seconds=seconds, nanos=nanos)))
    other = AnyMessage(type_url="type.googleapis.com/google.rpc.Help", value=b"\x01")
    return bytes(Status(code=8, message="slow down", details=[other, detail]).SerializeToString())


class TestGrpc:
    @pytest.mark.parametrize("code", [1, 4, 10, 11, 14, 15])
    def test_what_otlp_calls_retryable_is_sent_again(self, code: int) -> None:
        assert isinstance(of_grpc(code), RetryAfter)

    @pytest.mark.parametrize("code", ["INTERNAL", "UNKNOWN"])
    def test_a_servers_own_fault_is_no_word_on_the_records(self, code: str) -> None:
        assert of_grpc(code) == RetryAfter(None, f"gRPC {code}", suspect=True)

    @pytest.mark.parametrize("code", [3, 5, 6, 9, 12, 99, -1])
    def test_every_other_code_is_for_good(self, code: int) -> None:
        assert isinstance(of_grpc(code), Rejected)

    @pytest.mark.parametrize("code", ["UNAUTHENTICATED", "PERMISSION_DENIED", 16, 7])
    def test_a_key_that_is_refused_may_be_replaced(self, code: int | str) -> None:
        assert isinstance(of_grpc(code), Unauthorised)

    def test_ok_has_a_partial_success(self) -> None:
        response = ExportTraceServiceResponse()
        response.partial_success.rejected_spans = 2
        assert of_grpc("OK", body=response.SerializeToString()) == Delivered(2)
        assert of_grpc(0) == Delivered()

    def test_retry_info_says_how_long(self) -> None:
        assert of_grpc(14, "busy", status=retry_info(2, 500_000_000)) == RetryAfter(2.5, "gRPC UNAVAILABLE: busy")
        assert of_grpc(14, status=retry_info(-2)) == RetryAfter(0.0, "gRPC UNAVAILABLE")

    def test_an_exhausted_resource_is_no_word_on_the_records(self) -> None:
        """Even where nothing says how long to wait: a collector on the way drops that."""
        assert of_grpc(8, "quota", status=retry_info(30)) == RetryAfter(30.0, "gRPC RESOURCE_EXHAUSTED: quota")
        assert of_grpc(8, "quota") == RetryAfter(None, "gRPC RESOURCE_EXHAUSTED: quota", suspect=True)

    def test_a_message_above_the_maximum_is_too_large(self) -> None:
        for details in (
            "grpc: received message larger than max (5000000 vs. 4194304)",
            "CLIENT: Sent message larger than max (5 vs. 4)",
        ):
            assert isinstance(of_grpc("RESOURCE_EXHAUSTED", details), TooLarge)

    @pytest.mark.parametrize(
        ("code", "details"),
        [
            ("OUT_OF_RANGE", "Error, message length too large: found 5 bytes, the limit is: 4 bytes"),
            ("RESOURCE_EXHAUSTED", "gRPC message exceeds maximum size 4194304: 5000000"),
            ("INVALID_ARGUMENT", "Message=http: request body too large, Details=[]"),
            ("UNKNOWN", "Permanent error: ... request to http://gw/v1/logs responded with HTTP Status Code 413"),
        ],
    )
    def test_so_it_is_in_the_words_of_others(self, code: str, details: str) -> None:
        assert isinstance(of_grpc(code, details), TooLarge)
        assert not isinstance(of_grpc(code, "an attribute is too"), TooLarge)

    @given(st.integers() | st.text(), st.text(), st.binary(), st.binary())
    def test_no_answer_breaks_it(self, code: int | str, details: str, body: bytes, status: bytes) -> None:
        assert isinstance(of_grpc(code, details, body=body, status=status), OUTCOMES)


class TestFailures:
    @pytest.mark.parametrize(
        "error",
        [
            ConnectionRefusedError(111, "Connection refused"),
            TimeoutError(),
            socket.gaierror(-2, "Name or service not known"),
            ssl.SSLCertVerificationError(1, "certificate verify failed"),
            ssl.SSLError(1, "wrong version number"),
            ConnectionResetError(),
            ValueError("Invalid header value b'secret'"),
        ],
    )
    def test_each_is_tried_again_and_repeats_no_header(self, error: Exception) -> None:
        outcome = of_failure(error)
        assert outcome.after_s is None
        assert outcome.why
        assert "secret" not in outcome.why


class TestAnything:
    @given(
        st.integers(0, 999),
        st.dictionaries(
            st.sampled_from(["content-type", "retry-after"]), st.text() | st.sampled_from([*JSON.values()])
        ),
        st.binary() | st.recursive(st.just(b"{"), lambda inner: inner.map(lambda b: b + b), max_leaves=9),
        st.sampled_from(LANES),
    )
    def test_no_answer_breaks_the_reader(self, status: int, headers: dict[str, str], body: bytes, lane: Lane) -> None:
        assert isinstance(of_http(status, headers, body, lane, 1e9), OUTCOMES)

    def test_deeply_nested_json_is_no_message(self) -> None:
        assert read(400, b"[" * 60_000, JSON) != Delivered()
        assert read(200, b'{"partialSuccess":' * 9000, JSON) == Delivered()

    @given(st.binary())
    def test_no_bytes_break_the_wire_reader(self, message: bytes) -> None:
        assert len(list(fields(message))) <= len(message)

    @given(st.text(), st.binary(max_size=5))
    def test_it_reads_what_was_written_before_the_noise(self, message: str, noise: bytes) -> None:
        body = Status(code=5, message=message).SerializeToString() + noise
        assert next(fields(body)) == (1, 5)
