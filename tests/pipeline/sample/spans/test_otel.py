"""The tail in the real SDK: spans that go on, their weights and tracestate, threads, tasks, forks."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry._logs import LogRecord
from opentelemetry.context import Context
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags

from otelweir.pipeline.sample.spans import TailSamplingProcessor, TraceRules, WeirSampler
from otelweir.pipeline.sample.spans.otel import EvaluationProcessor, count_refused, count_traces
from otelweir.pipeline.sample.spans.settings import TraceSamplingSettings
from otelweir.pipeline.spool.otlp import encode_span


class Ids(IdGenerator):
    """Trace ids of a fixed course, so that a run keeps the same traces as the last."""

    def __init__(self, seed: int = 1) -> None:
        self._chance = random.Random(seed)

    def generate_trace_id(self) -> int:
        return self._chance.getrandbits(128) | 1

    def generate_span_id(self) -> int:
        return self._chance.getrandbits(64) | 1

    def is_trace_id_random(self) -> bool:
        return True


class Setup:
    """A provider whose spans go through a tail into memory."""

    def __init__(self, head: TraceRules | None = None, **settings: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.tail = TailSamplingProcessor(
            SimpleSpanProcessor(self.exporter), TraceSamplingSettings(trace_tail=True, **settings)
        )
        self.provider = TracerProvider(
            sampler=WeirSampler(head),
            id_generator=Ids(),
            shutdown_on_exit=False,
            span_limits=SpanLimits(max_span_attributes=5),
        )
        self.provider.add_span_processor(self.tail)
        self.tracer = self.provider.get_tracer("test")

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


def said(span: ReadableSpan, name: str) -> object:
    return (span.attributes or {}).get(name)


class TestAKeptTrace:
    def test_comes_whole_with_what_was_decided(self) -> None:
        one = Setup(trace_tail_rate=0.0)
        with one.tracer.start_as_current_span("root", kind=SpanKind.SERVER, attributes={"a": 1}):
            with one.tracer.start_as_current_span("child") as child:
                child.add_event("happened", {"b": 2})
            with one.tracer.start_as_current_span("failed") as failed:
                failed.set_status(StatusCode.ERROR, "no")
            assert set(one.spans()) == {"child", "failed"}
        with one.tracer.start_as_current_span("fine"):
            pass
        spans = one.spans()
        assert set(spans) == {"root", "child", "failed"}
        root, child_ = spans["root"], spans["child"]
        assert dict(root.attributes or {}) == {"a": 1, "weir.sample.weight": 1.0, "weir.sample.reason": "error"}
        assert root.kind is SpanKind.SERVER and root.end_time and child_.events[0].name == "happened"
        assert child_.parent is not None and root.context is not None
        assert child_.parent.span_id == root.context.span_id
        assert root.context.trace_state["ot"] == "th:0"
        assert spans["failed"].status.description == "no"

    def test_by_rate_says_so_in_its_tracestate(self) -> None:
        one = Setup(TraceRules(rate=0.5), trace_tail_rate=0.25)
        for _ in range(200):
            with one.tracer.start_as_current_span("root"):
                pass
        spans = one.exporter.get_finished_spans()
        assert 25 < len(spans) < 75
        contexts = [span.context for span in spans]
        assert {context.trace_state["ot"] for context in contexts if context is not None} == {"th:c"}
        assert {said(span, "weir.sample.weight") for span in spans} == {4.0}
        assert sum(context.trace_flags.random_trace_id for context in contexts if context is not None) in (
            0,
            len(spans),
        )

    def test_still_says_what_was_cut_from_it(self) -> None:
        one = Setup(trace_tail_rate=1.0)
        with one.tracer.start_as_current_span("root", attributes={f"k{number}": number for number in range(8)}):
            pass
        (span,) = one.exporter.get_finished_spans()
        assert span.dropped_attributes == 3
        assert encode_span(span)

    @pytest.mark.parametrize(
        ("settings", "attributes", "reason"),
        [
            ({"trace_tail_cost": 0.1}, {"weir.cost.amount": 0.2}, "cost"),
            (
                {"trace_tail_cost": 0.1, "trace_tail_cost_attribute": "llm.cost"},
                {"llm.cost": 1, "weir.cost.amount": 9},
                "cost",
            ),
            ({"trace_tail_score": 0.5}, {"gen_ai.evaluation.score.value": 0.2}, "score"),
            ({"trace_tail_cost": 0.1}, {"weir.cost.amount": "much"}, None),
            ({"trace_tail_slow": 1e-9}, {}, "slow"),
        ],
    )
    def test_for_a_cause_of_its_attributes(
        self, settings: dict[str, Any], attributes: dict[str, Any], reason: str | None
    ) -> None:
        one = Setup(trace_tail_rate=0.0, **settings)
        with one.tracer.start_as_current_span("root"):
            with one.tracer.start_as_current_span("child", attributes=attributes):
                pass
        assert {said(span, "weir.sample.reason") for span in one.spans().values()} == ({reason} if reason else set())

    def test_for_a_score_in_an_event(self) -> None:
        one = Setup(trace_tail_rate=0.0, trace_tail_score=0.5)
        with one.tracer.start_as_current_span("root") as root:
            root.add_event("gen_ai.evaluation.result", {"gen_ai.evaluation.score.value": 0.1})
        assert set(one.spans()) == {"root"}

    def test_for_a_score_in_a_log_record(self) -> None:
        one = Setup(trace_tail_rate=0.0, trace_tail_score=0.5)
        logs = LoggerProvider(shutdown_on_exit=False)
        logs.add_log_record_processor(EvaluationProcessor(one.tail, "gen_ai.evaluation.score.value"))
        for score in (0.9, 0.1):
            with one.tracer.start_as_current_span(f"score {score}"):
                logs.get_logger("t").emit(
                    LogRecord(
                        event_name="gen_ai.evaluation.result", attributes={"gen_ai.evaluation.score.value": score}
                    )
                )
        assert set(one.spans()) == {"score 0.1"}


class TestALocalRoot:
    def test_may_have_a_parent_elsewhere(self) -> None:
        one = Setup(trace_tail_rate=0.0)
        parent = SpanContext((1 << 100) | 5, 7, True, TraceFlags(TraceFlags.SAMPLED))
        context = trace.set_span_in_context(NonRecordingSpan(parent), Context())
        with one.tracer.start_as_current_span("root", context=context) as root:
            root.set_status(StatusCode.ERROR)
        assert set(one.spans()) == {"root"}

    def test_that_is_not_sampled_is_nobodys_business(self) -> None:
        one = Setup(TraceRules(rate=0.0), trace_tail_rate=1.0)
        with one.tracer.start_as_current_span("root"):
            pass
        assert one.spans() == {} and one.tail.counts() == {}


class TestTheEnd:
    @pytest.mark.parametrize("how", ["force_flush", "shutdown"])
    def test_decides_what_is_held(self, how: str) -> None:
        one = Setup(trace_tail_rate=1.0)
        root = one.tracer.start_span("root")
        one.tracer.start_span("child", context=trace.set_span_in_context(root)).end()
        assert one.spans() == {}
        getattr(one.provider, how)()
        assert set(one.spans()) == {"child"}

    def test_what_comes_after_a_flush_follows(self) -> None:
        one = Setup(trace_tail_rate=1.0)
        with one.tracer.start_as_current_span("root"):
            with one.tracer.start_as_current_span("child"):
                pass
            one.provider.force_flush()
        assert set(one.spans()) == {"root", "child"}


def test_what_is_held_grows_old_where_nothing_happens_any_more() -> None:
    one = Setup(trace_tail_rate=1.0, trace_tail_max_age=0.2)
    root = one.tracer.start_span("root")
    one.tracer.start_span("child", context=trace.set_span_in_context(root)).end()
    deadline = time.monotonic() + 30
    while not one.spans() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert set(one.spans()) == {"child"}


def test_tasks_and_threads_keep_their_traces_apart() -> None:
    one = Setup(trace_tail_rate=0.0)

    async def request(number: int) -> None:
        with one.tracer.start_as_current_span(f"root {number}"):
            await asyncio.sleep(0)
            with one.tracer.start_as_current_span(f"child {number}") as child:
                await asyncio.sleep(0)
                if number % 10 == 0:
                    child.set_status(StatusCode.ERROR)

    async def requests(first: int) -> None:
        await asyncio.gather(*(request(first + number) for number in range(50)))

    threads = [threading.Thread(target=lambda first=first: asyncio.run(requests(first))) for first in (0, 100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    failed = [first + number for first in (0, 100, 200) for number in range(0, 50, 10)]
    assert set(one.spans()) == {f"{what} {number}" for what in ("root", "child") for number in failed}
    assert one.tail.counts() == {"error": 15, "dropped": 135}


def test_a_forked_child_begins_with_nothing_held() -> None:
    one = Setup(trace_tail_rate=1.0)
    root = one.tracer.start_span("parent's")
    one.tracer.start_span("held", context=trace.set_span_in_context(root)).end()
    child = os.fork()
    if child == 0:
        one.provider.force_flush()
        with one.tracer.start_as_current_span("child's"):
            pass
        os._exit(0 if set(one.spans()) == {"child's"} else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    root.end()
    assert set(one.spans()) == {"parent's", "held"}


def test_a_processor_that_fails_does_not_reach_the_application(caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be judged goes on as it came."""
    one = Setup(trace_tail_rate=0.0)
    one.tail._facts = None  # type: ignore[assignment,method-assign]
    with one.tracer.start_as_current_span("root"):
        pass
    assert set(one.spans()) == {"root"}
    assert "WEIR-SAMPLE-003" in caplog.text


def test_decisions_are_counted_as_a_metric() -> None:
    one = Setup(trace_tail_rate=0.0)
    reader = InMemoryMetricReader()
    meters = MeterProvider([reader], shutdown_on_exit=False)
    count_traces(one.tail, meters)
    for failed in (True, False, False):
        with one.tracer.start_as_current_span("root") as root:
            if failed:
                root.set_status(StatusCode.ERROR)
    data = reader.get_metrics_data()
    assert data is not None
    (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
    points = {point.attributes["weir.sample.reason"]: point.value for point in metric.data.data_points}  # type: ignore[union-attr,index]
    assert (metric.name, points) == ("weir.trace.decisions", {"error": 1, "dropped": 2})


def test_what_a_limit_refuses_is_counted_as_a_metric() -> None:
    reader = InMemoryMetricReader()
    sampler = WeirSampler(TraceRules(per_second=1.0))
    count_refused(sampler, MeterProvider([reader], shutdown_on_exit=False))
    tracer = TracerProvider(sampler=sampler, shutdown_on_exit=False).get_tracer("t")
    for _ in range(25):
        tracer.start_span("a").end()
    data = reader.get_metrics_data()
    assert data is not None
    (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
    assert metric.name == "weir.trace.refused"
    assert [point.value for point in metric.data.data_points] == [15]  # type: ignore[union-attr]


def test_the_next_processor_is_told_of_beginnings() -> None:
    class Began(SpanProcessor):
        def __init__(self) -> None:
            self.names: list[str] = []

        def on_start(self, span: Any, parent_context: Context | None = None) -> None:
            self.names.append(span.name)

    began = Began()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(TailSamplingProcessor(began))
    provider.get_tracer("t").start_span("a")
    assert began.names == ["a"]
