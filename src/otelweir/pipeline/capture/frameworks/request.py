"""The context of one request: what all its log records carry."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final
from uuid import uuid4

from otelweir.pipeline.capture import context
from otelweir.pipeline.capture.frameworks.user import user_id
from otelweir.signals import AnyValue

METHOD: Final = "http.request.method"
ROUTE: Final = "http.route"
USER_ID: Final = "user.id"
REQUEST_ID: Final = "weir.request.id"
"""Semantic conventions name the header only, and a generated id has none."""

HEADER: Final = "X-Request-ID"

_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"))
_SANE: Final = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}")


def request_id(given: str | None) -> str:
    """The id that the client or a proxy gave, if it is short and plain; else a new one.

    >>> request_id("7f3a-22")
    '7f3a-22'
    """
    return given if given and _SANE.fullmatch(given) else uuid4().hex


class RequestContext:
    """Attributes of a request, which become known bit by bit; a `context.Source`.

    The path is not among them: it holds ids and at times secrets, and the request's span has it.

    Args:
        method: The HTTP method.
        given_id: The id that came with the request, if any.
        route: Gives the route's template; None while it is not known, or no longer.
        user: Gives the user object that the application holds; None for nobody.
        trace: The OpenTelemetry context of the request.
    """

    __slots__ = ("_attributes", "_before", "_ended", "_route", "_user", "_user_seen", "id", "trace")

    def __init__(
        self,
        method: str,
        given_id: str | None,
        *,
        route: Callable[[], str | None],
        user: Callable[[], object],
        trace: object | None = None,
    ) -> None:
        self.id = request_id(given_id)
        self.trace = trace
        self._route = route
        self._user = user
        self._user_seen: object = None
        self._before: context.Source | None = None
        self._ended = False
        self._attributes: dict[str, AnyValue] = {
            METHOD: method if method in _METHODS else "_OTHER",
            REQUEST_ID: self.id,
        }

    def begin(self) -> None:
        """Let the records of the current context carry this from now on."""
        self._before = context.follow(self)

    def end(self) -> None:
        """Let them carry what they did before. Where another request has begun since, leave that alone."""
        self._ended = True
        if context.following() is self:
            before = self._before
            while isinstance(before, RequestContext) and before._ended:
                before = before._before
            context.follow(before)

    def __call__(self) -> dict[str, AnyValue]:
        """What is known by now. What was known once stays known."""
        route = self._route()
        if route:
            self._attributes[ROUTE] = route
        user = self._user()
        if user is not self._user_seen:
            found = user_id(user)
            if found is not None:
                self._attributes[USER_ID], self._user_seen = found, user
        return self._attributes

    def __repr__(self) -> str:
        return f"<RequestContext {self._attributes}>"
