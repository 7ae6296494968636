"""Sampling inside the real SDK: the processor alone, roll-ups as events, counters as metrics."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor, ReadWriteLogRecord
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otelweir import errors
from otelweir.pipeline.sample.logs.otel import (
    ROLLUP,
    PatternSamplingProcessor,
    Processors,
    count_records,
    send_rollups,
)
from otelweir.pipeline.sample.logs.rules import Rules
from otelweir.pipeline.sample.logs.sampler import LogSampler
from otelweir.signals import Verdict

QUIET = Rules("on", {"info": 0.0}, first=1, window_s=60.0)


class Set:
    """A provider that samples, and what it exports."""

    def __init__(self, sampler: LogSampler) -> None:
        self.exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
        self.provider = LoggerProvider(shutdown_on_exit=False)
        self.provider.add_log_record_processor(
            PatternSamplingProcessor(SimpleLogRecordProcessor(self.exporter), sampler)
        )

    def emit(self, body: Any, severity: SeverityNumber | None = SeverityNumber.INFO, **more: Any) -> None:
        self.provider.get_logger("app").emit(LogRecord(body=body, severity_number=severity, **more))

    @property
    def records(self) -> list[LogRecord]:
        return [data.log_record for data in self.exporter.get_finished_logs()]


def attributes(record: LogRecord) -> dict[str, Any]:
    return dict(record.attributes or {})


class TestTheProcessorAlone:
    def test_it_samples_what_only_has_text(self) -> None:
        at = Set(LogSampler(QUIET))
        for number in range(5):
            at.emit(f"order {number} placed")
        at.emit("something else")
        assert [record.body for record in at.records] == ["order 0 placed", "something else"]
        assert attributes(at.records[0])["log.record.template"] == "order <*> placed"

    def test_it_keeps_errors_and_events(self) -> None:
        at = Set(LogSampler(QUIET))
        for number in range(5):
            at.emit(f"failed {number}", SeverityNumber.ERROR)
            at.emit(None, event_name="feature_flag.evaluation")
        assert len(at.records) == 10

    def test_it_decides_nothing_twice(self) -> None:
        """What was decided where it was made carries its weight, and passes."""
        sampler = LogSampler(QUIET)
        at = Set(sampler)
        for _ in range(5):
            at.emit("decided", attributes={"weir.sample.weight": 5.0, "own": 1})
        assert [attributes(record) for record in at.records] == [{"weir.sample.weight": 5.0, "own": 1}] * 5
        assert sampler.rollups() == []

    def test_a_record_without_severity_is_kept(self) -> None:
        """It may be an error."""
        at = Set(LogSampler(Rules("on", {"info": 0.0, "unspecified": 1.0}, first=1, window_s=60.0)))
        for _ in range(5):
            at.emit("who knows", None)
        assert len(at.records) == 5

    def test_bodies_of_any_kind_have_a_pattern(self) -> None:
        bodies = ({"a": [1]}, [1, 2], b"bytes", 5, 1.5, True, None, "\ud800")
        at = Set(LogSampler(Rules("on", {"info": 1.0}, first=1, window_s=60.0)))
        for body in bodies:
            at.emit(body)
        assert len(at.records) == len(bodies)
        assert all("weir.pattern.id" in attributes(record) for record in at.records)

    def test_without_a_sampler_it_takes_the_variables(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WEIR_LOG_RATES", "info=0")
        monkeypatch.setenv("WEIR_LOG_FIRST", "2")
        exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
        processor = PatternSamplingProcessor(SimpleLogRecordProcessor(exporter))
        assert (processor.sampler.rules.rates["info"], processor.sampler.rules.first) == (0.0, 2)

    def test_without_a_sampler_it_sends_its_own_rollups(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The part alone keeps the promise too: exact counts arrive where the records arrive."""
        monkeypatch.setenv("WEIR_LOG_FIRST", "2")
        monkeypatch.setenv("WEIR_LOG_RATES", "info=0.1")
        exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
        provider = LoggerProvider(shutdown_on_exit=False)
        provider.add_log_record_processor(PatternSamplingProcessor(SimpleLogRecordProcessor(exporter)))
        for number in range(30):
            provider.get_logger("app").emit(LogRecord(body=f"order {number}", severity_number=SeverityNumber.INFO))
        provider.shutdown()
        *kept, rollup = [data.log_record for data in exporter.get_finished_logs()]
        values = attributes(rollup)
        assert (rollup.event_name, values["weir.seen"], values["weir.kept"]) == (ROLLUP, 30, len(kept))

    def test_a_bug_of_ours_keeps_the_record(self, caplog: pytest.LogCaptureFixture) -> None:
        class Broken(LogSampler):
            def text(self, *_: Any) -> Verdict:
                raise RuntimeError("a bug")

        at = Set(Broken(QUIET))
        at.emit("hello")
        assert [record.body for record in at.records] == ["hello"]
        assert errors.SAMPLE_FAILED.code in caplog.text

    def test_flush_and_shutdown_reach_the_next(self) -> None:
        calls: list[str] = []

        class Next(LogRecordProcessor):
            def on_emit(self, log_record: ReadWriteLogRecord) -> None:
                calls.append("emit")

            def shutdown(self) -> None:
                calls.append("shutdown")

            def force_flush(self, timeout_millis: int = 30000) -> bool:
                calls.append("flush")
                return False

        processor = PatternSamplingProcessor(Processors([Next(), Next()]), LogSampler(QUIET))
        assert processor.force_flush() is False
        assert processor.enabled()
        processor.shutdown()
        assert calls == ["flush", "flush", "shutdown", "shutdown"]


class TestRollups:
    def test_each_pattern_and_severity_is_one_event_with_exact_counts(self) -> None:
        sampler = LogSampler(QUIET)
        at = Set(sampler)
        for number in range(7):
            at.emit(f"order {number} placed")
        at.emit("order 7 placed", SeverityNumber.WARN)
        at.exporter.clear()
        send_rollups(sampler, at.provider)
        found = [(record.event_name, attributes(record)) for record in at.records]
        assert [name for name, _ in found] == [ROLLUP] * 2
        first, second = (values for _, values in found)
        assert (first["weir.severity"], first["weir.seen"], first["weir.kept"]) == ("info", 7, 1)
        assert (second["weir.severity"], second["weir.seen"]) == ("warn", 1)
        assert first["weir.event"] == ROLLUP  # some backends drop event names
        assert first["weir.pattern.id"] == second["weir.pattern.id"]
        assert first["log.record.template"] == "order <*> placed"

    def test_a_rollup_stands_for_no_record(self) -> None:
        """Sums of weights over all that arrives must stay true."""
        sampler = LogSampler(Rules("on", {"info": 1.0}, first=1, window_s=60.0))
        at = Set(sampler)
        for number in range(20):
            at.emit(f"order {number} placed")
        send_rollups(sampler, at.provider)
        assert sum(attributes(record)["weir.sample.weight"] for record in at.records) == 20

    def test_a_rollup_is_info_and_its_times_enclose_the_records(self) -> None:
        sampler = LogSampler(Rules("on", {"info": 1.0}, first=1, window_s=60.0))
        at = Set(sampler)
        for _ in range(3):
            at.emit("hello")
        send_rollups(sampler, at.provider)
        *records, rollup = at.records
        assert (rollup.severity_number, rollup.severity_text) == (SeverityNumber.INFO, "INFO")
        values = attributes(rollup)
        stamps = [record.observed_timestamp for record in records]
        assert values["weir.first_time"] <= min(stamps) + 1_000_000
        assert values["weir.last_time"] >= max(stamps)

    def test_without_records_there_are_no_rollups(self) -> None:
        at = Set(LogSampler(QUIET))
        send_rollups(LogSampler(QUIET), at.provider)
        assert at.records == []


def test_records_are_counted_by_severity_and_decision() -> None:
    sampler = LogSampler(QUIET)
    reader = InMemoryMetricReader()
    count_records(sampler, MeterProvider([reader], shutdown_on_exit=False))
    for _ in range(4):
        sampler.text("app", 9, "hello")
        sampler.text("app", 17, "failed")
    data = reader.get_metrics_data()
    assert data is not None
    (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
    points = {
        (point.attributes["weir.severity"], point.attributes["weir.sample.decision"]): point.value  # type: ignore[union-attr,index]
        for point in metric.data.data_points
    }
    assert (metric.name, metric.unit) == ("weir.log.records", "{record}")
    assert points == {("info", "keep"): 1, ("info", "drop"): 3, ("error", "keep"): 4}
