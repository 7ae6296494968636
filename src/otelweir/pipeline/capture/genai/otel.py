"""Cost in the SDK: a processor that stands before the one that exports spans, and what lets it see every call."""

from __future__ import annotations

import json
import os
import time
import weakref
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, overload

from opentelemetry import metrics
from opentelemetry import trace as trace_api
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider
from opentelemetry.sdk._logs import LogRecordProcessor, ReadWriteLogRecord
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.sampling import DEFAULT_ON, Decision, Sampler, SamplingResult
from opentelemetry.sdk.util import BoundedList
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, TracerProvider, TraceState
from opentelemetry.util.types import Attributes

from otelweir import errors
from otelweir.pipeline.capture.genai.content import BOUNDED, tidy, within
from otelweir.pipeline.capture.genai.content import INPUT as INPUT_MESSAGES
from otelweir.pipeline.capture.genai.content import OUTPUT as OUTPUT_MESSAGES
from otelweir.pipeline.capture.genai.ledger import Budget, Ledger, Live, Seen, Totals, is_part_of, sort_of
from otelweir.pipeline.capture.genai.settings import GenAISettings
from otelweir.pipeline.capture.genai.usage import (
    CACHE_CREATION,
    CACHE_WRITE,
    CALLS,
    FINISH,
    OPENINFERENCE,
    OPENINFERENCE_CALLS,
    OPERATION,
    PROVIDER,
    REQUEST_MODEL,
    RESPONSE_ID,
    RESPONSE_MODEL,
    Usage,
    are_final,
    models_of,
    operation_of,
    provider_of,
    tier_of,
    usage_of,
)
from otelweir.variables import read

if TYPE_CHECKING:
    from otelweir.pipeline.capture.genai.catalogue import Catalogue
    from otelweir.pipeline.capture.genai.cost import Cost
    from otelweir.pipeline.capture.genai.prices import PriceList

SCOPE: Final = "otelweir"
METRIC: Final = "weir.genai.cost"

AMOUNT: Final = "weir.cost.amount"
CURRENCY: Final = "weir.cost.currency"
INPUT: Final = "weir.cost.input"
OUTPUT: Final = "weir.cost.output"
SOURCE: Final = "weir.cost.source"
SOURCE_DATE: Final = "weir.cost.source_date"
UNKNOWN_MODEL: Final = "weir.cost.unknown_model"
INCOMPLETE: Final = "weir.cost.incomplete"
"""The provider has not told all tokens: there is no amount, or it is the least that the call cost."""

TRACE_AMOUNT: Final = "weir.trace.cost.amount"
TRACE_CURRENCY: Final = "weir.trace.cost.currency"
TRACE_INCOMPLETE: Final = "weir.trace.cost.incomplete"
TRACE_CALLS: Final = "weir.trace.llm.calls"
TRACE_INPUT: Final = "weir.trace.usage.input_tokens"
TRACE_OUTPUT: Final = "weir.trace.usage.output_tokens"

PROVIDERS_CONVERSATION: Final = "weir.genai.conversation.id"
"""The conversation as the provider or the framework calls it, where the application calls it otherwise."""

_SESSION: Final = "session.id"
_CONVERSATION: Final = "gen_ai.conversation.id"
_EVENT: Final = "gen_ai.client.inference.operation.details"
_NAMELESS: Final = "a provider without a name"
_DIGITS: Final = 12


class GenAISpanProcessor(SpanProcessor):
    """Gives the span of each call to a model its cost, and each local root the sum over its trace.

    Usable alone in any SDK set-up::

        provider.add_span_processor(GenAISpanProcessor(BatchSpanProcessor(OTLPSpanExporter())))

    With several exporters, put one of these around all of them: two would count twice.

    Args:
        next_: What gets the spans.
        settings: None reads them from the environment.
        meter_provider: Where the metric `weir.genai.cost` goes; None for the global one.
    """

    def __init__(
        self,
        next_: SpanProcessor,
        settings: GenAISettings | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        settings = settings or read(GenAISettings, os.environ)[0]
        self._next = next_
        self._own = _own(settings.prices_file)
        self._currency = self._own.currency if self._own is not None else "USD"
        self._catalogue: Catalogue | None = None
        self._ledger = Ledger()
        self._limit = settings.genai_content_max_bytes
        self._mlflow = settings.genai_mlflow_cost
        self._budget = (
            Budget(settings.cost_budget, settings.cost_budget_window, time.monotonic) if settings.cost_budget else None
        )
        self._counter = metrics.get_meter(SCOPE, meter_provider=meter_provider).create_counter(
            METRIC, unit=self._currency, description="What calls to language models cost."
        )
        if hasattr(os, "register_at_fork"):
            _at_fork(self)

    def __repr__(self) -> str:
        return f"<GenAISpanProcessor {self._ledger!r} before {self._next!r}>"

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        try:
            context, parent = span.context, span.parent
            if context is not None:
                local = parent is not None and not parent.is_remote
                live = self._ledger.begin(context.trace_id, context.span_id, parent.span_id if local else None)  # type: ignore[union-attr]
                if _may_be_a_call(span):
                    self._call_began(span, live)
        except Exception as error:  # noqa: BLE001 - our bug must not become the host's
            _failed(error)
        self._next.on_start(span, parent_context)

    def on_end(self, span: ReadableSpan) -> None:
        try:
            span = self._ended(span)
        except Exception as error:  # noqa: BLE001 - our bug must not become the host's
            _failed(error)
        self._next.on_end(span)

    def shutdown(self) -> None:
        self._next.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._next.force_flush(timeout_millis)

    def after_fork(self) -> None:
        """In the child: what threads of the parent were at is lost."""
        self._ledger.after_fork()
        if self._catalogue is not None:
            self._catalogue.after_fork()
        if self._budget is not None:
            self._budget.after_fork()

    def _call_began(self, span: Span, live: Live) -> None:
        attributes = span.attributes or {}
        operation = operation_of(attributes)
        if operation not in CALLS and (operation or span.kind is not SpanKind.CLIENT):
            return
        held = weakref.ref(span)
        # Looked at when it is needed: some instrumentations say only later what they do, and with which model.
        live.call = lambda: getattr(held(), "attributes", None)
        if operation in CALLS:
            if not is_part_of(live.above, attributes):
                # Told at the beginning, too: a stream ends later than the function that gave it away.
                self._ledger.called(live, operation)
            self._load()

    def _load(self) -> Catalogue | None:
        """The catalogue, which begins to load now if it has not; None where it does not apply."""
        if self._catalogue is None and (self._currency == "USD" or (self._own and self._own.usd_rate)):
            # Only here: a service that calls no model need not wait for what this brings.
            from otelweir.pipeline.capture.genai.catalogue import Catalogue

            self._catalogue = Catalogue()
            self._catalogue.begin()
        return self._catalogue

    def _ended(self, span: ReadableSpan) -> ReadableSpan:
        context, parent = span.context, span.parent
        if context is None:
            return span
        root = parent is None or parent.is_remote
        live = self._ledger.end(context.trace_id, context.span_id, root=root)
        attributes = span.attributes or {}
        changed: dict[str, Any] | None = None
        if operation := operation_of(attributes):
            changed = self._of_model(span, operation, attributes, live)
        if root and live is not None and live.totals.calls:
            changed = {**(attributes if changed is None else changed), **self._sums(live.totals)}
        return span if changed is None else with_attributes(span, changed)

    def _of_model(
        self, span: ReadableSpan, operation: str, attributes: Mapping[str, Any], live: Live | None
    ) -> dict[str, Any]:
        """The attributes of a span that has to do with a model, as they leave."""
        if operation in CALLS:
            above = live.above if live is not None else None
            if above is not None and is_part_of(above, attributes):
                # Of one call, the outer span is the model's; this one tells how it was transported.
                above.found = {**attributes, **((live and live.found) or {})}
                return _without_model(attributes)
            if live is not None and live.found:
                attributes = {**_of_call(live.found), **attributes}
        changed = dict(attributes)
        if operation in CALLS:
            usage = usage_of(changed)
            known = usage is not None and self._ledger.known(live, _seen(span, operation, changed, usage))
            around = live is not None and bool(live.called & sort_of(operation))
            if known == "below" or (around and (known == "same" or usage is None)):
                # A function or a framework around the model's span: it is a step, and no second call.
                return self._tidied(_as_step(changed))
            if known == "same":
                # Beside the model's; what was captured only here is kept.
                told = INPUT_MESSAGES in changed or OUTPUT_MESSAGES in changed
                return self._tidied(_as_step(changed)) if told else _without_model(changed)
            self._ledger.called(live, operation)
            final = are_final(changed, by_client=span.kind is SpanKind.CLIENT)
            if not final:
                changed[INCOMPLETE] = True
                self._say_why(changed, usage)
            if usage is not None:
                self._count(span, changed, usage, live, final=final)
            elif not final:
                self._ledger.add(live, Usage(), None)
        _mend(changed)
        return self._tidied(changed)

    def _tidied(self, changed: dict[str, Any]) -> dict[str, Any]:
        finish = changed.get(FINISH)
        reasons = [str(reason) for reason in finish] if isinstance(finish, (list, tuple)) else []
        for name in BOUNDED:
            text = changed.get(name)
            if isinstance(text, str):
                changed[name] = tidy(name, text, self._limit, reasons)
        return changed

    def _say_why(self, attributes: Mapping[str, Any], usage: Usage | None) -> None:
        """Warn where the caller can mend it: a stream was read to its end, and nobody had asked it for its tokens."""
        if usage is None and attributes.get(FINISH):
            asked, answered = models_of(attributes)
            errors.warn(errors.NO_TOKENS, f"{provider_of(attributes) or _NAMELESS}, {asked or answered}")

    def _count(
        self, span: ReadableSpan, attributes: dict[str, Any], usage: Usage, live: Live | None, *, final: bool
    ) -> None:
        provider, (asked, answered) = provider_of(attributes), models_of(attributes)
        at = datetime.fromtimestamp((span.start_time or time.time_ns()) / 1e9, UTC)
        cost: Cost | None = None
        catalogue, tier = self._load(), tier_of(attributes)
        for model in dict.fromkeys(filter(None, (answered, asked))):
            if self._own is not None:
                cost = self._own.cost(provider, model, usage, tier)
            if cost is None and catalogue is not None:
                cost = catalogue.cost(provider, model, usage, tier, at)
                if cost is not None and self._own is not None:
                    cost = self._own.converted(cost)
            if cost is not None:
                break
        amount = None if cost is None else round(float(cost.amount), _DIGITS)
        self._ledger.add(live, usage, amount, final=final)
        if cost is None or amount is None:
            attributes[UNKNOWN_MODEL] = True
            if catalogue is None or catalogue.usable:
                at_tier = f", tier {tier}" if tier else ""
                errors.warn(errors.UNKNOWN_MODEL, f"{provider or _NAMELESS}, {answered or asked}{at_tier}")
            return
        into, out = round(float(cost.input), _DIGITS), round(float(cost.output), _DIGITS)
        attributes |= {AMOUNT: amount, CURRENCY: cost.currency, INPUT: into, OUTPUT: out, SOURCE: cost.source}
        if cost.source_date:
            attributes[SOURCE_DATE] = cost.source_date
        if self._mlflow:
            attributes["mlflow.llm.cost"] = json.dumps({"input_cost": into, "output_cost": out, "total_cost": amount})
        labels = {PROVIDER: provider, REQUEST_MODEL: asked, RESPONSE_MODEL: answered}
        labels[OPERATION] = operation_of(attributes)
        self._counter.add(amount, {name: value for name, value in labels.items() if value})
        if self._budget is not None and self._budget.spend(amount):
            self._over_budget(self._budget)

    def _over_budget(self, budget: Budget) -> None:
        until = datetime.now(UTC).isoformat(timespec="seconds")
        errors.warn(
            errors.BUDGET_EXCEEDED,
            f"calls to models cost {budget.spent:.4g} {self._currency} by {until}, "
            f"more than the {budget.limit:g} {self._currency} that this process may spend in {budget.window_s:g} s",
        )

    def _sums(self, totals: Totals) -> dict[str, Any]:
        sums: dict[str, Any] = {
            TRACE_AMOUNT: round(totals.amount, _DIGITS),
            TRACE_CURRENCY: self._currency,
            TRACE_CALLS: totals.calls,
            TRACE_INPUT: totals.input,
            TRACE_OUTPUT: totals.output,
        }
        return {**sums, TRACE_INCOMPLETE: True} if totals.unpriced else sums


class GenAISampler(Sampler):
    """Lets the processor see the calls that another sampler does not take, so that what they cost is counted.

    Their spans are recorded and not sampled: no exporter sends them, and what is below them stays unsampled.

    Args:
        inner: Decides; None for the SDK's default, which takes every trace that no other service left out.
    """

    def __init__(self, inner: Sampler | None = None) -> None:
        self.inner = inner or DEFAULT_ON

    def __repr__(self) -> str:
        return f"<GenAISampler before {self.inner!r}>"

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
        found = self.inner.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)
        if found.decision is Decision.DROP and attributes and operation_of(attributes) in CALLS:
            return SamplingResult(Decision.RECORD_ONLY, attributes, found.trace_state)
        return found

    def get_description(self) -> str:
        return self.inner.get_description()


class GenAILogProcessor(LogRecordProcessor):
    """Bounds the messages in the events of calls to models, as `GenAISpanProcessor` does on spans.

    The distribution has it. In an SDK set-up of your own, add it before the processor that exports.

    Args:
        settings: None reads them from the environment.
    """

    def __init__(self, settings: GenAISettings | None = None) -> None:
        self._limit = (settings or read(GenAISettings, os.environ)[0]).genai_content_max_bytes

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        record = log_record.log_record
        if record.event_name != _EVENT:
            return
        try:
            own: Any = record.attributes or {}
            for name in BOUNDED:
                value = own.get(name)
                if value is not None and (bounded := within(value, self._limit)) is not value:
                    own[name] = bounded
        except Exception as error:  # noqa: BLE001 - our bug must not become the host's
            _failed(error)

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


class Content(Protocol):
    """A file as OpenAI's client gives it."""

    @property
    def content(self) -> bytes: ...


Entry = TypeVar("Entry")
_MAX_COUNTED: Final = 10_000
_counted: Final[dict[str, object]] = {}
"""The results that were read, by the provider's ids."""


@overload
def batch_results(
    results: AsyncIterable[Entry], *, tracer_provider: TracerProvider | None = ...
) -> AsyncIterator[Entry]: ...
@overload
def batch_results(results: str | bytes, *, tracer_provider: TracerProvider | None = ...) -> Iterator[Any]: ...
@overload
def batch_results(results: Iterable[Entry], *, tracer_provider: TracerProvider | None = ...) -> Iterator[Entry]: ...
@overload
def batch_results(results: Content, *, tracer_provider: TracerProvider | None = ...) -> Iterator[Any]: ...
def batch_results(results: Any, *, tracer_provider: TracerProvider | None = None) -> Any:
    """Go through the results of a batch, so that each has a span with its tokens and, at the batch's price, its cost.

    ::

        for entry in otelweir.batch_results(client.messages.batches.results(batch.id)): ...     # Anthropic
        for entry in otelweir.batch_results(client.files.content(batch.output_file_id)): ...    # OpenAI

    The spans begin and end when a result is read, below one span for all of them. A result that was read before in this
    process, by the provider's id of it, is not counted again; of those the last 10,000 are remembered. What was asked
    and answered is not captured.

    Args:
        results: What Anthropic's client gives, sync or async; of OpenAI the file, its text, or its lines.
        tracer_provider: Where the spans go; None for the global one.

    Returns:
        The entries as they came; lines of a file as dictionaries.
    """
    reading = _Reading(tracer_provider)
    if isinstance(results, AsyncIterable):
        return _each_async(results, reading)
    results = getattr(results, "content", results)
    if isinstance(results, (str, bytes)):
        from otelweir.pipeline.capture.genai.batch import entries_of

        results = entries_of(results)
    return _each(results, reading)


def _each(results: Iterable[Any], reading: _Reading) -> Iterator[Any]:
    with reading:
        for entry in results:
            reading.saw(entry)
            yield entry


async def _each_async(results: AsyncIterable[Any], reading: _Reading) -> AsyncIterator[Any]:
    with reading:
        async for entry in results:
            reading.saw(entry)
            yield entry


class _Reading:
    """The spans of the results of one batch. None of them is current: between results the application is at work."""

    def __init__(self, tracer_provider: TracerProvider | None) -> None:
        self._tracer = trace_api.get_tracer(SCOPE, tracer_provider=tracer_provider)
        self._around: trace_api.Span = trace_api.INVALID_SPAN
        self._context: Context | None = None

    def __enter__(self) -> None:
        self._around = self._tracer.start_span("batch results")
        self._context = trace_api.set_span_in_context(self._around)

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, Exception):
            self._around.set_status(Status(StatusCode.ERROR, type(error).__name__))
        self._around.end()

    def saw(self, entry: object) -> None:
        try:
            from otelweir.pipeline.capture.genai.batch import answer_of

            answer = answer_of(entry)
            if answer is None or _was_counted(answer.attributes.get(RESPONSE_ID)):
                return
            span = self._tracer.start_span(
                answer.name, self._context, kind=SpanKind.CLIENT, attributes=dict(answer.attributes)
            )
            if answer.failed:
                span.set_status(Status(StatusCode.ERROR, answer.failed))
            span.end()
        except Exception as error:  # noqa: BLE001 - our bug must not become the host's
            _failed(error)


def _was_counted(response: str | None) -> bool:
    """Whether a result was read before; from now on it was."""
    mine = object()
    if response and _counted.setdefault(response, mine) is not mine:
        return True
    while len(_counted) > _MAX_COUNTED:
        with suppress(RuntimeError):  # another thread adds one meanwhile
            _counted.pop(next(iter(_counted)), None)
    return False


def with_attributes(span: ReadableSpan, attributes: Mapping[str, Any]) -> ReadableSpan:
    """A finished span with other attributes. What it says of things it had to drop stays true."""
    kept: Any = attributes
    if span.dropped_attributes:
        kept = BoundedAttributes(attributes=dict(attributes), immutable=False)
        kept.dropped = span.dropped_attributes
    events: Any = span.events
    if span.dropped_events:
        events = BoundedList.from_seq(max(1, len(events)), events)
        events.dropped = span.dropped_events
    links: Any = span.links
    if span.dropped_links:
        links = BoundedList.from_seq(max(1, len(links)), links)
        links.dropped = span.dropped_links
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=kept,
        events=events,
        links=links,
        kind=span.kind,
        status=span.status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _may_be_a_call(span: Span) -> bool:
    """Told by names, as looking at the attributes of each span takes longer.

    The convention's names begin with the operation (`chat gpt-5`), OpenLLMetry's end with it (`openai.chat`).
    """
    if span.kind is SpanKind.CLIENT:
        return span.name.partition(" ")[0].rpartition(".")[2] in CALLS
    scope = span.instrumentation_scope
    return scope is not None and scope.name.startswith("openinference.")


def _seen(span: ReadableSpan, operation: str, attributes: Mapping[str, Any], usage: Usage) -> Seen:
    response = str(attributes.get(RESPONSE_ID) or "")
    scope = span.instrumentation_scope.name if span.instrumentation_scope is not None else ""
    return Seen(models_of(attributes)[0], response, span.start_time or 0, span.end_time or 0, usage, operation, scope)


def _as_step(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """What remains of a span around the model's: what went in and came out, as steps of a chain have it."""
    left = _without_model(attributes)
    left.setdefault(OPENINFERENCE, "CHAIN")
    for messages, name in ((INPUT_MESSAGES, "input"), (OUTPUT_MESSAGES, "output")):
        if isinstance(text := attributes.get(messages), str) and f"{name}.value" not in left:
            left |= {f"{name}.value": text, f"{name}.mime_type": "application/json"}
    return left


def _without_model(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """What remains of a span when another one is the model's: of one call, one span says what the model did."""
    return {
        name: value
        for name, value in attributes.items()
        if not name.startswith(("gen_ai.", "llm.")) and not (name == OPENINFERENCE and value in OPENINFERENCE_CALLS)
    }


def _of_call(found: Mapping[str, Any]) -> dict[str, Any]:
    """Of what an inner span of a call says, what belongs to the model's."""
    return {
        name: value
        for name, value in found.items()
        if name.startswith(("gen_ai.", "anthropic.usage.", "anthropic.response.", "openai.response.", "llm."))
    }


def _mend(attributes: dict[str, Any]) -> None:
    """Say what backends read under another name there, too."""
    for one, other in ((CACHE_WRITE, CACHE_CREATION), (_CONVERSATION, _SESSION)):
        if one in attributes and other not in attributes:
            attributes[other] = attributes[one]
        elif other in attributes and one not in attributes:
            attributes[one] = attributes[other]
    if attributes.get(_SESSION) != attributes.get(_CONVERSATION):
        # Backends take the one for the other; what the application says of the session holds for all its spans.
        attributes[PROVIDERS_CONVERSATION] = attributes[_CONVERSATION]
        attributes[_CONVERSATION] = attributes[_SESSION]


def _own(path: str | None) -> PriceList | None:
    if not path:
        return None
    from otelweir.pipeline.capture.genai.prices import load

    try:
        return load(path)
    except errors.WeirError as error:
        errors.warn(error.problem, error.detail)
    return None


def _failed(error: Exception) -> None:
    errors.warn(errors.GENAI_FAILED, f"{type(error).__name__}: {error}", exc_info=error)


def _at_fork(processor: GenAISpanProcessor) -> None:
    """Tell a processor of forks as long as it lives."""
    held = weakref.ref(processor)

    def in_child() -> None:
        alive = held()
        if alive is not None:
            alive.after_fork()

    os.register_at_fork(after_in_child=in_child)
