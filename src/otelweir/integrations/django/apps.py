"""The Django app: configures Weir when Django starts."""

# Django ships no types.
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Final

from otelweir import errors
from otelweir.integrations import _setup
from otelweir.settings import VARIABLES

try:
    from django.apps import AppConfig
except ImportError as error:
    raise errors.MissingExtra("django", "django") from error

from django.conf import settings
from django.core.signals import request_finished

from otelweir.integrations.django import middleware

__all__ = ["WeirConfig"]

_MIDDLEWARE: Final = f"{middleware.__name__}.{middleware.RequestContextMiddleware.__name__}"
_UPSTREAM: Final = "opentelemetry.instrumentation.django."
_KNOWN: Final = frozenset({"service_name", "endpoint", *VARIABLES})


class WeirConfig(AppConfig):  # type: ignore[misc]
    """Configures Weir from the setting `WEIR`, adds the middleware, traces requests."""

    name = "otelweir.integrations.django"
    label = "otelweir"
    verbose_name = "Weir"

    def ready(self) -> None:
        _setup.configure(_usable(getattr(settings, "WEIR", None)))
        instrumentor = _setup.instrumentor("django")
        if instrumentor is not None and not instrumentor().is_instrumented_by_opentelemetry:
            instrumentor().instrument()
        _add_middleware()
        request_finished.connect(middleware.end_request, dispatch_uid=_MIDDLEWARE)


def _usable(given: object) -> dict[str, Any]:
    """The settings in `WEIR` that exist; the others are reported. Values are checked later, like those of variables."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        errors.warn(errors.BAD_VALUE, f"WEIR={given!r} in Django's settings is not a dict")
        return {}
    found = {}
    for name, value in given.items():
        if name in _KNOWN:
            found[name] = value
            continue
        nearest = difflib.get_close_matches(str(name).lower().removeprefix("weir_"), _KNOWN, n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        errors.warn(errors.UNKNOWN_SETTING, f"WEIR[{name!r}] in Django's settings is not a setting of Weir{hint}")
    return found


def _add_middleware() -> None:
    """Put the middleware first, or right behind the one that makes the request's span."""
    listed = list(settings.MIDDLEWARE)
    if _MIDDLEWARE in listed:
        return
    place = max((at + 1 for at, path in enumerate(listed) if path.startswith(_UPSTREAM)), default=0)
    settings.MIDDLEWARE = [*listed[:place], _MIDDLEWARE, *listed[place:]]
