"""The bridge from Python's `logging`, which the application cannot notice.

There is no handler: one on the root logger would turn the application's own `logging.basicConfig()` into a no-op and
silence `logging.lastResort`. Two methods of `logging.Logger` get a call in front of their own code instead:

- `callHandlers`, which every record passes that the logger's level and filters let through. Here a record is decided
  and, when kept, sent.
- `_log`, which makes the record. Where nobody but the bridge would take it, the call ends here: a record that is not
  kept never exists, and one that is kept is sent without the detour.

The calls are spliced into the methods (`splice.py`), so no traceback shows them and `findCaller` finds the caller.
Where somebody else has patched the methods before, they are wrapped; the wrappers carry the file name of `logging` in
their code, so that whatever looks for the first frame outside `logging` passes them by.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, Final, TypeVar

from otelweir import errors
from otelweir.pipeline.capture import once, quiet
from otelweir.pipeline.capture.otel import LogCapture
from otelweir.pipeline.capture.quiet import exporting, rendering
from otelweir.pipeline.capture.splice import spliced
from otelweir.signals import AnyValue

F = TypeVar("F", bound=Callable[..., Any])

EVENT_NAME: Final = "otel.event.name"
"""`extra` with this key makes a record an event, as in OpenTelemetry's own handler."""

_STANDARD: Final = frozenset(
    vars(logging.LogRecord("", 0, "", 0, "", (), None)).keys() | {"message", "asctime", "taskName"}
)
_CORRELATION: Final = frozenset({"otelSpanID", "otelTraceID", "otelTraceSampled", "otelServiceName"})
"""What upstream's log correlation puts on a record for formatters; an OpenTelemetry record has it anyway."""
_NO_ATTRIBUTES: Final = _STANDARD | _CORRELATION
_STANDARD_COUNT: Final = len(vars(logging.LogRecord("", 0, "", 0, "", (), None)))
_SOURCE: Final = logging.Logger.info.__code__.co_filename

_LOGGER: Final = logging.Logger
_STANDARD_HANDLE: Final = logging.Logger.handle
_STANDARD_MAKE: Final = logging.Logger.makeRecord
_OWN_FIELDS: Final = len(vars(logging.getLogger("otelweir")))
"""Attributes of a logger that nobody has patched."""
_RECORD: Final = logging.LogRecord

_capture: LogCapture | None = None
Deaf = Callable[[Any], bool]

_deaf: dict[type, Deaf | None] = {logging.NullHandler: None}
"""Classes of handlers that take no record: the standard one, and those that would double ours, by the question whether
this one would."""

_standard_call_handlers = _our_call_handlers = logging.Logger.callHandlers
_standard_log = _our_log = logging.Logger._log


def deafen(kind: type, question: Deaf) -> None:
    """Say that handlers of a class take no record where the question is answered with true."""
    _deaf[kind] = question


def install(capture: LogCapture) -> None:
    """Capture every record that passes the application's own levels and filters, from now on.

    Args:
        capture: Where the records go. A second call replaces the first one's.
    """
    global _capture
    _capture = capture
    if logging.Logger.callHandlers is not _our_call_handlers or _our_call_handlers is _standard_call_handlers:
        _patch()


def _patch() -> None:
    global _standard_call_handlers, _standard_log, _our_call_handlers, _our_log
    _standard_call_handlers, _standard_log = logging.Logger.callHandlers, logging.Logger._log
    if _is_of_logging(_standard_call_handlers) and _is_of_logging(_standard_log):
        call_handlers = spliced(_standard_call_handlers, _take)
        log = spliced(_standard_log, _took)
        _our_call_handlers = _wrapped_call_handlers if call_handlers is None else call_handlers
        _our_log = _wrapped_log if log is None else log
    else:
        # Somebody wants to see every record, so none may end early.
        _our_call_handlers, _our_log = _wrapped_call_handlers, _standard_log
    logging.Logger.callHandlers = _our_call_handlers  # type: ignore[method-assign]
    logging.Logger._log = _our_log  # type: ignore[method-assign]


def _is_of_logging(method: Callable[..., Any]) -> bool:
    return type(method) is FunctionType and method.__code__.co_filename == _SOURCE


def stop() -> None:
    """Stop capturing; exporters still stay quiet."""
    global _capture
    _capture = None


def uninstall() -> None:
    """Stop capturing, and be gone. Where somebody wrapped our methods they stay, and only pass on."""
    global _our_call_handlers, _our_log
    stop()
    if logging.Logger.callHandlers is _our_call_handlers and logging.Logger._log is _our_log:
        logging.Logger.callHandlers = _our_call_handlers = _standard_call_handlers  # type: ignore[method-assign]
        logging.Logger._log = _our_log = _standard_log  # type: ignore[method-assign]


def installed() -> bool:
    return _capture is not None


def _in_logging(function: F) -> F:
    """The function as if it were defined in `logging`: frames are told apart by the file name of their code."""
    assert isinstance(function, FunctionType)
    function.__code__ = function.__code__.replace(co_filename=_SOURCE)
    return function


@_in_logging
def _wrapped_call_handlers(self: logging.Logger, record: logging.LogRecord) -> None:
    if not _take(self, record):
        _standard_call_handlers(self, record)


@_in_logging
def _wrapped_log(
    self: logging.Logger,
    level: int,
    msg: object,
    args: Any,
    exc_info: Any = None,
    extra: Mapping[str, object] | None = None,
    stack_info: bool = False,
    stacklevel: int = 1,
) -> None:
    if not _took(self, level, msg, args, exc_info, extra, stack_info, stacklevel):
        _standard_log(self, level, msg, args, exc_info, extra, stack_info, stacklevel)


def _take(logger: logging.Logger, record: logging.LogRecord) -> bool:
    """Decide on a record that is about to reach the handlers, and send it if it is kept. Never raises.

    Returns:
        Whether no handler is to get it, as it is only there because of us.
    """
    capture = _capture
    try:
        if (rendering or exporting) and quiet.ours(record.name):
            return True
        if capture is None or (once.used and once.captured(logger)):
            return False
        event_name = getattr(record, EVENT_NAME, None)
        if event_name is None:
            verdict = capture.decide(
                record.name, record.levelno, record.msg, record.args, record.pathname, record.lineno, record.funcName
            )
        else:
            verdict = capture.decide_event(record.name, record.levelno, str(event_name))
        if verdict is not None:
            _send(capture, record, verdict)
        elif capture.recorder is not None and event_name is None:
            capture.hold(
                record.name,
                record.levelno,
                record.msg,
                record.args,
                _extra(record),
                timestamp_ns=int(record.created * 1e9),
                pathname=record.pathname,
                lineno=record.lineno,
                function=record.funcName,
            )
    except RecursionError:
        pass  # the application has no stack left, and will say so itself
    except Exception as error:  # noqa: BLE001 - our bug must not become the host's
        _failed(error)
    return False


def _took(
    logger: logging.Logger,
    level: int,
    msg: object,
    args: Any,
    exc_info: Any,
    extra: Mapping[str, object] | None,
    stack_info: bool,
    stacklevel: int,
) -> bool:
    """Whether a logging call is over, because nobody but the bridge would take its record. Never raises."""
    capture = _capture
    try:
        if (rendering or exporting) and quiet.ours(logger.name):
            return True  # without us there would be no such call
        if capture is None or stacklevel != 1 or stack_info:
            return False
        found = False
        at: logging.Logger | None = logger
        while at is not None:
            for handler in at.handlers:
                if level >= handler.level and not _is_deaf(handler):
                    return False
                found = True
            if not at.propagate:
                break
            at = at.parent
        kind = type(logger)
        if (
            (not found and _last_resort(logger, level))
            or logger.filters
            or logger.disabled
            or logging._logRecordFactory is not _RECORD  # type: ignore[attr-defined]
            or (extra is not None and not _harmless(extra))
            or kind.callHandlers is not _our_call_handlers
            or kind.handle is not _STANDARD_HANDLE
            or kind.makeRecord is not _STANDARD_MAKE
            or (kind is not _LOGGER and _overrides(kind))
            or len(logger.__dict__) > _OWN_FIELDS
        ):
            return False
        # Frame 1 is `_log` itself.
        frame = sys._getframe(2)
        while frame.f_code.co_filename == _SOURCE:
            back = frame.f_back
            if back is None:
                break
            frame = back
        if once.used and once.captured(logger):
            return True
        name = logger.name
        sampler = capture.sampler
        if sampler is None or capture.emitting or exporting or type(msg) is not str or capture.routes[name]:
            verdict = capture.decide_call(name, level, msg, args, frame)
            if verdict is None:
                if capture.recorder is not None and capture.captures(name):
                    capture.hold_call(name, level, msg, args, extra, frame.f_code, frame.f_lasti)
                return True
        else:  # what decide_call comes to; a call less
            verdict = sampler.call(name, level, msg, args, frame.f_code, frame.f_lasti)
            if verdict is None:
                if capture.recorder is not None:
                    capture.hold_call(name, level, msg, args, extra, frame.f_code, frame.f_lasti)
                return True
        if exc_info and not isinstance(exc_info, (BaseException, tuple)):
            exc_info = sys.exc_info()
        code = frame.f_code
        capture.emit(
            logger.name,
            level,
            msg,
            extra or {},
            verdict,
            args=args,
            timestamp_ns=time.time_ns(),
            levelname=logging.getLevelName(level),
            exc_info=exc_info,
            pathname=code.co_filename,
            lineno=frame.f_lineno,
            function=code.co_name,
        )
    except RecursionError:
        return False  # the application has no stack left; the standard way will say so
    except Exception as error:  # noqa: BLE001 - our bug must not become the host's
        _failed(error)
        return False
    return True


def _is_deaf(handler: logging.Handler) -> bool:
    kind = type(handler)
    if kind is logging.NullHandler:
        return True
    question = _deaf.get(kind)
    return question is not None and question(handler)


def _last_resort(logger: logging.Logger, level: int) -> bool:
    """Whether `logging` itself has something to say about a record that finds no handler."""
    if logging.lastResort is not None:
        return level >= logging.lastResort.level
    return logging.raiseExceptions and not logger.manager.emittedNoHandlerWarning


def _harmless(extra: Mapping[str, object]) -> bool:
    """Whether `extra` is nothing but attributes: no event, no correlation, nothing that makes `makeRecord` raise."""
    return type(extra) is dict and EVENT_NAME not in extra and _NO_ATTRIBUTES.isdisjoint(extra)


def _overrides(kind: type[logging.Logger]) -> bool:
    """Whether a class of loggers has its own idea of which records pass, or where they come from."""
    return kind.filter is not _LOGGER.filter or kind.findCaller is not _LOGGER.findCaller


def _send(capture: LogCapture, record: logging.LogRecord, verdict: Mapping[str, AnyValue]) -> None:
    """Send a record that is kept."""
    extra = _extra(record)
    event_name: str | None = None
    if EVENT_NAME in extra:
        event_name = str(extra.pop(EVENT_NAME))
    if record.exc_text and not record.exc_info:
        extra["exception.stacktrace"] = record.exc_text  # what a queue handler leaves of an exception
    if record.stack_info:
        extra["code.stacktrace"] = record.stack_info
    capture.emit(
        record.name,
        record.levelno,
        record.msg,
        extra,
        verdict,
        args=record.args,
        timestamp_ns=int(record.created * 1e9),
        levelname=record.levelname,
        exc_info=record.exc_info,
        pathname=record.pathname,
        lineno=record.lineno,
        function=record.funcName,
        event_name=event_name,
    )


def _extra(record: logging.LogRecord) -> dict[str, object]:
    attributes = record.__dict__
    if len(attributes) <= _STANDARD_COUNT:
        return {}
    return {key: value for key, value in attributes.items() if key not in _NO_ATTRIBUTES}


def _failed(error: Exception) -> None:
    try:
        errors.warn(errors.CAPTURE_FAILED, f"{type(error).__name__}: {error}", exc_info=error)
    except Exception:  # noqa: BLE001 - whatever is wrong here is not the application's fault
        pass
