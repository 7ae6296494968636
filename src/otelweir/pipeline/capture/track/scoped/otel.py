"""The context below which spans and log records lie: which local trace it is, and what `otelweir.context` says of it.

A context is never taken off by a token, which only the thread and task that put it on could use: who leaves puts back
what was there before.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any, Final, ParamSpec, TypeAlias, TypeVar

from opentelemetry import baggage
from opentelemetry import trace as trace_api
from opentelemetry.context import Context, attach, create_key, get_current, set_value
from opentelemetry.sdk._logs import LogRecordProcessor, ReadWriteLogRecord
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace import Span as SdkSpan

from otelweir.pipeline.capture.track import kinds
from otelweir.pipeline.capture.track.failing import failed
from otelweir.pipeline.capture.track.limits import limits
from otelweir.pipeline.capture.track.scoped.scope import TAGS, Scope, scope_of, scope_of_baggage

P = ParamSpec("P")
R = TypeVar("R")

__all__ = ["Context", "attach", "get_current"]

_SCOPE: Final = create_key("weir-scope")
LOCAL: Final = "weir_local"
_LEFT: Final = "weir_left"


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
    local: LocalTrace | None = getattr(span, LOCAL, None)
    return local.root() if local is not None else None


def entered(span: trace_api.Span, context: Context) -> None:
    """Give a span that has begun its place in the local trace, and what the context says."""
    parent = trace_api.get_current_span(context)
    local: LocalTrace | None = getattr(parent, LOCAL, None)
    if local is None:
        local = LocalTrace(weakref.ref(parent if parent.is_recording() else span))
        if parent.is_recording():
            setattr(parent, LOCAL, local)
    setattr(span, LOCAL, local)
    if _SCOPE not in context and not limits.baggage and local.shared is None:
        return
    scope = scope_at(context, local)
    if scope is not None:
        found = scope.attributes
        own: Mapping[str, Any] | None = getattr(span, "attributes", None)
        if own:
            found = {name: value for name, value in found.items() if name not in own}
            if TAGS in own and scope.tags:
                found[TAGS] = list(dict.fromkeys((*scope.tags, *own[TAGS])))
        span.set_attributes(found)


def scope_at(context: Context, local: LocalTrace | None) -> Scope | None:
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
            entered(span, get_current() if parent_context is None else parent_context)
        except Exception as error:  # noqa: BLE001 - our bug must not become the host's
            failed(error)

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
            scope = scope_at(context, getattr(trace_api.get_current_span(context), LOCAL, None))
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
            failed(error)

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


Entered: TypeAlias = dict[int, tuple[Context, Context]]
"""The contexts that one object has made current, by their ids, with what was current before each."""


def enter(entered: Entered, mine: Context, before: Context) -> None:
    entered[id(mine)] = mine, before
    attach(mine)


def leave_one(entered: Entered) -> None:
    """Leave one of the blocks of an object: this task's own, where several are inside of it, else the last one."""
    here = get_current()
    found = entered.pop(id(here), None)
    if found is None:
        try:
            found = entered.popitem()[1]
        except KeyError:
            return  # a thread was faster, and has left for both
    _leave(*found, here)


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
        enter(self._entered, with_scope(self._scope, before), before)
        return self

    def __exit__(self, *_: object) -> None:
        if self._entered:
            leave_one(self._entered)

    async def __aenter__(self) -> context:
        return self.__enter__()

    async def __aexit__(self, *_: object) -> None:
        self.__exit__()


def with_scope(scope: Scope, context: Context) -> Context:
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
