"""Requests over real sockets: what is sent, what comes back, and what no server can do to the sender."""

from __future__ import annotations

import contextlib
import gzip
import logging
import multiprocessing
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse

from otelweir.pipeline.transmit import Delivered, HttpSender, Outcome, Rejected, RetryAfter, Tls, TooLarge, Unauthorised
from otelweir.testing import Answer, Backend

PEM = Path(__file__).parents[2] / "distro" / "localhost.pem"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n"
NO_PROXIES: dict[str, str] = {}
FAR_BELOW_S = 8.0
"""What a deadline of a fraction of a second may cost on a machine that is busy."""


def request_of(count: int, text: str = "order placed") -> bytes:
    request = ExportLogsServiceRequest()
    scope = request.resource_logs.add().scope_logs.add()
    for _ in range(count):
        scope.log_records.add().body.string_value = text
    return bytes(request.SerializeToString())


BODY = request_of(3)


class Raw:
    """A server that does what a function does with each connection, and remembers what it read."""

    def __init__(self, serve: Callable[[socket.socket, Raw], None], tls: ssl.SSLContext | None = None) -> None:
        self.connections = 0
        self.read: list[bytes] = []
        self.over = threading.Event()
        self._serve = serve
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/v1/logs"

    def request(self, connection: socket.socket) -> bytes:
        """Read one request, with its body."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += (piece := connection.recv(65536))
            if not piece:
                return b""
        head, _, body = data.partition(b"\r\n\r\n")
        lengths = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
        while lengths and len(body) < int(lengths[0]):
            body += (piece := connection.recv(65536))
            if not piece:
                break
        self.read.append(head + b"\r\n\r\n" + body)
        return self.read[-1]

    def _accept(self) -> None:
        while not self.over.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def _run(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection:
                self._serve(connection, self)

    def close(self) -> None:
        self.over.set()
        # A thread in accept is woken by this, not by closing.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


RawMaker = Callable[..., Raw]


@pytest.fixture
def raw() -> Iterator[RawMaker]:
    made: list[Raw] = []

    def make(serve: Callable[[socket.socket, Raw], None], tls: ssl.SSLContext | None = None) -> Raw:
        made.append(Raw(serve, tls))
        return made[-1]

    yield make
    for server in made:
        server.close()


@pytest.fixture
def backend() -> Iterator[Backend]:
    with Backend() as running:
        yield running


def sender(server: Backend | Raw | str, timeout_s: float = 20.0, **options: object) -> HttpSender:
    url = (
        f"{server.endpoint}/v1/logs"
        if isinstance(server, Backend)
        else server
        if isinstance(server, str)
        else server.url
    )
    return HttpSender(url, timeout_s=timeout_s, **{"environ": NO_PROXIES, **options})  # type: ignore[arg-type]


def answering(*answers: bytes, keep: bool = False) -> Callable[[socket.socket, Raw], None]:
    """Read a request and send bytes; again for each further answer, then close unless the connection is kept."""

    def serve(connection: socket.socket, server: Raw) -> None:
        for answer in answers:
            if not server.request(connection):
                return
            connection.sendall(answer)
        if keep:
            server.over.wait(30)

    return serve


def timed(send: Callable[[], Outcome]) -> tuple[Outcome, float]:
    started = time.monotonic()
    return send(), time.monotonic() - started


class TestDelivery:
    def test_a_request_arrives_as_it_is(self, backend: Backend) -> None:
        assert sender(backend).send(BODY, "logs") == Delivered()
        request = backend.requests[0]
        assert request.body == BODY
        assert request.headers["content-type"] == "application/x-protobuf"
        assert request.headers["user-agent"] == "otelweir"
        assert "content-encoding" not in request.headers
        assert len(backend.logs) == 3

    def test_a_partial_success_is_told(self, backend: Backend) -> None:
        response = ExportLogsServiceResponse()
        response.partial_success.rejected_log_records = 2
        response.partial_success.error_message = "too old"
        backend.answers = [Answer(body=response.SerializeToString())]
        assert sender(backend).send(BODY, "logs") == Delivered(2, "too old")

    def test_an_answer_may_be_compressed(self, backend: Backend) -> None:
        response = ExportLogsServiceResponse()
        response.partial_success.rejected_log_records = 2
        body = gzip.compress(response.SerializeToString())
        backend.answers = [Answer(headers={"Content-Encoding": "gzip"}, body=body)]
        assert sender(backend).send(BODY, "logs") == Delivered(2)

    def test_a_large_request_is_compressed(self, backend: Backend) -> None:
        body = request_of(500)
        assert sender(backend, compression="gzip").send(body, "logs") == Delivered()
        assert backend.requests[0].headers["content-encoding"] == "gzip"
        assert gzip.decompress(backend.requests[0].body) == body
        assert len(backend.logs) == 500

    @pytest.mark.parametrize(
        "refusal", [Answer(415), Answer(400, {"Content-Type": "text/plain"}, b"unsupported Content-Encoding: gzip")]
    )
    def test_an_endpoint_that_cannot_decompress_gets_requests_as_they_are(
        self, backend: Backend, refusal: Answer
    ) -> None:
        backend.answers = [refusal]
        body = request_of(500)
        sending = sender(backend, compression="gzip")
        assert [sending.send(body, "logs") for _ in range(2)] == [Delivered()] * 2
        assert ["content-encoding" in request.headers for request in backend.requests] == [True, False, False]
        assert (sending.raw_bytes, sending.wire_bytes) == (len(body), len(body))

    def test_a_kind_of_content_that_is_refused_is_refused(self, backend: Backend) -> None:
        backend.default_answer = Answer(415)
        assert sender(backend, compression="gzip").send(request_of(500), "logs") == Rejected("HTTP 415")
        assert len(backend.requests) == 2

    def test_it_says_which_records_it_holds(self, backend: Backend) -> None:
        sender(backend).send(BODY, "logs", None, "0123456789abcdef:40-40*1")
        sender(backend).send(BODY, "logs")
        headers = [request.headers.get("weir-frames") for request in backend.requests]
        assert headers == ["0123456789abcdef:40-40*1", None]

    def test_headers_are_asked_for_anew_each_time(self, backend: Backend) -> None:
        """Keys rotate."""
        keys = iter(["first", "second"])
        sending = sender(backend, headers=lambda: {"X-Key": next(keys), "user-agent": "mine"})
        sending.send(BODY, "logs")
        sending.send(BODY, "logs")
        assert [request.headers["x-key"] for request in backend.requests] == ["first", "second"]
        assert backend.requests[0].headers["user-agent"] == "mine"

    def test_headers_that_cannot_be_had_or_sent_wait_for_better_ones(self, backend: Backend) -> None:
        def broken() -> dict[str, str]:
            raise RuntimeError("secret")

        for headers in (broken, lambda: {"x": "secret\r\nHost: evil"}, lambda: {"x": "sécret→"}, lambda: {"a b": "c"}):
            outcome = sender(backend, headers=headers).send(BODY, "logs")
            assert isinstance(outcome, Unauthorised)
            assert "cret" not in outcome.why
        assert not backend.requests

    def test_a_user_and_password_in_the_url_are_sent_as_authorization(self, backend: Backend) -> None:
        sending = sender(f"http://me:p%40ss@127.0.0.1:{backend.port}/v1/logs")
        assert sending.send(BODY, "logs") == Delivered()
        assert backend.requests[0].headers["authorization"] == "Basic bWU6cEBzcw=="
        assert "ss" not in repr(sending)

    @pytest.mark.parametrize("url", ["", "collector:4318", "ftp://x/", "http://", "http://x:y/", "http://h/a b", "//h"])
    def test_what_is_no_url_is_said_at_once_and_not_repeated(self, url: str) -> None:
        with pytest.raises(ValueError, match=r"the endpoint") as error:
            sender(url)
        assert "a b" not in str(error.value)
        assert "ftp" not in str(error.value)


class TestRefusals:
    @pytest.mark.parametrize(
        ("answer", "outcome"),
        [
            (Answer(503, {"Retry-After": "3600"}), RetryAfter(3600.0, "HTTP 503")),
            (Answer(413), TooLarge("HTTP 413")),
            (Answer(401), Unauthorised("HTTP 401")),
            (Answer(404, {"Content-Type": "text/plain"}, b"no such path"), Rejected("HTTP 404: no such path")),
        ],
    )
    def test_they_are_told_apart(self, backend: Backend, answer: Answer, outcome: Outcome) -> None:
        backend.answers = [answer]
        assert sender(backend).send(BODY, "logs") == outcome

    def test_a_redirect_is_not_followed(self, backend: Backend) -> None:
        with Backend() as other:
            for status in (301, 302, 303, 307, 308):
                backend.answers = [Answer(status, {"Location": f"{other.endpoint}/v1/logs"})]
                assert isinstance(sender(backend).send(BODY, "logs"), RetryAfter)
            assert not other.requests
        assert len(backend.requests) == 5

    def test_nobody_listening(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        assert sender(f"http://127.0.0.1:{port}/").send(BODY, "logs") == RetryAfter(None, "Connection refused")

    def test_a_key_that_the_server_repeats_is_not_shown(self, backend: Backend) -> None:
        backend.answers = [Answer(401, {"Content-Type": "text/plain"}, b"bad key s3cr3t-token for you")]
        sending = sender(backend, headers=lambda: {"authorization": "Bearer s3cr3t-token"})
        assert sending.send(BODY, "logs") == Unauthorised("HTTP 401: bad key *** for you")

    def test_an_answer_before_the_end_of_the_request_is_heard(self, raw: RawMaker) -> None:
        """A server that refuses a large body does not read it first."""

        def serve(connection: socket.socket, server: Raw) -> None:
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
            server.over.wait(30)

        outcome, took_s = timed(lambda: sender(raw(serve)).send(bytes(50_000_000), "logs"))
        assert outcome == TooLarge("HTTP 413")
        assert took_s < 15


class TestConnections:
    def test_one_is_kept_and_used_again(self, raw: RawMaker) -> None:
        server = raw(answering(*[OK] * 5))
        sending = sender(server)
        assert [sending.send(BODY, "logs") for _ in range(5)] == [Delivered()] * 5
        assert server.connections == 1
        assert repr(sending) == f"<HttpSender http://127.0.0.1:{server.port}, 1 idle connections>"
        sending.close()
        assert repr(sending).endswith("0 idle connections>")

    def test_after_a_refusal_too(self, raw: RawMaker) -> None:
        refusal = b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        server = raw(answering(refusal, OK))
        sending = sender(server)
        assert isinstance(sending.send(BODY, "logs"), RetryAfter)
        assert sending.send(BODY, "logs") == Delivered()
        assert server.connections == 1

    def test_one_that_the_server_has_closed_costs_nothing(self, raw: RawMaker) -> None:
        server = raw(answering(OK))
        sending = sender(server)
        for _ in range(3):
            assert sending.send(BODY, "logs") == Delivered()
        assert server.connections == 3

    def test_one_that_the_server_closes_on_the_next_request_is_replaced_at_once(self, raw: RawMaker) -> None:
        def serve(connection: socket.socket, server: Raw) -> None:
            server.request(connection)
            connection.sendall(OK)
            server.request(connection)

        server = raw(serve)
        sending = sender(server)
        assert [sending.send(BODY, "logs") for _ in range(2)] == [Delivered()] * 2
        assert server.connections == 2

    def test_a_fresh_one_that_is_closed_is_a_failure_and_not_repeated(self, raw: RawMaker) -> None:
        server = raw(lambda connection, server: server.request(connection) and None)
        assert sender(server).send(BODY, "logs") == RetryAfter(None, "the connection was closed without an answer")
        assert server.connections == 1

    def test_one_on_which_the_server_goes_on_talking_is_not_used_again(self, raw: RawMaker) -> None:
        """The next answer must not be one that was there before the request."""
        said = threading.Event()

        def serve(connection: socket.socket, server: Raw) -> None:
            server.request(connection)
            connection.sendall(OK)
            if server.connections == 1:
                assert received.wait(30)
                connection.sendall(b"HTTP/1.1 400 Injected\r\nContent-Length: 0\r\n\r\n")
                said.set()
            server.over.wait(30)

        received = threading.Event()
        server = raw(serve)
        sending = sender(server)
        assert sending.send(BODY, "logs") == Delivered()
        received.set()
        assert said.wait(30)
        assert sending.send(BODY, "logs") == Delivered()
        assert server.connections == 2

    def test_threads_may_send_at_the_same_time(self, backend: Backend) -> None:
        sending = sender(backend)
        outcomes: list[Outcome] = []
        threads = [
            threading.Thread(target=lambda: outcomes.extend(sending.send(BODY, "logs") for _ in range(5)))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert outcomes == [Delivered()] * 40
        assert len(backend.logs) == 120

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
    def test_a_child_does_not_use_its_parents(self, raw: RawMaker) -> None:
        """Two processes on one connection would read each other's answers."""
        server = raw(answering(*[OK] * 3))
        sending = sender(server)
        assert sending.send(BODY, "logs") == Delivered()
        child = multiprocessing.get_context("fork").Process(
            target=lambda: os._exit(0 if sending.send(BODY, "logs") == Delivered() else 1)
        )
        child.start()
        child.join()
        assert child.exitcode == 0
        assert sending.send(BODY, "logs") == Delivered()
        assert server.connections == 2


class TestDeadline:
    """One wall-clock deadline over all of it; only generous bounds are asserted."""

    def test_a_server_that_hangs(self, raw: RawMaker) -> None:
        outcome, took_s = timed(lambda: sender(raw(answering(b"", keep=True)), 0.3).send(BODY, "logs"))
        assert outcome == RetryAfter(None, "no answer in time")
        assert took_s < FAR_BELOW_S

    def test_a_server_that_reads_nothing(self, raw: RawMaker) -> None:
        server = raw(lambda _, server: server.over.wait(30) and None)
        outcome, took_s = timed(lambda: sender(server, 0.3).send(bytes(50_000_000), "logs"))
        assert outcome == RetryAfter(None, "no answer in time")
        assert took_s < FAR_BELOW_S

    @pytest.mark.parametrize("start", [b"", b"HTTP/1.1 503 Busy\r\nX: "])
    def test_headers_that_drip(self, raw: RawMaker, start: bytes) -> None:
        """Each byte comes in time, and the whole never does."""
        outcome, took_s = timed(lambda: sender(raw(dripping(start)), 0.5).send(BODY, "logs"))
        assert isinstance(outcome, RetryAfter)
        assert took_s < FAR_BELOW_S

    def test_a_content_that_drips_does_not_hide_the_status(self, raw: RawMaker) -> None:
        for status, expected in ((200, Delivered()), (413, TooLarge("HTTP 413: H"))):
            start = f"HTTP/1.1 {status} X\r\nContent-Length: 100000\r\nContent-Type: text/plain\r\n\r\n".encode()
            server = raw(dripping(start))
            sending = sender(server, 0.5)
            outcome, took_s = timed(lambda sending=sending: sending.send(BODY, "logs"))  # type: ignore[misc]
            assert type(outcome) is type(expected)
            assert took_s < FAR_BELOW_S
            assert "0 idle" in repr(sending)

    def test_an_endless_row_of_interim_answers(self, raw: RawMaker) -> None:
        def serve(connection: socket.socket, server: Raw) -> None:
            server.request(connection)
            while True:
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

        outcome, took_s = timed(lambda: sender(raw(serve), 0.5).send(BODY, "logs"))
        assert outcome == RetryAfter(None, "no answer in time")
        assert took_s < FAR_BELOW_S

    def test_the_callers_deadline_counts_if_it_is_sooner(self, raw: RawMaker) -> None:
        server = raw(answering(b"", keep=True))
        outcome, took_s = timed(lambda: sender(server, 100).send(BODY, "logs", time.monotonic() + 0.3))
        assert outcome == RetryAfter(None, "no answer in time")
        assert took_s < FAR_BELOW_S

    def test_one_that_has_passed_sends_nothing(self, backend: Backend) -> None:
        assert isinstance(sender(backend).send(BODY, "logs", time.monotonic() - 1), RetryAfter)
        assert not backend.requests


def dripping(start: bytes) -> Callable[[socket.socket, Raw], None]:
    def serve(connection: socket.socket, server: Raw) -> None:
        server.request(connection)
        connection.sendall(start)
        for letter in b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 100_000:
            connection.sendall(bytes([letter]))
            if server.over.wait(0.05):
                return

    return serve


class TestStrangeAnswers:
    def test_a_bomb_is_not_unpacked(self, raw: RawMaker) -> None:
        bomb = gzip.compress(gzip.compress(bytes(100_000_000)))
        head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n".encode()
        assert sender(raw(answering(head + bomb))).send(BODY, "logs") == Delivered()

    def test_an_endless_content_is_not_read_to_its_end(self, raw: RawMaker) -> None:
        sent = 0

        def serve(connection: socket.socket, server: Raw) -> None:
            nonlocal sent
            server.request(connection)
            connection.sendall(b"HTTP/1.1 400 Bad\r\nContent-Type: text/plain\r\n\r\n")
            while True:
                sent += connection.send(b"x" * 65536)

        sending = sender(raw(serve))
        outcome = sending.send(BODY, "logs")
        assert isinstance(outcome, Rejected)
        assert len(outcome.why) < 400
        assert "0 idle" in repr(sending)

    def test_an_endless_header_is_not_read_to_its_end(self, raw: RawMaker) -> None:
        def serve(connection: socket.socket, server: Raw) -> None:
            server.request(connection)
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            while True:
                connection.sendall(b"X: " + b"x" * 1000 + b"\r\n")

        assert isinstance(sender(raw(serve)).send(BODY, "logs"), RetryAfter)

    @pytest.mark.parametrize(
        ("answer", "kind"),
        [
            (b"", RetryAfter),
            (b"HTTP/1.1 20", RetryAfter),
            (b"SSH-2.0-OpenSSH_9.6\r\n", RetryAfter),
            (b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x05\x00\x00\x40\x00", RetryAfter),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc", Delivered),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", Delivered),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabc", Delivered),
            (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", Delivered),
            (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", Delivered),
        ],
    )
    def test_a_torn_answer_is_what_its_status_says_if_that_came(
        self, raw: RawMaker, answer: bytes, kind: type[Outcome]
    ) -> None:
        sending = sender(raw(answering(answer)))
        assert isinstance(sending.send(BODY, "logs"), kind)
        assert "0 idle" in repr(sending) or kind is Delivered

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda noise: OK[:-2] + noise))
    def test_no_answer_breaks_it(self, raw: RawMaker, answer: bytes) -> None:
        outcome = sender(raw(answering(answer))).send(BODY, "logs")
        assert isinstance(outcome, Delivered | RetryAfter | TooLarge | Unauthorised | Rejected)

    def test_nothing_is_logged(self, backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.DEBUG):
            sender(backend).send(BODY, "logs")
        backend.stop()
        with caplog.at_level(logging.DEBUG):
            sender(backend).send(BODY, "logs")
        assert caplog.records == []


class TestTls:
    @staticmethod
    def context(*, mutual: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(PEM)
        if mutual:
            context.load_verify_locations(PEM)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def test_a_certificate_that_is_named_is_trusted(self, raw: RawMaker) -> None:
        server = raw(answering(OK, OK, OK), self.context())
        sending = sender(server, tls=Tls(ca=str(PEM)))
        assert [sending.send(request_of(5000), "logs") for _ in range(3)] == [Delivered()] * 3
        assert server.connections == 1

    def test_any_other_is_not(self, raw: RawMaker) -> None:
        outcome = sender(raw(answering(OK), self.context())).send(BODY, "logs")
        assert isinstance(outcome, RetryAfter)
        assert outcome.why.startswith("the certificate is not trusted: ")

    def test_a_client_shows_its_own(self, raw: RawMaker) -> None:
        server = raw(answering(OK), self.context(mutual=True))
        assert isinstance(sender(server, tls=Tls(ca=str(PEM))).send(BODY, "logs"), RetryAfter)
        own = Tls(ca=str(PEM), client_certificate=str(PEM), client_key=str(PEM))
        assert sender(server, tls=own).send(BODY, "logs") == Delivered()

    def test_a_file_that_is_missing_may_come(self, raw: RawMaker, tmp_path: Path) -> None:
        """Secrets are mounted late, and rotate."""
        ca = tmp_path / "ca.pem"
        sending = sender(raw(answering(OK), self.context()), tls=Tls(ca=str(ca)))
        assert sending.send(BODY, "logs") == RetryAfter(None, f"No such file or directory: {ca}")
        ca.write_text("no certificate")
        assert isinstance(sending.send(BODY, "logs"), RetryAfter)
        ca.write_bytes(PEM.read_bytes())
        os.utime(ca, (1, 1))
        assert sending.send(BODY, "logs") == Delivered()

    def test_a_handshake_that_hangs_costs_the_deadline(self, raw: RawMaker) -> None:
        server = raw(lambda _, server: server.over.wait(30) and None)
        sending = sender(f"https://127.0.0.1:{server.port}/", 0.3)
        outcome, took_s = timed(lambda: sending.send(BODY, "logs"))
        assert outcome == RetryAfter(None, "no answer in time")
        assert took_s < FAR_BELOW_S

    def test_a_server_without_tls_is_no_answer(self, backend: Backend) -> None:
        outcome = sender(f"https://127.0.0.1:{backend.port}/v1/logs").send(BODY, "logs")
        assert isinstance(outcome, RetryAfter)

    def test_a_kept_connection_that_was_closed_is_replaced(self, raw: RawMaker) -> None:
        def serve(connection: socket.socket, server: Raw) -> None:
            server.request(connection)
            connection.sendall(OK)
            server.request(connection)

        server = raw(serve, self.context())
        sending = sender(server, tls=Tls(ca=str(PEM)))
        assert [sending.send(BODY, "logs") for _ in range(2)] == [Delivered()] * 2


class TestProxies:
    def test_a_plain_request_names_the_whole_address(self, raw: RawMaker) -> None:
        proxy = raw(answering(OK))
        environ = {"http_proxy": f"http://me:pw@127.0.0.1:{proxy.port}"}
        sending = sender("http://collector.example:4318/v1/logs", environ=environ)
        assert sending.send(BODY, "logs") == Delivered()
        head = proxy.read[0]
        assert head.startswith(b"POST http://collector.example:4318/v1/logs HTTP/1.1\r\n")
        assert b"Host: collector.example:4318\r\n" in head
        assert b"Proxy-Authorization: Basic bWU6cHc=\r\n" in head
        assert "pw" not in repr(sending)

    def test_a_secure_one_goes_through_a_tunnel_that_sees_no_header(self, raw: RawMaker) -> None:
        server = raw(answering(OK, OK), TestTls.context())

        def serve(connection: socket.socket, proxy: Raw) -> None:
            proxy.request(connection)
            with socket.create_connection(("127.0.0.1", server.port)) as inner:
                connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                threading.Thread(target=pump, args=(inner, connection), daemon=True).start()
                pump(connection, inner)

        proxy = raw(serve)
        sending = sender(
            server,
            environ={"HTTPS_PROXY": f"me:pw@127.0.0.1:{proxy.port}"},
            headers=lambda: {"x-key": "secret"},
            tls=Tls(ca=str(PEM)),
        )
        assert [sending.send(BODY, "logs") for _ in range(2)] == [Delivered()] * 2
        assert proxy.read == [
            f"CONNECT 127.0.0.1:{server.port} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
            "Proxy-Authorization: Basic bWU6cHc=\r\n\r\n".encode()
        ]
        assert b"x-key: secret" in server.read[0]

    def test_a_proxy_that_refuses_is_no_answer(self, raw: RawMaker) -> None:
        proxy = raw(answering(b"HTTP/1.1 407 Key\r\n\r\n"))
        sending = sender("https://collector.example/", environ={"all_proxy": f"127.0.0.1:{proxy.port}"})
        assert sending.send(BODY, "logs") == RetryAfter(None, "the proxy answers HTTP 407 to the request for a tunnel")

    @pytest.mark.parametrize("hosts", ["127.0.0.1", "*", "example.com, 127.0.0.1", "nonsense/8,127.0.0.0/8"])
    def test_no_proxy_is_obeyed(self, backend: Backend, hosts: str) -> None:
        environ = {"HTTP_PROXY": "http://127.0.0.1:1", "NO_PROXY": hosts}
        assert sender(backend, environ=environ).send(BODY, "logs") == Delivered()

    @pytest.mark.parametrize("networks", ["10.0.0.0/8", "::1/128", "127.0.0.0/99"])
    def test_networks_of_others_are_no_exemption(self, backend: Backend, networks: str) -> None:
        environ = {"HTTP_PROXY": "http://127.0.0.1:1", "NO_PROXY": networks}
        assert isinstance(sender(backend, environ=environ).send(BODY, "logs"), RetryAfter)

    def test_a_proxy_that_cannot_be_used_is_said_at_once(self) -> None:
        with pytest.raises(ValueError, match="proxy") as error:
            sender("http://h/", environ={"http_proxy": "socks5://me:secret@h:1"})
        assert "secret" not in str(error.value)


def pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
