"""Flask: request context on every log, and spans by OpenTelemetry's own instrumentation.

::

    app = Flask(__name__)
    otelweir.integrations.flask.init(app, service_name="shop")
"""

from __future__ import annotations

import sys
from typing import Any, Final

from otelweir import errors
from otelweir.integrations import _setup

try:
    import flask
except ImportError as error:
    raise errors.MissingExtra("flask", "flask") from error

from otelweir.pipeline.capture.frameworks.wsgi import ENVIRON_KEY, Environ, RequestContextMiddleware

__all__ = ["init"]

_EXTENSION: Final = "otelweir"


def init(app: flask.Flask, **settings: Any) -> None:
    """Configure Weir, give the logs of each request its context, and trace requests.

    Each log record carries `http.request.method`, `http.route`, `weir.request.id` and, when Flask-Login or the
    application (as `flask.g.user`) knows one, `user.id`. The request's id comes from the header `X-Request-ID` or is
    made; the response carries it too. Calling this again changes nothing.

    Args:
        app: The application.
        settings: As for `otelweir.configure`; none are needed under `opentelemetry-instrument`.

    Raises:
        TypeError: A name in `settings` is no setting.
    """
    if _EXTENSION in app.extensions:
        return
    app.extensions[_EXTENSION] = True
    _setup.configure(settings)
    if not getattr(app, "_is_instrumented_by_opentelemetry", False):
        instrumentor = _setup.instrumentor("flask")
        if instrumentor is not None and getattr(app, "_got_first_request", False):
            errors.warn(errors.NOT_LOADED, "init(app) came after the app's first request, too late to trace requests")
        elif instrumentor is not None:
            instrumentor.instrument_app(app)
    # Behind the instrumentation's own, so that the span is there. The lists are public, and unlike the decorators may
    # be added to when the first request has come.
    app.before_request_funcs.setdefault(None, []).append(_look)
    app.teardown_request_funcs.setdefault(None, []).append(_look)
    app.wsgi_app = RequestContextMiddleware(app.wsgi_app, _route, _user)  # type: ignore[method-assign]


def _look(_error: BaseException | None = None) -> None:
    """Note what is known now: the context of the request outlives Flask's."""
    source = flask.request.environ.get(ENVIRON_KEY)
    if source is not None:
        source.trace = source.trace or _setup.trace()
        source()


def _route(environ: Environ) -> str | None:
    if not flask.has_request_context() or flask.request.environ is not environ:
        return None
    rule = flask.request.url_rule
    return None if rule is None else rule.rule


def _user(environ: Environ) -> object:
    """The user, if the application has already asked for it."""
    if not flask.has_request_context() or flask.request.environ is not environ:
        return None
    user = flask.g.get("_login_user")  # where Flask-Login keeps it
    if user is None:
        return flask.g.get("user")
    login = sys.modules.get("flask_login")
    return None if login is not None and isinstance(user, login.AnonymousUserMixin) else user
