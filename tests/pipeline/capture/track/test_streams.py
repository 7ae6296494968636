"""Streams that are tracked behave as if they were not, and leave one span, whatever is done with them."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import threading
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry import trace as trace_api
from opentelemetry.context import get_current

import otelweir

if TYPE_CHECKING:
    from tests.pipeline.capture.track.conftest import Spans

PER_TEST = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=20)


def body(manner: str, inside: Callable[[], None]) -> Generator[Any, Any, Any]:
    """A generator that takes what is sent and thrown in its own manner.

    Args:
        manner: What it does with exceptions, and how it ends.
        inside: Called in each step.
    """
    given = None
    for number in range(4):
        inside()
        try:
            if manner == "span" and number == 1:
                with otelweir.span("block"):
                    given = yield (number, given)
                    inside()
            else:
                given = yield (number, given)
        except KeyError as error:
            if manner != "catches":
                raise
            given = str(error)
        except GeneratorExit:
            if manner == "returns":
                return "closed"
            if manner == "goes on":
                yield "still here"
            raise
        finally:
            inside()
        if manner == "raises" and number == 2:
            raise LookupError("in the middle")
    return "end"


MANNERS = ("plain", "catches", "returns", "goes on", "raises", "span")


def outcome(action: Callable[[], Any]) -> Any:
    """What an action gave or raised."""
    try:
        return action()
    except BaseException as error:
        return type(error), str(error), getattr(error, "value", None)


def in_thread(work: Callable[[], Any]) -> Any:
    """Done by another thread."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(outcome(work)), daemon=True)
    thread.start()
    thread.join()
    return found[0]


ACTIONS: dict[str, Callable[[Generator[Any, Any, Any]], Any]] = {
    "next": lambda stream: outcome(lambda: next(stream)),
    "send": lambda stream: outcome(lambda: stream.send("sent")),
    "throw caught": lambda stream: outcome(lambda: stream.throw(KeyError("k"))),
    "throw": lambda stream: outcome(lambda: stream.throw(ValueError("v"))),
    "throw exit": lambda stream: outcome(lambda: stream.throw(GeneratorExit())),
    "close": lambda stream: outcome(stream.close),
    "thread": lambda stream: in_thread(lambda: next(stream)),
    "context": lambda stream: contextvars.copy_context().run(lambda: outcome(lambda: next(stream))),
}

drives = st.lists(st.tuples(st.integers(0, 1), st.sampled_from(sorted(ACTIONS))), max_size=12)


class TestAGenerator:
    @PER_TEST
    @given(manners=st.tuples(st.sampled_from(MANNERS), st.sampled_from(MANNERS)), drive=drives)
    def test_gives_what_it_gave_and_leaves_one_span(
        self, manners: tuple[str, str], drive: list[Any], spans: Spans
    ) -> None:
        """Two streams by turns, in any thread and context."""
        spans._exporter.clear()
        seen: list[tuple[int, int]] = []
        # Not tracked, a span that is open across a yield is current for whoever runs next.
        models = [body("plain" if manner == "span" else manner, lambda: None) for manner in manners]
        tracked = otelweir.track(name="stream")(body)
        with otelweir.span("above") as above:

            def look(which: int) -> Callable[[], None]:
                def inside() -> None:
                    seen.append((which, trace_api.get_current_span().get_span_context().span_id))
                    with otelweir.span(f"inside {which}"):
                        pass

                return inside

            streams = [tracked(manner, look(which)) for which, manner in enumerate(manners)]
            here = get_current()
            begun = set()
            for which, action in drive:
                before = inspect.getgeneratorstate(models[which])
                expected = ACTIONS[action](models[which])
                assert ACTIONS[action](streams[which]) == expected
                assert get_current() is here
                if before != "GEN_CREATED" or action in ("next", "thread", "context"):
                    begun.add(which)
            begun = {which for which in begun if any(one == which for one, _ in seen)}
            for which, manner in enumerate(manners):
                # Without a word Python would complain of such a generator, rightly.
                if manner == "goes on":
                    assert outcome(streams[which].close) == outcome(models[which].close)
            del streams
            gc.collect()
            assert get_current() is here
        found = spans("stream")
        assert len(found) == len(begun)
        above_id = above.otel.get_span_context().span_id
        assert {span.parent.span_id for span in found if span.parent} <= {above_id}
        ids = {span.context.span_id for span in (*found, *spans("block"))}
        assert {current for _, current in seen} <= ids
        for which in (0, 1):
            parents = {span.parent.span_id for span in spans(f"inside {which}") if span.parent}
            assert parents <= ids
        assert all(span.parent is not None and span.parent.span_id in ids for span in spans("block"))

    def test_that_is_never_read_leaves_none(self, spans: Spans) -> None:
        stream = otelweir.track(body)("plain", lambda: None)
        del stream
        assert spans() == []

    def test_says_how_it_ended(self, spans: Spans) -> None:
        tracked = otelweir.track(body)
        assert list(tracked("plain", lambda: None))
        for _ in tracked("plain", lambda: None):
            break
        with pytest.raises(LookupError):
            list(tracked("raises", lambda: None))
        whole, closed, failed = spans("body")
        assert (whole.attributes or {}).get("weir.ended_by") is None
        assert (closed.attributes or {})["weir.ended_by"] == "closed"
        assert closed.status.is_unset
        assert (failed.attributes or {})["error.type"] == "LookupError"
        assert not failed.status.is_ok
        assert [event.name for event in failed.events] == ["exception"]

    def test_that_is_read_elsewhere_belongs_to_where_it_was_made(self, spans: Spans) -> None:
        """As a web framework does: the handler makes it, and the server reads it."""
        with otelweir.context(session="s"), otelweir.span("handler") as handler:
            stream = otelweir.track(body)("plain", lambda: None)
        in_thread(lambda: list(stream))
        found = spans.one("body")
        assert found.parent is not None
        assert found.parent.span_id == handler.otel.get_span_context().span_id
        assert (found.attributes or {})["session.id"] == "s"

    def test_whose_parts_are_text_gives_text(self, spans: Spans) -> None:
        @otelweir.track
        def words() -> Iterator[str]:
            yield "a "
            yield "b"

        @otelweir.track
        def numbers() -> Iterator[object]:
            yield 1
            yield {"two": 2}

        assert list(words()) == ["a ", "b"]
        assert list(numbers()) == [1, {"two": 2}]
        assert [(span.attributes or {})["output.value"] for span in spans()] == ['"a b"', '[1, {"two": 2}]']

    def test_is_made_one_value_by_the_reducer(self, spans: Spans) -> None:
        @otelweir.track(reduce=sum)
        def numbers() -> Iterator[int]:
            yield from range(5)

        assert list(numbers()) == list(range(5))
        assert (spans.one().attributes or {})["output.value"] == "10"

    def test_that_is_long_is_cut_and_says_so(self, spans: Spans) -> None:
        @otelweir.track
        def words() -> Iterator[str]:
            for _ in range(1000):
                yield "x" * 1000

        assert sum(map(len, words())) == 1_000_000
        attributes = spans.one().attributes or {}
        assert len(str(attributes["output.value"])) <= 64 * 1024
        assert attributes["weir.truncated"] == ("output.value",)

    def test_of_a_plain_function_that_gives_one_is_a_stream(self, spans: Spans) -> None:
        tracked: Any = otelweir.track(lambda: (number for number in range(3)))
        stream = tracked()
        assert spans() == []
        assert list(stream) == [0, 1, 2]
        assert (spans.one().attributes or {})["output.value"] == "[0, 1, 2]"
        tracked()
        gc.collect()
        assert len(spans()) == 2


async def parts(manner: str, pause: Callable[[], Awaitable[Any]]) -> Any:
    """As `body`, with waits in it."""
    given = None
    for number in range(4):
        await pause()
        try:
            given = yield (number, given)
        except KeyError as error:
            if manner != "catches":
                raise
            given = str(error)
        except GeneratorExit:
            if manner == "returns":
                return
            raise
        finally:
            await pause()
        if manner == "raises" and number == 2:
            raise LookupError("in the middle")


async def outcome_of(awaitable: Awaitable[Any]) -> Any:
    """What an awaitable gave or raised."""
    try:
        return await awaitable
    except BaseException as error:
        return type(error), str(error)


async def in_task(awaitable: Awaitable[Any]) -> Any:
    """Awaited by another task."""
    return await asyncio.create_task(outcome_of(awaitable))


async def cancelled(awaitable: Awaitable[Any]) -> Any:
    """Cancelled while it waits."""
    task = asyncio.create_task(outcome_of(awaitable))
    await asyncio.sleep(0)
    task.cancel()
    return await outcome_of(task)


ASYNC_ACTIONS: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "next": lambda stream: outcome_of(anext(stream)),
    "send": lambda stream: outcome_of(stream.asend("sent")),
    "throw caught": lambda stream: outcome_of(stream.athrow(KeyError("k"))),
    "throw": lambda stream: outcome_of(stream.athrow(ValueError("v"))),
    "close": lambda stream: outcome_of(stream.aclose()),
    "task": lambda stream: in_task(anext(stream)),
    "cancel": lambda stream: cancelled(anext(stream)),
}
async_drives = st.lists(st.tuples(st.integers(0, 1), st.sampled_from(sorted(ASYNC_ACTIONS))), max_size=10)


class TestAnAsyncGenerator:
    @PER_TEST
    @given(
        manners=st.tuples(*[st.sampled_from(("plain", "catches", "returns", "raises"))] * 2),
        drive=async_drives,
        closed=st.booleans(),
    )
    def test_gives_what_it_gave_and_leaves_one_span(
        self, manners: tuple[str, str], drive: list[Any], closed: bool, spans: Spans
    ) -> None:
        spans._exporter.clear()
        seen: set[int] = set()
        begun: set[int] = set()

        async def main() -> None:
            with otelweir.span("above"):

                def pause(which: int) -> Callable[[], Awaitable[None]]:
                    async def wait() -> None:
                        begun.add(which)
                        before = trace_api.get_current_span().get_span_context().span_id
                        await asyncio.sleep(0)
                        assert trace_api.get_current_span().get_span_context().span_id == before
                        seen.add(before)

                    return wait

                async def model_pause() -> None:
                    await asyncio.sleep(0)

                models = [parts(manner, model_pause) for manner in manners]
                tracked = otelweir.track(name="stream")(parts)
                streams = [tracked(manner, pause(which)) for which, manner in enumerate(manners)]
                here = get_current()
                for which, action in drive:
                    expected = await ASYNC_ACTIONS[action](models[which])
                    assert await ASYNC_ACTIONS[action](streams[which]) == expected
                    assert get_current() is here
                if closed:
                    for stream in (*models, *streams):
                        await stream.aclose()

        asyncio.run(main())
        gc.collect()
        assert len(spans("stream")) == len(begun)
        assert seen <= {span.context.span_id for span in spans("stream")}

    async def test_that_is_abandoned_is_finished_by_the_loop(self, spans: Spans) -> None:
        """Once, and in a context of the loop's own."""
        done = []

        @otelweir.track
        async def numbers() -> AsyncIterator[int]:
            try:
                yield 1
                yield 2
            finally:
                await asyncio.sleep(0)
                done.append(trace_api.get_current_span().get_span_context().span_id)

        async for _ in numbers():
            break
        gc.collect()
        for _ in range(10):
            await asyncio.sleep(0)
        found = spans.one()
        assert done == [found.context.span_id]
        assert (found.attributes or {})["weir.ended_by"] == "closed"
        assert (found.attributes or {})["output.value"] == "[1]"

    async def test_in_a_circle_that_is_garbage_is_finished_by_the_loop(self, spans: Spans) -> None:
        """As any is: with what it awaits at its end, and without "ignored GeneratorExit"."""
        ended: list[bool] = []

        @otelweir.track
        async def parts() -> AsyncIterator[int]:
            try:
                yield 1
            finally:
                await asyncio.sleep(0)
                ended.append(True)

        circle: list[Any] = [parts()]
        assert await anext(circle[0]) == 1
        circle.append(circle)
        del circle
        gc.collect()
        for _ in range(10):
            await asyncio.sleep(0)
        assert ended == [True]
        assert (spans.one("parts").attributes or {})["weir.ended_by"] == "closed"

    def test_without_a_loop_is_finished_all_the_same(self, spans: Spans) -> None:
        @otelweir.track
        async def numbers() -> AsyncIterator[int]:
            yield 1

        stream = numbers()
        with pytest.raises(StopIteration):
            stream.__anext__().send(None)  # type: ignore[attr-defined]
        del stream
        gc.collect()
        assert (spans.one().attributes or {})["weir.ended_by"] == "closed"


class TestACoroutine:
    async def test_keeps_its_span_while_others_run(self, spans: Spans) -> None:
        @otelweir.track
        async def work(number: int) -> int:
            mine = otelweir.current_span().span_id
            for _ in range(3):
                await asyncio.sleep(0)
                assert otelweir.current_span().span_id == mine
                with otelweir.span("inside"):
                    await asyncio.sleep(0)
            return number

        with otelweir.span("above") as above:
            assert await asyncio.gather(*[work(number) for number in range(5)]) == list(range(5))
            assert otelweir.current_span().span_id == above.span_id
        found = spans("work") or spans(work.__qualname__.rpartition("<locals>.")[2])
        assert {span.parent.span_id for span in found if span.parent} == {above.otel.get_span_context().span_id}
        ids = [span.context.span_id for span in found]
        inside = [span.parent.span_id for span in spans("inside") if span.parent]
        assert sorted(inside) == sorted(ids * 3)

    async def test_that_is_cancelled_is_no_error(self, spans: Spans) -> None:
        @otelweir.track
        async def work() -> None:
            await asyncio.sleep(60)

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        found = spans.one()
        assert (found.attributes or {})["weir.ended_by"] == "cancelled"
        assert found.status.is_unset

    def test_by_hand_by_turns_leaves_the_context_alone(self, spans: Spans) -> None:
        """Closed in another thread than it was begun in, too."""

        class Pause:
            def __await__(self) -> Generator[str, Any, Any]:
                return (yield "waits")

        @otelweir.track
        async def work(end: bool) -> object:
            with otelweir.span("inside"):
                return await Pause()

        here = get_current()
        first, second = work(True), work(False)
        assert (first.send(None), second.send(None)) == ("waits", "waits")
        assert get_current() is here
        with pytest.raises(StopIteration):
            second.send("done")
        in_thread(first.close)
        assert get_current() is here
        assert len(spans()) == 4
        for inside in spans("inside"):
            assert inside.parent is not None
            assert inside.parent.span_id in {span.context.span_id for span in spans() if span.name != "inside"}

    def test_that_is_never_awaited_is_warned_of_once(self, spans: Spans) -> None:
        @otelweir.track
        async def work() -> None:
            pass

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            abandoned: Any = work()
            del abandoned
            gc.collect()
        assert [str(warning.message) for warning in caught] == [
            f"coroutine '{work.__qualname__}' was never awaited",
        ]
        assert spans() == []

    async def test_of_a_plain_function_that_gives_one_is_awaited_in_its_span(self, spans: Spans) -> None:
        async def work() -> str | None:
            await asyncio.sleep(0)
            return otelweir.current_span().span_id

        tracked: Any = otelweir.track(name="plain")(lambda end: work() if end else None)
        mine = await tracked(True)
        assert format(spans.one("plain").context.span_id, "016x") == mine

    def test_with_wrong_arguments_raises_when_it_is_called(self, spans: Spans) -> None:
        @otelweir.track
        async def work(one: int) -> None:
            pass

        with pytest.raises(TypeError, match="unexpected keyword argument 'two'"):
            work(two=2)  # type: ignore[call-arg, unused-coroutine]
