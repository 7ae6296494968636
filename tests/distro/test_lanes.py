"""A flood that outruns the exporter costs neither an error nor a count."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult

from otelweir import errors
from otelweir.distro.lanes import LogLanes


class Slow(LogRecordExporter):
    """An exporter that takes nothing until it may."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.got: list[LogRecord] = []
        self.ended = 0

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        self.may.wait(30)
        self.got += [data.log_record for data in batch]
        return LogRecordExportResult.SUCCESS

    def shutdown(self) -> None:
        self.ended += 1

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


@pytest.fixture
def exporter() -> Slow:
    return Slow()


@pytest.fixture
def provider(exporter: Slow) -> Iterator[LoggerProvider]:
    found = LoggerProvider(shutdown_on_exit=False)
    found.add_log_record_processor(LogLanes(exporter, {"OTEL_BLRP_MAX_QUEUE_SIZE": "2048"}))
    yield found
    exporter.may.set()
    found.shutdown()


def emit(
    provider: LoggerProvider,
    times: int,
    attributes: dict[str, Any] | None = None,
    severity: SeverityNumber = SeverityNumber.INFO,
) -> None:
    logger = provider.get_logger("app")
    for _ in range(times):
        logger.emit(LogRecord(body="x", severity_number=severity, attributes=attributes))


def of(pattern: str, weight: float, **more: str) -> dict[str, Any]:
    return {"weir.sample.weight": weight, "weir.pattern.id": pattern, **more}


def weights(exporter: Slow) -> Counter[str]:
    found: Counter[str] = Counter()
    for record in exporter.got:
        assert record.attributes is not None
        found[str(record.attributes["weir.pattern.id"])] += record.attributes["weir.sample.weight"]  # type: ignore[assignment,operator]
    return found


class TestAFlood:
    def test_costs_no_error(self, provider: LoggerProvider, exporter: Slow) -> None:
        for _ in range(10):
            emit(provider, 2000, of("a", 1.0))
            emit(provider, 100, of("b", 1.0), SeverityNumber.ERROR)
        exporter.may.set()
        provider.force_flush()
        assert weights(exporter)["b"] == 1000

    def test_leaves_the_sum_of_weights_true_for_each_pattern(self, provider: LoggerProvider, exporter: Slow) -> None:
        """What finds no place is stood for by the next of its pattern, or by one that is let in at the end."""
        for _ in range(10):
            emit(provider, 900, of("a", 5.0, **{"sampling.threshold": "cccd"}))
            emit(provider, 100, of("b", 1.0))
        exporter.may.set()
        provider.force_flush()
        emit(provider, 1, of("b", 1.0))
        provider.force_flush()
        assert weights(exporter) == {"a": 45_000.0, "b": 1001.0}
        assert len(exporter.got) < 3000

    def test_costs_no_roll_up(self, provider: LoggerProvider, exporter: Slow) -> None:
        logger = provider.get_logger("otelweir")
        for number in range(10_000):
            logger.emit(
                LogRecord(body=number, severity_number=SeverityNumber.INFO, event_name="weir.log.pattern.rollup")
            )
        exporter.may.set()
        provider.force_flush()
        assert len(exporter.got) == 10_000

    def test_is_told_where_nothing_can_stand_for_what_is_lost(
        self, provider: LoggerProvider, caplog: pytest.LogCaptureFixture
    ) -> None:
        emit(provider, 5000)
        assert caplog.text.count(errors.QUEUE_FULL.code) == 1


def test_the_exporter_ends_once_after_both_queues(exporter: Slow) -> None:
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(LogLanes(exporter))
    exporter.may.set()
    emit(provider, 10)
    emit(provider, 10, severity=SeverityNumber.ERROR)
    provider.shutdown()
    assert (len(exporter.got), exporter.ended) == (20, 1)
