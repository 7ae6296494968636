"""Spans by name, and what the context says about all that is below it."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import baggage
from opentelemetry import trace as trace_api
from opentelemetry._logs import LogRecord
from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

import otelweir
from otelweir.errors import ConfigError
from otelweir.pipeline.capture.track.calls.arguments import Arguments
from otelweir.pipeline.capture.track.limits import limits
from otelweir.pipeline.capture.track.scoped import threads
from otelweir.pipeline.spool.otlp import encode_span
from otelweir.testing import Backend

if TYPE_CHECKING:
    from tests.pipeline.capture.track.conftest import Spans


def of(span: Any) -> dict[str, Any]:
    """The attributes of a span."""
    return dict(span.attributes or {})


class TestASpan:
    def test_says_what_it_is_told(self, spans: Spans) -> None:
        with otelweir.span("work", kind="tool", tags=["a"], metadata={"n": 1}) as span:
            span.set_input({"q": 1}).set_output([2]).add_tag("b", "a").set_metadata(plan={"x": 1}, secret="s")
            span.set_attribute("own", {"any": "value"})
            assert otelweir.current_span().span_id == span.span_id
            assert otelweir.current_trace_id() == span.trace_id
        found = of(spans.one())
        assert found.pop("weir.tags") == ("a", "b")
        assert found == {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": "work",
            "gen_ai.tool.type": "function",
            "gen_ai.tool.call.arguments": '{"q": 1}',
            "gen_ai.tool.call.result": "[2]",
            "input.value": '{"q": 1}',
            "input.mime_type": "application/json",
            "output.value": "[2]",
            "output.mime_type": "application/json",
            "weir.metadata.n": 1,
            "weir.metadata.plan": '{"x": 1}',
            "weir.metadata.secret": "***",
            "own": '{"any": "value"}',
        }
        assert otelweir.current_trace_id() is None

    def test_by_hand_is_not_the_current_one(self, spans: Spans) -> None:
        span = otelweir.span("above").start()
        assert otelweir.current_trace_id() is None
        below = otelweir.span("below", parent=span).start()
        below.end()
        span.end()
        span.end()
        span.set_output("too late")
        first, second = spans()
        assert first.parent is not None
        assert first.parent.span_id == second.context.span_id

    def test_that_fails_is_marked(self, spans: Spans) -> None:
        with pytest.raises(ZeroDivisionError), otelweir.span("raises"):
            _ = 1 / 0
        otelweir.span("told").start().set_error("no luck").end()
        raised, told = spans()
        assert (raised.status.description, of(raised)["error.type"]) == (
            "ZeroDivisionError: division by zero",
            "ZeroDivisionError",
        )
        assert told.status.description == "no luck"

    async def test_in_async_code(self, spans: Spans) -> None:
        async with otelweir.trace("above") as above, otelweir.context(session="s"), otelweir.span("below"):
            await asyncio.sleep(0)
        below = spans()[0]
        assert below.parent is not None
        assert below.parent.span_id == above.otel.get_span_context().span_id
        assert of(below)["session.id"] == "s"

    def test_that_is_told_something_before_it_began_says_so(
        self, spans: Spans, caplog: pytest.LogCaptureFixture
    ) -> None:
        otelweir.span("late").set_input(1)
        assert "WEIR-TRACK-003" in caplog.text

    def test_of_no_kind_there_is_is_misuse(self) -> None:
        with pytest.raises(ConfigError, match="is none of llm"):
            otelweir.span("x", kind="robot")  # type: ignore[arg-type]

    def test_links(self, spans: Spans) -> None:
        with otelweir.span("one") as one:
            pass
        with otelweir.span("two").link(one) as two:
            two.link(one.otel.get_span_context())
        assert [link.context.span_id for link in spans("two")[0].links] == [one.otel.get_span_context().span_id] * 2

    def test_blocks_that_end_in_another_order_leave_nothing_behind(self, spans: Spans) -> None:
        """Two generators that are not tracked, each with a block across its yields."""

        def work(name: str) -> Generator[None, None, None]:
            with otelweir.span(name), otelweir.context(tags=[name]):
                yield

        here = get_current()
        first, second = work("first"), work("second")
        next(first), next(second)
        first.close()
        second.close()
        assert get_current() is here
        next(third := work("third"))
        thread = threading.Thread(target=third.close, daemon=True)
        thread.start()
        thread.join()
        assert len(spans()) == 3


class TestATrace:
    def test_begins_anew_and_points_to_where_it_was_begun(self, spans: Spans) -> None:
        with otelweir.span("request") as request, otelweir.trace("job", session="s", tags="t") as job:
            otelweir.track(len)("abc")
        below, root = spans("len")[0], spans("job")[0]
        assert root.parent is None
        assert root.context.trace_id != request.otel.get_span_context().trace_id
        assert [link.context for link in root.links] == [request.otel.get_span_context()]
        assert format(below.context.trace_id, "032x") == job.trace_id
        assert of(below)["session.id"] == of(root)["gen_ai.conversation.id"] == "s"

    def test_shows_input_and_output_of_what_was_tracked_below_it(self, spans: Spans, tracer: trace_api.Tracer) -> None:
        """Also where somebody else began it: backends list those of the root."""
        inner: Any = otelweir.track(name="inner")(lambda text: text.upper())
        outer: Any = otelweir.track(name="outer")(lambda question: inner("x") + question)
        with tracer.start_as_current_span("GET /"), tracer.start_as_current_span("handler"):
            outer("first?")
            outer("second?")
        root = of(spans("GET /")[0])
        # Without the distribution's processor, spans of others lie between what is tracked and the root.
        shown = root or of(spans("handler")[0])
        assert json.loads(shown["input.value"]) == {"question": "first?"}
        assert json.loads(shown["output.value"]) == "Xsecond?"

    def test_can_be_changed_from_below(self, spans: Spans) -> None:
        @otelweir.track
        def work() -> None:
            otelweir.update_trace(name="renamed", input={"own": 1}, user="u", tags=["t"], metadata={"m": 1})
            with otelweir.span("later"):
                pass

        with otelweir.trace("root"):
            work()
        root = of(spans("renamed")[0])
        assert (root["input.value"], root["user.id"], root["weir.tags"], root["weir.metadata.m"]) == (
            '{"own": 1}', "u", ("t",), 1
        )  # fmt: skip
        assert of(spans("later")[0])["user.id"] == "u"

    def test_keeps_what_it_was_told_by_hand(self, spans: Spans) -> None:
        @otelweir.track
        def work() -> str:
            otelweir.current_span().set_output("by hand")
            return "returned"

        assert work() == "returned"
        assert of(spans.one())["output.value"] == '"by hand"'

    def test_that_is_not_sampled_captures_nothing(self, spans: Spans) -> None:
        class Untouchable:
            def __iter__(self) -> Any:
                raise AssertionError

        above = NonRecordingSpan(SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(0)))
        token = attach(trace_api.set_span_in_context(above))
        try:
            tracked: Any = otelweir.track(capture_input=lambda _: 1 / 0)(lambda _: otelweir.current_trace_id())
            assert tracked(Untouchable()) == format(1, "032x")
            with otelweir.span("below") as below:
                below.set_input(Untouchable()).score("s", 1)
        finally:
            detach(token)
        assert spans() == []


class TestAScore:
    def test_is_an_event_of_its_span_even_after_its_end(self) -> None:
        program = """if True:
            from opentelemetry import trace, _logs
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk._logs import LoggerProvider
            from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
            import otelweir
            trace.set_tracer_provider(TracerProvider())
            provider, kept = LoggerProvider(), InMemoryLogRecordExporter()
            provider.add_log_record_processor(otelweir.TrackLogProcessor())
            provider.add_log_record_processor(SimpleLogRecordProcessor(kept))
            _logs.set_logger_provider(provider)
            with otelweir.trace("t", session="s") as t:
                t.score("relevance", 0.5, label="ok", explanation="it is")
                assert t.otel.attributes["weir.score.relevance"] == 0.5
            t.score("late", label="fail")
            first, late = [one.log_record for one in kept.get_finished_logs()]
            assert first.event_name == late.event_name == "gen_ai.evaluation.result"
            assert dict(first.attributes) == {
                "gen_ai.evaluation.name": "relevance", "gen_ai.evaluation.score.value": 0.5,
                "gen_ai.evaluation.score.label": "ok", "gen_ai.evaluation.explanation": "it is",
                "session.id": "s", "gen_ai.conversation.id": "s"}, first.attributes
            assert format(first.span_id, "016x") == format(late.span_id, "016x") == t.span_id
        """
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")


class TestTheContext:
    def test_adds_up(self, spans: Spans, tracer: trace_api.Tracer) -> None:
        with otelweir.context(session="s", user=7, tags=["a"], metadata={"x": 1}):
            with otelweir.context(user="v", tags=["b", "a"], metadata={"y": [1]}):
                otelweir.track(name="inner", tags=["own"])(len)("")
            otelweir.track(name="outer")(len)("")
        inner, outer = map(of, spans())
        assert {name: inner[name] for name in inner if not name.startswith(("input", "output"))} == {
            "session.id": "s", "gen_ai.conversation.id": "s", "user.id": "v", "weir.tags": ("a", "b", "own"),
            "weir.metadata.x": 1, "weir.metadata.y": "[1]",
        }  # fmt: skip
        assert (outer["user.id"], outer["weir.tags"]) == ("7", ("a",))

    def test_reaches_spans_of_other_libraries_and_log_records(self) -> None:
        kept, logs = InMemorySpanExporter(), InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
        traces = TracerProvider(shutdown_on_exit=False)
        traces.add_span_processor(otelweir.TrackProcessor())
        traces.add_span_processor(SimpleSpanProcessor(kept))
        records = LoggerProvider(shutdown_on_exit=False)
        records.add_log_record_processor(otelweir.TrackLogProcessor())
        records.add_log_record_processor(SimpleLogRecordProcessor(logs))
        with otelweir.context(session="s"):
            with traces.get_tracer("other").start_as_current_span("other", attributes={"user.id": "own"}):
                records.get_logger("other").emit(LogRecord(body="x", attributes={"a": 1}))
            records.get_logger("other").emit(LogRecord(body="y"))
        (span,) = kept.get_finished_spans()
        expected = {"session.id": "s", "gen_ai.conversation.id": "s"}
        assert of(span) == {"user.id": "own", **expected}
        found = [dict(one.log_record.attributes or {}) for one in logs.get_finished_logs()]
        assert found == [{"a": 1, **expected}, expected]

    async def test_reaches_tasks_and_threads(self, spans: Spans) -> None:
        work: Any = otelweir.track(name="work")(lambda number: number)

        async def task() -> None:
            await asyncio.sleep(0)
            work(1)

        threads.install()
        try:
            with otelweir.span("above") as above, otelweir.context(session="s"), ThreadPoolExecutor(2) as pool:
                await asyncio.create_task(task())
                await asyncio.to_thread(work, 2)
                await asyncio.get_running_loop().run_in_executor(None, work, 3)
                assert pool.submit(work, 4).result() == 4
                assert list(pool.map(work, [5, 6])) == [5, 6]
                thread = threading.Thread(target=work, args=(7,))
                thread.start()
                thread.join()
                assert "run" not in vars(thread)
                daemon = threading.Thread(target=work, args=(8,), daemon=True)
                daemon.start()
                daemon.join()
                later = pool.submit(work, 9)
            later.result()
        finally:
            threads.uninstall()
        assert threading.Thread.start.__module__ == "threading"
        found = {json.loads(of(span)["output.value"]): span for span in spans("work")}
        assert sorted(found) == list(range(1, 10))
        alone = found.pop(8)
        assert alone.parent is None
        assert "session.id" not in of(alone)
        assert {of(span)["session.id"] for span in found.values()} == {"s"}
        parents = {span.parent.span_id for span in found.values() if span.parent}
        assert parents == {above.otel.get_span_context().span_id}

    def test_is_carried_by_hand(self, spans: Spans) -> None:
        with otelweir.context(session="s"):
            carried = otelweir.carry(otelweir.track(len))
        assert carried("abc") == 3
        assert of(spans.one())["session.id"] == "s"

    def test_reaches_other_services_where_that_is_wanted(self, spans: Spans) -> None:
        limits.baggage = True
        try:
            with otelweir.context(session="s", user="u", tags=["a", "b"], metadata={"m": "x"}):
                sent = get_current()
            assert baggage.get_all(sent) == {
                "session.id": "s", "user.id": "u", "weir.tags": "a,b", "weir.metadata.m": "x"
            }  # fmt: skip
            arrived = Context()
            for name, value in baggage.get_all(sent).items():
                arrived = baggage.set_baggage(name, value, arrived)
            token = attach(arrived)
            otelweir.track(len)("")
            detach(token)
        finally:
            limits.baggage = False
        found = of(spans.one())
        assert (found["session.id"], found["user.id"], found["weir.tags"], found["weir.metadata.m"]) == (
            "s", "u", ("a", "b"), "x"
        )  # fmt: skip

    def test_and_spans_through_the_distribution(self, tmp_path: Any) -> None:
        with Backend() as backend:
            program = f"""if True:
                import logging, otelweir
                handle = otelweir.configure("shop", "{backend.endpoint}", track_max_bytes=300)
                @otelweir.track
                def answer(text):
                    logging.warning("said")
                    return text * 1000
                with otelweir.context(session="s"):
                    answer("hi")
                handle.shutdown()
            """
            done = subprocess.run(
                [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
            )
            assert (done.returncode, done.stderr) == (0, "WARNING:root:said\n")
            (span,) = backend.wait_for(lambda: backend.spans)
            (log,) = backend.wait_for(lambda: [log for log in backend.logs if not log.event_name])
        assert span.attributes["session.id"] == log.attributes["session.id"] == "s"
        assert span.attributes["input.value"] == '{"text": "hi"}'
        assert span.attributes["weir.truncated"] == ["output.value"]
        assert log.span_id == span.span_id


def test_what_the_users_own_function_raises_is_told_once_and_changes_nothing(
    spans: Spans, caplog: pytest.LogCaptureFixture
) -> None:
    """It is no bug of ours, and not to be reported."""

    def wrong(_: object) -> object:
        raise ZeroDivisionError

    @otelweir.track(capture_input=wrong)
    def work() -> int:
        return 1

    @otelweir.track(reduce=wrong)
    def parts() -> Iterator[int]:
        yield 1

    with caplog.at_level(logging.WARNING):
        assert [work(), work(), *parts()] == [1, 1, 1]
    assert caplog.text.count("WEIR-TRACK-002: capture_input of") == caplog.text.count("WEIR-TRACK-002: reduce of") == 1
    assert "WEIR-TRACK-001" not in caplog.text
    assert len(spans()) == 3


def test_our_own_failure_is_told_once_and_changes_nothing(
    spans: Spans, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Arguments, "of", lambda *_: 1 / 0)

    @otelweir.track
    def work() -> int:
        return 1

    with caplog.at_level(logging.WARNING):
        assert [work(), work()] == [1, 1]
    assert caplog.text.count("WEIR-TRACK-001: ZeroDivisionError") == 1
    assert len(spans()) == 2


class TestBlocksOfOneObject:
    """What is made once is often used in many places at once."""

    def test_inside_of_each_other_leave_nothing_behind(self, spans: Spans) -> None:
        with otelweir.context(session="s") as scope, otelweir.span("outer") as outer:
            with scope, outer:
                pass
            with otelweir.span("below"):
                pass
        assert not get_current()
        assert [(span.name, (span.attributes or {})["session.id"]) for span in spans()] == [
            ("below", "s"), ("outer", "s"),
        ]  # fmt: skip
        assert spans.one("below").parent is not None

    async def test_in_several_tasks_are_left_by_each(self, spans: Spans) -> None:
        scope = otelweir.context(session="s")
        shared = otelweir.span("shared")
        left: list[bool] = []

        async def task(order: list[asyncio.Event], place: int) -> None:
            with scope, shared:
                order[place].set()
                await order[-1].wait()
                with otelweir.span("below"):
                    pass
            left.append(not get_current())

        order = [asyncio.Event() for _ in range(4)]
        tasks = [asyncio.create_task(task(order, place)) for place in range(3)]
        for place in range(3):
            await order[place].wait()
        order[-1].set()
        await asyncio.gather(*tasks)
        assert left == [True] * 3
        ids = {(span.attributes or {}).get("session.id") for span in spans("below")}
        above = {span.parent.span_id for span in spans("below") if span.parent}
        assert ids == {"s"} and above == {spans.one("shared").context.span_id}
        assert spans()[-1].name == "shared"


class Hostile:
    """Whoever asks it anything gets an exception."""

    def _raise(self, *_: object) -> Any:
        raise RuntimeError

    __repr__ = __str__ = __hash__ = __eq__ = __bool__ = __len__ = __iter__ = __float__ = __getattr__ = _raise


class TestWhateverIsSaid:
    """Ids, tags and scores often come from a request; nothing that is said of a span fails what it is about."""

    @pytest.mark.parametrize(
        "said", [Hostile(), 5, [Hostile()], itertools.count()], ids=lambda said: type(said).__name__
    )
    def test_is_taken_as_it_can_be(self, spans: Spans, said: Any) -> None:
        with (
            otelweir.context(session=said, user=said, tags=said, metadata=said),
            otelweir.span(said, attributes={"a": said}) as span,
        ):
            span.add_tag(said).set_metadata(said, more=said).set_attribute("b", said).set_error(said)
            span.score(said, said, label=said, explanation=said).link(said)
            otelweir.update_trace(session=said, tags=said, metadata=said, input=said, output=said)
        found = dict(spans.one().attributes or {})
        assert {"a", "b", "session.id", "user.id", "weir.tags", "input.value", "weir.metadata.more"} <= found.keys()
        assert encode_span(spans.one())

    def test_a_score_that_is_no_number_is_told(self, spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
        with otelweir.span("s") as span:
            span.score("relevance", "good")  # type: ignore[arg-type]
        assert "WEIR-TRACK-002: the value of the score 'relevance' is no number: str" in caplog.text

    def test_a_parent_may_be_anybodys(self, spans: Spans, tracer: trace_api.Tracer) -> None:
        theirs = tracer.start_span("theirs")
        otelweir.span("ours", parent=theirs).start().end()
        parent = spans.one("ours").parent
        assert parent is not None and parent.span_id == theirs.get_span_context().span_id

    def test_arguments_in_the_code_are_checked(self) -> None:
        for wrong in ({"parent": 5}, {"attributes": [1]}):
            with pytest.raises(ConfigError):
                otelweir.span("s", **wrong)
        with pytest.raises(ConfigError):
            otelweir.track(name=5)  # type: ignore[call-overload]


class TestASpanThatNobodyEnds:
    def test_ends_when_nobody_has_it_any_more(self, spans: Spans) -> None:
        otelweir.span("dropped").start().set_input(1)
        gc.collect()
        found = spans.one("dropped").attributes or {}
        assert (found["weir.ended_by"], found["input.value"]) == ("abandoned", "1")

    def test_goes_on_where_somebody_has_it(self, spans: Spans) -> None:
        raw = otelweir.span("kept").start().otel
        with trace_api.use_span(raw, end_on_exit=False):
            otelweir.current_span().add_tag("seen")
        gc.collect()
        assert raw.is_recording() and not spans("kept")
        raw.end()
        assert (spans.one("kept").attributes or {}).get("weir.ended_by") is None
