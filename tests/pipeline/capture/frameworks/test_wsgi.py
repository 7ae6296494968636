"""A request of a WSGI application has its context until the response is closed."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.util import FileWrapper

import pytest

from otelweir.pipeline.capture import context
from otelweir.pipeline.capture.frameworks.iteration import within, within_async
from otelweir.pipeline.capture.frameworks.request import RequestContext
from otelweir.pipeline.capture.frameworks.wsgi import RequestContextMiddleware


@pytest.fixture(autouse=True)
def _outside_of_any_request() -> Iterator[None]:
    yield
    context.follow(None)


def wrapped(app: Callable[..., Iterable[bytes]]) -> RequestContextMiddleware:
    return RequestContextMiddleware(app, lambda environ: environ.get("route"), lambda environ: environ.get("user"))


class Server:
    """Calls an application as a server does, and notes the context of each step."""

    def __init__(self, app: Callable[..., Iterable[bytes]], **environ: Any) -> None:
        self.app = app
        self.environ = {"REQUEST_METHOD": "GET", "HTTP_X_REQUEST_ID": "r-1", **environ}
        self.headers: list[tuple[str, str]] = []

    def start_response(self, status: str, headers: list[tuple[str, str]], error: Any = None) -> None:
        self.headers = headers


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
    environ["route"] = "/orders/<order>"
    start_response("200 OK", [])
    yield context.current().__repr__().encode()


class TestTheContext:
    def test_is_there_while_the_response_is_made_and_for_the_access_log(self) -> None:
        server = Server(app)
        parts = wrapped(server.app)(server.environ, server.start_response)
        assert b"'/orders/<order>'" in b"".join(parts)
        assert context.current()["weir.request.id"] == "r-1"  # a server logs the request before it closes
        parts.close()  # type: ignore[attr-defined]
        assert context.current() == {}

    def test_of_two_requests_on_one_thread_does_not_mix(self) -> None:
        """A server may begin a request before the last one is closed."""
        first, second = (Server(app, HTTP_X_REQUEST_ID=name) for name in ("r-1", "r-2"))
        one = wrapped(app)(first.environ, first.start_response)
        two = wrapped(app)(second.environ, second.start_response)
        assert b"r-1" in b"".join(one)
        assert b"r-2" in b"".join(two)
        for parts in (one, two):
            parts.close()  # type: ignore[attr-defined]
        assert context.following() is None

    def test_ends_with_an_exception_which_leads_back_to_it(self) -> None:
        def fails(*_: Any) -> Iterable[bytes]:
            raise ValueError("no")

        server = Server(fails)
        with pytest.raises(ValueError, match="no") as raised:
            wrapped(fails)(server.environ, server.start_response)
        assert context.current() == {}
        assert context.current(raised.value)["weir.request.id"] == "r-1"

    def test_of_a_stream_that_fails_leads_back_too(self) -> None:
        def fails(*_: Any) -> Iterator[bytes]:
            yield b""
            raise ValueError("no")

        server = Server(fails)
        with pytest.raises(ValueError, match="no") as raised:
            list(wrapped(fails)(server.environ, server.start_response))
        assert context.current(raised.value)["weir.request.id"] == "r-1"


class TestTheResponse:
    def test_carries_the_requests_id(self) -> None:
        server = Server(app)
        list(wrapped(app)(server.environ, server.start_response))
        assert server.headers == [("X-Request-ID", "r-1")]

    def test_that_the_server_sends_by_itself_stays_as_it_is(self) -> None:
        """A server recognises its file wrapper by type and hands the file to the operating system."""

        def sends_file(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            start_response("200 OK", [])
            return FileWrapper(io.BytesIO(b"x"))

        server = Server(sends_file, **{"wsgi.file_wrapper": FileWrapper})
        assert isinstance(wrapped(sends_file)(server.environ, server.start_response), FileWrapper)
        assert context.current() == {}

    def test_is_closed(self) -> None:
        closed = []

        class Parts(list[bytes]):
            def close(self) -> None:
                closed.append(True)

        server = Server(lambda *_: Parts([b"x"]))
        wrapped(server.app)(server.environ, server.start_response).close()  # type: ignore[attr-defined]
        assert closed == [True]


class TestAStream:
    """Parts made after the code that began the response has returned, as Django's are."""

    @pytest.fixture
    def source(self) -> RequestContext:
        return RequestContext("GET", "r-1", route=lambda: None, user=lambda: None)

    def test_is_made_in_the_context_which_does_not_leak_in_between(self, source: RequestContext) -> None:
        seen = []

        def parts() -> Iterator[int]:
            try:
                for part in range(2):
                    seen.append(context.following())
                    yield part
            finally:
                seen.append(context.following())

        for _ in within(source, parts()):
            assert context.following() is None
        assert seen == [source, source, source]

    async def test_may_be_asynchronous(self, source: RequestContext) -> None:
        seen = []

        async def parts() -> Any:
            for part in range(2):
                seen.append(context.following())
                yield part

        async for _ in within_async(source, parts()):
            assert context.following() is None
        assert seen == [source, source]

    def test_that_is_given_up_is_closed_in_the_context(self, source: RequestContext) -> None:
        seen = []

        def parts() -> Iterator[int]:
            try:
                yield 1
            finally:
                seen.append(context.following())

        stream = within(source, parts())
        next(stream)
        stream.close()  # type: ignore[attr-defined]
        assert seen == [source]
        assert context.following() is None
