"""Log sampling in the SDK: the processor, the roll-ups, the counters."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from opentelemetry._logs import LoggerProvider, LogRecord, SeverityNumber
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.sdk._logs import LogRecordProcessor, ReadWriteLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otelweir import errors
from otelweir.pipeline.sample.logs.flight import OF_TRACE, Entry, FlightRecorder
from otelweir.pipeline.sample.logs.sampler import LogSampler, Rollup
from otelweir.pipeline.sample.logs.settings import LogSamplingSettings
from otelweir.pipeline.sample.logs.stream import PATTERN_ID, REASON, TEMPLATE, WEIGHT
from otelweir.signals import ERROR, AnyValue
from otelweir.variables import read

SCOPE: Final = "otelweir"
ROLLUP: Final = "weir.log.pattern.rollup"
EVENT: Final = "weir.event"
"""The event's name again, as some backends drop event names."""

RECORDS_METRIC: Final = "weir.log.records"


class Processors(LogRecordProcessor):
    """Several processors as one, so that one sampler stands before all of them."""

    def __init__(self, processors: Sequence[LogRecordProcessor]) -> None:
        self._processors = tuple(processors)

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        for processor in self._processors:
            processor.on_emit(log_record)

    def enabled(self, **question: Any) -> bool:
        return any(_enabled(processor, question) for processor in self._processors)

    def shutdown(self) -> None:
        for processor in self._processors:
            processor.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        deadline = time.monotonic() + timeout_millis / 1000
        done = [
            processor.force_flush(max(0, int((deadline - time.monotonic()) * 1000))) for processor in self._processors
        ]
        return all(done)


class PatternSamplingProcessor(LogRecordProcessor):
    """Samples log records by pattern, before the processor that exports them.

    Usable alone in any SDK set-up::

        provider.add_log_record_processor(
            PatternSamplingProcessor(BatchLogRecordProcessor(OTLPLogExporter()))
        )

    Records that carry `weir.sample.weight` were decided where they were made, and pass. Of the others only the text is
    known, and its pattern decides. With several exporters, put one of these around all of them (`Processors`): two
    would decide twice.

    Args:
        next_: What gets the kept records.
        sampler: Decides; whoever made it sends its roll-ups. None makes one from the `WEIR_LOG_*` variables, whose
            roll-ups go to `next_`: with the first record after each interval, and at shutdown.
        recorder: Where records wait that are not kept; None lets them go.
    """

    def __init__(
        self, next_: LogRecordProcessor, sampler: LogSampler | None = None, recorder: FlightRecorder | None = None
    ) -> None:
        self._next = next_
        self._recorder = recorder
        self._resource: Resource | None = None
        self._rollups_due_at = math.inf
        self._interval_s = math.inf
        if sampler is None:
            settings, _ = read(LogSamplingSettings, os.environ)
            sampler = LogSampler.of(settings)
            self._interval_s = settings.log_rollup_interval
            self._rollups_due_at = time.monotonic() + self._interval_s
            if hasattr(os, "register_at_fork"):
                os.register_at_fork(after_in_child=sampler.after_fork)
        self.sampler = sampler

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        try:
            self._resource = log_record.resource
            if time.monotonic() >= self._rollups_due_at:
                self._send_rollups()
            record = log_record.log_record
            attributes = record.attributes
            if attributes is None or WEIGHT not in attributes:
                verdict = self.sampler.text(
                    log_record.instrumentation_scope.name if log_record.instrumentation_scope else "",
                    record.severity_number.value if record.severity_number is not None else 0,
                    record.body if isinstance(record.body, str) else repr(record.body),
                    record.event_name or None,
                )
                if verdict is None:
                    if self._recorder is not None:
                        self._hold(self._recorder, log_record)
                    return
                if attributes is None:
                    record.attributes = dict(verdict)
                else:
                    for name, value in verdict.items():
                        attributes[name] = value  # type: ignore[index]
            severity = record.severity_number
            if self._recorder is not None and severity is not None and severity.value >= ERROR:
                self._recorder.release(record.trace_id or -threading.get_ident())
        except Exception as error:  # noqa: BLE001 - our bug must not become the host's
            errors.warn(errors.SAMPLE_FAILED, f"{type(error).__name__}: {error}", exc_info=error)
        self._next.on_emit(log_record)

    def enabled(self, **question: Any) -> bool:
        return _enabled(self._next, question)

    def shutdown(self) -> None:
        if self._rollups_due_at < math.inf:
            self._send_rollups()
        self._next.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._next.force_flush(timeout_millis)

    def _hold(self, recorder: FlightRecorder, log_record: ReadWriteLogRecord) -> None:
        record = log_record.log_record
        if recorder.whole_traces and not recorder.held_by_tail and record.trace_flags and record.trace_flags.sampled:
            self._send_held((None, 0, log_record), OF_TRACE)
            return
        at = record.timestamp or record.observed_timestamp or time.time_ns()
        recorder.hold(record.trace_id or -threading.get_ident(), (self._send_held, at, log_record))

    def _send_held(self, entry: Entry, attributes: Mapping[str, AnyValue]) -> None:
        log_record: ReadWriteLogRecord = entry[2]
        record = log_record.log_record
        record.attributes = {**(record.attributes or {}), **attributes}
        self._next.on_emit(log_record)

    def _send_rollups(self) -> None:
        self._rollups_due_at = time.monotonic() + self._interval_s
        scope = InstrumentationScope(SCOPE)
        for record in _rollup_records(self.sampler):
            self._next.on_emit(ReadWriteLogRecord(record, self._resource, scope))

    def __repr__(self) -> str:
        return f"<PatternSamplingProcessor {self.sampler!r} before {self._next!r}>"


def _enabled(processor: LogRecordProcessor, question: dict[str, Any]) -> bool:
    # Only from 1.45 on processors are asked.
    ask = getattr(processor, "enabled", None)
    return ask is None or bool(ask(**question))


def rollup_attributes(rollup: Rollup, wall: Callable[[float], int]) -> dict[str, AnyValue]:
    """The attributes of a roll-up event.

    Args:
        rollup: The counts.
        wall: Unix nanoseconds of a time of the sampler's clock.
    """
    return {
        EVENT: ROLLUP,
        PATTERN_ID: rollup.pattern.id,
        TEMPLATE: rollup.pattern.template,
        "weir.severity": rollup.severity,
        "weir.seen": rollup.seen,
        "weir.kept": rollup.kept,
        "weir.first_time": wall(rollup.first),
        # Up to the next millisecond: the record itself is stamped microseconds after the decision.
        "weir.last_time": wall(rollup.last) + 1_000_000,
        # It stands for no logged record: sums of weights stay what they are.
        WEIGHT: 0.0,
        REASON: "rollup",
    }


def send_rollups(sampler: LogSampler, provider: LoggerProvider) -> None:
    """Send what was counted since the last time, one event per pattern and severity. Never raises."""
    try:
        logger = provider.get_logger(SCOPE)
        for record in _rollup_records(sampler):
            logger.emit(record)
    except Exception as error:  # noqa: BLE001 - our bug must not become the host's
        errors.warn(errors.SAMPLE_FAILED, f"{type(error).__name__}: {error}", exc_info=error)


def _rollup_records(sampler: LogSampler) -> Iterator[LogRecord]:
    offset_s = time.time() - time.monotonic()
    for rollup in sampler.rollups():
        now = time.time_ns()
        yield LogRecord(
            timestamp=now,
            observed_timestamp=now,
            severity_number=SeverityNumber.INFO,
            severity_text="INFO",
            body=f"{rollup.kept} of {rollup.seen} kept: {rollup.pattern.template}",
            attributes=rollup_attributes(rollup, lambda at: 1_000_000 * int((at + offset_s) * 1000)),
            event_name=ROLLUP,
        )


def count_records(sampler: LogSampler, provider: MeterProvider) -> None:
    """Report the records by severity and decision as a metric, read when metrics are collected."""

    def observe(_: CallbackOptions) -> Iterable[Observation]:
        for (severity, decision), count in sampler.counts().items():
            attributes: Mapping[str, str] = {"weir.severity": severity, "weir.sample.decision": decision}
            yield Observation(count, attributes)

    provider.get_meter(SCOPE).create_observable_counter(
        RECORDS_METRIC,
        callbacks=[observe],
        unit="{record}",
        description="Log records by severity and sampling decision.",
    )
