"""The flight recorder: what was not kept goes out as context when something goes wrong, and counts stay true."""

from __future__ import annotations

import io
import logging
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.trace import StatusCode

from otelweir.pipeline.capture import logging_bridge
from otelweir.pipeline.capture.otel import LogCapture
from otelweir.pipeline.sample.logs import LogSampler, PatternSamplingProcessor, Rules
from otelweir.pipeline.sample.logs.flight import BURST_S, MAX_AGE_NS, OF_TRACE, FlightRecorder
from otelweir.pipeline.sample.spans import TailSamplingProcessor, TraceRules, WeirSampler
from otelweir.pipeline.sample.spans.otel import FlightSpanProcessor
from otelweir.pipeline.sample.spans.settings import TraceSamplingSettings
from otelweir.testing import Clock


class App:
    """A service whose info records are not kept, beyond the first of each pattern."""

    def __init__(self, recorder: FlightRecorder, *, handler: bool = False, head: float = 1.0) -> None:
        self.recorder = recorder
        self.exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
        sampler = LogSampler(Rules("on", {"info": 0.0}, first=1, window_s=1e9))
        self.logs = LoggerProvider(shutdown_on_exit=False)
        self.logs.add_log_record_processor(
            PatternSamplingProcessor(SimpleLogRecordProcessor(self.exporter), sampler, recorder)
        )
        self.capture = LogCapture(self.logs, sampler, recorder=recorder, of_trace=OF_TRACE)
        # Not by getLogger: nobody else's handlers are to be on it, so that calls end before there is a record.
        self.log = logging.Logger("test.flight", logging.DEBUG)
        self.log.handlers = [logging.StreamHandler(io.StringIO()) if handler else logging.NullHandler()]
        self.traces = TracerProvider(sampler=WeirSampler(TraceRules(rate=head)), shutdown_on_exit=False)
        self.tracer = self.traces.get_tracer("test")

    def step(self, number: int, extra: dict[str, Any] | None = None) -> None:
        self.log.info("step %d of %s", number, "plan", extra=extra)

    def records(self) -> list[ReadableLogRecord]:
        return list(self.exporter.get_finished_logs())

    def context(self, reason: str = "flight_recorder") -> list[object]:
        """The bodies of what went out with weight 0."""
        return [
            record.log_record.body
            for record in self.records()
            if (record.log_record.attributes or {})["weir.sample.reason"] == reason
            and (record.log_record.attributes or {})["weir.sample.weight"] == 0
        ]


@pytest.fixture(params=[False, True], ids=["ends early", "with a handler"])
def app(request: pytest.FixtureRequest) -> Iterator[App]:
    app = App(FlightRecorder(records=5), handler=request.param)
    logging_bridge.install(app.capture)
    yield app
    logging_bridge.uninstall()


class TestAnErrorInATrace:
    def test_brings_what_was_logged_before_it(self, app: App) -> None:
        with app.tracer.start_as_current_span("root") as root:
            for number in range(10):
                app.step(number, {"shop": "a"})
            assert app.context() == []
            app.log.error("it failed")
        assert app.context() == [f"step {number} of plan" for number in range(5, 10)]
        records = [record.log_record for record in app.records()]
        assert [record.body for record in records][-1] == "it failed"
        last = records[-2]
        assert last.trace_id == root.get_span_context().trace_id and last.span_id == root.get_span_context().span_id
        assert last.severity_number is SeverityNumber.INFO and last.severity_text == "INFO"
        attributes = dict(last.attributes or {})
        assert attributes["shop"] == "a" and attributes["code.function.name"] == "step"
        assert attributes["code.line.number"] == App.step.__code__.co_firstlineno + 1
        times = [record.timestamp for record in records]
        assert times == sorted(times)  # type: ignore[type-var]

    def test_leaves_weights_and_counts_as_they_were(self, app: App) -> None:
        sampler = app.capture.sampler
        assert isinstance(sampler, LogSampler)
        with app.tracer.start_as_current_span("root"):
            for number in range(10):
                app.step(number)
            app.log.error("it failed")
        weights = sum((record.log_record.attributes or {})["weir.sample.weight"] for record in app.records())  # type: ignore[misc]
        assert weights == 2.0  # the first step, and the error
        assert {rollup.severity: (rollup.seen, rollup.kept) for rollup in sampler.rollups()} == {
            "info": (10, 1),
            "error": (1, 1),
        }

    def test_brings_nothing_of_other_traces(self, app: App) -> None:
        for _ in range(2):
            with app.tracer.start_as_current_span("other"):
                app.step(1)
                app.step(2)
        with app.tracer.start_as_current_span("root"):
            app.step(3)
            app.log.error("it failed")
            app.log.error("and again")
        assert app.context() == ["step 3 of plan"]

    def test_outside_of_traces_it_is_the_threads(self, app: App) -> None:
        def elsewhere() -> None:
            app.step(1)
            app.step(2)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        app.step(3)
        app.log.error("it failed")
        assert app.context() == ["step 3 of plan"]

    def test_does_not_run_the_code_of_what_is_never_read(self, app: App) -> None:
        class Costly:
            def __str__(self) -> str:
                raise AssertionError

        app.log.info("with %s", 1)
        app.log.info("with %s", Costly()) if isinstance(app.log.handlers[0], logging.NullHandler) else None
        app.log.error("it failed")
        assert app.context() in ([], ["with <Costly>"])


class TestTraces:
    def test_a_span_that_failed_brings_them(self, app: App) -> None:
        app.traces.add_span_processor(FlightSpanProcessor(app.recorder))
        for failed in (False, True):
            with app.tracer.start_as_current_span("root") as root:
                app.step(1)
                app.step(2)
                if failed:
                    root.set_status(StatusCode.ERROR)
        assert app.context() == ["step 1 of plan", "step 2 of plan"]
        assert repr(app.recorder) == "<FlightRecorder 0 rings, 2 sent>"

    @pytest.mark.parametrize(("rate", "whole", "expected"), [(1.0, False, 0), (1.0, True, 1), (0.0, True, 0)])
    def test_the_tail_says_which_are_kept(self, app: App, rate: float, whole: bool, expected: int) -> None:
        app.recorder.whole_traces, app.recorder.held_by_tail = whole, True
        settings = TraceSamplingSettings(trace_tail_rate=rate)
        app.traces.add_span_processor(TailSamplingProcessor(SpanProcessor(), settings, decided=app.recorder.decided))
        app.step(0)
        with app.tracer.start_as_current_span("root"):
            app.step(1)
            assert app.context("trace") == []
        assert app.context("trace") == ["step 1 of plan"] * expected
        with app.tracer.start_as_current_span("failed") as root:
            app.step(2)
            root.set_status(StatusCode.ERROR)
        assert app.context() == ["step 2 of plan"]

    @pytest.mark.parametrize("whole", [False, True])
    def test_that_are_kept_before_their_end_bring_what_came_since(self, app: App, whole: bool) -> None:
        """An error is a cause at once; the logs of such a trace belong together all the same."""
        app.recorder.whole_traces, app.recorder.held_by_tail = whole, True
        settings = TraceSamplingSettings(trace_tail_rate=0.0)
        app.traces.add_span_processor(TailSamplingProcessor(SpanProcessor(), settings, decided=app.recorder.decided))
        app.step(0)
        with app.tracer.start_as_current_span("root"):
            app.step(1)
            with app.tracer.start_as_current_span("child") as child:
                child.set_status(StatusCode.ERROR)
            assert app.context() == ["step 1 of plan"]
            app.step(2)
        assert app.context() == ["step 1 of plan", "step 2 of plan"]
        assert not app.recorder.rings.keys() - {key for key in app.recorder.rings if key < 0}

    @pytest.mark.parametrize("head", [1.0, 0.0])
    def test_without_a_tail_whole_traces_go_out_at_once(self, head: float) -> None:
        app = App(FlightRecorder(whole_traces=True), head=head)
        logging_bridge.install(app.capture)
        try:
            app.step(0)
            with app.tracer.start_as_current_span("root"):
                for number in range(1, 40):
                    app.step(number)
        finally:
            logging_bridge.uninstall()
        assert len(app.context("trace")) == (39 if head else 0)


class TestRecordsOfOtherOrigin:
    def test_wait_and_go_out_as_well(self) -> None:
        app = App(FlightRecorder())
        logger = app.logs.get_logger("sdk")
        with app.tracer.start_as_current_span("root"):
            for number in range(3):
                logger.emit(LogRecord(body=f"item {number}", severity_number=SeverityNumber.INFO, attributes={"a": 1}))
            logger.emit(LogRecord(body="bad", severity_number=SeverityNumber.ERROR))
        assert app.context() == ["item 1", "item 2"]
        assert [record.log_record.body for record in app.records()] == ["item 0", "item 1", "item 2", "bad"]


class TestBounds:
    def hold(self, recorder: FlightRecorder, key: int, count: int, at: int | None = None) -> list[int]:
        out: list[int] = []
        for number in range(count):
            recorder.hold(key, (lambda entry, _: out.append(entry[2]), at or time.time_ns(), number))
        return out

    def test_a_ring_is_as_long_as_asked(self) -> None:
        recorder = FlightRecorder(records=3)
        out = self.hold(recorder, 1, 10)
        recorder.release(1)
        assert out == [7, 8, 9]

    def test_the_first_ring_goes_when_there_are_too_many(self) -> None:
        recorder = FlightRecorder(rings=2)
        outs = [self.hold(recorder, key, 1) for key in range(3)]
        for key in range(3):
            recorder.release(key)
        assert outs == [[], [0], [0]]

    def test_many_errors_do_not_become_a_flood(self) -> None:
        clock = Clock()
        recorder = FlightRecorder(records=10, per_second=4, clock=clock)
        outs = []
        for key in range(100):
            outs.append(self.hold(recorder, key, 10))
            recorder.release(key)
        assert sum(map(len, outs)) == 4 * BURST_S and recorder.skipped == 980
        clock.advance(1)
        late = self.hold(recorder, 1000, 10)
        recorder.release(1000)
        assert late == [6, 7, 8, 9]

    def test_what_waited_long_is_no_context(self) -> None:
        recorder = FlightRecorder()
        out = self.hold(recorder, 1, 3, at=1_000_000_000_000_000_000 - MAX_AGE_NS)
        recorder.release(1)
        assert out == []

    def test_what_fails_to_be_sent_does_not_reach_the_application(self, caplog: pytest.LogCaptureFixture) -> None:
        recorder = FlightRecorder()
        recorder.hold(1, (lambda *_: 1 / 0, time.time_ns()))
        recorder.release(1)
        assert "WEIR-CAPTURE-001" in caplog.text

    def test_threads_may_meet(self) -> None:
        recorder = FlightRecorder(records=8, rings=4, per_second=1e9)
        sent: list[int] = []

        def work() -> None:
            for number in range(3000):
                self_key = number % 7
                recorder.hold(self_key, (lambda entry, _: sent.append(entry[2]), 2**62, number))
                if number % 5 == 0:
                    recorder.release(self_key)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(sent) == recorder.sent > 0
        assert len(recorder.rings) <= 4 + 4

    def test_a_forked_child_begins_with_nothing(self) -> None:
        recorder = FlightRecorder()
        out = self.hold(recorder, 1, 3)
        child = os.fork()
        if child == 0:
            recorder.after_fork()
            recorder.release(1)
            os._exit(len(out))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        recorder.release(1)
        assert out == [0, 1, 2]
