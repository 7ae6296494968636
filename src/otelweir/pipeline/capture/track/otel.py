"""Spans, and what an AI application says of its work on them.

Nothing here raises into the application, but for the misuse of an argument.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Final, Literal

from opentelemetry import trace as trace_api
from opentelemetry._logs import LogRecord, SeverityNumber, get_logger
from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags, set_span_in_context

from otelweir import errors
from otelweir.pipeline.capture.track import kinds
from otelweir.pipeline.capture.track.content import Attachment, Content, content_of
from otelweir.pipeline.capture.track.failing import failed
from otelweir.pipeline.capture.track.kinds import Kind, attributes_of_kind
from otelweir.pipeline.capture.track.limits import limits
from otelweir.pipeline.capture.track.scoped.otel import (
    LOCAL,
    Context,
    Entered,
    LocalTrace,
    enter,
    entered,
    get_current,
    leave_one,
    with_scope,
)
from otelweir.pipeline.capture.track.scoped.scope import METADATA, TAGS, Scope, metadata_of, scope_of, tags_of, text_of
from otelweir.pipeline.capture.values import any_value, clean
from otelweir.signals import AnyValue

TRUNCATED: Final = "weir.truncated"
"""The attributes of a span in which something is missing."""

ENDED_BY: Final = "weir.ended_by"
"""`closed` where a stream was not read to its end, `cancelled` where a task was."""
ERROR_TYPE: Final = "error.type"
ATTACHMENT: Final = "weir.attachment"
EVALUATION: Final = "gen_ai.evaluation.result"
SCORE: Final = "weir.score."

SAID: Final = "weir_said"
"""On a span whose output was set by hand: what its function returns does not replace it."""
NOTHING: Final = object()

_OURS_ONLY: Final = 2
"""References to a span that only its object has, while they are counted."""
_tracer: Final = trace_api.get_tracer("otelweir")


def start(
    name: str, attributes: Mapping[str, AnyValue], context: Context | None, links: tuple[trace_api.Link, ...] = ()
) -> trace_api.Span:
    span = _tracer.start_span(name, context, attributes=attributes or None, links=links)
    # Without the processor, in somebody else's set-up, what is tracked takes its place by itself.
    if span.is_recording() and getattr(span, LOCAL, None) is None:
        entered(span, get_current() if context is None else context)
    return span


def end(span: trace_api.Span) -> None:
    try:
        span.end()
    except Exception as error:  # noqa: BLE001 - processors of others may do anything
        failed(error)


def put_error(span: trace_api.Span, error: BaseException) -> None:
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


def put_attachments(span: trace_api.Span, attachments: Iterable[Attachment], where: str) -> None:
    for attachment in attachments:
        told = {f"{ATTACHMENT}.{name}": value for name, value in attachment.told().items()}
        span.add_event(ATTACHMENT, {**told, f"{ATTACHMENT}.in": where})


def put_truncated(span: trace_api.Span, name: str) -> None:
    before = (getattr(span, "attributes", None) or {}).get(TRUNCATED, ())
    span.set_attribute(TRUNCATED, list(dict.fromkeys((*before, name))))


def put_input(span: trace_api.Span, kind: Kind | None, given: object) -> Content:
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
            put_truncated(span, kinds.INPUT)
    if content.attachments:
        put_attachments(span, content.attachments, "input")
    return content


def put_output(span: trace_api.Span, kind: Kind | None, given: object) -> Content:
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
            put_truncated(span, kinds.OUTPUT)
    if content.attachments:
        put_attachments(span, content.attachments, "output")
    return content


def _put_messages(span: trace_api.Span, name: str, messages: list[dict[str, object]]) -> None:
    content = content_of(messages, limits.max_bytes)
    span.set_attribute(name, content.text)
    if content.cut:
        put_truncated(span, name)


def tagged(tags: Iterable[object] | str | None, metadata: Mapping[str, object] | None) -> dict[str, AnyValue]:
    found: dict[str, AnyValue] = {}
    if texts := tags_of(tags):
        found[TAGS] = list(texts)
    found.update((METADATA + name, value) for name, value in metadata_of(metadata).items())
    return found


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
                self._span = start(self.name, attributes, context, self._links)
                self._open = True
            except Exception as error:  # noqa: BLE001 - our bug must not become the host's
                failed(error)
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
            self._parent = with_scope(self._scope, self._parent)
        return self._parent

    def end(self) -> None:
        """End the span."""
        self._open = False
        if self._span is not None and self._span.is_recording():
            end(self._span)

    def __enter__(self) -> Span:
        self.start()
        assert self._span is not None
        before = get_current()
        if self._entered is None:
            self._entered = {}
        if self._span.get_span_context().is_valid or self._scope is not None:
            enter(
                self._entered, set_span_in_context(self._span, before if self._scope is None else self._parent), before
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._entered:
            leave_one(self._entered)
        if error is not None:
            self.set_error(error)
        if not self._entered:
            self.end()

    def __del__(self) -> None:
        try:
            # Never ended, and never to be: nobody else has it.
            if self._open and sys.getrefcount(self._span) <= _OURS_ONLY:
                self._do(lambda span: span.set_attribute(ENDED_BY, "abandoned"))
                self.end()
        except Exception:  # noqa: BLE001 - it was never made, or the interpreter is about to end
            pass

    async def __aenter__(self) -> Span:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)

    def set_input(self, value: object) -> Span:
        """Say what went in: any value; becomes `input.value` as JSON, of a chat `gen_ai.input.messages`."""
        return self._do(put_input, value)

    def set_output(self, value: object) -> Span:
        """Say what came out: any value; becomes `output.value` as JSON, of a chat `gen_ai.output.messages`."""
        if self._span is not None and self._span.is_recording():
            setattr(self._span, SAID, True)
        return self._do(put_output, value)

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
                put_error(span, error)
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
                errors.warn(
                    errors.BAD_ARGUMENT, f"the value of the score {what!r} is no number: {type(value).__name__}"
                )
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
            failed(error)
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
                failed(error)
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
    kind: Kind | Literal["plain"] | None = None,
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
        attributes = {**tagged(tags, metadata), **(attributes or {})}
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
    kind: Kind | Literal["plain"] | None = None,
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
    input: object = NOTHING,  # noqa: A002 - as everywhere
    output: object = NOTHING,
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
    local: LocalTrace | None = getattr(here, LOCAL, None)
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
        failed(error)
    if input is not NOTHING:
        found.set_input(input)
    if output is not NOTHING:
        found.set_output(output)
    if tags is not None:
        found.add_tag(*tags_of(tags))
    if metadata is not None:
        found.set_metadata(metadata)
