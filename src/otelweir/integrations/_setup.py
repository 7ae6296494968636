"""What the integrations share: configuring Weir, and turning on OpenTelemetry's own instrumentation."""

from __future__ import annotations

import importlib
import os
from typing import Any, Final

from opentelemetry import context

import otelweir
from otelweir import distro, errors
from otelweir.pipeline.capture.port import Port

_DISABLED: Final = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"


def port() -> Port | None:
    """Where adapters of logging libraries hand in their records; None while Weir is not configured or logs are off."""
    handle = distro.active()
    return None if handle is None else handle.capture


def trace() -> object:
    """The current OpenTelemetry context."""
    return context.get_current()


def configure(settings: dict[str, Any]) -> None:
    """Configure Weir unless it is configured already; there is nothing to say about that unless settings are given."""
    if settings or distro.active() is None:
        otelweir.configure(**settings)


def instrumentor(name: str) -> Any | None:
    """OpenTelemetry's instrumentor of a framework; None when it is not installed or not wanted.

    Args:
        name: The name of its entry point and of its module, such as `flask`.
    """
    unwanted = {part.strip() for part in os.environ.get(_DISABLED, "").split(",")}
    if "*" in unwanted or name in unwanted:
        return None
    path = f"opentelemetry.instrumentation.{name}"
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not path.startswith(error.name):
            errors.warn(errors.NOT_LOADED, f"{path}: {error}")
        return None
    return next(
        (
            found
            for found in vars(module).values()
            if isinstance(found, type) and found.__name__.endswith("Instrumentor") and found.__module__ == path
        ),
        None,
    )
