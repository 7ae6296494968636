"""Redaction in the SDK: processors and an exporter that stand before others, and see that those see no secrets.

    provider.add_span_processor(RedactingSpanProcessor(BatchSpanProcessor(OTLPSpanExporter())))

Records are not changed but replaced, as other processors have them, too. What holds no secret goes on as it is.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.sdk._logs import LogRecordProcessor, ReadableLogRecord, ReadWriteLogRecord
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, Status
from opentelemetry.trace.span import TraceState

from otelweir.pipeline.redact.actions import FAILED
from otelweir.pipeline.redact.plan import Plan
from otelweir.pipeline.redact.redactor import Detector, Redactor, Scrubber
from otelweir.pipeline.redact.settings import RedactSettings, plan_of
from otelweir.signals import Lane
from otelweir.variables import read

AnyLog = TypeVar("AnyLog", ReadableLogRecord, ReadWriteLogRecord)

SCOPE: Final = "otelweir"
REPLACED_METRIC: Final = "weir.redact.replaced"
_MAX_ORIGINS: Final = 256


def redactor_of(settings: RedactSettings) -> Redactor | None:
    """The redactor that the settings ask for; None where they turn it off.

    Raises:
        MissingExtra: The detector that they name is not installed.
    """
    if not settings.redact:
        return None
    detector: Detector | None = None
    if settings.redact_detector == "presidio":
        from otelweir.pipeline.redact.presidio import PresidioDetector

        detector = PresidioDetector()
    return Redactor(plan_of(settings), detector)


def redactor_from_environment() -> Redactor:
    """The redactor that the `WEIR_REDACT_*` variables describe; for set-ups without the distribution."""
    settings, _ = read(RedactSettings, os.environ)
    return redactor_of(settings) or Redactor(Plan(rules=()))


# --- what records have in common ------------------------------------------------------------------------------------


class _Origins:
    """Resources and scopes without their secrets. Known by identity: they are immutable, and few."""

    def __init__(self, scrubber: Scrubber) -> None:
        self._scrubber = scrubber
        self._plan = scrubber.plan
        self._known: dict[int, tuple[object, Any]] = {}

    def of(self, origin: Any) -> Any:
        known = self._known.get(id(origin))
        if known is not None and known[0] is origin and self._plan is self._scrubber.plan:
            return known[1]
        return self._redacted(origin)

    def _redacted(self, origin: Any) -> Any:
        if origin is None:
            return None
        if self._plan is not self._scrubber.plan:
            self._plan, self._known = self._scrubber.plan, {}
        now = redacted_resource(origin, self._scrubber) if isinstance(origin, Resource) else self._scope(origin)
        if len(self._known) >= _MAX_ORIGINS:
            self._known.clear()
        self._known[id(origin)] = (origin, now)
        return now

    def _scope(self, scope: InstrumentationScope) -> InstrumentationScope:
        text = self._scrubber.text
        name, version = text(scope.name), text(scope.version) if scope.version else scope.version
        attributes = self._scrubber.attributes(dict(scope.attributes)) if scope.attributes else None
        if name is scope.name and version is scope.version and attributes is None:
            return scope
        return InstrumentationScope(
            name, version, scope.schema_url, attributes if attributes is not None else scope.attributes
        )


def redacted_resource(resource: Resource, scrubber: Scrubber) -> Resource:
    """A resource without its secrets; the same one when it has none."""
    attributes = scrubber.attributes(dict(resource.attributes))
    return resource if attributes is None else Resource(attributes, resource.schema_url)


class Clean:
    """Says whether what is about to be encoded holds no secret; what an encoder asks that can be given a check.

    Attributes:
        plan: What was hidden by when this was made; the answers of one plan do not hold for another.
    """

    __slots__ = ("name", "origin", "plan", "text", "value")

    def __init__(self, scrubber: Scrubber) -> None:
        self.plan = scrubber.plan
        self.text = scrubber.clean
        self.name = scrubber.clean_name
        self.value = scrubber.clean_value
        self.origin = _Origins(scrubber).of


# --- spans ----------------------------------------------------------------------------------------------------------


class _RedactedSpan(ReadableSpan):
    """A span that still knows what was dropped of it before."""

    _dropped: tuple[int, int, int] = (0, 0, 0)

    @property
    def dropped_attributes(self) -> int:
        return self._dropped[0]

    @property
    def dropped_events(self) -> int:
        return self._dropped[1]

    @property
    def dropped_links(self) -> int:
        return self._dropped[2]


class SpanRedaction:
    """Gives spans without their secrets.

    Args:
        scrubber: Of the traces.
    """

    def __init__(self, scrubber: Scrubber) -> None:
        self._scrubber = scrubber
        self._origins = _Origins(scrubber)

    def __call__(self, span: ReadableSpan) -> ReadableSpan:
        """The span, or one without its secrets. Never raises: where that fails, next to nothing of it is left."""
        try:
            return self._redacted(span)
        except Exception as error:  # noqa: BLE001 - what could not be looked at may not leave
            self._scrubber.failed(error)
            return ReadableSpan(
                name=FAILED,
                context=span.context,
                parent=span.parent,
                resource=Resource({}),
                kind=span.kind,
                status=Status(span.status.status_code),
                start_time=span.start_time,
                end_time=span.end_time,
            )

    def _redacted(self, span: ReadableSpan) -> ReadableSpan:
        scrubber, origin = self._scrubber, self._origins.of
        given = span.attributes
        attributes = scrubber.attributes(given.copy()) if given else None  # type: ignore[attr-defined]
        name = scrubber.text(old_name := span.name)
        resource = origin(old_resource := span.resource)
        scope = origin(old_scope := span.instrumentation_scope)
        status = span.status
        description = scrubber.text(status.description) if status.description else status.description
        events, links = span.events, span.links
        new_events = [self._event(event) for event in events] if events else events
        new_links = [self._link(link) for link in links] if links else links
        context = span.context
        if context is not None and context.trace_state:
            context = self._context(context)
        if (
            attributes is None
            and name is old_name
            and resource is old_resource
            and scope is old_scope
            and description is status.description
            and context is span.context
            and (not events or all(map(_is, events, new_events)))
            and (not links or all(map(_is, links, new_links)))
        ):
            return span
        found = _RedactedSpan(
            name=name,
            context=context,
            parent=span.parent,
            resource=resource,
            attributes=given if attributes is None else attributes,
            events=new_events,
            links=new_links,
            kind=span.kind,
            status=status if description is status.description else Status(status.status_code, description),
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=scope,
        )
        found._dropped = span.dropped_attributes, span.dropped_events, span.dropped_links
        return found

    def _event(self, event: Event) -> Event:
        name = self._scrubber.text(event.name)
        attributes = self._scrubber.attributes(dict(event.attributes)) if event.attributes else None
        if name is event.name and attributes is None:
            return event
        return Event(name, _bounded(event, attributes), event.timestamp)

    def _link(self, link: Link) -> Link:
        attributes = self._scrubber.attributes(dict(link.attributes)) if link.attributes else None
        context = self._context(link.context) if link.context.trace_state else link.context
        if attributes is None and context is link.context:
            return link
        return Link(context, _bounded(link, attributes))

    def _context(self, context: SpanContext) -> SpanContext:
        """The context without the entries of the trace state that hold a secret."""
        text = self._scrubber.text
        kept = [(key, value) for key, value in context.trace_state.items() if text(value) is value]
        if len(kept) == len(context.trace_state):
            return context
        return SpanContext(context.trace_id, context.span_id, context.is_remote, context.trace_flags, TraceState(kept))


def _bounded(owner: Any, attributes: Mapping[str, Any] | None) -> Any:
    """Attributes that know how many were dropped before."""
    if attributes is None:
        return owner.attributes
    found = BoundedAttributes(attributes=attributes)
    found.dropped = owner.dropped_attributes
    return found


def _is(one: object, other: object) -> bool:
    return one is other


class RedactingSpanProcessor(SpanProcessor):
    """Hides secrets in finished spans, before a processor that keeps or exports them.

    Args:
        next_: Gets the spans.
        redactor: Hides; None makes one from the `WEIR_REDACT_*` variables.
    """

    def __init__(self, next_: SpanProcessor, redactor: Redactor | None = None) -> None:
        self.redactor = redactor or redactor_from_environment()
        self._next = next_
        self._redacted = SpanRedaction(self.redactor.of("traces"))

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self._next.on_start(span, parent_context)

    def on_end(self, span: ReadableSpan) -> None:
        context = span.context
        # What is not sampled goes nowhere, and need not be looked at; nor does it get past here.
        if context is not None and context.trace_flags & 1:
            self._next.on_end(self._redacted(span))

    def shutdown(self) -> None:
        self._next.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._next.force_flush(timeout_millis)

    def __repr__(self) -> str:
        return f"<RedactingSpanProcessor {self.redactor!r} before {self._next!r}>"


# --- log records ----------------------------------------------------------------------------------------------------


class LogRedaction:
    """Gives log records without their secrets.

    Args:
        scrubber: Of the logs.
    """

    def __init__(self, scrubber: Scrubber) -> None:
        self._scrubber = scrubber
        self._origins = _Origins(scrubber)

    def __call__(self, record: AnyLog) -> AnyLog:
        """The record, or one without its secrets. Never raises: where that fails, next to nothing of it is left."""
        try:
            return self._redacted(record)
        except Exception as error:  # noqa: BLE001 - what could not be looked at may not leave
            self._scrubber.failed(error)
            log = copy.copy(record.log_record)
            log.body, log.attributes = FAILED, BoundedAttributes()
            log.event_name = log.severity_text = None
            return _with(record, log, Resource({}), None)

    def _redacted(self, record: AnyLog) -> AnyLog:
        scrubber, origin = self._scrubber, self._origins.of
        log = record.log_record
        body = scrubber.text(old) if type(old := log.body) is str else scrubber.value(old)
        given = log.attributes
        attributes = scrubber.attributes(_copied(given)) if given else None
        name = scrubber.text(log.event_name) if log.event_name else log.event_name
        severity = scrubber.text(log.severity_text) if log.severity_text else log.severity_text
        resource = origin(record.resource)
        scope = origin(record.instrumentation_scope)
        if (
            body is old
            and attributes is None
            and name is log.event_name
            and severity is log.severity_text
            and resource is record.resource
            and scope is record.instrumentation_scope
        ):
            return record
        log = copy.copy(log)
        log.body, log.event_name, log.severity_text = body, name, severity
        if attributes is not None:
            bounded = BoundedAttributes(immutable=False, extended_attributes=True)
            # As they are: the constructor would look at each value again, and refuse what was accepted.
            bounded._dict.update(attributes)
            bounded.dropped = record.dropped_attributes
            log.attributes = bounded
        return _with(record, log, resource, scope)


def _copied(attributes: Any) -> Mapping[Any, Any]:
    """A copy, as another thread may write; the SDK's own mapping gives it at once."""
    found: Mapping[Any, Any] = attributes.copy() if hasattr(attributes, "copy") else dict(attributes)
    return found


def _with(record: AnyLog, log: Any, resource: Resource | None, scope: InstrumentationScope | None) -> AnyLog:
    """A copy of a record with other contents. Its constructor would apply the limits once more."""
    found = copy.copy(record)
    for name, value in (("log_record", log), ("resource", resource), ("instrumentation_scope", scope)):
        object.__setattr__(found, name, value)  # one of the two classes is frozen
    return found


class RedactingLogProcessor(LogRecordProcessor):
    """Hides secrets in log records, before a processor that keeps or exports them.

    Args:
        next_: Gets the records.
        redactor: Hides; None makes one from the `WEIR_REDACT_*` variables.
    """

    def __init__(self, next_: LogRecordProcessor, redactor: Redactor | None = None) -> None:
        self.redactor = redactor or redactor_from_environment()
        self._next = next_
        self._redacted = LogRedaction(self.redactor.of("logs"))

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        self._next.on_emit(self._redacted(log_record))

    def enabled(self, **question: Any) -> bool:
        # Only from 1.45 on processors are asked.
        ask = getattr(self._next, "enabled", None)
        return ask is None or bool(ask(**question))

    def shutdown(self) -> None:
        self._next.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._next.force_flush(timeout_millis)

    def __repr__(self) -> str:
        return f"<RedactingLogProcessor {self.redactor!r} before {self._next!r}>"


# --- metrics --------------------------------------------------------------------------------------------------------


class MetricRedaction:
    """Gives metrics without their secrets: in the attributes of points and exemplars, resource, scope, and texts.

    Args:
        scrubber: Of the metrics.
    """

    def __init__(self, scrubber: Scrubber) -> None:
        self._scrubber = scrubber
        self._origins = _Origins(scrubber)

    def __call__(self, data: MetricsData) -> MetricsData:
        """The metrics without their secrets. Never raises: a point where that fails loses its attributes."""
        try:
            return replace(data, resource_metrics=[self._of_resource(one) for one in data.resource_metrics])
        except Exception as error:  # noqa: BLE001 - what could not be looked at may not leave
            self._scrubber.failed(error)
            return MetricsData(resource_metrics=[])

    def _of_resource(self, metrics: Any) -> Any:
        origin = self._origins.of
        return replace(
            metrics,
            resource=origin(metrics.resource),
            scope_metrics=[
                replace(scope, scope=origin(scope.scope), metrics=[self._metric(one) for one in scope.metrics])
                for scope in metrics.scope_metrics
            ],
        )

    def _metric(self, metric: Any) -> Any:
        text = self._scrubber.text
        return replace(
            metric,
            name=text(metric.name),
            description=text(metric.description) if metric.description else metric.description,
            data=replace(metric.data, data_points=[self._point(point) for point in metric.data.data_points]),
        )

    def _point(self, point: Any) -> Any:
        attributes = self._clean(point.attributes)
        if point.exemplars:
            exemplars = [
                replace(one, filtered_attributes=self._clean(one.filtered_attributes)) for one in point.exemplars
            ]
            return replace(point, attributes=attributes, exemplars=exemplars)
        return point if attributes is point.attributes else replace(point, attributes=attributes)

    def _clean(self, attributes: Any) -> Any:
        found = self._scrubber.attributes(dict(attributes)) if attributes else None
        return attributes if found is None else found


class RedactingMetricExporter(MetricExporter):
    """Hides secrets in metrics, before an exporter.

    Args:
        next_: Gets the metrics.
        redactor: Hides; None makes one from the `WEIR_REDACT_*` variables.
        preferences: The temporality and the aggregation that `next_` asks for, as `MetricExporter` takes them.
    """

    def __init__(
        self, next_: MetricExporter, redactor: Redactor | None = None, preferences: tuple[Any, Any] = (None, None)
    ) -> None:
        super().__init__(*preferences)
        self.redactor = redactor or redactor_from_environment()
        self._next = next_
        self._redacted = MetricRedaction(self.redactor.of("metrics"))

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        return self._next.export(self._redacted(metrics_data), timeout_millis=timeout_millis, **kwargs)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        self._next.shutdown(timeout_millis=timeout_millis, **kwargs)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return self._next.force_flush(timeout_millis=timeout_millis)

    def __repr__(self) -> str:
        return f"<RedactingMetricExporter {self.redactor!r} before {self._next!r}>"


def count_replacements(redactor: Redactor, provider: MeterProvider) -> None:
    """Report how much was hidden as a metric, by rule and signal."""

    def observe(_: CallbackOptions) -> Iterable[Observation]:
        for (rule, signal), count in redactor.counts().items():
            attributes: Mapping[str, str | Lane] = {"weir.redact.rule": rule, "weir.signal": signal}
            yield Observation(count, attributes)

    provider.get_meter(SCOPE).create_observable_counter(
        REPLACED_METRIC,
        callbacks=[observe],
        unit="{replacement}",
        description="Secrets and personal data that were hidden, by rule and signal.",
    )
