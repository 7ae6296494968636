"""The customers: a bounded load, the same mix each time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice

import pytest

from otelweir.demo.load import Load, customer, drive


class Shop(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/products/106":
            self.close_connection = True  # without a word, as after an exception
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Shop) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


class TestCustomers:
    def test_come_the_same_way_each_time(self) -> None:
        assert list(islice(customer(3), 200)) == list(islice(customer(3), 200))

    @pytest.mark.parametrize("name", range(4))
    def test_meet_everything_that_can_happen(self, name: int) -> None:
        requests = list(islice(customer(name), 200))
        paths = [request.path for request in requests]
        cards = {str(request.body["card"]) for request in requests if request.body and "card" in request.body}
        assert cards == {"valid", "declined", "slow"}
        assert {"/health", "/products", "/products/106"} <= set(paths)

    def test_the_first_of_them_meets_an_error_at_once(self) -> None:
        """So that the shortest demo has one to compare."""
        assert "/products/106" in [request.path for request in islice(customer(0), 3)]


class TestDrive:
    def test_counts_answers_and_tells_while_it_goes(self, port: int) -> None:
        looks: list[int] = []
        load = drive(port, 0.5, lambda load: looks.append(load.answered))
        assert load.answered == load.statuses[200] > 0
        assert load.unanswered == 0, "a closed connection is opened anew"
        assert looks

    def test_nobody_there_is_no_answer(self) -> None:
        load = drive(1, 0.2, lambda load: None)
        assert load.answered == 0
        assert load.unanswered > 0

    def test_what_the_watcher_raises_ends_it(self, port: int) -> None:
        def stop(load: Load) -> None:
            raise InterruptedError

        before = threading.active_count()
        with pytest.raises(InterruptedError):
            drive(port, 600, stop)
        for thread in threading.enumerate():
            if thread.name.startswith("Thread-") and "(shop)" in thread.name:
                thread.join(10)
        assert threading.active_count() <= before + 4  # the server's own for open connections
