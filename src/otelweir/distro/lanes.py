"""Two queues before a log exporter that does not use the spool, so that a flood costs neither an error nor a count.

The SDK's batch processor drops its oldest records when they come faster than they leave. Here errors and events, the
roll-ups among them, have a queue of their own, long enough for what a burst brings. Where the queue of the others is
full, a record is turned away before it takes a place, and the next one of its pattern stands for it: its weight is
added to that one's, so the sum of weights stays true.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from opentelemetry.sdk._logs import LogRecordProcessor, ReadableLogRecord, ReadWriteLogRecord
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter, LogRecordExportResult

from otelweir import errors
from otelweir.pipeline.sample.logs.stream import PATTERN_ID, THRESHOLD, WEIGHT
from otelweir.signals import ERROR

URGENT_RECORDS: Final = 32_768
"""Errors and events that may wait. All roll-ups of an interval fit, and a burst of errors."""

DEFAULT_QUEUE: Final = 2048
"""What the SDK takes where `OTEL_BLRP_MAX_QUEUE_SIZE` says nothing."""

_MARGIN: Final = 32
"""Places kept free for threads that looked at the same moment."""


class _Gate(LogRecordExporter):
    """Lets one queue export at a time, counts what it took, and leaves the end to the lanes."""

    def __init__(self, exporter: LogRecordExporter, lock: threading.Lock) -> None:
        self._exporter = exporter
        self._lock = lock
        self.taken = 0

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        self.taken += len(batch)
        with self._lock:
            return self._exporter.export(batch)

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


class LogLanes(LogRecordProcessor):
    """Batches log records in two queues for one exporter.

    Args:
        exporter: Gets the batches, one at a time.
        environ: Where `OTEL_BLRP_MAX_QUEUE_SIZE` stands.
    """

    def __init__(self, exporter: LogRecordExporter, environ: Mapping[str, str] = os.environ) -> None:
        self._exporter = exporter
        self._begin()
        self._usual = BatchLogRecordProcessor(self._usual_gate)
        self._urgent = BatchLogRecordProcessor(self._urgent_gate, max_queue_size=URGENT_RECORDS)
        try:
            size = int(environ.get("OTEL_BLRP_MAX_QUEUE_SIZE", "") or DEFAULT_QUEUE)
        except ValueError:
            size = DEFAULT_QUEUE
        self._places = max(1, size - min(_MARGIN, size // 8))
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def _begin(self) -> None:
        lock = threading.Lock()
        self._usual_gate, self._urgent_gate = _Gate(self._exporter, lock), _Gate(self._exporter, lock)
        self._entered = 0
        self._turned_away: dict[tuple[Any, Any], tuple[ReadWriteLogRecord, float]] = {}

    def _after_fork(self) -> None:
        """In the child, where the queues are empty, and locks may be held by threads that are gone."""
        lock = threading.Lock()
        for gate in (self._usual_gate, self._urgent_gate):
            gate._lock = lock
            gate.taken = 0
        self._entered = 0
        self._turned_away = {}

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        record = log_record.log_record
        number = record.severity_number
        if (number is not None and number.value >= ERROR) or record.event_name:
            self._urgent.on_emit(log_record)
            return
        attributes: Any = record.attributes or {}
        key = (attributes.get(PATTERN_ID), number)
        if self._entered - self._usual_gate.taken >= self._places:
            self._turn_away(key, log_record, attributes.get(WEIGHT))
            return
        if self._turned_away and (before := self._turned_away.pop(key, None)) is not None:
            attributes[WEIGHT] = attributes.get(WEIGHT, 1.0) + before[1]
            attributes.pop(THRESHOLD, None)
        self._entered += 1
        self._usual.on_emit(log_record)

    def _turn_away(self, key: tuple[Any, Any], log_record: ReadWriteLogRecord, weight: Any) -> None:
        if weight is None:
            errors.warn(
                errors.QUEUE_FULL, f"{self._places} log records wait to be exported, and none can stand for the others"
            )
            return
        _, before = self._turned_away.get(key, (None, 0.0))
        self._turned_away[key] = (log_record, before + weight)

    def _let_in(self) -> None:
        """Send one record for each pattern whose last ones were turned away."""
        waiting, self._turned_away = self._turned_away, {}
        for log_record, weight in waiting.values():
            attributes: Any = log_record.log_record.attributes
            attributes[WEIGHT] = weight
            attributes.pop(THRESHOLD, None)
            self._urgent.on_emit(log_record)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        deadline = time.monotonic() + timeout_millis / 1000
        self._let_in()
        done = [
            lane.force_flush(max(0, int((deadline - time.monotonic()) * 1000))) for lane in (self._urgent, self._usual)
        ]
        return all(done) and self._exporter.force_flush(max(0, int((deadline - time.monotonic()) * 1000)))

    def shutdown(self) -> None:
        self._let_in()
        for lane in (self._urgent, self._usual):
            lane.shutdown()  # type: ignore[no-untyped-call]
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def __repr__(self) -> str:
        return f"<LogLanes {self._entered - self._usual_gate.taken}/{self._places} waiting>"
