"""structlog: its events become log records, decided on before anything is rendered.

In a chain of your own, put the processor behind what adds values and before what renders::

    structlog.configure(processors=[merge_contextvars, add_log_level, weir.processor(), JSONRenderer()])

Without a chain of your own, `configure()` makes one. Either works before and after `otelweir.configure()`; while Weir
is not configured, the processor does nothing.
"""

from __future__ import annotations

import logging
import sys

from otelweir import errors
from otelweir.integrations._setup import port

try:
    import structlog
except ImportError as error:
    raise errors.MissingExtra("structlog", "structlog") from error

from otelweir.pipeline.capture.structlog import Processor

__all__ = ["configure", "processor"]


def processor() -> Processor:
    """The processor that captures each event and passes it on unchanged.

    Where the chain ends in `logging`, the record is not captured a second time.
    """
    return Processor(port)


def configure(level: int | str = logging.NOTSET) -> None:
    """Set structlog up like its own defaults, and with Weir's processor.

    Context variables, level, time and exceptions; for people when standard output is a terminal, else one JSON object
    per line.

    Args:
        level: The lowest level that is logged, as a number or a name.
    """
    if sys.stdout is not None and sys.stdout.isatty():
        last: list[structlog.typing.Processor] = [structlog.dev.ConsoleRenderer()]
    else:
        # Local variables hold secrets at times; structlog's own dict_tracebacks prints them.
        frames = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        last = [structlog.processors.ExceptionRenderer(frames), structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.StackInfoRenderer(),
            structlog.dev.set_exc_info,
            processor(),
            structlog.processors.TimeStamper(fmt="iso"),
            *last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            level if isinstance(level, int) else logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(),
        cache_logger_on_first_use=True,
    )
