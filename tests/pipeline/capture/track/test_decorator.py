"""A tracked function is the function, and its calls are spans."""

from __future__ import annotations

import abc
import asyncio
import copy
import dataclasses
import enum
import functools
import importlib
import inspect
import json
import pickle
import random
import subprocess
import sys
import typing
import weakref
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import celery  # type: ignore[import-untyped]
import fastapi
import numpy
import pydantic
import pytest
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from opentelemetry import trace as trace_api
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

import otelweir
from otelweir.errors import ConfigError
from otelweir.pipeline.capture.track.kinds import KINDS

if TYPE_CHECKING:
    from tests.pipeline.capture.track.conftest import Spans

HERE = Path(__file__).parent


def given(span: Any) -> Any:
    """The input of a span."""
    return json.loads(span.attributes["input.value"])


def gave(span: Any) -> Any:
    """The output of a span."""
    return json.loads(span.attributes["output.value"])


class TestTheFunction:
    def test_answers_inspect_as_before(self) -> None:
        def plain(one: int, *two: int, three: str = "3", **four: object) -> str:
            """Says it."""
            return ""

        async def coroutine() -> None: ...
        def generator() -> Iterator[int]:
            yield 1

        async def stream() -> AsyncIterator[int]:
            yield 1

        for function in (plain, coroutine, generator, stream):
            tracked: Any = otelweir.track(function)
            assert inspect.signature(tracked) == inspect.signature(function)
            assert inspect.getsource(tracked) == inspect.getsource(function)
            assert (tracked.__name__, tracked.__doc__) == (function.__name__, function.__doc__)
            assert inspect.isfunction(tracked)
            for ask in (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction):
                assert ask(tracked) == ask(function)

    def test_gives_coroutines_and_generators_of_the_usual_kinds(self) -> None:
        @otelweir.track
        async def coroutine() -> None: ...
        @otelweir.track
        def generator() -> Iterator[int]:
            yield 1

        made = coroutine()
        assert inspect.iscoroutine(made)
        assert made.__qualname__ == coroutine.__qualname__
        made.close()
        assert inspect.isgenerator(generator())

    def test_pickles_by_name_and_in_another_process(self, tmp_path: Path) -> None:
        """As multiprocessing with `spawn` wants it."""
        program = tmp_path / "program.py"
        program.write_text(
            "import multiprocessing, functions\n"
            "if __name__ == '__main__':\n"
            "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
            "        print(pool.map(functions.double, [1, 2]), pool.map(functions.Shop('north').sell, ['tea']),\n"
            "              pool.map(functions.Shop.price, ['tea']))\n"
        )
        path = f"{HERE}:{':'.join(sys.path)}"
        done = subprocess.run(
            [sys.executable, program], env={"PYTHONPATH": path}, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.stdout, done.stderr) == ("[2, 4] ['tea at north'] [3]\n", "")

    def test_is_copied_as_functions_are(self) -> None:
        tracked = otelweir.track(len)
        assert copy.copy(tracked) is tracked
        assert copy.deepcopy(tracked) is tracked

    def test_raises_what_it_raised(self, spans: Spans) -> None:
        error = KeyError("k")

        @otelweir.track
        def fails() -> None:
            raise error

        with pytest.raises(KeyError) as caught:
            fails()
        assert caught.value is error
        span = spans.one()
        assert span.status.description == "KeyError: 'k'"
        assert (span.attributes or {})["error.type"] == "KeyError"
        assert (span.events[0].attributes or {})["exception.type"] == "KeyError"

    def test_whose_exception_cannot_be_shown_raises_it_all_the_same(self, spans: Spans) -> None:
        class Mute(Exception):
            def __str__(self) -> str:
                raise RuntimeError("no words")

        @otelweir.track
        def fails() -> None:
            raise Mute

        with pytest.raises(Mute):
            fails()
        assert spans.one().status.description == "Mute: <Mute>"


class TestInput:
    def test_is_by_the_names_of_the_parameters(self, spans: Spans) -> None:
        @otelweir.track(name="call", ignore=["skipped"])
        def call(one: int, two: int = 2, *rest: int, skipped: int = 0, **more: object) -> dict[str, int]:
            return {"one": one}

        call(1)
        call(1, 2, 3, 4, skipped=5, six=6)
        assert [given(span) for span in spans()] == [{"one": 1}, {"one": 1, "two": 2, "rest": [3, 4], "six": 6}]
        assert {(span.attributes or {})["input.mime_type"] for span in spans()} == {"application/json"}
        assert gave(spans()[0]) == {"one": 1}

    def test_hides_what_is_called_a_secret(self, spans: Spans) -> None:
        @otelweir.track
        def log_in(user: str, password: str, **more: object) -> None: ...

        log_in("me", "pw", api_key="k", max_tokens=5, nested={"clientSecret": "s"})
        log_in("me", "pw")
        assert given(spans()[0]) == {
            "user": "me", "password": "***", "api_key": "***", "max_tokens": 5, "nested": {"clientSecret": "***"}
        }  # fmt: skip
        assert "pw" not in str([span.attributes for span in spans()])

    def test_and_output_can_be_left_out_or_made_otherwise(self, spans: Spans) -> None:
        otelweir.track(name="none", capture_input=False, capture_output=False)(len)("abc")
        otelweir.track(name="other", capture_input=list, capture_output=lambda n: {"n": n})(len)("a")
        none, other = spans()
        assert not any(name.startswith(("input", "output")) for name in none.attributes or {})
        assert given(other) == ["obj"]
        assert gave(other) == {"n": 1}

    def test_whose_capture_fails_is_missing_and_the_call_is_not(self, spans: Spans) -> None:
        def fails(_: object) -> object:
            raise RuntimeError("mine")

        assert otelweir.track(capture_input=fails, capture_output=fails)(len)("abc") == 3
        assert spans.one().name == "len"


class TestMethods:
    def test_of_every_sort(self, spans: Spans) -> None:
        class Thing:
            @otelweir.track
            def method(self, x: int) -> int:
                return x

            @otelweir.track
            @classmethod
            def outside(cls, x: int) -> int:
                return x

            @classmethod
            @otelweir.track
            def inside(cls, x: int) -> int:
                return x

            @otelweir.track
            @staticmethod
            def static(x: int) -> int:
                return x

            @staticmethod
            @otelweir.track
            def static_inside(x: int) -> int:
                return x

            @otelweir.track
            def __call__(self, x: int) -> int:
                return x

            part = otelweir.track(functools.partialmethod(method, 5))

            @otelweir.track
            async def coroutine(self, x: int) -> int:
                return x

            @otelweir.track  # type: ignore[prop-decorator]
            @property
            def value(self) -> int:
                return 7

            @otelweir.track  # type: ignore[prop-decorator]
            @functools.cached_property
            def cached(self) -> int:
                return 8

        thing = Thing()
        calls: list[Any] = [
            thing.method, functools.partial(Thing.method, thing), Thing.outside, thing.inside, Thing.static,
            thing.static, thing.static_inside, thing, lambda x: asyncio.run(thing.coroutine(x)),
            lambda _: thing.part(),
        ]  # fmt: skip
        for call in calls:
            assert call(5) == 5
        assert [given(span) for span in spans()] == [{"x": 5}] * len(calls)
        assert [span.name for span in spans()][:2] == ["Thing.method"] * 2
        assert (thing.value, thing.cached, thing.cached) == (7, 8, 8)
        assert [span.name for span in spans()][len(calls) :] == ["Thing.value", "Thing.cached"]

    def test_of_an_object_and_objects_that_can_be_called(self, spans: Spans) -> None:
        class Adder:
            def __init__(self, more: int) -> None:
                self.more = more

            def __call__(self, x: int) -> int:
                return x + self.more

            def add(self, x: int) -> int:
                return self(x)

        adder = Adder(1)
        assert otelweir.track(adder)(2) == 3
        assert otelweir.track(adder.add)(2) == 3
        assert otelweir.track(functools.partial(adder.add, 4))() == 5
        assert [given(span) for span in spans()] == [{"x": 2}, {"x": 2}, {}]

    def test_of_a_whole_class(self, spans: Spans) -> None:
        sys.path.insert(0, str(HERE))
        try:
            functions: Any = importlib.import_module("functions")
        finally:
            sys.path.remove(str(HERE))
        assert inspect.isclass(vars(functions)["Shop"])
        shop = functions.Shop.named("north")
        assert vars(shop) == {"name": "north"}
        shop.sell("tea")
        functions.Shop.price("tea")
        shop._hidden()
        assert [(span.name, given(span)) for span in spans()] == [
            ("Shop.named", {"name": "north"}), ("Shop.sell", {"what": "tea"}), ("Shop.price", {"what": "tea"}),
        ]  # fmt: skip
        assert vars(pickle.loads(pickle.dumps(shop))) == {"name": "north"}
        assert pickle.loads(pickle.dumps(functions.double)) is functions.double

    def test_are_remembered_weakly_as_before(self, spans: Spans) -> None:
        """As signals of Django and Celery remember who listens."""

        class Listener:
            @otelweir.track
            def heard(self, what: str) -> str:
                return what

            @otelweir.track
            @classmethod
            def of_all(cls, what: str) -> str:
                return what

        listener = Listener()
        references = [weakref.WeakMethod(listener.heard), weakref.WeakMethod(Listener.of_all)]
        for reference in references:
            method = reference()
            assert method is not None and method("a") == "a"
        assert references[0]() == listener.heard
        assert [span.name.rpartition(".")[2] for span in spans()] == ["heard", "of_all"]
        del listener, method
        assert references[0]() is None

    def test_that_are_tracked_already_stay_so(self, spans: Spans) -> None:
        class Shop:
            @otelweir.track
            def sell(self) -> None: ...

        otelweir.track(Shop().sell)()
        otelweir.track(otelweir.track(Shop.sell))(Shop())
        assert [span.name.rpartition(".")[2] for span in spans()] == ["sell", "sell"]

    def test_that_dispatch_by_type(self, spans: Spans) -> None:
        class Printer:
            @otelweir.track
            @functools.singledispatchmethod
            def show(self, value: object) -> str:
                return "object"

            @show.register
            def _(self, value: int) -> str:
                return "int"

        assert [Printer().show(1), Printer().show("")] == ["int", "object"]
        assert [given(span) for span in spans()] == [{"value": 1}, {"value": ""}]

    def test_of_classes_that_are_made_by_others(self, spans: Spans) -> None:
        @otelweir.track
        @dataclasses.dataclass(frozen=True, slots=True)
        class Point:
            x: int

            def doubled(self) -> int:
                return 2 * self.x

        class Model(pydantic.BaseModel):
            x: int

            @pydantic.field_validator("x")
            @otelweir.track
            @classmethod
            def checked(cls, x: int) -> int:
                return x + 1

            @otelweir.track
            def doubled(self) -> int:
                return 2 * self.x

        class Colour(enum.Enum):
            RED = 1

            @otelweir.track
            def doubled(self) -> int:
                return 2 * int(self.value)

        class Shape(abc.ABC):
            @otelweir.track
            @abc.abstractmethod
            def doubled(self) -> int: ...

        @typing.runtime_checkable
        class Doubles(typing.Protocol):
            @otelweir.track
            def doubled(self) -> int: ...

        doubled = [Point(1).doubled(), Model(x=0).doubled(), Colour.RED.doubled()]
        assert (doubled, list(Colour)) == ([2, 2, 2], [Colour.RED])
        assert Model.model_json_schema()["properties"].keys() == {"x"}
        assert isinstance(Point(1), Doubles) and not isinstance(object(), Doubles)
        with pytest.raises(TypeError):
            Shape()  # type: ignore[abstract]
        assert [span.name.rpartition(".")[2] for span in spans()] == ["doubled", "checked", "doubled", "doubled"]


def test_a_task_of_celery_is_a_task_as_before(spans: Spans) -> None:
    app = celery.Celery("shop", broker="memory://", backend="cache+memory://")
    app.conf.task_always_eager = True

    @app.task  # type: ignore[untyped-decorator]
    @otelweir.track
    def add(x: int, y: int = 1) -> int:
        return x + y

    @app.task(bind=True)  # type: ignore[untyped-decorator]
    @otelweir.track
    def named(self: Any, x: int) -> str:
        return f"{self.name} {x}"

    assert add.delay(1, y=2).get() == 3
    assert named.delay(4).get().endswith("named 4")
    with pytest.raises(TypeError):
        add.delay()
    assert [given(span) for span in spans()] == [{"x": 1, "y": 2}, {"x": 4}]


def test_dependencies_of_fastapi_are_dependencies_as_before(spans: Spans) -> None:
    """Those that give their value and clean up later begin in one thread and end in another."""
    app = fastapi.FastAPI()

    @otelweir.track
    def word(q: str = "nothing") -> str:
        return q

    @otelweir.track
    def resource() -> Iterator[str]:
        with otelweir.span("in the resource"):
            yield "open"

    @otelweir.track
    async def other_resource() -> AsyncIterator[str]:
        with otelweir.span("in the other"):
            yield "open, too"

    @app.get("/")
    @otelweir.track
    def route(
        request: fastapi.Request,
        a: str = fastapi.Depends(word),
        b: str = fastapi.Depends(resource),
        c: str = fastapi.Depends(other_resource),
    ) -> list[str]:
        return [a, b, c]

    assert TestClient(app).get("/?q=tea").json() == ["tea", "open", "open, too"]
    assert given(spans.one("route"))["request"] == "<Request>"
    for name, inside in (("resource", "in the resource"), ("other_resource", "in the other")):
        below, above = spans.one(inside).parent, spans.one(name).context
        assert below is not None and above is not None and below.span_id == above.span_id


def test_a_route_of_fastapi_is_a_route_as_before(spans: Spans) -> None:
    """Frameworks look at signatures, and run coroutines otherwise than functions."""
    app = fastapi.FastAPI()

    @app.get("/{number}")
    @otelweir.track
    async def twice(number: int, more: int = 0) -> dict[str, int]:
        return {"twice": 2 * number + more}

    @app.get("/stream/{number}")
    @otelweir.track
    def stream(number: int) -> Any:
        return StreamingResponse(parts(number))

    @otelweir.track
    async def parts(number: int) -> AsyncIterator[str]:
        for _ in range(number):
            yield "x"

    client = TestClient(app)
    assert client.get("/3?more=1").json() == {"twice": 7}
    assert client.get("/stream/3").text == "xxx"
    assert given(spans.one("twice")) == {"number": 3, "more": 1}
    below, above = spans.one("parts").parent, spans.one("stream").context
    assert (below and below.span_id) == (above and above.span_id)


class TestKinds:
    def test_have_the_words_of_the_conventions(self, spans: Spans) -> None:
        for kind in KINDS:
            otelweir.track(name=f"my {kind}", kind=kind)(lambda query: query)("q")
        found = {span.name.removeprefix("my "): dict(span.attributes or {}) for span in spans()}
        names = "gen_ai.operation.name", "openinference.span.kind"
        assert {kind: tuple(map(of.get, names)) for kind, of in found.items()} == {
            "tool": ("execute_tool", None), "agent": ("invoke_agent", None), "retriever": ("retrieval", None),
            "embedding": ("embeddings", None), "chain": (None, "CHAIN"), "evaluator": (None, "EVALUATOR"),
            "llm": ("chat", None),
        }  # fmt: skip
        assert found["tool"]["gen_ai.tool.name"] == "my tool"
        assert found["tool"]["gen_ai.tool.call.arguments"] == '{"query": "q"}'
        assert found["tool"]["gen_ai.tool.call.result"] == '"q"'
        assert found["agent"]["gen_ai.agent.name"] == "my agent"
        assert found["retriever"]["gen_ai.retrieval.query.text"] == "q"

    def test_an_embedding_says_how_many_vectors_it_gave(self, spans: Spans) -> None:
        otelweir.track(name="one", kind="embedding")(lambda text: [0.5] * 3)("a")
        otelweir.track(name="some", kind="embedding")(lambda texts: numpy.zeros((2, 4)))(["a", "b"])
        assert [gave(span) for span in spans()] == [{"vectors": 1, "dimensions": 3}, {"vectors": 2, "dimensions": 4}]
        assert [(span.attributes or {})["gen_ai.embeddings.dimension.count"] for span in spans()] == [3, 4]

    def test_a_chat_has_messages_and_no_values(self, spans: Spans) -> None:
        @otelweir.track(kind="llm")
        def chat(messages: list[dict[str, Any]]) -> dict[str, Any]:
            return {"role": "assistant", "content": "hello", "finish_reason": "length"}

        chat([{"role": "system", "content": "be brief"}, {"role": "user", "content": [{"type": "text", "text": "hi"}]}])
        attributes = spans.one().attributes or {}
        assert json.loads(str(attributes["gen_ai.input.messages"])) == [
            {"role": "system", "parts": [{"type": "text", "content": "be brief"}]},
            {"role": "user", "parts": [{"type": "text", "content": "hi"}]},
        ]
        assert json.loads(str(attributes["gen_ai.output.messages"])) == [
            {"role": "assistant", "parts": [{"type": "text", "content": "hello"}], "finish_reason": "length"}
        ]
        assert "input.value" not in attributes
        assert "output.value" not in attributes

    @pytest.mark.parametrize("wrong", [{"kind": "llmm"}, {"sample": 2}, {"reduce": 3}, {"capture_input": "no"}])
    def test_and_other_arguments_that_cannot_be_used_are_misuse(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ConfigError, match="WEIR-TRACK-002"):
            otelweir.track(**wrong)(len)

    def test_what_cannot_be_called_cannot_be_tracked(self) -> None:
        with pytest.raises(ConfigError, match="int cannot be called"):
            otelweir.track(3)


class TestASample:
    def test_keeps_its_share_and_what_is_below_shares_its_fate(self, spans: Spans) -> None:
        below = otelweir.track(name="below")(len)
        above: Any = otelweir.track(name="above", sample=0.5)(lambda: below("abc"))
        for _ in range(200):
            assert above() == 3
        assert 50 < len(spans("above")) < 150
        assert len(spans("below")) == len(spans("above"))
        assert {(span.attributes or {})["weir.track.sample"] for span in spans("above")} == {0.5}

    def test_keeps_its_share_of_what_a_sampler_kept(self, spans: Spans) -> None:
        """The sampler keeps traces by their randomness; to look at the same again would keep none of them, or all."""

        @otelweir.track(name="part", sample=0.5)
        def tracked() -> None: ...

        chance = random.Random(3)
        kept = 400
        for _ in range(kept):
            trace_id = chance.getrandbits(64) << 64 | (2**56 - 1 - chance.getrandbits(53))
            context = SpanContext(trace_id, 1, True, TraceFlags(TraceFlags.SAMPLED))
            with trace_api.use_span(NonRecordingSpan(context)):
                tracked()
        assert 0.4 * kept < len(spans("part")) < 0.6 * kept

    def test_of_none_or_all(self, spans: Spans) -> None:
        otelweir.track(sample=0)(len)("")
        assert spans() == []
        otelweir.track(sample=1)(len)("")
        assert len(spans()) == 1


def test_without_a_provider_it_does_nothing() -> None:
    """And a provider that comes later is found."""
    program = """if True:
        import otelweir
        from opentelemetry import trace
        from opentelemetry.context import get_current
        here = get_current()
        class Untouchable(list):
            def __iter__(self): raise AssertionError
        @otelweir.track
        def f(x):
            assert get_current() is here
            return otelweir.current_trace_id()
        assert f(Untouchable()) is None
        with otelweir.trace("t") as t:
            t.set_input(1).set_output(2).add_tag("a").set_metadata(a=1).set_error("e").score("s", 1)
        otelweir.update_trace(name="n", input=1)
        from opentelemetry.sdk.trace import TracerProvider
        trace.set_tracer_provider(TracerProvider())
        f = otelweir.track(lambda: otelweir.current_trace_id())
        assert len(f()) == 32
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
