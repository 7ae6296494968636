"""Request context for WSGI applications: from the call to the end of the response."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeAlias

from otelweir.pipeline.capture import context
from otelweir.pipeline.capture.frameworks.request import HEADER, RequestContext

Environ: TypeAlias = dict[str, Any]
App: TypeAlias = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

ENVIRON_KEY: Final = "otelweir.request"
"""Where the environment holds the request's context."""

_GIVEN: Final = "HTTP_X_REQUEST_ID"


class RequestContextMiddleware:
    """Gives the logs of a request its context until the response is closed, and the response the request's id.

    Args:
        app: The application.
        route: Gives the template of the route chosen for an environment; None before.
        user: Gives the user object that the application holds for an environment.
    """

    def __init__(self, app: App, route: Callable[[Environ], str | None], user: Callable[[Environ], object]) -> None:
        self.app = app
        self._route = route
        self._user = user

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        source = RequestContext(
            environ.get("REQUEST_METHOD", "GET"),
            environ.get(_GIVEN),
            route=lambda: self._route(environ),
            user=lambda: self._user(environ),
        )
        environ[ENVIRON_KEY] = source

        def start_with_id(status: str, headers: list[tuple[str, str]], *rest: Any, **more: Any) -> Any:
            if not any(name.lower() == HEADER.lower() for name, _ in headers):
                headers = [*headers, (HEADER, source.id)]
            return start_response(status, headers, *rest, **more)

        source.begin()
        try:
            parts = self.app(environ, start_with_id)
        except Exception as error:
            context.remember(error, source)
            source.end()
            raise
        except BaseException:
            source.end()
            raise
        wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(wrapper, type) and isinstance(parts, wrapper):
            source.end()  # the server sends such a file by itself, if it gets it as it is
            return parts
        return _Parts(parts, source)

    def __repr__(self) -> str:
        return f"<RequestContextMiddleware before {self.app!r}>"


class _Parts:
    """The parts of a response. The context ends when the server closes it, so that its access log has it too."""

    def __init__(self, parts: Iterable[bytes], source: RequestContext) -> None:
        self._parts = parts
        self._next = iter(parts)
        self._source = source

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        # Usually it is followed already; a server may iterate in another thread.
        before = context.follow(self._source)
        try:
            return next(self._next)
        except StopIteration:
            raise
        except Exception as error:
            context.remember(error, self._source)
            raise
        finally:
            context.follow(before)

    def close(self) -> None:
        try:
            if callable(close := getattr(self._parts, "close", None)):
                close()
        finally:
            self._source.end()
