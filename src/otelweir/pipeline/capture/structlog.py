"""structlog's events become log records: the event is the body, the bound values are attributes."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping, MutableMapping
from types import FrameType
from typing import Any, Final

import structlog.contextvars

from otelweir import errors
from otelweir.pipeline.capture import once
from otelweir.pipeline.capture.port import ExcInfo, FindPort, Port

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "msg": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "err": logging.ERROR,
    "exception": logging.ERROR,
    "failure": logging.ERROR,
    "critical": logging.CRITICAL,
    "fatal": logging.CRITICAL,
    "trace": 5,
    "notset": logging.NOTSET,
}
_NAMES: Final = {5: "TRACE", 10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}

_FIELDS: Final = frozenset(
    {
        "event",
        "exc_info",
        "exception",
        "positional_args",
        "stack",
        "stack_info",
        "stackLevel",
        "stacklevel",
        "timestamp",
    }
)
"""Keys that have their own place in a record. `timestamp` is what TimeStamper adds; a record has its own."""

# structlog runs the chain of `await log.ainfo(...)` in a thread and keeps the caller's frame in this variable. It is
# private; without it such a record has no code attributes.
_ASYNC_CALLER: Final = getattr(structlog.contextvars, "_ASYNC_CALLING_STACK", None)


class Processor:
    """A structlog processor that captures the event and passes it on unchanged.

    It belongs behind what adds values (`merge_contextvars`, `add_log_level`) and before what renders.

    Args:
        find: Gives the capture; asked for each event, since Weir may be configured later.
    """

    def __init__(self, find: FindPort) -> None:
        self._find = find

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        port = self._find()
        # In a ProcessorFormatter, events are records of `logging` that the bridge has seen.
        if port is not None and "_record" not in event:
            try:
                _capture(port, logger, method, event)
            except Exception as error:  # noqa: BLE001 - the application's log call must not fail because of us
                errors.warn(errors.CAPTURE_FAILED, f"structlog: {type(error).__name__}: {error}", exc_info=error)
        return event

    def __repr__(self) -> str:
        return "<otelweir structlog processor>"


def _capture(port: Port, logger: Any, method: str, event: Mapping[str, Any]) -> None:
    levelno = _levelno(method, event)
    to_logging = isinstance(logger, logging.Logger)
    if to_logging and not logger.isEnabledFor(levelno):
        return
    chain = sys._getframe(2)  # above this function and the processor: structlog's `_process_event`
    caller = _caller(chain)
    name = _logger_name(logger, event, caller)
    if caller is None:
        pathname, lineno, function = None, 0, None
    else:
        pathname, lineno, function = caller.f_code.co_filename, caller.f_lineno, caller.f_code.co_name
    message, args = event.get("event"), event.get("positional_args") or ()
    verdict = port.decide(name, levelno, message, args, pathname=pathname, lineno=lineno, function=function)
    if to_logging and chain.f_back is not None:
        once.capture(chain.f_back.f_code, chain=chain.f_code, logger=logger)
    if verdict is None:
        if port.recorder is not None:
            port.hold(
                name,
                levelno,
                message,
                args,
                _attributes(event, name, levelno, None),
                timestamp_ns=time.time_ns(),
                pathname=pathname,
                lineno=lineno,
                function=function,
            )
        return
    exc_info = _exc_info(method, event)
    port.emit(
        name,
        levelno,
        _rendered(message, args),
        _attributes(event, name, levelno, exc_info),
        verdict,
        timestamp_ns=time.time_ns(),
        levelname=_NAMES.get(levelno, method.upper()),
        exc_info=exc_info,
        pathname=pathname,
        lineno=lineno,
        function=function,
    )


def _levelno(method: str, event: Mapping[str, Any]) -> int:
    known = _LEVELS.get(method)
    if known is not None:
        return known
    number = event.get("level_number")
    return number if isinstance(number, int) else _LEVELS.get(str(event.get("level")).lower(), logging.INFO)


def _logger_name(logger: Any, event: Mapping[str, Any], caller: FrameType | None) -> str:
    for name in (event.get("logger"), getattr(logger, "name", None)):
        if isinstance(name, str) and name:
            return name
    return str(caller.f_globals.get("__name__", "structlog")) if caller is not None else "structlog"


def _caller(frame: FrameType | None) -> FrameType | None:
    """The first frame outside structlog, at or above this one."""
    while frame is not None and _is_structlog(frame):
        frame = frame.f_back
    if _ASYNC_CALLER is not None and (frame is None or frame.f_globals.get("__name__") == "concurrent.futures.thread"):
        asked: FrameType | None = _ASYNC_CALLER.get(None)
        return asked
    return frame


def _is_structlog(frame: FrameType) -> bool:
    name = frame.f_globals.get("__name__", "")
    return isinstance(name, str) and (name == "structlog" or name.startswith("structlog."))


def _rendered(message: object, args: tuple[object, ...]) -> object:
    if not args or not isinstance(message, str):
        return message
    # As `logging` does: a single mapping fills named places.
    values = args[0] if len(args) == 1 and isinstance(args[0], Mapping) and args[0] else args
    try:
        return message % values
    except (TypeError, ValueError, KeyError):
        return message


def _exc_info(method: str, event: Mapping[str, Any]) -> ExcInfo | None:
    given = event.get("exc_info")
    if given is None and method == "exception" and "exception" not in event:
        given = True
    if isinstance(given, BaseException):
        return type(given), given, given.__traceback__
    if isinstance(given, tuple) and len(given) == 3 and isinstance(given[1], BaseException):
        return type(given[1]), given[1], given[2]
    if given and not isinstance(given, tuple):
        kind, error, trace = sys.exc_info()
        return (kind, error, trace) if kind is not None and error is not None else None
    return None


def _attributes(event: Mapping[str, Any], name: str, levelno: int, exc_info: ExcInfo | None) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in event.items():
        # What add_log_level, add_log_level_number and add_logger_name put there is said by the record already.
        if key in _FIELDS or (key == "logger" and value == name) or (key == "level_number" and value == levelno):
            continue
        if key == "level" and isinstance(value, str) and _LEVELS.get(value.lower()) == levelno:
            continue
        found[str(key)] = value
    if isinstance(stack := event.get("stack"), str):
        found["code.stacktrace"] = stack
    if exc_info is None and (exception := event.get("exception")) is not None:
        found.update(_formatted(exception))
    return found


def _formatted(exception: object) -> dict[str, object]:
    """The attributes of an exception that an earlier processor has already formatted."""
    match exception:
        case [*_, {"exc_type": str(kind), "exc_value": text}]:  # structlog.processors.dict_tracebacks
            return {"exception.type": kind, "exception.message": str(text), "exception": exception}
        case str(text):
            kind, _, message = text.rstrip().rpartition("\n")[2].partition(": ")
            return {"exception.type": kind, "exception.message": message, "exception.stacktrace": text}
    return {"exception": exception}
