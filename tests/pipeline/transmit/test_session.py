"""Requests through somebody's session: what is in it counts, and nothing that it does holds anybody up."""

from __future__ import annotations

import gzip
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from otelweir.pipeline.transmit import Delivered, Rejected, RetryAfter, Tls, TooLarge, Unauthorised
from otelweir.pipeline.transmit.session import SessionSender
from otelweir.testing import Answer, Backend

PEM = str(Path(__file__).parents[2] / "distro" / "localhost.pem")
FAR_BELOW_S = 8.0


@pytest.fixture
def backend() -> Iterator[Backend]:
    with Backend() as running:
        yield running


def keyed(key: str = "k1") -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    session.headers["x-key"] = key
    return session


def sender(backend: Backend, timeout_s: float = 20.0, make: Any = keyed, **options: Any) -> SessionSender:
    return SessionSender(f"{backend.endpoint}/v1/logs", make, timeout_s=timeout_s, **options)


class TestDelivery:
    def test_what_is_in_the_session_goes_along(self, backend: Backend) -> None:
        sending = sender(backend, headers=lambda: {"X-Own": "o"}, user_agent="otelweir/1", compression="gzip")
        body = b"\x0a\x00" * 2000
        assert sending.send(body, "logs", frames="f") == Delivered()
        request = backend.requests[0]
        assert gzip.decompress(request.body) == body
        told = ("x-key", "x-own", "user-agent", "weir-frames", "content-type")
        assert [request.headers[name] for name in told] == [
            "k1", "o", "otelweir/1", "f", "application/x-protobuf",
        ]  # fmt: skip
        assert (sending.raw_bytes, sending.wire_bytes) == (len(body), len(request.body))

    def test_its_authentication_is_asked(self, backend: Backend) -> None:
        class Auth(requests.auth.AuthBase):
            def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
                request.headers["authorization"] = "Signed s3cr3t"
                return request

        def make() -> requests.Session:
            session = keyed()
            session.auth = Auth()
            return session

        assert sender(backend, make=make).send(b"", "logs") == Delivered()
        assert backend.requests[0].headers["authorization"] == "Signed s3cr3t"

    @pytest.mark.parametrize(
        ("answer", "kind"),
        [
            (Answer(503, {"Retry-After": "7"}), RetryAfter),
            (Answer(413), TooLarge),
            (Answer(401), Unauthorised),
            (Answer(404), Rejected),
            (Answer(hang_up=True), RetryAfter),
        ],
    )
    def test_refusals_are_told_apart(self, backend: Backend, answer: Answer, kind: type) -> None:
        backend.answers = [answer]
        outcome = sender(backend).send(b"", "logs")
        assert type(outcome) is kind
        if answer.headers:
            assert outcome == RetryAfter(7.0, "HTTP 503")

    def test_a_redirect_is_not_followed(self, backend: Backend) -> None:
        with Backend() as other:
            backend.answers = [Answer(307, {"Location": f"{other.endpoint}/v1/logs"})]
            assert isinstance(sender(backend).send(b"", "logs"), RetryAfter)
            assert not other.requests

    def test_a_bomb_is_not_unpacked(self, backend: Backend) -> None:
        backend.answers = [Answer(headers={"Content-Encoding": "gzip"}, body=gzip.compress(bytes(50_000_000)))]
        sending = sender(backend)
        assert sending.send(b"", "logs") == Delivered()
        assert sending.send(b"", "logs") == Delivered()

    def test_certificates_of_the_variables_count(self) -> None:
        with Backend(certificate=PEM, client_ca=PEM) as backend:
            assert sender(backend, tls=Tls(PEM, PEM, PEM)).send(b"", "logs") == Delivered()
            outcome = sender(backend).send(b"", "logs")
            assert isinstance(outcome, RetryAfter)
            assert outcome.why.startswith("the certificate is not trusted")


class TestTrouble:
    def test_nobody_listening_is_said_in_the_systems_words(self, backend: Backend) -> None:
        backend.stop()
        assert sender(backend).send(b"", "logs") == RetryAfter(None, "Connection refused")

    def test_a_provider_that_fails_or_a_header_that_cannot_be_sent_waits(self, backend: Backend) -> None:
        def broken() -> requests.Session:
            raise RuntimeError("s3cr3t")

        for options in ({"make": broken}, {"headers": lambda: {"x": "s3cr3t\r\n"}}):
            outcome = sender(backend, **options).send(b"", "logs")
            assert isinstance(outcome, Unauthorised)
            assert "cr3t" not in outcome.why

    def test_a_secret_that_the_server_repeats_is_not_shown(self, backend: Backend) -> None:
        backend.answers = [Answer(401, {"Content-Type": "text/plain"}, b"bad s3cr3t")]
        outcome = sender(backend, headers=lambda: {"x-key": "s3cr3t"}).send(b"", "logs")
        assert outcome == Unauthorised("HTTP 401: bad ***")

    def test_headers_that_drip_cost_the_deadline_and_one_thread(self) -> None:
        """Each byte comes within the time that requests knows, and the whole never does."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            over = threading.Event()

            def drip() -> None:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                    while not over.wait(0.05):
                        connection.sendall(b"x")

            thread = threading.Thread(target=drip, daemon=True)
            thread.start()
            sending = SessionSender(f"http://127.0.0.1:{listener.getsockname()[1]}/", keyed, timeout_s=0.5)
            started = time.monotonic()
            before = threading.active_count()
            assert sending.send(b"", "logs") == RetryAfter(None, "no answer in time")
            for _ in range(3):
                assert sending.send(b"", "logs") == RetryAfter(None, "the last request has not come back yet")
            assert threading.active_count() <= before + 1
            assert time.monotonic() - started < FAR_BELOW_S
            over.set()
            thread.join()

    def test_a_deadline_that_has_passed_sends_nothing(self, backend: Backend) -> None:
        assert isinstance(sender(backend).send(b"", "logs", time.monotonic() - 1), RetryAfter)
        assert not backend.requests


class TestPlace:
    def test_what_it_is_told_to_be_in_is_entered_on_the_thread_that_sends(self, backend: Backend) -> None:
        inside: list[int] = []

        @contextmanager
        def during() -> Iterator[None]:
            inside.append(threading.get_ident())
            yield
            inside.append(threading.get_ident())

        assert sender(backend, during=during).send(b"", "logs") == Delivered()
        assert inside[0] == inside[1] != threading.get_ident()

    def test_a_child_has_a_session_of_its_own(self, backend: Backend) -> None:
        made: list[int] = []

        def make() -> requests.Session:
            made.append(os.getpid())
            return keyed()

        sending = sender(backend, make=make)
        assert sending.send(b"", "logs") == Delivered()
        child = os.fork()
        if child == 0:
            done = sending.send(b"", "logs") == Delivered() and made == [os.getppid(), os.getpid()]
            os._exit(0 if done else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert sending.send(b"", "logs") == Delivered()
        assert len(made) == 1
        sending.close()
