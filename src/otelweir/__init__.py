"""Weir: an OpenTelemetry distribution for Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otelweir.distro import configure
    from otelweir.pipeline.capture.context import log_attributes

__all__ = ["__version__", "configure", "log_attributes"]


def __getattr__(name: str) -> object:
    # Imported when first used: every import of a part of Weir runs this file, and most parts need little.
    match name:
        case "configure":
            from otelweir.distro import configure as found
        case "log_attributes":
            from otelweir.pipeline.capture.context import log_attributes as found  # type: ignore[assignment]
        case "__version__":
            from importlib.metadata import version

            return version("otelweir")
        case _:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
