"""The middleware that gives the logs of a request its context."""

# Django ships no types.
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from otelweir import errors
from otelweir.integrations import _setup
from otelweir.pipeline.capture import context
from otelweir.pipeline.capture.frameworks.iteration import within, within_async
from otelweir.pipeline.capture.frameworks.request import HEADER, RequestContext

try:
    from asgiref.sync import iscoroutinefunction, markcoroutinefunction
    from django.http import HttpRequest, StreamingHttpResponse
    from django.http.response import HttpResponseBase as Response
    from django.utils.functional import LazyObject
except ImportError as error:
    raise errors.MissingExtra("django", "django") from error

__all__ = ["RequestContextMiddleware", "end_request"]


class RequestContextMiddleware:
    """Gives the logs of a request its context, and the response the request's id.

    The context lasts beyond the middleware, since Django logs a response such as 404 after the last one: a worker
    thread leaves it when the response is closed (`end_request`), the task of an asynchronous request when it ends.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Response | Awaitable[Response]:
        if self._is_async:
            return self._acall(request)
        source = _begin(request)
        return _end(source, self._get_response(request))

    async def _acall(self, request: HttpRequest) -> Response:
        source = _begin(request)
        return _end(source, await self._get_response(request))


def _begin(request: HttpRequest) -> RequestContext:
    source = RequestContext(
        request.method or "GET",
        request.headers.get(HEADER),
        route=lambda: _route(request),
        user=lambda: _user(request),
        trace=_setup.trace(),
    )
    source.begin()
    return source


def _end(source: RequestContext, response: Response) -> Response:
    if not response.has_header(HEADER):
        response[HEADER] = source.id
    if isinstance(response, StreamingHttpResponse):
        parts: Any = response.streaming_content
        response.streaming_content = within_async(source, parts) if response.is_async else within(source, parts)
    return response


def end_request(**_: Any) -> None:
    """Leave the context of the request; receives Django's signal `request_finished`."""
    source = context.following()
    if isinstance(source, RequestContext):
        source.end()


def _route(request: HttpRequest) -> str | None:
    match = request.resolver_match
    return None if match is None else str(match.route)


def _user(request: HttpRequest) -> object:
    """The user, if the application has already asked for it; asking would query the database."""
    held = vars(request)
    user = held.get("_cached_user") or held.get("_acached_user")
    if user is None:
        user = held.get("user")
        if isinstance(user, LazyObject):
            return None
    return user
