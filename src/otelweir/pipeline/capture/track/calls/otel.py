"""The span of each call of a tracked function, from its beginning to the end of its work."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from opentelemetry import trace as trace_api
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from otelweir import errors
from otelweir.pipeline.capture.track import kinds
from otelweir.pipeline.capture.track.calls.arguments import Arguments
from otelweir.pipeline.capture.track.content import Parts
from otelweir.pipeline.capture.track.failing import failed
from otelweir.pipeline.capture.track.kinds import Kind, attributes_of_kind
from otelweir.pipeline.capture.track.limits import limits
from otelweir.pipeline.capture.track.otel import (
    NOTHING,
    SAID,
    end,
    put_attachments,
    put_error,
    put_input,
    put_output,
    put_truncated,
    start,
    tagged,
)
from otelweir.pipeline.capture.track.scoped.otel import LOCAL, Context, LocalTrace, get_current

SAMPLE: Final = "weir.track.sample"
"""The share of calls that are tracked, where not all are."""


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
        found.update(tagged(tags, metadata))
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
            return NOTHING


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
        local: LocalTrace = getattr(span, LOCAL)
        if not local.tracked:
            root = local.root()
            if root is span:
                local.tracked = True
            else:
                self._root = root
                setattr(span, LOCAL, local.inside())
        if tracked.capture_input is False or not limits.content:
            return
        given: Any = tracked.arguments.of(bound, args, kwargs)
        if tracked.capture_input is not True:
            given = tracked.asked("capture_input", tracked.capture_input, given)
            if given is NOTHING:
                return
        content = put_input(span, tracked.kind, given)
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
                failed(error)

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
            failed(error)
        end(self._span)

    def fail(self, error: BaseException) -> None:
        """The function has raised, or was stopped."""
        if self.over:
            return
        self.over = True
        if not self.recording:
            return
        try:
            put_error(self._span, error)
            if self._parts is not None and self._parts.count:
                self._write(None)
        except Exception as failure:  # noqa: BLE001 - our bug must not become the host's
            failed(failure)
        end(self._span)

    def _write(self, value: Any) -> None:
        tracked, span, parts = self._tracked, self._span, self._parts
        if tracked.capture_output is False or not limits.content:
            return
        if tracked.kind == "llm" and parts is not None and parts.first_s is not None:
            span.set_attribute(kinds.FIRST_CHUNK_S, parts.first_s)
        if getattr(span, SAID, False):
            return  # the function has said it itself, by `current_span().set_output(...)`
        if parts is not None:
            if parts.count or value is None:
                value = tracked.asked("reduce", Parts.value, parts)
                if value is NOTHING:
                    return
            if parts.cut:
                put_truncated(span, kinds.OUTPUT_MESSAGES if tracked.kind == "llm" else kinds.OUTPUT)
            put_attachments(span, parts.attachments, "output")
        if tracked.capture_output is not True:
            value = tracked.asked("capture_output", tracked.capture_output, value)
            if value is NOTHING:
                return
        content = put_output(span, tracked.kind, value)
        root = self._root
        if root is not None and root.is_recording():
            local: LocalTrace = getattr(span, LOCAL)
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
            span = start(tracked.name, tracked.attributes, context)
        recording = span.is_recording()
        if not recording and not span.get_span_context().is_valid:
            return None
        run = make(tracked, span, set_span_in_context(span, context), recording)
    except Exception as error:  # noqa: BLE001 - our bug must not become the host's
        failed(error)
        return None
    if recording:
        try:
            run._read(bound, args, kwargs)
        except Exception as error:  # noqa: BLE001 - our bug must not become the host's
            failed(error)
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
        # Not by the randomness itself: a sampler has looked at that, and what it kept is alike.
        return ((parent.trace_id & (2**56 - 1)) * _SCATTER & (2**64 - 1)) < rate * 2**64
    return random.random() < rate  # noqa: S311 - no secret


_SCATTER: Final = 0x9E3779B97F4A7C15
"""An odd number near 2**64 divided by the golden ratio: its multiples are spread evenly (Knuth, 6.4)."""


def _not_recording(context: Context | None) -> NonRecordingSpan:
    """A span that is not there; what begins below it is not recorded either."""
    parent = trace_api.get_current_span(context).get_span_context()
    if parent.is_valid:
        found = SpanContext(parent.trace_id, parent.span_id, False, TraceFlags(0), parent.trace_state)
    else:
        found = SpanContext(random.getrandbits(128) or 1, random.getrandbits(64) or 1, False, TraceFlags(0))
    return NonRecordingSpan(found)
