"""Loguru's records become log records: the message is the body, `extra` are attributes.

Loguru asks a sink's filter before it formats anything. So the filter does the work and lets nothing pass: a record
that is not kept is never formatted, nor is one that is.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Final

from otelweir import errors
from otelweir.pipeline.capture import once
from otelweir.pipeline.capture.port import ExcInfo, FindPort, Port

if TYPE_CHECKING:
    from loguru import Message, Record

_HANDLE: Final = logging.Handler.handle.__code__
_DEPTH: Final = 12


class Sink:
    """A sink for Loguru. Add it with its filter: `logger.add(sink, filter=sink.filter, format="")`.

    Without the filter it works too, also with `enqueue=True`; then each message is formatted first, and one that
    passes a queue is captured without trace and request context.

    Args:
        find: Gives the capture; asked for each record, since Weir may be configured later.
        bridged: Whether records of `logging` are captured where they are made.
    """

    def __init__(self, find: FindPort, bridged: Callable[[], bool]) -> None:
        self._find = find
        self._bridged = bridged

    def filter(self, record: Record) -> bool:
        """Capture the record; it goes no further."""
        self._take(record)
        return False

    def __call__(self, message: Message) -> None:
        self._take(message.record)

    def _take(self, record: Record) -> None:
        port = self._find()
        if port is None:
            return
        try:
            self._capture(port, record)
        except Exception as error:  # noqa: BLE001 - the application's log call must not fail because of us
            errors.warn(errors.CAPTURE_FAILED, f"Loguru: {type(error).__name__}: {error}", exc_info=error)

    def _capture(self, port: Port, record: Record) -> None:
        call = _log_call(sys._getframe(2))
        if call is not None:
            if _from_logging(call, record["message"]) and self._bridged():
                return  # the bridge saw it where it came from, with its own logger and arguments
            once.capture(call.f_code)
        name, level, file = record["name"] or "loguru", record["level"], record["file"]
        lineno, function = record["line"], record["function"]
        verdict = port.decide(
            name, level.no, record["message"], (), pathname=file.path, lineno=lineno, function=function
        )
        timestamp_ns = round(record["time"].timestamp() * 1e6) * 1000
        if verdict is None:
            if port.recorder is not None:
                port.hold(
                    name,
                    level.no,
                    record["message"],
                    (),
                    record["extra"],
                    timestamp_ns=timestamp_ns,
                    pathname=file.path,
                    lineno=lineno,
                    function=function,
                )
            return
        port.emit(
            name,
            level.no,
            record["message"],
            record["extra"],
            verdict,
            timestamp_ns=timestamp_ns,
            levelname=level.name,
            exc_info=_exc_info(record),
            pathname=file.path,
            lineno=lineno,
            function=function,
        )

    def __repr__(self) -> str:
        return "<otelweir Loguru sink>"


def _exc_info(record: Record) -> ExcInfo | None:
    exception = record["exception"]
    if exception is None or exception.value is None:
        return None
    return type(exception.value), exception.value, exception.traceback


def _log_call(frame: FrameType | None) -> FrameType | None:
    """Loguru's function that serves one log call: it hands the record to every sink in turn."""
    for _ in range(_DEPTH):
        if frame is None:
            return None
        if frame.f_code.co_name == "_log" and frame.f_globals.get("__name__") == "loguru._logger":
            return frame
        frame = frame.f_back
    return None


def _from_logging(call: FrameType, message: str) -> bool:
    """Whether a handler of `logging` passes its record on to Loguru (the recipe named InterceptHandler)."""
    frame = call.f_back
    for _ in range(_DEPTH):
        if frame is None:
            return False
        if frame.f_code is _HANDLE:
            record = frame.f_locals.get("record")
            return isinstance(record, logging.LogRecord) and record.getMessage() == message
        frame = frame.f_back
    return False
