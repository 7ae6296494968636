"""The one pipeline of this process: who set it up, and where it is."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any

from otelweir import errors
from otelweir.distro.assemble import Handle, assemble
from otelweir.distro.exporters import Target
from otelweir.settings import load

_lock = threading.RLock()
_handle: Handle | None = None
_launched = False


def active() -> Handle | None:
    """The pipeline of this process; None before it is configured and after its shutdown."""
    return _handle if _handle is not None and not _handle.ended else None


def launch(resource_attributes: Mapping[str, Any]) -> None:
    """Assemble the pipeline for `opentelemetry-instrument`."""
    global _handle, _launched
    with _lock:
        if _handle is None:
            _handle = assemble(load(os.environ), resource_attributes=resource_attributes)
            _launched = True


def configure(
    service_name: str | None = None,
    endpoint: str | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    resource_attributes: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Handle:
    """Set up OpenTelemetry with Weir, for programs that are not started with `opentelemetry-instrument`.

    The `OTEL_*` and `WEIR_*` variables apply; what is given here wins over them. Called again, or under the launcher,
    it changes nothing and returns the pipeline that is there; when that means that an argument is ignored, it says so
    once. After its shutdown a pipeline cannot start again, because OpenTelemetry's global providers are set once in a
    process: then, too, it returns the one that was there, and says so.

    Providers that the program has set up already stay as they are: log records then go to its logger provider.

    Args:
        service_name: `service.name` of the resource.
        endpoint: Base URL of the OTLP backend for all signals, such as `http://localhost:4318`.
        headers: Headers of every export request, such as an API key.
        resource_attributes: Further attributes of the resource.
        settings: Any setting of Weir, by its variable's name without `WEIR_`, in lower case:
            `log_sampling="dry-run"`. See docs/settings.md.

    Returns:
        The pipeline, to `flush(timeout_s)` and `shutdown()`.

    Raises:
        TypeError: `settings` has a name that is no setting.
    """
    global _handle, _launched
    with _lock:
        current = _handle
        if current is not None and current.ended:
            errors.warn(errors.ALREADY_CONFIGURED, "configure() cannot start again what was shut down")
        elif current is not None:
            arguments = (service_name, endpoint, headers, resource_attributes, *settings.values())
            if _launched or any(argument is not None for argument in arguments):
                by = "opentelemetry-instrument" if _launched else "an earlier configure()"
                errors.warn(errors.ALREADY_CONFIGURED, f"configure() changes nothing after {by}")
        if current is not None:
            return current
        loaded = load(os.environ, **settings)
        attributes = dict(resource_attributes or {})
        if service_name is not None:
            attributes["service.name"] = service_name
        _handle = assemble(loaded, target=Target(endpoint, headers), resource_attributes=attributes)
        _launched = False
        return _handle
