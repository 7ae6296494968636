"""From a log call to an OpenTelemetry log record: the adapter that every way of logging shares."""

from __future__ import annotations

import logging
import math
import threading
import time
import traceback
from collections import deque
from collections.abc import Mapping
from itertools import islice
from threading import get_ident
from time import time_ns
from types import CodeType, FrameType, TracebackType
from typing import Any, Final, Protocol, TypeAlias

from opentelemetry import trace as trace_api
from opentelemetry._logs import Logger, LoggerProvider, LogRecord, SeverityNumber
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import Context, get_current
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.sdk._logs import Logger as SdkLogger
from opentelemetry.sdk._logs import LogRecordLimits, ReadWriteLogRecord
from opentelemetry.semconv.attributes import code_attributes, exception_attributes
from opentelemetry.trace import INVALID_SPAN_CONTEXT, NonRecordingSpan, get_current_span

from otelweir import errors
from otelweir.pipeline.capture import context, quiet
from otelweir.pipeline.capture.held import MAX_HELD, frozen, frozen_args, frozen_pairs
from otelweir.pipeline.capture.quiet import exporting, rendering
from otelweir.pipeline.capture.values import any_value, attributes_of, clean, message_of, shortened
from otelweir.signals import AnyValue, Verdict, severity_number

ExcInfo: TypeAlias = "tuple[type[BaseException] | None, BaseException | None, TracebackType | None]"

FILE: Final = code_attributes.CODE_FILE_PATH
FUNCTION: Final = code_attributes.CODE_FUNCTION_NAME
LINE: Final = code_attributes.CODE_LINE_NUMBER

_NUMBERS: Final = tuple(SeverityNumber(number) for number in range(25))
_SEVERITY_TEXT: Final = {"WARNING": "WARN", "CRITICAL": "FATAL"}

KEPT: Final[Mapping[str, AnyValue]] = {}
"""The verdict of a capture without a sampler."""

_OWN: Final = ("opentelemetry", "otelweir")
_ERROR: Final = logging.ERROR


class LogSampler(Protocol):
    """What capture asks of a sampler; `otelweir.pipeline.sample.logs` has it."""

    def call(self, logger: str, levelno: int, msg: object, args: Any, code: CodeType, instruction: int) -> Verdict: ...

    def site(
        self, logger: str, levelno: int, msg: object, args: Any, pathname: str | None, lineno: int, function: str | None
    ) -> Verdict: ...

    def text(self, logger: str, severity: int, message: str, event_name: str | None = None) -> Verdict: ...


class Recorder(Protocol):
    """Where records wait that are not kept; `otelweir.pipeline.sample.logs.flight` has it.

    Attributes:
        whole_traces: Whether what belongs to a kept trace goes out.
        held_by_tail: Whether it is only known at the end of a trace whether it is kept.
        rings: By key.
        recent: The context of a trace in which something was held, with its span and ring, until that ring is gone.
    """

    whole_traces: bool
    held_by_tail: bool
    recent: tuple[Any, Any, Any]

    @property
    def rings(self) -> Mapping[int, deque[tuple[Any, ...]]]: ...

    def begin(self, key: int) -> deque[tuple[Any, ...]]: ...

    def hold(self, key: int, entry: tuple[Any, ...]) -> None: ...

    def release(self, key: int) -> None: ...

    def after_fork(self) -> None: ...


class _Routes(dict[str, int]):
    """By logger name: whether its records are captured."""

    CAPTURE = 0
    IGNORE = 1
    """The SDK's own loggers and ours: what they say about exporting would have to be exported."""
    ASK = 2
    """Loggers of HTTP and gRPC clients: captured, unless it is an exporter that uses the client."""

    def __missing__(self, name: str) -> int:
        root = str(name).partition(".")[0]
        self[name] = route = self.IGNORE if root in _OWN else self.ASK if root in quiet.TRANSPORTS else self.CAPTURE
        return route


class _Clean(ReadWriteLogRecord):
    """A record whose attributes are clean and within the limits, so that the SDK need not go over them again."""

    def __post_init__(self) -> None:
        pass


class LogCapture:
    """Turns log calls into OpenTelemetry log records.

    Args:
        provider: Where the records go.
        sampler: Decides which records are kept; None keeps all.
        code: Whether records carry `code.*` attributes.
        bounded: Whether the limits of the provider are those of the environment, so that they can be kept here. Else
            the SDK goes over each record once more.
        recorder: Where records wait that are not kept; None lets them go.
        of_trace: What a record carries that is not kept for itself, but because its trace is.

    Attributes:
        routes: By logger name, 0 for loggers whose records are captured without further questions.
        emitting: Threads that emit or export a record right now.
    """

    def __init__(
        self,
        provider: LoggerProvider,
        sampler: LogSampler | None,
        *,
        code: bool = True,
        bounded: bool = True,
        recorder: Recorder | None = None,
        of_trace: Mapping[str, AnyValue] = {},
    ) -> None:
        self.provider = provider
        self.sampler = sampler
        self.recorder = recorder
        self._of_trace = of_trace
        self._sender = self._send_held
        self._code = code
        self._loggers: dict[str, Logger] = {}
        self.routes = _Routes()
        self.emitting: set[int] = set()
        self._bounded = bounded
        self._limits = LogRecordLimits()
        self._max_length = self._limits.max_log_record_attribute_length
        most = self._limits.max_log_record_attributes
        self._most: float = math.inf if most is None else most
        # Where texts are cut, each record has to be gone over.
        self._max_attributes: float = self._most if self._max_length is None else -1

    def __repr__(self) -> str:
        return f"<LogCapture of {len(self._loggers)} loggers, sampler {self.sampler!r}>"

    def after_fork(self) -> None:
        """In the child: forget what threads were doing that are gone."""
        self.emitting.clear()
        quiet.after_fork()
        if self.recorder is not None:
            self.recorder.after_fork()

    def captures(self, logger: str) -> bool:
        """Whether a record of this logger, on this thread, in this context enters the pipeline."""
        route = self.routes[logger]
        if route and (route == _Routes.IGNORE or not is_instrumentation_enabled()):
            return False
        # A record made while others are emitted or exported comes from a processor or an exporter, and would never end.
        thread = threading.get_ident()
        return thread not in self.emitting and thread not in rendering and thread not in exporting

    def decide_call(self, logger: str, levelno: int, msg: object, args: Any, frame: FrameType) -> Verdict:
        """Whether to keep the record that a logging call is about to make.

        Args:
            logger: The logger's name.
            levelno: The level in Python's `logging`.
            msg: The message, or with `args` its %-style format string.
            args: The arguments; empty for none.
            frame: The calling frame.
        """
        if (self.routes[logger] or self.emitting or exporting) and not self.captures(logger):
            return None
        if self.sampler is None:
            return KEPT
        try:
            if type(msg) is str:
                return self.sampler.call(logger, levelno, msg, args, frame.f_code, frame.f_lasti)
            with quiet.during(rendering):
                return self.sampler.call(logger, levelno, msg, args, frame.f_code, frame.f_lasti)
        except Exception as error:  # noqa: BLE001 - our bug must not become the host's
            return _kept_for(error)

    def decide(
        self,
        logger: str,
        levelno: int,
        msg: object,
        args: Any,
        pathname: str | None = None,
        lineno: int = 0,
        function: str | None = None,
    ) -> Verdict:
        """Whether to keep a record: None when not, else what `emit` needs to be told.

        Args:
            logger: The logger's name.
            levelno: The level in Python's `logging`.
            msg: The message, or with `args` its %-style format string.
            args: The arguments; empty for none.
            pathname: The file of the call.
            lineno: The line of the call.
            function: The function of the call.
        """
        if (self.routes[logger] or self.emitting or exporting) and not self.captures(logger):
            return None
        if self.sampler is None:
            return KEPT
        try:
            if type(msg) is str:
                return self.sampler.site(logger, levelno, msg, args, pathname, lineno, function)
            with quiet.during(rendering):
                return self.sampler.site(logger, levelno, msg, args, pathname, lineno, function)
        except Exception as error:  # noqa: BLE001 - our bug must not become the host's
            return _kept_for(error)

    def decide_event(self, logger: str, levelno: int, event_name: str) -> Verdict:
        """Whether to keep an event."""
        if (self.routes[logger] or self.emitting or exporting) and not self.captures(logger):
            return None
        if self.sampler is None:
            return KEPT
        try:
            return self.sampler.text(logger, severity_number(levelno), "", event_name)
        except Exception as error:  # noqa: BLE001 - our bug must not become the host's
            return _kept_for(error)

    def emit(
        self,
        logger: str,
        levelno: int,
        body: object,
        attributes: Mapping[Any, object],
        verdict: Mapping[str, AnyValue],
        *,
        timestamp_ns: int,
        args: Any = (),
        levelname: str | None = None,
        exc_info: ExcInfo | BaseException | None = None,
        pathname: str | None = None,
        lineno: int = 0,
        function: str | None = None,
        event_name: str | None = None,
    ) -> None:
        """Send a record that was decided to be kept. Never raises.

        Args:
            logger: The logger's name; becomes the instrumentation scope.
            levelno: The level in Python's `logging`.
            body: The message; mappings and lists keep their structure.
            attributes: Further attributes, of any values.
            verdict: What `decide` gave.
            timestamp_ns: Unix time in nanoseconds.
            args: What fills the places of a %-style `body`; empty for nothing.
            levelname: The level's name at the source.
            exc_info: An exception; becomes `exception.*`.
            pathname: The file of the call.
            lineno: The line of the call.
            function: The function of the call.
            event_name: The name, if the record is an event.
        """
        try:
            if self.recorder is not None and levelno >= _ERROR:
                # Before the error itself, as it happened.
                self.recorder.release(get_current_span().get_span_context().trace_id or -get_ident())
            found = attributes_of(attributes) if attributes else {}
            if exc_info:
                exception_attributes_into(found, exc_info)
            if self._code and pathname:
                found[FILE] = clean(pathname)
                found[LINE] = lineno
                if function:
                    found[FUNCTION] = clean(str(function))
            raised = exc_info[1] if isinstance(exc_info, tuple) else exc_info or None
            if current := context.current(raised):
                found.update(current)
            found.update(verdict)
            name = levelname or ""
            record = LogRecord(
                timestamp=timestamp_ns,
                observed_timestamp=time.time_ns(),
                context=self._context(raised),
                severity_number=_NUMBERS[severity_number(levelno)],
                severity_text=_SEVERITY_TEXT.get(name) or clean(str(name)),
                body=message_of(body, args),
                attributes=found,
                event_name=None if event_name is None else clean(event_name),
            )
            self._send(logger, record, found)
        except RecursionError:
            pass  # the application has no stack left, and will say so itself
        except Exception as failure:  # noqa: BLE001 - our bug must not become the host's
            errors.warn(errors.CAPTURE_FAILED, f"{type(failure).__name__}: {failure}", exc_info=failure)

    def hold(
        self,
        logger: str,
        levelno: int,
        msg: object,
        args: Any,
        extra: Mapping[Any, object] | None = None,
        *,
        timestamp_ns: int,
        pathname: str | None = None,
        lineno: int = 0,
        function: str | None = None,
    ) -> None:
        """Let a record that is not kept wait in the recorder. Never raises.

        What can change until it is read is copied or named now; nobody's code is run for a record that nobody may see
        (`held.py`).
        """
        try:
            recorder = self.recorder
            if recorder is None or ((self.routes[logger] or self.emitting or exporting) and not self.captures(logger)):
                return
            span = trace_api.get_current_span().get_span_context()
            trace_id = span.trace_id
            if args or type(msg) is not str or len(msg) > MAX_HELD:
                msg, args = frozen(msg), frozen_args(args)
            entry = (
                self._sender,
                timestamp_ns,
                span,
                logger,
                levelno,
                msg,
                args,
                extra and frozen_pairs(extra),
                pathname,
                lineno,
                function,
            )
            if recorder.whole_traces and not recorder.held_by_tail and span.trace_flags & 1:
                self._send_held(entry, self._of_trace)
            else:
                recorder.hold(trace_id or -threading.get_ident(), entry)
        except RecursionError:
            pass  # the application has no stack left, and will say so itself
        except Exception as failure:  # noqa: BLE001 - our bug must not become the host's
            errors.warn(errors.CAPTURE_FAILED, f"{type(failure).__name__}: {failure}", exc_info=failure)

    def hold_call(
        self,
        logger: str,
        levelno: int,
        msg: object,
        args: Any,
        extra: Mapping[str, object] | None,
        code: CodeType,
        instruction: int,
    ) -> None:
        """As `hold`, for a logging call that has not made a record and whose logger is captured: with fewer questions.

        Args:
            logger: The logger's name.
            levelno: The level in Python's `logging`.
            msg: The message or format string.
            args: The arguments; empty for none.
            extra: Further attributes.
            code: The code of the calling frame.
            instruction: The `f_lasti` of the calling frame; its line is looked up when it is read.
        """
        recorder = self.recorder
        if recorder is None:
            return
        try:
            current = get_current()
            recent = recorder.recent
            if recent[0] is current:
                span, ring = recent[1:]
            else:
                span = get_current_span(current).get_span_context() if current else INVALID_SPAN_CONTEXT
                key = span.trace_id or -get_ident()
                ring = recorder.rings.get(key)
                if ring is None:
                    ring = recorder.begin(key)
                if key > 0:  # outside traces, threads share a context
                    recorder.recent = current, span, ring
            if args:
                args = frozen_args(args)
            if extra:
                extra = frozen_pairs(extra)
            if type(msg) is not str or len(msg) > MAX_HELD:
                msg = frozen(msg)
            entry = (self._sender, time_ns(), span, logger, levelno, msg, args, extra, code, instruction, None)
            if recorder.whole_traces and not recorder.held_by_tail and span.trace_flags & 1:
                self._send_held(entry, self._of_trace)
            else:
                ring.append(entry)
        except RecursionError:
            pass  # the application has no stack left, and will say so itself
        except Exception as failure:  # noqa: BLE001 - our bug must not become the host's
            errors.warn(errors.CAPTURE_FAILED, f"{type(failure).__name__}: {failure}", exc_info=failure)

    def _send_held(self, entry: tuple[Any, ...], attributes: Mapping[str, AnyValue]) -> None:
        _, timestamp_ns, span, logger, levelno, msg, args, extra, pathname, lineno, function = entry
        found: dict[str, AnyValue] = attributes_of(extra) if extra else {}
        if type(pathname) is CodeType:
            code, instruction = pathname, lineno
            lineno = next(islice(code.co_positions(), instruction // 2, None), (0,))[0] or code.co_firstlineno
            pathname, function = code.co_filename, code.co_name
        if self._code and pathname:
            found[FILE] = clean(pathname)
            found[LINE] = lineno
            if function:
                found[FUNCTION] = clean(str(function))
        found.update(attributes)
        name = logging.getLevelName(levelno)
        record = LogRecord(
            timestamp=timestamp_ns,
            observed_timestamp=time.time_ns(),
            context=trace_api.set_span_in_context(NonRecordingSpan(span), Context()),
            severity_number=_NUMBERS[severity_number(levelno)],
            severity_text=_SEVERITY_TEXT.get(name) or clean(str(name)),
            body=message_of(msg, args),
            attributes=found,
        )
        self._send(logger, record, found)

    def _send(self, logger: str, record: LogRecord, found: dict[str, AnyValue]) -> None:
        target = self._loggers.get(logger)
        if target is None:
            target = self._loggers[logger] = self.provider.get_logger(clean(str(logger or "")))
        if self._bounded and isinstance(target, SdkLogger):
            if len(found) > self._max_attributes:
                record.attributes = self._within_limits(found)
            record = _Clean(record, target.resource, target.instrumentation_scope, self._limits)  # type: ignore[assignment]
        thread = threading.get_ident()
        self.emitting.add(thread)
        try:
            target.emit(record)
        finally:
            self.emitting.discard(thread)

    def _within_limits(self, attributes: dict[str, AnyValue]) -> BoundedAttributes:
        """The attributes as the limits allow them, without the lines that the SDK prints for each that is cut.

        What came first goes first, as in the SDK: `extra`, not the verdict.
        """
        if self._max_length is not None:
            attributes = {name: shortened(value, self._max_length) for name, value in attributes.items()}
        dropped = max(0, len(attributes) - int(min(self._most, len(attributes))))
        bounded = BoundedAttributes(immutable=False, extended_attributes=True)
        # Not by its constructor: SDKs before 1.45 refuse lists of several types there, though they can encode them.
        bounded._dict.update(islice(attributes.items(), dropped, None))
        bounded.dropped = dropped
        return bounded

    @staticmethod
    def _context(error: BaseException | None) -> Context | None:
        """The context of a record made when the span of its work is no longer the current one; None for the current."""
        found = context.trace(error)
        if found is None or trace_api.get_current_span().get_span_context().is_valid:
            return None
        return found if isinstance(found, Context) else None


def _kept_for(error: Exception) -> Mapping[str, AnyValue]:
    errors.warn(errors.SAMPLE_FAILED, f"{type(error).__name__}: {error}", exc_info=error)
    return KEPT


def exception_attributes_into(attributes: dict[str, AnyValue], exc_info: ExcInfo | BaseException) -> None:
    """Add `exception.type`, `exception.message` and `exception.stacktrace`."""
    if isinstance(exc_info, BaseException):
        exc_info = (type(exc_info), exc_info, exc_info.__traceback__)
    kind, error, trace = exc_info
    if kind is None:
        return
    module = getattr(kind, "__module__", None)
    name = getattr(kind, "__qualname__", str(kind))
    attributes[exception_attributes.EXCEPTION_TYPE] = name if module in (None, "builtins") else f"{module}.{name}"
    if error is not None:
        attributes[exception_attributes.EXCEPTION_MESSAGE] = any_value(error)
    with quiet.during(rendering):
        try:
            text = "".join(traceback.format_exception(kind, error, trace))
        except Exception:  # noqa: BLE001 - the exception's own code may do anything
            text = "".join(traceback.format_tb(trace))
    attributes[exception_attributes.EXCEPTION_STACKTRACE] = clean(text)
