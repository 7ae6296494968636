"""Loguru: its records become log records, decided on before they are formatted.

::

    from otelweir.integrations import loguru
    loguru.init()

Call it before a sink is added that hands records on to `logging`; such records are then not captured twice. Records
that come from `logging` (the recipe named InterceptHandler) are captured there, with their own logger and arguments.
"""

from __future__ import annotations

import threading

from otelweir import errors
from otelweir.integrations._setup import port

try:
    from loguru import logger
except ImportError as error:
    raise errors.MissingExtra("loguru", "loguru") from error

from otelweir.pipeline.capture import logging_bridge
from otelweir.pipeline.capture.loguru import Sink

__all__ = ["init", "sink"]

_adding = threading.Lock()
_added: int | None = None


def sink() -> Sink:
    """The sink, for `logger.add(sink, filter=sink.filter, level=...)` or `logger.configure(handlers=[...])`."""
    return Sink(port, logging_bridge.installed)


def init(level: int | str = "DEBUG") -> int:
    """Add the sink to Loguru's logger; again, it moves the sink to the new level.

    Args:
        level: The lowest level that is captured, as for `logger.add`.

    Returns:
        The sink's id, for `logger.remove`.
    """
    global _added
    with _adding:
        if _added is not None:
            try:
                logger.remove(_added)
            except ValueError:
                pass  # the application did
        made = sink()
        _added = logger.add(made, level=level, filter=made.filter, format="{message}")
        return _added
