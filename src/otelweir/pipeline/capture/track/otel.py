"""Spans for what is tracked, and the context below which they lie: the only file of this folder that knows the SDK.

Nothing here raises into the application, but for the misuse of an argument. A context is never taken off by a token,
which only the thread and task that put it on could use: who leaves puts back what was there before.
"""

from __future__ import annotations

import math
import random
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from types import TracebackType
from typing import Any, Final, ParamSpec, TypeAlias, TypeVar

from opentelemetry import baggage
from opentelemetry import trace as trace_api
from opentelemetry._logs import LogRecord, SeverityNumber, get_logger
from opentelemetry.context import Context, attach, create_key, get_current, set_value
from opentelemetry.sdk._logs import LogRecordProcessor, ReadWriteLogRecord
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.trace import NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags, set_span_in_context

from otelweir import errors
from otelweir.pipeline.capture.track import kinds
from otelweir.pipeline.capture.track.arguments import Arguments
from otelweir.pipeline.capture.track.content import MAX_BYTES, Attachment, Content, Parts, content_of
from otelweir.pipeline.capture.track.kinds import Kind, attributes_of_kind
from otelweir.pipeline.capture.track.scope import (
    METADATA,
    TAGS,
    Scope,
    metadata_of,
    scope_of,
    scope_of_baggage,
    tags_of,
    text_of,
)
from otelweir.pipeline.capture.values import any_value, clean
from otelweir.signals import AnyValue

P = ParamSpec("P")
R = TypeVar("R")

__all__ = ["Context", "attach", "get_current"]

TRUNCATED: Final = "weir.truncated"
"""The attributes of a span in which something is missing."""

ENDED_BY: Final = "weir.ended_by"
"""`closed` where a stream was not read to its end, `cancelled` where a task was."""

SAMPLE: Final = "weir.track.sample"
"""The share of calls that are tracked, where not all are."""

ERROR_TYPE: Final = "error.type"
ATTACHMENT: Final = "weir.attachment"
EVALUATION: Final = "gen_ai.evaluation.result"
SCORE: Final = "weir.score."

_SCOPE: Final = create_key("weir-scope")
_LOCAL: Final = "weir_local"
_LEFT: Final = "weir_left"
_SAID: Final = "weir_said"
"""On a span whose output was set by hand: what its function returns does not replace it."""

_NOTHING: Final = object()

_OURS_ONLY: Final = 2
"""References to a span that only its object has, while they are counted."""

_tracer: Final = trace_api.get_tracer("otelweir")


class Limits:
    """What is captured, for the whole process; the distribution sets it from the settings.

    Attributes:
        content: Whether input and output are captured at all.
        max_bytes: Bytes of one value's JSON.
        baggage: Whether `context` tells other services, and hears from them.
    """

    __slots__ = ("baggage", "content", "max_bytes")

    def __init__(self) -> None:
        self.content = True
        self.max_bytes = MAX_BYTES
        self.baggage = False


limits: Final = Limits()


class _Shared:
    """What all places in a local trace know. Made only where there is something to know."""

    __slots__ = ("inside", "mirrored", "scope")

    def __init__(self) -> None:
        self.scope: Scope | None = None
        self.mirrored: str | None = None
        self.inside: LocalTrace | None = None


class LocalTrace:
    """The part of a trace that is in this process, below one root.

    Attributes:
        tracked: Whether what lies below here lies inside of a tracked function.
        shared: What `update_trace` said about what comes later, and more.
    """

    __slots__ = ("_root", "shared", "tracked")

    def __init__(self, root: weakref.ref[Any]) -> None:
        self._root = root
        self.tracked = False
        self.shared: _Shared | None = None

    def _share(self) -> _Shared:
        if self.shared is None:
            self.shared = _Shared()
        return self.shared

    def later(self, scope: Scope) -> None:
        """Say something about what begins later."""
        shared = self._share()
        shared.scope = scope.within(shared.scope)

    def put_output(self, root: trace_api.Span, text: str) -> None:
        """Give the root the output of the last tracked function below it, unless it has one of its own."""
        shared = self._share()
        own = (getattr(root, "attributes", None) or {}).get(kinds.OUTPUT)
        if own is None or own == shared.mirrored:
            shared.mirrored = text
            root.set_attributes({kinds.OUTPUT: text, kinds.OUTPUT_TYPE: kinds.JSON})

    def root(self) -> trace_api.Span | None:
        """The local root, while it has not ended."""
        found: trace_api.Span | None = self._root()
        return found if found is not None and found.is_recording() else None

    def inside(self) -> LocalTrace:
        """The same, inside of a tracked function."""
        if self.tracked:
            return self
        shared = self._share()
        if shared.inside is None:
            shared.inside = LocalTrace(self._root)
            shared.inside.tracked = True
            shared.inside.shared = shared
        return shared.inside


def local_root(span: trace_api.Span) -> trace_api.Span | None:
    """The span that is the root, in this process, of a span's trace; None where it has ended or is not known."""
    local: LocalTrace | None = getattr(span, _LOCAL, None)
    return local.root() if local is not None else None


def _entered(span: trace_api.Span, context: Context) -> None:
    """Give a span that has begun its place in the local trace, and what the context says."""
    parent = trace_api.get_current_span(context)
    local: LocalTrace | None = getattr(parent, _LOCAL, None)
    if local is None:
        local = LocalTrace(weakref.ref(parent if parent.is_recording() else span))
        if parent.is_recording():
            setattr(parent, _LOCAL, local)
    setattr(span, _LOCAL, local)
    if _SCOPE not in context and not limits.baggage and local.shared is None:
        return
    scope = _scope(context, local)
    if scope is not None:
        found = scope.attributes
        own: Mapping[str, Any] | None = getattr(span, "attributes", None)
        if own:
            found = {name: value for name, value in found.items() if name not in own}
            if TAGS in own and scope.tags:
                found[TAGS] = list(dict.fromkeys((*scope.tags, *own[TAGS])))
        span.set_attributes(found)


def _scope(context: Context, local: LocalTrace | None) -> Scope | None:
    found: Scope | None = context.get(_SCOPE)  # type: ignore[assignment]
    if limits.baggage and (entries := baggage.get_all(context)) and (told := scope_of_baggage(entries)) is not None:
        found = found.within(told) if found is not None else told
    later = local.shared.scope if local is not None and local.shared is not None else None
    if later is not None:
        found = found.within(later) if found is not None else later
    return found


class TrackProcessor(SpanProcessor):
    """Puts session, user, tags and metadata of `otelweir.context` on every span, also on those of other libraries.

    The distribution has it. In an SDK set-up of your own::

        provider.add_span_processor(TrackProcessor())
    """

    def on_start(self, span: SdkSpan, parent_context: Context | None = None) -> None:
        try:
            _entered(span, get_current() if parent_context is None else parent_context)
        except Exception as error:  # noqa: BLE001 - our bug must not become the host's
            _failed(error)

    def on_end(self, span: ReadableSpan) -> None:
        pass

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


class TrackLogProcessor(LogRecordProcessor):
    """Puts session, user, tags and metadata of `otelweir.context` on every log record and event.

    The distribution has it. In an SDK set-up of your own, add it before the processor that exports.
    """

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        try:
            record = log_record.log_record
            context = record.context or get_current()
            if not context:
                return
            scope = _scope(context, getattr(trace_api.get_current_span(context), _LOCAL, None))
            if scope is None:
                return
            own: Any = record.attributes
            if own is None:
                record.attributes = dict(scope.attributes)
                return
            for name, value in scope.attributes.items():
                if name not in own:
                    own[name] = value
        except Exception as error:  # noqa: BLE001 - our bug must not become the host's
            _failed(error)

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


def _failed(error: Exception) -> None:
    try:
        errors.warn(errors.TRACK_FAILED, f"{type(error).__name__}: {error}", exc_info=error)
    except Exception:  # noqa: BLE001 - the application has no stack left, or its log handlers raise
        pass


def _start(
    name: str, attributes: Mapping[str, AnyValue], context: Context | None, links: tuple[trace_api.Link, ...] = ()
) -> trace_api.Span:
    span = _tracer.start_span(name, context, attributes=attributes or None, links=links)
    # Without the processor, in somebody else's set-up, what is tracked takes its place by itself.
    if span.is_recording() and getattr(span, _LOCAL, None) is None:
        _entered(span, get_current() if context is None else context)
    return span


def _end(span: trace_api.Span) -> None:
    try:
        span.end()
    except Exception as error:  # noqa: BLE001 - processors of others may do anything
        _failed(error)


def _put_error(span: trace_api.Span, error: BaseException) -> None:
    kind = type(error)
    if isinstance(error, GeneratorExit):
        span.set_attribute(ENDED_BY, "closed")
        return
    if kind.__name__ in ("CancelledError", "Cancelled") and not isinstance(error, Exception):
        span.set_attribute(ENDED_BY, "cancelled")
        return
    module = kind.__module__
    span.set_attribute(ERROR_TYPE, kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}")
    if isinstance(error, Exception):
        from otelweir.pipeline.capture.otel import exception_attributes_into

        attributes: dict[str, AnyValue] = {}
        exception_attributes_into(attributes, error)
        span.add_event("exception", attributes)
        span.set_status(Status(StatusCode.ERROR, f"{kind.__name__}: {any_value(error)!s}"))


def _put_attachments(span: trace_api.Span, attachments: Iterable[Attachment], where: str) -> None:
    for attachment in attachments:
        told = {f"{ATTACHMENT}.{name}": value for name, value in attachment.told().items()}
        span.add_event(ATTACHMENT, {**told, f"{ATTACHMENT}.in": where})


def _put_truncated(span: trace_api.Span, name: str) -> None:
    before = (getattr(span, "attributes", None) or {}).get(TRUNCATED, ())
    span.set_attribute(TRUNCATED, list(dict.fromkeys((*before, name))))


def _put_input(span: trace_api.Span, kind: Kind | None, given: object) -> Content:
    content = content_of(given, limits.max_bytes)
    if kind == "llm":
        _put_messages(span, kinds.INPUT_MESSAGES, kinds.input_messages(given))
    else:
        # One by one: the SDK takes twice as long for a mapping.
        span.set_attribute(kinds.INPUT, content.text)
        span.set_attribute(kinds.INPUT_TYPE, kinds.JSON)
        if kind == "tool":
            span.set_attribute(kinds.TOOL_ARGUMENTS, content.text)
        elif kind == "retriever" and (query := kinds.query_of(given)) is not None:
            span.set_attribute(kinds.QUERY, clean(query[: limits.max_bytes // 4]))
        if content.cut:
            _put_truncated(span, kinds.INPUT)
    if content.attachments:
        _put_attachments(span, content.attachments, "input")
    return content


def _put_output(span: trace_api.Span, kind: Kind | None, given: object) -> Content:
    if kind == "embedding" and (vectors := kinds.vectors_of(given)) is not None:
        span.set_attribute(kinds.DIMENSIONS, vectors[1])
        given = {"vectors": vectors[0], "dimensions": vectors[1]}
    content = content_of(given, limits.max_bytes)
    if kind == "llm":
        _put_messages(span, kinds.OUTPUT_MESSAGES, kinds.output_messages(given))
    else:
        span.set_attribute(kinds.OUTPUT, content.text)
        span.set_attribute(kinds.OUTPUT_TYPE, kinds.JSON)
        if kind == "tool":
            span.set_attribute(kinds.TOOL_RESULT, content.text)
        elif kind == "retriever" and (documents := kinds.documents_of(given)) is not None:
            span.set_attribute(kinds.DOCUMENTS, content_of(documents, limits.max_bytes).text)
        if content.cut:
            _put_truncated(span, kinds.OUTPUT)
    if content.attachments:
        _put_attachments(span, content.attachments, "output")
    return content


def _put_messages(span: trace_api.Span, name: str, messages: list[dict[str, object]]) -> None:
    content = content_of(messages, limits.max_bytes)
    span.set_attribute(name, content.text)
    if content.cut:
        _put_truncated(span, name)


class Tracked:
    """What is known of a tracked function before it is called.

    Attributes:
        name: The name of its spans.
        kind: What it is.
        attributes: What its spans carry from their start.
        arguments: How its arguments are called.
        capture_input: Whether, or made into what, the arguments are captured.
        capture_output: Whether, or made into what, the result is captured.
        sample: The share of calls that are tracked; None for all.
        reduce: Makes one value of a stream's parts.
    """

    __slots__ = ("arguments", "attributes", "capture_input", "capture_output", "kind", "name", "reduce", "sample")

    def __init__(
        self,
        name: str,
        arguments: Arguments,
        *,
        kind: Kind | None = None,
        about: str | None = None,
        capture_input: bool | Callable[[dict[str, Any]], object] = True,
        capture_output: bool | Callable[[Any], object] = True,
        tags: Iterable[object] | str | None = None,
        metadata: Mapping[str, object] | None = None,
        sample: float | None = None,
        reduce: Callable[[list[Any]], object] | None = None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.arguments = arguments
        self.capture_input = capture_input
        self.capture_output = capture_output
        self.sample = sample
        self.reduce = reduce
        found = attributes_of_kind(kind, name, about)
        found.update(_tagged(tags, metadata))
        if sample is not None:
            found[SAMPLE] = sample
        self.attributes = found

    def __repr__(self) -> str:
        return f"<Tracked {self.kind or 'function'} {self.name}>"

    def asked(self, argument: str, function: Callable[[Any], object], value: object) -> object:
        """What a function says that the user gave us; nothing where it raises, which is told."""
        try:
            return function(value)
        except Exception as error:  # noqa: BLE001 - the call that is tracked has nothing to do with it
            errors.warn(
                errors.BAD_ARGUMENT, f"{argument} of {self.name!r} raised {type(error).__name__}", exc_info=error
            )
            return _NOTHING


def _tagged(tags: Iterable[object] | str | None, metadata: Mapping[str, object] | None) -> dict[str, AnyValue]:
    found: dict[str, AnyValue] = {}
    if texts := tags_of(tags):
        found[TAGS] = list(texts)
    found.update((METADATA + name, value) for name, value in metadata_of(metadata).items())
    return found


class Run:
    """One call of a tracked function.

    Attributes:
        context: The context inside of the function; of a stream, as its last step left it.
        recording: Whether anything is captured.
    """

    __slots__ = ("_parts", "_root", "_span", "_tracked", "context", "over", "recording")

    def __init__(self, tracked: Tracked, span: trace_api.Span, context: Context, recording: bool) -> None:
        self._tracked = tracked
        self._span = span
        self._root: trace_api.Span | None = None
        self._parts: Parts | None = None
        self.context = context
        self.recording = recording
        self.over = False

    def _read(self, bound: bool, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        tracked, span = self._tracked, self._span
        local: LocalTrace = getattr(span, _LOCAL)
        if not local.tracked:
            root = local.root()
            if root is span:
                local.tracked = True
            else:
                self._root = root
                setattr(span, _LOCAL, local.inside())
        if tracked.capture_input is False or not limits.content:
            return
        given: Any = tracked.arguments.of(bound, args, kwargs)
        if tracked.capture_input is not True:
            given = tracked.asked("capture_input", tracked.capture_input, given)
            if given is _NOTHING:
                return
        content = _put_input(span, tracked.kind, given)
        if self._root is not None and kinds.INPUT not in (getattr(self._root, "attributes", None) or ()):
            self._root.set_attributes({kinds.INPUT: content.text, kinds.INPUT_TYPE: kinds.JSON})

    def as_stream(self) -> Run:
        """The same, where the function has returned and its work goes on."""
        found = StreamRun(self._tracked, self._span, self.context, self.recording)
        found._root = self._root
        return found

    def streams(self) -> None:
        """The result comes in parts."""
        if self.recording and self._tracked.capture_output is not False and limits.content:
            self._parts = Parts(limits.max_bytes, self._tracked.reduce)

    def part(self, part: object) -> None:
        """One part of the result."""
        if self._parts is not None:
            try:
                self._parts.add(part)
            except Exception as error:  # noqa: BLE001 - our bug must not become the host's
                _failed(error)

    def finish(self, value: object = None) -> None:
        """The function has returned."""
        if self.over:
            return
        self.over = True
        if not self.recording:
            return
        try:
            self._write(value)
        except Exception as error:  # noqa: BLE001 - our bug must not become the host's
            _failed(error)
        _end(self._span)

    def fail(self, error: BaseException) -> None:
        """The function has raised, or was stopped."""
        if self.over:
            return
        self.over = True
        if not self.recording:
            return
        try:
            _put_error(self._span, error)
            if self._parts is not None and self._parts.count:
                self._write(None)
        except Exception as failure:  # noqa: BLE001 - our bug must not become the host's
            _failed(failure)
        _end(self._span)

    def _write(self, value: Any) -> None:
        tracked, span, parts = self._tracked, self._span, self._parts
        if tracked.capture_output is False or not limits.content:
            return
        if tracked.kind == "llm" and parts is not None and parts.first_s is not None:
            span.set_attribute(kinds.FIRST_CHUNK_S, parts.first_s)
        if getattr(span, _SAID, False):
            return  # the function has said it itself, by `current_span().set_output(...)`
        if parts is not None:
            if parts.count or value is None:
                value = tracked.asked("reduce", Parts.value, parts)
                if value is _NOTHING:
                    return
            if parts.cut:
                _put_truncated(span, kinds.OUTPUT_MESSAGES if tracked.kind == "llm" else kinds.OUTPUT)
            _put_attachments(span, parts.attachments, "output")
        if tracked.capture_output is not True:
            value = tracked.asked("capture_output", tracked.capture_output, value)
            if value is _NOTHING:
                return
        content = _put_output(span, tracked.kind, value)
        root = self._root
        if root is not None and root.is_recording():
            local: LocalTrace = getattr(span, _LOCAL)
            local.put_output(root, content.text)


class StreamRun(Run):
    """One run of a generator or a coroutine."""

    __slots__ = ()

    def __del__(self) -> None:
        # Its frame went without a word, as those of async generators do when their loop is gone.
        if self.recording and not self.over:
            self.fail(GeneratorExit())


def begin(
    tracked: Tracked,
    bound: bool,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    context: Context | None = None,
    make: type[Run] = Run,
) -> Run | None:
    """Begin the span of a call; None where there is nothing to do, as nobody wants spans.

    Args:
        tracked: The function.
        bound: Whether `args` are without what the method is bound to.
        args: As passed.
        kwargs: As passed.
        context: The parent's; None for the current one.
        make: What to make of it.
    """
    try:
        if tracked.sample is not None and not _chosen(tracked.sample, context):
            span: trace_api.Span = _not_recording(context)
        else:
            span = _start(tracked.name, tracked.attributes, context)
        recording = span.is_recording()
        if not recording and not span.get_span_context().is_valid:
            return None
        run = make(tracked, span, set_span_in_context(span, context), recording)
    except Exception as error:  # noqa: BLE001 - our bug must not become the host's
        _failed(error)
        return None
    if recording:
        try:
            run._read(bound, args, kwargs)
        except Exception as error:  # noqa: BLE001 - our bug must not become the host's
            _failed(error)
    return run


def created_in(created: Context) -> Context | None:
    """Where a stream begins that was made in one context and is read in another: where it was made, if that is known.

    Returns:
        None for the current context.
    """
    now = get_current()
    if not created or created is now:
        return None
    span = trace_api.get_current_span(now)
    if not trace_api.get_current_span(created).get_span_context().is_valid and span.get_span_context().is_valid:
        return set_span_in_context(span, created)
    return created


def _chosen(rate: float, context: Context | None) -> bool:
    """Whether a call is among those that are tracked: by its trace, so that calls in one trace share their fate."""
    parent = trace_api.get_current_span(context).get_span_context()
    if rate >= 1 or (parent.is_valid and not parent.trace_flags & TraceFlags.SAMPLED):
        return True  # the sampler will say no
    if parent.is_valid:
        return (parent.trace_id & (2**56 - 1)) < rate * 2**56
    return random.random() < rate  # noqa: S311 - no secret


def _not_recording(context: Context | None) -> NonRecordingSpan:
    """A span that is not there; what begins below it is not recorded either."""
    parent = trace_api.get_current_span(context).get_span_context()
    if parent.is_valid:
        found = SpanContext(parent.trace_id, parent.span_id, False, TraceFlags(0), parent.trace_state)
    else:
        found = SpanContext(random.getrandbits(128) or 1, random.getrandbits(64) or 1, False, TraceFlags(0))
    return NonRecordingSpan(found)


def _leave(mine: Context, before: Context, here: Context) -> None:
    """Go back to the context that was current before.

    A block may end elsewhere than it began, or before one that began inside of it: a generator was given to another
    thread, or two of them took turns. Then what is current is somebody else's, and stays; who leaves it later will not
    come back to here.
    """
    if here is mine:
        while (left := getattr(before, _LEFT, None)) is not None:
            before = left
        attach(before)
    else:
        setattr(mine, _LEFT, before)


Entered: TypeAlias = dict[int, tuple[Context, Context]]
"""The contexts that one object has made current, by their ids, with what was current before each."""


def _enter(entered: Entered, mine: Context, before: Context) -> None:
    entered[id(mine)] = mine, before
    attach(mine)


def _leave_one(entered: Entered) -> None:
    """Leave one of the blocks of an object: this task's own, where several are inside of it, else the last one."""
    here = get_current()
    found = entered.pop(id(here), None)
    if found is None:
        try:
            found = entered.popitem()[1]
        except KeyError:
            return  # a thread was faster, and has left for both
    _leave(*found, here)


class Span:
    """A span, with what an AI application says of its work. Made by `otelweir.span` and `otelweir.trace`.

    As a context manager, sync or async, it is the current span inside of the block; by hand, with `start` and `end`, it
    is not. What its methods do is nothing where the span is not sampled or has ended.

    Attributes:
        name: As it was made.
    """

    __slots__ = (
        "_attributes",
        "_entered",
        "_kind",
        "_links",
        "_made",
        "_open",
        "_parent",
        "_root",
        "_scope",
        "_span",
        "name",
    )

    def __init__(self, name: str, kind: Kind | None = None, attributes: Mapping[str, Any] | None = None) -> None:
        self.name = name if type(name) is str else text_of(name) or ""
        self._kind = kind
        self._attributes = attributes
        self._made = True
        self._open = False
        self._span: trace_api.Span | None = None
        self._parent: Context | None = None
        self._root = False
        self._scope: Scope | None = None
        self._links: tuple[trace_api.Link, ...] = ()
        self._entered: Entered | None = None

    def __repr__(self) -> str:
        state = "not begun" if self._span is None else "recording" if self._span.is_recording() else "not recording"
        return f"<Span {self.name!r} {state}>"

    @property
    def otel(self) -> trace_api.Span:
        """OpenTelemetry's span; one that does nothing before `start`."""
        return trace_api.INVALID_SPAN if self._span is None else self._span

    @property
    def trace_id(self) -> str | None:
        """The trace's id, 32 hexadecimal digits; None where there is no trace."""
        context = self.otel.get_span_context()
        return trace_api.format_trace_id(context.trace_id) if context.is_valid else None

    @property
    def span_id(self) -> str | None:
        """The span's id, 16 hexadecimal digits; None where there is no span."""
        context = self.otel.get_span_context()
        return trace_api.format_span_id(context.span_id) if context.is_valid else None

    def start(self) -> Span:
        """Begin, without becoming the current span. Called again, does nothing."""
        if self._span is None:
            try:
                context = self._parent
                if self._root:
                    context = self._anew()
                attributes = self._attributes or {}
                if attributes:
                    attributes = {str(name): _attribute(value) for name, value in attributes.items()}
                if self._kind is not None:
                    attributes = {**attributes_of_kind(self._kind, self.name), **attributes}
                self._span = _start(self.name, attributes, context, self._links)
                self._open = True
            except Exception as error:  # noqa: BLE001 - our bug must not become the host's
                _failed(error)
                self._span = trace_api.INVALID_SPAN
        return self

    def _anew(self) -> Context:
        """The context above a new trace, which points to where it begins."""
        here = get_current()
        above = trace_api.get_current_span(here).get_span_context()
        if above.is_valid:
            self._links += (trace_api.Link(above),)
        self._parent = set_span_in_context(trace_api.INVALID_SPAN, here)
        if self._scope is not None:
            self._parent = _with_scope(self._scope, self._parent)
        return self._parent

    def end(self) -> None:
        """End the span."""
        self._open = False
        if self._span is not None and self._span.is_recording():
            _end(self._span)

    def __enter__(self) -> Span:
        self.start()
        assert self._span is not None
        before = get_current()
        if self._entered is None:
            self._entered = {}
        if self._span.get_span_context().is_valid or self._scope is not None:
            _enter(
                self._entered, set_span_in_context(self._span, before if self._scope is None else self._parent), before
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._entered:
            _leave_one(self._entered)
        if error is not None:
            self.set_error(error)
        if not self._entered:
            self.end()

    def __del__(self) -> None:
        # Never ended, and never to be: nobody else has it.
        if self._open and sys.getrefcount(self._span) <= _OURS_ONLY:
            try:
                self._do(lambda span: span.set_attribute(ENDED_BY, "abandoned"))
                self.end()
            except Exception as error:  # noqa: BLE001 - our bug must not become the host's
                _failed(error)

    async def __aenter__(self) -> Span:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)

    def set_input(self, value: object) -> Span:
        """Say what went in: any value; becomes `input.value` as JSON, of a chat `gen_ai.input.messages`."""
        return self._do(_put_input, value)

    def set_output(self, value: object) -> Span:
        """Say what came out: any value; becomes `output.value` as JSON, of a chat `gen_ai.output.messages`."""
        if self._span is not None and self._span.is_recording():
            setattr(self._span, _SAID, True)
        return self._do(_put_output, value)

    def add_tag(self, *tags: object) -> Span:
        """Add to `weir.tags`."""

        def add(span: trace_api.Span) -> None:
            before = (getattr(span, "attributes", None) or {}).get(TAGS, ())
            span.set_attribute(TAGS, list(dict.fromkeys((*before, *tags_of(tags)))))

        return self._do(add)

    def set_metadata(self, metadata: Mapping[str, object] | None = None, /, **more: object) -> Span:
        """Set `weir.metadata.*`: texts, numbers and truth values as they are, all else as JSON."""
        said = {**metadata_of(metadata), **metadata_of(more)}
        found = {METADATA + name: value for name, value in said.items()}
        return self._do(lambda span: span.set_attributes(found))

    def set_attribute(self, name: str, value: Any) -> Span:
        """Set an attribute of OpenTelemetry's; values that it does not know become JSON."""
        return self._do(lambda span: span.set_attribute(name, _attribute(value)))

    def set_error(self, error: BaseException | str) -> Span:
        """Mark it as failed, with an exception or in words."""

        def put(span: trace_api.Span) -> None:
            if isinstance(error, BaseException):
                _put_error(span, error)
            else:
                span.set_status(Status(StatusCode.ERROR, clean(str(error))))

        return self._do(put)

    def score(
        self,
        name: str,
        value: float | None = None,
        *,
        label: str | None = None,
        explanation: str | None = None,
    ) -> Span:
        """Say how good it was: emits the event `gen_ai.evaluation.result` for this span, which may have ended.

        Args:
            name: What was evaluated, such as `relevance`.
            value: How good, as a number.
            label: How good, as a word, such as `pass`.
            explanation: Why.
        """
        span = self.otel
        context = span.get_span_context()
        if not context.is_valid or not context.trace_flags & TraceFlags.SAMPLED:
            return self
        try:
            what = text_of(name) or ""
            found: dict[str, AnyValue] = {"gen_ai.evaluation.name": what}
            if value is not None and (number := _number(value)) is None:
                errors.warn(errors.BAD_ARGUMENT, f"value={text_of(value)!r} of the score {what!r} is not a number")
            elif value is not None:
                found["gen_ai.evaluation.score.value"] = number
                if span.is_recording():
                    span.set_attribute(SCORE + what, number)
            if label is not None:
                found["gen_ai.evaluation.score.label"] = text_of(label)
            if explanation is not None:
                text = explanation if type(explanation) is str else content_of(explanation).text
                found["gen_ai.evaluation.explanation"] = clean(text[: limits.max_bytes])
            now = time.time_ns()
            record = LogRecord(
                timestamp=now,
                observed_timestamp=now,
                context=set_span_in_context(span),
                severity_number=SeverityNumber.INFO,
                severity_text="INFO",
                event_name=EVALUATION,
                attributes=found,
            )
            get_logger("otelweir").emit(record)
        except Exception as error:  # noqa: BLE001 - our bug must not become the host's
            _failed(error)
        return self

    def link(self, other: Span | trace_api.Span | SpanContext, attributes: Mapping[str, Any] | None = None) -> Span:
        """Point to another span that has to do with this one."""
        try:
            context = other.otel if isinstance(other, Span) else other
            if not isinstance(context, SpanContext):
                context = context.get_span_context()
        except Exception:  # noqa: BLE001 - it is anything
            errors.warn(errors.BAD_ARGUMENT, f"a link to {type(other).__name__} leads nowhere; it takes a span")
            return self
        if self._span is None:
            self._links += (trace_api.Link(context, attributes),)
            return self
        return self._do(lambda span: span.add_link(context, attributes))

    def _kind_of(self, span: trace_api.Span) -> Kind | None:
        if self._made:
            return self._kind
        operation = (getattr(span, "attributes", None) or {}).get(kinds.OPERATION)
        return _KIND_OF_OPERATION.get(operation)  # type: ignore[arg-type]

    def _do(self, work: Callable[..., object], *content: object) -> Span:
        """Do something with the span while it records; with its kind and a content, if there is one."""
        span = self._span
        if span is None:
            errors.warn(errors.NOT_BEGUN, f"the span {self.name!r}")
        elif span.is_recording():
            try:
                if not content:
                    work(span)
                elif limits.content:
                    work(span, self._kind_of(span), *content)
            except Exception as error:  # noqa: BLE001 - our bug must not become the host's
                _failed(error)
        return self


def _attribute(value: Any) -> Any:
    """A value as OpenTelemetry knows them; others as JSON."""
    if type(value) in _PLAIN or (type(value) in (list, tuple) and _PLAIN.issuperset(map(type, value))):
        return value
    return content_of(value).text


_PLAIN: Final = frozenset({str, bool, int, float})


def _number(value: object) -> float | None:
    try:
        found = float(value)  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001 - it is anything
        return None
    return found if math.isfinite(found) else None


_KIND_OF_OPERATION: Final[Mapping[str, Kind]] = {
    "chat": "llm",
    "text_completion": "llm",
    "generate_content": "llm",
    "execute_tool": "tool",
    "retrieval": "retriever",
    "embeddings": "embedding",
}


def span(
    name: str,
    *,
    kind: Kind | None = None,
    tags: Iterable[object] | str | None = None,
    metadata: Mapping[str, object] | None = None,
    attributes: Mapping[str, Any] | None = None,
    parent: Span | trace_api.Span | None = None,
) -> Span:
    """A span below the current one: a context manager, or started and ended by hand.

    Args:
        name: Its name.
        kind: What it is.
        tags: Its `weir.tags`.
        metadata: Its `weir.metadata.*`.
        attributes: Further attributes.
        parent: The span above it, whoever began it; None for the current one.

    Raises:
        ConfigError: There is no such kind, or the parent or the attributes are none.
    """
    _check(attributes)
    if tags is not None or metadata is not None:
        attributes = {**_tagged(tags, metadata), **(attributes or {})}
    found = Span(name, known(kind), attributes)
    if parent is not None:
        above = parent.otel if isinstance(parent, Span) else parent
        if not isinstance(above, trace_api.Span):
            raise errors.ConfigError(errors.BAD_ARGUMENT, f"parent={above!r} is no span")
        found._parent = set_span_in_context(above)
    return found


def _check(attributes: object) -> None:
    if attributes is not None and not isinstance(attributes, Mapping):
        raise errors.ConfigError(errors.BAD_ARGUMENT, f"attributes={attributes!r} is no mapping")


def trace(
    name: str,
    *,
    kind: Kind | None = None,
    session: object = None,
    user: object = None,
    tags: Iterable[object] | str | None = None,
    metadata: Mapping[str, object] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> Span:
    """The root span of a new trace, which points by a link to the span that is current, if there is one.

    Args:
        name: Its name.
        kind: What it is.
        session: As of `context`, for all that is below it.
        user: As of `context`.
        tags: As of `context`.
        metadata: As of `context`.
        attributes: Further attributes of the root span.

    Raises:
        ConfigError: There is no such kind, or the attributes are none.
    """
    _check(attributes)
    found = Span(name, known(kind), attributes)
    found._root = True
    found._scope = scope_of(session, user, tags, metadata)
    return found


def known(kind: str | None) -> Kind | None:
    """A kind, if it is one.

    Raises:
        ConfigError: It is none.
    """
    if kind is None or kind == "plain":
        return None
    if kind not in kinds.KINDS:
        raise errors.ConfigError(errors.BAD_ARGUMENT, f"kind={kind!r} is none of {', '.join(kinds.KINDS)}, plain")
    return kind


def current_span() -> Span:
    """The span that is current here, whoever began it; one that does nothing where there is none."""
    now = trace_api.get_current_span()
    return _span_of(now)


def _span_of(span: trace_api.Span) -> Span:
    found = Span(getattr(span, "name", ""))
    found._made = False
    found._span = span
    return found


def current_trace_id() -> str | None:
    """The id of the current trace, 32 hexadecimal digits; None outside of any."""
    return current_span().trace_id


def update_trace(
    *,
    name: str | None = None,
    input: object = _NOTHING,  # noqa: A002 - as everywhere
    output: object = _NOTHING,
    session: object = None,
    user: object = None,
    tags: Iterable[object] | str | None = None,
    metadata: Mapping[str, object] | None = None,
) -> None:
    """Change the local root of the current trace: its outermost span in this process.

    Session and user reach what begins later below it, too.

    Args:
        name: The span's new name.
        input: What went in.
        output: What came out.
        session: The session's id.
        user: The user's id.
        tags: Added to its `weir.tags`.
        metadata: Added to its `weir.metadata.*`.
    """
    here = trace_api.get_current_span()
    local: LocalTrace | None = getattr(here, _LOCAL, None)
    root = local.root() if local is not None else here
    if root is None or not root.is_recording():
        return
    found = _span_of(root)
    try:
        if name is not None:
            root.update_name(text_of(name) or "")
        scope = scope_of(session, user)
        if scope.attributes:
            root.set_attributes(scope.attributes)
            if local is not None:
                local.later(scope)
            if here is not root and here.is_recording():
                here.set_attributes(scope.attributes)
    except Exception as error:  # noqa: BLE001 - our bug must not become the host's
        _failed(error)
    if input is not _NOTHING:
        found.set_input(input)
    if output is not _NOTHING:
        found.set_output(output)
    if tags is not None:
        found.add_tag(*tags_of(tags))
    if metadata is not None:
        found.set_metadata(metadata)


class context:  # noqa: N801 - a context manager that reads like a function
    """Say about every span and log record below: to which session and user it belongs, with which tags and metadata.

    Reaches tasks, and with the distribution also threads and executors; inside of another, what is not said is as
    outside, and tags and metadata add up. For a `with` or an `async with` block::

        with otelweir.context(session="s-1", user="u-7", tags=["beta"], metadata={"plan": "pro"}):
            ...

    Args:
        session: Becomes `session.id` and `gen_ai.conversation.id`.
        user: Becomes `user.id`.
        tags: Become `weir.tags`.
        metadata: Becomes `weir.metadata.*`.
    """

    __slots__ = ("_entered", "_scope")

    def __init__(
        self,
        *,
        session: object = None,
        user: object = None,
        tags: Iterable[object] | str | None = None,
        metadata: Mapping[str, object] | None = None,
    ) -> None:
        self._scope = scope_of(session, user, tags, metadata)
        self._entered: Entered = {}

    def __repr__(self) -> str:
        return f"<context {dict(self._scope.attributes)}>"

    def __enter__(self) -> context:
        before = get_current()
        _enter(self._entered, _with_scope(self._scope, before), before)
        return self

    def __exit__(self, *_: object) -> None:
        if self._entered:
            _leave_one(self._entered)

    async def __aenter__(self) -> context:
        return self.__enter__()

    async def __aexit__(self, *_: object) -> None:
        self.__exit__()


def _with_scope(scope: Scope, context: Context) -> Context:
    merged = scope.within(context.get(_SCOPE))  # type: ignore[arg-type]
    found = set_value(_SCOPE, merged, context)
    if limits.baggage:
        for name, value in merged.baggage().items():
            found = baggage.set_baggage(name, value, found)
    return found


def carry(function: Callable[P, R]) -> Callable[P, R]:
    """The function, to be called in another thread as if in the current context: span, session, user and all.

    For executors and threads that the distribution does not know of::

        pool.submit(otelweir.carry(work), item)
    """
    here = get_current()

    @wraps(function)
    def carried(*args: P.args, **kwargs: P.kwargs) -> R:
        before = get_current()
        attach(here)
        try:
            return function(*args, **kwargs)
        finally:
            attach(before)

    return carried
