"""What is said where something of ours fails: once, and never to the application."""

from __future__ import annotations

from otelweir import errors


def failed(error: Exception) -> None:
    """Warn of our own failure. Never raises."""
    try:
        errors.warn(errors.TRACK_FAILED, f"{type(error).__name__}: {error}", exc_info=error)
    except Exception:  # noqa: BLE001 - the application has no stack left, or its log handlers raise
        pass
