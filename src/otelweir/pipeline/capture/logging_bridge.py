"""The bridge from Python's `logging`, which the application cannot notice.

There is no handler: one on the root logger would turn the application's own `logging.basicConfig()` into a no-op and
silence `logging.lastResort`. Two methods of `logging.Logger` are wrapped instead:

- `callHandlers`, which every record passes that the logger's level and filters let through. Here a record is decided
  and, when kept, sent.
- `_log`, which makes the record. Where nobody but the bridge would take it, a record that is not kept ends here,
  before it exists.

The wrappers carry the file name of `logging` in their code, so that `findCaller`, and everything else that looks for
the first frame outside `logging`, finds the caller as before.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from threading import get_ident
from types import FunctionType
from typing import Any, Final, TypeVar

from otelweir import errors
from otelweir.pipeline.capture import once
from otelweir.pipeline.capture.otel import LogCapture
from otelweir.signals import AnyValue, Verdict

F = TypeVar("F", bound=Callable[..., Any])

EVENT_NAME: Final = "otel.event.name"
"""`extra` with this key makes a record an event, as in OpenTelemetry's own handler."""

_STANDARD: Final = frozenset(
    vars(logging.LogRecord("", 0, "", 0, "", (), None)).keys() | {"message", "asctime", "taskName"}
)
_CORRELATION: Final = frozenset({"otelSpanID", "otelTraceID", "otelTraceSampled", "otelServiceName"})
"""What upstream's log correlation puts on a record for formatters; an OpenTelemetry record has it anyway."""
_STANDARD_COUNT: Final = len(vars(logging.LogRecord("", 0, "", 0, "", (), None)))
_SOURCE: Final = logging.Logger.info.__code__.co_filename

_capture: LogCapture | None = None
_deaf: set[type] = {logging.NullHandler}
"""Handlers that take no record: the standard one, and those that would double ours."""


_decided: dict[int, Mapping[str, AnyValue]] = {}
"""By thread: what `_log` decided about the record that it is making right now."""


_CAPTURED: Final[Mapping[str, AnyValue]] = {}
"""The verdict on a record that an adapter of another library has captured already."""


def install(capture: LogCapture, deaf: set[type] | None = None) -> None:
    """Capture every record that passes the application's own levels and filters, from now on.

    Args:
        capture: Where the records go. A second call replaces the first one's.
        deaf: Classes of handlers that take no record while the bridge is there.
    """
    global _capture
    _deaf.update(deaf or ())
    _capture = capture
    if logging.Logger.callHandlers is not _call_handlers:
        _keep_standard()
        logging.Logger.callHandlers = _call_handlers  # type: ignore[method-assign]
        logging.Logger._log = _log  # type: ignore[method-assign]


def uninstall() -> None:
    """Stop capturing. Where somebody wrapped our wrappers they stay, and only pass on."""
    global _capture
    _capture = None
    if logging.Logger.callHandlers is _call_handlers and logging.Logger._log is _log:
        logging.Logger.callHandlers = _standard_call_handlers  # type: ignore[method-assign]
        logging.Logger._log = _standard_log  # type: ignore[method-assign]


def installed() -> bool:
    return _capture is not None


def after_fork() -> None:
    """In the child: forget what threads were doing that are gone."""
    _decided.clear()


def _keep_standard() -> None:
    global _standard_call_handlers, _standard_log, _pristine
    _standard_call_handlers, _standard_log = logging.Logger.callHandlers, logging.Logger._log
    _pristine = all(method.__code__.co_filename == _SOURCE for method in (_standard_call_handlers, _standard_log))


_standard_call_handlers = logging.Logger.callHandlers
_standard_log = logging.Logger._log
_pristine = True
"""Whether our wrapper wraps the standard method, and not somebody's who wants to see every record."""
_RECORD: Final = logging.LogRecord
_HANDLE: Final = logging.Logger.handle
_MAKE_RECORD: Final = logging.Logger.makeRecord


def _in_logging(function: F) -> F:
    """The function as if it were defined in `logging`: frames are told apart by the file name of their code."""
    assert isinstance(function, FunctionType)
    function.__code__ = function.__code__.replace(co_filename=_SOURCE)
    return function  # type: ignore[return-value]


@_in_logging
def _call_handlers(self: logging.Logger, record: logging.LogRecord) -> None:
    capture = _capture
    if capture is not None:
        verdict = _decided.pop(get_ident(), None) if _decided else None
        if verdict is None:
            attributes = record.__dict__
            if len(attributes) > _STANDARD_COUNT and EVENT_NAME in attributes:
                verdict = capture.decide_event(record.name, record.levelno, str(attributes[EVENT_NAME]))
            else:
                verdict = capture.decide(
                    record.name, record.levelno, record.msg, record.args, record.pathname, record.lineno, record.funcName
                )
        if verdict is not None and verdict is not _CAPTURED:
            _send(capture, record, verdict)
    _standard_call_handlers(self, record)


@_in_logging
def _log(
    self: logging.Logger,
    level: int,
    msg: object,
    args: Any,
    exc_info: Any = None,
    extra: Mapping[str, object] | None = None,
    stack_info: bool = False,
    stacklevel: int = 1,
) -> None:
    capture = _capture
    verdict: Verdict
    if once.mark.call is not None and once.captured(self):
        verdict = _CAPTURED
    elif (
        capture is None
        or level >= 40  # errors are kept
        or stacklevel != 1
        or stack_info
        or _somebody_wants(self, level)
        or (extra is not None and not _harmless(extra))
    ):
        return _standard_log(self, level, msg, args, exc_info, extra, stack_info, stacklevel)
    else:
        frame = sys._getframe(1)
        while frame.f_code.co_filename == _SOURCE and frame.f_back is not None:
            frame = frame.f_back
        verdict = capture.decide_call(self.name, level, msg, args, frame)
        if verdict is None:
            return None
    thread = get_ident()
    _decided[thread] = verdict
    try:
        return _standard_log(self, level, msg, args, exc_info, extra, stack_info, stacklevel)
    finally:
        _decided.pop(thread, None)


def _harmless(extra: Mapping[str, object]) -> bool:
    """Whether `extra` neither makes an event nor makes `makeRecord` raise."""
    return type(extra) is dict and EVENT_NAME not in extra and _STANDARD.isdisjoint(extra)


def _somebody_wants(logger: logging.Logger, level: int) -> bool:
    """Whether anybody but the bridge would see this record, or could."""
    found = False
    at: logging.Logger | None = logger
    while at is not None:
        for handler in at.handlers:
            found = True
            if type(handler) not in _deaf and level >= handler.level:
                return True
        if not at.propagate:
            break
        at = at.parent
    kind = type(logger)
    return (
        not (found or logging.lastResort is None or level < logging.lastResort.level)
        or kind.callHandlers is not _call_handlers
        or kind.handle is not _HANDLE
        or kind.makeRecord is not _MAKE_RECORD
        or bool(logger.filters)
        or logging._logRecordFactory is not _RECORD  # type: ignore[attr-defined]
        or not _pristine
    )


def _send(capture: LogCapture, record: logging.LogRecord, verdict: Mapping[str, AnyValue]) -> None:
    """Send a record that is kept."""
    try:
        attributes = record.__dict__
        extra: dict[str, object] = {}
        event_name: str | None = None
        if len(attributes) > _STANDARD_COUNT:
            extra = {key: value for key, value in attributes.items() if key not in _STANDARD and key not in _CORRELATION}
            if EVENT_NAME in extra:
                event_name = str(extra.pop(EVENT_NAME))
        if record.exc_text and not record.exc_info:
            extra["exception.stacktrace"] = record.exc_text  # what a queue handler leaves of an exception
        if record.stack_info:
            extra["code.stacktrace"] = record.stack_info
        capture.emit(
            record.name,
            record.levelno,
            _body(record),
            extra,
            verdict,
            timestamp_ns=int(record.created * 1e9),
            levelname=record.levelname,
            exc_info=record.exc_info,
            pathname=record.pathname,
            lineno=record.lineno,
            function=record.funcName,
            event_name=event_name,
        )
    except Exception as error:  # noqa: BLE001 - our bug must not become the host's
        errors.warn(errors.CAPTURE_FAILED, f"{type(error).__name__}: {error}", exc_info=error)


def _body(record: logging.LogRecord) -> AnyValue | object:
    message = record.msg
    if not record.args and isinstance(message, (str, Mapping, list, tuple)):
        return message
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - the arguments do not fit the format; handlers will say so
        return message
