"""Cost in the SDK: a processor that stands before the one that exports spans."""

from __future__ import annotations

import json
import os
import time
import weakref
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import metrics
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.util import BoundedList
from opentelemetry.trace import SpanKind

from otelweir import errors
from otelweir.pipeline.capture.genai.content import BOUNDED, tidy
from otelweir.pipeline.capture.genai.ledger import Budget, Ledger, Live, Seen, Totals
from otelweir.pipeline.capture.genai.settings import GenAISettings
from otelweir.pipeline.capture.genai.usage import (
    CACHE_CREATION,
    CACHE_WRITE,
    CALLS,
    OPERATION,
    PROVIDER,
    REQUEST_MODEL,
    RESPONSE_ID,
    RESPONSE_MODEL,
    Usage,
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
_FINISH: Final = "gen_ai.response.finish_reasons"
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
                # The convention's names begin with the operation; looking at the attributes of each span takes longer.
                if span.kind is SpanKind.CLIENT and span.name.partition(" ")[0] in CALLS:
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
        if attributes.get(OPERATION) in CALLS:
            live.model = str(attributes.get(REQUEST_MODEL) or "")
            self._load()

    def _load(self) -> Catalogue | None:
        """The catalogue, which begins to load now if it has not; None where it does not apply."""
        if self._catalogue is None and self._currency == "USD":
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
        operation = attributes.get(OPERATION)
        changed: dict[str, Any] | None = None
        if operation is not None:
            changed = self._of_model(span, operation, attributes, live)
        if root and live is not None and live.totals.calls:
            changed = {**(attributes if changed is None else changed), **self._sums(live.totals)}
        return span if changed is None else with_attributes(span, changed)

    def _of_model(
        self, span: ReadableSpan, operation: object, attributes: Mapping[str, Any], live: Live | None
    ) -> dict[str, Any]:
        """The attributes of a span that has to do with a model, as they leave."""
        if operation in CALLS:
            above = live.above if live is not None else None
            if above is not None and above.model and above.model == attributes.get(REQUEST_MODEL):
                # Of one call, the outer span is the model's; this one tells how it was transported.
                above.found = {**attributes, **((live and live.found) or {})}
                return _without_model(attributes)
            if live is not None and live.found:
                attributes = {**_of_call(live.found), **attributes}
        changed = dict(attributes)
        if operation in CALLS and (usage := usage_of(changed)) is not None:
            model, response = str(changed.get(REQUEST_MODEL) or ""), str(changed.get(RESPONSE_ID) or "")
            seen = Seen(model, response, span.start_time or 0, span.end_time or 0, usage)
            match self._ledger.known(live, seen):
                case "same":
                    return _without_model(changed)
                case None:
                    self._count(span, changed, usage, live)
        _mend(changed)
        for name in BOUNDED:
            text = changed.get(name)
            if isinstance(text, str):
                changed[name] = tidy(name, text, self._limit, changed.get(_FINISH) or ())
        return changed

    def _count(self, span: ReadableSpan, attributes: dict[str, Any], usage: Usage, live: Live | None) -> None:
        provider = str(attributes.get(PROVIDER) or attributes.get("gen_ai.system") or "")
        asked, answered = str(attributes.get(REQUEST_MODEL) or ""), str(attributes.get(RESPONSE_MODEL) or "")
        at = datetime.fromtimestamp((span.start_time or time.time_ns()) / 1e9, UTC)
        cost: Cost | None = None
        catalogue = self._load()
        for model in dict.fromkeys(filter(None, (answered, asked))):
            if self._own is not None:
                cost = self._own.cost(provider, model, usage)
            if cost is None and catalogue is not None:
                cost = catalogue.cost(provider, model, usage, tier_of(attributes), at)
            if cost is not None:
                break
        amount = None if cost is None else round(float(cost.amount), _DIGITS)
        self._ledger.add(live, usage, amount)
        if cost is None or amount is None:
            attributes[UNKNOWN_MODEL] = True
            if catalogue is None or catalogue.usable:
                errors.warn(errors.UNKNOWN_MODEL, f"{provider or 'a provider without a name'}, {answered or asked}")
            return
        into, out = round(float(cost.input), _DIGITS), round(float(cost.output), _DIGITS)
        attributes |= {AMOUNT: amount, CURRENCY: cost.currency, INPUT: into, OUTPUT: out, SOURCE: cost.source}
        if cost.source_date:
            attributes[SOURCE_DATE] = cost.source_date
        if self._mlflow:
            attributes["mlflow.llm.cost"] = json.dumps({"input_cost": into, "output_cost": out, "total_cost": amount})
        labels = {PROVIDER: provider, REQUEST_MODEL: asked, RESPONSE_MODEL: answered}
        labels[OPERATION] = str(attributes.get(OPERATION))
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


def _without_model(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """What remains of a span when another one is the model's: of one call, one span says what the model did."""
    return {name: value for name, value in attributes.items() if not name.startswith("gen_ai.")}


def _of_call(found: Mapping[str, Any]) -> dict[str, Any]:
    """Of what an inner span of a call says, what belongs to the model's."""
    return {
        name: value
        for name, value in found.items()
        if name.startswith(("gen_ai.", "anthropic.usage.", "anthropic.response.", "openai.response."))
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
