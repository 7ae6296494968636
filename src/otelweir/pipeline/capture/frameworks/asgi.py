"""Request context for ASGI applications: middleware around everything that belongs to one request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

from otelweir.pipeline.capture import context
from otelweir.pipeline.capture.frameworks.request import HEADER, RequestContext

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_HEADER: Final = HEADER.lower().encode("ascii")


class RequestContextMiddleware:
    """Gives the logs of a request its context, and the response the request's id.

    Streaming and background tasks run inside the call, threads and tasks inherit its context: all are covered.

    Args:
        app: The application, or the next middleware.
        trace: Gives the current OpenTelemetry context.
    """

    def __init__(self, app: App, trace: Callable[[], object]) -> None:
        # The name `app` matters: FastAPI follows it to see whether OpenTelemetry's middleware is in the stack.
        self.app = app
        self._trace = trace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        root = scope.get("root_path", "")
        source = RequestContext(
            scope.get("method", "GET"),
            _header(scope),
            route=lambda: route_of(scope, root),
            user=lambda: user_of(scope),
            trace=self._trace(),
        )

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                if not any(bytes(name).lower() == _HEADER for name, _ in headers):
                    headers.append((_HEADER, source.id.encode("ascii")))
                    message = {**message, "headers": headers}
            await send(message)

        source.begin()
        try:
            await self.app(scope, receive, send_with_id)
        except Exception as error:
            source()  # routers clean up behind them; look while the route may still be there
            context.remember(error, source)
            raise
        finally:
            source.end()

    def __repr__(self) -> str:
        return f"<RequestContextMiddleware before {self.app!r}>"


def _header(scope: Scope) -> str | None:
    for name, value in scope.get("headers", ()):
        if bytes(name).lower() == _HEADER:
            return bytes(value).decode("latin-1")
    return None


def route_of(scope: Scope, root: str) -> str | None:
    """The template of the route that Starlette or FastAPI chose; None before they did.

    Args:
        scope: The request's scope.
        root: Its root path before any mounted application added to it.
    """
    route = scope.get("route")
    # From 0.137 on, FastAPI's route of an included router lacks the prefix; this one has it.
    nested = scope.get("fastapi")
    if isinstance(nested, dict) and (effective := nested.get("effective_route_context")) is not None:
        route = getattr(effective, "starlette_route", None) or effective
    template = getattr(route, "path_format", None) or getattr(route, "path", None)
    if not isinstance(template, str):
        return None
    mounted = scope.get("root_path", "")
    if not mounted.startswith(root) or mounted == root:
        return template
    if template.endswith("/{path}") and not hasattr(route, "endpoint"):
        template = template.removesuffix("/{path}")  # a mount that has not handed on yet
        return template or "/"
    return _prefix(mounted[len(root) :], scope.get("path_params") or {}) + template


def _prefix(mounted: str, parameters: MutableMapping[str, Any]) -> str:
    """The template of the path below which an application is mounted."""
    names = {str(value): name for name, value in parameters.items()}
    return "/".join(f"{{{names[part]}}}" if part in names else part for part in mounted.split("/"))


def user_of(scope: Scope) -> object:
    """The user that authentication put into `request.user` or `request.state.user`."""
    user = scope.get("user")
    if user is not None:
        return user
    state = scope.get("state")
    return state.get("user") if isinstance(state, dict) else None
