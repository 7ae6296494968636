"""What HTTP and gRPC have in common: one promise, two protocols, real servers."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse

from otelweir.pipeline.transmit import Delivered, HttpSender, Rejected, RetryAfter, Tls, TooLarge, Unauthorised
from otelweir.pipeline.transmit.address import GrpcAddress
from otelweir.pipeline.transmit.grpc import MAX_ANSWER, GrpcSender, library
from otelweir.signals import LANES, Lane
from otelweir.testing import Answer, Backend, GrpcBackend

PEM = str(Path(__file__).parents[2] / "distro" / "localhost.pem")
FAR_BELOW_S = 8.0
"""What a deadline of a fraction of a second may cost on a machine that is busy."""

Sender = HttpSender | GrpcSender


def request_of(count: int, text: str = "order placed") -> bytes:
    request = ExportLogsServiceRequest()
    scope = request.resource_logs.add().scope_logs.add()
    for _ in range(count):
        scope.log_records.add().body.string_value = text
    return bytes(request.SerializeToString())


BODY = request_of(3)


class Protocol(NamedTuple):
    """A server and a sender that understand each other."""

    name: str
    backend: Callable[..., Backend]
    sender_to: Callable[..., Sender]

    def sender(self, server: Backend | str, timeout_s: float = 20.0, lane: Lane = "logs", **options: Any) -> Sender:
        return self.sender_to(server if isinstance(server, str) else server.endpoint, lane, timeout_s, options)


def _http(endpoint: str, lane: Lane, timeout_s: float, options: dict[str, Any]) -> Sender:
    return HttpSender(f"{endpoint}/v1/{lane}", timeout_s=timeout_s, environ={}, **options)


def _grpc(endpoint: str, lane: Lane, timeout_s: float, options: dict[str, Any]) -> Sender:
    return GrpcSender(endpoint, timeout_s=timeout_s, **options)


@pytest.fixture(
    params=[Protocol("http", Backend, _http), Protocol("grpc", GrpcBackend, _grpc)], ids=lambda protocol: protocol.name
)
def protocol(request: pytest.FixtureRequest) -> Protocol:
    chosen: Protocol = request.param
    return chosen


@pytest.fixture
def backend(protocol: Protocol) -> Iterator[Backend]:
    with protocol.backend() as running:
        yield running


class TestDelivery:
    def test_a_request_arrives_as_it_is(self, protocol: Protocol, backend: Backend) -> None:
        sending = protocol.sender(backend, user_agent="otelweir/1")
        assert sending.send(BODY, "logs") == Delivered()
        request = backend.requests[0]
        assert request.body == BODY
        assert request.path == "/v1/logs"
        assert request.headers["user-agent"].startswith("otelweir/1")
        assert len(backend.logs) == 3

    @pytest.mark.parametrize("lane", LANES)
    def test_each_signal_has_its_own_place(self, protocol: Protocol, backend: Backend, lane: Lane) -> None:
        assert protocol.sender(backend, lane=lane).send(b"", lane) == Delivered()
        assert [request.path for request in backend.requests] == [f"/v1/{lane}"]

    def test_a_partial_success_is_told(self, protocol: Protocol, backend: Backend) -> None:
        response = ExportLogsServiceResponse()
        response.partial_success.rejected_log_records = 2
        response.partial_success.error_message = "too old"
        backend.answers = [Answer(body=response.SerializeToString())]
        assert protocol.sender(backend).send(BODY, "logs") == Delivered(2, "too old")

    @pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
    def test_what_was_compressed_arrives_whole(self, protocol: Protocol, backend: Backend, compression: str) -> None:
        if protocol.name == "http" and compression == "zstd":
            compression = "deflate"  # the backend reads no zstd; gRPC sends gzip for it
        sending = protocol.sender(backend, compression=compression)
        assert sending.send(request_of(500), "logs") == Delivered()
        assert len(backend.logs) == 500

    def test_headers_are_asked_for_anew_each_time(self, protocol: Protocol, backend: Backend) -> None:
        """Keys rotate."""
        keys = iter(["first", "second"])
        sending = protocol.sender(backend, headers=lambda: {"X-Key": next(keys)})
        sending.send(BODY, "logs")
        sending.send(BODY, "logs")
        assert [request.headers["x-key"] for request in backend.requests] == ["first", "second"]

    def test_headers_that_cannot_be_had_or_sent_wait_for_better_ones(
        self, protocol: Protocol, backend: Backend
    ) -> None:
        def broken() -> dict[str, str]:
            raise RuntimeError("secret")

        for headers in (broken, lambda: {"x": "secret\r\nHost: evil"}, lambda: {"x": "sécret→"}, lambda: {"a b": "c"}):
            outcome = protocol.sender(backend, headers=headers).send(BODY, "logs")
            assert isinstance(outcome, Unauthorised)
            assert "cret" not in outcome.why
        assert not backend.requests

    def test_a_user_and_password_in_the_endpoint_are_sent_as_authorization(
        self, protocol: Protocol, backend: Backend
    ) -> None:
        sending = protocol.sender(backend.endpoint.replace("://", "://me:p%40ss@"))
        assert sending.send(BODY, "logs") == Delivered()
        assert backend.requests[0].headers["authorization"] == "Basic bWU6cEBzcw=="
        assert "ss" not in repr(sending)

    def test_frames_go_along(self, protocol: Protocol, backend: Backend) -> None:
        assert protocol.sender(backend).send(BODY, "logs", frames="a1:1-3") == Delivered()
        assert backend.requests[0].headers["weir-frames"] == "a1:1-3"

    def test_threads_may_send_at_the_same_time(self, protocol: Protocol, backend: Backend) -> None:
        sending = protocol.sender(backend)
        outcomes: list[object] = []
        threads = [
            threading.Thread(target=lambda: outcomes.extend(sending.send(BODY, "logs") for _ in range(5)))
            for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert outcomes == [Delivered()] * 30
        assert len(backend.logs) == 90

    def test_nothing_is_logged(self, protocol: Protocol, backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
        sending = protocol.sender(backend, headers=lambda: {"x-key": "s3cr3t"})
        with caplog.at_level(logging.DEBUG):
            sending.send(BODY, "logs")
            backend.stop()
            sending.send(BODY, "logs")
        assert [record for record in caplog.records if record.name != "asyncio"] == []


class TestRefusals:
    @pytest.mark.parametrize(
        ("answer", "kind", "after_s"),
        [
            (Answer(503), RetryAfter, None),
            (Answer(503, {"Retry-After": "3600"}), RetryAfter, 3600.0),
            (Answer(429, {"Retry-After": "7"}), RetryAfter, 7.0),
            (Answer(502), RetryAfter, None),
            (Answer(413), TooLarge, None),
            (Answer(401), Unauthorised, None),
            (Answer(403), Unauthorised, None),
            (Answer(400, {"Content-Type": "text/plain"}, b"no such field"), Rejected, None),
            (Answer(404), Rejected, None),
            (Answer(500), RetryAfter, None),
        ],
        ids=lambda value: f"{value.status}{'+' * bool(value.headers)}" if isinstance(value, Answer) else "",
    )
    def test_they_are_told_apart(
        self, protocol: Protocol, backend: Backend, answer: Answer, kind: type, after_s: float | None
    ) -> None:
        backend.answers = [answer]
        outcome = protocol.sender(backend).send(BODY, "logs")
        assert type(outcome) is kind
        if isinstance(outcome, RetryAfter):
            assert outcome.after_s == after_s
        if answer.body:
            assert isinstance(outcome, Rejected)
            assert outcome.why.endswith(": no such field")

    def test_a_key_that_the_server_repeats_is_not_shown(self, protocol: Protocol, backend: Backend) -> None:
        backend.answers = [Answer(401, {"Content-Type": "text/plain"}, b"bad key s3cr3t-token for you")]
        sending = protocol.sender(backend, headers=lambda: {"authorization": "Bearer s3cr3t-token"})
        outcome = sending.send(BODY, "logs")
        assert isinstance(outcome, Unauthorised)
        assert outcome.why.endswith(": bad key *** for you")

    def test_a_refusal_costs_no_connection(self, protocol: Protocol, backend: Backend) -> None:
        backend.answers = [Answer(503, {"Retry-After": "1"})]
        sending = protocol.sender(backend)
        assert isinstance(sending.send(BODY, "logs"), RetryAfter)
        assert sending.send(BODY, "logs") == Delivered()


class TestOutages:
    def test_nobody_listening(self, protocol: Protocol) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        outcome = protocol.sender(f"http://127.0.0.1:{port}").send(BODY, "logs")
        assert isinstance(outcome, RetryAfter)
        assert outcome.after_s is None
        assert "refused" in outcome.why

    def test_a_server_that_comes_back_is_found_at_once(self, protocol: Protocol, backend: Backend) -> None:
        """Waiting is the courier's; what it sends as a probe has to be one."""
        sending = protocol.sender(backend)
        assert sending.send(BODY, "logs") == Delivered()
        backend.stop()
        assert [type(sending.send(BODY, "logs")) for _ in range(6)] == [RetryAfter] * 6
        backend.start()
        assert sending.send(BODY, "logs") == Delivered()

    def test_a_server_that_hangs_costs_the_deadline(self, protocol: Protocol, backend: Backend) -> None:
        backend.answers = [Answer(delay_s=3)] * 2
        for sending, deadline in ((protocol.sender(backend, 0.3), None), (protocol.sender(backend), 0.3)):
            started = time.monotonic()
            outcome = sending.send(BODY, "logs", None if deadline is None else started + deadline)
            assert isinstance(outcome, RetryAfter)
            assert time.monotonic() - started < FAR_BELOW_S
        assert sending.send(BODY, "logs") == Delivered()

    def test_one_that_accepts_and_says_nothing_too(self, protocol: Protocol) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            started = time.monotonic()
            outcome = protocol.sender(f"http://127.0.0.1:{listener.getsockname()[1]}", 0.3).send(BODY, "logs")
            assert isinstance(outcome, RetryAfter)
            assert time.monotonic() - started < FAR_BELOW_S

    def test_a_deadline_that_has_passed_sends_nothing(self, protocol: Protocol, backend: Backend) -> None:
        assert isinstance(protocol.sender(backend).send(BODY, "logs", time.monotonic() - 1), RetryAfter)
        assert not backend.requests

    def test_a_connection_that_is_cut_is_no_answer(self, protocol: Protocol, backend: Backend) -> None:
        backend.answers = [Answer(hang_up=True)]
        sending = protocol.sender(backend)
        assert isinstance(sending.send(BODY, "logs"), RetryAfter)
        assert sending.send(BODY, "logs") == Delivered()

    def test_a_name_that_does_not_resolve(self, protocol: Protocol) -> None:
        assert isinstance(protocol.sender("http://collector.invalid:1", 5).send(BODY, "logs"), RetryAfter)


class TestTls:
    def test_a_certificate_that_is_named_is_trusted_and_no_other(self, protocol: Protocol) -> None:
        with protocol.backend(certificate=PEM) as backend:
            assert protocol.sender(backend, tls=Tls(ca=PEM)).send(request_of(5000), "logs") == Delivered()
            assert isinstance(protocol.sender(backend).send(BODY, "logs"), RetryAfter)
            assert len(backend.requests) == 1

    def test_a_client_shows_its_own(self, protocol: Protocol) -> None:
        with protocol.backend(certificate=PEM, client_ca=PEM) as backend:
            assert isinstance(protocol.sender(backend, tls=Tls(ca=PEM)).send(BODY, "logs"), RetryAfter)
            for key in (PEM, None):
                assert protocol.sender(backend, tls=Tls(PEM, PEM, key)).send(BODY, "logs") == Delivered()

    def test_a_file_that_is_missing_may_come(self, protocol: Protocol, tmp_path: Path) -> None:
        """Secrets are mounted late, and rotate."""
        ca = tmp_path / "ca.pem"
        with protocol.backend(certificate=PEM) as backend:
            sending = protocol.sender(backend, tls=Tls(ca=str(ca)))
            assert sending.send(BODY, "logs") == RetryAfter(None, f"No such file or directory: {ca}")
            ca.write_text("no certificate")
            assert isinstance(sending.send(BODY, "logs"), RetryAfter)
            ca.write_bytes(Path(PEM).read_bytes())
            os.utime(ca, (1, 1))
            assert sending.send(BODY, "logs") == Delivered()

    def test_a_server_without_tls_is_no_answer(self, protocol: Protocol, backend: Backend) -> None:
        sending = protocol.sender(backend.endpoint.replace("http:", "https:"), 5)
        assert isinstance(sending.send(BODY, "logs"), RetryAfter)


def forked(work: Callable[[], object]) -> int:
    """Fork, let the child work, and give its exit status; 0 when the work gave something true. A child that hangs is
    ended by an alarm."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(60)
        done = False
        try:
            done = bool(work())
        finally:
            os._exit(0 if done else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class TestFork:
    def test_parent_child_and_grandchild_all_send(self, protocol: Protocol) -> None:
        """The server is forked first, so that the processes below have nothing but the sender in them."""
        with Apart(protocol) as server:
            sending = protocol.sender(server.endpoint)

            def delivers() -> bool:
                return sending.send(BODY, "logs") == Delivered()

            assert delivers()
            for _ in range(5):
                assert forked(lambda: delivers() and forked(delivers) == 0 and delivers()) == 0
                assert delivers()

    def test_a_fork_while_a_request_is_on_its_way_harms_neither(self, protocol: Protocol) -> None:
        with Apart(protocol, delay_s=0.3) as server:
            sending = protocol.sender(server.endpoint)
            outcomes: list[object] = []
            thread = threading.Thread(target=lambda: outcomes.append(sending.send(BODY, "logs")))
            thread.start()
            time.sleep(0.1)
            assert forked(lambda: sending.send(BODY, "logs") == Delivered()) == 0
            thread.join()
            assert outcomes == [Delivered()]
            assert sending.send(BODY, "logs") == Delivered()

    def test_a_fork_while_a_request_hangs_does_not_wait_for_it(self, protocol: Protocol) -> None:
        with Apart(protocol, delay_s=10) as server:
            sending = protocol.sender(server.endpoint)
            outcomes: list[object] = []
            thread = threading.Thread(target=lambda: outcomes.append(sending.send(BODY, "logs")))
            thread.start()
            time.sleep(0.1)
            started = time.monotonic()
            assert forked(lambda: isinstance(sending.send(BODY, "logs", time.monotonic() + 0.3), RetryAfter)) == 0
            assert time.monotonic() - started < FAR_BELOW_S
            server.stop()
            thread.join()
            assert [type(outcome) for outcome in outcomes] == [RetryAfter]

    def test_many_forks_while_threads_send_without_pause(self, protocol: Protocol) -> None:
        with Apart(protocol) as server:
            sending = protocol.sender(server.endpoint)
            over = threading.Event()
            outcomes: list[object] = []

            def work() -> None:
                while not over.is_set():
                    outcomes.append(sending.send(BODY, "logs"))

            threads = [threading.Thread(target=work) for _ in range(3)]
            for thread in threads:
                thread.start()
            statuses = [forked(lambda: sending.send(BODY, "logs") == Delivered()) for _ in range(20)]
            over.set()
            for thread in threads:
                thread.join()
            assert statuses == [0] * 20
            assert {*map(type, outcomes)} == {Delivered}


class Apart:
    """A backend in a process of its own."""

    def __init__(self, protocol: Protocol, delay_s: float = 0.0) -> None:
        import multiprocessing

        spawn = multiprocessing.get_context("spawn")
        self._here, there = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(protocol.backend, delay_s, there), daemon=True)

    def __enter__(self) -> Apart:
        self._process.start()
        self.endpoint: str = self._here.recv()
        return self

    def stop(self) -> None:
        self._process.kill()
        self._process.join()

    def __exit__(self, *_: object) -> None:
        self.stop()


def _serve(backend: Callable[[], Backend], delay_s: float, pipe: Any) -> None:
    with backend() as running:
        running.default_answer = Answer(delay_s=delay_s)
        pipe.send(running.endpoint)
        pipe.recv()


class TestOnlyGrpc:
    @pytest.mark.parametrize("size", [MAX_ANSWER + 1, 5_000_000])
    def test_an_answer_that_is_too_large_is_not_read_and_is_no_refusal(self, size: int) -> None:
        """The same code says that a request was too large; taking one for the other would send everything twice."""
        with GrpcBackend() as backend:
            backend.answers = [Answer(body=bytes(size))]
            outcome = GrpcSender(backend.endpoint).send(BODY, "logs")
            assert outcome == Delivered(0, f"the answer has more than {MAX_ANSWER} bytes and was not read")

    @pytest.mark.parametrize("endpoint", ["", "http://", "https://:4317", "me:pw@collector:4317", "a b", "dns://"])
    def test_what_is_no_endpoint_is_said_at_once_and_not_repeated(self, endpoint: str) -> None:
        with pytest.raises(ValueError, match=r"the endpoint") as error:
            GrpcSender(endpoint)
        assert "pw" not in str(error.value)

    @pytest.mark.parametrize(
        ("endpoint", "insecure", "shown"),
        [
            ("http://c:4317", None, "grpc://c:4317"),
            ("http://c:4317/path", None, "grpc://c:4317"),
            ("http://c:4317", False, "grpcs://c:4317"),
            ("https://c:4317", True, "grpcs://c:4317"),
            ("c:4317", None, "grpcs://c:4317"),
            ("c:4317", True, "grpc://c:4317"),
            ("dns:///c:4317", True, "grpc://dns:///c:4317"),
            ("unix:/run/otel.sock", True, "grpc://unix:/run/otel.sock"),
            ("https://me:pw@c", None, "grpcs://c"),
        ],
    )
    def test_an_endpoint_means_what_it_means_to_the_official_exporter(
        self, endpoint: str, insecure: bool | None, shown: str
    ) -> None:
        assert repr(GrpcSender(endpoint, insecure=insecure)) == f"<GrpcSender {shown}, no channel>"

    @given(st.text(alphabet="htps:/@[]%. a1é\n?#") | st.text())
    def test_no_endpoint_breaks_it_and_no_password_is_kept_in_sight(self, text: str) -> None:
        for endpoint in (text, f"http://{text}", f"https://me:s3cr3t@{text}"):
            try:
                address = GrpcAddress.of(endpoint)
            except ValueError as error:
                assert "s3cr3t" not in str(error)
            else:
                assert "s3cr3t" not in repr(address) + str(address)
                assert "@" not in address.address

    def test_the_bytes_after_compression_are_estimated(self) -> None:
        with GrpcBackend() as backend:
            sending = GrpcSender(backend.endpoint, compression="gzip")
            sending.send(request_of(2000), "logs")
            assert sending.raw_bytes == len(request_of(2000))
            assert 0 < sending.wire_bytes < sending.raw_bytes / 4
            sending.send(noise := os.urandom(5000), "traces")
            assert sending.wire_bytes == len(noise)

    def test_a_wait_that_comes_by_itself_is_obeyed_too(self) -> None:
        """Without a status around it, as OpenTelemetry's own exporter expects it."""
        info = RetryInfo(retry_delay={"seconds": 90, "nanos": 500_000_000}).SerializeToString()
        with GrpcBackend() as backend:
            backend.answers = [Answer(503, {"google.rpc.retryinfo-bin": info})]
            assert GrpcSender(backend.endpoint).send(BODY, "logs") == RetryAfter(90.5, "gRPC UNAVAILABLE")

    def test_a_server_that_cannot_decompress_gets_it_as_it_is(self) -> None:
        with GrpcBackend() as backend:
            backend.answers = [Answer(404, body=b'grpc: Decompressor is not installed for grpc-encoding "gzip"')]
            sending = GrpcSender(backend.endpoint, compression="gzip")
            for count in (2, 3):
                assert sending.send(request_of(500), "logs") == Delivered()
                assert len(backend.requests) == count
                assert sending.wire_bytes == sending.raw_bytes

    def test_without_grpcio_everything_waits_and_it_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "grpc", None)
        library.cache_clear()
        try:
            outcome = GrpcSender("http://127.0.0.1:1").send(BODY, "logs")
        finally:
            library.cache_clear()
        assert outcome == RetryAfter(None, "grpcio is not installed: pip install grpcio")

    def test_reading_an_endpoint_imports_nothing_heavy(self) -> None:
        """The application does it while it starts."""
        program = """if True:
            import sys
            from otelweir.distro.destinations import destination
            from otelweir.settings import Settings
            for protocol in ("grpc", "http/protobuf"):
                destination("logs", {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol}, settings=Settings())
            print([name for name in ("http.client", "grpc", "requests") if name in sys.modules])
        """
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout == "[]\n"

    def test_it_is_not_instrumented(self) -> None:
        """A wrapper as instrumentation puts around what makes channels must not see ours."""
        import grpc  # type: ignore[import-untyped]
        import wrapt

        seen: list[object] = []

        def see(wrapped: Any, _: Any, args: Any, kwargs: Any) -> Any:
            seen.append(args)
            return wrapped(*args, **kwargs)

        plain = grpc.insecure_channel
        wrapt.wrap_function_wrapper("grpc", "insecure_channel", see)
        try:
            with GrpcBackend() as backend:
                assert GrpcSender(backend.endpoint).send(BODY, "logs") == Delivered()
        finally:
            grpc.insecure_channel = plain
        assert not seen
