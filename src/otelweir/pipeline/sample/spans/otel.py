"""Sampling traces in the SDK: the sampler, and the processor that decides when a trace has ended."""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, Sequence, ValuesView
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.sdk._logs import LogRecordProcessor, ReadWriteLogRecord
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Decision, ParentBased, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode, TraceFlags, TraceState, get_current_span
from opentelemetry.util.types import Attributes

from otelweir import errors
from otelweir.pipeline.sample.spans import tracestate
from otelweir.pipeline.sample.spans.argument import WORDS, policy_of, rules_of
from otelweir.pipeline.sample.spans.head import Head
from otelweir.pipeline.sample.spans.rules import KINDS, Kind, TraceRules
from otelweir.pipeline.sample.spans.settings import TraceSamplingSettings
from otelweir.pipeline.sample.spans.tail import Chance, Facts, Release, Ruling, Tail, TailRules
from otelweir.pipeline.sample.spans.tracestate import KEY, MASK
from otelweir.variables import read, scrubbed

if TYPE_CHECKING:
    from otelweir.pipeline.sample.spans.follow import PolicyFollower

_ARGUMENT: Final = "OTEL_TRACES_SAMPLER_ARG"
_MAX_MEMBERS: Final = 32

_SAMPLED: Final = TraceFlags.SAMPLED
_KEEP: Final = Decision.RECORD_AND_SAMPLE
_DROP: Final = Decision.DROP
_KINDS: Final[dict[SpanKind | None, Kind]] = {
    None: "internal",
    **{SpanKind[name.upper()]: name for name in KINDS},
}


class _Kept(TraceState):
    """The tracestate of a trace that begins here and is kept.

    Attributes:
        threshold: By which it is kept; None where that is not known.
    """

    def __init__(self, threshold: int | None) -> None:
        super().__init__(None if threshold is None else [(KEY, f"th:{tracestate.digits(threshold)}")])
        self.threshold = threshold


class WeirSampler(Sampler):
    """Keeps to what a parent has decided, and decides on traces that begin here: consistently, by rule, within limits.

    Usable alone in any set-up of the SDK::

        TracerProvider(sampler=WeirSampler(TraceRules(rate=0.1, per_second=50)))

    `OTEL_TRACES_SAMPLER=weir` finds it by name, with `OTEL_TRACES_SAMPLER_ARG` such as `rate=0.1,per_second=50`.

    Args:
        rules: The policy; None keeps every trace.
    """

    def __init__(self, rules: TraceRules | None = None) -> None:
        self._refused = 0
        self._set(rules or TraceRules())
        self._follower: PolicyFollower | None = None
        _in_child(self._after_fork)

    def __repr__(self) -> str:
        return f"<WeirSampler {self._head!r}>"

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        parent = get_current_span(parent_context).get_span_context()
        begun = parent.is_valid
        if begun and not (self._ignore_remote and parent.is_remote):
            if not parent.trace_flags & _SAMPLED:
                return SamplingResult(_DROP, None, parent.trace_state)
            state = parent.trace_state
            if parent.is_remote and KEY in state:
                state = _consistent(state, trace_id)
            return SamplingResult(_KEEP, attributes, state)
        try:
            if begun:
                return self._anew(parent, trace_id, name, kind, attributes)
            said = _KINDS[kind] if self._asks_kind else "internal"
            decided = self._head.decide(name, said, attributes, trace_id & MASK)
        except Exception as error:  # noqa: BLE001 - our bug must not become the host's
            errors.warn(errors.TRACE_SAMPLE_FAILED, f"{type(error).__name__}: {error}", exc_info=error)
            return SamplingResult(_KEEP, attributes, parent.trace_state if begun else None)
        if decided is None:
            return SamplingResult(_DROP)
        return SamplingResult(_KEEP, attributes, decided)

    def get_description(self) -> str:
        return self._description

    def refused(self) -> int:
        """Traces that found no room within a limit, so far in this process."""
        return self._refused + self._head.refused()

    def apply(self, rules: TraceRules) -> None:
        """Decide by other rules from now on. Limits begin anew."""
        self._refused += self._head.refused()
        self._set(rules)

    def follow(self, path: str) -> None:
        """Decide by what a policy file says, now and whenever it changes; by what was there while it says nothing.

        Args:
            path: Of the file. What is wrong with it is warned of.
        """
        # Only here: it brings pydantic.
        from otelweir.pipeline.sample.spans.follow import PolicyFollower

        self._follower = PolicyFollower(path, self)
        self._follower.look()
        self._follower.watch()

    def _set(self, rules: TraceRules) -> None:
        self._head: Head[_Kept] = Head(rules, _Kept, _Kept(None))
        self._ignore_remote = rules.remote == "ignore"
        # To look a kind up takes a tenth of the decision.
        self._asks_kind = bool(rules.rules)
        self._description = f"WeirSampler{{{_described(rules)}}}"

    def _after_fork(self) -> None:
        self._head.after_fork()
        if self._follower is not None:
            self._follower.watch()

    def _anew(
        self, parent: SpanContext, trace_id: int, name: str, kind: SpanKind | None, attributes: Attributes
    ) -> SamplingResult:
        """Decide on a trace that another service has begun, whatever it decided."""
        before = parent.trace_state
        value, rest, randomness = "", "", None
        if KEY in before:
            value = before[KEY]
            _, randomness, rest = tracestate.parse(value)
        said = _KINDS[kind] if self._asks_kind else "internal"
        decided = self._head.decide(name, said, attributes, trace_id & MASK if randomness is None else randomness)
        if decided is None:
            return SamplingResult(_DROP, None, before if rest == value else _Changed(before, rest))
        if not value and not before:
            return SamplingResult(_KEEP, attributes, decided)
        return SamplingResult(_KEEP, attributes, _with_threshold(before, value, decided.threshold))


def sampler(argument: str | None = None) -> Sampler:
    """The sampler that an argument asks for; what `OTEL_TRACES_SAMPLER=weir` calls.

    An argument that cannot be used is reported, and the SDK's default sampler takes the place: every trace is kept. A
    policy is followed while the service runs; until it is good for the first time, every trace is kept.

    Args:
        argument: As in `OTEL_TRACES_SAMPLER_ARG`; None reads that variable, as declarative configuration gives none.
            Empty: what the policy of `WEIR_POLICY_FILE` says about traces, else every trace.
    """
    given = os.environ.get(_ARGUMENT, "") if argument is None else argument
    try:
        if (policy := policy_of(given, os.environ.get("WEIR_POLICY_FILE", "").strip())) is not None:
            found = WeirSampler()
            found.follow(policy)
            return found
        return WeirSampler(rules_of(given))
    except ValueError as error:
        what = f"{_ARGUMENT}={scrubbed(given)!r} is not {WORDS}"
        errors.warn(errors.BAD_VALUE, f"{what} ({scrubbed(str(error))}); traces are sampled by parentbased_always_on")
    except Exception as error:  # noqa: BLE001 - the service has to start, and its traces to be seen
        errors.warn(errors.TRACE_SAMPLE_FAILED, f"{_ARGUMENT}: {type(error).__name__}: {error}", exc_info=error)
    return ParentBased(ALWAYS_ON)


def _consistent(state: TraceState, trace_id: int) -> TraceState:
    """The tracestate of a sampled parent; without its threshold, if that says that it was not sampled."""
    value = state[KEY]
    threshold, randomness, rest = tracestate.parse(value)
    if threshold is None or threshold <= (trace_id & MASK if randomness is None else randomness):
        return state
    return _Changed(state, rest)


def _with_threshold(state: TraceState, value: str, threshold: int | None) -> TraceState:
    """The tracestate with another threshold; every other member stays, even where that leaves no room for ours.

    Args:
        state: As it came.
        value: Of our member in it; empty for none.
        threshold: None for none.
    """
    changed = tracestate.with_threshold(value, threshold)
    if changed == value or (not value and len(state) >= _MAX_MEMBERS):
        return state
    return _Changed(state, changed)


class _Changed(TraceState):
    """A tracestate with another member of ours, made when somebody looks: most are never looked at.

    What came was checked when it came; to check it again would take longer than to decide.
    """

    def __init__(self, state: TraceState, value: str) -> None:
        """
        Args:
            state: As it came.
            value: Of our member; empty for none.
        """
        self._came = state
        self._value = value

    @cached_property
    def _members(self) -> dict[str, str]:
        members = dict(self._came.items())
        members.pop(KEY, None)
        # In front, as whatever was changed last is to stand.
        return {KEY: self._value, **members} if self._value else members

    def __repr__(self) -> str:
        return repr(self._checked())

    def __contains__(self, key: object) -> bool:
        return key in self._members

    def __getitem__(self, key: str) -> str:
        return self._members[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def keys(self) -> KeysView[str]:
        return self._members.keys()

    def items(self) -> ItemsView[str, str]:
        return self._members.items()

    def values(self) -> ValuesView[str]:
        return self._members.values()

    def to_header(self) -> str:
        return ",".join([f"{key}={value}" for key, value in self._members.items()])

    def add(self, key: str, value: str) -> TraceState:
        return self._checked().add(key, value)

    def update(self, key: str, value: str) -> TraceState:
        return self._checked().update(key, value)

    def delete(self, key: str) -> TraceState:
        return self._checked().delete(key)

    def _checked(self) -> TraceState:
        return TraceState(list(self._members.items()))


def _described(rules: TraceRules) -> str:
    parts = [f"rate={rules.rate:g}"]
    if rules.per_second is not None:
        parts.append(f"per_second={rules.per_second:g}")
    if rules.remote != "honour":
        parts.append(f"remote={rules.remote}")
    if rules.rules:
        parts.append(f"rules={len(rules.rules)}")
    return ",".join(parts)


EVALUATION: Final = "gen_ai.evaluation.result"
"""The event that carries a score."""

DECISIONS_METRIC: Final = "weir.trace.decisions"
REFUSED_METRIC: Final = "weir.trace.refused"

WEIGHT: Final = "weir.sample.weight"
REASON: Final = "weir.sample.reason"

_SPAN_BYTES: Final = 1500
"""What a span takes beside the text in it, about."""

_EVENT_BYTES: Final = 400

_LEAST_WATCH_S: Final = 0.05
_MOST_WATCH_S: Final = 5.0
"""How often the age of what is held is looked at, where no span begins or ends."""


class TailSamplingProcessor(SpanProcessor):
    """Holds each trace until its part in this process has ended, and lets it go on or not by what became of it.

    Usable alone in any set-up of the SDK, around what exports::

        provider.add_span_processor(TailSamplingProcessor(BatchSpanProcessor(OTLPSpanExporter())))

    With several exporters, put one of these around all of them. The spans that go on are new ones, with
    `weir.sample.weight`, `weir.sample.reason`, and the threshold in their tracestate.

    Args:
        next_: What gets the kept spans. It is told of the beginning of every span.
        settings: What to keep and how much to hold; None reads the `WEIR_TRACE_TAIL_*` variables.
        decided: Told of each trace that is decided: its id, whether it is kept, and why. Of one that was decided before
            its end, told again when that comes.
        clock: Monotonic time in seconds.
    """

    def __init__(
        self,
        next_: SpanProcessor,
        settings: TraceSamplingSettings | None = None,
        *,
        decided: Callable[[int, bool, str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        given = settings or read(TraceSamplingSettings, os.environ)[0]
        self._next = next_
        self._decided = decided
        self._cost = given.trace_tail_cost_attribute if given.trace_tail_cost is not None else None
        self._score = given.trace_tail_score_attribute if given.trace_tail_score is not None else None
        self._tail: Tail[ReadableSpan] = Tail(_tail_rules(given), clock)
        self._watch_s = min(_MOST_WATCH_S, max(_LEAST_WATCH_S, given.trace_tail_max_age / 4))
        self._watched = False
        _in_child(self._after_fork)

    def __repr__(self) -> str:
        return f"<TailSamplingProcessor {self._tail!r} before {self._next!r}>"

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self._next.on_start(span, parent_context)
        try:
            context = span.get_span_context()
            if context.trace_flags & _SAMPLED and _is_local_root(span):
                if not self._watched:
                    self._watch()
                self._release(self._tail.begin(context.trace_id, _chance(context)))
        except Exception as error:  # noqa: BLE001 - our bug must not become the host's
            _tail_failed(error)

    def on_end(self, span: ReadableSpan) -> None:
        context = span.get_span_context()
        if context is None or not context.trace_flags & _SAMPLED:
            self._next.on_end(span)
            return
        try:
            released = self._tail.end(context.trace_id, span, self._facts(span), lambda: _chance(context))
        except Exception as error:  # noqa: BLE001 - our bug must not become the host's
            _tail_failed(error)
            self._next.on_end(span)
            return
        self._release(released)

    def scored(self, trace_id: int, score: float) -> None:
        """Take note of an evaluation that is not on a span of the trace."""
        try:
            self._release(self._tail.scored(trace_id, score))
        except Exception as error:  # noqa: BLE001 - our bug must not become the host's
            _tail_failed(error)

    def counts(self) -> Mapping[str, int]:
        """Traces so far: kept, by reason; `dropped`; of both, those decided `early`; and `late` spans of no trace."""
        return self._tail.counts()

    def grow_old(self) -> None:
        """Decide on what has been held for too long; a thread does so from time to time."""
        try:
            self._release(self._tail.grow_old())
        except Exception as error:  # noqa: BLE001 - our bug must not become the host's
            _tail_failed(error)

    def shutdown(self) -> None:
        self._decide_all()
        self._next.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Decide on all that is held, by what is known so far, and flush."""
        self._decide_all()
        return self._next.force_flush(timeout_millis)

    def _decide_all(self) -> None:
        try:
            self._release(self._tail.decide_all())
        except Exception as error:  # noqa: BLE001 - our bug must not become the host's
            _tail_failed(error)

    def _watch(self) -> None:
        """See to it that what is held grows old where no span begins or ends any more."""
        self._watched = True
        try:
            threading.Thread(
                target=_watch, args=(weakref.ref(self), self._watch_s), name="weir-tail", daemon=True
            ).start()
        except RuntimeError:
            pass  # the interpreter is about to end, and then all is decided

    def _after_fork(self) -> None:
        self._watched = False
        self._tail.after_fork()

    def _release(self, released: Sequence[Release[ReadableSpan]]) -> None:
        for each in released:
            if each.ruling.kept:
                for span in each.spans:
                    self._next.on_end(_sampled(span, each.ruling))
            # Of a trace that was decided before its end, the end is told, too: something may have come since.
            if self._decided is not None and (not each.late or any(map(_is_local_root, each.spans))):
                self._decided(each.trace_id, each.ruling.kept, each.ruling.reason)

    def _facts(self, span: ReadableSpan) -> Facts:
        attributes = _plain(span.attributes)
        events = span.events
        size = _SPAN_BYTES + _text_bytes(attributes)
        score = math.inf if self._score is None else _number(attributes.get(self._score), math.inf)
        for event in events:
            of_event = _plain(event.attributes)
            size += _EVENT_BYTES + _text_bytes(of_event)
            if self._score is not None and event.name == EVALUATION:
                score = min(score, _number(of_event.get(self._score), math.inf))
        return Facts(
            root=_is_local_root(span),
            error=span.status.status_code is StatusCode.ERROR,
            duration_s=((span.end_time or 0) - (span.start_time or 0)) / 1e9,
            route=str(attributes.get("http.route") or span.name),
            cost=0.0 if self._cost is None else _number(attributes.get(self._cost), 0.0),
            score=score,
            size=size,
        )


def _watch(found: weakref.ref[TailSamplingProcessor], every_s: float) -> None:
    while True:
        time.sleep(every_s)
        processor = found()
        if processor is None:
            return
        processor.grow_old()
        del processor


class Recorder(Protocol):
    """What waits for a trace to go wrong; `otelweir.pipeline.sample.logs.flight` has it."""

    def decided(self, trace_id: int, kept: bool, reason: str) -> None: ...


class FlightSpanProcessor(SpanProcessor):
    """Tells a flight recorder of spans that failed, and of traces that have ended; for set-ups without a tail.

    Args:
        recorder: Whom to tell.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def on_end(self, span: ReadableSpan) -> None:
        context = span.get_span_context()
        if context is None:
            return
        if span.status.status_code is StatusCode.ERROR:
            self._recorder.decided(context.trace_id, True, "error")
        elif _is_local_root(span):
            self._recorder.decided(context.trace_id, False, "rate")


def count_traces(tail: TailSamplingProcessor, provider: MeterProvider) -> None:
    """Report the tail's decisions as a metric, read when metrics are collected."""

    def observe(_: CallbackOptions) -> Iterable[Observation]:
        for reason, count in tail.counts().items():
            yield Observation(count, {REASON: reason})

    provider.get_meter("otelweir").create_observable_counter(
        DECISIONS_METRIC,
        callbacks=[observe],
        unit="{trace}",
        description="Traces by what the tail decided: kept, by reason, or dropped; early and late ones once more.",
    )


def count_refused(sampler: WeirSampler, provider: MeterProvider) -> None:
    """Report the traces that found no room within a limit as a metric, read when metrics are collected."""

    def observe(_: CallbackOptions) -> Iterable[Observation]:
        yield Observation(sampler.refused())

    provider.get_meter("otelweir").create_observable_counter(
        REFUSED_METRIC,
        callbacks=[observe],
        unit="{trace}",
        description="Traces that the sampler's probability kept and its limit refused.",
    )


class EvaluationProcessor(LogRecordProcessor):
    """Tells a tail of the scores that evaluations log, as events named `gen_ai.evaluation.result`.

    Args:
        tail: Whom to tell.
        attribute: Which has the score.
    """

    def __init__(self, tail: TailSamplingProcessor, attribute: str) -> None:
        self._tail = tail
        self._attribute = attribute

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        record = log_record.log_record
        if record.event_name == EVALUATION and record.trace_id and record.attributes is not None:
            score = _number(record.attributes.get(self._attribute), math.inf)
            if score < math.inf:
                self._tail.scored(record.trace_id, score)

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


class _Sampled(ReadableSpan):
    """A span as it goes on: with what its decision adds to it, and the counts of what was cut from it."""

    def __init__(self, span: ReadableSpan, context: SpanContext | None, attributes: Attributes) -> None:
        super().__init__(
            name=span.name,
            context=context,
            parent=span.parent,
            resource=span.resource,
            attributes=attributes,
            events=span.events,
            links=span.links,
            kind=span.kind,
            status=span.status,
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=span.instrumentation_scope,
        )
        self._dropped = span.dropped_attributes, span.dropped_events, span.dropped_links

    @property
    def dropped_attributes(self) -> int:
        return self._dropped[0]

    @property
    def dropped_events(self) -> int:
        return self._dropped[1]

    @property
    def dropped_links(self) -> int:
        return self._dropped[2]


def _sampled(span: ReadableSpan, ruling: Ruling) -> ReadableSpan:
    """The span as it goes on; as it came, if that fails."""
    try:
        context = span.get_span_context()
        if context is not None and ruling.reason == "rate" and ruling.threshold is not None:
            value = context.trace_state.get(KEY, "")
            if tracestate.parse(value).threshold != ruling.threshold:
                context = SpanContext(
                    context.trace_id,
                    context.span_id,
                    context.is_remote,
                    context.trace_flags,
                    _with_threshold(context.trace_state, value, ruling.threshold),
                )
        return _Sampled(span, context, {**_plain(span.attributes), WEIGHT: ruling.weight, REASON: ruling.reason})
    except Exception as error:  # noqa: BLE001 - our bug must not become the host's
        _tail_failed(error)
        return span


def _chance(context: SpanContext) -> Chance:
    value = context.trace_state.get(KEY)
    if value is None:
        return Chance(None, context.trace_id & MASK)
    threshold, randomness, _ = tracestate.parse(value)
    return Chance(threshold, context.trace_id & MASK if randomness is None else randomness)


def _is_local_root(span: ReadableSpan) -> bool:
    parent = span.parent
    return parent is None or parent.is_remote


def _plain(attributes: Attributes) -> dict[str, Any]:
    """The attributes as a dict: the SDK's own mapping asks Python code for each item."""
    if isinstance(attributes, MappingProxyType):
        found: dict[str, Any] = attributes.copy()
        return found
    return dict(attributes or {})


def _text_bytes(attributes: Mapping[str, object]) -> int:
    size = 100 * len(attributes)
    for value in attributes.values():
        kind = type(value)
        if kind is str or kind is bytes:
            size += len(value)  # type: ignore[arg-type]
        elif kind is tuple or kind is list or kind is dict:
            size += len(repr(value))
    return size


def _number(value: object, otherwise: float) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return otherwise


def _tail_rules(settings: TraceSamplingSettings) -> TailRules:
    return TailRules(
        rate=settings.trace_tail_rate,
        slow_s=settings.trace_tail_slow,
        slow_quantile=settings.trace_tail_slow_quantile,
        cost=settings.trace_tail_cost,
        score=settings.trace_tail_score,
        max_traces=settings.trace_tail_max_traces,
        max_spans=settings.trace_tail_max_spans,
        max_bytes=settings.trace_tail_max_bytes,
        max_age_s=settings.trace_tail_max_age,
    )


def _tail_failed(error: Exception) -> None:
    errors.warn(errors.TRACE_SAMPLE_FAILED, f"{type(error).__name__}: {error}", exc_info=error)


def _in_child(after_fork: Callable[[], None]) -> None:
    """Call a method in forked children, for as long as its object is there."""
    if hasattr(os, "register_at_fork"):
        method = weakref.WeakMethod(after_fork)

        def again() -> None:
            if (found := method()) is not None:
                found()

        os.register_at_fork(after_in_child=again)
