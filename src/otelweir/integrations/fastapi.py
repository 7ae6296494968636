"""FastAPI: request context on every log, and spans by OpenTelemetry's own instrumentation.

::

    app = FastAPI()
    otelweir.integrations.fastapi.init(app, service_name="shop")
"""

from __future__ import annotations

from typing import Any, Final

from otelweir import errors
from otelweir.integrations import _setup

try:
    from fastapi import FastAPI
except ImportError as error:
    raise errors.MissingExtra("fastapi", "fastapi") from error

from otelweir.pipeline.capture.frameworks.asgi import RequestContextMiddleware

__all__ = ["init"]

_DONE: Final = "_otelweir_init"


def init(app: FastAPI, **settings: Any) -> None:
    """Configure Weir, give the logs of each request its context, and trace requests.

    Each log record carries `http.request.method`, `http.route`, `weir.request.id` and, when `request.user` or
    `request.state.user` is set, `user.id`. The request's id comes from the header `X-Request-ID` or is made; the
    response carries it too. Calling this again changes nothing.

    Args:
        app: The application.
        settings: As for `otelweir.configure`; none are needed under `opentelemetry-instrument`.

    Raises:
        TypeError: A name in `settings` is no setting.
    """
    if getattr(app, _DONE, False):
        return
    setattr(app, _DONE, True)
    _setup.configure(settings)
    # First, because it expects the stack as Starlette makes it.
    if not getattr(app, "_is_instrumented_by_opentelemetry", False):
        instrumentor = _setup.instrumentor("fastapi")
        if instrumentor is not None:
            instrumentor.instrument_app(app)
    build = app.build_middleware_stack

    def build_with_context() -> Any:
        return _with_context(build())

    app.build_middleware_stack = build_with_context  # type: ignore[method-assign]
    if app.middleware_stack is not None:
        app.middleware_stack = app.build_middleware_stack()


def _with_context(stack: Any) -> Any:
    """The stack with our middleware around everything that belongs to the request, and inside of its span."""
    inner = stack
    while inner is not None and not type(inner).__module__.startswith("opentelemetry."):
        inner = getattr(inner, "app", None)
    if inner is None or not hasattr(inner, "app"):
        return RequestContextMiddleware(stack, _setup.trace)
    inner.app = RequestContextMiddleware(inner.app, _setup.trace)
    return stack
